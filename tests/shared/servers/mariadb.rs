//! `MariaDB`.

use crate::services::mariadb::MariaDb;
use std::time::Duration;

/// As the gateway connects.
async fn connect(url: &str) -> sqlx::Result<sqlx::MySqlConnection> {
    use sqlx::Connection as _;
    let connecting = sqlx::MySqlConnection::connect(url);
    tokio::time::timeout(Duration::from_secs(2), connecting).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

#[tokio::test]
async fn each_test_has_a_database_of_its_own() {
    let server = MariaDb::shared();
    let (one, other) = (server.database(), server.database());
    let mut connection = connect(&one.url()).await.unwrap();
    sqlx::query("CREATE TABLE here AS SELECT 'ä' AS x").execute(&mut connection).await.unwrap();
    assert_eq!(one.sql("SELECT x, x FROM here"), "ä\tä");
    assert_eq!(other.sql("SHOW TABLES"), "");
}

#[tokio::test]
async fn one_wants_a_password() {
    let database = MariaDb::shared().database();
    connect(&database.url()).await.unwrap();
    let wrong = [
        database.url().replace("password-of", "password-not-of"),
        database.url().replace("doorward", "root"),
    ];
    for url in wrong {
        let refused = connect(&url).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("28000"));
    }
}

#[tokio::test]
async fn one_that_is_killed_keeps_what_was_committed() {
    let mut server = MariaDb::start();
    let name = server.database().name;
    let url = server.url(&name);
    let mut connection = connect(&url).await.unwrap();
    sqlx::query("CREATE TABLE kept AS SELECT 7 AS x").execute(&mut connection).await.unwrap();
    server.kill();
    assert!(sqlx::query("SELECT 1").execute(&mut connection).await.is_err());
    assert!(matches!(connect(&url).await, Err(sqlx::Error::Io(_))));
    for _ in 0..2 {
        server.restart();
        assert_eq!(server.sql(&name, "SELECT x FROM kept"), "7");
    }
}

#[tokio::test]
async fn one_that_is_paused_says_nothing() {
    let server = MariaDb::start();
    let name = server.database().name;
    let mut connection = connect(&server.url(&name)).await.unwrap();
    server.pause();
    let asking = sqlx::query("SELECT 1").execute(&mut connection);
    assert!(tokio::time::timeout(Duration::from_millis(300), asking).await.is_err());
    server.resume();
    connect(&server.url(&name)).await.unwrap();
}

#[tokio::test]
async fn one_with_tls_shows_a_certificate_of_its_authority() {
    let server = MariaDb::start_with_tls();
    let name = server.database().name;
    let (url, authority) = (server.url(&name), server.authority());
    let trusting = format!("{url}?ssl-mode=verify_identity&ssl-ca={}", authority.display());
    let mut connection = connect(&trusting).await.unwrap();
    let status = sqlx::query_as::<_, (String, String)>("SHOW STATUS LIKE 'Ssl_version'");
    assert!(status.fetch_one(&mut connection).await.unwrap().1.starts_with("TLSv1."));
    // Trusted by the system: no.
    let unknown = connect(&format!("{url}?ssl-mode=verify_identity")).await.unwrap_err();
    assert!(format!("{unknown:?}").contains("UnknownIssuer"), "{unknown:?}");
    // In clear: no.
    let refused = connect(&format!("{url}?ssl-mode=disabled")).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("28000"));
}
