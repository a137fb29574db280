//! What is wrong is said once, with its place and what was meant.

use super::*;

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
fn a_number_without_a_unit_is_told_what_it_may_mean_within_the_bounds() {
    for (text, help) in [
        ("[cache]\nmax_size = 64", "perhaps \"64MiB\""),
        ("[cache]\nmax_size = 67108864", "perhaps \"64MiB\""),
        ("[timeouts]\nquery = 4", "perhaps \"4s\""),
        ("[timeouts]\nquery = \"4000\"", "perhaps \"4s\""),
        ("[cache]\nstale_after = 1800", "perhaps \"1800s\""),
    ] {
        assert!(report(text).contains(&format!("help: {help}")), "{}", report(text));
    }
    assert!(!report("[timeouts]\nquery = 99999999").contains("perhaps"), "no reading is within the bounds");
}

#[test]
fn times_that_contradict_each_other_are_told_what_to_change() {
    for (text, says, label) in [
        (
            "[timeouts]\nattempt_min = \"3s\"",
            "2:15: timeouts.attempt_min (3s) is above timeouts.attempt_max (2s)",
            "lower it to 2s, or raise timeouts.attempt_max as well",
        ),
        (
            "[timeouts]\nattempt_max = \"200ms\"",
            "2:15: timeouts.attempt_min (250ms) is above timeouts.attempt_max (200ms)",
            "raise it to 250ms, or lower timeouts.attempt_min as well",
        ),
        (
            "[timeouts]\nquery = \"1s\"\nattempt_min = \"1s\"",
            "3:15: timeouts.attempt_min is not below timeouts.query, which is 1s",
            "nobody else would ever be asked",
        ),
        (
            "[cache]\nfailure_ttl = \"2m\"",
            "2:15: cache.failure_ttl (2m) is above cache.failure_max_ttl (1m)",
            "lower it to 1m, or raise cache.failure_max_ttl as well",
        ),
        (
            "[cache]\nfailure_ttl = \"30s\"\nfailure_max_ttl = \"20s\"",
            "3:19: cache.failure_ttl (30s) is above cache.failure_max_ttl (20s)",
            "raise it to 30s, or lower cache.failure_ttl as well",
        ),
        (
            "[cache]\nfailure_ttl = \"500ms\"",
            "2:15: cache.failure_ttl: 500ms is out of bounds",
            "expected 1s to 5m",
        ),
        (
            "[cache]\nfailure_max_ttl = \"1h\"",
            "2:19: cache.failure_max_ttl: 1h is out of bounds",
            "expected 1s to 5m",
        ),
    ] {
        assert_eq!(bad(text), [says]);
        assert!(report(text).contains(label), "{}", report(text));
    }
    good("[timeouts]\nquery = \"100ms\"");
    good("[timeouts]\nattempt_min = \"2s\"");
    good("[cache]\nfailure_ttl = \"5m\"\nfailure_max_ttl = \"5m\"");
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
        // Nobody could look the name up.
        "upstreams = [\"home\"]\n[server.home]\nurl = \"tls://dns.example\"\naddresses = [\"192.0.2.256\"]",
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
fn a_star_is_told_what_stands_for_all_names() {
    for (text, suggestion) in
        [("*", "write \".\""), ("*.", "write \".\""), ("*.corp.example", "write \"corp.example\"")]
    {
        let report = report(&format!("[rebinding]\nallow = [\"{text}\"]"));
        assert!(report.contains(suggestion), "{text}\n{report}");
    }
    assert_eq!(good("[rebinding]\nallow = [\".\"]").rebinding.allow.len(), 1);
}

/// One error is shown with its lines alone, and not more than somebody would read: 3,000 of them took a minute.
#[test]
fn a_file_of_rubbish_is_answered_with_its_first_errors() {
    let mut text = "[limits]\n".to_owned();
    (0..3000).for_each(|n| text.push_str(&format!("wrong{n} = 1\n")));
    let errors = from_text(&text, Path::new("/nowhere")).expect_err("errors");
    assert_eq!(errors.count(), 3000);
    let report = errors.to_string();
    assert!(report.ends_with("3000 errors in the configuration; the first 50 are shown"), "{report}");
    assert_eq!(report.matches("error: unknown key").count(), 50, "{report}");
    assert!(report.contains("--> configuration:51:1") && report.contains("51 | wrong49 = 1"), "{report}");
    assert!(!report.contains("wrong50"), "{report}");
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
