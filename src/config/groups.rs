//! Groups and routes: which servers answer which names, and the checks between them: a route's group exists, the
//! default group never sends plain DNS, a server known only by name can be looked up. What is *not* here: what a
//! server is (`servers`).

use super::document::{Node, Value};
use super::error::{Fault, Faults, nearest};
use super::section::Section;
use super::servers::Servers;
use super::settings::{GroupSpec, Listen, MAX_MEMBERS, RouteSpec, StrategyKind};
use super::values;
use std::collections::HashSet;

/// What the default group is called, and what a route may call it.
const DEFAULT: &str = "default";

/// What the group is called that looks up names of servers.
const BOOTSTRAP: &str = "bootstrap";

/// What the default group is made of when the operator says nothing.
const DEFAULT_UPSTREAMS: [&str; 2] = ["quad9", "cloudflare"];

/// A group while its members are checked: what the operator wrote beside what it means.
struct Draft<'a> {
    /// What the group will be.
    spec: GroupSpec,
    /// Of each member, where it was named; `None` for the built-in ones.
    named_at: Vec<Option<&'a Node>>,
    /// Something about its members was wrong and has been reported: what is missing now proves nothing.
    broken: bool,
}

/// Groups and routes that fit together.
pub(crate) struct Routing {
    /// The default group first.
    pub(crate) groups: Vec<GroupSpec>,
    /// In the order of the file.
    pub(crate) routes: Vec<RouteSpec>,
    /// The group for names of servers, if there is one: the last.
    pub(crate) bootstrap: Option<usize>,
}

/// Reads the default group, `[group.*]` and `[[route]]`, and checks them against each other.
pub(crate) fn read(
    root: &Section<'_>,
    servers: &mut Servers,
    listen: &[Listen],
    faults: &mut Faults,
) -> Routing {
    let mut drafts = vec![read_group(DEFAULT, root, servers, faults)];
    for (name, section, node) in root.child("group").children() {
        let taken = match name {
            DEFAULT => Some("the default group is the top-level upstreams and strategy"),
            BOOTSTRAP => Some("this group is the top-level bootstrap"),
            _ => None,
        };
        if let Some(by) = taken {
            faults.push(node.fault(format!("group.{name}: this name is taken"), by));
            continue;
        }
        if matches!(node.value, Value::Table(_)) && section.node("upstreams").is_none() {
            faults.push(
                node.fault(
                    format!("group.{name} has no upstreams"),
                    "expected upstreams = [...] in this table",
                ),
            );
        }
        drafts.push(read_group(name, &section, servers, faults));
    }
    let (routes, complete) = read_routes(root, &drafts, faults);
    let routed: HashSet<usize> = routes.iter().map(|route| route.group).collect();
    for (index, draft) in drafts.iter_mut().enumerate() {
        let routed = index != 0 && routed.contains(&index);
        // A route that could not be read may be the one that names this group.
        if routed || index == 0 || complete {
            check_plaintext(draft, routed, servers, faults);
        }
        check_loops(draft, servers, listen, faults);
        draft.spec.own = routed && all_own(&draft.spec, servers);
    }
    let bootstrap = read_bootstrap(root, &drafts, servers, faults);
    if bootstrap.is_none() && drafts.first().is_some_and(|draft| !draft.broken) {
        check_names(&drafts, servers, faults);
    }
    drafts.extend(bootstrap);
    let groups: Vec<GroupSpec> = drafts.into_iter().map(|draft| draft.spec).collect();
    let bootstrap = groups.iter().position(|group| group.name == BOOTSTRAP);
    Routing { groups, routes, bootstrap }
}

/// Reads `bootstrap`. None: it is not written, or every server can be reached without it.
fn read_bootstrap<'a>(
    root: &Section<'a>,
    drafts: &[Draft<'_>],
    servers: &mut Servers,
    faults: &mut Faults,
) -> Option<Draft<'a>> {
    let node = root.node("bootstrap")?;
    let mut draft = Draft::new(BOOTSTRAP, StrategyKind::Failover);
    // Servers that nobody is going to need are not to be among those in use.
    let mut with_them = servers.clone();
    draft.read_members(node, "bootstrap", &mut with_them, faults);
    for (at, index) in draft.spec.members.iter().enumerate() {
        let Some(server) = with_them.get(*index) else { continue };
        let name = &server.spec.name;
        if server.spec.endpoint.is_plaintext() {
            let message = format!("bootstrap: {name} is plain DNS");
            faults.push(draft.fault(at, message, "names of servers are looked up encrypted or not at all"));
        } else if server.spec.addresses.is_empty() {
            let message = format!("bootstrap: {name} has no address of its own");
            let fault = draft.fault(at, message, "nobody could look this name up");
            faults.push(fault.with_help(
                "write its address, as in https://192.0.2.1/dns-query, or addresses = [...] in a [server.NAME]",
            ));
        }
    }
    let mut members = drafts.iter().flat_map(|draft| &draft.spec.members);
    let needed = members.any(|index| !servers.has_place(*index));
    if needed {
        *servers = with_them;
    }
    needed.then_some(draft)
}

/// Reads the keys `upstreams` and `strategy` of a group.
fn read_group<'a>(
    name: &str,
    section: &Section<'a>,
    servers: &mut Servers,
    faults: &mut Faults,
) -> Draft<'a> {
    let words = [
        ("fastest", StrategyKind::Fastest),
        ("failover", StrategyKind::Failover),
        ("weighted", StrategyKind::Weighted),
        ("round-robin", StrategyKind::RoundRobin),
    ];
    let strategy = section.read("strategy", faults, |node| values::choice(node, &words));
    let mut draft = Draft::new(name, strategy.unwrap_or(StrategyKind::Fastest));
    match section.node("upstreams") {
        Some(node) => draft.read_members(node, &section.key_name("upstreams"), servers, faults),
        None if name == DEFAULT => draft.add_built_in(servers),
        None => {}
    }
    draft
}

impl<'a> Draft<'a> {
    /// Makes one without members.
    fn new(name: &str, strategy: StrategyKind) -> Self {
        let spec = GroupSpec { name: name.to_owned(), members: Vec::new(), strategy, own: false };
        Self { spec, named_at: Vec::new(), broken: false }
    }

    /// Reads the list of members.
    fn read_members(&mut self, node: &'a Node, key: &str, servers: &mut Servers, faults: &mut Faults) {
        let items = faults.keep(node.list().map_err(|fault| fault.of_key(key))).unwrap_or_else(|| {
            self.broken = true;
            &[]
        });
        if items.is_empty() && !self.broken {
            faults.push(node.fault(format!("{key} is empty"), "expected at least one server"));
        }
        if let Some(first_too_many) = items.get(MAX_MEMBERS) {
            let message = format!("{key}: a group has at most {MAX_MEMBERS} servers");
            faults.push(first_too_many.fault(message, "from here on they would never be asked"));
        }
        for item in items {
            match faults.keep(servers.resolve(item).map_err(|fault| fault.of_key(key))).flatten() {
                Some(index) => self.add(index, item, key, faults),
                None => self.broken = true,
            }
        }
    }

    /// Adds a member; the same one twice is an error.
    fn add(&mut self, index: usize, item: &'a Node, key: &str, faults: &mut Faults) {
        if self.spec.members.contains(&index) {
            faults.push(item.fault(format!("{key}: this server is listed twice"), "leave one out"));
            return;
        }
        self.spec.members.push(index);
        self.named_at.push(Some(item));
    }

    /// Adds the servers that a configuration without `upstreams` uses.
    fn add_built_in(&mut self, servers: &mut Servers) {
        for index in DEFAULT_UPSTREAMS.iter().filter_map(|name| servers.built_in(name)) {
            self.spec.members.push(index);
            self.named_at.push(None);
        }
    }

    /// Makes an error about a member.
    fn fault(&self, at: usize, message: String, label: &str) -> Fault {
        match self.named_at.get(at).copied().flatten() {
            Some(node) => node.fault(message, label),
            None => Fault::without_place(message).with_label(label),
        }
    }
}

/// Reads `[[route]]`; also tells whether every one could be read.
fn read_routes(root: &Section<'_>, drafts: &[Draft<'_>], faults: &mut Faults) -> (Vec<RouteSpec>, bool) {
    let items = root.node("route").and_then(|node| node.list().ok()).unwrap_or_default();
    let routes: Vec<RouteSpec> = items.iter().filter_map(|item| read_route(item, drafts, faults)).collect();
    let complete = routes.len() == items.len();
    (routes, complete)
}

/// Reads one route; what is missing or wrong is reported.
fn read_route(item: &Node, drafts: &[Draft<'_>], faults: &mut Faults) -> Option<RouteSpec> {
    let section = Section::named("route", item.table().ok()?);
    for key in ["domains", "group"] {
        if section.node(key).is_none() {
            faults.push(
                item.fault(format!("a route has no {key}"), format!("expected {key} = ... below this line")),
            );
        }
    }
    let domains = section.read_list("domains", faults, values::suffix);
    if let (Some(node), Some([])) =
        (section.node("domains"), section.node("domains").and_then(|n| n.list().ok()))
    {
        faults
            .push(node.fault("route.domains is empty", "expected at least one name; \".\" means every name"));
    }
    let types = section.read_list("types", faults, values::record_type);
    let group = section.read("group", faults, |node| {
        let text = node.text()?;
        let known = || drafts.iter().map(|draft| draft.spec.name.as_str());
        if let Some(index) = known().position(|name| name == text) {
            return Ok(index);
        }
        let fault = node.fault(format!("there is no group {text:?}"), "expected the NAME of a [group.NAME]");
        Err(match nearest(text, known()) {
            Some(near) => fault.with_help(format!("did you mean \"{near}\"?")),
            None => fault,
        })
    });
    Some(RouteSpec { domains: domains?, types: types.unwrap_or_default(), group: group? })
}

/// Reports plain servers where no route asks for them.
fn check_plaintext(draft: &Draft<'_>, routed: bool, servers: &Servers, faults: &mut Faults) {
    if routed {
        return;
    }
    let group = &draft.spec.name;
    for (at, index) in draft.spec.members.iter().enumerate() {
        let Some(server) = servers.get(*index).filter(|server| server.spec.endpoint.is_plaintext()) else {
            continue;
        };
        let server = &server.spec.name;
        let message = if group == DEFAULT {
            format!("upstreams: {server} is plain DNS, which the default group never sends")
        } else {
            format!("{server} is plain DNS, and no [[route]] names the group {group}")
        };
        let fault = draft.fault(at, message, "unencrypted servers answer only names that a route gives them");
        faults.push(fault.with_help(
            "put it in a [group.NAME] of its own, and add a [[route]] with its domains and that group",
        ));
    }
}

/// Reports plain servers that are ourselves: a query would never get out.
fn check_loops(draft: &Draft<'_>, servers: &Servers, listen: &[Listen], faults: &mut Faults) {
    for (at, index) in draft.spec.members.iter().enumerate() {
        let address = servers.get(*index).and_then(|server| server.spec.endpoint.address());
        if let Some(address) = address.filter(|address| listen.iter().any(|ours| ours.address == *address)) {
            let message = format!("{address} is an address that we listen on ourselves");
            faults.push(draft.fault(at, message, "queries would go round in circles"));
        }
    }
}

/// Returns true when the operator wrote every member's URL: then the group's names are the operator's as well.
fn all_own(group: &GroupSpec, servers: &Servers) -> bool {
    group.members.iter().all(|index| servers.get(*index).is_some_and(|server| server.own))
}

/// Reports servers known only by name when no other server of the default group could look the name up.
fn check_names(drafts: &[Draft<'_>], servers: &Servers, faults: &mut Faults) {
    let default_group = drafts.first().map(|draft| draft.spec.members.as_slice()).unwrap_or_default();
    if default_group.iter().any(|index| servers.has_place(*index)) {
        return;
    }
    let mut reported = HashSet::new();
    for draft in drafts {
        for (at, index) in draft.spec.members.iter().enumerate() {
            if servers.has_place(*index) || !reported.insert(*index) {
                continue;
            }
            let name = servers.get(*index).map_or("", |server| server.spec.name.as_str());
            let fault = draft.fault(
                at,
                format!("the address of {name} cannot be learnt"),
                "no server of the default group has an address, so nobody can look this name up, encrypted",
            );
            faults.push(fault.with_help(
                "give it addresses = [...] in a [server.NAME], or write whom to ask: bootstrap = [\"quad9\"]",
            ));
        }
    }
}
