//! A cookie that names a session, with protection against forged requests: exactly as Django REST framework's
//! `SessionAuthentication` (3.18) on Django 5.2.
//!
//! A request without a good session is anonymous, never refused. One with a session is refused if another site may have
//! made the browser send it, and then no later scheme is asked.

use crate::accept::head::Head;
use crate::authenticate::lookups::{Answer, Lookups};
use crate::authenticate::scheme::{
    Check, Context, Effects, Identity, NobodyKnows, Recall, Refusal, Scheme, Verdict,
};
use crate::body;
use crate::cache::local::{self, CredentialKey, Fact, Found, Known, Loaded, Nothing, Now};
use crate::clock::{Monotonic, UnixSeconds};
use crate::credentials::Credentials;
use crate::csrf::form::Field;
use crate::csrf::{self, CsrfSecret, NextStep, Reason, Source, form};
use crate::header::cookie::cookie;
use crate::header::joined::joined;
use crate::header::set_cookie::SetCookie;
use crate::identity::{Digest, Family, SchemeKind};
use crate::secret::{NoRandomness, Secret};
use crate::store::StoreError;
use crate::store::session::{FoundSession, Renewed, UserSession};
use crate::trace::AnsweredBy;
use hashlink::LruCache;
use http::{HeaderValue, header};
use parking_lot::Mutex;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// Shorter keys name no session (Django 5.2, `SessionBase._validate_session_key`).
const KEY_CHARACTERS_MIN: usize = 8;
/// Longer ones neither: Django's column holds 40 characters.
const KEY_BYTES_MAX: usize = 128;
/// Of a form so much is read before it is forwarded: the field against forged requests is usually the first.
pub const FORM_BYTES_MAX: usize = 64 << 10;
/// Keys that were renewed and are remembered.
const RENEWED_MAX: usize = 4096;

/// What an instance is configured with.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// Name of the cookie.
    pub cookie: String,
    /// How long a session lasts.
    pub age: Duration,
    /// Cookies are for HTTPS alone.
    pub secure: bool,
    /// Hosts that get the session's cookie; `None`: the one that set it.
    pub domain: Option<String>,
    /// `Lax`, `Strict` or `None`.
    pub same_site: &'static str,
    /// Name of the cookie against forged requests.
    pub csrf_cookie: String,
    /// How long it lasts.
    pub csrf_age: Duration,
    /// What is checked against forged requests.
    pub csrf: csrf::Settings,
    /// The port that clients reach by HTTPS: Django's `SERVER_PORT`, which a cookie's domain is completed with.
    pub https_port: u16,
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

impl SessionSettings {
    /// How long a session lasts, in seconds.
    pub fn age_seconds(&self) -> i64 {
        seconds(self.age)
    }

    /// The cookie of a session that ends at `expires`.
    pub fn session_cookie<'a>(
        &'a self,
        key: &'a str,
        now: UnixSeconds,
        expires: UnixSeconds,
    ) -> SetCookie<'a> {
        SetCookie {
            name: &self.cookie,
            value: key,
            ends: Some((expires.0.saturating_sub(now.0), expires.0)),
            domain: self.domain.as_deref(),
            secure: self.secure,
            http_only: true,
            same_site: self.same_site,
        }
    }

    /// Deletes it, as Django does: without `Secure` and `HttpOnly`.
    pub fn no_session_cookie(&self) -> SetCookie<'_> {
        SetCookie {
            name: &self.cookie,
            value: "",
            ends: Some((0, 0)),
            domain: self.domain.as_deref(),
            secure: self.same_site == "None"
                || self.cookie.starts_with("__Secure-")
                || self.cookie.starts_with("__Host-"),
            http_only: false,
            same_site: self.same_site,
        }
    }

    /// The cookie against forged requests.
    pub fn csrf_cookie<'a>(&'a self, secret: &'a str, now: UnixSeconds) -> SetCookie<'a> {
        let age = seconds(self.csrf_age);
        SetCookie {
            name: &self.csrf_cookie,
            value: secret,
            ends: Some((age, now.0.saturating_add(age))),
            domain: self.csrf.cookie_domain.as_deref().filter(|_| !self.csrf.use_sessions),
            secure: self.secure,
            http_only: false,
            same_site: self.same_site,
        }
    }

    /// Replaces cookies that cannot be right, whatever is asked and whoever asks (Django 5.2, `SessionMiddleware` and
    /// `CsrfViewMiddleware.process_request`).
    pub fn mend_cookies(&self, head: &Head, now: UnixSeconds, effects: &mut Effects) {
        if cookie(&head.headers, &self.cookie).is_some_and(|value| is_short(&value)) {
            effects.mend_cookie(&self.no_session_cookie());
        }
        if self.csrf.use_sessions {
            return;
        }
        let Some(value) = cookie(&head.headers, &self.csrf_cookie) else { return };
        let is_good = CsrfSecret::parse(&String::from_utf8_lossy(&value)).is_ok();
        if !is_good && let Ok(secret) = new_csrf_secret() {
            effects.mend_cookie(&self.csrf_cookie(secret.as_str(), now));
        }
    }

    /// The session's key that a request presents. `None`: no cookie.
    pub fn presented(&self, head: &Head) -> Option<Presented> {
        let value = cookie(&head.headers, &self.cookie)?;
        let is_key = !is_short(&value) && value.len() <= KEY_BYTES_MAX;
        Some(if is_key { Presented::Key(Secret::new(value.into_owned())) } else { Presented::NoKey })
    }
}

/// Whether a value has too few characters for a key.
fn is_short(value: &[u8]) -> bool {
    String::from_utf8_lossy(value).chars().take(KEY_CHARACTERS_MIN).count() < KEY_CHARACTERS_MIN
}

/// A secret that nobody knows yet.
///
/// # Errors
/// If the system gives no randomness.
pub fn new_csrf_secret() -> Result<CsrfSecret, NoRandomness> {
    loop {
        let mut bytes = zeroize::Zeroizing::new([0; csrf::RANDOM_BYTES]);
        getrandom::fill(&mut *bytes).map_err(|_| NoRandomness)?;
        if let Some(secret) = CsrfSecret::from_random(&bytes) {
            return Ok(secret);
        }
    }
}

/// What a cookie says.
#[derive(Debug)]
pub enum Presented {
    /// The key of a session that may be there.
    Key(Secret),
    /// What cannot be one.
    NoKey,
}

/// One instance of the session scheme.
#[derive(Debug)]
pub struct SessionScheme {
    settings: Arc<SessionSettings>,
    sessions: Arc<Sessions>,
}

/// Where sessions are looked up; shared by all instances.
#[derive(Debug)]
pub struct Sessions {
    lookups: Arc<Lookups>,
    credentials: Arc<Credentials>,
    renewed: Arc<RenewedKeys>,
}

/// Keys that took the place of others. Survives a reload.
///
/// A browser that sends several requests at once with a key that one of them renews gets the new key for all that had
/// come by then. For whatever comes later the old key is dead, as in Django.
pub struct RenewedKeys(Mutex<LruCache<Digest, RenewedSession>>);

#[derive(Clone)]
struct RenewedSession {
    key: Secret,
    fact: Fact,
    at: Monotonic,
}

impl Default for RenewedKeys {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(RENEWED_MAX)))
    }
}

impl std::fmt::Debug for RenewedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RenewedKeys(…)")
    }
}

impl RenewedKeys {
    /// For a request that came then.
    fn get(&self, old: Digest, came: Monotonic) -> Option<RenewedSession> {
        let mut keys = self.0.lock();
        keys.get(&old).filter(|renewed| came <= renewed.at).cloned()
    }

    fn put(&self, old: Digest, renewed: RenewedSession) {
        self.0.lock().insert(old, renewed);
    }
}

impl SessionScheme {
    /// An instance with these settings.
    pub fn new(settings: Arc<SessionSettings>, sessions: Arc<Sessions>) -> Self {
        Self { settings, sessions }
    }

    fn decide(&self, known: Known, now: Now, by: AnsweredBy, effects: &mut Effects) -> Verdict {
        if known.is_expired(now.unix) {
            effects.set_cookie(&self.settings.no_session_cookie());
            Verdict::NotMine
        } else if known.user.user.is_active {
            Verdict::Verified(Identity::of(known, SchemeKind::Session), by)
        } else {
            Verdict::NotMine
        }
    }

    fn ask(&self, key: Secret, context: &Context) -> Recall {
        let (settings, sessions) = (Arc::clone(&self.settings), Arc::clone(&self.sessions));
        let verification = Self { settings, sessions }.verify(key, *context);
        Recall::Ask(Box::pin(verification))
    }

    async fn verify(self, key: Secret, context: Context) -> Result<(Verdict, Effects), NobodyKnows> {
        let stale = context.stale_while_unreachable;
        let mut effects = Effects::default();
        let digest = Digest::of(key.expose());
        let age = self.settings.age_seconds();
        let loaded = self.sessions.load(&key, age, stale).await?;
        let now = self.sessions.lookups.now();
        let verdict = match loaded {
            Loaded::Known(known) => self.decide(known, now, AnsweredBy::Store, &mut effects),
            Loaded::Shared(known) => self.decide(known, now, AnsweredBy::Redis, &mut effects),
            Loaded::Stale(known) => self.decide(known, now, AnsweredBy::Stale, &mut effects),
            Loaded::Unknown(Nothing::Nobody) => Verdict::NotMine,
            Loaded::Unknown(Nothing::Absent) => {
                // Whoever renewed it, the session goes on under another key.
                if let Some(renewed) = self.sessions.renewed.get(digest, context.now.monotonic) {
                    self.go_on(renewed, now, &mut effects)
                } else {
                    effects.set_cookie(&self.settings.no_session_cookie());
                    Verdict::NotMine
                }
            }
        };
        Ok((verdict, effects))
    }

    /// The store has committed to the new key, and said whose it is: nothing that fails now may lose it.
    fn go_on(&self, renewed: RenewedSession, now: Now, effects: &mut Effects) -> Verdict {
        let RenewedSession { key, fact, .. } = renewed;
        if let (Ok(key), Some(expires)) = (std::str::from_utf8(key.expose()), fact.expires) {
            effects.set_cookie(&self.settings.session_cookie(key, now.unix, expires));
        }
        self.decide(Known::for_one_answer(fact, now.monotonic), now, AnsweredBy::Store, effects)
    }

    fn forged(&self, head: &Head, body: Option<&[u8]>, identity: &Identity) -> Result<Check, Reason> {
        let settings = &self.settings.csrf;
        let host = head.authority.value().as_bytes();
        let source = Source::of(&head.headers, head.client.is_https, host, self.settings.https_port);
        settings.check_source(&source)?;
        let stored = if settings.use_sessions {
            identity.csrf_secret.as_ref().map(|secret| Cow::Borrowed(secret.expose()))
        } else {
            cookie(&head.headers, &self.settings.csrf_cookie)
        };
        let content_type =
            head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let is_form = body::is_form(content_type);
        let (expected, field) = match (settings.check_cookie(&head.method, stored.as_deref(), is_form)?, body)
        {
            (NextStep::NeedsHead(expected), _) => (expected, None),
            (NextStep::NeedsBody(_), None) => return Ok(Check::NeedsBody { bytes_max: FORM_BYTES_MAX }),
            (NextStep::NeedsBody(expected), Some(prefix)) => {
                let is_whole = prefix.len() < FORM_BYTES_MAX;
                (expected, form_token(content_type, prefix, is_whole))
            }
        };
        let header = joined(&head.headers, &settings.header);
        expected.check_token(settings, field.as_deref(), header.as_deref())?;
        Ok(Check::Pass)
    }
}

/// The token in a form. What cannot be read is the upstream's to refuse: the header counts then.
fn form_token(content_type: &[u8], prefix: &[u8], is_whole: bool) -> Option<Vec<u8>> {
    match form::token(content_type, prefix, is_whole) {
        Field::Value(value) => Some(value),
        Field::Absent | Field::NotAForm | Field::Unreadable(_) => None,
    }
}

impl Scheme for SessionScheme {
    fn kind(&self) -> SchemeKind {
        SchemeKind::Session
    }

    fn challenge(&self, _: Option<&str>) -> Option<HeaderValue> {
        None
    }

    fn recall(&self, head: &Head, context: &Context, effects: &mut Effects) -> Recall {
        effects.vary_by_cookie();
        self.settings.mend_cookies(head, context.now.unix, effects);
        let Some(value) = cookie(&head.headers, &self.settings.cookie) else { return Recall::NotMine };
        let digest = Digest::of(&value);
        let cache = &self.sessions.lookups.cache;
        let key = CredentialKey { digest, family: Family::Session };
        match context.recall(cache, &key) {
            local::Recall::Known(known) => {
                return Recall::Answer(self.decide(known, context.now, AnsweredBy::Local, effects));
            }
            local::Recall::Stale(known) => {
                return Recall::Answer(self.decide(known, context.now, AnsweredBy::Stale, effects));
            }
            local::Recall::Unknown(Nothing::Nobody) => return Recall::NotMine,
            // It may be absent because it was renewed since this request came.
            local::Recall::Unknown(Nothing::Absent)
                if self.sessions.renewed.get(digest, context.now.monotonic).is_none() =>
            {
                effects.set_cookie(&self.settings.no_session_cookie());
                return Recall::NotMine;
            }
            local::Recall::Unknown(Nothing::Absent) | local::Recall::Miss => {}
        }
        match self.settings.presented(head) {
            None => Recall::NotMine,
            Some(Presented::NoKey) => {
                effects.set_cookie(&self.settings.no_session_cookie());
                Recall::NotMine
            }
            Some(Presented::Key(key)) => self.ask(key, context),
        }
    }

    fn check(&self, head: &Head, body: Option<&[u8]>, identity: &Identity, _: &mut Effects) -> Check {
        if csrf::is_safe(&head.method) {
            return Check::Pass;
        }
        self.forged(head, body, identity).unwrap_or_else(|reason| {
            Check::Refuse(Refusal { detail: format!("CSRF Failed: {}", reason.text()).into(), body: None })
        })
    }
}

impl Sessions {
    /// First the cache, then the store; what has to be ended or renewed is by `credentials`.
    pub fn new(lookups: Arc<Lookups>, credentials: Arc<Credentials>, renewed: Arc<RenewedKeys>) -> Self {
        Self { lookups, credentials, renewed }
    }

    async fn load(&self, key: &Secret, age_seconds: i64, stale: Duration) -> Result<Loaded, NobodyKnows> {
        let digest = Digest::of(key.expose());
        let cache_key = CredentialKey { digest, family: Family::Session };
        let ask = || self.find(key, cache_key, age_seconds);
        self.lookups.load_presented(cache_key, key, stale, ask).await.map_err(NobodyKnows)
    }

    async fn find(
        &self,
        key: &Secret,
        cache_key: CredentialKey,
        age_seconds: i64,
    ) -> Result<Answer, StoreError> {
        let Lookups { store, clock, metrics, .. } = &*self.lookups;
        let found = metrics.measure("find-session", store.find_session(key.clone(), clock.unix())).await?;
        let found = match found {
            FoundSession::Void => self.end(key).await?,
            FoundSession::Outdated(session) => {
                match self.credentials.renew_session(key.clone(), age_seconds).await {
                    Ok((key, Renewed::Renewed(session))) => {
                        let digest = Digest::of(key.expose());
                        let fact = self.fact(CredentialKey { digest, family: Family::Session }, session);
                        self.renewed
                            .put(cache_key.digest, RenewedSession { key, fact, at: clock.monotonic() });
                        FoundSession::Absent
                    }
                    Ok((_, Renewed::Unchanged(found))) => found,
                    Err(error) => {
                        // It is good all the same, and is renewed another time.
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "a session cannot be renewed");
                        FoundSession::User(session)
                    }
                }
            }
            found => found,
        };
        let as_of = if let FoundSession::User(session) = &found { session.as_of } else { None };
        let found = match found {
            FoundSession::Absent => Found::Nothing(Nothing::Absent),
            FoundSession::User(session) => Found::Fact(self.fact(cache_key, session)),
            // What is void or outdated all the same changed between two looks; the next request finds out.
            FoundSession::Nobody { .. } | FoundSession::Void | FoundSession::Outdated(_) => {
                Found::Nothing(Nothing::Nobody)
            }
        };
        Ok(Answer { found, as_of })
    }

    fn fact(&self, key: CredentialKey, session: UserSession) -> Fact {
        let UserSession { user, expires, csrf_secret, as_of: _ } = session;
        Fact {
            id: self.lookups.id(&key),
            expires: Some(expires),
            user,
            csrf_secret: csrf_secret.map(Arc::new),
        }
    }

    /// A session of somebody whose password was changed ends; if that cannot be written it is nobody's all the same.
    async fn end(&self, key: &Secret) -> Result<FoundSession, StoreError> {
        match self.credentials.end_void_session(key.clone()).await {
            Ok(FoundSession::Void) => Ok(FoundSession::Absent),
            Ok(found) => Ok(found),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a void session cannot be deleted");
                Ok(FoundSession::Nobody { csrf_secret: None })
            }
        }
    }
}
