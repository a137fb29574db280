//! One queue for the time-outs of all flights: a timing wheel of 8 ms slots. Putting one in costs a push and taking it
//! back costs nothing: a flight that ended is simply not found when its slot comes round. What is in a slot is a chain
//! through one list of places, so the wheel is as large as what was ever due at once, not that in every slot.

use std::time::{Duration, Instant};

/// Width of a slot. Hedges come after 10 ms and more, time-outs after 250 ms; late by 8 ms is not noticed.
const SLOT_MILLIS: u64 = 8;
/// Slots in the wheel: 8.2 s. What is due later goes round again.
const SLOTS: usize = 1024;
/// The end of a chain.
const NONE: u32 = u32::MAX;

/// The wheel. `T` names what is due.
#[derive(Debug)]
pub(super) struct Deadlines<T> {
    /// Slot 0 begins here.
    start: Instant,
    /// Number of the next slot to expire, counted from `start`.
    next: u64,
    /// The first place of each slot's chain.
    slots: Box<[u32]>,
    /// What is due in any slot; holes are chained too.
    places: Vec<Place<T>>,
    /// The first hole.
    hole: u32,
    /// Places that are no holes.
    len: usize,
}

/// One of the things that are due.
#[derive(Clone, Copy, Debug)]
struct Place<T> {
    /// The exact time.
    at: Instant,
    /// What.
    item: T,
    /// The next place of the chain.
    next: u32,
}

impl<T: Copy> Deadlines<T> {
    /// Makes an empty wheel.
    pub(super) fn new(now: Instant) -> Self {
        let slots = vec![NONE; SLOTS].into_boxed_slice();
        Self { start: now, next: 0, slots, places: Vec::new(), hole: NONE, len: 0 }
    }

    /// Adds `item`, due at `at`.
    pub(super) fn push(&mut self, at: Instant, item: T) {
        let slot = self.slot_of(at).max(self.next);
        // A time beyond the wheel waits in the last slot and is pushed again from there.
        let slot = slot.min(self.next.saturating_add(SLOTS as u64 - 1));
        let Some(first) = self.slots.get(index_of(slot)).copied() else { return };
        let place = self.put(Place { at, item, next: first });
        if let Some(first) = self.slots.get_mut(index_of(slot)) {
            *first = place;
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
            let first = self.slots.get_mut(index_of(self.next));
            let first = first.map_or(NONE, |first| std::mem::replace(first, NONE));
            self.next += 1;
            self.settle(first, now, due);
        }
    }

    /// Hands out what is due of an expired slot's chain, and pushes the rest again.
    fn settle(&mut self, first: u32, now: Instant, due: &mut Vec<T>) {
        let mut number = first;
        while let Some(place) = self.take(number) {
            number = place.next;
            self.len -= 1;
            if place.at <= now {
                due.push(place.item);
            } else {
                self.push(place.at, place.item);
            }
        }
    }

    /// Returns when `expire` should next be called.
    pub(super) fn next_at(&self) -> Option<Instant> {
        if self.len == 0 {
            return None;
        }
        let ahead = (0..SLOTS as u64).find(|ahead| {
            let slot = self.next.saturating_add(*ahead);
            self.slots.get(index_of(slot)).is_some_and(|first| *first != NONE)
        })?;
        // A slot is due when it has wholly passed.
        let slots = self.next.saturating_add(ahead).saturating_add(1);
        Some(self.start + Duration::from_millis(slots.saturating_mul(SLOT_MILLIS)))
    }

    /// Fills a hole or a new place; returns its number.
    fn put(&mut self, place: Place<T>) -> u32 {
        let number = self.hole;
        if let Some(hole) = self.places.get_mut(to_index(number)) {
            self.hole = hole.next;
            *hole = place;
            return number;
        }
        self.places.push(place);
        // Flights are bounded by the permits and the refreshes, and each has few times: far below 2^32.
        u32::try_from(self.places.len() - 1).unwrap_or(NONE)
    }

    /// Takes what is in a place and leaves a hole; None at the end of a chain.
    fn take(&mut self, number: u32) -> Option<Place<T>> {
        let place = self.places.get_mut(to_index(number))?;
        let taken = *place;
        place.next = self.hole;
        self.hole = number;
        Some(taken)
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

/// Returns where a place stands in the list.
fn to_index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
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

    #[test]
    fn places_are_used_again_whichever_slot_they_were_in() {
        let start = crate::clock::now();
        let mut wheel = Deadlines::new(start);
        let mut due = Vec::new();
        for round in 0..1000 {
            let now = start + Duration::from_millis(round * SLOT_MILLIS);
            wheel.expire(now, &mut due);
            wheel.push(now + Duration::from_millis(1), round);
        }
        assert_eq!(due.len(), 999);
        assert!(wheel.places.len() <= 2, "{} places", wheel.places.len());
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
