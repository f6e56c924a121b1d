//! What others committed to a server: the number of the newest change is looked at, and only if it moved, the rows.
//!
//! PostgreSQL also rings a bell at each commit, so that nobody waits for the next look. The bell may be lost or ring for
//! nothing: what is believed is only ever what was read.

use crate::store::own::changes::{
    ChangeRow, READ_POSITION, READ_ROWS, ROWS_MAX, follow_from, limit, rows, sequence,
};
use crate::store::sql::error::unavailable;
use crate::store::sql::{Database, values};
use crate::store::{ChangeFeed, Changes, StoreError, StoreFuture};
use sqlx::postgres::PgListener;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// What the triggers notify.
const CHANNEL: &str = "doorward_change";
/// Between two attempts to have a bell.
const BELL_INTERVAL: Duration = Duration::from_secs(5);

/// Reads the table of changes from where it stopped.
#[derive(Debug)]
pub(super) struct Feed {
    database: Database,
    /// Number of the last row read; 0: none.
    position: i64,
    /// What that row said. `None`: there is none.
    last: Option<ChangeRow>,
    bell: Bell,
}

impl Feed {
    /// Starts after the newest row.
    pub(super) async fn open(database: &Database) -> Result<Self, StoreError> {
        let database = database.aside();
        let bell = Bell::new(&database);
        let (position, last) = newest(&database).await?;
        Ok(Self { database, position, last, bell })
    }

    async fn read(&mut self) -> Result<Changes, StoreError> {
        let (position, before) = (self.position, sequence(self.position));
        // The row of the position is read again each time: what it says must still be the same.
        let found = self.database.read(READ_ROWS, values![position, limit(ROWS_MAX)]).await?;
        let found = rows(&found).map_err(unavailable)?;
        if let Some(changes) = follow_from(position, self.last.as_ref(), &found, ROWS_MAX) {
            if let Some(last) = found.into_iter().next_back() {
                (self.position, self.last) = (last.sequence, Some(last));
            }
            return Ok(Changes::numbered(before, changes));
        }
        (self.position, self.last) = newest(&self.database).await?;
        Ok(Changes::everything(before, sequence(self.position)))
    }
}

/// Number of the newest change, 0: there never was one; and its row, by which it is known again.
async fn newest(database: &Database) -> Result<(i64, Option<ChangeRow>), StoreError> {
    let row = database.find(READ_POSITION, values![]).await?;
    let position = row.map_or(Ok(0), |row| row.integer("newest").map_err(unavailable))?;
    let found = database.read(READ_ROWS, values![position, 1_i64]).await?;
    let first = rows(&found).map_err(unavailable)?.into_iter().next();
    Ok((position, first.filter(|row| row.sequence == position)))
}

impl ChangeFeed for Feed {
    fn changes(&mut self) -> StoreFuture<'_, Changes> {
        let wait = self.database.read_wait();
        Box::pin(async move {
            match tokio::time::timeout(wait, self.read()).await {
                Ok(changes) => changes,
                Err(late) => Err(StoreError::Unavailable(Box::new(late))),
            }
        })
    }

    /// Its connections are made as they are needed, and the row where it stopped says whether it is the same store.
    fn outlasts_failures(&self) -> bool {
        true
    }

    fn wait(&mut self, at_most: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.bell.wait(Instant::now() + at_most))
    }
}

/// Rings when somebody committed a change, if there is a bell at all.
#[derive(Debug)]
struct Bell {
    database: Database,
    listener: Option<PgListener>,
    /// When to ask for one again.
    retry_at: Instant,
}

impl Bell {
    fn new(database: &Database) -> Self {
        Self { database: database.clone(), listener: None, retry_at: Instant::now() }
    }

    /// Returns when it rang, at the latest at `until`.
    async fn wait(&mut self, until: Instant) {
        if self.listener.is_none() && Instant::now() >= self.retry_at {
            self.retry_at = Instant::now() + BELL_INTERVAL;
            // What is committed before anybody listens is found by the next look.
            self.listener = timeout_at(until, self.database.listen(CHANNEL)).await.ok().flatten();
            if self.listener.is_some() {
                return;
            }
        }
        let Some(listener) = &mut self.listener else { return sleep_until(until).await };
        match timeout_at(until, listener.try_recv()).await {
            Ok(Ok(Some(_))) => {
                // However often it rang, one look is enough.
                while listener.next_buffered().is_some() {}
            }
            Ok(Ok(None) | Err(_)) => {
                self.listener = None;
                sleep_until(until).await;
            }
            Err(_) => {}
        }
    }
}
