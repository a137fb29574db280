//! Compares what was seen with what the script awaits. Whatever no line awaits is a fault too: a reply, a query without
//! a reply, a server whose queries nobody counted.

use super::message::{Message, OPTION_ECS, OPTION_PADDING, Record as Seen, rtype};
use super::script::{Action, Asked, Fault, Record, Reply, Script, Step, Tally, When};
use super::server::{Cast, Query};
use super::stage::{GRACE, Heard, Log, sources};
use super::words::{rcode_name, rtype_name};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Judges a run.
pub fn judge(script: &Script, log: &Log, cast: &Cast, start: Instant) -> Vec<Fault> {
    let mut faults = replies(script, log);
    faults.extend(log.heard.iter().flat_map(|heard| form(heard, log)));
    for name in &script.servers {
        let server = cast.server(name);
        let queries = server.queries.lock().unwrap();
        faults.extend(queries_of(script, name, &queries, start));
    }
    faults
}

/// Finds the reply of each line that awaits one, and the line of each reply.
fn replies(script: &Script, log: &Log) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut claimed = HashSet::new();
    for step in &script.steps {
        let Action::Gets { client, reply } = &step.action else { continue };
        if let Some(from) = &reply.from
            && !sources().any(|source| source == from)
            && !script.servers.contains(from)
        {
            faults.push(Fault::new(step.line, format!("`{from}` is neither a source nor a server")));
        }
        let of_this = |heard: &Heard| {
            let asked = &log.asked[heard.asked];
            asked.client == *client
                && reply.name.as_ref().is_none_or(|name| *name == asked.ask.name)
                && reply.rtype.is_none_or(|rtype| rtype == asked.ask.rtype)
        };
        let found =
            (0..log.heard.len()).find(|place| !claimed.contains(place) && of_this(&log.heard[*place]));
        let Some(place) = found else {
            faults.push(Fault::new(step.line, format!("{client} gets nothing")));
            continue;
        };
        claimed.insert(place);
        let heard = &log.heard[place];
        let wrong = differences(reply, heard);
        if !wrong.is_empty() {
            let text = format!("{client} gets {}: {}", describe(heard, log), wrong.join(", "));
            faults.push(Fault::new(step.line, text));
        }
        faults.extend(time(step, heard.at, client));
    }
    for (place, heard) in log.heard.iter().enumerate().filter(|(place, _)| !claimed.contains(place)) {
        let asked = &log.asked[heard.asked];
        let what = describe(heard, log);
        let twice = log.heard[..place].iter().any(|other| other.asked == heard.asked);
        let why = if twice { "a second reply" } else { "no line awaits it" };
        faults.push(Fault::new(asked.line, format!("{} gets {what} at {:?}: {why}", asked.client, heard.at)));
    }
    for (place, asked) in log.asked.iter().enumerate() {
        if !log.heard.iter().any(|heard| heard.asked == place) {
            faults.push(Fault::new(asked.line, format!("{} never gets a reply", asked.client)));
        }
    }
    faults
}

/// Compares a time.
fn time(step: &Step, at: Duration, who: &str) -> Option<Fault> {
    let (from, to) = match step.when {
        When::At(from) => (from, from + GRACE),
        When::Between(from, to) => (from, to),
        When::End => return None,
    };
    let is_early = at < from;
    let word = if is_early { "early" } else { "late" };
    (is_early || at > to).then(|| Fault::new(step.line, format!("{who}: too {word}, at {at:?}")))
}

/// What is other than awaited.
fn differences(reply: &Reply, heard: &Heard) -> Vec<String> {
    let message = &heard.message;
    let mut wrong = Vec::new();
    if message.rcode() != reply.rcode {
        wrong.push(format!("not {}", rcode_name(reply.rcode)));
    }
    if let Some(from) = reply.from.as_ref().filter(|from| **from != heard.from) {
        wrong.push(format!("not from {from}"));
    }
    match (&reply.ede, message.ede()) {
        (None, None) => {}
        (Some((code, text)), Some((seen, seen_text))) if *code == seen => {
            if let Some(text) = text.as_ref().filter(|text| !seen_text.contains(*text)) {
                wrong.push(format!("the text of its ede has no \"{text}\""));
            }
        }
        (Some((code, _)), _) => wrong.push(format!("not ede {code}")),
        (None, Some((code, _))) => wrong.push(format!("no line says ede {code}")),
    }
    if message.option(OPTION_ECS) != reply.subnet.as_deref() {
        wrong.push(format!("with ECS data {:?}", message.option(OPTION_ECS)));
    }
    if message.is_authentic() != reply.authentic {
        wrong.push("ad".to_owned());
    }
    if message.is_truncated() != reply.truncated {
        wrong.push("tc".to_owned());
    }
    if let Some(records) = &reply.records {
        let seen = || message.answers.iter().chain(&message.authority);
        let same = records.len() == seen().count()
            && records.iter().zip(seen()).all(|(awaited, seen)| matches_record(awaited, seen));
        if !same {
            let awaited: Vec<_> = records.iter().map(|record| record.text.as_str()).collect();
            wrong.push(format!("not [{}]", awaited.join(", ")));
        }
    }
    wrong
}

/// Compares a record.
fn matches_record(awaited: &Record, seen: &Seen) -> bool {
    let same_data = if awaited.rtype == rtype::SOA {
        // Of an SOA, the minimum counts, if it is said.
        let last = |rdata: &[u8]| rdata[rdata.len() - 4..].to_vec();
        !awaited.text.contains("minimum") || last(&awaited.rdata) == last(&seen.rdata)
    } else {
        awaited.rdata == seen.rdata
    };
    same_data
        && awaited.rtype == seen.rtype
        && awaited.ttl.is_none_or(|ttl| ttl == seen.ttl)
        && awaited.owner.as_ref().is_none_or(|owner| seen.name.trim_end_matches('.') == owner)
}

/// What holds for every reply: it is the reply to this very query, to the octet.
fn form(heard: &Heard, log: &Log) -> Vec<Fault> {
    let asked = &log.asked[heard.asked];
    let query = Message::read(&asked.octets);
    let end = 12 + super::message::encode_name(&asked.ask.name).len() + 4;
    let rules = [
        (heard.octets[..2] == asked.octets[..2], "the ID of another query"),
        (heard.octets.get(12..end) == asked.octets.get(12..end), "the question is not the client's own"),
        (heard.message.flags & 0x8000 != 0, "not marked as a response"),
        (heard.message.flags & 0x0080 != 0, "RA is not set"),
        (heard.message.flags & 0x0110 == query.flags & 0x0110, "RD and CD are not the client's"),
        (
            heard.message.opt.is_some() == query.opt.is_some(),
            "EDNS to who did not ask for it, or none to who did",
        ),
        (heard.message.additional.is_empty(), "records in the additional section"),
        (heard.message.option(OPTION_PADDING).is_none(), "padding"),
    ];
    let broken = rules.iter().filter(|(holds, _)| !holds);
    broken.map(|(_, text)| Fault::new(asked.line, format!("the reply to {}: {text}", asked.client))).collect()
}

/// Finds the query of each line that awaits one at this server, and asks that its queries are counted.
fn queries_of(script: &Script, server: &str, queries: &[Query], start: Instant) -> Vec<Fault> {
    let mut faults = Vec::new();
    let users: Vec<&Query> = queries.iter().filter(|query| !query.is_probe).collect();
    let mut claimed = HashSet::new();
    let mut counted = false;
    for step in &script.steps {
        match &step.action {
            Action::Count { server: of, what: Tally::Asked, .. }
                if of == server && step.when == When::End =>
            {
                counted = true;
            }
            Action::IsAsked { server: of, query } if of == server => {
                let free =
                    |place: &usize| !claimed.contains(place) && is_about(query, &users[*place].message);
                let is_in_time =
                    |place: &usize| users[*place].at.saturating_duration_since(start) >= step.when.from();
                let found = (0..users.len()).filter(free).find(is_in_time);
                let Some(place) = found.or_else(|| (0..users.len()).find(free)) else {
                    faults.push(Fault::new(step.line, format!("{server} is not asked")));
                    continue;
                };
                claimed.insert(place);
                let seen = users[place];
                faults.extend(
                    properties(query, &seen.message)
                        .into_iter()
                        .map(|text| Fault::new(step.line, format!("{server} is asked {text}"))),
                );
                faults.extend(time(step, seen.at.saturating_duration_since(start), server));
            }
            Action::IsAsked { .. } | Action::Count { .. } | Action::Gets { .. } | Action::Ask { .. } => {}
            Action::Behave { .. } | Action::State { .. } | Action::Counter { .. } => {}
            Action::Reload { .. } | Action::Stop | Action::Network => {}
        }
    }
    if !counted && claimed.len() < users.len() {
        let text =
            format!("no line says how often {server} was asked (end {server} was asked …): {}", users.len());
        faults.push(Fault::new(0, text));
    }
    if users.iter().any(|query| !query.was_expected) {
        faults.push(Fault::new(0, format!("{server} was asked, but no line said what it does then")));
    }
    faults
}

/// True for a query for that name and type.
fn is_about(awaited: &Asked, seen: &Message) -> bool {
    let Some(question) = &seen.question else { return false };
    awaited.name.as_ref().is_none_or(|name| question.name.trim_end_matches('.') == name)
        && awaited.rtype.is_none_or(|rtype| rtype == question.rtype)
}

/// What is other than awaited.
fn properties(awaited: &Asked, seen: &Message) -> Vec<String> {
    let dnssec = seen.opt.as_ref().is_some_and(|opt| opt.dnssec_ok);
    let flags = [
        (awaited.dnssec, dnssec, "do"),
        (awaited.checking_disabled, seen.flags & 0x0010 != 0, "cd"),
        (awaited.padded, seen.option(OPTION_PADDING).is_some(), "padding"),
    ];
    let wrong = flags.iter().filter(|(awaited, seen, _)| awaited.is_some_and(|awaited| awaited != *seen));
    let mut wrong: Vec<_> =
        wrong.map(|(_, seen, name)| format!("{} {name}", if *seen { "with" } else { "without" })).collect();
    if let Some(subnet) = &awaited.subnet
        && subnet.as_deref() != seen.option(OPTION_ECS)
    {
        wrong.push(format!("with ECS data {:?}", seen.option(OPTION_ECS)));
    }
    wrong
}

/// Says in words what a client got.
pub fn describe(heard: &Heard, log: &Log) -> String {
    let asked = &log.asked[heard.asked];
    let message = &heard.message;
    let mut text =
        format!("{} for {} {}", rcode_name(message.rcode()), asked.ask.name, rtype_name(asked.ask.rtype));
    text += &format!(" from {}", heard.from);
    if let Some((code, reason)) = message.ede() {
        text += &format!(" ede {code} \"{reason}\"");
    }
    for (set, word) in [(message.is_authentic(), " ad"), (message.is_truncated(), " tc")] {
        text += if set { word } else { "" };
    }
    for record in message.answers.iter().chain(&message.authority) {
        text += &format!(", {} {} ttl {}", rtype_name(record.rtype), data(record), record.ttl);
    }
    text
}

/// Writes the data of a record.
fn data(record: &Seen) -> String {
    match (record.rtype, record.rdata.as_slice()) {
        (rtype::A, [a, b, c, d]) => format!("{a}.{b}.{c}.{d}"),
        (rtype::SOA, rdata) if rdata.len() > 4 => {
            let minimum = rdata[rdata.len() - 4..].iter().fold(0, |sum, octet| sum * 256 + u32::from(*octet));
            format!("minimum {minimum}")
        }
        (_, rdata) => format!("{rdata:02x?}"),
    }
}
