//! What matters of a network: global and private addresses, and default routes. Two equal outlooks are the same network, as
//! far as anybody can tell. What is *not* here: how a system is asked (`netlink`).
//!
//! Left out, because connections live through their changes: loopback and link-local addresses (a container that starts
//! brings an interface with one), the host part of IPv6 addresses (temporary ones come and go, RFC 8981), other routes.

use crate::transport::dial::network::NetworkId;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The prefix of most IPv4 networks.
const NETWORK_OF_V4: u32 = !0 << 8;

/// The prefix of an IPv6 network.
const NETWORK_OF_V6: u128 = !0 << 64;

/// RTF_UP of Linux: the route is usable.
const ROUTE_IS_UP: u32 = 1;

/// RTF_REJECT of Linux: the route leads nowhere, on purpose.
const ROUTE_REJECTS: u32 = 0x200;

/// A network as seen from here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Own addresses; of IPv6 the network's half.
    addresses: BTreeSet<IpAddr>,
    /// Gateways and interfaces of default routes.
    routes: BTreeSet<(String, String)>,
}

impl Outlook {
    /// Adds an address of an interface, if it matters.
    pub fn add_address(&mut self, address: IpAddr) {
        let matters = match address {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
        };
        if matters {
            self.addresses.insert(match address {
                IpAddr::V4(_) => address,
                IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & NETWORK_OF_V6)),
            });
        }
    }

    /// Returns what the network is known by: the routers, and of own addresses the network's part, for another visit may bring
    /// another address. Networks that look alike share one, which costs a wrong first guess at worst.
    pub fn network(&self) -> NetworkId {
        let mut hasher = DefaultHasher::new();
        self.routes.hash(&mut hasher);
        let part = |address: &IpAddr| match address {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & NETWORK_OF_V4)),
            IpAddr::V6(_) => *address,
        };
        self.addresses.iter().map(part).collect::<BTreeSet<_>>().hash(&mut hasher);
        NetworkId(hasher.finish())
    }

    /// Adds the default routes of a table in the form of Linux's `/proc/net/route`.
    pub fn add_routes_v4(&mut self, table: &str) {
        for line in table.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [interface, _destination, gateway, flags, _, _, _, mask, ..] = fields.as_slice() else {
                continue;
            };
            let (Some(mask), Some(flags), Some(gateway)) = (hex(mask), hex(flags), hex(gateway)) else {
                continue;
            };
            // Some VPNs write the default route as two halves. The table's words are in the machine's order.
            let length = mask.count_ones();
            if length <= 1 && flags & ROUTE_IS_UP != 0 && flags & ROUTE_REJECTS == 0 {
                let gateway = Ipv4Addr::from(gateway.to_ne_bytes());
                self.routes.insert((gateway.to_string(), (*interface).to_owned()));
            }
        }
    }

    /// Adds the default routes of a table in the form of Linux's `/proc/net/ipv6_route`.
    pub fn add_routes_v6(&mut self, table: &str) {
        for line in table.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, length, _, _, gateway, _, _, _, flags, interface] = fields.as_slice() else { continue };
            let (Some(length), Some(flags)) = (hex(length), hex(flags)) else { continue };
            if length <= 1 && flags & ROUTE_IS_UP != 0 && flags & ROUTE_REJECTS == 0 {
                self.routes.insert(((*gateway).to_owned(), (*interface).to_owned()));
            }
        }
    }
}

/// Reads a hexadecimal number.
fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
tun0\t00000080\t0100000A\t0003\t0\t0\t0\t00000080\t0\t0\t0
eth1\t00000000\t010300C0\t0002\t0\t0\t0\t00000000\t0\t0\t0
short line
";
    const ROUTES_V6: &str = "\
20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000003 00000007 00450003 eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200 lo
";

    fn of(addresses: &[&str]) -> Outlook {
        let mut outlook = Outlook::default();
        addresses.iter().for_each(|address| outlook.add_address(address.parse().unwrap()));
        outlook
    }

    #[test]
    fn addresses_that_reach_nowhere_do_not_matter() {
        assert_eq!(of(&["127.0.0.1", "::1", "169.254.7.7", "fe80::1", "0.0.0.0"]), Outlook::default());
        assert_ne!(of(&["10.0.0.2"]), of(&["10.0.0.3"]));
    }

    #[test]
    fn a_new_temporary_address_in_the_same_network_changes_nothing() {
        let before = of(&["2001:db8:0:1::1"]);
        assert_eq!(of(&["2001:db8:0:1::1", "2001:db8:0:1:1234::9"]), before);
        assert_ne!(of(&["2001:db8:0:2::1"]), before);
    }

    #[test]
    fn a_network_is_known_again_by_its_router_and_its_part_of_the_address() {
        let mut home = of(&["192.0.2.7", "2001:db8:0:1::7"]);
        let other_lease = of(&["192.0.2.99", "2001:db8:0:1::99"]);
        assert_eq!(home.network(), other_lease.network());
        assert_ne!(home.network(), of(&["198.51.100.7", "2001:db8:0:1::7"]).network());
        assert_ne!(home.network(), of(&["192.0.2.7", "2001:db8:0:2::7"]).network());
        home.add_routes_v4(ROUTES);
        assert_ne!(home.network(), other_lease.network());
    }

    #[test]
    fn default_routes_are_found_and_others_are_not() {
        let mut outlook = Outlook::default();
        outlook.add_routes_v4(ROUTES);
        let expected = if cfg!(target_endian = "little") {
            vec![("10.0.0.1", "tun0"), ("192.0.2.1", "eth0")]
        } else {
            vec![("1.0.0.10", "tun0"), ("1.2.0.192", "eth0")]
        };
        let found: Vec<_> = outlook.routes.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(found, expected);
        let mut outlook = Outlook::default();
        outlook.add_routes_v6(ROUTES_V6);
        assert_eq!(outlook.routes.len(), 1);
    }

    #[test]
    fn counters_in_the_tables_do_not_matter() {
        let mut before = Outlook::default();
        before.add_routes_v6(ROUTES_V6);
        let mut after = Outlook::default();
        after.add_routes_v6(&ROUTES_V6.replace("00000003 00000007", "00000009 00000099"));
        assert_eq!(before, after);
    }
}
