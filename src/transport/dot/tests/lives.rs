//! How long connections live, and how they end.

use super::*;

#[tokio::test(start_paused = true)]
async fn queries_wait_when_a_connection_is_full_and_a_second_one_is_opened() {
    let limits = Limits { dot_streams: 2, max_connections: 2, ..Limits::default() };
    let mut stage = Stage::new(limits);
    for id in 0..5 {
        stage.ask(id, &format!("n{id}.example"));
    }
    let mut first = stage.accept().await;
    let mut second = stage.accept().await;
    let one = first.read_many(2).await;
    let two = second.read_many(2).await;
    settle().await;
    assert_eq!((stage.door.dials(), stage.pool.connections()), (2, 2));
    let bounds = &stage.around.bounds;
    assert!(bounds.count(Bound::DotStreams) > 0 && bounds.count(Bound::MaxConnections) > 0);
    second.write(&[answer_to(&two[1])]).await;
    let last = second.read().await.unwrap();
    second.write(&[answer_to(&last), answer_to(&two[0])]).await;
    first.write(&[answer_to(&one[0]), answer_to(&one[1])]).await;
    for id in 0..5 {
        assert_eq!(stage.answered(id).await, answer_to(&query(&format!("n{id}.example"))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_costs_nothing_but_its_own_queries() {
    let limits = Limits { dot_streams: 4096, ..Limits::default() };
    let mut stage = Stage::new(limits);
    stage.ask(0, "a.example");
    let deaf = stage.accept().await;
    let name = ["x"; 100].join(".");
    for ids in [1..1000, 1000..2000] {
        ids.for_each(|id| stage.ask(id, &name));
        settle().await;
    }
    // The deaf connection is doubted after a second; what it never took goes to a fresh one.
    let mut fresh = stage.accept().await;
    fresh.read().await.unwrap();
    drop(deaf);
    drop(fresh);
    stage.door.refuse(true);
    for id in 0..2000 {
        stage.error(id).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_says_goodbye_after_ten_seconds() {
    let mut stage = Stage::new(Limits::default());
    stage.pool.warm();
    let mut server = stage.accept().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    stage.ask(0, "a.example");
    let query = server.read().await.unwrap();
    server.write(&[answer_to(&query)]).await;
    let answered = clock::now();
    assert_eq!(server.read().await, None);
    let idle = clock::now() - answered;
    assert!(idle >= IDLE && idle < IDLE + Duration::from_secs(1), "{idle:?}");
    settle().await;
    assert_eq!(stage.pool.connections(), 0);
    stage.ask(1, "a.example");
    stage.accept().await.read().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_may_close_an_idle_connection() {
    let mut stage = Stage::new(Limits::default());
    for id in 0..4 {
        stage.ask(id, "a.example");
        let mut server = stage.accept().await;
        let query = server.read().await.unwrap();
        server.write(&[answer_to(&query)]).await;
        stage.answered(id).await;
        server.stream.shutdown().await.unwrap();
        drop(server);
        settle().await;
        assert_eq!(stage.pool.connections(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_early_is_closed_first_and_a_busy_connection_is_replaced_once() {
    let mut stage = Stage::new(Limits::default());
    for round in 0..2 {
        stage.ask(round, "a.example");
        let mut server = stage.accept().await;
        let query = server.read().await.unwrap();
        server.write(&[answer_to(&query)]).await;
        stage.answered(round).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        server.stream.shutdown().await.unwrap();
        drop(server);
        settle().await;
        assert_eq!(stage.pool.connections(), 0, "a connection of little use is not replaced");
    }
    for id in 10..15 {
        stage.ask(id, "a.example");
    }
    let mut server = stage.accept().await;
    for query in server.read_many(5).await {
        server.write(&[answer_to(&query)]).await;
    }
    let quiet_since = clock::now();
    assert_eq!(server.read().await, None);
    let quiet = clock::now() - quiet_since;
    assert!((7900..8300).contains(&quiet.as_millis()), "{quiet:?}");
    let mut spare = stage.accept().await;
    assert_eq!(spare.read().await, None, "it is closed in its turn");
    settle().await;
    assert_eq!((stage.pool.connections(), stage.door.dials()), (0, 4));
    for id in 0..2 {
        assert!(stage.log.outcome(id).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn draining_finishes_what_is_in_flight() {
    let mut stage = Stage::new(Limits::default());
    stage.ask(0, "a.example");
    let mut server = stage.accept().await;
    let query = server.read().await.unwrap();
    stage.pool.drain();
    stage.ask(1, "b.example");
    assert!(matches!(stage.error(1).await, TransportError::ShuttingDown));
    settle().await;
    assert!(!stage.log.has(0));
    server.write(&[answer_to(&query)]).await;
    stage.answered(0).await;
    assert_eq!(server.read().await, None);
    stage.around.tasks.close();
    stage.around.tasks.wait().await;
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_every_task_within_the_grace() {
    let mut stage = Stage::new(Limits::default());
    stage.ask(0, "a.example");
    let mut server = stage.accept().await;
    server.read().await.unwrap();
    stage.around.cancel.cancel();
    stage.around.tasks.close();
    stage.around.tasks.wait().await;
    assert!(matches!(stage.error(0).await, TransportError::ShuttingDown));
    stage.ask(1, "b.example");
    assert!(matches!(stage.error(1).await, TransportError::ShuttingDown));
}

#[tokio::test(start_paused = true)]
async fn a_second_connection_resumes_the_session() {
    let mut stage = Stage::new(Limits::default());
    for id in 0..2 {
        stage.ask(id, "a.example");
        let mut server = stage.accept().await;
        let query = server.read().await.unwrap();
        server.write(&[answer_to(&query)]).await;
        stage.answered(id).await;
        drop(server);
        settle().await;
    }
    assert_eq!(stage.pool.handshakes(), (1, 1));
    let handshake = stage.pool.last_handshake().unwrap();
    assert_eq!((handshake.tls_version, handshake.resumed), (Some("1.3"), true));
    let end_of_4000 = 64_092_124_800;
    assert!((handshake.certificate_not_after.unwrap() - end_of_4000).abs() < 400 * 86_400);
}

#[tokio::test(start_paused = true)]
async fn on_another_network_the_waiting_go_to_a_new_connection_with_a_new_session() {
    let mut stage = Stage::new(Limits::default());
    stage.ask(0, "a.example");
    let mut old = stage.accept().await;
    let query = old.read().await.unwrap();
    old.write(&[answer_to(&query)]).await;
    stage.answered(0).await;
    stage.ask(1, "b.example");
    old.read().await.unwrap();
    let before = clock::now();
    stage.pool.reset();
    let mut new = stage.accept().await;
    let again = new.read().await.unwrap();
    assert_eq!(old.read().await, None);
    new.write(&[answer_to(&again)]).await;
    stage.answered(1).await;
    assert_eq!(clock::now(), before, "nothing was waited for");
    assert_eq!((stage.pool.handshakes(), stage.pool.connections()), ((2, 0), 1));
}

#[tokio::test(start_paused = true)]
async fn a_dial_and_a_pause_of_before_end_with_the_network() {
    let mut stage = Stage::new(Limits::default());
    stage.ask(0, "a.example");
    let stalled = stage.door.accept().await;
    stage.pool.reset();
    let mut server = stage.accept().await;
    let query = server.read().await.unwrap();
    server.write(&[answer_to(&query)]).await;
    stage.answered(0).await;
    drop((stalled, server));
    settle().await;

    stage.door.refuse(true);
    stage.ask(1, "a.example");
    assert!(matches!(stage.error(1).await, TransportError::Connect { .. }));
    stage.door.refuse(false);
    stage.pool.reset();
    stage.pool.warm();
    let _server = stage.accept().await;
    settle().await;
    assert_eq!(stage.pool.connections(), 1);
}
