//! `logout`: ends the session, as Django's `LogoutView` (5.2): by POST alone, and not by the will of another site.

use crate::accept::body::RequestBody;
use crate::accept::head::Head;
use crate::authenticate::scheme::Effects;
use crate::authenticate::schemes::session::SessionSettings;
use crate::authenticate::slow::SlowSide;
use crate::clock::Clock;
use crate::credentials::Credentials;
use crate::endpoint::body::BodyReader;
use crate::endpoint::forged::{self, SessionReader};
use crate::endpoint::login::{next_of, redirect};
use crate::endpoint::login_input;
use crate::endpoint::told::{Told, content_type, wants_json};
use crate::respond::body::Body;
use crate::respond::own_answer;
use crate::store::Store;
use crate::throttle::Admitted;
use crate::trace::Trace;
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use std::sync::Arc;

/// The handler.
#[derive(Debug)]
pub struct Logout {
    /// Ends sessions.
    pub credentials: Arc<Credentials>,
    /// Has the secret against forged requests, where sessions keep it.
    pub store: Arc<dyn Store>,
    /// Where that happens.
    pub slow: SlowSide,
    /// Where bodies come.
    pub bodies: BodyReader,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The instance of the session scheme.
    pub session: Arc<SessionSettings>,
    /// Where a browser goes that was going nowhere else.
    pub redirect: String,
}

const ALLOW: HeaderValue = HeaderValue::from_static("POST, OPTIONS");

impl Logout {
    /// Answers a request.
    pub async fn answer(
        &self,
        _: Admitted,
        head: &Head,
        body: RequestBody,
        effects: &mut Effects,
        trace: &mut Trace,
    ) -> Response<Body> {
        let answered = match head.method {
            Method::POST => self.log_out(head, body, effects).await,
            Method::OPTIONS => {
                body.drain();
                Ok(own_answer(StatusCode::OK, Bytes::new(), head.request_id))
            }
            _ => {
                body.drain();
                Err(Told::MethodNotAllowed)
            }
        };
        let mut answer = answered.unwrap_or_else(|told| told.answer(head, &self.redirect, trace));
        let is_asked = answer.status() == StatusCode::METHOD_NOT_ALLOWED || head.method == Method::OPTIONS;
        let headers = answer.headers_mut();
        if is_asked {
            headers.insert(header::ALLOW, ALLOW);
        }
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        answer
    }

    async fn log_out(
        &self,
        head: &Head,
        body: RequestBody,
        effects: &mut Effects,
    ) -> Result<Response<Body>, Told> {
        let now = self.clock.unix();
        let (visitor, expected) = match forged::expected(
            &self.session,
            head,
            SessionReader { store: &self.store, slow: &self.slow },
            now,
        )
        .await
        {
            Ok(checked) => checked,
            Err(told) => {
                body.drain();
                return Err(told);
            }
        };
        let bytes = self.bodies.collect(body).await?;
        // What is no form has no fields: the token is in the header then.
        let form = login_input::form(content_type(head), bytes.expose()).unwrap_or_default();
        forged::check_token(&self.session, head, expected, form.csrf_token.as_deref())?;
        effects.vary_by_cookie();
        if let Some(key) = visitor.session_key() {
            let credentials = Arc::clone(&self.credentials);
            let ending = async move { credentials.log_out(key).await };
            self.slow.run(ending).await.map_err(|error| Told::of(&error))?;
        }
        effects.set_cookie(&self.session.no_session_cookie());
        if wants_json(head) {
            let mut answer = own_answer(StatusCode::NO_CONTENT, Bytes::new(), head.request_id);
            answer.headers_mut().remove(header::CONTENT_TYPE);
            return Ok(answer);
        }
        let next = next_of(head, form.next);
        Ok(redirect(head, next.as_deref().unwrap_or(&self.redirect)))
    }
}
