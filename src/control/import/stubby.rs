//! What a configuration of stubby means here. Its keys are those of getdns, its addresses may carry a port (`127.0.0.1@8053`),
//! a TLS port (`#853`) and a name (`~dns.example`).

use super::draft::{Draft, Server, line_of, quoted};
use crate::config::document::{Entry, Node, Place, Table, Text, Value};
use crate::config::endpoint::{self, DOT_PORT};
use crate::config::error::{Fault, Faults};
use crate::config::settings::{Host, MAX_MEMBERS};
use crate::config::{presets, values};
use std::net::{IpAddr, SocketAddr};

/// The port that stubby listens on unless told otherwise.
const LISTEN_PORT: u16 = 53;

/// Octets that queries are padded to here (RFC 8467 §4.1).
const PADDING: u64 = 128;

/// Keys that are never carried over, and why.
const LEFT: &[(&str, &str)] = &[
    ("idle_timeout", "connections stay open for as long as each server lets them, which is learnt"),
    ("tls_connection_retries", "a server is down after 3 failures in a row, and probed until it is back"),
    ("tls_backoff_time", "a server that is down is probed, at least every 20 s, until it is back"),
    ("tls_cipher_list", "the ciphers are the TLS library's, which has no weak ones"),
    ("tls_ciphersuites", "the ciphers are the TLS library's, which has no weak ones"),
    ("tls_curves_list", "the key exchanges are the TLS library's"),
    ("tls_max_version", "TLS 1.3 is spoken with every server that speaks it"),
    ("dnssec", NO_DNSSEC),
    ("dnssec_return_status", NO_DNSSEC),
    ("dnssec_return_only_secure", NO_DNSSEC),
    ("dnssec_return_validation_chain", NO_DNSSEC),
    ("dnssec_trust_anchors", NO_DNSSEC),
    ("trust_anchors_backoff_time", NO_DNSSEC),
    ("trust_anchors_url", NO_DNSSEC),
    ("appdata_dir", "no trust anchors are kept; what outlives a restart is in state_dir"),
];

/// Why nothing about DNSSEC is carried over.
const NO_DNSSEC: &str = "veildns does not validate by itself: ask servers that do, as most of the presets do";

/// Reads the whole configuration.
pub(super) fn convert(root: &Table, text: &Text, draft: &mut Draft, faults: &mut Faults) {
    let mut conversion = Conversion { text, draft, faults };
    if !root.contains_key("listen_addresses") {
        conversion.draft.listen = vec!["127.0.0.1:53".to_owned(), "[::1]:53".to_owned()];
    }
    // What stubby does when the key is not there.
    conversion.draft.strategy = Some("failover");
    for (key, entry) in root {
        if let Err(fault) = conversion.key(key, entry) {
            conversion.faults.push(fault.of_key(key));
        }
    }
    if !root.contains_key("upstream_recursive_servers") {
        let fault = Fault::without_place("upstream_recursive_servers is not there").with_label(
            "without it stubby asks the servers of the network, unencrypted, which veildns never does",
        );
        faults.push(fault);
    }
}

/// A conversion under way.
struct Conversion<'a> {
    /// What is read.
    text: &'a Text,
    /// What comes of it.
    draft: &'a mut Draft,
    /// What is wrong with it.
    faults: &'a mut Faults,
}

impl Conversion<'_> {
    /// Reads one key at the top.
    fn key(&mut self, key: &str, entry: &Entry) -> Result<(), Fault> {
        let node = &entry.node;
        match key {
            "listen_addresses" => self.listen(node),
            "upstream_recursive_servers" => self.servers(entry),
            "round_robin_upstreams" => {
                self.draft.strategy = Some(if number(node)? == 0 { "failover" } else { "round-robin" });
                Ok(())
            }
            "dns_transport_list" => self.transports(node),
            "timeout" => self.timeout(entry),
            "limit_outstanding_queries" => self.outstanding(entry),
            "tls_query_padding_blocksize" => self.padding(entry),
            "edns_client_subnet_private" => {
                if number(node)? != 0 {
                    self.draft.keys.push(("privacy", "client_subnet", quoted("opt-out")));
                }
                Ok(())
            }
            "tls_min_version" => self.min_version(entry),
            "tls_ca_path" | "tls_ca_file" => self.roots(key, entry),
            "log_level" => self.log_level(entry),
            "resolution_type" | "tls_authentication" => self.promise(key, entry),
            _ => {
                let known = LEFT.iter().find(|(left, _)| *left == key);
                self.leave_out(key, entry, known.map_or("veildns has nothing like it", |(_, why)| *why));
                Ok(())
            }
        }
    }

    /// Notes a key that stays behind.
    fn leave_out(&mut self, key: &str, entry: &Entry, why: &str) {
        let line = line_of(self.text, entry.key.span.start);
        let what = entry.node.text().map_or_else(|_| key.to_owned(), |value| format!("{key}: {value}"));
        self.draft.leave_out(line, what, why);
    }

    /// Reads where it listens.
    fn listen(&mut self, node: &Node) -> Result<(), Fault> {
        for item in one_or_more(node) {
            let written = Written::parse(item)?;
            let address = SocketAddr::new(written.address, written.port.unwrap_or(LISTEN_PORT)).to_string();
            if !self.draft.listen.contains(&address) {
                self.draft.listen.push(address);
            }
        }
        Ok(())
    }

    /// Looks for transports that are not encrypted.
    fn transports(&mut self, node: &Node) -> Result<(), Fault> {
        let mut encrypted = false;
        for item in one_or_more(node) {
            let name = item.text()?;
            if name == "GETDNS_TRANSPORT_TLS" {
                encrypted = true;
                continue;
            }
            let line = line_of(self.text, item.place.span.start);
            self.draft.leave_out(line, name, "veildns never falls back to plain DNS");
        }
        if encrypted {
            return Ok(());
        }
        Err(node.fault("no server is asked by TLS", "expected GETDNS_TRANSPORT_TLS: veildns asks no other"))
    }

    /// Reads how long a query may take.
    fn timeout(&mut self, entry: &Entry) -> Result<(), Fault> {
        let wanted = number(&entry.node)?;
        let millis = wanted.clamp(50, 60_000);
        self.draft.keys.push(("timeouts", "query", format!("\"{millis}ms\"")));
        if millis != wanted {
            self.leave_out("timeout", entry, &format!("from 50 to 60000: {millis} stands for it"));
        }
        Ok(())
    }

    /// Reads how many queries may wait on one connection.
    fn outstanding(&mut self, entry: &Entry) -> Result<(), Fault> {
        let wanted = number(&entry.node)?;
        let most = wanted.clamp(1, 32_768);
        if wanted == 0 {
            self.leave_out("limit_outstanding_queries", entry, "there is always a bound: limits.dot_streams");
            return Ok(());
        }
        self.draft.keys.push(("limits", "dot_streams", most.to_string()));
        Ok(())
    }

    /// Reads whether queries are padded.
    fn padding(&mut self, entry: &Entry) -> Result<(), Fault> {
        match number(&entry.node)? {
            0 => self.draft.keys.push(("privacy", "padding", "false".to_owned())),
            // 1 is getdns's word for what is customary.
            1 | PADDING => {}
            _ => {
                let why =
                    format!("queries are padded to multiples of {PADDING} octets, as RFC 8467 recommends");
                self.leave_out("tls_query_padding_blocksize", entry, &why);
            }
        }
        Ok(())
    }

    /// Reads the oldest TLS.
    fn min_version(&mut self, entry: &Entry) -> Result<(), Fault> {
        match entry.node.text()? {
            "GETDNS_TLS1_3" => self.draft.keys.push(("tls", "min_version", quoted("1.3"))),
            "GETDNS_TLS1_2" => {}
            _ => self.leave_out("tls_min_version", entry, "nothing older than TLS 1.2 is spoken"),
        }
        Ok(())
    }

    /// Reads whom it trusts.
    fn roots(&mut self, key: &str, entry: &Entry) -> Result<(), Fault> {
        let path = entry.node.text()?;
        if path.starts_with("/etc/ssl/") || path.starts_with("/etc/pki/") {
            if !self.draft.keys.iter().any(|(section, name, _)| (*section, *name) == ("tls", "roots")) {
                self.draft.keys.push(("tls", "roots", quoted("system")));
            }
            return Ok(());
        }
        let why = "put the roots as *.pem into a directory, and its path into extra_ca_dir of [tls]";
        self.leave_out(key, entry, why);
        Ok(())
    }

    /// Reads how much is logged.
    fn log_level(&mut self, entry: &Entry) -> Result<(), Fault> {
        let name = entry.node.text()?;
        let level = match name.strip_prefix("GETDNS_LOG_").unwrap_or(name) {
            "EMERG" | "ALERT" | "CRIT" | "ERR" => "error",
            "WARNING" => "warn",
            "NOTICE" | "INFO" => "info",
            "DEBUG" => "debug",
            _ => {
                return Err(entry.node.fault(
                    format!("unknown level {name:?}"),
                    "expected one of GETDNS_LOG_ERR, _WARNING, _NOTICE, _INFO, _DEBUG",
                ));
            }
        };
        self.draft.keys.push(("log", "level", quoted(level)));
        Ok(())
    }

    /// Looks for what veildns does in one way only.
    fn promise(&mut self, key: &str, entry: &Entry) -> Result<(), Fault> {
        let (kept, why) = if key == "resolution_type" {
            ("GETDNS_RESOLUTION_STUB", "veildns asks resolvers; it is none itself")
        } else {
            ("GETDNS_AUTHENTICATION_REQUIRED", "a server has always to show its certificate")
        };
        if entry.node.text()? != kept {
            self.leave_out(key, entry, why);
        }
        Ok(())
    }

    /// Reads the servers, and puts addresses of one server together.
    fn servers(&mut self, entry: &Entry) -> Result<(), Fault> {
        for item in one_or_more(&entry.node) {
            if let Some(server) = self.faults.keep(upstream(item)) {
                self.server(item, server);
            }
        }
        if self.draft.upstreams.is_empty() && self.faults.is_empty() {
            let fault = Fault::at(&entry.key, "none of these servers can be asked by veildns")
                .with_label("expected at least one with a tls_auth_name")
                .with_help("a certificate is checked for that name; a pin comes besides, and is not enough");
            return Err(fault);
        }
        Ok(())
    }

    /// Takes one server, or says why not.
    fn server(&mut self, item: &Node, found: Upstream) {
        let line = line_of(self.text, item.place.span.start);
        let address = found.address;
        for (key, why) in found.left {
            self.draft.leave_out(line, format!("{address}, {key}"), why);
        }
        let Some(host) = found.name else {
            let preset = presets::at(address).map(|preset| format!("; \"{}\" has this address", preset.name));
            let why =
                "without a tls_auth_name its certificate cannot be checked, and a pin is no replacement";
            self.draft.leave_out(line, address.to_string(), why.to_owned() + &preset.unwrap_or_default());
            return;
        };
        let port = found.tls_port.unwrap_or(DOT_PORT);
        let url = if port == DOT_PORT { format!("tls://{host}") } else { format!("tls://{host}:{port}") };
        let same = |server: &&mut Server| server.url == url && server.pins == found.pins;
        if let Some(server) = self.draft.servers.iter_mut().find(same) {
            if !server.addresses.contains(&address) {
                server.addresses.push(address);
            }
            return;
        }
        if self.draft.servers.len() >= MAX_MEMBERS {
            let why = format!("a group has at most {MAX_MEMBERS} servers");
            self.draft.leave_out(line, address.to_string(), why);
            return;
        }
        let name = self.draft.free_name(&host);
        self.draft.ask(&name);
        self.draft.servers.push(Server { name, url, addresses: vec![address], pins: found.pins });
    }
}

/// One of the servers as stubby has it.
struct Upstream {
    /// Where it is.
    address: IpAddr,
    /// Where it answers TLS.
    tls_port: Option<u16>,
    /// Whose certificate is expected.
    name: Option<String>,
    /// Acceptable keys.
    pins: Vec<String>,
    /// What is not carried over, and why.
    left: Vec<(String, &'static str)>,
}

/// Reads one server: a table, or an address with all that may hang on it.
fn upstream(item: &Node) -> Result<Upstream, Fault> {
    let Value::Table(table) = &item.value else {
        let Written { address, tls_port, name, .. } = Written::parse(item)?;
        return Ok(Upstream { address, tls_port, name, pins: Vec::new(), left: Vec::new() });
    };
    let Some(entry) = table.get("address_data") else {
        return Err(item.fault("a server has no address_data", "expected address_data: and an address"));
    };
    let Written { address, tls_port, name, .. } = Written::parse(&entry.node)?;
    let mut found = Upstream { address, tls_port, name, pins: Vec::new(), left: Vec::new() };
    for (key, Entry { node, .. }) in table {
        match key.as_str() {
            "address_data" | "address_type" => {}
            "tls_port" => found.tls_port = Some(port(node)?),
            "tls_auth_name" => found.name = Some(host(node)?),
            "tls_pubkey_pinset" => {
                found.pins = one_or_more(node).iter().map(pin).collect::<Result<_, _>>()?;
            }
            "port" => found.left.push((key.clone(), "this port is one of plain DNS, which is never used")),
            _ => {
                let known = LEFT.iter().find(|(left, _)| left == key);
                let why = known.map_or("no key of a single server here", |(_, why)| *why);
                found.left.push((key.clone(), why));
            }
        }
    }
    Ok(found)
}

/// Reads a pin: a table of digest and value.
fn pin(node: &Node) -> Result<String, Fault> {
    let table = node.table().map_err(|fault| fault.with_label("expected digest: and value:"))?;
    if let Some(entry) = table.get("digest").filter(|entry| entry.node.text() != Ok("sha256")) {
        return Err(entry.node.fault("unknown digest", "expected sha256"));
    }
    let value = table.get("value").ok_or_else(|| node.fault("a pin has no value", "expected value:"))?;
    let pin = format!("sha256/{}", value.node.text()?.trim());
    let place = value.node.place.clone();
    values::pin(&Node { place, value: Value::Text(pin.clone()) })?;
    Ok(pin)
}

/// Reads a host name.
fn host(node: &Node) -> Result<String, Fault> {
    named(node.text()?, &node.place)
}

/// Reads the host name that stands in a part of a text.
fn named(text: &str, place: &Place) -> Result<String, Fault> {
    match endpoint::parse_host(text.trim()) {
        Ok(Host::Name(name)) => Ok(name),
        Ok(address @ Host::Address(_)) => Ok(address.to_string()),
        Err(error) => Err(Fault::at(place, error.to_string()).with_label("expected a host name")),
    }
}

/// Reads a port.
fn port(node: &Node) -> Result<u16, Fault> {
    let text = node.text()?;
    text.parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| node.fault(format!("{text:?} is no port"), "expected a number from 1 to 65535"))
}

/// Reads a whole number.
fn number(node: &Node) -> Result<u64, Fault> {
    let text = node.text()?;
    text.parse().map_err(|_| node.fault(format!("{text:?} is no number"), "expected a whole number"))
}

/// Returns the items of a list; a value alone is a list of one.
fn one_or_more(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(items) => items,
        Value::Text(_) | Value::Integer(_) | Value::Boolean(_) | Value::Table(_) | Value::Foreign(_) => {
            std::slice::from_ref(node)
        }
    }
}

/// An address as getdns writes it: `ADDRESS[@PORT][#TLS_PORT][~NAME]`, `1.2.3.4:PORT` or `[ADDRESS]:PORT`.
struct Written {
    /// The address itself.
    address: IpAddr,
    /// Behind `@` or `:`.
    port: Option<u16>,
    /// Behind `#`.
    tls_port: Option<u16>,
    /// Behind `~`.
    name: Option<String>,
}

impl Written {
    /// Reads one.
    fn parse(node: &Node) -> Result<Self, Fault> {
        let text = node.text()?;
        let wrong = |expected: &str| node.fault(format!("{text:?} is no address"), expected);
        let expected = "expected an address, and perhaps @ and a port: 127.0.0.1@8053";
        if text.contains(['%', '^']) {
            return Err(wrong("a zone (%) or a TSIG key (^) has no place here"));
        }
        let end = text.find(['@', '#', '~']).unwrap_or(text.len());
        let (place, mut rest) = text.split_at(end);
        let (address, mut port) = match place.parse::<IpAddr>() {
            Ok(address) => (address, None),
            Err(_) => {
                let bare = place.strip_prefix('[').and_then(|place| place.strip_suffix(']'));
                let bare = bare.and_then(|place| place.parse().ok()).map(|address| (address, None));
                let with_port = || place.parse::<SocketAddr>().ok().map(|at| (at.ip(), Some(at.port())));
                bare.or_else(with_port).ok_or_else(|| wrong(expected))?
            }
        };
        let (mut tls_port, mut name) = (None, None);
        while let Some(mark) = rest.chars().next() {
            let after = rest.get(1..).unwrap_or_default();
            let end = after.find(['@', '#', '~']).unwrap_or(after.len());
            let (part, next) = after.split_at(end);
            let number = || part.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong(expected));
            match mark {
                '@' => port = Some(number()?),
                '#' => tls_port = Some(number()?),
                _ => name = Some(named(part, &node.place)?),
            }
            rest = next;
        }
        Ok(Self { address, port, tls_port, name })
    }
}
