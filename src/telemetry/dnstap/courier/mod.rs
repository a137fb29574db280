//! The thread that brings events to the collector: connects, shakes hands, writes, and begins again after a pause when anything
//! goes wrong. Every wait has a limit, and a collector can cost events, never a query. What waits while there is no connection
//! is sent with the next one; what was being written when one broke is lost, and counted.
//!
//! ```text
//! away ──connected──▶ handshake ──ACCEPT──▶ writing ──nothing more comes──▶ STOP, FINISH ──▶ end
//!  ▲ pause, longer each time │ refused, silent, garbage │ closed, stuck
//!  └─────────────────────────┴──────────────────────────┘
//! ```

#[cfg(test)]
mod tests;

use super::event::{Event, EventWriter};
use super::frames::{Control, ControlKind, FrameFault, append_control};
use crate::config::settings::dnstap::{Collector, DnstapSettings};
use crate::telemetry::feed::{CLOSE_LIMIT, Queue};
use crate::telemetry::throttle::Throttle;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tracing::{info, warn};

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long the collector may take to say that it takes dnstap.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// How long one write may take: a collector that does not read for so long is given up.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// How long the collector may take to say that it has everything.
const FINISH_LIMIT: Duration = Duration::from_secs(1);
/// How long everything may take once nothing more comes. Who stops waits a little longer.
const STOP_LIMIT: Duration = CLOSE_LIMIT.saturating_sub(Duration::from_millis(500));
/// Frames are written together up to so many octets.
const WRITE_OCTETS: usize = 64 * 1024;
/// The first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// A connection that lasted so long was a good one: the pause after it is the first again.
const GOOD: Duration = Duration::from_secs(10);

/// Why a connection did not go on.
#[derive(Debug, Error)]
enum CollectorError {
    /// There is nobody.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// Nothing moved.
    #[error("no progress within {0:?}")]
    Stuck(Duration),
    /// What it says is no control frame.
    #[error(transparent)]
    Frame(#[from] FrameFault),
    /// It says something at the wrong time.
    #[error("it speaks out of turn")]
    OutOfTurn,
    /// It wants something else.
    #[error("it does not take dnstap")]
    ContentType,
    /// It is gone.
    #[error("it closed the connection")]
    Closed,
    /// Reading or writing failed.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
}

impl From<io::Error> for CollectorError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Closed } else { Self::Broken(error) }
    }
}

/// What the operator has last been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Nothing.
    Nothing,
    /// That the collector takes events.
    Connected,
    /// That it does not.
    Away,
}

/// The state of the thread.
#[derive(Debug)]
pub(super) struct Courier {
    /// Where the collector is.
    collector: Collector,
    /// What is to be sent.
    queue: Queue<Event>,
    /// Makes frames.
    writer: EventWriter,
    /// Frames that are written together.
    buffer: Vec<u8>,
    /// True while the collector takes events.
    connected: Arc<AtomicBool>,
    /// What the log says.
    told: Told,
    /// A collector that comes and goes would be logged each time.
    throttle: Throttle,
}

impl Courier {
    /// Makes one that has sent nothing.
    pub(super) fn new(settings: DnstapSettings, queue: Queue<Event>, connected: Arc<AtomicBool>) -> Self {
        Self {
            writer: EventWriter::new(&settings),
            collector: settings.collector,
            queue,
            buffer: Vec::new(),
            connected,
            told: Told::Nothing,
            throttle: Throttle::default(),
        }
    }

    /// Sends events until nothing more comes; then what waits is sent, if that does not take long.
    pub(super) async fn run(self) {
        let collector = self.collector.clone();
        self.run_over(async || connect(&collector).await).await;
    }

    /// As `run`, over connections that `connect` opens.
    async fn run_over<S: AsyncRead + AsyncWrite + Unpin>(mut self, connect: impl AsyncFn() -> io::Result<S>) {
        let closed = self.queue.closed();
        let collector = self.collector.clone();
        tokio::select! {
            () = self.deliver(connect) => {}
            () = async { closed.cancelled().await; tokio::time::sleep(STOP_LIMIT).await } => {
                warn!(%collector, "the last events could not be sent to the collector of dnstap");
            }
        }
        self.connected.store(false, Ordering::Relaxed);
    }

    /// Connects, sends, and begins again, until nothing more comes.
    async fn deliver<S: AsyncRead + AsyncWrite + Unpin>(&mut self, connect: impl AsyncFn() -> io::Result<S>) {
        let closed = self.queue.closed();
        let mut pause = PAUSES.0;
        loop {
            let began = crate::clock::now();
            let ended = match timeout(CONNECT_LIMIT, connect()).await {
                Ok(Ok(stream)) => self.serve(stream).await,
                Ok(Err(error)) => Err(CollectorError::Connect(error)),
                Err(_) => Err(CollectorError::Stuck(CONNECT_LIMIT)),
            };
            self.connected.store(false, Ordering::Relaxed);
            let Err(error) = ended else { return };
            self.tell_away(&error);
            if crate::clock::now().saturating_duration_since(began) >= GOOD {
                pause = PAUSES.0;
            }
            tokio::select! {
                biased;
                () = closed.cancelled() => return,
                () = tokio::time::sleep(jittered(pause)) => {}
            }
            pause = pause.saturating_mul(2).min(PAUSES.1);
        }
    }

    /// Serves one connection until nothing more comes.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        mut stream: S,
    ) -> Result<(), CollectorError> {
        within(HANDSHAKE_LIMIT, greet(&mut stream)).await?;
        self.connected.store(true, Ordering::Relaxed);
        self.tell_connected();
        loop {
            let event = tokio::select! {
                biased;
                error = hears(&mut stream) => return Err(error),
                event = self.queue.next() => event,
            };
            let Some(event) = event else { break };
            let events = self.gather(event);
            let written = within(WRITE_LIMIT, async { Ok(stream.write_all(&self.buffer).await?) }).await;
            written.inspect_err(|_| self.queue.lose(events))?;
        }
        within(FINISH_LIMIT, finish(&mut stream)).await
    }

    /// Fills the buffer with the frames of an event and of those that wait behind it; returns how many they are.
    fn gather(&mut self, first: Event) -> u64 {
        self.buffer.clear();
        self.writer.write(first, &mut self.buffer);
        let mut events = 1;
        while self.buffer.len() < WRITE_OCTETS
            && let Some(next) = self.queue.try_next()
        {
            self.writer.write(next, &mut self.buffer);
            events += 1;
        }
        events
    }

    /// Says that the collector takes events, if that is news.
    fn tell_connected(&mut self) {
        if self.told != Told::Connected
            && let Some(unsaid) = self.throttle.pass(crate::clock::now())
        {
            let unsaid = (unsaid > 0).then_some(unsaid);
            info!(collector = %self.collector, unsaid, "dnstap: the collector takes events");
            self.told = Told::Connected;
        }
    }

    /// Says that the collector takes none, if that is news.
    fn tell_away(&mut self, error: &CollectorError) {
        if self.told != Told::Away
            && let Some(unsaid) = self.throttle.pass(crate::clock::now())
        {
            let unsaid = (unsaid > 0).then_some(unsaid);
            let collector = &self.collector;
            warn!(%collector, %error, unsaid, "dnstap: the collector takes no events; they wait, and are dropped when there are too many");
            self.told = Told::Away;
        }
    }
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Opens a connection.
async fn connect(collector: &Collector) -> io::Result<Box<dyn Stream>> {
    Ok(match collector {
        Collector::Unix(path) => Box::new(UnixStream::connect(path).await?),
        Collector::Tcp(address) => Box::new(TcpStream::connect(address).await?),
    })
}

/// Limits a step of a conversation.
async fn within<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, CollectorError>>,
) -> Result<T, CollectorError> {
    timeout(limit, step).await.unwrap_or(Err(CollectorError::Stuck(limit)))
}

/// Shakes hands: READY, ACCEPT, START.
async fn greet(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(), CollectorError> {
    say(stream, ControlKind::Ready).await?;
    if !hear(stream, ControlKind::Accept).await? {
        return Err(CollectorError::ContentType);
    }
    say(stream, ControlKind::Start).await
}

/// Parts: STOP, FINISH.
async fn finish(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(), CollectorError> {
    say(stream, ControlKind::Stop).await?;
    hear(stream, ControlKind::Finish).await.map(|_| ())
}

/// Sends a control frame.
async fn say(stream: &mut (impl AsyncWrite + Unpin), kind: ControlKind) -> Result<(), CollectorError> {
    let mut frame = Vec::new();
    append_control(&mut frame, kind);
    stream.write_all(&frame).await?;
    Ok(stream.flush().await?)
}

/// Waits for a control frame of this kind; true when it suits dnstap.
async fn hear(stream: &mut (impl AsyncRead + Unpin), kind: ControlKind) -> Result<bool, CollectorError> {
    let mut head = [0; 8];
    stream.read_exact(&mut head).await?;
    let mut content = vec![0; Control::length(head)?];
    stream.read_exact(&mut content).await?;
    let control = Control::parse(&content)?;
    if control.kind == kind { Ok(control.takes_dnstap()) } else { Err(CollectorError::OutOfTurn) }
}

/// Waits until the collector goes away or says anything, which it has no reason to. Cancel safe: what it reads ends the
/// connection.
async fn hears(stream: &mut (impl AsyncRead + Unpin)) -> CollectorError {
    match stream.read(&mut [0]).await {
        Ok(0) => CollectorError::Closed,
        Ok(_) => CollectorError::OutOfTurn,
        Err(error) => error.into(),
    }
}

/// Returns between half of a pause and all of it: many gateways do not come back to one collector at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}
