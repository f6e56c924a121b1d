//! `obtain-token`: a username and a password for a token, as DRF's `ObtainAuthToken` (3.18) in its JSON form.
//!
//! Only over HTTPS: a password in clear is not read at all.

use crate::accept::body::{BodyError, RequestBody};
use crate::accept::head::Head;
use crate::authenticate::slow::{SlowError, SlowSide};
use crate::clock::Clock;
use crate::credentials::{CreatedToken, Credentials, CredentialsError};
use crate::password::PasswordError;
use crate::respond::body::{Body, detail_json, throttled_json};
use crate::respond::own_answer;
use crate::secret::Secret;
use crate::store::StoreError;
use crate::throttle::guard::{Guard, TooMany};
use crate::throttle::{Admitted, whole_seconds};
use crate::trace::{Reason, Trace};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The handler.
#[derive(Debug)]
pub struct ObtainToken {
    /// Checks passwords and makes tokens.
    pub credentials: Arc<Credentials>,
    /// Counts those that failed.
    pub guard: Arc<Guard>,
    /// When they did.
    pub clock: Arc<dyn Clock>,
    /// Where that happens.
    pub slow: SlowSide,
    /// Longest time for the body to come.
    pub body_time: Duration,
}

/// Why no token was made.
#[derive(Debug)]
enum Refused {
    Method,
    NotHttps,
    Body(BodyError),
    BodyTimeout,
    MediaType(String),
    Input(Bytes),
    TooMany(TooMany),
    Login,
    Busy,
    Unavailable,
    NotWritten,
}

const ALLOW: HeaderValue = HeaderValue::from_static("POST, OPTIONS");

impl ObtainToken {
    /// Answers a request.
    pub async fn answer(
        &self,
        _: Admitted,
        head: &Head,
        body: RequestBody,
        trace: &mut Trace,
    ) -> Response<Body> {
        let answer = match self.obtain(head, body).await {
            Ok(key) => {
                let key = String::from_utf8_lossy(key.expose()).into_owned();
                own_answer(StatusCode::OK, json_bytes(&json!({ "token": key })), head.request_id)
            }
            Err(refused) => refused.answer(head, trace),
        };
        no_store(answer)
    }

    async fn obtain(&self, head: &Head, body: RequestBody) -> Result<Secret, Refused> {
        if head.method != Method::POST {
            body.drain();
            return Err(Refused::Method);
        }
        if !head.client.is_https {
            body.drain();
            return Err(Refused::NotHttps);
        }
        let input = match media_type(head) {
            _ if body.is_empty() => Bytes::from_static(b"{}"),
            Ok(()) => {
                let collected = tokio::time::timeout(self.body_time, body.collect_all()).await;
                collected.map_err(|_| Refused::BodyTimeout)?.map_err(Refused::Body)?
            }
            Err(given) => {
                body.drain();
                return Err(Refused::MediaType(given));
            }
        };
        let input = Secret::new(input);
        let login = Login::read(input.expose()).map_err(|errors| Refused::Input(json_bytes(&errors)))?;
        let now = self.clock.monotonic();
        let attempt =
            self.guard.attempt(head.client.address, &login.username, now).map_err(Refused::TooMany)?;
        attempt.wait().await;
        let credentials = Arc::clone(&self.credentials);
        let created = self.slow.run(async move {
            let Some(user) = credentials.login(&login.username, login.password).await? else {
                return Ok(None);
            };
            credentials.grant_token(&user).await
        });
        match created.await {
            Ok(Some(CreatedToken { key, id: _ })) => {
                attempt.succeeded();
                Ok(key)
            }
            Ok(None) => {
                attempt.failed();
                Err(Refused::Login)
            }
            // Nobody checked the password, or it was right and no token could be made.
            Err(error) => {
                attempt.not_checked();
                Err(Refused::of(&error))
            }
        }
    }
}

impl Refused {
    fn of(error: &SlowError<CredentialsError>) -> Self {
        tracing::warn!(error = error as &dyn std::error::Error, "no token was made");
        match error {
            SlowError::Busy | SlowError::Failed(CredentialsError::Password(PasswordError::Busy)) => {
                Self::Busy
            }
            SlowError::Failed(CredentialsError::Store(StoreError::NotWritten(_) | StoreError::Conflict)) => {
                Self::NotWritten
            }
            SlowError::Late | SlowError::Panicked | SlowError::Failed(_) => Self::Unavailable,
        }
    }

    fn answer(self, head: &Head, trace: &mut Trace) -> Response<Body> {
        let mut retry_after = 1;
        let unavailable = detail_json("Service temporarily unavailable, try again later.");
        let (reason, status, json) = match self {
            Self::Method => {
                let text = format!("Method \"{}\" not allowed.", head.method);
                (Reason::MethodNotAllowed, StatusCode::METHOD_NOT_ALLOWED, detail_json(&text))
            }
            Self::NotHttps => {
                (Reason::InvalidInput, StatusCode::FORBIDDEN, detail_json("HTTPS is required."))
            }
            Self::Body(BodyError::TooLarge) => {
                (Reason::BodyTooLarge, StatusCode::PAYLOAD_TOO_LARGE, detail_json("Request body too large."))
            }
            Self::Body(BodyError::Aborted(_)) => {
                (Reason::BodyAborted, StatusCode::BAD_REQUEST, detail_json("Bad request."))
            }
            Self::BodyTimeout | Self::Body(BodyError::TooSlow) => {
                (Reason::BodyTimeout, StatusCode::REQUEST_TIMEOUT, detail_json("Request timeout."))
            }
            Self::MediaType(given) => {
                let text = format!("Unsupported media type \"{given}\" in request.");
                (Reason::InvalidInput, StatusCode::UNSUPPORTED_MEDIA_TYPE, detail_json(&text))
            }
            Self::Input(errors) => (Reason::InvalidInput, StatusCode::BAD_REQUEST, errors),
            Self::TooMany(refusal) => {
                refusal.note(trace);
                retry_after = whole_seconds(refusal.wait);
                let json = throttled_json(Some(retry_after));
                (Reason::GuardThrottled, StatusCode::TOO_MANY_REQUESTS, json)
            }
            Self::Login => {
                // DRF 3.18, `AuthTokenSerializer.validate`: one text for wrong, unknown and inactive.
                let errors = json!({ "non_field_errors": ["Unable to log in with provided credentials."] });
                (Reason::LoginFailed, StatusCode::BAD_REQUEST, json_bytes(&errors))
            }
            Self::Busy => (Reason::PasswordBusy, StatusCode::SERVICE_UNAVAILABLE, unavailable),
            Self::Unavailable => (Reason::StoreUnavailable, StatusCode::SERVICE_UNAVAILABLE, unavailable),
            Self::NotWritten => (Reason::NotWritten, StatusCode::SERVICE_UNAVAILABLE, unavailable),
        };
        trace.reason = reason;
        let mut answer = own_answer(status, json, head.request_id);
        if status == StatusCode::METHOD_NOT_ALLOWED {
            answer.headers_mut().insert(header::ALLOW, ALLOW);
        }
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
        }
        answer
    }
}

/// Whether the body is JSON; otherwise the whole value given, for the text (DRF 3.18, `UnsupportedMediaType`).
fn media_type(head: &Head) -> Result<(), String> {
    let given = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let essence = given.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if essence.eq_ignore_ascii_case(b"application/json") {
        Ok(())
    } else {
        Err(given.iter().map(|byte| char::from(*byte)).collect())
    }
}

/// What a client logs in with.
#[derive(Debug)]
struct Login {
    username: String,
    password: Secret,
}

impl Login {
    /// Reads and validates, as DRF's `AuthTokenSerializer` does: all fields' errors together.
    fn read(input: &[u8]) -> Result<Self, Value> {
        let mut document: Value = match serde_json::from_slice(input) {
            Ok(document) => document,
            // The parser's own words could repeat what was sent; only the place is told.
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                return Err(json!({ "detail": format!("JSON parse error - line {line} column {column}") }));
            }
        };
        let fields = match &mut document {
            Value::Object(fields) => fields,
            Value::Null => return Err(json!({ "non_field_errors": ["No data provided"] })),
            other => {
                let text = format!("Invalid data. Expected a dictionary, but got {}.", python_type(other));
                return Err(json!({ "non_field_errors": [text] }));
            }
        };
        let username = text(fields.remove("username"), Trim::Yes);
        let password = text(fields.remove("password"), Trim::No);
        match (username, password) {
            (Ok(username), Ok(password)) => Ok(Self { username, password: Secret::new(password) }),
            (username, password) => {
                let mut errors = serde_json::Map::new();
                for (name, result) in [("username", username), ("password", password)] {
                    if let Err(message) = result {
                        errors.insert(name.to_owned(), json!([message]));
                    }
                }
                Err(Value::Object(errors))
            }
        }
    }
}

/// Whether blanks around a value count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trim {
    Yes,
    No,
}

/// DRF 3.18, `CharField`.
fn text(value: Option<Value>, trim: Trim) -> Result<String, &'static str> {
    let text = match value {
        None => return Err("This field is required."),
        Some(Value::Null) => return Err("This field may not be null."),
        Some(Value::String(text)) => text,
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => return Err("Not a valid string."),
    };
    let text = if trim == Trim::Yes { text.trim().to_owned() } else { text };
    if text.is_empty() {
        Err("This field may not be blank.")
    } else if text.contains('\0') {
        Err("Null characters are not allowed.")
    } else {
        Ok(text)
    }
}

/// What Python calls the type of a JSON value.
fn python_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

fn json_bytes(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

/// Answers about credentials are nobody else's.
fn no_store(mut answer: Response<Body>) -> Response<Body> {
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(input: &str) -> String {
        Login::read(input.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_username_is_trimmed_and_a_password_is_not() {
        let login = Login::read(br#"{"username": " alice ", "password": " x "}"#).unwrap();
        assert_eq!((login.username.as_str(), login.password), ("alice", Secret::new(*b" x ")));
        let numbers = Login::read(br#"{"username": 1, "password": 2}"#).unwrap();
        assert_eq!(numbers.username, "1");
    }

    #[test]
    fn errors_of_all_fields_come_together_in_drf_order() {
        let required = r#"{"username":["This field is required."],"password":["This field is required."]}"#;
        assert_eq!(errors("{}"), required);
        assert_eq!(
            errors(r#"{"username": "  ", "password": null}"#),
            r#"{"username":["This field may not be blank."],"password":["This field may not be null."]}"#
        );
        assert_eq!(
            errors(r#"{"username": true, "password": "a\u0000"}"#),
            r#"{"username":["Not a valid string."],"password":["Null characters are not allowed."]}"#
        );
    }

    #[test]
    fn documents_that_are_no_dictionary_are_named_as_python_does() {
        for (input, name) in
            [("[]", "list"), ("\"x\"", "str"), ("1", "int"), ("1.5", "float"), ("true", "bool")]
        {
            let text =
                format!(r#"{{"non_field_errors":["Invalid data. Expected a dictionary, but got {name}."]}}"#);
            assert_eq!(errors(input), text);
        }
        assert_eq!(errors("null"), r#"{"non_field_errors":["No data provided"]}"#);
    }

    #[test]
    fn errors_never_repeat_what_was_sent() {
        assert!(!errors(r#"{"password": "hunter2" oops}"#).contains("hunter2"));
    }
}
