//! The program as a service: what it says on systemd's notification socket (sd_notify(3)) and what signals do. Its only
//! server is a closed port of this machine.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
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
        let length = self.socket.recv(&mut octets).expect("nothing was said");
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
    assert!(has(&service.told(), "READY=1"));

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
