//! All flights: identical questions share one, each goes from server to server until one answers, and its waiters are
//! replied to. No socket, task or clock: `now`, work and completions go in; exchanges and replies come out.

use super::deadlines::Deadlines;
use super::failure::{Cause, Failure};
use super::flight::{Flight, MAX_ATTEMPTS, Sent, SentState};
use super::inbox::{Completion, Inbox, Refresh, Work};
use super::outbox::Outbox;
use super::permits::Permit;
use super::waiter::{ReplyNote, Waiter};
use super::{Pending, Resolver, STALE_TTL_SECS, question_octets, stale_ede};
use crate::cache::Cache;
use crate::cache::key::KeyRef;
use crate::policy::Verdict;
use crate::telemetry::counters::{Block, Telemetry};
use crate::telemetry::outcome::{Outcome, QueryDetail, Source, record};
use crate::transport::{CompletionSink, Exchange, Received, Ticket, TransportError};
use crate::upstream::group::Attempts;
use crate::upstream::retry::{Retry, after_rcode, after_transport, is_dnssec};
use crate::upstream::{Sample, Upstream};
use crate::wire::ede::Ede;
use crate::wire::header::Rcode;
use crate::wire::query::{QueryRef, SubnetOption, UpstreamQuery};
use crate::wire::question::QuestionRef;
use crate::wire::reply;
use crate::wire::response::ResponseRef;
use crate::wire::stored::{StoredAnswer, TtlRule};
use hashbrown::{DefaultHashBuilder, HashTable};
use std::sync::Arc;
use std::time::Instant;

/// Names a flight; a later one in the same slot has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FlightId {
    /// Its slot.
    slot: u32,
    /// How often the slot was used, modulo 2^24.
    generation: u32,
}

/// A place for a flight.
#[derive(Debug, Default)]
struct Slot {
    /// How often it was used, modulo 2^24.
    generation: u32,
    /// The flight, while there is one.
    flight: Option<Flight>,
}

/// The flights and what they need.
#[derive(Debug)]
pub(super) struct Flights {
    /// Places; as many as flights were ever at once.
    slots: Vec<Slot>,
    /// Slots without a flight.
    free: Vec<u32>,
    /// Slots by question and variant.
    by_key: HashTable<u32>,
    /// Seeded hash of `by_key`.
    hasher: DefaultHashBuilder,
    /// When each flight needs attention.
    deadlines: Deadlines<FlightId>,
    /// Scratch: what is due.
    due: Vec<FlightId>,
    /// Replies of this wake-up.
    outbox: Outbox,
    /// Flights that nobody waits for.
    refreshing: usize,
    /// Where completions go.
    inbox: Arc<Inbox>,
    /// Answers we have.
    cache: Arc<Cache>,
    /// Counters and the query log.
    telemetry: Arc<Telemetry>,
    /// Counters of the driver.
    block: Arc<Block>,
}

/// Why another server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// No answer so far.
    Unanswered,
    /// An answer whose rcode is no result.
    NoResult,
}

/// How a flight ends.
enum Ending {
    /// With an answer of a server.
    Answer { answer: StoredAnswer, server: usize },
    /// With a rule's word on a server's answer.
    Refused { rcode: Rcode, ede: Ede },
    /// With an old answer.
    Stale(StoredAnswer),
    /// With nothing.
    Failed(Failure),
}

impl Flights {
    /// Makes the driver's state for a resolver.
    pub(super) fn new(resolver: &Resolver, now: Instant) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            deadlines: Deadlines::new(now),
            due: Vec::new(),
            outbox: Outbox::default(),
            refreshing: 0,
            inbox: Arc::clone(&resolver.inbox),
            cache: Arc::clone(&resolver.cache),
            telemetry: Arc::clone(&resolver.telemetry),
            block: resolver.telemetry.block(),
        }
    }

    /// Does all of `work`, leaving its lists empty, then what is due, then sends the replies.
    pub(super) fn turn(&mut self, work: &mut Work, now: Instant) {
        // Completions first: their waiters have waited longest, and what they bring may answer the new ones.
        for completion in work.completions.drain(..) {
            self.complete(completion, now);
        }
        for (pending, waiter, permit) in work.misses.drain(..) {
            self.join(pending, waiter, permit, now);
        }
        for refresh in work.refreshes.drain(..) {
            self.refresh(refresh, now);
        }
        self.expire(now);
        self.outbox.flush();
    }

    /// Returns when `turn` is needed even without work.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.deadlines.next_at()
    }

    /// Ends every flight: we are stopping.
    pub(super) fn end_all(&mut self, now: Instant) {
        for slot in 0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX) {
            self.end(slot, Ending::Failed(Failure::Stopping), now);
        }
        self.outbox.flush();
    }

    /// Adds a waiter to the flight of its question; starts one if there is none.
    fn join(&mut self, pending: Pending, waiter: Waiter, permit: Permit, now: Instant) {
        let Ok(query) = QueryRef::parse(&waiter.query) else { return };
        let question = query.question();
        let hash = KeyRef { question, variant: pending.variant }.hash_with(&self.hasher);
        match self.find(hash, &question, &pending) {
            Some(slot) => self.board(slot, waiter, permit, now),
            None => {
                let question = question_octets(&query);
                let flight = self.new_flight(pending, question, hash, now);
                self.launch(flight, Some((waiter, permit)), now);
            }
        }
    }

    /// Starts a flight that nobody waits for, if there is room and none for that question yet.
    fn refresh(&mut self, refresh: Refresh, now: Instant) {
        let Some(question) = QuestionRef::parse(&refresh.question) else { return };
        let hash = KeyRef { question, variant: refresh.variant }.hash_with(&self.hasher);
        let Refresh { snapshot, group, variant, subnet, .. } = refresh;
        let pending = Pending { snapshot, group, variant, subnet, stale: None };
        let full = self.refreshing >= pending.snapshot.limits.refresh_inflight;
        if full || self.find(hash, &question, &pending).is_some() {
            return;
        }
        let flight = self.new_flight(pending, refresh.question, hash, now);
        self.launch(flight, None, now);
    }

    /// Returns the flight for the same question under the same group and variant.
    fn find(&self, hash: u64, question: &QuestionRef<'_>, pending: &Pending) -> Option<u32> {
        let same = |slot: &u32| {
            self.flight(*slot).is_some_and(|flight| {
                flight.variant == pending.variant
                    && Arc::ptr_eq(&flight.snapshot, &pending.snapshot)
                    && flight.question().is_some_and(|known| known.matches(question))
            })
        };
        self.by_key.find(hash, same).copied()
    }

    /// Adds a waiter to a flight, or replies at once: the stale answer when the others have had it, or that there are too many.
    fn board(&mut self, slot: u32, waiter: Waiter, permit: Permit, now: Instant) {
        let Some(flight) = self.slots.get_mut(index(slot)).and_then(|slot| slot.flight.as_mut()) else {
            return;
        };
        let full = flight.waiters.len() >= flight.snapshot.limits.waiters_per_flight;
        let stale = flight.stale.clone().filter(|_| flight.stale_sent || full);
        match stale {
            Some(answer) => self.reply(&waiter, &Ending::Stale(answer), None, now),
            None if full => self.reply(&waiter, &Ending::Failed(Failure::TooManyWaiters), None, now),
            None => flight.waiters.push((waiter, permit)),
        }
    }

    /// Makes the record of a flight.
    fn new_flight(&self, pending: Pending, question: Box<[u8]>, hash: u64, now: Instant) -> Option<Flight> {
        let Pending { snapshot, group, variant, subnet, stale } = pending;
        let query = UpstreamQuery {
            question: QuestionRef::parse(&question)?,
            dnssec_ok: variant.dnssec_ok,
            checking_disabled: variant.checking_disabled,
            subnet: subnet
                .as_ref()
                .map_or_else(|| snapshot.subnet.own(), |subnet| SubnetOption::Content(subnet.as_ref())),
            padding: snapshot.padding,
        }
        .build();
        let attempts = Attempts::start(&snapshot.groups.get(group)?.group, fastrand::u64(..), now);
        let deadline = now + snapshot.query_timeout;
        Some(Flight {
            snapshot,
            group,
            variant,
            question,
            hash,
            query,
            waiters: Vec::new(),
            stale,
            stale_sent: false,
            attempts,
            sent: Vec::with_capacity(2),
            causes: Vec::new(),
            fallback: None,
            started: now,
            deadline,
            is_refresh: false,
        })
    }

    /// Puts a flight into the table and makes its first attempt.
    fn launch(&mut self, flight: Option<Flight>, waiter: Option<(Waiter, Permit)>, now: Instant) {
        let Some(mut flight) = flight else { return };
        flight.is_refresh = waiter.is_none();
        self.refreshing += usize::from(flight.is_refresh);
        flight.waiters.extend(waiter);
        let hash = flight.hash;
        let slot = self.take_slot();
        if let Some(place) = self.slots.get_mut(index(slot)) {
            place.flight = Some(flight);
        }
        let slots = &self.slots;
        let rehash =
            |slot: &u32| slots.get(index(*slot)).and_then(|slot| slot.flight.as_ref()).map_or(0, |f| f.hash);
        self.by_key.insert_unique(hash, slot, rehash);
        self.attempt(slot, Reason::Unanswered, now);
        self.schedule(slot);
    }

    /// Returns an empty slot.
    fn take_slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            // Flights are bounded by the permits and the refreshes, far below 2^32.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        })
    }

    /// Asks the next server; ends the flight when there is none and nothing is awaited any more.
    fn attempt(&mut self, slot: u32, reason: Reason, now: Instant) {
        let Some(place) = self.slots.get_mut(index(slot)) else { return };
        let Some(flight) = place.flight.as_mut() else { return };
        let Some(server) = flight.next_server(reason, now) else {
            if !flight.is_waiting() {
                let ending = flight.last_resort();
                self.end(slot, ending, now);
            }
            return;
        };
        let number = flight.sent.len();
        let Some(upstream) = flight.server(server).map(Arc::clone) else { return };
        let patience = upstream.attempt_timeout();
        flight.sent.push(Sent { server, at: now, patience, state: SentState::Waiting });
        let id = ticket_id(FlightId { slot, generation: place.generation }, number);
        let sink: Arc<dyn CompletionSink> = self.inbox.clone();
        let exchange = Exchange {
            query: flight.query.clone(),
            deadline: flight.deadline,
            ticket: Ticket::new(sink, id),
        };
        upstream.submit(exchange, now);
    }

    /// Puts the flight's next time into the queue of deadlines.
    fn schedule(&mut self, slot: u32) {
        let Some(place) = self.slots.get(index(slot)) else { return };
        if let Some(flight) = &place.flight {
            self.deadlines.push(flight.next_at(), FlightId { slot, generation: place.generation });
        }
    }

    /// Looks after every flight whose time has come.
    fn expire(&mut self, now: Instant) {
        let mut due = std::mem::take(&mut self.due);
        self.deadlines.expire(now, &mut due);
        for id in due.drain(..) {
            if self.is_current(id) {
                self.on_time(id.slot, now);
                self.schedule(id.slot);
            }
        }
        self.due = due;
    }

    /// Does what is due for one flight: the end, the stale answer, another attempt.
    fn on_time(&mut self, slot: u32, now: Instant) {
        let Some(flight) = self.flight_mut(slot) else { return };
        let give_stale = flight.stale_at().is_some_and(|at| at <= now);
        let mut impatient = false;
        for sent in flight.sent.iter_mut().filter(|sent| sent.state == SentState::Waiting) {
            if sent.at + sent.patience <= now {
                sent.state = SentState::Late;
                impatient = true;
                flight.causes.push((sent.server, Cause::TimedOut));
                let entry = flight.snapshot.groups.get(flight.group);
                if let Some(server) = entry.and_then(|entry| entry.group.upstreams.get(sent.server)) {
                    server.observe(Sample::TimedOut, now);
                    server.counters().failed("timeout");
                }
            }
        }
        if flight.deadline <= now {
            let ending = flight.last_resort();
            self.end(slot, ending, now);
            return;
        }
        if give_stale {
            self.send_stale(slot, now);
        }
        if impatient {
            self.attempt(slot, Reason::Unanswered, now);
        }
    }

    /// Gives every waiter the stale answer; the flight goes on to refresh it (RFC 8767 §5).
    fn send_stale(&mut self, slot: u32, now: Instant) {
        let Some(flight) = self.flight_mut(slot) else { return };
        let Some(answer) = flight.stale.clone() else { return };
        flight.stale_sent = true;
        let waiters = std::mem::take(&mut flight.waiters);
        let ending = Ending::Stale(answer);
        for (waiter, _permit) in waiters {
            self.reply(&waiter, &ending, None, now);
        }
    }

    /// Takes the end of an exchange: an answer, or a reason to ask another server.
    fn complete(&mut self, completion: Completion, now: Instant) {
        let (id, number) = from_ticket_id(completion.id);
        if !self.is_current(id) {
            return;
        }
        let Some(flight) = self.flight_mut(id.slot) else { return };
        let Some(sent) = flight.sent.get_mut(number) else { return };
        let late = sent.state == SentState::Late;
        let (server, at) = (sent.server, sent.at);
        sent.state = SentState::Ended;
        let Some(upstream) = flight.server(server).map(Arc::clone) else { return };
        upstream.finished();
        match completion.outcome {
            Ok(received) => self.received(id.slot, &upstream, server, (received, at), now),
            Err(error) => self.failed(id.slot, &upstream, server, (error, late), now),
        }
    }

    /// Takes an exchange that failed.
    fn failed(
        &mut self,
        slot: u32,
        upstream: &Upstream,
        server: usize,
        (error, late): (TransportError, bool),
        now: Instant,
    ) {
        let after = after_transport(&error);
        // A late attempt was counted when its time was up.
        if !late {
            upstream.observe(after.sample, now);
            // The transport saw it, but it is an answer that broke a rule.
            if let TransportError::Mismatch(fault) = &error {
                upstream.counters().invalid(*fault);
            } else {
                upstream.counters().failed(error.label());
            }
        }
        if let Some(flight) = self.flight_mut(slot)
            && !late
        {
            flight.causes.push((server, Cause::Transport(error)));
        }
        self.go_on(slot, Reason::Unanswered, now);
    }

    /// Asks another server, unless one is being asked.
    fn go_on(&mut self, slot: u32, reason: Reason, now: Instant) {
        let Some(flight) = self.flight_mut(slot) else { return };
        if !flight.is_patient() {
            self.attempt(slot, reason, now);
            self.schedule(slot);
        }
    }

    /// Takes a message: checks it, and ends the flight with it or goes on.
    fn received(
        &mut self,
        slot: u32,
        upstream: &Upstream,
        server: usize,
        (received, at): (Received, Instant),
        now: Instant,
    ) {
        let Some(flight) = self.flight_mut(slot) else { return };
        let Some(asked) = flight.asked(server) else { return };
        let checked = asked.check(received.message);
        let response =
            checked.as_ref().map_err(|fault| *fault).and_then(|message| ResponseRef::parse(message));
        let response = match response {
            Ok(response) => response,
            Err(fault) => {
                upstream.observe(Sample::Failed { error: fault.into() }, now);
                upstream.counters().invalid(fault);
                flight.causes.push((server, Cause::Invalid(fault)));
                return self.go_on(slot, Reason::Unanswered, now);
            }
        };
        let latency = now.saturating_duration_since(at);
        let retry = after_rcode(response.rcode(), response.ede().is_some_and(|(code, _)| is_dnssec(code)));
        upstream.observe(Sample::Answered { latency }, now);
        upstream.counters().answered(response.rcode(), latency);
        match retry {
            Retry::No => {
                let ending = self.judge(slot, server, &response, received.age_secs, now);
                self.end(slot, ending, now);
            }
            Retry::Other => {
                let answer = asked.keep(&response);
                flight.causes.push((server, Cause::Rcode(response.rcode())));
                flight.fallback.get_or_insert((answer, server));
                self.go_on(slot, Reason::NoResult, now);
            }
        }
    }

    /// Stages 12 and 13: the answer-side rules, then the cache.
    fn judge(
        &self,
        slot: u32,
        server: usize,
        response: &ResponseRef<'_>,
        age_secs: u32,
        now: Instant,
    ) -> Ending {
        let parts = self.flight(slot).and_then(|f| Some((f, f.key()?, f.entry()?, f.asked(server)?)));
        let Some((flight, key, entry, asked)) = parts else { return Ending::Failed(Failure::Stopping) };
        let (verdict, _rule) = flight.snapshot.policy.on_answer(&key.question, response, entry.group.own);
        match verdict {
            Verdict::Pass | Verdict::Accept => {}
            Verdict::Answer(answer) => return Ending::Answer { answer, server },
            Verdict::Refuse(rcode, ede) => {
                let refusal = StoredAnswer::failure(&key.question, rcode, Some(ede.code));
                self.cache.store_failure(&key, refusal, now);
                return Ending::Refused { rcode, ede };
            }
            Verdict::Drop => return Ending::Failed(Failure::Stopping),
        }
        let answer = asked.keep(response);
        // An answer for one network only is nobody else's (RFC 7871 §7.3.1).
        let answer = match response.ecs_scope() {
            Some(1..) => answer,
            Some(0) | None => self.cache.store(&key, answer, age_secs, now),
        };
        Ending::Answer { answer, server }
    }

    /// Ends a flight: replies to all who wait, remembers a failure, frees the slot.
    fn end(&mut self, slot: u32, ending: Ending, now: Instant) {
        let Some(place) = self.slots.get_mut(index(slot)) else { return };
        let Some(mut flight) = place.flight.take() else { return };
        place.generation = (place.generation + 1) & GENERATION_MASK;
        if let Ok(entry) = self.by_key.find_entry(flight.hash, |other| *other == slot) {
            entry.remove();
        }
        self.free.push(slot);
        self.refreshing -= usize::from(flight.is_refresh);
        for sent in flight.sent.iter().filter(|sent| sent.state != SentState::Ended) {
            if let Some(server) = flight.server(sent.server) {
                server.finished();
            }
        }
        self.remember(&flight, &ending, now);
        for (waiter, _permit) in std::mem::take(&mut flight.waiters) {
            self.reply(&waiter, &ending, Some(&flight), now);
        }
    }

    /// Keeps a failure for a few seconds, so that a name that cannot be resolved does not hammer the servers (RFC 9520).
    fn remember(&self, flight: &Flight, ending: &Ending, now: Instant) {
        let Some(key) = flight.key() else { return };
        match ending {
            Ending::Failed(failure) if failure.is_cacheable() => {
                let kept = StoredAnswer::failure(&key.question, failure.rcode(), Some(failure.ede().code));
                self.cache.store_failure(&key, kept, now);
            }
            Ending::Answer { answer, .. } if !is_cacheable_answer(answer.rcode()) => {
                self.cache.store_failure(&key, answer.clone(), now);
            }
            Ending::Answer { .. } | Ending::Refused { .. } | Ending::Stale(_) | Ending::Failed(_) => {}
        }
    }

    /// Renders one reply into the outbox and records the query.
    fn reply(&mut self, waiter: &Waiter, ending: &Ending, flight: Option<&Flight>, now: Instant) {
        let Ok(query) = QueryRef::parse(&waiter.query) else { return };
        let limit = query.reply_limit(waiter.transport);
        let mut ede = None;
        let (source, rcode) = match ending {
            Ending::Answer { answer, .. } => (Source::Upstream, answer.rcode()),
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
        let upstream = match (ending, flight) {
            (Ending::Answer { server, .. }, Some(flight)) => flight.server(*server),
            _ => None,
        };
        let note = ReplyNote { source, upstream: upstream.map(|upstream| upstream.id()) };
        self.outbox.push(waiter, note, reply_space(ending, limit), |out| match ending {
            Ending::Answer { answer, .. } => answer.render(&query, TtlRule::Keep, None, out),
            Ending::Stale(answer) => {
                answer.render(&query, TtlRule::Fixed { secs: STALE_TTL_SECS }, ede.as_ref(), out)
            }
            Ending::Refused { .. } | Ending::Failed(_) => reply::error(&query, rcode, ede.as_ref(), out),
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
        record(&self.telemetry, &self.block, &outcome, &detail);
    }

    /// Returns true while the flight that was named is still there.
    fn is_current(&self, id: FlightId) -> bool {
        self.slots
            .get(index(id.slot))
            .is_some_and(|slot| slot.generation == id.generation && slot.flight.is_some())
    }

    /// Returns a flight.
    fn flight(&self, slot: u32) -> Option<&Flight> {
        self.slots.get(index(slot))?.flight.as_ref()
    }

    /// Returns a flight to be changed.
    fn flight_mut(&mut self, slot: u32) -> Option<&mut Flight> {
        self.slots.get_mut(index(slot))?.flight.as_mut()
    }
}

impl Flight {
    /// Returns the next server of the group that may be asked.
    fn next_server(&mut self, reason: Reason, now: Instant) -> Option<usize> {
        let group = &self.snapshot.groups.get(self.group)?.group;
        match reason {
            _ if self.sent.len() >= MAX_ATTEMPTS => None,
            Reason::Unanswered => self.attempts.next(group, now),
            Reason::NoResult => self.attempts.next_after_rcode(group, now),
        }
    }

    /// Returns what is said when no server gave a usable answer: what one of them did say, an old answer, the reason.
    fn last_resort(&mut self) -> Ending {
        if let Some(answer) = self.stale.take() {
            return Ending::Stale(answer);
        }
        if let Some((answer, server)) = self.fallback.take() {
            return Ending::Answer { answer, server };
        }
        let named =
            |place: usize| self.server(place).map_or_else(String::new, |server| server.name().to_owned());
        let causes = self.causes.iter().map(|(place, cause)| (named(*place), cause.clone())).collect();
        Ending::Failed(Failure::Attempts(causes))
    }
}

/// The bits of a generation.
const GENERATION_MASK: u32 = 0x00ff_ffff;

/// Packs a flight and the number of its attempt into a ticket's number.
fn ticket_id(id: FlightId, attempt: usize) -> u64 {
    let attempt = u64::try_from(attempt & 0xff).unwrap_or_default();
    u64::from(id.slot) << 32 | u64::from(id.generation & GENERATION_MASK) << 8 | attempt
}

/// The reverse of `ticket_id`.
#[expect(clippy::cast_possible_truncation, reason = "each part is masked to its width")]
fn from_ticket_id(id: u64) -> (FlightId, usize) {
    let flight = FlightId { slot: (id >> 32) as u32, generation: (id >> 8) as u32 & GENERATION_MASK };
    (flight, (id & 0xff) as usize)
}

/// Returns where a slot stands in the list.
fn index(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
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
        Ending::Answer { answer, .. } | Ending::Stale(answer) => answer.message().len() + MARGIN,
        Ending::Refused { .. } | Ending::Failed(_) => 2 * MARGIN,
    };
    limit.min(needed)
}
