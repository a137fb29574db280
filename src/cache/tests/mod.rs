//! Tests of the whole cache: what is found when, what is told apart, that the bound holds and that eviction is good.

mod failures;
mod lives;
mod model;
mod room;

use super::key::{KeyRef, PartitionId, Variant};
use super::samples::{Message, address, key, name, serial, settings};
use super::*;
use crate::wire::header::Rcode;
use crate::wire::name::Name;
use crate::wire::question::{Class, QuestionRef, RecordType, Ttl};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// A cache and a clock that the test moves.
struct Bench {
    cache: Cache,
    now: Instant,
}

impl Bench {
    fn new(settings: &CacheSettings) -> Self {
        let now = crate::clock::now();
        Self { cache: Cache::new(settings, now), now }
    }

    fn advance(&mut self, secs: u64) {
        self.now += Duration::from_secs(secs);
    }

    fn store(&self, name: &Name, ttl: u32, serial: u32) -> StoredAnswer {
        self.cache.store(&key(name), address(name, ttl, serial), Provenance::default(), self.now)
    }

    fn fail(&self, name: &Name) -> bool {
        let reply = StoredAnswer::failure(&key(name).question, Rcode::SERVFAIL, None);
        self.cache.store_failure(&key(name), reply, self.now)
    }

    /// A look-up in one word and, if something was found, its age.
    fn look(&self, name: &Name) -> (&'static str, u32) {
        match self.cache.lookup(&key(name), self.cache.moment(self.now)) {
            Lookup::Fresh(found) if found.failure => {
                assert_eq!(found.answer.rcode(), Rcode::SERVFAIL);
                ("failure", found.age_secs)
            }
            Lookup::Fresh(found) => ("fresh", found.age_secs),
            Lookup::FreshRefreshDue(found) => ("refresh", found.age_secs),
            Lookup::Stale(found) if found.failure => ("stale, failing", found.age_secs),
            Lookup::Stale(found) => ("stale", found.age_secs),
            Lookup::Miss => ("miss", 0),
        }
    }

    fn word(&self, name: &Name) -> &'static str {
        self.look(name).0
    }

    fn serial(&self, name: &Name) -> Option<u32> {
        match self.cache.lookup(&key(name), self.cache.moment(self.now)) {
            Lookup::Fresh(found) | Lookup::FreshRefreshDue(found) | Lookup::Stale(found) => {
                Some(serial(&found.answer))
            }
            Lookup::Miss => None,
        }
    }
}
