//! The whole of DNS over HTTPS against servers at the other end of a pipe: real TLS, real HTTP/2, paused time. Servers
//! speak through h2 where they behave, and in frames of their own where they do not.

mod floods;
mod lives;
mod requests;

use super::*;
use crate::config::settings::{DohMethod, Host, Limits, Roots, TlsSettings, TlsVersion};
use crate::transport::idle::IDLE;
use crate::transport::pool::Pool;
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

fn ok() -> http::response::Builder {
    Response::builder().header("content-type", DNS_MESSAGE)
}
