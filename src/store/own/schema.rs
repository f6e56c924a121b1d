//! The schema on a server: made, brought up to date, or refused.
//!
//! It is compared before it is touched: a program that is too old must leave it as it is, and one that is up to date
//! must start although somebody else holds a lock. Two processes that start at once do not do it twice: each holds the
//! migrator's own lock while it looks again and takes the steps. In PostgreSQL all steps are one transaction. MySQL
//! commits each statement that makes a table, so its steps can be taken again from the start.

use crate::store::StoreError;
use crate::store::sql::error::{not_written, unavailable};
use crate::store::sql::link::Link;
use crate::store::sql::text::Dialect;
use crate::store::sql::{Database, values};
use sqlx::migrate::{MigrateError, Migrator};

static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");
static MYSQL: Migrator = sqlx::migrate!("migrations/mysql");

/// Where tables are made; NULL: nowhere.
const PLACE: &str = "SELECT {place} AS place";
/// Tables that say whose the database is: our list of migrations with our numbers beside it, and all.
const OWNERS_MYSQL: &str = "SELECT
        count(CASE WHEN table_name IN ('_sqlx_migrations', 'change_counter') THEN 1 END) AS ours, count(*) AS tables
    FROM information_schema.tables WHERE table_schema = {place} AND table_type = 'BASE TABLE'";
/// The standard's view has no tables that one may not read.
const OWNERS_POSTGRES: &str = "SELECT
        count(CASE WHEN relname IN ('_sqlx_migrations', 'change_counter') THEN 1 END) AS ours, count(*) AS tables
    FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p') AND relnamespace =
        (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = {place})";
const VERSION: &str = "SELECT max(version) AS version, min(CASE WHEN success THEN 1 ELSE 0 END) AS is_clean
    FROM _sqlx_migrations";
/// A step of MySQL that was not taken to its end.
const FORGET_UNFINISHED: &str = "DELETE FROM _sqlx_migrations WHERE NOT success";

/// What is there.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// The last step, and whether all were taken to their end.
    Steps(i64, bool),
}

/// Compares the schema with this program's and takes the missing steps.
pub(super) async fn update(database: &Database) -> Result<(), StoreError> {
    let steps = match database.dialect() {
        Dialect::MySql => &MYSQL,
        Dialect::Postgres | Dialect::Sqlite => &POSTGRES,
    };
    let wanted = steps.iter().map(|step| step.version).max().unwrap_or_default();
    let found =
        database.bounded(async { look(&mut database.reader().await.map_err(unavailable)?).await }).await?;
    match found {
        Found::Steps(last, _) if last > wanted => Err(StoreError::SchemaNewer),
        Found::Steps(last, true) if last == wanted => Ok(()),
        _ => migrate(database, steps).await,
    }
}

async fn look(link: &mut Link) -> Result<Found, StoreError> {
    if link
        .one(PLACE, values![])
        .await
        .map_err(unavailable)?
        .is_none_or(|row| row.optional_text("place").is_ok_and(|place| place.is_none()))
    {
        let text = "the URL names no database, or no schema that is there";
        return Err(StoreError::NotAdoptable(text.to_owned()));
    }
    let owners = match link.dialect() {
        Dialect::MySql => OWNERS_MYSQL,
        Dialect::Postgres | Dialect::Sqlite => OWNERS_POSTGRES,
    };
    let owners = link.one(owners, values![]).await.map_err(unavailable)?;
    let count = |name| owners.as_ref().map_or(Ok(0), |row| row.integer(name)).map_err(unavailable);
    match (count("ours")?, count("tables")?) {
        (0, 0) => return Ok(Found::Nothing),
        (0, _) | (1, 2..) => {
            let text = "it has tables of another program; give doorward a database or schema of its own";
            return Err(StoreError::NotAdoptable(text.to_owned()));
        }
        _ => {}
    }
    let row = link.one(VERSION, values![]).await.map_err(unavailable)?;
    let Some(row) = row else { return Ok(Found::Nothing) };
    let version = row.optional_integer("version").map_err(unavailable)?;
    let is_clean = row.optional_integer("is_clean").map_err(unavailable)?.is_some_and(|clean| clean > 0);
    Ok(version.map_or(Found::Nothing, |version| Found::Steps(version, is_clean)))
}

async fn migrate(database: &Database, steps: &Migrator) -> Result<(), StoreError> {
    let mut link = database.lock_schema().await?;
    // Another process may have been faster, and may be newer.
    let wanted = steps.iter().map(|step| step.version).max().unwrap_or_default();
    match look(&mut link).await? {
        Found::Steps(last, _) if last > wanted => return Err(StoreError::SchemaNewer),
        Found::Steps(_, false) if link.dialect() == Dialect::MySql => {
            link.run(FORGET_UNFINISHED, values![]).await.map_err(not_written)?;
        }
        _ => {}
    }
    link.migrate(steps).await.map_err(migration_failed)?;
    database.unlock_schema(link).await
}

/// Why the steps could not be taken.
fn migration_failed(error: MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(_) => StoreError::SchemaNewer,
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => not_written(error),
        other => StoreError::Unavailable(Box::new(other)),
    }
}
