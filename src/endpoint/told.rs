//! What the handlers of sessions tell: a page to people, JSON to programs.

use crate::accept::body::BodyError;
use crate::accept::head::Head;
use crate::authenticate::scheme::TooManyAttempts;
use crate::csrf;
use crate::endpoint::body::NotRead;
use crate::endpoint::login_input::InputError;
use crate::endpoint::page::{MessagePage, STYLE, html};
use crate::respond::body::{Body, detail_json, throttled_json};
use crate::respond::own_answer;
use crate::throttle::whole_seconds;
use crate::trace::{Reason, Trace};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

/// Why a request was not done.
#[derive(Debug)]
pub(in crate::endpoint) enum Told {
    MethodNotAllowed,
    Forged(csrf::Reason),
    Body(BodyError),
    BodyTimeout,
    Input(InputError),
    Incomplete,
    WrongPassword(&'static str),
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

/// Whether a program asks: it sends JSON, or asks for it and not for HTML.
pub(in crate::endpoint) fn wants_json(head: &Head) -> bool {
    let has = |name: header::HeaderName, what: &[u8]| {
        head.headers.get_all(name).iter().any(|value| {
            value.as_bytes().to_ascii_lowercase().windows(what.len()).any(|window| window == what)
        })
    };
    has(header::CONTENT_TYPE, b"application/json")
        || (has(header::ACCEPT, b"application/json") && !has(header::ACCEPT, b"text/html"))
}

/// Status, title and text.
struct Words {
    status: StatusCode,
    title: &'static str,
    text: String,
    reason: String,
}

impl Words {
    fn new(status: StatusCode, title: &'static str, text: &str) -> Self {
        Self { status, title, text: text.to_owned(), reason: String::new() }
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
            Self::Input(_) | Self::Incomplete => Reason::InvalidInput,
            Self::WrongPassword(_) => Reason::LoginFailed,
            Self::TooMany(_) => Reason::GuardThrottled,
            Self::Busy => Reason::PasswordBusy,
            Self::Unavailable => Reason::StoreUnavailable,
            Self::NotWritten => Reason::NotWritten,
        }
    }

    /// The answer.
    pub(in crate::endpoint) fn answer(self, head: &Head, trace: &mut Trace) -> Response<Body> {
        trace.reason = self.reason();
        if let Self::TooMany(too_many) = &self {
            trace.throttled(too_many.by, Some(too_many.wait));
        }
        let wait = self.wait();
        let mut answer = if wants_json(head) {
            let (status, json) = self.json(head);
            own_answer(status, json, head.request_id)
        } else {
            let Words { status, title, text, reason } = self.words(head);
            let page = MessagePage { title, text: &text, reason: &reason, style: STYLE };
            html(status, &page, head.request_id)
        };
        if let Some(seconds) = wait {
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

    fn json(&self, head: &Head) -> (StatusCode, Bytes) {
        let words = self.words(head);
        let json = match self {
            Self::Forged(reason) => detail_json(&format!("CSRF Failed: {}", reason.text())),
            Self::Input(InputError::Invalid(errors)) => Bytes::from(errors.to_string()),
            Self::WrongPassword(text) => Bytes::from(json!({ "non_field_errors": [text] }).to_string()),
            Self::TooMany(too_many) => throttled_json(Some(whole_seconds(too_many.wait))),
            _ => detail_json(&words.text),
        };
        let is_input = matches!(self, Self::WrongPassword(_) | Self::Incomplete);
        (if is_input { StatusCode::BAD_REQUEST } else { words.status }, json)
    }

    fn words(&self, head: &Head) -> Words {
        let unavailable = || {
            Words::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "Not available",
                "Service temporarily unavailable, try again later.",
            )
        };
        match self {
            Self::MethodNotAllowed => {
                let text = format!("Method \"{}\" not allowed.", head.method);
                Words::new(StatusCode::METHOD_NOT_ALLOWED, "Not allowed", &text)
            }
            // Django 5.2, `views.csrf`.
            Self::Forged(reason) => Words {
                status: StatusCode::FORBIDDEN,
                title: "Forbidden",
                text: "CSRF verification failed. Request aborted.".to_owned(),
                reason: reason.text(),
            },
            Self::Body(BodyError::TooLarge) => {
                Words::new(StatusCode::PAYLOAD_TOO_LARGE, "Too large", "Request body too large.")
            }
            Self::Body(BodyError::Aborted(_)) => {
                Words::new(StatusCode::BAD_REQUEST, "Bad request", "Bad request.")
            }
            Self::Body(BodyError::TooSlow) | Self::BodyTimeout => {
                Words::new(StatusCode::REQUEST_TIMEOUT, "Too late", "Request timeout.")
            }
            Self::Input(InputError::MediaType(given)) => {
                let text = format!("Unsupported media type \"{given}\" in request.");
                Words::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Not understood", &text)
            }
            Self::Input(InputError::Invalid(_)) => {
                Words::new(StatusCode::BAD_REQUEST, "Bad request", "Bad request.")
            }
            Self::Incomplete => {
                Words::new(StatusCode::OK, "Log in", "A username and a password are required.")
            }
            Self::WrongPassword(text) => Words::new(StatusCode::OK, "Log in", text),
            Self::TooMany(too_many) => {
                let seconds = whole_seconds(too_many.wait);
                let unit = if seconds == 1 { "second" } else { "seconds" };
                let text = format!("Too many attempts failed. Try again in {seconds} {unit}.");
                Words::new(StatusCode::TOO_MANY_REQUESTS, "Too many attempts", &text)
            }
            Self::Busy | Self::Unavailable | Self::NotWritten => unavailable(),
        }
    }
}
