//! Two-octet length framing of DNS on streams ([RFC 1035](https://www.rfc-editor.org/rfc/rfc1035) §4.2.2),
//! incremental, both ways. It neither reads nor writes a stream, and does not look into the messages.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Octets of the length before each message.
const PREFIX_LEN: usize = 2;

/// Room offered for reading when nothing is known of what comes: a dozen usual messages.
const READ_LEN: usize = 4096;

/// Cuts complete messages out of a stream's octets. Holds no more than one message and what was read with it, as
/// long as every message is taken out before more is read.
#[derive(Debug, Default)]
pub struct Deframer {
    /// What was read and not yet taken out: at most part of one message once `next_message` gave None.
    buffer: BytesMut,
}

impl Deframer {
    /// Returns where to read more octets into (`read_buf`), with room for some.
    ///
    /// The room grows with what has arrived, not with the length that a stranger claims.
    pub fn buffer(&mut self) -> &mut BytesMut {
        let missing = self.message_end().map_or(READ_LEN, |end| end.saturating_sub(self.buffer.len()));
        self.buffer.reserve(missing.clamp(1, READ_LEN.max(self.buffer.len())));
        &mut self.buffer
    }

    /// Takes out the next whole message, without its length. A length of zero yields an empty one.
    pub fn next_message(&mut self) -> Option<Bytes> {
        let end = self.message_end()?;
        if self.buffer.len() < end {
            return None;
        }
        self.buffer.advance(PREFIX_LEN);
        Some(self.buffer.split_to(end - PREFIX_LEN).freeze())
    }

    /// True when part of a message is waiting for its rest: when `next_message` gave None and octets are left.
    pub fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Returns where the first message ends in the buffer, once its length is there.
    fn message_end(&self) -> Option<usize> {
        let prefix = self.buffer.first_chunk()?;
        Some(PREFIX_LEN + usize::from(u16::from_be_bytes(*prefix)))
    }
}

/// Appends `message` with its length; false (nothing appended) when it is longer than 65,535 octets.
pub fn append(out: &mut BytesMut, message: &[u8]) -> bool {
    let Ok(len) = u16::try_from(message.len()) else { return false };
    out.reserve(PREFIX_LEN + message.len());
    out.put_u16(len);
    out.put_slice(message);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MAX_MESSAGE;
    use proptest::prelude::*;

    /// Hands `octets` over and takes all whole messages out.
    fn feed(deframer: &mut Deframer, octets: &[u8]) -> Vec<Bytes> {
        deframer.buffer().extend_from_slice(octets);
        std::iter::from_fn(|| deframer.next_message()).collect()
    }

    #[test]
    fn a_message_comes_out_once_its_last_octet_is_in() {
        let mut deframer = Deframer::default();
        assert!(feed(&mut deframer, b"\x00").is_empty());
        assert!(deframer.is_partial());
        assert!(feed(&mut deframer, b"\x03ab").is_empty());
        assert_eq!(feed(&mut deframer, b"c\x00\x00\x00"), ["abc", ""]);
        assert!(deframer.is_partial());
        assert_eq!(feed(&mut deframer, b"\x00"), [""]);
        assert!(!deframer.is_partial());
    }

    #[test]
    fn an_empty_stream_is_not_partial() {
        let mut deframer = Deframer::default();
        assert!(!deframer.is_partial());
        assert_eq!(feed(&mut deframer, b"\x00\x01x"), ["x"]);
        assert!(!deframer.is_partial());
    }

    #[test]
    fn a_claimed_length_reserves_nothing_before_octets_arrive() {
        let mut deframer = Deframer::default();
        feed(&mut deframer, b"\xff\xff");
        assert!(deframer.buffer().capacity() <= 2 * READ_LEN);
    }

    #[test]
    fn there_is_always_room_to_read() {
        let mut deframer = Deframer::default();
        let mut stream = BytesMut::new();
        assert!(append(&mut stream, &[7; MAX_MESSAGE]));
        while !stream.is_empty() {
            let buffer = deframer.buffer();
            let room = buffer.capacity() - buffer.len();
            assert!(room > 0);
            let part = stream.split_to(room.min(stream.len()));
            buffer.extend_from_slice(&part);
        }
        assert_eq!(deframer.next_message().unwrap(), [7; MAX_MESSAGE].as_slice());
    }

    #[test]
    fn a_message_that_is_too_long_is_not_appended() {
        let mut out = BytesMut::new();
        assert!(!append(&mut out, &[0; MAX_MESSAGE + 1]));
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn messages_survive_any_cuts(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..8),
            cuts in prop::collection::vec(1_usize..700, 1..20),
        ) {
            let mut stream = BytesMut::new();
            for message in &messages {
                prop_assert!(append(&mut stream, message));
            }
            let mut deframer = Deframer::default();
            let mut taken = Vec::new();
            let mut cuts = cuts.iter().cycle();
            while !stream.is_empty() {
                let part = stream.split_to((*cuts.next().unwrap()).min(stream.len()));
                taken.extend(feed(&mut deframer, &part));
            }
            prop_assert_eq!(taken, messages);
            prop_assert!(!deframer.is_partial());
        }
    }
}
