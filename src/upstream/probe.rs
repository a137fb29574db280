//! Asks servers how they are, so that no user's query has to find out: those that are down when their time has come, and
//! spare ones that nobody asked for a while. One task a server. It judges nothing (`health`) and chooses nobody (`strategy`).

use super::group::Group;
use super::health::Company;
use super::retry::after_transport;
use super::{Failure, Sample, Upstream};
use crate::transport;
use crate::wire::query::UpstreamQuery;
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
        // Padding is for encrypted transports only (RFC 7830 §6).
        let query = UpstreamQuery::sign_of_life(!upstream.spec().endpoint.is_plaintext()).build();
        Self { upstream, groups, query, rested_at: now + spare_jitter(), doubtful: false }
    }

    /// Probes when it is time, for ever. Cancel safe: a probe under way is forgotten.
    async fn run(mut self) {
        let mut going_down = self.upstream.going_down();
        loop {
            match self.step(crate::clock::now()) {
                Step::Probe => self.probe().await,
                Step::Wait { until } => {
                    tokio::select! {
                        () = crate::clock::far::sleep_until(until) => {}
                        _ = going_down.changed() => {}
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
        self.rested_at = now + spare_jitter();
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

/// Checks that `message` is a response to the probe.
fn check(message: &[u8]) -> Result<(), ResponseFault> {
    let response = ResponseRef::parse(message)?;
    if response.question().matches(&UpstreamQuery::ROOT_SERVERS) {
        Ok(())
    } else {
        Err(ResponseFault::QuestionMismatch)
    }
}

/// Returns some part of [`SPARE_JITTER`].
fn spare_jitter() -> Duration {
    SPARE_JITTER.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::super::fake::{self, Fake};
    use super::*;
    use crate::config::settings::StrategyKind;
    use crate::transport::{CompletionSink, Exchange, Received, Ticket, TransportError};

    /// Takes completions and forgets them.
    struct Void;
    impl CompletionSink for Void {
        fn completed(&self, _id: u64, _outcome: Result<Received, TransportError>) {}
    }

    /// A group of such servers with probers at work; they end when the token is dropped.
    struct Garage {
        upstreams: Vec<Arc<Upstream>>,
        fakes: Vec<Fake>,
        _stop: tokio_util::sync::DropGuard,
    }
    fn garage(fakes: Vec<Fake>) -> Garage {
        let built = fakes.into_iter().enumerate().map(|(i, fake)| fake::upstream(&format!("s{i}"), fake));
        let (upstreams, fakes): (Vec<_>, Vec<_>) = built.unzip();
        let cancel = CancellationToken::new();
        let group = Arc::new(fake::group(upstreams.clone(), StrategyKind::Failover));
        start(&[Arc::clone(&group), group], &Handle::current(), &TaskTracker::new(), &cancel);
        Garage { upstreams, fakes, _stop: cancel.drop_guard() }
    }
    impl Garage {
        fn use_server(&self, member: usize) {
            let now = crate::clock::now();
            let ticket = Ticket::new(Arc::new(Void), 0);
            let query = UpstreamQuery::sign_of_life(true).build();
            self.upstreams[member].submit(Exchange { query, deadline: now, ticket, lane: 0 }, now);
            self.upstreams[member].finished();
        }
        fn fail_thrice(&self, member: usize) {
            for _ in 0..3 {
                self.upstreams[member].observe(failed(), crate::clock::now());
            }
            assert!(!self.upstreams[member].is_up());
        }
        fn probes(&self, member: usize) -> Vec<Duration> {
            let times = self.fakes[member].times();
            times.windows(2).map(|pair| pair[1] - pair[0]).collect()
        }
    }
    /// Lets time pass in small steps, so that every timer fires in its turn.
    async fn pass(duration: Duration) {
        tokio::time::sleep(duration).await;
    }
    fn failed() -> Sample {
        after_transport(&TransportError::Closed).sample
    }
    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }
    fn assert_near(actual: Duration, expected: Duration) {
        let (least, most) = (expected.mul_f64(0.79), expected.mul_f64(1.21));
        assert!(actual >= least && actual <= most, "{actual:?} is not near {expected:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_downed_server_is_probed_at_doubling_intervals_without_a_users_query() {
        let garage = garage(vec![fake::closing(), fake::answering()]);
        pass(secs(1)).await;
        let down_at = crate::clock::now();
        garage.fail_thrice(0);
        pass(secs(80)).await;
        let times = garage.fakes[0].times();
        assert_near(times[0] - down_at, secs(1));
        for (interval, expected) in garage.probes(0).into_iter().zip([2, 4, 8, 16, 16]) {
            assert_near(interval, secs(expected));
        }
        assert!(times.len() >= 6);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answered_probe_brings_the_server_up_and_ends_the_probing() {
        let garage = garage(vec![fake::closing(), fake::answering()]);
        garage.fail_thrice(0);
        pass(secs(5)).await;
        assert!(!garage.upstreams[0].is_up());
        garage.fakes[0].now_does(|query| Some(Ok(fake::reply(query, 5, &[]))));
        pass(secs(10)).await;
        assert!(garage.upstreams[0].is_up());
        let probes = garage.fakes[0].times().len();
        pass(secs(40)).await;
        assert_eq!(garage.fakes[0].times().len(), probes);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_recovers_is_up_within_thirty_seconds_even_if_probes_hang() {
        let garage = garage(vec![fake::silent(), fake::answering()]);
        garage.fail_thrice(0);
        pass(secs(300)).await;
        let probes = garage.fakes[0].times().len();
        // The worst moment: just after a probe was sent.
        while garage.fakes[0].times().len() == probes {
            pass(Duration::from_millis(10)).await;
        }
        garage.fakes[0].now_does(|query| Some(Ok(fake::reply(query, 0, &[]))));
        pass(secs(30)).await;
        assert!(garage.upstreams[0].is_up());
    }

    #[tokio::test(start_paused = true)]
    async fn with_all_servers_down_each_is_probed_about_every_two_seconds() {
        let garage = garage(vec![fake::closing(), fake::closing()]);
        garage.fail_thrice(0);
        pass(secs(60)).await;
        garage.fail_thrice(1);
        let before = garage.fakes[0].times().len();
        pass(secs(61)).await;
        for fake in &garage.fakes {
            assert!(fake.times().len() >= 28, "{}", fake.times().len());
        }
        assert!(garage.fakes[0].times().len() - before >= 29);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flat_spare_is_found_by_a_probe() {
        let garage = garage(vec![fake::answering(), fake::closing()]);
        for _ in 0..7 {
            garage.use_server(0);
            pass(secs(10)).await;
        }
        assert!(!garage.upstreams[1].is_up());
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_spare_is_probed_about_once_a_minute_while_others_work() {
        let garage = garage(vec![fake::answering(), fake::answering()]);
        for _ in 0..60 {
            garage.use_server(0);
            pass(secs(10)).await;
        }
        let probes = garage.fakes[1].times().len();
        assert!((8..=10).contains(&probes), "{probes}");
        assert_eq!(garage.fakes[0].times().len(), 60);
        assert!(garage.upstreams[1].snapshot(crate::clock::now()).latency.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_at_rest_sends_nothing() {
        let garage = garage(vec![fake::answering(), fake::answering()]);
        garage.use_server(0);
        pass(secs(120)).await;
        let before: usize = garage.fakes.iter().map(|fake| fake.times().len()).sum();
        pass(secs(36_000)).await;
        let after: usize = garage.fakes.iter().map(|fake| fake.times().len()).sum();
        assert_eq!(after, before);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_server_is_asked_when_its_time_is_over() {
        let garage = garage(vec![fake::answering(), fake::answering()]);
        garage.upstreams[0].observe(Sample::Busy { retry_after: Some(secs(20)) }, crate::clock::now());
        pass(secs(19)).await;
        assert!(garage.fakes[0].times().is_empty() && !garage.upstreams[0].is_up());
        pass(secs(2)).await;
        assert!(garage.upstreams[0].is_up());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_another_question_is_no_sign_of_health() {
        let wrong = Fake::new(|query| {
            let mut message = fake::reply(query, 0, &[]).to_vec();
            message[14] = 1;
            Some(Ok(message.into()))
        });
        let garage = garage(vec![wrong, fake::answering()]);
        garage.fail_thrice(0);
        pass(secs(30)).await;
        assert!(!garage.upstreams[0].is_up());
    }

    #[tokio::test(start_paused = true)]
    async fn the_probers_of_before_a_reload_do_not_keep_a_failure_to_themselves() {
        let (upstream, fake) = fake::upstream("s", fake::closing());
        let group = Arc::new(fake::group(vec![Arc::clone(&upstream)], StrategyKind::Failover));
        let (old, new) = (CancellationToken::new(), CancellationToken::new());
        for cancel in [&old, &new] {
            start(&[Arc::clone(&group)], &Handle::current(), &TaskTracker::new(), cancel);
        }
        pass(secs(1)).await;
        upstream.observe(after_transport(&TransportError::Pin).sample, crate::clock::now());
        pass(Duration::from_millis(100)).await;
        old.cancel();
        pass(Duration::from_millis(1200)).await;
        assert_eq!(fake.times().len(), 1);
        new.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn a_cold_spares_latency_is_that_of_its_second_answer() {
        let garage = garage(vec![fake::answering(), fake::answering()]);
        garage.fakes[1].has_connections(0);
        for _ in 0..7 {
            garage.use_server(0);
            pass(secs(10)).await;
        }
        assert_eq!(garage.fakes[1].times().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn probers_end_with_their_token() {
        let (upstream, fake) = fake::upstream("s", fake::closing());
        let group = Arc::new(fake::group(vec![Arc::clone(&upstream)], StrategyKind::Failover));
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        start(&[group], &Handle::current(), &tasks, &cancel);
        cancel.cancel();
        tasks.close();
        tasks.wait().await;
        upstream.observe(after_transport(&TransportError::Pin).sample, crate::clock::now());
        pass(secs(60)).await;
        assert!(fake.times().is_empty());
        assert_eq!(Arc::strong_count(&upstream), 1);
    }
}
