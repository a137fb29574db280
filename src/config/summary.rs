//! One page for people: what a configuration would run. What is *not* here: anything a program should read.

use super::endpoint;
use super::otel;
use super::settings::dnstap::{DnstapSettings, MessageKind};
use super::settings::timeouts::Timeouts;
use super::settings::{
    ClientSubnet, ControlSocket, GroupSpec, Host, Listen, LogSettings, Origin, QueryClients, QueryLog,
    QueryNames, Roots, RouteSpec, ServerSpec, Settings, StrategyKind, TlsVersion,
};
use super::units::{show_duration, show_size};

/// Columns of a page.
const WIDTH: usize = 80;

/// Columns of the words on the left.
const LEFT: usize = 12;

/// Writes the summary that `veildns check` prints.
pub fn summary(settings: &Settings) -> String {
    let mut page = Page::default();
    page.entry(
        "from",
        match &settings.origin {
            Origin::BuiltIn => "the built-in default".to_owned(),
            Origin::File(path) => path.display().to_string(),
        },
    );
    for drop_in in settings.files.iter().skip(1) {
        page.entry("", drop_in.display().to_string());
    }
    let listen: Vec<String> = settings.listen.iter().map(show_listen).collect();
    page.entry("listen", format!("{}; UDP and TCP", listen.join(", ")));
    let clients: Vec<String> = settings.access.iter().map(ToString::to_string).collect();
    page.entry("clients", if clients.is_empty() { "none".to_owned() } else { clients.join(", ") });
    page.entry("workers", settings.workers.to_string());
    for group in &settings.groups {
        page.entry("group", format!("{}, {}", group.name, group_facts(group)));
        for server in group.members.iter().filter_map(|index| settings.servers.get(*index)) {
            page.entry("", show_server(server));
        }
    }
    for route in &settings.routes {
        page.entry("route", show_route(route, settings));
    }
    page.entry("cache", show_cache(settings));
    page.entry("privacy", show_privacy(settings));
    page.entry("rebinding", show_rebinding(settings));
    page.entry("tls", show_tls(settings));
    page.entry("timeouts", show_timeouts(&settings.timeouts));
    page.entry("query log", show_query_log(&settings.log));
    page.entry("dnstap", settings.dnstap.as_ref().map_or_else(|| "off".to_owned(), show_dnstap));
    page.entry(
        "metrics",
        match settings.metrics {
            Some(address) => format!("http://{address}/metrics"),
            None => "off".to_owned(),
        },
    );
    page.entry("traces", otel::show(settings.traces.as_ref()));
    page.entry(
        "control",
        match &settings.control {
            ControlSocket::At(path) => path.display().to_string(),
            ControlSocket::Off => "off".to_owned(),
            ControlSocket::Usual => "where systemd or the session has a directory for it".to_owned(),
        },
    );
    for notice in &settings.notices {
        page.entry("notice", notice.clone());
    }
    page.text
}

/// Lines with a word on the left and text on the right.
#[derive(Default)]
pub(crate) struct Page {
    /// Finished lines.
    pub(crate) text: String,
}

impl Page {
    /// Adds an entry, broken at blanks so that lines fit; what has no blank is left long rather than cut.
    pub(crate) fn entry(&mut self, word: &str, content: String) {
        let mut line = format!("{word:<LEFT$}");
        let mut empty = true;
        for part in content.split(' ') {
            if !empty && line.chars().count() + 1 + part.chars().count() > WIDTH {
                self.text.push_str(line.trim_end());
                self.text.push('\n');
                line = " ".repeat(LEFT + 2);
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line.push_str(part);
            empty = false;
        }
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }
}

/// Shows an address and whether the host may lack it.
fn show_listen(listen: &Listen) -> String {
    let address = listen.address;
    if listen.written || address.is_ipv4() {
        address.to_string()
    } else {
        format!("{address} (if the host has it)")
    }
}

/// Says how a group chooses and whether its names may be private.
fn group_facts(group: &GroupSpec) -> String {
    let strategy = match group.strategy {
        StrategyKind::Fastest => "fastest",
        StrategyKind::Failover => "failover",
        StrategyKind::Weighted => "weighted",
        StrategyKind::RoundRobin => "round-robin",
    };
    if group.own { format!("{strategy}, names may have private addresses") } else { strategy.to_owned() }
}

/// Shows a server: name, URL, where it connects, what is special.
fn show_server(server: &ServerSpec) -> String {
    let url = endpoint::show(&server.endpoint);
    let mut text = if server.name == url { url } else { format!("{}: {url}", server.name) };
    let given_by_address = matches!(endpoint::host(&server.endpoint), Some(Host::Address(_)) | None);
    if server.endpoint.is_plaintext() {
        text.push_str(", UNENCRYPTED");
    } else if server.addresses.is_empty() {
        text.push_str(", address looked up through the others");
    } else if !given_by_address || server.addresses.len() > 1 {
        let addresses: Vec<String> = server.addresses.iter().map(ToString::to_string).collect();
        text.push_str(&format!(" at {}", addresses.join(" ")));
    }
    if server.ca_file.is_some() {
        text.push_str(", own roots");
    }
    if !server.pins.is_empty() {
        text.push_str(", pinned");
    }
    if server.weight != 1 {
        text.push_str(&format!(", weight {}", server.weight));
    }
    if server.trust_ad {
        text.push_str(", AD trusted");
    }
    text
}

/// Shows a route.
fn show_route(route: &RouteSpec, settings: &Settings) -> String {
    let domains: Vec<String> = route.domains.iter().map(ToString::to_string).collect();
    let types: Vec<String> = route.types.iter().map(ToString::to_string).collect();
    let types = if types.is_empty() { String::new() } else { format!(" ({})", types.join(" ")) };
    let group = settings.groups.get(route.group).map_or("", |group| group.name.as_str());
    format!("{}{types} to {group}", domains.join(" "))
}

/// Shows the cache.
fn show_cache(settings: &Settings) -> String {
    let cache = &settings.cache;
    if cache.max_size == 0 {
        return "off".to_owned();
    }
    let stale = if cache.max_stale.is_zero() {
        "no stale answers".to_owned()
    } else {
        format!(
            "stale ones for {} more, after {} of waiting",
            show_duration(cache.max_stale),
            show_duration(cache.stale_after)
        )
    };
    let prefetch = if cache.prefetch { ", refreshed ahead" } else { "" };
    format!(
        "{}, answers kept {} to {}, negative ones to {}, failures {} to {}; {stale}{prefetch}",
        show_size(cache.max_size),
        show_duration(cache.min_ttl),
        show_duration(cache.max_ttl),
        show_duration(cache.negative_max_ttl),
        show_duration(cache.failure_ttl),
        show_duration(cache.failure_max_ttl)
    )
}

/// Shows how long things may take.
fn show_timeouts(Timeouts { query, connect, attempt }: &Timeouts) -> String {
    let [query, connect, least, most] = [*query, *connect, attempt.least, attempt.most].map(show_duration);
    format!("{query} a query, {least} to {most} an attempt, {connect} a connection")
}

/// Shows what servers learn.
fn show_privacy(settings: &Settings) -> String {
    let subnet = match settings.privacy.client_subnet {
        ClientSubnet::Strip => "client subnet stripped".to_owned(),
        ClientSubnet::OptOut => "client subnet stripped, with the wish that servers add none".to_owned(),
        ClientSubnet::Forward => "CLIENT SUBNET FORWARDED".to_owned(),
        ClientSubnet::Fixed(net) => format!("client subnet always {net}"),
    };
    let padding = if settings.privacy.padding { "queries padded" } else { "queries not padded" };
    format!("{subnet}, {padding}")
}

/// Shows what happens to private addresses.
fn show_rebinding(settings: &Settings) -> String {
    if !settings.rebinding.protect {
        return "not protected".to_owned();
    }
    let allowed: Vec<String> = settings.rebinding.allow.iter().map(ToString::to_string).collect();
    if allowed.is_empty() {
        "protected".to_owned()
    } else {
        format!("protected, except {}", allowed.join(" "))
    }
}

/// Shows where queries are logged, and what of them is left out.
fn show_query_log(log: &LogSettings) -> String {
    let target = match &log.queries {
        QueryLog::Off => return "off".to_owned(),
        QueryLog::Stdout => "standard output".to_owned(),
        QueryLog::File(path) => path.display().to_string(),
    };
    let clients = show_query_clients(log.query_lines.clients);
    let names = match log.query_lines.names {
        QueryNames::Full => "names",
        QueryNames::Hashed => "hashed names",
    };
    format!("{target}, with {clients} and {names}")
}

/// Shows where events go, and what they tell of clients.
fn show_dnstap(dnstap: &DnstapSettings) -> String {
    let clients = show_query_clients(dnstap.clients);
    let kinds = MessageKind::WORDS.into_iter().filter(|(_, kind)| dnstap.messages.contains(*kind));
    let kinds: Vec<&str> = kinds.map(|(word, _)| word).collect();
    format!("{}, with {clients} and names: {}", dnstap.collector, kinds.join(", "))
}

/// Says what is told of who asked.
fn show_query_clients(clients: QueryClients) -> &'static str {
    match clients {
        QueryClients::Full => "clients' addresses",
        QueryClients::Masked => "clients' networks",
        QueryClients::Absent => "no clients",
    }
}

/// Shows whom we trust.
fn show_tls(settings: &Settings) -> String {
    let roots = match settings.tls.roots {
        Roots::Webpki => "built-in roots",
        Roots::System => "the system's roots",
    };
    let version = match settings.tls.min_version {
        TlsVersion::Tls12 => "1.2",
        TlsVersion::Tls13 => "1.3",
    };
    let extra = match &settings.tls.extra_ca_dir {
        Some(path) => format!(" and {}", path.display()),
        None => String::new(),
    };
    format!("{roots}{extra}, TLS {version} or later")
}
