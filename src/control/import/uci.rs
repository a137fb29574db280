//! OpenWrt's configuration files (UCI): sections of options and lists, as the tables that configurations are read from
//! (`config::document`), every value with its place. What the options mean is said elsewhere (`https_dns_proxy`).

use crate::config::document::{Entry, Node, Place, Table, Value};
use crate::config::error::{Fault, Faults};
use std::ops::Range;

/// A section: `config KIND 'NAME'` and what follows it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Section {
    /// Its kind.
    pub(super) kind: String,
    /// Its options: texts, and lists of texts.
    pub(super) options: Table,
}

/// Reads `source`, the text with index `text`. Errors go to `faults`.
pub(super) fn parse(text: usize, source: &str, faults: &mut Faults) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut start = 0;
    for line in source.split_inclusive('\n') {
        if let Err(fault) = read_line(text, start, line, &mut sections) {
            faults.push(fault);
        }
        start += line.len();
    }
    sections
}

/// Reads one line, which begins at octet `start`.
fn read_line(text: usize, start: usize, line: &str, sections: &mut Vec<Section>) -> Result<(), Fault> {
    let words = words(line).map_err(|at| {
        Fault::at(&Place { text, span: start + at..start + line.trim_end().len() }, "this quote has no end")
    })?;
    let place = |span: &Range<usize>| Place { text, span: start + span.start..start + span.end };
    let whole = Place { text, span: start..start + line.trim_end().len() };
    let Some(((verb, verb_at), rest)) = words.split_first() else { return Ok(()) };
    match (verb.as_str(), rest) {
        ("package", _) => Ok(()),
        ("config", [(kind, _), ..]) => {
            sections.push(Section { kind: kind.clone(), options: Table::new() });
            Ok(())
        }
        ("option" | "list", [(key, key_at), (value, value_at)]) => {
            let Some(section) = sections.last_mut() else {
                return Err(Fault::at(&whole, "this line belongs to no section")
                    .with_label("expected a line such as `config https-dns-proxy` above it"));
            };
            let node = Node { place: place(value_at), value: Value::Text(value.clone()) };
            add(&mut section.options, key, place(key_at), node, verb == "list");
            Ok(())
        }
        ("config" | "option" | "list", _) => {
            let expected = if verb == "config" { "config KIND 'NAME'" } else { "a name and a value" };
            Err(Fault::at(&whole, format!("`{verb}` is not complete"))
                .with_label(format!("expected {expected}")))
        }
        _ => Err(Fault::at(&place(verb_at), format!("{verb:?} is no word of UCI"))
            .with_label("expected config, option or list")),
    }
}

/// Adds an option; of two the later counts, and items of a list are gathered.
fn add(options: &mut Table, key: &str, at: Place, node: Node, is_item: bool) {
    if !is_item {
        options.insert(key.to_owned(), Entry { key: at, node });
        return;
    }
    let place = node.place.clone();
    let entry = options
        .entry(key.to_owned())
        .or_insert_with(|| Entry { key: at, node: Node { place, value: Value::List(Vec::new()) } });
    match &mut entry.node.value {
        Value::List(items) => items.push(node),
        // An option of that name stood before: the list takes its place.
        Value::Text(_) | Value::Integer(_) | Value::Boolean(_) | Value::Table(_) | Value::Foreign(_) => {
            entry.node.value = Value::List(vec![node]);
        }
    }
}

/// Cuts a line into words with their places; quotes of both kinds hold blanks together, and `#` ends the line.
///
/// # Errors
/// Where a quote begins that does not end.
fn words(line: &str) -> Result<Vec<(String, Range<usize>)>, usize> {
    let mut words = Vec::new();
    let mut word: Option<(String, usize)> = None;
    let mut quote: Option<(char, usize)> = None;
    for (at, c) in line.char_indices() {
        match quote {
            Some((open, _)) if c == open => quote = None,
            Some(_) => word.get_or_insert_with(|| (String::new(), at)).0.push(c),
            None if c == '\'' || c == '"' => {
                word.get_or_insert_with(|| (String::new(), at));
                quote = Some((c, at));
            }
            None if c.is_whitespace() => words.extend(word.take().map(|(text, from)| (text, from..at))),
            None if c == '#' && word.is_none() => break,
            None => word.get_or_insert_with(|| (String::new(), at)).0.push(c),
        }
    }
    if let Some((_, at)) = quote {
        return Err(at);
    }
    words.extend(word.take().map(|(text, from)| (text, from..line.trim_end().len())));
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::Text;
    use crate::config::error::ConfigErrors;

    /// Reads a text, and returns the errors as lines.
    fn read(source: &str) -> (Vec<Section>, Vec<String>) {
        let mut faults = Faults::default();
        let sections = parse(0, source, &mut faults);
        let text = Text { name: "uci".to_owned(), text: source.to_owned(), folder: ".".into() };
        let errors = ConfigErrors::new(faults, vec![text]).lines().collect();
        (sections, errors)
    }

    #[test]
    fn sections_options_and_lists_are_read_with_their_places() {
        let source = "package x\n\nconfig main 'config'\n\toption a 'one two' # why\n\tlist p '53'\n\tlist p \"853\"\n#\toption b 2\nconfig other\n\toption c plain\n";
        let (sections, errors) = read(source);
        assert_eq!(errors, [] as [String; 0]);
        let kinds: Vec<&str> = sections.iter().map(|section| section.kind.as_str()).collect();
        assert_eq!(kinds, ["main", "other"]);
        let main = &sections[0].options;
        assert_eq!(main["a"].node.text(), Ok("one two"));
        assert_eq!(&source[main["a"].node.place.span.clone()], "'one two'");
        let ports: Vec<&str> =
            main["p"].node.list().unwrap().iter().map(|item| item.text().unwrap()).collect();
        assert_eq!(ports, ["53", "853"]);
        assert!(!main.contains_key("b"));
        assert_eq!(sections[1].options["c"].node.text(), Ok("plain"));
    }

    #[test]
    fn mistakes_are_found_with_their_lines() {
        for (source, expected) in [
            ("option a 'b'\n", "uci:1:1: this line belongs to no section"),
            ("config x\n\toption a 'b\n", "uci:2:11: this quote has no end"),
            ("config x\n\toption a\n", "uci:2:1: `option` is not complete"),
            ("config\n", "uci:1:1: `config` is not complete"),
            ("config x\nlisten 53\n", "uci:2:1: \"listen\" is no word of UCI"),
        ] {
            assert_eq!(read(source).1, [expected], "{source}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(config |option |list |'|\"|#| |\\n|a|\u{e9}){0,40}") {
            let _ = read(&text);
        }
    }
}
