//! What is told apart in the cache: the question without its letter case, and the bits that change an answer.
//!
//! A key is never stored: an entry is compared by the question inside its answer. Nothing here knows how
//! entries are kept.

use crate::wire::question::QuestionRef;
use hashbrown::DefaultHashBuilder;
use std::hash::{BuildHasher, Hasher};

/// Answers made for the same group under the same answer-side rules are found again; others are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PartitionId(pub u32);

/// Whose answer it is: the number of a server, until its answers are forgotten. 0 stands for nobody in particular.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin(pub u8);

/// The bits of a query that change its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// DO: signatures are wanted (RFC 3225).
    pub dnssec_ok: bool,
    /// CD: data that fail validation are wanted too (RFC 4035 §3.2.2).
    pub checking_disabled: bool,
    /// Under which group and rules the answer was made.
    pub partition: PartitionId,
}

/// A key that borrows the question. The hash ignores letter case.
#[derive(Clone, Copy, Debug)]
pub struct KeyRef<'a> {
    /// Name, type and class asked for.
    pub question: QuestionRef<'a>,
    /// What else changes the answer.
    pub variant: Variant,
}

impl<'a> KeyRef<'a> {
    /// Returns the key with its hash.
    pub(super) fn hashed<'k>(&'k self, builder: &DefaultHashBuilder) -> HashedKey<'k, 'a> {
        let hash = self.hash_with(builder);
        HashedKey { key: self, hash: (hash & 0xFFFF_FFFF) as u32, shard_bits: (hash >> 32) as u32 }
    }

    /// Returns the hash of the key, letter case left out. The builder is seeded per process, so that a stranger cannot
    /// choose names that collide.
    pub fn hash_with(&self, builder: &DefaultHashBuilder) -> u64 {
        let mut hasher = builder.build_hasher();
        let name = self.question.name.as_bytes();
        let (words, rest) = name.as_chunks();
        for word in words {
            hasher.write_u64(lower_case(*word));
        }
        if !rest.is_empty() {
            hasher.write_u64(lower_case(last_word(name)));
        }
        let Variant { dnssec_ok, checking_disabled, partition } = self.variant;
        hasher.write_u64(
            u64::from(self.question.rtype.0)
                | u64::from(self.question.class.0) << 16
                | u64::from(partition.0) << 32,
        );
        hasher.write_usize(name.len() << 2 | usize::from(dnssec_ok) | usize::from(checking_disabled) << 1);
        hasher.finish()
    }
}

/// A key and its hash: half of it picks the shard, the other half finds the entry there.
#[derive(Clone, Copy, Debug)]
pub(super) struct HashedKey<'k, 'a> {
    /// The key itself.
    pub(super) key: &'k KeyRef<'a>,
    /// Finds the entry in its shard.
    pub(super) hash: u32,
    /// Picks the shard; independent of `hash`.
    pub(super) shard_bits: u32,
}

/// Returns the last eight octets, those before a rest that was hashed already among them; fewer are padded.
fn last_word(name: &[u8]) -> [u8; 8] {
    if let Some(last) = name.last_chunk() {
        return *last;
    }
    let mut padded = [0; 8];
    for (to, from) in padded.iter_mut().zip(name) {
        *to = *from;
    }
    padded
}

/// Returns eight octets of a name as a word with A to Z made a to z, all at once. Length octets (at most 63) are below
/// 'A' and stay as they are, so labels need not be told apart.
fn lower_case(octets: [u8; 8]) -> u64 {
    /// One in every octet.
    const ONES: u64 = u64::MAX / 255;
    /// The top bit of every octet.
    const TOPS: u64 = ONES << 7;
    let word = u64::from_le_bytes(octets);
    let low = word & !TOPS;
    let beyond_z = low + ONES * (0x7F - b'Z' as u64);
    let from_a = low + ONES * (0x80 - b'A' as u64);
    let upper = (beyond_z ^ from_a) & !word & TOPS;
    word | upper >> 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::name::NameRef;
    use crate::wire::question::{Class, RecordType};

    #[test]
    fn lower_case_agrees_with_ascii_for_every_octet_at_every_place() {
        for octet in 0..=u8::MAX {
            for place in 0..8 {
                let mut octets = [b'Q', 0, 63, b'z', 0xFF, b'@', b'[', b'A'];
                octets[place] = octet;
                let expected = u64::from_le_bytes(octets.map(|o| o.to_ascii_lowercase()));
                assert_eq!(lower_case(octets), expected, "octet {octet} at {place}");
            }
        }
    }

    #[test]
    fn the_last_word_overlaps_or_is_padded() {
        assert_eq!(&last_word(b"0123456789"), b"23456789");
        assert_eq!(&last_word(b"abc"), b"abc\0\0\0\0\0");
    }

    #[test]
    fn every_octet_and_bit_of_a_key_changes_the_hash() {
        let builder = DefaultHashBuilder::default();
        for len in 1..=30 {
            let wire = |at: usize, letter| {
                let mut wire = vec![b'x'; len + 2];
                (wire[0], wire[len + 1]) = (u8::try_from(len).unwrap(), 0);
                wire[at] = letter;
                wire
            };
            let hash = |wire: &[u8], variant| {
                let name = NameRef::parse(wire).unwrap();
                let question = QuestionRef { name, rtype: RecordType::A, class: Class::IN };
                KeyRef { question, variant }.hashed(&builder).hash
            };
            let plain = Variant { dnssec_ok: false, checking_disabled: false, partition: PartitionId(0) };
            let base = hash(&wire(1, b'x'), plain);
            for at in 1..=len {
                assert_ne!(hash(&wire(at, b'y'), plain), base, "octet {at} of {len}");
                assert_eq!(hash(&wire(at, b'X'), plain), base, "octet {at} of {len}");
            }
            let base_wire = wire(1, b'x');
            assert_ne!(hash(&base_wire, Variant { dnssec_ok: true, ..plain }), base);
            assert_ne!(hash(&base_wire, Variant { checking_disabled: true, ..plain }), base);
            assert_ne!(hash(&base_wire, Variant { partition: PartitionId(1), ..plain }), base);
        }
    }
}
