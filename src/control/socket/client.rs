//! Asks the gateway that runs: finds its socket, sends one request, reads one answer, all within a deadline; and says in
//! plain words why there is no answer. What the answer looks like to people is its caller's matter.

use super::candidates;
use super::protocol::{AnswerError, LONGEST_ANSWER, Request, decode_answer};
use crate::cli::SocketArgs;
use crate::config::error::ConfigErrors;
use crate::config::settings::ControlSocket;
use crate::control::sources;
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thiserror::Error;

/// How long the gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the gateway was not asked, or did not answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("veildns is not running, or has no control socket{}", places(.looked))]
    NotRunning {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// The file is another's.
    #[error("no permission to use {path}: it is for the user that the gateway runs as, and for root (sudo)")]
    Permission {
        /// Where.
        path: PathBuf,
    },
    /// The configuration says so.
    #[error("control.socket is off in the configuration: there is no way to the running gateway")]
    Off,
    /// It was connected to, and did not answer.
    #[error("the gateway on {path} does not answer")]
    Silent {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What it answered is of no use.
    #[error("{path}: {error}")]
    Answer {
        /// Where.
        path: PathBuf,
        /// Why; told in the same breath, so no source.
        error: AnswerError,
    },
    /// The configuration that was named is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
}

/// Says where a gateway was looked for, and what to do.
fn places(looked: &[PathBuf]) -> String {
    let mut text = String::new();
    for path in looked {
        let _ = write!(text, "\n  nobody listens on {}", path.display());
    }
    text.push_str(
        "\n  start it, or say where its socket is with --socket PATH\n  (control.socket in its configuration)",
    );
    text
}

/// The gateway's socket, wherever it may be.
#[derive(Debug)]
pub(in crate::control) struct Client {
    /// Where to look for it.
    places: Vec<PathBuf>,
}

impl Client {
    /// Finds out where to look: where the command line says, or the configuration, or the usual places.
    ///
    /// # Errors
    /// A configuration that was named and is wrong, or that turns the socket off.
    pub(in crate::control) fn new(args: &SocketArgs) -> Result<Self, ClientError> {
        if let Some(path) = &args.socket {
            return Ok(Self { places: vec![path.clone()] });
        }
        let setting = match sources::load_plain(&args.config) {
            Ok(settings) => settings.control,
            // The gateway may run on what the file was before, and we may not be allowed to read it.
            Err(_) if args.config.config.is_none() => ControlSocket::Usual,
            Err(errors) => return Err(errors.into()),
        };
        let places = candidates(&setting);
        if places.is_empty() { Err(ClientError::Off) } else { Ok(Self { places }) }
    }

    /// Asks the first gateway that listens.
    ///
    /// # Errors
    /// Nobody listens, no permission, no answer, or one that is of no use.
    pub(in crate::control) fn ask(&self, request: &Request) -> Result<Value, ClientError> {
        let deadline = crate::clock::now() + PATIENCE;
        let (path, stream) = self.connect()?;
        let answer = exchange(stream, request, deadline)
            .map_err(|source| ClientError::Silent { path: path.to_owned(), source })?;
        decode_answer(&answer).map_err(|error| ClientError::Answer { path: path.to_owned(), error })
    }

    /// Connects to the first place where somebody listens. Of several failures, one that names a gateway is told.
    fn connect(&self) -> Result<(&Path, UnixStream), ClientError> {
        let mut told = None;
        for path in &self.places {
            match connect(path) {
                Ok(stream) => return Ok((path, stream)),
                Err(error) => told = told.or(failure(path, error)),
            }
        }
        Err(told.unwrap_or_else(|| ClientError::NotRunning { looked: self.places.clone() }))
    }
}

/// Returns what a failed connection tells; None: only that nobody listens.
fn failure(path: &Path, error: io::Error) -> Option<ClientError> {
    let path = path.to_owned();
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Some(ClientError::Permission { path });
    }
    let is_nobody = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
    (!is_nobody).then_some(ClientError::Silent { path, source: error })
}

/// Connects without waiting: a socket whose queue is full is an error at once.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    socket.set_nonblocking(false)?;
    Ok(UnixStream::from(OwnedFd::from(socket)))
}

/// Sends a request and reads the line that answers it.
fn exchange(mut stream: UnixStream, request: &Request, deadline: Instant) -> io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(format!("{}\n", request.encode()).as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    while !answer.ends_with(b"\n") {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
        if answer.len() > LONGEST_ANSWER {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
}

/// Returns what is left until a deadline; nothing left is an error.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(crate::clock::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}
