//! What `[dnstap]` says: where events go, which of them, and what they tell of clients. Plain data.

use super::QueryClients;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Events for a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnstapSettings {
    /// Who collects them.
    pub collector: Collector,
    /// Which kinds there are.
    pub messages: MessageKinds,
    /// What they say of the client.
    pub clients: QueryClients,
    /// What this gateway calls itself; empty: nothing.
    pub identity: String,
}

/// Where a collector listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collector {
    /// On a socket in the file system.
    Unix(PathBuf),
    /// On an address.
    Tcp(SocketAddr),
}

/// As it is written in a file.
impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// A kind of event: which message, seen from the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A client's query, as it came.
    ClientQuery,
    /// The reply to a client.
    ClientResponse,
    /// Our query to a server.
    ForwarderQuery,
    /// A server's answer, as it came.
    ForwarderResponse,
}

impl MessageKind {
    /// All, each with its word in a file.
    pub const WORDS: [(&'static str, Self); 4] = [
        ("client_query", Self::ClientQuery),
        ("client_response", Self::ClientResponse),
        ("forwarder_query", Self::ForwarderQuery),
        ("forwarder_response", Self::ForwarderResponse),
    ];

    /// Returns its bit in a set.
    const fn bit(self) -> u8 {
        match self {
            Self::ClientQuery => 1,
            Self::ClientResponse => 2,
            Self::ForwarderQuery => 4,
            Self::ForwarderResponse => 8,
        }
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageKinds(u8);

impl MessageKinds {
    /// Every kind.
    pub const ALL: Self = Self(15);

    /// Makes a set of the bits that [`Self::bits`] returned.
    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Returns the set as bits.
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// True when the kind is in it.
    pub const fn contains(self, kind: MessageKind) -> bool {
        self.0 & kind.bit() != 0
    }
}

impl FromIterator<MessageKind> for MessageKinds {
    fn from_iter<I: IntoIterator<Item = MessageKind>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |bits, kind| bits | kind.bit()))
    }
}
