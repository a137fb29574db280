//! Sends traces to a collector, OTLP over HTTP (OpenTelemetry Protocol 1.x): several flights in one request, over one
//! connection that is kept. A collector that is away is asked again for a while; what it does not take is dropped and
//! counted. One task, bounded waits, and no look-up of names. How a connection is opened is the caller's matter, what is
//! in a trace that of `spans`.

use super::facts::EndedFlight;
use super::spans::{self, Anchor};
use super::{Counts, Intake};
use crate::config::otel::{Collector, TraceSettings};
use crate::telemetry::throttle::Throttle;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use std::fmt::Debug;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{info, warn};

/// Flights that are sent together at most.
const MOST_FLIGHTS: usize = 256;
/// How long a flight waits for others, to be sent with them.
const GATHER: Duration = Duration::from_secs(2);
/// How long one request may take, opening a connection included.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// How long flights that the collector does not take are kept.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause after the first request in vain; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// What a collector's reply may be long.
const REPLY_OCTETS: usize = 64 * 1024;
/// What requests are written in.
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
/// Who sends them.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("veildns/", env!("CARGO_PKG_VERSION")));

/// Opens connections to the collector.
pub trait Dial: Send + Sync {
    /// What it opens.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    /// Opens one. Cancel safe.
    fn dial(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Why a collector did not take traces.
#[derive(Debug, Error)]
enum ExportError {
    /// No connection.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The connection failed, or what came is no HTTP.
    #[error("the connection failed")]
    Http(#[source] hyper::Error),
    /// The reply's body was too long or broke off.
    #[error("the reply cannot be read")]
    Reply(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No reply in time.
    #[error("no reply within {REQUEST_LIMIT:?}")]
    Timeout,
    /// It says no, or not now.
    #[error("HTTP status {status}")]
    Status {
        /// The code.
        status: StatusCode,
        /// When it may be asked again, if it says so.
        retry_after: Option<Duration>,
    },
    /// It took some of it only.
    #[error("{spans} spans were refused: {reason}")]
    Partly {
        /// How many it did not take.
        spans: i64,
        /// What it says.
        reason: String,
    },
}

impl ExportError {
    /// Returns true when the same request may succeed later (OTLP specification, "Failures").
    fn is_passing(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Http(_) | Self::Reply(_) | Self::Timeout => true,
            Self::Status { status, .. } => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            Self::Partly { .. } => false,
        }
    }

    /// Returns how long the collector wants to be left alone.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Connect(_) | Self::Http(_) | Self::Reply(_) | Self::Timeout | Self::Partly { .. } => None,
        }
    }
}

/// Sends what comes from `intake` until traces are switched off or go elsewhere, and then what it still has.
pub async fn run(intake: Intake, settings: TraceSettings, dial: impl Dial) {
    let resource = Resource {
        attributes: vec![
            spans::text("service.name", &settings.service_name),
            spans::text("service.version", env!("CARGO_PKG_VERSION")),
        ],
        ..Resource::default()
    };
    let mut sender = Sender {
        intake,
        collector: settings.collector,
        resource,
        dial,
        link: None,
        failing: false,
        throttle: Throttle::default(),
    };
    while let Some(flights) = sender.gather().await {
        sender.deliver(&flights).await;
    }
}

/// The task's state.
struct Sender<D: Dial> {
    /// Where traces come from.
    intake: Intake,
    /// Who takes them.
    collector: Collector,
    /// Who sends them.
    resource: Resource,
    /// Opens connections.
    dial: D,
    /// The connection, if one is open.
    link: Option<Link<D::Stream>>,
    /// The latest traces were not taken: it is logged once, not for every request.
    failing: bool,
    /// A collector that fails by turns would be logged at every turn.
    throttle: Throttle,
}

impl<D: Dial> Sender<D> {
    /// Waits for flights to be sent together; None when there will be no more.
    async fn gather(&mut self) -> Option<Vec<EndedFlight>> {
        let mut flights = vec![self.intake.queue.recv().await?];
        let deadline = crate::clock::now() + GATHER;
        while flights.len() < MOST_FLIGHTS {
            match tokio::time::timeout_at(deadline.into(), self.intake.queue.recv()).await {
                Ok(Some(flight)) => flights.push(flight),
                // The time is over, or it is time to go.
                Ok(None) | Err(_) => break,
            }
        }
        Some(flights)
    }

    /// Sends flights, again and again while there is hope and time.
    async fn deliver(&mut self, flights: &[EndedFlight]) {
        let body = self.body(flights);
        let deadline = crate::clock::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        let result = loop {
            let error = match self.request(body.clone()).await {
                Ok(()) => break Ok(()),
                Err(error) => error,
            };
            let wait = pause.max(error.retry_after().unwrap_or_default()).min(PATIENCE);
            // When it is time to go, nothing is waited for.
            let is_last = self.intake.queue.is_closed() || crate::clock::now() + wait >= deadline;
            if is_last || !error.is_passing() {
                break Err(error);
            }
            self.tell_failure(&error);
            tokio::time::sleep(wait).await;
            pause *= 2;
        };
        self.count(flights.len(), result.as_ref().err());
        match result {
            Ok(()) => self.tell_success(),
            Err(error) => self.tell_failure(&error),
        }
    }

    /// Counts flights that are done with.
    fn count(&self, flights: usize, error: Option<&ExportError>) {
        let Counts { sent, dropped } = &*self.intake.counts;
        // Of what was taken in part it is not said which.
        let taken = error.is_none_or(|error| matches!(error, ExportError::Partly { .. }));
        let counter = if taken { sent } else { dropped };
        counter.fetch_add(u64::try_from(flights).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Makes the body of a request.
    fn body(&self, flights: &[EndedFlight]) -> Bytes {
        let anchor = Anchor { now: crate::clock::now(), wall: crate::clock::wall() };
        let mut all: Vec<Span> = Vec::with_capacity(flights.len() * 8);
        for flight in flights {
            spans::append(&mut all, flight, anchor);
        }
        let scope = InstrumentationScope {
            name: "veildns".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let scope_spans = ScopeSpans { scope: Some(scope), spans: all, ..ScopeSpans::default() };
        let resource_spans = ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans: vec![scope_spans],
            ..ResourceSpans::default()
        };
        ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec().into()
    }

    /// Sends one request. A kept connection that has died meanwhile is replaced once.
    async fn request(&mut self, body: Bytes) -> Result<(), ExportError> {
        let deadline = crate::clock::now() + REQUEST_LIMIT;
        if let Some(link) = self.link.take() {
            match self.over(link, body.clone(), deadline).await {
                Err(ExportError::Http(_)) => {}
                result => return result,
            }
        }
        let link = within(deadline, Link::open(&self.dial)).await?;
        self.over(link, body, deadline).await
    }

    /// Sends one request over a connection, which is kept if it may be used again.
    async fn over(
        &mut self,
        mut link: Link<D::Stream>,
        body: Bytes,
        deadline: Instant,
    ) -> Result<(), ExportError> {
        let reply = within(deadline, link.post(&self.collector, body)).await?;
        if !link.requests.is_closed() {
            self.link = Some(link);
        }
        judge(&reply)
    }

    /// Says that the collector takes nothing, once.
    fn tell_failure(&mut self, error: &ExportError) {
        if !std::mem::replace(&mut self.failing, true)
            && let Some(unsaid) = self.throttle.pass(crate::clock::now())
        {
            let unsaid = (unsaid > 0).then_some(unsaid);
            let cause = std::error::Error::source(error).map(tracing::field::display);
            warn!(collector = %self.collector, %error, cause, unsaid, "the collector does not take traces");
        }
    }

    /// Says that the collector takes traces again.
    fn tell_success(&mut self) {
        if std::mem::take(&mut self.failing) {
            info!(collector = %self.collector, "the collector takes traces again");
        }
    }
}

/// A connection to the collector.
struct Link<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> {
    /// Takes requests.
    requests: SendRequest<Full<Bytes>>,
    /// Does the work; polled only while a request is under way.
    connection: Connection<TokioIo<S>, Full<Bytes>>,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Link<S> {
    /// Opens one.
    async fn open(dial: &impl Dial<Stream = S>) -> Result<Self, ExportError> {
        let stream = dial.dial().await.map_err(ExportError::Connect)?;
        let (requests, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(ExportError::Http)?;
        Ok(Self { requests, connection })
    }

    /// Posts a body and reads the whole reply.
    async fn post(&mut self, collector: &Collector, body: Bytes) -> Result<Response<Bytes>, ExportError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = collector.path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::try_from(collector.address.to_string()) {
            headers.insert(HOST, host);
        }
        headers.insert(CONTENT_TYPE, PROTOBUF);
        headers.insert(USER_AGENT, AGENT);
        let sending = self.requests.send_request(request);
        let exchange = async {
            let (head, body) = sending.await.map_err(ExportError::Http)?.into_parts();
            let body = Limited::new(body, REPLY_OCTETS).collect().await;
            let body = body.map_err(ExportError::Reply)?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        tokio::select! {
            biased;
            reply = exchange => reply,
            Err(error) = &mut self.connection => Err(ExportError::Http(error)),
        }
    }
}

/// Judges a reply.
fn judge(reply: &Response<Bytes>) -> Result<(), ExportError> {
    let status = reply.status();
    if !status.is_success() {
        let retry_after = reply.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        return Err(ExportError::Status { status, retry_after });
    }
    // Some collectors answer with JSON or nothing: taken is taken.
    let reply = ExportTraceServiceResponse::decode(reply.body().clone()).unwrap_or_default();
    match reply.partial_success.filter(|partly| partly.rejected_spans > 0) {
        Some(partly) => {
            Err(ExportError::Partly { spans: partly.rejected_spans, reason: partly.error_message })
        }
        None => Ok(()),
    }
}

/// Waits for something until `deadline`.
async fn within<T>(
    deadline: Instant,
    work: impl Future<Output = Result<T, ExportError>>,
) -> Result<T, ExportError> {
    tokio::time::timeout_at(deadline.into(), work).await.unwrap_or(Err(ExportError::Timeout))
}

#[cfg(test)]
mod tests {
    use super::super::Traces;
    use super::super::facts::QueryFacts;
    use super::*;
    use crate::config::settings::Settings;
    use crate::telemetry::outcome::{Outcome, Source};
    use crate::wire::header::Rcode;
    use crate::wire::query::ClientTransport;
    use crate::wire::question::RecordType;
    use hyper::body::Incoming;
    use hyper::server::conn::http1 as server;
    use hyper::service::service_fn;
    use std::collections::VecDeque;
    use std::path::Path;
    use std::sync::{Arc, Mutex};
    use tokio::io::DuplexStream;
    use tokio::time::Instant;
    use tokio_util::task::TaskTracker;

    /// What the collector does with a request.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Deed {
        Take,
        Say(u16),
        Partly(i64),
        Hang,
        TakeAndClose,
    }

    /// A collector in this process.
    #[derive(Clone, Default)]
    struct Fake {
        deeds: Arc<Mutex<VecDeque<Deed>>>,
        taken: Arc<Mutex<Vec<(Instant, ExportTraceServiceRequest)>>>,
        connections: Arc<Mutex<usize>>,
        is_away: Arc<Mutex<bool>>,
        tasks: TaskTracker,
    }

    impl Fake {
        fn doing(deeds: &[Deed]) -> Self {
            Self { deeds: Arc::new(Mutex::new(deeds.iter().copied().collect())), ..Self::default() }
        }

        /// Reads a request, which must be what the protocol says, and does what the script says.
        async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
            let at = Instant::now();
            assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/traces"));
            assert_eq!(request.headers()[CONTENT_TYPE], "application/x-protobuf");
            assert_eq!(request.headers()[HOST], "192.0.2.9:4318");
            let body = request.into_body().collect().await?.to_bytes();
            let deed = self.deeds.lock().unwrap().pop_front().unwrap_or(Deed::Take);
            let mut reply = ExportTraceServiceResponse::default();
            let mut status = StatusCode::OK;
            match deed {
                Deed::Take | Deed::TakeAndClose => {}
                Deed::Say(code) => status = StatusCode::from_u16(code).unwrap(),
                Deed::Partly(rejected_spans) => {
                    let partly =
                        opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess {
                            rejected_spans,
                            error_message: "too long".to_owned(),
                        };
                    reply.partial_success = Some(partly);
                }
                Deed::Hang => std::future::pending().await,
            }
            if status.is_success() {
                self.taken.lock().unwrap().push((at, ExportTraceServiceRequest::decode(body).unwrap()));
            }
            let mut response = Response::new(Full::new(reply.encode_to_vec().into()));
            *response.status_mut() = status;
            if deed == Deed::TakeAndClose {
                response.headers_mut().insert("connection", HeaderValue::from_static("close"));
            }
            Ok(response)
        }

        /// How many flights each request had.
        fn batches(&self) -> Vec<usize> {
            let roots = |request: &ExportTraceServiceRequest| {
                let spans = &request.resource_spans[0].scope_spans[0].spans;
                spans.iter().filter(|span| span.parent_span_id.is_empty()).count()
            };
            self.taken.lock().unwrap().iter().map(|(_, request)| roots(request)).collect()
        }
    }

    impl Dial for Fake {
        type Stream = DuplexStream;

        async fn dial(&self) -> io::Result<DuplexStream> {
            if *self.is_away.lock().unwrap() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            *self.connections.lock().unwrap() += 1;
            let (near, far) = tokio::io::duplex(64 * 1024);
            let collector = self.clone();
            let service = service_fn(move |request| collector.clone().answer(request));
            self.tasks.spawn(async move {
                let _ = server::Builder::new().serve_connection(TokioIo::new(far), service).await;
            });
            Ok(near)
        }
    }

    /// Traces on their way to a collector.
    struct Rig {
        traces: Traces,
        sending: tokio::task::JoinHandle<()>,
    }

    impl Rig {
        fn start(collector: &Fake) -> Self {
            let text = "[otel]\ntraces = true\nendpoint = \"http://192.0.2.9\"\nservice_name = \"lab\"";
            let settings: Settings = crate::config::from_text(text, Path::new("")).unwrap();
            let settings = settings.traces.unwrap();
            let traces = Traces::default();
            let intake = traces.open(&settings, 1000);
            let sending = collector.tasks.spawn(run(intake, settings, collector.clone()));
            Self { traces, sending }
        }

        /// Hands over a flight.
        fn flight(&self) {
            let now = crate::clock::now();
            let mut facts = self.traces.begin().unwrap();
            let outcome = Outcome {
                source: Source::Upstream,
                rcode: Rcode::NOERROR,
                ede: None,
                transport: ClientTransport::Udp,
                duration: None,
            };
            facts.replied(QueryFacts { received: now, replied: now, outcome });
            self.traces.send(EndedFlight {
                facts,
                group: "default".to_owned(),
                name: None,
                record_type: RecordType::A,
                is_refresh: false,
                started: now,
                ended: now,
                told: now,
            });
        }

        /// Switches traces off and waits until the sender has ended.
        async fn end(self) -> (u64, u64) {
            self.traces.close();
            self.sending.await.unwrap();
            (self.traces.sent(), self.traces.dropped())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn flights_are_sent_together_after_a_while_over_one_connection() {
        let collector = Fake::default();
        let rig = Rig::start(&collector);
        let begun = Instant::now();
        (0..10).for_each(|_| rig.flight());
        tokio::time::sleep(Duration::from_secs(10)).await;
        rig.flight();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(collector.batches(), [10, 1]);
        let (at, request) = collector.taken.lock().unwrap()[0].clone();
        assert_eq!(at - begun, GATHER);
        let resource = request.resource_spans[0].resource.clone().unwrap();
        assert!(resource.attributes.contains(&spans::text("service.name", "lab")));
        assert_eq!(*collector.connections.lock().unwrap(), 1);
        assert_eq!(rig.end().await, (11, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_bounded_and_a_full_one_does_not_wait() {
        let collector = Fake::default();
        let rig = Rig::start(&collector);
        let begun = Instant::now();
        (0..600).for_each(|_| rig.flight());
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(collector.batches(), [256, 256, 88]);
        assert!(collector.taken.lock().unwrap()[1].0 - begun < GATHER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_is_busy_or_away_is_asked_again() {
        let collector = Fake::doing(&[Deed::Say(503), Deed::Hang]);
        let rig = Rig::start(&collector);
        rig.flight();
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(collector.batches(), [1]);
        *collector.is_away.lock().unwrap() = true;
        collector.deeds.lock().unwrap().push_back(Deed::Hang);
        rig.flight();
        tokio::time::sleep(Duration::from_secs(12)).await;
        *collector.is_away.lock().unwrap() = false;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(collector.batches(), [1, 1]);
        assert_eq!(rig.end().await, (2, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_collector_does_not_take_is_dropped_and_counted() {
        let collector = Fake::doing(&[Deed::Say(400), Deed::Partly(3)]);
        let rig = Rig::start(&collector);
        (0..5).for_each(|_| rig.flight());
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!((rig.traces.sent(), rig.traces.dropped()), (0, 5));
        rig.flight();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!((rig.traces.sent(), rig.traces.dropped()), (1, 5), "it took some of it");
        collector.deeds.lock().unwrap().extend([Deed::Say(503); 9]);
        (0..7).for_each(|_| rig.flight());
        tokio::time::sleep(GATHER + PATIENCE + REQUEST_LIMIT).await;
        assert_eq!(rig.end().await, (1, 12));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_closed_meanwhile_is_replaced() {
        let collector = Fake::doing(&[Deed::TakeAndClose]);
        let rig = Rig::start(&collector);
        rig.flight();
        tokio::time::sleep(Duration::from_secs(5)).await;
        rig.flight();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(collector.batches(), [1, 1]);
        assert_eq!(*collector.connections.lock().unwrap(), 2);
        assert_eq!(rig.end().await, (2, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn when_it_is_time_to_go_the_rest_is_sent_at_once_and_nothing_is_waited_for() {
        let collector = Fake::default();
        let rig = Rig::start(&collector);
        let begun = Instant::now();
        (0..3).for_each(|_| rig.flight());
        assert_eq!(rig.end().await, (3, 0));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let away = Fake::default();
        *away.is_away.lock().unwrap() = true;
        let rig = Rig::start(&away);
        rig.flight();
        assert_eq!(rig.end().await, (0, 1));
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (status, again) in
            [(429, true), (502, true), (503, true), (504, true), (500, false), (400, false), (404, false)]
        {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(ExportError::Status { status, retry_after: None }.is_passing(), again, "{status}");
        }
    }
}
