//! The suite on `MariaDB`, and what is `MariaDB`'s own.

use crate::server::{Machine, Site, machines, sites};
use crate::server::{connect, try_connect};
use crate::services::mariadb::MariaDb;
use crate::suite::{Done as _, Opening, claims, digest, reported, token, user};
use doorward::store::{Change, NewToken, NewUser, Store as _, StoreError, TokenStore as _, UserStore as _};
use sqlx::{Connection as _, MySqlConnection};
use std::any::Any;
use std::pin::Pin;

/// A database on the server that the tests share.
struct Database(crate::services::mariadb::Database<'static>);

impl Database {
    fn new() -> Self {
        Self(MariaDb::shared().database())
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
        self.0.sql(&format!("SET sql_mode = 'ANSI_QUOTES'; {text}"))
    }

    fn hold(&self, text: &'static str) -> Pin<Box<dyn Future<Output = Box<dyn Any + Send>> + Send + '_>> {
        Box::pin(async move {
            let mut connection = MySqlConnection::connect(&self.0.url()).await.unwrap();
            sqlx::raw_sql("START TRANSACTION").execute(&mut connection).await.unwrap();
            sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
            Box::new(connection) as Box<dyn Any + Send>
        })
    }
}

/// A server of a test's own, with one database.
struct Own {
    server: MariaDb,
    url: String,
}

impl Own {
    fn start() -> Self {
        let server = MariaDb::start();
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
async fn steps_that_were_not_taken_to_their_end_are_taken_again() {
    let database = Database::new();
    connect(&database.url()).await.insert_user(user("alice")).await.done();
    // As if it had been killed in the middle.
    database.sql(
        "UPDATE _sqlx_migrations SET success = FALSE; DROP TRIGGER group_deleted; DROP TRIGGER user_deleted; \
         DROP TABLE membership",
    );
    let store = connect(&database.url()).await;
    let alice = store.find_user("alice").await.unwrap().unwrap().user.id;
    store.insert_token(token(1, alice)).await.done();
    let mut feed = store.change_feed().await.unwrap();
    assert!(store.delete_user(alice).await.done());
    assert_eq!(reported(&mut feed).await, [Change::Credential(digest(1)), Change::User(alice)]);
    store.insert_user(NewUser { groups: vec!["g".to_owned()], ..user("bob") }).await.done();
}

#[tokio::test]
async fn what_is_too_long_is_refused_and_not_cut_off_and_not_quoted() {
    let database = Database::new();
    let store = connect(&database.url()).await;
    let alice = store.insert_user(user("alice")).await.done();
    let name = "secret".repeat(200);
    let refused = store.insert_token(NewToken { name, ..token(1, alice) }).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotWritten(_)), "{refused:?}");
    assert!(!format!("{refused:?} {refused}").contains("secret"));
    assert!(store.find_token(digest(1)).await.unwrap().is_none());
    let taken = store.insert_user(user("alice")).await.unwrap_err();
    assert!(matches!(taken, StoreError::Conflict) && !format!("{taken:?}").contains("alice"));
}

#[tokio::test]
async fn more_groups_than_can_be_told_are_an_error_and_not_fewer_groups() {
    let database = Database::new();
    let store = connect(&database.url()).await;
    let groups = (0..4000).map(|number| format!("{number:0>140}")).collect();
    let alice = store.insert_user(NewUser { groups, ..user("alice") }).await.done();
    let found = store.find_user("alice").await;
    assert!(matches!(found, Err(StoreError::Unreadable(_))), "{found:?}");
    assert!(store.set_groups(alice, vec!["g".to_owned()]).await.done());
    assert!(store.find_user("alice").await.unwrap().is_some());
}

#[tokio::test]
async fn a_url_without_a_database_is_refused() {
    let database = Database::new();
    let url = database.url().replace(&database.0.name, "another");
    let refused = try_connect(&url).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_) | StoreError::NotAdoptable(_)), "{refused:?}");
    assert!(!format!("{refused:?}").contains(crate::services::mariadb::PASSWORD));
}

#[tokio::test]
async fn certificates_are_verified() {
    let directory = crate::services::process::directory();
    let identity = crate::services::authority::certify(directory.path());
    let option = |name: &str, path: &std::path::Path| format!("--{name}={}", path.display());
    let (certificate, key) = (option("ssl-cert", &identity.certificate), option("ssl-key", &identity.key));
    let server = MariaDb::start_with(&[&certificate, &key]);
    let url = server.database().url();
    let verifies = "ssl-mode=VERIFY_IDENTITY";
    crate::server::certificate_is_verified_where_the_url_says_so(&url, verifies, &identity.authority).await;
}
