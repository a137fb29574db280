//! Writes a response anew without some of its records. Dropping from the middle of a message would break compression pointers,
//! so owners and the names inside RDATA of the types that may be compressed (RFC 3597 §4, RFC 1035) are written out in full; every other RDATA is copied as it is.

use super::response::{RecordRef, ResponseRef, Section};
use bytes::Bytes;

/// The message with only the records for which `keep` is true (OPT never kept); None when the result would pass 65,535 octets.
pub fn rebuild(
    _response: &ResponseRef<'_>,
    _keep: &mut dyn FnMut(Section, &RecordRef<'_>) -> bool,
) -> Option<Bytes> {
    todo!()
}
