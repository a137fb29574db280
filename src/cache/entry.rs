//! A stored answer and its times: when stored, how long fresh, how long it may be served stale, how often asked for,
//! and the failures to get a newer one. Where entries are kept is `slots`' business, which of them go `eviction`'s.

use super::eviction::Place;
use super::key::{HashedKey, Origin, PartitionId, Variant};
use super::lifetime::{FailureTimes, Ticks, ticks};
use super::shard::Newcomer;
use super::slots::{SlotId, allocated};
use super::walk::{Kept, standing};
use super::{Found, Lookup};
use crate::wire::stored::StoredAnswer;

/// The frequency that more look-ups do not raise (S3-FIFO: two bits suffice).
const MAX_FREQUENCY: u8 = 3;

/// What the settings say about serving entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Serving {
    /// RFC 8767: how long after its life an answer may still be served.
    pub(super) max_stale_secs: u32,
    /// Refresh ahead what is in use.
    pub(super) prefetch: bool,
    /// How long failures are remembered.
    pub(super) failures: FailureTimes,
}

/// Where an answer stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// As good as new.
    Fresh,
    /// Out of date, but better than nothing (RFC 8767).
    Stale,
    /// Of no use.
    Dead,
}

/// Single bits of an entry, in one octet: a million entries make every octet count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marks(u8);

impl Marks {
    /// Asked with DO.
    const DNSSEC_OK: u8 = 1;
    /// Asked with CD.
    const CHECKING_DISABLED: u8 = 2;
    /// The answer is the reply to a failure.
    const FAILURE: u8 = 4;
    /// A refresh ahead was begun in this life.
    const REFRESH_BEGUN: u8 = 8;
    /// In the protected queue.
    const PROTECTED: u8 = 16;
    /// A look-up found this life of the entry.
    const USED: u8 = 32;
    /// Two did: it is worth refreshing ahead.
    const USED_AGAIN: u8 = 64;

    /// Returns the marks of a variant.
    fn of(variant: Variant) -> Self {
        let mut marks = Self(0);
        if variant.dnssec_ok {
            marks.set(Self::DNSSEC_OK);
        }
        if variant.checking_disabled {
            marks.set(Self::CHECKING_DISABLED);
        }
        marks
    }

    /// Returns those marks that tell variants apart.
    fn variant(self) -> u8 {
        self.0 & (Self::DNSSEC_OK | Self::CHECKING_DISABLED)
    }

    /// True when `mark` is set.
    fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }

    /// Sets `mark`.
    fn set(&mut self, mark: u8) {
        self.0 |= mark;
    }

    /// Clears `mark`: several at once by `|`.
    fn clear(&mut self, mark: u8) {
        self.0 &= !mark;
    }
}

/// An entry. The key is not in it a second time: the answer's own question and the variant's bits are the key.
#[derive(Debug)]
pub(super) struct Entry {
    /// What was answered; for a failure the reply to it.
    answer: StoredAnswer,
    /// The half of the key's hash that the shard's table goes by.
    hash: u32,
    /// `Variant::partition`.
    partition: u32,
    /// When the answer was stored.
    stored: Ticks,
    /// How long it is fresh.
    lifetime_secs: u32,
    /// When getting an answer last failed; means something only if `failures` is not 0.
    failed: Ticks,
    /// Neighbours in the queue (`eviction`).
    pub(super) older: SlotId,
    /// The same, the other way.
    pub(super) newer: SlotId,
    /// Single bits.
    marks: Marks,
    /// Failures in a row.
    failures: u8,
    /// Whose answer it is.
    origin: Origin,
    /// Look-ups since eviction last passed by, at most `MAX_FREQUENCY`.
    pub(super) frequency: u8,
}

impl Entry {
    /// Makes an entry for an answer.
    pub(super) fn answer(key: &HashedKey<'_, '_>, newcomer: Newcomer, now: Ticks) -> Self {
        let Newcomer { answer, lifetime_secs, origin } = newcomer;
        Self {
            answer,
            hash: key.hash,
            partition: key.key.variant.partition.0,
            stored: now,
            lifetime_secs,
            failed: now,
            older: SlotId::NONE,
            newer: SlotId::NONE,
            marks: Marks::of(key.key.variant),
            failures: 0,
            origin,
            frequency: 0,
        }
    }

    /// Makes an entry for a first failure.
    pub(super) fn failure(key: &HashedKey<'_, '_>, reply: StoredAnswer, now: Ticks) -> Self {
        let newcomer = Newcomer { answer: reply, lifetime_secs: 0, origin: Origin::default() };
        let mut entry = Self::answer(key, newcomer, now);
        entry.marks.set(Marks::FAILURE);
        entry.failures = 1;
        entry
    }

    /// True when the entry is the one `key` asks for.
    pub(super) fn is(&self, key: &HashedKey<'_, '_>) -> bool {
        self.hash == key.hash
            && self.partition == key.key.variant.partition.0
            && self.marks.variant() == Marks::of(key.key.variant).variant()
            && self.answer.answers(&key.key.question)
    }

    /// Returns the half of the key's hash that the shard's table goes by.
    pub(super) fn hash(&self) -> u32 {
        self.hash
    }

    /// Returns the stored answer.
    pub(super) fn stored_answer(&self) -> &StoredAnswer {
        &self.answer
    }

    /// Returns whose answer it is.
    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    /// Returns which of the queues it is in.
    pub(super) fn place(&self) -> Place {
        if self.marks.has(Marks::PROTECTED) { Place::Protected } else { Place::Probation }
    }

    /// Protects it: not undone in its time here.
    pub(super) fn protect(&mut self) {
        self.marks.set(Marks::PROTECTED);
    }

    /// Returns the octets of the answer's allocation.
    pub(super) fn octets(&self) -> usize {
        allocated(self.answer.heap_len())
    }

    /// Takes a newer answer in; a new life begins, the entry's standing with `eviction` stays.
    pub(super) fn renew(&mut self, newcomer: Newcomer, now: Ticks) {
        let Newcomer { answer, lifetime_secs, origin } = newcomer;
        self.answer = answer;
        self.stored = now;
        self.lifetime_secs = lifetime_secs;
        self.origin = origin;
        self.failures = 0;
        self.marks.clear(Marks::FAILURE | Marks::REFRESH_BEGUN | Marks::USED | Marks::USED_AGAIN);
    }

    /// Notes a failure to get a newer answer. The answer stays as long as it is of use; then `reply` takes its place.
    /// A failure while the one before still counts is of the same outage and does not double the wait. True for one that would
    /// be remembered longer but for the bound.
    pub(super) fn fail(&mut self, reply: StoredAnswer, serving: &Serving, now: Ticks) -> bool {
        if self.phase(serving, now) == Phase::Dead {
            self.answer = reply;
            self.lifetime_secs = 0;
            self.marks.set(Marks::FAILURE);
        }
        self.refresh_is_over();
        if self.is_failing(serving, now) {
            return false;
        }
        self.failures = serving.failures.next(self.failures, self.failed, now);
        self.failed = now;
        serving.failures.is_bounded(self.failures)
    }

    /// Notes that a refresh ahead was begun: one is enough.
    pub(super) fn refresh_begins(&mut self) {
        self.marks.set(Marks::REFRESH_BEGUN);
    }

    /// Notes that the refresh ahead brought nothing, or was left out after all: a later look-up may want another one.
    pub(super) fn refresh_is_over(&mut self) {
        self.marks.clear(Marks::REFRESH_BEGUN);
    }

    /// Forgets failures. False when nothing of the entry is left.
    pub(super) fn forgive(&mut self) -> bool {
        self.failures = 0;
        !self.marks.has(Marks::FAILURE)
    }

    /// True while asking again is not worth it (RFC 9520 §3.2).
    pub(super) fn is_failing(&self, serving: &Serving, now: Ticks) -> bool {
        self.failures > 0 && self.failed.until(now) < ticks(serving.failures.secs(self.failures))
    }

    /// Returns where the answer stands in its life. A failure's reply is no answer.
    pub(super) fn phase(&self, serving: &Serving, now: Ticks) -> Phase {
        let age = self.stored.until(now);
        let lifetime = ticks(self.lifetime_secs);
        if self.marks.has(Marks::FAILURE) {
            Phase::Dead
        } else if age < lifetime {
            Phase::Fresh
        } else if age < lifetime + ticks(serving.max_stale_secs) {
            Phase::Stale
        } else {
            Phase::Dead
        }
    }

    /// Returns what a look-up at `now` finds, and counts it.
    pub(super) fn look(&mut self, serving: &Serving, now: Ticks) -> Lookup {
        let lookup = match self.phase(serving, now) {
            Phase::Fresh if self.wants_refresh(serving, now) => {
                Lookup::FreshRefreshDue(self.found(self.stored, now, false))
            }
            Phase::Fresh => Lookup::Fresh(self.found(self.stored, now, false)),
            Phase::Stale => Lookup::Stale(self.found(self.stored, now, self.is_failing(serving, now))),
            Phase::Dead if self.marks.has(Marks::FAILURE) && self.is_failing(serving, now) => {
                Lookup::Fresh(self.found(self.failed, now, true))
            }
            Phase::Dead => Lookup::Miss,
        };
        self.marks.set(if self.marks.has(Marks::USED) { Marks::USED_AGAIN } else { Marks::USED });
        self.frequency = self.frequency.saturating_add(1).min(MAX_FREQUENCY);
        lookup
    }

    /// True in the last tenth of its life, for what was asked for before, until a refresh was begun.
    fn wants_refresh(&self, serving: &Serving, now: Ticks) -> bool {
        serving.prefetch
            && self.marks.has(Marks::USED_AGAIN)
            && !self.marks.has(Marks::REFRESH_BEGUN)
            && self.stored.until(now) * 10 >= ticks(self.lifetime_secs) * 9
            && !self.is_failing(serving, now)
    }

    /// Returns what is kept, for the operator; it does not count as a use.
    pub(super) fn kept(&self, serving: &Serving, now: Ticks) -> Kept {
        let age = self.stored.until(now);
        let left = |end: u64| u32::try_from((end.saturating_sub(age)) / ticks(1)).unwrap_or(u32::MAX);
        let lifetime = ticks(self.lifetime_secs);
        let phase = self.phase(serving, now);
        let left_secs = match phase {
            Phase::Fresh => left(lifetime),
            Phase::Stale => left(lifetime + ticks(serving.max_stale_secs)),
            Phase::Dead => 0,
        };
        let failing = self.is_failing(serving, now).then(|| {
            let since = self.failed.secs_until(now);
            serving.failures.secs(self.failures).saturating_sub(since)
        });
        let is_failure = self.marks.has(Marks::FAILURE) && failing.is_some();
        Kept {
            answer: self.answer.clone(),
            variant: Variant {
                dnssec_ok: self.marks.has(Marks::DNSSEC_OK),
                checking_disabled: self.marks.has(Marks::CHECKING_DISABLED),
                partition: PartitionId(self.partition),
            },
            standing: standing(phase, left_secs, is_failure),
            age_secs: self.stored.secs_until(now),
            failing_secs: failing,
        }
    }

    /// Hands the answer out.
    fn found(&self, since: Ticks, now: Ticks, failure: bool) -> Found {
        // The clone counts a reference, it copies no octets.
        Found { answer: self.answer.clone(), age_secs: since.secs_until(now), failure }
    }
}
