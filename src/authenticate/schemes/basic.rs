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
use crate::cache::local::{self, CredentialKey, Fact, Found, Known, Loaded, Nothing, Outage};
use crate::clock::Monotonic;
use crate::header::authorization::{self, Words};
use crate::header::basic::{self, Basic, Credentials};
use crate::identity::{CredentialId, Digest, Family, SchemeKind};
use crate::secret::{NoRandomness, Secret};
use crate::store::UserWithPassword;
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

    fn is_right(&self, digest: Digest, encoded: &Secret, now: Monotonic) -> bool {
        let tag = self.digest(&[&digest.0, encoded.expose()]);
        self.right.get(&digest).is_some_and(|right| right.tag == tag && now < right.until)
    }

    fn remember(&self, digest: Digest, encoded: &Secret, now: Monotonic) {
        let tag = self.digest(&[&digest.0, encoded.expose()]);
        self.right.insert(digest, Right { tag, until: now.plus(VERIFIED_TIME) });
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
struct NotLoaded(NotChecked);

impl Outage for NotLoaded {
    fn is_outage(&self) -> bool {
        matches!(self.0, NotChecked::Store(Some(_)))
    }
}

impl From<crate::store::StoreError> for NotLoaded {
    fn from(error: crate::store::StoreError) -> Self {
        Self(NotChecked::Store(Some(error)))
    }
}

impl VerifiedPasswords {
    /// What is not remembered is checked by `checker`.
    pub fn new(lookups: Arc<Lookups>, checker: Arc<dyn CheckPassword>, remembered: Arc<Remembered>) -> Self {
        Self { lookups, checker, remembered }
    }

    fn recall(&self, word: &[u8], context: &Context) -> Option<Verdict> {
        let key = CredentialKey { digest: self.remembered.digest(&[word]), family: Family::Basic };
        match self.lookups.cache.recall(&key, context.now, context.stale_while_unreachable) {
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
            Ok(Loaded::Stale(known)) => judge(known, AnsweredBy::Stale),
            Ok(Loaded::Unknown(_)) => unknown(AnsweredBy::Store),
            Err(Some(NotLoaded(NotChecked::TooMany(too_many)))) => Verdict::TooMany(too_many),
            Err(Some(NotLoaded(NotChecked::Busy))) => Verdict::Busy,
            Err(Some(NotLoaded(NotChecked::Store(error)))) => return Err(NobodyKnows(error)),
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
        let Lookups { store, clock, metrics, .. } = &*self.lookups;
        if self.remembered.right.peek(&key.digest).is_some()
            && let Some(found) = metrics.measure("find-user", store.find_user(username)).await?
            && self.remembered.is_right(key.digest, &found.password, clock.monotonic())
        {
            return Ok(fact(self.lookups.id(&key), found));
        }
        // `NUL` is nobody's, and PostgreSQL would not even be asked for it.
        let checked = self.checker.check(client, username.to_owned(), password.clone()).await;
        let Some(found) = checked.map_err(NotLoaded)? else { return Ok(Found::Nothing(Nothing::Absent)) };
        self.remembered.remember(key.digest, &found.password, clock.monotonic());
        Ok(fact(self.lookups.id(&key), found))
    }
}

fn fact(id: CredentialId, found: UserWithPassword) -> Found {
    Found::Fact(Fact { id, expires: None, user: found.user, csrf_secret: None })
}

fn judge(known: Known, answered_by: AnsweredBy) -> Verdict {
    if known.user.user.is_active {
        Verdict::Verified(Identity::of(known, SchemeKind::Basic), answered_by)
    } else {
        Verdict::Inactive(INVALID, answered_by)
    }
}

fn unknown(answered_by: AnsweredBy) -> Verdict {
    Verdict::Rejected(INVALID, answered_by, None)
}
