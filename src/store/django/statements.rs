//! The statements on Django's tables, with the names that this site uses.
//!
//! Names are checked by the configuration and quoted all the same. Besides them the text is fixed, so nothing that a
//! client sent is ever in a statement.

use crate::config::{GroupTable, UserTable};
use crate::store::CONFIRM_MAX;
use crate::store::sql::text::list;
use std::sync::Arc;

/// A statement, shared with the connections that have it prepared.
pub(super) type Statement = Arc<str>;

/// All of them.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) user_by_name: Statement,
    pub(super) user_by_id: Statement,
    /// Of many, in any order.
    pub(super) users_by_id: Statement,
    /// And nobody else changes it until the transaction ends.
    pub(super) lock_user: Statement,
    pub(super) users: Statement,
    pub(super) passwords: Statement,
    pub(super) user_by_key: Statement,
    /// Of many, in any order.
    pub(super) users_by_key: Statement,
    pub(super) key_of_user: Statement,
    pub(super) set_active: Option<Statement>,
    pub(super) set_password: Statement,
    pub(super) recode_password: Statement,
    pub(super) insert_user: Statement,
    pub(super) logged_in: Option<Statement>,
    pub(super) groups: Option<Statement>,
    /// Each reads a table that there has to be, and its columns; this one also a user, if there is any.
    pub(super) probe_users: Statement,
    pub(super) probe_groups: Option<Statement>,
}

// Columns that are read are named with their table: a bare name in quotes that is no column is a text to SQLite.
pub(super) const INSERT_KEY: &str =
    r#"INSERT INTO "authtoken_token" ("key", "created", "user_id") VALUES (?1, {time:?2}, ?3)"#;
pub(super) const DELETE_KEY: &str = r#"DELETE FROM "authtoken_token" WHERE "authtoken_token"."key" = ?1"#;
pub(super) const KEYS_OF: &str =
    r#"SELECT k."key" AS token_key FROM "authtoken_token" k WHERE k."user_id" = ?1 {lock:k}"#;
pub(super) const DELETE_KEYS_OF: &str = r#"DELETE FROM "authtoken_token" WHERE "user_id" = ?1"#;
pub(super) const COUNT_KEYS: &str = r#"SELECT count(*) AS found FROM "authtoken_token" WHERE "user_id" = ?1"#;
pub(super) const PROBE_KEYS: &str =
    r#"SELECT k."key", k."created", k."user_id" FROM "authtoken_token" k LIMIT 0"#;

macro_rules! find_session {
    ($lock:literal) => {
        concat!(
            r#"SELECT s."session_key", s."session_data", {text:s."expire_date"} AS expire_date FROM "django_session" s
                WHERE s."session_key" = ?1 AND s."expire_date" > {time:?2}"#,
            $lock
        )
    };
}
pub(super) const FIND_SESSION: &str = find_session!("");
/// Of many, in any order; the keys come after the moment.
pub(super) fn find_sessions() -> String {
    format!(
        r#"SELECT s."session_key", s."session_data", {{text:s."expire_date"}} AS expire_date FROM "django_session" s
            WHERE s."expire_date" > {{time:?1}} AND s."session_key" IN {}"#,
        list(2, CONFIRM_MAX)
    )
}
/// And nobody else changes it until the transaction ends.
pub(super) const LOCK_SESSION: &str = find_session!(" {lock:s}");
pub(super) const INSERT_SESSION: &str = r#"INSERT INTO "django_session"
    ("session_key", "session_data", "expire_date") VALUES (?1, ?2, {time:?3})"#;
pub(super) const DELETE_SESSION: &str =
    r#"DELETE FROM "django_session" WHERE "django_session"."session_key" = ?1"#;
pub(super) const NEWEST_SESSIONS: &str = r#"SELECT s."session_data" FROM "django_session" s
    WHERE s."expire_date" > {time:?1} ORDER BY s."expire_date" DESC LIMIT 20"#;
pub(super) const PROBE_SESSIONS: &str =
    r#"SELECT s."session_key", s."session_data", s."expire_date" FROM "django_session" s LIMIT 0"#;

/// A name as SQL's standard quotes it; the configuration lets no quote into one.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

impl Statements {
    pub(super) fn new(table: &UserTable) -> Self {
        let [users, id, username, password] =
            [&table.table, &table.id, &table.username, &table.password].map(|name| quoted(name));
        // A column that may be NULL says then what a missing one does; who is active has to be said.
        let column = |name: &Option<String>, missing: &str, null: &str| {
            name.as_ref()
                .map_or_else(|| missing.to_owned(), |name| format!("coalesce(u.{}, {null})", quoted(name)))
        };
        let groups = table.groups.as_ref().map_or_else(
            || "NULL".to_owned(),
            |GroupTable { table, user }| {
                let (table, user) = (quoted(table), quoted(user));
                format!(
                    r#"(SELECT {{names:g."name"}} FROM {table} m JOIN "auth_group" g ON g."id" = m."group_id"
                        WHERE m.{user} = u.{id})"#
                )
            },
        );
        let columns = format!(
            "u.{id} AS id, u.{username} AS username, coalesce(u.{password}, '') AS password, {} AS email,
                {} AS is_active, {} AS is_staff, {groups} AS group_names",
            column(&table.email, "''", "''"),
            column(&table.is_active, "TRUE", "FALSE"),
            column(&table.is_staff, "FALSE", "FALSE"),
        );
        let select = |rest: &str| Arc::from(format!("SELECT {columns} FROM {rest}"));
        let by_key = |which: &str| {
            Arc::from(format!(
                r#"SELECT k."key" AS token_key, {columns} FROM "authtoken_token" k
                    JOIN {users} u ON u.{id} = k."user_id" WHERE k."key" {which}"#
            ))
        };
        let active = table.is_active.as_ref().map(|name| quoted(name));
        Self {
            user_by_name: select(&format!("{users} u WHERE u.{username} = ?1")),
            user_by_id: select(&format!("{users} u WHERE u.{id} = ?1")),
            users_by_id: select(&format!("{users} u WHERE u.{id} IN {}", list(1, CONFIRM_MAX))),
            lock_user: select(&format!("{users} u WHERE u.{id} = ?1 {{lock:u}}")),
            users: {
                // Of another table nobody knows a column for that.
                let joined = if table.table == "auth_user" { r#"{text:u."date_joined"}"# } else { "NULL" };
                Arc::from(format!("SELECT {columns}, {joined} AS joined FROM {users} u ORDER BY u.{username}"))
            },
            passwords: Arc::from(format!(
                "SELECT coalesce(u.{password}, '') AS password FROM {users} u ORDER BY u.{id} DESC LIMIT ?1"
            )),
            user_by_key: by_key("= ?1"),
            users_by_key: by_key(&format!("IN {}", list(1, CONFIRM_MAX))),
            key_of_user: Arc::from(r#"SELECT k."key" AS token_key FROM "authtoken_token" k WHERE k."user_id" = ?1"#),
            set_active: active
                .as_ref()
                .map(|active| Arc::from(format!("UPDATE {users} SET {active} = ?2 WHERE {id} = ?1"))),
            set_password: Arc::from(format!("UPDATE {users} SET {password} = ?2 WHERE {id} = ?1")),
            recode_password: Arc::from(format!(
                "UPDATE {users} SET {password} = ?3 WHERE {id} = ?1 AND {password} = ?2"
            )),
            insert_user: Arc::from(insert_user(table)),
            logged_in: table
                .last_login
                .as_ref()
                .map(|name| Arc::from(format!("UPDATE {users} SET {} = {{time:?2}} WHERE {id} = ?1", quoted(name)))),
            groups: table.groups.as_ref().map(|GroupTable { table, user }| {
                let (table, user) = (quoted(table), quoted(user));
                Arc::from(format!(
                    r#"SELECT g."name" AS name, {{names:u.{username}}} AS members FROM "auth_group" g
                        JOIN {table} m ON m."group_id" = g."id" JOIN {users} u ON u.{id} = m.{user}
                        GROUP BY g."id", g."name" ORDER BY g."name""#
                ))
            }),
            probe_users: select(&format!("{users} u LIMIT 1")),
            probe_groups: table.groups.as_ref().map(|GroupTable { table, user }| {
                let (table, user) = (quoted(table), quoted(user));
                Arc::from(format!(
                    r#"SELECT g."name", m.{user} FROM {table} m JOIN "auth_group" g ON g."id" = m."group_id" LIMIT 0"#
                ))
            }),
        }
    }
}

/// As Django 5.2's `RemoteUserBackend` makes a user of `auth_user`: all columns of that table, since none but
/// `last_login` may be missing. A user table of another shape may refuse it.
fn insert_user(table: &UserTable) -> String {
    let is_djangos = table.table == "auth_user";
    let given =
        [Some(&table.username), Some(&table.password), table.is_active.as_ref(), table.is_staff.as_ref()];
    let mut names: Vec<String> = given.into_iter().flatten().map(|name| quoted(name)).collect();
    let mut values: Vec<&str> = vec!["?1", "?2"];
    values.extend(table.is_active.as_ref().map(|_| "TRUE"));
    values.extend(table.is_staff.as_ref().map(|_| "?4"));
    if let Some(email) = &table.email {
        names.push(quoted(email));
        values.push("?3");
    }
    if is_djangos {
        names.extend(["is_superuser", "first_name", "last_name", "date_joined"].map(quoted));
        values.extend(["FALSE", "''", "''", "{time:?5}"]);
    }
    format!("INSERT INTO {} ({}) VALUES ({})", quoted(&table.table), names.join(", "), values.join(", "))
}
