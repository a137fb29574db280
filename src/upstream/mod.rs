//! Named servers and groups of them: which one to ask, and whether it is well.

pub mod bootstrap;
pub mod group;
pub mod health;
pub mod latency;
pub mod probe;
pub mod strategy;
/// stub
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamId(pub usize);
