//! Connections: silence, ends, replacements.

use super::*;

#[tokio::test(start_paused = true)]
async fn goaway_finishes_what_the_server_has_and_moves_the_rest() {
    let (client, mut site) = usual();
    let queries = ["a", "b", "c"].map(query);
    let serve = async {
        let mut old = site.frames().await;
        let mut asked = Vec::new();
        for _ in 0..3 {
            asked.push(old.query().await);
        }
        let last_stream = asked[1].0.to_be_bytes();
        old.send(GOAWAY, 0, 0, &[&last_stream[..], &[0; 4]].concat()).await.unwrap();
        let mut new = site.frames().await;
        let (stream, moved) = new.query().await;
        assert_eq!(moved, asked[2].1);
        new.answer(stream, &moved).await;
        for (stream, query) in &asked[..2] {
            old.answer(*stream, query).await;
        }
        assert!(old.next_of(GOAWAY).await.is_some());
        assert!(old.next().await.is_none());
        new
    };
    let asking = join_all(queries.iter().map(|query| client.assert_answered(query.clone())));
    tokio::join!(asking, serve);
    site.assert_no_further_connection();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_under_a_query_is_replaced_once() {
    let (client, mut site) = usual();
    let serve = async {
        let mut server = site.frames().await;
        server.query().await;
        drop(server);
        let mut server = site.frames().await;
        let (stream, query) = server.query().await;
        server.answer(stream, &query).await;
        server.query().await;
        drop(server);
        let mut server = site.frames().await;
        server.query().await;
        drop(server);
    };
    let asking = async {
        client.assert_answered(query("a")).await;
        let error = client.ask(&query("b")).await.unwrap_err();
        assert!(matches!(error, TransportError::Closed), "{error}");
    };
    tokio::join!(asking, serve);
}

#[tokio::test(start_paused = true)]
async fn a_server_silent_even_to_a_ping_is_given_up() {
    let (client, mut site) = usual();
    let start = clock::now();
    let serve = async {
        let mut dead = site.frames().await;
        let (_, lost) = dead.query().await;
        let ping = dead.next_of(PING).await.unwrap();
        assert_eq!((ping.flags, ping.payload.len()), (0, 8));
        let mut server = site.frames().await;
        let (stream, query) = server.query().await;
        assert_eq!(query, lost);
        server.answer(stream, &query).await;
        assert!(clock::now().duration_since(start) < Duration::from_millis(1500));
        assert!(dead.next().await.is_none());
        server
    };
    tokio::join!(client.assert_answered(query("a")), serve);
    let waited = clock::now().duration_since(start);
    assert!((1750..2000).contains(&waited.as_millis()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn while_a_silent_server_is_asked_queries_go_to_another_connection() {
    let (client, mut site) = usual();
    let serve = async {
        let mut dead = site.frames().await;
        dead.query().await;
        dead.next_of(PING).await.unwrap();
        let mut server = site.frames().await;
        let (stream, query) = server.query().await;
        assert_eq!(label(&query), "b");
        server.answer(stream, &query).await;
        (dead, server)
    };
    let asking = async {
        let first = query("a");
        let second = async {
            tokio::time::sleep(Duration::from_millis(1200)).await;
            let begun = clock::now();
            client.assert_answered(query("b")).await;
            // At once: the silent server is given up only later.
            assert!(clock::now().duration_since(begun) < Duration::from_millis(250));
        };
        tokio::select! {
            _ = client.ask(&first) => panic!("nobody answers"),
            () = second => {}
        }
    };
    tokio::join!(asking, serve);
}

#[tokio::test(start_paused = true)]
async fn queries_on_a_connection_that_falls_silent_are_answered_on_a_fresh_one_within_a_second() {
    let (client, mut site) = usual();
    let serve = async {
        let mut dead = site.frames().await;
        for _ in 0..5 {
            let (stream, query) = dead.query().await;
            dead.answer(stream, &query).await;
        }
        let lost: Vec<_> = dead.queries_within(Duration::from_millis(100)).await;
        assert_eq!(lost.len(), 3);
        let mut server = site.frames().await;
        let again = server.queries_within(Duration::from_millis(50)).await;
        assert_eq!(again.len(), 3);
        server.answer_each(again).await;
        let silent_since = clock::now();
        assert_eq!(dead.next_of(PING).await.map(|ping| ping.flags), Some(0));
        while dead.next().await.is_some() {}
        assert!(clock::now().duration_since(silent_since) < Duration::from_millis(1500));
        server
    };
    let asking = async {
        for number in 0..5 {
            client.assert_answered(query(&format!("n{number}"))).await;
        }
        let begun = clock::now();
        let queries: Vec<Bytes> = (5..8).map(|number| query(&format!("n{number}"))).collect();
        join_all(queries.iter().map(|query| client.assert_answered(query.clone()))).await;
        let waited = clock::now().duration_since(begun);
        assert!((285..600).contains(&waited.as_millis()), "{waited:?}");
    };
    let (_server, ()) = tokio::join!(serve, asking);
    assert_eq!(client.pool.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_doubted_and_answers_after_all_is_of_use_again() {
    let (client, mut site) = usual();
    let serve = async {
        let mut slow = site.frames().await;
        let (stream, query) = slow.query().await;
        let mut fresh = site.frames().await;
        let (_, again) = fresh.query().await;
        assert_eq!(query, again);
        slow.answer(stream, &query).await;
        let (stream, query) = slow.query().await;
        assert_eq!(label(&query), "b");
        slow.answer(stream, &query).await;
        (slow, fresh)
    };
    let asking = async {
        client.assert_answered(query("a")).await;
        assert_eq!(client.pool.connections(), 2);
        client.assert_answered(query("b")).await;
    };
    tokio::join!(asking, serve);
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_that_answers_pings_keeps_its_connection() {
    let (client, mut site) = usual();
    let serve = async {
        let mut server = site.frames().await;
        let (stream, query) = server.query().await;
        for _ in 0..4 {
            let ping = server.next_of(PING).await.unwrap();
            server.send(PING, 1, 0, &ping.payload).await.unwrap();
        }
        server.answer(stream, &query).await;
        server
    };
    tokio::join!(client.assert_answered(query("a")), serve);
    site.assert_no_further_connection();
}

#[tokio::test(start_paused = true)]
async fn a_query_that_times_out_leaves_the_others_and_its_late_answer_is_ignored() {
    let (client, mut site) = usual();
    let serve = async {
        let mut server = site.frames().await;
        let (slow, slow_query) = server.query().await;
        let (stream, query) = server.query().await;
        server.answer(stream, &query).await;
        let ping = server.next_of(PING).await.unwrap();
        server.send(PING, 1, 0, &ping.payload).await.unwrap();
        let reset = server.next_of(RST_STREAM).await.unwrap();
        assert_eq!((reset.stream, reset.payload), (slow, u32::from(Reason::CANCEL).to_be_bytes().to_vec()));
        server.answer(slow, &slow_query).await;
        let (stream, query) = server.query().await;
        server.answer(stream, &query).await;
        server
    };
    let asking = async {
        let slow = async {
            let begun = clock::now();
            let error = client.ask_for(&query("slow"), Duration::from_millis(600)).await.unwrap_err();
            assert!(matches!(error, TransportError::Timeout), "{error}");
            let waited = clock::now().duration_since(begun);
            assert!(waited <= Duration::from_millis(850), "{waited:?}");
        };
        tokio::join!(slow, client.assert_answered(query("prompt")));
        client.assert_answered(query("next")).await;
    };
    tokio::join!(asking, serve);
    site.assert_no_further_connection();
}

#[tokio::test(start_paused = true)]
async fn an_unused_connection_is_closed_politely_and_replaced_when_needed() {
    let (client, mut site) = usual();
    let serve = async {
        let mut server = site.frames().await;
        let (stream, query) = server.query().await;
        server.answer(stream, &query).await;
        let goaway = server.next_of(GOAWAY).await.unwrap();
        assert_eq!(goaway.payload[4..], [0; 4]);
        // End of the stream without an error: close_notify has come.
        assert_eq!(server.stream.read(&mut [0]).await.unwrap(), 0);
        site.frames().await.answer_all().await;
    };
    let asking = async {
        client.assert_answered(query("a")).await;
        tokio::time::sleep(IDLE - Duration::from_millis(100)).await;
        assert_eq!(client.pool.connections(), 1);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(client.pool.connections(), 0);
        client.assert_answered(query("b")).await;
        client.pool.drain();
    };
    tokio::join!(asking, serve);
}

#[tokio::test(start_paused = true)]
async fn a_server_may_close_an_unused_connection_and_the_next_resumes_its_session() {
    let (client, mut site) = usual();
    let serve = async {
        let mut server = site.frames().await;
        let (stream, query) = server.query().await;
        server.answer(stream, &query).await;
        drop(server);
        site.frames().await.answer_all().await;
    };
    let asking = async {
        client.assert_answered(query("a")).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(client.pool.connections(), 0);
        client.assert_answered(query("b")).await;
        client.pool.drain();
    };
    tokio::join!(asking, serve);
    assert_eq!(client.pool.handshakes(), (1, 1));
    let handshake = client.pool.last_handshake().unwrap();
    assert_eq!((handshake.tls_version, handshake.resumed), (Some("1.3"), true));
    assert!(handshake.certificate_not_after.is_some());
}

#[tokio::test(start_paused = true)]
async fn draining_answers_what_is_in_flight_and_then_closes() {
    let (client, mut site) = usual();
    let serve = async {
        let mut server = site.frames().await;
        let (stream, query) = server.query().await;
        client.pool.drain();
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.answer(stream, &query).await;
        assert!(server.next_of(GOAWAY).await.is_some());
        assert!(server.next().await.is_none());
    };
    tokio::join!(client.assert_answered(query("a")), serve);
}

/// Asks a server whose TLS is set up like this.
async fn connect_error_of(setup: Setup) -> TransportError {
    let (client, mut site) = set_up(setup);
    let serve = async {
        let stream = site.arrivals.recv().await.unwrap();
        let accepted = site.acceptor.accept(stream).await;
        if let Ok(mut stream) = accepted {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    };
    let question = query("a");
    tokio::join!(client.ask(&question), serve).0.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_choose_http2_is_refused() {
    let error = connect_error_of(Setup { alpn: &[], ..Setup::default() }).await;
    assert!(error.to_string().contains("ALPN h2"), "{error}");
    let error = connect_error_of(Setup { alpn: &[b"http/1.1"], ..Setup::default() }).await;
    assert!(matches!(error, TransportError::Tls { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_for_another_name_or_key_is_refused() {
    let error = connect_error_of(Setup { host: "other.example", ..Setup::default() }).await;
    assert!(matches!(error, TransportError::Certificate { .. }), "{error}");
    let error = connect_error_of(Setup { pins: vec![[0; 32]], ..Setup::default() }).await;
    assert!(matches!(error, TransportError::Pin), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_finish_the_handshake_is_given_up_and_named() {
    let (client, mut site) = usual();
    let question = query("a");
    let (outcome, _silent) = tokio::join!(client.ask(&question), site.arrivals.recv());
    let error = outcome.unwrap_err();
    assert!(matches!(error, TransportError::ConnectTimeout { .. }), "{error}");
}
