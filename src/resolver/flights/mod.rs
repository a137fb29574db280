//! All flights: identical questions share one, each goes from server to server until one answers (`attempts`), and its
//! waiters are replied to (`endings`). Here is the table of them, and how they begin. No socket, task or clock: `now`,
//! work and completions go in; exchanges and replies come out.

mod deadlines;

use self::deadlines::Deadlines;
use super::attempts::Reason;
use super::echo::Keepalive;
use super::endings::Ending;
use super::failure::Failure;
use super::flight::{Flight, Hedge};
use super::inbox::{Inbox, Refresh, Work};
use super::learnt::Answers;
use super::outbox::Outbox;
use super::permits::Permit;
use super::stragglers::Stragglers;
use super::waiter::{ReplyNote, Waiter};
use super::{Pending, Resolver, question_octets};
use crate::cache::Cache;
use crate::cache::key::KeyRef;
use crate::config::settings::dnstap::MessageKind;
use crate::telemetry::bounds::Bound;
use crate::telemetry::counters::{Block, Telemetry};
use crate::telemetry::dnstap::Dnstap;
use crate::telemetry::outcome::{Outcome, QueryDetail, record};
use crate::telemetry::traces::Traces;
use crate::telemetry::traces::facts::EndedFlight;
use crate::transport::CompletionSink;
use crate::upstream::group::Attempts;
use crate::wire::query::{QueryRef, UpstreamQuery};
use crate::wire::question::QuestionRef;
use crate::wire::stored::StoredAnswer;
use hashbrown::HashTable;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Names a flight; a later one in the same slot has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlightId {
    /// Its slot.
    pub(super) slot: u32,
    /// How often the slot was used, modulo 2^24.
    pub(super) generation: u32,
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
    /// Flights that have ended while servers were still being waited for.
    stragglers: Stragglers,
    /// When each flight needs attention.
    deadlines: Deadlines<FlightId>,
    /// Scratch: what is due.
    due: Vec<FlightId>,
    /// Replies of this wake-up.
    outbox: Outbox,
    /// Answers of this wake-up that their server has not learnt of yet.
    pub(super) answers: Answers,
    /// Places of those who were replied to in this wake-up.
    pub(super) returned: Vec<Permit>,
    /// Flights that ended in this wake-up and leave a trace.
    ended: Vec<EndedFlight>,
    /// Flights that nobody waits for, of all lanes.
    refreshing: Arc<AtomicUsize>,
    /// Which lane this is.
    lane: usize,
    /// Where completions go.
    inbox: Arc<Inbox>,
    /// Answers we have.
    cache: Arc<Cache>,
    /// What TCP clients are told of their connections.
    pub(super) keepalive: Arc<Keepalive>,
    /// Counters and the query log.
    telemetry: Arc<Telemetry>,
    /// Counters of the driver.
    block: Arc<Block>,
}

impl Flights {
    /// Makes the state of one lane's driver.
    pub(super) fn new(resolver: &Resolver, lane: usize, inbox: Arc<Inbox>, now: Instant) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashTable::new(),
            stragglers: Stragglers::default(),
            deadlines: Deadlines::new(now),
            due: Vec::new(),
            outbox: Outbox::default(),
            answers: Answers::default(),
            returned: Vec::new(),
            ended: Vec::new(),
            refreshing: Arc::clone(&resolver.refreshing),
            lane,
            inbox,
            cache: Arc::clone(&resolver.cache),
            keepalive: Arc::clone(&resolver.keepalive),
            telemetry: Arc::clone(&resolver.telemetry),
            block: resolver.telemetry.block(),
        }
    }

    /// Does all of `work`, leaving its lists empty, then what is due, then sends the replies.
    pub(super) fn turn(&mut self, work: &mut Work, now: Instant) {
        // Completions first: their waiters have waited longest.
        for completion in work.completions.drain(..) {
            self.complete(completion, now);
        }
        self.answers.enter(now);
        for id in work.doubts.drain(..) {
            self.doubt(id, now);
        }
        for (pending, waiter, permit) in work.misses.drain(..) {
            self.join(pending, waiter, permit, now);
        }
        for refresh in work.refreshes.drain(..) {
            self.refresh(refresh, now);
        }
        self.expire(now);
        self.flush();
    }

    /// Sends the replies, then gives back the places of those who got them.
    fn flush(&mut self) {
        self.outbox.flush();
        Permit::release_all(&mut self.returned);
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
        self.flush();
    }

    /// Adds a waiter to the flight of its question; starts one if there is none.
    fn join(&mut self, pending: Pending, waiter: Waiter, permit: Permit, now: Instant) {
        let Ok(query) = QueryRef::parse(&waiter.query) else { return };
        let question = query.question();
        match self.find(&question, &pending) {
            Some(slot) => {
                let lent = self.lend_stale(slot, pending.stale);
                self.board(slot, waiter, permit, now);
                if lent {
                    self.schedule(slot);
                }
            }
            None => {
                let question = question_octets(&query.question());
                let flight = self.new_flight(pending, question, now);
                self.launch(flight, Some((waiter, permit)), now);
            }
        }
    }

    /// Starts a flight that nobody waits for, if there is room and none for that question yet.
    fn refresh(&mut self, refresh: Refresh, now: Instant) {
        let Some(question) = QuestionRef::parse(&refresh.question) else { return };
        let Refresh { snapshot, group, variant, subnet, hash, .. } = refresh;
        let pending = Pending { snapshot, group, variant, subnet, hash, stale: None };
        if self.find(&question, &pending).is_some() {
            return;
        }
        let bound = pending.snapshot.limits.refresh_inflight;
        let one_more = |places: usize| (places < bound).then_some(places + 1);
        if self.refreshing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            // The next who asks for it tries again.
            self.cache.refresh_is_over(&KeyRef { question, variant: pending.variant });
            self.reached(Bound::RefreshInflight);
            return;
        }
        match self.new_flight(pending, refresh.question, now) {
            Some(flight) => self.launch(Some(flight), None, now),
            None => self.refreshed(),
        }
    }

    /// Gives the place of a refresh back.
    fn refreshed(&self) {
        self.refreshing.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns the flight for the same question under the same group and variant.
    fn find(&self, question: &QuestionRef<'_>, pending: &Pending) -> Option<u32> {
        let same = |slot: &u32| {
            self.flight(*slot).is_some_and(|flight| {
                flight.variant == pending.variant
                    && Arc::ptr_eq(&flight.snapshot, &pending.snapshot)
                    && flight.question().is_some_and(|known| known.matches(question))
            })
        };
        self.by_key.find(pending.hash, same).copied()
    }

    /// Gives a flight that began without one (a refresh, say) the stale answer of a client that joins it. True when it
    /// took it.
    fn lend_stale(&mut self, slot: u32, stale: Option<StoredAnswer>) -> bool {
        let Some(flight) = self.flight_mut(slot).filter(|flight| flight.stale.is_none()) else {
            return false;
        };
        flight.stale = stale;
        flight.stale.is_some()
    }

    /// Adds a waiter to a flight, or replies at once: the stale answer when the others have had it, or that there are too many.
    fn board(&mut self, slot: u32, waiter: Waiter, permit: Permit, now: Instant) {
        let Some(flight) = self.slots.get_mut(index(slot)).and_then(|slot| slot.flight.as_mut()) else {
            return;
        };
        let full = flight.waiters.len() >= flight.snapshot.limits.waiters_per_flight;
        let stale = flight.stale.clone().filter(|_| flight.stale_sent || full);
        if full {
            self.telemetry.bounds().reached(Bound::WaitersPerFlight);
        }
        let ending = match stale {
            Some(answer) => Ending::Stale(answer),
            None if full => Ending::Failed(Failure::TooManyWaiters),
            None => return flight.waiters.push((waiter, permit)),
        };
        let (snapshot, group) = (Arc::clone(&flight.snapshot), flight.group);
        let outcome = self.reply(&waiter, &ending, (&snapshot, group), now);
        if let Some(flight) = self.flight_mut(slot) {
            flight.note_reply(&waiter, outcome, now);
        }
    }

    /// Makes the record of a flight.
    fn new_flight(&self, pending: Pending, question: Box<[u8]>, now: Instant) -> Option<Flight> {
        let Pending { snapshot, group, variant, subnet, hash, stale } = pending;
        let subnet = subnet.or_else(|| snapshot.subnet.fixed());
        let entry = snapshot.groups.get(group)?;
        let query = UpstreamQuery {
            question: QuestionRef::parse(&question)?,
            dnssec_ok: variant.dnssec_ok,
            checking_disabled: variant.checking_disabled,
            subnet: snapshot.subnet.option(subnet.as_ref()),
            padding: entry.padding,
        }
        .build();
        let attempts = Attempts::start(&entry.group, fastrand::u64(..), now);
        let deadline = now + snapshot.query_timeout;
        Some(Flight {
            snapshot,
            group,
            variant,
            question,
            hash,
            query,
            subnet,
            waiters: Vec::new(),
            stale,
            stale_sent: false,
            attempts,
            sent: Vec::with_capacity(2),
            hedge: Hedge::Not,
            again_at: None,
            causes: Vec::new(),
            fallback: None,
            started: now,
            deadline,
            is_refresh: false,
            facts: self.telemetry.traces().begin(),
        })
    }

    /// Puts a flight into the table and makes its first attempt.
    fn launch(&mut self, flight: Option<Flight>, waiter: Option<(Waiter, Permit)>, now: Instant) {
        let Some(mut flight) = flight else { return };
        flight.is_refresh = waiter.is_none();
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

    /// Looks after every flight whose time has come.
    fn expire(&mut self, now: Instant) {
        let mut due = std::mem::take(&mut self.due);
        self.deadlines.expire(now, &mut due);
        for id in due.drain(..) {
            if self.is_current(id) {
                self.on_time(id.slot, now);
                self.schedule(id.slot);
            } else if let Some(at) = self.stragglers.on_time(id, now) {
                self.deadlines.push(at, id);
            }
        }
        self.due = due;
    }

    /// Takes a flight out of the table, with its name; completions that come for it later find no flight.
    pub(super) fn take(&mut self, slot: u32) -> Option<(FlightId, Flight)> {
        let place = self.slots.get_mut(index(slot))?;
        let flight = place.flight.take()?;
        let id = FlightId { slot, generation: place.generation };
        place.generation = (place.generation + 1) & GENERATION_MASK;
        if let Ok(entry) = self.by_key.find_entry(flight.hash, |other| *other == slot) {
            entry.remove();
        }
        self.free.push(slot);
        if flight.is_refresh {
            self.refreshed();
        }
        Some((id, flight))
    }

    /// Puts the flight's next time into the queue of deadlines.
    pub(super) fn schedule(&mut self, slot: u32) {
        let Some(place) = self.slots.get(index(slot)) else { return };
        if let Some(flight) = &place.flight {
            self.deadlines.push(flight.next_at(), FlightId { slot, generation: place.generation });
        }
    }

    /// Returns true while the flight that was named is still there.
    pub(super) fn is_current(&self, id: FlightId) -> bool {
        self.slots
            .get(index(id.slot))
            .is_some_and(|slot| slot.generation == id.generation && slot.flight.is_some())
    }

    /// Returns a flight.
    pub(super) fn flight(&self, slot: u32) -> Option<&Flight> {
        self.slots.get(index(slot))?.flight.as_ref()
    }

    /// Returns a flight to be changed.
    pub(super) fn flight_mut(&mut self, slot: u32) -> Option<&mut Flight> {
        self.slots.get_mut(index(slot))?.flight.as_mut()
    }

    /// Returns a flight to be changed, and the generation of its slot.
    pub(super) fn generation_and_flight(&mut self, slot: u32) -> Option<(u32, &mut Flight)> {
        let place = self.slots.get_mut(index(slot))?;
        Some((place.generation, place.flight.as_mut()?))
    }

    /// Returns a flight to be changed, and the answers of this turn.
    pub(super) fn flight_and_answers(&mut self, slot: u32) -> Option<(&mut Flight, &mut Answers)> {
        let flight = self.slots.get_mut(index(slot))?.flight.as_mut()?;
        Some((flight, &mut self.answers))
    }

    /// Returns the flights that have ended while servers were still being waited for.
    pub(super) fn stragglers(&mut self) -> &mut Stragglers {
        &mut self.stragglers
    }

    /// Returns which lane this is.
    pub(super) fn lane(&self) -> usize {
        self.lane
    }

    /// Returns where completions go.
    pub(super) fn completions(&self) -> Arc<dyn CompletionSink> {
        self.inbox.clone()
    }

    /// Returns the answers we have.
    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Puts a reply of at most `limit` octets, which `write` writes, to those of this wake-up.
    pub(super) fn send(
        &mut self,
        waiter: &Waiter,
        note: ReplyNote,
        limit: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) {
        let dnstap = self.telemetry.dnstap();
        self.outbox.push(waiter, note, limit, |out| {
            let written = write(out);
            let reply = out.get(..written).unwrap_or_default();
            dnstap.tell(MessageKind::ClientResponse, reply, || waiter.occasion());
            written
        });
    }

    /// Returns who is told of messages as they come and go.
    pub(super) fn dnstap(&self) -> &Dnstap {
        self.telemetry.dnstap()
    }

    /// Returns what everything is counted in.
    pub(super) fn telemetry(&self) -> Arc<Telemetry> {
        Arc::clone(&self.telemetry)
    }

    /// Counts that a bound was reached.
    pub(super) fn reached(&self, bound: Bound) {
        self.telemetry.bounds().reached(bound);
    }

    /// Adds a flight that has ended and leaves a trace.
    pub(super) fn add_trace(&mut self, flight: EndedFlight) {
        self.ended.push(flight);
    }

    /// Hands over the traces of flights that ended in the latest turn, whose replies have left by `now`. The time is asked for
    /// only when there are some.
    pub(super) fn hand_over_traces(&mut self, now: impl FnOnce() -> Instant) {
        if self.ended.is_empty() {
            return;
        }
        let told = now();
        for flight in self.ended.drain(..) {
            self.telemetry.traces().send(EndedFlight { told, ..flight });
        }
    }

    /// Returns where traces go.
    pub(super) fn traces(&self) -> &Traces {
        self.telemetry.traces()
    }

    /// Counts and logs a finished query.
    pub(super) fn record(&self, outcome: &Outcome, detail: &QueryDetail<'_>) {
        record(&self.telemetry, &self.block, outcome, detail);
    }
}

/// The bits of a generation.
pub(super) const GENERATION_MASK: u32 = 0x00ff_ffff;

/// Returns where a slot stands in the list.
fn index(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}
