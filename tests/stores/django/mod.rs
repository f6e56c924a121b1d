//! An adopted Django database: a copy of the recorded one, with Django's own rows.

mod adopt;
mod keys;
mod sessions;
mod users;

use aws_lc_rs::{digest, hmac};
use data_encoding::BASE64URL_NOPAD;
use doorward::clock::UnixSeconds;
use doorward::config::UserTable;
use doorward::django::{Keys, Session, encode, format_datetime};
use doorward::secret::Secret;
use doorward::store::StoreError;
use doorward::store::django::{Django, DjangoSettings};
use doorward::store::sqlite::{Sqlite, SqliteOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// 2027-01-15, when the sessions of the fixture are good.
pub(crate) const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
pub(crate) const SECRET_KEY: &str = "doorward-golden-secret-key-0123456789-abcdefghijklmnopqrstuvwxyz";
pub(crate) const OLD_SECRET_KEY: &str = "doorward-OLD-secret-key-9876543210-zyxwvutsrqponmlkjihgfedcba";
pub(crate) const BACKEND: &str = "django.contrib.auth.backends.ModelBackend";

/// The database of a site, and doorward's own beside it.
struct Site {
    directory: TempDir,
}

impl Site {
    const IS_SQLITE: bool = true;

    fn new() -> Self {
        let site = Self { directory: tempfile::tempdir().unwrap() };
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/fixture.sqlite3");
        std::fs::copy(fixture, site.path()).unwrap();
        site
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("db.sqlite3")
    }

    async fn own(&self) -> Sqlite {
        Sqlite::open(&self.directory.path().join("doorward.db"), SqliteOptions::default()).await.unwrap()
    }

    async fn open(&self) -> Django {
        self.open_with(settings()).await.unwrap()
    }

    async fn open_with(&self, settings: DjangoSettings) -> Result<Django, StoreError> {
        let options = SqliteOptions {
            write_wait: Duration::from_millis(500),
            read_wait: Duration::from_millis(500),
            ..SqliteOptions::default()
        };
        Django::open(&self.path(), options, self.own().await, settings, NOW).await
    }

    /// Why it cannot be adopted.
    async fn refused(&self, settings: DjangoSettings) -> String {
        match Box::pin(self.open_with(settings)).await {
            Err(StoreError::NotAdoptable(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    /// A connection such as Django's.
    async fn django(&self) -> SqliteConnection {
        SqliteConnectOptions::new().filename(self.path()).foreign_keys(false).connect().await.unwrap()
    }

    /// One connection, one statement.
    async fn run(&self, statement: impl Into<String>) {
        run(&mut self.django().await, statement).await;
    }

    async fn text(&self, query: impl Into<String>) -> Option<String> {
        let query = sqlx::query_scalar(AssertSqlSafe(query.into()));
        query.fetch_optional(&mut self.django().await).await.unwrap().flatten()
    }

    async fn count(&self, query: impl Into<String>) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(query.into())).fetch_one(&mut self.django().await).await.unwrap()
    }

    /// A session as Django writes it.
    async fn session(&self, key: &str, session: &Session, keys: &Keys) {
        self.row(key, &encode(session, keys, NOW.0), "2100-01-01 00:00:00").await;
    }

    async fn row(&self, key: &str, data: &str, expires: &str) {
        self.run(format!(
            "INSERT INTO django_session (session_key, session_data, expire_date) VALUES ('{key}', '{data}', '{expires}')"
        ))
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

async fn run(connection: &mut SqliteConnection, statement: impl Into<String>) {
    sqlx::query(AssertSqlSafe(statement.into())).execute(connection).await.unwrap();
}

pub(crate) fn keys() -> Keys {
    Keys::new(&Secret::new(SECRET_KEY), &[Secret::new(OLD_SECRET_KEY)])
}

/// As long as only the old key was known.
pub(crate) fn old_keys() -> Keys {
    Keys::new(&Secret::new(OLD_SECRET_KEY), &[])
}

pub(crate) fn settings() -> DjangoSettings {
    DjangoSettings {
        keys: keys(),
        backends: vec![BACKEND.to_owned()],
        user: UserTable::default(),
        needs_keys: true,
        needs_sessions: true,
    }
}

pub(crate) fn datetime(moment: UnixSeconds) -> String {
    format_datetime(moment.0, 0)
}

/// A session's data as `django.core.signing.dumps` signs it, whatever is in it.
pub(crate) fn signed(json: &str, secret_key: &str) -> String {
    let salt = format!("django.contrib.sessions.SessionStoresigner{secret_key}");
    let key = digest::digest(&digest::SHA256, salt.as_bytes());
    let text = format!("{}:1xUtP1", BASE64URL_NOPAD.encode(json.as_bytes()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()), text.as_bytes());
    format!("{text}:{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}
