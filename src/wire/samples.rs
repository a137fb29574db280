//! Messages for the tests of this folder, written by hickory-proto: an encoder that is not ours. A record with RDATA that it would not
//! write is written by hand.

use super::query::QueryRef;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::name::{CNAME, NS, PTR};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, AAAA, MX, NULL, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Reads a name.
pub(super) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// Makes a record.
pub(super) fn record(owner: &str, ttl: u32, data: RData) -> Record {
    Record::from_rdata(name(owner), ttl, data)
}

/// Makes an A record for 192.0.2.1.
pub(super) fn a(owner: &str, ttl: u32) -> Record {
    record(owner, ttl, RData::A(A(Ipv4Addr::new(192, 0, 2, 1))))
}

/// Makes a CNAME record.
pub(super) fn cname(owner: &str, ttl: u32, target: &str) -> Record {
    record(owner, ttl, RData::CNAME(CNAME(name(target))))
}

/// Makes an NS record.
pub(super) fn ns(owner: &str, ttl: u32, server: &str) -> Record {
    record(owner, ttl, RData::NS(NS(name(server))))
}

/// Makes an SOA record with this MINIMUM.
pub(super) fn soa(owner: &str, ttl: u32, minimum: u32) -> Record {
    let data = SOA::new(name("ns.example.com."), name("admin.example.com."), 7, 3600, 600, 86400, minimum);
    record(owner, ttl, RData::SOA(data))
}

/// Makes an NSEC-like record: a type whose RDATA is copied as it is.
pub(super) fn opaque(owner: &str, ttl: u32) -> Record {
    let rdata = NULL::with(vec![0xc0, 0x0c, 1, 2, 3]);
    record(owner, ttl, RData::Unknown { code: RecordType::Unknown(65400), rdata })
}

/// Makes a response without records to a question of type A.
pub(super) fn response(qname: &str) -> Message {
    let mut message = Message::new(0x1234, MessageType::Response, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.recursion_available = true;
    message.metadata.response_code = ResponseCode::NoError;
    message.add_query(Query::query(name(qname), RecordType::A));
    message
}

/// Writes a message.
pub(super) fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap()
}

/// A query for tests.
#[derive(Clone, Debug)]
pub(super) struct Asked(Vec<u8>);

impl Asked {
    /// Writes a query for `question` with RD, and with an OPT record if `dnssec_ok` is given.
    pub(super) fn new(id: u16, question: &Query, dnssec_ok: Option<bool>) -> Self {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(question.clone());
        if let Some(dnssec_ok) = dnssec_ok {
            let mut edns = Edns::new();
            edns.set_max_payload(1232).set_dnssec_ok(dnssec_ok);
            message.edns = Some(edns);
        }
        Self(bytes(&message))
    }

    /// Writes a query for the A records of a name, without EDNS.
    pub(super) fn a(qname: &str) -> Self {
        Self::new(0x4711, &Query::query(name(qname), RecordType::A), None)
    }

    /// Writes a query for the A records of a name, with EDNS.
    pub(super) fn a_with_edns(qname: &str) -> Self {
        Self::new(0x4711, &Query::query(name(qname), RecordType::A), Some(false))
    }

    /// Sets header bits of the third and fourth octet.
    pub(super) fn with_flags(mut self, third: u8, fourth: u8) -> Self {
        self.0[2] |= third;
        self.0[3] |= fourth;
        self
    }

    /// Returns the checked view.
    pub(super) fn view(&self) -> QueryRef<'_> {
        QueryRef::parse(&self.0).unwrap()
    }
}

/// Names that share suffixes, so that messages are compressed.
fn names() -> impl Strategy<Value = Name> {
    let labels = vec(select(vec!["a", "www", "cdn", "example", "net", "com", "x--y"]), 0..5);
    labels.prop_map(|labels| name(&format!("{}.", labels.join("."))))
}

/// RDATA of types with and without names, known and unknown.
fn rdata() -> impl Strategy<Value = RData> {
    let opaque_types = select(vec![RecordType::RRSIG, RecordType::NSEC, RecordType::Unknown(65400)]);
    prop_oneof![
        any::<u32>().prop_map(|ip| RData::A(A(Ipv4Addr::from(ip)))),
        any::<u128>().prop_map(|ip| RData::AAAA(AAAA(Ipv6Addr::from(ip)))),
        names().prop_map(|name| RData::CNAME(CNAME(name))),
        names().prop_map(|name| RData::NS(NS(name))),
        names().prop_map(|name| RData::PTR(PTR(name))),
        (any::<u16>(), names()).prop_map(|(preference, name)| RData::MX(MX::new(preference, name))),
        (any::<u16>(), names()).prop_map(|(port, name)| RData::SRV(SRV::new(1, 2, port, name))),
        (names(), names(), any::<u32>())
            .prop_map(|(mname, rname, minimum)| RData::SOA(SOA::new(mname, rname, 1, 2, 3, 4, minimum))),
        "[ -~]{0,40}".prop_map(|text| RData::TXT(TXT::new(vec![text]))),
        (opaque_types, vec(any::<u8>(), 1..60))
            .prop_map(|(code, octets)| RData::Unknown { code, rdata: NULL::with(octets) }),
    ]
}

/// Up to `most` records with any TTL.
fn records(most: usize) -> impl Strategy<Value = Vec<Record>> {
    let record = (names(), any::<u32>(), rdata());
    vec(record.prop_map(|(owner, ttl, data)| Record::from_rdata(owner, ttl, data)), 0..most)
}

/// Well-formed responses.
pub(super) fn responses() -> impl Strategy<Value = Message> {
    let flags = any::<[bool; 3]>();
    let edns = option::of((any::<bool>(), option::of(any::<u8>())));
    let sections = (records(8), records(6), records(4));
    (names(), flags, edns, sections).prop_map(|(qname, [aa, ad, exists], edns, sections)| {
        let mut message = response(&qname.to_string());
        message.metadata.authoritative = aa;
        message.metadata.authentic_data = ad;
        message.metadata.response_code = if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
        (message.answers, message.authorities, message.additionals) = sections;
        message.edns = edns.map(|(dnssec_ok, ede)| {
            let mut edns = Edns::new();
            edns.set_dnssec_ok(dnssec_ok);
            if let Some(code) = ede {
                edns.options_mut().insert(EdnsOption::Unknown(15, vec![0, code, b'x']));
            }
            edns
        });
        message
    })
}

/// A response to `a. A` with one answer record of this type and RDATA.
pub(super) fn one_record(rtype: u16, rdata: &[u8]) -> Vec<u8> {
    let mut message = vec![0, 0, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1, 0xc0, 12];
    message.extend_from_slice(&rtype.to_be_bytes());
    message.extend_from_slice(&[0, 1, 0, 0, 0, 9]);
    message.extend_from_slice(&u16::try_from(rdata.len()).unwrap().to_be_bytes());
    message.extend_from_slice(rdata);
    message
}
