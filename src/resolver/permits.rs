//! How many queries may wait on upstreams: in all, and for one client's prefix. Queries answered from memory need no permit.

use crate::telemetry::bounds::{Bound, BoundReading};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The places there are.
#[derive(Debug)]
pub struct Permits {
    /// Queries waiting now.
    in_use: AtomicUsize,
    /// Bound of `in_use`; changed by a reload.
    total: AtomicUsize,
    /// Bound for one prefix.
    per_client: AtomicUsize,
    /// Places in use by prefix; a prefix without any is not in the map, so it is no longer than `total`.
    clients: Mutex<HashMap<u64, usize>>,
    /// Told when the last place became free: stopping waits for it.
    idle: Notify,
}

impl Permits {
    /// Makes `total` places, of which one client prefix may take `per_client`.
    pub fn new(total: usize, per_client: usize) -> Arc<Self> {
        Arc::new(Self {
            in_use: AtomicUsize::new(0),
            total: AtomicUsize::new(total),
            per_client: AtomicUsize::new(per_client),
            clients: Mutex::default(),
            idle: Notify::new(),
        })
    }

    /// Changes the bounds; places in use stay in use.
    pub fn reconfigure(&self, total: usize, per_client: usize) {
        self.total.store(total, Ordering::Relaxed);
        self.per_client.store(per_client, Ordering::Relaxed);
    }

    /// Takes a place for a client.
    ///
    /// # Errors
    /// The bound that leaves none.
    pub fn acquire(self: &Arc<Self>, client: IpAddr) -> Result<Permit, Bound> {
        self.counter().acquire(client)
    }

    /// Returns what gives places out: for a batch of queries it is asked for once.
    pub(super) fn counter(self: &Arc<Self>) -> Counter<'_> {
        Counter { permits: self, clients: self.clients() }
    }

    /// Locks the places by prefix.
    fn clients(&self) -> MutexGuard<'_, HashMap<u64, usize>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many queries wait.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Returns how full the bounds are.
    pub fn readings(&self) -> [BoundReading; 2] {
        let largest = self.clients().values().copied().max().unwrap_or_default();
        [
            (Bound::MaxInflight, self.in_use(), &self.total),
            (Bound::MaxInflightPerClient, largest, &self.per_client),
        ]
        .map(|(bound, in_use, limit)| BoundReading {
            bound,
            in_use,
            limit: limit.load(Ordering::Relaxed),
        })
    }

    /// Waits until no query waits. Cancel safe: it only watches.
    pub async fn idle(&self) {
        loop {
            let notified = self.idle.notified();
            if self.in_use() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Gives places back.
    fn release(&self, prefixes: impl Iterator<Item = u64>) {
        let mut clients = self.clients();
        let mut count = 0;
        for prefix in prefixes {
            count += 1;
            let Some(used) = clients.get_mut(&prefix) else { continue };
            *used = used.saturating_sub(1);
            if *used == 0 {
                clients.remove(&prefix);
            }
        }
        if count > 0 && self.in_use.fetch_sub(count, Ordering::Relaxed) == count {
            self.idle.notify_waiters();
        }
    }
}

/// Gives places out, as long as it is kept.
pub(super) struct Counter<'a> {
    /// The places.
    permits: &'a Arc<Permits>,
    /// Those in use.
    clients: MutexGuard<'a, HashMap<u64, usize>>,
}

impl Counter<'_> {
    /// As [`Permits::acquire`].
    ///
    /// # Errors
    /// The bound that leaves no place.
    pub(super) fn acquire(&mut self, client: IpAddr) -> Result<Permit, Bound> {
        let permits = self.permits;
        let prefix = prefix_of(client);
        if permits.in_use.load(Ordering::Relaxed) >= permits.total.load(Ordering::Relaxed) {
            return Err(Bound::MaxInflight);
        }
        let used = self.clients.entry(prefix).or_insert(0);
        if *used >= permits.per_client.load(Ordering::Relaxed) {
            return Err(Bound::MaxInflightPerClient);
        }
        *used += 1;
        permits.in_use.fetch_add(1, Ordering::Relaxed);
        Ok(Permit { permits: Some(Arc::clone(permits)), prefix })
    }
}

/// One place, held while a query waits.
#[derive(Debug)]
pub struct Permit {
    /// Where it goes back to; None when it has.
    permits: Option<Arc<Permits>>,
    /// Whose share it counts in.
    prefix: u64,
}

impl Permit {
    /// Gives places back, with one look at those in use; leaves the list empty.
    pub(super) fn release_all(permits: &mut Vec<Self>) {
        let Some(home) = permits.first().and_then(|first| first.permits.clone()) else { return };
        let is_its = |permit: &mut Self| permit.permits.take_if(|its| Arc::ptr_eq(its, &home)).is_some();
        home.release(permits.iter_mut().filter_map(|permit| is_its(permit).then_some(permit.prefix)));
        // One of other places goes back by itself; there is none.
        permits.clear();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(permits) = self.permits.take() {
            permits.release(std::iter::once(self.prefix));
        }
    }
}

/// Returns the prefix whose clients share one bound: an IPv4 address, or the /56 that one household is given of IPv6
/// (RFC 6177 §2). IPv4-mapped addresses count as IPv4.
fn prefix_of(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(address) => u64::from(u32::from(address)),
        // The top 56 bits; the low bit set keeps them apart from every IPv4 address.
        IpAddr::V6(address) => {
            let top = u64::try_from(u128::from(address) >> 72).unwrap_or(u64::MAX);
            (top << 8) | 1 << 63 | 1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn one_client_cannot_take_every_place() {
        let permits = Permits::new(10, 2);
        let held: Vec<_> = (0..2).filter_map(|_| permits.acquire(v4(1)).ok()).collect();
        assert_eq!(held.len(), 2);
        assert_eq!(permits.acquire(v4(1)).unwrap_err(), Bound::MaxInflightPerClient);
        assert!(permits.acquire(v4(2)).is_ok());
    }

    #[test]
    fn the_total_is_never_passed_and_a_dropped_permit_is_free_again() {
        let permits = Permits::new(3, 3);
        let mut held: Vec<_> = (0..3).filter_map(|last| permits.acquire(v4(last)).ok()).collect();
        assert_eq!(permits.acquire(v4(9)).unwrap_err(), Bound::MaxInflight);
        held.pop();
        assert!(permits.acquire(v4(9)).is_ok());
        drop(held);
        assert_eq!(permits.in_use(), 0);
        assert!(permits.clients.lock().unwrap().is_empty());
    }

    #[test]
    fn addresses_of_one_ipv6_household_share_a_bound() {
        let permits = Permits::new(10, 1);
        let _held = permits.acquire("2001:db8:0:aa01::1".parse().unwrap()).unwrap();
        assert!(permits.acquire("2001:db8:0:aaff::2".parse().unwrap()).is_err());
        assert!(permits.acquire("2001:db8:0:ab01::1".parse().unwrap()).is_ok());
    }

    #[tokio::test]
    async fn idle_returns_when_the_last_permit_is_dropped() {
        let permits = Permits::new(1, 1);
        let held = permits.acquire(v4(1)).unwrap();
        let waiting = permits.idle();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(held);
        assert!(futures_util::poll!(&mut waiting).is_ready());
    }

    #[test]
    fn places_given_back_together_are_free_and_counted_once() {
        let permits = Permits::new(4, 2);
        let (first, second) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut taken: Vec<_> =
            [first, second, first].into_iter().map(|client| permits.acquire(client).unwrap()).collect();
        assert!(permits.acquire(first).is_err());
        assert_eq!(permits.in_use(), 3);
        Permit::release_all(&mut taken);
        assert!(taken.is_empty() && permits.in_use() == 0);
        Permit::release_all(&mut taken);
        let again = permits.acquire(first).unwrap();
        assert_eq!((permits.in_use(), Arc::strong_count(&permits)), (1, 2));
        drop(again);
        assert_eq!((permits.in_use(), Arc::strong_count(&permits)), (0, 1));
    }
}
