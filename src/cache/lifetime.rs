//! How long an answer lives: clamps, negative answers ([RFC 2308](https://www.rfc-editor.org/rfc/rfc2308)),
//! failures ([RFC 9520](https://www.rfc-editor.org/rfc/rfc9520)) and the cache's own unit of time.
//!
//! Pure: it reads an answer and the settings. When an entry is stale is the entry's to say.

use crate::config::settings::CacheSettings;
use crate::wire::header::Rcode;
use crate::wire::question::{RecordType, Ttl};
use crate::wire::response::{RecordRef, ResponseRef, Section};
use crate::wire::stored::StoredAnswer;
use std::time::{Duration, Instant};

/// How long a negative answer without an SOA is kept. RFC 2308 §5 would not have it cached at all, but some public
/// resolvers cut the SOA off, and then every look-up of a missing AAAA would cross the network.
const WITHOUT_SOA_SECS: u32 = 30;

/// RFC 9520 §3.2: how long the first failure is remembered.
const FIRST_FAILURE_SECS: u32 = 5;

/// How long at most while failures go on: RFC 9520 §3.2 allows 5 minutes, but users wait for the way back.
const LONGEST_FAILURE_SECS: u32 = 60;

/// A failure this long after the one before begins a new series.
const FAILURE_MEMORY_SECS: u32 = 2 * LONGEST_FAILURE_SECS;

/// A point in time, in tenths of a second since the cache was made: half the size of an `Instant`, good for 13 years,
/// after which it stands still (nothing new expires before a restart, and nothing breaks).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticks(u32);

impl Ticks {
    /// The time the cache was made.
    #[cfg(test)]
    pub(super) const ZERO: Self = Self(0);

    /// Ticks in a second.
    const PER_SECOND: u32 = 10;

    /// Returns the time from `epoch` to `now`; zero if that lies before.
    pub(super) fn since(epoch: Instant, now: Instant) -> Self {
        let tenths = now.saturating_duration_since(epoch).as_millis() / 100;
        Self(u32::try_from(tenths).unwrap_or(u32::MAX))
    }

    /// Returns whole seconds from `self` to `now`; zero when another thread's clock reading came first.
    pub(super) fn secs_until(self, now: Self) -> u32 {
        now.0.saturating_sub(self.0) / Self::PER_SECOND
    }

    /// Returns ticks from `self` to `now`, as `secs_until` does.
    pub(super) fn until(self, now: Self) -> u64 {
        u64::from(now.0.saturating_sub(self.0))
    }
}

/// Returns `secs` in ticks.
pub(super) fn ticks(secs: u32) -> u64 {
    u64::from(secs) * u64::from(Ticks::PER_SECOND)
}

/// Returns whole seconds, at most what fits.
pub(super) fn whole_secs(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// How long the `count`th failure of a series is remembered: 5 s, doubling to 60 s.
pub(super) fn failure_secs(count: u8) -> u32 {
    let doublings = u32::from(count.saturating_sub(1)).min(16);
    (FIRST_FAILURE_SECS << doublings).min(LONGEST_FAILURE_SECS)
}

/// Returns the number in its series of a failure at `now`, when the one before was number `count` at `last`.
pub(super) fn next_failure(count: u8, last: Ticks, now: Ticks) -> u8 {
    if count > 0 && last.secs_until(now) < FAILURE_MEMORY_SECS { count.saturating_add(1) } else { 1 }
}

/// What the operator says about lifetimes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Shorter lives are made this long.
    min_secs: u32,
    /// Longer lives are made this long.
    max_secs: u32,
    /// The same for negative answers; wins over `min_secs`.
    negative_max_secs: u32,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is kept this long; never zero.
    Kept {
        /// Its life.
        secs: u32,
    },
    /// It may not be kept, but what was known before is no longer true.
    Displaces,
    /// It says nothing about the name: rcodes other than NOERROR and NXDOMAIN.
    Passes,
}

/// An answer's fate and the bounds of its TTLs, so that clients forget it when we do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// Kept or not.
    pub(super) fate: Fate,
    /// Lower TTLs are raised to it.
    pub(super) floor: Ttl,
    /// Higher TTLs are lowered to it.
    pub(super) ceiling: Ttl,
}

impl Rules {
    /// Takes over what the settings say.
    pub(super) fn new(settings: &CacheSettings) -> Self {
        Self {
            min_secs: whole_secs(settings.min_ttl),
            max_secs: whole_secs(settings.max_ttl),
            negative_max_secs: whole_secs(settings.negative_max_ttl),
        }
    }

    /// Judges an answer that is `age_secs` old already (HTTP `Age`, RFC 8484 §5.1).
    pub(super) fn terms(&self, answer: &StoredAnswer, age_secs: u32) -> Terms {
        let facts = Facts::read(answer);
        let max_secs = match facts.kind {
            Kind::Positive | Kind::Error => self.max_secs,
            Kind::Negative { has_soa: true } => self.max_secs.min(self.negative_max_secs),
            Kind::Negative { has_soa: false } => {
                self.max_secs.min(self.negative_max_secs).min(WITHOUT_SOA_SECS)
            }
        };
        // Not `clamp`, which panics when the bounds cross; the upper one wins.
        let secs = facts.secs.saturating_sub(age_secs).max(self.min_secs).min(max_secs);
        let fate = match facts.kind {
            Kind::Error => Fate::Passes,
            Kind::Positive | Kind::Negative { .. } if secs == 0 => Fate::Displaces,
            Kind::Positive | Kind::Negative { .. } => Fate::Kept { secs },
        };
        // The records of a chain keep their own, longer TTLs unless they were aged on the way, which their TTLs do
        // not show. An SOA's TTL is what a client takes for the life of the absence (RFC 2308 §5).
        let ceiling = match facts.kind {
            Kind::Positive if age_secs == 0 => max_secs,
            Kind::Positive | Kind::Negative { .. } => secs,
            Kind::Error => max_secs,
        };
        Terms { fate, floor: Ttl(self.min_secs.min(ceiling)), ceiling: Ttl(ceiling) }
    }
}

/// What sort of answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Has what was asked for.
    Positive,
    /// The name or the type does not exist (RFC 2308 §2).
    Negative {
        /// Says until when.
        has_soa: bool,
    },
    /// Neither NOERROR nor NXDOMAIN, or unreadable.
    Error,
}

/// What of an answer decides about its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Facts {
    /// The sort of answer.
    kind: Kind,
    /// The life it claims: the smallest TTL, and for negative ones the SOA's MINIMUM if that is less.
    secs: u32,
}

impl Facts {
    /// Reads them off an answer.
    fn read(answer: &StoredAnswer) -> Self {
        let rcode = answer.rcode();
        let Ok(response) = ResponseRef::parse(answer.message()) else {
            return Self { kind: Kind::Error, secs: 0 };
        };
        let records = || response.records(Section::Answer).chain(response.records(Section::Authority));
        let smallest = records().map(|record| counted(record.ttl)).min();
        if rcode != Rcode::NOERROR && rcode != Rcode::NXDOMAIN {
            return Self { kind: Kind::Error, secs: 0 };
        }
        let wanted = answer.question().rtype;
        let holds = |record: RecordRef<'_>| wanted == RecordType::ANY || record.rtype == wanted;
        if rcode == Rcode::NOERROR && response.records(Section::Answer).any(holds) {
            return Self { kind: Kind::Positive, secs: smallest.unwrap_or(0) };
        }
        let minimum =
            response.records(Section::Authority).filter_map(|record| record.soa_minimum()).map(counted).min();
        let secs = smallest.unwrap_or(u32::MAX).min(minimum.unwrap_or(u32::MAX));
        Self { kind: Kind::Negative { has_soa: minimum.is_some() }, secs }
    }
}

/// Returns the seconds a TTL stands for: one with the top bit set counts as zero (RFC 2181 §8).
fn counted(ttl: Ttl) -> u32 {
    if ttl.0 > i32::MAX.unsigned_abs() { 0 } else { ttl.0 }
}
