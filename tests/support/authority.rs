//! Throw-away certificate authorities and the leaves that servers show: a good one and each kind of bad one.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use tokio_rustls::TlsAcceptor;

/// The name that every server has.
pub const NAME: &str = "dns.test-lab.net";

/// The authority that the gateway is told to trust, one for each process.
static TRUSTED: LazyLock<Authority> = LazyLock::new(Authority::new);
/// One that nobody trusts.
static STRANGER: LazyLock<Authority> = LazyLock::new(Authority::new);

/// Returns the authority that the gateway is told to trust.
pub fn trusted() -> &'static Authority {
    &TRUSTED
}

/// What a server's certificate is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    Good,
    Expired,
    WrongName,
    UnknownAuthority,
    /// Valid from 2090 on.
    Future,
    /// The same, with a name that nobody looks for.
    FutureWrongName,
}

/// An authority and the directory with its root.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

/// A leaf and its key.
pub struct Identity {
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
    /// As a configuration's `pins` has it.
    pub pin: String,
    /// Both in PEM, for servers that are programs of others.
    pub certificate_pem: String,
    pub key_pem: String,
}

impl Authority {
    /// Makes one with a fresh key.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Test authority");
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    /// The directory with `ca.pem` in it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The root, for `ca_file`.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Makes a leaf for `name` and 127.0.0.1 that is valid until the end of `year`.
    pub fn identity(&self, name: &str, year: i32) -> Identity {
        self.identity_between(name, 2020, year)
    }

    /// Makes a leaf for `name` and 127.0.0.1 that is valid from the begin of one year to the end of another.
    pub fn identity_between(&self, name: &str, from: i32, year: i32) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if name == NAME {
            params.subject_alt_names.push(rcgen::SanType::IpAddress(IpAddr::from([127, 0, 0, 1])));
        }
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let spki = key.subject_public_key_info();
        Identity {
            certificate: leaf.der().clone(),
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            pin: pin(&spki),
            certificate_pem: leaf.pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Certificate {
    /// Makes a leaf of this kind.
    pub fn identity(self) -> Identity {
        match self {
            Self::Good => TRUSTED.identity(NAME, 4000),
            Self::Expired => TRUSTED.identity(NAME, 2021),
            Self::WrongName => TRUSTED.identity("other.test-lab.net", 4000),
            Self::UnknownAuthority => STRANGER.identity(NAME, 4000),
            Self::Future => TRUSTED.identity_between(NAME, 2090, 2095),
            Self::FutureWrongName => TRUSTED.identity_between("other.test-lab.net", 2090, 2095),
        }
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            certificate: self.certificate.clone(),
            key: self.key.clone_key(),
            pin: self.pin.clone(),
            certificate_pem: self.certificate_pem.clone(),
            key_pem: self.key_pem.clone(),
        }
    }
}

impl Identity {
    /// The server's side of TLS. Sessions can be resumed for as long as the acceptor lives.
    pub fn acceptor(&self, alpn: &[&[u8]]) -> TlsAcceptor {
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Returns the pin of a subject public key info (RFC 7858 §4.2).
pub fn pin(spki: &[u8]) -> String {
    use base64::Engine as _;
    format!("sha256/{}", base64::engine::general_purpose::STANDARD.encode(Sha256::digest(spki)))
}

/// Returns the cryptography that was compiled in.
#[cfg(feature = "crypto-aws")]
pub fn provider() -> rustls::crypto::CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// Returns the cryptography that was compiled in.
#[cfg(not(feature = "crypto-aws"))]
pub fn provider() -> rustls::crypto::CryptoProvider {
    rustls::crypto::ring::default_provider()
}
