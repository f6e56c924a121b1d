//! An existing Django database as it is, beside a store of our own for what is not Django's.
//!
//! Users, groups, keys of DRF and sessions are read from Django's tables, and written where its own code would write
//! them. Nothing about the schema is changed, unless `doorward django triggers` is told to, and no mode of the file. Rows
//! are Django's: whatever ends or replaces one reads it again first, with its user, under the lock of the write.
//!
//! Tokens that doorward issues are in the own store, where each user of Django's who has one is mirrored under the
//! same id; who the user is and whether active is asked of Django every time.

mod hear;
mod keys;
mod manage;
mod means;
mod own;
mod sessions;
mod statements;
mod together;
pub mod triggers;
mod users;
mod watch;

use crate::clock::UnixSeconds;
use crate::config::UserTable;
use crate::django;
use crate::identity::Digest;
use crate::store::django::means::{Means, Shown};
use crate::store::django::statements::{NEWEST_SESSIONS, PROBE_KEYS, PROBE_SESSIONS, Statement, Statements};
use crate::store::django::triggers::Wanted;
use crate::store::django::users::read_row;
use crate::store::django::watch::Listening;
use crate::store::manage::TokenBatch;
use crate::store::own::Own;
use crate::store::sql::error::unavailable;
use crate::store::sql::{Database, Row, ServerOptions, ServerUrl, values};
use crate::store::sqlite::{Pools, SqliteOptions};
use crate::store::{ChangeFeed, NewToken, Store, StoreError, StoreFuture, Written};
use std::path::Path;
use std::sync::Arc;

/// SQLite's code of a file that is none of its own (sqlite.org/rescode.html).
const SQLITE_NOTADB: &str = "26";

/// How Django's tables are used.
#[derive(Debug)]
pub struct DjangoSettings {
    /// Signs and reads sessions.
    pub keys: django::Keys,
    /// `AUTHENTICATION_BACKENDS`: sessions of others name nobody, and new ones name the first.
    pub backends: Vec<String>,
    /// Where users are.
    pub user: UserTable,
    /// Keys of DRF are asked for.
    pub needs_keys: bool,
    /// Sessions are asked for.
    pub needs_sessions: bool,
}

/// The adopted database and the own one.
#[derive(Debug)]
pub struct Django {
    database: Database,
    own: Own,
    statements: Statements,
    settings: DjangoSettings,
    /// `None`: this database says nothing of its own accord.
    listening: Option<Arc<Listening>>,
}

impl Django {
    /// Opens the file, which must be there, and looks whether it has the tables and columns that are needed.
    ///
    /// # Errors
    /// [`StoreError::NotAdoptable`] if it lacks one, or if the own store has users of its own; else
    /// [`StoreError::Unavailable`].
    pub async fn open(
        path: &Path,
        options: SqliteOptions,
        own: Own,
        settings: DjangoSettings,
        now: UnixSeconds,
    ) -> Result<Self, StoreError> {
        check_own(&own).await?;
        if !path.exists() {
            return Err(StoreError::NotAdoptable("there is no such file".to_owned()));
        }
        let pools = Box::pin(Pools::adopt(path, &options)).await.map_err(not_a_database)?;
        Box::pin(Self::adopt(Database::Sqlite(Box::new(pools)), own, settings, now)).await
    }

    /// The same on a server.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn connect(
        url: &ServerUrl,
        options: &ServerOptions,
        own: Own,
        settings: DjangoSettings,
        now: UnixSeconds,
    ) -> Result<Self, StoreError> {
        check_own(&own).await?;
        Box::pin(Self::adopt(Database::server(url, options)?, own, settings, now)).await
    }

    async fn adopt(
        database: Database,
        own: Own,
        settings: DjangoSettings,
        now: UnixSeconds,
    ) -> Result<Self, StoreError> {
        let statements = Statements::new(&settings.user);
        let mut adopted = Self { database, own, statements, settings, listening: None };
        adopted.probe().await?;
        adopted.look_at_signatures(now).await?;
        if let Database::Postgres(_) = &adopted.database {
            let DjangoSettings { user, needs_keys, needs_sessions, .. } = &adopted.settings;
            let wanted = Wanted::of(user, *needs_keys, *needs_sessions);
            let fault = wanted.look(&adopted.database).await?.fault;
            let shown = Shown::new(fault.map_or(Means::Told, Means::from));
            adopted.listening = Some(Arc::new(Listening { wanted, shown }));
        }
        Ok(adopted)
    }

    /// Tables and columns that there have to be.
    async fn probe(&self) -> Result<(), StoreError> {
        let Statements { probe_groups, .. } = &self.statements;
        let groups = probe_groups.as_ref().map(|probe| ("auth_group", probe.clone()));
        let keys = self.settings.needs_keys.then(|| ("authtoken_token", Statement::from(PROBE_KEYS)));
        let sessions =
            self.settings.needs_sessions.then(|| ("django_session", Statement::from(PROBE_SESSIONS)));
        self.probe_users().await?;
        for (table, probe) in [groups, keys, sessions].into_iter().flatten() {
            self.look(&probe).await?.map_err(|error| not_readable(table, error))?;
        }
        Ok(())
    }

    /// Asks, and says apart what the database answers and that it cannot be asked.
    async fn look(&self, statement: &str) -> Result<sqlx::Result<Vec<Row>>, StoreError> {
        self.database
            .bounded(async {
                let mut link = self.database.reader().await.map_err(unavailable)?;
                Ok(link.all(statement, values![]).await)
            })
            .await
    }

    /// One user is enough to see that the columns hold what they should.
    async fn probe_users(&self) -> Result<(), StoreError> {
        let UserTable { table, id, .. } = &self.settings.user;
        let rows = self.look(&self.statements.probe_users).await?;
        match rows.and_then(|rows| rows.first().map(read_row).transpose()) {
            Ok(_) => Ok(()),
            Err(sqlx::Error::ColumnDecode { index, .. }) if index.contains("id") => {
                let text =
                    format!("{table} has a column {id} that is no number: such users are not supported");
                Err(StoreError::NotAdoptable(text))
            }
            Err(error) => Err(not_readable(table, error)),
        }
    }

    /// With another `SECRET_KEY` than Django's every session would be nobody's, and nobody would know why.
    async fn look_at_signatures(&self, now: UnixSeconds) -> Result<(), StoreError> {
        if !self.settings.needs_sessions {
            return Ok(());
        }
        let rows = self.database.read(NEWEST_SESSIONS, values![sessions::datetime(now)]).await?;
        let rows = rows.iter().map(|row| row.text("session_data")).collect::<sqlx::Result<Vec<_>>>();
        let rows = rows.map_err(unavailable)?;
        let is_signed = |data: &String| django::decode(data, &self.settings.keys).is_some();
        if !rows.is_empty() && !rows.iter().any(is_signed) {
            tracing::warn!(
                sessions = rows.len(),
                "none of the newest sessions is signed with secret_key: is it Django's SECRET_KEY?"
            );
        }
        Ok(())
    }
}

impl Store for Django {
    fn change_feed(&self) -> StoreFuture<'_, Box<dyn ChangeFeed>> {
        Box::pin(async {
            let feed = watch::Feed::open(&self.database, self.listening.as_ref(), &self.own).await?;
            Ok(Box::new(feed) as Box<dyn ChangeFeed>)
        })
    }

    fn leaves_changes_unnamed(&self) -> bool {
        true
    }

    fn found_by(&self) -> &'static str {
        match (&self.database, &self.listening) {
            (_, Some(listening)) => listening.shown.now().describe(),
            (Database::Sqlite(_), None) => {
                "a look at the file each 100 ms; what was confirmed before a change is asked for again"
            }
            _ => "no look at all: what is in use is asked for again each 300 ms",
        }
    }

    fn insert_canary(&self, token: NewToken) -> StoreFuture<'_, Written<()>> {
        Box::pin(async {
            let Written { value, changes } = self.own.insert_canary(token).await?;
            Ok(Written { value, changes: changes.without_numbers() })
        })
    }

    fn insert_canaries(&self, batch: TokenBatch) -> StoreFuture<'_, Written<()>> {
        Box::pin(async {
            let Written { value, changes } = self.own.insert_canaries(batch).await?;
            Ok(Written { value, changes: changes.without_numbers() })
        })
    }

    fn delete_canaries(&self, digests: Vec<Digest>) -> StoreFuture<'_, Written<u64>> {
        Box::pin(async move {
            let Written { value, changes } = self.own.delete_canaries(&digests).await?;
            Ok(Written { value, changes: changes.without_numbers() })
        })
    }

    fn prune(&self, now: UnixSeconds) -> StoreFuture<'_, ()> {
        // Django's expired sessions are Django's to clear.
        self.own.prune(now)
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            self.database.close().await;
            self.own.close().await;
            Ok(())
        })
    }
}

/// What SQLite says of a file at its first look.
fn not_a_database(error: StoreError) -> StoreError {
    if let StoreError::Unavailable(source) = &error
        && let Some(sqlx::Error::Database(source)) = source.downcast_ref::<sqlx::Error>()
        && source.code().as_deref() == Some(SQLITE_NOTADB)
    {
        return StoreError::NotAdoptable(source.message().to_owned());
    }
    error
}

/// SQLite names the table or column, and nothing of what is in it.
fn not_readable(table: &str, error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(_) | sqlx::Error::ColumnDecode { .. } => {
            StoreError::NotAdoptable(format!("{table} cannot be read: {error}"))
        }
        error => unavailable(error),
    }
}

/// Tokens of doorward's own users would be Django's users' tokens there.
async fn check_own(own: &Own) -> Result<(), StoreError> {
    if own.has_users_of_its_own().await? {
        let text = "the own store has users that are not Django's; give [store.own] another database";
        return Err(StoreError::NotAdoptable(text.to_owned()));
    }
    Ok(())
}
