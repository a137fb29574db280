//! What is outside of the machine: a network with its own resolver, the resolvers that presets name, at their addresses
//! and with certificates for their names, and a page that finds captive portals. And a network that is not to be trusted.

use crate::support::authority::{self, Certificate};
use crate::support::message::{Message, rtype};
use crate::support::netns::{feed, system};
use crate::support::script::{Reply, Script};
use crate::support::server::{Protocol, Server};
use crate::support::zone::{self, Content, Data};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The network's router, which is its resolver too.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Where the network sends whom it holds back, and where honest web pages are.
const WEB: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);

/// Names and addresses of resolvers, as presets have them: for DNS over HTTPS, for DNS over TLS.
const RESOLVERS: [(&str, &str, [[u8; 4]; 2]); 5] = [
    ("dns.quad9.net", "dns.quad9.net", [[9, 9, 9, 9], [149, 112, 112, 112]]),
    ("cloudflare-dns.com", "cloudflare-dns.com", [[1, 1, 1, 1], [1, 0, 0, 1]]),
    ("security.cloudflare-dns.com", "security.cloudflare-dns.com", [[1, 1, 1, 2], [1, 0, 0, 2]]),
    ("doh.dns.sb", "dot.sb", [[185, 222, 222, 222], [45, 11, 45, 11]]),
    // Whom cloudflared's `proxy-dns` asked for the names of its upstreams.
    ("162.159.36.1", "162.159.36.1", [[162, 159, 36, 1], [162, 159, 46, 1]]),
];

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Manner {
    /// It carries everything and lies about nothing.
    Honest,
    /// It answers plain DNS in the name of everybody, with what suits it, and lets nothing to port 853.
    Hijacking,
    /// Besides, it holds everybody back until they have logged in: the web, and TLS, lead to itself.
    Portal,
}

impl Manner {
    /// Returns the manner of a word.
    pub fn of(word: &str) -> Self {
        match word {
            "honest" => Self::Honest,
            "hijacking" => Self::Hijacking,
            "portal" => Self::Portal,
            _ => panic!("a network is not {word:?}"),
        }
    }
}

/// The servers, while they run, and what the network does.
pub struct World {
    manner: Arc<AtomicU8>,
    _servers: Vec<Server>,
}

impl World {
    /// Makes it in the network namespace that this process is in.
    pub fn make() -> Self {
        let mut addresses =
            format!("link set lo up\naddress add {ROUTER}/32 dev lo\naddress add {WEB}/32 dev lo\n");
        let mut servers = Vec::new();
        for [a, b, c, d] in RESOLVERS.iter().flat_map(|(_, _, addresses)| addresses) {
            addresses.push_str(&format!("address add {a}.{b}.{c}.{d}/32 dev lo\n"));
        }
        feed("ip -batch -", &addresses);
        for (doh, dot, addresses) in RESOLVERS {
            servers.extend(resolver(Protocol::Doh, doh, addresses));
            servers.extend(resolver(Protocol::Dot, dot, addresses));
        }
        // Whoever is held back meets this one in place of every other.
        let stranger = Certificate::UnknownAuthority.identity();
        servers.push(Server::at((ROUTER, 8443).into(), Protocol::Doh, Script::good(), stranger));
        let manner = Arc::new(AtomicU8::new(Manner::Honest as u8));
        let (dns, web) = (Arc::clone(&manner), Arc::clone(&manner));
        std::thread::spawn(move || resolve(&dns));
        std::thread::spawn(move || serve(&web));
        Self { manner, _servers: servers }
    }

    /// Gives the machine with this process its links: `eth0` to the network, `eth1` to a home behind it.
    pub fn connect(&self, machine: u32) {
        feed(
            "ip -batch -",
            &format!(
                "link add lan0 type veth peer name eth0 netns {machine}\n\
                 link add lan1 type veth peer name eth1 netns {machine}\n\
                 link set lan0 up\nlink set lan1 up\n\
                 route add 198.51.100.2/32 dev lan0 src {ROUTER}\n"
            ),
        );
        feed(
            &format!("nsenter --target {machine} --net ip -batch -"),
            &format!(
                "address add 198.51.100.2/24 dev eth0\naddress add 192.168.1.1/24 dev eth1\n\
                 link set eth0 up\nlink set eth1 up\nroute add default via {ROUTER}\n"
            ),
        );
    }

    /// Changes what the network does.
    pub fn behave(&self, manner: Manner) {
        self.manner.store(manner as u8, Ordering::SeqCst);
        let plain = format!("udp dport 53 dnat to {ROUTER}:53");
        let rules = match manner {
            Manner::Honest => String::new(),
            Manner::Hijacking => plain,
            Manner::Portal => format!("{plain}\ntcp dport 443 dnat to {ROUTER}:8443"),
        };
        system("nft flush ruleset");
        if manner != Manner::Honest {
            feed(
                "nft -f -",
                &format!(
                    "table ip world {{\n\
                     chain taken {{ type nat hook prerouting priority -100;\n{rules}\n}}\n\
                     chain dropped {{ type filter hook prerouting priority -200;\ntcp dport 853 drop\n}}\n}}\n"
                ),
            );
        }
    }
}

/// Starts a resolver at its addresses, with one certificate.
fn resolver(protocol: Protocol, name: &str, addresses: [[u8; 4]; 2]) -> [Server; 2] {
    let identity = authority::trusted().identity(name, 4000);
    let port = match protocol {
        Protocol::Doh => 443,
        Protocol::Dot => 853,
    };
    addresses.map(|address| {
        let script = Script::replying(Reply::make(answer));
        Server::at((address, port).into(), protocol, script, identity.clone())
    })
}

/// Answers as a resolver that knows a few names.
fn answer(query: &[u8]) -> Vec<u8> {
    let Some(question) = Message::read(query).question else { return zone::start(query, 1) };
    let name = question.name.to_ascii_lowercase();
    let record =
        |rdata: Vec<u8>| Content::Records(vec![Data { owner: None, rtype: question.rtype, ttl: 300, rdata }]);
    let content = match (name.as_str(), question.rtype) {
        ("cp.cloudflare.com.", rtype::A) => record(WEB.octets().to_vec()),
        ("cloudflare-dns.com.", rtype::A) => record(vec![1, 1, 1, 1]),
        ("example.com." | "www.example.com.", rtype::A) => record(vec![104, 20, 23, 154]),
        ("example.com." | "www.example.com.", rtype::AAAA) => {
            record(vec![0x26, 6, 0x47, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0x68, 0x14, 0x17, 0x9a])
        }
        ("9.9.9.9.in-addr.arpa.", rtype::PTR) => {
            record(crate::support::message::encode_name("dns9.quad9.net"))
        }
        ("cloudflare.com.", rtype::HTTPS) => zone::lookup("www.lab.example.", rtype::HTTPS, false),
        (".", rtype::NS) => record(crate::support::message::encode_name("a.root-servers.net")),
        _ => zone::lookup(&name, question.rtype, false),
    };
    zone::respond(query, &content)
}

/// The network's own resolver: of the truth, or of what suits the network.
fn resolve(manner: &AtomicU8) {
    let socket = UdpSocket::bind((ROUTER, 53)).unwrap();
    let mut buffer = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let query = &buffer[..length];
        let reply =
            if manner.load(Ordering::SeqCst) == Manner::Honest as u8 { answer(query) } else { lie(query) };
        let _ = socket.send_to(&reply, from);
    }
}

/// Says that every name is at the network's own page.
fn lie(query: &[u8]) -> Vec<u8> {
    let rdata = WEB.octets().to_vec();
    zone::respond(query, &Content::Records(vec![Data { owner: None, rtype: rtype::A, ttl: 60, rdata }]))
}

/// The page that finds captive portals, and what a portal makes of it.
fn serve(manner: &AtomicU8) {
    let listener = TcpListener::bind(SocketAddr::from((WEB, 80))).unwrap();
    for mut stream in listener.incoming().flatten() {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        let reply: &[u8] = if manner.load(Ordering::SeqCst) == Manner::Portal as u8 {
            b"HTTP/1.1 302 Found\r\nLocation: http://login.hotel.example/\r\nContent-Length: 0\r\n\r\n"
        } else {
            b"HTTP/1.1 204 No Content\r\n\r\n"
        };
        let _ = stream.write_all(reply);
    }
}
