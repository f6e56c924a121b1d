//! `Authorization: Token <key>`, exactly as Django REST framework's `TokenAuthentication` (3.18) reads it.
//!
//! The texts say "token" whatever the keyword is: clients compare them.

use crate::accept::head::Head;
use crate::authenticate::lookups::{Answer, Lookups};
use crate::authenticate::scheme::{
    Context, Effects, Exposed, Identity, Naming, NobodyKnows, Recall, Refusal, Scheme, Verdict,
};
use crate::cache::local::{self, CredentialKey, Fact, Known, Loaded, Now};
use crate::cache::uses::Mark;
use crate::header::authorization::{self, Words};
use crate::identity::{CredentialId, Digest, Family, SchemeKind};
use crate::secret::Secret;
use crate::store::{FoundToken, StoreError};
use crate::trace::AnsweredBy;
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
    families: Families,
}

/// The tables that a token is looked for in, in their order.
#[derive(Debug, Clone)]
struct Families {
    families: Arc<[Family]>,
    lookups: Arc<Lookups>,
}

impl TokenScheme {
    /// An instance with this keyword, an RFC 9110 token, for tokens of these families.
    pub fn new(keyword: &str, families: &[Family], lookups: Arc<Lookups>) -> Self {
        // The configuration has checked the keyword; were it wrong, no challenge would match and all be refused.
        let challenge = HeaderValue::from_str(keyword).unwrap_or(HeaderValue::from_static("Token"));
        let families = Families { families: families.into(), lookups };
        Self { keyword: keyword.to_owned(), challenge, families }
    }
}

impl Scheme for TokenScheme {
    fn kind(&self) -> SchemeKind {
        SchemeKind::Token
    }

    /// The keyword alone (DRF 3.18, `TokenAuthentication.authenticate_header`).
    fn challenge(&self, _: Option<&str>) -> Option<HeaderValue> {
        Some(self.challenge.clone())
    }

    fn recall(&self, head: &Head, context: &Context, _: &mut Effects) -> Recall {
        let Some(value) = authorization::value(&head.headers) else { return Recall::NotMine };
        match read(&value, &self.keyword) {
            Reading::NotMine => Recall::NotMine,
            Reading::Malformed(refusal) => Recall::Malformed(refusal),
            Reading::Token(token) => self.families.recall(token, context),
        }
    }

    /// Repeated fields authenticate nobody, but each of them was there to be read.
    fn exposed(&self, headers: &HeaderMap) -> Vec<Naming> {
        let name = |value: &HeaderValue| -> Option<Naming> {
            let Reading::Token(token) = read(value.as_bytes(), &self.keyword) else { return None };
            Some(Box::pin(self.families.clone().name(Secret::new(token))))
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

/// A token that no family has.
enum Asked {
    Somebodys(Known, AnsweredBy),
    Nobodys,
}

impl Families {
    fn recall(&self, token: &[u8], context: &Context) -> Recall {
        let Lookups { cache, .. } = &*self.lookups;
        let digest = Digest::of(token);
        let mark = cache.uses().mark(digest);
        let judge = |known, by| Recall::Answer(self.judge(known, by, &mark, context.now));
        let mut is_askable = false;
        for (place, family) in self.families.iter().enumerate() {
            let key = CredentialKey { digest, family: *family };
            match context.recall(cache, &key) {
                local::Recall::Known(known) => return judge(known, AnsweredBy::Local),
                local::Recall::Stale(known) => return judge(known, AnsweredBy::Stale),
                // The next family may know it.
                local::Recall::Unknown(_) => {}
                // Nobody has time to ask; what the next one knows was found past this one.
                local::Recall::Miss if context.is_store_busy => is_askable = true,
                local::Recall::Miss => {
                    let (token, stale) = (Secret::new(token), context.stale_while_unreachable);
                    return Recall::Ask(Box::pin(self.clone().verify(token, place, stale)));
                }
            }
        }
        if is_askable {
            let (token, stale) = (Secret::new(token), context.stale_while_unreachable);
            return Recall::Ask(Box::pin(self.clone().verify(token, 0, stale)));
        }
        Recall::Answer(self.unknown(digest, AnsweredBy::LocalUnknown))
    }

    async fn verify(
        self,
        token: Secret,
        place: usize,
        stale: Duration,
    ) -> Result<(Verdict, Effects), NobodyKnows> {
        let digest = Digest::of(token.expose());
        let asked = self.ask(&token, place, stale).await?;
        let (mark, now) = (self.lookups.cache.uses().mark(digest), self.lookups.now());
        let verdict = match asked {
            Asked::Somebodys(known, answered_by) => self.judge(known, answered_by, &mark, now),
            Asked::Nobodys => self.unknown(digest, AnsweredBy::Store),
        };
        Ok((verdict, Effects::default()))
    }

    /// Asks the families from this place on.
    async fn ask(&self, token: &Secret, place: usize, stale: Duration) -> Result<Asked, NobodyKnows> {
        let digest = Digest::of(token.expose());
        for family in self.families.iter().skip(place) {
            match self.load(token, CredentialKey { digest, family: *family }, stale).await? {
                Loaded::Known(known) => return Ok(Asked::Somebodys(known, AnsweredBy::Store)),
                Loaded::Shared(known) => return Ok(Asked::Somebodys(known, AnsweredBy::Redis)),
                Loaded::Stale(known) => return Ok(Asked::Somebodys(known, AnsweredBy::Stale)),
                Loaded::Unknown(_) => {}
            }
        }
        Ok(Asked::Nobodys)
    }

    /// An expired token is like one that never was: knox answers so, and it tells a finder least.
    fn judge(&self, known: Known, answered_by: AnsweredBy, mark: &Mark<'_>, now: Now) -> Verdict {
        if known.is_expired(now.unix) {
            Verdict::Rejected(INVALID, answered_by, Some(known.id))
        } else if known.user.user.is_active {
            self.lookups.cache.uses().note(mark, known.id, now.monotonic, now.unix);
            Verdict::Verified(Identity::of(known, SchemeKind::Token), answered_by)
        } else {
            Verdict::Inactive(INACTIVE, answered_by)
        }
    }

    async fn load(&self, token: &Secret, key: CredentialKey, stale: Duration) -> Result<Loaded, NobodyKnows> {
        let Lookups { store, metrics, .. } = &*self.lookups;
        let id = self.lookups.id(&key);
        let ask = || {
            let (store, token) = (Arc::clone(store), token.clone());
            async move {
                if key.family == Family::Authtoken {
                    let found = metrics.measure("find-key", store.find_key(token)).await?;
                    let fact = found.map(|user| Fact { id, expires: None, user, csrf_secret: None });
                    return Ok(Answer { found: fact.into(), as_of: None });
                }
                let found = metrics.measure("find-token", store.find_token(key.digest)).await?;
                let as_of = found.as_ref().and_then(|found| found.as_of);
                Ok::<_, StoreError>(Answer { found: found.and_then(fact).into(), as_of })
            }
        };
        let loaded = if key.family == Family::Authtoken {
            self.lookups.load_presented(key, token, stale, ask).await
        } else {
            self.lookups.load(key, stale, ask).await
        };
        loaded.map_err(NobodyKnows)
    }

    /// What a token is called, however old the answer is: its id never changes.
    async fn name(self, token: Secret) -> Result<Exposed, NobodyKnows> {
        let stale = Duration::MAX;
        let digest = Digest::of(token.expose());
        for family in self.families.iter() {
            let key = CredentialKey { digest, family: *family };
            let known = match self.lookups.cache.recall(&key, self.lookups.now(), stale) {
                local::Recall::Known(known) | local::Recall::Stale(known) => Some(known),
                local::Recall::Unknown(_) => None,
                local::Recall::Miss => match self.load(&token, key, stale).await? {
                    Loaded::Known(known) | Loaded::Shared(known) | Loaded::Stale(known) => Some(known),
                    Loaded::Unknown(_) => None,
                },
            };
            if let Some(known) = known {
                let is_key = *family == Family::Authtoken;
                return Ok(if is_key { Exposed::Key(known.id, token) } else { Exposed::Known(known.id) });
            }
        }
        Ok(Exposed::Unknown(self.unknown_id(digest)))
    }

    fn unknown(&self, digest: Digest, answered_by: AnsweredBy) -> Verdict {
        Verdict::Rejected(INVALID, answered_by, Some(self.unknown_id(digest)))
    }

    /// A token that nobody knows has a name all the same, so that the log can tell them apart.
    fn unknown_id(&self, digest: Digest) -> CredentialId {
        let family = self.families.first().copied().unwrap_or(Family::Doorward);
        self.lookups.id(&CredentialKey { digest, family })
    }
}

/// Credentials made before the user's `not_before` are void.
fn fact(found: FoundToken) -> Option<Fact> {
    let is_void = found.created.0 < found.user.not_before;
    (!is_void).then_some(Fact { id: found.id, expires: found.expires, user: found.user, csrf_secret: None })
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
