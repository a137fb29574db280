//! Networks of their own: whether this machine can make them, and one with a home and a world of servers, joined by
//! two links. Linux and root. Names hold the process id of their maker, so that what a killed one left behind is found.

use super::process::Process;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Begins the names of all namespaces made here.
const PREFIX: &str = "vdt";

/// Says whether network namespaces can be made, and says so on standard error when they cannot.
///
/// # Panics
/// When they cannot, and VEILDNS_REQUIRE_NETNS=1 forbids to skip.
pub fn possible(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| super::installed::installed(program).is_none());
    let unshared = Command::new("unshare").args(["--net", "--mount", "--", "true"]).output();
    let reason = match missing {
        Some(program) => format!("{program} is not installed"),
        None if unshared.is_ok_and(|output| output.status.success()) => return true,
        None => "network namespaces need Linux and root".to_owned(),
    };
    let required = std::env::var_os("VEILDNS_REQUIRE_NETNS").is_some_and(|value| value == "1");
    assert!(!required, "VEILDNS_REQUIRE_NETNS=1, but {reason}");
    // Past the test harness, which would swallow it.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
    false
}

/// Set inside of a namespace that [`run_inside`] made.
const INSIDE: &str = "VEILDNS_INSIDE_NETNS";

/// Runs a test of the file that calls, which is ignored otherwise, in a namespace of its own. Where that cannot be made, it says
/// so.
///
/// # Panics
/// When the test fails.
pub fn run_inside(test: &str) {
    if !possible(&["ip"]) {
        return;
    }
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("1 passed"), "{}", text(&output.stdout));
}

/// True in a test that [`run_inside`] runs.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs a command of the system.
///
/// # Panics
/// When it fails.
pub fn system(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = command(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Gives lines to a command that reads them from its standard input.
///
/// # Panics
/// When it fails.
pub fn feed(line: &str, input: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut child = command(words[0])
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{line}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{line}: {}{input}", String::from_utf8_lossy(&output.stderr));
}

/// A program that may be outside of an ordinary PATH.
fn command(program: &str) -> Command {
    Command::new(super::installed::installed(program).unwrap_or_else(|| program.into()))
}

/// The addresses of the two servers, IPv4 and IPv6.
pub const SERVERS: [(&str, &str); 2] = [("192.0.2.1", "2001:db8:1::1"), ("192.0.2.2", "2001:db8:1::2")];

/// A home and a world, joined by the links `wan0`, in use, and `wan1`, where home has no address yet. Gone, with
/// every process in it, when dropped by its maker.
pub struct Net {
    pub home: String,
    pub world: String,
    is_ours: bool,
}

impl Net {
    /// Makes one.
    pub fn make() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{PREFIX}-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let net = Self { home: format!("{name}h"), world: format!("{name}w"), is_ours: true };
        let (home, world) = (&net.home, &net.world);
        system(&format!("ip netns add {home}"));
        system(&format!("ip netns add {world}"));
        feed(
            &format!("ip -n {home} -batch -"),
            &format!(
                "link set lo up\n\
                 link add wan0 type veth peer name wan0 netns {world}\n\
                 link add wan1 type veth peer name wan1 netns {world}\n\
                 link set wan0 up\nlink set wan1 up\n\
                 address add 198.51.100.2/24 dev wan0\n\
                 address add 2001:db8:a::2/64 dev wan0 nodad\n\
                 route add default via 198.51.100.1\n\
                 route add default via 2001:db8:a::1\n"
            ),
        );
        let mut lines = "link set lo up\nlink set wan0 up\nlink set wan1 up\n\
                         address add 198.51.100.1/24 dev wan0\n\
                         address add 2001:db8:a::1/64 dev wan0 nodad\n\
                         address add 203.0.113.1/24 dev wan1\n"
            .to_owned();
        for (v4, v6) in SERVERS {
            lines.push_str(&format!("address add {v4}/32 dev lo\naddress add {v6}/128 dev lo nodad\n"));
        }
        feed(&format!("ip -n {world} -batch -"), &lines);
        net
    }

    /// Names one that another process made, and will remove.
    pub fn of_another(home: &str, world: &str) -> Self {
        Self { home: home.to_owned(), world: world.to_owned(), is_ours: false }
    }

    /// Takes the address and the default route of `wan0` away, and gives those of `wan1`.
    pub fn roam(&self) {
        feed(
            &format!("ip -n {} -batch -", self.home),
            "address del 198.51.100.2/24 dev wan0\nlink set wan0 down\n\
             address add 203.0.113.2/24 dev wan1\nroute add default via 203.0.113.1\n",
        );
    }

    /// Takes home's IPv4 away.
    pub fn lose_ipv4(&self) {
        feed(&format!("ip -n {} -batch -", self.home), "address del 198.51.100.2/24 dev wan0\n");
    }

    /// Gives the world one more IPv6 address.
    pub fn add_to_world(&self, address: &str) {
        feed(&format!("ip -n {} -batch -", self.world), &format!("address add {address}/128 dev lo nodad\n"));
    }

    /// Gives rules to the world's packet filter.
    pub fn filter(&self, rules: &str) {
        feed(&format!("ip netns exec {} nft -f -", self.world), rules);
    }

    /// A program in the world.
    pub fn in_world(&self, program: &Path) -> Command {
        Self::inside(&self.world, program)
    }

    /// A program at home.
    pub fn at_home(&self, program: &Path) -> Command {
        Self::inside(&self.home, program)
    }

    /// A program in a namespace: `ip` becomes it, so that its process id is the child's.
    fn inside(namespace: &str, program: &Path) -> Command {
        let mut command = command("ip");
        command.args(["netns", "exec", namespace]).arg(program);
        command
    }

    /// Ends what runs in it and removes it.
    pub fn remove(&self) {
        remove(&self.home);
        remove(&self.world);
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if self.is_ours {
            self.remove();
        }
    }
}

/// Ends, by process id, what runs in a namespace, and removes it. Never fails: it may be half gone.
fn remove(namespace: &str) {
    let own = std::process::id().to_string();
    if let Ok(output) = command("ip").args(["netns", "pids", namespace]).output() {
        for id in String::from_utf8_lossy(&output.stdout).split_whitespace().filter(|id| **id != own) {
            let _ = Command::new("kill").args(["-KILL", id]).stderr(Stdio::null()).status();
        }
    }
    let _ = command("ip").args(["netns", "delete", namespace]).stderr(Stdio::null()).status();
}

/// Removes the namespaces of makers that are no more.
pub fn sweep() {
    let Ok(output) = command("ip").args(["netns", "list"]).output() else { return };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let mut parts = name.split('-');
        if parts.next() != Some(PREFIX) {
            continue;
        }
        if parts.next().is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            remove(name);
        }
    }
}

/// Starts a program whose output goes to a file.
pub fn start_logged(command: &mut Command, log: &Path) -> Process {
    let file = std::fs::File::create(log).unwrap();
    command.stdout(file.try_clone().unwrap()).stderr(file);
    Process::start(command)
}
