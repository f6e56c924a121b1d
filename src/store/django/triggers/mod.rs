//! The triggers that make Django's tables in PostgreSQL tell what changes in them: made and taken away by
//! `doorward django triggers`, looked for by whoever listens.
//!
//! Doorward itself makes nothing in Django's database unless it is told to.

mod look;
pub(super) mod message;
mod text;

pub(super) use look::{Fault, Wanted};

use crate::config::UserTable;
use crate::store::StoreError;
use crate::store::django::statements::quoted;
use crate::store::django::triggers::text::{Table, tables};
use crate::store::sql::error::{not_written, unavailable};
use crate::store::sql::{Database, Row, ServerOptions, ServerUrl, values};
use sqlx::error::DatabaseError;

/// What triggers notify.
pub(super) const CHANNEL: &str = "doorward_django";

/// The first version with `sha256()` (as `server_version_num`).
const VERSION_MIN: i64 = 110_000;

/// Where a table is, found as all statements find it: by the search path.
const PLACE: &str = "SELECT n.nspname::text AS place, c.relkind::text AS kind, \
    pg_get_userbyid(c.relowner)::text AS owner, current_user::text AS role, \
    current_setting('server_version_num')::bigint AS version \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.oid = to_regclass(?1)";

/// What the script begins with, where somebody else runs it.
const BEGIN: &str = "-- To be run by the owner of the tables, as often as wanted: doorward django triggers.\n\
    -- A migration that alters the type of a column named here needs them removed, and made again afterwards.\n\
    BEGIN;\nSET LOCAL lock_timeout = '5s';\nSET LOCAL client_min_messages = warning;\n\n";

/// What PostgreSQL calls the errors (its appendix A) of somebody who may not do that, and of a table that is in use.
const INSUFFICIENT_PRIVILEGE: &str = "42501";
const LOCK_NOT_AVAILABLE: &str = "55P03";
const QUERY_CANCELED: &str = "57014";

/// Why there are no triggers to be made.
#[derive(Debug, thiserror::Error)]
pub enum TriggersError {
    /// There is no such table, or it is none: a view changes nothing by itself.
    #[error("there is no table {0} in Django's database, or it is none that triggers can be made on")]
    NoTable(String),
    /// PostgreSQL before version 11.
    #[error("this PostgreSQL is older than version 11, which has what the triggers need")]
    TooOld,
    /// Only the owner of tables may.
    #[error(
        "{role} may not do this: {table} belongs to {owner}; leave `--install` out, or add `--print`, and have {owner} \
         run what is printed then, such as with psql"
    )]
    NotAllowed {
        /// Who doorward is.
        role: String,
        /// The first table of somebody else, or the users'.
        table: String,
        /// Whose it is.
        owner: String,
    },
    /// Somebody has used a table for too long.
    #[error("a table is in use by others for so long that nothing was changed: try again")]
    InUse,
    /// The database cannot be asked, or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Triggers on these tables were made, or made anew.
    Installed(Vec<String>),
    /// They are there already, on these.
    WereThere(Vec<String>),
    /// They were taken away.
    Removed,
    /// There were none.
    WereNotThere,
}

/// The triggers of one Django database in PostgreSQL.
#[derive(Debug)]
pub struct Triggers {
    database: Database,
    user: UserTable,
}

/// Where things are.
struct Places {
    /// Quoted, of the table of users.
    schema: String,
    /// Those that are there, with their quoted schemas.
    tables: Vec<(Table, String)>,
    role: String,
    /// A table of somebody else, or the first one, and whose it is.
    owned: (String, String),
}

impl Triggers {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// If the URL cannot be read.
    pub fn new(url: &ServerUrl, options: &ServerOptions, user: UserTable) -> Result<Self, StoreError> {
        Ok(Self { database: Database::server(url, options)?, user })
    }

    /// The SQL that makes them, to be run by somebody else; may be run again and again.
    ///
    /// # Errors
    /// If tables cannot be found.
    pub async fn script(&self) -> Result<String, TriggersError> {
        let Places { schema, tables, .. } = self.places().await?;
        Ok(format!("{BEGIN}{}\nCOMMIT;", text::install(&schema, &tables)))
    }

    /// The SQL that takes them away.
    ///
    /// # Errors
    /// If tables cannot be found.
    pub async fn removal(&self) -> Result<String, TriggersError> {
        let Places { schema, .. } = self.places().await?;
        Ok(format!("{BEGIN}{}\nCOMMIT;", text::remove(&schema)))
    }

    /// Makes them, unless they are there. All of them, or none.
    ///
    /// # Errors
    /// [`TriggersError::NotAllowed`] if the tables are not doorward's; nothing was changed then, nor by any other error but
    /// [`StoreError::Unavailable`].
    pub async fn install(&self) -> Result<Done, TriggersError> {
        let places = self.places().await?;
        let names = places.tables.iter().map(|(table, _)| table.name.clone()).collect();
        let wanted = Wanted::new(places.tables.iter().map(|(table, _)| table));
        if wanted.look(&self.database).await?.fault.is_none() {
            return Ok(Done::WereThere(names));
        }
        self.run(&places, text::install(&places.schema, &places.tables)).await?;
        Ok(Done::Installed(names))
    }

    /// Takes them away.
    ///
    /// # Errors
    /// As [`Self::install`].
    pub async fn remove(&self) -> Result<Done, TriggersError> {
        let places = self.places().await?;
        let mut found = false;
        for name in text::FUNCTIONS {
            let name = format!("{}.{name}()", places.schema);
            let row = self.database.find("SELECT to_regprocedure(?1) IS NOT NULL AS found", values![name]);
            let row = row.await?;
            found |= row.map_or(Ok(false), |row| row.boolean("found")).map_err(unavailable)?;
        }
        if !found {
            return Ok(Done::WereNotThere);
        }
        self.run(&places, text::remove(&places.schema)).await?;
        Ok(Done::Removed)
    }

    async fn run(&self, places: &Places, script: String) -> Result<(), TriggersError> {
        let mut link = self.database.begin().await?;
        link.run_script(script).await.map_err(|error| refused(error, places))?;
        Ok(link.commit().await?)
    }

    async fn places(&self) -> Result<Places, TriggersError> {
        let mut tables_there = Vec::new();
        let mut places: Option<Places> = None;
        for (number, table) in tables(&self.user).into_iter().enumerate() {
            let found = self.database.find(PLACE, values![quoted(&table.name)]).await?;
            // Sites without tokens or sessions have no tables for them.
            let may_lack = [text::KEYS, text::SESSIONS].contains(&&*table.name);
            let Some(found) = found.filter(|row| row.text("kind").is_ok_and(|kind| kind == "r")) else {
                if may_lack && number > 0 {
                    continue;
                }
                return Err(TriggersError::NoTable(table.name));
            };
            let Place { schema, owner, role, version } = Place::read(&found).map_err(unavailable)?;
            if version < VERSION_MIN {
                return Err(TriggersError::TooOld);
            }
            let owned = (table.name.clone(), owner);
            match &mut places {
                None => {
                    places = Some(Places { schema: schema.clone(), tables: Vec::new(), role, owned });
                }
                Some(places) if places.owned.1 == places.role && owned.1 != places.role => {
                    places.owned = owned;
                }
                Some(_) => {}
            }
            tables_there.push((table, schema));
        }
        let places = places.map(|places| Places { tables: tables_there, ..places });
        places.ok_or_else(|| TriggersError::NoTable(self.user.table.clone()))
    }
}

/// Where a table is, and whose.
struct Place {
    /// Quoted.
    schema: String,
    owner: String,
    role: String,
    version: i64,
}

impl Place {
    fn read(row: &Row) -> sqlx::Result<Self> {
        // Any name may be that of a schema.
        let schema = quoted(&row.text("place")?.replace('"', "\"\""));
        Ok(Self {
            schema,
            owner: row.text("owner")?,
            role: row.text("role")?,
            version: row.integer("version")?,
        })
    }
}

fn refused(error: sqlx::Error, places: &Places) -> TriggersError {
    if matches!(&error, sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::TimedOut) {
        return TriggersError::InUse;
    }
    let code = error.as_database_error().and_then(DatabaseError::code).unwrap_or_default();
    match &*code {
        INSUFFICIENT_PRIVILEGE => TriggersError::NotAllowed {
            role: places.role.clone(),
            table: places.owned.0.clone(),
            owner: places.owned.1.clone(),
        },
        LOCK_NOT_AVAILABLE | QUERY_CANCELED => TriggersError::InUse,
        _ => TriggersError::Store(not_written(error)),
    }
}
