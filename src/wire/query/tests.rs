//! Which queries of clients are taken, and what ours look like.

use super::*;
use crate::wire::name::{Name, NameRef};
use proptest::prelude::*;

/// ID 0x1234, RD, one question for www.Example. A, and what follows.
fn query(counts: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let [questions, answers, authorities, additionals] = counts;
    let mut message = vec![0x12, 0x34, 1, 0, 0, questions, 0, answers, 0, authorities, 0, additionals];
    message.extend_from_slice(b"\x03www\x07Example\x00\x00\x01\x00\x01");
    message.extend_from_slice(rest);
    message
}

/// An OPT record with payload size 4096 and DO.
const OPT: &[u8] = b"\x00\x00\x29\x10\x00\x00\x00\x80\x00\x00\x00";
/// A TSIG record in outline, its owner a pointer to the question's name.
const TSIG: &[u8] = b"\xc0\x0c\x00\xfa\x00\xff\x00\x00\x00\x00\x00\x02xy";

fn fault(message: &[u8]) -> QueryFault {
    QueryRef::parse(message).unwrap_err()
}

#[test]
fn a_plain_query_is_taken() {
    let message = query([1, 0, 0, 0], b"");
    let query = QueryRef::parse(&message).unwrap();
    assert_eq!(query.id(), 0x1234);
    assert_eq!(query.question().name.to_string(), "www.Example.");
    assert_eq!(query.question_bytes(), &message[HEADER_LEN..]);
    assert!(query.edns().is_none() && !query.dnssec_ok());
    assert_eq!(query.reply_limit(ClientTransport::Udp), 512);
    assert_eq!(query.reply_limit(ClientTransport::Tcp), 65_535);
}

#[test]
fn edns_is_found_among_other_records() {
    for rest in [[OPT, TSIG].concat(), [TSIG, OPT].concat()] {
        let message = query([1, 0, 0, 2], &rest);
        let query = QueryRef::parse(&message).unwrap();
        assert!(query.dnssec_ok());
        assert_eq!(query.edns().unwrap().udp_payload, 4096);
    }
}

#[test]
fn the_reply_limit_stays_within_what_is_safe_on_any_network() {
    for (payload, limit) in [(0_u16, 512), (511, 512), (800, 800), (1232, 1232), (4096, 1232)] {
        let mut opt = OPT.to_vec();
        opt[3..5].copy_from_slice(&payload.to_be_bytes());
        let message = query([1, 0, 0, 1], &opt);
        assert_eq!(QueryRef::parse(&message).unwrap().reply_limit(ClientTransport::Udp), limit);
    }
}

#[test]
fn what_cannot_be_answered_is_dropped() {
    assert_eq!(fault(&[0; 11]), QueryFault::Drop);
    let mut response = query([1, 0, 0, 0], b"");
    response[2] |= 0x80;
    assert_eq!(fault(&response), QueryFault::Drop);
}

#[test]
fn other_opcodes_are_not_implemented() {
    let mut notify = query([1, 0, 0, 0], b"");
    notify[2] = 4 << 3;
    assert_eq!(fault(&notify), QueryFault::Reject(Rcode::NOTIMP));
}

#[test]
fn malformed_queries_are_refused() {
    let mut compressed = query([1, 0, 0, 0], b"");
    compressed.truncate(HEADER_LEN);
    compressed.extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01");
    let mut of_type_opt = query([1, 0, 0, 0], b"");
    of_type_opt[26] = 41;
    let mut of_class_zero = query([1, 0, 0, 0], b"");
    of_class_zero[28] = 0;
    let below_root = [b"\x01x", OPT].concat();
    let bad_options = b"\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x03\x00\x08\x00";
    let cases = [
        ("no question", query([0, 0, 0, 0], b"")),
        ("two questions", query([2, 0, 0, 0], b"\x00\x00\x01\x00\x01")),
        ("an answer", query([1, 1, 0, 0], TSIG)),
        ("an authority record", query([1, 0, 1, 0], TSIG)),
        ("octets behind the question", query([1, 0, 0, 0], b"x")),
        ("octets behind the last record", query([1, 0, 0, 1], &[OPT, b"x"].concat())),
        ("a record that is not there", query([1, 0, 0, 1], b"")),
        ("half a record", query([1, 0, 0, 1], &OPT[..OPT.len() - 1])),
        ("two OPT records", query([1, 0, 0, 2], &[OPT, OPT].concat())),
        ("OPT below the root", query([1, 0, 0, 1], &below_root)),
        ("options that do not add up", query([1, 0, 0, 1], bad_options)),
        ("seventeen records", query([1, 0, 0, 17], &TSIG.repeat(17))),
        ("a reserved label type", query([1, 0, 0, 1], b"\x41x")),
        ("a question name that is a pointer", compressed),
        ("type OPT", of_type_opt),
        ("class 0", of_class_zero),
    ];
    for (what, message) in cases {
        assert_eq!(fault(&message), MALFORMED, "{what}");
    }
}

#[test]
fn sixteen_records_are_walked() {
    assert!(QueryRef::parse(&query([1, 0, 0, 16], &TSIG.repeat(16))).is_ok());
}

#[test]
fn an_ixfr_may_hold_the_clients_soa_but_no_opt_in_its_place() {
    let mut message = query([1, 0, 1, 1], &[TSIG, OPT].concat());
    message[26] = 251;
    assert!(QueryRef::parse(&message).unwrap().edns().is_some());
    let mut message = query([1, 0, 1, 1], &[OPT, TSIG].concat());
    message[26] = 251;
    assert_eq!(fault(&message), MALFORMED);
}

#[test]
fn a_later_edns_version_is_refused_whatever_its_options_look_like() {
    let opt = b"\x00\x00\x29\x10\x00\x00\x01\x00\x00\x00\x03\x00\x08\x00";
    assert_eq!(fault(&query([1, 0, 0, 1], opt)), QueryFault::Reject(Rcode::BADVERS));
}

/// An upstream query for a name, without padding and DNSSEC.
fn upstream<'a>(name: NameRef<'a>, subnet: SubnetOption<'a>, padding: bool) -> UpstreamQuery<'a> {
    let question = QuestionRef { name, rtype: RecordType::A, class: Class::IN };
    UpstreamQuery { question, dnssec_ok: false, checking_disabled: false, subnet, padding }
}

#[test]
fn our_query_is_the_same_octets_every_time() {
    let name = NameRef::parse(b"\x03wWw\x00").unwrap();
    let mut query = upstream(name, SubnetOption::OptOut, false);
    query.dnssec_ok = true;
    query.checking_disabled = true;
    assert_eq!(
        query.build(),
        b"\x00\x00\x01\x30\x00\x01\x00\x00\x00\x00\x00\x01\x03wWw\x00\x00\x01\x00\x01\
          \x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x08\x00\x08\x00\x04\x00\x01\x00\x00"
            .as_slice()
    );
}

#[test]
fn padding_fills_up_to_128_octets_and_is_zero() {
    let name: Name = "www.example".parse().unwrap();
    let message = upstream(name.view(), SubnetOption::Absent, true).build();
    assert_eq!(message.len(), 128);
    let padding = QueryRef::parse(&message).unwrap().edns().unwrap().option(edns::OPTION_PADDING);
    assert!(padding.unwrap().iter().all(|&octet| octet == 0));
}

#[test]
fn a_subnet_longer_than_an_address_is_left_out() {
    let message = upstream(NameRef::ROOT, SubnetOption::Content(&[0; 21]), false).build();
    assert_eq!(QueryRef::parse(&message).unwrap().edns().unwrap().options().count(), 0);
}

proptest! {
    #[test]
    fn no_octets_panic_the_parser(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = QueryRef::parse(&bytes);
    }

    #[test]
    fn no_change_to_a_good_query_panics_the_parser(
        at in 0_usize..60, value in any::<u8>(), cut in 0_usize..80
    ) {
        let mut message = query([1, 0, 0, 2], &[OPT, TSIG].concat());
        if let Some(octet) = message.get_mut(at) {
            *octet = value;
        }
        message.truncate(cut);
        let _ = QueryRef::parse(&message);
    }

    #[test]
    fn our_query_reads_back_as_it_was_asked(
        labels in prop::collection::vec("[a-zA-Z0-9]{1,50}", 0..4),
        rtype in (0_u16..).prop_filter("type OPT is never asked for", |rtype| *rtype != 41),
        dnssec_ok in any::<bool>(),
        checking_disabled in any::<bool>(),
        subnet in prop::option::of(prop::collection::vec(any::<u8>(), 0..=20)),
        padding in any::<bool>(),
    ) {
        let wire: Vec<u8> = labels
            .iter()
            .flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat())
            .chain([0])
            .collect();
        let name = NameRef::parse(&wire).unwrap();
        let question = QuestionRef { name, rtype: RecordType(rtype), class: Class::IN };
        let option = subnet.as_deref().map_or(SubnetOption::OptOut, SubnetOption::Content);
        let message =
            UpstreamQuery { question, dnssec_ok, checking_disabled, subnet: option, padding }.build();
        let query = QueryRef::parse(&message).unwrap();
        prop_assert_eq!(query.id(), 0);
        prop_assert_eq!(query.question().name.as_bytes(), name.as_bytes());
        prop_assert!(query.question().matches(&question));
        prop_assert!(query.header().recursion_desired() && query.header().authentic_data());
        prop_assert_eq!(query.header().checking_disabled(), checking_disabled);
        prop_assert_eq!(query.dnssec_ok(), dnssec_ok);
        let edns = query.edns().unwrap();
        prop_assert_eq!(edns.udp_payload, 1232);
        prop_assert_eq!(edns.option(edns::OPTION_ECS), option.content());
        prop_assert_eq!(edns.option(edns::OPTION_PADDING).is_some(), padding);
        prop_assert!(!padding || message.len().is_multiple_of(PADDING_BLOCK));
    }
}
