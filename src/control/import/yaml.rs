//! YAML as the tree that configurations are read from (`config::document`): every scalar as the text it is, every value with
//! its place. What stubby does not take is an error here too: aliases, keys that are no scalars. No other module names
//! `saphyr_parser`.

use crate::config::document::{Entry, Node, Place, Table, Value};
use crate::config::error::{Fault, Faults};
use saphyr_parser::{Event, Marker, Parser, Span};
use std::ops::Range;

/// Levels of lists and tables within one another: stubby has three.
const DEEPEST: usize = 16;

/// Reads `source`, the text with index `text`, as one mapping. Errors go to `faults`.
pub(super) fn parse(text: usize, source: &str, faults: &mut Faults) -> Table {
    let mut reader =
        Reader { text, lines: line_starts(source), source, events: Parser::new_from_str(source) };
    match reader.document() {
        Ok(table) => table,
        Err(fault) => {
            faults.push(fault);
            Table::new()
        }
    }
}

/// Reads event by event.
struct Reader<'a> {
    /// Index of the text.
    text: usize,
    /// What is read.
    source: &'a str,
    /// Where each of its lines begins, in octets.
    lines: Vec<usize>,
    /// The parser.
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
}

impl Reader<'_> {
    /// Reads the first document; a text with none is an empty mapping.
    fn document(&mut self) -> Result<Table, Fault> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(Table::new()),
                (Event::MappingStart(..), span) => return self.mapping(&span, 1),
                (Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd, _) => {}
                (
                    Event::Alias(_)
                    | Event::Scalar(..)
                    | Event::SequenceStart(..)
                    | Event::SequenceEnd
                    | Event::MappingEnd,
                    span,
                ) => {
                    let place = self.place(&span);
                    return Err(Fault::at(&place, "no configuration of stubby")
                        .with_label("expected lines such as `listen_addresses:`"));
                }
            }
        }
    }

    /// Returns the next event; the end of the text comes as one too.
    fn next(&mut self) -> Result<(Event<'static>, Span), Fault> {
        match self.events.next_event() {
            Some(Ok((event, span))) => Ok((owned(event), span)),
            Some(Err(error)) => {
                let at = self.octet(error.marker());
                let place = Place { text: self.text, span: at..at };
                Err(Fault::at(&place, format!("not YAML: {}", error.info())))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    /// Reads a mapping whose start was read.
    fn mapping(&mut self, start: &Span, depth: usize) -> Result<Table, Fault> {
        self.check_depth(start, depth)?;
        let mut table = Table::new();
        loop {
            let (event, span) = self.next()?;
            let key = match event {
                Event::MappingEnd | Event::StreamEnd => return Ok(table),
                Event::Scalar(key, ..) => key.into_owned(),
                Event::Nothing
                | Event::StreamStart
                | Event::DocumentStart(_)
                | Event::DocumentEnd
                | Event::Alias(_)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingStart(..) => {
                    return Err(Fault::at(&self.place(&span), "a key has to be a word"));
                }
            };
            let place = self.place(&span);
            let node = self.value(depth)?;
            if table.contains_key(&key) {
                return Err(Fault::at(&place, format!("{key} is written twice")).with_label("leave one out"));
            }
            table.insert(key, Entry { key: place, node });
        }
    }

    /// Reads the value of a key.
    fn value(&mut self, depth: usize) -> Result<Node, Fault> {
        let (event, span) = self.next()?;
        self.node(event, &span, depth)
    }

    /// Reads the value that begins with `event`.
    fn node(&mut self, event: Event<'static>, span: &Span, depth: usize) -> Result<Node, Fault> {
        let place = self.place(span);
        let value = match event {
            Event::Scalar(text, ..) => Value::Text(text.into_owned()),
            Event::MappingStart(..) => Value::Table(self.mapping(span, depth + 1)?),
            Event::SequenceStart(..) => Value::List(self.sequence(span, depth + 1)?),
            Event::Alias(_) => return Err(Fault::at(&place, "aliases are not supported")),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Err(Fault::at(&place, "a value is missing")),
        };
        Ok(Node { place, value })
    }

    /// Reads a sequence whose start was read.
    fn sequence(&mut self, start: &Span, depth: usize) -> Result<Vec<Node>, Fault> {
        self.check_depth(start, depth)?;
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd | Event::StreamEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, &span, depth)?),
            }
        }
    }

    /// Refuses a text that would take more and more of the stack.
    fn check_depth(&self, start: &Span, depth: usize) -> Result<(), Fault> {
        if depth > DEEPEST {
            return Err(Fault::at(&self.place(start), "too many levels"));
        }
        Ok(())
    }

    /// Returns where something stands.
    fn place(&self, span: &Span) -> Place {
        let start = self.octet(&span.start);
        Place { text: self.text, span: first_line(self.source, start..self.octet(&span.end).max(start)) }
    }

    /// Returns the octet of a marker, which counts characters.
    fn octet(&self, marker: &Marker) -> usize {
        let start = self.lines.get(marker.line().saturating_sub(1)).copied().unwrap_or(self.source.len());
        let rest = self.source.get(start..).unwrap_or_default();
        start + rest.char_indices().nth(marker.col()).map_or(rest.len(), |(at, _)| at)
    }
}

/// Returns the event without its hold on the text.
fn owned(event: Event<'_>) -> Event<'static> {
    match event {
        Event::Nothing => Event::Nothing,
        Event::StreamStart => Event::StreamStart,
        Event::StreamEnd => Event::StreamEnd,
        Event::DocumentStart(explicit) => Event::DocumentStart(explicit),
        Event::DocumentEnd => Event::DocumentEnd,
        Event::Alias(anchor) => Event::Alias(anchor),
        // Tags mean nothing here.
        Event::Scalar(text, style, anchor, _) => Event::Scalar(text.into_owned().into(), style, anchor, None),
        Event::SequenceStart(anchor, _) => Event::SequenceStart(anchor, None),
        Event::SequenceEnd => Event::SequenceEnd,
        Event::MappingStart(anchor, _) => Event::MappingStart(anchor, None),
        Event::MappingEnd => Event::MappingEnd,
    }
}

/// Cuts a place at the end of its first line: what an error shows is a line, not a table.
fn first_line(source: &str, span: Range<usize>) -> Range<usize> {
    let end =
        source.get(span.clone()).and_then(|text| text.find('\n')).map_or(span.end, |at| span.start + at);
    span.start..end
}

/// Returns where each line begins.
fn line_starts(source: &str) -> Vec<usize> {
    std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::Text;
    use crate::config::error::ConfigErrors;

    /// Reads a text, and returns the errors as lines.
    fn read(source: &str) -> (Table, Vec<String>) {
        let mut faults = Faults::default();
        let table = parse(0, source, &mut faults);
        let text = Text { name: "a.yml".to_owned(), text: source.to_owned(), folder: ".".into() };
        let errors = ConfigErrors::new(faults, vec![text]).lines().collect();
        (table, errors)
    }

    #[test]
    fn values_are_texts_with_their_places() {
        let source = "# ä\nlisten:\n  - 127.0.0.1@53\n  -  \"0::1\"\nsub: {a: 1, b: [x, y]}\n";
        let (table, errors) = read(source);
        assert_eq!(errors, [] as [String; 0]);
        let items = table["listen"].node.list().unwrap();
        let texts: Vec<&str> = items.iter().map(|item| item.text().unwrap()).collect();
        assert_eq!(texts, ["127.0.0.1@53", "0::1"]);
        assert_eq!(&source[items[0].place.span.clone()], "127.0.0.1@53");
        let sub = table["sub"].node.table().unwrap();
        assert_eq!(sub["a"].node.text(), Ok("1"));
        assert_eq!(sub["b"].node.list().unwrap().len(), 2);
        assert_eq!(&source[sub["b"].key.span.clone()], "b");
    }

    #[test]
    fn mistakes_are_found_with_their_lines() {
        for (source, expected) in [
            ("a: 1\nb: [1, 2\nc: 3\n", "a.yml:"),
            ("a: &x 1\nb: *x\n", "a.yml:2:4: aliases are not supported"),
            ("a: 1\na: 2\n", "a.yml:2:1: a is written twice"),
            ("- a\n- b\n", "a.yml:1:1: no configuration of stubby"),
            ("just text", "a.yml:1:1: no configuration of stubby"),
        ] {
            let (_, errors) = read(source);
            assert!(errors.first().is_some_and(|error| error.starts_with(expected)), "{source}: {errors:?}");
        }
        let deep = format!("a: {}", "[".repeat(1000));
        assert!(!read(&deep).1.is_empty());
        assert_eq!(read("").1, [] as [String; 0]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[-a: \\[\\]{}&*!|>'\"#%@,?\\n\\t\u{e9}]{0,60}") {
            let _ = read(&text);
        }
    }
}
