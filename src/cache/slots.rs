//! Where a shard's entries lie: small arrays, holes chained for reuse, places named by number. It grows by one array at a
//! time and never moves an entry: one large array would leave its former, smaller self behind as a hole in the heap.
//! It knows octets but no limits, and nothing of queues or tables.

use super::entry::Entry;
use smallvec::SmallVec;
use std::ops::Range;

/// A slot's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotId(u32);

impl SlotId {
    /// No slot: the end of a chain.
    pub(super) const NONE: Self = Self(u32::MAX);

    /// Returns which array, and the place in it.
    fn place(self) -> (usize, usize) {
        let index = usize::try_from(self.0).unwrap_or(usize::MAX);
        (index / CHUNK, index % CHUNK)
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

/// Slots of an array.
const CHUNK: usize = 32;

/// Octets of a slot.
pub(super) const SLOT_OCTETS: usize = size_of::<Slot>();

/// Octets of an array.
const CHUNK_OCTETS: usize = CHUNK * SLOT_OCTETS + 16;

/// Arrays that are listed in the shard itself: a look-up in a small cache is spared the way to a list elsewhere, which is one more
/// wait for memory.
const NEAR: usize = 4;

/// An array. What was never used is a hole that no chain leads to.
type Chunk = Box<[Slot; CHUNK]>;

/// Entries by number.
#[derive(Debug)]
pub(super) struct Slots {
    /// All arrays.
    chunks: SmallVec<[Chunk; NEAR]>,
    /// Slots that were ever used: all but the rest of the last array.
    len: usize,
    /// The first hole.
    free: SlotId,
}

impl Slots {
    /// Makes none, with the list of arrays as long as `entries` need.
    pub(super) fn with_capacity(entries: usize) -> Self {
        Self { chunks: SmallVec::with_capacity(entries.div_ceil(CHUNK)), len: 0, free: SlotId::NONE }
    }

    /// Returns a slot.
    fn slot(&self, id: SlotId) -> Option<&Slot> {
        let (chunk, place) = id.place();
        self.chunks.get(chunk)?.get(place)
    }

    /// Returns a slot to be changed.
    fn slot_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        let (chunk, place) = id.place();
        self.chunks.get_mut(chunk)?.get_mut(place)
    }

    /// Returns an entry.
    pub(super) fn get(&self, id: SlotId) -> Option<&Entry> {
        match self.slot(id)? {
            Slot::Used(entry) => Some(entry),
            Slot::Free { .. } => None,
        }
    }

    /// Returns an entry to be changed.
    pub(super) fn get_mut(&mut self, id: SlotId) -> Option<&mut Entry> {
        match self.slot_mut(id)? {
            Slot::Used(entry) => Some(entry),
            Slot::Free { .. } => None,
        }
    }

    /// Puts an entry into a hole or a new slot. None (and the entry dropped) when numbers run out.
    pub(super) fn insert(&mut self, entry: Entry) -> Option<SlotId> {
        let hole = self.free;
        if let Some(slot) = self.slot_mut(hole)
            && let Slot::Free { next } = *slot
        {
            *slot = Slot::Used(entry);
            self.free = next;
            return Some(hole);
        }
        let id = u32::try_from(self.len).ok().map(SlotId).filter(|id| *id != SlotId::NONE)?;
        if self.is_full() {
            self.chunks.push(Box::new([const { Slot::Free { next: SlotId::NONE } }; CHUNK]));
        }
        *self.slot_mut(id)? = Slot::Used(entry);
        self.len += 1;
        Some(id)
    }

    /// Takes an entry out and leaves a hole.
    pub(super) fn remove(&mut self, id: SlotId) -> Option<Entry> {
        let next = self.free;
        let slot = self.slot_mut(id)?;
        if matches!(slot, Slot::Free { .. }) {
            return None;
        }
        let old = std::mem::replace(slot, Slot::Free { next });
        self.free = id;
        match old {
            Slot::Used(entry) => Some(entry),
            Slot::Free { .. } => None,
        }
    }

    /// Returns the entries in some of the slots, with their numbers.
    pub(super) fn range(&self, slots: Range<usize>) -> impl Iterator<Item = (SlotId, &Entry)> {
        (slots.start..slots.end.min(self.len)).filter_map(|number| {
            let id = SlotId(u32::try_from(number).ok()?);
            Some((id, self.get(id)?))
        })
    }

    /// Returns all entries with their numbers, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (SlotId, &mut Entry)> {
        (0..).map(SlotId).zip(self.chunks.iter_mut().flat_map(|chunk| chunk.iter_mut())).filter_map(
            |(id, slot)| match slot {
                Slot::Used(entry) => Some((id, entry)),
                Slot::Free { .. } => None,
            },
        )
    }

    /// Returns how many slots there are, holes included.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// True when one more slot needs another array.
    fn is_full(&self) -> bool {
        self.len == self.chunks.len() * CHUNK
    }

    /// Returns the octets held.
    pub(super) fn octets(&self) -> usize {
        self.list_octets() + self.chunks.len() * CHUNK_OCTETS
    }

    /// Returns the octets of the list of arrays, as far as it is not in the shard itself.
    fn list_octets(&self) -> usize {
        if self.chunks.spilled() { self.chunks.capacity() * size_of::<Chunk>() } else { 0 }
    }

    /// Returns the octets that one more entry would add.
    pub(super) fn growth(&self) -> usize {
        if self.free != SlotId::NONE || !self.is_full() {
            return 0;
        }
        let arrays = self.chunks.len() + 1;
        let list = match arrays > self.chunks.capacity() {
            // It grows to a power of two, and nothing of a list in the shard itself is counted.
            true => arrays.next_power_of_two() * size_of::<Chunk>() - self.list_octets(),
            false => 0,
        };
        list + CHUNK_OCTETS
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

    #[test]
    fn what_the_next_entry_adds_is_known_before() {
        use super::super::key::{KeyRef, PartitionId, Variant};
        use super::super::lifetime::Ticks;
        use crate::wire::header::Rcode;
        use crate::wire::name::NameRef;
        use crate::wire::question::{Class, QuestionRef, RecordType};
        use crate::wire::stored::StoredAnswer;
        let question = QuestionRef { name: NameRef::ROOT, rtype: RecordType::A, class: Class::IN };
        let variant = Variant { dnssec_ok: false, checking_disabled: false, partition: PartitionId(0) };
        let key = KeyRef { question, variant };
        let hashed = key.hashed(&hashbrown::DefaultHashBuilder::default());
        let now = Ticks::since(crate::clock::now(), crate::clock::now());
        let entry = || Entry::failure(&hashed, StoredAnswer::failure(&question, Rcode::SERVFAIL, None), now);
        // The list in the shard, one of just the length that was asked for, and what they grow to.
        for room in [0, NEAR * CHUNK, 35 * CHUNK] {
            let mut slots = Slots::with_capacity(room);
            for number in 0..100 * CHUNK {
                let (before, growth) = (slots.octets(), slots.growth());
                let id = slots.insert(entry()).unwrap();
                assert_eq!(slots.octets() - before, growth, "entry {number} with room for {room}");
                assert_eq!(usize::try_from(id.0), Ok(number));
            }
            assert_eq!(slots.len(), 100 * CHUNK);
            // A hole takes the next one and adds nothing.
            assert!(slots.remove(SlotId(7)).is_some());
            assert_eq!(slots.growth(), 0);
            assert_eq!(slots.insert(entry()), Some(SlotId(7)));
        }
        // Of an array that is not full, the rest is neither there nor to be had.
        let mut slots = Slots::with_capacity(0);
        assert_eq!(slots.insert(entry()), Some(SlotId(0)));
        assert!(slots.get(SlotId(1)).is_none() && slots.remove(SlotId(1)).is_none());
        assert_eq!(slots.range(0..CHUNK).count(), 1);
        assert_eq!(slots.insert(entry()), Some(SlotId(1)));
    }
}
