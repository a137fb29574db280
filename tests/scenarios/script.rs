//! What a scenario says, as plain data. How it is written is `reader`'s matter, how it is played `stage`'s.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// One file.
#[derive(Debug)]
pub struct Script {
    /// What the file proves, in the words of its first comment.
    pub about: String,
    /// The servers, in the order of the default group.
    pub servers: Vec<String>,
    /// The gateway's configuration.
    pub config: String,
    /// By time.
    pub steps: Vec<Step>,
}

/// One line.
#[derive(Debug)]
pub struct Step {
    /// Its number in the file.
    pub line: usize,
    /// When it happens, or is to be seen.
    pub when: When,
    /// What.
    pub action: Action,
}

/// When something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// From this time on; what is awaited may be `stage::GRACE` late.
    At(Duration),
    /// Between these times.
    Between(Duration, Duration),
    /// After everything else, and after the time that a query may take.
    End,
}

impl When {
    /// The earliest time.
    pub fn from(self) -> Duration {
        match self {
            Self::At(from) | Self::Between(from, _) => from,
            Self::End => Duration::MAX,
        }
    }
}

/// What a line says.
#[derive(Clone, Debug)]
pub enum Action {
    /// A server behaves so from now on.
    Behave { server: String, rule: Rule },
    /// A client asks.
    Ask { client: String, ask: Ask },
    /// The gateway takes another configuration.
    Reload { config: String },
    /// The gateway stops.
    Stop,
    /// The machine is on another network.
    Network,
    /// So often something happened to a server until now.
    Count { server: String, what: Tally, times: RangeInclusive<u64> },
    /// A server is held to be up or down.
    State { server: String, up: bool },
    /// A line of the metrics page.
    Counter { series: String, value: RangeInclusive<u64> },
    /// A client gets a reply.
    Gets { client: String, reply: Reply },
    /// A server gets a user's query.
    IsAsked { server: String, query: Asked },
}

/// What is counted of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// Queries on behalf of users: refreshes are among them, probes not.
    Asked,
    /// Queries for the root's name servers.
    Probed,
    /// Starts afresh: its connections are given up.
    Reset,
    /// A reload lets go of it.
    Drained,
}

/// What a server does with queries.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Only with those for this name and what is below it.
    pub name: Option<String>,
    /// Only with those of this type.
    pub rtype: Option<u16>,
    /// How long it takes.
    pub delay: Duration,
    /// What it does then.
    pub does: Does,
}

/// What a server does.
#[derive(Clone, Debug)]
pub enum Does {
    /// Sends a message.
    Answer(Answer),
    /// Sends octets that are no message.
    Garbage,
    /// Takes the query and says nothing.
    Silent,
    /// Lets nobody connect, and says nothing.
    Unreachable,
    /// Fails in one of the ways of a transport.
    Fail(Way),
}

/// How a transport fails.
#[derive(Clone, Debug)]
pub enum Way {
    Refused,
    ConnectTimeout,
    NoAddress,
    Tls,
    Certificate,
    Clock,
    Pin,
    Closed,
    Http { status: u16, retry_after: Option<Duration> },
    ContentType,
    Mismatch,
    Overloaded,
}

/// A server's message.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub rcode: u16,
    pub records: Vec<Record>,
    pub ede: Option<u16>,
    pub authentic: bool,
    pub truncated: bool,
    /// Another question than the one that was asked.
    pub question: Option<String>,
    /// The scope of its ECS option.
    pub scope: Option<u8>,
    /// HTTP `Age`.
    pub age: Duration,
}

/// A record. SOA records stand in the authority section, others in the answer.
#[derive(Clone, Debug)]
pub struct Record {
    /// None: the name that was asked for.
    pub owner: Option<String>,
    pub rtype: u16,
    pub rdata: Vec<u8>,
    /// None in what is expected: any.
    pub ttl: Option<u32>,
    /// As the file has it.
    pub text: String,
}

/// A client's query.
#[derive(Clone, Debug)]
pub struct Ask {
    pub name: String,
    pub rtype: u16,
    pub tcp: bool,
    pub dnssec: bool,
    pub checking_disabled: bool,
    /// Payload size; None: no EDNS.
    pub payload: Option<u16>,
    /// Data of an ECS option.
    pub subnet: Option<Vec<u8>>,
}

/// A reply that is awaited.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub rcode: u16,
    /// To a query for this name, as it was asked.
    pub name: Option<String>,
    /// To a query for this type.
    pub rtype: Option<u16>,
    /// A `source` label of the metrics, or a server's name.
    pub from: Option<String>,
    /// Code, and a part of its text.
    pub ede: Option<(u16, Option<String>)>,
    /// Data of an ECS option; None: no such option.
    pub subnet: Option<Vec<u8>>,
    pub authentic: bool,
    pub truncated: bool,
    /// Without: any.
    pub records: Option<Vec<Record>>,
}

/// A query that a server is to get.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub name: Option<String>,
    pub rtype: Option<u16>,
    pub dnssec: Option<bool>,
    pub checking_disabled: Option<bool>,
    pub padded: Option<bool>,
    /// Data of an ECS option; None inside: no such option.
    pub subnet: Option<Option<Vec<u8>>>,
}

/// Something that does not hold, or cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line of the file; 0: the file as a whole.
    pub line: usize,
    pub text: String,
}

impl Fault {
    /// Makes one.
    pub fn new(line: usize, text: impl Into<String>) -> Self {
        Self { line, text: text.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.text)
    }
}
