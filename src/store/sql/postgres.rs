//! How PostgreSQL is spoken to.

use crate::store::StoreError;
use crate::store::sql::pool::Manner;
use crate::store::sql::server::{ServerOptions, ServerUrl, not_a_url};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection};
use std::str::FromStr as _;
use std::time::Duration;

/// Statements may take any time.
pub(super) const PATIENT: &str = "SET statement_timeout = 0";
/// Both of one moment.
pub(super) const BEGIN_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
pub(super) const BEGIN: &str = "BEGIN";
/// One for each schema of tables; steps may take longer than a look-up.
pub(super) const LOCK_SCHEMA: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 60000; \
    SELECT pg_advisory_xact_lock(hashtext('doorward'), hashtext(current_schema()::text))";

/// How the connections are made whose statements may take so long.
pub(super) fn manner(
    url: &ServerUrl,
    options: &ServerOptions,
    patience: Duration,
) -> Result<Manner<PgConnection>, StoreError> {
    let text = std::str::from_utf8(url.url.expose()).map_err(not_a_url)?;
    let mut connect = PgConnectOptions::from_str(text)
        .map_err(not_a_url)?
        .application_name("doorward")
        .disable_statement_logging();
    let verifies = matches!(connect.get_ssl_mode(), PgSslMode::VerifyCa | PgSslMode::VerifyFull);
    if verifies
        && !url.names_roots
        && let Some(roots) = &options.roots_pem
    {
        connect = connect.ssl_root_cert_from_pem(roots.clone());
    }
    Ok(Manner {
        options: connect,
        greeting: greeting(patience, options.write_wait),
        say: |connection, text| {
            Box::pin(async move { sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await.map(drop) })
        },
    })
}

/// Settings are made, whatever the server's defaults are: the isolation, so that a writer who waited for the lock sees
/// what was committed meanwhile; times and bytes in the forms that are read.
fn greeting(patience: Duration, lock_wait: Duration) -> String {
    format!(
        "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = 5000; \
         SET default_transaction_isolation = 'read committed'; SET TIME ZONE 'UTC'; \
         SET client_min_messages = error; SET standard_conforming_strings = on",
        patience.as_millis(),
        lock_wait.as_millis()
    )
}
