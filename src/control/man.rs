//! `veildns man`: one page with everything, made from the command line's own definition: each command with its options and
//! examples, then files, variables, signals and exit codes. Not a page for each command: one is easier to search.

use crate::cli::exit;
use clap::{Arg, Command};
use roff::{Inline, Roff, bold, italic, roman};
use std::io;

/// What the program does, beyond its one line of `--help`.
const DESCRIPTION: &str = "Programs ask veildns plain DNS; it asks encrypted resolvers, several of them, and never falls back to \
    plain DNS. Without a command the gateway runs. Without a file it listens on 127.0.0.1:5053 and [::1]:5053 and asks Quad9 and \
    Cloudflare over HTTPS.";

/// Files and what is in them.
const FILES: &[(&str, &str)] = &[
    ("./veildns.toml", "The configuration, if it is there; every key has a default."),
    ("/etc/veildns/veildns.toml", "The configuration otherwise."),
    ("veildns.d/*.toml", "Beside the configuration: merged after it, in the order of their names."),
    (
        "/run/veildns/control.sock",
        "The control socket of the packaged service. Without systemd: veildns.sock in XDG_RUNTIME_DIR.",
    ),
    (
        "/var/lib/veildns/",
        "What outlives a restart: addresses of servers, the last good time. Nothing of clients.",
    ),
    ("/var/log/veildns/", "For the query log, which is off by default."),
];

/// Variables of the environment.
const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "VEILDNS_KEY",
        "Sets a key: capitals, two underscores for a dot, commas between the items of a list: VEILDNS_CACHE__MAX_SIZE=256MiB.",
    ),
    ("TUNNEL_DNS_PORT and others", "For `veildns proxy-dns`: those of its options."),
    ("RUST_LOG", "Which events are logged, in place of `log.level`: RUST_LOG=veildns::transport=trace."),
    ("NO_COLOR", "No colours, when it is not empty."),
];

/// What the running gateway does on signals.
const SIGNALS: &[(&str, &str)] = &[
    ("SIGHUP", "Reads the configuration again. A mistake changes nothing and is logged."),
    ("SIGUSR1", "Logs how full the cache is, and how each server is."),
    ("SIGTERM, SIGINT", "Answers what waits, and stops. A second one: stops at once."),
];

/// Exit codes.
const EXIT: &[(u8, &str)] = &[
    (0, "All is well."),
    (
        exit::FAILED,
        "No answer was got; doctor found something wrong; no gateway runs or it is not ready; an install was declined; something else of the system failed.",
    ),
    (exit::USAGE, "The command line is wrong."),
    (exit::ADDRESS_TAKEN, "An address is taken, or this host does not have it."),
    (exit::PERMISSION, "A permission is missing."),
    (exit::CONFIG, "The configuration is wrong."),
];

/// Writes the page.
///
/// # Errors
/// `out` cannot be written.
pub(super) fn page(mut command: Command, out: &mut dyn io::Write) -> io::Result<()> {
    command.build();
    let version = format!("veildns {}", env!("CARGO_PKG_VERSION"));
    let mut page = Roff::new();
    page.control("TH", ["veildns", "1", " ", version.as_str(), "User commands"]);
    // Ragged on the right and without hyphens: options and paths stay what they are.
    page.control("ad", ["l"]);
    page.control("nh", []);
    section(&mut page, "NAME");
    page.text([roman(format!("veildns - {}", about(&command).trim_end_matches('.')))]);
    section(&mut page, "SYNOPSIS");
    page.text([bold("veildns"), roman(" [options of run]")]);
    page.control("br", []);
    page.text([bold("veildns"), roman(" "), italic("command"), roman(" [options]")]);
    section(&mut page, "DESCRIPTION");
    page.text(prose(DESCRIPTION));
    section(&mut page, "COMMANDS");
    for subcommand in command.get_subcommands_mut() {
        describe(&mut page, subcommand);
    }
    pairs(&mut page, "FILES", FILES.iter().map(|(name, text)| ((*name).to_owned(), *text)));
    pairs(&mut page, "ENVIRONMENT", ENVIRONMENT.iter().map(|(name, text)| ((*name).to_owned(), *text)));
    pairs(&mut page, "SIGNALS", SIGNALS.iter().map(|(name, text)| ((*name).to_owned(), *text)));
    pairs(&mut page, "EXIT STATUS", EXIT.iter().map(|(code, text)| (code.to_string(), *text)));
    section(&mut page, "EXAMPLES");
    // What comes before them is in the description.
    let last = last_words(&command);
    examples(&mut page, last.split_once("\n\n").map_or("", |(_, lines)| lines));
    section(&mut page, "SEE ALSO");
    page.text([
        bold("dig"),
        roman("(1), "),
        bold("resolv.conf"),
        roman("(5), "),
        bold("systemd-resolved"),
        roman("(8)"),
    ]);
    page.to_writer(out)
}

/// Begins a section.
fn section(page: &mut Roff, name: &str) {
    page.control("SH", [name]);
}

/// Writes a section of names with what they are.
fn pairs<'a>(page: &mut Roff, name: &str, pairs: impl Iterator<Item = (String, &'a str)>) {
    section(page, name);
    for (name, text) in pairs {
        page.control("TP", []);
        page.text([bold(name)]);
        page.text(prose(text));
    }
}

/// Writes a command, and the commands below it.
fn describe(page: &mut Roff, command: &mut Command) {
    if command.get_name() == "help" {
        return;
    }
    if !command.has_subcommands() {
        let usage = command.render_usage().to_string();
        page.control("SS", [usage.trim_start_matches("Usage: ")]);
        page.text(prose(&about(command)));
        for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
            option(page, argument);
        }
        examples(page, &last_words(command));
    }
    for subcommand in command.get_subcommands_mut() {
        describe(page, subcommand);
    }
}

/// Writes an option or an argument.
fn option(page: &mut Roff, argument: &Arg) {
    let mut name = Vec::new();
    if let Some(short) = argument.get_short() {
        name.push(bold(format!("-{short}")));
        name.push(roman(", "));
    }
    if let Some(long) = argument.get_long() {
        name.push(bold(format!("--{long}")));
    }
    if argument.is_positional() || argument.get_action().takes_values() {
        let values = argument.get_value_names().unwrap_or_default();
        let values: Vec<&str> = values.iter().map(|value| value.as_str()).collect();
        if !name.is_empty() {
            name.push(roman(" "));
        }
        name.push(italic(values.join(" ")));
    }
    page.control("TP", []);
    page.text(name);
    let mut text = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let words: Vec<String> = if argument.get_action().takes_values() {
        argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect()
    } else {
        Vec::new()
    };
    if !words.is_empty() {
        text.push_str(&format!(". One of {}.", words.join(", ")));
    }
    if let Some(variable) = argument.get_env() {
        let stop = if text.ends_with(['.', ']']) { "" } else { "." };
        text.push_str(&format!("{stop} Variable: {}.", variable.display()));
    }
    page.text(prose(&text));
}

/// Writes what `--help` says last, line by line as it stands there.
fn examples(page: &mut Roff, text: &str) {
    if text.is_empty() {
        return;
    }
    page.control("PP", []);
    page.control("EX", []);
    for line in text.lines() {
        page.text([roman(if line.is_empty() { " " } else { line })]);
    }
    page.control("EE", []);
}

/// Returns what `--help` says last.
fn last_words(command: &Command) -> String {
    command.get_after_help().map(ToString::to_string).unwrap_or_default()
}

/// Returns a command's line of help.
fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// Ends a sentence of help as one of a page. Words in backticks are bold.
fn prose(text: &str) -> Vec<Inline> {
    let stop = if text.ends_with(['.', ']']) { "" } else { "." };
    let text = format!("{text}{stop}");
    let part = |(index, part): (usize, &str)| if index % 2 == 1 { bold(part) } else { roman(part) };
    text.split('`').enumerate().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    /// All commands, with those below them.
    fn commands(command: &Command, found: &mut Vec<String>) {
        for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
            if !subcommand.has_subcommands() {
                found.push(subcommand.get_name().to_owned());
            }
            commands(subcommand, found);
        }
    }

    #[test]
    fn every_command_has_its_section_with_options_and_examples() {
        let mut page = Vec::new();
        super::page(Cli::command(), &mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        let mut all = Vec::new();
        commands(&Cli::command(), &mut all);
        assert!(all.len() > 12, "{all:?}");
        for name in all {
            assert!(
                page.lines().any(|line| line.starts_with(".SS \"veildns ") && line.contains(&name)),
                "{name}: {page}"
            );
        }
        for words in [
            "\\-\\-subtree",
            "veildns cache flush \\-\\-subtree example.com",
            "VEILDNS_KEY",
            ".SH SIGNALS",
            "One of error, ",
        ] {
            assert!(page.contains(words), "{words}: {page}");
        }
        assert!(!page.contains("run(1)"), "it names pages that there are not: {page}");
    }
}
