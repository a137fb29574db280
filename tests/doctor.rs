//! `veildns doctor` from the shell: against an impostor on loopback, and in a network namespace of its own whose resolver
//! lies, whose addresses of nobody answer, and whose web is a captive portal. The namespace needs root on Linux; elsewhere
//! that test says that it is skipped, unless VEILDNS_REQUIRE_NETNS=1 forbids it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken assumption must end a test"
)]

mod support;

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::authority::Certificate;
use support::binary::{Running, stderr, veildns, written};
use support::gateway::setup;
use support::message::rtype;
use support::netns::{is_inside, run_inside, system};
use support::script::Script;
use support::server::{Protocol, Server};

/// Runs `doctor` with a configuration.
fn doctor(file: &Path, flags: &[&str]) -> Output {
    veildns().args(["doctor", "--config"]).arg(file).args(flags).output().unwrap()
}

/// Reads what was written as JSON.
fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(output)))
}

/// Returns the findings of a check.
fn findings<'a>(report: &'a Value, check: &str) -> Vec<&'a Value> {
    report["findings"].as_array().unwrap().iter().filter(|finding| finding["check"] == check).collect()
}

/// A configuration with one server.
fn with_server(server: &Server) -> (tempfile::TempDir, PathBuf) {
    written(&setup().server("lab", server).text())
}

#[test]
fn an_impostor_is_found_and_told_nothing() {
    for (certificate, word) in
        [(Certificate::UnknownAuthority, "intercepted"), (Certificate::Expired, "is the clock right?")]
    {
        let server = Server::with_certificate(Protocol::Dot, Script::good(), certificate);
        let (_directory, file) = with_server(&server);
        let output = doctor(&file, &["--json"]);
        assert_eq!(output.status.code(), Some(1));
        let report = json(&output);
        assert_eq!(report["ok"], false, "{report}");
        let found = findings(&report, "server");
        assert_eq!(found[0]["status"], "fail", "{report}");
        assert!(found[0]["seen"].as_str().unwrap().contains("certificate"), "{report}");
        assert!(found[0]["advice"].as_str().unwrap().contains(word), "{report}");
        assert_eq!(server.log.asked(), 0);
    }
}

#[test]
fn a_good_server_is_well() {
    for protocol in support::server::BOTH {
        let server = Server::start(protocol, Script::good());
        let (_directory, file) = with_server(&server);
        let report = json(&doctor(&file, &["--json"]));
        let found = findings(&report, "server");
        assert_eq!((found.len(), &found[0]["seen"].as_str().unwrap()[..3]), (1, "lab"), "{report}");
        assert_ne!(found[0]["status"], "fail", "{report}");
    }
}

#[test]
fn the_plan_sends_nothing() {
    let server = Server::start(Protocol::Dot, Script::good());
    let (_directory, file) = with_server(&server);
    let output = doctor(&file, &["--plan"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for word in ["192.0.2.1:53", "[2001:db8::1]:53", "http://", "lab", "resolv.conf"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let plan = json(&doctor(&file, &["--plan", "--json"]));
    assert_eq!(plan["plan"].as_array().unwrap().len(), 8, "{plan}");
    assert_eq!(plan.get("findings"), None);
    assert_eq!(server.log.connections(), 0);
}

#[test]
fn a_lying_network_is_seen_through() {
    run_inside("inside_the_lying_network");
}

#[test]
fn a_portal_is_seen_though_programs_ask_veildns() {
    run_inside("inside_the_portal");
}

/// Says that every name is at 203.0.113.80, whoever of these is asked.
fn lie(address: &str, queries: &AtomicUsize) {
    let socket = UdpSocket::bind(address).unwrap();
    let mut buffer = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        queries.fetch_add(1, Ordering::SeqCst);
        let mut answer = support::zone::start(&buffer[..length], 0);
        answer[7] = 1;
        answer.extend_from_slice(&[0xc0, 12, 0]);
        answer.push(u8::try_from(rtype::A).unwrap());
        answer.extend_from_slice(&[0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 80]);
        let _ = socket.send_to(&answer, from);
    }
}

/// Sends everybody to its log-in page.
fn hold_back(address: &str) {
    let listener = TcpListener::bind(address).unwrap();
    for mut stream in listener.incoming().flatten() {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\n\r\n");
    }
}

#[test]
#[ignore = "runs in the namespace that `a_lying_network_is_seen_through` makes"]
fn inside_the_lying_network() {
    if !is_inside() {
        return;
    }
    system("ip link set lo up");
    for address in ["192.0.2.1", "203.0.113.53", "203.0.113.80"] {
        system(&format!("ip address add {address}/32 dev lo"));
    }
    let directory = tempfile::tempdir().unwrap();
    let resolv_conf = directory.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 203.0.113.53\n").unwrap();
    system(&format!("mount --bind {} /etc/resolv.conf", resolv_conf.display()));
    let queries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&queries);
    std::thread::spawn(move || lie("0.0.0.0:53", &counted));
    std::thread::spawn(|| hold_back("203.0.113.80:80"));
    let server = Server::with_certificate(Protocol::Doh, Script::good(), Certificate::UnknownAuthority);
    let (_directory, file) = with_server(&server);

    assert!(doctor(&file, &["--plan"]).status.success());
    assert_eq!(queries.load(Ordering::SeqCst), 0, "the plan asks nobody");

    let output = doctor(&file, &["--json"]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    for (check, status, word) in [
        ("resolv.conf", "warn", "203.0.113.53"),
        ("interception", "fail", "192.0.2.1:53 answered"),
        ("rewriting", "fail", "is at 203.0.113.80"),
        ("portal", "fail", "302"),
        ("server", "fail", "certificate"),
        ("ipv6", "ok", "no global IPv6 address"),
    ] {
        let found = findings(&report, check);
        assert_eq!(found[0]["status"], status, "{check}: {report}");
        assert!(found[0]["seen"].as_str().unwrap().contains(word), "{check}: {report}");
    }
    let advice = findings(&report, "portal")[0]["advice"].as_str().unwrap();
    assert!(advice.contains("http://login.example/"), "{report}");
    assert!(queries.load(Ordering::SeqCst) >= 3);
    assert_eq!(server.log.asked(), 0, "an impostor is never asked");

    let table = String::from_utf8(doctor(&file, &[]).stdout).unwrap();
    let told = table.find("What is sent, and to whom:").unwrap();
    assert!(told < table.find("FAIL").unwrap(), "the plan comes first: {table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
}

/// The one nameserver of resolv.conf is veildns, whose server is out of reach, as behind a portal that bars everything.
#[test]
#[ignore = "runs in the namespace that `a_portal_is_seen_though_programs_ask_veildns` makes"]
fn inside_the_portal() {
    if !is_inside() {
        return;
    }
    system("ip link set lo up");
    for address in ["203.0.113.53", "203.0.113.80"] {
        system(&format!("ip address add {address}/32 dev lo"));
    }
    system("mount -t tmpfs none /run");
    let directory = tempfile::tempdir().unwrap();
    let resolv_conf = directory.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 127.0.0.1\n").unwrap();
    system(&format!("mount --bind {} /etc/resolv.conf", resolv_conf.display()));
    let file = directory.path().join("veildns.toml");
    let barred = "listen = [\"127.0.0.1:53\"]\nupstreams = [\"tls://203.0.113.99\"]\nworkers = 1\n";
    std::fs::write(&file, barred).unwrap();
    let gateway = Running::start(&file);

    let portal = |report: &Value| findings(report, "portal")[0].clone();
    let report = json(&doctor(&file, &["--json"]));
    assert_eq!(findings(&report, "resolv.conf")[0]["status"], "ok", "programs ask veildns: {report}");
    assert_eq!(portal(&report)["status"], "warn", "nobody says anything: {report}");

    // What systemd-networkd was told by DHCP leads to the portal.
    std::fs::create_dir_all("/run/systemd/netif/leases").unwrap();
    std::fs::write("/run/systemd/netif/leases/2", "ADDRESS=203.0.113.7\nDNS=203.0.113.53\n").unwrap();
    let plan = String::from_utf8(doctor(&file, &["--plan"]).stdout).unwrap();
    assert!(plan.contains("203.0.113.53:53") && plan.contains("192.0.2.1:80"), "{plan}");
    let queries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&queries);
    std::thread::spawn(move || lie("203.0.113.53:53", &counted));
    std::thread::spawn(|| hold_back("203.0.113.80:80"));
    let report = json(&doctor(&file, &["--json"]));
    assert_eq!(portal(&report)["status"], "fail", "{report}");
    assert!(portal(&report)["advice"].as_str().unwrap().contains("http://login.example/"), "{report}");
    assert_eq!(queries.load(Ordering::SeqCst), 1, "the network's resolver is asked for the page alone");

    // One whose resolver is not known, and that answers in place of every web server.
    std::fs::remove_file("/run/systemd/netif/leases/2").unwrap();
    system("ip address add 192.0.2.1/32 dev lo");
    std::thread::spawn(|| hold_back("192.0.2.1:80"));
    let report = json(&doctor(&file, &["--json"]));
    assert_eq!(portal(&report)["status"], "fail", "{report}");
    assert!(
        portal(&report)["seen"].as_str().unwrap().starts_with("192.0.2.1:80, where no server is"),
        "{report}"
    );
    assert_eq!(queries.load(Ordering::SeqCst), 1);
    drop(gateway);
}
