//! A `veildns.toml` in the making: what was understood of another program's configuration, and for everything that was not
//! carried over a comment that says why.

use crate::config::document::Text;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Columns of a comment.
const WIDTH: usize = 80;

/// What is known so far.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Addresses with ports.
    pub(super) listen: Vec<String>,
    /// Names of servers, or URLs.
    pub(super) upstreams: Vec<String>,
    /// How one of them is chosen.
    pub(super) strategy: Option<&'static str>,
    /// Whom to ask for the names of servers.
    pub(super) bootstrap: Vec<String>,
    /// Servers with more than a URL.
    pub(super) servers: Vec<Server>,
    /// Further keys: section, name, value as TOML.
    pub(super) keys: Vec<(&'static str, &'static str, String)>,
    /// What was not carried over.
    left_out: Vec<LeftOut>,
}

/// A table `[server.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// Its name.
    pub(super) name: String,
    /// Where it is.
    pub(super) url: String,
    /// Its addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// Its pins, as a configuration has them.
    pub(super) pins: Vec<String>,
}

/// Something that was not carried over.
#[derive(Debug)]
struct LeftOut {
    /// Its line in the original, from 1; 0 when there is only one.
    line: usize,
    /// What it said.
    what: String,
    /// Why it stays behind.
    why: String,
}

impl LeftOut {
    /// Says it in one line.
    fn show(&self) -> String {
        let Self { line, what, why } = self;
        if *line == 0 { format!("{what}: {why}") } else { format!("line {line}, {what}: {why}") }
    }
}

impl Draft {
    /// Notes something that is not carried over.
    pub(super) fn leave_out(&mut self, line: usize, what: impl Into<String>, why: impl Into<String>) {
        self.left_out.push(LeftOut { line, what: what.into(), why: why.into() });
    }

    /// Returns how much was not carried over.
    pub(super) fn left_out(&self) -> usize {
        self.left_out.len()
    }

    /// Adds a server to those that are asked, once.
    pub(super) fn ask(&mut self, reference: &str) {
        if !self.upstreams.iter().any(|known| known == reference) {
            self.upstreams.push(reference.to_owned());
        }
    }

    /// Returns a name for a server's table that no other has.
    pub(super) fn free_name(&self, host: &str) -> String {
        let fitting = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let base: String = host.chars().map(fitting).collect();
        let base = base.trim_matches('-');
        let taken = |name: &str| self.servers.iter().any(|server| server.name == name);
        let numbered = (2..).map(|number| format!("{base}-{number}"));
        std::iter::once(base.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
    }

    /// Writes the file; `origin` is what it was made from.
    pub(super) fn text(&self, origin: &str) -> String {
        let mut text = String::new();
        comment(&mut text, 0, &format!("Made by `veildns import` from {origin}."));
        if self.left_out.is_empty() {
            comment(&mut text, 0, "Everything in it was carried over.");
        } else {
            text.push_str("#\n");
            comment(&mut text, 0, "Not carried over:");
            let mut left_out: Vec<&LeftOut> = self.left_out.iter().collect();
            left_out.sort_by_key(|left| left.line);
            for left in left_out {
                comment(&mut text, 2, &left.show());
            }
        }
        text.push('\n');
        list(&mut text, "listen", &self.listen);
        list(&mut text, "upstreams", &self.upstreams);
        if let Some(strategy) = self.strategy {
            let _ = writeln!(text, "strategy = {}", quoted(strategy));
        }
        list(&mut text, "bootstrap", &self.bootstrap);
        for server in &self.servers {
            let _ = writeln!(text, "\n[server.{}]\nurl = {}", server.name, quoted(&server.url));
            let addresses: Vec<String> = server.addresses.iter().map(ToString::to_string).collect();
            list(&mut text, "addresses", &addresses);
            list(&mut text, "pins", &server.pins);
        }
        let mut last = "";
        let mut keys: Vec<_> = self.keys.iter().collect();
        keys.sort_by_key(|(section, ..)| *section);
        for (section, key, value) in keys {
            if *section != last {
                let _ = writeln!(text, "\n[{section}]");
                last = *section;
            }
            let _ = writeln!(text, "{key} = {value}");
        }
        text
    }
}

/// Returns the line, from 1, of an octet of a text; 0 for a text of one line, where numbers say nothing.
pub(super) fn line_of(text: &Text, octet: usize) -> usize {
    if !text.text.contains('\n') {
        return 0;
    }
    text.text.get(..octet).unwrap_or_default().matches('\n').count() + 1
}

/// Writes a list that is not empty.
fn list(text: &mut String, key: &str, items: &[String]) {
    if !items.is_empty() {
        let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
        let _ = writeln!(text, "{key} = [{}]", items.join(", "));
    }
}

/// Writes a string of TOML.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Writes a comment, broken at blanks; later lines stand further in. Nothing in it can end it.
fn comment(text: &mut String, indent: usize, content: &str) {
    let clean: String = content.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut line = format!("#{:indent$}", "");
    let first = line.len();
    for word in clean.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH && line.len() > first {
            let _ = writeln!(text, "{line}");
            line = format!("#{:1$}", "", indent + 2);
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::path::Path;

    #[test]
    fn a_draft_is_a_configuration_whatever_was_in_the_original() {
        let mut draft = Draft { listen: vec!["127.0.0.1:53".to_owned()], ..Draft::default() };
        draft.ask("quad9");
        draft.ask("quad9");
        draft.leave_out(7, "odd: \u{1b}[31m\nlisten = []", "a \"reason\" ".repeat(20));
        draft.leave_out(2, "first", "because");
        draft.keys.push(("log", "level", quoted("warn")));
        let text = draft.text("a \\ \"file\"\nx = 1");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        let (first, second) = (text.find("line 2").unwrap(), text.find("line 7").unwrap());
        assert!(first < second, "{text}");
        let settings = config::from_text(&text, Path::new(".")).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(settings.servers.len(), 1);
    }

    #[test]
    fn strings_and_names_are_what_toml_takes() {
        assert_eq!(quoted("a\"b\\c\u{7}"), "\"a\\\"b\\\\c\\u0007\"");
        let mut draft = Draft::default();
        assert_eq!(draft.free_name("dns.example"), "dns-example");
        let (url, addresses, pins) = (String::new(), Vec::new(), Vec::new());
        draft.servers.push(Server { name: "dns-example".to_owned(), url, addresses, pins });
        assert_eq!(draft.free_name("dns.example"), "dns-example-2");
    }
}
