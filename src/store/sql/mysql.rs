//! How MySQL and `MariaDB` are spoken to.

use crate::store::StoreError;
use crate::store::sql::pool::Manner;
use crate::store::sql::row::NAMES_BYTES_MAX;
use crate::store::sql::server::{ServerOptions, ServerUrl, not_a_url};
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, MySqlConnection};
use std::str::FromStr as _;
use std::time::Duration;

/// Statements may take any time. The comments are read by MySQL alone and by `MariaDB` alone.
pub(super) const PATIENT: &str =
    "SET /*!50708 max_execution_time = 0, */ /*M!100101 max_statement_time = 0, */ autocommit = 1";
/// Both of one moment.
pub(super) const BEGIN_SNAPSHOT: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
    START TRANSACTION WITH CONSISTENT SNAPSHOT";
pub(super) const BEGIN: &str = "START TRANSACTION";
/// One for each database. Whoever does not get it in time finds the steps taken, or waits for the tables.
pub(super) const LOCK_SCHEMA: &str = "SET /*!50708 max_execution_time = 0, */ /*M!100101 max_statement_time = 0, */ \
    lock_wait_timeout = 60; SELECT get_lock(concat('doorward_', sha1(database())), 60)";

/// How the connections are made whose statements may take so long.
pub(super) fn manner(
    url: &ServerUrl,
    options: &ServerOptions,
    patience: Duration,
) -> Result<Manner<MySqlConnection>, StoreError> {
    let text = std::str::from_utf8(url.url.expose()).map_err(not_a_url)?;
    // The driver knows one of the two names of the scheme.
    let text = text.strip_prefix("mariadb:").map_or_else(|| text.to_owned(), |rest| format!("mysql:{rest}"));
    let mut connect = MySqlConnectOptions::from_str(&text).map_err(not_a_url)?.disable_statement_logging();
    let verifies = matches!(connect.get_ssl_mode(), MySqlSslMode::VerifyCa | MySqlSslMode::VerifyIdentity);
    if verifies
        && !url.names_roots
        && let Some(roots) = &options.roots_pem
    {
        connect = connect.ssl_ca_from_pem(roots.clone());
    }
    Ok(Manner {
        options: connect,
        greeting: greeting(patience, options.write_wait),
        say: |connection, text| {
            Box::pin(async move { sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await.map(drop) })
        },
    })
}

/// The server ends a transaction of somebody who has gone without a word, and with it the lock of the numbers: `MariaDB`
/// after this many seconds, `MySQL`, which knows only idle connections, after these.
const IDLE_SECONDS: u32 = 5;
const WAIT_SECONDS: u32 = 60;

/// Settings are made, whatever the server's defaults are: names in double quotes, errors instead of values that are cut
/// off, and the isolation in which a writer who waited for the lock sees what was committed meanwhile.
fn greeting(patience: Duration, lock_wait: Duration) -> String {
    format!(
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
         SET /*!50708 max_execution_time = {}, */ /*M!100101 max_statement_time = {}, */ \
         /*M!100300 idle_transaction_timeout = {IDLE_SECONDS}, */ wait_timeout = {WAIT_SECONDS}, \
         innodb_lock_wait_timeout = {lock}, lock_wait_timeout = {lock}, autocommit = 1, \
         group_concat_max_len = {NAMES_BYTES_MAX}, sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT,STRICT_ALL_TABLES,\
         NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
        patience.as_millis(),
        patience.as_secs_f64(),
        lock = lock_wait.as_secs().max(1),
    )
}
