//! What a trace is made from: plain facts of one flight with the times at which they happened, as the resolver was told
//! them. Nothing here reads a clock, and nothing names a client. How they look to a collector is `spans`' matter.

use crate::config::settings::ServerSpec;
use crate::telemetry::outcome::Outcome;
use crate::wire::header::Rcode;
use crate::wire::name::Name;
use crate::wire::question::RecordType;
use crate::wire::response::ResponseFault;
use std::sync::Arc;
use std::time::Instant;

/// Clients' queries of one flight that are kept; of further ones only the number is. A name that a thousand clients wait
/// for must not fill the queue of traces.
const MOST_QUERIES: usize = 16;

/// Names a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(u128);

impl TraceId {
    /// Draws one.
    pub(super) fn random() -> Self {
        // Zero is no identifier (W3C Trace Context §3.2.2.3).
        Self(fastrand::u128(1..))
    }

    /// Returns the part that is the same for everybody who samples: the last 56 bits, which are random (W3C Trace Context
    /// Level 2 §3.2.2.5).
    pub(super) fn lot(self) -> u64 {
        let [.., a, b, c, d, e, f, g] = self.0.to_be_bytes();
        u64::from_be_bytes([0, a, b, c, d, e, f, g])
    }

    /// Returns its octets.
    #[cfg(feature = "otel")]
    pub(super) fn octets(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

/// What is kept of a flight that leaves a trace, while it is on its way.
#[derive(Clone, Debug)]
pub struct FlightFacts {
    /// Names the trace.
    pub id: TraceId,
    /// Attempts, in order.
    pub attempts: Vec<AttemptFacts>,
    /// Clients' queries that were replied to, in order; the first one began the flight, unless it is a refresh.
    pub queries: Vec<QueryFacts>,
    /// Further ones.
    pub more_queries: usize,
    /// What the cache keeps of it.
    pub kept: Kept,
}

/// One attempt at a server.
#[derive(Clone, Debug)]
pub struct AttemptFacts {
    /// The server.
    pub server: Arc<ServerSpec>,
    /// Why it was asked.
    pub reason: AttemptReason,
    /// When it was asked.
    pub asked_at: Instant,
    /// It was asked again on a fresh connection, because the first one fell silent.
    pub repeated: bool,
    /// What became of it; None: nothing until the flight ended.
    pub end: Option<AttemptEnd>,
}

/// Why a server was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptReason {
    /// It was the first.
    First,
    /// No answer so far.
    Unanswered,
    /// An answer whose rcode is no result.
    NoResult,
    /// Another server is slower than it usually is: a hedge.
    Slow,
    /// All had their turn, and the path lost the connections.
    Again,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug)]
pub struct AttemptEnd {
    /// When.
    pub at: Instant,
    /// When the query was written to a connection, as far as that is known.
    pub sent_at: Option<Instant>,
    /// Its time was up before.
    pub late: bool,
    /// How.
    pub result: AttemptResult,
}

/// What an attempt brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// An answer that holds.
    Answered(Rcode),
    /// A message that broke a rule.
    Invalid(ResponseFault),
    /// No message; by `TransportError::label`.
    Failed(&'static str),
}

/// A client's query and its reply.
#[derive(Clone, Copy, Debug)]
pub struct QueryFacts {
    /// When it came.
    pub received: Instant,
    /// When its reply was made.
    pub replied: Instant,
    /// What it was told.
    pub outcome: Outcome,
}

/// What the cache keeps of a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Nothing.
    Nothing,
    /// The answer.
    Answer,
    /// That there was none.
    Failure,
}

/// A flight that has ended, whole.
#[derive(Debug)]
pub struct EndedFlight {
    /// What was kept of it.
    pub facts: Box<FlightFacts>,
    /// The group that was asked.
    pub group: String,
    /// The name that was asked for, when traces hold names.
    pub name: Option<Name>,
    /// The type that was asked for.
    pub record_type: RecordType,
    /// Nobody waited when it began.
    pub is_refresh: bool,
    /// When it began.
    pub started: Instant,
    /// When it ended.
    pub ended: Instant,
    /// When the last replies had left.
    pub told: Instant,
}

impl FlightFacts {
    /// Begins.
    pub(super) fn new(id: TraceId) -> Self {
        let (attempts, queries) = (Vec::with_capacity(2), Vec::with_capacity(1));
        Self { id, attempts, queries, more_queries: 0, kept: Kept::Nothing }
    }

    /// Adds an attempt that is made now.
    pub fn asked(&mut self, server: Arc<ServerSpec>, reason: AttemptReason, now: Instant) {
        self.attempts.push(AttemptFacts { server, reason, asked_at: now, repeated: false, end: None });
    }

    /// Notes that an attempt goes on with a fresh connection.
    pub fn repeated(&mut self, attempt: usize) {
        if let Some(attempt) = self.attempts.get_mut(attempt) {
            attempt.repeated = true;
        }
    }

    /// Notes how an attempt ended.
    pub fn attempt_ended(&mut self, attempt: usize, end: AttemptEnd) {
        if let Some(attempt) = self.attempts.get_mut(attempt) {
            attempt.end = Some(end);
        }
    }

    /// Adds a client's query that is replied to.
    pub fn replied(&mut self, query: QueryFacts) {
        if self.queries.len() < MOST_QUERIES {
            self.queries.push(query);
        } else {
            self.more_queries += 1;
        }
    }
}
