//! What is still learnt from the attempts of flights that have ended: a server that lost to a hedge or to the next one in line
//! may answer late, which is no failure and tells how slow it is, or not at all, which it is blamed for when its time is
//! up. Nobody waits for these answers: clients and the cache never see them.

use super::attempts::Attempt;
use super::flight::{Flight, SentState};
use super::flights::{FlightId, Flights};
use crate::transport::{Received, TransportError};
use crate::wire::response::ResponseRef;
use std::collections::HashMap;
use std::time::Instant;

/// Ended flights that are kept at most. What is beyond is not learnt from.
const MOST: usize = 4096;

/// Flights that have ended, until the last of their completions has come: by their deadline, as transports promise.
#[derive(Debug, Default)]
pub(super) struct Stragglers(HashMap<FlightId, Flight>);

impl Stragglers {
    /// Blames the servers of an ended flight whose time is up. Returns when to look again, if need be.
    pub(super) fn on_time(&mut self, id: FlightId, now: Instant) -> Option<Instant> {
        if self.0.is_empty() {
            return None;
        }
        let flight = self.0.get_mut(&id)?;
        flight.give_up_waiting(now);
        flight.patience_ends_at()
    }
}

impl Flights {
    /// Keeps an ended flight for the completions that are still to come.
    pub(super) fn keep_for_stragglers(&mut self, id: FlightId, flight: Flight) {
        if self.stragglers().0.len() < MOST {
            self.stragglers().0.insert(id, flight);
            return;
        }
        for sent in flight.sent.iter().filter(|sent| sent.state != SentState::Ended) {
            if let Some(server) = flight.server(sent.server) {
                server.finished();
            }
        }
    }

    /// Takes the completion of an ended flight's attempt.
    pub(super) fn straggled(
        &mut self,
        id: FlightId,
        number: usize,
        outcome: Result<Received, TransportError>,
        now: Instant,
    ) {
        let telemetry = self.telemetry();
        self.answers.enter(now);
        let Some(flight) = self.stragglers().0.get_mut(&id) else { return };
        if let Some(attempt) = flight.finish(number) {
            flight.tell(&attempt, &outcome, telemetry.dnstap());
            flight.learn_late(&attempt, outcome, now);
        }
        if !flight.is_waiting() {
            self.stragglers().0.remove(&id);
        }
    }
}

impl Flight {
    /// Learns what an attempt says of its server, and nothing else.
    fn learn_late(&self, attempt: &Attempt, outcome: Result<Received, TransportError>, now: Instant) {
        let Some(asked) = self.asked(attempt.server) else { return };
        let received = match outcome {
            Ok(received) => received,
            // The query's time was over, which says nothing as long as the server's own was not.
            Err(TransportError::Timeout) => return,
            Err(error) => return self.learn_failure(attempt, &error, now),
        };
        let checked = asked.check(received.message);
        match checked.as_ref().map_err(|fault| *fault).and_then(|message| ResponseRef::parse(message)) {
            Ok(response) => self.learn_answer(attempt, response.rcode(), now),
            Err(fault) => self.learn_fault(attempt, fault, now),
        }
    }
}
