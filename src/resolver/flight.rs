//! One question on its way to the servers, and who waits for it: plain data. What happens to it is in `attempts`
//! and `endings`.
//!
//! ```text
//! started --attempt--> waiting --answer that holds--> ended (stored, replied; late answers still count for their servers)
//!                         |--slower than nearly all answers--> hedge: the next server is asked as well
//!                         |  \--attempt failed or timed out--> next attempt, else waiting for late answers
//!                         |--1.8 s, stale answer at hand--> waiters have it, the flight goes on
//!                         |--connections lost under all attempts--> one server again, after a pause
//!                         \--deadline, or nothing left to try--> ended (passed-on answer, stale, SERVFAIL)
//! ```

use super::failure::Cause;
use super::permits::Permit;
use super::snapshot::{GroupEntry, Snapshot};
use super::validate::Asked;
use super::waiter::Waiter;
use crate::cache::key::{KeyRef, Variant};
use crate::policy::client_subnet::SubnetContent;
use crate::telemetry::traces::facts::FlightFacts;
use crate::upstream::Upstream;
use crate::upstream::group::Attempts;
use crate::wire::question::QuestionRef;
use crate::wire::stored::StoredAnswer;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most attempts a flight may make: the most that `limits.attempts` allows.
pub(super) const MAX_ATTEMPTS: usize = 10;

/// One question in progress.
#[derive(Debug)]
pub(super) struct Flight {
    /// The configuration it began with.
    pub(super) snapshot: Arc<Snapshot>,
    /// Place of its group.
    pub(super) group: usize,
    /// The bits that tell it from flights for the same question.
    pub(super) variant: Variant,
    /// The question in wire form, in the letter case of the first who asked.
    pub(super) question: Box<[u8]>,
    /// Hash of question and variant: where it stands in the table of flights.
    pub(super) hash: u64,
    /// What is sent to servers.
    pub(super) query: Bytes,
    /// The network that the query names, if it names one. Then its answer is for that network, which the variant stands for.
    pub(super) subnet: Option<SubnetContent>,
    /// Who waits.
    pub(super) waiters: Vec<(Waiter, Permit)>,
    /// What is said when nothing better comes in time.
    pub(super) stale: Option<StoredAnswer>,
    /// Have the waiters had it? Then later ones get it at once.
    pub(super) stale_sent: bool,
    /// Which servers are next.
    pub(super) attempts: Attempts,
    /// Attempts made, in order.
    pub(super) sent: Vec<Sent>,
    /// Whether a second server is asked because the first is slow.
    pub(super) hedge: Hedge,
    /// When a server is asked again that had its turn.
    pub(super) again_at: Option<Instant>,
    /// Why attempts failed, by place of the server in its group.
    pub(super) causes: Vec<(usize, Cause)>,
    /// The first answer that is passed on when no better one comes (SERVFAIL, REFUSED, NOTIMP).
    pub(super) fallback: Option<(StoredAnswer, usize)>,
    /// When it began.
    pub(super) started: Instant,
    /// When it ends at the latest.
    pub(super) deadline: Instant,
    /// Nobody waited when it began: it counts against the refreshes.
    pub(super) is_refresh: bool,
    /// What is kept of it for its trace, if it leaves one.
    pub(super) facts: Option<Box<FlightFacts>>,
}

/// One attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// Place of the server in its group.
    pub(super) server: usize,
    /// When it was asked.
    pub(super) at: Instant,
    /// How long we wait before another one is asked.
    pub(super) patience: Duration,
    /// What has become of it.
    pub(super) state: SentState,
    /// Whether the certificate's dates were overlooked for it.
    pub(super) overlooking_dates: bool,
}

/// Whether a second server is asked although the first may still answer in its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hedge {
    /// No.
    Not,
    /// At this time.
    At(Instant),
    /// It was: by the attempt with this number.
    Made(usize),
}

/// What has become of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SentState {
    /// Within its time.
    Waiting,
    /// Within its time, which began anew: its connection fell silent, and it was asked again on a fresh one. Others may be asked.
    Doubted,
    /// Another server was asked meanwhile; a late answer is still welcome.
    Late,
    /// Its completion has come.
    Ended,
}

impl SentState {
    /// Returns true until its time is up.
    pub(super) fn has_time(self) -> bool {
        matches!(self, Self::Waiting | Self::Doubted)
    }
}

impl Flight {
    /// Returns the question.
    pub(super) fn question(&self) -> Option<QuestionRef<'_>> {
        QuestionRef::parse(&self.question)
    }

    /// Returns the key under which the answer is kept.
    pub(super) fn key(&self) -> Option<KeyRef<'_>> {
        Some(KeyRef { question: self.question()?, variant: self.variant })
    }

    /// Returns the group's entry.
    pub(super) fn entry(&self) -> Option<&GroupEntry> {
        self.snapshot.groups.get(self.group)
    }

    /// Returns a server of the group.
    pub(super) fn server(&self, place: usize) -> Option<&Arc<Upstream>> {
        self.snapshot.server(self.group, place)
    }

    /// Returns what an answer from this server is checked against.
    pub(super) fn asked(&self, place: usize) -> Option<Asked<'_>> {
        let trust_ad = self.server(place).is_some_and(|server| server.spec().trust_ad);
        let Variant { dnssec_ok, .. } = self.variant;
        Some(Asked { question: self.question()?, dnssec_ok, subnet: self.subnet.as_ref(), trust_ad })
    }

    /// Returns true while some attempt may still bring an answer.
    pub(super) fn is_waiting(&self) -> bool {
        self.sent.iter().any(|sent| sent.state != SentState::Ended)
    }

    /// Returns true while an attempt is within its time: no other one is due then.
    pub(super) fn is_patient(&self) -> bool {
        self.sent.iter().any(|sent| sent.state == SentState::Waiting)
    }

    /// Returns true while an attempt is within its time, or has been given more.
    pub(super) fn is_hopeful(&self) -> bool {
        self.sent.iter().any(|sent| sent.state.has_time())
    }

    /// Returns when the waiters get the stale answer, if there is one to give.
    pub(super) fn stale_at(&self) -> Option<Instant> {
        if self.stale.is_none() || self.stale_sent || self.waiters.is_empty() {
            return None;
        }
        Some(self.started + self.snapshot.stale_after?)
    }

    /// Returns when something happens to it if no completion comes.
    pub(super) fn next_at(&self) -> Instant {
        let times = [self.patience_ends_at(), self.stale_at(), self.hedge_at(), self.again_at];
        times.into_iter().flatten().fold(self.deadline, Instant::min)
    }

    /// Returns when the next attempt has had its time.
    pub(super) fn patience_ends_at(&self) -> Option<Instant> {
        let waiting = self.sent.iter().filter(|sent| sent.state.has_time());
        waiting.map(|sent| sent.at + sent.patience).min()
    }

    /// Returns when a second server is asked if the first has not answered.
    pub(super) fn hedge_at(&self) -> Option<Instant> {
        match self.hedge {
            Hedge::At(at) => Some(at),
            Hedge::Not | Hedge::Made(_) => None,
        }
    }
}
