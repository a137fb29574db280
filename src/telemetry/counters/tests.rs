//! What is counted where.

use super::upstream::OUTCOMES;
use super::*;
use crate::wire::response::ResponseFault;
use std::time::Duration;

#[test]
fn every_label_is_documented() {
    let page = include_str!("../../../docs/metrics.md");
    let rows = OUTCOMES.into_iter().chain(Source::ALL.map(Source::label));
    for label in rows {
        assert!(page.contains(&format!("\n| `{label}` | ")), "{label}");
    }
    for rule in crate::wire::response::ResponseFault::ALL.map(crate::wire::response::ResponseFault::label) {
        assert!(page.contains(&format!("`{rule}`")), "{rule}");
    }
}

/// A query that was answered at once over UDP.
fn at_once(source: Source, rcode: Rcode, ede: Option<EdeCode>) -> Outcome {
    Outcome { source, rcode, ede, transport: ClientTransport::Udp, duration: None }
}

/// A query that waited.
fn waited(source: Source, rcode: Rcode) -> Outcome {
    Outcome { duration: Some(Duration::from_millis(20)), ..at_once(source, rcode, None) }
}

#[test]
fn every_cell_has_a_place_of_its_own() {
    let places: Vec<_> = Cell::all().map(Cell::place).collect();
    assert_eq!(places, (0..CELLS).collect::<Vec<_>>());
}

#[test]
fn rcodes_have_their_names_and_unknown_ones_share_one() {
    let labels: Vec<_> = RcodeClass::all().map(RcodeClass::label).collect();
    assert_eq!((&labels[3][..], &labels[12][..], &labels[20][..]), ("NXDOMAIN", "BADVERS", "other"));
    assert_eq!(labels.iter().filter(|label| *label == "other").count(), 1);
    assert!(!labels.iter().any(|label| label.starts_with("RCODE")));
    for unknown in [12, 15, 24, 4095] {
        assert_eq!(RcodeClass::of(Rcode(unknown)).label(), "other");
    }
}

#[test]
fn hits_are_what_the_cache_answered_and_misses_what_it_could_not() {
    let telemetry = Telemetry::new();
    let block = telemetry.block();
    block.count(&at_once(Source::Cache, Rcode::NOERROR, None));
    block.count(&at_once(Source::Stale, Rcode::NOERROR, Some(EdeCode::STALE_ANSWER)));
    block.count(&at_once(Source::Failed, Rcode::SERVFAIL, Some(EdeCode::CACHED_ERROR)));
    assert_eq!((telemetry.totals().hits(), telemetry.totals().misses()), (3, 0));
    block.count(&waited(Source::Upstream, Rcode::NXDOMAIN));
    block.count(&waited(Source::Stale, Rcode::NOERROR));
    block.count(&waited(Source::Failed, Rcode::SERVFAIL));
    block.count(&at_once(Source::Failed, Rcode::SERVFAIL, Some(EdeCode::OTHER)));
    assert_eq!((telemetry.totals().hits(), telemetry.totals().misses()), (3, 4));
    block.count(&at_once(Source::Local, Rcode::NXDOMAIN, None));
    block.count(&at_once(Source::Blocked, Rcode::REFUSED, Some(EdeCode::BLOCKED)));
    block.count(&at_once(Source::Refused, Rcode::REFUSED, Some(EdeCode::PROHIBITED)));
    assert_eq!((telemetry.totals().hits(), telemetry.totals().misses()), (3, 4));
}

#[test]
fn blocks_of_several_threads_add_up() {
    let telemetry = Telemetry::new();
    let work = |block: Arc<Block>| {
        for _ in 0..1000 {
            block.count(&at_once(Source::Cache, Rcode::NOERROR, None));
            block.count(&waited(Source::Upstream, Rcode::NOERROR));
        }
    };
    std::thread::scope(|threads| {
        for block in (0..4).map(|_| telemetry.block()) {
            threads.spawn(move || work(block));
        }
    });
    let totals = telemetry.totals();
    assert_eq!((totals.queries(ClientTransport::Udp), totals.queries(ClientTransport::Tcp)), (8000, 0));
    assert_eq!(totals.responses(RcodeClass::of(Rcode::NOERROR), Source::Cache), 4000);
    assert_eq!((totals.durations(Source::Cache).count(), totals.hits()), (4000, 4000));
    assert_eq!(totals.durations(Source::Upstream).count(), 4000);
}

#[test]
fn a_reply_given_at_once_counts_in_the_lowest_bucket() {
    let telemetry = Telemetry::new();
    telemetry.block().count(&at_once(Source::Cache, Rcode::NOERROR, None));
    assert_eq!(telemetry.totals().durations(Source::Cache).buckets()[0].1, 1);
}

#[test]
fn a_servers_counters_are_found_again_by_its_name() {
    let telemetry = Telemetry::new();
    telemetry.upstream("quad9").answered(Rcode::NOERROR, Duration::from_millis(12));
    telemetry.upstream("quad9").answered(Rcode::SERVFAIL, Duration::from_millis(12));
    telemetry.upstream("quad9").failed("certificate");
    telemetry.upstream("quad9").failed("never heard of");
    telemetry.upstream("quad9").invalid(ResponseFault::Unrelated);
    let upstreams = telemetry.upstreams();
    assert_eq!(upstreams.len(), 1);
    let counted: Vec<_> = upstreams[0].1.outcomes().filter(|(_, count)| *count > 0).collect();
    assert_eq!(counted, [("ok", 1), ("rcode", 1), ("invalid", 1), ("certificate", 1), ("other", 1)]);
    let broken: Vec<_> = upstreams[0].1.faults().filter(|(_, count)| *count > 0).collect();
    assert_eq!(broken, [("unrelated", 1)]);
    assert_eq!((upstreams[0].1.latency().count(), upstreams[0].1.plaintext_queries()), (2, 0));
}

#[test]
fn blocks_never_share_a_cache_line() {
    assert_eq!(std::mem::align_of::<Block>() % 64, 0);
}

#[test]
fn answers_counted_together_are_counted_as_one_by_one() {
    let times = [1, 5, 5, 70, 2000].map(Duration::from_millis);
    let (together, singly) = (UpstreamCounters::default(), UpstreamCounters::default());
    together.answers(1, &times);
    for (place, latency) in times.into_iter().enumerate() {
        singly.answered(if place == 0 { Rcode::SERVFAIL } else { Rcode::NXDOMAIN }, latency);
    }
    let counted = |counters: &UpstreamCounters| {
        let reading = counters.latency();
        (counters.outcomes().collect::<Vec<_>>(), reading.buckets(), reading.sum_seconds())
    };
    assert_eq!(counted(&together), counted(&singly));
    together.answers(0, &[]);
    assert_eq!(counted(&together), counted(&singly));
}
