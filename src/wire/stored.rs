//! An answer at rest: one allocation that holds the message (ID 0, no OPT, no additional section), the offsets of its TTLs and the
//! server's EDE code. It renders itself as the reply to a query: fresh, stale and local answers alike.

use super::ede::{Ede, EdeCode};
use super::header::Rcode;
use super::query::QueryRef;
use super::question::{QuestionRef, Ttl};
use super::response::ResponseRef;
use std::sync::Arc;

/// What becomes of the TTLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlRule {
    Keep,
    Aged { secs: u32 },
    Fixed { secs: u32 },
}

/// An answer at rest. Cloning is cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredAnswer(Arc<[u8]>);

/// What is kept of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Authority records other than SOA (with DO: the DNSSEC records and NS).
    pub authority: bool,
    /// The AD bit.
    pub authentic_data: bool,
}
impl StoredAnswer {
    /// Cuts the additional section, clears ID, keeps rcode (low bits), AA cleared, RA set; TTLs are clamped down to `max_ttl` and (those below) up to `min_ttl`. EDE code of the response kept.
    pub fn from_response(_response: &ResponseRef<'_>, _keep: Keep) -> Self {
        todo!()
    }
    /// The stored message as it is (ID 0, no OPT).
    pub fn message(&self) -> &[u8] {
        todo!()
    }
    pub fn question(&self) -> QuestionRef<'_> {
        todo!()
    }
    pub fn rcode(&self) -> Rcode {
        todo!()
    }
    pub fn ede_code(&self) -> Option<EdeCode> {
        todo!()
    }
    /// Smallest TTL of all records; None without records.
    pub fn min_ttl(&self) -> Option<Ttl> {
        todo!()
    }
    /// Returns it with every TTL set within `min..=max`.
    pub fn clamp_ttls(&self, _min: Ttl, _max: Ttl) -> Self {
        todo!()
    }
    /// Octets it holds on the heap, allocation bookkeeping of `Arc` included.
    pub fn heap_len(&self) -> usize {
        todo!()
    }
    /// Writes the reply. `out` is as long as the reply may be: a longer one is cut to header + question + OPT with TC=1. No allocation, no record parse.
    /// ID, RD, CD from the query; QR=1, RA=1; AD only if stored and the query had AD or DO (RFC 6840 §5.7); the question's octets are the query's; TTLs by `ttl`;
    /// OPT (payload size 1232, DO as asked, `ede` or else the stored EDE code) if the query had one.
    pub fn render(&self, _query: &QueryRef<'_>, _ttl: TtlRule, _ede: Option<&Ede>, _out: &mut [u8]) -> usize {
        todo!()
    }
}
impl std::fmt::Debug for StoredAnswer {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}
