//! Those who come from another program: `proxy-dns` with the flags and variables of cloudflared against servers that are not
//! ours, and `import` of configurations as people have them (`tests/imports`), each of which has to pass `check`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::excessive_nesting,
    clippy::missing_docs_in_private_items,
    reason = "a broken assumption must end a test, and its table is its documentation"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::authority::{self, Certificate, NAME};
use support::binary::{Running, run, stderr, stdout, veildns, written};
use support::message::{query, rcode, rtype};
use support::script::Script;
use support::server::{Protocol, Server};
use support::trap::{Trap, assert_udp_silent};
use veildns::config;

/// `proxy-dns` on a port of the kernel's choice, with the tests' authority trusted and no file but an empty one.
fn proxy_dns(directory: &Path) -> Command {
    let file = directory.join("empty.toml");
    std::fs::write(&file, "").unwrap();
    let mut command = veildns();
    command.arg("proxy-dns").arg("--config").arg(file);
    command.env("VEILDNS_TLS__EXTRA_CA_DIR", authority::trusted().directory()).env("VEILDNS_WORKERS", "1");
    command
}

/// Where a server is, by its address.
fn at_address(server: &Server) -> String {
    format!("https://{}/dns-query", server.address)
}

/// The names that a server was asked for.
fn names_asked(server: &Server) -> Vec<String> {
    let queries = server.log.queries();
    queries.iter().map(|query| support::message::Message::read(query).question.unwrap().name).collect()
}

#[test]
fn flags_of_cloudflared_run_the_gateway_and_the_bootstrap_server_hears_of_upstreams_only() {
    let (upstream, bootstrap) =
        (Server::start(Protocol::Doh, Script::good()), Server::start(Protocol::Doh, Script::phonebook()));
    let directory = tempfile::tempdir().unwrap();
    let mut command = proxy_dns(directory.path());
    command.args([
        "--address",
        "localhost",
        "--port",
        "0",
        "--max-upstream-conns",
        "0",
        "--loglevel",
        "fatal",
    ]);
    command.args(["--upstream", &upstream.url(), "--bootstrap", &at_address(&bootstrap)]);
    command.args(["--metrics", "localhost:"]);
    let running = Running::start_as(command);
    assert!(running.address.ip().is_loopback());
    for number in 0..4 {
        let name = format!("host-{number}.lab.example");
        assert_eq!(running.client().udp(&query(&name, rtype::A)).rcode(), rcode::NOERROR, "{name}");
        assert_eq!(upstream.log.asked_for(&format!("{name}.")), 1, "{name}");
    }
    let names = names_asked(&bootstrap);
    assert!(!names.is_empty() && names.iter().all(|name| *name == format!("{NAME}.")), "{names:?}");
}

#[test]
fn variables_of_cloudflared_count_and_flags_win_over_them() {
    let servers = [(); 2].map(|()| Server::start(Protocol::Doh, Script::good()));
    let directory = tempfile::tempdir().unwrap();
    let variables = |command: &mut Command| {
        command
            .env("TUNNEL_DNS_ADDRESS", "127.0.0.1")
            .env("TUNNEL_DNS_PORT", "0")
            .env("TUNNEL_DNS_BOOTSTRAP", "")
            .env("TUNNEL_METRICS", "")
            .env("TUNNEL_DNS_UPSTREAM", format!("{},{}", at_address(&servers[0]), at_address(&servers[1])));
    };
    let mut command = proxy_dns(directory.path());
    variables(&mut command);
    let running = Running::start_as(command);
    let ask = |running: &Running, name: &str| running.client().udp(&query(name, rtype::A)).rcode();
    assert_eq!(ask(&running, "host-a.lab.example"), rcode::NOERROR);
    // In their order: the second is there for when the first is not.
    assert_eq!(servers.each_ref().map(|server| server.log.asked_for("host-a.lab.example.")), [1, 0]);
    servers[0].down();
    assert_eq!(ask(&running, "host-b.lab.example"), rcode::NOERROR);
    assert_eq!(servers[1].log.asked_for("host-b.lab.example."), 1);
    servers[0].up();
    drop(running);

    let mut command = proxy_dns(directory.path());
    variables(&mut command);
    command.args(["--upstream", &at_address(&servers[1])]);
    let running = Running::start_as(command);
    assert_eq!(ask(&running, "host-c.lab.example"), rcode::NOERROR);
    assert_eq!(servers.each_ref().map(|server| server.log.asked_for("host-c.lab.example.")), [0, 1]);
}

#[test]
fn without_its_bootstrap_servers_nothing_is_looked_up_in_plain_sight() {
    let upstream = Server::start(Protocol::Doh, Script::good());
    let bootstrap = Server::refusing(Protocol::Doh, Script::phonebook(), Certificate::Good);
    // Who falls back to plain DNS might ask here.
    let trap = Trap::udp_beside(bootstrap.address);
    let directory = tempfile::tempdir().unwrap();
    let mut command = proxy_dns(directory.path());
    command.args(["--port", "0", "--upstream", &upstream.url()]);
    command.args(["--bootstrap", &at_address(&bootstrap)]);
    let running = Running::start_as(command);
    let answer = running.client().udp(&query("www.lab.example", rtype::A));
    assert_eq!(answer.rcode(), rcode::SERVFAIL, "{answer:?}");
    assert_eq!(upstream.log.asked(), 0);
    assert_udp_silent(&trap);
}

#[test]
fn what_cannot_be_meant_is_a_usage_error_and_what_cannot_be_used_one_of_the_configuration() {
    for (arguments, code, words) in [
        (&["--port", "70000"][..], 64, "--port"),
        (&["--address", "router.lan"], 64, "localhost"),
        (&["--metrics", "9153"], 64, "127.0.0.1:9153"),
        (&["--max-upstream-conns", "many"], 64, "--max-upstream-conns"),
        (&["--upstream", "http://192.0.2.1/dns-query"], 78, "https://"),
        (&["--upstream", "https://dns.example/q", "--bootstrap", "udp://192.0.2.1"], 78, "plain DNS"),
        (&["--upstream", "https://dns.example/q", "--bootstrap", "https://other.example/q"], 78, "address"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let output = proxy_dns(directory.path()).args(["--port", "0"]).args(arguments).output().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {text}");
    }
}

/// A file of `tests/imports`.
fn original(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/imports").join(name)
}

/// Runs `import`.
fn import(arguments: &[&str]) -> Output {
    run(&[&["import"], arguments].concat())
}

/// Imports what is expected to be good, and returns what is not a comment and the comments with their lines joined.
fn imported(arguments: &[&str]) -> (String, String) {
    let output = import(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    let text = stdout(&output);
    let (_directory, file) = written(&text);
    let checked = run(&["check", "--config", file.to_str().unwrap()]);
    assert!(checked.status.success(), "{text}\n{}", stderr(&checked));
    let (comments, keys): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('#'));
    let comments: Vec<&str> = comments.iter().flat_map(|line| line[1..].split_whitespace()).collect();
    (keys.join("\n").trim().to_owned(), comments.join(" "))
}

#[test]
fn a_configuration_of_stubby_is_carried_over() {
    let (keys, comments) = imported(&[original("stubby.yml").to_str().unwrap()]);
    let expected = r#"listen = ["127.0.0.1:8053", "[::1]:8053"]
upstreams = ["dns-one-example", "two-example", "two-example-2"]
strategy = "round-robin"

[server.dns-one-example]
url = "tls://dns.one.example"
addresses = ["192.0.2.53", "2001:db8::53"]
pins = ["sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]

[server.two-example]
url = "tls://two.example:443"
addresses = ["198.51.100.1"]

[server.two-example-2]
url = "tls://two.example:8853"
addresses = ["198.51.100.2"]

[limits]
dot_streams = 100

[log]
level = "info"

[privacy]
client_subnet = "opt-out"

[timeouts]
query = "3000ms"

[tls]
roots = "system"
min_version = "1.3""#;
    assert_eq!(keys, expected);
    for left in [
        "line 5, GETDNS_TRANSPORT_UDP: veildns never falls back to plain DNS",
        "line 6, tls_authentication: GETDNS_AUTHENTICATION_NONE: a server has always to show its certificate",
        "line 7, tls_query_padding_blocksize: 256:",
        "line 9, idle_timeout: 9000:",
        "line 16, appdata_dir: /var/cache/stubby:",
        "line 17, dnssec: GETDNS_EXTENSION_TRUE: veildns does not validate by itself",
        "line 33, 198.51.100.1, port:",
        "line 40, 203.0.113.7: without a tls_auth_name",
        "\"quad9\" has this address",
    ] {
        assert!(comments.contains(left), "{left} is not in {comments}");
    }
}

#[test]
fn a_configuration_of_https_dns_proxy_is_carried_over() {
    let (keys, comments) = imported(&[original("https-dns-proxy").to_str().unwrap()]);
    let expected = r#"listen = ["127.0.0.1:5053", "127.0.0.1:5054"]
upstreams = ["quad9", "https://resolver.example:8443/dns-query"]
bootstrap = ["quad9", "cloudflare"]

[log]
level = "warn""#;
    assert_eq!(keys, expected);
    for left in [
        "line 2, dnsmasq_config_update *: this is about dnsmasq and the firewall",
        "line 7, user nobody:",
        "line 12, bootstrap_dns 9.9.9.9: names of servers are looked up encrypted; \"quad9\" has this address",
        "line 18, bootstrap_dns 192.0.2.77: names of servers are looked up encrypted; this one is asked by plain DNS",
        "line 20, force_http1 1: HTTP/2 is spoken",
    ] {
        assert!(comments.contains(left), "{left} is not in {comments}");
    }
}

#[test]
fn a_command_line_of_https_dns_proxy_is_carried_over() {
    let table: [(&[&str], &str); 4] = [
        // That of who changed nothing.
        (&["--", "https_dns_proxy"], "listen = [\"127.0.0.1:5053\"]\nupstreams = [\"google\"]"),
        (
            &[
                "--",
                "/usr/sbin/https-dns-proxy",
                "-a",
                "::1",
                "-p5054",
                "-vv",
                "-r",
                "https://dns.quad9.net/dns-query",
            ],
            "listen = [\"[::1]:5054\"]\nupstreams = [\"quad9\"]\n\n[log]\nlevel = \"info\"",
        ),
        (
            &[
                "--",
                "https_dns_proxy",
                "-b",
                "192.0.2.1,[2001:db8::1]:53",
                "-r",
                "https://dns.example/q",
                "-4",
            ],
            "listen = [\"127.0.0.1:5053\"]\nupstreams = [\"https://dns.example/q\"]\nbootstrap = [\"quad9\", \"cloudflare\"]",
        ),
        (
            &["--", "-r", "https://dns.example/q", "-R", "192.0.2.9", "-T", "40"],
            "listen = [\"127.0.0.1:5053\"]\nupstreams = [\"dns-example\"]\n\n[server.dns-example]\n\
             url = \"https://dns.example/q\"\naddresses = [\"192.0.2.9\"]\n\n[limits]\ntcp_connections = 40",
        ),
    ];
    for (arguments, expected) in table {
        assert_eq!(imported(arguments).0, expected, "{arguments:?}");
    }
}

#[test]
fn mistakes_of_an_original_are_shown_at_their_lines_all_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let server = "upstream_recursive_servers:\n  - address_data: 192.0.2.1\n    tls_auth_name: dns.example\n";
    for (from, text, expected) in [
        (
            "stubby",
            format!("listen_addresses: [127.0.0.1@x]\ntimeout: soon\n{server}"),
            &["original:1:20\n", "original:2:10\n"][..],
        ),
        ("stubby", format!("{server}    tls_port: 0\n"), &["original:4:15\n"]),
        (
            "stubby",
            format!("{server}    tls_pubkey_pinset:\n      - digest: sha256\n        value: short\n"),
            &["original:6:16\n"],
        ),
        ("stubby", "dns_transport_list: [GETDNS_TRANSPORT_UDP]\n".to_owned() + server, &["original:1:21\n"]),
        ("stubby", "listen_addresses: [\n".to_owned(), &["not YAML"]),
        (
            "stubby",
            "upstream_recursive_servers:\n  - address_data: 192.0.2.1\n".to_owned(),
            &["original:1:1\n"],
        ),
        ("stubby", "round_robin_upstreams: 1\n".to_owned(), &["upstream_recursive_servers is not there"]),
        (
            "https-dns-proxy",
            "config https-dns-proxy\n\toption resolver_url 'http://a.example/q'\n\toption listen_port 'x'\n"
                .to_owned(),
            &["original:2:22\n", "original:3:21\n"],
        ),
        ("https-dns-proxy", "config main 'config'\n".to_owned(), &["no instance"]),
    ] {
        let file = directory.path().join("original");
        std::fs::write(&file, &text).unwrap();
        let output = import(&[file.to_str().unwrap(), "--from", from]);
        let errors = stderr(&output);
        assert_eq!(output.status.code(), Some(78), "{text}{errors}");
        assert!(output.stdout.is_empty(), "{text}");
        for expected in expected {
            assert!(errors.contains(expected), "{expected}: {text}{errors}");
        }
    }
}

#[test]
fn an_import_overwrites_nothing_and_says_what_is_next() {
    let directory = tempfile::tempdir().unwrap();
    let result = directory.path().join("veildns.toml");
    let arguments =
        [original("stubby.yml").display().to_string(), "--output".to_owned(), result.display().to_string()];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let first = import(&arguments);
    let said = stderr(&first);
    assert!(first.status.success() && first.stdout.is_empty(), "{said}");
    assert!(said.contains("veildns check --config") && said.contains("not carried over"), "{said}");
    let text = std::fs::read_to_string(&result).unwrap();
    assert!(config::from_text(&text, directory.path()).is_ok());
    let second = import(&arguments);
    assert_eq!(second.status.code(), Some(64), "{}", stderr(&second));
    assert_eq!(std::fs::read_to_string(&result).unwrap(), text);
    for (arguments, code) in [
        (&["no/such/file"][..], 78),
        (&[][..], 64),
        (&["--", "unbound", "-d"][..], 64),
        (&["--", "https_dns_proxy", "-Z"][..], 78),
        (&[env!("CARGO_MANIFEST_DIR"), "--from", "stubby"][..], 78),
    ] {
        assert_eq!(import(arguments).status.code(), Some(code), "{arguments:?}");
    }
}
