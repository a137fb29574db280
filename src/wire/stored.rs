//! An answer at rest: one allocation that holds the message (ID 0, no OPT record, no additional section),
//! the offsets of its TTLs and the server's EDE code. It renders itself as the reply to a query: fresh,
//! stale and local answers alike.
//!
//! How long an answer lives and who may have it is the cache's business, not this file's.
//!
//! ```text
//! | prefix: 7 octets | TTL offsets: 2 octets each | message |
//! ```

use super::ede::{Ede, EdeCode};
use super::edns;
use super::header::{HEADER_LEN, Rcode};
use super::name::NameRef;
use super::query::QueryRef;
use super::question::{Class, QuestionRef, RecordType, Ttl};
use super::rebuild::rebuild;
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
    /// stays what `keep` says; ID 0, AA and TC cleared, RD and RA set. The rcode with its upper bits and
    /// the first EDE code stay.
    pub fn from_response(response: &ResponseRef<'_>, keep: Keep) -> Self {
        let traits = Traits {
            ede: response.ede().map(|(code, _)| code),
            rcode: response.rcode(),
            authentic_data: keep.authentic_data && response.header().authentic_data(),
        };
        match AuthorityCut::find(response, keep) {
            AuthorityCut::Tail(cut) => Self::cut_from(response, cut, traits),
            AuthorityCut::Rebuild => Self::rebuilt_from(response, traits),
        }
    }

    /// Makes a reply without records: a failure to remember (RFC 9520).
    pub fn failure(question: &QuestionRef<'_>, rcode: Rcode, ede: Option<EdeCode>) -> Self {
        let traits = Traits { ede, rcode, authentic_data: false };
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
        let parts = self.parts();
        let low = parts.message.get(3).map_or(0, |flags| flags & RCODE);
        Rcode(u16::from(parts.prefix.rcode_upper) << 4 | u16::from(low))
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
    /// one, with `ede` or else the stored EDE code. No allocation, no walk over the records.
    pub fn render(&self, query: &QueryRef<'_>, ttl: TtlRule, ede: Option<&Ede>, out: &mut [u8]) -> usize {
        self.parts().render(query, ttl, ede, out).unwrap_or(0)
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
        let mut octets = Vec::with_capacity(message_at + cut.end);
        octets.extend_from_slice(&prefix.encode(u16::try_from(count).unwrap_or(0)));
        for record in kept() {
            // Offsets are below 65,535 because no checked message is longer.
            octets.extend_from_slice(&u16::try_from(record.ttl_offset).unwrap_or(0).to_be_bytes());
        }
        let [_, answers, ..] = response.header().counts();
        octets.extend_from_slice(&traits.header([answers, cut.authorities]));
        octets.extend_from_slice(response.bytes().get(HEADER_LEN..cut.end).unwrap_or_default());
        for record in kept() {
            // Written back because a TTL with the top bit set was read as 0.
            let at = message_at + record.ttl_offset;
            if let Some(field) = octets.get_mut(at..at + 4) {
                field.copy_from_slice(&record.ttl.0.to_be_bytes());
            }
        }
        Self(octets.into())
    }

    /// Stores the response without the authority records that stand before its SOA.
    fn rebuilt_from(response: &ResponseRef<'_>, traits: Traits) -> Self {
        let rebuilt = rebuild(response, &mut |section, record| match section {
            Section::Answer => true,
            Section::Authority => record.rtype == RecordType::SOA,
            Section::Additional => false,
        });
        if let Some(Ok(rebuilt)) = rebuilt.as_deref().map(ResponseRef::parse) {
            let [_, _, authorities, _] = rebuilt.header().counts();
            return Self::cut_from(&rebuilt, Cut { end: rebuilt.bytes().len(), authorities }, traits);
        }
        // Only a message built to burst gets here; its authority section is no loss.
        Self::cut_from(response, Cut::before_authority(response), traits)
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
    /// See [`StoredAnswer::render`]; `None` where that returns 0.
    fn render(&self, query: &QueryRef<'_>, ttl: TtlRule, ede: Option<&Ede>, out: &mut [u8]) -> Option<usize> {
        let question_end = self.prefix.question_end();
        if HEADER_LEN + query.question().wire_len() != question_end {
            return None;
        }
        let stored_ede = self.prefix.ede.map(|code| Ede::new(code, ""));
        let opt = Opt::choose(query, ede.or(stored_ede.as_ref()), out.len().checked_sub(self.message.len()));
        let whole = opt.is_some();
        let body = if whole { self.message } else { self.message.get(..question_end)? };
        out.get_mut(..body.len())?.copy_from_slice(body);
        out.get_mut(HEADER_LEN..question_end)?.copy_from_slice(query.bytes().get(HEADER_LEN..question_end)?);
        if whole {
            self.write_ttls(ttl, out);
        }
        Some(body.len())
    }

    /// Writes the TTLs as `rule` says.
    fn write_ttls(&self, rule: TtlRule, message: &mut [u8]) {
        match rule {
            TtlRule::Keep => {}
            TtlRule::Aged { secs } => change_ttls(message, self.ttl_offsets, |ttl| ttl.saturating_sub(secs)),
            TtlRule::Fixed { secs } => change_ttls(message, self.ttl_offsets, |_| secs),
        }
    }
}
