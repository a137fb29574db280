//! Every key of the configuration as data: name, kind, default and what it does. Unknown keys are found with it, the
//! environment is read with it, and the commented default file is held to it by a test. What is *not* here: how
//! values are read (`resolve`), so a default here is text for people.

use super::document::{Entry, Table, Value};
use super::error::{Fault, Faults, nearest};

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// With dots; `*` stands for a name that the operator chooses, and for each `[[route]]`.
    pub name: &'static str,
    /// How its value is written.
    pub kind: Kind,
    /// As it is written in a file. `None`: there is none, or it depends on the host.
    pub default: Option<&'static str>,
    /// One line.
    pub about: &'static str,
}

/// How a key's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string: also durations and sizes.
    Text,
    /// Strings in brackets.
    List,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
}

/// Makes a key with a default.
const fn key(name: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Key {
    Key { name, kind, default: Some(default), about }
}

/// Makes a key without a default.
const fn bare(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, kind, default: None, about }
}

use Kind::{Boolean, Integer, List, Text};

/// All keys, in the order of the commented default file.
pub const KEYS: &[Key] = &[
    key(
        "listen",
        List,
        "[\"127.0.0.1:5053\", \"[::1]:5053\"]",
        "addresses to answer on, UDP and TCP on each",
    ),
    key(
        "upstreams",
        List,
        "[\"quad9\", \"cloudflare\"]",
        "the default group: names of presets, names of [server.*], or URLs",
    ),
    key("strategy", Text, "\"fastest\"", "fastest | failover | weighted | round-robin"),
    bare(
        "bootstrap",
        List,
        "encrypted servers at addresses, asked for the names of other servers and for nothing else; default: those of the default group",
    ),
    bare("workers", Integer, "worker threads; default: one for each processor"),
    bare(
        "state_dir",
        Text,
        "what is to outlive a restart is kept here; default: systemd's STATE_DIRECTORY, else nothing is kept",
    ),
    bare(
        "server.*.url",
        Text,
        "tls://host[:853], https://host[:443]/path[{?dns}]; in a routed group also udp://ip[:53], tcp://ip[:53]",
    ),
    bare(
        "server.*.addresses",
        List,
        "where to connect; without it the name is looked up through the other servers",
    ),
    bare("server.*.ca_file", Text, "for this server only the roots in this PEM file are trusted"),
    bare("server.*.pins", List, "\"sha256/...\" pins of acceptable keys; one must match, besides the chain"),
    key("server.*.weight", Integer, "1", "share of queries under the strategy \"weighted\", 1 to 1000"),
    key("server.*.trust_ad", Boolean, "false", "may this server's AD bit (\"validated\") reach clients?"),
    bare("server.*.account", Text, "the account id, for presets that need one (nextdns)"),
    bare("group.*.upstreams", List, "the servers of a further group"),
    key("group.*.strategy", Text, "\"fastest\"", "as the top-level strategy"),
    bare(
        "route.*.domains",
        List,
        "suffixes; the longest that matches wins, among equals the first in the file",
    ),
    key("route.*.types", List, "[]", "only these record types; default: all"),
    bare("route.*.group", Text, "the group that answers"),
    key("cache.max_size", Text, "\"64MiB\"", "octets really held; 0 turns the cache off"),
    key("cache.min_ttl", Text, "\"0s\"", "answers are kept at least as long"),
    key("cache.max_ttl", Text, "\"1d\"", "answers are kept at most as long"),
    key("cache.negative_max_ttl", Text, "\"1h\"", "\"no such name\" is kept at most as long"),
    key(
        "cache.max_stale",
        Text,
        "\"1d\"",
        "how long past its time an answer may still help out (RFC 8767); 0: never",
    ),
    key("cache.stale_after", Text, "\"1800ms\"", "how long a client waits before it gets a stale answer"),
    key("cache.prefetch", Boolean, "true", "refresh popular answers shortly before they end"),
    key(
        "cache.failure_ttl",
        Text,
        "\"5s\"",
        "how long a failure is remembered, doubled while it goes on (RFC 9520), 1s to 5m",
    ),
    key("cache.failure_max_ttl", Text, "\"60s\"", "where that doubling ends, 1s to 5m"),
    key(
        "privacy.client_subnet",
        Text,
        "\"strip\"",
        "strip | opt-out (RFC 7871 §7.1.2) | forward | a prefix such as 192.0.2.0/24",
    ),
    key("privacy.padding", Boolean, "true", "pad queries to multiples of 128 octets (RFC 8467)"),
    key("rebinding.protect", Boolean, "true", "drop answers that point public names at private addresses"),
    key(
        "rebinding.allow",
        List,
        "[]",
        "suffixes that may point there; names of a route to servers of your own always may",
    ),
    key("policy.any", Text, "\"minimal\"", "a query for every type gets: minimal (RFC 8482) | forward"),
    key("tls.roots", Text, "\"webpki\"", "webpki (built in) | system"),
    key("tls.extra_ca_dir", Text, "\"certs\"", "every *.pem in this directory is trusted besides"),
    key("tls.min_version", Text, "\"1.2\"", "1.2 | 1.3"),
    key("timeouts.query", Text, "\"4s\"", "all attempts of a query together"),
    key("timeouts.connect", Text, "\"2s\"", "TCP and TLS handshake of one connection together"),
    key(
        "timeouts.attempt_min",
        Text,
        "\"250ms\"",
        "a server is given four times its usual latency before the next one is asked, at least this",
    ),
    key("timeouts.attempt_max", Text, "\"2s\"", "and at most this"),
    key(
        "clock.time_servers",
        List,
        "[\"pool.ntp.org\", \"ntp.ubuntu.com\", \"time.cloudflare.com\", \"time.google.com\", \"time.windows.com\", \"time.apple.com\", \"time.nist.gov\"]",
        "suffixes that are looked up even if no certificate's dates fit the clock; []: none",
    ),
    key("network.watch", Boolean, "true", "start afresh when the network changes or the machine has slept"),
    key(
        "access.allow",
        List,
        "[\"127.0.0.0/8\", \"::1/128\"]",
        "clients that are answered; private ranges are added to the default when a listen address is not loopback",
    ),
    key("limits.max_inflight", Integer, "4096", "queries waiting for servers, all clients"),
    key("limits.max_inflight_per_client", Integer, "2048", "of those, for one client (/32, /56)"),
    key("limits.waiters_per_flight", Integer, "512", "clients waiting for the same answer"),
    key("limits.udp_batch", Integer, "32", "datagrams of clients taken or sent by one system call, 1 to 32"),
    key("limits.tcp_connections", Integer, "512", "connections of clients"),
    key("limits.tcp_connections_per_client", Integer, "16", "of those, from one client (/32, /56)"),
    key("limits.tcp_pipelined", Integer, "64", "queries waiting on one client connection"),
    key("limits.tcp_unread", Text, "\"256KiB\"", "replies that one client connection leaves unread"),
    key("limits.tcp_unread_total", Text, "\"16MiB\"", "of those, all client connections together"),
    key("limits.tcp_idle", Text, "\"10s\"", "an idle client connection is closed after"),
    key("limits.tcp_read", Text, "\"5s\"", "reading one whole message from a client may take"),
    key("limits.dot_streams", Integer, "512", "queries waiting on one DNS over TLS connection"),
    key("limits.max_connections", Integer, "2", "connections to one server"),
    key("limits.dials", Integer, "1", "connections to one server that are being opened at once, 1 to 64"),
    key("limits.pool_queue", Integer, "4096", "queries waiting for a connection to one server"),
    key("limits.plain_sockets", Integer, "256", "UDP sockets open at once to one plain server"),
    key("limits.attempts", Integer, "3", "servers tried for one query"),
    key("limits.retry_percent", Integer, "20", "retries as a share of queries over 10 s, 0 to 100"),
    key(
        "limits.hedge_percent",
        Integer,
        "5",
        "queries asked of a second server because the first is slow, percent; 0 none",
    ),
    key("limits.refresh_inflight", Integer, "16", "background refreshes at once"),
    key(
        "limits.query_log_queue",
        Integer,
        "8192",
        "lines waiting for the query log; more are dropped and counted",
    ),
    key(
        "limits.dnstap_queue",
        Text,
        "\"4MiB\"",
        "events waiting for the collector of dnstap; more are dropped and counted",
    ),
    key(
        "limits.trace_queue",
        Integer,
        "2048",
        "traces waiting for the collector; more are dropped and counted",
    ),
    key("limits.drain_timeout", Text, "\"5s\"", "when stopping, waiting queries may take"),
    key("log.level", Text, "\"info\"", "error | warn | info | debug | trace"),
    key("log.format", Text, "\"text\"", "text | json"),
    key(
        "log.queries",
        Text,
        "\"off\"",
        "off | stdout | a path: a line for each query, with names and addresses",
    ),
    key("log.query_format", Text, "\"json\"", "json | text: how a line of the query log looks"),
    key(
        "log.query_clients",
        Text,
        "\"full\"",
        "full | masked (/24, /56) | absent: who asked, in the query log",
    ),
    key(
        "log.query_names",
        Text,
        "\"full\"",
        "full | hashed (under a key that ends with the process): what was asked, in the query log",
    ),
    key(
        "dnstap.output",
        Text,
        "\"off\"",
        "off | unix:/path | tcp://address:port: where a collector of dnstap listens",
    ),
    key(
        "dnstap.messages",
        List,
        "[\"client_query\", \"client_response\", \"forwarder_query\", \"forwarder_response\"]",
        "which messages it is sent",
    ),
    key("dnstap.clients", Text, "\"full\"", "full | masked (/24, /56) | absent: who asked, in dnstap"),
    key("dnstap.identity", Text, "\"\"", "what this gateway calls itself in dnstap; empty: nothing"),
    bare("metrics.listen", Text, "GET /metrics (Prometheus text), /health, /ready; off when absent"),
    key(
        "otel.traces",
        Boolean,
        "false",
        "a trace for each query that memory could not answer, sent to a collector (OpenTelemetry)",
    ),
    key(
        "otel.endpoint",
        Text,
        "\"http://127.0.0.1:4318\"",
        "the collector: OTLP over plain HTTP, at an address, not a name",
    ),
    key("otel.sample", Text, "\"100%\"", "of these queries, the share that leave a trace"),
    key("otel.names", Boolean, "false", "put the names that were asked for into traces"),
    key("otel.service_name", Text, "\"veildns\"", "what the collector knows this gateway by"),
    bare(
        "control.socket",
        Text,
        "off | a path: where `veildns status` reaches the gateway; default: in systemd's RUNTIME_DIRECTORY or XDG_RUNTIME_DIR",
    ),
];

/// Finds the key with this name, in which `*` matches any one segment.
pub(crate) fn find(segments: &[&str]) -> Option<&'static Key> {
    KEYS.iter().find(|key| {
        let mut pattern = key.name.split('.');
        segments.iter().all(|segment| pattern.next().is_some_and(|part| part == "*" || part == *segment))
            && pattern.next().is_none()
    })
}

/// Lists what may stand below a table: the next segment of every key that begins with `prefix`.
pub(crate) fn children(prefix: &[&str]) -> Vec<&'static str> {
    let mut found: Vec<&'static str> = Vec::new();
    for key in KEYS {
        let mut pattern = key.name.split('.');
        let below = prefix.iter().all(|segment| pattern.next() == Some(segment));
        match pattern.next() {
            Some(next) if below && !found.contains(&next) => found.push(next),
            Some(_) | None => {}
        }
    }
    found
}

/// Reports every key of the tree that does not exist, with the nearest one that does.
pub(crate) fn check(root: &Table, faults: &mut Faults) {
    check_table(root, &[], faults);
}

/// Checks the keys of one table; `prefix` is its name with `*` for free segments.
fn check_table(table: &Table, prefix: &[&str], faults: &mut Faults) {
    let known = children(prefix);
    let free = known.first() == Some(&"*");
    for (name, entry) in table {
        let segment = if free { "*" } else { name.as_str() };
        if !free && !known.contains(&segment) {
            faults.push(unknown(name, entry, prefix, &known));
            continue;
        }
        let path: Vec<&str> = prefix.iter().copied().chain([segment]).collect();
        check_value(entry, &path, faults);
    }
}

/// Goes on into tables and, for `[[route]]`, into each of them. A section that is no table is an error.
fn check_value(entry: &Entry, path: &[&str], faults: &mut Faults) {
    if children(path).is_empty() {
        return;
    }
    match &entry.node.value {
        Value::Table(table) if path != ["route"] => check_table(table, path, faults),
        Value::List(items) if path == ["route"] => {
            for item in items {
                if let Some(table) = faults.keep(item.table().map_err(|fault| fault.of_key("route"))) {
                    check_table(table, &["route", "*"], faults);
                }
            }
        }
        Value::Table(_)
        | Value::List(_)
        | Value::Text(_)
        | Value::Integer(_)
        | Value::Boolean(_)
        | Value::Foreign(_) => {
            let shown = section_header(path);
            faults.push(
                Fault::at(&entry.key, format!("{} is not a key with a value", path.join(".")))
                    .with_label(format!("expected a section: {shown}")),
            );
        }
    }
}

/// Makes the error for an unknown key.
fn unknown(name: &str, entry: &Entry, prefix: &[&str], known: &[&'static str]) -> Fault {
    let place = if prefix.is_empty() {
        "at the top level".to_owned()
    } else {
        format!("in {}", section_header(prefix))
    };
    let fault = Fault::at(&entry.key, format!("unknown key `{name}` {place}"));
    if let Some(near) = nearest(name, known.iter().copied()) {
        return fault.with_label(format!("did you mean `{near}`?"));
    }
    let elsewhere = KEYS.iter().find(|key| key.name.rsplit('.').next() == Some(name));
    match elsewhere.and_then(|key| key.name.rsplit_once('.')) {
        Some((section, _)) => {
            let section: Vec<&str> = section.split('.').collect();
            fault.with_label(format!("this key belongs in {}", section_header(&section)))
        }
        None => fault.with_help(format!("known here: {}", known.join(", "))),
    }
}

/// Writes a section as it stands in a file.
fn section_header(path: &[&str]) -> String {
    match path {
        ["route", ..] => "[[route]]".to_owned(),
        _ => format!("[{}]", path.join(".").replace('*', "NAME")),
    }
}
