//! A machine that a page is tried on: systemd as its first process, in namespaces of its own, with this host's files below
//! a layer that vanishes. What is done to it, as root, is done to nothing else.

use crate::support::authority;
use crate::support::comes_true;
use crate::support::process::{Process, read};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long it may take to start, and a block to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine. Gone with everything on it when dropped.
pub struct Machine {
    /// Seen from within as `/run/test`.
    lent: PathBuf,
    /// Its systemd, as this host counts processes.
    init: u32,
    /// The directory of its groups of processes.
    groups: Option<PathBuf>,
    launcher: Option<Process>,
    _shared: tempfile::TempDir,
}

/// What commands said and how they ended.
#[derive(Debug)]
pub struct Outcome {
    pub said: String,
    pub code: i32,
}

impl Machine {
    /// Starts one with these programs, which `connect` gives its network by the id of its first process.
    ///
    /// # Errors
    /// It does not start: what it said.
    pub fn boot(programs: &Path, connect: impl FnOnce(u32)) -> Result<Self, String> {
        let shared = tempfile::tempdir().unwrap();
        let lent = shared.path().join("lent");
        fs::create_dir_all(lent.join("bin")).unwrap();
        for program in fs::read_dir(programs).unwrap().map(|entry| entry.unwrap()) {
            fs::copy(program.path(), lent.join("bin").join(program.file_name())).unwrap();
        }
        furnish(&shared.path().join("upper"));
        let groups = group();
        let log = lent.join("boot.log");
        let file = fs::File::create(&log).unwrap();
        // Ends with this thread, however that ends.
        let script = "if [ -n \"$3\" ]; then echo $$ > \"$3/cgroup.procs\"; fi; exec setpriv --pdeathsig KILL unshare --fork --kill-child --pid \
                      --mount --net --uts --ipc --cgroup tests/pages/boot \"$1\" \"$2\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, "boot"]).arg(shared.path()).arg(env!("CARGO_MANIFEST_DIR"));
        command.arg(groups.clone().unwrap_or_default()).current_dir(env!("CARGO_MANIFEST_DIR"));
        let launcher = Process::start(command.stdout(file.try_clone().unwrap()).stderr(file));
        let mut machine = Self { lent, init: 0, groups, launcher: Some(launcher), _shared: shared };
        let launcher = machine.launcher.as_ref().unwrap().id();
        let children = PathBuf::from(format!("/proc/{launcher}/task/{launcher}/children"));
        comes_true(PATIENCE, || {
            machine.init = read(&children).trim().parse().unwrap_or(0);
            machine.init != 0
        });
        let name = PathBuf::from(format!("/proc/{}/comm", machine.init));
        if !comes_true(PATIENCE, || read(&name).trim() == "systemd") {
            return Err(read(&log));
        }
        connect(machine.init);
        let is_up = |said: &str| said.contains("running") || said.contains("degraded");
        if comes_true(PATIENCE, || is_up(&machine.run("systemctl is-system-running || true").said)) {
            Ok(machine)
        } else {
            Err(read(&log))
        }
    }

    /// Runs commands as a user would, in the checkout.
    pub fn run(&self, text: &str) -> Outcome {
        self.finish(self.enter(&["bash", "-euo", "pipefail", "-c", text]))
    }

    /// Runs commands at a terminal, where this is typed.
    pub fn run_at_terminal(&self, text: &str, typed: &str) -> Outcome {
        fs::write(self.lent.join("block"), text).unwrap();
        let mut command = self.enter(&["script", "-qec", "bash -euo pipefail /run/test/block", "/dev/null"]);
        fs::write(self.lent.join("typed"), format!("{typed}\n")).unwrap();
        command.stdin(fs::File::open(self.lent.join("typed")).unwrap());
        self.finish(command)
    }

    /// Runs commands that go on for ever, and interrupts them.
    pub fn run_for(&self, text: &str, seconds: u64) -> Outcome {
        let mut outcome = self.finish(self.enter(&[
            "timeout",
            "--signal=INT",
            &seconds.to_string(),
            "bash",
            "-euo",
            "pipefail",
            "-c",
            text,
        ]));
        if outcome.code == 124 {
            outcome.code = 0;
        }
        outcome
    }

    /// Starts a program that stays; returns what it has said once it has said `ready`, or has said nothing of the kind.
    pub fn stay(&self, before: &str, program: &str, ready: &str) -> Outcome {
        let log = self.lent.join("stays.log");
        let file = fs::File::create(&log).unwrap();
        let text = format!("{before}\necho $$ > /run/test/stays.pid\nexec {program}");
        let mut command = self.enter(&["bash", "-euo", "pipefail", "-c", &text]);
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        // Ends with the machine, or by `end`.
        let mut process = Process::start(&mut command);
        let mut ended = None;
        let is_ready = comes_true(PATIENCE, || {
            ended = process.ended();
            ended.is_some() || read(&log).contains(ready)
        });
        std::mem::forget(process);
        Outcome { said: read(&log), code: i32::from(!is_ready || ended.is_some()) }
    }

    /// Interrupts what stays.
    pub fn end(&self) {
        self.run("kill -INT $(cat /run/test/stays.pid); while kill -0 $(cat /run/test/stays.pid) 2> /dev/null; do sleep 0.05; done");
    }

    /// A command on the machine.
    fn enter(&self, words: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "1", &PATIENCE.as_secs().to_string()]);
        command.args(["nsenter", "--target", &self.init.to_string(), "--all", "--root"]);
        command.args([
            "env",
            "-i",
            "-C",
            "/root/veildns",
            "HOME=/root",
            "TERM=dumb",
            "XDG_RUNTIME_DIR=/run/user/0",
            "LANG=C.UTF-8",
            "EDITOR=true",
        ]);
        command.arg("PATH=/run/test/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.arg("VEILDNS_TLS__EXTRA_CA_DIR=/etc/veildns/certs").args(words);
        command
    }

    /// Runs a command to its end.
    fn finish(&self, mut command: Command) -> Outcome {
        let file = fs::File::create(self.lent.join("said")).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let status = command.status().unwrap();
        Outcome { said: read(&self.lent.join("said")), code: status.code().unwrap_or(-1) }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.init != 0 {
            let _ =
                Command::new("kill").args(["-KILL", &self.init.to_string()]).stderr(Stdio::null()).status();
        }
        if let Some(mut launcher) = self.launcher.take() {
            comes_true(PATIENCE, || launcher.ended().is_some());
        }
        if let Some(groups) = &self.groups {
            comes_true(PATIENCE, || remove(groups));
        }
    }
}

/// Puts files in place that the machine begins with.
fn furnish(upper: &Path) {
    let certs = upper.join("etc/veildns/certs");
    fs::create_dir_all(&certs).unwrap();
    fs::copy(authority::trusted().ca_file(), certs.join("ca.pem")).unwrap();
    fs::write(upper.join("etc/resolv.conf"), format!("nameserver {}\n", super::world::ROUTER)).unwrap();
    fs::set_permissions(upper, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Makes a group for the machine's processes, when this host has such groups.
fn group() -> Option<PathBuf> {
    let mounts = read(Path::new("/proc/mounts"));
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?.split(' ').nth(1)?;
    let groups = Path::new(mount).join(format!("veildns-test-{}", std::process::id()));
    fs::create_dir_all(&groups).ok()?;
    Some(groups)
}

/// Removes a group and those in it; false while some process is still in one.
fn remove(groups: &Path) -> bool {
    let inner = fs::read_dir(groups).into_iter().flatten().flatten().map(|entry| entry.path());
    let all_gone = inner.filter(|path| path.is_dir()).all(|path| remove(&path));
    all_gone && fs::remove_dir(groups).is_ok()
}
