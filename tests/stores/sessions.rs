//! Sessions in doorward's own layout.

use crate::suite::{Done as _, NOW, user};
use doorward::clock::UnixSeconds;
use doorward::identity::{Digest, UserId};
use doorward::secret::Secret;
use doorward::store::session::{FoundSession, NewSession, SessionStore as _, Visit};
use doorward::store::sqlite::{Sqlite, SqliteOptions};
use doorward::store::{
    Change, KeyRequest, KeyStore as _, Store as _, StoreError, TokenStore as _, UserStore as _,
};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;

const KEY: &str = "sessionkeysessionkeysessionkey01";
const OTHER: &str = "sessionkeysessionkeysessionkey02";
const HOUR: i64 = 3600;

struct Site {
    directory: TempDir,
    store: Sqlite,
    alice: UserId,
}

impl Site {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&directory.path().join("d.db"), SqliteOptions::default()).await.unwrap();
        let alice = store.insert_user(user("alice")).await.done();
        Self { directory, store, alice }
    }

    /// Logs alice in.
    async fn log_in(&self, key: &str, old: Option<&str>) -> bool {
        let version = self.store.user_by_id(self.alice).await.unwrap().unwrap().password_version;
        self.store.insert_session(self.wish(key, old, version)).await.done()
    }

    fn wish(&self, key: &str, old: Option<&str>, password_version: i64) -> NewSession {
        NewSession {
            key: Secret::new(key),
            old: old.map(Secret::new),
            user: self.alice,
            password_version,
            csrf_secret: None,
            now: NOW,
            expires: UnixSeconds(NOW.0 + HOUR),
        }
    }

    async fn find(&self, key: &str) -> FoundSession {
        self.store.find_session(Secret::new(key), NOW).await.unwrap()
    }

    async fn is_there(&self, key: &str) -> bool {
        matches!(self.find(key).await, FoundSession::User(_))
    }
}

#[tokio::test]
async fn session_finds_its_user_until_it_expires() {
    let site = Site::new().await;
    assert!(matches!(site.find(KEY).await, FoundSession::Absent));
    assert!(site.log_in(KEY, None).await);
    let found = site.find(KEY).await;
    let FoundSession::User(found) = found else { panic!("{found:?}") };
    assert_eq!((&*found.user.username, found.expires), ("alice", UnixSeconds(NOW.0 + HOUR)));
    for (seconds, is_there) in [(HOUR - 1, true), (HOUR, false)] {
        let now = UnixSeconds(NOW.0 + seconds);
        let found = site.store.find_session(Secret::new(KEY), now).await.unwrap();
        assert_eq!(matches!(found, FoundSession::User(_)), is_there, "{seconds}");
    }
}

#[tokio::test]
async fn a_login_ends_the_session_that_it_came_with() {
    let site = Site::new().await;
    assert!(site.log_in(KEY, None).await);
    assert!(site.log_in(OTHER, Some(KEY)).await);
    assert!(!site.is_there(KEY).await && site.is_there(OTHER).await);
}

#[tokio::test]
async fn a_changed_password_ends_the_sessions() {
    let site = Site::new().await;
    site.log_in(KEY, None).await;
    site.store.set_password(site.alice, Secret::new("$argon2id$2")).await.done();
    assert!(matches!(site.find(KEY).await, FoundSession::Absent));
    // Whose password was checked before gets none.
    assert!(!site.store.insert_session(site.wish(OTHER, Some(KEY), 0)).await.done());
    assert!(site.log_in(OTHER, None).await && site.is_there(OTHER).await);
}

#[tokio::test]
async fn a_deactivated_user_is_told_and_gets_no_session() {
    let site = Site::new().await;
    site.log_in(KEY, None).await;
    site.store.set_active(site.alice, false).await.done();
    let found = site.find(KEY).await;
    assert!(matches!(&found, FoundSession::User(of) if !of.user.is_active), "{found:?}");
    assert!(!site.log_in(OTHER, Some(KEY)).await, "nothing is done");
    assert!(matches!(site.find(KEY).await, FoundSession::User(_)));
}

#[tokio::test]
async fn a_deleted_user_takes_the_sessions_along() {
    let site = Site::new().await;
    site.log_in(KEY, None).await;
    let mut feed = site.store.change_feed().await.unwrap();
    site.store.delete_user(site.alice).await.done();
    assert!(matches!(site.find(KEY).await, FoundSession::Absent));
    assert!(feed.changes().await.unwrap().changes.contains(&Change::Credential(Digest::of(KEY.as_bytes()))));
}

#[tokio::test]
async fn the_end_of_a_session_is_told() {
    let site = Site::new().await;
    site.log_in(KEY, None).await;
    let mut feed = site.store.change_feed().await.unwrap();
    assert!(site.store.delete_session(Secret::new(KEY)).await.done());
    assert_eq!(feed.changes().await.unwrap().changes, [Change::Credential(Digest::of(KEY.as_bytes()))]);
    assert!(!site.store.delete_session(Secret::new(KEY)).await.done());
    assert_eq!(feed.changes().await.unwrap().changes, []);
}

#[tokio::test]
async fn the_key_itself_is_not_in_the_file() {
    let site = Site::new().await;
    site.log_in(KEY, None).await;
    site.store.close().await;
    for entry in std::fs::read_dir(site.directory.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes()));
    }
}

#[tokio::test]
async fn expired_sessions_are_pruned() {
    let site = Site::new().await;
    site.log_in(KEY, None).await;
    site.store.prune(UnixSeconds(NOW.0 + HOUR)).await.unwrap();
    assert!(site.is_there(KEY).await);
    site.store.prune(UnixSeconds(NOW.0 + HOUR + 1)).await.unwrap();
    assert!(!site.is_there(KEY).await);
}

#[tokio::test]
async fn what_only_django_has_is_not_here() {
    let site = Site::new().await;
    assert!(site.store.find_key(Secret::new("x")).await.unwrap().is_none());
    assert!(!site.store.delete_key(Secret::new("x")).await.done());
    let wish = KeyRequest { user: site.alice, password_version: 0, new: Secret::new("x"), now: NOW };
    assert!(matches!(site.store.obtain_key(wish).await, Err(StoreError::Foreign(_))));
    let visit =
        Visit { key: None, new: Secret::new(KEY), csrf_secret: Secret::new("x"), now: NOW, expires: NOW };
    assert!(matches!(site.store.keep_csrf_secret(visit).await, Err(StoreError::Foreign(_))));
}

#[tokio::test]
async fn a_database_of_the_first_release_is_brought_up_to_date() {
    let directory = tempfile::tempdir().unwrap();
    let (path, steps) = (directory.path().join("d.db"), directory.path().join("steps"));
    std::fs::create_dir(&steps).unwrap();
    let first = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite/0001_init.sql");
    std::fs::copy(first, steps.join("0001_init.sql")).unwrap();
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut old = options.connect().await.unwrap();
    sqlx::migrate::Migrator::new(steps).await.unwrap().run(&mut old).await.unwrap();
    for statement in [
        "INSERT INTO user (username, password, email, created_at) VALUES ('alice', '$argon2id$1', '', 0)",
        "INSERT INTO token (public_id, digest, user_id, name, origin, created_at)
            VALUES (1, zeroblob(32), 1, '', 'command', 0)",
    ] {
        sqlx::query(statement).execute(&mut old).await.unwrap();
    }
    old.close().await.unwrap();
    let store = Sqlite::open(&path, SqliteOptions::default()).await.unwrap();
    assert!(store.find_token(Digest([0; 32])).await.unwrap().is_some());
    let site = Site { directory, store, alice: UserId(1) };
    assert!(site.log_in(KEY, None).await && site.is_there(KEY).await);
}
