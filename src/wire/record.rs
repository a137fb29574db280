//! Records as text, for `veildns query`, and answers made here. hickory-proto writes the types that are
//! neither of names, numbers and strings nor of DNSSEC. Not on the path of a query to a server.
//!
//! What a server sent is shown on terminals: no text of it holds anything but printable characters.

use super::header::{FLAG_QR, HEADER_LEN, Rcode};
use super::name::{MAX_NAME, Name, NameRef};
use super::question::{Class, QuestionRef, RecordType, Ttl};
use super::rebuild::{NamesInRdata, write_record};
use super::response::{PackedName, RecordRef, ResponseRef, Section};
use super::stored::{Keep, StoredAnswer};
use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use hickory_proto::rr::{RData, Record};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
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
        RecordType(35 | 24 | 30) => hickory_text(record),
        _ => match NamesInRdata::of(record) {
            Some(names) => names_text(record, names),
            None => hickory_text(record),
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

/// Writes RDATA as hickory-proto does, if it knows the type.
fn hickory_text(record: &RecordRef<'_>) -> Option<String> {
    let mut octets = Vec::new();
    write_record(&mut octets, record)?;
    let record = Record::<RData>::read(&mut BinDecoder::new(&octets)).ok()?;
    let data = record.data;
    if matches!(data, RData::Unknown { .. } | RData::NULL(_) | RData::Update0(_) | RData::OPT(_)) {
        return None;
    }
    let mut text = String::new();
    write!(text, "{data}").ok()?;
    if matches!(data, RData::SVCB(_) | RData::HTTPS(_)) {
        // Lists end with a comma there, which RFC 9460 §2.1 does not know.
        text = text.replace(", ", " ").trim_end_matches(',').to_owned();
    }
    Some(text)
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

#[cfg(test)]
mod tests {
    use super::super::edns::ReplyOptions;
    use super::super::samples::{self, Asked, a, bytes, cname, ns, opaque, soa};
    use super::super::stored::TtlRule;
    use super::*;
    use hickory_proto::op::Message;
    use proptest::prelude::*;

    /// A response to `a. A` with one answer record of this type and RDATA.
    fn one_record(rtype: u16, rdata: &[u8]) -> Vec<u8> {
        let mut message = vec![0, 0, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1, 0xc0, 12];
        message.extend_from_slice(&rtype.to_be_bytes());
        message.extend_from_slice(&[0, 1, 0, 0, 0, 9]);
        message.extend_from_slice(&u16::try_from(rdata.len()).unwrap().to_be_bytes());
        message.extend_from_slice(rdata);
        message
    }

    fn rdata_of(rtype: u16, rdata: &[u8]) -> String {
        message_text(&one_record(rtype, rdata)).unwrap().answer.remove(0).rdata
    }

    #[test]
    fn a_message_is_shown_section_by_section() {
        let mut message = samples::response("www.example.com.");
        message
            .add_answers([cname("www.example.com.", 300, "edge.example.net."), a("edge.example.net.", 60)]);
        message.add_authorities([soa("example.com.", 900, 120), ns("example.com.", 5, "ns.example.com.")]);
        message.add_additional(opaque("ns.example.com.", 7));
        message.edns = Some(hickory_proto::op::Edns::new());
        let text = message_text(&bytes(&message)).unwrap();
        let lines = |records: &[RecordText]| {
            let line = |r: &RecordText| format!("{} {} {} {} {}", r.owner, r.ttl, r.class, r.rtype, r.rdata);
            records.iter().map(line).collect::<Vec<_>>()
        };
        assert_eq!(
            lines(&text.answer),
            ["www.example.com. 300 IN CNAME edge.example.net.", "edge.example.net. 60 IN A 192.0.2.1"]
        );
        assert_eq!(
            lines(&text.authority),
            [
                "example.com. 900 IN SOA ns.example.com. admin.example.com. 7 3600 600 86400 120",
                "example.com. 5 IN NS ns.example.com."
            ]
        );
        assert_eq!(lines(&text.additional), ["ns.example.com. 7 IN TYPE65400 \\# 5 C00C010203"]);
    }

    #[test]
    fn rdata_is_shown_as_in_a_zone_file() {
        let cases: [(&str, u16, &[u8], &str); 14] = [
            ("A", 1, &[192, 0, 2, 1], "192.0.2.1"),
            ("AAAA", 28, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "2001:db8::1"),
            ("MX", 15, &[0, 10, 1, b'm', 0xc0, 12], "10 m.a."),
            ("SRV", 33, &[0, 1, 0, 2, 0x1f, 0x90, 0xc0, 12], "1 2 8080 a."),
            ("RP", 17, b"\x01m\0\0", "m. ."),
            ("PTR of an IDN", 12, b"\x08xn--p1ai\0", "xn--p1ai."),
            ("TXT", 16, b"\x03a b\x00\x04\"\\\x1b\xe9", r#""a b" "" "\"\\\027\233""#),
            ("HINFO", 13, b"\x07RFC8482\0", r#""RFC8482" """#),
            ("CAA", 257, b"\0\x05issueca.example", r#"0 issue "ca.example""#),
            ("HTTPS", 65, &[0, 1, 0, 0, 1, 0, 3, 2, b'h', b'2'], "1 . alpn=h2"),
            (
                "SVCB",
                64,
                &[0, 1, 0, 0, 1, 0, 6, 2, b'h', b'2', 2, b'h', b'3', 0, 4, 0, 4, 192, 0, 2, 1],
                "1 . alpn=h2,h3 ipv4hint=192.0.2.1",
            ),
            ("NAPTR", 35, b"\0\x01\0\x02\x01s\x03SIP\0\xc0\x0c", r#"1 2 "s" "SIP" "" a."#),
            ("unknown", 65400, &[1, 0xab], "\\# 2 01AB"),
            ("empty", 65400, &[], "\\# 0"),
        ];
        for (case, rtype, rdata, expected) in cases {
            assert_eq!(rdata_of(rtype, rdata), expected, "{case}");
        }
    }

    #[test]
    fn dnssec_rdata_is_shown_as_in_a_zone_file() {
        let signature =
            [&[0, 1, 13, 2, 0, 0, 14, 16, 0, 0, 0, 9, 0, 0, 0, 8, 0x30, 0x39][..], b"\x01a\0", &[1, 2, 3]]
                .concat();
        let nsec3 = [&[1, 0, 0, 10, 2, 0xab, 0xcd, 20][..], &[0x5a; 20], &[0, 1, 0x40, 1, 1, 0x40]].concat();
        let cases: [(&str, u16, &[u8], &str); 6] = [
            ("DS", 43, &[0x30, 0x39, 8, 2, 0xde, 0xad], "12345 8 2 DEAD"),
            ("DNSKEY", 48, &[1, 1, 3, 13, 1, 2, 3], "257 3 13 AQID"),
            ("RRSIG", 46, &signature, "A 13 2 3600 9 8 12345 a. AQID"),
            ("NSEC", 47, b"\x01b\0\0\x06\x40\x01\0\0\0\x03", "b. A MX RRSIG NSEC"),
            ("NSEC3", 50, &nsec3, "1 0 10 ABCD B9D5KMIQB9D5KMIQB9D5KMIQB9D5KMIQ A CAA"),
            ("NSEC with half a bit map", 47, &[0, 0, 3, 0x40], "\\# 4 00000340"),
        ];
        for (case, rtype, rdata, expected) in cases {
            assert_eq!(rdata_of(rtype, rdata), expected, "{case}");
        }
    }

    #[test]
    fn malformed_rdata_is_shown_in_hexadecimal() {
        let cases: [(&str, u16, &[u8], &str); 8] = [
            ("A of 3 octets", 1, &[1, 2, 3], "\\# 3 010203"),
            ("CNAME pointing forwards", 5, &[0xc0, 0xff], "\\# 2 C0FF"),
            ("CNAME with more behind it", 5, &[0, 0, 0, 0, 0], "\\# 5 0000000000"),
            ("SOA with three numbers", 6, &[0; 14], "\\# 14 0000000000000000000000000000"),
            ("MX without name", 15, &[0, 1], "\\# 2 0001"),
            ("TXT that claims too much", 16, &[9, b'a'], "\\# 2 0961"),
            ("CAA with a control character", 257, b"\0\x05issue\x1b[2J", "\\# 11 000569737375651B5B324A"),
            ("HTTPS without target", 65, &[0, 1], "\\# 2 0001"),
        ];
        for (case, rtype, rdata, expected) in cases {
            assert_eq!(rdata_of(rtype, rdata), expected, "{case}");
        }
    }

    #[test]
    fn octets_that_are_no_response_have_no_text() {
        assert_eq!(message_text(&[]), None);
        assert_eq!(message_text(Asked::a("a.").view().bytes()), None);
    }

    /// A question for tests.
    fn ask(rtype: RecordType) -> QuestionRef<'static> {
        QuestionRef { name: NameRef::parse(b"\x04host\x04test\0").unwrap(), rtype, class: Class::IN }
    }

    fn shown(answer: &StoredAnswer) -> MessageText {
        message_text(answer.message()).unwrap()
    }

    #[test]
    fn local_addresses_answer_for_their_own_type() {
        let data = [
            LocalData::Address("127.0.0.1".parse().unwrap()),
            LocalData::Address("::1".parse().unwrap()),
            LocalData::Address("127.0.0.2".parse().unwrap()),
        ];
        let rdata = |rtype| {
            let answer = local_answer(&ask(rtype), &data, Ttl(60));
            assert_eq!(answer.rcode(), Rcode::NOERROR);
            shown(&answer).answer.into_iter().map(|record| record.rdata).collect::<Vec<_>>()
        };
        assert_eq!(rdata(RecordType::A), ["127.0.0.1", "127.0.0.2"]);
        assert_eq!(rdata(RecordType::AAAA), ["::1"]);
        assert_eq!(rdata(RecordType::MX), [""; 0]);
        assert_eq!(rdata(RecordType::ANY).len(), 3);
    }

    #[test]
    fn local_answers_of_other_kinds_carry_their_type_and_ttl() {
        let name = LocalData::Ptr("localhost".parse().unwrap());
        let cases = [
            (RecordType::PTR, name, "PTR localhost."),
            (RecordType::ANY, LocalData::Hinfo, "HINFO \"RFC8482\" \"\""),
            (RecordType::TXT, LocalData::Raw(b"\x02hi".to_vec()), "TXT \"hi\""),
        ];
        for (rtype, datum, expected) in cases {
            let answer = local_answer(&ask(rtype), &[datum], Ttl(77));
            let record = shown(&answer).answer.remove(0);
            assert_eq!(format!("{} {}", record.rtype, record.rdata), expected);
            assert_eq!((record.owner.as_str(), record.ttl), ("host.test.", 77));
            assert_eq!(answer.min_ttl(), Some(Ttl(77)));
        }
    }

    #[test]
    fn a_local_negative_has_an_soa_with_its_ttl() {
        let zone = NameRef::parse(b"\x04test\0").unwrap();
        for rcode in [Rcode::NXDOMAIN, Rcode::NOERROR] {
            let answer = local_negative(&ask(RecordType::A), rcode, zone, Ttl(300));
            assert_eq!(answer.rcode(), rcode);
            let text = shown(&answer);
            assert!(text.answer.is_empty());
            let [soa] = text.authority.as_slice() else { panic!("{text:?}") };
            assert_eq!((soa.owner.as_str(), soa.ttl), ("test.", 300));
            assert_eq!(soa.rdata, "test. nobody.invalid. 1 3600 1200 604800 300");
            assert!(Message::from_vec(answer.message()).is_ok());
        }
    }

    #[test]
    fn a_local_answer_is_rendered_like_any_other() {
        let asked = Asked::a_with_edns("HOST.test.");
        let data = [LocalData::Address("192.0.2.7".parse().unwrap())];
        let answer = local_answer(&asked.view().question(), &data, Ttl(5));
        let mut out = [0; 512];
        let len = answer.render(&asked.view(), TtlRule::Keep, &ReplyOptions::default(), &mut out);
        let reply = Message::from_vec(&out[..len]).unwrap();
        assert_eq!(reply.queries[0].name().to_string(), "HOST.test.");
        assert_eq!(reply.answers[0].data.to_string(), "192.0.2.7");
        assert!(reply.edns.is_some());
    }

    #[test]
    fn local_data_too_long_for_a_message_become_servfail() {
        for data in [vec![LocalData::Raw(vec![0; 65_536])], vec![LocalData::Raw(vec![0; 40_000]); 2]] {
            let answer = local_answer(&ask(RecordType::TXT), &data, Ttl(5));
            assert_eq!((answer.rcode(), answer.min_ttl()), (Rcode::SERVFAIL, None));
        }
    }

    proptest! {
        #[test]
        fn text_is_printable_whatever_the_rdata(
            rtype in prop_oneof![0_u16..70, any::<u16>()],
            rdata in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            if let Some(text) = message_text(&one_record(rtype, &rdata)) {
                for record in text.answer {
                    prop_assert!(is_printable(&record.rdata), "{:?}", record);
                    prop_assert!(is_printable(&record.owner), "{:?}", record);
                }
            }
        }

        #[test]
        fn every_record_of_a_message_is_shown(message in samples::responses()) {
            let text = message_text(&bytes(&message)).unwrap();
            prop_assert_eq!(text.answer.len(), message.answers.len());
            prop_assert_eq!(text.authority.len(), message.authorities.len());
            prop_assert_eq!(text.additional.len(), message.additionals.len());
        }
    }
}
