//! The listener with real sockets on loopback and a resolver that does what the first label says.

mod access;
mod attended;
mod reload;
mod tcp;
mod udp;

use super::admission::AccessList;
use super::worker::Workers;
use super::{Answer, Context};
use crate::config::settings::{Limits, Listen};
use crate::resolver::Step;
use crate::resolver::waiter::{ReplyBatch, ReplyNote, Waiter};
use crate::telemetry::counters::Telemetry;
use crate::telemetry::outcome::{Outcome, Source};
use crate::wire::edns::ReplyOptions;
use crate::wire::header::Rcode;
use crate::wire::query::{ClientTransport, QueryRef};
use crate::wire::reply;
use arc_swap::ArcSwap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// No test waits longer for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers by the first letters of the name: `hit`, `huge` (as long as may be) and `boom` (a panic) at once, `late` from
/// another thread at once, `held` and `heldhuge` when the test says so, `drop` never. `gate` holds the worker up.
#[derive(Debug, Default)]
pub(super) struct Fake {
    /// What waits.
    held: Mutex<Vec<Waiter>>,
    /// Told when `held` changes.
    changed: Condvar,
    /// Sizes of the batches that were handed over.
    batches: Mutex<Vec<usize>>,
    /// Holds the worker up until something comes; gone when it does.
    gate: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
    /// Which queries were taken by a task.
    tasks: Mutex<Vec<bool>>,
    /// How many were taken by an attendant.
    attended: AtomicUsize,
}

impl Answer for Fake {
    type Pending = ();
    type Round = ();

    fn round(&self, _now: Instant) {}

    fn answer_now(
        &self,
        (): &(),
        query: &QueryRef<'_>,
        transport: ClientTransport,
        out: &mut [u8],
    ) -> (Step<()>, Outcome) {
        let outcome =
            Outcome { source: Source::Cache, rcode: Rcode::NOERROR, ede: None, transport, duration: None };
        let label = query.question().name.as_bytes();
        self.tasks.lock().unwrap().push(tokio::task::try_id().is_some());
        let is_attended = std::thread::current().name() == Some("attendant");
        self.attended.fetch_add(usize::from(is_attended), Ordering::SeqCst);
        let step = match label.get(1..5) {
            Some(b"late" | b"held") => Step::Wait(()),
            Some(b"drop") => Step::Drop,
            Some(b"boom") => panic!("asked to"),
            Some(b"gate") => {
                let gate = self.gate.lock().unwrap().take().unwrap();
                gate.recv_timeout(PATIENCE).unwrap();
                Step::Reply(render(query, out))
            }
            _ => Step::Reply(render(query, out)),
        };
        (step, outcome)
    }

    fn enqueue(&self, misses: &mut Vec<((), Waiter)>) {
        self.batches.lock().unwrap().push(misses.len());
        for ((), waiter) in misses.drain(..) {
            if is_held(&waiter) {
                self.held.lock().unwrap().push(waiter);
                self.changed.notify_all();
            } else {
                std::thread::spawn(move || deliver(&[waiter]));
            }
        }
    }
}

impl Fake {
    /// Waits until `count` queries are held.
    fn wait_for_held(&self, count: usize) {
        let held = self.held.lock().unwrap();
        let (held, timeout) =
            self.changed.wait_timeout_while(held, PATIENCE, |held| held.len() < count).unwrap();
        assert!(!timeout.timed_out(), "only {} queries arrived", held.len());
    }

    /// Returns how many queries are held.
    fn held(&self) -> usize {
        self.held.lock().unwrap().len()
    }

    /// Answers the `count` that have waited longest, together.
    fn release(&self, count: usize) {
        let waiters: Vec<_> = self.held.lock().unwrap().drain(..count).collect();
        deliver(&waiters);
    }
}

/// Tells whether the name begins with `held`.
fn is_held(waiter: &Waiter) -> bool {
    QueryRef::parse(&waiter.query).unwrap().question().name.as_bytes().get(1..5) == Some(b"held")
}

/// Writes NOERROR, made as long as may be when the name ends in `huge`.
fn render(query: &QueryRef<'_>, out: &mut [u8]) -> usize {
    let octets = reply::error(query, Rcode::NOERROR, &ReplyOptions::default(), out);
    if query.question().name.as_bytes().ends_with(b"huge\0") { out.len() } else { octets }
}

/// Sends replies to waiters of one sink by one batch.
fn deliver(waiters: &[Waiter]) {
    let mut batch = ReplyBatch::default();
    for waiter in waiters {
        let query = QueryRef::parse(&waiter.query).unwrap();
        let note = ReplyNote { source: Source::Upstream, upstream: None };
        batch.push(waiter.client, note, query.reply_limit(waiter.transport), |out| render(&query, out));
    }
    waiters[0].sink.send(&batch);
}

/// A listener under test.
struct Server {
    workers: Workers<Fake>,
    fake: Arc<Fake>,
    access: Arc<ArcSwap<AccessList>>,
    telemetry: Arc<Telemetry>,
    /// The first address.
    address: SocketAddr,
}

impl Server {
    /// Starts `count` workers on `address`.
    fn start(count: usize, address: &str, limits: Limits) -> Self {
        let fake = Arc::new(Fake::default());
        let loopback = ["127.0.0.0/8", "::1/128"].map(|text| text.parse().unwrap());
        let access = Arc::new(ArcSwap::from_pointee(AccessList::new(&loopback)));
        let telemetry = telemetry();
        let context = Context {
            resolver: Arc::clone(&fake),
            telemetry: Arc::clone(&telemetry),
            access: Arc::clone(&access),
            limits: Arc::new(limits),
        };
        let workers = Workers::start(count, context, None).unwrap();
        let report = workers.listen(&[written(address.parse().unwrap())]).unwrap();
        Self { workers, fake, access, telemetry, address: report.bound[0] }
    }

    /// Starts one worker on IPv4 loopback with the usual limits.
    fn usual() -> Self {
        Self::start(1, "127.0.0.1:0", Limits::default())
    }

    /// Opens a UDP client.
    fn udp(&self) -> UdpSocket {
        udp_to(self.address)
    }

    /// Opens a TCP client.
    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Stops; everything must have ended long before the deadline.
    fn stop(self) {
        let begun = crate::clock::now();
        self.workers.join(begun + PATIENCE);
        assert!(begun.elapsed() < PATIENCE, "something still ran at the deadline");
    }
}

/// Counters of a listener's own.
fn telemetry() -> Arc<Telemetry> {
    Telemetry::new()
}

/// An address as if the operator had written it.
fn written(address: SocketAddr) -> Listen {
    Listen { address, written: true }
}

/// Opens a UDP client that takes replies only from `address`.
fn udp_to(address: SocketAddr) -> UdpSocket {
    let local = if address.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(local).unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A query for A of `name`, RD set.
fn query(id: u16, name: &str) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// The same with EDNS and the payload size 4096.
fn query_edns(id: u16, name: &str) -> Vec<u8> {
    let mut message = query(id, name);
    message[11] = 1;
    message.extend(b"\0\0\x29\x10\0\0\0\0\0\0\0");
    message
}

/// Receives one datagram.
fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_535];
    let len = socket.recv(&mut buffer).expect("a reply");
    buffer.truncate(len);
    buffer
}

/// Sends one framed message.
fn write_message(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(&framed(message)).unwrap();
}

/// The message with its length before it.
fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

/// Reads one framed message.
fn read_message(stream: &mut TcpStream) -> Vec<u8> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).expect("a reply");
    let mut message = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut message).unwrap();
    message
}

/// Waits until the server closes the connection, which must not say any more.
fn assert_closed(stream: &mut TcpStream) {
    match stream.read(&mut [0; 16]) {
        Ok(0) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => panic!("expected the end, got {other:?}"),
    }
}

/// The ID of a message.
fn id(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

/// The low bits of the rcode.
fn rcode(message: &[u8]) -> u8 {
    message[3] & 15
}
