//! Keys of DRF's `authtoken_token`: one for each user, opaque, stored as they are presented.

use crate::identity::User;
use crate::secret::Secret;
use crate::store::django::sessions::datetime;
use crate::store::django::statements::{DELETE_KEY, INSERT_KEY};
use crate::store::django::users::UserRow;
use crate::store::django::{Django, safe};
use crate::store::sqlite::error::not_written;
use crate::store::{KeyRequest, KeyStore, StoreError, StoreFuture};
use sqlx::FromRow;

#[derive(FromRow)]
struct KeyRow {
    token_key: String,
    #[sqlx(flatten)]
    user: UserRow,
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

    fn obtain_key(&self, wanted: KeyRequest) -> StoreFuture<'_, Option<Secret>> {
        Box::pin(async move {
            let mut write = self.pools.write().await?;
            let user = self.unchanged(&mut write, wanted.user, wanted.password_version).await;
            if user.map_err(not_written)?.is_none() {
                return Ok(None);
            }
            let query =
                sqlx::query_scalar::<_, String>(safe(&self.statements.key_of_user)).bind(wanted.user.0);
            if let Some(key) = query.fetch_optional(&mut *write).await.map_err(not_written)? {
                return Ok(Some(Secret::new(key)));
            }
            let key = text(&wanted.new).ok_or(StoreError::Foreign("a key that is no text"))?;
            let query = sqlx::query(INSERT_KEY).bind(key).bind(datetime(wanted.now)).bind(wanted.user.0);
            query.execute(&mut *write).await.map_err(not_written)?;
            write.commit().await.map_err(not_written)?;
            Ok(Some(wanted.new))
        })
    }

    fn delete_key(&self, key: Secret) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            let Some(key) = text(&key) else { return Ok(false) };
            let mut write = self.pools.write().await?;
            let done = sqlx::query(DELETE_KEY).bind(key).execute(&mut *write).await.map_err(not_written)?;
            write.commit().await.map_err(not_written)?;
            Ok(done.rows_affected() > 0)
        })
    }
}
