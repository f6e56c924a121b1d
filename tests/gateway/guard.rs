//! Guards: guessing passwords is slow, and nobody can lock anybody else out.

use crate::harness::client::{Answer, Client, Protocol, Request};
use crate::harness::traces::Traces;
use crate::harness::world::{ROUTES, Settings, World, assert_own, on_both};
use doorward::trace::{Reason, ThrottleState};
use futures_util::future::join_all;
use std::time::Duration;
use tokio::time::Instant;

const PASSWORD: &str = "correct horse battery staple";

/// The handler, behind a proxy that says who the client is; one failure more is soon waited for.
fn settings(guard: &str) -> Settings {
    Settings::sections(&format!(
        "{ROUTES}\n[clients]\ntrusted_proxies = [\"127.0.0.1\"]\n\n[authentication.guard]\n{guard}\n\n\
         [routes.obtain]\npath = \"/obtain\"\nhandler = \"obtain-token\"\n"
    ))
}

/// By the hour, so that nothing is forgiven while a busy machine is slow.
const QUICK: &str = "address_and_user = \"5/hour\"\nuser_delay = \"100ms\"";

fn login(from: &str, username: &str, password: &str) -> Request {
    let body = serde_json::json!({ "username": username, "password": password }).to_string();
    let request = Request::post("/obtain", body).field("Content-Type", "application/json");
    request.field("X-Forwarded-For", from)
}

async fn status(client: &Client, from: &str, username: &str, password: &str) -> u16 {
    client.send(login(from, username, password)).await.status
}

#[track_caller]
fn assert_guarded(answer: &Answer, seconds: std::ops::RangeInclusive<u64>) {
    assert_own(answer, 429);
    let wait: u64 = answer.one("retry-after").unwrap().parse().unwrap();
    assert!(seconds.contains(&wait), "{wait}");
    let unit = if wait == 1 { "second" } else { "seconds" };
    assert_eq!(answer.detail(), format!("Request was throttled. Expected available in {wait} {unit}."));
    assert_eq!(answer.one("cache-control").as_deref(), Some("no-store"));
}

const HOME: &str = "192.0.2.1";
const ELSEWHERE: &str = "192.0.2.2";

#[test]
fn the_sixth_wrong_password_for_a_name_is_refused_and_the_right_one_too() {
    on_both(&settings(QUICK), async |world, client| {
        for username in ["alice", "nobody"] {
            for _ in 0..5 {
                assert_eq!(status(client, HOME, username, "wrong").await, 400);
            }
            for password in ["wrong", PASSWORD] {
                assert_guarded(&client.send(login(HOME, username, password)).await, 600..=720);
            }
        }
        // Neither other names of the address nor other addresses are locked out.
        assert_eq!(status(client, HOME, "bob", "wrong").await, 400);
        assert_eq!(status(client, ELSEWHERE, "alice", PASSWORD).await, 200);
        assert!(world.upstream.log().requests.is_empty());
    });
}

#[test]
fn one_address_has_so_many_failures_whatever_the_names() {
    on_both(&settings("address = \"6/hour\"\nuser_delay = \"100ms\""), async |_, client| {
        for number in 0..6 {
            // One subscriber of IPv6 has many addresses.
            let from = format!("2001:db8::{number}");
            assert_eq!(status(client, &from, &format!("name {number}"), "wrong").await, 400);
        }
        assert_guarded(&client.send(login("2001:db8::9", "alice", PASSWORD)).await, 500..=600);
        assert_eq!(status(client, "2001:db8:0:1::1", "alice", PASSWORD).await, 200);
    });
}

#[test]
fn right_passwords_use_nothing_up() {
    on_both(
        &settings("address = \"4/hour\"\naddress_and_user = \"3/hour\"\nuser_delay = \"off\""),
        async |_, client| {
            for round in 0..3 {
                for _ in 0..5 {
                    assert_eq!(status(client, HOME, "alice", PASSWORD).await, 200, "{round}");
                }
                assert_eq!(status(client, HOME, "alice", "wrong").await, 400, "{round}");
            }
            assert_eq!(status(client, HOME, "alice", PASSWORD).await, 429);
            // What was refused for this name did not use the address up.
            assert_eq!(status(client, HOME, "bob", "wrong").await, 400);
            assert_eq!(status(client, HOME, "bob", "wrong").await, 429);
        },
    );
}

#[test]
fn attempts_at_the_same_time_do_not_all_pass() {
    let settings = Settings { workers: 2, ..settings("user_delay = \"off\"") };
    on_both(&settings, async |_, client| {
        let clients: Vec<_> = (0..8).map(|_| client.fresh()).collect();
        let burst =
            clients.iter().flat_map(|client| (0..4).map(|_| client.send(login(HOME, "alice", "wrong"))));
        let answers = join_all(burst).await;
        let count = |status| answers.iter().filter(|answer| answer.status == status).count();
        // A hash takes a while on a busy machine, and one more every 12 seconds is within the rate.
        assert!((5..=6).contains(&count(400)), "{}", count(400));
        assert_eq!(count(400) + count(429), 32, "{answers:#?}");
    });
}

#[test]
fn failures_of_a_name_delay_it_everywhere_and_never_refuse_it() {
    on_both(&settings("user_delay = \"300ms\""), async |_, client| {
        for username in ["alice", "nobody"] {
            for failures in 0..5_u32 {
                let since = Instant::now();
                let from = format!("198.51.100.{failures}");
                assert_eq!(status(client, &from, username, "wrong").await, 400);
                let least = Duration::from_millis(300) * failures.saturating_sub(1);
                assert!(since.elapsed() >= least, "{username} {failures}: {:?}", since.elapsed());
            }
        }
        // The right password waits as long, before it is looked at; a name without failures does not.
        let since = Instant::now();
        assert_eq!(status(client, HOME, "alice", PASSWORD).await, 200);
        assert!(since.elapsed() >= Duration::from_millis(1200), "{:?}", since.elapsed());
    });
}

#[test]
fn whoever_hangs_up_has_tried() {
    // Over HTTP/1.1 a client that ends its connection may still want its answer, and gets it checked.
    World::start(&settings("user_delay = \"10s\"")).run(Protocol::Http2, async |_, client| {
        for _ in 0..2 {
            assert_eq!(status(client, HOME, "alice", "wrong").await, 400);
        }
        // From now on an attempt waits for 10 seconds, and hangs up at once.
        for _ in 0..12 {
            let leaver = client.fresh();
            let left = leaver.try_send(login(HOME, "alice", "wrong"));
            let left = tokio::time::timeout(Duration::from_millis(200), left).await;
            assert!(
                left.is_err() || left.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status == 429))
            );
        }
        assert_guarded(&client.send(login(HOME, "alice", PASSWORD)).await, 1..=12);
    });
}

#[test]
fn the_trace_says_which_guard_and_the_client_is_not_told() {
    for (guard, expected) in [
        ("address = \"1/hour\"\nuser_delay = \"off\"", ThrottleState::GuardedAddress),
        ("address_and_user = \"1/hour\"\nuser_delay = \"off\"", ThrottleState::GuardedAddressAndUser),
    ] {
        let traces = Traces::new();
        let settings = Settings { options: traces.options(), ..settings(guard) };
        World::start(&settings).run(Protocol::Http2, async |_, client| {
            assert_eq!(status(client, HOME, "alice", "wrong").await, 400);
            assert_guarded(&client.send(login(HOME, "alice", PASSWORD)).await, 3590..=3600);
            assert!(traces.becomes(|told| told.iter().any(|told| told.trace.throttle == expected)).await);
            let told = traces.all().into_iter().find(|told| told.trace.throttle == expected).unwrap();
            assert_eq!((told.trace.reason, told.status), (Reason::GuardThrottled, Some(429)));
            assert!(told.trace.throttle_wait_ms > 3_500_000);
        });
    }
}

#[test]
fn guards_can_be_switched_off() {
    let off = "address = \"off\"\naddress_and_user = \"off\"\nuser_delay = \"off\"";
    on_both(&settings(off), async |_, client| {
        for _ in 0..25 {
            assert_eq!(status(client, HOME, "alice", "wrong").await, 400);
        }
    });
}

#[test]
fn whoever_comes_again_at_once_waits_for_the_refusal() {
    on_both(&settings("address_and_user = \"1/hour\"\nuser_delay = \"off\""), async |_, client| {
        assert_eq!(status(client, "192.0.2.1", "alice", "wrong").await, 400);
        let since = Instant::now();
        let crowd: Vec<_> = (0..20).map(|_| client.fresh()).collect();
        let refused =
            join_all(crowd.iter().map(|client| status(client, "192.0.2.1", "alice", PASSWORD))).await;
        assert!(refused.iter().all(|status| *status == 429), "{refused:?}");
        // All wait at the same time, and nobody else does.
        assert!(since.elapsed() >= Duration::from_millis(500), "{:?}", since.elapsed());
        let since = Instant::now();
        assert_eq!(status(client, "192.0.2.2", "alice", PASSWORD).await, 200);
        assert!(since.elapsed() < Duration::from_secs(5));
    });
}
