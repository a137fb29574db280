//! Why the gateway does not start, and what to do about it.

use crate::config::settings::QueryLog;
use crate::config::settings::dnstap::{Collector, DnstapSettings};
use crate::listener::bind::BindError;
use crate::transport::tls::TlsSetupError;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why the gateway does not start, or does not take new settings.
#[derive(Debug, Error)]
pub enum StartError {
    /// A listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The metrics page.
    #[error("cannot serve metrics: choose another [metrics] listen")]
    Metrics(#[source] BindError),
    /// A server's TLS.
    #[error("server {server}")]
    Server {
        /// Its name.
        server: String,
        /// Why.
        #[source]
        source: TlsSetupError,
    },
    /// The roots.
    #[error("cannot load the trusted roots")]
    Roots(#[source] TlsSetupError),
    /// The query log.
    #[error("cannot open the query log {path}{}", advice(.path, .source))]
    QueryLog {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The way to the collector of dnstap.
    #[error(
        "cannot send events to {collector}: put the socket of a collector, or tcp://address:port, into dnstap.output"
    )]
    Dnstap {
        /// Where it should be.
        collector: Collector,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Threads or their runtimes.
    #[error("cannot start threads")]
    Threads(#[source] io::Error),
}

impl StartError {
    /// Makes the error of a query log that cannot be opened.
    pub(crate) fn query_log(log: &QueryLog, source: io::Error) -> Self {
        let path = match log {
            QueryLog::File(path) => path.clone(),
            QueryLog::Off | QueryLog::Stdout => "stdout".into(),
        };
        Self::QueryLog { path, source }
    }

    /// Makes the error of a collector that cannot be one.
    pub(crate) fn dnstap(settings: &DnstapSettings, source: io::Error) -> Self {
        Self::Dnstap { collector: settings.collector.clone(), source }
    }
}

/// What is wrong with a path, as far as the operator can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathFault {
    /// Its directory is not there.
    Missing,
    /// What should be its directory is none.
    NotADirectory,
    /// It is a directory itself.
    IsADirectory,
    /// This user may not.
    Forbidden,
    /// Anything else.
    Other,
}

impl PathFault {
    /// Reads it from what the system said.
    pub(crate) fn of(error: &io::Error) -> Self {
        const KNOWN: [(io::ErrorKind, PathFault); 5] = [
            (io::ErrorKind::NotFound, PathFault::Missing),
            (io::ErrorKind::NotADirectory, PathFault::NotADirectory),
            (io::ErrorKind::IsADirectory, PathFault::IsADirectory),
            (io::ErrorKind::PermissionDenied, PathFault::Forbidden),
            (io::ErrorKind::ReadOnlyFilesystem, PathFault::Forbidden),
        ];
        KNOWN.into_iter().find(|(kind, _)| *kind == error.kind()).map_or(Self::Other, |(_, fault)| fault)
    }
}

/// Says what to do about a query log that cannot be opened.
fn advice(path: &Path, source: &io::Error) -> String {
    let folder = path.parent().unwrap_or(path).display();
    match PathFault::of(source) {
        PathFault::Missing => {
            format!(": the directory {folder} does not exist; make it, or put another path into log.queries")
        }
        PathFault::NotADirectory => {
            format!(": {folder} is not a directory; put another path into log.queries")
        }
        PathFault::IsADirectory => ": it is a directory; put the path of a file into log.queries".to_owned(),
        PathFault::Forbidden => format!(
            ": this user may not write there; give {folder} to the user that veildns runs as (a systemd unit with \
             LogsDirectory=veildns has /var/log/veildns), or put another path into log.queries"
        ),
        PathFault::Other => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_log_that_cannot_be_opened_says_what_to_do() {
        for (kind, expected) in [
            (io::ErrorKind::NotFound, "directory /var/log/here does not exist; make it"),
            (io::ErrorKind::PermissionDenied, "give /var/log/here to the user"),
            (io::ErrorKind::IsADirectory, "path of a file"),
            (io::ErrorKind::NotADirectory, "/var/log/here is not a directory"),
        ] {
            let log = QueryLog::File("/var/log/here/queries".into());
            let text = StartError::query_log(&log, kind.into()).to_string();
            assert!(text.contains(expected), "{text}");
        }
    }
}
