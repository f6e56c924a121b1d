//! Keys and sessions that are looked up many at once, by their primary keys.

use crate::clock::UnixSeconds;
use crate::identity::{Digest, User, UserId};
use crate::secret::Secret;
use crate::store::django::Django;
use crate::store::django::sessions::datetime;
use crate::store::django::statements::find_sessions;
use crate::store::django::users::read_row;
use crate::store::session::{FoundSession, UserSession};
use crate::store::sql::error::unavailable;
use crate::store::sql::{Row, Value, values};
use crate::store::{CONFIRM_MAX, StoreError, UserWithPassword};
use std::collections::HashMap;

/// As many values as the statement has places: the last one again and again. Past them nothing is asked for.
fn padded(mut values: Vec<Value>) -> Vec<Value> {
    if let Some(last) = values.last().cloned() {
        values.resize(CONFIRM_MAX, last);
    }
    values
}

impl Django {
    /// Those that a row may have.
    fn askable(&self, keys: &[Secret]) -> Vec<Value> {
        let texts = keys.iter().filter_map(|key| std::str::from_utf8(key.expose()).ok());
        texts.filter(|key| self.database.can_hold(key)).map(Value::from).collect()
    }

    /// Whoever asked compares the digests: to a collation other keys may be equal.
    pub(super) async fn keys_together(&self, keys: Vec<Secret>) -> Result<Vec<(Digest, User)>, StoreError> {
        let asked = self.askable(&keys);
        if asked.is_empty() || !self.settings.needs_keys {
            return Ok(Vec::new());
        }
        let rows = self.database.read(&self.statements.users_by_key, padded(asked)).await?;
        let read = |row: &Row| {
            let key = row.text("token_key")?;
            Ok((Digest::of(key.as_bytes()), read_row(row)?.user))
        };
        rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(unavailable)
    }

    /// Sessions and their users are of one moment.
    pub(super) async fn sessions_together(
        &self,
        keys: Vec<Secret>,
        now: UnixSeconds,
    ) -> Result<Vec<(Digest, UserSession)>, StoreError> {
        let asked = self.askable(&keys);
        if asked.is_empty() || !self.settings.needs_sessions {
            return Ok(Vec::new());
        }
        self.database
            .bounded(Box::pin(async {
                let mut link = self.database.snapshot().await.map_err(unavailable)?;
                let mut values = values![datetime(now)];
                values.extend(padded(asked));
                let rows = link.all(&find_sessions(), values).await.map_err(unavailable)?;
                let mut contents = Vec::new();
                for row in rows {
                    let key = row.text("session_key").map_err(unavailable)?;
                    contents.extend(
                        self.content(&row)
                            .map_err(unavailable)?
                            .map(|content| (Digest::of(key.as_bytes()), content)),
                    );
                }
                let named: Vec<Value> = contents
                    .iter()
                    .filter_map(|(_, content)| content.user.map(|user| user.0.into()))
                    .collect();
                if named.is_empty() {
                    return Ok(Vec::new());
                }
                let rows =
                    link.all(&self.statements.users_by_id, padded(named)).await.map_err(unavailable)?;
                let users: HashMap<UserId, UserWithPassword> = rows
                    .iter()
                    .map(|row| read_row(row).map(|found| (found.user.id, found)))
                    .collect::<sqlx::Result<_>>()
                    .map_err(unavailable)?;
                let found = contents.iter().filter_map(|(digest, content)| {
                    match self.judge(content, users.get(&content.user?)?.clone()) {
                        FoundSession::User(session) => Some((*digest, session)),
                        _ => None,
                    }
                });
                Ok(found.collect())
            }))
            .await
    }
}
