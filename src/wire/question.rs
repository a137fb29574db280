//! What is asked: name, type, class ([RFC 1035](https://www.rfc-editor.org/rfc/rfc1035) §4.1.2), and the small
//! types that questions and records share. What records hold is not known here.

use super::name::NameRef;
use std::fmt;
use std::str::FromStr;

/// A record or query type. Unknown ones are first-class (RFC 3597).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordType(pub u16);

impl RecordType {
    /// IPv4 address.
    pub const A: Self = Self(1);
    /// Name server.
    pub const NS: Self = Self(2);
    /// Alias.
    pub const CNAME: Self = Self(5);
    /// Start of authority.
    pub const SOA: Self = Self(6);
    /// Pointer, for reverse look-ups.
    pub const PTR: Self = Self(12);
    /// Host information; the small answer to ANY (RFC 8482).
    pub const HINFO: Self = Self(13);
    /// Mail exchange.
    pub const MX: Self = Self(15);
    /// Text.
    pub const TXT: Self = Self(16);
    /// Transaction signature (RFC 2931).
    pub const SIG: Self = Self(24);
    /// IPv6 address (RFC 3596).
    pub const AAAA: Self = Self(28);
    /// Service location (RFC 2782).
    pub const SRV: Self = Self(33);
    /// Alias of a whole tree (RFC 6672).
    pub const DNAME: Self = Self(39);
    /// EDNS (RFC 6891).
    pub const OPT: Self = Self(41);
    /// Delegation signer (RFC 4034).
    pub const DS: Self = Self(43);
    /// DNSSEC signature (RFC 4034).
    pub const RRSIG: Self = Self(46);
    /// DNSSEC denial (RFC 4034).
    pub const NSEC: Self = Self(47);
    /// DNSSEC key (RFC 4034).
    pub const DNSKEY: Self = Self(48);
    /// Hashed DNSSEC denial (RFC 5155).
    pub const NSEC3: Self = Self(50);
    /// Service binding (RFC 9460).
    pub const SVCB: Self = Self(64);
    /// Service binding of the Web (RFC 9460).
    pub const HTTPS: Self = Self(65);
    /// Marks a name as absent in compact denial; never asked for (RFC 9824).
    pub const NXNAME: Self = Self(128);
    /// Key negotiation (RFC 2930).
    pub const TKEY: Self = Self(249);
    /// Transaction signature (RFC 8945).
    pub const TSIG: Self = Self(250);
    /// Incremental zone transfer (RFC 1995).
    pub const IXFR: Self = Self(251);
    /// Zone transfer (RFC 5936).
    pub const AXFR: Self = Self(252);
    /// Mailbox records, obsolete.
    pub const MAILB: Self = Self(253);
    /// Mail agent records, obsolete.
    pub const MAILA: Self = Self(254);
    /// Every type (RFC 8482).
    pub const ANY: Self = Self(255);
    /// Certification authority restriction (RFC 8659).
    pub const CAA: Self = Self(257);

    /// Returns the registered mnemonic.
    fn mnemonic(self) -> Option<&'static str> {
        let index = MNEMONICS.binary_search_by_key(&self.0, |entry| entry.0).ok()?;
        MNEMONICS.get(index).map(|entry| entry.1)
    }
}

/// The mnemonic (`AAAA`), or `TYPE65400` for one without (RFC 3597 §5).
impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mnemonic() {
            Some(mnemonic) => f.pad(mnemonic),
            None => f.pad(&format!("TYPE{}", self.0)),
        }
    }
}

/// Not a known mnemonic nor TYPEnnn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown record type {0:?}: write a mnemonic such as AAAA, or TYPE followed by its number")]
pub struct UnknownType(pub String);

/// Reads a mnemonic or TYPEnnn, in any letter case; `*` is ANY.
impl FromStr for RecordType {
    type Err = UnknownType;

    fn from_str(text: &str) -> Result<Self, UnknownType> {
        if text == "*" {
            return Ok(Self::ANY);
        }
        if let Some(entry) = MNEMONICS.iter().find(|entry| entry.1.eq_ignore_ascii_case(text)) {
            return Ok(Self(entry.0));
        }
        generic_number(text, "TYPE").map(Self).ok_or_else(|| UnknownType(text.to_owned()))
    }
}

/// Reads the number of `TYPE65400` (RFC 3597 §5): digits only.
fn generic_number(text: &str, prefix: &str) -> Option<u16> {
    let (head, digits) = text.split_at_checked(prefix.len())?;
    if !head.eq_ignore_ascii_case(prefix) || !digits.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// A class (RFC 1035 §3.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Class(pub u16);

impl Class {
    /// The Internet.
    pub const IN: Self = Self(1);
    /// Chaos, used for questions about the server itself.
    pub const CH: Self = Self(3);
    /// Every class.
    pub const ANY: Self = Self(255);
}

/// The mnemonic (`IN`), or `CLASS42` for one without (RFC 3597 §5).
impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("IN"),
            3 => f.write_str("CH"),
            4 => f.write_str("HS"),
            254 => f.write_str("NONE"),
            255 => f.write_str("ANY"),
            other => write!(f, "CLASS{other}"),
        }
    }
}

/// A time to live in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ttl(pub u32);

/// A question as it stands in a message, uncompressed.
#[derive(Clone, Copy, Debug)]
pub struct QuestionRef<'a> {
    /// QNAME.
    pub name: NameRef<'a>,
    /// QTYPE.
    pub rtype: RecordType,
    /// QCLASS.
    pub class: Class,
}

impl<'a> QuestionRef<'a> {
    /// Reads a question at the start of `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let name = NameRef::parse(bytes)?;
        let &[type_high, type_low, class_high, class_low] =
            bytes.get(name.as_bytes().len()..)?.first_chunk()?;
        Some(Self {
            name,
            rtype: RecordType(u16::from_be_bytes([type_high, type_low])),
            class: Class(u16::from_be_bytes([class_high, class_low])),
        })
    }

    /// Returns the octets it takes on the wire.
    pub fn wire_len(&self) -> usize {
        self.name.as_bytes().len() + 4
    }

    /// True for the same name (case ignored), type and class.
    pub fn matches(&self, other: &QuestionRef<'_>) -> bool {
        self.rtype == other.rtype && self.class == other.class && self.name.eq_ignore_case(other.name)
    }
}

/// The IANA registry "Resource Record (RR) TYPEs", by number.
const MNEMONICS: &[(u16, &str)] = &[
    (1, "A"),
    (2, "NS"),
    (3, "MD"),
    (4, "MF"),
    (5, "CNAME"),
    (6, "SOA"),
    (7, "MB"),
    (8, "MG"),
    (9, "MR"),
    (10, "NULL"),
    (11, "WKS"),
    (12, "PTR"),
    (13, "HINFO"),
    (14, "MINFO"),
    (15, "MX"),
    (16, "TXT"),
    (17, "RP"),
    (18, "AFSDB"),
    (19, "X25"),
    (20, "ISDN"),
    (21, "RT"),
    (22, "NSAP"),
    (23, "NSAP-PTR"),
    (24, "SIG"),
    (25, "KEY"),
    (26, "PX"),
    (27, "GPOS"),
    (28, "AAAA"),
    (29, "LOC"),
    (30, "NXT"),
    (31, "EID"),
    (32, "NIMLOC"),
    (33, "SRV"),
    (34, "ATMA"),
    (35, "NAPTR"),
    (36, "KX"),
    (37, "CERT"),
    (38, "A6"),
    (39, "DNAME"),
    (40, "SINK"),
    (41, "OPT"),
    (42, "APL"),
    (43, "DS"),
    (44, "SSHFP"),
    (45, "IPSECKEY"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (49, "DHCID"),
    (50, "NSEC3"),
    (51, "NSEC3PARAM"),
    (52, "TLSA"),
    (53, "SMIMEA"),
    (55, "HIP"),
    (56, "NINFO"),
    (57, "RKEY"),
    (58, "TALINK"),
    (59, "CDS"),
    (60, "CDNSKEY"),
    (61, "OPENPGPKEY"),
    (62, "CSYNC"),
    (63, "ZONEMD"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (66, "DSYNC"),
    (67, "HHIT"),
    (68, "BRID"),
    (99, "SPF"),
    (100, "UINFO"),
    (101, "UID"),
    (102, "GID"),
    (103, "UNSPEC"),
    (104, "NID"),
    (105, "L32"),
    (106, "L64"),
    (107, "LP"),
    (108, "EUI48"),
    (109, "EUI64"),
    (128, "NXNAME"),
    (249, "TKEY"),
    (250, "TSIG"),
    (251, "IXFR"),
    (252, "AXFR"),
    (253, "MAILB"),
    (254, "MAILA"),
    (255, "ANY"),
    (256, "URI"),
    (257, "CAA"),
    (258, "AVC"),
    (259, "DOA"),
    (260, "AMTRELAY"),
    (261, "RESINFO"),
    (262, "WALLET"),
    (263, "CLA"),
    (264, "IPN"),
    (32768, "TA"),
    (32769, "DLV"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mnemonics_stand_in_order_so_that_binary_search_finds_them() {
        assert!(MNEMONICS.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn types_are_read_in_any_case_and_by_number() {
        assert_eq!("https".parse(), Ok(RecordType::HTTPS));
        assert_eq!("Nsap-Ptr".parse(), Ok(RecordType(23)));
        assert_eq!("type1".parse(), Ok(RecordType::A));
        assert_eq!("TYPE65400".parse(), Ok(RecordType(65400)));
        assert_eq!("*".parse(), Ok(RecordType::ANY));
        for bad in ["", "TYPE", "TYPE65536", "TYPE+1", "TYPE 1", "AAAAA", "тип"] {
            assert_eq!(bad.parse::<RecordType>(), Err(UnknownType(bad.to_owned())));
        }
    }

    #[test]
    fn a_question_is_read_up_to_its_class() {
        let question = QuestionRef::parse(b"\x01A\x00\x00\x1c\x00\x01tail").unwrap();
        assert_eq!((question.rtype, question.class), (RecordType::AAAA, Class::IN));
        assert_eq!(question.wire_len(), 7);
        assert!(QuestionRef::parse(b"\x01A\x00\x00\x1c\x00").is_none());
    }

    #[test]
    fn questions_match_ignoring_case_but_not_type_or_class() {
        let question = QuestionRef::parse(b"\x01A\x00\x00\x1c\x00\x01").unwrap();
        let matches = |octets: &[u8]| question.matches(&QuestionRef::parse(octets).unwrap());
        assert!(matches(b"\x01a\x00\x00\x1c\x00\x01"));
        assert!(!matches(b"\x01b\x00\x00\x1c\x00\x01"));
        assert!(!matches(b"\x01a\x00\x00\x01\x00\x01"));
        assert!(!matches(b"\x01a\x00\x00\x1c\x00\x03"));
    }

    #[test]
    fn classes_show_their_mnemonics() {
        assert_eq!((Class::IN.to_string(), Class(42).to_string()), ("IN".to_owned(), "CLASS42".to_owned()));
    }

    proptest! {
        #[test]
        fn every_type_survives_text(number in any::<u16>()) {
            prop_assert_eq!(RecordType(number).to_string().parse(), Ok(RecordType(number)));
        }

        #[test]
        fn no_octets_panic_the_parser(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = QuestionRef::parse(&bytes);
        }
    }
}
