//! The time at which certificates are judged. A machine without a battery wakes in 1970, and would trust nobody: so the time
//! is never before this program was built, nor before the last time that a server's certificate showed to be right. Name,
//! chain and pins are judged as ever. What is *not* here: keeping that last time over a restart (`app::state`).

use crate::clock;
use crate::telemetry::timestamp::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, Error, OtherError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use x509_parser::asn1_rs::{Any, Class, FromDer, Sequence};
use x509_parser::certificate::Validity;

/// How often a good time is told: it goes to flash memory that wears out.
const TOLD_EVERY_SECS: u64 = 86_400;

/// Never earlier than it can be.
#[derive(Debug)]
pub struct CertificateClock {
    /// The system's clock.
    wall: fn() -> SystemTime,
    /// No time before this can be, seconds since 1970.
    floor: AtomicU64,
    /// The latest time that a certificate agreed with, seconds since 1970.
    good: watch::Sender<u64>,
}

/// The system's clock cannot be right.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the clock is wrong: it says {}, and it is {} or later", Timestamp(*.says), Timestamp(*.known))]
pub struct WrongClock {
    /// What it says.
    says: SystemTime,
    /// What is known to be past.
    known: SystemTime,
}

impl WrongClock {
    /// Says what the clock shows, and a time that is past for certain.
    pub fn new(says: SystemTime, known: SystemTime) -> Self {
        Self { says, known }
    }
}

impl Default for CertificateClock {
    /// Takes the system's clock and the date of the build.
    fn default() -> Self {
        let built = clock::built().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        Self::new(clock::wall, built.map_or(0, |since| since.as_secs()))
    }
}

impl CertificateClock {
    /// Takes a clock, and a time that is past for certain in seconds since 1970.
    pub fn new(wall: fn() -> SystemTime, floor: u64) -> Self {
        Self { wall, floor: AtomicU64::new(floor), good: watch::Sender::new(0) }
    }

    /// Learns that a time is past, seconds since 1970.
    pub fn raise(&self, floor: u64) {
        self.floor.fetch_max(floor, Ordering::Relaxed);
    }

    /// Returns the latest time, seconds since 1970, that a certificate agreed with; it changes at most daily. 0: none yet.
    pub fn good(&self) -> watch::Receiver<u64> {
        self.good.subscribe()
    }

    /// Returns the latest time that is past for certain, seconds since 1970.
    pub fn known(&self) -> u64 {
        self.floor.load(Ordering::Relaxed).max(*self.good.borrow())
    }

    /// Returns what is wrong with the clock, if it cannot be right.
    pub fn fault(&self) -> Option<WrongClock> {
        /// A clock that is set back by so much is being corrected, not wrong.
        const SLACK_SECS: u64 = 60;
        let (says, known) = ((self.wall)(), self.known());
        let wrong = WrongClock { says, known: UNIX_EPOCH + Duration::from_secs(known) };
        (seconds(says).saturating_add(SLACK_SECS) < known).then_some(wrong)
    }

    /// Takes note that a certificate is good at the clock's own time. Wrong by more than the life of a certificate the clock
    /// cannot be then.
    pub(super) fn confirm(&self) {
        let now = seconds((self.wall)());
        if now >= self.floor.load(Ordering::Relaxed) {
            self.good.send_if_modified(|good| is_news(good, now));
        }
    }

    /// Puts the clock in place of the certificate as the culprit, if it is.
    pub(super) fn explain(&self, error: Error) -> Error {
        let says = (self.wall)();
        let known = self.floor.load(Ordering::Relaxed);
        let about_time = matches!(
            error,
            Error::InvalidCertificate(
                CertificateError::NotValidYet
                    | CertificateError::NotValidYetContext { .. }
                    | CertificateError::Expired
                    | CertificateError::ExpiredContext { .. }
            )
        );
        if !about_time || seconds(says) >= known {
            return error;
        }
        let known = UNIX_EPOCH + Duration::from_secs(known);
        CertificateError::Other(OtherError(Arc::new(WrongClock::new(says, known)))).into()
    }
}

impl TimeProvider for CertificateClock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = seconds((self.wall)()).max(self.floor.load(Ordering::Relaxed));
        Some(UnixTime::since_unix_epoch(Duration::from_secs(now)))
    }
}

/// Puts `now` in place of a good time that is a day old; true if it did.
fn is_news(good: &mut u64, now: u64) -> bool {
    let is_old = now >= good.saturating_add(TOLD_EVERY_SECS);
    if is_old {
        *good = now;
    }
    is_old
}

/// Returns seconds since 1970; 0 before.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Reads from when until when a certificate is valid (RFC 5280 §4.1.2.5). What stands behind is not looked at: parsing names,
/// keys and every kind of extension would cost 150 kB of program, and they are the verifier's matter.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let (_, certificate) = Sequence::from_der(certificate).ok()?;
    let (_, signed) = Sequence::from_der(&certificate.content).ok()?;
    let mut rest: &[u8] = &signed.content;
    let (behind, first) = Any::from_der(rest).ok()?;
    // The version, which the first version did not write.
    if first.class() == Class::ContextSpecific {
        rest = behind;
    }
    for _skipped in ["serialNumber", "signature", "issuer"] {
        (rest, _) = Any::from_der(rest).ok()?;
    }
    Validity::from_der(rest).ok().map(|(_, validity)| validity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    const BUILT: u64 = 1_795_381_080;

    fn in_1970() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(60)
    }
    fn in_2030() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_893_456_000)
    }
    fn judged_at(clock: &CertificateClock) -> u64 {
        clock.current_time().unwrap().as_secs()
    }

    #[test]
    fn certificates_are_judged_at_the_latest_of_three_times() {
        let clock = CertificateClock::new(in_1970, BUILT);
        assert_eq!(judged_at(&clock), BUILT);
        clock.raise(BUILT + 5);
        clock.raise(BUILT + 1);
        assert_eq!(judged_at(&clock), BUILT + 5);
        assert_eq!(judged_at(&CertificateClock::new(in_2030, BUILT)), 1_893_456_000);
    }

    #[test]
    fn this_program_was_not_built_in_1970() {
        assert!(
            judged_at(&CertificateClock { wall: in_1970, ..CertificateClock::default() }) > 1_700_000_000
        );
    }

    #[test]
    fn only_a_clock_that_may_be_right_is_remembered_and_once_a_day() {
        let wrong = CertificateClock::new(in_1970, BUILT);
        wrong.confirm();
        assert_eq!(*wrong.good().borrow(), 0);
        let right = CertificateClock::new(in_2030, BUILT);
        let mut good = right.good();
        right.confirm();
        assert_eq!(*good.borrow_and_update(), 1_893_456_000);
        right.confirm();
        assert!(!good.has_changed().unwrap());
    }

    #[test]
    fn the_clock_is_blamed_for_dates_and_for_nothing_else() {
        let wrong = CertificateClock::new(in_1970, BUILT);
        let early = || Error::InvalidCertificate(CertificateError::NotValidYet);
        let Error::InvalidCertificate(CertificateError::Other(OtherError(other))) = wrong.explain(early())
        else {
            panic!("the certificate is blamed");
        };
        let text = other.to_string();
        assert!(
            text.contains("1970-01-01T00:01:00.000Z") && text.contains("2026-11-22T20:58:00.000Z"),
            "{text}"
        );
        let name = Error::InvalidCertificate(CertificateError::NotValidForName);
        assert_eq!(wrong.explain(name.clone()), name);
        assert_eq!(CertificateClock::new(in_2030, BUILT).explain(early()), early());
    }

    fn certificate(from: i32, until: i32) -> CertificateDer<'static> {
        let mut wanted = CertificateParams::new(vec!["dns.example".to_owned()]).unwrap();
        wanted.not_before = date_time_ymd(from, 1, 2);
        wanted.not_after = date_time_ymd(until, 3, 4);
        wanted.self_signed(&KeyPair::generate().unwrap()).unwrap().into()
    }

    #[test]
    fn dates_are_those_that_a_parser_of_whole_certificates_finds() {
        // From 2050 on they are written in another form (RFC 5280 §4.1.2.5).
        for (from, until) in [(1970, 1999), (2026, 2027), (2049, 2050), (2050, 9999)] {
            let certificate = certificate(from, until);
            let (_, whole) = x509_parser::parse_x509_certificate(&certificate).unwrap();
            assert_eq!(validity(&certificate).as_ref(), Some(whole.validity()), "{from} {until}");
        }
    }

    #[test]
    fn a_certificate_cut_short_has_no_dates() {
        let whole = certificate(2026, 2027);
        for length in 0..whole.len() {
            assert_eq!(validity(&CertificateDer::from(&whole[..length])), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(octets: Vec<u8>, at in 0..64_usize, octet: u8) {
            let _ = validity(&CertificateDer::from(octets));
            let mut wrong = certificate(2026, 2027).to_vec();
            wrong[at] = octet;
            let _ = validity(&CertificateDer::from(wrong));
        }
    }
}
