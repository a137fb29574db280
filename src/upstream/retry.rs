//! What a failure means: for the query (may another server be asked?) and for the server (is it well?). The one table of
//! both, as pure functions. What clients are told when nothing worked is `resolver::failure`.

use super::{Failure, Sample};
use crate::transport::TransportError;
use crate::wire::ede::EdeCode;
use crate::wire::header::Rcode;

/// Whether to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// At another server, while attempts and budget last.
    Other,
    /// Not at all: this is the answer.
    No,
}

/// What follows from a failed exchange.
#[derive(Clone, Debug)]
pub struct AfterFailure {
    /// For the query.
    pub retry: Retry,
    /// For the server: hand it to `Upstream::observe`.
    pub sample: Sample,
}

/// Judges an exchange that gave no message, or none that is an answer (`TransportError::Mismatch`). Another server may always
/// help: none of these says anything about the name that was asked for.
pub fn after_transport(error: &TransportError) -> AfterFailure {
    AfterFailure { retry: Retry::Other, sample: sample_of(error) }
}

/// Judges an answer by its rcode: [`Retry::Other`] means once, and the first answer goes to the client if the other has no
/// better one. The server is well in each case.
///
/// SERVFAIL for a DNSSEC reason is a verdict on the name, and others would come to the same; `has_dnssec_ede` says so
/// (see [`is_dnssec`]). An rcode that is no result of a look-up (FORMERR, REFUSED, NOTIMP, those nobody knows) is asked elsewhere.
pub fn after_rcode(rcode: Rcode, has_dnssec_ede: bool) -> Retry {
    match rcode {
        Rcode::NOERROR | Rcode::NXDOMAIN | YXDOMAIN => Retry::No,
        Rcode::SERVFAIL if has_dnssec_ede => Retry::No,
        Rcode(_) => Retry::Other,
    }
}

/// Returns true for the codes that say why validation failed (RFC 8914 §4.6 to §4.13).
pub fn is_dnssec(code: EdeCode) -> bool {
    (5..=12).contains(&code.0)
}

/// A name that a DNAME makes too long (RFC 6672 §2.2): an answer.
const YXDOMAIN: Rcode = Rcode(6);

/// Returns what a failure says of the server.
fn sample_of(error: &TransportError) -> Sample {
    match error {
        TransportError::Connect { .. }
        | TransportError::ConnectTimeout { .. }
        | TransportError::NoAddress { .. }
        | TransportError::Tls { .. }
        | TransportError::Closed
        | TransportError::ContentType
        | TransportError::BodyTooLarge
        | TransportError::Http2 { .. }
        | TransportError::Mismatch(_) => Sample::Failed { error: Failure::from(error) },
        TransportError::Certificate { .. } | TransportError::Clock(_) | TransportError::Pin => {
            Sample::Certificate { error: Failure::from(error) }
        }
        TransportError::Timeout => Sample::TimedOut,
        TransportError::HttpStatus { status: 429 | 503, retry_after } => {
            Sample::Busy { retry_after: *retry_after }
        }
        TransportError::HttpStatus { .. } => Sample::Failed { error: Failure::from(error) },
        TransportError::Overloaded | TransportError::Exhausted { .. } | TransportError::ShuttingDown => {
            Sample::Neutral
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::response::ResponseFault;
    use std::io;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    fn address() -> SocketAddr {
        "192.0.2.1:853".parse().unwrap()
    }
    fn kind(error: &TransportError) -> &'static str {
        let after = after_transport(error);
        assert_eq!(after.retry, Retry::Other);
        match after.sample {
            Sample::Answered { .. } => "answered",
            Sample::Failed { .. } => "failed",
            Sample::TimedOut => "timed out",
            Sample::Certificate { .. } => "certificate",
            Sample::Busy { .. } => "busy",
            Sample::Neutral => "neutral",
        }
    }

    #[test]
    fn every_failure_has_its_row() {
        let refused = Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused));
        let untrusted = Arc::new(rustls::Error::InvalidCertificate(rustls::CertificateError::Expired));
        let http = |status| TransportError::HttpStatus { status, retry_after: None };
        let table = [
            (TransportError::Connect { address: address(), error: Arc::clone(&refused) }, "failed"),
            (TransportError::ConnectTimeout { address: address(), waited: Duration::from_secs(2) }, "failed"),
            (TransportError::NoAddress { host: "dns.example".to_owned() }, "failed"),
            (TransportError::Tls { error: Arc::clone(&refused) }, "failed"),
            (TransportError::Certificate { error: untrusted }, "certificate"),
            (TransportError::Pin, "certificate"),
            (TransportError::Closed, "failed"),
            (TransportError::Timeout, "timed out"),
            (http(429), "busy"),
            (http(503), "busy"),
            (http(404), "failed"),
            (http(500), "failed"),
            (TransportError::ContentType, "failed"),
            (TransportError::BodyTooLarge, "failed"),
            (TransportError::Http2 { reason: "REFUSED_STREAM".to_owned() }, "failed"),
            (TransportError::Mismatch(ResponseFault::Truncated), "failed"),
            (TransportError::Overloaded, "neutral"),
            (TransportError::Exhausted { error: refused }, "neutral"),
            (TransportError::ShuttingDown, "neutral"),
        ];
        for (error, expected) in table {
            assert_eq!(kind(&error), expected, "{error}");
        }
    }

    #[test]
    fn a_busy_server_is_taken_at_its_word() {
        let retry_after = Some(Duration::from_secs(9));
        let after = after_transport(&TransportError::HttpStatus { status: 429, retry_after });
        assert!(matches!(after.sample, Sample::Busy { retry_after: Some(wait) } if wait.as_secs() == 9));
    }

    #[test]
    fn rcodes_that_are_no_answer_are_asked_elsewhere() {
        let table = [
            (Rcode::NOERROR, false, Retry::No),
            (Rcode::NXDOMAIN, false, Retry::No),
            (Rcode(6), false, Retry::No),
            (Rcode::SERVFAIL, true, Retry::No),
            (Rcode::SERVFAIL, false, Retry::Other),
            (Rcode::REFUSED, true, Retry::Other),
            (Rcode::NOTIMP, false, Retry::Other),
            (Rcode::FORMERR, false, Retry::Other),
            (Rcode(3841), false, Retry::Other),
        ];
        for (rcode, dnssec, expected) in table {
            assert_eq!(after_rcode(rcode, dnssec), expected, "{}", rcode.0);
        }
    }

    #[test]
    fn dnssec_reasons_are_5_to_12() {
        let reasons: Vec<u16> = (0..40).filter(|code| is_dnssec(EdeCode(*code))).collect();
        assert_eq!(reasons, (5..=12).collect::<Vec<_>>());
    }

    #[test]
    fn a_failure_tells_its_causes() {
        let error = Arc::new(io::Error::new(io::ErrorKind::ConnectionRefused, "refused"));
        let failure = Failure::from(&TransportError::Connect { address: address(), error });
        assert_eq!(failure.to_string(), "cannot connect to 192.0.2.1:853: refused");
    }
}
