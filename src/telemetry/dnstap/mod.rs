//! dnstap: messages as they come and go, for a collector of the operator's choice. This is the place where events go in: one
//! plain load when nobody wants them, a copy into a bounded queue when somebody does. A thread of its own writes them
//! (`courier`); no query ever waits for that.

mod courier;
pub mod event;
pub mod frames;

use self::courier::Courier;
use self::event::{Event, Parties, Protocol};
use super::feed::Feed;
use crate::config::settings::dnstap::{Collector, DnstapSettings, MessageKind, MessageKinds};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tracing::warn;

/// Where events go, if anywhere.
#[derive(Debug, Default)]
pub struct Dnstap {
    /// The kinds that are wanted, as bits; 0: it is off.
    wanted: AtomicU8,
    /// The way to the writing thread; events that no collector got.
    feed: Feed<Event>,
    /// The thread that writes, if there is one.
    current: Mutex<Option<Current>>,
}

/// What a writing thread was started for: a reload that changes nothing leaves it alone.
#[derive(Debug)]
struct Current {
    /// Where events go, and which.
    settings: DnstapSettings,
    /// How many octets of them may wait.
    queue: usize,
    /// True while the collector takes them.
    connected: Arc<AtomicBool>,
}

/// What is told of a message besides its octets.
#[derive(Clone, Debug)]
pub struct Occasion {
    /// How it travelled.
    pub protocol: Protocol,
    /// Between whom.
    pub parties: Parties,
    /// When the query came or went; an answer comes or goes now.
    pub asked_at: Instant,
}

impl Dnstap {
    /// Tells of a message, if its kind is wanted. Never waits: what finds no room is dropped and counted.
    pub fn tell(&self, kind: MessageKind, message: &[u8], occasion: impl FnOnce() -> Occasion) {
        if !MessageKinds::from_bits(self.wanted.load(Ordering::Relaxed)).contains(kind) {
            return;
        }
        self.feed.send(size_of::<Event>() + message.len(), || {
            let Occasion { protocol, parties, asked_at } = occasion();
            let (now, wall) = (crate::clock::now(), crate::clock::wall());
            let is_answer = matches!(kind, MessageKind::ClientResponse | MessageKind::ForwarderResponse);
            Event {
                kind,
                protocol,
                parties,
                asked_at: wall.checked_sub(now.saturating_duration_since(asked_at)).unwrap_or(wall),
                answered_at: is_answer.then_some(wall),
                message: message.into(),
            }
        });
    }

    /// Sends events where these settings say, or nowhere. What waits for another collector is still sent there.
    ///
    /// # Errors
    /// No thread could be started, or what is at the path is no socket; everything then stays as it was.
    pub fn open(&self, settings: Option<&DnstapSettings>, queue: usize) -> io::Result<()> {
        let mut current = self.current();
        let Some(settings) = settings else {
            *current = None;
            self.close();
            return Ok(());
        };
        if current.as_ref().is_some_and(|current| current.settings == *settings && current.queue == queue) {
            return Ok(());
        }
        Self::check(settings)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let next = Current { settings: settings.clone(), queue, connected: Arc::default() };
        let (settings, connected) = (settings.clone(), Arc::clone(&next.connected));
        let write = move |queue| runtime.block_on(Courier::new(settings, queue, connected).run());
        self.feed.replace("dnstap", queue, write)?;
        self.wanted.store(next.settings.messages.bits(), Ordering::Relaxed);
        *current = Some(next);
        Ok(())
    }

    /// Finds out whether a collector can ever be reached there. One that does not listen yet may come.
    ///
    /// # Errors
    /// What is at the path is no socket.
    pub fn check(settings: &DnstapSettings) -> io::Result<()> {
        let Collector::Unix(path) = &settings.collector else { return Ok(()) };
        match std::fs::metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a socket"))
            }
            // This user may not be the one that the gateway runs as.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Sends no more events; returns at once.
    fn close(&self) {
        self.wanted.store(0, Ordering::Relaxed);
        self.feed.close();
    }

    /// Sends no more events and waits until the collector has what waited. Waits for that, but not for ever.
    pub fn close_and_wait(&self) {
        *self.current() = None;
        self.close();
        if !self.feed.close_and_wait() {
            warn!("the last events could not be sent to the collector of dnstap in time");
        }
    }

    /// Returns the number of events that no collector got.
    pub(super) fn dropped(&self) -> u64 {
        self.feed.dropped()
    }

    /// True while a collector takes events.
    pub(super) fn is_connected(&self) -> bool {
        self.current().as_ref().is_some_and(|current| current.connected.load(Ordering::Relaxed))
    }

    /// Locks what is current. A panic elsewhere leaves whole values behind.
    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
