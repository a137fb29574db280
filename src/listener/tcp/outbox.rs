//! Replies on their way to one TCP client: what flights add, what the connection's task writes, and how much of it the
//! client may leave unread, by itself and together with all others. Nothing is written here.

use super::connections::Connections;
use crate::resolver::waiter::{ReplyBatch, ReplySink};
use crate::telemetry::bounds::Bound;
use crate::wire::frame;
use bytes::BytesMut;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// So much a connection may leave unread even when all together leave too much: clients that do not read must not keep
/// those from being answered that do.
const ALWAYS: usize = 4 * 1024;

/// The length before each message (RFC 1035 §4.2.2).
const PREFIX: usize = 2;

/// Replies on their way to one client. The connection's task writes what is in it.
#[derive(Debug)]
pub(super) struct Outbox {
    /// See [`Contents`].
    contents: Mutex<Contents>,
    /// Told when something was added.
    pub(super) added: Notify,
    /// Knows how much all clients leave unread.
    connections: Arc<Connections>,
    /// How much this one may.
    limit: usize,
    /// Our end of the connection.
    local: Option<SocketAddr>,
}

/// What the lock of an outbox guards.
#[derive(Debug, Default)]
struct Contents {
    /// Framed replies.
    octets: BytesMut,
    /// Octets not yet written: those above and those that the connection's task is writing.
    unread: usize,
    /// Replies that flights still owe.
    owed: usize,
    /// More came than the client may leave unread.
    overrun: bool,
    /// The connection is over: what still comes is for nobody.
    closed: bool,
}

/// What of [`Contents`] decides how the connection goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Replies that flights still owe.
    pub(super) owed: usize,
    /// Octets not yet written.
    pub(super) unread: usize,
    /// The client does not read.
    pub(super) overrun: bool,
}

impl Outbox {
    /// Makes an empty one, for a client that may leave `limit` octets unread, or one reply if that is longer.
    pub(super) fn new(connections: Arc<Connections>, limit: usize, local: Option<SocketAddr>) -> Arc<Self> {
        Arc::new(Self { contents: Mutex::default(), added: Notify::new(), connections, limit, local })
    }

    /// Locks the contents. A panic elsewhere cannot leave them half changed in a way that matters.
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a flight will add a reply.
    pub(super) fn owe(&self) {
        self.lock().owed += 1;
    }

    /// Adds a reply.
    pub(super) fn push(&self, reply: &[u8]) {
        let mut contents = self.lock();
        self.add(&mut contents, reply);
    }

    /// Adds a framed reply, unless that is more than the client may leave unread.
    fn add(&self, contents: &mut Contents, reply: &[u8]) {
        if contents.closed || contents.overrun {
            return;
        }
        let octets = reply.len() + PREFIX;
        let unread = contents.unread + octets;
        let within = self.connections.add_unread(octets);
        let too_much = if contents.unread > 0 && unread > self.limit {
            Some(Bound::TcpUnread)
        } else if !within && unread > ALWAYS {
            Some(Bound::TcpUnreadTotal)
        } else {
            None
        };
        if let Some(bound) = too_much {
            self.connections.take_unread(octets);
            self.connections.reached(bound);
            contents.overrun = true;
            return;
        }
        contents.unread = unread;
        frame::append(&mut contents.octets, reply);
    }

    /// Moves what is to be written into `writing`, which is empty; true when there was something.
    pub(super) fn take(&self, writing: &mut BytesMut) -> bool {
        let mut contents = self.lock();
        if contents.octets.is_empty() {
            return false;
        }
        std::mem::swap(writing, &mut contents.octets);
        true
    }

    /// Notes that so many octets of what was taken are written.
    pub(super) fn written(&self, octets: usize) {
        let mut contents = self.lock();
        contents.unread = contents.unread.saturating_sub(octets);
        self.connections.take_unread(octets);
    }

    /// Reads off how much is owed and not yet written.
    pub(super) fn load(&self) -> Load {
        let contents = self.lock();
        Load { owed: contents.owed, unread: contents.unread, overrun: contents.overrun }
    }

    /// Lets go of everything: the connection is over, and flights may still hold this.
    pub(super) fn close(&self) {
        let mut contents = self.lock();
        self.connections.take_unread(contents.unread);
        let owed = contents.owed;
        *contents = Contents { owed, closed: true, ..Contents::default() };
    }
}

impl ReplySink for Outbox {
    fn send(&self, batch: &ReplyBatch) {
        let mut contents = self.lock();
        for (_, reply) in batch.iter() {
            contents.owed = contents.owed.saturating_sub(1);
            self.add(&mut contents, reply);
        }
        drop(contents);
        self.added.notify_one();
    }

    fn local(&self) -> Option<SocketAddr> {
        self.local
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Limits;
    use crate::resolver::waiter::{ClientToken, ReplyNote};
    use crate::telemetry::bounds::Bounds;
    use crate::telemetry::outcome::Source;
    use crate::wire::MAX_MESSAGE;

    const LIMIT: usize = 256 * 1024;

    /// A batch of `count` replies of `octets` each.
    fn batch(count: usize, octets: usize) -> ReplyBatch {
        let client = ClientToken { peer: SocketAddr::from(([127, 0, 0, 1], 5)), local: None, interface: 0 };
        let note = ReplyNote { source: Source::Cache, upstream: None };
        let mut batch = ReplyBatch::default();
        for _ in 0..count {
            batch.push(client, note, octets, |out| out.len());
        }
        batch
    }

    /// A table of connections that together may leave so much unread.
    fn table(total: usize) -> (Arc<Connections>, Arc<Bounds>) {
        let bounds = Arc::<Bounds>::default();
        let limits = Limits { tcp_unread_total: total, ..Limits::default() };
        (Connections::new(&limits, Arc::clone(&bounds)), bounds)
    }

    /// Octets that all clients leave unread.
    fn unread(connections: &Connections) -> usize {
        connections.readings()[2].in_use
    }

    #[test]
    fn replies_are_framed_and_settle_what_is_owed() {
        let (connections, _) = table(LIMIT);
        let outbox = Outbox::new(connections, LIMIT, None);
        (0..3).for_each(|_| outbox.owe());
        outbox.send(&batch(2, 5));
        let load = outbox.load();
        assert_eq!((load.owed, load.unread, load.overrun), (1, 14, false));
        let mut writing = BytesMut::new();
        assert!(outbox.take(&mut writing) && !outbox.take(&mut BytesMut::new()));
        assert_eq!(writing[..], [0, 5, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_a_client_leaves_unread_is_bounded_also_while_it_is_being_written() {
        let (connections, bounds) = table(LIMIT * 9);
        let outbox = Outbox::new(Arc::clone(&connections), LIMIT, None);
        outbox.send(&batch(3, MAX_MESSAGE));
        assert!(outbox.take(&mut BytesMut::new()));
        assert!(!outbox.load().overrun);
        outbox.send(&batch(30, MAX_MESSAGE));
        assert!(outbox.load().overrun && outbox.load().unread <= LIMIT, "{:?}", outbox.load());
        assert_eq!(bounds.count(Bound::TcpUnread), 1);
        assert_eq!(unread(&connections), outbox.load().unread);
        outbox.close();
        assert_eq!(unread(&connections), 0);
        outbox.send(&batch(1, 9));
        assert_eq!((outbox.load().unread, unread(&connections)), (0, 0), "nobody reads it any more");
    }

    #[test]
    fn one_reply_always_fits_and_room_comes_back_with_what_is_written() {
        let (connections, _) = table(LIMIT);
        let outbox = Outbox::new(Arc::clone(&connections), 10, None);
        outbox.send(&batch(1, MAX_MESSAGE));
        outbox.written(MAX_MESSAGE + 2);
        outbox.send(&batch(1, MAX_MESSAGE));
        assert!(!outbox.load().overrun);
        assert_eq!(unread(&connections), MAX_MESSAGE + 2);
    }

    #[test]
    fn when_all_together_leave_too_much_those_who_leave_most_go_and_short_replies_still_leave() {
        let (connections, bounds) = table(LIMIT);
        let [greedy, modest] = [(); 2].map(|()| Outbox::new(Arc::clone(&connections), LIMIT, None));
        greedy.send(&batch(3, MAX_MESSAGE));
        greedy.send(&batch(1, MAX_MESSAGE - 100));
        modest.send(&batch(2, 1000));
        assert!(!greedy.load().overrun && !modest.load().overrun);
        greedy.send(&batch(1, 20));
        assert!(greedy.load().overrun);
        assert_eq!((bounds.count(Bound::TcpUnreadTotal), modest.load().unread), (1, 2004));
    }
}
