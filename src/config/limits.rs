//! The bounds that the operator may set: `[limits]` and `[timeouts]`, each within what the program can hold. What happens at
//! a bound is the matter of whoever holds it.

use super::document::Node;
use super::error::Faults;
use super::section::Section;
use super::settings::timeouts::{AttemptTime, Timeouts};
use super::settings::{Limits, MAX_UDP_BATCH};
use super::units::show_duration;
use super::values;
use std::time::Duration;

/// Reads `[timeouts]`.
pub(super) fn read_timeouts(section: &Section<'_>, faults: &mut Faults) -> Timeouts {
    let bounds = Duration::from_millis(50)..=Duration::from_secs(60);
    let read = |key, faults: &mut Faults, usual| {
        section.read(key, faults, |node| values::duration(node, bounds.clone())).unwrap_or(usual)
    };
    let query = read("query", faults, Duration::from_secs(4));
    let usual = AttemptTime::default();
    let attempt = AttemptTime {
        least: read("attempt_min", faults, usual.least),
        most: read("attempt_max", faults, usual.most),
    };
    let [least, most] = ["attempt_min", "attempt_max"].map(|key| section.node(key));
    in_order(
        [("timeouts.attempt_min", least, attempt.least), ("timeouts.attempt_max", most, attempt.most)],
        faults,
    );
    if let Some(node) = least.filter(|_| attempt.least >= query) {
        let text =
            format!("timeouts.attempt_min is not below timeouts.query, which is {}", show_duration(query));
        faults.push(node.fault(text, "nobody else would ever be asked: lower it, or raise timeouts.query"));
    }
    Timeouts { query, connect: read("connect", faults, Duration::from_secs(2)), attempt }
}

/// Checks that of two times, each with its key and where it is written, the first is not above the second.
pub(super) fn in_order(times: [(&str, Option<&Node>, Duration); 2], faults: &mut Faults) {
    let [(low_key, low_node, low), (high_key, high_node, high)] = times;
    if low <= high {
        return;
    }
    let (low, high) = (show_duration(low), show_duration(high));
    let text = format!("{low_key} ({low}) is above {high_key} ({high})");
    match (low_node, high_node) {
        (_, Some(node)) => {
            faults.push(node.fault(text, format!("raise it to {low}, or lower {low_key} as well")))
        }
        (Some(node), None) => {
            faults.push(node.fault(text, format!("lower it to {high}, or raise {high_key} as well")))
        }
        (None, None) => {}
    }
}

/// Reads `[limits]`. A share of one client never exceeds the whole.
pub(super) fn read_limits(section: &Section<'_>, faults: &mut Faults) -> Limits {
    let usual = Limits::default();
    let count = |key, faults: &mut Faults, usual| {
        section.read(key, faults, |node| values::count(node, 1..=1_000_000)).unwrap_or(usual)
    };
    let time = |key, faults: &mut Faults, usual| {
        let bounds = Duration::from_millis(100)..=Duration::from_secs(3600);
        section.read(key, faults, |node| values::duration(node, bounds.clone())).unwrap_or(usual)
    };
    // Less would not hold one message.
    let size = |key, faults: &mut Faults, usual| {
        let size = section.read(key, faults, |node| values::size(node, 64 << 10..=1 << 30));
        size.map_or(usual, |size| usize::try_from(size).unwrap_or(usize::MAX))
    };
    let max_inflight = count("max_inflight", faults, usual.max_inflight);
    let tcp_connections = count("tcp_connections", faults, usual.tcp_connections);
    Limits {
        max_inflight,
        max_inflight_per_client: count("max_inflight_per_client", faults, usual.max_inflight_per_client)
            .min(max_inflight),
        waiters_per_flight: count("waiters_per_flight", faults, usual.waiters_per_flight),
        udp_batch: section
            .read("udp_batch", faults, |node| values::count(node, 1..=MAX_UDP_BATCH))
            .unwrap_or(usual.udp_batch),
        tcp_connections,
        tcp_connections_per_client: count(
            "tcp_connections_per_client",
            faults,
            usual.tcp_connections_per_client,
        )
        .min(tcp_connections),
        tcp_pipelined: count("tcp_pipelined", faults, usual.tcp_pipelined),
        tcp_unread: size("tcp_unread", faults, usual.tcp_unread),
        tcp_unread_total: size("tcp_unread_total", faults, usual.tcp_unread_total),
        tcp_idle: time("tcp_idle", faults, usual.tcp_idle),
        tcp_read: time("tcp_read", faults, usual.tcp_read),
        // A DNS message has 65,536 IDs; half of them keeps the search for a free one short.
        dot_streams: section
            .read("dot_streams", faults, |node| values::count(node, 1..=32_768))
            .unwrap_or(usual.dot_streams),
        max_connections: section
            .read("max_connections", faults, |node| values::count(node, 1..=64))
            .unwrap_or(usual.max_connections),
        dials: section.read("dials", faults, |node| values::count(node, 1..=64)).unwrap_or(usual.dials),
        pool_queue: count("pool_queue", faults, usual.pool_queue),
        plain_sockets: section
            .read("plain_sockets", faults, |node| values::count(node, 1..=16_384))
            .unwrap_or(usual.plain_sockets),
        attempts: section
            .read("attempts", faults, |node| values::count(node, 1..=10))
            .unwrap_or(usual.attempts),
        retry_percent: section
            .read("retry_percent", faults, |node| values::count(node, 0..=100))
            .unwrap_or(usual.retry_percent),
        hedge_percent: section
            .read("hedge_percent", faults, |node| values::count(node, 0..=100))
            .unwrap_or(usual.hedge_percent),
        refresh_inflight: count("refresh_inflight", faults, usual.refresh_inflight),
        query_log_queue: count("query_log_queue", faults, usual.query_log_queue),
        dnstap_queue: size("dnstap_queue", faults, usual.dnstap_queue),
        trace_queue: count("trace_queue", faults, usual.trace_queue),
        drain_timeout: time("drain_timeout", faults, usual.drain_timeout),
    }
}
