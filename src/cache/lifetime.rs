//! How long an answer lives: clamps, negative answers ([RFC 2308](https://www.rfc-editor.org/rfc/rfc2308)),
//! failures ([RFC 9520](https://www.rfc-editor.org/rfc/rfc9520)) and the cache's own unit of time.
//!
//! Pure: it reads an answer and the settings. When an entry is stale is the entry's to say.

use crate::config::settings::CacheSettings;
use crate::wire::header::Rcode;
use crate::wire::question::{RecordType, Ttl};
use crate::wire::response::{RecordRef, ResponseRef, Section};
use crate::wire::stored::StoredAnswer;
use std::time::{Duration, Instant};

/// How long a negative answer without an SOA is kept. RFC 2308 §5 would not have it cached at all, but some public
/// resolvers cut the SOA off, and then every look-up of a missing AAAA would cross the network.
const WITHOUT_SOA_SECS: u32 = 30;

/// A point in time, in tenths of a second since the cache was made: half the size of an `Instant`, good for 13 years,
/// after which it stands still (nothing new expires before a restart, and nothing breaks).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticks(u32);

impl Ticks {
    /// Ticks in a second.
    const PER_SECOND: u32 = 10;

    /// Returns the time from `epoch` to `now`; zero if that lies before.
    pub(super) fn since(epoch: Instant, now: Instant) -> Self {
        let elapsed = now.saturating_duration_since(epoch);
        let tenths =
            elapsed.as_secs() * u64::from(Self::PER_SECOND) + u64::from(elapsed.subsec_millis() / 100);
        Self(u32::try_from(tenths).unwrap_or(u32::MAX))
    }

    /// Returns whole seconds from `self` to `now`; zero when another thread's clock reading came first.
    pub(super) fn secs_until(self, now: Self) -> u32 {
        now.0.saturating_sub(self.0) / Self::PER_SECOND
    }

    /// Returns ticks from `self` to `now`, as `secs_until` does.
    pub(super) fn until(self, now: Self) -> u64 {
        u64::from(now.0.saturating_sub(self.0))
    }
}

/// Returns `secs` in ticks.
pub(super) fn ticks(secs: u32) -> u64 {
    u64::from(secs) * u64::from(Ticks::PER_SECOND)
}

/// Returns whole seconds, at most what fits.
pub(super) fn whole_secs(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// How long failures are remembered (RFC 9520 §3.2): the first of a series for a time, each further one for twice as long, up to
/// a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FailureTimes {
    /// The first.
    first_secs: u32,
    /// The bound.
    longest_secs: u32,
}

impl FailureTimes {
    /// Takes over what the settings say.
    pub(super) fn new(settings: &CacheSettings) -> Self {
        Self {
            first_secs: whole_secs(settings.failure_ttl),
            longest_secs: whole_secs(settings.failure_max_ttl),
        }
    }

    /// Returns how long the `count`th failure of a series is remembered.
    pub(super) fn secs(self, count: u8) -> u32 {
        self.unbounded(count).min(self.longest_secs)
    }

    /// Returns true when the `count`th failure of a series would be remembered longer but for the bound.
    pub(super) fn is_bounded(self, count: u8) -> bool {
        self.unbounded(count) > self.longest_secs
    }

    /// Returns the number in its series of a failure at `now`, when the one before was number `count` at `last`. Twice the
    /// bound after that one a new series begins.
    pub(super) fn next(self, count: u8, last: Ticks, now: Ticks) -> u8 {
        let goes_on = count > 0 && last.secs_until(now) < self.longest_secs.saturating_mul(2);
        if goes_on { count.saturating_add(1) } else { 1 }
    }

    /// Returns the time that doubling alone gives.
    fn unbounded(self, count: u8) -> u32 {
        let doublings = u32::from(count.saturating_sub(1)).min(16);
        self.first_secs.saturating_mul(1 << doublings)
    }
}

/// What the operator says about lifetimes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Shorter lives are made this long.
    min_secs: u32,
    /// Longer lives are made this long.
    max_secs: u32,
    /// The same for negative answers; wins over `min_secs`.
    negative_max_secs: u32,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is kept this long; never zero.
    Kept {
        /// Its life.
        secs: u32,
    },
    /// It may not be kept, but what was known before is no longer true.
    Displaces,
    /// It says nothing about the name: rcodes other than NOERROR and NXDOMAIN.
    Passes,
}

/// An answer's fate and the bounds of its TTLs, so that clients forget it when we do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// Kept or not.
    pub(super) fate: Fate,
    /// Lower TTLs are raised to it.
    pub(super) floor: Ttl,
    /// Higher TTLs are lowered to it.
    pub(super) ceiling: Ttl,
}

impl Rules {
    /// Takes over what the settings say.
    pub(super) fn new(settings: &CacheSettings) -> Self {
        Self {
            min_secs: whole_secs(settings.min_ttl),
            max_secs: whole_secs(settings.max_ttl),
            negative_max_secs: whole_secs(settings.negative_max_ttl),
        }
    }

    /// Judges an answer that is `age_secs` old already (HTTP `Age`, RFC 8484 §5.1).
    pub(super) fn terms(&self, answer: &StoredAnswer, age_secs: u32) -> Terms {
        let facts = Facts::read(answer);
        let max_secs = match facts.kind {
            Kind::Positive | Kind::Error => self.max_secs,
            Kind::Negative { has_soa: true } => self.max_secs.min(self.negative_max_secs),
            Kind::Negative { has_soa: false } => {
                self.max_secs.min(self.negative_max_secs).min(WITHOUT_SOA_SECS)
            }
        };
        // Not `clamp`, which panics when the bounds cross; the upper one wins.
        let secs = facts.secs.saturating_sub(age_secs).max(self.min_secs).min(max_secs);
        let fate = match facts.kind {
            Kind::Error => Fate::Passes,
            Kind::Positive | Kind::Negative { .. } if secs == 0 => Fate::Displaces,
            Kind::Positive | Kind::Negative { .. } => Fate::Kept { secs },
        };
        // The records of a chain keep their own, longer TTLs unless they were aged on the way, which their TTLs do
        // not show. An SOA's TTL is what a client takes for the life of the absence (RFC 2308 §5).
        let ceiling = match facts.kind {
            Kind::Positive if age_secs == 0 => max_secs,
            Kind::Positive | Kind::Negative { .. } => secs,
            Kind::Error => max_secs,
        };
        Terms { fate, floor: Ttl(self.min_secs.min(ceiling)), ceiling: Ttl(ceiling) }
    }
}

/// What sort of answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Has what was asked for.
    Positive,
    /// The name or the type does not exist (RFC 2308 §2).
    Negative {
        /// Says until when.
        has_soa: bool,
    },
    /// Neither NOERROR nor NXDOMAIN, or unreadable.
    Error,
}

/// What of an answer decides about its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Facts {
    /// The sort of answer.
    kind: Kind,
    /// The life it claims: the smallest TTL, and for negative ones the SOA's MINIMUM if that is less.
    secs: u32,
}

impl Facts {
    /// Reads them off an answer.
    fn read(answer: &StoredAnswer) -> Self {
        let rcode = answer.rcode();
        let Ok(response) = ResponseRef::parse(answer.message()) else {
            return Self { kind: Kind::Error, secs: 0 };
        };
        let records = || response.records(Section::Answer).chain(response.records(Section::Authority));
        let smallest = records().map(|record| record.ttl.0).min();
        if rcode != Rcode::NOERROR && rcode != Rcode::NXDOMAIN {
            return Self { kind: Kind::Error, secs: 0 };
        }
        let wanted = answer.question().rtype;
        let holds = |record: RecordRef<'_>| wanted == RecordType::ANY || record.rtype == wanted;
        if rcode == Rcode::NOERROR && response.records(Section::Answer).any(holds) {
            return Self { kind: Kind::Positive, secs: smallest.unwrap_or(0) };
        }
        let minimum = response
            .records(Section::Authority)
            .filter_map(|record| record.soa_minimum())
            .map(|ttl| ttl.0)
            .min();
        let secs = smallest.unwrap_or(u32::MAX).min(minimum.unwrap_or(u32::MAX));
        Self { kind: Kind::Negative { has_soa: minimum.is_some() }, secs }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{Message, settings};
    use super::*;

    /// Kept so long.
    fn kept(secs: u32) -> Fate {
        Fate::Kept { secs }
    }

    #[test]
    fn lives_of_answers() {
        let a = || Message::ask("www.example.", RecordType::A);
        let aaaa = || Message::ask("www.example.", RecordType::AAAA);
        let nxdomain = || a().rcode(Rcode::NXDOMAIN);
        let day = 86_400;
        let table = [
            ("one record", a().a(300), 0, kept(300)),
            ("the smallest of several", a().cname(600).a(60).a(300), 0, kept(60)),
            ("authority counts", a().a(300).authority(RecordType::NSEC, 20), 0, kept(20)),
            ("less what HTTP says it is old", a().a(300), 100, kept(200)),
            ("older than it may get", a().a(300), 300, Fate::Displaces),
            ("max_ttl", a().a(day + 1), 0, kept(day)),
            ("Age is subtracted before max_ttl", a().a(2 * day), day / 2, kept(day)),
            ("TTL 0", a().cname(300).a(0), 0, Fate::Displaces),
            ("top bit set counts as 0 (RFC 2181 section 8)", a().a(300).a(0x8000_0001), 0, Fate::Displaces),
            ("SOA's MINIMUM", nxdomain().soa(900, 300), 0, kept(300)),
            ("SOA's TTL", nxdomain().soa(200, 900), 0, kept(200)),
            ("MINIMUM with the top bit set", nxdomain().soa(200, u32::MAX), 0, Fate::Displaces),
            ("negative_max_ttl", nxdomain().soa(day, day), 0, kept(3600)),
            ("NODATA", aaaa().soa(900, 600), 0, kept(600)),
            ("a chain to nothing lives as long as its alias", aaaa().cname(30).soa(900, 600), 0, kept(30)),
            ("NXDOMAIN after an alias", nxdomain().cname(700).soa(900, 800), 0, kept(700)),
            ("negative and old", nxdomain().soa(900, 600), 500, kept(100)),
            ("MINIMUM 0", nxdomain().soa(900, 0), 0, Fate::Displaces),
            ("NXDOMAIN without SOA", nxdomain(), 0, kept(30)),
            ("NODATA without SOA", aaaa(), 0, kept(30)),
            ("a chain to nothing without SOA", aaaa().cname(900), 0, kept(30)),
            ("without SOA, TTL less than the cap", aaaa().cname(9), 0, kept(9)),
            (
                "the alias itself was asked for",
                Message::ask("www.example.", RecordType::CNAME).cname(900),
                0,
                kept(900),
            ),
            (
                "the SOA itself was asked for",
                Message::ask("example.", RecordType::SOA).soa_answer(7200, 60),
                0,
                kept(7200),
            ),
            ("ANY", Message::ask("www.example.", RecordType::ANY).a(900), 0, kept(900)),
            ("SERVFAIL", a().rcode(Rcode::SERVFAIL), 0, Fate::Passes),
            ("REFUSED with records", a().rcode(Rcode::REFUSED).a(300), 0, Fate::Passes),
        ];
        for (name, message, age, expected) in table {
            assert_eq!(Rules::new(&settings()).terms(&message.stored(), age).fate, expected, "{name}");
        }
    }

    #[test]
    fn min_ttl_lengthens_but_never_beyond_the_upper_bounds() {
        let mut settings = settings();
        settings.min_ttl = Duration::from_secs(600);
        settings.negative_max_ttl = Duration::from_secs(500);
        let ask = || Message::ask("www.example.", RecordType::A);
        let table = [
            ("positive", ask().a(5), 0, kept(600), (600, 86_400)),
            ("TTL 0", ask().a(0), 0, kept(600), (600, 86_400)),
            ("long enough", ask().a(700), 0, kept(700), (600, 86_400)),
            ("old", ask().a(700), 650, kept(600), (600, 600)),
            ("negative", ask().soa(5, 5), 0, kept(500), (500, 500)),
            ("no SOA", ask(), 0, kept(30), (30, 30)),
        ];
        for (name, message, age, fate, (floor, ceiling)) in table {
            let expected = Terms { fate, floor: Ttl(floor), ceiling: Ttl(ceiling) };
            assert_eq!(Rules::new(&settings).terms(&message.stored(), age), expected, "{name}");
        }
    }

    #[test]
    fn a_clients_ttl_of_an_absence_or_an_aged_answer_is_its_life() {
        let rules = Rules::new(&settings());
        let table = [
            ("SOA TTL above MINIMUM", Message::ask("a.example.", RecordType::A).soa(7200, 300), 0, 300),
            ("aged", Message::ask("a.example.", RecordType::A).cname(300).a(60), 20, 40),
            (
                "fresh: each record its own",
                Message::ask("a.example.", RecordType::A).cname(300).a(60),
                0,
                86_400,
            ),
        ];
        for (name, message, age, ceiling) in table {
            assert_eq!(rules.terms(&message.stored(), age).ceiling, Ttl(ceiling), "{name}");
        }
    }

    #[test]
    fn failures_are_remembered_for_5_s_doubling_to_60() {
        let times = FailureTimes::new(&settings());
        let secs: Vec<u32> = [1, 2, 3, 4, 5, 6, 255].into_iter().map(|count| times.secs(count)).collect();
        assert_eq!(secs, [5, 10, 20, 40, 60, 60, 60]);
        let bounded: Vec<bool> = [1, 4, 5, 255].into_iter().map(|count| times.is_bounded(count)).collect();
        assert_eq!(bounded, [false, false, true, true]);
    }

    #[test]
    fn a_late_failure_begins_a_new_series() {
        let secs = |secs: u32| Ticks(secs * Ticks::PER_SECOND);
        let times = FailureTimes::new(&settings());
        assert_eq!(times.next(0, secs(0), secs(0)), 1);
        assert_eq!(times.next(3, secs(100), secs(121)), 4);
        assert_eq!(times.next(255, secs(100), secs(161)), 255);
        assert_eq!(times.next(3, secs(100), secs(220)), 1);
    }

    #[test]
    fn ticks_neither_run_backwards_nor_over() {
        let epoch = crate::clock::now();
        let at = |millis| Ticks::since(epoch, epoch + Duration::from_millis(millis));
        assert_eq!(at(0).secs_until(at(999)), 0);
        assert_eq!(at(0).secs_until(at(1000)), 1);
        assert_eq!(at(5000).secs_until(at(1000)), 0);
        assert_eq!(at(5000).until(at(1000)), 0);
        let century = epoch + Duration::from_secs(100 * 365 * 86_400);
        assert_eq!(Ticks::since(epoch, century), Ticks(u32::MAX));
        assert_eq!(Ticks::since(century, epoch), Ticks(0));
    }
}
