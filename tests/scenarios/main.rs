//! How the gateway behaves over time: every `*.scenario` file of this folder is played, in virtual time, and must hold to
//! the letter. README.md tells how to write one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a broken assumption must end a test"
)]
#![allow(clippy::excessive_nesting, reason = "the reader of messages follows pointers in a loop")]
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::missing_docs_in_private_items,
    reason = "fields of plain records are named for what they are; of the shared reader of messages each test uses its part"
)]

#[path = "../support/message.rs"]
mod message;
mod reader;
#[cfg(test)]
mod runner_tests;
mod script;
mod server;
mod stage;
mod verdict;
mod words;

use script::{Fault, Script};
use std::fmt::Write;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// More events than this are not printed.
const MOST_EVENTS: usize = 200;

/// So many behaviours are proved here at least: fewer mean that files got lost.
const LEAST: usize = 40;

/// Drivers of flights: one, as with one processor, and several, among which questions are shared out.
const LANES: [usize; 2] = [1, 3];

/// Plays one file and returns what does not hold; None when all does.
fn play(name: &str, text: &str) -> Option<String> {
    match reader::read(text) {
        Err(faults) => Some(report(name, &faults)),
        Ok(script) => LANES.into_iter().find_map(|lanes| play_with(name, &script, lanes)),
    }
}

/// Plays one file at a gateway with so many drivers.
fn play_with(name: &str, script: &Script, lanes: usize) -> Option<String> {
    let (faults, trace) = match catch_unwind(AssertUnwindSafe(|| stage::play(script, lanes))) {
        Ok(played) => played,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map_or("it panics", String::as_str);
            (vec![Fault::new(0, text)], Vec::new())
        }
    };
    if faults.is_empty() {
        return None;
    }
    let mut text = report(name, &faults);
    writeln!(text, "  It is to prove: {}\n  What happened, with {lanes} drivers:", script.about).unwrap();
    for (at, event) in trace.iter().take(MOST_EVENTS) {
        writeln!(text, "  {:>9} ms  {event}", at.as_millis()).unwrap();
    }
    Some(text)
}

/// One line for each fault.
fn report(name: &str, faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("{name}:{fault}\n")).collect()
}

/// Plays every file of a folder and returns the reports of those that fail.
fn play_all(folder: &Path) -> Vec<String> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "scenario"))
        .collect();
    files.sort();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut reports: Vec<String> =
        files.iter().filter_map(|path| play(&name(path), &fs::read_to_string(path).unwrap())).collect();
    if files.len() < LEAST {
        reports.push(format!(
            "{} holds {} scenarios, at least {LEAST} are wanted",
            folder.display(),
            files.len()
        ));
    }
    reports
}

#[test]
fn every_scenario_holds() {
    let reports = play_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios"));
    assert!(reports.is_empty(), "\n{}", reports.join("\n"));
}
