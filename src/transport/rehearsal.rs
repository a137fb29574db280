//! What the tests of this folder share: a certificate authority, a dialler of pipes, a server's end of a connection, and
//! a sink that remembers. Everything runs in one thread with paused time. It is no part of the product.

use super::dial::{Dial, Dialled};
use super::tls::TlsContext;
use super::{
    BoxFuture, CompletionSink, Exchange, Lookup, Received, Surroundings, Ticket, Transport, TransportError,
};
use crate::clock;
use crate::config::settings::{Endpoint, Host, Limits, Roots, ServerSpec, TlsSettings, TlsVersion};
use crate::wire::frame::{self, Deframer};
use bytes::{Bytes, BytesMut};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsAcceptor;

/// The name that the rehearsed server has.
pub(super) const NAME: &str = "dns.example";
/// Octets a pipe holds.
const PIPE: usize = 64 * 1024;

/// A certificate authority and a directory that holds its root.
pub(super) struct Authority {
    /// Signs.
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Holds `ca.pem` for as long as the tests run.
    directory: tempfile::TempDir,
}

/// A server's certificate and key.
pub(super) struct Identity {
    /// The leaf.
    pub(super) certificate: CertificateDer<'static>,
    /// Its key.
    pub(super) key: PrivateKeyDer<'static>,
}

impl Authority {
    /// Makes one with a fresh key.
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    /// The directory with the root in it.
    pub(super) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// A certificate for `name`, valid until the end of `year`.
    pub(super) fn identity(&self, name: &str, year: i32) -> Identity {
        self.identity_between(name, 1999, year)
    }

    /// A certificate for `name`, valid from the begin of one year to the end of another.
    pub(super) fn identity_between(&self, name: &str, from: i32, to: i32) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 12, 31);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }

    /// A server named `NAME` that trusts only this authority.
    pub(super) fn spec(&self, endpoint: Endpoint) -> ServerSpec {
        ServerSpec {
            name: "rehearsed".to_owned(),
            endpoint,
            addresses: vec![IpAddr::from([192, 0, 2, 1])],
            ca_file: Some(self.directory().join("ca.pem")),
            pins: Vec::new(),
            weight: 1,
            trust_ad: false,
        }
    }
}

impl Identity {
    /// The server's side of TLS.
    pub(super) fn acceptor(&self, alpn: &[&[u8]]) -> TlsAcceptor {
        let provider = Arc::new(super::tls::provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// `tls://` to `NAME`.
pub(super) fn dot_endpoint() -> Endpoint {
    Endpoint::Dot { host: Host::Name(NAME.to_owned()), port: 853 }
}

/// The surroundings of a transport under test, on the test's own runtime.
pub(super) fn surroundings(limits: Limits) -> Surroundings {
    let settings = TlsSettings { roots: Roots::Webpki, extra_ca_dir: None, min_version: TlsVersion::Tls12 };
    Surroundings {
        runtime: tokio::runtime::Handle::current(),
        lanes: Arc::new([tokio::runtime::Handle::current()]),
        tasks: tokio_util::task::TaskTracker::new(),
        cancel: tokio_util::sync::CancellationToken::new(),
        tls: Arc::new(TlsContext::load(&settings).unwrap()),
        lookup: Arc::new(Phonebook::default()),
        network: Arc::default(),
        connect_timeout: Duration::from_secs(2),
        limits: Arc::new(limits),
        bounds: Arc::default(),
    }
}

/// Answers look-ups from a table and counts them.
#[derive(Debug, Default)]
pub(super) struct Phonebook {
    /// What it knows.
    pub(super) entries: HashMap<String, Vec<IpAddr>>,
    /// How often it was asked.
    pub(super) asked: AtomicUsize,
}

impl Lookup for Phonebook {
    fn addresses<'a>(
        &'a self,
        host: &'a str,
        _deadline: Instant,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, TransportError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let found = self.entries.get(host).cloned();
        Box::pin(async move { found.ok_or(TransportError::NoAddress { host: host.to_owned() }) })
    }
}

/// Dials pipes; the other ends come out of its `Door`.
#[derive(Debug)]
pub(super) struct PipeDial {
    /// Server ends of the pipes.
    ends: mpsc::Sender<DuplexStream>,
    /// Shared with the door.
    facts: Arc<DialFacts>,
}

/// What a `PipeDial` and its `Door` share.
#[derive(Debug, Default)]
struct DialFacts {
    /// Dials made, failed ones included.
    dials: AtomicUsize,
    /// `poll_write`s on all client ends that took something.
    writes: AtomicUsize,
    /// Dials are refused while true.
    refuses: std::sync::atomic::AtomicBool,
}

/// Where the server's ends of dialled pipes come out.
pub(super) struct Door {
    /// Server ends of the pipes.
    ends: mpsc::Receiver<DuplexStream>,
    /// Shared with the dialler.
    facts: Arc<DialFacts>,
}

/// Makes a dialler and its door.
pub(super) fn pipes() -> (PipeDial, Door) {
    let (sender, receiver) = mpsc::channel(16);
    let facts = Arc::new(DialFacts::default());
    (PipeDial { ends: sender, facts: Arc::clone(&facts) }, Door { ends: receiver, facts })
}

impl Dial for PipeDial {
    type Stream = CountedPipe;

    async fn dial(&self, _deadline: Instant) -> Result<Dialled<CountedPipe>, TransportError> {
        self.facts.dials.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from(([192, 0, 2, 1], 853));
        if self.facts.refuses.load(Ordering::Relaxed) {
            // As a real refusal, it takes a moment: others can queue up behind it.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let error = Arc::new(io::ErrorKind::ConnectionRefused.into());
            return Err(TransportError::Connect { address, error });
        }
        let (near, far) = tokio::io::duplex(PIPE);
        self.ends.send(far).await.map_err(|_| TransportError::Closed)?;
        let stream = CountedPipe { pipe: near, facts: Arc::clone(&self.facts) };
        Ok(Dialled { stream, address, connect_time: Duration::ZERO })
    }

    fn forget_network(&self) {}
}

impl Door {
    /// The server's end of the next dial.
    pub(super) async fn accept(&mut self) -> DuplexStream {
        self.ends.recv().await.unwrap()
    }

    /// The next dial with TLS on it.
    pub(super) async fn accept_tls(
        &mut self,
        acceptor: &TlsAcceptor,
    ) -> io::Result<tokio_rustls::server::TlsStream<DuplexStream>> {
        let pipe = self.accept().await;
        acceptor.accept(pipe).await
    }

    /// Dials made, failed ones included.
    pub(super) fn dials(&self) -> usize {
        self.facts.dials.load(Ordering::Relaxed)
    }

    /// Writes that dialled streams made.
    pub(super) fn writes(&self) -> usize {
        self.facts.writes.load(Ordering::Relaxed)
    }

    /// Refuses dials from now on, or takes them again.
    pub(super) fn refuse(&self, refuses: bool) {
        self.facts.refuses.store(refuses, Ordering::Relaxed);
    }
}

/// A pipe that counts writes.
#[derive(Debug)]
pub(super) struct CountedPipe {
    /// The octets.
    pipe: DuplexStream,
    /// Where to count.
    facts: Arc<DialFacts>,
}

impl AsyncRead for CountedPipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

impl AsyncWrite for CountedPipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.pipe).poll_write(cx, buf));
        self.facts.writes.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// A server's end of a connection that carries framed messages.
pub(super) struct Peer<S> {
    /// The octets.
    pub(super) stream: S,
    /// What was read.
    deframer: Deframer,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// Speaks over `stream`.
    pub(super) fn new(stream: S) -> Self {
        Self { stream, deframer: Deframer::default() }
    }

    /// The next message; None at the end of the stream.
    pub(super) async fn read(&mut self) -> Option<Bytes> {
        loop {
            if let Some(message) = self.deframer.next_message() {
                return Some(message);
            }
            if self.stream.read_buf(self.deframer.buffer()).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The next `count` messages.
    pub(super) async fn read_many(&mut self, count: usize) -> Vec<Bytes> {
        let mut messages = Vec::new();
        for _ in 0..count {
            messages.push(self.read().await.unwrap());
        }
        messages
    }

    /// Sends messages, framed, in one write.
    pub(super) async fn write(&mut self, messages: &[Bytes]) {
        let mut out = BytesMut::new();
        for message in messages {
            assert!(frame::append(&mut out, message));
        }
        self.stream.write_all(&out).await.unwrap();
        self.stream.flush().await.unwrap();
    }
}

/// A query for `name`, type A, ID 0.
pub(super) fn query(name: &str) -> Bytes {
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message.into()
}

/// The answer to a query: the same with QR set (and nothing in it).
pub(super) fn answer_to(query: &[u8]) -> Bytes {
    let mut message = query.to_vec();
    message[2] |= 0x80;
    message.into()
}

/// The message with another ID.
pub(super) fn with_id(message: &[u8], id: u16) -> Bytes {
    let mut message = message.to_vec();
    message[..2].copy_from_slice(&id.to_be_bytes());
    message.into()
}

/// Remembers completions.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// By ticket.
    outcomes: Mutex<HashMap<u64, Result<Received, TransportError>>>,
    /// Tickets whose connection fell silent.
    doubts: Mutex<Vec<u64>>,
    /// Rings at each one.
    bell: Notify,
}

impl CompletionSink for Log {
    fn completed(&self, id: u64, outcome: Result<Received, TransportError>) {
        let earlier = self.outcomes.lock().unwrap().insert(id, outcome);
        assert!(earlier.is_none(), "ticket {id} completed twice");
        self.bell.notify_waiters();
    }

    fn doubted(&self, id: u64) {
        self.doubts.lock().unwrap().push(id);
    }
}

impl Log {
    /// Makes an empty one.
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Submits a query for `name` that may take `patience`, as ticket `id`.
    pub(super) fn ask(self: &Arc<Self>, transport: &dyn Transport, id: u64, name: &str, patience: Duration) {
        let sink: Arc<dyn CompletionSink> = Arc::clone(self) as _;
        let deadline = clock::now() + patience;
        transport.submit(Exchange { query: query(name), deadline, ticket: Ticket::new(sink, id), lane: 0 });
    }

    /// True when the ticket's connection fell silent, once.
    pub(super) fn is_doubted(&self, id: u64) -> bool {
        self.doubts.lock().unwrap().iter().filter(|doubted| **doubted == id).count() == 1
    }

    /// True when the ticket has completed.
    pub(super) fn has(&self, id: u64) -> bool {
        self.outcomes.lock().unwrap().contains_key(&id)
    }

    /// Waits for a ticket's completion and returns it.
    pub(super) async fn outcome(&self, id: u64) -> Result<Received, TransportError> {
        loop {
            let bell = self.bell.notified();
            if let Some(outcome) = self.outcomes.lock().unwrap().get(&id) {
                return outcome.clone();
            }
            bell.await;
        }
    }
}

/// Lets every task that can run do so, without time passing.
pub(super) async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}
