//! An answer at rest: one allocation that holds the message (ID 0, no OPT record, no additional section),
//! the offsets of its TTLs, the server's EDE code and the scope it named. It renders itself as the reply to a query: fresh,
//! stale and local answers alike.
//!
//! How long an answer lives and who may have it is the cache's business, not this file's.
//!
//! ```text
//! | prefix: 7 octets | TTL offsets: 2 octets each | message |
//! ```

use super::MAX_MESSAGE;
use super::ede::EdeCode;
use super::edns::{OptFields, ReplyOptions, write_opt};
use super::header::{FLAG_AD, FLAG_CD, FLAG_QR, FLAG_RA, FLAG_RD, FLAG_TC, HEADER_LEN, MASK_RCODE, Rcode};
use super::name::NameRef;
use super::query::QueryRef;
use super::question::{Class, QuestionRef, RecordType, Ttl};
use super::rebuild::{names_of, rebuild};
use super::response::{ResponseRef, Section};
use std::fmt;
use std::sync::Arc;

/// What becomes of the TTLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlRule {
    /// They stay as stored.
    Keep,
    /// The answer's age is subtracted, down to 0.
    Aged {
        /// Whole seconds since the answer was stored.
        secs: u32,
    },
    /// All of them are set to one value: a stale answer's 30 seconds (RFC 8767 §4).
    Fixed {
        /// The value.
        secs: u32,
    },
}

/// What is kept of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Authority records other than SOA (with DO: the DNSSEC records and NS).
    pub authority: bool,
    /// The AD bit.
    pub authentic_data: bool,
}

/// An answer at rest. Cloning is cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredAnswer(Arc<[u8]>);

impl StoredAnswer {
    /// Takes from a response what a client may see: the additional section goes, of the authority section
    /// stays what `keep` says; ID 0, AA and TC cleared, RD and RA set. The rcode with its upper bits, the
    /// first EDE code and the scope stay.
    pub fn from_response(response: &ResponseRef<'_>, keep: Keep) -> Self {
        let traits = Traits {
            ede: response.ede().map(|(code, _)| code),
            scope: response.ecs_scope().unwrap_or(0),
            rcode: response.rcode(),
            authentic_data: keep.authentic_data && response.header().authentic_data(),
        };
        match AuthorityCut::find(response, keep) {
            AuthorityCut::Tail(cut) => Self::untangled_from(response, cut, traits)
                .unwrap_or_else(|| Self::rebuilt_from(response, keep, traits)),
            AuthorityCut::Rebuild => Self::rebuilt_from(response, keep, traits),
        }
    }

    /// Makes a reply without records: a failure to remember (RFC 9520).
    pub fn failure(question: &QuestionRef<'_>, rcode: Rcode, ede: Option<EdeCode>) -> Self {
        let traits = Traits { ede, scope: 0, rcode, authentic_data: false };
        let mut octets = traits.prefix(question).encode(0).to_vec();
        octets.extend_from_slice(&traits.header([0, 0]));
        octets.extend_from_slice(question.name.as_bytes());
        octets.extend_from_slice(&question.rtype.0.to_be_bytes());
        octets.extend_from_slice(&question.class.0.to_be_bytes());
        Self(octets.into())
    }

    /// Returns the stored message as it is: ID 0, no OPT record.
    pub fn message(&self) -> &[u8] {
        self.parts().message
    }

    /// Returns the question it answers.
    pub fn question(&self) -> QuestionRef<'_> {
        let nothing = QuestionRef { name: NameRef::ROOT, rtype: RecordType(0), class: Class::IN };
        self.message().get(HEADER_LEN..).and_then(QuestionRef::parse).unwrap_or(nothing)
    }

    /// Returns the response code, upper bits included.
    pub fn rcode(&self) -> Rcode {
        self.parts().rcode()
    }

    /// Returns the EDE code that came with it.
    pub fn ede_code(&self) -> Option<EdeCode> {
        self.parts().prefix.ede
    }

    /// Returns the smallest TTL of all records; `None` without records.
    pub fn min_ttl(&self) -> Option<Ttl> {
        let parts = self.parts();
        ttls(parts.message, parts.ttl_offsets).min().map(Ttl)
    }

    /// Returns it with every TTL set within `min..=max`.
    pub fn clamp_ttls(&self, min: Ttl, max: Ttl) -> Self {
        let within = |secs: u32| secs.min(max.0).max(min.0);
        let parts = self.parts();
        if ttls(parts.message, parts.ttl_offsets).all(|secs| within(secs) == secs) {
            return self.clone();
        }
        let mut clamped = Arc::clone(&self.0);
        let octets = Arc::make_mut(&mut clamped);
        if let Some(message) = octets.get_mut(self.0.len() - parts.message.len()..) {
            change_ttls(message, parts.ttl_offsets, within);
        }
        Self(clamped)
    }

    /// Returns the octets it holds on the heap, the two counts of an `Arc` included.
    pub fn heap_len(&self) -> usize {
        let counts = 2 * size_of::<usize>();
        (counts + self.0.len()).next_multiple_of(align_of::<usize>())
    }

    /// Writes the reply to `query`, which asks the stored question, and returns its length. `out` is as
    /// long as the reply may be: a longer one is cut to header, question and OPT record, with TC=1. Returns
    /// 0 when not even that fits, or when the query's question has another length than the stored one.
    ///
    /// ID, RD and CD are the query's; AD is set if stored and the query had AD or DO (RFC 6840 §5.7, §5.8);
    /// the question's octets are the query's, letter case included; an OPT record is there if the query had
    /// one, with `options` or else the stored EDE code, unless no message has room for both it and the answer. No allocation, no
    /// walk over the records.
    pub fn render(
        &self,
        query: &QueryRef<'_>,
        ttl: TtlRule,
        options: &ReplyOptions<'_>,
        out: &mut [u8],
    ) -> usize {
        self.parts().render(query, ttl, options, out).unwrap_or(0)
    }

    /// Stores the response's octets before the cut.
    fn cut_from(response: &ResponseRef<'_>, cut: Cut, traits: Traits) -> Self {
        let kept = || {
            [Section::Answer, Section::Authority]
                .into_iter()
                .flat_map(|section| response.records(section))
                .take_while(move |record| record.end() <= cut.end)
        };
        let prefix = traits.prefix(&response.question());
        let count = kept().count();
        let message_at = PREFIX_LEN + 2 * count;
        // Filled where it stays: the one allocation of an answer that is kept, and no copy.
        let mut stored: Arc<[u8]> = std::iter::repeat_n(0, message_at + cut.end).collect();
        let octets = Arc::make_mut(&mut stored);
        let mut rest = &mut *octets;
        let mut append = |part: &[u8]| {
            if let Some((room, behind)) = std::mem::take(&mut rest).split_at_mut_checked(part.len()) {
                room.copy_from_slice(part);
                rest = behind;
            }
        };
        append(&prefix.encode(u16::try_from(count).unwrap_or(0)));
        for record in kept() {
            // Offsets are below 65,535 because no checked message is longer.
            append(&u16::try_from(record.ttl_offset).unwrap_or(0).to_be_bytes());
        }
        let [_, answers, ..] = response.header().counts();
        append(&traits.header([answers, cut.authorities]));
        append(response.bytes().get(HEADER_LEN..cut.end).unwrap_or_default());
        for record in kept() {
            // Written back because a TTL with the top bit set was read as 0.
            let at = message_at + record.ttl_offset;
            if let Some(field) = octets.get_mut(at..at + 4) {
                field.copy_from_slice(&record.ttl.0.to_be_bytes());
            }
        }
        Self(stored)
    }

    /// As `cut_from`; `None` when a name has labels within a TTL, so that the name would change as the answer ages. No
    /// server means that.
    fn untangled_from(response: &ResponseRef<'_>, cut: Cut, traits: Traits) -> Option<Self> {
        let stored = Self::cut_from(response, cut, traits);
        let parts = stored.parts();
        let settled = parts.prefix.question_end();
        let tangled = [Section::Answer, Section::Authority]
            .into_iter()
            .flat_map(|section| response.records(section))
            .take_while(|record| record.end() <= cut.end)
            .any(|record| {
                record.owner.passes_over(parts.ttl_offsets, settled)
                    || names_of(&record).any(|name| name.passes_over(parts.ttl_offsets, settled))
            });
        (!tangled).then_some(stored)
    }

    /// Stores the response, names in full, without the authority records that `keep` does not name.
    fn rebuilt_from(response: &ResponseRef<'_>, keep: Keep, traits: Traits) -> Self {
        let rebuilt = rebuild(response, &mut |section, record| match section {
            Section::Answer => true,
            Section::Authority => keep.authority || record.rtype == RecordType::SOA,
            Section::Additional => false,
        });
        if let Some(Ok(rebuilt)) = rebuilt.as_deref().map(ResponseRef::parse) {
            let [_, _, authorities, _] = rebuilt.header().counts();
            return Self::cut_from(&rebuilt, Cut { end: rebuilt.bytes().len(), authorities }, traits);
        }
        // Only a message built to burst gets here; its authority section is no loss.
        Self::untangled_from(response, Cut::before_authority(response), traits)
            .unwrap_or_else(|| Self::failure(&response.question(), Rcode::SERVFAIL, None))
    }

    /// Takes the octets apart.
    fn parts(&self) -> Parts<'_> {
        let nothing = Parts { prefix: Prefix::default(), ttl_offsets: &[], message: &[] };
        let Some((prefix, rest)) = self.0.split_first_chunk() else { return nothing };
        let (prefix, ttl_count) = Prefix::decode(*prefix);
        let Some((offsets, message)) = rest.split_at_checked(2 * usize::from(ttl_count)) else {
            return nothing;
        };
        let (ttl_offsets, _) = offsets.as_chunks();
        Parts { prefix, ttl_offsets, message }
    }
}

impl fmt::Debug for StoredAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let question = self.question();
        f.debug_struct("StoredAnswer")
            .field("question", &format_args!("{} {}", question.name, question.rtype))
            .field("rcode", &format_args!("{}", self.rcode()))
            .field("records", &self.parts().ttl_offsets.len())
            .field("ede", &self.ede_code())
            .finish()
    }
}

/// The parts of a stored answer.
#[derive(Clone, Copy, Debug)]
struct Parts<'a> {
    /// What is known beside the message.
    prefix: Prefix,
    /// Where the TTLs are, big endian.
    ttl_offsets: &'a [[u8; 2]],
    /// The message.
    message: &'a [u8],
}

impl Parts<'_> {
    /// Returns the response code, upper bits included.
    fn rcode(&self) -> Rcode {
        let low = self.message.get(3).map_or(0, |flags| flags & MASK_RCODE);
        Rcode::from_parts(low, self.prefix.rcode_upper)
    }

    /// See [`StoredAnswer::render`]; `None` where that returns 0.
    fn render(
        &self,
        query: &QueryRef<'_>,
        ttl: TtlRule,
        options: &ReplyOptions<'_>,
        out: &mut [u8],
    ) -> Option<usize> {
        let question_end = self.prefix.question_end();
        if HEADER_LEN + query.question().wire_len() != question_end {
            return None;
        }
        // The OPT record is measured without its EDE, which goes before data goes (RFC 8914 §3).
        let opt_len = options.opt_len();
        let has_opt = query.edns().is_some() && !self.leaves_no_room(opt_len, out.len());
        let opt_len = if has_opt { opt_len } else { 0 };
        let fits = self.message.len() + opt_len <= out.len();
        let body_len = if fits { self.message.len() } else { question_end };
        if body_len + opt_len > out.len() {
            return None;
        }
        let (body, room) = out.split_at_mut_checked(body_len)?;
        body.copy_from_slice(self.message.get(..body_len)?);
        body.get_mut(HEADER_LEN..question_end)?.copy_from_slice(query.bytes().get(HEADER_LEN..question_end)?);
        if fits {
            self.write_ttls(ttl, body);
        }
        let opt_len = if has_opt { self.write_opt(query, options, room)? } else { 0 };
        self.write_header(query, Shape { fits, has_opt }, body)?;
        Some(body_len + opt_len)
    }

    /// True for an answer that would be longer than any message together with an OPT record. RFC 6891 §6.1.1 wants the record in
    /// every reply to a query with one, but then this answer would never arrive: there is nothing after TCP.
    fn leaves_no_room(&self, opt_len: usize, limit: usize) -> bool {
        limit >= MAX_MESSAGE && self.message.len() <= limit && self.message.len() + opt_len > limit
    }

    /// Writes the TTLs as `rule` says.
    fn write_ttls(&self, rule: TtlRule, message: &mut [u8]) {
        match rule {
            TtlRule::Keep => {}
            TtlRule::Aged { secs } => change_ttls(message, self.ttl_offsets, |ttl| ttl.saturating_sub(secs)),
            TtlRule::Fixed { secs } => change_ttls(message, self.ttl_offsets, |_| secs),
        }
    }

    /// Writes the OPT record to the start of `room` and returns its length.
    fn write_opt(&self, query: &QueryRef<'_>, options: &ReplyOptions<'_>, room: &mut [u8]) -> Option<usize> {
        let Prefix { ede, scope, rcode_upper, .. } = self.prefix;
        let given = options.ede.map(|ede| (ede.code, &*ede.text));
        let fields = OptFields {
            extended_rcode: rcode_upper,
            dnssec_ok: query.dnssec_ok(),
            subnet: options.subnet.map(|subnet| (subnet, scope)),
            keepalive: options.keepalive,
            ede: given.or(ede.map(|code| (code, ""))),
        };
        write_opt(room, &fields)
    }

    /// Turns the stored header into the reply's.
    fn write_header(&self, query: &QueryRef<'_>, shape: Shape, message: &mut [u8]) -> Option<()> {
        let Shape { fits, has_opt } = shape;
        let asked = query.header();
        let header: &mut [u8; HEADER_LEN] = message.first_chunk_mut()?;
        let [id_high, id_low, third, fourth, _, _, answers @ .., additional_high, additional] = header;
        [*id_high, *id_low] = query.id().to_be_bytes();
        *third = FLAG_QR | flag(FLAG_RD, asked.recursion_desired()) | flag(FLAG_TC, !fits);
        // Without an OPT record the upper bits have no place, and the lower ones alone would tell a lie.
        let rcode = if has_opt || self.prefix.rcode_upper == 0 { self.rcode() } else { Rcode::SERVFAIL };
        let wants_ad = asked.authentic_data() || query.dnssec_ok();
        *fourth = FLAG_RA
            | flag(*fourth & FLAG_AD, wants_ad)
            | flag(FLAG_CD, asked.checking_disabled())
            | rcode.low();
        if !fits {
            answers.fill(0);
        }
        *additional_high = 0;
        *additional = u8::from(has_opt);
        Some(())
    }
}

/// What a reply has besides header and question.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// The records.
    fits: bool,
    /// An OPT record.
    has_opt: bool,
}

/// Returns `bit` if it is to be set.
fn flag(bit: u8, set: bool) -> u8 {
    if set { bit } else { 0 }
}

/// Reads the TTLs of a message.
fn ttls<'m>(message: &'m [u8], offsets: &'m [[u8; 2]]) -> impl Iterator<Item = u32> + use<'m> {
    offsets.iter().filter_map(|offset| {
        let at = usize::from(u16::from_be_bytes(*offset));
        message.get(at..)?.first_chunk().map(|field| u32::from_be_bytes(*field))
    })
}

/// Replaces the TTLs of a message.
fn change_ttls(message: &mut [u8], offsets: &[[u8; 2]], change: impl Fn(u32) -> u32) {
    for offset in offsets {
        let at = usize::from(u16::from_be_bytes(*offset));
        if let Some(field) = message.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *field = change(u32::from_be_bytes(*field)).to_be_bytes();
        }
    }
}

/// What a stored answer says besides its records.
#[derive(Clone, Copy, Debug)]
struct Traits {
    /// The EDE code.
    ede: Option<EdeCode>,
    /// SCOPE PREFIX-LENGTH of the Client Subnet option; 0 without one.
    scope: u8,
    /// The response code.
    rcode: Rcode,
    /// AD.
    authentic_data: bool,
}

impl Traits {
    /// Returns the header to store, with these counts of answer and authority records.
    fn header(&self, [answers, authorities]: [u16; 2]) -> [u8; HEADER_LEN] {
        let [an_high, an_low] = answers.to_be_bytes();
        let [ns_high, ns_low] = authorities.to_be_bytes();
        let fourth = FLAG_RA | flag(FLAG_AD, self.authentic_data) | self.rcode.low();
        [0, 0, FLAG_QR | FLAG_RD, fourth, 0, 1, an_high, an_low, ns_high, ns_low, 0, 0]
    }

    /// Returns the prefix of an answer to `question`.
    fn prefix(&self, question: &QuestionRef<'_>) -> Prefix {
        let name_len = u8::try_from(question.name.as_bytes().len()).unwrap_or(u8::MAX);
        Prefix { ede: self.ede, scope: self.scope, rcode_upper: self.rcode.extended(), name_len }
    }
}

/// Octets before the TTL offsets.
const PREFIX_LEN: usize = 7;

/// Stands for the absence of an EDE code: the last one for private use (RFC 8914 §5.2) cannot be kept.
const NO_EDE: u16 = u16::MAX;

/// What is known beside the message, so that rendering need not look for it.
#[derive(Clone, Copy, Debug, Default)]
struct Prefix {
    /// The EDE code.
    ede: Option<EdeCode>,
    /// How much of a client's network the answer is for (RFC 7871 §6); 0 when it is for all.
    scope: u8,
    /// The bits of the response code that have no place in the header.
    rcode_upper: u8,
    /// Octets of the question's name.
    name_len: u8,
}

impl Prefix {
    /// Packs it together with the number of TTL offsets.
    fn encode(self, ttl_count: u16) -> [u8; PREFIX_LEN] {
        let [count_high, count_low] = ttl_count.to_be_bytes();
        let [ede_high, ede_low] = self.ede.map_or(NO_EDE, |ede| ede.0).to_be_bytes();
        [count_high, count_low, ede_high, ede_low, self.scope, self.rcode_upper, self.name_len]
    }

    /// Reads it and the number of TTL offsets.
    fn decode(octets: [u8; PREFIX_LEN]) -> (Self, u16) {
        let [count_high, count_low, ede_high, ede_low, scope, rcode_upper, name_len] = octets;
        let ede = Some(u16::from_be_bytes([ede_high, ede_low])).filter(|code| *code != NO_EDE).map(EdeCode);
        (Self { ede, scope, rcode_upper, name_len }, u16::from_be_bytes([count_high, count_low]))
    }

    /// Returns where the question ends in the message.
    fn question_end(self) -> usize {
        HEADER_LEN + usize::from(self.name_len) + 4
    }
}

/// Where a message is cut off: nothing before the cut points behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    /// Octets that stay.
    end: usize,
    /// Authority records that stay.
    authorities: u16,
}

impl Cut {
    /// Leaves only the answer section.
    fn before_authority(response: &ResponseRef<'_>) -> Self {
        Self { end: response.section_start(Section::Authority), authorities: 0 }
    }
}

/// How the unwanted records leave a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AuthorityCut {
    /// They all stand behind what stays.
    Tail(Cut),
    /// Some stand before an SOA record.
    Rebuild,
}

impl AuthorityCut {
    /// Finds what has to go. Pointers only lead backwards, so that cutting a tail off breaks none.
    fn find(response: &ResponseRef<'_>, keep: Keep) -> Self {
        let [_, _, authorities, _] = response.header().counts();
        if keep.authority {
            return Self::Tail(Cut { end: response.section_start(Section::Additional), authorities });
        }
        let mut cut = Cut::before_authority(response);
        let mut dropped = false;
        for record in response.records(Section::Authority) {
            if record.rtype != RecordType::SOA {
                dropped = true;
            } else if dropped {
                return Self::Rebuild;
            } else {
                cut = Cut { end: record.end(), authorities: cut.authorities + 1 };
            }
        }
        Self::Tail(cut)
    }
}

#[cfg(test)]
mod tests {
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
        let written =
            stored.render(&asked.view(), TtlRule::Aged { secs: 7 }, &ReplyOptions::default(), &mut out);
        let reply = ResponseRef::parse(&out[..written]).unwrap();
        let name: crate::wire::name::Name = "a.".parse().unwrap();
        assert_eq!(reply.records(Section::Answer).count(), 2);
        assert!(reply.records(Section::Answer).all(|record| record.owner.eq_name(name.view())));
        assert!(reply.records(Section::Answer).all(|record| record.ttl == Ttl(0x161 - 7)));
    }
}
