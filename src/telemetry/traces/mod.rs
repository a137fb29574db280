//! Traces: what became of a query that memory could not answer, stage by stage. The resolver keeps plain facts of a flight
//! while it is on its way (`facts`) and hands them over once, when it has ended and its replies have left. They wait in a
//! bounded queue for the task that makes spans of them (`spans`) and sends those to a collector (`sender`). No query waits
//! for any of it: when the queue is full the trace is dropped and counted.
//!
//! What opens sockets is `app`'s. Without the feature `otel` nothing switches traces on.

pub mod facts;
#[cfg(feature = "otel")]
pub mod sender;
#[cfg(feature = "otel")]
mod spans;

use crate::config::otel::Share;
#[cfg(feature = "otel")]
use crate::config::otel::TraceSettings;
use arc_swap::ArcSwapOption;
use facts::{EndedFlight, FlightFacts, TraceId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Where traces go, if they are on.
#[derive(Debug, Default)]
pub struct Traces {
    /// What is read for every flight: one plain load.
    on: AtomicBool,
    /// The way to the sender. When it goes, the sender sends what it has and ends.
    outlet: ArcSwapOption<Outlet>,
    /// What became of traces.
    counts: Arc<Counts>,
}

/// The way to one sender, and what it wants.
#[derive(Debug)]
struct Outlet {
    /// Which flights leave a trace.
    sample: Share,
    /// Traces hold names.
    names: bool,
    /// Traces that wait for the sender.
    queue: mpsc::Sender<EndedFlight>,
}

/// What became of traces.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Taken by the collector.
    sent: AtomicU64,
    /// Lost: the queue was full, or the collector did not take them.
    dropped: AtomicU64,
}

/// What a sender takes traces from.
#[cfg(feature = "otel")]
#[derive(Debug)]
pub struct Intake {
    /// The traces; ends when traces are switched off or go elsewhere.
    queue: mpsc::Receiver<EndedFlight>,
    /// What becomes of them.
    counts: Arc<Counts>,
}

#[cfg(all(test, feature = "otel"))]
impl Intake {
    /// Takes a trace that waits.
    pub(crate) fn next_now(&mut self) -> Option<EndedFlight> {
        self.queue.try_recv().ok()
    }
}

impl Traces {
    /// Decides whether a flight that begins leaves a trace, and begins to keep its facts.
    pub fn begin(&self) -> Option<Box<FlightFacts>> {
        if self.on.load(Ordering::Relaxed) { self.draw() } else { None }
    }

    /// Decides by lot. The lot is the identifier of the trace, as OpenTelemetry has it: a collector that samples further draws
    /// from the same numbers.
    fn draw(&self) -> Option<Box<FlightFacts>> {
        let outlet = self.outlet.load();
        let id = TraceId::random();
        outlet.as_deref()?.sample.takes(id.lot()).then(|| Box::new(FlightFacts::new(id)))
    }

    /// Returns true when traces hold the names that were asked for.
    pub fn hold_names(&self) -> bool {
        self.outlet.load().as_deref().is_some_and(|outlet| outlet.names)
    }

    /// Hands over a flight that has ended; drops and counts it when the queue is full or nobody takes it any more.
    pub fn send(&self, flight: EndedFlight) {
        let outlet = self.outlet.load();
        let sent = outlet.as_deref().is_some_and(|outlet| outlet.queue.try_send(flight).is_ok());
        if !sent {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Switches traces on for a new sender, in place of the present one: that one sends what it has.
    #[cfg(feature = "otel")]
    pub fn open(&self, settings: &TraceSettings, queue: usize) -> Intake {
        let (sender, receiver) = mpsc::channel(queue.max(1));
        let outlet = Outlet { sample: settings.sample, names: settings.names, queue: sender };
        self.outlet.store(Some(Arc::new(outlet)));
        self.on.store(true, Ordering::Relaxed);
        Intake { queue: receiver, counts: Arc::clone(&self.counts) }
    }

    /// Switches traces off; the sender sends what it has and ends.
    pub fn close(&self) {
        self.on.store(false, Ordering::Relaxed);
        self.outlet.store(None);
    }

    /// Returns how many flights' traces the collector has taken.
    pub(super) fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::Relaxed)
    }

    /// Returns how many flights' traces were lost.
    pub(super) fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }
}
