//! The last resort of a flight for a time server's name: servers that were refused because their certificates' dates do not fit
//! the clock are asked once more with the dates overlooked, for without the answer the clock could never be set right. Name,
//! chain and pins are verified as ever; the answer is marked, and never kept. Every other name fails: see `endings`.

use super::attempts::ticket_id;
use super::endings::Ending;
use super::failure::Failure;
use super::flight::{Flight, MAX_ATTEMPTS, Sent, SentState};
use super::flights::{FlightId, Flights};
use super::validate::Asked;
use crate::policy::Verdict;
use crate::transport::{CompletionSink, Exchange, Ticket};
use crate::wire::response::ResponseRef;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a server may take: a connection has to be opened first.
const PATIENCE: Duration = Duration::from_secs(2);

impl Flights {
    /// Asks the next server whose dates may be overlooked for this flight; false when there is none.
    pub(super) fn overlook_dates(&mut self, slot: u32, now: Instant) -> bool {
        let sink: Arc<dyn CompletionSink> = self.completions();
        let lane = self.lane();
        let Some((generation, flight)) = self.generation_and_flight(slot) else { return false };
        if let Some(server) = flight.next_undated(now)
            && let Some(upstream) = flight.server(server).map(Arc::clone)
        {
            let id = ticket_id(FlightId { slot, generation }, flight.sent.len());
            let exchange = Exchange {
                query: flight.query.clone(),
                deadline: flight.deadline,
                ticket: Ticket::new(sink, id),
                lane,
            };
            let (state, patience) = (SentState::Waiting, PATIENCE);
            flight.sent.push(Sent { server, at: now, patience, state, overlooking_dates: true });
            upstream.submit_overlooking_dates(exchange, now);
            return true;
        }
        false
    }

    /// The answer-side rules; the answer is not kept.
    pub(super) fn judge_undated(&self, (slot, server): (u32, usize), response: &ResponseRef<'_>) -> Ending {
        let parts = self.flight(slot).and_then(|f| Some((f, f.question()?, f.entry()?, f.asked(server)?)));
        let Some((flight, question, entry, asked)) = parts else { return Ending::Failed(Failure::Stopping) };
        match flight.snapshot.policy.on_answer(&question, response, entry.group.own).0 {
            Verdict::Pass | Verdict::Accept => {
                let answer = Asked { trust_ad: false, ..asked }.keep(response);
                Ending::Undated { answer, server }
            }
            Verdict::Answer(answer) => Ending::Undated { answer, server },
            Verdict::Refuse(rcode, ede) => Ending::Refused { rcode, ede },
            Verdict::Drop => Ending::Failed(Failure::Stopping),
        }
    }
}

impl Flight {
    /// Returns the next server that was refused for its certificate's dates and was not yet asked without them, if this flight is
    /// for a time server's name and has nothing better.
    fn next_undated(&self, now: Instant) -> Option<usize> {
        let is_last_resort = self.stale.is_none() && self.fallback.is_none() && now < self.deadline;
        if !is_last_resort || self.sent.len() >= MAX_ATTEMPTS {
            return None;
        }
        self.snapshot.time_servers.matches(self.question()?.name)?;
        let tried = |place| self.sent.iter().any(|sent| sent.overlooking_dates && sent.server == place);
        let refused = self.causes.iter().filter(|(_, cause)| cause.is_about_dates());
        refused.map(|(place, _)| *place).find(|place| !tried(*place))
    }
}
