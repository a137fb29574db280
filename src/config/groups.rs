//! Groups and routes: which servers answer which names, and the checks between them: a route's group exists, the
//! default group never sends plain DNS, a server known only by name can be looked up. What is *not* here: what a
//! server is (`servers`).

use super::document::{Node, Value};
use super::error::{Fault, Faults, nearest};
use super::section::Section;
use super::servers::Servers;
use super::settings::{GroupSpec, Listen, RouteSpec, StrategyKind};
use super::values;
use std::collections::HashSet;

/// What the default group is called, and what a route may call it.
const DEFAULT: &str = "default";

/// What the default group is made of when the operator says nothing.
const DEFAULT_UPSTREAMS: [&str; 2] = ["quad9", "cloudflare"];

/// A group while its members are checked: what the operator wrote beside what it means.
struct Draft<'a> {
    spec: GroupSpec,
    /// Of each member, where it was named; `None` for the built-in ones.
    named_at: Vec<Option<&'a Node>>,
}

/// Groups and routes that fit together.
pub(crate) struct Routing {
    pub(crate) groups: Vec<GroupSpec>,
    pub(crate) routes: Vec<RouteSpec>,
}

/// Reads the default group, [group.*] and [[route]], and checks them against each other.
pub(crate) fn read(
    root: &Section<'_>,
    servers: &mut Servers,
    listen: &[Listen],
    faults: &mut Faults,
) -> Routing {
    let mut drafts = vec![read_group(DEFAULT, root, servers, faults)];
    for (name, section, node) in root.child("group").children() {
        if name == DEFAULT {
            let fault = node.fault(
                "group.default: this name is taken",
                "the default group is the top-level upstreams and strategy",
            );
            faults.push(fault);
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
    let routes = read_routes(root, &drafts, faults);
    let routed: HashSet<usize> = routes.iter().map(|route| route.group).collect();
    for (index, draft) in drafts.iter_mut().enumerate() {
        let routed = index != 0 && routed.contains(&index);
        check_plaintext(draft, routed, servers, listen, faults);
        draft.spec.own = routed && all_own(&draft.spec, servers);
    }
    check_names(&drafts, servers, faults);
    Routing { groups: drafts.into_iter().map(|draft| draft.spec).collect(), routes }
}

/// Reads the keys `upstreams` and `strategy` of a group.
fn read_group<'a>(
    name: &str,
    section: &Section<'a>,
    servers: &mut Servers,
    faults: &mut Faults,
) -> Draft<'a> {
    let mut draft = Draft {
        spec: GroupSpec {
            name: name.to_owned(),
            members: Vec::new(),
            strategy: section
                .read("strategy", faults, |node| {
                    values::choice(
                        node,
                        &[
                            ("fastest", StrategyKind::Fastest),
                            ("failover", StrategyKind::Failover),
                            ("weighted", StrategyKind::Weighted),
                            ("round-robin", StrategyKind::RoundRobin),
                        ],
                    )
                })
                .unwrap_or(StrategyKind::Fastest),
            own: false,
        },
        named_at: Vec::new(),
    };
    let key = section.key_name("upstreams");
    let Some(node) = section.node("upstreams") else {
        if name == DEFAULT {
            draft.add_built_in(servers, faults);
        }
        return draft;
    };
    let Some(items) = faults.keep(node.list().map_err(|fault| fault.of_key(&key))) else { return draft };
    if items.is_empty() {
        faults.push(node.fault(format!("{key} is empty"), "expected at least one server"));
    }
    for item in items {
        match servers.resolve(item) {
            Ok(Some(index)) => draft.add(index, item, &key, faults),
            Ok(None) => {}
            Err(fault) => faults.push(fault.of_key(&key)),
        }
    }
    draft
}

impl<'a> Draft<'a> {
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
    fn add_built_in(&mut self, servers: &mut Servers, faults: &mut Faults) {
        for name in DEFAULT_UPSTREAMS {
            let node = Node {
                place: super::document::Place { text: usize::MAX, span: 0..0 },
                value: Value::Text(name.to_owned()),
            };
            if let Some(index) = faults.keep(servers.resolve(&node)).flatten() {
                self.spec.members.push(index);
                self.named_at.push(None);
            }
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

/// Reads [[route]].
fn read_routes(root: &Section<'_>, drafts: &[Draft<'_>], faults: &mut Faults) -> Vec<RouteSpec> {
    let Some(items) = root.node("route").and_then(|node| node.list().ok()) else { return Vec::new() };
    items.iter().filter_map(|item| read_route(item, drafts, faults)).collect()
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

/// Reports plain servers where they must not be, and those that are ourselves.
fn check_plaintext(
    draft: &Draft<'_>,
    routed: bool,
    servers: &Servers,
    listen: &[Listen],
    faults: &mut Faults,
) {
    let name = &draft.spec.name;
    for (at, index) in draft.spec.members.iter().enumerate() {
        let Some(server) = servers.get(*index).filter(|server| server.spec.endpoint.is_plaintext()) else {
            continue;
        };
        let server = &server.spec;
        if !routed {
            let fault = draft.fault(
                at,
                format!("{} is plain DNS, and no [[route]] names the group {name}", server.name),
                "unencrypted servers answer only names that a route gives them",
            );
            faults.push(fault.with_help(
                "put it in a [group.NAME] of its own, and add a [[route]] with its domains and that group",
            ));
        } else if listen.iter().any(|listen| server.endpoint.address() == Some(listen.address)) {
            let message = format!("{} is an address that we listen on ourselves", server.name);
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
    let has_place = |index: usize| {
        let server = servers.get(index);
        server.is_some_and(|server| !server.spec.addresses.is_empty() || server.spec.endpoint.is_plaintext())
    };
    let default_group = drafts.first().map(|draft| draft.spec.members.as_slice()).unwrap_or_default();
    if default_group.iter().any(|index| has_place(*index)) {
        return;
    }
    let mut reported = HashSet::new();
    for draft in drafts {
        for (at, index) in draft.spec.members.iter().enumerate() {
            if has_place(*index) || !reported.insert(*index) {
                continue;
            }
            let name = servers.get(*index).map_or("", |server| server.spec.name.as_str());
            let fault = draft.fault(
                at,
                format!("the address of {name} cannot be learnt"),
                "no server of the default group has an address, so nobody can look this name up, encrypted",
            );
            faults.push(fault.with_help(
                "give it addresses = [...] in a [server.NAME], or add a preset to the top-level upstreams",
            ));
        }
    }
}
