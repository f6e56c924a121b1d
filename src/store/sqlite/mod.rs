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

mod feed;
mod open;
mod watched;

use crate::store::own::Own;
use crate::store::sql::Database;
use crate::store::sql::error::not_written;
use crate::store::sqlite::watched::Watched;
use crate::store::{ChangeFeed, StoreError};
pub(in crate::store) use feed::DataVersion;
use feed::Feed;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{Sqlite as Driver, Transaction};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Our own tables in a SQLite file.
pub type Sqlite = Own;

/// Settings of the connection while it writes a batch. Pages of the file stay in memory (KiB): the indexes of a million
/// tokens. With SQLite's 2 MiB each row would read its place in them again, and write it out again. What a statement
/// would need to be undone stays there as well: the trigger on each row makes SQLite keep it, in a file by default,
/// which takes as long as all the rest.
const BATCH_SETTINGS: &str = "PRAGMA cache_size = -131072; PRAGMA temp_store = MEMORY";
/// SQLite's own defaults.
const USUAL_SETTINGS: &str = "PRAGMA cache_size = -2000; PRAGMA temp_store = DEFAULT";

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

/// The connections to a file.
#[derive(Debug, Clone)]
pub(in crate::store) struct Pools {
    pub(in crate::store) readers: SqlitePool,
    writer: SqlitePool,
    connect: SqliteConnectOptions,
    pub(in crate::store) read_wait: Duration,
    file: Arc<Watched>,
}

impl Own {
    /// Opens a SQLite file, makes it (mode 0600) if it is absent, and brings the schema up to date.
    ///
    /// # Errors
    /// [`StoreError::SchemaNewer`] if a newer doorward made it (nothing is changed), [`StoreError::NotWritten`] if the
    /// schema had to be changed and could not be, else [`StoreError::Unavailable`].
    ///
    /// # Cancel safety
    /// The schema is brought up to date completely or not at all.
    pub async fn open(path: &Path, options: SqliteOptions) -> Result<Self, StoreError> {
        Ok(Self { database: Database::Sqlite(Box::new(open::open(path, options).await?)) })
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

    /// A feed of what is committed to our own tables from now on.
    pub(in crate::store) async fn feed(&self) -> Result<impl ChangeFeed + use<>, StoreError> {
        Feed::open(self).await
    }

    /// Before and after a write of very many rows.
    pub(in crate::store) async fn expect_many(&self, many: bool) -> Result<(), StoreError> {
        let settings = if many { BATCH_SETTINGS } else { USUAL_SETTINGS };
        sqlx::raw_sql(settings).execute(&self.writer).await.map(drop).map_err(not_written)
    }

    /// Closes all connections but those of feeds.
    pub(in crate::store) async fn close(&self) {
        // The last one to close writes the log into the file, which a reading connection may not.
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Starts a write. Dropped without a commit, it leaves nothing behind.
    pub(in crate::store) async fn write(&self) -> Result<Transaction<'static, Driver>, StoreError> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(not_written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixSeconds;
    use crate::identity::{CredentialId, Digest, UserId};
    use crate::secret::Secret;
    use crate::store::{NewToken, NewUser, Store as _, TokenOrigin, TokenStore as _, UserStore as _};

    /// More than one batch of rows that are pruned.
    const ROWS: i64 = 1000;

    fn pools(store: &Sqlite) -> &Pools {
        match &store.database {
            Database::Sqlite(pools) => pools,
            other => panic!("{other:?}"),
        }
    }

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
        sqlx::query("PRAGMA max_page_count = 1").execute(&pools(&store).writer).await.unwrap();
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
        sqlx::query("PRAGMA max_page_count = 4294967294").execute(&pools(&store).writer).await.unwrap();
        drop(store.insert_token(token(number, user)).await.unwrap());
    }

    #[tokio::test]
    async fn transaction_that_sqlite_ended_by_itself_blocks_no_later_write() {
        let (_directory, store, user) = store().await;
        let mut write = pools(&store).write().await.unwrap();
        // As on a full disk: SQLite is out of the transaction, sqlx does not know.
        sqlx::query("ROLLBACK").execute(&mut *write).await.unwrap();
        assert!(write.commit().await.is_err());
        assert!(store.set_active(user, true).await.unwrap().value);
    }

    #[tokio::test]
    async fn prune_goes_on_past_one_batch() {
        let (_directory, store, user) = store().await;
        let mut write = pools(&store).write().await.unwrap();
        for number in 0..=ROWS {
            let insert =
                "INSERT INTO token (public_id, digest, user_id, name, origin, created_at, expires_at)
                VALUES (?1, randomblob(32), ?2, '', 'command', 0, 0)";
            sqlx::query(insert).bind(number).bind(user.0).execute(&mut *write).await.unwrap();
        }
        write.commit().await.unwrap();
        store.prune(UnixSeconds(10_000_000_000)).await.unwrap();
        assert!(store.list_tokens(None).await.unwrap().is_empty());
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM change")
            .fetch_one(&pools(&store).readers)
            .await
            .unwrap();
        assert_eq!(left, 1, "the newest row is kept");
    }
}
