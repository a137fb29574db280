//! Counters: a block per thread, mostly written by that one, summed when the page is asked for; and one per server.
//! All adds are relaxed: a page may be a query behind, it never goes backwards. How they look on the page is `page`'s.

#[cfg(test)]
mod tests;
mod upstream;

use super::bounds::Bounds;
use super::dnstap::Dnstap;
use super::histogram::{Histogram, Reading};
use super::outcome::{Outcome, Source};
use super::query_log::{QueryLogSlot, Target};
use super::traces::Traces;
use crate::config::settings::{LogSettings, QueryLog};
use crate::wire::ede::EdeCode;
use crate::wire::header::Rcode;
use crate::wire::query::ClientTransport;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
pub use upstream::UpstreamCounters;
pub(crate) use upstream::is_usual;

/// The root: owns the blocks, the query log and the way to the collector of dnstap.
#[derive(Debug)]
pub struct Telemetry {
    /// One for each thread that answers; they live as long as the process.
    blocks: Mutex<Vec<Arc<Block>>>,
    /// By name, so that counters survive a reload.
    upstreams: Mutex<BTreeMap<String, Arc<UpstreamCounters>>>,
    /// How often bounds were reached.
    bounds: Arc<Bounds>,
    /// The query log, if it is on.
    query_log: QueryLogSlot,
    /// Events for a collector, if there is one.
    dnstap: Dnstap,
    /// Traces, if they are on.
    traces: Traces,
    /// When this was made, which is when the process began to matter.
    started: SystemTime,
}

impl Telemetry {
    /// Makes the root.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            blocks: Mutex::default(),
            upstreams: Mutex::default(),
            bounds: Arc::default(),
            query_log: QueryLogSlot::default(),
            dnstap: Dnstap::default(),
            traces: Traces::default(),
            started: crate::clock::wall(),
        })
    }

    /// Opens the query log of these settings in place of the present one (the same file is opened anew: rotation), or
    /// closes it. What waits in the present one is still written to where it was meant to go.
    ///
    /// # Errors
    /// A file that cannot be opened; the present log then stays.
    pub fn open_query_log(&self, log: &LogSettings, queue: usize) -> io::Result<()> {
        match &log.queries {
            QueryLog::Off => self.query_log.close(),
            QueryLog::Stdout => self.query_log.replace(Target::stdout(), log.query_lines, queue)?,
            QueryLog::File(path) => self.query_log.replace(Target::file(path)?, log.query_lines, queue)?,
        }
        Ok(())
    }

    /// Finds out whether the query log of these settings could be opened; changes nothing.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn try_query_log(log: &QueryLog) -> io::Result<()> {
        match log {
            QueryLog::Off | QueryLog::Stdout => Ok(()),
            QueryLog::File(path) => Target::try_file(path),
        }
    }

    /// Writes out what waits and closes the query log. Waits for that, but not for ever.
    pub fn close_query_log(&self) {
        self.query_log.close_and_wait();
    }

    /// Returns where events of dnstap go.
    pub fn dnstap(&self) -> &Dnstap {
        &self.dnstap
    }

    /// Adds a block for one more thread.
    pub fn block(&self) -> Arc<Block> {
        let block = Arc::new(Block::default());
        lock(&self.blocks).push(Arc::clone(&block));
        block
    }

    /// Returns the counters of the server of this name; made at first use, kept for ever (bounded by the configuration).
    pub fn upstream(&self, name: &str) -> Arc<UpstreamCounters> {
        Arc::clone(lock(&self.upstreams).entry(name.to_owned()).or_default())
    }

    /// Returns the counts of bounds that were reached.
    pub fn bounds(&self) -> &Arc<Bounds> {
        &self.bounds
    }

    /// Returns where traces go.
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// Returns the place of the query log.
    pub(super) fn query_log(&self) -> &QueryLogSlot {
        &self.query_log
    }

    /// Returns when this was made.
    pub(super) fn started(&self) -> SystemTime {
        self.started
    }

    /// Sums the blocks.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for block in lock(&self.blocks).iter() {
            block.add_to(&mut totals);
        }
        totals
    }

    /// Returns every server that was ever counted, by name.
    pub(super) fn upstreams(&self) -> Vec<(String, Arc<UpstreamCounters>)> {
        lock(&self.upstreams).iter().map(|(name, counters)| (name.clone(), Arc::clone(counters))).collect()
    }
}

/// Locks a list. A panic elsewhere leaves whole lists behind.
fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One thread's counters, on cache lines of their own.
#[derive(Debug)]
#[repr(align(64))]
pub struct Block {
    /// Replies by all that they are told apart by, so that a hit costs one add. See [`Cell::place`].
    replies: [AtomicU64; CELLS],
    /// How long clients waited, by source. Replies given at once are not timed: they are in `replies`.
    waits: [Histogram; Source::ALL.len()],
}

impl Default for Block {
    fn default() -> Self {
        Self { replies: [const { AtomicU64::new(0) }; CELLS], waits: Default::default() }
    }
}

impl Block {
    /// Counts a finished query.
    pub(super) fn count(&self, outcome: &Outcome) {
        if let Some(counter) = self.replies.get(Cell::of(outcome).place()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        if let (Some(waited), Some(histogram)) = (outcome.duration, self.waits.get(outcome.source.place())) {
            histogram.observe(waited);
        }
    }

    /// Adds what was counted to `totals`.
    fn add_to(&self, totals: &mut Totals) {
        for (sum, counter) in totals.replies.iter_mut().zip(&self.replies) {
            *sum = sum.wrapping_add(counter.load(Ordering::Relaxed));
        }
        for (sum, histogram) in totals.waits.iter_mut().zip(&self.waits) {
            histogram.add_to(sum);
        }
    }
}

/// How a reply came about, as far as the cache's rates are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// At once.
    AtOnce,
    /// At once, being a failure that the cache remembered (RFC 9520).
    Remembered,
    /// After a wait for servers.
    Waited,
}

impl Pace {
    /// All, in the order of their places.
    const ALL: [Self; 3] = [Self::AtOnce, Self::Remembered, Self::Waited];

    /// Returns the place in `ALL`.
    fn place(self) -> usize {
        match self {
            Self::AtOnce => 0,
            Self::Remembered => 1,
            Self::Waited => 2,
        }
    }
}

/// What replies are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    /// At once or not.
    pace: Pace,
    /// How the client asked.
    transport: ClientTransport,
    /// Where the reply came from.
    source: Source,
    /// Place of its rcode among `RcodeClass`es.
    rcode: RcodeClass,
}

/// Ways to ask, in the order of their places.
pub(super) const TRANSPORTS: [ClientTransport; 2] = [ClientTransport::Udp, ClientTransport::Tcp];

/// Every combination of a cell's parts.
const CELLS: usize = Pace::ALL.len() * TRANSPORTS.len() * Source::ALL.len() * RcodeClass::COUNT;

impl Cell {
    /// Returns the cell that a query belongs to.
    fn of(outcome: &Outcome) -> Self {
        let pace = match (outcome.duration, outcome.ede) {
            (Some(_), _) => Pace::Waited,
            (None, Some(EdeCode::CACHED_ERROR)) => Pace::Remembered,
            (None, _) => Pace::AtOnce,
        };
        Self {
            pace,
            transport: outcome.transport,
            source: outcome.source,
            rcode: RcodeClass::of(outcome.rcode),
        }
    }

    /// Returns where the cell stands among all.
    fn place(self) -> usize {
        let transport = match self.transport {
            ClientTransport::Udp => 0,
            ClientTransport::Tcp => 1,
        };
        let kind = self.pace.place() * TRANSPORTS.len() + transport;
        (kind * Source::ALL.len() + self.source.place()) * RcodeClass::COUNT + self.rcode.0
    }

    /// Iterates over all cells, in the order of their places.
    fn all() -> impl Iterator<Item = Self> {
        let kinds = Pace::ALL.into_iter().flat_map(|pace| TRANSPORTS.map(|transport| (pace, transport)));
        let ends =
            || Source::ALL.into_iter().flat_map(|source| RcodeClass::all().map(move |rcode| (source, rcode)));
        kinds.flat_map(move |(pace, transport)| {
            ends().map(move |(source, rcode)| Self { pace, transport, source, rcode })
        })
    }

    /// True for what the cache answered at once: fresh answers, stale ones, failures it remembered.
    fn is_hit(self) -> bool {
        match self.pace {
            Pace::AtOnce => matches!(self.source, Source::Cache | Source::Stale),
            Pace::Remembered => true,
            Pace::Waited => false,
        }
    }

    /// True for what the cache was asked for and had not: whatever waited, and what was turned away instead.
    fn is_miss(self) -> bool {
        match self.pace {
            Pace::AtOnce => self.source == Source::Failed,
            Pace::Remembered => false,
            Pace::Waited => true,
        }
    }
}

/// An rcode as a label: the registered ones, and one for all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RcodeClass(usize);

impl RcodeClass {
    /// 0 to 11, 16 to 23, and the others.
    const COUNT: usize = 21;

    /// Returns the class of `rcode`.
    fn of(rcode: Rcode) -> Self {
        match rcode.0 {
            low @ 0..=11 => Self(usize::from(low)),
            extended @ 16..=23 => Self(usize::from(extended) - 4),
            _ => Self(Self::COUNT - 1),
        }
    }

    /// Iterates over all.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }

    /// Returns the `rcode` label.
    pub(super) fn label(self) -> String {
        let known = (0..=23).map(Rcode).find(|rcode| Self::of(*rcode) == self && self.0 + 1 < Self::COUNT);
        known.map_or_else(|| "other".to_owned(), |rcode| rcode.to_string())
    }
}

/// The blocks' sum.
#[derive(Debug)]
pub(super) struct Totals {
    /// As in a block.
    replies: [u64; CELLS],
    /// As in a block.
    waits: [Reading; Source::ALL.len()],
}

impl Default for Totals {
    fn default() -> Self {
        Self { replies: [0; CELLS], waits: Default::default() }
    }
}

impl Totals {
    /// Returns the number of replies in the cells that `wanted` picks.
    fn sum(&self, wanted: impl Fn(Cell) -> bool) -> u64 {
        Cell::all().zip(self.replies).filter(|(cell, _)| wanted(*cell)).map(|(_, replies)| replies).sum()
    }

    /// Returns the number of queries that came so.
    pub(super) fn queries(&self, transport: ClientTransport) -> u64 {
        self.sum(|cell| cell.transport == transport)
    }

    /// Returns the number of queries.
    pub(super) fn all_queries(&self) -> u64 {
        self.sum(|_| true)
    }

    /// Returns the number of replies of this rcode from this source.
    pub(super) fn responses(&self, rcode: RcodeClass, source: Source) -> u64 {
        self.sum(|cell| cell.rcode == rcode && cell.source == source)
    }

    /// Returns the number of queries that the cache answered at once.
    pub(super) fn hits(&self) -> u64 {
        self.sum(Cell::is_hit)
    }

    /// Returns the number of queries that the cache had no use for.
    pub(super) fn misses(&self) -> u64 {
        self.sum(Cell::is_miss)
    }

    /// Returns how long replies from this source took.
    pub(super) fn durations(&self, source: Source) -> Reading {
        let mut reading = self.waits.get(source.place()).cloned().unwrap_or_default();
        reading.add_untimed(self.sum(|cell| cell.source == source && cell.pace != Pace::Waited));
        reading
    }
}
