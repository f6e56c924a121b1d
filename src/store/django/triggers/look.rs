//! Whether all triggers are there, enabled, and those of this version and configuration.
//!
//! Looked at in the same statement that asks for a proof, so none can be missing at that moment. What identifies them
//! changes with whatever is done to them (`xmin`), so it is noticed as well if they were away in between.

use crate::config::UserTable;
use crate::identity::Digest;
use crate::store::StoreError;
use crate::store::django::statements::quoted;
use crate::store::django::triggers::text::{KEYS, SESSIONS, Table, something, tables};
use crate::store::sql::error::unavailable;
use crate::store::sql::{Database, Row, Value, values};
use data_encoding::HEXLOWER;

/// The one encoding that PostgreSQL does not know to be text: messages could be bytes that nobody can read.
const ANY_BYTES: &str = "SQL_ASCII";

/// Why triggers cannot be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::django) enum Fault {
    /// There are none.
    Missing,
    /// Some are missing or disabled, or are of another version or configuration.
    Others,
    /// The encoding of the database is none.
    Encoding,
}

/// The triggers that there are to be, and how to look for them.
#[derive(Debug)]
pub(in crate::store::django) struct Wanted {
    /// Their names and stamps, and the digests of what they do.
    triggers: Vec<[String; 3]>,
    look: String,
    ask: String,
}

/// What was seen.
#[derive(Debug)]
pub(in crate::store::django) struct Seen {
    /// Which transactions are seen (`txid_current_snapshot()`).
    pub(in crate::store::django) snapshot: String,
    /// `None`: all is well.
    pub(in crate::store::django) fault: Option<Fault>,
    /// What identifies the triggers.
    pub(in crate::store::django) identity: String,
    /// Number of the transaction that asked for a proof. `None`: none was asked for.
    pub(in crate::store::django) asked: Option<String>,
}

impl Wanted {
    /// What is needed where these are asked for.
    pub(in crate::store::django) fn of(user: &UserTable, needs_keys: bool, needs_sessions: bool) -> Self {
        let tables = tables(user);
        let is_needed = |table: &&Table| match &*table.name {
            KEYS => needs_keys,
            SESSIONS => needs_sessions,
            _ => true,
        };
        Self::new(tables.iter().filter(is_needed))
    }

    /// All triggers of these tables.
    pub(super) fn new<'a>(tables: impl Iterator<Item = &'a Table>) -> Self {
        let (mut triggers, mut places) = (Vec::new(), Vec::new());
        for table in tables {
            places.push(format!("to_regclass('{}')", quoted(&table.name)));
            triggers.extend(table.triggers.iter().map(|it| {
                let source = if it.is_of_table { something().source() } else { table.function.source() };
                [it.name.clone(), it.stamp.clone(), HEXLOWER.encode(&Digest::of(source.as_bytes()).0)]
            }));
        }
        // A number of a transaction is 64 bits here, and 32 in `xmin`.
        let seen = format!(
            "CAST(txid_current_snapshot() AS TEXT) AS snapshot, current_setting('server_encoding') AS encoding,
            (SELECT string_agg(concat_ws(' ', t.tgname, t.tgenabled, encode(t.tgargs, 'escape'),
                    encode(sha256(convert_to(p.prosrc, 'UTF8')), 'hex'),
                    t.oid, t.xmin, p.oid, p.xmin), E'\\n' ORDER BY t.oid)
                FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
                WHERE t.tgrelid = ANY (ARRAY[{}]::oid[]) AND left(t.tgname, 9) = 'doorward_') AS triggers",
            places.join(", ")
        );
        // If nothing was committed since the last proof there is nothing to be heard, and nothing is written: to notify
        // takes the number of a transaction. Nobody waits for the disk to remember it.
        let ask = format!(
            "SELECT {seen}, CASE WHEN CAST(txid_current_snapshot() AS TEXT) = ?3 THEN NULL
                ELSE left(set_config('synchronous_commit', 'off', true), 0)
                    || CAST(pg_notify(?1, ?2) AS TEXT) || CAST(txid_current() AS TEXT) END AS asked"
        );
        Self { triggers, look: format!("SELECT {seen}, CAST(NULL AS TEXT) AS asked"), ask }
    }

    /// Looks, and does no more.
    pub(in crate::store::django) async fn look(&self, database: &Database) -> Result<Seen, StoreError> {
        self.find(database, &self.look, values![]).await
    }

    /// Looks, and notifies this channel of this text, unless the snapshot is still this one.
    pub(in crate::store::django) async fn ask(
        &self,
        database: &Database,
        channel: &str,
        text: String,
        snapshot: &str,
    ) -> Result<Seen, StoreError> {
        self.find(database, &self.ask, values![channel, text, snapshot]).await
    }

    async fn find(
        &self,
        database: &Database,
        statement: &str,
        values: Vec<Value>,
    ) -> Result<Seen, StoreError> {
        let row = database.find(statement, values).await?;
        let row = row.ok_or_else(|| StoreError::Unreadable("no row".into()))?;
        self.read(&row).map_err(unavailable)
    }

    fn read(&self, row: &Row) -> sqlx::Result<Seen> {
        let identity = row.optional_text("triggers")?.unwrap_or_default();
        let is_any = row.text("encoding")? == ANY_BYTES;
        let fault = if is_any { Some(Fault::Encoding) } else { self.fault(&identity) };
        Ok(Seen { snapshot: row.text("snapshot")?, fault, identity, asked: row.optional_text("asked")? })
    }

    /// Reads a line for each trigger: its name, `A` for always, its stamp, the digest of its function's text, and what
    /// identifies it.
    fn fault(&self, lines: &str) -> Option<Fault> {
        let is_good = |[name, stamp, source]: &[String; 3]| {
            lines.lines().any(|line| {
                let mut words = line.split(' ');
                let is_it = words.next() == Some(name.as_str()) && words.next() == Some("A");
                // Arguments end with a zero byte.
                let has_stamp =
                    words.next().and_then(|word| word.strip_suffix("\\000")) == Some(stamp.as_str());
                is_it && has_stamp && words.next() == Some(source.as_str())
            })
        };
        if self.triggers.iter().all(is_good) {
            return None;
        }
        Some(if lines.is_empty() { Fault::Missing } else { Fault::Others })
    }
}
