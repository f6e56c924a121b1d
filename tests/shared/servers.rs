//! The servers that other tests stand on are what these believe: who may enter, what a pause, an end and a restart do,
//! and that nothing is left.

use crate::services::mariadb::MariaDb;
use crate::services::postgres::Postgres;
use crate::services::redis::{Access, PASSWORD, RULES, Redis, RedisOptions, USER};
use crate::services::until;
use redis::{Commands as _, ErrorKind};
use std::path::Path;
use std::time::Duration;

fn open(url: &str) -> redis::RedisResult<redis::Connection> {
    redis::Client::open(url)?.get_connection_with_timeout(Duration::from_millis(500))
}

#[test]
fn redis_that_is_killed_refuses_and_comes_back_empty() {
    let mut server = Redis::start();
    let mut connection = open(&server.url()).unwrap();
    connection.set::<_, _, ()>("key", "value").unwrap();
    assert_eq!(connection.get::<_, String>("key").unwrap(), "value");
    server.kill();
    assert!(connection.get::<_, String>("key").is_err());
    assert!(open(&server.url()).map(drop).unwrap_err().is_connection_refusal());
    server.restart();
    let found: Option<String> = open(&server.url()).unwrap().get("key").unwrap();
    assert_eq!(found, None);
}

#[test]
fn redis_that_is_paused_says_nothing() {
    let server = Redis::start();
    let mut connection = open(&server.url()).unwrap();
    connection.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    server.pause();
    assert!(connection.get::<_, Option<String>>("key").unwrap_err().is_timeout());
    server.resume();
    assert_eq!(server.connection().get::<_, Option<String>>("key").unwrap(), None);
}

#[test]
fn redis_with_a_password_wants_it() {
    let server = Redis::start_with(RedisOptions { access: Access::Password, ..RedisOptions::default() });
    assert!(server.url().contains(PASSWORD));
    open(&server.url()).unwrap().set::<_, _, ()>("key", "value").unwrap();
    let refused = open(&server.bare_url()).unwrap().get::<_, String>("key").unwrap_err();
    assert_eq!(refused.code(), Some("NOAUTH"));
}

#[test]
fn redis_with_users_lets_the_gateway_have_its_own_keys_alone() {
    let server = Redis::start_with(RedisOptions { access: Access::User(RULES), ..RedisOptions::default() });
    let mut connection = open(&server.url()).unwrap();
    connection.set::<_, _, ()>("doorward:key", "value").unwrap();
    redis::cmd("CLIENT").arg("ID").query::<u64>(&mut connection).unwrap();
    connection.publish::<_, _, u64>("doorward:markers", "x").unwrap();
    let denied = |command: &mut redis::Cmd, connection: &mut redis::Connection| {
        command.query::<redis::Value>(connection).unwrap_err().code() == Some("NOPERM")
    };
    assert!(denied(redis::cmd("GET").arg("other"), &mut connection));
    assert!(denied(redis::cmd("PUBLISH").arg("other").arg("x"), &mut connection));
    assert!(denied(&mut redis::cmd("FLUSHALL"), &mut connection));
    assert!(denied(redis::cmd("CONFIG").arg("GET").arg("*"), &mut connection));
    assert!(denied(redis::cmd("KEYS").arg("*"), &mut connection));
    let nobody = open(&server.bare_url()).unwrap().get::<_, String>("doorward:key").unwrap_err();
    assert_eq!(nobody.code(), Some("NOAUTH"));
    let wrong = server.bare_url().replace("//", &format!("//{USER}:wrong@"));
    assert_eq!(open(&wrong).map(drop).unwrap_err().kind(), ErrorKind::AuthenticationFailed);
    assert_eq!(server.connection().get::<_, String>("doorward:key").unwrap(), "value");
}

#[test]
fn redis_with_tls_shows_a_certificate_of_its_authority() {
    let options = RedisOptions { has_tls: true, access: Access::Password, ..RedisOptions::default() };
    let server = Redis::start_with(options);
    // Trusted by the system: no.
    assert!(open(&server.url()).is_err());
    // In clear: no.
    assert!(open(&server.url().replace("rediss:", "redis:")).is_err());
    assert!(server.authority().exists());
    server.connection().set::<_, _, ()>("key", "value").unwrap();
}

#[test]
fn redis_that_is_full_forgets_as_it_is_told() {
    let more = "maxmemory 3mb\nmaxmemory-policy allkeys-lru";
    let server = Redis::start_with(RedisOptions { more, ..RedisOptions::default() });
    let mut connection = server.connection();
    for number in 0..100 {
        connection.set::<_, _, ()>(number, "x".repeat(50_000)).unwrap();
    }
    let kept: u64 = redis::cmd("DBSIZE").query(&mut connection).unwrap();
    assert!((1..60).contains(&kept), "{kept} of 100 values are there");
}

#[test]
fn postgres_gives_each_test_a_database_of_its_own() {
    let server = Postgres::shared();
    let (one, other) = (server.database(), server.database());
    one.psql("CREATE TABLE here (x int); INSERT INTO here VALUES (1), (2)");
    assert_eq!(one.psql("SELECT x, x FROM here ORDER BY x"), "1|1\n2|2");
    assert_eq!(other.psql("SELECT to_regclass('here')"), "");
}

#[test]
fn postgres_takes_the_recorded_dump() {
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
async fn postgres_that_is_killed_keeps_what_was_committed() {
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
async fn postgres_that_is_paused_says_nothing() {
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
async fn postgres_wants_a_password() {
    let url = Postgres::shared().url("postgres");
    connect(&url).await.unwrap();
    let wrong = connect(&url.replace("password-of", "password-not-of")).await.unwrap_err();
    assert_eq!(wrong.as_database_error().unwrap().code().as_deref(), Some("28P01"));
}

/// As the gateway connects.
async fn connect_mariadb(url: &str) -> sqlx::Result<sqlx::MySqlConnection> {
    use sqlx::Connection as _;
    let connecting = sqlx::MySqlConnection::connect(url);
    tokio::time::timeout(Duration::from_secs(2), connecting).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

#[tokio::test]
async fn mariadb_gives_each_test_a_database_of_its_own() {
    let server = MariaDb::shared();
    let (one, other) = (server.database(), server.database());
    let mut connection = connect_mariadb(&one.url()).await.unwrap();
    sqlx::query("CREATE TABLE here AS SELECT 'ä' AS x").execute(&mut connection).await.unwrap();
    assert_eq!(one.sql("SELECT x, x FROM here"), "ä\tä");
    assert_eq!(other.sql("SHOW TABLES"), "");
}

#[tokio::test]
async fn mariadb_wants_a_password() {
    let database = MariaDb::shared().database();
    connect_mariadb(&database.url()).await.unwrap();
    let wrong = [
        database.url().replace("password-of", "password-not-of"),
        database.url().replace("doorward", "root"),
    ];
    for url in wrong {
        let refused = connect_mariadb(&url).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("28000"));
    }
}

#[tokio::test]
async fn mariadb_that_is_killed_keeps_what_was_committed() {
    let mut server = MariaDb::start();
    let name = server.database().name;
    let url = server.url(&name);
    let mut connection = connect_mariadb(&url).await.unwrap();
    sqlx::query("CREATE TABLE kept AS SELECT 7 AS x").execute(&mut connection).await.unwrap();
    server.kill();
    assert!(sqlx::query("SELECT 1").execute(&mut connection).await.is_err());
    assert!(matches!(connect_mariadb(&url).await, Err(sqlx::Error::Io(_))));
    for _ in 0..2 {
        server.restart();
        assert_eq!(server.sql(&name, "SELECT x FROM kept"), "7");
    }
}

#[tokio::test]
async fn mariadb_that_is_paused_says_nothing() {
    let server = MariaDb::start();
    let name = server.database().name;
    let mut connection = connect_mariadb(&server.url(&name)).await.unwrap();
    server.pause();
    let asking = sqlx::query("SELECT 1").execute(&mut connection);
    assert!(tokio::time::timeout(Duration::from_millis(300), asking).await.is_err());
    server.resume();
    connect_mariadb(&server.url(&name)).await.unwrap();
}
