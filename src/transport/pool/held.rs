//! The queue while it is locked.

use super::super::queue::Queue;
use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The lock on a queue; when it ends, those who do without it can see how many connections there are.
pub(super) struct Held<'a> {
    /// The lock.
    pub(super) queue: MutexGuard<'a, Queue>,
    /// How many connections there are.
    pub(super) open: &'a AtomicUsize,
}

impl Deref for Held<'_> {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        &self.queue
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Queue {
        &mut self.queue
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let open = self.queue.connections();
        // Nearly always it is the same, and then the line stays in every processor's cache.
        if self.open.load(Ordering::Relaxed) != open {
            self.open.store(open, Ordering::Relaxed);
        }
    }
}
