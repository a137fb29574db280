//! What happens to a message from a client before the resolver sees it, whatever socket it came by:
//! parse, admit, answer from memory, record. It reads and writes no socket.

use super::admission::AccessList;
use super::{Answer, Context};
use crate::config::settings::dnstap::MessageKind;
use crate::resolver::Step;
use crate::resolver::waiter::ClientToken;
use crate::telemetry::counters::Block;
use crate::telemetry::outcome::{self, Outcome, QueryDetail, Source};
use crate::wire::ede::{Ede, EdeCode};
use crate::wire::edns::ReplyOptions;
use crate::wire::header::Rcode;
use crate::wire::query::{ClientTransport, QueryFault, QueryRef};
use crate::wire::question::QuestionRef;
use crate::wire::reply;
use arc_swap::Guard;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

/// One worker's way into the resolver. Each UDP loop has a clone: what a query needs is found from there at one remove.
#[derive(Debug)]
pub(super) struct Intake<A> {
    /// Shared by all workers.
    pub(super) context: Context<A>,
    /// This worker's counters.
    block: Arc<Block>,
}

impl<A> Clone for Intake<A> {
    fn clone(&self) -> Self {
        Self { context: self.context.clone(), block: Arc::clone(&self.block) }
    }
}

/// What became of a message.
#[derive(Debug)]
pub(super) enum Taken<P> {
    /// So many octets of reply were written.
    Reply(usize),
    /// No reply, by a rule.
    Silence,
    /// Not a query at all (too short, or a response): answering could start a loop.
    Nonsense,
    /// Not answerable from memory.
    Miss(P),
}

impl<A: Answer> Intake<A> {
    /// Makes the intake of one worker.
    pub(super) fn new(context: Context<A>, block: Arc<Block>) -> Self {
        Self { context, block }
    }

    /// Starts on messages that arrived together: what is in force is loaded once for them. `local` is the address of the socket
    /// they came by.
    pub(super) fn round(
        &self,
        transport: ClientTransport,
        local: Option<SocketAddr>,
        now: Instant,
    ) -> Round<'_, A> {
        let Context { access, resolver, .. } = &self.context;
        Round { intake: self, access: access.load(), resolver: resolver.round(now), transport, local, now }
    }
}

/// Messages that arrived together.
#[derive(Debug)]
pub(super) struct Round<'a, A: Answer> {
    /// The worker's.
    intake: &'a Intake<A>,
    /// Who may ask, as of now.
    access: Guard<Arc<AccessList>>,
    /// What the resolver knows for all of them.
    resolver: A::Round,
    /// How they came.
    transport: ClientTransport,
    /// The address of the socket they came by.
    local: Option<SocketAddr>,
    /// When they came.
    pub(super) now: Instant,
}

impl<A: Answer> Round<'_, A> {
    /// Takes one message and writes its reply, if there is one at once, to the start of `out`.
    pub(super) fn take(&self, message: &[u8], client: &ClientToken, out: &mut [u8]) -> Taken<A::Pending> {
        let query = QueryRef::parse(message);
        if let Err(QueryFault::Drop) = query {
            return Taken::Nonsense;
        }
        self.tell(MessageKind::ClientQuery, message, client);
        let taken = match query {
            Ok(query) => self.answer(&query, client.peer.ip(), out),
            Err(QueryFault::Drop) => Taken::Nonsense,
            Err(QueryFault::Reject(rcode)) => self.reject(message, client.peer.ip(), rcode, out),
        };
        if let Taken::Reply(octets) = taken {
            self.tell(MessageKind::ClientResponse, out.get(..octets).unwrap_or_default(), client);
        }
        taken
    }

    /// Answers a query from memory, if it may be answered.
    fn answer(&self, query: &QueryRef<'_>, client: IpAddr, out: &mut [u8]) -> Taken<A::Pending> {
        let limit = query.reply_limit(self.transport).min(out.len());
        let Some(out) = out.get_mut(..limit) else { return Taken::Silence };
        if !self.access.allows(client) {
            return self.refuse(query, client, out);
        }
        let resolver = &self.intake.context.resolver;
        let (step, outcome) = resolver.answer_now(&self.resolver, query, self.transport, out);
        match step {
            Step::Reply(octets) => {
                self.record(&outcome, client, Some(query.question()));
                Taken::Reply(octets)
            }
            Step::Drop => Taken::Silence,
            Step::Wait(pending) => Taken::Miss(pending),
        }
    }

    /// Answers a message that is no acceptable query. Not inline: seldom, and in the way of what is not.
    #[inline(never)]
    fn reject(&self, message: &[u8], client: IpAddr, rcode: Rcode, out: &mut [u8]) -> Taken<A::Pending> {
        let Some(octets) = reply::reject(message, rcode, out) else { return Taken::Nonsense };
        self.record(&self.own(Source::Refused, rcode, None), client, None);
        Taken::Reply(octets)
    }

    /// Answers a client that may not ask.
    #[inline(never)]
    fn refuse(&self, query: &QueryRef<'_>, client: IpAddr, out: &mut [u8]) -> Taken<A::Pending> {
        /// Goes to the client as it is, if it understands EDNS.
        const REASON: Ede = Ede::new(EdeCode::PROHIBITED, "this client is not in the access list");
        let octets = reply::error(query, Rcode::REFUSED, &ReplyOptions::default().because(&REASON), out);
        if octets == 0 {
            return Taken::Silence;
        }
        let outcome = self.own(Source::Refused, Rcode::REFUSED, Some(EdeCode::PROHIBITED));
        self.record(&outcome, client, Some(query.question()));
        Taken::Reply(octets)
    }

    /// Describes a reply made by the listener itself.
    fn own(&self, source: Source, rcode: Rcode, ede: Option<EdeCode>) -> Outcome {
        Outcome { source, rcode, ede, transport: self.transport, duration: None }
    }

    /// Tells dnstap of a message that came or leaves at once.
    fn tell(&self, kind: MessageKind, message: &[u8], client: &ClientToken) {
        let dnstap = self.intake.context.telemetry.dnstap();
        dnstap.tell(kind, message, || client.occasion(self.local, self.transport, self.now));
    }

    /// Counts a reply that leaves at once; misses are the resolver's to record.
    fn record(&self, outcome: &Outcome, client: IpAddr, question: Option<QuestionRef<'_>>) {
        let detail = QueryDetail { client, question, upstream: None };
        outcome::record(&self.intake.context.telemetry, &self.intake.block, outcome, &detail);
    }
}
