//! What we think of a query or an answer, before and after the network. Pure: no I/O, no clock, no client.

pub mod client_subnet;
pub mod name_set;
pub mod query_type;
pub mod rebinding;
pub mod special_use;

use crate::wire::ede::Ede;
use crate::wire::header::Rcode;
use crate::wire::query::QueryRef;
use crate::wire::response::ResponseRef;
use crate::wire::stored::StoredAnswer;
use std::fmt::Debug;

/// A rule's opinion.
#[derive(Clone, Debug)]
pub enum Verdict {
    Pass,
    /// Good: later rules are not asked.
    Accept,
    /// Answer with this.
    Answer(StoredAnswer),
    /// Reply with rcode and reason (BLOCKED 15, FILTERED 17, PROHIBITED 18, NOT_SUPPORTED 21).
    Refuse(Rcode, Ede),
    Drop,
}
/// One rule.
pub trait Rule: Debug + Send + Sync {
    fn name(&self) -> &'static str;
    fn on_query(&self, _query: &QueryRef<'_>) -> Verdict {
        Verdict::Pass
    }
    fn on_answer(
        &self,
        _query: &crate::wire::question::QuestionRef<'_>,
        _answer: &ResponseRef<'_>,
    ) -> Verdict {
        Verdict::Pass
    }
}
/// The rules in force, in order.
#[derive(Debug)]
pub struct PolicySet {
    rules: Vec<Box<dyn Rule>>,
    /* hash of what the answer-side rules were built from, for PartitionId */ answer_side: u32,
}
impl PolicySet {
    /// Builds the rules in their order: query_type, special_use, (routes' names pass special_use: a name within a route is never answered here), rebinding.
    pub fn build(_settings: &crate::config::settings::Settings) -> Self {
        todo!()
    }
    pub fn on_query(&self, _query: &QueryRef<'_>) -> (Verdict, &'static str) {
        let _ = &self.rules;
        todo!()
    }
    /// `own_group`: names of a route to a group of the operator's own may have private addresses.
    pub fn on_answer(
        &self,
        _question: &crate::wire::question::QuestionRef<'_>,
        _answer: &ResponseRef<'_>,
        _own_group: bool,
    ) -> (Verdict, &'static str) {
        todo!()
    }
    pub fn answer_side_hash(&self) -> u32 {
        self.answer_side
    }
}
