//! The suite on `MariaDB`, and what is `MariaDB`'s own.

use crate::server::{Machine, Site, machines, sites};
use crate::services::mariadb::MariaDb;
use crate::suite::{Opening, claims};
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
