//! Frame Streams, as far as one who sends needs it: data frames and the control frames around them. A frame is its length
//! (four octets, big-endian) and its content; length 0 is the escape before a control frame, which has a length and a
//! content of its own. Pure: octets in, octets out; what is said when is `courier`'s matter.
//!
//! ```text
//! we    READY(type)            START(type)  data data data …  STOP
//! they              ACCEPT(type)                                    FINISH
//! ```

use prost::Message;
use thiserror::Error;

/// What the frames of a stream hold: encoded messages of dnstap.
pub const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";

/// Longest control frame that its reference implementation takes.
pub const MAX_CONTROL: usize = 512;

/// The one kind of field: a content type.
const FIELD_CONTENT_TYPE: u32 = 1;

/// Control frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlKind {
    /// The collector takes these content types.
    Accept,
    /// Data of this content type follows.
    Start,
    /// No more data follows.
    Stop,
    /// We could send these content types.
    Ready,
    /// The collector has taken everything.
    Finish,
}

impl ControlKind {
    /// All, each with its number.
    const NUMBERS: [(u32, Self); 5] =
        [(1, Self::Accept), (2, Self::Start), (3, Self::Stop), (4, Self::Ready), (5, Self::Finish)];

    /// Returns the number on the wire.
    fn number(self) -> u32 {
        match self {
            Self::Accept => 1,
            Self::Start => 2,
            Self::Stop => 3,
            Self::Ready => 4,
            Self::Finish => 5,
        }
    }
}

/// What a collector said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control<'a> {
    /// Which frame it is.
    pub kind: ControlKind,
    /// The content types in it.
    pub content_types: Vec<&'a [u8]>,
}

/// Why octets are no control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameFault {
    /// Data, where only control frames may come.
    #[error("it sends data")]
    Data,
    /// The length is none of a control frame.
    #[error("it sends a control frame of {0} octets")]
    Length(u32),
    /// The kind is not known.
    #[error("it sends a control frame of unknown kind {0}")]
    Kind(u32),
    /// A field is not known, or goes on behind the end.
    #[error("it sends a control frame that cannot be read")]
    Field,
}

impl<'a> Control<'a> {
    /// Reads the octets before a control frame: the escape and the length. Returns the length.
    ///
    /// # Errors
    /// Data, or a length that no control frame has.
    pub fn length(head: [u8; 8]) -> Result<usize, FrameFault> {
        let (escape, length) = halves(head);
        if escape != 0 {
            return Err(FrameFault::Data);
        }
        let octets = usize::try_from(length).unwrap_or(usize::MAX);
        if (4..=MAX_CONTROL).contains(&octets) { Ok(octets) } else { Err(FrameFault::Length(length)) }
    }

    /// Reads the content of a control frame.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn parse(content: &'a [u8]) -> Result<Self, FrameFault> {
        let (number, mut rest) = split_number(content)?;
        let known = ControlKind::NUMBERS.into_iter().find(|(known, _)| *known == number);
        let (_, kind) = known.ok_or(FrameFault::Kind(number))?;
        let mut content_types = Vec::new();
        while !rest.is_empty() {
            let (field, after) = split_number(rest)?;
            let (length, after) = split_number(after)?;
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let (value, after) = after.split_at_checked(length).ok_or(FrameFault::Field)?;
            if field != FIELD_CONTENT_TYPE {
                return Err(FrameFault::Field);
            }
            content_types.push(value);
            rest = after;
        }
        Ok(Self { kind, content_types })
    }

    /// True when what it names includes ours. One that names nothing does not mind.
    pub fn takes_dnstap(&self) -> bool {
        self.content_types.is_empty() || self.content_types.contains(&CONTENT_TYPE)
    }
}

/// Appends a control frame; all but STOP and FINISH name the content type.
pub fn append_control(out: &mut Vec<u8>, kind: ControlKind) {
    let names_type = !matches!(kind, ControlKind::Stop | ControlKind::Finish);
    let field = if names_type { 8 + CONTENT_TYPE.len() } else { 0 };
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&length(4 + field));
    out.extend_from_slice(&kind.number().to_be_bytes());
    if names_type {
        out.extend_from_slice(&FIELD_CONTENT_TYPE.to_be_bytes());
        out.extend_from_slice(&length(CONTENT_TYPE.len()));
        out.extend_from_slice(CONTENT_TYPE);
    }
}

/// Appends a data frame.
pub(super) fn append_data(out: &mut Vec<u8>, message: &impl Message) {
    out.extend_from_slice(&length(message.encoded_len()));
    // Only a buffer that cannot grow has too little room.
    let _ = message.encode(out);
}

/// Returns a length as it stands on the wire. Frames hold a DNS message and some fields: far below 2^32.
fn length(octets: usize) -> [u8; 4] {
    u32::try_from(octets).unwrap_or(u32::MAX).to_be_bytes()
}

/// Splits a number off.
fn split_number(octets: &[u8]) -> Result<(u32, &[u8]), FrameFault> {
    let (number, rest) = octets.split_first_chunk().ok_or(FrameFault::Field)?;
    Ok((u32::from_be_bytes(*number), rest))
}

/// Returns the two numbers of eight octets.
fn halves(head: [u8; 8]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = head;
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Cuts a control frame as a collector would send it into head and content.
    fn cut(frame: &[u8]) -> ([u8; 8], &[u8]) {
        let (head, content) = frame.split_first_chunk().unwrap();
        (*head, content)
    }

    #[test]
    fn control_frames_are_written_octet_by_octet_as_they_should_be() {
        let mut out = Vec::new();
        append_control(&mut out, ControlKind::Start);
        let mut expected = vec![0, 0, 0, 0, 0, 0, 0, 34, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 22];
        expected.extend_from_slice(b"protobuf:dnstap.Dnstap");
        assert_eq!(out, expected);
        out.clear();
        append_control(&mut out, ControlKind::Stop);
        assert_eq!(out, [0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 3]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (number, kind) in ControlKind::NUMBERS {
            assert_eq!(kind.number(), number);
            let mut frame = Vec::new();
            append_control(&mut frame, kind);
            let (head, content) = cut(&frame);
            assert_eq!(Control::length(head), Ok(content.len()));
            let control = Control::parse(content).unwrap();
            assert_eq!(control.kind, kind);
            assert!(control.takes_dnstap());
        }
    }

    #[test]
    fn a_collector_may_take_other_types_too_but_must_take_ours() {
        let accept = |types: &[&[u8]]| {
            let mut content = vec![0, 0, 0, 1];
            for name in types {
                content.extend_from_slice(&[0, 0, 0, 1]);
                content.extend_from_slice(&length(name.len()));
                content.extend_from_slice(name);
            }
            Control::parse(&content).unwrap().takes_dnstap()
        };
        assert!(accept(&[]) && accept(&[b"other", CONTENT_TYPE]));
        assert!(!accept(&[b"protobuf:dnstap.Dnsta"]) && !accept(&[b""]));
    }

    #[test]
    fn what_is_no_control_frame_is_told_apart() {
        let head = |escape: u32, length: u32| {
            let mut head = [0; 8];
            head[..4].copy_from_slice(&escape.to_be_bytes());
            head[4..].copy_from_slice(&length.to_be_bytes());
            Control::length(head)
        };
        assert_eq!(head(0, 4), Ok(4));
        assert_eq!(head(0, 512), Ok(512));
        for length in [0, 3, 513, u32::MAX] {
            assert_eq!(head(0, length), Err(FrameFault::Length(length)));
        }
        assert_eq!(head(1, 4), Err(FrameFault::Data));
        assert_eq!(Control::parse(&[0, 0, 0, 9]), Err(FrameFault::Kind(9)));
        assert_eq!(Control::parse(&[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0]), Err(FrameFault::Field));
        assert_eq!(Control::parse(&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]), Err(FrameFault::Field));
    }

    proptest! {
        #[test]
        fn no_octets_of_a_collector_harm(head: [u8; 8], content in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(length) = Control::length(head) {
                prop_assert!((4..=MAX_CONTROL).contains(&length));
            }
            if let Ok(control) = Control::parse(&content) {
                let named: usize = control.content_types.iter().map(|name| 8 + name.len()).sum();
                prop_assert_eq!(named + 4, content.len());
            }
        }

        #[test]
        fn content_types_are_read_as_they_were_written(
            types in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
            place in 0_usize..5,
        ) {
            let (number, kind) = ControlKind::NUMBERS[place];
            let mut content = number.to_be_bytes().to_vec();
            for name in &types {
                content.extend_from_slice(&FIELD_CONTENT_TYPE.to_be_bytes());
                content.extend_from_slice(&length(name.len()));
                content.extend_from_slice(name);
            }
            let control = Control::parse(&content).unwrap();
            prop_assert_eq!(control.kind, kind);
            prop_assert_eq!(control.content_types, types);
        }
    }
}
