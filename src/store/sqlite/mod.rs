//! The store in a SQLite file: one writing connection, a few reading ones, one for each change feed.
//!
//! Write-ahead logging, so that readers and feeds answer while anybody writes; `synchronous = FULL`, so that a
//! revocation survives a power cut. Writes are serialised by a pool of one, since SQLite has one writer anyway and
//! a queue here costs less than its busy waiting. Every write is one `BEGIN IMMEDIATE` transaction: the lock is
//! waited for before anything is read, and an error of the commit itself is seen (an implicit commit's is not when
//! a statement returns rows). A dropped transaction is rolled back by sqlx before its connection is used again.
//!
//! A connection is not shared with the feed: a writer's own `data_version` does not move by its own commits, and
//! its queue can be seconds long.

mod bulk;
pub(in crate::store) mod error;
mod feed;
mod manage;
mod open;
mod sessions;
mod tokens;
mod users;
mod watched;
mod write;

use crate::clock::UnixSeconds;
use crate::store::sqlite::watched::Watched;
use crate::store::{ChangeFeed, History, Store, StoreError, StoreFuture};
use error::{not_written, unavailable};
pub(in crate::store) use feed::DataVersion;
use feed::Feed;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{Sqlite as Driver, Transaction};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Rows of the table of changes are kept this long (seconds), much longer than any feed sleeps.
const CHANGE_KEPT_SECONDS: i64 = 600;
/// Expired tokens are kept this long (seconds), so that people can see what expired.
const EXPIRED_KEPT_SECONDS: i64 = 30 * 24 * 60 * 60;
/// Rows deleted by one transaction of [`Store::prune`]: others write in between.
const PRUNE_BATCH_ROWS: i64 = 1000;

/// How the file is used.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// How long a write waits for the writing connection, and again for another process's lock.
    pub write_wait: Duration,
    /// How long a read waits for a reading connection and for its answer.
    pub read_wait: Duration,
    /// Reading connections.
    pub readers: NonZeroU32,
    /// Bytes of the file mapped into memory, per connection; 0: none.
    pub mmap_bytes: u64,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            write_wait: Duration::from_secs(2),
            read_wait: Duration::from_secs(2),
            readers: NonZeroU32::MIN.saturating_add(3),
            mmap_bytes: 256 * 1024 * 1024,
        }
    }
}

/// A store in a SQLite file.
#[derive(Debug, Clone)]
pub struct Sqlite {
    pools: Pools,
}

/// The connections to a file.
#[derive(Debug, Clone)]
pub(in crate::store) struct Pools {
    pub(in crate::store) readers: SqlitePool,
    writer: SqlitePool,
    connect: SqliteConnectOptions,
    read_wait: Duration,
    file: Arc<Watched>,
}

impl Sqlite {
    /// Opens the file, makes it (mode 0600) if it is absent, and brings the schema up to date.
    ///
    /// # Errors
    /// [`StoreError::SchemaNewer`] if a newer doorward made it (nothing is changed), [`StoreError::NotWritten`] if the
    /// schema had to be changed and could not be, else [`StoreError::Unavailable`].
    ///
    /// # Cancel safety
    /// The schema is brought up to date completely or not at all.
    pub async fn open(path: &Path, options: SqliteOptions) -> Result<Self, StoreError> {
        Ok(Self { pools: open::open(path, options).await? })
    }

    /// Closes all connections but those of feeds, after what runs on them; later calls are `Unavailable` or
    /// `NotWritten`.
    pub async fn close(&self) {
        self.pools.close().await;
    }

    /// Runs one statement that deletes at most [`PRUNE_BATCH_ROWS`] rows until there is nothing left to delete.
    async fn delete_in_batches(&self, statement: &'static str, before: i64) -> Result<(), StoreError> {
        loop {
            let mut write = self.pools.write().await?;
            let batch = sqlx::query(statement).bind(before).bind(PRUNE_BATCH_ROWS).execute(&mut *write).await;
            let rows = batch.map_err(not_written)?.rows_affected();
            write.commit().await.map_err(not_written)?;
            if rows < PRUNE_BATCH_ROWS.unsigned_abs() {
                return Ok(());
            }
        }
    }
}

impl Pools {
    /// Opens a file that somebody else made, as it is.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it is not there or no database.
    pub(in crate::store) async fn adopt(path: &Path, options: &SqliteOptions) -> Result<Self, StoreError> {
        open::adopt(path, options).await
    }

    /// A connection of its own that tells whether others wrote.
    pub(in crate::store) async fn data_version(&self) -> Result<DataVersion, StoreError> {
        DataVersion::open(self).await
    }

    /// As [`Sqlite::close`].
    pub(in crate::store) async fn close(&self) {
        // The last one to close writes the log into the file, which a reading connection may not.
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Starts a write. Dropped without a commit, it leaves nothing behind.
    pub(in crate::store) async fn write(&self) -> Result<Transaction<'static, Driver>, StoreError> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(not_written)
    }

    /// Waits for a look-up, but not for ever: a disk that hangs must not hang requests.
    pub(in crate::store) async fn read<T>(
        &self,
        answer: impl Future<Output = sqlx::Result<T>> + Send,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.read_wait, answer).await {
            Ok(answer) => answer.map_err(unavailable),
            Err(late) => Err(StoreError::Unavailable(Box::new(late))),
        }
    }
}

/// The newest row is kept, so that a feed can tell how far the numbers have come.
const PRUNE_CHANGES: &str = "DELETE FROM change WHERE at < ?1 AND sequence IN (
    SELECT sequence FROM change WHERE sequence < (SELECT max(sequence) FROM change) ORDER BY sequence LIMIT ?2)";
const PRUNE_TOKENS: &str =
    "DELETE FROM token WHERE id IN (SELECT id FROM token WHERE expires_at < ?1 LIMIT ?2)";

const PRUNE_SESSIONS: &str =
    "DELETE FROM session WHERE digest IN (SELECT digest FROM session WHERE expires_at < ?1 LIMIT ?2)";

impl Store for Sqlite {
    fn change_feed(&self) -> StoreFuture<'_, Box<dyn ChangeFeed>> {
        Box::pin(async {
            let feed = Feed::open(&self.pools).await?;
            Ok(Box::new(feed) as Box<dyn ChangeFeed>)
        })
    }

    fn history(&self) -> StoreFuture<'_, Option<History>> {
        Box::pin(self.pools.read(async { feed::history(&self.pools.readers).await.map(Some) }))
    }

    fn prune(&self, now: UnixSeconds) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.delete_in_batches(PRUNE_TOKENS, now.0.saturating_sub(EXPIRED_KEPT_SECONDS)).await?;
            self.delete_in_batches(PRUNE_SESSIONS, now.0).await?;
            self.delete_in_batches(PRUNE_CHANGES, now.0.saturating_sub(CHANGE_KEPT_SECONDS)).await
        })
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            Self::close(self).await;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{CredentialId, Digest, UserId};
    use crate::secret::Secret;
    use crate::store::{NewToken, NewUser, TokenOrigin, TokenStore as _, UserStore as _};

    async fn store() -> (tempfile::TempDir, Sqlite, UserId) {
        let directory = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&directory.path().join("d.db"), SqliteOptions::default()).await.unwrap();
        let user = NewUser {
            username: "alice".to_owned(),
            password: Secret::default(),
            email: String::new(),
            is_staff: false,
            groups: vec![],
            created: UnixSeconds(0),
        };
        let user = store.insert_user(user).await.unwrap().value;
        (directory, store, user)
    }

    fn token(number: u64, user: UserId) -> NewToken {
        NewToken {
            id: CredentialId(number),
            digest: Digest::of(&number.to_be_bytes()),
            user,
            name: "x".repeat(1000),
            origin: TokenOrigin::Command,
            created: UnixSeconds(0),
            expires: None,
        }
    }

    #[tokio::test]
    async fn full_file_refuses_writes_until_there_is_room() {
        let (_directory, store, user) = store().await;
        sqlx::query("PRAGMA max_page_count = 1").execute(&store.pools.writer).await.unwrap();
        let mut number = 0;
        let refused = loop {
            number += 1;
            if let Err(refused) = store.insert_token(token(number, user)).await {
                break refused;
            }
        };
        assert!(matches!(refused, StoreError::NotWritten(_)), "{refused:?}");
        assert!(store.find_token(Digest::of(&number.to_be_bytes())).await.unwrap().is_none());
        assert!(store.find_token(Digest::of(&1_u64.to_be_bytes())).await.unwrap().is_some());
        // A connection of its own has no such limit, if it was replaced; else it is lifted.
        sqlx::query("PRAGMA max_page_count = 4294967294").execute(&store.pools.writer).await.unwrap();
        drop(store.insert_token(token(number, user)).await.unwrap());
    }

    #[tokio::test]
    async fn transaction_that_sqlite_ended_by_itself_blocks_no_later_write() {
        let (_directory, store, user) = store().await;
        let mut write = store.pools.write().await.unwrap();
        // As on a full disk: SQLite is out of the transaction, sqlx does not know.
        sqlx::query("ROLLBACK").execute(&mut *write).await.unwrap();
        assert!(write.commit().await.is_err());
        assert!(store.set_active(user, true).await.unwrap().value);
    }

    #[tokio::test]
    async fn prune_goes_on_past_one_batch() {
        let (_directory, store, user) = store().await;
        let mut write = store.pools.write().await.unwrap();
        for number in 0..=PRUNE_BATCH_ROWS {
            let insert =
                "INSERT INTO token (public_id, digest, user_id, name, origin, created_at, expires_at)
                VALUES (?1, randomblob(32), ?2, '', 'command', 0, 0)";
            sqlx::query(insert).bind(number).bind(user.0).execute(&mut *write).await.unwrap();
        }
        write.commit().await.unwrap();
        store.prune(UnixSeconds(10_000_000_000)).await.unwrap();
        assert!(store.list_tokens(None).await.unwrap().is_empty());
        let left: i64 =
            sqlx::query_scalar("SELECT count(*) FROM change").fetch_one(&store.pools.readers).await.unwrap();
        assert_eq!(left, 1, "the newest row is kept");
    }
}
