//! Protection against DNS rebinding: a public name whose answer points into the home network lets a web page of
//! somebody else speak to the router. Such answers are replaced by REFUSED with EDE 15, not by NXDOMAIN: that would be
//! a lie, and one that clients keep.
//!
//! An unspecified address (0.0.0.0, ::) is what filtering servers say for a blocked name. It reaches the host itself, so it
//! does not pass either; but the name is blocked on purpose, and clients that are refused would ask again. They get an
//! empty answer.
//!
//! The question's name decides, so an alias does not lead around it. Names that the operator allows, and those routed
//! to a group of the operator's own, may have any address. Blocking public addresses is not done here.

use super::name_set::NameMap;
use super::{AnswerFrom, AnswerRule, Verdict};
use crate::config::settings::RebindingSettings;
use crate::wire::ede::{Ede, EdeCode};
use crate::wire::header::Rcode;
use crate::wire::name::NameRef;
use crate::wire::question::{QuestionRef, RecordType};
use crate::wire::response::{RecordRef, ResponseRef, Section};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The rule.
#[derive(Debug)]
pub(super) struct Rebinding {
    /// Suffixes that may have any address.
    allow: NameMap<()>,
}

impl Rebinding {
    /// Makes the rule; None when the operator has turned it off.
    pub(super) fn new(settings: &RebindingSettings) -> Option<Self> {
        let mut allow = NameMap::new();
        for suffix in &settings.allow {
            allow.insert(suffix.clone(), ());
        }
        settings.protect.then_some(Self { allow })
    }
}

impl AnswerRule for Rebinding {
    fn name(&self) -> &'static str {
        "rebinding"
    }

    fn on_answer(&self, question: &QuestionRef<'_>, answer: &ResponseRef<'_>, from: AnswerFrom) -> Verdict {
        match from {
            AnswerFrom::OwnGroup => return Verdict::Pass,
            AnswerFrom::Public => {}
        }
        // The additional section never reaches a client.
        let mut records = answer.records(Section::Answer).chain(answer.records(Section::Authority));
        let Some(first) = records.find_map(|record| objection(&record)) else { return Verdict::Pass };
        if self.allow.matches(question.name).is_some() {
            return Verdict::Pass;
        }
        let other = std::iter::once(first)
            .chain(records.filter_map(|record| objection(&record)))
            .find(|reason| *reason != UNSPECIFIED);
        match other {
            Some(reason) => Verdict::Refuse(Rcode::REFUSED, Ede::new(EdeCode::BLOCKED, reason)),
            None => Verdict::Refuse(Rcode::NOERROR, Ede::new(EdeCode::BLOCKED, UNSPECIFIED)),
        }
    }
}

/// What is said of 0.0.0.0 and ::.
const UNSPECIFIED: &str = "blocked by the server: unspecified address";

/// Returns what is wrong with a record of a public name.
fn objection(record: &RecordRef<'_>) -> Option<&'static str> {
    match record.rtype {
        RecordType::A => <[u8; 4]>::try_from(record.rdata).ok().and_then(objection_v4),
        RecordType::AAAA => <[u8; 16]>::try_from(record.rdata).ok().and_then(objection_v6),
        RecordType::SVCB | RecordType::HTTPS => objection_to_service(record.rdata),
        _ => None,
    }
}

/// Judges an IPv4 address.
fn objection_v4(octets: [u8; 4]) -> Option<&'static str> {
    let address = Ipv4Addr::from(octets);
    match octets {
        [0, 0, 0, 0] => Some(UNSPECIFIED),
        [0, ..] => Some("rebinding protection: address of this host (0.0.0.0/8)"),
        [100, 64..=127, ..] => Some("rebinding protection: shared address (100.64.0.0/10)"),
        _ if address.is_private() => Some("rebinding protection: private address"),
        _ if address.is_loopback() => Some("rebinding protection: loopback address"),
        _ if address.is_link_local() => Some("rebinding protection: link-local address"),
        _ => None,
    }
}

/// Judges an IPv6 address, and the IPv4 address that it may carry.
fn objection_v6(octets: [u8; 16]) -> Option<&'static str> {
    let address = Ipv6Addr::from(octets);
    match octets {
        _ if address.is_unspecified() => Some(UNSPECIFIED),
        _ if address.is_loopback() => Some("rebinding protection: loopback address"),
        _ if address.is_unique_local() => Some("rebinding protection: unique local address"),
        _ if address.is_unicast_link_local() => Some("rebinding protection: link-local address"),
        // RFC 3879 §4: deprecated, but no address of the public Internet.
        [0xfe, 0xc0..=0xff, ..] => Some("rebinding protection: site-local address"),
        _ => embedded_v4(octets).and_then(objection_v4),
    }
}

/// Returns the IPv4 address in one that is v4-mapped or v4-compatible (RFC 4291 §2.5.5) or made by NAT64 with the
/// well-known prefix (RFC 6052 §2.1).
fn embedded_v4(octets: [u8; 16]) -> Option<[u8; 4]> {
    let (prefix, v4) = octets.split_last_chunk()?;
    match prefix {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
        | [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        | [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0] => Some(*v4),
        _ => None,
    }
}

/// SvcParamKeys of address hints (RFC 9460 §14.3.2).
const KEY_IPV4HINT: u16 = 4;
/// See [`KEY_IPV4HINT`].
const KEY_IPV6HINT: u16 = 6;

/// Judges the hints of a service binding (RFC 9460 §2.2). One that cannot be read is not let through: a client might
/// read it otherwise, and has the address records besides.
fn objection_to_service(rdata: &[u8]) -> Option<&'static str> {
    const UNREADABLE: Option<&str> = Some("rebinding protection: malformed service binding");
    let Some(mut params) = service_params(rdata) else { return UNREADABLE };
    while !params.is_empty() {
        let Some((key, value, rest)) = split_param(params) else { return UNREADABLE };
        let objection = match key {
            KEY_IPV4HINT => value.as_chunks().0.iter().find_map(|address| objection_v4(*address)),
            KEY_IPV6HINT => value.as_chunks().0.iter().find_map(|address| objection_v6(*address)),
            _ => None,
        };
        if objection.is_some() {
            return objection;
        }
        params = rest;
    }
    None
}

/// Steps over SvcPriority and TargetName, which is never compressed (RFC 9460 §2.2).
fn service_params(rdata: &[u8]) -> Option<&[u8]> {
    let target_on = rdata.get(size_of::<u16>()..)?;
    target_on.get(NameRef::parse(target_on)?.as_bytes().len()..)
}

/// Cuts the first SvcParam off: its key, its value, and what follows.
fn split_param(params: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (&[key_high, key_low, len_high, len_low], rest) = params.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([len_high, len_low])))?;
    Some((u16::from_be_bytes([key_high, key_low]), value, rest))
}

#[cfg(test)]
mod tests {
    use super::super::tests::response_octets;
    use super::*;
    use crate::wire::name::Name;
    use proptest::prelude::*;

    /// What is said about a response with these records, all at an alias of the name asked for.
    fn verdict(name: &str, allow: &[&str], records: &[(RecordType, &[u8])], from: AnswerFrom) -> Verdict {
        let allow = allow.iter().map(|suffix| suffix.parse::<Name>().unwrap()).collect();
        let rule = Rebinding::new(&RebindingSettings { protect: true, allow }).unwrap();
        let octets = response_octets(name, RecordType::A, records);
        let response = ResponseRef::parse(&octets).unwrap();
        rule.on_answer(&response.question(), &response, from)
    }

    /// The reason why a public name may not have this record.
    fn reason(rtype: RecordType, rdata: &[u8]) -> Option<String> {
        match verdict("www.example", &[], &[(rtype, rdata)], AnswerFrom::Public) {
            Verdict::Refuse(Rcode::REFUSED, ede) => {
                assert_eq!(ede.code, EdeCode::BLOCKED);
                Some(ede.text.into_owned())
            }
            Verdict::Pass => None,
            verdict @ (Verdict::Accept | Verdict::Answer(_) | Verdict::Refuse(..) | Verdict::Drop) => {
                panic!("{verdict:?}")
            }
        }
    }

    /// True when the address is kept from clients.
    fn is_refused(address: &str) -> bool {
        match address.parse().unwrap() {
            std::net::IpAddr::V4(v4) => reason(RecordType::A, &v4.octets()).is_some(),
            std::net::IpAddr::V6(v6) => reason(RecordType::AAAA, &v6.octets()).is_some(),
        }
    }

    #[test]
    fn addresses_of_the_inside_are_refused() {
        for address in [
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.8.9.10",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::192.168.1.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::7f00:1",
        ] {
            assert!(is_refused(address), "{address}");
        }
    }

    #[test]
    fn a_name_that_its_server_blocks_gets_an_empty_answer_and_not_a_refusal() {
        let unspecified: &[(RecordType, &[u8])] = &[(RecordType::A, &[0; 4]), (RecordType::AAAA, &[0; 16])];
        let blocked = verdict("ads.example", &[], unspecified, AnswerFrom::Public);
        assert!(matches!(blocked, Verdict::Refuse(Rcode::NOERROR, ede) if ede.text == UNSPECIFIED));
        let with_private: &[(RecordType, &[u8])] = &[(RecordType::A, &[0; 4]), (RecordType::A, &[10; 4])];
        let refused = verdict("ads.example", &[], with_private, AnswerFrom::Public);
        assert!(matches!(refused, Verdict::Refuse(Rcode::REFUSED, _)));
    }

    #[test]
    fn public_addresses_pass() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "128.0.0.1",
            "169.253.0.1",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.1.1",
            "192.0.0.170",
            "224.0.0.1",
            "255.255.255.255",
            "2001:db8::1",
            "fbff::1",
            "fe00::1",
            "::ffff:1.1.1.1",
            "64:ff9b::8.8.8.8",
            "64:ff9b:1::a00:1",
        ] {
            assert!(!is_refused(address), "{address}");
        }
    }

    #[test]
    fn the_reason_names_the_kind_of_address() {
        assert_eq!(
            reason(RecordType::A, &[192, 168, 0, 1]).as_deref(),
            Some("rebinding protection: private address")
        );
    }

    #[test]
    fn one_bad_address_among_good_ones_is_enough() {
        let records: &[(RecordType, &[u8])] = &[
            (RecordType::CNAME, b"\x01x\x07example\x00"),
            (RecordType::A, &[1; 4]),
            (RecordType::A, &[10; 4]),
        ];
        assert!(matches!(verdict("a.example", &[], records, AnswerFrom::Public), Verdict::Refuse(..)));
    }

    #[test]
    fn hints_of_service_bindings_are_addresses_too() {
        let v4 = b"\x00\x01\x00\x00\x01\x00\x03\x02h2\x00\x04\x00\x08\x01\x01\x01\x01\x0a\x00\x00\x01";
        let v6 = b"\x00\x01\x01t\x00\x00\x06\x00\x10\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x01";
        let good = b"\x00\x01\x00\x00\x01\x00\x03\x02h2\x00\x04\x00\x04\x01\x01\x01\x01";
        for rtype in [RecordType::SVCB, RecordType::HTTPS] {
            assert_eq!(reason(rtype, v4).as_deref(), Some("rebinding protection: private address"));
            assert_eq!(reason(rtype, v6).as_deref(), Some("rebinding protection: link-local address"));
            assert_eq!(reason(rtype, good), None);
            assert_eq!(reason(rtype, b"\x00\x00\x03www\x00"), None);
        }
    }

    #[test]
    fn a_service_binding_that_cannot_be_read_is_refused() {
        for rdata in
            [b"".as_slice(), b"\x00\x01", b"\x00\x01\x00\x00\x04", b"\x00\x01\x00\x00\x04\x00\x04\x01"]
        {
            assert!(reason(RecordType::HTTPS, rdata).is_some(), "{rdata:?}");
        }
    }

    #[test]
    fn allowed_names_and_groups_of_the_operators_own_may_point_inside() {
        let private: &[(RecordType, &[u8])] = &[(RecordType::A, &[10, 0, 0, 1])];
        let pass = |name, allow: &[&str], from| matches!(verdict(name, allow, private, from), Verdict::Pass);
        assert!(pass("x.plex.direct", &["plex.direct"], AnswerFrom::Public));
        assert!(!pass("xplex.direct", &["plex.direct"], AnswerFrom::Public));
        assert!(pass("db.corp.example", &[], AnswerFrom::OwnGroup));
    }

    #[test]
    fn protection_can_be_turned_off() {
        assert!(Rebinding::new(&RebindingSettings { protect: false, allow: vec![] }).is_none());
    }

    proptest! {
        #[test]
        fn no_rdata_panics_the_rule(rdata in prop::collection::vec(any::<u8>(), 0..80)) {
            for rtype in [RecordType::A, RecordType::AAAA, RecordType::HTTPS] {
                reason(rtype, &rdata);
            }
        }

        #[test]
        fn a_mapped_address_is_judged_like_its_ipv4_address(octets in any::<[u8; 4]>()) {
            let mapped = Ipv4Addr::from(octets).to_ipv6_mapped().octets();
            prop_assert_eq!(objection_v6(mapped), objection_v4(octets));
        }
    }
}
