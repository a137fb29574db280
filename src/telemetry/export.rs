//! The metrics page over HTTP: `/metrics` in the text format of Prometheus, `/health`, `/ready`. What it reads beside the
//! counters comes in as plain data. It has no TLS and no passwords: it is bound to where only the operator can reach it.

use super::counters::Telemetry;
use super::page;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 16;
/// How long a request may take to come.
const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection may take as a whole: it carries one request.
const CONNECTION_LIMIT: Duration = Duration::from_secs(30);
/// Pause after an accept that failed for want of file descriptors or memory: at once it would fail again.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// What a request may be long; those that we know are a few hundred octets.
const REQUEST_OCTETS: usize = 16 * 1024;

/// Values of other layers at this moment.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// Memory of cached answers.
    pub cache_bytes: u64,
    /// Cached answers.
    pub cache_entries: u64,
    /// Queries that wait.
    pub inflight: u64,
    /// The servers in use.
    pub upstreams: Vec<UpstreamReading>,
    /// False until the listeners are bound, and again while stopping.
    pub ready: bool,
}

/// One server at this moment.
#[derive(Clone, Debug, Default)]
pub struct UpstreamReading {
    /// Its name.
    pub name: String,
    /// Whether it is used.
    pub up: bool,
    /// Open connections.
    pub connections: u64,
    /// TLS handshakes from nothing.
    pub handshakes_full: u64,
    /// TLS handshakes that resumed a session.
    pub handshakes_resumed: u64,
}

/// Reads them. Implemented by `app`.
pub trait Gauges: Send + Sync {
    /// Returns the values at this moment. Quick: it is called in the middle of other work.
    fn read(&self) -> Readings;
}

/// Serves the page on `listener` until `cancel`; bounded connections, deadlines on reads. When it returns, every
/// connection has ended.
pub async fn serve(
    listener: TcpListener,
    telemetry: Arc<Telemetry>,
    gauges: Arc<dyn Gauges>,
    cancel: CancellationToken,
) {
    let site = Site { telemetry, gauges };
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let accepting = async {
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let stream = accept(&listener).await;
            let connection = site.clone().connection(stream, place);
            connections.spawn(cancel.clone().run_until_cancelled_owned(connection));
        }
    };
    cancel.run_until_cancelled(accepting).await;
    connections.close();
    connections.wait().await;
}

/// Returns the next connection, however long errors last. Cancel safe.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // The client went away before it was accepted.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                warn!(%error, "the metrics page cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What answers requests.
#[derive(Clone)]
struct Site {
    /// The counters.
    telemetry: Arc<Telemetry>,
    /// Values of other layers.
    gauges: Arc<dyn Gauges>,
}

impl Site {
    /// Answers the one request of a connection. May be dropped at any time.
    async fn connection(self, stream: TcpStream, _place: OwnedSemaphorePermit) {
        let service = service_fn(move |request: Request<Incoming>| {
            let response = self.answer(request.method(), request.uri().path());
            async move { Ok::<_, Infallible>(response) }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_LIMIT)
            // A scrape every few seconds gains nothing from a connection that is kept, and kept ones would fill the places.
            .keep_alive(false)
            .max_buf_size(REQUEST_OCTETS)
            .serve_connection(TokioIo::new(stream), service);
        match tokio::time::timeout(CONNECTION_LIMIT, serving).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "metrics connection"),
            Err(_) => debug!("metrics connection took too long"),
        }
    }

    /// Answers one request.
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        const TEXT: &str = "text/plain; charset=utf-8";
        let page = match path {
            "/metrics" | "/health" | "/ready" if *method != Method::GET && *method != Method::HEAD => {
                let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n");
                refusal.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
                return refusal;
            }
            "/metrics" => page::text(&self.telemetry, self.gauges.read()),
            "/health" => return response(StatusCode::OK, TEXT, "alive\n"),
            "/ready" if self.gauges.read().ready => return response(StatusCode::OK, TEXT, "ready\n"),
            "/ready" => return response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready\n"),
            _ => return response(StatusCode::NOT_FOUND, TEXT, "see /metrics, /health, /ready\n"),
        };
        match page {
            Ok(text) => response(StatusCode::OK, page::CONTENT_TYPE, text),
            Err(_) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the page cannot be written\n"),
        }
    }
}

/// Makes a response.
fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
