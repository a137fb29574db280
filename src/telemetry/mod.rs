//! Counting and telling: what happened goes in as plain records, once; metrics page, logs and query log come out.

pub mod counters;
pub mod export;
pub mod logging;
pub mod outcome;
pub mod query_log;
