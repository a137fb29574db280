//! Answers on the control socket: a few connections at once, each with one request and a deadline. What is asked is read by
//! `protocol`, answered by `report` and `kept`. It runs on the control thread; queries never wait for it.

use super::bind::SocketFile;
use super::kept;
use super::protocol::{LONGEST_REQUEST, LevelChange, Misunderstanding, Request, encode_answer};
use super::report::Inside;
use crate::telemetry::throttle::Throttle;
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 4;

/// How long a connection may take, from its request to the end of the answer.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);

/// Pause after an accept that failed for want of file descriptors or memory: at once it would fail again.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The control socket while it is served. When it is dropped the serving ends and the file goes.
#[derive(Debug)]
pub(in crate::control) struct ControlSocket {
    /// Ends the serving.
    _cancel: DropGuard,
    /// The file.
    file: SocketFile,
}

impl ControlSocket {
    /// Serves a socket on the control runtime.
    ///
    /// # Errors
    /// The runtime does not take the socket.
    pub(in crate::control) fn serve(
        listener: std::os::unix::net::UnixListener,
        file: SocketFile,
        inside: Arc<Inside>,
        control: &Handle,
    ) -> io::Result<Self> {
        let _within = control.enter();
        let listener = UnixListener::from_std(listener)?;
        let cancel = CancellationToken::new();
        let tasks = TaskTracker::new();
        let connections = tasks.clone();
        let serving = cancel.clone().run_until_cancelled_owned(accept_all(
            listener,
            inside,
            connections,
            cancel.clone(),
        ));
        tasks.spawn_on(serving, control);
        Ok(Self { _cancel: cancel.drop_guard(), file })
    }

    /// Returns where it is.
    pub(in crate::control) fn path(&self) -> &std::path::Path {
        self.file.path()
    }
}

/// Accepts connections, each in its turn when there is a place.
async fn accept_all(
    listener: UnixListener,
    inside: Arc<Inside>,
    connections: TaskTracker,
    cancel: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut throttle = Throttle::default();
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = limited(stream, Arc::clone(&inside), place);
                connections.spawn(cancel.clone().run_until_cancelled_owned(connection));
            }
            Err(error) => {
                if throttle.pass(crate::clock::now()).is_some() {
                    warn!(%error, "the control socket cannot accept connections");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers a connection within its time. May be dropped at any time.
async fn limited(stream: UnixStream, inside: Arc<Inside>, _place: OwnedSemaphorePermit) {
    match tokio::time::timeout(CONNECTION_LIMIT, connection(stream, &inside)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "control connection"),
        Err(_) => debug!("control connection took too long"),
    }
}

/// Reads the one request of a connection and answers it.
async fn connection(mut stream: UnixStream, inside: &Inside) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut line = Vec::new();
    let longest = u64::try_from(LONGEST_REQUEST).unwrap_or(u64::MAX);
    BufReader::new(reader.take(longest)).read_until(b'\n', &mut line).await?;
    let result = match line.strip_suffix(b"\n") {
        Some(line) => match Request::decode(line) {
            Ok(request) => Ok(answer(request, inside).await),
            Err(error) => Err(error),
        },
        None if line.is_empty() => return Ok(()),
        None => Err(Misunderstanding::Form("a request is one line, and not so long")),
    };
    writer.write_all(encode_answer(result).as_bytes()).await?;
    writer.shutdown().await
}

/// Does what was asked for.
async fn answer(request: Request, inside: &Inside) -> Value {
    match request {
        Request::Status => inside.report(),
        Request::Dump(name) => kept::dump(&inside.core, &name).await,
        Request::Flush(what) => kept::flush(&inside.core, &what).await,
        Request::LogLevel(change) => change_level(change, inside),
    }
}

/// Changes the log level; the line about it is written while the log lets it through.
fn change_level(change: LevelChange, inside: &Inside) -> Value {
    let before = inside.log.in_force();
    let was_heard = tracing::enabled!(tracing::Level::INFO);
    if was_heard {
        info!(before, asked = %change, "log level changes");
    }
    match change {
        LevelChange::To(level) => inside.log.set_for_now(level.into()),
        LevelChange::Reset => inside.log.set_level(inside.in_force.load().settings.log.level),
    }
    let level = inside.log.in_force();
    if !was_heard {
        info!(before, asked = %change, "log level changes");
    }
    json!({ "before": before, "level": level })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Gateway;
    use crate::config::from_text;
    use crate::control::socket::bind::bind;
    use crate::control::socket::protocol::decode_answer;
    use crate::listener::handover::Sharing;
    use crate::telemetry::counters::Telemetry;
    use crate::telemetry::logging::LogHandle;
    use std::path::{Path, PathBuf};

    /// A gateway with a control socket; its only server is a closed port.
    struct Running {
        gateway: Gateway,
        socket: ControlSocket,
        folder: tempfile::TempDir,
    }

    impl Running {
        fn start(control: &Handle) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let text = "listen = [\"127.0.0.1:0\"]\nupstreams = [\"tls://127.0.0.1:1\"]\nworkers = 1";
            let settings = from_text(text, folder.path()).unwrap();
            let gateway = Gateway::start(settings, Telemetry::new(), control).unwrap();
            let (listener, file) = bind(&folder.path().join("s"), Sharing::Nobody).unwrap();
            let inside = Arc::new(Inside::new(&gateway, LogHandle::default()));
            let socket = ControlSocket::serve(listener, file, inside, control).unwrap();
            Self { gateway, socket, folder }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("s")
        }

        async fn stop(self) {
            drop(self.socket);
            let gateway = self.gateway;
            tokio::task::spawn_blocking(move || gateway.stop(Duration::from_secs(5))).await.unwrap();
        }
    }

    /// Sends octets and returns all that comes back.
    async fn ask(path: &Path, octets: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(path).await.unwrap();
        // The other end may close before it has read everything.
        let _ = stream.write_all(octets).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn status_flush_and_nonsense_are_answered_in_one_line() {
        let running = Running::start(&Handle::current());
        let answer = ask(&running.path(), b"{\"veildns\":1,\"do\":\"status\"}\n").await;
        let status = decode_answer(&answer).unwrap();
        assert_eq!(status["state"], "serving");
        assert_eq!(status["upstreams"][0]["name"], "tls://127.0.0.1:1");
        assert_eq!(status["groups"][0]["upstreams"][0], "tls://127.0.0.1:1");
        let flushed = ask(&running.path(), b"{\"veildns\":1,\"do\":\"cache-flush\"}\n").await;
        assert_eq!(decode_answer(&flushed).unwrap()["removed"], 0);
        for nonsense in [&b"GET / HTTP/1.1\r\n"[..], b"\n", b"{\"veildns\":2}\n", &[b'x'; 100_000]] {
            let answer = ask(&running.path(), nonsense).await;
            assert!(answer.is_empty() || decode_answer(&answer).is_err(), "{answer:?}");
            assert!(answer.iter().filter(|octet| **octet == b'\n').count() <= 1);
        }
        running.stop().await;
    }

    #[tokio::test]
    async fn those_who_say_nothing_give_their_places_back() {
        let running = Running::start(&Handle::current());
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(UnixStream::connect(running.path()).await.unwrap());
        }
        let path = running.path();
        // One who goes away makes room for one who waits.
        let status = ask(&path, b"{\"veildns\":1,\"do\":\"status\"}\n");
        let (answer, ()) = tokio::join!(status, async { drop(silent.pop()) });
        assert!(decode_answer(&answer).is_ok());
        drop(silent);
        running.stop().await;
    }

    #[tokio::test]
    async fn the_file_goes_with_the_socket() {
        let running = Running::start(&Handle::current());
        let path = running.path();
        assert!(path.exists());
        running.stop().await;
        assert!(!path.exists());
    }
}
