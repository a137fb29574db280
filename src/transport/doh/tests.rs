//! The whole of DNS over HTTPS against servers at the other end of a pipe: real TLS, real HTTP/2, paused time. Servers
//! speak through h2 where they behave, and in frames of their own where they do not.

use super::super::pool::Pool;
use super::*;
use crate::config::settings::{DohMethod, Host, Limits, Roots, TlsSettings, TlsVersion};
use crate::transport::idle::IDLE;
use crate::transport::tls::{TlsContext, provider};
use crate::transport::{Lookup, Received, exchange};
use crate::wire::response::ResponseFault;
use bytes::Bytes;
use futures_util::future::join_all;
use h2::Reason;
use h2::server::SendResponse;
use http::{Method, Request, Response};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const NAME: &str = "dns.example";
const DNS_MESSAGE: &str = "application/dns-message";

/// Opens pipes, whose other ends are the servers'.
#[derive(Debug)]
struct Pipes(mpsc::Sender<DuplexStream>);

impl Dial for Pipes {
    type Stream = DuplexStream;
    async fn dial(&self, _: Instant) -> Result<Dialled<DuplexStream>, TransportError> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        self.0.send(theirs).await.unwrap();
        let address = "192.0.2.1:443".parse().unwrap();
        Ok(Dialled { stream: ours, address, connect_time: Duration::ZERO })
    }
    fn forget_network(&self) {}
}

#[derive(Debug)]
struct NoLookup;
impl Lookup for NoLookup {
    fn addresses<'a>(&'a self, _: &'a str, _: Instant) -> BoxFuture<'a, Result<Vec<IpAddr>, TransportError>> {
        unreachable!("pipes need no address")
    }
}

/// Our side.
struct Client {
    pool: Pool<DohConnector<Pipes>>,
    _ca: tempfile::NamedTempFile,
}

/// The server's side: where connections arrive.
struct Site {
    arrivals: mpsc::Receiver<DuplexStream>,
    acceptor: TlsAcceptor,
}

/// What may be otherwise than usual.
struct Setup {
    host: &'static str,
    method: DohMethod,
    alpn: &'static [&'static [u8]],
    pins: Vec<[u8; 32]>,
    max_connections: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self { host: NAME, method: DohMethod::Post, alpn: &[b"h2"], pins: Vec::new(), max_connections: 2 }
    }
}

fn usual() -> (Client, Site) {
    set_up(Setup::default())
}

fn set_up(setup: Setup) -> (Client, Site) {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    ca.write_all(made.cert.pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let spec = ServerSpec {
        name: "test".into(),
        endpoint: Endpoint::Doh {
            host: Host::Name(setup.host.into()),
            port: 443,
            path: "/dns-query".into(),
            method: setup.method,
        },
        addresses: Vec::new(),
        ca_file: Some(ca.path().to_path_buf()),
        pins: setup.pins,
        weight: 1,
        trust_ad: false,
    };
    let around = surroundings(Limits { max_connections: setup.max_connections, ..Limits::default() });
    let (sender, arrivals) = mpsc::channel(8);
    let connector = DohConnector::new(Pipes(sender), &spec, &around).unwrap();
    let acceptor = acceptor(made.cert.der().clone(), key, setup.alpn);
    (Client { pool: Pool::new(connector, &around), _ca: ca }, Site { arrivals, acceptor })
}

impl Client {
    async fn ask(&self, query: &Bytes) -> Result<Received, TransportError> {
        self.ask_for(query, Duration::from_secs(8)).await
    }

    async fn ask_for(&self, query: &Bytes, time: Duration) -> Result<Received, TransportError> {
        exchange(&self.pool, query.clone(), clock::now() + time).await
    }

    /// Asks what a server is ready to answer.
    async fn assert_answered(&self, query: Bytes) {
        assert_eq!(self.ask(&query).await.unwrap().message, answer(&query));
    }
}

impl Site {
    /// The TLS handshake of the next connection.
    async fn accept(&mut self) -> TlsStream {
        let stream = self.arrivals.recv().await.unwrap();
        self.acceptor.accept(stream).await.unwrap()
    }

    async fn frames(&mut self) -> Frames {
        Frames::start(self.accept().await, &[]).await
    }

    async fn server(&mut self) -> Server {
        Server::start(self.accept().await)
    }

    fn assert_no_further_connection(&mut self) {
        assert!(self.arrivals.try_recv().is_err());
    }
}

type TlsStream = tokio_rustls::server::TlsStream<DuplexStream>;

fn surroundings(limits: Limits) -> Surroundings {
    let tls = TlsSettings { roots: Roots::Webpki, extra_ca_dir: None, min_version: TlsVersion::Tls12 };
    Surroundings {
        runtime: tokio::runtime::Handle::current(),
        lanes: Arc::new([tokio::runtime::Handle::current()]),
        tasks: TaskTracker::new(),
        cancel: CancellationToken::new(),
        tls: Arc::new(TlsContext::load(&tls).unwrap()),
        lookup: Arc::new(NoLookup),
        network: Arc::default(),
        connect_timeout: Duration::from_secs(3),
        limits: Arc::new(limits),
        bounds: Arc::default(),
    }
}

fn acceptor(cert: CertificateDer<'static>, key: PrivateKeyDer<'static>, alpn: &[&[u8]]) -> TlsAcceptor {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

fn query(label: &str) -> Bytes {
    let mut query = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.push(u8::try_from(label.len()).unwrap());
    query.extend(label.as_bytes());
    query.extend(b"\x07example\0\0\x01\0\x01");
    query.into()
}

/// An answer without records.
fn answer(query: &[u8]) -> Bytes {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer.into()
}

fn label(query: &[u8]) -> String {
    let end = 13 + usize::from(query[12]);
    String::from_utf8(query[13..end].to_vec()).unwrap()
}

/// A request as it came to a server that uses h2.
struct Asked {
    head: Request<()>,
    query: Bytes,
    respond: SendResponse<Bytes>,
}

impl Asked {
    fn answer(self) {
        let body = answer(&self.query);
        self.respond(ok(), body);
    }

    fn respond(mut self, head: http::response::Builder, body: Bytes) {
        let mut stream = self.respond.send_response(head.body(()).unwrap(), false).unwrap();
        stream.send_data(body, true).unwrap();
    }
}

/// A server that behaves: its requests come out of a channel.
struct Server {
    asked: mpsc::Receiver<Asked>,
    _work: JoinSet<()>,
}

impl Server {
    fn start(stream: TlsStream) -> Self {
        let (sender, asked) = mpsc::channel(1024);
        let mut work = JoinSet::new();
        work.spawn(async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let mut requests = JoinSet::new();
            while let Some(Ok((request, respond))) = connection.accept().await {
                requests.spawn(receive(request, respond, sender.clone()));
            }
        });
        Self { asked, _work: work }
    }

    async fn next(&mut self) -> Asked {
        self.asked.recv().await.unwrap()
    }
}

/// Reads a request's body and passes the request on.
async fn receive(request: Request<h2::RecvStream>, respond: SendResponse<Bytes>, asked: mpsc::Sender<Asked>) {
    let (head, mut body) = request.into_parts();
    let mut query = Vec::new();
    while let Some(Ok(part)) = body.data().await {
        body.flow_control().release_capacity(part.len()).unwrap();
        query.extend_from_slice(&part);
    }
    let head = Request::from_parts(head, ());
    let _ = asked.send(Asked { head, query: query.into(), respond }).await;
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A server that writes its frames itself.
struct Frames {
    stream: TlsStream,
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frames {
    async fn start(mut stream: TlsStream, settings: &[u8]) -> Self {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut frames = Self { stream };
        frames.send(SETTINGS, 0, 0, settings).await.unwrap();
        frames
    }

    /// The next frame; none when the client has closed.
    async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let mut payload =
            vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        self.stream.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of a kind; none when the client has closed.
    async fn next_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    async fn query(&mut self) -> (u32, Vec<u8>) {
        let frame = self.next_of(DATA).await.unwrap();
        assert_eq!(frame.flags & END_STREAM, END_STREAM);
        (frame.stream, frame.payload)
    }

    async fn queries_within(&mut self, time: Duration) -> Vec<(u32, Vec<u8>)> {
        let mut queries = Vec::new();
        while let Ok(asked) = tokio::time::timeout(time, self.query()).await {
            queries.push(asked);
        }
        queries
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.stream.write_all(&frame).await?;
        self.stream.flush().await
    }

    async fn answer(&mut self, stream: u32, query: &[u8]) {
        self.send(HEADERS, END_HEADERS, stream, &ok_head()).await.unwrap();
        self.send(DATA, END_STREAM, stream, &answer(query)).await.unwrap();
    }

    async fn answer_each(&mut self, queries: Vec<(u32, Vec<u8>)>) {
        for (stream, query) in queries {
            self.answer(stream, &query).await;
        }
    }

    /// Sends a frame again and again until the client has had enough.
    async fn flood(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        while self.send(kind, flags, stream, payload).await.is_ok() {}
    }

    async fn reset(&mut self, stream: u32, reason: Reason) {
        self.send(RST_STREAM, 0, stream, &u32::from(reason).to_be_bytes()).await.unwrap();
    }

    /// Answers whatever comes until the client closes.
    async fn answer_all(mut self) {
        while let Some(frame) = self.next_of(DATA).await {
            self.answer(frame.stream, &frame.payload).await;
        }
    }
}

/// Status 200 and the content type, in HPACK (RFC 7541).
fn ok_head() -> Vec<u8> {
    let mut head = vec![0x88, 0x0f, 0x10, 23];
    head.extend(DNS_MESSAGE.as_bytes());
    head
}

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

fn ok() -> http::response::Builder {
    Response::builder().header("content-type", DNS_MESSAGE)
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
        assert!((400..700).contains(&waited.as_millis()), "{waited:?}");
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

/// One frame of a flood.
struct Flood {
    kind: u8,
    flags: u8,
    on_stream: bool,
    payload: Vec<u8>,
}

/// Answers whatever comes on the next connection.
async fn answer_next_connection(site: &mut Site) {
    site.frames().await.answer_all().await;
}

/// Lets a server answer a query with a flood; the query must be answered over another connection.
async fn survive(flood: Flood) {
    let (client, mut site) = usual();
    let serve = async {
        let mut server = site.frames().await;
        let (stream, _) = server.query().await;
        if flood.kind == CONTINUATION {
            server.send(HEADERS, 0, stream, &[0x88]).await.unwrap();
        }
        let stream = if flood.on_stream { stream } else { 0 };
        let flooding = server.flood(flood.kind, flood.flags, stream, &flood.payload);
        tokio::join!(flooding, answer_next_connection(&mut site));
    };
    let asking = async {
        client.assert_answered(query("a")).await;
        client.pool.drain();
    };
    tokio::join!(asking, serve);
}

#[tokio::test(start_paused = true)]
async fn endless_continuation_frames_end_only_that_connection() {
    let payload = vec![0; 1024];
    survive(Flood { kind: CONTINUATION, flags: 0, on_stream: true, payload }).await;
}

#[tokio::test(start_paused = true)]
async fn endless_pings_end_only_that_connection() {
    survive(Flood { kind: PING, flags: 0, on_stream: false, payload: vec![0; 8] }).await;
}

#[tokio::test(start_paused = true)]
async fn endless_settings_end_only_that_connection() {
    // A setting that nobody knows; each frame is to be acknowledged.
    let payload = [0xfa, 0xfa, 0, 0, 0, 1].repeat(16);
    survive(Flood { kind: SETTINGS, flags: 0, on_stream: false, payload }).await;
}

#[tokio::test(start_paused = true)]
async fn endless_window_updates_end_only_that_connection() {
    // The least that may be, so that the window does not overflow.
    survive(Flood { kind: WINDOW_UPDATE, flags: 0, on_stream: false, payload: vec![0, 0, 0, 1] }).await;
}

#[tokio::test(start_paused = true)]
async fn resets_of_streams_that_were_never_opened_end_only_that_connection() {
    survive(Flood { kind: RST_STREAM, flags: 0, on_stream: false, payload: vec![0, 0, 0, 8] }).await;
}

#[tokio::test(start_paused = true)]
async fn endless_frames_of_no_known_kind_end_only_that_connection() {
    survive(Flood { kind: 0xfa, flags: 0, on_stream: false, payload: vec![0; 16 * 1024] }).await;
}

#[tokio::test(start_paused = true)]
async fn endless_interim_responses_end_only_that_connection() {
    // Status 103 and a field, in HPACK without indexing.
    let mut payload = vec![0x08, 3];
    payload.extend(b"103");
    payload.extend([0x00, 1, b'x', 100]);
    payload.extend([b'y'; 100]);
    survive(Flood { kind: HEADERS, flags: END_HEADERS, on_stream: true, payload }).await;
}

#[tokio::test(start_paused = true)]
async fn endless_empty_data_ends_only_that_connection() {
    let (client, mut site) = usual();
    let serve = async {
        let mut server = site.frames().await;
        let (stream, _) = server.query().await;
        server.send(HEADERS, END_HEADERS, stream, &ok_head()).await.unwrap();
        tokio::join!(server.flood(DATA, 0, stream, &[]), answer_next_connection(&mut site));
    };
    let asking = async {
        client.assert_answered(query("a")).await;
        client.pool.drain();
    };
    tokio::join!(asking, serve);
}
