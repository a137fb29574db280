//! The checks against servers on loopback, good ones and liars, and files of the test's own. What needs port 53 and
//! addresses of others is in `tests/doctor.rs`.

use super::places::{Places, PortalProbe};
use super::report::{Finding, Status};
use super::{examine, plan, report};
use crate::config::from_text;
use crate::config::settings::Settings;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::thread;

/// What a resolver says.
#[derive(Clone, Copy)]
enum Resolver {
    /// Every name is at 127.0.0.1.
    Liar,
    /// The portal's name is at 127.0.0.1, all others are unknown.
    Honest,
}

impl Resolver {
    /// Starts it; its thread ends with the process.
    fn start(self) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                socket.send_to(&self.answer(&buffer[..length]), from).unwrap();
            }
        });
        address
    }

    /// Makes an answer: the query's header and question, perhaps an address.
    fn answer(self, query: &[u8]) -> Vec<u8> {
        let end = 12 + query[12..].iter().position(|octet| *octet == 0).unwrap() + 5;
        let is_portal = query[12..].starts_with(b"\x06portal");
        let knows = matches!(self, Self::Liar) || is_portal;
        let mut answer = query[..end].to_vec();
        answer[2] = 0x81;
        answer[3] = if knows { 0x80 } else { 0x83 };
        answer[6..12].copy_from_slice(&[0, u8::from(knows), 0, 0, 0, 0]);
        if knows {
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        answer
    }
}

/// Starts a web server that answers everybody with this; its thread ends with the process.
fn web(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

/// A machine: a folder with its files, and where its checks go.
struct Machine {
    folder: tempfile::TempDir,
    places: Places,
    settings: Settings,
}

/// A port of loopback that nobody has.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Machine {
    /// All is well but the server, which refuses.
    fn new(resolver: Resolver, portal: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let usual = resolver.start();
        let silent = SocketAddr::from(([127, 0, 0, 1], closed_port()));
        let places = Places {
            resolv_conf: folder.path().join("resolv.conf"),
            resolved_conf: folder.path().join("resolved.conf"),
            if_inet6: folder.path().join("if_inet6"),
            nobody: vec![silent],
            nobody_web: vec![SocketAddr::from(([127, 0, 0, 1], closed_port()))],
            told_by_network: vec![folder.path().join("lease")],
            route: folder.path().join("route"),
            usual,
            dot_port: closed_port(),
            https_port: closed_port(),
            portal: PortalProbe { host: "portal.test", port: web(portal), path: "/generate_204" },
            built: None,
            ..Places::default()
        };
        let refusing = closed_port();
        let text = format!(
            "listen = [\"{usual}\"]\nupstreams = [\"home\"]\n[server.home]\nurl = \"tls://dns.test:{refusing}\"\naddresses = [\"127.0.0.1\"]\n"
        );
        let settings = from_text(&text, Path::new(".")).unwrap();
        let machine = Self { folder, places, settings };
        machine.write("resolv.conf", "nameserver 127.0.0.1\n");
        machine
    }

    /// Writes one of its files.
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// What a check finds.
    fn finding(&self, check: &str) -> Finding {
        let findings = examine(&self.settings, &self.places).unwrap();
        findings.into_iter().find(|finding| finding.check == check).unwrap()
    }
}

/// A good answer of the page.
const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n";

#[test]
fn an_honest_network_is_told_so() {
    let machine = Machine::new(Resolver::Honest, NO_CONTENT);
    for check in ["resolv.conf", "interception", "rewriting", "portal", "ipv6", "clock"] {
        let finding = machine.finding(check);
        assert_eq!((finding.status, &finding.advice), (Status::Ok, &None), "{finding:?}");
    }
}

#[test]
fn an_address_for_a_name_that_does_not_exist_is_rewriting() {
    let finding = Machine::new(Resolver::Liar, NO_CONTENT).finding("rewriting");
    assert_eq!(finding.status, Status::Fail);
    assert!(finding.seen.contains("is at 127.0.0.1"), "{finding:?}");
}

#[test]
fn a_nameserver_that_says_nothing_means_no_dns() {
    let mut machine = Machine::new(Resolver::Honest, NO_CONTENT);
    machine.places.usual.set_port(closed_port());
    let finding = machine.finding("rewriting");
    assert_eq!(finding.status, Status::Fail);
    assert!(finding.seen.contains("have no DNS"), "{finding:?}");
}

#[test]
fn an_answer_from_where_no_server_is_is_interception() {
    let mut machine = Machine::new(Resolver::Honest, NO_CONTENT);
    machine.places.nobody.push(Resolver::Honest.start());
    let finding = machine.finding("interception");
    assert_eq!(finding.status, Status::Warn, "programs ask veildns only: {finding:?}");
    assert!(finding.seen.starts_with(&machine.places.nobody[1].to_string()), "{finding:?}");
    machine.write("resolv.conf", "nameserver 127.0.0.1\nnameserver 127.0.0.2\n");
    assert_eq!(machine.finding("interception").status, Status::Fail, "some ask others");
}

#[test]
fn a_portal_is_recognised_and_its_page_named() {
    let redirect = "HTTP/1.1 302 Found\r\nLocation: http://login.test/\x1b[2J\r\n\r\n";
    let finding = Machine::new(Resolver::Honest, redirect).finding("portal");
    assert_eq!(finding.status, Status::Fail);
    assert_eq!(finding.advice.as_deref(), Some("log in: open http://login.test/\\u{1b}[2J in a browser"));
    let page = Machine::new(Resolver::Honest, "HTTP/1.0 200 OK\r\n\r\n<html>").finding("portal");
    assert_eq!(page.status, Status::Fail, "{page:?}");
    let mute = Machine::new(Resolver::Honest, "").finding("portal");
    assert_eq!(mute.status, Status::Warn, "{mute:?}");
}

#[test]
fn the_date_of_a_web_server_judges_the_clock() {
    let old = "HTTP/1.1 204 No Content\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
    let finding = Machine::new(Resolver::Honest, old).finding("clock");
    assert_eq!(finding.status, Status::Fail);
    assert!(finding.seen.contains("1994-11-06 08:49 UTC"), "{finding:?}");
}

#[test]
fn a_blocked_port_leads_to_the_open_one() {
    let mut machine = Machine::new(Resolver::Honest, NO_CONTENT);
    let refused = machine.finding("server");
    assert_eq!(refused.status, Status::Fail);
    assert!(refused.advice.unwrap().contains("is there a network at all?"));
    machine.places.https_port = web("");
    let finding = machine.finding("server");
    assert!(finding.advice.as_ref().unwrap().contains("ask it over DNS over HTTPS"), "{finding:?}");
}

#[test]
fn ipv6_that_leads_nowhere_is_told() {
    let mut machine = Machine::new(Resolver::Honest, NO_CONTENT);
    let port = closed_port();
    let text = format!(
        "upstreams = [\"home\"]\n[server.home]\nurl = \"tls://dns.test:{port}\"\naddresses = [\"::1\"]\n"
    );
    machine.settings = from_text(&text, Path::new(".")).unwrap();
    machine.write("if_inet6", "fe800000000000000000000000000001 02 40 20 80 eth0\n");
    assert_eq!(machine.finding("ipv6").status, Status::Ok, "a link-local address promises nothing");
    machine.write("if_inet6", "20010db8000000000000000000000001 02 40 00 80 eth0\n");
    assert_eq!(machine.finding("ipv6").status, Status::Warn);
}

#[test]
fn who_has_the_port_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut machine = Machine::new(Resolver::Honest, NO_CONTENT);
    let text = format!("listen = [\"{}\"]\n", taken.local_addr().unwrap());
    machine.settings.listen = from_text(&text, Path::new(".")).unwrap().listen;
    let finding = machine.finding("ports");
    assert_eq!(finding.status, Status::Fail);
    assert!(finding.seen.contains(&format!("(pid {})", std::process::id())), "{finding:?}");
    assert_eq!(finding.advice.as_deref(), Some("stop it, or listen on another address or port"));
}

#[test]
fn who_owns_resolv_conf_decides_the_advice() {
    let machine = Machine::new(Resolver::Honest, NO_CONTENT);
    for (text, owner, advice) in [
        ("# Generated by NetworkManager\nnameserver 192.0.2.9\n", "NetworkManager", "nmcli"),
        (
            "# This is run by systemd-resolved(8).\nnameserver 127.0.0.53\n",
            "systemd-resolved",
            "resolved.conf",
        ),
        ("nameserver 192.0.2.9\nnameserver 127.0.0.1\n", "hand", "nameserver 127.0.0.1"),
        ("# Generated by resolvconf\nnameserver fe80::1%eth0\n", "resolvconf", "resolvconf -u"),
    ] {
        machine.write("resolv.conf", text);
        let finding = machine.finding("resolv.conf");
        assert_eq!(finding.status, Status::Warn, "{text}");
        assert!(finding.seen.contains(owner), "{finding:?}");
        assert!(finding.advice.as_ref().unwrap().contains(advice), "{finding:?}");
    }
    machine.write("resolv.conf", "# This is run by systemd-resolved(8).\nnameserver 127.0.0.53\n");
    machine.write("resolved.conf", "nameserver 127.0.0.1\n");
    let finding = machine.finding("resolv.conf");
    assert_eq!(finding.status, Status::Ok, "{finding:?}");
}

/// Returns what the plan says of the servers.
fn plan_of_servers(text: &str) -> String {
    let mut machine = Machine::new(Resolver::Honest, NO_CONTENT);
    machine.settings = from_text(text, Path::new(".")).unwrap();
    let intents = plan(&machine.settings, &machine.places);
    intents.into_iter().find(|intent| intent.check == "server").unwrap().sends
}

#[test]
fn the_plan_says_who_is_asked_for_the_way_to_a_server() {
    let both = plan_of_servers(
        "upstreams = [\"home\", \"tls://dns.example\"]\n[server.home]\nurl = \"tls://dns.test\"\naddresses = [\"192.0.2.1\"]\n",
    );
    for said in [
        "before that, encrypted, the addresses of dns.example from home",
        "the AAAA of ipv4only.arpa from home, then connections to home, tls://dns.example through the network's NAT64",
    ] {
        assert!(both.contains(said), "{both}");
    }
    let v6 = plan_of_servers("upstreams = [\"tls://[2001:db8::1]\"]\n");
    assert!(!v6.contains("NAT64") && !v6.contains("before that"), "{v6}");
}

#[test]
fn the_plan_names_everybody_who_is_asked() {
    let machine = Machine::new(Resolver::Honest, NO_CONTENT);
    let intents = plan(&machine.settings, &machine.places);
    let findings = examine(&machine.settings, &machine.places).unwrap();
    for finding in findings {
        assert!(intents.iter().any(|intent| intent.check == finding.check), "{finding:?}");
    }
    let text = report::plan_text(&intents).split_whitespace().collect::<Vec<_>>().join(" ");
    let places = &machine.places;
    for word in
        [places.nobody[0].to_string(), places.usual.to_string(), places.portal.url(), "home".to_owned()]
    {
        assert!(text.contains(&word), "{word}: {text}");
    }
}
