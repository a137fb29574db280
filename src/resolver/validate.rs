//! Is this response an answer to our question? What is not is refused with the rule it broke; what does not belong in
//! it is scrubbed. Nothing that fails here is cached or reaches a client.

use crate::wire::question::{QuestionRef, RecordType};
use crate::wire::rebuild::rebuild;
use crate::wire::response::{PackedName, RecordRef, ResponseFault, ResponseRef, Section};
use crate::wire::stored::{Keep, StoredAnswer};
use bytes::Bytes;

/// Names in one chain of aliases, the question's included. Longer ones are no ordinary answer (unbound follows 11).
const MAX_CHAIN: usize = 24;

/// What we asked, and what we make of flags in the reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// The question of our query.
    pub(super) question: QuestionRef<'a>,
    /// Did we ask for DNSSEC records? Then those of the authority section stay.
    pub(super) dnssec_ok: bool,
    /// Is this server's AD bit believed?
    pub(super) trust_ad: bool,
}

impl Asked<'_> {
    /// Checks `message`, which may be rewritten without what does not belong in it.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub(super) fn check(&self, message: Bytes) -> Result<Bytes, ResponseFault> {
        let response = ResponseRef::parse(&message)?;
        if response.header().is_truncated() {
            return Err(ResponseFault::Truncated);
        }
        if !response.question().matches(&self.question) {
            return Err(ResponseFault::QuestionMismatch);
        }
        let mut chain = Chain::new(&response);
        let related = chain.follow(&response);
        let answers = response.records(Section::Answer).count();
        if related == answers {
            return Ok(message);
        }
        if related == 0 {
            return Err(ResponseFault::Unrelated);
        }
        let mut keep =
            |section: Section, record: &RecordRef<'_>| section != Section::Answer || chain.owns(record);
        rebuild(&response, &mut keep).ok_or(ResponseFault::Record)
    }

    /// Turns a response that was found good into the form in which it is kept and rendered.
    pub(super) fn keep(&self, response: &ResponseRef<'_>) -> StoredAnswer {
        let authentic_data = self.trust_ad && response.header().authentic_data();
        StoredAnswer::from_response(response, Keep { authority: self.dnssec_ok, authentic_data })
    }
}

/// The names an answer may be about: the question's, and those it leads to by CNAME and DNAME (RFC 1034 §3.6.2, RFC 6672).
struct Chain<'a> {
    /// The names so far.
    names: [Option<PackedName<'a>>; MAX_CHAIN],
    /// How many.
    len: usize,
}

impl<'a> Chain<'a> {
    /// Starts at the question.
    fn new(response: &ResponseRef<'a>) -> Self {
        let mut names = [None; MAX_CHAIN];
        if let Some(first) = names.first_mut() {
            *first = Some(response.question_name());
        }
        Self { names, len: 1 }
    }

    /// Adds the targets of aliases until nothing new comes; returns how many answer records belong to the chain.
    /// Servers send chains in order, so one pass is the rule; each further pass has added a name, so the work is bounded.
    fn follow(&mut self, response: &ResponseRef<'a>) -> usize {
        loop {
            let before = self.len;
            let mut related = 0;
            for record in response.records(Section::Answer) {
                if !self.owns(&record) {
                    continue;
                }
                related += 1;
                if record.rtype == RecordType::CNAME
                    && let Some(target) = record.rdata_name(0)
                {
                    self.add(target);
                }
            }
            if self.len == before || related == response.records(Section::Answer).count() {
                return related;
            }
        }
    }

    /// Returns true when the record's owner is in the chain; a DNAME (and its signature) stands above a name of it.
    fn owns(&self, record: &RecordRef<'_>) -> bool {
        let covers_dname = record.rtype == RecordType::DNAME
            || (record.rtype == RecordType::RRSIG
                && record.rdata.get(..2) == Some(&RecordType::DNAME.0.to_be_bytes()));
        self.names
            .iter()
            .take(self.len)
            .rev()
            .flatten()
            .any(|name| name.eq_packed(&record.owner) || (covers_dname && name.is_below(&record.owner)))
    }

    /// Adds a name unless it is there or the chain is full.
    fn add(&mut self, name: PackedName<'a>) {
        let known = self.names.iter().take(self.len).flatten().any(|known| known.eq_packed(&name));
        if known {
            return;
        }
        if let Some(place) = self.names.get_mut(self.len) {
            *place = Some(name);
            self.len += 1;
        }
    }
}
