//! What others committed, from a connection of its own.
//!
//! `PRAGMA data_version` moves with every commit of any other connection, so an idle store costs one look at shared
//! memory. It is read *before* the rows: what is committed between the two is either among the rows, or moves the
//! version again and is found by the next call. Position and version advance together, after the last await, so a
//! call that is dropped or fails is simply repeated.

use crate::identity::{Digest, UserId};
use crate::store::sqlite::Pools;
use crate::store::sqlite::error::unavailable;
use crate::store::sqlite::watched::Identity;
use crate::store::{Change, ChangeFeed, Changes, History, Sequence, StoreError, StoreFuture};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnection, SqlitePool};

/// More rows than this at once are answered by [`Change::Everything`]: reading them would take longer than
/// confirming what is cached.
const ROWS_MAX: usize = 10_000;
/// The same for what one write tells of itself.
const WRITTEN_MAX: usize = 1000;

/// From the last row read (if it is still there) on; one more than [`ROWS_MAX`] new ones.
const READ_ROWS: &str =
    "SELECT sequence, token_digest, user_id FROM change WHERE sequence >= ?1 ORDER BY sequence LIMIT ?2";
const READ_LATEST: &str =
    "SELECT sequence, token_digest, user_id FROM change ORDER BY sequence DESC LIMIT ?1";
const READ_POSITION: &str = "SELECT coalesce(max(sequence), 0) FROM change";

/// A row of the table of changes.
type Row = (i64, Option<Vec<u8>>, Option<i64>);

/// Reads the table of changes from where it stopped.
#[derive(Debug)]
pub(super) struct Feed {
    connection: SqliteConnection,
    /// `data_version` at the last complete read. `None`: read the rows in any case.
    version: Option<i64>,
    /// Number of the last row read; 0: none.
    position: i64,
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
        let position =
            sqlx::query_scalar(READ_POSITION).fetch_one(&mut connection).await.map_err(unavailable)?;
        Ok(Self { connection, version: None, position, opened })
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
        let limit = i64::try_from(ROWS_MAX + 2).unwrap_or(i64::MAX);
        let rows: Vec<Row> =
            sqlx::query_as(READ_ROWS).bind(self.position).bind(limit).fetch_all(&mut self.connection).await?;
        let (changes, position) = if let Some(changes) = follow(self.position, &rows, ROWS_MAX) {
            (Changes::numbered(before, changes), rows.last().map_or(self.position, |row| row.0))
        } else {
            let newest = newest(&mut self.connection).await?;
            (Changes::everything(before, sequence(newest)), newest)
        };
        self.version = Some(version);
        self.position = position;
        Ok(changes)
    }
}

/// Number of the newest change; 0: there never was one.
pub(super) async fn newest(connection: &mut SqliteConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar(READ_POSITION).fetch_one(connection).await
}

/// A number as others see it.
pub(super) fn sequence(number: i64) -> Sequence {
    Sequence(number.unsigned_abs())
}

/// What this connection, which has the write lock, changed since.
pub(super) async fn since(connection: &mut SqliteConnection, before: i64) -> sqlx::Result<Changes> {
    let limit = i64::try_from(WRITTEN_MAX + 2).unwrap_or(i64::MAX);
    let rows: Vec<Row> =
        sqlx::query_as(READ_ROWS).bind(before).bind(limit).fetch_all(&mut *connection).await?;
    Ok(match follow(before, &rows, WRITTEN_MAX) {
        Some(changes) => Changes::numbered(sequence(before), changes),
        None => Changes::everything(sequence(before), sequence(newest(connection).await?)),
    })
}

/// The rows that are still there, up to a gap.
pub(super) async fn history(readers: &SqlitePool) -> sqlx::Result<History> {
    let limit = i64::try_from(ROWS_MAX).unwrap_or(i64::MAX);
    let rows: Vec<Row> = sqlx::query_as(READ_LATEST).bind(limit).fetch_all(readers).await?;
    Ok(latest(&rows))
}

/// The newest row comes first.
fn latest(rows: &[Row]) -> History {
    let newest = rows.first().map_or(0, |row| row.0);
    let numbers = (0..=newest).rev().zip(rows);
    let told = numbers.map_while(|(number, row)| change(row).filter(|_| row.0 == number));
    let mut changes: Vec<Change> = told.collect();
    changes.reverse();
    let count = u64::try_from(changes.len()).unwrap_or(u64::MAX);
    History { after: Sequence(sequence(newest).0.saturating_sub(count)), changes }
}

/// What the rows after `position` say; `None` if they cannot be relied on: some are missing, or there are too many.
fn follow(position: i64, rows: &[Row], rows_max: usize) -> Option<Vec<Change>> {
    let (known, new) = match rows {
        [first, new @ ..] if first.0 == position => (true, new),
        new => (false, new),
    };
    // The newest row is never pruned. Where even that is gone the file was replaced by an older copy.
    let replaced = new.is_empty() && !known && position != 0;
    let numbers = (position.saturating_add(1)..).zip(new);
    if replaced || new.len() > rows_max || numbers.clone().any(|(number, row)| row.0 != number) {
        return None;
    }
    numbers.map(|(_, row)| change(row)).collect()
}

/// `None`: a row that says nothing this program understands.
fn change(row: &Row) -> Option<Change> {
    match row {
        (_, Some(digest), None) => Some(Change::Credential(Digest(digest.as_slice().try_into().ok()?))),
        (_, None, Some(user)) => Some(Change::User(UserId(*user))),
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn row(sequence: i64) -> Row {
        (sequence, None, Some(sequence * 100))
    }

    fn follow(position: i64, rows: &[Row]) -> Option<Vec<Change>> {
        super::follow(position, rows, ROWS_MAX)
    }

    #[test]
    fn rows_in_sequence_are_followed() {
        let user = |id| Change::User(UserId(id));
        assert_eq!(follow(0, &[]), Some(vec![]), "nothing ever happened");
        assert_eq!(follow(4, &[row(4)]), Some(vec![]), "nothing new");
        assert_eq!(follow(4, &[row(4), row(5), row(6)]), Some(vec![user(500), user(600)]));
        assert_eq!(follow(4, &[row(5)]), Some(vec![user(500)]), "the row of the position was pruned");
    }

    #[test]
    fn missing_rows_void_everything() {
        assert_eq!(follow(4, &[row(6)]), None, "5 was pruned");
        assert_eq!(follow(4, &[row(4), row(5), row(7)]), None, "a hole");
        assert_eq!(follow(4, &[]), None, "the file was replaced by an older copy");
        assert_eq!(follow(4, &[row(4), (5, None, None)]), None, "a row of a later schema");
    }

    #[test]
    fn too_many_rows_void_everything() {
        let last = i64::try_from(ROWS_MAX).unwrap();
        let rows: Vec<Row> = (1..=last + 1).map(row).collect();
        assert!(follow(0, &rows[..ROWS_MAX]).is_some());
        assert_eq!(follow(0, &rows), None);
    }

    #[test]
    fn history_ends_at_a_gap() {
        let user = |id| Change::User(UserId(id));
        let of = |rows: &[Row]| latest(rows);
        assert_eq!(of(&[]), History { after: Sequence(0), changes: vec![] });
        assert_eq!(
            of(&[row(2), row(1)]),
            History { after: Sequence(0), changes: vec![user(100), user(200)] }
        );
        assert_eq!(
            of(&[row(9), row(8), row(6)]),
            History { after: Sequence(7), changes: vec![user(800), user(900)] }
        );
        assert_eq!(of(&[row(9), (8, None, None)]), History { after: Sequence(8), changes: vec![user(900)] });
    }
}
