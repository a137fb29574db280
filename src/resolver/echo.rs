//! What a reply says to options of its query: the client's network goes back with the scope of the answer, and a client
//! that asks for it is told how long its connection may be idle. How they are written is `wire::edns`'s matter.

use crate::policy::client_subnet::SubnetRule;
use crate::wire::edns::{IdleTimeout, OPTION_KEEPALIVE, ReplyOptions};
use crate::wire::query::{ClientTransport, QueryRef};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// How long clients' TCP connections may be idle, as the clients are told ([RFC 7828](https://www.rfc-editor.org/rfc/rfc7828)).
#[derive(Debug)]
pub(super) struct Keepalive(AtomicU16);

impl Keepalive {
    /// Begins with the time-out in force.
    pub(super) fn new(idle: Duration) -> Self {
        Self(AtomicU16::new(IdleTimeout::from(idle).0))
    }

    /// Asks clients to close from now on (RFC 7828 §3.3.2).
    pub(super) fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Returns what this client is told: nothing unless it sent the option, empty as it has to be, over TCP (RFC 7828
    /// §3.2.1).
    fn told(&self, query: &QueryRef<'_>, transport: ClientTransport) -> Option<IdleTimeout> {
        match transport {
            ClientTransport::Udp => None,
            ClientTransport::Tcp => {
                query.edns()?.option(OPTION_KEEPALIVE).filter(|content| content.is_empty())?;
                Some(IdleTimeout(self.0.load(Ordering::Relaxed)))
            }
        }
    }

    /// Returns the options of the reply to `query`.
    pub(super) fn options<'a>(
        &self,
        subnet: &SubnetRule,
        query: &QueryRef<'a>,
        transport: ClientTransport,
    ) -> ReplyOptions<'a> {
        if query.edns().is_none_or(|edns| edns.is_bare()) {
            return ReplyOptions::default();
        }
        let keepalive = self.told(query, transport);
        ReplyOptions { subnet: subnet.echoed(query), keepalive, ede: None }
    }
}
