//! Streams of octets to a server: TCP to its addresses in order, staggered ([RFC 8305](https://www.rfc-editor.org/rfc/rfc8305) §5), the one that worked tried first
//! the next time. Names without addresses are looked up through the other servers, never through the system's resolver.
//! What is *not* here: TLS, and when to dial.

use super::{Blame, Lookup, Surroundings, TransportError};
use crate::clock;
use crate::config::settings::Host;
use futures_util::stream::{FuturesUnordered, StreamExt};
use socket2::{SockRef, TcpKeepalive};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// RFC 8305 §5: Connection Attempt Delay.
const STAGGER: Duration = Duration::from_millis(250);
/// How long sent octets may go unacknowledged before the kernel gives the connection up (RFC 5482).
#[cfg(any(target_os = "linux", target_os = "android"))]
const USER_TIMEOUT: Duration = Duration::from_secs(5);
/// When the kernel begins to probe a connection that says nothing.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Opens a stream of octets to one server. Tests implement it with pipes.
pub(crate) trait Dial: Debug + Send + Sync + 'static {
    /// What a dial gives.
    type Stream: AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static;
    /// Opens a stream, until `deadline` at the latest. Cancel safe.
    fn dial(
        &self,
        deadline: Instant,
    ) -> impl Future<Output = Result<Dialled<Self::Stream>, TransportError>> + Send;
    /// Forgets what was learnt of the network: which address works.
    fn forget_network(&self);
    /// Hears that who answered at `address` was not the server, or did not finish the handshake: the next dial should
    /// begin elsewhere.
    fn refuted(&self, address: IpAddr) {
        let _ = address;
    }
}

/// A fresh stream and what is known of it.
#[derive(Debug)]
pub(crate) struct Dialled<S> {
    /// The octets.
    pub(crate) stream: S,
    /// Where it goes.
    pub(crate) address: SocketAddr,
    /// How long connecting took, look-up included.
    pub(crate) connect_time: Duration,
}

/// Addresses of one server.
#[derive(Debug, Default)]
struct Known {
    /// Best first.
    addresses: Vec<IpAddr>,
    /// Handshakes that failed since the addresses were learnt.
    refuted: usize,
}

/// TCP to the server's addresses, staggered.
#[derive(Debug)]
pub(crate) struct TcpDial {
    /// As configured.
    host: Host,
    /// As configured.
    port: u16,
    /// Finds addresses when there are none.
    lookup: Arc<dyn Lookup>,
    /// What is known of them.
    known: Mutex<Known>,
    /// As configured, in the operator's order; empty: they come from a look-up and are forgotten when all fail.
    written: Vec<IpAddr>,
}

impl TcpDial {
    /// `addresses` empty: those of `host`, looked up when first needed.
    pub(crate) fn new(host: &Host, port: u16, addresses: &[IpAddr], around: &Surroundings) -> Self {
        let addresses = match host {
            Host::Address(address) if addresses.is_empty() => vec![*address],
            Host::Address(_) | Host::Name(_) => in_turn(addresses),
        };
        let lookup = Arc::clone(&around.lookup);
        let known = Mutex::new(Known { addresses: addresses.clone(), refuted: 0 });
        Self { host: host.clone(), port, lookup, known, written: addresses }
    }

    /// Locks the addresses.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns where to connect, best first; asks the other servers when nothing is known.
    async fn targets(&self, deadline: Instant) -> Result<Vec<SocketAddr>, TransportError> {
        let mut addresses = self.known().addresses.clone();
        if let (true, Host::Name(name)) = (addresses.is_empty(), &self.host) {
            addresses = self.lookup.addresses(name, deadline).await?;
            *self.known() = Known { addresses: addresses.clone(), refuted: 0 };
        }
        if addresses.is_empty() {
            return Err(TransportError::NoAddress { host: self.host.to_string() });
        }
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, self.port)).collect())
    }

    /// Puts the address that worked first.
    fn prefer(&self, address: IpAddr) {
        let mut known = self.known();
        if let Some(position) = known.addresses.iter().position(|other| *other == address)
            && let Some(before) = known.addresses.get_mut(..=position)
        {
            before.rotate_right(1);
        }
    }

    /// Forgets what was looked up: the server may have moved.
    fn forget(&self) {
        if self.written.is_empty() {
            *self.known() = Known::default();
        }
    }
}

impl Dial for TcpDial {
    type Stream = TcpStream;

    async fn dial(&self, deadline: Instant) -> Result<Dialled<TcpStream>, TransportError> {
        let started = clock::now();
        let targets = self.targets(deadline).await?;
        match race(&targets, deadline, connect).await {
            Ok((stream, address)) => {
                self.prefer(address.ip());
                let connect_time = clock::now().saturating_duration_since(started);
                Ok(Dialled { stream, address, connect_time })
            }
            Err(error) => {
                if error.blame() != Blame::Us {
                    self.forget();
                }
                Err(error)
            }
        }
    }

    fn forget_network(&self) {
        *self.known() = Known { addresses: self.written.clone(), refuted: 0 };
    }

    /// Puts the address last. Learnt ones are forgotten once there were as many failures as addresses: a name that moved
    /// leaves addresses behind where somebody else may answer.
    fn refuted(&self, address: IpAddr) {
        let mut known = self.known();
        known.refuted = known.refuted.saturating_add(1);
        if self.written.is_empty() && known.refuted >= known.addresses.len() {
            *known = Known::default();
        } else if let Some(position) = known.addresses.iter().position(|other| *other == address)
            && let Some(after) = known.addresses.get_mut(position..)
        {
            after.rotate_left(1);
        }
    }
}

/// Returns the addresses with the families in turn, the operator's first one first (RFC 8305 §4): when one family leads
/// nowhere, that costs one delay and not one for each of its addresses.
fn in_turn(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first = addresses.first().map(IpAddr::is_ipv4);
    let (mut ones, mut others): (VecDeque<IpAddr>, VecDeque<IpAddr>) =
        addresses.iter().copied().partition(|address| Some(address.is_ipv4()) == first);
    let mut turns = Vec::with_capacity(addresses.len());
    while !ones.is_empty() || !others.is_empty() {
        turns.extend(ones.pop_front());
        turns.extend(others.pop_front());
    }
    turns
}

/// Tries the targets in order, the next one as soon as the one before has failed or `STAGGER` has passed; the first
/// success wins and the others are dropped. Cancel safe.
async fn race<S, C, F>(
    targets: &[SocketAddr],
    deadline: Instant,
    connect: C,
) -> Result<(S, SocketAddr), TransportError>
where
    C: Fn(SocketAddr) -> F,
    F: Future<Output = Result<S, (SocketAddr, io::Error)>>,
{
    let started = clock::now();
    let mut attempts = FuturesUnordered::new();
    let mut waiting = targets.iter();
    let mut latest = None;
    let mut failure = None;
    loop {
        if let Some(&target) = waiting.next() {
            latest = Some(target);
            let attempt = connect(target);
            attempts.push(async move { attempt.await.map(|stream| (stream, target)) });
        }
        tokio::select! {
            outcome = attempts.next() => match outcome {
                Some(Ok(won)) => return Ok(won),
                Some(Err((address, error))) => {
                    failure = Some(TransportError::connecting(address, error));
                }
                None => return Err(failure.unwrap_or(TransportError::Timeout)),
            },
            () = tokio::time::sleep(STAGGER), if waiting.len() > 0 => {}
            () = tokio::time::sleep_until(deadline.into()) => {
                let waited = clock::now().saturating_duration_since(started);
                return Err(latest.map_or(TransportError::Timeout, |address| {
                    TransportError::ConnectTimeout { address, waited }
                }));
            }
        }
    }
}

/// Connects to one address, until `deadline` at the latest: for whoever looks at a network. Cancel safe.
///
/// # Errors
/// `Connect` and `ConnectTimeout`.
pub(crate) async fn open(address: SocketAddr, deadline: Instant) -> Result<TcpStream, TransportError> {
    race(&[address], deadline, connect).await.map(|(stream, _)| stream)
}

/// Connects to one address and sets the options of the socket.
async fn connect(address: SocketAddr) -> Result<TcpStream, (SocketAddr, io::Error)> {
    let stream = TcpStream::connect(address).await.map_err(|error| (address, error))?;
    tune(&stream).map_err(|error| (address, error))?;
    Ok(stream)
}

/// Sets the options of a connected socket: no waiting for more octets to send, and dead paths are found.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::rehearsal::{Phonebook, surroundings};
    use super::*;
    use crate::config::settings::Limits;
    use std::sync::atomic::Ordering;
    use tokio::net::TcpListener;

    /// How a target behaves in a race: after how many milliseconds it connects or refuses.
    #[derive(Clone, Copy, Debug)]
    enum Target {
        Connects(u64),
        Refuses(u64),
        Silent,
    }

    impl Target {
        async fn behave(self) -> Result<(), io::ErrorKind> {
            let (ms, outcome) = match self {
                Self::Connects(ms) => (ms, Ok(())),
                Self::Refuses(ms) => (ms, Err(io::ErrorKind::ConnectionRefused)),
                Self::Silent => std::future::pending().await,
            };
            tokio::time::sleep(Duration::from_millis(ms)).await;
            outcome
        }
    }

    /// Races targets; returns who won and after how many milliseconds.
    async fn run(targets: &[Target], patience_ms: u64) -> (Result<usize, TransportError>, u128) {
        let addresses: Vec<SocketAddr> = (0..targets.len())
            .map(|i| SocketAddr::from(([192, 0, 2, 1], u16::try_from(i).unwrap())))
            .collect();
        let started = clock::now();
        let outcome = race(&addresses, started + Duration::from_millis(patience_ms), |address| {
            let target = targets[usize::from(address.port())];
            async move { target.behave().await.map_err(|kind| (address, kind.into())) }
        })
        .await;
        let won = outcome.map(|((), address)| usize::from(address.port()));
        (won, (clock::now() - started).as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_address_is_tried_after_a_refusal_or_a_quarter_of_a_second() {
        use Target::{Connects, Refuses, Silent};
        let cases: [(&[Target], usize, u128); 6] = [
            (&[Connects(10), Connects(10)], 0, 10),
            (&[Silent, Connects(10)], 1, 260),
            (&[Refuses(20), Connects(10)], 1, 30),
            (&[Silent, Silent, Connects(5)], 2, 505),
            (&[Connects(300), Connects(100)], 0, 300),
            (&[Connects(400), Connects(100)], 1, 350),
        ];
        for (targets, winner, millis) in cases {
            let (won, took) = run(targets, 2000).await;
            assert_eq!(won.unwrap(), winner, "{targets:?}");
            // Tokio's timers round up to the next millisecond.
            assert!((millis..=millis + 3).contains(&took), "{targets:?}: {took}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_the_reason_is_told() {
        let (won, took) = run(&[Target::Refuses(10), Target::Refuses(20)], 2000).await;
        assert!(matches!(won, Err(TransportError::Connect { address, .. }) if address.port() == 1));
        assert!(took < 100);
        let (won, took) = run(&[Target::Silent, Target::Silent], 700).await;
        assert!(matches!(won, Err(TransportError::ConnectTimeout { .. })));
        assert!((700..=703).contains(&took));
    }

    #[test]
    fn families_take_turns_and_the_operators_first_address_stays_first() {
        let cases =
            [("a b", "a b"), ("a b ::1 ::2 ::3", "a ::1 b ::2 ::3"), ("::1 ::2 a", "::1 a ::2"), ("", "")];
        let read = |text: &str| -> Vec<IpAddr> {
            let words =
                text.split_whitespace().map(|word| word.replace('a', "192.0.2.1").replace('b', "192.0.2.2"));
            words.map(|word| word.parse().unwrap()).collect()
        };
        for (written, expected) in cases {
            assert_eq!(in_turn(&read(written)), read(expected), "{written}");
        }
    }

    fn deadline() -> Instant {
        clock::now() + Duration::from_secs(5)
    }

    #[tokio::test]
    async fn the_address_that_worked_is_tried_first_the_next_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let addresses = [IpAddr::from([127, 0, 0, 9]), IpAddr::from([127, 0, 0, 1])];
        let host = Host::Name("dns.example".to_owned());
        let dial = TcpDial::new(&host, port, &addresses, &surroundings(Limits::default()));
        let dialled = dial.dial(deadline()).await.unwrap();
        assert_eq!(dialled.address.ip(), addresses[1]);
        assert_eq!(dial.known().addresses, [addresses[1], addresses[0]]);
        assert!(dialled.stream.nodelay().unwrap());
        dial.forget_network();
        assert_eq!(dial.known().addresses, addresses, "on another network the operator's order holds again");
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_and_again_when_its_addresses_fail() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut book = Phonebook::default();
        book.entries.insert("dns.example".to_owned(), vec![[127, 0, 0, 1].into()]);
        let book = Arc::new(book);
        let around = Surroundings { lookup: Arc::clone(&book) as _, ..surroundings(Limits::default()) };
        let dial = TcpDial::new(&Host::Name("dns.example".to_owned()), port, &[], &around);
        dial.dial(deadline()).await.unwrap();
        dial.dial(deadline()).await.unwrap();
        assert_eq!(book.asked.load(Ordering::Relaxed), 1);
        drop(listener);
        assert!(matches!(dial.dial(deadline()).await, Err(TransportError::Connect { .. })));
        assert!(dial.dial(deadline()).await.is_err());
        assert_eq!(book.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn an_address_that_connects_but_is_not_the_server_gives_way_to_the_others() {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let addresses = [IpAddr::from([127, 0, 0, 8]), IpAddr::from([127, 0, 0, 9])];
        let host = Host::Name("dns.example".to_owned());
        let dial = TcpDial::new(&host, port, &addresses, &surroundings(Limits::default()));
        for round in [0, 1, 0, 1] {
            let dialled = dial.dial(deadline()).await.unwrap();
            assert_eq!(dialled.address.ip(), addresses[round]);
            dial.refuted(dialled.address.ip());
        }
    }

    #[tokio::test]
    async fn learnt_addresses_where_others_answer_are_looked_up_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut book = Phonebook::default();
        book.entries.insert("dns.example".to_owned(), vec![[127, 0, 0, 1].into()]);
        let book = Arc::new(book);
        let around = Surroundings { lookup: Arc::clone(&book) as _, ..surroundings(Limits::default()) };
        let dial = TcpDial::new(&Host::Name("dns.example".to_owned()), port, &[], &around);
        let dialled = dial.dial(deadline()).await.unwrap();
        dial.refuted(dialled.address.ip());
        dial.dial(deadline()).await.unwrap();
        assert_eq!(book.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_name_nobody_knows_is_no_address() {
        let around = surroundings(Limits::default());
        let dial = TcpDial::new(&Host::Name("gone.example".to_owned()), 853, &[], &around);
        assert!(
            matches!(dial.dial(deadline()).await, Err(TransportError::NoAddress { host }) if host == "gone.example")
        );
    }
}
