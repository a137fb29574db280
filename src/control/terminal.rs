//! What only a person at a terminal gets: colours, and a line that says what is being waited for. In a pipe there is neither.

use crate::telemetry::logging;
use std::io::{self, IsTerminal, Write};

/// Columns of a terminal that nobody made wider.
const COLUMNS: usize = 80;

/// What a line means to whoever reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hue {
    /// As it should be.
    Good,
    /// Worth a look.
    Doubtful,
    /// Not as it should be.
    Bad,
    /// Neither here nor there.
    Plain,
}

/// Whether there are colours on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Palette {
    /// A person reads along.
    Colours,
    /// A program does, or somebody who asked for none.
    None,
}

impl Palette {
    /// Finds out.
    pub(super) fn of_stdout() -> Self {
        if logging::colours_on(&io::stdout()) { Self::Colours } else { Self::None }
    }

    /// Colours a text of one line.
    pub(super) fn paint(self, hue: Hue, text: &str) -> String {
        let code = match (self, hue) {
            (Self::None, _) | (_, Hue::Plain) => return text.to_owned(),
            (Self::Colours, Hue::Good) => "32",
            (Self::Colours, Hue::Doubtful) => "33",
            (Self::Colours, Hue::Bad) => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Colours the rows of a table, one hue each; its header stays as it is.
    pub(super) fn paint_rows(self, table: &str, hues: impl IntoIterator<Item = Hue>) -> String {
        let hues = std::iter::once(Hue::Plain).chain(hues).chain(std::iter::repeat(Hue::Plain));
        table.lines().zip(hues).map(|(line, hue)| self.paint(hue, line) + "\n").collect()
    }
}

/// A line on standard error that says what is being waited for, if that is a terminal. It goes when this is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    /// Whether anybody sees it.
    seen: bool,
}

impl Progress {
    /// Begins to wait.
    pub(super) fn begin(what: &str) -> Self {
        let progress = Self { seen: io::stderr().is_terminal() };
        progress.show(what);
        progress
    }

    /// Says what is waited for now.
    pub(super) fn show(&self, what: &str) {
        let what: String = what.chars().filter(|c| !c.is_control()).take(COLUMNS - 1).collect();
        self.write(&format!("\r\x1b[K{what}"));
    }

    /// Writes to the terminal; progress that cannot be shown is no reason to stop.
    fn write(&self, text: &str) {
        if self.seen {
            let mut terminal = io::stderr().lock();
            let _ = terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.write("\r\x1b[K");
    }
}

#[cfg(feature = "tools")]
/// Breaks a text between words so that it stands in 80 columns behind `head`, later lines under the first. What others sent
/// is among the words: a control character or an endless word must not break the page.
pub(super) fn wrapped(head: &str, text: &str) -> String {
    let room = COLUMNS.saturating_sub(head.chars().count()).max(1);
    let (mut out, mut before) = (String::new(), head.to_owned());
    let mut line = String::new();
    let mut finish = |line: &mut String| {
        out.push_str(format!("{before}{line}").trim_end());
        out.push('\n');
        line.clear();
        before = " ".repeat(head.chars().count());
    };
    for word in text.split_whitespace() {
        let word: String = word.chars().map(printable).take(room).collect();
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
            finish(&mut line);
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    finish(&mut line);
    out
}

#[cfg(feature = "tools")]
/// Returns a character as it may go to a terminal.
fn printable(letter: char) -> char {
    if letter.is_control() { '?' } else { letter }
}

/// Shortens a name at its end so that it fits.
pub(super) fn fitted(name: &str, columns: usize) -> String {
    if name.chars().count() <= columns {
        return name.to_owned();
    }
    let kept: String = name.chars().take(columns.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_those_who_have_them() {
        assert_eq!(Palette::None.paint(Hue::Bad, "down"), "down");
        assert_eq!(Palette::Colours.paint(Hue::Bad, "down"), "\x1b[31mdown\x1b[0m");
        assert_eq!(Palette::Colours.paint(Hue::Plain, "up"), "up");
        let table = Palette::Colours.paint_rows("A  B\n1  2\n3  4\n", [Hue::Plain, Hue::Good]);
        assert_eq!(table, "A  B\n1  2\n\x1b[32m3  4\x1b[0m\n");
    }

    #[test]
    fn long_names_fit() {
        assert_eq!(fitted("quad9", 5), "quad9");
        assert_eq!(fitted("cloudflare", 5), "clou…");
    }

    #[cfg(feature = "tools")]
    #[test]
    fn long_texts_fit() {
        let text = wrapped("  head  ", &("word ".repeat(30) + &"x".repeat(200) + " \u{1b}[2J"));
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        assert!(!text.contains('\u{1b}') && text.starts_with("  head  word word"), "{text}");
    }
}
