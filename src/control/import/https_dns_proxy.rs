//! What a configuration of https_dns_proxy means here: the sections of OpenWrt's `/etc/config/https-dns-proxy`, or the flags of
//! its command line, which are given the names of the options. Each instance there has a port and a resolver of its own; here
//! every port is answered by all resolvers.

use super::draft::{Draft, Server, line_of, quoted};
use super::uci::Section;
use crate::config::document::{Entry, Node, Place, Table, Text, Value};
use crate::config::endpoint;
use crate::config::error::{Fault, Faults};
use crate::config::settings::{Endpoint, Host};
use crate::config::{presets, values};
use std::net::{IpAddr, SocketAddr};

/// Where an instance listens unless told otherwise; the next instance has the next port.
const ADDRESS: &str = "127.0.0.1";
/// See [`ADDRESS`].
const FIRST_PORT: u16 = 5053;

/// Whom an instance asks unless told otherwise.
const RESOLVER: &str = "https://dns.google/dns-query";

/// Who looks names up when nobody of the original can.
const HELPERS: [&str; 2] = ["quad9", "cloudflare"];

/// The flags of the command line, the option that each stands for, and whether a value follows.
const FLAGS: &[(char, &str, bool)] = &[
    ('a', "listen_addr", true),
    ('p', "listen_port", true),
    ('b', "bootstrap_dns", true),
    ('r', "resolver_url", true),
    ('R', "resolver_ip", true),
    ('T', "tcp_client_limit", true),
    ('i', "polling_interval", true),
    ('t', "proxy_server", true),
    ('S', "source_addr", true),
    ('C', "ca_certs_file", true),
    ('c', "dscp_codepoint", true),
    ('u', "user", true),
    ('g', "group", true),
    ('l', "logfile", true),
    ('m', "max_idle_time", true),
    ('L', "conn_loss_time", true),
    ('s', "statistic_interval", true),
    ('F', "log_limit", true),
    ('4', "-4", false),
    ('x', "force_http1", false),
    ('q', "force_http3", false),
    ('d', "-d", false),
    ('v', "-v", false),
];

/// Options that are never carried over, and why.
const LEFT: &[(&str, &str)] = &[
    ("polling_interval", "names of servers are looked up anew when their TTL says so"),
    ("proxy_server", "veildns goes through no proxy yet"),
    ("source_addr", "the system chooses the source address"),
    ("ca_certs_file", "put its path into ca_file of a [server.NAME]"),
    ("dscp_codepoint", "connections are not marked"),
    ("user", "the service says as whom it runs"),
    ("group", "the service says as whom it runs"),
    ("logfile", "the log goes to standard error; the service or the shell says where that goes"),
    ("max_idle_time", "connections stay open for as long as each server lets them, which is learnt"),
    ("conn_loss_time", "a dead connection is found by its silence, within 2 s"),
    ("statistic_interval", "see `veildns status` and [metrics]"),
    ("log_limit", "there is no record of what was not logged"),
    ("-4", "both families are tried, and the one that works is used"),
    ("force_ipv6_resolvers", "both families are tried, and the one that works is used"),
    ("use_ipv6_resolvers_only", "both families are tried, and the one that works is used"),
    ("force_http1", "HTTP/2 is spoken"),
    ("use_http1", "HTTP/2 is spoken"),
    ("force_http3", "HTTP/3 is not spoken yet"),
    ("-d", "the service runs it in the background"),
    ("edns_subnet", "see client_subnet of [privacy]"),
    ("dnsmasq_config_update", ROUTER),
    ("force_dns", ROUTER),
    ("force_dns_port", ROUTER),
    ("force_dns_src_interface", ROUTER),
    ("canary_domains_icloud", ROUTER),
    ("canary_domains_mozilla", ROUTER),
    ("procd_trigger_wan6", "another network is noticed without a trigger (network.watch)"),
    ("procd_fw_src_interfaces", ROUTER),
    ("update_dnsmasq_config", ROUTER),
    ("wan6_trigger", "another network is noticed without a trigger (network.watch)"),
    ("notrack_dns", ROUTER),
    ("heartbeat_domain", "servers are probed by themselves"),
    ("heartbeat_sleep_timeout", "servers are probed by themselves"),
    ("heartbeat_wait_timeout", "servers are probed by themselves"),
];

/// Why what the start script did is not carried over.
const ROUTER: &str = "this is about dnsmasq and the firewall: see the section OpenWrt of docs/router.md";

/// Reads the sections of OpenWrt's file.
pub(super) fn convert_uci(sections: &[Section], text: &Text, draft: &mut Draft, faults: &mut Faults) {
    let nothing = Table::new();
    let is_instance =
        |section: &&Section| matches!(section.kind.as_str(), "https-dns-proxy" | "https_dns_proxy");
    let main = sections.iter().find(|section| section.kind == "main");
    let main = main.map_or(&nothing, |section| &section.options);
    let mut conversion = Conversion::new(text, draft, faults);
    conversion.leave_out(main);
    let mut instances = 0_u16;
    for section in sections.iter().filter(is_instance) {
        conversion.instance(&section.options, main, FIRST_PORT.saturating_add(instances));
        instances = instances.saturating_add(1);
    }
    if instances == 0 {
        conversion.faults.push(
            Fault::without_place("no instance of https-dns-proxy is there")
                .with_label("expected a section `config https-dns-proxy`"),
        );
    }
    conversion.finish();
}

/// Reads a command line, of which `words` are the arguments with their places.
pub(super) fn convert_flags(words: &[(String, Place)], text: &Text, draft: &mut Draft, faults: &mut Faults) {
    let options = faults.keep(read_flags(words)).unwrap_or_default();
    let mut conversion = Conversion::new(text, draft, faults);
    conversion.instance(&options, &Table::new(), FIRST_PORT);
    conversion.finish();
}

/// Reads flags as getopt(3) does: `-p 5053`, `-p5053`, `-vv`.
fn read_flags(words: &[(String, Place)]) -> Result<Table, Fault> {
    let mut options = Table::new();
    let mut rest = words.iter();
    while let Some((word, place)) = rest.next() {
        let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            return Err(
                Fault::at(place, format!("{word:?} is no flag")).with_label("expected a flag such as -r")
            );
        };
        let Some((flag, glued)) = read_letters(letters, place, &mut options)? else { continue };
        // Its value is the rest of the word, or the next word.
        let (value, at) = match glued {
            "" => rest
                .next()
                .map(|(next, place)| (next.as_str(), place))
                .ok_or_else(|| Fault::at(place, format!("{word} has no value")))?,
            glued => (glued, place),
        };
        let node = Node { place: at.clone(), value: Value::Text(value.to_owned()) };
        options.insert(flag.to_owned(), Entry { key: place.clone(), node });
    }
    Ok(options)
}

/// Reads the letters of a word: counts flags without a value up to one that takes a value, and returns the option that it
/// stands for with what is left of the word.
fn read_letters<'a>(
    letters: &'a str,
    place: &Place,
    options: &mut Table,
) -> Result<Option<(&'static str, &'a str)>, Fault> {
    for (at, letter) in letters.char_indices() {
        let Some((_, option, takes_value)) = FLAGS.iter().find(|(flag, ..)| *flag == letter) else {
            return Err(Fault::at(place, format!("unknown flag -{letter}"))
                .with_label("https_dns_proxy has no such flag"));
        };
        if *takes_value {
            return Ok(Some((option, letters.get(at + letter.len_utf8()..).unwrap_or_default())));
        }
        count(options, option, place);
    }
    Ok(None)
}

/// Counts a flag that may be given again.
fn count(options: &mut Table, key: &str, place: &Place) {
    let before = options.get(key).and_then(|entry| entry.node.integer().ok()).unwrap_or_default();
    let node = Node { place: place.clone(), value: Value::Integer(before + 1) };
    options.insert(key.to_owned(), Entry { key: place.clone(), node });
}

/// A conversion under way.
struct Conversion<'a> {
    /// What is read.
    text: &'a Text,
    /// What comes of it.
    draft: &'a mut Draft,
    /// What is wrong with it.
    faults: &'a mut Faults,
    /// Some server is known by name only.
    needs_help: bool,
    /// Plain servers that looked names up, with their lines.
    plain: Vec<(usize, String)>,
}

impl<'a> Conversion<'a> {
    /// Begins one.
    fn new(text: &'a Text, draft: &'a mut Draft, faults: &'a mut Faults) -> Self {
        Self { text, draft, faults, needs_help: false, plain: Vec::new() }
    }

    /// Reads one instance; `main` has what holds for all of them.
    fn instance(&mut self, options: &Table, main: &Table, usual_port: u16) {
        let option = |key: &str| options.get(key).or_else(|| main.get(key)).map(|entry| &entry.node);
        let listened = listen(option("listen_addr"), option("listen_port"), usual_port);
        if let Some(listen) = self.faults.keep(listened).filter(|listen| !self.draft.listen.contains(listen))
        {
            self.draft.listen.push(listen);
        }
        if let Some(plain) = self.faults.keep(bootstrap(option("bootstrap_dns"), self.text)) {
            self.plain.extend(plain);
        }
        if let Err(fault) = self.resolver(option("resolver_url"), option("resolver_ip")) {
            self.faults.push(fault);
        }
        self.clients(option("tcp_client_limit"));
        self.log_level(option("verbosity").or_else(|| option("-v")));
        self.leave_out(options);
    }

    /// Takes the resolver: a preset if it is one, since presets know their addresses.
    fn resolver(&mut self, url: Option<&Node>, address: Option<&Node>) -> Result<(), Fault> {
        let text = url.map_or(Ok(RESOLVER), Node::text)?;
        let parsed = endpoint::parse(text).map_err(|error| match url {
            Some(node) => node.fault(format!("{text:?}: {error}"), error.help()),
            None => Fault::without_place(error.to_string()),
        })?;
        if let Some(node) = address {
            let address = values::address(node)?;
            let host = endpoint::host(&parsed).map(ToString::to_string).unwrap_or_default();
            let name = self.draft.free_name(&host);
            self.draft.ask(&name);
            let url = text.to_owned();
            self.draft.servers.push(Server { name, url, addresses: vec![address], pins: Vec::new() });
            return Ok(());
        }
        match presets::with_endpoint(&parsed) {
            Some(preset) => self.draft.ask(preset),
            None => {
                self.draft.ask(text);
                self.needs_help |= is_named(&parsed);
            }
        }
        Ok(())
    }

    /// Takes the bound on clients' connections.
    fn clients(&mut self, node: Option<&Node>) {
        let Some(node) = node else { return };
        match node.text().ok().and_then(|text| text.parse::<u32>().ok()) {
            Some(0) => {
                let line = line_of(self.text, node.place.span.start);
                self.draft.leave_out(line, "tcp_client_limit 0", "clients are always answered by TCP too");
            }
            Some(most) => self.set("limits", "tcp_connections", most.to_string()),
            None => self.faults.push(node.fault("tcp_client_limit is no number", "expected a whole number")),
        }
    }

    /// Takes how much is logged, by how often it is asked for.
    fn log_level(&mut self, node: Option<&Node>) {
        let Some(node) = node else { return };
        let times = node.integer().ok().or_else(|| node.text().ok()?.parse().ok());
        match times {
            Some(0) => self.set("log", "level", quoted("error")),
            Some(1) => self.set("log", "level", quoted("warn")),
            Some(2) => self.set("log", "level", quoted("info")),
            Some(_) => self.set("log", "level", quoted("debug")),
            None => self.faults.push(node.fault("verbosity is no number", "expected 0 to 3")),
        }
    }

    /// Sets a key, the first time it is set.
    fn set(&mut self, section: &'static str, key: &'static str, value: String) {
        if !self.draft.keys.iter().any(|(known, name, _)| (*known, *name) == (section, key)) {
            self.draft.keys.push((section, key, value));
        }
    }

    /// Notes the options that stay behind.
    fn leave_out(&mut self, options: &Table) {
        const CARRIED: [&str; 8] = [
            "listen_addr",
            "listen_port",
            "bootstrap_dns",
            "resolver_url",
            "resolver_ip",
            "tcp_client_limit",
            "verbosity",
            "-v",
        ];
        for (key, entry) in options.iter().filter(|(key, _)| !CARRIED.contains(&key.as_str())) {
            let known = LEFT.iter().find(|(left, _)| left == key);
            let why = known.map_or("veildns has nothing like it", |(_, why)| *why);
            let what = entry.node.text().map_or_else(|_| key.clone(), |value| format!("{key} {value}"));
            self.draft.leave_out(line_of(self.text, entry.key.span.start), what, why);
        }
    }

    /// Ends with who looks names up.
    fn finish(mut self) {
        for (line, address) in std::mem::take(&mut self.plain) {
            let why = self.helper(&address);
            self.draft.leave_out(line, format!("bootstrap_dns {address}"), why);
        }
        if self.needs_help && self.draft.bootstrap.is_empty() {
            self.draft.bootstrap = HELPERS.map(str::to_owned).to_vec();
        }
    }

    /// Finds who stands in for a plain server, and says why it is not asked any more.
    fn helper(&mut self, address: &str) -> String {
        if !self.needs_help {
            return "names of servers are looked up encrypted, and here no name has to be".to_owned();
        }
        let Some(preset) = address.parse().ok().and_then(presets::at) else {
            return "names of servers are looked up encrypted; this one is asked by plain DNS".to_owned();
        };
        let name = preset.name;
        if !self.draft.bootstrap.iter().any(|known| known == name) {
            self.draft.bootstrap.push(name.to_owned());
        }
        format!("names of servers are looked up encrypted; \"{name}\" has this address and does it")
    }
}

/// True for a server whose name has to be looked up.
fn is_named(endpoint: &Endpoint) -> bool {
    matches!(endpoint::host(endpoint), Some(Host::Name(_)))
}

/// Reads where an instance listens.
fn listen(address: Option<&Node>, port: Option<&Node>, usual_port: u16) -> Result<String, Fault> {
    let text = address.map_or(Ok(ADDRESS), Node::text)?;
    let ip: Option<IpAddr> = text.parse().ok();
    let port = match port {
        None => usual_port,
        Some(node) => node
            .text()?
            .parse()
            .map_err(|_| node.fault("listen_port is no port", "expected a number from 0 to 65535"))?,
    };
    match (ip, address) {
        (Some(ip), _) => Ok(SocketAddr::new(ip, port).to_string()),
        (None, Some(node)) => Err(node.fault(format!("{text:?} is no address"), "expected an IP address")),
        (None, None) => Err(Fault::without_place("no address to listen on")),
    }
}

/// Reads the plain servers: addresses with commas or blanks between them, perhaps with ports.
fn bootstrap(node: Option<&Node>, text: &Text) -> Result<Vec<(usize, String)>, Fault> {
    let Some(node) = node else { return Ok(Vec::new()) };
    let line = line_of(text, node.place.span.start);
    let parts = node.text()?.split([',', ' ']).filter(|part| !part.is_empty());
    let address = |part: &str| {
        let bare = part.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        bare.or_else(|| part.parse::<SocketAddr>().ok().map(|at| at.ip()))
    };
    parts
        .map(|part| match address(part) {
            Some(address) => Ok((line, address.to_string())),
            None => {
                Err(node.fault(format!("{part:?} is no address"), "expected addresses with commas between"))
            }
        })
        .collect()
}
