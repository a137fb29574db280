//! Which entry goes when room is needed: S3-FIFO ("FIFO queues are all you need for cache eviction", Yang et al.,
//! SOSP 2023). New names go on probation; only those asked for again move to the protected queue, so a flood of
//! names that are asked once (random subdomains) passes through a tenth of the cache. A name that comes back soon
//! after it was thrown out is protected at once; for that the hashes of those thrown out are remembered.
//!
//! Against LRU: a look-up writes one octet and moves nothing. Knows no limits: `shard` says when.

use super::entry::Entry;
use super::slots::{SLOT_OCTETS, SlotId, Slots};

/// Which of the queues an entry is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The small queue that all new entries go through.
    Probation,
    /// The queue of those asked for again.
    Protected,
}

/// Uses on probation that earn protection. One was better than the paper's two in replays of Zipf traffic, with and
/// without a flood: a client's second try joins the first one's flight and is no use of the entry.
const USES_TO_STAY: u8 = 1;

/// Entries passed over for one that goes, at most: bounds the time a shard stays locked.
const MAX_PASSED_OVER: usize = 64;

/// The two queues.
#[derive(Debug)]
pub(super) struct Queues {
    /// New entries.
    probation: Queue,
    /// Proven ones.
    protected: Queue,
}

impl Queues {
    /// Makes empty ones.
    pub(super) fn new() -> Self {
        Self { probation: Queue::EMPTY, protected: Queue::EMPTY }
    }

    /// Adds an entry to the queue it names (`Entry::place`).
    pub(super) fn push(&mut self, slots: &mut Slots, id: SlotId) {
        if let Some(place) = slots.get(id).map(Entry::place) {
            self.queue(place).push(slots, id);
        }
    }

    /// Takes an entry out of its queue.
    pub(super) fn unlink(&mut self, slots: &mut Slots, id: SlotId) {
        if let Some(place) = slots.get(id).map(Entry::place) {
            self.queue(place).unlink(slots, id);
        }
    }

    /// Counts an entry anew whose answer took `before` octets.
    pub(super) fn recount(&mut self, slots: &Slots, id: SlotId, before: usize) {
        if let Some(entry) = slots.get(id) {
            let queue = self.queue(entry.place());
            queue.octets = (queue.octets + entry.octets()).saturating_sub(before);
        }
    }

    /// Returns octets of the answers in both queues.
    pub(super) fn answer_octets(&self) -> usize {
        self.probation.octets + self.protected.octets
    }

    /// Returns which entry should go, still in its queue; those that should not are moved. `is_dead` tells of what no
    /// second chance is worth.
    pub(super) fn victim(
        &mut self,
        slots: &mut Slots,
        limit: usize,
        is_dead: impl Fn(&Entry) -> bool,
    ) -> Option<SlotId> {
        for _ in 0..MAX_PASSED_OVER {
            let id = self.candidate(limit)?;
            let entry = slots.get_mut(id)?;
            let stays = match entry.place() {
                Place::Probation => entry.frequency >= USES_TO_STAY,
                Place::Protected => entry.frequency > 0,
            };
            if !stays || is_dead(entry) {
                return Some(id);
            }
            self.unlink(slots, id);
            let entry = slots.get_mut(id)?;
            entry.frequency = match entry.place() {
                Place::Probation => 0,
                Place::Protected => entry.frequency.saturating_sub(1),
            };
            entry.protect();
            self.push(slots, id);
        }
        self.candidate(limit)
    }

    /// Returns the oldest entry of the queue that has to give: probation when over a tenth of `limit`.
    fn candidate(&self, limit: usize) -> Option<SlotId> {
        let probation = self.probation.octets + self.probation.len * SLOT_OCTETS;
        let (first, second) = if probation > limit / 10 {
            (&self.probation, &self.protected)
        } else {
            (&self.protected, &self.probation)
        };
        [first.oldest, second.oldest].into_iter().find(|id| *id != SlotId::NONE)
    }

    /// Returns the queue of a place.
    fn queue(&mut self, place: Place) -> &mut Queue {
        match place {
            Place::Probation => &mut self.probation,
            Place::Protected => &mut self.protected,
        }
    }

    /// Returns all entries, those that would go first at the front: probation, then protected, each from its oldest.
    pub(super) fn in_order(&self, slots: &Slots) -> Vec<SlotId> {
        let mut order = Vec::with_capacity(self.probation.len + self.protected.len);
        for queue in [&self.probation, &self.protected] {
            let mut id = queue.oldest;
            while let Some(entry) = slots.get(id) {
                order.push(id);
                id = entry.newer;
            }
        }
        order
    }
}

/// A list of entries, linked through the entries themselves.
#[derive(Debug)]
struct Queue {
    /// The one that came last.
    newest: SlotId,
    /// The one that came first.
    oldest: SlotId,
    /// How many.
    len: usize,
    /// Octets of their answers.
    octets: usize,
}

impl Queue {
    /// None in it.
    const EMPTY: Self = Self { newest: SlotId::NONE, oldest: SlotId::NONE, len: 0, octets: 0 };

    /// Adds an entry as the newest.
    fn push(&mut self, slots: &mut Slots, id: SlotId) {
        let before = self.newest;
        let Some(entry) = slots.get_mut(id) else { return };
        entry.older = before;
        entry.newer = SlotId::NONE;
        self.octets += entry.octets();
        self.len += 1;
        self.newest = id;
        match slots.get_mut(before) {
            Some(entry) => entry.newer = id,
            None => self.oldest = id,
        }
    }

    /// Takes an entry out.
    fn unlink(&mut self, slots: &mut Slots, id: SlotId) {
        let Some(entry) = slots.get(id) else { return };
        let (older, newer) = (entry.older, entry.newer);
        self.octets = self.octets.saturating_sub(entry.octets());
        self.len = self.len.saturating_sub(1);
        match slots.get_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
        match slots.get_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
    }
}

/// Hashes of entries that were thrown out on probation: about as many as there are entries. A table without order in
/// which a newer hash overwrites an older one of the same place; wrong in rare cases, which costs a wrong guess and
/// nothing else. Four octets each, none before the cache is full.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    /// A hash or 0; the length is a power of two or 0.
    hashes: Vec<u32>,
}

impl Ghosts {
    /// Remembers one, in a table fit for `entries` entries.
    pub(super) fn remember(&mut self, hash: u32, entries: usize) {
        if self.hashes.len() * 2 <= entries {
            let len = entries.next_power_of_two();
            self.hashes = Vec::new();
            self.hashes.reserve_exact(len);
            self.hashes.resize(len, 0);
        }
        if let Some(place) = self.place(hash) {
            *place = hash;
        }
    }

    /// Returns whether `hash` was remembered, and forgets it.
    pub(super) fn recall(&mut self, hash: u32) -> bool {
        match self.place(hash) {
            Some(place) if *place == hash => {
                *place = 0;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Returns the octets held.
    pub(super) fn octets(&self) -> usize {
        self.hashes.capacity() * size_of::<u32>()
    }

    /// Returns where `hash` would be.
    fn place(&mut self, hash: u32) -> Option<&mut u32> {
        let mask = self.hashes.len().checked_sub(1)?;
        self.hashes.get_mut(usize::try_from(hash).ok()? & mask)
    }
}
