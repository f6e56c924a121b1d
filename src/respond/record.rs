//! The record of one request, from its head to the last byte of its answer, and the body that closes it.
//!
//! It is told when it is dropped, so a request is told of exactly once, however it ends.

use crate::accept::body::BodyError;
use crate::accept::head::{Head, RequestId};
use crate::accept::peer::Peer;
use crate::clock::{Clock, Monotonic};
use crate::forward::ForwardError;
use crate::identity::SchemeKind;
use crate::respond::body::Body;
use crate::telemetry::metrics::{Metrics, RouteMetrics};
use crate::telemetry::spans::Spans;
use crate::telemetry::{Finished, Observer};
use crate::trace::{Reason, ThrottleState, Trace};
use bytes::Bytes;
use http::{Method, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

/// What is known of one request.
#[derive(Debug)]
pub struct Record {
    /// What was decided.
    pub trace: Trace,
    /// The head, once it was sanitised.
    pub head: Option<Head>,
    /// Status of the answer, once there is one.
    pub status: Option<u16>,
    /// Names of the route and its upstream.
    pub names: Option<Arc<Names>>,
    /// Kind of the scheme that verified the credentials.
    pub scheme: Option<SchemeKind>,
    /// The request's id.
    pub request_id: RequestId,
    /// Bytes of the request's body; `None`: it has none.
    pub request_bytes: Option<Arc<AtomicU64>>,
    /// Its spans, if it is recorded.
    pub spans: Option<Box<Spans>>,
    method: Method,
    version: Version,
    peer: Peer,
    started: Monotonic,
    response_bytes: u64,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    observer: Arc<dyn Observer>,
}

/// Names of a route and of what belongs to it, and where it is counted.
#[derive(Debug)]
pub struct Names {
    /// The route's.
    pub route: String,
    /// The upstream's; a handler has none.
    pub upstream: Option<String>,
    /// Those of its throttles, in its order.
    pub throttles: Vec<String>,
    /// Its handles.
    pub metrics: RouteMetrics,
}

impl Names {
    /// The throttle or guard that refused.
    fn throttle(&self, state: ThrottleState) -> Option<&str> {
        match state {
            ThrottleState::None | ThrottleState::Admitted => None,
            ThrottleState::Throttled(place) => self.throttles.get(usize::from(place)).map(String::as_str),
            ThrottleState::GuardedAddress => Some("guard.address"),
            ThrottleState::GuardedAddressAndUser => Some("guard.address_and_user"),
        }
    }
}

/// Who is told, and by which clock.
#[derive(Debug, Clone)]
pub struct Reporting {
    /// Is told of every finished request.
    pub observer: Arc<dyn Observer>,
    /// Counts every finished request.
    pub metrics: Arc<Metrics>,
    /// For durations.
    pub clock: Arc<dyn Clock>,
}

impl Record {
    /// A request that just came in.
    pub fn new(
        method: &Method,
        version: Version,
        peer: Peer,
        request_id: RequestId,
        started: Monotonic,
        reporting: &Reporting,
    ) -> Self {
        Self {
            trace: Trace::new(),
            head: None,
            status: None,
            names: None,
            scheme: None,
            request_id,
            method: method.clone(),
            version,
            peer,
            started,
            request_bytes: None,
            spans: None,
            response_bytes: 0,
            clock: Arc::clone(&reporting.clock),
            metrics: Arc::clone(&reporting.metrics),
            observer: Arc::clone(&reporting.observer),
        }
    }

    /// The method, whether or not the head could be read.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// When it came in.
    pub fn started(&self) -> Monotonic {
        self.started
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.trace.reason = Reason::ClientGone;
        }
        let head = self.head.as_ref();
        let finished = Finished {
            trace: &self.trace,
            request_id: self.request_id.as_str(),
            method: &self.method,
            path: head.map(|head| head.target.path()),
            host: head.map(|head| head.authority.host()),
            route: self.names.as_ref().map(|names| names.route.as_str()),
            upstream: self.names.as_ref().and_then(|names| names.upstream.as_deref()),
            throttle: self.names.as_ref().and_then(|names| names.throttle(self.trace.throttle)),
            scheme: self.scheme,
            client: head.map_or(self.peer.address.ip(), |head| head.client.address),
            protocol: self.version,
            tls_version: self.peer.tls_version,
            status: self.status,
            spans: self.spans.as_deref(),
            duration: self.clock.monotonic().since(self.started),
            request_bytes: self.request_bytes.as_ref().map_or(0, |bytes| bytes.load(Ordering::Relaxed)),
            response_bytes: self.response_bytes,
        };
        self.metrics.requests.finished(&finished, self.names.as_ref().map(|names| &names.metrics));
        self.observer.finished(&finished);
    }
}

/// An answer's body with the request's record; both end together.
#[derive(Debug)]
pub struct RecordedBody {
    body: Body,
    record: Box<Record>,
    is_ended: bool,
}

impl RecordedBody {
    /// Closes the record when the body has been sent, or given up.
    pub fn new(body: Body, record: Box<Record>) -> Self {
        Self { body, record, is_ended: false }
    }
}

impl HttpBody for RecordedBody {
    type Data = Bytes;
    type Error = ForwardError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ForwardError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.is_ended = true,
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                let total =
                    self.record.response_bytes.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
                self.record.response_bytes = total;
            }
            Some(Err(error)) => {
                self.is_ended = true;
                self.record.trace.reason = match error {
                    ForwardError::Body(BodyError::TooLarge) => Reason::BodyTooLarge,
                    ForwardError::Body(BodyError::Aborted(_)) => Reason::BodyAborted,
                    ForwardError::BodyTimeout => Reason::BodyTimeout,
                    _ => Reason::ResponseAborted,
                };
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RecordedBody {
    fn drop(&mut self) {
        // RFC 9110 section 9.3.2: the answer to HEAD is complete without its body.
        let is_complete = self.is_ended || self.body.is_end_stream() || self.record.method == Method::HEAD;
        if !is_complete && self.record.trace.reason == Reason::None {
            self.record.trace.reason = Reason::ClientGone;
        }
    }
}
