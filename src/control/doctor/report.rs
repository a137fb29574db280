//! What a check means to send, what it found, and how both are shown within 80 columns.

use crate::control::terminal::{Hue, Palette, wrapped};
use serde_json::{Value, json};

/// What a check sends, to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Intent {
    /// The check.
    pub(super) check: &'static str,
    /// For people; begins with `nothing` when it only looks at this machine.
    pub(super) sends: String,
}

impl Intent {
    /// Returns intents for a program.
    pub(super) fn list(intents: &[Self]) -> Value {
        intents.iter().map(|intent| json!({ "check": intent.check, "sends": intent.sends })).collect()
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// Good to know: the look-ups of this machine are not harmed.
    Warn,
    /// Look-ups fail, are lied to, or can be read by others.
    Fail,
}

impl Status {
    /// Returns its word in the table.
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }

    /// Returns its colour.
    fn hue(self) -> Hue {
        match self {
            Self::Ok => Hue::Good,
            Self::Warn => Hue::Doubtful,
            Self::Fail => Hue::Bad,
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The check.
    pub(super) check: &'static str,
    /// How bad it is.
    pub(super) status: Status,
    /// What was seen.
    pub(super) seen: String,
    /// What to do; None when nothing is to be done.
    pub(super) advice: Option<String>,
}

impl Finding {
    /// Nothing is to be done.
    pub(super) fn fine(check: &'static str, seen: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, seen: seen.into(), advice: None }
    }

    /// Something is.
    pub(super) fn new(
        check: &'static str,
        status: Status,
        seen: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { check, status, seen: seen.into(), advice: Some(advice.into()) }
    }

    /// Returns it for a program.
    pub(super) fn json(&self) -> Value {
        json!({
            "check": self.check,
            "status": self.status.word().to_ascii_lowercase(),
            "seen": self.seen,
            "advice": self.advice,
        })
    }
}

/// Returns the plan for a person.
pub(super) fn plan_text(intents: &[Intent]) -> String {
    let width = width(intents.iter().map(|intent| intent.check));
    let mut text = String::from("What is sent, and to whom:\n");
    for Intent { check, sends } in intents {
        text.push_str(&wrapped(&format!("  {check:width$}  "), sends));
    }
    text
}

/// Returns the findings for a person.
pub(super) fn table_text(findings: &[Finding], palette: Palette) -> String {
    let width = width(findings.iter().map(|finding| finding.check));
    let mut text = String::new();
    for Finding { check, status, seen, advice } in findings {
        let head = format!("{:4}  {check:width$}  ", status.word());
        // Coloured when it is broken into lines: colours have no width.
        let row = wrapped(&head, seen);
        let (word, rest) = row.split_at_checked(status.word().len()).unwrap_or(("", &row));
        text.push_str(&palette.paint(status.hue(), word));
        text.push_str(rest);
        if let Some(advice) = advice {
            text.push_str(&wrapped(&format!("{:1$}-> ", "", head.len()), advice));
        }
    }
    text
}

/// Returns the width of a column.
fn width<'a>(cells: impl Iterator<Item = &'a str>) -> usize {
    cells.map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_fits_80_columns_whatever_the_network_said() {
        let long = "word ".repeat(60) + &"x".repeat(300);
        let findings = [
            Finding::new("resolv.conf", Status::Warn, long.clone(), long.clone()),
            Finding::fine("clock", "\u{1b}[2Jred\n\nalert"),
        ];
        let text = table_text(&findings, Palette::None)
            + &plan_text(&[Intent { check: "interception", sends: long }]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(!text.contains('\u{1b}'));
        assert!(text.contains("\nOK    clock        ?[2Jred alert\n"), "{text}");
    }

    #[test]
    fn advice_stands_below_what_was_seen() {
        let finding = Finding::new("ports", Status::Fail, "taken", "stop it");
        assert_eq!(
            table_text(std::slice::from_ref(&finding), Palette::None),
            "FAIL  ports  taken\n             -> stop it\n"
        );
        let coloured = "\x1b[31mFAIL\x1b[0m  ports  taken\n             -> stop it\n";
        assert_eq!(table_text(&[finding], Palette::Colours), coloured);
    }

    #[test]
    fn findings_for_programs_have_all_four_fields() {
        let finding = Finding::fine("clock", "right");
        assert_eq!(
            finding.json().to_string(),
            r#"{"advice":null,"check":"clock","seen":"right","status":"ok"}"#
        );
    }
}
