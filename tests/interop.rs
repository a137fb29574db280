//! veildns between programs of other makers: unbound, named and dnsdist as servers of DNS over TLS and DNS over HTTPS,
//! dig and kdig as clients. What comes through veildns is what the server says when it is asked without it.
//!
//! A peer that is not installed is skipped, and said so; with `VEILDNS_REQUIRE_PEERS=1` it is a failure.

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

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use support::authority::{Certificate, NAME, trusted};
use support::gateway::{Gateway, server_table, setup};
use support::installed::peer;
use support::message::{Message, Query, query, rcode, rtype};
use support::process::{Process, read};
use support::{client::Client, comes_true, trap::Trap};

/// The zone that unbound and named serve, in the form of RFC 1035 §5.
const ZONE: &str = r#"$ORIGIN peers.example.
$TTL 3600
@ IN SOA ns1.peers.example. hostmaster.peers.example. 1 7200 3600 1209600 300
@ IN NS ns1.peers.example.
@ IN MX 10 mail.peers.example.
@ IN MX 20 backup.peers.example.
@ IN TXT "v=spf1 -all" "second string"
@ IN CAA 0 issue "ca.example"
@ IN NAPTR 100 10 "u" "E2U+sip" "!^.*$!sip:info@peers.example!" .
ns1 IN A 104.51.100.1
mail IN A 104.51.100.2
backup IN AAAA 2606:4700::2
www IN A 104.51.100.3
www IN A 104.51.100.4
www IN AAAA 2606:4700::3
www IN TYPE65 \# 13 00010000010006026832026833
alias IN CNAME www
_sip._tcp IN SRV 0 5 5060 www
long IN TXT "0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
long IN TXT "1aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
long IN TXT "2aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
long IN TXT "3aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
long IN TXT "4aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
long IN TXT "5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
"#;

/// What is asked of every peer: name, type, rcode.
const QUESTIONS: &[(&str, u16, u16)] = &[
    ("www.peers.example", rtype::A, rcode::NOERROR),
    ("www.peers.example", rtype::AAAA, rcode::NOERROR),
    ("www.peers.example", rtype::HTTPS, rcode::NOERROR),
    ("WWW.peers.Example", rtype::A, rcode::NOERROR),
    ("alias.peers.example", rtype::A, rcode::NOERROR),
    ("peers.example", rtype::MX, rcode::NOERROR),
    ("peers.example", rtype::TXT, rcode::NOERROR),
    ("peers.example", rtype::CAA, rcode::NOERROR),
    ("peers.example", rtype::NAPTR, rcode::NOERROR),
    ("peers.example", rtype::SOA, rcode::NOERROR),
    ("_sip._tcp.peers.example", rtype::SRV, rcode::NOERROR),
    ("long.peers.example", rtype::TXT, rcode::NOERROR),
    ("www.peers.example", rtype::MX, rcode::NOERROR),
    ("missing.peers.example", rtype::A, rcode::NXDOMAIN),
];

/// A program of somebody else that serves the zone.
struct Peer {
    _process: Process,
    /// Where it answers plain DNS.
    plain: Client,
    dot: u16,
    doh: u16,
    folder: tempfile::TempDir,
}

/// A folder with the zone and a certificate that the test authority vouches for.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let identity = Certificate::Good.identity();
    std::fs::write(folder.path().join("zone"), ZONE).unwrap();
    std::fs::write(folder.path().join("cert.pem"), identity.certificate_pem).unwrap();
    std::fs::write(folder.path().join("key.pem"), identity.key_pem).unwrap();
    folder
}

/// Ports that were free a moment ago, for UDP and TCP. No peer of this process is given another one's: some programs
/// go on without the listener whose port is taken, and the neighbour then answers in their place.
fn free_ports() -> [u16; 3] {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap();
    std::array::from_fn(|_| {
        loop {
            let port = Trap::lay().address().port();
            if given.insert(port) {
                return port;
            }
        }
    })
}

impl Peer {
    /// Starts a program with a configuration made from its folder and three ports: plain, TLS, HTTPS. A port may be
    /// taken by another test in the moment before the program has it: then there is another try.
    fn start(
        command: impl Fn(&Path) -> Command,
        file: &str,
        config: impl Fn(&str, [u16; 3]) -> String,
    ) -> Self {
        let mut said = String::new();
        for _ in 0..4 {
            let folder = folder();
            let ports = free_ports();
            let path = folder.path().to_str().unwrap();
            std::fs::write(folder.path().join(file), config(path, ports)).unwrap();
            let log = std::fs::File::create(folder.path().join("log")).unwrap();
            let mut command = command(folder.path());
            let process = Process::start(command.stdout(log.try_clone().unwrap()).stderr(log));
            let plain = Client::new(([127, 0, 0, 1], ports[0]).into());
            let mut peer = Self { _process: process, plain, dot: ports[1], doh: ports[2], folder };
            if peer.comes_up() {
                return peer;
            }
            said = read(&peer.folder.path().join("log"));
        }
        panic!("the peer does not answer; it says:\n{said}");
    }

    /// Waits until it answers plain DNS and takes connections on the other ports.
    fn comes_up(&mut self) -> bool {
        let asked = query("ns1.peers.example", rtype::A).octets();
        comes_true(support::PATIENCE, || {
            let socket = self.plain.udp_socket();
            let is_sent = socket.send(&asked).is_ok();
            socket.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
            let mut buffer = [0; 512];
            let has_answer =
                is_sent && socket.recv(&mut buffer).is_ok_and(|length| length > 12 && buffer[3] & 0xF == 0);
            let connects = |port: u16| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
            has_answer && connects(self.dot) && connects(self.doh) && self.plain.try_tcp(&asked).is_some()
        })
    }

    /// Asks it by TCP, without veildns. It may close a connection unheard, as dnsdist does when it loses its own to
    /// the server behind: then it is asked again.
    fn direct(&self, asked: &Query) -> Message {
        let answer = (0..5).find_map(|_| self.plain.try_tcp(&asked.octets()));
        Message::read(&answer.unwrap_or_else(|| panic!("the peer does not answer {asked:?}")))
    }

    /// Starts unbound with the zone as local data.
    fn unbound() -> Option<Self> {
        let program = peer("unbound")?;
        let command = move |folder: &Path| {
            let mut command = Command::new(&program);
            command.arg("-d").arg("-p").arg("-c").arg(folder.join("unbound.conf"));
            command
        };
        Some(Self::start(command, "unbound.conf", |folder, [plain, dot, doh]| {
            format!(
                "server:\n\
                 directory: \"{folder}\"\nchroot: \"\"\nusername: \"\"\npidfile: \"\"\nuse-syslog: no\nlogfile: \"\"\n\
                 do-daemonize: no\nnum-threads: 1\n\
                 interface: 127.0.0.1@{plain}\ninterface: 127.0.0.1@{dot}\ninterface: 127.0.0.1@{doh}\n\
                 tls-port: {dot}\nhttps-port: {doh}\ntls-service-key: \"{folder}/key.pem\"\n\
                 tls-service-pem: \"{folder}/cert.pem\"\nmodule-config: \"iterator\"\nminimal-responses: yes\n\
                 auth-zone:\nname: \"peers.example\"\nzonefile: \"{folder}/zone\"\nfor-downstream: yes\nfor-upstream: no\n\
                 remote-control:\ncontrol-enable: no\n"
            )
        }))
    }

    /// Starts named as the zone's primary.
    fn named() -> Option<Self> {
        let program = peer("named")?;
        let command = move |folder: &Path| {
            let mut command = Command::new(&program);
            command.arg("-g").arg("-n").arg("1").arg("-c").arg(folder.join("named.conf"));
            command
        };
        Some(Self::start(command, "named.conf", |folder, [plain, dot, doh]| {
            format!(
                "tls local {{ key-file \"{folder}/key.pem\"; cert-file \"{folder}/cert.pem\"; }};\n\
                 http local {{ endpoints {{ \"/dns-query\"; }}; }};\n\
                 options {{\n directory \"{folder}\"; pid-file none; session-keyfile none; lock-file none;\n\
                 recursion no; minimal-responses yes; dnssec-validation no; listen-on-v6 {{ none; }};\n\
                 listen-on port {plain} {{ 127.0.0.1; }};\n\
                 listen-on port {dot} tls local {{ 127.0.0.1; }};\n\
                 listen-on port {doh} tls local http local {{ 127.0.0.1; }};\n}};\n\
                 controls {{ }};\n\
                 zone \"peers.example\" {{ type primary; file \"{folder}/zone\"; }};\n"
            )
        }))
    }

    /// Starts dnsdist in front of another peer.
    fn dnsdist(behind: &Self) -> Option<Self> {
        let program = peer("dnsdist")?;
        let backend = behind.plain.gateway;
        let command = move |folder: &Path| {
            let mut command = Command::new(&program);
            command.arg("--supervised").arg("--disable-syslog").arg("-C").arg(folder.join("dnsdist.conf"));
            command
        };
        Some(Self::start(command, "dnsdist.conf", |folder, [plain, dot, doh]| {
            format!(
                "setSecurityPollSuffix(\"\")\nsetLocal(\"127.0.0.1:{plain}\")\n\
                 addTLSLocal(\"127.0.0.1:{dot}\", \"{folder}/cert.pem\", \"{folder}/key.pem\")\n\
                 addDOHLocal(\"127.0.0.1:{doh}\", \"{folder}/cert.pem\", \"{folder}/key.pem\", \"/dns-query\")\n\
                 newServer({{address=\"{backend}\", checkName=\"www.peers.example.\", mustResolve=true}})\n"
            )
        }))
    }

    /// Its two encrypted URLs.
    fn urls(&self) -> [String; 3] {
        [
            format!("tls://{NAME}:{}", self.dot),
            format!("https://{NAME}:{}/dns-query", self.doh),
            format!("https://{NAME}:{}/dns-query{{?dns}}", self.doh),
        ]
    }
}

/// A gateway in front of one URL.
fn gateway(url: &str) -> Gateway {
    setup().top("upstreams", "[\"peer\"]").table(&server_table("peer", url, "")).start()
}

/// Sorted, because servers may rotate the records of a set.
fn sorted(mut data: Vec<(u16, Vec<u8>)>) -> Vec<(u16, Vec<u8>)> {
    data.sort();
    data
}

/// Asks everything through veildns and without it.
fn compare(peer: &Peer) {
    for url in peer.urls() {
        let gateway = gateway(&url);
        for (name, rtype, code) in QUESTIONS {
            for time in ["first", "second"] {
                let what = format!("{url} {name} TYPE{rtype}, {time} time");
                let asked = query(name, *rtype);
                let direct = peer.direct(&asked);
                let through = gateway.client().tcp(&asked);
                assert_eq!((direct.rcode(), through.rcode()), (*code, *code), "{what}: {through:?}");
                assert_eq!(sorted(through.data()), sorted(direct.data()), "{what}");
                let soa = |message: &Message| {
                    let records = message.authority.iter().filter(|record| record.rtype == rtype::SOA);
                    records
                        .map(|record| (record.name.to_ascii_lowercase(), record.rdata.clone()))
                        .collect::<Vec<_>>()
                };
                if through.answers.is_empty() {
                    assert_eq!(soa(&through), soa(&direct), "{what}: the SOA of a negative answer");
                    assert_eq!(soa(&through).len(), 1, "{what}");
                } else {
                    assert!(
                        through.ttl() <= direct.ttl(),
                        "{what}: TTL {} of {}",
                        through.ttl(),
                        direct.ttl()
                    );
                }
            }
        }
    }
}

#[test]
fn unbound_over_tls_and_https() {
    if let Some(unbound) = Peer::unbound() {
        compare(&unbound);
    }
}

#[test]
fn named_over_tls_and_https() {
    if let Some(named) = Peer::named() {
        compare(&named);
    }
}

#[test]
fn dnsdist_over_tls_and_https_in_front_of_named() {
    let Some(named) = Peer::named() else { return };
    if let Some(dnsdist) = Peer::dnsdist(&named) {
        compare(&dnsdist);
    }
}

/// Runs a client and returns what it prints.
fn ask_with(program: &Path, address: std::net::SocketAddr, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .arg(format!("@{}", address.ip()))
        .args(["-p", &address.port().to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{program:?} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The records in a client's output, sorted, without TTLs.
fn records(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with(';'));
    let mut records: Vec<String> = lines
        .map(|line| {
            let mut fields: Vec<&str> = line.split_whitespace().collect();
            fields.remove(1);
            fields.join(" ")
        })
        .collect();
    records.sort();
    records
}

#[test]
fn dig_and_kdig_see_the_same_with_and_without_veildns() {
    let Some(named) = Peer::named() else { return };
    let through = gateway(&named.urls()[0]);
    let questions: &[&[&str]] = &[
        &["www.peers.example", "A"],
        &["+tcp", "www.peers.example", "AAAA"],
        &["peers.example", "MX"],
        &["long.peers.example", "TXT"],
        &["+bufsize=4096", "long.peers.example", "TXT"],
        &["alias.peers.example", "A"],
        &["www.peers.example", "TYPE65"],
        &["+dnssec", "peers.example", "CAA"],
        &["missing.peers.example", "A"],
    ];
    for program in ["dig", "kdig"] {
        let Some(path) = peer(program) else { continue };
        for question in questions {
            let direct = ask_with(&path, named.plain.gateway, question);
            let answer = ask_with(&path, through.address(), question);
            assert_eq!(records(&answer), records(&direct), "{program} {question:?}\n{answer}\n{direct}");
            let has_status = |text: &str, status: &str| text.contains(&format!("status: {status}"));
            for status in ["NOERROR", "NXDOMAIN"] {
                assert_eq!(
                    has_status(&answer, status),
                    has_status(&direct, status),
                    "{program} {question:?}"
                );
            }
            for complaint in ["WARNING", "malformed", "mismatch", "extra bytes"] {
                let is_new = answer.contains(complaint) && !direct.contains(complaint);
                assert!(!is_new, "{program} {question:?} complains:\n{answer}");
            }
        }
    }
}

#[test]
fn a_peer_with_the_certificate_of_another_authority_is_not_asked() {
    let Some(unbound) = Peer::unbound() else { return };
    let stranger = support::authority::Authority::new();
    for url in unbound.urls() {
        let table = server_table("peer", &url, "")
            .replace(trusted().ca_file().to_str().unwrap(), stranger.ca_file().to_str().unwrap());
        let gateway = setup()
            .top("upstreams", "[\"peer\"]")
            .table(&table)
            .table("[timeouts]\nquery = \"2s\"\nconnect = \"1s\"")
            .start();
        let answer = gateway.client().udp(&query("www.peers.example", rtype::A));
        assert_eq!((answer.rcode(), answer.ede_code()), (rcode::SERVFAIL, Some(22)), "{url}: {answer:?}");
    }
}
