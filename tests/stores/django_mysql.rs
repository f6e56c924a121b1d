//! An adopted Django database on `MariaDB`: tables as Django 5.2 makes them there, with the rows of the recorded SQLite
//! database, and the same claims as on SQLite.

#[path = "django/keys.rs"]
mod keys;
#[path = "django/sessions.rs"]
mod sessions;
#[path = "django/users.rs"]
mod users;

use crate::django::{BACKEND, NOW, OLD_SECRET_KEY, datetime, keys, old_keys, settings, signed};
use crate::services::mariadb::{Database, MariaDb};
use crate::services::proxy::{Fault, FaultProxy};
use crate::suite::{Done as _, digest, token};
use doorward::django::{Keys, Session, encode};
use doorward::identity::UserId;
use doorward::store::django::{Django, DjangoSettings};
use doorward::store::sql::{ServerOptions, ServerUrl};
use doorward::store::sqlite::{Sqlite, SqliteOptions};
use doorward::store::{Change, Store as _, StoreError};
use sqlx::{ConnectOptions as _, Row as _, TypeInfo as _, ValueRef as _};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

/// The database of a site, and doorward's own beside it.
struct Site {
    database: Database<'static>,
    directory: TempDir,
}

/// As `manage.py sqlmigrate` prints it for MySQL, but that names differ by letter case: the recorded ones do.
const SCHEMA: &str = r#"
    CREATE TABLE "auth_user" ("id" integer AUTO_INCREMENT NOT NULL PRIMARY KEY, "password" varchar(128) NOT NULL,
        "last_login" datetime(6) NULL, "is_superuser" bool NOT NULL, "username" varchar(150) COLLATE utf8mb4_bin NOT NULL UNIQUE,
        "first_name" varchar(150) NOT NULL, "last_name" varchar(150) NOT NULL, "email" varchar(254) NOT NULL,
        "is_staff" bool NOT NULL, "is_active" bool NOT NULL, "date_joined" datetime(6) NOT NULL);
    CREATE TABLE "auth_group" ("id" integer AUTO_INCREMENT NOT NULL PRIMARY KEY, "name" varchar(150) NOT NULL UNIQUE);
    CREATE TABLE "auth_user_groups" ("id" bigint AUTO_INCREMENT NOT NULL PRIMARY KEY, "user_id" integer NOT NULL,
        "group_id" integer NOT NULL, UNIQUE ("user_id", "group_id"));
    CREATE TABLE "authtoken_token" ("key" varchar(40) NOT NULL PRIMARY KEY, "created" datetime(6) NOT NULL,
        "user_id" integer NOT NULL UNIQUE REFERENCES "auth_user" ("id"));
    CREATE TABLE "django_session" ("session_key" varchar(40) NOT NULL PRIMARY KEY, "session_data" longtext NOT NULL,
        "expire_date" datetime(6) NOT NULL);
"#;

/// What inserts the rows of the recorded SQLite database.
fn recorded_rows() -> String {
    // A thread of its own: this one may run a runtime already.
    std::thread::spawn(|| tokio::runtime::Runtime::new().unwrap().block_on(read_rows())).join().unwrap()
}

async fn read_rows() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/fixture.sqlite3");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).immutable(true).read_only(true);
    let mut connection = options.connect().await.unwrap();
    let mut inserts = String::new();
    let user = "id, password, last_login, is_superuser, username, first_name, last_name, email, is_staff, is_active, \
                date_joined";
    let tables = [
        ("auth_user", user),
        ("authtoken_token", "\"key\", created, user_id"),
        ("django_session", "session_key, session_data, expire_date"),
    ];
    for (table, columns) in tables {
        let query = sqlx::AssertSqlSafe(format!("SELECT {columns} FROM {table}"));
        for row in sqlx::query(query).fetch_all(&mut connection).await.unwrap() {
            let values: Vec<String> = (0..row.len()).map(|place| literal(&row, place)).collect();
            let values = values.join(", ");
            writeln!(inserts, "INSERT INTO {table} ({columns}) VALUES ({values});").unwrap();
        }
    }
    inserts
}

fn literal(row: &sqlx::sqlite::SqliteRow, place: usize) -> String {
    let value = row.try_get_raw(place).unwrap();
    if value.is_null() {
        return "NULL".to_owned();
    }
    match value.type_info().name() {
        "INTEGER" | "BOOLEAN" => row.get_unchecked::<i64, _>(place).to_string(),
        _ => format!("'{}'", row.get_unchecked::<String, _>(place).replace('\'', "''")),
    }
}

/// Whoever writes there besides doorward.
struct Client<'a>(&'a Site);

async fn run(client: &mut Client<'_>, statement: impl Into<String>) {
    client.0.sql(&statement.into());
}

#[expect(clippy::unused_async, reason = "as on SQLite")]
impl Site {
    const IS_SQLITE: bool = false;

    fn new() -> Self {
        static ROWS: OnceLock<String> = OnceLock::new();
        let site = Self { database: MariaDb::shared().database(), directory: tempfile::tempdir().unwrap() };
        site.sql(SCHEMA);
        site.sql(ROWS.get_or_init(recorded_rows));
        site
    }

    async fn open(&self) -> Django {
        self.open_with(settings()).await.unwrap()
    }

    async fn open_with(&self, settings: DjangoSettings) -> Result<Django, StoreError> {
        let path = self.directory.path().join("doorward.db");
        let url = ServerUrl::parse(&self.database.url()).unwrap();
        let options = ServerOptions { read_wait: Duration::from_secs(10), ..ServerOptions::default() };
        let own = Box::pin(Sqlite::open(&path, SqliteOptions::default())).await.unwrap();
        Box::pin(Django::connect(&url, &options, own, settings, NOW)).await
    }

    async fn django(&self) -> Client<'_> {
        Client(self)
    }

    /// With no foreign key in the way.
    fn sql(&self, statement: &str) -> String {
        self.database.sql(&format!(
            "SET NAMES utf8mb4; SET foreign_key_checks = 0; SET time_zone = '+00:00'; \
             SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES'; {statement}"
        ))
    }

    async fn run(&self, statement: impl Into<String>) {
        self.sql(&statement.into());
    }

    /// Moments as SQLite has them.
    async fn text(&self, query: impl Into<String>) -> Option<String> {
        let text = self.sql(&query.into());
        let text = text.replace(".000000", "");
        (!text.is_empty() && text != "NULL").then_some(text)
    }

    async fn count(&self, query: impl Into<String>) -> i64 {
        self.sql(&query.into()).parse().unwrap()
    }

    /// A session as Django writes it.
    async fn session(&self, key: &str, session: &Session, keys: &Keys) {
        self.row(key, &encode(session, keys, NOW.0), "2100-01-01 00:00:00").await;
    }

    async fn row(&self, key: &str, data: &str, expires: &str) {
        let columns = "session_key, session_data, expire_date";
        self.run(format!("INSERT INTO django_session ({columns}) VALUES ('{key}', '{data}', '{expires}')"))
            .await;
    }

    /// A session of this user, as Django would begin it now.
    async fn session_of(&self, user: i64, keys: &Keys) -> Session {
        let password = self.text(format!("SELECT password FROM auth_user WHERE id = {user}")).await;
        let mut session = Session::default();
        session.log_in(&user.to_string(), BACKEND, &keys.auth_hash(&password.unwrap()));
        session
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_is_missed_whatever_the_own_store_says() {
    let site = Site::new();
    let proxy = FaultProxy::start(MariaDb::shared().port());
    let url = ServerUrl::parse(&proxy.url(&site.database.url())).unwrap();
    let options = ServerOptions { read_wait: Duration::from_secs(1), ..ServerOptions::default() };
    let own =
        Box::pin(Sqlite::open(&site.directory.path().join("doorward.db"), SqliteOptions::default())).await;
    let store = Box::pin(Django::connect(&url, &options, own.unwrap(), settings(), NOW)).await.unwrap();
    let mut feed = store.change_feed().await.unwrap();
    assert_eq!(feed.changes().await.unwrap().changes, [Change::Something]);
    for (number, fault) in [(1, Fault::BlackHole), (2, Fault::Refuse)] {
        proxy.set(fault);
        feed.changes().await.unwrap_err();
        // What is ours is told, as a part, and not kept back.
        store.insert_canary(token(number, UserId(7))).await.done();
        let began = Instant::now();
        let told = feed.changes().await.unwrap().changes;
        assert_eq!(told, [Change::Credential(digest(number)), Change::Something], "{fault:?}");
        assert!(feed.is_partial() && began.elapsed() < options.read_wait, "{fault:?}");
        feed.changes().await.unwrap_err();
        proxy.set(Fault::None);
        assert_eq!(feed.changes().await.unwrap().changes, [Change::Something], "{fault:?}");
        assert!(!feed.is_partial());
    }
}
