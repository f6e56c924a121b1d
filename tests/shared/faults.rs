//! The network between a gateway and its servers fails as it is told to.

use crate::services::postgres::Postgres;
use crate::services::proxy::{Fault, FaultProxy};
use crate::services::redis::Redis;
use crate::services::{PATIENCE, until};
use redis::{Commands as _, Connection};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;
use tokio::time::Instant;

const SOON: Duration = Duration::from_millis(300);

/// A server, the proxy before it, and a connection through that.
fn redis_behind_a_proxy() -> (Redis, FaultProxy, Connection) {
    let server = Redis::start();
    let proxy = FaultProxy::start(server.port());
    let connection = connect(&server, &proxy).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    (server, proxy, connection)
}

/// On a busy machine, too.
fn connect(server: &Redis, proxy: &FaultProxy) -> redis::RedisResult<Connection> {
    redis::Client::open(proxy.url(&server.url()))?.get_connection_with_timeout(PATIENCE)
}

fn ping(connection: &mut Connection) -> redis::RedisResult<String> {
    redis::cmd("PING").query(connection)
}

#[test]
fn without_a_fault_everything_passes() {
    let (server, proxy, mut connection) = redis_behind_a_proxy();
    let value = "x".repeat(3 << 20);
    connection.set::<_, _, ()>("key", &value).unwrap();
    assert!(connection.get::<_, String>("key").unwrap() == value, "3 MiB are not what they were");
    assert!(server.connection().get::<_, String>("key").unwrap() == value);
    assert_eq!(proxy.accepted(), 1);
}

#[test]
fn delay_is_once_for_each_direction_and_not_for_each_piece() {
    let (_server, proxy, mut connection) = redis_behind_a_proxy();
    proxy.set(Fault::Delay(Duration::from_millis(100)));
    let began = Instant::now();
    ping(&mut connection).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    // Twenty pieces, sent without waiting, answered as they come.
    let began = Instant::now();
    for number in 0..20 {
        connection.send_packed_command(&redis::cmd("ECHO").arg(number).get_packed_command()).unwrap();
    }
    for _ in 0..20 {
        connection.recv_response().unwrap();
    }
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    proxy.set(Fault::None);
    ping(&mut connection).unwrap();
}

#[test]
fn black_hole_swallows_and_gives_back() {
    let (server, proxy, mut connection) = redis_behind_a_proxy();
    connection.set_read_timeout(Some(SOON)).unwrap();
    proxy.set(Fault::BlackHole);
    assert!(connection.set::<_, _, ()>("key", 1).unwrap_err().is_timeout());
    assert_eq!(server.connection().get::<_, Option<u64>>("key").unwrap(), None);
    // A new connection is taken; there is no answer.
    let mut other = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    other.set_read_timeout(Some(SOON)).unwrap();
    other.write_all(b"PING\r\n").unwrap();
    assert_eq!(other.read(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock);
    proxy.set(Fault::None);
    until("what was under way", || server.connection().get::<_, Option<u64>>("key").unwrap());
    ping(&mut connect(&server, &proxy).unwrap()).unwrap();
}

#[test]
fn held_answers_are_of_things_that_were_done() {
    let (server, proxy, mut connection) = redis_behind_a_proxy();
    connection.set_read_timeout(Some(SOON)).unwrap();
    proxy.set(Fault::HoldAnswers);
    assert!(connection.incr::<_, _, u64>("key", 1).unwrap_err().is_timeout());
    until("what was asked", || server.connection().get::<_, Option<u64>>("key").unwrap());
}

#[test]
fn cut_is_of_the_connections_that_are_there() {
    let (server, proxy, mut connection) = redis_behind_a_proxy();
    proxy.cut();
    assert!(ping(&mut connection).unwrap_err().is_connection_dropped());
    ping(&mut connect(&server, &proxy).unwrap()).unwrap();
}

#[test]
fn cut_in_the_middle_of_an_answer() {
    let (server, proxy, mut connection) = redis_behind_a_proxy();
    connection.set::<_, _, ()>("key", "a long value").unwrap();
    proxy.set(Fault::CutAfter(9));
    let error = connection.get::<_, String>("key").unwrap_err();
    assert!(error.is_connection_dropped() && !error.is_timeout(), "{error:?}");
    proxy.set(Fault::None);
    assert_eq!(connect(&server, &proxy).unwrap().get::<_, String>("key").unwrap(), "a long value");
}

#[test]
fn garbage_is_no_answer() {
    let (server, proxy, mut connection) = redis_behind_a_proxy();
    proxy.set(Fault::Garbage);
    let error = ping(&mut connection).unwrap_err();
    assert_eq!(error.kind(), redis::ErrorKind::Parse, "{error:?}");
    proxy.set(Fault::None);
    ping(&mut connect(&server, &proxy).unwrap()).unwrap();
}

#[test]
fn refusal_is_of_old_and_new_connections() {
    let (server, proxy, mut connection) = redis_behind_a_proxy();
    proxy.set(Fault::Refuse);
    assert!(ping(&mut connection).unwrap_err().is_connection_dropped());
    until("a refusal", || {
        connect(&server, &proxy).is_err_and(|error| error.is_connection_refusal()).then_some(())
    });
    proxy.set(Fault::None);
    until("a connection", || ping(&mut connect(&server, &proxy).ok()?).ok());
}

#[tokio::test]
async fn commit_whose_answer_is_lost_is_committed() {
    use sqlx::Connection as _;
    let server = Postgres::shared();
    let database = server.database();
    let proxy = FaultProxy::start(server.port());
    let mut connection = sqlx::PgConnection::connect(&proxy.url(&database.url())).await.unwrap();
    proxy.set(Fault::HoldAnswers);
    let making = sqlx::raw_sql("CREATE TABLE made AS SELECT 7 AS x").execute(&mut connection);
    assert!(tokio::time::timeout(SOON, making).await.is_err());
    until("a table", || (database.psql("SELECT to_regclass('made')") == "made").then_some(()));
    proxy.cut();
    assert!(connection.ping().await.is_err());
}
