//! What is looked at before a database is adopted, and that nothing of it is changed.

use super::{BACKEND, NOW, Site, run, settings};
use crate::suite::Done as _;
use doorward::config::{GroupTable, UserTable};
use doorward::identity::UserId;
use doorward::secret::Secret;
use doorward::store::django::DjangoSettings;
use doorward::store::session::{NewSession, SessionStore as _};
use doorward::store::{
    Change, ChangeFeed, KeyRequest, KeyStore as _, Store as _, StoreError, UserStore as _,
};
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test]
async fn neither_the_schema_nor_the_mode_of_the_file_is_changed() {
    let schema = "SELECT group_concat(type || name || coalesce(sql, ''), ';') FROM
        (SELECT * FROM sqlite_schema ORDER BY type, name)";
    for mode in ["delete", "wal"] {
        let site = Site::new();
        site.run(format!("PRAGMA journal_mode = {mode}")).await;
        let before = site.text(schema).await.unwrap();
        let store = site.open().await;
        let bob = store.find_user("bob").await.unwrap().unwrap().user;
        let key = KeyRequest {
            user: bob.id,
            password_version: bob.password_version,
            new: Secret::new("k".repeat(40)),
            now: NOW,
        };
        store.obtain_key(key).await.done().unwrap();
        let session = NewSession {
            key: Secret::new("s".repeat(32)),
            old: None,
            user: bob.id,
            password_version: bob.password_version,
            csrf_secret: None,
            now: NOW,
            expires: NOW,
        };
        assert!(store.insert_session(session).await.done());
        store.prune(NOW).await.unwrap();
        store.close().await.unwrap();
        assert_eq!(site.text(schema).await.unwrap(), before);
        assert_eq!(site.text("PRAGMA journal_mode").await.unwrap(), mode);
        assert_eq!(site.text("PRAGMA integrity_check").await.unwrap(), "ok");
    }
}

#[tokio::test]
async fn what_is_missing_is_named() {
    for (statement, names) in [
        ("DROP TABLE auth_user", ["auth_user", "no such table"]),
        ("ALTER TABLE auth_user DROP COLUMN is_staff", ["auth_user", "is_staff"]),
        ("DROP TABLE auth_group", ["auth_group", "no such table"]),
        ("DROP TABLE auth_user_groups", ["auth_user_groups", "no such table"]),
        ("DROP TABLE authtoken_token", ["authtoken_token", "no such table"]),
        ("ALTER TABLE authtoken_token DROP COLUMN created", ["authtoken_token", "created"]),
        ("DROP TABLE django_session", ["django_session", "no such table"]),
        ("ALTER TABLE django_session RENAME COLUMN expire_date TO ends", ["django_session", "expire_date"]),
    ] {
        let site = Site::new();
        site.run(statement).await;
        let text = site.refused(settings()).await;
        assert!(names.iter().all(|name| text.contains(name)), "{statement}: {text}");
    }
}

#[tokio::test]
async fn what_nobody_asks_for_may_be_missing() {
    let site = Site::new();
    site.run("DROP TABLE authtoken_token").await;
    site.run("DROP TABLE django_session").await;
    let settings = DjangoSettings { needs_keys: false, needs_sessions: false, ..settings() };
    assert!(site.open_with(settings).await.unwrap().find_user("alice").await.unwrap().is_some());
}

#[tokio::test]
async fn a_file_that_is_not_there_is_not_made() {
    let site = Site::new();
    std::fs::remove_file(site.path()).unwrap();
    let text = site.refused(settings()).await;
    assert!(text.contains("no such file"), "{text}");
    assert!(!site.path().exists());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_told() {
    let site = Site::new();
    std::fs::write(site.path(), "x".repeat(10_000)).unwrap();
    let text = site.refused(settings()).await;
    assert!(text.contains("not a database"), "{text}");
    assert_eq!(std::fs::read_to_string(site.path()).unwrap(), "x".repeat(10_000));
}

#[tokio::test]
async fn ids_that_are_no_numbers_are_told() {
    let site = Site::new();
    site.run("CREATE TABLE person (id text PRIMARY KEY, username text, password text)").await;
    site.run("INSERT INTO person VALUES ('8f14e45f-ceea-467f-9c5b-0d1e2f3a4b5c', 'alice', '!')").await;
    let text = site.refused(DjangoSettings { user: bare_table("person", "id"), ..settings() }).await;
    assert!(text.contains("person") && text.contains("number"), "{text}");
}

#[tokio::test]
async fn an_own_store_with_users_of_its_own_is_refused() {
    let site = Site::new();
    let own = site.own().await;
    own.insert_user(crate::suite::user("carol")).await.done();
    own.close().await;
    let text = site.refused(settings()).await;
    assert!(text.contains("[store.own]"), "{text}");
    // Whoever has tokens here is mirrored, and in nobody's way.
    let site = Site::new();
    let store = site.open().await;
    doorward::store::TokenStore::insert_token(&store, crate::suite::token(1, UserId(1))).await.done();
    store.close().await.unwrap();
    site.open().await;
}

/// Columns that every user model has.
fn bare_table(table: &str, id: &str) -> UserTable {
    UserTable {
        table: table.to_owned(),
        id: id.to_owned(),
        is_active: None,
        is_staff: None,
        email: None,
        last_login: None,
        groups: None,
        ..UserTable::default()
    }
}

#[tokio::test]
async fn users_may_be_in_another_table_of_fewer_columns() {
    let site = Site::new();
    let mut django = site.django().await;
    run(&mut django, "CREATE TABLE accounts_person (person_id integer PRIMARY KEY, login text, secret text)")
        .await;
    run(&mut django, "INSERT INTO accounts_person SELECT id, username, password FROM auth_user").await;
    run(&mut django, "DROP TABLE auth_user").await;
    run(&mut django, "DROP TABLE auth_user_groups").await;
    let user = UserTable {
        username: "login".to_owned(),
        password: "secret".to_owned(),
        ..bare_table("accounts_person", "person_id")
    };
    let store = site.open_with(DjangoSettings { user, ..settings() }).await.unwrap();
    let found = store.find_user("inactive_ivan").await.unwrap().unwrap().user;
    assert_eq!((found.id, found.is_active, found.is_staff), (UserId(3), true, false));
    assert!(found.groups.is_empty() && found.email.is_empty());
    let key = Secret::new("a39990a3bb4dde2db07439908a3211415a63c790");
    assert_eq!(&*store.find_key(key).await.unwrap().unwrap().username, "alice");
    let sessions = NewSession {
        key: Secret::new("s".repeat(32)),
        old: None,
        user: found.id,
        password_version: found.password_version,
        csrf_secret: None,
        now: NOW,
        expires: NOW,
    };
    assert!(store.insert_session(sessions).await.done());
    assert!(matches!(store.set_active(UserId(3), false).await, Err(StoreError::Foreign(_))));
    assert!(store.set_password(UserId(3), Secret::new("!")).await.done());
    assert_eq!(site.text("SELECT secret FROM accounts_person WHERE person_id = 3").await.unwrap(), "!");
}

#[tokio::test]
async fn columns_without_a_value_are_nothing() {
    let site = Site::new();
    let mut django = site.django().await;
    run(
        &mut django,
        "CREATE TABLE person (id integer PRIMARY KEY, username text, password text, email text, is_staff bool,
            is_active bool)",
    )
    .await;
    run(&mut django, "INSERT INTO person VALUES (1, 'alice', NULL, NULL, NULL, 1)").await;
    run(&mut django, "INSERT INTO person VALUES (2, 'bob', 'x', NULL, NULL, NULL)").await;
    let column = |name: &str| Some(name.to_owned());
    let user = UserTable {
        email: column("email"),
        is_staff: column("is_staff"),
        is_active: column("is_active"),
        ..bare_table("person", "id")
    };
    let store = site.open_with(DjangoSettings { user, ..settings() }).await.unwrap();
    let alice = store.find_user("alice").await.unwrap().unwrap();
    assert!(alice.user.is_active && !alice.user.is_staff && alice.user.email.is_empty());
    assert!(alice.password.expose().is_empty(), "no password");
    assert!(!store.find_user("bob").await.unwrap().unwrap().user.is_active);
}

#[tokio::test]
async fn groups_may_be_in_another_table() {
    let site = Site::new();
    let mut django = site.django().await;
    run(
        &mut django,
        "CREATE TABLE person_groups (id integer PRIMARY KEY, person_id integer, group_id integer)",
    )
    .await;
    run(&mut django, "INSERT INTO auth_group (id, name) VALUES (1, 'ops'), (2, 'eng')").await;
    run(&mut django, "INSERT INTO person_groups (person_id, group_id) VALUES (1, 1), (1, 2), (2, 2)").await;
    let groups = GroupTable { table: "person_groups".to_owned(), user: "person_id".to_owned() };
    let user = UserTable { groups: Some(groups), ..UserTable::default() };
    let store = site.open_with(DjangoSettings { user, ..settings() }).await.unwrap();
    let alice = store.find_user("alice").await.unwrap().unwrap().user;
    assert_eq!(alice.groups.iter().map(|group| &**group).collect::<Vec<_>>(), ["eng", "ops"]);
}

#[tokio::test]
async fn feed_says_that_somebody_wrote_and_otherwise_nothing() {
    for mode in ["delete", "wal"] {
        let site = Site::new();
        site.run(format!("PRAGMA journal_mode = {mode}")).await;
        let store = site.open().await;
        let mut django = site.django().await;
        let mut feed: Box<dyn ChangeFeed> = store.change_feed().await.unwrap();
        assert_eq!(feed.changes().await.unwrap().changes, []);
        run(&mut django, "SELECT count(*) FROM auth_user").await;
        store.find_user("alice").await.unwrap();
        assert_eq!(feed.changes().await.unwrap().changes, [], "{mode}: reading is no change");
        run(&mut django, "UPDATE auth_user SET is_active = 0 WHERE id = 1").await;
        assert_eq!(feed.changes().await.unwrap().changes, [Change::Something], "{mode}");
        assert_eq!(feed.changes().await.unwrap().changes, [], "{mode}: told once");
        // Of the own store it says more.
        doorward::store::TokenStore::insert_token(&store, crate::suite::token(1, UserId(1))).await.done();
        let told = feed.changes().await.unwrap().changes;
        assert!(told.contains(&Change::Credential(crate::suite::digest(1))), "{told:?}");
        assert!(!told.contains(&Change::Something), "{told:?}");
    }
}

#[tokio::test]
async fn a_locked_database_is_waited_for_but_not_for_ever() {
    let site = Site::new();
    let store = site.open().await;
    let mut django = site.django().await;
    run(&mut django, "BEGIN EXCLUSIVE").await;
    let since = Instant::now();
    assert!(matches!(store.find_user("alice").await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.find_key(Secret::new("x")).await, Err(StoreError::Unavailable(_))));
    let deleted = store.delete_session(Secret::new("x".repeat(32))).await;
    assert!(matches!(deleted, Err(StoreError::NotWritten(_))), "{deleted:?}");
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    run(&mut django, "ROLLBACK").await;
    assert!(store.find_user("alice").await.unwrap().is_some());
    assert!(!store.delete_session(Secret::new("x".repeat(32))).await.done());
}

#[tokio::test]
async fn backends_are_djangos_to_name() {
    let site = Site::new();
    let session = site.session_of(1, &super::keys()).await;
    site.session("sessionkeyofalice", &session, &super::keys()).await;
    let others = DjangoSettings { backends: vec!["site.Backend".to_owned()], ..settings() };
    let store = site.open_with(others).await.unwrap();
    let found = store.find_session(Secret::new("sessionkeyofalice"), NOW).await.unwrap();
    assert!(
        matches!(found, doorward::store::session::FoundSession::Nobody { .. }),
        "{found:?}: not {BACKEND}"
    );
}
