//! The suite on PostgreSQL, and what is PostgreSQL's own.

use crate::server::{Machine, Site, machines, sites};
use crate::server::{connect, try_connect};
use crate::services::postgres::Postgres;
use crate::suite::{Done as _, Opening, claims, digest, reported, token, user};
use doorward::store::{Change, NewUser, Store as _, StoreError, TokenStore as _, UserStore as _};
use sqlx::{Connection as _, PgConnection};
use std::any::Any;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// A database on the server that the tests share.
struct Database(crate::services::postgres::Database<'static>);

impl Database {
    fn new() -> Self {
        Self(Postgres::shared().database())
    }

    fn open(&self) -> Opening {
        crate::server::open(self.0.url())
    }
}

impl Site for Database {
    fn url(&self) -> String {
        self.0.url()
    }

    fn sql(&self, text: &str) -> String {
        self.0.psql(text)
    }

    fn hold(&self, text: &'static str) -> Pin<Box<dyn Future<Output = Box<dyn Any + Send>> + Send + '_>> {
        Box::pin(async move {
            let mut connection = PgConnection::connect(&self.0.url()).await.unwrap();
            sqlx::raw_sql("BEGIN").execute(&mut connection).await.unwrap();
            sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
            Box::new(connection) as Box<dyn Any + Send>
        })
    }
}

/// A server of a test's own, with one database.
struct Own {
    server: Postgres,
    url: String,
}

impl Own {
    fn start() -> Self {
        let server = Postgres::start();
        let url = server.database().url();
        Self { server, url }
    }
}

impl Machine for Own {
    fn url(&self) -> String {
        self.url.clone()
    }

    fn pause(&self) {
        self.server.pause();
    }

    fn resume(&self) {
        self.server.resume();
    }

    fn kill(&mut self) {
        self.server.kill();
    }

    fn restart(&mut self) {
        self.server.restart();
    }
}

claims! { Database, suite:
    absent_is_not_an_error
    canary_is_refused_and_listed_nowhere
    many_canaries_are_deleted_or_pruned_and_nothing_else_is
    names_are_exact
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

sites! { Database:
    changes_of_many_writers_have_numbers_without_gaps
    lock_of_another_client_stops_writes_only
    dropped_write_leaves_no_lock_behind
    what_a_foreign_client_changes_is_told
    numbers_that_went_back_void_everything
    newer_schema_is_refused_and_left_alone
    tables_of_another_program_are_refused
    many_processes_may_start_at_once
}

machines! { Own:
    server_that_hangs_is_unavailable_and_comes_back
    server_that_is_killed_is_unavailable_and_comes_back
    server_that_starts_again_between_two_look_ups_is_not_noticed
}

#[tokio::test]
async fn bell_rings_at_a_change_and_never_too_late() {
    let database = Database::new();
    let store = connect(&database.url()).await;
    let alice = store.insert_user(user("alice")).await.done();
    let mut feed = store.change_feed().await.unwrap();
    // Until somebody listens, the whole time is waited.
    let long = Duration::from_secs(20);
    let mut rang = Duration::MAX;
    for number in 0..20 {
        let write = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            store.insert_token(token(number, alice)).await.done();
            Instant::now()
        };
        let wait = async {
            feed.wait(long).await;
            Instant::now()
        };
        let (written, heard) = tokio::join!(write, wait);
        rang = rang.min(heard.saturating_duration_since(written));
        // The first time it only begins to listen.
        let expected =
            if number == 0 { feed.changes().await.unwrap().changes } else { reported(&mut feed).await };
        assert!(number == 0 || expected == [Change::Credential(digest(number))], "{number}: {expected:?}");
    }
    assert!(rang < Duration::from_millis(50), "{rang:?}");
    let asked = Instant::now();
    feed.wait(Duration::from_millis(100)).await;
    assert!(asked.elapsed() < Duration::from_secs(5), "nothing happened, and it was not waited for longer");
}

/// Somebody holds the tokens, and look-ups that wait for them have all connections that read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn look_ups_that_wait_keep_nobody_from_watching() {
    let site = Database::new();
    let store = connect(&site.url()).await;
    let alice = store.insert_user(user("alice")).await.done();
    let mut feed = store.change_feed().await.unwrap();
    assert_eq!(feed.changes().await.unwrap().changes, []);
    let held = site.hold("LOCK TABLE token IN ACCESS EXCLUSIVE MODE").await;
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.find_token(digest(1)).await })
        })
        .collect();
    // As many as there are connections, unless some of the others have given up already.
    crate::services::until("look-ups that wait for the lock", || {
        let waiting = "SELECT count(*) > 7 FROM pg_locks WHERE relation = 'token'::regclass AND NOT granted";
        (site.sql(waiting) == "t").then_some(())
    });
    assert!(store.set_groups(alice, vec!["g".to_owned()]).await.done());
    let told = timeout(Duration::from_secs(1), feed.changes()).await.unwrap().unwrap();
    assert_eq!(told.changes, [Change::User(alice)]);
    assert!(asking.iter().any(|asking| !asking.is_finished()), "it was told while they waited");
    drop(held);
}

#[tokio::test]
async fn tables_that_are_emptied_at_a_stroke_void_everything() {
    let database = Database::new();
    let store = connect(&database.url()).await;
    let alice = store.insert_user(NewUser { groups: vec!["g".to_owned()], ..user("alice") }).await.done();
    store.insert_token(token(1, alice)).await.done();
    for table in ["token", "session", "membership", "\"user\" CASCADE"] {
        let mut feed = store.change_feed().await.unwrap();
        database.sql(&format!("TRUNCATE {table}"));
        assert_eq!(reported(&mut feed).await, [Change::Everything], "{table}");
    }
}

#[tokio::test]
async fn whatever_the_search_path_of_a_foreign_client_changes_are_told() {
    let database = Database::new();
    let store = connect(&database.url()).await;
    store.insert_user(user("alice")).await.done();
    let mut feed = store.change_feed().await.unwrap();
    database.sql("SET search_path = pg_catalog; UPDATE public.\"user\" SET is_active = FALSE");
    assert_eq!(reported(&mut feed).await.len(), 1);
}

#[tokio::test]
async fn a_schema_of_its_own_is_enough() {
    let database = Database::new();
    database.sql("CREATE TABLE public.something (id INTEGER); CREATE SCHEMA gateway AUTHORIZATION doorward");
    let refused = try_connect(&database.url()).await;
    assert!(matches!(refused, Err(StoreError::NotAdoptable(_))), "{refused:?}");
    let url = format!("{}?options=-c%20search_path=gateway", database.url());
    let store = connect(&url).await;
    store.insert_user(user("alice")).await.done();
    assert_eq!(database.sql("SELECT username FROM gateway.\"user\""), "alice");
    let nowhere = format!("{}?options=-c%20search_path=nowhere", database.url());
    let refused = try_connect(&nowhere).await;
    assert!(matches!(refused, Err(StoreError::NotAdoptable(_))), "{refused:?}");
}

#[tokio::test]
async fn a_database_that_only_reads_refuses_writes_and_answers() {
    let database = Database::new();
    let store = connect(&database.url()).await;
    let alice = store.insert_user(user("alice")).await.done();
    store.insert_token(token(1, alice)).await.done();
    store.close().await;
    database.sql(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.0.name));
    let store = connect(&database.url()).await;
    assert!(store.find_token(digest(1)).await.unwrap().is_some());
    let refused = store.set_active(alice, false).await;
    assert!(matches!(refused, Err(StoreError::NotWritten(_))), "{refused:?}");
    assert!(store.find_user("alice").await.unwrap().unwrap().user.is_active);
}

#[tokio::test]
async fn a_wrong_password_is_no_reason_to_show_the_right_one() {
    let database = Database::new();
    let url = database.url().replace(crate::services::postgres::PASSWORD, "another-password");
    let refused = try_connect(&url).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused:?}");
    assert!(!format!("{refused:?} {refused}").contains("another-password"));
}

#[tokio::test]
async fn certificates_are_verified() {
    let directory = crate::services::process::directory();
    let identity = crate::services::authority::certify(directory.path());
    let (certificate, key) = (identity.certificate.display(), identity.key.display());
    let settings = format!("ssl = on\nssl_cert_file = '{certificate}'\nssl_key_file = '{key}'\n");
    let server = Postgres::start_with(&settings);
    let url = server.database().url();
    let verifies = "sslmode=verify-full";
    crate::server::certificate_is_verified_where_the_url_says_so(&url, verifies, &identity.authority).await;
    let named = format!("{url}?{verifies}&sslrootcert={}", identity.authority.display());
    let store = connect(&named).await;
    let encrypted = server.psql(
        "postgres",
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'doorward'",
    );
    assert_eq!(encrypted, "t");
    drop(store);
}
