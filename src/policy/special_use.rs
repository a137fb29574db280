//! Names that no public server may be asked for: special-use names
//! ([RFC 6761](https://www.rfc-editor.org/rfc/rfc6761) and its followers) and the locally served zones of
//! [RFC 6303](https://www.rfc-editor.org/rfc/rfc6303). They are answered here, so that names of a home network and
//! of other naming systems stay private. What the operator routes to a group is the operator's, and passes; a type that the
//! route leaves out has no data.

use super::name_set::NameMap;
use super::{QueryRule, Verdict};
use crate::config::settings::RouteSpec;
use crate::wire::header::Rcode;
use crate::wire::name::Name;
use crate::wire::query::QueryRef;
use crate::wire::question::{QuestionRef, RecordType, Ttl};
use crate::wire::record::{LocalData, local_answer, local_negative};
use crate::wire::stored::StoredAnswer;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How long a client may keep an answer of this rule: these names never change, but the operator's routes may.
const LOCAL_TTL: Ttl = Ttl(3600);

/// Zones without any name below their apex.
const EMPTY_ZONES: &[&str] = &[
    // RFC 6761 §6.2, §6.4.
    "test",
    "invalid",
    // RFC 7686 §2: not for the DNS.
    "onion",
    // RFC 9476 §2: likewise.
    "alt",
    // RFC 6762 §22.1: multicast DNS alone knows them.
    "local",
    // Reserved by ICANN for private use (SAC113).
    "internal",
    // RFC 8375 §4.
    "home.arpa",
    // RFC 9665 §10.1: service registration, for the local network.
    "service.arpa",
    // RFC 6303 §4.1: private networks.
    "10.in-addr.arpa",
    "16.172.in-addr.arpa",
    "17.172.in-addr.arpa",
    "18.172.in-addr.arpa",
    "19.172.in-addr.arpa",
    "20.172.in-addr.arpa",
    "21.172.in-addr.arpa",
    "22.172.in-addr.arpa",
    "23.172.in-addr.arpa",
    "24.172.in-addr.arpa",
    "25.172.in-addr.arpa",
    "26.172.in-addr.arpa",
    "27.172.in-addr.arpa",
    "28.172.in-addr.arpa",
    "29.172.in-addr.arpa",
    "30.172.in-addr.arpa",
    "31.172.in-addr.arpa",
    "168.192.in-addr.arpa",
    // RFC 6303 §4.2: this network, link-local, documentation, broadcast.
    "0.in-addr.arpa",
    "254.169.in-addr.arpa",
    "2.0.192.in-addr.arpa",
    "100.51.198.in-addr.arpa",
    "113.0.203.in-addr.arpa",
    "255.255.255.255.in-addr.arpa",
    // RFC 6303 §4.3: the unspecified address.
    "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
    // RFC 6303 §4.4: unique local.
    "d.f.ip6.arpa",
    // RFC 6303 §4.5: link-local.
    "8.e.f.ip6.arpa",
    "9.e.f.ip6.arpa",
    "a.e.f.ip6.arpa",
    "b.e.f.ip6.arpa",
    // RFC 6303 §4.6: documentation.
    "8.b.d.0.1.0.0.2.ip6.arpa",
];

/// RFC 7793: the zones of the shared address space are `64.100.in-addr.arpa` to `127.100.in-addr.arpa`.
const SHARED_ADDRESS_SPACE: std::ops::RangeInclusive<u8> = 64..=127;

/// RFC 6761 §6.3.
const LOCALHOST: &str = "localhost";

/// RFC 9462 §6.4: without data, clients are not led past us to a server of somebody's choice.
const RESOLVER_ARPA: &str = "resolver.arpa";

/// Zones with a name for the loopback address in them (RFC 6303 §4.2, §4.3), and that name.
const LOOPBACK_ZONES: &[(&str, &str)] =
    &[("127.in-addr.arpa", "1.0.0.127.in-addr.arpa"), (LOOPBACK_V6, LOOPBACK_V6)];

/// The reverse name of `::1`, a zone of its own.
const LOOPBACK_V6: &str = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa";

/// The rule.
#[derive(Debug)]
pub(super) struct SpecialUse {
    /// What is answered here.
    zones: NameMap<Zone>,
    /// What the operator routes: the types of each suffix; an empty list is all of them.
    routed: NameMap<Vec<RecordType>>,
}

impl SpecialUse {
    /// Makes the rule. A route of the root takes no special name: it is about everything else.
    pub(super) fn new(routes: &[RouteSpec]) -> Self {
        let mut zones = NameMap::new();
        for (apex, content) in all_zones() {
            if let Ok(apex) = apex.parse::<Name>() {
                zones.insert(apex.clone(), Zone { apex, content });
            }
        }
        let mut routed: NameMap<Vec<RecordType>> = NameMap::new();
        for route in routes {
            for domain in route.domains.iter().filter(|domain| !domain.view().is_root()) {
                let types = match routed.insert(domain.clone(), Vec::new()) {
                    Some(known) if known.is_empty() || route.types.is_empty() => Vec::new(),
                    Some(known) => known.into_iter().chain(route.types.iter().copied()).collect(),
                    None => route.types.clone(),
                };
                routed.insert(domain.clone(), types);
            }
        }
        Self { zones, routed }
    }

    /// Answers a question within a zone.
    fn answer(zone: &Zone, question: &QuestionRef<'_>) -> StoredAnswer {
        let negative = |rcode| local_negative(question, rcode, zone.apex.view(), LOCAL_TTL);
        let positive = |data| local_answer(question, &[data], LOCAL_TTL);
        let at_apex = question.name.eq_ignore_case(zone.apex.view());
        match &zone.content {
            ZoneContent::Nothing if at_apex => negative(Rcode::NOERROR),
            ZoneContent::Nothing => negative(Rcode::NXDOMAIN),
            ZoneContent::NoData => negative(Rcode::NOERROR),
            ZoneContent::Localhost => match question.rtype {
                RecordType::A => positive(LocalData::Address(IpAddr::V4(Ipv4Addr::LOCALHOST))),
                RecordType::AAAA => positive(LocalData::Address(IpAddr::V6(Ipv6Addr::LOCALHOST))),
                _ => negative(Rcode::NOERROR),
            },
            ZoneContent::Pointer { owner, target } => {
                if owner.view().eq_ignore_case(question.name) && question.rtype == RecordType::PTR {
                    positive(LocalData::Ptr(target.clone()))
                } else if owner.view().is_within(question.name) {
                    negative(Rcode::NOERROR)
                } else {
                    negative(Rcode::NXDOMAIN)
                }
            }
        }
    }
}

impl QueryRule for SpecialUse {
    fn name(&self) -> &'static str {
        "special_use"
    }

    fn on_query(&self, query: &QueryRef<'_>) -> Verdict {
        let question = query.question();
        let Some(zone) = self.zones.matches(question.name) else { return Verdict::Pass };
        if zone.is_asked_of_its_parent(&question) {
            return Verdict::Pass;
        }
        let mut routes = self.routed.matches_all(question.name).peekable();
        if routes.peek().is_none() {
            return Verdict::Answer(Self::answer(zone, &question));
        }
        if routes.any(|types| types.is_empty() || types.contains(&question.rtype)) {
            return Verdict::Pass;
        }
        // The name may exist, but this type of it would go to servers that must not hear of it.
        Verdict::Answer(local_negative(&question, Rcode::NOERROR, zone.apex.view(), LOCAL_TTL))
    }
}

/// A zone that is served here.
#[derive(Debug)]
struct Zone {
    /// Its name.
    apex: Name,
    /// What is in it.
    content: ZoneContent,
}

/// What a zone holds besides its SOA.
#[derive(Debug)]
enum ZoneContent {
    /// Nothing: no name exists below the apex.
    Nothing,
    /// No record, whatever the name.
    NoData,
    /// The loopback addresses, at the apex and at every name below.
    Localhost,
    /// One pointer to localhost.
    Pointer {
        /// Where it stands.
        owner: Name,
        /// What it points to.
        target: Name,
    },
}

impl Zone {
    /// True for the DS of a zone under arpa: it stands in the parent, which is signed and proves that there is none.
    /// Validating clients need that proof (RFC 8375 §4), and the question gives nothing away. The top-level names do
    /// not exist in the root.
    fn is_asked_of_its_parent(&self, question: &QuestionRef<'_>) -> bool {
        question.rtype == RecordType::DS
            && self.apex.view().labels().nth(1).is_some()
            && question.name.eq_ignore_case(self.apex.view())
    }
}

/// Returns all zones by their names.
fn all_zones() -> impl Iterator<Item = (String, ZoneContent)> {
    let empty = EMPTY_ZONES.iter().map(|apex| ((*apex).to_owned(), ZoneContent::Nothing));
    let shared =
        SHARED_ADDRESS_SPACE.map(|octet| (format!("{octet}.100.in-addr.arpa"), ZoneContent::Nothing));
    let loopback = LOOPBACK_ZONES.iter().filter_map(|(apex, owner)| {
        let content = ZoneContent::Pointer { owner: owner.parse().ok()?, target: LOCALHOST.parse().ok()? };
        Some(((*apex).to_owned(), content))
    });
    let others =
        [(LOCALHOST.to_owned(), ZoneContent::Localhost), (RESOLVER_ARPA.to_owned(), ZoneContent::NoData)];
    empty.chain(shared).chain(loopback).chain(others)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answered, ask, query_octets, soa_owner};
    use super::*;
    use crate::wire::question::Class;

    /// A rule without routes.
    fn rule() -> SpecialUse {
        SpecialUse::new(&[])
    }

    /// A route of these domains and types.
    fn route(domains: &[&str], types: &[RecordType]) -> RouteSpec {
        let domains = domains.iter().map(|domain| domain.parse().unwrap()).collect();
        RouteSpec { domains, types: types.to_vec(), group: 1 }
    }

    /// A rule with one route.
    fn routed(domains: &[&str], types: &[RecordType]) -> SpecialUse {
        SpecialUse::new(&[route(domains, types)])
    }

    /// True when the rule has no opinion.
    fn passes(rule: &SpecialUse, name: &str, rtype: RecordType) -> bool {
        let octets = query_octets(name, rtype, Class::IN);
        matches!(rule.on_query(&QueryRef::parse(&octets).unwrap()), Verdict::Pass)
    }

    #[test]
    fn all_zones_are_served() {
        assert_eq!(rule().zones.len(), EMPTY_ZONES.len() + 64 + LOOPBACK_ZONES.len() + 2);
    }

    #[test]
    fn localhost_and_all_below_is_the_loopback_address() {
        for name in ["localhost", "LocalHost", "app.localhost"] {
            assert_eq!(
                answered(&ask(&rule(), name, RecordType::A)),
                (Rcode::NOERROR, vec![vec![127, 0, 0, 1]]),
                "{name}"
            );
            let v6 = Ipv6Addr::LOCALHOST.octets().to_vec();
            assert_eq!(answered(&ask(&rule(), name, RecordType::AAAA)), (Rcode::NOERROR, vec![v6]), "{name}");
            assert_eq!(answered(&ask(&rule(), name, RecordType::MX)), (Rcode::NOERROR, vec![]), "{name}");
        }
    }

    #[test]
    fn special_names_do_not_exist_and_say_so_with_an_soa() {
        let cases = [
            ("www.invalid", "invalid."),
            ("a.b.test", "test."),
            ("duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion", "onion."),
            ("printer.local", "local."),
            ("nas.home.arpa", "home.arpa."),
            ("x.service.arpa", "service.arpa."),
            ("db.internal", "internal."),
            ("gnu.alt", "alt."),
            ("5.1.168.192.in-addr.arpa", "168.192.in-addr.arpa."),
            ("1.2.31.172.in-addr.arpa", "31.172.in-addr.arpa."),
            ("9.9.99.100.in-addr.arpa", "99.100.in-addr.arpa."),
            ("2.0.0.127.in-addr.arpa", "127.in-addr.arpa."),
            ("1.d.f.ip6.arpa", "d.f.ip6.arpa."),
            ("1.8.b.d.0.1.0.0.2.IP6.ARPA", "8.b.d.0.1.0.0.2.ip6.arpa."),
        ];
        for (name, zone) in cases {
            let answer = ask(&rule(), name, RecordType::PTR);
            assert_eq!(answered(&answer), (Rcode::NXDOMAIN, vec![]), "{name}");
            assert_eq!(soa_owner(&answer), zone, "{name}");
        }
    }

    #[test]
    fn the_apex_of_a_zone_exists() {
        for name in ["home.arpa", "local", "10.in-addr.arpa"] {
            assert_eq!(answered(&ask(&rule(), name, RecordType::NS)), (Rcode::NOERROR, vec![]), "{name}");
        }
    }

    #[test]
    fn loopback_addresses_point_to_localhost() {
        for name in ["1.0.0.127.in-addr.arpa", LOOPBACK_V6] {
            let target = b"\x09localhost\x00".to_vec();
            assert_eq!(
                answered(&ask(&rule(), name, RecordType::PTR)),
                (Rcode::NOERROR, vec![target]),
                "{name}"
            );
            assert_eq!(answered(&ask(&rule(), name, RecordType::A)), (Rcode::NOERROR, vec![]), "{name}");
        }
        let between = ask(&rule(), "0.0.127.in-addr.arpa", RecordType::PTR);
        assert_eq!(answered(&between), (Rcode::NOERROR, vec![]));
    }

    #[test]
    fn resolver_arpa_names_no_other_resolver() {
        let answer = ask(&rule(), "_dns.resolver.arpa", RecordType::SVCB);
        assert_eq!(answered(&answer), (Rcode::NOERROR, vec![]));
        assert_eq!(soa_owner(&answer), "resolver.arpa.");
    }

    #[test]
    fn public_names_pass() {
        for name in [
            "example.com",
            "localhost.example",
            "mylocal",
            "arpa",
            "8.8.8.8.in-addr.arpa",
            "32.172.in-addr.arpa",
            "1.63.100.in-addr.arpa",
            "1.128.100.in-addr.arpa",
            "ipv4only.arpa",
            "use-application-dns.net",
            ".",
        ] {
            assert!(passes(&rule(), name, RecordType::A), "{name}");
        }
    }

    #[test]
    fn the_ds_of_an_arpa_zone_is_its_parents_to_deny() {
        assert!(passes(&rule(), "home.arpa", RecordType::DS));
        assert!(passes(&rule(), "10.in-addr.arpa", RecordType::DS));
        assert!(!passes(&rule(), "nas.home.arpa", RecordType::DS));
        assert!(!passes(&rule(), "local", RecordType::DS));
    }

    #[test]
    fn names_and_types_of_a_route_pass() {
        let rule = routed(&["corp.internal", "10.in-addr.arpa"], &[]);
        assert!(passes(&rule, "db.corp.internal", RecordType::MX));
        assert!(passes(&rule, "1.2.3.10.in-addr.arpa", RecordType::PTR));
        assert!(!passes(&rule, "db.internal", RecordType::A));
    }

    #[test]
    fn types_that_a_route_leaves_out_stay_here_and_deny_no_name() {
        // They would go to the default group, and with them a name of the home network to a public server.
        let rule = routed(&["corp.internal"], &[RecordType::A]);
        assert!(passes(&rule, "db.corp.internal", RecordType::A));
        let answer = ask(&rule, "db.corp.internal", RecordType::HTTPS);
        assert_eq!(answered(&answer), (Rcode::NOERROR, vec![]));
        // A shorter route that takes the type is asked, as `resolver::route` has it.
        let both = SpecialUse::new(&[route(&["corp.internal"], &[RecordType::A]), route(&["internal"], &[])]);
        assert!(passes(&both, "db.corp.internal", RecordType::HTTPS));
    }

    #[test]
    fn a_route_of_the_root_takes_no_special_name() {
        assert!(!passes(&routed(&["."], &[]), "printer.local", RecordType::A));
    }
}
