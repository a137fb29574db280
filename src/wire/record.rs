//! Records as text, by hickory-proto: what `veildns query` prints, and local answers made from text. Not on the path of a query.

use super::question::{QuestionRef, Ttl};
use super::stored::StoredAnswer;
use std::net::IpAddr;

/// One record for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordText {
    pub owner: String,
    pub ttl: u32,
    pub class: String,
    pub rtype: String,
    pub rdata: String,
}
/// Answer, authority, additional (without OPT) of a message. A record hickory-proto cannot read is shown in RFC 3597 form (`\# 4 C0000201`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageText {
    pub answer: Vec<RecordText>,
    pub authority: Vec<RecordText>,
    pub additional: Vec<RecordText>,
}
pub fn message_text(_message: &[u8]) -> Option<MessageText> {
    todo!()
}

/// An answer made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalData {
    Address(IpAddr),
    Ptr(super::name::Name),
    /// RFC 8482 §4.2: CPU "RFC8482", OS "".
    Hinfo,
    /// Raw (type is the question's).
    Raw(Vec<u8>),
}
/// NOERROR with these data under the question's name (all of the question's type, or HINFO).
pub fn local_answer(_question: &QuestionRef<'_>, _data: &[LocalData], _ttl: Ttl) -> StoredAnswer {
    todo!()
}
/// NOERROR without records, or NXDOMAIN, with an SOA for `zone` so that clients may cache it (RFC 2308): MNAME = zone apex, RNAME nobody.invalid.
pub fn local_negative(
    _question: &QuestionRef<'_>,
    _rcode: super::header::Rcode,
    _zone: super::name::NameRef<'_>,
    _ttl: Ttl,
) -> StoredAnswer {
    todo!()
}
