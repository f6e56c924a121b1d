//! Whether another site made a browser send a request to a handler (Django 5.2, `CsrfViewMiddleware`): a login, too, or
//! somebody would be logged in as somebody else without knowing.

use crate::accept::head::Head;
use crate::authenticate::schemes::session::SessionSettings;
use crate::clock::UnixSeconds;
use crate::csrf::{CsrfSecret, NextStep, Source};
use crate::endpoint::login::presented_key;
use crate::endpoint::told::Told;
use crate::header::cookie::cookie;
use crate::header::joined::joined;
use crate::secret::Secret;
use crate::store::Store;
use crate::store::session::FoundSession;
use http::Method;

/// What a client holds.
#[derive(Debug)]
pub(in crate::endpoint) struct Held {
    key: Option<Secret>,
    /// As the cookie or the session has it.
    stored: Option<Secret>,
}

impl Held {
    /// The key of its session.
    pub(in crate::endpoint) fn session_key(&self) -> Option<Secret> {
        self.key.clone()
    }

    /// Its secret against forged requests, if it is one.
    pub(in crate::endpoint) fn secret(&self) -> Option<CsrfSecret> {
        let stored = self.stored.as_ref().map(|stored| String::from_utf8_lossy(stored.expose()));
        stored.and_then(|stored| CsrfSecret::parse(&stored).ok())
    }
}

/// Reads what a request holds. Sessions are asked for only if they keep the secret.
pub(in crate::endpoint) async fn held(
    settings: &SessionSettings,
    head: &Head,
    store: &dyn Store,
    now: UnixSeconds,
) -> Result<Held, Told> {
    let key = presented_key(settings, head);
    if !settings.csrf.use_sessions {
        let stored = cookie(&head.headers, &settings.csrf_cookie);
        return Ok(Held { key, stored: stored.map(|value| Secret::new(value.into_owned())) });
    }
    let Some(asked) = key.clone() else { return Ok(Held { key, stored: None }) };
    let found = store.find_session(asked, now).await.map_err(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "no session was looked up");
        Told::Unavailable
    })?;
    let stored = match found {
        FoundSession::User(session) => session.csrf_secret,
        FoundSession::Nobody { csrf_secret } => csrf_secret,
        FoundSession::Absent | FoundSession::Void | FoundSession::Outdated => None,
    };
    Ok(Held { key, stored })
}

/// Where a request comes from.
pub(in crate::endpoint) fn check_source(settings: &SessionSettings, head: &Head) -> Result<(), Told> {
    let (host, is_https) = (head.authority.value().as_bytes(), head.client.is_https);
    let source = Source::of(&head.headers, is_https, host, settings.https_port);
    settings.csrf.check_source(&source).map_err(Told::Forged)
}

/// Whether it has the token; `field`: that of the form.
pub(in crate::endpoint) fn check_token(
    settings: &SessionSettings,
    head: &Head,
    held: &Held,
    field: Option<&[u8]>,
) -> Result<(), Told> {
    let stored = held.stored.as_ref().map(Secret::expose);
    let is_form = field.is_some();
    let next: NextStep = settings.csrf.check_cookie(&Method::POST, stored, is_form).map_err(Told::Forged)?;
    let (NextStep::NeedsBody(expected) | NextStep::NeedsHead(expected)) = next;
    let header = joined(&head.headers, &settings.csrf.header);
    expected.check_token(&settings.csrf, field, header.as_deref()).map_err(Told::Forged)
}
