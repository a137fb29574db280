//! Why the gateway does not start, and what to do about it.

use crate::listener::bind::BindError;
use crate::transport::tls::TlsSetupError;
use std::io;
use std::net::SocketAddr;
use thiserror::Error;

/// Why the gateway does not start, or does not take new settings.
#[derive(Debug, Error)]
pub enum StartError {
    /// A listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The metrics page.
    #[error("cannot serve metrics on {address}: choose another [metrics] listen")]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A server's TLS.
    #[error("server {server}")]
    Server {
        /// Its name.
        server: String,
        /// Why.
        #[source]
        source: TlsSetupError,
    },
    /// The roots.
    #[error("cannot load the trusted roots")]
    Roots(#[source] TlsSetupError),
    /// The query log.
    #[error("cannot open the query log {path}")]
    QueryLog {
        /// Where.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Threads or their runtimes.
    #[error("cannot start threads")]
    Threads(#[source] io::Error),
}
