//! The metrics page over HTTP: `/metrics` in the text format of Prometheus, `/health`, `/ready`. What it reads beside the
//! counters comes in as plain data. It has no TLS and no passwords: it is bound to where only the operator can reach it.

use super::bounds::BoundReading;
use super::counters::Telemetry;
use super::exposition::Format;
use super::page;
use super::throttle::Throttle;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
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
    /// What they may take.
    pub cache_max_bytes: u64,
    /// Cached answers.
    pub cache_entries: u64,
    /// True while this machine's clock says a time that is past for certain.
    pub clock_wrong: bool,
    /// Queries that wait.
    pub inflight: u64,
    /// How full the bounds are that can be filled.
    pub bounds: Vec<BoundReading>,
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
    let mut throttle = Throttle::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // The client went away before it was accepted.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if throttle.pass(crate::clock::now()).is_some() {
                    warn!(%error, "the metrics page cannot accept connections");
                }
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
            let response = self.answer(&request);
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
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        const TEXT: &str = "text/plain; charset=utf-8";
        let (method, format) = (request.method(), wanted_format(request.headers()));
        let page = match request.uri().path() {
            "/metrics" | "/health" | "/ready" if *method != Method::GET && *method != Method::HEAD => {
                let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n");
                refusal.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
                return refusal;
            }
            "/metrics" => page::text(&self.telemetry, self.gauges.read(), format),
            "/health" => return response(StatusCode::OK, TEXT, "alive\n"),
            "/ready" if self.gauges.read().ready => return response(StatusCode::OK, TEXT, "ready\n"),
            "/ready" => return response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready\n"),
            _ => return response(StatusCode::NOT_FOUND, TEXT, "see /metrics, /health, /ready\n"),
        };
        match page {
            Ok(text) => response(StatusCode::OK, format.content_type(), text),
            Err(_) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the page cannot be written\n"),
        }
    }
}

/// Returns OpenMetrics for those who say that they read it, as Prometheus does, and the older format for all others.
fn wanted_format(headers: &HeaderMap) -> Format {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = accepted.flat_map(|value| value.split(','));
    let reads = |range: &str| {
        let essence = range.split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case("application/openmetrics-text")
    };
    if ranges.any(reads) { Format::OpenMetrics } else { Format::Prometheus }
}

/// Makes a response.
fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    /// A gateway that is ready when it is told so.
    #[derive(Default)]
    struct Switch(AtomicBool);

    impl Gauges for Switch {
        fn read(&self) -> Readings {
            Readings { ready: self.0.load(Ordering::Relaxed), ..Readings::default() }
        }
    }

    /// A running page.
    struct Running {
        address: SocketAddr,
        ready: Arc<Switch>,
        cancel: CancellationToken,
        tasks: TaskTracker,
    }

    impl Running {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (ready, cancel, tasks) =
                (Arc::new(Switch::default()), CancellationToken::new(), TaskTracker::new());
            let gauges: Arc<dyn Gauges> = Arc::<Switch>::clone(&ready);
            tasks.spawn(serve(listener, Telemetry::new(), gauges, cancel.clone()));
            tasks.close();
            Self { address, ready, cancel, tasks }
        }

        /// Sends a request and returns all that comes back.
        async fn request(&self, line: &str) -> String {
            self.request_with(line, "").await
        }

        /// As `request`, with more header lines.
        async fn request_with(&self, line: &str, headers: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        }
    }

    #[tokio::test]
    async fn the_page_is_served_as_openmetrics_to_those_who_read_it() {
        let running = Running::start().await;
        let accept = "Accept: text/plain;q=0.5, Application/OpenMetrics-Text;version=1.0.0\r\n";
        let answer = running.request_with("GET /metrics", accept).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"));
        assert!(head.contains("connection: close"));
        assert!(body.starts_with("# HELP veildns_") && body.ends_with("\n# EOF\n"));
    }

    #[tokio::test]
    async fn the_page_is_served_in_the_text_format_of_prometheus_to_all_others() {
        let running = Running::start().await;
        for accept in ["", "Accept: */*\r\n", "Accept: text/plain;version=0.0.4\r\n"] {
            let answer = running.request_with("GET /metrics", accept).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
            let lines: Vec<&str> = body.lines().collect();
            let expected = [
                "# TYPE veildns_queries_total counter",
                "# TYPE veildns_query_duration_seconds histogram",
                "# TYPE veildns_build_info gauge",
                "# TYPE process_start_time_seconds gauge",
                "veildns_queries_total{transport=\"udp\"} 0",
            ];
            assert!(expected.iter().all(|line| lines.contains(line)), "{body}");
            assert!(lines.iter().any(|line| line.starts_with("# HELP veildns_queries_total ")));
            assert!(lines.iter().all(|line| !line.starts_with("# UNIT") && *line != "# EOF"));
        }
    }

    #[tokio::test]
    async fn head_gets_the_head_alone() {
        let running = Running::start().await;
        let answer = running.request("HEAD /metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn ready_follows_the_gateway_and_health_does_not() {
        let running = Running::start().await;
        assert!(running.request("GET /ready").await.starts_with("HTTP/1.1 503 "));
        running.ready.0.store(true, Ordering::Relaxed);
        assert!(running.request("GET /ready").await.starts_with("HTTP/1.1 200 "));
        running.ready.0.store(false, Ordering::Relaxed);
        assert!(running.request("GET /ready").await.starts_with("HTTP/1.1 503 "));
        assert!(running.request("GET /health").await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn other_pages_are_not_found_and_other_methods_not_allowed() {
        let running = Running::start().await;
        assert!(running.request("GET /").await.starts_with("HTTP/1.1 404 "));
        assert!(running.request("POST /nothing").await.starts_with("HTTP/1.1 404 "));
        let refusal = running.request("POST /metrics").await;
        assert!(refusal.starts_with("HTTP/1.1 405 ") && refusal.contains("allow: GET, HEAD"), "{refusal}");
    }

    #[tokio::test(start_paused = true)]
    async fn silent_connections_take_every_place_and_are_thrown_out() {
        let running = Running::start().await;
        let begun = Instant::now();
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(TcpStream::connect(running.address).await.unwrap());
        }
        let answer = running.request("GET /health").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(begun.elapsed() >= HEADER_LIMIT, "there was a place too many");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_trickles_in_is_not_waited_for() {
        let running = Running::start().await;
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(!text.contains("veildns_"));
    }

    #[tokio::test]
    async fn a_huge_request_is_refused() {
        let running = Running::start().await;
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        let head = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(REQUEST_OCTETS));
        // The page may close before it has read everything.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut octets = Vec::new();
        let _ = stream.read_to_end(&mut octets).await;
        assert!(!String::from_utf8_lossy(&octets).contains(" 200 "));
    }

    #[tokio::test]
    async fn cancelling_ends_connections_too() {
        let running = Running::start().await;
        let mut open = TcpStream::connect(running.address).await.unwrap();
        // Accepted in order: when this one was answered, that one is in its place.
        running.request("GET /health").await;
        running.cancel.cancel();
        running.tasks.wait().await;
        let mut octets = Vec::new();
        assert_eq!(open.read_to_end(&mut octets).await.unwrap_or(0), 0);
    }
}
