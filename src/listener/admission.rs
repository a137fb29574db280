//! Who may ask: the access list, and the prefix by which clients are told apart when they share a bound.
//! Places in flight are the resolver's matter.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The clients that are answered. Others get REFUSED with the reason (RFC 8914 §4.19).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessList {
    /// True when every loopback address is in `prefixes`: no need to look further for one.
    loopback: bool,
    /// The prefixes as configured; there are few, so a scan is the fastest look-up.
    prefixes: Box<[IpNet]>,
}

impl AccessList {
    /// Builds the list from the `[access] allow` prefixes.
    pub fn new(prefixes: &[IpNet]) -> Self {
        let covers = |address: IpNet| prefixes.iter().any(|prefix| prefix.contains(&address));
        let v4 = ipnet::Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
        let v6 = ipnet::Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);
        Self {
            loopback: covers(IpNet::V4(v4)) && covers(IpNet::V6(v6)),
            prefixes: prefixes.iter().copied().collect(),
        }
    }

    /// Tells whether `client` is answered. An IPv4-mapped IPv6 address counts as the IPv4 one.
    pub fn allows(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        if self.loopback && client.is_loopback() {
            return true;
        }
        self.prefixes.iter().any(|prefix| prefix.contains(&client))
    }
}

/// One client for the purpose of bounds: an IPv4 address, or an IPv6 /56, which is what one household gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClientPrefix(IpAddr);

impl ClientPrefix {
    /// Returns the prefix that `client` belongs to.
    pub(super) fn of(client: IpAddr) -> Self {
        /// The upper 56 bits.
        const MASK: u128 = u128::MAX << (128 - 56);
        match client.to_canonical() {
            IpAddr::V4(address) => Self(IpAddr::V4(address)),
            IpAddr::V6(address) => Self(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & MASK))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a list from text.
    fn list(prefixes: &[&str]) -> AccessList {
        AccessList::new(&prefixes.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn only_listed_prefixes_are_allowed() {
        let list = list(&["127.0.0.0/8", "::1/128", "192.168.0.0/16", "fd00::/8"]);
        let cases = [
            ("127.0.0.1", true),
            ("127.255.0.9", true),
            ("::1", true),
            ("192.168.3.4", true),
            ("192.169.0.0", false),
            ("fd12::1", true),
            ("fe80::1", false),
            ("8.8.8.8", false),
        ];
        for (client, expected) in cases {
            assert_eq!(list.allows(client.parse().unwrap()), expected, "{client}");
        }
    }

    #[test]
    fn mapped_address_counts_as_the_ipv4_one() {
        let list = list(&["192.0.2.0/24"]);
        assert!(list.allows("::ffff:192.0.2.7".parse().unwrap()));
        assert!(!list.allows("::ffff:198.51.100.7".parse().unwrap()));
    }

    #[test]
    fn loopback_is_not_let_in_by_the_short_cut_when_it_is_not_listed_whole() {
        let list = list(&["127.0.0.1/32"]);
        assert!(list.allows("127.0.0.1".parse().unwrap()));
        assert!(!list.allows("127.0.0.2".parse().unwrap()));
        assert!(!list.allows("::1".parse().unwrap()));
    }

    #[test]
    fn empty_list_allows_nobody() {
        assert!(!list(&[]).allows("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn clients_of_one_household_share_a_prefix() {
        let prefix = |text: &str| ClientPrefix::of(text.parse().unwrap());
        assert_eq!(prefix("2001:db8:0:11ff::1"), prefix("2001:db8:0:1100:ffff::"));
        assert_ne!(prefix("2001:db8:0:1100::1"), prefix("2001:db8:0:1200::1"));
        assert_ne!(prefix("192.0.2.1"), prefix("192.0.2.2"));
        assert_eq!(prefix("::ffff:192.0.2.1"), prefix("192.0.2.1"));
    }
}
