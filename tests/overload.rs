//! More than there is room for: random names, idle and dripping connections, clients that do not read, one client's share,
//! no descriptors left. Each time answers from the cache go on without loss, memory stays within its bounds, and when it is
//! over everything is as before.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_docs_in_private_items,
    clippy::excessive_nesting,
    clippy::unused_io_amount,
    reason = "a broken assumption must end a test, and its table is its documentation"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;
use support::binary::{Running, undisturbed, veildns};
use support::gateway::setup;
use support::load::{Load, Page, framed, fresh, hot, plain_query, quick, tcp_from, udp_from};
use support::message::{query, rcode, rtype};
use support::script::{Door, Gate, Reply, Script};
use support::server::{Protocol, Server};
use support::{eventually, uninterrupted};
use tempfile::TempDir;

/// The client that behaves.
const GOOD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// The one that does not.
const BAD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// The program under attack.
struct Stage {
    running: Running,
    server: Server,
    page: SocketAddr,
    hits: Load,
    _folder: TempDir,
}

impl Stage {
    /// Starts the program with these tables, and a client that asks for what is in the cache.
    fn new(script: Script, tables: &str) -> Self {
        let stage = Self::with(Script::replying(Reply::make(quick)), tables, Running::start_as);
        stage.server.set(script);
        stage
    }

    /// Starts it in a way of its own, with a server that does this from the beginning.
    fn with(script: Script, tables: &str, start: impl FnOnce(Command) -> Running) -> Self {
        let server = Server::start(Protocol::Dot, script);
        let folder = tempfile::tempdir().unwrap();
        let page = support::trap::Trap::lay().address();
        let file = folder.path().join("veildns.toml");
        let page_table = format!("[metrics]\nlisten = \"{page}\"");
        setup().server("lab", &server).table(tables).table(&page_table).write(&file);
        let mut command = veildns();
        command.arg("run").arg("--config").arg(&file);
        let running = start(command);
        running.client().udp(&query(&hot(0), rtype::A));
        let hits = Load::udp_every(Duration::from_millis(1), running.address, GOOD, 1, hot);
        Self { running, server, page, hits, _folder: folder }
    }

    fn address(&self) -> SocketAddr {
        self.running.address
    }

    fn page(&self) -> Page {
        Page::fetch(self.page)
    }

    /// Memory that the program holds, in octets: VmRSS.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.running.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// It is over: nothing waits, nothing was lost of what the good client asked, and new queries are answered by UDP and TCP.
    fn assert_normal_again(mut self) {
        eventually("nothing waits any more", || {
            let page = self.page();
            ["max_inflight", "max_inflight_per_client", "tcp_connections", "tcp_unread_total", "pool_queue"]
                .iter()
                .all(|limit| page.in_use(limit) == 0)
        });
        self.server.set(Script::replying(Reply::make(quick)));
        let client = self.running.client();
        eventually("new names are answered", || {
            client.udp(&query(&fresh(0), rtype::A)).rcode() == rcode::NOERROR
        });
        assert_eq!(client.tcp(&query(&fresh(0), rtype::A)).rcode(), rcode::NOERROR);
        self.hits.wait_for(10);
        let (asked, lost, failed) = self.hits.stop();
        assert_eq!((lost, failed), (0, 0), "answers from the cache that were lost or failed, of {asked}");
        assert!(self.running.process.ended().is_none());
        self.running.process.signal("TERM");
        assert!(self.running.process.wait().success());
    }
}

/// Asks for `count` names, at most `window` at a time, less than any receive buffer holds; returns how many were answered,
/// and how many of those with NOERROR. A reply that this client loses is left behind.
fn flood(socket: &UdpSocket, count: usize, window: usize) -> (usize, usize) {
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let (mut sent, mut waiting, mut answered, mut good) = (0, 0, 0, 0);
    let mut reply = [0; 4096];
    while sent < count || waiting > 0 {
        while sent < count && waiting < window {
            socket.send(&plain_query(0, &fresh(0))).unwrap();
            (sent, waiting) = (sent + 1, waiting + 1);
        }
        if uninterrupted(|| socket.recv(&mut reply)).is_err() {
            waiting = 0;
            continue;
        }
        (waiting, answered) = (waiting - 1, answered + 1);
        good += usize::from(reply[3] & 15 == 0);
    }
    (answered, good)
}

#[test]
fn two_hundred_thousand_random_names_fill_no_more_than_the_cache() {
    const NAMES: usize = 200_000;
    // The client has a small share, so that most names are turned away; far more get through than the cache holds.
    let tables = "[cache]\nmax_size = \"1MiB\"\n[limits]\nmax_inflight_per_client = 64";
    let stage = Stage::new(Script::replying(Reply::make(quick)), tables);
    let before = stage.memory();
    let (answered, good) = flood(&udp_from(BAD, stage.address()), NAMES, 200);
    let grown = stage.memory().saturating_sub(before);
    assert!(answered > NAMES * 9 / 10, "{answered}");
    assert!(good > 5_000, "{good}");
    let page = stage.page();
    assert!(page.reached("max_inflight_per_client") > 10_000);
    let held = page.value("veildns_cache_bytes");
    assert_eq!(page.value("veildns_cache_max_bytes"), 1 << 20);
    assert!(held <= 1 << 20 && held > (1 << 20) * 8 / 10, "{held}");
    assert!(grown < 32 << 20, "grown by {grown} octets");
    stage.assert_normal_again();
}

#[test]
fn a_flood_that_no_server_answers_is_turned_away_at_the_bounds() {
    // A server that takes connections and never says anything: one that fell silent later would be given up in 2 s.
    let stage = Stage::new(
        Script { door: Door::StallBeforeTls, ..Script::good() },
        "[limits]\nmax_inflight = 600\nmax_inflight_per_client = 500\n[timeouts]\nquery = \"30s\"\nconnect = \"20s\"",
    );
    stage.server.cut();
    let sockets = [BAD, Ipv4Addr::new(127, 0, 0, 4)].map(|from| udp_from(from, stage.address()));
    for (socket, count, turned_away, bound) in
        [(&sockets[0], 700, 200, "max_inflight_per_client"), (&sockets[1], 200, 100, "max_inflight")]
    {
        for sent in 1..=count {
            socket.send(&plain_query(0, &fresh(0))).unwrap();
            if sent % 100 == 0 {
                let all = |page: Page| page.in_use("max_inflight") + page.reached(bound);
                let before = if bound == "max_inflight" { 500 } else { 0 };
                eventually("all were taken or turned away", || all(stage.page()) >= before + sent);
            }
        }
        let mut reply = [0; 4096];
        for _ in 0..turned_away {
            uninterrupted(|| socket.recv(&mut reply)).unwrap();
            assert_eq!(reply[3] & 15, 2, "SERVFAIL at once");
        }
        assert_eq!(stage.page().reached(bound), turned_away);
    }
    assert_eq!(stage.page().in_use("max_inflight"), 600);
    // The server is back: what waits is over as soon as its attempts are.
    stage.server.set(Script::replying(Reply::make(quick)));
    stage.server.cut();
    stage.assert_normal_again();
}

#[test]
fn of_two_clients_the_one_over_its_share_is_refused_and_the_other_served() {
    let gate = Gate::closed();
    let stage = Stage::new(
        Script::replying(Reply::Gate(gate.clone())),
        "[limits]\nmax_inflight_per_client = 64\nwaiters_per_flight = 8\n[timeouts]\nquery = \"60s\"\n",
    );
    let (greedy, modest) = (udp_from(BAD, stage.address()), udp_from(GOOD, stage.address()));
    for _ in 0..200 {
        greedy.send(&plain_query(1, &fresh(0))).unwrap();
    }
    let mut reply = [0; 4096];
    for _ in 0..136 {
        uninterrupted(|| greedy.recv(&mut reply)).unwrap();
        assert_eq!(reply[3] & 15, 2, "SERVFAIL at once");
    }
    assert_eq!(stage.page().reached("max_inflight_per_client"), 136);
    // The other one's query waits. So do eight for one name, and the ninth does not.
    for id in 2..11 {
        modest.send(&plain_query(id, "host-wanted.lab.example")).unwrap();
    }
    uninterrupted(|| modest.recv(&mut reply)).unwrap();
    assert_eq!((reply[1], reply[3] & 15), (10, 2));
    assert_eq!(stage.page().reached("waiters_per_flight"), 1);
    assert_eq!(stage.page().in_use("max_inflight"), 72);
    gate.open();
    for (socket, count) in [(&greedy, 64), (&modest, 8)] {
        for _ in 0..count {
            uninterrupted(|| socket.recv(&mut reply)).unwrap();
            assert_eq!(reply[3] & 15, 0);
        }
    }
    stage.assert_normal_again();
}

#[test]
fn what_a_full_batch_leaves_is_taken_by_the_next() {
    let stage = Stage::new(Script::good(), "[limits]\nudp_batch = 4");
    let socket = udp_from(BAD, stage.address());
    let before = stage.page().reached("udp_batch");
    // While the program stands still, the kernel keeps what comes for it.
    stage.running.process.signal("STOP");
    for id in 0..40 {
        socket.send(&plain_query(id, &hot(0))).unwrap();
    }
    stage.running.process.signal("CONT");
    let mut reply = [0; 4096];
    for _ in 0..40 {
        uninterrupted(|| socket.recv(&mut reply)).unwrap();
        assert_eq!(reply[3] & 15, 0);
    }
    // Two first, as while queries come one by one, and then four at once.
    assert!(stage.page().reached("udp_batch") >= before + 9);
    stage.assert_normal_again();
}

#[test]
fn of_a_thousand_idle_connections_the_oldest_give_way_and_a_new_client_is_served() {
    const PLACES: usize = 512;
    let stage = Stage::new(Script::good(), "[limits]\ntcp_idle = \"60s\"");
    let mut open = std::collections::VecDeque::new();
    for number in 0..1000_usize {
        // Sixteen for each address.
        let from = Ipv4Addr::new(127, 0, 1, u8::try_from(number / 16).unwrap());
        open.push_back(tcp_from(from, stage.address()).unwrap());
        if open.len() > PLACES {
            assert_eq!(open.pop_front().unwrap().read(&mut [0]).unwrap(), 0, "number {number} made room");
        }
    }
    let page = stage.page();
    assert_eq!(page.in_use("tcp_connections"), 512);
    assert_eq!(page.reached("tcp_connections"), 488);
    let answer = stage.running.client().tcp(&query(&fresh(0), rtype::A));
    assert_eq!(answer.rcode(), rcode::NOERROR);
    drop(open);
    stage.assert_normal_again();
}

#[test]
fn one_address_has_its_share_of_connections_and_no_more() {
    let stage = Stage::new(Script::good(), "[limits]\ntcp_idle = \"60s\"\ntcp_read = \"60s\"");
    // Half a message each: busy.
    let mut busy: Vec<TcpStream> = (0..16).map(|_| tcp_from(BAD, stage.address()).unwrap()).collect();
    for stream in &mut busy {
        stream.write_all(&[0]).unwrap();
    }
    eventually("all have their places", || stage.page().in_use("tcp_connections_per_client") == 16);
    let mut refused = tcp_from(BAD, stage.address()).unwrap();
    assert!(matches!(refused.read(&mut [0]), Ok(0) | Err(_)), "the seventeenth is closed");
    assert!(stage.page().reached("tcp_connections_per_client") > 0);
    let mut other = tcp_from(GOOD, stage.address()).unwrap();
    other.write_all(&framed(&plain_query(1, &fresh(0)))).unwrap();
    other.read_exact(&mut [0; 2]).unwrap();
    drop((busy, other));
    stage.assert_normal_again();
}

#[test]
fn a_client_that_drips_is_closed_and_the_others_do_not_notice() {
    let stage = Stage::new(Script::good(), "[limits]\ntcp_read = \"1s\"");
    let mut dripping = tcp_from(BAD, stage.address()).unwrap();
    let mut other = tcp_from(BAD, stage.address()).unwrap();
    dripping.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let octets = framed(&plain_query(1, &["a"; 60].join("."))).into_iter().cycle();
    let mut served = 0;
    // A message that never ends.
    dripping.write_all(&[0xff, 0xff]).unwrap();
    let closed = octets.take(1000).any(|octet| {
        other.write_all(&framed(&plain_query(1, &fresh(0)))).unwrap();
        let mut length = [0; 2];
        other.read_exact(&mut length).unwrap();
        other.read_exact(&mut vec![0; u16::from_be_bytes(length).into()]).unwrap();
        served += 1;
        let sent = dripping.write_all(&[octet]);
        let is_waiting = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        sent.is_err() || !dripping.read(&mut [0]).as_ref().is_err_and(is_waiting)
    });
    assert!(closed && served > 1, "{served}");
    assert_eq!(stage.page().reached("tcp_read"), 1);
    drop((dripping, other));
    stage.assert_normal_again();
}

#[test]
fn a_client_that_floods_and_does_not_read_is_held_to_its_bounds() {
    let stage = Stage::new(
        Script::good(),
        "[limits]\ntcp_idle = \"3s\"\ntcp_unread = \"128KiB\"\ntcp_unread_total = \"1MiB\"",
    );
    stage.running.client().tcp(&query("text60k.lab.example", rtype::TXT));
    let before = stage.memory();
    // By TCP: answers of 60 KB from the cache, and names that wait for the server, on all connections that one address gets.
    let long = framed(&query("text60k.lab.example", rtype::TXT).octets());
    let mut streams: Vec<TcpStream> = (0..16).map(|_| tcp_from(BAD, stage.address()).unwrap()).collect();
    streams.iter().for_each(|stream| stream.set_nonblocking(true).unwrap());
    // And by UDP, as fast as it goes.
    let socket = udp_from(BAD, stage.address());
    let mut most = 0;
    eventually("every connection is closed", || {
        for _ in 0..200 {
            let _ = socket.send(&plain_query(1, &fresh(0)));
        }
        streams.retain_mut(|stream| {
            let pipelined = [&long[..], &framed(&plain_query(1, &fresh(0)))].concat().repeat(8);
            match stream.write(&pipelined) {
                Ok(_) => true,
                Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            }
        });
        most = most.max(stage.page().in_use("tcp_unread_total"));
        streams.is_empty()
    });
    assert!(most > 64 << 10, "the bound was of no use: {most}");
    // Each connection may pass it by one reply from memory.
    assert!(most <= (1 << 20) + 16 * 66_000, "{most}");
    let grown = stage.memory().saturating_sub(before);
    assert!(grown < 48 << 20, "grown by {grown} octets");
    stage.assert_normal_again();
}

#[test]
fn without_descriptors_hits_go_on_and_no_server_is_blamed() {
    // `ulimit` of the shell: the program has no more than 48.
    let limited = |command: Command| {
        let mut shell = undisturbed(Command::new("sh"));
        shell
            .args(["-c", "ulimit -n 48 && exec \"$@\"", "sh"])
            .arg(command.get_program())
            .args(command.get_args());
        Running::start_as(shell)
    };
    let limits = "[limits]\ntcp_read = \"60s\"\ntcp_connections_per_client = 200";
    // Its one server closes each connection after an answer, so that the next query needs another.
    let closing = Script { close_after: Some(1), ..Script::replying(Reply::make(quick)) };
    let stage = Stage::with(closing, limits, limited);
    // Half a message each, so that none is idle and can be closed.
    let taking: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = tcp_from(BAD, stage.address()).unwrap();
            stream.write_all(&[0]).unwrap();
            stream
        })
        .collect();
    let open_files =
        || std::fs::read_dir(format!("/proc/{}/fd", stage.running.process.id())).unwrap().count();
    let client = stage.running.client();
    // The descriptor of a connection that the server has closed is free a moment later, and who waits to be accepted gets it.
    eventually("all descriptors are in use", || {
        open_files() >= 48 && client.udp(&query(&fresh(0), rtype::A)).rcode() == rcode::SERVFAIL
    });
    for _ in 0..5 {
        let answer = client.udp(&query(&fresh(0), rtype::A));
        assert_eq!(answer.rcode(), rcode::SERVFAIL, "{answer:?}");
        assert_eq!(answer.ede_code(), Some(0), "it is nobody else's fault: {answer:?}");
    }
    stage.hits.wait_for(100);
    drop(taking);
    eventually("the server is asked again", || {
        client.udp(&query(&fresh(0), rtype::A)).rcode() == rcode::NOERROR
    });
    let page = stage.page();
    assert!(page.reached("open_files") > 0);
    assert!(page.value("veildns_upstream_queries_total{upstream=\"lab\",outcome=\"exhausted\"}") >= 5);
    for outcome in ["connect", "timeout"] {
        let sample = format!("veildns_upstream_queries_total{{upstream=\"lab\",outcome=\"{outcome}\"}}");
        assert_eq!(page.value(&sample), 0, "{outcome}");
    }
    assert_eq!(page.value("veildns_upstream_up{upstream=\"lab\"}"), 1);
    stage.assert_normal_again();
}
