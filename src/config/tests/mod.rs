//! Tests of the whole: from texts to settings or to a report.

mod collectors;
mod faults;
mod servers;
mod shipped;
mod sources;
mod whole;

use super::document::{Table, Value};
use super::error::{Appearance, ConfigErrors};
use super::overrides::{Assigned, Overrides};
use super::settings::timeouts::*;
use super::settings::*;
use super::*;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

/// Reads a text that is good.
fn good(text: &str) -> Settings {
    from_text(text, Path::new("/nowhere")).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Reads a text that is not, and returns `line:column: message` of each error.
fn bad(text: &str) -> Vec<String> {
    lines(&from_text(text, Path::new("/nowhere")).expect_err("an error"))
}

/// Lists errors without the name of the text.
fn lines(errors: &ConfigErrors) -> Vec<String> {
    errors.lines().map(|line| line.strip_prefix("configuration:").unwrap_or(&line).to_owned()).collect()
}

/// Returns the whole report of a text that is not good.
fn report(text: &str) -> String {
    from_text(text, Path::new("/nowhere")).expect_err("an error").to_string()
}

/// Reads with variables and flags over a text in a folder of its own.
fn with_overrides(text: &str, overrides: Overrides) -> Result<Settings, ConfigErrors> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("veildns.toml");
    fs::write(&path, text).unwrap();
    load(&Source { path: Some(path), overrides })
}

/// Makes variables.
fn environment(variables: &[(&str, &str)]) -> Overrides {
    Overrides::default()
        .with_environment(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}
