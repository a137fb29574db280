//! `veildns query`: asks once, through the same pipeline as the gateway, and says what came and from where.

use super::terminal::{Hue, Palette, Progress, commented};
use super::{CommandError, Exit, print, sources};
use crate::app::core::Core;
use crate::cli::{QueryArgs, RunArgs, exit};
use crate::config::settings::{Endpoint, Settings};
use crate::resolver::Step;
use crate::resolver::waiter::{ClientToken, ReplyBatch, ReplyNote, ReplySink, Waiter};
use crate::telemetry::counters::Telemetry;
use crate::telemetry::logging;
use crate::telemetry::outcome::Source;
use crate::upstream::Upstream;
use crate::wire::ede::EdeCode;
use crate::wire::name::{Name, NameError};
use crate::wire::query::{ClientTransport, QueryRef, SubnetOption, UpstreamQuery};
use crate::wire::question::{Class, QuestionRef, RecordType, UnknownType};
use crate::wire::record::{MessageText, RecordText, message_text};
use crate::wire::response::ResponseRef;
use crate::wire::{MAX_MESSAGE, header::Rcode};
use bytes::Bytes;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::oneshot;

/// Why nothing could be asked.
#[derive(Debug, Error)]
pub enum QueryError {
    /// The name.
    #[error("{name:?} is no domain name")]
    Name {
        /// As written.
        name: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// The type.
    #[error(transparent)]
    Type(#[from] UnknownType),
    /// Our own query was not taken; a bug.
    #[error("the query could not be built")]
    Build,
}

/// What came of it.
#[derive(Debug)]
struct Report {
    /// The name as asked.
    name: String,
    /// The type as asked.
    rtype: RecordType,
    /// The reply.
    message: Bytes,
    /// Where it came from.
    note: ReplyNote,
    /// From asking to the reply, connecting included.
    elapsed: Duration,
    /// The server that answered: name, protocol, TLS version.
    server: Option<(String, &'static str, Option<&'static str>)>,
}

/// Asks and prints.
///
/// # Errors
/// A wrong configuration, name or type.
pub(super) fn query(args: &QueryArgs) -> Result<Exit, CommandError> {
    let name: Name =
        args.name.parse().map_err(|source| QueryError::Name { name: args.name.clone(), source })?;
    let rtype: RecordType = args.rtype.parse().map_err(QueryError::from)?;
    let run = RunArgs {
        config: args.config.clone(),
        upstream: args.upstream.iter().cloned().collect(),
        ..RunArgs::default()
    };
    let settings = sources::load(&sources::source_of_run(&run))?;
    logging::init_quiet();
    let question = QuestionRef { name: name.view(), rtype, class: Class::IN };
    let report = ask(&settings, &question, args.dnssec)?;
    print(|out| {
        if args.json {
            writeln!(out, "{}", report.json())
        } else {
            out.write_all(report.text(Palette::of_stdout()).as_bytes())
        }
    })?;
    Ok(if report.got_answer() { Exit::OK } else { Exit(exit::FAILED) })
}

/// Runs the pipeline for one question.
fn ask(settings: &Settings, question: &QuestionRef<'_>, dnssec_ok: bool) -> Result<Report, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let core = Core::new(settings, Telemetry::new(), 1);
    {
        let _inside = runtime.enter();
        core.start(settings, &[runtime.handle().clone()])?;
    }
    let subnet = SubnetOption::Absent;
    let octets =
        UpstreamQuery { question: *question, dnssec_ok, checking_disabled: false, subnet, padding: false }
            .build();
    let started = crate::clock::now();
    let names: Vec<&str> = settings.servers.iter().map(|server| server.name.as_str()).collect();
    let progress = Progress::begin(&format!("asking {} ...", names.join(", ")));
    let (message, note) = runtime.block_on(through(&core, &octets)).ok_or(QueryError::Build)?;
    drop(progress);
    let elapsed = crate::clock::now().saturating_duration_since(started);
    let server = note
        .upstream
        .and_then(|id| core.upstreams().into_iter().find(|upstream| upstream.id() == id))
        .map(|upstream| server_facts(&upstream));
    runtime.block_on(core.stopped(Duration::from_millis(500)));
    Ok(Report { name: question.name.to_string(), rtype: question.rtype, message, note, elapsed, server })
}

/// Sends a query through the pipeline and waits for the reply: the pipeline's own deadline ends the wait.
async fn through(core: &Core, octets: &[u8]) -> Option<(Bytes, ReplyNote)> {
    let query = QueryRef::parse(octets).ok()?;
    let mut out = vec![0; MAX_MESSAGE];
    let now = crate::clock::now();
    let resolver = core.resolver();
    let (step, outcome) = resolver.answer_now(&resolver.round(now), &query, ClientTransport::Tcp, &mut out);
    match step {
        Step::Reply(written) => {
            out.truncate(written);
            Some((out.into(), ReplyNote { source: outcome.source, upstream: None }))
        }
        Step::Drop => None,
        Step::Wait(pending) => {
            let (sender, receiver) = oneshot::channel();
            let waiter = Waiter {
                sink: Arc::new(OneReply(Mutex::new(Some(sender)))),
                client: ClientToken {
                    peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                    local: None,
                    interface: 0,
                },
                transport: ClientTransport::Tcp,
                query: octets.into(),
                received: now,
            };
            core.resolver().enqueue(&mut vec![(pending, waiter)]);
            receiver.await.ok()
        }
    }
}

/// A sink for one reply.
#[derive(Debug)]
struct OneReply(Mutex<Option<oneshot::Sender<(Bytes, ReplyNote)>>>);

impl ReplySink for OneReply {
    fn send(&self, batch: &ReplyBatch) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(sender), Some((note, message))) = (sender, batch.notes().next()) {
            // Whoever asked may have gone away; then nobody misses the reply.
            let _ = sender.send((Bytes::copy_from_slice(message), note));
        }
    }
}

/// Returns what is said of the server that answered.
fn server_facts(upstream: &Upstream) -> (String, &'static str, Option<&'static str>) {
    let tls = upstream.transport().last_handshake().and_then(|handshake| handshake.tls_version);
    (upstream.name().to_owned(), protocol(&upstream.spec().endpoint), tls)
}

/// Returns a protocol's usual short name.
pub(super) fn protocol(endpoint: &Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Dot { .. } => "DoT",
        Endpoint::Doh { .. } => "DoH",
        Endpoint::PlainUdp { .. } => "plain UDP",
        Endpoint::PlainTcp { .. } => "plain TCP",
    }
}

impl Report {
    /// Returns the reply, if it can be read.
    fn response(&self) -> Option<ResponseRef<'_>> {
        ResponseRef::parse(&self.message).ok()
    }

    /// Returns the reply's rcode.
    fn rcode(&self) -> Rcode {
        self.response().map_or(Rcode::SERVFAIL, |response| response.rcode())
    }

    /// Returns true when somebody, or a rule of ours, answered the question.
    fn got_answer(&self) -> bool {
        self.note.source != Source::Failed && self.rcode() != Rcode::SERVFAIL
    }

    /// Returns the reason that the reply gives: code and text.
    fn reason(&self) -> Option<(EdeCode, String)> {
        let (code, text) = self.response()?.ede()?;
        Some((code, String::from_utf8_lossy(text).into_owned()))
    }

    /// Returns where the reply came from.
    fn origin(&self) -> String {
        match (&self.server, self.note.source) {
            (Some((name, protocol, Some(tls))), _) => format!("{name} ({protocol}, TLS {tls})"),
            (Some((name, protocol, None)), _) => format!("{name} ({protocol})"),
            (None, Source::Local) => "veildns itself".to_owned(),
            (None, Source::Blocked) => "a rule of veildns".to_owned(),
            (None, Source::Cache | Source::Stale) => "the cache".to_owned(),
            (None, Source::Upstream | Source::Refused | Source::Failed) => "no server".to_owned(),
        }
    }

    /// Returns the report for a person.
    fn text(&self, palette: Palette) -> String {
        let Self { name, rtype, .. } = self;
        let hue = if self.got_answer() { Hue::Good } else { Hue::Bad };
        let (rcode, origin) = (self.rcode().to_string(), self.origin());
        let head =
            commented(&format!("{name} {rtype}: {rcode} from {origin} in {} ms", self.elapsed.as_millis()));
        // Coloured when it is broken into lines. There are no blanks in a name.
        let mut text = head.replacen(&format!(" {rcode}"), &format!(" {}", palette.paint(hue, &rcode)), 1);
        if let Some((code, why)) = self.reason() {
            let colon = if why.is_empty() { "" } else { ": " };
            text.push_str(&commented(&format!("{code}{colon}{}", why.escape_debug())));
        }
        let records = message_text(&self.message).unwrap_or_default();
        for record in records.answer.iter().chain(&records.authority) {
            let RecordText { owner, ttl, class, rtype, rdata } = record;
            let _ = writeln!(text, "{owner}\t{ttl}\t{class}\t{rtype}\t{rdata}");
        }
        text
    }

    /// Returns the report for a program.
    fn json(&self) -> Value {
        let MessageText { answer, authority, .. } = message_text(&self.message).unwrap_or_default();
        let server = self.server.as_ref();
        json!({
            "name": self.name,
            "type": self.rtype.to_string(),
            "rcode": self.rcode().to_string(),
            "source": self.note.source.label(),
            "upstream": server.map(|(name, ..)| name),
            "protocol": server.map(|(_, protocol, _)| protocol),
            "tls_version": server.and_then(|(.., tls)| *tls),
            "duration_ms": u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX),
            "authentic_data": self.response().is_some_and(|response| response.header().authentic_data()),
            "extended_error": self.reason().map(|(code, text)| {
                json!({ "code": code.0, "purpose": code.purpose(), "text": text })
            }),
            "answer": answer.iter().map(record_json).collect::<Vec<_>>(),
            "authority": authority.iter().map(record_json).collect::<Vec<_>>(),
        })
    }
}

/// Returns one record for a program.
fn record_json(record: &RecordText) -> Value {
    let RecordText { owner, ttl, class, rtype, rdata } = record;
    json!({ "name": owner, "ttl": ttl, "class": class, "type": rtype, "data": rdata })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_text;
    use std::path::Path;
    use std::sync::mpsc;

    /// Runs `what` on a thread of its own, so that one which never ends fails the test.
    fn ends<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, wait) = mpsc::channel();
        std::thread::spawn(move || done.send(what()));
        wait.recv_timeout(Duration::from_secs(20)).expect("it should end")
    }

    #[test]
    fn asking_once_ends_whether_or_not_there_is_an_answer() {
        let refusing = "upstreams = [\"tls://127.0.0.1:1\"]";
        for (name, answered) in [("localhost", true), ("www.example", false)] {
            let report = ends(move || {
                let settings = from_text(refusing, Path::new(".")).unwrap();
                let name: Name = name.parse().unwrap();
                let question = QuestionRef { name: name.view(), rtype: RecordType::A, class: Class::IN };
                ask(&settings, &question, false).unwrap()
            });
            assert_eq!(report.got_answer(), answered);
        }
    }
}
