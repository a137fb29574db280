//! TLS to servers: roots, pins, versions, session stores; the handshake, its errors and its facts. The only file that
//! builds a rustls configuration. It fails closed: no way to skip verification, no fallback, no early data (a replayed
//! query tells a listener what was asked).

use super::certificate_time::{CertificateClock, WrongClock, validity};
use super::dial::Dialled;
use super::verifier::{Dates, PinMismatch, Verifier};
use super::{Handshake, TransportError};
use crate::clock;
use crate::config::settings::{Endpoint, Host, Roots, ServerSpec, TlsSettings, TlsVersion};
use arc_swap::ArcSwap;
use rustls::client::{
    ClientConfig, ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    CertificateError, ClientConnection, HandshakeKind, NamedGroup, OtherError, ProtocolVersion,
    RootCertStore, SupportedProtocolVersion,
};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

#[cfg(not(any(feature = "crypto-aws", feature = "crypto-ring")))]
compile_error!("choose a crypto provider: feature crypto-aws or crypto-ring");

/// Sessions kept for resumption, each server by itself: it has one name, and a handful of tickets outlast its connections.
const SESSIONS: usize = 8;

/// `min_version = "1.2"`.
static SINCE_1_2: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
/// `min_version = "1.3"`.
static SINCE_1_3: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

/// Roots read once per load of the configuration.
#[derive(Debug)]
pub struct TlsContext {
    /// The cryptography, explicit: with both features on the process-wide default would be ambiguous.
    provider: Arc<CryptoProvider>,
    /// Whom servers without a `ca_file` are verified against.
    roots: Arc<RootCertStore>,
    /// Newest first.
    versions: &'static [&'static SupportedProtocolVersion],
    /// At which time certificates must be valid.
    time: Arc<CertificateClock>,
    /// Whether they must be.
    dates: Dates,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// A file or directory that the configuration names.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A file of roots without a root.
    #[error("{path} holds no certificate")]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// `roots = "system"` on a system without any.
    #[error("the system has no root certificates")]
    NoSystemRoots,
    /// The host of a server's URL.
    #[error("{host} is no server name")]
    ServerName {
        /// As written.
        host: String,
    },
    /// Roots or versions that rustls refuses.
    #[error("TLS cannot be set up")]
    Rustls(#[from] rustls::Error),
}

impl TlsContext {
    /// Reads the roots of `settings` (webpki or system, plus `extra_ca_dir`).
    ///
    /// # Errors
    /// A directory or file that cannot be read, one without a certificate, a system without roots.
    pub fn load(settings: &TlsSettings) -> Result<Self, TlsSetupError> {
        let mut roots = match settings.roots {
            Roots::Webpki => webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
            Roots::System => system_roots()?,
        };
        if let Some(directory) = &settings.extra_ca_dir {
            for path in pem_files(directory)? {
                add_file(&mut roots, &path)?;
            }
        }
        Ok(Self {
            provider: Arc::new(provider()),
            roots: Arc::new(roots),
            versions: match settings.min_version {
                TlsVersion::Tls12 => &SINCE_1_2,
                TlsVersion::Tls13 => &SINCE_1_3,
            },
            time: Arc::default(),
            dates: Dates::Judged,
        })
    }

    /// Judges certificates by `time`.
    #[must_use]
    pub fn with_time(self, time: Arc<CertificateClock>) -> Self {
        Self { time, ..self }
    }

    /// The same, but for the dates of certificates: for look-ups of time servers while the clock is wrong.
    #[must_use]
    pub fn overlooking_dates(&self) -> Self {
        Self {
            provider: Arc::clone(&self.provider),
            roots: Arc::clone(&self.roots),
            versions: self.versions,
            time: Arc::clone(&self.time),
            dates: Dates::Overlooked,
        }
    }

    /// The client configuration of one server and its session store: its own, since tickets link connections. `alpn` empty:
    /// none is offered (DNS over TLS; hyper-rustls sets its own).
    ///
    /// # Errors
    /// A `ca_file` that cannot be read or holds no certificate.
    pub fn client_config(
        &self,
        spec: &ServerSpec,
        alpn: &[&[u8]],
    ) -> Result<(Arc<ClientConfig>, Arc<Sessions>), TlsSetupError> {
        let (provider, time) = (Arc::clone(&self.provider), Arc::clone(&self.time));
        let verifier = Verifier::new(self.roots_of(spec)?, &spec.pins, provider, time)?;
        let verifier = Arc::new(verifier.with_dates(self.dates));
        let mut config =
            ClientConfig::builder_with_details(Arc::clone(&self.provider), Arc::clone(&self.time) as _)
                .with_protocol_versions(self.versions)?
                // "Dangerous" is what rustls calls any verifier of one's own; this one only adds to the standard one.
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let sessions = Arc::new(Sessions::new());
        config.resumption = Resumption::store(Arc::clone(&sessions) as _);
        config.enable_early_data = false;
        Ok((Arc::new(config), sessions))
    }

    /// Returns a number that is the same for the same roots of a server, within one run of the program: files of the same
    /// name may hold others after a while.
    ///
    /// # Errors
    /// As for `client_config`.
    pub fn trust(&self, spec: &ServerSpec) -> Result<u64, TlsSetupError> {
        let mut hasher = DefaultHasher::new();
        for root in &self.roots_of(spec)?.roots {
            root.subject.as_ref().hash(&mut hasher);
            root.subject_public_key_info.as_ref().hash(&mut hasher);
            root.name_constraints.as_deref().hash(&mut hasher);
        }
        Ok(hasher.finish())
    }

    /// Returns whom a server is verified against.
    fn roots_of(&self, spec: &ServerSpec) -> Result<Arc<RootCertStore>, TlsSetupError> {
        let Some(path) = &spec.ca_file else { return Ok(Arc::clone(&self.roots)) };
        let mut only = RootCertStore::empty();
        add_file(&mut only, path)?;
        Ok(Arc::new(only))
    }
}

/// Name of the crypto provider, for `version`.
pub fn provider_name() -> &'static str {
    if cfg!(feature = "crypto-aws") { "aws-lc-rs" } else { "ring" }
}

/// Returns the cryptography that was compiled in.
#[cfg(feature = "crypto-aws")]
pub(super) fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// Returns the cryptography that was compiled in.
#[cfg(all(feature = "crypto-ring", not(feature = "crypto-aws")))]
pub(super) fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// Reads the system's roots. Single ones that cannot be read are left out: stores collect odd ones.
fn system_roots() -> Result<RootCertStore, TlsSetupError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsSetupError::NoSystemRoots) } else { Ok(roots) }
}

/// Lists the `*.pem` files of a directory, by name.
fn pem_files(directory: &Path) -> Result<Vec<PathBuf>, TlsSetupError> {
    let read = |error| TlsSetupError::Read { path: directory.to_path_buf(), error };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.extension().is_some_and(|extension| extension == "pem") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Adds every certificate of a PEM file. One that is no certificate is an error: the operator wrote it.
fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsSetupError> {
    let read = |error| TlsSetupError::Read { path: path.to_path_buf(), error };
    let text = std::fs::read(path).map_err(read)?;
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate =
            certificate.map_err(|error| read(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        roots.add(certificate).map_err(|error| read(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    }
    if roots.len() == before { Err(TlsSetupError::Empty { path: path.to_path_buf() }) } else { Ok(()) }
}

/// Sessions of one server that can be resumed, until they are forgotten: a ticket shown on another network would tell the
/// server, and who listens before TLS 1.3, that it is the same user ([RFC 8446](https://www.rfc-editor.org/rfc/rfc8446) §C.4).
#[derive(Debug)]
pub struct Sessions(ArcSwap<ClientSessionMemoryCache>);

impl Sessions {
    /// Makes an empty store.
    fn new() -> Self {
        Self(ArcSwap::from_pointee(ClientSessionMemoryCache::new(SESSIONS)))
    }

    /// Forgets all of them.
    pub(crate) fn forget(&self) {
        self.0.store(Arc::new(ClientSessionMemoryCache::new(SESSIONS)));
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.0.load().set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.load().kx_hint(server_name)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.load().set_tls12_session(server_name, value);
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.load().tls12_session(server_name)
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.0.load().remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.load().insert_tls13_ticket(server_name, value);
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.load().take_tls13_ticket(server_name)
    }
}

/// TLS to one server: its configuration and the name that is verified.
#[derive(Clone, Debug)]
pub(crate) struct TlsClient {
    /// Holds the session store too.
    config: Arc<ClientConfig>,
    /// That store.
    sessions: Arc<Sessions>,
    /// Verified, and sent as SNI unless it is an address.
    name: ServerName<'static>,
}

impl TlsClient {
    /// `alpn` as offered: none for DNS over TLS, `h2` for DNS over HTTPS.
    ///
    /// # Errors
    /// A `ca_file` that cannot be read, a host that is no server name.
    pub(crate) fn new(
        context: &TlsContext,
        spec: &ServerSpec,
        alpn: &[&[u8]],
    ) -> Result<Self, TlsSetupError> {
        let name = server_name(&spec.endpoint)?;
        let (config, sessions) = context.client_config(spec, alpn)?;
        Ok(Self { name, config, sessions })
    }

    /// Forgets every session: the next handshake is a full one.
    pub(crate) fn forget_sessions(&self) {
        self.sessions.forget();
    }

    /// Shakes hands over a fresh stream, until `deadline` at the latest. Cancel safe: dropping it drops the stream.
    pub(crate) async fn handshake<S>(
        &self,
        dialled: Dialled<S>,
        deadline: Instant,
    ) -> Result<(TlsStream<S>, Handshake), TransportError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let Dialled { stream, address, connect_time } = dialled;
        let started = clock::now();
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let shaking = connector.connect(self.name.clone(), stream);
        let outcome = tokio::time::timeout_at(deadline.into(), shaking).await;
        let handshake_time = clock::now().saturating_duration_since(started);
        match outcome {
            Ok(Ok(stream)) => {
                let facts = handshake_facts(address, connect_time, handshake_time, stream.get_ref().1);
                Ok((stream, facts))
            }
            Ok(Err(error)) => Err(handshake_error(error)),
            Err(_elapsed) => {
                Err(TransportError::ConnectTimeout { address, waited: connect_time + handshake_time })
            }
        }
    }
}

/// Returns the name to verify: a server reached by address must have it in its certificate (RFC 8310 §8.1).
pub(super) fn server_name(endpoint: &Endpoint) -> Result<ServerName<'static>, TlsSetupError> {
    match endpoint {
        Endpoint::Dot { host: Host::Name(name), .. } | Endpoint::Doh { host: Host::Name(name), .. } => {
            ServerName::try_from(name.clone()).map_err(|_| TlsSetupError::ServerName { host: name.clone() })
        }
        Endpoint::Dot { host: Host::Address(address), .. }
        | Endpoint::Doh { host: Host::Address(address), .. } => Ok(ServerName::from(*address)),
        Endpoint::PlainUdp { address } | Endpoint::PlainTcp { address } => Ok(ServerName::from(address.ip())),
    }
}

/// Tells a pin mismatch, a bad certificate and other handshake errors apart.
pub(crate) fn handshake_error(error: io::Error) -> TransportError {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))))
            if other.is::<PinMismatch>() =>
        {
            TransportError::Pin
        }
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))))
            if let Some(wrong) = other.downcast_ref::<WrongClock>() =>
        {
            TransportError::Clock(*wrong)
        }
        Some(
            cause @ (rustls::Error::InvalidCertificate(_)
            | rustls::Error::InvalidCertRevocationList(_)
            | rustls::Error::NoCertificatesPresented
            | rustls::Error::UnsupportedNameType),
        ) => TransportError::Certificate { error: Arc::new(cause.clone()) },
        Some(_) | None => TransportError::Tls { error: Arc::new(error) },
    }
}

/// Facts of a finished handshake.
pub(crate) fn handshake_facts(
    address: SocketAddr,
    connect_time: Duration,
    handshake_time: Duration,
    session: &ClientConnection,
) -> Handshake {
    let leaf = session.peer_certificates().and_then(|chain| chain.first());
    Handshake {
        address,
        tls_version: session.protocol_version().and_then(version_name),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        connect_time,
        handshake_time,
        certificate_not_after: leaf.and_then(not_after),
    }
}

/// Returns how people write a version of TLS.
fn version_name(version: ProtocolVersion) -> Option<&'static str> {
    if version == ProtocolVersion::TLSv1_3 {
        Some("1.3")
    } else if version == ProtocolVersion::TLSv1_2 {
        Some("1.2")
    } else {
        None
    }
}

/// Reads the end of a certificate's validity, seconds since 1970.
fn not_after(certificate: &CertificateDer<'_>) -> Option<i64> {
    Some(validity(certificate)?.not_after.timestamp())
}

#[cfg(test)]
mod tests {
    use super::super::rehearsal::{Authority, dot_endpoint};
    use super::*;

    fn settings(extra_ca_dir: Option<PathBuf>) -> TlsSettings {
        TlsSettings { roots: Roots::Webpki, extra_ca_dir, min_version: TlsVersion::Tls13 }
    }

    #[test]
    fn every_pem_file_of_the_directory_is_trusted_besides() {
        let authority = Authority::new();
        let plain = TlsContext::load(&settings(None)).unwrap();
        let directory = authority.directory().to_path_buf();
        std::fs::write(directory.join("readme.txt"), "no certificate").unwrap();
        let more = TlsContext::load(&settings(Some(directory.clone()))).unwrap();
        assert_eq!(more.roots.len(), plain.roots.len() + 1);
        std::fs::write(directory.join("empty.pem"), "no certificate").unwrap();
        let error = TlsContext::load(&settings(Some(directory.clone()))).unwrap_err();
        assert!(matches!(error, TlsSetupError::Empty { path } if path == directory.join("empty.pem")));
        let error = TlsContext::load(&settings(Some(directory.join("gone")))).unwrap_err();
        assert!(matches!(error, TlsSetupError::Read { .. }));
    }

    #[test]
    fn a_damaged_certificate_is_an_error_not_an_omission() {
        let authority = Authority::new();
        let path = authority.directory().join("bad.pem");
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let error = TlsContext::load(&settings(Some(authority.directory().to_path_buf()))).unwrap_err();
        assert!(matches!(error, TlsSetupError::Read { path: bad, .. } if bad == path));
    }

    #[test]
    fn a_server_with_a_ca_file_has_those_roots_only_and_no_early_data() {
        let authority = Authority::new();
        let context = TlsContext::load(&settings(None)).unwrap();
        let spec = authority.spec(dot_endpoint());
        let (config, _) = context.client_config(&spec, &[b"h2"]).unwrap();
        assert_eq!(config.alpn_protocols, [b"h2"]);
        assert!(!config.enable_early_data);
        let gone = ServerSpec { ca_file: Some("/nonexistent/ca.pem".into()), ..spec };
        assert!(matches!(context.client_config(&gone, &[]), Err(TlsSetupError::Read { .. })));
    }

    #[test]
    fn other_roots_in_the_same_file_are_another_trust() {
        let authority = Authority::new();
        let context = TlsContext::load(&settings(None)).unwrap();
        let spec = authority.spec(dot_endpoint());
        let before = context.trust(&spec).unwrap();
        assert_eq!(context.trust(&spec).unwrap(), before);
        let other = Authority::new();
        std::fs::copy(other.directory().join("ca.pem"), authority.directory().join("ca.pem")).unwrap();
        assert_ne!(context.trust(&spec).unwrap(), before);
    }

    #[test]
    fn a_host_that_is_no_server_name_is_refused() {
        let context = TlsContext::load(&settings(None)).unwrap();
        let endpoint = Endpoint::Dot { host: Host::Name("not a name".to_owned()), port: 853 };
        let spec = Authority::new().spec(endpoint);
        assert!(matches!(TlsClient::new(&context, &spec, &[]), Err(TlsSetupError::ServerName { .. })));
    }

    #[test]
    fn other_failures_of_the_stream_are_no_certificate_errors() {
        let error = handshake_error(io::ErrorKind::ConnectionReset.into());
        assert!(matches!(error, TransportError::Tls { .. }));
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::HandshakeFailure);
        let error = handshake_error(io::Error::new(io::ErrorKind::InvalidData, alert));
        assert!(matches!(error, TransportError::Tls { .. }));
    }
}
