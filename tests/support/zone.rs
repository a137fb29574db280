//! A small made-up zone, `lab.example`: every record type that matters, the awkward sizes and the negative answers.
//! From the octets of a query to the octets of a response. Names that begin with `host-` all exist, so that each test
//! can have its own.

use super::message::{Message, encode_name, rtype};

/// The zone's name.
pub const ORIGIN: &str = "lab.example.";
/// TTL of its records.
pub const TTL: u32 = 300;
/// An ECHConfigList as servers publish it, cut short: opaque octets that must arrive as they left.
pub const ECH: &[u8] = b"\x00\x41\xfe\x0d\x00\x3d\xa7\x00\x20\x00\x20opaque key that must not change!\x00\x04\x00\x01\x00\x01\x00\x0epublic.example\x00\x00";

/// One record to be: type and RDATA, owned by the question's name unless it says otherwise.
#[derive(Clone, Debug)]
pub struct Data {
    pub owner: Option<String>,
    pub rtype: u16,
    pub ttl: u32,
    pub rdata: Vec<u8>,
}

/// Makes a record of the question's name.
fn data(rtype: u16, rdata: impl Into<Vec<u8>>) -> Data {
    Data { owner: None, rtype, ttl: TTL, rdata: rdata.into() }
}

/// What the zone says to a question.
#[derive(Clone, Debug)]
pub enum Content {
    Records(Vec<Data>),
    NoData,
    NoName,
}

/// Every name and type with records, for tables of tests and for the lab's list of examples.
pub const EXAMPLES: &[(&str, u16)] = &[
    ("www.lab.example", rtype::A),
    ("www.lab.example", rtype::AAAA),
    ("chain.lab.example", rtype::A),
    ("lab.example", rtype::MX),
    ("lab.example", rtype::TXT),
    ("_sip._tcp.lab.example", rtype::SRV),
    ("www.lab.example", rtype::HTTPS),
    ("4.100.51.104.in-addr.arpa", rtype::PTR),
    ("lab.example", rtype::CAA),
    ("lab.example", rtype::NAPTR),
    ("lab.example", rtype::SOA),
    ("lab.example", rtype::NS),
    ("odd.lab.example", rtype::UNKNOWN),
    ("many.lab.example", rtype::A),
    ("text3k.lab.example", rtype::TXT),
    ("text20k.lab.example", rtype::TXT),
    ("text60k.lab.example", rtype::TXT),
];

/// Answers a query from the zone.
pub fn answer(query: &[u8]) -> Vec<u8> {
    let asked = Message::read(query);
    let question = asked.question.expect("a query has a question");
    let wants_dnssec = asked.opt.as_ref().is_some_and(|opt| opt.dnssec_ok);
    let content = lookup(&question.name.to_ascii_lowercase(), question.rtype, wants_dnssec);
    respond(query, &content)
}

/// Looks a lower-case name up.
pub fn lookup(name: &str, rtype: u16, wants_dnssec: bool) -> Content {
    let mut records = match positive(name, rtype) {
        Some(records) => records,
        None if exists(name) => return Content::NoData,
        None => return Content::NoName,
    };
    if wants_dnssec {
        let covered = records.first().map_or(rtype, |record| record.rtype);
        let mut rdata = covered.to_be_bytes().to_vec();
        rdata.extend_from_slice(&[13, 2, 0, 0, 1, 0x2c, 0x7f, 0, 0, 0, 0x60, 0, 0, 0, 0x12, 0x34]);
        rdata.extend(encode_name("lab.example"));
        rdata.extend_from_slice(&[0xA5; 64]);
        records.push(data(rtype::RRSIG, rdata));
    }
    Content::Records(records)
}

/// Returns the records of a name and type.
fn positive(name: &str, rtype: u16) -> Option<Vec<Data>> {
    let records = match (name, rtype) {
        ("www.lab.example.", rtype::A) => {
            vec![data(rtype::A, [104, 51, 100, 4]), data(rtype::A, [104, 51, 100, 3])]
        }
        ("www.lab.example.", rtype::AAAA) => {
            vec![data(rtype::AAAA, [0x26, 6, 0x47, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])]
        }
        ("www.lab.example.", rtype::HTTPS) => vec![data(rtype::HTTPS, https())],
        ("chain.lab.example.", rtype::A) => chain(),
        ("chain.lab.example.", rtype::CNAME) => chain().into_iter().take(1).collect(),
        ("lab.example.", rtype::MX) => vec![
            data(rtype::MX, [&[0, 10][..], &encode_name("mail.lab.example")].concat()),
            data(rtype::MX, [&[0, 20][..], &encode_name("Backup.mail.EXAMPLE")].concat()),
        ],
        ("lab.example.", rtype::TXT) => {
            vec![
                data(rtype::TXT, b"\x0bv=spf1 -all\x00\x03\xff\x00\"".to_vec()),
                data(rtype::TXT, b"\x03two".to_vec()),
            ]
        }
        ("_sip._tcp.lab.example.", rtype::SRV) => {
            vec![data(rtype::SRV, [&[0, 1, 0, 5, 0x13, 0xc4][..], &encode_name("sip.lab.example")].concat())]
        }
        ("4.100.51.104.in-addr.arpa.", rtype::PTR) => vec![data(rtype::PTR, encode_name("www.lab.example"))],
        ("lab.example.", rtype::CAA) => vec![data(rtype::CAA, b"\x00\x05issueca.example".to_vec())],
        ("lab.example.", rtype::NAPTR) => {
            let text = b"\x00\x64\x00\x0a\x01u\x07E2U+sip\x1b!^.*$!sip:info@lab.example!";
            vec![data(rtype::NAPTR, [&text[..], &[0]].concat())]
        }
        ("lab.example.", rtype::SOA) => vec![data(rtype::SOA, soa_rdata())],
        ("lab.example.", rtype::NS) => {
            vec![
                data(rtype::NS, encode_name("ns1.lab.example")),
                data(rtype::NS, encode_name("ns2.lab.example")),
            ]
        }
        ("odd.lab.example.", rtype::UNKNOWN) => vec![data(rtype::UNKNOWN, (0..=255).collect::<Vec<u8>>())],
        ("many.lab.example.", rtype::A) => {
            (1..=60).map(|last| data(rtype::A, [104, 51, 101, last])).collect()
        }
        ("text3k.lab.example.", rtype::TXT) => long_text(12),
        ("text20k.lab.example.", rtype::TXT) => long_text(80),
        ("text60k.lab.example.", rtype::TXT) => long_text(232),
        ("short.lab.example.", rtype::A) => vec![Data { ttl: 2, ..data(rtype::A, [104, 51, 100, 9]) }],
        ("rebind.lab.example.", rtype::A) => vec![data(rtype::A, [192, 168, 1, 1])],
        ("rebind.lab.example.", rtype::AAAA) => {
            vec![data(rtype::AAAA, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1])]
        }
        (name, rtype::A) if name.starts_with("host-") => vec![data(rtype::A, [104, 51, 100, 200])],
        (name, rtype::AAAA) if name.starts_with("host-") => {
            vec![data(rtype::AAAA, [0x26, 6, 0x47, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2])]
        }
        (name, rtype::TXT) if name.starts_with("size-") => sized(name),
        _ => return None,
    };
    Some(records)
}

/// Returns true when a name has records of some type.
fn exists(name: &str) -> bool {
    name.starts_with("host-")
        || name.starts_with("rebind.")
        || name.starts_with("short.")
        || EXAMPLES.iter().any(|(known, _)| name.strip_suffix('.') == Some(known))
}

/// A chain of three aliases and an address.
fn chain() -> Vec<Data> {
    let link = |owner: &str, target: &str| Data {
        owner: Some(owner.to_owned()),
        rtype: rtype::CNAME,
        ttl: TTL,
        rdata: encode_name(target),
    };
    let first = Data { owner: None, ..link("", "one.lab.example") };
    let end = Data { owner: Some("end.cdn.example".to_owned()), ..data(rtype::A, [104, 51, 100, 7]) };
    vec![first, link("one.lab.example", "Two.cdn.example"), link("two.cdn.example", "end.cdn.example"), end]
}

/// A service binding with alpn, hints and encrypted client hello (RFC 9460, RFC 9848).
fn https() -> Vec<u8> {
    let mut rdata = vec![0, 1, 0];
    for (key, value) in [
        (1u16, &b"\x02h3\x02h2"[..]),
        (4, &[104, 51, 100, 4][..]),
        (5, ECH),
        (6, &[0x26, 6, 0x47, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..]),
    ] {
        rdata.extend_from_slice(&key.to_be_bytes());
        rdata.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        rdata.extend_from_slice(value);
    }
    rdata
}

/// Strings of 255 octets, ten to a record, each different.
fn long_text(strings: u8) -> Vec<Data> {
    let all: Vec<u8> = (0..strings).collect();
    all.chunks(10)
        .map(|chunk| {
            let strings = chunk.iter().flat_map(|fill| {
                let mut text = vec![255];
                text.extend(std::iter::repeat_n(b'a' + fill % 26, 254));
                text.push(*fill);
                text
            });
            data(rtype::TXT, strings.collect::<Vec<u8>>())
        })
        .collect()
}

/// `size-N.lab.example`: one TXT record such that the response with an empty OPT has exactly N octets.
fn sized(name: &str) -> Vec<Data> {
    let digits: String = name.chars().skip(5).take_while(char::is_ascii_digit).collect();
    let wanted: usize = digits.parse().unwrap();
    // Header, question, the record's fixed part with a pointer as its name, OPT.
    let fixed = 12 + (name.len() + 1 + 4) + 12 + 11;
    let mut rest = wanted - fixed;
    let mut rdata = Vec::new();
    while rest > 0 {
        let length = (rest - 1).min(255);
        rdata.push(u8::try_from(length).unwrap());
        rdata.extend(std::iter::repeat_n(b'x', length));
        rest -= 1 + length;
    }
    vec![data(rtype::TXT, rdata)]
}

/// The zone's SOA: negative answers live 120 s.
fn soa_rdata() -> Vec<u8> {
    let mut rdata = encode_name("ns1.lab.example");
    rdata.extend(encode_name("hostmaster.lab.example"));
    for number in [2026u32, 7200, 3600, 1_209_600, 120] {
        rdata.extend_from_slice(&number.to_be_bytes());
    }
    rdata
}

/// Writes the response with this content to a query.
pub fn respond(query: &[u8], content: &Content) -> Vec<u8> {
    let (rcode, answers) = match content {
        Content::Records(records) => (0, records.as_slice()),
        Content::NoData => (0, &[][..]),
        Content::NoName => (3, &[][..]),
    };
    let mut response = start(query, rcode);
    for record in answers {
        push(&mut response, record);
    }
    let mut authority = 0u16;
    if answers.is_empty() {
        let soa = Data { owner: Some(ORIGIN.to_owned()), ..data(rtype::SOA, soa_rdata()) };
        push(&mut response, &soa);
        authority = 1;
    }
    response[6..8].copy_from_slice(&u16::try_from(answers.len()).unwrap().to_be_bytes());
    response[8..10].copy_from_slice(&authority.to_be_bytes());
    if Message::read(query).opt.is_some() {
        response.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
        response[11] = 1;
    }
    response
}

/// Writes header and question of a response: QR, RA, the query's RD and CD.
pub fn start(query: &[u8], rcode: u8) -> Vec<u8> {
    let question_end = question_end(query);
    let mut response = query[..question_end].to_vec();
    response[2] = 0x80 | (query[2] & 0x01);
    response[3] = 0x80 | (query[3] & 0x10) | rcode;
    response[6..12].fill(0);
    response
}

/// Returns where the question of a query ends.
pub fn question_end(query: &[u8]) -> usize {
    let mut at = 12;
    while query[at] != 0 {
        at += 1 + usize::from(query[at]);
    }
    at + 5
}

/// Writes one record.
fn push(response: &mut Vec<u8>, record: &Data) {
    match &record.owner {
        None => response.extend_from_slice(&[0xC0, 12]),
        Some(owner) => response.extend(encode_name(owner)),
    }
    response.extend_from_slice(&record.rtype.to_be_bytes());
    response.extend_from_slice(&[0, 1]);
    response.extend_from_slice(&record.ttl.to_be_bytes());
    response.extend_from_slice(&u16::try_from(record.rdata.len()).unwrap().to_be_bytes());
    response.extend_from_slice(&record.rdata);
}
