//! Replies without an answer: errors, refusals, truncated ones.

use super::ede::Ede;
use super::header::Rcode;
use super::query::QueryRef;

/// Writes a reply with the client's question, `rcode`, RA=1, and when the query had EDNS an OPT with `ede`. Returns octets written (0 only if `out` is shorter than header + question + OPT).
pub fn error(_query: &QueryRef<'_>, _rcode: Rcode, _ede: Option<&Ede>, _out: &mut [u8]) -> usize {
    todo!()
}
/// Writes a reply to octets that are no acceptable query (`QueryFault::Reject`): the question is echoed when it can be read; BADVERS gets its OPT (version 0). None when nothing can be said (no header, QR=1).
pub fn reject(_message: &[u8], _rcode: Rcode, _out: &mut [u8]) -> Option<usize> {
    todo!()
}
/// Header, question, OPT, with TC=1.
pub fn truncated(_query: &QueryRef<'_>, _out: &mut [u8]) -> usize {
    todo!()
}
