//! The same form without colours: one line of the text, one run of carets.

use crate::config::document::Text;
use crate::config::error::{Appearance, Fault};

/// Draws one error; this build has no colours.
pub(in crate::config) fn draw(fault: &Fault, texts: &[Text], _: Appearance) -> String {
    let mut lines = vec![format!("error: {}", fault.message)];
    let mut margin = 0;
    match excerpt(fault, texts) {
        Some(excerpt) => {
            margin = excerpt.number.to_string().len();
            lines.extend(excerpt.lines(margin, fault.label.as_deref()));
        }
        None => lines.extend(fault.label.iter().map(|label| format!(" = note: {label}"))),
    }
    if let Some(help) = &fault.help {
        let heads = std::iter::once(" = help: ").chain(std::iter::repeat("         "));
        let help = super::folded(help);
        lines.extend(heads.zip(help.lines()).map(|(head, line)| format!("{:margin$}{head}{line}", "")));
    }
    lines.join("\n")
}

/// The place of an error.
struct Excerpt<'a> {
    /// What the text is called.
    name: &'a str,
    /// Which line, from 1.
    number: usize,
    /// Which character of it, from 1.
    column: usize,
    /// The line.
    line: &'a str,
    /// How many characters of it are meant.
    meant: usize,
}

/// Finds the line that an error is about.
fn excerpt<'a>(fault: &Fault, texts: &'a [Text]) -> Option<Excerpt<'a>> {
    let (name, number, column) = fault.position(texts)?;
    let place = fault.place.as_ref()?;
    let text = &texts.get(place.text)?.text;
    let line = text.lines().nth(number - 1).unwrap_or_default();
    let end = place.span.end.min(text.len());
    let meant = text.get(place.span.start..end).and_then(|meant| meant.lines().next());
    let meant = meant.map_or(0, |meant| meant.chars().count()).max(1);
    Some(Excerpt { name, number, column, line, meant })
}

impl Excerpt<'_> {
    /// Shows it, the label behind the carets.
    fn lines(&self, margin: usize, label: Option<&str>) -> [String; 4] {
        let Self { name, number, column, line, meant } = self;
        // A tab is as wide here as it is above.
        let before = line.chars().take(column - 1).map(|c| if c == '\t' { c } else { ' ' });
        let before: String = before.collect();
        let carets = "^".repeat(*meant);
        let pointer = format!("{:margin$} | {before}{carets} {}", "", label.unwrap_or_default());
        [
            format!("{:margin$}--> {name}:{number}:{column}", ""),
            format!("{:margin$} |", ""),
            format!("{number} | {line}"),
            pointer.trim_end().to_owned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::Place;
    use std::path::PathBuf;

    fn texts(text: &str) -> Vec<Text> {
        vec![Text { name: "veildns.toml".to_owned(), text: text.to_owned(), folder: PathBuf::new() }]
    }

    #[test]
    fn an_error_shows_its_line_with_a_caret_and_what_to_do() {
        let text = "strategy = \"fastest\"\n[cache]\nmax_sise = \"1MiB\"\n";
        let start = text.find("max_sise").unwrap();
        let fault =
            Fault::at(&Place { text: 0, span: start..start + 8 }, "unknown key `max_sise` in [cache]")
                .with_label("did you mean `max_size`?")
                .with_help("see the list");
        assert_eq!(
            draw(&fault, &texts(text), Appearance::Plain),
            concat!(
                "error: unknown key `max_sise` in [cache]\n",
                " --> veildns.toml:3:1\n",
                "  |\n",
                "3 | max_sise = \"1MiB\"\n",
                "  | ^^^^^^^^ did you mean `max_size`?\n",
                "  = help: see the list",
            )
        );
    }

    #[test]
    fn long_advice_goes_on_below_itself() {
        let fault = Fault::without_place("odd").with_help("word ".repeat(20));
        let shown = draw(&fault, &[], Appearance::Plain);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].starts_with(" = help: word") && lines[2].starts_with("         word"), "{shown}");
        assert!(shown.lines().all(|line| line.len() <= 80), "{shown}");
        assert_eq!(shown.matches("word").count(), 20);
    }

    #[test]
    fn an_error_of_no_line_and_one_at_the_end_are_shown_too() {
        let fault = Fault::without_place("cannot read it").with_label("not there").with_help("make it");
        let shown = draw(&fault, &[], Appearance::Plain);
        assert_eq!(shown, "error: cannot read it\n = note: not there\n = help: make it");
        let fault = Fault::at(&Place { text: 0, span: 4..900 }, "cut short");
        let shown = draw(&fault, &texts("a =\n"), Appearance::Plain);
        assert_eq!(shown, "error: cut short\n --> veildns.toml:2:1\n  |\n2 | \n  | ^");
        let fault = Fault::at(&Place { text: 0, span: 6..8 }, "odd");
        let shown = draw(&fault, &texts("\tü = ü"), Appearance::Plain);
        assert_eq!(shown, "error: odd\n --> veildns.toml:1:6\n  |\n1 | \tü = ü\n  | \t    ^");
    }
}
