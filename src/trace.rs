//! The decision trace: what was decided about one request, as small codes.
//!
//! It is filled on the way through the pipeline and read once, when the request has ended: by the log line, and
//! by whatever else reports on requests. No strings and no secrets, so that it can be kept, copied and counted
//! without a thought; `Copy` and at most 64 bytes, so that it costs nothing on the hot path.

use crate::identity::{CredentialId, UserId};
use std::time::Duration;

/// Schemes of one route that are traced; more are tried but not recorded.
pub const SCHEMES_MAX: usize = 8;

/// Record of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// Number of the route matched, from 0 in the order of the configuration.
    pub route: Option<u16>,
    /// Outcome of each scheme of the route, in its order.
    pub schemes: [SchemeOutcome; SCHEMES_MAX],
    /// Who answered the look-up of the credentials.
    pub answered_by: AnsweredBy,
    /// The rule that let the request pass or refused it.
    pub rule: Rule,
    /// What the throttles said.
    pub throttle: ThrottleState,
    /// What a client that is over a rate was told to wait, in milliseconds; 0: nothing.
    pub throttle_wait_ms: u32,
    /// How often the request was sent to an upstream; 2 after a retry.
    pub upstream_attempts: u8,
    /// From choosing a server to the head of its answer, in microseconds; 0: there was none.
    pub upstream_us: u32,
    /// Number of the server that was asked last, from 0 in the order of the configuration.
    pub upstream_server: Option<u8>,
    /// How many of the client's header fields were removed because they could pass for ours.
    pub headers_removed: u16,
    /// Why the request was refused or failed.
    pub reason: Reason,
    /// Which credential; public id.
    pub credential: Option<CredentialId>,
    /// Who.
    pub principal: Option<UserId>,
}

impl Trace {
    /// Nothing decided yet.
    pub const fn new() -> Self {
        Self {
            route: None,
            schemes: [SchemeOutcome::NotAsked; SCHEMES_MAX],
            answered_by: AnsweredBy::Nobody,
            rule: Rule::None,
            throttle: ThrottleState::None,
            throttle_wait_ms: 0,
            upstream_attempts: 0,
            upstream_us: 0,
            upstream_server: None,
            headers_removed: 0,
            reason: Reason::None,
            credential: None,
            principal: None,
        }
    }

    /// Records the outcome of the scheme with this place in the route's list.
    pub fn scheme(&mut self, place: usize, outcome: SchemeOutcome) {
        if let Some(slot) = self.schemes.get_mut(place) {
            *slot = outcome;
        }
    }

    /// Records who refused, and the wait.
    pub fn throttled(&mut self, by: ThrottleState, wait: Option<Duration>) {
        self.throttle = by;
        let wait = wait.unwrap_or_default().as_millis();
        self.throttle_wait_ms = u32::try_from(wait).unwrap_or(u32::MAX);
    }

    /// Records when the head of the upstream's answer came.
    pub fn upstream_took(&mut self, time: Duration) {
        self.upstream_us = u32::try_from(time.as_micros()).unwrap_or(u32::MAX).max(1);
    }

    /// What authentication came to: the last scheme that was asked decides.
    pub fn decisive(&self) -> SchemeOutcome {
        let asked = self.schemes.iter().rev().find(|outcome| !matches!(outcome, SchemeOutcome::NotAsked));
        asked.copied().unwrap_or(SchemeOutcome::NotMine)
    }

    /// The same in one word of a bounded set (field `auth.outcome`).
    pub fn outcome(&self) -> &'static str {
        self.decisive().name()
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

/// What one scheme said of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SchemeOutcome {
    /// An earlier scheme had decided.
    NotAsked,
    /// The request carries nothing of this scheme's.
    NotMine,
    /// Its own, but broken.
    Malformed,
    /// Good, by the local cache.
    Cached,
    /// Good, by the store, or by what it told another replica.
    Verified,
    /// Unknown, wrong or expired credentials.
    Rejected,
    /// Good credentials of an inactive user.
    Inactive,
    /// Good credentials, refused by the scheme's own check of this request.
    Refused,
    /// Nobody could say.
    Unavailable,
}

impl SchemeOutcome {
    /// All of them, in their order.
    pub const ALL: &'static [Self] = &[
        Self::NotAsked,
        Self::NotMine,
        Self::Malformed,
        Self::Cached,
        Self::Verified,
        Self::Rejected,
        Self::Inactive,
        Self::Refused,
        Self::Unavailable,
    ];

    /// Its name in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotAsked | Self::NotMine => "anonymous",
            Self::Malformed => "malformed",
            Self::Cached => "cached",
            Self::Verified => "verified",
            Self::Rejected => "rejected",
            Self::Inactive => "inactive",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Who answered the look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum AnsweredBy {
    /// Nobody was asked, or nobody answered.
    Nobody,
    /// The local cache.
    Local,
    /// The local cache of unknown credentials.
    LocalUnknown,
    /// Redis: the store told another replica.
    Redis,
    /// The store. Who waited for another request that looked the same credentials up counts here, too.
    Store,
    /// The local cache, past its proof, because the store could not be asked.
    Stale,
}

impl AnsweredBy {
    /// All of them, in their order.
    pub const ALL: &'static [Self] =
        &[Self::Nobody, Self::Local, Self::LocalUnknown, Self::Redis, Self::Store, Self::Stale];

    /// Its name in the log (field `auth.answered_by`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Local => "local",
            Self::LocalUnknown => "local-unknown",
            Self::Redis => "redis",
            Self::Store => "store",
            Self::Stale => "stale",
        }
    }
}

/// The permission that decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Rule {
    /// No permission was asked.
    None,
    /// `anyone`
    Anyone,
    /// `authenticated`
    Authenticated,
    /// `read-only`
    ReadOnly,
    /// `staff`
    Staff,
    /// `{ groups = […] }`
    Groups,
    /// `{ users = […] }`
    Users,
}

/// What the throttles and guards said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleState {
    /// The request did not come so far.
    None,
    /// Within all rates.
    Admitted,
    /// Over the rate of the throttle with this place in the route's list; of several, the one with the largest wait.
    Throttled(u8),
    /// Too many failed logins of the client address.
    GuardedAddress,
    /// Too many failed logins of the client address with this username.
    GuardedAddressAndUser,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a request was refused or failed: the value of `error.type` in the log.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All of them; a test sees that each is reached by a test.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its name in the log.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// Nothing went wrong.
    None = "none",
    /// Host missing, repeated, or not a host.
    BadHost = "accept.bad-host",
    /// The path can be read in two ways, or in none.
    BadTarget = "accept.bad-target",
    /// The target is longer than `[limits] target_bytes`.
    TargetTooLong = "accept.target-too-long",
    /// More header fields than `[limits] header_count`.
    TooManyHeaders = "accept.too-many-headers",
    /// `Expect` asks for something other than `100-continue`.
    Expectation = "accept.expectation",
    /// CONNECT, or an HTTP/1.0 request with `Transfer-Encoding`, or framing fields that contradict each other.
    BadRequest = "accept.bad-request",
    /// Came in clear where only HTTPS is served.
    PlainHttp = "accept.plain-http",
    /// Came in clear, and with credentials.
    ExposedCredentials = "accept.exposed-credentials",
    /// No route for this host, path and method.
    NoRoute = "route.none",
    /// Credentials that cannot be read.
    MalformedCredentials = "authenticate.malformed",
    /// Credentials that nobody knows, or expired ones.
    RejectedCredentials = "authenticate.rejected",
    /// The user is inactive.
    InactiveUser = "authenticate.inactive",
    /// The scheme refused this request (not the credentials).
    SchemeRefused = "authenticate.refused",
    /// The store could not be asked.
    StoreUnavailable = "authenticate.unavailable",
    /// Too many look-ups wait for the store (`[limits] store_pending`).
    StoreBusy = "authenticate.busy",
    /// No credentials where the permission needs some.
    NotAuthenticated = "authorize.not-authenticated",
    /// The permission refuses this user.
    PermissionDenied = "authorize.denied",
    /// TRACE, or a method that a handler has not.
    MethodNotAllowed = "authorize.method",
    /// Over the rate of a throttle.
    Throttled = "throttle.throttled",
    /// Too many failed logins (`[authentication.guard]`).
    GuardThrottled = "throttle.guard",
    /// The body is larger than the route's `max_body`.
    BodyTooLarge = "forward.body-too-large",
    /// The client stopped sending its body (`[limits] body_idle`).
    BodyTimeout = "forward.body-timeout",
    /// The client's body broke off.
    BodyAborted = "forward.body-aborted",
    /// No server of the upstream could be connected to.
    UpstreamUnreachable = "forward.unreachable",
    /// Connecting took longer than `timeout.connect`.
    ConnectTimeout = "forward.connect-timeout",
    /// No connection became free within `queue_time`.
    UpstreamBusy = "forward.busy",
    /// No answer within `timeout.response`.
    ResponseTimeout = "forward.response-timeout",
    /// The connection ended before an answer.
    UpstreamClosed = "forward.closed",
    /// The answer is not valid HTTP.
    UpstreamInvalid = "forward.invalid",
    /// The answer's body broke off, stalled, or was malformed, after its head had been passed on.
    ResponseAborted = "forward.response-aborted",
    /// The client went away before the answer was complete.
    ClientGone = "respond.client-gone",
    /// A handler could not accept its input.
    InvalidInput = "endpoint.invalid-input",
    /// The username and password do not match, or the user is inactive.
    LoginFailed = "endpoint.login-failed",
    /// Too many passwords wait to be checked (`[limits] password_queue`).
    PasswordBusy = "endpoint.busy",
    /// A handler could not write to the store.
    NotWritten = "endpoint.not-written",
    /// A panic: a bug in doorward.
    Internal = "internal",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_is_copy_and_at_most_64_bytes() {
        fn copy<T: Copy>() {}
        copy::<Trace>();
        assert!(size_of::<Trace>() <= 64, "{}", size_of::<Trace>());
    }

    #[test]
    fn reasons_have_distinct_names() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|r| r.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }

    #[test]
    fn outcome_is_that_of_the_last_scheme_asked() {
        let mut trace = Trace::new();
        assert_eq!(trace.outcome(), "anonymous");
        trace.scheme(0, SchemeOutcome::NotMine);
        trace.scheme(1, SchemeOutcome::Rejected);
        assert_eq!(trace.outcome(), "rejected");
        trace.scheme(99, SchemeOutcome::Cached);
        assert_eq!(trace.outcome(), "rejected");
    }
}
