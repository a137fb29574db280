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

/// Breaks a text between words so that it stands in 80 columns behind `head`, later lines under the first. What others sent
/// is among the words: a control character or an endless word must not break the page.
#[cfg(feature = "tools")]
pub(super) fn wrapped(head: &str, text: &str) -> String {
    wrapped_behind(head, &" ".repeat(head.chars().count()), text)
}

/// Breaks a comment beside records in the same way.
pub(super) fn commented(text: &str) -> String {
    wrapped_behind("; ", ";   ", text)
}

/// Breaks a text behind `head`, and later lines behind `indent`.
fn wrapped_behind(head: &str, indent: &str, text: &str) -> String {
    let width = head.chars().count().max(indent.chars().count());
    let room = COLUMNS.saturating_sub(width).max(1);
    let (mut out, mut line) = (String::new(), head.to_owned());
    let (mut used, mut is_empty) = (head.chars().count(), true);
    for word in text.split_whitespace() {
        let letters: Vec<char> = word.chars().map(printable).take(room * LONGEST_WORD).collect();
        for piece in letters.chunks(room) {
            let blank = usize::from(!is_empty);
            if !is_empty && used + blank + piece.len() > COLUMNS {
                out.push_str(line.trim_end());
                out.push('\n');
                line = indent.to_owned();
                (used, is_empty) = (indent.chars().count(), true);
            }
            if !is_empty {
                line.push(' ');
                used += 1;
            }
            line.extend(piece);
            used += piece.len();
            is_empty = false;
        }
    }
    out.push_str(line.trim_end());
    out.push('\n');
    out
}

/// Lines that one word has at most: the longest name and the longest URL of a server fit.
const LONGEST_WORD: usize = 8;

/// Returns a character as it may go to a terminal.
fn printable(letter: char) -> char {
    if letter.is_control() { '?' } else { letter }
}

/// Returns as much of a page as a terminal shows at once, with a line that says how much is missing.
pub(super) fn on_screen(page: &str, rows: Option<usize>) -> String {
    let lines = page.lines().count();
    match rows {
        // The last row stays free for the cursor.
        Some(rows) if lines >= rows => {
            let kept = rows.saturating_sub(2);
            let shown: String = page.split_inclusive('\n').take(kept).collect();
            format!("{shown}... and {} more lines, for which the terminal is too low\n", lines - kept)
        }
        _ => page.to_owned(),
    }
}

/// Returns how many rows the terminal on standard output has, when that can be known.
pub(super) fn rows() -> Option<usize> {
    #[cfg(feature = "terminal")]
    let rows = terminal_size::terminal_size_of(io::stdout()).map(|(_, height)| usize::from(height.0));
    #[cfg(not(feature = "terminal"))]
    let rows = None;
    // One that does not know says 0.
    rows.filter(|rows| *rows > 2)
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

    #[test]
    fn nothing_of_a_long_name_is_lost() {
        let name = "x".repeat(255);
        let text = commented(&format!("{name}. A: NOERROR"));
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with(";   ")), "{text}");
        assert_eq!(text.replace(";   ", "").replace([';', ' ', '\n'], ""), format!("{name}.A:NOERROR"));
        assert!(commented(&"x".repeat(70_000)).lines().count() <= 9);
    }

    #[test]
    fn what_does_not_fit_a_low_terminal_is_counted() {
        let page = "1\n2\n3\n4\n";
        assert_eq!(on_screen(page, None), page);
        assert_eq!(on_screen(page, Some(5)), page);
        assert_eq!(
            on_screen(page, Some(4)),
            "1\n2\n... and 2 more lines, for which the terminal is too low\n"
        );
    }
}
