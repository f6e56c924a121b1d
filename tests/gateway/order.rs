//! Several schemes on one route, what the first of them decides, and the options that mend DRF's traps.

use crate::harness::PATIENCE;
use crate::harness::client::{Answer, Client, Protocol, Request};
use crate::harness::gateway::TestGateway;
use crate::harness::traces::Traces;
use crate::harness::upstream::TestUpstream;
use crate::harness::world::{Settings, World, assert_own};
use data_encoding::BASE64;
use doorward::trace::SchemeOutcome;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const PASSWORD: &str = "correct horse battery staple";
const CSRF: &str = "abcdefghijklmnopqrstuvwxyz012345";
const UNKNOWN: &str = "0000000000000000000000000000000000000000";

const GUARD: &str = "[authentication]\nguard = \"off\"\n";

fn route(name: &str, lines: &str) -> String {
    format!("[routes.{name}]\npath = \"/{name}\"\nupstream = \"legacy\"\n{lines}\n\n")
}

fn routes(lists: &[(&str, &str)]) -> Settings {
    let canary = [("canary", "schemes = [\"token\"]")];
    let all: String = lists.iter().chain(&canary).map(|(name, lines)| route(name, lines)).collect();
    Settings::sections(&format!("{GUARD}\n{all}"))
}

/// Runs a case over both protocols, with alice's session.
#[expect(clippy::needless_pass_by_value, reason = "a closure, written where it is passed")]
fn with_session(settings: &Settings, case: impl AsyncFn(&World, &Client, &str)) {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::start(settings);
        let session = world.gateway.session("alice", PASSWORD);
        world.run(protocol, async |world, client| case(world, client, &session).await);
    }
}

fn basic(request: Request, username: &str, password: &str) -> Request {
    let word = BASE64.encode(format!("{username}:{password}").as_bytes());
    request.field("Authorization", format!("Basic {word}"))
}

fn session(request: Request, key: &str) -> Request {
    request.field("Cookie", format!("sessionid={key}; csrftoken={CSRF}")).expect(&["set-cookie"])
}

#[track_caller]
fn assert_refused_with(answer: &Answer, status: u16, detail: &str, challenge: Option<&str>) {
    assert_own(answer, status);
    assert_eq!(answer.detail(), detail);
    assert_eq!(answer.one("www-authenticate").as_deref(), challenge);
}

const NOT_PROVIDED: &str = "Authentication credentials were not provided.";

#[test]
fn the_first_decides_between_401_and_403() {
    let settings = routes(&[
        ("tsb", "schemes = [\"token\", \"session\", \"basic\"]"),
        ("bts", "schemes = [\"basic\", \"token\", \"session\"]"),
        ("stb", "schemes = [\"session\", \"token\", \"basic\"]"),
    ]);
    with_session(&settings, async |world, client, _| {
        let mark = world.upstream.mark();
        for (path, status, challenge) in
            [("/tsb", 401, Some("Token")), ("/bts", 401, Some("Basic realm=\"api\"")), ("/stb", 403, None)]
        {
            let get = || Request::get(path);
            assert_refused_with(&client.send(get()).await, status, NOT_PROVIDED, challenge);
            let answer = client.send(get().token(UNKNOWN)).await;
            assert_refused_with(&answer, status, "Invalid token.", challenge);
            let answer = client.send(basic(get(), "alice", "wrong")).await;
            assert_refused_with(&answer, status, "Invalid username/password.", challenge);
        }
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn who_attempted_and_failed_is_not_asked_for_more() {
    let traces = Traces::new();
    let settings = Settings {
        options: traces.options(),
        ..routes(&[
            ("ts", "schemes = [\"token\", \"session\"]"),
            ("st", "schemes = [\"session\", \"token\"]"),
            ("tb", "schemes = [\"token\", \"basic\"]"),
        ])
    };
    with_session(&settings, async |world, client, key| {
        let mark = world.upstream.mark();
        // A good session behind a bad token.
        let answer = client.send(session(Request::get("/ts").token(UNKNOWN), key)).await;
        assert_refused_with(&answer, 401, "Invalid token.", Some("Token"));
        // A good token behind a session that may be forged.
        let forged =
            session(Request::post("/st", "x"), key).token(&world.token).field("Origin", "https://evil.test");
        let answer = client.send(forged).await;
        let detail =
            "CSRF Failed: Origin checking failed - https://evil.test does not match any trusted origins.";
        assert_refused_with(&answer, 403, detail, None);
        let stopped = [SchemeOutcome::Refused, SchemeOutcome::NotAsked];
        assert!(traces.becomes(|all| all.iter().any(|told| told.trace.schemes[..2] == stopped)).await);
        world.assert_refused(client, mark).await;
        // A good token behind a session that is none, or of a request that nobody forges.
        for request in [
            session(Request::post("/st", "x"), "an-unknown-session").token(&world.token),
            session(Request::get("/st"), key).token(UNKNOWN),
            Request::get("/tb").token(&world.token),
            basic(Request::get("/tb"), "alice", PASSWORD),
        ] {
            assert_eq!(client.send(request).await.status, 200);
            assert_eq!(world.upstream.last().one("remote-user").as_deref(), Some("alice"));
        }
    });
}

#[test]
fn explicit_credentials_come_first_if_the_route_says_so() {
    let settings = routes(&[
        ("drf", "schemes = [\"session\", \"basic\", \"token\"]"),
        ("mended", "schemes = [\"session\", \"basic\", \"token\"]\nexplicit_credentials_first = true"),
    ]);
    with_session(&settings, async |world, client, key| {
        // A page of another site, whose script has a token, in a browser that has a session: the trap.
        let post = |path: &str| session(Request::post(path, "x"), key).field("Origin", "https://evil.test");
        assert_eq!(client.send(post("/drf").token(&world.token)).await.status, 403);
        assert_eq!(client.send(post("/mended").token(&world.token)).await.status, 200);
        assert_eq!(client.send(basic(post("/mended"), "alice", PASSWORD)).await.status, 200);
        // Without them the session is asked, and the first of the list still decides the status.
        assert_eq!(client.send(post("/mended")).await.status, 403);
        assert_eq!(client.send(session(Request::get("/mended"), key)).await.status, 200);
        let answer = client.send(session(Request::get("/mended"), key).token(UNKNOWN)).await;
        assert_refused_with(&answer, 403, "Invalid token.", None);
        // What no scheme takes is no explicit credential of theirs.
        let request = session(Request::get("/mended"), key).field("Authorization", "Digest x");
        assert_eq!(client.send(request).await.status, 200);
    });
}

#[test]
fn bad_credentials_do_not_matter_on_a_public_route_that_says_so() {
    let ignore = "bad_credentials_on_public = \"ignore\"";
    let settings = routes(&[
        ("drf", "schemes = [\"token\", \"basic\"]\npermission = \"anyone\""),
        ("open", &format!("schemes = [\"token\", \"basic\"]\npermission = \"anyone\"\n{ignore}")),
        ("read", &format!("schemes = [\"token\", \"session\"]\npermission = \"read-only\"\n{ignore}")),
        ("forged", &format!("schemes = [\"session\"]\npermission = \"anyone\"\n{ignore}")),
        ("closed", &format!("schemes = [\"token\"]\n{ignore}")),
    ]);
    with_session(&settings, async |world, client, key| {
        let bad = |method: &str, path: &str| Request::new(method, path).token(UNKNOWN);
        assert_eq!(client.send(bad("GET", "/drf")).await.status, 401);
        for request in [
            bad("GET", "/open"),
            bad("POST", "/open"),
            basic(Request::get("/open"), "alice", "wrong"),
            Request::get("/open").field("Authorization", "Token a b"),
            bad("GET", "/read"),
        ] {
            assert_eq!(client.send(request).await.status, 200);
            let came = world.upstream.last();
            assert_eq!((came.one("remote-user"), came.one("authorization")), (None, None));
        }
        // Good ones still say who it is.
        assert_eq!(client.send(Request::get("/open").token(&world.token)).await.status, 200);
        assert_eq!(world.upstream.last().one("remote-user").as_deref(), Some("alice"));
        // Where they are needed they matter.
        assert_eq!(client.send(bad("POST", "/read")).await.status, 401);
        assert_eq!(client.send(bad("GET", "/closed")).await.status, 401);
        // A forged request is not an anonymous one.
        for path in ["/read", "/forged"] {
            let forged = session(Request::post(path, "x"), key).field("Origin", "https://evil.test");
            assert_eq!(client.send(forged).await.status, 403, "{path}");
        }
    });
}

#[test]
fn a_route_may_say_401_whatever_its_first_scheme() {
    let settings = routes(&[
        ("st", "schemes = [\"session\", \"token\"]\nunauthenticated_status = 401"),
        ("s", "schemes = [\"session\"]\nunauthenticated_status = 401"),
    ]);
    with_session(&settings, async |_, client, key| {
        for (path, challenge) in [("/st", "Token"), ("/s", "Session")] {
            let answer = client.send(Request::get(path)).await;
            assert_refused_with(&answer, 401, NOT_PROVIDED, Some(challenge));
        }
        let answer = client.send(Request::get("/st").token(UNKNOWN)).await;
        assert_refused_with(&answer, 401, "Invalid token.", Some("Token"));
        // Whom it knows and does not let pass gets no challenge.
        let forged = session(Request::post("/s", "x"), key).field("Origin", "https://evil.test");
        let answer = client.send(forged).await;
        assert_eq!((answer.status, answer.one("www-authenticate")), (403, None));
    });
}

#[test]
fn permissions_hold_whatever_the_scheme() {
    let list = "schemes = [\"token\", \"basic\", \"session\"]";
    let settings = routes(&[
        ("staff", &format!("{list}\npermission = \"staff\"")),
        ("ops", &format!("{list}\npermission = {{ groups = [\"ops\", \"dev\"] }}")),
        ("carols", &format!("{list}\npermission = {{ users = [\"carol\"] }}")),
        ("read", &format!("{list}\npermission = \"read-only\"")),
    ]);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::start(&settings);
        world.gateway.member("bob", &["ops"], "");
        world.gateway.member("carol", &["other"], "");
        let running = world.gateway.running();
        let update = doorward::store::manage::UserUpdate { is_staff: Some(true), ..Default::default() };
        let credentials = std::sync::Arc::clone(running.credentials());
        running.block_on(async move { credentials.update_user("alice", update).await }).unwrap().unwrap();
        let sessions: Vec<_> =
            ["alice", "bob", "carol"].map(|name| (name, world.gateway.session(name, PASSWORD))).to_vec();
        world.run(protocol, async |_, client| {
            for (path, allowed) in [("/staff", "alice"), ("/ops", "bob"), ("/carols", "carol")] {
                for (name, key) in &sessions {
                    let wanted = if *name == allowed { 200 } else { 403 };
                    for request in
                        [basic(Request::get(path), name, PASSWORD), session(Request::get(path), key)]
                    {
                        let answer = client.send(request).await;
                        assert_eq!(answer.status, wanted, "{path} {name}");
                        if wanted == 403 {
                            let detail = "You do not have permission to perform this action.";
                            assert_refused_with(&answer, 403, detail, None);
                        }
                    }
                }
                assert_refused_with(&client.send(Request::get(path)).await, 401, NOT_PROVIDED, Some("Token"));
            }
            assert_eq!(client.send(Request::get("/read")).await.status, 200);
            assert_eq!(client.send(Request::post("/read", "x")).await.status, 401);
            assert_eq!(client.send(basic(Request::post("/read", "x"), "bob", PASSWORD)).await.status, 200);
        });
    }
}

// --- families of tokens, on a Django database

/// Keys of the fixture.
const ALICE: &str = "a39990a3bb4dde2db07439908a3211415a63c790";
const IVAN: &str = "0eecb87a916b64d950eec75064ca83634c060d8f";
const SARA: &str = "c968fcc4ea36cf2629c734696619121e1c297687";
/// Of `pbkdf2_older`, whose hash takes a moment only.
const OLDER_PASSWORD: &str = "older-pass-1";

/// A gateway on a copy of the fixture.
fn adopted(directory: &Path, upstream: &TestUpstream, traces: &Traces, sections: &str) -> TestGateway {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/fixture.sqlite3");
    std::fs::copy(fixture, directory.join("db.sqlite3")).unwrap();
    let text = format!(
        r#"
[listen]
https = ["127.0.0.1:0"]
http = ["127.0.0.1:0"]
workers = 1

[store]
url = "sqlite:db.sqlite3"
layout = "django"

[store.django]
secret_key = "doorward-golden-secret-key-0123456789-abcdefghijklmnopqrstuvwxyz"
secret_key_fallbacks = ["doorward-OLD-secret-key-9876543210-zyxwvutsrqponmlkjihgfedcba"]

[upstreams.legacy]
servers = ["{}"]

{sections}
"#,
        upstream.url()
    );
    TestGateway::start_in(directory, &text, traces.options()).unwrap()
}

const FAMILIES: &str = r#"
[authentication.schemes.own]
kind = "token"
families = ["doorward"]

[authentication.schemes.drf]
kind = "token"
families = ["authtoken"]

[authentication.schemes.drf-first]
kind = "token"
keyword = "Bearer"
families = ["authtoken", "doorward"]

[routes.both]
path = "/"
upstream = "legacy"
schemes = ["token"]

[routes.own]
path = "/own"
upstream = "legacy"
schemes = ["own"]

[routes.drf]
path = "/drf"
upstream = "legacy"
schemes = ["drf"]

[routes.drf-first]
path = "/bearer"
upstream = "legacy"
schemes = ["drf-first"]
"#;

/// A gateway on a copy of the fixture, and what is around it.
pub(crate) struct Adopted {
    gateway: TestGateway,
    upstream: TestUpstream,
    directory: tempfile::TempDir,
    pub(crate) traces: Traces,
}

impl Adopted {
    /// A connection such as Django's.
    pub(crate) async fn django(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.directory.path().join("db.sqlite3"));
        options.connect().await.unwrap()
    }
}

pub(crate) fn run(protocol: Protocol, sections: &str, case: impl AsyncFnOnce(&Adopted, &Client)) {
    let directory = tempfile::tempdir().unwrap();
    let upstream = TestUpstream::start();
    let traces = Traces::new();
    let gateway = adopted(directory.path(), &upstream, &traces, sections);
    let client = Client::new(protocol, gateway.address());
    let adopted = Adopted { gateway, upstream, directory, traces };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(case(&adopted, &client));
    adopted.upstream.assert_no_violation();
}

pub(crate) async fn execute(connection: &mut SqliteConnection, statement: &'static str) {
    sqlx::query(statement).execute(connection).await.unwrap();
}

fn token(target: &str, key: &str) -> Request {
    Request::get(target).field("Authorization", format!("Token {key}"))
}

/// Waits until a key has another status; how long that took.
async fn becomes(client: &Client, key: &str, wanted: u16) -> Duration {
    let since = Instant::now();
    while client.send(token("/x", key)).await.status != wanted {
        assert!(since.elapsed() < PATIENCE, "{wanted} never comes");
        sleep(Duration::from_millis(10)).await;
    }
    since.elapsed()
}

#[test]
fn an_unknown_key_falls_to_the_next_family() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(protocol, FAMILIES, async |site, client| {
            let credentials = site.gateway.running().credentials();
            let made =
                credentials.create_token("bob", "", doorward::store::TokenOrigin::Command).await.unwrap();
            let own = String::from_utf8(made.key.expose().to_vec()).unwrap();
            // One key of both families: the first of the list says whose it is.
            credentials.import_any_token("bob", doorward::secret::Secret::new(SARA)).await.unwrap();
            for (path, keyword, key, name) in [
                ("/x", "Token", ALICE, Some("alice")),
                ("/x", "Token", &*own, Some("bob")),
                ("/x", "Token", SARA, Some("bob")),
                ("/bearer", "Bearer", SARA, Some("staff_sara")),
                ("/bearer", "Bearer", &*own, Some("bob")),
                ("/own", "Token", &*own, Some("bob")),
                ("/own", "Token", ALICE, None),
                ("/drf", "Token", ALICE, Some("alice")),
                ("/drf", "Token", &*own, None),
                ("/x", "Token", UNKNOWN, None),
            ] {
                // Twice: from the store, then from memory.
                for _ in 0..2 {
                    let request = Request::get(path).field("Authorization", format!("{keyword} {key}"));
                    let answer = client.send(request).await;
                    let Some(name) = name else {
                        assert_refused_with(&answer, 401, "Invalid token.", Some("Token"));
                        continue;
                    };
                    assert_eq!(answer.status, 200, "{path} {name}");
                    assert_eq!(site.upstream.last().one("remote-user").as_deref(), Some(name), "{path}");
                }
            }
            // An inactive user's key stops at its family.
            let answer =
                client.send(Request::get("/x").field("Authorization", format!("Token {IVAN}"))).await;
            assert_refused_with(&answer, 401, "User inactive or deleted.", Some("Token"));
        });
    }
}

#[test]
fn a_key_of_drfs_that_came_in_clear_is_revoked() {
    let sections = format!("{FAMILIES}\n[tokens]\non_exposed_token = \"revoke\"\n");
    run(Protocol::Http1, &sections, async |site, client| {
        let get = || Request::get("/x").field("Authorization", format!("Token {ALICE}"));
        assert_eq!(client.send(get()).await.status, 200);
        let in_clear = Client::in_clear(site.gateway.http_address());
        assert_own(&in_clear.send(get()).await, 403);
        becomes(client, ALICE, 401).await;
        // Others are not.
        let others = Request::get("/x").field("Authorization", format!("Token {SARA}"));
        assert_eq!(client.send(others).await.status, 200);
    });
}

#[test]
fn what_django_changes_is_effective_within_a_second_and_nothing_else_is_refused() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(protocol, FAMILIES, async |site, client| {
            let mut django = site.django().await;
            assert_eq!(client.send(token("/x", ALICE)).await.status, 200);
            // Django writes all the time; nobody is refused for that.
            for _ in 0..20 {
                execute(&mut django, "UPDATE auth_user SET last_login = datetime('now') WHERE id = 2").await;
                for key in [ALICE, SARA] {
                    assert_eq!(client.send(token("/x", key)).await.status, 200);
                }
                sleep(Duration::from_millis(30)).await;
            }
            execute(&mut django, "UPDATE auth_user SET is_active = 0 WHERE id = 1").await;
            let mut longest = becomes(client, ALICE, 401).await;
            execute(&mut django, "UPDATE auth_user SET is_active = 1 WHERE id = 1").await;
            longest = longest.max(becomes(client, ALICE, 200).await);
            execute(&mut django, "DELETE FROM authtoken_token WHERE user_id = 1").await;
            longest = longest.max(becomes(client, ALICE, 401).await);
            assert!(longest < Duration::from_secs(1), "{longest:?}");
        });
    }
}

#[test]
fn who_is_known_passes_while_others_wait_for_the_store() {
    let sections = format!(
        "{FAMILIES}\n[cache]\nrevocation_bound = \"30s\"\n[limits]\nstore_pending = 1\nstore_time = \"8s\"\n"
    );
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(protocol, &sections, async |site, client| {
            let mut django = site.django().await;
            assert_eq!(client.send(token("/x", ALICE)).await.status, 200);
            execute(&mut django, "UPDATE auth_user SET last_login = datetime('now') WHERE id = 2").await;
            // Until it is seen.
            sleep(Duration::from_millis(500)).await;
            execute(&mut django, "BEGIN EXCLUSIVE").await;
            let (waiting, known) = (client.fresh(), async {
                sleep(Duration::from_millis(300)).await;
                let known = client.send(token("/x", ALICE)).await.status;
                let unknown = client.send(token("/x", SARA)).await.status;
                execute(&mut django, "ROLLBACK").await;
                (known, unknown)
            });
            let (first, (known, unknown)) = tokio::join!(waiting.send(token("/x", UNKNOWN)), known);
            assert_eq!((first.status, known, unknown), (401, 200, 503));
            assert_eq!(client.send(token("/x", SARA)).await.status, 200);
        });
    }
}

#[test]
fn a_password_that_django_changed_is_not_used_because_the_guard_is_closed() {
    // What the store says counts: that nobody may guess is no outage.
    let sections = format!(
        "{}\n[authentication.guard]\naddress_and_user = \"2/hour\"\nuser_delay = \"off\"\n",
        route("", "schemes = [\"basic\"]").replace("[routes.]", "[routes.everything]")
    );
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(protocol, &sections, async |site, client| {
            let get = async |password: &str| {
                client.send(basic(Request::get("/x"), "pbkdf2_older", password)).await.status
            };
            assert_eq!(get(OLDER_PASSWORD).await, 200);
            for number in 0..2 {
                assert_eq!(get(&format!("guess {number}")).await, 401);
            }
            assert_eq!(get("guess 2").await, 429);
            // Whatever else Django writes, who is known passes.
            let mut django = site.django().await;
            execute(&mut django, "UPDATE auth_user SET last_login = datetime('now') WHERE id = 2").await;
            sleep(Duration::from_millis(300)).await;
            assert_eq!(get(OLDER_PASSWORD).await, 200);
            execute(&mut django, "UPDATE auth_user SET password = '!' WHERE username = 'pbkdf2_older'").await;
            let since = Instant::now();
            while get(OLDER_PASSWORD).await == 200 {
                assert!(since.elapsed() < Duration::from_secs(1), "it is used still");
            }
            for _ in 0..3 {
                assert_eq!(get(OLDER_PASSWORD).await, 429);
            }
        });
    }
}
