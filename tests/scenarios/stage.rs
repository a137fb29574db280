//! Plays a script: the real gateway behind its listeners (`app::core::Core`, probes, flights, cache, reload), servers of
//! a `Cast`, and time that passes only when nobody has anything left to do. What it sees it hands to `verdict`.

use super::message::{self, Message, OPTION_ECS};
use super::script::{Action, Ask, Fault, Script, Step, Tally, When};
use super::server::Cast;
use super::verdict;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use veildns::app::core::Core;
use veildns::clock;
use veildns::config::from_text;
use veildns::config::settings::Settings;
use veildns::resolver::Step as Progress;
use veildns::resolver::waiter::{ClientToken, ReplyBatch, ReplyNote, ReplySink, Waiter};
use veildns::telemetry::counters::Telemetry;
use veildns::telemetry::export::{Readings, UpstreamReading};
use veildns::telemetry::exposition::Format;
use veildns::telemetry::outcome::{QueryDetail, Source, record};
use veildns::telemetry::page;
use veildns::wire::query::{ClientTransport, QueryRef};

/// How late what is awaited may be: the driver keeps deadlines in slots of 16 ms, of which the one that has begun and
/// the next may have to pass, and timers count whole milliseconds.
pub const GRACE: Duration = Duration::from_millis(40);

/// How long the drain of a gateway that stops may take.
const DRAIN: Duration = Duration::from_secs(1);

/// What was seen.
#[derive(Debug, Default)]
pub struct Log {
    /// What clients asked, in order.
    pub asked: Vec<AskedBy>,
    /// What clients got, in order.
    pub heard: Vec<Heard>,
    /// Everything that happened, for people.
    pub trace: Vec<(Duration, String)>,
}

/// A client's query.
#[derive(Debug)]
pub struct AskedBy {
    pub line: usize,
    pub client: String,
    pub ask: Ask,
    pub octets: Vec<u8>,
}

/// A reply.
#[derive(Debug)]
pub struct Heard {
    pub at: Duration,
    /// Place of its query in `Log::asked`.
    pub asked: usize,
    /// A `source` label of the metrics, or the server's name.
    pub from: String,
    pub octets: Vec<u8>,
    pub message: Message,
}

/// Where replies arrive.
#[derive(Debug, Default)]
struct Letterbox(Mutex<Vec<Letter>>);

/// A reply on its way to its client.
#[derive(Debug)]
struct Letter {
    at: Instant,
    /// Its port is the place of the query.
    peer: SocketAddr,
    note: ReplyNote,
    octets: Vec<u8>,
}

impl ReplySink for Letterbox {
    fn send(&self, batch: &ReplyBatch) {
        let at = clock::now();
        let letters = batch.iter().zip(batch.notes()).map(|((client, octets), (note, _))| Letter {
            at,
            peer: client.peer,
            note,
            octets: octets.to_vec(),
        });
        self.0.lock().unwrap().extend(letters);
    }
}

/// Plays a script at a gateway with so many drivers of flights, and returns what does not hold, and everything that happened.
pub fn play(script: &Script, lanes: usize) -> (Vec<Fault>, Vec<(Duration, String)>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    // Choices and jitter are the same in every run.
    fastrand::seed(8);
    runtime.block_on(async {
        let mut stage = match Stage::new(&script.config, lanes) {
            Ok(stage) => stage,
            Err(fault) => return (vec![fault], Vec::new()),
        };
        stage.run(script).await;
        let Stage { log, mut faults, cast, start, .. } = stage;
        faults.extend(verdict::judge(script, &log, &cast, start));
        faults.sort_by_key(|fault| fault.line);
        let mut trace = log.trace;
        trace.extend(script.servers.iter().flat_map(|name| served(name, &cast, start)));
        trace.sort_by_key(|(at, _)| *at);
        (faults, trace)
    })
}

/// What a server was asked, for people.
fn served(name: &str, cast: &Cast, start: Instant) -> Vec<(Duration, String)> {
    let server = cast.server(name);
    let queries = server.queries.lock().unwrap();
    let lines = queries.iter().map(|query| {
        let question = query.message.question.as_ref().unwrap();
        let kind = if query.is_probe { "probed" } else { "asked" };
        let text = format!("{name} is {kind} {} {}", question.name, super::words::rtype_name(question.rtype));
        (query.at.saturating_duration_since(start), text)
    });
    lines.collect()
}

/// A gateway at work.
struct Stage {
    core: Arc<Core>,
    telemetry: Arc<Telemetry>,
    settings: Settings,
    cast: Cast,
    letterbox: Arc<Letterbox>,
    start: Instant,
    /// The clients, by the order of their first query.
    clients: Vec<String>,
    log: Log,
    faults: Vec<Fault>,
}

impl Stage {
    /// Starts the gateway.
    fn new(config: &str, lanes: usize) -> Result<Self, Fault> {
        let settings = settings(config, 0)?;
        let (cast, telemetry) = (Cast::default(), Telemetry::new());
        let core = Core::with_transports(&settings, Arc::clone(&telemetry), lanes, Arc::new(cast.clone()));
        let runtimes = vec![tokio::runtime::Handle::current(); lanes];
        core.start(&settings, &runtimes).map_err(|error| Fault::new(0, error.to_string()))?;
        Ok(Self {
            core,
            telemetry,
            settings,
            cast,
            letterbox: Arc::default(),
            start: clock::now(),
            clients: Vec::new(),
            log: Log::default(),
            faults: Vec::new(),
        })
    }

    /// Does and looks up what the steps say, each at its time.
    async fn run(&mut self, script: &Script) {
        for step in script.steps.iter().filter(|step| step.when != When::End) {
            self.pass(step.when.from()).await;
            self.step(step).await;
            self.settle().await;
        }
        let last = clock::now().saturating_duration_since(self.start);
        let longest = script.steps.iter().filter_map(|step| match step.when {
            When::Between(_, to) => Some(to),
            When::At(at) => Some(at),
            When::End => None,
        });
        let last = longest.max().unwrap_or(last);
        self.pass(last + self.settings.timeouts.query + Duration::from_secs(1)).await;
        for step in script.steps.iter().filter(|step| step.when == When::End) {
            self.step(step).await;
        }
        let waiting = self.core.resolver().permits().in_use();
        if waiting > 0 {
            self.faults.push(Fault::new(0, format!("{waiting} queries still hold a place at the end")));
        }
        self.core.stopped(DRAIN).await;
        self.settle().await;
    }

    /// Lets time pass until then.
    async fn pass(&mut self, until: Duration) {
        let until = self.start + until;
        if until > clock::now() {
            tokio::time::sleep_until(until.into()).await;
        }
        self.settle().await;
    }

    /// Lets everybody do what there is to do now, and takes in what came of it.
    async fn settle(&mut self) {
        /// More than the hops of a query from the inbox to its reply.
        const HOPS: usize = 24;
        for _ in 0..HOPS {
            tokio::task::yield_now().await;
        }
        let letters = std::mem::take(&mut *self.letterbox.0.lock().unwrap());
        for Letter { at, peer, note, octets } in letters {
            let from = match note.upstream {
                Some(id) => self
                    .core
                    .upstreams()
                    .iter()
                    .find(|upstream| upstream.id() == id)
                    .map_or_else(|| note.source.label().to_owned(), |upstream| upstream.name().to_owned()),
                None => note.source.label().to_owned(),
            };
            self.hear(at, usize::from(peer.port()), from, octets);
        }
    }

    /// Takes a reply down.
    fn hear(&mut self, at: Instant, asked: usize, from: String, octets: Vec<u8>) {
        let at = at.saturating_duration_since(self.start);
        let heard = Heard { at, asked, from, message: Message::read(&octets), octets };
        let client = &self.log.asked[asked].client;
        self.log.trace.push((at, format!("{client} gets {}", verdict::describe(&heard, &self.log))));
        self.log.heard.push(heard);
    }

    /// Does or looks up what one line says.
    async fn step(&mut self, step: &Step) {
        let now = clock::now().saturating_duration_since(self.start);
        match &step.action {
            Action::Behave { server, rule } => self.cast.server(server).behave(rule.clone()),
            Action::Ask { client, ask } => self.ask(step.line, client, ask),
            Action::Reload { config } => match self.reload(config, step.line) {
                Ok(()) => self.log.trace.push((now, "the gateway reloads".to_owned())),
                Err(fault) => self.faults.push(fault),
            },
            Action::Stop => {
                self.log.trace.push((now, "the gateway stops".to_owned()));
                self.core.stopped(DRAIN).await;
            }
            Action::Network => {
                self.log.trace.push((now, "the network changes".to_owned()));
                self.core.start_afresh();
            }
            Action::Count { server, what, times } => {
                let count = self.count(server, *what);
                if !times.contains(&count) {
                    let text = format!("{server} was {} {count} times", format!("{what:?}").to_lowercase());
                    self.faults.push(Fault::new(step.line, text));
                }
            }
            Action::State { server, up } => self.state(step.line, server, *up),
            Action::Counter { series, value } => {
                let page = page::text(&self.telemetry, self.readings(), Format::OpenMetrics).unwrap();
                let lines = page.lines().filter_map(|line| line.rsplit_once(' '));
                // A series that was never counted is not on the page.
                let count = lines.filter(|(name, _)| name == series).map(|(_, value)| value).next();
                let count: u64 = count.unwrap_or("0").parse().unwrap();
                if !value.contains(&count) {
                    self.faults.push(Fault::new(step.line, format!("{series} is {count}")));
                }
            }
            // Judged at the end.
            Action::Gets { .. } | Action::IsAsked { .. } => {}
        }
    }

    /// Asks as a listener does: what memory answers is replied to at once, the rest waits.
    fn ask(&mut self, line: usize, client: &str, ask: &Ask) {
        let place = self.log.asked.len();
        let octets = query(ask, place).octets();
        let text = format!("{client} asks {} {}", ask.name, super::words::rtype_name(ask.rtype));
        let received = clock::now();
        self.log.trace.push((received.saturating_duration_since(self.start), text));
        self.log.asked.push(AskedBy {
            line,
            client: client.to_owned(),
            ask: ask.clone(),
            octets: octets.clone(),
        });
        let parsed = QueryRef::parse(&octets).unwrap();
        let transport = if ask.tcp { ClientTransport::Tcp } else { ClientTransport::Udp };
        let mut out = vec![0; parsed.reply_limit(transport)];
        let resolver = self.core.resolver();
        let (progress, outcome) =
            resolver.answer_now(&resolver.round(received), &parsed, transport, &mut out);
        let peer = SocketAddr::new(self.address(client), u16::try_from(place).unwrap());
        match progress {
            Progress::Reply(written) => {
                let question = Some(parsed.question());
                let detail = QueryDetail { client: peer.ip(), question, upstream: None };
                record(&self.telemetry, &self.telemetry.block(), &outcome, &detail);
                out.truncate(written);
                self.hear(received, place, outcome.source.label().to_owned(), out);
            }
            Progress::Drop => {}
            Progress::Wait(pending) => {
                let waiter = Waiter {
                    sink: Arc::<Letterbox>::clone(&self.letterbox),
                    client: ClientToken { peer, local: None, interface: 0 },
                    transport,
                    query: octets.into(),
                    received,
                };
                self.core.resolver().enqueue(&mut vec![(pending, waiter)]);
            }
        }
    }

    /// The address of a client: each has its own.
    fn address(&mut self, client: &str) -> IpAddr {
        let place = self.clients.iter().position(|known| known == client).unwrap_or_else(|| {
            self.clients.push(client.to_owned());
            self.clients.len() - 1
        });
        let [.., high, low] = place.to_be_bytes();
        Ipv4Addr::new(10, 0, high, low).into()
    }

    /// Takes another configuration.
    fn reload(&mut self, config: &str, line: usize) -> Result<(), Fault> {
        let settings = settings(config, line)?;
        let prepared = self.core.prepare(&settings).map_err(|error| Fault::new(line, error.to_string()))?;
        self.core.adopt(prepared, &settings);
        self.settings = settings;
        Ok(())
    }

    /// How often something happened to a server.
    fn count(&self, server: &str, what: Tally) -> u64 {
        let server = self.cast.server(server);
        match what {
            Tally::Asked => server.count(false),
            Tally::Probed => server.count(true),
            Tally::Reset => *server.resets.borrow(),
            Tally::Drained => *server.drains.lock().unwrap(),
        }
    }

    /// Compares what is thought of a server.
    fn state(&mut self, line: usize, server: &str, up: bool) {
        let upstreams = self.core.upstreams();
        let text = match upstreams.iter().find(|upstream| upstream.name() == server) {
            None => format!("{server} is not in use"),
            Some(upstream) if upstream.is_up() == up => return,
            Some(_) => format!("{server} is {}", if up { "down" } else { "up" }),
        };
        self.faults.push(Fault::new(line, text));
    }

    /// What the metrics page shows beside the counters.
    fn readings(&self) -> Readings {
        let (cache_entries, cache_bytes) = self.core.cache().usage();
        let inflight = self.core.resolver().permits().in_use() as u64;
        let upstreams = self.core.upstreams();
        let upstreams = upstreams.iter().map(|upstream| UpstreamReading {
            name: upstream.name().to_owned(),
            up: upstream.is_up(),
            ..UpstreamReading::default()
        });
        let (upstreams, bounds) = (upstreams.collect(), Vec::new());
        Readings {
            cache_bytes,
            cache_entries,
            inflight,
            upstreams,
            bounds,
            ready: true,
            ..Readings::default()
        }
    }
}

/// Reads a configuration.
fn settings(config: &str, line: usize) -> Result<Settings, Fault> {
    from_text(config, Path::new(env!("CARGO_MANIFEST_DIR")))
        .map_err(|errors| Fault::new(line, format!("the configuration is refused: {errors}\n{config}")))
}

/// Makes a client's query; no two in a row have the same ID.
fn query(ask: &Ask, place: usize) -> message::Query {
    let mut query = message::query(&ask.name, ask.rtype);
    query.id = u16::try_from(place).unwrap().wrapping_mul(40_503).wrapping_add(7);
    query.edns = ask.payload;
    if ask.dnssec {
        query = query.dnssec();
    }
    if ask.checking_disabled {
        query = query.checking_disabled();
    }
    if let Some(subnet) = &ask.subnet {
        query = query.option(OPTION_ECS, subnet);
    }
    query
}

/// Where a reply can come from besides a server.
pub fn sources() -> impl Iterator<Item = &'static str> {
    Source::ALL.into_iter().map(Source::label)
}
