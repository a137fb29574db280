//! Counting and telling: what happened goes in as plain records, once; metrics page, logs and query log come out.

pub mod bounds;
pub mod counters;
pub mod dnstap;
pub mod export;
pub mod exposition;
mod feed;
mod histogram;
pub mod logging;
pub mod outcome;
pub mod page;
mod process;
mod query_line;
pub mod query_log;
mod sample;
pub mod tally;
pub mod throttle;
pub(crate) mod timestamp;
pub mod traces;
