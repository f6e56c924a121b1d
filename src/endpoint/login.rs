//! `login`: a page that asks for a name and a password, and a session for the right ones, as Django's `LoginView` (5.2).
//!
//! A browser is given pages, and whoever sends or asks for JSON is given that. Works without scripts.

use crate::accept::body::RequestBody;
use crate::accept::head::Head;
use crate::authenticate::password::NotChecked;
use crate::authenticate::scheme::Effects;
use crate::authenticate::schemes::session::{Presented, SessionSettings, new_csrf_secret};
use crate::authenticate::slow::{SlowError, SlowSide};
use crate::credentials::{CreatedSession, Credentials, CredentialsError};
use crate::csrf::CsrfSecret;
use crate::endpoint::body::BodyReader;
use crate::endpoint::forged::{self, Held, SessionReader};
use crate::endpoint::login_input::{self, Form};
use crate::endpoint::page::{LoginPage, STYLE, Shown, Wrong, html};
use crate::endpoint::told::{Told, content_type, wants_json};
use crate::identity::{SchemeKind, User};
use crate::login::Logins;
use crate::navigation::{self, is_local_path};
use crate::respond::body::Body;
use crate::respond::own_answer;
use crate::secret::Secret;
use crate::store::{Store, StoreError};
use crate::throttle::Admitted;
use crate::trace::Trace;
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::json;
use std::sync::Arc;

/// The handler.
#[derive(Debug)]
pub struct Login {
    /// Checks names and passwords.
    pub logins: Arc<Logins>,
    /// Makes sessions.
    pub credentials: Arc<Credentials>,
    /// Has the secret against forged requests, where sessions keep it.
    pub store: Arc<dyn Store>,
    /// Where that happens.
    pub slow: SlowSide,
    /// Where bodies come.
    pub bodies: BodyReader,
    /// The instance of the session scheme.
    pub session: Arc<SessionSettings>,
    /// Where a browser goes that was going nowhere else.
    pub redirect: String,
}

const ALLOW: HeaderValue = HeaderValue::from_static("GET, POST, HEAD, OPTIONS");
impl Login {
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
            Method::GET | Method::HEAD => {
                body.drain();
                self.show(head, effects).await
            }
            Method::POST => self.log_in(head, body, effects, trace).await,
            Method::OPTIONS => {
                body.drain();
                Ok(own_answer(StatusCode::OK, Bytes::new(), head.request_id))
            }
            _ => {
                body.drain();
                Err(Told::MethodNotAllowed)
            }
        };
        let mut answer = answered.unwrap_or_else(|told| told.answer(head, "", trace));
        let is_asked = answer.status() == StatusCode::METHOD_NOT_ALLOWED || head.method == Method::OPTIONS;
        let headers = answer.headers_mut();
        if is_asked {
            headers.insert(header::ALLOW, ALLOW);
        }
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        answer
    }

    /// The page, with where it leads to afterwards.
    async fn show(&self, head: &Head, effects: &mut Effects) -> Result<Response<Body>, Told> {
        let next = next_of(head, None);
        let shown = Shown { next: next.as_deref().unwrap_or_default(), ..Shown::default() };
        self.page(head, shown, effects).await
    }

    async fn page(
        &self,
        head: &Head,
        shown: Shown<'_>,
        effects: &mut Effects,
    ) -> Result<Response<Body>, Told> {
        effects.vary_by_cookie();
        let secret = self.secret(head, effects).await?;
        let mask = new_csrf_secret().map_err(|_| Told::Unavailable)?;
        let token = secret.mask(&mask);
        let page = LoginPage { csrf_token: &token, shown, style: STYLE };
        Ok(html(StatusCode::OK, &page, head.request_id))
    }

    /// The secret against forged requests: the one that the client has, or a new one.
    async fn secret(&self, head: &Head, effects: &mut Effects) -> Result<CsrfSecret, Told> {
        let settings = &self.session;
        let now = self.logins.clock.unix();
        let visitor =
            forged::visitor(settings, head, SessionReader { store: &self.store, slow: &self.slow }, now)
                .await?;
        let has = visitor.secret();
        let secret = match &has {
            Some(secret) => secret.clone(),
            None => new_csrf_secret().map_err(|_| Told::Unavailable)?,
        };
        if !settings.csrf.use_sessions {
            effects.set_cookie(&settings.csrf_cookie(secret.as_str(), now));
        } else if has.is_none() {
            let old = visitor.session_key();
            let kept = Arc::clone(&self.credentials);
            let (value, age) = (Secret::new(secret.as_str()), settings.age);
            let keeping = async move { kept.keep_csrf_secret(old, value, age).await };
            let session = self.slow.run(keeping).await.map_err(|error| Told::of(&error))?;
            self.set_session(&session, effects);
        }
        Ok(secret)
    }

    async fn log_in(
        &self,
        head: &Head,
        body: RequestBody,
        effects: &mut Effects,
        trace: &mut Trace,
    ) -> Result<Response<Body>, Told> {
        let now = self.logins.clock.unix();
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
        let form = login_input::form(content_type(head), bytes.expose());
        drop(bytes);
        // Before anybody is told what is wrong with a form: it may be another site that asks.
        let field = form.as_ref().ok().and_then(|form| form.csrf_token.as_deref());
        forged::check_token(&self.session, head, expected, field)?;
        let form = form.map_err(Told::Input)?;
        effects.vary_by_cookie();
        let (username, password) = match form.credentials() {
            Ok(credentials) => credentials,
            Err(missing) => return self.refuse(head, form, Told::Missing(missing), effects, trace).await,
        };
        let checked = self.logins.check_password(head.client.address, username, password).await;
        let user = match checked {
            Ok(found) => found.map(|found| found.user).filter(|user| user.is_active),
            Err(error) => return Err(not_checked(error)),
        };
        let session = match user {
            Some(user) => self.session_for(user, &visitor).await?,
            None => None,
        };
        let Some((user, session, secret)) = session else {
            return self.refuse(head, form, Told::WrongPassword, effects, trace).await;
        };
        trace.principal = Some(user.id);
        self.set_session(&session, effects);
        if !self.session.csrf.use_sessions {
            effects.set_cookie(&self.session.csrf_cookie(secret.as_str(), session.now));
        }
        Ok(self.logged_in(head, form, &user, &session))
    }

    /// A session with a new key and a new secret against forged requests (Django 5.2, `contrib.auth.login`).
    async fn session_for(
        &self,
        user: User,
        visitor: &Held,
    ) -> Result<Option<(User, CreatedSession, CsrfSecret)>, Told> {
        let secret = new_csrf_secret().map_err(|_| Told::Unavailable)?;
        let in_session = self.session.csrf.use_sessions.then(|| Secret::new(secret.as_str()));
        let (credentials, old, age) =
            (Arc::clone(&self.credentials), visitor.session_key(), self.session.age);
        let making = async move {
            let made = credentials.log_in(&user, old, in_session, age).await?;
            Ok::<_, CredentialsError>(made.map(|session| (user, session)))
        };
        let made = self.slow.run(making).await.map_err(|error| Told::of(&error))?;
        Ok(made.map(|(user, session)| (user, session, secret)))
    }

    fn set_session(&self, session: &CreatedSession, effects: &mut Effects) {
        let key = String::from_utf8_lossy(session.key.expose());
        effects.set_cookie(&self.session.session_cookie(&key, session.now, session.expires));
    }

    fn logged_in(&self, head: &Head, form: Form, user: &User, session: &CreatedSession) -> Response<Body> {
        if wants_json(head) {
            let scheme = SchemeKind::Session.name();
            let body = json!({ "user": &*user.username, "scheme": scheme, "expires": session.expires.0 });
            return own_answer(StatusCode::OK, Bytes::from(body.to_string()), head.request_id);
        }
        let next = next_of(head, form.next);
        redirect(head, next.as_deref().unwrap_or(&self.redirect))
    }

    /// The page again with what is wrong; of whoever asks for JSON, that alone.
    async fn refuse(
        &self,
        head: &Head,
        form: Form,
        told: Told,
        effects: &mut Effects,
        trace: &mut Trace,
    ) -> Result<Response<Body>, Told> {
        if wants_json(head) {
            return Err(told);
        }
        trace.reason = told.reason();
        let next = next_of(head, form.next);
        let username = form.username.unwrap_or_default();
        let wrong = match told {
            Told::Missing(missing) => Wrong::Missing(missing),
            _ => Wrong::Mismatch,
        };
        let shown = Shown { next: next.as_deref().unwrap_or_default(), username: &username, wrong };
        self.page(head, shown, effects).await
    }
}

/// Where a browser is to go afterwards: as the form says, or else the query (Django 5.2, `RedirectURLMixin`); `None`:
/// to the usual place.
pub(in crate::endpoint) fn next_of(head: &Head, field: Option<String>) -> Option<String> {
    field.or_else(|| login_input::next_of(head.target.query())).filter(|next| is_local_path(next))
}

/// Sends a browser there with a GET (RFC 9110 section 15.4.3), as Django does.
pub(in crate::endpoint) fn redirect(head: &Head, location: &str) -> Response<Body> {
    let mut answer = own_answer(StatusCode::FOUND, Bytes::new(), head.request_id);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    // A path of this origin, or the configuration's; what cannot stand in a field leads to the root.
    headers.insert(header::LOCATION, navigation::location(location));
    answer
}

fn not_checked(error: NotChecked) -> Told {
    match error {
        NotChecked::TooMany(too_many) => Told::TooMany(too_many),
        NotChecked::Busy => Told::Busy,
        NotChecked::Store(error) => {
            let error = error.as_ref().map(|error| error as &dyn std::error::Error);
            tracing::warn!(error, "no password was checked");
            Told::Unavailable
        }
    }
}

impl Told {
    /// Why nothing could be made.
    pub(in crate::endpoint) fn of(error: &SlowError<CredentialsError>) -> Self {
        if matches!(error, SlowError::Busy) {
            return Self::Busy;
        }
        tracing::warn!(error = error as &dyn std::error::Error, "no session was made or ended");
        match error {
            SlowError::Failed(CredentialsError::Store(StoreError::NotWritten(_) | StoreError::Conflict)) => {
                Self::NotWritten
            }
            _ => Self::Unavailable,
        }
    }
}

/// The key of the session that a request presents.
pub(in crate::endpoint) fn presented_key(settings: &SessionSettings, head: &Head) -> Option<Secret> {
    match settings.presented(head)? {
        Presented::Key(key) => Some(key),
        Presented::NoKey => None,
    }
}
