//! What SQLite's errors mean to the caller.
//!
//! The choice is by result code, never by text. None of SQLite's messages holds a value, so an error may be logged.

use crate::store::StoreError;
use sqlx::error::{DatabaseError, ErrorKind};

/// Primary result codes (sqlite.org/rescode.html) that say for certain that nothing was written.
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READONLY: i32 = 8;
const FULL: i32 = 13;
const CONSTRAINT: i32 = 19;

/// Why a read failed.
pub(in crate::store) fn unavailable(error: sqlx::Error) -> StoreError {
    use sqlx::Error::{ColumnDecode, ColumnNotFound, Decode};
    match &error {
        ColumnDecode { .. } | ColumnNotFound(_) | Decode(_) => StoreError::Unreadable(Box::new(error)),
        _ => StoreError::Unavailable(Box::new(error)),
    }
}

/// Why a write failed: a taken name, certainly nothing written, or nobody knows.
pub(in crate::store) fn not_written(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(database) if database.kind() == ErrorKind::UniqueViolation => {
            StoreError::Conflict
        }
        sqlx::Error::Database(database) if refuses(&**database) => StoreError::NotWritten(Box::new(error)),
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => StoreError::NotWritten(Box::new(error)),
        _ => unavailable(error),
    }
}

/// The code is the extended one, of which the low byte is the primary code.
fn primary_code(error: &dyn DatabaseError) -> i32 {
    error.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or_default() & 0xff
}

/// Whether the database answered, and the answer was no.
fn refuses(error: &dyn DatabaseError) -> bool {
    matches!(primary_code(error), BUSY | LOCKED | READONLY | FULL | CONSTRAINT)
}
