//! Faults made on purpose, in network namespaces: what becomes of clients' queries when servers vanish, networks change,
//! packets are lost, and the program is told to reload. Linux and root; elsewhere it says that it is skipped, unless
//! VEILDNS_REQUIRE_NETNS=1 forbids it. It has no test harness, because its table is to be seen: words on the command
//! line choose faults by their names, and `--compare` measures unbound and dnsdist too.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::excessive_nesting,
    clippy::disallowed_methods,
    clippy::missing_docs_in_private_items,
    reason = "a broken assumption must end a test; sockets and programs of others run in real time"
)]

#[path = "../support/mod.rs"]
mod support;

mod arena;
mod load;
mod programs;
mod report;
mod scenario;
mod server;

use programs::Program;
use report::{Goal, Row};
use scenario::{Fault, Scenario};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;
use support::authority::{self, Certificate, Identity};
use support::netns::{self, Net};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((word, [addresses @ .., folder])) if word == "serve" => {
            server::serve(addresses, Path::new(folder));
        }
        Some((word, [from, to])) if word == "relay" => server::translate(from, to),
        Some((word, rest)) if word == "arena" => arena::run(rest),
        Some(_) | None => return suite(&arguments),
    }
    ExitCode::SUCCESS
}

/// Measures what the arguments choose, prints the table, and says whether all limits held.
fn suite(arguments: &[String]) -> ExitCode {
    let words: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let chosen: Vec<Scenario> = scenario::ALL
        .into_iter()
        .filter(|scenario| words.is_empty() || words.iter().any(|word| scenario.name.contains(word.as_str())))
        .collect();
    if arguments.iter().any(|argument| argument == "--list") {
        chosen.iter().for_each(|scenario| println!("{}: test", scenario.name));
        return ExitCode::SUCCESS;
    }
    if chosen.is_empty() || !netns::possible(&["ip", "nft"]) {
        return ExitCode::SUCCESS;
    }
    netns::sweep();
    let identity = Certificate::Good.identity();
    if arguments.iter().any(|argument| argument == "--compare") {
        compare(&chosen, &identity);
        return ExitCode::SUCCESS;
    }
    println!("\nfaults: {} of them, about {} s", chosen.len(), expected(&chosen));
    let mut rows = side_by_side(&chosen, &identity);
    let alone = chosen.iter().filter(|scenario| scenario.alone);
    rows.extend(alone.map(|scenario| measure(scenario, Program::Veildns, &identity)));
    hold(&mut rows, &identity)
}

/// How many seconds the suite takes.
fn expected(chosen: &[Scenario]) -> u64 {
    let longest = chosen.iter().filter(|scenario| !scenario.alone).map(Scenario::length).max();
    let alone: Duration = chosen.iter().filter(|scenario| scenario.alone).map(Scenario::length).sum();
    (longest.unwrap_or_default() + alone).as_secs() + 5
}

/// Measures the faults that need little of the machine at once.
fn side_by_side(chosen: &[Scenario], identity: &Identity) -> Vec<Row> {
    std::thread::scope(|scope| {
        let running: Vec<_> = chosen
            .iter()
            .filter(|scenario| !scenario.alone)
            .map(|scenario| scope.spawn(|| measure(scenario, Program::Veildns, identity)))
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Prints the table and holds it to the limits. A time beyond its limit, or any limit when the machine was too busy for
/// answers to be prompt before the fault, is measured once more, alone.
fn hold(rows: &mut [Row], identity: &Identity) -> ExitCode {
    for row in rows.iter_mut() {
        let missed: Vec<Goal> = row.limits().into_iter().filter(|goal| !goal.met).collect();
        if !missed.is_empty() && (row.is_noisy() || missed.iter().all(|goal| goal.is_time)) {
            println!("measured again, alone: {}", missed[0].text);
            *row = measure(&row.scenario, Program::Veildns, identity);
        }
    }
    println!("\n{}", report::table(rows));
    let missed = |goals: fn(&Row) -> Vec<Goal>| -> Vec<Goal> {
        rows.iter().flat_map(goals).filter(|goal| !goal.met).collect()
    };
    missed(Row::targets).iter().for_each(|goal| println!("target missed: {}", goal.text));
    let broken = missed(Row::limits);
    broken.iter().for_each(|goal| println!("FAILED: {}", goal.text));
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Measures every program one after the other and prints what `docs/resilience.md` has.
fn compare(chosen: &[Scenario], identity: &Identity) {
    let programs: Vec<Program> = programs::ALL.into_iter().filter(|program| program.is_installed()).collect();
    let mut rows = Vec::new();
    for scenario in chosen {
        for program in &programs {
            eprintln!("{} with {}", scenario.name, program.name());
            rows.push(if scenario.fault == Fault::Reload && !program.reloads() {
                Row { scenario: *scenario, program: program.name(), figures: None }
            } else {
                measure(scenario, *program, identity)
            });
        }
    }
    let versions = programs.iter().map(|program| format!("{} {}", program.name(), program.version()));
    println!("{}; {}.\n", report::machine(), versions.collect::<Vec<_>>().join(", "));
    println!("{}", report::table(&rows));
    print!("{}", report::missed(&rows));
}

/// Makes a network, runs an arena in it, and returns what it says.
fn measure(scenario: &Scenario, program: Program, identity: &Identity) -> Row {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("server.pem", &identity.certificate_pem);
    write("server.key", &identity.key_pem);
    std::fs::copy(authority::trusted().ca_file(), folder.path().join("ca.pem")).unwrap();
    let net = Net::make();
    let mut child = net
        .at_home(&std::env::current_exe().unwrap())
        .args(["arena", scenario.name, program.name(), &net.home, &net.world])
        .arg(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || sender.send(output.lines().next()));
    let said = receiver.recv_timeout(scenario.length() + Duration::from_secs(60));
    let kept = std::env::var_os("VEILDNS_FAULTS_LOG");
    if let Some(kept) = kept {
        let name = format!("{}-{}.log", program.name(), scenario.name.replace(' ', "-"));
        let _ = std::fs::copy(folder.path().join("log"), Path::new(&kept).join(name));
    }
    // With its namespaces goes all that runs in them.
    drop(net);
    child.wait().unwrap();
    let figures: Option<Value> = match said {
        Ok(Some(Ok(line))) => Some(serde_json::from_str(&line).unwrap()),
        // What went wrong stands on standard error. Of our own program that is a failure.
        Ok(_) | Err(_) if program != Program::Veildns => None,
        Ok(_) | Err(_) => panic!("{} with {}: no figures", scenario.name, program.name()),
    };
    Row { scenario: *scenario, program: program.name(), figures }
}
