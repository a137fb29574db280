//! One line of the query log: what is remembered of a query until a thread of its own writes it, how it looks, and what
//! the operator wants left out of it. Where lines go is `query_log`'s matter.

use super::outcome::{Outcome, QueryDetail};
use super::timestamp::Timestamp;
use crate::config::settings::{QueryClients, QueryFormat, QueryLines, QueryNames};
use crate::wire::name::NameRef;
use crate::wire::query::ClientTransport;
use crate::wire::question::QuestionRef;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

/// One query, as it is remembered until its line is written.
#[derive(Debug)]
pub(super) struct Entry {
    /// When it was answered.
    time: SystemTime,
    /// Who asked.
    client: IpAddr,
    /// The question's octets; None when it could not be read.
    question: Option<Box<[u8]>>,
    /// Name of the server that answered.
    upstream: Option<Box<str>>,
    /// The rest.
    outcome: Outcome,
}

impl Entry {
    /// Copies what the line needs.
    pub(super) fn new(outcome: &Outcome, detail: &QueryDetail<'_>, time: SystemTime) -> Self {
        let question = detail.question.map(|question| {
            let mut octets = Vec::with_capacity(question.wire_len());
            octets.extend_from_slice(question.name.as_bytes());
            octets.extend_from_slice(&question.rtype.0.to_be_bytes());
            octets.extend_from_slice(&question.class.0.to_be_bytes());
            octets.into_boxed_slice()
        });
        Self {
            time,
            // A client of a dual-stack socket is the same client.
            client: detail.client.to_canonical(),
            question,
            upstream: detail.upstream.map(Box::from),
            outcome: *outcome,
        }
    }

    /// Returns the question, if it could be read.
    fn question(&self) -> Option<QuestionRef<'_>> {
        self.question.as_deref().and_then(QuestionRef::parse)
    }
}

/// Makes lines of entries.
#[derive(Clone, Debug)]
pub(super) struct LineWriter {
    /// What is in a line.
    lines: QueryLines,
    /// Hashes names.
    key: NameKey,
}

impl LineWriter {
    /// Makes one for lines such as the operator wants.
    pub(super) fn new(lines: QueryLines, key: NameKey) -> Self {
        Self { lines, key }
    }

    /// Appends the line of an entry.
    ///
    /// # Errors
    /// None that can be helped: writing into memory does not fail.
    pub(super) fn write(&self, entry: &Entry, out: &mut Vec<u8>) -> io::Result<()> {
        match self.lines.format {
            QueryFormat::Json => self.write_json(entry, out),
            QueryFormat::Text => self.write_text(entry, out),
        }
    }

    /// Appends an object of JSON. Keys and their order are part of the interface.
    fn write_json(&self, entry: &Entry, line: &mut Vec<u8>) -> io::Result<()> {
        let question = entry.question();
        write!(line, r#"{{"time":"{}","#, Timestamp(entry.time))?;
        if let Some(client) = self.client(entry.client) {
            write!(line, r#""client":"{client}","#)?;
        }
        write!(line, r#""name":"#)?;
        string(line, self.name(entry).as_deref())?;
        write!(line, r#","type":"#)?;
        string(line, question.map(|question| question.rtype.to_string()).as_deref())?;
        write!(line, r#","class":"#)?;
        string(line, question.map(|question| question.class.to_string()).as_deref())?;
        let Outcome { rcode, source, transport, .. } = entry.outcome;
        let (transport, source) = (transport_label(transport), source.label());
        write!(line, r#","transport":"{transport}","rcode":"{rcode}","source":"{source}","upstream":"#)?;
        string(line, entry.upstream.as_deref())?;
        let (millis, micros) = duration(entry);
        write!(line, r#","duration_ms":{millis}.{micros:03},"ede":"#)?;
        match entry.outcome.ede {
            Some(code) => writeln!(line, "{}}}", code.0),
            None => writeln!(line, "null}}"),
        }
    }

    /// Appends words between single blanks, always the same number of them; `-` stands for what there is not.
    fn write_text(&self, entry: &Entry, line: &mut Vec<u8>) -> io::Result<()> {
        let Outcome { rcode, source, transport, ede, .. } = entry.outcome;
        write!(line, "{} ", Timestamp(entry.time))?;
        word(line, self.client(entry.client).as_deref())?;
        write!(line, "{} ", transport_label(transport))?;
        word(line, self.name(entry).as_deref())?;
        let question = entry.question();
        word(line, question.map(|question| question.rtype.to_string()).as_deref())?;
        word(line, question.map(|question| question.class.to_string()).as_deref())?;
        write!(line, "{rcode} {} ", source.label())?;
        word(line, entry.upstream.as_deref())?;
        let (millis, micros) = duration(entry);
        write!(line, "{millis}.{micros:03}ms ")?;
        match ede {
            Some(code) => writeln!(line, "{}", code.0),
            None => writeln!(line, "-"),
        }
    }

    /// Returns what is said of the client.
    fn client(&self, client: IpAddr) -> Option<String> {
        match self.lines.clients {
            QueryClients::Full => Some(client.to_string()),
            QueryClients::Masked => {
                let (address, length) = network(client);
                Some(format!("{address}/{length}"))
            }
            QueryClients::Absent => None,
        }
    }

    /// Returns what is said of the name; None when it could not be read.
    fn name(&self, entry: &Entry) -> Option<String> {
        let name = entry.question()?.name;
        Some(match self.lines.names {
            QueryNames::Full => name.to_string(),
            QueryNames::Hashed => self.key.hash(name),
        })
    }
}

/// Returns the prefix that a client is one of many in, and its length: /24 of IPv4; /56 of IPv6, what one household is given
/// (RFC 6177 §2).
pub(super) fn network(client: IpAddr) -> (IpAddr, u8) {
    match client.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            (Ipv4Addr::new(a, b, c, 0).into(), 24)
        }
        IpAddr::V6(address) => (Ipv6Addr::from_bits(address.to_bits() >> 72 << 72).into(), 56),
    }
}

/// Returns how clients ask, in a word.
fn transport_label(transport: ClientTransport) -> &'static str {
    match transport {
        ClientTransport::Udp => "udp",
        ClientTransport::Tcp => "tcp",
    }
}

/// Returns how long an entry's query took: milliseconds, and the microseconds beyond them.
fn duration(entry: &Entry) -> (u128, u128) {
    let micros = entry.outcome.duration.unwrap_or_default().as_micros();
    (micros / 1000, micros % 1000)
}

/// Appends a string of JSON, or null.
fn string(line: &mut Vec<u8>, text: Option<&str>) -> io::Result<()> {
    serde_json::to_writer(line, &text).map_err(io::Error::from)
}

/// Appends a word and a blank. Names of servers are the operator's: a blank in one must not make two words of it.
fn word(line: &mut Vec<u8>, text: Option<&str>) -> io::Result<()> {
    let text = text.filter(|text| !text.is_empty()).unwrap_or("-");
    let shown: String =
        text.chars().map(|c| if c.is_whitespace() || c.is_control() { '_' } else { c }).collect();
    write!(line, "{shown} ")
}

/// A key that is made anew in each process and never leaves it: whoever reads the log can see that two names were equal,
/// and cannot try likely names.
#[derive(Clone)]
pub(super) struct NameKey([u8; 32]);

impl Default for NameKey {
    fn default() -> Self {
        // Each word is the output of a keyed hash under 128 bits that std took from the system: no device to open.
        let mut key = [0; 32];
        for (place, word) in key.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&RandomState::new().hash_one(place).to_ne_bytes());
        }
        Self(key)
    }
}

impl NameKey {
    /// Returns the hash of a name, letter case left out: 32 hexadecimal digits.
    fn hash(&self, name: NameRef<'_>) -> String {
        let digest =
            Sha256::new().chain_update(self.0).chain_update(name.as_bytes().to_ascii_lowercase()).finalize();
        let mut text = String::with_capacity(32);
        for octet in digest.iter().take(16) {
            // Writing into memory does not fail.
            let _ = write!(text, "{octet:02x}");
        }
        text
    }
}

/// Says that there is one: a key in a log would undo what it is for.
impl std::fmt::Debug for NameKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NameKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::outcome::Source;
    use crate::wire::ede::EdeCode;
    use crate::wire::header::Rcode;
    use serde_json::Value;
    use std::time::{Duration, UNIX_EPOCH};

    const QUESTION: &[u8] = b"\x03Www\x07exa ple\x00\x00\x1c\x00\x01";

    fn entry(client: &str, question: Option<&[u8]>, upstream: Option<&str>) -> Entry {
        let outcome = Outcome {
            source: Source::Upstream,
            rcode: Rcode::SERVFAIL,
            ede: Some(EdeCode::PROHIBITED),
            transport: ClientTransport::Udp,
            duration: Some(Duration::from_micros(1_002)),
        };
        let question = question.and_then(QuestionRef::parse);
        let detail = QueryDetail { client: client.parse().unwrap(), question, upstream };
        Entry::new(&outcome, &detail, UNIX_EPOCH)
    }

    fn line(lines: QueryLines, entry: &Entry) -> String {
        let mut line = Vec::new();
        LineWriter::new(lines, NameKey::default()).write(entry, &mut line).unwrap();
        String::from_utf8(line).unwrap()
    }

    fn json(lines: QueryLines, entry: &Entry) -> Value {
        serde_json::from_str(&line(lines, entry)).unwrap()
    }

    #[test]
    fn a_line_of_text_has_always_the_same_number_of_words() {
        let text = QueryLines { format: QueryFormat::Text, ..QueryLines::default() };
        assert_eq!(
            line(text, &entry("192.0.2.7", Some(QUESTION), Some("my server"))),
            "1970-01-01T00:00:00.000Z 192.0.2.7 udp Www.exa\\032ple. AAAA IN SERVFAIL upstream my_server 1.002ms 18\n"
        );
        let unknown = QueryLines { clients: QueryClients::Absent, ..text };
        assert_eq!(
            line(unknown, &entry("192.0.2.7", None, None)),
            "1970-01-01T00:00:00.000Z - udp - - - SERVFAIL upstream - 1.002ms 18\n"
        );
    }

    #[test]
    fn masked_clients_are_networks_and_absent_ones_are_not_in_the_line() {
        let masked = QueryLines { clients: QueryClients::Masked, ..QueryLines::default() };
        for (client, expected) in [
            ("192.0.2.77", "192.0.2.0/24"),
            ("::ffff:192.0.2.77", "192.0.2.0/24"),
            ("2001:db8:1:23ff:4::5", "2001:db8:1:2300::/56"),
        ] {
            assert_eq!(json(masked, &entry(client, Some(QUESTION), None))["client"], expected);
        }
        let absent = QueryLines { clients: QueryClients::Absent, ..QueryLines::default() };
        let text = line(absent, &entry("192.0.2.77", Some(QUESTION), None));
        assert!(!text.contains("client") && !text.contains("192.0.2"), "{text}");
    }

    #[test]
    fn hashed_names_are_equal_when_the_names_are_and_differ_between_processes() {
        let hashed = QueryLines { names: QueryNames::Hashed, ..QueryLines::default() };
        let (one, other) = (NameKey::default(), NameKey::default());
        let hash = |key: &NameKey, question: &[u8]| {
            let mut line = Vec::new();
            let entry = entry("192.0.2.7", Some(question), None);
            LineWriter::new(hashed, key.clone()).write(&entry, &mut line).unwrap();
            let line: Value = serde_json::from_slice(&line).unwrap();
            line["name"].as_str().unwrap().to_owned()
        };
        let first = hash(&one, QUESTION);
        assert!(first.len() == 32 && first.bytes().all(|octet| octet.is_ascii_hexdigit()), "{first}");
        assert_eq!(first, hash(&one, b"\x03wWW\x07EXA ple\x00\x00\x01\x00\x01"));
        assert_ne!(first, hash(&one, b"\x03wwx\x07exa ple\x00\x00\x1c\x00\x01"));
        assert_ne!(first, hash(&other, QUESTION), "another process has another key");
        assert!(!format!("{one:?}").contains(|c: char| c.is_ascii_digit()));
    }

    #[test]
    fn a_question_that_could_not_be_read_has_no_name_hashed_or_not() {
        for names in [QueryNames::Full, QueryNames::Hashed] {
            let lines = QueryLines { names, ..QueryLines::default() };
            assert_eq!(json(lines, &entry("192.0.2.7", None, None))["name"], Value::Null);
        }
    }
}
