//! The offline lab: one server of DNS over TLS, one of DNS over HTTPS, both with a small made-up zone, and the gateway in
//! front of them. Everything is in this process and on loopback; nothing asks the network.
//!
//! ```text
//! cargo run --release --example lab [-- --port 5053]
//! cargo run --release --example lab -- --servers lab.toml    # the servers alone, and how to ask them
//! ```
//!
//! With `--servers` there is no gateway in the process: it writes a configuration, with which `veildns` asks the servers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a lab that cannot start should say so at once")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use support::gateway::{Gateway, Setup, setup};
use support::script::Script;
use support::server::{Protocol, Server};

/// The port that the lab takes when it is free.
const PORT: u16 = 5053;

/// What is worth trying: `{port}` stands for that of the gateway, `{metrics}` for the address of its metrics.
const THINGS_TO_TRY: &[(&str, &str)] = &[
    (
        "two addresses, from a server over TLS; again: from the cache, the TTL counts down",
        "dig @127.0.0.1 -p {port} www.lab.example",
    ),
    ("by TCP", "dig @127.0.0.1 -p {port} +tcp www.lab.example AAAA"),
    ("an alias chain", "dig @127.0.0.1 -p {port} chain.lab.example"),
    ("other types", "dig @127.0.0.1 -p {port} lab.example MX"),
    ("", "dig @127.0.0.1 -p {port} lab.example TXT"),
    ("", "dig @127.0.0.1 -p {port} _sip._tcp.lab.example SRV"),
    ("", "dig @127.0.0.1 -p {port} lab.example CAA"),
    ("", "dig @127.0.0.1 -p {port} -x 104.51.100.4"),
    (
        "a service binding with encrypted client hello, unchanged",
        "dig @127.0.0.1 -p {port} www.lab.example HTTPS",
    ),
    ("a type that nobody knows", "dig @127.0.0.1 -p {port} odd.lab.example TYPE65400"),
    ("signatures come with DO", "dig @127.0.0.1 -p {port} +dnssec www.lab.example"),
    ("no such name; no such type: both with the zone's SOA", "dig @127.0.0.1 -p {port} missing.lab.example"),
    ("", "dig @127.0.0.1 -p {port} www.lab.example MX"),
    (
        "3 KB, 20 KB, 60 KB: truncated over UDP, whole over TCP (dig asks again by itself)",
        "dig @127.0.0.1 -p {port} text3k.lab.example TXT",
    ),
    ("", "dig @127.0.0.1 -p {port} text20k.lab.example TXT"),
    ("", "dig @127.0.0.1 -p {port} text60k.lab.example TXT"),
    (
        "a public name that points at 192.168.1.1: blocked, with the reason",
        "dig @127.0.0.1 -p {port} rebind.lab.example",
    ),
    ("names that never leave this machine", "dig @127.0.0.1 -p {port} printer.local"),
    ("", "dig @127.0.0.1 -p {port} localhost"),
    (
        "a query for every type gets one small record (RFC 8482)",
        "dig @127.0.0.1 -p {port} www.lab.example ANY",
    ),
    (
        "any name host-* exists: each new one is a query to a server",
        "dig @127.0.0.1 -p {port} host-1.lab.example",
    ),
    ("metrics", "curl -s http://{metrics}/metrics"),
];

/// What the command line asks for.
struct Wanted {
    /// The port of the gateway, if it is free.
    port: u16,
    /// Only servers, and a configuration for others to ask them.
    servers: Option<PathBuf>,
}

fn main() {
    let wanted = match wanted() {
        Ok(wanted) => wanted,
        Err(message) => {
            eprintln!("lab: {message}\nusage: lab [--port PORT] [--servers FILE]");
            std::process::exit(64);
        }
    };
    let dot = Server::start(Protocol::Dot, Script::good());
    let doh = Server::start(Protocol::Doh, Script::good());
    let port = if is_free(wanted.port) { wanted.port } else { 0 };
    if port == 0 {
        println!("Port {} is taken; the lab uses another one.", wanted.port);
    }
    let setup = setup()
        .top("strategy", "\"round-robin\"")
        .listen(&format!("[\"127.0.0.1:{port}\"]"))
        .server("lab-dot", &dot)
        .server("lab-doh", &doh)
        .table("[metrics]\nlisten = \"127.0.0.1:0\"");
    let gateway = match &wanted.servers {
        Some(file) => {
            lend(setup, file);
            None
        }
        None => Some(setup.start()),
    };
    if let Some(gateway) = &gateway {
        explain(gateway, &dot, &doh);
    }
    println!("\nCtrl-C ends the lab.");
    wait_for_interrupt();
    println!("\n{} queries went over TLS, {} over HTTPS.", dot.log.asked(), doh.log.asked());
}

/// Writes the configuration with which a gateway asks the servers, and says how.
fn lend(setup: Setup, file: &Path) {
    let file = std::path::absolute(file).unwrap();
    let socket = file.with_extension("sock");
    setup.table(&format!("[control]\nsocket = \"{}\"", socket.display())).write(&file);
    println!("Two servers, by TLS and by HTTPS, have the zone lab.example. A gateway that asks them:\n");
    for command in ["run", "status", "query www.lab.example HTTPS"] {
        println!("veildns {command} --config {}", file.display());
    }
}

/// Reads the command line.
fn wanted() -> Result<Wanted, String> {
    let mut wanted = Wanted { port: PORT, servers: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let (option, value) = match argument.split_once('=') {
            Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
            None => (argument, arguments.next()),
        };
        match (option.as_str(), value) {
            ("--port", Some(value)) => {
                wanted.port = value.parse().map_err(|_| format!("{value:?} is not a port"))?;
            }
            ("--servers", Some(value)) => wanted.servers = Some(value.into()),
            ("--port" | "--servers", None) => return Err(format!("{option} needs a value")),
            _ => return Err(format!("unknown argument {option}")),
        }
    }
    Ok(wanted)
}

/// Returns true when UDP and TCP of a port are free.
fn is_free(port: u16) -> bool {
    let address = (Ipv4Addr::LOCALHOST, port);
    UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok()
}

/// Prints where everything is and what to type.
fn explain(gateway: &Gateway, dot: &Server, doh: &Server) {
    let port = gateway.address().port();
    println!("veildns answers on {} (UDP and TCP).", gateway.address());
    println!("Behind it: {} and {}, with the zone lab.example.\n", dot.url(), doh.url());
    let metrics = gateway.gateway().metrics_address().map(|address| address.to_string()).unwrap_or_default();
    for (about, line) in THINGS_TO_TRY {
        if !about.is_empty() {
            println!("# {about}");
        }
        println!("{}", line.replace("{port}", &port.to_string()).replace("{metrics}", &metrics));
    }
}

/// Waits until somebody has had enough.
fn wait_for_interrupt() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(tokio::signal::ctrl_c()).unwrap();
}
