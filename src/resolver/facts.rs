//! What a flight keeps for its trace, if it leaves one: each function notes one fact, and does nothing for the others. What a
//! trace is and where it goes is `telemetry::traces`' matter.

use super::attempts::{Attempt, Reason};
use super::flight::Flight;
use super::flights::Flights;
use super::waiter::Waiter;
use crate::telemetry::outcome::Outcome;
use crate::telemetry::traces::facts::{
    AttemptEnd, AttemptReason, AttemptResult, EndedFlight, Kept, QueryFacts,
};
use crate::transport::TransportError;
use std::sync::Arc;
use std::time::Instant;

impl Flight {
    /// Notes that a server is asked.
    pub(super) fn note_attempt(&mut self, server: usize, reason: Reason, now: Instant) {
        let Some(facts) = &mut self.facts else { return };
        let Some(upstream) = self.snapshot.server(self.group, server) else { return };
        let reason = match reason {
            Reason::Unanswered if facts.attempts.is_empty() => AttemptReason::First,
            Reason::Unanswered => AttemptReason::Unanswered,
            Reason::NoResult => AttemptReason::NoResult,
            Reason::Slow => AttemptReason::Slow,
            Reason::Again => AttemptReason::Again,
        };
        facts.asked(Arc::clone(upstream.spec()), reason, now);
    }

    /// Notes that an attempt goes on with a fresh connection.
    pub(super) fn note_repetition(&mut self, attempt: usize) {
        if let Some(facts) = &mut self.facts {
            facts.repeated(attempt);
        }
    }

    /// Notes that an attempt brought a message, and what that was.
    pub(super) fn note_message(
        &mut self,
        attempt: &Attempt,
        sent_at: Option<Instant>,
        result: AttemptResult,
        now: Instant,
    ) {
        if let Some(facts) = &mut self.facts {
            facts.attempt_ended(attempt.number, AttemptEnd { at: now, sent_at, late: attempt.late, result });
        }
    }

    /// Notes that an attempt failed.
    pub(super) fn note_failure(&mut self, attempt: &Attempt, error: &TransportError, now: Instant) {
        // As it is counted: the transport saw it, but it is an answer that broke a rule.
        let result = if let TransportError::Mismatch(fault) = error {
            AttemptResult::Invalid(*fault)
        } else {
            AttemptResult::Failed(error.label())
        };
        self.note_message(attempt, None, result, now);
    }

    /// Notes what the cache keeps.
    pub(super) fn note_kept(&mut self, kept: Kept) {
        if let Some(facts) = &mut self.facts {
            facts.kept = kept;
        }
    }

    /// Notes what a client was told.
    pub(super) fn note_reply(&mut self, waiter: &Waiter, outcome: Option<Outcome>, now: Instant) {
        if let (Some(facts), Some(outcome)) = (&mut self.facts, outcome) {
            facts.replied(QueryFacts { received: waiter.received, replied: now, outcome });
        }
    }
}

impl Flights {
    /// Notes what the cache keeps of a flight.
    pub(super) fn note_kept(&mut self, slot: u32, kept: Kept) {
        if let Some(flight) = self.flight_mut(slot) {
            flight.note_kept(kept);
        }
    }

    /// Takes the facts of a flight that ends.
    pub(super) fn collect_facts(&mut self, flight: &mut Flight, now: Instant) {
        let Some(facts) = flight.facts.take() else { return };
        let Some(question) = flight.question() else { return };
        let ended = EndedFlight {
            facts,
            group: flight.entry().map_or_else(String::new, |entry| entry.group.name.clone()),
            name: self.traces().hold_names().then(|| question.name.to_name()),
            record_type: question.rtype,
            is_refresh: flight.is_refresh,
            started: flight.started,
            ended: now,
            told: now,
        };
        self.add_trace(ended);
    }
}
