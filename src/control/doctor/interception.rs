//! Does somebody answer plain DNS in the name of others? An address where no server is must stay silent. Says nothing
//! about encrypted DNS, which `servers` looks at.

use super::LIMIT;
use super::places::Places;
use super::report::{Finding, Intent, Status};
use crate::transport::plain;
use crate::wire::name::Name;
use crate::wire::query::{SubnetOption, UpstreamQuery};
use crate::wire::question::{Class, QuestionRef, RecordType};
use bytes::Bytes;
use futures_util::future::join_all;
use std::net::SocketAddr;

/// The check's name.
const CHECK: &str = "interception";

/// What is asked: a name that says nothing about who asks (RFC 2606 §3).
const NAME: &str = "example.com";

/// Says what is sent.
pub(super) fn intent(places: &Places) -> Intent {
    let to: Vec<String> = places.nobody.iter().map(ToString::to_string).collect();
    let sends = format!("plain DNS for {NAME} to {}, where no server is", to.join(" and "));
    Intent { check: CHECK, sends }
}

/// Asks where nobody should answer.
pub(super) async fn examine(places: &Places, protected: bool) -> Finding {
    let asked = places.nobody.iter().map(|address| answers(*address));
    let answered: Vec<String> =
        join_all(asked).await.into_iter().flatten().map(|from| from.to_string()).collect();
    if answered.is_empty() {
        return Finding::fine(CHECK, "nobody answers plain DNS where no server is");
    }
    let seen = format!(
        "{} answered, where no server is: plain DNS on port 53 is intercepted on this network",
        answered.join(" and ")
    );
    if protected {
        let advice = "nothing: veildns asks encrypted. Programs that bring their own plain DNS are lied to";
        Finding::new(CHECK, Status::Warn, seen, advice)
    } else {
        Finding::new(CHECK, Status::Fail, seen, "make programs ask veildns: see resolv.conf above")
    }
}

/// Returns the address if anything answers there.
async fn answers(address: SocketAddr) -> Option<SocketAddr> {
    let deadline = crate::clock::now() + LIMIT;
    plain::ask_once(address, &query(NAME, RecordType::A)?, deadline).await.ok().map(|_| address)
}

/// Builds a query.
pub(super) fn query(name: &str, rtype: RecordType) -> Option<Bytes> {
    let name: Name = name.parse().ok()?;
    let query = UpstreamQuery {
        question: QuestionRef { name: name.view(), rtype, class: Class::IN },
        dnssec_ok: false,
        checking_disabled: false,
        subnet: SubnetOption::Absent,
        padding: false,
    };
    Some(query.build())
}
