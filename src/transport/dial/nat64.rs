//! Addresses of servers that have only IPv4, on a network that has only IPv6: a translator (NAT64) reaches them at a prefix of
//! its own, which [RFC 6052](https://www.rfc-editor.org/rfc/rfc6052) joins with the address, and which the addresses of
//! `ipv4only.arpa` give away ([RFC 7050](https://www.rfc-editor.org/rfc/rfc7050)). Pure. What is *not* here: who is asked for
//! them (`upstream::discovery`), and when they are tried (`dial`).
//!
//! A wrong prefix costs a failed dial and no more: whoever answers there has to show the server's certificate. So nothing is
//! checked beyond form (RFC 7050 §3.1 would have DNSSEC and a trusted domain for that), and only encrypted servers use it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The name whose AAAA records show prefixes (RFC 7050 §8.2).
pub const NAME: &str = "ipv4only.arpa";

/// Its IPv4 addresses, which everybody knows (RFC 7050 §8.2).
const KNOWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];

/// How long a prefix may be, in octets (RFC 6052 §2.2).
const LENGTHS: [usize; 6] = [4, 5, 6, 7, 8, 12];

/// Octet that is zero in every prefix and address: it was kept for the u bit of interface identifiers (RFC 6052 §2.2).
const RESERVED: usize = 8;

/// Prefixes taken from one answer: a network has one, or one for each of its translators.
const MOST: usize = 4;

/// Where a translator has the IPv4 Internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The prefix; zero after it.
    octets: [u8; 16],
    /// Octets of it.
    length: usize,
}

impl Prefix {
    /// The one that networks use unless they have a reason not to (RFC 6052 §2.1).
    pub const WELL_KNOWN: Self =
        Self { octets: [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], length: 12 };

    /// Returns where an IPv4 address is to be found. None for one that no translator leads to: it is of this machine or link,
    /// or a private one, which the well-known prefix must not carry (RFC 6052 §3.1).
    pub fn translate(self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        if is_near(address) || (self == Self::WELL_KNOWN && is_private(address)) {
            return None;
        }
        let mut octets = self.octets;
        for (place, octet) in places(self.length).zip(address.octets()) {
            *octets.get_mut(place)? = octet;
        }
        Some(octets.into())
    }

    /// Returns the prefix of this length of an address, if translators may have it.
    fn of(address: Ipv6Addr, length: usize) -> Option<Self> {
        let mut octets = address.octets();
        octets.get_mut(length..)?.fill(0);
        let is_routed = match Ipv6Addr::from(octets).segments() {
            // IPv4 written as IPv6 (RFC 4291 §2.5.5) stays on this machine.
            [0, 0, 0, 0, 0, 0 | 0xffff, ..] => false,
            [first, ..] => first & 0xffc0 != 0xfe80 && first & 0xff00 != 0xff00,
        };
        is_routed.then_some(Self { octets, length })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv6Addr::from(self.octets), self.length * 8)
    }
}

/// Returns the prefixes that addresses of [`NAME`] show, each once (RFC 7050 §3).
pub fn prefixes(addresses: &[Ipv6Addr]) -> Vec<Prefix> {
    let mut found = Vec::new();
    for prefix in addresses.iter().filter_map(|address| prefix_in(*address, addresses)) {
        if found.len() < MOST && !found.contains(&prefix) {
            found.push(prefix);
        }
    }
    found
}

/// Returns the prefix in one address. A known IPv4 address may stand in it more than once, by accident or in the prefix
/// itself; then the place counts at which the other known one stands in another of the addresses.
fn prefix_in(address: Ipv6Addr, addresses: &[Ipv6Addr]) -> Option<Prefix> {
    let fitting = || LENGTHS.into_iter().filter_map(move |length| Some((embedded(address, length)?, length)));
    let prefix = |(_, length)| Prefix::of(address, length);
    let mut all = fitting();
    let only = all.next()?;
    if all.next().is_none() {
        return prefix(only);
    }
    let is_paired = |(known, length): &(Ipv4Addr, usize)| {
        let other = |other: &Ipv6Addr| embedded(*other, *length).is_some_and(|found| found != *known);
        addresses
            .iter()
            .any(|another| other(another) && Prefix::of(*another, *length) == Prefix::of(address, *length))
    };
    let mut paired = fitting().filter(is_paired);
    let only = paired.next()?;
    if paired.next().is_none() { prefix(only) } else { None }
}

/// Returns the known IPv4 address that stands behind a prefix of this length.
fn embedded(address: Ipv6Addr, length: usize) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let mut v4 = [0; 4];
    for (place, octet) in places(length).zip(&mut v4) {
        *octet = *octets.get(place)?;
    }
    let is_reserved_zero = octets.get(RESERVED) == Some(&0);
    Some(Ipv4Addr::from(v4)).filter(|found| is_reserved_zero && KNOWN.contains(found))
}

/// Returns where the four octets of an IPv4 address stand behind a prefix: around the reserved one (RFC 6052 §2.2, figure 1).
fn places(length: usize) -> impl Iterator<Item = usize> {
    (length..).filter(|place| *place != RESERVED).take(4)
}

/// Returns true for an address of this machine or this link, or of many.
fn is_near(address: Ipv4Addr) -> bool {
    address.is_loopback()
        || address.is_unspecified()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
}

/// Returns true for an address of somebody's own network (RFC 1918), or of a provider's (RFC 6598).
fn is_private(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    address.is_private() || (first == 100 && second & 0xc0 == 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v6(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }
    fn shown(addresses: &[&str]) -> Vec<String> {
        let addresses: Vec<Ipv6Addr> = addresses.iter().map(|text| v6(text)).collect();
        prefixes(&addresses).iter().map(ToString::to_string).collect()
    }

    /// RFC 6052 §2.4, table 1; its prefixes, and the address 192.0.2.33.
    const TABLE: [(&str, usize, &str); 6] = [
        ("2001:db8::", 4, "2001:db8:c000:221::"),
        ("2001:db8:100::", 5, "2001:db8:1c0:2:21::"),
        ("2001:db8:122::", 6, "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::", 7, "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::", 8, "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::", 12, "2001:db8:122:344::192.0.2.33"),
    ];

    #[test]
    fn addresses_are_joined_as_in_the_table_of_rfc_6052() {
        for (prefix, length, expected) in TABLE {
            let prefix = Prefix { octets: v6(prefix).octets(), length };
            assert_eq!(prefix.translate([192, 0, 2, 33].into()), Some(v6(expected)), "{prefix}");
        }
        let well_known = Prefix::WELL_KNOWN.translate([192, 0, 2, 33].into());
        assert_eq!(well_known, Some(v6("64:ff9b::192.0.2.33")));
    }

    #[test]
    fn what_no_translator_leads_to_is_not_translated() {
        let own = Prefix { octets: v6("2001:db8::").octets(), length: 12 };
        for near in ["127.0.0.1", "0.0.0.0", "169.254.1.1", "224.0.0.1", "255.255.255.255"] {
            let near = near.parse().unwrap();
            assert_eq!((own.translate(near), Prefix::WELL_KNOWN.translate(near)), (None, None));
        }
        for private in ["10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1"] {
            let private = private.parse().unwrap();
            assert_eq!(Prefix::WELL_KNOWN.translate(private), None);
            assert!(own.translate(private).is_some(), "a network may translate to its own");
        }
    }

    #[test]
    fn a_prefix_of_every_length_is_found_in_the_addresses_of_the_name() {
        for (prefix, length, _) in TABLE {
            let prefix = Prefix { octets: v6(prefix).octets(), length };
            let both: Vec<Ipv6Addr> = KNOWN.iter().filter_map(|known| prefix.translate(*known)).collect();
            assert_eq!(prefixes(&both), [prefix]);
            assert_eq!(prefixes(&both[1..]), [prefix], "one of the two is enough");
        }
        assert_eq!(shown(&["64:ff9b::192.0.0.170", "64:ff9b::192.0.0.171"]), ["64:ff9b::/96"]);
        assert_eq!(shown(&["64:ff9b::c000:aa", "2001:db8::c000:aa"]), ["64:ff9b::/96", "2001:db8::/96"]);
    }

    #[test]
    fn addresses_without_a_known_one_show_nothing() {
        assert!(shown(&["2001:db8::1", "64:ff9b::192.0.0.172", "::1"]).is_empty());
        assert!(shown(&[]).is_empty());
        // The reserved octet is not zero: behind a prefix of 40 bits, and before one of 96.
        assert!(shown(&["2001:db8:1c0:0:10aa::", "2001:db8:0:0:100:0:c000:aa"]).is_empty());
    }

    #[test]
    fn prefixes_that_lead_nowhere_are_not_taken() {
        for nowhere in ["::ffff:192.0.0.170", "::192.0.0.170", "fe80::192.0.0.170", "ff0e::192.0.0.170"] {
            assert!(shown(&[nowhere]).is_empty(), "{nowhere}");
        }
    }

    #[test]
    fn an_address_that_fits_twice_counts_where_its_partner_fits_too() {
        // Behind 32 bits and behind 96 stands a known address.
        let (one, other) = ("2001:db8:c000:aa::192.0.0.170", "2001:db8:c000:aa::192.0.0.171");
        assert!(shown(&[one]).is_empty(), "which of the two is meant cannot be told");
        assert_eq!(shown(&[one, other]), ["2001:db8:c000:aa::/96"]);
    }

    #[test]
    fn a_long_list_gives_few_prefixes() {
        let many: Vec<Ipv6Addr> = (0..200u16).map(|n| v6(&format!("2001:db8:{n:x}::c000:aa"))).collect();
        assert_eq!(prefixes(&many).len(), MOST);
    }

    proptest! {
        #[test]
        fn whatever_is_shown_translates_the_known_addresses_to_themselves(
            octets in proptest::collection::vec(proptest::array::uniform16(any::<u8>()), 0..6),
            places in proptest::collection::vec((0..6usize, any::<bool>()), 0..6),
        ) {
            let mut addresses: Vec<Ipv6Addr> = octets.iter().map(|octets| (*octets).into()).collect();
            for (address, (length, second)) in addresses.iter_mut().zip(places) {
                let mut octets = address.octets();
                octets[RESERVED] = 0;
                let prefix = Prefix { octets, length: LENGTHS[length] };
                *address = prefix.translate(KNOWN[usize::from(second)]).unwrap();
            }
            for prefix in prefixes(&addresses) {
                let is_known = |address: &Ipv6Addr| {
                    Prefix::of(*address, prefix.length) == Some(prefix) && embedded(*address, prefix.length).is_some()
                };
                prop_assert!(addresses.iter().any(is_known));
            }
        }
    }
}
