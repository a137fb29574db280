//! Is the clock right? Judged from what the other checks saw and from when this program was made: sends nothing.

use super::places::Places;
use super::report::{Finding, Intent, Status};
use crate::telemetry::timestamp::Timestamp;
use std::time::{Duration, SystemTime};

/// The check's name.
const CHECK: &str = "clock";

/// What a clock may be wrong by: web servers and the way to them are not exact either.
const TOLERANCE: Duration = Duration::from_secs(120);

/// From here on certificates are judged wrongly: theirs are often some days old only.
const HARMFUL: Duration = Duration::from_secs(86_400);

/// What to do.
const ADVICE: &str = "set it (timedatectl set-ntp true): certificates are judged by it";

/// Says what is sent.
pub(super) fn intent() -> Intent {
    let sends = "nothing more; takes the time from the answers to portal and the certificates of server";
    Intent { check: CHECK, sends: sends.to_owned() }
}

/// Compares the clock. `date` is what a web server says; `out_of_date` how many certificates are not valid now.
pub(super) fn examine(places: &Places, date: Option<SystemTime>, out_of_date: usize) -> Finding {
    let now = places.wall;
    let shown = show(now);
    if let Some(built) = places.built.filter(|built| now + HARMFUL < *built) {
        let seen = format!("it says {shown}, before this program was made ({})", show(built));
        return Finding::new(CHECK, Status::Fail, seen, ADVICE);
    }
    if let Some(date) = date {
        let difference = now.duration_since(date).unwrap_or_else(|error| error.duration());
        if difference > TOLERANCE {
            let status = if difference > HARMFUL { Status::Fail } else { Status::Warn };
            return Finding::new(
                CHECK,
                status,
                format!("it says {shown}, a web server {}", show(date)),
                ADVICE,
            );
        }
        return Finding::fine(CHECK, format!("{shown}, as a web server says"));
    }
    if out_of_date > 0 {
        let seen = format!("it says {shown}; certificates of servers are not valid then: {out_of_date}");
        return Finding::new(CHECK, Status::Fail, seen, ADVICE);
    }
    Finding::fine(CHECK, format!("{shown}; nothing contradicts it"))
}

/// Returns a time to the minute.
fn show(time: SystemTime) -> String {
    let text = Timestamp(time).to_string();
    text.chars()
        .take("2026-11-22T20:58".len())
        .map(|letter| if letter == 'T' { ' ' } else { letter })
        .collect::<String>()
        + " UTC"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time so many days after 1970.
    fn day(days: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400)
    }

    /// Status at a clock, for a program made on day 20,000.
    fn status(clock: u64, date: Option<u64>, out_of_date: usize) -> Status {
        let places = Places { wall: day(clock), built: Some(day(20_000)), ..Places::default() };
        examine(&places, date.map(day), out_of_date).status
    }

    #[test]
    fn a_clock_before_the_build_is_wrong_whoever_agrees() {
        assert_eq!(status(0, Some(0), 0), Status::Fail);
        assert_eq!(status(19_999, None, 0), Status::Ok, "the machine that built it may be a little ahead");
    }

    #[test]
    fn a_web_server_is_believed_before_certificates() {
        assert_eq!(status(20_100, Some(20_100), 1), Status::Ok);
        assert_eq!(status(20_100, Some(20_090), 0), Status::Fail);
        assert_eq!(status(20_090, Some(20_100), 0), Status::Fail);
        assert_eq!(status(20_100, None, 1), Status::Fail);
        assert_eq!(status(20_100, None, 0), Status::Ok);
    }

    #[test]
    fn minutes_are_worth_a_word_only() {
        let places = Places { wall: day(20_100) + Duration::from_secs(600), ..Places::default() };
        let finding = examine(&Places { built: None, ..places }, Some(day(20_100)), 0);
        assert_eq!(finding.status, Status::Warn);
        assert!(finding.seen.contains("2025-01-12 00:10 UTC"), "{finding:?}");
    }
}
