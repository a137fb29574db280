//! The table of public resolvers. Checked against the lists of dnscrypt-resolvers (2026-07-24), AdGuard's knowledge
//! base (2026-07-21) and the operators' pages on 2026-11-22; what no source says is left out. One row a resolver;
//! the types and the look-up are in `super`.

use super::{Filter, Preset, PresetSite, Quirk};

/// A row about which nothing is known; the rows below say what is.
const UNKNOWN: Preset = Preset {
    name: "",
    operator: "",
    doh: None,
    dot: None,
    filter: Filter::None,
    dnssec: None,
    client_subnet: None,
    quic: false,
    http3: false,
    quirks: &[],
    notice: None,
};

/// Makes the DNS over HTTPS side of a row.
const fn doh(
    host: &'static str,
    path: &'static str,
    addresses: &'static [&'static str],
) -> Option<PresetSite> {
    Some(PresetSite { host, path, addresses })
}

/// Makes the DNS over TLS side of a row.
const fn dot(host: &'static str, addresses: &'static [&'static str]) -> Option<PresetSite> {
    Some(PresetSite { host, path: "", addresses })
}

/// All presets. The last ones filter by law and carry a notice.
#[rustfmt::skip]
pub(super) const PRESETS: &[Preset] = &[
    Preset {
        name: "cloudflare", operator: "Cloudflare",
        doh: doh("cloudflare-dns.com", "/dns-query", &["1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001"]),
        dot: dot("cloudflare-dns.com", &["1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001"]),
        dnssec: Some(true), http3: true, quirks: &[Quirk::ShortIdle],
        ..UNKNOWN
    },
    Preset {
        name: "cloudflare-security", operator: "Cloudflare",
        doh: doh("security.cloudflare-dns.com", "/dns-query", &["1.1.1.2", "1.0.0.2", "2606:4700:4700::1112", "2606:4700:4700::1002"]),
        dot: dot("security.cloudflare-dns.com", &["1.1.1.2", "1.0.0.2", "2606:4700:4700::1112", "2606:4700:4700::1002"]),
        filter: Filter::Malware, dnssec: Some(true), client_subnet: Some(false), http3: true, quirks: &[Quirk::ShortIdle],
        ..UNKNOWN
    },
    Preset {
        name: "cloudflare-family", operator: "Cloudflare",
        doh: doh("family.cloudflare-dns.com", "/dns-query", &["1.1.1.3", "1.0.0.3", "2606:4700:4700::1113", "2606:4700:4700::1003"]),
        dot: dot("family.cloudflare-dns.com", &["1.1.1.3", "1.0.0.3", "2606:4700:4700::1113", "2606:4700:4700::1003"]),
        filter: Filter::Family, dnssec: Some(true), client_subnet: Some(false), http3: true, quirks: &[Quirk::ShortIdle],
        ..UNKNOWN
    },
    Preset {
        name: "google", operator: "Google",
        doh: doh("dns.google", "/dns-query", &["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"]),
        dot: dot("dns.google", &["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"]),
        dnssec: Some(true), client_subnet: Some(true), http3: true, quirks: &[Quirk::RateLimited, Quirk::Redirects],
        ..UNKNOWN
    },
    Preset {
        name: "google-dns64", operator: "Google",
        doh: doh("dns64.dns.google", "/dns-query", &["2001:4860:4860::64", "2001:4860:4860::6464"]),
        dot: dot("dns64.dns.google", &["2001:4860:4860::64", "2001:4860:4860::6464"]),
        dnssec: Some(true), quirks: &[Quirk::OnlyWithNat64],
        ..UNKNOWN
    },
    Preset {
        name: "quad9", operator: "Quad9",
        doh: doh("dns.quad9.net", "/dns-query", &["9.9.9.9", "149.112.112.112", "2620:fe::fe", "2620:fe::9"]),
        dot: dot("dns.quad9.net", &["9.9.9.9", "149.112.112.112", "2620:fe::fe", "2620:fe::9"]),
        filter: Filter::Malware, dnssec: Some(true), client_subnet: Some(false), quic: true, http3: true,
        ..UNKNOWN
    },
    Preset {
        name: "quad9-unfiltered", operator: "Quad9",
        doh: doh("dns10.quad9.net", "/dns-query", &["9.9.9.10", "149.112.112.10", "2620:fe::10", "2620:fe::fe:10"]),
        dot: dot("dns10.quad9.net", &["9.9.9.10", "149.112.112.10", "2620:fe::10", "2620:fe::fe:10"]),
        client_subnet: Some(false), quic: true, http3: true,
        ..UNKNOWN
    },
    Preset {
        name: "quad9-ecs", operator: "Quad9",
        doh: doh("dns11.quad9.net", "/dns-query", &["9.9.9.11", "149.112.112.11", "2620:fe::11", "2620:fe::fe:11"]),
        dot: dot("dns11.quad9.net", &["9.9.9.11", "149.112.112.11", "2620:fe::11", "2620:fe::fe:11"]),
        filter: Filter::Malware, dnssec: Some(true), client_subnet: Some(true), quic: true, http3: true,
        ..UNKNOWN
    },
    Preset {
        name: "quad9-unfiltered-ecs", operator: "Quad9",
        doh: doh("dns12.quad9.net", "/dns-query", &["9.9.9.12", "149.112.112.12", "2620:fe::12", "2620:fe::fe:12"]),
        dot: dot("dns12.quad9.net", &["9.9.9.12", "149.112.112.12", "2620:fe::12", "2620:fe::fe:12"]),
        client_subnet: Some(true), quic: true, http3: true,
        ..UNKNOWN
    },
    Preset {
        name: "adguard", operator: "AdGuard",
        doh: doh("dns.adguard-dns.com", "/dns-query", &["94.140.14.14", "94.140.15.15", "2a10:50c0::ad1:ff", "2a10:50c0::ad2:ff"]),
        dot: dot("dns.adguard-dns.com", &["94.140.14.14", "94.140.15.15", "2a10:50c0::ad1:ff", "2a10:50c0::ad2:ff"]),
        filter: Filter::Ads, dnssec: Some(true), quic: true,
        ..UNKNOWN
    },
    Preset {
        name: "adguard-unfiltered", operator: "AdGuard",
        doh: doh("unfiltered.adguard-dns.com", "/dns-query", &["94.140.14.140", "94.140.14.141", "2a10:50c0::1:ff", "2a10:50c0::2:ff"]),
        dot: dot("unfiltered.adguard-dns.com", &["94.140.14.140", "94.140.14.141", "2a10:50c0::1:ff", "2a10:50c0::2:ff"]),
        dnssec: Some(true), quic: true,
        ..UNKNOWN
    },
    Preset {
        name: "adguard-family", operator: "AdGuard",
        doh: doh("family.adguard-dns.com", "/dns-query", &["94.140.14.15", "94.140.15.16", "2a10:50c0::bad1:ff", "2a10:50c0::bad2:ff"]),
        dot: dot("family.adguard-dns.com", &["94.140.14.15", "94.140.15.16", "2a10:50c0::bad1:ff", "2a10:50c0::bad2:ff"]),
        filter: Filter::AdsFamily, dnssec: Some(true), quic: true,
        ..UNKNOWN
    },
    Preset {
        name: "nextdns", operator: "NextDNS",
        doh: doh("dns.nextdns.io", "/<id>", &["45.90.28.0", "45.90.30.0", "2a07:a8c0::", "2a07:a8c1::"]),
        dot: dot("<id>.dns.nextdns.io", &["45.90.28.0", "45.90.30.0", "2a07:a8c0::", "2a07:a8c1::"]),
        filter: Filter::Account, dnssec: Some(true), quic: true, http3: true,
        ..UNKNOWN
    },
    Preset {
        name: "controld", operator: "Control D",
        doh: doh("freedns.controld.com", "/p0", &["76.76.2.11"]),
        dot: dot("p0.freedns.controld.com", &["76.76.2.11"]),
        dnssec: Some(true), quic: true, http3: true,
        ..UNKNOWN
    },
    Preset {
        name: "controld-malware", operator: "Control D",
        doh: doh("freedns.controld.com", "/p1", &["76.76.2.11"]),
        dot: dot("p1.freedns.controld.com", &["76.76.2.11"]),
        filter: Filter::Malware, dnssec: Some(true), quic: true, http3: true,
        ..UNKNOWN
    },
    Preset {
        name: "controld-ads", operator: "Control D",
        doh: doh("freedns.controld.com", "/p2", &["76.76.2.11"]),
        dot: dot("p2.freedns.controld.com", &["76.76.2.11"]),
        filter: Filter::Ads, dnssec: Some(true), quic: true, http3: true,
        ..UNKNOWN
    },
    Preset {
        name: "controld-social", operator: "Control D",
        doh: doh("freedns.controld.com", "/p3", &["76.76.2.11"]),
        dot: dot("p3.freedns.controld.com", &["76.76.2.11"]),
        filter: Filter::Social, dnssec: Some(true), quic: true, http3: true,
        ..UNKNOWN
    },
    Preset {
        name: "controld-family", operator: "Control D",
        doh: doh("freedns.controld.com", "/family", &["76.76.2.11"]),
        dot: dot("family.freedns.controld.com", &["76.76.2.11"]),
        filter: Filter::Family, dnssec: Some(true), quic: true, http3: true,
        ..UNKNOWN
    },
    Preset {
        name: "dns.sb", operator: "DNS.SB",
        doh: doh("doh.dns.sb", "/dns-query", &["185.222.222.222", "45.11.45.11", "2a09::", "2a11::"]),
        dot: dot("dot.sb", &["185.222.222.222", "45.11.45.11", "2a09::", "2a11::"]),
        dnssec: Some(true),
        ..UNKNOWN
    },
    Preset {
        name: "wikimedia", operator: "Wikimedia Foundation",
        doh: doh("wikimedia-dns.org", "/dns-query", &["185.71.138.138", "2001:67c:930::1"]),
        dot: dot("wikimedia-dns.org", &["185.71.138.138", "2001:67c:930::1"]),
        dnssec: Some(true),
        ..UNKNOWN
    },
    Preset {
        name: "cira-private", operator: "CIRA (Canada)",
        doh: doh("private.canadianshield.cira.ca", "/dns-query", &["149.112.121.10", "149.112.122.10", "2620:10a:80bb::10", "2620:10a:80bc::10"]),
        dot: dot("private.canadianshield.cira.ca", &["149.112.121.10", "149.112.122.10", "2620:10a:80bb::10", "2620:10a:80bc::10"]),
        dnssec: Some(true),
        ..UNKNOWN
    },
    Preset {
        name: "cira-protected", operator: "CIRA (Canada)",
        doh: doh("protected.canadianshield.cira.ca", "/dns-query", &["149.112.121.20", "149.112.122.20"]),
        dot: dot("protected.canadianshield.cira.ca", &["149.112.121.20", "149.112.122.20"]),
        filter: Filter::Malware, dnssec: Some(true),
        ..UNKNOWN
    },
    Preset {
        name: "cira-family", operator: "CIRA (Canada)",
        doh: doh("family.canadianshield.cira.ca", "/dns-query", &["149.112.121.30", "149.112.122.30"]),
        dot: dot("family.canadianshield.cira.ca", &["149.112.121.30", "149.112.122.30"]),
        filter: Filter::Family, dnssec: Some(true),
        ..UNKNOWN
    },
    Preset {
        name: "opendns", operator: "Cisco OpenDNS",
        doh: doh("doh.opendns.com", "/dns-query", &["146.112.41.2", "2620:119:fc::2"]),
        dot: dot("dns.opendns.com", &["208.67.222.222", "208.67.220.220", "2620:119:35::35", "2620:119:53::53"]),
        filter: Filter::Malware, quirks: &[Quirk::NoSoaOnNodata],
        ..UNKNOWN
    },
    Preset {
        name: "dns4eu", operator: "DNS4EU",
        doh: doh("unfiltered.joindns4.eu", "/dns-query", &["86.54.11.100", "86.54.11.200", "2a13:1001::86:54:11:100"]),
        dot: dot("unfiltered.joindns4.eu", &["86.54.11.100", "86.54.11.200", "2a13:1001::86:54:11:100"]),
        dnssec: Some(true), quirks: &[Quirk::LawfulBlocking],
        ..UNKNOWN
    },
    Preset {
        name: "dns4eu-protective", operator: "DNS4EU",
        doh: doh("protective.joindns4.eu", "/dns-query", &["86.54.11.1", "86.54.11.201"]),
        dot: dot("protective.joindns4.eu", &["86.54.11.1", "86.54.11.201"]),
        filter: Filter::Malware, dnssec: Some(true), quirks: &[Quirk::LawfulBlocking],
        ..UNKNOWN
    },
    Preset {
        name: "dns4eu-child", operator: "DNS4EU",
        doh: doh("child.joindns4.eu", "/dns-query", &["86.54.11.12", "86.54.11.212"]),
        dot: dot("child.joindns4.eu", &["86.54.11.12", "86.54.11.212"]),
        filter: Filter::Family, dnssec: Some(true), quirks: &[Quirk::LawfulBlocking],
        ..UNKNOWN
    },
    Preset {
        name: "dns4eu-noads", operator: "DNS4EU",
        doh: doh("noads.joindns4.eu", "/dns-query", &["86.54.11.13", "86.54.11.213"]),
        dot: dot("noads.joindns4.eu", &["86.54.11.13", "86.54.11.213"]),
        filter: Filter::Ads, dnssec: Some(true), quirks: &[Quirk::LawfulBlocking],
        ..UNKNOWN
    },
    Preset {
        name: "dns4eu-child-noads", operator: "DNS4EU",
        doh: doh("child-noads.joindns4.eu", "/dns-query", &["86.54.11.11", "86.54.11.211"]),
        dot: dot("child-noads.joindns4.eu", &["86.54.11.11", "86.54.11.211"]),
        filter: Filter::AdsFamily, dnssec: Some(true), quirks: &[Quirk::LawfulBlocking],
        ..UNKNOWN
    },
    Preset {
        name: "cznic", operator: "CZ.NIC (Czechia)",
        doh: doh("odvr.nic.cz", "/doh", &["193.17.47.1", "185.43.135.1", "2001:148f:ffff::1", "2001:148f:fffe::1"]),
        dot: dot("odvr.nic.cz", &["193.17.47.1", "185.43.135.1", "2001:148f:ffff::1", "2001:148f:fffe::1"]),
        dnssec: Some(true),
        ..UNKNOWN
    },
    Preset {
        name: "digitale-gesellschaft", operator: "Digitale Gesellschaft (Switzerland)",
        doh: doh("dns.digitale-gesellschaft.ch", "/dns-query", &["185.95.218.42", "185.95.218.43", "2a05:fc84::42", "2a05:fc84::43"]),
        dot: dot("dns.digitale-gesellschaft.ch", &["185.95.218.42", "185.95.218.43", "2a05:fc84::42", "2a05:fc84::43"]),
        dnssec: Some(true),
        ..UNKNOWN
    },
    Preset {
        name: "switch", operator: "SWITCH (Switzerland)",
        doh: doh("dns.switch.ch", "/dns-query", &["130.59.31.248", "130.59.31.251", "2001:620:0:ff::2", "2001:620:0:ff::3"]),
        dot: dot("dns.switch.ch", &["130.59.31.248", "130.59.31.251", "2001:620:0:ff::2", "2001:620:0:ff::3"]),
        filter: Filter::Malware, dnssec: Some(true),
        ..UNKNOWN
    },
    Preset {
        name: "ffmuc", operator: "Freifunk München",
        doh: doh("doh.ffmuc.net", "/dns-query", &["5.1.66.255", "185.150.99.255", "2001:678:e68:f000::", "2001:678:ed0:f000::"]),
        dot: dot("dot.ffmuc.net", &["5.1.66.255", "185.150.99.255", "2001:678:e68:f000::", "2001:678:ed0:f000::"]),
        dnssec: Some(true), quic: true, http3: true,
        ..UNKNOWN
    },
    Preset {
        name: "dnsforge", operator: "dnsforge.de",
        doh: doh("dnsforge.de", "/dns-query", &["176.9.93.198", "176.9.1.117", "2a01:4f8:151:34aa::198", "2a01:4f8:141:316d::117"]),
        dot: dot("dnsforge.de", &["176.9.93.198", "176.9.1.117", "2a01:4f8:151:34aa::198", "2a01:4f8:141:316d::117"]),
        filter: Filter::Ads, dnssec: Some(true),
        ..UNKNOWN
    },
    Preset {
        name: "dnsforge-unfiltered", operator: "dnsforge.de",
        doh: doh("blank.dnsforge.de", "/dns-query", &["138.199.149.249", "78.47.71.194"]),
        dot: dot("blank.dnsforge.de", &["138.199.149.249", "78.47.71.194"]),
        dnssec: Some(true),
        ..UNKNOWN
    },
    Preset {
        name: "he", operator: "Hurricane Electric",
        doh: doh("ordns.he.net", "/dns-query", &["74.82.42.42", "2001:470:20::2"]),
        dot: dot("ordns.he.net", &["74.82.42.42", "2001:470:20::2"]),
        dnssec: Some(true),
        ..UNKNOWN
    },
    Preset {
        name: "iij", operator: "IIJ (Japan)",
        doh: doh("public.dns.iij.jp", "/dns-query", &["103.2.57.5"]),
        dot: dot("public.dns.iij.jp", &["103.2.57.5"]),
        filter: Filter::ChildAbuse, dnssec: Some(true),
        ..UNKNOWN
    },
    Preset {
        name: "cleanbrowsing-security", operator: "CleanBrowsing",
        doh: doh("doh.cleanbrowsing.org", "/doh/security-filter/", &["185.228.168.9", "185.228.169.9", "2a0d:2a00:1::2", "2a0d:2a00:2::2"]),
        dot: dot("security-filter-dns.cleanbrowsing.org", &["185.228.168.9", "185.228.169.9", "2a0d:2a00:1::2", "2a0d:2a00:2::2"]),
        filter: Filter::Malware, dnssec: Some(true),
        ..UNKNOWN
    },
    Preset {
        name: "cleanbrowsing-family", operator: "CleanBrowsing",
        doh: doh("doh.cleanbrowsing.org", "/doh/family-filter/", &["185.228.168.168", "185.228.169.168"]),
        dot: dot("family-filter-dns.cleanbrowsing.org", &["185.228.168.168", "185.228.169.168"]),
        filter: Filter::Family, dnssec: Some(true),
        ..UNKNOWN
    },
    Preset {
        name: "cleanbrowsing-adult", operator: "CleanBrowsing",
        doh: doh("doh.cleanbrowsing.org", "/doh/adult-filter/", &["185.228.168.10", "185.228.169.11"]),
        dot: dot("adult-filter-dns.cleanbrowsing.org", &["185.228.168.10", "185.228.169.11"]),
        filter: Filter::Family, dnssec: Some(true),
        ..UNKNOWN
    },
    Preset {
        name: "surfshark", operator: "Surfshark",
        doh: doh("dns.surfsharkdns.com", "/dns-query", &["194.169.169.169", "2a09:a707:169::"]),
        dot: dot("dns.surfsharkdns.com", &["194.169.169.169", "2a09:a707:169::"]),
        quic: true,
        ..UNKNOWN
    },
    Preset {
        name: "rethink", operator: "Rethink DNS",
        doh: doh("basic.rethinkdns.com", "/", &[]),
        ..UNKNOWN
    },
    Preset {
        name: "rethink-max", operator: "Rethink DNS",
        doh: doh("max.rethinkdns.com", "/", &[]),
        dot: dot("max.rethinkdns.com", &[]),
        ..UNKNOWN
    },
    Preset {
        name: "alidns", operator: "Alibaba Cloud (China)",
        doh: doh("dns.alidns.com", "/dns-query", &["223.5.5.5", "223.6.6.6", "2400:3200::1", "2400:3200:baba::1"]),
        dot: dot("dns.alidns.com", &["223.5.5.5", "223.6.6.6", "2400:3200::1", "2400:3200:baba::1"]),
        filter: Filter::ByLaw, quic: true, http3: true,
        notice: Some("alidns applies China's filtering rules"),
        ..UNKNOWN
    },
    Preset {
        name: "dnspod", operator: "Tencent DNSPod (China)",
        doh: doh("doh.pub", "/dns-query", &["1.12.12.12", "120.53.53.53"]),
        dot: dot("dot.pub", &[]),
        filter: Filter::ByLaw,
        notice: Some("dnspod applies China's filtering rules and answers poorly from abroad"),
        ..UNKNOWN
    },
    Preset {
        name: "360", operator: "360 Security (China)",
        doh: doh("doh.360.cn", "/dns-query", &[]),
        dot: dot("dot.360.cn", &[]),
        filter: Filter::ByLaw,
        notice: Some("360 logs queries and applies China's filtering rules"),
        ..UNKNOWN
    },
    Preset {
        name: "yandex", operator: "Yandex (Russia)",
        doh: doh("common.dot.dns.yandex.net", "/dns-query", &["77.88.8.8", "77.88.8.1", "2a02:6b8::feed:ff", "2a02:6b8:0:1::feed:ff"]),
        dot: dot("common.dot.dns.yandex.net", &["77.88.8.8", "77.88.8.1", "2a02:6b8::feed:ff", "2a02:6b8:0:1::feed:ff"]),
        filter: Filter::ByLaw,
        notice: Some("yandex applies Russia's filtering rules"),
        ..UNKNOWN
    },
    Preset {
        name: "quad101", operator: "TWNIC (Taiwan)",
        dot: dot("101.101.101.101", &["101.101.101.101", "101.102.103.104", "2001:de4::101", "2001:de4::102"]),
        filter: Filter::ByLaw,
        notice: Some("quad101 filters by the law of Taiwan"),
        ..UNKNOWN
    },
];
