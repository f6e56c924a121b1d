//! Requests that have ended: by route, outcome and reason, with who answered the look-up, and what upstreams did.

use crate::identity::SchemeKind;
use crate::telemetry::metrics::times::Histogram;
use crate::telemetry::metrics::{ReasonLabel, Times, Word};
use crate::telemetry::{Finished, is_ours};
use crate::trace::{AnsweredBy, Reason, SchemeOutcome, Trace};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

/// What became of requests.
const OUTCOMES: [Word; 4] = ["passed", "refused", "failed", "gone"];
/// Classes of statuses; the first: the client went away before there was one.
const CLASSES: [Word; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    outcome: Word,
    status: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AuthenticationLabels {
    scheme: Word,
    outcome: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabel {
    level: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ThrottleLabel {
    throttle: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    upstream: String,
    outcome: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabel {
    upstream: String,
}

/// Series that are made when they first count: most combinations of labels never happen.
#[derive(Debug)]
struct Lazy<const N: usize>([OnceLock<Counter>; N]);

impl<const N: usize> Lazy<N> {
    fn new() -> Self {
        Self(std::array::from_fn(|_| OnceLock::new()))
    }

    fn count(&self, place: usize, make: impl FnOnce() -> Counter) {
        if let Some(cell) = self.0.get(place) {
            cell.get_or_init(make).inc();
        }
    }

    /// Goes on with what was counted before.
    fn resume(&self, place: usize, counter: Counter) {
        if let Some(cell) = self.0.get(place) {
            cell.set(counter).unwrap_or_default();
        }
    }

    /// Of so many places, from one on.
    fn sum(&self, from: usize, places: usize) -> u64 {
        self.0.iter().skip(from).take(places).filter_map(OnceLock::get).map(Counter::get).sum()
    }
}

const OUTCOMES_BY_CLASS: usize = OUTCOMES.len() * CLASSES.len();
const SCHEMES: usize = SchemeKind::ALL.len() + 1;
const AUTHENTICATIONS: usize = SCHEMES * SchemeOutcome::ALL.len();
/// What upstreams did: a class of statuses, or a reason.
const UPSTREAM_OUTCOMES: usize = CLASSES.len() + Reason::ALL.len();

/// Counts requests.
#[derive(Debug)]
pub struct RequestMetrics {
    requests: Family<RequestLabels, Counter>,
    duration: Times<RouteLabel>,
    received: Family<RouteLabel, Counter>,
    sent: Family<RouteLabel, Counter>,
    refusals: Vec<Counter>,
    authentications: Family<AuthenticationLabels, Counter>,
    by_scheme: Lazy<AUTHENTICATIONS>,
    lookups: Vec<Counter>,
    lookups_failed: Counter,
    throttled: Family<ThrottleLabel, Counter>,
    forged: Counter,
    upstream_requests: Family<UpstreamLabels, Counter>,
    upstream_duration: Times<UpstreamLabel>,
    upstream_retries: Family<UpstreamLabel, Counter>,
    /// For what no route was found for.
    unrouted: RouteMetrics,
    /// Routes and upstreams that have series.
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    routes: BTreeSet<String>,
    upstreams: BTreeSet<String>,
    throttles: BTreeSet<String>,
}

impl Known {
    /// These, and the name of what no route was found for.
    fn new<'a>(
        routes: impl IntoIterator<Item = &'a str>,
        upstreams: impl IntoIterator<Item = &'a str>,
        throttles: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self {
            routes: routes.into_iter().chain([""]).map(str::to_owned).collect(),
            upstreams: upstreams.into_iter().map(str::to_owned).collect(),
            throttles: throttles.into_iter().map(str::to_owned).collect(),
        }
    }
}

/// The handles of one route.
#[derive(Debug)]
pub struct RouteMetrics {
    route: String,
    requests: Lazy<OUTCOMES_BY_CLASS>,
    duration: Histogram,
    received: Counter,
    sent: Counter,
    upstream: Option<UpstreamMetrics>,
}

#[derive(Debug)]
struct UpstreamMetrics {
    name: String,
    requests: Lazy<UPSTREAM_OUTCOMES>,
    duration: Histogram,
    retries: Counter,
}

impl RouteMetrics {
    /// Requests that have ended: passed, refused, failed, and those whose client went away.
    pub fn counts(&self) -> [u64; 4] {
        std::array::from_fn(|outcome| self.requests.sum(outcome * CLASSES.len(), CLASSES.len()))
    }
}

impl RequestMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let requests = Family::default();
        registry.register("doorward_requests", "Requests that have ended", requests.clone());
        let duration: Times<RouteLabel> = Family::default();
        registry.register(
            "doorward_request_duration_seconds",
            "From the head of a request to the end of its answer",
            duration.clone(),
        );
        let received = Family::default();
        registry.register("doorward_request_body_bytes", "Bytes of bodies of requests", received.clone());
        let sent = Family::default();
        registry.register("doorward_response_body_bytes", "Bytes of bodies of answers", sent.clone());
        let authentications = Family::default();
        registry.register(
            "doorward_authentications",
            "Requests by what authentication came to",
            authentications.clone(),
        );
        let throttled = Family::default();
        registry.register(
            "doorward_throttled",
            "Requests that a throttle or guard refused",
            throttled.clone(),
        );
        let forged = Counter::default();
        registry.register(
            "doorward_forged_headers",
            "Header fields removed because they could pass for doorward's own",
            forged.clone(),
        );
        let upstream_requests = Family::default();
        registry.register(
            "doorward_upstream_requests",
            "Requests sent to upstreams, by status of the answer or reason of the failure",
            upstream_requests.clone(),
        );
        let upstream_duration: Times<UpstreamLabel> = Family::default();
        registry.register(
            "doorward_upstream_duration_seconds",
            "From choosing a server to the head of its answer",
            upstream_duration.clone(),
        );
        let upstream_retries = Family::default();
        registry.register(
            "doorward_upstream_retries",
            "Requests sent a second time, because a kept connection had ended",
            upstream_retries.clone(),
        );
        let (lookups, lookups_failed) = lookups(registry);
        let nowhere = RouteLabel { route: String::new() };
        let unrouted = RouteMetrics {
            requests: Lazy::new(),
            duration: duration.get_or_create_owned(&nowhere),
            received: received.get_or_create_owned(&nowhere),
            sent: sent.get_or_create_owned(&nowhere),
            upstream: None,
            route: nowhere.route,
        };
        Self {
            refusals: refusals(registry),
            by_scheme: Lazy::new(),
            known: Mutex::new(Known::new([], [], [])),
            requests,
            duration,
            received,
            sent,
            authentications,
            lookups,
            lookups_failed,
            throttled,
            forged,
            upstream_requests,
            upstream_duration,
            upstream_retries,
            unrouted,
        }
    }

    /// The handles of a route, which leads to this upstream. They go on with what was counted under these names before.
    pub fn route(&self, route: &str, upstream: Option<&str>) -> RouteMetrics {
        let label = RouteLabel { route: route.to_owned() };
        {
            // Whatever has series is known, so that it can be forgotten: also if the plan fails that this is for.
            let mut known = self.known.lock();
            known.routes.insert(route.to_owned());
            known.upstreams.extend(upstream.map(str::to_owned));
        }
        let upstream = upstream.map(|name| {
            let label = UpstreamLabel { upstream: name.to_owned() };
            UpstreamMetrics {
                name: name.to_owned(),
                requests: Lazy::new(),
                duration: self.upstream_duration.get_or_create_owned(&label),
                retries: self.upstream_retries.get_or_create_owned(&label),
            }
        });
        RouteMetrics {
            route: route.to_owned(),
            requests: self.resumed(route),
            duration: self.duration.get_or_create_owned(&label),
            received: self.received.get_or_create_owned(&label),
            sent: self.sent.get_or_create_owned(&label),
            upstream,
        }
    }

    /// What was counted of a route before a reload: its sums are read from the handles.
    fn resumed(&self, route: &str) -> Lazy<OUTCOMES_BY_CLASS> {
        let requests = Lazy::new();
        for place in 0..OUTCOMES_BY_CLASS {
            if let Some(counter) = self.requests.get(&request_labels(route, place)) {
                requests.resume(place, counter.clone());
            }
        }
        requests
    }

    /// Forgets the series of all other routes, upstreams and throttles: a file that changes often must not fill the memory.
    pub fn keep<'a>(
        &self,
        routes: impl IntoIterator<Item = &'a str>,
        upstreams: impl IntoIterator<Item = &'a str>,
        throttles: impl IntoIterator<Item = &'a str>,
    ) {
        let kept = Known::new(routes, upstreams, throttles);
        let mut known = self.known.lock();
        for gone in known.routes.difference(&kept.routes) {
            self.forget_route(gone);
        }
        for gone in known.upstreams.difference(&kept.upstreams) {
            self.forget_upstream(gone);
        }
        for gone in known.throttles.difference(&kept.throttles) {
            self.throttled.remove(&ThrottleLabel { throttle: gone.clone() });
        }
        *known = kept;
    }

    fn forget_route(&self, route: &str) {
        let label = RouteLabel { route: route.to_owned() };
        self.duration.remove(&label);
        self.received.remove(&label);
        self.sent.remove(&label);
        for place in 0..OUTCOMES_BY_CLASS {
            self.requests.remove(&request_labels(route, place));
        }
    }

    fn forget_upstream(&self, upstream: &str) {
        let label = UpstreamLabel { upstream: upstream.to_owned() };
        self.upstream_duration.remove(&label);
        self.upstream_retries.remove(&label);
        for outcome in CLASSES.into_iter().chain(Reason::ALL.iter().map(|reason| reason.name())) {
            self.upstream_requests.remove(&UpstreamLabels { upstream: upstream.to_owned(), outcome });
        }
    }

    /// Counts a request that has ended; `route` are the handles of its route, if one was found.
    pub fn finished(&self, request: &Finished<'_>, route: Option<&RouteMetrics>) {
        let trace = request.trace;
        let handles = route.unwrap_or(&self.unrouted);
        let (outcome, class) = (outcome(request), class(request.status));
        let place = outcome * CLASSES.len() + class;
        handles.requests.count(place, || {
            let known = self.known.lock();
            // The last requests of a route that a reload took away do not bring its series back.
            let is_known = known.routes.contains(&handles.route);
            let labels = || request_labels(&handles.route, place);
            if is_known { self.requests.get_or_create_owned(&labels()) } else { Counter::default() }
        });
        handles.duration.observe(request.duration);
        if request.request_bytes > 0 {
            handles.received.inc_by(request.request_bytes);
        }
        if request.response_bytes > 0 {
            handles.sent.inc_by(request.response_bytes);
        }
        self.authenticated(trace, request.scheme);
        if trace.reason != Reason::None
            && let Some(counter) = self.refusals.get(trace.reason as usize)
        {
            counter.inc();
        }
        if trace.headers_removed > 0 {
            self.forged.inc_by(u64::from(trace.headers_removed));
        }
        if let Some(throttle) = request.throttle {
            self.throttled.get_or_create_owned(&ThrottleLabel { throttle: throttle.to_owned() }).inc();
        }
        if let Some(upstream) = &handles.upstream {
            self.forwarded(trace, class, upstream);
        }
    }

    fn authenticated(&self, trace: &Trace, scheme: Option<SchemeKind>) {
        if trace.route.is_none() {
            return;
        }
        let outcome = trace.decisive();
        let place = scheme.map_or(0, |kind| kind as usize) * SchemeOutcome::ALL.len() + outcome as usize;
        self.by_scheme.count(place, || {
            let scheme = scheme.map_or("", SchemeKind::name);
            self.authentications
                .get_or_create_owned(&AuthenticationLabels { scheme, outcome: outcome.name() })
        });
        match trace.answered_by {
            AnsweredBy::Nobody if outcome == SchemeOutcome::Unavailable => drop(self.lookups_failed.inc()),
            AnsweredBy::Nobody => {}
            level => {
                if let Some(counter) = self.lookups.get(level as usize) {
                    counter.inc();
                }
            }
        }
    }

    fn forwarded(&self, trace: &Trace, class: usize, upstream: &UpstreamMetrics) {
        // The last server asked, or the failure to reach any.
        if trace.upstream_attempts == 0 && trace.upstream_server.is_none() {
            return;
        }
        let place = match trace.reason {
            Reason::None => class,
            reason => CLASSES.len() + reason as usize,
        };
        upstream.requests.count(place, || {
            let outcome = match trace.reason {
                Reason::None => word(&CLASSES, class),
                reason => reason.name(),
            };
            let known = self.known.lock();
            let is_known = known.upstreams.contains(&upstream.name);
            let labels = || UpstreamLabels { upstream: upstream.name.clone(), outcome };
            if is_known { self.upstream_requests.get_or_create_owned(&labels()) } else { Counter::default() }
        });
        if trace.upstream_us > 0 {
            upstream.duration.observe(Duration::from_micros(u64::from(trace.upstream_us)));
        }
        if trace.upstream_attempts > 1 {
            upstream.retries.inc();
        }
    }
}

/// By reason, in their order; all are there from the start, so that an alert sees the first one.
fn refusals(registry: &mut Registry) -> Vec<Counter> {
    let family = Family::<ReasonLabel, Counter>::default();
    registry.register("doorward_refusals", "Requests refused or failed, by reason", family.clone());
    let series = |reason: &Reason| match reason {
        Reason::None => Counter::default(),
        reason => family.get_or_create_owned(&ReasonLabel { reason: reason.name() }),
    };
    Reason::ALL.iter().map(series).collect()
}

/// By who answered, in their order, and those that nobody did.
fn lookups(registry: &mut Registry) -> (Vec<Counter>, Counter) {
    let family = Family::<LevelLabel, Counter>::default();
    registry.register("doorward_lookups", "Look-ups of credentials, by who answered", family.clone());
    let series = |level: &AnsweredBy| match level {
        AnsweredBy::Nobody => Counter::default(),
        level => family.get_or_create_owned(&LevelLabel { level: level.name() }),
    };
    let lookups = AnsweredBy::ALL.iter().map(series).collect();
    (lookups, family.get_or_create_owned(&LevelLabel { level: "failed" }))
}

/// Of a place in [`RouteMetrics`]: by outcome, then by class.
fn request_labels(route: &str, place: usize) -> RequestLabels {
    RequestLabels {
        route: route.to_owned(),
        outcome: word(&OUTCOMES, place / CLASSES.len()),
        status: word(&CLASSES, place % CLASSES.len()),
    }
}

/// Place in [`OUTCOMES`].
fn outcome(request: &Finished<'_>) -> usize {
    match request.trace.reason {
        _ if request.has_passed() => 0,
        // The upstream says so itself.
        Reason::None => 2,
        Reason::ClientGone | Reason::BodyAborted => 3,
        reason if is_ours(reason) => 2,
        _ => 1,
    }
}

/// Place in [`CLASSES`].
fn class(status: Option<u16>) -> usize {
    let class = status.map_or(0, |status| usize::from(status / 100));
    if class < CLASSES.len() { class } else { 0 }
}

fn word(words: &[Word], place: usize) -> Word {
    words.get(place).copied().unwrap_or_default()
}
