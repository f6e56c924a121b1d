//! An adopted Django database on PostgreSQL: a dump of a real one, and the same claims as on SQLite.

#[path = "django/keys.rs"]
mod keys;
#[path = "django/sessions.rs"]
mod sessions;
#[path = "django/users.rs"]
mod users;

use crate::django::{BACKEND, NOW, OLD_SECRET_KEY, datetime, keys, old_keys, settings, signed};
use crate::services::postgres::{Database, Postgres};
use doorward::config::UserTable;
use doorward::django::{Keys, Session, encode};
use doorward::store::django::{Django, DjangoSettings};
use doorward::store::sql::{ServerOptions, ServerUrl};
use doorward::store::sqlite::{Sqlite, SqliteOptions};
use doorward::store::{Change, Store as _, StoreError, UserStore as _};
use std::path::Path;
use tempfile::TempDir;

/// The database of a site, and doorward's own beside it.
pub(crate) struct Site {
    pub(crate) database: Database<'static>,
    pub(crate) directory: TempDir,
}

/// Whoever writes there besides doorward.
pub(crate) struct Client<'a>(&'a Site);

async fn run(client: &mut Client<'_>, statement: impl Into<String>) {
    client.0.sql(&statement.into());
}

#[expect(clippy::unused_async, reason = "as on SQLite")]
impl Site {
    const IS_SQLITE: bool = false;

    pub(crate) fn new() -> Self {
        Self::on(Postgres::shared().database())
    }

    /// In this database, which is empty.
    pub(crate) fn on(database: Database<'static>) -> Self {
        database.load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/fixture_pg.sql"));
        Self { database, directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) async fn open(&self) -> Django {
        self.open_with(settings()).await.unwrap()
    }

    async fn open_with(&self, settings: DjangoSettings) -> Result<Django, StoreError> {
        let path = self.directory.path().join("doorward.db");
        let url = ServerUrl::parse(&self.database.url()).unwrap();
        let options =
            ServerOptions { read_wait: std::time::Duration::from_secs(10), ..ServerOptions::default() };
        let own = Box::pin(Sqlite::open(&path, SqliteOptions::default())).await.unwrap();
        Box::pin(Django::connect(&url, &options, own, settings, NOW)).await
    }

    async fn django(&self) -> Client<'_> {
        Client(self)
    }

    /// With no foreign key in the way.
    fn sql(&self, statement: &str) -> String {
        self.database
            .psql(&format!("SET session_replication_role = replica; SET TIME ZONE 'UTC'; {statement}"))
    }

    pub(crate) async fn run(&self, statement: impl Into<String>) {
        self.sql(&statement.into());
    }

    /// Moments as SQLite has them.
    pub(crate) async fn text(&self, query: impl Into<String>) -> Option<String> {
        let text = self.sql(&query.into());
        let text = if text.starts_with("20") { text.replace("+00", "") } else { text };
        (!text.is_empty()).then_some(text)
    }

    pub(crate) async fn count(&self, query: impl Into<String>) -> i64 {
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

#[tokio::test]
async fn what_is_no_django_database_is_refused_by_name() {
    let site = Site::new();
    let refused = async |settings| match site.open_with(settings).await {
        Err(StoreError::NotAdoptable(text)) => text,
        other => panic!("{other:?}"),
    };
    let user = UserTable { table: "accounts_user".to_owned(), ..UserTable::default() };
    let told = refused(DjangoSettings { user, ..settings() }).await;
    assert!(told.contains("accounts_user"), "{told}");
    let user = UserTable { id: "username".to_owned(), groups: None, ..UserTable::default() };
    let told = refused(DjangoSettings { user, ..settings() }).await;
    assert!(told.contains("no number"), "{told}");
    site.run("DROP TABLE authtoken_token").await;
    let told = refused(settings()).await;
    assert!(told.contains("authtoken_token"), "{told}");
    assert!(site.open_with(DjangoSettings { needs_keys: false, ..settings() }).await.is_ok());
}

#[tokio::test]
async fn whatever_is_committed_is_noticed() {
    let site = Site::new();
    let store = site.open().await;
    let mut feed = store.change_feed().await.unwrap();
    for statement in [
        "UPDATE auth_user SET is_active = FALSE WHERE id = 1",
        "DELETE FROM django_session",
        "CREATE TABLE more ()",
    ] {
        feed.changes().await.unwrap();
        site.run(statement).await;
        assert_eq!(feed.changes().await.unwrap().changes, [Change::Something], "{statement}");
    }
    assert!(!store.find_user("alice").await.unwrap().unwrap().user.is_active);
}

/// On a server of its own, where nobody else writes.
#[tokio::test]
async fn as_long_as_nobody_writes_nothing_is_doubted() {
    let server = Postgres::start();
    let database = server.database();
    database.load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/fixture_pg.sql"));
    let directory = tempfile::tempdir().unwrap();
    let own = Box::pin(Sqlite::open(&directory.path().join("d.db"), SqliteOptions::default())).await.unwrap();
    let url = ServerUrl::parse(&database.url()).unwrap();
    let options = ServerOptions::default();
    let store = Box::pin(Django::connect(&url, &options, own, settings(), NOW)).await.unwrap();
    let mut feed = store.change_feed().await.unwrap();
    let mut quiet = 0;
    for _ in 0..20 {
        quiet += usize::from(feed.changes().await.unwrap().is_empty());
        store.find_user("alice").await.unwrap();
    }
    // The server itself may write now and then, as when it cleans up.
    assert!(quiet > 10, "{quiet}");
}
