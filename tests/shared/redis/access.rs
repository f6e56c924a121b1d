//! From what the file says to a server that lets us in: passwords, users, TLS, databases.

use super::{KEY, Replica, changed, connected, credential, eventually, value};
use crate::services::redis::{Access, PASSWORD, RULES, Redis, RedisOptions, USER};
use doorward::cache::redis::{Act, Away, Settings};
use doorward::config::{Config, Source};
use redis::Commands as _;
use std::time::Duration;

const GUIDE: &str = include_str!("../../../docs/redis.md");

/// What the guide says that a user needs.
pub(crate) fn rules() -> &'static str {
    GUIDE.lines().find_map(|line| line.strip_prefix("user doorward on >password ")).unwrap()
}

/// The same of a user of Sentinels.
pub(crate) fn sentinel_rules() -> &'static str {
    let (_, rest) = GUIDE.split_once("On Sentinels a user needs\n`").unwrap();
    rest.split_once('`').unwrap().0
}

/// Of a file that says this in `[redis]`.
pub(crate) fn settings(lines: &str) -> Settings {
    let source = Source { name: String::new(), directory: std::env::temp_dir(), environment: |_| None };
    let text = format!(
        "[deployment]\nkey = \"{KEY}\"\n[upstreams.a]\nservers = [\"http://127.0.0.1:1\"]\n[routes.a]\npath = \"/\"\n\
         upstream = \"a\"\n[redis]\ntimeout = \"2s\"\n{lines}"
    );
    let config = Config::parse(&text, &source).unwrap_or_else(|error| panic!("{error}")).config;
    doorward::app::redis::settings(&config.redis.unwrap()).unwrap()
}

/// Everything that there is to do.
pub(crate) async fn all_of_it(settings: Settings) {
    let replica = Replica::new(settings).connected().await;
    let mut events = replica.cache.stream();
    connected(&mut events).await;
    let key = credential("token");
    assert!(replica.put(&key, &value(Some(1))).await);
    assert!(replica.finds(&key).await.is_some());
    replica.cache.invalidate(&changed("token", Some(2))).await.unwrap();
    assert!(replica.finds(&key).await.is_none());
    let (name, hour) = (format!("{:?}", replica.cache.publisher()), Duration::from_hours(1));
    let (throttle, guard) = (format!("throttle {name}"), format!("guard {name}"));
    for is_free in [true, false] {
        assert_eq!(replica.cache.log(throttle.as_bytes(), 1, hour).await.unwrap().is_within, is_free);
        assert_eq!(replica.cache.bucket(guard.as_bytes(), hour, 1, Act::Try).await.unwrap().is_done, is_free);
    }
    assert!(replica.cache.bucket(guard.as_bytes(), hour, 1, Act::GiveBack).await.unwrap().ahead.is_zero());
}

/// Nothing of it, and why not.
async fn nothing_of_it(settings: Settings) -> String {
    let replica = Replica::new(settings);
    eventually("why not", async || replica.cache.state().why.is_some()).await;
    let away = replica.cache.get(&credential("token")).await.unwrap_err();
    assert!(matches!(away, Away::Paused | Away::Unconnected(_)), "{away:?}");
    let why = format!("{:?}", replica.cache.state().why);
    assert!(!why.contains(PASSWORD), "{why}");
    why
}

#[tokio::test]
async fn who_is_let_in_can_do_everything() {
    for has_tls in [false, true] {
        for access in [Access::Open, Access::Password, Access::User(RULES), Access::User(rules())] {
            let server = Redis::start_with(RedisOptions { access, has_tls, ..RedisOptions::default() });
            let ca =
                if has_tls { format!("\nca = \"{}\"", server.authority().display()) } else { String::new() };
            all_of_it(settings(&format!("url = \"{}\"{ca}", server.url()))).await;
        }
    }
}

#[tokio::test]
async fn who_is_not_let_in_learns_why() {
    let server = Redis::start_with(RedisOptions { access: Access::Password, ..RedisOptions::default() });
    assert!(nothing_of_it(settings(&format!("url = \"{}\"", server.bare_url()))).await.contains("NOAUTH"));
    let wrong = server.url().replace(PASSWORD, "another");
    let why = nothing_of_it(settings(&format!("url = \"{wrong}\""))).await;
    assert!(why.contains("AuthenticationFailed") || why.contains("WRONGPASS"), "{why}");
    let server = Redis::start_with(RedisOptions { access: Access::User(RULES), ..RedisOptions::default() });
    let wrong = server.url().replace(USER, "nobody");
    let why = nothing_of_it(settings(&format!("url = \"{wrong}\""))).await;
    assert!(why.contains("AuthenticationFailed") || why.contains("WRONGPASS"), "{why}");
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_not_spoken_to() {
    let server = Redis::start_with(RedisOptions { has_tls: true, ..RedisOptions::default() });
    // With the anchors of another.
    let other = Redis::start_with(RedisOptions { has_tls: true, ..RedisOptions::default() });
    let ca = format!("ca = \"{}\"", other.authority().display());
    let why = nothing_of_it(settings(&format!("url = \"{}\"\n{ca}", server.url()))).await;
    assert!(why.contains("UnknownIssuer") || why.contains("BadSignature"), "{why}");
    // In clear.
    let clear = server.url().replace("rediss:", "redis:");
    nothing_of_it(settings(&format!("url = \"{clear}\""))).await;
}

#[tokio::test]
async fn a_database_has_its_own_names() {
    let server = Redis::start();
    let replica = Replica::new(settings(&format!("url = \"{}3\"", server.url()))).connected().await;
    assert!(replica.put(&credential("token"), &value(None)).await);
    let count = |database: u8| {
        let mut connection = server.connection();
        redis::cmd("SELECT").arg(database).exec(&mut connection).unwrap();
        connection.keys::<_, Vec<String>>("doorward:*").unwrap().len()
    };
    assert_eq!((count(0), count(3)), (0, 1));
}
