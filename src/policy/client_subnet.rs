//! The client's network in a query of ours ([RFC 7871](https://www.rfc-editor.org/rfc/rfc7871)): from the setting
//! and the client's own option to the option we send. It sees the query alone: the client's address is not known
//! here, so it cannot get into an option.

use crate::config::settings::ClientSubnet;
use crate::wire::edns::OPTION_ECS;
use crate::wire::query::{QueryRef, SubnetOption};
use ipnet::IpNet;
use std::net::IpAddr;

/// Octets of an option before its address: family, SOURCE and SCOPE PREFIX-LENGTH (RFC 7871 §6).
const HEAD_LEN: usize = 4;
/// Octets of the longest option: an IPv6 address in full.
const MAX_LEN: usize = HEAD_LEN + 16;
/// Address family numbers (RFC 7871 §6).
const FAMILY_V4: u16 = 1;
/// See [`FAMILY_V4`].
const FAMILY_V6: u16 = 2;

/// What the operator wants to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum SubnetPolicy {
    /// The same for every query.
    Always(Subnet),
    /// The client's own option.
    Forward,
}

impl SubnetPolicy {
    /// Takes the setting; the option of a fixed network is built once, here.
    pub(super) fn new(setting: ClientSubnet) -> Self {
        match setting {
            ClientSubnet::Strip => Self::Always(Subnet::Absent),
            ClientSubnet::OptOut => Self::Always(Subnet::OptOut),
            ClientSubnet::Fixed(net) => Self::Always(Subnet::Content(SubnetContent::of_network(net))),
            ClientSubnet::Forward => Self::Forward,
        }
    }

    /// Returns what goes into our query for this one.
    pub(super) fn subnet(&self, query: &QueryRef<'_>) -> Subnet {
        match self {
            Self::Always(subnet) => *subnet,
            Self::Forward => query
                .edns()
                .and_then(|edns| edns.option(OPTION_ECS))
                .and_then(SubnetContent::of_client)
                .map_or(Subnet::Absent, Subnet::Content),
        }
    }
}

/// The ECS option of one query of ours, owned: it outlives the client's query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Subnet {
    /// No option.
    #[default]
    Absent,
    /// Asks the server not to pass our network on (RFC 7871 §7.1.2).
    OptOut,
    /// This network.
    Content(SubnetContent),
}

impl Subnet {
    /// Returns it as a part of the query to build.
    pub fn as_option(&self) -> SubnetOption<'_> {
        match self {
            Self::Absent => SubnetOption::Absent,
            Self::OptOut => SubnetOption::OptOut,
            Self::Content(content) => SubnetOption::Content(content.as_bytes()),
        }
    }
}

/// The octets of an option, well formed: scope 0, no octet and no bit more than the source prefix has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubnetContent {
    /// The option, then zeros.
    octets: [u8; MAX_LEN],
    /// How many octets the option has.
    len: usize,
}

impl SubnetContent {
    /// Returns the octets on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }

    /// Writes the operator's network.
    fn of_network(net: IpNet) -> Self {
        match net.trunc().addr() {
            IpAddr::V4(address) => Self::new(FAMILY_V4, net.prefix_len(), &address.octets()),
            IpAddr::V6(address) => Self::new(FAMILY_V6, net.prefix_len(), &address.octets()),
        }
    }

    /// Takes over what a client sent, cut down to 24 bits of IPv4 or 56 of IPv6 (RFC 7871 §11.1); None when it is
    /// malformed: an unknown family, a scope, octets too many or few, bits behind the prefix (§6).
    fn of_client(content: &[u8]) -> Option<Self> {
        let (&[family_high, family_low, source, scope], address) = content.split_first_chunk()?;
        let family = u16::from_be_bytes([family_high, family_low]);
        let (longest, kept) = match family {
            FAMILY_V4 => (32, 24),
            FAMILY_V6 => (128, 56),
            _ => return None,
        };
        let as_sent = Self::new(family, source, address);
        let well_formed = source <= longest && scope == 0 && as_sent.as_bytes() == content;
        well_formed.then(|| Self::new(family, source.min(kept), address))
    }

    /// Writes family, prefix length and as much of `address` as the prefix has.
    fn new(family: u16, prefix_len: u8, address: &[u8]) -> Self {
        let [family_high, family_low] = family.to_be_bytes();
        let mut octets = [0; MAX_LEN];
        octets
            .iter_mut()
            .zip([family_high, family_low, prefix_len, 0])
            .for_each(|(octet, value)| *octet = value);
        let address_len = usize::from(prefix_len).div_ceil(8);
        for (index, (octet, value)) in
            octets.iter_mut().skip(HEAD_LEN).zip(address).take(address_len).enumerate()
        {
            let bits = usize::from(prefix_len) - 8 * index;
            *octet = if bits < 8 { value & !(0xff_u8 >> bits) } else { *value };
        }
        Self { octets, len: MAX_LEN.min(HEAD_LEN + address_len) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{opt_record, query_octets_with};
    use super::*;
    use crate::wire::question::{Class, RecordType};
    use proptest::prelude::*;

    /// What our query has when a client sends these octets as its option.
    fn sent(setting: ClientSubnet, client: Option<&[u8]>) -> Subnet {
        let option = client.map(|content| (OPTION_ECS, content));
        let octets = query_octets_with("a.example", RecordType::A, Class::IN, &opt_record(option));
        SubnetPolicy::new(setting).subnet(&QueryRef::parse(&octets).unwrap())
    }

    /// A client's option is forwarded as this.
    fn forwarded(client: &[u8]) -> Option<Vec<u8>> {
        match sent(ClientSubnet::Forward, Some(client)) {
            Subnet::Content(content) => Some(content.as_bytes().to_vec()),
            Subnet::Absent | Subnet::OptOut => None,
        }
    }

    #[test]
    fn strip_opt_out_and_a_fixed_network_take_nothing_from_the_client() {
        let client = b"\x00\x01\x18\x00\xcb\x00\x71".as_slice();
        assert_eq!(sent(ClientSubnet::Strip, Some(client)).as_option(), SubnetOption::Absent);
        assert_eq!(sent(ClientSubnet::OptOut, Some(client)).as_option(), SubnetOption::OptOut);
        let fixed = sent(ClientSubnet::Fixed("192.0.2.77/23".parse().unwrap()), Some(client));
        assert_eq!(fixed.as_option(), SubnetOption::Content(b"\x00\x01\x17\x00\xc0\x00\x02"));
        let fixed = sent(ClientSubnet::Fixed("2001:db8::/32".parse().unwrap()), None);
        assert_eq!(fixed.as_option(), SubnetOption::Content(b"\x00\x02\x20\x00\x20\x01\x0d\xb8"));
    }

    #[test]
    fn a_well_formed_option_is_forwarded() {
        for client in
            [b"\x00\x01\x18\x00\xcb\x00\x71".as_slice(), b"\x00\x01\x14\x00\xcb\x00\x70", b"\x00\x02\x00\x00"]
        {
            assert_eq!(forwarded(client).as_deref(), Some(client));
        }
        assert_eq!(sent(ClientSubnet::Forward, None), Subnet::Absent);
    }

    #[test]
    fn a_whole_address_is_cut_down_to_its_network() {
        assert_eq!(forwarded(b"\x00\x01\x20\x00\xcb\x00\x71\x09").unwrap(), b"\x00\x01\x18\x00\xcb\x00\x71");
        let v6 = [&[0, 2, 128, 0][..], &[0x20, 1, 0xd, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]].concat();
        assert_eq!(forwarded(&v6).unwrap(), b"\x00\x02\x38\x00\x20\x01\x0d\xb8\x01\x02\x03");
    }

    #[test]
    fn a_malformed_option_is_left_out() {
        let cases = [
            ("empty", b"".as_slice()),
            ("no prefix lengths", b"\x00\x01"),
            ("unknown family", b"\x00\x03\x08\x00\x0a"),
            ("longer prefix than an address", b"\x00\x01\x21\x00\xcb\x00\x71\x09\x00"),
            ("a scope", b"\x00\x01\x18\x18\xcb\x00\x71"),
            ("an octet too many", b"\x00\x01\x18\x00\xcb\x00\x71\x00"),
            ("an octet too few", b"\x00\x01\x18\x00\xcb\x00"),
            ("bits behind the prefix", b"\x00\x01\x14\x00\xcb\x00\x71"),
        ];
        for (what, client) in cases {
            assert_eq!(forwarded(client), None, "{what}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_panic_and_none_longer_than_a_network_get_through(
            client in prop::collection::vec(any::<u8>(), 0..40)
        ) {
            if let Some(content) = SubnetContent::of_client(&client) {
                prop_assert!(content.as_bytes().len() <= HEAD_LEN + 7);
                prop_assert_eq!(SubnetContent::of_client(content.as_bytes()), Some(content));
            }
        }
    }
}
