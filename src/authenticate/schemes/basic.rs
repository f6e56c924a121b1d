//! `Authorization: Basic …`, exactly as Django REST framework's `BasicAuthentication` (3.18) reads it.
//!
//! A password takes a tenth of a second to check, so one that was right is remembered in this process, under a digest
//! with a key that is never written anywhere and bound to the stored hash: whoever gets another password, is deactivated
//! or deleted, is asked for the next one at once.

use crate::accept::head::Head;
use crate::authenticate::lookups::Lookups;
use crate::authenticate::password::{CheckPassword, NotChecked};
use crate::authenticate::scheme::{
    Context, Effects, Identity, NobodyKnows, Recall, Refusal, Scheme, Verdict,
};
use crate::authenticate::slow::{SlowError, SlowSide};
use crate::cache::local::{self, CredentialKey, Fact, Found, Invalidation, Known, Loaded, Nothing, Outage};
use crate::clock::{Monotonic, UnixSeconds};
use crate::header::authorization::{self, Words};
use crate::header::basic::{self, Basic, Credentials};
use crate::identity::{Digest, Family, SchemeKind};
use crate::secret::{NoRandomness, Secret};
use crate::store::{StoreError, UserWithPassword};
use crate::trace::AnsweredBy;
use aws_lc_rs::hmac;
use http::HeaderValue;
use quick_cache::sync::Cache;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// DRF answers so whatever it is: wrong, unknown, or a user who is not active.
const INVALID: Refusal = Refusal::new("Invalid username/password.");
/// A password that was right is not checked again for this long, as long as the stored hash is the same.
const VERIFIED_TIME: Duration = Duration::from_mins(5);
/// Passwords that are remembered; about 100 bytes each.
const VERIFIED_MAX: usize = 100_000;

/// One instance of the basic scheme.
#[derive(Debug)]
pub struct BasicScheme {
    realm: String,
    passwords: Arc<VerifiedPasswords>,
}

/// Where names and passwords are looked up; shared by all instances.
#[derive(Debug)]
pub struct VerifiedPasswords {
    lookups: Arc<Lookups>,
    checker: Arc<dyn CheckPassword>,
    remembered: Arc<Remembered>,
    slow: SlowSide,
}

/// Which credentials were right, and for which stored hash. Survives a reload.
pub struct Remembered {
    /// Never leaves the process.
    key: hmac::Key,
    right: Cache<Digest, Right, quick_cache::UnitWeighter, foldhash::fast::RandomState>,
}

#[derive(Clone, Copy)]
struct Right {
    /// Of credentials and stored hash.
    tag: Digest,
    until: Monotonic,
}

impl std::fmt::Debug for Remembered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remembered").field("entries", &self.right.len()).finish_non_exhaustive()
    }
}

impl Remembered {
    /// Nothing yet.
    ///
    /// # Errors
    /// If the system gives no randomness for the key.
    pub fn new() -> Result<Self, NoRandomness> {
        let mut key = zeroize::Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key).map_err(|_| NoRandomness)?;
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &*key),
            right: Cache::with(
                VERIFIED_MAX,
                VERIFIED_MAX as u64,
                quick_cache::UnitWeighter,
                foldhash::fast::RandomState::default(),
                quick_cache::sync::DefaultLifecycle::default(),
            ),
        })
    }

    /// Names credentials as they were presented. Two ways to write the same ones have two names.
    fn digest(&self, parts: &[&[u8]]) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(part);
        }
        // A tag has 32 bytes.
        Digest(context.sign().as_ref().first_chunk().copied().unwrap_or_default())
    }

    /// Until when these credentials need not be checked, if they were right for this stored hash.
    fn right_until(&self, digest: Digest, encoded: &Secret, now: Monotonic) -> Option<Monotonic> {
        let tag = self.digest(&[&digest.0, encoded.expose()]);
        self.right.get(&digest).filter(|right| right.tag == tag && now < right.until).map(|right| right.until)
    }

    fn remember(&self, digest: Digest, encoded: &Secret, now: Monotonic) -> Monotonic {
        let tag = self.digest(&[&digest.0, encoded.expose()]);
        let until = now.plus(VERIFIED_TIME);
        self.right.insert(digest, Right { tag, until });
        until
    }
}

impl BasicScheme {
    /// An instance with this realm.
    pub fn new(realm: &str, passwords: Arc<VerifiedPasswords>) -> Self {
        Self { realm: realm.to_owned(), passwords }
    }
}

impl Scheme for BasicScheme {
    fn kind(&self) -> SchemeKind {
        SchemeKind::Basic
    }

    /// DRF 3.18, `BasicAuthentication.authenticate_header`.
    fn challenge(&self, realm: Option<&str>) -> Option<HeaderValue> {
        let text = format!("Basic realm=\"{}\"", realm.unwrap_or(&self.realm));
        // The configuration has checked the realm.
        Some(
            HeaderValue::from_bytes(text.as_bytes())
                .unwrap_or(HeaderValue::from_static("Basic realm=\"api\"")),
        )
    }

    fn recall(&self, head: &Head, context: &Context, _: &mut Effects) -> Recall {
        let Some(value) = authorization::value(&head.headers) else { return Recall::NotMine };
        let words = Words::of(&value);
        if !words.is_scheme("basic") {
            return Recall::NotMine;
        }
        // What is known was well-formed: it need not be decoded again.
        if let Words::Two(_, word) = words
            && let Some(known) = self.passwords.recall(word, context)
        {
            return Recall::Answer(known);
        }
        match Basic::of(&words) {
            Basic::NotMine => Recall::NotMine,
            Basic::Malformed(text) => Recall::Malformed(Refusal::new(text)),
            Basic::Credentials(credentials) => {
                let Words::Two(_, word) = words else {
                    return Recall::Malformed(Refusal::new(basic::NOT_BASE64));
                };
                let digest = self.passwords.remembered.digest(&[word]);
                let passwords = Arc::clone(&self.passwords);
                let (client, stale) = (head.client.address, context.stale_while_unreachable);
                Recall::Attempt(Box::pin(passwords.verify(digest, credentials, client, stale)))
            }
        }
    }
}

/// Why nothing was loaded.
#[derive(Debug)]
enum NotLoaded {
    /// The password.
    NotChecked(NotChecked),
    /// The user.
    NotFound(SlowError<StoreError>),
}

impl Outage for NotLoaded {
    fn is_outage(&self) -> bool {
        match self {
            Self::NotChecked(NotChecked::Store(Some(error))) | Self::NotFound(SlowError::Failed(error)) => {
                error.is_outage()
            }
            Self::NotFound(SlowError::Late) => true,
            Self::NotChecked(_) | Self::NotFound(SlowError::Busy | SlowError::Panicked) => false,
        }
    }

    fn is_busy(&self) -> bool {
        matches!(self, Self::NotFound(SlowError::Busy))
    }
}

impl NotLoaded {
    /// What that is for whoever came with these credentials.
    fn verdict(self) -> Result<Verdict, NobodyKnows> {
        match self {
            Self::NotChecked(NotChecked::TooMany(too_many)) => Ok(Verdict::TooMany(too_many)),
            Self::NotChecked(NotChecked::Busy) => Ok(Verdict::Busy),
            Self::NotChecked(NotChecked::Store(error)) => Err(NobodyKnows(error)),
            Self::NotFound(SlowError::Failed(error)) => Err(NobodyKnows(Some(error))),
            Self::NotFound(SlowError::Busy | SlowError::Late | SlowError::Panicked) => Err(NobodyKnows(None)),
        }
    }
}

impl VerifiedPasswords {
    /// What is not remembered is checked by `checker`; look-ups run on the slow side.
    pub fn new(
        lookups: Arc<Lookups>,
        checker: Arc<dyn CheckPassword>,
        remembered: Arc<Remembered>,
        slow: SlowSide,
    ) -> Self {
        Self { lookups, checker, remembered, slow }
    }

    fn recall(&self, word: &[u8], context: &Context) -> Option<Verdict> {
        let key = CredentialKey { digest: self.remembered.digest(&[word]), family: Family::Basic };
        match context.recall(&self.lookups.cache, &key) {
            // However often it is asked for, the password is checked again after a while.
            local::Recall::Known(known) | local::Recall::Stale(known)
                if known.is_expired(context.now.unix) =>
            {
                self.lookups.cache.invalidate(Invalidation::Credential(key));
                None
            }
            local::Recall::Known(known) => Some(judge(known, AnsweredBy::Local)),
            local::Recall::Stale(known) => Some(judge(known, AnsweredBy::Stale)),
            local::Recall::Unknown(_) => Some(unknown(AnsweredBy::LocalUnknown)),
            local::Recall::Miss => None,
        }
    }

    async fn verify(
        self: Arc<Self>,
        digest: Digest,
        credentials: Credentials,
        client: IpAddr,
        stale: Duration,
    ) -> Result<(Verdict, Effects), NobodyKnows> {
        let Credentials { username, mut password } = credentials;
        let password = Secret::new(std::mem::take(&mut *password));
        let key = CredentialKey { digest, family: Family::Basic };
        // One check for all who come with the same credentials at once.
        let ask = || self.ask(key, &username, &password, client);
        let loaded = self.lookups.cache.load(key, self.lookups.clock.as_ref(), stale, ask).await;
        let verdict = match loaded {
            Ok(Loaded::Known(known)) => judge(known, AnsweredBy::Store),
            Ok(Loaded::Shared(known)) => judge(known, AnsweredBy::Redis),
            Ok(Loaded::Stale(known)) => judge(known, AnsweredBy::Stale),
            Ok(Loaded::Unknown(_)) => unknown(AnsweredBy::Store),
            Err(Some(not_loaded)) => not_loaded.verdict()?,
            Err(None) => return Err(NobodyKnows(None)),
        };
        Ok((verdict, Effects::default()))
    }

    async fn ask(
        &self,
        key: CredentialKey,
        username: &str,
        password: &Secret,
        client: IpAddr,
    ) -> Result<Found, NotLoaded> {
        let Lookups { clock, .. } = &*self.lookups;
        if self.remembered.right.peek(&key.digest).is_some()
            && let Some(found) = self.find(username).await.map_err(NotLoaded::NotFound)?
            && let Some(until) = self.remembered.right_until(key.digest, &found.password, clock.monotonic())
        {
            return Ok(self.fact(&key, found, until));
        }
        let checked = self.checker.check(client, username.to_owned(), password.clone()).await;
        let Some(found) = checked.map_err(NotLoaded::NotChecked)? else {
            self.remembered.right.remove(&key.digest);
            return Ok(Found::Nothing(Nothing::Absent));
        };
        if !found.user.is_active {
            // Remembered, the answer would be quick and say that the password was right.
            return Ok(Found::Nothing(Nothing::Absent));
        }
        let until = self.remembered.remember(key.digest, &found.password, clock.monotonic());
        Ok(self.fact(&key, found, until))
    }
}

impl VerifiedPasswords {
    fn fact(&self, key: &CredentialKey, found: UserWithPassword, until: Monotonic) -> Found {
        let now = self.lookups.now();
        let left = i64::try_from(until.since(now.monotonic).as_secs()).unwrap_or(i64::MAX);
        let expires = Some(UnixSeconds(now.unix.0.saturating_add(left).saturating_add(1)));
        Found::Fact(Fact { id: self.lookups.id(key), expires, user: found.user, csrf_secret: None })
    }

    /// Beside all other look-ups, and not where passwords wait.
    async fn find(&self, username: &str) -> Result<Option<UserWithPassword>, SlowError<StoreError>> {
        let (lookups, username) = (Arc::clone(&self.lookups), username.to_owned());
        let find = async move {
            let Lookups { store, metrics, .. } = &*lookups;
            metrics.measure("find-user", store.find_user(&username)).await
        };
        self.slow.run(find).await
    }
}

fn judge(known: Known, answered_by: AnsweredBy) -> Verdict {
    if known.user.user.is_active {
        // A password has no end, only what is remembered of it.
        let identity = Identity { expires: None, ..Identity::of(known, SchemeKind::Basic) };
        Verdict::Verified(identity, answered_by)
    } else {
        Verdict::Inactive(INVALID, answered_by)
    }
}

fn unknown(answered_by: AnsweredBy) -> Verdict {
    Verdict::Rejected(INVALID, answered_by, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_cannot_be_read_is_no_outage() {
        let unreadable = || StoreError::Unreadable("a text where a number should be".into());
        assert!(!NotLoaded::NotFound(SlowError::Failed(unreadable())).is_outage());
        assert!(!NotLoaded::NotChecked(NotChecked::Store(Some(unreadable()))).is_outage());
        let away = || StoreError::Unavailable("away".into());
        assert!(NotLoaded::NotFound(SlowError::Failed(away())).is_outage());
        assert!(NotLoaded::NotChecked(NotChecked::Store(Some(away()))).is_outage());
    }
}
