//! What the built program writes down: its log, one line an event in text and in JSON, which no stranger can fill; and the
//! query log, with as much of clients and names as the operator wants.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::excessive_nesting,
    clippy::missing_docs_in_private_items,
    reason = "a broken assumption must end a test, and its table is its documentation"
)]

mod support;

use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use support::binary::{Running, veildns};
use support::eventually;
use support::gateway::{Setup, setup};
use support::message::{query, rcode, rtype};
use support::process::read;
use support::script::Script;
use support::server::{Protocol, Server};

/// A running gateway and what it writes.
struct Lab {
    running: Running,
    config: PathBuf,
    stdout: PathBuf,
    stderr: PathBuf,
    directory: tempfile::TempDir,
}

impl Lab {
    /// Starts a gateway; `setup` gets the directory for its files.
    fn start(setup: impl FnOnce(&Path) -> Setup, variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (config, stdout, stderr) = (path("veildns.toml"), path("stdout"), path("stderr"));
        setup(directory.path()).write(&config);
        let to = [&stdout, &stderr].map(|path| Stdio::from(File::create(path).unwrap()));
        let running = Running::start_to(&config, variables, to);
        Self { running, config, stdout, stderr, directory }
    }

    fn ask(&self, name: &str) {
        assert_eq!(self.running.client().udp(&query(name, rtype::A)).rcode(), rcode::NOERROR);
    }

    /// Ends the gateway, so that all is written, and returns the lines of its log.
    fn end(&mut self) -> Vec<String> {
        self.running.process.signal("TERM");
        assert!(self.running.process.wait().success());
        read(&self.stderr).lines().map(str::to_owned).collect()
    }
}

fn objects(path: &Path) -> Vec<Value> {
    read(path).lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

#[test]
fn a_failed_reload_is_one_line_with_every_error_in_it() {
    let server = Server::start(Protocol::Dot, Script::good());
    for format in ["text", "json"] {
        let log = format!("[log]\nformat = \"{format}\"");
        let mut lab = Lab::start(|_| setup().server("lab", &server).table(&log), &[]);
        std::fs::write(&lab.config, "upstrams = []\n[cache]\nmax_size = \"64 bananas\"\n").unwrap();
        let before = read(&lab.stderr).lines().count();
        lab.running.reload();
        let added: Vec<String> = read(&lab.stderr).lines().skip(before).map(str::to_owned).collect();
        assert_eq!(added.len(), 1, "{added:#?}");
        for part in ["reload failed, nothing was changed", ":1:1: ", ":3:12: "] {
            assert!(added[0].contains(part), "{part} is not in {}", added[0]);
        }
        if format == "json" {
            let line: Value = serde_json::from_str(&added[0]).unwrap();
            assert_eq!(
                (&line["level"], &line["message"]),
                (&"ERROR".into(), &"reload failed, nothing was changed".into())
            );
            assert!(line["detail"].as_str().unwrap().contains("; "), "{line}");
            lab.end();
            assert!(
                objects(&lab.stderr)
                    .iter()
                    .all(|line| line["timestamp"].is_string() && line["message"].is_string())
            );
        }
    }
}

#[test]
fn nothing_that_a_stranger_sends_fills_the_log_or_names_itself_there() {
    let server = Server::start(Protocol::Dot, Script::good());
    let mut lab = Lab::start(|_| setup().server("lab", &server), &[]);
    let before = read(&lab.stderr).lines().count();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let good = query("host-stranger.lab.example", rtype::A).octets();
    let mut dice = fastrand::Rng::with_seed(7);
    for round in 0..3000 {
        let mut octets = good.clone();
        match round % 4 {
            0 => octets = (0..dice.usize(..600)).map(|_| dice.u8(..)).collect(),
            1 => octets.truncate(dice.usize(..octets.len())),
            2 => (0..3).for_each(|_| {
                let place = dice.usize(..octets.len());
                octets[place] = dice.u8(..);
            }),
            _ => {}
        }
        socket.send_to(&octets, lab.running.address).unwrap();
    }
    // More connections than one client may have, each with something else than DNS.
    let connections: Vec<TcpStream> = (0..60)
        .map(|_| {
            let mut stream = TcpStream::connect(lab.running.address).unwrap();
            let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
            stream
        })
        .collect();
    drop(connections);
    eventually("it still answers", || {
        lab.running.client().try_tcp(&query("host-after.lab.example", rtype::A).octets()).is_some()
    });
    let after: Vec<String> = read(&lab.stderr).lines().skip(before).map(str::to_owned).collect();
    assert!(after.is_empty(), "{after:#?}");
    let all = lab.end().join("\n");
    assert!(!all.contains("stranger") && !all.contains("host-after"), "{all}");
}

#[test]
fn the_query_log_says_as_much_as_is_wanted_and_follows_a_rotation() {
    let server = Server::start(Protocol::Dot, Script::good());
    let mut lab = Lab::start(
        |directory| {
            let path = directory.join("queries.json");
            setup().server("lab", &server).table(&format!(
                "[log]\nqueries = {path:?}\nquery_clients = \"masked\"\nquery_names = \"hashed\""
            ))
        },
        &[],
    );
    let (path, rotated) =
        (lab.directory.path().join("queries.json"), lab.directory.path().join("queries.json.1"));
    lab.ask("host-log.lab.example");
    lab.ask("HOST-log.lab.example");
    eventually("both lines are there", || read(&path).lines().count() == 2);
    std::fs::rename(&path, &rotated).unwrap();
    lab.running.reload();
    lab.ask("host-log.lab.example");
    lab.ask("host-other.lab.example");
    lab.end();
    let (first, second) = (objects(&rotated), objects(&path));
    assert_eq!((first.len(), second.len()), (2, 2));
    let hash = first[0]["name"].as_str().unwrap();
    assert!(
        hash.len() == 32 && first[1]["name"] == hash && second[0]["name"] == hash,
        "{first:?} {second:?}"
    );
    assert_ne!(second[1]["name"], hash);
    assert_eq!((&first[0]["client"], &first[0]["type"]), (&"127.0.0.0/24".into(), &"A".into()));
    assert_eq!((&first[0]["source"], &first[0]["upstream"]), (&"upstream".into(), &"lab".into()));
    assert_eq!((&first[1]["source"], &first[1]["upstream"]), (&"cache".into(), &Value::Null));
    assert!(!read(&path).contains("127.0.0.1") && !read(&rotated).contains("host-log"));
}

#[test]
fn the_query_log_goes_to_standard_output_as_lines_of_text_without_clients() {
    let server = Server::start(Protocol::Dot, Script::good());
    let log = "[log]\nqueries = \"stdout\"\nquery_format = \"text\"\nquery_clients = \"absent\"";
    let mut lab = Lab::start(|_| setup().server("lab", &server).table(log), &[]);
    lab.ask("host-stdout.lab.example");
    lab.end();
    let text = read(&lab.stdout);
    let words: Vec<&str> = text.trim_end().split(' ').collect();
    assert_eq!(text.lines().count(), 1);
    assert_eq!(
        words[1..9],
        ["-", "udp", "host-stdout.lab.example.", "A", "IN", "NOERROR", "upstream", "lab"]
    );
    assert!(words[9].ends_with("ms") && words[10] == "-" && words.len() == 11, "{text}");
}

#[test]
fn check_and_run_find_a_query_log_that_cannot_be_written_and_say_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("veildns.toml");
    std::fs::write(directory.path().join("file"), "").unwrap();
    std::fs::create_dir(directory.path().join("good")).unwrap();
    let run = |command: &str, path: &str| {
        std::fs::write(&config, format!("listen = [\"127.0.0.1:0\"]\n[log]\nqueries = \"{path}\"")).unwrap();
        let output = veildns().arg(command).arg("--config").arg(&config).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for command in ["check", "run"] {
        for (path, advice) in [
            ("missing/queries", "does not exist; make it, or put another path into log.queries"),
            ("file/queries", "is not a directory"),
            ("good", "put the path of a file into log.queries"),
        ] {
            let (code, text) = run(command, path);
            assert_eq!(code, Some(78), "{command} {path}: {text}");
            assert!(text.contains("cannot open the query log") && text.contains(advice), "{text}");
        }
    }
    assert_eq!(run("check", "good/queries").0, Some(0));
    assert_eq!(
        std::fs::read_dir(directory.path().join("good")).unwrap().count(),
        0,
        "check leaves nothing behind"
    );
}

#[test]
fn rust_log_rules_over_the_configured_level_and_one_that_cannot_be_read_is_said() {
    let server = Server::start(Protocol::Dot, Script::good());
    let quiet = || setup().server("lab", &server).table("[log]\nlevel = \"error\"");
    let mut lab = Lab::start(|_| quiet(), &[("RUST_LOG", "veildns=debug")]);
    lab.running.reload();
    lab.ask("host-debug.lab.example");
    assert!(lab.end().iter().any(|line| line.contains("query finished") && line.contains("host-debug")));
    let mut lab = Lab::start(|_| setup().server("lab", &server), &[("RUST_LOG", "veildns=loud")]);
    lab.ask("host-info.lab.example");
    let lines = lab.end();
    assert!(lines.iter().any(|line| line.contains("RUST_LOG cannot be read")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("host-info")), "{lines:#?}");
}
