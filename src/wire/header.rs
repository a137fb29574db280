//! The 12 octets before the question ([RFC 1035](https://www.rfc-editor.org/rfc/rfc1035) §4.1.1): read, and the ID
//! patched in place. It says what the bits are; what they should be is for `query` and `response` to judge.

use std::fmt;

/// Octets of a header.
pub const HEADER_LEN: usize = 12;

/// Opcode of an ordinary query (RFC 1035 §4.1.1).
pub const OPCODE_QUERY: u8 = 0;

/// QR, in the third octet.
pub(crate) const FLAG_QR: u8 = 0x80;
/// AA, in the third octet.
pub(crate) const FLAG_AA: u8 = 0x04;
/// TC, in the third octet.
pub(crate) const FLAG_TC: u8 = 0x02;
/// RD, in the third octet.
pub(crate) const FLAG_RD: u8 = 0x01;
/// RA, in the fourth octet.
pub(crate) const FLAG_RA: u8 = 0x80;
/// AD, in the fourth octet (RFC 4035 §3.2.3).
pub(crate) const FLAG_AD: u8 = 0x20;
/// CD, in the fourth octet (RFC 4035 §3.2.2).
pub(crate) const FLAG_CD: u8 = 0x10;
/// OPCODE, in the third octet.
pub(crate) const MASK_OPCODE: u8 = 0x78;
/// RCODE, in the fourth octet.
pub(crate) const MASK_RCODE: u8 = 0x0f;

/// A response code, with the upper bits that EDNS adds (RFC 6891 §6.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rcode(pub u16);

impl Rcode {
    /// No error, with or without records.
    pub const NOERROR: Self = Self(0);
    /// The query was malformed.
    pub const FORMERR: Self = Self(1);
    /// The server could not get an answer.
    pub const SERVFAIL: Self = Self(2);
    /// The name does not exist.
    pub const NXDOMAIN: Self = Self(3);
    /// The server does not do this kind of query.
    pub const NOTIMP: Self = Self(4);
    /// The server will not, by its policy.
    pub const REFUSED: Self = Self(5);
    /// The EDNS version is not supported (RFC 6891 §9).
    pub const BADVERS: Self = Self(16);

    /// The four bits that stand in the header.
    pub(crate) fn low(self) -> u8 {
        let [_, octet] = self.0.to_be_bytes();
        octet & MASK_RCODE
    }

    /// The eight bits that stand in the OPT record (RFC 6891 §6.1.3).
    pub(crate) fn extended(self) -> u8 {
        let [_, octet] = (self.0 >> 4).to_be_bytes();
        octet
    }

    /// Puts the header's and the OPT record's bits together.
    pub(crate) fn from_parts(low: u8, extended: u8) -> Self {
        Self(u16::from(extended) << 4 | u16::from(low & MASK_RCODE))
    }

    /// Returns the registered mnemonic.
    fn mnemonic(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "NOERROR",
            1 => "FORMERR",
            2 => "SERVFAIL",
            3 => "NXDOMAIN",
            4 => "NOTIMP",
            5 => "REFUSED",
            6 => "YXDOMAIN",
            7 => "YXRRSET",
            8 => "NXRRSET",
            9 => "NOTAUTH",
            10 => "NOTZONE",
            11 => "DSOTYPENI",
            16 => "BADVERS",
            17 => "BADKEY",
            18 => "BADTIME",
            19 => "BADMODE",
            20 => "BADNAME",
            21 => "BADALG",
            22 => "BADTRUNC",
            23 => "BADCOOKIE",
            _ => return None,
        })
    }
}

/// The mnemonic (`NOERROR`), or `RCODE42` for one without.
impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mnemonic() {
            Some(mnemonic) => f.pad(mnemonic),
            None => write!(f, "RCODE{}", self.0),
        }
    }
}

/// A view of the header.
#[derive(Clone, Copy, Debug)]
pub struct HeaderRef<'a>(&'a [u8; HEADER_LEN]);

impl<'a> HeaderRef<'a> {
    /// Views 12 octets that were cut off a message.
    pub(crate) fn new(octets: &'a [u8; HEADER_LEN]) -> Self {
        Self(octets)
    }

    /// Takes the first 12 octets of `message`; None when there are fewer.
    pub fn parse(message: &'a [u8]) -> Option<Self> {
        message.first_chunk().map(Self)
    }

    /// Returns the message ID.
    pub fn id(&self) -> u16 {
        let [high, low, ..] = *self.0;
        u16::from_be_bytes([high, low])
    }

    /// Returns QR.
    pub fn is_response(&self) -> bool {
        self.flags()[0] & FLAG_QR != 0
    }

    /// Returns OPCODE, 0 for an ordinary query.
    pub fn opcode(&self) -> u8 {
        (self.flags()[0] & MASK_OPCODE) >> 3
    }

    /// Returns AA.
    pub fn is_authoritative(&self) -> bool {
        self.flags()[0] & FLAG_AA != 0
    }

    /// Returns TC.
    pub fn is_truncated(&self) -> bool {
        self.flags()[0] & FLAG_TC != 0
    }

    /// Returns RD.
    pub fn recursion_desired(&self) -> bool {
        self.flags()[0] & FLAG_RD != 0
    }

    /// Returns RA.
    pub fn recursion_available(&self) -> bool {
        self.flags()[1] & FLAG_RA != 0
    }

    /// Returns AD.
    pub fn authentic_data(&self) -> bool {
        self.flags()[1] & FLAG_AD != 0
    }

    /// Returns CD.
    pub fn checking_disabled(&self) -> bool {
        self.flags()[1] & FLAG_CD != 0
    }

    /// Returns the low four bits of the response code; the OPT record may hold more.
    pub fn rcode_low(&self) -> u8 {
        self.flags()[1] & MASK_RCODE
    }

    /// Returns QDCOUNT, ANCOUNT, NSCOUNT, ARCOUNT.
    pub fn counts(&self) -> [u16; 4] {
        let [.., q1, q2, a1, a2, n1, n2, r1, r2] = *self.0;
        [[q1, q2], [a1, a2], [n1, n2], [r1, r2]].map(u16::from_be_bytes)
    }

    /// Returns the third and the fourth octet.
    pub(crate) fn flags(&self) -> [u8; 2] {
        let [_, _, third, fourth, ..] = *self.0;
        [third, fourth]
    }
}

/// Writes `id` into the first two octets, if they are there.
pub fn set_id(message: &mut [u8], id: u16) {
    if let Some(field) = message.first_chunk_mut() {
        *field = id.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_read_from_its_own_bits() {
        let octets = [0x12, 0x34, 0x87, 0xb5, 0, 1, 0, 2, 0, 3, 1, 0];
        let header = HeaderRef::parse(&octets).unwrap();
        assert_eq!(header.id(), 0x1234);
        assert_eq!(header.opcode(), 0);
        assert!(header.is_response() && header.is_authoritative() && header.is_truncated());
        assert!(header.recursion_desired() && header.recursion_available());
        assert!(header.authentic_data() && header.checking_disabled());
        assert_eq!(header.rcode_low(), 5);
        assert_eq!(header.counts(), [1, 2, 3, 256]);
    }

    #[test]
    fn clear_bits_read_as_clear() {
        let octets = [0, 0, 0x28, 0x40, 0, 0, 0, 0, 0, 0, 0, 0];
        let header = HeaderRef::parse(&octets).unwrap();
        assert_eq!(header.opcode(), 5);
        assert!(!header.is_response() && !header.is_authoritative() && !header.is_truncated());
        assert!(!header.recursion_desired() && !header.recursion_available());
        assert!(!header.authentic_data() && !header.checking_disabled());
    }

    #[test]
    fn eleven_octets_are_no_header() {
        assert!(HeaderRef::parse(&[0; 11]).is_none());
    }

    #[test]
    fn set_id_touches_two_octets_and_never_panics() {
        let mut message = [9; 4];
        set_id(&mut message, 0xabcd);
        assert_eq!(message, [0xab, 0xcd, 9, 9]);
        set_id(&mut message[..1], 7);
        assert_eq!(message, [0xab, 0xcd, 9, 9]);
    }

    #[test]
    fn rcodes_show_their_mnemonics_and_split_into_header_and_opt() {
        assert_eq!(Rcode::NXDOMAIN.to_string(), "NXDOMAIN");
        assert_eq!(Rcode(42).to_string(), "RCODE42");
        assert_eq!((Rcode::BADVERS.low(), Rcode::BADVERS.extended()), (0, 1));
        assert_eq!(Rcode::from_parts(0, 1), Rcode::BADVERS);
        assert_eq!(Rcode::from_parts(Rcode(0xabc).low(), Rcode(0xabc).extended()), Rcode(0xabc));
    }
}
