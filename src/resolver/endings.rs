//! How flights end: what their clients are told, what is remembered of it. Why one ends is decided in `attempts`.

use super::failure::{DATES_OVERLOOKED, Failure};
use super::flight::Flight;
use super::flights::Flights;
use super::snapshot::Snapshot;
use super::waiter::{ReplyNote, Waiter};
use super::{STALE_TTL_SECS, stale_ede};
use crate::cache::key::KeyRef;
use crate::telemetry::bounds::Bound;
use crate::telemetry::outcome::{Outcome, QueryDetail, Source};
use crate::telemetry::traces::facts::Kept;
use crate::wire::ede::Ede;
use crate::wire::edns::ReplyOptions;
use crate::wire::header::Rcode;
use crate::wire::query::QueryRef;
use crate::wire::reply;
use crate::wire::stored::{StoredAnswer, TtlRule};
use std::sync::Arc;
use std::time::Instant;

/// How a flight ends.
#[derive(Debug)]
pub(super) enum Ending {
    /// With an answer of a server.
    Answer {
        /// What it said.
        answer: StoredAnswer,
        /// Place of the server in its group.
        server: usize,
    },
    /// With the answer about a time server's name, of a server whose certificate's dates were overlooked. It is never kept.
    Undated {
        /// What it said.
        answer: StoredAnswer,
        /// Place of the server in its group.
        server: usize,
    },
    /// With a rule's word on a server's answer.
    Refused {
        /// What clients get.
        rcode: Rcode,
        /// Why.
        ede: Ede,
    },
    /// With an old answer.
    Stale(StoredAnswer),
    /// With nothing.
    Failed(Failure),
}

impl Flights {
    /// Gives every waiter the stale answer; the flight goes on to refresh it (RFC 8767 §5).
    pub(super) fn send_stale(&mut self, slot: u32, now: Instant) {
        let Some(flight) = self.flight_mut(slot) else { return };
        let Some(answer) = flight.stale.clone() else { return };
        flight.stale_sent = true;
        let waiters = std::mem::take(&mut flight.waiters);
        let (snapshot, group) = (Arc::clone(&flight.snapshot), flight.group);
        let ending = Ending::Stale(answer);
        for (waiter, _permit) in waiters {
            let outcome = self.reply(&waiter, &ending, (&snapshot, group), now);
            if let Some(flight) = self.flight_mut(slot) {
                flight.note_reply(&waiter, outcome, now);
            }
        }
    }

    /// Ends a flight: replies to all who wait, remembers a failure, frees the slot.
    pub(super) fn end(&mut self, slot: u32, ending: Ending, now: Instant) {
        let Some((id, mut flight)) = self.take(slot) else { return };
        if self.remember(&flight, &ending, now) {
            flight.note_kept(Kept::Failure);
        }
        for (waiter, permit) in std::mem::take(&mut flight.waiters) {
            let outcome = self.reply(&waiter, &ending, (&flight.snapshot, flight.group), now);
            flight.note_reply(&waiter, outcome, now);
            self.returned.push(permit);
        }
        self.collect_facts(&mut flight, now);
        if flight.is_waiting() {
            self.keep_for_stragglers(id, flight);
        }
    }

    /// Keeps a failure for a few seconds, so that a name that cannot be resolved does not hammer the servers (RFC 9520).
    /// One that a stale answer helped out of counts too: the next client gets that at once (RFC 8767 §5). True when there was one
    /// to keep.
    fn remember(&self, flight: &Flight, ending: &Ending, now: Instant) -> bool {
        let Some(key) = flight.key() else { return false };
        match ending {
            Ending::Failed(failure) => self.remember_failure(&key, failure, flight, now),
            Ending::Stale(_) => self.remember_failure(&key, &flight.failure(), flight, now),
            Ending::Answer { answer, .. } if !is_cacheable_answer(answer.rcode()) => {
                self.keep_failure(&key, answer.clone(), now);
                true
            }
            Ending::Answer { .. } | Ending::Undated { .. } | Ending::Refused { .. } => false,
        }
    }

    /// Keeps a reply as that to a failure, for a while.
    pub(super) fn keep_failure(&self, key: &KeyRef<'_>, reply: StoredAnswer, now: Instant) {
        if self.cache().store_failure(key, reply, now) {
            self.reached(Bound::FailureTime);
        }
    }

    /// Keeps the reply to a failure, if the failure is not our own and the servers in force are those that failed.
    fn remember_failure(&self, key: &KeyRef<'_>, failure: &Failure, flight: &Flight, now: Instant) -> bool {
        if !failure.is_cacheable() || flight.snapshot.is_superseded() {
            return false;
        }
        let kept = StoredAnswer::failure(&key.question, failure.rcode(), Some(failure.ede().code));
        self.keep_failure(key, kept, now);
        if let Some(entry) = flight.entry() {
            entry.failed();
        }
        true
    }

    /// Renders one reply into the outbox and records the query; a server of the ending is one of that group. Returns what was
    /// recorded.
    pub(super) fn reply(
        &mut self,
        waiter: &Waiter,
        ending: &Ending,
        (snapshot, group): (&Snapshot, usize),
        now: Instant,
    ) -> Option<Outcome> {
        let query = QueryRef::parse(&waiter.query).ok()?;
        let limit = query.reply_limit(waiter.transport);
        let mut ede = None;
        let (source, rcode) = match ending {
            Ending::Answer { answer, .. } => (Source::Upstream, answer.rcode()),
            Ending::Undated { answer, .. } => {
                ede = Some(DATES_OVERLOOKED.clone());
                (Source::Upstream, answer.rcode())
            }
            Ending::Refused { rcode, ede: reason } => {
                ede = Some(reason.clone());
                (Source::Blocked, *rcode)
            }
            Ending::Stale(answer) => {
                ede = Some(stale_ede(answer).clone());
                (Source::Stale, answer.rcode())
            }
            Ending::Failed(failure) => {
                ede = Some(failure.ede());
                (Source::Failed, failure.rcode())
            }
        };
        let upstream = match ending {
            Ending::Answer { server, .. } | Ending::Undated { server, .. } => snapshot.server(group, *server),
            Ending::Refused { .. } | Ending::Stale(_) | Ending::Failed(_) => None,
        };
        let options = self.keepalive.options(&snapshot.subnet, &query, waiter.transport);
        let options = ReplyOptions { ede: ede.as_ref(), ..options };
        let note = ReplyNote { source, upstream: upstream.map(|upstream| upstream.id()) };
        self.send(waiter, note, reply_space(ending, limit), |out| match ending {
            Ending::Answer { answer, .. } => answer.render(&query, TtlRule::Keep, &options, out),
            Ending::Stale(answer) | Ending::Undated { answer, .. } => {
                answer.render(&query, TtlRule::Fixed { secs: STALE_TTL_SECS }, &options, out)
            }
            Ending::Refused { .. } | Ending::Failed(_) => reply::error(&query, rcode, &options, out),
        });
        let outcome = Outcome {
            source,
            rcode,
            ede: ede.as_ref().map(|ede| ede.code),
            transport: waiter.transport,
            duration: Some(now.saturating_duration_since(waiter.received)),
        };
        let detail = QueryDetail {
            client: waiter.client.peer.ip(),
            question: Some(query.question()),
            upstream: upstream.map(|upstream| upstream.name()),
        };
        self.record(&outcome, &detail);
        Some(outcome)
    }
}

impl Flight {
    /// Returns what is said when no server gave a usable answer: an old answer, what one of them did say, the reason.
    pub(super) fn last_resort(&mut self) -> Ending {
        if let Some(answer) = self.stale.take() {
            return Ending::Stale(answer);
        }
        if let Some((answer, server)) = self.fallback.take() {
            return Ending::Answer { answer, server };
        }
        Ending::Failed(self.failure())
    }

    /// Returns why there is no answer.
    fn failure(&self) -> Failure {
        let named =
            |place: usize| self.server(place).map_or_else(String::new, |server| server.name().to_owned());
        Failure::Attempts(self.causes.iter().map(|(place, cause)| (named(*place), cause.clone())).collect())
    }
}

/// Returns true for the rcodes that `Cache::store` keeps.
fn is_cacheable_answer(rcode: Rcode) -> bool {
    rcode == Rcode::NOERROR || rcode == Rcode::NXDOMAIN
}

/// Returns how much room a reply needs at most: its limit, but not 65,535 octets zeroed for a small answer over TCP.
fn reply_space(ending: &Ending, limit: usize) -> usize {
    /// OPT with an EDE of the longest text, and the question of an error reply.
    const MARGIN: usize = 640;
    let needed = match ending {
        Ending::Answer { answer, .. } | Ending::Undated { answer, .. } | Ending::Stale(answer) => {
            answer.message().len() + MARGIN
        }
        Ending::Refused { .. } | Ending::Failed(_) => 2 * MARGIN,
    };
    limit.min(needed)
}
