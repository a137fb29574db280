//! Answers we already have. See `lifetime` for how long, `key` for what is told apart, `eviction` for what goes when
//! memory is full.
//!
//! Whole answers are kept by their question, never single records, and handed out as they are: a look-up hashes the
//! question, locks one of the shards for some tens of nanoseconds and counts a reference. It does not allocate, does not
//! render and does not know clients. Whether an answer deserves to be here was decided by the caller.

mod entry;
mod eviction;
pub mod key;
mod lifetime;
#[cfg(test)]
mod samples;
mod shard;
mod slots;
#[cfg(test)]
mod tests;
pub mod walk;

use self::entry::Serving;
use self::key::Origin;
use self::lifetime::{FailureTimes, Fate, Rules, Ticks, whole_secs};
use self::shard::{Limits, Newcomer, Shard};
use self::walk::{Chosen, Progress, Walk};
use crate::config::settings::CacheSettings;
use crate::wire::name::NameRef;
use crate::wire::stored::StoredAnswer;
use hashbrown::DefaultHashBuilder;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Parts with a lock each. Enough that workers seldom meet, few enough that a small cache is not cut to shreds.
const SHARDS: u16 = 32;

/// What a look-up found.
#[derive(Debug)]
pub enum Lookup {
    /// An answer within its life, or a failure not worth repeating yet (`Found::failure`).
    Fresh(Found),
    /// Fresh, in the last 10 % of its life, asked for at least twice before: the caller begins a refresh if it can, and says so
    /// ([`Cache::refresh_begins`]). Until then each look-up says it.
    FreshRefreshDue(Found),
    /// Expired, within `max_stale` (RFC 8767). With `Found::failure` a newer one could not be had some seconds ago: it
    /// may be served at once, without asking again.
    Stale(Found),
    /// Nothing of use.
    Miss,
}

/// A found answer and its age.
#[derive(Debug)]
pub struct Found {
    /// The answer; TTLs as on the day it was stored.
    pub answer: StoredAnswer,
    /// Whole seconds since then.
    pub age_secs: u32,
    /// True while a failure is remembered (RFC 9520). With `Lookup::Fresh` the answer is the reply to the failure.
    pub failure: bool,
}

/// What is known of an answer besides the answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Provenance {
    /// Whose it is.
    pub origin: Origin,
    /// How old it was when it came (HTTP Age).
    pub age_secs: u32,
}

/// The cache. Shared by all workers; outlives reloads.
pub struct Cache {
    /// The zero of `Ticks`.
    epoch: Instant,
    /// Seeds of the hash, random for each process.
    hash_builder: DefaultHashBuilder,
    /// How long answers live. Read on store only, so that a lock of its own does.
    rules: Mutex<Rules>,
    /// The parts.
    shards: [PaddedShard; SHARDS as usize],
    /// Octets that all of it may take, as configured.
    bound: AtomicU64,
    /// A bit for each origin that is gone: what still comes from there is not kept.
    gone: [AtomicU64; 4],
}

/// A point in time by the cache's clock: see [`Cache::moment`].
#[derive(Clone, Copy, Debug)]
pub struct Moment(Ticks);

/// A shard alone on its cache lines: two neighbours' locks on one line would slow both.
#[repr(align(128))]
#[derive(Debug)]
struct PaddedShard(Mutex<Shard>);

impl Cache {
    /// Makes an empty cache. `now` becomes the zero of its clock.
    pub fn new(settings: &CacheSettings, now: Instant) -> Self {
        let limits = shard_limits(settings);
        Self {
            epoch: now,
            hash_builder: DefaultHashBuilder::default(),
            rules: Mutex::new(Rules::new(settings)),
            shards: std::array::from_fn(|_| PaddedShard(Mutex::new(Shard::new(limits)))),
            bound: AtomicU64::new(settings.max_size),
            gone: Default::default(),
        }
    }

    /// Takes on new limits and lifetimes; shrinks at once. Entries stay, for the lives they were given.
    pub fn reconfigure(&self, settings: &CacheSettings) {
        *lock(&self.rules) = Rules::new(settings);
        self.bound.store(settings.max_size, Ordering::Relaxed);
        let limits = shard_limits(settings);
        for mut shard in self.shards() {
            shard.set_limits(limits);
        }
    }

    /// Returns `now` by the cache's clock, for any number of look-ups.
    pub fn moment(&self, now: Instant) -> Moment {
        Moment(Ticks::since(self.epoch, now))
    }

    /// Returns the hash of a key, letter case left out, by which it has its place here. Seeded for each process.
    pub fn hash(&self, key: &key::KeyRef<'_>) -> u64 {
        key.hash_with(&self.hash_builder)
    }

    /// Returns which of `lanes` a key with this hash belongs to. What is stored for keys of different lanes is behind different
    /// locks wherever the number of lanes divides that of the parts.
    pub fn lane_of(hash: u64, lanes: usize) -> usize {
        usize::try_from(key::shard_bits(hash)).unwrap_or(0) % lanes.max(1)
    }

    /// Returns what is known, and counts the use.
    pub fn lookup(&self, key: &key::KeyRef<'_>, Moment(now): Moment) -> Lookup {
        let hashed = key.hashed(&self.hash_builder);
        match self.shard(&hashed) {
            Some(mut shard) => shard.lookup(&hashed, now),
            None => Lookup::Miss,
        }
    }

    /// Notes that a refresh of an answer was begun: no look-up asks for another one until it has
    /// brought an answer or a failure that is remembered.
    pub fn refresh_begins(&self, key: &key::KeyRef<'_>) {
        let hashed = key.hashed(&self.hash_builder);
        if let Some(mut shard) = self.shard(&hashed) {
            shard.refresh_begins(&hashed);
        }
    }

    /// Notes that a refresh that was begun was left out after all.
    pub fn refresh_is_over(&self, key: &key::KeyRef<'_>) {
        let hashed = key.hashed(&self.hash_builder);
        if let Some(mut shard) = self.shard(&hashed) {
            shard.refresh_is_over(&hashed);
        }
    }

    /// Stores an answer that passed validation and answer-side policy and returns it as clients get it (TTLs clamped).
    /// Returned but not stored: rcodes other than NOERROR and NXDOMAIN, and answers whose lifetime is 0. The latter still
    /// put an end to what was known before, so that nothing stale outlives a newer word (ghost domains).
    /// The age it came with is subtracted from the lifetime.
    pub fn store(
        &self,
        key: &key::KeyRef<'_>,
        answer: StoredAnswer,
        provenance: Provenance,
        now: Instant,
    ) -> StoredAnswer {
        let Provenance { origin, age_secs } = provenance;
        let rules = *lock(&self.rules);
        let terms = rules.terms(&answer, age_secs);
        let answer = answer.clamp_ttls(terms.floor, terms.ceiling);
        let hashed = key.hashed(&self.hash_builder);
        let now = Ticks::since(self.epoch, now);
        if let Some(mut shard) = self.shard(&hashed) {
            match terms.fate {
                // Asked under the lock: what `forget_origins` does not find here yet is not put in behind its back either.
                Fate::Kept { .. } if self.is_gone(origin) => {}
                Fate::Kept { secs } => {
                    // Shared by the cache and the caller: the clone counts a reference.
                    let newcomer = Newcomer { answer: answer.clone(), lifetime_secs: secs, origin };
                    shard.store(&hashed, newcomer, now);
                }
                Fate::Displaces => shard.remove_key(&hashed),
                Fate::Passes => {}
            }
        }
        answer
    }

    /// Remembers a failure for `cache.failure_ttl`, doubling to `cache.failure_max_ttl` while it goes on (RFC 9520 §3.2). Never
    /// replaces an answer that is still fresh or may be served stale; that one is marked instead (`Found::failure`). True when
    /// it would be remembered longer but for that bound.
    pub fn store_failure(&self, key: &key::KeyRef<'_>, reply: StoredAnswer, now: Instant) -> bool {
        let hashed = key.hashed(&self.hash_builder);
        let now = Ticks::since(self.epoch, now);
        self.shard(&hashed).is_some_and(|mut shard| shard.store_failure(&hashed, reply, now))
    }

    /// Forgets all cached failures (a server came back, the network changed).
    pub fn forget_failures(&self) {
        for mut shard in self.shards() {
            shard.forget_failures();
        }
    }

    /// Removes a name and all below it; None: everything. Returns how many entries went.
    pub fn purge(&self, name: Option<NameRef<'_>>) -> usize {
        match name {
            Some(name) => self.purge_all(Chosen::Within(name)),
            // What is taken out is freed after the lock.
            None => self.shards().map(|mut shard| shard.take()).map(|taken| taken.len()).sum(),
        }
    }

    /// Forgets the answers of servers that are gone; those that are under way are not kept. Returns how many entries went.
    pub fn forget_origins(&self, origins: &[Origin]) -> usize {
        for origin in origins.iter().filter(|origin| **origin != Origin::default()) {
            let (word, bit) = place_of(*origin);
            if let Some(word) = self.gone.get(word) {
                word.fetch_or(bit, Ordering::Release);
            }
        }
        self.purge_all(Chosen::Of(origins))
    }

    /// Keeps the answers of a server whose number was another's before.
    pub fn welcome(&self, origin: Origin) {
        let (word, bit) = place_of(origin);
        if let Some(word) = self.gone.get(word) {
            word.fetch_and(!bit, Ordering::Release);
        }
    }

    /// True for the number of a server that is gone.
    fn is_gone(&self, origin: Origin) -> bool {
        let (word, bit) = place_of(origin);
        self.gone.get(word).is_some_and(|word| word.load(Ordering::Acquire) & bit != 0)
    }

    /// Walks through the cache to its end and removes what is chosen.
    fn purge_all(&self, chosen: Chosen<'_>) -> usize {
        let mut walk = Walk::default();
        let mut gone = 0;
        loop {
            let (progress, removed) = self.forget_around(&mut walk, chosen);
            gone += removed;
            if progress == Progress::Done {
                return gone;
            }
        }
    }

    /// Returns (entries, octets held: answers with their questions, tables, slots and bookkeeping).
    pub fn usage(&self) -> (u64, u64) {
        let held = self.shards().map(|shard| (shard.len(), shard.octets() + shard_overhead()));
        let (entries, octets) = held.fold((0, OVERHEAD), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        (u64::try_from(entries).unwrap_or(u64::MAX), u64::try_from(octets).unwrap_or(u64::MAX))
    }

    /// Returns the octets that it may hold.
    pub fn bound(&self) -> u64 {
        self.bound.load(Ordering::Relaxed)
    }

    /// Locks the shard of a key. It is always there.
    fn shard(&self, key: &key::HashedKey<'_, '_>) -> Option<MutexGuard<'_, Shard>> {
        let index = usize::try_from(key.shard_bits).ok()? % usize::from(SHARDS);
        self.shards.get(index).map(|shard| lock(&shard.0))
    }

    /// Locks one shard after the other.
    fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        self.shards.iter().map(|shard| lock(&shard.0))
    }
}

/// Says how full it is, not what is in it: names are the users' business.
impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (entries, octets) = self.usage();
        f.debug_struct("Cache").field("entries", &entries).field("octets", &octets).finish_non_exhaustive()
    }
}

/// Returns the word and the bit of an origin in `Cache::gone`.
fn place_of(Origin(number): Origin) -> (usize, u64) {
    (usize::from(number / 64), 1 << (number % 64))
}

/// Locks. A panic while it was held (a bug elsewhere) leaves at worst a miscounted entry, no reason to fail for good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns one shard's part of the limits.
fn shard_limits(settings: &CacheSettings) -> Limits {
    let octets = usize::try_from(settings.max_size).unwrap_or(usize::MAX).saturating_sub(OVERHEAD);
    Limits {
        octets: (octets / usize::from(SHARDS)).saturating_sub(shard_overhead()),
        serving: Serving {
            max_stale_secs: whole_secs(settings.max_stale),
            prefetch: settings.prefetch,
            failures: FailureTimes::new(settings),
        },
    }
}

/// Octets of a cache beyond its shards.
const OVERHEAD: usize = size_of::<Cache>() - SHARDS as usize * size_of::<PaddedShard>();

/// Octets of a shard's lock and padding, beyond what the shard counts itself.
const fn shard_overhead() -> usize {
    size_of::<PaddedShard>() - size_of::<Shard>()
}
