//! Asks one server for the addresses of a name: for our own use, never a client's. Whom to ask, and what becomes of the answer,
//! is `bootstrap`'s and `discovery`'s business.

use super::retry::after_transport;
use super::{Failure, Sample, Upstream};
use crate::transport;
use crate::wire::header::Rcode;
use crate::wire::name::{MAX_NAME, Name, NameRef};
use crate::wire::query::{SubnetOption, UpstreamQuery};
use crate::wire::question::{Class, QuestionRef, RecordType};
use crate::wire::response::{PackedName, RecordRef, ResponseFault, ResponseRef, Section};
use futures_util::future::select;
use std::net::IpAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

/// Aliases followed within an answer; content networks use two or three.
const MOST_ALIASES: usize = 8;

/// Addresses taken of each family.
const MOST_ADDRESSES: usize = 8;

/// RFC 8305 §3: how long one family waits for the other, once it has its addresses.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// A server gave no answer, or one that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unanswered;

/// Asks one server for both families at once. When one has addresses the other is given a moment more, no longer: an
/// answer of one family is enough to connect.
pub(super) async fn ask(server: &Upstream, name: NameRef<'_>, deadline: Instant) -> Option<Found> {
    let v4 = pin!(ask_for(server, name, RecordType::A, deadline));
    let v6 = pin!(ask_for(server, name, RecordType::AAAA, deadline));
    let (first, other) = select(v4, v6).await.factor_first();
    let Ok(Some(first)) = first else {
        return other.await.ok().flatten();
    };
    let patience = deadline.min(crate::clock::now() + RESOLUTION_DELAY);
    match tokio::time::timeout_at(patience.into(), other).await {
        Ok(Ok(Some(second))) => Some(first.and(second)),
        Ok(Ok(None) | Err(Unanswered)) | Err(_) => Some(first),
    }
}

/// Asks one server for the addresses of one family, and tells it what came of it. None: it says that there are none.
pub(super) async fn ask_for(
    server: &Upstream,
    name: NameRef<'_>,
    rtype: RecordType,
    deadline: Instant,
) -> Result<Option<Found>, Unanswered> {
    let question = QuestionRef { name, rtype, class: Class::IN };
    let query = UpstreamQuery {
        question,
        dnssec_ok: false,
        checking_disabled: false,
        subnet: SubnetOption::Absent,
        padding: true,
    };
    let asked_at = crate::clock::now();
    let outcome = transport::exchange(server.transport(), query.build(), deadline).await;
    let now = crate::clock::now();
    let (sample, found) = match outcome {
        Err(error) => (after_transport(&error).sample, Err(Unanswered)),
        Ok(received) => match read(&received.message, &question) {
            Err(fault) => (Sample::Failed { error: Failure::from(fault) }, Err(Unanswered)),
            Ok(found) => (Sample::Answered { latency: now.saturating_duration_since(asked_at) }, Ok(found)),
        },
    };
    server.observe(sample, now);
    found
}

/// Addresses out of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// At least one.
    pub(super) addresses: Vec<IpAddr>,
    /// The smallest TTL on the way to them.
    pub(super) ttl_secs: u32,
}

impl Found {
    /// Puts two together.
    fn and(mut self, other: Self) -> Self {
        self.addresses.extend(other.addresses);
        self.ttl_secs = self.ttl_secs.min(other.ttl_secs);
        self
    }

    /// Returns the addresses with the families in turn (RFC 8305 §4), IPv4 first: of the two, a broken IPv6 path is the usual one.
    pub(super) fn interleaved(self) -> Vec<IpAddr> {
        let (v4, v6): (Vec<_>, Vec<_>) = self.addresses.into_iter().partition(IpAddr::is_ipv4);
        let mut addresses = Vec::with_capacity(v4.len() + v6.len());
        let (mut v4, mut v6) = (v4.into_iter(), v6.into_iter());
        loop {
            let before = addresses.len();
            addresses.extend(v4.next());
            addresses.extend(v6.next());
            if addresses.len() == before {
                return addresses;
            }
        }
    }
}

/// Reads the addresses of the question's name, through its aliases, from a response. None: there are none.
fn read(message: &[u8], question: &QuestionRef<'_>) -> Result<Option<Found>, ResponseFault> {
    let response = ResponseRef::parse(message)?;
    if !response.question().matches(question) {
        return Err(ResponseFault::QuestionMismatch);
    }
    if response.header().is_truncated() {
        return Err(ResponseFault::Truncated);
    }
    if response.rcode() != Rcode::NOERROR {
        return Ok(None);
    }
    let mut owner = question.name.to_name();
    let mut found = Found { addresses: Vec::new(), ttl_secs: u32::MAX };
    for _ in 0..=MOST_ALIASES {
        let Some(alias) = gather(&response, &owner, question.rtype, &mut found) else { break };
        let mut buffer = [0; MAX_NAME];
        let Some(name) = alias.unpack_into(&mut buffer) else { break };
        owner = name.to_name();
    }
    Ok(if found.addresses.is_empty() { None } else { Some(found) })
}

/// Adds the addresses of `owner`; returns its alias instead if it has none but that.
fn gather<'a>(
    response: &ResponseRef<'a>,
    owner: &Name,
    rtype: RecordType,
    found: &mut Found,
) -> Option<PackedName<'a>> {
    let mut alias = None;
    let records = response.records(Section::Answer);
    for record in records.filter(|record| record.class == Class::IN && record.owner.eq_name(owner.view())) {
        if record.rtype == RecordType::CNAME && alias.is_none() {
            alias = record.rdata_name(0);
            found.ttl_secs = found.ttl_secs.min(record.ttl.0);
        }
        if record.rtype == rtype && found.addresses.len() < MOST_ADDRESSES {
            found.addresses.extend(address(&record));
            found.ttl_secs = found.ttl_secs.min(record.ttl.0);
        }
    }
    if found.addresses.is_empty() { alias } else { None }
}

/// Returns the address in an A or AAAA record (RFC 1035 §3.4.1, RFC 3596 §2.2).
fn address(record: &RecordRef<'_>) -> Option<IpAddr> {
    if record.rtype == RecordType::A {
        return <[u8; 4]>::try_from(record.rdata).ok().map(IpAddr::from);
    }
    <[u8; 16]>::try_from(record.rdata).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::super::fake::{self, Record};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_a_helper_sends_is_read_or_refused(
            tail in proptest::collection::vec(any::<u8>(), 0..200),
            changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4),
        ) {
            let name: Name = "dns.home.example".parse().unwrap();
            let question = QuestionRef { name: name.view(), rtype: RecordType::A, class: Class::IN };
            let query = [&[0; 12][..], name.view().as_bytes(), &[0, 1, 0, 1]].concat();
            let records: [(&[u8], Record); 2] = [(b"", (1, 300, vec![192, 0, 2, 1])), (b"", (5, 3, b"\x01b\x00".to_vec()))];
            let mut message = fake::reply_with(&query, 0, &records).to_vec();
            message[5] = 1;
            prop_assert!(read(&message, &question).unwrap().is_some());
            for (at, octet) in changes {
                let len = message.len();
                message[at % len] = octet;
            }
            message.extend(tail);
            if let Ok(Some(found)) = read(&message, &question) {
                prop_assert!((1..=MOST_ADDRESSES).contains(&found.addresses.len()));
            }
        }
    }
}
