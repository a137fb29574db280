//! Everything behind the listeners: resolver, cache, servers. `veildns query` runs it without a listener.

use super::error::StartError;
use super::origins::Origins;
use super::state::{self, State};
use crate::cache::Cache;
use crate::cache::key::Origin;
use crate::config::settings::{Limits, ServerSpec, Settings, TlsSettings};
use crate::resolver::Resolver;
use crate::resolver::snapshot::Snapshot;
use crate::telemetry::counters::Telemetry;
use crate::transport::certificate_time::{CertificateClock, WrongClock};
use crate::transport::dial::network::{CurrentNetwork, NetworkId};
use crate::transport::tls::TlsContext;
use crate::transport::{self, Lookup, Surroundings};
use crate::upstream::Upstream;
use crate::upstream::bootstrap::Bootstrap;
use crate::upstream::group::Group;
use crate::upstream::overlooking;
use crate::upstream::probe;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The parts, wired.
#[derive(Debug)]
pub struct Core {
    /// The pipeline.
    resolver: Arc<Resolver>,
    /// Answers we have.
    cache: Arc<Cache>,
    /// Counters and the query log.
    telemetry: Arc<Telemetry>,
    /// Looks names of servers up. One for good: servers that are kept over a reload must find the helpers of the day.
    bootstrap: Arc<Bootstrap>,
    /// Where we are.
    network: Arc<CurrentNetwork>,
    /// At which time certificates are judged.
    time: Arc<CertificateClock>,
    /// Makes the ways to servers.
    transports: Arc<dyn transport::Builder>,
    /// Where what outlives a restart is kept.
    state_dir: Option<PathBuf>,
    /// Every task of the upstream side.
    tasks: TaskTracker,
    /// Ends them.
    cancel: CancellationToken,
    /// How many runtimes the upstream side has.
    lanes: usize,
    /// The upstream runtimes, once there are some, by lane; what is not a flight's or a connection's runs on the first.
    runtimes: OnceLock<Arc<[Handle]>>,
    /// The servers in use.
    servers: Mutex<Servers>,
}

/// The servers of one configuration.
#[derive(Debug, Default)]
struct Servers {
    /// By all that a connection depends on: equal ones are kept over a reload.
    by_key: HashMap<ServerKey, Arc<Upstream>>,
    /// The same, in the order of the settings.
    in_order: Vec<Arc<Upstream>>,
    /// The numbers under which the cache keeps their answers.
    origins: Origins,
    /// Ends the probes of this configuration.
    probes: CancellationToken,
}

/// All that a connection to a server depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ServerKey {
    /// The server.
    spec: Arc<ServerSpec>,
    /// Roots and versions, by name.
    tls: TlsSettings,
    /// The roots themselves: a file may have been replaced.
    trust: u64,
    /// How long a dial may take.
    connect: Duration,
    /// Bounds of its pool.
    bounds: [usize; 5],
    /// There are names for which the dates of its certificate may be overlooked.
    has_time_servers: bool,
}

/// A configuration that was built and is not in force yet.
#[derive(Debug)]
pub struct Prepared {
    /// Its servers.
    servers: Servers,
    /// Its groups.
    groups: Vec<Arc<Group>>,
}

impl Core {
    /// Makes the parts that need no runtime. Until `start` every query is told that we are not ready.
    pub fn new(settings: &Settings, telemetry: Arc<Telemetry>, lanes: usize) -> Arc<Self> {
        Self::with_transports(settings, telemetry, lanes, Arc::new(transport::Protocols))
    }

    /// As `new`, with other ways to servers than the protocols we speak.
    pub fn with_transports(
        settings: &Settings,
        telemetry: Arc<Telemetry>,
        lanes: usize,
        transports: Arc<dyn transport::Builder>,
    ) -> Arc<Self> {
        let cache = Arc::new(Cache::new(&settings.cache, crate::clock::now()));
        let snapshot = Snapshot::new(settings, Vec::new());
        let (bootstrap, time) = (Bootstrap::new(), CertificateClock::default());
        let state_dir = settings.state_dir.clone();
        if let Some(directory) = &state_dir {
            let State { addresses, good_time } = State::load(directory);
            bootstrap.recall_all(addresses);
            time.raise(good_time);
        }
        Arc::new(Self {
            resolver: Resolver::with_lanes(snapshot, Arc::clone(&cache), Arc::clone(&telemetry), lanes),
            cache,
            telemetry,
            bootstrap: Arc::new(bootstrap),
            network: Arc::default(),
            time: Arc::new(time),
            transports,
            state_dir,
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
            lanes,
            runtimes: OnceLock::new(),
            servers: Mutex::default(),
        })
    }

    /// Builds the servers on the runtimes, one for each lane, and starts the drivers there.
    ///
    /// # Errors
    /// A file of roots that cannot be read, a server whose TLS cannot be set up.
    pub fn start(&self, settings: &Settings, runtimes: &[Handle]) -> Result<(), StartError> {
        let runtimes = self.runtimes.get_or_init(|| runtimes.iter().take(self.lanes).cloned().collect());
        let prepared = self.prepare(settings)?;
        self.adopt(prepared, settings);
        for (lane, runtime) in runtimes.iter().enumerate() {
            self.tasks.spawn_on(Arc::clone(&self.resolver).drive(lane, self.cancel.clone()), runtime);
        }
        if let (Some(directory), Some(runtime)) = (self.state_dir.clone(), self.runtime()) {
            let keeping = keep_state(Arc::clone(&self.bootstrap), Arc::clone(&self.time), directory);
            let cancel = self.cancel.clone();
            self.tasks.spawn_on(async move { cancel.run_until_cancelled(keeping).await }, runtime);
        }
        Ok(())
    }

    /// Builds the servers and groups of `settings`. Changes nothing that is in force.
    ///
    /// # Errors
    /// As for `start`.
    pub fn prepare(&self, settings: &Settings) -> Result<Prepared, StartError> {
        let tls = TlsContext::load(&settings.tls).map_err(StartError::Roots)?;
        let tls = Arc::new(tls.with_time(Arc::clone(&self.time)));
        let origins = self.locked().origins.renumber(&settings.servers);
        let mut servers = Servers { origins, ..Servers::default() };
        for spec in &settings.servers {
            let (key, upstream) = self.server(spec, servers.origins.of(spec), settings, &tls)?;
            servers.by_key.insert(key, Arc::clone(&upstream));
            servers.in_order.push(upstream);
        }
        let groups = settings.groups.iter().map(|group| {
            let members =
                group.members.iter().filter_map(|member| servers.in_order.get(*member).map(Arc::clone));
            let bounds = Arc::clone(self.telemetry.bounds());
            Arc::new(Group::new(group, members.collect(), &settings.limits, bounds))
        });
        let groups = groups.collect();
        Ok(Prepared { servers, groups })
    }

    /// Returns the server in use that equals `spec`, or a new one; with its key.
    fn server(
        &self,
        spec: &Arc<ServerSpec>,
        origin: Origin,
        settings: &Settings,
        tls: &Arc<TlsContext>,
    ) -> Result<(ServerKey, Arc<Upstream>), StartError> {
        let fail = |source| StartError::Server { server: spec.name.clone(), source };
        let key = ServerKey::new(spec, settings, tls.trust(spec).map_err(fail)?);
        if let Some(known) = self.locked().by_key.get(&key) {
            return Ok((key, Arc::clone(known)));
        }
        let lanes = self.runtimes.get().cloned().unwrap_or_else(|| [Handle::current()].into());
        let runtime = lanes.first().cloned().unwrap_or_else(Handle::current);
        let lookup: Arc<dyn Lookup> = Arc::<Bootstrap>::clone(&self.bootstrap);
        let around = Surroundings {
            runtime,
            lanes,
            tasks: self.tasks.clone(),
            cancel: self.cancel.clone(),
            tls: Arc::clone(tls),
            lookup,
            network: Arc::clone(&self.network),
            connect_timeout: settings.timeouts.connect,
            limits: Arc::new(settings.limits.clone()),
            bounds: Arc::clone(self.telemetry.bounds()),
        };
        let transport = self.transports.build(spec, &around).map_err(fail)?;
        let counters = self.telemetry.upstream(&spec.name);
        let mut upstream = Upstream::new(Arc::clone(spec), origin, transport, counters);
        if key.has_time_servers && !spec.endpoint.is_plaintext() {
            upstream = upstream.with_overlooking(self.overlooking(spec, around));
        }
        Ok((key, Arc::new(upstream)))
    }

    /// Returns what makes a way to a server on which the dates of its certificate are overlooked: one connection, shared by
    /// nothing else.
    fn overlooking(&self, spec: &Arc<ServerSpec>, around: Surroundings) -> overlooking::Make {
        let limits = Limits { max_connections: 1, ..around.limits.as_ref().clone() };
        let around = Surroundings {
            tls: Arc::new(around.tls.overlooking_dates()),
            lanes: [around.runtime.clone()].into(),
            limits: Arc::new(limits),
            ..around
        };
        let (transports, spec) = (Arc::clone(&self.transports), Arc::clone(spec));
        Box::new(move || transports.build(&spec, &around).ok())
    }

    /// Puts a prepared configuration in force; servers that are gone finish what they have and close.
    pub fn adopt(&self, prepared: Prepared, settings: &Settings) {
        let Prepared { servers, groups } = prepared;
        // Of the others only the default group's: a server of some names only must not be told of others.
        let helpers =
            settings.bootstrap.and_then(|index| groups.get(index)).into_iter().chain(groups.first());
        let helpers: Vec<_> = helpers.flat_map(|group| &group.upstreams).map(Arc::clone).collect();
        self.bootstrap.set_servers(&helpers);
        self.cache.reconfigure(&settings.cache);
        if let Some(runtime) = self.runtime() {
            probe::start(&groups, runtime, &self.tasks, &servers.probes);
            for upstream in &servers.in_order {
                let forgetting = forget_failures(upstream.coming_up(), Arc::clone(&self.cache));
                let task = servers.probes.clone().run_until_cancelled_owned(forgetting);
                self.tasks.spawn_on(task, runtime);
            }
        }
        for upstream in &servers.in_order {
            upstream.set_attempt_time(settings.timeouts.attempt);
        }
        servers.origins.all().for_each(|origin| self.cache.welcome(origin));
        self.resolver.replace(Snapshot::new(settings, groups));
        // Servers that are gone drain when the last query that began with them has ended, and drops them: until then it may
        // still ask them.
        let old = std::mem::replace(&mut *self.locked(), servers);
        old.probes.cancel();
        self.forget_gone(&old.origins);
    }

    /// Forgets the answers of servers that are gone; and failures, for other servers may do better.
    fn forget_gone(&self, old: &Origins) {
        let gone = {
            let servers = self.locked();
            (!old.is_same(&servers.origins)).then(|| old.gone(&servers.origins))
        };
        if let Some(gone) = gone {
            self.cache.forget_failures();
            self.cache.forget_origins(&gone);
        }
    }

    /// Takes note of the network we are on.
    pub fn is_on(&self, network: NetworkId) {
        self.network.is(network);
    }

    /// Starts afresh on another network, or after a sleep in which every connection died: servers count as up, connections
    /// and TLS sessions are new, remembered failures are forgotten. Answers in the cache stay.
    pub fn start_afresh(&self) {
        let now = crate::clock::now();
        self.bootstrap.forget_network();
        for upstream in self.upstreams() {
            upstream.start_afresh(now);
        }
        self.cache.forget_failures();
        self.warm();
    }

    /// Opens a connection to each server of the default group, so that the first query need not wait for it.
    pub fn warm(&self) {
        let snapshot = self.resolver.snapshot();
        for upstream in snapshot.groups().next().into_iter().flat_map(|group| &group.upstreams) {
            upstream.transport().warm();
        }
    }

    /// Closes the connections to servers and waits for every task, `limit` at most. Blocks: another thread has to drive the
    /// upstream runtime, else nothing would end, the time limit included (`stopped` is for that).
    pub fn stop(&self, limit: Duration) {
        if let Some(runtime) = self.runtime() {
            runtime.block_on(self.stopped(limit));
        }
    }

    /// As `stop`, on the upstream runtime itself.
    pub async fn stopped(&self, limit: Duration) {
        self.locked().probes.cancel();
        self.cancel.cancel();
        self.tasks.close();
        if tokio::time::timeout(limit, self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "some connections did not close in time");
        }
    }

    /// Returns the first of the upstream runtimes.
    fn runtime(&self) -> Option<&Handle> {
        self.runtimes.get()?.first()
    }

    /// Returns the pipeline.
    pub fn resolver(&self) -> &Arc<Resolver> {
        &self.resolver
    }

    /// Returns the cache.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Returns the counters.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// Returns what is wrong with the system's clock, if it cannot be right.
    pub fn wrong_clock(&self) -> Option<WrongClock> {
        self.time.fault()
    }

    /// Returns the tracker of every task.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Returns the servers in use, in the order of the settings.
    pub fn upstreams(&self) -> Vec<Arc<Upstream>> {
        self.locked().in_order.clone()
    }

    /// Locks the servers. A panic elsewhere leaves whole lists behind.
    fn locked(&self) -> std::sync::MutexGuard<'_, Servers> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Core {
    /// Ends what nobody waited for: a runtime that outlives this keeps no task of ours.
    fn drop(&mut self) {
        self.locked().probes.cancel();
        self.cancel.cancel();
    }
}

/// Forgets remembered failures each time a server comes up: names that failed while it was down are worth another try.
async fn forget_failures(mut coming_up: watch::Receiver<()>, cache: Arc<Cache>) {
    while coming_up.changed().await.is_ok() {
        cache.forget_failures();
    }
}

/// Keeps what is to outlive a restart, whenever it changes: new addresses, and once a day that the clock was right.
async fn keep_state(bootstrap: Arc<Bootstrap>, time: Arc<CertificateClock>, directory: PathBuf) {
    let (mut learnt, mut good) = (bootstrap.learnt(), time.good());
    loop {
        let is_news = tokio::select! {
            news = learnt.changed() => news.is_ok(),
            news = good.changed() => news.is_ok(),
        };
        if !is_news {
            return;
        }
        learnt.mark_unchanged();
        good.mark_unchanged();
        let state = State { addresses: bootstrap.all(), good_time: time.known() };
        state::save(state, directory.clone()).await;
    }
}

impl ServerKey {
    /// Makes the key of a server under these settings.
    fn new(spec: &Arc<ServerSpec>, settings: &Settings, trust: u64) -> Self {
        let limits = &settings.limits;
        Self {
            spec: Arc::clone(spec),
            tls: settings.tls.clone(),
            trust,
            connect: settings.timeouts.connect,
            bounds: [
                limits.dot_streams,
                limits.max_connections,
                limits.dials,
                limits.pool_queue,
                limits.plain_sockets,
            ],
            has_time_servers: !settings.time_servers.is_empty(),
        }
    }
}
