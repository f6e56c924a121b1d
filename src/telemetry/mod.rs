//! What is told of requests: one line for each that has finished, written from its trace.
//!
//! Field names are in `fields.rs` and nowhere else. The log is written by a thread of its own (`log.rs`), so that a
//! reader or a disk that stalls never stalls a request; lines that do not fit are counted and dropped.

#[cfg(feature = "otel")]
mod export;
pub mod fields;
mod log;
pub mod metrics;
pub mod spans;
mod writer;

use crate::identity::SchemeKind;
use crate::telemetry::spans::Spans;
use crate::trace::{Reason, Trace};
use http::Method;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[cfg(feature = "otel")]
pub use crate::telemetry::export::{ExportError, SpanExport};
pub use crate::telemetry::log::{
    Format, LogError, LogGuard, LogHandle, LogSettings, QUEUE_BYTES, QUEUE_LINES, dropped_lines, start_log,
};

/// A request that has ended: everything that may be told of it.
#[derive(Debug)]
pub struct Finished<'a> {
    /// What was decided.
    pub trace: &'a Trace,
    /// The request's id.
    pub request_id: &'a str,
    /// Method.
    pub method: &'a Method,
    /// Path in normal form, without the query; `None` if it could not be read.
    pub path: Option<&'a str>,
    /// Host asked for.
    pub host: Option<&'a str>,
    /// Name of the route.
    pub route: Option<&'a str>,
    /// Name of the upstream.
    pub upstream: Option<&'a str>,
    /// Name of the throttle or guard that refused.
    pub throttle: Option<&'a str>,
    /// Kind of the scheme that verified the credentials.
    pub scheme: Option<SchemeKind>,
    /// The client.
    pub client: IpAddr,
    /// `HTTP/1.1`, `HTTP/2.0`.
    pub protocol: http::Version,
    /// `TLSv1_3`, or nothing.
    pub tls_version: Option<&'static str>,
    /// `None`: the client went away before there was an answer.
    pub status: Option<u16>,
    /// Its spans, if it is recorded.
    pub spans: Option<&'a Spans>,
    /// From the head's arrival to the end of the answer.
    pub duration: Duration,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub response_bytes: u64,
}

/// Is told of every finished request.
pub trait Observer: std::fmt::Debug + Send + Sync {
    /// Called once a request, on its core: must not wait.
    fn finished(&self, request: &Finished<'_>);
}

/// Several, told one after the other.
#[derive(Debug)]
pub struct Observers(pub Vec<Arc<dyn Observer>>);

impl Observer for Observers {
    fn finished(&self, request: &Finished<'_>) {
        for observer in &self.0 {
            observer.finished(request);
        }
    }
}

/// Writes the access line; of requests that passed, of a share.
#[derive(Debug)]
pub struct AccessLog {
    /// One of so many requests that passed has a line; 0: none.
    passes: AtomicU32,
}

impl AccessLog {
    /// One of `passes` requests that passed has a line; `None`: none of them. All others always have theirs.
    pub fn new(passes: Option<NonZeroU32>) -> Self {
        Self { passes: AtomicU32::new(passes.map_or(0, NonZeroU32::get)) }
    }

    /// Another share, from now on.
    pub fn set_passes(&self, passes: Option<NonZeroU32>) {
        self.passes.store(passes.map_or(0, NonZeroU32::get), Ordering::Relaxed);
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        Self::new(Some(NonZeroU32::MIN))
    }
}

impl Observer for AccessLog {
    fn finished(&self, request: &Finished<'_>) {
        let passes = NonZeroU32::new(self.passes.load(Ordering::Relaxed));
        if !request.has_passed() {
            fields::access_line(request, NonZeroU32::MIN);
        } else if let Some(one_of) = passes.filter(|one_of| is_one_of(request.request_id, *one_of)) {
            fields::access_line(request, one_of);
        }
    }
}

impl Finished<'_> {
    /// Whether it went as it should: let through, or answered by a handler, and nothing failed here or behind.
    pub fn has_passed(&self) -> bool {
        self.trace.reason == Reason::None && self.status.is_some_and(|status| status < 500)
    }
}

/// Whether a request is in the sample of one in so many.
///
/// By its id, so that whoever knows the id, such as the upstream, knows whether there is a line: the last 16 of its
/// 32 hex digits, as a number, are a multiple of `one_of`. Nothing is counted, so cores share nothing, and no rhythm
/// of a client's makes it always or never the one. Clients do not choose the id.
fn is_one_of(request_id: &str, one_of: NonZeroU32) -> bool {
    let number = request_id.get(16..).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    number.is_none_or(|number| number.is_multiple_of(u64::from(one_of.get())))
}

/// Whether a reason is worth the level of a warning: someone may have to act on it.
pub(in crate::telemetry) fn is_ours(reason: Reason) -> bool {
    is_of_upstream(reason)
        || matches!(
            reason,
            Reason::StoreUnavailable
                | Reason::StoreBusy
                | Reason::PasswordBusy
                | Reason::NotWritten
                | Reason::Internal
        )
}

/// Whether an upstream failed.
pub(in crate::telemetry) fn is_of_upstream(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::UpstreamUnreachable
            | Reason::ConnectTimeout
            | Reason::UpstreamBusy
            | Reason::ResponseTimeout
            | Reason::UpstreamClosed
            | Reason::UpstreamInvalid
            | Reason::ResponseAborted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished<'a>(trace: &'a Trace, method: &'a Method, id: &'a str, status: Option<u16>) -> Finished<'a> {
        Finished {
            trace,
            request_id: id,
            method,
            path: None,
            host: None,
            route: None,
            upstream: None,
            throttle: None,
            scheme: None,
            client: IpAddr::from([127, 0, 0, 1]),
            protocol: http::Version::HTTP_11,
            tls_version: None,
            status,
            spans: None,
            duration: Duration::ZERO,
            request_bytes: 0,
            response_bytes: 0,
        }
    }

    #[test]
    fn only_what_went_well_is_a_pass() {
        let (method, mut trace) = (Method::GET, Trace::new());
        let passed = |trace: &Trace, status| finished(trace, &method, "", status).has_passed();
        assert!(passed(&trace, Some(200)) && passed(&trace, Some(404)));
        assert!(!passed(&trace, Some(500)) && !passed(&trace, None));
        for reason in Reason::ALL.iter().filter(|reason| **reason != Reason::None) {
            trace.reason = *reason;
            assert!(!passed(&trace, Some(200)), "{reason:?}");
        }
    }

    #[test]
    fn the_sample_goes_by_the_id() {
        let is_one_of = |id: &str, number| is_one_of(id, NonZeroU32::new(number).unwrap());
        let head = "00112233445566ff";
        assert!(is_one_of(&format!("{head}{:016x}", 300), 100));
        assert!(!is_one_of(&format!("{head}{:016x}", 301), 100));
        assert!(is_one_of(&format!("{head}{:016x}", 301), 1));
        assert!(is_one_of(&format!("{head}{:016x}", u64::MAX), 5));
        assert!(is_one_of("not an id", 100), "never lost for that");
    }
}
