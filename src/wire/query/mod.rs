//! A client's query: one pass, no copy, malformed ones refused; and the query we build for a server. Who asked, and
//! whether we like the question, is not known here.

#[cfg(test)]
mod tests;

use super::edns::{self, EdnsRef};
use super::header::{self, HEADER_LEN, HeaderRef, Rcode};
use super::name::{MAX_LABEL, NameRef};
use super::question::{Class, QuestionRef, RecordType};
use super::{MAX_MESSAGE, MAX_UDP_REPLY, MIN_UDP_REPLY};
use bytes::Bytes;

/// How a client asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientTransport {
    /// One datagram a message.
    Udp,
    /// Messages with their length before them (RFC 7766).
    Tcp,
}

/// Why a query is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryFault {
    /// Shorter than a header, or a response: no reply at all.
    Drop,
    /// Reply with this rcode (`reply::reject`): FORMERR, NOTIMP, BADVERS.
    Reject(Rcode),
}

/// A malformed query (RFC 1035 §4.1.1).
const MALFORMED: QueryFault = QueryFault::Reject(Rcode::FORMERR);

/// Records that a query may hold: an OPT and a signature are usual, an IXFR has an SOA more. A longer list is only
/// there to cost time.
const MAX_RECORDS: u32 = 16;

/// A checked view of a query.
#[derive(Clone, Copy, Debug)]
pub struct QueryRef<'a> {
    /// The whole message.
    bytes: &'a [u8],
    /// Its header.
    header: HeaderRef<'a>,
    /// Its one question.
    question: QuestionRef<'a>,
    /// Its OPT record.
    edns: Option<EdnsRef<'a>>,
}

impl<'a> QueryRef<'a> {
    /// Checks a client's message in one pass.
    ///
    /// # Errors
    /// Says whether to answer, and with which rcode, when it is no query we can serve.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, QueryFault> {
        let (head, body) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(QueryFault::Drop)?;
        let header = HeaderRef::new(head);
        if header.is_response() {
            return Err(QueryFault::Drop);
        }
        if header.opcode() != header::OPCODE_QUERY {
            return Err(QueryFault::Reject(Rcode::NOTIMP));
        }
        let [questions, answers, authorities, additionals] = header.counts();
        // RFC 9619: exactly one question.
        if questions != 1 || answers != 0 {
            return Err(MALFORMED);
        }
        let question = QuestionRef::parse(body).ok_or(MALFORMED)?;
        if question.rtype == RecordType::OPT || question.class == Class(0) {
            return Err(MALFORMED);
        }
        // RFC 1995 §3: an IXFR query holds the client's SOA. Nothing else has authority records.
        if authorities != 0 && question.rtype != RecordType::IXFR {
            return Err(MALFORMED);
        }
        let records = body.get(question.wire_len()..).ok_or(MALFORMED)?;
        let edns = walk_records(records, authorities, additionals)?;
        Ok(Self { bytes, header, question, edns })
    }

    /// Returns the message as it came.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the header.
    pub fn header(&self) -> HeaderRef<'a> {
        self.header
    }

    /// Returns the message ID.
    pub fn id(&self) -> u16 {
        self.header.id()
    }

    /// Returns the question.
    pub fn question(&self) -> QuestionRef<'a> {
        self.question
    }

    /// Returns the question's octets, letter case as the client wrote it.
    pub fn question_bytes(&self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..HEADER_LEN + self.question.wire_len()).unwrap_or_default()
    }

    /// Returns the OPT record.
    pub fn edns(&self) -> Option<EdnsRef<'a>> {
        self.edns
    }

    /// Returns the DO bit (RFC 3225): does the client want DNSSEC records?
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// Returns the query as it would be without options, which may name the client (RFC 7871, RFC 7873), and without records
    /// of another kind.
    pub fn without_options(&self) -> Vec<u8> {
        let [id_high, id_low] = self.id().to_be_bytes();
        let [third, fourth] = self.header.flags();
        let additionals = u8::from(self.edns.is_some());
        let mut message = Vec::with_capacity(HEADER_LEN + self.question.wire_len() + edns::OPT_FIXED_LEN);
        message.extend_from_slice(&[id_high, id_low, third, fourth, 0, 1, 0, 0, 0, 0, 0, additionals]);
        message.extend_from_slice(self.question_bytes());
        if let Some(edns) = self.edns {
            let [root, type_high, type_low, _, _, rest @ ..] = edns::opt_head(0, edns.dnssec_ok, 0);
            let [size_high, size_low] = edns.udp_payload.to_be_bytes();
            message.extend_from_slice(&[root, type_high, type_low, size_high, size_low]);
            message.extend_from_slice(&rest);
        }
        message
    }

    /// Returns the longest reply the client can take: UDP without EDNS 512, with EDNS its payload size within
    /// 512..=1232 (RFC 6891 §6.2.3); TCP 65,535.
    pub fn reply_limit(&self, transport: ClientTransport) -> usize {
        match transport {
            ClientTransport::Udp => self.edns.map_or(MIN_UDP_REPLY, |edns| {
                usize::from(edns.udp_payload).clamp(MIN_UDP_REPLY, MAX_UDP_REPLY)
            }),
            ClientTransport::Tcp => MAX_MESSAGE,
        }
    }
}

/// Steps over the records after the question, which have to fill the message, and returns the OPT among them.
fn walk_records(
    mut records: &[u8],
    authorities: u16,
    additionals: u16,
) -> Result<Option<EdnsRef<'_>>, QueryFault> {
    let mut left = u32::from(authorities) + u32::from(additionals);
    if left > MAX_RECORDS {
        return Err(MALFORMED);
    }
    let mut edns = None;
    while left > 0 {
        let (record, rest) = Record::split(records).ok_or(MALFORMED)?;
        if record.rtype == RecordType::OPT {
            // RFC 6891 §6.1.1: at most one, at the root, in the additional section.
            if edns.is_some() || !record.at_root || left > u32::from(additionals) {
                return Err(MALFORMED);
            }
            edns = Some(record.edns()?);
        }
        records = rest;
        left -= 1;
    }
    if records.is_empty() { Ok(edns) } else { Err(MALFORMED) }
}

/// A record of a query, as far as it is looked at.
struct Record<'a> {
    /// True when the owner is the root.
    at_root: bool,
    /// TYPE.
    rtype: RecordType,
    /// CLASS.
    class: u16,
    /// TTL.
    ttl: u32,
    /// RDATA.
    rdata: &'a [u8],
}

impl<'a> Record<'a> {
    /// Cuts the first record off.
    fn split(records: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let after_owner = skip_owner(records)?;
        let (&[t1, t2, c1, c2, l1, l2, l3, l4, len1, len2], rest) = after_owner.split_first_chunk()?;
        let (rdata, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([len1, len2])))?;
        let record = Self {
            at_root: records.first() == Some(&0),
            rtype: RecordType(u16::from_be_bytes([t1, t2])),
            class: u16::from_be_bytes([c1, c2]),
            ttl: u32::from_be_bytes([l1, l2, l3, l4]),
            rdata,
        };
        Some((record, rest))
    }

    /// Reads it as an OPT record. The version comes first: another one may lay its options out otherwise.
    fn edns(&self) -> Result<EdnsRef<'a>, QueryFault> {
        let [_, version, ..] = self.ttl.to_be_bytes();
        if version > 0 {
            return Err(QueryFault::Reject(Rcode::BADVERS));
        }
        EdnsRef::from_record(self.class, self.ttl, self.rdata).ok_or(MALFORMED)
    }
}

/// Steps over an owner name, which may end in a pointer (RFC 1035 §4.1.4). The pointer is not followed.
fn skip_owner(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let (&len, rest) = bytes.split_first()?;
        match usize::from(len) {
            0 => return Some(rest),
            label @ 1..=MAX_LABEL => bytes = rest.get(label..)?,
            0xc0.. => return rest.get(1..),
            _ => return None,
        }
    }
}

/// What goes into a query of ours. Never a client's query as it came.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamQuery<'a> {
    /// What is asked.
    pub question: QuestionRef<'a>,
    /// DO (RFC 3225).
    pub dnssec_ok: bool,
    /// CD (RFC 4035 §3.2.2).
    pub checking_disabled: bool,
    /// The ECS option.
    pub subnet: SubnetOption<'a>,
    /// Pad to a multiple of 128 octets (RFC 8467 §4.1).
    pub padding: bool,
}

/// The ECS option of a query (RFC 7871).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubnetOption<'a> {
    /// No option.
    Absent,
    /// Source prefix length 0 (RFC 7871 §7.1.2): asks the server not to send the client's network.
    OptOut,
    /// Option content (family, prefix lengths, address) as it goes on the wire.
    Content(&'a [u8]),
}

impl<'a> SubnetOption<'a> {
    /// Family IPv4, source and scope prefix length 0, no address.
    const OPT_OUT: &'static [u8] = &[0, 1, 0, 0];
    /// Octets of the longest content: family, two prefix lengths, an IPv6 address (RFC 7871 §6).
    const MAX_CONTENT: usize = 20;

    /// Returns what stands in the option; a content that is too long for one counts as none.
    fn content(self) -> Option<&'a [u8]> {
        match self {
            Self::Absent => None,
            Self::OptOut => Some(Self::OPT_OUT),
            Self::Content(content) => (content.len() <= Self::MAX_CONTENT).then_some(content),
        }
    }
}

/// RFC 8467 §4.1: clients pad their queries to a multiple of this.
const PADDING_BLOCK: usize = 128;

impl UpstreamQuery<'_> {
    /// What every resolver can answer from memory, and a living one answers at once: who the root's name servers are. It says
    /// nothing about a client.
    pub const ROOT_SERVERS: QuestionRef<'static> =
        QuestionRef { name: NameRef::ROOT, rtype: RecordType::NS, class: Class::IN };

    /// Makes the query that asks a server for a sign of life.
    pub fn sign_of_life(padding: bool) -> UpstreamQuery<'static> {
        UpstreamQuery {
            question: Self::ROOT_SERVERS,
            dnssec_ok: false,
            checking_disabled: false,
            subnet: SubnetOption::Absent,
            padding,
        }
    }

    /// Builds the message: ID 0, RD=1, AD=1 (RFC 6840 §5.7), CD as asked, OPT with payload size 1232, DO as asked.
    /// The question's letter case is kept.
    pub fn build(&self) -> Bytes {
        let subnet = self.subnet.content();
        let subnet_len = subnet.map_or(0, |content| edns::OPTION_HEAD_LEN + content.len());
        let bare_len = HEADER_LEN + self.question.wire_len() + edns::OPT_FIXED_LEN + subnet_len;
        let padding = self.padding.then(|| {
            let excess = (bare_len + edns::OPTION_HEAD_LEN) % PADDING_BLOCK;
            if excess == 0 { 0 } else { PADDING_BLOCK - excess }
        });
        let padding_len = padding.map_or(0, |len| edns::OPTION_HEAD_LEN + len);

        let mut message = Vec::with_capacity(bare_len + padding_len);
        let checking = if self.checking_disabled { header::FLAG_CD } else { 0 };
        message.extend_from_slice(&[0, 0, header::FLAG_RD, header::FLAG_AD | checking]);
        message.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 1]);
        message.extend_from_slice(self.question.name.as_bytes());
        message.extend_from_slice(&self.question.rtype.0.to_be_bytes());
        message.extend_from_slice(&self.question.class.0.to_be_bytes());
        message.extend_from_slice(&edns::opt_head(0, self.dnssec_ok, wire_len(subnet_len + padding_len)));
        if let Some(content) = subnet {
            push_option_head(&mut message, edns::OPTION_ECS, content.len());
            message.extend_from_slice(content);
        }
        if let Some(len) = padding {
            push_option_head(&mut message, edns::OPTION_PADDING, len);
            message.resize(message.len() + len, 0);
        }
        Bytes::from(message)
    }
}

/// Appends an option's code and length.
fn push_option_head(message: &mut Vec<u8>, code: u16, len: usize) {
    message.extend_from_slice(&code.to_be_bytes());
    message.extend_from_slice(&wire_len(len).to_be_bytes());
}

/// Returns a length as it stands on the wire. Those of our own options are below 256.
fn wire_len(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}
