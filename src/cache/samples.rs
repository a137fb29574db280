//! Answers for this folder's tests, written octet by octet. Not in the product.

use super::key::{KeyRef, PartitionId, Variant};
use crate::config::settings::CacheSettings;
use crate::wire::header::Rcode;
use crate::wire::name::Name;
use crate::wire::question::{Class, QuestionRef, RecordType};
use crate::wire::response::ResponseRef;
use crate::wire::stored::{Keep, StoredAnswer};
use std::time::Duration;

/// Returns the default settings.
pub(super) fn settings() -> CacheSettings {
    CacheSettings {
        max_size: 64 << 20,
        min_ttl: Duration::ZERO,
        max_ttl: Duration::from_secs(86_400),
        negative_max_ttl: Duration::from_secs(3600),
        max_stale: Duration::from_secs(86_400),
        stale_after: Duration::from_millis(1800),
        prefetch: true,
        failure_ttl: Duration::from_secs(5),
        failure_max_ttl: Duration::from_secs(60),
    }
}

/// Returns the key of a name's address under the first partition.
pub(super) fn key(name: &Name) -> KeyRef<'_> {
    KeyRef {
        question: QuestionRef { name: name.view(), rtype: RecordType::A, class: Class::IN },
        variant: Variant { dnssec_ok: false, checking_disabled: false, partition: PartitionId(0) },
    }
}

/// Returns a name from its text.
pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Returns an answer with one address, whose octets are `serial`.
pub(super) fn address(name: &Name, ttl: u32, serial: u32) -> StoredAnswer {
    Message::about(name.clone(), RecordType::A).record(RecordType::A, ttl, &serial.to_be_bytes()).stored()
}

/// Returns the `serial` of an answer made by `address`.
pub(super) fn serial(answer: &StoredAnswer) -> u32 {
    u32::from_be_bytes(*answer.message().last_chunk().unwrap())
}

/// A response in the making. All records are the question's name's.
pub(super) struct Message {
    /// Who is asked about.
    name: Name,
    /// What is asked for.
    rtype: RecordType,
    /// What became of it.
    rcode: Rcode,
    /// Records of the answer section.
    answers: Vec<Vec<u8>>,
    /// Records of the authority section.
    authorities: Vec<Vec<u8>>,
}

impl Message {
    /// Begins one by the name's text.
    pub(super) fn ask(text: &str, rtype: RecordType) -> Self {
        Self::about(name(text), rtype)
    }

    /// Begins one.
    pub(super) fn about(name: Name, rtype: RecordType) -> Self {
        Self { name, rtype, rcode: Rcode::NOERROR, answers: Vec::new(), authorities: Vec::new() }
    }

    /// Sets the rcode (low bits).
    pub(super) fn rcode(mut self, rcode: Rcode) -> Self {
        self.rcode = rcode;
        self
    }

    /// Adds a record to the answer section.
    pub(super) fn record(mut self, rtype: RecordType, ttl: u32, rdata: &[u8]) -> Self {
        self.answers.push(record(rtype, ttl, rdata));
        self
    }

    /// Adds an address.
    pub(super) fn a(self, ttl: u32) -> Self {
        self.record(RecordType::A, ttl, &[192, 0, 2, 1])
    }

    /// Adds an alias (of itself: nothing here follows it).
    pub(super) fn cname(self, ttl: u32) -> Self {
        self.record(RecordType::CNAME, ttl, &[0xC0, 12])
    }

    /// Adds an SOA to the answer section.
    pub(super) fn soa_answer(self, ttl: u32, minimum: u32) -> Self {
        self.record(RecordType::SOA, ttl, &soa(minimum))
    }

    /// Adds an SOA to the authority section.
    pub(super) fn soa(mut self, ttl: u32, minimum: u32) -> Self {
        self.authorities.push(record(RecordType::SOA, ttl, &soa(minimum)));
        self
    }

    /// Adds a record that nobody reads to the authority section.
    pub(super) fn authority(mut self, rtype: RecordType, ttl: u32) -> Self {
        self.authorities.push(record(rtype, ttl, &[0]));
        self
    }

    /// Ends it.
    pub(super) fn stored(self) -> StoredAnswer {
        let count = |records: &Vec<Vec<u8>>| u16::try_from(records.len()).unwrap().to_be_bytes();
        let flags = 0x8180 | self.rcode.0;
        let mut octets = vec![0, 0];
        octets.extend(flags.to_be_bytes());
        octets.extend([0, 1]);
        octets.extend(count(&self.answers));
        octets.extend(count(&self.authorities));
        octets.extend([0, 0]);
        octets.extend(self.name.view().as_bytes());
        octets.extend(self.rtype.0.to_be_bytes());
        octets.extend([0, 1]);
        octets.extend(self.answers.concat());
        octets.extend(self.authorities.concat());
        let response = ResponseRef::parse(&octets).unwrap();
        StoredAnswer::from_response(&response, Keep { authority: true, authentic_data: true })
    }
}

/// Writes a record under the question's name.
fn record(rtype: RecordType, ttl: u32, rdata: &[u8]) -> Vec<u8> {
    let mut octets = vec![0xC0, 12];
    octets.extend(rtype.0.to_be_bytes());
    octets.extend([0, 1]);
    octets.extend(ttl.to_be_bytes());
    octets.extend(u16::try_from(rdata.len()).unwrap().to_be_bytes());
    octets.extend(rdata);
    octets
}

/// Writes the RDATA of an SOA.
fn soa(minimum: u32) -> Vec<u8> {
    let mut rdata = vec![0xC0, 12, 0];
    rdata.extend([0; 16]);
    rdata.extend(minimum.to_be_bytes());
    rdata
}
