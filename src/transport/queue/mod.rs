//! What a pool decides: which job a connection gets, whom to wake for what waits, when to dial and when to pause. Pure: it
//! is called under the pool's lock with `now`, and never wakes, completes or waits by itself.
//!
//! A job waits in the queue until a connection with room takes it. When every connection is full, or none is open, it is
//! *stuck*, and the keeper is called: it dials if it may, and lets jobs time out.

pub(super) mod dials;
#[cfg(test)]
mod tests;

use super::idle::{Closer, Habit};
use super::phase::{Open, Phase};
use super::pool::Job;
use super::vigil::Pace;
use super::{Handshake, TransportError};
use crate::telemetry::bounds::Bound;
use dials::{Dials, Pause, Room};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::task::Waker;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How coarsely deadlines are kept: the flight that asked has an exact timer of its own and cares only for late answers.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_millis(250);
/// Pause after the first failed dial; it doubles with every further one.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest time from the beginning of a dial to the next: a network that is back is to be found within 2 s, the handshake
/// included.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(1500);

/// A connection that was given so many queries is worth another one in its place.
const POPULAR: usize = 4;

/// Whom to wake.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Nudge {
    /// A connection with room.
    pub(super) connection: Option<Waker>,
    /// The keeper: something waits that no connection can take.
    pub(super) keeper: bool,
}

/// Everything of a pool that changes.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Jobs for any connection.
    waiting: VecDeque<Job>,
    /// Jobs whose connection ended, for a fresh one; oldest first.
    again: VecDeque<Again>,
    /// Connections not yet over, oldest first.
    connections: Vec<Open>,
    /// Number of the latest connection.
    opened: u64,
    /// The dials under way.
    dials: Dials,
    /// A connection is wanted though no job waits.
    warm: bool,
    /// The keeper has a timer running and needs no waking for jobs that wait.
    watching: bool,
    /// No new jobs.
    draining: bool,
    /// The keeper has ended: nothing can be dialled any more.
    over: bool,
    /// Dials that failed, and connections that ended without an answer, since the last answer.
    failures: u32,
    /// No dial before its end.
    pause: Option<Pause>,
    /// What the last good dial showed.
    last_handshake: Option<Handshake>,
    /// TLS handshakes: (full, resumed).
    handshakes: (u64, u64),
    /// Cancelled when the network is another one; dials and connections of before end with it.
    era: CancellationToken,
    /// How long the server keeps quiet connections.
    habit: Habit,
    /// How long its answers take.
    pace: Pace,
    /// The connector has still to forget the network of before.
    afresh: bool,
    /// Where a connection fell silent since the last dial.
    silent: Option<IpAddr>,
}

/// A job that needs a connection with a number above `after`.
#[derive(Debug)]
struct Again {
    /// The job.
    job: Job,
    /// The latest connection when the job came back.
    after: u64,
}

/// What the keeper does next.
#[derive(Debug)]
pub(super) enum Step {
    /// Forget what was learnt of the network.
    StartAfresh,
    /// Dial.
    Dial,
    /// Jobs wait: look again then.
    Look(Instant),
    /// Nothing to do until woken.
    Wait,
    /// Drained, and every connection is over.
    End,
}

impl Queue {
    /// Returns the connection with this number.
    fn connection(&mut self, number: u64) -> Option<&mut Open> {
        self.connections.iter_mut().find(|connection| connection.number == number)
    }

    /// Returns why a new job cannot be taken, if so. The time is asked for only where it matters.
    pub(super) fn refusal(
        &self,
        queue_limit: usize,
        now: impl FnOnce() -> Instant,
    ) -> Option<TransportError> {
        if self.draining || self.over {
            return Some(TransportError::ShuttingDown);
        }
        if self.waiting.len() >= queue_limit {
            return Some(TransportError::Overloaded);
        }
        let pause = self.pause.as_ref()?;
        let hopeless = self.dials.under_way() == 0 && !self.connections.iter().any(Open::is_open);
        (hopeless && now() < pause.until).then(|| pause.error.clone())
    }

    /// True when a connection is open that will take a further job.
    pub(super) fn is_taking(&self) -> bool {
        self.connections.iter().any(Open::is_taking)
    }

    /// Queues a job that `refusal` had nothing against.
    pub(super) fn push(&mut self, job: Job) -> Nudge {
        self.waiting.push_back(job);
        self.nudge()
    }

    /// Queues a job whose connection ended, before all others but for a fresh connection; it comes back when it was queued
    /// so before, or when nothing is dialled any more.
    pub(super) fn push_again(&mut self, number: u64, mut job: Job) -> Result<Nudge, Job> {
        let abandoned = self.connection(number).is_some_and(|connection| {
            connection.gave_back = true;
            connection.abandoned
        });
        if (job.retried && !abandoned) || self.over {
            return Err(job);
        }
        job.retried |= !abandoned;
        self.again.push_back(Again { job, after: self.opened });
        Ok(self.nudge())
    }

    /// True when a job that this connection gives back would find a later one, or one may be opened for it.
    pub(super) fn has_other(&self, number: u64, connection_limit: usize) -> bool {
        let is_later = |connection: &Open| connection.number > number && connection.is_taking();
        let open = self.connections.iter().filter(|connection| connection.is_open()).count();
        open < connection_limit || self.connections.iter().any(is_later)
    }

    /// Notes the first answer on a connection: the server is well.
    pub(super) fn answered(&mut self, number: u64) {
        self.failures = 0;
        if let Some(connection) = self.connection(number) {
            connection.answered = true;
        }
    }

    /// Gives a connection no more jobs. The keeper is called even if it watches: now it may dial.
    pub(super) fn retire(&mut self, number: u64) -> Nudge {
        if let Some(connection) = self.connection(number) {
            connection.phase = Phase::Retired;
        }
        self.watching = false;
        self.nudge()
    }

    /// Gives a connection no more jobs until it is trusted again; `jobs` are to be asked again on a fresh one.
    pub(super) fn doubt(&mut self, number: u64, jobs: Vec<Job>, pace: Pace) -> Nudge {
        self.pace = pace;
        if let Some(connection) = self.connection(number).filter(|connection| connection.is_open()) {
            connection.phase = Phase::Doubted;
            self.silent = Some(connection.address);
        }
        let after = self.opened;
        // Once nothing is dialled any more they only wait for the silent one.
        let dialled = jobs.into_iter().filter(|_| !self.over);
        self.again.extend(dialled.map(|job| Again { job, after }));
        self.watching = false;
        self.nudge()
    }

    /// Returns where a connection fell silent since this was last asked.
    pub(super) fn take_silent(&mut self) -> Option<IpAddr> {
        self.silent.take()
    }

    /// Takes a doubted connection back, or retires it when others have its place. False for one that takes no more jobs.
    pub(super) fn trust(&mut self, number: u64, connection_limit: usize) -> bool {
        let open = self.connections.iter().filter(|connection| connection.is_open()).count();
        let has_place = open + self.dials.under_way() < connection_limit;
        let Some(connection) = self.connection(number) else { return false };
        if matches!(connection.phase, Phase::Doubted) {
            connection.phase = if has_place { Phase::Busy } else { Phase::Retired };
        }
        connection.is_open()
    }

    /// Returns how long answers take.
    pub(super) fn pace(&self) -> Pace {
        self.pace
    }

    /// Remembers how long answers take.
    pub(super) fn learnt(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// Wants a connection though no job waits, unless there is one or soon will be.
    pub(super) fn warm(&mut self) {
        let served = self.dials.under_way() > 0 || self.connections.iter().any(Open::is_open);
        self.warm = !served && !self.draining;
    }

    /// Takes no new job. Returns the wakers of the sleeping connections, so that idle ones close.
    pub(super) fn drain(&mut self) -> Vec<Waker> {
        self.draining = true;
        self.warm = false;
        self.connections.iter_mut().filter_map(Open::rouse).collect()
    }

    /// Returns how long a connection is kept without a query.
    pub(super) fn idle_limit(&self) -> Duration {
        self.habit.limit()
    }

    /// Learns from a quiet end. A connection that was of much use is replaced at once, so that the next query need not wait
    /// for a handshake; the one in its place is not, unless it is of use as well.
    pub(super) fn ended_quietly(&mut self, number: u64, closer: Closer, quiet: Duration) {
        self.habit.learn(closer, quiet);
        let popular = self.connection(number).is_some_and(|connection| connection.taken >= POPULAR);
        let alone = !self.connections.iter().any(|other| other.number != number && other.is_open());
        self.warm |= popular && alone && self.habit.is_known() && !self.draining;
    }

    /// Begins a new era: gives every connection up and forgets failures and their pause. Returns the token of the era that
    /// is over, to be cancelled.
    pub(super) fn reset(&mut self) -> CancellationToken {
        for connection in &mut self.connections {
            connection.abandoned = true;
            connection.phase = Phase::Retired;
        }
        self.afresh = true;
        self.dials.forget();
        self.watching = false;
        self.failures = 0;
        self.pause = None;
        self.silent = None;
        self.habit = Habit::default();
        self.pace = Pace::default();
        std::mem::take(&mut self.era)
    }

    /// Ends the queue: nothing is dialled any more. Returns what waits.
    pub(super) fn close(&mut self) -> Vec<Job> {
        self.over = true;
        self.take_again().chain(std::mem::take(&mut self.waiting)).collect()
    }

    /// Takes the jobs that wait for a fresh connection.
    fn take_again(&mut self) -> impl Iterator<Item = Job> + use<> {
        std::mem::take(&mut self.again).into_iter().map(|again| again.job)
    }

    /// Returns how many connections there are.
    pub(super) fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Returns how many jobs wait for any connection.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the bound for which a job waits: there may be no further connection, or no further dial beside slow ones.
    pub(super) fn lacks(&self, room: Room, now: Instant) -> Option<Bound> {
        if !self.is_stuck() {
            return None;
        }
        let open = self.connections.iter().filter(|connection| connection.is_open()).count();
        let (dials, are_slow) = (self.dials.under_way(), self.dials.are_slow(now));
        // Those that are being opened take their places: more dials would be of no use then.
        if open >= room.connections || (are_slow && open + dials >= room.connections) {
            return Some(Bound::MaxConnections);
        }
        (are_slow && dials >= room.dials).then_some(Bound::Dials)
    }

    /// Returns what the last good dial showed.
    pub(super) fn last_handshake(&self) -> Option<&Handshake> {
        self.last_handshake.as_ref()
    }

    /// Returns the counts of TLS handshakes: (full, resumed).
    pub(super) fn handshakes(&self) -> (u64, u64) {
        self.handshakes
    }

    /// Picks whom to wake for what waits: the oldest connection with room, so that the younger ones may fall idle; the
    /// keeper when no connection can take it.
    fn nudge(&mut self) -> Nudge {
        let idle = self.waiting.is_empty();
        let hungry = self.connections.iter_mut().find(|c| !idle && matches!(c.phase, Phase::Hungry(_)));
        let connection = hungry.and_then(Open::rouse);
        Nudge { connection, keeper: !self.watching && self.is_stuck() }
    }

    /// True when a job waits that no connection of now will take soon.
    fn is_stuck(&self) -> bool {
        let queue_stuck = !self.waiting.is_empty() && !self.connections.iter().any(Open::is_taking);
        let again_stuck = self
            .again
            .back()
            .is_some_and(|again| !self.connections.iter().any(|c| c.is_taking() && c.number > again.after));
        queue_stuck || again_stuck
    }

    /// Moves up to `room` jobs to a connection; returns those found past their deadline.
    pub(super) fn hand_out(
        &mut self,
        number: u64,
        room: usize,
        jobs: &mut Vec<Job>,
        now: Instant,
    ) -> Vec<Job> {
        let mut expired = Vec::new();
        let before = jobs.len();
        let mut room = if self.connection(number).is_some_and(|c| c.is_open()) { room } else { 0 };
        while room > 0 {
            let fresh = self.again.front().is_some_and(|again| again.after < number);
            let next =
                if fresh { self.again.pop_front().map(|again| again.job) } else { self.waiting.pop_front() };
            match next {
                Some(job) if job.deadline <= now => expired.push(job),
                Some(job) => {
                    jobs.push(job);
                    room -= 1;
                }
                None => break,
            }
        }
        if let Some(connection) = self.connection(number) {
            connection.taken += jobs.len().saturating_sub(before);
        }
        expired
    }

    /// True when the connection need not ask again; it counts as retired from then on.
    pub(super) fn is_over_for(&mut self, number: u64) -> bool {
        let drained = self.draining && self.waiting.is_empty() && self.again.is_empty();
        let Some(connection) = self.connection(number) else { return true };
        if drained {
            connection.phase = Phase::Retired;
        }
        matches!(connection.phase, Phase::Retired)
    }

    /// Keeps the waker of a connection that goes to sleep; when it is full, somebody else must see to what waits.
    pub(super) fn park(&mut self, number: u64, room: usize, waker: &Waker) -> Nudge {
        if let Some(connection) = self.connection(number).filter(|connection| connection.is_open()) {
            let waker = waker.clone();
            connection.phase = if room == 0 { Phase::Full(waker) } else { Phase::Hungry(waker) };
        }
        if room == 0 { self.nudge() } else { Nudge::default() }
    }

    /// Decides what the keeper does, and takes note of it; with the era that a dial belongs to.
    pub(super) fn next_step(&mut self, room: Room, now: Instant) -> (Step, CancellationToken) {
        (self.step(room, now), self.era.clone())
    }

    /// Does what `next_step` says.
    fn step(&mut self, room: Room, now: Instant) -> Step {
        if std::mem::take(&mut self.afresh) {
            return Step::StartAfresh;
        }
        self.watching = false;
        let idle = self.waiting.is_empty() && self.again.is_empty() && self.connections.is_empty();
        if self.draining && idle {
            return Step::End;
        }
        let stuck = self.is_stuck();
        let open = self.connections.iter().filter(|connection| connection.is_open()).count();
        let dials = self.dials.under_way();
        // Connections that finish their own end by the deadlines of their queries; until then they count for half.
        let has_place =
            open + dials < room.connections && self.connections.len() + dials < room.connections * 2;
        let may_dial = has_place && self.dials.may_begin(room.dials, now);
        let wanted = may_dial && (stuck || (self.warm && open + dials == 0));
        let paused_until = self.pause.as_ref().map(|pause| pause.until).filter(|until| *until > now);
        self.watching = stuck || wanted;
        match (wanted, paused_until) {
            (true, None) => {
                self.dials.begin(now);
                Step::Dial
            }
            (true, Some(until)) => Step::Look(until.min(now + SWEEP_INTERVAL)),
            (false, _) if stuck => Step::Look(now + SWEEP_INTERVAL),
            (false, _) => Step::Wait,
        }
    }

    /// Takes waiting jobs that are past their deadline.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<Job> {
        let mut expired = Vec::new();
        for _ in 0..self.waiting.len() {
            match self.waiting.pop_front() {
                Some(job) if job.deadline <= now => expired.push(job),
                Some(job) => self.waiting.push_back(job),
                None => break,
            }
        }
        for _ in 0..self.again.len() {
            match self.again.pop_front() {
                Some(again) if again.job.deadline <= now => expired.push(again.job),
                Some(again) => self.again.push_back(again),
                None => break,
            }
        }
        expired
    }

    /// Enters a new connection and returns its number.
    pub(super) fn connected(&mut self, handshake: Handshake) -> u64 {
        self.dials.end();
        self.warm = false;
        self.pause = None;
        match (handshake.tls_version, handshake.resumed) {
            (None, _) => {}
            (Some(_), false) => self.handshakes.0 += 1,
            (Some(_), true) => self.handshakes.1 += 1,
        }
        self.opened += 1;
        let number = self.opened;
        self.connections.push(Open::new(number, handshake.address.ip()));
        self.last_handshake = Some(handshake);
        number
    }

    /// Counts a failure and begins a pause; returns the jobs that cannot be served now.
    pub(super) fn failed(&mut self, error: &TransportError, now: Instant) -> Vec<Job> {
        let begun = self.dials.end();
        self.warm = false;
        self.failures = self.failures.saturating_add(1);
        // Another one may still bring what is waited for.
        if self.dials.under_way() > 0 {
            return Vec::new();
        }
        self.pause = Some(Pause::after(self.failures, begun.unwrap_or(now), now, error));
        let mut doomed: Vec<Job> = self.take_again().collect();
        if !self.connections.iter().any(Open::is_open) {
            doomed.extend(self.waiting.drain(..));
        }
        doomed
    }

    /// Forgets a connection that is over. One that gave its jobs back without a single answer counts as a failed dial, so
    /// that a server which accepts and closes at once is not dialled in a loop; the first time the jobs still get their retry.
    pub(super) fn ended(&mut self, number: u64, now: Instant) -> (Vec<Job>, Nudge) {
        let doomed = self.forget(number, now);
        self.watching = false;
        (doomed, self.nudge())
    }

    /// Does what `ended` says, but for waking.
    fn forget(&mut self, number: u64, now: Instant) -> Vec<Job> {
        let Some(index) = self.connections.iter().position(|c| c.number == number) else { return Vec::new() };
        let connection = self.connections.remove(index);
        if !connection.gave_back || connection.answered || connection.abandoned {
            return Vec::new();
        }
        if self.failures == 0 || self.dials.under_way() > 0 {
            self.failures = self.failures.saturating_add(1);
            return Vec::new();
        }
        self.failed(&TransportError::Closed, now)
    }
}
