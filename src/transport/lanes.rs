//! One server for several lanes: each lane is a runtime of the upstream side with flights of its own. Under load every
//! lane has its own connections, and a query never changes threads. While little is asked the lanes share those of the
//! first one: a second connection would only be one more to keep open, and to find closed after a quiet hour.

use super::pool::{Connector, Pool};
use super::{Exchange, Handshake, Surroundings, Transport, TransportError};
use crate::clock;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Queries within `WINDOW` that make a lane worth a connection of its own.
const MANY: u32 = 500;
/// Over how long they are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// Makes the transport of a server: one pool, or one for each lane, as many as there may be connections.
pub(super) fn build<C: Connector>(connector: C, around: &Surroundings) -> Box<dyn Transport> {
    let lanes = around.lanes.len().min(around.limits.max_connections);
    if lanes < 2 {
        return Box::new(Pool::new(connector, around));
    }
    let connector = Arc::new(connector);
    let lane = |(place, runtime): (usize, &tokio::runtime::Handle)| {
        let mut limits = around.limits.as_ref().clone();
        // The shares add up to the bound; the first lanes get what is left over.
        limits.max_connections = (limits.max_connections + lanes - 1 - place) / lanes;
        let around = Surroundings { runtime: runtime.clone(), limits: Arc::new(limits), ..around.clone() };
        Lane { pool: Pool::new(Arc::clone(&connector), &around), load: Mutex::default() }
    };
    Box::new(Lanes { lanes: around.lanes.iter().take(lanes).enumerate().map(lane).collect() })
}

impl<C: Connector> Connector for Arc<C> {
    type Connection = C::Connection;

    fn connect(
        &self,
        deadline: Instant,
    ) -> impl Future<Output = Result<(Self::Connection, Handshake), TransportError>> + Send {
        self.as_ref().connect(deadline)
    }

    fn forget_network(&self) {
        self.as_ref().forget_network();
    }

    fn silent(&self, address: IpAddr) {
        self.as_ref().silent(address);
    }
}

/// The pools of one server.
#[derive(Debug)]
struct Lanes<C: Connector> {
    /// At least two.
    lanes: Box<[Lane<C>]>,
}

/// One lane's part.
#[derive(Debug)]
struct Lane<C: Connector> {
    /// Its connections.
    pool: Pool<Arc<C>>,
    /// What it asked through another one's.
    load: Mutex<Load>,
}

/// How much is asked.
#[derive(Debug, Default)]
struct Load {
    /// When the window began.
    since: Option<Instant>,
    /// Queries since.
    count: u32,
}

impl Load {
    /// Counts a query; true when there are many.
    fn add(&mut self, now: Instant) -> bool {
        let begun = *self.since.get_or_insert(now);
        if now.saturating_duration_since(begun) >= WINDOW {
            *self = Self { since: Some(now), count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count >= MANY
    }
}

impl<C: Connector> Lane<C> {
    /// Notes a query that went through another lane's connection; with many of them it gets its own.
    fn borrowed(&self) {
        let is_busy = self.load.lock().unwrap_or_else(PoisonError::into_inner).add(clock::now());
        if is_busy {
            self.pool.warm();
        }
    }
}

impl<C: Connector> Lanes<C> {
    /// Hands the exchange to the first pool, from `own` on, that has a connection with room; gives it back when none has.
    fn offer(&self, own: usize, mut exchange: Exchange) -> Result<(), Exchange> {
        let (before, after) = self.lanes.split_at_checked(own).unwrap_or((&self.lanes, &[]));
        for (distance, lane) in after.iter().chain(before).enumerate() {
            match lane.pool.offer(exchange) {
                Ok(()) if distance == 0 => return Ok(()),
                Ok(()) => {
                    self.lanes.get(own).into_iter().for_each(Lane::borrowed);
                    return Ok(());
                }
                Err(back) => exchange = back,
            }
        }
        Err(exchange)
    }

    /// Returns the lane whose pool is to open a connection for `own`: the first one, unless it has one and that is full.
    fn opener(&self, own: usize) -> Option<&Lane<C>> {
        let first = self.lanes.first()?;
        if first.pool.connections() == 0 { Some(first) } else { self.lanes.get(own).or(Some(first)) }
    }
}

impl<C: Connector> Transport for Lanes<C> {
    fn submit(&self, exchange: Exchange) {
        let own = exchange.lane.checked_rem(self.lanes.len()).unwrap_or_default();
        if let Err(exchange) = self.offer(own, exchange)
            && let Some(lane) = self.opener(own)
        {
            lane.pool.submit(exchange);
        }
    }

    fn warm(&self) {
        if let Some(first) = self.lanes.first() {
            first.pool.warm();
        }
    }

    fn drain(&self) {
        self.lanes.iter().for_each(|lane| lane.pool.drain());
    }

    fn reset(&self) {
        self.lanes.iter().for_each(|lane| lane.pool.reset());
    }

    fn connections(&self) -> usize {
        self.lanes.iter().map(|lane| lane.pool.connections()).sum()
    }

    fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.pool.waiting()).max().unwrap_or_default()
    }

    fn last_handshake(&self) -> Option<Handshake> {
        self.lanes.iter().find_map(|lane| lane.pool.last_handshake())
    }

    fn handshakes(&self) -> (u64, u64) {
        let each = self.lanes.iter().map(|lane| lane.pool.handshakes());
        each.fold((0, 0), |(full, resumed), lane| (full + lane.0, resumed + lane.1))
    }
}

#[cfg(test)]
mod tests {
    use super::super::plain::TcpConnector;
    use super::super::rehearsal::{Door, Log, Peer, answer_to, pipes, query, settle, surroundings};
    use super::super::{CompletionSink, Ticket};
    use super::*;
    use crate::config::settings::Limits;
    use tokio::io::DuplexStream;

    /// Two lanes over pipes, on the test's own runtime.
    struct Stage {
        transport: Box<dyn Transport>,
        door: Door,
        log: Arc<Log>,
        asked: u64,
    }

    impl Stage {
        fn new(limits: Limits) -> Self {
            let mut around = surroundings(limits);
            around.lanes = vec![around.runtime.clone(), around.runtime.clone()].into();
            let (dial, door) = pipes();
            let connector = TcpConnector { dial, streams: around.limits.dot_streams };
            Self { transport: build(connector, &around), door, log: Log::new(), asked: 0 }
        }

        fn ask(&mut self, lane: usize) -> u64 {
            let id = self.asked;
            self.asked += 1;
            let sink: Arc<dyn CompletionSink> = self.log.clone();
            let deadline = clock::now() + Duration::from_secs(4);
            let ticket = Ticket::new(sink, id);
            self.transport.submit(Exchange { query: query("a.example"), deadline, ticket, lane });
            id
        }

        async fn accept(&mut self) -> Peer<DuplexStream> {
            Peer::new(self.door.accept().await)
        }
    }

    async fn answer(peer: &mut Peer<DuplexStream>, count: usize) {
        let answers: Vec<_> = peer.read_many(count).await.iter().map(|query| answer_to(query)).collect();
        peer.write(&answers).await;
    }

    #[tokio::test(start_paused = true)]
    async fn while_little_is_asked_the_lanes_share_one_connection() {
        let mut stage = Stage::new(Limits::default());
        let first = stage.ask(1);
        let mut peer = stage.accept().await;
        answer(&mut peer, 1).await;
        assert!(stage.log.outcome(first).await.is_ok());
        for lane in [0, 1, 1, 0] {
            let id = stage.ask(lane);
            answer(&mut peer, 1).await;
            assert!(stage.log.outcome(id).await.is_ok());
        }
        settle().await;
        assert_eq!(stage.transport.connections(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_lane_gets_a_connection_of_its_own_and_uses_it() {
        let mut stage = Stage::new(Limits::default());
        stage.ask(0);
        let mut first = stage.accept().await;
        answer(&mut first, 1).await;
        settle().await;
        for _ in 0..MANY {
            let id = stage.ask(1);
            answer(&mut first, 1).await;
            assert!(stage.log.outcome(id).await.is_ok());
        }
        let mut second = stage.accept().await;
        settle().await;
        assert_eq!(stage.transport.connections(), 2);
        let id = stage.ask(1);
        answer(&mut second, 1).await;
        assert!(stage.log.outcome(id).await.is_ok());
        let id = stage.ask(0);
        answer(&mut first, 1).await;
        assert!(stage.log.outcome(id).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_connection_makes_the_lane_open_its_own_and_the_bound_holds() {
        let mut stage = Stage::new(Limits { dot_streams: 2, max_connections: 2, ..Limits::default() });
        let ids: Vec<u64> = (0..6).map(|_| stage.ask(1)).collect();
        let mut first = stage.accept().await;
        settle().await;
        let more: Vec<u64> = (0..4).map(|_| stage.ask(1)).collect();
        let mut second = stage.accept().await;
        settle().await;
        assert_eq!(stage.transport.connections(), 2);
        for _ in 0..3 {
            answer(&mut first, 2).await;
            settle().await;
        }
        for _ in 0..2 {
            answer(&mut second, 2).await;
            settle().await;
        }
        for id in ids.into_iter().chain(more) {
            assert!(stage.log.outcome(id).await.is_ok(), "query {id}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn with_one_connection_allowed_there_is_one_pool() {
        let mut stage = Stage::new(Limits { max_connections: 1, ..Limits::default() });
        let ids = [stage.ask(0), stage.ask(1)];
        let mut peer = stage.accept().await;
        answer(&mut peer, 2).await;
        for id in ids {
            assert!(stage.log.outcome(id).await.is_ok());
        }
        assert_eq!(stage.transport.connections(), 1);
    }

    #[test]
    fn a_load_is_counted_anew_in_each_window() {
        let start = clock::now();
        let mut load = Load::default();
        assert!((1..MANY).all(|_| !load.add(start)));
        assert!(!load.add(start + WINDOW));
        assert!((2..MANY).all(|_| !load.add(start + WINDOW)));
        assert!(load.add(start + WINDOW));
    }
}
