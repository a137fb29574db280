//! A connection as its pool sees it: what it is doing, and whether it can be given a job. Pure: who gets which job is
//! `queue`'s business.

use std::net::IpAddr;
use std::task::Waker;

/// A connection as the pool sees it.
#[derive(Debug)]
pub(super) struct Open {
    /// Higher for later ones.
    pub(super) number: u64,
    /// Where it goes.
    pub(super) address: IpAddr,
    /// What it is doing.
    pub(super) phase: Phase,
    /// It gave a job back.
    pub(super) gave_back: bool,
    /// It answered a query.
    pub(super) answered: bool,
    /// Jobs it was given.
    pub(super) taken: usize,
    /// It ends because the network is gone, which is not the server's fault.
    pub(super) abandoned: bool,
}

/// What a connection is doing.
#[derive(Debug)]
pub(super) enum Phase {
    /// Awake: it will ask for jobs before it sleeps again.
    Busy,
    /// Asleep, with room.
    Hungry(Waker),
    /// Asleep, without room; something else wakes it when it has room again. The waker is for draining.
    Full(Waker),
    /// Silent while queries wait: takes no jobs unless it shows that it is there.
    Doubted,
    /// Takes no more jobs.
    Retired,
}

impl Open {
    /// Enters a new connection, which will ask for jobs.
    pub(super) fn new(number: u64, address: IpAddr) -> Self {
        let phase = Phase::Busy;
        Self { number, address, phase, gave_back: false, answered: false, taken: 0, abandoned: false }
    }

    /// True when it will take, or can be woken to take, a further job.
    pub(super) fn is_taking(&self) -> bool {
        matches!(self.phase, Phase::Busy | Phase::Hungry(_))
    }

    /// True unless it takes no jobs.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Doubted | Phase::Retired)
    }

    /// Takes the waker of a sleeping connection, which counts as awake from then on.
    pub(super) fn rouse(&mut self) -> Option<Waker> {
        match std::mem::replace(&mut self.phase, Phase::Busy) {
            Phase::Hungry(waker) | Phase::Full(waker) => Some(waker),
            Phase::Busy => None,
            closed @ (Phase::Doubted | Phase::Retired) => {
                self.phase = closed;
                None
            }
        }
    }
}
