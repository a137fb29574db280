//! Every error of a configuration, each with its file, line, column, the line itself with a caret, what was expected
//! and, for a misspelt name, the nearest known one. What is *not* here: finding the errors, and
//! how one is drawn (`report`).

use super::document::{Place, Text};
use super::report::draw;
use std::fmt;
use std::sync::Arc;

/// Errors shown in a report. Who has more mends these first; a file of rubbish would otherwise keep the reader waiting.
const MOST_SHOWN: usize = 50;

/// All that is wrong with a configuration: at least one error, in the order of the texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// In the order of the texts.
    faults: Vec<Fault>,
    /// What the errors' places point into. Shared: an error travels to the log and to systemd.
    texts: Arc<Vec<Text>>,
}

/// How a report looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appearance {
    /// For files, logs and pipes.
    Plain,
    /// With colours, for a terminal.
    Coloured,
}

/// One error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `None`: about a file as a whole, or about no file.
    pub(super) place: Option<Place>,
    /// What is wrong, beginning with the key.
    pub(super) message: String,
    /// Beside the caret: what was expected.
    pub(super) label: Option<String>,
    /// What to do.
    pub(super) help: Option<String>,
}

impl ConfigErrors {
    /// Puts the faults in the order a reader meets them; the same one is kept once.
    pub(crate) fn new(faults: Faults, texts: Vec<Text>) -> Self {
        let mut faults = faults.0;
        faults.sort_by_key(|fault| fault.place.as_ref().map(|place| (place.text, place.span.start)));
        faults.dedup();
        Self { faults, texts: Arc::new(texts) }
    }

    /// Returns how many errors there are.
    pub fn count(&self) -> usize {
        self.faults.len()
    }

    /// Lists the errors, one line each: `file:line:column: message`.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.faults.iter().map(|fault| match fault.position(&self.texts) {
            Some((name, line, column)) => format!("{name}:{line}:{column}: {}", fault.message),
            None => fault.message.clone(),
        })
    }

    /// Writes the report: the first errors with their lines, and how many there are.
    pub fn render(&self, appearance: Appearance) -> String {
        let mut report = String::new();
        for fault in self.faults.iter().take(MOST_SHOWN) {
            report.push_str(&draw(fault, &self.texts, appearance));
            report.push_str("\n\n");
        }
        let plural = if self.faults.len() == 1 { "" } else { "s" };
        report.push_str(&format!("{} error{plural} in the configuration", self.faults.len()));
        if self.faults.len() > MOST_SHOWN {
            report.push_str(&format!("; the first {MOST_SHOWN} are shown"));
        }
        report
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Appearance::Plain))
    }
}

impl std::error::Error for ConfigErrors {}

impl Fault {
    /// Makes an error about a place.
    pub(crate) fn at(place: &Place, message: impl Into<String>) -> Self {
        Self { place: Some(place.clone()), message: message.into(), label: None, help: None }
    }

    /// Makes an error about no line in particular.
    pub(crate) fn without_place(message: impl Into<String>) -> Self {
        Self { place: None, message: message.into(), label: None, help: None }
    }

    /// Adds what stands beside the caret: what was expected.
    pub(crate) fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Adds what to do about it.
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Returns the text's name, line and column (in characters, from 1).
    pub(super) fn position<'t>(&self, texts: &'t [Text]) -> Option<(&'t str, usize, usize)> {
        let place = self.place.as_ref()?;
        let text = texts.get(place.text)?;
        let before = text.text.get(..place.span.start)?;
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        let column = before.get(line_start..)?.chars().count() + 1;
        Some((text.name.as_str(), line, column))
    }

    /// Names the key in front of the message.
    pub(crate) fn of_key(mut self, key: &str) -> Self {
        self.message = format!("{key}: {}", self.message);
        self
    }
}

/// Collects errors, so that one does not hide the next.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    /// Adds an error.
    pub(crate) fn push(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    /// Keeps the value of a success and the error of a failure.
    pub(crate) fn keep<T>(&mut self, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| self.push(fault)).ok()
    }

    /// Returns how much has been wrong so far.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns true when nothing was wrong.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Returns the known name that a misspelt one most likely means, if any is near.
pub(crate) fn nearest<'k>(wrong: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    /// Below this similarity a suggestion is a guess: found by trying usual slips and unrelated words.
    const NEAR: f64 = 0.8;
    /// Longer than any name by more than a slip. The comparison takes the product of both lengths.
    const LONGEST: usize = 80;
    if wrong.len() > LONGEST {
        return None;
    }
    let wrong = wrong.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&wrong, name), name))
        .filter(|(similarity, _)| *similarity >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
