//! Whether a server is who it is meant to be: chain, name and date as rustls verifies them, then the operator's pins if there are
//! any, in addition and never instead. How hands are shaken, and what roots there are, is `tls`'s matter.

use super::certificate_time::CertificateClock;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The tag of a SEQUENCE in DER.
const SEQUENCE: u8 = 0x30;

/// Verifies one server.
#[derive(Debug)]
pub(super) struct Verifier {
    /// The standard verification.
    chain: Arc<WebPkiServerVerifier>,
    /// Whom it trusts.
    roots: Arc<RootCertStore>,
    /// SHA-256 of acceptable SPKIs; empty: any.
    pins: Box<[[u8; 32]]>,
    /// Hears of certificates that are good, and explains those that are not.
    time: Arc<CertificateClock>,
    /// Verifies signatures.
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Makes one that trusts `roots`.
    ///
    /// # Errors
    /// Roots of which there are none.
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        pins: &[[u8; 32]],
        provider: Arc<CryptoProvider>,
        time: Arc<CertificateClock>,
    ) -> Result<Self, Error> {
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { chain, roots, pins: pins.into(), time, provider })
    }

    /// True when a key of the verified chain is pinned: the server's own, or that of an authority which vouches for it
    /// ([RFC 7858](https://www.rfc-editor.org/rfc/rfc7858) §4.2). A certificate that is only sent along vouches for nothing, so the
    /// chain has to hold again with the pinned ones as its only roots.
    fn is_pinned(
        &self,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<bool, Error> {
        let server = ParsedCertificate::try_from(server)?;
        if self.has_pin(&server.subject_public_key_info()) {
            return Ok(true);
        }
        let has_pin = |root: &&TrustAnchor<'_>| self.has_pin(&public_key(root));
        let mut pinned: RootCertStore = self.roots.roots.iter().filter(has_pin).cloned().collect();
        for certificate in intermediates {
            // One that cannot be read is no part of the chain that was verified.
            let Ok(parsed) = ParsedCertificate::try_from(certificate) else { continue };
            if self.has_pin(&parsed.subject_public_key_info()) {
                let _ = pinned.add(certificate.clone().into_owned());
            }
        }
        let algorithms = self.provider.signature_verification_algorithms.all;
        let chain =
            verify_server_cert_signed_by_trust_anchor(&server, &pinned, intermediates, now, algorithms);
        Ok(chain.is_ok())
    }

    /// True when this key is pinned.
    fn has_pin(&self, key: &[u8]) -> bool {
        let digest = Sha256::digest(key);
        self.pins.iter().any(|pin| pin.as_slice() == digest.as_slice())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self
            .chain
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| self.time.explain(error))?;
        self.time.confirm();
        if self.pins.is_empty() || self.is_pinned(end_entity, intermediates, now)? {
            Ok(verified)
        } else {
            Err(CertificateError::Other(OtherError(Arc::new(PinMismatch))).into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Marks a pin mismatch on its way through rustls.
#[derive(Debug, thiserror::Error)]
#[error("no pin matches the server's key")]
pub(super) struct PinMismatch;

/// Returns the SPKI of a root in DER: a trust anchor keeps what is inside of the outermost SEQUENCE only.
fn public_key(root: &TrustAnchor<'_>) -> Vec<u8> {
    let content = root.subject_public_key_info.as_ref();
    let octets = content.len().to_be_bytes();
    let length = octets.iter().copied().skip_while(|octet| *octet == 0);
    let mut key = vec![SEQUENCE];
    if content.len() < 128 {
        key.extend(length);
    } else {
        key.push(0x80 | u8::try_from(length.clone().count()).unwrap_or_default());
        key.extend(length);
    }
    key.extend_from_slice(content);
    key
}

#[cfg(test)]
mod tests {
    use super::super::tls::provider;
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    /// Certificates of `dns.example`: its own, an intermediate's, and their root's; and one of another authority.
    struct Chain {
        root: CertifiedIssuer<'static, KeyPair>,
        intermediate: CertifiedIssuer<'static, KeyPair>,
        leaf: CertificateDer<'static>,
        leaf_key: KeyPair,
        stranger: CertifiedIssuer<'static, KeyPair>,
    }

    fn authority() -> CertificateParams {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    fn named(name: &str) -> CertificateParams {
        let mut params = authority();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params
    }

    fn chain() -> Chain {
        let root = CertifiedIssuer::self_signed(named("root"), KeyPair::generate().unwrap()).unwrap();
        let intermediate =
            CertifiedIssuer::signed_by(named("intermediate"), KeyPair::generate().unwrap(), &root).unwrap();
        let leaf_key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["dns.example".to_owned()]).unwrap();
        let leaf = params.signed_by(&leaf_key, &intermediate).unwrap().der().clone();
        let stranger = CertifiedIssuer::self_signed(named("stranger"), KeyPair::generate().unwrap()).unwrap();
        Chain { root, intermediate, leaf, leaf_key, stranger }
    }

    fn pin(key: &KeyPair) -> [u8; 32] {
        use rcgen::PublicKeyData;
        Sha256::digest(key.subject_public_key_info()).into()
    }

    #[test]
    fn a_pin_of_any_key_in_the_verified_chain_holds_and_of_one_only_sent_along_does_not() {
        let Chain { root, intermediate, leaf, leaf_key, stranger } = chain();
        let sent = [intermediate.der().clone(), stranger.der().clone()];
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        // The stranger is trusted too, but did not vouch for this server.
        roots.add(stranger.der().clone()).unwrap();
        let roots = Arc::new(roots);
        let cases = [
            ("server", pin(&leaf_key), true),
            ("intermediate", pin(intermediate.key()), true),
            ("root", pin(root.key()), true),
            ("stranger", pin(stranger.key()), false),
            ("nobody", [7; 32], false),
        ];
        for (whose, pin, holds) in cases {
            let verifier =
                Verifier::new(Arc::clone(&roots), &[pin], Arc::new(provider()), Arc::default()).unwrap();
            let name = ServerName::try_from("dns.example").unwrap();
            let verified = verifier.verify_server_cert(&leaf, &sent, &name, &[], UnixTime::now());
            assert_eq!(verified.is_ok(), holds, "{whose}: {verified:?}");
        }
    }
}
