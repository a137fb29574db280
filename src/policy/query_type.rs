//! Query types and classes that are not passed on: zone transfers, classes other than the Internet's, obsolete and
//! meta types, and ANY. The question's name plays no part.

use super::{QueryRule, Verdict};
use crate::config::settings::AnyQueries;
use crate::wire::ede::{Ede, EdeCode};
use crate::wire::header::Rcode;
use crate::wire::query::QueryRef;
use crate::wire::question::{Class, RecordType, Ttl};
use crate::wire::record::{LocalData, local_answer};

/// How long a client may keep the small answer to ANY. RFC 8482 §4.2 leaves it to us.
const ANY_TTL: Ttl = Ttl(3600);

/// Only the Internet is resolved upstream; CHAOS names tell about servers, and ours tells nothing.
const CLASS_NOT_SUPPORTED: Ede = Ede::new(EdeCode::NOT_SUPPORTED, "only class IN is served");
/// A transfer is between the servers of a zone.
const TRANSFER_NOT_SUPPORTED: Ede = Ede::new(EdeCode::NOT_SUPPORTED, "zone transfers are not served");
/// TKEY and TSIG belong into other sections (RFC 2930, RFC 8945); MAILA and MAILB are obsolete (RFC 1035 §3.2.3).
const TYPE_NOT_IMPLEMENTED: Ede = Ede::new(EdeCode::NOT_SUPPORTED, "this query type is not implemented");
/// RFC 9824: never asked for.
const TYPE_INVALID: Ede = Ede::new(EdeCode::INVALID_QUERY_TYPE, "NXNAME is never asked for");

/// The rule.
#[derive(Debug)]
pub(super) struct QueryType {
    /// What ANY gets.
    any: AnyQueries,
}

impl QueryType {
    /// Makes the rule.
    pub(super) fn new(any: AnyQueries) -> Self {
        Self { any }
    }
}

impl QueryRule for QueryType {
    fn name(&self) -> &'static str {
        "query_type"
    }

    fn on_query(&self, query: &QueryRef<'_>) -> Verdict {
        let question = query.question();
        if question.class != Class::IN {
            return Verdict::Refuse(Rcode::REFUSED, CLASS_NOT_SUPPORTED);
        }
        match (question.rtype, self.any) {
            (RecordType::ANY, AnyQueries::Minimal) => {
                Verdict::Answer(local_answer(&question, &[LocalData::Hinfo], ANY_TTL))
            }
            (RecordType::AXFR | RecordType::IXFR, _) => {
                Verdict::Refuse(Rcode::REFUSED, TRANSFER_NOT_SUPPORTED)
            }
            (RecordType::TKEY | RecordType::TSIG | RecordType::MAILA | RecordType::MAILB, _) => {
                Verdict::Refuse(Rcode::NOTIMP, TYPE_NOT_IMPLEMENTED)
            }
            (RecordType::NXNAME, _) => Verdict::Refuse(Rcode::FORMERR, TYPE_INVALID),
            _ => Verdict::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answered, ask_class, query_octets};
    use super::*;

    /// What the rule thinks of a query of this type and class.
    fn verdict(any: AnyQueries, rtype: RecordType, class: Class) -> Verdict {
        let octets = query_octets("www.example", rtype, class);
        QueryType::new(any).on_query(&QueryRef::parse(&octets).unwrap())
    }

    #[test]
    fn any_gets_one_small_record_made_here() {
        let answer =
            ask_class(&QueryType::new(AnyQueries::Minimal), "www.Example", RecordType::ANY, Class::IN);
        assert_eq!(answered(&answer), (Rcode::NOERROR, vec![b"\x07RFC8482\x00".to_vec()]));
    }

    #[test]
    fn any_is_passed_on_where_the_operator_says_so() {
        assert!(matches!(verdict(AnyQueries::Forward, RecordType::ANY, Class::IN), Verdict::Pass));
    }

    #[test]
    fn ordinary_and_unknown_types_pass() {
        for rtype in [RecordType::A, RecordType::DNSKEY, RecordType(65280)] {
            assert!(matches!(verdict(AnyQueries::Minimal, rtype, Class::IN), Verdict::Pass));
        }
    }

    #[test]
    fn what_is_not_served_is_refused_with_its_reason() {
        let cases = [
            (RecordType::AXFR, Class::IN, Rcode::REFUSED, EdeCode::NOT_SUPPORTED),
            (RecordType::IXFR, Class::IN, Rcode::REFUSED, EdeCode::NOT_SUPPORTED),
            (RecordType::TXT, Class::CH, Rcode::REFUSED, EdeCode::NOT_SUPPORTED),
            (RecordType::A, Class::ANY, Rcode::REFUSED, EdeCode::NOT_SUPPORTED),
            (RecordType::ANY, Class::CH, Rcode::REFUSED, EdeCode::NOT_SUPPORTED),
            (RecordType::MAILA, Class::IN, Rcode::NOTIMP, EdeCode::NOT_SUPPORTED),
            (RecordType::MAILB, Class::IN, Rcode::NOTIMP, EdeCode::NOT_SUPPORTED),
            (RecordType::TKEY, Class::IN, Rcode::NOTIMP, EdeCode::NOT_SUPPORTED),
            (RecordType::TSIG, Class::IN, Rcode::NOTIMP, EdeCode::NOT_SUPPORTED),
            (RecordType::NXNAME, Class::IN, Rcode::FORMERR, EdeCode::INVALID_QUERY_TYPE),
        ];
        for (rtype, class, rcode, code) in cases {
            let Verdict::Refuse(said, ede) = verdict(AnyQueries::Minimal, rtype, class) else {
                panic!("{rtype} {class} is not refused");
            };
            assert_eq!((said, ede.code), (rcode, code), "{rtype} {class}");
        }
    }
}
