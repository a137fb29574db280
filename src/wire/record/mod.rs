//! Records as text, for `veildns query`, and answers made here. The types that are neither of names,
//! numbers and strings nor of DNSSEC are written by `rare`. Not on the path of a query to a server.
//!
//! What a server sent is shown on terminals: no text of it holds anything but printable characters.

#[cfg(test)]
mod tests;

use super::header::{FLAG_QR, HEADER_LEN, Rcode};
use super::name::{MAX_NAME, Name, NameRef};
use super::question::{Class, QuestionRef, RecordType, Ttl};
use super::rare;
use super::rebuild::NamesInRdata;
use super::response::{PackedName, RecordRef, ResponseRef, Section};
use super::stored::{Keep, StoredAnswer};
use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One record for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordText {
    /// Owner name, with the dot at its end.
    pub owner: String,
    /// Time to live in seconds.
    pub ttl: u32,
    /// Class, usually `IN`.
    pub class: String,
    /// Mnemonic of the type, or `TYPE65400`.
    pub rtype: String,
    /// RDATA as in a zone file, or in the form of RFC 3597 §5 (`\# 4 C0000201`).
    pub rdata: String,
}

/// The records of a message, the OPT record left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageText {
    /// The answer section.
    pub answer: Vec<RecordText>,
    /// The authority section.
    pub authority: Vec<RecordText>,
    /// The additional section.
    pub additional: Vec<RecordText>,
}

/// Returns the records of a response as text; `None` when it is no response that can be walked. One odd
/// record does not hide the others: what cannot be read is shown in the form of RFC 3597 §5.
pub fn message_text(message: &[u8]) -> Option<MessageText> {
    let response = ResponseRef::parse(message).ok()?;
    let section = |section| response.records(section).map(|record| record_text(&record)).collect();
    Some(MessageText {
        answer: section(Section::Answer),
        authority: section(Section::Authority),
        additional: section(Section::Additional),
    })
}

/// Writes one record for people.
fn record_text(record: &RecordRef<'_>) -> RecordText {
    let rdata = rdata_text(record).filter(|text| is_printable(text) && !text.is_empty());
    RecordText {
        owner: name_text(&record.owner).unwrap_or_default(),
        ttl: record.ttl.0,
        class: record.class.to_string(),
        rtype: record.rtype.to_string(),
        rdata: rdata.unwrap_or_else(|| generic_text(record.rdata)),
    }
}

/// Returns true when nothing in the text can move a cursor or turn the writing direction.
fn is_printable(text: &str) -> bool {
    text.chars().all(|c| c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric())
}

/// Writes RDATA as a zone file has it; `None` when it is malformed or the type is not known.
fn rdata_text(record: &RecordRef<'_>) -> Option<String> {
    match record.rtype {
        RecordType::A => Some(Ipv4Addr::from(*record.rdata.as_array::<4>()?).to_string()),
        RecordType::AAAA => Some(Ipv6Addr::from(*record.rdata.as_array::<16>()?).to_string()),
        RecordType::TXT | RecordType::HINFO => strings_text(record.rdata),
        RecordType::DS | RecordType::DNSKEY => key_text(record),
        RecordType::RRSIG => rrsig_text(record),
        RecordType::NSEC => nsec_text(record),
        RecordType::NSEC3 => nsec3_text(record.rdata),
        // NAPTR, SIG and NXT have more than numbers around the name.
        RecordType(35 | 24 | 30) => rare::rdata_text(record),
        _ => match NamesInRdata::of(record) {
            Some(names) => names_text(record, names),
            None => rare::rdata_text(record),
        },
    }
}

/// Writes RDATA of 16-bit numbers, names, and 32-bit numbers: everything from NS to SOA and SRV.
fn names_text(record: &RecordRef<'_>, names: NamesInRdata) -> Option<String> {
    let mut fields = Vec::new();
    let (head, _) = record.rdata.get(..names.start)?.as_chunks();
    fields.extend(head.iter().map(|number| u16::from_be_bytes(*number).to_string()));
    let mut at = names.start;
    for _ in 0..names.count {
        let (name, end) = record.rdata_name_span(at)?;
        fields.push(name_text(&name)?);
        at = end;
    }
    let (tail, rest) = record.rdata.get(at..)?.as_chunks();
    fields.extend(tail.iter().map(|number| u32::from_be_bytes(*number).to_string()));
    let tail_len = if record.rtype == RecordType::SOA { 5 } else { 0 };
    (tail.len() == tail_len && rest.is_empty()).then(|| fields.join(" "))
}

/// Writes character strings in quotes, other than printable octets as `\DDD` (RFC 1035 §5.1).
fn strings_text(mut rdata: &[u8]) -> Option<String> {
    let mut text = String::new();
    while let Some((len, rest)) = rdata.split_first() {
        let (content, rest) = rest.split_at_checked(usize::from(*len))?;
        rdata = rest;
        text.push_str(if text.is_empty() { "\"" } else { " \"" });
        for octet in content {
            match octet {
                b'"' | b'\\' => text.extend(['\\', char::from(*octet)]),
                b' '..=b'~' => text.push(char::from(*octet)),
                _ => write!(text, "\\{octet:03}").ok()?,
            }
        }
        text.push('"');
    }
    Some(text)
}

/// Writes a DS record, its digest in hexadecimal, or a DNSKEY record, its key in Base64 (RFC 4034 §2.2, §5.3).
fn key_text(record: &RecordRef<'_>) -> Option<String> {
    let ([high, low, third, fourth], content) = record.rdata.split_first_chunk()?;
    let first = u16::from_be_bytes([*high, *low]);
    let content = if record.rtype == RecordType::DS { hexadecimal(content) } else { BASE64.encode(content) };
    Some(format!("{first} {third} {fourth} {content}"))
}

/// Writes an RRSIG record, its times as plain seconds (RFC 4034 §3.2 allows that).
fn rrsig_text(record: &RecordRef<'_>) -> Option<String> {
    let (signer, signature_at) = record.rdata_name_span(18)?;
    let (fixed, _) = record.rdata.split_first_chunk::<18>()?;
    let [t0, t1, algorithm, labels, numbers @ .., k0, k1] = *fixed;
    let covered = RecordType(u16::from_be_bytes([t0, t1]));
    let (numbers, _) = numbers.as_chunks();
    let [ttl, expiration, inception] = *numbers.as_array::<3>()?;
    let [ttl, expiration, inception] = [ttl, expiration, inception].map(u32::from_be_bytes);
    let key_tag = u16::from_be_bytes([k0, k1]);
    let signer = name_text(&signer)?;
    let signature = BASE64.encode(record.rdata.get(signature_at..)?);
    Some(format!(
        "{covered} {algorithm} {labels} {ttl} {expiration} {inception} {key_tag} {signer} {signature}"
    ))
}

/// Writes an NSEC record (RFC 4034 §4.2).
fn nsec_text(record: &RecordRef<'_>) -> Option<String> {
    let (next, types_at) = record.rdata_name_span(0)?;
    Some(name_text(&next)? + &types_text(record.rdata.get(types_at..)?)?)
}

/// Writes an NSEC3 record (RFC 5155 §3.3).
fn nsec3_text(rdata: &[u8]) -> Option<String> {
    let ([algorithm, flags, high, low, salt_len], rest) = rdata.split_first_chunk()?;
    let iterations = u16::from_be_bytes([*high, *low]);
    let (salt, rest) = rest.split_at_checked(usize::from(*salt_len))?;
    let (hash_len, rest) = rest.split_first()?;
    let (hash, types) = rest.split_at_checked(usize::from(*hash_len))?;
    let salt = if salt.is_empty() { "-".to_owned() } else { hexadecimal(salt) };
    let (hash, types) = (base32hex(hash), types_text(types)?);
    Some(format!("{algorithm} {flags} {iterations} {salt} {hash}{types}"))
}

/// Writes the types of a bit map, each behind a space (RFC 4034 §4.1.2).
fn types_text(mut bitmap: &[u8]) -> Option<String> {
    let mut text = String::new();
    while let Some(([window, len], rest)) = bitmap.split_first_chunk() {
        let (octets, rest) = rest.split_at_checked(usize::from(*len))?;
        bitmap = rest;
        for (octet, index) in octets.iter().zip(0_u8..32) {
            for bit in (0..8_u8).filter(|bit| octet & (0x80 >> bit) != 0) {
                write!(text, " {}", RecordType(u16::from_be_bytes([*window, 8 * index + bit]))).ok()?;
            }
        }
    }
    bitmap.is_empty().then_some(text)
}

/// Writes Base 32 with the extended hex alphabet, without padding (RFC 4648 §7).
fn base32hex(octets: &[u8]) -> String {
    let bit = |index: usize| octets.get(index / 8).is_some_and(|octet| octet & (0x80 >> (index % 8)) != 0);
    let digit = |start: usize| (start..start + 5).fold(0, |value, index| value << 1 | u32::from(bit(index)));
    (0..8 * octets.len())
        .step_by(5)
        .filter_map(|start| char::from_digit(digit(start), 32))
        .map(|c| c.to_ascii_uppercase())
        .collect()
}

/// Writes octets in hexadecimal.
fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |text, octet| text + &format!("{octet:02X}"))
}

/// Writes RDATA that nobody can read (RFC 3597 §5).
fn generic_text(rdata: &[u8]) -> String {
    let space = if rdata.is_empty() { "" } else { " " };
    format!("\\# {}{space}{}", rdata.len(), hexadecimal(rdata))
}

/// Writes a name.
fn name_text(name: &PackedName<'_>) -> Option<String> {
    Some(name.unpack_into(&mut [0; MAX_NAME])?.to_string())
}

/// Data of an answer made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalData {
    /// A or AAAA.
    Address(IpAddr),
    /// PTR.
    Ptr(Name),
    /// The HINFO record that stands for a refused ANY query: CPU "RFC8482", OS "" (RFC 8482 §4.2).
    Hinfo,
    /// RDATA of the question's type.
    Raw(Vec<u8>),
}

impl LocalData {
    /// Returns its type in an answer to a question for `asked`.
    fn rtype(&self, asked: RecordType) -> RecordType {
        match self {
            Self::Address(IpAddr::V4(_)) => RecordType::A,
            Self::Address(IpAddr::V6(_)) => RecordType::AAAA,
            Self::Ptr(_) => RecordType::PTR,
            Self::Hinfo => RecordType::HINFO,
            Self::Raw(_) => asked,
        }
    }

    /// Appends its RDATA.
    fn write_rdata(&self, out: &mut Vec<u8>) {
        match self {
            Self::Address(IpAddr::V4(address)) => out.extend_from_slice(&address.octets()),
            Self::Address(IpAddr::V6(address)) => out.extend_from_slice(&address.octets()),
            Self::Ptr(name) => out.extend_from_slice(name.view().as_bytes()),
            Self::Hinfo => out.extend_from_slice(b"\x07RFC8482\0"),
            Self::Raw(rdata) => out.extend_from_slice(rdata),
        }
    }
}

/// Makes NOERROR with these data under the question's name; addresses of the other family are left out, so
/// that a host's addresses of both can be given. SERVFAIL when it would pass 65,535 octets.
pub fn local_answer(question: &QuestionRef<'_>, data: &[LocalData], ttl: Ttl) -> StoredAnswer {
    let wanted = |datum: &&LocalData| {
        let rtype = datum.rtype(question.rtype);
        [rtype, RecordType::ANY].contains(&question.rtype) || rtype == RecordType::HINFO
    };
    let mut message = LocalMessage::new(question, Rcode::NOERROR);
    for datum in data.iter().filter(wanted) {
        message.record(QNAME, datum.rtype(question.rtype), ttl, |out| datum.write_rdata(out));
    }
    message.finish(question, Section::Answer)
}

/// Makes NOERROR without records, or NXDOMAIN, with an SOA record for `zone` so that clients may remember
/// it for `ttl` (RFC 2308 §3).
pub fn local_negative(question: &QuestionRef<'_>, rcode: Rcode, zone: NameRef<'_>, ttl: Ttl) -> StoredAnswer {
    let mut message = LocalMessage::new(question, rcode);
    message.record(zone.as_bytes(), RecordType::SOA, ttl, |out| {
        out.extend_from_slice(zone.as_bytes());
        out.extend_from_slice(b"\x06nobody\x07invalid\0");
        // SERIAL, REFRESH, RETRY and EXPIRE are for secondaries, which there are none of (RFC 6303 §3).
        for number in [1, 3600, 1200, 604_800, ttl.0] {
            out.extend_from_slice(&u32::to_be_bytes(number));
        }
    });
    message.finish(question, Section::Authority)
}

/// A pointer to the question's name, which always stands behind the header.
const QNAME: &[u8] = &[0xc0, 12];

/// A response in the making.
#[derive(Debug)]
struct LocalMessage {
    /// Header, question, and the records so far.
    octets: Vec<u8>,
    /// How many records there are.
    records: u16,
    /// The class of all of them.
    class: Class,
}

impl LocalMessage {
    /// Starts with header and question.
    fn new(question: &QuestionRef<'_>, rcode: Rcode) -> Self {
        let mut octets = Vec::with_capacity(HEADER_LEN + question.wire_len() + 64);
        octets.extend_from_slice(&[0, 0, FLAG_QR, rcode.low(), 0, 1, 0, 0, 0, 0, 0, 0]);
        octets.extend_from_slice(question.name.as_bytes());
        octets.extend_from_slice(&question.rtype.0.to_be_bytes());
        octets.extend_from_slice(&question.class.0.to_be_bytes());
        let class = if question.class == Class::ANY { Class::IN } else { question.class };
        Self { octets, records: 0, class }
    }

    /// Appends a record of the class that was asked for.
    fn record(&mut self, owner: &[u8], rtype: RecordType, ttl: Ttl, write_rdata: impl FnOnce(&mut Vec<u8>)) {
        let mut rdata = Vec::new();
        write_rdata(&mut rdata);
        // RDATA that is too long makes a message that is too long: `finish` sees it.
        let rdata_len = u16::try_from(rdata.len()).unwrap_or(u16::MAX);
        self.octets.extend_from_slice(owner);
        self.octets.extend_from_slice(&rtype.0.to_be_bytes());
        self.octets.extend_from_slice(&self.class.0.to_be_bytes());
        self.octets.extend_from_slice(&ttl.0.to_be_bytes());
        self.octets.extend_from_slice(&rdata_len.to_be_bytes());
        self.octets.extend_from_slice(&rdata);
        self.records = self.records.saturating_add(1);
    }

    /// Stores the message, all its records in one section. One that is too long becomes SERVFAIL.
    fn finish(mut self, question: &QuestionRef<'_>, section: Section) -> StoredAnswer {
        let count_at = match section {
            Section::Answer => 6,
            Section::Authority => 8,
            Section::Additional => 10,
        };
        if let Some(count) = self.octets.get_mut(count_at..count_at + 2) {
            count.copy_from_slice(&self.records.to_be_bytes());
        }
        let keep = Keep { authority: true, authentic_data: false };
        match ResponseRef::parse(&self.octets) {
            Ok(response) => StoredAnswer::from_response(&response, keep),
            Err(_) => StoredAnswer::failure(question, Rcode::SERVFAIL, None),
        }
    }
}
