//! rustls client configurations: roots, pins, versions, session store. The only file that builds one.

use crate::config::settings::{ServerSpec, TlsSettings};
use std::path::PathBuf;
use std::sync::Arc;

/// Roots read once per load of the configuration.
#[derive(Debug)]
pub struct TlsContext {/* provider, roots, versions */}
/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        error: std::io::Error,
    },
    #[error("{path} holds no certificate")]
    Empty { path: PathBuf },
    #[error("{host} is no server name")]
    ServerName { host: String },
    #[error("TLS cannot be set up")]
    Rustls(#[from] rustls::Error),
}
impl TlsContext {
    /// Reads the roots of `settings` (webpki or system, plus `extra_ca_dir`).
    pub fn load(_settings: &TlsSettings) -> Result<Self, TlsSetupError> {
        todo!()
    }
    /// The client configuration of one server, with a session store of its own. `alpn` empty: none is offered (DNS over TLS; hyper-rustls sets its own).
    pub fn client_config(
        &self,
        _spec: &ServerSpec,
        _alpn: &[&[u8]],
    ) -> Result<Arc<rustls::ClientConfig>, TlsSetupError> {
        todo!()
    }
}
/// Name of the crypto provider, for `version`.
pub fn provider_name() -> &'static str {
    todo!()
}

/// TLS to one server: its configuration and the name that is verified.
#[derive(Clone, Debug)]
pub(crate) struct TlsClient {/* Arc<ClientConfig>, ServerName */}
impl TlsClient {
    /// `alpn` as offered: none for DNS over TLS, `h2` for DNS over HTTPS.
    pub(crate) fn new(
        _context: &TlsContext,
        _spec: &ServerSpec,
        _alpn: &[&[u8]],
    ) -> Result<Self, TlsSetupError> {
        todo!()
    }
    /// Shakes hands over a fresh stream, until `deadline` at the latest.
    pub(crate) async fn handshake<S>(
        &self,
        _dialled: super::dial::Dialled<S>,
        _deadline: std::time::Instant,
    ) -> Result<(tokio_rustls::client::TlsStream<S>, super::Handshake), super::TransportError>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
    {
        todo!()
    }
}
/// Tells a pin mismatch, a bad certificate and other handshake errors apart.
pub(crate) fn handshake_error(_error: std::io::Error) -> super::TransportError {
    todo!()
}
/// Facts of a finished handshake.
pub(crate) fn handshake_facts(
    _address: std::net::SocketAddr,
    _connect_time: std::time::Duration,
    _handshake_time: std::time::Duration,
    _session: &rustls::ClientConnection,
) -> super::Handshake {
    todo!()
}
