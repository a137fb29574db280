//! Which messages of servers hold, and what is read in them.

use super::super::name::{MAX_NAME, NameRef};
use super::super::samples::{self, Asked, a, bytes, cname, ns, soa};
use super::*;
use hickory_proto::op::{Edns, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use proptest::prelude::*;

/// `www.example.com` A with a CNAME, an address, an SOA and two glue records.
fn sample() -> Vec<u8> {
    let mut message = samples::response("www.example.com.");
    message.add_answer(cname("www.example.com.", 300, "edge.example.net."));
    message.add_answer(a("edge.example.net.", 60));
    message.add_authority(soa("example.com.", 900, 120));
    message.add_additional(a("ns.example.com.", 5));
    message.edns = Some(Edns::new());
    bytes(&message)
}

/// Header of a response with these counts, and the question `a. A IN`.
fn head(counts: [u8; 3]) -> Vec<u8> {
    let [answers, authorities, additionals] = counts;
    let mut head = vec![0, 0, 0x80, 0, 0, 1, 0, answers, 0, authorities, 0, additionals];
    head.extend_from_slice(&[1, b'a', 0, 0, 1, 0, 1]);
    head
}

fn fault(message: &[u8]) -> Option<ResponseFault> {
    ResponseRef::parse(message).err()
}

#[test]
fn sections_are_iterated_with_owner_ttl_and_rdata() {
    let message = sample();
    let response = ResponseRef::parse(&message).unwrap();
    let answers: Vec<_> = response.records(Section::Answer).collect();
    assert_eq!(answers.len(), 2);
    assert_eq!((answers[0].rtype, answers[0].ttl), (RecordType::CNAME, Ttl(300)));
    assert!(answers[0].owner.eq_name(response.question().name));
    let target = answers[0].rdata_name(0).unwrap();
    assert!(target.eq_packed(&answers[1].owner));
    assert_eq!(target.unpack_into(&mut [0; 255]).unwrap().to_string(), "edge.example.net.");
    assert_eq!(answers[1].rdata, [192, 0, 2, 1]);
    assert_eq!(message[answers[1].ttl_offset..][..4], [0, 0, 0, 60]);

    let soa = response.records(Section::Authority).next().unwrap();
    assert_eq!(soa.soa_minimum(), Some(Ttl(120)));
    assert_eq!(answers[1].soa_minimum(), None);
    // The OPT record is not among them.
    assert_eq!(response.records(Section::Additional).count(), 1);
    assert!(response.edns().is_some());
}

#[test]
fn sections_start_where_the_one_before_ends() {
    let message = sample();
    let response = ResponseRef::parse(&message).unwrap();
    assert_eq!(response.section_start(Section::Answer), 12 + 17 + 4);
    let last_answer = response.records(Section::Answer).last().unwrap();
    assert_eq!(response.section_start(Section::Authority), last_answer.end());
    let last_authority = response.records(Section::Authority).last().unwrap();
    assert_eq!(response.section_start(Section::Additional), last_authority.end());
}

#[test]
fn what_the_opt_record_says_is_read() {
    let mut message = samples::response("example.com.");
    let mut edns = Edns::new();
    message.metadata.response_code = ResponseCode::BADVERS;
    edns.options_mut().insert(EdnsOption::Unknown(15, vec![0, 22, b'h', b'i']));
    edns.options_mut().insert(EdnsOption::Unknown(8, vec![0, 1, 24, 20, 192, 0, 2]));
    message.edns = Some(edns);
    let message = bytes(&message);
    let response = ResponseRef::parse(&message).unwrap();
    assert_eq!(response.rcode(), Rcode(16));
    assert_eq!(response.ede(), Some((EdeCode(22), &b"hi"[..])));
    assert_eq!(response.ecs_scope(), Some(20));
}

#[test]
fn every_rule_of_the_header_has_its_fault() {
    let good = sample();
    let with = |change: fn(&mut Vec<u8>)| {
        let mut message = good.clone();
        change(&mut message);
        fault(&message)
    };
    assert_eq!(with(|_| ()), None);
    assert_eq!(with(|m| m.truncate(11)), Some(ResponseFault::Short));
    assert_eq!(with(|m| m[2] &= 0x7f), Some(ResponseFault::NotResponse));
    assert_eq!(with(|m| m[2] |= 0x10), Some(ResponseFault::Opcode));
    assert_eq!(with(|m| m[5] = 0), Some(ResponseFault::QuestionCount));
    assert_eq!(with(|m| m[5] = 2), Some(ResponseFault::QuestionCount));
    assert_eq!(with(|m| m[12] = 0xc0), Some(ResponseFault::QuestionMismatch));
    assert_eq!(with(|m| m.push(0)), Some(ResponseFault::TrailingOctets));
    assert_eq!(with(|m| m[11] += 1), Some(ResponseFault::Record));
    assert_eq!(with(|m| m[7] -= 1), Some(ResponseFault::TrailingOctets));
    assert_eq!(with(|m| m.resize(m.len() - 1, 0)), Some(ResponseFault::Record));
}

#[test]
fn a_query_is_no_response() {
    assert_eq!(fault(Asked::a("example.com.").view().bytes()), Some(ResponseFault::NotResponse));
}

#[test]
fn the_root_can_be_asked_for() {
    let mut message = samples::response(".");
    message.add_answer(ns(".", 518_400, "a.root-servers.net."));
    let message = bytes(&message);
    let response = ResponseRef::parse(&message).unwrap();
    assert!(response.question().name.is_root());
    let record = response.records(Section::Answer).next().unwrap();
    assert!(record.owner.eq_name(NameRef::ROOT));
    assert_eq!(record.owner.labels().count(), 0);
}

#[test]
fn pointers_forward_to_themselves_and_into_the_header_are_refused() {
    let record = |owner: &[u8]| {
        let mut message = head([1, 0, 0]);
        message.extend_from_slice(owner);
        message.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 9, 0, 0]);
        fault(&message)
    };
    assert_eq!(record(&[0xc0, 12]), None);
    assert_eq!(record(&[1, b'b', 0xc0, 12]), None);
    for bad in [
        &[0xc0, 19][..],
        &[0xc0, 21],
        &[0xc0, 0],
        &[0xc0, 11],
        &[0xff, 0xff],
        // To the start of the labels that it ends: a loop.
        &[1, b'b', 0xc0, 19],
        &[0x40, 0],
        &[0x80, 0],
    ] {
        assert_eq!(record(bad), Some(ResponseFault::Name), "{bad:?}");
    }
}

#[test]
fn a_name_grown_past_255_octets_by_pointers_is_refused() {
    let mut message = head([0, 0, 0]);
    let mut last = 12;
    let mut records = 0;
    // Each owner is a label of 61 octets and a pointer to the owner before it.
    while message.len() < 1000 {
        let start = message.len();
        message.push(61);
        message.extend_from_slice(&[b'x'; 61]);
        message.extend_from_slice(&u16::try_from(0xc000 | last).unwrap().to_be_bytes());
        message.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 9, 0, 0]);
        last = start;
        records += 1;
        message[7] = records;
        // 62 octets a record and `a.`: the fifth is too long.
        assert_eq!(fault(&message).is_some(), records >= 5, "{records}");
    }
    assert_eq!(fault(&message), Some(ResponseFault::Name));
}

#[test]
fn long_chains_of_pointers_are_refused() {
    // The RDATA of an opaque record is a chain of pointers, each to the one before.
    let chain = |pointers: u8| {
        let mut message = head([2, 0, 0]);
        message.extend_from_slice(&[0, 255, 0, 0, 1, 0, 0, 0, 0, 0, 2 * pointers]);
        let mut target = 12;
        for _ in 0..pointers {
            let at = u8::try_from(message.len()).unwrap();
            message.extend_from_slice(&[0xc0, target]);
            target = at;
        }
        message.extend_from_slice(&[0xc0, target, 0, 1, 0, 1, 0, 0, 0, 9, 0, 0]);
        fault(&message)
    };
    assert_eq!(chain(31), None);
    assert_eq!(chain(32), Some(ResponseFault::Name));
}

#[test]
fn opt_is_taken_once_from_the_additional_section_at_the_root() {
    const OPT: [u8; 11] = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    let with = |counts: [u8; 3], records: &[&[u8]]| {
        let mut message = head(counts);
        records.iter().for_each(|record| message.extend_from_slice(record));
        fault(&message)
    };
    assert_eq!(with([0, 0, 1], &[&OPT]), None);
    assert_eq!(with([0, 0, 2], &[&OPT, &OPT]), Some(ResponseFault::Opt));
    assert_eq!(with([1, 0, 0], &[&OPT]), Some(ResponseFault::Opt));
    assert_eq!(with([0, 1, 0], &[&OPT]), Some(ResponseFault::Opt));
    let owned = [0xc0, 12, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    assert_eq!(with([0, 0, 1], &[&owned]), Some(ResponseFault::Opt));
    let short_option = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 5, 0, 15, 0, 2, 0];
    assert_eq!(with([0, 0, 1], &[&short_option]), Some(ResponseFault::Opt));
}

#[test]
fn a_ttl_with_the_top_bit_set_is_zero() {
    let mut message = samples::response("a.");
    message.add_answer(a("a.", 0x8000_0001));
    message.add_answer(a("a.", 0x7fff_ffff));
    let message = bytes(&message);
    let response = ResponseRef::parse(&message).unwrap();
    let ttls: Vec<_> = response.records(Section::Answer).map(|record| record.ttl).collect();
    assert_eq!(ttls, [Ttl(0), Ttl(0x7fff_ffff)]);
}

#[test]
fn a_name_that_leaves_its_rdata_is_none() {
    let mut message = head([1, 0, 0]);
    message.extend_from_slice(&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 1, 0xc0]);
    // Past its end stands what would complete the pointer.
    message.extend_from_slice(&[12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 0]);
    message[7] = 1;
    assert_eq!(fault(&message), Some(ResponseFault::TrailingOctets));
    message.truncate(32);
    let response = ResponseRef::parse(&message).unwrap();
    let record = response.records(Section::Answer).next().unwrap();
    assert!(record.rdata_name(0).is_none());
    assert!(record.rdata_name(1).is_none());
    assert!(record.rdata_name(usize::MAX).is_none());
}

#[test]
fn names_are_compared_ignoring_case_and_written_with_it() {
    let mut message = samples::response("WWW.Example.com.");
    message.add_answer(a("WWW.Example.com.", 1));
    let message = bytes(&message);
    let response = ResponseRef::parse(&message).unwrap();
    let owner = response.records(Section::Answer).next().unwrap().owner;
    assert!(owner.eq_name(NameRef::parse(b"\x03www\x07eXample\x03com\0").unwrap()));
    assert!(!owner.eq_name(NameRef::parse(b"\x07example\x03com\0").unwrap()));
    assert!(!owner.eq_name(NameRef::parse(b"\x01a\x03www\x07example\x03com\0").unwrap()));
    let mut out = [0; MAX_NAME];
    assert_eq!(owner.unpack_into(&mut out).unwrap().as_bytes(), b"\x03WWW\x07Example\x03com\0");
    assert!(owner.unpack_into(&mut [0; 16]).is_none());
}

#[test]
fn labels_of_faults_are_distinct_and_plain() {
    let mut labels: Vec<_> = ResponseFault::ALL.map(ResponseFault::label).into();
    assert!(labels.iter().all(|label| label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), ResponseFault::ALL.len());
}

/// Looks at everything a checked response offers.
fn exhaust(response: &ResponseRef<'_>) -> usize {
    let _ = (response.rcode(), response.ede(), response.ecs_scope(), response.question());
    let mut seen = 0;
    for record in Section::ALL.into_iter().flat_map(|section| response.records(section)) {
        assert!(record.owner.unpack_into(&mut [0; MAX_NAME]).is_some());
        let _ = record.soa_minimum();
        for offset in 0..record.rdata.len().min(20) {
            let name = record.rdata_name(offset);
            assert!(name.is_none_or(|name| name.unpack_into(&mut [0; MAX_NAME]).is_some()));
        }
        seen += 1;
    }
    seen
}

proptest! {
    #[test]
    fn no_octets_make_the_parser_panic(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(response) = ResponseRef::parse(&octets) {
            exhaust(&response);
        }
    }

    #[test]
    fn no_records_make_the_iterators_panic(
        counts in [0_u8..4, 0..4, 0..4],
        tail in prop::collection::vec(prop_oneof![Just(0), Just(0xc0), 0_u8..24, any::<u8>()], 0..120),
    ) {
        let mut message = head(counts);
        message.extend_from_slice(&tail);
        if let Ok(response) = ResponseRef::parse(&message) {
            exhaust(&response);
        }
    }

    #[test]
    fn what_another_encoder_writes_is_read_whole(message in samples::responses()) {
        let octets = bytes(&message);
        let response = ResponseRef::parse(&octets).unwrap();
        let sections = [&message.answers, &message.authorities, &message.additionals];
        prop_assert_eq!(exhaust(&response), sections.iter().map(|section| section.len()).sum::<usize>());
        for (section, records) in Section::ALL.into_iter().zip(sections) {
            for (ours, theirs) in response.records(section).zip(records) {
                let mut out = [0; MAX_NAME];
                let owner = ours.owner.unpack_into(&mut out).unwrap();
                prop_assert_eq!(owner.to_string(), theirs.name.to_string());
                prop_assert_eq!(ours.rtype.0, u16::from(theirs.record_type()));
                prop_assert_eq!(ours.ttl.0, if theirs.ttl >> 31 == 1 { 0 } else { theirs.ttl });
            }
        }
    }

    #[test]
    fn a_message_cut_anywhere_is_refused(message in samples::responses(), at in any::<prop::sample::Index>()) {
        let octets = bytes(&message);
        prop_assert!(ResponseRef::parse(&octets[..at.index(octets.len())]).is_err());
    }
}

#[test]
fn a_pointer_to_labels_that_run_past_it_is_no_name() {
    let mut message = vec![0, 0, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];
    // The first record's RDATA begins a label of 63 octets, which ends within the second record.
    message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 63, 0, 2, 1]);
    message.extend_from_slice(&[0xc0, 31, 0, 16, 0, 1, 0, 0, 0, 60, 0, 80]);
    message.resize(message.len() + 80, 0);
    assert_eq!(ResponseRef::parse(&message).unwrap_err(), ResponseFault::Name);
}
