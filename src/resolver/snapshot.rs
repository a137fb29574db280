//! What a configuration means to the pipeline: built beside the one in force, swapped in with one store, never changed.

use super::route::RouteTable;
use crate::cache::key::PartitionId;
use crate::config::settings::{Limits, Settings};
use crate::policy::PolicySet;
use crate::policy::client_subnet::SubnetRule;
use crate::policy::name_set::NameMap;
use crate::upstream::Upstream;
use crate::upstream::group::Group;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// One configuration, as the pipeline sees it.
#[derive(Debug)]
pub struct Snapshot {
    /// The groups; index 0 is the default one.
    pub(super) groups: Box<[GroupEntry]>,
    /// Which group a question goes to.
    pub(super) routes: RouteTable,
    /// The rules before and after the network.
    pub(super) policy: PolicySet,
    /// What becomes of the client's network.
    pub(super) subnet: SubnetRule,
    /// One query, all attempts together.
    pub(super) query_timeout: Duration,
    /// How long a client waits before it gets a stale answer; None: stale answers are off.
    pub(super) stale_after: Option<Duration>,
    /// Names that are asked for even where certificates' dates do not fit the clock.
    pub(super) time_servers: NameMap<()>,
    /// Bounds.
    pub(super) limits: Limits,
    /// Another one is in force.
    superseded: AtomicBool,
}

/// A group, and the part of the cache its answers live in.
#[derive(Debug)]
pub(super) struct GroupEntry {
    /// The servers.
    pub(super) group: Arc<Group>,
    /// Answers of this group under these answer-side rules, for the operator's network if queries name one.
    pub(super) partition: PartitionId,
    /// Are queries padded? Not where one of the servers is plain: padding is for encryption only (RFC 7830 §6).
    pub(super) padding: bool,
    /// Some query failed while no server was up.
    failed_without_servers: AtomicBool,
}

impl GroupEntry {
    /// Notes that a query failed.
    pub(super) fn failed(&self) {
        if !self.group.any_up() {
            self.failed_without_servers.store(true, Ordering::Relaxed);
        }
    }

    /// True once after a time without servers, when there is one again.
    pub(super) fn has_recovered(&self) -> bool {
        self.failed_without_servers.load(Ordering::Relaxed)
            && self.group.any_up()
            && self.failed_without_servers.swap(false, Ordering::Relaxed)
    }
}

impl Snapshot {
    /// Builds the snapshot of `settings`; `groups` are built already, in the order of `settings.groups`.
    pub fn new(settings: &Settings, groups: Vec<Arc<Group>>) -> Self {
        let policy = PolicySet::build(settings);
        let subnet = SubnetRule::new(settings.privacy.client_subnet);
        let mut time_servers = NameMap::new();
        for name in &settings.time_servers {
            time_servers.insert(name.clone(), ());
        }
        let groups = groups
            .into_iter()
            .map(|group| {
                let partition = partition(&group, policy.answer_side_hash(), &subnet);
                let is_plain = group.upstreams.iter().any(|server| server.spec().endpoint.is_plaintext());
                let padding = settings.privacy.padding && !is_plain;
                GroupEntry { group, partition, padding, failed_without_servers: AtomicBool::new(false) }
            })
            .collect();
        Self {
            groups,
            routes: RouteTable::new(&settings.routes),
            policy,
            subnet,
            query_timeout: settings.timeouts.query,
            stale_after: (!settings.cache.max_stale.is_zero()).then_some(settings.cache.stale_after),
            time_servers,
            limits: settings.limits.clone(),
            superseded: AtomicBool::new(false),
        }
    }

    /// Notes that another one is in force.
    pub(super) fn supersede(&self) {
        self.superseded.store(true, Ordering::Relaxed);
    }

    /// True when another one is in force: what failed under this one says nothing about its servers.
    pub(super) fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Relaxed)
    }

    /// Returns the name of the group whose answers a part of the cache holds. None: answers made under rules that are no
    /// longer in force.
    pub fn group_of(&self, partition: PartitionId) -> Option<&str> {
        let entry = self.groups.iter().find(|entry| entry.partition == partition)?;
        Some(entry.group.name.as_str())
    }

    /// Returns a server of a group.
    pub(super) fn server(&self, group: usize, place: usize) -> Option<&Arc<Upstream>> {
        self.groups.get(group)?.group.upstreams.get(place)
    }

    /// Returns the bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the groups' servers.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.iter().map(|entry| &entry.group)
    }
}

/// Returns the part of the cache for a group: the same over a reload that leaves the answer-side rules and the operator's
/// network as they are, another one otherwise, so that answers made under other rules or for another network are not
/// found. Servers may come and go: the answers of one that is gone are forgotten (`Cache::forget_origins`).
fn partition(group: &Group, answer_side: u32, subnet: &SubnetRule) -> PartitionId {
    let network = match subnet {
        SubnetRule::Fixed(content) => Some(content),
        SubnetRule::Strip | SubnetRule::OptOut | SubnetRule::Forward => None,
    };
    let mut hasher = DefaultHasher::new();
    (&group.name, group.own, answer_side, network).hash(&mut hasher);
    PartitionId(u32::try_from(hasher.finish() >> 32).unwrap_or_default())
}
