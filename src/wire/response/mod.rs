//! A server's response: every record walked once, names within bounds and pointers only backwards; then
//! its sections are iterated without a further check. The walk is linear in the message's length whatever
//! the message says: a name costs at most 127 labels and 32 pointers, and a record has at least
//! 11 octets (RFC 9267 tells what happens to those who trust names and counts).
//!
//! Whether the response answers what we asked, and which of its records belong to the answer, is not
//! judged here.

#[cfg(test)]
mod tests;

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
    /// The Client Subnet option is about another network than ours (RFC 7871 §7.3).
    #[error("the client subnet is not ours")]
    Subnet,
    /// The ID is not the one that was sent.
    #[error("the response ID is wrong")]
    Id,
}

impl ResponseFault {
    /// All variants, for the metrics table.
    pub const ALL: [Self; 13] = [
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
        Self::Subnet,
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
            Self::Subnet => "subnet",
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
