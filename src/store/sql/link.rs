//! A connection to one of the three, and what it is asked.

use crate::store::StoreError;
use crate::store::sql::error::{not_written, unavailable};
use crate::store::sql::pool::Lease;
use crate::store::sql::text::{Dialect, Translated, translate};
use crate::store::sql::{Row, Value, mysql, postgres};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::{
    AssertSqlSafe, MySql, MySqlConnection, PgConnection, Postgres, Sqlite, SqliteConnection, Transaction,
};
use std::io;
use std::time::Duration;
use tokio::time::timeout;

/// A connection that is one caller's.
#[derive(Debug)]
pub(in crate::store) struct Link {
    pub(super) to: To,
    /// How long an answer is waited for. `None`: without end.
    pub(super) patience: Option<Duration>,
}

/// Where it leads.
#[derive(Debug)]
pub(super) enum To {
    /// To read.
    Sqlite(PoolConnection<Sqlite>),
    /// To read or write at one moment.
    SqliteAtOnce(Transaction<'static, Sqlite>),
    Postgres(Lease<PgConnection>),
    MySql(Lease<MySqlConnection>),
}

/// A query with its values, in their order or in that of their places.
macro_rules! query {
    ($database:ty, $translated:expr, $values:expr) => {{
        let Translated { text, order } = $translated;
        let mut query = sqlx::query::<$database>(AssertSqlSafe(text));
        let order = order.unwrap_or_else(|| (0..$values.len()).collect());
        for value in order.iter().filter_map(|place| $values.get(*place)) {
            query = match value {
                Value::Integer(value) => query.bind(*value),
                Value::Text(value) => query.bind(value.clone()),
                Value::Bytes(value) => query.bind(value.clone()),
                Value::Boolean(value) => query.bind(*value),
            };
        }
        query
    }};
}

impl To {
    fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) | Self::SqliteAtOnce(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
            Self::MySql(_) => Dialect::MySql,
        }
    }

    async fn run(&mut self, text: &str, values: &[Value]) -> sqlx::Result<u64> {
        let translated = translate(self.dialect(), text);
        match self {
            Self::Sqlite(connection) => run_sqlite(connection, translated, values).await,
            Self::SqliteAtOnce(transaction) => run_sqlite(transaction, translated, values).await,
            Self::Postgres(lease) => {
                let done = query!(Postgres, translated, values).execute(lease.ask()?).await;
                Ok(lease.answered(done)?.rows_affected())
            }
            Self::MySql(lease) => {
                let done = query!(MySql, translated, values).execute(lease.ask()?).await;
                Ok(lease.answered(done)?.rows_affected())
            }
        }
    }

    async fn all(&mut self, text: &str, values: &[Value]) -> sqlx::Result<Vec<Row>> {
        let translated = translate(self.dialect(), text);
        match self {
            Self::Sqlite(connection) => all_sqlite(connection, translated, values).await,
            Self::SqliteAtOnce(transaction) => all_sqlite(transaction, translated, values).await,
            Self::Postgres(lease) => {
                let rows = query!(Postgres, translated, values).fetch_all(lease.ask()?).await;
                Ok(lease.answered(rows)?.into_iter().map(Row::Postgres).collect())
            }
            Self::MySql(lease) => {
                let rows = query!(MySql, translated, values).fetch_all(lease.ask()?).await;
                Ok(lease.answered(rows)?.into_iter().map(Row::MySql).collect())
            }
        }
    }

    /// Statements that have no values, not prepared: some may not be.
    pub(super) async fn say(&mut self, text: String) -> sqlx::Result<()> {
        let text = sqlx::raw_sql(AssertSqlSafe(text));
        match self {
            Self::Sqlite(connection) => text.execute(&mut **connection).await.map(drop),
            Self::SqliteAtOnce(transaction) => text.execute(&mut **transaction).await.map(drop),
            Self::Postgres(lease) => {
                let done = text.execute(lease.ask()?).await;
                lease.answered(done).map(drop)
            }
            Self::MySql(lease) => {
                let done = text.execute(lease.ask()?).await;
                lease.answered(done).map(drop)
            }
        }
    }

    pub(super) fn set_open(&mut self, is_open: bool) {
        match self {
            Self::Sqlite(_) | Self::SqliteAtOnce(_) => {}
            Self::Postgres(lease) => lease.set_open(is_open),
            Self::MySql(lease) => lease.set_open(is_open),
        }
    }
}

async fn run_sqlite(to: &mut SqliteConnection, text: Translated, values: &[Value]) -> sqlx::Result<u64> {
    Ok(query!(Sqlite, text, values).execute(to).await?.rows_affected())
}

async fn all_sqlite(to: &mut SqliteConnection, text: Translated, values: &[Value]) -> sqlx::Result<Vec<Row>> {
    Ok(query!(Sqlite, text, values).fetch_all(to).await?.into_iter().map(Row::Sqlite).collect())
}

/// Waits no longer than that.
async fn within<T>(
    patience: Option<Duration>,
    answer: impl Future<Output = sqlx::Result<T>> + Send,
) -> sqlx::Result<T> {
    match patience {
        None => answer.await,
        Some(patience) => timeout(patience, answer)
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())),
    }
}

impl Link {
    /// Runs a statement; yields how many rows it found to change.
    pub(in crate::store) async fn run(&mut self, text: &str, values: Vec<Value>) -> sqlx::Result<u64> {
        within(self.patience, Box::pin(self.to.run(text, &values))).await
    }

    /// All rows of a query.
    pub(in crate::store) async fn all(&mut self, text: &str, values: Vec<Value>) -> sqlx::Result<Vec<Row>> {
        // One of three drivers, each with a large future.
        within(self.patience, Box::pin(self.to.all(text, &values))).await
    }

    /// The only row of a query, if there is one.
    pub(in crate::store) async fn one(
        &mut self,
        text: &str,
        values: Vec<Value>,
    ) -> sqlx::Result<Option<Row>> {
        Ok(self.all(text, values).await?.into_iter().next())
    }

    /// Statements without values.
    pub(in crate::store) async fn say(&mut self, text: &'static str) -> sqlx::Result<()> {
        self.run_script(text.to_owned()).await
    }

    /// The same, of names that the configuration has checked and the database has given.
    pub(in crate::store) async fn run_script(&mut self, text: String) -> sqlx::Result<()> {
        within(self.patience, self.to.say(text)).await
    }

    /// Makes what was written last. An answer that does not come is [`StoreError::Unavailable`]: nobody knows.
    pub(in crate::store) async fn commit(self) -> Result<(), StoreError> {
        let Self { mut to, patience } = self;
        if let To::SqliteAtOnce(transaction) = to {
            return transaction.commit().await.map_err(not_written);
        }
        match within(patience, to.say("COMMIT".to_owned())).await {
            Ok(()) => {
                to.set_open(false);
                Ok(())
            }
            Err(refused @ sqlx::Error::Database(_)) => Err(not_written(refused)),
            Err(lost) => Err(unavailable(lost)),
        }
    }

    /// Whose statements it reads.
    pub(in crate::store) fn dialect(&self) -> Dialect {
        self.to.dialect()
    }

    /// Takes the steps of a schema that are missing.
    pub(in crate::store) async fn migrate(&mut self, steps: &Migrator) -> Result<(), MigrateError> {
        // Not `run`: the compiler cannot see that its future is `Send`. Each holds a lock of ours.
        match &mut self.to {
            To::Sqlite(connection) => steps.run_direct(None, &mut **connection, false).await,
            To::SqliteAtOnce(transaction) => steps.run_direct(None, &mut **transaction, false).await,
            To::Postgres(lease) => {
                steps.run_direct(None, lease.ask()?, false).await?;
                Ok(lease.answered(Ok(()))?)
            }
            To::MySql(lease) => {
                steps.run_direct(None, lease.ask()?, false).await?;
                Ok(lease.answered(Ok(()))?)
            }
        }
    }

    /// Whether it had lain idle, and was found dead.
    pub(super) fn is_dead(&self) -> bool {
        match &self.to {
            To::Sqlite(_) | To::SqliteAtOnce(_) => false,
            To::Postgres(lease) => lease.is_dead(),
            To::MySql(lease) => lease.is_dead(),
        }
    }

    /// From now on answers may take any time.
    pub(super) async fn be_patient(&mut self) -> sqlx::Result<()> {
        match self.dialect() {
            Dialect::Sqlite => {}
            Dialect::Postgres => self.say(postgres::PATIENT).await?,
            Dialect::MySql => self.say(mysql::PATIENT).await?,
        }
        self.patience = None;
        Ok(())
    }

    /// Nobody else is to have it.
    pub(super) fn spoil(&mut self) {
        match &mut self.to {
            To::Sqlite(_) | To::SqliteAtOnce(_) => {}
            To::Postgres(lease) => lease.spoil(),
            To::MySql(lease) => lease.spoil(),
        }
    }
}
