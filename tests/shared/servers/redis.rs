//! Redis: alone, as a cluster, watched by Sentinels.

use crate::services::cluster::RedisCluster;
use crate::services::redis::{Access, PASSWORD, RULES, Redis, RedisOptions, USER};
use crate::services::sentinel::RedisSentinel;
use redis::{Commands as _, ErrorKind};
use std::time::Duration;
use tokio::time::Instant;

fn open(url: &str) -> redis::RedisResult<redis::Connection> {
    redis::Client::open(url)?.get_connection_with_timeout(Duration::from_millis(500))
}

#[test]
fn one_that_is_killed_refuses_and_comes_back_empty() {
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
fn one_that_is_paused_says_nothing() {
    let server = Redis::start();
    let mut connection = open(&server.url()).unwrap();
    connection.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    server.pause();
    assert!(connection.get::<_, Option<String>>("key").unwrap_err().is_timeout());
    server.resume();
    assert_eq!(server.connection().get::<_, Option<String>>("key").unwrap(), None);
}

#[test]
fn one_with_a_password_wants_it() {
    let server = Redis::start_with(RedisOptions { access: Access::Password, ..RedisOptions::default() });
    assert!(server.url().contains(PASSWORD));
    open(&server.url()).unwrap().set::<_, _, ()>("key", "value").unwrap();
    let refused = open(&server.bare_url()).unwrap().get::<_, String>("key").unwrap_err();
    assert_eq!(refused.code(), Some("NOAUTH"));
}

#[test]
fn one_with_users_lets_the_gateway_have_its_own_keys_alone() {
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
fn one_with_tls_shows_a_certificate_of_its_authority() {
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
fn one_that_is_full_forgets_as_it_is_told() {
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
fn cluster_spreads_keys_over_its_primaries() {
    let mut cluster = RedisCluster::start();
    let mut connection = cluster.connection();
    for number in 0..300 {
        connection.set::<_, _, ()>(format!("key {number}"), number).unwrap();
    }
    for place in 0..3 {
        let held: u64 = redis::cmd("DBSIZE").query(&mut cluster.node(place).connection()).unwrap();
        assert!(held > 50, "node {place} has {held} of 300 keys");
    }
    // A node whose slots these are not sends the client on.
    let here = |place: usize, cluster: &mut RedisCluster| {
        cluster.node(place).connection().get::<_, Option<u64>>("key 7").map_err(|error| error.kind())
    };
    let answers = [0, 1, 2].map(|place| here(place, &mut cluster));
    assert_eq!(answers.iter().filter(|answer| **answer == Ok(Some(7))).count(), 1, "{answers:?}");
    let moved = Err(ErrorKind::Server(redis::ServerErrorKind::Moved));
    assert_eq!(answers.iter().filter(|answer| **answer == moved).count(), 2, "{answers:?}");
}

#[test]
fn cluster_with_replicas_survives_a_primary() {
    let mut cluster = RedisCluster::start_with_replicas();
    for number in 0..100 {
        cluster.connection().set::<_, _, ()>(format!("key {number}"), number).unwrap();
    }
    cluster.fail_over();
    let mut connection = cluster.connection();
    for number in 0..100 {
        assert_eq!(connection.get::<_, u64>(format!("key {number}")).unwrap(), number);
    }
}

#[test]
fn sentinels_replace_a_primary() {
    let mut group = RedisSentinel::start();
    let old = group.primary().port();
    assert_eq!(old, group.server(0).port());
    group.connection().set::<_, _, ()>("key", "value").unwrap();
    group.fail_over();
    assert_ne!(group.primary().port(), old);
    assert_eq!(group.connection().get::<_, String>("key").unwrap(), "value");
    group.connection().set::<_, _, ()>("key", "other").unwrap();
}

/// Failovers in a row.
const FAILOVERS: u64 = 5;

#[test]
#[ignore = "long: scripts/test-long"]
fn sentinels_replace_one_primary_after_the_other() {
    let mut group = RedisSentinel::start();
    let mut took = Vec::new();
    for number in 0..FAILOVERS {
        group.connection().set::<_, _, ()>(number, "value").unwrap();
        let (old, began) = (group.primary().port(), Instant::now());
        group.fail_over();
        took.push(began.elapsed());
        group.come_back(old);
    }
    let kept: u64 = redis::cmd("DBSIZE").query(&mut group.connection()).unwrap();
    assert_eq!(kept, FAILOVERS);
    took.sort_unstable();
    println!("long: {FAILOVERS} failovers by Sentinels: {:?} to {:?}", took[0], took[took.len() - 1]);
}
