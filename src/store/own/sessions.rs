//! Sessions in our own tables.

use crate::clock::UnixSeconds;
use crate::identity::Digest;
use crate::secret::Secret;
use crate::store::own::Own;
use crate::store::own::changes::sequence;
use crate::store::own::users::{read_user, user_columns};
use crate::store::session::{FoundSession, NewSession, SessionStore, UserSession};
use crate::store::sql::error::{not_written, unavailable};
use crate::store::sql::{Row, values};
use crate::store::{KeyStore, StoreFuture, Written};

/// Session, user and groups in one statement, so that they are of one moment.
const FIND: &str = concat!(
    "SELECT session.digest, session.created_at, session.expires_at,
        session.password_version AS session_password_version, {as_of} AS as_of,",
    user_columns!(),
    r#"FROM session JOIN "user" ON "user".id = session.user_id
        WHERE session.digest = ?1 AND session.expires_at > ?2"#
);
const INSERT: &str = r#"INSERT INTO session (digest, user_id, password_version, created_at, expires_at)
    SELECT ?1, id, password_version, ?4, ?5 FROM "user" WHERE id = ?2 AND is_active AND password_version = ?3"#;
const DELETE: &str = "DELETE FROM session WHERE digest = ?1";

fn found(row: &Row, digest: Digest) -> sqlx::Result<FoundSession> {
    let user = read_user(row)?;
    let is_void = row.integer("session_password_version")? != user.password_version
        || row.integer("created_at")? < user.not_before;
    if row.bytes("digest")? != digest.0 || is_void {
        return Ok(FoundSession::Absent);
    }
    let (expires, as_of) = (UnixSeconds(row.integer("expires_at")?), Some(sequence(row.integer("as_of")?)));
    Ok(FoundSession::User(UserSession { user, expires, csrf_secret: None, as_of }))
}

impl SessionStore for Own {
    fn find_session(&self, key: Secret, now: UnixSeconds) -> StoreFuture<'_, FoundSession> {
        let digest = Digest::of(key.expose());
        Box::pin(async move {
            let row = self.database.find(FIND, values![digest, now.0]).await?;
            row.map_or(Ok(FoundSession::Absent), |row| found(&row, digest)).map_err(unavailable)
        })
    }

    fn insert_session(&self, session: NewSession) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async move {
            let mut write = self.write().await?;
            let NewSession { key, old, user, password_version, now, expires, csrf_secret: _ } = session;
            let values = values![Digest::of(key.expose()), user.0, password_version, now.0, expires.0];
            if write.run(INSERT, values).await.map_err(not_written)? == 0 {
                return Ok(Written::nothing(false));
            }
            if let Some(old) = &old {
                write.run(DELETE, values![Digest::of(old.expose())]).await.map_err(not_written)?;
            }
            write.commit(true).await
        })
    }

    fn delete_session(&self, key: Secret) -> StoreFuture<'_, Written<bool>> {
        let digest = Digest::of(key.expose());
        Box::pin(async move {
            let mut write = self.write().await?;
            let deleted = write.run(DELETE, values![digest]).await.map_err(not_written)?;
            write.commit(deleted > 0).await
        })
    }
}

/// Own tokens are all there is.
impl KeyStore for Own {}
