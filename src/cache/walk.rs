//! A walk through the cache for the operator: what is kept of a name, and forgetting it. A walk locks one shard for a few
//! slots at a time, so that look-ups never wait long for it; what comes or goes behind its back it may miss. Everything
//! that a client does goes by `mod.rs` instead.

use super::entry::{Entry, Phase};
use super::key::{Origin, Variant};
use super::lifetime::Ticks;
use super::shard::Shard;
use super::{Cache, SHARDS, lock};
use crate::wire::name::NameRef;
use crate::wire::stored::StoredAnswer;
use std::time::Instant;

/// Slots of one step: some microseconds under the lock, even when none of them is in the processor's caches.
const STEP: usize = 128;

/// How far a walk has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// The shard.
    shard: usize,
    /// The next slot in it.
    slot: usize,
}

/// Whether a walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to see: between two steps others get their turn.
    More,
    /// All was seen.
    Done,
}

/// What a walk is about.
#[derive(Clone, Copy, Debug)]
pub enum Chosen<'a> {
    /// This name.
    One(NameRef<'a>),
    /// This name and all below it.
    Within(NameRef<'a>),
    /// The answers of these.
    Of(&'a [Origin]),
}

impl Chosen<'_> {
    /// True when an entry is meant.
    fn match_entry(self, entry: &Entry) -> bool {
        let name = entry.stored_answer().question().name;
        match self {
            Self::One(wanted) => name.eq_ignore_case(wanted),
            Self::Within(top) => name.is_within(top),
            Self::Of(origins) => origins.contains(&entry.origin()),
        }
    }
}

/// One answer that is kept.
#[derive(Debug)]
pub struct Kept {
    /// The answer, with the TTLs it had on the day it was stored.
    pub answer: StoredAnswer,
    /// For which queries.
    pub variant: Variant,
    /// Of what use it is now.
    pub standing: Standing,
    /// Whole seconds since it was stored.
    pub age_secs: u32,
    /// Seconds for which it will not be asked for anew, because that failed not long ago (RFC 9520).
    pub failing_secs: Option<u32>,
}

/// Of what use a kept answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is given to clients.
    Fresh {
        /// For so many seconds.
        left_secs: u32,
    },
    /// Its time is over, but it may help out (RFC 8767).
    Stale {
        /// For so many seconds.
        left_secs: u32,
    },
    /// It is the reply to a failure that is remembered (RFC 9520), for `Kept::failing_secs`.
    Failure,
    /// It is of no use and waits to be replaced.
    Spent,
}

impl Cache {
    /// Takes one step: adds to `found` what is kept of `chosen` in the slots it comes by.
    pub fn look_around(
        &self,
        walk: &mut Walk,
        chosen: Chosen<'_>,
        now: Instant,
        found: &mut Vec<Kept>,
    ) -> Progress {
        let now = Ticks::since(self.epoch, now);
        self.step(walk, |shard, slots| {
            let serving = shard.serving();
            let entries = shard.entries(slots).filter(|(_, entry)| chosen.match_entry(entry));
            found.extend(entries.map(|(_, entry)| entry.kept(&serving, now)));
        })
    }

    /// Takes one step: removes what is kept of `chosen` in the slots it comes by; says how many entries that were.
    pub fn forget_around(&self, walk: &mut Walk, chosen: Chosen<'_>) -> (Progress, usize) {
        let mut gone = Vec::new();
        let progress = self.step(walk, |shard, slots| {
            let entries = shard.entries(slots).filter(|(_, entry)| chosen.match_entry(entry));
            let ids: Vec<_> = entries.map(|(id, _)| id).collect();
            gone.extend(ids.into_iter().filter_map(|id| shard.remove(id)));
        });
        // What was taken out is freed here, after the lock.
        (progress, gone.len())
    }

    /// Hands the next slots to `see` and moves on.
    fn step(&self, walk: &mut Walk, see: impl FnOnce(&mut Shard, std::ops::Range<usize>)) -> Progress {
        let Some(shard) = self.shards.get(walk.shard) else { return Progress::Done };
        let end = walk.slot.saturating_add(STEP);
        let seen_all = {
            let mut shard = lock(&shard.0);
            see(&mut shard, walk.slot..end);
            end >= shard.slots_len()
        };
        *walk = if seen_all { Walk { shard: walk.shard + 1, slot: 0 } } else { Walk { slot: end, ..*walk } };
        if walk.shard < usize::from(SHARDS) { Progress::More } else { Progress::Done }
    }
}

/// Returns of what use an answer in this phase is, which has so many seconds left of its phase.
pub(super) fn standing(phase: Phase, left_secs: u32, is_failure: bool) -> Standing {
    match phase {
        Phase::Fresh => Standing::Fresh { left_secs },
        Phase::Stale => Standing::Stale { left_secs },
        Phase::Dead if is_failure => Standing::Failure,
        Phase::Dead => Standing::Spent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Provenance;
    use crate::cache::key::{KeyRef, PartitionId};
    use crate::cache::samples::{address, key, name, settings};
    use crate::wire::header::Rcode;
    use crate::wire::name::Name;
    use std::time::Duration;

    /// Walks to the end and returns what is kept of a name.
    fn kept(cache: &Cache, chosen: Chosen<'_>, now: Instant) -> Vec<Kept> {
        let (mut walk, mut found) = (Walk::default(), Vec::new());
        while cache.look_around(&mut walk, chosen, now, &mut found) == Progress::More {}
        found
    }

    /// A cache with so many names below `example.`, fresh for 300 s.
    fn filled(names: u32) -> (Cache, Instant) {
        let now = crate::clock::now();
        let cache = Cache::new(&settings(), now);
        for number in 0..names {
            let name = name(&format!("h{number}.example."));
            cache.store(&key(&name), address(&name, 300, number), Provenance::default(), now);
        }
        (cache, now)
    }

    #[test]
    fn every_variant_of_a_name_is_found_among_thousands_of_others() {
        let (cache, now) = filled(20_000);
        let wanted: Name = name("h4711.example.");
        let question = key(&wanted).question;
        for (dnssec_ok, partition) in [(true, 0), (false, 7)] {
            let variant = Variant { dnssec_ok, checking_disabled: false, partition: PartitionId(partition) };
            cache.store(&KeyRef { question, variant }, address(&wanted, 60, 1), Provenance::default(), now);
        }
        let upper: Name = name("H4711.EXAMPLE.");
        let found = kept(&cache, Chosen::One(upper.view()), now + Duration::from_secs(10));
        let mut seen: Vec<_> = found
            .iter()
            .map(|kept| (kept.variant.dnssec_ok, kept.variant.partition.0, kept.standing))
            .collect();
        seen.sort_by_key(|(dnssec_ok, partition, _)| (*dnssec_ok, *partition));
        let original = key(&wanted).variant.partition.0;
        assert!(seen.contains(&(false, original, Standing::Fresh { left_secs: 290 })), "{seen:?}");
        assert!(seen.contains(&(true, 0, Standing::Fresh { left_secs: 50 })), "{seen:?}");
        assert_eq!(found.len(), 3, "{seen:?}");
        assert!(found.iter().all(|kept| kept.age_secs == 10 && kept.failing_secs.is_none()));
        assert_eq!(kept(&cache, Chosen::Within(name("example.").view()), now).len(), 20_002);
    }

    #[test]
    fn a_step_is_short_whatever_the_size_of_the_cache() {
        let (cache, now) = filled(20_000);
        let (mut walk, mut steps) = (Walk::default(), 0);
        loop {
            let mut found = Vec::new();
            let progress = cache.look_around(&mut walk, Chosen::Within(name(".").view()), now, &mut found);
            assert!(found.len() <= STEP);
            steps += 1;
            if progress == Progress::Done {
                break;
            }
        }
        assert!(steps >= 20_000 / STEP, "{steps} steps");
    }

    #[test]
    fn what_an_entry_is_good_for_is_said_with_the_time_that_is_left() {
        let now = crate::clock::now();
        let cache = Cache::new(&settings(), now);
        let [stale, down] = ["stale.example.", "down.example."].map(name);
        cache.store(&key(&stale), address(&stale, 60, 1), Provenance::default(), now);
        let reply = || StoredAnswer::failure(&key(&down).question, Rcode::SERVFAIL, None);
        cache.store_failure(&key(&down), reply(), now);
        let look = |name: &Name, secs| {
            let found = kept(&cache, Chosen::One(name.view()), now + Duration::from_secs(secs));
            found.first().map(|kept| (kept.standing, kept.failing_secs))
        };
        let max_stale = u32::try_from(settings().max_stale.as_secs()).unwrap();
        assert_eq!(look(&stale, 0), Some((Standing::Fresh { left_secs: 60 }, None)));
        assert_eq!(look(&stale, 60), Some((Standing::Stale { left_secs: max_stale }, None)));
        assert_eq!(look(&stale, 61 + u64::from(max_stale)), Some((Standing::Spent, None)));
        assert_eq!(look(&down, 2), Some((Standing::Failure, Some(3))));
        assert_eq!(look(&down, 6), Some((Standing::Spent, None)));
    }

    #[test]
    fn one_name_is_forgotten_and_those_below_it_only_when_asked_for() {
        let now = crate::clock::now();
        let cache = Cache::new(&settings(), now);
        for text in ["example.", "www.example.", "other."] {
            let name = name(text);
            cache.store(&key(&name), address(&name, 300, 1), Provenance::default(), now);
        }
        let forget = |chosen: Chosen<'_>| {
            let mut walk = Walk::default();
            let steps = std::iter::from_fn(|| {
                let (progress, removed) = cache.forget_around(&mut walk, chosen);
                (progress == Progress::More || removed > 0).then_some(removed)
            });
            steps.sum::<usize>()
        };
        let example = name("EXAMPLE.");
        assert_eq!(forget(Chosen::One(example.view())), 1);
        assert_eq!(forget(Chosen::One(example.view())), 0);
        assert_eq!(forget(Chosen::Within(example.view())), 1);
        assert_eq!(cache.usage().0, 1);
    }
}
