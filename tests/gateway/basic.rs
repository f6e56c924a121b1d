//! Names and passwords on each request: the wire is Django REST framework's, and a password is hashed once.

use crate::harness::client::{Answer, Client, Protocol, Request};
use crate::harness::gateway::manual_clock;
use crate::harness::program::credentials;
use crate::harness::scrape::ADMIN;
use crate::harness::traces::Traces;
use crate::harness::world::{Settings, World, assert_own, on_both};
use crate::harness::{PATIENCE, secrets};
use data_encoding::BASE64;
use doorward::credentials::{Credentials, NewAccount};
use doorward::secret::Secret;
use doorward::trace::{AnsweredBy, Reason};
use futures_util::future::join_all;
use sqlx::ConnectOptions as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const PASSWORD: &str = "correct horse battery staple";
const INVALID: &str = "Invalid username/password.";
const HASHED: &str = "doorward_password_duration_seconds_count";

const ROUTES: &str = r#"
[routes.everything]
path = "/"
upstream = "legacy"
schemes = ["basic"]

[routes.staff]
path = "/staff"
upstream = "legacy"
schemes = ["basic"]
realm = "Staff area"

[routes.public]
path = "/public"
upstream = "legacy"
schemes = ["basic"]
permission = "anyone"

[routes.canary]
path = "/canary"
upstream = "legacy"
schemes = ["token"]
"#;

const NO_GUARD: &str = "[authentication]\nguard = \"off\"\n";

fn settings(sections: &str) -> Settings {
    Settings { listen: ADMIN, ..Settings::sections(&format!("{ROUTES}\n{sections}\n")) }
}

fn basic(target: &str, username: &str, password: &str) -> Request {
    let word = BASE64.encode(format!("{username}:{password}").as_bytes());
    secrets::used(&word);
    Request::get(target).field("Authorization", format!("Basic {word}"))
}

async fn status(client: &Client, password: &str) -> u16 {
    client.send(basic("/x", "alice", password)).await.status
}

#[track_caller]
fn assert_refused_with(answer: &Answer, detail: &str) {
    assert_own(answer, 401);
    assert_eq!(answer.detail(), detail);
    assert_eq!(answer.one("www-authenticate").as_deref(), Some("Basic realm=\"api\""));
}

/// Waits until the password has another answer; how long that took.
async fn becomes(client: &Client, password: &str, wanted: u16) -> Duration {
    let since = Instant::now();
    while status(client, password).await != wanted {
        assert!(since.elapsed() < PATIENCE, "{wanted} never comes");
        sleep(Duration::from_millis(5)).await;
    }
    since.elapsed()
}

/// How many passwords were hashed so far.
async fn hashed(world: &World) -> f64 {
    world.scrape().await.sum(HASHED)
}

/// The writer of another process. Call it outside of a runtime.
fn other_process(world: &World) -> Arc<Credentials> {
    let text =
        "[upstreams.x]\nservers = [\"http://127.0.0.1:1\"]\n[routes.x]\npath = \"/\"\nupstream = \"x\"\n";
    let running = world.gateway.running();
    let directory = world.gateway.directory().to_owned();
    running.block_on(async move { credentials(text, &directory).await }).unwrap()
}

#[test]
fn every_text_is_drfs() {
    on_both(&settings(NO_GUARD), async |world, client| {
        let mark = world.upstream.mark();
        let send = async |value: &str| client.send(Request::get("/x").field("Authorization", value)).await;
        for (value, detail) in [
            ("Basic", "Invalid basic header. No credentials provided."),
            ("basic", "Invalid basic header. No credentials provided."),
            ("Basic YTpi Yg==", "Invalid basic header. Credentials string should not contain spaces."),
            ("Basic x", "Invalid basic header. Credentials not correctly base64 encoded."),
            ("Basic YWxpY2U=", "Invalid basic header. Credentials not correctly base64 encoded."),
        ] {
            assert_refused_with(&send(value).await, detail);
        }
        for (username, password) in [("alice", "wrong"), ("nobody", PASSWORD), ("Alice", PASSWORD), ("", "")]
        {
            assert_refused_with(&client.send(basic("/x", username, password)).await, INVALID);
        }
        assert_refused_with(
            &client.send(Request::get("/x")).await,
            "Authentication credentials were not provided.",
        );
        // Another scheme's credentials are none.
        assert_refused_with(&send("Token x").await, "Authentication credentials were not provided.");
        // Bad ones are refused where none are needed.
        assert_refused_with(&client.send(basic("/public", "alice", "wrong")).await, INVALID);
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn the_right_password_reaches_the_upstream_without_it() {
    on_both(&settings("[identity]\nauth_type = \"X-Auth-Kind\"\n"), async |world, client| {
        let answer = client.send(basic("/x", "alice", PASSWORD)).await;
        assert_eq!(answer.status, 200);
        let came = world.upstream.last();
        assert_eq!(came.one("remote-user").as_deref(), Some("alice"));
        assert_eq!(came.one("x-auth-kind").as_deref(), Some("Basic"));
        assert_eq!(came.one("authorization"), None);
    });
}

#[test]
fn a_route_has_a_realm_of_its_own() {
    on_both(&settings(NO_GUARD), async |_, client| {
        for request in [Request::get("/staff"), basic("/staff", "alice", "wrong")] {
            let answer = client.send(request).await;
            assert_own(&answer, 401);
            assert_eq!(answer.one("www-authenticate").as_deref(), Some("Basic realm=\"Staff area\""));
        }
    });
}

#[test]
fn the_second_request_hashes_nothing() {
    let traces = Traces::new();
    let settings = Settings { options: traces.options(), ..settings("") };
    on_both(&settings, async |world, client| {
        assert_eq!(status(client, PASSWORD).await, 200);
        let before = hashed(world).await;
        assert!(before >= 1.0);
        for _ in 0..20 {
            assert_eq!(status(client, PASSWORD).await, 200);
        }
        // Past the bound the store is asked again, and no password is hashed.
        sleep(Duration::from_millis(1200)).await;
        assert_eq!(status(client, PASSWORD).await, 200);
        assert!((hashed(world).await - before).abs() < 0.5);
        assert!(traces.all().iter().any(|told| told.trace.answered_by == AnsweredBy::Local));
    });
}

#[test]
fn a_password_is_remembered_for_five_minutes_and_no_longer() {
    let (clock, options) = manual_clock();
    let settings = Settings { options, ..settings("") };
    World::start(&settings).run(Protocol::Http2, async |world, client| {
        assert_eq!(status(client, PASSWORD).await, 200);
        let first = hashed(world).await;
        clock.advance(Duration::from_secs(290));
        assert_eq!(status(client, PASSWORD).await, 200);
        assert!((hashed(world).await - first).abs() < 0.5, "asked again, not hashed again");
        clock.advance(Duration::from_secs(20));
        assert_eq!(status(client, PASSWORD).await, 200);
        assert!((hashed(world).await - first - 1.0).abs() < 0.5, "hashed again");
    });
}

#[test]
fn what_changes_in_this_process_is_effective_at_once() {
    on_both(&settings(NO_GUARD), async |world, client| {
        let credentials = world.gateway.running().credentials();
        assert_eq!(status(client, PASSWORD).await, 200);
        credentials.set_active("alice", false).await.unwrap();
        assert_refused_with(&client.send(basic("/x", "alice", PASSWORD)).await, INVALID);
        credentials.set_active("alice", true).await.unwrap();
        assert_eq!(status(client, PASSWORD).await, 200);
        credentials.set_password("alice", Secret::new("another password")).await.unwrap();
        assert_eq!(status(client, PASSWORD).await, 401);
        assert_eq!(status(client, "another password").await, 200);
        assert_eq!(status(client, PASSWORD).await, 401);
        credentials.delete_user("alice").await.unwrap();
        assert_eq!(status(client, "another password").await, 401);
    });
}

#[test]
fn what_another_process_changes_is_effective_within_a_second() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::start(&settings(NO_GUARD));
        let other = other_process(&world);
        world.run(protocol, async |_, client| {
            assert_eq!(status(client, PASSWORD).await, 200);
            other.set_password("alice", Secret::new("another password")).await.unwrap();
            let mut longest = becomes(client, PASSWORD, 401).await;
            assert_eq!(status(client, "another password").await, 200);
            other.set_active("alice", false).await.unwrap();
            longest = longest.max(becomes(client, "another password", 401).await);
            other.set_active("alice", true).await.unwrap();
            longest = longest.max(becomes(client, "another password", 200).await);
            other.delete_user("alice").await.unwrap();
            longest = longest.max(becomes(client, "another password", 401).await);
            assert!(longest < Duration::from_secs(1), "{longest:?}");
        });
    }
}

fn guarded(wait_for: &Answer) -> u64 {
    assert_own(wait_for, 429);
    let wait: u64 = wait_for.one("retry-after").unwrap().parse().unwrap();
    let unit = if wait == 1 { "second" } else { "seconds" };
    assert_eq!(wait_for.detail(), format!("Request was throttled. Expected available in {wait} {unit}."));
    wait
}

#[test]
fn guesses_are_refused_after_a_few_and_the_right_password_passes_later() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (clock, options) = manual_clock();
        let sections = "[authentication.guard]\naddress_and_user = \"3/hour\"\nuser_delay = \"off\"\n";
        let settings = Settings { options, ..settings(sections) };
        World::start(&settings).run(protocol, async |world, client| {
            let mark = world.upstream.mark();
            for username in ["alice", "nobody"] {
                for number in 0..3 {
                    let guess = basic("/x", username, &format!("guess {number}"));
                    assert_refused_with(&client.send(guess).await, INVALID);
                }
                for password in ["guess 3", PASSWORD] {
                    let wait = guarded(&client.send(basic("/x", username, password)).await);
                    assert!((1100..=1200).contains(&wait), "{username}: {wait}");
                }
            }
            world.assert_refused(client, mark).await;
            clock.advance(Duration::from_mins(20));
            assert_eq!(status(client, PASSWORD).await, 200);
        });
    }
}

#[test]
fn who_is_known_passes_while_others_guess() {
    let sections = "[authentication.guard]\naddress_and_user = \"2/hour\"\nuser_delay = \"off\"\n";
    on_both(&settings(sections), async |_, client| {
        assert_eq!(status(client, PASSWORD).await, 200);
        for number in 0..2 {
            assert_eq!(status(client, &format!("guess {number}")).await, 401);
        }
        guarded(&client.send(basic("/x", "alice", "guess 2")).await);
        for _ in 0..3 {
            assert_eq!(status(client, PASSWORD).await, 200);
            sleep(Duration::from_millis(400)).await;
        }
    });
}

#[test]
fn a_password_that_was_changed_is_not_used_because_the_guard_is_closed() {
    // Only what the store says now counts: a refusal to hash is no outage.
    let sections = "[authentication.guard]\naddress_and_user = \"2/hour\"\nuser_delay = \"off\"\n";
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::start(&settings(sections));
        let other = other_process(&world);
        world.run(protocol, async |_, client| {
            assert_eq!(status(client, PASSWORD).await, 200);
            for number in 0..2 {
                assert_eq!(status(client, &format!("guess {number}")).await, 401);
            }
            other.set_password("alice", Secret::new("another password")).await.unwrap();
            let longest = becomes(client, PASSWORD, 429).await;
            assert!(longest < Duration::from_secs(3), "{longest:?}");
            for _ in 0..4 {
                assert_eq!(status(client, PASSWORD).await, 429);
            }
        });
    }
}

#[test]
fn all_who_come_at_once_with_one_right_password_pass_by_few_hashes() {
    on_both(&settings(""), async |world, client| {
        let before = hashed(world).await;
        let clients: Vec<_> = (0..10).map(|_| client.fresh()).collect();
        let all = clients.iter().flat_map(|client| (0..10).map(|_| status(client, PASSWORD)));
        let answers = join_all(all).await;
        assert_eq!(answers, [200; 100], "{answers:?}");
        let hashes = hashed(world).await - before;
        assert!((1.0..=3.0).contains(&hashes), "{hashes}");
    });
}

#[test]
fn a_full_queue_of_passwords_refuses_and_says_so() {
    let traces = Traces::new();
    let sections = format!("{NO_GUARD}\n[limits]\npassword_queue = 1\n");
    let settings = Settings { options: traces.options(), ..settings(&sections) };
    on_both(&settings, async |_, client| {
        assert_eq!(status(client, PASSWORD).await, 200);
        let clients: Vec<_> = (0..30).map(|_| client.fresh()).collect();
        let guesses = clients.iter().enumerate().map(async |(number, client)| {
            client.send(basic("/x", "alice", &format!("guess {number}"))).await
        });
        let known = async {
            for _ in 0..5 {
                assert_eq!(status(client, PASSWORD).await, 200, "who is known does not wait");
            }
        };
        let (answers, ()) = tokio::join!(join_all(guesses), known);
        let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
        for answer in &answers {
            *counts.entry(answer.status).or_default() += 1;
            assert_eq!(answer.one("retry-after").is_some(), answer.status == 503);
        }
        assert!(counts.keys().eq([&401, &503]), "{counts:?}");
        assert!(traces.becomes(|all| all.iter().any(|t| t.trace.reason == Reason::PasswordBusy)).await);
    });
}

/// Hides users from the store, or shows them again.
async fn hide_users(world: &World, hide: bool) {
    let path = world.gateway.directory().join("doorward.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = options.connect().await.unwrap();
    let statements = if hide {
        ["ALTER TABLE user RENAME TO gone", "ALTER TABLE change RENAME TO unchanged"]
    } else {
        ["ALTER TABLE gone RENAME TO user", "ALTER TABLE unchanged RENAME TO change"]
    };
    for statement in statements {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
}

#[test]
fn who_is_known_passes_while_the_store_is_away_and_not_for_ever() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let sections = format!("{NO_GUARD}\n[cache]\nstale_while_unreachable = \"3s\"\n");
        World::start(&settings(&sections)).run(protocol, async |world, client| {
            assert_eq!(status(client, PASSWORD).await, 200);
            hide_users(world, true).await;
            let since = Instant::now();
            sleep(Duration::from_millis(1500)).await;
            assert_eq!(status(client, PASSWORD).await, 200, "after {:?}", since.elapsed());
            assert_eq!(status(client, "guess").await, 503, "nobody knows");
            becomes(client, PASSWORD, 503).await;
            assert!(since.elapsed() > Duration::from_secs(2), "{:?}", since.elapsed());
            assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
            hide_users(world, false).await;
            becomes(client, PASSWORD, 200).await;
        });
    }
}

#[test]
fn a_right_password_of_an_inactive_user_is_checked_each_time() {
    on_both(&settings(NO_GUARD), async |world, client| {
        let store = world.gateway.running().credentials();
        let account = NewAccount {
            username: "ivan".to_owned(),
            password: Secret::new(PASSWORD),
            ..NewAccount::default()
        };
        store.add_user(account).await.unwrap();
        store.set_active("ivan", false).await.unwrap();
        for _ in 0..2 {
            let before = hashed(world).await;
            let answer = client.send(basic("/x", "ivan", PASSWORD)).await;
            assert_eq!(answer.status, 401);
            assert!((hashed(world).await - before - 1.0).abs() < 0.5, "an answer from memory would tell");
            // As long as a wrong one is remembered, too.
            sleep(Duration::from_millis(1200)).await;
        }
    });
}
