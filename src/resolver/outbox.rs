//! Replies on their way out, gathered by sink for one wake-up of the driver, so that a sink sends many at once.

use super::waiter::{ReplyBatch, ReplyNote, ReplySink, Waiter};
use std::sync::Arc;

/// The gathered replies.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// One batch a sink.
    batches: Vec<(Arc<dyn ReplySink>, ReplyBatch)>,
    /// Empty batches with memory, used again.
    spare: Vec<ReplyBatch>,
}

/// Replies in one batch before it is sent off: bounds the memory of one wake-up.
const MAX_BATCH: usize = 1024;
/// Batches kept for their memory.
const MAX_SPARE: usize = 16;

impl Outbox {
    /// Adds a reply of at most `limit` octets, which `write` writes.
    pub(super) fn push(
        &mut self,
        waiter: &Waiter,
        note: ReplyNote,
        limit: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) {
        let position = self.position_of(&waiter.sink);
        let Some((sink, batch)) = self.batches.get_mut(position) else { return };
        batch.push(waiter.client, note, limit, write);
        if batch.len() >= MAX_BATCH {
            sink.send(batch);
            batch.clear();
        }
    }

    /// Sends everything.
    pub(super) fn flush(&mut self) {
        for (sink, mut batch) in self.batches.drain(..) {
            if !batch.is_empty() {
                sink.send(&batch);
            }
            if self.spare.len() < MAX_SPARE {
                batch.clear();
                self.spare.push(batch);
            }
        }
    }

    /// Returns where the sink's batch stands; makes one when there is none. The latest sink is the likeliest.
    fn position_of(&mut self, sink: &Arc<dyn ReplySink>) -> usize {
        let same = |(known, _): &(Arc<dyn ReplySink>, ReplyBatch)| {
            std::ptr::addr_eq(Arc::as_ptr(known), Arc::as_ptr(sink))
        };
        self.batches.iter().rposition(same).unwrap_or_else(|| {
            let batch = self.spare.pop().unwrap_or_default();
            self.batches.push((Arc::clone(sink), batch));
            self.batches.len() - 1
        })
    }
}
