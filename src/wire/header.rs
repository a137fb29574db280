//! The 12 octets before the question (RFC 1035 §4.1.1): read, and patched in place.

use std::fmt;

/// Octets of a header.
pub const HEADER_LEN: usize = 12;

/// A response code, with the upper bits that EDNS adds (RFC 6891 §6.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rcode(pub u16);

impl Rcode {
    pub const NOERROR: Self = Self(0);
    pub const FORMERR: Self = Self(1);
    pub const SERVFAIL: Self = Self(2);
    pub const NXDOMAIN: Self = Self(3);
    pub const NOTIMP: Self = Self(4);
    pub const REFUSED: Self = Self(5);
    pub const BADVERS: Self = Self(16);
    // Display: "NOERROR", ..., "RCODE42"
}
impl fmt::Display for Rcode {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}

/// A checked view of the header.
#[derive(Clone, Copy, Debug)]
pub struct HeaderRef<'a>(&'a [u8; HEADER_LEN]);

impl<'a> HeaderRef<'a> {
    pub fn parse(_message: &'a [u8]) -> Option<Self> {
        todo!()
    }
    pub fn id(&self) -> u16 {
        todo!()
    }
    pub fn is_response(&self) -> bool {
        todo!()
    }
    pub fn opcode(&self) -> u8 {
        todo!()
    }
    pub fn is_authoritative(&self) -> bool {
        todo!()
    }
    pub fn is_truncated(&self) -> bool {
        todo!()
    }
    pub fn recursion_desired(&self) -> bool {
        todo!()
    }
    pub fn recursion_available(&self) -> bool {
        todo!()
    }
    pub fn authentic_data(&self) -> bool {
        todo!()
    }
    pub fn checking_disabled(&self) -> bool {
        todo!()
    }
    /// The low four bits only.
    pub fn rcode_low(&self) -> u8 {
        todo!()
    }
    /// QDCOUNT, ANCOUNT, NSCOUNT, ARCOUNT.
    pub fn counts(&self) -> [u16; 4] {
        todo!()
    }
}

/// Writes `id` into the first two octets, if they are there.
pub fn set_id(_message: &mut [u8], _id: u16) {
    todo!()
}
