//! What is kept of a response, and what is rendered of it: equal to decoding, changing and encoding again.

use super::super::ede::Ede;
use super::super::edns::OPT_FIXED_LEN;
use super::super::samples::{self, Asked, a, bytes, cname, ns, opaque, soa};
use super::*;
use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use proptest::prelude::*;

const ALL: Keep = Keep { authority: true, authentic_data: true };
const SOA_ONLY: Keep = Keep { authority: false, authentic_data: false };

fn stored(message: &Message, keep: Keep) -> StoredAnswer {
    StoredAnswer::from_response(&ResponseRef::parse(&bytes(message)).unwrap(), keep)
}

fn render_into(answer: &StoredAnswer, asked: &Asked, ttl: TtlRule, limit: usize) -> Vec<u8> {
    let mut out = vec![0xee; limit];
    let len = answer.render(&asked.view(), ttl, &ReplyOptions::default(), &mut out);
    assert!(out[len..].iter().all(|octet| *octet == 0xee), "octets after the reply were written");
    out.truncate(len);
    out
}

fn render(answer: &StoredAnswer, asked: &Asked, ttl: TtlRule) -> Message {
    Message::from_vec(&render_into(answer, asked, ttl, 65_535)).unwrap()
}

/// The EDE code and text of a reply.
fn ede(reply: &Message) -> Option<(u8, Vec<u8>)> {
    let option = reply.edns.as_ref()?.option(EdnsCode::Unknown(15))?;
    let EdnsOption::Unknown(_, octets) = option else { return None };
    Some((octets[1], octets[2..].to_vec()))
}

fn chain() -> Message {
    let mut message = samples::response("www.example.com.");
    message.metadata.authoritative = true;
    message.add_answer(cname("www.example.com.", 300, "edge.example.net."));
    message.add_answer(a("edge.example.net.", 60));
    message
}

#[test]
fn one_address_costs_less_than_a_hundred_octets() {
    let mut message = samples::response("a-name-of-35-octets-on.the.wire.org.");
    message.add_answer(a("a-name-of-35-octets-on.the.wire.org.", 60));
    let answer = stored(&message, SOA_ONLY);
    assert_eq!(answer.message().len(), 12 + 37 + 4 + 16);
    assert_eq!(answer.heap_len(), (16 + 7 + 2 + 69_usize).next_multiple_of(8));
    assert!(answer.heap_len() <= 100, "{}", answer.heap_len());
}

#[test]
fn what_is_stored_has_id_0_rd_ra_and_no_additional_section() {
    let mut message = chain();
    message.add_additional(a("ns.example.com.", 5));
    message.edns = Some(Edns::new());
    message.metadata.truncation = true;
    message.metadata.recursion_desired = false;
    message.metadata.authentic_data = true;
    let answer = stored(&message, SOA_ONLY);
    assert_eq!(answer.message()[..12], [0, 0, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0]);
    assert_eq!(stored(&message, ALL).message()[3], 0xa0);
    let kept = Message::from_vec(answer.message()).unwrap();
    assert_eq!(kept.answers.len(), 2);
    assert!(kept.additionals.is_empty() && kept.edns.is_none());
    assert_eq!(answer.question().name.to_string(), "www.example.com.");
    assert_eq!(answer.rcode(), Rcode::NOERROR);
    assert_eq!(answer.min_ttl(), Some(Ttl(60)));
    assert_eq!(answer.ede_code(), None);
}

#[test]
fn an_answer_that_fills_a_message_to_its_last_octet_arrives_without_an_opt_record() {
    for (len, with_opt) in [(65_524, true), (65_525, false), (65_535, false)] {
        let mut octets = bytes(&samples::response("www.example.com."));
        let rdata_len = len - octets.len() - 12;
        octets[7] = 1;
        octets.extend([0xc0, 12, 0xff, 0, 0, 1, 0, 0, 1, 0]);
        octets.extend(u16::try_from(rdata_len).unwrap().to_be_bytes());
        octets.resize(len, 7);
        let answer = StoredAnswer::from_response(&ResponseRef::parse(&octets).unwrap(), ALL);
        let asked = Asked::a_with_edns("www.example.com.");
        let reply = render_into(&answer, &asked, TtlRule::Keep, MAX_MESSAGE);
        assert_eq!(reply.len(), if with_opt { len + OPT_FIXED_LEN } else { len });
        assert_eq!((reply[2] & FLAG_TC, reply[11]), (0, u8::from(with_opt)), "{len}");
        // Over UDP it is cut, and says so with the OPT record that every reply has.
        let cut = render_into(&answer, &asked, TtlRule::Keep, 1232);
        assert_eq!((cut[2] & FLAG_TC, cut[11]), (FLAG_TC, 1), "{len}");
    }
}

#[test]
fn without_authority_only_soa_records_stay() {
    let cases = [
        ("behind the SOA", vec![soa("com.", 9, 9), ns("com.", 9, "a.com."), opaque("b.com.", 9)], 1),
        ("before the SOA", vec![opaque("b.com.", 9), ns("com.", 9, "a.com."), soa("com.", 9, 9)], 1),
        ("around the SOA", vec![opaque("b.com.", 9), soa("com.", 9, 9), ns("com.", 9, "a.com.")], 1),
        ("no SOA", vec![ns("com.", 9, "a.com."), opaque("b.com.", 9)], 0),
        ("nothing", vec![], 0),
    ];
    for (case, authorities, left) in cases {
        let mut message = chain();
        message.metadata.response_code = ResponseCode::NXDomain;
        let all = authorities.len();
        message.add_authorities(authorities);
        let kept = Message::from_vec(stored(&message, SOA_ONLY).message()).unwrap();
        assert_eq!(kept.authorities.len(), left, "{case}");
        assert!(kept.authorities.iter().all(|record| *record == soa("com.", 9, 9)), "{case}");
        assert_eq!(kept.answers, message.answers, "{case}");
        assert_eq!(kept.metadata.response_code, ResponseCode::NXDomain, "{case}");
        let kept = Message::from_vec(stored(&message, ALL).message()).unwrap();
        assert_eq!(kept.authorities.len(), all, "{case}");
    }
}

#[test]
fn a_rebuilt_answer_keeps_the_code_of_the_dropped_opt_record() {
    let mut message = samples::response("a.com.");
    message.add_authorities([opaque("b.com.", 9), soa("com.", 9, 9)]);
    let mut edns = Edns::new();
    edns.options_mut().insert(EdnsOption::Unknown(15, vec![0, 9]));
    message.edns = Some(edns);
    let answer = stored(&message, SOA_ONLY);
    assert_eq!(answer.ede_code(), Some(EdeCode(9)));
    assert_eq!(ede(&render(&answer, &Asked::a_with_edns("a.com."), TtlRule::Keep)), Some((9, vec![])));
}

#[test]
fn a_reply_carries_the_client_s_id_letters_and_bits() {
    let mut message = chain();
    message.metadata.authentic_data = true;
    let answer = stored(&message, ALL);
    let asked = Asked::a("wWw.eXample.com.");
    let reply = render_into(&answer, &asked, TtlRule::Keep, 512);
    assert_eq!(reply[..12], [0x47, 0x11, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0]);
    assert_eq!(&reply[12..29], b"\x03wWw\x07eXample\x03com\0");
    assert_eq!(reply[29..], answer.message()[29..]);
    // CD is the query's; AD is told to those who asked with AD or DO (RFC 6840 §5.7).
    let cd = render_into(&answer, &asked.clone().with_flags(0, 0x10), TtlRule::Keep, 512);
    assert_eq!(cd[2..4], [0x81, 0x90]);
    let ad = render_into(&answer, &asked.with_flags(0, 0x20), TtlRule::Keep, 512);
    assert_eq!(ad[2..4], [0x81, 0xa0]);
    let with_do = Asked::new(1, &message.queries[0], Some(true));
    assert!(render(&answer, &with_do, TtlRule::Keep).metadata.authentic_data);
    let never_stored = stored(&message, SOA_ONLY);
    assert!(!render(&never_stored, &with_do, TtlRule::Keep).metadata.authentic_data);
}

#[test]
fn a_query_without_rd_gets_none_back() {
    let mut query = Asked::a("www.example.com.").view().bytes().to_vec();
    query[2] = 0;
    let mut out = [0; 512];
    stored(&chain(), ALL).render(
        &QueryRef::parse(&query).unwrap(),
        TtlRule::Keep,
        &ReplyOptions::default(),
        &mut out,
    );
    assert_eq!(out[2], 0x80);
}

#[test]
fn ttls_age_down_to_zero_or_are_fixed() {
    let answer = stored(&chain(), ALL);
    let asked = Asked::a("www.example.com.");
    let ttls = |rule| render(&answer, &asked, rule).answers.iter().map(|r| r.ttl).collect::<Vec<_>>();
    assert_eq!(ttls(TtlRule::Keep), [300, 60]);
    assert_eq!(ttls(TtlRule::Aged { secs: 0 }), [300, 60]);
    assert_eq!(ttls(TtlRule::Aged { secs: 60 }), [240, 0]);
    assert_eq!(ttls(TtlRule::Aged { secs: u32::MAX }), [0, 0]);
    assert_eq!(ttls(TtlRule::Fixed { secs: 30 }), [30, 30]);
}

#[test]
fn ttls_are_clamped_both_ways_into_a_new_answer() {
    let answer = stored(&chain(), ALL);
    let ttls = |answer: &StoredAnswer| {
        Message::from_vec(answer.message()).unwrap().answers.iter().map(|r| r.ttl).collect::<Vec<_>>()
    };
    assert_eq!(ttls(&answer.clamp_ttls(Ttl(0), Ttl(100))), [100, 60]);
    assert_eq!(ttls(&answer.clamp_ttls(Ttl(100), Ttl(200))), [200, 100]);
    assert_eq!(ttls(&answer), [300, 60]);
    assert!(Arc::ptr_eq(&answer.0, &answer.clamp_ttls(Ttl(60), Ttl(300)).0));
}

#[test]
fn an_opt_record_comes_back_only_to_those_who_sent_one() {
    let answer = stored(&chain(), ALL);
    assert!(render(&answer, &Asked::a("www.example.com."), TtlRule::Keep).edns.is_none());
    let question = &chain().queries[0];
    for dnssec_ok in [false, true] {
        let reply = render(&answer, &Asked::new(1, question, Some(dnssec_ok)), TtlRule::Keep);
        let edns = reply.edns.unwrap();
        assert_eq!(edns.max_payload(), 1232);
        assert_eq!(edns.flags().dnssec_ok, dnssec_ok);
        assert!(edns.options().options.is_empty());
    }
}

#[test]
fn the_caller_s_ede_goes_before_the_stored_one() {
    let question = &chain().queries[0];
    let asked = Asked::new(1, question, Some(false));
    let view = asked.view();
    let answer = StoredAnswer::failure(&view.question(), Rcode::SERVFAIL, Some(EdeCode(22)));
    let mut out = [0; 512];
    let given = Ede::new(EdeCode::CACHED_ERROR, "again");
    let given = ReplyOptions::default().because(&given);
    let len = answer.render(&view, TtlRule::Keep, &given, &mut out);
    assert_eq!(ede(&Message::from_vec(&out[..len]).unwrap()), Some((13, b"again".to_vec())));
    let len = answer.render(&view, TtlRule::Keep, &ReplyOptions::default(), &mut out);
    assert_eq!(ede(&Message::from_vec(&out[..len]).unwrap()), Some((22, vec![])));
    // An EDE that does not fit is left out, and the data stay (RFC 8914 §3).
    let len = answer.render(&view, TtlRule::Keep, &given, &mut out[..12 + 21 + 11]);
    let reply = Message::from_vec(&out[..len]).unwrap();
    assert_eq!((ede(&reply), reply.metadata.truncation), (None, false));
}

#[test]
fn a_reply_too_long_is_cut_to_its_question_with_tc() {
    let mut message = chain();
    message.add_authority(soa("example.com.", 1, 1));
    let answer = stored(&message, ALL);
    for asked in [Asked::a("www.example.com."), Asked::a_with_edns("www.example.com.")] {
        let whole = render_into(&answer, &asked, TtlRule::Keep, 512);
        assert_eq!(render_into(&answer, &asked, TtlRule::Keep, whole.len()), whole);
        let cut = render_into(&answer, &asked, TtlRule::Keep, whole.len() - 1);
        let reply = Message::from_vec(&cut).unwrap();
        assert!(reply.metadata.truncation);
        assert_eq!(reply.queries, message.queries);
        assert!(reply.answers.is_empty() && reply.authorities.is_empty());
        assert_eq!(reply.edns.is_some(), asked.view().edns().is_some());
        assert_eq!(cut.len(), render_into(&answer, &asked, TtlRule::Keep, cut.len()).len());
        assert_eq!(render_into(&answer, &asked, TtlRule::Keep, cut.len() - 1), [0u8; 0]);
    }
}

#[test]
fn a_client_s_network_goes_back_with_the_server_s_scope_and_has_to_fit() {
    let mut message = chain();
    let mut edns = Edns::new();
    edns.options_mut().insert(EdnsOption::Unknown(8, vec![0, 1, 24, 20, 203, 0, 113]));
    message.edns = Some(edns);
    let answer = stored(&message, ALL);
    let subnet = b"\x00\x01\x18\x00\xcb\x00\x71".as_slice();
    let options = ReplyOptions { subnet: Some(subnet), ..ReplyOptions::default() };
    let asked = Asked::a_with_edns("www.example.com.");
    let mut out = [0; 512];
    let whole = answer.render(&asked.view(), TtlRule::Keep, &options, &mut out);
    assert_eq!(whole, answer.message().len() + OPT_FIXED_LEN + 4 + subnet.len());
    let back = |out: &[u8]| ResponseRef::parse(out).unwrap().edns().unwrap().option(8).unwrap().to_vec();
    assert_eq!(back(&out[..whole]), b"\x00\x01\x18\x14\xcb\x00\x71");
    let cut = answer.render(&asked.view(), TtlRule::Keep, &options, &mut out[..whole - 1]);
    assert!(ResponseRef::parse(&out[..cut]).unwrap().header().is_truncated());
    assert_eq!(back(&out[..cut]), b"\x00\x01\x18\x14\xcb\x00\x71");
    let unasked = answer.render(&asked.view(), TtlRule::Keep, &ReplyOptions::default(), &mut out);
    assert!(ResponseRef::parse(&out[..unasked]).unwrap().ecs_scope().is_none());
}

#[test]
fn a_question_of_another_length_gets_nothing() {
    let answer = stored(&chain(), ALL);
    for qname in ["ww.example.com.", "wwww.example.com.", "."] {
        assert_eq!(render_into(&answer, &Asked::a(qname), TtlRule::Keep, 512), [0u8; 0]);
    }
}

#[test]
fn a_failure_has_question_rcode_and_reason() {
    let asked = Asked::a_with_edns("www.example.com.");
    let answer = StoredAnswer::failure(&asked.view().question(), Rcode::SERVFAIL, Some(EdeCode(22)));
    assert!(answer.question().matches(&asked.view().question()));
    assert_eq!((answer.rcode(), answer.ede_code()), (Rcode::SERVFAIL, Some(EdeCode(22))));
    assert_eq!(answer.min_ttl(), None);
    assert_eq!(answer.message()[..12], [0, 0, 0x81, 0x82, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert!(ResponseRef::parse(answer.message()).is_ok());
    let shown = format!("{answer:?}");
    assert!(shown.contains("www.example.com. A") && shown.contains("SERVFAIL"), "{shown}");
}

#[test]
fn upper_bits_of_the_rcode_go_to_the_opt_record_or_become_servfail() {
    let asked = Asked::a_with_edns("a.");
    let answer = StoredAnswer::failure(&asked.view().question(), Rcode::BADVERS, None);
    assert_eq!(answer.rcode(), Rcode::BADVERS);
    let reply = render_into(&answer, &asked, TtlRule::Keep, 512);
    assert_eq!(ResponseRef::parse(&reply).unwrap().rcode(), Rcode::BADVERS);
    let reply = render_into(&answer, &Asked::a("a."), TtlRule::Keep, 512);
    assert_eq!(ResponseRef::parse(&reply).unwrap().rcode(), Rcode::SERVFAIL);
}

/// What `render` has to be equal to: the response decoded, changed and written by another encoder.
fn slow_path(response: &Message, keep: Keep, asked: &Asked, rule: TtlRule) -> Message {
    let query = asked.view();
    let mut reply = response.clone();
    reply.metadata.id = query.id();
    reply.metadata.authoritative = false;
    reply.metadata.recursion_available = true;
    reply.metadata.recursion_desired = query.header().recursion_desired();
    reply.metadata.checking_disabled = query.header().checking_disabled();
    let wants_ad = query.header().authentic_data() || query.dnssec_ok();
    reply.metadata.authentic_data &= keep.authentic_data && wants_ad;
    reply.additionals.clear();
    if !keep.authority {
        reply.authorities.retain(|record| record.record_type() == hickory_proto::rr::RecordType::SOA);
    }
    for record in reply.answers.iter_mut().chain(&mut reply.authorities) {
        let ttl = if record.ttl >> 31 == 1 { 0 } else { record.ttl };
        record.ttl = match rule {
            TtlRule::Keep => ttl,
            TtlRule::Aged { secs } => ttl.saturating_sub(secs),
            TtlRule::Fixed { secs } => secs,
        };
    }
    let stored_ede = response.edns.as_ref().and_then(|edns| edns.option(EdnsCode::Unknown(15)));
    reply.edns = query.edns().map(|_| {
        let mut edns = Edns::new();
        edns.set_max_payload(1232).set_dnssec_ok(query.dnssec_ok());
        if let Some(EdnsOption::Unknown(_, octets)) = stored_ede {
            edns.options_mut().insert(EdnsOption::Unknown(15, octets[..2].to_vec()));
        }
        edns
    });
    reply
}

fn rules() -> impl Strategy<Value = TtlRule> {
    prop_oneof![
        Just(TtlRule::Keep),
        any::<u32>().prop_map(|secs| TtlRule::Aged { secs }),
        (0_u32..100_000).prop_map(|secs| TtlRule::Aged { secs }),
        any::<u32>().prop_map(|secs| TtlRule::Fixed { secs }),
    ]
}

proptest! {
    #[test]
    fn rendering_equals_decode_change_encode(
        message in samples::responses(),
        (authority, authentic_data) in any::<(bool, bool)>(),
        id in any::<u16>(),
        (ad, cd) in any::<(bool, bool)>(),
        dnssec_ok in prop::option::of(any::<bool>()),
        rule in rules(),
    ) {
        let keep = Keep { authority, authentic_data };
        let flags = flag(FLAG_AD, ad) | flag(FLAG_CD, cd);
        let asked = Asked::new(id, &message.queries[0], dnssec_ok).with_flags(0, flags);
        let fast = render(&stored(&message, keep), &asked, rule);
        let slow = slow_path(&message, keep, &asked, rule);
        // Records compare without their TTLs, octets with them.
        prop_assert_eq!(&fast, &slow);
        prop_assert_eq!(bytes(&fast), bytes(&slow));
    }

    #[test]
    fn no_ttl_ever_grows(message in samples::responses(), secs in any::<u32>()) {
        let answer = stored(&message, ALL);
        let asked = Asked::new(1, &message.queries[0], None);
        let reply = render(&answer, &asked, TtlRule::Aged { secs });
        for (new, old) in reply.answers.iter().zip(&message.answers) {
            prop_assert!(new.ttl <= old.ttl);
        }
    }

    #[test]
    fn what_is_stored_can_be_read_again(message in samples::responses(), authority: bool) {
        let answer = stored(&message, Keep { authority, authentic_data: true });
        let again = ResponseRef::parse(answer.message()).unwrap();
        prop_assert!(again.question().matches(&answer.question()));
        let ttls = || Section::ALL.into_iter().flat_map(|section| again.records(section)).map(|r| r.ttl);
        prop_assert_eq!(ttls().min(), answer.min_ttl());
        prop_assert_eq!(ttls().count(), answer.parts().ttl_offsets.len());
        let twice = StoredAnswer::from_response(&again, ALL);
        prop_assert_eq!(twice.message(), answer.message());
    }

    #[test]
    fn no_octets_of_a_server_make_storing_or_rendering_panic(
        counts in [0_u8..4, 0..4, 0..4],
        tail in prop::collection::vec(prop_oneof![Just(0), Just(0xc0), 0_u8..30, any::<u8>()], 0..120),
        rule in rules(),
        (authority, limit) in (any::<bool>(), 0_usize..200),
    ) {
        let [answers, authorities, additionals] = counts;
        let mut octets = vec![0, 0, 0x80, 0, 0, 1, 0, answers, 0, authorities, 0, additionals];
        octets.extend_from_slice(&[1, b'a', 0, 0, 1, 0, 1]);
        octets.extend_from_slice(&tail);
        if let Ok(response) = ResponseRef::parse(&octets) {
            let answer = StoredAnswer::from_response(&response, Keep { authority, authentic_data: true });
            let answer = answer.clamp_ttls(Ttl(5), Ttl(3600));
            prop_assert!(answer.question().matches(&response.question()));
            render_into(&answer, &Asked::a_with_edns("a."), rule, limit);
        }
    }

    #[test]
    fn a_reply_never_passes_its_limit(message in samples::responses(), limit in 0_usize..600, edns: bool) {
        let asked = Asked::new(1, &message.queries[0], edns.then_some(true));
        let reply = render_into(&stored(&message, ALL), &asked, TtlRule::Keep, limit);
        if !reply.is_empty() {
            prop_assert!(Message::from_vec(&reply).is_ok());
        }
    }
}

#[test]
fn a_name_that_leads_into_a_ttl_does_not_change_as_the_answer_ages() {
    // The first record's TTL is 0x161: its end, and the octet behind it, spell the name `a.`.
    let mut message = vec![0, 0, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];
    for owner in [12, 27] {
        message.extend_from_slice(&[0xc0, owner, 0, 1, 0, 1, 0, 0, 1, b'a', 0, 4, 192, 0, 2, 1]);
    }
    let response = ResponseRef::parse(&message).unwrap();
    let stored = StoredAnswer::from_response(&response, Keep { authority: true, authentic_data: true });
    let asked = Asked::a("a.");
    let mut out = [0; 512];
    let written = stored.render(&asked.view(), TtlRule::Aged { secs: 7 }, &ReplyOptions::default(), &mut out);
    let reply = ResponseRef::parse(&out[..written]).unwrap();
    let name: crate::wire::name::Name = "a.".parse().unwrap();
    assert_eq!(reply.records(Section::Answer).count(), 2);
    assert!(reply.records(Section::Answer).all(|record| record.owner.eq_name(name.view())));
    assert!(reply.records(Section::Answer).all(|record| record.ttl == Ttl(0x161 - 7)));
}
