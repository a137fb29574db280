//! Clients: names at an even pace, one datagram each, and for each the time to its answer. A query is never sent again,
//! so that nothing lost is mended here. They ask from sixteen addresses, as a household does.

use crate::support::message::{query, rtype};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;

/// How long a client waits: what resolv.conf(5) has as `timeout`.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How many clients there are.
const CLIENTS: u8 = 16;

/// Most queries sent within one millisecond. When this machine was busy elsewhere, what is due is not thrown at the
/// gateway at once: its socket would overflow for a fault of ours.
const BURST: u64 = 50;

/// One query and what came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) sent: Instant,
    /// How long it took, and the rcode.
    pub(crate) answer: Option<(Duration, u8)>,
}

impl Sample {
    /// The time to an answer with NOERROR, within a client's patience.
    pub(crate) fn good(&self) -> Option<Duration> {
        self.answer.filter(|(took, rcode)| *rcode == 0 && *took <= PATIENCE).map(|(took, _)| took)
    }
}

/// A stream of queries on a thread of its own.
pub(crate) struct Stream {
    thread: std::thread::JoinHandle<Vec<Sample>>,
    stop: Arc<AtomicBool>,
}

impl Stream {
    /// Begins to ask so many a second; the number of a query makes its name.
    pub(crate) fn start(gateway: SocketAddr, rate: u32, name: fn(u64) -> String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(ask(gateway, rate, name, &stopped))
        });
        Self { thread, stop }
    }

    /// Asks no more.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for the answers that are still to come.
    pub(crate) fn samples(self) -> Vec<Sample> {
        self.stop();
        self.thread.join().unwrap()
    }
}

/// What has been asked. The place of a query is its ID: fewer wait at a time than there are IDs.
struct Book {
    samples: Vec<Sample>,
    /// By ID: the place in `samples`, and the octets behind the ID up to the end of the question.
    waiting: Vec<Option<(usize, Vec<u8>)>>,
    count: usize,
}

/// Asks until told to stop, then waits for the rest.
async fn ask(gateway: SocketAddr, rate: u32, name: fn(u64) -> String, stop: &AtomicBool) -> Vec<Sample> {
    let waiting = vec![None; 1 << 16];
    let book = Arc::new(Mutex::new(Book { samples: Vec::new(), waiting, count: 0 }));
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 1, number), 0)).await.unwrap();
        socket.connect(gateway).await.unwrap();
        let socket = Arc::new(socket);
        tokio::spawn(hear(Arc::clone(&socket), Arc::clone(&book)));
        clients.push(socket);
    }
    let begun = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut sent = 0;
    while rate > 0 && !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let due = u64::try_from(begun.elapsed().as_micros()).unwrap() * u64::from(rate) / 1_000_000;
        for _ in 0..due.saturating_sub(sent).min(BURST) {
            let socket = &clients[usize::try_from(sent).unwrap() % clients.len()];
            send(socket, &book, &name(sent));
            sent += 1;
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while book.lock().unwrap().count > 0 && Instant::now() < deadline {
        tick.tick().await;
    }
    std::mem::take(&mut book.lock().unwrap().samples)
}

/// Sends one query and notes it.
fn send(socket: &UdpSocket, book: &Mutex<Book>, name: &str) {
    let mut book = book.lock().unwrap();
    let place = book.samples.len();
    let id = u16::try_from(place % (1 << 16)).unwrap();
    let mut asked = query(name, rtype::A);
    asked.id = id;
    let octets = asked.octets();
    let question = octets[12..crate::support::zone::question_end(&octets)].to_vec();
    if book.waiting[usize::from(id)].replace((place, question)).is_none() {
        book.count += 1;
    }
    book.samples.push(Sample { sent: Instant::now(), answer: None });
    // What the socket does not take counts as lost.
    let _ = socket.try_send(&octets);
}

/// Hears answers and notes each that fits a question.
async fn hear(socket: Arc<UdpSocket>, book: Arc<Mutex<Book>>) {
    let mut buffer = [0; 1500];
    loop {
        // An error is the gateway's absence, told by ICMP: its answers may come yet.
        let Ok(length) = socket.recv(&mut buffer).await else { continue };
        let heard = Instant::now();
        let octets = &buffer[..length];
        let mut book = book.lock().unwrap();
        let Some(id) = octets.first_chunk().map(|id| usize::from(u16::from_be_bytes(*id))) else { continue };
        let fits = book.waiting[id]
            .as_ref()
            .is_some_and(|(_, question)| octets.get(12..12 + question.len()) == Some(question.as_slice()));
        if fits && let Some((place, _)) = book.waiting[id].take() {
            book.count -= 1;
            let sample = &mut book.samples[place];
            sample.answer = Some((heard - sample.sent, octets[3] & 0x0F));
        }
    }
}
