//! One query in flight over HTTP/2, and what the server's response to it means: an answer, a failure that says whose
//! fault it is, or a query that the server has not worked on. The DNS message is only matched to its question here;
//! the resolver judges it.

use super::request::DNS_MESSAGE;
use crate::transport::pool::Job;
use crate::transport::{Received, TransportError};
use crate::wire::header::HEADER_LEN;
use crate::wire::question::QuestionRef;
use crate::wire::response::ResponseFault;
use bytes::{Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use http::header::{AGE, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// Longest DNS message (RFC 8484 §6).
const MAX_MESSAGE: usize = 65_535;

/// Longest time that a server may ask us to stay away.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// A query that was sent and the stream its answer comes on. Dropping it resets the stream.
#[derive(Debug)]
pub(super) struct InFlight {
    /// The query; gone once the future is done.
    job: Option<Job>,
    /// After this nobody waits for the answer.
    deadline: Instant,
    /// How often the server may still refuse it.
    refusals: Refusals,
    /// How much has come.
    progress: Progress,
}

/// How often a query may still be refused by REFUSED_STREAM before another connection is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusals {
    /// Once: our first requests cross with the server's SETTINGS, and may be more than those allow.
    One,
    /// Not again.
    None,
}

/// How much of a response has come.
#[derive(Debug)]
enum Progress {
    /// Nothing.
    Sent(ResponseFuture),
    /// The head, and perhaps some of the body.
    Body(Body),
}

/// A response's body while it comes.
#[derive(Debug)]
struct Body {
    /// Where it comes from.
    stream: RecvStream,
    /// All but the last part of it; empty for nearly every answer.
    parts: BytesMut,
    /// HTTP `Age`.
    age_secs: u32,
}

/// What became of a query.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The server's message.
    Answered(Received),
    /// Not by this server.
    Failed(TransportError),
    /// The server has not worked on it, and says so of this query only: send it again.
    Refused,
    /// Said of it again: not on this connection.
    RefusedAgain,
    /// The connection ends under it: send it on another connection.
    Unprocessed,
}

impl InFlight {
    /// Makes the future of a request that was just sent.
    pub(super) fn new(job: Job, response: ResponseFuture, refusals: Refusals) -> Self {
        Self { deadline: job.deadline, refusals, job: Some(job), progress: Progress::Sent(response) }
    }

    /// Tells whether nobody waits for the answer any more.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.deadline <= now
    }

    /// Tells the one who asked that there is no answer in time.
    pub(super) fn give_up(self) {
        if let Some(job) = self.job {
            job.ticket.complete(Err(TransportError::Timeout));
        }
    }

    /// Returns the query while it waits.
    pub(super) fn job_mut(&mut self) -> Option<&mut Job> {
        self.job.as_mut()
    }

    /// Gives the stream up and keeps the query.
    pub(super) fn into_job(self) -> Option<Job> {
        self.job
    }

    /// Reads what has come of the response.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, Trouble>> {
        loop {
            match &mut self.progress {
                Progress::Sent(response) => {
                    let response = ready!(Pin::new(response).poll(cx))?;
                    self.progress = Progress::Body(Body::begin(response)?);
                }
                Progress::Body(body) => return body.poll(cx),
            }
        }
    }
}

impl Future for InFlight {
    type Output = (Job, Outcome);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let outcome = ready!(this.poll_message(cx));
        let Some(job) = this.job.take() else { return Poll::Pending };
        let outcome = match outcome {
            Ok(received) if is_other_question(&job.query, &received.message) => {
                Outcome::Failed(TransportError::Mismatch(ResponseFault::QuestionMismatch))
            }
            Ok(received) => Outcome::Answered(received),
            Err(trouble) => trouble.into_outcome(this.refusals),
        };
        Poll::Ready((job, outcome))
    }
}

impl Body {
    /// Judges a response's head (RFC 8484 §4.2).
    fn begin(response: Response<RecvStream>) -> Result<Self, TransportError> {
        let (head, stream) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(refusal(head.status, &head.headers));
        }
        if !is_dns_message(&head.headers) {
            return Err(TransportError::ContentType);
        }
        if decimal(&head.headers, &CONTENT_LENGTH).is_some_and(|length| length > MAX_MESSAGE as u64) {
            return Err(TransportError::BodyTooLarge);
        }
        let age = decimal(&head.headers, &AGE).unwrap_or(0);
        Ok(Self { stream, parts: BytesMut::new(), age_secs: u32::try_from(age).unwrap_or(u32::MAX) })
    }

    /// Reads what has come. A body in one part, which is the rule, is passed on without a copy.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, Trouble>> {
        while let Some(part) = ready!(self.stream.poll_data(cx)) {
            let part = part?;
            self.stream.flow_control().release_capacity(part.len())?;
            if self.parts.len() + part.len() > MAX_MESSAGE {
                return Poll::Ready(Err(TransportError::BodyTooLarge.into()));
            }
            if self.parts.is_empty() && self.stream.is_end_stream() {
                return Poll::Ready(Ok(self.received(part)));
            }
            self.parts.extend_from_slice(&part);
        }
        let message = std::mem::take(&mut self.parts).freeze();
        Poll::Ready(Ok(self.received(message)))
    }

    /// Puts the result together.
    fn received(&self, message: Bytes) -> Received {
        Received { message, age_secs: self.age_secs, sent_at: None }
    }
}

/// Why there is no message.
#[derive(Debug)]
enum Trouble {
    /// HTTP/2 failed, on this stream or as a whole.
    Stream(h2::Error),
    /// HTTP did what it should, and the answer is no.
    Response(TransportError),
}

impl From<h2::Error> for Trouble {
    fn from(error: h2::Error) -> Self {
        Self::Stream(error)
    }
}

impl From<TransportError> for Trouble {
    fn from(error: TransportError) -> Self {
        Self::Response(error)
    }
}

impl Trouble {
    /// Tells what may be tried again from what may not. A query changes nothing at the server, so one whose connection
    /// ended under it may always be; a refused stream was not worked on (RFC 9113 §8.7).
    fn into_outcome(self, refusals: Refusals) -> Outcome {
        let error = match self {
            Self::Response(error) => return Outcome::Failed(error),
            Self::Stream(error) => error,
        };
        let is_refused = error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
        if error.is_io() || error.is_go_away() {
            return Outcome::Unprocessed;
        }
        match (is_refused, refusals) {
            (true, Refusals::One) => Outcome::Refused,
            (true, Refusals::None) => Outcome::RefusedAgain,
            (false, _) => Outcome::Failed(TransportError::Http2 { reason: error.to_string() }),
        }
    }
}

/// Makes the failure of a status other than 200. Redirects are not followed: they would lead to a server that nobody
/// configured.
fn refusal(status: StatusCode, headers: &HeaderMap) -> TransportError {
    let may_return = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let retry_after = decimal(headers, &RETRY_AFTER)
        .filter(|_| may_return)
        .map(|secs| Duration::from_secs(secs).min(MAX_RETRY_AFTER));
    TransportError::HttpStatus { status: status.as_u16(), retry_after }
}

/// Tells whether the body is a DNS message. Parameters and letter case do not matter (RFC 9110 §8.3.1).
fn is_dns_message(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return false };
    let essence = value.as_bytes().split(|octet| *octet == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(DNS_MESSAGE.as_bytes())
}

/// Reads a field that is a number; one too great to hold is the greatest, any other text is none (RFC 9111 §1.2.2).
fn decimal(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let text = headers.get(name)?.to_str().ok()?.trim_ascii();
    if text.is_empty() || !text.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

/// Tells whether a message answers another question than the query's, letter case aside. The ID says nothing: the
/// stream ties the two together, and not every server keeps it at 0. What is malformed is left to the resolver, and so
/// is a message without a question, as some servers send with an error.
fn is_other_question(query: &[u8], message: &[u8]) -> bool {
    let question = |bytes| <[u8]>::get(bytes, HEADER_LEN..).and_then(QuestionRef::parse);
    let count = message.get(4..6);
    match (question(query), question(message)) {
        (Some(ours), Some(theirs)) => count == Some(&[0, 1]) && !ours.matches(&theirs),
        (None, _) | (_, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    fn message(id: u16, qdcount: u8, qname: &[u8], qtype: u8) -> Vec<u8> {
        let mut message = id.to_be_bytes().to_vec();
        message.extend([0x81, 0x80, 0, qdcount, 0, 0, 0, 0, 0, 0]);
        message.extend(qname);
        message.extend([0, qtype, 0, 1]);
        message
    }

    #[test]
    fn content_type_may_have_parameters_and_capitals() {
        for (value, accepted) in [
            ("application/dns-message", true),
            ("Application/DNS-Message; charset=utf-8", true),
            ("application/dns-message ;q=1", true),
            ("application/dns-json", false),
            ("application/dns-messages", false),
            ("text/html", false),
            ("", false),
        ] {
            assert_eq!(is_dns_message(&headers(CONTENT_TYPE, value)), accepted, "{value}");
        }
        assert!(!is_dns_message(&HeaderMap::new()));
    }

    #[test]
    fn numbers_are_digits_only_and_saturate() {
        for (value, number) in [
            ("0", Some(0)),
            (" 17 ", Some(17)),
            ("+17", None),
            ("-1", None),
            ("1.5", None),
            ("", None),
            ("Wed, 21 Oct 2015 07:28:00 GMT", None),
            ("99999999999999999999999", Some(u64::MAX)),
        ] {
            assert_eq!(decimal(&headers(AGE, value), &AGE), number, "{value}");
        }
    }

    #[test]
    fn retry_after_counts_for_429_and_503_up_to_a_minute() {
        for (status, value, expected) in
            [(429, "7", Some(7)), (503, "3600", Some(60)), (500, "7", None), (503, "soon", None)]
        {
            let status = StatusCode::from_u16(status).unwrap();
            let failure = refusal(status, &headers(RETRY_AFTER, value));
            let TransportError::HttpStatus { status: seen, retry_after } = failure else {
                panic!("{failure}")
            };
            assert_eq!((seen, retry_after), (status.as_u16(), expected.map(Duration::from_secs)));
        }
    }

    #[test]
    fn a_question_matches_whatever_the_id_and_the_letter_case() {
        let query = message(0, 1, b"\x01a\x07EXAMPLE\0", 1);
        assert!(!is_other_question(&query, &message(0, 1, b"\x01A\x07example\0", 1)));
        assert!(!is_other_question(&query, &message(4711, 1, b"\x01a\x07example\0", 1)));
    }

    #[test]
    fn another_name_or_type_is_another_question() {
        let query = message(0, 1, b"\x01a\x07example\0", 1);
        assert!(is_other_question(&query, &message(0, 1, b"\x01b\x07example\0", 1)));
        assert!(is_other_question(&query, &message(0, 1, b"\x01a\x07example\0", 28)));
    }

    #[test]
    fn what_is_malformed_or_has_no_question_is_left_to_the_resolver() {
        let query = message(0, 1, b"\x01a\x07example\0", 1);
        assert!(!is_other_question(&query, b""));
        assert!(!is_other_question(&query, &query[..14]));
        assert!(!is_other_question(&query, &message(0, 0, b"\x01b\x07example\0", 1)));
    }
}
