//! The acts of commands: lists, and changes of several things that happen together.

use crate::cache::local::{CredentialKey, Invalidation};
use crate::clock::UnixSeconds;
use crate::credentials::{
    Credentials, CredentialsError, IMPORTED_KEY_BYTES_MIN, TOKEN_BYTES, after, check_token_name, random,
};
use crate::identity::{CredentialId, Digest, Family, UserId};
use crate::secret::Secret;
use crate::store::manage::{
    Account, BatchToken, Group, Progress, TokenBatch, TokenPage, TokenPlace, UserUpdate,
};
use crate::store::{NewToken, TokenOrigin};
use std::time::Duration;

/// Longest e-mail address (Django's `EmailField`), in characters.
const EMAIL_CHARACTERS_MAX: usize = 254;
/// Longest name of a group (Django's `auth_group.name`), in characters.
const GROUP_CHARACTERS_MAX: usize = 150;

/// How long a new token lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// As the configuration says.
    Policy,
    /// Until it is revoked.
    Never,
    /// This long.
    For(Duration),
}

/// A token that somebody wants.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// A name for people; may be empty.
    pub name: String,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// Whether it takes the place of all others of the user.
    pub replaces: bool,
}

/// A token that was just made: the only time that its secret is seen.
#[derive(Debug)]
pub struct IssuedToken {
    /// Public id.
    pub id: CredentialId,
    /// What the client presents.
    pub key: Secret,
    /// `None`: never.
    pub expires: Option<UnixSeconds>,
    /// How many others were revoked for it.
    pub replaced: usize,
}

/// Why a key that was made elsewhere is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFault {
    /// There is nothing.
    Empty,
    /// It has a character that no client can present in a token.
    Unusable,
    /// It is easy to guess.
    Weak,
}

/// A token that was made elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct ImportedToken {
    /// SHA-256 of its key.
    pub digest: Digest,
    /// Owner.
    pub user: UserId,
}

/// Looks whether a key that was made elsewhere can be a token; `allow_weak`: however short it is.
///
/// # Errors
/// What is wrong with it.
pub fn check_key(key: &str, allow_weak: bool) -> Result<(), KeyFault> {
    // DRF 3.18, `TokenAuthentication.authenticate` splits at white space; RFC 9110 section 5.5 has no controls.
    if key.is_empty() {
        Err(KeyFault::Empty)
    } else if key.chars().any(|c| c.is_whitespace() || c.is_control()) {
        Err(KeyFault::Unusable)
    } else if key.len() < IMPORTED_KEY_BYTES_MIN && !allow_weak {
        Err(KeyFault::Weak)
    } else {
        Ok(())
    }
}

impl Credentials {
    /// Lists all users by name.
    ///
    /// # Errors
    /// If the store cannot be asked.
    pub async fn list_users(&self) -> Result<Vec<Account>, CredentialsError> {
        Ok(self.store.list_users().await?)
    }

    /// Looks many users up by exact name; who is not there is not in the answer.
    ///
    /// # Errors
    /// If the store cannot be asked.
    pub async fn user_ids(&self, names: Vec<String>) -> Result<Vec<(String, UserId)>, CredentialsError> {
        Ok(self.store.user_ids(names).await?)
    }

    /// Changes what is known of a user.
    ///
    /// # Errors
    /// If there is no such user, the address is not acceptable, or the store cannot be written.
    pub async fn update_user(&self, username: &str, update: UserUpdate) -> Result<(), CredentialsError> {
        update.email.as_deref().map_or(Ok(()), check_email)?;
        let user = self.user(username).await?;
        let found = self.settle(self.store.update_user(user.id, update).await?).await;
        self.changed_user(user.id, found)
    }

    /// Lists all groups that have members.
    ///
    /// # Errors
    /// If the store cannot be asked.
    pub async fn list_groups(&self) -> Result<Vec<Group>, CredentialsError> {
        Ok(self.store.list_groups().await?)
    }

    /// Puts users into a group; yields those who were not in it.
    ///
    /// # Errors
    /// If the name is not acceptable, or the store cannot be written.
    pub async fn join_group(&self, group: &str, users: Vec<UserId>) -> Result<Vec<UserId>, CredentialsError> {
        check_group_name(group)?;
        Ok(self.settle(self.store.join_group(group, users).await?).await)
    }

    /// Takes users out of a group; yields those who were in it. `None`: there is no such group.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn leave_group(
        &self,
        group: &str,
        users: Vec<UserId>,
    ) -> Result<Option<Vec<UserId>>, CredentialsError> {
        Ok(self.settle(self.store.leave_group(group, users).await?).await)
    }

    /// Makes a token as it is wanted.
    ///
    /// # Errors
    /// If there is no such user, or the store cannot be written; no other token is revoked then.
    pub async fn issue_token(
        &self,
        username: &str,
        wanted: TokenRequest,
    ) -> Result<IssuedToken, CredentialsError> {
        check_token_name(&wanted.name)?;
        let user = self.user(username).await?.id;
        let key = Secret::random_hex::<TOKEN_BYTES>(&self.policy().prefix)?;
        let digest = Digest::of(key.expose());
        let id = CredentialId(u64::from_be_bytes(random()?));
        let created = self.clock.unix();
        let expires = self.expiry(created, wanted.lifetime);
        let (name, origin) = (wanted.name, TokenOrigin::Command);
        let token = NewToken { id, digest, user, name, origin, created, expires };
        let replaced = if wanted.replaces {
            self.settle(self.store.replace_tokens(token).await?).await
        } else {
            self.announce(self.store.insert_token(token).await?).await;
            Vec::new()
        };
        Ok(IssuedToken { id, key, expires, replaced: replaced.len() })
    }

    /// A page of the tokens: of all users, or of one.
    ///
    /// # Errors
    /// If the store cannot be asked.
    pub async fn page_tokens(
        &self,
        user: Option<UserId>,
        after: Option<TokenPlace>,
        limit: u32,
    ) -> Result<TokenPage, CredentialsError> {
        Ok(self.store.page_tokens(user, after, limit).await?)
    }

    /// Counts the tokens of a user.
    ///
    /// # Errors
    /// If there is no such user, or the store cannot be asked.
    pub async fn count_tokens(&self, username: &str) -> Result<u64, CredentialsError> {
        Ok(self.store.count_tokens(self.user(username).await?.id).await?)
    }

    /// Voids all tokens of a user; yields how many there were.
    ///
    /// # Errors
    /// If there is no such user, or the store cannot be written.
    pub async fn revoke_tokens(&self, username: &str) -> Result<usize, CredentialsError> {
        let user = self.user(username).await?;
        let deleted = self.settle(self.store.delete_tokens(user.id).await?).await;
        Ok(deleted.len())
    }

    /// Voids the token with this key; yields its id, `None` for one of an adopted table, which has none there.
    ///
    /// # Errors
    /// If there is no such token, or the store cannot be written.
    pub async fn revoke_key(&self, key: &Secret) -> Result<Option<CredentialId>, CredentialsError> {
        let digest = Digest::of(key.expose());
        if let Some(found) = self.store.find_token(digest).await? {
            return self.revoke_token(found.id).await.map(|()| Some(found.id));
        }
        let is_deleted = self.settle(self.store.delete_key(key.clone()).await?).await;
        self.cache.invalidate(Invalidation::Credential(CredentialKey { digest, family: Family::Authtoken }));
        if is_deleted { Ok(None) } else { Err(CredentialsError::NoSuchToken) }
    }

    /// Those of these digests whose tokens are stored already.
    ///
    /// # Errors
    /// If the store cannot be asked.
    pub async fn taken_digests(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, CredentialsError> {
        Ok(self.store.taken_digests(digests).await?)
    }

    /// Stores all of these tokens or none. They never expire unless told otherwise: what was made elsewhere did not
    /// hear of this configuration's policy.
    ///
    /// # Errors
    /// If one of them is taken, a user is gone, or the store cannot be written.
    pub async fn import_tokens(
        &self,
        tokens: Vec<ImportedToken>,
        lifetime: Lifetime,
        progress: Progress,
    ) -> Result<usize, CredentialsError> {
        let created = self.clock.unix();
        let tokens = tokens.into_iter().map(|token| {
            let id = CredentialId(u64::from_be_bytes(random()?));
            Ok(BatchToken { id, digest: token.digest, user: token.user })
        });
        let tokens: Vec<BatchToken> = tokens.collect::<Result<_, CredentialsError>>()?;
        let count = tokens.len();
        let expires = self.expiry(created, lifetime);
        let batch = TokenBatch { tokens, origin: TokenOrigin::Import, created, expires };
        self.announce(self.store.insert_tokens(batch, progress).await?).await;
        // Somebody may have tried one of the keys before.
        self.cache.invalidate(Invalidation::Everything);
        self.cache.forget_unknown();
        Ok(count)
    }

    fn expiry(&self, created: UnixSeconds, lifetime: Lifetime) -> Option<UnixSeconds> {
        let time = match lifetime {
            Lifetime::Policy => self.policy().ttl,
            Lifetime::Never => None,
            Lifetime::For(time) => Some(time),
        };
        time.map(|time| after(created, time))
    }
}

/// What is shown to people and told to upstreams has no control characters.
pub(in crate::credentials) fn check_email(email: &str) -> Result<(), CredentialsError> {
    let is_good = email.chars().count() <= EMAIL_CHARACTERS_MAX && !email.chars().any(char::is_control);
    if is_good { Ok(()) } else { Err(CredentialsError::BadEmail) }
}

/// As [`check_email`], and not nothing.
pub(in crate::credentials) fn check_group_name(name: &str) -> Result<(), CredentialsError> {
    let has_length = (1..=GROUP_CHARACTERS_MAX).contains(&name.chars().count());
    let is_good = has_length && !name.trim().is_empty() && !name.chars().any(char::is_control);
    if is_good { Ok(()) } else { Err(CredentialsError::BadGroupName) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_made_elsewhere_are_checked() {
        assert_eq!(check_key(&"x".repeat(32), false), Ok(()));
        assert_eq!(check_key(&"x".repeat(31), false), Err(KeyFault::Weak));
        assert_eq!(check_key("x", true), Ok(()));
        assert_eq!(check_key("", true), Err(KeyFault::Empty));
        for bad in [" ", "a b", "a\u{a0}b", "a\0", "a\u{7f}"] {
            assert_eq!(check_key(bad, true), Err(KeyFault::Unusable), "{bad:?}");
        }
    }

    #[test]
    fn addresses_and_groups_are_checked() {
        assert!(check_email("").is_ok() && check_email("a@example.com").is_ok());
        assert!(check_email("a\u{1b}[2J").is_err() && check_email(&"x".repeat(255)).is_err());
        assert!(check_group_name("editors, all").is_ok());
        for bad in ["", " ", "a\n", &"x".repeat(151)] {
            assert!(check_group_name(bad).is_err(), "{bad:?}");
        }
    }
}
