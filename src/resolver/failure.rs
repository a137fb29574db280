//! The one table from what went wrong to what the client is told: rcode and Extended DNS Error (RFC 8914), so that
//! `dig` shows why.

use crate::transport::{Blame, TransportError};
use crate::wire::ede::{Ede, EdeCode};
use crate::wire::header::Rcode;
use crate::wire::response::ResponseFault;
use std::borrow::Cow;
use std::fmt::Write;

/// Why one attempt came to nothing.
#[derive(Clone, Debug)]
pub(super) enum Cause {
    /// The exchange failed.
    Transport(TransportError),
    /// Octets came, but no answer to our question.
    Invalid(ResponseFault),
    /// The server said FORMERR or another rcode that is no answer.
    Rcode(Rcode),
    /// No answer within the attempt's time.
    TimedOut,
    /// No connection within the attempt's time.
    NotConnected,
}

/// Why a query gets no answer.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// Every attempt failed; the causes by server, in order.
    Attempts(Vec<(String, Cause)>),
    /// Our own bound: too many queries wait.
    Overloaded,
    /// Too many clients wait for this very name.
    TooManyWaiters,
    /// We are stopping.
    Stopping,
}

/// Longest EXTRA-TEXT we write: a reply without EDNS options of the client's must still fit 512 octets.
const MAX_TEXT: usize = 200;

impl Failure {
    /// Returns the rcode of the reply.
    pub(super) fn rcode(&self) -> Rcode {
        Rcode::SERVFAIL
    }

    /// Returns true when the failure is about the name or the servers, so that asking again at once is of no use
    /// (RFC 9520 §2). Our own bounds are not.
    pub(super) fn is_cacheable(&self) -> bool {
        match self {
            Self::Attempts(causes) => !causes.is_empty() && !causes.iter().all(|(_, cause)| cause.is_ours()),
            Self::Overloaded | Self::TooManyWaiters | Self::Stopping => false,
        }
    }

    /// Returns what the reply's EDE option says.
    pub(super) fn ede(&self) -> Ede {
        match self {
            Self::Attempts(causes) => Ede { code: code_of(causes), text: text_of(causes) },
            Self::Overloaded => {
                Ede::new(EdeCode::OTHER, "overloaded: too many queries wait for upstream servers")
            }
            Self::TooManyWaiters => {
                Ede::new(EdeCode::OTHER, "overloaded: too many clients wait for this name")
            }
            Self::Stopping => Ede::new(EdeCode::NOT_READY, "stopping"),
        }
    }
}

/// What a reply from the failure cache says (RFC 9520, RFC 8914 §4.14).
pub(super) static CACHED: Ede =
    Ede::new(EdeCode::CACHED_ERROR, "asked a moment ago without success; retried soon");

/// What an answer about a time server's name says that was given although no server's certificate fits the clock.
pub(super) static DATES_OVERLOOKED: Ede = Ede::new(
    EdeCode::OTHER,
    "the clock does not fit the servers' certificates: their dates were overlooked, for this time server's name only",
);

impl Cause {
    /// Returns true when a certificate was refused for its dates: the clock may be wrong.
    pub(super) fn is_about_dates(&self) -> bool {
        match self {
            Self::Transport(error) => error.is_about_dates(),
            Self::Invalid(_) | Self::Rcode(_) | Self::TimedOut | Self::NotConnected => false,
        }
    }

    /// Returns the INFO-CODE that tells this cause best. A server that cannot prove who it is was not reached: the fault
    /// may be its own, or somebody stands in its place.
    fn code(&self) -> EdeCode {
        match self {
            Self::Transport(
                TransportError::Tls { .. }
                | TransportError::Certificate { .. }
                | TransportError::Clock(_)
                | TransportError::Pin,
            ) => EdeCode::NO_REACHABLE_AUTHORITY,
            Self::Transport(error) => match error.blame() {
                Blame::Path => EdeCode::NO_REACHABLE_AUTHORITY,
                Blame::Server => EdeCode::NETWORK_ERROR,
                Blame::Us => EdeCode::OTHER,
                // We are stopping, or the server is being put away.
                Blame::Nobody => EdeCode::NOT_READY,
            },
            Self::NotConnected => EdeCode::NO_REACHABLE_AUTHORITY,
            Self::Invalid(_) | Self::Rcode(_) | Self::TimedOut => EdeCode::NETWORK_ERROR,
        }
    }

    /// Returns true for our own bounds: they say nothing about the name or the server.
    fn is_ours(&self) -> bool {
        match self {
            Self::Transport(error) => matches!(error.blame(), Blame::Us | Blame::Nobody),
            Self::Invalid(_) | Self::Rcode(_) | Self::TimedOut | Self::NotConnected => false,
        }
    }
}

/// Returns the code of the whole: an answer that could not be used says more than a server that could not be reached.
fn code_of(causes: &[(String, Cause)]) -> EdeCode {
    let codes = || causes.iter().map(|(_, cause)| cause.code());
    [EdeCode::NETWORK_ERROR, EdeCode::NO_REACHABLE_AUTHORITY]
        .into_iter()
        .find(|wanted| codes().any(|code| code == *wanted))
        .or_else(|| codes().next())
        .unwrap_or(EdeCode::NO_REACHABLE_AUTHORITY)
}

/// Returns one line for people: each server and what became of it.
fn text_of(causes: &[(String, Cause)]) -> Cow<'static, str> {
    let mut text = String::new();
    for (server, cause) in causes {
        let separator = if text.is_empty() { "" } else { "; " };
        let written = match cause {
            Cause::Transport(error @ TransportError::Certificate { error: why })
                if error.is_about_dates() =>
            {
                // With both times in it: of the certificate, and of the clock.
                write!(text, "{separator}{server}: {why}")
            }
            Cause::Transport(error) => write!(text, "{separator}{server}: {error}"),
            Cause::Invalid(fault) => write!(text, "{separator}{server}: invalid answer: {fault}"),
            Cause::Rcode(rcode) => write!(text, "{separator}{server}: {rcode}"),
            Cause::TimedOut => write!(text, "{separator}{server}: no answer in time"),
            Cause::NotConnected => write!(text, "{separator}{server}: no connection in time"),
        };
        if written.is_err() || text.len() > MAX_TEXT {
            break;
        }
    }
    if text.is_empty() {
        return Cow::Borrowed("no upstream server could be asked");
    }
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::Arc;

    fn refused() -> Cause {
        Cause::Transport(TransportError::Connect {
            address: "192.0.2.1:853".parse().unwrap(),
            error: Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused)),
        })
    }

    #[test]
    fn unreachable_servers_are_told_apart_from_useless_answers() {
        let unreachable = Failure::Attempts(vec![("a".into(), refused()), ("b".into(), refused())]);
        assert_eq!(unreachable.ede().code, EdeCode::NO_REACHABLE_AUTHORITY);
        let mixed = Failure::Attempts(vec![("a".into(), refused()), ("b".into(), Cause::TimedOut)]);
        assert_eq!(mixed.ede().code, EdeCode::NETWORK_ERROR);
        assert_eq!(mixed.ede().text, "a: cannot connect to 192.0.2.1:853; b: no answer in time");
    }

    #[test]
    fn a_server_that_cannot_prove_who_it_is_was_not_reached() {
        let impostor = Failure::Attempts(vec![("a".into(), Cause::Transport(TransportError::Pin))]);
        assert_eq!(impostor.ede().code, EdeCode::NO_REACHABLE_AUTHORITY);
    }

    #[test]
    fn who_waits_for_a_connection_when_we_stop_is_told_that_we_stop() {
        let cause = |error| vec![("a".to_owned(), Cause::Transport(error))];
        assert_eq!(Failure::Attempts(cause(TransportError::ShuttingDown)).ede().code, EdeCode::NOT_READY);
        assert_eq!(Failure::Attempts(cause(TransportError::Overloaded)).ede().code, EdeCode::OTHER);
    }

    #[test]
    fn the_text_stays_short_and_is_cut_at_a_character() {
        let causes = (0..50).map(|n| (format!("sérver{n}"), Cause::TimedOut)).collect();
        let text = Failure::Attempts(causes).ede().text;
        assert!(text.len() <= MAX_TEXT && text.len() > MAX_TEXT - 4);
    }

    #[test]
    fn our_own_bounds_are_not_remembered_as_failures_of_the_name() {
        assert!(!Failure::Overloaded.is_cacheable());
        assert!(
            !Failure::Attempts(vec![("a".into(), Cause::Transport(TransportError::Overloaded))])
                .is_cacheable()
        );
        assert!(Failure::Attempts(vec![("a".into(), Cause::TimedOut)]).is_cacheable());
    }
}
