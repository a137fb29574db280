//! The metrics page as text: one table, one line a metric. It reads counters and the `Readings` of other layers when it is
//! asked to and keeps nothing. How the page reaches who asks is `export`'s matter. `docs/metrics.md` has the same table.

use super::bounds::{Bound, BoundReading, Bounds};
use super::counters::{RcodeClass, TRANSPORTS, Telemetry, Totals, UpstreamCounters};
use super::export::{Readings, UpstreamReading};
use super::exposition::{Format, in_prometheus_format};
use super::outcome::Source;
use super::process;
use super::sample::{counter, histogram, labelled, optional_gauge};
use crate::wire::query::ClientTransport;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Writes the page.
///
/// # Errors
/// None that can be helped: writing into memory fails only when a metric refuses to be written.
pub fn text(telemetry: &Telemetry, readings: Readings, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page {
        totals: telemetry.totals(),
        upstreams: telemetry.upstreams(),
        bounds: Arc::clone(telemetry.bounds()),
        dropped: telemetry.query_log().dropped(),
        dnstap_dropped: telemetry.dnstap().dropped(),
        dnstap_connected: telemetry.dnstap().is_connected(),
        traces: [telemetry.traces().sent(), telemetry.traces().dropped()],
        started: telemetry.started().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
        readings,
    }));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(match format {
        Format::OpenMetrics => page,
        Format::Prometheus => in_prometheus_format(&page),
    })
}

/// Everything that the page shows, at one moment.
#[derive(Debug)]
struct Page {
    /// The blocks' sum.
    totals: Totals,
    /// Counters of servers, by name.
    upstreams: Vec<(String, Arc<UpstreamCounters>)>,
    /// Bounds that were reached.
    bounds: Arc<Bounds>,
    /// Lines that the query log lost.
    dropped: u64,
    /// Events that no collector got.
    dnstap_dropped: u64,
    /// True while a collector takes events.
    dnstap_connected: bool,
    /// Traces that the collector took, and those that were lost.
    traces: [u64; 2],
    /// When the process began, in seconds since 1970.
    started: f64,
    /// What other layers said.
    readings: Readings,
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        METRICS.iter().try_for_each(|metric| {
            let unit = metric.unit.as_ref();
            let mut out = encoder.encode_descriptor(metric.name, metric.help, unit, metric.kind)?;
            (metric.write)(self, &mut out)
        })
    }
}

/// One line of the table.
struct Metric {
    /// Its name, without the unit and the ending that its kind gives it.
    name: &'static str,
    /// What it counts.
    kind: MetricType,
    /// In what.
    unit: Option<Unit>,
    /// What it means, in one line.
    help: &'static str,
    /// Writes its samples.
    write: fn(&Page, &mut MetricEncoder<'_>) -> fmt::Result,
}

/// The table. A metric is added here, in `docs/metrics.md`, and where it is counted.
static METRICS: &[Metric] = &[
    Metric {
        name: "veildns_queries",
        kind: MetricType::Counter,
        unit: None,
        help: "Queries that were answered, by how clients asked.",
        write: queries,
    },
    Metric {
        name: "veildns_responses",
        kind: MetricType::Counter,
        unit: None,
        help: "Replies to clients, by response code and by where the reply came from.",
        write: responses,
    },
    Metric {
        name: "veildns_query_duration",
        kind: MetricType::Histogram,
        unit: Some(Unit::Seconds),
        help: "Time from a query to its reply, by where the reply came from. Replies from memory count in the lowest bucket.",
        write: query_duration,
    },
    Metric {
        name: "veildns_cache_hits",
        kind: MetricType::Counter,
        unit: None,
        help: "Queries that the cache answered at once, with a remembered failure or a stale answer too.",
        write: |page, out| counter(out, page.totals.hits()),
    },
    Metric {
        name: "veildns_cache_misses",
        kind: MetricType::Counter,
        unit: None,
        help: "Queries that the cache could not answer at once.",
        write: |page, out| counter(out, page.totals.misses()),
    },
    Metric {
        name: "veildns_cache",
        kind: MetricType::Gauge,
        unit: Some(Unit::Bytes),
        help: "Memory that cached answers take.",
        write: |page, out| out.encode_gauge(&page.readings.cache_bytes),
    },
    Metric {
        name: "veildns_cache_max",
        kind: MetricType::Gauge,
        unit: Some(Unit::Bytes),
        help: "Memory that cached answers may take: `cache.max_size`.",
        write: |page, out| out.encode_gauge(&page.readings.cache_max_bytes),
    },
    Metric {
        name: "veildns_cache_entries",
        kind: MetricType::Gauge,
        unit: None,
        help: "Answers in the cache, stale ones among them.",
        write: |page, out| out.encode_gauge(&page.readings.cache_entries),
    },
    Metric {
        name: "veildns_inflight",
        kind: MetricType::Gauge,
        unit: None,
        help: "Queries that wait for servers at this moment.",
        write: |page, out| out.encode_gauge(&page.readings.inflight),
    },
    Metric {
        name: "veildns_limit",
        kind: MetricType::Gauge,
        unit: None,
        help: "How much there may be, for bounds that can be filled.",
        write: |page, out| bound_gauge(page, out, |reading| reading.limit),
    },
    Metric {
        name: "veildns_limit_in_use",
        kind: MetricType::Gauge,
        unit: None,
        help: "How much of a bound is in use; where each client or server has its own, by the one that uses most.",
        write: |page, out| bound_gauge(page, out, |reading| reading.in_use),
    },
    Metric {
        name: "veildns_limit_reached",
        kind: MetricType::Counter,
        unit: None,
        help: "How often something was refused, closed, put off or left out because a bound was reached.",
        write: limit_reached,
    },
    Metric {
        name: "veildns_upstream_queries",
        kind: MetricType::Counter,
        unit: None,
        help: "Queries sent to servers, by server and by how they ended.",
        write: upstream_queries,
    },
    Metric {
        name: "veildns_upstream_duration",
        kind: MetricType::Histogram,
        unit: Some(Unit::Seconds),
        help: "Time from a query to a server to its answer, by server.",
        write: upstream_duration,
    },
    Metric {
        name: "veildns_upstream_up",
        kind: MetricType::Gauge,
        unit: None,
        help: "1 when the server is in use, 0 when it is held to be down.",
        write: |page, out| upstream_gauge(page, out, |reading| u64::from(reading.up)),
    },
    Metric {
        name: "veildns_upstream_connections",
        kind: MetricType::Gauge,
        unit: None,
        help: "Open connections, by server.",
        write: |page, out| upstream_gauge(page, out, |reading| reading.connections),
    },
    Metric {
        name: "veildns_upstream_handshakes",
        kind: MetricType::Counter,
        unit: None,
        help: "TLS handshakes, by server and by whether an earlier session was resumed.",
        write: upstream_handshakes,
    },
    Metric {
        name: "veildns_validation_failures",
        kind: MetricType::Counter,
        unit: None,
        help: "Answers that were refused, by server and by the rule they broke.",
        write: validation_failures,
    },
    Metric {
        name: "veildns_upstream_hedges",
        kind: MetricType::Counter,
        unit: None,
        help: "Queries that a server was asked only because another one was slow, by that server.",
        write: |page, out| of_each_upstream(page, out, UpstreamCounters::hedges),
    },
    Metric {
        name: "veildns_upstream_hedges_won",
        kind: MetricType::Counter,
        unit: None,
        help: "Of those, the ones that this server answered first.",
        write: |page, out| of_each_upstream(page, out, UpstreamCounters::hedges_won),
    },
    Metric {
        name: "veildns_upstream_repeated",
        kind: MetricType::Counter,
        unit: None,
        help: "Queries that were sent again on a fresh connection, because the one before fell silent, by server.",
        write: |page, out| of_each_upstream(page, out, UpstreamCounters::repetitions),
    },
    Metric {
        name: "veildns_dates_overlooked",
        kind: MetricType::Counter,
        unit: None,
        help: "Queries for names of time servers that were asked although the dates of a certificate did not fit the clock, by server.",
        write: |page, out| of_each_upstream(page, out, UpstreamCounters::overlooked_dates),
    },
    Metric {
        name: "veildns_plaintext_queries",
        kind: MetricType::Counter,
        unit: None,
        help: "Queries that left unencrypted. Stays 0 unless a group names a server of plain DNS.",
        write: |page, out| {
            counter(out, page.upstreams.iter().map(|(_, counters)| counters.plaintext_queries()).sum())
        },
    },
    Metric {
        name: "veildns_clock_wrong",
        kind: MetricType::Gauge,
        unit: None,
        help: "1 when the clock of this machine says a time that is past for certain, else 0.",
        write: |page, out| out.encode_gauge(&u64::from(page.readings.clock_wrong)),
    },
    Metric {
        name: "veildns_query_log_dropped",
        kind: MetricType::Counter,
        unit: None,
        help: "Lines that the query log lost: its queue was full, or its file could not be written.",
        write: |page, out| counter(out, page.dropped),
    },
    Metric {
        name: "veildns_dnstap_dropped",
        kind: MetricType::Counter,
        unit: None,
        help: "Events that the collector of dnstap did not get: too many waited, or a connection to it broke.",
        write: |page, out| counter(out, page.dnstap_dropped),
    },
    Metric {
        name: "veildns_dnstap_connected",
        kind: MetricType::Gauge,
        unit: None,
        help: "1 while a collector of dnstap takes events, else 0.",
        write: |page, out| out.encode_gauge(&u64::from(page.dnstap_connected)),
    },
    Metric {
        name: "veildns_traces_sent",
        kind: MetricType::Counter,
        unit: None,
        help: "Traces that the collector took: one for each flight, whatever the number of clients that waited for it.",
        write: |page, out| counter(out, page.traces[0]),
    },
    Metric {
        name: "veildns_traces_dropped",
        kind: MetricType::Counter,
        unit: None,
        help: "Traces that were lost: their queue was full, or the collector did not take them.",
        write: |page, out| counter(out, page.traces[1]),
    },
    Metric {
        name: "veildns_build",
        kind: MetricType::Info,
        unit: None,
        help: "What runs.",
        write: |_, out| {
            out.encode_info(&[
                ("version", env!("CARGO_PKG_VERSION")),
                ("commit", env!("BUILD_COMMIT")),
                ("crypto", env!("BUILD_CRYPTO")),
            ])
        },
    },
    Metric {
        name: "process_start_time",
        kind: MetricType::Gauge,
        unit: Some(Unit::Seconds),
        help: "When the process started, in seconds since 1970.",
        write: |page, out| out.encode_gauge(&page.started),
    },
    Metric {
        name: "process_resident_memory",
        kind: MetricType::Gauge,
        unit: Some(Unit::Bytes),
        help: "Memory that the process holds.",
        write: |_, out| optional_gauge(out, process::resident_memory()),
    },
    Metric {
        name: "process_open_fds",
        kind: MetricType::Gauge,
        unit: None,
        help: "Files and sockets that the process holds open.",
        write: |_, out| optional_gauge(out, process::open_files()),
    },
];

/// Writes `veildns_queries_total`.
fn queries(page: &Page, out: &mut MetricEncoder<'_>) -> fmt::Result {
    TRANSPORTS.into_iter().try_for_each(|transport| {
        labelled(out, &[("transport", transport_label(transport))], page.totals.queries(transport))
    })
}

/// Returns the `transport` label.
fn transport_label(transport: ClientTransport) -> &'static str {
    match transport {
        ClientTransport::Udp => "udp",
        ClientTransport::Tcp => "tcp",
    }
}

/// Writes `veildns_responses_total`: of the 147 combinations those that were ever seen.
fn responses(page: &Page, out: &mut MetricEncoder<'_>) -> fmt::Result {
    for rcode in RcodeClass::all() {
        for source in Source::ALL {
            let replies = page.totals.responses(rcode, source);
            if replies > 0 {
                let labels = [("rcode", rcode.label()), ("source", source.label().to_owned())];
                labelled(out, &labels, replies)?;
            }
        }
    }
    Ok(())
}

/// Writes `veildns_query_duration_seconds`.
fn query_duration(page: &Page, out: &mut MetricEncoder<'_>) -> fmt::Result {
    Source::ALL
        .into_iter()
        .try_for_each(|source| histogram(out, ("source", source.label()), &page.totals.durations(source)))
}

/// Ends that are on the page before they were seen: the rate of good ones is asked for, and the first wrong certificate has
/// to be an increase, which a series that begins at 1 does not show.
const ALWAYS_SHOWN: [&str; 3] = ["ok", "certificate", "pin"];

/// Writes `veildns_upstream_queries_total`.
fn upstream_queries(page: &Page, out: &mut MetricEncoder<'_>) -> fmt::Result {
    for (name, counters) in &page.upstreams {
        let shown = |outcome: &str, count| count > 0 || ALWAYS_SHOWN.contains(&outcome);
        for (outcome, count) in counters.outcomes().filter(|(outcome, count)| shown(outcome, *count)) {
            labelled(out, &[("upstream", name.as_str()), ("outcome", outcome)], count)?;
        }
    }
    Ok(())
}

/// Writes `veildns_upstream_duration_seconds`.
fn upstream_duration(page: &Page, out: &mut MetricEncoder<'_>) -> fmt::Result {
    page.upstreams
        .iter()
        .try_for_each(|(name, counters)| histogram(out, ("upstream", name), &counters.latency()))
}

/// Writes a counter of every server that was ever counted.
fn of_each_upstream(
    page: &Page,
    out: &mut MetricEncoder<'_>,
    value: fn(&UpstreamCounters) -> u64,
) -> fmt::Result {
    page.upstreams
        .iter()
        .try_for_each(|(name, counters)| labelled(out, &[("upstream", name.as_str())], value(counters)))
}

/// Writes a gauge of every bound that can be filled.
fn bound_gauge(page: &Page, out: &mut MetricEncoder<'_>, value: fn(&BoundReading) -> usize) -> fmt::Result {
    page.readings.bounds.iter().try_for_each(|reading| {
        let value = u64::try_from(value(reading)).unwrap_or(u64::MAX);
        out.encode_family(&[("limit", reading.bound.label())])?.encode_gauge(&value)
    })
}

/// Writes `veildns_limit_reached_total`: every bound, so that a rate is known from the first time.
fn limit_reached(page: &Page, out: &mut MetricEncoder<'_>) -> fmt::Result {
    Bound::ALL
        .into_iter()
        .try_for_each(|bound| labelled(out, &[("limit", bound.label())], page.bounds.count(bound)))
}

/// Writes a gauge of every server that is in use.
fn upstream_gauge(
    page: &Page,
    out: &mut MetricEncoder<'_>,
    value: fn(&UpstreamReading) -> u64,
) -> fmt::Result {
    page.readings.upstreams.iter().try_for_each(|reading| {
        out.encode_family(&[("upstream", reading.name.as_str())])?.encode_gauge(&value(reading))
    })
}

/// Writes `veildns_upstream_handshakes_total`.
fn upstream_handshakes(page: &Page, out: &mut MetricEncoder<'_>) -> fmt::Result {
    for reading in &page.readings.upstreams {
        for (resumed, count) in [("false", reading.handshakes_full), ("true", reading.handshakes_resumed)] {
            labelled(out, &[("upstream", reading.name.as_str()), ("resumed", resumed)], count)?;
        }
    }
    Ok(())
}

/// Writes `veildns_validation_failures_total`: rules that were ever broken.
fn validation_failures(page: &Page, out: &mut MetricEncoder<'_>) -> fmt::Result {
    for (name, counters) in &page.upstreams {
        for (rule, count) in counters.faults().filter(|(_, count)| *count > 0) {
            labelled(out, &[("upstream", name.as_str()), ("rule", rule)], count)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
        let documented: BTreeSet<_> = include_str!("../../docs/metrics.md")
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
}
