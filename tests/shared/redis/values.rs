//! What lies in Redis: found by all replicas, made by nobody else, and never put back once it is void.

use super::{
    KEY, PREFIX, Replica, STORE, change, changed, confirmed, credential, heartbeat, keys, login, names,
    settings, value,
};
use crate::services::redis::{Access, RULES, Redis, RedisOptions};
use doorward::cache::change::{Change, Changes, Sequence};
use doorward::cache::local::CredentialKey;
use doorward::cache::redis::{Away, SharedValue, VALUE_BYTES_MAX};
use doorward::clock::{ManualClock, SystemClock, UnixSeconds};
use doorward::identity::{Digest, Family, UserId};
use doorward::secret::Secret;
use redis::Commands as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test]
async fn what_one_replica_fills_all_find() {
    let server = Redis::start();
    let one = Replica::new(settings(&server)).connected().await;
    let other = Replica::new(settings(&server)).connected().await;
    let key = credential("token");
    assert!(one.put(&key, &value(Some(5))).await);
    let found = other.finds(&key).await.unwrap();
    assert_eq!((found.version, found.fact.user), (Some(Sequence(5)), value(None).fact.user));
    assert_eq!(other.counts(&key).await, "hit");
    assert_eq!(one.counts(&credential("another")).await, "miss");
    let sameness = CredentialKey { family: Family::Authtoken, ..key };
    assert!(other.finds(&sameness).await.is_none(), "another family's");
}

#[tokio::test]
async fn a_fill_that_was_overtaken_is_refused() {
    let server = Redis::start();
    let reader = Replica::new(settings(&server)).connected().await;
    let revoker = Replica::new(settings(&server)).connected().await;
    for number in [Some(8), None] {
        let old = value(number.map(|number| number - 1));
        let name = format!("{number:?}");
        let key = credential(&name);
        let void = changed(&name, number);
        // It read the old row; then the row was revoked.
        let lease = reader.cache.get(&key).await.unwrap().lease.unwrap();
        revoker.cache.invalidate(&void).await.unwrap();
        assert!(!reader.cache.fill(&key, lease, &old).await.unwrap());
        assert!(revoker.finds(&key).await.is_none());
        // Over a value that was there.
        assert!(reader.put(&key, &old).await);
        let lease = reader.cache.get(&key).await.unwrap().lease.unwrap();
        revoker.cache.invalidate(&void).await.unwrap();
        assert!(!reader.cache.fill(&key, lease, &old).await.unwrap());
        // Others have looked it up since.
        let lease = reader.cache.get(&key).await.unwrap().lease.unwrap();
        revoker.cache.invalidate(&void).await.unwrap();
        assert!(revoker.finds(&key).await.is_none());
        assert!(!reader.cache.fill(&key, lease, &old).await.unwrap());
        // Who looks after it was revoked reads what is true.
        assert!(reader.put(&key, &value(number)).await);
    }
}

#[tokio::test]
async fn a_fill_whose_lease_is_lost_is_refused() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let key = credential("token");
    let lease = replica.cache.get(&key).await.unwrap().lease.unwrap();
    redis::cmd("FLUSHALL").exec(&mut server.connection()).unwrap();
    assert!(!replica.cache.fill(&key, lease, &value(None)).await.unwrap());
    assert_eq!(names(&server), [""; 0]);
}

#[tokio::test]
async fn who_is_first_fills() {
    let server = Redis::start();
    let one = Replica::new(settings(&server)).connected().await;
    let other = Replica::new(settings(&server)).connected().await;
    let key = credential("token");
    let first = one.cache.get(&key).await.unwrap().lease.unwrap();
    let second = other.cache.get(&key).await.unwrap().lease.unwrap();
    assert!(other.cache.fill(&key, second, &value(Some(2))).await.unwrap());
    assert!(!one.cache.fill(&key, first, &value(Some(1))).await.unwrap());
    assert_eq!(one.finds(&key).await.unwrap().version, Some(Sequence(2)));
}

#[tokio::test]
async fn a_store_that_is_behind_does_not_fill() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let key = credential("token");
    assert!(replica.put(&key, &value(Some(10))).await);
    assert!(!replica.put(&key, &value(Some(9))).await);
    assert!(replica.put(&key, &value(Some(10))).await);
    assert!(replica.put(&key, &value(Some(11))).await);
}

#[tokio::test]
async fn leases_and_values_go_by_themselves() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let (unknown, known) = (credential("unknown"), credential("known"));
    assert!(replica.put(&known, &value(None)).await);
    assert!(replica.finds(&unknown).await.is_none());
    let left = |key| server.connection().pttl::<_, u64>(keys().name(key)).unwrap();
    assert!((1..=10_000).contains(&left(&unknown)), "{}", left(&unknown));
    assert!((10_001..=60_000).contains(&left(&known)), "{}", left(&known));
}

/// A value that was sealed by these, under the name of this credential.
fn sealed(key: &str, store: &[u8], credential: &CredentialKey) -> Vec<u8> {
    let keys = doorward::cache::redis::Keys::new(&Secret::new(key), store, PREFIX).unwrap();
    value(Some(1)).seal(&keys.values, &keys.name(credential)).unwrap()
}

#[tokio::test]
async fn what_others_put_there_is_a_miss_is_counted_and_heals() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let mut connection = server.connection();
    let key = credential("token");
    let name = keys().name(&key);
    let good = sealed(KEY, STORE, &key);
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("short", b"x".to_vec()),
        ("as long as a mark but one", vec![7; 11]),
        ("longer than a mark", vec![7; 13]),
        ("garbage", (0..200).collect()),
        ("truncated", good[..good.len() - 1].to_vec()),
        ("longer", [good.as_slice(), b"x"].concat()),
        ("another key", sealed("another-key-of-a-deployment-0123456789", STORE, &key)),
        ("another store", sealed(KEY, b"another-store", &key)),
        ("another credential", sealed(KEY, STORE, &credential("another"))),
        ("another family", sealed(KEY, STORE, &CredentialKey { family: Family::Session, ..key })),
        ("large", vec![7; VALUE_BYTES_MAX + 1]),
        ("very large", vec![7; 64 << 20]),
    ];
    for place in [0, 12, 13, good.len() / 2, good.len() - 1] {
        let mut changed = good.clone();
        changed[place] ^= 1;
        cases.push(("a changed byte", changed));
    }
    for (what, bytes) in cases {
        connection.set::<_, _, ()>(&name, bytes).unwrap();
        assert_eq!(replica.counts(&key).await, "refused", "{what}");
        assert!(replica.put(&key, &value(Some(1))).await, "{what}");
        assert_eq!(replica.counts(&key).await, "hit", "{what}");
    }
    connection.set::<_, _, ()>(&name, good).unwrap();
    assert_eq!(replica.counts(&key).await, "hit", "ours");
    // Redis cannot tell it from nothing.
    connection.set::<_, _, ()>(&name, "").unwrap();
    assert_eq!(replica.counts(&key).await, "miss");
}

#[tokio::test]
async fn what_is_no_text_is_a_miss_and_goes() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let mut connection = server.connection();
    let key = credential("token");
    let name = keys().name(&key);
    for (command, arguments) in
        [("LPUSH", vec!["x"]), ("HSET", vec!["x", "x"]), ("SADD", vec!["x"]), ("ZADD", vec!["1", "x"])]
    {
        connection.del::<_, ()>(&name).unwrap();
        redis::cmd(command).arg(&name).arg(arguments).exec(&mut connection).unwrap();
        assert_eq!(replica.counts(&key).await, "refused", "{command}");
        assert!(replica.put(&key, &value(Some(1))).await, "{command}");
        // The same while somebody asks the store.
        let lease = replica.cache.get(&key).await.unwrap().lease.unwrap();
        connection.del::<_, ()>(&name).unwrap();
        redis::cmd("LPUSH").arg(&name).arg("x").exec(&mut connection).unwrap();
        assert!(!replica.cache.fill(&key, lease, &value(Some(1))).await.unwrap());
    }
}

#[tokio::test]
async fn what_is_too_old_is_a_miss_whatever_redis_says() {
    let server = Redis::start();
    let clock = Arc::new(ManualClock::new(UnixSeconds(1_000_000)));
    let replica = Replica::with(settings(&server), KEY, STORE, clock).connected().await;
    let key = credential("token");
    let name = keys().name(&key);
    for (age, result) in [
        (0, "hit"),
        (59, "hit"),
        (60, "expired"),
        (100_000, "expired"),
        (-5, "hit"),
        (-6, "expired"),
        (i64::MIN + 1_000_000, "expired"),
    ] {
        let bytes = confirmed(1, 1_000_000_i64.saturating_sub(age)).seal(&keys().values, &name).unwrap();
        server.connection().set::<_, _, ()>(&name, bytes).unwrap();
        assert_eq!(replica.counts(&key).await, result, "{age}");
    }
}

/// Who can write to Redis can put an old value back, for as long as `value_ttl`; it says itself that it is old.
#[tokio::test]
async fn a_value_that_is_put_back_says_how_old_it_is() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let key = credential("token");
    let name = keys().name(&key);
    assert!(replica.put(&key, &value(Some(3))).await);
    let kept: Vec<u8> = server.connection().get(&name).unwrap();
    replica.cache.invalidate(&changed("token", Some(4))).await.unwrap();
    assert!(replica.finds(&key).await.is_none());
    server.connection().set::<_, _, ()>(&name, kept).unwrap();
    assert_eq!(replica.finds(&key).await.unwrap().version, Some(Sequence(3)));
}

#[tokio::test]
async fn an_invalidation_deletes_the_credential_in_every_family() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let shared = [Family::Doorward, Family::Authtoken, Family::Session, Family::RemoteUser];
    let of = |name, family| CredentialKey { family, ..credential(name) };
    for family in shared {
        assert!(replica.put(&of("gone", family), &value(None)).await);
        assert!(replica.put(&of("stays", family), &value(None)).await);
    }
    let changes = vec![Change::User(UserId(1)), change("gone"), Change::Something];
    replica.cache.invalidate(&Changes::unnumbered(changes)).await.unwrap();
    for family in shared {
        assert!(replica.finds(&of("gone", family)).await.is_none());
        assert!(replica.finds(&of("stays", family)).await.is_some());
    }
}

/// More than a message names and more than one command takes.
#[tokio::test]
async fn very_many_invalidations_delete_all_of_them() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let credentials: Vec<_> = (0..2_500).map(|number| format!("token {number}")).collect();
    let mut connection = server.connection();
    let mut put = redis::pipe();
    for name in &credentials {
        put.set(keys().name(&credential(name)), "x").ignore();
    }
    put.exec(&mut connection).unwrap();
    assert_eq!(names(&server).len(), 2_500);
    let changes = credentials.iter().map(|name| change(name)).collect();
    replica.cache.invalidate(&Changes::unnumbered(changes)).await.unwrap();
    assert_eq!(names(&server), [""; 0]);
}

#[tokio::test]
async fn passwords_and_csrf_secrets_are_never_shared() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let basic = CredentialKey { family: Family::Basic, ..credential("alice:password") };
    let got = replica.cache.get(&basic).await.unwrap();
    assert!(got.value.is_none() && got.lease.is_none());
    let session = CredentialKey { family: Family::Session, ..credential("session") };
    let mut secret = value(None);
    secret.fact.csrf_secret = Some(Arc::new(Secret::new("secret")));
    let lease = replica.cache.get(&basic).await.unwrap().lease;
    assert!(lease.is_none());
    let lease = replica.cache.get(&session).await.unwrap().lease.unwrap();
    assert!(!replica.cache.fill(&basic, lease, &value(None)).await.unwrap());
    assert!(!replica.put(&session, &secret).await);
    // The lease alone.
    assert_eq!(names(&server).len(), 1);
    assert_eq!(server.connection().strlen::<_, u64>(keys().name(&session)).unwrap(), 12);
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Everything that Redis ever got, as it got it.
#[tokio::test]
async fn nothing_is_in_clear() {
    let server = Redis::start();
    let monitored = monitor(&server);
    let replica = Replica::new(settings(&server)).connected().await;
    for name in ["token-one", "token-two"] {
        assert!(replica.put(&credential(name), &value(Some(4))).await);
        assert!(replica.finds(&credential(name)).await.is_some());
    }
    replica.cache.invalidate(&changed("token-one", Some(5))).await.unwrap();
    replica.cache.publish(heartbeat(1)).await.unwrap();
    let mut seen: Vec<u8> = Vec::new();
    for name in names(&server) {
        seen.extend(name.as_bytes());
        seen.extend(server.connection().get::<_, Vec<u8>>(&name).unwrap());
    }
    assert!(contains(&seen, b"doorward:v:"));
    seen.extend(monitored());
    let Digest(digest) = credential("token-one").digest;
    let written =
        |show: fn(u8) -> String| digest[..8].iter().map(|byte| show(*byte)).collect::<Vec<_>>().concat();
    let hex = written(|byte| format!("{byte:02x}"));
    // As a monitor shows bytes.
    let shown = written(|byte| match byte {
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    });
    assert!(contains(&seen, b"PUBLISH"), "the monitor hears");
    for secret in [
        &b"token-one"[..],
        b"alice-the-user",
        b"alice@example.com",
        b"editors-the-group",
        KEY.as_bytes(),
        &digest[..8],
        hex.as_bytes(),
        shown.as_bytes(),
    ] {
        assert!(!contains(&seen, secret), "{}", String::from_utf8_lossy(secret));
    }
}

/// What a server is asked, as it shows it, until it is asked to stop.
fn monitor(server: &Redis) -> impl FnOnce() -> Vec<u8> {
    const END: &[u8] = b"the-end-of-the-monitor";
    let mut socket = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    socket.write_all(b"MONITOR\r\n").unwrap();
    let mut lines = BufReader::new(socket);
    let mut line = Vec::new();
    lines.read_until(b'\n', &mut line).unwrap();
    assert_eq!(line, b"+OK\r\n");
    let mut connection = server.connection();
    move || {
        redis::cmd("ECHO").arg(END).exec(&mut connection).unwrap();
        let mut seen = Vec::new();
        while !contains(&line, END) {
            line.clear();
            assert_ne!(lines.read_until(b'\n', &mut line).unwrap(), 0);
            seen.extend_from_slice(&line);
        }
        seen
    }
}

#[tokio::test]
async fn a_user_with_its_own_names_alone_is_enough() {
    let access = Access::User(RULES);
    let server = Redis::start_with(RedisOptions { access, ..RedisOptions::default() });
    let replica =
        Replica::new(doorward::cache::redis::Settings { login: login(access), ..settings(&server) })
            .connected()
            .await;
    let mut events = replica.cache.stream();
    super::connected(&mut events).await;
    let key = credential("token");
    assert!(replica.put(&key, &value(None)).await);
    replica.cache.invalidate(&changed("token", None)).await.unwrap();
    assert!(replica.finds(&key).await.is_none());
}

#[tokio::test]
async fn who_may_not_publish_is_told_so() {
    let access = Access::User("~doorward:* &doorward:* +@all -publish");
    let server = Redis::start_with(RedisOptions { access, ..RedisOptions::default() });
    let replica =
        Replica::new(doorward::cache::redis::Settings { login: login(access), ..settings(&server) });
    let key = credential("token");
    assert!(replica.put(&key, &value(None)).await);
    for _ in 0..20 {
        let refused = replica.cache.invalidate(&changed("token", None)).await.unwrap_err();
        assert!(matches!(&refused, Away::Refused(_)), "{refused:?}");
    }
    // Others are not kept from it.
    assert!(replica.finds(&key).await.is_none() && replica.cache.state().works);
}

#[tokio::test]
async fn a_wrong_password_is_no_connection_and_is_not_shown() {
    let server = Redis::start_with(RedisOptions { access: Access::Password, ..RedisOptions::default() });
    let login = doorward::cache::redis::Login { user: None, password: Some(Secret::new("wrong-password")) };
    let quick = Duration::from_millis(50);
    let settings = doorward::cache::redis::Settings { login, timeout: quick, ..settings(&server) };
    let replica = Replica::new(settings);
    super::eventually("why not", async || replica.cache.state().why.is_some()).await;
    let away = replica.cache.get(&credential("token")).await.unwrap_err();
    assert!(matches!(away, Away::Paused | Away::Unconnected(_)), "{away:?}");
    let shown = format!("{away:?} {:?} {replica:?}", replica.cache.state());
    assert!(shown.contains("WRONGPASS") || shown.contains("AuthenticationFailed"), "{shown}");
    assert!(!shown.contains("wrong-password"), "{shown}");
    assert_eq!(replica.counts(&credential("token")).await, "away");
}

#[tokio::test]
async fn a_full_server_finds_and_forgets_what_is_there() {
    let more = "maxmemory 3mb\nmaxmemory-policy noeviction";
    let server = Redis::start_with(RedisOptions { more, ..RedisOptions::default() });
    let replica = Replica::new(settings(&server)).connected().await;
    let key = credential("token");
    assert!(replica.put(&key, &value(None)).await);
    let mut connection = server.connection();
    let mut number = 0;
    while connection.set::<_, _, ()>(format!("other {number}"), vec![0; 20_000]).is_ok() {
        number += 1;
    }
    let mut number = 0;
    while connection.set::<_, _, ()>(format!("small {number}"), "x").is_ok() {
        number += 1;
    }
    assert!(replica.finds(&key).await.is_some());
    let got = replica.cache.get(&credential("another")).await.unwrap();
    assert!(got.value.is_none() && got.lease.is_none());
    let mut events = replica.cache.stream();
    super::connected(&mut events).await;
    replica.cache.invalidate(&changed("token", None)).await.unwrap();
    assert!(matches!(super::next(&mut events).await, doorward::cache::redis::Event::Message(_)));
    assert_eq!(replica.counts(&key).await, "miss");
    assert!(replica.cache.state().works);
}

#[test]
fn values_of_tests_are_young() {
    let now = doorward::clock::Clock::unix(&SystemClock::new());
    let SharedValue { confirmed, .. } = value(None);
    assert!((now.0 - 2..=now.0).contains(&confirmed.0));
}
