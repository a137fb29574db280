//! What is told apart in the cache: the question without its letter case, and the bits that change an answer.

use crate::wire::question::QuestionRef;

/// Answers made under the same pair of group and answer-side rules are shared; others are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PartitionId(pub u32);

/// The bits of a query that change its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    pub dnssec_ok: bool,
    pub checking_disabled: bool,
    pub partition: PartitionId,
}

/// A key that borrows the question. The hash ignores letter case.
#[derive(Clone, Copy, Debug)]
pub struct KeyRef<'a> {
    pub question: QuestionRef<'a>,
    pub variant: Variant,
}
