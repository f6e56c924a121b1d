//! Whether anybody wrote to Django's database, and what was written to ours.
//!
//! Django's tables tell nobody what is changed in them. SQLite says whether anything was (`data_version`), and so does
//! PostgreSQL: as long as no transaction that wrote has ended, the snapshots that it gives out are the same. MySQL says
//! nothing of the kind, so there anything may have been changed at any time.

use crate::store::own::Own;
use crate::store::sql::error::unavailable;
use crate::store::sql::{Database, values};
use crate::store::sqlite::DataVersion;
use crate::store::{Change, ChangeFeed, Changes, StoreError, StoreFuture};
use std::pin::Pin;
use std::time::Duration;

/// Which transactions are seen from now on.
const SNAPSHOT: &str = "SELECT CAST(txid_current_snapshot() AS TEXT) AS snapshot";

/// Both databases.
#[derive(Debug)]
pub(super) struct Feed {
    django: Watch,
    own: Box<dyn ChangeFeed>,
    /// What ours told, until it can be told.
    told: Vec<Change>,
}

/// What can be seen of Django's.
#[derive(Debug)]
enum Watch {
    Sqlite(Box<DataVersion>),
    Postgres(Database, String),
    Blind,
}

impl Feed {
    /// Starts with what is committed after this call.
    pub(super) async fn open(database: &Database, own: &Own) -> Result<Self, StoreError> {
        use crate::store::Store as _;
        let django = match database {
            Database::Sqlite(pools) => Watch::Sqlite(Box::new(pools.data_version().await?)),
            Database::Postgres(_) => {
                let database = database.aside();
                let now = snapshot(&database).await?;
                Watch::Postgres(database, now)
            }
            Database::MySql(_) => Watch::Blind,
        };
        Ok(Self { django, own: own.change_feed().await?, told: Vec::new() })
    }
}

async fn snapshot(database: &Database) -> Result<String, StoreError> {
    let row = database.find(SNAPSHOT, values![]).await?;
    row.map_or(Ok(String::new()), |row| row.text("snapshot")).map_err(unavailable)
}

impl Watch {
    /// Whether anybody may have written since the last call.
    async fn has_changed(&mut self) -> Result<bool, StoreError> {
        match self {
            Self::Sqlite(version) => version.has_changed().await,
            Self::Postgres(database, last) => {
                let now = snapshot(database).await?;
                let has_changed = *last != now;
                *last = now;
                Ok(has_changed)
            }
            Self::Blind => Ok(true),
        }
    }
}

impl ChangeFeed for Feed {
    fn changes(&mut self) -> StoreFuture<'_, Changes> {
        Box::pin(async {
            let own = self.own.changes().await?;
            self.told.extend(own.changes);
            match self.django.has_changed().await {
                Ok(false) => {}
                Err(error) if self.told.is_empty() => return Err(error),
                // What ours told is not kept back because of Django's tables: of those nobody knows.
                Ok(true) | Err(_) => self.told.push(Change::Something),
            }
            // The numbers of ours say nothing of Django's tables.
            Ok(Changes::unnumbered(std::mem::take(&mut self.told)))
        })
    }

    fn wait(&mut self, at_most: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.own.wait(at_most)
    }
}
