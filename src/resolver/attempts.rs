//! What happens to a flight while it is on its way: whom it asks next, what a completion or a time-out means for it.
//! Where flights are kept is `flights`' business, how they end `endings`'.

use super::endings::Ending;
use super::failure::{Cause, Failure};
use super::flight::{Flight, Hedge, MAX_ATTEMPTS, Sent, SentState};
use super::flights::{FlightId, Flights, GENERATION_MASK};
use super::inbox::Completion;
use super::learnt::Answers;
use super::snapshot::{GroupEntry, Snapshot};
use crate::cache::Provenance;
use crate::config::settings::Endpoint;
use crate::config::settings::dnstap::MessageKind;
use crate::policy::Verdict;
use crate::telemetry::bounds::Bound;
use crate::telemetry::dnstap::event::{Parties, Protocol};
use crate::telemetry::dnstap::{Dnstap, Occasion};
use crate::telemetry::traces::facts::{AttemptResult, Kept};
use crate::transport::{CompletionSink, Exchange, Received, Ticket, TransportError};
use crate::upstream::retry::{Retry, after_rcode, after_transport, is_dnssec};
use crate::upstream::{Sample, Upstream};
use crate::wire::header::Rcode;
use crate::wire::response::{ResponseFault, ResponseRef};
use crate::wire::stored::StoredAnswer;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why another server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// No answer so far.
    Unanswered,
    /// An answer whose rcode is no result.
    NoResult,
    /// Nearly all answers of the first server come sooner.
    Slow,
    /// All servers had their turn, and the path lost the connections.
    Again,
}

/// Before a server is asked again that had its turn: a pool that could not connect pauses as long after its first failure
/// (`transport::queue`). Between three quarters and five quarters of it, at random.
const SECOND_TURN: Duration = Duration::from_millis(150);

/// What fails sooner was refused or closed by somebody, and not lost.
const LOSS_TAKES: Duration = Duration::from_millis(250);

/// An attempt whose completion has come.
pub(super) struct Attempt {
    /// Which one of its flight's.
    pub(super) number: usize,
    /// Place of the server in its group.
    pub(super) server: usize,
    /// When it was asked.
    asked_at: Instant,
    /// Its time was up before, and counted then.
    pub(super) late: bool,
    /// The certificate's dates were overlooked for it.
    pub(super) overlooking_dates: bool,
}

impl Flights {
    /// Asks the next server; ends the flight when there is none and nothing is awaited any more.
    pub(super) fn attempt(&mut self, slot: u32, reason: Reason, now: Instant) {
        let sink: Arc<dyn CompletionSink> = self.completions();
        let lane = self.lane();
        let Some((generation, flight)) = self.generation_and_flight(slot) else { return };
        let Some(server) = flight.next_server(reason, now) else { return self.run_out(slot, now) };
        let number = flight.sent.len();
        // Counting a reference to the server would take a line of memory from the other lanes with each query.
        let Some(waits) = flight.server(server).map(|server| server.waits()) else { return };
        flight.sent.push(Sent {
            server,
            at: now,
            patience: waits.patience,
            state: SentState::Waiting,
            overlooking_dates: false,
        });
        flight.hedge = match reason {
            Reason::Slow => Hedge::Made(number),
            Reason::Unanswered if number == 0 => flight.planned_hedge(waits.hedge, now),
            Reason::Unanswered | Reason::NoResult | Reason::Again => Hedge::Not,
        };
        flight.note_attempt(server, reason, now);
        let id = ticket_id(FlightId { slot, generation }, number);
        let exchange = Exchange {
            query: flight.query.clone(),
            deadline: flight.deadline,
            ticket: Ticket::new(sink, id),
            lane,
        };
        let Some(upstream) = self.flight(slot).and_then(|flight| flight.server(server)) else { return };
        if reason == Reason::Slow {
            upstream.counters().hedged();
        }
        self.dnstap().tell(MessageKind::ForwarderQuery, &exchange.query, || occasion(upstream, now));
        upstream.submit(exchange, now);
    }

    /// No further server may be asked: ends the flight when nothing is awaited any more.
    fn run_out(&mut self, slot: u32, now: Instant) {
        let Some(flight) = self.flight_mut(slot).filter(|flight| !flight.is_hopeful()) else { return };
        // With an answer to pass on, nobody waits for servers that have had their time.
        let is_over = flight.fallback.is_some() || !flight.is_waiting();
        if self.overlook_dates(slot, now) || !is_over {
            return;
        }
        if self.flight_mut(slot).is_some_and(|flight| flight.plans_second_turn(now)) {
            return self.schedule(slot);
        }
        if let Some(ending) = self.flight_mut(slot).map(Flight::last_resort) {
            self.end(slot, ending, now);
        }
    }

    /// Does what is due for one flight: the end, the stale answer, another attempt.
    pub(super) fn on_time(&mut self, slot: u32, now: Instant) {
        let Some(flight) = self.flight_mut(slot) else { return };
        let give_stale = flight.stale_at().is_some_and(|at| at <= now);
        let impatient = flight.give_up_waiting(now);
        if flight.deadline <= now {
            let ending = flight.last_resort();
            self.reached(Bound::QueryTime);
            self.end(slot, ending, now);
            return;
        }
        if give_stale {
            self.send_stale(slot, now);
        }
        if impatient {
            self.reached(Bound::AttemptTime);
            self.attempt(slot, Reason::Unanswered, now);
        }
        let is_due = |flight: &mut Flight| flight.again_at.take_if(|at| *at <= now).is_some();
        if self.flight_mut(slot).is_some_and(is_due) {
            self.attempt(slot, Reason::Again, now);
        }
        self.hedge(slot, now);
    }

    /// Asks a second server when it is time to; if it may not be, the first one's time goes on.
    fn hedge(&mut self, slot: u32, now: Instant) {
        let Some(flight) = self.flight_mut(slot) else { return };
        if flight.hedge_at().is_some_and(|at| at <= now) {
            flight.hedge = Hedge::Not;
            self.attempt(slot, Reason::Slow, now);
        }
    }

    /// Takes the end of an exchange: an answer, or a reason to ask another server.
    pub(super) fn complete(&mut self, completion: Completion, now: Instant) {
        let (id, number) = from_ticket_id(completion.id);
        if completion.outcome.is_err() {
            // In the order in which they came.
            self.answers.enter(now);
        }
        if !self.is_current(id) {
            return self.straggled(id, number, completion.outcome, now);
        }
        let Some(attempt) = self.flight_mut(id.slot).and_then(|flight| flight.finish(number)) else { return };
        if let Some(flight) = self.flight(id.slot) {
            flight.tell(&attempt, &completion.outcome, self.dnstap());
        }
        match completion.outcome {
            Ok(received) => self.received(id.slot, &attempt, received, now),
            Err(error) => self.failed(id.slot, &attempt, error, now),
        }
    }

    /// Hears that the connection of an exchange has fallen silent, and that the exchange goes on with a fresh one, which counts
    /// as a retry: the next server is asked at once, and this one has its time again before it is blamed.
    pub(super) fn doubt(&mut self, id: u64, now: Instant) {
        let (id, number) = from_ticket_id(id);
        if !self.is_current(id) {
            return;
        }
        let Some(flight) = self.flight_mut(id.slot) else { return };
        if let Some(sent) = flight.sent.get_mut(number).filter(|sent| sent.state == SentState::Waiting) {
            *sent = Sent { at: now, state: SentState::Doubted, ..*sent };
            self.go_on(id.slot, Reason::Unanswered, now);
        }
        if let Some(flight) = self.flight_mut(id.slot) {
            flight.charge_repetition(number, now);
            flight.note_repetition(number);
        }
    }

    /// Takes an exchange that failed.
    fn failed(&mut self, slot: u32, attempt: &Attempt, error: TransportError, now: Instant) {
        if let Some(flight) = self.flight_mut(slot) {
            flight.learn_failure(attempt, &error, now);
            flight.note_failure(attempt, &error, now);
            if let (TransportError::ConnectTimeout { .. }, Some(entry)) = (&error, flight.entry()) {
                flight.attempts.unheard(&entry.group, now);
            }
            if !attempt.late {
                flight.causes.push((attempt.server, Cause::Transport(error)));
            }
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
    fn received(&mut self, slot: u32, attempt: &Attempt, received: Received, now: Instant) {
        let server = attempt.server;
        let Received { message, age_secs, sent_at } = received;
        let Some((flight, answers)) = self.flight_and_answers(slot) else { return };
        let Some(asked) = flight.asked(server) else { return };
        let checked = asked.check(message);
        let response =
            checked.as_ref().map_err(|fault| *fault).and_then(|message| ResponseRef::parse(message));
        let response = match response {
            Ok(response) => response,
            Err(fault) => {
                answers.enter(now);
                flight.learn_fault(attempt, fault, now);
                flight.note_message(attempt, sent_at, AttemptResult::Invalid(fault), now);
                flight.causes.push((server, Cause::Invalid(fault)));
                return self.go_on(slot, Reason::Unanswered, now);
            }
        };
        flight.answered(attempt, response.rcode(), answers, now);
        if attempt.overlooking_dates {
            let ending = self.judge_undated((slot, server), &response);
            return self.end(slot, ending, now);
        }
        let retry = after_rcode(response.rcode(), response.ede().is_some_and(|(code, _)| is_dnssec(code)));
        match retry {
            Retry::No => {
                flight.note_message(attempt, sent_at, AttemptResult::Answered(response.rcode()), now);
                if flight.hedge == Hedge::Made(attempt.number)
                    && let Some(upstream) = flight.server(server)
                {
                    upstream.counters().hedge_won();
                }
                let ending = self.judge((slot, server), &response, age_secs, now);
                self.end(slot, ending, now);
            }
            Retry::Other => {
                let answer = asked.keep(&response);
                flight.note_message(attempt, sent_at, AttemptResult::Answered(response.rcode()), now);
                flight.causes.push((server, Cause::Rcode(response.rcode())));
                flight.fallback.get_or_insert((answer, server));
                self.go_on(slot, Reason::NoResult, now);
            }
        }
    }

    /// Stages 12 and 13: the answer-side rules, then the cache.
    fn judge(
        &mut self,
        (slot, server): (u32, usize),
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
                self.keep_failure(&key, refusal, now);
                self.note_kept(slot, Kept::Failure);
                return Ending::Refused { rcode, ede };
            }
            Verdict::Drop => return Ending::Failed(Failure::Stopping),
        }
        let answer = asked.keep(response);
        // An answer for one network is nobody else's (RFC 7871 §7.3.1). The network that we named is part of the key.
        let is_ours = response.ecs_scope().is_none_or(|scope| scope == 0) || flight.subnet.is_some();
        if !is_ours {
            return Ending::Answer { answer, server };
        }
        let origin = flight.server(server).map(|server| server.origin()).unwrap_or_default();
        let answer = self.cache().store(&key, answer, Provenance { origin, age_secs }, now);
        self.note_kept(slot, Kept::Answer);
        Ending::Answer { answer, server }
    }
}

/// What is learnt of a server from an attempt.
impl Flight {
    /// Tells dnstap of the server's answer, if there is one.
    pub(super) fn tell(
        &self,
        attempt: &Attempt,
        outcome: &Result<Received, TransportError>,
        dnstap: &Dnstap,
    ) {
        if let (Ok(received), Some(upstream)) = (outcome, self.server(attempt.server)) {
            let occasion = || occasion(upstream, attempt.asked_at);
            dnstap.tell(MessageKind::ForwarderResponse, &received.message, occasion);
        }
    }

    /// Learns from an exchange that failed. A late attempt was counted when its time was up.
    pub(super) fn learn_failure(&self, attempt: &Attempt, error: &TransportError, now: Instant) {
        let Some(upstream) = self.server(attempt.server).filter(|_| !attempt.late) else { return };
        attempt.observe(upstream, after_transport(error).sample, now);
        // The transport saw it, but it is an answer that broke a rule.
        if let TransportError::Mismatch(fault) = error {
            upstream.counters().invalid(*fault);
        } else {
            upstream.counters().failed(error.label());
        }
    }

    /// Learns from an answer that broke a rule.
    pub(super) fn learn_fault(&self, attempt: &Attempt, fault: ResponseFault, now: Instant) {
        let Some(upstream) = self.server(attempt.server) else { return };
        attempt.observe(upstream, Sample::Failed { error: fault.into() }, now);
        upstream.counters().invalid(fault);
    }

    /// Notes an answer that holds, to be learnt from at the end of the turn.
    fn answered(&self, attempt: &Attempt, rcode: Rcode, answers: &mut Answers, now: Instant) {
        if attempt.overlooking_dates {
            return self.learn_answer(attempt, rcode, now);
        }
        if let Some(upstream) = self.server(attempt.server) {
            answers.add(upstream, rcode, now.saturating_duration_since(attempt.asked_at), now);
        }
    }

    /// Learns from an answer that holds.
    pub(super) fn learn_answer(&self, attempt: &Attempt, rcode: Rcode, now: Instant) {
        let Some(upstream) = self.server(attempt.server) else { return };
        let latency = now.saturating_duration_since(attempt.asked_at);
        attempt.observe(upstream, Sample::Answered { latency }, now);
        upstream.counters().answered(rcode, latency);
    }
}

impl Attempt {
    /// Tells the server's health, unless the attempt went where nothing but a time server's name may go.
    fn observe(&self, upstream: &Upstream, sample: Sample, now: Instant) {
        if !self.overlooking_dates {
            upstream.observe(sample, now);
        }
    }
}

impl Flight {
    /// Notes that an attempt's completion has come; None for one that it has not made.
    pub(super) fn finish(&mut self, number: usize) -> Option<Attempt> {
        let sent = self.sent.get_mut(number)?;
        let late = sent.state == SentState::Late;
        let (server, asked_at, overlooking_dates) = (sent.server, sent.at, sent.overlooking_dates);
        sent.state = SentState::Ended;
        self.server(server)?.finished();
        Some(Attempt { number, server, asked_at, late, overlooking_dates })
    }

    /// Counts that an attempt was asked once more on a fresh connection.
    fn charge_repetition(&self, number: usize, now: Instant) {
        let server = self.sent.get(number).and_then(|sent| self.server(sent.server));
        if let (Some(server), Some(entry)) = (server, self.snapshot.groups.get(self.group)) {
            self.attempts.repeated(&entry.group, now);
            server.counters().repeated();
        }
    }

    /// Returns whether a second server is to be asked, and when: not for a refresh, for which nobody waits.
    fn planned_hedge(&self, after: Option<Duration>, now: Instant) -> Hedge {
        let entry = self.snapshot.groups.get(self.group).filter(|_| !self.is_refresh);
        match (entry, after) {
            (Some(entry), Some(after)) if self.attempts.may_hedge(&entry.group) => Hedge::At(now + after),
            _ => Hedge::Not,
        }
    }

    /// Returns the next server of the group that may be asked.
    fn next_server(&mut self, reason: Reason, now: Instant) -> Option<usize> {
        let group = &self.snapshot.groups.get(self.group)?.group;
        match reason {
            _ if self.sent.len() >= MAX_ATTEMPTS => None,
            Reason::Unanswered => self.attempts.next(group, now),
            Reason::NoResult => self.attempts.next_after_rcode(group, now),
            Reason::Slow => self.attempts.next_for_hedge(group, now),
            Reason::Again => self.attempts.next_again(group, now),
        }
    }

    /// Plans to ask a server again that had its turn, and again when there is no retry left then; false when that is not worth
    /// it: something else than the path is to blame, no server is up, nobody waits, or the attempts of a query are used up.
    fn plans_second_turn(&mut self, now: Instant) -> bool {
        let lost = |(_, cause): &(usize, Cause)| {
            matches!(
                cause,
                Cause::TimedOut
                    | Cause::NotConnected
                    | Cause::Transport(TransportError::Closed | TransportError::ConnectTimeout { .. })
            )
        };
        let is_slow = now.saturating_duration_since(self.started) >= LOSS_TAKES;
        let is_worth_it =
            is_slow && self.fallback.is_none() && !self.is_refresh && self.causes.iter().any(lost);
        let at = now + SECOND_TURN.mul_f64(0.75 + fastrand::f64() / 2.0);
        let may = |entry: &GroupEntry| self.attempts.may_ask_again(&entry.group);
        if !is_worth_it || at >= self.deadline || !self.entry().is_some_and(may) {
            return false;
        }
        self.again_at = Some(at);
        true
    }

    /// Notes whose time is up; true when another server may be asked for it, which is not so while a hedge has time left. At
    /// the deadline that is everybody's, but a server is blamed only for its own time.
    pub(super) fn give_up_waiting(&mut self, now: Instant) -> bool {
        let is_over = self.deadline <= now;
        let mut impatient = false;
        for sent in self.sent.iter_mut().filter(|sent| sent.state.has_time()) {
            let had_its_time = sent.at + sent.patience <= now;
            if had_its_time || is_over {
                self.causes.push((sent.server, self.snapshot.silence(self.group, sent.server)));
            }
            if had_its_time {
                sent.state = SentState::Late;
                impatient = true;
                self.snapshot.blame(self.group, sent, now);
            }
        }
        impatient && !self.is_patient()
    }
}

impl Snapshot {
    /// Returns what a server's silence means: without a connection it has not even heard the query.
    fn silence(&self, group: usize, server: usize) -> Cause {
        let server = self.groups.get(group).and_then(|entry| entry.group.upstreams.get(server));
        let connected = server.is_none_or(|server| {
            let connectionless = matches!(server.spec().endpoint, Endpoint::PlainUdp { .. });
            connectionless || server.transport().connections() > 0
        });
        if connected { Cause::TimedOut } else { Cause::NotConnected }
    }

    /// Counts a time-out against a server, unless it has answered others meanwhile: then the name is slow, not the server.
    fn blame(&self, group: usize, sent: &Sent, now: Instant) {
        let entry = self.groups.get(group);
        if let Some(server) = entry.and_then(|entry| entry.group.upstreams.get(sent.server)) {
            if !server.has_answered_since(sent.at) && !sent.overlooking_dates {
                server.observe(Sample::TimedOut, now);
            }
            server.counters().failed("timeout");
        }
    }
}

/// Returns what dnstap is told of a query to a server or of its answer, besides the octets. Where the server is, is known from
/// the latest connection to it.
fn occasion(upstream: &Upstream, asked_at: Instant) -> Occasion {
    let connected = || upstream.transport().last_handshake().map(|handshake| handshake.address);
    let (protocol, address) = match &upstream.spec().endpoint {
        Endpoint::Dot { .. } => (Protocol::Dot, connected()),
        Endpoint::Doh { .. } => (Protocol::Doh, connected()),
        Endpoint::PlainUdp { address } => (Protocol::Udp, Some(*address)),
        Endpoint::PlainTcp { address } => (Protocol::Tcp, Some(*address)),
    };
    Occasion { protocol, parties: Parties::Server { name: upstream.name().into(), address }, asked_at }
}

/// Packs a flight and the number of its attempt into a ticket's number.
pub(super) fn ticket_id(id: FlightId, attempt: usize) -> u64 {
    let attempt = u64::try_from(attempt & 0xff).unwrap_or_default();
    u64::from(id.slot) << 32 | u64::from(id.generation & GENERATION_MASK) << 8 | attempt
}

/// The reverse of `ticket_id`.
#[expect(clippy::cast_possible_truncation, reason = "each part is masked to its width")]
fn from_ticket_id(id: u64) -> (FlightId, usize) {
    let flight = FlightId { slot: (id >> 32) as u32, generation: (id >> 8) as u32 & GENERATION_MASK };
    (flight, (id & 0xff) as usize)
}
