//! The metrics page as text: one table, one line a metric. It reads counters and the `Readings` of other layers when it is
//! asked to and keeps nothing. How the page reaches who asks is `export`'s matter. `docs/metrics.md` has the same table.

#[cfg(test)]
mod tests;

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
