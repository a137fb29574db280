//! The pipeline: what happens to a query.
//!
//! ```text
//! answer_now   policy -> route -> cache          in the listener's loop, no allocation, never awaited
//! enqueue      hand the batch's misses over      one lock, one wake-up
//! drive        flight -> group -> exchange       one task on the upstream runtime, see `flight`
//!              -> validate -> policy -> store -> reply -> record
//! ```

mod attempts;
mod driver;
mod echo;
mod endings;
mod facts;
mod failure;
mod flight;
mod flights;
mod inbox;
mod learnt;
mod outbox;
pub mod permits;
pub mod route;
pub mod snapshot;
mod stragglers;
#[cfg(test)]
mod tests;
mod undated;
mod validate;
pub mod waiter;

use self::echo::Keepalive;
use self::failure::Failure;
use self::inbox::{Inbox, Refresh};
use self::permits::{Permit, Permits};
use self::snapshot::{GroupEntry, Snapshot};
use self::waiter::{ReplyBatch, ReplyNote, Waiter};
use crate::cache::key::{KeyRef, PartitionId, Variant};
use crate::cache::{Cache, Found, Lookup, Moment};
use crate::config::settings::dnstap::MessageKind;
use crate::policy::Verdict;
use crate::policy::client_subnet::SubnetContent;
use crate::telemetry::bounds::Bound;
use crate::telemetry::counters::{Block, Telemetry};
use crate::telemetry::outcome::{Outcome, QueryDetail, Source, record};
use crate::upstream::retry::is_dnssec;
use crate::wire::ede::{Ede, EdeCode};
use crate::wire::edns::ReplyOptions;
use crate::wire::header::Rcode;
use crate::wire::query::{ClientTransport, QueryRef};
use crate::wire::question::QuestionRef;
use crate::wire::reply;
use crate::wire::stored::{StoredAnswer, TtlRule};
use arc_swap::{ArcSwap, Guard};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// TTL of a stale answer in seconds (RFC 8767 §4).
const STALE_TTL_SECS: u32 = 30;
/// Said with a stale answer (RFC 8914 §4.4).
static STALE: Ede = Ede::new(EdeCode::STALE_ANSWER, "");
/// Said with a stale NXDOMAIN (RFC 8914 §4.20).
static STALE_NXDOMAIN: Ede = Ede::new(EdeCode::STALE_NXDOMAIN, "");

/// What became of a query at once. `P` is another type only in tests of listeners.
#[derive(Debug)]
pub enum Step<P = Pending> {
    /// A reply of so many octets was written.
    Reply(usize),
    /// No reply at all.
    Drop,
    /// Memory has no answer: make a `Waiter` and hand both to `enqueue`.
    Wait(P),
}

/// A query that memory could not answer, on its way to a flight.
#[derive(Debug)]
pub struct Pending {
    /// The configuration it began with, and ends with.
    snapshot: Arc<Snapshot>,
    /// Place of its group.
    group: usize,
    /// The bits that tell its answer from others.
    variant: Variant,
    /// The client's own ECS option, when the operator forwards those.
    subnet: Option<SubnetContent>,
    /// Hash of question and variant.
    hash: u64,
    /// What may be said when nothing better comes in time.
    stale: Option<StoredAnswer>,
}

/// What is the same for queries that came together: the configuration is loaded and the clock read once for them. Not to be
/// kept longer, for it holds on to the configuration.
#[derive(Debug)]
pub struct Round {
    /// The configuration in force.
    snapshot: Guard<Arc<Snapshot>>,
    /// When they came, by the cache's clock.
    now: Moment,
}

/// A query as it came.
#[derive(Clone, Copy)]
struct Arrival<'q, 'a> {
    /// The query.
    query: &'q QueryRef<'a>,
    /// How the client asked.
    transport: ClientTransport,
    /// What the reply says to its options.
    options: ReplyOptions<'a>,
}

/// Where the answer to a query comes from.
struct Place<'r, 'a> {
    /// The configuration in force.
    snapshot: &'r Arc<Snapshot>,
    /// Place of the group.
    group: usize,
    /// The group.
    entry: &'r GroupEntry,
    /// What the cache knows it by.
    key: KeyRef<'a>,
    /// The client's own ECS option, when the operator forwards those.
    subnet: Option<SubnetContent>,
}

impl Place<'_, '_> {
    /// Makes the record of a query that has to wait.
    fn pending(&self, hash: u64, stale: Option<StoredAnswer>) -> Pending {
        let Self { snapshot, group, key, subnet, .. } = *self;
        Pending { snapshot: Arc::clone(snapshot), group, variant: key.variant, subnet, hash, stale }
    }

    /// Makes the record of a name to be asked for again.
    fn refresh(&self, hash: u64) -> Refresh {
        let Self { snapshot, group, key, subnet, .. } = *self;
        let question = question_octets(&key.question);
        Refresh { snapshot: Arc::clone(snapshot), group, variant: key.variant, subnet, hash, question }
    }
}

/// The pipeline. One per gateway, shared by all workers.
#[derive(Debug)]
pub struct Resolver {
    /// The configuration in force.
    snapshot: ArcSwap<Snapshot>,
    /// Answers we have.
    cache: Arc<Cache>,
    /// Places for queries that wait.
    permits: Arc<Permits>,
    /// Work for the drivers, by lane; at least one.
    inboxes: Box<[Arc<Inbox>]>,
    /// Refreshes that fly, of all lanes together.
    refreshing: Arc<AtomicUsize>,
    /// Counters and the query log.
    telemetry: Arc<Telemetry>,
    /// Counters of queries that waited or were turned away.
    block: Arc<Block>,
    /// Makes cache partitions of client networks; seeded, so that nobody can aim at one.
    subnet_hasher: RandomState,
    /// What TCP clients are told of their connections.
    keepalive: Arc<Keepalive>,
}

impl Resolver {
    /// Makes the pipeline of a first configuration. Nothing waits until `drive` runs.
    pub fn new(snapshot: Snapshot, cache: Arc<Cache>, telemetry: Arc<Telemetry>) -> Arc<Self> {
        Self::with_lanes(snapshot, cache, telemetry, 1)
    }

    /// As `new`, for so many drivers (at least one). A question is always one driver's, so that identical ones meet.
    pub fn with_lanes(
        snapshot: Snapshot,
        cache: Arc<Cache>,
        telemetry: Arc<Telemetry>,
        lanes: usize,
    ) -> Arc<Self> {
        let permits = Permits::new(snapshot.limits.max_inflight, snapshot.limits.max_inflight_per_client);
        let keepalive = Arc::new(Keepalive::new(snapshot.limits.tcp_idle));
        Arc::new(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            cache,
            permits,
            inboxes: (0..lanes.max(1)).map(|_| Arc::default()).collect(),
            refreshing: Arc::default(),
            block: telemetry.block(),
            telemetry,
            subnet_hasher: RandomState::new(),
            keepalive,
        })
    }

    /// Puts another configuration in force. Queries that wait end under the one they began with.
    pub fn replace(&self, snapshot: Snapshot) {
        self.permits.reconfigure(snapshot.limits.max_inflight, snapshot.limits.max_inflight_per_client);
        self.snapshot.swap(Arc::new(snapshot)).supersede();
    }

    /// Asks TCP clients in replies to close their connections: no more queries are taken.
    pub fn says_farewell(&self) {
        self.keepalive.end();
    }

    /// Returns the configuration in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Returns the places of waiting queries.
    pub fn permits(&self) -> &Arc<Permits> {
        &self.permits
    }

    /// Begins on queries that came together, at `now`.
    pub fn round(&self, now: Instant) -> Round {
        Round { snapshot: self.snapshot.load(), now: self.cache.moment(now) }
    }

    /// Answers from memory or says that the query must wait. Writes the reply into `out`, which is as long as a reply
    /// may be. Never blocks; allocates nothing when it answers from the cache.
    pub fn answer_now(
        &self,
        round: &Round,
        query: &QueryRef<'_>,
        transport: ClientTransport,
        out: &mut [u8],
    ) -> (Step, Outcome) {
        let snapshot = &round.snapshot;
        let options = self.keepalive.options(&snapshot.subnet, query, transport);
        let (verdict, _rule) = snapshot.policy.on_query(query);
        let arrival = Arrival { query, transport, options };
        match verdict {
            Verdict::Pass | Verdict::Accept => self.route_and_look_up(round, &arrival, out),
            verdict @ (Verdict::Answer(_) | Verdict::Refuse(..) | Verdict::Drop) => {
                by_rule(verdict, &arrival, out)
            }
        }
    }

    /// Stages 5 and 6: route, cache. What is not a fresh answer is not inline: a query that comes alone has to fetch all code that
    /// lies between the steps of its way.
    fn route_and_look_up(&self, round: &Round, arrival: &Arrival<'_, '_>, out: &mut [u8]) -> (Step, Outcome) {
        let Round { snapshot, now } = round;
        let query = arrival.query;
        let question = query.question();
        let group = snapshot.routes.group_for(question.name, question.rtype);
        let Some(entry) = snapshot.groups.get(group) else { return unrouted(arrival, out) };
        let subnet = snapshot.subnet.forwarded(query);
        let variant = Variant {
            dnssec_ok: query.dnssec_ok(),
            checking_disabled: query.header().checking_disabled(),
            partition: self.partition(entry.partition, subnet),
        };
        let place = Place { snapshot, group, entry, key: KeyRef { question, variant }, subnet };
        match self.look_up(&place.key, entry, *now) {
            Lookup::Fresh(found) => fresh(&found, arrival, out),
            lookup @ (Lookup::FreshRefreshDue(_) | Lookup::Stale(_) | Lookup::Miss) => {
                self.not_just_fresh(lookup, &place, arrival, out)
            }
        }
    }

    /// Stage 6, when a server has to be asked, now or soon.
    #[inline(never)]
    fn not_just_fresh(
        &self,
        lookup: Lookup,
        place: &Place<'_, '_>,
        arrival: &Arrival<'_, '_>,
        out: &mut [u8],
    ) -> (Step, Outcome) {
        let wait = |stale| {
            let pending = place.pending(self.cache.hash(&place.key), stale);
            (Step::Wait(pending), outcome(Source::Upstream, Rcode::NOERROR, None, arrival.transport))
        };
        match lookup {
            Lookup::Fresh(found) => fresh(&found, arrival, out),
            Lookup::FreshRefreshDue(found) => {
                if self.begin_refresh(place) {
                    self.cache.refresh_begins(&place.key);
                }
                fresh(&found, arrival, out)
            }
            // Nothing to wait for: asked a moment ago in vain, or every server is known to be down.
            Lookup::Stale(found) if found.failure || !place.entry.group.any_up() => {
                // A failure a moment ago is not tried again yet (RFC 9520 §3.2).
                if !found.failure {
                    self.begin_refresh(place);
                }
                let ede = stale_ede(&found.answer);
                let rule = TtlRule::Fixed { secs: STALE_TTL_SECS };
                let written = found.answer.render(arrival.query, rule, &arrival.options.because(ede), out);
                let said = outcome(Source::Stale, found.answer.rcode(), Some(ede.code), arrival.transport);
                (Step::Reply(written), said)
            }
            Lookup::Stale(found) => wait(Some(found.answer)),
            Lookup::Miss => wait(None),
        }
    }

    /// Hands a refresh to its driver. False when it is left out, because there are as many as there may be: then it is not even
    /// made, for answers from the cache go on at full speed.
    fn begin_refresh(&self, place: &Place<'_, '_>) -> bool {
        let has_room = self.refreshing.load(Ordering::Relaxed) < place.snapshot.limits.refresh_inflight;
        let begun = has_room && {
            let refresh = place.refresh(self.cache.hash(&place.key));
            self.inbox(refresh.hash).is_some_and(|inbox| inbox.refresh(refresh))
        };
        if !begun {
            self.telemetry.bounds().reached(Bound::RefreshInflight);
        }
        begun
    }

    /// Looks an answer up. What failed while no server was up is forgotten when there is one again.
    fn look_up(&self, key: &KeyRef<'_>, entry: &GroupEntry, now: Moment) -> Lookup {
        let lookup = self.cache.lookup(key, now);
        if is_failure(&lookup) && entry.has_recovered() {
            self.cache.forget_failures();
            return self.cache.lookup(key, now);
        }
        lookup
    }

    /// Returns the part of the cache for answers made for one client network; without one, the group's own.
    fn partition(&self, partition: PartitionId, subnet: Option<SubnetContent>) -> PartitionId {
        subnet.map_or(partition, |subnet| {
            let hash = self.subnet_hasher.hash_one((partition, subnet));
            PartitionId(u32::try_from(hash >> 32).unwrap_or_default())
        })
    }

    /// Joins each waiter to its flight, starting those that are missing: one wake-up for all. What finds no place gets a
    /// stale answer or SERVFAIL at once.
    pub fn enqueue(&self, misses: &mut Vec<(Pending, Waiter)>) {
        let mut admitted = Vec::with_capacity(misses.len());
        let mut refused = Vec::new();
        {
            let mut counter = self.permits.counter();
            for (pending, waiter) in misses.drain(..) {
                match counter.acquire(waiter.client.peer.ip()) {
                    Ok(permit) => admitted.push((pending, waiter, permit)),
                    Err(bound) => refused.push((pending, waiter, bound)),
                }
            }
        }
        for (pending, waiter, bound) in refused {
            self.telemetry.bounds().reached(bound);
            self.turn_away(&pending, &waiter);
        }
        match &self.inboxes[..] {
            [only] => only.misses(admitted),
            several => {
                for (lane, inbox) in several.iter().enumerate() {
                    let its =
                        |(pending, ..): &mut (Pending, Waiter, Permit)| self.lane_of(pending.hash) == lane;
                    inbox.misses(admitted.extract_if(.., its).collect());
                }
            }
        }
    }

    /// Returns the lane of a question.
    fn lane_of(&self, hash: u64) -> usize {
        Cache::lane_of(hash, self.inboxes.len())
    }

    /// Returns the inbox of a question's lane.
    fn inbox(&self, hash: u64) -> Option<&Arc<Inbox>> {
        self.inboxes.get(self.lane_of(hash))
    }

    /// Replies to a query for which there is no place.
    fn turn_away(&self, pending: &Pending, waiter: &Waiter) {
        let Ok(query) = QueryRef::parse(&waiter.query) else { return };
        let limit = query.reply_limit(waiter.transport);
        let mut batch = ReplyBatch::default();
        let failure = Failure::Overloaded;
        let (source, rcode, ede) = match &pending.stale {
            Some(answer) => (Source::Stale, answer.rcode(), stale_ede(answer).clone()),
            None => (Source::Failed, failure.rcode(), failure.ede()),
        };
        let note = ReplyNote { source, upstream: None };
        let options = self.keepalive.options(&pending.snapshot.subnet, &query, waiter.transport);
        let options = options.because(&ede);
        batch.push(waiter.client, note, limit, |out| match &pending.stale {
            Some(answer) => answer.render(&query, TtlRule::Fixed { secs: STALE_TTL_SECS }, &options, out),
            None => reply::error(&query, rcode, &options, out),
        });
        for (_, reply) in batch.iter() {
            self.telemetry.dnstap().tell(MessageKind::ClientResponse, reply, || waiter.occasion());
        }
        waiter.sink.send(&batch);
        let detail =
            QueryDetail { client: waiter.client.peer.ip(), question: Some(query.question()), upstream: None };
        let outcome = outcome(source, rcode, Some(ede.code), waiter.transport);
        record(&self.telemetry, &self.block, &outcome, &detail);
    }

    /// Runs the flights of a lane until `cancel`: spawned once a lane, on its runtime.
    pub async fn drive(self: Arc<Self>, lane: usize, cancel: CancellationToken) {
        let Some(inbox) = self.inboxes.get(lane).cloned() else { return };
        let flights = flights::Flights::new(&self, lane, Arc::clone(&inbox), crate::clock::now());
        drop(self);
        driver::drive(flights, inbox, cancel).await;
    }
}

/// True for a failure that is remembered.
fn is_failure(lookup: &Lookup) -> bool {
    match lookup {
        Lookup::Fresh(found) | Lookup::Stale(found) => found.failure,
        Lookup::FreshRefreshDue(_) | Lookup::Miss => false,
    }
}

/// Renders a fresh answer, or a failure that is remembered.
fn fresh(found: &Found, arrival: &Arrival<'_, '_>, out: &mut [u8]) -> (Step, Outcome) {
    let Arrival { query, transport, options, .. } = *arrival;
    let rcode = found.answer.rcode();
    let (source, ede) = match (found.failure, found.answer.ede_code()) {
        (false, _) => (Source::Cache, None),
        // A rule's refusal keeps its own reason, and so does a verdict of DNSSEC.
        (true, Some(EdeCode::BLOCKED)) => (Source::Blocked, None),
        (true, Some(code)) if is_dnssec(code) => (Source::Failed, None),
        (true, _) => (Source::Failed, Some(&failure::CACHED)),
    };
    let written = found.answer.render(
        query,
        TtlRule::Aged { secs: found.age_secs },
        &ReplyOptions { ede, ..options },
        out,
    );
    (Step::Reply(written), outcome(source, rcode, ede.map(|ede| ede.code), transport))
}

/// Replies as a rule says that has an opinion.
#[inline(never)]
fn by_rule(verdict: Verdict, arrival: &Arrival<'_, '_>, out: &mut [u8]) -> (Step, Outcome) {
    let Arrival { query, transport, options } = *arrival;
    match verdict {
        Verdict::Answer(answer) => {
            let written = answer.render(query, TtlRule::Keep, &options, out);
            (Step::Reply(written), outcome(Source::Local, answer.rcode(), None, transport))
        }
        Verdict::Refuse(rcode, ede) => {
            let written = reply::error(query, rcode, &options.because(&ede), out);
            (Step::Reply(written), outcome(Source::Blocked, rcode, Some(ede.code), transport))
        }
        Verdict::Drop | Verdict::Pass | Verdict::Accept => {
            (Step::Drop, outcome(Source::Refused, Rcode::REFUSED, None, transport))
        }
    }
}

/// Replies that there is nobody to ask.
#[cold]
fn unrouted(arrival: &Arrival<'_, '_>, out: &mut [u8]) -> (Step, Outcome) {
    let Arrival { query, transport, options } = *arrival;
    let ede = Ede::new(EdeCode::NOT_READY, "no upstream group");
    let written = reply::error(query, Rcode::SERVFAIL, &options.because(&ede), out);
    (Step::Reply(written), outcome(Source::Failed, Rcode::SERVFAIL, Some(ede.code), transport))
}

/// Returns what is said with a stale answer.
fn stale_ede(answer: &StoredAnswer) -> &'static Ede {
    if answer.rcode() == Rcode::NXDOMAIN { &STALE_NXDOMAIN } else { &STALE }
}

/// Returns the question's octets.
fn question_octets(question: &QuestionRef<'_>) -> Box<[u8]> {
    let mut octets = Vec::with_capacity(question.wire_len());
    octets.extend_from_slice(question.name.as_bytes());
    octets.extend_from_slice(&question.rtype.0.to_be_bytes());
    octets.extend_from_slice(&question.class.0.to_be_bytes());
    octets.into()
}

/// Makes the record of a query that was answered at once.
fn outcome(source: Source, rcode: Rcode, ede: Option<EdeCode>, transport: ClientTransport) -> Outcome {
    Outcome { source, rcode, ede, transport, duration: None }
}
