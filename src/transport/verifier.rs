//! Whether a server is who it is meant to be: chain, name and date as rustls verifies them, then the operator's pins if there are
//! any, in addition and never instead. For look-ups of time servers alone the date is overlooked, and it alone, where the clock does
//! not fit the certificates. How hands are shaken, and what roots there are, is `tls`'s matter.

use super::certificate_time::{CertificateClock, validity};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// Certificates of a chain whose dates are read; chains have two or three.
const LONGEST_CHAIN: usize = 8;

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
    /// Whether dates count.
    dates: Dates,
}

/// Whether the dates of certificates count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dates {
    /// A certificate has to be valid now.
    Judged,
    /// It has to be valid at some time that may be now, as far as can be told without a clock. Nothing else is overlooked.
    Overlooked,
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
        Ok(Self { chain, roots, pins: pins.into(), time, provider, dates: Dates::Judged })
    }

    /// Judges dates, or overlooks them.
    pub(super) fn with_dates(self, dates: Dates) -> Self {
        Self { dates, ..self }
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
        let at = match self.dates {
            Dates::Judged => now,
            Dates::Overlooked => earliest(end_entity, intermediates, self.time.known()),
        };
        let verified = self
            .chain
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at)
            .map_err(|error| self.time.explain(error))?;
        if self.dates == Dates::Judged {
            self.time.confirm();
        }
        if self.pins.is_empty() || self.is_pinned(end_entity, intermediates, at)? {
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

/// Returns the earliest time at which a chain can be valid that is not certainly past: the latest of the times from which its
/// certificates hold, and `known`, in seconds since 1970. One that ended before `known` is refused even here: its key may be
/// anybody's.
fn earliest(end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>], known: u64) -> UnixTime {
    let chain = std::iter::once(end_entity).chain(intermediates).take(LONGEST_CHAIN);
    let latest = chain.filter_map(not_before).max().unwrap_or(0);
    UnixTime::since_unix_epoch(Duration::from_secs(latest.max(known)))
}

/// Reads from when a certificate is valid, seconds since 1970.
fn not_before(certificate: &CertificateDer<'_>) -> Option<u64> {
    u64::try_from(validity(certificate)?.not_before.timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::super::rehearsal::{Authority, Identity, NAME};
    use super::super::tls::provider;
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::pki_types::pem::PemObject;
    use std::time::{SystemTime, UNIX_EPOCH};

    /// Begin of 2027 and of 2036.
    const IN_2027: u64 = 1_798_761_600;
    const IN_2036: u64 = 2_082_758_400;

    fn in_1970() -> SystemTime {
        UNIX_EPOCH
    }

    /// A verifier with a clock that says 1970 and an authority's root.
    fn verifier(authority: &Authority, dates: Dates, known: u64, pins: &[[u8; 32]]) -> Verifier {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority.directory().join("ca.pem")).unwrap()).unwrap();
        let time = Arc::new(CertificateClock::new(in_1970, known));
        Verifier::new(Arc::new(roots), pins, Arc::new(provider()), time).unwrap().with_dates(dates)
    }

    fn verify(verifier: &Verifier, identity: &Identity, name: &str) -> Result<(), Error> {
        use rustls::time_provider::TimeProvider as _;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let now = verifier.time.current_time().unwrap();
        verifier.verify_server_cert(&identity.certificate, &[], &name, &[], now).map(|_| ())
    }

    #[test]
    fn a_certificate_from_after_the_build_is_overlooked_for_and_no_good_time_is_learnt() {
        let authority = Authority::new();
        let young = authority.identity_between(NAME, 2030, 2035);
        let judging = verifier(&authority, Dates::Judged, IN_2027, &[]);
        assert!(verify(&judging, &young, NAME).is_err());
        let overlooking = verifier(&authority, Dates::Overlooked, IN_2027, &[]);
        verify(&overlooking, &young, NAME).unwrap();
        assert_eq!(*overlooking.time.good().borrow(), 0);
    }

    #[test]
    fn one_that_has_certainly_ended_is_refused_all_the_same() {
        let authority = Authority::new();
        let old = authority.identity_between(NAME, 2030, 2035);
        let overlooking = verifier(&authority, Dates::Overlooked, IN_2036, &[]);
        assert!(verify(&overlooking, &old, NAME).is_err());
    }

    #[test]
    fn name_chain_and_pin_are_never_overlooked() {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let young = authority.identity_between(NAME, 2030, 2035);
        let overlooking = verifier(&authority, Dates::Overlooked, IN_2027, &[]);
        let refused = |outcome: Result<(), Error>| matches!(outcome, Err(Error::InvalidCertificate(_)));
        assert!(refused(verify(&overlooking, &young, "other.example")));
        assert!(refused(verify(&overlooking, &stranger.identity_between(NAME, 2030, 2035), NAME)));
        let pinned = verifier(&authority, Dates::Overlooked, IN_2027, &[[7; 32]]);
        let Err(Error::InvalidCertificate(CertificateError::Other(OtherError(other)))) =
            verify(&pinned, &young, NAME)
        else {
            panic!("the pin is overlooked");
        };
        assert!(other.is::<PinMismatch>());
    }

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
