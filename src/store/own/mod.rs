//! Users, tokens and sessions in doorward's own tables, in any database.
//!
//! Every write is one transaction under one lock: it is waited for before anything is read, so writers come one after
//! the other, and what triggers write into the table of changes is numbered without gaps, in the order of the commits
//! (see [`write`]). Errors of the commit itself are seen.

mod bulk;
mod canary;
pub(in crate::store) mod changes;
mod feed;
mod manage;
mod schema;
mod sessions;
mod tokens;
mod users;
mod write;

use crate::clock::UnixSeconds;
use crate::identity::Digest;
use crate::store::manage::TokenBatch;
use crate::store::sql::error::not_written;
use crate::store::sql::text::list;
use crate::store::sql::{Database, ServerOptions, ServerUrl, Value, values};
use crate::store::{ChangeFeed, History, NewToken, Store, StoreError, StoreFuture, Written};

/// Rows of the table of changes are kept this long (seconds), much longer than any feed sleeps.
const CHANGE_KEPT_SECONDS: i64 = 600;
/// Expired tokens are kept this long (seconds), so that people can see what expired.
const EXPIRED_KEPT_SECONDS: i64 = 30 * 24 * 60 * 60;
/// Canaries are kept this long (seconds) after they expired: longer than clocks differ, and than any is needed.
const CANARY_KEPT_SECONDS: i64 = 600;
/// Rows deleted by one transaction of [`Store::prune`]: others write in between.
const PRUNE_BATCH_ROWS: i64 = 1000;

/// A store in our own tables.
#[derive(Debug, Clone)]
pub struct Own {
    pub(in crate::store) database: Database,
}

impl Own {
    /// Connects to a server and brings the schema up to date.
    ///
    /// # Errors
    /// [`StoreError::SchemaNewer`] if a newer doorward made it (nothing is changed), [`StoreError::NotAdoptable`] if
    /// there are tables of another program, [`StoreError::NotWritten`] if the schema had to be changed and could not
    /// be, else [`StoreError::Unavailable`].
    ///
    /// # Cancel safety
    /// The schema is brought up to date completely, or by the next call.
    pub async fn connect(url: &ServerUrl, options: &ServerOptions) -> Result<Self, StoreError> {
        let database = Database::server(url, options)?;
        schema::update(&database).await?;
        Ok(Self { database })
    }

    /// Closes all connections but those of feeds, after what runs on them; later calls are `Unavailable` or
    /// `NotWritten`.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Deletes rows with such keys in batches until there are none.
    async fn prune_keys(&self, prune: &Prune, before: i64) -> Result<(), StoreError> {
        loop {
            let mut write = self.write().await?;
            let rows = write.all(prune.find, values![before, PRUNE_BATCH_ROWS]).await.map_err(not_written)?;
            let keys = rows.iter().map(|row| (prune.key)(row)).collect::<sqlx::Result<Vec<_>>>();
            let keys = keys.map_err(not_written)?;
            if !keys.is_empty() {
                let text = format!("{} IN {}", prune.delete, list(1, keys.len()));
                write.run(&text, keys).await.map_err(not_written)?;
            }
            drop(write.commit(()).await?);
            if rows.len() < usize::try_from(PRUNE_BATCH_ROWS).unwrap_or(usize::MAX) {
                return Ok(());
            }
        }
    }

    /// The newest row is kept, so that a feed can tell how far the numbers have come.
    async fn prune_changes(&self, before: i64) -> Result<(), StoreError> {
        loop {
            let mut write = self.write().await?;
            let rows = write.all(OLDEST_CHANGES, values![PRUNE_BATCH_ROWS + 1]).await.map_err(not_written)?;
            let mut last = None;
            // All but the newest of them.
            for row in rows.iter().take(rows.len().saturating_sub(1)) {
                if row.integer("at").map_err(not_written)? >= before {
                    break;
                }
                last = Some(row.integer("sequence").map_err(not_written)?);
            }
            let Some(last) = last else { return Ok(()) };
            let deleted = write.run(DELETE_CHANGES, values![last]).await.map_err(not_written)?;
            drop(write.commit(()).await?);
            if deleted < PRUNE_BATCH_ROWS.unsigned_abs() {
                return Ok(());
            }
        }
    }
}

/// Rows that go, by their keys: not each database lets a subquery limit what is deleted.
struct Prune {
    find: &'static str,
    key: fn(&crate::store::sql::Row) -> sqlx::Result<Value>,
    delete: &'static str,
}

const TOKENS: Prune = Prune {
    find: "SELECT id FROM token WHERE expires_at < ?1 LIMIT ?2",
    key: |row| row.integer("id").map(Value::from),
    delete: "DELETE FROM token WHERE id",
};
/// Those of [`CANARY_USER`](crate::store::CANARY_USER): of processes that did not come to delete them.
const CANARIES: Prune =
    Prune { find: "SELECT id FROM token WHERE user_id = -1 AND expires_at < ?1 LIMIT ?2", ..TOKENS };
const SESSIONS: Prune = Prune {
    find: "SELECT digest FROM session WHERE expires_at < ?1 LIMIT ?2",
    key: |row| row.bytes("digest").map(|digest| Value::Bytes(Some(digest))),
    delete: "DELETE FROM session WHERE digest",
};
const OLDEST_CHANGES: &str = r#"SELECT sequence, at FROM "change" ORDER BY sequence LIMIT ?1"#;
const DELETE_CHANGES: &str = r#"DELETE FROM "change" WHERE sequence <= ?1"#;

impl Store for Own {
    fn change_feed(&self) -> StoreFuture<'_, Box<dyn ChangeFeed>> {
        Box::pin(async {
            Ok(match &self.database {
                Database::Sqlite(pools) => Box::new(pools.feed().await?) as Box<dyn ChangeFeed>,
                Database::Postgres(_) | Database::MySql(_) => {
                    Box::new(feed::Feed::open(&self.database).await?)
                }
            })
        })
    }

    fn found_by(&self) -> &'static str {
        match &self.database {
            Database::Sqlite(_) => "a look at the file each 100 ms",
            Database::Postgres(_) => "PostgreSQL's NOTIFY, within milliseconds, and a look each 100 ms",
            Database::MySql(_) => "a look at the store each 100 ms",
        }
    }

    fn history(&self) -> StoreFuture<'_, Option<History>> {
        Box::pin(async { self.read_history().await.map(Some) })
    }

    fn insert_canary(&self, token: NewToken) -> StoreFuture<'_, Written<()>> {
        Box::pin(Self::insert_canary(self, token))
    }

    fn insert_canaries(&self, batch: TokenBatch) -> StoreFuture<'_, Written<()>> {
        Box::pin(Self::insert_canaries(self, batch))
    }

    fn delete_canaries(&self, digests: Vec<Digest>) -> StoreFuture<'_, Written<u64>> {
        Box::pin(async move { Self::delete_canaries(self, &digests).await })
    }

    fn prune(&self, now: UnixSeconds) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.prune_keys(&TOKENS, now.0.saturating_sub(EXPIRED_KEPT_SECONDS)).await?;
            self.prune_keys(&CANARIES, now.0.saturating_sub(CANARY_KEPT_SECONDS)).await?;
            self.prune_keys(&SESSIONS, now.0).await?;
            self.prune_changes(now.0.saturating_sub(CHANGE_KEPT_SECONDS)).await
        })
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            Self::close(self).await;
            Ok(())
        })
    }
}
