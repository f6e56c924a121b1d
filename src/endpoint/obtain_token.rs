//! `obtain-token`: a username and a password for a token, as DRF's `ObtainAuthToken` (3.18).
//!
//! Only over HTTPS: a password in clear is not read at all.

use crate::accept::body::{BodyError, RequestBody};
use crate::accept::head::Head;
use crate::authenticate::password::NotChecked;
use crate::authenticate::scheme::TooManyAttempts;
use crate::authenticate::slow::{SlowError, SlowSide};
use crate::config::TokenFamily;
use crate::credentials::{CreatedToken, Credentials, CredentialsError};
use crate::endpoint::body::{BodyReader, NotRead};
use crate::endpoint::login_input;
use crate::endpoint::login_input::InputError;
use crate::login::Logins;
use crate::respond::body::{Body, detail_json, throttled_json};
use crate::respond::own_answer;
use crate::secret::Secret;
use crate::store::StoreError;
use crate::throttle::{Admitted, whole_seconds};
use crate::trace::{Reason, Trace};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};
use std::sync::Arc;

/// The handler.
#[derive(Debug)]
pub struct ObtainToken {
    /// Checks names and passwords.
    pub logins: Arc<Logins>,
    /// Makes tokens.
    pub credentials: Arc<Credentials>,
    /// Of which kind.
    pub family: TokenFamily,
    /// Where that happens.
    pub slow: SlowSide,
    /// Where bodies come.
    pub bodies: BodyReader,
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
    TooMany(TooManyAttempts),
    Login,
    Busy,
    Unavailable,
    NotWritten,
}

/// What DRF's view answers to.
pub const ALLOW: HeaderValue = HeaderValue::from_static("POST, OPTIONS");

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
            Err(refused) => refused.answer(head, trace),
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
        let input = self.bodies.collect(body).await?;
        let login = login_input::read(content_type, input.expose())?;
        drop(input);
        let checked = self.logins.check_password(head.client.address, login.username, login.password).await?;
        let user = checked.map(|found| found.user).filter(|user| user.is_active).ok_or(Refused::Login)?;
        let (credentials, family) = (Arc::clone(&self.credentials), self.family);
        let made = self.slow.run(async move {
            match family {
                TokenFamily::Authtoken => credentials.obtain_key(&user).await,
                TokenFamily::Doorward => {
                    Ok(credentials.grant_token(&user).await?.map(|CreatedToken { key, id: _ }| key))
                }
            }
        });
        // The password was right; `None`: since then it was changed.
        made.await.map_err(|error| Refused::of(&error))?.map(Obtained::Token).ok_or(Refused::Login)
    }
}

impl From<NotRead> for Refused {
    fn from(error: NotRead) -> Self {
        match error {
            NotRead::Body(error) => Self::Body(error),
            NotRead::Late => Self::BodyTimeout,
        }
    }
}

impl From<NotChecked> for Refused {
    fn from(error: NotChecked) -> Self {
        match error {
            NotChecked::TooMany(too_many) => Self::TooMany(too_many),
            NotChecked::Busy => Self::Busy,
            NotChecked::Store(error) => {
                let error = error.as_ref().map(|error| error as &dyn std::error::Error);
                tracing::warn!(error, "no password was checked");
                Self::Unavailable
            }
        }
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
        if matches!(error, SlowError::Busy) {
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
                trace.throttled(refusal.by, Some(refusal.wait));
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
