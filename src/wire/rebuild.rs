//! Writes a response anew without some of its records. Dropping from the middle of a message would break
//! compression pointers, so owners and the names inside RDATA of the types that may be compressed
//! (RFC 1035 §4.1.4, RFC 3597 §4) are written out in full; every other RDATA is copied as it is.
//!
//! Nothing is compressed again: these messages are rare, and clients do not care.

use super::MAX_MESSAGE;
use super::header::HEADER_LEN;
use super::name::MAX_NAME;
use super::response::{PackedName, RecordRef, ResponseRef, Section};
use bytes::Bytes;

/// Returns the message with only the records for which `keep` is true, the OPT record never among them.
/// `None` when it would pass 65,535 octets or when a kept record has a malformed name in its RDATA.
pub fn rebuild(
    response: &ResponseRef<'_>,
    keep: &mut dyn FnMut(Section, &RecordRef<'_>) -> bool,
) -> Option<Bytes> {
    let bytes = response.bytes();
    let mut out = Vec::with_capacity(bytes.len());
    out.extend_from_slice(bytes.get(..response.section_start(Section::Answer))?);

    let mut counts = [0_u16; 3];
    for (section, count) in Section::ALL.into_iter().zip(&mut counts) {
        for record in response.records(section) {
            if keep(section, &record) {
                write_record(&mut out, &record)?;
                *count += 1;
            }
        }
    }
    let counts_at = HEADER_LEN - 2 * counts.len();
    for (field, count) in out.get_mut(counts_at..HEADER_LEN)?.chunks_exact_mut(2).zip(counts) {
        field.copy_from_slice(&count.to_be_bytes());
    }
    Some(out.into())
}

/// Appends a record with its names in full; `None` (and `out` in disorder) when `out` would pass 65,535
/// octets or a name in RDATA is malformed.
pub(super) fn write_record(out: &mut Vec<u8>, record: &RecordRef<'_>) -> Option<()> {
    write_name(out, &record.owner)?;
    out.extend_from_slice(&record.rtype.0.to_be_bytes());
    out.extend_from_slice(&record.class.0.to_be_bytes());
    out.extend_from_slice(&record.ttl.0.to_be_bytes());
    let len_at = out.len();
    out.extend_from_slice(&[0, 0]);
    write_rdata(out, record)?;

    if out.len() > MAX_MESSAGE {
        return None;
    }
    let rdata_len = u16::try_from(out.len() - len_at - 2).ok()?;
    out.get_mut(len_at..len_at + 2)?.copy_from_slice(&rdata_len.to_be_bytes());
    Some(())
}

/// Appends RDATA, the names in it in full.
fn write_rdata(out: &mut Vec<u8>, record: &RecordRef<'_>) -> Option<()> {
    let mut at = 0;
    if let Some(names) = NamesInRdata::of(record) {
        at = names.start;
        out.extend_from_slice(record.rdata.get(..at)?);
        for _ in 0..names.count {
            let (name, end) = record.rdata_name_span(at)?;
            write_name(out, &name)?;
            at = end;
        }
    }
    out.extend_from_slice(record.rdata.get(at..)?);
    Some(())
}

/// Appends a name in full.
fn write_name(out: &mut Vec<u8>, name: &PackedName<'_>) -> Option<()> {
    let mut buffer = [0; MAX_NAME];
    out.extend_from_slice(name.unpack_into(&mut buffer)?.as_bytes());
    Some(())
}

/// Iterates over the names in a record's RDATA that may be compressed; ends early at a malformed one.
pub(super) fn names_of<'a>(record: &RecordRef<'a>) -> impl Iterator<Item = PackedName<'a>> + use<'a> {
    let record = *record;
    let names = NamesInRdata::of(&record);
    let mut at = names.map_or(0, |names| names.start);
    (0..names.map_or(0, |names| names.count)).map_while(move |_| {
        let (name, end) = record.rdata_name_span(at)?;
        at = end;
        Some(name)
    })
}

/// Where names stand in the RDATA of a type: `count` of them in a row, after `start` octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NamesInRdata {
    /// Octets before the first name.
    pub(super) start: usize,
    /// How many names follow one another.
    pub(super) count: u8,
}

impl NamesInRdata {
    /// Returns where a record has names that a server may have compressed: the types of RFC 1035 §3.3 and
    /// those that RFC 3597 §4 tells us to decompress, and DNAME, which some servers compress all the same.
    pub(super) fn of(record: &RecordRef<'_>) -> Option<Self> {
        let (start, count) = match record.rtype.0 {
            // NS, MD, MF, CNAME, MB, MG, MR, PTR, NXT, DNAME
            2 | 3 | 4 | 5 | 7 | 8 | 9 | 12 | 30 | 39 => (0, 1),
            // SOA, MINFO, RP
            6 | 14 | 17 => (0, 2),
            // MX, AFSDB, RT, KX
            15 | 18 | 21 | 36 => (2, 1),
            // SIG: the signer after 18 octets (RFC 2535 §4.1)
            24 => (18, 1),
            // PX
            26 => (2, 2),
            // SRV
            33 => (6, 1),
            // NAPTR
            35 => (naptr_replacement(record.rdata)?, 1),
            _ => return None,
        };
        Some(Self { start, count })
    }
}

/// Returns where REPLACEMENT stands in NAPTR RDATA: after ORDER, PREFERENCE and three character strings
/// (RFC 3403 §4.1).
fn naptr_replacement(rdata: &[u8]) -> Option<usize> {
    let mut at = 4;
    for _ in 0..3 {
        at += 1 + usize::from(*rdata.get(at)?);
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::super::question::RecordType;
    use super::super::samples::{self, a, bytes, cname, ns, one_record, opaque, soa};
    use super::*;
    use hickory_proto::op::{Edns, Message};
    use proptest::prelude::*;

    fn rebuilt(octets: &[u8], mut keep: impl FnMut(Section, &RecordRef<'_>) -> bool) -> Option<Bytes> {
        rebuild(&ResponseRef::parse(octets).unwrap(), &mut keep)
    }

    fn rebuilt_rdata(rtype: u16, rdata: &[u8]) -> Option<Vec<u8>> {
        let rebuilt = rebuilt(&one_record(rtype, rdata), |_, _| true)?;
        let record = ResponseRef::parse(&rebuilt).unwrap().records(Section::Answer).next().unwrap();
        Some(record.rdata.to_vec())
    }

    #[test]
    fn a_record_leaves_the_middle_and_the_others_keep_their_names() {
        let mut message = samples::response("www.example.com.");
        message.add_answers([
            cname("www.example.com.", 300, "edge.example.net."),
            ns("elsewhere.org.", 1, "ns.elsewhere.org."),
            a("edge.example.net.", 60),
        ]);
        message.add_authorities([opaque("ns.elsewhere.org.", 4), soa("example.com.", 900, 120)]);
        message.add_additional(a("ns.elsewhere.org.", 5));
        message.edns = Some(Edns::new());
        let rebuilt = rebuilt(&bytes(&message), |section, record| {
            section != Section::Additional && ![RecordType::NS, RecordType(65400)].contains(&record.rtype)
        });
        let left = Message::from_vec(&rebuilt.unwrap()).unwrap();
        message.answers.remove(1);
        message.authorities.remove(0);
        message.additionals.clear();
        message.edns = None;
        assert_eq!(left, message);
    }

    #[test]
    fn names_in_rdata_are_written_in_full_and_what_surrounds_them_is_kept() {
        let cases: [(&str, u16, &[u8], &[u8]); 10] = [
            ("CNAME", 5, b"\x01b\xc0\x0c", b"\x01b\x01a\0"),
            ("DNAME", 39, b"\xc0\x0c", b"\x01a\0"),
            ("MX", 15, b"\0\x07\xc0\x0c", b"\0\x07\x01a\0"),
            ("MINFO", 14, b"\xc0\x0c\xc0\x0c", b"\x01a\0\x01a\0"),
            ("PX", 26, b"\0\x01\xc0\x0c\0", b"\0\x01\x01a\0\0"),
            ("SRV", 33, b"\0\x01\0\x02\0\x03\xc0\x0c", b"\0\x01\0\x02\0\x03\x01a\0"),
            ("NAPTR", 35, b"\0\x01\0\x02\x01s\0\x01!\xc0\x0c", b"\0\x01\0\x02\x01s\0\x01!\x01a\0"),
            ("SIG", 24, b"octets of 18 octet\xc0\x0csignature", b"octets of 18 octet\x01a\0signature"),
            ("NXT", 30, b"\xc0\x0c\x40", b"\x01a\0\x40"),
            ("RRSIG", 46, b"octets of 18 octet\xc0\x0c", b"octets of 18 octet\xc0\x0c"),
        ];
        for (case, rtype, rdata, expected) in cases {
            assert_eq!(rebuilt_rdata(rtype, rdata).as_deref(), Some(expected), "{case}");
        }
    }

    #[test]
    fn a_malformed_name_in_kept_rdata_is_not_passed_on() {
        assert_eq!(rebuilt_rdata(5, b"\xc0\xff"), None);
        assert_eq!(rebuilt_rdata(6, b"\0"), None);
        assert_eq!(rebuilt_rdata(15, b"\0"), None);
        // A NAPTR record without room for its strings has no place for a name; it is copied.
        assert_eq!(rebuilt_rdata(35, b"\0"), Some(b"\0".to_vec()));
        assert!(rebuilt(&one_record(5, b"\xc0\xff"), |_, _| false).is_some());
    }

    #[test]
    fn a_message_that_would_burst_is_none() {
        // 2000 records of 16 octets, whose owner is a pointer to a name of 62 octets.
        let mut octets = vec![0, 0, 0x80, 0, 0, 1, 7, 208, 0, 0, 0, 0, 60];
        octets.extend_from_slice(&[b'x'; 60]);
        octets.extend_from_slice(&[0, 0, 1, 0, 1]);
        for _ in 0..2000 {
            octets.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 1]);
        }
        assert_eq!(rebuilt(&octets, |_, _| true), None);
        let mut left = 500;
        let kept = rebuilt(&octets, |_, _| {
            left -= 1;
            left >= 0
        });
        assert_eq!(Message::from_vec(&kept.unwrap()).unwrap().answers.len(), 500);
    }

    proptest! {
        #[test]
        fn what_is_kept_stays_as_it_is(message in samples::responses(), choice: u64) {
            let mut bits = choice;
            let mut choose = || {
                bits = bits.rotate_left(1);
                bits & 1 == 1
            };
            let octets = bytes(&message);
            let rebuilt = rebuilt(&octets, |_, _| choose()).unwrap();
            prop_assert!(ResponseRef::parse(&rebuilt).is_ok());

            let mut expected = Message::from_vec(&octets).unwrap();
            let mut bits = choice;
            for section in [&mut expected.answers, &mut expected.authorities, &mut expected.additionals] {
                section.retain_mut(|record| {
                    record.ttl = if record.ttl >> 31 == 1 { 0 } else { record.ttl };
                    bits = bits.rotate_left(1);
                    bits & 1 == 1
                });
            }
            expected.edns = None;
            prop_assert_eq!(bytes(&Message::from_vec(&rebuilt).unwrap()), bytes(&expected));
        }

        #[test]
        fn no_rdata_makes_it_panic(rtype in 0_u16..41, rdata in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(rebuilt) = rebuilt(&one_record(rtype, &rdata), |_, _| true) {
                prop_assert!(ResponseRef::parse(&rebuilt).is_ok());
            }
        }
    }
}
