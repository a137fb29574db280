//! Counts what a server sends, below HTTP/2. A stream that talks without ever answering, or so fast that its answers
//! are never looked at, is a flood whatever frames it consists of: PING, SETTINGS, CONTINUATION, empty DATA or headers
//! that nobody asked for. What the frames mean is not known here.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Octets a connection may bring without completing one answer. All streams we ever open together, each with an
/// answer of the greatest size, stay below it.
pub(super) const OCTETS_WITHOUT_ANSWER: usize = 20 * 1024 * 1024;

/// Octets read before what they brought is looked at: it bounds what HTTP/2 buffers for us, and other connections
/// of the thread get their turn.
const OCTETS_A_TURN: usize = 256 * 1024;

/// What a connection's stream has brought. Shared between the stream, which HTTP/2 owns, and the connection; both
/// belong to one task, so the order of memory accesses does not matter.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Octets since the connection began; wraps.
    total: AtomicUsize,
    /// Octets since the last answer.
    unanswered: AtomicUsize,
    /// Octets in this turn.
    turn: AtomicUsize,
}

impl Meter {
    /// Returns a number that differs from an earlier one if something came since.
    pub(super) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Allows the next portion to be read.
    pub(super) fn start_turn(&self) {
        self.turn.store(0, Ordering::Relaxed);
    }

    /// Notes that all the octets were good for something.
    pub(super) fn answered(&self) {
        self.unanswered.store(0, Ordering::Relaxed);
    }

    /// Counts octets that came.
    fn add(&self, octets: usize) {
        self.total.fetch_add(octets, Ordering::Relaxed);
        self.unanswered.fetch_add(octets, Ordering::Relaxed);
        self.turn.fetch_add(octets, Ordering::Relaxed);
    }

    /// Tells whether the turn's portion has been read.
    fn is_turn_over(&self) -> bool {
        self.turn.load(Ordering::Relaxed) >= OCTETS_A_TURN
    }

    /// Tells whether this is a flood.
    fn is_flood(&self) -> bool {
        self.unanswered.load(Ordering::Relaxed) > OCTETS_WITHOUT_ANSWER
    }
}

/// A stream whose received octets are counted and bounded.
#[derive(Debug)]
pub(super) struct Metered<S> {
    /// The stream itself.
    stream: S,
    /// What it has brought.
    meter: Arc<Meter>,
}

impl<S> Metered<S> {
    /// Puts a stream under a meter.
    pub(super) fn new(stream: S, meter: Arc<Meter>) -> Self {
        Self { stream, meter }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.meter.is_flood() {
            return Poll::Ready(Err(io::Error::other("the server sends without answering")));
        }
        if self.meter.is_turn_over() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.meter.add(buf.filled().len().saturating_sub(before));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::AsyncReadExt;

    /// Reads until the stream pends or fails.
    async fn read_a_turn(stream: &mut Metered<tokio::io::Repeat>) -> usize {
        let mut octets = 0;
        let mut space = vec![0; 16 * 1024];
        poll_fn(|cx| {
            let mut buf = ReadBuf::new(&mut space);
            while let Poll::Ready(Ok(())) = Pin::new(&mut *stream).poll_read(cx, &mut buf) {
                octets += buf.filled().len();
                buf.clear();
            }
            Poll::Ready(octets)
        })
        .await
    }

    #[tokio::test]
    async fn a_turn_ends_and_the_next_goes_on() {
        let meter = Arc::new(Meter::default());
        let mut stream = Metered::new(tokio::io::repeat(0), Arc::clone(&meter));
        assert_eq!(read_a_turn(&mut stream).await, OCTETS_A_TURN);
        assert_eq!(read_a_turn(&mut stream).await, 0);
        meter.start_turn();
        assert_eq!(read_a_turn(&mut stream).await, OCTETS_A_TURN);
        assert_eq!(meter.total(), 2 * OCTETS_A_TURN);
    }

    #[tokio::test]
    async fn octets_without_an_answer_end_the_stream() {
        let meter = Arc::new(Meter::default());
        let mut stream = Metered::new(tokio::io::repeat(0), Arc::clone(&meter));
        while meter.total() <= OCTETS_WITHOUT_ANSWER {
            read_a_turn(&mut stream).await;
            meter.start_turn();
            // The runtime has a bound of its own for what a task reads at once.
            tokio::task::yield_now().await;
        }
        let error = stream.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.to_string(), "the server sends without answering");
    }

    #[tokio::test]
    async fn an_answer_makes_up_for_what_came_before() {
        let meter = Meter::default();
        meter.add(OCTETS_WITHOUT_ANSWER + 1);
        assert!(meter.is_flood());
        meter.answered();
        assert!(!meter.is_flood());
    }
}
