//! A client's query: one pass, no copy, malformed ones refused; and the query we build for a server.

use super::edns::EdnsRef;
use super::header::{HeaderRef, Rcode};
use super::question::QuestionRef;
use bytes::Bytes;

/// How a client asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientTransport {
    Udp,
    Tcp,
}

/// Why a query is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryFault {
    /// Shorter than a header, or a response: no reply at all.
    Drop,
    /// Reply with this rcode (`reply::reject`): FORMERR, NOTIMP, BADVERS.
    Reject(Rcode),
}

/// A checked view of a query.
#[derive(Clone, Copy, Debug)]
pub struct QueryRef<'a> {
    bytes: &'a [u8],
    header: HeaderRef<'a>,
    question: QuestionRef<'a>,
    edns: Option<EdnsRef<'a>>,
}
impl<'a> QueryRef<'a> {
    pub fn parse(_bytes: &'a [u8]) -> Result<Self, QueryFault> {
        todo!()
    }
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
    pub fn header(&self) -> HeaderRef<'a> {
        self.header
    }
    pub fn id(&self) -> u16 {
        self.header.id()
    }
    pub fn question(&self) -> QuestionRef<'a> {
        self.question
    }
    pub fn edns(&self) -> Option<EdnsRef<'a>> {
        self.edns
    }
    /// DO bit (RFC 3225).
    pub fn dnssec_ok(&self) -> bool {
        todo!()
    }
    /// Longest reply the client can take: UDP without EDNS 512, with EDNS its payload size within 512..=1232; TCP 65,535 (RFC 6891 §6.2.3).
    pub fn reply_limit(&self, _transport: ClientTransport) -> usize {
        todo!()
    }
}

/// What goes into a query of ours. Never a client's query as it came.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamQuery<'a> {
    pub question: QuestionRef<'a>,
    pub dnssec_ok: bool,
    pub checking_disabled: bool,
    pub subnet: SubnetOption<'a>,
    /// Pad to a multiple of 128 octets (RFC 8467 §4.1).
    pub padding: bool,
}
/// The ECS option of a query (RFC 7871).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubnetOption<'a> {
    /// No option.
    Absent,
    /// Source prefix length 0 (RFC 7871 §7.1.2): asks the server not to send the client's network.
    OptOut,
    /// Option content (family, prefix lengths, address) as it goes on the wire.
    Content(&'a [u8]),
}
impl UpstreamQuery<'_> {
    /// ID 0, RD=1, AD=1 (RFC 6840 §5.7), CD as asked, OPT with payload size 1232, DO as asked. The question's letter case is kept.
    pub fn build(&self) -> Bytes {
        todo!()
    }
}
