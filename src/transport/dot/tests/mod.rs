//! What a connection of DNS over TLS does with queries, answers, silence and its end, against a server made by hand.

mod lives;
mod silence;
mod trust;

use super::*;
use crate::config::settings::Limits;
use crate::telemetry::bounds::Bound;
use crate::transport::TransportError;
use crate::transport::idle::IDLE;
use crate::transport::pool::Pool;
use crate::transport::rehearsal::{
    Authority, Door, Identity, Log, NAME, Peer, PipeDial, answer_to, dot_endpoint, pipes, query, settle,
    surroundings, with_id,
};
use crate::wire::response::ResponseFault;
use std::sync::Arc;
use tokio::io::DuplexStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const PATIENCE: Duration = Duration::from_secs(4);

type ServerEnd = Peer<TlsStream<DuplexStream>>;

/// A pool that dials pipes, and the server behind them.
struct Stage {
    pool: Pool<DotConnector<PipeDial>>,
    door: Door,
    acceptor: TlsAcceptor,
    around: Surroundings,
    log: Arc<Log>,
}

impl Stage {
    fn new(limits: Limits) -> Self {
        let authority = Authority::new();
        let identity = authority.identity(NAME, 4000);
        Self::with(limits, &authority.spec(dot_endpoint()), &identity)
    }

    fn with(limits: Limits, spec: &ServerSpec, identity: &Identity) -> Self {
        let around = surroundings(limits);
        let (dial, door) = pipes();
        let tls = TlsClient::new(&around.tls, spec, &[]).unwrap();
        let pool = Pool::new(DotConnector { dial, tls, streams: around.limits.dot_streams }, &around);
        Self { pool, door, acceptor: identity.acceptor(&[]), around, log: Log::new() }
    }

    fn ask(&self, id: u64, name: &str) {
        self.log.ask(&self.pool, id, name, PATIENCE);
    }

    async fn accept(&mut self) -> ServerEnd {
        Peer::new(self.door.accept_tls(&self.acceptor).await.unwrap())
    }

    async fn error(&self, id: u64) -> TransportError {
        self.log.outcome(id).await.unwrap_err()
    }

    /// The answer of ticket `id`, without its ID.
    async fn answered(&self, id: u64) -> Bytes {
        with_id(&self.log.outcome(id).await.unwrap().message, 0)
    }
}

/// What a silent server is asked.
fn sign_of_life() -> Bytes {
    UpstreamQuery::sign_of_life(true).build()
}

/// The next query, by a server that gives signs of life. None: the connection is closed.
async fn read_query(server: &mut ServerEnd) -> Option<Bytes> {
    loop {
        let message = server.read().await?;
        if with_id(&message, 0) != sign_of_life() {
            return Some(message);
        }
        server.write(&[answer_to(&message)]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_one_write_and_answers_may_come_in_any_order() {
    let mut stage = Stage::new(Limits::default());
    stage.pool.warm();
    let mut server = stage.accept().await;
    settle().await;
    let before = stage.door.writes();
    for id in 0..50 {
        stage.ask(id, &format!("n{id}.example"));
    }
    let queries = server.read_many(50).await;
    assert_eq!(stage.door.writes() - before, 1);
    let mut answers: Vec<_> = queries.iter().map(|query| answer_to(query)).collect();
    answers.reverse();
    server.write(&answers).await;
    for id in 0..50 {
        assert_eq!(stage.answered(id).await, answer_to(&query(&format!("n{id}.example"))));
    }
    assert_eq!((stage.pool.connections(), stage.door.dials()), (1, 1));
}

/// The message with its names in lower case.
fn lowercase(message: &[u8]) -> Vec<u8> {
    let (header, rest) = message.split_at(12);
    [header, rest.to_ascii_lowercase().as_slice()].concat()
}

#[tokio::test(start_paused = true)]
async fn ids_in_flight_are_distinct_and_letter_case_may_change() {
    let mut stage = Stage::new(Limits::default());
    stage.ask(0, "Case.Example");
    stage.ask(1, "Case.Example");
    let mut server = stage.accept().await;
    let queries = server.read_many(2).await;
    assert_ne!(queries[0][..2], queries[1][..2]);
    let lowered: Vec<_> = queries.iter().map(|query| answer_to(&lowercase(query))).collect();
    assert_ne!(answer_to(&queries[0]), lowered[0]);
    server.write(&lowered).await;
    assert!(stage.log.outcome(0).await.is_ok());
    assert!(stage.log.outcome(1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_query_that_times_out_gives_its_place_to_the_next_one() {
    let mut stage = Stage::new(Limits { dot_streams: 1, max_connections: 1, ..Limits::default() });
    stage.log.ask(&stage.pool, 0, "slow.example", Duration::from_millis(300));
    let mut server = stage.accept().await;
    server.read().await.unwrap();
    stage.ask(1, "next.example");
    assert!(matches!(stage.error(0).await, TransportError::Timeout));
    let next = tokio::time::timeout(Duration::from_millis(500), server.read()).await.unwrap().unwrap();
    server.write(&[answer_to(&next)]).await;
    assert_eq!(stage.answered(1).await, answer_to(&query("next.example")));
}

#[tokio::test(start_paused = true)]
async fn a_slow_query_times_out_alone_and_its_late_answer_hurts_nobody() {
    let mut stage = Stage::new(Limits::default());
    stage.log.ask(&stage.pool, 0, "slow.example", Duration::from_millis(900));
    let mut server = stage.accept().await;
    let slow = server.read().await.unwrap();
    for id in 1..=4 {
        tokio::time::advance(Duration::from_millis(300)).await;
        stage.ask(id, "prompt.example");
        let prompt = read_query(&mut server).await.unwrap();
        assert_ne!(prompt[..2], slow[..2]);
        server.write(&[answer_to(&prompt)]).await;
        stage.answered(id).await;
    }
    assert!(matches!(stage.error(0).await, TransportError::Timeout));
    server.write(&[answer_to(&slow)]).await;
    stage.ask(9, "later.example");
    let later = server.read().await.unwrap();
    server.write(&[answer_to(&later)]).await;
    stage.answered(9).await;
    assert_eq!(stage.door.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_midway_gives_each_query_one_more_try() {
    let mut stage = Stage::new(Limits::default());
    for id in 0..3 {
        stage.ask(id, "a.example");
    }
    let mut first = stage.accept().await;
    let queries = first.read_many(3).await;
    first.write(&[answer_to(&queries[0])]).await;
    drop(first);
    let mut second = stage.accept().await;
    let again = second.read_many(2).await;
    second.write(&[answer_to(&again[0])]).await;
    drop(second);
    let outcomes = [stage.log.outcome(0).await, stage.log.outcome(1).await, stage.log.outcome(2).await];
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2);
    assert!(outcomes.iter().any(|outcome| matches!(outcome, Err(TransportError::Closed))));
    assert_eq!(stage.door.dials(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_only_ever_hangs_up_is_not_dialled_in_a_loop() {
    let mut stage = Stage::new(Limits::default());
    stage.ask(0, "a.example");
    drop(stage.accept().await);
    drop(stage.accept().await);
    assert!(matches!(stage.error(0).await, TransportError::Closed));
    settle().await;
    stage.ask(1, "a.example");
    assert!(matches!(stage.error(1).await, TransportError::Closed));
    assert_eq!(stage.door.dials(), 2);
    tokio::time::advance(Duration::from_secs(3)).await;
    stage.ask(2, "a.example");
    let mut server = stage.accept().await;
    let query = server.read().await.unwrap();
    server.write(&[answer_to(&query)]).await;
    stage.answered(2).await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_id_fails_nobody_but_ends_the_connection_after_its_own() {
    let mut stage = Stage::new(Limits::default());
    stage.ask(0, "a.example");
    let mut server = stage.accept().await;
    let query = server.read().await.unwrap();
    let id = u16::from_be_bytes([query[0], query[1]]);
    server.write(&[with_id(&answer_to(&query), id ^ 0x8000)]).await;
    settle().await;
    stage.ask(1, "b.example");
    let mut fresh = stage.accept().await;
    let other = fresh.read().await.unwrap();
    fresh.write(&[answer_to(&other)]).await;
    stage.answered(1).await;
    server.write(&[answer_to(&query)]).await;
    stage.answered(0).await;
    assert_eq!(server.read().await, None);
}

#[tokio::test(start_paused = true)]
async fn another_question_under_our_id_fails_that_query_only() {
    let mut stage = Stage::new(Limits::default());
    stage.ask(0, "a.example");
    stage.ask(1, "b.example");
    let mut server = stage.accept().await;
    let queries = server.read_many(2).await;
    let id = u16::from_be_bytes([queries[0][0], queries[0][1]]);
    server.write(&[with_id(&answer_to(&query("evil.example")), id)]).await;
    assert!(matches!(stage.error(0).await, TransportError::Mismatch(ResponseFault::QuestionMismatch)));
    assert!(!stage.log.has(1));
    server.write(&[answer_to(&queries[1])]).await;
    stage.answered(1).await;
    assert_eq!(server.read().await, None);
}

#[tokio::test(start_paused = true)]
async fn garbage_and_empty_frames_fail_nobody() {
    for garbage in [Bytes::new(), Bytes::from_static(b"\xff\xff\xff"), vec![0xff; 600].into()] {
        let mut stage = Stage::new(Limits::default());
        stage.ask(0, "a.example");
        let mut server = stage.accept().await;
        let query = server.read().await.unwrap();
        server.write(&[garbage, answer_to(&query)]).await;
        stage.answered(0).await;
        assert_eq!(server.read().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_cut_short_by_the_end_counts_as_no_answer() {
    let mut stage = Stage::new(Limits::default());
    stage.ask(0, "a.example");
    let mut server = stage.accept().await;
    let query = server.read().await.unwrap();
    let mut framed = BytesMut::new();
    frame::append(&mut framed, &answer_to(&query));
    server.stream.write_all(&framed[..framed.len() - 1]).await.unwrap();
    server.stream.shutdown().await.unwrap();
    drop(server);
    let mut fresh = stage.accept().await;
    let again = fresh.read().await.unwrap();
    fresh.write(&[answer_to(&again)]).await;
    stage.answered(0).await;
}
