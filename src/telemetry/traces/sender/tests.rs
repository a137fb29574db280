//! The sender against collectors that take, refuse, and say nothing.

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
                let partly = opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess {
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
