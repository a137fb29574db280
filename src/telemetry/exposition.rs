//! The two formats in which metrics are read: that of OpenMetrics, in which the page is written, and that of Prometheus,
//! which is made from it. Which metrics there are is `page`'s matter.

use std::collections::HashMap;

/// What the page is written in. They differ in the names of families alone: every line with a value is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format of Prometheus, 0.0.4.
    Prometheus,
}

impl Format {
    /// Returns what the page is called in HTTP.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Rewrites a page of OpenMetrics: families have the names of their samples, there are no infos and units, and no end.
pub(super) fn in_prometheus_format(page: &str) -> String {
    let mut kinds = HashMap::new();
    for line in page.lines() {
        if let Some((family, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kinds.insert(family, kind);
        }
    }
    let named = |family: &str| match kinds.get(family).copied() {
        Some("counter") => (format!("{family}_total"), "counter"),
        Some("info") => (format!("{family}_info"), "gauge"),
        Some("unknown") | None => (family.to_owned(), "untyped"),
        Some(kind) => (family.to_owned(), kind),
    };
    let mut text = String::with_capacity(page.len());
    for line in page.lines() {
        let mut words = line.splitn(4, ' ');
        let rewritten = match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(family), help) => {
                format!("# HELP {} {}", named(family).0, help.unwrap_or_default())
            }
            (Some("#"), Some("TYPE"), Some(family), _) => {
                let (name, kind) = named(family);
                format!("# TYPE {name} {kind}")
            }
            (Some("#"), ..) => continue,
            _ => line.to_owned(),
        };
        text.push_str(&rewritten);
        text.push('\n');
    }
    text
}
