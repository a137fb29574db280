//! Events of dnstap as programs of other makers read them (`fstrm_capture` takes them, `dnstap-read` shows them), what a reload
//! does to them, and collectors that are none: queries do not notice.
//!
//! A peer that is not installed is skipped, and said so; with `VEILDNS_REQUIRE_PEERS=1` it is a failure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::excessive_nesting,
    clippy::disallowed_methods,
    clippy::missing_docs_in_private_items,
    reason = "a broken assumption must end a test, and its table is its documentation"
)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::binary::{Running, veildns};
use support::eventually;
use support::gateway::{Setup, setup};
use support::installed::peer;
use support::load::Page;
use support::message::{query, rcode, rtype};
use support::process::Process;
use support::script::Script;
use support::server::{Protocol, Server};

/// A collector of another maker.
struct Capture {
    process: Process,
    file: PathBuf,
    /// As in `dnstap.output`.
    output: String,
    _folder: tempfile::TempDir,
}

impl Capture {
    /// Starts one on a unix socket; None when it is not installed.
    fn start() -> Option<Self> {
        let (program, _) = (peer("fstrm_capture")?, peer("dnstap-read")?);
        let folder = tempfile::tempdir().unwrap();
        let (socket, file) = (folder.path().join("socket"), folder.path().join("events"));
        let output = format!("unix:{}", socket.display());
        let mut command = Command::new(program);
        command.args(["-t", "protobuf:dnstap.Dnstap", "-u"]).arg(&socket).arg("-w").arg(&file);
        let process = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        eventually("the collector listens", || socket.exists());
        Some(Self { process, file, output, _folder: folder })
    }

    /// Ends it and returns what it got, as the other program reads it.
    fn events(mut self) -> Vec<Event> {
        self.process.signal("TERM");
        self.process.wait();
        let program = peer("dnstap-read").unwrap();
        let read = Command::new(program).arg("-y").arg(&self.file).output().unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        let text = String::from_utf8(read.stdout).unwrap();
        text.split("---\n").filter(|text| !text.trim().is_empty()).map(Event::read).collect()
    }
}

/// One event as `dnstap-read -y` shows it.
#[derive(Debug)]
struct Event(String);

impl Event {
    fn read(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Returns the value of a field, empty when it is not there.
    fn field(&self, name: &str) -> &str {
        let values = self.0.lines().filter_map(|line| line.trim_start().split_once(": "));
        values.filter(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"')).next().unwrap_or("")
    }

    /// Returns the kind: the field `type` of the message, not of what is around it.
    fn kind(&self) -> &str {
        let message = self.0.split_once("message:\n").map_or("", |(_, message)| message);
        message.lines().find_map(|line| line.trim().strip_prefix("type: ")).unwrap_or("")
    }

    fn names(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

/// A running gateway and its file.
struct Lab {
    running: Running,
    config: PathBuf,
    metrics: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Lab {
    fn start(setup: &Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("veildns.toml");
        // A port that was free a moment ago: the page has to be found again.
        let metrics = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        setup.clone().table(&format!("[metrics]\nlisten = \"{metrics}\"")).write(&config);
        let running = Running::start(&config);
        Self { running, config, metrics, _folder: folder }
    }

    fn ask(&self, name: &str) {
        assert_eq!(self.running.client().udp(&query(name, rtype::A)).rcode(), rcode::NOERROR);
    }

    fn reload(&self, setup: &Setup) {
        setup.clone().table(&format!("[metrics]\nlisten = \"{}\"", self.metrics)).write(&self.config);
        self.running.reload();
    }

    fn is_connected(&self) -> bool {
        Page::fetch(self.metrics).value("veildns_dnstap_connected") == 1
    }

    fn dropped(&self) -> u64 {
        Page::fetch(self.metrics).value("veildns_dnstap_dropped_total")
    }

    fn stop(mut self) {
        self.running.process.signal("TERM");
        assert!(self.running.process.wait().success());
    }
}

/// The table that sends events to `output`.
fn table(output: &str, keys: &str) -> String {
    format!("[dnstap]\noutput = \"{output}\"\n{keys}")
}

#[test]
fn a_collector_of_another_maker_gets_each_message_with_its_circumstances() {
    let Some(capture) = Capture::start() else { return };
    let server = Server::start(Protocol::Dot, Script::good());
    let identity = table(&capture.output, "identity = \"the lab\"");
    let lab = Lab::start(&setup().server("lab", &server).table(&identity));
    lab.ask("host-missed.lab.example");
    lab.ask("host-missed.lab.example");
    let reply = lab.running.client().tcp(&query("host-by-tcp.lab.example", rtype::A));
    assert_eq!(reply.rcode(), rcode::NOERROR);
    eventually("the collector is connected", || lab.is_connected());
    let port = lab.running.address.port().to_string();
    lab.stop();
    let events = capture.events();
    let of = |kind: &str, name: &str| -> Vec<&Event> {
        events.iter().filter(|event| event.kind() == kind && event.names(name)).collect()
    };
    for (name, protocol, asked) in [("host-missed", "UDP", 2), ("host-by-tcp", "TCP", 1)] {
        let (queries, responses) = (of("CLIENT_QUERY", name), of("CLIENT_RESPONSE", name));
        assert_eq!((queries.len(), responses.len()), (asked, asked), "{events:#?}");
        for event in queries.iter().chain(&responses) {
            assert_eq!(event.field("socket_family"), "INET", "{event:?}");
            assert_eq!(event.field("socket_protocol"), protocol, "{event:?}");
            assert_eq!(event.field("query_address"), "127.0.0.1", "{event:?}");
            assert_ne!(event.field("query_port"), "", "{event:?}");
            assert_eq!(event.field("response_address"), "127.0.0.1", "{event:?}");
            assert_eq!(event.field("response_port"), port, "{event:?}");
            assert_eq!(event.field("identity"), "the lab", "{event:?}");
            assert!(event.field("version").starts_with("veildns "), "{event:?}");
        }
        // Of the two times of a response it shows the second.
        for event in &queries {
            assert_ne!(event.field("query_time"), "", "{event:?}");
            assert_eq!(event.field("response_time"), "", "{event:?}");
        }
        for event in &responses {
            assert_ne!(event.field("response_time"), "", "{event:?}");
            assert!(event.names("NOERROR"), "{event:?}");
        }
        let (asked, answered) = (of("FORWARDER_QUERY", name), of("FORWARDER_RESPONSE", name));
        assert_eq!((asked.len(), answered.len()), (1, 1), "the cache answers the second: {events:#?}");
        assert_eq!(answered[0].field("response_address"), "127.0.0.1");
        let (_, server_port) =
            server.url().rsplit_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert_eq!(answered[0].field("response_port"), server_port.trim_end_matches('/'));
        for event in [asked[0], answered[0]] {
            assert_eq!((event.field("query_address"), event.field("query_port")), ("", ""), "{event:?}");
        }
    }
    println!("{}", events.iter().map(|event| event.0.as_str()).collect::<Vec<_>>().join("---\n"));
}

#[test]
fn a_reload_switches_it_on_and_elsewhere_and_off() {
    let (Some(first), Some(second)) = (Capture::start(), Capture::start()) else { return };
    let server = Server::start(Protocol::Doh, Script::good());
    let plain = setup().server("lab", &server);
    let lab = Lab::start(&plain);
    lab.ask("host-before.lab.example");
    lab.reload(&plain.clone().table(&table(&first.output, "")));
    lab.ask("host-first.lab.example");
    let only_clients = "messages = [\"client_query\", \"client_response\"]\nclients = \"absent\"";
    lab.reload(&plain.clone().table(&table(&second.output, only_clients)));
    lab.ask("host-second.lab.example");
    lab.reload(&plain);
    lab.ask("host-after.lab.example");
    lab.stop();
    let (first, second) = (first.events(), second.events());
    let told = |events: &[Event]| -> Vec<(String, bool)> {
        events.iter().map(|event| (event.kind().to_owned(), event.names("host-first"))).collect()
    };
    assert_eq!(first.len(), 4, "{first:#?}");
    assert!(told(&first).iter().all(|(_, is_first)| *is_first), "{first:#?}");
    assert_eq!(second.len(), 2, "{second:#?}");
    for event in &second {
        assert!(event.kind().starts_with("CLIENT_") && event.names("host-second"), "{event:?}");
        assert_eq!((event.field("query_address"), event.field("query_port")), ("", ""), "{event:?}");
    }
}

/// What a collector does to a connection when it is none.
type Mischief = fn(TcpStream);

/// Shakes hands as a collector does.
fn welcome(stream: &mut TcpStream) {
    let mut ready = [0; 42];
    let _ = stream.read_exact(&mut ready);
    // READY is 4, ACCEPT is 1; the content type is the same.
    ready[11] = 1;
    let _ = stream.write_all(&ready);
}

/// Keeps a connection open and never reads from it.
fn keep(stream: TcpStream) {
    std::mem::forget(stream);
}

#[test]
fn a_collector_that_is_none_costs_no_query_and_what_it_loses_is_counted() {
    let mischiefs: &[(&str, Mischief)] = &[
        ("closes at once", drop),
        ("never answers", keep),
        ("sends garbage", |mut stream| {
            let _ = stream.write_all(&[0xA5; 65_536]);
        }),
        ("takes the start and then reads nothing", |mut stream| {
            welcome(&mut stream);
            keep(stream);
        }),
        ("closes in the middle", |mut stream| {
            welcome(&mut stream);
            let _ = stream.read(&mut [0; 100]);
        }),
    ];
    let server = Server::start(Protocol::Dot, Script::good());
    for (name, mischief) in mischiefs {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let output = format!("tcp://{}", listener.local_addr().unwrap());
        let mischief = *mischief;
        std::thread::spawn(move || {
            listener.incoming().flatten().for_each(mischief);
        });
        let small = table(&output, "[limits]\ndnstap_queue = \"64KiB\"");
        let lab = Lab::start(&setup().server("lab", &server).table(&small));
        for number in 0..200 {
            lab.ask(&format!("host-{}.lab.example", number % 50));
        }
        // The kernel's buffers hold a good deal.
        eventually(name, || {
            let long = lab.running.client().tcp(&query("text60k.lab.example", rtype::TXT));
            assert_eq!(long.rcode(), rcode::NOERROR, "{name}");
            lab.dropped() > 0
        });
        lab.stop();
    }
}

#[test]
fn a_path_that_is_no_socket_is_found_by_check_and_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("veildns.toml");
    let output = |place: &Path| table(&format!("unix:{}", place.display()), "");
    let run = |command: &str| veildns().arg(command).arg("--config").arg(&config).output().unwrap();
    let listen = "listen = [\"127.0.0.1:0\"]\n";
    std::fs::write(&config, format!("{listen}{}", output(&config))).unwrap();
    for command in ["check", "run"] {
        let ended = run(command);
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(78), "{command}: {said}");
        assert!(said.contains("dnstap.output") && said.contains("not a socket"), "{command}: {said}");
    }
    // One that is not there yet may come.
    std::fs::write(&config, format!("{listen}{}", output(&folder.path().join("later")))).unwrap();
    let ended = run("check");
    assert_eq!(ended.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&ended.stdout).contains("dnstap      unix:"));
}

#[test]
fn events_that_waited_for_a_collector_are_sent_when_it_comes() {
    let Some(capture) = Capture::start() else { return };
    let server = Server::start(Protocol::Dot, Script::good());
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("later");
    let lab = Lab::start(
        &setup()
            .server("lab", &server)
            .table(&table(&format!("unix:{}", socket.display()), "messages = [\"client_response\"]")),
    );
    lab.ask("host-early.lab.example");
    std::os::unix::fs::symlink(capture.output.strip_prefix("unix:").unwrap(), &socket).unwrap();
    eventually("the collector is found", || lab.is_connected());
    lab.stop();
    let events = capture.events();
    assert_eq!(events.len(), 1, "{events:#?}");
    assert!(events[0].names("host-early"), "{events:#?}");
}
