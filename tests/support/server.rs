//! Servers of DNS over TLS and DNS over HTTPS on loopback that do what their script says and remember what they saw.

use super::authority::{Certificate, Identity, NAME};
use super::runtime;
use super::script::{Deed, Door, Log, Script};
use bytes::Bytes;
use h2::server::SendResponse;
use http::{Method, Request, Response};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// Which protocol a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Dot,
    Doh,
}

/// Both, for tables of tests.
pub const BOTH: [Protocol; 2] = [Protocol::Dot, Protocol::Doh];

/// A server. Ends when dropped.
pub struct Server {
    pub protocol: Protocol,
    pub address: SocketAddr,
    pub identity: Identity,
    pub log: Arc<Log>,
    script: Arc<Mutex<Script>>,
    acceptor: TlsAcceptor,
    /// Ends the listener and all connections.
    stop: Mutex<CancellationToken>,
    /// Holds the port while the server is down: connections are refused.
    held: Mutex<Option<TcpSocket>>,
}

impl Server {
    /// Starts a server with a good certificate.
    pub fn start(protocol: Protocol, script: Script) -> Self {
        Self::with_certificate(protocol, script, Certificate::Good)
    }

    /// Starts a server with a certificate of this kind.
    pub fn with_certificate(protocol: Protocol, script: Script, certificate: Certificate) -> Self {
        let server = Self::refusing(protocol, script, certificate);
        server.up();
        server
    }

    /// Makes a server that refuses connections until `up`.
    pub fn refusing(protocol: Protocol, script: Script, certificate: Certificate) -> Self {
        Self::held_at(SocketAddr::from(([127, 0, 0, 1], 0)), protocol, script, certificate.identity())
    }

    /// Starts a server at an address of this host, with a certificate of the caller's.
    pub fn at(address: SocketAddr, protocol: Protocol, script: Script, identity: Identity) -> Self {
        let server = Self::held_at(address, protocol, script, identity);
        server.up();
        server
    }

    /// Makes a server that refuses connections.
    fn held_at(address: SocketAddr, protocol: Protocol, script: Script, identity: Identity) -> Self {
        let alpn: &[&[u8]] = match protocol {
            Protocol::Dot => &[b"dot"],
            Protocol::Doh => &[b"h2"],
        };
        let acceptor = identity.acceptor(alpn);
        let held = hold(address);
        Self {
            protocol,
            address: held.local_addr().unwrap(),
            identity,
            log: Arc::default(),
            script: Arc::new(Mutex::new(script)),
            acceptor,
            stop: Mutex::default(),
            held: Mutex::new(Some(held)),
        }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        let port = self.address.port();
        match self.protocol {
            Protocol::Dot => format!("tls://{NAME}:{port}"),
            Protocol::Doh => format!("https://{NAME}:{port}/dns-query"),
        }
    }

    /// Changes the script.
    pub fn set(&self, script: Script) {
        *self.script.lock().unwrap() = script;
    }

    /// Takes connections, if it does not yet.
    pub fn up(&self) {
        let Some(held) = self.held.lock().unwrap().take() else { return };
        let runtime = runtime();
        let _inside = runtime.enter();
        let listener = held.listen(1024).unwrap();
        let stop = self.stop.lock().unwrap().clone();
        let peer = Peer {
            protocol: self.protocol,
            script: Arc::clone(&self.script),
            log: Arc::clone(&self.log),
            acceptor: self.acceptor.clone(),
            stop: stop.clone(),
        };
        runtime.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = accept(listener, peer) => {}
            }
        });
    }

    /// Cuts all connections and refuses new ones until `up`.
    pub fn down(&self) {
        std::mem::take(&mut *self.stop.lock().unwrap()).cancel();
        let mut held = self.held.lock().unwrap();
        if held.is_none() {
            *held = Some(hold(self.address));
        }
    }

    /// Cuts all connections; new ones are welcome.
    pub fn cut(&self) {
        self.down();
        self.up();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.lock().unwrap().cancel();
    }
}

/// Binds without listening: connections are refused, and nobody else gets the port. While a listener is ending the
/// port may still be taken for a moment.
fn hold(address: SocketAddr) -> TcpSocket {
    let deadline = std::time::Instant::now() + super::PATIENCE;
    loop {
        let runtime = runtime();
        let _inside = runtime.enter();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        match socket.bind(address) {
            Ok(()) => return socket,
            Err(error) if std::time::Instant::now() > deadline => panic!("cannot bind {address}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// What a connection of a server needs.
#[derive(Clone)]
struct Peer {
    protocol: Protocol,
    script: Arc<Mutex<Script>>,
    log: Arc<Log>,
    acceptor: TlsAcceptor,
    stop: CancellationToken,
}

/// Accepts for ever.
async fn accept(listener: TcpListener, peer: Peer) {
    while let Ok((stream, _)) = listener.accept().await {
        let peer = peer.clone();
        peer.log.saw_connection();
        runtime().spawn(async move {
            tokio::select! {
                () = peer.stop.cancelled() => {}
                result = peer.connection(stream) => drop(result),
            }
            peer.log.connection_done();
        });
    }
}

/// A TLS connection of which every octet is remembered.
type Stream = TlsStream<Tee>;

impl Peer {
    fn script(&self) -> Script {
        self.script.lock().unwrap().clone()
    }

    /// Serves one connection.
    async fn connection(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut tee = Tee { stream, log: Arc::clone(&self.log) };
        match self.script().door {
            Door::Slam => return Ok(()),
            Door::StallBeforeTls => return swallow(&mut tee).await,
            Door::Open | Door::StallAfterTls => {}
        }
        let tls = self.acceptor.accept(tee).await?;
        let resumed = tls.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        self.log.saw_handshake(resumed);
        if self.script().door == Door::StallAfterTls {
            return std::future::pending().await;
        }
        match self.protocol {
            Protocol::Dot => self.dot(tls).await,
            Protocol::Doh => self.doh(tls).await.map_err(io::Error::other),
        }
    }

    /// Speaks DNS over TLS: answers leave in the order in which they become ready.
    async fn dot(&self, tls: Stream) -> io::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(tls);
        let (done, mut deeds) = mpsc::channel(1024);
        let reading = async {
            loop {
                let length = reader.read_u16().await?;
                let mut query = vec![0; usize::from(length)];
                reader.read_exact(&mut query).await?;
                self.log.saw_query(&query);
                let (peer, done) = (self.clone(), done.clone());
                runtime().spawn(async move {
                    let reply = peer.script().reply_to(&query);
                    let deed = reply.carry_out(&query).await;
                    peer.log.query_done();
                    let _ = done.send(deed).await;
                });
            }
        };
        let writing = async {
            let mut answered = 0;
            while let Some(deed) = deeds.recv().await {
                if !write_frame(&mut writer, deed).await? {
                    break;
                }
                answered += 1;
                if self.script().close_after.is_some_and(|limit| answered >= limit) {
                    break;
                }
            }
            writer.shutdown().await
        };
        tokio::select! {
            result = reading => result,
            result = writing => result,
        }
    }

    /// Speaks DNS over HTTPS.
    async fn doh(&self, tls: Stream) -> Result<(), h2::Error> {
        let mut connection = h2::server::handshake(tls).await?;
        let (close, mut closing) = mpsc::channel::<()>(1);
        let mut requests = 0;
        loop {
            let accepted = tokio::select! {
                accepted = connection.accept() => accepted,
                _ = closing.recv() => return Ok(()),
            };
            let Some(accepted) = accepted else { return Ok(()) };
            let (request, respond) = accepted?;
            requests += 1;
            let (peer, close) = (self.clone(), close.clone());
            runtime().spawn(async move { peer.request(request, respond, close).await });
            if self.script().goaway_after.is_some_and(|limit| requests >= limit) {
                connection.graceful_shutdown();
            }
        }
    }

    /// Serves one request.
    async fn request(
        &self,
        request: Request<h2::RecvStream>,
        respond: SendResponse<Bytes>,
        close: mpsc::Sender<()>,
    ) {
        let method = request.method().clone();
        let path = request.uri().path_and_query().map_or("", |path| path.as_str()).to_owned();
        let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        self.log.saw_request(method.to_string(), request.headers().iter().map(header).collect());
        let query = if method == Method::GET {
            use base64::Engine as _;
            let parameter = path.split_once("?dns=").map_or("", |(_, parameter)| parameter);
            base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(parameter).unwrap()
        } else {
            let Ok(query) = body(request.into_body()).await else { return };
            query
        };
        self.log.saw_query(&query);
        let reply = self.script().reply_to(&query);
        let deed = reply.carry_out(&query).await;
        self.log.query_done();
        let _ = respond_with(respond, deed, close).await;
    }
}

/// Reads a whole request body.
async fn body(mut stream: h2::RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut whole = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        whole.extend_from_slice(&chunk);
        stream.flow_control().release_capacity(chunk.len())?;
    }
    Ok(whole)
}

/// Carries out a deed on one HTTP stream.
async fn respond_with(
    mut respond: SendResponse<Bytes>,
    deed: Deed,
    close: mpsc::Sender<()>,
) -> Result<(), h2::Error> {
    const DNS: &str = "application/dns-message";
    let ok = |content_type: &str, length: usize| {
        let builder = Response::builder().header("content-type", content_type);
        builder.header("content-length", length).body(()).unwrap()
    };
    match deed {
        Deed::Answer(answer) => {
            respond.send_response(ok(DNS, answer.len()), false)?.send_data(answer.into(), true)
        }
        Deed::Typed(content_type, answer) => {
            respond.send_response(ok(content_type, answer.len()), false)?.send_data(answer.into(), true)
        }
        Deed::Nothing => std::future::pending().await,
        Deed::Half(answer) => {
            let half = Bytes::copy_from_slice(&answer[..answer.len() / 2]);
            let mut stream = respond.send_response(ok(DNS, answer.len()), false)?;
            stream.send_data(half, false)?;
            // Lets the connection write before it ends.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let _ = close.send(()).await;
            Ok(())
        }
        Deed::Close => {
            let _ = close.send(()).await;
            Ok(())
        }
        Deed::Reset => {
            respond.send_reset(h2::Reason::INTERNAL_ERROR);
            Ok(())
        }
        Deed::Status(status, retry_after) => {
            let mut builder = Response::builder().status(status);
            if let Some(seconds) = retry_after {
                builder = builder.header("retry-after", seconds);
            }
            respond.send_response(builder.body(()).unwrap(), true).map(drop)
        }
    }
}

/// Carries out a deed on a stream of frames; false when the connection is to end.
async fn write_frame(writer: &mut (impl AsyncWrite + Unpin), deed: Deed) -> io::Result<bool> {
    let framed = |answer: &[u8]| {
        let mut frame = u16::try_from(answer.len()).unwrap().to_be_bytes().to_vec();
        frame.extend_from_slice(answer);
        frame
    };
    match deed {
        Deed::Answer(answer) | Deed::Typed(_, answer) => {
            writer.write_all(&framed(&answer)).await?;
            writer.flush().await?;
            Ok(true)
        }
        Deed::Half(answer) => {
            writer.write_all(&framed(&answer)[..2 + answer.len() / 2]).await?;
            writer.flush().await?;
            Ok(false)
        }
        Deed::Nothing => Ok(true),
        Deed::Close | Deed::Reset | Deed::Status(..) => Ok(false),
    }
}

/// Reads and forgets until the other side ends.
async fn swallow(stream: &mut Tee) -> io::Result<()> {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// A TCP stream that remembers what it reads: what an eavesdropper sees.
struct Tee {
    stream: TcpStream,
    log: Arc<Log>,
}

impl AsyncRead for Tee {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.log.saw_octets(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tee {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
