//! Tests of the whole: from texts to settings or to a report.

use super::document::{Table, Value};
use super::error::{Appearance, ConfigErrors};
use super::overrides::{Assigned, Overrides};
use super::settings::*;
use super::*;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

/// Reads a text that is good.
fn good(text: &str) -> Settings {
    from_text(text, Path::new("/nowhere")).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Reads a text that is not, and returns `line:column: message` of each error.
fn bad(text: &str) -> Vec<String> {
    lines(&from_text(text, Path::new("/nowhere")).expect_err("an error"))
}

/// Lists errors without the name of the text.
fn lines(errors: &ConfigErrors) -> Vec<String> {
    errors.lines().map(|line| line.strip_prefix("configuration:").unwrap_or(&line).to_owned()).collect()
}

/// Returns the whole report of a text that is not good.
fn report(text: &str) -> String {
    from_text(text, Path::new("/nowhere")).expect_err("an error").to_string()
}

/// Reads with variables and flags over a text in a folder of its own.
fn with_overrides(text: &str, overrides: Overrides) -> Result<Settings, ConfigErrors> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("veildns.toml");
    fs::write(&path, text).unwrap();
    load(&Source { path: Some(path), overrides })
}

/// Makes variables.
fn environment(variables: &[(&str, &str)]) -> Overrides {
    Overrides::default()
        .with_environment(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

#[test]
fn an_empty_file_is_the_built_in_default() {
    let settings = good("");
    assert_eq!(settings.origin, Origin::BuiltIn);
    let listen: Vec<String> = settings.listen.iter().map(|listen| listen.address.to_string()).collect();
    assert_eq!(listen, ["127.0.0.1:5053", "[::1]:5053"]);
    assert!(settings.listen.iter().all(|listen| !listen.written));
    let names: Vec<&str> = settings.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["quad9", "cloudflare"]);
    assert!(settings.servers.iter().all(|server| !server.addresses.is_empty()));
    assert_eq!(
        settings.groups,
        [GroupSpec {
            name: "default".to_owned(),
            members: vec![0, 1],
            strategy: StrategyKind::Fastest,
            own: false
        }]
    );
    assert_eq!(settings.routes, []);
    assert_eq!(settings.limits, Limits::default());
    assert_eq!(settings.cache.max_size, 64 << 20);
    assert_eq!(settings.cache.stale_after, Duration::from_millis(1800));
    assert_eq!(settings.any, AnyQueries::Minimal);
    assert_eq!(settings.metrics, None);
    assert_eq!(settings.notices, Vec::<String>::new());
    let allowed: Vec<String> = settings.access.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["127.0.0.0/8", "::1/128"]);
    assert!(settings.workers >= 1);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one file with every key, then every setting")]
fn every_key_of_the_file_reaches_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("home.pem"), "").unwrap();
    fs::create_dir(folder.path().join("roots")).unwrap();
    let text = r#"
        listen = ["0.0.0.0:53"]
        upstreams = ["home", "quad9"]
        strategy = "weighted"
        workers = 3
        [server.home]
        url = "https://dns.home.example/q{?dns}"
        addresses = ["192.0.2.1"]
        ca_file = "home.pem"
        pins = ["sha256/AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="]
        weight = 7
        trust_ad = true
        [group.office]
        upstreams = ["udp://10.0.0.1", "home"]
        strategy = "failover"
        [[route]]
        domains = ["Corp.Example", "10.in-addr.arpa."]
        types = ["A", "TYPE65"]
        group = "office"
        [cache]
        max_size = "1MB"
        min_ttl = "5s"
        max_ttl = "2h"
        negative_max_ttl = 0
        max_stale = "2d"
        stale_after = "500ms"
        prefetch = false
        [privacy]
        client_subnet = "192.0.2.7/24"
        padding = false
        [rebinding]
        protect = false
        allow = ["plex.direct"]
        [policy]
        any = "forward"
        [tls]
        roots = "system"
        extra_ca_dir = "roots"
        min_version = "1.3"
        [timeouts]
        query = "3s"
        connect = "1s"
        [access]
        allow = ["192.168.7.1/16", "2001:db8::1"]
        [limits]
        max_inflight = 100
        tcp_idle = "20s"
        retry_percent = 0
        hedge_percent = 1
        [log]
        level = "debug"
        format = "json"
        queries = "queries.log"
        query_format = "text"
        query_clients = "masked"
        query_names = "hashed"
        [control]
        socket = "run/veildns.sock"
        [metrics]
        listen = "127.0.0.1:9153"
    "#;
    let settings = from_text(text, folder.path()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(settings.listen, [Listen { address: "0.0.0.0:53".parse().unwrap(), written: true }]);
    assert_eq!(settings.workers, 3);
    let home = &settings.servers[0];
    assert_eq!(
        **home,
        ServerSpec {
            name: "home".to_owned(),
            endpoint: Endpoint::Doh {
                host: Host::Name("dns.home.example".to_owned()),
                port: 443,
                path: "/q".to_owned(),
                method: DohMethod::Get
            },
            addresses: vec!["192.0.2.1".parse().unwrap()],
            ca_file: Some(folder.path().join("home.pem")),
            pins: vec![[1; 32]],
            weight: 7,
            trust_ad: true,
        }
    );
    assert_eq!(settings.groups[0].strategy, StrategyKind::Weighted);
    assert_eq!(
        settings.groups[1],
        GroupSpec {
            name: "office".to_owned(),
            members: vec![2, 0],
            strategy: StrategyKind::Failover,
            own: true
        }
    );
    assert_eq!(
        settings.routes,
        [RouteSpec {
            domains: vec!["corp.example".parse().unwrap(), "10.in-addr.arpa".parse().unwrap()],
            types: vec!["A".parse().unwrap(), "HTTPS".parse().unwrap()],
            group: 1
        }]
    );
    assert_eq!(
        settings.cache,
        CacheSettings {
            max_size: 1_000_000,
            min_ttl: Duration::from_secs(5),
            max_ttl: Duration::from_secs(7200),
            negative_max_ttl: Duration::ZERO,
            max_stale: Duration::from_secs(172_800),
            stale_after: Duration::from_millis(500),
            prefetch: false,
        }
    );
    assert_eq!(
        settings.privacy,
        PrivacySettings {
            client_subnet: ClientSubnet::Fixed("192.0.2.0/24".parse().unwrap()),
            padding: false
        }
    );
    assert_eq!(
        settings.rebinding,
        RebindingSettings { protect: false, allow: vec!["plex.direct".parse().unwrap()] }
    );
    assert_eq!(settings.any, AnyQueries::Forward);
    assert_eq!(
        settings.tls,
        TlsSettings {
            roots: Roots::System,
            extra_ca_dir: Some(folder.path().join("roots")),
            min_version: TlsVersion::Tls13
        }
    );
    assert_eq!(
        settings.timeouts,
        Timeouts { query: Duration::from_secs(3), connect: Duration::from_secs(1) }
    );
    let allowed: Vec<String> = settings.access.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["192.168.0.0/16", "2001:db8::1/128"]);
    assert_eq!(
        settings.limits,
        Limits {
            max_inflight: 100,
            max_inflight_per_client: 100,
            tcp_idle: Duration::from_secs(20),
            retry_percent: 0,
            hedge_percent: 1,
            ..Limits::default()
        }
    );
    assert_eq!(
        settings.log,
        LogSettings {
            level: LogLevel::Debug,
            format: LogFormat::Json,
            queries: QueryLog::File(folder.path().join("queries.log")),
            query_lines: QueryLines {
                format: QueryFormat::Text,
                clients: QueryClients::Masked,
                names: QueryNames::Hashed,
            },
        }
    );
    assert_eq!(settings.control, ControlSocket::At(folder.path().join("run/veildns.sock")));
    assert_eq!(settings.metrics, Some("127.0.0.1:9153".parse().unwrap()));
}

#[test]
fn every_error_of_a_file_is_reported_with_its_place() {
    let errors = bad(concat!(
        "listen = [\"127.0.0.1\"]\n",
        "upstream = [\"quad9\"]\n",
        "strategy = \"fastst\"\n",
        "[cache]\n",
        "max_sise = \"1MiB\"\n",
        "min_ttl = 60\n",
        "prefetch = \"yes\"\n",
        "[limits]\n",
        "max_inflight = 0\n",
        "[[route]]\n",
        "domains = [\"*.corp.example\", \"a..b\"]\n",
        "group = \"offce\"\n",
    ));
    assert_eq!(
        errors,
        [
            "1:11: listen: \"127.0.0.1\" is not an address with a port",
            "2:1: unknown key `upstream` at the top level",
            "3:12: strategy: unknown value \"fastst\"",
            "5:1: unknown key `max_sise` in [cache]",
            "6:11: cache.min_ttl: \"60\": a unit is missing",
            "7:12: cache.prefetch: found a string",
            "9:16: limits.max_inflight: 0 is out of bounds",
            "11:12: route.domains: \"*.corp.example\" is not a name",
            "11:30: route.domains: \"a..b\" is not a name: empty label",
            "12:9: route.group: there is no group \"offce\"",
        ]
    );
}

#[test]
fn a_report_shows_the_line_with_a_caret_and_what_was_meant() {
    assert_eq!(
        report("strategy = \"fastest\"\n[cache]\nmax_sise = \"1MiB\"\n"),
        concat!(
            "error: unknown key `max_sise` in [cache]\n",
            " --> configuration:3:1\n",
            "  |\n",
            "3 | max_sise = \"1MiB\"\n",
            "  | ^^^^^^^^ did you mean `max_size`?\n",
            "\n",
            "1 error in the configuration",
        )
    );
}

#[test]
fn one_mistake_is_one_error() {
    for text in [
        // What could look the name up is misspelt.
        "upstreams = [\"qad9\", \"tls://dns.example\"]",
        // The route that names the group is wrong.
        "[group.lan]\nupstreams = [\"udp://192.0.2.1\"]\n[[route]]\ndomains = [\"lan\"]\ngroup = \"lann\"",
        "upstreams = [\"home\"]\n[server.home]\nurl = \"tls://\"",
        "upstreams = [\"home\"]\n[server]\nhome = 5",
        "upstreams = \"quad9\"",
        "workers = = 3",
        "group = 5",
    ] {
        assert_eq!(bad(text).len(), 1, "{}", report(text));
    }
}

#[test]
fn a_byte_order_mark_and_other_line_ends_are_harmless() {
    assert_eq!(good("\u{feff}workers = 2\r\n[cache]\r\nmin_ttl = \"1s\"\r\n").workers, 2);
    assert_eq!(bad("workers = 2\r\nx = 1\r\n"), ["2:1: unknown key `x` at the top level"]);
}

#[test]
fn every_preset_can_be_an_upstream() {
    for preset in presets::all().iter().filter(|preset| !preset.needs_account()) {
        let settings = good(&format!("upstreams = [\"{}\", \"tls://192.0.2.1\"]", preset.name));
        assert_eq!(settings.notices.is_empty(), preset.notice.is_none(), "{}", preset.name);
    }
}

#[test]
fn a_group_of_more_servers_than_are_ever_asked_is_an_error() {
    let servers =
        |count: u8| (1..=count).map(|n| format!("\"tls://192.0.2.{n}\"")).collect::<Vec<_>>().join(", ");
    assert_eq!(good(&format!("upstreams = [{}]", servers(16))).groups[0].members.len(), 16);
    let errors = bad(&format!("upstreams = [{}]", servers(17)));
    assert!(errors[0].ends_with("upstreams: a group has at most 16 servers"), "{errors:?}");
    assert_eq!(errors.len(), 1);
}

#[test]
fn every_limit_can_be_set() {
    for key in keys::KEYS.iter().filter(|key| key.name.starts_with("limits.")) {
        let value = match key.kind {
            keys::Kind::Integer => "7",
            keys::Kind::Text if key.name.contains("unread") || key.name.contains("dnstap") => "\"128KiB\"",
            keys::Kind::Text | keys::Kind::List | keys::Kind::Boolean => "\"7s\"",
        };
        let settings = good(&format!("{} = {value}", key.name));
        assert_ne!(settings.limits, Limits::default(), "{}", key.name);
        assert!(from_text(&format!("{} = -1", key.name), Path::new("")).is_err(), "{}", key.name);
    }
}

#[test]
fn colours_appear_only_when_asked_for() {
    let errors = from_text("x = 1", Path::new("")).unwrap_err();
    assert!(!errors.render(Appearance::Plain).contains('\x1b'));
    assert!(errors.render(Appearance::Coloured).contains('\x1b'));
}

#[test]
fn a_broken_line_does_not_hide_errors_on_others() {
    let errors = bad("listen = [\"127.0.0.1:53\"\nstrategy = \"x\"\n");
    assert!(errors.iter().any(|line| line.contains("not TOML")), "{errors:?}");
    let errors = bad("workers = \n[cache]\nmin_ttl = \"x\"\nmax_ttl = 'a\n");
    assert!(errors.iter().any(|line| line.starts_with("1:")), "{errors:?}");
    assert!(errors.iter().any(|line| line.starts_with("3:11: cache.min_ttl")), "{errors:?}");
    assert!(errors.iter().any(|line| line.starts_with("4:")), "{errors:?}");
}

#[test]
fn misspelt_names_are_answered_with_the_nearest() {
    for (text, suggestion) in [
        ("upstreams = [\"qad9\"]", "did you mean \"quad9\"?"),
        ("upstreams = [\"hone\"]\n[server.home]\nurl = \"tls://192.0.2.1\"", "did you mean \"home\"?"),
        ("[server.cloudfare]\nweight = 2", "did you mean the preset \"cloudflare\"?"),
        ("[log]\nlevel = \"warning\"", "did you mean \"warn\"?"),
        ("listen_addresses = []", "did you mean `listen`?"),
        ("padding = true", "this key belongs in [privacy]"),
        ("[server.home]\naddress = []", "did you mean `addresses`?"),
        ("[[route]]\ndomain = []", "did you mean `domains`?"),
        ("cache = 5", "expected a section: [cache]"),
        ("[route]\ngroup = \"x\"", "expected a section: [[route]]"),
    ] {
        let report = report(text);
        assert!(report.contains(suggestion), "{text}\n{report}");
    }
}

#[test]
fn references_that_are_not_supported_say_what_to_write() {
    for (reference, message) in [
        ("192.0.2.1", "write \"tls://192.0.2.1\" for DNS over TLS"),
        ("2001:db8::1", "write \"tls://[2001:db8::1]\" for DNS over TLS"),
        ("192.0.2.1:53", "write \"tls://192.0.2.1\" for DNS over TLS"),
        ("8.8.8.8", "write \"google\": this is its address"),
        ("dns.example", "write \"tls://dns.example\" for DNS over TLS"),
        ("quic://dns.example", "quic:// is not supported yet"),
        ("h3://dns.example/q", "h3:// is not supported yet"),
        ("sdns://AgcA", "sdns:// is not supported yet"),
        ("mullvad", "Mullvad's public DNS ended on 2026-11-02"),
        ("dns0.eu", "ended in October 2025"),
        ("nextdns", "add a table [server.nextdns] with account"),
        ("udp://192.0.2.1", "is plain DNS, which the default group never sends"),
    ] {
        let report = report(&format!("upstreams = [\"quad9\", \"{reference}\"]"));
        assert!(report.contains(message), "{reference}\n{report}");
        assert!(report.ends_with("1 error in the configuration"), "{report}");
    }
}

#[test]
fn a_table_with_the_name_of_a_preset_changes_that_preset() {
    let settings = good("upstreams = [\"quad9\"]\n[server.quad9]\nweight = 5\naddresses = [\"9.9.9.9\"]");
    assert_eq!(settings.servers[0].weight, 5);
    assert_eq!(settings.servers[0].addresses, ["9.9.9.9".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(endpoint::show(&settings.servers[0].endpoint), "https://dns.quad9.net/dns-query");
    let same_host = good("upstreams = [\"quad9\"]\n[server.quad9]\nurl = \"tls://dns.quad9.net\"");
    assert!(!same_host.servers[0].addresses.is_empty());
    let other_host = good("upstreams = [\"quad9\", \"google\"]\n[server.quad9]\nurl = \"tls://dns.example\"");
    assert!(other_host.servers[0].addresses.is_empty());
}

#[test]
fn an_account_belongs_to_presets_that_have_one() {
    let settings = good("upstreams = [\"nextdns\"]\n[server.nextdns]\naccount = \"abc123\"");
    assert_eq!(endpoint::show(&settings.servers[0].endpoint), "https://dns.nextdns.io/abc123");
    let settings = good("upstreams = [\"nextdns-dot\"]\n[server.nextdns-dot]\naccount = \"abc123\"");
    assert_eq!(endpoint::show(&settings.servers[0].endpoint), "tls://abc123.dns.nextdns.io");
    assert!(report("[server.nextdns]\nweight = 1").contains("nextdns needs your account id"));
    assert!(report("[server.nextdns]\naccount = \"a/b\"").contains("is not an account id"));
    assert!(
        report("[server.quad9]\naccount = \"abc\"")
            .contains("server.quad9.account has no meaning for this preset")
    );
    assert!(
        report("[server.home]\nurl = \"tls://192.0.2.1\"\naccount = \"a\"")
            .contains("server.home.account has no meaning beside a url")
    );
}

#[test]
fn plain_servers_are_taken_only_in_a_group_that_a_route_names() {
    let plain = "[group.lan]\nupstreams = [\"udp://192.168.1.1\"]\n";
    let errors = bad(plain);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("is plain DNS, and no [[route]] names the group lan"), "{errors:?}");
    let settings = good(&format!("{plain}[[route]]\ndomains = [\"lan\"]\ngroup = \"lan\""));
    assert!(settings.groups[1].own);
    assert!(settings.servers[2].endpoint.is_plaintext());
    let to_default = "upstreams = [\"udp://192.0.2.1\"]\n[[route]]\ndomains = [\"lan\"]\ngroup = \"default\"";
    assert!(bad(to_default)[0].contains("is plain DNS"));
}

#[test]
fn a_plain_server_that_is_ourselves_is_an_error() {
    let text = "listen = [\"127.0.0.1:5353\"]\n[group.lan]\nupstreams = [\"udp://127.0.0.1:5353\"]\n\
                [[route]]\ndomains = [\"lan\"]\ngroup = \"lan\"";
    assert!(report(text).contains("queries would go round in circles"));
}

#[test]
fn only_routed_groups_of_own_servers_are_own() {
    let text = "[server.home]\nurl = \"tls://192.0.2.1\"\n[group.a]\nupstreams = [\"home\"]\n\
                [group.b]\nupstreams = [\"home\", \"quad9\"]\n[group.c]\nupstreams = [\"home\"]\n\
                [[route]]\ndomains = [\"a\"]\ngroup = \"a\"\n[[route]]\ndomains = [\"b\"]\ngroup = \"b\"";
    let own: Vec<bool> = good(text).groups.iter().map(|group| group.own).collect();
    assert_eq!(own, [false, true, false, false]);
}

#[test]
fn a_server_known_by_name_needs_another_to_look_it_up() {
    assert!(
        report("upstreams = [\"tls://dns.example\"]")
            .contains("the address of tls://dns.example cannot be learnt")
    );
    good("upstreams = [\"tls://dns.example\", \"quad9\"]");
    good("upstreams = [\"home\"]\n[server.home]\nurl = \"tls://dns.example\"\naddresses = [\"192.0.2.1\"]");
    good("upstreams = [\"tls://192.0.2.1\"]\n[group.x]\nupstreams = [\"tls://dns.example\"]");
}

#[test]
fn groups_and_lists_may_not_be_empty_or_repeat_a_server() {
    for (text, message) in [
        ("upstreams = []", "upstreams is empty"),
        ("listen = []", "listen is empty"),
        ("listen = [\"[::1]:53\", \"[::1]:53\"]", "[::1]:53 is listed twice"),
        ("upstreams = [\"quad9\", \"quad9\"]", "this server is listed twice"),
        ("[group.a]\nstrategy = \"fastest\"", "group.a has no upstreams"),
        ("[group.a]\nupstreams = []", "group.a.upstreams is empty"),
        ("[group.default]\nupstreams = [\"quad9\"]", "this name is taken"),
        ("[[route]]\ngroup = \"default\"", "a route has no domains"),
        ("[[route]]\ndomains = []\ngroup = \"default\"", "route.domains is empty"),
        ("[[route]]\ndomains = [\"a\"]", "a route has no group"),
        ("[server.home]\nweight = 1", "server.home has no url"),
        ("[cache]\nmin_ttl = \"2d\"", "cache.min_ttl is above cache.max_ttl"),
        ("[metrics]\nlisten = \"127.0.0.1:53\"\n", ""),
    ] {
        if message.is_empty() {
            good(text);
        } else {
            assert!(report(text).contains(message), "{text}\n{}", report(text));
        }
    }
    assert!(report("listen = [\"127.0.0.1:53\"]\n[metrics]\nlisten = \"127.0.0.1:53\"").contains("is taken"));
}

#[test]
fn strangers_are_kept_out_by_default_and_an_open_resolver_is_told_so() {
    let lan = good("listen = [\"192.168.1.1:53\"]");
    assert!(lan.access.contains(&"192.168.0.0/16".parse().unwrap()));
    assert_eq!(lan.access.len(), 9);
    assert_eq!(lan.notices, Vec::<String>::new());
    let open = good("listen = [\"0.0.0.0:53\"]\n[access]\nallow = [\"0.0.0.0/0\"]");
    assert!(open.notices[0].contains("open resolver"), "{:?}", open.notices);
    let inside = good("listen = [\"10.0.0.1:53\"]\n[access]\nallow = [\"0.0.0.0/0\", \"::/0\"]");
    assert_eq!(inside.notices, Vec::<String>::new());
}

#[test]
fn regional_presets_and_ended_hosts_bring_a_notice() {
    assert!(good("upstreams = [\"alidns\"]").notices[0].contains("China"));
    let ended = good("upstreams = [\"quad9\", \"https://dns.mullvad.net/dns-query\"]");
    assert!(ended.notices[0].contains("2026-11-02"), "{:?}", ended.notices);
}

#[test]
fn missing_files_are_reported_where_they_are_named() {
    let report =
        report("[server.quad9]\nca_file = \"/nonexistent/x.pem\"\n[tls]\nextra_ca_dir = \"/nonexistent\"");
    assert!(report.contains("server.quad9.ca_file: /nonexistent/x.pem does not exist"), "{report}");
    assert!(report.contains("tls.extra_ca_dir: /nonexistent does not exist"), "{report}");
}

#[test]
fn drop_ins_are_merged_in_name_order_and_errors_name_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("veildns.toml");
    let drop_in = folder.path().join("veildns.d");
    fs::create_dir_all(drop_in.join("certs")).unwrap();
    fs::create_dir(folder.path().join("certs")).unwrap();
    let route = |name: &str| format!("[[route]]\ndomains = [\"{name}\"]\ngroup = \"default\"\n");
    fs::write(&path, format!("upstreams = [\"google\"]\n[cache]\nmin_ttl = \"1s\"\n{}", route("a"))).unwrap();
    fs::write(drop_in.join("10-b.toml"), format!("[cache]\nmax_ttl = \"1h\"\n{}", route("b"))).unwrap();
    fs::write(
        drop_in.join("20-c.toml"),
        format!("upstreams = [\"he\"]\n[cache]\nmax_ttl = \"2h\"\n{}", route("c")),
    )
    .unwrap();
    fs::write(drop_in.join("30-d.conf"), "nonsense").unwrap();
    let source = Source { path: Some(path.clone()), overrides: Overrides::default() };
    let settings = load(&source).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(settings.origin, Origin::File(path));
    assert_eq!(settings.cache.min_ttl, Duration::from_secs(1));
    assert_eq!(settings.cache.max_ttl, Duration::from_secs(7200));
    assert_eq!(settings.servers.len(), 1);
    assert_eq!(settings.servers[0].name, "he");
    let domains: Vec<String> = settings.routes.iter().map(|route| route.domains[0].to_string()).collect();
    assert_eq!(domains, ["a.", "b.", "c."]);
    assert_eq!(settings.tls.extra_ca_dir, Some(folder.path().join("certs")));

    fs::write(drop_in.join("20-c.toml"), "\n\nstrategy = 1\n").unwrap();
    let errors = load(&source).unwrap_err();
    let expected = format!("{}:3:12: strategy: found a number", drop_in.join("20-c.toml").display());
    assert_eq!(errors.lines().collect::<Vec<_>>(), [expected]);
}

#[test]
fn a_file_that_is_not_there_is_an_error_when_it_was_asked_for() {
    let source = Source { path: Some("/nonexistent/veildns.toml".into()), overrides: Overrides::default() };
    let report = load(&source).unwrap_err().to_string();
    assert!(report.contains("cannot read /nonexistent/veildns.toml"), "{report}");
}

#[test]
fn variables_win_over_files_and_flags_over_variables() {
    let overrides = environment(&[
        ("VEILDNS_CACHE__MAX_SIZE", "256MiB"),
        ("VEILDNS_LISTEN", "127.0.0.1:1053, [::1]:1053"),
        ("VEILDNS_UPSTREAMS", "google"),
        ("VEILDNS_CACHE__PREFETCH", "false"),
        ("VEILDNS_LIMITS__ATTEMPTS", "2"),
        ("VEILDNS_REBINDING__ALLOW", ""),
        ("VEILDNS_SERVER__HOME__URL", "tls://192.0.2.1"),
        ("HOME", "/root"),
    ]);
    let upstreams = Assigned::List(vec!["home".to_owned(), "cloudflare".to_owned()]);
    let overrides = overrides.with_flag("--upstream", "upstreams", upstreams).with_flag(
        "--log-level",
        "log.level",
        Assigned::Text("trace".to_owned()),
    );
    let file = "listen = [\"127.0.0.1:53\"]\n[rebinding]\nallow = [\"x\"]\n[cache]\nmin_ttl = \"3s\"";
    let settings = with_overrides(file, overrides).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(settings.cache.max_size, 256 << 20);
    assert_eq!(settings.cache.min_ttl, Duration::from_secs(3));
    assert!(!settings.cache.prefetch);
    assert_eq!(settings.listen.len(), 2);
    assert_eq!(settings.limits.attempts, 2);
    assert_eq!(settings.rebinding.allow, []);
    let names: Vec<&str> = settings.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["home", "cloudflare"]);
    assert_eq!(settings.log.level, LogLevel::Trace);
}

#[test]
fn errors_of_variables_and_flags_point_into_them() {
    let overrides = environment(&[
        ("VEILDNS_CACHE__MAX_SISE", "1"),
        ("VEILDNS_CACHE__PREFETCH", "perhaps"),
        ("VEILDNS_LISTEN", "127.0.0.1:53,x"),
        ("VEILDNS_ROUTE__GROUP", "x"),
    ]);
    let overrides = overrides.with_flag("--log-level", "log.level", Assigned::Text("loud".to_owned()));
    let errors = with_overrides("", overrides).unwrap_err();
    assert_eq!(
        errors.lines().collect::<Vec<_>>(),
        [
            "environment:1:1: unknown variable VEILDNS_CACHE__MAX_SISE",
            "environment:1:25: cache.prefetch: found a string",
            "environment:1:29: listen: \"x\" is not an address with a port",
            "environment:1:1: unknown variable VEILDNS_ROUTE__GROUP",
            "command line:1:13: log.level: unknown value \"loud\"",
        ]
    );
    assert!(errors.to_string().contains("did you mean VEILDNS_CACHE__MAX_SIZE?"));
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_of_our_name_are_not_ours() {
    let overrides = environment(&[
        ("VEILDNS_SERVICE_HOST", "10.0.0.1"),
        ("VEILDNS_SERVICE_PORT_DNS", "53"),
        ("VEILDNS_PORT", "udp://10.0.0.1:53"),
        ("VEILDNS_PORT_53_UDP_ADDR", "10.0.0.1"),
    ]);
    assert!(with_overrides("", overrides).is_ok());
    // This one somebody wrote, and it does nothing.
    assert!(with_overrides("", environment(&[("VEILDNS_PORT", "53")])).is_err());
}

#[test]
fn what_a_command_brings_along_is_under_the_files() {
    let brought = |overrides: Overrides| {
        overrides
            .with_default("strategy", Assigned::Text("failover".to_owned()))
            .with_default("upstreams", Assigned::List(vec!["google".to_owned()]))
            .with_default("limits.max_connections", Assigned::Integer(5))
    };
    let settings = with_overrides("", brought(Overrides::default())).unwrap();
    assert_eq!(settings.groups[0].strategy, StrategyKind::Failover);
    assert_eq!(settings.servers[0].name, "google");
    assert_eq!(settings.limits.max_connections, 5);
    let file = "upstreams = [\"quad9\"]\nstrategy = \"weighted\"";
    let settings = with_overrides(file, brought(environment(&[("VEILDNS_STRATEGY", "fastest")]))).unwrap();
    assert_eq!(settings.groups[0].strategy, StrategyKind::Fastest);
    let names: Vec<&str> = settings.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["quad9"]);
    assert_eq!(settings.limits.max_connections, 5);
}

#[test]
fn bootstrap_servers_are_used_when_a_name_has_to_be_looked_up_and_only_then() {
    let names = |settings: &Settings| -> Vec<String> {
        settings.servers.iter().map(|server| server.name.clone()).collect()
    };
    let by_name =
        "upstreams = [\"https://dns.example/dns-query\"]\nbootstrap = [\"https://192.0.2.1/q\", \"quad9\"]";
    let settings = good(by_name);
    assert_eq!(names(&settings), ["https://dns.example/dns-query", "https://192.0.2.1/q", "quad9"]);
    let group = &settings.groups[settings.bootstrap.unwrap()];
    assert_eq!((group.name.as_str(), group.members.as_slice(), group.own), ("bootstrap", &[1, 2][..], false));
    assert!(settings.routes.is_empty());

    let by_address = "upstreams = [\"https://192.0.2.7/dns-query\"]\nbootstrap = [\"quad9\"]";
    let settings = good(by_address);
    assert_eq!((names(&settings).len(), settings.groups.len(), settings.bootstrap), (1, 1, None));
}

#[test]
fn a_bootstrap_server_is_encrypted_and_at_an_address() {
    let upstreams = "upstreams = [\"https://dns.example/dns-query\"]\n";
    for (bootstrap, expected) in [
        ("\"udp://192.0.2.1\"", "2:14: bootstrap: udp://192.0.2.1 is plain DNS"),
        ("\"tls://dns.example\"", "2:14: bootstrap: tls://dns.example has no address of its own"),
        ("\"9.9.9.9\"", "2:14: bootstrap: \"9.9.9.9\" does not say by which protocol"),
        ("", "2:13: bootstrap is empty"),
    ] {
        let errors = bad(&format!("{upstreams}bootstrap = [{bootstrap}]"));
        assert_eq!(errors.first().map(String::as_str), Some(expected), "{errors:?}");
    }
    // It is not for clients.
    let errors = bad(&format!(
        "{upstreams}bootstrap = [\"quad9\"]\n[[route]]\ndomains = [\"a.example\"]\ngroup = \"bootstrap\""
    ));
    assert_eq!(errors, ["5:9: route.group: there is no group \"bootstrap\""]);
    let errors = bad("[group.bootstrap]\nupstreams = [\"quad9\"]");
    assert_eq!(errors, ["1:1: group.bootstrap: this name is taken"]);
}

/// The files that come with the program.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

/// Takes the `#` off the lines that begin with one of `marks`.
fn uncomment(text: &str, marks: &[&str]) -> String {
    let bare = |line: &str| {
        let rest = line.strip_prefix('#').unwrap_or(line);
        let setting = rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
        let example = rest.starts_with("   ");
        let wanted = setting && marks.contains(&"setting") || example && marks.contains(&"example");
        if wanted { rest.trim_start().to_owned() } else { line.to_owned() }
    };
    text.lines().map(bare).collect::<Vec<_>>().join("\n")
}

/// Lists all keys of a tree by the names of the key table.
fn key_names(table: &Table, prefix: &str, found: &mut BTreeSet<String>) {
    for (key, entry) in table {
        let free = matches!(prefix, "server." | "group.");
        let name = format!("{prefix}{}", if free { "*" } else { key });
        match &entry.node.value {
            Value::Table(inner) => key_names(inner, &format!("{name}."), found),
            Value::List(items) if name == "route" => {
                for item in items {
                    key_names(item.table().unwrap(), "route.*.", found);
                }
            }
            Value::Text(_) | Value::Integer(_) | Value::Boolean(_) | Value::List(_) | Value::Foreign(_) => {
                found.insert(name);
            }
        }
    }
}

#[test]
fn uncommenting_the_default_file_changes_nothing() {
    let text = fs::read_to_string(shipped("veildns.toml")).unwrap();
    assert_eq!(good(&text), good(""), "everything in it is a comment");
    let mut uncommented = good(&uncomment(&text, &["setting"]));
    for listen in &mut uncommented.listen {
        assert!(std::mem::replace(&mut listen.written, false));
    }
    assert_eq!(uncommented, good(""));
}

#[test]
fn the_default_file_has_every_key_and_no_other() {
    let text = fs::read_to_string(shipped("veildns.toml")).unwrap();
    let mut faults = Faults::default();
    let tree = file::parse(0, &uncomment(&text, &["setting", "example"]), &mut faults);
    assert!(faults.is_empty(), "{faults:?}");
    let mut found = BTreeSet::new();
    key_names(&tree, "", &mut found);
    let known: BTreeSet<String> = keys::KEYS.iter().map(|key| key.name.to_owned()).collect();
    assert_eq!(found, known);
    for key in keys::KEYS.iter().filter(|key| !key.name.contains('*')) {
        let Some(default) = key.default else { continue };
        let last = key.name.rsplit('.').next().unwrap();
        assert!(text.contains(&format!("\n#{last} = {default}\n")), "{} = {default}", key.name);
    }
}

#[test]
fn the_examples_in_the_default_file_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("home.pem"), "").unwrap();
    let text = fs::read_to_string(shipped("veildns.toml")).unwrap();
    let text = uncomment(&text, &["setting", "example"]);
    let settings = from_text(&text, folder.path()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(settings.routes.len(), 1);
}

#[test]
fn every_file_that_comes_with_the_program_loads_without_a_notice() {
    let mut seen = 0;
    for entry in fs::read_dir(shipped("")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        seen += 1;
        let source = Source { path: Some(path), overrides: Overrides::default() };
        let settings = load(&source).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(settings.notices, Vec::<String>::new());
    }
    assert!(seen >= 4, "{seen} files");
}

#[test]
fn a_router_sends_its_own_names_home() {
    let source = Source { path: Some(shipped("router.toml")), overrides: Overrides::default() };
    let settings = load(&source).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(settings.groups[settings.routes[0].group].own);
    assert!(settings.access.contains(&"fe80::/10".parse().unwrap()));
}

#[test]
fn a_summary_fits_eighty_columns_and_says_what_is_unencrypted() {
    for name in ["veildns.toml", "laptop.toml", "router.toml", "untrusted-network.toml"] {
        let source = Source { path: Some(shipped(name)), overrides: Overrides::default() };
        let mut settings = load(&source).unwrap_or_else(|errors| panic!("{errors}"));
        settings.origin = Origin::BuiltIn;
        let page = summary::summary(&settings);
        assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
        assert!(page.lines().count() < 50, "{page}");
        assert_eq!(page.contains("UNENCRYPTED"), name == "router.toml", "{page}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,80}") {
        let _ = from_text(&text, Path::new("")).map_err(|errors| errors.to_string());
    }

    #[test]
    fn no_mutation_of_a_file_makes_the_reader_panic(at in 0usize..6000, with in "\\PC{0,3}") {
        let text = fs::read_to_string(shipped("veildns.toml")).unwrap();
        let mut text = uncomment(&text, &["setting", "example"]);
        let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        text.insert_str(at, &with);
        let _ = from_text(&text, Path::new("")).map_err(|errors| errors.to_string());
    }
}

#[test]
fn dnstap_is_off_until_an_output_is_written() {
    use super::settings::dnstap::{Collector, MessageKind};
    assert_eq!(good("").dnstap, None);
    assert_eq!(good("[dnstap]\noutput = \"off\"\nidentity = \"x\"").dnstap, None);
    let dnstap = good("[dnstap]\noutput = \"unix:run/tap.sock\"").dnstap.unwrap();
    assert_eq!(dnstap.collector, Collector::Unix("/nowhere/run/tap.sock".into()));
    assert!(MessageKind::WORDS.iter().all(|(_, kind)| dnstap.messages.contains(*kind)));
    assert_eq!((dnstap.clients, dnstap.identity.as_str()), (QueryClients::Full, ""));
    let settings = good(
        "[dnstap]\noutput = \"tcp://[::1]:6000\"\nmessages = [\"forwarder_query\"]\nclients = \"masked\"\nidentity = \"gw\"",
    );
    let dnstap = settings.dnstap.unwrap();
    assert_eq!(dnstap.collector.to_string(), "tcp://[::1]:6000");
    let wanted: Vec<&str> = MessageKind::WORDS
        .into_iter()
        .filter(|(_, kind)| dnstap.messages.contains(*kind))
        .map(|(word, _)| word)
        .collect();
    assert_eq!(wanted, ["forwarder_query"]);
    assert_eq!((dnstap.clients, dnstap.identity.as_str()), (QueryClients::Masked, "gw"));
    assert!(settings.notices.is_empty(), "loopback stays on the machine");
}

#[test]
fn a_collector_elsewhere_is_told_of_and_a_place_that_is_none_is_a_fault() {
    let notices = good("[dnstap]\noutput = \"tcp://192.0.2.1:6000\"").notices;
    assert!(notices.iter().any(|notice| notice.contains("unencrypted")), "{notices:?}");
    for output in ["/run/tap.sock", "tcp://localhost:6000", "tcp://127.0.0.1", "unix:", "file:tap"] {
        assert_eq!(bad(&format!("[dnstap]\noutput = \"{output}\"")).len(), 1, "{output}");
    }
    let long = format!("[dnstap]\noutput = \"unix:/{}\"", "x".repeat(107));
    assert!(report(&long).contains("too long for a socket"));
    assert!(report("[dnstap]\nmessages = [\"client_querry\"]").contains("client_query"));
    assert!(report("[dnstap]\nmessages = []").contains("expected at least one kind"));
    assert!(report("[dnstap]\nclients = \"none\"").contains("full | masked | absent"));
}

#[cfg(feature = "otel")]
#[test]
fn traces_are_off_until_they_are_switched_on_and_go_to_this_host() {
    assert_eq!(good("[otel]\nsample = \"5%\"").traces, None);
    let traces = good("[otel]\ntraces = true").traces.unwrap();
    assert_eq!(traces.collector.to_string(), "http://127.0.0.1:4318/v1/traces");
    assert_eq!((traces.sample.to_string(), traces.names), ("100%".to_owned(), false));
    let traces =
        good("[otel]\ntraces = true\nendpoint = \"http://[::1]:9/otlp\"\nsample = \"0.5%\"").traces.unwrap();
    assert_eq!(traces.collector.to_string(), "http://[::1]:9/otlp");
    assert_eq!(traces.sample.to_string(), "0.5%");
}

#[cfg(feature = "otel")]
#[test]
fn a_collector_is_given_by_address_and_asked_without_tls() {
    for (endpoint, message) in [
        ("http://collector.example:4318", "the host is a name"),
        ("http://localhost:4318", "write its address: the name would be looked up by the system"),
        ("https://127.0.0.1:4318", "only plain http:// is spoken to a collector"),
        ("127.0.0.1:4318", "not the URL of a collector"),
        ("http://127.0.0.1:0", "is not a port"),
        ("http://127.0.0.1/v1/traces?x", "the path has characters that do not belong there"),
        ("http://", "the host is missing"),
    ] {
        let report = report(&format!("[otel]\ntraces = true\nendpoint = \"{endpoint}\""));
        assert!(report.contains(message), "{endpoint}\n{report}");
    }
    assert!(report("[otel]\nsample = \"0%\"").contains("\"0%\" is no share"));
    assert!(report("[otel]\nservice_name = \"\"").contains("is no name of a service"));
    let notices = good("[otel]\ntraces = true\nnames = true\nendpoint = \"http://192.0.2.1\"").notices;
    assert_eq!(
        notices,
        ["otel.names: names of queries leave unencrypted, to the collector at 192.0.2.1:4318"]
    );
}
