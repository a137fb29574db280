//! Traces from end to end: queries through the gateway to real servers, spans out to a collector. What comes is decoded by
//! the message types of OpenTelemetry itself; a collector of another maker has its say too.
//!
//! Without that collector (`VEILDNS_COLLECTOR` names its program) its test is skipped, and said so.

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

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use support::authority::Certificate;
use support::gateway::{Gateway, Setup, setup};
use support::message::{query, rcode, rtype};
use support::process::{Process, read};
use support::script::{Reply, Script};
use support::server::{Protocol, Server};
use support::trap::Trap;
use support::{PATIENCE, comes_true, eventually};

/// A collector in this process: one thread for each connection, which ends with it.
#[derive(Clone)]
struct Collector {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    refuses: Arc<AtomicBool>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let collector = Self { address, requests: Arc::default(), refuses: Arc::default() };
        let accepting = collector.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let collector = accepting.clone();
                std::thread::spawn(move || while collector.serve(&stream).is_some() {});
            }
        });
        collector
    }

    /// Takes one request; None when the connection is over.
    fn serve(&self, mut stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            head.push(line.trim_end().to_ascii_lowercase());
        }
        assert_eq!(head[0], "post /v1/traces http/1.1");
        assert!(head.contains(&"content-type: application/x-protobuf".to_owned()), "{head:?}");
        let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        reader.read_exact(&mut body).ok()?;
        let status = if self.refuses.load(Ordering::Relaxed) { "400 Bad Request" } else { "200 OK" };
        if !self.refuses.load(Ordering::Relaxed) {
            self.requests.lock().unwrap().push(ExportTraceServiceRequest::decode(&body[..]).unwrap());
        }
        let reply =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(reply.as_bytes()).ok()
    }

    /// The table of the configuration that sends traces here.
    fn table(&self, keys: &str) -> String {
        format!("[otel]\ntraces = true\nendpoint = \"http://{}\"\n{keys}\n", self.address)
    }

    /// Every span that has come.
    fn spans(&self) -> Vec<Span> {
        let requests = self.requests.lock().unwrap();
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    fn named(&self, name: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.name == name).collect()
    }
}

/// An attribute as text; empty when there is none.
fn value(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(value)) => value.to_string(),
        _ => String::new(),
    }
}

/// All that spans may say while names are off.
const ATTRIBUTES: [&str; 26] = [
    "error.type",
    "network.protocol.name",
    "network.protocol.version",
    "network.transport",
    "server.address",
    "server.port",
    "veildns.attempt",
    "veildns.attempt.reason",
    "veildns.attempts",
    "veildns.cache.kept",
    "veildns.ede",
    "veildns.group",
    "veildns.hedge",
    "veildns.hedged",
    "veildns.late",
    "veildns.outcome",
    "veildns.queries",
    "veildns.question.type",
    "veildns.rcode",
    "veildns.refresh",
    "veildns.repeated",
    "veildns.shared",
    "veildns.source",
    "veildns.stale",
    "veildns.upstream",
    "veildns.upstream.protocol",
];

fn ask(gateway: &Gateway, name: &str) {
    assert_eq!(gateway.client().udp(&query(name, rtype::A)).rcode(), rcode::NOERROR);
}

/// A gateway whose first server has a wrong certificate and whose second one is good.
fn two_servers() -> (Setup, [Server; 2]) {
    let impostor = Server::with_certificate(Protocol::Dot, Script::good(), Certificate::Expired);
    let good = Server::start(Protocol::Doh, Script::good());
    (setup().server("impostor", &impostor).server("good", &good), [impostor, good])
}

#[test]
fn a_query_that_missed_leaves_one_trace_with_every_attempt_and_no_name() {
    let collector = Collector::start();
    let (setup, _servers) = two_servers();
    let gateway = setup.table(&collector.table("service_name = \"lab\"")).start();
    ask(&gateway, "host-one.lab.example");
    ask(&gateway, "host-one.lab.example");
    // The last traces are sent when it stops.
    drop(gateway);
    let roots = collector.named("query");
    assert_eq!(roots.len(), 1, "the second one was a hit: {roots:#?}");
    let root = &roots[0];
    for (key, expected) in [
        ("veildns.rcode", "NOERROR"),
        ("veildns.source", "upstream"),
        ("veildns.question.type", "A"),
        ("network.transport", "udp"),
        ("dns.question.name", ""),
    ] {
        assert_eq!(value(root, key), expected, "{key}");
    }
    let attempts = collector.named("attempt");
    let told: Vec<[String; 3]> = attempts
        .iter()
        .map(|attempt| ["veildns.upstream", "veildns.outcome", "error.type"].map(|key| value(attempt, key)))
        .collect();
    let words = |words: [&str; 3]| words.map(str::to_owned);
    assert_eq!(told, [words(["impostor", "certificate", "certificate"]), words(["good", "ok", ""])]);
    let spans = collector.spans();
    for span in &spans {
        assert_eq!(span.trace_id, root.trace_id);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
        let parent = spans.iter().find(|other| other.span_id == span.parent_span_id);
        assert_eq!(parent.is_none(), span.name == "query", "{span:?}");
    }
    for stage in ["queue", "flight", "wait", "exchange", "validate", "reply"] {
        assert_eq!(spans.iter().filter(|span| span.name == stage).count(), 1, "{stage}");
    }
    let octets: Vec<u8> =
        collector.requests.lock().unwrap().iter().flat_map(Message::encode_to_vec).collect();
    let holds = |text: &[u8]| octets.windows(text.len()).any(|part| part == text);
    assert!(holds(b"lab") && !holds(b"host-one"), "a trace holds a name");
    // No name, and nothing of the client: each further attribute is a decision.
    for attribute in spans.iter().flat_map(|span| &span.attributes) {
        assert!(ATTRIBUTES.contains(&attribute.key.as_str()), "{} is new", attribute.key);
    }
}

#[test]
fn names_are_in_traces_when_the_operator_says_so() {
    let collector = Collector::start();
    let server = Server::start(Protocol::Dot, Script::good());
    let gateway = setup().server("lab", &server).table(&collector.table("names = true")).start();
    ask(&gateway, "host-one.lab.example");
    drop(gateway);
    assert_eq!(value(&collector.named("query")[0], "dns.question.name"), "host-one.lab.example.");
}

#[test]
fn traces_are_sent_while_the_gateway_runs_and_a_reload_switches_them_off_and_on() {
    let collector = Collector::start();
    let server = Server::start(Protocol::Dot, Script::good());
    let base = setup().server("lab", &server);
    let mut gateway = base.clone().table(&collector.table("")).start();
    ask(&gateway, "host-one.lab.example");
    eventually("the first trace comes", || collector.named("query").len() == 1);
    gateway.reload(&base);
    ask(&gateway, "host-two.lab.example");
    gateway.reload(&base.clone().table(&collector.table("")));
    ask(&gateway, "host-three.lab.example");
    drop(gateway);
    assert_eq!(collector.named("query").len(), 2);
}

#[test]
fn a_collector_that_refuses_costs_traces_and_no_answers() {
    let collector = Collector::start();
    collector.refuses.store(true, Ordering::Relaxed);
    let server = Server::start(Protocol::Dot, Script::replying(Reply::Zone));
    let gateway = setup().server("lab", &server).table(&collector.table("")).start();
    for name in ["host-one", "host-two", "host-three"] {
        ask(&gateway, &format!("{name}.lab.example"));
    }
    let dropped = || gateway.gateway().core().telemetry().tally().traces_dropped;
    eventually("the traces are given up", || dropped() == 3);
    collector.refuses.store(false, Ordering::Relaxed);
    ask(&gateway, "www.lab.example");
    eventually("the next one is taken", || collector.named("query").len() == 1);
}

#[test]
fn a_collector_of_another_maker_understands_them() {
    let Some(program) = std::env::var_os("VEILDNS_COLLECTOR") else {
        eprintln!("SKIPPED: no collector; VEILDNS_COLLECTOR names the program of rotel");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let (_process, address) = start_collector(Path::new(&program), &log);
    let (setup, _servers) = two_servers();
    let table = format!("[otel]\ntraces = true\nnames = true\nendpoint = \"http://{address}\"\n");
    let gateway = setup.table(&table).start();
    ask(&gateway, "host-one.lab.example");
    drop(gateway);
    eventually("the collector shows the trace", || {
        let text = read(&log);
        ["query", "flight", "attempt", "exchange", "host-one.lab.example.", "veildns.outcome"]
            .iter()
            .all(|word| text.contains(word))
    });
}

/// Starts a collector that writes what it is sent into its log.
fn start_collector(program: &Path, log: &Path) -> (Process, SocketAddr) {
    // Its ports may be taken by another test in the moment before it has them.
    for _ in 0..4 {
        let (http, grpc) = (Trap::lay().address(), Trap::lay().address());
        let file = std::fs::File::create(log).unwrap();
        let mut command = Command::new(program);
        command
            .args(["start", "--exporter", "blackhole", "--debug-log", "traces"])
            .args(["--debug-log-verbosity", "detailed"])
            .arg(format!("--otlp-http-endpoint={http}"))
            .arg(format!("--otlp-grpc-endpoint={grpc}"))
            .current_dir(log.parent().unwrap())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        let mut process = Process::start(&mut command);
        let is_up = comes_true(PATIENCE, || process.ended().is_some() || TcpStream::connect(http).is_ok());
        if is_up && process.ended().is_none() {
            return (process, http);
        }
    }
    panic!("the collector does not start; it says:\n{}", read(log));
}
