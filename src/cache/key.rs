//! What is told apart in the cache: the question without its letter case, and the bits that change an answer.
//!
//! A key is never stored: an entry is compared by the question inside its answer. Nothing here knows how
//! entries are kept.

use crate::wire::letter_case::ends;
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
        HashedKey { key: self, hash: (hash & 0xFFFF_FFFF) as u32, shard_bits: shard_bits(hash) }
    }

    /// Returns the hash of the key, letter case left out. The builder is seeded per process, so that a stranger cannot
    /// choose names that collide.
    pub(super) fn hash_with(&self, builder: &DefaultHashBuilder) -> u64 {
        let mut hasher = builder.build_hasher();
        // Sixteen octets at a time: the hasher mixes two words by one multiplication.
        let mut write = |[low, high]: [u64; 2]| hasher.write_u128(u128::from(low) | u128::from(high) << 64);
        let name = self.question.name.as_bytes();
        let (pairs, rest) = name.as_chunks::<16>();
        for pair in pairs {
            write(ends(pair));
        }
        if !rest.is_empty() {
            write(ends(name.last_chunk::<16>().map_or(name, <[u8; 16]>::as_slice)));
        }
        let Variant { dnssec_ok, checking_disabled, partition } = self.variant;
        let question = u64::from(self.question.rtype.0) | u64::from(self.question.class.0) << 16;
        let bits = u64::from(dnssec_ok) | u64::from(checking_disabled) << 1 | (name.len() as u64) << 2;
        write([question | u64::from(partition.0) << 32, bits]);
        hasher.finish()
    }
}

/// Returns the half of a hash that picks the shard.
pub(super) fn shard_bits(hash: u64) -> u32 {
    (hash >> 32) as u32
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::name::NameRef;
    use crate::wire::question::{Class, RecordType};

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
