//! Which group answers for a name and type: the longest matching suffix wins, among equals the first in the file.

use crate::config::settings::RouteSpec;
use crate::policy::name_set::NameMap;
use crate::wire::name::NameRef;
use crate::wire::question::RecordType;

/// The default group's place in the list of groups.
pub const DEFAULT_GROUP: usize = 0;

/// The routes in force.
#[derive(Debug)]
pub struct RouteTable {
    /// Suffix to the routes that name it, in the file's order.
    suffixes: NameMap<Vec<Target>>,
    /// True when there is no route: the look-up is then skipped.
    is_empty: bool,
}

/// Where a suffix leads.
#[derive(Clone, Debug)]
struct Target {
    /// Types it holds for; empty: every type.
    types: Box<[RecordType]>,
    /// Place in the list of groups.
    group: usize,
}

impl RouteTable {
    /// Builds the table from routes in the operator's order.
    pub fn new(routes: &[RouteSpec]) -> Self {
        let mut suffixes: NameMap<Vec<Target>> = NameMap::new();
        for route in routes {
            for domain in &route.domains {
                let target = Target { types: route.types.clone().into(), group: route.group };
                let mut targets = suffixes.insert(domain.clone(), Vec::new()).unwrap_or_default();
                targets.push(target);
                suffixes.insert(domain.clone(), targets);
            }
        }
        Self { suffixes, is_empty: routes.is_empty() }
    }

    /// Returns the group for a question. A suffix whose routes do not name the type leaves it to shorter suffixes.
    pub fn group_for(&self, name: NameRef<'_>, rtype: RecordType) -> usize {
        if self.is_empty {
            return DEFAULT_GROUP;
        }
        self.suffixes
            .matches_all(name)
            .flatten()
            .find(|target| target.types.is_empty() || target.types.contains(&rtype))
            .map_or(DEFAULT_GROUP, |target| target.group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::name::Name;

    fn route(domains: &[&str], types: &[RecordType], group: usize) -> RouteSpec {
        RouteSpec {
            domains: domains.iter().map(|d| d.parse().unwrap()).collect(),
            types: types.to_vec(),
            group,
        }
    }

    fn group(table: &RouteTable, name: &str, rtype: RecordType) -> usize {
        let name: Name = name.parse().unwrap();
        table.group_for(name.view(), rtype)
    }

    #[test]
    fn the_longest_suffix_wins_whatever_the_order() {
        let table = RouteTable::new(&[route(&["example"], &[], 1), route(&["corp.example"], &[], 2)]);
        assert_eq!(group(&table, "www.corp.example", RecordType::A), 2);
        assert_eq!(group(&table, "CORP.Example", RecordType::A), 2);
        assert_eq!(group(&table, "other.example", RecordType::A), 1);
        assert_eq!(group(&table, "xcorp.example", RecordType::A), 1);
        assert_eq!(group(&table, "example.org", RecordType::A), DEFAULT_GROUP);
    }

    #[test]
    fn among_equal_suffixes_the_first_in_the_file_that_takes_the_type_wins() {
        let table = RouteTable::new(&[
            route(&["corp.example"], &[RecordType::A], 1),
            route(&["corp.example"], &[], 2),
            route(&["corp.example"], &[], 3),
        ]);
        assert_eq!(group(&table, "corp.example", RecordType::A), 1);
        assert_eq!(group(&table, "corp.example", RecordType::MX), 2);
    }

    #[test]
    fn a_type_that_a_long_suffix_does_not_take_goes_to_a_shorter_one() {
        let table =
            RouteTable::new(&[route(&["a.example"], &[RecordType::A], 1), route(&["example"], &[], 2)]);
        assert_eq!(group(&table, "a.example", RecordType::MX), 2);
    }

    #[test]
    fn a_route_for_the_root_takes_everything() {
        let table = RouteTable::new(&[route(&["."], &[RecordType::PTR], 4)]);
        assert_eq!(group(&table, "1.2.0.192.in-addr.arpa", RecordType::PTR), 4);
        assert_eq!(group(&table, "example.org", RecordType::A), DEFAULT_GROUP);
    }
}
