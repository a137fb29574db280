//! A query on two connections at once: it was asked again on a fresh one while the first is silent. The one who asked knows
//! nothing of it and gets one completion: the first answer, or a failure when both have failed.

use super::{CompletionSink, Received, Ticket, TransportError};
use std::sync::{Arc, Mutex, PoisonError};

impl Ticket {
    /// Makes this ticket one of two for the same query, and returns the other one.
    pub(super) fn share(&mut self) -> Self {
        let id = self.id;
        let whole = Self { sink: self.sink.take(), id };
        let twins: Arc<dyn CompletionSink> =
            Arc::new(Twins(Mutex::new(Some(Whole { ticket: whole, error: None }))));
        self.sink = Some(Arc::clone(&twins));
        Self { sink: Some(twins), id }
    }

    /// Tells the one who asked that the connection has fallen silent, and that the query is asked again on another one.
    pub(crate) fn doubt(&self) {
        if let Some(sink) = &self.sink {
            sink.doubted(self.id);
        }
    }
}

/// Where both halves of a ticket are completed.
struct Twins(Mutex<Option<Whole>>);

/// The ticket of the one who asked.
struct Whole {
    /// Completed once.
    ticket: Ticket,
    /// How one of the two failed.
    error: Option<TransportError>,
}

impl CompletionSink for Twins {
    fn completed(&self, _id: u64, outcome: Result<Received, TransportError>) {
        if let Some((ticket, outcome)) = self.settle(outcome) {
            ticket.complete(outcome);
        }
    }
}

impl Twins {
    /// Takes what became of one half. Returns the ticket when that settles it: the lock must not be held while it completes.
    fn settle(
        &self,
        outcome: Result<Received, TransportError>,
    ) -> Option<(Ticket, Result<Received, TransportError>)> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = place.as_mut()?;
        match (outcome, whole.error.take()) {
            (Err(error), None) => {
                whole.error = Some(error);
                None
            }
            // That the silent connection is closed in the end says less than what the fresh one met with.
            (Err(TransportError::Closed), Some(error)) | (Err(error), Some(_)) => {
                place.take().map(|whole| (whole.ticket, Err(error)))
            }
            (Ok(received), _) => place.take().map(|whole| (whole.ticket, Ok(received))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rehearsal::{Log, query};
    use super::*;

    fn twins(log: &Arc<Log>) -> [Ticket; 2] {
        let mut ticket = Ticket::new(Arc::clone(log) as _, 7);
        let other = ticket.share();
        [ticket, other]
    }
    fn answer() -> Result<Received, TransportError> {
        Ok(Received { message: query("a.example"), age_secs: 0, sent_at: None })
    }

    #[tokio::test]
    async fn the_first_answer_completes_the_query_and_the_second_goes_nowhere() {
        let log = Log::new();
        let [one, other] = twins(&log);
        one.complete(answer());
        assert!(log.outcome(7).await.is_ok());
        other.complete(answer());
    }

    #[tokio::test]
    async fn a_failure_of_one_leaves_the_other_and_the_telling_one_of_two_is_told() {
        let log = Log::new();
        let [one, other] = twins(&log);
        drop(one);
        assert!(!log.has(7));
        other.complete(answer());
        assert!(log.outcome(7).await.is_ok());

        let telling = [
            [TransportError::Closed, TransportError::ContentType],
            [TransportError::ContentType, TransportError::Closed],
        ];
        for [first, second] in telling {
            let log = Log::new();
            let [one, other] = twins(&log);
            one.complete(Err(first));
            assert!(!log.has(7));
            other.complete(Err(second));
            assert!(matches!(log.outcome(7).await, Err(TransportError::ContentType)));
        }
    }
}
