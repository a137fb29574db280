//! The operator: signals, reload, systemd.

pub mod systemd;
