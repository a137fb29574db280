//! Which responses answer a question, and what is left of them.

use super::*;
use crate::wire::edns::ReplyOptions;
use crate::wire::name::Name;
use crate::wire::query::{QueryRef, SubnetOption, UpstreamQuery};
use crate::wire::question::Class;
use crate::wire::stored::TtlRule;
use proptest::prelude::*;

/// A name in wire form.
fn name(text: &str) -> Vec<u8> {
    text.parse::<Name>().unwrap().view().as_bytes().to_vec()
}

/// A record in class IN, TTL 60.
fn record(owner: &str, rtype: RecordType, rdata: &[u8]) -> Vec<u8> {
    record_of_class(owner, rtype, Class::IN, rdata)
}

fn record_of_class(owner: &str, rtype: RecordType, class: Class, rdata: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rdata.len()).unwrap();
    [
        &name(owner)[..],
        &rtype.0.to_be_bytes(),
        &class.0.to_be_bytes(),
        &[0, 0, 0, 60],
        &len.to_be_bytes(),
        rdata,
    ]
    .concat()
}

fn a(owner: &str) -> Vec<u8> {
    record(owner, RecordType::A, &[192, 0, 2, 1])
}

fn cname(owner: &str, target: &str) -> Vec<u8> {
    record(owner, RecordType::CNAME, &name(target))
}

fn dname(owner: &str, target: &str) -> Vec<u8> {
    record(owner, RecordType::DNAME, &name(target))
}

/// A signature over records of a type, in outline.
fn rrsig(owner: &str, covered: RecordType) -> Vec<u8> {
    record(owner, RecordType::RRSIG, &[&covered.0.to_be_bytes()[..], b"and the rest"].concat())
}

fn soa(owner: &str) -> Vec<u8> {
    record(owner, RecordType::SOA, &[&name("ns.example")[..], &name("admin.example"), &[0; 20]].concat())
}

/// The response to `www.example` with these answer and authority records.
fn response(rtype: RecordType, answers: &[Vec<u8>], authorities: &[Vec<u8>]) -> Vec<u8> {
    let mut octets = vec![0, 0, 0x81, 0x80, 0, 1];
    octets.extend(u16::try_from(answers.len()).unwrap().to_be_bytes());
    octets.extend(u16::try_from(authorities.len()).unwrap().to_be_bytes());
    octets.extend([0, 0]);
    octets.extend(name("www.example"));
    octets.extend(rtype.0.to_be_bytes());
    octets.extend([0, 1]);
    octets.extend(answers.concat());
    octets.extend(authorities.concat());
    octets
}

/// What becomes of a message that answers `www.example` of this type.
fn check(rtype: RecordType, dnssec_ok: bool, message: Vec<u8>) -> Result<Bytes, ResponseFault> {
    let www = name("www.example");
    let question =
        QuestionRef { name: crate::wire::name::NameRef::parse(&www).unwrap(), rtype, class: Class::IN };
    Asked { question, dnssec_ok, subnet: None, trust_ad: false }.check(message.into())
}

/// Which answer records are left, by their places; `Err` when nothing is accepted.
fn left(rtype: RecordType, dnssec_ok: bool, answers: &[Vec<u8>]) -> Result<Vec<usize>, ResponseFault> {
    let checked = check(rtype, dnssec_ok, response(rtype, answers, &[]))?;
    let response = ResponseRef::parse(&checked)?;
    let mut places = 0..answers.len();
    Ok(response
        .records(Section::Answer)
        .map(|kept| {
            let mut buffer = [0; 255];
            let owner = kept.owner.unpack_into(&mut buffer).unwrap().as_bytes().to_vec();
            let is_it = |place: &usize| {
                let (sent_owner, rest) = answers[*place].split_at(owner.len());
                sent_owner == owner && rest[..2] == kept.rtype.0.to_be_bytes() && rest.ends_with(kept.rdata)
            };
            places.find(is_it).expect("a record that was not sent, or out of order")
        })
        .collect())
}

/// One line of the table below: what it shows, type, DO, the answer records, the places of those that are left.
type Case<'a> = (&'a str, RecordType, bool, Vec<Vec<u8>>, Result<Vec<usize>, ResponseFault>);

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn answers_keep_what_follows_from_the_question() {
    const UNRELATED: ResponseFault = ResponseFault::Unrelated;
    let cases: Vec<Case<'_>> = vec![
        ("an address", RecordType::A, false, vec![a("www.example")], Ok(vec![0])),
        ("nothing at all (NODATA, NXDOMAIN)", RecordType::A, false, vec![], Ok(vec![])),
        ("letter case means nothing", RecordType::A, false, vec![a("WWW.eXample")], Ok(vec![0])),
        (
            "a chain",
            RecordType::A,
            false,
            vec![cname("www.example", "b.test"), cname("b.test", "c.test"), a("c.test")],
            Ok(vec![0, 1, 2]),
        ),
        (
            "a chain backwards",
            RecordType::A,
            false,
            vec![a("c.test"), cname("b.test", "c.test"), cname("www.example", "b.test")],
            Ok(vec![0, 1, 2]),
        ),
        ("a chain to nothing", RecordType::A, false, vec![cname("www.example", "b.test")], Ok(vec![0])),
        (
            "a circle",
            RecordType::A,
            false,
            vec![cname("www.example", "b.test"), cname("b.test", "www.example")],
            Ok(vec![0, 1]),
        ),
        ("an alias of itself", RecordType::A, false, vec![cname("www.example", "www.example")], Ok(vec![0])),
        (
            "a DNAME and what it makes",
            RecordType::A,
            false,
            vec![dname("example", "test"), cname("www.example", "www.test"), a("www.test")],
            Ok(vec![0, 1, 2]),
        ),
        (
            "a DNAME of the name itself makes nothing, but is its record",
            RecordType::DNAME,
            false,
            vec![dname("www.example", "test")],
            Ok(vec![0]),
        ),
        (
            "a DNAME elsewhere",
            RecordType::A,
            false,
            vec![dname("other", "test"), a("www.example")],
            Ok(vec![1]),
        ),
        (
            "a DNAME below the name",
            RecordType::A,
            false,
            vec![dname("x.www.example", "test"), a("www.example")],
            Ok(vec![1]),
        ),
        ("another name's address", RecordType::A, false, vec![a("www.example"), a("bank.test")], Ok(vec![0])),
        (
            "in between",
            RecordType::A,
            false,
            vec![cname("www.example", "b.test"), a("bank.test"), a("b.test")],
            Ok(vec![0, 2]),
        ),
        (
            "an alias of another name",
            RecordType::A,
            false,
            vec![a("www.example"), cname("bank.test", "evil.test")],
            Ok(vec![0]),
        ),
        ("a name above", RecordType::A, false, vec![a("www.example"), a("example")], Ok(vec![0])),
        ("a name below", RecordType::A, false, vec![a("www.example"), a("x.www.example")], Ok(vec![0])),
        ("only another name's address", RecordType::A, false, vec![a("bank.test")], Err(UNRELATED)),
        (
            "another type of the name",
            RecordType::A,
            false,
            vec![a("www.example"), record("www.example", RecordType::TXT, b"\x01x")],
            Ok(vec![0]),
        ),
        (
            "only another type of the name",
            RecordType::A,
            false,
            vec![record("www.example", RecordType::TXT, b"\x01x")],
            Err(UNRELATED),
        ),
        (
            "another class",
            RecordType::A,
            false,
            vec![record_of_class("www.example", RecordType::A, Class::CH, &[1, 2, 3, 4]), a("www.example")],
            Ok(vec![1]),
        ),
        (
            "signatures with DO",
            RecordType::A,
            true,
            vec![a("www.example"), rrsig("www.example", RecordType::A)],
            Ok(vec![0, 1]),
        ),
        (
            "signatures without DO",
            RecordType::A,
            false,
            vec![a("www.example"), rrsig("www.example", RecordType::A)],
            Ok(vec![0]),
        ),
        (
            "signatures that were asked for",
            RecordType::RRSIG,
            false,
            vec![rrsig("www.example", RecordType::A)],
            Ok(vec![0]),
        ),
        (
            "the signature of a DNAME",
            RecordType::A,
            true,
            vec![
                dname("example", "test"),
                rrsig("example", RecordType::DNAME),
                cname("www.example", "www.test"),
            ],
            Ok(vec![0, 1, 2]),
        ),
        (
            "another signature above the name",
            RecordType::A,
            true,
            vec![a("www.example"), rrsig("example", RecordType::A)],
            Ok(vec![0]),
        ),
        (
            "every type",
            RecordType::ANY,
            false,
            vec![a("www.example"), record("www.example", RecordType::TXT, b"\x01x"), a("bank.test")],
            Ok(vec![0, 1]),
        ),
        (
            "an unknown type",
            RecordType(65400),
            false,
            vec![record("www.example", RecordType(65400), b"\xc0\xff")],
            Ok(vec![0]),
        ),
        ("the root as target", RecordType::A, false, vec![cname("www.example", "."), a(".")], Ok(vec![0, 1])),
    ];
    for (what, rtype, dnssec_ok, answers, expected) in cases {
        assert_eq!(left(rtype, dnssec_ok, &answers), expected, "{what}");
    }
}

#[test]
fn authority_and_additional_sections_pass_the_check_as_they_are() {
    let message = response(RecordType::A, &[a("www.example"), a("bank.test")], &[soa("example")]);
    let checked = check(RecordType::A, false, message).unwrap();
    let response = ResponseRef::parse(&checked).unwrap();
    assert_eq!(response.records(Section::Authority).map(|r| r.rtype).collect::<Vec<_>>(), [RecordType::SOA]);
}

#[test]
fn messages_that_are_no_answer_break_the_rule_that_says_so() {
    let good = || response(RecordType::A, &[a("www.example")], &[]);
    let with = |at: usize, octet: u8| {
        let mut message = good();
        message[at] = octet;
        message
    };
    let mut longer = good();
    longer.push(0);
    let cases = [
        ("half a header", good()[..11].to_vec(), ResponseFault::Short),
        ("a query", with(2, 0x01), ResponseFault::NotResponse),
        ("a notification", with(2, 0xa1), ResponseFault::Opcode),
        ("truncated", with(2, 0x83), ResponseFault::Truncated),
        ("no question", with(5, 0), ResponseFault::QuestionCount),
        ("two questions", with(5, 2), ResponseFault::QuestionCount),
        ("another name", with(13, b'v'), ResponseFault::QuestionMismatch),
        ("another type", with(26, 28), ResponseFault::QuestionMismatch),
        ("another class", with(28, 3), ResponseFault::QuestionMismatch),
        ("a count too high", with(7, 2), ResponseFault::Record),
        ("a count too low", with(7, 0), ResponseFault::TrailingOctets),
        ("an octet too many", longer, ResponseFault::TrailingOctets),
    ];
    assert!(check(RecordType::A, false, good()).is_ok());
    for (what, message, fault) in cases {
        assert_eq!(check(RecordType::A, false, message), Err(fault), "{what}");
    }
}

#[test]
fn the_letter_case_of_the_question_may_differ() {
    let mut message = response(RecordType::A, &[a("www.example")], &[]);
    message[13] = b'W';
    assert!(check(RecordType::A, false, message).is_ok());
}

#[test]
fn a_chain_that_is_too_long_is_no_answer() {
    let link = |from: usize| cname(&format!("n{from}.test"), &format!("n{}.test", from + 1));
    let chain = |links: usize| {
        let mut answers = vec![cname("www.example", "n0.test")];
        answers.extend((0..links).map(link));
        answers
    };
    assert!(left(RecordType::A, false, &chain(MAX_CHAIN - 2)).is_ok());
    assert_eq!(left(RecordType::A, false, &chain(MAX_CHAIN - 1)), Err(ResponseFault::Unrelated));
}

#[test]
fn an_answer_of_65_535_octets_is_ordinary() {
    let mut answers = vec![cname("www.example", "a.test")];
    answers.extend(std::iter::repeat_n(a("a.test"), 2900));
    assert_eq!(left(RecordType::A, false, &answers).map(|left| left.len()), Ok(2901));
}

#[test]
fn a_message_built_to_cost_time_is_given_up() {
    // The class of CVE-2024-8508: a chain backwards, behind thousands of records whose long names differ from all of
    // the chain's only at their ends.
    let long = |end: &str| format!("{}{end}", "a.".repeat(120));
    let mut octets = response(RecordType::A, &[], &[]);
    let target = octets.len() + 16;
    octets.extend(record(".", RecordType::TXT, &[&[0; 5][..], &name(&long("x"))].concat()));
    let mut count: u16 = 1;
    while octets.len() < 60_000 {
        octets.extend([0xc0 | u8::try_from(target >> 8).unwrap(), u8::try_from(target & 0xff).unwrap()]);
        octets.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, 0]);
        count += 1;
    }
    for link in (0..8).rev() {
        octets.extend(cname(&long(&format!("{link}")), &long(&format!("{}", link + 1))));
        count += 1;
    }
    octets.extend(cname("www.example", &long("0")));
    octets[6..8].copy_from_slice(&(count + 1).to_be_bytes());
    assert!(ResponseRef::parse(&octets).is_ok());
    assert_eq!(check(RecordType::A, false, octets), Err(ResponseFault::Unrelated));
}

/// Good answers to start from: chains, DNSSEC, long names, unrelated records.
fn seeds() -> impl Strategy<Value = Vec<u8>> {
    let pool = vec![
        a("www.example"),
        a("b.test"),
        a("bank.test"),
        cname("www.example", "b.test"),
        cname("b.test", "www.example"),
        dname("example", "test"),
        rrsig("www.example", RecordType::A),
        record("www.example", RecordType::MX, &[&[0, 5][..], &[0xc0, 12]].concat()),
        record("www.example", RecordType::HTTPS, b"\x00\x01\x00\x00\x04\x00\x04\xc0\x00\x02\x01"),
    ];
    let records = || prop::collection::vec(prop::sample::select(pool.clone()), 0..5);
    let authorities = prop::collection::vec(
        prop::sample::select(vec![soa("example"), a("ns.example"), rrsig("example", RecordType::SOA)]),
        0..4,
    );
    (records(), authorities)
        .prop_map(|(answers, authorities)| response(RecordType::A, &answers, &authorities))
}

proptest! {
    #[test]
    fn whatever_a_server_sends_replies_stay_well_formed(
        seed in seeds(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
        (dnssec_ok, trust_ad, edns) in any::<(bool, bool, bool)>(),
        (age, limit) in (0_u32..100, 12_usize..1400),
    ) {
        let mut octets = seed;
        // The question stays, or nearly every message would end there.
        let body = 29;
        for (at, octet) in changes {
            let at = at.index(octets.len());
            if !(12..body).contains(&at) {
                octets[at] = octet;
            }
        }
        if let Some(cut) = cut {
            octets.truncate(cut.index(octets.len() + 1));
        }
        let www = name("www.example");
        let question = QuestionRef {
            name: crate::wire::name::NameRef::parse(&www).unwrap(),
            rtype: RecordType::A,
            class: Class::IN,
        };
        let asked = Asked { question, dnssec_ok, subnet: None, trust_ad };
        let Ok(checked) = asked.check(octets.into()) else { return Ok(()) };
        let response = ResponseRef::parse(&checked).unwrap();
        for record in response.records(Section::Answer) {
            prop_assert!(asked.may_hold(&record));
        }
        let again = asked.check(checked.clone()).unwrap();
        prop_assert_eq!(&again, &checked, "checked twice is checked once");

        let stored = asked.keep(&response);
        let query = UpstreamQuery {
            question,
            dnssec_ok,
            checking_disabled: false,
            subnet: SubnetOption::Absent,
            padding: false,
        }
        .build();
        let query = if edns { query.to_vec() } else {
            let mut plain = query[..body].to_vec();
            plain[11] = 0;
            plain
        };
        let query = QueryRef::parse(&query).unwrap();
        let mut out = vec![0xee; limit];
        let written = stored.render(&query, TtlRule::Aged { secs: age }, &ReplyOptions::default(), &mut out);
        prop_assert!(out[written..].iter().all(|octet| *octet == 0xee));
        if written > 0 {
            prop_assert_eq!(out[..2].to_vec(), query.bytes()[..2].to_vec());
            prop_assert_eq!(out[2] & 0x80, 0x80);
            let question = QuestionRef::parse(&out[12..written]).unwrap();
            prop_assert!(question.matches(&asked.question));
        }
    }
}
