//! Keys and sessions that are looked up many at once, by their primary keys.

use crate::clock::UnixSeconds;
use crate::identity::{Digest, User};
use crate::secret::Secret;
use crate::store::django::Django;
use crate::store::django::sessions::{Content, datetime};
use crate::store::django::statements::find_sessions;
use crate::store::django::users::read_row;
use crate::store::session::{FoundSession, UserSession};
use crate::store::sql::error::unavailable;
use crate::store::sql::{Link, Row, Value, values};
use crate::store::{CONFIRM_MAX, StoreError};
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
    ) -> Result<Vec<(Digest, Option<UserSession>)>, StoreError> {
        let asked = self.askable(&keys);
        if asked.is_empty() || !self.settings.needs_sessions {
            return Ok(Vec::new());
        }
        self.database
            .bounded(Box::pin(async {
                let mut link = self.database.snapshot().await.map_err(unavailable)?;
                self.read_sessions(&mut link, asked, now).await.map_err(unavailable)
            }))
            .await
    }

    async fn read_sessions(
        &self,
        link: &mut Link,
        asked: Vec<Value>,
        now: UnixSeconds,
    ) -> sqlx::Result<Vec<(Digest, Option<UserSession>)>> {
        let mut values = values![datetime(now)];
        values.extend(padded(asked));
        let mut contents = Vec::new();
        for row in link.all(&find_sessions(), values).await? {
            contents.push((Digest::of(row.text("session_key")?.as_bytes()), self.content(&row)?));
        }
        let user = |content: &Option<Content>| content.as_ref().and_then(|content| content.user);
        let named: Vec<Value> =
            contents.iter().filter_map(|(_, content)| Some(user(content)?.0.into())).collect();
        let mut users = HashMap::new();
        if !named.is_empty() {
            for row in link.all(&self.statements.users_by_id, padded(named)).await? {
                let found = read_row(&row)?;
                users.insert(found.user.id, found);
            }
        }
        let found = |content: &Option<Content>| {
            let of = users.get(&user(content)?)?.clone();
            match self.judge(content.as_ref()?, of) {
                FoundSession::User(session) => Some(session),
                _ => None,
            }
        };
        Ok(contents.iter().map(|(digest, content)| (*digest, found(content))).collect())
    }
}
