//! What only commands ask of a store: lists, and changes of several rows that happen together or not at all.
//!
//! Apart from the other traits, because no request ever comes here.

use crate::clock::UnixSeconds;
use crate::identity::{CredentialId, Digest, User, UserId};
use crate::store::{NewToken, StoreFuture, TokenOrigin, TokenSummary, Written};
use std::fmt::Debug;
use std::sync::Arc;

/// A user as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user, active or not.
    pub user: User,
    /// When it was added.
    pub created: UnixSeconds,
    /// How many tokens it has, expired ones included.
    pub tokens: u64,
}

/// What is to be different about a user; `None`: stays as it is.
#[derive(Debug, Clone, Default)]
pub struct UserUpdate {
    /// E-mail address; may be empty.
    pub email: Option<String>,
    /// For the permission `staff`.
    pub is_staff: Option<bool>,
}

/// A group that has members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Unique name, compared exactly.
    pub name: String,
    /// Names of the users in it, sorted.
    pub members: Vec<String>,
}

/// Where a page of a list ended; means something to the store alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenPlace(pub i64);

/// A part of the list of tokens.
#[derive(Debug, Clone)]
pub struct TokenPage {
    /// In the order in which they were stored.
    pub tokens: Vec<TokenSummary>,
    /// Where the next page begins. `None`: this was the last one.
    pub next: Option<TokenPlace>,
}

/// One of many tokens to be stored, as small as it can be: there may be a million of them.
#[derive(Debug, Clone, Copy)]
pub struct BatchToken {
    /// Public id.
    pub id: CredentialId,
    /// SHA-256 of the secret.
    pub digest: Digest,
    /// Owner.
    pub user: UserId,
}

/// Tokens that are stored together, and what is the same for all of them. They have no names.
#[derive(Debug, Clone)]
pub struct TokenBatch {
    /// In the order in which they will be listed.
    pub tokens: Vec<BatchToken>,
    /// Who made them.
    pub origin: TokenOrigin,
    /// When.
    pub created: UnixSeconds,
    /// `None`: they never expire.
    pub expires: Option<UnixSeconds>,
}

/// Is told how many tokens of a batch are written, now and then; they count only once all are.
pub type Progress = Arc<dyn Fn(usize) + Send + Sync>;

/// Users and groups, for commands.
pub trait ManageUsers: Debug + Send + Sync {
    /// All users by name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::store::StoreError::Unavailable) if nobody knows.
    fn list_users(&self) -> StoreFuture<'_, Vec<Account>>;

    /// Looks many users up by exact name; who is not there is not in the answer.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::store::StoreError::Unavailable) if nobody knows.
    fn user_ids(&self, usernames: Vec<String>) -> StoreFuture<'_, Vec<(String, UserId)>>;

    /// Changes a user. `false`: there is no such user.
    ///
    /// # Errors
    /// [`StoreError::NotWritten`](crate::store::StoreError::NotWritten) if it could not be written.
    fn update_user(&self, user: UserId, update: UserUpdate) -> StoreFuture<'_, Written<bool>>;

    /// All groups that have members, by name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::store::StoreError::Unavailable) if nobody knows.
    fn list_groups(&self) -> StoreFuture<'_, Vec<Group>>;

    /// Puts users into a group, which is made if there is none; other groups of theirs are not touched. Yields those
    /// who were not in it. Users who are gone are passed over.
    ///
    /// # Errors
    /// [`StoreError::NotWritten`](crate::store::StoreError::NotWritten) if it could not be written.
    fn join_group(&self, group: &str, users: Vec<UserId>) -> StoreFuture<'_, Written<Vec<UserId>>>;

    /// Takes users out of a group. Yields those who were in it. `None`: there is no such group.
    ///
    /// # Errors
    /// [`StoreError::NotWritten`](crate::store::StoreError::NotWritten) if it could not be written.
    fn leave_group(&self, group: &str, users: Vec<UserId>) -> StoreFuture<'_, Written<Option<Vec<UserId>>>>;
}

/// Tokens, for commands.
pub trait ManageTokens: Debug + Send + Sync {
    /// A page of the tokens, of one user or of all, at most `limit`. Nothing is held in between, so a reader may
    /// take all the time it likes.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::store::StoreError::Unavailable) if nobody knows.
    fn page_tokens(
        &self,
        user: Option<UserId>,
        after: Option<TokenPlace>,
        limit: u32,
    ) -> StoreFuture<'_, TokenPage>;

    /// Counts the tokens of a user.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::store::StoreError::Unavailable) if nobody knows.
    fn count_tokens(&self, user: UserId) -> StoreFuture<'_, u64>;

    /// Deletes all tokens of the owner and stores this one, in one transaction. Yields the deleted digests, so that
    /// caches can be told.
    ///
    /// # Errors
    /// As [`TokenStore::insert_token`](crate::store::TokenStore::insert_token); the old ones are still there then.
    fn replace_tokens(&self, token: NewToken) -> StoreFuture<'_, Written<Vec<Digest>>>;

    /// Deletes all tokens of a user. Yields their digests, so that caches can be told.
    ///
    /// # Errors
    /// [`StoreError::NotWritten`](crate::store::StoreError::NotWritten) if it could not be written.
    fn delete_tokens(&self, user: UserId) -> StoreFuture<'_, Written<Vec<Digest>>>;

    /// Those of these digests that are in the store.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::store::StoreError::Unavailable) if nobody knows.
    fn taken_digests(&self, digests: Vec<Digest>) -> StoreFuture<'_, Vec<Digest>>;

    /// Stores all of these tokens or none, in one transaction: others who write wait for it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`](crate::store::StoreError::Conflict) if an id or digest is taken,
    /// [`StoreError::NotWritten`](crate::store::StoreError::NotWritten) if they could not be written or a user is gone.
    fn insert_tokens(&self, batch: TokenBatch, progress: Progress) -> StoreFuture<'_, Written<()>>;
}
