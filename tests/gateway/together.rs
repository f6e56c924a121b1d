//! Two gateways with one Redis: throttles of logins and guards count over both, and what holds when Redis is away.

use crate::harness::client::{Answer, Client, Protocol, Request};
use crate::harness::gateway::TestGateway;
use crate::harness::services::redis::Redis;
use crate::harness::upstream::TestUpstream;
use crate::harness::world::assert_own;
use doorward::app::Options;
use futures_util::future::join_all;
use redis::Commands as _;
use std::time::Duration;
use tokio::time::Instant;

const PASSWORD: &str = "correct horse battery staple";

const ROUTES: &str = r#"
[clients]
trusted_proxies = ["127.0.0.1"]

[throttles.login]
rate = "3/min"

[throttles.other]
rate = "3/min"

[throttles.hot]
rate = "3/min"

[throttles.together]
rate = "3/min"
by = "route"
shared = true

[routes.obtain]
path = "/obtain"
handler = "obtain-token"
throttles = ["login"]

[routes.other]
path = "/other"
handler = "obtain-token"
throttles = ["other"]

[routes.free]
path = "/free"
handler = "obtain-token"

[routes.hot]
path = "/hot"
upstream = "legacy"
permission = "anyone"
throttles = ["hot"]

[routes.together]
path = "/together"
upstream = "legacy"
permission = "anyone"
throttles = ["together"]
"#;

/// Not to be waited for in a test that is not about waiting.
const PATIENT: &str = "timeout = \"5s\"";

const HOME: &str = "192.0.2.1";

/// A case with two gateways on one store and one Redis, over each protocol.
#[expect(clippy::needless_pass_by_value, reason = "cases are written in place")]
fn together(guard: &str, redis_lines: &str, case: impl AsyncFn(&[Client; 2], &mut Redis)) {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let upstream = TestUpstream::start();
        let mut redis = Redis::start();
        let directory = tempfile::tempdir().unwrap();
        let text = format!(
            "[listen]\nhttps = [\"127.0.0.1:0\"]\nadmin_socket = \"off\"\nworkers = 2\n\
             [deployment]\nkey = \"0123456789abcdef0123456789abcdef\"\n\
             [store]\nurl = \"sqlite:doorward.db\"\n\
             [redis]\nurl = \"{}\"\n{redis_lines}\n\
             [authentication.guard]\n{guard}\n\
             [upstreams.legacy]\nservers = [\"{}\"]\n{ROUTES}",
            redis.url(),
            upstream.url()
        );
        let start = || TestGateway::start_in(directory.path(), &text, Options::default()).unwrap();
        let gateways = [start(), start()];
        gateways[0].user("alice", PASSWORD);
        let clients = [0, 1].map(|number: usize| Client::new(protocol, gateways[number].address()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let case = tokio::time::timeout(Duration::from_mins(1), case(&clients, &mut redis));
            assert!(case.await.is_ok(), "the case takes more than a minute over {protocol:?}");
        });
    }
}

fn from(request: Request, address: &str) -> Request {
    request.field("X-Forwarded-For", address)
}

/// A login that is counted and asks for no password.
fn empty(path: &str, address: &str) -> Request {
    from(Request::post(path, "{}").field("Content-Type", "application/json"), address)
}

fn login(address: &str, username: &str, password: &str) -> Request {
    let body = serde_json::json!({ "username": username, "password": password }).to_string();
    from(Request::post("/free", body).field("Content-Type", "application/json"), address)
}

async fn status(client: &Client, request: Request) -> u16 {
    client.send(request).await.status
}

#[track_caller]
fn assert_throttled(answer: &Answer, seconds: std::ops::RangeInclusive<u64>) {
    assert_own(answer, 429);
    let wait: u64 = answer.one("retry-after").unwrap().parse().unwrap();
    assert!(seconds.contains(&wait), "{wait}");
    let detail = format!("Request was throttled. Expected available in {wait} seconds.");
    assert_eq!(answer.detail(), detail);
}

#[test]
fn exactly_the_rate_passes_over_both_gateways() {
    together("", PATIENT, async |clients, _| {
        // Connections of their own, so that all come at the same time.
        let all: Vec<_> = (0..8).map(|number| clients[number % 2].fresh()).collect();
        let requests = all.iter().flat_map(|client| (0..3).map(|_| client.send(empty("/obtain", HOME))));
        let answers = join_all(requests).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 400).count(), 3, "{answers:#?}");
        for refused in answers.iter().filter(|answer| answer.status != 400) {
            assert_throttled(refused, 30..=60);
        }
        // Neither other throttles nor other clients have used anything up.
        for client in clients {
            assert_eq!(status(client, empty("/obtain", HOME)).await, 429);
            assert_eq!(status(client, empty("/other", HOME)).await, 400);
            assert_eq!(status(client, empty("/obtain", &format!("{HOME}1"))).await, 400);
        }
    });
}

#[test]
fn the_wait_is_that_of_the_oldest_wherever_it_was_counted() {
    together("", PATIENT, async |[one, other], _| {
        assert_eq!(status(one, empty("/obtain", HOME)).await, 400);
        tokio::time::sleep(Duration::from_millis(2100)).await;
        for _ in 0..2 {
            assert_eq!(status(other, empty("/obtain", HOME)).await, 400);
        }
        // The second time it is remembered.
        for client in [other, other, one] {
            assert_throttled(&client.send(empty("/obtain", HOME)).await, 40..=58);
        }
    });
}

#[test]
fn a_hot_route_counts_for_itself_unless_told_otherwise() {
    together("", PATIENT, async |clients, _| {
        for client in clients {
            for expected in [200, 200, 200, 429] {
                assert_eq!(status(client, from(Request::get("/hot"), HOME)).await, expected);
            }
        }
        let [one, other] = clients;
        for (client, expected) in [(one, 200), (other, 200), (one, 200), (other, 429), (one, 429)] {
            assert_eq!(status(client, Request::get("/together")).await, expected);
        }
    });
}

#[test]
fn wrong_passwords_are_counted_over_both_gateways() {
    let guard = "address = \"9/hour\"\naddress_and_user = \"5/hour\"\nuser_delay = \"off\"";
    together(guard, PATIENT, async |clients, _| {
        for number in 0..5 {
            assert_eq!(status(&clients[number % 2], login(HOME, "alice", "wrong")).await, 400);
        }
        for client in clients {
            for password in ["wrong", PASSWORD] {
                assert_throttled(&client.send(login(HOME, "alice", password)).await, 600..=720);
            }
        }
        // What was refused for this name did not use the address up, which has 9 over both.
        for number in 0..4 {
            let name = format!("name {number}");
            assert_eq!(status(&clients[number % 2], login(HOME, &name, "wrong")).await, 400, "{number}");
        }
        for client in clients {
            assert_throttled(&client.send(login(HOME, "another", "wrong")).await, 300..=400);
            assert_eq!(status(client, login("192.0.2.2", "alice", PASSWORD)).await, 200);
        }
    });
}

#[test]
fn right_passwords_use_nothing_up_at_either_gateway() {
    let guard = "address_and_user = \"3/hour\"\nuser_delay = \"off\"";
    together(guard, PATIENT, async |clients, redis| {
        for number in 0..10 {
            assert_eq!(status(&clients[number % 2], login(HOME, "alice", PASSWORD)).await, 200, "{number}");
        }
        // At the same time, more than may fail: they wait for each other, here and there.
        let all: Vec<_> = (0..8).map(|number| clients[number % 2].fresh()).collect();
        let logins = all.iter().map(|client| client.send(login(HOME, "alice", PASSWORD)));
        let statuses: Vec<_> = join_all(logins).await.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [200; 8]);
        let mut connection = redis.connection();
        let mut left = || connection.keys::<_, Vec<String>>("doorward:t:*").unwrap().len();
        for _ in 0..100 {
            if left() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(left(), 0, "all was given back");
    });
}

#[test]
fn failures_of_a_name_delay_it_at_the_other_gateway() {
    let guard = "user_delay = \"1s\"";
    together(guard, PATIENT, async |[one, other], _| {
        for number in 1..=2 {
            let began = Instant::now();
            assert_eq!(status(one, login(&format!("198.51.100.{number}"), "alice", "wrong")).await, 400);
            assert!(began.elapsed() < Duration::from_secs(1), "the first failure delays nothing");
        }
        // What ended there a moment ago is told after the answer.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let began = Instant::now();
        assert_eq!(status(other, login(HOME, "alice", PASSWORD)).await, 200);
        assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    });
}

#[test]
fn without_redis_local_limits_hold_and_nobody_waits() {
    let guard = "address_and_user = \"2/hour\"\nuser_delay = \"off\"";
    together(guard, "", async |clients, redis| {
        let [one, other] = clients;
        redis.pause();
        for client in clients {
            let began = Instant::now();
            for expected in [400, 400, 400, 429, 429] {
                assert_eq!(status(client, empty("/obtain", HOME)).await, expected);
            }
            for (password, expected) in [(PASSWORD, 200), ("wrong", 400), ("wrong", 400), (PASSWORD, 429)] {
                assert_eq!(status(client, login(HOME, "alice", password)).await, expected, "{password}");
            }
            // Four passwords, one refusal that is told late, and calls that nobody answers for 100 ms.
            assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        }
        redis.resume();
        // Once it is asked again, both count together again, each client that has not come before.
        let mut number = 0;
        let began = Instant::now();
        loop {
            number += 1;
            let address = format!("198.51.100.{number}");
            let mut passed = 0;
            for client in [one, other, one, other, one, other] {
                passed += u32::from(status(client, empty("/obtain", &address)).await == 400);
            }
            if passed == 3 {
                break;
            }
            assert!(passed <= 6 && began.elapsed() < Duration::from_secs(20), "{passed}");
        }
        // What was counted while Redis was away counts still, where it was counted.
        for client in clients {
            assert_eq!(status(client, empty("/obtain", HOME)).await, 429);
            assert_eq!(status(client, login(HOME, "alice", PASSWORD)).await, 429);
        }
    });
}

#[test]
fn a_redis_that_forgets_gives_no_gateway_more_than_its_rate() {
    together("address_and_user = \"2/hour\"\nuser_delay = \"off\"", PATIENT, async |[one, other], redis| {
        for expected in [400, 400, 400] {
            assert_eq!(status(one, empty("/obtain", HOME)).await, expected);
        }
        for _ in 0..2 {
            assert_eq!(status(one, login(HOME, "alice", "wrong")).await, 400);
        }
        assert_eq!(status(other, empty("/obtain", HOME)).await, 429);
        redis::cmd("FLUSHALL").exec(&mut redis.connection()).unwrap();
        assert_eq!(status(one, empty("/obtain", HOME)).await, 429);
        assert_eq!(status(one, login(HOME, "alice", PASSWORD)).await, 429);
    });
}

#[test]
fn no_address_and_no_name_lies_in_redis() {
    together("address_and_user = \"5/hour\"", PATIENT, async |[one, other], redis| {
        for client in [one, other] {
            assert_eq!(status(client, empty("/obtain", HOME)).await, 400);
            assert_eq!(status(client, login(HOME, "alice", "wrong")).await, 400);
        }
        let mut connection = redis.connection();
        // The log of the throttle, and the buckets of the address, the address for the name, and the name.
        let mut names: Vec<String> = Vec::new();
        for _ in 0..100 {
            names = connection.keys("doorward:t:*").unwrap();
            if names.len() == 4 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(names.len(), 4, "{names:?}");
        for name in names {
            let digest = name.strip_prefix("doorward:t:").unwrap();
            assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
            let value: String = connection.get(&name).unwrap();
            assert!(value.bytes().all(|byte| byte.is_ascii_digit() || byte == b' '), "{value}");
            assert!((1..=3_600_000).contains(&connection.pttl::<_, i64>(&name).unwrap()), "{name}");
        }
    });
}
