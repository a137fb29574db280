//! An answer at rest: one allocation that holds the message (ID 0, no OPT record, no additional section),
//! the offsets of its TTLs, the server's EDE code and the scope it named. It renders itself as the reply to a query: fresh,
//! stale and local answers alike.
//!
//! How long an answer lives and who may have it is the cache's business, not this file's.
//!
//! ```text
//! | prefix: 7 octets | TTL offsets: 2 octets each | message |
//! ```

mod prefix;
#[cfg(test)]
mod tests;

use self::prefix::{PREFIX_LEN, Prefix};
use super::MAX_MESSAGE;
use super::ede::EdeCode;
use super::edns::{OptFields, ReplyOptions, write_opt};
use super::header::{FLAG_AD, FLAG_CD, FLAG_QR, FLAG_RA, FLAG_RD, FLAG_TC, HEADER_LEN, MASK_RCODE, Rcode};
use super::letter_case;
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

    /// True when it answers `question`, letter case left out. Quicker than to compare [`Self::question`], which is read first.
    pub fn answers(&self, question: &QuestionRef<'_>) -> bool {
        let Parts { prefix, message, .. } = self.parts();
        let stored = message.get(HEADER_LEN..prefix.question_end()).and_then(<[u8]>::split_last_chunk);
        let [type_high, type_low] = question.rtype.0.to_be_bytes();
        let [class_high, class_low] = question.class.0.to_be_bytes();
        stored.is_some_and(|(name, rest)| {
            *rest == [type_high, type_low, class_high, class_low]
                && letter_case::same(name, question.name.as_bytes())
        })
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
