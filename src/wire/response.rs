//! A server's response: every record walked once, names within bounds and pointers only backwards; then sections are
//! iterated without a further check. Linear time whatever the message says.

use super::ede::EdeCode;
use super::edns::EdnsRef;
use super::header::{HeaderRef, Rcode};
use super::name::NameRef;
use super::question::{Class, QuestionRef, RecordType, Ttl};

/// Why octets are no answer. One variant a rule, so that the counters can tell which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ResponseFault {
    #[error("shorter than a header")]
    Short,
    #[error("not a response")]
    NotResponse,
    #[error("opcode is not QUERY")]
    Opcode,
    #[error("not exactly one question")]
    QuestionCount,
    #[error("question differs from ours")]
    QuestionMismatch,
    #[error("truncated on a stream")]
    Truncated,
    #[error("a record is malformed")]
    Record,
    #[error("octets after the last record")]
    TrailingOctets,
    #[error("a name is malformed")]
    Name,
    #[error("more than one OPT record")]
    Opt,
    #[error("no record of the answer follows from the question")]
    Unrelated,
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
    /// The `rule` label of `veildns_validation_failures_total`: "question_mismatch" and so on.
    pub fn label(self) -> &'static str {
        todo!()
    }
}

/// A checked view of a response.
#[derive(Clone, Copy, Debug)]
pub struct ResponseRef<'a> {
    bytes: &'a [u8], /* + what the walk found */
}
/// Which section a record stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Answer,
    Authority,
    Additional,
}

impl<'a> ResponseRef<'a> {
    /// Walks the whole message: QR=1, opcode QUERY, exactly one uncompressed question, counts walk exactly to the last octet, at most one OPT (additional only).
    /// TC and the question's content are the caller's to judge (`is_truncated`, `question`).
    pub fn parse(_bytes: &'a [u8]) -> Result<Self, ResponseFault> {
        todo!()
    }
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
    pub fn header(&self) -> HeaderRef<'a> {
        todo!()
    }
    pub fn question(&self) -> QuestionRef<'a> {
        todo!()
    }
    /// With the OPT's upper bits.
    pub fn rcode(&self) -> Rcode {
        todo!()
    }
    pub fn edns(&self) -> Option<EdnsRef<'a>> {
        todo!()
    }
    /// The first EDE option.
    pub fn ede(&self) -> Option<(EdeCode, &'a [u8])> {
        todo!()
    }
    /// SCOPE PREFIX-LENGTH of the ECS option, if there is one.
    pub fn ecs_scope(&self) -> Option<u8> {
        todo!()
    }
    pub fn records(&self, _section: Section) -> impl Iterator<Item = RecordRef<'a>> + use<'a> {
        std::iter::empty()
    }
    /// Offset where the section starts in the message (its end is the start of the next, or the message's end).
    pub fn section_start(&self, _section: Section) -> usize {
        todo!()
    }
}

/// One record of a checked response.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    pub owner: PackedName<'a>,
    pub rtype: RecordType,
    pub class: Class,
    pub ttl: Ttl,
    /// Offset of the TTL field in the message.
    pub ttl_offset: usize,
    pub rdata: &'a [u8],
    /// Offset of RDATA in the message (names in it may point back).
    pub rdata_offset: usize,
    message: &'a [u8],
}
impl<'a> RecordRef<'a> {
    /// The (possibly compressed) name at `offset` within RDATA: CNAME, DNAME, NS, PTR 0; MX 2; ...
    pub fn rdata_name(&self, _offset: usize) -> Option<PackedName<'a>> {
        let _ = self.message;
        todo!()
    }
    /// MINIMUM of an SOA record's RDATA (RFC 2308 §4).
    pub fn soa_minimum(&self) -> Option<Ttl> {
        todo!()
    }
}

/// A possibly compressed name inside a message that was checked.
#[derive(Clone, Copy, Debug)]
pub struct PackedName<'a> {
    message: &'a [u8],
    offset: usize,
}
impl<'a> PackedName<'a> {
    pub fn labels(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let _ = (self.message, self.offset);
        std::iter::empty()
    }
    pub fn eq_name(&self, _other: NameRef<'_>) -> bool {
        todo!()
    }
    pub fn eq_packed(&self, _other: &PackedName<'_>) -> bool {
        todo!()
    }
    /// Writes it uncompressed, case kept; `out` of 255 octets always suffices.
    pub fn unpack_into<'b>(&self, _out: &'b mut [u8]) -> Option<NameRef<'b>> {
        todo!()
    }
}
