//! Authenticate: tries a route's schemes in order.
//!
//! The rule of the chain is DRF's (3.18, `Request._authenticate`): not attempted goes on to the next scheme,
//! attempted and failed stops, attempted and good stops. Nobody attempted: anonymous.

pub mod lookups;
pub mod password;
pub mod scheme;
pub mod schemes;
pub mod slow;

use crate::accept::body::{BodyError, RequestBody};
use crate::accept::head::Head;
use crate::authenticate::scheme::{
    Check, Context, Effects, Identity, NobodyKnows, Recall, Refusal, Scheme, TooManyAttempts, Verdict,
};
use crate::authenticate::slow::{SlowError, SlowSide};
use crate::cache::local::Outage as _;
use crate::identity::SchemeKind;
use crate::trace::{AnsweredBy, SchemeOutcome, Trace};
use http::{HeaderValue, header};
use std::sync::Arc;

/// Proof that authentication took place. Made only here.
#[must_use]
#[derive(Debug)]
pub struct Authenticated {
    identity: Option<Identity>,
}

impl Authenticated {
    /// Who; `None`: anonymous.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }
}

/// Why authentication failed.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    /// Credentials that cannot be read.
    #[error("malformed credentials")]
    Malformed(Refusal),
    /// Wrong, unknown or expired credentials.
    #[error("credentials rejected")]
    Rejected(Refusal),
    /// Good credentials of an inactive user.
    #[error("inactive user")]
    Inactive(Refusal),
    /// The scheme refused this request.
    #[error("request refused by the scheme")]
    Refused(Refusal),
    /// Nobody knows whether the credentials are good.
    #[error("credentials cannot be checked")]
    Unavailable(#[source] NobodyKnows),
    /// Too many look-ups are waiting.
    #[error("too many look-ups are waiting")]
    Busy,
    /// Too many passwords wait to be checked.
    #[error("too many passwords wait to be checked")]
    PasswordBusy,
    /// Too many attempts of this client failed.
    #[error("too many attempts failed")]
    TooManyAttempts(TooManyAttempts),
    /// The body broke off while a scheme read its beginning.
    #[error("the body broke off")]
    Body(#[from] BodyError),
}

/// The schemes of one route.
#[derive(Debug)]
pub struct Authenticator {
    schemes: Vec<Arc<dyn Scheme>>,
    /// In which order they are asked where a request has an `Authorization`; `None`: in theirs.
    explicit_first: Option<Vec<usize>>,
    challenge: Option<HeaderValue>,
    slow: SlowSide,
}

/// What a route says of its schemes besides their names.
#[derive(Debug, Clone, Default)]
pub struct AuthenticatorOptions {
    /// The route's realm, if it has one of its own.
    pub realm: Option<String>,
    /// Who sends `Authorization` is asked for that before any cookie.
    pub explicit_credentials_first: bool,
    /// 401 also where the first scheme has no challenge.
    pub always_challenges: bool,
}

impl Authenticator {
    /// Tries these in this order; the slow side runs what has to wait.
    pub fn new(schemes: Vec<Arc<dyn Scheme>>, slow: SlowSide, options: &AuthenticatorOptions) -> Self {
        let realm = options.realm.as_deref();
        let challenge_of = |scheme: &Arc<dyn Scheme>| scheme.challenge(realm);
        // DRF 3.18, `APIView.get_authenticate_header`: the first class alone is asked.
        let mut challenge = schemes.first().and_then(challenge_of);
        if challenge.is_none() && options.always_challenges && !schemes.is_empty() {
            // RFC 9110 section 15.5.2: a 401 has one.
            let any = schemes.iter().find_map(challenge_of);
            challenge = Some(any.unwrap_or(HeaderValue::from_static("Session")));
        }
        let explicit_first = options.explicit_credentials_first.then(|| {
            let is_cookie =
                |place: &usize| schemes.get(*place).is_some_and(|s| s.kind() == SchemeKind::Session);
            let (cookies, explicit): (Vec<_>, Vec<_>) = (0..schemes.len()).partition(is_cookie);
            explicit.into_iter().chain(cookies).collect()
        });
        Self { schemes, explicit_first, challenge, slow }
    }

    /// The schemes in the order in which they are asked, each with its place in the route's list.
    fn order(&self, head: &Head) -> impl Iterator<Item = (usize, &Arc<dyn Scheme>)> {
        let order =
            self.explicit_first.as_deref().filter(|_| head.headers.contains_key(header::AUTHORIZATION));
        (0..self.schemes.len()).filter_map(move |number| {
            let place = order.map_or(Some(number), |order| order.get(number).copied())?;
            Some((place, self.schemes.get(place)?))
        })
    }

    /// The challenge of a 401; `None`: 403 instead.
    pub fn challenge(&self) -> Option<&HeaderValue> {
        self.challenge.as_ref()
    }

    /// Whether the route has any scheme.
    pub fn has_schemes(&self) -> bool {
        !self.schemes.is_empty()
    }

    /// Who makes this request.
    ///
    /// # Errors
    /// If credentials were presented and are not good, or could not be checked.
    ///
    /// # Cancel safety
    /// A look-up that was begun goes on, for the next one who asks.
    pub async fn authenticate(
        &self,
        head: &Head,
        body: &mut RequestBody,
        context: &Context,
        effects: &mut Effects,
        trace: &mut Trace,
    ) -> Result<Authenticated, AuthenticateError> {
        for (place, scheme) in self.order(head) {
            let mut own = Effects::default();
            let recalled = scheme.recall(head, context, &mut own);
            let verdict = match recalled {
                Recall::NotMine => Verdict::NotMine,
                Recall::Malformed(refusal) => {
                    effects.extend(own);
                    trace.scheme(place, SchemeOutcome::Malformed);
                    return Err(AuthenticateError::Malformed(refusal));
                }
                Recall::Answer(verdict) => verdict,
                Recall::Ask(verification) => {
                    // Until it is known, nobody could say.
                    trace.scheme(place, SchemeOutcome::Unavailable);
                    match self.slow.run(verification).await {
                        Ok((verdict, more)) => {
                            own.extend(more);
                            verdict
                        }
                        Err(SlowError::Busy) => {
                            let verdict;
                            (verdict, own) = while_busy(scheme.as_ref(), head, context)?;
                            verdict
                        }
                        Err(error) => {
                            effects.extend(own);
                            return Err(error.into());
                        }
                    }
                }
                Recall::Attempt(attempt) => {
                    trace.scheme(place, SchemeOutcome::Unavailable);
                    // It has places of its own, and waits here where nobody else does.
                    let (verdict, more) = attempt.await.map_err(unavailable)?;
                    own.extend(more);
                    verdict
                }
            };
            effects.extend(own);
            if let Some(identity) = decide(verdict, place, trace)? {
                check(scheme.as_ref(), head, body, &identity, effects).await.inspect_err(|_| {
                    trace.scheme(place, SchemeOutcome::Refused);
                })?;
                return Ok(Authenticated { identity: Some(identity) });
            }
        }
        Ok(Authenticated { identity: None })
    }

    /// Nobody, where credentials are not asked for, or were bad and do not matter.
    pub fn nobody(&self) -> Authenticated {
        Authenticated { identity: None }
    }
}

/// What can be said without the store, which others wait for.
fn while_busy(
    scheme: &dyn Scheme,
    head: &Head,
    context: &Context,
) -> Result<(Verdict, Effects), AuthenticateError> {
    let context = Context { is_store_busy: true, ..*context };
    let mut effects = Effects::default();
    match scheme.recall(head, &context, &mut effects) {
        Recall::Answer(verdict) => Ok((verdict, effects)),
        _ => Err(AuthenticateError::Busy),
    }
}

/// Stops the chain or not; `None`: on to the next scheme.
fn decide(verdict: Verdict, place: usize, trace: &mut Trace) -> Result<Option<Identity>, AuthenticateError> {
    match verdict {
        Verdict::NotMine => {
            trace.scheme(place, SchemeOutcome::NotMine);
            Ok(None)
        }
        Verdict::Rejected(refusal, answered_by, credential) => {
            trace.scheme(place, SchemeOutcome::Rejected);
            trace.credential = credential;
            trace.answered_by = answered_by;
            Err(AuthenticateError::Rejected(refusal))
        }
        Verdict::Inactive(refusal, answered_by) => {
            trace.scheme(place, SchemeOutcome::Inactive);
            trace.answered_by = answered_by;
            Err(AuthenticateError::Inactive(refusal))
        }
        Verdict::TooMany(too_many) => {
            trace.throttled(too_many.by, Some(too_many.wait));
            Err(AuthenticateError::TooManyAttempts(too_many))
        }
        Verdict::Busy => Err(AuthenticateError::PasswordBusy),
        Verdict::Verified(identity, answered_by) => {
            let is_cached = !matches!(answered_by, AnsweredBy::Redis | AnsweredBy::Store);
            trace.scheme(place, if is_cached { SchemeOutcome::Cached } else { SchemeOutcome::Verified });
            trace.answered_by = answered_by;
            trace.credential = Some(identity.credential);
            trace.principal = Some(identity.user.user.id);
            Ok(Some(identity))
        }
    }
}

/// The third step, with a second call if the scheme wants to see the body's beginning.
async fn check(
    scheme: &dyn Scheme,
    head: &Head,
    body: &mut RequestBody,
    identity: &Identity,
    effects: &mut Effects,
) -> Result<(), AuthenticateError> {
    let first = scheme.check(head, None, identity, effects);
    let answer = match first {
        Check::NeedsBody { bytes_max } => {
            let prefix = body.peek(bytes_max).await?;
            scheme.check(head, Some(prefix), identity, effects)
        }
        answer => answer,
    };
    match answer {
        Check::Pass => Ok(()),
        Check::Refuse(refusal) => Err(AuthenticateError::Refused(refusal)),
        // Closed by default: a scheme that asks twice does not get to pass.
        Check::NeedsBody { .. } => Err(AuthenticateError::Refused(Refusal::new("Request refused."))),
    }
}

/// An outage is told of by whoever watches the store; what concerns one row alone nobody else would tell.
fn unavailable(nobody_knows: NobodyKnows) -> AuthenticateError {
    if let Some(error) = nobody_knows.0.as_ref().filter(|error| !error.is_outage()) {
        tracing::warn!(error = error as &dyn std::error::Error, "a look-up came to nothing");
    }
    AuthenticateError::Unavailable(nobody_knows)
}

impl From<SlowError<NobodyKnows>> for AuthenticateError {
    fn from(error: SlowError<NobodyKnows>) -> Self {
        match error {
            SlowError::Busy => Self::Busy,
            SlowError::Late | SlowError::Panicked => Self::Unavailable(NobodyKnows(None)),
            SlowError::Failed(nobody_knows) => unavailable(nobody_knows),
        }
    }
}
