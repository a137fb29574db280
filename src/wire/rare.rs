//! RDATA of types that are seldom seen as text, by hickory-proto. It comes with the feature `terminal`; without it such records are
//! shown in the form of RFC 3597 §5.

use super::response::RecordRef;

/// Writes RDATA as a zone file has it; `None` when it is malformed or the type is not known.
#[cfg(feature = "terminal")]
pub(super) fn rdata_text(record: &RecordRef<'_>) -> Option<String> {
    use super::rebuild::write_record;
    use hickory_proto::rr::{RData, Record};
    use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
    use std::fmt::Write;
    let mut octets = Vec::new();
    write_record(&mut octets, record)?;
    let record = Record::<RData>::read(&mut BinDecoder::new(&octets)).ok()?;
    let data = record.data;
    if matches!(data, RData::Unknown { .. } | RData::NULL(_) | RData::Update0(_) | RData::OPT(_)) {
        return None;
    }
    let mut text = String::new();
    write!(text, "{data}").ok()?;
    if matches!(data, RData::SVCB(_) | RData::HTTPS(_)) {
        // Lists end with a comma there, which RFC 9460 §2.1 does not know.
        text = text.replace(", ", " ").trim_end_matches(',').to_owned();
    }
    Some(text)
}

/// Knows none of these types.
#[cfg(not(feature = "terminal"))]
pub(super) fn rdata_text(_: &RecordRef<'_>) -> Option<String> {
    None
}
