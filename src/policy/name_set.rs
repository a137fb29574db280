//! A set of suffixes over wire names: what block, allow and route lists share.

use crate::wire::name::{Name, NameRef};

/// Maps suffixes to values; the longest match wins.
#[derive(Debug)]
pub struct NameMap<T> {
    _entries: Vec<(Name, T)>, /* the real thing: hashbrown HashTable keyed by seeded hash of each lower-cased suffix */
}
impl<T> NameMap<T> {
    pub fn new() -> Self {
        todo!()
    }
    pub fn insert(&mut self, _suffix: Name, _value: T) -> Option<T> {
        todo!()
    }
    /// Values of all suffixes that `name` is within, longest first. No allocation.
    pub fn matches<'s>(&'s self, _name: NameRef<'_>) -> Option<&'s T> {
        todo!()
    }
}
