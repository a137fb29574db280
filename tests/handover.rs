//! Reload, stop and upgrade under load: every query that is sent gets its answer. The program itself, asked all the time by
//! clients that send nothing twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_docs_in_private_items,
    reason = "a broken assumption must end a test, and its table is its documentation"
)]

mod support;

use socket2::Socket;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use support::binary::{Running, undisturbed, veildns};
use support::eventually;
use support::gateway::{Setup, setup};
use support::load::{Load, Page, fresh, hot, mixed, plain_query, quick, udp_from};
use support::message::{query, rcode, rtype};
use support::script::{Reply, Script};
use support::server::{Protocol, Server};
use tempfile::TempDir;

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A server, and a folder with a configuration that names it.
struct Stage {
    server: Server,
    folder: TempDir,
}

impl Stage {
    fn new() -> Self {
        let server = Server::start(Protocol::Dot, Script::replying(Reply::make(quick)));
        Self { server, folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("veildns.toml")
    }

    /// Two workers, so that there are groups of sockets.
    fn setup(&self, listen: &str) -> Setup {
        setup()
            .top("workers", "2")
            .listen(&format!("[\"{listen}\"]"))
            .server("lab", &self.server)
            .table("[timeouts]\nquery = \"20s\"\n[limits]\ntcp_connections_per_client = 64")
    }
}

/// A port that was free a moment ago, for UDP and TCP.
fn free_address() -> SocketAddr {
    support::trap::Trap::lay().address()
}

/// Asserts that nothing was lost, and that there was something to lose.
fn assert_whole(what: &str, (asked, lost, failed): (u64, u64, u64)) {
    assert_eq!((lost, failed), (0, 0), "{what}: lost and failed of {asked}");
    assert!(asked > 50, "{what}: only {asked} were asked");
}

#[test]
fn reloads_under_load_lose_no_query_and_a_bad_one_changes_nothing() {
    let stage = Stage::new();
    let other = Server::start(Protocol::Doh, Script::replying(Reply::make(quick)));
    let (stays, comes) = (free_address(), free_address());
    let one = stage.setup(&stays.to_string());
    let two = stage.setup(&format!("{stays}\", \"{comes}"));
    let three = setup().top("workers", "2").listen(&format!("[\"{stays}\"]")).server("other", &other);
    one.write(&stage.file());
    let running = Running::start(&stage.file());
    let hits = Load::udp(stays, HERE, 3, mixed);
    let misses = Load::udp(stays, HERE, 3, fresh);
    let streams = Load::tcp(stays, HERE, 2, mixed);
    for _ in 0..2 {
        for text in [two.text(), "listen = [".to_owned(), three.text(), "nonsense = 1".to_owned(), one.text()]
        {
            std::fs::write(stage.file(), text).unwrap();
            running.reload();
            hits.wait_for(100);
            misses.wait_for(20);
            streams.wait_for(5);
        }
    }
    eventually("the other server was asked", || other.log.asked() > 0);
    assert_whole("hits", hits.stop());
    assert_whole("misses", misses.stop());
    assert_whole("connections", streams.stop());
}

#[test]
fn a_stop_answers_what_the_kernel_had_queued() {
    let stage = Stage::new();
    stage.setup("127.0.0.1:0").write(&stage.file());
    let mut running = Running::start(&stage.file());
    running.client().udp(&query(&hot(0), rtype::A));
    let sockets: Vec<UdpSocket> = (0..40).map(|_| udp_from(HERE, running.address)).collect();
    // Stopped, the program reads nothing: what is sent now is in the kernel when it wakes, and is told to end.
    running.process.signal("STOP");
    for socket in &sockets {
        for number in 0..20 {
            let name = if number % 2 == 0 { hot(0) } else { fresh(0) };
            socket.send(&plain_query(number, &name)).unwrap();
        }
    }
    running.process.signal("TERM");
    running.process.signal("CONT");
    for (place, socket) in sockets.iter().enumerate() {
        for _ in 0..20 {
            let mut reply = [0; 512];
            let length = support::uninterrupted(|| socket.recv(&mut reply))
                .unwrap_or_else(|error| panic!("socket {place}: {error}"));
            assert_eq!(reply[3] & 15, 0, "{:?}", &reply[..length]);
        }
    }
    assert!(running.process.wait().success());
}

#[test]
fn a_port_that_is_taken_is_an_error_unless_it_is_to_be_taken_over() {
    let stage = Stage::new();
    stage.setup("127.0.0.1:0").write(&stage.file());
    let first = Running::start(&stage.file());
    stage.setup(&first.address.to_string()).write(&stage.file());
    let refused = veildns().arg("run").arg("--config").arg(stage.file()).output().unwrap();
    assert_eq!(refused.status.code(), Some(69));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains(&format!("veildns (pid {})", first.process.id())), "{said}");
}

/// Starts the program beside one that has its addresses.
fn beside(config: &Path) -> Running {
    let mut command = veildns();
    command.arg("run").arg("--take-over").arg("--config").arg(config);
    Running::start_as(command)
}

#[test]
fn a_successor_started_beside_the_running_program_loses_no_query() {
    let stage = Stage::new();
    let (address, page) = (free_address(), free_address());
    stage.setup(&address.to_string()).table(&format!("[metrics]\nlisten = \"{page}\"")).write(&stage.file());
    let mut running = Running::start(&stage.file());
    let hits = Load::udp(address, HERE, 4, mixed);
    let misses = Load::udp(address, HERE, 2, fresh);
    let streams = Load::tcp(address, HERE, 2, mixed);
    for _ in 0..3 {
        let successor = beside(&stage.file());
        assert_eq!(successor.address, address);
        hits.wait_for(200);
        running.process.signal("TERM");
        assert!(running.process.wait().success());
        hits.wait_for(200);
        misses.wait_for(30);
        streams.wait_for(10);
        running = successor;
    }
    assert!(Page::fetch(page).value("veildns_queries_total{transport=\"udp\"}") > 0);
    assert_whole("hits", hits.stop());
    assert_whole("misses", misses.stop());
    assert_whole("connections", streams.stop());
}

/// Sockets that a service manager holds.
struct Held {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Held {
    fn new() -> Self {
        let udp = UdpSocket::bind((HERE, 0)).unwrap();
        let tcp = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        tcp.bind(&udp.local_addr().unwrap().into()).unwrap();
        tcp.listen(1024).unwrap();
        Self { udp, tcp: tcp.into() }
    }

    fn address(&self) -> SocketAddr {
        self.udp.local_addr().unwrap()
    }
}

/// Starts the program as systemd would: with these sockets from descriptor 3 on.
fn activated(config: &Path, sockets: &[&dyn AsRawFd]) -> Running {
    // By way of high numbers: one of the sockets may be where another one is to be.
    let count = sockets.len();
    let places = |from: &dyn Fn(usize) -> usize, to: usize| -> String {
        (0..count).map(|at| format!("{}<&{} ", at + to, from(at))).collect()
    };
    let aside = places(&|at| usize::try_from(sockets[at].as_raw_fd()).unwrap(), 100);
    let home = places(&|at| at + 100, 3);
    let script = format!(
        "exec {aside} && exec {home} && export LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES=a && exec \"$@\""
    );
    let program = veildns();
    let mut command = undisturbed(Command::new("bash"));
    command.args(["-c", &script, "bash"]).arg(program.get_program());
    command.arg("run").arg("--config").arg(config);
    Running::start_as(command)
}

/// Lets children have the sockets.
fn inheritable(held: &[&Held]) {
    for held in held {
        socket2::SockRef::from(&held.udp).set_cloexec(false).unwrap();
        socket2::SockRef::from(&held.tcp).set_cloexec(false).unwrap();
    }
}

#[test]
fn sockets_that_are_handed_over_are_served_by_every_worker_also_those_nobody_named() {
    let stage = Stage::new();
    let (named, unnamed, own) = (Held::new(), Held::new(), free_address());
    inheritable(&[&named, &unnamed]);
    let listen = format!("{}\", \"{own}", named.address());
    stage.setup(&listen).write(&stage.file());
    let sockets: [&dyn AsRawFd; 4] = [&unnamed.tcp, &named.udp, &named.tcp, &unnamed.udp];
    let running = activated(&stage.file(), &sockets);
    for address in [named.address(), unnamed.address(), own] {
        let (udp, tcp) = (Load::udp(address, HERE, 2, mixed), Load::tcp(address, HERE, 2, mixed));
        udp.wait_for(60);
        tcp.wait_for(60);
        assert_whole("UDP", udp.stop());
        assert_whole("TCP", tcp.stop());
    }
    // A reload that does not name them any more leaves them, too.
    stage.setup(&own.to_string()).write(&stage.file());
    running.reload();
    for address in [named.address(), unnamed.address(), own] {
        let answer = support::client::Client::new(address).udp(&query(&hot(0), rtype::A));
        assert_eq!(answer.rcode(), rcode::NOERROR);
    }
}

#[test]
fn without_listen_only_what_was_handed_over_is_served() {
    let stage = Stage::new();
    let held = Held::new();
    inheritable(&[&held]);
    let text = stage.setup("127.0.0.1:0").text();
    let text: String =
        text.lines().filter(|line| !line.starts_with("listen =")).map(|line| format!("{line}\n")).collect();
    std::fs::write(stage.file(), text).unwrap();
    let running = activated(&stage.file(), &[&held.udp, &held.tcp]);
    assert_eq!(running.address, held.address());
    assert_eq!(running.client().tcp(&query(&hot(0), rtype::A)).rcode(), rcode::NOERROR);
}

#[test]
fn a_restart_on_sockets_that_are_held_loses_no_query() {
    let stage = Stage::new();
    let held = Held::new();
    inheritable(&[&held]);
    let address = held.address();
    stage.setup(&address.to_string()).write(&stage.file());
    let mut running = activated(&stage.file(), &[&held.udp, &held.tcp]);
    let hits = Load::udp(address, HERE, 4, mixed);
    let misses = Load::udp(address, HERE, 2, fresh);
    let streams = Load::tcp(address, HERE, 2, mixed);
    for _ in 0..3 {
        hits.wait_for(200);
        running.process.signal("TERM");
        assert!(running.process.wait().success());
        // Nobody reads now: what is asked waits in the sockets.
        running = activated(&stage.file(), &[&held.udp, &held.tcp]);
        hits.wait_for(200);
        misses.wait_for(30);
        streams.wait_for(10);
    }
    assert_whole("hits", hits.stop());
    assert_whole("misses", misses.stop());
    assert_whole("connections", streams.stop());
}

#[test]
fn sockets_meant_for_another_process_are_left_alone() {
    let stage = Stage::new();
    stage.setup("127.0.0.1:0").write(&stage.file());
    let mut command = veildns();
    command.arg("run").arg("--config").arg(stage.file()).env("LISTEN_FDS", "2").env("LISTEN_PID", "1");
    let running = Running::start_as(command);
    assert_eq!(running.client().udp(&query(&hot(0), rtype::A)).rcode(), rcode::NOERROR);
}
