//! Names in wire form (RFC 1035 §3.1): checked, compared ignoring case, cut into suffixes. Compressed names of
//! received messages are `response::PackedName`, not this.

use std::fmt;
use std::str::FromStr;

/// Longest name in octets, root label included (RFC 1035 §3.1).
pub const MAX_NAME: usize = 255;

/// A name in wire form without compression: labels of 1 to 63 octets, 255 octets in all, the root at the end. Case as written.
#[derive(Clone, Copy, Debug)]
pub struct NameRef<'a>(&'a [u8]);

impl<'a> NameRef<'a> {
    pub const ROOT: NameRef<'static> = NameRef(&[0]);
    /// Reads an uncompressed name at the start of `bytes`; its length is `as_bytes().len()`.
    pub fn parse(_bytes: &'a [u8]) -> Option<Self> {
        todo!()
    }
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
    pub fn is_root(&self) -> bool {
        todo!()
    }
    /// Labels, first (leftmost) to last, without the root.
    pub fn labels(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        std::iter::empty()
    }
    /// The name itself, then its parent, ... and the root last.
    pub fn suffixes(&self) -> impl Iterator<Item = NameRef<'a>> + use<'a> {
        std::iter::empty()
    }
    pub fn eq_ignore_case(&self, _other: NameRef<'_>) -> bool {
        todo!()
    }
    /// True when equal to `parent` or below it (label boundaries respected, case ignored).
    pub fn is_within(&self, _parent: NameRef<'_>) -> bool {
        todo!()
    }
    /// Copies the name lower-cased (ASCII) into `out` and returns the written part; `out` of `MAX_NAME` octets always suffices.
    pub fn lowercase_into<'b>(&self, _out: &'b mut [u8]) -> Option<NameRef<'b>> {
        todo!()
    }
    pub fn to_name(&self) -> Name {
        todo!()
    }
}
impl fmt::Display for NameRef<'_> {
    // presentation form, trailing dot, \DDD escapes
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}

/// An owned name, lower-cased.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);
impl Name {
    pub fn view(&self) -> NameRef<'_> {
        NameRef(&self.0)
    }
}
impl fmt::Debug for Name {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
impl fmt::Display for Name {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("empty label")]
    EmptyLabel,
    #[error("a label is longer than 63 octets")]
    LabelTooLong,
    #[error("longer than 255 octets")]
    TooLong,
    #[error("bad escape")]
    BadEscape,
    #[error("not ASCII: write the punycode form (xn--...)")]
    NotAscii,
}
impl FromStr for Name {
    type Err = NameError; // "example.com", "example.com.", "." ; case kept out (lower-cased)
    fn from_str(_text: &str) -> Result<Self, NameError> {
        todo!()
    }
}
