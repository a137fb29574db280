//! DNS messages as bytes ([RFC 1035](https://www.rfc-editor.org/rfc/rfc1035) §4): borrowed views
//! that are checked once, and answers that render themselves. No I/O, no clock, no tokio; nothing
//! here panics or allocates by a length that a stranger claims.

pub mod ede;
pub mod edns;
pub mod frame;
pub mod header;
pub(crate) mod letter_case;
pub mod name;
mod packed_name;
pub mod query;
pub mod question;
mod rare;
pub mod rebuild;
pub mod record;
pub mod reply;
pub mod response;
#[cfg(test)]
mod samples;
pub mod stored;

/// The longest DNS message (RFC 1035 §4.2.2: a two-octet length).
pub const MAX_MESSAGE: usize = 65_535;

/// The longest reply sent over UDP, whatever the client offers (DNS flag day 2020: no fragments).
pub const MAX_UDP_REPLY: usize = 1232;

/// The longest UDP reply to a client without EDNS (RFC 1035 §4.2.1).
pub const MIN_UDP_REPLY: usize = 512;
