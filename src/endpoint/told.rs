//! What the handlers of sessions tell: a page to people, JSON to programs.

use crate::accept::body::BodyError;
use crate::accept::head::Head;
use crate::authenticate::scheme::TooManyAttempts;
use crate::csrf;
use crate::endpoint::body::NotRead;
use crate::endpoint::login_input::{InputError, Missing, REQUIRED};
use crate::endpoint::page::{MISMATCH, MessagePage, STYLE, html};
use crate::navigation::accepts;
use crate::respond::body::{Body, detail_json, throttled_json};
use crate::respond::own_answer;
use crate::throttle::whole_seconds;
use crate::trace::{Reason, Trace};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;
use std::borrow::Cow;

/// Why a request was not done.
#[derive(Debug)]
pub(in crate::endpoint) enum Told {
    MethodNotAllowed,
    Forged(csrf::Reason),
    Body(BodyError),
    BodyTimeout,
    Input(InputError),
    Missing(Missing),
    WrongPassword,
    TooMany(TooManyAttempts),
    Busy,
    Unavailable,
    NotWritten,
}

impl From<NotRead> for Told {
    fn from(error: NotRead) -> Self {
        match error {
            NotRead::Body(error) => Self::Body(error),
            NotRead::Late => Self::BodyTimeout,
        }
    }
}

/// The media type and what belongs to it; of several the last, as in the environment that gunicorn makes.
pub(in crate::endpoint) fn content_type(head: &Head) -> &[u8] {
    let value = head.headers.get_all(header::CONTENT_TYPE).iter().next_back();
    value.map(HeaderValue::as_bytes).unwrap_or_default()
}

/// Whether a program asks: it sends JSON, or asks for it and not for HTML.
pub(in crate::endpoint) fn wants_json(head: &Head) -> bool {
    let sent = content_type(head).split(|byte| *byte == b';').next().unwrap_or_default();
    sent.trim_ascii().eq_ignore_ascii_case(b"application/json")
        || (accepts(head, b"application/json") && !accepts(head, b"text/html"))
}

/// Of one of the pages a browser gets its refusals as pages, too, whichever stage refuses. `again`: where to go on.
pub fn for_people(answer: &mut Response<Body>, head: &Head, again: &str) {
    let status = answer.status();
    if wants_json(head) || !(status.is_client_error() || status.is_server_error()) {
        return;
    }
    let seconds =
        answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let page = Words::of_status(status, seconds).page(head, again);
    let (parts, body) = page.into_parts();
    *answer.body_mut() = body;
    answer.headers_mut().extend(parts.headers);
}

/// What people are told.
struct Words {
    status: StatusCode,
    title: &'static str,
    text: Cow<'static, str>,
    help: Cow<'static, str>,
    reason: String,
}

impl Words {
    fn new(
        status: StatusCode,
        title: &'static str,
        text: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, title, text: text.into(), help: help.into(), reason: String::new() }
    }

    fn of_status(status: StatusCode, seconds: Option<u64>) -> Self {
        match status {
            StatusCode::TOO_MANY_REQUESTS => Self::too_many(seconds),
            StatusCode::SERVICE_UNAVAILABLE => Self::unavailable(),
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(
                status,
                "Too large",
                "What was sent is larger than this page takes.",
                "Open the page again and fill in the form.",
            ),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::new(
                status,
                "Not allowed",
                "You may not use this page.",
                "If you think that you should, ask whoever runs this site.",
            ),
            StatusCode::REQUEST_TIMEOUT => Self::new(
                status,
                "Too slow",
                "What your browser sent did not come in time.",
                "Check your connection, then try again.",
            ),
            _ if status.is_server_error() => Self::new(
                status,
                "Something went wrong",
                "This is our fault, not yours.",
                "Try again. If it does not help, tell whoever runs this site.",
            ),
            _ => Self::new(
                status,
                "Not understood",
                "What your browser sent cannot be read.",
                "Open the page again and fill in the form.",
            ),
        }
    }

    fn too_many(seconds: Option<u64>) -> Self {
        let wait = match seconds {
            None => "a moment".to_owned(),
            Some(1) => "1 second".to_owned(),
            Some(seconds @ 0..=119) => format!("{seconds} seconds"),
            Some(seconds) => format!("{} minutes", seconds.div_ceil(60)),
        };
        let help = format!("Wait for {wait}, then try again.");
        Self::new(StatusCode::TOO_MANY_REQUESTS, "Too many attempts", "This was tried too often.", help)
    }

    fn unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Not available at the moment",
            "Nothing is wrong with what you typed in: it could not be checked.",
            "Try again in a moment.",
        )
    }

    fn page(&self, head: &Head, again: &str) -> Response<Body> {
        let Self { status, title, text, help, reason } = self;
        let id = head.request_id;
        let page = MessagePage { title, text, help, reason, again, request_id: id.as_str(), style: STYLE };
        html(*status, &page, id)
    }
}

impl Told {
    /// For the trace.
    pub(in crate::endpoint) fn reason(&self) -> Reason {
        match self {
            Self::MethodNotAllowed => Reason::MethodNotAllowed,
            Self::Forged(_) => Reason::SchemeRefused,
            Self::Body(BodyError::TooLarge) => Reason::BodyTooLarge,
            Self::Body(BodyError::Aborted(_)) => Reason::BodyAborted,
            Self::Body(BodyError::TooSlow) | Self::BodyTimeout => Reason::BodyTimeout,
            Self::Input(_) | Self::Missing(_) => Reason::InvalidInput,
            Self::WrongPassword => Reason::LoginFailed,
            Self::TooMany(_) => Reason::GuardThrottled,
            Self::Busy => Reason::PasswordBusy,
            Self::Unavailable => Reason::StoreUnavailable,
            Self::NotWritten => Reason::NotWritten,
        }
    }

    /// The answer. `again`: where people may go on; empty: where they are.
    pub(in crate::endpoint) fn answer(self, head: &Head, again: &str, trace: &mut Trace) -> Response<Body> {
        trace.reason = self.reason();
        if let Self::TooMany(too_many) = &self {
            trace.throttled(too_many.by, Some(too_many.wait));
        }
        let mut answer = if wants_json(head) {
            let (status, json) = self.json(head);
            own_answer(status, json, head.request_id)
        } else {
            self.words(head).page(head, again)
        };
        if let Some(seconds) = self.wait() {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        answer
    }

    /// Seconds after which it may be tried again.
    fn wait(&self) -> Option<u64> {
        match self {
            Self::TooMany(too_many) => Some(whole_seconds(too_many.wait)),
            Self::Busy | Self::Unavailable | Self::NotWritten => Some(1),
            _ => None,
        }
    }

    /// Programs are told what DRF tells them.
    fn json(&self, head: &Head) -> (StatusCode, Bytes) {
        let unavailable = || detail_json("Service temporarily unavailable, try again later.");
        match self {
            Self::MethodNotAllowed => {
                let text = format!("Method \"{}\" not allowed.", head.method);
                (StatusCode::METHOD_NOT_ALLOWED, detail_json(&text))
            }
            Self::Forged(reason) => {
                (StatusCode::FORBIDDEN, detail_json(&format!("CSRF Failed: {}", reason.text())))
            }
            Self::Body(BodyError::TooLarge) => {
                (StatusCode::PAYLOAD_TOO_LARGE, detail_json("Request body too large."))
            }
            Self::Body(BodyError::Aborted(_)) => (StatusCode::BAD_REQUEST, detail_json("Bad request.")),
            Self::Body(BodyError::TooSlow) | Self::BodyTimeout => {
                (StatusCode::REQUEST_TIMEOUT, detail_json("Request timeout."))
            }
            Self::Input(InputError::MediaType(given)) => {
                let text = format!("Unsupported media type \"{given}\" in request.");
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, detail_json(&text))
            }
            Self::Input(InputError::Invalid(errors)) => {
                (StatusCode::BAD_REQUEST, Bytes::from(errors.to_string()))
            }
            Self::Missing(missing) => (StatusCode::BAD_REQUEST, missing_json(*missing)),
            Self::WrongPassword => {
                let errors = json!({ "non_field_errors": [MISMATCH] });
                (StatusCode::BAD_REQUEST, Bytes::from(errors.to_string()))
            }
            Self::TooMany(too_many) => {
                let json = throttled_json(Some(whole_seconds(too_many.wait)));
                (StatusCode::TOO_MANY_REQUESTS, json)
            }
            Self::Busy | Self::Unavailable | Self::NotWritten => {
                (StatusCode::SERVICE_UNAVAILABLE, unavailable())
            }
        }
    }

    fn words(&self, head: &Head) -> Words {
        match self {
            Self::MethodNotAllowed => Words::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "Not understood",
                format!("Method \"{}\" not allowed.", head.method),
                "Go on from the page before this one.",
            ),
            // The text is Django's (5.2, `views.csrf`).
            Self::Forged(reason) => Words {
                reason: reason.text(),
                ..Words::new(
                    StatusCode::FORBIDDEN,
                    "Your request was refused",
                    "CSRF verification failed. Request aborted. This protects you from other sites that send forms \
                     in your name; it also happens if your browser does not keep the cookies of this site.",
                    "Allow cookies for this site, then open the page again.",
                )
            },
            Self::Body(BodyError::TooLarge) => Words::of_status(StatusCode::PAYLOAD_TOO_LARGE, None),
            Self::Body(BodyError::TooSlow) | Self::BodyTimeout => {
                Words::of_status(StatusCode::REQUEST_TIMEOUT, None)
            }
            Self::Input(InputError::MediaType(_)) => {
                Words::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, None)
            }
            // The login page itself says so to people.
            Self::Missing(_) | Self::WrongPassword => Words::of_status(StatusCode::BAD_REQUEST, None),
            Self::Body(BodyError::Aborted(_)) | Self::Input(InputError::Invalid(_)) => {
                Words::of_status(StatusCode::BAD_REQUEST, None)
            }
            Self::TooMany(too_many) => Words::too_many(Some(whole_seconds(too_many.wait))),
            Self::Busy | Self::Unavailable | Self::NotWritten => Words::unavailable(),
        }
    }
}

/// DRF 3.18, `Serializer.errors`.
fn missing_json(missing: Missing) -> Bytes {
    let mut errors = serde_json::Map::new();
    for (name, is_missing) in [("username", missing.username), ("password", missing.password)] {
        if is_missing {
            errors.insert(name.to_owned(), json!([REQUIRED]));
        }
    }
    Bytes::from(serde_json::Value::Object(errors).to_string())
}
