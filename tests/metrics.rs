//! The metrics page: names that scripts rely on, numbers that add up, and nothing on it that a client sent.

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

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use support::authority::Certificate;
use support::gateway::{Gateway, setup};
use support::message::{query, rcode, rtype};
use support::script::{Reply, Script};
use support::server::{Protocol, Server};
use support::{PATIENCE, eventually};

/// Fetches a path: status line, head, body.
fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// Fetches the metrics.
fn metrics(gateway: &Gateway) -> String {
    let (head, body) = get(gateway.gateway().metrics_address().unwrap(), "/metrics");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body
}

/// Returns the value of a sample, 0 when it is not there.
fn value(page: &str, sample: &str) -> f64 {
    let line = page.lines().find(|line| line.strip_prefix(sample).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.rsplit(' ').next()).map_or(0.0, |value| value.parse().unwrap())
}

const METRICS: &str = "[metrics]\nlisten = \"127.0.0.1:0\"";

#[test]
fn queries_hits_and_misses_add_up() {
    let server = Server::start(Protocol::Dot, Script::good());
    let gateway = setup().server("lab", &server).table(METRICS).start();
    let client = gateway.client();
    for _ in 0..3 {
        client.udp(&query("host-one.lab.example", rtype::A));
        client.tcp(&query("host-two.lab.example", rtype::A));
    }
    client.udp(&query("missing.lab.example", rtype::A));
    client.udp(&query("printer.local", rtype::A));
    let page = metrics(&gateway);
    for (sample, expected) in [
        ("veildns_queries_total{transport=\"udp\"}", 5.0),
        ("veildns_queries_total{transport=\"tcp\"}", 3.0),
        ("veildns_cache_hits_total", 4.0),
        ("veildns_cache_misses_total", 3.0),
        ("veildns_cache_entries", 3.0),
        ("veildns_inflight", 0.0),
        ("veildns_responses_total{rcode=\"NOERROR\",source=\"cache\"}", 4.0),
        ("veildns_responses_total{rcode=\"NOERROR\",source=\"upstream\"}", 2.0),
        ("veildns_responses_total{rcode=\"NXDOMAIN\",source=\"upstream\"}", 1.0),
        ("veildns_responses_total{rcode=\"NXDOMAIN\",source=\"local\"}", 1.0),
        ("veildns_upstream_queries_total{upstream=\"lab\",outcome=\"ok\"}", 3.0),
        ("veildns_upstream_up{upstream=\"lab\"}", 1.0),
        ("veildns_upstream_connections{upstream=\"lab\"}", 1.0),
        ("veildns_upstream_handshakes_total{upstream=\"lab\",resumed=\"false\"}", 1.0),
        ("veildns_plaintext_queries_total", 0.0),
    ] {
        assert!((value(&page, sample) - expected).abs() < 0.5, "{sample} is not {expected}:\n{page}");
    }
    assert!(value(&page, "veildns_cache_bytes") > 100.0);
    assert!(page.contains("veildns_build_info"));
    assert!(page.contains("veildns_query_duration_seconds_bucket"));
    assert!(page.contains("veildns_upstream_duration_seconds_count{upstream=\"lab\"} 3"), "{page}");
}

#[test]
fn failures_are_counted_by_kind_and_server() {
    let impostor = Server::with_certificate(Protocol::Dot, Script::good(), Certificate::Expired);
    let confused = Server::start(Protocol::Doh, Script::replying(Reply::WrongQuestion));
    let good = Server::start(Protocol::Dot, Script::good());
    let gateway = setup()
        .server("impostor", &impostor)
        .server("confused", &confused)
        .server("good", &good)
        .table(METRICS)
        .start();
    assert_eq!(gateway.client().udp(&query("host-x.lab.example", rtype::A)).rcode(), rcode::NOERROR);
    eventually("the failures are counted", || {
        let page = metrics(&gateway);
        value(&page, "veildns_upstream_queries_total{upstream=\"impostor\",outcome=\"certificate\"}") >= 1.0
            && value(&page, "veildns_upstream_queries_total{upstream=\"confused\",outcome=\"invalid\"}")
                >= 1.0
            && value(&page, "veildns_upstream_up{upstream=\"impostor\"}") < 0.5
    });
    let page = metrics(&gateway);
    assert!(
        page.lines().any(|line| line.starts_with("veildns_validation_failures_total{upstream=\"confused\"")),
        "{page}"
    );
}

#[test]
fn nothing_that_a_client_sends_becomes_a_label() {
    let server = Server::start(Protocol::Dot, Script::good());
    let gateway = setup().server("lab", &server).table(METRICS).start();
    let client = gateway.client();
    client.udp(&query("host-verysecret.lab.example", rtype::A));
    let before = metrics(&gateway).lines().count();
    for number in 0..50u16 {
        client.udp(&query(&format!("host-verysecret-{number}.lab.example"), 60_000 + number));
    }
    let page = metrics(&gateway);
    assert!(!page.contains("verysecret") && !page.contains("127.0.0.1"), "{page}");
    assert!(page.lines().count() <= before + 20, "labels are bounded");
}

#[test]
fn health_and_readiness_have_pages_and_nothing_else_does() {
    let server = Server::start(Protocol::Dot, Script::good());
    let gateway = setup().server("lab", &server).table(METRICS).start();
    let address = gateway.gateway().metrics_address().unwrap();
    for path in ["/health", "/ready"] {
        assert!(get(address, path).0.starts_with("HTTP/1.1 200"), "{path}");
    }
    assert!(get(address, "/nonsense").0.starts_with("HTTP/1.1 404"));
}
