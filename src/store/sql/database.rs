//! A database that is open: reads, writes, and how long they are waited for.

use crate::store::StoreError;
use crate::store::sql::error::{not_written, unavailable};
use crate::store::sql::link::To;
use crate::store::sql::server::{Server, ServerKind, ServerOptions, ServerUrl, patience};
use crate::store::sql::text::Dialect;
use crate::store::sql::{Link, Row, Value, mysql, postgres};
use crate::store::sqlite::Pools;
use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{MySqlConnection, PgConnection};
use std::time::Duration;
use tokio::time::timeout;

/// One of the three.
#[derive(Debug, Clone)]
pub(in crate::store) enum Database {
    Sqlite(Box<Pools>),
    Postgres(Server<PgConnection>),
    MySql(Server<MySqlConnection>),
}

impl Database {
    /// A server; connects to nothing yet.
    pub(in crate::store) fn server(url: &ServerUrl, options: &ServerOptions) -> Result<Self, StoreError> {
        Ok(match url.kind {
            ServerKind::Postgres => Self::Postgres(Server::new(url, options, postgres::manner)?),
            ServerKind::MySql => Self::MySql(Server::new(url, options, mysql::manner)?),
        })
    }

    /// The same for whoever watches it, with a connection to a server of its own: look-ups that wait for a lock may have
    /// all the others, and what is cached is believed no longer than it is watched.
    pub(in crate::store) fn aside(&self) -> Self {
        match self {
            Self::Sqlite(pools) => Self::Sqlite(pools.clone()),
            Self::Postgres(server) => Self::Postgres(server.aside()),
            Self::MySql(server) => Self::MySql(server.aside()),
        }
    }

    pub(in crate::store) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
            Self::MySql(_) => Dialect::MySql,
        }
    }

    /// Whether any row may have this text. PostgreSQL has no null characters, and cannot even be asked for one.
    pub(in crate::store) fn can_hold(&self, text: &str) -> bool {
        self.dialect() != Dialect::Postgres || !text.contains('\0')
    }

    /// How long a look-up is waited for.
    pub(in crate::store) fn read_wait(&self) -> Duration {
        match self {
            Self::Sqlite(pools) => pools.read_wait,
            Self::Postgres(server) => server.read_wait,
            Self::MySql(server) => server.read_wait,
        }
    }

    /// Waits for a look-up, but not for ever: a disk or a server that hangs must not hang requests.
    pub(in crate::store) async fn bounded<T>(
        &self,
        answer: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        match timeout(self.read_wait(), answer).await {
            Ok(answer) => answer,
            Err(late) => Err(StoreError::Unavailable(Box::new(late))),
        }
    }

    /// All rows of a look-up.
    pub(in crate::store) async fn read(
        &self,
        text: &str,
        values: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        self.bounded(Box::pin(async { self.ask(text, values).await.map_err(unavailable) })).await
    }

    /// The only row of a look-up, if there is one.
    pub(in crate::store) async fn find(
        &self,
        text: &str,
        values: Vec<Value>,
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.read(text, values).await?.into_iter().next())
    }

    /// All rows of a list, however long that takes: millions of rows take longer than a look-up may.
    pub(in crate::store) async fn list(
        &self,
        text: &str,
        values: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        let mut link = self.bounded(Box::pin(async { self.reader().await.map_err(unavailable) })).await?;
        link.be_patient().await.map_err(unavailable)?;
        let rows = link.all(text, values).await.map_err(unavailable);
        link.spoil();
        rows
    }

    /// Asks once more if the connection had died since it was last used: all may have, when a server starts again.
    async fn ask(&self, text: &str, values: Vec<Value>) -> sqlx::Result<Vec<Row>> {
        let mut link = self.reader().await?;
        match link.all(text, values.clone()).await {
            Err(_) if link.is_dead() => {
                drop(link);
                self.forget_idle();
                self.reader().await?.all(text, values).await
            }
            answer => answer,
        }
    }

    fn forget_idle(&self) {
        match self {
            Self::Sqlite(_) => {}
            Self::Postgres(server) => server.readers.forget_idle(),
            Self::MySql(server) => server.readers.forget_idle(),
        }
    }

    /// A connection that reads; the caller bounds the time.
    pub(in crate::store) async fn reader(&self) -> sqlx::Result<Link> {
        let to = match self {
            Self::Sqlite(pools) => To::Sqlite(pools.readers.acquire().await?),
            Self::Postgres(server) => To::Postgres(server.readers.get().await?),
            Self::MySql(server) => To::MySql(server.readers.get().await?),
        };
        Ok(Link { to, patience: None })
    }

    /// A connection that reads all of one moment; the caller bounds the time.
    pub(in crate::store) async fn snapshot(&self) -> sqlx::Result<Link> {
        if let Self::Sqlite(pools) = self {
            return Ok(Link { to: To::SqliteAtOnce(pools.readers.begin().await?), patience: None });
        }
        let mut link = self.reader().await?;
        let begin = match self.dialect() {
            Dialect::MySql => mysql::BEGIN_SNAPSHOT,
            Dialect::Postgres | Dialect::Sqlite => postgres::BEGIN_SNAPSHOT,
        };
        link.to.set_open(true);
        link.say(begin).await?;
        Ok(link)
    }

    /// Starts a write. Dropped without a commit, it leaves nothing behind.
    pub(in crate::store) async fn begin(&self) -> Result<Link, StoreError> {
        if let Self::Sqlite(pools) = self {
            return Ok(Link { to: To::SqliteAtOnce(pools.write().await?), patience: None });
        }
        let (write_wait, begin) = match self {
            Self::Postgres(server) => (server.write_wait, postgres::BEGIN),
            Self::MySql(server) => (server.write_wait, mysql::BEGIN),
            Self::Sqlite(pools) => (pools.read_wait, postgres::BEGIN),
        };
        let mut link = match timeout(write_wait, self.writer()).await {
            Ok(link) => link.map_err(not_written)?,
            // Nothing was asked.
            Err(late) => return Err(StoreError::NotWritten(Box::new(late))),
        };
        link.patience = Some(patience(write_wait));
        link.to.set_open(true);
        link.say(begin).await.map_err(not_written)?;
        Ok(link)
    }

    async fn writer(&self) -> sqlx::Result<Link> {
        let to = match self {
            Self::Sqlite(pools) => To::Sqlite(pools.readers.acquire().await?),
            Self::Postgres(server) => To::Postgres(server.writers.get().await?),
            Self::MySql(server) => To::MySql(server.writers.get().await?),
        };
        Ok(Link { to, patience: None })
    }

    /// Before and after a write of very many rows.
    pub(in crate::store) async fn expect_many(&self, many: bool) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(pools) => pools.expect_many(many).await,
            Self::Postgres(_) | Self::MySql(_) => Ok(()),
        }
    }

    /// A connection that holds the lock of who changes the schema; in PostgreSQL in a transaction.
    pub(in crate::store) async fn lock_schema(&self) -> Result<Link, StoreError> {
        let mut link = self.begin().await?;
        link.patience = None;
        let (text, ends) = match self.dialect() {
            Dialect::Sqlite => return Ok(link),
            Dialect::Postgres => (postgres::LOCK_SCHEMA, false),
            Dialect::MySql => (mysql::LOCK_SCHEMA, true),
        };
        if ends {
            // Each step ends a transaction by itself.
            link.say("ROLLBACK").await.map_err(not_written)?;
            link.to.set_open(false);
        }
        link.say(text).await.map_err(not_written)?;
        Ok(link)
    }

    /// Ends what [`Self::lock_schema`] began. Dropped without it, the connection is closed, and the lock goes with it.
    pub(in crate::store) async fn unlock_schema(&self, mut link: Link) -> Result<(), StoreError> {
        if self.dialect() == Dialect::MySql {
            link.spoil();
            return Ok(());
        }
        link.commit().await
    }

    /// Hears what is notified on a channel. `None`: this database notifies nobody.
    pub(in crate::store) async fn listen(&self, channel: &str) -> Option<PgListener> {
        let Self::Postgres(server) = self else { return None };
        let options = PgPoolOptions::new().max_connections(1).acquire_timeout(server.read_wait);
        let pool = options.connect_lazy_with(server.readers.options().clone());
        let mut listener = PgListener::connect_with(&pool).await.ok()?;
        listener.eager_reconnect(false);
        listener.listen(channel).await.ok()?;
        Some(listener)
    }

    /// Closes all connections but those of feeds; later calls are `Unavailable` or `NotWritten`.
    pub(in crate::store) async fn close(&self) {
        match self {
            Self::Sqlite(pools) => pools.close().await,
            Self::Postgres(server) => {
                server.readers.close();
                server.writers.close();
            }
            Self::MySql(server) => {
                server.readers.close();
                server.writers.close();
            }
        }
    }
}
