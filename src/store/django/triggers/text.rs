//! The triggers as SQL (PostgreSQL 11 or newer).
//!
//! Triggers of rows, not of statements: a condition decides before any function is called, so that a write of a row that
//! changes nothing of interest (`last_login`) costs next to nothing, and only those of rows fire where rows come by
//! logical replication. `ENABLE ALWAYS`: those that a session switches off (`session_replication_role`) would be
//! passed over unseen. Functions have a search path of their own and call nothing but PostgreSQL's own functions, so
//! whoever writes needs no right to them.
//!
//! A transaction names so many rows and no more; then it says that something changed. So a bulk delete fills
//! nobody's queue.

use crate::config::UserTable;
use crate::identity::Digest;
use crate::store::django::statements::quoted;
use crate::store::django::triggers::CHANNEL;
use crate::store::django::triggers::message::{CREDENTIAL, SOMETHING, USER};
use data_encoding::HEXLOWER;
use std::fmt::Write as _;

/// Rows that one transaction names at most.
const NAMED_MAX: usize = 1000;
/// Bytes of a digest that make a stamp.
const STAMP_BYTES: usize = 8;

/// Tables of Django that have one name everywhere.
pub(super) const GROUPS: &str = "auth_group";
pub(super) const KEYS: &str = "authtoken_token";
pub(super) const SESSIONS: &str = "django_session";

/// All that there may be, whatever the configuration was when they were made.
pub(super) const FUNCTIONS: [&str; 5] = [TELL_USER, TELL_MEMBER, TELL_TOKEN, TELL_SESSION, TELL_SOMETHING];
const TELL_USER: &str = "doorward_tell_user";
const TELL_MEMBER: &str = "doorward_tell_member";
const TELL_TOKEN: &str = "doorward_tell_token";
const TELL_SESSION: &str = "doorward_tell_session";
const TELL_SOMETHING: &str = "doorward_tell_something";

/// A table that tells, with its triggers.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// Its name, without its schema.
    pub(super) name: String,
    /// What its triggers call, and what they are.
    pub(super) function: Function,
    pub(super) triggers: Vec<Trigger>,
}

/// A function that says what changed in a row.
#[derive(Debug, Clone)]
pub(super) struct Function {
    pub(super) name: &'static str,
    body: String,
}

/// One trigger.
#[derive(Debug, Clone)]
pub(super) struct Trigger {
    pub(super) name: String,
    /// When it fires, and for what; with the table's name in place of `{table}`.
    event: String,
    /// Says nothing of the row.
    pub(super) is_of_table: bool,
    /// Tells this trigger and its function from those of another version or configuration.
    pub(super) stamp: String,
}

/// What is said of a row.
enum Says<'a> {
    /// The user in this column.
    User(&'a str),
    /// The credential whose key is in this column.
    Credential(&'a str),
}

/// What says that something changed: for tables that are emptied at once, too.
pub(super) fn something() -> Function {
    let body = format!("BEGIN\n    PERFORM pg_notify('{CHANNEL}', '{SOMETHING}');\n    RETURN NULL;\nEND");
    Function { name: TELL_SOMETHING, body }
}

impl Function {
    /// As PostgreSQL keeps it.
    pub(super) fn source(&self) -> String {
        format!("\n{} ", self.body)
    }
}

impl Says<'_> {
    fn function(&self, name: &'static str) -> Function {
        let of = |row: &str| match self {
            Says::User(column) => format!("'{USER}' || {row}.{}", quoted(column)),
            // The digest by which the credential is cached: never the key.
            Says::Credential(column) => {
                let key = format!("convert_to({row}.{}, 'UTF8')", quoted(column));
                format!("'{CREDENTIAL}' || encode(sha256({key}), 'hex')")
            }
        };
        let (old, new) = (of("OLD"), of("NEW"));
        let body = format!(
            "DECLARE
    named integer := coalesce(nullif(current_setting('doorward.named', true), ''), '0');
BEGIN
    IF named >= {NAMED_MAX} THEN
        PERFORM pg_notify('{CHANNEL}', '{SOMETHING}');
        RETURN NULL;
    END IF;
    PERFORM set_config('doorward.named', (named + 1)::text, true);
    IF TG_OP <> 'INSERT' THEN
        PERFORM pg_notify('{CHANNEL}', {old});
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM pg_notify('{CHANNEL}', {new});
    END IF;
    RETURN NULL;
END"
        );
        Function { name, body }
    }
}

impl Table {
    /// `kind` is what the triggers are named by. The columns are those on which what is cached depends.
    fn new(name: &str, kind: &str, function: Function, columns: &[&str], others: &[(&str, &str)]) -> Self {
        // Byte for byte: a collation may call names equal that are not.
        let row = |row: &str| {
            let columns: Vec<String> = columns
                .iter()
                .map(|column| format!("{row}.{}::text COLLATE pg_catalog.\"C\"", quoted(column)))
                .collect();
            format!("({})", columns.join(", "))
        };
        let is_changed = format!("{} IS DISTINCT FROM {}", row("OLD"), row("NEW"));
        let changed = ("changed", format!("AFTER UPDATE ON {{table}} FOR EACH ROW WHEN ({is_changed})"));
        let others = others.iter().map(|(name, event)| (*name, format!("AFTER {event}")));
        let emptied = ("emptied", "AFTER TRUNCATE ON {table} FOR EACH STATEMENT".to_owned());
        let triggers = std::iter::once(changed).chain(others).chain([emptied]).map(|(what, event)| {
            let is_of_table = what == "emptied";
            let body = if is_of_table { something().body } else { function.body.clone() };
            let stamp = stamp(&[env!("CARGO_PKG_NAME"), name, &event, &body]);
            Trigger { name: format!("doorward_{kind}_{what}"), event, is_of_table, stamp }
        });
        Self { name: name.to_owned(), triggers: triggers.collect(), function }
    }
}

/// The beginning of the digest of these texts.
fn stamp(texts: &[&str]) -> String {
    let digest = Digest::of(texts.join("\n").as_bytes());
    HEXLOWER.encode(digest.0.get(..STAMP_BYTES).unwrap_or_default())
}

const MADE: (&str, &str) = ("made", "INSERT ON {table} FOR EACH ROW");
const GONE: (&str, &str) = ("gone", "DELETE ON {table} FOR EACH ROW");
/// Expired sessions are cleared by the thousand each night, and nobody believes them any more. An hour: clocks differ.
const SESSION_GONE: (&str, &str) = (
    "gone",
    "DELETE ON {table} FOR EACH ROW WHEN (OLD.\"expire_date\" > pg_catalog.now() - interval '1 hour')",
);

/// All tables on which cached answers depend.
///
/// Of a session that is made nothing is said: nobody knew its key before. A change of a group is not told by its members:
/// a transaction that puts somebody into it at the same time is not seen by the trigger.
pub(super) fn tables(user: &UserTable) -> Vec<Table> {
    let mut columns = vec![user.id.as_str(), &user.username, &user.password];
    columns.extend([&user.is_active, &user.is_staff, &user.email].into_iter().flatten().map(String::as_str));
    let says = Says::User(&user.id).function(TELL_USER);
    let mut tables = vec![Table::new(&user.table, "user", says, &columns, &[MADE, GONE])];
    if let Some(groups) = &user.groups {
        let says = Says::User(&groups.user).function(TELL_MEMBER);
        let columns = [groups.user.as_str(), "group_id"];
        tables.push(Table::new(&groups.table, "member", says, &columns, &[MADE, GONE]));
        let says = something();
        tables.push(Table::new(GROUPS, "group", says, &["id", "name"], &[MADE, GONE]));
    }
    let says = Says::Credential("key").function(TELL_TOKEN);
    tables.push(Table::new(KEYS, "token", says, &["key", "user_id"], &[MADE, GONE]));
    let says = Says::Credential("session_key").function(TELL_SESSION);
    let columns = ["session_key", "session_data", "expire_date"];
    tables.push(Table::new(SESSIONS, "session", says, &columns, &[SESSION_GONE]));
    tables
}

/// Makes the functions, in this schema, and the triggers on tables in theirs, in place of what is there of them.
pub(super) fn install(schema: &str, tables: &[(Table, String)]) -> String {
    let mut text = remove(schema);
    let something = something();
    let of_rows = tables.iter().map(|(table, _)| &table.function);
    let of_rows = of_rows.filter(|function| function.name != something.name);
    for function in of_rows.chain([&something]) {
        let (name, source) = (function.name, function.source());
        // Writing to a string does not fail.
        write!(
            text,
            "\nCREATE FUNCTION {schema}.{name}() RETURNS trigger LANGUAGE plpgsql\n    \
             SET search_path = pg_catalog, pg_temp AS $doorward${source}$doorward$;\n\
             COMMENT ON FUNCTION {schema}.{name}() IS 'tells doorward what changed; see doorward django triggers --remove';\n"
        )
        .unwrap_or_default();
    }
    for (table, place) in tables {
        let at = format!("{}.{}", place, quoted(&table.name));
        text.push('\n');
        for Trigger { name, event, is_of_table, stamp } in &table.triggers {
            let function = if *is_of_table { something.name } else { table.function.name };
            let event = event.replace("{table}", &at);
            writeln!(
                text,
                "CREATE TRIGGER {name} {event}\n    EXECUTE FUNCTION {schema}.{function}('{stamp}');\n\
                 ALTER TABLE {at} ENABLE ALWAYS TRIGGER {name};"
            )
            .unwrap_or_default();
        }
    }
    text
}

/// Takes the functions away, and the triggers that call them with them, on whatever table they are.
pub(super) fn remove(schema: &str) -> String {
    FUNCTIONS.iter().fold(String::new(), |mut text, name| {
        writeln!(text, "DROP FUNCTION IF EXISTS {schema}.{name}() CASCADE;").unwrap_or_default();
        text
    })
}
