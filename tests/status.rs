//! The control socket end to end: the built program answers `status`, `cache` and `log-level` while it serves clients, and
//! says plainly why when it cannot.

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
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use support::binary::{Running, run, stderr, stdout, veildns};
use support::gateway::{Setup, setup};
use support::message::{query, rcode, rtype};
use support::script::{Reply, Script};
use support::server::{Protocol, Server};
use support::{PATIENCE, eventually};

/// A running gateway, its control socket, and a directory for both.
struct Lab {
    running: Running,
    socket: PathBuf,
    config: PathBuf,
    directory: tempfile::TempDir,
}

impl Lab {
    fn start(setup: &Setup) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (socket, config) = (directory.path().join("c.sock"), directory.path().join("veildns.toml"));
        with_socket(setup, &socket).write(&config);
        let running = Running::start(&config);
        Self { running, socket, config, directory }
    }

    /// Runs the program against the socket.
    fn run(&self, arguments: &[&str]) -> Output {
        veildns().args(arguments).arg("--socket").arg(&self.socket).output().unwrap()
    }

    /// Runs it and returns what it printed.
    fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// Runs it with `--json` and returns the object.
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[arguments, &["--json"]].concat())).unwrap()
    }

    fn ask(&self, name: &str, record_type: u16) -> u16 {
        self.running.client().udp(&query(name, record_type)).rcode()
    }
}

/// Adds the control socket to a configuration.
fn with_socket(setup: &Setup, socket: &Path) -> Setup {
    setup.clone().table(&format!("[control]\nsocket = {:?}", socket.to_str().unwrap()))
}

#[test]
fn status_says_what_runs_what_it_did_and_how_its_servers_are() {
    let server = Server::start(Protocol::Dot, Script::good());
    let lab = Lab::start(&setup().server("lab", &server));
    for _ in 0..3 {
        assert_eq!(lab.ask("host-status.lab.example", rtype::A), rcode::NOERROR);
    }
    let status = lab.json(&["status"]);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["pid"], lab.running.process.id());
    assert_eq!(status["state"], "serving");
    let configuration = &status["configuration"];
    assert_eq!(configuration["files"][0], lab.config.to_str().unwrap());
    assert_eq!(configuration["listen"][0], lab.running.address.to_string());
    assert_eq!((&configuration["query_log"], &configuration["log_level"]), (&"off".into(), &"info".into()));
    let (queries, cache) = (&status["queries"], &status["cache"]);
    assert_eq!((&queries["total"], &queries["by_source"]["cache"]), (&3.into(), &2.into()));
    assert_eq!((&cache["hits"], &cache["misses"], &cache["entries"]), (&2.into(), &1.into(), &1.into()));
    assert_eq!(cache["hit_ratio"], 0.6667);
    let upstream = &status["upstreams"][0];
    assert_eq!((&upstream["name"], &upstream["state"]), (&"lab".into(), &"up".into()));
    assert_eq!((&upstream["answered"], &upstream["connections"]), (&1.into(), &1.into()));
    for key in ["score_ms", "p50_ms", "p95_ms", "latency_ms"] {
        assert!(upstream[key].as_f64().unwrap() > 0.0, "{key}: {upstream}");
    }
    assert_eq!(status["groups"][0]["up"], 1);
    assert_eq!(status["warnings"], serde_json::json!([]));
    let text = lab.text(&["status"]);
    assert!(text.lines().all(|line| line.chars().count() <= 80 || line.contains('/')), "{text}");
    for part in ["66.7 % hits", "serving", "lab ", "cache 2"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(
        !text.contains("host-status") && !status.to_string().contains("host-status"),
        "names are not in it"
    );
}

#[test]
fn status_warns_of_servers_that_are_down_plaintext_and_a_reload_that_failed() {
    let silent = Server::start(Protocol::Dot, Script::replying(Reply::Close));
    let plain = "[group.home]\nupstreams = [\"udp://127.0.0.1:9\"]\n[[route]]\ndomains = [\"home.lab.example\"]\ngroup = \"home\"";
    let lab = Lab::start(&setup().server("lab", &silent).table(plain));
    let codes = |status: &Value| -> Vec<String> {
        let warnings = status["warnings"].as_array().unwrap();
        warnings.iter().map(|warning| warning["code"].as_str().unwrap().to_owned()).collect()
    };
    eventually("every server of the default group is down", || {
        lab.ask(&format!("host-{}.lab.example", fastrand::u32(..)), rtype::A);
        codes(&lab.json(&["status"])).contains(&"down".to_owned())
    });
    std::fs::write(&lab.config, "upstrams = []\nnonsense = 1\n").unwrap();
    lab.running.reload();
    let status = lab.json(&["status"]);
    assert_eq!(codes(&status), ["down", "plaintext", "reload"]);
    let upstream = &status["upstreams"][0];
    assert_eq!(upstream["state"], "down");
    assert!(upstream["failed"].as_u64().unwrap() > 0 && !upstream["last_error"].as_str().unwrap().is_empty());
    let text = lab.text(&["status"]);
    for part in ["down ", "last error", "WARNING", "no server of group default is up", "upstrams"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn watch_shows_it_again_and_again_until_nobody_reads() {
    let server = Server::start(Protocol::Dot, Script::good());
    let lab = Lab::start(&setup().server("lab", &server));
    let mut child = veildns()
        .args(["status", "--watch", "--json", "--socket"])
        .arg(&lab.socket)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let status: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(status["state"], "serving");
    }
    drop(lines);
    assert!(child.wait().unwrap().success(), "a reader that goes away is no error");
}

#[test]
fn dump_shows_every_type_and_variant_and_flush_forgets_what_it_is_told() {
    let server = Server::start(Protocol::Doh, Script::good());
    let lab = Lab::start(&setup().server("lab", &server));
    for (name, record_type) in [
        ("host-one.lab.example", rtype::A),
        ("host-one.lab.example", rtype::AAAA),
        ("host-two.lab.example", rtype::A),
    ] {
        assert_eq!(lab.ask(name, record_type), rcode::NOERROR);
    }
    let dump = lab.json(&["cache", "dump", "HOST-one.lab.example"]);
    let entries = dump["entries"].as_array().unwrap();
    let types: Vec<&str> = entries.iter().map(|entry| entry["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["A", "AAAA"]);
    let address = &entries[0];
    assert_eq!((&address["standing"], &address["rcode"]), (&"fresh".into(), &"NOERROR".into()));
    assert_eq!((&address["group"], &address["dnssec_ok"]), (&"default".into(), &false.into()));
    let (left, ttl) =
        (address["seconds_left"].as_u64().unwrap(), address["answer"][0]["ttl"].as_u64().unwrap());
    assert!(left > 0 && ttl.abs_diff(left) <= 1, "{address}");
    let text = lab.text(&["cache", "dump", "host-one.lab.example"]);
    assert!(text.contains("; host-one.lab.example. A: NOERROR, fresh for "), "{text}");
    assert!(text.contains("\tIN\tA\t"), "{text}");

    assert_eq!(lab.text(&["cache", "flush", "lab.example"]), "0 answers forgotten\n");
    assert_eq!(lab.text(&["cache", "flush", "host-two.lab.example"]), "1 answer forgotten\n");
    let asked = server.log.asked();
    assert_eq!(lab.ask("host-one.lab.example", rtype::A), rcode::NOERROR);
    assert_eq!(server.log.asked(), asked, "what was not named is kept");
    assert_eq!(lab.json(&["cache", "flush", "--subtree", "lab.example"])["removed"], 2);
    assert_eq!(
        lab.text(&["cache", "dump", "host-one.lab.example"]),
        "nothing is kept of host-one.lab.example.\n"
    );
    assert_eq!(lab.ask("host-one.lab.example", rtype::A), rcode::NOERROR);
    assert_eq!(server.log.asked(), asked + 1, "what was forgotten is asked anew");
    assert_eq!(lab.json(&["cache", "flush"])["removed"], 1);
}

#[test]
fn log_level_changes_what_is_logged_until_reset() {
    let server = Server::start(Protocol::Dot, Script::good());
    let lab = Lab::start(&setup().server("lab", &server));
    assert_eq!(lab.text(&["log-level", "debug"]), "log level is debug, was info\n");
    assert_eq!(lab.json(&["status"])["configuration"]["log_level"], "debug");
    assert_eq!(lab.json(&["log-level", "reset"]), serde_json::json!({ "before": "debug", "level": "info" }));
    lab.text(&["log-level", "error"]);
    lab.running.reload();
    assert_eq!(
        lab.json(&["status"])["configuration"]["log_level"],
        "info",
        "a reload puts the configured one back"
    );
    assert_eq!(lab.run(&["log-level", "loud"]).status.code(), Some(64));
}

#[test]
fn the_socket_is_its_owners_alone_and_goes_with_the_gateway() {
    let server = Server::start(Protocol::Dot, Script::good());
    let mut lab = Lab::start(&setup().server("lab", &server));
    assert_eq!(std::fs::metadata(&lab.socket).unwrap().permissions().mode() & 0o777, 0o600);
    lab.running.process.signal("TERM");
    assert!(lab.running.process.wait().success());
    assert!(!lab.socket.exists());
    let output = lab.run(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("veildns is not running") && text.contains("--socket"), "{text}");
    drop(lab.directory);
}

#[test]
fn another_user_is_told_to_ask_as_root() {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::CommandExt;
    let server = Server::start(Protocol::Dot, Script::good());
    let lab = Lab::start(&setup().server("lab", &server));
    let directory = lab.directory.path();
    if std::fs::metadata(directory).unwrap().uid() != 0 {
        // Only root can become another user.
        return;
    }
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    // A copy where everybody may run it. By a program of its own: while this one had it open for writing, another test could start
    // a child, which would hold it open too, and then it cannot be run (ETXTBSY).
    let program = directory.join("veildns");
    let copied = std::process::Command::new("cp").arg(veildns().get_program()).arg(&program).status();
    assert!(copied.unwrap().success());
    let output = std::process::Command::new(&program)
        .args(["status", "--socket"])
        .arg(&lab.socket)
        .current_dir(directory)
        .uid(65_534)
        .gid(65_534)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(77), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("no permission") && stderr(&output).contains("sudo"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_dead_gateways_socket_is_replaced_and_a_living_ones_is_not() {
    let server = Server::start(Protocol::Dot, Script::good());
    let mut lab = Lab::start(&setup().server("lab", &server));
    let second = veildns().arg("run").arg("--config").arg(&lab.config).output().unwrap();
    assert_eq!(second.status.code(), Some(69), "{}", stderr(&second));
    assert!(stderr(&second).contains("another veildns answers on"), "{}", stderr(&second));
    assert_eq!(lab.json(&["status"])["pid"], lab.running.process.id(), "the first one is still reached");
    lab.running.process.signal("KILL");
    lab.running.process.wait();
    assert!(lab.socket.exists(), "nobody was there to remove it");
    assert_eq!(lab.run(&["status"]).status.code(), Some(1));
    let next = Running::start(&lab.config);
    assert_eq!(lab.json(&["status"])["pid"], next.process.id());
}

#[test]
fn without_a_place_for_it_there_is_no_socket_and_the_session_gives_one() {
    let server = Server::start(Protocol::Dot, Script::good());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("veildns.toml");
    setup().server("lab", &server).write(&file);
    let run = directory.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let _quiet = Running::start(&file);
    assert_eq!(std::fs::read_dir(&run).unwrap().count(), 0);
    let variables = [("XDG_RUNTIME_DIR", run.to_str().unwrap())];
    let running = Running::start_with(&file, &variables);
    let status = |arguments: &[&str]| veildns().args(arguments).envs(variables).output().unwrap();
    let found = status(&["status", "--json", "--config", file.to_str().unwrap()]);
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(found["pid"], running.process.id());
    // Another gateway of the same session goes without, and the first one keeps it.
    let _second = Running::start_with(&file, &variables);
    let found: Value =
        serde_json::from_slice(&status(&["status", "--json", "--config", file.to_str().unwrap()]).stdout)
            .unwrap();
    assert_eq!(found["pid"], running.process.id());
    setup().server("lab", &server).table("[control]\nsocket = \"off\"").write(&file);
    let off = status(&["status", "--config", file.to_str().unwrap()]);
    assert_eq!(off.status.code(), Some(78));
    assert!(stderr(&off).contains("control.socket is off"), "{}", stderr(&off));
}

#[test]
fn other_versions_strangers_and_silence_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let answered = |answer: &'static [u8]| {
        let path = directory.path().join(format!("s{}", answer.len()));
        let listener = UnixListener::bind(&path).unwrap();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut asked = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut asked).unwrap();
            stream.write_all(answer).unwrap();
            asked
        });
        let output = run(&["status", "--socket", path.to_str().unwrap()]);
        let asked: Value = serde_json::from_str(&answering.join().unwrap()).unwrap();
        assert_eq!(asked, serde_json::json!({ "veildns": 1, "do": "status" }));
        assert_eq!(output.status.code(), Some(1));
        stderr(&output)
    };
    let other = answered(b"{\"veildns\":2,\"version\":\"4.0.0\",\"result\":{}}\n");
    assert!(other.contains("veildns 4.0.0 runs there") && other.contains("restart the gateway"), "{other}");
    assert!(answered(b"220 mail.example ESMTP\r\n").contains("is not veildns"));
    assert!(answered(b"").contains("does not answer"));
    let refused = answered(
        b"{\"veildns\":1,\"version\":\"0.1.0\",\"error\":{\"code\":\"request\",\"text\":\"too loud\"}}\n",
    );
    assert!(refused.contains("too loud"), "{refused}");
}

#[test]
fn a_gateway_answers_nonsense_in_one_line_and_goes_on() {
    let server = Server::start(Protocol::Dot, Script::good());
    let lab = Lab::start(&setup().server("lab", &server));
    for nonsense in
        [&b"\n"[..], b"{\"veildns\":7,\"do\":\"status\"}\n", b"GET / HTTP/1.1\r\n\r\n", &[b'a'; 20_000]]
    {
        let mut stream = UnixStream::connect(&lab.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may close before it has read everything.
        let _ = stream.write_all(nonsense);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        if !answer.is_empty() {
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            assert!(answer["error"]["text"].is_string() && answer["veildns"] == 1, "{answer}");
        }
    }
    assert_eq!(lab.json(&["status"])["state"], "serving");
}

#[test]
fn help_has_examples() {
    for arguments in [
        &["status", "--help"][..],
        &["cache", "flush", "--help"],
        &["cache", "dump", "--help"],
        &["log-level", "--help"],
    ] {
        let text = stdout(&run(arguments));
        assert!(text.contains("Examples:\n  veildns "), "{arguments:?}:\n{text}");
    }
    for wrong in [
        &["cache", "flush", "a..b"][..],
        &["cache", "dump"],
        &["cache", "flush", "--subtree"],
        &["status", "--watch", "0"],
    ] {
        assert_eq!(run(wrong).status.code(), Some(64), "{wrong:?}");
    }
}
