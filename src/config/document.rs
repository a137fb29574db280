//! What the operator wrote, as one tree: every value with the text and the place it came from, so that an error can
//! point at it however many files, variables and flags were merged. What is *not* here: any syntax (`file`,
//! `overrides`) and any meaning (`resolve`).

use super::error::Fault;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

/// A piece of text that settings came from: a file, one environment variable, one flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    /// What an error calls it: the file's path, `environment`, `command line`.
    pub(crate) name: String,
    /// What it says.
    pub(crate) text: String,
    /// Where relative paths in it start.
    pub(crate) folder: PathBuf,
}

/// A part of one of the texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index into the list of texts.
    pub(crate) text: usize,
    /// Octets of that text.
    pub(crate) span: Range<usize>,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// Where it stands.
    pub(crate) place: Place,
    /// What it is.
    pub(crate) value: Value,
}

/// The kinds of value that our keys use; the rest of TOML is `Foreign`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// A string.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// `true` or `false`.
    Boolean(bool),
    /// An array, also one of tables.
    List(Vec<Node>),
    /// A table.
    Table(Table),
    /// Floats, dates, integers past 64 bits: no key has one, so only the name of the kind is kept.
    Foreign(&'static str),
}

/// A table: keys in order of their names; errors are put in the order of the texts later.
pub(crate) type Table = BTreeMap<String, Entry>;

/// A key of a table with its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// Where the key itself stands.
    pub(crate) key: Place,
    /// Its value.
    pub(crate) node: Node,
}

impl Node {
    /// Returns the string.
    pub(crate) fn text(&self) -> Result<&str, Fault> {
        match &self.value {
            Value::Text(text) => Ok(text),
            Value::Integer(_) | Value::Boolean(_) | Value::List(_) | Value::Table(_) | Value::Foreign(_) => {
                Err(self.wrong_kind("a string in quotes"))
            }
        }
    }

    /// Returns the integer.
    pub(crate) fn integer(&self) -> Result<i64, Fault> {
        match &self.value {
            Value::Integer(number) => Ok(*number),
            Value::Text(_) | Value::Boolean(_) | Value::List(_) | Value::Table(_) | Value::Foreign(_) => {
                Err(self.wrong_kind("a whole number"))
            }
        }
    }

    /// Returns the boolean.
    pub(crate) fn boolean(&self) -> Result<bool, Fault> {
        match &self.value {
            Value::Boolean(value) => Ok(*value),
            Value::Text(_) | Value::Integer(_) | Value::List(_) | Value::Table(_) | Value::Foreign(_) => {
                Err(self.wrong_kind("true or false, without quotes"))
            }
        }
    }

    /// Returns the list's items.
    pub(crate) fn list(&self) -> Result<&[Node], Fault> {
        match &self.value {
            Value::List(items) => Ok(items),
            Value::Text(text) => {
                Err(self.wrong_kind("a list").with_help(format!("write [{text:?}], in brackets")))
            }
            Value::Integer(_) | Value::Boolean(_) | Value::Table(_) | Value::Foreign(_) => {
                Err(self.wrong_kind("a list in brackets"))
            }
        }
    }

    /// Returns the table.
    pub(crate) fn table(&self) -> Result<&Table, Fault> {
        match &self.value {
            Value::Table(table) => Ok(table),
            Value::Text(_) | Value::Integer(_) | Value::Boolean(_) | Value::List(_) | Value::Foreign(_) => {
                Err(self.wrong_kind("a table"))
            }
        }
    }

    /// Makes an error of this value: `message` says what is wrong, `expected` stands beside the caret.
    pub(crate) fn fault(&self, message: impl Into<String>, expected: impl Into<String>) -> Fault {
        Fault::at(&self.place, message).with_label(expected)
    }

    /// Makes the error for a value of another kind than its key has.
    fn wrong_kind(&self, expected: &str) -> Fault {
        self.fault(format!("found {}", self.value.kind()), format!("expected {expected}"))
    }
}

impl Value {
    /// Names the kind for an error.
    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "a number",
            Self::Boolean(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Foreign(kind) => kind,
        }
    }
}

/// Returns the whole lines that `span` touches.
pub(crate) fn lines_of(source: &str, span: &Range<usize>) -> Range<usize> {
    let before = source.get(..span.start).unwrap_or(source);
    let after = source.get(span.end..).unwrap_or("");
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let end = after.find('\n').map_or(source.len(), |at| span.end + at);
    start..end
}

/// Puts `later` over `base`: tables key by key, arrays of tables (`[[route]]`) appended, everything else replaced.
pub(crate) fn merge(base: &mut Table, later: Table) {
    for (name, entry) in later {
        let Some(existing) = base.get_mut(&name) else {
            base.insert(name, entry);
            continue;
        };
        match (&mut existing.node.value, entry.node.value) {
            (Value::Table(old), Value::Table(new)) => merge(old, new),
            (Value::List(old), Value::List(new)) if all_tables(old) && all_tables(&new) => old.extend(new),
            (slot, value) => {
                *slot = value;
                existing.node.place = entry.node.place;
                existing.key = entry.key;
            }
        }
    }
}

/// Tells arrays of tables from plain lists. An empty list is a plain one: it replaces.
fn all_tables(items: &[Node]) -> bool {
    !items.is_empty() && items.iter().all(|item| matches!(item.value, Value::Table(_)))
}
