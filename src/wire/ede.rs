//! Extended DNS Errors ([RFC 8914](https://www.rfc-editor.org/rfc/rfc8914)): the codes and their names. When one is
//! sent is decided where the failure is known; how it is written is `edns`'s matter.

use std::borrow::Cow;
use std::fmt;

/// An INFO-CODE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EdeCode(pub u16);

impl EdeCode {
    /// None of the others; the text says what.
    pub const OTHER: Self = Self(0);
    /// The answer is past its TTL (RFC 8767).
    pub const STALE_ANSWER: Self = Self(3);
    /// Validation came to no result.
    pub const DNSSEC_INDETERMINATE: Self = Self(5);
    /// The failure comes from the cache (RFC 9520).
    pub const CACHED_ERROR: Self = Self(13);
    /// The server is not fully up yet.
    pub const NOT_READY: Self = Self(14);
    /// The operator's list forbids the name.
    pub const BLOCKED: Self = Self(15);
    /// Somebody above the operator forbids the name.
    pub const CENSORED: Self = Self(16);
    /// The client asked for the filter.
    pub const FILTERED: Self = Self(17);
    /// The client may not ask.
    pub const PROHIBITED: Self = Self(18);
    /// A stale answer says that the name does not exist.
    pub const STALE_NXDOMAIN: Self = Self(19);
    /// The server does not do this.
    pub const NOT_SUPPORTED: Self = Self(21);
    /// No server that could know was reached.
    pub const NO_REACHABLE_AUTHORITY: Self = Self(22);
    /// The network failed on the way to the servers.
    pub const NETWORK_ERROR: Self = Self(23);
    /// What the servers sent is no answer.
    pub const INVALID_DATA: Self = Self(24);
    /// The type is never to be asked for (RFC 9824).
    pub const INVALID_QUERY_TYPE: Self = Self(30);

    /// Returns the purpose that IANA has registered.
    pub fn purpose(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "Other Error",
            1 => "Unsupported DNSKEY Algorithm",
            2 => "Unsupported DS Digest Type",
            3 => "Stale Answer",
            4 => "Forged Answer",
            5 => "DNSSEC Indeterminate",
            6 => "DNSSEC Bogus",
            7 => "Signature Expired",
            8 => "Signature Not Yet Valid",
            9 => "DNSKEY Missing",
            10 => "RRSIGs Missing",
            11 => "No Zone Key Bit Set",
            12 => "NSEC Missing",
            13 => "Cached Error",
            14 => "Not Ready",
            15 => "Blocked",
            16 => "Censored",
            17 => "Filtered",
            18 => "Prohibited",
            19 => "Stale NXDOMAIN Answer",
            20 => "Not Authoritative",
            21 => "Not Supported",
            22 => "No Reachable Authority",
            23 => "Network Error",
            24 => "Invalid Data",
            25 => "Signature Expired before Valid",
            26 => "Too Early",
            27 => "Unsupported NSEC3 Iterations Value",
            28 => "Unable to conform to policy",
            29 => "Synthesized",
            30 => "Invalid Query Type",
            _ => return None,
        })
    }
}

/// The number and its purpose, `22 (No Reachable Authority)`; the number alone when it is not registered.
impl fmt::Display for EdeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.purpose() {
            Some(purpose) => write!(f, "{} ({purpose})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A code and its EXTRA-TEXT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ede {
    /// INFO-CODE.
    pub code: EdeCode,
    /// EXTRA-TEXT, for people.
    pub text: Cow<'static, str>,
}

impl Ede {
    /// Makes one with a fixed text.
    pub const fn new(code: EdeCode, text: &'static str) -> Self {
        Self { code, text: Cow::Borrowed(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_show_their_number_and_purpose() {
        assert_eq!(EdeCode::NO_REACHABLE_AUTHORITY.to_string(), "22 (No Reachable Authority)");
        assert_eq!(EdeCode(4711).to_string(), "4711");
    }
}
