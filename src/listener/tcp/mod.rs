//! The TCP accept loop: who gets a connection, and what happens when there are no more to give. What goes on
//! in a connection is `connection`'s; who is there is `connections`'.

mod connection;
pub(super) mod connections;
mod outbox;

use self::connection::Connection;
use self::connections::{Connections, Membership, Refusal};
use super::Answer;
use super::bind::Origin;
use super::intake::Intake;
use crate::clock;
use crate::resolver::waiter::ClientToken;
use crate::telemetry::bounds::Bound;
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How long accepting pauses when the system has no descriptor or memory left: the connection stays queued
/// and the socket ready, so without a pause the loop would spin.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How often exhaustion may be logged: strangers can cause it.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Connections accepted at the end: as many as the kernel may have queued, and some.
const LAST_CONNECTIONS: usize = 4096;

/// A connection that has a place.
type Admitted = (TcpStream, SocketAddr, Membership);

/// One listening socket of one worker.
#[derive(Debug)]
pub(super) struct Acceptor<A> {
    /// Registered with this worker's runtime.
    pub(super) listener: TcpListener,
    /// What happens to a query.
    pub(super) intake: Arc<Intake<A>>,
    /// All connections of the gateway.
    pub(super) connections: Arc<Connections>,
    /// Knows every task, so that stopping waits for it.
    pub(super) tasks: TaskTracker,
    /// Knows who still reads, so that stopping waits for that first.
    pub(super) readers: TaskTracker,
    /// Who made the socket.
    pub(super) origin: Origin,
}

impl<A: Answer> Acceptor<A> {
    /// Accepts until `stop`, which also tells the connections to finish. `reading` is given back when nothing more is
    /// accepted.
    pub(super) async fn run(self, stop: CancellationToken, reading: TaskTrackerToken) {
        let mut stopped = pin!(stop.cancelled());
        let mut warned = None;
        loop {
            let admitted = tokio::select! {
                biased;
                () = &mut stopped => break,
                admitted = self.admit_next(&mut warned) => admitted,
            };
            if let Some(admitted) = admitted {
                self.serve(admitted, &stop);
            }
        }
        if self.origin == Origin::Bound {
            self.accept_the_last(&stop);
        }
        drop(reading);
    }

    /// Starts the task of a connection.
    fn serve(&self, (stream, peer, membership): Admitted, stop: &CancellationToken) {
        let intake = Arc::clone(&self.intake);
        let token = ClientToken { peer, local: None, interface: 0 };
        let local = stream.local_addr().ok();
        let connection = Connection::new(intake, token, local, membership, self.readers.token());
        self.tasks.spawn(connection.run(stream, stop.clone()));
    }

    /// Accepts what the kernel has queued: closing the socket would reset those connections.
    fn accept_the_last(&self, stop: &CancellationToken) {
        for _ in 0..LAST_CONNECTIONS {
            // The runtime may not know yet that there is something: ask the kernel itself.
            let Ok((stream, peer)) = SockRef::from(&self.listener).accept() else { return };
            let Some(peer) = peer.as_socket() else { continue };
            let stream = std::net::TcpStream::from(stream);
            let ready = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let (Ok(stream), Ok(membership)) = (ready, self.connections.admit(peer.ip())) {
                self.serve((stream, peer, membership), stop);
            }
        }
    }

    /// Waits for the next connection and for a place for it; None when it gets none.
    async fn admit_next(&self, warned: &mut Option<Instant>) -> Option<Admitted> {
        let (stream, peer) = match self.listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                self.recover(&error, warned).await;
                return None;
            }
        };
        // While one waits for a place no other is accepted: the kernel's queue pushes back.
        match self.connections.admit_when_free(peer.ip()).await {
            Ok(membership) => Some((stream, peer, membership)),
            Err(Refusal::ClientShare | Refusal::Full) => None,
        }
    }

    /// Makes the best of a failed accept.
    async fn recover(&self, error: &io::Error, warned: &mut Option<Instant>) {
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
        ) {
            // The client left before it was accepted.
            return;
        }
        // What remains is the want of descriptors or memory: an idle connection gives some back.
        let now = clock::now();
        if warned.is_none_or(|last| now.saturating_duration_since(last) >= WARNING_INTERVAL) {
            *warned = Some(now);
            tracing::warn!(%error, "cannot accept TCP connections");
        }
        self.connections.reached(Bound::OpenFiles);
        self.connections.evict_oldest_idle();
        tokio::time::sleep(EXHAUSTED_PAUSE).await;
    }
}
