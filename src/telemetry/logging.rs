//! Set-up of the log: level, text or JSON, on standard error.
