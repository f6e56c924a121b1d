//! Where users and tokens durably are (SQL).
//!
//! Rules of this layer:
//! * **Absent is not an error.** A look-up yields `Ok(None)` for what is not there; `Err` means that nobody knows.
//!   The two are never mixed: the first is a 401, the second a 503.
//! * **Time, secrets and ids are handed in.** The store makes none of them up, so a test decides them all.
//! * **Every row is compared** byte for byte with what was asked: a collation must not find another one's row.
//! * **Writes have one caller**, the module `credentials`, which commits, then invalidates, then acknowledges.
//! * **Every change that can void a cached answer** leaves a row in the table of changes, in the same transaction.

pub mod django;
pub mod manage;
pub mod own;
pub mod session;
pub mod sql;
pub mod sqlite;

pub use crate::cache::change::{Change, Changes, Sequence};
use crate::cache::local::Outage;
use crate::clock::UnixSeconds;
use crate::identity::{CredentialId, Digest, User, UserId};
use crate::secret::Secret;
use crate::store::manage::{ManageTokens, ManageUsers, TokenBatch};
use crate::store::session::SessionStore;
use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;

/// What a store call returns: boxed, since stores are chosen at run time and none is on the hot path.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Why the store gave no answer, by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It could not be asked; try again later (503).
    #[error("the store cannot be asked")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It answers, and what it says cannot be read: a value of another type. Says nothing of what else
    /// it is asked (503).
    #[error("the store's answer cannot be read")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It was asked and refused to write: disk full, read-only, locked (503, nothing was written).
    #[error("the store cannot be written")]
    NotWritten(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A name that must be unique is taken.
    #[error("already exists")]
    Conflict,
    /// The schema was made by a newer doorward; nothing was changed.
    #[error("the store's schema is newer than this program: use the doorward that made it, or a newer one")]
    SchemaNewer,
    /// The database that was to be adopted is not what it was said to be.
    #[error("not a database that can be adopted: {0}")]
    NotAdoptable(String),
    /// It belongs to an adopted Django, and only Django changes it.
    #[error("{0} belongs to Django: change it there")]
    Foreign(&'static str),
}

impl Outage for StoreError {
    /// Who asks for something else may be answered, unless it could not be asked at all.
    fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// What a write gave, and which cached answers it made void: whoever caches has to be told before the write is
/// acknowledged.
#[must_use = "the caches have to be told of the changes"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written<T> {
    /// What was asked for.
    pub value: T,
    /// In the order of the commit.
    pub changes: Changes,
}

impl<T> Written<T> {
    /// Nothing was changed.
    pub fn nothing(value: T) -> Self {
        Self { value, changes: Changes::none() }
    }

    /// In a store that has no numbers.
    pub fn unnumbered(value: T, changes: Vec<Change>) -> Self {
        Self { value, changes: Changes::unnumbered(changes) }
    }
}

/// The latest changes of a store, without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Nobody tells any more what was committed up to this one.
    pub after: Sequence,
    /// All that was committed since, in order: the first one has the next number.
    pub changes: Vec<Change>,
}

/// A token as looked up: its own facts and its user's, in one round trip.
#[derive(Debug, Clone)]
pub struct FoundToken {
    /// Public id.
    pub id: CredentialId,
    /// When it was made, to be compared with the user's `not_before`.
    pub created: UnixSeconds,
    /// `None`: never expires.
    pub expires: Option<UnixSeconds>,
    /// The user, active or not.
    pub user: User,
    /// The answer holds as of this change. `None`: the store numbers none.
    pub as_of: Option<Sequence>,
}

/// A token to be stored; the secret itself is not here.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Public id.
    pub id: CredentialId,
    /// SHA-256 of the secret.
    pub digest: Digest,
    /// Owner.
    pub user: UserId,
    /// A name for people; may be empty.
    pub name: String,
    /// Who made it.
    pub origin: TokenOrigin,
    /// When.
    pub created: UnixSeconds,
    /// `None`: never expires.
    pub expires: Option<UnixSeconds>,
}

/// Who made a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenOrigin {
    /// The command line.
    Command,
    /// The obtain-token handler, after a password was checked.
    Obtain,
    /// Another program, from which it was imported.
    Import,
    /// Nobody: it is there to be revoked.
    Canary,
}

/// Whose canaries are: somebody who is not active, and whom no list names.
pub const CANARY_USER: UserId = UserId(-1);

/// A token as listed: nothing secret.
#[derive(Debug, Clone)]
pub struct TokenSummary {
    /// Public id.
    pub id: CredentialId,
    /// Name of the owner.
    pub username: String,
    /// A name for people.
    pub name: String,
    /// Who made it.
    pub origin: TokenOrigin,
    /// When it was made.
    pub created: UnixSeconds,
    /// `None`: never expires.
    pub expires: Option<UnixSeconds>,
    /// `None`: never used.
    pub last_used: Option<UnixSeconds>,
}

/// When a token was last used, as far as this process knows better than the store.
///
/// The second is the store's unit; the number puts uses within one second in order.
pub type LastUse<'a> = &'a (dyn Fn(Digest) -> Option<(UnixSeconds, u64)> + Sync);

/// What a token is given for, and how many there may be.
#[derive(Clone, Copy)]
pub struct Grant<'a> {
    /// The user's password version when the password was checked.
    pub password_version: i64,
    /// Most unexpired tokens of [`TokenOrigin::Obtain`] that the user has afterwards; 1 at least.
    pub per_user: usize,
    /// Which of them were used lately.
    pub last_use: LastUse<'a>,
}

impl Debug for Grant<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grant").field("per_user", &self.per_user).finish_non_exhaustive()
    }
}

/// What became of a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Granted {
    /// The token is stored; these had to go.
    Stored {
        /// Public ids and digests of the tokens that were deleted.
        revoked: Vec<(CredentialId, Digest)>,
    },
    /// Nothing was done: since the password was checked, the user was deleted, deactivated, or given another one.
    Void,
}

/// A user to be stored.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Unique name, compared exactly.
    pub username: String,
    /// Encoded password hash (PHC string).
    pub password: Secret,
    /// E-mail address; may be empty.
    pub email: String,
    /// For the permission `staff`.
    pub is_staff: bool,
    /// Group names; groups are made as needed.
    pub groups: Vec<String>,
    /// When.
    pub created: UnixSeconds,
}

/// A user with the encoded password, for a login.
#[derive(Debug, Clone)]
pub struct UserWithPassword {
    /// The user, active or not.
    pub user: User,
    /// Encoded password hash.
    pub password: Secret,
    /// As in [`FoundToken`].
    pub as_of: Option<Sequence>,
}

/// Tokens in the store.
pub trait TokenStore: Debug + Send + Sync {
    /// Looks a token up by the digest of its secret.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if nobody knows.
    fn find_token(&self, digest: Digest) -> StoreFuture<'_, Option<FoundToken>>;

    /// Stores a token; committed when this returns.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the id or digest is taken, [`StoreError::NotWritten`] if it could not be written
    /// or there is no such user.
    fn insert_token(&self, token: NewToken) -> StoreFuture<'_, Written<()>>;

    /// Stores a token for a user whose password was just checked, and deletes the least recently used ones above the
    /// limit, all at once; committed when this returns.
    ///
    /// # Errors
    /// As [`Self::insert_token`].
    fn grant_token<'a>(&'a self, token: NewToken, grant: Grant<'a>) -> StoreFuture<'a, Written<Granted>>;

    /// Writes when tokens were last used, in batches; tokens that are gone are left out, and so are those whose last
    /// written use is less than a minute before.
    ///
    /// # Errors
    /// [`StoreError::NotWritten`] if it could not be written; what was written then may be repeated.
    fn write_uses(&self, uses: Vec<(CredentialId, UnixSeconds)>) -> StoreFuture<'_, ()>;

    /// Deletes a token; yields its digest, so that caches can be told. `None`: there is none.
    ///
    /// # Errors
    /// [`StoreError::NotWritten`] if it could not be written.
    fn delete_token(&self, id: CredentialId) -> StoreFuture<'_, Written<Option<Digest>>>;

    /// Lists tokens, of one user or of all, by creation.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if nobody knows.
    fn list_tokens(&self, user: Option<UserId>) -> StoreFuture<'_, Vec<TokenSummary>>;
}

/// Credentials that a store is asked for at once.
pub const CONFIRM_MAX: usize = 100;

/// Keys of DRF's `authtoken_token`, where a Django database is adopted; elsewhere there are none.
pub trait KeyStore: Debug + Send + Sync {
    /// Whose key this is: the user, active or not. Exact and case-sensitive.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if nobody knows.
    fn find_key(&self, _key: Secret) -> StoreFuture<'_, Option<User>> {
        Box::pin(async { Ok(None) })
    }

    /// Those of these keys that are somebody's, and whose; in any order. At most [`CONFIRM_MAX`] are asked for.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if nobody knows.
    fn find_keys(&self, _keys: Vec<Secret>) -> StoreFuture<'_, Vec<(Digest, User)>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// The user's key, which is `new` if there was none (DRF 3.18, `Token.objects.get_or_create`); committed when this
    /// returns. `None`: since the password was checked, the user was deleted, deactivated, or given another one.
    ///
    /// # Errors
    /// [`StoreError::NotWritten`] if it could not be written, or there are no keys here.
    fn obtain_key(&self, _: KeyRequest) -> StoreFuture<'_, Written<Option<Secret>>> {
        Box::pin(async { Err(StoreError::Foreign("the table of keys")) })
    }

    /// Deletes a key. `false`: there is none.
    ///
    /// # Errors
    /// [`StoreError::NotWritten`] if it could not be written.
    fn delete_key(&self, _key: Secret) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async { Ok(Written::nothing(false)) })
    }
}

/// Somebody's wish for a key.
#[derive(Debug, Clone)]
pub struct KeyRequest {
    /// Whose it will be.
    pub user: UserId,
    /// The user's password version when the password was checked.
    pub password_version: i64,
    /// The key, if there is none yet.
    pub new: Secret,
    /// When.
    pub now: UnixSeconds,
}

/// Users in the store.
pub trait UserStore: Debug + Send + Sync {
    /// Looks a user up by exact name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if nobody knows.
    fn find_user(&self, username: &str) -> StoreFuture<'_, Option<UserWithPassword>>;

    /// Looks a user up by key.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if nobody knows.
    fn user_by_id(&self, user: UserId) -> StoreFuture<'_, Option<User>>;

    /// Stored passwords of some users, so that it can be seen how most of them are encoded.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if nobody knows.
    fn sample_passwords(&self) -> StoreFuture<'_, Vec<Secret>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Replaces the encoded password by another encoding of the same one. `false`: it is another one by now.
    ///
    /// # Errors
    /// [`StoreError::NotWritten`] if it could not be written.
    fn recode_password(&self, _user: UserId, _old: Secret, _new: Secret) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async { Ok(Written::nothing(false)) })
    }

    /// Stores a user; committed when this returns.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the name is taken, [`StoreError::NotWritten`] if it could not be written.
    fn insert_user(&self, user: NewUser) -> StoreFuture<'_, Written<UserId>>;

    /// Sets whether the user may log in or use any credential. `false`: there is no such user.
    ///
    /// # Errors
    /// [`StoreError::NotWritten`] if it could not be written.
    fn set_active(&self, user: UserId, active: bool) -> StoreFuture<'_, Written<bool>>;

    /// Replaces the encoded password and raises the password version. `false`: there is no such user.
    ///
    /// # Errors
    /// [`StoreError::NotWritten`] if it could not be written.
    fn set_password(&self, user: UserId, password: Secret) -> StoreFuture<'_, Written<bool>>;

    /// Replaces the groups. `false`: there is no such user.
    ///
    /// # Errors
    /// [`StoreError::NotWritten`] if it could not be written.
    fn set_groups(&self, user: UserId, groups: Vec<String>) -> StoreFuture<'_, Written<bool>>;

    /// Deletes a user with all tokens. `false`: there is no such user.
    ///
    /// # Errors
    /// [`StoreError::NotWritten`] if it could not be written.
    fn delete_user(&self, user: UserId) -> StoreFuture<'_, Written<bool>>;
}

/// Tells what other processes (and this one) committed.
pub trait ChangeFeed: Debug + Send {
    /// Changes since the last call, oldest first; empty if nothing was committed. Cheap when nothing was. Says as of
    /// which change this is true, where changes have numbers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if nobody knows; the next call reports what this one would have. Whoever gives up
    /// on a feed and opens another one believes nothing that is older.
    ///
    /// # Cancel safety
    /// A call that is dropped loses nothing: the next one reports it.
    fn changes(&mut self) -> StoreFuture<'_, Changes>;

    /// Whether the last answer came without a part of the store: of that part it is not even known that it can be asked.
    fn is_partial(&self) -> bool {
        false
    }

    /// Whether it goes on where it stopped, however long it failed: then it is not to be opened anew, which would put all
    /// that is cached in doubt at the very moment at which the store is back.
    fn outlasts_failures(&self) -> bool {
        false
    }

    /// Returns when there may be a change to be read, after this time at the latest.
    ///
    /// # Cancel safety
    /// A call that is dropped loses nothing but its own time.
    fn wait(&mut self, at_most: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(at_most))
    }
}

/// Everything the gateway and its commands ask of a store.
pub trait Store: TokenStore + KeyStore + SessionStore + UserStore + ManageTokens + ManageUsers {
    /// Opens a feed that starts with what is committed after this call.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store cannot be opened.
    fn change_feed(&self) -> StoreFuture<'_, Box<dyn ChangeFeed>>;

    /// Whether [`Change::Something`] may be all that is told of a change. Then what is in use can be asked for all
    /// together, by [`KeyStore::find_keys`] and [`SessionStore::find_sessions`].
    fn leaves_changes_unnamed(&self) -> bool {
        false
    }

    /// By what means its feed finds what others commit, for people.
    fn found_by(&self) -> &'static str {
        "a look at the store each 100 ms"
    }

    /// The latest changes, as many as are kept and at most 10,000. `None`: the store numbers none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if nobody knows.
    fn history(&self) -> StoreFuture<'_, Option<History>> {
        Box::pin(async { Ok(None) })
    }

    /// Stores a token of [`CANARY_USER`], whoever it says that it is of; committed when this returns.
    ///
    /// # Errors
    /// As [`TokenStore::insert_token`].
    fn insert_canary(&self, token: NewToken) -> StoreFuture<'_, Written<()>>;

    /// Stores many of them, all or none.
    ///
    /// # Errors
    /// As [`TokenStore::insert_token`].
    fn insert_canaries(&self, batch: TokenBatch) -> StoreFuture<'_, Written<()>>;

    /// Deletes those of these tokens that are canaries, and yields how many there were.
    ///
    /// # Errors
    /// [`StoreError::NotWritten`] if it could not be written.
    fn delete_canaries(&self, digests: Vec<Digest>) -> StoreFuture<'_, Written<u64>>;

    /// Forgets rows of the table of changes that every feed has long read, tokens long expired, and canaries whose
    /// process must have ended.
    ///
    /// # Errors
    /// [`StoreError::NotWritten`] if it could not be written.
    fn prune(&self, now: UnixSeconds) -> StoreFuture<'_, ()>;

    /// Writes out what is pending and closes; feeds must have been dropped.
    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}
