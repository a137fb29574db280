//! A server's response: every record walked once, names within bounds and pointers only backwards; then
//! its sections are iterated without a further check. The walk is linear in the message's length whatever
//! the message says: a name costs at most 127 labels and 32 pointers, and a record has at least
//! 11 octets (RFC 9267 tells what happens to those who trust names and counts).
//!
//! Whether the response answers what we asked, and which of its records belong to the answer, is not
//! judged here.

use super::MAX_MESSAGE;
use super::ede::EdeCode;
use super::edns::{EdnsRef, OPTION_ECS};
use super::header::{HEADER_LEN, HeaderRef, OPCODE_QUERY, Rcode};
use super::question::{Class, QuestionRef, RecordType, Ttl};

pub use super::packed_name::PackedName;

/// Why octets are no answer. One variant a rule, so that the counters can tell which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ResponseFault {
    /// Fewer than the 12 octets of a header.
    #[error("shorter than a header")]
    Short,
    /// QR is 0.
    #[error("not a response")]
    NotResponse,
    /// The opcode is another than QUERY.
    #[error("opcode is not QUERY")]
    Opcode,
    /// QDCOUNT is not 1.
    #[error("not exactly one question")]
    QuestionCount,
    /// The question is not the one that was asked, or cannot be read.
    #[error("question differs from ours")]
    QuestionMismatch,
    /// TC is set where nothing need be cut.
    #[error("truncated on a stream")]
    Truncated,
    /// A record runs past the end of the message.
    #[error("a record is malformed")]
    Record,
    /// The counts end before the message does, or it is longer than 65,535 octets.
    #[error("octets after the last record")]
    TrailingOctets,
    /// A name is too long, runs out of the message or points forwards.
    #[error("a name is malformed")]
    Name,
    /// RFC 6891 §6.1.1: one OPT record at most, in the additional section, owned by the root.
    #[error("the OPT record is doubled, misplaced or malformed")]
    Opt,
    /// Answer records that have nothing to do with the question.
    #[error("no record of the answer follows from the question")]
    Unrelated,
    /// The ID is not the one that was sent.
    #[error("the response ID is wrong")]
    Id,
}

impl ResponseFault {
    /// All variants, for the metrics table.
    pub const ALL: [Self; 12] = [
        Self::Short,
        Self::NotResponse,
        Self::Opcode,
        Self::QuestionCount,
        Self::QuestionMismatch,
        Self::Truncated,
        Self::Record,
        Self::TrailingOctets,
        Self::Name,
        Self::Opt,
        Self::Unrelated,
        Self::Id,
    ];

    /// Returns the `rule` label of `veildns_validation_failures_total`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::NotResponse => "not_response",
            Self::Opcode => "opcode",
            Self::QuestionCount => "question_count",
            Self::QuestionMismatch => "question_mismatch",
            Self::Truncated => "truncated",
            Self::Record => "record",
            Self::TrailingOctets => "trailing_octets",
            Self::Name => "name",
            Self::Opt => "opt",
            Self::Unrelated => "unrelated",
            Self::Id => "id",
        }
    }
}

/// Which section a record stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Records that answer the question.
    Answer,
    /// The zone's NS or SOA, and denial of existence.
    Authority,
    /// Everything else; the OPT record among it.
    Additional,
}

impl Section {
    /// The sections in the order in which they stand in a message.
    pub const ALL: [Self; 3] = [Self::Answer, Self::Authority, Self::Additional];
}

/// A checked view of a response.
#[derive(Clone, Copy, Debug)]
pub struct ResponseRef<'a> {
    /// The whole message.
    bytes: &'a [u8],
    /// Its first 12 octets.
    header: HeaderRef<'a>,
    /// The one question.
    question: QuestionRef<'a>,
    /// The OPT record, if there is one.
    edns: Option<EdnsRef<'a>>,
    /// Where the answer section starts.
    answer: usize,
    /// Where the authority section starts.
    authority: usize,
    /// Where the additional section starts.
    additional: usize,
}

impl<'a> ResponseRef<'a> {
    /// Walks the whole message: QR=1, opcode QUERY, one uncompressed question, counts that end at the last
    /// octet, at most one OPT record and only among the additional ones. TC and the question's content are
    /// the caller's to judge.
    ///
    /// # Errors
    ///
    /// The first rule that the message breaks.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ResponseFault> {
        let header = HeaderRef::parse(bytes).ok_or(ResponseFault::Short)?;
        if !header.is_response() {
            return Err(ResponseFault::NotResponse);
        }
        if header.opcode() != OPCODE_QUERY {
            return Err(ResponseFault::Opcode);
        }
        let [questions, answers, authorities, additionals] = header.counts();
        if questions != 1 {
            return Err(ResponseFault::QuestionCount);
        }
        let question =
            bytes.get(HEADER_LEN..).and_then(QuestionRef::parse).ok_or(ResponseFault::QuestionMismatch)?;

        let mut walk = Walk { message: bytes, at: HEADER_LEN + question.wire_len(), edns: None };
        let answer = walk.at;
        walk.section(answers, Section::Answer)?;
        let authority = walk.at;
        walk.section(authorities, Section::Authority)?;
        let additional = walk.at;
        walk.section(additionals, Section::Additional)?;
        if walk.at != bytes.len() || bytes.len() > MAX_MESSAGE {
            return Err(ResponseFault::TrailingOctets);
        }
        Ok(Self { bytes, header, question, edns: walk.edns, answer, authority, additional })
    }

    /// Returns the whole message.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the header.
    pub fn header(&self) -> HeaderRef<'a> {
        self.header
    }

    /// Returns the question.
    pub fn question(&self) -> QuestionRef<'a> {
        self.question
    }

    /// Returns the question's name as a name of the message.
    pub fn question_name(&self) -> PackedName<'a> {
        PackedName::of_question(self.bytes)
    }

    /// Returns the response code with the OPT record's upper bits (RFC 6891 §6.1.3).
    pub fn rcode(&self) -> Rcode {
        Rcode::from_parts(self.header.rcode_low(), self.edns.map_or(0, |edns| edns.extended_rcode))
    }

    /// Returns the OPT record.
    pub fn edns(&self) -> Option<EdnsRef<'a>> {
        self.edns
    }

    /// Returns the first Extended DNS Error: its code and EXTRA-TEXT (RFC 8914 §2).
    pub fn ede(&self) -> Option<(EdeCode, &'a [u8])> {
        self.edns?.ede()
    }

    /// Returns the SCOPE PREFIX-LENGTH of the Client Subnet option (RFC 7871 §6).
    pub fn ecs_scope(&self) -> Option<u8> {
        self.edns?.option(OPTION_ECS)?.get(3).copied()
    }

    /// Iterates over the records of a section, the OPT record left out.
    pub fn records(&self, section: Section) -> Records<'a> {
        let [_, answers, authorities, additionals] = self.header.counts();
        let left = match section {
            Section::Answer => answers,
            Section::Authority => authorities,
            Section::Additional => additionals,
        };
        Records { message: self.bytes, at: self.section_start(section), left }
    }

    /// Returns the offset at which the section starts; its end is the start of the next, or the message's end.
    pub fn section_start(&self, section: Section) -> usize {
        match section {
            Section::Answer => self.answer,
            Section::Authority => self.authority,
            Section::Additional => self.additional,
        }
    }
}

/// One record of a checked response.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// Whose record it is.
    pub owner: PackedName<'a>,
    /// TYPE.
    pub rtype: RecordType,
    /// CLASS.
    pub class: Class,
    /// TTL; one with the top bit set reads as 0 (RFC 2181 §8, RFC 8767 §4).
    pub ttl: Ttl,
    /// Offset of the TTL field in the message.
    pub ttl_offset: usize,
    /// RDATA as it stands; names in it may be compressed.
    pub rdata: &'a [u8],
    /// Offset of RDATA in the message.
    pub rdata_offset: usize,
    /// The message, into which names in RDATA point.
    message: &'a [u8],
}

impl<'a> RecordRef<'a> {
    /// Reads the possibly compressed name at `offset` within RDATA: CNAME, DNAME, NS, PTR 0, MX 2, SRV 6.
    /// `None` when there is no name or it breaks the limits that owner names are held to.
    pub fn rdata_name(&self, offset: usize) -> Option<PackedName<'a>> {
        self.rdata_name_span(offset).map(|(name, _)| name)
    }

    /// Like `rdata_name`, and where in RDATA the octets after the name start.
    pub(super) fn rdata_name_span(&self, offset: usize) -> Option<(PackedName<'a>, usize)> {
        let start = self.rdata_offset.checked_add(offset)?;
        let rdata_end = self.rdata_offset + self.rdata.len();
        let (name, end) = PackedName::read(self.message, start)?;
        (end <= rdata_end).then_some((name, end - self.rdata_offset))
    }

    /// Returns MINIMUM of an SOA record (RFC 2308 §4), a value with the top bit set as 0.
    pub fn soa_minimum(&self) -> Option<Ttl> {
        if self.rtype != RecordType::SOA {
            return None;
        }
        let (_, rname) = self.rdata_name_span(0)?;
        let (_, numbers) = self.rdata_name_span(rname)?;
        let numbers: &[u8; 20] = self.rdata.get(numbers..)?.try_into().ok()?;
        numbers.last_chunk().map(|minimum| ttl(*minimum))
    }

    /// Returns the offset in the message of the octet after the record.
    pub(super) fn end(&self) -> usize {
        self.rdata_offset + self.rdata.len()
    }
}

/// The records of one section, in order.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    /// The message.
    message: &'a [u8],
    /// Where the next record starts.
    at: usize,
    /// How many are left to read.
    left: u16,
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordRef<'a>;

    fn next(&mut self) -> Option<RecordRef<'a>> {
        while self.left > 0 {
            self.left -= 1;
            let (owner, owner_end) = PackedName::read_checked(self.message, self.at)?;
            let record = read_record(self.message, owner, owner_end)?;
            self.at = record.end();
            if record.rtype != RecordType::OPT {
                return Some(record);
            }
        }
        None
    }
}

/// The one walk that checks all records.
#[derive(Debug)]
struct Walk<'a> {
    /// The message.
    message: &'a [u8],
    /// Where the next record starts.
    at: usize,
    /// The OPT record, once it was met.
    edns: Option<EdnsRef<'a>>,
}

impl<'a> Walk<'a> {
    /// Walks over the `count` records of a section.
    fn section(&mut self, count: u16, section: Section) -> Result<(), ResponseFault> {
        for _ in 0..count {
            // A count that promises more than there is shows here, before it costs anything.
            if self.at >= self.message.len() {
                return Err(ResponseFault::Record);
            }
            let (owner, owner_end) = PackedName::read(self.message, self.at).ok_or(ResponseFault::Name)?;
            let record = read_record(self.message, owner, owner_end).ok_or(ResponseFault::Record)?;
            self.at = record.end();
            if record.rtype == RecordType::OPT {
                self.opt(&record, section)?;
            }
        }
        Ok(())
    }

    /// Takes the OPT record, if it may stand here (RFC 6891 §6.1.1).
    fn opt(&mut self, record: &RecordRef<'a>, section: Section) -> Result<(), ResponseFault> {
        let misplaced = section != Section::Additional || record.owner.labels().next().is_some();
        if misplaced || self.edns.is_some() {
            return Err(ResponseFault::Opt);
        }
        let flags = self.message.get(record.ttl_offset..).and_then(<[u8]>::first_chunk);
        let flags = u32::from_be_bytes(*flags.ok_or(ResponseFault::Opt)?);
        let edns = EdnsRef::from_record(record.class.0, flags, record.rdata).ok_or(ResponseFault::Opt)?;
        self.edns = Some(edns);
        Ok(())
    }
}

/// Reads the record whose owner ends at `owner_end` (RFC 1035 §4.1.3).
fn read_record<'a>(message: &'a [u8], owner: PackedName<'a>, owner_end: usize) -> Option<RecordRef<'a>> {
    let fixed: &[u8; 10] = message.get(owner_end..)?.first_chunk()?;
    let [t0, t1, c0, c1, l0, l1, l2, l3, n0, n1] = *fixed;
    let rdata_offset = owner_end + fixed.len();
    let rdata_len = usize::from(u16::from_be_bytes([n0, n1]));
    Some(RecordRef {
        owner,
        rtype: RecordType(u16::from_be_bytes([t0, t1])),
        class: Class(u16::from_be_bytes([c0, c1])),
        ttl: ttl([l0, l1, l2, l3]),
        ttl_offset: owner_end + 4,
        rdata: message.get(rdata_offset..rdata_offset + rdata_len)?,
        rdata_offset,
        message,
    })
}

/// Reads a TTL; one with the top bit set is 0 (RFC 2181 §8).
fn ttl(octets: [u8; 4]) -> Ttl {
    let secs = u32::from_be_bytes(octets);
    Ttl(if secs > u32::MAX / 2 { 0 } else { secs })
}

#[cfg(test)]
mod tests {
    use super::super::name::{MAX_NAME, NameRef};
    use super::super::samples::{self, Asked, a, bytes, cname, ns, soa};
    use super::*;
    use hickory_proto::op::{Edns, ResponseCode};
    use hickory_proto::rr::rdata::opt::EdnsOption;
    use proptest::prelude::*;

    /// `www.example.com` A with a CNAME, an address, an SOA and two glue records.
    fn sample() -> Vec<u8> {
        let mut message = samples::response("www.example.com.");
        message.add_answer(cname("www.example.com.", 300, "edge.example.net."));
        message.add_answer(a("edge.example.net.", 60));
        message.add_authority(soa("example.com.", 900, 120));
        message.add_additional(a("ns.example.com.", 5));
        message.edns = Some(Edns::new());
        bytes(&message)
    }

    /// Header of a response with these counts, and the question `a. A IN`.
    fn head(counts: [u8; 3]) -> Vec<u8> {
        let [answers, authorities, additionals] = counts;
        let mut head = vec![0, 0, 0x80, 0, 0, 1, 0, answers, 0, authorities, 0, additionals];
        head.extend_from_slice(&[1, b'a', 0, 0, 1, 0, 1]);
        head
    }

    fn fault(message: &[u8]) -> Option<ResponseFault> {
        ResponseRef::parse(message).err()
    }

    #[test]
    fn sections_are_iterated_with_owner_ttl_and_rdata() {
        let message = sample();
        let response = ResponseRef::parse(&message).unwrap();
        let answers: Vec<_> = response.records(Section::Answer).collect();
        assert_eq!(answers.len(), 2);
        assert_eq!((answers[0].rtype, answers[0].ttl), (RecordType::CNAME, Ttl(300)));
        assert!(answers[0].owner.eq_name(response.question().name));
        let target = answers[0].rdata_name(0).unwrap();
        assert!(target.eq_packed(&answers[1].owner));
        assert_eq!(target.unpack_into(&mut [0; 255]).unwrap().to_string(), "edge.example.net.");
        assert_eq!(answers[1].rdata, [192, 0, 2, 1]);
        assert_eq!(message[answers[1].ttl_offset..][..4], [0, 0, 0, 60]);

        let soa = response.records(Section::Authority).next().unwrap();
        assert_eq!(soa.soa_minimum(), Some(Ttl(120)));
        assert_eq!(answers[1].soa_minimum(), None);
        // The OPT record is not among them.
        assert_eq!(response.records(Section::Additional).count(), 1);
        assert!(response.edns().is_some());
    }

    #[test]
    fn sections_start_where_the_one_before_ends() {
        let message = sample();
        let response = ResponseRef::parse(&message).unwrap();
        assert_eq!(response.section_start(Section::Answer), 12 + 17 + 4);
        let last_answer = response.records(Section::Answer).last().unwrap();
        assert_eq!(response.section_start(Section::Authority), last_answer.end());
        let last_authority = response.records(Section::Authority).last().unwrap();
        assert_eq!(response.section_start(Section::Additional), last_authority.end());
    }

    #[test]
    fn what_the_opt_record_says_is_read() {
        let mut message = samples::response("example.com.");
        let mut edns = Edns::new();
        message.metadata.response_code = ResponseCode::BADVERS;
        edns.options_mut().insert(EdnsOption::Unknown(15, vec![0, 22, b'h', b'i']));
        edns.options_mut().insert(EdnsOption::Unknown(8, vec![0, 1, 24, 20, 192, 0, 2]));
        message.edns = Some(edns);
        let message = bytes(&message);
        let response = ResponseRef::parse(&message).unwrap();
        assert_eq!(response.rcode(), Rcode(16));
        assert_eq!(response.ede(), Some((EdeCode(22), &b"hi"[..])));
        assert_eq!(response.ecs_scope(), Some(20));
    }

    #[test]
    fn every_rule_of_the_header_has_its_fault() {
        let good = sample();
        let with = |change: fn(&mut Vec<u8>)| {
            let mut message = good.clone();
            change(&mut message);
            fault(&message)
        };
        assert_eq!(with(|_| ()), None);
        assert_eq!(with(|m| m.truncate(11)), Some(ResponseFault::Short));
        assert_eq!(with(|m| m[2] &= 0x7f), Some(ResponseFault::NotResponse));
        assert_eq!(with(|m| m[2] |= 0x10), Some(ResponseFault::Opcode));
        assert_eq!(with(|m| m[5] = 0), Some(ResponseFault::QuestionCount));
        assert_eq!(with(|m| m[5] = 2), Some(ResponseFault::QuestionCount));
        assert_eq!(with(|m| m[12] = 0xc0), Some(ResponseFault::QuestionMismatch));
        assert_eq!(with(|m| m.push(0)), Some(ResponseFault::TrailingOctets));
        assert_eq!(with(|m| m[11] += 1), Some(ResponseFault::Record));
        assert_eq!(with(|m| m[7] -= 1), Some(ResponseFault::TrailingOctets));
        assert_eq!(with(|m| m.resize(m.len() - 1, 0)), Some(ResponseFault::Record));
    }

    #[test]
    fn a_query_is_no_response() {
        assert_eq!(fault(Asked::a("example.com.").view().bytes()), Some(ResponseFault::NotResponse));
    }

    #[test]
    fn the_root_can_be_asked_for() {
        let mut message = samples::response(".");
        message.add_answer(ns(".", 518_400, "a.root-servers.net."));
        let message = bytes(&message);
        let response = ResponseRef::parse(&message).unwrap();
        assert!(response.question().name.is_root());
        let record = response.records(Section::Answer).next().unwrap();
        assert!(record.owner.eq_name(NameRef::ROOT));
        assert_eq!(record.owner.labels().count(), 0);
    }

    #[test]
    fn pointers_forward_to_themselves_and_into_the_header_are_refused() {
        let record = |owner: &[u8]| {
            let mut message = head([1, 0, 0]);
            message.extend_from_slice(owner);
            message.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 9, 0, 0]);
            fault(&message)
        };
        assert_eq!(record(&[0xc0, 12]), None);
        assert_eq!(record(&[1, b'b', 0xc0, 12]), None);
        for bad in [
            &[0xc0, 19][..],
            &[0xc0, 21],
            &[0xc0, 0],
            &[0xc0, 11],
            &[0xff, 0xff],
            // To the start of the labels that it ends: a loop.
            &[1, b'b', 0xc0, 19],
            &[0x40, 0],
            &[0x80, 0],
        ] {
            assert_eq!(record(bad), Some(ResponseFault::Name), "{bad:?}");
        }
    }

    #[test]
    fn a_name_grown_past_255_octets_by_pointers_is_refused() {
        let mut message = head([0, 0, 0]);
        let mut last = 12;
        let mut records = 0;
        // Each owner is a label of 61 octets and a pointer to the owner before it.
        while message.len() < 1000 {
            let start = message.len();
            message.push(61);
            message.extend_from_slice(&[b'x'; 61]);
            message.extend_from_slice(&u16::try_from(0xc000 | last).unwrap().to_be_bytes());
            message.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 9, 0, 0]);
            last = start;
            records += 1;
            message[7] = records;
            // 62 octets a record and `a.`: the fifth is too long.
            assert_eq!(fault(&message).is_some(), records >= 5, "{records}");
        }
        assert_eq!(fault(&message), Some(ResponseFault::Name));
    }

    #[test]
    fn long_chains_of_pointers_are_refused() {
        // The RDATA of an opaque record is a chain of pointers, each to the one before.
        let chain = |pointers: u8| {
            let mut message = head([2, 0, 0]);
            message.extend_from_slice(&[0, 255, 0, 0, 1, 0, 0, 0, 0, 0, 2 * pointers]);
            let mut target = 12;
            for _ in 0..pointers {
                let at = u8::try_from(message.len()).unwrap();
                message.extend_from_slice(&[0xc0, target]);
                target = at;
            }
            message.extend_from_slice(&[0xc0, target, 0, 1, 0, 1, 0, 0, 0, 9, 0, 0]);
            fault(&message)
        };
        assert_eq!(chain(31), None);
        assert_eq!(chain(32), Some(ResponseFault::Name));
    }

    #[test]
    fn opt_is_taken_once_from_the_additional_section_at_the_root() {
        const OPT: [u8; 11] = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
        let with = |counts: [u8; 3], records: &[&[u8]]| {
            let mut message = head(counts);
            records.iter().for_each(|record| message.extend_from_slice(record));
            fault(&message)
        };
        assert_eq!(with([0, 0, 1], &[&OPT]), None);
        assert_eq!(with([0, 0, 2], &[&OPT, &OPT]), Some(ResponseFault::Opt));
        assert_eq!(with([1, 0, 0], &[&OPT]), Some(ResponseFault::Opt));
        assert_eq!(with([0, 1, 0], &[&OPT]), Some(ResponseFault::Opt));
        let owned = [0xc0, 12, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
        assert_eq!(with([0, 0, 1], &[&owned]), Some(ResponseFault::Opt));
        let short_option = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 5, 0, 15, 0, 2, 0];
        assert_eq!(with([0, 0, 1], &[&short_option]), Some(ResponseFault::Opt));
    }

    #[test]
    fn a_ttl_with_the_top_bit_set_is_zero() {
        let mut message = samples::response("a.");
        message.add_answer(a("a.", 0x8000_0001));
        message.add_answer(a("a.", 0x7fff_ffff));
        let message = bytes(&message);
        let response = ResponseRef::parse(&message).unwrap();
        let ttls: Vec<_> = response.records(Section::Answer).map(|record| record.ttl).collect();
        assert_eq!(ttls, [Ttl(0), Ttl(0x7fff_ffff)]);
    }

    #[test]
    fn a_name_that_leaves_its_rdata_is_none() {
        let mut message = head([1, 0, 0]);
        message.extend_from_slice(&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 1, 0xc0]);
        // Past its end stands what would complete the pointer.
        message.extend_from_slice(&[12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 0]);
        message[7] = 1;
        assert_eq!(fault(&message), Some(ResponseFault::TrailingOctets));
        message.truncate(32);
        let response = ResponseRef::parse(&message).unwrap();
        let record = response.records(Section::Answer).next().unwrap();
        assert!(record.rdata_name(0).is_none());
        assert!(record.rdata_name(1).is_none());
        assert!(record.rdata_name(usize::MAX).is_none());
    }

    #[test]
    fn names_are_compared_ignoring_case_and_written_with_it() {
        let mut message = samples::response("WWW.Example.com.");
        message.add_answer(a("WWW.Example.com.", 1));
        let message = bytes(&message);
        let response = ResponseRef::parse(&message).unwrap();
        let owner = response.records(Section::Answer).next().unwrap().owner;
        assert!(owner.eq_name(NameRef::parse(b"\x03www\x07eXample\x03com\0").unwrap()));
        assert!(!owner.eq_name(NameRef::parse(b"\x07example\x03com\0").unwrap()));
        assert!(!owner.eq_name(NameRef::parse(b"\x01a\x03www\x07example\x03com\0").unwrap()));
        let mut out = [0; MAX_NAME];
        assert_eq!(owner.unpack_into(&mut out).unwrap().as_bytes(), b"\x03WWW\x07Example\x03com\0");
        assert!(owner.unpack_into(&mut [0; 16]).is_none());
    }

    #[test]
    fn labels_of_faults_are_distinct_and_plain() {
        let mut labels: Vec<_> = ResponseFault::ALL.map(ResponseFault::label).into();
        assert!(labels.iter().all(|label| label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), ResponseFault::ALL.len());
    }

    /// Looks at everything a checked response offers.
    fn exhaust(response: &ResponseRef<'_>) -> usize {
        let _ = (response.rcode(), response.ede(), response.ecs_scope(), response.question());
        let mut seen = 0;
        for record in Section::ALL.into_iter().flat_map(|section| response.records(section)) {
            assert!(record.owner.unpack_into(&mut [0; MAX_NAME]).is_some());
            let _ = record.soa_minimum();
            for offset in 0..record.rdata.len().min(20) {
                let name = record.rdata_name(offset);
                assert!(name.is_none_or(|name| name.unpack_into(&mut [0; MAX_NAME]).is_some()));
            }
            seen += 1;
        }
        seen
    }

    proptest! {
        #[test]
        fn no_octets_make_the_parser_panic(octets in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(response) = ResponseRef::parse(&octets) {
                exhaust(&response);
            }
        }

        #[test]
        fn no_records_make_the_iterators_panic(
            counts in [0_u8..4, 0..4, 0..4],
            tail in prop::collection::vec(prop_oneof![Just(0), Just(0xc0), 0_u8..24, any::<u8>()], 0..120),
        ) {
            let mut message = head(counts);
            message.extend_from_slice(&tail);
            if let Ok(response) = ResponseRef::parse(&message) {
                exhaust(&response);
            }
        }

        #[test]
        fn what_another_encoder_writes_is_read_whole(message in samples::responses()) {
            let octets = bytes(&message);
            let response = ResponseRef::parse(&octets).unwrap();
            let sections = [&message.answers, &message.authorities, &message.additionals];
            prop_assert_eq!(exhaust(&response), sections.iter().map(|section| section.len()).sum::<usize>());
            for (section, records) in Section::ALL.into_iter().zip(sections) {
                for (ours, theirs) in response.records(section).zip(records) {
                    let mut out = [0; MAX_NAME];
                    let owner = ours.owner.unpack_into(&mut out).unwrap();
                    prop_assert_eq!(owner.to_string(), theirs.name.to_string());
                    prop_assert_eq!(ours.rtype.0, u16::from(theirs.record_type()));
                    prop_assert_eq!(ours.ttl.0, if theirs.ttl >> 31 == 1 { 0 } else { theirs.ttl });
                }
            }
        }

        #[test]
        fn a_message_cut_anywhere_is_refused(message in samples::responses(), at in any::<prop::sample::Index>()) {
            let octets = bytes(&message);
            prop_assert!(ResponseRef::parse(&octets[..at.index(octets.len())]).is_err());
        }
    }

    #[test]
    fn a_pointer_to_labels_that_run_past_it_is_no_name() {
        let mut message = vec![0, 0, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];
        // The first record's RDATA begins a label of 63 octets, which ends within the second record.
        message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 63, 0, 2, 1]);
        message.extend_from_slice(&[0xc0, 31, 0, 16, 0, 1, 0, 0, 0, 60, 0, 80]);
        message.resize(message.len() + 80, 0);
        assert_eq!(ResponseRef::parse(&message).unwrap_err(), ResponseFault::Name);
    }
}
