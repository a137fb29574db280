//! The table, and what the figures are held to: the targets, shown as met or not, and the limits, which end the suite.
//! Limits on time are wide, because machines that run tests are shared.

use crate::scenario::{Fault, Scenario};
use serde_json::Value;

/// The figures of one fault and one program.
pub(crate) struct Row {
    pub(crate) scenario: Scenario,
    pub(crate) program: &'static str,
    /// None when the program cannot do what the scenario asks.
    pub(crate) figures: Option<Value>,
}

/// Something that should hold.
pub(crate) struct Goal {
    /// Said when it does not.
    pub(crate) text: String,
    pub(crate) met: bool,
    /// Whether it may be a moment's noise, so that it is worth measuring again.
    pub(crate) is_time: bool,
}

impl Row {
    /// A number of the figures, such as `misses.p99`.
    fn number(&self, path: &str) -> f64 {
        let mut value = self.figures.as_ref().unwrap();
        for part in path.split('.') {
            value = &value[part];
        }
        value.as_f64().unwrap_or_else(|| panic!("{path} in {value}"))
    }

    /// Says whether the machine was busy with something else even before the fault.
    pub(crate) fn is_noisy(&self) -> bool {
        self.number("normal.p99") > 200.0
    }

    /// Holds a number to its most.
    fn at_most(&self, path: &str, most: f64) -> Goal {
        let number = self.number(path);
        let is_time = !path.ends_with("failed");
        Goal {
            text: format!("{}: {path} {number:.1}, at most {most:.1}", self.scenario.name),
            met: number <= most,
            is_time,
        }
    }

    /// What it should be.
    pub(crate) fn targets(&self) -> Vec<Goal> {
        let normal = self.number("normal.p99");
        let mut goals = vec![self.at_most("hits.failed", 0.0)];
        match self.scenario.fault {
            Fault::BlackHoleOne => goals.push(self.at_most("misses.p99", normal + 250.0)),
            Fault::BlackHoleIpv6 => goals.push(self.at_most("misses.p99", normal + 300.0)),
            Fault::BlackHoleAll => {
                goals.push(self.at_most("first_ms", 2000.0));
                goals.push(self.at_most("hits.p99", 1.0));
            }
            Fault::Roam | Fault::OnlyIpv6 | Fault::OwnPrefix => {
                goals.push(self.at_most("misses.worst", 1000.0));
            }
            Fault::Loss | Fault::Delay | Fault::Kill | Fault::Reload | Fault::TakeOver => {}
        }
        if self.scenario.fault != Fault::BlackHoleAll {
            goals.push(self.at_most("misses.failed", 0.0));
        }
        goals
    }

    /// What it must be, on any machine.
    pub(crate) fn limits(&self) -> Vec<Goal> {
        let mut goals = vec![self.at_most("hits.failed", 0.0)];
        match self.scenario.fault {
            Fault::BlackHoleAll => {
                goals.push(self.at_most("first_ms", 4000.0));
                // A hit that waited for a server would take longer; a busy machine alone makes it tens of milliseconds.
                goals.push(self.at_most("hits.p99", 1000.0));
            }
            // A segment that is lost five times running comes later than any client waits.
            Fault::Loss => goals.push(self.at_most("misses.failed", self.number("misses.asked") * 0.1)),
            Fault::BlackHoleOne
            | Fault::BlackHoleIpv6
            | Fault::OnlyIpv6
            | Fault::OwnPrefix
            | Fault::Roam
            | Fault::Delay
            | Fault::Kill
            | Fault::Reload
            | Fault::TakeOver => {
                goals.push(self.at_most("misses.failed", 0.0));
            }
        }
        goals
    }

    /// The row in Markdown.
    fn line(&self) -> String {
        if self.figures.is_none() {
            return format!(
                "| {} | {} | – | – | – | – | – | – | – | – | – | cannot |\n",
                self.scenario.name, self.program
            );
        }
        let missed = self.targets().iter().any(|goal| !goal.met);
        let time = |path: &str| milliseconds(self.number(path));
        let first = if self.number("first_ms") > 60_000.0 { "never".to_owned() } else { time("first_ms") };
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            self.scenario.name,
            self.program,
            self.number("misses.asked"),
            self.number("misses.failed"),
            time("normal.p99"),
            time("misses.p50"),
            time("misses.p99"),
            time("misses.worst"),
            first,
            time("settled_ms"),
            format_args!(
                "{} of {}, {}",
                self.number("hits.failed"),
                self.number("hits.asked"),
                time("hits.p99")
            ),
            if missed { "**no**" } else { "yes" },
        )
    }
}

/// Writes few digits.
fn milliseconds(number: f64) -> String {
    if number < 10.0 { format!("{number:.1}") } else { format!("{number:.0}") }
}

/// The whole table in Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = "| fault | program | asked | failed | normal p99 | p50 | p99 | worst | first answer after | settled \
                    after | hits failed, p99 | target met |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|\n"
        .to_owned();
    for row in rows {
        text.push_str(&row.line());
    }
    text
}

/// The targets that this program misses, in Markdown.
pub(crate) fn missed(rows: &[Row]) -> String {
    let ours = rows.iter().filter(|row| row.program == "veildns" && row.figures.is_some());
    let missed: Vec<String> = ours
        .flat_map(Row::targets)
        .filter(|goal| !goal.met)
        .map(|goal| format!("- {}\n", goal.text))
        .collect();
    if missed.is_empty() {
        return "veildns met every target in this run.\n".to_owned();
    }
    format!("Targets that veildns missed in this run:\n\n{}", missed.concat())
}

/// What the figures were made on.
pub(crate) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let models: Vec<&str> = processors.lines().filter(|line| line.starts_with("model name")).collect();
    let model = models.first().and_then(|line| line.split_once(": ")).map_or("unknown", |(_, model)| model);
    format!("{} × {model}, Linux {}", models.len(), read("/proc/sys/kernel/osrelease").trim())
}
