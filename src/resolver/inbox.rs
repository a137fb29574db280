//! What the flight driver has to do: queries from the workers, completions from the connections. One lock, held for a push
//! or a swap; the driver is woken once, when the inbox was empty. Bounded by the permits (queries), by what is in
//! flight (completions), and by a count of its own (refreshes).

use super::Pending;
use super::permits::Permit;
use super::snapshot::Snapshot;
use super::waiter::Waiter;
use crate::cache::key::Variant;
use crate::policy::client_subnet::SubnetContent;
use crate::transport::{CompletionSink, Received, TransportError};
use futures_util::task::AtomicWaker;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

/// Work for the driver.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Queries that wait, each with its place.
    pub(super) misses: Vec<(Pending, Waiter, Permit)>,
    /// Names to ask for again before anybody needs them.
    pub(super) refreshes: Vec<Refresh>,
    /// Exchanges that ended.
    pub(super) completions: Vec<Completion>,
    /// The numbers of exchanges whose connection has fallen silent.
    pub(super) doubts: Vec<u64>,
}

impl Work {
    /// Returns true when there is nothing to do.
    fn is_empty(&self) -> bool {
        let none_waits = self.misses.is_empty() && self.refreshes.is_empty();
        none_waits && self.completions.is_empty() && self.doubts.is_empty()
    }
}

/// A name to be asked for again.
#[derive(Debug)]
pub(super) struct Refresh {
    /// The configuration that wants it.
    pub(super) snapshot: Arc<Snapshot>,
    /// Place of its group.
    pub(super) group: usize,
    /// The bits of the answer that is to be replaced.
    pub(super) variant: Variant,
    /// The client's own ECS option, when the operator forwards those.
    pub(super) subnet: Option<SubnetContent>,
    /// Hash of question and variant.
    pub(super) hash: u64,
    /// The question in wire form.
    pub(super) question: Box<[u8]>,
}

/// An exchange that ended.
#[derive(Debug)]
pub(super) struct Completion {
    /// The ticket's number.
    pub(super) id: u64,
    /// How it ended.
    pub(super) outcome: Result<Received, TransportError>,
}

/// The inbox itself.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// What has come since the driver last looked.
    work: Mutex<Work>,
    /// The driver.
    waker: AtomicWaker,
}

/// Refreshes that may wait in the inbox; more are left out: each is only a courtesy, and the next look-up asks for it again.
pub(super) const MAX_REFRESHES: usize = 64;

impl Inbox {
    /// Adds what `add` puts in, and wakes the driver if it had nothing to do.
    fn put(&self, add: impl FnOnce(&mut Work)) {
        let wake = {
            let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
            let was_empty = work.is_empty();
            add(&mut work);
            was_empty && !work.is_empty()
        };
        if wake {
            self.waker.wake();
        }
    }

    /// Adds a batch of queries.
    pub(super) fn misses(&self, batch: Vec<(Pending, Waiter, Permit)>) {
        self.put(|work| work.misses.extend(batch));
    }

    /// Adds a name to be refreshed; false when there are too many already.
    pub(super) fn refresh(&self, refresh: Refresh) -> bool {
        let mut taken = false;
        self.put(|work| {
            taken = work.refreshes.len() < MAX_REFRESHES;
            if taken {
                work.refreshes.push(refresh);
            }
        });
        taken
    }

    /// Takes all work in exchange for empty lists whose memory is used again; false when there was none. The caller's
    /// waker is kept for what comes next.
    pub(super) fn take(&self, work: &mut Work, waker: &Waker) -> bool {
        self.waker.register(waker);
        let mut mine = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        if mine.is_empty() {
            return false;
        }
        std::mem::swap(&mut *mine, work);
        true
    }
}

impl CompletionSink for Inbox {
    fn completed(&self, id: u64, outcome: Result<Received, TransportError>) {
        self.put(|work| work.completions.push(Completion { id, outcome }));
    }

    fn doubted(&self, id: u64) {
        self.put(|work| work.doubts.push(id));
    }
}
