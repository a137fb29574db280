//! Extended DNS Errors ([RFC 8914](https://www.rfc-editor.org/rfc/rfc8914)).

use std::borrow::Cow;
use std::fmt;

/// An INFO-CODE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EdeCode(pub u16);
impl EdeCode {
    pub const OTHER: Self = Self(0);
    pub const STALE_ANSWER: Self = Self(3);
    pub const DNSSEC_INDETERMINATE: Self = Self(5);
    pub const CACHED_ERROR: Self = Self(13);
    pub const NOT_READY: Self = Self(14);
    pub const BLOCKED: Self = Self(15);
    pub const CENSORED: Self = Self(16);
    pub const FILTERED: Self = Self(17);
    pub const PROHIBITED: Self = Self(18);
    pub const STALE_NXDOMAIN: Self = Self(19);
    pub const NOT_SUPPORTED: Self = Self(21);
    pub const NO_REACHABLE_AUTHORITY: Self = Self(22);
    pub const NETWORK_ERROR: Self = Self(23);
    pub const INVALID_DATA: Self = Self(24);
}
impl fmt::Display for EdeCode {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
} // "22 (No Reachable Authority)"

/// A code and its EXTRA-TEXT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ede {
    pub code: EdeCode,
    pub text: Cow<'static, str>,
}
impl Ede {
    pub const fn new(code: EdeCode, text: &'static str) -> Self {
        Self { code, text: Cow::Borrowed(text) }
    }
}
