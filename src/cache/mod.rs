//! Answers we already have. See `lifetime` for how long, `key` for what is told apart.

pub mod entry;
pub mod key;
pub mod lifetime;
pub mod shard;

use crate::wire::stored::StoredAnswer;
use std::time::Instant;

/// What a look-up found.
#[derive(Debug)]
pub enum Lookup {
    Fresh(Found),
    /// Fresh, in the last 10 % of its life, asked for at least twice before: the caller starts one refresh.
    FreshRefreshDue(Found),
    /// Expired, within `max_stale`.
    Stale(Found),
    Miss,
}
/// A found answer and its age.
#[derive(Debug)]
pub struct Found {
    pub answer: StoredAnswer,
    pub age_secs: u32,
    /* true: a cached failure (RFC 9520) */ pub failure: bool,
}

/// The cache. Shared by all workers; outlives reloads.
#[derive(Debug)]
pub struct Cache {}

impl Cache {
    pub fn new(_settings: &crate::config::settings::CacheSettings, _now: Instant) -> Self {
        todo!()
    }
    /// New limits and lifetimes; shrinks at once. Entries stay.
    pub fn reconfigure(&self, _settings: &crate::config::settings::CacheSettings) {
        todo!()
    }
    pub fn lookup(&self, _key: &key::KeyRef<'_>, _now: Instant) -> Lookup {
        todo!()
    }
    /// Stores an answer that passed validation and answer-side policy and returns it as clients get it (TTLs clamped); not stored (but still returned, clamped) when its lifetime is 0 or the cache is off.
    /// `age_secs`: HTTP Age, subtracted from the lifetime.
    pub fn store(
        &self,
        _key: &key::KeyRef<'_>,
        _answer: StoredAnswer,
        _age_secs: u32,
        _now: Instant,
    ) -> StoredAnswer {
        todo!()
    }
    /// Remembers a failure for 5 s, doubling to 60 s while it goes on (RFC 9520). Never replaces an answer that is still fresh or may be served stale.
    pub fn store_failure(&self, _key: &key::KeyRef<'_>, _reply: StoredAnswer, _now: Instant) {
        todo!()
    }
    /// Forgets all cached failures (a server came back, the network changed).
    pub fn forget_failures(&self) {
        todo!()
    }
    /// Removes a name and all below it; None: everything. Returns how many.
    pub fn purge(&self, _name: Option<crate::wire::name::NameRef<'_>>) -> usize {
        todo!()
    }
    /// (entries, octets held: keys, answers, tables and bookkeeping).
    pub fn usage(&self) -> (u64, u64) {
        todo!()
    }
}
