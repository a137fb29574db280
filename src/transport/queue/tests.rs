//! Which connection takes a query, and who waits.

use super::super::Ticket;
use super::super::rehearsal::{Log, query};
use super::*;
use proptest::prelude::*;
use std::net::SocketAddr;
use std::sync::Arc;

const LIMIT: usize = 2;
const ROOM: Room = Room { connections: LIMIT, dials: 1 };

fn job(log: &Arc<Log>, id: u64, deadline: Instant) -> Job {
    Job {
        query: query("a"),
        deadline,
        ticket: Ticket::new(Arc::clone(log) as _, id),
        retried: false,
        sent_at: None,
    }
}

fn handshake(resumed: bool) -> Handshake {
    Handshake {
        address: SocketAddr::from(([192, 0, 2, 1], 853)),
        tls_version: Some("1.3"),
        resumed,
        connect_time: Duration::ZERO,
        handshake_time: Duration::ZERO,
        certificate_not_after: None,
    }
}

#[test]
fn pauses_double_up_to_the_longest_and_vary() {
    let now = crate::clock::now();
    let mut queue = Queue::default();
    for factor in [1, 2, 4, 8, 15, 15] {
        queue.failed(&TransportError::Closed, now);
        let pause = queue.pause.as_ref().unwrap().until - now;
        let longest = FIRST_PAUSE * factor;
        assert!(pause <= longest && pause >= longest.mul_f64(0.75), "{pause:?} of {longest:?}");
    }
}

#[test]
fn the_time_that_a_dial_took_is_part_of_its_pause() {
    let begun = crate::clock::now();
    let mut queue = Queue::default();
    for _ in 0..6 {
        queue.failed(&TransportError::Closed, begun);
    }
    queue.pause = None;
    queue.warm = true;
    assert!(matches!(queue.next_step(ROOM, begun).0, Step::Dial));
    let timed_out = begun + Duration::from_secs(2);
    queue.failed(&TransportError::Timeout, timed_out);
    let until = queue.pause.as_ref().unwrap().until;
    assert!(until > timed_out && until <= timed_out + FIRST_PAUSE, "{:?}", until - timed_out);
}

#[test]
fn a_retired_connection_lets_the_keeper_dial_at_once() {
    let now = crate::clock::now();
    let log = Log::new();
    let mut queue = Queue::default();
    for _ in 0..LIMIT {
        let number = queue.connected(handshake(false));
        assert!(!queue.park(number, 0, Waker::noop()).keeper);
    }
    assert!(queue.push(job(&log, 0, now + SWEEP_INTERVAL)).keeper);
    assert!(matches!(queue.next_step(ROOM, now).0, Step::Look(_)));
    assert!(!queue.push(job(&log, 1, now + SWEEP_INTERVAL)).keeper);
    assert!(queue.retire(1).keeper);
    assert!(matches!(queue.next_step(ROOM, now).0, Step::Dial));
}

/// What happens to a queue; the number picks a connection.
#[derive(Clone, Debug)]
enum Event {
    Push,
    Poll { which: usize, room: usize },
    GiveBack { which: usize },
    Answer { which: usize },
    Retire { which: usize },
    Doubt { which: usize },
    Trust { which: usize },
    End { which: usize },
    KeeperWakes,
    DialEnds { well: bool },
    Pass { ms: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    let which = 0..4_usize;
    prop_oneof![
        4 => Just(Event::Push),
        4 => (which.clone(), 0..3_usize).prop_map(|(which, room)| Event::Poll { which, room }),
        1 => which.clone().prop_map(|which| Event::GiveBack { which }),
        1 => which.clone().prop_map(|which| Event::Answer { which }),
        1 => which.clone().prop_map(|which| Event::Retire { which }),
        1 => which.clone().prop_map(|which| Event::Doubt { which }),
        1 => which.clone().prop_map(|which| Event::Trust { which }),
        1 => which.prop_map(|which| Event::End { which }),
        4 => Just(Event::KeeperWakes),
        2 => any::<bool>().prop_map(|well| Event::DialEnds { well }),
        1 => (0..3000_u64).prop_map(|ms| Event::Pass { ms }),
    ]
}

/// A queue and what its surroundings would know.
struct Model {
    queue: Queue,
    log: Arc<Log>,
    pushed: u64,
    /// Each connection's number and the jobs it holds.
    held: Vec<(u64, Vec<Job>)>,
    keeper_called: bool,
    now: Instant,
}

impl Model {
    fn note(&mut self, nudge: Nudge) {
        self.keeper_called |= nudge.keeper;
    }

    /// Does as `Outlet::poll_take` does.
    fn poll(&mut self, which: usize, room: usize) {
        let Some((number, jobs)) = self.held.get_mut(which) else { return };
        let number = *number;
        while {
            let before = jobs.len();
            drop(self.queue.hand_out(number, room, jobs, self.now));
            jobs.len() > before
        } {}
        if !self.queue.is_over_for(number) {
            let nudge = self.queue.park(number, room, Waker::noop());
            self.note(nudge);
        }
    }

    fn push(&mut self) {
        let job = job(&self.log, self.pushed, self.now + Duration::from_secs(4));
        self.pushed += 1;
        if self.queue.refusal(64, || self.now).is_none() {
            let nudge = self.queue.push(job);
            self.note(nudge);
        }
    }

    /// Takes a job off a connection.
    fn take(&mut self, which: usize) -> Option<(u64, Job)> {
        let (number, jobs) = self.held.get_mut(which)?;
        Some((*number, jobs.pop()?))
    }

    fn give_back(&mut self, which: usize) {
        let Some((number, job)) = self.take(which) else { return };
        if let Ok(nudge) = self.queue.push_again(number, job) {
            self.note(nudge);
        }
    }

    fn answer(&mut self, which: usize) {
        if let Some((number, job)) = self.take(which) {
            self.queue.answered(number);
            drop(job);
        }
    }

    fn retire(&mut self, which: usize) {
        let number = self.held.get(which).map_or(0, |(number, _)| *number);
        let nudge = self.queue.retire(number);
        self.note(nudge);
    }

    fn doubt(&mut self, which: usize) {
        let Some((number, jobs)) = self.held.get_mut(which) else { return };
        let again = jobs.iter_mut().filter_map(Job::again).collect();
        let nudge = self.queue.doubt(*number, again, Pace::default());
        self.note(nudge);
    }

    /// A connection that is trusted again goes on to ask for jobs.
    fn trust(&mut self, which: usize) {
        let Some((number, _)) = self.held.get(which) else { return };
        if self.queue.trust(*number, LIMIT) {
            self.poll(which, 1);
        }
    }

    fn end(&mut self, which: usize) {
        if which < self.held.len() {
            let (number, _jobs) = self.held.remove(which);
            let (_doomed, nudge) = self.queue.ended(number, self.now);
            self.note(nudge);
        }
    }

    fn keeper_wakes(&mut self) {
        {
            self.keeper_called = false;
            drop(self.queue.expired(self.now));
            let _ = self.queue.next_step(ROOM, self.now);
        }
    }

    /// Ends a dial; the keeper looks again after each.
    fn dial_ends(&mut self, well: bool) {
        if self.queue.dials.under_way() == 0 {
            return;
        }
        self.keeper_called = true;
        if well {
            let number = self.queue.connected(handshake(false));
            self.held.push((number, Vec::new()));
        } else {
            drop(self.queue.failed(&TransportError::Closed, self.now));
        }
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Push => self.push(),
            Event::Poll { which, room } => self.poll(which, room),
            Event::GiveBack { which } => self.give_back(which),
            Event::Answer { which } => self.answer(which),
            Event::Retire { which } => self.retire(which),
            Event::Doubt { which } => self.doubt(which),
            Event::Trust { which } => self.trust(which),
            Event::End { which } => self.end(which),
            Event::KeeperWakes => self.keeper_wakes(),
            Event::DialEnds { well } => self.dial_ends(well),
            Event::Pass { ms } => self.now += Duration::from_millis(ms),
        }
    }
}

proptest! {
    /// Whatever happens in whatever order: a job that waits is known to somebody who will act, no job is lost or
    /// completed twice (the log checks that), and connections stay within their bound.
    #[test]
    fn no_job_is_forgotten(events in proptest::collection::vec(event(), 0..200)) {
        let mut model = Model {
            queue: Queue::default(),
            log: Log::new(),
            pushed: 0,
            held: Vec::new(),
            keeper_called: false,
            now: crate::clock::now(),
        };
        for event in events {
            model.apply(&event);
            let queue = &model.queue;
            let seen_to = model.keeper_called || queue.watching;
            prop_assert!(!queue.is_stuck() || seen_to, "stuck and nobody knows after {event:?}");
            let hungry = queue.connections.iter().any(|c| matches!(c.phase, Phase::Hungry(_)));
            let busy = queue.connections.iter().any(|c| matches!(c.phase, Phase::Busy));
            let asleep = hungry && !busy && !queue.waiting.is_empty();
            prop_assert!(!asleep, "a hungry connection sleeps after {event:?}");
            prop_assert!(queue.connections.iter().filter(|c| c.is_open()).count() <= LIMIT);
            prop_assert!(queue.connections.len() <= LIMIT * 2);
        }
        let Model { mut queue, log, pushed, held, .. } = model;
        drop(queue.close());
        drop(held);
        prop_assert!((0..pushed).all(|id| log.has(id)));
    }
}
