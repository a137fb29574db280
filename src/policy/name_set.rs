//! A map of suffixes over wire names: what allow lists, special names and routes share. It finds; what a match means
//! is its user's to say. Looking up neither allocates nor depends on how many suffixes there are.

use crate::wire::name::{MAX_NAME, Name, NameRef};
use hashbrown::DefaultHashBuilder;
use hashbrown::hash_table::{Entry, HashTable};
use std::hash::BuildHasher;
use std::iter::FusedIterator;

/// Maps suffixes to values; a longer match comes before a shorter one.
#[derive(Debug)]
pub struct NameMap<T> {
    /// Suffixes by the hash of their lower-cased octets.
    table: HashTable<(Name, T)>,
    /// Seeded at random, so that nobody can choose names that collide.
    seed: DefaultHashBuilder,
    /// How the suffixes end.
    tops: TopFilter,
}

impl<T> Default for NameMap<T> {
    fn default() -> Self {
        Self { table: HashTable::new(), seed: DefaultHashBuilder::default(), tops: TopFilter::default() }
    }
}

impl<T> NameMap<T> {
    /// Makes an empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the value of a suffix and returns the one it had.
    pub fn insert(&mut self, suffix: Name, value: T) -> Option<T> {
        self.tops.add(suffix.view());
        match self.entry(suffix.view()) {
            Entry::Occupied(mut entry) => Some(std::mem::replace(&mut entry.get_mut().1, value)),
            Entry::Vacant(entry) => {
                entry.insert((suffix, value));
                None
            }
        }
    }

    /// Returns how many suffixes there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// True without suffixes.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Returns the value of the longest suffix that `name` is within.
    pub fn matches<'s>(&'s self, name: NameRef<'_>) -> Option<&'s T> {
        // Before anything is copied: this is on the path of every query.
        self.tops.may_hold(name).then(|| self.matches_all(name).next())?
    }

    /// Returns the values of all suffixes that `name` is within, longest first.
    pub fn matches_all<'s>(&'s self, name: NameRef<'_>) -> Matches<'s, T> {
        let mut matches = Matches { map: self, name: [0; MAX_NAME], at: MAX_NAME };
        let start = MAX_NAME - name.as_bytes().len();
        if let Some(octets) = matches.name.get_mut(start..).filter(|_| self.tops.may_hold(name)) {
            octets.copy_from_slice(name.as_bytes());
            octets.make_ascii_lowercase();
            matches.at = start;
        }
        matches
    }

    /// Finds the place of a lower-cased suffix.
    fn entry(&mut self, suffix: NameRef<'_>) -> Entry<'_, (Name, T)> {
        let seed = &self.seed;
        self.table.entry(
            seed.hash_one(suffix.as_bytes()),
            |(name, _)| name.view().as_bytes() == suffix.as_bytes(),
            |(name, _)| seed.hash_one(name.view().as_bytes()),
        )
    }

    /// Returns the entry of exactly this lower-cased suffix.
    fn find(&self, suffix: &[u8]) -> Option<&(Name, T)> {
        self.table.find(self.seed.hash_one(suffix), |(name, _)| name.view().as_bytes() == suffix)
    }
}

/// Tells by a name's last octets alone that it matches nothing, which spares most names all other look-ups: small maps hold
/// a handful of top-level labels, and what people ask for is mostly under others.
///
/// 1,024 bits, so that it is unlikely for any popular domain to share one with a small map's labels.
#[derive(Clone, Debug, Default)]
struct TopFilter([u64; 16]);

impl TopFilter {
    /// Notes the end of a suffix. The root, and what is hardly longer, is at the end of other names, too.
    fn add(&mut self, suffix: NameRef<'_>) {
        let Some((word, bit)) = Self::place(suffix) else {
            self.0.fill(u64::MAX);
            return;
        };
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    /// False when no suffix ends like `name`.
    fn may_hold(&self, name: NameRef<'_>) -> bool {
        let Some((word, bit)) = Self::place(name) else { return true };
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Returns the word and the bit of a name: from the three octets before the root, whatever the letters' case. None when
    /// not all of them are the name's own. Not seeded: whoever aims at a bit gains one ordinary look-up.
    fn place(name: NameRef<'_>) -> Option<(usize, u64)> {
        /// Sheds the bit that is a letter's case, the same of any two octets that differ by it alone.
        const WITHOUT_CASE: u32 = 0x001F_1F1F;
        let [first, second, third, _root] = *name.as_bytes().last_chunk()?;
        let ends = u32::from_be_bytes([0, first, second, third]) & WITHOUT_CASE;
        // The multiplier is 2^32 divided by the golden ratio: it spreads over the top bits what differs below.
        let [high, low, ..] = ends.wrapping_mul(0x9E37_79B1).to_be_bytes();
        let place = u16::from_be_bytes([high, low]) >> 6;
        Some((usize::from(place / 64), 1 << (place % 64)))
    }
}

/// Values of the suffixes that a name is within. See [`NameMap::matches_all`].
#[derive(Debug)]
pub struct Matches<'s, T> {
    /// Where to look.
    map: &'s NameMap<T>,
    /// The lower-cased name, at the end of the buffer.
    name: [u8; MAX_NAME],
    /// Where in it the suffix to look for next starts.
    at: usize,
}

impl<'s, T> Iterator for Matches<'s, T> {
    type Item = &'s T;

    fn next(&mut self) -> Option<&'s T> {
        loop {
            // Past the root's octet nothing is left.
            let suffix = self.name.get(self.at..)?;
            self.at += 1 + usize::from(*suffix.first()?);
            if let Some((_, value)) = self.map.find(suffix) {
                return Some(value);
            }
        }
    }
}

impl<T> FusedIterator for Matches<'_, T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// A map from each text to itself.
    fn map(suffixes: &[&'static str]) -> NameMap<&'static str> {
        let mut map = NameMap::new();
        for suffix in suffixes {
            map.insert(name(suffix), *suffix);
        }
        map
    }

    #[test]
    fn all_matches_come_longest_first() {
        let map = map(&["example", "b.example", "a.b.example", "x.example", "."]);
        let found: Vec<_> = map.matches_all(name("c.a.B.example").view()).copied().collect();
        assert_eq!(found, ["a.b.example", "b.example", "example", "."]);
        assert_eq!(map.matches(name("b.example").view()), Some(&"b.example"));
    }

    #[test]
    fn letter_case_of_the_name_is_ignored() {
        let asked = NameRef::parse(b"\x03wWw\x07EXAMPLE\x00").unwrap();
        assert_eq!(map(&["Example"]).matches(asked), Some(&"Example"));
    }

    #[test]
    fn short_suffixes_are_found_at_the_end_of_any_name() {
        let map = map(&["a", "bc"]);
        for (asked, expected) in
            [("a", "a"), ("x.a", "a"), ("longer.A", "a"), ("bc", "bc"), ("x.BC", "bc"), ("longer.bc", "bc")]
        {
            assert_eq!(map.matches(name(asked).view()), Some(&expected), "{asked}");
        }
    }

    #[test]
    fn names_under_popular_domains_need_no_look_up_in_a_small_map() {
        let special = ["test", "invalid", "onion", "alt", "local", "internal", "home.arpa", "localhost"];
        let map = map(&special);
        for top in [
            "com",
            "net",
            "org",
            "de",
            "uk",
            "jp",
            "cn",
            "io",
            "dev",
            "app",
            "info",
            "fr",
            "nl",
            "ru",
            "br",
            "eu",
            "cloud",
            "global",
            "goog",
            "amazon",
            "microsoft",
        ] {
            assert!(!map.tops.may_hold(name(&format!("www.example.{top}")).view()), "{top}");
        }
        assert!(map.tops.may_hold(name("printer.LOCAL").view()));
    }

    #[test]
    fn labels_are_compared_whole() {
        let map = map(&["b.example"]);
        for other in ["ab.example", "example", "b.example.com", "."] {
            assert_eq!(map.matches(name(other).view()), None, "{other}");
        }
    }

    #[test]
    fn an_empty_map_matches_nothing() {
        assert_eq!(map(&[]).matches(NameRef::ROOT), None);
    }

    #[test]
    fn the_root_matches_every_name() {
        let map = map(&["."]);
        assert_eq!(map.matches(NameRef::ROOT), Some(&"."));
        assert_eq!(map.matches(name("www.example").view()), Some(&"."));
    }

    #[test]
    fn a_second_value_replaces_the_first_and_hands_it_back() {
        let mut map = map(&["example"]);
        assert_eq!(map.insert(name("example"), "new"), Some("example"));
        assert_eq!((map.matches(name("example").view()), map.len()), (Some(&"new"), 1));
    }

    #[test]
    fn the_longest_name_is_looked_up() {
        let longest = "a.".repeat(127);
        assert_eq!(name(&longest).view().as_bytes().len(), MAX_NAME);
        assert_eq!(map(&["a"]).matches_all(name(&longest).view()).count(), 1);
    }

    proptest! {
        #[test]
        fn matches_are_the_suffixes_the_name_is_within(
            suffixes in prop::collection::hash_set("([abA]\\.){1,4}", 0..12),
            asked in "([abAB]\\.){1,6}",
        ) {
            let asked: Name = asked.parse().unwrap();
            let mut map = NameMap::new();
            for suffix in &suffixes {
                map.insert(name(suffix), name(suffix));
            }
            let mut expected: Vec<Name> = suffixes
                .iter()
                .map(|suffix| name(suffix))
                .filter(|suffix| asked.view().is_within(suffix.view()))
                .collect();
            expected.sort_by_key(|suffix| std::cmp::Reverse(suffix.view().as_bytes().len()));
            expected.dedup();
            let found: Vec<Name> = map.matches_all(asked.view()).cloned().collect();
            prop_assert_eq!(found, expected);
        }
    }
}
