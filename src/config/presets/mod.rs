//! Public resolvers by name, so that `upstreams = ["quad9"]` is a whole configuration: names, fixed addresses (no
//! look-up before the first query), what each filters, and which have ended. The rows are in `rows`. What is
//! *not* here: a server as the operator wants it (`servers`).
//!
//! A name alone means DNS over HTTPS where the resolver has it, else DNS over TLS; `NAME-doh` and `NAME-dot` mean
//! that protocol.

mod rows;

use super::settings::{DohMethod, Endpoint, Host};
use super::{endpoint, error};
use rows::PRESETS;
use std::net::IpAddr;

/// A public resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// What `upstreams` calls it.
    pub name: &'static str,
    /// Who runs it.
    pub operator: &'static str,
    /// Where it answers DNS over HTTPS.
    pub doh: Option<PresetSite>,
    /// Where it answers DNS over TLS.
    pub dot: Option<PresetSite>,
    /// What it leaves out.
    pub filter: Filter,
    /// Does it validate? `None`: the sources disagree or are silent.
    pub dnssec: Option<bool>,
    /// Does it send part of the client's address on (RFC 7871)?
    pub client_subnet: Option<bool>,
    /// Known to answer DNS over QUIC (RFC 9250).
    pub quic: bool,
    /// Known to answer DNS over HTTP/3.
    pub http3: bool,
    /// What else to expect of it.
    pub quirks: &'static [Quirk],
    /// What an operator should know before choosing it.
    pub notice: Option<&'static str>,
}

/// Where a preset is under one protocol. `<id>` in host or path stands for an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresetSite {
    /// Host name; the certificate has to be for it.
    pub host: &'static str,
    /// Empty for DNS over TLS.
    pub path: &'static str,
    /// Fixed addresses of this protocol: some resolvers answer plain DNS elsewhere. Empty: looked up.
    pub addresses: &'static [&'static str],
}

/// What a resolver leaves out on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Nothing.
    None,
    /// Malware and phishing.
    Malware,
    /// Advertisements and trackers, and malware.
    Ads,
    /// As `Ads`, and social networks.
    Social,
    /// Malware and adult content.
    Family,
    /// As `Family`, and ads.
    AdsFamily,
    /// Child abuse.
    ChildAbuse,
    /// What the law of its country wants.
    ByLaw,
    /// As the account says.
    Account,
}

/// What to expect of a resolver besides the standards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quirk {
    /// Closes idle DNS over TLS connections after about 10 s.
    ShortIdle,
    /// Answers 429 to many queries.
    RateLimited,
    /// May redirect requests.
    Redirects,
    /// Leaves the SOA out of "no such type" answers, which then cannot be cached.
    NoSoaOnNodata,
    /// Courts force single names out of an otherwise unfiltered service.
    LawfulBlocking,
    /// Of use only behind NAT64.
    OnlyWithNat64,
}

impl Filter {
    /// Names the filter for a table.
    pub fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Malware => "malware",
            Self::Ads => "ads and malware",
            Self::Social => "ads, malware, social networks",
            Self::Family => "malware and adult content",
            Self::AdsFamily => "ads, malware, adult content",
            Self::ChildAbuse => "child abuse",
            Self::ByLaw => "by law",
            Self::Account => "by account",
        }
    }
}

/// A resolver that no longer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What its names begin with.
    pub prefix: &'static str,
    /// Its domain, as it stands in URLs.
    pub domain: &'static str,
    /// When and what to use.
    pub message: &'static str,
}

/// Resolvers that people still have in their files.
const ENDED: [Ended; 2] = [
    Ended {
        prefix: "mullvad",
        domain: "dns.mullvad.net",
        message: "Mullvad's public DNS ended on 2026-11-02; Mullvad points to Quad9: use \"quad9\", or \"adguard\" for its filter of ads",
    },
    Ended {
        prefix: "dns0",
        domain: "dns0.eu",
        message: "dns0.eu ended in October 2025 and pointed to DNS4EU and NextDNS: use \"dns4eu-protective\", \"dns4eu\" or \"nextdns\"",
    },
];

/// A preset with the protocol it is used over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The row of the table.
    pub preset: &'static Preset,
    /// Its side of the chosen protocol.
    site: PresetSite,
}

/// Finds a preset by name: `quad9`, `quad9-doh` or `quad9-dot`.
pub fn find(name: &str) -> Option<Chosen> {
    if let Some(preset) = PRESETS.iter().find(|preset| preset.name == name) {
        return preset.doh.or(preset.dot).map(|site| Chosen { preset, site });
    }
    let (base, over_tls) = match name.strip_suffix("-dot") {
        Some(base) => (base, true),
        None => (name.strip_suffix("-doh")?, false),
    };
    let preset = PRESETS.iter().find(|preset| preset.name == base)?;
    let site = if over_tls { preset.dot } else { preset.doh };
    site.map(|site| Chosen { preset, site })
}

/// Returns all presets in the order of the table.
pub fn all() -> &'static [Preset] {
    PRESETS
}

/// Returns the preset name that a misspelt one most likely means.
pub(crate) fn nearest(wrong: &str) -> Option<&'static str> {
    error::nearest(wrong, PRESETS.iter().map(|preset| preset.name))
}

/// Finds the preset that an address belongs to.
pub(crate) fn at(address: IpAddr) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| {
        let sites = [preset.doh, preset.dot].into_iter().flatten();
        sites.flat_map(|site| site.addresses).any(|text| text.parse() == Ok(address))
    })
}

#[cfg(feature = "tools")]
/// Finds the preset that answers at exactly this endpoint, by the name that means it.
pub(crate) fn with_endpoint(place: &Endpoint) -> Option<&'static str> {
    let usable = PRESETS.iter().filter(|preset| !preset.needs_account());
    usable
        .map(|preset| preset.name)
        .find(|name| find(name).is_some_and(|chosen| chosen.endpoint("") == *place))
}

/// Says what became of a resolver that has ended, by the name of a former preset.
pub fn ended(name: &str) -> Option<&'static Ended> {
    ENDED.iter().find(|ended| {
        let rest = name.strip_prefix(ended.prefix);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
    })
}

/// Says what became of a resolver that has ended, by the host in a URL.
pub(crate) fn ended_host(host: &str) -> Option<&'static Ended> {
    ENDED.iter().find(|ended| {
        host.strip_suffix(ended.domain).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    })
}

impl Preset {
    /// Returns true when it works only with an account id.
    pub fn needs_account(&self) -> bool {
        let mut sites = [self.doh, self.dot].into_iter().flatten();
        sites.any(|site| site.host.contains("<id>") || site.path.contains("<id>"))
    }
}

impl Chosen {
    /// Returns the endpoint; `account` takes the place of `<id>`.
    pub fn endpoint(&self, account: &str) -> Endpoint {
        let host = self.site.host.replace("<id>", account);
        let host = match host.parse::<IpAddr>() {
            Ok(address) => Host::Address(address),
            Err(_) => Host::Name(host),
        };
        if self.site.path.is_empty() {
            return Endpoint::Dot { host, port: endpoint::DOT_PORT };
        }
        let path = self.site.path.replace("<id>", account);
        Endpoint::Doh { host, port: endpoint::HTTPS_PORT, path, method: DohMethod::Post }
    }

    /// Returns the fixed addresses, IPv4 first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.site.addresses.iter().filter_map(|text| text.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_address_in_the_table_parses_and_ipv4_comes_first() {
        for preset in all() {
            for site in [preset.doh, preset.dot].into_iter().flatten() {
                let parsed: Vec<IpAddr> =
                    site.addresses.iter().map(|text| text.parse().expect(preset.name)).collect();
                assert!(parsed.is_sorted_by_key(IpAddr::is_ipv6), "{}", preset.name);
            }
        }
    }

    #[test]
    fn every_preset_has_a_name_of_its_own_and_a_protocol() {
        let mut names = HashSet::new();
        for preset in all() {
            assert!(names.insert(preset.name), "{} is there twice", preset.name);
            assert!(!preset.operator.is_empty(), "{}", preset.name);
            assert!(ended(preset.name).is_none(), "{}", preset.name);
            assert!(find(preset.name).is_some(), "{}", preset.name);
        }
    }

    #[test]
    fn every_url_of_a_preset_is_one_that_an_operator_could_write() {
        let suffixes = ["", "-doh", "-dot"];
        let names = all().iter().flat_map(|preset| suffixes.map(|suffix| format!("{}{suffix}", preset.name)));
        for (name, chosen) in names.filter_map(|name| find(&name).map(|chosen| (name, chosen))) {
            let made = chosen.endpoint("abc123");
            assert_eq!(endpoint::parse(&endpoint::show(&made)), Ok(made), "{name}");
        }
    }

    #[test]
    fn a_name_alone_means_https_and_a_suffix_chooses() {
        let url = |name: &str| find(name).map(|chosen| endpoint::show(&chosen.endpoint("")));
        assert_eq!(url("quad9").as_deref(), Some("https://dns.quad9.net/dns-query"));
        assert_eq!(url("quad9-doh").as_deref(), Some("https://dns.quad9.net/dns-query"));
        assert_eq!(url("quad9-dot").as_deref(), Some("tls://dns.quad9.net"));
        assert_eq!(url("quad101").as_deref(), Some("tls://101.101.101.101"));
        assert_eq!(url("quad101-doh"), None);
        assert_eq!(url("quad8"), None);
    }

    #[test]
    fn opendns_has_other_addresses_for_each_protocol() {
        let first = |name: &str| find(name).and_then(|chosen| chosen.addresses().first().copied());
        assert_eq!(first("opendns"), Some("146.112.41.2".parse().unwrap()));
        assert_eq!(first("opendns-dot"), Some("208.67.222.222".parse().unwrap()));
    }

    #[test]
    fn an_account_goes_into_the_path_or_the_host() {
        let url = |name: &str| find(name).map(|chosen| endpoint::show(&chosen.endpoint("abc123")));
        assert_eq!(url("nextdns").as_deref(), Some("https://dns.nextdns.io/abc123"));
        assert_eq!(url("nextdns-dot").as_deref(), Some("tls://abc123.dns.nextdns.io"));
        assert!(find("nextdns").is_some_and(|chosen| chosen.preset.needs_account()));
    }

    #[test]
    fn ended_resolvers_are_known_by_name_and_by_host() {
        for name in ["mullvad", "mullvad-adblock", "dns0.eu", "dns0-kids"] {
            assert!(ended(name).is_some(), "{name}");
        }
        assert!(ended("mullvadesque").is_none());
        assert!(ended_host("adblock.dns.mullvad.net").is_some());
        assert!(ended_host("zero.dns0.eu").is_some());
        assert!(ended_host("notdns0.eu").is_none());
    }
}
