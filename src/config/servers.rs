//! Servers: presets, tables `[server.NAME]` and URLs, turned into what transports connect to. What is *not* here: which
//! group has which server (`groups`).

use super::document::{Node, Text};
use super::endpoint::{self, UrlError};
use super::error::{Fault, Faults, nearest};
use super::presets::{self, Chosen};
use super::section::Section;
use super::settings::{Endpoint, Host, ServerSpec};
use super::values;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Every server that a group has named so far, and the tables that more can be made from.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    /// `[server.*]` by name; `None`: wrong, and reported where it stands.
    defined: BTreeMap<String, Option<Server>>,
    /// In the order in which groups named them.
    used: Vec<Server>,
}

/// A server and what only the checks here need to know.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// What transports get.
    pub(crate) spec: Arc<ServerSpec>,
    /// The operator wrote its URL: it is no preset.
    pub(crate) own: bool,
    /// What to tell the operator when it is used.
    notice: Option<String>,
}

impl Servers {
    /// Reads `[server.*]`.
    pub(crate) fn read(section: &Section<'_>, texts: &[Text], faults: &mut Faults) -> Self {
        let defined = section
            .children()
            .map(|(name, server, node)| {
                let definition = Definition { name, section: server, node, texts };
                // What is no table has been reported with the keys.
                let server = node.table().ok().and_then(|_| definition.read(faults));
                (name.to_owned(), server)
            })
            .collect();
        Self { defined, used: Vec::new() }
    }

    /// Finds the server that an item of `upstreams` means. `Ok(None)`: its table is wrong, which has been reported.
    pub(crate) fn resolve(&mut self, reference: &Node) -> Result<Option<usize>, Fault> {
        let text = reference.text()?;
        let server = match self.defined.get(text) {
            Some(None) => return Ok(None),
            Some(Some(server)) => server.clone(),
            None => self.of_reference(text, reference)?,
        };
        Ok(Some(self.enlist(server)))
    }

    /// Finds a server of the built-in default, as the operator may have changed it.
    pub(crate) fn built_in(&mut self, name: &str) -> Option<usize> {
        let server = match self.defined.get(name) {
            Some(defined) => defined.clone()?,
            None => from_preset(name, &presets::find(name)?),
        };
        Some(self.enlist(server))
    }

    /// Returns the index of a server, which is new or has been named before.
    fn enlist(&mut self, server: Server) -> usize {
        if let Some(at) = self.used.iter().position(|used| used.spec == server.spec) {
            return at;
        }
        self.used.push(server);
        self.used.len() - 1
    }

    /// Returns a server by its index.
    pub(crate) fn get(&self, index: usize) -> Option<&Server> {
        self.used.get(index)
    }

    /// True for a server that can be reached without looking its name up.
    pub(crate) fn has_place(&self, index: usize) -> bool {
        self.get(index)
            .is_some_and(|server| !server.spec.addresses.is_empty() || server.spec.endpoint.is_plaintext())
    }

    /// Ends with the servers in use and what the operator should know about them.
    pub(crate) fn finish(self) -> (Vec<Arc<ServerSpec>>, Vec<String>) {
        let notices = self.used.iter().filter_map(|server| server.notice.clone()).collect();
        (self.used.into_iter().map(|server| server.spec).collect(), notices)
    }

    /// Makes a server of a preset's name or a URL.
    fn of_reference(&self, text: &str, node: &Node) -> Result<Server, Fault> {
        if let Some(chosen) = presets::find(text) {
            if chosen.preset.needs_account() {
                return Err(no_account(text, node));
            }
            return Ok(from_preset(text, &chosen));
        }
        let place = endpoint::parse(text).map_err(|error| self.explain(text, node, &error))?;
        Ok(Server { notice: ended_notice(&place), spec: Arc::new(bare_spec(text, place)), own: true })
    }

    /// Says why a reference is neither a known name nor a URL.
    fn explain(&self, text: &str, node: &Node, error: &UrlError) -> Fault {
        if *error != UrlError::NoScheme {
            return node.fault(format!("{text:?}: {error}"), error.help());
        }
        if let Some(ended) = presets::ended(text) {
            return node
                .fault(format!("{text:?} has ended"), "this resolver no longer answers")
                .with_help(ended.message);
        }
        if let Some((host, port)) = bare_host(text) {
            let fault =
                node.fault(format!("{text:?} does not say by which protocol"), "expected one in front");
            return fault.with_help(suggest_url(text, &host, port));
        }
        let known = self.defined.keys().map(String::as_str);
        let fault =
            node.fault(format!("unknown server {text:?}"), "expected a preset, a [server.NAME] or a URL");
        match nearest(text, known).or_else(|| presets::nearest(text)) {
            Some(near) => fault.with_help(format!("did you mean \"{near}\"?")),
            None => fault.with_help(error.help()),
        }
    }
}

/// One table `[server.NAME]` while it is read.
struct Definition<'a> {
    /// The table's own name.
    name: &'a str,
    /// The table's keys.
    section: Section<'a>,
    /// The table as a whole, to point at.
    node: &'a Node,
    /// What relative paths are relative to.
    texts: &'a [Text],
}

impl Definition<'_> {
    /// Reads the table; a wrong one is reported and gives `None`.
    fn read(&self, faults: &mut Faults) -> Option<Server> {
        let before = faults.count();
        let base = self.base(faults);
        let (section, texts) = (&self.section, self.texts);
        let addresses = section.read_list("addresses", faults, values::address);
        let ca_file = section.read("ca_file", faults, |node| values::existing_path(node, texts));
        let pins = section.read_list("pins", faults, values::pin);
        let weight = section.read("weight", faults, |node| values::count(node, 1..=1000));
        let trust_ad = section.read("trust_ad", faults, Node::boolean);
        let mut server = base?;
        let spec = Arc::make_mut(&mut server.spec);
        if spec.endpoint.is_plaintext() {
            for key in ["addresses", "ca_file", "pins"] {
                self.refuse(key, "has no meaning for plain DNS", faults);
            }
        }
        if let Some(addresses) = addresses {
            spec.addresses = addresses;
        }
        spec.ca_file = ca_file;
        spec.pins = pins.unwrap_or_default();
        spec.weight = weight.unwrap_or(spec.weight);
        spec.trust_ad = trust_ad.unwrap_or(spec.trust_ad);
        // With a part missing it would be wrong in further ways, of which the operator is not guilty.
        (faults.count() == before).then_some(server)
    }

    /// Makes the server of `url`, or else of the preset with this name.
    fn base(&self, faults: &mut Faults) -> Option<Server> {
        let preset = presets::find(self.name);
        if self.section.node("url").is_some() {
            self.refuse("account", "has no meaning beside a url", faults);
            let place = self.section.read("url", faults, |node| {
                let text = node.text()?;
                endpoint::parse(text).map_err(|error| node.fault(format!("{text:?}: {error}"), error.help()))
            });
            return Some(self.with_url(place?, preset.as_ref()));
        }
        let Some(chosen) = preset else {
            faults.push(self.no_url());
            return None;
        };
        if !chosen.preset.needs_account() {
            self.refuse("account", "has no meaning for this preset", faults);
            return Some(from_preset(self.name, &chosen));
        }
        if self.section.node("account").is_none() {
            faults.push(no_account(self.name, self.node));
        }
        let account = self.section.read("account", faults, account)?;
        let mut server = from_preset(self.name, &chosen);
        Arc::make_mut(&mut server.spec).endpoint = chosen.endpoint(&account);
        Some(server)
    }

    /// Makes a server of a written URL. A preset's addresses stay only for the preset's own host: another's
    /// certificate would not fit.
    fn with_url(&self, place: Endpoint, preset: Option<&Chosen>) -> Server {
        let same_host = |chosen: &&Chosen| endpoint::host(&chosen.endpoint("")) == endpoint::host(&place);
        let preset = preset.filter(same_host).map(Chosen::addresses);
        let notice = ended_notice(&place);
        let mut spec = bare_spec(self.name, place);
        if let Some(addresses) = preset {
            spec.addresses = addresses;
        }
        Server { spec: Arc::new(spec), own: true, notice }
    }

    /// Reports a key that is written where it does nothing: an ignored key would be a false hope.
    fn refuse(&self, key: &str, why: &str, faults: &mut Faults) {
        if let Some(node) = self.section.node(key) {
            faults.push(node.fault(format!("{} {why}", self.section.key_name(key)), "leave it out"));
        }
    }

    /// Makes the error for a table that says nowhere where its server is.
    fn no_url(&self) -> Fault {
        let title = format!("server.{} has no url", self.name);
        if let Some(ended) = presets::ended(self.name) {
            return self.node.fault(title, "this resolver no longer answers").with_help(ended.message);
        }
        let fault = self.node.fault(title, "expected url = \"tls://...\" or \"https://...\" in this table");
        match presets::nearest(self.name) {
            Some(near) => fault.with_help(format!("did you mean the preset \"{near}\"?")),
            None => fault,
        }
    }
}

/// Reads an account id: it becomes a label of a host name or a part of a path.
fn account(node: &Node) -> Result<String, Fault> {
    let text = node.text()?;
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if text.is_empty() || text.len() > 63 || !text.chars().all(good) {
        return Err(node.fault(
            format!("{text:?} is not an account id"),
            "expected 1 to 63 letters, digits and hyphens",
        ));
    }
    Ok(text.to_owned())
}

/// Makes the error for a preset that has one address for each customer.
fn no_account(name: &str, node: &Node) -> Fault {
    node.fault(format!("{name} needs your account id"), "no account is set")
        .with_help(format!("add a table [server.{name}] with account = \"...\""))
}

/// Makes a server of a preset.
fn from_preset(name: &str, chosen: &Chosen) -> Server {
    let mut spec = bare_spec(name, chosen.endpoint(""));
    spec.addresses = chosen.addresses();
    Server { spec: Arc::new(spec), own: false, notice: chosen.preset.notice.map(str::to_owned) }
}

/// Makes a server with every default; one given by its address is reached there.
fn bare_spec(name: &str, place: Endpoint) -> ServerSpec {
    let addresses = match endpoint::host(&place) {
        Some(Host::Address(address)) => vec![*address],
        Some(Host::Name(_)) | None => Vec::new(),
    };
    ServerSpec {
        name: name.to_owned(),
        endpoint: place,
        addresses,
        ca_file: None,
        pins: Vec::new(),
        weight: 1,
        trust_ad: false,
    }
}

/// Says that a URL leads to a resolver that has ended. Not an error: the name may come back to life.
fn ended_notice(place: &Endpoint) -> Option<String> {
    match endpoint::host(place) {
        Some(Host::Name(name)) => presets::ended_host(name).map(|ended| ended.message.to_owned()),
        Some(Host::Address(_)) | None => None,
    }
}

/// Says what a bare host or address was probably meant to be: a preset's address is that preset.
fn suggest_url(text: &str, host: &Host, port: Option<u16>) -> String {
    let preset = match host {
        Host::Address(address) => presets::at(*address),
        Host::Name(_) => None,
    };
    if let Some(preset) = preset {
        return format!("write \"{}\": this is its address", preset.name);
    }
    let url = match port {
        Some(port) if port != 53 => format!("tls://{host}:{port}"),
        Some(_) | None => format!("tls://{host}"),
    };
    match host {
        Host::Address(_) => format!(
            "write \"{url}\" for DNS over TLS; plain DNS is \"udp://{text}\", in a group that a [[route]] names"
        ),
        Host::Name(_) => format!("write \"{url}\" for DNS over TLS, or \"https://{host}/dns-query\""),
    }
}

/// Recognises an address or host name without a protocol, with or without port.
fn bare_host(text: &str) -> Option<(Host, Option<u16>)> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((Host::Address(address), None));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((Host::Address(address.ip()), Some(address.port())));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (text, None),
    };
    let host = endpoint::parse_host(host).ok().filter(|_| host.contains('.'))?;
    Some((host, port))
}
