//! The query-ID table of one stream connection: which query an answer belongs to. Pure: it is given messages and `now`
//! and never touches a socket or a task. It does not judge an answer beyond ID and question.

use super::pool::Job;
use crate::wire::header::{HEADER_LEN, HeaderRef};
use crate::wire::question::QuestionRef;
use crate::wire::response::ResponseFault;
use bytes::Bytes;
use std::time::Instant;

/// Unanswered IDs after which the connection takes no more queries: the peer is dead, or as good as.
pub(super) const MAX_RETIRED: usize = 16;

/// What the table needs to know of a query in flight.
pub(super) trait InFlight {
    /// The message as built (its ID does not count).
    fn query(&self) -> &Bytes;
    /// When to stop waiting.
    fn deadline(&self) -> Instant;
}

impl InFlight for Job {
    fn query(&self) -> &Bytes {
        &self.query
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }
}

/// The table. An ID is a slot's number in its low bits and a count of the slot's uses above, so an ID comes back as late
/// as possible and never while it is pending or retired. The first slot is the connection's own, for a question that asks for a
/// sign of life and nobody waits for.
#[derive(Debug)]
pub(super) struct Mux<T> {
    /// Grows to the most that were ever in use.
    slots: Vec<Slot<T>>,
    /// Indexes of free slots.
    free: Vec<usize>,
    /// Most queries in flight.
    limit: usize,
    /// Bits of an ID that number the slot.
    slot_bits: u32,
    /// Queries in flight.
    pending: usize,
    /// Slots that wait for a late answer.
    retired: usize,
}

/// A place in the table.
#[derive(Debug)]
struct Slot<T> {
    /// The ID it has now, or has next.
    id: u16,
    /// Who has it.
    tenant: Tenant<T>,
}

impl<T> Slot<T> {
    /// Takes the next ID.
    fn renew(&mut self, slot_bits: u32) {
        self.id = self.id.wrapping_add(1_u16.checked_shl(slot_bits).unwrap_or(0));
    }
}

/// Who has a slot.
#[derive(Debug)]
enum Tenant<T> {
    /// Nobody.
    Free,
    /// A query that waits for its answer.
    Pending(T),
    /// A query that timed out. Its ID stays taken: the late answer must not meet a new query.
    Retired(Bytes),
    /// The connection's own question.
    Own(Bytes),
}

/// What a message turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival<T> {
    /// The answer to this query.
    Answer(T),
    /// It has the ID of this query but cannot be its answer; the peer has lost count.
    Mismatch(T, ResponseFault),
    /// The answer to a query that timed out.
    Late,
    /// The answer to the connection's own question.
    Own,
    /// It belongs to no query; the peer has lost count.
    Stray,
}

impl<T: InFlight> Mux<T> {
    /// Makes a table for up to `limit` queries at a time (as far as 16 bits reach); `random` varies the first IDs.
    pub(super) fn new(limit: usize, random: u16) -> Self {
        let limit = limit.clamp(1, usize::from(u16::MAX) - MAX_RETIRED);
        let capacity = limit + MAX_RETIRED + 1;
        let slot_bits = usize::BITS - (capacity - 1).leading_zeros();
        let first = Slot { id: (random.checked_shl(slot_bits)).unwrap_or(0), tenant: Tenant::Free };
        Self { slots: vec![first], free: Vec::new(), limit, slot_bits, pending: 0, retired: 0 }
    }

    /// Returns how many more queries it takes now.
    pub(super) fn room(&self) -> usize {
        if self.is_exhausted() { 0 } else { self.limit - self.pending }
    }

    /// Returns the number of queries in flight.
    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    /// True when so many queries went unanswered that the connection should be replaced.
    pub(super) fn is_exhausted(&self) -> bool {
        self.retired >= MAX_RETIRED
    }

    /// Enters a query and returns its ID; the query comes back when there is no room.
    pub(super) fn insert(&mut self, query: T) -> Result<u16, T> {
        if self.room() == 0 {
            return Err(query);
        }
        let index = self.free.pop().unwrap_or_else(|| self.grow());
        let Some(slot) = self.slots.get_mut(index) else { return Err(query) };
        slot.tenant = Tenant::Pending(query);
        self.pending += 1;
        Ok(slot.id)
    }

    /// Enters the connection's own question and returns its ID; None while the last one has no answer.
    pub(super) fn insert_own(&mut self, query: &Bytes) -> Option<u16> {
        let own = self.slots.first_mut().filter(|own| matches!(own.tenant, Tenant::Free))?;
        own.tenant = Tenant::Own(query.clone());
        Some(own.id)
    }

    /// Adds a slot and returns its index. The caller has checked `room`, so the index fits the slot bits.
    fn grow(&mut self) -> usize {
        let index = self.slots.len();
        let first = self.slots.first().map_or(0, |slot| slot.id);
        let count_bits = u32::from(first) >> self.slot_bits << self.slot_bits;
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let id = u16::try_from(count_bits | number).unwrap_or(u16::MAX);
        self.slots.push(Slot { id, tenant: Tenant::Free });
        index
    }

    /// Finds whose answer a message is.
    pub(super) fn arrive(&mut self, message: &[u8]) -> Arrival<T> {
        let Some(header) = HeaderRef::parse(message) else { return Arrival::Stray };
        let id = header.id();
        let index = usize::from(id) & ((1 << self.slot_bits) - 1);
        let Some(slot) = self.slots.get_mut(index).filter(|slot| slot.id == id) else {
            return Arrival::Stray;
        };
        match std::mem::replace(&mut slot.tenant, Tenant::Free) {
            Tenant::Free => Arrival::Stray,
            Tenant::Own(query) => {
                if mismatch(&query, message).is_some() {
                    slot.tenant = Tenant::Own(query);
                    return Arrival::Stray;
                }
                slot.renew(self.slot_bits);
                Arrival::Own
            }
            Tenant::Retired(query) if mismatch(&query, message).is_some() => {
                slot.tenant = Tenant::Retired(query);
                Arrival::Stray
            }
            Tenant::Retired(_) => {
                self.retired -= 1;
                self.release(index);
                Arrival::Late
            }
            Tenant::Pending(query) => {
                self.pending -= 1;
                self.release(index);
                match mismatch(query.query(), message) {
                    None => Arrival::Answer(query),
                    Some(fault) => Arrival::Mismatch(query, fault),
                }
            }
        }
    }

    /// Gives a slot its next ID and frees it.
    fn release(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.renew(self.slot_bits);
            self.free.push(index);
        }
    }

    /// Takes out the queries whose deadline has come; their IDs stay retired.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<T> {
        let mut expired = Vec::new();
        for slot in &mut self.slots {
            match std::mem::replace(&mut slot.tenant, Tenant::Free) {
                Tenant::Pending(query) if query.deadline() <= now => {
                    slot.tenant = Tenant::Retired(query.query().clone());
                    expired.push(query);
                }
                other @ (Tenant::Pending(_) | Tenant::Free | Tenant::Retired(_) | Tenant::Own(_)) => {
                    slot.tenant = other;
                }
            }
        }
        self.pending -= expired.len();
        self.retired += expired.len();
        expired
    }

    /// Iterates over the queries in flight.
    pub(super) fn pending_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| match &mut slot.tenant {
            Tenant::Pending(query) => Some(query),
            Tenant::Free | Tenant::Retired(_) | Tenant::Own(_) => None,
        })
    }

    /// Gives up the queries in flight: the connection has ended.
    pub(super) fn into_pending(self) -> impl Iterator<Item = T> {
        self.slots.into_iter().filter_map(|slot| match slot.tenant {
            Tenant::Pending(query) => Some(query),
            Tenant::Free | Tenant::Retired(_) | Tenant::Own(_) => None,
        })
    }
}

/// Returns why a message with the right ID cannot be the answer to `query`, if so: a response with one question, the same
/// but for letter case (RFC 5452 §9.1).
pub(super) fn mismatch(query: &[u8], message: &[u8]) -> Option<ResponseFault> {
    let Some(header) = HeaderRef::parse(message) else { return Some(ResponseFault::Short) };
    if !header.is_response() {
        return Some(ResponseFault::NotResponse);
    }
    let [questions, ..] = header.counts();
    if questions != 1 {
        return Some(ResponseFault::QuestionCount);
    }
    let Some(answered) = question(message) else { return Some(ResponseFault::Name) };
    match question(query) {
        Some(asked) if asked.matches(&answered) => None,
        Some(_) | None => Some(ResponseFault::QuestionMismatch),
    }
}

/// Reads the first question of a message.
fn question(message: &[u8]) -> Option<QuestionRef<'_>> {
    QuestionRef::parse(message.get(HEADER_LEN..)?)
}

#[cfg(test)]
mod tests {
    use super::super::rehearsal::{answer_to, query, with_id};
    use super::*;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};
    use std::time::Duration;

    /// A query of the tests.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Asked {
        query: Bytes,
        deadline: Instant,
    }

    impl InFlight for Asked {
        fn query(&self) -> &Bytes {
            &self.query
        }

        fn deadline(&self) -> Instant {
            self.deadline
        }
    }

    fn start() -> Instant {
        crate::clock::now()
    }

    fn asked(name: &str, deadline: Instant) -> Asked {
        Asked { query: query(name), deadline }
    }

    #[test]
    fn an_answer_finds_its_query_whatever_its_letter_case() {
        let query = asked("Mixed.Example", start());
        let mut mux = Mux::new(4, 0x1234);
        let id = mux.insert(query.clone()).unwrap();
        let answer = with_id(&answer_to(&query.query.to_ascii_uppercase()), id);
        assert_eq!(mux.arrive(&answer), Arrival::Answer(query));
        assert_eq!(mux.arrive(&answer), Arrival::Stray);
        assert_eq!(mux.pending(), 0);
    }

    #[test]
    fn what_cannot_be_the_answer_is_told_apart() {
        let message = |change: fn(&mut Vec<u8>)| {
            let mut message = answer_to(&query("a.example")).to_vec();
            change(&mut message);
            message
        };
        let cases: [(Vec<u8>, ResponseFault); 6] = [
            (message(|m| m[2] &= 0x7f), ResponseFault::NotResponse),
            (message(|m| m[5] = 0), ResponseFault::QuestionCount),
            (message(|m| m[5] = 2), ResponseFault::QuestionCount),
            (message(|m| m.truncate(20)), ResponseFault::Name),
            (message(|m| m[13] = b'b'), ResponseFault::QuestionMismatch),
            (message(|m| m[24] = 28), ResponseFault::QuestionMismatch),
        ];
        for (message, fault) in cases {
            let query = asked("a.example", start());
            let mut mux = Mux::new(1, 0);
            let id = mux.insert(query.clone()).unwrap();
            assert_eq!(mux.arrive(&with_id(&message, id)), Arrival::Mismatch(query, fault));
        }
    }

    #[test]
    fn a_late_answer_frees_its_slot_and_only_the_right_one_does() {
        let now = start();
        let mut mux = Mux::new(1, 0);
        let query = asked("slow.example", now);
        let id = mux.insert(query.clone()).unwrap();
        assert_eq!(mux.expire(now), std::slice::from_ref(&query));
        let next = mux.insert(asked("next.example", now + Duration::from_secs(1))).unwrap();
        assert_ne!(id, next);
        let other = with_id(&answer_to(&super::super::rehearsal::query("other.example")), id);
        assert_eq!(mux.arrive(&other), Arrival::Stray);
        assert_eq!(mux.arrive(&with_id(&answer_to(&query.query), id)), Arrival::Late);
        assert_eq!(mux.arrive(&with_id(&answer_to(&query.query), id)), Arrival::Stray);
    }

    #[test]
    fn sixteen_unanswered_queries_exhaust_it() {
        let now = start();
        let mut mux = Mux::new(MAX_RETIRED + 4, 0);
        for _ in 0..MAX_RETIRED {
            assert!(!mux.is_exhausted());
            mux.insert(asked("dead.example", now)).unwrap();
            mux.expire(now);
        }
        assert!(mux.is_exhausted());
        assert_eq!(mux.room(), 0);
        assert!(mux.insert(asked("more.example", now)).is_err());
    }

    #[test]
    fn it_reaches_as_far_as_sixteen_bits() {
        let mut mux = Mux::new(usize::MAX, 0xffff);
        let mut ids = HashSet::new();
        while mux.room() > 0 {
            assert!(ids.insert(mux.insert(asked("a", start())).unwrap()));
        }
        assert_eq!(ids.len(), 65_535 - MAX_RETIRED);
    }

    /// What happens to a table.
    #[derive(Clone, Debug)]
    enum Event {
        Insert { lifetime_ms: u64 },
        Answer { which: usize },
        Late { which: usize },
        Garbage(Vec<u8>),
        Pass { ms: u64 },
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (0..500_u64).prop_map(|lifetime_ms| Event::Insert { lifetime_ms }),
            3 => any::<usize>().prop_map(|which| Event::Answer { which }),
            1 => any::<usize>().prop_map(|which| Event::Late { which }),
            1 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Event::Garbage),
            1 => (0..400_u64).prop_map(|ms| Event::Pass { ms }),
        ]
    }

    proptest! {
        /// No ID twice while it is pending or retired, every query out exactly once, the books right.
        #[test]
        fn the_table_agrees_with_a_simple_model(
            limit in 1..40_usize,
            random: u16,
            events in proptest::collection::vec(event(), 0..300),
        ) {
            let mut now = start();
            let mut mux = Mux::new(limit, random);
            let mut pending: HashMap<u16, Asked> = HashMap::new();
            let mut retired: HashMap<u16, Asked> = HashMap::new();
            for (number, event) in events.into_iter().enumerate() {
                match event {
                    Event::Insert { lifetime_ms } => {
                        let query = asked(&format!("n{number}.example"), now + Duration::from_millis(lifetime_ms));
                        match mux.insert(query.clone()) {
                            Ok(id) => {
                                prop_assert!(!retired.contains_key(&id));
                                prop_assert!(pending.insert(id, query).is_none());
                                prop_assert!(pending.len() <= limit);
                            }
                            Err(_) => prop_assert!(pending.len() == limit || retired.len() >= MAX_RETIRED),
                        }
                    }
                    Event::Answer { which } => {
                        if let Some(id) = pick(&pending, which) {
                            let query = pending.remove(&id).unwrap();
                            let arrival = mux.arrive(&with_id(&answer_to(&query.query), id));
                            prop_assert_eq!(arrival, Arrival::Answer(query));
                        }
                    }
                    Event::Late { which } => {
                        if let Some(id) = pick(&retired, which) {
                            let query = retired.remove(&id).unwrap();
                            prop_assert_eq!(mux.arrive(&with_id(&answer_to(&query.query), id)), Arrival::Late);
                        }
                    }
                    Event::Garbage(octets) => match mux.arrive(&octets) {
                        Arrival::Stray => {}
                        Arrival::Mismatch(query, _) => {
                            let id = u16::from_be_bytes([octets[0], octets[1]]);
                            prop_assert_eq!(pending.remove(&id), Some(query));
                        }
                        Arrival::Answer(_) | Arrival::Late | Arrival::Own => prop_assert!(false, "garbage was taken for an answer"),
                    },
                    Event::Pass { ms } => {
                        now += Duration::from_millis(ms);
                        let expired = mux.expire(now);
                        let due: Vec<u16> =
                            pending.iter().filter(|(_, q)| q.deadline <= now).map(|(id, _)| *id).collect();
                        prop_assert_eq!(expired.len(), due.len());
                        for id in due {
                            let query = pending.remove(&id).unwrap();
                            prop_assert!(expired.contains(&query));
                            retired.insert(id, query);
                        }
                    }
                }
                prop_assert_eq!(mux.pending(), pending.len());
            }
            prop_assert_eq!(mux.into_pending().count(), pending.len());
        }
    }

    /// Some ID of a model, the same for the same `which`.
    fn pick(model: &HashMap<u16, Asked>, which: usize) -> Option<u16> {
        let mut ids: Vec<u16> = model.keys().copied().collect();
        ids.sort_unstable();
        (!ids.is_empty()).then(|| ids[which % ids.len()])
    }
}
