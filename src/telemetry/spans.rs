//! Which requests become spans, and where these stand in their trace (W3C Trace Context, level 1).
//!
//! Decided when the head was read, since the upstream has to be told; the spans themselves are made when the request
//! has ended. A request that is not recorded is passed on as if there were no traces here, with whatever it came with:
//! its caller's span is then the parent of the upstream's, and nobody points at a span of ours that does not exist.
//! A `traceparent` of our own with "not sampled" would be worse: upstreams that obey it would record less for
//! standing behind doorward.

use crate::header::traceparent::{TRACEPARENT, TRACESTATE, TraceParent};
use crate::telemetry::is_one_of;
use http::HeaderMap;
use std::num::{NonZeroU32, NonZeroU64, NonZeroU128};
use std::time::Duration;

/// The spans of one request: its own, and the one of its exchange with the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spans {
    /// The trace: the caller's, or the request's id.
    pub trace_id: NonZeroU128,
    /// The caller's span.
    pub parent_id: Option<NonZeroU64>,
    /// Ours.
    pub id: NonZeroU64,
    /// The exchange's, which the upstream was told.
    pub upstream_id: NonZeroU64,
    /// When the exchange was, if there was any.
    pub exchange: Option<Exchange>,
}

/// When an upstream was asked, counted from the arrival of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// The request was passed on.
    pub asked: Duration,
    /// The head of the answer was there, or it was clear that none comes; `None`: nobody waited for it.
    pub answered: Option<Duration>,
}

/// Chooses requests.
#[derive(Debug, Clone, Copy)]
pub struct Sampling {
    /// One of so many; `None`: none but those that a trusted proxy records.
    pub one_of: Option<NonZeroU32>,
}

impl Sampling {
    /// Decides whether a request is recorded, and tells the upstream if so.
    ///
    /// A trusted proxy has decided already, if it says so. Everybody else could ask for everything to be recorded, or
    /// choose a trace id that would be, so for them it goes by the request's id, which is ours.
    pub fn begin(self, request_id: &str, headers: &mut HeaderMap, is_trusted: bool) -> Option<Spans> {
        let caller = TraceParent::of(headers);
        let is_recorded = match caller {
            Ok(Some(caller)) if is_trusted => caller.is_sampled,
            _ => self.one_of.is_some_and(|number| is_one_of(request_id, number)),
        };
        if !is_recorded {
            return None;
        }
        let caller = caller.ok().flatten();
        let own = || u128::from_str_radix(request_id, 16).ok().and_then(NonZeroU128::new);
        let spans = Spans {
            trace_id: caller.map(|caller| caller.trace_id).or_else(own)?,
            parent_id: caller.map(|caller| caller.parent_id),
            id: random()?,
            upstream_id: random()?,
            exchange: None,
        };
        let told = TraceParent { trace_id: spans.trace_id, parent_id: spans.upstream_id, is_sampled: true };
        if caller.is_none() {
            // Section 3.5: it belongs to a `traceparent` that could be read.
            headers.remove(TRACESTATE);
        }
        headers.insert(TRACEPARENT, told.to_value()?);
        Some(spans)
    }
}

/// Not from the request's id: others put spans into the same trace.
fn random() -> Option<NonZeroU64> {
    getrandom::u64().ok().and_then(NonZeroU64::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const ALL: Sampling = Sampling { one_of: Some(NonZeroU32::MIN) };
    const NONE: Sampling = Sampling { one_of: None };
    /// Its last 16 digits are 7.
    const ID: &str = "000000000000000a0000000000000007";

    fn headers(caller: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        headers.extend(caller.map(|caller| (TRACEPARENT, HeaderValue::from_static(caller))));
        headers
    }

    fn told(headers: &HeaderMap) -> Option<TraceParent> {
        TraceParent::of(headers).unwrap()
    }

    #[test]
    fn the_callers_trace_goes_on_with_our_span_between() {
        let mut headers = headers(Some(CALLER));
        let spans = ALL.begin(ID, &mut headers, false).unwrap();
        let caller = TraceParent::parse(CALLER.as_bytes()).unwrap();
        assert_eq!((spans.trace_id, spans.parent_id), (caller.trace_id, Some(caller.parent_id)));
        let told = told(&headers).unwrap();
        assert_eq!(
            (told.trace_id, told.parent_id, told.is_sampled),
            (caller.trace_id, spans.upstream_id, true)
        );
        assert_eq!(headers[TRACESTATE], "a=b");
        assert_ne!(spans.id, spans.upstream_id);
    }

    #[test]
    fn without_a_good_caller_the_trace_is_the_request() {
        for caller in [None, Some("00-x"), Some("00-00000000000000000000000000000000-00f067aa0ba902b7-01")] {
            let mut headers = headers(caller);
            let spans = ALL.begin(ID, &mut headers, false).unwrap();
            assert_eq!((spans.trace_id.get(), spans.parent_id), (0xa_0000_0000_0000_0007, None));
            assert_eq!(told(&headers).unwrap().trace_id, spans.trace_id);
            assert!(!headers.contains_key(TRACESTATE), "it was of a trace that is not known");
        }
    }

    #[test]
    fn what_is_not_recorded_is_passed_on_as_it_came() {
        for caller in [None, Some(CALLER), Some("00-x")] {
            let mut passed = headers(caller);
            assert_eq!(NONE.begin(ID, &mut passed, false), None);
            assert_eq!(passed, headers(caller));
        }
        let one_of = |number| Sampling { one_of: NonZeroU32::new(number) };
        assert!(one_of(7).begin(ID, &mut headers(None), false).is_some());
        assert!(one_of(3).begin(ID, &mut headers(None), false).is_none());
    }

    #[test]
    fn only_a_trusted_proxy_decides_for_us() {
        let unsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        assert!(NONE.begin(ID, &mut headers(Some(CALLER)), true).is_some());
        assert!(NONE.begin(ID, &mut headers(Some(CALLER)), false).is_none());
        assert!(ALL.begin(ID, &mut headers(Some(unsampled)), true).is_none());
        assert!(ALL.begin(ID, &mut headers(Some(unsampled)), false).is_some());
        assert!(NONE.begin(ID, &mut headers(None), true).is_none());
        assert!(NONE.begin(ID, &mut headers(Some("00-x")), true).is_none());
    }
}
