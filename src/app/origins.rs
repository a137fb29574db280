//! Numbers for servers, by which the cache tells whose answer is whose. Over a reload a server keeps its number for as long as its
//! answers are worth the same, so that only the answers of those that are gone are forgotten. Forgetting is the cache's.

use crate::cache::key::Origin;
use crate::config::settings::{Endpoint, ServerSpec};
use std::collections::HashMap;
use std::sync::Arc;

/// What an answer depends on: who gives it, and whether its AD bit is believed. Not how he is reached.
type Source = (Endpoint, bool);

/// The numbers of the servers of one configuration.
#[derive(Debug, Default)]
pub(super) struct Origins {
    /// Those in use.
    numbers: HashMap<Source, Origin>,
    /// The one given out last: a number rests for as long as it can before it stands for another server.
    last: u8,
}

impl Origins {
    /// Numbers the servers of the configuration that follows this one. When there are no more numbers the others share 0.
    pub(super) fn renumber(&self, servers: &[Arc<ServerSpec>]) -> Self {
        let mut next = Self { numbers: HashMap::new(), last: self.last };
        for spec in servers {
            let source = source(spec);
            let known = self.numbers.get(&source).or_else(|| next.numbers.get(&source)).copied();
            let origin = known.unwrap_or_else(|| self.fresh(&mut next));
            next.numbers.insert(source, origin);
        }
        next
    }

    /// Returns a number that stands for nobody, now and in `next`.
    fn fresh(&self, next: &mut Self) -> Origin {
        let is_taken =
            |origin: &Origin| [self, &*next].iter().any(|all| all.numbers.values().any(|o| o == origin));
        let free = (1..=u8::MAX)
            .map(|step| Origin(next.last.wrapping_add(step)))
            .find(|origin| *origin != Origin::default() && !is_taken(origin));
        let origin = free.unwrap_or_default();
        if free.is_some() {
            next.last = origin.0;
        }
        origin
    }

    /// Returns the number of a server.
    pub(super) fn of(&self, spec: &ServerSpec) -> Origin {
        self.numbers.get(&source(spec)).copied().unwrap_or_default()
    }

    /// Returns the numbers.
    pub(super) fn all(&self) -> impl Iterator<Item = Origin> {
        self.numbers.values().copied()
    }

    /// Returns the numbers of servers that `next` does not have.
    pub(super) fn gone(&self, next: &Self) -> Vec<Origin> {
        let gone = self.numbers.iter().filter(|(source, _)| !next.numbers.contains_key(*source));
        gone.map(|(_, origin)| *origin).collect()
    }

    /// True when `next` has the same servers.
    pub(super) fn is_same(&self, next: &Self) -> bool {
        self.numbers.len() == next.numbers.len() && self.gone(next).is_empty()
    }
}

/// Returns what the answers of a server depend on.
fn source(spec: &ServerSpec) -> Source {
    (spec.endpoint.clone(), spec.trust_ad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_text;
    use crate::config::settings::Host;
    use std::path::Path;

    fn servers(hosts: impl IntoIterator<Item = String>) -> Vec<Arc<ServerSpec>> {
        let text = "upstreams = [\"tls://192.0.2.1\"]";
        let like = Arc::unwrap_or_clone(from_text(text, Path::new(".")).unwrap().servers.remove(0));
        let endpoint = |host| Endpoint::Dot { host: Host::Name(host), port: 853 };
        hosts
            .into_iter()
            .map(|host| Arc::new(ServerSpec { endpoint: endpoint(host), ..like.clone() }))
            .collect()
    }

    fn named(names: &[&str]) -> Vec<Arc<ServerSpec>> {
        servers(names.iter().map(ToString::to_string))
    }

    #[test]
    fn a_server_that_stays_keeps_its_number_and_a_new_one_gets_another() {
        let first = Origins::default().renumber(&named(&["a", "b"]));
        let second = first.renumber(&named(&["c", "b"]));
        let (a, b, c) = (&named(&["a"])[0], &named(&["b"])[0], &named(&["c"])[0]);
        assert_eq!(second.of(b), first.of(b));
        assert_eq!(first.gone(&second), [first.of(a)]);
        assert_ne!(second.of(c), first.of(a));
        assert_ne!(second.of(c), second.of(b));
        assert!(second.is_same(&second.renumber(&named(&["b", "c"]))));
        assert!(!second.is_same(&second.renumber(&named(&["b", "c", "d"]))));
    }

    #[test]
    fn servers_beyond_the_numbers_share_one() {
        let many = servers((0..300).map(|number| format!("s{number}")));
        let origins = Origins::default().renumber(&many);
        assert_eq!(origins.all().filter(|origin| *origin == Origin::default()).count(), 300 - 255);
    }
}
