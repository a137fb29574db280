//! What is built for a server, and how errors are told.

use super::rehearsal::{Authority, Log, dot_endpoint, query, surroundings};
use super::*;
use crate::clock;

/// Keeps or drops what it is given.
#[derive(Debug, Default)]
struct Hole {
    kept: Mutex<Vec<Exchange>>,
    drops: bool,
}

impl Transport for Hole {
    fn submit(&self, exchange: Exchange) {
        if !self.drops {
            self.kept.lock().unwrap().push(exchange);
        }
    }
    fn warm(&self) {}
    fn drain(&self) {}
    fn reset(&self) {}
    fn connections(&self) -> usize {
        0
    }
    fn last_handshake(&self) -> Option<Handshake> {
        None
    }
    fn handshakes(&self) -> (u64, u64) {
        (0, 0)
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_ticket_completes_as_shutting_down() {
    let log = Log::new();
    log.ask(&Hole { drops: true, ..Hole::default() }, 0, "a.example", Duration::from_secs(1));
    assert!(matches!(log.outcome(0).await, Err(TransportError::ShuttingDown)));
}

#[tokio::test(start_paused = true)]
async fn an_exchange_ends_even_if_the_transport_forgets_it() {
    let hole = Hole::default();
    let deadline = clock::now() + Duration::from_secs(1);
    let outcome = exchange(&hole, query("a.example"), deadline).await;
    assert!(matches!(outcome, Err(TransportError::Timeout)));
    // A late completion goes nowhere, quietly.
    hole.kept.lock().unwrap().pop().unwrap().ticket.complete(Err(TransportError::Closed));
}

#[tokio::test(start_paused = true)]
async fn an_exchange_returns_what_the_ticket_was_given() {
    let hole = Arc::new(Hole::default());
    let deadline = clock::now() + Duration::from_secs(1);
    let asking = exchange(hole.as_ref(), query("a.example"), deadline);
    let answering = async {
        let exchange = hole.kept.lock().unwrap().pop().unwrap();
        exchange.ticket.complete(Ok(Received { message: exchange.query, age_secs: 7, sent_at: None }));
    };
    let (outcome, ()) = tokio::join!(asking, answering);
    let received = outcome.unwrap();
    assert_eq!((received.message, received.age_secs), (query("a.example"), 7));
}

#[tokio::test]
async fn each_protocol_has_a_transport() {
    let authority = Authority::new();
    let around = surroundings(Limits::default());
    let address = SocketAddr::from(([127, 0, 0, 1], 53));
    for endpoint in [dot_endpoint(), Endpoint::PlainUdp { address }, Endpoint::PlainTcp { address }] {
        let transport = build(&authority.spec(endpoint), &around).unwrap();
        assert_eq!((transport.connections(), transport.handshakes()), (0, (0, 0)));
    }
}
