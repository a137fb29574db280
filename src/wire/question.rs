//! What is asked: name, type, class (RFC 1035 §4.1.2).

use super::name::NameRef;
use std::fmt;
use std::str::FromStr;

/// A record or query type. Unknown ones are first-class (RFC 3597).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordType(pub u16);
impl RecordType {
    pub const A: Self = Self(1);
    pub const NS: Self = Self(2);
    pub const CNAME: Self = Self(5);
    pub const SOA: Self = Self(6);
    pub const PTR: Self = Self(12);
    pub const HINFO: Self = Self(13);
    pub const MX: Self = Self(15);
    pub const TXT: Self = Self(16);
    pub const AAAA: Self = Self(28);
    pub const SRV: Self = Self(33);
    pub const DNAME: Self = Self(39);
    pub const OPT: Self = Self(41);
    pub const DS: Self = Self(43);
    pub const RRSIG: Self = Self(46);
    pub const NSEC: Self = Self(47);
    pub const DNSKEY: Self = Self(48);
    pub const NSEC3: Self = Self(50);
    pub const SVCB: Self = Self(64);
    pub const HTTPS: Self = Self(65);
    pub const IXFR: Self = Self(251);
    pub const AXFR: Self = Self(252);
    pub const ANY: Self = Self(255);
    pub const CAA: Self = Self(257);
    // more as needed
}
impl fmt::Display for RecordType {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
} // "A", "TYPE65400"
/// Not a known mnemonic nor TYPEnnn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown record type {0:?}: write a mnemonic such as AAAA, or TYPE followed by its number")]
pub struct UnknownType(pub String);
impl FromStr for RecordType {
    type Err = UnknownType;
    fn from_str(_s: &str) -> Result<Self, UnknownType> {
        todo!()
    }
} // all IANA mnemonics, case ignored, TYPEnnn

/// A class (RFC 1035 §3.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Class(pub u16);
impl Class {
    pub const IN: Self = Self(1);
    pub const CH: Self = Self(3);
}

/// A time to live in seconds; a value with the top bit set counts as zero (RFC 8767 §4: as 0; RFC 2181 §8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ttl(pub u32);

/// A question as it stands in a message, uncompressed.
#[derive(Clone, Copy, Debug)]
pub struct QuestionRef<'a> {
    pub name: NameRef<'a>,
    pub rtype: RecordType,
    pub class: Class,
}
impl<'a> QuestionRef<'a> {
    /// Reads a question at the start of `bytes`.
    pub fn parse(_bytes: &'a [u8]) -> Option<Self> {
        todo!()
    }
    /// Octets it takes on the wire.
    pub fn wire_len(&self) -> usize {
        self.name.as_bytes().len() + 4
    }
    /// Same name (case ignored), type and class.
    pub fn matches(&self, _other: &QuestionRef<'_>) -> bool {
        todo!()
    }
}
