//! DNS messages taken apart and put together by a second, simple implementation: slow, complete, and nothing to do with
//! the program's own. Every message that it reads is read by hickory-proto too: two opinions.

use std::fmt;

/// Record types by number.
pub mod rtype {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const HINFO: u16 = 13;
    pub const MX: u16 = 15;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const NAPTR: u16 = 35;
    pub const OPT: u16 = 41;
    pub const DS: u16 = 43;
    pub const RRSIG: u16 = 46;
    pub const NSEC: u16 = 47;
    pub const DNSKEY: u16 = 48;
    pub const HTTPS: u16 = 65;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
    pub const CAA: u16 = 257;
    pub const UNKNOWN: u16 = 65400;
}

/// Response codes by number.
pub mod rcode {
    pub const NOERROR: u16 = 0;
    pub const FORMERR: u16 = 1;
    pub const SERVFAIL: u16 = 2;
    pub const NXDOMAIN: u16 = 3;
    pub const NOTIMP: u16 = 4;
    pub const REFUSED: u16 = 5;
    pub const BADVERS: u16 = 16;
}

/// A message, names in text with their letter case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub id: u16,
    pub flags: u16,
    pub question: Option<Question>,
    pub answers: Vec<Record>,
    pub authority: Vec<Record>,
    /// Without the OPT.
    pub additional: Vec<Record>,
    pub opt: Option<Opt>,
    /// Octets of the whole.
    pub size: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub name: String,
    pub rtype: u16,
    pub class: u16,
}

/// A record; names in well-known RDATA are written out without compression.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    pub name: String,
    pub rtype: u16,
    pub class: u16,
    pub ttl: u32,
    pub rdata: Vec<u8>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} TYPE{} {:02x?}",
            self.name,
            self.ttl,
            self.rtype,
            &self.rdata[..self.rdata.len().min(24)]
        )
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opt {
    pub payload: u16,
    pub version: u8,
    pub dnssec_ok: bool,
    pub extended_rcode: u8,
    pub options: Vec<(u16, Vec<u8>)>,
}

/// EDNS option: client subnet (RFC 7871).
pub const OPTION_ECS: u16 = 8;
/// EDNS option: cookie (RFC 7873).
pub const OPTION_COOKIE: u16 = 10;
/// EDNS option: TCP keepalive (RFC 7828).
pub const OPTION_KEEPALIVE: u16 = 11;
/// EDNS option: padding (RFC 7830).
pub const OPTION_PADDING: u16 = 12;
/// EDNS option: extended error (RFC 8914).
pub const OPTION_EDE: u16 = 15;

impl Message {
    /// Reads a message.
    ///
    /// # Panics
    /// When it is not one, to the last octet, in the eyes of this reader or of hickory-proto.
    pub fn read(octets: &[u8]) -> Self {
        let mut reader = Reader { octets, at: 0 };
        let [id, flags, questions, answers, authority, additional] = std::array::from_fn(|_| reader.u16());
        assert!(questions <= 1, "{questions} questions");
        let question = (questions == 1).then(|| reader.question());
        let answers = (0..answers).map(|_| reader.record()).collect();
        let authority = (0..authority).map(|_| reader.record()).collect();
        let mut rest: Vec<Record> = (0..additional).map(|_| reader.record()).collect();
        assert_eq!(reader.at, octets.len(), "octets behind the last record");
        let opts = rest.iter().filter(|record| record.rtype == rtype::OPT).count();
        assert!(opts <= 1, "{opts} OPT records");
        let opt =
            rest.iter().position(|record| record.rtype == rtype::OPT).map(|at| Opt::read(&rest.remove(at)));
        if let Err(error) = hickory_proto::op::Message::from_vec(octets) {
            panic!("hickory-proto cannot read {octets:02x?}: {error}");
        }
        Self { id, flags, question, answers, authority, additional: rest, opt, size: octets.len() }
    }

    /// The rcode with its upper half from the OPT.
    pub fn rcode(&self) -> u16 {
        (self.flags & 0xF) | self.opt.as_ref().map_or(0, |opt| u16::from(opt.extended_rcode) << 4)
    }

    pub fn is_truncated(&self) -> bool {
        self.flags & 0x0200 != 0
    }

    pub fn is_authentic(&self) -> bool {
        self.flags & 0x0020 != 0
    }

    /// The extended error (RFC 8914): code and text.
    pub fn ede(&self) -> Option<(u16, String)> {
        let (_, data) = self.opt.as_ref()?.options.iter().find(|(code, _)| *code == OPTION_EDE)?;
        Some((u16::from_be_bytes([data[0], data[1]]), String::from_utf8_lossy(&data[2..]).into_owned()))
    }

    /// The code of the extended error.
    pub fn ede_code(&self) -> Option<u16> {
        self.ede().map(|(code, _)| code)
    }

    /// An EDNS option's data.
    pub fn option(&self, code: u16) -> Option<&[u8]> {
        let options = &self.opt.as_ref()?.options;
        options.iter().find(|(present, _)| *present == code).map(|(_, data)| data.as_slice())
    }

    /// Type and RDATA of the answers, in order: what must travel unchanged.
    pub fn data(&self) -> Vec<(u16, Vec<u8>)> {
        self.answers.iter().map(|record| (record.rtype, record.rdata.clone())).collect()
    }

    /// The smallest TTL of the answers.
    pub fn ttl(&self) -> u32 {
        self.answers.iter().map(|record| record.ttl).min().expect("no answers")
    }
}

impl Opt {
    /// Reads the parts of an OPT record (RFC 6891 §6.1.2).
    fn read(record: &Record) -> Self {
        let mut reader = Reader { octets: &record.rdata, at: 0 };
        let mut options = Vec::new();
        while reader.at < record.rdata.len() {
            let code = reader.u16();
            let length = usize::from(reader.u16());
            options.push((code, reader.take(length).to_vec()));
        }
        let [extended_rcode, version, high, _] = record.ttl.to_be_bytes();
        Self { payload: record.class, version, dnssec_ok: high & 0x80 != 0, extended_rcode, options }
    }
}

/// Reads on from a place in a message.
struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let taken = &self.octets[self.at..self.at + length];
        self.at += length;
        taken
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    /// Reads a name, following pointers, into its uncompressed form.
    fn name(&mut self) -> Vec<u8> {
        let mut name = Vec::new();
        let mut at = self.at;
        let mut jumped = false;
        loop {
            let length = usize::from(self.octets[at]);
            if length >= 0xC0 {
                let target = (length & 0x3F) << 8 | usize::from(self.octets[at + 1]);
                assert!(target < at, "a pointer that does not point back");
                if !jumped {
                    self.at = at + 2;
                }
                jumped = true;
                at = target;
                continue;
            }
            name.extend_from_slice(&self.octets[at..=at + length]);
            at += 1 + length;
            if length == 0 {
                break;
            }
        }
        if !jumped {
            self.at = at;
        }
        name
    }

    fn question(&mut self) -> Question {
        Question { name: text(&self.name()), rtype: self.u16(), class: self.u16() }
    }

    fn record(&mut self) -> Record {
        let name = text(&self.name());
        let (rtype, class, ttl) = (self.u16(), self.u16(), self.u32());
        let length = usize::from(self.u16());
        let end = self.at + length;
        let mut rdata = Vec::new();
        match rtype {
            rtype::NS | rtype::CNAME | rtype::PTR => rdata = self.name(),
            rtype::MX => {
                rdata.extend_from_slice(self.take(2));
                rdata.extend(self.name());
            }
            rtype::SOA => {
                rdata = self.name();
                rdata.extend(self.name());
            }
            _ => {}
        }
        rdata.extend_from_slice(self.take(end - self.at));
        Record { name, rtype, class, ttl, rdata }
    }
}

/// Writes an uncompressed name as text.
fn text(name: &[u8]) -> String {
    let mut text = String::new();
    let mut at = 0;
    while name[at] != 0 {
        let length = usize::from(name[at]);
        for octet in &name[at + 1..=at + length] {
            match octet {
                b'!'..=b'~' if !b".\\\"".contains(octet) => text.push(char::from(*octet)),
                other => text.push_str(&format!("\\{other:03}")),
            }
        }
        text.push('.');
        at += 1 + length;
    }
    if text.is_empty() { ".".to_owned() } else { text }
}

/// Writes a name without compression.
pub fn encode_name(name: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        octets.push(u8::try_from(label.len()).unwrap());
        octets.extend_from_slice(label.as_bytes());
    }
    octets.push(0);
    octets
}

/// A query in the making.
#[derive(Clone, Debug)]
pub struct Query {
    pub id: u16,
    pub flags: u16,
    pub name: String,
    pub rtype: u16,
    pub class: u16,
    /// Payload size; None: no EDNS.
    pub edns: Option<u16>,
    pub version: u8,
    pub dnssec_ok: bool,
    pub options: Vec<(u16, Vec<u8>)>,
}

/// Makes a query with RD and EDNS of 1232 octets.
pub fn query(name: &str, rtype: u16) -> Query {
    Query {
        id: fastrand::u16(..),
        flags: 0x0100,
        name: name.to_owned(),
        rtype,
        class: 1,
        edns: Some(1232),
        version: 0,
        dnssec_ok: false,
        options: Vec::new(),
    }
}

impl Query {
    #[must_use]
    pub fn without_edns(mut self) -> Self {
        self.edns = None;
        self
    }

    #[must_use]
    pub fn payload(mut self, octets: u16) -> Self {
        self.edns = Some(octets);
        self
    }

    #[must_use]
    pub fn dnssec(mut self) -> Self {
        self.dnssec_ok = true;
        self
    }

    #[must_use]
    pub fn checking_disabled(mut self) -> Self {
        self.flags |= 0x0010;
        self
    }

    #[must_use]
    pub fn option(mut self, code: u16, data: &[u8]) -> Self {
        self.options.push((code, data.to_vec()));
        self
    }

    /// Writes it.
    pub fn octets(&self) -> Vec<u8> {
        let mut octets = Vec::new();
        let additional = u16::from(self.edns.is_some());
        for number in [self.id, self.flags, 1, 0, 0, additional] {
            octets.extend_from_slice(&number.to_be_bytes());
        }
        octets.extend(encode_name(&self.name));
        octets.extend_from_slice(&self.rtype.to_be_bytes());
        octets.extend_from_slice(&self.class.to_be_bytes());
        if let Some(payload) = self.edns {
            let mut options = Vec::new();
            for (code, data) in &self.options {
                options.extend_from_slice(&code.to_be_bytes());
                options.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
                options.extend_from_slice(data);
            }
            octets.push(0);
            octets.extend_from_slice(&rtype::OPT.to_be_bytes());
            octets.extend_from_slice(&payload.to_be_bytes());
            octets.extend_from_slice(&[0, self.version, if self.dnssec_ok { 0x80 } else { 0 }, 0]);
            octets.extend_from_slice(&u16::try_from(options.len()).unwrap().to_be_bytes());
            octets.extend(options);
        }
        octets
    }
}
