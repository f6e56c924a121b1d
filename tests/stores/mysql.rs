//! The suite on `MariaDB`, and what is `MariaDB`'s own.

use crate::services::mariadb::MariaDb;
use crate::suite::{Opening, claims};

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
