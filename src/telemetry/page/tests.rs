//! The lines of the page, and the list that documents are held to.

use super::*;
use crate::telemetry::outcome::{Outcome, QueryDetail, record};
use crate::wire::ede::EdeCode;
use crate::wire::header::Rcode;
use crate::wire::response::ResponseFault;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A metric as a page shows it.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: Vec<Sample>,
}

/// A line of a page: full name, labels, value.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Reads a page as a strict reader of OpenMetrics would.
fn read(page: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let body = page.strip_suffix("# EOF\n").expect("ends with # EOF");
    for line in body.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            let sample = sample(line);
            let ending = sample.name.strip_prefix(&current).expect("a sample follows its family");
            let family = families.get_mut(&current).unwrap();
            let allowed: &[&str] = match family.kind.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "info" => &["_info"],
                "histogram" => &["_bucket", "_sum", "_count"],
                other => panic!("kind {other}"),
            };
            assert!(allowed.contains(&ending), "{line}");
            family.samples.push(sample);
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (what, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        match what {
            "HELP" => {
                assert!(rest.ends_with('.') && !families.contains_key(name), "{line}");
                current = name.to_owned();
                families.insert(current.clone(), Family::default());
            }
            "TYPE" if name == current => rest.clone_into(&mut families.get_mut(name).unwrap().kind),
            "UNIT" => assert!(name == current && name.ends_with(&format!("_{rest}")), "{line}"),
            _ => panic!("{line}"),
        }
    }
    families
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}').unwrap();
    let labels = labels.split_terminator(',').map(|label| {
        let (key, value) = label.split_once('=').unwrap();
        (key.to_owned(), value.trim_matches('"').to_owned())
    });
    Sample { name: name.to_owned(), labels: labels.collect(), value: value.parse().unwrap() }
}

/// Does a little of everything.
fn workload() -> (Arc<Telemetry>, Readings) {
    let telemetry = Telemetry::new();
    let block = telemetry.block();
    let wait = Some(Duration::from_millis(30));
    for (source, rcode, ede, duration) in [
        (Source::Cache, Rcode::NOERROR, None, None),
        (Source::Cache, Rcode::NOERROR, None, None),
        (Source::Failed, Rcode::SERVFAIL, Some(EdeCode::CACHED_ERROR), None),
        (Source::Upstream, Rcode::NXDOMAIN, None, wait),
        (Source::Stale, Rcode::NOERROR, Some(EdeCode::STALE_ANSWER), wait),
        (Source::Failed, Rcode(4000), None, wait),
        (Source::Refused, Rcode::BADVERS, None, None),
    ] {
        let outcome = Outcome { source, rcode, ede, transport: ClientTransport::Udp, duration };
        let detail = QueryDetail { client: [192, 0, 2, 1].into(), question: None, upstream: None };
        record(&telemetry, &block, &outcome, &detail);
    }
    telemetry.bounds().reached(Bound::TcpRead);
    let quad9 = telemetry.upstream("quad9");
    quad9.answered(Rcode::NOERROR, Duration::from_millis(29));
    quad9.failed("timeout");
    quad9.invalid(ResponseFault::Id);
    let readings = Readings {
        cache_bytes: 1234,
        cache_max_bytes: 5678,
        cache_entries: 5,
        clock_wrong: true,
        inflight: 2,
        bounds: vec![BoundReading { bound: Bound::MaxInflight, in_use: 2, limit: 4096 }],
        upstreams: vec![UpstreamReading {
            name: "quad9".to_owned(),
            up: true,
            connections: 1,
            handshakes_full: 3,
            handshakes_resumed: 4,
        }],
        ready: true,
    };
    (telemetry, readings)
}

/// The page after the workload.
fn page() -> BTreeMap<String, Family> {
    let (telemetry, readings) = workload();
    read(&text(&telemetry, readings, Format::OpenMetrics).unwrap())
}

/// Returns the value of the one sample with these labels.
fn value(page: &BTreeMap<String, Family>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let fits = |sample: &&Sample| {
        sample.name == name
            && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|has| has == value))
    };
    let mut found = page.values().flat_map(|family| &family.samples).filter(fits);
    let sample = found.next().unwrap_or_else(|| panic!("no {name} {labels:?}"));
    assert!(found.next().is_none(), "two of {name} {labels:?}");
    sample.value
}

#[test]
fn what_was_recorded_is_what_the_page_says() {
    let page = page();
    type Labels = &'static [(&'static str, &'static str)];
    let expected: &[(&str, Labels, f64)] = &[
        ("veildns_queries_total", &[("transport", "udp")], 7.0),
        ("veildns_queries_total", &[("transport", "tcp")], 0.0),
        ("veildns_responses_total", &[("rcode", "NOERROR"), ("source", "cache")], 2.0),
        ("veildns_responses_total", &[("rcode", "NXDOMAIN"), ("source", "upstream")], 1.0),
        ("veildns_responses_total", &[("rcode", "other"), ("source", "failed")], 1.0),
        ("veildns_responses_total", &[("rcode", "BADVERS")], 1.0),
        ("veildns_cache_hits_total", &[], 3.0),
        ("veildns_cache_misses_total", &[], 3.0),
        ("veildns_cache_bytes", &[], 1234.0),
        ("veildns_cache_max_bytes", &[], 5678.0),
        ("veildns_cache_entries", &[], 5.0),
        ("veildns_clock_wrong", &[], 1.0),
        ("veildns_inflight", &[], 2.0),
        ("veildns_limit", &[("limit", "max_inflight")], 4096.0),
        ("veildns_limit_in_use", &[("limit", "max_inflight")], 2.0),
        ("veildns_limit_reached_total", &[("limit", "tcp_read")], 1.0),
        ("veildns_limit_reached_total", &[("limit", "tcp_idle")], 0.0),
        ("veildns_upstream_queries_total", &[("upstream", "quad9"), ("outcome", "ok")], 1.0),
        ("veildns_upstream_queries_total", &[("upstream", "quad9"), ("outcome", "timeout")], 1.0),
        ("veildns_upstream_queries_total", &[("upstream", "quad9"), ("outcome", "certificate")], 0.0),
        ("veildns_upstream_queries_total", &[("upstream", "quad9"), ("outcome", "invalid")], 1.0),
        ("veildns_upstream_up", &[("upstream", "quad9")], 1.0),
        ("veildns_upstream_connections", &[("upstream", "quad9")], 1.0),
        ("veildns_upstream_handshakes_total", &[("resumed", "false")], 3.0),
        ("veildns_upstream_handshakes_total", &[("resumed", "true")], 4.0),
        ("veildns_validation_failures_total", &[("upstream", "quad9"), ("rule", "id")], 1.0),
        ("veildns_dates_overlooked_total", &[("upstream", "quad9")], 0.0),
        ("veildns_plaintext_queries_total", &[], 0.0),
        ("veildns_query_log_dropped_total", &[], 0.0),
        ("veildns_traces_sent_total", &[], 0.0),
        ("veildns_traces_dropped_total", &[], 0.0),
        ("veildns_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0),
        ("veildns_upstream_duration_seconds_count", &[("upstream", "quad9")], 1.0),
        ("veildns_query_duration_seconds_count", &[("source", "cache")], 2.0),
        ("veildns_query_duration_seconds_bucket", &[("source", "failed"), ("le", "0.0001")], 1.0),
        ("veildns_query_duration_seconds_bucket", &[("source", "failed"), ("le", "+Inf")], 2.0),
        ("veildns_query_duration_seconds_sum", &[("source", "failed")], 0.03),
    ];
    for (name, labels, expected) in expected {
        let value = value(&page, name, labels);
        assert!((value - expected).abs() < 1e-9, "{name} {labels:?}: {value}");
    }
    assert!(value(&page, "process_start_time_seconds", &[]) > 1.7e9);
}

#[test]
fn buckets_are_cumulative_and_end_in_the_count() {
    let page = page();
    for (name, label) in
        [("veildns_query_duration_seconds", "source"), ("veildns_upstream_duration_seconds", "upstream")]
    {
        let mut series: BTreeMap<&String, Vec<(f64, f64)>> = BTreeMap::new();
        let samples = page[name].samples.iter();
        for sample in samples.filter(|sample| sample.name.ends_with("_bucket")) {
            let bound = sample.labels["le"].replace("+Inf", "inf").parse().unwrap();
            series.entry(&sample.labels[label]).or_default().push((bound, sample.value));
        }
        assert!(!series.is_empty());
        for (who, buckets) in series {
            assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name} {who}: {buckets:?}");
            let count = value(&page, &format!("{name}_count"), &[(label, who)]);
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)));
        }
    }
}

#[test]
fn the_page_and_the_documentation_list_the_same_metrics() {
    let documented: BTreeSet<_> = include_str!("../../../docs/metrics.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .filter(|(name, _)| name.starts_with("veildns_") || name.starts_with("process_"))
        .map(|(name, rest)| {
            let cells: Vec<_> = rest.split('|').map(str::trim).collect();
            let labels = cells[1].split(", ").map(|label| label.trim_matches('`').to_owned());
            let labels = labels.filter(|label| !label.is_empty()).collect::<BTreeSet<_>>();
            (name.to_owned(), cells[0].to_owned(), labels, cells[2].to_owned())
        })
        .collect();
    let (telemetry, readings) = workload();
    let page = text(&telemetry, readings, Format::OpenMetrics).unwrap();
    let shown: BTreeSet<_> = read(&page)
        .into_iter()
        .map(|(name, family)| {
            let labels = family.samples.iter().flat_map(|sample| sample.labels.keys().cloned());
            let labels = labels.filter(|label| label != "le").collect();
            let help = page.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} ")));
            let ending = match family.kind.as_str() {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            (format!("{name}{ending}"), family.kind, labels, help.unwrap().to_owned())
        })
        .collect();
    assert_eq!(documented, shown);
}

#[test]
fn a_page_before_anything_happened_is_a_page_too() {
    let page = read(&text(&Telemetry::new(), Readings::default(), Format::OpenMetrics).unwrap());
    assert_eq!(page.len(), METRICS.len());
    assert!(page["veildns_upstream_up"].samples.is_empty());
}

#[test]
fn a_servers_name_cannot_break_out_of_its_label() {
    let telemetry = Telemetry::new();
    telemetry.upstream("a\"b\\c\nd").failed("timeout");
    let page = text(&telemetry, Readings::default(), Format::OpenMetrics).unwrap();
    assert!(page.contains(r#"{upstream="a\"b\\c\nd",outcome="timeout"} 1"#));
}
