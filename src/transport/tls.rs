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
    /// The client configuration of one server, with a session store of its own. `alpn`: b"dot" or b"h2"... (hyper-rustls wants it empty).
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
