//! What the databases' errors mean to the caller.
//!
//! The choice is by code, never by text. An error is logged, so it holds no value: of SQLite's messages none does, of
//! PostgreSQL's only the main one is kept, and of MySQL's none, since they quote what was to be written.

use crate::store::StoreError;
use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::mysql::MySqlDatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// Primary result codes of SQLite (sqlite.org/rescode.html) that say for certain that nothing was written.
const SQLITE_REFUSALS: &[i32] = &[BUSY, LOCKED, READONLY, FULL, CONSTRAINT];
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READONLY: i32 = 8;
const FULL: i32 = 13;
const CONSTRAINT: i32 = 19;

/// What PostgreSQL says when it is about to go, or cannot say whether anything was written (its appendix A): all else
/// that it answers is a refusal. Connection exceptions, too many connections, shutdown, system and internal errors.
const POSTGRES_AWAY: &[&str] = &["08", "53300", "57P", "58", "XX"];
/// The same of MySQL (its error reference): too many connections, access denied, shutdown, aborted or killed
/// connections, and a commit whose fate is unknown.
const MYSQL_AWAY: &[u16] =
    &[1040, 1044, 1045, 1053, 1077, 1079, 1152, 1184, 1203, 1317, 1927, 3100, 3101, 4031];

/// After these MySQL closes the connection.
const MYSQL_LAST: &[u16] = &[1053, 1077, 1079, 1152, 1184, 1927, 4031];

/// What a server said, without what it quotes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);

/// Why a read failed.
pub(in crate::store) fn unavailable(error: sqlx::Error) -> StoreError {
    use sqlx::Error::{ColumnDecode, ColumnNotFound, Decode};
    match &error {
        ColumnDecode { .. } | ColumnNotFound(_) | Decode(_) => StoreError::Unreadable(Box::new(error)),
        _ => StoreError::Unavailable(loggable(error)),
    }
}

/// Why a write failed before its commit, or was refused by it: a taken name, certainly nothing written, or nobody knows.
pub(in crate::store) fn not_written(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(database) if database.kind() == ErrorKind::UniqueViolation => {
            StoreError::Conflict
        }
        sqlx::Error::Database(database) if refuses(&**database) => StoreError::NotWritten(loggable(error)),
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => StoreError::NotWritten(Box::new(error)),
        // Only the commit can have been done though no answer came, and whoever commits does not ask here.
        sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::TimedOut => {
            StoreError::NotWritten(Box::new(error))
        }
        _ => unavailable(error),
    }
}

/// Whether the server said this as its last word: it is stopped, or has had enough of this connection.
pub(in crate::store) fn ends_connection(error: &dyn DatabaseError) -> bool {
    if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
        return MYSQL_LAST.contains(&error.number());
    }
    let postgres = error.try_downcast_ref::<PgDatabaseError>();
    postgres.is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}

/// Whether the database answered, and the answer was no.
fn refuses(error: &dyn DatabaseError) -> bool {
    if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
        return !MYSQL_AWAY.contains(&error.number());
    }
    let code = error.code().unwrap_or_default();
    if error.try_downcast_ref::<PgDatabaseError>().is_some() {
        return !POSTGRES_AWAY.iter().any(|away| code.starts_with(away));
    }
    // The code is the extended one, of which the low byte is the primary code.
    code.parse::<i32>().is_ok_and(|code| SQLITE_REFUSALS.contains(&(code & 0xff)))
}

fn loggable(error: sqlx::Error) -> Box<dyn std::error::Error + Send + Sync> {
    let sqlx::Error::Database(database) = &error else { return Box::new(error) };
    if let Some(error) = database.try_downcast_ref::<MySqlDatabaseError>() {
        let state = error.code().unwrap_or_default();
        return Box::new(Said(format!("MySQL's error {} ({state})", error.number())));
    }
    match database.try_downcast_ref::<PgDatabaseError>() {
        Some(error) => Box::new(Said(format!("{} ({})", error.message(), error.code()))),
        None => Box::new(error),
    }
}
