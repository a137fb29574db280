//! The built program as a child process. It says when it is ready, and where, the way it tells systemd: sd_notify(3).

use super::PATIENCE;
use super::client::Client;
use super::gateway::setup;
use super::process::Process;
use super::server::Server;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Names another build of the program, which is tested instead of the one that was built with the tests.
const OTHER: &str = "VEILDNS_TEST_PROGRAM";

/// Returns the program, [`undisturbed`].
pub fn veildns() -> Command {
    let built = || option_env!("CARGO_BIN_EXE_veildns").map(Into::into);
    let Some(program) = std::env::var_os(OTHER).or_else(built) else { panic!("only tests have the binary") };
    undisturbed(Command::new(program))
}

/// Takes from a command what the program would read as meant for it: the variables of whoever runs the tests.
pub fn undisturbed(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("VEILDNS_") || name_text.starts_with("TUNNEL_") {
            command.env_remove(name);
        }
    }
    for name in ["NOTIFY_SOCKET", "RUST_LOG", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "STATE_DIRECTORY"] {
        command.env_remove(name);
    }
    command
}

/// What was written to standard output.
pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What was written to standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs the program to its end.
pub fn run(arguments: &[&str]) -> Output {
    veildns().args(arguments).output().unwrap()
}

/// Writes a configuration into a directory of its own.
pub fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("veildns.toml");
    std::fs::write(&file, text).unwrap();
    (directory, file)
}

/// A configuration file with a server of each protocol.
pub fn with_servers(servers: &[(&str, &Server)]) -> (tempfile::TempDir, PathBuf) {
    let setup = servers.iter().fold(setup(), |setup, (name, server)| setup.server(name, server));
    written(&setup.table("[timeouts]\nquery = \"2s\"\nconnect = \"1s\"").text())
}

/// The program while it runs.
pub struct Running {
    pub process: Process,
    pub address: SocketAddr,
    notices: UnixDatagram,
    _directory: tempfile::TempDir,
}

impl Running {
    /// Starts `veildns run` and waits until it is ready.
    pub fn start(config: &Path) -> Self {
        Self::start_with(config, &[])
    }

    /// Starts it with further variables.
    pub fn start_with(config: &Path, variables: &[(&str, &str)]) -> Self {
        Self::start_to(config, variables, [Stdio::null(), Stdio::null()])
    }

    /// Starts it with standard output and standard error going somewhere.
    pub fn start_to(config: &Path, variables: &[(&str, &str)], [stdout, stderr]: [Stdio; 2]) -> Self {
        let mut command = veildns();
        command.arg("run").arg("--config").arg(config).envs(variables.iter().copied());
        Self::start_writing(command, [stdout, stderr])
    }

    /// Starts the program as this command says and waits until it is ready.
    pub fn start_as(command: Command) -> Self {
        Self::start_writing(command, [Stdio::null(), Stdio::null()])
    }

    /// Starts the program as this command says, with standard output and standard error going somewhere.
    fn start_writing(mut command: Command, [stdout, stderr]: [Stdio; 2]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("notify");
        let notices = UnixDatagram::bind(&socket).unwrap();
        notices.set_read_timeout(Some(PATIENCE)).unwrap();
        command.env("NOTIFY_SOCKET", &socket);
        let process = Process::start(command.stdout(stdout).stderr(stderr));
        let mut running =
            Self { process, address: SocketAddr::from(([0, 0, 0, 0], 0)), notices, _directory: directory };
        let ready = running.wait_for("READY=1");
        let addresses = ready.split_once("STATUS=answering on ").expect("where it answers").1;
        running.address = addresses.split_whitespace().next().unwrap().parse().unwrap();
        running
    }

    /// Waits for a notice with this in it.
    ///
    /// # Panics
    /// When none comes.
    pub fn wait_for(&self, what: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let length = super::uninterrupted(|| self.notices.recv(&mut buffer))
                .unwrap_or_else(|error| panic!("no {what}: {error}"));
            let notice = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if notice.contains(what) {
                return notice;
            }
        }
    }

    /// Asks for a reload and waits for its end, good or bad.
    pub fn reload(&self) {
        self.process.signal("HUP");
        self.wait_for("RELOADING=1");
        self.wait_for("READY=1");
    }

    pub fn client(&self) -> Client {
        Client::new(self.address)
    }
}
