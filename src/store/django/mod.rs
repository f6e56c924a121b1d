//! An existing Django database as it is, beside a store of our own for what is not Django's.
//!
//! Users, groups, keys of DRF and sessions are read from Django's tables, and written where its own code would write
//! them. Nothing about the schema is changed, and no mode of the file. Rows are Django's: whatever ends or replaces one
//! reads it again first, with its user, under the lock of the write.
//!
//! Tokens that doorward issues are in the own store, where each user of Django's who has one is mirrored under the
//! same id; who the user is and whether active is asked of Django every time.

mod keys;
mod manage;
mod own;
mod sessions;
mod statements;
mod users;

use crate::clock::UnixSeconds;
use crate::config::UserTable;
use crate::django;
use crate::store::django::statements::{NEWEST_SESSIONS, PROBE_KEYS, PROBE_SESSIONS, Statement, Statements};
use crate::store::sqlite::error::unavailable;
use crate::store::sqlite::{DataVersion, Pools, Sqlite, SqliteOptions};
use crate::store::{Change, ChangeFeed, Store, StoreError, StoreFuture};
use sqlx::AssertSqlSafe;
use std::path::Path;
use std::sync::Arc;

/// How Django's tables are used.
#[derive(Debug)]
pub struct DjangoSettings {
    /// Signs and reads sessions.
    pub keys: django::Keys,
    /// `AUTHENTICATION_BACKENDS`: sessions of others name nobody, and new ones name the first.
    pub backends: Vec<String>,
    /// Where users are.
    pub user: UserTable,
    /// Keys of DRF are asked for.
    pub needs_keys: bool,
    /// Sessions are asked for.
    pub needs_sessions: bool,
}

/// The adopted database and the own one.
#[derive(Debug)]
pub struct Django {
    pools: Pools,
    own: Sqlite,
    statements: Statements,
    settings: DjangoSettings,
}

impl Django {
    /// Opens the file, which must be there, and looks whether it has the tables and columns that are needed.
    ///
    /// # Errors
    /// [`StoreError::NotAdoptable`] if it lacks one, or if the own store has users of its own; else
    /// [`StoreError::Unavailable`].
    pub async fn open(
        path: &Path,
        options: SqliteOptions,
        own: Sqlite,
        settings: DjangoSettings,
        now: UnixSeconds,
    ) -> Result<Self, StoreError> {
        if own.has_users_of_its_own().await? {
            let text = "the own store has users that are not Django's; give [store.own] another file";
            return Err(StoreError::NotAdoptable(text.to_owned()));
        }
        let pools = Pools::adopt(path, &options).await?;
        let statements = Statements::new(&settings.user);
        let adopted = Self { pools, own, statements, settings };
        adopted.probe().await?;
        adopted.look_at_signatures(now).await?;
        Ok(adopted)
    }

    /// Tables and columns that there have to be.
    async fn probe(&self) -> Result<(), StoreError> {
        let Statements { probe_users, probe_groups, .. } = &self.statements;
        let users = (&*self.settings.user.table, probe_users.clone());
        let groups = probe_groups.as_ref().map(|probe| ("auth_group", probe.clone()));
        let keys = self.settings.needs_keys.then(|| ("authtoken_token", Statement::from(PROBE_KEYS)));
        let sessions =
            self.settings.needs_sessions.then(|| ("django_session", Statement::from(PROBE_SESSIONS)));
        for (table, probe) in [Some(users), groups, keys, sessions].into_iter().flatten() {
            let read = sqlx::query(AssertSqlSafe(probe)).fetch_all(&self.pools.readers).await;
            match read {
                Ok(_) => {}
                // SQLite names the table or column, and nothing of what is in it.
                Err(sqlx::Error::Database(error)) => {
                    let text = format!("{table} cannot be read: {error}");
                    return Err(StoreError::NotAdoptable(text));
                }
                Err(error) => return Err(unavailable(error)),
            }
        }
        let ids = sqlx::query_scalar::<_, String>(safe(&self.statements.probe_ids));
        let ids = ids.fetch_optional(&self.pools.readers).await.map_err(unavailable)?;
        if ids.as_ref().is_some_and(|ids| ids != "integer") {
            let text = format!("{} has ids that are no integers", self.settings.user.table);
            return Err(StoreError::NotAdoptable(text));
        }
        Ok(())
    }

    /// With another `SECRET_KEY` than Django's every session would be nobody's, and nobody would know why.
    async fn look_at_signatures(&self, now: UnixSeconds) -> Result<(), StoreError> {
        if !self.settings.needs_sessions {
            return Ok(());
        }
        let query = sqlx::query_scalar::<_, String>(NEWEST_SESSIONS).bind(sessions::datetime(now));
        let rows = query.fetch_all(&self.pools.readers).await.map_err(unavailable)?;
        let is_signed = |data: &String| django::decode(data, &self.settings.keys).is_some();
        if !rows.is_empty() && !rows.iter().any(is_signed) {
            tracing::warn!(
                sessions = rows.len(),
                "none of the newest sessions is signed with secret_key: is it Django's SECRET_KEY?"
            );
        }
        Ok(())
    }
}

/// Looks whether anybody wrote to Django's file, and what was written to ours.
#[derive(Debug)]
struct Feed {
    django: DataVersion,
    own: Box<dyn ChangeFeed>,
    /// What ours told, until it can be told.
    told: Vec<Change>,
}

impl ChangeFeed for Feed {
    fn changes(&mut self) -> StoreFuture<'_, Vec<Change>> {
        Box::pin(async {
            let own = self.own.changes().await?;
            self.told.extend(own);
            if self.django.has_changed().await? {
                self.told.push(Change::Something);
            }
            Ok(std::mem::take(&mut self.told))
        })
    }
}

impl Store for Django {
    fn change_feed(&self) -> StoreFuture<'_, Box<dyn ChangeFeed>> {
        Box::pin(async {
            let (django, own) = (self.pools.data_version().await?, self.own.change_feed().await?);
            let feed = Feed { django, own, told: Vec::new() };
            Ok(Box::new(feed) as Box<dyn ChangeFeed>)
        })
    }

    fn prune(&self, now: UnixSeconds) -> StoreFuture<'_, ()> {
        // Django's expired sessions are Django's to clear.
        self.own.prune(now)
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            self.pools.close().await;
            self.own.close().await;
            Ok(())
        })
    }
}

/// A statement for sqlx: its text is ours, see [`statements`].
fn safe(statement: &Statement) -> AssertSqlSafe<Arc<str>> {
    AssertSqlSafe(Arc::clone(statement))
}
