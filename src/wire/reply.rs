//! Replies without an answer: errors and refusals. What they hold comes from the query and our own
//! values alone; answers with records are `stored`'s.

use super::edns::{self, OptFields, ReplyOptions};
use super::header::{self, HEADER_LEN, HeaderRef, Rcode};
use super::query::QueryRef;
use super::question::QuestionRef;
use super::response::{ResponseRef, Section};

/// Writes a reply with the client's question, `rcode`, RA=1, and when the query had EDNS an OPT with `options`. Returns
/// octets written (0 only if `out` is shorter than header + question + OPT).
///
/// A code that needs EDNS (RFC 6891 §6.1.3) is SERVFAIL to a client without.
pub fn error(query: &QueryRef<'_>, rcode: Rcode, options: &ReplyOptions<'_>, out: &mut [u8]) -> usize {
    let rcode = if rcode.extended() > 0 && query.edns().is_none() { Rcode::SERVFAIL } else { rcode };
    write_reply(query, Flags::of(query.header(), rcode), options, out).unwrap_or(0)
}

/// Writes a reply to octets that are no acceptable query (`QueryFault::Reject`): the question is echoed when it can
/// be read; BADVERS gets its OPT (version 0). None when nothing can be said (no header, QR=1, or no room).
pub fn reject(message: &[u8], rcode: Rcode, out: &mut [u8]) -> Option<usize> {
    let header = HeaderRef::parse(message)?;
    if header.is_response() {
        return None;
    }
    let question = readable_question(header, message).unwrap_or_default();
    // Without an OPT the upper bits have no place; a client that sent no EDNS never gets such a code.
    let opt = (rcode.extended() > 0).then(|| opt_fields(rcode.extended(), false, &ReplyOptions::default()));
    write_message((header.id(), Flags::of(header, rcode)), question, opt, out)
}

/// Writes what is left of one of our replies when its way cannot carry it whole: header, question, and an OPT record without
/// options if it had one, with TC=1, so that the client asks again over TCP (RFC 2181 §9). Returns octets written; None for
/// what is no reply, or has no room.
pub fn cut(reply: &[u8], out: &mut [u8]) -> Option<usize> {
    let reply = ResponseRef::parse(reply).ok()?;
    let [third, fourth] = reply.header().flags();
    let extended_rcode = reply.rcode().extended();
    let flags = Flags { octets: [third | header::FLAG_TC, fourth], extended_rcode };
    let opt = reply.edns().map(|edns| opt_fields(extended_rcode, edns.dnssec_ok, &ReplyOptions::default()));
    let question = reply.bytes().get(HEADER_LEN..reply.section_start(Section::Answer))?;
    write_message((reply.header().id(), flags), question, opt, out)
}

/// Returns the octets of the one question, if there is one in full.
fn readable_question<'a>(header: HeaderRef<'_>, message: &'a [u8]) -> Option<&'a [u8]> {
    let [questions, ..] = header.counts();
    let body = message.get(HEADER_LEN..).filter(|_| questions == 1)?;
    body.get(..QuestionRef::parse(body)?.wire_len())
}

/// Writes a reply to a query that was checked.
fn write_reply(
    query: &QueryRef<'_>,
    flags: Flags,
    options: &ReplyOptions<'_>,
    out: &mut [u8],
) -> Option<usize> {
    let opt = query.edns().map(|edns| opt_fields(flags.extended_rcode, edns.dnssec_ok, options));
    write_message((query.id(), flags), query.question_bytes(), opt, out)
}

/// Returns the OPT record of a reply that holds for every network (RFC 7871 §7.2.1).
fn opt_fields<'a>(extended_rcode: u8, dnssec_ok: bool, options: &ReplyOptions<'a>) -> OptFields<'a> {
    let ReplyOptions { subnet, keepalive, ede } = *options;
    let ede = ede.map(|ede| (ede.code, ede.text.as_ref()));
    OptFields { extended_rcode, dnssec_ok, subnet: subnet.map(|subnet| (subnet, 0)), keepalive, ede }
}

/// The two flag octets of a reply, and the part of the rcode that has no room in them.
struct Flags {
    /// Third and fourth octet of the header.
    octets: [u8; 2],
    /// Upper bits of the rcode, for the OPT.
    extended_rcode: u8,
}

impl Flags {
    /// QR and RA set; opcode, RD and CD as in the query; AA, TC and AD clear.
    fn of(query: HeaderRef<'_>, rcode: Rcode) -> Self {
        let [third, fourth] = query.flags();
        let third = header::FLAG_QR | third & (header::MASK_OPCODE | header::FLAG_RD);
        let fourth = header::FLAG_RA | fourth & header::FLAG_CD | rcode.low();
        Self { octets: [third, fourth], extended_rcode: rcode.extended() }
    }
}

/// Writes header, question and OPT; None when they do not fit.
fn write_message(
    (id, flags): (u16, Flags),
    question: &[u8],
    opt: Option<OptFields<'_>>,
    out: &mut [u8],
) -> Option<usize> {
    let (head, body) = out.split_first_chunk_mut::<HEADER_LEN>()?;
    let (question_out, rest) = body.split_at_mut_checked(question.len())?;
    let [id_high, id_low] = id.to_be_bytes();
    let [third, fourth] = flags.octets;
    let questions = u8::from(!question.is_empty());
    let additionals = u8::from(opt.is_some());
    *head = [id_high, id_low, third, fourth, 0, questions, 0, 0, 0, 0, 0, additionals];
    question_out.copy_from_slice(question);
    let opt_len = match opt {
        None => 0,
        Some(opt) => edns::write_opt(rest, &opt)?,
    };
    Some(HEADER_LEN + question.len() + opt_len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ede::{Ede, EdeCode};
    use crate::wire::query::QueryFault;
    use proptest::prelude::*;

    /// A query for A of `a.`: RD, AD and CD set, TC and AA besides, which mean nothing in a query.
    const PLAIN: &[u8] = b"\x12\x34\x07\x30\x00\x01\x00\x00\x00\x00\x00\x00\x01A\x00\x00\x01\x00\x01";
    /// The same with EDNS and DO.
    const WITH_EDNS: &[u8] =
        b"\x12\x34\x07\x30\x00\x01\x00\x00\x00\x00\x00\x01\x01A\x00\x00\x01\x00\x01\x00\x00\x29\x10\x00\x00\x00\x80\x00\x00\x00";
    const BLOCKED: ReplyOptions<'_> =
        ReplyOptions { subnet: None, keepalive: None, ede: Some(&Ede::new(EdeCode::BLOCKED, "no")) };

    /// The reply as octets.
    fn written(write: impl FnOnce(&mut [u8]) -> usize) -> Vec<u8> {
        let mut out = vec![0xee; 512];
        let len = write(&mut out);
        out.truncate(len);
        out
    }

    #[test]
    fn a_reply_that_is_cut_keeps_its_header_question_and_opt_record() {
        let query = QueryRef::parse(WITH_EDNS).unwrap();
        let whole = written(|out| error(&query, Rcode::NXDOMAIN, &BLOCKED, out));
        let bare = written(|out| error(&query, Rcode::NXDOMAIN, &ReplyOptions::default(), out));
        let rest = written(|out| cut(&whole, out).unwrap());
        assert_eq!(rest[2], bare[2] | header::FLAG_TC);
        assert_eq!((&rest[..2], &rest[3..]), (&bare[..2], &bare[3..]));
        let query = QueryRef::parse(PLAIN).unwrap();
        let plain = written(|out| error(&query, Rcode::NOERROR, &BLOCKED, out));
        let mut rest = written(|out| cut(&plain, out).unwrap());
        rest[2] &= !header::FLAG_TC;
        assert_eq!(rest, plain);
        for (reply, room) in [(&whole[..], 5), (&whole[..4], 512), (PLAIN, 512)] {
            assert_eq!(cut(reply, &mut [0; 512][..room]), None, "{reply:?}");
        }
    }

    #[test]
    fn records_are_cut_off() {
        let mut whole = written(|out| error(&QueryRef::parse(PLAIN).unwrap(), Rcode::NOERROR, &BLOCKED, out));
        let question_end = whole.len();
        whole[7] = 1;
        whole.extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\xc0\x00\x02\x01");
        let rest = written(|out| cut(&whole, out).unwrap());
        whole[7] = 0;
        whole[2] |= header::FLAG_TC;
        assert_eq!(rest, whole[..question_end]);
    }

    #[test]
    fn an_error_echoes_id_question_rd_and_cd_only() {
        let query = QueryRef::parse(PLAIN).unwrap();
        let reply = written(|out| error(&query, Rcode::REFUSED, &BLOCKED, out));
        assert_eq!(
            reply,
            b"\x12\x34\x81\x95\x00\x01\x00\x00\x00\x00\x00\x00\x01A\x00\x00\x01\x00\x01".as_slice()
        );
    }

    #[test]
    fn a_client_with_edns_is_told_why() {
        let query = QueryRef::parse(WITH_EDNS).unwrap();
        let reply = written(|out| error(&query, Rcode::REFUSED, &BLOCKED, out));
        assert_eq!(reply[..12], *b"\x12\x34\x81\x95\x00\x01\x00\x00\x00\x00\x00\x01");
        assert_eq!(reply[19..], *b"\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x08\x00\x0f\x00\x04\x00\x0fno");
    }

    #[test]
    fn a_code_that_needs_edns_is_servfail_without_it() {
        let with = QueryRef::parse(WITH_EDNS).unwrap();
        let reply = written(|out| error(&with, Rcode(23), &ReplyOptions::default(), out));
        assert_eq!((reply[3] & 15, reply[19 + 5]), (7, 1));
        let without = QueryRef::parse(PLAIN).unwrap();
        let reply = written(|out| error(&without, Rcode(23), &ReplyOptions::default(), out));
        assert_eq!(reply[3] & 15, 2);
    }

    #[test]
    fn a_client_s_network_goes_back_with_scope_0() {
        let query = QueryRef::parse(WITH_EDNS).unwrap();
        let options = ReplyOptions { subnet: Some(b"\x00\x01\x08\x00\x0a"), ..Default::default() };
        let reply = written(|out| error(&query, Rcode::SERVFAIL, &options, out));
        assert_eq!(reply[19 + 9..], *b"\x00\x09\x00\x08\x00\x05\x00\x01\x08\x00\x0a");
    }

    #[test]
    fn too_little_room_gives_no_reply_and_too_little_for_the_reason_drops_that() {
        let query = QueryRef::parse(WITH_EDNS).unwrap();
        let mut out = [0; 64];
        assert_eq!(error(&query, Rcode::REFUSED, &BLOCKED, &mut out[..29]), 0);
        assert_eq!(error(&query, Rcode::REFUSED, &BLOCKED, &mut out[..30]), 30);
        assert_eq!(error(&query, Rcode::REFUSED, &BLOCKED, &mut out[..36]), 36);
    }

    #[test]
    fn a_rejection_echoes_the_opcode_and_a_question_that_can_be_read() {
        let mut notify = PLAIN.to_vec();
        notify[2] = 0x25;
        let reply = written(|out| reject(&notify, Rcode::NOTIMP, out).unwrap());
        assert_eq!(reply[..4], *b"\x12\x34\xa1\x94");
        assert_eq!(reply[12..], PLAIN[12..]);
        let unreadable = &PLAIN[..18];
        let reply = written(|out| reject(unreadable, Rcode::FORMERR, out).unwrap());
        assert_eq!(reply, b"\x12\x34\x81\x91\x00\x00\x00\x00\x00\x00\x00\x00");
    }

    #[test]
    fn badvers_comes_with_the_version_we_speak() {
        let mut future = WITH_EDNS.to_vec();
        future[19 + 6] = 1;
        assert_eq!(QueryRef::parse(&future).unwrap_err(), QueryFault::Reject(Rcode::BADVERS));
        let reply = written(|out| reject(&future, Rcode::BADVERS, out).unwrap());
        assert_eq!(reply[3] & 15, 0);
        assert_eq!(reply[19..], *b"\x00\x00\x29\x04\xd0\x01\x00\x00\x00\x00\x00");
    }

    #[test]
    fn nothing_is_said_to_a_response_or_to_half_a_header() {
        let mut out = [0; 64];
        assert_eq!(reject(&[0; 11], Rcode::FORMERR, &mut out), None);
        assert_eq!(reject(&[0x80; 12], Rcode::FORMERR, &mut out), None);
    }

    proptest! {
        #[test]
        fn no_octets_panic_a_rejection(
            message in prop::collection::vec(any::<u8>(), 0..64), rcode in any::<u16>(), room in 0_usize..64
        ) {
            let mut out = [0; 64];
            let written = reject(&message, Rcode(rcode), &mut out[..room]);
            prop_assert!(written.is_none_or(|len| len <= room));
        }
    }
}
