//! PostgreSQL.

use crate::services::postgres::Postgres;
use crate::services::process::may_mount;
use crate::services::until;
use std::path::Path;
use std::time::Duration;

#[test]
fn each_test_has_a_database_of_its_own() {
    let server = Postgres::shared();
    let (one, other) = (server.database(), server.database());
    one.psql("CREATE TABLE here (x int); INSERT INTO here VALUES (1), (2)");
    assert_eq!(one.psql("SELECT x, x FROM here ORDER BY x"), "1|1\n2|2");
    assert_eq!(other.psql("SELECT to_regclass('here')"), "");
}

#[test]
fn one_takes_the_recorded_dump() {
    let database = Postgres::shared().database();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    database.load(&root.join("tests/conformance/fixture_pg.sql"));
    assert_ne!(database.psql("SELECT count(*) FROM auth_user"), "0");
    assert_eq!(database.psql("SELECT tableowner FROM pg_tables WHERE tablename = 'auth_user'"), "doorward");
}

/// As the gateway connects.
async fn connect(url: &str) -> sqlx::Result<sqlx::PgConnection> {
    use sqlx::Connection as _;
    let connecting = sqlx::PgConnection::connect(url);
    tokio::time::timeout(Duration::from_secs(2), connecting).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

#[tokio::test]
async fn one_that_is_killed_keeps_what_was_committed() {
    let mut server = Postgres::start();
    let url = server.url("postgres");
    let name = server.database().name;
    let mut connection = connect(&server.url(&name)).await.unwrap();
    sqlx::query("CREATE TABLE kept AS SELECT 7 AS x").execute(&mut connection).await.unwrap();
    server.kill();
    assert!(sqlx::query("SELECT 1").execute(&mut connection).await.is_err());
    let refused = connect(&url).await.unwrap_err();
    assert!(
        matches!(&refused, sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
    );
    server.restart();
    assert!(server.log().contains("not properly shut down"), "{}", server.log());
    assert_eq!(server.psql(&name, "SELECT x FROM kept"), "7");
    server.restart();
    assert!(!server.log().contains("not properly shut down"), "{}", server.log());
    assert_eq!(server.psql(&name, "SELECT x FROM kept"), "7");
    // What is measured with it includes the disk.
    until("a disk that is waited for", || (server.psql("postgres", "SHOW fsync") == "on").then_some(()));
}

#[tokio::test]
async fn one_that_is_paused_says_nothing() {
    let server = Postgres::start();
    let mut connection = connect(&server.url("postgres")).await.unwrap();
    server.pause();
    let asking = sqlx::query("SELECT 1").execute(&mut connection);
    assert!(tokio::time::timeout(Duration::from_millis(300), asking).await.is_err());
    assert!(connect(&server.url("postgres")).await.is_err());
    server.resume();
    connect(&server.url("postgres")).await.unwrap();
}

#[tokio::test]
async fn one_wants_a_password() {
    let url = Postgres::shared().url("postgres");
    connect(&url).await.unwrap();
    let wrong = connect(&url.replace("password-of", "password-not-of")).await.unwrap_err();
    assert_eq!(wrong.as_database_error().unwrap().code().as_deref(), Some("28P01"));
}

#[tokio::test]
async fn one_whose_disk_is_full_reads_and_writes_nothing() {
    if !may_mount() {
        eprintln!("not tried: there can be no disk of one's own here");
        return;
    }
    let server = Postgres::start_with_small_disk();
    let database = server.database_on_small_disk();
    database.psql("CREATE TABLE kept AS SELECT 7 AS x; GRANT ALL ON kept TO doorward");
    let mut connection = connect(&database.url()).await.unwrap();
    database.fill();
    let write = "INSERT INTO kept SELECT generate_series(1, 10000)";
    let refused = sqlx::query(write).execute(&mut connection).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("53100"));
    assert_eq!(database.psql("SELECT x FROM kept"), "7");
    database.make_room();
    sqlx::query(write).execute(&mut connection).await.unwrap();
    assert_eq!(database.psql("SELECT count(*) FROM kept"), "10001");
}

#[tokio::test]
async fn one_with_tls_shows_a_certificate_of_its_authority() {
    let server = Postgres::start_with_tls();
    let (url, authority) = (server.url("postgres"), server.authority());
    let trusting = format!("{url}?sslmode=verify-full&sslrootcert={}", authority.display());
    let mut connection = connect(&trusting).await.unwrap();
    let ssl = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert!(sqlx::query_scalar::<_, bool>(ssl).fetch_one(&mut connection).await.unwrap());
    // Trusted by the system: no.
    let unknown = connect(&format!("{url}?sslmode=verify-full")).await.unwrap_err();
    assert!(format!("{unknown:?}").contains("UnknownIssuer"), "{unknown:?}");
    // In clear: no.
    let refused = connect(&format!("{url}?sslmode=disable")).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("28000"));
}
