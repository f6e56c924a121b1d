//! The suite on SQLite, and what is SQLite's own: the file, its lock, its schema, foreign tools that write to it.

use crate::suite::{Done as _, NOW, Opening, claims, digest, reported, token, user};
use doorward::identity::UserId;
use doorward::store::manage::ManageUsers as _;
use doorward::store::sqlite::{Sqlite, SqliteOptions};
use doorward::store::{Change, NewUser, Store, StoreError, TokenStore as _, UserStore as _};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;
use tempfile::TempDir;

/// Much longer than anything here takes; a test that reaches it has found a hang.
const HANG: Duration = Duration::from_secs(30);

/// A file in a directory that goes away.
struct Database {
    directory: TempDir,
}

impl Database {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("doorward.db")
    }

    fn open(&self) -> Opening {
        let path = self.path();
        Box::pin(async move {
            let store = Sqlite::open(&path, SqliteOptions::default()).await.unwrap();
            Box::new(store) as Box<dyn Store>
        })
    }

    async fn open_sqlite(&self) -> Sqlite {
        Sqlite::open(&self.path(), SqliteOptions::default()).await.unwrap()
    }

    /// A connection that knows nothing of doorward, as a shell's.
    async fn foreign(&self) -> SqliteConnection {
        SqliteConnectOptions::new().filename(self.path()).foreign_keys(false).connect().await.unwrap()
    }
}

async fn run(connection: &mut SqliteConnection, statement: &'static str) {
    sqlx::query(statement).execute(connection).await.unwrap();
}

claims! { Database, suite:
    absent_is_not_an_error
    canary_is_refused_and_listed_nowhere
    many_canaries_are_deleted_or_pruned_and_nothing_else_is
    names_are_exact
    names_may_hold_a_null_character
    user_is_read_as_written
    user_is_changed_as_told
    token_finds_its_user
    user_has_many_named_tokens
    deleted_token_is_gone
    granted_token_displaces_the_least_recently_used
    grant_is_void_if_the_user_changed_since_the_password_was_checked
    uses_are_written_and_void_nothing
    taken_names_conflict
    token_of_nobody_is_not_written
    deleted_user_takes_the_tokens_along
    feed_reports_each_kind_of_write
    feed_starts_where_it_was_opened
    writes_that_find_nothing_are_silent
    lagging_feed_believes_nothing_after_a_prune
    prune_keeps_what_feeds_may_not_have_read
    prune_deletes_tokens_long_expired
    too_many_changes_are_everything
    writes_tell_what_the_feed_tells
    large_write_says_that_everything_changed
    answers_say_as_of_which_change_they_hold
    history_is_what_was_not_pruned
}

claims! { Database, manage:
    user_is_updated_in_part
    users_are_listed_with_what_they_have
    many_users_are_found_by_exact_name
    membership_changes_touch_no_other_group
    tokens_are_paged_in_the_order_of_storing
    replaced_tokens_are_gone_and_nothing_is_lost_if_it_fails
    batch_is_stored_whole_or_not_at_all
    taken_digests_are_told
}

#[tokio::test]
async fn file_is_its_owners_alone() {
    let database = Database::new();
    let store = database.open_sqlite().await;
    store.insert_user(user("alice")).await.done();
    let mut modes: Vec<_> = fs::read_dir(database.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().permissions().mode() & 0o777)
        })
        .collect();
    modes.sort();
    let expected = ["doorward.db", "doorward.db-shm", "doorward.db-wal"].map(|name| (name.to_owned(), 0o600));
    assert_eq!(modes, expected);
}

#[tokio::test]
async fn newer_schema_is_refused_and_left_alone() {
    let database = Database::new();
    database.open_sqlite().await.close().await;
    let mut foreign = database.foreign().await;
    run(
        &mut foreign,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
            VALUES (9999, 'of the future', TRUE, x'00', 0)",
    )
    .await;
    foreign.close().await.unwrap();
    let before = fs::read(database.path()).unwrap();
    let refused = Sqlite::open(&database.path(), SqliteOptions::default()).await;
    assert!(matches!(refused, Err(StoreError::SchemaNewer)), "{refused:?}");
    assert_eq!(fs::read(database.path()).unwrap(), before);
}

#[tokio::test]
async fn missing_directory_is_unavailable() {
    let database = Database::new();
    let path = database.directory.path().join("missing").join("doorward.db");
    let refused = Sqlite::open(&path, SqliteOptions::default()).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_may_start_at_once_on_a_new_file() {
    let database = Database::new();
    let opens: Vec<_> = (0..8)
        .map(|_| {
            let path = database.path();
            tokio::spawn(async move { Sqlite::open(&path, SqliteOptions::default()).await })
        })
        .collect();
    for open in opens {
        let store = open.await.unwrap().unwrap();
        assert!(store.list_users().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn lock_of_another_process_stops_writes_only() {
    let database = Database::new();
    let store = database.open_sqlite().await;
    let alice = store.insert_user(user("alice")).await.done();
    store.insert_token(token(1, alice)).await.done();
    let mut feed = store.change_feed().await.unwrap();
    let mut foreign = database.foreign().await;
    run(&mut foreign, "BEGIN IMMEDIATE").await;
    let write = tokio::spawn({
        let store = store.clone();
        async move { store.set_groups(alice, vec!["g".to_owned()]).await }
    });
    let reads = async {
        assert!(store.find_token(digest(1)).await.unwrap().is_some());
        assert_eq!(feed.changes().await.unwrap().changes, []);
        assert!(
            Sqlite::open(&database.path(), SqliteOptions::default()).await.is_ok(),
            "a start needs no lock"
        );
        assert!(!write.is_finished(), "the reads were answered while the write waited");
    };
    tokio::time::timeout(Duration::from_secs(2), reads).await.unwrap();
    let refused = tokio::time::timeout(Duration::from_secs(5), write).await.unwrap().unwrap();
    assert!(matches!(refused, Err(StoreError::NotWritten(_))), "{refused:?}");
    run(&mut foreign, "COMMIT").await;
    assert_eq!(feed.changes().await.unwrap().changes, [], "nothing is half done");
    assert!(store.set_groups(alice, vec!["g".to_owned()]).await.done());
    assert_eq!(reported(&mut feed).await, [Change::User(alice)]);
}

#[tokio::test]
async fn dropped_write_leaves_no_lock_behind() {
    let database = Database::new();
    let store = database.open_sqlite().await;
    let alice = store.insert_user(user("alice")).await.done();
    // Dropped after each number of polls there can be, from before the beginning to after the end.
    for polls in 0..40 {
        let mut write = store.set_groups(alice, vec![format!("group {polls}"), "g".to_owned()]);
        for _ in 0..polls {
            let pending = is_pending_after_poll(&mut write).await;
            if !pending {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(write);
        let active = tokio::time::timeout(HANG, store.set_active(alice, true)).await.unwrap();
        assert!(active.done(), "after {polls} polls");
        let mut foreign = database.foreign().await;
        run(&mut foreign, "BEGIN IMMEDIATE").await;
        run(&mut foreign, "ROLLBACK").await;
        let groups = store.find_user("alice").await.unwrap().unwrap().user.groups;
        assert!(matches!(groups.len(), 0 | 2), "all or nothing, not {groups:?}");
    }
}

/// Polls once; whether it is still pending.
async fn is_pending_after_poll<T>(future: &mut Pin<Box<dyn Future<Output = T> + Send + '_>>) -> bool {
    std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

#[tokio::test]
async fn foreign_writes_are_reported() {
    let database = Database::new();
    let store = database.open_sqlite().await;
    let alice = store.insert_user(NewUser { groups: vec!["g".to_owned()], ..user("alice") }).await.done();
    let bob = store.insert_user(user("bob")).await.done();
    store.insert_token(token(1, alice)).await.done();
    let mut feed = store.change_feed().await.unwrap();
    let mut foreign = database.foreign().await;
    for (statement, expected) in [
        ("UPDATE user_group SET name = 'h'", vec![Change::User(alice)]),
        ("UPDATE user SET email = 'a@example.org' WHERE username = 'alice'", vec![Change::User(alice)]),
        ("UPDATE user SET is_staff = 1 WHERE username = 'bob'", vec![Change::User(bob)]),
        ("UPDATE user SET not_before = 5 WHERE username = 'bob'", vec![Change::User(bob)]),
        ("UPDATE user SET username = 'robert' WHERE username = 'bob'", vec![Change::User(bob)]),
        ("UPDATE token SET expires_at = 5", vec![Change::Credential(digest(1))]),
        ("UPDATE token SET user_id = 2", vec![Change::Credential(digest(1))]),
        ("DELETE FROM user_group", vec![Change::User(alice)]),
        ("DELETE FROM token", vec![Change::Credential(digest(1))]),
        ("DELETE FROM user", vec![Change::User(alice), Change::User(bob)]),
    ] {
        run(&mut foreign, statement).await;
        assert_eq!(reported(&mut feed).await, expected, "{statement}");
    }
}

#[tokio::test]
async fn replaced_digest_is_reported_with_the_new_one() {
    let database = Database::new();
    let store = database.open_sqlite().await;
    let alice = store.insert_user(user("alice")).await.done();
    store.insert_token(token(1, alice)).await.done();
    let mut feed = store.change_feed().await.unwrap();
    let mut foreign = database.foreign().await;
    sqlx::query("UPDATE token SET digest = ?")
        .bind(digest(2).0.to_vec())
        .execute(&mut foreign)
        .await
        .unwrap();
    assert_eq!(
        feed.changes().await.unwrap().changes,
        [Change::Credential(digest(1)), Change::Credential(digest(2))]
    );
}

#[tokio::test]
async fn writes_that_void_nothing_are_silent() {
    let database = Database::new();
    let store = database.open_sqlite().await;
    let alice = store.insert_user(user("alice")).await.done();
    store.insert_token(token(1, alice)).await.done();
    let mut feed = store.change_feed().await.unwrap();
    let mut foreign = database.foreign().await;
    run(&mut foreign, "UPDATE token SET last_used_at = 5, name = 'renamed'").await;
    run(&mut foreign, "INSERT INTO user_group (name) VALUES ('empty')").await;
    run(&mut foreign, "DELETE FROM user_group WHERE name = 'empty'").await;
    run(&mut foreign, "CREATE TABLE other (x)").await;
    assert_eq!(feed.changes().await.unwrap().changes, []);
    assert_eq!(store.list_tokens(None).await.unwrap()[0].last_used, Some(doorward::clock::UnixSeconds(5)));
}

#[tokio::test]
async fn rolled_back_write_leaves_no_gap() {
    let database = Database::new();
    let store = database.open_sqlite().await;
    let alice = store.insert_user(user("alice")).await.done();
    let mut feed = store.change_feed().await.unwrap();
    let mut foreign = database.foreign().await;
    run(&mut foreign, "BEGIN").await;
    run(&mut foreign, "UPDATE user SET is_active = 0").await;
    run(&mut foreign, "ROLLBACK").await;
    store.insert_token(token(1, alice)).await.done();
    assert_eq!(feed.changes().await.unwrap().changes, [Change::Credential(digest(1))]);
}

#[tokio::test]
async fn token_whose_user_is_gone_is_absent() {
    let database = Database::new();
    let store = database.open_sqlite().await;
    let alice = store.insert_user(user("alice")).await.done();
    store.insert_token(token(1, alice)).await.done();
    // Without foreign keys the token stays behind.
    run(&mut database.foreign().await, "DELETE FROM user").await;
    assert!(store.find_token(digest(1)).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_commit_is_lost_between_polls() {
    let database = Database::new();
    let store = database.open_sqlite().await;
    let alice = store.insert_user(user("alice")).await.done();
    let mut feed = database.open().await.change_feed().await.unwrap();
    let writer = tokio::spawn(async move {
        for number in 0..200 {
            store.insert_token(token(number, alice)).await.done();
        }
    });
    let mut seen = Vec::new();
    let follow = async {
        while seen.len() < 200 {
            seen.extend(feed.changes().await.unwrap().changes);
        }
    };
    tokio::time::timeout(HANG, follow).await.unwrap();
    writer.await.unwrap();
    assert_eq!(seen, (0..200).map(|number| Change::Credential(digest(number))).collect::<Vec<_>>());
}

#[tokio::test]
async fn closed_store_answers_with_errors() {
    let database = Database::new();
    let store = database.open_sqlite().await;
    store.close().await;
    assert!(matches!(store.find_token(digest(1)).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.delete_user(UserId(1)).await, Err(StoreError::NotWritten(_))));
    assert!(matches!(store.prune(NOW).await, Err(StoreError::NotWritten(_))));
}

/// A backup is put back while the store is in use.
#[tokio::test]
async fn a_file_that_takes_the_place_of_another_is_read_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (path, other) = (directory.path().join("d.db"), directory.path().join("e.db"));
    for (path, name) in [(&path, "alice"), (&other, "bob")] {
        let store = Sqlite::open(path, SqliteOptions::default()).await.unwrap();
        store.insert_user(user(name)).await.done();
        store.close().await;
    }
    let store = Sqlite::open(&path, SqliteOptions::default()).await.unwrap();
    let mut feed = store.change_feed().await.unwrap();
    assert!(store.find_user("alice").await.unwrap().is_some());
    fs::rename(&path, directory.path().join("old.db")).unwrap();
    assert!(feed.changes().await.is_err(), "there is none");
    assert!(store.find_user("alice").await.is_err(), "and what was open before is not asked");
    fs::rename(&other, &path).unwrap();
    assert_eq!(feed.changes().await.unwrap().changes, [Change::Everything]);
    assert!(store.find_user("alice").await.unwrap().is_none());
    assert!(store.find_user("bob").await.unwrap().is_some());
    store.insert_user(user("carol")).await.done();
    assert!(store.find_user("carol").await.unwrap().is_some());
}

/// Not even its journal is touched.
#[tokio::test]
async fn a_file_of_another_program_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d.db");
    fs::copy("tests/conformance/fixture.sqlite3", &path).unwrap();
    let before = fs::read(&path).unwrap();
    let refused = Sqlite::open(&path, SqliteOptions::default()).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotAdoptable(_)), "{refused:?}");
    assert_eq!(fs::read(&path).unwrap(), before);
}
