//! A write to our own tables: one transaction, whose changes are read back before it is committed.

use crate::store::sqlite::error::not_written;
use crate::store::sqlite::{Sqlite, feed};
use crate::store::{StoreError, Written};
use sqlx::{Sqlite as Driver, SqliteConnection, Transaction};
use std::ops::{Deref, DerefMut};

/// A transaction under the write lock. Dropped without a commit, it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Write {
    transaction: Transaction<'static, Driver>,
    /// Number of the newest change when the lock was taken: later ones are our own.
    before: i64,
}

impl Sqlite {
    /// Starts a write.
    pub(super) async fn write(&self) -> Result<Write, StoreError> {
        let mut transaction = self.pools.write().await?;
        let before = feed::newest(&mut transaction).await.map_err(not_written)?;
        Ok(Write { transaction, before })
    }
}

impl Write {
    /// Makes it last, and tells what it made void.
    pub(super) async fn commit<T>(mut self, value: T) -> Result<Written<T>, StoreError> {
        let changes = feed::since(&mut self.transaction, self.before).await.map_err(not_written)?;
        self.transaction.commit().await.map_err(not_written)?;
        Ok(Written { value, changes })
    }
}

impl Deref for Write {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.transaction
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }
}
