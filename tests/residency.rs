//! How the program rests while nobody asks, as the kernel sees it: what answers queries stays in memory, and workers wait
//! without a time limit.

#![cfg(any(target_os = "linux", target_os = "android"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_docs_in_private_items,
    reason = "a broken assumption must end a test, and its table is its documentation"
)]

mod support;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use std::fs;
use std::io::IoSliceMut;
use std::path::{Path, PathBuf};
use support::binary::Running;
use support::eventually;
use support::gateway::setup;
use support::message::{query, rcode, rtype};
use support::script::Script;
use support::server::{Protocol, Server};

/// Most KiB that the program keeps.
const MOST_KEPT: u64 = 16 << 10;

/// Returns a value of `/proc/PID/smaps_rollup`, in KiB.
fn rollup(process: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(process.join("smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// Tells whether this machine lets a program do what is tested, and lets a test see it. Some sandboxes and kernels do not.
fn is_possible() -> bool {
    let octet = [1_u8];
    let place = RemoteIoVec { base: octet.as_ptr().addr(), len: 1 };
    let read = process_vm_readv(Pid::this(), &mut [IoSliceMut::new(&mut [0])], &[place]);
    let files = ["/proc/self/pagemap", "/proc/self/clear_refs", "/proc/self/smaps_rollup"];
    read.is_ok() && files.into_iter().all(|file| Path::new(file).exists())
}

#[test]
fn pages_are_used_although_nobody_asks() {
    if !is_possible() {
        return eprintln!("this machine forbids process_vm_readv(2), or lacks files in /proc/self");
    }
    let server = Server::start(Protocol::Dot, Script::good());
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("veildns.toml");
    setup().server("lab", &server).write(&config);
    let running = Running::start(&config);
    let process = PathBuf::from(format!("/proc/{}", running.process.id()));
    for round in 1..=2 {
        // As if no page had ever been used (proc_pid_clear_refs(5)).
        fs::write(process.join("clear_refs"), "1").unwrap();
        let used = || 2 * rollup(&process, "Referenced") > rollup(&process, "Rss").min(MOST_KEPT);
        eventually(&format!("half of the pages used, round {round}"), used);
    }
}

/// Returns the time limits with which worker threads wait in epoll, as `/proc/PID/task/TID/syscall` has them (-1: none).
/// None when one of them does something else.
fn limits(process: &Path) -> Option<Vec<i32>> {
    let tasks = fs::read_dir(process.join("task")).unwrap().map(|task| task.unwrap().path());
    let is_worker = |task: &PathBuf| fs::read_to_string(task.join("comm")).unwrap().starts_with("worker-");
    let limit = |task: PathBuf| {
        let call = fs::read_to_string(task.join("syscall")).ok()?;
        // The number of the call and its arguments: epoll, events, how many, how long.
        let limit = call.split_whitespace().nth(4)?.strip_prefix("0x")?.to_owned();
        Some(u64::from_str_radix(&limit, 16).ok()?.to_le_bytes())
    };
    tasks
        .filter(is_worker)
        .map(|task| limit(task).map(|[a, b, c, d, ..]| i32::from_le_bytes([a, b, c, d])))
        .collect()
}

#[test]
fn workers_wait_without_a_time_limit() {
    if fs::read_to_string("/proc/thread-self/syscall").is_err() {
        return eprintln!("this machine does not tell what system call a thread is in");
    }
    for protocol in [Protocol::Dot, Protocol::Doh] {
        let server = Server::start(protocol, Script::good());
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("veildns.toml");
        setup().server("lab", &server).write(&config);
        let running = Running::start(&config);
        let process = PathBuf::from(format!("/proc/{}", running.process.id()));
        let answer = running.client().udp(&query("www.lab.example", rtype::A));
        assert_eq!(answer.rcode(), rcode::NOERROR);
        // A connection is open, which ends when it has been idle for long.
        let is_calm = || {
            limits(&process)
                .is_some_and(|limits| !limits.is_empty() && limits.iter().all(|limit| *limit == -1))
        };
        eventually("no worker has a time limit", is_calm);
    }
}
