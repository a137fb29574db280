//! One queue for the time-outs of all flights: a timing wheel of 8 ms slots. Putting one in costs a push and taking it
//! back costs nothing: a flight that ended is simply not found when its slot comes round.

use std::time::{Duration, Instant};

/// Width of a slot. Hedges come after 10 ms and more, time-outs after 250 ms; late by 8 ms is not noticed.
const SLOT_MILLIS: u64 = 8;
/// Slots in the wheel: 8.2 s. What is due later goes round again.
const SLOTS: usize = 1024;

/// The wheel. `T` names what is due.
#[derive(Debug)]
pub(super) struct Deadlines<T> {
    /// Slot 0 begins here.
    start: Instant,
    /// Number of the next slot to expire, counted from `start`.
    next: u64,
    /// What is due in each slot, with the exact time.
    slots: Vec<Vec<(Instant, T)>>,
    /// Entries in all slots.
    len: usize,
}

impl<T: Copy> Deadlines<T> {
    /// Makes an empty wheel.
    pub(super) fn new(now: Instant) -> Self {
        Self { start: now, next: 0, slots: (0..SLOTS).map(|_| Vec::new()).collect(), len: 0 }
    }

    /// Adds `item`, due at `at`.
    pub(super) fn push(&mut self, at: Instant, item: T) {
        let slot = self.slot_of(at).max(self.next);
        // A time beyond the wheel waits in the last slot and is pushed again from there.
        let slot = slot.min(self.next.saturating_add(SLOTS as u64 - 1));
        if let Some(entries) = self.slot_mut(slot) {
            entries.push((at, item));
            self.len += 1;
        }
    }

    /// Moves everything due at `now` into `due`.
    pub(super) fn expire(&mut self, now: Instant, due: &mut Vec<T>) {
        let current = self.elapsed_slots(now);
        if self.len == 0 {
            self.next = self.next.max(current);
            return;
        }
        while self.next < current {
            let entries = self.slot_mut(self.next).map(std::mem::take).unwrap_or_default();
            let slot = self.next;
            self.next += 1;
            self.len -= entries.len();
            self.settle(slot, entries, now, due);
        }
    }

    /// Hands out what is due of an expired slot, and pushes the rest again.
    fn settle(&mut self, slot: u64, mut entries: Vec<(Instant, T)>, now: Instant, due: &mut Vec<T>) {
        for (at, item) in entries.drain(..) {
            if at <= now {
                due.push(item);
            } else {
                self.push(at, item);
            }
        }
        // The allocation goes back to its place, so that a steady load allocates nothing.
        if let Some(place) = self.slot_mut(slot)
            && place.capacity() == 0
        {
            *place = entries;
        }
    }

    /// Returns when `expire` should next be called.
    pub(super) fn next_at(&self) -> Option<Instant> {
        if self.len == 0 {
            return None;
        }
        let ahead = (0..SLOTS as u64).find(|ahead| {
            let slot = self.next.saturating_add(*ahead);
            self.slots.get(index_of(slot)).is_some_and(|entries| !entries.is_empty())
        })?;
        // A slot is due when it has wholly passed.
        let slots = self.next.saturating_add(ahead).saturating_add(1);
        Some(self.start + Duration::from_millis(slots.saturating_mul(SLOT_MILLIS)))
    }

    /// Returns the entries of a slot.
    fn slot_mut(&mut self, slot: u64) -> Option<&mut Vec<(Instant, T)>> {
        self.slots.get_mut(index_of(slot))
    }

    /// Returns the slot in which `at` lies.
    fn slot_of(&self, at: Instant) -> u64 {
        self.elapsed_slots(at)
    }

    /// Returns how many whole slots lie between the start and `at`.
    fn elapsed_slots(&self, at: Instant) -> u64 {
        let millis = u64::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX);
        millis / SLOT_MILLIS
    }
}

/// Returns where a slot stands in the wheel.
fn index_of(slot: u64) -> usize {
    usize::try_from(slot % SLOTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_wheel_asks_for_no_wake_up() {
        assert!(Deadlines::<u32>::new(crate::clock::now()).next_at().is_none());
    }

    #[test]
    fn a_time_beyond_the_wheel_comes_when_it_is_due_and_not_before() {
        let start = crate::clock::now();
        let mut wheel = Deadlines::new(start);
        wheel.push(start + Duration::from_secs(30), 7);
        let mut due = Vec::new();
        wheel.expire(start + Duration::from_secs(29), &mut due);
        assert!(due.is_empty());
        wheel.expire(start + Duration::from_millis(30_032), &mut due);
        assert_eq!(due, [7]);
        assert!(wheel.next_at().is_none());
    }

    proptest! {
        #[test]
        fn everything_comes_once_and_at_most_two_slots_late(delays in prop::collection::vec(0u64..20_000, 1..60), steps in prop::collection::vec(1u64..3_000, 1..40)) {
            let start = crate::clock::now();
            let mut wheel = Deadlines::new(start);
            for (index, delay) in delays.iter().enumerate() {
                wheel.push(start + Duration::from_millis(*delay), index);
            }
            let mut seen = vec![false; delays.len()];
            let mut now = 0;
            for step in steps.iter().chain([&25_000]) {
                now += step;
                let mut due = Vec::new();
                wheel.expire(start + Duration::from_millis(now), &mut due);
                for index in due {
                    prop_assert!(!seen[index]);
                    prop_assert!(delays[index] <= now);
                    seen[index] = true;
                }
                for (index, delay) in delays.iter().enumerate() {
                    prop_assert!(seen[index] || delay + 32 > now);
                }
            }
            prop_assert!(seen.iter().all(|seen| *seen));
        }
    }
}
