//! Is this response an answer to our question? What is not is refused with the rule it broke; what does not belong in
//! it is scrubbed. Nothing that fails here is cached or reaches a client.

#[cfg(test)]
mod tests;

use crate::policy::client_subnet::SubnetContent;
use crate::wire::edns::OPTION_ECS;
use crate::wire::question::{QuestionRef, RecordType};
use crate::wire::rebuild::rebuild;
use crate::wire::response::{PackedName, RecordRef, ResponseFault, ResponseRef, Section};
use crate::wire::stored::{Keep, StoredAnswer};
use bytes::Bytes;

/// Names in one chain of aliases, the question's included. Longer ones are no answer (unbound follows 11).
const MAX_CHAIN: usize = 24;

/// Comparisons of names that one message is worth. An ordinary answer needs one for each record; a message built to cost
/// time, its names long and its chain backwards, would need a thousand times as many.
const MAX_COMPARISONS: u32 = 16_384;

/// What we asked, and what we make of flags in the reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// The question of our query.
    pub(super) question: QuestionRef<'a>,
    /// Did we ask for DNSSEC records? Then signatures, and all of the authority section, stay.
    pub(super) dnssec_ok: bool,
    /// The client network that our query named.
    pub(super) subnet: Option<&'a SubnetContent>,
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
        if self.is_for_another_network(&response) {
            return Err(ResponseFault::Subnet);
        }
        let mut chain = Chain::new(*self, &response);
        let related = chain.follow(&response);
        let answers = response.records(Section::Answer).count();
        if chain.is_exhausted() || related == 0 && answers > 0 {
            return Err(ResponseFault::Unrelated);
        }
        if related == answers {
            return Ok(message);
        }
        let mut keep =
            |section: Section, record: &RecordRef<'_>| section != Section::Answer || chain.holds(record);
        let rebuilt = rebuild(&response, &mut keep);
        if chain.is_exhausted() {
            return Err(ResponseFault::Unrelated);
        }
        rebuilt.ok_or(ResponseFault::Record)
    }

    /// True when the response says that it is about another network than the one we named: such an answer is not to be used (RFC
    /// 7871 §7.3).
    fn is_for_another_network(&self, response: &ResponseRef<'_>) -> bool {
        let said = || response.edns()?.option(OPTION_ECS);
        self.subnet.is_some_and(|subnet| said().is_some_and(|option| !subnet.is_echoed_by(option)))
    }

    /// Turns a response that was found good into the form in which it is kept and rendered.
    pub(super) fn keep(&self, response: &ResponseRef<'_>) -> StoredAnswer {
        let authentic_data = self.trust_ad && response.header().authentic_data();
        StoredAnswer::from_response(response, Keep { authority: self.dnssec_ok, authentic_data })
    }

    /// True for records of a kind that an answer to the question may hold: what was asked for and what leads to it. Signatures
    /// only on request (RFC 4035 §3.2.1).
    fn may_hold(&self, record: &RecordRef<'_>) -> bool {
        let wanted = self.question.rtype;
        record.class == self.question.class
            && match record.rtype {
                RecordType::CNAME | RecordType::DNAME => true,
                RecordType::RRSIG if self.dnssec_ok => true,
                rtype => rtype == wanted || wanted == RecordType::ANY,
            }
    }
}

/// The names an answer may be about: the question's, and those it leads to by CNAME and DNAME (RFC 1034 §3.6.2, RFC 6672).
struct Chain<'a, 'q> {
    /// What was asked.
    asked: Asked<'q>,
    /// The names so far.
    names: [Option<PackedName<'a>>; MAX_CHAIN],
    /// How many.
    len: usize,
    /// The chain is longer than that.
    is_too_long: bool,
    /// Comparisons left.
    comparisons: u32,
}

impl<'a, 'q> Chain<'a, 'q> {
    /// Starts at the question.
    fn new(asked: Asked<'q>, response: &ResponseRef<'a>) -> Self {
        let mut names = [None; MAX_CHAIN];
        if let Some(first) = names.first_mut() {
            *first = Some(response.question_name());
        }
        Self { asked, names, len: 1, is_too_long: false, comparisons: MAX_COMPARISONS }
    }

    /// Adds the targets of aliases until nothing new comes; returns how many answer records belong to the chain.
    /// Servers send chains in order, so one pass is the rule; each further pass has added a name, so the work is bounded.
    fn follow(&mut self, response: &ResponseRef<'a>) -> usize {
        loop {
            let before = self.len;
            let mut related = 0;
            let mut answers = 0;
            for record in response.records(Section::Answer) {
                answers += 1;
                related += usize::from(self.take(&record));
            }
            if self.len == before || related == answers || self.is_exhausted() {
                return related;
            }
        }
    }

    /// Adds where a record of the chain leads; returns whether it is one.
    fn take(&mut self, record: &RecordRef<'a>) -> bool {
        let is_related = self.holds(record);
        if is_related
            && record.rtype == RecordType::CNAME
            && let Some(target) = record.rdata_name(0)
        {
            self.add(target);
        }
        is_related
    }

    /// Returns true when the chain or its cost passed all bounds: what was found then means nothing.
    fn is_exhausted(&self) -> bool {
        self.is_too_long || self.comparisons == 0
    }

    /// Returns true when the record is of a kind that may be here and its owner is in the chain; a DNAME (and its
    /// signature) stands above a name of it.
    fn holds(&mut self, record: &RecordRef<'_>) -> bool {
        let covers_dname = record.rtype == RecordType::DNAME
            || (record.rtype == RecordType::RRSIG
                && record.rdata.get(..2) == Some(&RecordType::DNAME.0.to_be_bytes()));
        if !self.asked.may_hold(record) {
            return false;
        }
        for name in self.names.iter().take(self.len).rev().flatten() {
            self.comparisons = self.comparisons.saturating_sub(1);
            if self.comparisons == 0 {
                return false;
            }
            if name.eq_packed(&record.owner) || (covers_dname && name.is_below(&record.owner)) {
                return true;
            }
        }
        false
    }

    /// Adds a name unless it is there.
    fn add(&mut self, name: PackedName<'a>) {
        let known = self.names.iter().take(self.len).flatten().any(|known| known.eq_packed(&name));
        if known {
            return;
        }
        match self.names.get_mut(self.len) {
            Some(place) => {
                *place = Some(name);
                self.len += 1;
            }
            None => self.is_too_long = true,
        }
    }
}
