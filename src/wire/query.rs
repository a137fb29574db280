//! A client's query: one pass, no copy, malformed ones refused; and the query we build for a server. Who asked, and
//! whether we like the question, is not known here.

use super::edns::{self, EdnsRef};
use super::header::{self, HEADER_LEN, HeaderRef, Rcode};
use super::name::MAX_LABEL;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::name::{Name, NameRef};
    use proptest::prelude::*;

    /// ID 0x1234, RD, one question for www.Example. A, and what follows.
    fn query(counts: [u8; 4], rest: &[u8]) -> Vec<u8> {
        let [questions, answers, authorities, additionals] = counts;
        let mut message = vec![0x12, 0x34, 1, 0, 0, questions, 0, answers, 0, authorities, 0, additionals];
        message.extend_from_slice(b"\x03www\x07Example\x00\x00\x01\x00\x01");
        message.extend_from_slice(rest);
        message
    }

    /// An OPT record with payload size 4096 and DO.
    const OPT: &[u8] = b"\x00\x00\x29\x10\x00\x00\x00\x80\x00\x00\x00";
    /// A TSIG record in outline, its owner a pointer to the question's name.
    const TSIG: &[u8] = b"\xc0\x0c\x00\xfa\x00\xff\x00\x00\x00\x00\x00\x02xy";

    fn fault(message: &[u8]) -> QueryFault {
        QueryRef::parse(message).unwrap_err()
    }

    #[test]
    fn a_plain_query_is_taken() {
        let message = query([1, 0, 0, 0], b"");
        let query = QueryRef::parse(&message).unwrap();
        assert_eq!(query.id(), 0x1234);
        assert_eq!(query.question().name.to_string(), "www.Example.");
        assert_eq!(query.question_bytes(), &message[HEADER_LEN..]);
        assert!(query.edns().is_none() && !query.dnssec_ok());
        assert_eq!(query.reply_limit(ClientTransport::Udp), 512);
        assert_eq!(query.reply_limit(ClientTransport::Tcp), 65_535);
    }

    #[test]
    fn edns_is_found_among_other_records() {
        for rest in [[OPT, TSIG].concat(), [TSIG, OPT].concat()] {
            let message = query([1, 0, 0, 2], &rest);
            let query = QueryRef::parse(&message).unwrap();
            assert!(query.dnssec_ok());
            assert_eq!(query.edns().unwrap().udp_payload, 4096);
        }
    }

    #[test]
    fn the_reply_limit_stays_within_what_is_safe_on_any_network() {
        for (payload, limit) in [(0_u16, 512), (511, 512), (800, 800), (1232, 1232), (4096, 1232)] {
            let mut opt = OPT.to_vec();
            opt[3..5].copy_from_slice(&payload.to_be_bytes());
            let message = query([1, 0, 0, 1], &opt);
            assert_eq!(QueryRef::parse(&message).unwrap().reply_limit(ClientTransport::Udp), limit);
        }
    }

    #[test]
    fn what_cannot_be_answered_is_dropped() {
        assert_eq!(fault(&[0; 11]), QueryFault::Drop);
        let mut response = query([1, 0, 0, 0], b"");
        response[2] |= 0x80;
        assert_eq!(fault(&response), QueryFault::Drop);
    }

    #[test]
    fn other_opcodes_are_not_implemented() {
        let mut notify = query([1, 0, 0, 0], b"");
        notify[2] = 4 << 3;
        assert_eq!(fault(&notify), QueryFault::Reject(Rcode::NOTIMP));
    }

    #[test]
    fn malformed_queries_are_refused() {
        let mut compressed = query([1, 0, 0, 0], b"");
        compressed.truncate(HEADER_LEN);
        compressed.extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01");
        let mut of_type_opt = query([1, 0, 0, 0], b"");
        of_type_opt[26] = 41;
        let mut of_class_zero = query([1, 0, 0, 0], b"");
        of_class_zero[28] = 0;
        let below_root = [b"\x01x", OPT].concat();
        let bad_options = b"\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x03\x00\x08\x00";
        let cases = [
            ("no question", query([0, 0, 0, 0], b"")),
            ("two questions", query([2, 0, 0, 0], b"\x00\x00\x01\x00\x01")),
            ("an answer", query([1, 1, 0, 0], TSIG)),
            ("an authority record", query([1, 0, 1, 0], TSIG)),
            ("octets behind the question", query([1, 0, 0, 0], b"x")),
            ("octets behind the last record", query([1, 0, 0, 1], &[OPT, b"x"].concat())),
            ("a record that is not there", query([1, 0, 0, 1], b"")),
            ("half a record", query([1, 0, 0, 1], &OPT[..OPT.len() - 1])),
            ("two OPT records", query([1, 0, 0, 2], &[OPT, OPT].concat())),
            ("OPT below the root", query([1, 0, 0, 1], &below_root)),
            ("options that do not add up", query([1, 0, 0, 1], bad_options)),
            ("seventeen records", query([1, 0, 0, 17], &TSIG.repeat(17))),
            ("a reserved label type", query([1, 0, 0, 1], b"\x41x")),
            ("a question name that is a pointer", compressed),
            ("type OPT", of_type_opt),
            ("class 0", of_class_zero),
        ];
        for (what, message) in cases {
            assert_eq!(fault(&message), MALFORMED, "{what}");
        }
    }

    #[test]
    fn sixteen_records_are_walked() {
        assert!(QueryRef::parse(&query([1, 0, 0, 16], &TSIG.repeat(16))).is_ok());
    }

    #[test]
    fn an_ixfr_may_hold_the_clients_soa_but_no_opt_in_its_place() {
        let mut message = query([1, 0, 1, 1], &[TSIG, OPT].concat());
        message[26] = 251;
        assert!(QueryRef::parse(&message).unwrap().edns().is_some());
        let mut message = query([1, 0, 1, 1], &[OPT, TSIG].concat());
        message[26] = 251;
        assert_eq!(fault(&message), MALFORMED);
    }

    #[test]
    fn a_later_edns_version_is_refused_whatever_its_options_look_like() {
        let opt = b"\x00\x00\x29\x10\x00\x00\x01\x00\x00\x00\x03\x00\x08\x00";
        assert_eq!(fault(&query([1, 0, 0, 1], opt)), QueryFault::Reject(Rcode::BADVERS));
    }

    /// An upstream query for a name, without padding and DNSSEC.
    fn upstream<'a>(name: NameRef<'a>, subnet: SubnetOption<'a>, padding: bool) -> UpstreamQuery<'a> {
        let question = QuestionRef { name, rtype: RecordType::A, class: Class::IN };
        UpstreamQuery { question, dnssec_ok: false, checking_disabled: false, subnet, padding }
    }

    #[test]
    fn our_query_is_the_same_octets_every_time() {
        let name = NameRef::parse(b"\x03wWw\x00").unwrap();
        let mut query = upstream(name, SubnetOption::OptOut, false);
        query.dnssec_ok = true;
        query.checking_disabled = true;
        assert_eq!(
            query.build(),
            b"\x00\x00\x01\x30\x00\x01\x00\x00\x00\x00\x00\x01\x03wWw\x00\x00\x01\x00\x01\
              \x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x08\x00\x08\x00\x04\x00\x01\x00\x00"
                .as_slice()
        );
    }

    #[test]
    fn padding_fills_up_to_128_octets_and_is_zero() {
        let name: Name = "www.example".parse().unwrap();
        let message = upstream(name.view(), SubnetOption::Absent, true).build();
        assert_eq!(message.len(), 128);
        let padding = QueryRef::parse(&message).unwrap().edns().unwrap().option(edns::OPTION_PADDING);
        assert!(padding.unwrap().iter().all(|&octet| octet == 0));
    }

    #[test]
    fn a_subnet_longer_than_an_address_is_left_out() {
        let message = upstream(NameRef::ROOT, SubnetOption::Content(&[0; 21]), false).build();
        assert_eq!(QueryRef::parse(&message).unwrap().edns().unwrap().options().count(), 0);
    }

    proptest! {
        #[test]
        fn no_octets_panic_the_parser(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = QueryRef::parse(&bytes);
        }

        #[test]
        fn no_change_to_a_good_query_panics_the_parser(
            at in 0_usize..60, value in any::<u8>(), cut in 0_usize..80
        ) {
            let mut message = query([1, 0, 0, 2], &[OPT, TSIG].concat());
            if let Some(octet) = message.get_mut(at) {
                *octet = value;
            }
            message.truncate(cut);
            let _ = QueryRef::parse(&message);
        }

        #[test]
        fn our_query_reads_back_as_it_was_asked(
            labels in prop::collection::vec("[a-zA-Z0-9]{1,50}", 0..4),
            rtype in (0_u16..).prop_filter("type OPT is never asked for", |rtype| *rtype != 41),
            dnssec_ok in any::<bool>(),
            checking_disabled in any::<bool>(),
            subnet in prop::option::of(prop::collection::vec(any::<u8>(), 0..=20)),
            padding in any::<bool>(),
        ) {
            let wire: Vec<u8> = labels
                .iter()
                .flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat())
                .chain([0])
                .collect();
            let name = NameRef::parse(&wire).unwrap();
            let question = QuestionRef { name, rtype: RecordType(rtype), class: Class::IN };
            let option = subnet.as_deref().map_or(SubnetOption::OptOut, SubnetOption::Content);
            let message =
                UpstreamQuery { question, dnssec_ok, checking_disabled, subnet: option, padding }.build();
            let query = QueryRef::parse(&message).unwrap();
            prop_assert_eq!(query.id(), 0);
            prop_assert_eq!(query.question().name.as_bytes(), name.as_bytes());
            prop_assert!(query.question().matches(&question));
            prop_assert!(query.header().recursion_desired() && query.header().authentic_data());
            prop_assert_eq!(query.header().checking_disabled(), checking_disabled);
            prop_assert_eq!(query.dnssec_ok(), dnssec_ok);
            let edns = query.edns().unwrap();
            prop_assert_eq!(edns.udp_payload, 1232);
            prop_assert_eq!(edns.option(edns::OPTION_ECS), option.content());
            prop_assert_eq!(edns.option(edns::OPTION_PADDING).is_some(), padding);
            prop_assert!(!padding || message.len().is_multiple_of(PADDING_BLOCK));
        }
    }
}
