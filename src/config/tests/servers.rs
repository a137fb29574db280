//! Presets, servers of one's own, and the groups and names that they make up.

use super::*;

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
