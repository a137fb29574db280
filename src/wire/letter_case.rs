//! Letter case of names, eight octets at a time: DNS compares names without it (RFC 4343 §3), on the path of every query.
//!
//! Length octets (at most 63) are below 'A' and stay as they are, so labels need not be told apart.

/// Returns eight octets of a name as a word with A to Z made a to z, all at once.
pub(crate) fn lower_case(octets: [u8; 8]) -> u64 {
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

/// Returns the first and the last eight octets, lower-cased: between them they hold all of up to sixteen octets. Fewer than
/// eight are padded with zeros.
pub(crate) fn ends(octets: &[u8]) -> [u64; 2] {
    [octets.first_chunk().map_or(0, |first| lower_case(*first)), lower_case(last(octets))]
}

/// Returns the last eight octets; fewer have zeros behind them.
fn last(octets: &[u8]) -> [u8; 8] {
    if let Some(last) = octets.last_chunk() {
        return *last;
    }
    let mut padded = [0; 8];
    for (to, from) in padded.iter_mut().zip(octets) {
        *to = *from;
    }
    padded
}

/// True when both are the same but for letter case.
pub(crate) fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let (words, rest) = one.as_chunks();
    let (others, _) = other.as_chunks();
    let is_same = |one: [u8; 8], other: [u8; 8]| one == other || lower_case(one) == lower_case(other);
    // The rest together with what stands before it once more: that is quicker than octet by octet.
    words.iter().zip(others).all(|(one, other)| is_same(*one, *other))
        && (rest.is_empty() || is_same(last(one), last(other)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
    fn the_ends_overlap_or_are_padded() {
        let word = |octets: &[u8; 8]| u64::from_le_bytes(*octets);
        assert_eq!(ends(b"0123456789"), [word(b"01234567"), word(b"23456789")]);
        assert_eq!(ends(b"01234567"), [word(b"01234567"); 2]);
        assert_eq!(ends(b"aBc"), [0, word(b"abc\0\0\0\0\0")]);
    }

    #[test]
    fn every_octet_counts_and_none_but_letters_have_a_case() {
        let with = |len: usize, at: usize, octet| {
            let mut octets = vec![b'x'; len];
            octets[at] = octet;
            octets
        };
        for len in 1..40 {
            let one = vec![b'x'; len];
            for at in 0..len {
                assert!(same(&one, &with(len, at, b'X')), "{at} of {len}");
                assert!(!same(&one, &with(len, at, b'y')), "{at} of {len}");
                assert!(!same(&with(len, at, b'@'), &with(len, at, b'`')), "{at} of {len}");
            }
            assert!(!same(&one, &vec![b'x'; len + 1]));
        }
    }

    proptest! {
        #[test]
        fn same_agrees_with_the_standard_library(
            one in prop::collection::vec(any::<u8>(), 0..40),
            changes in prop::collection::vec((0_usize..40, any::<u8>()), 0..3),
        ) {
            let mut other: Vec<u8> = one.iter().map(u8::to_ascii_uppercase).collect();
            for (at, octet) in changes {
                if let Some(place) = other.get_mut(at) {
                    *place = octet;
                }
            }
            prop_assert_eq!(same(&one, &other), one.eq_ignore_ascii_case(&other));
        }
    }
}
