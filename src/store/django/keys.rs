//! Keys of DRF's `authtoken_token`: one for each user, opaque, stored as they are presented.

use crate::identity::{Digest, User, UserId};
use crate::secret::Secret;
use crate::store::django::Django;
use crate::store::django::sessions::datetime;
use crate::store::django::statements::{COUNT_KEYS, DELETE_KEY, DELETE_KEYS_OF, INSERT_KEY, KEYS_OF};
use crate::store::django::users::read_row;
use crate::store::sql::error::{not_written, unavailable};
use crate::store::sql::values;
use crate::store::{Change, KeyRequest, KeyStore, StoreError, StoreFuture, Written};

impl Django {
    /// Counts the keys of a user: one, or none.
    pub(super) async fn count_keys(&self, user: UserId) -> Result<u64, StoreError> {
        if !self.settings.needs_keys {
            return Ok(0);
        }
        let row = self.database.find(COUNT_KEYS, values![user.0]).await?;
        let count = row.map_or(Ok(0), |row| row.integer("found"));
        Ok(count.map_err(unavailable)?.unsigned_abs())
    }

    /// Deletes the keys of a user; yields their digests.
    pub(super) async fn delete_keys_of(&self, user: UserId) -> Result<Vec<Digest>, StoreError> {
        if !self.settings.needs_keys {
            return Ok(Vec::new());
        }
        let mut link = self.database.begin().await?;
        let rows = link.all(KEYS_OF, values![user.0]).await.map_err(not_written)?;
        let keys = rows.iter().map(|row| row.text("token_key")).collect::<sqlx::Result<Vec<_>>>();
        let keys = keys.map_err(not_written)?;
        link.run(DELETE_KEYS_OF, values![user.0]).await.map_err(not_written)?;
        link.commit().await?;
        Ok(keys.into_iter().map(|key| Digest::of(key.as_bytes())).collect())
    }
}

/// A key as text. `None`: no row has it.
fn text(key: &Secret) -> Option<String> {
    std::str::from_utf8(key.expose()).ok().map(str::to_owned)
}

impl Django {
    async fn get_or_create_key(&self, wanted: &KeyRequest) -> Result<Written<Option<Secret>>, StoreError> {
        let mut link = self.database.begin().await?;
        let user = self.unchanged(&mut link, wanted.user, wanted.password_version, true).await;
        if user.map_err(not_written)?.is_none() {
            return Ok(Written::nothing(None));
        }
        let found = link.one(&self.statements.key_of_user, values![wanted.user.0]).await;
        if let Some(row) = found.map_err(not_written)? {
            let key = row.text("token_key").map_err(not_written)?;
            return Ok(Written::nothing(Some(Secret::new(key))));
        }
        let key = text(&wanted.new).ok_or(StoreError::Foreign("a key that is no text"))?;
        let values = values![key, datetime(wanted.now), wanted.user.0];
        link.run(INSERT_KEY, values).await.map_err(not_written)?;
        link.commit().await?;
        // Somebody may have tried it before it was stored.
        let made = Change::Credential(Digest::of(wanted.new.expose()));
        Ok(Written::unnumbered(Some(wanted.new.clone()), vec![made]))
    }
}

impl KeyStore for Django {
    fn find_key(&self, key: Secret) -> StoreFuture<'_, Option<User>> {
        Box::pin(async move {
            // No route asks for keys, so nobody looked whether there is the table.
            let key = text(&key).filter(|key| self.settings.needs_keys && self.database.can_hold(key));
            let Some(key) = key else { return Ok(None) };
            let row = self.database.find(&self.statements.user_by_key, values![&*key]).await?;
            let Some(row) = row else { return Ok(None) };
            let is_it = row.text("token_key").map_err(unavailable)? == key;
            let found = read_row(&row).map_err(unavailable)?;
            Ok(is_it.then_some(found.user))
        })
    }

    fn find_keys(&self, keys: Vec<Secret>) -> StoreFuture<'_, Vec<(Digest, User)>> {
        Box::pin(self.keys_together(keys))
    }

    fn obtain_key(&self, wanted: KeyRequest) -> StoreFuture<'_, Written<Option<Secret>>> {
        Box::pin(async move {
            match self.get_or_create_key(&wanted).await {
                // Django was faster: now there is one.
                Err(StoreError::Conflict) => self.get_or_create_key(&wanted).await,
                answer => answer,
            }
        })
    }

    fn delete_key(&self, key: Secret) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async move {
            let gone = Change::Credential(Digest::of(key.expose()));
            let key = text(&key).filter(|key| self.database.can_hold(key));
            let Some(key) = key else { return Ok(Written::nothing(false)) };
            let mut link = self.database.begin().await?;
            let deleted = link.run(DELETE_KEY, values![key]).await.map_err(not_written)?;
            link.commit().await?;
            Ok(Written::unnumbered(deleted > 0, vec![gone]))
        })
    }
}
