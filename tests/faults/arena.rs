//! One fault and one program, in a process at home: starts the servers and the program, asks, makes the fault, and
//! prints what came of the queries as one line of JSON.

use crate::load::{Sample, Stream};
use crate::programs::Program;
use crate::scenario::{self, CALM, Fault, Judged, OWN_PREFIX, Scenario, WELL_KNOWN_PREFIX};
use crate::server::Server;
use crate::support::message::{query, rtype};
use crate::support::netns::{Net, SERVERS};
use crate::support::process::Process;
use crate::support::{comes_true, process};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How many names are asked again and again.
const KNOWN: u64 = 50;

/// What a query may take above what is normal before it counts as slow.
const SLOW: Duration = Duration::from_millis(250);

/// Runs the arena that the arguments describe: scenario, program, home, world, folder.
pub(crate) fn run(arguments: &[String]) {
    let [scenario, program, home, world, folder] = arguments else { panic!("{arguments:?}") };
    let net = Net::of_another(home, world);
    end_with_parent(home, world);
    let arena = Arena::start(Scenario::named(scenario), Program::named(program), net, folder.into());
    println!("{}", arena.play());
}

/// Ends this process, and what it started, when the one that wants its result is gone.
fn end_with_parent(home: &str, world: &str) {
    let net = Net::of_another(home, world);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        net.remove();
        std::process::exit(1);
    });
}

/// Everything that runs.
struct Arena {
    scenario: Scenario,
    net: Net,
    folder: PathBuf,
    servers: Vec<Option<Server>>,
    /// What does a NAT64's work.
    relays: Vec<Server>,
    program: Program,
    process: Process,
}

/// When what happened.
struct Times {
    load: Instant,
    fault: Instant,
    end: Instant,
}

impl Arena {
    /// Starts servers and program and waits until it answers.
    fn start(scenario: Scenario, program: Program, net: Net, folder: PathBuf) -> Self {
        scenario::prepare(&net);
        let servers =
            SERVERS.iter().map(|addresses| Some(Server::start(&net, &folder, *addresses))).collect();
        let process = program.start(&folder, &scenario.addresses());
        warm(&folder);
        Self { scenario, net, folder, servers, relays: Vec::new(), program, process }
    }

    /// Asks, makes the fault and ends it, and judges.
    fn play(mut self) -> Value {
        let load = Instant::now();
        let misses = Stream::start(Program::address(), self.scenario.misses, miss);
        let hits = Stream::start(Program::address(), self.scenario.hits, hit);
        std::thread::sleep(CALM);
        let fault = Instant::now();
        self.fault();
        let end = Instant::now();
        self.end();
        std::thread::sleep(self.scenario.after);
        misses.stop();
        hits.stop();
        let times = Times { load, fault, end };
        let (misses, hits) = (misses.samples(), hits.samples());
        self.tell(&times, &misses);
        judge(&self.scenario, &times, &misses, &hits)
    }

    /// Adds to the program's log what failed and when, since the fault began.
    fn tell(&self, times: &Times, samples: &[Sample]) {
        let mut log = std::fs::OpenOptions::new().append(true).open(self.folder.join("log")).unwrap();
        writeln!(log, "the fault lasted {:?}", times.end - times.fault).unwrap();
        for sample in samples.iter().filter(|sample| sample.sent >= times.fault && sample.good().is_none()) {
            writeln!(log, "failed: sent after {:?}: {:?}", sample.sent - times.fault, sample.answer).unwrap();
        }
    }

    /// Makes the fault and lets it last.
    fn fault(&mut self) {
        let begun = Instant::now();
        match self.scenario.fault {
            Fault::BlackHoleOne => {
                let busier = scenario::busier(&self.net);
                scenario::black_hole(&self.net, SERVERS[busier].0);
            }
            Fault::BlackHoleAll => SERVERS.iter().for_each(|(v4, _)| scenario::black_hole(&self.net, v4)),
            Fault::Roam => self.net.roam(),
            Fault::BlackHoleIpv6 => scenario::black_hole_ipv6(&self.net),
            Fault::OnlyIpv6 => self.only_ipv6(WELL_KNOWN_PREFIX),
            Fault::OwnPrefix => {
                self.only_ipv6(OWN_PREFIX);
                // Then all depends on the server that has only IPv4.
                std::thread::sleep(Duration::from_secs(3));
                self.servers[1] = None;
            }
            Fault::Loss => scenario::lose(&self.net),
            Fault::Delay => self.delay(Duration::from_millis(150)),
            Fault::Kill => drop(self.servers[scenario::busier(&self.net)].take()),
            Fault::Reload => {
                for _ in 0..self.scenario.lasts.as_secs() {
                    self.process.signal("HUP");
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
            Fault::TakeOver => self.take_over(),
        }
        std::thread::sleep(self.scenario.lasts.saturating_sub(begun.elapsed()));
    }

    /// Ends the fault.
    fn end(&mut self) {
        match self.scenario.fault {
            Fault::BlackHoleOne | Fault::BlackHoleAll | Fault::BlackHoleIpv6 | Fault::Loss => {
                scenario::open(&self.net);
            }
            Fault::Delay => self.delay(Duration::ZERO),
            Fault::Kill => {
                let (net, folder) = (&self.net, &self.folder);
                for (server, addresses) in self.servers.iter_mut().zip(SERVERS) {
                    server.get_or_insert_with(|| Server::start(net, folder, addresses));
                }
            }
            Fault::Roam | Fault::OnlyIpv6 | Fault::OwnPrefix | Fault::Reload | Fault::TakeOver => {}
        }
    }

    /// Starts a second process on the same address and stops the first once the second is ready.
    fn take_over(&mut self) {
        let folder = self.folder.join("successor");
        std::fs::create_dir(&folder).unwrap();
        std::fs::copy(self.folder.join("ca.pem"), folder.join("ca.pem")).unwrap();
        let successor = self.program.start_beside(&folder, &self.scenario.addresses());
        let mut predecessor = std::mem::replace(&mut self.process, successor);
        let is_ready = || process::read(&folder.join("log")).contains(self.program.ready_word());
        let ready = comes_true(Duration::from_secs(20), is_ready);
        assert!(ready, "{}", process::read(&folder.join("log")));
        predecessor.signal("TERM");
        predecessor.wait();
    }

    /// Takes IPv4 away from home; from now on a NAT64 has the servers at this prefix.
    fn only_ipv6(&mut self, prefix: &str) {
        for (server, _) in SERVERS {
            self.relays.push(Server::relay(&self.net, &format!("{prefix}{server}"), server));
        }
        self.net.lose_ipv4();
    }

    /// Makes both servers far away.
    fn delay(&mut self, delay: Duration) {
        self.servers.iter_mut().flatten().for_each(|server| server.delay(delay));
    }
}

/// A name that nobody asked before.
fn miss(number: u64) -> String {
    format!("host-{number}.miss.lab.example")
}

/// One of the names that are known.
fn hit(number: u64) -> String {
    format!("host-{}.hit.lab.example", number % KNOWN)
}

/// Asks until the program answers, and asks for all that is to be known.
fn warm(folder: &Path) {
    let socket = UdpSocket::bind("127.0.1.1:0").unwrap();
    socket.connect(Program::address()).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let answers = |name: &str| {
        let asked = query(name, rtype::A);
        let mut buffer = [0; 1500];
        let _ = socket.send(&asked.octets());
        while let Ok(length) = socket.recv(&mut buffer) {
            if length > 12 && buffer[..2] == asked.id.to_be_bytes() {
                return buffer[3] & 0xF == 0;
            }
        }
        // A port that nobody has yet is told at once.
        std::thread::sleep(Duration::from_millis(20));
        false
    };
    let names = (0..KNOWN).map(hit).chain((0..100).map(|number| format!("host-{number}.warm.lab.example")));
    for name in names {
        let answered = comes_true(Duration::from_secs(20), || answers(&name));
        assert!(answered, "{name} is not answered: {}", process::read(&folder.join("log")));
    }
}

/// Makes figures of all samples.
fn judge(scenario: &Scenario, times: &Times, misses: &[Sample], hits: &[Sample]) -> Value {
    let never = times.load + Duration::from_secs(3600);
    let (from, to, mark) = match scenario.judged {
        Judged::Since => (times.fault, never, times.fault),
        Judged::During => (times.fault, times.end, times.end),
        Judged::After => (times.end, never, times.end),
    };
    let normal = Figures::of(misses, times.load + CALM / 2, times.fault);
    let slow = Duration::from_secs_f64(normal.p99 / 1000.0) + SLOW;
    let bad = |sample: &&Sample| sample.sent >= mark && sample.good().is_none_or(|took| took > slow);
    let settled = misses.iter().filter(bad).map(|sample| sample.sent - mark).max().unwrap_or_default();
    let first = misses.iter().filter_map(|sample| Some(sample.sent + sample.good()?));
    let first = first.filter(|heard| *heard >= mark).min().map(|heard| heard - mark);
    json!({
        "fault": scenario.name,
        "normal": normal.json(),
        "misses": Figures::of(misses, from, to).json(),
        "hits": Figures::of(hits, times.fault, never).json(),
        "first_ms": first.map_or(f64::from(u16::MAX), milliseconds),
        "settled_ms": milliseconds(settled),
    })
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// How a number of queries fared, times in milliseconds. A failed one took all of a client's patience.
struct Figures {
    asked: usize,
    unanswered: usize,
    errors: usize,
    p50: f64,
    p99: f64,
    worst: f64,
}

impl Figures {
    /// Counts the queries that were sent within a time.
    fn of(samples: &[Sample], from: Instant, to: Instant) -> Self {
        let within: Vec<&Sample> =
            samples.iter().filter(|sample| sample.sent >= from && sample.sent < to).collect();
        let mut took: Vec<f64> = within
            .iter()
            .map(|sample| milliseconds(sample.good().unwrap_or(crate::load::PATIENCE)))
            .collect();
        took.sort_by(f64::total_cmp);
        let at = |share: usize| took.get((took.len() * share).div_ceil(100).saturating_sub(1)).copied();
        let failed = within.iter().filter(|sample| sample.good().is_none()).count();
        let errors =
            within.iter().filter(|sample| sample.answer.is_some_and(|(_, rcode)| rcode != 0)).count();
        Self {
            asked: within.len(),
            unanswered: failed - errors,
            errors,
            p50: at(50).unwrap_or_default(),
            p99: at(99).unwrap_or_default(),
            worst: at(100).unwrap_or_default(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "asked": self.asked, "unanswered": self.unanswered, "errors": self.errors,
            "failed": self.unanswered + self.errors,
            "p50": self.p50, "p99": self.p99, "worst": self.worst,
        })
    }
}
