//! The TOML of a configuration file, read into the tree of `document`. The parser recovers from an error, so a file
//! with a broken line still has its other lines checked. What is *not* here: which keys exist (`keys`) and what
//! they mean (`resolve`). No other module names `toml`.

use super::document::{Entry, Node, Place, Table, Value, lines_of};
use super::error::{Fault, Faults};
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Reads `source`, the text with index `text`, as TOML. Syntax errors go to `faults`; what could be understood beside them is returned.
pub(crate) fn parse(text: usize, source: &str, faults: &mut Faults) -> Table {
    let (document, errors) = DeTable::parse_recoverable(source);
    let mut broken = BrokenLines::default();
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let lines = lines_of(source, &span);
        // One error a line: what the parser says next is about its own guess.
        if broken.add(lines) {
            faults.push(Fault::at(&Place { text, span }, format!("not TOML: {}", error.message())));
        }
    }
    let mut table = convert_table(text, document.into_inner());
    if broken.join() {
        prune(&mut table, &broken);
    }
    table
}

/// The lines that are not TOML: for the start of each stretch of lines, its end. A file may be broken in every line.
#[derive(Default)]
struct BrokenLines(BTreeMap<usize, usize>);

impl BrokenLines {
    /// Adds a stretch. False: it is known already.
    fn add(&mut self, lines: Range<usize>) -> bool {
        let end = self.0.get(&lines.start).copied();
        if end.is_some_and(|end| end >= lines.end) {
            return false;
        }
        self.0.insert(lines.start, lines.end);
        true
    }

    /// Makes each stretch reach as far as those that begin before it, which is what `has` asks for. False: there is none.
    fn join(&mut self) -> bool {
        let mut furthest = 0;
        for end in self.0.values_mut() {
            furthest = furthest.max(*end);
            *end = furthest;
        }
        !self.0.is_empty()
    }

    /// True for an octet within one of them.
    fn has(&self, octet: usize) -> bool {
        self.0.range(..=octet).next_back().is_some_and(|(_, end)| octet < *end)
    }
}

/// Drops what the parser guessed from broken lines: an error about a guess would only confuse.
fn prune(table: &mut Table, broken: &BrokenLines) {
    table.retain(|_, entry| !broken.has(entry.key.span.start));
    for entry in table.values_mut() {
        prune_value(&mut entry.node, broken);
    }
}

/// Goes on into tables and lists of them.
fn prune_value(node: &mut Node, broken: &BrokenLines) {
    match &mut node.value {
        Value::Table(inner) => prune(inner, broken),
        Value::List(items) => items.iter_mut().for_each(|item| prune_value(item, broken)),
        Value::Text(_) | Value::Integer(_) | Value::Boolean(_) | Value::Foreign(_) => {}
    }
}

/// Converts a table of the parser.
fn convert_table(text: usize, table: DeTable<'_>) -> Table {
    let mut converted = Table::new();
    for (key, value) in table {
        let place = Place { text, span: key.span() };
        converted.insert(key.into_inner().into_owned(), Entry { key: place, node: convert(text, value) });
    }
    converted
}

/// Converts a value of the parser. The depth is bounded by the parser (80).
fn convert(text: usize, value: Spanned<DeValue<'_>>) -> Node {
    let place = Place { text, span: value.span() };
    let value = match value.into_inner() {
        DeValue::String(string) => Value::Text(string.into_owned()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or(Value::Foreign("a number too large"), Value::Integer),
        DeValue::Boolean(boolean) => Value::Boolean(boolean),
        DeValue::Float(_) => Value::Foreign("a fraction"),
        DeValue::Datetime(_) => Value::Foreign("a date"),
        DeValue::Array(items) => Value::List(items.into_iter().map(|item| convert(text, item)).collect()),
        DeValue::Table(table) => Value::Table(convert_table(text, table)),
    };
    Node { place, value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_octet_is_broken_when_some_stretch_has_it(
            stretches in proptest::collection::vec((0_usize..60, 0_usize..30), 0..12),
            octet in 0_usize..100,
        ) {
            let mut broken = BrokenLines::default();
            let mut kept: Vec<Range<usize>> = Vec::new();
            for (start, length) in stretches {
                let lines = start..start + length;
                let is_new = !kept.iter().any(|other| other.start == start && other.end >= lines.end);
                prop_assert_eq!(broken.add(lines.clone()), is_new);
                kept.push(lines);
            }
            prop_assert_eq!(broken.join(), !kept.is_empty());
            prop_assert_eq!(broken.has(octet), kept.iter().any(|lines| lines.contains(&octet)));
        }
    }
}
