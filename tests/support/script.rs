//! What a scripted server does with a connection and with a query, and what it remembers.

use super::authority::NAME;
use super::message::{Message, rtype};
use super::zone;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// How a server behaves. Can be changed while it runs; connections look at it anew for each query.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub door: Door,
    pub reply: Reply,
    /// Replies for single names (lower case, with the final dot) in place of `reply`.
    pub names: HashMap<String, Reply>,
    /// Closes a connection after it has answered so many queries.
    pub close_after: Option<usize>,
    /// Says GOAWAY on a connection after so many requests (DNS over HTTPS).
    pub goaway_after: Option<usize>,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Door {
    #[default]
    Open,
    /// The TCP connection is closed as soon as it is there.
    Slam,
    /// TCP is there, TLS never begins.
    StallBeforeTls,
    /// TLS is there, nothing more is ever read.
    StallAfterTls,
}

/// Makes a response from a query.
type Maker = Arc<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// What becomes of a query.
#[derive(Clone, Default)]
pub enum Reply {
    /// The zone's answer.
    #[default]
    Zone,
    /// The zone's answer, later.
    Delay(Duration),
    /// The zone's answer once the gate opens.
    Gate(Gate),
    /// Nothing at all.
    Silence,
    /// The zone's answer under another ID (DNS over TLS; in DNS over HTTPS too).
    WrongId,
    /// A well-formed answer to another question.
    WrongQuestion,
    /// The answer with TC set and no records.
    Truncated,
    /// Octets that are no DNS message.
    Garbage,
    /// Half a message, then the end of the connection or of the body.
    HalfThenClose,
    /// The end of the connection.
    Close,
    /// An answer with this rcode and no records.
    Rcode(u8),
    /// RST_STREAM in place of an answer (DNS over HTTPS).
    Reset,
    /// An HTTP status, with Retry-After when given (DNS over HTTPS).
    Status(u16, Option<u64>),
    /// The zone's answer under another content type (DNS over HTTPS).
    ContentType(&'static str),
    /// Whatever the function makes.
    Make(Maker),
}

impl Reply {
    /// Wraps a function.
    pub fn make(maker: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::Make(Arc::new(maker))
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Zone => "Zone",
            Self::Delay(_) => "Delay",
            Self::Gate(_) => "Gate",
            Self::Silence => "Silence",
            Self::WrongId => "WrongId",
            Self::WrongQuestion => "WrongQuestion",
            Self::Truncated => "Truncated",
            Self::Garbage => "Garbage",
            Self::HalfThenClose => "HalfThenClose",
            Self::Close => "Close",
            Self::Rcode(_) => "Rcode",
            Self::Reset => "Reset",
            Self::Status(..) => "Status",
            Self::ContentType(_) => "ContentType",
            Self::Make(_) => "Make",
        };
        f.write_str(text)
    }
}

/// Holds answers back until it is opened.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is open.
    pub async fn passed(&self) {
        let mut receiver = self.0.subscribe();
        let _ = receiver.wait_for(|open| *open).await;
    }
}

/// What a script makes of a query: what the protocols have in common.
#[derive(Debug)]
pub enum Deed {
    Answer(Vec<u8>),
    Nothing,
    Half(Vec<u8>),
    Close,
    Reset,
    Status(u16, Option<u64>),
    Typed(&'static str, Vec<u8>),
}

impl Script {
    /// A server that does as it should.
    pub fn good() -> Self {
        Self::default()
    }

    /// A server that knows besides where servers of tests are: `NAME` is on loopback.
    pub fn phonebook() -> Self {
        let reply = Reply::make(|octets| {
            let asked = Message::read(octets).question.unwrap();
            let mut answer = zone::start(octets, 0);
            if asked.rtype == rtype::A {
                answer[7] = 1;
                answer.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 127, 0, 0, 1]);
            }
            answer
        });
        Self { names: [(format!("{NAME}."), reply)].into(), ..Self::default() }
    }

    /// A server that answers every query so.
    pub fn replying(reply: Reply) -> Self {
        Self { reply, ..Self::default() }
    }

    /// A server that treats connections so.
    pub fn with_door(door: Door) -> Self {
        Self { door, ..Self::default() }
    }

    /// Returns what this script has for a query.
    pub fn reply_to(&self, query: &[u8]) -> Reply {
        if self.names.is_empty() {
            return self.reply.clone();
        }
        let name =
            super::message::Message::read(query).question.map(|question| question.name.to_ascii_lowercase());
        name.and_then(|name| self.names.get(&name)).unwrap_or(&self.reply).clone()
    }
}

impl Reply {
    /// Carries it out, as far as the protocols agree.
    pub async fn carry_out(self, query: &[u8]) -> Deed {
        match self {
            Self::Zone => Deed::Answer(zone::answer(query)),
            Self::Delay(delay) => {
                tokio::time::sleep(delay).await;
                Deed::Answer(zone::answer(query))
            }
            Self::Gate(gate) => {
                gate.passed().await;
                Deed::Answer(zone::answer(query))
            }
            Self::Silence => Deed::Nothing,
            Self::WrongId => {
                let mut answer = zone::answer(query);
                answer[0] ^= 0x55;
                Deed::Answer(answer)
            }
            Self::WrongQuestion => {
                let mut answer = zone::answer(query);
                // Another name of the same length.
                answer[13] = if answer[13] == b'q' { b'z' } else { b'q' };
                Deed::Answer(answer)
            }
            Self::Truncated => {
                let mut answer = zone::start(query, 0);
                answer[2] |= 0x02;
                Deed::Answer(answer)
            }
            Self::Garbage => {
                // The right ID, so that it is taken for an answer to begin with.
                let mut octets = query[..2].to_vec();
                octets.extend_from_slice(&[
                    0x81, 0x80, 0, 1, 0xFF, 0xFF, 0, 0, 0, 0, 0xC0, 0xFF, 0xC0, 0x0C, 1, 2, 3,
                ]);
                Deed::Answer(octets)
            }
            Self::HalfThenClose => Deed::Half(zone::answer(query)),
            Self::Close => Deed::Close,
            Self::Rcode(rcode) => Deed::Answer(zone::start(query, rcode)),
            Self::Reset => Deed::Reset,
            Self::Status(status, retry_after) => Deed::Status(status, retry_after),
            Self::ContentType(content_type) => Deed::Typed(content_type, zone::answer(query)),
            Self::Make(make) => Deed::Answer(make(query)),
        }
    }
}

/// Method and headers of a request.
pub type HttpRequest = (String, Vec<(String, String)>);

/// What a server remembers.
#[derive(Debug, Default)]
pub struct Log {
    /// Queries in the order of arrival, as they came out of TLS.
    queries: Mutex<Vec<Vec<u8>>>,
    /// Every octet that came on a TCP connection, before TLS.
    raw: Mutex<Vec<u8>>,
    /// HTTP method and content of each request's headers.
    requests: Mutex<Vec<HttpRequest>>,
    connections: AtomicUsize,
    handshakes: AtomicUsize,
    resumed: AtomicUsize,
    open: AtomicUsize,
    in_flight: AtomicUsize,
    max_in_flight: AtomicUsize,
}

impl Log {
    pub fn queries(&self) -> Vec<Vec<u8>> {
        self.queries.lock().unwrap().clone()
    }

    /// How many queries came.
    pub fn asked(&self) -> usize {
        self.queries.lock().unwrap().len()
    }

    /// How many queries for this name (lower case, with the final dot) came.
    pub fn asked_for(&self, name: &str) -> usize {
        let is_for = |query: &&Vec<u8>| {
            super::message::Message::read(query)
                .question
                .is_some_and(|question| question.name.eq_ignore_ascii_case(name))
        };
        self.queries.lock().unwrap().iter().filter(is_for).count()
    }

    pub fn raw(&self) -> Vec<u8> {
        self.raw.lock().unwrap().clone()
    }

    pub fn requests(&self) -> Vec<HttpRequest> {
        self.requests.lock().unwrap().clone()
    }

    /// TCP connections accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// TLS handshakes completed.
    pub fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::SeqCst)
    }

    /// Of those, resumed ones.
    pub fn resumed(&self) -> usize {
        self.resumed.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Most queries that waited at the same time.
    pub fn max_in_flight(&self) -> usize {
        self.max_in_flight.load(Ordering::SeqCst)
    }

    pub fn saw_query(&self, query: &[u8]) {
        self.queries.lock().unwrap().push(query.to_vec());
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.max_in_flight.fetch_max(now, Ordering::SeqCst);
    }

    pub fn query_done(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    pub fn saw_octets(&self, octets: &[u8]) {
        self.raw.lock().unwrap().extend_from_slice(octets);
    }

    pub fn saw_request(&self, method: String, headers: Vec<(String, String)>) {
        self.requests.lock().unwrap().push((method, headers));
    }

    pub fn saw_connection(&self) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        self.open.fetch_add(1, Ordering::SeqCst);
    }

    pub fn connection_done(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    pub fn saw_handshake(&self, resumed: bool) {
        self.handshakes.fetch_add(1, Ordering::SeqCst);
        self.resumed.fetch_add(usize::from(resumed), Ordering::SeqCst);
    }
}
