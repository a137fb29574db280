//! `veildns upstreams`: asks each server directly and shows how it does: times, TLS, certificate, and what it supports.

use super::query::protocol;
use super::table::table;
use super::terminal::{Hue, Palette, Progress, fitted, wrapped};
use super::{CommandError, Exit, print, sources};
use crate::app::core::Core;
use crate::cli::{UpstreamsArgs, exit};
use crate::config::settings::{MAX_MEMBERS, Settings};
use crate::config::units::show_measured;
use crate::config::{from_text, presets};
use crate::telemetry::counters::Telemetry;
use crate::telemetry::logging;
use crate::transport::{self, Handshake, TransportError};
use crate::upstream::{Failure, Upstream};
use crate::wire::edns::{OPTION_ECS, OPTION_PADDING};
use crate::wire::query::{SubnetOption, UpstreamQuery};
use crate::wire::question::RecordType;
use crate::wire::response::{ResponseRef, Section};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long one server may take for all its probes.
const LIMIT: Duration = Duration::from_secs(5);

/// Columns of a name in the table, so that the whole fits 80 of them.
const NAME_COLUMNS: usize = 18;

/// What was seen of one server.
#[derive(Debug)]
struct Sighting {
    /// Its name.
    name: String,
    /// Its protocol's short name.
    protocol: &'static str,
    /// The connection, if one was made.
    handshake: Option<Handshake>,
    /// What came of the probe.
    result: Result<Facts, TransportError>,
}

/// What a server showed.
#[derive(Debug)]
struct Facts {
    /// A query on the open connection.
    query: Duration,
    /// Did it pad its answer (RFC 8467)?
    padding: bool,
    /// Did it answer our ECS option (RFC 7871)?
    client_subnet: bool,
    /// Did it validate (AD), and send signatures?
    dnssec: bool,
}

/// Probes and prints.
///
/// # Errors
/// A wrong configuration; a file of roots that cannot be read.
pub(super) fn upstreams(args: &UpstreamsArgs) -> Result<Exit, CommandError> {
    let mut settings = sources::load_plain(&args.config)?;
    if args.all {
        let tls = settings.tls.clone();
        settings = all_presets()?;
        settings.tls = tls;
    }
    logging::init_quiet();
    let sightings = probe_all(&settings)?;
    print(|out| {
        if args.json {
            let list: Vec<Value> = sightings.iter().map(Sighting::json).collect();
            writeln!(out, "{}", Value::from(list))
        } else {
            out.write_all(render(&sightings, Palette::of_stdout()).as_bytes())
        }
    })?;
    let any = sightings.iter().any(|sighting| sighting.result.is_ok());
    Ok(if any { Exit::OK } else { Exit(exit::FAILED) })
}

/// Returns settings that name every preset that needs no account.
fn all_presets() -> Result<Settings, CommandError> {
    let usable = presets::all().iter().filter(|preset| !preset.needs_account());
    let names: Vec<String> = usable.map(|preset| format!("{:?}", preset.name)).collect();
    // As many groups as it takes: which group a server is in makes no difference here.
    let lists = names.chunks(MAX_MEMBERS).map(|chunk| format!("upstreams = [{}]\n", chunk.join(", ")));
    let text: String = lists
        .enumerate()
        .map(|(number, list)| if number == 0 { list } else { format!("[group.more-{number}]\n{list}") })
        .collect();
    Ok(from_text(&text, Path::new("."))?)
}

/// Probes every server of `settings`, all at once, showing progress on a terminal.
fn probe_all(settings: &Settings) -> Result<Vec<Sighting>, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let core = Core::new(settings, Telemetry::new(), 1);
    {
        let _inside = runtime.enter();
        core.start(settings, &[runtime.handle().clone()])?;
    }
    let servers = core.upstreams();
    let total = servers.len();
    let progress = Progress::begin(&format!("probing {total} servers ..."));
    let mut sightings: Vec<(usize, Sighting)> = runtime.block_on(async {
        let mut probes: FuturesUnordered<_> = servers.into_iter().enumerate().map(probe).collect();
        let mut seen = Vec::new();
        while let Some(sighting) = probes.next().await {
            seen.push(sighting);
            progress.show(&format!("probed {} of {total} servers", seen.len()));
        }
        seen
    });
    drop(progress);
    runtime.block_on(core.stopped(Duration::from_millis(500)));
    sightings.sort_by_key(|(place, _)| *place);
    Ok(sightings.into_iter().map(|(_, sighting)| sighting).collect())
}

/// Probes one server: a query that opens the connection, and one on the open connection.
async fn probe((place, upstream): (usize, Arc<Upstream>)) -> (usize, Sighting) {
    let result = facts(&upstream).await;
    let sighting = Sighting {
        name: upstream.name().to_owned(),
        protocol: protocol(&upstream.spec().endpoint),
        handshake: upstream.transport().last_handshake(),
        result,
    };
    (place, sighting)
}

/// Asks a server twice.
async fn facts(upstream: &Upstream) -> Result<Facts, TransportError> {
    let deadline = crate::clock::now() + LIMIT;
    let query =
        UpstreamQuery { dnssec_ok: true, subnet: SubnetOption::OptOut, ..UpstreamQuery::sign_of_life(true) }
            .build();
    transport::exchange(upstream.transport(), query.clone(), deadline).await?;
    let started = crate::clock::now();
    let received = transport::exchange(upstream.transport(), query, deadline).await?;
    let took = crate::clock::now().saturating_duration_since(started);
    let response = ResponseRef::parse(&received.message).map_err(TransportError::Mismatch)?;
    let edns = response.edns();
    let has = |code| edns.is_some_and(|edns| edns.option(code).is_some());
    let signed = response.records(Section::Answer).any(|record| record.rtype == RecordType::RRSIG);
    Ok(Facts {
        query: took,
        padding: has(OPTION_PADDING),
        client_subnet: has(OPTION_ECS),
        dnssec: signed && response.header().authentic_data(),
    })
}

/// Returns the table for a person, with the failures below it: 80 columns.
fn render(sightings: &[Sighting], palette: Palette) -> String {
    let rows: Vec<_> = sightings.iter().map(Sighting::row).collect();
    let header = ["SERVER", "VIA", "CONNECT", "TLS", "QUERY", "VER", "CERT", "PAD", "ECS", "DNSSEC"];
    let hue = |sighting: &Sighting| if sighting.result.is_ok() { Hue::Plain } else { Hue::Bad };
    let mut text = palette.paint_rows(&table(header, &rows), sightings.iter().map(hue));
    for Sighting { name, result, .. } in sightings {
        if let Err(error) = result {
            let why = format!("{name}: asked for the root's name servers: {}", Failure::from(error));
            text.push_str(&wrapped("", &why));
        }
    }
    text
}

impl Sighting {
    /// Returns its row in the table.
    fn row(&self) -> [String; 10] {
        let none = || "-".to_owned();
        let handshake = self.handshake.as_ref();
        let facts = self.result.as_ref().ok();
        // What failed is the connection, or else the query for the root's name servers.
        let (connect, query) =
            if handshake.is_some() { (none(), "failed") } else { ("failed".to_owned(), "-") };
        let connect = if facts.is_some() { none() } else { connect };
        [
            fitted(&self.name, NAME_COLUMNS),
            self.protocol.trim_start_matches("plain ").to_owned(),
            handshake.map_or(connect, |h| show_measured(h.connect_time)),
            handshake.map_or_else(none, |h| show_measured(h.handshake_time)),
            facts.map_or_else(|| query.to_owned(), |facts| show_measured(facts.query)),
            handshake.and_then(|h| h.tls_version).map_or_else(none, str::to_owned),
            handshake.and_then(days_left).map_or_else(none, |days| format!("{days} d")),
            facts.map_or_else(none, |facts| yes(facts.padding)),
            facts.map_or_else(none, |facts| yes(facts.client_subnet)),
            facts.map_or_else(none, |facts| yes(facts.dnssec)),
        ]
    }

    /// Returns it for a program.
    fn json(&self) -> Value {
        let Self { name, protocol, handshake, result } = self;
        let facts = match result {
            Ok(facts) => facts,
            Err(error) => {
                return json!({ "name": name, "protocol": protocol, "ok": false, "error": Failure::from(error).to_string() });
            }
        };
        let handshake = handshake.as_ref();
        json!({
            "name": name,
            "protocol": protocol,
            "ok": true,
            "address": handshake.map(|h| h.address.to_string()),
            "connect_ms": handshake.map(|h| h.connect_time.as_secs_f64() * 1e3),
            "handshake_ms": handshake.map(|h| h.handshake_time.as_secs_f64() * 1e3),
            "query_ms": facts.query.as_secs_f64() * 1e3,
            "tls_version": handshake.and_then(|h| h.tls_version),
            "certificate_not_after": handshake.and_then(|h| h.certificate_not_after),
            "padding": facts.padding,
            "client_subnet": facts.client_subnet,
            "dnssec": facts.dnssec,
        })
    }
}

/// Returns the days until the certificate ends.
fn days_left(handshake: &Handshake) -> Option<i64> {
    let now = crate::clock::wall().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some((handshake.certificate_not_after? - i64::try_from(now.as_secs()).ok()?) / 86_400)
}

/// Returns a word for a flag.
fn yes(flag: bool) -> String {
    if flag { "yes" } else { "no" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn all_presets_are_more_than_one_group_holds_and_still_probed() {
        let usable = presets::all().iter().filter(|preset| !preset.needs_account()).count();
        assert!(usable > MAX_MEMBERS);
        assert_eq!(all_presets().unwrap().servers.len(), usable);
    }

    #[test]
    fn the_table_fits_80_columns_whatever_the_servers_are_called() {
        let now = crate::clock::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let in_a_year = now + Duration::from_secs(398 * 86_400);
        let handshake = Handshake {
            address: "192.0.2.1:443".parse().unwrap(),
            connect_time: Duration::from_millis(1999),
            handshake_time: Duration::from_millis(4999),
            tls_version: Some("1.3"),
            resumed: false,
            certificate_not_after: i64::try_from(in_a_year.as_secs()).ok(),
        };
        let good = Sighting {
            name: "https://dns.with-a-long-name.example/dns-query".to_owned(),
            protocol: "plain UDP",
            handshake: Some(handshake),
            result: Ok(Facts {
                query: Duration::from_millis(4999),
                padding: true,
                client_subnet: true,
                dnssec: true,
            }),
        };
        let host = "a-name-that-is-very-long.resolvers.example".to_owned();
        let bad = Sighting {
            name: host.clone(),
            protocol: "DoT",
            handshake: None,
            result: Err(TransportError::NoAddress { host }),
        };
        let text = render(&[good, bad], Palette::None);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("https://dns.with-…") && text.contains("failed"), "{text}");
    }

    #[test]
    fn probing_ends_when_nobody_answers() {
        let (done, wait) = mpsc::channel();
        std::thread::spawn(move || {
            let settings = from_text("upstreams = [\"tls://127.0.0.1:1\"]", Path::new(".")).unwrap();
            done.send(probe_all(&settings).unwrap())
        });
        let sightings = wait.recv_timeout(Duration::from_secs(20)).expect("it should end");
        assert!(sightings.iter().all(|sighting| sighting.result.is_err()));
    }
}
