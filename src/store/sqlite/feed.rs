//! What others committed, from a connection of its own.
//!
//! `PRAGMA data_version` moves with every commit of any other connection, so an idle store costs one look at shared
//! memory. It is read *before* the rows: what is committed between the two is either among the rows, or moves the
//! version again and is found by the next call. Position and version advance together, after the last await, so a
//! call that is dropped or fails is simply repeated.

use crate::store::own::changes::{ChangeRow, READ_ROWS, ROWS_MAX, follow_from, limit, sequence};
use crate::store::sql::Row;
use crate::store::sql::error::unavailable;
use crate::store::sqlite::Pools;
use crate::store::sqlite::watched::Identity;
use crate::store::{ChangeFeed, Changes, StoreError, StoreFuture};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnection;

const READ_POSITION: &str = "SELECT coalesce(max(sequence), 0) FROM change";

/// Reads the table of changes from where it stopped.
#[derive(Debug)]
pub(super) struct Feed {
    connection: SqliteConnection,
    /// `data_version` at the last complete read. `None`: read the rows in any case.
    version: Option<i64>,
    /// Number of the last row read; 0: none.
    position: i64,
    /// What that row said. `None`: there is none.
    last: Option<ChangeRow>,
    opened: Opened,
}

/// What a connection was opened to.
#[derive(Debug)]
struct Opened {
    pools: Pools,
    identity: Identity,
}

impl Opened {
    async fn new(pools: &Pools) -> Result<(Self, SqliteConnection), StoreError> {
        let identity = pools.file.look().await.map_err(|error| StoreError::Unavailable(Box::new(error)))?;
        let connection = pools.connect.connect().await.map_err(unavailable)?;
        Ok((Self { pools: pools.clone(), identity }, connection))
    }

    /// Whether the file is another one by now.
    async fn is_replaced(&self) -> sqlx::Result<bool> {
        Ok(self.pools.file.look().await? != self.identity)
    }
}

impl Feed {
    /// Starts after the newest row.
    pub(super) async fn open(pools: &Pools) -> Result<Self, StoreError> {
        let (opened, mut connection) = Opened::new(pools).await?;
        let (position, last) = newest(&mut connection).await.map_err(unavailable)?;
        Ok(Self { connection, version: None, position, last, opened })
    }

    async fn changed(&mut self) -> Result<Changes, StoreError> {
        if self.opened.is_replaced().await.map_err(unavailable)? {
            *self = Self::open(&self.opened.pools).await?;
            let newest = sequence(self.position);
            return Ok(Changes { first: None, ..Changes::everything(newest, newest) });
        }
        self.read().await.map_err(unavailable)
    }

    async fn read(&mut self) -> sqlx::Result<Changes> {
        let version = version(&mut self.connection).await?;
        let before = sequence(self.position);
        if self.version == Some(version) {
            return Ok(Changes::numbered(before, Vec::new()));
        }
        let rows = rows(&mut self.connection, self.position, limit(ROWS_MAX)).await?;
        let followed = follow_from(self.position, self.last.as_ref(), &rows, ROWS_MAX);
        let (changes, position, last) = if let Some(changes) = followed {
            let last = rows.into_iter().next_back();
            let position = last.as_ref().map_or(self.position, |row| row.sequence);
            (Changes::numbered(before, changes), position, last)
        } else {
            let (newest, last) = newest(&mut self.connection).await?;
            (Changes::everything(before, sequence(newest)), newest, last)
        };
        (self.version, self.position, self.last) = (Some(version), position, last);
        Ok(changes)
    }
}

/// From this number on, at most so many.
async fn rows(connection: &mut SqliteConnection, from: i64, limit: i64) -> sqlx::Result<Vec<ChangeRow>> {
    let found = sqlx::query(READ_ROWS).bind(from).bind(limit).fetch_all(connection).await?;
    found.into_iter().map(|row| ChangeRow::from_row(&Row::Sqlite(row))).collect()
}

/// Number of the newest change, 0: there never was one; and its row, by which it is known again.
async fn newest(connection: &mut SqliteConnection) -> sqlx::Result<(i64, Option<ChangeRow>)> {
    let position = sqlx::query_scalar(READ_POSITION).fetch_one(&mut *connection).await?;
    let first = rows(connection, position, 1).await?.into_iter().next();
    Ok((position, first.filter(|row| row.sequence == position)))
}

/// Tells whether others wrote to a file that has no table of changes.
#[derive(Debug)]
pub(in crate::store) struct DataVersion {
    connection: SqliteConnection,
    version: i64,
    opened: Opened,
}

impl DataVersion {
    pub(super) async fn open(pools: &Pools) -> Result<Self, StoreError> {
        let (opened, mut connection) = Opened::new(pools).await?;
        let version = version(&mut connection).await.map_err(unavailable)?;
        Ok(Self { connection, version, opened })
    }

    /// Whether anybody did since the last call.
    pub(in crate::store) async fn has_changed(&mut self) -> Result<bool, StoreError> {
        let read_wait = self.opened.pools.read_wait;
        match tokio::time::timeout(read_wait, self.look()).await {
            Ok(changed) => changed,
            Err(late) => Err(StoreError::Unavailable(Box::new(late))),
        }
    }

    async fn look(&mut self) -> Result<bool, StoreError> {
        if self.opened.is_replaced().await.map_err(unavailable)? {
            *self = Self::open(&self.opened.pools).await?;
            return Ok(true);
        }
        let now = version(&mut self.connection).await.map_err(unavailable)?;
        Ok(std::mem::replace(&mut self.version, now) != now)
    }
}

async fn version(connection: &mut SqliteConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("PRAGMA data_version").fetch_one(connection).await
}

impl ChangeFeed for Feed {
    fn changes(&mut self) -> StoreFuture<'_, Changes> {
        Box::pin(async {
            let read_wait = self.opened.pools.read_wait;
            match tokio::time::timeout(read_wait, self.changed()).await {
                Ok(changes) => changes,
                Err(late) => Err(StoreError::Unavailable(Box::new(late))),
            }
        })
    }
}
