//! Keys of DRF's `authtoken_token`: one for each user, opaque, stored as they are presented.

use crate::identity::{Digest, User, UserId};
use crate::secret::Secret;
use crate::store::django::sessions::datetime;
use crate::store::django::statements::{COUNT_KEYS, DELETE_KEY, DELETE_KEYS_OF, INSERT_KEY};
use crate::store::django::users::UserRow;
use crate::store::django::{Django, safe};
use crate::store::sql::error::{not_written, unavailable};
use crate::store::{Change, KeyRequest, KeyStore, StoreError, StoreFuture, Written};
use sqlx::FromRow;

#[derive(FromRow)]
struct KeyRow {
    token_key: String,
    #[sqlx(flatten)]
    user: UserRow,
}

impl Django {
    /// Counts the keys of a user: one, or none.
    pub(super) async fn count_keys(&self, user: UserId) -> Result<u64, StoreError> {
        if !self.settings.needs_keys {
            return Ok(0);
        }
        let count =
            sqlx::query_scalar::<_, i64>(COUNT_KEYS).bind(user.0).fetch_one(&self.pools.readers).await;
        Ok(count.map_err(unavailable)?.unsigned_abs())
    }

    /// Deletes the keys of a user; yields their digests.
    pub(super) async fn delete_keys_of(&self, user: UserId) -> Result<Vec<Digest>, StoreError> {
        if !self.settings.needs_keys {
            return Ok(Vec::new());
        }
        let mut write = self.pools.write().await?;
        let keys = sqlx::query_scalar::<_, String>(DELETE_KEYS_OF).bind(user.0).fetch_all(&mut *write).await;
        let keys = keys.map_err(not_written)?;
        write.commit().await.map_err(not_written)?;
        Ok(keys.into_iter().map(|key| Digest::of(key.as_bytes())).collect())
    }
}

/// A key as text. `None`: no row has it.
fn text(key: &Secret) -> Option<String> {
    std::str::from_utf8(key.expose()).ok().map(str::to_owned)
}

impl KeyStore for Django {
    fn find_key(&self, key: Secret) -> StoreFuture<'_, Option<User>> {
        Box::pin(self.pools.read(async move {
            // No route asks for keys, so nobody looked whether there is the table.
            let Some(key) = text(&key).filter(|_| self.settings.needs_keys) else { return Ok(None) };
            let query = sqlx::query_as::<_, KeyRow>(safe(&self.statements.user_by_key)).bind(key.clone());
            let row = query.fetch_optional(&self.pools.readers).await?.filter(|row| row.token_key == key);
            Ok(row.map(|row| row.user.into_user()).transpose()?.map(|found| found.user))
        }))
    }

    fn obtain_key(&self, wanted: KeyRequest) -> StoreFuture<'_, Written<Option<Secret>>> {
        Box::pin(async move {
            let mut write = self.pools.write().await?;
            let user = self.unchanged(&mut write, wanted.user, wanted.password_version).await;
            if user.map_err(not_written)?.is_none() {
                return Ok(Written::nothing(None));
            }
            let query =
                sqlx::query_scalar::<_, String>(safe(&self.statements.key_of_user)).bind(wanted.user.0);
            if let Some(key) = query.fetch_optional(&mut *write).await.map_err(not_written)? {
                return Ok(Written::nothing(Some(Secret::new(key))));
            }
            let key = text(&wanted.new).ok_or(StoreError::Foreign("a key that is no text"))?;
            let query = sqlx::query(INSERT_KEY).bind(key).bind(datetime(wanted.now)).bind(wanted.user.0);
            query.execute(&mut *write).await.map_err(not_written)?;
            write.commit().await.map_err(not_written)?;
            // Somebody may have tried it before it was stored.
            let made = Change::Credential(Digest::of(wanted.new.expose()));
            Ok(Written::unnumbered(Some(wanted.new), vec![made]))
        })
    }

    fn delete_key(&self, key: Secret) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async move {
            let gone = Change::Credential(Digest::of(key.expose()));
            let Some(key) = text(&key) else { return Ok(Written::nothing(false)) };
            let mut write = self.pools.write().await?;
            let done = sqlx::query(DELETE_KEY).bind(key).execute(&mut *write).await.map_err(not_written)?;
            write.commit().await.map_err(not_written)?;
            Ok(Written::unnumbered(done.rows_affected() > 0, vec![gone]))
        })
    }
}
