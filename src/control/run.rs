//! `veildns run`: starts the gateway, then does what signals say until one says stop.
//!
//! ```text
//! SIGTERM SIGINT  drain and stop; a second one: at once
//! SIGHUP          reload; a bad file changes nothing
//! SIGUSR1         a summary to the log
//! ```

use super::socket::bind::{SocketError, SocketFile, bind};
use super::socket::report::Inside;
use super::socket::serve::ControlSocket;
use super::socket::{self, Place};
use super::{network, sources, summary, systemd, watchdog};
use crate::app::Gateway;
use crate::app::error::StartError;
use crate::config::Source;
use crate::config::error::ConfigErrors;
use crate::config::settings::{self, Origin, Settings};
use crate::listener::handover::{Handover, Inherited, Sharing};
use crate::telemetry::counters::Telemetry;
use crate::telemetry::logging::{self, LogHandle};
use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

/// Why `run` ended other than by a signal.
#[derive(Debug, Error)]
pub enum RunError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The gateway cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The control socket that the operator wants cannot be had.
    #[error(transparent)]
    Control(#[from] SocketError),
    /// The runtime or the signals cannot be set up.
    #[error("cannot set up signals")]
    Signals(#[source] io::Error),
}

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// A wrong configuration, an address that cannot be had.
pub(super) fn run(source: Source, sharing: Sharing) -> Result<(), RunError> {
    let settings = sources::load(&source)?;
    let log = logging::init(&settings.log);
    logging::log_panics();
    // Before there is any other thread: it changes the environment.
    let handover = Handover { inherited: Inherited::from_environment(), sharing };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Signals)?;
    // Never dropped: it keeps the far deadlines of workers, which still run when we stop at once.
    let runtime = std::mem::ManuallyDrop::new(runtime);
    let telemetry = Telemetry::new();
    open_records(&telemetry, &settings)?;
    let mut control = {
        let _inside = runtime.enter();
        let signals = Signals::new().map_err(RunError::Signals)?;
        // Before anything listens: what cannot be had is said at once.
        let socket = take_socket(&settings.control, sharing)?;
        let gateway = Gateway::take_over(settings, telemetry, runtime.handle(), handover)?;
        let inside = Arc::new(Inside::new(&gateway, log.clone()));
        let socket = serve_socket(socket, &inside, runtime.handle());
        let handle = runtime.handle().clone();
        Control { gateway, signals, source, sharing, log, handle, inside, socket }
    };
    control.announce();
    let at_once = runtime.block_on(control.serve());
    // The control socket is served until all has ended, and goes then.
    let Control { gateway, signals, socket: _socket, .. } = control;
    if at_once || runtime.block_on(stop(gateway, signals)) {
        info!("stopped at once");
    } else {
        info!("stopped");
    }
    Ok(())
}

/// Takes the control socket, if there is to be one. Only one that the operator wrote has to be had.
fn take_socket(
    setting: &settings::ControlSocket,
    sharing: Sharing,
) -> Result<Option<(UnixListener, SocketFile)>, SocketError> {
    match socket::place(setting) {
        Place::Nowhere => Ok(None),
        Place::Written(path) => bind(&path, sharing).map(Some),
        Place::Usual(path) => Ok(bind(&path, sharing)
            .inspect_err(|error| warn!(error = super::chain(error), "no control socket"))
            .ok()),
    }
}

/// Serves the control socket on the control runtime.
fn serve_socket(
    socket: Option<(UnixListener, SocketFile)>,
    inside: &Arc<Inside>,
    control: &Handle,
) -> Option<ControlSocket> {
    let (listener, file) = socket?;
    ControlSocket::serve(listener, file, Arc::clone(inside), control)
        .inspect_err(|error| warn!(%error, "no control socket"))
        .ok()
}

/// Ends everything on a thread of its own, so that a further signal is heard meanwhile; true when one came first.
async fn stop(gateway: Gateway, mut signals: Signals) -> bool {
    let limit = gateway.settings().limits.drain_timeout;
    let telemetry = Arc::clone(gateway.core().telemetry());
    let (done, stopped) = oneshot::channel::<()>();
    let stopping = std::thread::Builder::new().name("stop".to_owned()).spawn(move || {
        gateway.stop(limit);
        telemetry.close_query_log();
        telemetry.dnstap().close_and_wait();
        drop(done);
    });
    if stopping.is_err() {
        return true;
    }
    tokio::select! {
        _ = stopped => false,
        () = signals.stop() => true,
    }
}

/// The running gateway and the operator's ways to it.
struct Control {
    /// The gateway.
    gateway: Gateway,
    /// What the operator says.
    signals: Signals,
    /// How the configuration is found again.
    source: Source,
    /// Whether a predecessor has the addresses too.
    sharing: Sharing,
    /// Changes the log level.
    log: LogHandle,
    /// The control runtime.
    handle: Handle,
    /// What is told over the control socket.
    inside: Arc<Inside>,
    /// The control socket, if there is one.
    socket: Option<ControlSocket>,
}

/// The signals that mean something.
struct Signals {
    /// SIGTERM.
    terminate: Signal,
    /// SIGINT.
    interrupt: Signal,
    /// SIGHUP.
    hang_up: Signal,
    /// SIGUSR1.
    user: Signal,
}

/// What a signal asks for.
enum Wish {
    /// Drain and end.
    Stop,
    /// Read the configuration again.
    Reload,
    /// Say how things are.
    Summary,
}

impl Signals {
    /// Takes the signals over.
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// Waits for the next wish. Cancel safe.
    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hang_up.recv() => Wish::Reload,
            _ = self.user.recv() => Wish::Summary,
        }
    }

    /// Waits for a second request to stop. Cancel safe.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Control {
    /// Says that the gateway answers, and where, and under which configuration.
    fn announce(&self) {
        let settings = self.gateway.settings();
        for address in self.gateway.skipped() {
            info!(%address, "this host does not have the address; skipped");
        }
        for notice in &settings.notices {
            warn!("{notice}");
        }
        let origin = origin(settings);
        let addresses = self.addresses();
        let servers =
            settings.servers.iter().map(|server| server.name.as_str()).collect::<Vec<_>>().join(" ");
        if let Some(address) = self.gateway.metrics_address() {
            info!(%address, "metrics page");
        }
        if let Some(socket) = &self.socket {
            info!(path = %socket.path().display(), "control socket");
        }
        if self.sharing == Sharing::Ours {
            info!("the predecessor on these addresses may be stopped now (SIGTERM): it answers what it has");
        }
        info!(version = env!("CARGO_PKG_VERSION"), config = %origin, listen = %addresses, upstreams = %servers, "ready");
        systemd::ready(&format!("answering on {addresses}"));
    }

    /// Returns where the gateway answers, for people.
    fn addresses(&self) -> String {
        self.gateway.addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    /// Does what signals say and what the network makes necessary, until a signal says stop; true when a second one said
    /// at once.
    async fn serve(&mut self) -> bool {
        let core = Arc::clone(self.gateway.core());
        let watching = self.gateway.settings().watch_network;
        let threads = self.gateway.threads();
        let attendants = self.gateway.attendants();
        let telemetry = Arc::clone(core.telemetry());
        tokio::select! {
            at_once = self.obey() => at_once,
            never = network::keep_fresh_here(&core), if watching => match never {},
            never = watchdog::feed(threads, &attendants) => match never {},
            never = stay_resident(&telemetry) => match never {},
        }
    }

    /// Does what signals say until one says stop; true when a second one said at once.
    async fn obey(&mut self) -> bool {
        loop {
            match self.signals.next().await {
                Wish::Stop => return self.drain().await,
                Wish::Reload => self.reload(),
                Wish::Summary => summary::log(&self.gateway),
            }
        }
    }

    /// Stops taking queries and waits for those that wait; true when a second signal came.
    async fn drain(&mut self) -> bool {
        systemd::stopping();
        self.inside.stopping();
        let limit = self.gateway.settings().limits.drain_timeout;
        info!(waiting = self.gateway.core().resolver().permits().in_use(), "stopping");
        self.gateway.stop_accepting();
        tokio::select! {
            () = self.signals.stop() => true,
            drained = self.gateway.drained(limit) => {
                if !drained {
                    warn!("some queries were still waiting");
                }
                false
            }
        }
    }

    /// Reads the configuration again and puts it in force, or says why not.
    fn reload(&mut self) {
        systemd::reloading();
        if let Err(error) = self.try_reload() {
            let detail = detail(&error);
            self.inside.refused(&detail);
            error!(detail, "reload failed, nothing was changed");
        }
        systemd::ready(&format!("answering on {}", self.addresses()));
    }

    /// Reads, checks, swaps.
    fn try_reload(&mut self) -> Result<(), RunError> {
        let settings = sources::load(&self.source)?;
        super::check::try_records(&settings)?;
        let log = settings.log.clone();
        for notice in &settings.notices {
            warn!("{notice}");
        }
        let report = self.gateway.reload(settings, &self.handle)?;
        open_records(self.gateway.core().telemetry(), self.gateway.settings())?;
        self.log.set_level(log.level);
        for key in &report.needs_restart {
            warn!(key, "changed; takes effect at the next start");
        }
        self.inside.reloaded(&self.gateway);
        info!(config = %origin(self.gateway.settings()), "reloaded");
        Ok(())
    }
}

/// Keeps what answers a query in memory, where the system lets a program ask for that.
async fn stay_resident(telemetry: &Telemetry) -> Infallible {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return super::residency::keep(telemetry).await;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    return std::future::pending().await;
}

/// Opens the query log of `settings` and the way to the collector of dnstap, or closes them.
fn open_records(telemetry: &Telemetry, settings: &Settings) -> Result<(), StartError> {
    let log = &settings.log;
    telemetry
        .open_query_log(log, settings.limits.query_log_queue)
        .map_err(|source| StartError::query_log(&log.queries, source))?;
    let dnstap = settings.dnstap.as_ref();
    telemetry.dnstap().open(dnstap, settings.limits.dnstap_queue).map_err(|source| match dnstap {
        Some(dnstap) => StartError::dnstap(dnstap, source),
        None => StartError::Threads(source),
    })
}

/// Returns all that is wrong, for the log: one line, in which `; ` stands between errors.
fn detail(error: &RunError) -> String {
    match error {
        RunError::Config(errors) => errors.lines().collect::<Vec<_>>().join("; "),
        RunError::Start(_) | RunError::Control(_) | RunError::Signals(_) => super::chain(error),
    }
}

/// Returns where settings came from, for the start-up line.
fn origin(settings: &Settings) -> String {
    match &settings.origin {
        Origin::BuiltIn => "built-in default".to_owned(),
        Origin::File(path) => path.display().to_string(),
    }
}
