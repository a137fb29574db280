//! DNS over HTTPS ([RFC 8484](https://www.rfc-editor.org/rfc/rfc8484)) on HTTP/2: how a connection to a server comes
//! about, from the dialled stream over TLS to the HTTP/2 handshake. What happens on it is `connection`'s; how many there
//! are is the pool's.

mod connection;
mod meter;
pub(super) mod request;
mod response;
#[cfg(test)]
mod tests;

use super::dial::{Dial, Dialled, TcpDial};
use super::lanes;
use super::pool::Connector;
use super::tls::{Sessions, TlsSetupError, handshake_error, handshake_facts, server_name};
use super::{BoxFuture, Handshake, Surroundings, Transport, TransportError};
use crate::clock;
use crate::config::settings::{Endpoint, ServerSpec};
use connection::DohConnection;
use http::Uri;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connected, Connection as Connects};
use hyper_util::rt::TokioIo;
use request::RequestTemplate;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::error::Error;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout_at;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

/// What the server must choose in the TLS handshake (RFC 9113 §3.1).
const ALPN_H2: &[u8] = b"h2";

/// Makes the transport of a DNS over HTTPS server.
///
/// # Errors
/// A CA file that cannot be read, a host that is no server name.
pub(super) fn build(spec: &ServerSpec, around: &Surroundings) -> Result<Box<dyn Transport>, TlsSetupError> {
    let Endpoint::Doh { host, port, .. } = &spec.endpoint else { return Err(not_a_server(spec)) };
    let dial = TcpDial::new(host, *port, &spec.addresses, around);
    Ok(lanes::build(DohConnector::new(dial, spec, around)?, around))
}

/// Makes the error of a server that cannot be named in a URI.
fn not_a_server(spec: &ServerSpec) -> TlsSetupError {
    TlsSetupError::ServerName { host: spec.name.clone() }
}

/// Opens connections to one server.
#[derive(Debug)]
pub(crate) struct DohConnector<D> {
    /// Opens the stream below.
    dial: Arc<D>,
    /// Roots, pins, session store; without ALPN.
    tls: ClientConfig,
    /// The session store in it.
    sessions: Arc<Sessions>,
    /// The name that is verified.
    server_name: ServerName<'static>,
    /// What is asked there.
    template: Arc<RequestTemplate>,
}

impl<D: Dial> Connector for DohConnector<D> {
    type Connection = DohConnection<SecureStream<D::Stream>>;

    async fn connect(&self, deadline: Instant) -> Result<(Self::Connection, Handshake), TransportError> {
        let begun = clock::now();
        let reached = Arc::new(OnceLock::new());
        let dial = HttpDial { dial: Arc::clone(&self.dial), deadline, reached: Arc::clone(&reached) };
        let opening = async {
            let stream = self.secure(dial).await?;
            let handshake = facts(&stream, begun);
            require_http2(&stream)?;
            let connection = DohConnection::open(stream, Arc::clone(&self.template))
                .await
                .map_err(|error| TransportError::Http2 { reason: error.to_string() })?;
            Ok((connection, handshake))
        };
        let outcome = timeout_at(deadline.into(), opening).await.unwrap_or_else(|_elapsed| {
            let waited = clock::now().saturating_duration_since(begun);
            Err(match reached.get() {
                Some(address) => TransportError::ConnectTimeout { address: *address, waited },
                None => TransportError::Timeout,
            })
        });
        if let (Err(_), Some(address)) = (&outcome, reached.get()) {
            self.dial.refuted(address.ip());
        }
        outcome
    }

    fn forget_network(&self) {
        self.dial.forget_network();
        self.sessions.forget();
    }

    fn silent(&self, address: IpAddr) {
        self.dial.silent(address);
    }
}

impl<D: Dial> DohConnector<D> {
    /// Prepares connections over streams of `dial`.
    fn new(dial: D, spec: &ServerSpec, around: &Surroundings) -> Result<Self, TlsSetupError> {
        let Endpoint::Doh { host, port, path, method } = &spec.endpoint else {
            return Err(not_a_server(spec));
        };
        let template = RequestTemplate::new(host, *port, path, *method).map_err(|_| not_a_server(spec))?;
        // hyper-rustls sets ALPN itself, and refuses a configuration that has it.
        let (tls, sessions) = around.tls.client_config(spec, &[])?;
        Ok(Self {
            dial: Arc::new(dial),
            tls: Arc::unwrap_or_clone(tls),
            sessions,
            server_name: server_name(&spec.endpoint)?,
            template: Arc::new(template),
        })
    }

    /// Dials and shakes hands for TLS.
    async fn secure(&self, dial: HttpDial<D>) -> Result<SecureStream<D::Stream>, TransportError> {
        let mut https = HttpsConnectorBuilder::new()
            .with_tls_config(self.tls.clone())
            .https_only()
            .with_server_name_resolver(FixedServerNameResolver::new(self.server_name.clone()))
            .enable_http2()
            .wrap_connector(dial);
        poll_fn(|cx| https.poll_ready(cx)).await.map_err(connect_error)?;
        match https.call(self.template.target().clone()).await.map_err(connect_error)? {
            MaybeHttpsStream::Https(stream) => Ok(stream.into_inner()),
            MaybeHttpsStream::Http(_) => {
                Err(TransportError::Tls { error: Arc::new(io::Error::other("the stream is not encrypted")) })
            }
        }
    }
}

/// Finds our own error in what hyper-rustls made of it.
fn connect_error(error: Box<dyn Error + Send + Sync>) -> TransportError {
    let error = match error.downcast::<TransportError>() {
        Ok(error) => return *error,
        Err(error) => error,
    };
    match error.downcast::<io::Error>() {
        // hyper-rustls wraps the handshake's error once more.
        Ok(error) => handshake_error(error.downcast::<io::Error>().unwrap_or_else(|error| error)),
        Err(error) => handshake_error(io::Error::other(error)),
    }
}

/// Notes what the handshake showed.
fn facts<S>(stream: &SecureStream<S>, begun: Instant) -> Handshake {
    let (below, session) = stream.get_ref();
    let dialled = &below.inner().inner().0;
    let handshake_time = clock::now().duration_since(begun).saturating_sub(dialled.connect_time);
    handshake_facts(dialled.address, dialled.connect_time, handshake_time, session)
}

/// Refuses a server that did not choose HTTP/2: it would take our first octets for something else.
fn require_http2<S>(stream: &SecureStream<S>) -> Result<(), TransportError> {
    if stream.get_ref().1.alpn_protocol() == Some(ALPN_H2) {
        return Ok(());
    }
    Err(TransportError::Http2 { reason: "the server does not offer HTTP/2 (ALPN h2)".into() })
}

/// The stream that HTTP/2 runs over: TLS by hyper-rustls over what was dialled.
type SecureStream<S> = TlsStream<TokioIo<TokioIo<HttpStream<S>>>>;

/// Our dialler in the shape that hyper-rustls wraps.
struct HttpDial<D> {
    /// Opens the stream.
    dial: Arc<D>,
    /// When it must be open.
    deadline: Instant,
    /// Where the stream goes, for an error to name.
    reached: Arc<OnceLock<SocketAddr>>,
}

impl<D: Dial> Service<Uri> for HttpDial<D> {
    type Response = TokioIo<HttpStream<D::Stream>>;
    type Error = TransportError;
    type Future = BoxFuture<'static, Result<Self::Response, TransportError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    /// Dials the configured server: the addresses are ours, whatever the URI's host resolves to.
    fn call(&mut self, _: Uri) -> Self::Future {
        let (dial, deadline, reached) = (Arc::clone(&self.dial), self.deadline, Arc::clone(&self.reached));
        Box::pin(async move {
            let dialled = dial.dial(deadline).await?;
            let _ = reached.set(dialled.address);
            Ok(TokioIo::new(HttpStream(dialled)))
        })
    }
}

/// What was dialled, in the shape that hyper-rustls wants.
#[derive(Debug)]
pub(crate) struct HttpStream<S>(Dialled<S>);

impl<S> Connects for HttpStream<S> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HttpStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HttpStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.stream).poll_shutdown(cx)
    }
}
