//! When connections are made, how many, and what becomes of them.

use super::super::plain::TcpConnector;
use super::super::rehearsal::{Door, Log, Peer, PipeDial, answer_to, pipes, settle, surroundings};
use super::*;
use crate::config::settings::Limits;
use crate::transport::queue::{FIRST_PAUSE, LONGEST_PAUSE, SWEEP_INTERVAL};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::DuplexStream;

const PATIENCE: Duration = Duration::from_secs(4);

/// A pool of plain stream connections over pipes.
struct Stage {
    pool: Pool<TcpConnector<PipeDial>>,
    door: Door,
    log: Arc<Log>,
}

impl Stage {
    fn new(limits: Limits) -> Self {
        let around = surroundings(limits);
        let (dial, door) = pipes();
        let connector = TcpConnector { dial, streams: around.limits.dot_streams };
        Self { pool: Pool::new(connector, &around), door, log: Log::new() }
    }

    fn ask(&self, id: u64, patience: Duration) {
        self.log.ask(&self.pool, id, "a.example", patience);
    }

    async fn accept(&mut self) -> Peer<DuplexStream> {
        Peer::new(self.door.accept().await)
    }

    async fn error(&self, id: u64) -> TransportError {
        self.log.outcome(id).await.unwrap_err()
    }
}

/// Takes a second to dial.
#[derive(Debug)]
struct Slow(TcpConnector<PipeDial>);

impl Connector for Slow {
    type Connection = <TcpConnector<PipeDial> as Connector>::Connection;
    async fn connect(&self, by: Instant) -> Result<(Self::Connection, Handshake), TransportError> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.0.connect(by).await
    }
    fn forget_network(&self) {}
    fn silent(&self, _address: IpAddr) {}
}

/// Dials for ever.
#[derive(Debug)]
struct Never;

impl Connector for Never {
    type Connection = <TcpConnector<PipeDial> as Connector>::Connection;
    async fn connect(&self, _by: Instant) -> Result<(Self::Connection, Handshake), TransportError> {
        std::future::pending().await
    }
    fn forget_network(&self) {}
    fn silent(&self, _address: IpAddr) {}
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_slow_dial_gets_another_one_within_the_bound() {
    for (dials, connections, begun, reached) in
        [(1, 4, 1, true), (2, 4, 2, true), (3, 2, 2, false), (1, 1, 1, false)]
    {
        let limits = Limits { dials, max_connections: connections, ..Limits::default() };
        let around = surroundings(limits);
        let (dialled, counting) = counting();
        let pool = Pool::new(counting, &around);
        let log = Log::new();
        log.ask(&pool, 0, "a.example", PATIENCE);
        settle().await;
        assert_eq!(dialled.load(Ordering::Relaxed), 1, "the first at once");
        tokio::time::sleep(Duration::from_millis(1_600)).await;
        assert_eq!(dialled.load(Ordering::Relaxed), begun, "{dials} dials");
        assert_eq!(around.bounds.count(Bound::Dials) > 0, reached, "{dials} dials");
        assert_eq!(around.bounds.count(Bound::MaxConnections) > 0, !reached, "{dials} dials");
        assert!(!log.has(0), "a dial that goes on is waited for");
    }
}

#[tokio::test(start_paused = true)]
async fn a_further_dial_that_succeeds_serves_what_waits_for_the_first() {
    let limits = Limits { dials: 2, max_connections: 2, ..Limits::default() };
    let (dial, mut door) = pipes();
    let first_hangs = FirstHangs { hung: AtomicUsize::new(0), then: TcpConnector { dial, streams: 8 } };
    let pool = Pool::new(first_hangs, &surroundings(limits));
    let log = Log::new();
    log.ask(&pool, 0, "a.example", PATIENCE);
    let begun = clock::now();
    let mut server = Peer::new(door.accept().await);
    serve(&mut server).await;
    assert!(log.outcome(0).await.is_ok());
    assert!(clock::now() - begun < SWEEP_INTERVAL * 2);
    // The first one fails at its deadline, which changes nothing.
    tokio::time::sleep(Duration::from_secs(5)).await;
    log.ask(&pool, 1, "a.example", PATIENCE);
    serve(&mut server).await;
    assert!(log.outcome(1).await.is_ok());
    assert_eq!((door.dials(), pool.connections()), (1, 1));
}

/// Its first dial never ends.
#[derive(Debug)]
struct FirstHangs {
    hung: AtomicUsize,
    then: TcpConnector<PipeDial>,
}

impl Connector for FirstHangs {
    type Connection = <TcpConnector<PipeDial> as Connector>::Connection;
    async fn connect(&self, by: Instant) -> Result<(Self::Connection, Handshake), TransportError> {
        if self.hung.fetch_add(1, Ordering::Relaxed) == 0 {
            return Never.connect(by).await;
        }
        self.then.connect(by).await
    }
    fn forget_network(&self) {}
    fn silent(&self, _address: IpAddr) {}
}

/// A connector whose dials never end, and how many there were.
fn counting() -> (Arc<AtomicUsize>, Counting) {
    let dialled = Arc::<AtomicUsize>::default();
    (Arc::clone(&dialled), Counting(dialled))
}

/// Counts dials, which never end.
#[derive(Debug)]
struct Counting(Arc<AtomicUsize>);

impl Connector for Counting {
    type Connection = <TcpConnector<PipeDial> as Connector>::Connection;
    async fn connect(&self, by: Instant) -> Result<(Self::Connection, Handshake), TransportError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Never.connect(by).await
    }
    fn forget_network(&self) {}
    fn silent(&self, _address: IpAddr) {}
}

/// Answers the next query.
async fn serve(server: &mut Peer<DuplexStream>) {
    let query = server.read().await.unwrap();
    server.write(&[answer_to(&query)]).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_dialled_before_the_first_query_and_first_users_share_the_dial() {
    let mut stage = Stage::new(Limits::default());
    settle().await;
    assert_eq!((stage.door.dials(), stage.pool.connections()), (0, 0));
    stage.ask(0, PATIENCE);
    settle().await;
    stage.ask(1, PATIENCE);
    let mut server = stage.accept().await;
    serve(&mut server).await;
    serve(&mut server).await;
    assert!(stage.log.outcome(0).await.is_ok() && stage.log.outcome(1).await.is_ok());
    assert_eq!((stage.door.dials(), stage.pool.connections()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn warming_dials_once() {
    let mut stage = Stage::new(Limits::default());
    stage.pool.warm();
    stage.pool.warm();
    let _server = stage.accept().await;
    settle().await;
    stage.pool.warm();
    settle().await;
    assert_eq!((stage.door.dials(), stage.pool.connections()), (1, 1));
    assert_eq!(stage.pool.last_handshake().unwrap().tls_version, None);
    assert_eq!(stage.pool.handshakes(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_turns_queries_away_at_once() {
    let limits = Limits { pool_queue: 3, dot_streams: 1, max_connections: 1, ..Limits::default() };
    let mut stage = Stage::new(limits);
    stage.ask(0, PATIENCE);
    let mut server = stage.accept().await;
    let first = server.read().await.unwrap();
    for id in 1..=4 {
        stage.ask(id, PATIENCE);
    }
    assert!(matches!(stage.error(4).await, TransportError::Overloaded));
    assert_eq!((stage.pool.shared.bounds.count(Bound::PoolQueue), stage.pool.waiting()), (1, 3));
    server.write(&[answer_to(&first)]).await;
    for _ in 1..=3 {
        serve(&mut server).await;
    }
    for id in 0..=3 {
        assert!(stage.log.outcome(id).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_dial_fails_all_who_wait_and_then_pauses() {
    let mut stage = Stage::new(Limits::default());
    stage.door.refuse(true);
    for id in 0..3 {
        stage.ask(id, PATIENCE);
    }
    for id in 0..3 {
        assert!(matches!(stage.error(id).await, TransportError::Connect { .. }));
    }
    stage.ask(3, PATIENCE);
    assert!(stage.log.has(3), "a query during the pause fails at once");
    assert_eq!(stage.door.dials(), 1);

    tokio::time::advance(FIRST_PAUSE).await;
    stage.ask(4, PATIENCE);
    assert!(matches!(stage.error(4).await, TransportError::Connect { .. }));
    assert_eq!(stage.door.dials(), 2);
    tokio::time::advance(FIRST_PAUSE).await;
    stage.ask(5, PATIENCE);
    assert!(stage.log.has(5), "the pause has doubled");

    stage.door.refuse(false);
    tokio::time::advance(FIRST_PAUSE).await;
    stage.ask(6, PATIENCE);
    let mut server = stage.accept().await;
    serve(&mut server).await;
    assert!(stage.log.outcome(6).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn pauses_never_grow_beyond_the_longest() {
    let stage = Stage::new(Limits::default());
    stage.door.refuse(true);
    for id in 0..20 {
        stage.ask(id, PATIENCE);
        stage.error(id).await;
        assert_eq!(stage.door.dials(), usize::try_from(id).unwrap() + 1);
        tokio::time::advance(LONGEST_PAUSE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_query_times_out_in_the_queue_and_the_dial_goes_on() {
    let (dial, mut door) = pipes();
    let pool = Pool::new(Slow(TcpConnector { dial, streams: 8 }), &surroundings(Limits::default()));
    let log = Log::new();
    let started = clock::now();
    log.ask(&pool, 0, "a.example", Duration::from_millis(100));
    assert!(matches!(log.outcome(0).await, Err(TransportError::Timeout)));
    assert!(clock::now() - started <= Duration::from_millis(100) + SWEEP_INTERVAL);
    let _server = door.accept().await;
    settle().await;
    assert_eq!(pool.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_overruns_its_deadline_is_given_up() {
    let pool = Pool::new(Never, &surroundings(Limits::default()));
    let log = Log::new();
    log.ask(&pool, 0, "a.example", PATIENCE);
    let started = clock::now();
    assert!(matches!(log.outcome(0).await, Err(TransportError::Timeout)));
    assert!(clock::now() - started < Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_query_given_back_goes_to_a_fresh_connection_not_to_another_old_one() {
    let limits = Limits { dot_streams: 1, ..Limits::default() };
    let mut stage = Stage::new(limits);
    stage.ask(0, PATIENCE);
    stage.ask(1, PATIENCE);
    let mut first = stage.accept().await;
    let mut second = stage.accept().await;
    serve(&mut first).await;
    serve(&mut second).await;
    assert!(stage.log.outcome(0).await.is_ok() && stage.log.outcome(1).await.is_ok());
    stage.ask(2, PATIENCE);
    first.read().await.unwrap();
    drop(first);
    let mut third = stage.accept().await;
    serve(&mut third).await;
    assert!(stage.log.outcome(2).await.is_ok());
    assert_eq!((stage.door.dials(), stage.pool.connections()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn with_one_connection_open_a_failed_dial_leaves_the_waiting_to_it() {
    let limits = Limits { dot_streams: 1, ..Limits::default() };
    let mut stage = Stage::new(limits);
    stage.ask(0, PATIENCE);
    let mut server = stage.accept().await;
    let first = server.read().await.unwrap();
    stage.door.refuse(true);
    stage.ask(1, PATIENCE);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(stage.door.dials(), 2);
    server.write(&[answer_to(&first)]).await;
    serve(&mut server).await;
    assert!(stage.log.outcome(0).await.is_ok() && stage.log.outcome(1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_pool_finishes_its_own_and_leaves_no_task() {
    let around = surroundings(Limits::default());
    let (dial, mut door) = pipes();
    let pool = Pool::new(TcpConnector { dial, streams: 8 }, &around);
    let log = Log::new();
    log.ask(&pool, 0, "a.example", PATIENCE);
    drop(pool);
    serve(&mut Peer::new(door.accept().await)).await;
    assert!(log.outcome(0).await.is_ok());
    around.tasks.close();
    around.tasks.wait().await;
}
