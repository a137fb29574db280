//! What we think of a query or an answer, before and after the network. Pure: no I/O, no clock, and no type that
//! could name a client.

pub mod client_subnet;
pub mod name_set;
mod query_type;
mod rebinding;
mod special_use;

use self::query_type::QueryType;
use self::rebinding::Rebinding;
use self::special_use::SpecialUse;
use crate::config::settings::{RebindingSettings, Settings};
use crate::wire::ede::Ede;
use crate::wire::header::Rcode;
use crate::wire::query::QueryRef;
use crate::wire::question::QuestionRef;
use crate::wire::response::ResponseRef;
use crate::wire::stored::StoredAnswer;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};

/// A rule's opinion.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// None: the next rule is asked.
    Pass,
    /// Good: later rules are not asked.
    Accept,
    /// Answer with this.
    Answer(StoredAnswer),
    /// Reply with rcode and reason (BLOCKED 15, FILTERED 17, PROHIBITED 18, NOT_SUPPORTED 21).
    Refuse(Rcode, Ede),
    /// Say nothing.
    Drop,
}

/// Whose servers an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFrom {
    /// Anybody's.
    Public,
    /// A group of the operator's own that a route names: its names may have private addresses.
    OwnGroup,
}

/// A rule about queries.
trait QueryRule: Debug + Send + Sync {
    /// Returns the rule's name in logs and metrics.
    fn name(&self) -> &'static str;

    /// Judges a query before the cache is asked.
    fn on_query(&self, query: &QueryRef<'_>) -> Verdict;
}

/// A rule about answers.
trait AnswerRule: Debug + Send + Sync {
    /// Returns the rule's name in logs and metrics.
    fn name(&self) -> &'static str;

    /// Judges a server's answer before it is stored.
    fn on_answer(&self, question: &QuestionRef<'_>, answer: &ResponseRef<'_>, from: AnswerFrom) -> Verdict;
}

/// The rules in force. They are asked in order, until one has an opinion. Those about queries are part of this, not boxes
/// somewhere else: they are asked for every query.
#[derive(Debug)]
pub struct PolicySet {
    /// Malformed kinds of queries: first, so that special names get answers of ordinary types only.
    query_type: QueryType,
    /// Names that are not the public's.
    special_use: SpecialUse,
    /// Public names with private addresses; None when they are let through.
    rebinding: Option<Rebinding>,
    /// Hash of what the answer-side rules were built from.
    answer_side: u32,
}

/// What stands in place of a rule's name when none had an opinion.
const NO_RULE: &str = "none";

impl PolicySet {
    /// Builds the rules.
    pub fn build(settings: &Settings) -> Self {
        Self {
            query_type: QueryType::new(settings.any),
            special_use: SpecialUse::new(&settings.routes),
            rebinding: Rebinding::new(&settings.rebinding),
            answer_side: answer_side_hash(&settings.rebinding),
        }
    }

    /// Judges a query, and names the rule that did.
    pub fn on_query(&self, query: &QueryRef<'_>) -> (Verdict, &'static str) {
        // In this order.
        let Self { query_type, special_use, rebinding: _, answer_side: _ } = self;
        opinion(query_type.on_query(query), query_type.name())
            .or_else(|| opinion(special_use.on_query(query), special_use.name()))
            .unwrap_or((Verdict::Pass, NO_RULE))
    }

    /// Judges a server's answer, and names the rule that did. `own_group`: names of a route to a group of the
    /// operator's own may have private addresses.
    pub fn on_answer(
        &self,
        question: &QuestionRef<'_>,
        answer: &ResponseRef<'_>,
        own_group: bool,
    ) -> (Verdict, &'static str) {
        let from = if own_group { AnswerFrom::OwnGroup } else { AnswerFrom::Public };
        self.rebinding
            .as_ref()
            .and_then(|rule| opinion(rule.on_answer(question, answer, from), rule.name()))
            .unwrap_or((Verdict::Pass, NO_RULE))
    }

    /// Returns a number that is another one when other answers are let through, for the cache to tell apart what was
    /// stored under other rules. It is the same for the same settings as long as the process lives.
    pub fn answer_side_hash(&self) -> u32 {
        self.answer_side
    }
}

/// Returns a rule's opinion and its name, if it has one.
fn opinion(verdict: Verdict, rule: &'static str) -> Option<(Verdict, &'static str)> {
    match verdict {
        Verdict::Pass => None,
        Verdict::Accept | Verdict::Answer(_) | Verdict::Refuse(..) | Verdict::Drop => Some((verdict, rule)),
    }
}

/// Hashes what the answer-side rules are built from. The order of an allow list means nothing.
fn answer_side_hash(rebinding: &RebindingSettings) -> u32 {
    let mut allow: Vec<_> = rebinding.allow.iter().collect();
    allow.sort_unstable();
    let mut hasher = DefaultHasher::new();
    (rebinding.protect, allow).hash(&mut hasher);
    let [a, b, c, d, ..] = hasher.finish().to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ede::EdeCode;
    use crate::wire::edns::OPTION_EDE;
    use crate::wire::name::Name;
    use crate::wire::question::{Class, RecordType};
    use crate::wire::response::Section;

    /// A header and a question.
    fn message(flags: [u8; 2], counts: [u8; 4], name: &str, rtype: RecordType, class: Class) -> Vec<u8> {
        let mut octets = vec![0, 7, flags[0], flags[1]];
        octets.extend(counts.iter().flat_map(|&count| [0, count]));
        octets.extend_from_slice(name.parse::<Name>().unwrap().view().as_bytes());
        octets.extend_from_slice(&rtype.0.to_be_bytes());
        octets.extend_from_slice(&class.0.to_be_bytes());
        octets
    }

    /// A client's query without EDNS.
    pub(super) fn query_octets(name: &str, rtype: RecordType, class: Class) -> Vec<u8> {
        message([1, 0], [1, 0, 0, 0], name, rtype, class)
    }

    /// A client's query with one additional record.
    pub(super) fn query_octets_with(name: &str, rtype: RecordType, class: Class, record: &[u8]) -> Vec<u8> {
        [message([1, 0], [1, 0, 0, 1], name, rtype, class), record.to_vec()].concat()
    }

    /// An OPT record, with an option if one is given.
    pub(super) fn opt_record(option: Option<(u16, &[u8])>) -> Vec<u8> {
        let option = option.map_or(vec![], |(code, content)| {
            let len = u16::try_from(content.len()).unwrap();
            [&code.to_be_bytes(), &len.to_be_bytes(), content].concat()
        });
        let len = u16::try_from(option.len()).unwrap();
        [&[0, 0, 41, 4, 208, 0, 0, 0, 0][..], &len.to_be_bytes(), &option].concat()
    }

    /// A server's response with these records, TTL 60, all owned by the name asked for.
    pub(super) fn response_octets(name: &str, rtype: RecordType, records: &[(RecordType, &[u8])]) -> Vec<u8> {
        let count = u8::try_from(records.len()).unwrap();
        let mut octets = message([0x81, 0x80], [1, count, 0, 0], name, rtype, Class::IN);
        for (rtype, rdata) in records {
            octets.extend_from_slice(&[0xc0, 12]);
            octets.extend_from_slice(&rtype.0.to_be_bytes());
            octets.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
            octets.extend_from_slice(&u16::try_from(rdata.len()).unwrap().to_be_bytes());
            octets.extend_from_slice(rdata);
        }
        octets
    }

    /// What a rule answers by itself.
    pub(super) fn ask_class(
        rule: &dyn QueryRule,
        name: &str,
        rtype: RecordType,
        class: Class,
    ) -> StoredAnswer {
        let octets = query_octets(name, rtype, class);
        match rule.on_query(&QueryRef::parse(&octets).unwrap()) {
            Verdict::Answer(answer) => answer,
            verdict @ (Verdict::Pass | Verdict::Accept | Verdict::Refuse(..) | Verdict::Drop) => {
                panic!("{name} {rtype}: {verdict:?}")
            }
        }
    }

    /// What a rule answers by itself in class IN.
    pub(super) fn ask(rule: &dyn QueryRule, name: &str, rtype: RecordType) -> StoredAnswer {
        ask_class(rule, name, rtype, Class::IN)
    }

    /// The rcode of an answer and the data of its answer section.
    pub(super) fn answered(answer: &StoredAnswer) -> (Rcode, Vec<Vec<u8>>) {
        let response = ResponseRef::parse(answer.message()).unwrap();
        (response.rcode(), response.records(Section::Answer).map(|record| record.rdata.to_vec()).collect())
    }

    /// Whose SOA stands in the authority section.
    pub(super) fn soa_owner(answer: &StoredAnswer) -> String {
        let response = ResponseRef::parse(answer.message()).unwrap();
        let mut authority = response.records(Section::Authority);
        let soa = authority.find(|record| record.rtype == RecordType::SOA).unwrap();
        soa.owner.unpack_into(&mut [0; 255]).unwrap().to_string()
    }

    #[test]
    fn an_opinion_comes_with_the_name_of_its_rule() {
        assert!(opinion(Verdict::Pass, "says").is_none());
        let refuse = Verdict::Refuse(Rcode::REFUSED, Ede::new(EdeCode::BLOCKED, "no"));
        for verdict in [Verdict::Accept, Verdict::Drop, refuse] {
            let kind = std::mem::discriminant(&verdict);
            let (said, rule) = opinion(verdict, "says").unwrap();
            assert_eq!((std::mem::discriminant(&said), rule), (kind, "says"));
        }
    }

    /// The rules of a configuration file.
    fn configured(text: &str) -> PolicySet {
        PolicySet::build(&crate::config::from_text(text, std::path::Path::new("/")).unwrap())
    }

    /// Which rule has an opinion about a query.
    fn query_rule(policy: &PolicySet, name: &str, rtype: RecordType) -> &'static str {
        policy.on_query(&QueryRef::parse(&query_octets(name, rtype, Class::IN)).unwrap()).1
    }

    /// Which rule has an opinion about a public name with a private address.
    fn answer_rule(policy: &PolicySet, name: &str, own_group: bool) -> &'static str {
        let octets = response_octets(name, RecordType::A, &[(RecordType::A, &[10, 0, 0, 1])]);
        let response = ResponseRef::parse(&octets).unwrap();
        policy.on_answer(&response.question(), &response, own_group).1
    }

    #[test]
    fn an_empty_file_protects() {
        let policy = configured("");
        assert_eq!(query_rule(&policy, "www.example", RecordType::A), NO_RULE);
        assert_eq!(query_rule(&policy, "www.example", RecordType::ANY), "query_type");
        assert_eq!(query_rule(&policy, "printer.local", RecordType::A), "special_use");
        assert_eq!(query_rule(&policy, "printer.local", RecordType::AXFR), "query_type");
        assert_eq!(answer_rule(&policy, "www.example", false), "rebinding");
        assert_eq!(answer_rule(&policy, "www.example", true), NO_RULE);
    }

    #[test]
    fn what_the_file_says_is_what_is_in_force() {
        let policy = configured(
            "[policy]\nany = \"forward\"\n[rebinding]\nprotect = false\n\
             [group.home]\nupstreams = [\"udp://192.0.2.1\"]\n\
             [[route]]\ndomains = [\"local\"]\ngroup = \"home\"\n",
        );
        assert_eq!(query_rule(&policy, "www.example", RecordType::ANY), NO_RULE);
        assert_eq!(query_rule(&policy, "printer.local", RecordType::A), NO_RULE);
        assert_eq!(answer_rule(&policy, "www.example", false), NO_RULE);
        assert_ne!(policy.answer_side_hash(), configured("").answer_side_hash());
    }

    #[test]
    fn the_hash_tells_settings_apart_but_not_their_order() {
        let hash = |protect, allow: &[&str]| {
            let allow = allow.iter().map(|suffix| suffix.parse().unwrap()).collect();
            answer_side_hash(&RebindingSettings { protect, allow })
        };
        assert_eq!(hash(true, &["a", "b"]), hash(true, &["b", "a"]));
        assert_ne!(hash(true, &["a", "b"]), hash(true, &["a.b"]));
        assert_ne!(hash(true, &[]), hash(false, &[]));
    }

    #[test]
    fn the_query_builders_of_these_tests_make_good_queries() {
        let opt = opt_record(Some((OPTION_EDE, b"\x00\x00")));
        let octets = query_octets_with("a", RecordType::A, Class::IN, &opt);
        assert_eq!(QueryRef::parse(&octets).unwrap().edns().unwrap().options().count(), 1);
    }
}
