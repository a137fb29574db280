//! The words of a line: times, counts, records, networks. Each reads what it knows and refuses the rest.

use super::message::encode_name;
use super::script::Record;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Record types by name.
const TYPES: [(&str, u16); 14] = [
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("HINFO", 13),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("DS", 43),
    ("RRSIG", 46),
    ("HTTPS", 65),
    ("ANY", 255),
];

/// Response codes by name.
const RCODES: [(&str, u16); 6] =
    [("NOERROR", 0), ("FORMERR", 1), ("SERVFAIL", 2), ("NXDOMAIN", 3), ("NOTIMP", 4), ("REFUSED", 5)];

/// What of a line is not read yet.
#[derive(Clone, Debug)]
pub struct Words {
    /// The words, the last one first.
    rest: Vec<String>,
}

impl Words {
    /// Cuts a line at its spaces, but not within double quotes; ` #` begins a comment.
    pub fn of(line: &str) -> Result<Self, String> {
        let mut words = vec![String::new()];
        let mut quoted = false;
        for character in line.chars() {
            match character {
                '"' => quoted = !quoted,
                '#' if !quoted && words.last().is_some_and(String::is_empty) => break,
                ' ' | '\t' if !quoted => words.push(String::new()),
                _ => {}
            }
            if quoted || !matches!(character, ' ' | '\t') {
                words.last_mut().unwrap().push(character);
            }
        }
        if quoted {
            return Err("a quote that does not end".to_owned());
        }
        words.retain(|word| !word.is_empty());
        words.reverse();
        Ok(Self { rest: words })
    }

    /// Takes the next word; `what` is what it should be.
    pub fn next(&mut self, what: &str) -> Result<String, String> {
        self.rest.pop().ok_or_else(|| format!("{what} is missing"))
    }

    /// Looks at the next word.
    pub fn peek(&self) -> Option<&str> {
        self.rest.last().map(String::as_str)
    }

    /// Takes the next word if it is this one.
    pub fn take(&mut self, word: &str) -> bool {
        let is_next = self.peek() == Some(word);
        if is_next {
            self.rest.pop();
        }
        is_next
    }

    /// Takes the next word if `read` can read it.
    pub fn take_if<T>(&mut self, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = self.peek().and_then(read);
        if value.is_some() {
            self.rest.pop();
        }
        value
    }

    /// Reads the next word.
    pub fn read<T>(&mut self, what: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        let word = self.next(what)?;
        read(&word).ok_or_else(|| format!("`{word}` is no {what}"))
    }

    /// Cuts off what follows a word that ends in a colon: the records. The colon goes.
    pub fn split_records(&mut self) -> Option<Self> {
        let at = self.rest.iter().rposition(|word| word.ends_with(':') && !word.starts_with('"'))?;
        let records = self.rest.drain(..at).collect();
        let last = self.rest.first_mut().unwrap();
        last.pop();
        if last.is_empty() {
            self.rest.remove(0);
        }
        Some(Self { rest: records })
    }

    /// Ends the line.
    pub fn end(&self) -> Result<(), String> {
        self.peek().map_or(Ok(()), |word| Err(format!("`{word}` is not understood here")))
    }
}

/// Reads a type by its name.
pub fn rtype(word: &str) -> Option<u16> {
    TYPES.iter().find(|(name, _)| *name == word).map(|(_, number)| *number)
}

/// Reads a response code by its name.
pub fn rcode(word: &str) -> Option<u16> {
    RCODES.iter().find(|(name, _)| *name == word).map(|(_, number)| *number)
}

/// Writes a response code.
pub fn rcode_name(number: u16) -> String {
    let known = RCODES.iter().find(|(_, known)| *known == number);
    known.map_or_else(|| format!("RCODE{number}"), |(name, _)| (*name).to_owned())
}

/// Writes a type.
pub fn rtype_name(number: u16) -> String {
    let known = TYPES.iter().find(|(_, known)| *known == number);
    known.map_or_else(|| format!("TYPE{number}"), |(name, _)| (*name).to_owned())
}

/// Reads a duration such as `20ms`, `1.8s`, `1m30s`.
pub fn duration(word: &str) -> Option<Duration> {
    let mut rest = word;
    let mut sum = Duration::ZERO;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let millis = match &tail[..unit] {
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 6e4,
            "h" => 3.6e6,
            "d" => 8.64e7,
            _ => return None,
        };
        let micros = (number.parse::<f64>().ok()? * millis * 1e3).round();
        sum += Duration::from_secs_f64(micros / 1e6);
        rest = &tail[unit..];
        if rest.is_empty() {
            return Some(sum);
        }
    }
}

/// Reads a number, or two with `..` between them.
pub fn range(word: &str) -> Option<RangeInclusive<u64>> {
    match word.split_once("..") {
        Some((least, most)) => Some(least.parse().ok()?..=most.parse().ok()?),
        None => word.parse().ok().map(|exact| exact..=exact),
    }
}

/// Reads `never`, `once`, `twice`, `3 times` or `3..5 times`.
pub fn times(words: &mut Words) -> Result<RangeInclusive<u64>, String> {
    for (word, count) in [("never", 0), ("once", 1), ("twice", 2)] {
        if words.take(word) {
            return Ok(count..=count);
        }
    }
    let count = words.read("count (never, once, twice, 3 times, 3..5 times)", range)?;
    if words.take("times") { Ok(count) } else { Err("`times` is missing".to_owned()) }
}

/// Reads a text in double quotes.
pub fn quoted(word: &str) -> Option<String> {
    Some(word.strip_prefix('"')?.strip_suffix('"')?.to_owned())
}

/// Reads a network such as `192.0.2.0/24` into the data of an ECS option (RFC 7871 §6).
pub fn subnet(word: &str) -> Option<Vec<u8>> {
    let (address, length) = word.split_once('/')?;
    let (address, length): (IpAddr, u8) = (address.parse().ok()?, length.parse().ok()?);
    let (family, octets) = match address {
        IpAddr::V4(address) => (1, address.octets().to_vec()),
        IpAddr::V6(address) => (2, address.octets().to_vec()),
    };
    let mut data = vec![0, family, length, 0];
    data.extend(octets.get(..usize::from(length).div_ceil(8))?);
    Some(data)
}

/// Reads records with commas between them: `A 192.0.2.7 ttl 60, SOA minimum 60 ttl 300`.
pub fn records(mut words: Words) -> Result<Vec<Record>, String> {
    let mut records = Vec::new();
    loop {
        let at = words.rest.iter().rposition(|word| word.ends_with(','));
        let mut one = Words { rest: words.rest.split_off(at.unwrap_or(0)) };
        if let Some(last) = one.rest.first_mut().filter(|_| at.is_some()) {
            last.pop();
        }
        records.push(record(&mut one)?);
        one.end()?;
        if at.is_none() {
            return Ok(records);
        }
    }
}

/// Reads one record: its type, its data, then in any order `ttl 60`, `minimum 60`, `at other.example`.
fn record(words: &mut Words) -> Result<Record, String> {
    let text = words.rest.iter().rev().cloned().collect::<Vec<_>>().join(" ");
    let kind = words.next("type of a record")?;
    let number = rtype(&kind).ok_or_else(|| format!("`{kind}` is no type of a record"))?;
    let mut rdata = match kind.as_str() {
        "A" => words.read("IPv4 address", |word| word.parse::<std::net::Ipv4Addr>().ok())?.octets().to_vec(),
        "AAAA" => {
            words.read("IPv6 address", |word| word.parse::<std::net::Ipv6Addr>().ok())?.octets().to_vec()
        }
        "CNAME" | "NS" | "PTR" => encode_name(&words.next("name")?),
        "TXT" => {
            let text = words.read("text in quotes", quoted)?;
            text.as_bytes().chunks(255).flat_map(|part| [&[part.len() as u8], part].concat()).collect()
        }
        "SOA" => [encode_name("ns.example"), encode_name("hostmaster.example"), vec![0; 20]].concat(),
        _ => return Err(format!("no scenario can write the data of {kind} records yet")),
    };
    let (mut ttl, mut owner) = (None, None);
    while words.peek().is_some() {
        if words.take("ttl") {
            ttl = Some(words.read("number", |word| word.parse().ok())?);
        } else if words.take("at") {
            owner = Some(words.next("name")?);
        } else if kind == "SOA" && words.take("minimum") {
            let minimum: u32 = words.read("number", |word| word.parse().ok())?;
            let at = rdata.len() - 4;
            rdata[at..].copy_from_slice(&minimum.to_be_bytes());
        } else {
            words.end()?;
        }
    }
    Ok(Record { owner, rtype: number, rdata, ttl, text })
}
