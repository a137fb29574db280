//! A race of connections to the addresses of one server ([RFC 8305](https://www.rfc-editor.org/rfc/rfc8305) §5): each begins a
//! moment after the one before, and the first that is there wins. What is *not* here: which addresses there are and in which
//! order (`dial`).

use super::TransportError;
use crate::clock;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

/// RFC 8305 §5: Connection Attempt Delay.
const STAGGER: Duration = Duration::from_millis(250);

/// When all is silent so long after the last target began, the first one gets another attempt beside: TCP repeats a lost SYN after
/// a second only (RFC 6298 §2), and few paths take so long.
const REPEAT: Duration = Duration::from_millis(400);

/// Tries the targets in order, the next one as soon as the one before has failed or `STAGGER` has passed; the first
/// success wins and the others are dropped. `more` is awaited once none is left to begin with, and brings further ones. The first
/// target is tried once more when nothing has come of any.
/// Cancel safe.
pub(super) async fn race<S, C, F>(
    targets: &[SocketAddr],
    more: impl Future<Output = Vec<SocketAddr>>,
    deadline: Instant,
    connect: C,
) -> Result<(S, SocketAddr), TransportError>
where
    C: Fn(SocketAddr) -> F,
    F: Future<Output = Result<S, (SocketAddr, io::Error)>>,
{
    let started = clock::now();
    let mut attempts = FuturesUnordered::new();
    let mut waiting = VecDeque::from(targets.to_vec());
    let (mut more, mut is_more) = (pin!(more), true);
    let mut repeat = targets.first().copied();
    let mut latest = None;
    let mut failure = None;
    loop {
        if let Some(target) = waiting.pop_front() {
            latest = Some(target);
            let attempt = connect(target);
            attempts.push(async move { attempt.await.map(|stream| (stream, target)) });
        }
        if attempts.is_empty() && !is_more {
            return Err(failure.unwrap_or(TransportError::Timeout));
        }
        tokio::select! {
            Some(outcome) = attempts.next() => match outcome {
                Ok(won) => return Ok(won),
                Err((address, error)) => failure = Some(TransportError::connecting(address, error)),
            },
            found = &mut more, if is_more && waiting.is_empty() => {
                is_more = false;
                waiting.extend(found);
            }
            () = tokio::time::sleep(STAGGER), if !waiting.is_empty() => {}
            () = tokio::time::sleep(REPEAT), if waiting.is_empty() && repeat.is_some() => waiting.extend(repeat.take()),
            () = tokio::time::sleep_until(deadline.into()) => {
                let waited = clock::now().saturating_duration_since(started);
                return Err(latest.map_or(TransportError::Timeout, |address| {
                    TransportError::ConnectTimeout { address, waited }
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No further targets.
    fn none() -> impl Future<Output = Vec<SocketAddr>> {
        std::future::ready(Vec::new())
    }

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

    /// What a connection to a target comes to.
    async fn arrive(target: Target, address: SocketAddr) -> Result<(), (SocketAddr, io::Error)> {
        target.behave().await.map_err(|kind| (address, kind.into()))
    }

    /// Races targets; returns who won and after how many milliseconds.
    async fn run(targets: &[Target], patience_ms: u64) -> (Result<usize, TransportError>, u128) {
        let addresses: Vec<SocketAddr> = (0..targets.len())
            .map(|i| SocketAddr::from(([192, 0, 2, 1], u16::try_from(i).unwrap())))
            .collect();
        let started = clock::now();
        let outcome = race(&addresses, none(), started + Duration::from_millis(patience_ms), |address| {
            arrive(targets[usize::from(address.port())], address)
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
    async fn a_lost_first_packet_costs_less_than_half_a_second() {
        let address = SocketAddr::from(([192, 0, 2, 1], 853));
        let attempts = std::cell::Cell::new(0);
        let started = clock::now();
        let connect = |_| {
            attempts.set(attempts.get() + 1);
            let behaviours = [Target::Silent, Target::Connects(20)];
            arrive(behaviours[attempts.get() - 1], address)
        };
        let won = race(&[address], none(), started + Duration::from_secs(2), connect).await;
        assert_eq!((won.unwrap().1, attempts.get()), (address, 2));
        assert!((420..=425).contains(&(clock::now() - started).as_millis()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_refuses_is_not_tried_once_more() {
        let (won, took) = run(&[Target::Refuses(10)], 2000).await;
        assert!(won.is_err() && took < 20);
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

    /// Only the third target is there.
    async fn connect_to_third(address: SocketAddr) -> Result<(), (SocketAddr, io::Error)> {
        let target = if address.port() == 2 { Target::Connects(0) } else { Target::Silent };
        target.behave().await.map_err(|kind| (address, kind.into()))
    }

    #[tokio::test(start_paused = true)]
    async fn further_targets_are_asked_for_when_none_is_left_to_begin_with() {
        let target = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let started = clock::now();
        let more = async {
            let asked_after = clock::now() - started;
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!((250..=253).contains(&asked_after.as_millis()), "{asked_after:?}");
            vec![target(2)]
        };
        let deadline = started + Duration::from_secs(2);
        let won = race(&[target(0), target(1)], more, deadline, connect_to_third).await;
        assert_eq!(won.unwrap().1, target(2));
        assert!((300..=305).contains(&(clock::now() - started).as_millis()));
    }

    #[tokio::test(start_paused = true)]
    async fn without_any_target_it_is_over_when_no_further_one_comes() {
        let connect =
            |address: SocketAddr| async move { Err::<(), _>((address, io::ErrorKind::Other.into())) };
        let deadline = clock::now() + Duration::from_secs(2);
        let outcome = race(&[], std::future::ready(Vec::new()), deadline, connect).await;
        assert!(matches!(outcome, Err(TransportError::Timeout)));
    }
}
