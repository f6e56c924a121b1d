//! A write to our own tables: one transaction, whose changes are read back before it is committed.
//!
//! The lock comes first, in each database: `BEGIN IMMEDIATE`, or the row that holds the number of the newest change.
//! So writers are one after the other, in the order of their numbers, and none waits for another one who waits for it.

use crate::store::own::Own;
use crate::store::own::changes::{newest, since};
use crate::store::sql::error::not_written;
use crate::store::sql::text::Dialect;
use crate::store::sql::{Link, values};
use crate::store::{StoreError, Written};
use std::ops::{Deref, DerefMut};

const LOCK: &str = "SELECT newest FROM change_counter FOR UPDATE";

/// A transaction under the lock. Dropped without a commit, it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Write {
    link: Link,
    /// Number of the newest change when the lock was taken: later ones are our own.
    before: i64,
}

impl Own {
    /// Starts a write.
    pub(super) async fn write(&self) -> Result<Write, StoreError> {
        let mut link = self.database.begin().await?;
        let before = lock(&mut link).await.map_err(not_written)?;
        Ok(Write { link, before })
    }
}

async fn lock(link: &mut Link) -> sqlx::Result<i64> {
    match link.dialect() {
        Dialect::Sqlite => newest(link).await,
        Dialect::Postgres | Dialect::MySql => {
            let row = link.one(LOCK, values![]).await?;
            row.ok_or(sqlx::Error::RowNotFound)?.integer("newest")
        }
    }
}

impl Write {
    /// Makes it last, and tells what it made void.
    pub(super) async fn commit<T>(mut self, value: T) -> Result<Written<T>, StoreError> {
        let changes = since(&mut self.link, self.before).await.map_err(not_written)?;
        self.link.commit().await?;
        Ok(Written { value, changes })
    }
}

impl Deref for Write {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.link
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut Link {
        &mut self.link
    }
}
