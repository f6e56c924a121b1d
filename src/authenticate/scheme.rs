//! What a scheme is: one way to authenticate, in three steps.
//!
//! 1. [`Scheme::recall`], synchronous: reads the request's head and answers at once if it can. All that touches
//!    hostile bytes happens here, in pure code.
//! 2. The [`Verification`] that `recall` returns on a miss: owns the credentials, waits, and runs on the slow
//!    runtime. It is a value and not a method, so that it can be neither skipped nor run on other credentials.
//! 3. [`Scheme::check`], synchronous, after either: what must hold for this very request (CSRF, scope); may ask
//!    for a prefix of the body.
//!
//! A scheme says what happened; `respond` alone picks statuses.

use crate::accept::head::Head;
use crate::cache::local::{self, CredentialKey, Known, LocalCache};
use crate::cache::users::UserRecord;
use crate::clock::UnixSeconds;
use crate::header::set_cookie::SetCookie;
use crate::identity::{CredentialId, SchemeKind};
use crate::secret::Secret;
use crate::trace::{AnsweredBy, ThrottleState};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::borrow::Cow;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// One way to authenticate; an instance of the configuration.
///
/// A scheme must recognise its own name or cookie before it may call anything malformed.
pub trait Scheme: Debug + Send + Sync {
    /// Its kind, for logs and upstreams.
    fn kind(&self) -> SchemeKind;

    /// Its challenge (RFC 9110 section 11.6.1). `None`: a route that lists it first answers 403, not 401
    /// (DRF 3.18, `APIView.handle_exception`). `realm` is the route's, if it has one of its own.
    fn challenge(&self, realm: Option<&str>) -> Option<HeaderValue>;

    /// Reads the request and answers if it can without waiting.
    fn recall(&self, head: &Head, context: &Context, effects: &mut Effects) -> Recall;

    /// The names of the credentials of a request that came in clear: nobody is authenticated by them. Empty: it
    /// carries nothing of this scheme's that has a name.
    fn exposed(&self, _headers: &HeaderMap) -> Vec<Naming> {
        Vec::new()
    }

    /// Whether this request may be made with these credentials.
    ///
    /// `body` is what [`Check::NeedsBody`] asked for; `None` the first time.
    fn check(
        &self,
        _head: &Head,
        _body: Option<&[u8]>,
        _identity: &Identity,
        _effects: &mut Effects,
    ) -> Check {
        Check::Pass
    }
}

/// What a look-up needs to know of the moment and the route.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// When the request came.
    pub now: local::Now,
    /// How long known credentials still pass while the store cannot be asked.
    pub stale_while_unreachable: Duration,
    /// Too many wait for the store already: what it confirmed a moment ago has to do.
    pub is_store_busy: bool,
}

impl Context {
    /// Of a request that came now.
    pub fn new(now: local::Now, stale_while_unreachable: Duration) -> Self {
        Self { now, stale_while_unreachable, is_store_busy: false }
    }

    /// What the cache knows of a credential.
    pub fn recall(&self, cache: &LocalCache, key: &CredentialKey) -> local::Recall {
        match cache.recall(key, self.now, self.stale_while_unreachable) {
            local::Recall::Miss if self.is_store_busy => {
                cache.recall_while_busy(key, self.now).map_or(local::Recall::Miss, local::Recall::Stale)
            }
            recalled => recalled,
        }
    }
}

/// A verified user, and how the user was verified.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Who.
    pub user: Arc<UserRecord>,
    /// By which kind of scheme.
    pub scheme: SchemeKind,
    /// By which credential.
    pub credential: CredentialId,
    /// Until when. `None`: until it is revoked.
    pub expires: Option<UnixSeconds>,
    /// What a session keeps against forged requests (Django's `CSRF_USE_SESSIONS`).
    pub csrf_secret: Option<Arc<Secret>>,
}

impl Identity {
    /// Whoever a credential is known to be.
    pub fn of(known: Known, scheme: SchemeKind) -> Self {
        let expires = known.expires();
        let Known { user, id: credential, csrf_secret, .. } = known;
        Self { user, scheme, credential, expires, csrf_secret }
    }
}

/// Answer of [`Scheme::recall`].
pub enum Recall {
    /// The request carries nothing of this scheme's: ask the next.
    NotMine,
    /// It does, and it cannot be read. Stops the chain.
    Malformed(Refusal),
    /// Answered without waiting.
    Answer(Verdict),
    /// The store must be asked.
    Ask(Verification),
    /// A password must be checked: what counts attempts makes them wait, and passwords have places of their own.
    Attempt(Verification),
}

/// The second step: owns the credentials.
pub type Verification = Pin<Box<dyn Future<Output = Result<(Verdict, Effects), NobodyKnows>> + Send>>;

/// Looks up what credentials that came in clear are called.
pub type Naming = Pin<Box<dyn Future<Output = Result<Exposed, NobodyKnows>> + Send>>;

/// Credentials that came in clear, under their public id.
#[derive(Debug, Clone)]
pub enum Exposed {
    /// They are in the store, and can be revoked.
    Known(CredentialId),
    /// They are a key of DRF's, which can be revoked by itself alone.
    Key(CredentialId, Secret),
    /// They are not, or are void already.
    Unknown(CredentialId),
}

/// The credentials could not be checked; never a reason to call them wrong.
#[derive(Debug, thiserror::Error)]
#[error("the credentials could not be checked")]
pub struct NobodyKnows(#[source] pub Option<crate::store::StoreError>);

/// What the credentials came to.
#[derive(Debug)]
pub enum Verdict {
    /// Good, of an active user.
    Verified(Identity, AnsweredBy),
    /// As if nothing had been presented: ask the next scheme (a session that is not there).
    NotMine,
    /// Wrong, unknown or expired. Stops the chain. The id is public and for the log.
    Rejected(Refusal, AnsweredBy, Option<CredentialId>),
    /// Good, but the user may not log in. Stops the chain.
    Inactive(Refusal, AnsweredBy),
    /// Nothing was checked: too many attempts of this client failed. Stops the chain.
    TooMany(TooManyAttempts),
    /// Nothing was checked: too many passwords wait. Stops the chain.
    Busy,
}

/// Too many attempts failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyAttempts {
    /// When to try again.
    pub wait: Duration,
    /// Which guard says so: for the log, never for the client.
    pub by: ThrottleState,
}

/// Answer of [`Scheme::check`].
#[derive(Debug)]
pub enum Check {
    /// The request may go on.
    Pass,
    /// It may not: 403, whatever the challenge (DRF: `PermissionDenied`).
    Refuse(Refusal),
    /// Call again with the first bytes of the body, this many at most.
    NeedsBody {
        /// Bound of what is read before the request is forwarded.
        bytes_max: usize,
    },
}

/// What the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Text of `detail`. Fixed wording, but for what Django quotes of `Origin` and `Referer`.
    pub detail: Cow<'static, str>,
    /// The whole JSON body, where the family has one of its own.
    pub body: Option<Bytes>,
}

impl Refusal {
    /// DRF's ordinary body with this detail.
    pub const fn new(detail: &'static str) -> Self {
        Self { detail: Cow::Borrowed(detail), body: None }
    }
}

/// What a scheme adds to the answer, whoever gives it: cookies to set or delete, `Vary`.
#[derive(Debug, Default)]
pub struct Effects {
    fields: Option<Box<HeaderMap>>,
    varies_by_cookie: bool,
    carries_secret: bool,
}

impl Effects {
    /// Adds a field to the answer.
    pub fn add(&mut self, name: HeaderName, value: HeaderValue) {
        self.fields.get_or_insert_default().append(name, value);
    }

    /// Sets a cookie.
    pub fn set_cookie(&mut self, cookie: &SetCookie<'_>) {
        if let Some(value) = cookie.value() {
            self.carries_secret |= !cookie.value.is_empty();
            self.add(header::SET_COOKIE, value);
        }
    }

    /// The answer depends on the cookies, since they were looked at (`Vary: Cookie`).
    pub fn vary_by_cookie(&mut self) {
        self.varies_by_cookie = true;
    }

    /// Takes another's effects in.
    pub fn extend(&mut self, other: Self) {
        self.varies_by_cookie |= other.varies_by_cookie;
        self.carries_secret |= other.carries_secret;
        let Some(other) = other.fields else { return };
        for (name, value) in other.iter() {
            self.add(name.clone(), value.clone());
        }
    }

    /// Adds the fields to an answer.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in self.fields.iter().flat_map(|fields| fields.iter()) {
            headers.append(name.clone(), value.clone());
        }
        // Whatever the upstream says of its part: the cookie is for one client alone.
        if self.carries_secret && !is_not_stored(headers) {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if self.varies_by_cookie && !varies_by_cookie(headers) {
            headers.append(header::VARY, HeaderValue::from_static("Cookie"));
        }
    }
}

/// Whether no cache keeps an answer (RFC 9111 section 5.2.2.5).
fn is_not_stored(headers: &HeaderMap) -> bool {
    let directives = headers.get_all(header::CACHE_CONTROL).iter();
    let mut directives = directives.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    directives.any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-store"))
}

/// Whether an answer says so already (RFC 9110 section 12.5.5).
fn varies_by_cookie(headers: &HeaderMap) -> bool {
    let names =
        headers.get_all(header::VARY).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names.map(<[u8]>::trim_ascii).any(|name| name.eq_ignore_ascii_case(b"cookie") || name == b"*")
}

impl Debug for Recall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotMine => f.write_str("NotMine"),
            Self::Malformed(refusal) => f.debug_tuple("Malformed").field(refusal).finish(),
            Self::Answer(verdict) => f.debug_tuple("Answer").field(verdict).finish(),
            Self::Ask(_) => f.write_str("Ask(…)"),
            Self::Attempt(_) => f.write_str("Attempt(…)"),
        }
    }
}
