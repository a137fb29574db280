//! The programs that are measured: this one, unbound and dnsdist, each with the same two servers over TLS.

use crate::support::authority::NAME;
use crate::support::binary::veildns;
use crate::support::installed::installed;
use crate::support::netns::start_logged;
use crate::support::process::Process;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// Where each of them listens. The namespace is the program's own.
pub(crate) const LISTEN: &str = "127.0.0.1:53";

/// A program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Veildns,
    Unbound,
    Dnsdist,
}

/// All of them.
pub(crate) const ALL: [Program; 3] = [Program::Veildns, Program::Unbound, Program::Dnsdist];

impl Program {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Veildns => "veildns",
            Self::Unbound => "unbound",
            Self::Dnsdist => "dnsdist",
        }
    }

    /// Finds it by name.
    pub(crate) fn named(name: &str) -> Self {
        *ALL.iter().find(|program| program.name() == name).unwrap()
    }

    /// Says whether it is here.
    pub(crate) fn is_installed(self) -> bool {
        self == Self::Veildns || installed(self.name()).is_some()
    }

    /// Its version, for the report.
    pub(crate) fn version(self) -> String {
        let flag = if self == Self::Unbound { "-V" } else { "--version" };
        let mut command = match self {
            Self::Veildns => veildns(),
            Self::Unbound | Self::Dnsdist => Command::new(installed(self.name()).unwrap()),
        };
        let output = command.arg(flag).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace()
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
            .unwrap()
            .to_owned()
    }

    /// Says whether SIGHUP makes it read its configuration anew.
    pub(crate) fn reloads(self) -> bool {
        self != Self::Dnsdist
    }

    /// Where it listens.
    pub(crate) fn address() -> SocketAddr {
        LISTEN.parse().unwrap()
    }

    /// Starts it in this process's namespace. `servers` has for each server its addresses.
    pub(crate) fn start(self, folder: &Path, servers: &[Vec<String>]) -> Process {
        start_logged(&mut self.command(folder, servers), &folder.join("log"))
    }

    /// Starts it while another process of its kind has the address. unbound and dnsdist need no flag for that.
    pub(crate) fn start_beside(self, folder: &Path, servers: &[Vec<String>]) -> Process {
        let mut command = self.command(folder, servers);
        if self == Self::Veildns {
            command.arg("--take-over");
        }
        start_logged(&mut command, &folder.join("log"))
    }

    /// What it logs once it listens.
    pub(crate) fn ready_word(self) -> &'static str {
        match self {
            Self::Veildns => " ready ",
            Self::Unbound => "start of service",
            Self::Dnsdist => "Listening on",
        }
    }

    /// Writes its configuration and returns how it is started.
    fn command(self, folder: &Path, servers: &[Vec<String>]) -> Command {
        let text = match self {
            Self::Veildns => veildns_conf(folder, servers),
            Self::Unbound => unbound_conf(folder, servers),
            Self::Dnsdist => dnsdist_conf(folder, servers),
        };
        let conf = folder.join(format!("{}.conf", self.name()));
        std::fs::write(&conf, text).unwrap();
        let mut command = match self {
            Self::Veildns => veildns(),
            Self::Unbound | Self::Dnsdist => Command::new(installed(self.name()).unwrap()),
        };
        match self {
            Self::Veildns => command.args(["run", "--config"]).arg(conf),
            Self::Unbound => command.args(["-d", "-p", "-c"]).arg(conf),
            Self::Dnsdist => command.args(["--supervised", "--disable-syslog", "-C"]).arg(conf),
        };
        command
    }
}

/// Everything but the servers is as it comes.
fn veildns_conf(folder: &Path, servers: &[Vec<String>]) -> String {
    let mut text = format!("listen = [\"{LISTEN}\"]\nupstreams = [\"one\", \"two\"]\n");
    for (name, addresses) in ["one", "two"].iter().zip(servers) {
        let ca = folder.join("ca.pem");
        write!(
            text,
            "[server.{name}]\nurl = \"tls://{NAME}\"\naddresses = {addresses:?}\nca_file = {ca:?}\n"
        )
        .unwrap();
    }
    text
}

/// As unbound.conf(5) advises for a busy forwarder: room for as many queries and connections as are asked here.
fn unbound_conf(folder: &Path, servers: &[Vec<String>]) -> String {
    let ca = folder.join("ca.pem");
    let mut text = format!(
        "server:\n  directory: {folder:?}\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  \
         interface: 127.0.0.1@53\n  num-threads: 2\n  so-reuseport: yes\n  module-config: \"iterator\"\n  \
         access-control: 127.0.0.0/8 allow\n  tls-cert-bundle: {ca:?}\n  outgoing-num-tcp: 64\n  \
         max-reuse-tcp-queries: 1000000\n  num-queries-per-thread: 8192\n  outgoing-range: 16384\n  \
         jostle-timeout: 2000\nremote-control:\n  control-enable: no\n\
         forward-zone:\n  name: \".\"\n  forward-tls-upstream: yes\n"
    );
    for address in servers.iter().flatten() {
        writeln!(text, "  forward-addr: {address}@853#{NAME}").unwrap();
    }
    text
}

/// With a packet cache, two listeners, and several queries on a connection.
fn dnsdist_conf(folder: &Path, servers: &[Vec<String>]) -> String {
    let ca = folder.join("ca.pem");
    let mut text = "setACL({'127.0.0.0/8'})\nsetSecurityPollSuffix('')\n".to_owned();
    for _ in 0..2 {
        writeln!(text, "addLocal('{LISTEN}', {{reusePort=true}})").unwrap();
    }
    for address in servers.iter().flatten() {
        let address = if address.contains(':') { format!("[{address}]") } else { address.clone() };
        writeln!(
            text,
            "newServer({{address='{address}:853', tls='openssl', subjectName='{NAME}', caStore={ca:?}, \
             validateCertificates=true, useClientSubnet=false, healthCheckMode='auto', maxInFlight=1000}})"
        )
        .unwrap();
    }
    text.push_str("getPool(''):setCache(newPacketCache(300000, {maxTTL=86400}))\n");
    text
}
