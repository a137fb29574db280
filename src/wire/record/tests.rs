//! Records as people read them, and the data of types that hold names.

use super::super::edns::ReplyOptions;
use super::super::samples::{self, Asked, a, bytes, cname, ns, one_record, opaque, soa};
use super::super::stored::TtlRule;
use super::*;
use hickory_proto::op::Message;
use proptest::prelude::*;

fn rdata_of(rtype: u16, rdata: &[u8]) -> String {
    message_text(&one_record(rtype, rdata)).unwrap().answer.remove(0).rdata
}

#[test]
fn a_message_is_shown_section_by_section() {
    let mut message = samples::response("www.example.com.");
    message.add_answers([cname("www.example.com.", 300, "edge.example.net."), a("edge.example.net.", 60)]);
    message.add_authorities([soa("example.com.", 900, 120), ns("example.com.", 5, "ns.example.com.")]);
    message.add_additional(opaque("ns.example.com.", 7));
    message.edns = Some(hickory_proto::op::Edns::new());
    let text = message_text(&bytes(&message)).unwrap();
    let lines = |records: &[RecordText]| {
        let line = |r: &RecordText| format!("{} {} {} {} {}", r.owner, r.ttl, r.class, r.rtype, r.rdata);
        records.iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(
        lines(&text.answer),
        ["www.example.com. 300 IN CNAME edge.example.net.", "edge.example.net. 60 IN A 192.0.2.1"]
    );
    assert_eq!(
        lines(&text.authority),
        [
            "example.com. 900 IN SOA ns.example.com. admin.example.com. 7 3600 600 86400 120",
            "example.com. 5 IN NS ns.example.com."
        ]
    );
    assert_eq!(lines(&text.additional), ["ns.example.com. 7 IN TYPE65400 \\# 5 C00C010203"]);
}

#[test]
fn rdata_is_shown_as_in_a_zone_file() {
    let cases: [(&str, u16, &[u8], &str); 14] = [
        ("A", 1, &[192, 0, 2, 1], "192.0.2.1"),
        ("AAAA", 28, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "2001:db8::1"),
        ("MX", 15, &[0, 10, 1, b'm', 0xc0, 12], "10 m.a."),
        ("SRV", 33, &[0, 1, 0, 2, 0x1f, 0x90, 0xc0, 12], "1 2 8080 a."),
        ("RP", 17, b"\x01m\0\0", "m. ."),
        ("PTR of an IDN", 12, b"\x08xn--p1ai\0", "xn--p1ai."),
        ("TXT", 16, b"\x03a b\x00\x04\"\\\x1b\xe9", r#""a b" "" "\"\\\027\233""#),
        ("HINFO", 13, b"\x07RFC8482\0", r#""RFC8482" """#),
        ("CAA", 257, b"\0\x05issueca.example", r#"0 issue "ca.example""#),
        ("HTTPS", 65, &[0, 1, 0, 0, 1, 0, 3, 2, b'h', b'2'], "1 . alpn=h2"),
        (
            "SVCB",
            64,
            &[0, 1, 0, 0, 1, 0, 6, 2, b'h', b'2', 2, b'h', b'3', 0, 4, 0, 4, 192, 0, 2, 1],
            "1 . alpn=h2,h3 ipv4hint=192.0.2.1",
        ),
        ("NAPTR", 35, b"\0\x01\0\x02\x01s\x03SIP\0\xc0\x0c", r#"1 2 "s" "SIP" "" a."#),
        ("unknown", 65400, &[1, 0xab], "\\# 2 01AB"),
        ("empty", 65400, &[], "\\# 0"),
    ];
    for (case, rtype, rdata, expected) in cases {
        assert_eq!(rdata_of(rtype, rdata), expected, "{case}");
    }
}

#[test]
fn dnssec_rdata_is_shown_as_in_a_zone_file() {
    let signature =
        [&[0, 1, 13, 2, 0, 0, 14, 16, 0, 0, 0, 9, 0, 0, 0, 8, 0x30, 0x39][..], b"\x01a\0", &[1, 2, 3]]
            .concat();
    let nsec3 = [&[1, 0, 0, 10, 2, 0xab, 0xcd, 20][..], &[0x5a; 20], &[0, 1, 0x40, 1, 1, 0x40]].concat();
    let cases: [(&str, u16, &[u8], &str); 6] = [
        ("DS", 43, &[0x30, 0x39, 8, 2, 0xde, 0xad], "12345 8 2 DEAD"),
        ("DNSKEY", 48, &[1, 1, 3, 13, 1, 2, 3], "257 3 13 AQID"),
        ("RRSIG", 46, &signature, "A 13 2 3600 9 8 12345 a. AQID"),
        ("NSEC", 47, b"\x01b\0\0\x06\x40\x01\0\0\0\x03", "b. A MX RRSIG NSEC"),
        ("NSEC3", 50, &nsec3, "1 0 10 ABCD B9D5KMIQB9D5KMIQB9D5KMIQB9D5KMIQ A CAA"),
        ("NSEC with half a bit map", 47, &[0, 0, 3, 0x40], "\\# 4 00000340"),
    ];
    for (case, rtype, rdata, expected) in cases {
        assert_eq!(rdata_of(rtype, rdata), expected, "{case}");
    }
}

#[test]
fn malformed_rdata_is_shown_in_hexadecimal() {
    let cases: [(&str, u16, &[u8], &str); 8] = [
        ("A of 3 octets", 1, &[1, 2, 3], "\\# 3 010203"),
        ("CNAME pointing forwards", 5, &[0xc0, 0xff], "\\# 2 C0FF"),
        ("CNAME with more behind it", 5, &[0, 0, 0, 0, 0], "\\# 5 0000000000"),
        ("SOA with three numbers", 6, &[0; 14], "\\# 14 0000000000000000000000000000"),
        ("MX without name", 15, &[0, 1], "\\# 2 0001"),
        ("TXT that claims too much", 16, &[9, b'a'], "\\# 2 0961"),
        ("CAA with a control character", 257, b"\0\x05issue\x1b[2J", "\\# 11 000569737375651B5B324A"),
        ("HTTPS without target", 65, &[0, 1], "\\# 2 0001"),
    ];
    for (case, rtype, rdata, expected) in cases {
        assert_eq!(rdata_of(rtype, rdata), expected, "{case}");
    }
}

#[test]
fn octets_that_are_no_response_have_no_text() {
    assert_eq!(message_text(&[]), None);
    assert_eq!(message_text(Asked::a("a.").view().bytes()), None);
}

/// A question for tests.
fn ask(rtype: RecordType) -> QuestionRef<'static> {
    QuestionRef { name: NameRef::parse(b"\x04host\x04test\0").unwrap(), rtype, class: Class::IN }
}

fn shown(answer: &StoredAnswer) -> MessageText {
    message_text(answer.message()).unwrap()
}

#[test]
fn local_addresses_answer_for_their_own_type() {
    let data = [
        LocalData::Address("127.0.0.1".parse().unwrap()),
        LocalData::Address("::1".parse().unwrap()),
        LocalData::Address("127.0.0.2".parse().unwrap()),
    ];
    let rdata = |rtype| {
        let answer = local_answer(&ask(rtype), &data, Ttl(60));
        assert_eq!(answer.rcode(), Rcode::NOERROR);
        shown(&answer).answer.into_iter().map(|record| record.rdata).collect::<Vec<_>>()
    };
    assert_eq!(rdata(RecordType::A), ["127.0.0.1", "127.0.0.2"]);
    assert_eq!(rdata(RecordType::AAAA), ["::1"]);
    assert_eq!(rdata(RecordType::MX), [""; 0]);
    assert_eq!(rdata(RecordType::ANY).len(), 3);
}

#[test]
fn local_answers_of_other_kinds_carry_their_type_and_ttl() {
    let name = LocalData::Ptr("localhost".parse().unwrap());
    let cases = [
        (RecordType::PTR, name, "PTR localhost."),
        (RecordType::ANY, LocalData::Hinfo, "HINFO \"RFC8482\" \"\""),
        (RecordType::TXT, LocalData::Raw(b"\x02hi".to_vec()), "TXT \"hi\""),
    ];
    for (rtype, datum, expected) in cases {
        let answer = local_answer(&ask(rtype), &[datum], Ttl(77));
        let record = shown(&answer).answer.remove(0);
        assert_eq!(format!("{} {}", record.rtype, record.rdata), expected);
        assert_eq!((record.owner.as_str(), record.ttl), ("host.test.", 77));
        assert_eq!(answer.min_ttl(), Some(Ttl(77)));
    }
}

#[test]
fn a_local_negative_has_an_soa_with_its_ttl() {
    let zone = NameRef::parse(b"\x04test\0").unwrap();
    for rcode in [Rcode::NXDOMAIN, Rcode::NOERROR] {
        let answer = local_negative(&ask(RecordType::A), rcode, zone, Ttl(300));
        assert_eq!(answer.rcode(), rcode);
        let text = shown(&answer);
        assert!(text.answer.is_empty());
        let [soa] = text.authority.as_slice() else { panic!("{text:?}") };
        assert_eq!((soa.owner.as_str(), soa.ttl), ("test.", 300));
        assert_eq!(soa.rdata, "test. nobody.invalid. 1 3600 1200 604800 300");
        assert!(Message::from_vec(answer.message()).is_ok());
    }
}

#[test]
fn a_local_answer_is_rendered_like_any_other() {
    let asked = Asked::a_with_edns("HOST.test.");
    let data = [LocalData::Address("192.0.2.7".parse().unwrap())];
    let answer = local_answer(&asked.view().question(), &data, Ttl(5));
    let mut out = [0; 512];
    let len = answer.render(&asked.view(), TtlRule::Keep, &ReplyOptions::default(), &mut out);
    let reply = Message::from_vec(&out[..len]).unwrap();
    assert_eq!(reply.queries[0].name().to_string(), "HOST.test.");
    assert_eq!(reply.answers[0].data.to_string(), "192.0.2.7");
    assert!(reply.edns.is_some());
}

#[test]
fn local_data_too_long_for_a_message_become_servfail() {
    for data in [vec![LocalData::Raw(vec![0; 65_536])], vec![LocalData::Raw(vec![0; 40_000]); 2]] {
        let answer = local_answer(&ask(RecordType::TXT), &data, Ttl(5));
        assert_eq!((answer.rcode(), answer.min_ttl()), (Rcode::SERVFAIL, None));
    }
}

proptest! {
    #[test]
    fn text_is_printable_whatever_the_rdata(
        rtype in prop_oneof![0_u16..70, any::<u16>()],
        rdata in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        if let Some(text) = message_text(&one_record(rtype, &rdata)) {
            for record in text.answer {
                prop_assert!(is_printable(&record.rdata), "{:?}", record);
                prop_assert!(is_printable(&record.owner), "{:?}", record);
            }
        }
    }

    #[test]
    fn every_record_of_a_message_is_shown(message in samples::responses()) {
        let text = message_text(&bytes(&message)).unwrap();
        prop_assert_eq!(text.answer.len(), message.answers.len());
        prop_assert_eq!(text.authority.len(), message.authorities.len());
        prop_assert_eq!(text.additional.len(), message.additionals.len());
    }
}
