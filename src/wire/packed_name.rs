//! Names as they stand in received messages, compressed or not (RFC 1035 §4.1.4): checked once in bounded
//! steps, then compared and written out without a further check. Names that stand for themselves are
//! `name`'s. The tests are in `response`, which has the messages.

use super::header::HEADER_LEN;
use super::name::{MAX_NAME, NameRef};

/// A possibly compressed name inside a message that was checked.
#[derive(Clone, Copy, Debug)]
pub struct PackedName<'a> {
    /// The message, into which the name points.
    message: &'a [u8],
    /// Where it starts; `read` has found it good.
    offset: usize,
}

impl<'a> PackedName<'a> {
    /// Checks the name at `start` and returns it with the offset of the octet after it.
    pub(super) fn read(message: &'a [u8], start: usize) -> Option<(Self, usize)> {
        let end = name_end(message, start)?;
        Some((Self { message, offset: start }, end))
    }

    /// Like `read`, for a name that was found good before: only finds its end.
    pub(super) fn read_checked(message: &'a [u8], start: usize) -> Option<(Self, usize)> {
        let end = skip_name(message, start)?;
        Some((Self { message, offset: start }, end))
    }

    /// Iterates over the labels, first (leftmost) to last, without the root.
    pub fn labels(&self) -> PackedLabels<'a> {
        PackedLabels { message: self.message, at: self.offset }
    }

    /// Returns true when it points to a place behind `settled` that is one of `fields` (offsets in order, big endian) of
    /// four octets each: who changes such a field changes the name.
    pub(super) fn passes_over(&self, fields: &[[u8; 2]], settled: usize) -> bool {
        let mut at = self.offset;
        let mut jumped = false;
        loop {
            let (len, next) = match Step::read(self.message, at) {
                None => return true,
                Some(Step::Root) => (1, None),
                Some(Step::Label(label)) => (1 + label.len(), Some(at + 1 + label.len())),
                Some(Step::Pointer(target)) => (2, Some(target)),
            };
            if jumped && at >= settled && touches(fields, at, at + len) {
                return true;
            }
            let Some(next) = next else { return false };
            jumped |= next < at;
            at = next;
        }
    }

    /// Returns true when it is `other`, case ignored.
    pub fn eq_name(&self, other: NameRef<'_>) -> bool {
        same_labels(self.labels(), other.labels())
    }

    /// Returns true when both are one name, case ignored.
    pub fn eq_packed(&self, other: &PackedName<'_>) -> bool {
        let same_place = self.offset == other.offset && std::ptr::eq(self.message, other.message);
        same_place || same_labels(self.labels(), other.labels())
    }

    /// Returns the question's name in a message that was found to have one.
    pub(super) fn of_question(message: &'a [u8]) -> Self {
        Self { message, offset: super::header::HEADER_LEN }
    }

    /// Returns true when it lies below `ancestor` and is not `ancestor` itself, case ignored.
    pub fn is_below(&self, ancestor: &PackedName<'_>) -> bool {
        let (mine, theirs) = (self.labels().count(), ancestor.labels().count());
        mine > theirs && same_labels(self.labels().skip(mine - theirs), ancestor.labels())
    }

    /// Writes it uncompressed, case kept. An `out` of [`MAX_NAME`] octets always suffices.
    pub fn unpack_into<'b>(&self, out: &'b mut [u8]) -> Option<NameRef<'b>> {
        let mut at = 0;
        for label in self.labels() {
            let field = out.get_mut(at..=at + label.len())?;
            let (len, content) = field.split_first_mut()?;
            *len = u8::try_from(label.len()).ok()?;
            content.copy_from_slice(label);
            at += 1 + label.len();
        }
        *out.get_mut(at)? = 0;
        NameRef::parse(out.get(..=at)?)
    }
}

/// Returns true when one of `fields`, four octets each, lies at least in part within `start..end`.
fn touches(fields: &[[u8; 2]], start: usize, end: usize) -> bool {
    let offset = |field: &[u8; 2]| usize::from(u16::from_be_bytes(*field));
    let first = fields.partition_point(|field| offset(field) + 4 <= start);
    fields.get(first).is_some_and(|field| offset(field) < end)
}

/// Compares two sequences of labels, case ignored (RFC 4343 §3).
fn same_labels<'x, 'y>(
    one: impl Iterator<Item = &'x [u8]>,
    mut other: impl Iterator<Item = &'y [u8]>,
) -> bool {
    for label in one {
        if !other.next().is_some_and(|theirs| theirs.eq_ignore_ascii_case(label)) {
            return false;
        }
    }
    other.next().is_none()
}

/// The labels of a [`PackedName`].
#[derive(Clone, Debug)]
pub struct PackedLabels<'a> {
    /// The message.
    message: &'a [u8],
    /// Where the next label, pointer or root stands.
    at: usize,
}

impl<'a> Iterator for PackedLabels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            match Step::read(self.message, self.at)? {
                Step::Root => return None,
                Step::Label(label) => {
                    self.at += 1 + label.len();
                    return Some(label);
                }
                // It ends: a checked name's pointers lead to before the run of labels they close.
                Step::Pointer(target) => self.at = target,
            }
        }
    }
}

/// The most pointers followed in one name. A server points to an earlier name, which may end in a pointer
/// itself; more than a handful in a row are never seen, and each costs a step.
const MAX_POINTERS: u32 = 32;

/// Checks the name at `start` and returns where the octets after it begin: labels of 63 octets at most, 255
/// octets in all (RFC 1035 §2.3.4), pointers only to labels that end before the run of labels they end (so it
/// ends, and what stands behind a name is no part of it), and never into the header (whose bits we change).
fn name_end(message: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    let mut run_start = start;
    let mut limit = message.len();
    let mut end = None;
    let mut name_len = 1;
    let mut pointers = 0;
    loop {
        // A prior name ended before this one began (RFC 1035 §4.1.4).
        if at >= limit {
            return None;
        }
        match Step::read(message, at)? {
            Step::Root => return Some(end.unwrap_or(at + 1)),
            Step::Label(label) => {
                name_len += 1 + label.len();
                at += 1 + label.len();
            }
            Step::Pointer(target) => {
                pointers += 1;
                if at + 2 > limit || target >= run_start || target < HEADER_LEN || pointers > MAX_POINTERS {
                    return None;
                }
                end = end.or(Some(at + 2));
                limit = run_start;
                run_start = target;
                at = target;
            }
        }
        if name_len > MAX_NAME {
            return None;
        }
    }
}

/// Returns where the octets after the checked name at `start` begin.
fn skip_name(message: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        match Step::read(message, at)? {
            Step::Root => return Some(at + 1),
            Step::Label(label) => at += 1 + label.len(),
            Step::Pointer(_) => return Some(at + 2),
        }
    }
}

/// What stands at one place of a name (RFC 1035 §4.1.4).
#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    /// The end of the name.
    Root,
    /// A label, without its length.
    Label(&'a [u8]),
    /// The rest of the name stands at this offset.
    Pointer(usize),
}

impl<'a> Step<'a> {
    /// Reads what stands at `at`; `None` past the end and for the label types of RFC 6891 §5, which are gone.
    fn read(message: &'a [u8], at: usize) -> Option<Self> {
        let first = *message.get(at)?;
        match first {
            0 => Some(Self::Root),
            1..=0x3f => message.get(at + 1..at + 1 + usize::from(first)).map(Self::Label),
            0x40..=0xbf => None,
            0xc0..=0xff => {
                let low = *message.get(at + 1)?;
                Some(Self::Pointer(usize::from(u16::from_be_bytes([first & 0x3f, low]))))
            }
        }
    }
}
