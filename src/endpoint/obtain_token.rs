//! `obtain-token`: a username and a password for a token, as DRF's `ObtainAuthToken` (3.18).
//!
//! Only over HTTPS: a password in clear is not read at all.

use crate::accept::body::{BodyError, RequestBody};
use crate::accept::head::{Head, RequestId};
use crate::authenticate::slow::{SlowError, SlowSide};
use crate::clock::Clock;
use crate::credentials::{CreatedToken, Credentials, CredentialsError};
use crate::endpoint::login_input;
use crate::endpoint::login_input::InputError;
use crate::password::PasswordError;
use crate::respond::body::{Body, detail_json, throttled_json};
use crate::respond::own_answer;
use crate::secret::Secret;
use crate::store::StoreError;
use crate::throttle::guard::{Guard, TooMany};
use crate::throttle::waiting::WaitingRoom;
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
    /// Where bodies wait for the rest of them, of all routes together: each is kept in memory meanwhile, and one client
    /// may send tens of thousands at a time. A whole one comes at once, so it is the slowest that has to go.
    pub bodies: Arc<WaitingRoom>,
    /// Where those wait for their answer that came too often, or when too many came.
    pub too_many: Arc<WaitingRoom>,
}

/// How long they do, and up to as long again: those who were refused together must not come again together.
const TOO_MANY_TIME: Duration = Duration::from_millis(500);

/// A part of [`TOO_MANY_TIME`]; ids of requests are as good as random.
fn spread(id: RequestId) -> Duration {
    TOO_MANY_TIME / 256 * u32::from(id.byte())
}

/// What a request gets.
#[derive(Debug)]
enum Obtained {
    Token(Secret),
    /// To OPTIONS.
    Description,
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

/// DRF 3.18, `SimpleMetadata` of `ObtainAuthToken`.
const DESCRIPTION: &str = r#"{"name":"Obtain Auth Token","description":"","renders":["application/json"],"parses":["application/x-www-form-urlencoded","multipart/form-data","application/json"],"actions":{"POST":{"username":{"type":"string","required":true,"read_only":false,"label":"Username"},"password":{"type":"string","required":true,"read_only":false,"label":"Password"},"token":{"type":"string","required":false,"read_only":true,"label":"Token"}}}}"#;

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
            Ok(Obtained::Token(key)) => {
                let key = String::from_utf8_lossy(key.expose()).into_owned();
                own_answer(StatusCode::OK, json_bytes(&json!({ "token": key })), head.request_id)
            }
            Ok(Obtained::Description) => {
                own_answer(StatusCode::OK, Bytes::from_static(DESCRIPTION.as_bytes()), head.request_id)
            }
            Err(refused) => {
                if matches!(refused, Refused::TooMany(_) | Refused::Busy) {
                    // Whoever comes again at once costs as much as many clients: a moment costs only those.
                    self.too_many.wait(TOO_MANY_TIME + spread(head.request_id)).await;
                }
                refused.answer(head, trace)
            }
        };
        finished(answer)
    }

    async fn obtain(&self, head: &Head, body: RequestBody) -> Result<Obtained, Refused> {
        if head.method == Method::OPTIONS {
            body.drain();
            return Ok(Obtained::Description);
        }
        if head.method != Method::POST {
            body.drain();
            return Err(Refused::Method);
        }
        if !head.client.is_https {
            body.drain();
            return Err(Refused::NotHttps);
        }
        // Of several the last, as in the environment that gunicorn makes.
        let content_type = head.headers.get_all(header::CONTENT_TYPE).iter().next_back();
        let content_type = content_type.map(HeaderValue::as_bytes).unwrap_or_default();
        let input = self.collect(body).await?;
        let login = login_input::read(content_type, input.expose())?;
        drop(input);
        let attempt = self.guard.attempt(head.client.address, &login.username, self.clock.as_ref());
        let mut attempt = attempt.await.map_err(Refused::TooMany)?;
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
                Ok(Obtained::Token(key))
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

    /// The whole body; what does not come whole is drained as other refused bodies are.
    async fn collect(&self, mut body: RequestBody) -> Result<Secret, Refused> {
        let collected = tokio::select! {
            biased;
            collected = body.collect_all() => collected.map_err(Refused::Body),
            () = self.bodies.wait(self.body_time) => Err(Refused::BodyTimeout),
        };
        let refused = match collected {
            Ok(bytes) => return Ok(Secret::new(bytes)),
            Err(refused) => refused,
        };
        body.drain();
        Err(refused)
    }
}

impl From<InputError> for Refused {
    fn from(error: InputError) -> Self {
        match error {
            InputError::MediaType(given) => Self::MediaType(given),
            InputError::Invalid(errors) => Self::Input(json_bytes(&errors)),
        }
    }
}

impl Refused {
    fn of(error: &SlowError<CredentialsError>) -> Self {
        if matches!(
            error,
            SlowError::Busy | SlowError::Failed(CredentialsError::Password(PasswordError::Busy))
        ) {
            // The request's own line says so; in a flood a second one would only cost.
            return Self::Busy;
        }
        tracing::warn!(error = error as &dyn std::error::Error, "no token was made");
        match error {
            SlowError::Failed(CredentialsError::Store(StoreError::NotWritten(_) | StoreError::Conflict)) => {
                Self::NotWritten
            }
            SlowError::Busy | SlowError::Late | SlowError::Panicked | SlowError::Failed(_) => {
                Self::Unavailable
            }
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
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
        }
        answer
    }
}

/// As DRF's `JSONRenderer` writes it: raw beyond ASCII, but for two characters that end a line in JavaScript.
fn json_bytes(value: &Value) -> Bytes {
    Bytes::from(value.to_string().replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029"))
}

/// Answers about credentials are nobody else's. DRF names the methods in every answer.
fn finished(mut answer: Response<Body>) -> Response<Body> {
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::ALLOW, ALLOW);
    answer
}
