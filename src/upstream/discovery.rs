//! Learns where this network's NAT64 has the IPv4 Internet, by asking for the addresses of `ipv4only.arpa`
//! ([RFC 7050](https://www.rfc-editor.org/rfc/rfc7050) §3): encrypted servers alone, never the network's own, so that no stranger
//! on the way can tell us. Few public servers know a network's prefix; then the well-known one is all there is to try, which
//! `transport::dial` does anyway. What a prefix is, is `transport::dial::nat64`'s.

use super::Upstream;
use super::addresses::{Found, Unanswered, ask_for};
use crate::config::settings::{Endpoint, Host, ServerSpec};
use crate::transport::dial::nat64::{self, Prefix};
use crate::wire::name::Name;
use crate::wire::question::RecordType;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::info;

/// Servers asked at once.
const MOST_SERVERS: usize = 3;

/// How long prefixes are used, whatever their TTL: RFC 7050 §3 would have them learnt anew as soon as that has ended.
const LIFETIME_SECS: (u32, u32) = (60, 3600);

/// How long it counts that servers know none.
const NONE_KNOWN: Duration = Duration::from_secs(600);

/// How long nobody is asked again when nobody answered.
const UNANSWERED: Duration = Duration::from_secs(10);

/// What is known of this network's translator.
#[derive(Debug, Default)]
pub(super) struct Discovery {
    /// None: nothing yet.
    learnt: Mutex<Learnt>,
    /// Somebody is being asked. One look-up at a time: a server that is asked may have to be dialled first, and that dial
    /// would ask again.
    asking: AtomicBool,
}

/// What was learnt, and when it has to be learnt anew.
#[derive(Debug, Default)]
struct Learnt {
    /// Best first.
    prefixes: Vec<Prefix>,
    /// None: nothing was learnt on this network.
    until: Option<Instant>,
    /// Counts networks: what was asked on one says nothing of the next.
    era: u64,
}

impl Discovery {
    /// Returns the prefixes; None when they should be learnt (anew).
    pub(super) fn known(&self, now: Instant) -> Option<Vec<Prefix>> {
        let learnt = self.locked();
        learnt.until.filter(|until| now < *until).map(|_| learnt.prefixes.clone())
    }

    /// Forgets everything: the network is another one.
    pub(super) fn forget(&self) {
        let mut learnt = self.locked();
        *learnt = Learnt { era: learnt.era.wrapping_add(1), ..Learnt::default() };
    }

    /// Asks those of `servers` that can be reached without a translator, and returns the prefixes. Returns what is known when
    /// somebody is being asked already. Cancel safe: what was asked is forgotten.
    pub(super) async fn learn(&self, servers: Vec<Arc<Upstream>>, deadline: Instant) -> Vec<Prefix> {
        if self.asking.swap(true, Ordering::AcqRel) {
            return self.locked().prefixes.clone();
        }
        let _asking = Asking(&self.asking);
        let era = self.locked().era;
        let said = ask_around(servers, deadline).await;
        let now = crate::clock::now();
        let mut learnt = self.locked();
        if learnt.era == era {
            learnt.take(said, now);
        }
        learnt.prefixes.clone()
    }

    /// Locks what was learnt; a panic elsewhere leaves it good.
    fn locked(&self) -> MutexGuard<'_, Learnt> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks the look-up under way, also when it is dropped.
struct Asking<'a>(&'a AtomicBool);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Learnt {
    /// Takes what servers said. When nobody answered, what was known is kept.
    fn take(&mut self, said: Result<Option<Shown>, Unanswered>, now: Instant) {
        let (prefixes, lifetime) = match said {
            Ok(Some(Shown { prefixes, lifetime })) => (prefixes, lifetime),
            Ok(None) => (Vec::new(), NONE_KNOWN),
            Err(Unanswered) => (std::mem::take(&mut self.prefixes), UNANSWERED),
        };
        if let Some(prefix) = prefixes.first().filter(|_| prefixes != self.prefixes) {
            info!(%prefix, "servers that have only IPv4 are reached through this network's NAT64");
        }
        self.prefixes = prefixes;
        self.until = Some(now + lifetime);
    }
}

/// Prefixes that a server knows.
#[derive(Debug)]
struct Shown {
    /// At least one.
    prefixes: Vec<Prefix>,
    /// For how long.
    lifetime: Duration,
}

/// Asks several servers at once; the first that knows a prefix counts. None: those that answered know none.
async fn ask_around(servers: Vec<Arc<Upstream>>, deadline: Instant) -> Result<Option<Shown>, Unanswered> {
    let Ok(name) = nat64::NAME.parse::<Name>() else { return Err(Unanswered) };
    let name = &name;
    let reachable = servers.iter().filter(|server| is_reachable(server)).take(MOST_SERVERS);
    let mut asked: FuturesUnordered<_> = reachable
        .map(|server| {
            let deadline = deadline.min(crate::clock::now() + server.attempt_timeout());
            ask_for(server, name.view(), RecordType::AAAA, deadline)
        })
        .collect();
    let mut said = Err(Unanswered);
    while let Some(outcome) = asked.next().await {
        let Ok(found) = outcome else { continue };
        said = Ok(found.and_then(Shown::by));
        if matches!(said, Ok(Some(_))) {
            return said;
        }
    }
    said
}

impl Shown {
    /// Returns what addresses of the name show.
    fn by(found: Found) -> Option<Self> {
        let (least, most) = LIFETIME_SECS;
        let v6 = |address: &IpAddr| match address {
            IpAddr::V6(v6) => Some(*v6),
            IpAddr::V4(_) => None,
        };
        let addresses: Vec<_> = found.addresses.iter().filter_map(v6).collect();
        let prefixes = nat64::prefixes(&addresses);
        let lifetime = Duration::from_secs(u64::from(found.ttl_secs.clamp(least, most)));
        (!prefixes.is_empty()).then_some(Self { prefixes, lifetime })
    }
}

/// Returns true for a server that needs no translator: it has an IPv6 address, or a connection is open.
fn is_reachable(server: &Upstream) -> bool {
    has_ipv6(server.spec()) || server.transport().connections() > 0
}

/// Returns true for a server with a written IPv6 address.
fn has_ipv6(spec: &ServerSpec) -> bool {
    let of_host = match &spec.endpoint {
        Endpoint::Dot { host: Host::Address(own), .. } | Endpoint::Doh { host: Host::Address(own), .. } => {
            own.is_ipv6()
        }
        Endpoint::Dot { host: Host::Name(_), .. }
        | Endpoint::Doh { host: Host::Name(_), .. }
        | Endpoint::PlainUdp { .. }
        | Endpoint::PlainTcp { .. } => false,
    };
    of_host || spec.addresses.iter().any(IpAddr::is_ipv6)
}

#[cfg(test)]
mod tests {
    use super::super::fake::{self, Fake};
    use super::*;
    use crate::transport::TransportError;
    use bytes::Bytes;
    use std::net::Ipv6Addr;

    const AAAA: u16 = 28;

    type Said = Option<Result<Bytes, TransportError>>;

    /// A server at IPv6 that says so of the name.
    fn server(said: impl FnMut(&[u8]) -> Said + Send + 'static) -> (Arc<Upstream>, Fake) {
        let endpoint = Endpoint::Dot { host: Host::Name("dns.example".to_owned()), port: 853 };
        fake::upstream_at("s", endpoint, vec!["2001:db8:1::1".parse().unwrap()], Fake::new(said))
    }
    /// Answers with addresses of the name.
    fn showing(addresses: &'static [&'static str]) -> impl FnMut(&[u8]) -> Said + Send {
        move |query| {
            let record = |text: &&str| (AAAA, 300, text.parse::<Ipv6Addr>().unwrap().octets().to_vec());
            let records: Vec<_> = addresses.iter().map(record).collect();
            Some(Ok(fake::reply(query, 0, &records)))
        }
    }
    async fn learn(discovery: &Discovery, servers: &[&Arc<Upstream>]) -> Vec<String> {
        let servers = servers.iter().map(|server| Arc::clone(server)).collect();
        let deadline = crate::clock::now() + Duration::from_secs(2);
        discovery.learn(servers, deadline).await.iter().map(ToString::to_string).collect()
    }
    fn known(discovery: &Discovery) -> Option<usize> {
        discovery.known(crate::clock::now()).map(|prefixes| prefixes.len())
    }
    async fn pass(secs: u64) {
        tokio::time::advance(Duration::from_secs(secs)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_knows_the_prefix_is_asked_once_for_its_lifetime() {
        let (server, fake) = server(showing(&["2001:db8:64::c000:aa", "2001:db8:64::c000:ab"]));
        let discovery = Discovery::default();
        assert_eq!(known(&discovery), None);
        assert_eq!(learn(&discovery, &[&server]).await, ["2001:db8:64::/96"]);
        assert!(fake.queries()[0][12..].starts_with(b"\x08ipv4only\x04arpa\x00\x00\x1c"));
        pass(299).await;
        assert_eq!(known(&discovery), Some(1));
        pass(1).await;
        assert_eq!(known(&discovery), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_that_knows_one_counts_and_those_that_know_none_are_not_asked_for_a_while() {
        let (ignorant, _) = server(showing(&[]));
        let (knowing, _) = server(showing(&["64:ff9b::c000:aa"]));
        let discovery = Discovery::default();
        assert!(learn(&discovery, &[&ignorant]).await.is_empty());
        assert_eq!(known(&discovery), Some(0));
        pass(599).await;
        assert_eq!(known(&discovery), Some(0));
        pass(1).await;
        assert_eq!(known(&discovery), None);
        assert_eq!(learn(&discovery, &[&ignorant, &knowing]).await, ["64:ff9b::/96"]);
    }

    #[tokio::test(start_paused = true)]
    async fn old_prefixes_are_kept_while_nobody_answers_and_forgotten_on_another_network() {
        let (server, fake) = server(showing(&["2001:db8:64::c000:aa"]));
        let discovery = Discovery::default();
        learn(&discovery, &[&server]).await;
        pass(7200).await;
        fake.now_does(|_| Some(Err(TransportError::Closed)));
        assert_eq!(learn(&discovery, &[&server]).await, ["2001:db8:64::/96"]);
        assert_eq!(known(&discovery), Some(1));
        discovery.forget();
        assert_eq!(known(&discovery), None);
        assert!(learn(&discovery, &[&server]).await.is_empty());
        pass(10).await;
        assert_eq!(known(&discovery), None, "it is tried again soon");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_asked_on_one_network_is_not_believed_on_the_next() {
        let (server, fake) = server(|_| None);
        let discovery = Discovery::default();
        let servers = [&server];
        let asking = learn(&discovery, &servers);
        let roaming = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            discovery.forget();
            assert!(learn(&discovery, &[]).await.is_empty(), "one look-up at a time");
        };
        tokio::join!(asking, roaming);
        assert_eq!((known(&discovery), fake.queries().len()), (None, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_that_is_dropped_bars_nobody() {
        let (silent, _fake) = server(|_| None);
        let discovery = Discovery::default();
        let dropped = tokio::time::timeout(Duration::from_millis(10), learn(&discovery, &[&silent])).await;
        assert!(dropped.is_err());
        let (knowing, _) = server(showing(&["64:ff9b::c000:aa"]));
        assert_eq!(learn(&discovery, &[&knowing]).await.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn servers_that_would_need_the_translator_themselves_are_not_asked() {
        let (server, fake) = fake::upstream("v4", Fake::new(showing(&["64:ff9b::c000:aa"])));
        assert!(server.spec().addresses.iter().all(IpAddr::is_ipv4));
        fake.has_connections(0);
        assert!(learn(&Discovery::default(), &[&server]).await.is_empty());
        assert!(fake.queries().is_empty());
        fake.has_connections(1);
        assert_eq!(learn(&Discovery::default(), &[&server]).await.len(), 1, "one that is connected is");
    }
}
