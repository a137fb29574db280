//! The program as a service: what it says on systemd's notification socket (sd_notify(3)) and what signals do. Its only
//! server is a closed port of this machine. And the units: systemd's own tools look at them, when they are installed.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use support::installed::peer;
use tempfile::TempDir;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running gateway that believes in systemd.
struct Service {
    child: Child,
    socket: UnixDatagram,
    folder: TempDir,
}

impl Service {
    fn start(environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        configure(folder.path(), "");
        let child =
            run(folder.path()).env("NOTIFY_SOCKET", &path).envs(environment.iter().copied()).spawn().unwrap();
        Self { child, socket, folder }
    }

    /// Returns the lines of the next message.
    fn told(&self) -> Vec<String> {
        let mut octets = [0; 4096];
        let length = support::uninterrupted(|| self.socket.recv(&mut octets)).expect("nothing was said");
        String::from_utf8(octets[..length].to_vec()).unwrap().lines().map(str::to_owned).collect()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(name).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end.
    fn ended(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes the configuration, with `more` at its end.
fn configure(folder: &Path, more: &str) {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!("listen = [\"127.0.0.1:0\"]\nupstreams = [\"tls://{closed}\"]\n{more}");
    std::fs::write(folder.join("veildns.toml"), text).unwrap();
}

/// Prepares a run with the configuration in `folder`, free of what the environment of the test says.
fn run(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veildns"));
    command.args(["run", "--config"]).arg(folder.join("veildns.toml"));
    let ours =
        |name: &str| name.starts_with("VEILDNS_") || name == "NOTIFY_SOCKET" || name == "WATCHDOG_USEC";
    for (name, _) in std::env::vars().filter(|(name, _)| ours(name)) {
        command.env_remove(name);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn has(lines: &[String], wanted: &str) -> bool {
    lines.iter().any(|line| line == wanted)
}

#[test]
fn a_service_says_when_it_is_ready_reloading_and_stopping() {
    let service = Service::start(&[]);
    let ready = service.told();
    assert!(has(&ready, "READY=1"), "{ready:?}");
    assert!(ready.iter().any(|line| line.starts_with("STATUS=answering on 127.0.0.1:")), "{ready:?}");

    service.signal("-HUP");
    let reloading = service.told();
    assert!(has(&reloading, "RELOADING=1"), "{reloading:?}");
    let since = reloading.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    assert!(since.parse::<u64>().unwrap() > 0);
    assert_eq!(service.told(), ready, "where it answers is said again");

    service.signal("-TERM");
    assert!(has(&service.told(), "STOPPING=1"));
    assert_eq!(service.ended().code(), Some(0));
}

#[test]
fn a_reload_of_a_bad_file_ends_ready_too_and_the_service_lives_on() {
    let service = Service::start(&[]);
    assert!(has(&service.told(), "READY=1"));
    configure(service.folder.path(), "this is no TOML");
    service.signal("-HUP");
    assert!(has(&service.told(), "RELOADING=1"));
    assert!(has(&service.told(), "READY=1"));
    service.signal("-INT");
    assert!(has(&service.told(), "STOPPING=1"));
    assert_eq!(service.ended().code(), Some(0));
}

#[test]
fn the_watchdog_hears_from_a_service_that_does_nothing() {
    let service = Service::start(&[("WATCHDOG_USEC", "100000")]);
    assert!(has(&service.told(), "READY=1"));
    for _ in 0..3 {
        assert!(has(&service.told(), "WATCHDOG=1"));
    }
}

#[test]
fn a_wrong_configuration_is_told_by_the_exit_code_that_the_unit_knows() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), "this is no TOML");
    let status = run(folder.path()).status().unwrap();
    assert_eq!(status.code(), Some(78));
    let unit = include_str!("../systemd/veildns.service");
    assert!(unit.contains("RestartPreventExitStatus=64 78"));
}

/// The units of the repository.
const UNITS: [&str; 2] = ["veildns.service", "veildns.socket"];

/// Returns a unit's text.
fn unit(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// Returns all values of a setting of the unit of the service.
fn setting(name: &str) -> Vec<String> {
    let start = format!("{name}=");
    unit("veildns.service").lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let Some(analyze) = peer("systemd-analyze") else { return };
    let folder = tempfile::tempdir().unwrap();
    for name in UNITS {
        // The program is not installed here, but it is built.
        let start = format!("ExecStart={} ", env!("CARGO_BIN_EXE_veildns"));
        std::fs::write(folder.path().join(name), unit(name).replace("ExecStart=veildns ", &start)).unwrap();
    }
    let units = UNITS.map(|name| folder.path().join(name));
    let output = Command::new(analyze).args(["verify", "--man=no"]).args(units).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("veildns."), "{said}");
}

#[test]
fn systemd_finds_the_service_safe() {
    let Some(analyze) = peer("systemd-analyze") else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let output = Command::new(analyze)
        // Exposure, in tenths: 1.5 at most.
        .args(["security", "--offline=true", "--threshold=15", "--no-pager"])
        .arg(folder.join("veildns.service"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("Overall exposure level"), "{said}");
}

/// Returns the system calls of a set of systemd's, sets within it included.
fn calls(analyze: &Path, set: &str) -> BTreeSet<String> {
    let output = Command::new(analyze).args(["syscall-filter", "--no-pager", set]).output().unwrap();
    assert!(output.status.success(), "{set}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut found = BTreeSet::new();
    for word in text.lines().skip(1).map(str::trim).filter(|line| !line.starts_with('#')) {
        if word.starts_with('@') {
            found.extend(calls(analyze, word));
        } else {
            found.insert(word.to_owned());
        }
    }
    found
}

/// Returns the system calls of a trace: lines of a process's number and a call. Others, of signals say, have no parenthesis there.
fn traced(trace: &str) -> BTreeSet<&str> {
    trace.lines().filter_map(|line| Some(line.split_whitespace().nth(1)?.split_once('(')?.0)).collect()
}

/// Prepares the service under strace: the child is what is traced, so that the trace begins with its number.
fn traced_service(strace: &Path, folder: &Path, trace: &Path) -> Command {
    let state = folder.join("state");
    std::fs::create_dir(&state).unwrap();
    let plain = run(folder);
    let mut command = Command::new(strace);
    command.args(["-f", "-o"]).arg(trace).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("NOTIFY_SOCKET", folder.join("notify")).env("STATE_DIRECTORY", &state);
    command.env("WATCHDOG_USEC", "200000").stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Returns the system calls that the unit allows, and those that it takes out again.
fn filter(analyze: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut allowed, mut denied) = (BTreeSet::new(), BTreeSet::new());
    for filter in setting("SystemCallFilter") {
        let (sets, words) = match filter.strip_prefix('~') {
            Some(words) => (&mut denied, words.to_owned()),
            None => (&mut allowed, filter.clone()),
        };
        for word in words.split_whitespace() {
            sets.extend(calls(analyze, word));
        }
    }
    (allowed, denied)
}

#[test]
fn the_unit_allows_every_system_call_that_a_day_of_the_service_needs() {
    let (Some(analyze), Some(strace)) = (peer("systemd-analyze"), peer("strace")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let notify = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    let log = folder.path().join("queries.log");
    configure(
        folder.path(),
        &format!("[log]\nqueries = \"{}\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n", log.display()),
    );
    let trace = folder.path().join("trace");
    let mut child = traced_service(&strace, folder.path(), &trace).spawn().unwrap();
    let mut octets = [0; 4096];
    let mut wait_for = |what: &str| {
        loop {
            let length = support::uninterrupted(|| notify.recv(&mut octets)).expect("nothing was said");
            let said = String::from_utf8_lossy(&octets[..length]).into_owned();
            if said.contains(what) {
                return said;
            }
        }
    };
    let ready = wait_for("READY=1");
    let address = ready.lines().find_map(|line| line.strip_prefix("STATUS=answering on ")).unwrap();

    // A query that is answered here and one that needs servers, by UDP; then a reload, a summary, and the end.
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    for name in [&b"\x09localhost\0"[..], b"\x07example\x03com\0"] {
        let header = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        client.send_to(&[&header[..], name, &[0, 1, 0, 1]].concat(), address).unwrap();
        assert!(support::uninterrupted(|| client.recv(&mut [0; 512])).unwrap() > 12);
    }
    let traced_pid = std::fs::read_to_string(&trace).unwrap();
    let pid = traced_pid.split_whitespace().next().unwrap().to_owned();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    signal("-USR1");
    signal("-HUP");
    wait_for("RELOADING=1");
    wait_for("READY=1");
    wait_for("WATCHDOG=1");
    signal("-TERM");
    wait_for("STOPPING=1");
    assert!(child.wait().unwrap().success());

    let (allowed, denied) = filter(&analyze);
    let text = std::fs::read_to_string(&trace).unwrap();
    let used = traced(&text);
    assert!(used.contains("recvmmsg") && used.contains("epoll_wait"), "{used:?}");
    for call in used {
        assert!(allowed.contains(call) && !denied.contains(call), "the unit does not allow {call}");
    }
}

#[test]
fn the_socket_unit_has_datagrams_and_streams_of_each_address() {
    let text = unit("veildns.socket");
    let of = |kind: &str| -> Vec<String> {
        let start = format!("Listen{kind}=");
        text.lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
    };
    assert_eq!(of("Datagram"), ["127.0.0.1:53"]);
    assert_eq!(of("Datagram"), of("Stream"));
}
