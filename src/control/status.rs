//! `veildns status`: how the running gateway is, on a page of 80 columns or as JSON, once or again and again. What is on the
//! page is the gateway's to say (`socket::report`).

use super::remote::{list, number, word};
use super::socket::client::{Client, ClientError};
use super::socket::protocol::Request;
use super::table::table;
use super::terminal::{Hue, Palette, fitted, on_screen, rows};
use super::{CommandError, Exit, print};
use crate::cli::StatusArgs;
use crate::config::summary::Page;
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// Columns of a name in the table, so that the whole fits 80 of them.
const NAME_COLUMNS: usize = 15;

/// Shows how the gateway is.
///
/// # Errors
/// A gateway that does not answer; output that cannot be written.
pub(super) fn status(args: &StatusArgs) -> Result<Exit, CommandError> {
    let client = Client::new(&args.socket)?;
    match args.watch {
        None => {
            let status = client.ask(&Request::Status)?;
            print(|out| {
                if args.json {
                    writeln!(out, "{status}")
                } else {
                    out.write_all(page(&status, Palette::of_stdout()).as_bytes())
                }
            })
        }
        Some(seconds) => watch(&client, Duration::from_secs(seconds.into()), args.json),
    }
}

/// Shows it again and again, also when the gateway goes and comes back; ends when nobody reads any more.
fn watch(client: &Client, pause: Duration, json: bool) -> Result<Exit, CommandError> {
    let mut out = io::stdout().lock();
    let redraws = out.is_terminal() && !json;
    let palette = Palette::of_stdout();
    loop {
        let text = match client.ask(&Request::Status) {
            Ok(status) if json => format!("{status}\n"),
            Ok(status) => page(&status, palette),
            // Only what may pass is waited for.
            Err(error @ (ClientError::NotRunning { .. } | ClientError::Silent { .. })) if json => {
                format!("{}\n", json!({ "state": "unreachable", "error": error.to_string() }))
            }
            Err(error @ (ClientError::NotRunning { .. } | ClientError::Silent { .. })) => {
                format!("{error}\n")
            }
            Err(error) => return Err(error.into()),
        };
        let text = if redraws { redrawn(&on_screen(&text, rows())) } else { separated(text, json) };
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => std::thread::sleep(pause),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::OK),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns a page that is drawn over the one before: from the top, each line to its end, and nothing below.
fn redrawn(text: &str) -> String {
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

/// Returns a page that is told from the next by an empty line, or a line of JSON as it is.
fn separated(text: String, json: bool) -> String {
    if json { text } else { text + "\n" }
}

/// Writes the page.
fn page(status: &Value, palette: Palette) -> String {
    let mut page = Page::default();
    let object = |key: &str| status.get(key).unwrap_or(&Value::Null);
    page.entry("veildns", headline(status));
    configuration(&mut page, object("configuration"));
    page.entry("queries", queries(object("queries")));
    page.entry("cache", cache(object("cache")));
    for group in list(status, "groups") {
        let names = list(group, "upstreams").len();
        let text = format!(
            "{}, {}: {} of {names} up",
            word(group, "name"),
            word(group, "strategy"),
            number(group, "up")
        );
        page.entry("group", text);
    }
    page.text.push('\n');
    page.text.push_str(&servers(list(status, "upstreams"), palette));
    let troubled = list(status, "upstreams").iter().filter(|server| !word(server, "last_error").is_empty());
    for (place, server) in troubled.enumerate() {
        if place == 0 {
            page.text.push('\n');
        }
        let ago = age(number(server, "last_error_seconds_ago"));
        page.entry(
            "last error",
            format!("{}, {ago} ago: {}", word(server, "name"), word(server, "last_error")),
        );
    }
    let warnings = list(status, "warnings");
    if !warnings.is_empty() {
        page.text.push('\n');
    }
    let end = page.text.len();
    for warning in warnings {
        page.entry("WARNING", word(warning, "text").to_owned());
    }
    let warnings = page.text.split_off(end);
    page.text.extend(warnings.lines().map(|line| palette.paint(Hue::Doubtful, line) + "\n"));
    page.text
}

/// Says what runs and since when.
fn headline(status: &Value) -> String {
    let memory = status.get("memory_bytes").and_then(Value::as_u64);
    let memory = memory.map_or_else(String::new, |octets| format!(", {} of memory", size(octets)));
    format!(
        "{} ({}), pid {}, {}, up {}{memory}",
        word(status, "version"),
        word(status, "commit"),
        number(status, "pid"),
        word(status, "state"),
        age(number(status, "uptime_seconds"))
    )
}

/// Says which configuration is in force.
fn configuration(page: &mut Page, configuration: &Value) {
    let texts = |key: &str| {
        list(configuration, key).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let files = texts("files");
    let from = if files.is_empty() { word(configuration, "from").to_owned() } else { files.join(", ") };
    page.entry("from", format!("{from}, read {} ago", age(number(configuration, "loaded_seconds_ago"))));
    let skipped: Vec<String> =
        texts("skipped").iter().map(|address| format!("{address} (not on this host)")).collect();
    page.entry("listen", [texts("listen"), skipped].concat().join(", "));
    if let Some(metrics) = configuration.get("metrics").and_then(Value::as_str) {
        page.entry("metrics", format!("http://{metrics}/metrics"));
    }
    page.entry(
        "log",
        format!("{}, query log {}", word(configuration, "log_level"), word(configuration, "query_log")),
    );
}

/// Says how many queries there were and what became of them.
fn queries(queries: &Value) -> String {
    let sources = queries.get("by_source").and_then(Value::as_object);
    let counts = sources.into_iter().flatten().filter_map(|(source, count)| Some((source, count.as_u64()?)));
    let mut counts: Vec<_> = counts.filter(|(_, count)| *count > 0).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let counts: Vec<String> =
        counts.iter().map(|(source, count)| format!("{source} {}", short(*count))).collect();
    let colon = if counts.is_empty() { "" } else { ": " };
    format!(
        "{}, {} waiting{colon}{}",
        short(number(queries, "total")),
        number(queries, "waiting"),
        counts.join(", ")
    )
}

/// Says how the cache does.
fn cache(cache: &Value) -> String {
    let ratio = cache.get("hit_ratio").and_then(Value::as_f64);
    let ratio =
        ratio.map_or_else(|| "not asked yet".to_owned(), |ratio| format!("{:.1} % hits", ratio * 100.0));
    let (bytes, most) = (number(cache, "bytes"), number(cache, "max_bytes"));
    if most == 0 {
        return "off".to_owned();
    }
    format!("{ratio}, {} answers in {} of {}", short(number(cache, "entries")), size(bytes), size(most))
}

/// Writes the table of servers.
fn servers(servers: &[Value], palette: Palette) -> String {
    let rows: Vec<[String; 9]> = servers
        .iter()
        .map(|server| {
            [
                fitted(word(server, "name"), NAME_COLUMNS),
                state(server),
                time(server, "score_ms"),
                time(server, "p50_ms"),
                time(server, "p95_ms"),
                short(number(server, "connections")),
                short(number(server, "waiting")),
                short(number(server, "answered")),
                short(number(server, "failed")),
            ]
        })
        .collect();
    let header = ["SERVER", "STATE", "SCORE", "P50", "P95", "CONN", "WAIT", "ANSWERED", "FAILED"];
    let hue = |server: &Value| if word(server, "state") == "up" { Hue::Plain } else { Hue::Bad };
    palette.paint_rows(&table(header, &rows), servers.iter().map(hue))
}

/// Says whether a server is up, or when it is looked at again.
fn state(server: &Value) -> String {
    match server.get("probe_in_ms").and_then(Value::as_f64) {
        Some(millis) => format!("down {:.0}s", (millis / 1000.0).ceil()),
        None => word(server, "state").to_owned(),
    }
}

/// Shows a time of milliseconds in at most six columns.
fn time(server: &Value, key: &str) -> String {
    match server.get(key).and_then(Value::as_f64) {
        None => "-".to_owned(),
        Some(millis) if millis < 100.0 => format!("{millis:.1}ms"),
        Some(millis) if millis < 9_999.5 => format!("{millis:.0}ms"),
        Some(millis) => format!("{:.0}s", millis / 1000.0),
    }
}

/// Shows a count in at most six columns.
fn short(count: u64) -> String {
    const STEPS: [(u64, &str); 4] =
        [(1_000_000_000_000, "T"), (1_000_000_000, "G"), (1_000_000, "M"), (10_000, "k")];
    let Some((step, unit)) = STEPS.into_iter().find(|(step, _)| count >= *step) else {
        return count.to_string();
    };
    let step = if unit == "k" { 1_000 } else { step };
    let (whole, tenth) = (count / step, count % step * 10 / step);
    if whole >= 1000 { format!("{whole}{unit}") } else { format!("{whole}.{tenth}{unit}") }
}

/// Shows a size.
fn size(octets: u64) -> String {
    const STEPS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match STEPS.into_iter().find(|(step, _)| octets >= *step) {
        Some((step, unit)) => format!("{}.{} {unit}", octets / step, octets % step * 10 / step),
        None => format!("{octets} B"),
    }
}

/// Shows a length of time by its two largest units.
fn age(secs: u64) -> String {
    let units = [(secs / 86_400, "d"), (secs / 3600 % 24, "h"), (secs / 60 % 60, "m"), (secs % 60, "s")];
    let first = units.iter().position(|(count, _)| *count > 0).unwrap_or(units.len() - 1);
    let shown = units.iter().skip(first).take(2).filter(|(count, unit)| *count > 0 || *unit == "s");
    let parts: Vec<String> = shown.map(|(count, unit)| format!("{count}{unit}")).collect();
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gateway with long names, large numbers and every kind of trouble.
    fn crowded() -> Value {
        let server = |name: &str, probe_in: Option<f64>| {
            json!({
                "name": name, "state": if probe_in.is_some() { "down" } else { "up" }, "probe_in_ms": probe_in,
                "score_ms": 5012.3, "p50_ms": 99.94, "p95_ms": 2000.0, "connections": 2, "waiting": 4096,
                "answered": 123_456_789_012_u64, "failed": 999_999, "last_error": if probe_in.is_some() {
                    json!("cannot connect to 192.0.2.1:853: the connection was refused by the other side of it")
                } else { Value::Null }, "last_error_seconds_ago": 61,
            })
        };
        json!({
            "version": "0.1.0", "commit": "0123456789ab", "pid": 4_194_304, "state": "serving",
            "uptime_seconds": 8_640_000, "memory_bytes": 123_456_789,
            "configuration": {
                "from": "/etc/veildns/veildns.toml", "files": ["/etc/veildns/veildns.toml", "/etc/veildns/veildns.d/10-home.toml"],
                "loaded_seconds_ago": 86_399, "listen": ["127.0.0.1:53", "192.168.1.1:53", "[2001:db8:1:2:3:4:5:6]:53"],
                "skipped": ["[::1]:5053"], "metrics": "127.0.0.1:9153", "query_log": "/var/log/veildns/queries.json",
                "log_level": "info",
            },
            "queries": { "total": 98_765_432_u64, "waiting": 17, "by_source": { "cache": 9_000_000, "upstream": 88_000_000_u64,
                "local": 12, "stale": 0, "failed": 34_000, "blocked": 4, "refused": 18_999 } },
            "cache": { "hits": 9, "misses": 1, "hit_ratio": 0.9123, "entries": 456_789, "bytes": 67_108_863, "max_bytes": 67_108_864 },
            "groups": [{ "name": "default", "strategy": "fastest", "upstreams": ["a", "b"], "up": 1 }],
            "upstreams": [server("quad9", None), server("https://dns.with-a-long-name.example/dns-query", Some(15_400.0))],
            "warnings": [{ "code": "clock", "text": "the clock is wrong: it says 1970-01-01T00:00:00.000Z, and it is 2026-11-22T20:58:00.123Z or later" }],
        })
    }

    #[test]
    fn the_page_fits_80_columns_however_much_is_on_it() {
        let text = page(&crowded(), Palette::None);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{} columns: {line}\n{text}", line.chars().count());
        }
        for part in [
            "0.1.0 (0123456789ab), pid 4194304, serving, up 100d, 117.7 MiB of",
            "91.2 % hits, 456.7k answers in 63.9 MiB of 64.0 MiB",
            "default, fastest: 1 of 2 up",
            "https://dns.wi…  down 16s",
            "123.4G",
            "WARNING",
            "last error",
            "23h 59m ago",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_coloured_and_nothing_else() {
        let (plain, coloured) = (page(&crowded(), Palette::None), page(&crowded(), Palette::Colours));
        let marked: Vec<&str> = coloured.lines().filter(|line| line.contains('\u{1b}')).collect();
        assert!(
            marked.iter().all(|line| line.contains("down 16s") || line.contains("\u{1b}[33m")),
            "{marked:?}"
        );
        assert!(marked.len() >= 2 && marked.len() < plain.lines().count(), "{coloured}");
    }

    #[test]
    fn a_page_of_a_gateway_that_says_little_is_still_a_page() {
        let text = page(&json!({}), Palette::None);
        assert!(text.starts_with("veildns ") && text.contains("SERVER"), "{text}");
    }

    #[test]
    fn counts_sizes_and_ages_are_short() {
        let counts = [0, 9_999, 10_000, 123_456, 1_000_000, 999_999_999, 1 << 40].map(short);
        assert_eq!(counts, ["0", "9999", "10.0k", "123.4k", "1.0M", "999.9M", "1.0T"]);
        assert_eq!([0, 1023, 1024, 64 << 20].map(size), ["0 B", "1023 B", "1.0 KiB", "64.0 MiB"]);
        let ages = [0, 59, 60, 61, 3600, 86_400, 90_061].map(age);
        assert_eq!(ages, ["0s", "59s", "1m 0s", "1m 1s", "1h", "1d", "1d 1h"]);
    }

    #[test]
    fn a_page_that_is_drawn_again_leaves_nothing_of_the_one_before() {
        assert_eq!(redrawn("a\nb\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
    }
}
