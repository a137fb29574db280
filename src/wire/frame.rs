//! Two-octet length framing of DNS on streams (RFC 1035 §4.2.2), incremental, both ways.

use bytes::{Bytes, BytesMut};

/// Cuts complete messages out of a stream's octets. Never holds more than one message and what was read with it.
#[derive(Debug, Default)]
pub struct Deframer {
    buffer: BytesMut,
}
impl Deframer {
    /// Where to read more octets into (`read_buf`); reserves at most one message.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }
    /// The next whole message, without its length. A length of zero yields an empty one.
    pub fn next_message(&mut self) -> Option<Bytes> {
        todo!()
    }
    /// True when part of a message is waiting for its rest.
    pub fn is_partial(&self) -> bool {
        todo!()
    }
}
/// Appends `message` with its length; false (nothing appended) when it is longer than 65,535 octets.
pub fn append(_out: &mut BytesMut, _message: &[u8]) -> bool {
    todo!()
}
