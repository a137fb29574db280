//! The operator's file, turned into what the program runs on.

pub mod error;
pub mod file;
pub mod presets;
pub mod settings;
