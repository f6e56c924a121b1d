//! Opens the file: its mode, its settings, its schema.
//!
//! The schema is compared before it is touched, in that order: a program that is too old must leave the file as it
//! is, and one that is up to date must start although another process holds the write lock. All steps of a migration
//! are one transaction under the write lock, so two processes that start at once do not do it twice.

use crate::store::StoreError;
use crate::store::sql::error::{not_written, unavailable};
use crate::store::sqlite::watched::Watched;
use crate::store::sqlite::{Pools, SqliteOptions};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _};
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

/// Steps from an empty file to the schema of this program.
static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Opens the file and brings the schema up to date.
pub(super) async fn open(path: &Path, options: SqliteOptions) -> Result<Pools, StoreError> {
    make_file(path)?;
    refuse_others(path, &options).await?;
    let connect = connect_options(path, &options).journal_mode(SqliteJournalMode::Wal);
    let file = Arc::new(Watched::new(path));
    let writer = writer_pool(&connect, &options, &file).await.map_err(unavailable)?;
    update_schema(&writer).await?;
    let connect = connect.read_only(true);
    let readers = reader_pool(&connect, &options, &file).await.map_err(unavailable)?;
    Ok(Pools { readers, writer, connect, read_wait: options.read_wait, file })
}

/// Opens a file that somebody else made. Its journal stays what it is: that is a property of the file, not of a
/// connection.
pub(super) async fn adopt(path: &Path, options: &SqliteOptions) -> Result<Pools, StoreError> {
    let connect = connect_options(path, options);
    let file = Arc::new(Watched::new(path));
    let writer = writer_pool(&connect, options, &file).await.map_err(unavailable)?;
    let connect = connect.read_only(true);
    let readers = reader_pool(&connect, options, &file).await.map_err(unavailable)?;
    Ok(Pools { readers, writer, connect, read_wait: options.read_wait, file })
}

/// A file with tables of another program is not even put into our journal mode.
async fn refuse_others(path: &Path, options: &SqliteOptions) -> Result<(), StoreError> {
    let connect = connect_options(path, options).read_only(true);
    // What cannot be looked at cannot be opened either, and says there why.
    let Ok(mut connection) = connect.connect().await else { return Ok(()) };
    let look = sqlx::query_as::<_, (i64, i64)>(OWNERS).fetch_one(&mut connection).await;
    connection.close().await.unwrap_or_default();
    if let Ok((0, 1..)) = look {
        let text = "it has tables of another program; give doorward a file of its own";
        return Err(StoreError::NotAdoptable(text.to_owned()));
    }
    Ok(())
}

/// Tables that say whose the file is: our list of migrations, and all.
const OWNERS: &str = "SELECT count(*) FILTER (WHERE name = '_sqlx_migrations'), count(*) FROM sqlite_schema
    WHERE type = 'table' AND name NOT LIKE 'sqlite|_%' ESCAPE '|'";

/// Makes an empty file that only its owner may read; SQLite gives the files beside it the same mode.
///
/// A file that exists is not even opened: closing it would end the locks that SQLite has on it in this process
/// (sqlite.org/howtocorrupt.html, section 2.2).
fn make_file(path: &Path) -> Result<(), StoreError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::Unavailable(Box::new(error))),
    }
}

/// Settings of every connection.
fn connect_options(path: &Path, options: &SqliteOptions) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(options.write_wait)
        .pragma("mmap_size", options.mmap_bytes.to_string())
        .disable_statement_logging()
}

/// One connection, kept for ever.
async fn writer_pool(
    connect: &SqliteConnectOptions,
    options: &SqliteOptions,
    file: &Arc<Watched>,
) -> sqlx::Result<SqlitePool> {
    let file = Arc::clone(file);
    SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(options.write_wait)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        // SQLite ends a transaction by itself when the disk is full. sqlx 0.9 does not learn of it, and its
        // count of open transactions stays above zero, where no write can begin. Such a connection is replaced.
        .before_acquire(move |connection, about| {
            let is_good = file.is_of_now(about.age) && !connection.is_in_transaction();
            Box::pin(async move { Ok(is_good) })
        })
        .connect_with(connect.clone())
        .await
}

/// Connections that cannot write, opened now, so that want of file descriptors later does not matter.
async fn reader_pool(
    connect: &SqliteConnectOptions,
    options: &SqliteOptions,
    file: &Arc<Watched>,
) -> sqlx::Result<SqlitePool> {
    let file = Arc::clone(file);
    SqlitePoolOptions::new()
        .max_connections(options.readers.get())
        .min_connections(options.readers.get())
        .acquire_timeout(options.read_wait)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .before_acquire(move |_, about| {
            let is_good = file.is_of_now(about.age);
            Box::pin(async move { Ok(is_good) })
        })
        .connect_with(connect.clone())
        .await
}

/// Compares the schema with this program's and takes the missing steps.
async fn update_schema(writer: &SqlitePool) -> Result<(), StoreError> {
    let wanted = MIGRATIONS.iter().map(|step| step.version).max();
    let found = schema_version(writer).await.map_err(unavailable)?;
    if found > wanted {
        return Err(StoreError::SchemaNewer);
    }
    if found == wanted {
        return Ok(());
    }
    let mut write = writer.begin_with("BEGIN IMMEDIATE").await.map_err(not_written)?;
    // Not `run`: the compiler cannot see that its future is `Send`.
    MIGRATIONS.run_direct(None, &mut *write, false).await.map_err(migration_failed)?;
    write.commit().await.map_err(not_written)
}

/// The last step taken. `None`: the file is new.
async fn schema_version(writer: &SqlitePool) -> sqlx::Result<Option<i64>> {
    let table = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = '_sqlx_migrations'";
    if sqlx::query_scalar::<_, i64>(table).fetch_one(writer).await? == 0 {
        return Ok(None);
    }
    sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations").fetch_one(writer).await
}

/// Why the steps could not be taken; all are rolled back.
fn migration_failed(error: MigrateError) -> StoreError {
    match error {
        // Another process, newer, was faster.
        MigrateError::VersionMissing(_) => StoreError::SchemaNewer,
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => not_written(error),
        other => StoreError::Unavailable(Box::new(other)),
    }
}
