//! Sessions: made at login, ended at logout, renewed where the store says so.

use crate::cache::local::{CredentialKey, Invalidation};
use crate::clock::UnixSeconds;
use crate::credentials::{Credentials, CredentialsError, TOKEN_BYTES, after, check_username};
use crate::django;
use crate::identity::{Digest, Family, User};
use crate::password;
use crate::secret::Secret;
use crate::store::session::{FoundSession, NewSession, Renewal, Renewed, Visit};
use crate::store::{KeyRequest, NewUser};
use std::time::Duration;

/// A session that was just made: the only time that its key is seen.
#[derive(Debug)]
pub struct CreatedSession {
    /// What the cookie says.
    pub key: Secret,
    /// When it was made.
    pub now: UnixSeconds,
    /// When it ends.
    pub expires: UnixSeconds,
}

impl Credentials {
    /// Makes a session for a user whose password was just checked, in place of the one that the request came with.
    /// `None`: the user is not the one any more whose password it was.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn log_in(
        &self,
        user: &User,
        old: Option<Secret>,
        csrf_secret: Option<Secret>,
        age: Duration,
    ) -> Result<Option<CreatedSession>, CredentialsError> {
        let key = django::session_key()?;
        let now = self.clock.unix();
        let expires = after(now, age);
        let session = NewSession {
            key: key.clone(),
            old: old.clone(),
            user: user.id,
            password_version: user.password_version,
            csrf_secret,
            now,
            expires,
        };
        let stored = self.metrics.measure("insert-session", self.store.insert_session(session)).await?;
        // Only who had another session loses one.
        let stored = if old.is_some() { self.settle(stored).await } else { self.announce(stored).await };
        if let Some(old) = old.filter(|_| stored) {
            self.invalidate_session(&old);
        }
        Ok(stored.then_some(CreatedSession { key, now, expires }))
    }

    /// Keeps a secret against forged requests in the session of somebody who need not be logged in; the session is made
    /// if there is none.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn keep_csrf_secret(
        &self,
        key: Option<Secret>,
        csrf_secret: Secret,
        age: Duration,
    ) -> Result<CreatedSession, CredentialsError> {
        let now = self.clock.unix();
        let expires = after(now, age);
        let new = django::session_key()?;
        let visit = Visit { key: key.clone(), new, csrf_secret, now, expires };
        let kept = self.metrics.measure("insert-session", self.store.keep_csrf_secret(visit)).await?;
        let kept = self.announce(kept).await;
        if let Some(key) = &key {
            self.invalidate_session(key);
        }
        Ok(CreatedSession { key: kept, now, expires })
    }

    /// Ends a session: when this returns, no later request of this process passes with it.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn log_out(&self, key: Secret) -> Result<(), CredentialsError> {
        let deleted = self.metrics.measure("delete-session", self.store.delete_session(key.clone())).await?;
        self.settle(deleted).await;
        // A session that is not there may be remembered all the same.
        self.invalidate_session(&key);
        Ok(())
    }

    /// Ends a session of somebody whose password was changed since, if it is one still. Yields what it is.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn end_void_session(&self, key: Secret) -> Result<FoundSession, CredentialsError> {
        let ended =
            self.metrics.measure("delete-session", self.store.end_void(key, self.clock.unix())).await?;
        Ok(self.announce(ended).await)
    }

    /// Gives a session whose signature goes out of use another key, which comes first.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn renew_session(
        &self,
        key: Secret,
        age_seconds: i64,
    ) -> Result<(Secret, Renewed), CredentialsError> {
        let new = django::session_key()?;
        let renewal = Renewal { key, new: new.clone(), now: self.clock.unix(), age_seconds };
        let renewed = self.metrics.measure("renew-session", self.store.renew(renewal)).await?;
        Ok((new, self.announce(renewed).await))
    }

    /// The one key that DRF knows of a user whose password was just checked, made if there is none. `None`: the user
    /// is not the one any more whose password it was.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn obtain_key(&self, user: &User) -> Result<Option<Secret>, CredentialsError> {
        // DRF 3.18, `Token.generate_key`.
        let new = Secret::random_hex::<TOKEN_BYTES>("")?;
        let (user, password_version) = (user.id, user.password_version);
        let wanted = KeyRequest { user, password_version, new, now: self.clock.unix() };
        let key = self.metrics.measure("obtain-key", self.store.obtain_key(wanted)).await?;
        let key = self.announce(key).await;
        if let Some(key) = &key {
            // Somebody may have tried it before it was stored.
            self.invalidate(key, Family::Authtoken);
        }
        Ok(key)
    }

    /// Adds a user whom a trusted peer vouches for, and who has no password.
    ///
    /// # Errors
    /// If the name is taken or not acceptable, or the store cannot be written.
    pub async fn add_remote_user(&self, username: &str) -> Result<(), CredentialsError> {
        check_username(username)?;
        let user = NewUser {
            username: username.to_owned(),
            password: password::unusable()?,
            email: String::new(),
            is_staff: false,
            groups: Vec::new(),
            created: self.clock.unix(),
        };
        self.announce(self.store.insert_user(user).await?).await;
        Ok(())
    }

    fn invalidate_session(&self, key: &Secret) {
        self.invalidate(key, Family::Session);
    }

    fn invalidate(&self, credential: &Secret, family: Family) {
        let digest = Digest::of(credential.expose());
        self.cache.invalidate(Invalidation::Credential(CredentialKey { digest, family }));
    }
}
