//! Sends traces to a collector, OTLP over HTTP (OpenTelemetry Protocol 1.x): several flights in one request, over one
//! connection that is kept. A collector that is away is asked again for a while; what it does not take is dropped and
//! counted. One task, bounded waits, and no look-up of names. How a connection is opened is the caller's matter, what is
//! in a trace that of `spans`.

#[cfg(test)]
mod tests;

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
