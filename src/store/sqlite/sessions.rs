//! Sessions in SQLite.

use crate::clock::UnixSeconds;
use crate::identity::Digest;
use crate::secret::Secret;
use crate::store::session::{FoundSession, NewSession, SessionStore, UserSession};
use crate::store::sqlite::Sqlite;
use crate::store::sqlite::error::not_written;
use crate::store::sqlite::feed::sequence;
use crate::store::sqlite::users::UserRow;
use crate::store::{KeyStore, StoreFuture, Written};
use sqlx::FromRow;

/// Session, user and groups in one statement, so that they are of one moment.
const FIND: &str = "SELECT session.digest, session.created_at, session.expires_at,
        session.password_version AS session_password_version,
        user.id, user.username, user.email, user.is_active, user.is_staff, user.password_version, user.not_before,
        (SELECT json_group_array(user_group.name) FROM membership
            JOIN user_group ON user_group.id = membership.group_id WHERE membership.user_id = user.id) AS groups,
        (SELECT coalesce(max(sequence), 0) FROM change) AS as_of
    FROM session JOIN user ON user.id = session.user_id WHERE session.digest = ?1 AND session.expires_at > ?2";
const INSERT: &str = "INSERT INTO session (digest, user_id, password_version, created_at, expires_at)
    SELECT ?1, id, password_version, ?4, ?5 FROM user WHERE id = ?2 AND is_active AND password_version = ?3";
const DELETE: &str = "DELETE FROM session WHERE digest = ?1";

#[derive(FromRow)]
struct SessionRow {
    digest: Vec<u8>,
    created_at: i64,
    expires_at: i64,
    session_password_version: i64,
    #[sqlx(flatten)]
    user: UserRow,
    as_of: i64,
}

impl SessionRow {
    fn into_found(self, digest: Digest) -> sqlx::Result<FoundSession> {
        let user = self.user.into_user()?;
        let is_void =
            self.session_password_version != user.password_version || self.created_at < user.not_before;
        if self.digest != digest.0 || is_void {
            return Ok(FoundSession::Absent);
        }
        let expires = UnixSeconds(self.expires_at);
        Ok(FoundSession::User(UserSession {
            user,
            expires,
            csrf_secret: None,
            as_of: Some(sequence(self.as_of)),
        }))
    }
}

impl SessionStore for Sqlite {
    fn find_session(&self, key: Secret, now: UnixSeconds) -> StoreFuture<'_, FoundSession> {
        let digest = Digest::of(key.expose());
        Box::pin(self.pools.read(async move {
            let query = sqlx::query_as::<_, SessionRow>(FIND).bind(digest.0.to_vec()).bind(now.0);
            let row = query.fetch_optional(&self.pools.readers).await?;
            row.map_or(Ok(FoundSession::Absent), |row| row.into_found(digest))
        }))
    }

    fn insert_session(&self, session: NewSession) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async move {
            let mut write = self.write().await?;
            let query = sqlx::query(INSERT)
                .bind(Digest::of(session.key.expose()).0.to_vec())
                .bind(session.user.0)
                .bind(session.password_version)
                .bind(session.now.0)
                .bind(session.expires.0);
            let done = query.execute(&mut *write).await.map_err(not_written)?;
            if done.rows_affected() == 0 {
                return Ok(Written::nothing(false));
            }
            if let Some(old) = &session.old {
                let query = sqlx::query(DELETE).bind(Digest::of(old.expose()).0.to_vec());
                query.execute(&mut *write).await.map_err(not_written)?;
            }
            write.commit(true).await
        })
    }

    fn delete_session(&self, key: Secret) -> StoreFuture<'_, Written<bool>> {
        let digest = Digest::of(key.expose());
        Box::pin(async move {
            let mut write = self.write().await?;
            let query = sqlx::query(DELETE).bind(digest.0.to_vec());
            let done = query.execute(&mut *write).await.map_err(not_written)?;
            write.commit(done.rows_affected() > 0).await
        })
    }
}

/// Own tokens are all there is.
impl KeyStore for Sqlite {}
