//! The worker threads: one current-thread runtime each, and on every listen address one UDP and one TCP
//! socket each (`SO_REUSEPORT`: the kernel spreads clients over them, so a query stays on one core). Here
//! addresses come and go on reload, and everything ends in order. What is done with a query is not known here.

use super::attendant::Attendants;
use super::bind::{BindError, BindErrorKind, Sockets, adopt, bind};
use super::desk::UdpSink;
use super::foreground::{Entrance, Foreground};
use super::handover::{Handover, Inherited, Pair, Sharing};
use super::intake::Intake;
use super::tcp::Acceptor;
use super::tcp::connections::Connections;
use super::udp::UdpLoop;
use super::{Answer, Context};
use crate::clock;
use crate::config::settings::Listen;
use crate::resolver::Resolver;
use crate::telemetry::bounds::BoundReading;
use crate::wire::query::ClientTransport;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;
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
    /// Threads that wait in UDP sockets.
    attendants: Arc<Attendants>,
    /// Where we listen now, by the address as wanted.
    open: Mutex<HashMap<SocketAddr, Open>>,
    /// Ends reading and accepting everywhere.
    stop: CancellationToken,
    /// Every task of the listener, and every UDP loop.
    tasks: TaskTracker,
    /// Those who take queries, until they take no more.
    readers: TaskTracker,
    /// What other processes hand over or share.
    handover: Mutex<Handover>,
}

/// One worker thread, which ends when this is dropped.
#[derive(Debug)]
struct Worker<A> {
    /// How work comes to it that is not a task.
    entrance: Entrance,
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
    /// It was handed over: it stays, whatever the configuration says.
    inherited: bool,
}

/// Reads how full the bounds of clients' connections are.
#[derive(Clone, Debug)]
pub struct TcpUsage(Arc<Connections>);

impl TcpUsage {
    /// Returns how full they are.
    pub fn readings(&self) -> [BoundReading; 3] {
        self.0.readings()
    }
}

/// Sockets registered with their runtimes, not yet read.
struct Ready<A: Answer> {
    /// The address as wanted.
    wanted: SocketAddr,
    /// With the real port.
    address: SocketAddr,
    /// By worker; none when only a TCP socket was handed over.
    udp: Vec<UdpLoop<A>>,
    /// By worker; none when only a UDP socket was handed over.
    tcp: Vec<Acceptor<A>>,
    /// It was handed over, at least in part.
    inherited: bool,
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
    /// Starts `count` worker threads (at least one), each with its own runtime. They have no sockets yet. `keeper` is driven as
    /// long as they run: it keeps their far deadlines.
    ///
    /// # Errors
    /// When the system gives no thread or no descriptor for a runtime.
    pub fn start(count: usize, context: Context<A>, keeper: Option<&Handle>) -> io::Result<Self> {
        let first = Worker::start(0, &context, keeper)?;
        let handle = first.handle.clone();
        let mut workers = vec![first];
        for number in 1..count {
            workers.push(Worker::start(number, &context, keeper)?);
        }
        let limits = &context.limits;
        Ok(Self {
            workers,
            first: handle,
            attendants: Attendants::new(count.max(1)),
            connections: Connections::new(limits, Arc::clone(context.telemetry.bounds())),
            open: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            readers: TaskTracker::new(),
            handover: Mutex::default(),
        })
    }

    /// Returns the workers' runtimes: the upstream side runs there too.
    pub fn handles(&self) -> Vec<Handle> {
        self.workers.iter().map(|worker| worker.handle.clone()).collect()
    }

    /// Returns the threads that wait in UDP sockets.
    pub fn attendants(&self) -> Arc<Attendants> {
        Arc::clone(&self.attendants)
    }

    /// Returns a way to read how many connections clients have.
    pub fn tcp_usage(&self) -> TcpUsage {
        TcpUsage(Arc::clone(&self.connections))
    }

    /// Says what the first `listen` takes over from other processes.
    pub fn take_over(&self, handover: Handover) {
        *self.handover.lock().unwrap_or_else(PoisonError::into_inner) = handover;
    }

    /// Makes the set of listen addresses exactly `wanted`: keeps those that are open, binds the new ones, all
    /// or none, then closes those that are gone. A built-in address that the host lacks is skipped. Sockets that were
    /// handed over are served whatever is wanted; when there are some, the built-in addresses are left out.
    ///
    /// # Errors
    /// When a new address cannot be had; then nothing has changed.
    pub fn listen(&self, wanted: &[Listen]) -> Result<ListenReport, BindError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut handover = self.handover.lock().unwrap_or_else(PoisonError::into_inner);
        let has_inherited = !handover.inherited.is_empty() || open.values().any(|open| open.inherited);
        let wanted: Vec<Listen> =
            wanted.iter().filter(|listen| listen.written || !has_inherited).copied().collect();
        let mut report = ListenReport::default();
        let mut ready: Vec<Ready<A>> = Vec::new();
        for listen in &wanted {
            let known = ready.iter().map(|new| (new.wanted, new.address));
            let known: Vec<_> =
                open.iter().map(|(wanted, open)| (*wanted, open.address)).chain(known).collect();
            if let Some((_, address)) = known.iter().find(|(wanted, _)| *wanted == listen.address) {
                report.bound.push(*address);
                continue;
            }
            let sharing =
                sharing(listen.address, handover.sharing, known.iter().map(|(_, address)| *address));
            let pair = handover.inherited.take(listen.address);
            match self.prepare(listen.address, pair, Some(sharing)) {
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
        self.prepare_unnamed(&mut handover.inherited, &mut ready)?;
        handover.sharing = Sharing::Nobody;
        // First: what ends makes room for what begins. What comes meanwhile waits in the new sockets.
        open.retain(|address, open| {
            let keep = open.inherited || wanted.iter().any(|listen| listen.address == *address);
            if !keep {
                tracing::info!(address = %open.address, "no longer listening");
                open.stop.cancel();
            }
            keep
        });
        for new in ready {
            open.insert(new.wanted, self.run(new));
        }
        let unnamed = open.values().map(|open| open.address).filter(|open| !report.bound.contains(open));
        let unnamed: Vec<_> = unnamed.collect();
        report.bound.extend(unnamed);
        Ok(report)
    }

    /// Prepares what was handed over and no configuration names, each socket for what it can: nobody would bind the other
    /// kind there.
    fn prepare_unnamed(&self, inherited: &mut Inherited, ready: &mut Vec<Ready<A>>) -> Result<(), BindError> {
        while let Some(address) = inherited.next_address() {
            tracing::info!(%address, "a socket was handed over that the configuration does not name; it is served too");
            ready.push(self.prepare(address, inherited.take(address), None)?);
        }
        Ok(())
    }

    /// Stops reading UDP and accepting TCP. What was received is still answered: TCP connections finish what
    /// they have, and replies of flights can still be sent.
    pub fn stop_accepting(&self) {
        self.stop.cancel();
        self.readers.close();
    }

    /// Waits until the last query was taken that came before the stop. Cancel safe: it only watches.
    pub async fn finished_reading(&self) {
        self.readers.wait().await;
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
        // All of them end before one is waited for.
        let threads: Vec<_> = self.workers.into_iter().map(|worker| worker.thread).collect();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread ended by a panic");
            }
        }
    }

    /// Takes what was handed over for an address, binds the rest if `sharing` says how, and registers the sockets with the
    /// workers' runtimes.
    fn prepare(
        &self,
        wanted: SocketAddr,
        pair: Pair,
        sharing: Option<Sharing>,
    ) -> Result<Ready<A>, BindError> {
        let count = self.workers.len();
        let inherited = !pair.is_empty();
        let Sockets { address, udp, tcp, origins } = match sharing {
            Some(sharing) if !inherited => bind(wanted, count, sharing)?,
            Some(_) | None => adopt(pair, wanted, count, sharing)?,
        };
        let mut ready = Ready { wanted, address, udp: Vec::new(), tcp: Vec::new(), inherited };
        for (worker, udp) in self.workers.iter().zip(udp) {
            let _runtime = worker.handle.enter();
            let sink = Arc::new(UdpSink::new(udp, worker.intake.context.limits.udp_batch));
            let udp = UdpLoop::new(sink, Intake::clone(&worker.intake), origins.0, self.attendants())
                .map_err(|error| BindError::new(wanted, ClientTransport::Udp, error))?;
            ready.udp.push(udp);
        }
        for (worker, tcp) in self.workers.iter().zip(tcp) {
            let _runtime = worker.handle.enter();
            let listener = TcpListener::from_std(tcp)
                .map_err(|error| BindError::new(wanted, ClientTransport::Tcp, error))?;
            ready.tcp.push(Acceptor {
                listener,
                intake: Arc::clone(&worker.intake),
                connections: Arc::clone(&self.connections),
                tasks: self.tasks.clone(),
                readers: self.readers.clone(),
                origin: origins.1,
            });
        }
        Ok(ready)
    }

    /// Starts the loops of an address. Each has a token of its own, for whoever asks a token whether it is time locks it.
    fn run(&self, ready: Ready<A>) -> Open {
        let stop = self.stop.child_token();
        for (worker, udp) in self.workers.iter().zip(ready.udp) {
            let work = self.tasks.track_future(udp.run(stop.child_token(), self.readers.token()));
            if let Err(work) = worker.entrance.run(&stop, work) {
                self.tasks.spawn_on(work, &worker.handle);
            }
        }
        for (worker, acceptor) in self.workers.iter().zip(ready.tcp) {
            self.tasks.spawn_on(acceptor.run(stop.child_token(), self.readers.token()), &worker.handle);
        }
        tracing::info!(address = %ready.address, "listening");
        Open { address: ready.address, stop, inherited: ready.inherited }
    }
}

impl<A: Answer> Worker<A> {
    /// Starts one thread.
    fn start(number: usize, context: &Context<A>, keeper: Option<&Handle>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let keeper = keeper.cloned();
        let (entrance, foreground) = Foreground::new();
        let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            keeper.into_iter().for_each(clock::far::kept_by);
            runtime.block_on(foreground);
        })?;
        let intake = Arc::new(Intake::new(context.clone(), context.telemetry.block()));
        Ok(Self { entrance, handle, thread, intake })
    }
}

/// Tells whether an address may meet sockets on its port: any, when a predecessor has them, else those at one of `ours`.
fn sharing(address: SocketAddr, usual: Sharing, mut ours: impl Iterator<Item = SocketAddr>) -> Sharing {
    let meets = |other: SocketAddr| {
        let overlap = other.ip().is_unspecified() || address.ip().is_unspecified();
        other.port() == address.port() && other.is_ipv4() == address.is_ipv4() && overlap
    };
    if ours.any(meets) { Sharing::Ours } else { usual }
}
