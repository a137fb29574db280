//! Finds the addresses of a server that is configured by name only, by asking the other servers: encrypted ones, at addresses
//! that are written down. So there is no plaintext query and no circle (a server never helps to find itself), and a wrong
//! address does no harm but delay: the server has still to show its certificate. It does not connect (`transport::dial`), nor
//! read answers (`addresses`); how IPv4 is reached from a network without it is `discovery`'s.

use super::Upstream;
use super::addresses::{Found, ask};
use super::discovery::Discovery;
use crate::config::settings::{Endpoint, Host, ServerSpec};
use crate::transport::dial::nat64::Prefix;
use crate::transport::{BoxFuture, Lookup, TransportError};
use crate::wire::name::Name;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Servers asked in one look-up.
const MOST_SERVERS: usize = 3;

/// Names remembered: far more than anybody has servers.
const MOST_NAMES: usize = 64;

/// How long an answer is used, whatever its TTL: not for every dial anew, and not for ever.
const LIFETIME_SECS: (u32, u32) = (60, 3600);

/// Looks servers' names up through other servers. Made empty: the servers' transports need it before there are servers.
#[derive(Debug, Default)]
pub struct Bootstrap {
    /// Those that can help. Weak, because their transports hold this.
    servers: ArcSwap<Vec<Weak<Upstream>>>,
    /// What was found.
    known: Mutex<HashMap<String, Known>>,
    /// Changes when other addresses were found.
    learnt: watch::Sender<()>,
    /// Finds the way to IPv4 where there is only IPv6.
    discovery: Discovery,
}

/// Addresses of one name.
#[derive(Debug)]
struct Known {
    /// Both families, in the order to try.
    addresses: Vec<IpAddr>,
    /// From then on they are asked for again, and used only if nobody answers.
    expires: Instant,
}

impl Lookup for Bootstrap {
    fn addresses<'a>(
        &'a self,
        host: &'a str,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, TransportError>> {
        Box::pin(self.look_up(host, deadline))
    }

    fn nat64(&self) -> Option<Vec<Prefix>> {
        self.discovery.known(crate::clock::now())
    }

    fn learn_nat64(&self, deadline: Instant) -> BoxFuture<'_, Vec<Prefix>> {
        let servers = self.servers.load().iter().filter_map(Weak::upgrade).collect();
        Box::pin(self.discovery.learn(servers, deadline))
    }
}

impl Bootstrap {
    /// Makes one that finds nothing until it has servers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the servers that may be asked, the preferred ones first. Those that are not encrypted or have no written
    /// address are passed over, and one that is named again.
    pub fn set_servers(&self, servers: &[Arc<Upstream>]) {
        let mut helpers: Vec<&Arc<Upstream>> = Vec::new();
        for server in servers.iter().filter(|server| can_help(server.spec())) {
            if !helpers.iter().any(|helper| helper.id() == server.id()) {
                helpers.push(server);
            }
        }
        self.servers.store(Arc::new(helpers.into_iter().map(Arc::downgrade).collect()));
    }

    /// Takes addresses of an earlier run. They count as old: used when nobody can be asked.
    pub fn recall_all(&self, addresses: Vec<(String, Vec<IpAddr>)>) {
        let now = crate::clock::now();
        let known = addresses.into_iter().take(MOST_NAMES);
        self.known().extend(known.map(|(host, addresses)| (host, Known { addresses, expires: now })));
    }

    /// Returns all addresses that are known, however old, by name.
    pub fn all(&self) -> Vec<(String, Vec<IpAddr>)> {
        let known = self.known();
        let mut all: Vec<_> =
            known.iter().map(|(host, known)| (host.clone(), known.addresses.clone())).collect();
        all.sort_unstable();
        all
    }

    /// Returns what changes when other addresses were found.
    pub fn learnt(&self) -> watch::Receiver<()> {
        self.learnt.subscribe()
    }

    /// Forgets what holds on one network only.
    pub fn forget_network(&self) {
        self.discovery.forget();
    }

    /// Returns the addresses of `host`. Cancel safe: what was asked is forgotten.
    async fn look_up(&self, host: &str, deadline: Instant) -> Result<Vec<IpAddr>, TransportError> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let now = crate::clock::now();
        let (old, expires) = self.recall(&host).unzip();
        if let (Some(addresses), Some(expires)) = (&old, expires)
            && now < expires
        {
            return Ok(addresses.clone());
        }
        // Old addresses most likely still hold: part of the time is kept for trying them.
        let deadline =
            if old.is_some() { now + deadline.saturating_duration_since(now) / 2 } else { deadline };
        match self.ask_around(&host, deadline).await {
            Some(found) => Ok(self.remember(host, found, crate::clock::now())),
            None => old.ok_or(TransportError::NoAddress { host }),
        }
    }

    /// Asks one server after the other until one has addresses.
    async fn ask_around(&self, host: &str, deadline: Instant) -> Option<Found> {
        let name: Name = host.parse().ok()?;
        for server in self.helpers(host) {
            let now = crate::clock::now();
            if now >= deadline {
                break;
            }
            let found = ask(&server, name.view(), deadline.min(now + server.attempt_timeout())).await;
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Returns the servers to ask about `host`, those that are up first.
    fn helpers(&self, host: &str) -> Vec<Arc<Upstream>> {
        let servers = self.servers.load();
        let mut helpers: Vec<_> = servers.iter().filter_map(Weak::upgrade).collect();
        helpers.retain(|server| !is_at(server.spec(), host));
        helpers.sort_by_cached_key(|server| !server.is_up());
        helpers.truncate(MOST_SERVERS);
        helpers
    }

    /// Returns what is known of a name, however old.
    fn recall(&self, host: &str) -> Option<(Vec<IpAddr>, Instant)> {
        self.known().get(host).map(|known| (known.addresses.clone(), known.expires))
    }

    /// Keeps what was found for its lifetime, and returns the addresses.
    fn remember(&self, host: String, found: Found, now: Instant) -> Vec<IpAddr> {
        let (least, most) = LIFETIME_SECS;
        let expires = now + Duration::from_secs(u64::from(found.ttl_secs.clamp(least, most)));
        let addresses = found.interleaved();
        let mut known = self.known();
        if known.len() >= MOST_NAMES && !known.contains_key(&host) {
            known.retain(|_, old| old.expires > now);
        }
        if known.len() < MOST_NAMES || known.contains_key(&host) {
            let before = known.insert(host, Known { addresses: addresses.clone(), expires });
            if before.is_none_or(|before| before.addresses != addresses) {
                self.learnt.send_replace(());
            }
        }
        addresses
    }

    /// Locks what was found; a panic elsewhere leaves it good.
    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns true for a server that can be asked without a look-up and in private.
fn can_help(spec: &ServerSpec) -> bool {
    let has_address = match &spec.endpoint {
        Endpoint::Dot { host, .. } | Endpoint::Doh { host, .. } => {
            !spec.addresses.is_empty() || matches!(host, Host::Address(_))
        }
        Endpoint::PlainUdp { .. } | Endpoint::PlainTcp { .. } => false,
    };
    has_address && !spec.endpoint.is_plaintext()
}

/// Returns true for a server that is known by this name.
fn is_at(spec: &ServerSpec, name: &str) -> bool {
    match &spec.endpoint {
        Endpoint::Dot { host: Host::Name(own), .. } | Endpoint::Doh { host: Host::Name(own), .. } => {
            own.trim_end_matches('.').eq_ignore_ascii_case(name)
        }
        Endpoint::Dot { host: Host::Address(_), .. }
        | Endpoint::Doh { host: Host::Address(_), .. }
        | Endpoint::PlainUdp { .. }
        | Endpoint::PlainTcp { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{self, Fake, Record};
    use super::super::retry::after_transport;
    use super::*;
    use crate::config::settings::DohMethod;

    const A: u16 = 1;
    const AAAA: u16 = 28;
    const CNAME: u16 = 5;

    fn v4(last: u8, ttl: u32) -> Record {
        (A, ttl, vec![192, 0, 2, last])
    }
    fn v6(last: u8, ttl: u32) -> Record {
        let mut octets = vec![0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        octets.push(last);
        (AAAA, ttl, octets)
    }
    /// Answers with those of `records` that were asked for.
    fn zone(records: Vec<Record>) -> Fake {
        Fake::new(move |query| {
            let asked = fake::rtype_of(query);
            let records: Vec<_> = records.iter().filter(|record| record.0 == asked).cloned().collect();
            Some(Ok(fake::reply(query, 0, &records)))
        })
    }
    fn bootstrap(servers: &[&Arc<Upstream>]) -> Bootstrap {
        let bootstrap = Bootstrap::new();
        bootstrap.set_servers(&servers.iter().map(|server| Arc::clone(server)).collect::<Vec<_>>());
        bootstrap
    }
    async fn look_up(bootstrap: &Bootstrap) -> Result<Vec<IpAddr>, TransportError> {
        bootstrap.addresses("dns.home.example", crate::clock::now() + Duration::from_secs(3)).await
    }
    fn texts(addresses: &[IpAddr]) -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    }
    async fn pass(secs: u64) {
        tokio::time::advance(Duration::from_secs(secs)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn both_families_are_asked_and_returned_in_turn() {
        let (helper, fake) =
            fake::upstream("helper", zone(vec![v4(1, 300), v4(2, 300), v6(1, 300), v6(2, 300), v6(3, 300)]));
        let found = look_up(&bootstrap(&[&helper])).await.unwrap();
        let expected = ["192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2", "2001:db8::3"];
        assert_eq!(texts(&found), expected);
        let queries = fake.queries();
        assert_eq!(queries.len(), 2);
        assert!(
            queries.iter().all(|query| query.len() % 128 == 0 && query[12..].starts_with(b"\x03dns\x04home"))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_of_an_earlier_run_help_when_nobody_can_be_asked_and_give_way_to_new_ones() {
        let old = vec![("dns.home.example".to_owned(), vec!["192.0.2.7".parse().unwrap()])];
        let alone = bootstrap(&[]);
        alone.recall_all(old.clone());
        assert_eq!(texts(&look_up(&alone).await.unwrap()), ["192.0.2.7"]);
        let (helper, _fake) = fake::upstream("helper", zone(vec![v4(1, 300)]));
        let helped = bootstrap(&[&helper]);
        let mut learnt = helped.learnt();
        helped.recall_all(old.clone());
        assert!(!learnt.has_changed().unwrap());
        assert_eq!(texts(&look_up(&helped).await.unwrap()), ["192.0.2.1"]);
        assert!(learnt.has_changed().unwrap());
        learnt.mark_unchanged();
        pass(301).await;
        look_up(&helped).await.unwrap();
        assert!(!learnt.has_changed().unwrap(), "the same addresses are no news");
        assert_eq!(helped.all(), [("dns.home.example".to_owned(), vec!["192.0.2.1".parse().unwrap()])]);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_used_for_their_ttl_within_a_minute_and_an_hour() {
        for (ttl, used, asked_again) in [(0, 59, 60), (300, 299, 300), (86_400, 3599, 3600)] {
            let (helper, fake) = fake::upstream("helper", zone(vec![v4(1, ttl), v6(1, 90_000)]));
            let bootstrap = bootstrap(&[&helper]);
            look_up(&bootstrap).await.unwrap();
            pass(used).await;
            look_up(&bootstrap).await.unwrap();
            assert_eq!(fake.queries().len(), 2, "{ttl}");
            pass(asked_again - used).await;
            look_up(&bootstrap).await.unwrap();
            assert_eq!(fake.queries().len(), 4, "{ttl}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn neither_the_server_itself_nor_plaintext_nor_nameless_servers_are_asked() {
        let named = |host: &str| Endpoint::Dot { host: Host::Name(host.to_owned()), port: 853 };
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let itself = Endpoint::Doh {
            host: Host::Name("DNS.home.example.".to_owned()),
            port: 443,
            path: "/dns-query".to_owned(),
            method: DohMethod::Post,
        };
        let plain = Endpoint::PlainUdp { address: "192.0.2.1:53".parse().unwrap() };
        let cases = [(itself, vec![address]), (plain, vec![address]), (named("other.example"), Vec::new())];
        for (endpoint, addresses) in cases {
            let (server, fake) = fake::upstream_at("s", endpoint, addresses, zone(vec![v4(1, 300)]));
            let error = look_up(&bootstrap(&[&server])).await.unwrap_err();
            assert!(matches!(error, TransportError::NoAddress { host } if host == "dns.home.example"));
            assert!(fake.queries().is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_whose_host_is_an_address_can_help() {
        let endpoint = Endpoint::Dot { host: Host::Address("192.0.2.9".parse().unwrap()), port: 853 };
        let (helper, _fake) = fake::upstream_at("helper", endpoint, Vec::new(), zone(vec![v4(1, 300)]));
        assert_eq!(texts(&look_up(&bootstrap(&[&helper])).await.unwrap()), ["192.0.2.1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_server_is_asked_when_one_fails_or_is_silent() {
        for broken in [fake::closing(), fake::silent(), fake::answering()] {
            let (broken, seen) = fake::upstream("broken", broken);
            let (helper, _fake) = fake::upstream("helper", zone(vec![v6(1, 300)]));
            assert_eq!(texts(&look_up(&bootstrap(&[&broken, &helper])).await.unwrap()), ["2001:db8::1"]);
            assert_eq!(seen.queries().len(), 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn servers_that_are_up_are_asked_first() {
        let (down, seen) = fake::upstream("down", fake::answering());
        down.observe(after_transport(&TransportError::Pin).sample, crate::clock::now());
        let (helper, _fake) = fake::upstream("helper", zone(vec![v4(1, 300)]));
        look_up(&bootstrap(&[&down, &helper])).await.unwrap();
        assert!(seen.queries().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_family_does_not_wait_long_for_the_other() {
        let (helper, _fake) = fake::upstream(
            "helper",
            Fake::new(|query| (fake::rtype_of(query) == A).then(|| Ok(fake::reply(query, 0, &[v4(1, 300)])))),
        );
        let before = crate::clock::now();
        assert_eq!(texts(&look_up(&bootstrap(&[&helper])).await.unwrap()), ["192.0.2.1"]);
        assert!(crate::clock::now() - before <= Duration::from_millis(60));
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_holds_when_nobody_answers() {
        let servers: Vec<_> = (0..6).map(|i| fake::upstream(&format!("s{i}"), fake::silent()).0).collect();
        let bootstrap = Bootstrap::new();
        bootstrap.set_servers(&servers);
        let before = crate::clock::now();
        let deadline = before + Duration::from_millis(1500);
        assert!(bootstrap.addresses("dns.home.example", deadline).await.is_err());
        assert!(crate::clock::now() - before <= Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn old_addresses_are_better_than_none() {
        let (helper, fake) = fake::upstream("helper", zone(vec![v4(1, 60)]));
        let bootstrap = bootstrap(&[&helper]);
        look_up(&bootstrap).await.unwrap();
        pass(7200).await;
        fake.now_does(|_| Some(Err(TransportError::Closed)));
        assert_eq!(texts(&look_up(&bootstrap).await.unwrap()), ["192.0.2.1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_another_question_is_refused_and_counts_as_a_failure() {
        let (liar, _fake) = fake::upstream(
            "liar",
            Fake::new(|query| {
                let mut message = fake::reply(query, 0, &[v4(66, 300)]).to_vec();
                message[13] = b'x';
                Some(Ok(message.into()))
            }),
        );
        assert!(look_up(&bootstrap(&[&liar])).await.is_err());
        let status = liar.snapshot(crate::clock::now());
        assert!(status.last_error.unwrap().contains("question differs"));
    }

    #[tokio::test(start_paused = true)]
    async fn aliases_are_followed_and_strangers_records_are_not_taken() {
        // dns.home.example is an alias of b., b. of d., which has an address; nobody asked for c.
        let records: [(&[u8], Record); 4] = [
            (b"\x01b\x00", (CNAME, 120, b"\x01d\x00".to_vec())),
            (b"\x01d\x00", v4(7, 500)),
            (b"\x01c\x00", v4(66, 500)),
            (b"", (CNAME, 300, b"\x01b\x00".to_vec())),
        ];
        let (helper, _fake) =
            fake::upstream("helper", Fake::new(move |query| Some(Ok(fake::reply_with(query, 0, &records)))));
        let bootstrap = bootstrap(&[&helper]);
        assert_eq!(texts(&look_up(&bootstrap).await.unwrap()), ["192.0.2.7"]);
        let (_, expires) = bootstrap.recall("dns.home.example").unwrap();
        assert_eq!((expires - crate::clock::now()).as_secs(), 120);
    }

    #[tokio::test(start_paused = true)]
    async fn an_alias_of_itself_ends() {
        let records: [(&[u8], Record); 2] =
            [(b"", (CNAME, 300, b"\x01b\x00".to_vec())), (b"\x01b\x00", (CNAME, 1, b"\x01b\x00".to_vec()))];
        let (helper, _fake) =
            fake::upstream("helper", Fake::new(move |query| Some(Ok(fake::reply_with(query, 0, &records)))));
        assert!(look_up(&bootstrap(&[&helper])).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let (helper, _fake) = fake::upstream("helper", zone(vec![v4(1, 300)]));
        let bootstrap = bootstrap(&[&helper]);
        for i in 0..200 {
            let deadline = crate::clock::now() + Duration::from_secs(3);
            bootstrap.addresses(&format!("s{i}.example"), deadline).await.unwrap();
        }
        assert_eq!(bootstrap.known().len(), MOST_NAMES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_put_away_is_not_kept_alive() {
        let (helper, _fake) = fake::upstream("helper", zone(vec![v4(1, 300)]));
        let bootstrap = bootstrap(&[&helper]);
        assert_eq!(Arc::strong_count(&helper), 1);
        drop(helper);
        assert!(look_up(&bootstrap).await.is_err());
    }
}
