//! Sessions in the store: what a browser's cookie names.
//!
//! In doorward's own layout only the digest of a session's key is stored. In an adopted Django database the row is
//! Django's own and so are the rules (Django 5.2, `contrib.auth.get_user`), and whatever else a site keeps in a session
//! is kept.

use crate::clock::UnixSeconds;
use crate::identity::{Digest, User, UserId};
use crate::secret::Secret;
use crate::store::{Sequence, StoreError, StoreFuture, Written};
use std::fmt::Debug;

/// What a session's key leads to.
#[derive(Debug, Clone)]
pub enum FoundSession {
    /// Nothing, or a session that has expired.
    Absent,
    /// A session of nobody who may log in; it is not ours to end.
    Nobody {
        /// Against forged requests, if it is kept in the session.
        csrf_secret: Option<Secret>,
    },
    /// Somebody's, good, though the user may be inactive.
    User(UserSession),
    /// Somebody's whose password was changed since: to be ended, by [`SessionStore::end_void`].
    Void,
    /// Somebody's, signed with a key that is going out of use: to be renewed, by [`SessionStore::renew`].
    Outdated(UserSession),
}

/// A session of somebody.
#[derive(Debug, Clone)]
pub struct UserSession {
    /// Active or not.
    pub user: User,
    /// When it ends.
    pub expires: UnixSeconds,
    /// Against forged requests, if it is kept in the session.
    pub csrf_secret: Option<Secret>,
    /// The answer holds as of this change. `None`: the store numbers none.
    pub as_of: Option<Sequence>,
}

/// A session to be stored for somebody whose password was just checked.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// What the cookie will say.
    pub key: Secret,
    /// What it says now: that session ends, and what a site keeps in it goes over to the new one, if it was the same
    /// user's or nobody's (Django 5.2, `contrib.auth.login`).
    pub old: Option<Secret>,
    /// Whose.
    pub user: UserId,
    /// The user's password version when the password was checked.
    pub password_version: i64,
    /// Against forged requests, where it is kept in the session.
    pub csrf_secret: Option<Secret>,
    /// When.
    pub now: UnixSeconds,
    /// When it ends.
    pub expires: UnixSeconds,
}

/// Sessions in the store.
pub trait SessionStore: Debug + Send + Sync {
    /// Looks a session up, with its user, both of one moment.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if nobody knows.
    fn find_session(&self, key: Secret, now: UnixSeconds) -> StoreFuture<'_, FoundSession>;

    /// Those of these sessions that are there, by the digests of their keys; in any order. `None`: it is not
    /// [`FoundSession::User`] and has to be looked at alone. At most [`CONFIRM_MAX`](crate::store::CONFIRM_MAX) are asked
    /// for.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if nobody knows.
    fn find_sessions(
        &self,
        _: Vec<Secret>,
        _: UnixSeconds,
    ) -> StoreFuture<'_, Vec<(Digest, Option<UserSession>)>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Stores a session, all at once with the end of the old one; committed when this returns. `false`: nothing was
    /// done, since the user was deleted, deactivated, or given another password.
    ///
    /// # Errors
    /// [`StoreError::NotWritten`] if it could not be written.
    fn insert_session(&self, session: NewSession) -> StoreFuture<'_, Written<bool>>;

    /// Keeps a secret against forged requests in a session, made if there is none; yields its key.
    ///
    /// # Errors
    /// [`StoreError::NotWritten`] if it could not be written, [`StoreError::Foreign`] where sessions keep none.
    fn keep_csrf_secret(&self, _: Visit) -> StoreFuture<'_, Written<Secret>> {
        Box::pin(async { Err(StoreError::Foreign("what is kept in a session")) })
    }

    /// Ends a session. `false`: there is none.
    ///
    /// # Errors
    /// [`StoreError::NotWritten`] if it could not be written.
    fn delete_session(&self, key: Secret) -> StoreFuture<'_, Written<bool>>;

    /// Ends a session if it is [`FoundSession::Void`] still; it is read again with its user, under the lock of the
    /// write. Yields what it is.
    ///
    /// # Errors
    /// [`StoreError::NotWritten`] if it could not be written.
    fn end_void(&self, key: Secret, now: UnixSeconds) -> StoreFuture<'_, Written<FoundSession>> {
        Box::pin(async move { Ok(Written::nothing(self.find_session(key, now).await?)) })
    }

    /// Gives a session that is [`FoundSession::Outdated`] still another key, and signs it anew; it is read again with
    /// its user, under the lock of the write. Yields what the new key leads to; if it is not outdated any more, what
    /// the old one does.
    ///
    /// # Errors
    /// [`StoreError::NotWritten`] if it could not be written.
    fn renew(&self, renewal: Renewal) -> StoreFuture<'_, Written<Renewed>> {
        Box::pin(async move {
            let found = self.find_session(renewal.key, renewal.now).await?;
            Ok(Written::nothing(Renewed::Unchanged(found)))
        })
    }
}

/// A session of somebody who need not be logged in.
#[derive(Debug, Clone)]
pub struct Visit {
    /// Its key, if there is one.
    pub key: Option<Secret>,
    /// Otherwise this one.
    pub new: Secret,
    /// What is kept.
    pub csrf_secret: Secret,
    /// When.
    pub now: UnixSeconds,
    /// When it ends.
    pub expires: UnixSeconds,
}

/// A session that is to have another key.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// Its key.
    pub key: Secret,
    /// The other one.
    pub new: Secret,
    /// When.
    pub now: UnixSeconds,
    /// How long it lasts from then on, if it does not say so itself.
    pub age_seconds: i64,
}

/// What became of a session that was to be renewed.
#[derive(Debug, Clone)]
pub enum Renewed {
    /// It has the new key.
    Renewed(UserSession),
    /// It was not outdated any more.
    Unchanged(FoundSession),
}
