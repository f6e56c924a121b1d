//! Whether another site made a browser send a request to a handler (Django 5.2, `CsrfViewMiddleware`): a login, too, or
//! somebody would be logged in as somebody else without knowing.

use crate::accept::head::Head;
use crate::authenticate::schemes::session::{SessionSettings, port};
use crate::authenticate::slow::{SlowError, SlowSide};
use crate::clock::UnixSeconds;
use crate::csrf::{CsrfSecret, Expected, NextStep, Source};
use crate::endpoint::login::presented_key;
use crate::endpoint::told::Told;
use crate::header::cookie::cookie;
use crate::header::joined::joined;
use crate::secret::Secret;
use crate::store::Store;
use crate::store::session::FoundSession;
use http::Method;
use std::sync::Arc;

/// What a client holds.
#[derive(Debug)]
pub(in crate::endpoint) struct Held {
    key: Option<Secret>,
    /// As the cookie or the session has it.
    stored: Option<Secret>,
}

/// Where sessions are read, and beside how many others.
#[derive(Debug, Clone, Copy)]
pub(in crate::endpoint) struct SessionReader<'a> {
    pub(in crate::endpoint) store: &'a Arc<dyn Store>,
    pub(in crate::endpoint) slow: &'a SlowSide,
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

/// What a client holds, and the secret that its token has to be of: all that is checked before the body is read, which
/// is not worth it if another site sent it.
pub(in crate::endpoint) async fn expected(
    settings: &SessionSettings,
    head: &Head,
    sessions: SessionReader<'_>,
    now: UnixSeconds,
) -> Result<(Held, Expected), Told> {
    check_source(settings, head)?;
    let visitor = visitor(settings, head, sessions, now).await?;
    let stored = visitor.stored.as_ref().map(Secret::expose);
    let next = settings.csrf.check_cookie(&Method::POST, stored, true).map_err(Told::Forged)?;
    let (NextStep::NeedsBody(expected) | NextStep::NeedsHead(expected)) = next;
    Ok((visitor, expected))
}

/// Reads what a request holds. Sessions are asked for only if they keep the secret.
pub(in crate::endpoint) async fn visitor(
    settings: &SessionSettings,
    head: &Head,
    sessions: SessionReader<'_>,
    now: UnixSeconds,
) -> Result<Held, Told> {
    let key = presented_key(settings, head);
    if !settings.csrf.use_sessions {
        let stored = cookie(&head.headers, &settings.csrf_cookie);
        return Ok(Held { key, stored: stored.map(|value| Secret::new(value.into_owned())) });
    }
    let Some(asked) = key.clone() else { return Ok(Held { key, stored: None }) };
    let store = Arc::clone(sessions.store);
    let found = sessions.slow.run(async move { store.find_session(asked, now).await }).await;
    let found = found.map_err(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "no session was looked up");
        if matches!(error, SlowError::Busy) { Told::Busy } else { Told::Unavailable }
    })?;
    let stored = match found {
        FoundSession::User(session) => session.csrf_secret,
        FoundSession::Nobody { csrf_secret } => csrf_secret,
        FoundSession::Absent | FoundSession::Void | FoundSession::Outdated => None,
    };
    Ok(Held { key, stored })
}

/// Where a request comes from.
fn check_source(settings: &SessionSettings, head: &Head) -> Result<(), Told> {
    let (host, is_https) = (head.authority.value().as_bytes(), head.client.is_https);
    let source = Source::of(&head.headers, is_https, host, port(host, is_https));
    settings.csrf.check_source(&source).map_err(Told::Forged)
}

/// Whether it has the token; `field`: that of the form.
pub(in crate::endpoint) fn check_token(
    settings: &SessionSettings,
    head: &Head,
    expected: Expected,
    field: Option<&[u8]>,
) -> Result<(), Told> {
    let header = joined(&head.headers, &settings.csrf.header);
    expected.check_token(&settings.csrf, field, header.as_deref()).map_err(Told::Forged)
}
