//! Who waits for a reply and how it reaches them: records, not tasks. A waiter names its client only by a token that
//! goes back to the sink untouched.

use crate::telemetry::dnstap::Occasion;
use crate::telemetry::dnstap::event::{Parties, Protocol};
use crate::telemetry::outcome::Source;
use crate::upstream::UpstreamId;
use crate::wire::query::ClientTransport;
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// One client's wait for an answer.
#[derive(Debug)]
pub struct Waiter {
    /// Where the reply goes.
    pub sink: Arc<dyn ReplySink>,
    /// Whom the sink sends it to.
    pub client: ClientToken,
    /// How the client asked: decides how long the reply may be.
    pub transport: ClientTransport,
    /// The query as the client sent it, already found good.
    pub query: Box<[u8]>,
    /// When it came.
    pub received: Instant,
}

impl Waiter {
    /// Returns what dnstap is told of the reply besides its octets.
    pub(super) fn occasion(&self) -> Occasion {
        self.client.occasion(self.sink.local(), self.transport, self.received)
    }
}

/// Who gets a reply: made by the listener, handed back to its sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientToken {
    /// The client's address and port.
    pub peer: SocketAddr,
    /// On a wildcard socket: the address the query came to, which the reply must leave from.
    pub local: Option<IpAddr>,
    /// On a wildcard socket: the interface it came in by.
    pub interface: u32,
}

impl ClientToken {
    /// Names a client of a socket that is bound to one address.
    pub fn new(peer: SocketAddr) -> Self {
        Self { peer, local: None, interface: 0 }
    }

    /// Returns what dnstap is told of this client's query or of the reply to it, besides the octets. `bound` is the address of
    /// the socket it came by.
    pub(crate) fn occasion(
        &self,
        bound: Option<SocketAddr>,
        transport: ClientTransport,
        asked_at: Instant,
    ) -> Occasion {
        let asked = bound.map(|bound| SocketAddr::new(self.local.unwrap_or(bound.ip()), bound.port()));
        let protocol = match transport {
            ClientTransport::Udp => Protocol::Udp,
            ClientTransport::Tcp => Protocol::Tcp,
        };
        Occasion { protocol, parties: Parties::Client { client: self.peer, asked }, asked_at }
    }
}

/// Where replies go. The UDP socket, a TCP connection, the `query` command and tests implement it.
pub trait ReplySink: Send + Sync + Debug {
    /// Sends all replies of `batch`. Never blocks: what cannot be sent now is dropped, and the client asks again.
    fn send(&self, batch: &ReplyBatch);

    /// Returns the address that its socket is bound to, if it is one of a socket.
    fn local(&self) -> Option<SocketAddr> {
        None
    }
}

/// Where one reply came from; for those who show it to a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyNote {
    /// The kind of origin.
    pub source: Source,
    /// The server that answered, if one did.
    pub upstream: Option<UpstreamId>,
}

/// Replies for one sink: rendered messages, back to back in one buffer.
#[derive(Debug, Default)]
pub struct ReplyBatch {
    /// The messages.
    buffer: Vec<u8>,
    /// Who gets which part of the buffer.
    replies: Vec<(ClientToken, ReplyNote, Range<usize>)>,
}

impl ReplyBatch {
    /// Returns the number of replies.
    pub fn len(&self) -> usize {
        self.replies.len()
    }

    /// Returns true when there are none.
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// Iterates over clients and messages, in the order they were pushed.
    pub fn iter(&self) -> impl Iterator<Item = (&ClientToken, &[u8])> {
        self.replies.iter().filter_map(|(client, _, range)| Some((client, self.buffer.get(range.clone())?)))
    }

    /// Iterates over notes and messages.
    pub fn notes(&self) -> impl Iterator<Item = (ReplyNote, &[u8])> {
        self.replies.iter().filter_map(|(_, note, range)| Some((*note, self.buffer.get(range.clone())?)))
    }

    /// Forgets the replies and keeps the memory, unless one huge reply made it large.
    pub fn clear(&mut self) {
        /// Above this the buffer is given back: a burst of 65,535-octet answers must not stay for ever.
        const KEEP_OCTETS: usize = 256 * 1024;
        self.replies.clear();
        self.buffer.clear();
        self.buffer.shrink_to(KEEP_OCTETS);
    }

    /// Appends one reply: `write` gets `limit` octets and returns how many it used; 0 appends nothing.
    pub fn push(
        &mut self,
        client: ClientToken,
        note: ReplyNote,
        limit: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) {
        let start = self.buffer.len();
        self.buffer.resize(start.saturating_add(limit), 0);
        let written = self.buffer.get_mut(start..).map_or(0, write).min(limit);
        self.buffer.truncate(start.saturating_add(written));
        if written > 0 {
            self.replies.push((client, note, start..start.saturating_add(written)));
        }
    }
}
