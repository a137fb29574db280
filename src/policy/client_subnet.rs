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
pub enum SubnetRule {
    /// No option.
    Strip,
    /// Asks the server not to pass our network on (RFC 7871 §7.1.2).
    OptOut,
    /// The operator's network; the option is built once.
    Fixed(SubnetContent),
    /// The client's own option, if it sent a good one.
    Forward,
}

impl SubnetRule {
    /// Takes the setting.
    pub fn new(setting: ClientSubnet) -> Self {
        match setting {
            ClientSubnet::Strip => Self::Strip,
            ClientSubnet::OptOut => Self::OptOut,
            ClientSubnet::Fixed(net) => Self::Fixed(SubnetContent::of_network(net)),
            ClientSubnet::Forward => Self::Forward,
        }
    }

    /// Returns the option of a query that names this network, or none.
    pub fn option<'a>(&self, network: Option<&'a SubnetContent>) -> SubnetOption<'a> {
        match (network, self) {
            (Some(network), _) => SubnetOption::Content(network.as_ref()),
            (None, Self::OptOut) => SubnetOption::OptOut,
            (None, Self::Strip | Self::Fixed(_) | Self::Forward) => SubnetOption::Absent,
        }
    }

    /// Returns the operator's network, if each query names it.
    pub fn fixed(&self) -> Option<SubnetContent> {
        match self {
            Self::Fixed(content) => Some(*content),
            Self::Strip | Self::OptOut | Self::Forward => None,
        }
    }

    /// Returns what is passed on of the client's own option. The answer is for this client's network only.
    pub fn forwarded(&self, query: &QueryRef<'_>) -> Option<SubnetContent> {
        match self {
            Self::Strip | Self::OptOut | Self::Fixed(_) => None,
            Self::Forward => SubnetContent::of_client(query.edns()?.option(OPTION_ECS)?),
        }
    }

    /// Returns the client's own option, if something of it is passed on: it goes back in the reply (RFC 7871 §7.2.2).
    pub fn echoed<'a>(&self, query: &QueryRef<'a>) -> Option<&'a [u8]> {
        match self {
            Self::Strip | Self::OptOut | Self::Fixed(_) => None,
            Self::Forward => {
                let content = query.edns()?.option(OPTION_ECS)?;
                SubnetContent::of_client(content).map(|_| content)
            }
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
        let well_formed = source <= longest && scope == 0 && as_sent.as_ref() == content;
        well_formed.then(|| Self::new(family, source.min(kept), address))
    }

    /// True when an option of a response is about this network: the same family, source prefix and address (RFC 7871 §7.3). Who
    /// asked for none (source 0) may be told of any.
    pub fn is_echoed_by(&self, option: &[u8]) -> bool {
        let Some((&[family_high, family_low, source, _], address)) = self.as_ref().split_first_chunk() else {
            return false;
        };
        source == 0
            || option.split_first_chunk().is_some_and(|(head, rest): (&[u8; HEAD_LEN], _)| {
                head.starts_with(&[family_high, family_low, source]) && rest.starts_with(address)
            })
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

/// The octets on the wire.
impl AsRef<[u8]> for SubnetContent {
    fn as_ref(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{opt_record, query_octets_with};
    use super::*;
    use crate::wire::question::{Class, RecordType};
    use proptest::prelude::*;

    /// What a rule passes on when a client sends these octets as its option.
    fn passed_on(setting: ClientSubnet, client: Option<&[u8]>) -> Option<Vec<u8>> {
        let option = client.map(|content| (OPTION_ECS, content));
        let octets = query_octets_with("a.example", RecordType::A, Class::IN, &opt_record(option));
        let content = SubnetRule::new(setting).forwarded(&QueryRef::parse(&octets).unwrap());
        content.map(|content| content.as_ref().to_vec())
    }

    /// A client's option is forwarded as this.
    fn forwarded(client: &[u8]) -> Option<Vec<u8>> {
        passed_on(ClientSubnet::Forward, Some(client))
    }

    #[test]
    fn nothing_of_a_client_passes_unless_the_operator_says_forward() {
        let client = b"\x00\x01\x18\x00\xcb\x00\x71".as_slice();
        let fixed = ClientSubnet::Fixed("192.0.2.0/24".parse().unwrap());
        for setting in [ClientSubnet::Strip, ClientSubnet::OptOut, fixed] {
            assert_eq!(passed_on(setting, Some(client)), None);
        }
    }

    #[test]
    fn our_own_option_is_what_the_operator_set() {
        let own = |setting, expected| {
            let rule = SubnetRule::new(setting);
            assert_eq!(rule.option(rule.fixed().as_ref()), expected);
        };
        own(ClientSubnet::Strip, SubnetOption::Absent);
        own(ClientSubnet::Forward, SubnetOption::Absent);
        own(ClientSubnet::OptOut, SubnetOption::OptOut);
        let v4 = ClientSubnet::Fixed("192.0.2.77/23".parse().unwrap());
        own(v4, SubnetOption::Content(b"\x00\x01\x17\x00\xc0\x00\x02"));
        let v6 = ClientSubnet::Fixed("2001:db8::/32".parse().unwrap());
        own(v6, SubnetOption::Content(b"\x00\x02\x20\x00\x20\x01\x0d\xb8"));
    }

    #[test]
    fn a_well_formed_option_is_forwarded() {
        for client in
            [b"\x00\x01\x18\x00\xcb\x00\x71".as_slice(), b"\x00\x01\x14\x00\xcb\x00\x70", b"\x00\x02\x00\x00"]
        {
            assert_eq!(forwarded(client).as_deref(), Some(client));
        }
        assert_eq!(passed_on(ClientSubnet::Forward, None), None);
    }

    #[test]
    fn a_whole_address_is_cut_down_to_its_network() {
        assert_eq!(forwarded(b"\x00\x01\x20\x00\xcb\x00\x71\x09").unwrap(), b"\x00\x01\x18\x00\xcb\x00\x71");
        let v6 = [&[0, 2, 128, 0][..], &[0x20, 1, 0xd, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]].concat();
        assert_eq!(forwarded(&v6).unwrap(), b"\x00\x02\x38\x00\x20\x01\x0d\xb8\x01\x02\x03");
    }

    #[test]
    fn what_goes_back_is_the_client_s_option_in_full_if_anything_of_it_is_passed_on() {
        let echoed = |setting, client: &[u8]| {
            let opt = opt_record(Some((OPTION_ECS, client)));
            let octets = query_octets_with("a.example", RecordType::A, Class::IN, &opt);
            SubnetRule::new(setting).echoed(&QueryRef::parse(&octets).unwrap()).map(<[u8]>::to_vec)
        };
        let whole = b"\x00\x01\x20\x00\xcb\x00\x71\x09".as_slice();
        assert_eq!(echoed(ClientSubnet::Forward, whole).as_deref(), Some(whole));
        assert_eq!(echoed(ClientSubnet::Forward, b"\x00\x01\x20\x00\xcb\x00"), None);
        assert_eq!(echoed(ClientSubnet::Strip, whole), None);
    }

    #[test]
    fn an_option_of_a_response_is_about_our_network_or_another() {
        let ours = SubnetContent::of_client(b"\x00\x01\x18\x00\xcb\x00\x71").unwrap();
        for (option, expected) in [
            (b"\x00\x01\x18\x14\xcb\x00\x71".as_slice(), true),
            (b"\x00\x01\x18\x20\xcb\x00\x71", true),
            (b"\x00\x01\x18\x14\xcb\x00\x72", false),
            (b"\x00\x01\x14\x14\xcb\x00\x70", false),
            (b"\x00\x02\x18\x14\xcb\x00\x71", false),
            (b"\x00\x01\x18\x14\xcb\x00", false),
            (b"\x00\x01", false),
        ] {
            assert_eq!(ours.is_echoed_by(option), expected, "{option:?}");
        }
        let nobody = SubnetContent::of_client(b"\x00\x01\x00\x00").unwrap();
        assert!(nobody.is_echoed_by(b"\x00\x01\x18\x14\xcb\x00\x71"));
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
                prop_assert!(content.as_ref().len() <= HEAD_LEN + 7);
                prop_assert_eq!(SubnetContent::of_client(content.as_ref()), Some(content));
            }
        }
    }
}
