//! The octets before the TTL offsets and the message of an answer at rest.

use crate::wire::ede::EdeCode;
use crate::wire::header::HEADER_LEN;

/// Octets before the TTL offsets.
pub(super) const PREFIX_LEN: usize = 7;

/// Stands for the absence of an EDE code: the last one for private use (RFC 8914 §5.2) cannot be kept.
const NO_EDE: u16 = u16::MAX;

/// What is known beside the message, so that rendering need not look for it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prefix {
    /// The EDE code.
    pub(super) ede: Option<EdeCode>,
    /// How much of a client's network the answer is for (RFC 7871 §6); 0 when it is for all.
    pub(super) scope: u8,
    /// The bits of the response code that have no place in the header.
    pub(super) rcode_upper: u8,
    /// Octets of the question's name.
    pub(super) name_len: u8,
}

impl Prefix {
    /// Packs it together with the number of TTL offsets.
    pub(super) fn encode(self, ttl_count: u16) -> [u8; PREFIX_LEN] {
        let [count_high, count_low] = ttl_count.to_be_bytes();
        let [ede_high, ede_low] = self.ede.map_or(NO_EDE, |ede| ede.0).to_be_bytes();
        [count_high, count_low, ede_high, ede_low, self.scope, self.rcode_upper, self.name_len]
    }

    /// Reads it and the number of TTL offsets.
    pub(super) fn decode(octets: [u8; PREFIX_LEN]) -> (Self, u16) {
        let [count_high, count_low, ede_high, ede_low, scope, rcode_upper, name_len] = octets;
        let ede = Some(u16::from_be_bytes([ede_high, ede_low])).filter(|code| *code != NO_EDE).map(EdeCode);
        (Self { ede, scope, rcode_upper, name_len }, u16::from_be_bytes([count_high, count_low]))
    }

    /// Returns where the question ends in the message.
    pub(super) fn question_end(self) -> usize {
        HEADER_LEN + usize::from(self.name_len) + 4
    }
}
