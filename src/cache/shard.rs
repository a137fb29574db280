//! One part of the cache, with a lock of its own around it (`mod.rs`): a table from hash to slot, the slots, the
//! queues of `eviction`, and the bound in octets over all of it. How long an answer lives is decided before.

use super::Lookup;
use super::entry::{Entry, Phase, Serving};
use super::eviction::{Ghosts, Place, Queues};
use super::key::{HashedKey, Origin};
use super::lifetime::Ticks;
use super::slots::{SLOT_OCTETS, SlotId, Slots, allocated};
use crate::wire::stored::StoredAnswer;
use hashbrown::HashTable;
use std::ops::Range;

/// The part of a shard that one answer may take at most: a few giants must not push all else out.
const LARGEST_SHARE: usize = 4;

/// What the table takes for one entry at worst: a number and a control octet for each bucket, right after it doubled
/// (7/16 full).
const TABLE_OCTETS_PER_ENTRY: usize = 12;

/// How much a shard may hold, and how it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Octets of everything.
    pub(super) octets: usize,
    /// What look-ups go by.
    pub(super) serving: Serving,
}

/// An answer on its way in.
#[derive(Debug)]
pub(super) struct Newcomer {
    /// TTLs clamped already.
    pub(super) answer: StoredAnswer,
    /// How long it is fresh; 0 for the reply to a failure.
    pub(super) lifetime_secs: u32,
    /// Whose answer it is.
    pub(super) origin: Origin,
}

/// A part of the cache. What a look-up reads comes first, so that it lies on the two lines that begin with the lock.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Shard {
    /// From hash to slot.
    table: HashTable<SlotId>,
    /// Bounds.
    limits: Limits,
    /// The entries.
    slots: Slots,
    /// Their order of going.
    queues: Queues,
    /// Those that went not long ago.
    ghosts: Ghosts,
}

impl Shard {
    /// Makes an empty one, which allocates nothing.
    pub(super) fn new(limits: Limits) -> Self {
        Self::with_capacity(limits, 0)
    }

    /// Makes one with room for exactly `entries`.
    fn with_capacity(limits: Limits, entries: usize) -> Self {
        Self {
            limits,
            table: HashTable::with_capacity(entries),
            slots: Slots::with_capacity(entries),
            queues: Queues::new(),
            ghosts: Ghosts::default(),
        }
    }

    /// Looks an answer up. Allocates nothing.
    pub(super) fn lookup(&mut self, key: &HashedKey<'_, '_>, now: Ticks) -> Lookup {
        let serving = self.limits.serving;
        match self.find(key).and_then(|id| self.slots.get_mut(id)) {
            Some(entry) => entry.look(&serving, now),
            None => Lookup::Miss,
        }
    }

    /// Stores an answer in place of what was known.
    pub(super) fn store(&mut self, key: &HashedKey<'_, '_>, newcomer: Newcomer, now: Ticks) {
        if self.is_too_large(&newcomer.answer) {
            self.remove_key(key);
            return;
        }
        self.change_or_insert(key, now, |known| match known {
            Some(entry) => {
                entry.renew(newcomer, now);
                None
            }
            None => Some(Entry::answer(key, newcomer, now)),
        });
    }

    /// Stores that no answer could be had. An answer of any use stays. True when it would be remembered longer but for the bound.
    pub(super) fn store_failure(&mut self, key: &HashedKey<'_, '_>, reply: StoredAnswer, now: Ticks) -> bool {
        if self.is_too_large(&reply) {
            return false;
        }
        let serving = self.limits.serving;
        let mut is_bounded = false;
        self.change_or_insert(key, now, |known| match known {
            Some(entry) => {
                is_bounded = entry.fail(reply, &serving, now);
                None
            }
            None => Some(Entry::failure(key, reply, now)),
        });
        is_bounded
    }

    /// Notes that a refresh ahead of what is known under a key was begun.
    pub(super) fn refresh_begins(&mut self, key: &HashedKey<'_, '_>) {
        if let Some(entry) = self.find(key).and_then(|id| self.slots.get_mut(id)) {
            entry.refresh_begins();
        }
    }

    /// Notes that it was left out after all.
    pub(super) fn refresh_is_over(&mut self, key: &HashedKey<'_, '_>) {
        if let Some(entry) = self.find(key).and_then(|id| self.slots.get_mut(id)) {
            entry.refresh_is_over();
        }
    }

    /// Removes what is known under a key.
    pub(super) fn remove_key(&mut self, key: &HashedKey<'_, '_>) {
        if let Some(id) = self.find(key) {
            self.remove(id);
        }
    }

    /// Forgets all failures.
    pub(super) fn forget_failures(&mut self) {
        let mut gone = Vec::new();
        for (id, entry) in self.slots.iter_mut() {
            if !entry.forgive() {
                gone.push(id);
            }
        }
        for id in gone {
            self.remove(id);
        }
    }

    /// Returns the entries in these slots, with their numbers.
    pub(super) fn entries(&self, slots: Range<usize>) -> impl Iterator<Item = (SlotId, &Entry)> {
        self.slots.range(slots)
    }

    /// Returns how many slots there are, empty ones included.
    pub(super) fn slots_len(&self) -> usize {
        self.slots.len()
    }

    /// Returns what look-ups go by.
    pub(super) fn serving(&self) -> Serving {
        self.limits.serving
    }

    /// Takes everything out and gives the memory back with it.
    pub(super) fn take(&mut self) -> Self {
        let empty = Self::new(self.limits);
        std::mem::replace(self, empty)
    }

    /// Sets new limits and shrinks to them at once.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        if self.octets() <= limits.octets {
            return;
        }
        // Who stays is decided before the rebuild, for tables and slots shrink only with it.
        let per_entry = SLOT_OCTETS + TABLE_OCTETS_PER_ENTRY;
        let room = limits.octets.saturating_sub(size_of::<Self>() + SMALLEST_TABLE);
        while self.queues.answer_octets() + self.table.len() * per_entry > room {
            if !self.evict(|_| false) {
                break;
            }
        }
        self.rebuild();
    }

    /// Returns how many entries there are.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Returns the octets held: answers, slots, table, queues and bookkeeping.
    pub(super) fn octets(&self) -> usize {
        size_of::<Self>()
            + self.queues.answer_octets()
            + self.slots.octets()
            + self.table.allocation_size()
            + self.ghosts.octets()
    }

    /// True for an answer that is not worth the room.
    fn is_too_large(&self, answer: &StoredAnswer) -> bool {
        allocated(answer.heap_len()) + SLOT_OCTETS > self.limits.octets / LARGEST_SHARE
    }

    /// Finds the slot of a key.
    fn find(&self, key: &HashedKey<'_, '_>) -> Option<SlotId> {
        let is_it = |id: &SlotId| self.slots.get(*id).is_some_and(|entry| entry.is(key));
        self.table.find(spread(key.hash), is_it).copied()
    }

    /// Hands the key's entry to `change`, or puts in the one that `change` makes; then holds the bound.
    fn change_or_insert(
        &mut self,
        key: &HashedKey<'_, '_>,
        now: Ticks,
        change: impl FnOnce(Option<&mut Entry>) -> Option<Entry>,
    ) {
        let serving = self.limits.serving;
        let is_dead =
            |entry: &Entry| entry.phase(&serving, now) == Phase::Dead && !entry.is_failing(&serving, now);
        let known = self.find(key);
        let before = known.and_then(|id| self.slots.get(id)).map_or(0, Entry::octets);
        let made = change(known.and_then(|id| self.slots.get_mut(id)));
        if let Some(id) = known {
            self.queues.recount(&self.slots, id, before);
        }
        if let Some(entry) = made {
            self.insert(entry, is_dead);
        }
        while self.octets() > self.limits.octets && self.evict(is_dead) {}
    }

    /// Puts a new entry in, having made room for it.
    fn insert(&mut self, mut entry: Entry, is_dead: impl Fn(&Entry) -> bool + Copy) {
        while self.octets() + self.slots.growth() + entry.octets() > self.limits.octets {
            if !self.evict(is_dead) {
                return;
            }
        }
        let hash = entry.hash();
        if self.ghosts.recall(hash) {
            entry.protect();
        }
        let Some(id) = self.slots.insert(entry) else { return };
        let slots = &self.slots;
        self.table
            .insert_unique(spread(hash), id, |id| slots.get(*id).map_or(0, |entry| spread(entry.hash())));
        self.queues.push(&mut self.slots, id);
    }

    /// Throws one entry out. False when there is none.
    fn evict(&mut self, is_dead: impl Fn(&Entry) -> bool) -> bool {
        let Some(id) = self.queues.victim(&mut self.slots, self.limits.octets, is_dead) else {
            return false;
        };
        let Some(entry) = self.remove(id) else { return false };
        if entry.place() == Place::Probation {
            self.ghosts.remember(entry.hash(), self.slots.len());
        }
        true
    }

    /// Takes an entry out of table, queue and slot.
    pub(super) fn remove(&mut self, id: SlotId) -> Option<Entry> {
        let hash = self.slots.get(id)?.hash();
        if let Ok(occupied) = self.table.find_entry(spread(hash), |other| *other == id) {
            occupied.remove();
        }
        self.queues.unlink(&mut self.slots, id);
        self.slots.remove(id)
    }

    /// Moves all entries into tables of just their size, in the same order.
    fn rebuild(&mut self) {
        let mut old = self.take();
        *self = Self::with_capacity(self.limits, old.len());
        for id in old.queues.in_order(&old.slots) {
            if let Some(entry) = old.slots.remove(id) {
                self.insert(entry, |_| false);
            }
        }
    }
}

/// Octets of the smallest table there is, with its control octets.
const SMALLEST_TABLE: usize = 64;

/// Makes the table's 64 bits of 32: it takes the place from the low ones and its tag from the top ones.
fn spread(hash: u32) -> u64 {
    u64::from(hash) | u64::from(hash) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;
    use std::sync::Mutex;

    #[test]
    fn what_a_look_up_reads_is_on_the_two_lines_that_begin_with_the_lock() {
        const LINE: usize = 64;
        let settings = crate::config::from_text("", std::path::Path::new("/")).unwrap();
        let shard = Mutex::new(Shard::new(crate::cache::shard_limits(&settings.cache)));
        let before = std::ptr::from_ref(&*shard.lock().unwrap()).addr() - std::ptr::from_ref(&shard).addr();
        assert!(before + offset_of!(Shard, slots) <= LINE);
        assert!(before + offset_of!(Shard, queues) <= 2 * LINE);
    }
}
