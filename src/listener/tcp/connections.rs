//! The table of TCP connections, shared by all workers: how many there are, whose they are, and which has
//! been idle the longest. It opens and closes nothing itself; it says who has to go.

use crate::config::settings::Limits;
use crate::listener::admission::ClientPrefix;
use crate::telemetry::bounds::{Bound, BoundReading, Bounds};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// All TCP connections of the gateway.
#[derive(Debug)]
pub(in crate::listener) struct Connections {
    /// Bound of all.
    total: usize,
    /// Bound of one client prefix.
    per_client: usize,
    /// Who is there.
    table: Mutex<Table>,
    /// Told when a connection ends or becomes idle: somebody may be waiting for a place.
    changed: Notify,
    /// Octets that clients leave unread, all together.
    unread: AtomicUsize,
    /// Bound of `unread`.
    unread_total: usize,
    /// Where it is counted that a bound was reached.
    bounds: Arc<Bounds>,
}

/// What the lock guards.
#[derive(Debug, Default)]
struct Table {
    /// Places by number.
    places: HashMap<u64, Place>,
    /// How many places each prefix has; one without any is not in the map.
    clients: HashMap<ClientPrefix, usize>,
    /// Number of the next place.
    next: u64,
    /// Waits in [`Connections::admit_when_free`] now: without any, nobody needs to be told.
    waiting: usize,
}

/// One connection's place.
#[derive(Debug)]
struct Place {
    /// Whose it is.
    client: ClientPrefix,
    /// Since when nothing is asked, owed or half read.
    idle_since: Option<Instant>,
    /// Tells the connection to go.
    evict: CancellationToken,
}

/// Why a connection gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::listener) enum Refusal {
    /// The client has its share, and uses all of it.
    ClientShare,
    /// All places are taken and none of them is idle.
    Full,
}

impl Connections {
    /// Makes an empty table.
    pub(in crate::listener) fn new(limits: &Limits, bounds: Arc<Bounds>) -> Arc<Self> {
        Arc::new(Self {
            total: limits.tcp_connections,
            per_client: limits.tcp_connections_per_client,
            table: Mutex::default(),
            changed: Notify::new(),
            unread: AtomicUsize::new(0),
            unread_total: limits.tcp_unread_total,
            bounds,
        })
    }

    /// Returns how full the bounds are.
    pub(in crate::listener) fn readings(&self) -> [BoundReading; 3] {
        let (all, largest) = {
            let table = self.lock();
            (table.places.len(), table.clients.values().copied().max().unwrap_or_default())
        };
        let unread = self.unread.load(Ordering::Relaxed);
        [
            (Bound::TcpConnections, all, self.total),
            (Bound::TcpConnectionsPerClient, largest, self.per_client),
            (Bound::TcpUnreadTotal, unread, self.unread_total),
        ]
        .map(|(bound, in_use, limit)| BoundReading { bound, in_use, limit })
    }

    /// Counts that a bound was reached.
    pub(super) fn reached(&self, bound: Bound) {
        self.bounds.reached(bound);
    }

    /// Adds to what clients leave unread; false when that is more than all of them may.
    pub(super) fn add_unread(&self, octets: usize) -> bool {
        let before = self.unread.fetch_add(octets, Ordering::Relaxed);
        before.saturating_add(octets) <= self.unread_total
    }

    /// Takes from what clients leave unread.
    pub(super) fn take_unread(&self, octets: usize) {
        self.unread.fetch_sub(octets, Ordering::Relaxed);
    }

    /// Gives a place to a new connection, if need be that of the connection that has been idle the longest: the client's
    /// own when it has its share (on one host all programs are one client), anybody's when all places are taken.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub(in crate::listener) fn admit(self: &Arc<Self>, client: IpAddr) -> Result<Membership, Refusal> {
        let client = ClientPrefix::of(client);
        let mut table = self.lock();
        let has_share = table.clients.get(&client).is_some_and(|count| *count >= self.per_client);
        if has_share {
            self.reached(Bound::TcpConnectionsPerClient);
            if !table.evict_oldest_idle(|place| place.client == client) {
                return Err(Refusal::ClientShare);
            }
        }
        if table.places.len() >= self.total {
            self.reached(Bound::TcpConnections);
            if !table.evict_oldest_idle(|_| true) {
                return Err(Refusal::Full);
            }
        }
        let number = table.next;
        table.next = table.next.wrapping_add(1);
        let evict = CancellationToken::new();
        table.places.insert(number, Place { client, idle_since: None, evict: evict.clone() });
        *table.clients.entry(client).or_default() += 1;
        Ok(Membership { connections: Arc::clone(self), number, evicted: evict })
    }

    /// As `admit`, but waits while all places are busy: each has deadlines, so one becomes free.
    ///
    /// Cancel safe: nothing is taken before it returns.
    pub(in crate::listener) async fn admit_when_free(
        self: &Arc<Self>,
        client: IpAddr,
    ) -> Result<Membership, Refusal> {
        let _waiting = Waiting::begin(self);
        loop {
            let changed = self.changed.notified();
            match self.admit(client) {
                Err(Refusal::Full) => changed.await,
                admitted @ (Ok(_) | Err(Refusal::ClientShare)) => return admitted,
            }
        }
    }

    /// Ends the connection that has been idle the longest; false when none is idle.
    pub(in crate::listener) fn evict_oldest_idle(&self) -> bool {
        self.lock().evict_oldest_idle(|_| true)
    }

    /// Locks the table. A panic elsewhere cannot leave it half changed.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells one who waits for a place, if there is one.
    fn tell(&self, table: &Table) {
        if table.waiting > 0 {
            self.changed.notify_one();
        }
    }
}

impl Table {
    /// Takes the place of the connection that has been idle the longest, among some, and tells it to go.
    fn evict_oldest_idle(&mut self, among: impl Fn(&Place) -> bool) -> bool {
        let places = self.places.iter().filter(|(_, place)| among(place));
        let idle = places.filter_map(|(number, place)| Some((place.idle_since?, *number)));
        let Some((_, number)) = idle.min() else { return false };
        self.remove(number);
        true
    }

    /// Frees a place; a second time it changes nothing.
    fn remove(&mut self, number: u64) {
        let Some(place) = self.places.remove(&number) else { return };
        place.evict.cancel();
        if let Some(count) = self.clients.get_mut(&place.client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.clients.remove(&place.client);
            }
        }
    }
}

/// Counts one who waits for a place, until dropped.
struct Waiting<'a>(&'a Connections);

impl<'a> Waiting<'a> {
    /// Begins to count.
    fn begin(connections: &'a Connections) -> Self {
        connections.lock().waiting += 1;
        Self(connections)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut table = self.0.lock();
        table.waiting = table.waiting.saturating_sub(1);
        // The notice that came for this one may be meant for another now.
        self.0.tell(&table);
    }
}

/// A connection's place in the table; free again when dropped.
#[derive(Debug)]
pub(in crate::listener) struct Membership {
    /// The table.
    pub(super) connections: Arc<Connections>,
    /// Which place.
    number: u64,
    /// Cancelled when the place was given to another.
    pub(in crate::listener) evicted: CancellationToken,
}

impl Membership {
    /// Says since when the connection is idle; None when it is not.
    pub(in crate::listener) fn set_idle(&self, since: Option<Instant>) {
        let mut table = self.connections.lock();
        if let Some(place) = table.places.get_mut(&self.number) {
            place.idle_since = since;
        }
        if since.is_some() {
            self.connections.tell(&table);
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut table = self.connections.lock();
        table.remove(self.number);
        self.connections.tell(&table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use std::time::Duration;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    /// An empty table.
    fn table(total: usize, per_client: usize) -> Arc<Connections> {
        let limits =
            Limits { tcp_connections: total, tcp_connections_per_client: per_client, ..Limits::default() };
        Connections::new(&limits, Arc::default())
    }

    #[test]
    fn client_gets_its_share_and_no_more() {
        let connections = table(10, 2);
        let first = connections.admit(A).unwrap();
        let _second = connections.admit(A).unwrap();
        assert_eq!(connections.admit(A).unwrap_err(), Refusal::ClientShare);
        let _other = connections.admit(B).unwrap();
        drop(first);
        assert!(connections.admit(A).is_ok());
    }

    #[test]
    fn a_client_that_has_its_share_loses_its_own_idle_connection_and_nobody_elses() {
        let connections = table(10, 2);
        let now = clock::now();
        let other = connections.admit(B).unwrap();
        other.set_idle(Some(now));
        let [busy, idle] = [(); 2].map(|()| connections.admit(A).unwrap());
        idle.set_idle(Some(now + Duration::from_secs(1)));
        let _third = connections.admit(A).unwrap();
        assert!(idle.evicted.is_cancelled());
        assert!(!busy.evicted.is_cancelled() && !other.evicted.is_cancelled());
        drop(idle);
        assert_eq!(connections.admit(A).unwrap_err(), Refusal::ClientShare);
    }

    #[test]
    fn oldest_idle_connection_makes_room() {
        let connections = table(3, 3);
        let now = clock::now();
        let [busy, old, new] = [(); 3].map(|()| connections.admit(A).unwrap());
        assert_eq!(connections.admit(B).unwrap_err(), Refusal::Full);
        new.set_idle(Some(now + Duration::from_secs(1)));
        old.set_idle(Some(now));
        let _fourth = connections.admit(B).unwrap();
        assert!(old.evicted.is_cancelled());
        assert!(!new.evicted.is_cancelled() && !busy.evicted.is_cancelled());
        drop(old);
        new.set_idle(None);
        assert_eq!(connections.admit(B).unwrap_err(), Refusal::Full, "an evicted place is freed once");
    }

    #[test]
    fn table_is_empty_when_all_have_left() {
        let connections = table(3, 3);
        drop([(); 3].map(|()| connections.admit(A).unwrap()));
        let table = connections.lock();
        assert!(table.places.is_empty() && table.clients.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_waits_is_let_in_when_another_leaves_or_becomes_idle() {
        let connections = table(1, 1);
        let first = connections.admit(A).unwrap();
        let (second, ()) = tokio::join!(connections.admit_when_free(B), async { drop(first) });
        let second = second.unwrap();
        let (third, ()) =
            tokio::join!(connections.admit_when_free(A), async { second.set_idle(Some(clock::now())) });
        assert!(third.is_ok() && second.evicted.is_cancelled());
        assert_eq!(connections.lock().waiting, 0);
    }
}
