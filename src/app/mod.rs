//! The composition root: settings in, running gateway out. The only place that knows every part.

pub mod core;
pub mod error;
mod gauges;
mod origins;
mod state;
mod traces;

use self::core::Core;
use self::error::StartError;
use self::gauges::GaugeReader;
use self::traces::TraceExport;
use crate::config::settings::Settings;
use crate::listener::Context;
use crate::listener::admission::AccessList;
use crate::listener::attendant::Attendants;
use crate::listener::bind::{self, BindError};
use crate::listener::handover::{Handover, Sharing};
use crate::listener::worker::{ListenReport, Workers};
use crate::telemetry::bounds::Bound;
use crate::telemetry::counters::Telemetry;
use crate::telemetry::export;
use crate::wire::query::ClientTransport;
use arc_swap::ArcSwap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// A gateway that answers.
#[derive(Debug)]
pub struct Gateway {
    /// Everything behind the listeners.
    core: Arc<Core>,
    /// The listeners.
    workers: Workers,
    /// Who may ask.
    access: Arc<ArcSwap<AccessList>>,
    /// The settings in force.
    settings: Arc<Settings>,
    /// True while clients are served.
    ready: Arc<AtomicBool>,
    /// Stops the metrics page; with the address it was asked to listen on and the one it got.
    metrics: Option<MetricsPage>,
    /// Sends traces.
    traces: TraceExport,
    /// Tasks of the control runtime: told to end, not waited for, since nobody polls them while we stop.
    pages: TaskTracker,
    /// Where the gateway listens.
    report: ListenReport,
    /// Whether a predecessor may have the ports.
    sharing: Sharing,
}

/// The metrics page while it is served.
#[derive(Debug)]
struct MetricsPage {
    /// As configured.
    wanted: SocketAddr,
    /// As bound.
    bound: SocketAddr,
    /// Ends it when dropped: the page's reader keeps the rest of the gateway.
    _cancel: DropGuard,
}

/// What a reload did not do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReloadReport {
    /// Keys that changed and need a restart.
    pub needs_restart: Vec<&'static str>,
    /// Built-in addresses the host lacks.
    pub skipped: Vec<SocketAddr>,
}

impl Gateway {
    /// Starts everything: builds, binds, then answers. Call it outside of a runtime's worker threads or in a
    /// multi-threaded one; it blocks for as long as binding takes. `control` has timers, and is driven until [`Gateway::stop`] has
    /// returned: what is far away is waited for there.
    ///
    /// # Errors
    /// A CA file that cannot be read, an address that is taken or not permitted.
    pub fn start(
        settings: Settings,
        telemetry: Arc<Telemetry>,
        control: &Handle,
    ) -> Result<Self, StartError> {
        Self::take_over(settings, telemetry, control, Handover::default())
    }

    /// As `start`, with what other processes hand over or share.
    ///
    /// # Errors
    /// As for `start`.
    pub fn take_over(
        settings: Settings,
        telemetry: Arc<Telemetry>,
        control: &Handle,
        handover: Handover,
    ) -> Result<Self, StartError> {
        let settings = Arc::new(settings);
        let access = Arc::new(ArcSwap::from_pointee(AccessList::new(&settings.access)));
        // More lanes than connections to a server would have to share them.
        let lanes = settings.workers.min(settings.limits.max_connections);
        let core = Core::new(&settings, telemetry, lanes);
        let context = Context {
            resolver: Arc::clone(core.resolver()),
            telemetry: Arc::clone(core.telemetry()),
            access: Arc::clone(&access),
            limits: Arc::new(settings.limits.clone()),
        };
        let workers =
            Workers::start(settings.workers, context, Some(control)).map_err(StartError::Threads)?;
        core.start(&settings, &workers.handles())?;
        // Before the rest: connections come about while sockets are bound.
        core.warm();
        let sharing = handover.sharing;
        workers.take_over(handover);
        let report = workers.listen(&settings.listen)?;
        let mut gateway = Self {
            core,
            workers,
            access,
            settings,
            ready: Arc::new(AtomicBool::new(false)),
            metrics: None,
            traces: TraceExport::default(),
            pages: TaskTracker::new(),
            report,
            sharing,
        };
        gateway.metrics = gateway.serve_metrics(gateway.settings.metrics, control)?;
        gateway.follow_traces(control);
        // From now on the ports are ours alone: a reload is told when one is taken.
        gateway.sharing = Sharing::Nobody;
        gateway.ready.store(true, Ordering::Release);
        Ok(gateway)
    }

    /// Returns where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.report.bound
    }

    /// Returns the built-in addresses that the host lacks.
    pub fn skipped(&self) -> &[SocketAddr] {
        &self.report.skipped
    }

    /// Returns where the metrics page is.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(|page| page.bound)
    }

    /// Returns what is behind the listeners.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Returns the runtimes of the threads that serve clients and ask servers.
    pub fn threads(&self) -> Vec<Handle> {
        self.workers.handles()
    }

    /// Returns the threads that wait in UDP sockets.
    pub fn attendants(&self) -> Arc<Attendants> {
        self.workers.attendants()
    }

    /// Returns the settings in force.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Puts other settings in force: one swap. Connections to servers that did not change, the cache, and listeners on
    /// addresses that did not change stay. On an error everything stays as it was.
    ///
    /// # Errors
    /// As for `start`.
    pub fn reload(&mut self, settings: Settings, control: &Handle) -> Result<ReloadReport, StartError> {
        let settings = Arc::new(settings);
        // What can fail comes first, and each step can be undone: sockets are bound before anything is swapped.
        let prepared = self.core.prepare(&settings)?;
        let metrics = self.changed_metrics(&settings, control)?;
        // The new page, if there is one, ends when this fails.
        let report = self.workers.listen(&settings.listen)?;
        self.core.adopt(prepared, &settings);
        self.access.store(Arc::new(AccessList::new(&settings.access)));
        if let Some(page) = metrics {
            self.metrics = page;
        }
        let needs_restart = needs_restart(&self.settings, &settings);
        self.settings = settings;
        self.follow_traces(control);
        let skipped = report.skipped.clone();
        self.report = report;
        Ok(ReloadReport { needs_restart, skipped })
    }

    /// Sends traces as the settings in force say.
    fn follow_traces(&mut self, control: &Handle) {
        self.traces.follow(&self.settings, self.core.telemetry(), (&self.pages, control));
    }

    /// Returns the page to put in place of the present one; None when it stays.
    #[expect(clippy::option_option, reason = "the outer one says whether, the inner one what")]
    fn changed_metrics(
        &self,
        settings: &Settings,
        control: &Handle,
    ) -> Result<Option<Option<MetricsPage>>, StartError> {
        let current = self.metrics.as_ref().map(|page| page.wanted);
        if current == settings.metrics {
            return Ok(None);
        }
        self.serve_metrics(settings.metrics, control).map(Some)
    }

    /// Starts the metrics page.
    fn serve_metrics(
        &self,
        address: Option<SocketAddr>,
        control: &Handle,
    ) -> Result<Option<MetricsPage>, StartError> {
        let Some(wanted) = address else { return Ok(None) };
        let fail = |error| StartError::Metrics(BindError::new(wanted, ClientTransport::Tcp, error));
        let listener = bind::page(wanted, self.sharing).map_err(StartError::Metrics)?;
        let bound = listener.local_addr().map_err(fail)?;
        let _inside = control.enter();
        let listener = tokio::net::TcpListener::from_std(listener).map_err(fail)?;
        let cancel = CancellationToken::new();
        let gauges = Arc::new(GaugeReader::new(
            Arc::clone(&self.core),
            self.workers.tcp_usage(),
            Arc::clone(&self.ready),
        ));
        let telemetry = Arc::clone(self.core.telemetry());
        self.pages.spawn_on(export::serve(listener, telemetry, gauges, cancel.clone()), control);
        Ok(Some(MetricsPage { wanted, bound, _cancel: cancel.drop_guard() }))
    }

    /// Stops taking queries; those that wait still get their answers.
    pub fn stop_accepting(&self) {
        self.ready.store(false, Ordering::Release);
        self.core.resolver().says_farewell();
        self.workers.stop_accepting();
    }

    /// Waits until the last query was taken and no query waits, `limit` at most; true when it came to that. Cancel safe.
    pub async fn drained(&self, limit: Duration) -> bool {
        let idle = async {
            self.workers.finished_reading().await;
            self.core.resolver().permits().idle().await;
        };
        let drained = tokio::time::timeout(limit, idle).await.is_ok();
        if !drained {
            self.core.telemetry().bounds().reached(Bound::DrainTimeout);
        }
        drained
    }

    /// Ends everything: connections to servers are closed properly, threads end. Blocks, `limit` at most for clients'
    /// TCP connections and as much for the servers', and a few seconds for the last traces.
    pub fn stop(self, limit: Duration) {
        let deadline = crate::clock::now() + limit;
        self.stop_accepting();
        self.core.stop(limit);
        self.traces.finish(self.core.telemetry());
        drop(self.metrics);
        self.workers.join(deadline);
    }
}

/// Returns the keys whose change takes effect only at the next start.
fn needs_restart(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let tcp = |settings: &Settings| {
        let limits = &settings.limits;
        (
            limits.tcp_connections,
            limits.tcp_connections_per_client,
            limits.tcp_pipelined,
            limits.tcp_unread,
            limits.tcp_unread_total,
            limits.tcp_idle,
            limits.tcp_read,
        )
    };
    [
        ("workers", old.workers != new.workers),
        ("limits.tcp_*", tcp(old) != tcp(new)),
        ("limits.udp_batch", old.limits.udp_batch != new.limits.udp_batch),
        ("network.watch", old.watch_network != new.watch_network),
        ("state_dir", old.state_dir != new.state_dir),
        ("log.format", old.log.format != new.log.format),
        ("control.socket", old.control != new.control),
    ]
    .into_iter()
    .filter_map(|(key, changed)| changed.then_some(key))
    .collect()
}
