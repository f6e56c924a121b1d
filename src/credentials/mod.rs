//! The only writer: whoever makes, changes or voids a credential goes through here.
//!
//! Each act commits to the store, then invalidates what this process remembers, then tells all other replicas (Redis), then
//! returns: when the caller is answered, the act is durable and effective. Who cannot tell the others waits until
//! none of them believes any more what was true before; without Redis they learn of it from the store.

mod canary;
pub mod manage;
pub mod sessions;

pub use crate::credentials::canary::CANARIES_MAX;
pub use crate::credentials::sessions::CreatedSession;

use crate::cache::change::{Changes, Sequence};
use crate::cache::coherence::{self, Command, rules::Sound};
use crate::cache::local::{Invalidation, LocalCache};
use crate::cache::redis::{Away, SharedCache};
use crate::clock::{Clock, UnixSeconds};
use crate::identity::{CredentialId, Digest, User, UserId};
use crate::password::{self, PasswordError, Passwords};
use crate::secret::{NoRandomness, Secret};
use crate::store::{
    Change, Grant, Granted, NewToken, NewUser, Store, StoreError, TokenOrigin, TokenSummary,
    UserWithPassword, Written,
};
use crate::telemetry::metrics::StoreMetrics;
use arc_swap::ArcSwap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

/// Random bytes of a token: 160 bits, as DRF's.
const TOKEN_BYTES: usize = 20;
/// A given key with fewer characters is refused: 128 bits in hex.
const IMPORTED_KEY_BYTES_MIN: usize = 32;
/// Longest username (Django's `auth_user.username`), in characters.
const USERNAME_CHARACTERS_MAX: usize = 150;

/// Before others are told once more of what they have to forget.
const TELL_AGAIN: Duration = Duration::from_millis(200);
/// Longest name of a token, in characters.
const TOKEN_NAME_CHARACTERS_MAX: usize = 100;

/// Why an act was not done. Nothing was changed then, but for [`StoreError::Unavailable`]: nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// No user has this name.
    #[error("there is no such user")]
    NoSuchUser,
    /// No token has this id.
    #[error("there is no such token")]
    NoSuchToken,
    /// The name is empty, too long, or has control characters.
    #[error("a username has 1 to 150 characters and no control characters")]
    BadUsername,
    /// The name of a token is too long or has control characters.
    #[error("a token's name has at most 100 characters and no control characters")]
    BadTokenName,
    /// The e-mail address is too long or has control characters.
    #[error("an e-mail address has at most 254 characters and no control characters")]
    BadEmail,
    /// The name of a group is empty, too long, or has control characters.
    #[error("a group's name has 1 to 150 characters and no control characters")]
    BadGroupName,
    /// The password is empty.
    #[error("the password is empty")]
    EmptyPassword,
    /// The password has a NUL.
    #[error("the password has a null character: nobody could log in with it")]
    NullInPassword,
    /// The given key is easy to guess.
    #[error("the key is shorter than 32 characters: 128 random bits are needed")]
    WeakKey,
    /// Password hashing.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gave no randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// A user to be added.
#[derive(Debug, Clone, Default)]
pub struct NewAccount {
    /// Unique name, compared exactly.
    pub username: String,
    /// In clear; hashed here.
    pub password: Secret,
    /// May be empty.
    pub email: String,
    /// For the permission `staff`.
    pub is_staff: bool,
    /// Groups; made as needed.
    pub groups: Vec<String>,
}

/// A token that was just made: the only time that its secret is seen.
#[derive(Debug)]
pub struct CreatedToken {
    /// Public id.
    pub id: CredentialId,
    /// What the client presents.
    pub key: Secret,
}

/// How new tokens are made.
#[derive(Debug, Clone)]
pub struct TokenPolicy {
    /// `None`: they never expire.
    pub ttl: Option<Duration>,
    /// What keys begin with.
    pub prefix: String,
    /// Most live tokens that one user got for a password.
    pub per_user: NonZeroUsize,
}

/// How passwords are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PasswordEncoding {
    /// In our own way.
    #[default]
    Own,
    /// As Django's own would be; what is encoded otherwise is recoded at a login, if `recodes`.
    Django {
        /// Ends the user's sessions in Django, whose keys depend on the encoded password.
        recodes: bool,
    },
}

/// The writer.
#[derive(Debug)]
pub struct Credentials {
    store: Arc<dyn Store>,
    cache: Arc<LocalCache>,
    shared: Option<SharedCache>,
    passwords: Arc<Passwords>,
    clock: Arc<dyn Clock>,
    policy: ArcSwap<TokenPolicy>,
    encoding: PasswordEncoding,
    metrics: StoreMetrics,
}

impl Credentials {
    /// Writes to this store and invalidates this cache.
    pub fn new(
        store: Arc<dyn Store>,
        cache: Arc<LocalCache>,
        passwords: Arc<Passwords>,
        clock: Arc<dyn Clock>,
        policy: TokenPolicy,
    ) -> Self {
        let (metrics, encoding) = (StoreMetrics::default(), PasswordEncoding::default());
        let policy = ArcSwap::from_pointee(policy);
        Self { store, cache, shared: None, passwords, clock, policy, encoding, metrics }
    }

    /// Other replicas are told by this.
    #[must_use]
    pub fn shared(self, shared: Option<SharedCache>) -> Self {
        Self { shared, ..self }
    }

    /// New passwords are stored so.
    #[must_use]
    pub fn encoding(self, encoding: PasswordEncoding) -> Self {
        Self { encoding, ..self }
    }

    /// What the gateway itself asks of the store is measured by these.
    #[must_use]
    pub fn measured(self, metrics: StoreMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// New tokens are made so from now on.
    pub fn set_policy(&self, policy: TokenPolicy) {
        self.policy.store(Arc::new(policy));
    }

    fn policy(&self) -> Arc<TokenPolicy> {
        self.policy.load_full()
    }

    /// Adds a user.
    ///
    /// # Errors
    /// If the name is taken or not acceptable, or the store cannot be written.
    pub async fn add_user(&self, account: NewAccount) -> Result<UserId, CredentialsError> {
        check_username(&account.username)?;
        manage::check_email(&account.email)?;
        account.groups.iter().try_for_each(|group| manage::check_group_name(group))?;
        let password = self.hash(account.password).await?;
        let NewAccount { username, email, is_staff, groups, password: _ } =
            NewAccount { password: Secret::default(), ..account };
        let user = NewUser { username, password, email, is_staff, groups, created: self.clock.unix() };
        Ok(self.announce(self.store.insert_user(user).await?).await)
    }

    /// Replaces a user's password.
    ///
    /// # Errors
    /// If there is no such user, or the store cannot be written.
    pub async fn set_password(&self, username: &str, password: Secret) -> Result<(), CredentialsError> {
        let user = self.user(username).await?;
        let password = self.hash(password).await?;
        let found = self.settle(self.store.set_password(user.id, password).await?).await;
        self.changed_user(user.id, found)
    }

    /// Sets whether a user may log in or use any credential.
    ///
    /// # Errors
    /// If there is no such user, or the store cannot be written.
    pub async fn set_active(&self, username: &str, active: bool) -> Result<(), CredentialsError> {
        let user = self.user(username).await?;
        let found = self.settle(self.store.set_active(user.id, active).await?).await;
        self.changed_user(user.id, found)
    }

    /// Replaces a user's groups.
    ///
    /// # Errors
    /// If there is no such user, or the store cannot be written.
    pub async fn set_groups(&self, username: &str, groups: Vec<String>) -> Result<(), CredentialsError> {
        let user = self.user(username).await?;
        let found = self.settle(self.store.set_groups(user.id, groups).await?).await;
        self.changed_user(user.id, found)
    }

    /// Deletes a user with all tokens.
    ///
    /// # Errors
    /// If there is no such user, or the store cannot be written.
    pub async fn delete_user(&self, username: &str) -> Result<(), CredentialsError> {
        let user = self.user(username).await?;
        let found = self.settle(self.store.delete_user(user.id).await?).await;
        self.changed_user(user.id, found)
    }

    /// Makes a token for a user.
    ///
    /// # Errors
    /// If there is no such user, or the store cannot be written.
    pub async fn create_token(
        &self,
        username: &str,
        name: &str,
        origin: TokenOrigin,
    ) -> Result<CreatedToken, CredentialsError> {
        check_token_name(name)?;
        let user = self.user(username).await?;
        // DRF 3.18, `Token.generate_key`: 40 lower-case hex digits.
        let key = Secret::random_hex::<TOKEN_BYTES>(&self.policy().prefix)?;
        self.store_token(user.id, key, name, origin).await
    }

    /// Makes a token for a user whose password was just checked. Past the limit for each user the least recently
    /// used of the tokens that were made so is voided. `None`: the user is not the one any more whose password it was.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn grant_token(&self, user: &User) -> Result<Option<CreatedToken>, CredentialsError> {
        let key = Secret::random_hex::<TOKEN_BYTES>(&self.policy().prefix)?;
        let token = self.new_token(user.id, &key, "", TokenOrigin::Obtain)?;
        let id = token.id;
        let last_use = |digest| {
            let last = self.cache.uses().last(digest)?;
            Some((self.clock.unix_at(last), last.0))
        };
        let per_user = self.policy().per_user;
        let grant =
            Grant { password_version: user.password_version, per_user: per_user.get(), last_use: &last_use };
        let granted = self.metrics.measure("grant-token", self.store.grant_token(token, grant)).await?;
        let is_revoking = matches!(&granted.value, Granted::Stored { revoked } if !revoked.is_empty());
        let granted = if is_revoking { self.settle(granted).await } else { self.announce(granted).await };
        let Granted::Stored { revoked } = granted else { return Ok(None) };
        for (id, _) in revoked {
            tracing::info!(credential.id = %id, user.id = user.id.0, limit = per_user, "token revoked: per_user");
        }
        Ok(Some(CreatedToken { id, key }))
    }

    /// Writes when tokens were last used, for those whose use was noted since the last call.
    ///
    /// # Errors
    /// If the store cannot be written; the uses are kept for the next call.
    pub async fn write_uses(&self) -> Result<(), CredentialsError> {
        let uses = self.cache.uses().take();
        if uses.is_empty() {
            return Ok(());
        }
        let written = self.metrics.measure("write-uses", self.store.write_uses(uses.clone())).await;
        Ok(written.inspect_err(|_| self.cache.uses().put_back(uses))?)
    }

    /// Stores a token whose key was made elsewhere.
    ///
    /// # Errors
    /// If there is no such user, the key is taken or too short, or the store cannot be written.
    pub async fn import_token(&self, username: &str, key: Secret) -> Result<CreatedToken, CredentialsError> {
        if key.expose().len() < IMPORTED_KEY_BYTES_MIN {
            return Err(CredentialsError::WeakKey);
        }
        self.import_any_token(username, key).await
    }

    /// As [`Self::import_token`], however short the key is.
    ///
    /// # Errors
    /// If there is no such user, the key is taken, or the store cannot be written.
    pub async fn import_any_token(
        &self,
        username: &str,
        key: Secret,
    ) -> Result<CreatedToken, CredentialsError> {
        let user = self.user(username).await?;
        self.store_token(user.id, key, "", TokenOrigin::Command).await
    }

    /// Voids a token: when this returns, no later request of this process passes with it.
    ///
    /// # Errors
    /// If there is no such token, or the store cannot be written.
    pub async fn revoke_token(&self, id: CredentialId) -> Result<(), CredentialsError> {
        let deleted = self.metrics.measure("delete-token", self.store.delete_token(id)).await?;
        self.settle(deleted).await.map(drop).ok_or(CredentialsError::NoSuchToken)
    }

    /// Lists tokens: all, or one user's.
    ///
    /// # Errors
    /// If there is no such user, or the store cannot be asked.
    pub async fn list_tokens(&self, username: Option<&str>) -> Result<Vec<TokenSummary>, CredentialsError> {
        let user = match username {
            Some(username) => Some(self.user(username).await?.id),
            None => None,
        };
        Ok(self.store.list_tokens(user).await?)
    }

    /// Checks a password. `None`: wrong password, unknown user or inactive user; all take the same time.
    ///
    /// # Errors
    /// If the store cannot be asked, or too many passwords wait to be checked.
    pub async fn login(&self, username: &str, password: Secret) -> Result<Option<User>, CredentialsError> {
        let found = self.check_password(username, password).await?;
        Ok(found.map(|found| found.user).filter(|user| user.is_active))
    }

    /// Whose name and password these are, the user active or not. `None`: wrong or unknown; both take the same time.
    ///
    /// # Errors
    /// If the store cannot be asked, or too many passwords wait to be checked.
    pub async fn check_password(
        &self,
        username: &str,
        password: Secret,
    ) -> Result<Option<UserWithPassword>, CredentialsError> {
        // DRF 3.18, `ProhibitNullCharactersValidator`; PostgreSQL cannot even be asked for it.
        let is_askable = !username.contains('\0');
        let found = if is_askable {
            self.metrics.measure("find-user", self.store.find_user(username)).await?
        } else {
            None
        };
        let encoded = found.as_ref().map(|found| found.password.clone());
        let matches = self.passwords.verify(password.clone(), encoded).await?;
        let Some(found) = found.filter(|_| matches) else { return Ok(None) };
        self.recoded(found, password).await
    }

    /// As Django does after a password was right; here only where it was told to, and what cannot be written is left as
    /// it was.
    async fn recoded(
        &self,
        found: UserWithPassword,
        password: Secret,
    ) -> Result<Option<UserWithPassword>, CredentialsError> {
        let recodes = self.encoding == PasswordEncoding::Django { recodes: true };
        if !recodes || !password::needs_django_rehash(&found.password) {
            return Ok(Some(found));
        }
        let Ok(new) = self.passwords.hash_django(password.clone()).await else { return Ok(Some(found)) };
        let (id, old) = (found.user.id, found.password.clone());
        match self.store.recode_password(id, old, new).await {
            Ok(written) => self.settle(written).await,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    user.id = id.0,
                    "password not recoded"
                );
                return Ok(Some(found));
            }
        };
        // Somebody else may have been faster, so it is read again and, should it be another one, checked again.
        let now = self.store.find_user(&found.user.username).await?.filter(|now| now.user.id == id);
        let Some(now) = now else { return Ok(None) };
        let matches = self.passwords.verify(password, Some(now.password.clone())).await?;
        Ok(Some(now).filter(|_| matches))
    }

    async fn user(&self, username: &str) -> Result<User, CredentialsError> {
        let found = self.metrics.measure("find-user", self.store.find_user(username)).await?;
        found.map(|found| found.user).ok_or(CredentialsError::NoSuchUser)
    }

    async fn hash(&self, password: Secret) -> Result<Secret, CredentialsError> {
        if password.expose().is_empty() {
            return Err(CredentialsError::EmptyPassword);
        }
        // DRF 3.18, `ProhibitNullCharactersValidator`: nobody could log in with it.
        if password.expose().contains(&0) {
            return Err(CredentialsError::NullInPassword);
        }
        Ok(match self.encoding {
            PasswordEncoding::Own => self.passwords.hash(password).await?,
            PasswordEncoding::Django { .. } => self.passwords.hash_django(password).await?,
        })
    }

    async fn store_token(
        &self,
        user: UserId,
        key: Secret,
        name: &str,
        origin: TokenOrigin,
    ) -> Result<CreatedToken, CredentialsError> {
        let token = self.new_token(user, &key, name, origin)?;
        let id = token.id;
        // Somebody may have tried the key before it was stored.
        self.announce(self.store.insert_token(token).await?).await;
        Ok(CreatedToken { id, key })
    }

    fn new_token(
        &self,
        user: UserId,
        key: &Secret,
        name: &str,
        origin: TokenOrigin,
    ) -> Result<NewToken, CredentialsError> {
        let id = CredentialId(u64::from_be_bytes(random()?));
        let created = self.clock.unix();
        let expires = self.policy().ttl.map(|ttl| after(created, ttl));
        let digest = Digest::of(key.expose());
        Ok(NewToken { id, digest, user, name: name.to_owned(), origin, created, expires })
    }

    /// What a write made void is forgotten, here and by all other replicas, before anybody is told that it was done.
    async fn settle<T>(&self, written: Written<T>) -> T {
        let committed = self.clock.monotonic();
        // By then nobody believes any more what was true before.
        let end = coherence::acknowledged::<Sound>(committed, false, self.cache.trust().bound());
        let mut is_news = true;
        while let Err(error) = self.tell(&written.changes).await {
            if std::mem::take(&mut is_news) {
                untold(&error);
            }
            let left = end.since(self.clock.monotonic());
            tokio::time::sleep(left.min(TELL_AGAIN)).await;
            if left <= TELL_AGAIN {
                break;
            }
        }
        written.value
    }

    /// The same for a write that takes nothing away from anybody: others may learn of it a moment later.
    async fn announce<T>(&self, written: Written<T>) -> T {
        if let Err(error) = self.tell(&written.changes).await {
            untold(&error);
        }
        written.value
    }

    /// Forgets what changed, and has all other replicas do so.
    async fn tell(&self, changes: &Changes) -> Result<(), Away> {
        self.forget_all(changes);
        match self.shared.as_ref().filter(|_| !changes.is_empty()) {
            Some(shared) => shared.invalidate(changes).await,
            None => Ok(()),
        }
    }

    /// Also keeps in mind that it changed: what another replica was told before is not believed.
    fn forget_all(&self, changes: &Changes) {
        let now = self.clock.unix();
        let numbers = changes.first.map_or(0, |first| first.0)..;
        for (number, change) in numbers.zip(&changes.changes) {
            let number = changes.first.map(|_| Sequence(number));
            self.cache.carry_out(Command::Drop(*change, number), now);
            if matches!(change, Change::Everything | Change::Something) {
                self.cache.forget_unknown();
            }
        }
    }

    fn changed_user(&self, user: UserId, found: bool) -> Result<(), CredentialsError> {
        // Whoever is not there may be remembered all the same.
        self.cache.invalidate(Invalidation::User(user));
        if found { Ok(()) } else { Err(CredentialsError::NoSuchUser) }
    }
}

fn untold(away: &Away) {
    let error = away as &dyn std::error::Error;
    tracing::warn!(error, "other replicas could not be told of a change: they find it in the store");
}

fn random<const N: usize>() -> Result<[u8; N], CredentialsError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

fn after(moment: UnixSeconds, time: Duration) -> UnixSeconds {
    UnixSeconds(moment.0.saturating_add(i64::try_from(time.as_secs()).unwrap_or(i64::MAX)))
}

fn check_username(name: &str) -> Result<(), CredentialsError> {
    let has_length = (1..=USERNAME_CHARACTERS_MAX).contains(&name.chars().count());
    let is_good = has_length && !name.trim().is_empty() && !name.chars().any(char::is_control);
    if is_good { Ok(()) } else { Err(CredentialsError::BadUsername) }
}

fn check_token_name(name: &str) -> Result<(), CredentialsError> {
    let is_good = name.chars().count() <= TOKEN_NAME_CHARACTERS_MAX && !name.chars().any(char::is_control);
    if is_good { Ok(()) } else { Err(CredentialsError::BadTokenName) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames_are_checked() {
        assert!(check_username("zoë").is_ok());
        for bad in ["", " ", "a\nb", "a\0", &"x".repeat(151)] {
            assert!(check_username(bad).is_err(), "{bad:?}");
        }
    }
}
