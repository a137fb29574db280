//! The worker threads: one current-thread runtime each, and on every listen address one UDP and one TCP
//! socket each (`SO_REUSEPORT`: the kernel spreads clients over them, so a query stays on one core). Here
//! addresses come and go on reload, and everything ends in order. What is done with a query is not known here.

use super::bind::{BindError, BindErrorKind, Sharing, Sockets, bind};
use super::intake::Intake;
use super::tcp::Acceptor;
use super::tcp::connections::Connections;
use super::udp::{UdpLoop, UdpSink};
use super::{Answer, Context};
use crate::clock;
use crate::config::settings::Listen;
use crate::resolver::Resolver;
use crate::wire::query::ClientTransport;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// The running workers.
#[derive(Debug)]
pub struct Workers<A: Answer = Resolver> {
    /// At least one.
    workers: Vec<Worker<A>>,
    /// The first worker's runtime.
    first: Handle,
    /// All TCP connections.
    connections: Arc<Connections>,
    /// Where we listen now, by the address as wanted.
    open: Mutex<HashMap<SocketAddr, Open>>,
    /// Ends reading and accepting everywhere.
    stop: CancellationToken,
    /// Ends the threads, also when these workers are dropped without `join`.
    end: DropGuard,
    /// Every task of the listener.
    tasks: TaskTracker,
}

/// One worker thread.
#[derive(Debug)]
struct Worker<A> {
    /// Its runtime.
    handle: Handle,
    /// Ends when its runtime is gone.
    thread: JoinHandle<()>,
    /// What happens to a query that it reads.
    intake: Arc<Intake<A>>,
}

/// An address that is listened on.
#[derive(Debug)]
struct Open {
    /// With the real port.
    address: SocketAddr,
    /// Ends its loops.
    stop: CancellationToken,
}

/// Sockets registered with their runtimes, not yet read.
struct Ready<A: Answer> {
    /// The address as wanted.
    wanted: SocketAddr,
    /// With the real port.
    address: SocketAddr,
    /// By worker.
    loops: Vec<(UdpLoop<A>, Acceptor<A>)>,
}

/// Where we listen after [`Workers::listen`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenReport {
    /// Every address, in the wanted order, with the ports that the kernel chose.
    pub bound: Vec<SocketAddr>,
    /// Built-in addresses that this host does not have.
    pub skipped: Vec<SocketAddr>,
}

impl<A: Answer> Workers<A> {
    /// Starts `count` worker threads (at least one), each with its own runtime. They have no sockets yet.
    ///
    /// # Errors
    /// When the system gives no thread or no descriptor for a runtime.
    pub fn start(count: usize, context: Context<A>) -> io::Result<Self> {
        let context = Arc::new(context);
        let end = CancellationToken::new();
        // From here on: a thread that was started ends even if the next one cannot be.
        let ending = end.clone().drop_guard();
        let first = Worker::start(0, &context, &end)?;
        let handle = first.handle.clone();
        let mut workers = vec![first];
        for number in 1..count {
            workers.push(Worker::start(number, &context, &end)?);
        }
        let limits = &context.limits;
        Ok(Self {
            workers,
            first: handle,
            connections: Connections::new(limits.tcp_connections, limits.tcp_connections_per_client),
            open: Mutex::default(),
            stop: CancellationToken::new(),
            end: ending,
            tasks: TaskTracker::new(),
        })
    }

    /// Returns the workers' runtimes: the upstream side runs there too.
    pub fn handles(&self) -> Vec<Handle> {
        self.workers.iter().map(|worker| worker.handle.clone()).collect()
    }

    /// Makes the set of listen addresses exactly `wanted`: keeps those that are open, binds the new ones, all
    /// or none, then closes those that are gone. A built-in address that the host lacks is skipped.
    ///
    /// # Errors
    /// When a new address cannot be had; then nothing has changed.
    pub fn listen(&self, wanted: &[Listen]) -> Result<ListenReport, BindError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut report = ListenReport::default();
        let mut ready: Vec<Ready<A>> = Vec::new();
        for listen in wanted {
            let known = ready.iter().map(|new| (new.wanted, new.address));
            let known: Vec<_> =
                open.iter().map(|(wanted, open)| (*wanted, open.address)).chain(known).collect();
            if let Some((_, address)) = known.iter().find(|(wanted, _)| *wanted == listen.address) {
                report.bound.push(*address);
                continue;
            }
            let sharing = sharing(listen.address, known.iter().map(|(_, address)| *address));
            match self.prepare(listen.address, sharing) {
                Ok(new) => {
                    report.bound.push(new.address);
                    ready.push(new);
                }
                Err(error) if !listen.written && error.kind == BindErrorKind::NotHere => {
                    report.skipped.push(listen.address);
                }
                Err(error) => return Err(error),
            }
        }
        for new in ready {
            open.insert(new.wanted, self.run(new));
        }
        open.retain(|address, open| {
            let keep = wanted.iter().any(|listen| listen.address == *address);
            if !keep {
                tracing::info!(address = %open.address, "no longer listening");
                open.stop.cancel();
            }
            keep
        });
        Ok(report)
    }

    /// Stops reading UDP and accepting TCP. What was received is still answered: TCP connections finish what
    /// they have, and replies of flights can still be sent.
    pub fn stop_accepting(&self) {
        self.stop.cancel();
    }

    /// Waits until every TCP connection ended or the deadline passed, then ends the threads and whatever
    /// still runs on them. Blocks: not to be called on a worker's thread.
    pub fn join(self, deadline: Instant) {
        self.stop.cancel();
        self.tasks.close();
        let (done, wait) = mpsc::sync_channel(1);
        let tasks = self.tasks.clone();
        // Not on the tracker: it waits for that one.
        self.first.spawn(async move {
            tasks.wait().await;
            let _ = done.send(());
        });
        if wait.recv_timeout(deadline.saturating_duration_since(clock::now())).is_err() {
            tracing::warn!(tasks = self.tasks.len(), "stopping although clients are still being served");
        }
        drop(self.end);
        for worker in self.workers {
            if worker.thread.join().is_err() {
                tracing::error!("a worker thread ended by a panic");
            }
        }
    }

    /// Binds an address and registers its sockets with the workers' runtimes.
    fn prepare(&self, wanted: SocketAddr, sharing: Sharing) -> Result<Ready<A>, BindError> {
        let Sockets { address, udp, tcp } = bind(wanted, self.workers.len(), sharing)?;
        let mut loops = Vec::with_capacity(self.workers.len());
        for ((worker, udp), tcp) in self.workers.iter().zip(udp).zip(tcp) {
            let _runtime = worker.handle.enter();
            let udp = UdpLoop::new(Arc::new(UdpSink::new(udp)), Arc::clone(&worker.intake))
                .map_err(|error| BindError::new(wanted, ClientTransport::Udp, error))?;
            let listener = TcpListener::from_std(tcp)
                .map_err(|error| BindError::new(wanted, ClientTransport::Tcp, error))?;
            let acceptor = Acceptor {
                listener,
                intake: Arc::clone(&worker.intake),
                connections: Arc::clone(&self.connections),
                tasks: self.tasks.clone(),
            };
            loops.push((udp, acceptor));
        }
        Ok(Ready { wanted, address, loops })
    }

    /// Starts the loops of an address.
    fn run(&self, ready: Ready<A>) -> Open {
        let stop = self.stop.child_token();
        for (worker, (udp, acceptor)) in self.workers.iter().zip(ready.loops) {
            self.tasks.spawn_on(udp.run(stop.clone()), &worker.handle);
            self.tasks.spawn_on(acceptor.run(stop.clone()), &worker.handle);
        }
        tracing::info!(address = %ready.address, "listening");
        Open { address: ready.address, stop }
    }
}

impl<A: Answer> Worker<A> {
    /// Starts one thread; it runs until `end`.
    fn start(number: usize, context: &Arc<Context<A>>, end: &CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let end = end.clone();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || runtime.block_on(end.cancelled()))?;
        let intake = Arc::new(Intake::new(Arc::clone(context), context.telemetry.block()));
        Ok(Self { handle, thread, intake })
    }
}

/// Tells whether an address may meet sockets of our own on its port, at one of `ours`.
fn sharing(address: SocketAddr, mut ours: impl Iterator<Item = SocketAddr>) -> Sharing {
    let meets = |other: SocketAddr| {
        let overlap = other.ip().is_unspecified() || address.ip().is_unspecified();
        other.port() == address.port() && other.is_ipv4() == address.is_ipv4() && overlap
    };
    if ours.any(meets) { Sharing::OurOwn } else { Sharing::Nobody }
}
