//! What a person sees at a terminal: colours, progress, help, and that what is printed fits 80 columns. script(1) makes the
//! terminal.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken assumption must end a test"
)]

mod support;

use std::process::{Command, Stdio};
use support::binary::{Running, run, stderr, stdout, undisturbed, veildns, with_servers, written};
use support::gateway::setup;
use support::message::{query, rtype};
use support::script::Script;
use support::server::{Protocol, Server};

/// A name as long as a label may be.
const LONG: &str = "a-server-whose-name-is-as-long-as-a-name-of-a-server-may-be-num";

/// Runs a command line of the program at a terminal of 80 columns: script(1) makes one. Both outputs come as one.
fn at_a_terminal(arguments: &str, variables: &[(&str, &str)]) -> String {
    let program = veildns();
    let line = format!("stty cols 80; exec {} {arguments}", program.get_program().display());
    let mut command = undisturbed(Command::new("script"));
    command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env_remove("NO_COLOR");
    let output = command.envs(variables.iter().copied()).stdin(Stdio::null()).output().unwrap();
    stdout(&output).replace('\r', "")
}

#[test]
fn colours_are_for_terminals_and_for_those_who_want_them() {
    let (_directory, file) = written("strateggy = \"fastest\"\n");
    let bad = format!("check --config {}", file.display());
    for (arguments, word) in [(bad.as_str(), "strateggy"), ("check --config /dev/null", "ok")] {
        let coloured = at_a_terminal(arguments, &[]);
        assert!(coloured.contains('\u{1b}') && coloured.contains(word), "{coloured}");
        for variables in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            let plain = at_a_terminal(arguments, &[variables]);
            assert!(!plain.contains('\u{1b}') && plain.contains(word), "{variables:?}: {plain}");
        }
    }
    assert!(!stdout(&run(&["check", "--config", "/dev/null"])).contains('\u{1b}'));
}

#[test]
fn progress_is_for_terminals_and_leaves_nothing_behind() {
    let server = Server::start(Protocol::Dot, Script::good());
    let (_directory, file) = with_servers(&[("lab", &server)]);
    let file = file.to_str().unwrap();
    for (arguments, progress) in [
        (format!("upstreams --config {file}"), "probed 1 of 1 servers"),
        (format!("query www.lab.example --config {file}"), "asking lab ..."),
    ] {
        let shown = at_a_terminal(&arguments, &[("NO_COLOR", "1")]);
        let (_, rest) = shown.split_once(progress).unwrap_or_else(|| panic!("{progress} is not in {shown}"));
        assert!(rest.starts_with("\u{1b}[K"), "{shown:?}");
        let words: Vec<&str> = arguments.split(' ').collect();
        assert!(stderr(&run(&words)).is_empty(), "{arguments}");
    }
}

#[test]
fn a_key_that_is_like_no_other_shows_those_that_are_known_within_80_columns() {
    let (_directory, file) = written("foobarbaz = 1\n[limits]\nzzzzzzzz = 4\n");
    for shown in [
        at_a_terminal(&format!("check --config {}", file.display()), &[]),
        stderr(&run(&["check", "--config", file.to_str().unwrap()])),
    ] {
        assert!(shown.contains("known here: ") && shown.contains("drain_timeout"), "{shown}");
        assert!(widest(&shown) <= 80, "{shown}");
    }
}

/// The commands, with those of commands.
const COMMANDS: [&[&str]; 19] = [
    &["run"],
    &["proxy-dns"],
    &["check"],
    &["query"],
    &["upstreams"],
    &["doctor"],
    &["health"],
    &["install"],
    &["uninstall"],
    &["import"],
    &["status"],
    &["cache"],
    &["cache", "flush"],
    &["cache", "dump"],
    &["log-level"],
    &["completions"],
    &["man"],
    &["version"],
    &[],
];

#[test]
fn every_command_has_examples_and_its_help_fits_80_columns() {
    for command in COMMANDS {
        let help = stdout(&run(&[command, &["--help"]].concat()));
        let example = [&["veildns"], command].concat().join(" ");
        let of_example = |line: &&str| line.starts_with("  ") && !line.contains("Usage:");
        assert!(
            help.lines().filter(of_example).any(|line| line.contains(&example)),
            "{command:?} has no example: {help}"
        );
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{command:?}: {line}");
        }
    }
    let listed = stdout(&run(&["--help"]));
    let listed: Vec<&str> = listed
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|word| !word.is_empty() && *word != "help")
        .collect();
    assert!(listed.len() >= 16, "{listed:?}");
    for word in listed {
        assert!(COMMANDS.contains(&&[word][..]), "{word} is in no test of its help");
    }
}

/// The columns of the longest line, but for records: those are lines of a zone file, which are read by programs too.
fn widest(shown: &str) -> usize {
    let mut plain = String::new();
    // What draws over a line begins it anew.
    let lines = shown.replace("\u{1b}[K", "\n");
    let mut rest = lines.as_str();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        // A sequence ends with its first letter.
        rest = after.split_once(|letter: char| letter.is_ascii_alphabetic()).map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    plain.lines().filter(|line| !line.contains("\tIN\t")).map(|line| line.chars().count()).max().unwrap_or(0)
}

#[test]
fn whatever_servers_are_called_80_columns_are_enough() {
    let server = Server::start(Protocol::Dot, Script::good());
    let folder = tempfile::tempdir().unwrap();
    let (config, socket) = (folder.path().join("veildns.toml"), folder.path().join("s"));
    let names: Vec<String> = (10..22).map(|number| format!("{LONG}-{number}")).collect();
    let crowd = names.iter().fold(setup().server("lab", &server), |setup, name| {
        setup.server_at(name, "https://[::1]:1/a-path-that-is-long/and-longer{?dns}")
    });
    let office = "[group.office]\nupstreams = [\"udp://127.0.0.1:1\"]\n\
        [[route]]\ndomains = [\"a-domain-with-a-long-name.corp.example\", \"168.192.in-addr.arpa\"]\ngroup = \"office\"";
    let tables =
        format!("{office}\n[timeouts]\nquery = \"2s\"\nconnect = \"1s\"\n[control]\nsocket = {socket:?}");
    crowd.table(&tables).write(&config);
    let running = Running::start(&config);
    let long = format!("{LONG}.{LONG}.lab.example");
    for name in ["www.lab.example", &long] {
        running.client().udp(&query(name, rtype::A));
    }
    let config = config.display();
    for command in [
        "check".to_owned(),
        "status".to_owned(),
        "upstreams".to_owned(),
        "doctor --plan".to_owned(),
        "query www.lab.example AAAA".to_owned(),
        format!("query {long}"),
        format!("query www.lab.example --upstream {LONG}-10"),
        "cache dump www.lab.example".to_owned(),
        format!("cache dump {long}"),
        format!("cache flush {long}"),
        "log-level debug".to_owned(),
        "log-level reset".to_owned(),
        "health".to_owned(),
    ] {
        let arguments = format!("{command} --config {config}");
        for variables in [[("TERM", "xterm")], [("NO_COLOR", "1")], [("TERM", "dumb")]] {
            let shown = at_a_terminal(&arguments, &variables);
            assert!(shown.lines().count() > 0, "{command}");
            assert!(widest(&shown) <= 80, "{command}, {variables:?}: {} columns\n{shown}", widest(&shown));
        }
        let words: Vec<&str> = arguments.split(' ').collect();
        let piped = run(&words);
        assert!(widest(&(stdout(&piped) + &stderr(&piped))) <= 80, "{command}: {}", stdout(&piped));
    }
}
