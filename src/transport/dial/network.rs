//! On which network we are, as far as reaching servers is concerned, and what worked on which: so that a laptop which comes
//! home knows at once that IPv6 leads nowhere there. In memory only: on disk it would be a diary of places. What is *not*
//! here: how a network is recognised (`control::network`).

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Networks remembered: home, office, telephone, and some on the way.
const MOST_NETWORKS: usize = 8;

/// How long. Then the operator's first address has its chance again: somebody may have mended the way to it.
const REMEMBERED: Duration = Duration::from_secs(86_400);

/// Tells networks apart within one run of the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NetworkId(pub u64);

/// The network in use.
#[derive(Debug, Default)]
pub struct CurrentNetwork(AtomicU64);

impl CurrentNetwork {
    /// Returns which it is.
    pub fn id(&self) -> NetworkId {
        NetworkId(self.0.load(Ordering::Relaxed))
    }

    /// Takes note that it is this one.
    pub fn is(&self, network: NetworkId) {
        self.0.store(network.0, Ordering::Relaxed);
    }
}

/// Which address of a server worked on which network. Pure.
#[derive(Debug, Default)]
pub(super) struct Worked {
    /// The latest last.
    entries: Vec<(NetworkId, IpAddr, Instant)>,
}

impl Worked {
    /// Returns the address that worked on a network lately.
    pub(super) fn on(&self, network: NetworkId, now: Instant) -> Option<IpAddr> {
        let is_meant = |(known, _, since): &&(NetworkId, IpAddr, Instant)| {
            *known == network && now.saturating_duration_since(*since) < REMEMBERED
        };
        self.entries.iter().find(is_meant).map(|(_, address, _)| *address)
    }

    /// Remembers an address. One that worked all the time is remembered since the first: it, too, gives way in the end.
    pub(super) fn remember(&mut self, network: NetworkId, address: IpAddr, now: Instant) {
        if self.on(network, now) == Some(address) {
            return;
        }
        self.entries.retain(|(known, ..)| *known != network);
        if self.entries.len() >= MOST_NETWORKS {
            self.entries.remove(0);
        }
        self.entries.push((network, address, now));
    }

    /// Forgets that an address worked on a network.
    pub(super) fn forget(&mut self, network: NetworkId, address: IpAddr) {
        self.entries.retain(|(known, worked, _)| (*known, *worked) != (network, address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: NetworkId = NetworkId(1);
    const OFFICE: NetworkId = NetworkId(2);

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn what_worked_is_known_by_network() {
        let now = crate::clock::now();
        let mut worked = Worked::default();
        worked.remember(HOME, address(1), now);
        worked.remember(OFFICE, address(2), now);
        assert_eq!((worked.on(HOME, now), worked.on(OFFICE, now)), (Some(address(1)), Some(address(2))));
        worked.remember(HOME, address(3), now);
        assert_eq!(worked.on(HOME, now), Some(address(3)));
        worked.forget(HOME, address(1));
        assert_eq!(worked.on(HOME, now), Some(address(3)));
        worked.forget(HOME, address(3));
        assert_eq!((worked.on(HOME, now), worked.on(OFFICE, now)), (None, Some(address(2))));
    }

    #[test]
    fn after_a_day_all_addresses_have_their_chance_again() {
        let now = crate::clock::now();
        let mut worked = Worked::default();
        worked.remember(HOME, address(1), now);
        let later = now + REMEMBERED - Duration::from_secs(1);
        worked.remember(HOME, address(1), later);
        assert_eq!(worked.on(HOME, later), Some(address(1)));
        assert_eq!(worked.on(HOME, now + REMEMBERED), None);
    }

    #[test]
    fn few_networks_are_remembered() {
        let now = crate::clock::now();
        let mut worked = Worked::default();
        (0..100).for_each(|n| worked.remember(NetworkId(n), address(1), now));
        assert_eq!(worked.entries.len(), MOST_NETWORKS);
        assert_eq!((worked.on(NetworkId(0), now), worked.on(NetworkId(99), now)), (None, Some(address(1))));
    }
}
