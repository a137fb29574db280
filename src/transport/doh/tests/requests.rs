//! Requests as they leave, and what comes back.

use super::*;

#[tokio::test(start_paused = true)]
async fn many_queries_at_once_share_one_connection() {
    let (client, mut site) = usual();
    let queries: Vec<Bytes> = (0..200).map(|number| query(&format!("n{number}"))).collect();
    let serve = async {
        let mut server = site.server().await;
        let mut asked = Vec::new();
        while asked.len() < 200 {
            asked.push(server.next().await);
        }
        asked.into_iter().rev().for_each(Asked::answer);
        server
    };
    let (outcomes, _server) = tokio::join!(join_all(queries.iter().map(|query| client.ask(query))), serve);
    for (query, outcome) in queries.iter().zip(outcomes) {
        assert_eq!(outcome.unwrap().message, answer(query));
    }
    site.assert_no_further_connection();
    assert_eq!(client.pool.connections(), 1);
}

/// A server's limit of three, as a SETTINGS frame says it.
const THREE_STREAMS: &[u8] = &[0, 3, 0, 0, 0, 3];

#[tokio::test(start_paused = true)]
async fn queries_above_the_servers_stream_limit_wait() {
    let (client, mut site) = set_up(Setup { max_connections: 1, ..Setup::default() });
    let queries: Vec<Bytes> = (0..10).map(|number| query(&format!("n{number}"))).collect();
    let serve = async {
        let mut server = Frames::start(site.accept().await, THREE_STREAMS).await;
        let (stream, first) = server.query().await;
        server.answer(stream, &first).await;
        for _ in 0..3 {
            let open = server.queries_within(Duration::from_millis(100)).await;
            assert_eq!(open.len(), 3);
            server.answer_each(open).await;
        }
        server
    };
    let asking = async {
        client.assert_answered(query("warm")).await;
        join_all(queries[1..].iter().map(|query| client.assert_answered(query.clone()))).await;
    };
    tokio::join!(asking, serve);
    site.assert_no_further_connection();
}

#[tokio::test(start_paused = true)]
async fn queries_that_crossed_with_the_stream_limit_are_sent_again() {
    let (client, mut site) = set_up(Setup { max_connections: 1, ..Setup::default() });
    let queries: Vec<Bytes> = (0..10).map(|number| query(&format!("n{number}"))).collect();
    let serve = async {
        let mut server = Frames::start(site.accept().await, THREE_STREAMS).await;
        let mut asked = Vec::new();
        for _ in 0..10 {
            asked.push(server.query().await);
        }
        for (stream, query) in asked.drain(..3) {
            server.answer(stream, &query).await;
        }
        for (stream, _) in asked {
            server.reset(stream, Reason::REFUSED_STREAM).await;
        }
        server.answer_all().await;
    };
    let asking = async {
        join_all(queries.iter().map(|query| client.assert_answered(query.clone()))).await;
        client.pool.drain();
    };
    tokio::join!(asking, serve);
    site.assert_no_further_connection();
}

#[tokio::test(start_paused = true)]
async fn a_query_refused_twice_is_sent_on_another_connection() {
    let (client, mut site) = usual();
    let query = query("a");
    let serve = async {
        let mut server = site.frames().await;
        for _ in 0..2 {
            let (stream, _) = server.query().await;
            server.reset(stream, Reason::REFUSED_STREAM).await;
        }
        let (stream, query) = {
            let mut second = site.frames().await;
            let (stream, query) = second.query().await;
            second.answer(stream, &query).await;
            (second, query)
        };
        (server, stream, query)
    };
    tokio::join!(client.assert_answered(query.clone()), serve);
}

#[tokio::test(start_paused = true)]
async fn a_query_refused_twice_fails_at_once_where_there_can_be_no_other_connection() {
    let (client, mut site) = set_up(Setup { max_connections: 1, ..Setup::default() });
    let query = query("a");
    let begun = clock::now();
    let serve = async {
        let mut server = site.frames().await;
        for _ in 0..2 {
            let (stream, _) = server.query().await;
            server.reset(stream, Reason::REFUSED_STREAM).await;
        }
        server
    };
    let (outcome, server) = tokio::join!(client.ask(&query), serve);
    let error = outcome.unwrap_err();
    assert!(
        matches!(&error, TransportError::Http2 { reason } if reason.contains("REFUSED_STREAM")),
        "{error}"
    );
    assert!(clock::now() - begun < Duration::from_secs(1), "it did not wait for its deadline");
    // The connection is of use to others all the same.
    tokio::join!(client.assert_answered(query.clone()), server.answer_all());
}

#[tokio::test(start_paused = true)]
async fn post_is_exactly_as_rfc_8484_has_it() {
    let (client, mut site) = usual();
    let query = query("a");
    let serve = async {
        let mut server = site.server().await;
        let asked = server.next().await;
        assert_eq!(asked.head.method(), Method::POST);
        assert_eq!(asked.head.uri(), "https://dns.example/dns-query");
        assert_eq!(asked.query, query);
        let length = query.len().to_string();
        let expected = [("accept", DNS_MESSAGE), ("content-length", &length), ("content-type", DNS_MESSAGE)];
        assert_eq!(fields(&asked.head), expected);
        asked.answer();
        server
    };
    tokio::join!(client.assert_answered(query.clone()), serve);
}

#[tokio::test(start_paused = true)]
async fn get_is_exactly_as_rfc_8484_has_it() {
    let (client, mut site) = set_up(Setup { method: DohMethod::Get, ..Setup::default() });
    let query = query("a");
    let serve = async {
        let mut server = site.server().await;
        let asked = server.next().await;
        assert_eq!(asked.head.method(), Method::GET);
        let expected = "https://dns.example/dns-query?dns=AAABAAABAAAAAAAAAWEHZXhhbXBsZQAAAQAB";
        assert_eq!(asked.head.uri(), expected);
        assert_eq!(asked.query, "");
        assert_eq!(fields(&asked.head), [("accept", DNS_MESSAGE)]);
        asked.respond(ok(), answer(&query));
        server
    };
    tokio::join!(client.assert_answered(query.clone()), serve);
}

fn fields(head: &Request<()>) -> Vec<(&str, &str)> {
    let mut fields: Vec<_> =
        head.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    fields.sort_unstable();
    fields
}

/// Asks one query and has it responded to like this; then asks another over the same connection.
async fn outcome_of(head: http::response::Builder, body: Bytes) -> Result<Received, TransportError> {
    let (client, mut site) = usual();
    let serve = async {
        let mut server = site.server().await;
        server.next().await.respond(head, body);
        server.next().await.answer();
        server
    };
    let asking = async {
        let outcome = client.ask(&query("a")).await;
        client.assert_answered(query("b")).await;
        outcome
    };
    let (outcome, _server) = tokio::join!(asking, serve);
    site.assert_no_further_connection();
    outcome
}

#[tokio::test(start_paused = true)]
async fn age_comes_with_the_message() {
    let received = outcome_of(ok().header("age", "250"), answer(&query("a"))).await.unwrap();
    assert_eq!((received.age_secs, received.message), (250, answer(&query("a"))));
}

#[tokio::test(start_paused = true)]
async fn an_id_other_than_0_does_not_matter() {
    let mut message = answer(&query("a")).to_vec();
    message[..2].copy_from_slice(&[0x12, 0x34]);
    assert_eq!(outcome_of(ok(), message.clone().into()).await.unwrap().message, message);
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_another_question_is_a_mismatch() {
    let outcome = outcome_of(ok(), answer(&query("b"))).await;
    let expected = TransportError::Mismatch(ResponseFault::QuestionMismatch);
    assert_eq!(outcome.unwrap_err().to_string(), expected.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_status_other_than_200_is_a_failure_of_the_query_alone() {
    for (status, retry_after, expected) in [
        (404, None, None),
        (429, Some("7"), Some(Duration::from_secs(7))),
        (503, Some("86400"), Some(Duration::from_secs(60))),
        (500, None, None),
        (302, None, None),
        (204, None, None),
    ] {
        let mut head = ok().status(status).header("location", "https://elsewhere.example/");
        if let Some(value) = retry_after {
            head = head.header("retry-after", value);
        }
        let error = outcome_of(head, Bytes::new()).await.unwrap_err();
        let TransportError::HttpStatus { status: seen, retry_after } = error else { panic!("{error}") };
        assert_eq!((seen, retry_after), (status, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn another_content_type_is_a_failure_of_the_query_alone() {
    let head = Response::builder().header("content-type", "text/html");
    let error = outcome_of(head, answer(&query("a"))).await.unwrap_err();
    assert!(matches!(error, TransportError::ContentType), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_longest_message_passes_and_a_longer_body_does_not() {
    let mut longest = answer(&query("a")).to_vec();
    longest.resize(65_535, 0);
    assert_eq!(outcome_of(ok(), longest.clone().into()).await.unwrap().message, longest);
    longest.resize(70_000, 0);
    let error = outcome_of(ok(), longest.clone().into()).await.unwrap_err();
    assert!(matches!(error, TransportError::BodyTooLarge), "{error}");
    let error = outcome_of(ok().header("content-length", "70000"), longest.into()).await.unwrap_err();
    assert!(matches!(error, TransportError::BodyTooLarge), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_header_list_too_long_is_a_failure_of_the_query_alone() {
    let error = outcome_of(ok().header("x", "x".repeat(17 * 1024)), Bytes::new()).await.unwrap_err();
    assert!(matches!(error, TransportError::Http2 { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_reset_stream_is_a_failure_of_the_query_alone() {
    let (client, mut site) = usual();
    let serve = async {
        let mut server = site.frames().await;
        let (stream, _) = server.query().await;
        server.reset(stream, Reason::INTERNAL_ERROR).await;
        let (stream, query) = server.query().await;
        server.answer(stream, &query).await;
        server
    };
    let asking = async {
        let error = client.ask(&query("a")).await.unwrap_err();
        assert!(matches!(error, TransportError::Http2 { .. }), "{error}");
        client.assert_answered(query("b")).await;
    };
    tokio::join!(asking, serve);
    site.assert_no_further_connection();
}
