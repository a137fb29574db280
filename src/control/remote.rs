//! `veildns cache` and `veildns log-level`: sends what the operator wants to the gateway that runs, and prints what it says.

use super::query::QueryError;
use super::socket::client::Client;
use super::socket::protocol::{Flush, LevelChange, Request};
use super::terminal::commented;
use super::{CommandError, Exit, print};
use crate::cli::{CacheCommand, DumpArgs, FlushArgs, Level, LogLevelArgs, WantedLevel};
use crate::wire::name::Name;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write as _;

/// Does what is wanted of the cache.
///
/// # Errors
/// A name that is none; a gateway that does not answer.
pub(super) fn cache(command: CacheCommand) -> Result<Exit, CommandError> {
    match command {
        CacheCommand::Flush(args) => flush(&args),
        CacheCommand::Dump(args) => dump(&args),
    }
}

/// Makes the cache forget.
fn flush(args: &FlushArgs) -> Result<Exit, CommandError> {
    let what = match &args.name {
        None => Flush::All,
        Some(text) if args.subtree => Flush::Subtree(name(text)?),
        Some(text) => Flush::Name(name(text)?),
    };
    let answer = Client::new(&args.socket)?.ask(&Request::Flush(what))?;
    say(&answer, args.json, |answer| match number(answer, "removed") {
        1 => "1 answer forgotten\n".to_owned(),
        count => format!("{count} answers forgotten\n"),
    })
}

/// Shows what is kept of a name.
fn dump(args: &DumpArgs) -> Result<Exit, CommandError> {
    let name = name(&args.name)?;
    let answer = Client::new(&args.socket)?.ask(&Request::Dump(name))?;
    say(&answer, args.json, dump_text)
}

/// Changes the log level.
///
/// # Errors
/// A gateway that does not answer.
pub(super) fn log_level(args: &LogLevelArgs) -> Result<Exit, CommandError> {
    let change = match args.level {
        WantedLevel::Error => LevelChange::To(Level::Error),
        WantedLevel::Warn => LevelChange::To(Level::Warn),
        WantedLevel::Info => LevelChange::To(Level::Info),
        WantedLevel::Debug => LevelChange::To(Level::Debug),
        WantedLevel::Trace => LevelChange::To(Level::Trace),
        WantedLevel::Reset => LevelChange::Reset,
    };
    let answer = Client::new(&args.socket)?.ask(&Request::LogLevel(change))?;
    say(&answer, args.json, |answer| {
        format!("log level is {}, was {}\n", word(answer, "level"), word(answer, "before"))
    })
}

/// Prints an answer for a program or for a person.
fn say(answer: &Value, json: bool, text: impl FnOnce(&Value) -> String) -> Result<Exit, CommandError> {
    print(|out| if json { writeln!(out, "{answer}") } else { out.write_all(text(answer).as_bytes()) })
}

/// Reads a name from the command line.
fn name(text: &str) -> Result<Name, QueryError> {
    text.parse().map_err(|source| QueryError::Name { name: text.to_owned(), source })
}

/// Shows what is kept, an entry after the other with its records.
fn dump_text(answer: &Value) -> String {
    let name = word(answer, "name");
    let entries = list(answer, "entries");
    if entries.is_empty() {
        return format!("nothing is kept of {name}\n");
    }
    let mut text = String::new();
    for entry in entries {
        text.push_str(&commented(&format!("{name} {}: {}", word(entry, "type"), facts(entry))));
        for record in list(entry, "answer").iter().chain(list(entry, "authority")) {
            let ttl = number(record, "ttl");
            let (owner, class) = (word(record, "name"), word(record, "class"));
            let _ =
                writeln!(text, "{owner}\t{ttl}\t{class}\t{}\t{}", word(record, "type"), word(record, "data"));
        }
    }
    if answer.get("truncated").and_then(Value::as_bool) == Some(true) {
        text.push_str("; and more, which is not shown\n");
    }
    text
}

/// Says what an entry is: rcode, how long it is good, for whom.
fn facts(entry: &Value) -> String {
    let left = number(entry, "seconds_left");
    let mut facts = vec![word(entry, "rcode").to_owned()];
    facts.push(match word(entry, "standing") {
        "fresh" => format!("fresh for {left} s"),
        "stale" => format!("stale, may help out for {left} s"),
        "failure" => format!("a failure, remembered for {left} s"),
        _ => "of no more use".to_owned(),
    });
    facts.push(format!("{} s old", number(entry, "age_seconds")));
    let failing = number(entry, "failing_seconds");
    if failing > 0 && word(entry, "standing") != "failure" {
        facts.push(format!("not asked anew for {failing} s"));
    }
    if word(entry, "class") != "IN" {
        facts.push(format!("class {}", word(entry, "class")));
    }
    for (key, flag) in [("dnssec_ok", "DO"), ("checking_disabled", "CD"), ("authentic_data", "AD")] {
        if entry.get(key).and_then(Value::as_bool) == Some(true) {
            facts.push(flag.to_owned());
        }
    }
    if let Some(code) = entry.get("ede").and_then(Value::as_u64) {
        facts.push(format!("EDE {code}"));
    }
    facts.push(match entry.get("group").and_then(Value::as_str) {
        Some(group) => format!("group {group}"),
        None => "under rules no longer in force".to_owned(),
    });
    facts.join(", ")
}

/// Returns a text of an object; empty when there is none.
pub(super) fn word<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Returns a whole number of an object; 0 when there is none.
pub(super) fn number(object: &Value, key: &str) -> u64 {
    object.get(key).and_then(Value::as_u64).unwrap_or_default()
}

/// Returns a list of an object; empty when there is none.
pub(super) fn list<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    object.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_entry_is_told_with_all_that_sets_it_apart() {
        let answer = json!({ "name": "www.example.", "truncated": true, "entries": [
            { "type": "A", "class": "IN", "dnssec_ok": true, "checking_disabled": false, "group": "default",
              "standing": "fresh", "seconds_left": 7, "age_seconds": 3, "failing_seconds": null, "rcode": "NOERROR",
              "authentic_data": true, "ede": null, "octets": 50, "authority": [],
              "answer": [{ "name": "www.example.", "ttl": 7, "class": "IN", "type": "A", "data": "192.0.2.1" }] },
            { "type": "MX", "class": "CH", "dnssec_ok": false, "checking_disabled": true, "group": null,
              "standing": "stale", "seconds_left": 70, "age_seconds": 90, "failing_seconds": 4, "rcode": "NXDOMAIN",
              "authentic_data": false, "ede": 22, "octets": 50, "authority": [], "answer": [] },
        ]});
        assert_eq!(
            dump_text(&answer),
            "; www.example. A: NOERROR, fresh for 7 s, 3 s old, DO, AD, group default\n\
             www.example.\t7\tIN\tA\t192.0.2.1\n\
             ; www.example. MX: NXDOMAIN, stale, may help out for 70 s, 90 s old, not asked\n;   anew for 4 s, \
             class CH, CD, EDE 22, under rules no longer in force\n\
             ; and more, which is not shown\n"
        );
        assert_eq!(
            dump_text(&json!({ "name": "x.", "entries": [], "truncated": false })),
            "nothing is kept of x.\n"
        );
    }
}
