//! The courier against collectors that take, refuse, and say nothing.

use super::super::event::{Parties, Protocol, proto};
use super::*;
use crate::config::settings::QueryClients;
use crate::config::settings::dnstap::{MessageKind, MessageKinds};
use crate::telemetry::feed::Feed;
use prost::Message as _;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::UNIX_EPOCH;
use tokio::io::{DuplexStream, duplex};

/// A courier, the feed into it, and the gauge.
fn courier() -> (Feed<Event>, Courier, Arc<AtomicBool>) {
    let settings = DnstapSettings {
        collector: Collector::Unix("/nowhere".into()),
        messages: MessageKinds::ALL,
        clients: QueryClients::Full,
        identity: String::new(),
    };
    let (feed, queue) = Feed::with_queue(1 << 20);
    let connected = Arc::default();
    (feed, Courier::new(settings, queue, Arc::clone(&connected)), connected)
}

/// Sends an event whose message is this.
fn send(feed: &Feed<Event>, message: &[u8]) {
    feed.send(message.len(), || Event {
        kind: MessageKind::ForwarderQuery,
        protocol: Protocol::Dot,
        parties: Parties::Server { name: "quad9".into(), address: None },
        asked_at: UNIX_EPOCH,
        answered_at: None,
        message: message.into(),
    });
}

/// Connections to hand out, one after the other, and when each was asked for.
struct Connections {
    left: Mutex<VecDeque<DuplexStream>>,
    asked: Mutex<Vec<std::time::Instant>>,
}

impl Connections {
    /// Makes so many; returns their other ends too.
    fn new<const N: usize>() -> (Self, [DuplexStream; N]) {
        let mut left = VecDeque::new();
        let theirs = std::array::from_fn(|_| {
            let (ours, theirs) = duplex(256);
            left.push_back(ours);
            theirs
        });
        (Self { left: Mutex::new(left), asked: Mutex::default() }, theirs)
    }

    fn next(&self) -> io::Result<DuplexStream> {
        self.asked.lock().unwrap().push(crate::clock::now());
        self.left.lock().unwrap().pop_front().ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
    }
}

/// Reads a frame: data, or the kind of a control frame.
async fn frame(stream: &mut DuplexStream) -> io::Result<Result<Vec<u8>, ControlKind>> {
    let length = stream.read_u32().await? as usize;
    if length > 0 {
        let mut data = vec![0; length];
        stream.read_exact(&mut data).await?;
        return Ok(Ok(data));
    }
    let mut content = vec![0; stream.read_u32().await? as usize];
    stream.read_exact(&mut content).await?;
    let control = Control::parse(&content).unwrap();
    assert!(control.takes_dnstap());
    Ok(Err(control.kind))
}

/// Shakes hands as a collector does.
async fn welcome(stream: &mut DuplexStream) {
    assert_eq!(frame(stream).await.unwrap(), Err(ControlKind::Ready));
    say(stream, ControlKind::Accept).await.unwrap();
    assert_eq!(frame(stream).await.unwrap(), Err(ControlKind::Start));
}

/// Takes one event and returns its message.
async fn take(stream: &mut DuplexStream) -> Vec<u8> {
    let data = frame(stream).await.unwrap().unwrap();
    proto::Dnstap::decode(&data[..]).unwrap().message.unwrap().query_message.unwrap().to_vec()
}

/// Takes so many events, whose messages are forty octets of their number.
async fn take_numbers(stream: &mut DuplexStream, count: u8) {
    for number in 0..count {
        assert_eq!(take(stream).await, [number; 40]);
    }
}

/// Parts as a collector does.
async fn part(stream: &mut DuplexStream) {
    assert_eq!(frame(stream).await.unwrap(), Err(ControlKind::Stop));
    say(stream, ControlKind::Finish).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn events_arrive_in_order_and_both_sides_agree_on_the_end() {
    let (feed, courier, connected) = courier();
    let (connections, [mut stream]) = Connections::new();
    send(&feed, b"before there is a connection");
    let collector = async {
        welcome(&mut stream).await;
        assert_eq!(take(&mut stream).await, b"before there is a connection");
        assert!(connected.load(Ordering::Relaxed));
        (0..100_u8).for_each(|number| send(&feed, &[number; 40]));
        feed.close();
        take_numbers(&mut stream, 100).await;
        part(&mut stream).await;
    };
    tokio::join!(courier.run_over(async || connections.next()), collector);
    assert_eq!(feed.dropped(), 0);
    assert!(!connected.load(Ordering::Relaxed));
}

/// What a collector does that is none.
#[derive(Clone, Copy, Debug)]
enum Mischief {
    ClosesAtOnce,
    SaysNothing,
    SendsGarbage,
    SendsData,
    SendsHugeLength,
    TakesOtherTypes,
    FinishesFirst,
    GarbageAfterAccept,
    ClosesAfterAccept,
}

/// Misbehaves until the courier has had enough.
async fn misbehave(mischief: Mischief, mut stream: DuplexStream) {
    let octets: &[u8] = match mischief {
        Mischief::ClosesAtOnce => return,
        Mischief::SaysNothing => &[],
        Mischief::SendsGarbage => b"HTTP/1.1 400 Bad Request\r\n\r\n",
        Mischief::SendsData => &[0, 0, 0, 4, 1, 2, 3, 4],
        Mischief::SendsHugeLength => &[0, 0, 0, 0, 255, 255, 255, 255],
        Mischief::TakesOtherTypes => &[0, 0, 0, 0, 0, 0, 0, 13, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, b'x'],
        Mischief::FinishesFirst => &[0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 5],
        Mischief::GarbageAfterAccept | Mischief::ClosesAfterAccept => {
            welcome(&mut stream).await;
            if let Mischief::ClosesAfterAccept = mischief {
                return;
            }
            b"more"
        }
    };
    stream.write_all(octets).await.unwrap();
    while frame(&mut stream).await.is_ok() {}
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_is_none_costs_no_event_and_the_next_one_gets_them() {
    for mischief in [
        Mischief::ClosesAtOnce,
        Mischief::SaysNothing,
        Mischief::SendsGarbage,
        Mischief::SendsData,
        Mischief::SendsHugeLength,
        Mischief::TakesOtherTypes,
        Mischief::FinishesFirst,
        Mischief::GarbageAfterAccept,
        Mischief::ClosesAfterAccept,
    ] {
        is_survived(mischief).await;
    }
}

/// Sends an event after such a collector, and sees it arrive at the next.
async fn is_survived(mischief: Mischief) {
    let (feed, courier, _) = courier();
    let (connections, [bad, mut good]) = Connections::new();
    let collectors = async {
        misbehave(mischief, bad).await;
        send(&feed, b"for the good one");
        welcome(&mut good).await;
        assert_eq!(take(&mut good).await, b"for the good one", "{mischief:?}");
        feed.close();
        part(&mut good).await;
    };
    let began = crate::clock::now();
    tokio::join!(courier.run_over(async || connections.next()), collectors);
    assert_eq!(feed.dropped(), 0, "{mischief:?}");
    assert!(crate::clock::now() - began < HANDSHAKE_LIMIT + Duration::from_secs(2), "{mischief:?}");
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_stops_reading_costs_what_was_on_its_way_and_no_more() {
    let (feed, courier, _) = courier();
    let (connections, [mut stuck, mut good]) = Connections::new();
    let collectors = async {
        welcome(&mut stuck).await;
        send(&feed, &[1; 4096]);
        // The courier gives it up by itself.
        welcome(&mut good).await;
        send(&feed, b"after");
        assert_eq!(take(&mut good).await, b"after");
        feed.close();
        part(&mut good).await;
    };
    tokio::join!(courier.run_over(async || connections.next()), collectors);
    assert_eq!(feed.dropped(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_collector_it_tries_again_with_growing_pauses() {
    let (feed, mut courier, _) = courier();
    let (connections, []) = Connections::new();
    let minutes = Duration::from_secs(600);
    let _ = timeout(minutes, courier.deliver(async || connections.next())).await;
    let asked = connections.asked.lock().unwrap();
    let pauses: Vec<Duration> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] <= PAUSES.0 && pauses.iter().all(|pause| *pause <= PAUSES.1 + PAUSES.0));
    assert!((20..50).contains(&asked.len()), "{} tries in ten minutes", asked.len());
    drop(feed);
}

#[tokio::test(start_paused = true)]
async fn stopping_does_not_wait_for_a_collector_that_is_away_silent_or_stuck() {
    let (feed, away, _) = courier();
    let (connections, []) = Connections::new();
    send(&feed, b"nobody gets it");
    let began = crate::clock::now();
    let closing = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        feed.close();
    };
    tokio::join!(away.run_over(async || connections.next()), closing);
    assert_eq!(crate::clock::now() - began, Duration::from_secs(60));
    assert_eq!(feed.dropped(), 1);

    let (feed, silent, _) = courier();
    let (connections, [_quiet]) = Connections::new();
    let began = crate::clock::now();
    feed.close();
    silent.run_over(async || connections.next()).await;
    assert!(crate::clock::now() - began < CLOSE_LIMIT);

    let (feed, stuck, _) = courier();
    let (connections, [mut stream]) = Connections::new();
    let reading = async {
        welcome(&mut stream).await;
        send(&feed, &[1; 4096]);
        feed.close();
    };
    let began = crate::clock::now();
    tokio::join!(stuck.run_over(async || connections.next()), reading);
    assert!(crate::clock::now() - began < CLOSE_LIMIT);
}
