//! Where a shard's entries lie: one array that grows in small steps, holes chained for reuse, places named by number.
//! It knows octets but no limits, and nothing of queues or tables.

use super::entry::Entry;
use std::ops::Range;

/// A slot's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotId(u32);

impl SlotId {
    /// No slot: the end of a chain.
    pub(super) const NONE: Self = Self(u32::MAX);

    /// Returns the place in the array.
    fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Room for an entry.
#[derive(Debug)]
enum Slot {
    /// A hole, and the next one.
    Free {
        /// The next hole.
        next: SlotId,
    },
    /// An entry.
    Used(Entry),
}

/// Octets of a slot.
pub(super) const SLOT_OCTETS: usize = size_of::<Slot>();

/// Entries by number.
#[derive(Debug)]
pub(super) struct Slots {
    /// All slots.
    slots: Vec<Slot>,
    /// The first hole.
    free: SlotId,
}

impl Slots {
    /// Makes room for exactly `capacity` entries.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { slots: Vec::with_capacity(capacity), free: SlotId::NONE }
    }

    /// Returns an entry.
    pub(super) fn get(&self, id: SlotId) -> Option<&Entry> {
        match self.slots.get(id.index())? {
            Slot::Used(entry) => Some(entry),
            Slot::Free { .. } => None,
        }
    }

    /// Returns an entry to be changed.
    pub(super) fn get_mut(&mut self, id: SlotId) -> Option<&mut Entry> {
        match self.slots.get_mut(id.index())? {
            Slot::Used(entry) => Some(entry),
            Slot::Free { .. } => None,
        }
    }

    /// Puts an entry into a hole or a new slot. None (and the entry dropped) when numbers run out.
    pub(super) fn insert(&mut self, entry: Entry) -> Option<SlotId> {
        let hole = self.free;
        if let Some(slot) = self.slots.get_mut(hole.index())
            && let Slot::Free { next } = *slot
        {
            self.free = next;
            *slot = Slot::Used(entry);
            return Some(hole);
        }
        let id = u32::try_from(self.slots.len()).ok().map(SlotId).filter(|id| *id != SlotId::NONE)?;
        if self.slots.len() == self.slots.capacity() {
            self.slots.reserve_exact(self.step());
        }
        self.slots.push(Slot::Used(entry));
        Some(id)
    }

    /// Takes an entry out and leaves a hole.
    pub(super) fn remove(&mut self, id: SlotId) -> Option<Entry> {
        let slot = self.slots.get_mut(id.index())?;
        if matches!(slot, Slot::Free { .. }) {
            return None;
        }
        let old = std::mem::replace(slot, Slot::Free { next: self.free });
        self.free = id;
        match old {
            Slot::Used(entry) => Some(entry),
            Slot::Free { .. } => None,
        }
    }

    /// Returns the entries in some of the slots, with their numbers.
    pub(super) fn range(&self, slots: Range<usize>) -> impl Iterator<Item = (SlotId, &Entry)> {
        let start = slots.start;
        let part = self.slots.get(start..slots.end.min(self.slots.len())).unwrap_or_default();
        part.iter().zip(start..).filter_map(|(slot, number)| match slot {
            Slot::Used(entry) => Some((SlotId(u32::try_from(number).ok()?), entry)),
            Slot::Free { .. } => None,
        })
    }

    /// Returns all entries with their numbers, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (SlotId, &mut Entry)> {
        (0..).map(SlotId).zip(&mut self.slots).filter_map(|(id, slot)| match slot {
            Slot::Used(entry) => Some((id, entry)),
            Slot::Free { .. } => None,
        })
    }

    /// Returns how many slots there are, holes included.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns the octets held.
    pub(super) fn octets(&self) -> usize {
        self.slots.capacity() * SLOT_OCTETS
    }

    /// Returns the octets that one more entry would add.
    pub(super) fn growth(&self) -> usize {
        let has_room = self.free != SlotId::NONE || self.slots.len() < self.slots.capacity();
        if has_room { 0 } else { self.step() * SLOT_OCTETS }
    }

    /// Returns by how many slots to grow: an eighth, for a doubling would leave up to half of them empty.
    fn step(&self) -> usize {
        (self.slots.len() / 8).max(4)
    }
}

/// Returns what an allocation of `octets` takes with the allocator's own bookkeeping (glibc: a word before it, all
/// rounded up to 16, at least 32).
pub(super) fn allocated(octets: usize) -> usize {
    (octets + 8).next_multiple_of(16).max(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_stays_small() {
        const { assert!(SLOT_OCTETS <= 48) }
    }

    #[test]
    fn an_allocation_is_counted_as_the_allocator_does() {
        for (octets, expected) in [(1, 32), (24, 32), (25, 48), (40, 48), (41, 64), (71, 80)] {
            assert_eq!(allocated(octets), expected, "{octets}");
        }
    }
}
