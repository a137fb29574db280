//! Asks servers how they are, so that no user's query has to find out: those that are down when their time has come, and
//! spare ones that nobody asked for a while. One task a server. It judges nothing (`health`) and chooses nobody (`strategy`).

use super::group::Group;
use super::health::{Company, State};
use super::retry::after_transport;
use super::{Failure, Sample, Upstream};
use crate::transport;
use crate::wire::name::NameRef;
use crate::wire::query::{SubnetOption, UpstreamQuery};
use crate::wire::question::{Class, QuestionRef, RecordType};
use crate::wire::response::{ResponseFault, ResponseRef};
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A probe may take this long: a connection, a handshake and an answer on a poor path. It counts in the promise of 30 s, see `health`.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(4);

/// A server nobody asked for this long is probed if others of its group were asked: a flat spare tyre is to be found in the garage.
const SPARE_AFTER: Duration = Duration::from_secs(60);

/// Up to this much is added at random, so that spares are not all probed at once.
const SPARE_JITTER: Duration = Duration::from_secs(6);

/// After a spare failed a probe, the next one: it takes some failures in a row to be down.
const DOUBTFUL_AFTER: Duration = Duration::from_secs(1);

/// A prober of a downed server looks this often whether the rest of the group is down too, which makes its own server urgent.
const COMPANY_CHECK: Duration = Duration::from_secs(2);

/// Starts the probers of all servers of `groups`, each once. They end with `cancel`: cancel it and start anew when the groups change;
/// what is known of the servers is kept in them.
pub fn start(groups: &[Arc<Group>], runtime: &Handle, tasks: &TaskTracker, cancel: &CancellationToken) {
    let mut started = Vec::new();
    for upstream in groups.iter().flat_map(|group| &group.upstreams) {
        if started.contains(&upstream.id()) {
            continue;
        }
        started.push(upstream.id());
        let prober = Prober::new(Arc::clone(upstream), groups, crate::clock::now());
        let cancel = cancel.clone();
        tasks.spawn_on(async move { cancel.run_until_cancelled(prober.run()).await }, runtime);
    }
}

/// The prober of one server.
#[derive(Debug)]
struct Prober {
    /// Whom it asks.
    upstream: Arc<Upstream>,
    /// The groups the server is in.
    groups: Vec<Arc<Group>>,
    /// What it asks.
    query: Bytes,
    /// When a spare's rest began: the start, the last probe, or the last look at an idle gateway.
    rested_at: Instant,
    /// Whether the last probe of a server that is up failed.
    doubtful: bool,
}

/// What a prober does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Asks the server now.
    Probe,
    /// Looks again then, or when the server goes down.
    Wait {
        /// When.
        until: Instant,
    },
}

impl Prober {
    /// Makes the prober of a server that is a member of some of `groups`.
    fn new(upstream: Arc<Upstream>, groups: &[Arc<Group>], now: Instant) -> Self {
        let has_it = |group: &&Arc<Group>| group.upstreams.iter().any(|member| member.id() == upstream.id());
        let groups = groups.iter().filter(has_it).map(Arc::clone).collect();
        let query = root_query(!upstream.spec().endpoint.is_plaintext());
        Self { upstream, groups, query, rested_at: now, doubtful: false }
    }

    /// Probes when it is time, for ever. Cancel safe: a probe under way is forgotten.
    async fn run(mut self) {
        loop {
            match self.step(crate::clock::now()) {
                Step::Probe => self.probe().await,
                Step::Wait { until } => {
                    tokio::select! {
                        () = tokio::time::sleep_until(until.into()) => {}
                        () = self.upstream.gone_down() => {}
                    }
                }
            }
        }
    }

    /// Decides what to do now.
    fn step(&mut self, now: Instant) -> Step {
        if let Some(due) = self.upstream.probe_due(self.company()) {
            self.doubtful = false;
            return if due <= now { Step::Probe } else { Step::Wait { until: due.min(now + COMPANY_CHECK) } };
        }
        let due = self.spare_due();
        if now < due {
            return Step::Wait { until: due };
        }
        if self.doubtful || self.others_used_since(due - SPARE_AFTER) {
            return Step::Probe;
        }
        // The whole gateway rests, and so does the network.
        self.rested_at = now;
        Step::Wait { until: now + SPARE_AFTER }
    }

    /// Returns when a server that is up should be probed.
    fn spare_due(&self) -> Instant {
        if self.doubtful {
            return self.rested_at + DOUBTFUL_AFTER;
        }
        let used = self.upstream.last_used().map_or(self.rested_at, |used| used.max(self.rested_at));
        used + SPARE_AFTER
    }

    /// Asks the server and tells it what came of it.
    async fn probe(&mut self) {
        let sample = self.ask().await;
        let now = crate::clock::now();
        self.rested_at = now + Duration::from_millis(fastrand::u64(..=millis(SPARE_JITTER)));
        let failed = !matches!(sample, Sample::Answered { .. } | Sample::Neutral);
        self.upstream.probed(sample, now);
        self.doubtful = failed && self.upstream.is_up();
        if self.doubtful {
            self.rested_at = now;
        }
    }

    /// Asks, twice if a connection had to be opened: the first answer's time is mostly the handshake's and would make a spare
    /// look slower than it is.
    async fn ask(&self) -> Sample {
        let deadline = crate::clock::now() + PROBE_TIMEOUT;
        let had_connection = self.upstream.transport().connections() > 0;
        let sample = self.ask_once(deadline).await;
        match sample {
            Sample::Answered { .. } if !had_connection => self.ask_once(deadline).await,
            Sample::Answered { .. }
            | Sample::Failed { .. }
            | Sample::TimedOut
            | Sample::Certificate { .. }
            | Sample::Busy { .. }
            | Sample::Neutral => sample,
        }
    }

    /// Asks once. Any rcode will do: a server that refuses to talk about the root is well.
    async fn ask_once(&self, deadline: Instant) -> Sample {
        let asked_at = crate::clock::now();
        match transport::exchange(self.upstream.transport(), self.query.clone(), deadline).await {
            Err(error) => after_transport(&error).sample,
            Ok(received) => match check(&received.message) {
                Err(fault) => Sample::Failed { error: Failure::from(fault) },
                Ok(()) => {
                    Sample::Answered { latency: crate::clock::now().saturating_duration_since(asked_at) }
                }
            },
        }
    }

    /// Returns whether all of the server's groups have somebody to stand in.
    fn company(&self) -> Company {
        if self.groups.iter().all(|group| group.any_up()) { Company::SomeUp } else { Company::NoneUp }
    }

    /// Returns true when a user's query went to another server of the same groups since `then`.
    fn others_used_since(&self, then: Instant) -> bool {
        let members = self.groups.iter().flat_map(|group| &group.upstreams);
        let mut others = members.filter(|member| member.id() != self.upstream.id());
        others.any(|other| other.last_used().is_some_and(|used| used >= then))
    }
}

/// What every resolver can answer from memory: the root's name servers.
const ROOT_SERVERS: QuestionRef<'static> =
    QuestionRef { name: NameRef::ROOT, rtype: RecordType::NS, class: Class::IN };

/// Builds the query of a probe; padding is for encrypted transports only (RFC 7830 §6).
fn root_query(padding: bool) -> Bytes {
    UpstreamQuery {
        question: ROOT_SERVERS,
        dnssec_ok: false,
        checking_disabled: false,
        subnet: SubnetOption::Absent,
        padding,
    }
    .build()
}

/// Checks that `message` is a response to the probe.
fn check(message: &[u8]) -> Result<(), ResponseFault> {
    let response = ResponseRef::parse(message)?;
    if response.question().matches(&ROOT_SERVERS) { Ok(()) } else { Err(ResponseFault::QuestionMismatch) }
}

/// Returns whole milliseconds.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
