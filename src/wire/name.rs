//! Names in wire form ([RFC 1035](https://www.rfc-editor.org/rfc/rfc1035) §3.1): checked, compared ignoring case,
//! cut into suffixes, read from and written as text. Compressed names of received messages are
//! `response::PackedName`, not this.

use super::letter_case;
use std::fmt::{self, Write as _};
use std::iter::FusedIterator;
use std::str::FromStr;

/// Longest name in octets, root label included (RFC 1035 §3.1).
pub const MAX_NAME: usize = 255;

/// Longest label in octets (RFC 1035 §3.1). Lengths above are compression pointers or reserved.
pub const MAX_LABEL: usize = 63;

/// A name in wire form without compression: labels of 1 to 63 octets, 255 octets in all, the root at the end.
/// Letter case is as written.
///
/// No length octet (at most 63) is an ASCII letter, so case can be folded over all octets alike.
#[derive(Clone, Copy)]
pub struct NameRef<'a>(&'a [u8]);

impl<'a> NameRef<'a> {
    /// The root.
    pub const ROOT: NameRef<'static> = NameRef(&[0]);

    /// Reads an uncompressed name at the start of `bytes`; its length is `as_bytes().len()`.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut end = 0;
        loop {
            let label = usize::from(*bytes.get(end)?);
            if label > MAX_LABEL {
                return None;
            }
            end += 1 + label;
            if end > MAX_NAME {
                return None;
            }
            if label == 0 {
                return bytes.get(..end).map(Self);
            }
        }
    }

    /// Returns the octets on the wire.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// True for the root.
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// Returns the labels, first (leftmost) to last, without the root.
    pub fn labels(&self) -> Labels<'a> {
        Labels(self.0)
    }

    /// Returns the name itself, then its parent, ... and the root last.
    pub fn suffixes(&self) -> Suffixes<'a> {
        Suffixes(Some(*self))
    }

    /// Returns the name without its first label; None for the root.
    pub fn parent(&self) -> Option<NameRef<'a>> {
        let (_, rest) = split_label(self.0)?;
        Some(NameRef(rest))
    }

    /// True when both are the same name.
    pub fn eq_ignore_case(&self, other: NameRef<'_>) -> bool {
        letter_case::same(self.0, other.0)
    }

    /// True when equal to `parent` or below it (label boundaries respected, case ignored).
    pub fn is_within(&self, parent: NameRef<'_>) -> bool {
        let mut suffix = self.0;
        while suffix.len() > parent.0.len() {
            let Some((_, rest)) = split_label(suffix) else { return false };
            suffix = rest;
        }
        letter_case::same(suffix, parent.0)
    }

    /// Copies the name lower-cased (ASCII) into `out` and returns the written part; `out` of `MAX_NAME` octets
    /// always suffices.
    pub fn lowercase_into<'b>(&self, out: &'b mut [u8]) -> Option<NameRef<'b>> {
        let out = out.get_mut(..self.0.len())?;
        out.copy_from_slice(self.0);
        out.make_ascii_lowercase();
        Some(NameRef(out))
    }

    /// Returns an owned copy, lower-cased.
    pub fn to_name(&self) -> Name {
        Name(self.0.to_ascii_lowercase().into_boxed_slice())
    }
}

/// Text with a dot at the end. What has a meaning in master files is escaped (RFC 1035 §5.1).
impl fmt::Display for NameRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_char('.');
        }
        for label in self.labels() {
            label.iter().try_for_each(|&octet| write_escaped(f, octet))?;
            f.write_char('.')?;
        }
        Ok(())
    }
}

/// Writes one octet of a label: as it is, as `\X`, or as `\DDD`.
fn write_escaped(f: &mut fmt::Formatter<'_>, octet: u8) -> fmt::Result {
    match octet {
        b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => write!(f, "\\{}", char::from(octet)),
        b'!'..=b'~' => f.write_char(char::from(octet)),
        _ => write!(f, "\\{octet:03}"),
    }
}

/// Labels of a name. See [`NameRef::labels`].
#[derive(Clone, Debug)]
pub struct Labels<'a>(&'a [u8]);

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (label, rest) = split_label(self.0)?;
        self.0 = rest;
        Some(label)
    }
}
impl FusedIterator for Labels<'_> {}

/// A name and its parents. See [`NameRef::suffixes`].
#[derive(Clone, Debug)]
pub struct Suffixes<'a>(Option<NameRef<'a>>);

impl<'a> Iterator for Suffixes<'a> {
    type Item = NameRef<'a>;

    fn next(&mut self) -> Option<NameRef<'a>> {
        let name = self.0?;
        self.0 = name.parent();
        Some(name)
    }
}
impl FusedIterator for Suffixes<'_> {}

/// Cuts the first label off; None at the root.
fn split_label(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = name.split_first()?;
    if len == 0 { None } else { rest.split_at_checked(usize::from(len)) }
}

/// An owned name, lower-cased.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Returns the borrowed form.
    pub fn view(&self) -> NameRef<'_> {
        NameRef(&self.0)
    }
}

/// The name as text, in quotes.
impl fmt::Debug for NameRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// The name as text, in quotes.
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.view(), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.view(), f)
    }
}

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing between two dots, before the first, or at all.
    #[error("empty label")]
    EmptyLabel,
    /// RFC 1035 §3.1.
    #[error("a label is longer than 63 octets")]
    LabelTooLong,
    /// RFC 1035 §3.1.
    #[error("longer than 255 octets")]
    TooLong,
    /// A backslash at the end, or a number over 255 or of fewer than three digits behind it.
    #[error("bad escape")]
    BadEscape,
    /// Internationalised names have to be in their ASCII form: which one was meant is not ours to guess.
    #[error("not ASCII: write the punycode form (xn--...)")]
    NotAscii,
}

/// Reads `example.com`, `example.com.` or `.`, with the escapes of RFC 1035 §5.1; letters are lower-cased.
impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if !text.is_ascii() {
            return Err(NameError::NotAscii);
        }
        let mut writer = NameWriter::default();
        if text != "." {
            let mut rest = text.as_bytes();
            while let Some((octet, after)) = next_octet(rest)? {
                rest = after;
                match octet {
                    TextOctet::Dot => writer.end_label()?,
                    TextOctet::Data(octet) => writer.label.push(octet),
                }
            }
            if !writer.label.is_empty() || text.is_empty() {
                writer.end_label()?;
            }
        }
        writer.finish()
    }
}

/// One octet of a name's text.
enum TextOctet {
    /// The end of a label.
    Dot,
    /// Part of a label, its escape resolved.
    Data(u8),
}

/// Takes one octet, escaped or not, off the text; None at its end.
fn next_octet(text: &[u8]) -> Result<Option<(TextOctet, &[u8])>, NameError> {
    match text {
        [] => Ok(None),
        [b'.', rest @ ..] => Ok(Some((TextOctet::Dot, rest))),
        [b'\\', digits @ b'0'..=b'9', rest @ ..] => {
            let [second @ b'0'..=b'9', third @ b'0'..=b'9', rest @ ..] = rest else {
                return Err(NameError::BadEscape);
            };
            let value =
                [digits, second, third].iter().fold(0_u16, |sum, digit| sum * 10 + u16::from(*digit - b'0'));
            let octet = u8::try_from(value).map_err(|_| NameError::BadEscape)?;
            Ok(Some((TextOctet::Data(octet), rest)))
        }
        [b'\\', octet, rest @ ..] => Ok(Some((TextOctet::Data(*octet), rest))),
        [b'\\'] => Err(NameError::BadEscape),
        [octet, rest @ ..] => Ok(Some((TextOctet::Data(*octet), rest))),
    }
}

/// A name as it is put together, label by label.
#[derive(Default)]
struct NameWriter {
    /// Whole labels in wire form.
    wire: Vec<u8>,
    /// The label under way.
    label: Vec<u8>,
}

impl NameWriter {
    /// Closes the label under way.
    fn end_label(&mut self) -> Result<(), NameError> {
        if self.label.is_empty() {
            return Err(NameError::EmptyLabel);
        }
        let len = u8::try_from(self.label.len()).ok().filter(|&len| usize::from(len) <= MAX_LABEL);
        self.wire.push(len.ok_or(NameError::LabelTooLong)?);
        self.wire.append(&mut self.label);
        Ok(())
    }

    /// Adds the root.
    fn finish(mut self) -> Result<Name, NameError> {
        self.wire.push(0);
        if self.wire.len() > MAX_NAME {
            return Err(NameError::TooLong);
        }
        self.wire.make_ascii_lowercase();
        Ok(Name(self.wire.into_boxed_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_ends_at_its_root_and_keeps_its_case() {
        let parsed = NameRef::parse(b"\x03WWW\x07example\x00rest").unwrap();
        assert_eq!(parsed.as_bytes(), b"\x03WWW\x07example\x00");
        assert_eq!(parsed.labels().collect::<Vec<_>>(), [b"WWW".as_slice(), b"example"]);
        assert_eq!(parsed.to_name().view().as_bytes(), b"\x03www\x07example\x00");
    }

    #[test]
    fn pointers_cut_off_names_and_overlong_ones_are_refused() {
        let longest = [[63_u8].as_slice(), &[b'a'; 63]].concat().repeat(3);
        let exact = [longest.as_slice(), &[61], &[b'b'; 61], &[0]].concat();
        assert_eq!(exact.len(), MAX_NAME);
        assert!(NameRef::parse(&exact).is_some());
        let too_long = [longest.as_slice(), &[62], &[b'b'; 62], &[0]].concat();
        for bad in [&[][..], b"\x03ww", b"\x01a", b"\xc0\x0c", b"\x40", b"\x80", &too_long] {
            assert!(NameRef::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn suffixes_run_from_the_name_to_the_root() {
        let suffixes: Vec<_> =
            name("a.b.example").view().suffixes().map(|suffix| suffix.to_string()).collect();
        assert_eq!(suffixes, ["a.b.example.", "b.example.", "example.", "."]);
        assert_eq!(NameRef::ROOT.suffixes().count(), 1);
        assert_eq!(NameRef::ROOT.labels().count(), 0);
    }

    #[test]
    fn is_within_respects_label_boundaries_and_ignores_case() {
        let child = NameRef::parse(b"\x03wWw\x07eXample\x00").unwrap();
        assert!(child.is_within(name("Example").view()));
        assert!(child.is_within(child));
        assert!(child.is_within(NameRef::ROOT));
        assert!(!child.is_within(name("ample").view()));
        assert!(!child.is_within(name("a.www.example").view()));
        assert!(!child.is_within(name("xww.example").view()));
        assert!(!NameRef::ROOT.is_within(child));
    }

    #[test]
    fn a_length_octet_never_passes_for_a_letter() {
        let one = NameRef::parse(b"\x01a\x00").unwrap();
        let other = NameRef::parse(b"\x01b\x00").unwrap();
        assert!(!one.eq_ignore_case(other));
        assert!(one.eq_ignore_case(NameRef::parse(b"\x01A\x00").unwrap()));
    }

    #[test]
    fn lowercase_into_wants_room_for_the_whole_name() {
        let mixed = NameRef::parse(b"\x02Ab\x00").unwrap();
        let mut buffer = [0xff; MAX_NAME];
        assert_eq!(mixed.lowercase_into(&mut buffer).unwrap().as_bytes(), b"\x02ab\x00");
        assert!(mixed.lowercase_into(&mut buffer[..3]).is_none());
    }

    #[test]
    fn text_is_read_with_and_without_the_last_dot() {
        assert_eq!(name("Example.COM"), name("example.com."));
        assert_eq!(name(".").view().as_bytes(), [0]);
        assert_eq!(name(r"a\.b.c\032d").view().as_bytes(), b"\x03a.b\x03c d\x00");
        assert_eq!(name(r"a\.b.c\032d").to_string(), r"a\.b.c\032d.");
        assert_eq!(NameRef::ROOT.to_string(), ".");
    }

    #[test]
    fn bad_text_says_what_is_wrong() {
        let long_label = "a".repeat(64);
        let long_name = "abcdefg.".repeat(32);
        let cases = [
            ("", NameError::EmptyLabel),
            ("..", NameError::EmptyLabel),
            (".com", NameError::EmptyLabel),
            ("a..b", NameError::EmptyLabel),
            (long_label.as_str(), NameError::LabelTooLong),
            (long_name.as_str(), NameError::TooLong),
            ("a\\", NameError::BadEscape),
            (r"a\256", NameError::BadEscape),
            (r"a\12", NameError::BadEscape),
            ("bücher.example", NameError::NotAscii),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Name>(), Err(error), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_panic_the_parser(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(parsed) = NameRef::parse(&bytes) {
                prop_assert!(bytes.starts_with(parsed.as_bytes()));
                prop_assert_eq!(parsed.suffixes().count(), parsed.labels().count() + 1);
                prop_assert!(parsed.suffixes().all(|suffix| parsed.is_within(suffix)));
            }
        }

        #[test]
        fn any_name_survives_text(
            labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..12)
        ) {
            let mut wire = Vec::new();
            for label in &labels {
                wire.push(u8::try_from(label.len()).unwrap());
                wire.extend_from_slice(label);
            }
            wire.push(0);
            let parsed = NameRef::parse(&wire).unwrap();
            prop_assert_eq!(parsed.to_string().parse::<Name>().unwrap(), parsed.to_name());
        }

        #[test]
        fn no_text_panics_the_reader(text in "\\PC{0,80}") {
            let _ = text.parse::<Name>();
        }
    }
}
