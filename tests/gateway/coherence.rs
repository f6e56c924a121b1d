//! A change of users or tokens is effective at once here, and within a second if another process made it.
//!
//! About real time and a real file, so the clock is the machine's: another writer on the same SQLite file commits
//! while requests keep coming, and each change is timed from its commit to the first right answer.

use crate::harness::client::{Client, Protocol, Request};
use crate::harness::gateway::TestGateway;
use crate::harness::traces::Traces;
use crate::harness::world::{Settings, World};
use doorward::app::Backing;
use doorward::clock::{Clock, SystemClock};
use doorward::config::{Config, Source};
use doorward::credentials::Credentials;
use doorward::identity::CredentialId;
use doorward::secret::Secret;
use doorward::store::TokenOrigin;
use doorward::trace::AnsweredBy;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

/// `[cache] revocation_bound`: no change may be seen later.
const BOUND: Duration = Duration::from_secs(1);
/// Each makes eight commits.
const CYCLES: usize = 15;
/// 20 commits a second.
const COMMIT_INTERVAL: Duration = Duration::from_millis(50);
/// Clients that send one request each this often, or as soon as the last one is answered: 1,067 a second together,
/// and those that look for changes come on top.
const CLIENTS: usize = 16;
const REQUEST_INTERVAL: Duration = Duration::from_millis(15);
/// Tokens whose answers never change.
const STEADY: usize = 50;
/// Changes of each cycle that can be seen.
const VISIBLE: usize = 6;

const ROUTES: &str = r#"
[routes.everything]
path = "/"
upstream = "legacy"
schemes = ["token"]

[routes.ops]
path = "/ops"
upstream = "legacy"
schemes = ["token"]
permission = { groups = ["ops"] }
"#;

fn settings(traces: &Traces) -> Settings {
    Settings { workers: 2, options: traces.options(), ..Settings::sections(ROUTES) }
}

/// Another process's way to the same file: a store, a cache and a writer of its own.
fn other_process(gateway: &TestGateway) -> Arc<Credentials> {
    let directory = gateway.directory().to_owned();
    let source = Source { name: "other.toml".to_owned(), directory, environment: |_| None };
    let text =
        "[upstreams.x]\nservers = [\"http://127.0.0.1:1\"]\n[routes.x]\npath = \"/\"\nupstream = \"x\"\n";
    let config = Config::parse(text, &source).unwrap().config;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let running = gateway.running();
    running.block_on(Backing::open(&config, &clock)).unwrap().unwrap().credentials
}

/// A user with a token.
struct Member {
    name: String,
    token: String,
}

fn members(gateway: &TestGateway, kind: &str, groups: &[&str]) -> Vec<Member> {
    let make = |number| {
        let name = format!("{kind}-{number}");
        gateway.member(&name, groups, "");
        Member { token: gateway.token(&name), name }
    };
    (0..CYCLES).map(make).collect()
}

async fn make_token(credentials: &Credentials, username: &str) -> (CredentialId, String) {
    let made = credentials.create_token(username, "", TokenOrigin::Command).await.unwrap();
    (made.id, String::from_utf8(made.key.expose().to_vec()).unwrap())
}

/// Who is changed.
struct Cast {
    revoked: Vec<(CredentialId, String)>,
    deactivated: Vec<Member>,
    reactivated: Vec<Member>,
    joining: Vec<Member>,
    leaving: Vec<Member>,
    /// Keys that are tried before they are made.
    awaited: Vec<String>,
    /// Their passwords change, which their tokens survive.
    steady: Vec<String>,
}

impl Cast {
    fn of(gateway: &TestGateway) -> Self {
        let running = gateway.running();
        let make = || running.block_on(make_token(running.credentials(), "alice")).unwrap();
        let cast = Self {
            revoked: (0..CYCLES).map(|_| make()).collect(),
            deactivated: members(gateway, "deactivated", &[]),
            reactivated: members(gateway, "reactivated", &[]),
            joining: members(gateway, "joining", &[]),
            leaving: members(gateway, "leaving", &["ops"]),
            awaited: (0..CYCLES).map(|number| format!("an-awaited-key-{number}")).collect(),
            steady: (0..STEADY).map(|_| make().1).collect(),
        };
        for member in &cast.reactivated {
            gateway.deactivate(&member.name);
        }
        cast
    }

    /// Everybody's answer before any change; also fills the cache.
    async fn warm(&self, client: &Client) {
        let get =
            async |target: &str, token: &str| client.send(Request::get(target).token(token)).await.status;
        for token in self.steady.iter().chain(self.revoked.iter().map(|(_, token)| token)) {
            assert_eq!(get("/x", token).await, 200);
        }
        for cycle in 0..CYCLES {
            assert_eq!(get("/x", &self.deactivated[cycle].token).await, 200);
            assert_eq!(get("/x", &self.reactivated[cycle].token).await, 401);
            assert_eq!(get("/ops", &self.joining[cycle].token).await, 403);
            assert_eq!(get("/ops", &self.leaving[cycle].token).await, 200);
            assert_eq!(get("/x", &self.awaited[cycle]).await, 401);
        }
    }
}

/// Asks until the answer is right, and a while longer; yields how long it took since `committed`.
async fn seen_after(
    client: Arc<Client>,
    target: &'static str,
    token: String,
    right: u16,
    committed: Instant,
) -> Duration {
    let ask = async || client.send(Request::get(target).token(&token)).await.status;
    let seen = loop {
        // The answer may be of any moment before it came: the latest one counts.
        let status = ask().await;
        if status == right {
            break committed.elapsed();
        }
        assert!(committed.elapsed() < 10 * BOUND, "{target} is answered {status} for ever, not {right}");
        sleep(Duration::from_millis(10)).await;
    };
    for _ in 0..5 {
        sleep(Duration::from_millis(40)).await;
        assert_eq!(ask().await, right, "a wrong answer after a right one");
    }
    seen
}

/// Commits, 20 times a second; yields how long each change took to be seen.
async fn change_everything(foreign: &Credentials, cast: &Cast, client: &Arc<Client>) -> Vec<Duration> {
    let mut ticks = interval(COMMIT_INTERVAL);
    let mut probes = JoinSet::new();
    let mut probe = |target, token: &str, right| {
        let committed = Instant::now();
        probes.spawn(seen_after(Arc::clone(client), target, token.to_owned(), right, committed));
    };
    for cycle in 0..CYCLES {
        let (id, token) = &cast.revoked[cycle];
        ticks.tick().await;
        foreign.revoke_token(*id).await.unwrap();
        probe("/x", token, 401);
        ticks.tick().await;
        let member = &cast.deactivated[cycle];
        foreign.set_active(&member.name, false).await.unwrap();
        probe("/x", &member.token, 401);
        ticks.tick().await;
        let member = &cast.reactivated[cycle];
        foreign.set_active(&member.name, true).await.unwrap();
        probe("/x", &member.token, 200);
        ticks.tick().await;
        let member = &cast.joining[cycle];
        foreign.set_groups(&member.name, vec!["ops".to_owned()]).await.unwrap();
        probe("/ops", &member.token, 200);
        ticks.tick().await;
        let member = &cast.leaving[cycle];
        foreign.set_groups(&member.name, vec![]).await.unwrap();
        probe("/ops", &member.token, 403);
        ticks.tick().await;
        let key = &cast.awaited[cycle];
        assert_eq!(client.send(Request::get("/x").token(key)).await.status, 401);
        foreign.import_any_token("alice", Secret::new(key.as_str())).await.unwrap();
        probe("/x", key, 200);
        ticks.tick().await;
        foreign.set_password(&cast.joining[cycle].name, Secret::new("another password")).await.unwrap();
        ticks.tick().await;
        make_token(foreign, "alice").await;
    }
    let mut seen = Vec::new();
    while let Some(one) = probes.join_next().await {
        seen.push(one.unwrap());
    }
    seen
}

/// Sends one request after the other, at its rate; yields how many.
async fn steady_requests(
    client: Client,
    tokens: Vec<String>,
    stop: tokio_util::sync::CancellationToken,
) -> usize {
    let mut ticks = interval(REQUEST_INTERVAL);
    let mut sent = 0;
    while !stop.is_cancelled() {
        ticks.tick().await;
        let token = &tokens[sent * 7 % tokens.len()];
        assert_eq!(client.send(Request::get("/x").token(token)).await.status, 200);
        sent += 1;
    }
    sent
}

/// What is promised is promised at this load.
const REQUESTS_PER_SECOND: f64 = 1_000.0;
/// Of which one must find the machine free enough to make it; the promise itself is kept in each.
const ROUNDS: usize = 4;

#[test]
fn changes_by_another_process_are_seen_within_a_second_under_load() {
    let mut loads = Vec::new();
    while loads.last().is_none_or(|load| *load < REQUESTS_PER_SECOND) {
        assert!(loads.len() < ROUNDS, "the load was too small to say anything: {loads:?}");
        loads.push(under_load());
    }
}

/// One round; yields the requests in a second.
fn under_load() -> f64 {
    let traces = Traces::new();
    let world = World::start(&settings(&traces));
    let foreign = other_process(&world.gateway);
    let cast = Cast::of(&world.gateway);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Arc::new(world.client(Protocol::Http2));
        cast.warm(&client).await;
        let (before, began) = (traces.all().len(), Instant::now());
        let stop = tokio_util::sync::CancellationToken::new();
        let mut load = JoinSet::new();
        for number in 0..CLIENTS {
            let protocol = if number % 2 == 0 { Protocol::Http1 } else { Protocol::Http2 };
            load.spawn(steady_requests(world.client(protocol), cast.steady.clone(), stop.clone()));
        }
        let mut seen = change_everything(&foreign, &cast, &client).await;
        stop.cancel();
        let sent: usize = load.join_all().await.into_iter().sum();
        let took = began.elapsed();
        let told = traces.all();
        let of_load = &told[before..];
        let by_store = of_load.iter().filter(|told| told.trace.answered_by == AnsweredBy::Store).count();
        seen.sort_unstable();
        let (median, longest) = (seen[seen.len() / 2], seen[seen.len() - 1]);
        let per_second = |count: usize| f64::from(u32::try_from(count).unwrap()) / took.as_secs_f64();
        let of_all = 100.0 * per_second(by_store) / per_second(of_load.len());
        eprintln!(
            "{took:.1?}: {:.0} steady requests/s, {:.0} requests/s in all, {:.0} commits/s, {} changes seen after \
             {median:.0?} (p50), {longest:.0?} (max), {of_all:.2} % answered by the store",
            per_second(sent),
            per_second(of_load.len()),
            per_second(8 * CYCLES),
            seen.len(),
        );
        assert_eq!(seen.len(), VISIBLE * CYCLES);
        assert!(longest < BOUND, "{longest:?}");
        assert!(of_all < 5.0, "{of_all} %");
        per_second(of_load.len())
    })
}

#[test]
fn revocation_in_this_process_is_effective_for_the_next_request_on_every_worker() {
    let traces = Traces::new();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        World::start(&settings(&traces)).run(protocol, async |world, client| {
            // Connections are spread over the workers.
            let clients: Vec<_> = (0..8).map(|_| client.fresh()).collect();
            let credentials = world.gateway.running().credentials();
            for _ in 0..200 {
                let (id, token) = make_token(credentials, "alice").await;
                for (right, revoked) in [(200, false), (401, true)] {
                    if revoked {
                        credentials.revoke_token(id).await.unwrap();
                    }
                    let asked = clients.iter().map(|client| client.send(Request::get("/x").token(&token)));
                    for answer in futures_util::future::join_all(asked).await {
                        assert_eq!(answer.status, right, "{answer:?}");
                    }
                }
            }
        });
    }
}

#[test]
fn change_of_a_user_in_this_process_is_effective_for_the_next_request() {
    let traces = Traces::new();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        World::start(&settings(&traces)).run(protocol, async |world, client| {
            let clients: Vec<_> = (0..4).map(|_| client.fresh()).collect();
            let credentials = world.gateway.running().credentials();
            let all = async |right: u16| {
                let asked = clients.iter().map(|client| client.send(world.get("/ops")));
                for answer in futures_util::future::join_all(asked).await {
                    assert_eq!(answer.status, right, "{answer:?}");
                }
            };
            for _ in 0..30 {
                all(403).await;
                credentials.set_groups("alice", vec!["ops".to_owned()]).await.unwrap();
                all(200).await;
                credentials.set_active("alice", false).await.unwrap();
                all(401).await;
                credentials.set_active("alice", true).await.unwrap();
                all(200).await;
                credentials.set_groups("alice", vec![]).await.unwrap();
            }
        });
    }
}
