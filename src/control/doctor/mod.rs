//! `veildns doctor`: looks at the machine and at the network and says what is wrong and what to do. One file for each
//! kind of check; each says first what it sends to whom. It changes nothing, and asks nobody that its plan does not name.

mod clock;
mod interception;
mod ipv6;
pub mod network;
mod places;
mod portal;
mod ports;
mod report;
pub mod resolv_conf;
mod rewriting;
mod servers;
#[cfg(test)]
mod tests;

use self::places::Places;
use self::report::{Finding, Intent, Status};
use super::terminal::{Palette, Progress};
use super::{CommandError, Exit, print, sources};
use crate::app::core::Core;
use crate::cli::{DoctorArgs, exit};
use crate::config::settings::Settings;
use crate::telemetry::counters::Telemetry;
use crate::telemetry::logging;
use serde_json::{Value, json};
use std::cell::Cell;
use std::io::Write as _;
use std::time::Duration;

/// How long each check may take. They run at once: so long takes the whole.
const LIMIT: Duration = Duration::from_secs(2);

/// Examines and prints.
///
/// # Errors
/// A wrong configuration; a file of roots that cannot be read.
pub(super) fn doctor(args: &DoctorArgs) -> Result<Exit, CommandError> {
    let settings = sources::load_plain(&args.config)?;
    logging::init_quiet();
    let places = Places::default();
    let intents = plan(&settings, &places);
    if args.plan {
        return print(|out| match args.json {
            true => writeln!(out, "{}", json!({ "plan": Intent::list(&intents) })),
            false => out.write_all(report::plan_text(&intents).as_bytes()),
        });
    }
    if !args.json {
        // Before anything is sent.
        print(|out| writeln!(out, "{}", report::plan_text(&intents)))?;
    }
    let findings = examine(&settings, &places)?;
    print(|out| match args.json {
        true => writeln!(out, "{}", report_json(&intents, &findings)),
        false => out.write_all(report::table_text(&findings, Palette::of_stdout()).as_bytes()),
    })?;
    Ok(if has_failed(&findings) { Exit(exit::FAILED) } else { Exit::OK })
}

/// Returns what each check will send, in the order of the report.
fn plan(settings: &Settings, places: &Places) -> Vec<Intent> {
    let nameservers = resolv_conf::read(places).nameservers;
    let of_network = network::resolvers(places, &nameservers);
    vec![
        ports::intent(settings, places),
        resolv_conf::intent(places),
        interception::intent(places),
        rewriting::intent(places, &nameservers),
        portal::intent(places, &nameservers, &of_network),
        servers::intent(settings, places),
        ipv6::intent(settings, places),
        clock::intent(),
    ]
}

/// Runs every check: those of the network all at once, the clock from what they saw.
fn examine(settings: &Settings, places: &Places) -> Result<Vec<Finding>, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let core = Core::new(settings, Telemetry::new(), 1);
    {
        let _inside = runtime.enter();
        core.start(settings, &[runtime.handle().clone()])?;
    }
    let resolv_conf = resolv_conf::read(places);
    let system = resolv_conf::assess(&resolv_conf, settings, places);
    let of_network = network::resolvers(places, &resolv_conf.nameservers);
    let (nameservers, protected) = (&resolv_conf.nameservers, system.protected);
    let upstreams = core.upstreams();
    let looking = Looking::begin();
    let (interception, rewriting, portal, servers, ipv6) = runtime.block_on(async {
        tokio::join!(
            looking.done(interception::examine(places, protected)),
            looking.done(rewriting::examine(places, nameservers, protected)),
            looking.done(portal::examine(places, nameservers, &of_network)),
            looking.done(servers::examine(&upstreams, places)),
            looking.done(ipv6::examine(settings, places)),
        )
    });
    drop(looking);
    runtime.block_on(core.stopped(Duration::from_millis(500)));
    let mut findings = ports::examine(settings, places);
    findings.extend([system.finding, interception, rewriting, portal.finding]);
    findings.extend(servers.findings);
    findings.extend([ipv6, clock::examine(places, portal.date, servers.out_of_date)]);
    Ok(findings)
}

/// Says how many of the checks of the network have come to an end.
struct Looking {
    /// Where it is said.
    progress: Progress,
    /// How many have.
    done: Cell<usize>,
}

impl Looking {
    /// The checks that send something.
    const ALL: usize = 5;

    /// Begins.
    fn begin() -> Self {
        Self { progress: Progress::begin("looking at the network ..."), done: Cell::new(0) }
    }

    /// Waits for a check and counts it.
    async fn done<T>(&self, check: impl Future<Output = T>) -> T {
        let found = check.await;
        self.done.set(self.done.get() + 1);
        self.progress.show(&format!("looking at the network: {} of {}", self.done.get(), Self::ALL));
        found
    }
}

/// Returns true when the machine or the network is ill.
fn has_failed(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.status == Status::Fail)
}

/// Returns the report for a program.
fn report_json(intents: &[Intent], findings: &[Finding]) -> Value {
    json!({
        "ok": !has_failed(findings),
        "plan": Intent::list(intents),
        "findings": findings.iter().map(Finding::json).collect::<Vec<_>>(),
    })
}
