//! The bounds of the design, by name, and how often each was reached. What happens then is the matter of whoever holds the
//! bound; `docs/architecture.md` has the table. How full a bound is now comes in by `export::Readings`.

use std::sync::atomic::{AtomicU64, Ordering};

/// A bound that can be reached. Its label is its key, if it has one; of those under `[limits]` without that word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Queries that wait for servers.
    MaxInflight,
    /// Of those, one client's.
    MaxInflightPerClient,
    /// Clients that wait for one answer.
    WaitersPerFlight,
    /// Datagrams taken by one system call.
    UdpBatch,
    /// Connections of clients.
    TcpConnections,
    /// Of those, one client's.
    TcpConnectionsPerClient,
    /// Queries that wait on one connection of a client.
    TcpPipelined,
    /// Octets that one connection of a client leaves unread.
    TcpUnread,
    /// Octets that all of them leave unread.
    TcpUnreadTotal,
    /// How long a connection of a client may be idle.
    TcpIdle,
    /// How long a client may take to send one message.
    TcpRead,
    /// Queries in flight on one connection to a server.
    DotStreams,
    /// Connections to one server.
    MaxConnections,
    /// Connections to one server that are being opened.
    Dials,
    /// Queries that wait for a connection to one server.
    PoolQueue,
    /// Sockets to one plain UDP server.
    PlainSockets,
    /// How long a query may take.
    QueryTime,
    /// How long one server may take for it.
    AttemptTime,
    /// Servers tried for one query.
    Attempts,
    /// Retries as a share of queries.
    RetryPercent,
    /// Queries asked of a second server because the first is slow, as a share of all.
    HedgePercent,
    /// Background refreshes at once.
    RefreshInflight,
    /// How long a failure is remembered.
    FailureTime,
    /// How long queries that wait may take when the gateway stops.
    DrainTimeout,
    /// Files and sockets that the system gives this process.
    OpenFiles,
}

impl Bound {
    /// All, in the order in which they stand above.
    pub const ALL: [Self; 25] = [
        Self::MaxInflight,
        Self::MaxInflightPerClient,
        Self::WaitersPerFlight,
        Self::UdpBatch,
        Self::TcpConnections,
        Self::TcpConnectionsPerClient,
        Self::TcpPipelined,
        Self::TcpUnread,
        Self::TcpUnreadTotal,
        Self::TcpIdle,
        Self::TcpRead,
        Self::DotStreams,
        Self::MaxConnections,
        Self::Dials,
        Self::PoolQueue,
        Self::PlainSockets,
        Self::QueryTime,
        Self::AttemptTime,
        Self::Attempts,
        Self::RetryPercent,
        Self::HedgePercent,
        Self::RefreshInflight,
        Self::FailureTime,
        Self::DrainTimeout,
        Self::OpenFiles,
    ];

    /// Returns the `limit` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::MaxInflight => "max_inflight",
            Self::MaxInflightPerClient => "max_inflight_per_client",
            Self::WaitersPerFlight => "waiters_per_flight",
            Self::UdpBatch => "udp_batch",
            Self::TcpConnections => "tcp_connections",
            Self::TcpConnectionsPerClient => "tcp_connections_per_client",
            Self::TcpPipelined => "tcp_pipelined",
            Self::TcpUnread => "tcp_unread",
            Self::TcpUnreadTotal => "tcp_unread_total",
            Self::TcpIdle => "tcp_idle",
            Self::TcpRead => "tcp_read",
            Self::DotStreams => "dot_streams",
            Self::MaxConnections => "max_connections",
            Self::Dials => "dials",
            Self::PoolQueue => "pool_queue",
            Self::PlainSockets => "plain_sockets",
            Self::QueryTime => "timeouts.query",
            Self::AttemptTime => "timeouts.attempt_max",
            Self::Attempts => "attempts",
            Self::RetryPercent => "retry_percent",
            Self::HedgePercent => "hedge_percent",
            Self::RefreshInflight => "refresh_inflight",
            Self::FailureTime => "cache.failure_max_ttl",
            Self::DrainTimeout => "drain_timeout",
            Self::OpenFiles => "open_files",
        }
    }

    /// Returns the place in `ALL`.
    fn place(self) -> usize {
        self as usize
    }
}

/// How often each bound was reached since the process began.
#[derive(Debug, Default)]
pub struct Bounds {
    /// In the order of `Bound::ALL`.
    reached: [AtomicU64; Bound::ALL.len()],
}

impl Bounds {
    /// Counts that a bound was reached: something was refused, closed, put off or left out for it.
    pub fn reached(&self, bound: Bound) {
        if let Some(counter) = self.reached.get(bound.place()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns how often a bound was reached.
    pub fn count(&self, bound: Bound) -> u64 {
        self.reached.get(bound.place()).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

/// How full a bound is.
#[derive(Clone, Copy, Debug)]
pub struct BoundReading {
    /// Which one.
    pub bound: Bound,
    /// How much is in use; of a bound that many have (clients, servers), the one that has the most.
    pub in_use: usize,
    /// How much may be.
    pub limit: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_bound_has_a_place_and_a_label_of_its_own() {
        for (place, bound) in Bound::ALL.into_iter().enumerate() {
            assert_eq!(bound.place(), place);
        }
        let labels: HashSet<_> = Bound::ALL.into_iter().map(Bound::label).collect();
        assert_eq!(labels.len(), Bound::ALL.len());
    }

    #[test]
    fn a_bound_is_counted_by_itself() {
        let bounds = Bounds::default();
        bounds.reached(Bound::TcpRead);
        bounds.reached(Bound::TcpRead);
        assert_eq!((bounds.count(Bound::TcpRead), bounds.count(Bound::TcpIdle)), (2, 0));
    }
}
