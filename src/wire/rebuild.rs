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

/// Where names stand in the RDATA of a type: `count` of them in a row, after `start` octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NamesInRdata {
    /// Octets before the first name.
    start: usize,
    /// How many names follow one another.
    count: u8,
}

impl NamesInRdata {
    /// Returns where a record has names that a server may have compressed: the types of RFC 1035 §3.3 and
    /// those that RFC 3597 §4 tells us to decompress, and DNAME, which some servers compress all the same.
    fn of(record: &RecordRef<'_>) -> Option<Self> {
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
