//! Traces on their way out: opens connections to the collector, and runs the task that sends, on the control runtime. What
//! a trace is and how it is sent is `telemetry::traces`' matter.

use crate::config::otel::TraceSettings;
use crate::config::settings::Settings;
use crate::telemetry::counters::Telemetry;
#[cfg(feature = "otel")]
use crate::telemetry::traces::sender::{self, Dial};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::warn;

/// How long stopping waits for the last traces.
const FAREWELL: Duration = Duration::from_secs(3);

/// The task that sends traces, if they are on.
#[derive(Debug, Default)]
pub(super) struct TraceExport {
    /// What it was started with: the settings, and the length of its queue.
    current: Option<(TraceSettings, usize)>,
    /// Hears when it has ended. The lock is never contended: it makes the gateway one that threads may share.
    ended: Option<Mutex<Receiver<()>>>,
}

impl TraceExport {
    /// Does as `settings` say. A task that is replaced sends what it has and ends.
    pub(super) fn follow(
        &mut self,
        settings: &Settings,
        telemetry: &Telemetry,
        (tasks, control): (&TaskTracker, &Handle),
    ) {
        let wanted = settings.traces.clone().map(|traces| (traces, settings.limits.trace_queue));
        if self.current == wanted {
            return;
        }
        self.ended = None;
        match &wanted {
            Some((traces, queue)) => self.start(traces, *queue, telemetry, (tasks, control)),
            None => telemetry.traces().close(),
        }
        self.current = wanted;
    }

    /// Starts the task.
    #[cfg(feature = "otel")]
    fn start(
        &mut self,
        traces: &TraceSettings,
        queue: usize,
        telemetry: &Telemetry,
        (tasks, control): (&TaskTracker, &Handle),
    ) {
        let intake = telemetry.traces().open(traces, queue);
        let sending = sender::run(intake, traces.clone(), ToCollector(traces.collector.address));
        let (end, ended) = std::sync::mpsc::sync_channel::<()>(1);
        tasks.spawn_on(
            async move {
                sending.await;
                drop(end);
            },
            control,
        );
        self.ended = Some(Mutex::new(ended));
    }

    /// Does nothing: in a build without OpenTelemetry no settings ask for it (`config::otel`).
    #[cfg(not(feature = "otel"))]
    fn start(&mut self, _: &TraceSettings, _: usize, _: &Telemetry, _: (&TaskTracker, &Handle)) {}

    /// Ends the task and waits until what it had is sent, but not for ever. Blocks: another thread has to drive the control
    /// runtime.
    pub(super) fn finish(self, telemetry: &Telemetry) {
        telemetry.traces().close();
        let Some(ended) = self.ended else { return };
        let ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(FAREWELL) == Err(RecvTimeoutError::Timeout) {
            warn!("the last traces could not be sent in time");
        }
    }
}

/// Opens connections to a collector.
#[cfg(feature = "otel")]
struct ToCollector(std::net::SocketAddr);

#[cfg(feature = "otel")]
impl Dial for ToCollector {
    type Stream = tokio::net::TcpStream;

    async fn dial(&self) -> std::io::Result<Self::Stream> {
        tokio::net::TcpStream::connect(self.0).await
    }
}
