//! What was seen of a server.

use super::Failure;
use super::Sample;
use super::health::{Health, Transition};
use super::latency::Latency;
use super::recent::Recent;
use crate::config::settings::timeouts::AttemptTime;
use crate::telemetry::throttle::Throttle;
use std::time::Instant;

/// What changes with each sample.
#[derive(Debug)]
pub(super) struct Condition {
    /// Up or down, and when to look again.
    pub(super) health: Health,
    /// How long its answers take.
    pub(super) latency: Latency,
    /// Within what bounds it is given time to answer.
    pub(super) attempt_time: AttemptTime,
    /// How long the latest ones took, for the operator to read.
    pub(super) recent: Recent,
    /// The latest failure and when it was, kept after a recovery for the operator to read.
    pub(super) last_error: Option<(Failure, Instant)>,
    /// When it last answered anything.
    pub(super) last_answered: Option<Instant>,
    /// Bounds the lines about its going down and coming up: whoever makes it fail by turns must not fill the log.
    pub(super) throttle: Throttle,
}

impl Condition {
    /// Makes that of a server of which nothing was seen.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            health: Health::new(now),
            latency: Latency::default(),
            attempt_time: AttemptTime::default(),
            recent: Recent::default(),
            last_error: None,
            last_answered: None,
            throttle: Throttle::default(),
        }
    }

    /// Enters a sample and returns what it changed.
    pub(super) fn learn(
        &mut self,
        sample: &Sample,
        now: Instant,
        judge: impl FnOnce(&mut Health) -> Option<Transition>,
    ) -> Option<Transition> {
        self.latency.observe(sample, self.attempt_time, now);
        if let Sample::Answered { latency } = sample {
            self.last_answered = Some(now);
            self.recent.enter(*latency);
        }
        if let Some(error) = sample.error() {
            self.last_error = Some((error, now));
        }
        judge(&mut self.health)
    }
}
