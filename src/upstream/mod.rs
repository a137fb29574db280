//! Named servers and groups of them: which one to ask, and whether it is well. An [`Upstream`] joins a transport with what
//! was learnt about the server behind it; a [`group::Group`] puts several in order. What is *not* here: the wait for an
//! answer (`resolver::flight`), how bytes reach a server (`transport`), whether an answer is good (`resolver::validate`).

mod addresses;
pub mod bootstrap;
pub mod budget;
mod condition;
mod discovery;
#[cfg(test)]
pub(crate) mod fake;
mod glance;
pub mod group;
pub mod health;
pub mod latency;
pub mod overlooking;
pub mod probe;
pub mod recent;
pub mod retry;
pub mod strategy;
#[cfg(test)]
mod tests;
mod usage;
mod waits;

use crate::cache::key::Origin;
use crate::config::settings::ServerSpec;
use crate::config::settings::timeouts::AttemptTime;
use crate::config::units::show_duration;
use crate::telemetry::counters::UpstreamCounters;
use crate::transport::{Exchange, Transport, TransportError};
use crate::wire::response::ResponseFault;
use condition::Condition;
use glance::Glance;
use health::{Company, Health, State, Transition};
use latency::Latency;
use overlooking::Overlooking;
use recent::{Quantiles, Recent};
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use strategy::Candidate;
use tokio::sync::watch;
use usage::Usage;
use waits::Waits;

/// Names an upstream for the life of the process, so that a ticket of before a reload never meets another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId(pub u32);

impl UpstreamId {
    /// Returns one that was not given out before.
    fn fresh() -> Self {
        /// The next one to give out.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// One server: how to reach it, how it has been, what it has to do.
#[derive(Debug)]
pub struct Upstream {
    /// Unique for the life of the process.
    id: UpstreamId,
    /// What the operator or a preset says of it; equal specs are the same server over a reload.
    spec: Arc<ServerSpec>,
    /// The number under which the cache keeps its answers.
    origin: Origin,
    /// The way to it.
    transport: Box<dyn Transport>,
    /// The way for names of time servers when the clock is wrong.
    overlooking: Option<Overlooking>,
    /// What was seen of it; held for a few instructions, never over a call to the transport.
    condition: Mutex<Condition>,
    /// What each query wants to know of it.
    glance: Glance,
    /// Submitted and not yet finished, and when the latest was.
    usage: Usage,
    /// Its lines on the metrics page.
    counters: Arc<UpstreamCounters>,
    /// Wakes its prober when it goes down. No `Notify`: around a reload there may be two probers, and each must hear of it.
    went_down: watch::Sender<()>,
    /// Changes when it comes up: failures of names that are remembered may be over then.
    came_up: watch::Sender<()>,
}

/// What became of one query to a server, as far as the server is concerned.
#[derive(Clone, Debug)]
pub enum Sample {
    /// It answered with an acceptable message, whatever the rcode.
    Answered {
        /// From submission to completion.
        latency: Duration,
    },
    /// It failed before the attempt's time was over.
    Failed {
        /// Why.
        error: Failure,
    },
    /// Nothing came within the attempt's time.
    TimedOut,
    /// Its certificate or key is not the one we trust.
    Certificate {
        /// What is wrong with it.
        error: Failure,
    },
    /// It is well and asks to be left alone (HTTP 429 and 503).
    Busy {
        /// For how long, if it says so.
        retry_after: Option<Duration>,
    },
    /// A failure that says nothing about the server: our own bound, or a server being put away.
    Neutral,
}

/// What a server did wrong: for the log and the operator, with its causes.
#[derive(Clone, Debug)]
pub struct Failure(Reason);

/// What is in a [`Failure`].
#[derive(Clone, Debug)]
enum Reason {
    /// No answer, or none that is one.
    Exchange(TransportError),
    /// The server asked for peace.
    Busy {
        /// For how long, if it says so.
        retry_after: Option<Duration>,
    },
}

impl From<&TransportError> for Failure {
    fn from(error: &TransportError) -> Self {
        Self(Reason::Exchange(error.clone()))
    }
}

impl From<ResponseFault> for Failure {
    fn from(fault: ResponseFault) -> Self {
        Self(Reason::Exchange(TransportError::Mismatch(fault)))
    }
}

impl fmt::Display for Failure {
    /// Writes the error and each of its causes, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Reason::Busy { retry_after: None } => f.write_str("the server is busy"),
            Reason::Busy { retry_after: Some(wait) } => {
                write!(f, "the server is busy and asks to be left alone for {}", show_duration(*wait))
            }
            Reason::Exchange(error) => {
                write!(f, "{error}")?;
                let mut cause = error.source();
                while let Some(error) = cause {
                    write!(f, ": {error}")?;
                    cause = error.source();
                }
                Ok(())
            }
        }
    }
}

/// How a server is, for `upstreams`, the state summary and the metrics page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamStatus {
    /// Up, or down and when it is asked again.
    pub state: State,
    /// Estimate of what an answer takes; None before the first.
    pub latency: Option<Duration>,
    /// What its latest answers stay within; None before the first.
    pub quantiles: Option<Quantiles>,
    /// What asking it costs in the eyes of `fastest`, load apart: the estimate, and a penalty for failures.
    pub cost: Duration,
    /// Queries waiting for it.
    pub in_flight: u32,
    /// Open connections.
    pub connections: usize,
    /// Its latest failure, however long ago.
    pub last_error: Option<String>,
    /// When that was.
    pub failed_at: Option<Instant>,
    /// When it last answered anything.
    pub answered_at: Option<Instant>,
}

impl Upstream {
    /// Makes a server that nothing is known of: it counts as up until it shows otherwise.
    pub fn new(
        spec: Arc<ServerSpec>,
        origin: Origin,
        transport: Box<dyn Transport>,
        counters: Arc<UpstreamCounters>,
    ) -> Self {
        let condition = Condition::new(crate::clock::now());
        Self {
            id: UpstreamId::fresh(),
            spec,
            origin,
            transport,
            overlooking: None,
            condition: Mutex::new(condition),
            glance: Glance::new(),
            usage: Usage::new(),
            counters,
            went_down: watch::Sender::new(()),
            came_up: watch::Sender::new(()),
        }
    }

    /// Gives it a way on which the dates of its certificate are overlooked.
    #[must_use]
    pub fn with_overlooking(self, make: overlooking::Make) -> Self {
        Self { overlooking: Some(Overlooking::new(make)), ..self }
    }

    /// Returns its name for the life of the process.
    pub fn id(&self) -> UpstreamId {
        self.id
    }

    /// Returns the operator's name for it.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Returns what it was made from.
    pub fn spec(&self) -> &Arc<ServerSpec> {
        &self.spec
    }

    /// Returns the number under which the cache keeps its answers.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Returns the way to it.
    pub fn transport(&self) -> &dyn Transport {
        &*self.transport
    }

    /// Returns its counters.
    pub fn counters(&self) -> &Arc<UpstreamCounters> {
        &self.counters
    }

    /// Hands a user's query to the transport and counts it as in flight until [`Self::finished`].
    pub fn submit(&self, exchange: Exchange, now: Instant) {
        self.usage.begins();
        self.usage.used(now);
        if self.spec.endpoint.is_plaintext() {
            self.counters.plaintext();
        }
        self.transport.submit(exchange);
    }

    /// Ends what [`Self::submit`] began: exactly once for each, when the ticket completed.
    pub fn finished(&self) {
        self.usage.ends();
    }

    /// Learns from a user's query. A change of state is logged, once, and wakes the prober.
    pub fn observe(&self, sample: Sample, now: Instant) {
        let dice = fastrand::u64(..);
        let transition = self.learn(&sample, now, |health| health.observe(&sample, dice, now));
        self.announce(transition, &sample, now);
    }

    /// Learns from users' queries that it answered, these times after they went to it: one look at what is known of it for all.
    pub fn answered(&self, latencies: &[Duration], now: Instant) {
        let mut transition = None;
        {
            let mut condition = self.condition();
            for latency in latencies {
                let sample = Sample::Answered { latency: *latency };
                let dice = fastrand::u64(..);
                let change = condition.learn(&sample, now, |health| health.observe(&sample, dice, now));
                transition = transition.or(change);
            }
            self.publish(&condition, now);
        }
        self.announce(transition, &Sample::Answered { latency: Duration::ZERO }, now);
    }

    /// Learns from a probe, which alone lengthens the back-off of a server that is down.
    pub(crate) fn probed(&self, sample: Sample, now: Instant) {
        let dice = fastrand::u64(..);
        let transition = self.learn(&sample, now, |health| health.probed(&sample, dice, now));
        self.announce(transition, &sample, now);
    }

    /// Starts afresh on another network: connections are new, and what was seen of the server through the old one is
    /// forgotten. Its latest error stays for the operator to read.
    pub fn start_afresh(&self, now: Instant) {
        {
            let mut condition = self.condition();
            condition.health = Health::new(now);
            condition.latency = Latency::default();
            condition.recent = Recent::default();
            self.publish(&condition, now);
        }
        self.transport.reset();
        if let Some(transport) = self.overlooking.as_ref().and_then(Overlooking::made) {
            transport.reset();
        }
    }

    /// Returns how long to wait for this server before another is asked.
    pub fn attempt_timeout(&self) -> Duration {
        self.waits().patience
    }

    /// Returns how long to wait for this server.
    pub fn waits(&self) -> Waits {
        let (seen, bounds) = self.glance.seen().unwrap_or_else(|| {
            let condition = self.condition();
            (condition.latency.seen(), condition.attempt_time)
        });
        // Without the lock: a pool has one of its own.
        match seen {
            None => Waits::unknown(bounds),
            Some(seen) if self.transport.connections() == 0 => Waits::unconnected(seen, bounds),
            Some(seen) => Waits::connected(seen, bounds),
        }
    }

    /// Sets within what bounds an attempt is given time.
    pub fn set_attempt_time(&self, bounds: AttemptTime) {
        let mut condition = self.condition();
        condition.attempt_time = bounds;
        self.glance.forget();
    }

    /// Returns true unless it is down.
    pub fn is_up(&self) -> bool {
        self.condition().health.is_up()
    }

    /// Returns how it is now.
    pub fn snapshot(&self, now: Instant) -> UpstreamStatus {
        let connections = self.transport.connections();
        let (status, recent) = {
            let condition = self.condition();
            let status = UpstreamStatus {
                state: condition.health.state(),
                latency: condition.latency.estimate(now),
                quantiles: None,
                cost: condition.latency.cost(now),
                in_flight: self.usage.in_flight(),
                connections,
                last_error: condition.last_error.as_ref().map(|(error, _)| error.to_string()),
                failed_at: condition.last_error.as_ref().map(|(_, at)| *at),
                answered_at: condition.last_answered,
            };
            (status, condition.recent.clone())
        };
        // Put in order after the lock: answers wait for it.
        UpstreamStatus { quantiles: recent.quantiles(), ..status }
    }

    /// Returns what a strategy may know of it.
    pub(crate) fn candidate(&self, now: Instant) -> Candidate {
        let (up, latency) = self.glance.cost(now).unwrap_or_else(|| {
            let condition = self.condition();
            self.publish(&condition, now);
            (condition.health.is_up(), condition.latency.cost(now))
        });
        Candidate { up, weight: self.spec.weight, latency, in_flight: self.usage.in_flight() }
    }

    /// Writes down what each query wants to know of it.
    fn publish(&self, condition: &Condition, now: Instant) {
        self.glance.write(condition.health.is_up(), &condition.latency, condition.attempt_time, now);
    }

    /// Returns when it should be probed if it is down.
    pub(crate) fn probe_due(&self, company: Company) -> Option<Instant> {
        self.condition().health.probe_due(company)
    }

    /// Returns true when it has answered some query later than `then`.
    pub(crate) fn has_answered_since(&self, then: Instant) -> bool {
        self.condition().last_answered.is_some_and(|at| at > then)
    }

    /// Returns when a user's query last went to it.
    pub(crate) fn last_used(&self) -> Option<Instant> {
        self.usage.last()
    }

    /// Returns what changes each time it goes down.
    pub(crate) fn going_down(&self) -> watch::Receiver<()> {
        self.went_down.subscribe()
    }

    /// Returns what changes each time it comes up.
    pub fn coming_up(&self) -> watch::Receiver<()> {
        self.came_up.subscribe()
    }

    /// Enters a sample under the lock and returns what it changed.
    fn learn(
        &self,
        sample: &Sample,
        now: Instant,
        judge: impl FnOnce(&mut Health) -> Option<Transition>,
    ) -> Option<Transition> {
        let mut condition = self.condition();
        let transition = condition.learn(sample, now, judge);
        self.publish(&condition, now);
        transition
    }

    /// Tells of a change of state: those who wait for it always, the log within bounds.
    fn announce(&self, transition: Option<Transition>, sample: &Sample, now: Instant) {
        let Some(transition) = transition else { return };
        let watched = match transition {
            Transition::CameUp { .. } => &self.came_up,
            Transition::WentDown => &self.went_down,
        };
        watched.send_replace(());
        let unsaid = self.condition().throttle.pass(now);
        if let Some(unsaid) = unsaid {
            self.log(transition, sample, unsaid);
        }
    }

    /// Logs a change of state, and how many before it were not logged. A wrong certificate is an `error`: it may be an attack.
    fn log(&self, transition: Transition, sample: &Sample, unsaid: u64) {
        let upstream = self.name();
        let unsaid = (unsaid > 0).then_some(unsaid);
        match transition {
            Transition::CameUp { after } => {
                let down_for_secs = after.as_secs();
                tracing::info!(upstream, state = "up", down_for_secs, unsaid, "server is up again");
            }
            Transition::WentDown => {
                let error = sample.error().map_or_else(String::new, |error| error.to_string());
                match sample {
                    Sample::Certificate { .. } => {
                        tracing::error!(upstream, state = "down", error, unsaid, "server is not trusted");
                    }
                    Sample::Answered { .. }
                    | Sample::Failed { .. }
                    | Sample::TimedOut
                    | Sample::Busy { .. }
                    | Sample::Neutral => {
                        tracing::warn!(upstream, state = "down", error, unsaid, "server is down");
                    }
                }
            }
        }
    }

    /// Locks what was seen. A panic elsewhere leaves plain numbers behind: they are still good.
    fn condition(&self) -> MutexGuard<'_, Condition> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sample {
    /// Returns what went wrong, for the operator.
    fn error(&self) -> Option<Failure> {
        match self {
            Self::Answered { .. } | Self::Neutral => None,
            Self::Failed { error } | Self::Certificate { error } => Some(error.clone()),
            Self::TimedOut => Some(Failure::from(&TransportError::Timeout)),
            Self::Busy { retry_after } => Some(Failure(Reason::Busy { retry_after: *retry_after })),
        }
    }
}
