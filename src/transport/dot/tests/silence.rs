//! Servers that say nothing: when a connection is doubted, and for what not.

use super::*;

#[tokio::test(start_paused = true)]
async fn sixteen_unanswered_queries_retire_the_connection() {
    let mut stage = Stage::new(Limits::default());
    stage.ask(100, "first.example");
    let mut server = stage.accept().await;
    let first = server.read().await.unwrap();
    server.write(&[answer_to(&first)]).await;
    stage.answered(100).await;
    for id in 0..16 {
        stage.log.ask(&stage.pool, id, "dead.example", Duration::from_millis(100));
    }
    server.read_many(16).await;
    for id in 0..16 {
        assert!(matches!(stage.error(id).await, TransportError::Timeout));
    }
    assert_eq!(read_query(&mut server).await, None);
    stage.ask(200, "next.example");
    stage.accept().await.read().await.unwrap();
}

/// A stage whose first connection has answered a few queries at once.
async fn warmed(limits: Limits) -> (Stage, ServerEnd) {
    let mut stage = Stage::new(limits);
    stage.pool.warm();
    let mut server = stage.accept().await;
    for id in 100..105 {
        stage.ask(id, "warm.example");
        let query = server.read().await.unwrap();
        server.write(&[answer_to(&query)]).await;
        stage.answered(id).await;
    }
    (stage, server)
}

/// Has the first connection fall silent under twenty queries.
async fn black_hole(limits: Limits) {
    let (mut stage, mut dead) = warmed(limits).await;
    let begun = clock::now();
    (0..20).for_each(|id| stage.ask(id, &format!("n{id}.example")));
    dead.read_many(20).await;
    assert_eq!(with_id(&dead.read().await.unwrap(), 0), sign_of_life());
    let mut fresh = stage.accept().await;
    assert!(!stage.log.has(0));
    stage.ask(20, "later.example");
    let answers: Vec<_> = fresh.read_many(21).await.iter().map(|query| answer_to(query)).collect();
    fresh.write(&answers).await;
    for id in 0..=20 {
        stage.answered(id).await;
    }
    let waited = clock::now() - begun;
    assert!((285..500).contains(&waited.as_millis()), "{waited:?}");
    assert!((0..20).all(|id| stage.log.is_doubted(id)) && !stage.log.is_doubted(20));
    assert_eq!(dead.read().await, None);
    assert!(clock::now() - begun < Duration::from_secs(2));
    settle().await;
    assert_eq!((stage.pool.connections(), stage.door.dials()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn queries_on_a_black_holed_connection_are_answered_on_a_fresh_one_and_it_is_closed() {
    black_hole(Limits::default()).await;
    black_hole(Limits { max_connections: 1, ..Limits::default() }).await;
}

/// Asks for a slow name; returns both connections with the query that each has.
async fn slow_name() -> (Stage, [(ServerEnd, Bytes); 2]) {
    let (mut stage, mut old) = warmed(Limits::default()).await;
    stage.ask(0, "slow.example");
    let query = old.read().await.unwrap();
    assert_eq!(with_id(&old.read().await.unwrap(), 0), sign_of_life());
    let mut fresh = stage.accept().await;
    let again = fresh.read().await.unwrap();
    assert!(!stage.log.has(0));
    (stage, [(old, query), (fresh, again)])
}

#[tokio::test(start_paused = true)]
async fn one_slow_name_that_is_answered_leaves_its_connection_in_use() {
    let (stage, [(mut old, query), (mut fresh, again)]) = slow_name().await;
    old.write(&[answer_to(&query)]).await;
    stage.answered(0).await;
    fresh.write(&[answer_to(&again)]).await;
    settle().await;
    stage.ask(1, "next.example");
    old.read().await.unwrap();
    assert_eq!((stage.pool.connections(), stage.door.dials()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_fresh_connection_is_not_doubted_for_the_name_that_was_slow_on_the_old_one() {
    let (stage, [_old, (mut fresh, again)]) = slow_name().await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(!stage.log.has(0));
    fresh.write(&[answer_to(&again)]).await;
    stage.answered(0).await;
    stage.ask(1, "next.example");
    fresh.read().await.unwrap();
    assert_eq!((stage.pool.connections(), stage.door.dials()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_slow_name_among_prompt_ones_times_out_alone_and_no_connection_is_closed() {
    let (stage, mut server) = warmed(Limits::default()).await;
    stage.ask(0, "slow.example");
    server.read().await.unwrap();
    for id in 1..=40 {
        tokio::time::sleep(Duration::from_millis(105)).await;
        stage.ask(id, "prompt.example");
        let prompt = server.read().await.unwrap();
        server.write(&[answer_to(&prompt)]).await;
        stage.answered(id).await;
    }
    assert!(matches!(stage.error(0).await, TransportError::Timeout));
    assert_eq!((stage.pool.connections(), stage.door.dials()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn many_slow_names_on_a_connection_that_goes_on_answering_are_no_reason_for_doubt() {
    let (stage, mut server) = warmed(Limits::default()).await;
    for id in 0..30 {
        stage.ask(id, &format!("slow{id}.example"));
    }
    let queries = server.read_many(30).await;
    for (id, query) in (0..30).zip(&queries) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.write(&[answer_to(query)]).await;
        stage.answered(id).await;
    }
    assert_eq!(stage.door.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_gets_no_new_queries_but_may_still_answer() {
    let mut stage = Stage::new(Limits::default());
    stage.ask(0, "a.example");
    let mut server = stage.accept().await;
    let query = server.read().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    stage.ask(1, "b.example");
    let mut fresh = stage.accept().await;
    fresh.read_many(2).await;
    server.write(&[answer_to(&query)]).await;
    stage.answered(0).await;
    assert!(!stage.log.has(1));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_the_question_is_alive_however_slow_its_names_are() {
    let (stage, mut server) = warmed(Limits::default()).await;
    let begun = clock::now();
    for id in 0..10 {
        stage.ask(id, &format!("slow{id}.example"));
    }
    let queries = server.read_many(10).await;
    for asked_after in [225, 1225, 2225] {
        let question = server.read().await.unwrap();
        let waited = (clock::now() - begun).as_millis();
        assert!((asked_after..asked_after + 50).contains(&waited), "{waited} ms");
        assert_eq!(with_id(&question, 0), sign_of_life());
        server.write(&[answer_to(&question)]).await;
        settle().await;
    }
    let answers: Vec<_> = queries.iter().map(|query| answer_to(query)).collect();
    server.write(&answers).await;
    for id in 0..10 {
        stage.answered(id).await;
        assert!(!stage.log.is_doubted(id));
    }
    assert_eq!((stage.pool.connections(), stage.door.dials()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_another_question_is_no_sign_of_life_of_a_server_that_can_count() {
    let (mut stage, mut server) = warmed(Limits::default()).await;
    stage.ask(0, "slow.example");
    server.read().await.unwrap();
    let question = server.read().await.unwrap();
    let id = u16::from_be_bytes([question[0], question[1]]);
    server.write(&[with_id(&answer_to(&query("other.example")), id)]).await;
    settle().await;
    stage.ask(1, "next.example");
    let mut fresh = stage.accept().await;
    fresh.read().await.unwrap();
}
