//! What answers queries stays in memory while nobody asks, as the kernel sees it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_docs_in_private_items,
    reason = "a broken assumption must end a test, and its table is its documentation"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use support::binary::Running;
use support::eventually;
use support::gateway::setup;
use support::message::{query, rcode, rtype};
use support::script::Script;
use support::server::{Protocol, Server};

/// Returns a value of `/proc/PID/smaps_rollup`, in KiB.
fn rollup(process: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(process.join("smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn after_a_query_the_pages_are_used_although_nobody_asks() {
    let server = Server::start(Protocol::Dot, Script::good());
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("veildns.toml");
    setup().server("lab", &server).write(&config);
    let running = Running::start(&config);
    let reply = running.client().udp(&query("host-resident.lab.example", rtype::A));
    assert_eq!(reply.rcode(), rcode::NOERROR);
    let process = PathBuf::from(format!("/proc/{}", running.process.id()));
    for round in ["when the list of pages is made", "when it is used again"] {
        // As if no page had ever been used (proc_pid_clear_refs(5)).
        fs::write(process.join("clear_refs"), "1").unwrap();
        let used = || 2 * rollup(&process, "Referenced") > rollup(&process, "Rss");
        eventually(&format!("half of the pages used, {round}"), used);
    }
}
