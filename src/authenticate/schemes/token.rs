//! `Authorization: Token <key>`, exactly as Django REST framework's `TokenAuthentication` (3.18) reads it.
//!
//! The texts say "token" whatever the keyword is: clients compare them.

use crate::accept::head::Head;
use crate::authenticate::scheme::{
    Context, Effects, Exposed, Identity, Naming, NobodyKnows, Recall, Refusal, Scheme, Verdict,
};
use crate::cache::local::{self, CredentialKey, Fact, Known, Loaded, LocalCache, Now};
use crate::cache::uses::Mark;
use crate::clock::Clock;
use crate::header::authorization::{self, Words};
use crate::identity::{CredentialId, Digest, Family, SchemeKind};
use crate::secret::Secret;
use crate::store::{FoundToken, Store, StoreError};
use crate::telemetry::metrics::StoreMetrics;
use crate::trace::AnsweredBy;
use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderValue, header};
use std::sync::Arc;
use std::time::Duration;

const NO_CREDENTIALS: Refusal = Refusal::new("Invalid token header. No credentials provided.");
const SPACES: Refusal = Refusal::new("Invalid token header. Token string should not contain spaces.");
const INVALID_CHARACTERS: Refusal =
    Refusal::new("Invalid token header. Token string should not contain invalid characters.");
const INVALID: Refusal = Refusal::new("Invalid token.");
const INACTIVE: Refusal = Refusal::new("User inactive or deleted.");

/// One instance of the token scheme.
#[derive(Debug)]
pub struct TokenScheme {
    keyword: String,
    challenge: HeaderValue,
    source: Arc<TokenSource>,
}

/// Where tokens are looked up; shared by all instances.
#[derive(Debug)]
pub struct TokenSource {
    cache: Arc<LocalCache>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    metrics: StoreMetrics,
    /// Names credentials that nobody knows, so that the log can tell them apart.
    unknown_ids: hmac::Key,
}

impl TokenScheme {
    /// An instance with this keyword, an RFC 9110 token.
    pub fn new(keyword: &str, source: Arc<TokenSource>) -> Self {
        // The configuration has checked the keyword; were it wrong, no challenge would match and all be refused.
        let challenge = HeaderValue::from_str(keyword).unwrap_or(HeaderValue::from_static("Token"));
        Self { keyword: keyword.to_owned(), challenge, source }
    }
}

impl Scheme for TokenScheme {
    fn kind(&self) -> SchemeKind {
        SchemeKind::Token
    }

    /// The keyword alone (DRF 3.18, `TokenAuthentication.authenticate_header`).
    fn challenge(&self) -> Option<HeaderValue> {
        Some(self.challenge.clone())
    }

    fn recall(&self, head: &Head, context: &Context, _: &mut Effects) -> Recall {
        let Some(value) = authorization::value(&head.headers) else { return Recall::NotMine };
        match read(&value, &self.keyword) {
            Reading::NotMine => Recall::NotMine,
            Reading::Malformed(refusal) => Recall::Malformed(refusal),
            Reading::Token(token) => self.source.recall(Digest::of(token), context),
        }
    }

    /// Repeated fields authenticate nobody, but each of them was there to be read.
    fn exposed(&self, headers: &HeaderMap) -> Vec<Naming> {
        let name = |value: &HeaderValue| -> Option<Naming> {
            let Reading::Token(token) = read(value.as_bytes(), &self.keyword) else { return None };
            let key = CredentialKey { digest: Digest::of(token), family: Family::Doorward };
            Some(Box::pin(Arc::clone(&self.source).name(key)))
        };
        headers.get_all(header::AUTHORIZATION).iter().filter_map(name).collect()
    }
}

/// What an `Authorization` value is to this scheme.
#[derive(Debug, PartialEq, Eq)]
pub enum Reading<'a> {
    /// Another scheme's.
    NotMine,
    /// This scheme's, but broken.
    Malformed(Refusal),
    /// A key, opaque.
    Token(&'a [u8]),
}

/// Reads a value; pure. Order and texts: DRF 3.18, `TokenAuthentication.authenticate`.
pub fn read<'a>(value: &'a [u8], keyword: &str) -> Reading<'a> {
    let words = Words::of(value);
    if !words.is_scheme(keyword) {
        return Reading::NotMine;
    }
    match words {
        Words::None => Reading::NotMine,
        Words::One(_) => Reading::Malformed(NO_CREDENTIALS),
        Words::More(_) => Reading::Malformed(SPACES),
        Words::Two(_, token) if std::str::from_utf8(token).is_err() => Reading::Malformed(INVALID_CHARACTERS),
        Words::Two(_, token) => Reading::Token(token),
    }
}

impl TokenSource {
    /// First the cache, then the store. The deployment key makes public ids of unknown tokens.
    pub fn new(
        cache: Arc<LocalCache>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        deployment_key: &Secret,
    ) -> Self {
        let unknown_ids = hmac::Key::new(hmac::HMAC_SHA256, deployment_key.expose());
        Self { cache, store, clock, metrics: StoreMetrics::default(), unknown_ids }
    }

    /// Look-ups are measured by these.
    #[must_use]
    pub fn measured(self, metrics: StoreMetrics) -> Self {
        Self { metrics, ..self }
    }

    fn recall(self: &Arc<Self>, digest: Digest, context: &Context) -> Recall {
        let key = CredentialKey { digest, family: Family::Doorward };
        let stale = context.stale_while_unreachable;
        let mark = self.cache.uses().mark(digest);
        let judge = |known, by| Recall::Answer(self.judge(known, by, &mark, context.now));
        match self.cache.recall(&key, context.now, stale) {
            local::Recall::Known(known) => judge(known, AnsweredBy::Local),
            local::Recall::Stale(known) => judge(known, AnsweredBy::Stale),
            local::Recall::Unknown(_) => Recall::Answer(self.unknown(key, AnsweredBy::LocalUnknown)),
            local::Recall::Miss => Recall::Ask(Box::pin(Arc::clone(self).verify(key, stale))),
        }
    }

    async fn verify(
        self: Arc<Self>,
        key: CredentialKey,
        stale: Duration,
    ) -> Result<(Verdict, Effects), NobodyKnows> {
        let loaded = self.load(key, stale).await?;
        let (mark, now) = (self.cache.uses().mark(key.digest), Now::read(self.clock.as_ref()));
        let judge = |known, by| self.judge(known, by, &mark, now);
        let verdict = match loaded {
            Loaded::Known(known) => judge(known, AnsweredBy::Store),
            Loaded::Stale(known) => judge(known, AnsweredBy::Stale),
            Loaded::Unknown(_) => self.unknown(key, AnsweredBy::Store),
        };
        Ok((verdict, Effects::default()))
    }

    /// An expired token is like one that never was: knox answers so, and it tells a finder least.
    fn judge(&self, known: Known, answered_by: AnsweredBy, mark: &Mark<'_>, now: Now) -> Verdict {
        if known.is_expired(now.unix) {
            Verdict::Rejected(INVALID, answered_by, Some(known.id))
        } else if known.user.user.is_active {
            self.cache.uses().note(mark, known.id, now.monotonic, now.unix);
            let identity = Identity { user: known.user, scheme: SchemeKind::Token, credential: known.id };
            Verdict::Verified(identity, answered_by)
        } else {
            Verdict::Inactive(INACTIVE, answered_by)
        }
    }

    async fn load(&self, key: CredentialKey, stale: Duration) -> Result<Loaded, NobodyKnows> {
        let store = Arc::clone(&self.store);
        let ask = || {
            let store = Arc::clone(&store);
            async move {
                let found = self.metrics.measure("find-token", store.find_token(key.digest)).await?;
                Ok::<_, StoreError>(found.and_then(fact))
            }
        };
        self.cache.load(key, self.clock.as_ref(), stale, ask).await.map_err(NobodyKnows)
    }

    /// What a token is called, however old the answer is: its id never changes.
    async fn name(self: Arc<Self>, key: CredentialKey) -> Result<Exposed, NobodyKnows> {
        let stale = Duration::MAX;
        let known = match self.cache.recall(&key, Now::read(self.clock.as_ref()), stale) {
            local::Recall::Known(known) | local::Recall::Stale(known) => Some(known),
            local::Recall::Unknown(_) => None,
            local::Recall::Miss => match self.load(key, stale).await? {
                Loaded::Known(known) | Loaded::Stale(known) => Some(known),
                Loaded::Unknown(_) => None,
            },
        };
        let id = known.map(|known| Exposed::Known(known.id));
        id.or_else(|| self.unknown_id(key).map(Exposed::Unknown)).ok_or(NobodyKnows(None))
    }

    fn unknown(&self, key: CredentialKey, answered_by: AnsweredBy) -> Verdict {
        Verdict::Rejected(INVALID, answered_by, self.unknown_id(key))
    }

    /// A token that nobody knows, under 64 bits of a keyed digest: a public id that says nothing of it.
    fn unknown_id(&self, key: CredentialKey) -> Option<CredentialId> {
        let mut context = hmac::Context::with_key(&self.unknown_ids);
        context.update(&[key.family as u8]);
        context.update(&key.digest.0);
        let tag = context.sign();
        tag.as_ref().first_chunk().map(|first| CredentialId(u64::from_be_bytes(*first)))
    }
}

/// Credentials made before the user's `not_before` are void.
fn fact(found: FoundToken) -> Option<Fact> {
    let is_void = found.created.0 < found.user.not_before;
    (!is_void).then_some(Fact { id: found.id, expires: found.expires, user: found.user })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_read_as_drf_reads_them() {
        for (value, reading) in [
            (&b"Token abc"[..], Reading::Token(b"abc")),
            (b"tOkEn \t abc  ", Reading::Token(b"abc")),
            (b"Token caf\xc3\xa9", Reading::Token(b"caf\xc3\xa9")),
            (b"", Reading::NotMine),
            (b"Basic abc", Reading::NotMine),
            (b"Token: abc", Reading::NotMine),
            (b"Token", Reading::Malformed(NO_CREDENTIALS)),
            (b" Token ", Reading::Malformed(NO_CREDENTIALS)),
            (b"Token a b", Reading::Malformed(SPACES)),
            (b"Token a \xff", Reading::Malformed(SPACES)),
            (b"Token \xff\xfe", Reading::Malformed(INVALID_CHARACTERS)),
        ] {
            assert_eq!(read(value, "Token"), reading, "{}", String::from_utf8_lossy(value));
        }
        assert_eq!(read(b"Bearer abc", "Bearer"), Reading::Token(b"abc"));
        assert_eq!(read(b"Token abc", "Bearer"), Reading::NotMine);
    }

    proptest! {
        #[test]
        fn any_value_is_read_without_panic(value: Vec<u8>) {
            if let Reading::Token(token) = read(&value, "Token") {
                prop_assert!(!token.is_empty() && !token.contains(&b' '));
            }
        }
    }
}
