//! Respond: the one place that picks statuses, and the wording of refusals.
//!
//! What the client reads is fixed text; what the log reads is the error's chain. The first never comes from the
//! second, so an internal message cannot slip out.

pub mod body;
pub mod record;

use crate::accept::body::BodyError;
use crate::accept::head::{AcceptError, RequestId};
use crate::authenticate::AuthenticateError;
use crate::authenticate::scheme::Refusal;
use crate::authorize::AuthorizeError;
use crate::forward::ForwardError;
use crate::require_https::InClear;
use crate::respond::body::{Body, detail_json, throttled_json};
use crate::route::RouteError;
use crate::throttle::{ThrottleError, whole_seconds};
use crate::trace::Reason;
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};

/// Why a request is not answered by an upstream: the errors of all stages.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// Sanitise.
    #[error("refused before routing")]
    Accept(#[from] AcceptError),
    /// HTTPS only.
    #[error("came in clear")]
    InClear(#[from] InClear),
    /// Route.
    #[error("not routed")]
    Route(#[from] RouteError),
    /// Authenticate.
    #[error("not authenticated")]
    Authenticate(#[from] AuthenticateError),
    /// Authorize.
    #[error("not authorized")]
    Authorize(#[from] AuthorizeError),
    /// Throttle.
    #[error("throttled")]
    Throttle(#[from] ThrottleError),
    /// Forward.
    #[error("not forwarded")]
    Forward(#[from] ForwardError),
    /// The body is larger than the route allows, or broke off before it was forwarded.
    #[error("the request body failed")]
    Body(#[from] BodyError),
    /// A panic: a bug in doorward.
    #[error("a panic")]
    Internal,
}

/// What an own answer needs to know besides the reason.
#[derive(Debug)]
pub struct AnswerContext<'a> {
    /// The request's id.
    pub request_id: RequestId,
    /// Its method.
    pub method: &'a Method,
    /// The route's challenge; `None`: 403 where there would be 401.
    pub challenge: Option<&'a HeaderValue>,
    /// The route's methods, for `Allow`.
    pub allow: Option<&'a HeaderValue>,
}

/// Status, reason and text of a rejection.
struct Verdict {
    status: StatusCode,
    reason: Reason,
    text: Text,
    retry_after: Option<u64>,
}

enum Text {
    Detail(&'static str),
    Refusal(Refusal),
    MethodNotAllowed,
    None,
    /// Seconds to wait.
    Throttled(Option<u64>),
}

/// Seconds after which a client may ask again when something on our side is away or full.
const RETRY_SECONDS: u64 = 1;

impl Rejection {
    /// Why, for the trace.
    pub fn reason(&self) -> Reason {
        self.verdict(true).reason
    }

    /// The answer.
    pub fn answer(&self, context: &AnswerContext<'_>) -> Response<Body> {
        let verdict = self.verdict(context.challenge.is_some());
        let body = match verdict.text {
            Text::Refusal(Refusal { body: Some(body), .. }) => body,
            Text::Detail(detail) => detail_json(detail),
            Text::Refusal(Refusal { detail, body: None }) => detail_json(&detail),
            Text::None => Bytes::new(),
            Text::Throttled(seconds) => throttled_json(seconds),
            Text::MethodNotAllowed => detail_json(&format!("Method \"{}\" not allowed.", context.method)),
        };
        let mut response = own_answer(verdict.status, body, context.request_id);
        let headers = response.headers_mut();
        match (verdict.status, context.challenge) {
            // RFC 9110 section 15.5.2: a 401 has a challenge; DRF: exactly one, that of the first scheme.
            (StatusCode::UNAUTHORIZED, Some(challenge)) => {
                headers.insert(header::WWW_AUTHENTICATE, challenge.clone());
            }
            (StatusCode::METHOD_NOT_ALLOWED, _) => {
                let all = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS");
                headers.insert(header::ALLOW, context.allow.cloned().unwrap_or(all));
            }
            _ => {}
        }
        if let Self::InClear(in_clear) = self {
            // A redirect, too: that there is only HTTPS is remembered by HSTS, in a form that can be taken back.
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            if let InClear::Redirect(location) = in_clear {
                headers.insert(header::LOCATION, location.clone());
                headers.remove(header::CONTENT_TYPE);
            }
        }
        if let Some(seconds) = verdict.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// The only `match` that picks a status, without `_`: a new error does not compile until it has one.
    fn verdict(&self, has_challenge: bool) -> Verdict {
        // DRF 3.18, `APIView.handle_exception`: without a challenge 401 becomes 403, the text stays.
        let unauthenticated = if has_challenge { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
        let bad_request = |reason| Verdict::new(StatusCode::BAD_REQUEST, reason, "Bad request.");
        let bad_gateway = |reason| Verdict::new(StatusCode::BAD_GATEWAY, reason, "Bad gateway.");
        let late = |reason| Verdict::new(StatusCode::GATEWAY_TIMEOUT, reason, "Gateway timeout.");
        match self {
            Self::Accept(AcceptError::BadHost) => bad_request(Reason::BadHost),
            Self::Accept(AcceptError::BadTarget(_)) | Self::Route(RouteError::Ambiguous) => {
                bad_request(Reason::BadTarget)
            }
            Self::Accept(AcceptError::TargetTooLong) => {
                Verdict::new(StatusCode::URI_TOO_LONG, Reason::TargetTooLong, "URI too long.")
            }
            Self::Accept(AcceptError::TooManyHeaders) => Verdict::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                Reason::TooManyHeaders,
                "Too many header fields.",
            ),
            Self::Accept(AcceptError::Expectation) => {
                Verdict::new(StatusCode::EXPECTATION_FAILED, Reason::Expectation, "Expectation failed.")
            }
            Self::Accept(AcceptError::Connect | AcceptError::Framing | AcceptError::BadName) => {
                bad_request(Reason::BadRequest)
            }
            Self::InClear(InClear::Redirect(_)) => Verdict {
                status: StatusCode::PERMANENT_REDIRECT,
                reason: Reason::None,
                text: Text::None,
                retry_after: None,
            },
            Self::InClear(InClear::Required) => {
                Verdict::new(StatusCode::FORBIDDEN, Reason::PlainHttp, "HTTPS is required.")
            }
            Self::InClear(InClear::Exposed) => Verdict::new(
                StatusCode::FORBIDDEN,
                Reason::ExposedCredentials,
                "HTTPS is required. The credentials were sent unprotected and must be considered exposed.",
            ),
            // DRF's text for a page that is not there.
            Self::Route(RouteError::None) => {
                Verdict::new(StatusCode::NOT_FOUND, Reason::NoRoute, "Not found.")
            }
            Self::Authenticate(AuthenticateError::Malformed(refusal)) => {
                Verdict::refusal(unauthenticated, Reason::MalformedCredentials, refusal)
            }
            Self::Authenticate(AuthenticateError::Rejected(refusal)) => {
                Verdict::refusal(unauthenticated, Reason::RejectedCredentials, refusal)
            }
            Self::Authenticate(AuthenticateError::Inactive(refusal)) => {
                Verdict::refusal(unauthenticated, Reason::InactiveUser, refusal)
            }
            Self::Authenticate(AuthenticateError::Refused(refusal)) => {
                Verdict::refusal(StatusCode::FORBIDDEN, Reason::SchemeRefused, refusal)
            }
            // Never 401: it would make clients throw good credentials away.
            Self::Authenticate(AuthenticateError::Unavailable(_)) => {
                Verdict::unavailable(Reason::StoreUnavailable)
            }
            Self::Authenticate(AuthenticateError::Busy) => Verdict::unavailable(Reason::StoreBusy),
            Self::Authenticate(AuthenticateError::PasswordBusy) => Verdict::unavailable(Reason::PasswordBusy),
            Self::Authenticate(AuthenticateError::TooManyAttempts(too_many)) => {
                let seconds = whole_seconds(too_many.wait);
                Verdict {
                    status: StatusCode::TOO_MANY_REQUESTS,
                    reason: Reason::GuardThrottled,
                    text: Text::Throttled(Some(seconds)),
                    retry_after: Some(seconds),
                }
            }
            Self::Authenticate(AuthenticateError::Body(error))
            | Self::Body(error)
            | Self::Forward(ForwardError::Body(error)) => match error {
                BodyError::TooLarge => Verdict::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    Reason::BodyTooLarge,
                    "Request body too large.",
                ),
                BodyError::TooSlow => {
                    Verdict::new(StatusCode::REQUEST_TIMEOUT, Reason::BodyTimeout, "Request timeout.")
                }
                BodyError::Aborted(_) => bad_request(Reason::BodyAborted),
            },
            // DRF 3.18, `NotAuthenticated.default_detail`.
            Self::Authorize(AuthorizeError::NotAuthenticated) => Verdict::new(
                unauthenticated,
                Reason::NotAuthenticated,
                "Authentication credentials were not provided.",
            ),
            // DRF 3.18, `PermissionDenied.default_detail`.
            Self::Authorize(AuthorizeError::Denied) => Verdict::new(
                StatusCode::FORBIDDEN,
                Reason::PermissionDenied,
                "You do not have permission to perform this action.",
            ),
            Self::Authorize(AuthorizeError::Trace) => Verdict {
                status: StatusCode::METHOD_NOT_ALLOWED,
                reason: Reason::MethodNotAllowed,
                text: Text::MethodNotAllowed,
                retry_after: None,
            },
            Self::Throttle(ThrottleError { wait }) => {
                let seconds = wait.map(whole_seconds);
                Verdict {
                    status: StatusCode::TOO_MANY_REQUESTS,
                    reason: Reason::Throttled,
                    text: Text::Throttled(seconds),
                    // DRF 3.18, `exception_handler`: none for 0.
                    retry_after: seconds.filter(|seconds| *seconds > 0),
                }
            }
            Self::Forward(ForwardError::BodyTimeout) => {
                Verdict::new(StatusCode::REQUEST_TIMEOUT, Reason::BodyTimeout, "Request timeout.")
            }
            Self::Forward(ForwardError::Unreachable(_)) => bad_gateway(Reason::UpstreamUnreachable),
            Self::Forward(ForwardError::Closed(_)) => bad_gateway(Reason::UpstreamClosed),
            Self::Forward(ForwardError::Invalid(_)) => bad_gateway(Reason::UpstreamInvalid),
            Self::Forward(ForwardError::ConnectTimeout) => late(Reason::ConnectTimeout),
            Self::Forward(ForwardError::ResponseTimeout) => late(Reason::ResponseTimeout),
            Self::Forward(ForwardError::Busy) => Verdict::unavailable(Reason::UpstreamBusy),
            Self::Internal => {
                Verdict::new(StatusCode::INTERNAL_SERVER_ERROR, Reason::Internal, "Internal server error.")
            }
        }
    }
}

impl Verdict {
    const fn new(status: StatusCode, reason: Reason, detail: &'static str) -> Self {
        Self { status, reason, text: Text::Detail(detail), retry_after: None }
    }

    fn refusal(status: StatusCode, reason: Reason, refusal: &Refusal) -> Self {
        Self { status, reason, text: Text::Refusal(refusal.clone()), retry_after: None }
    }

    const fn unavailable(reason: Reason) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason,
            text: Text::Detail("Service temporarily unavailable, try again later."),
            retry_after: Some(RETRY_SECONDS),
        }
    }
}

/// A JSON answer of our own.
pub fn own_answer(status: StatusCode, json: Bytes, request_id: RequestId) -> Response<Body> {
    let mut response = Response::new(Body::own(json));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // DRF 3.18, `JSONRenderer`: no charset.
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(id) = HeaderValue::from_str(request_id.as_str()) {
        headers.insert("x-request-id", id);
    }
    response
}
