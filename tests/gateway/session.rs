//! Sessions in cookies, and what protects them against forged requests: as Django REST framework has it.

use crate::harness::client::{Answer, Client, Payload, Protocol, Request};
use crate::harness::gateway::manual_clock;
use crate::harness::program::credentials;
use crate::harness::script::{answer, respond};
use crate::harness::traces::Traces;
use crate::harness::upstream::TestUpstream;
use crate::harness::world::{Settings, World, assert_own};
use crate::harness::{PATIENCE, pattern};
use doorward::credentials::Credentials;
use doorward::secret::Secret;
use doorward::trace::{AnsweredBy, Reason, SchemeOutcome};
use sqlx::ConnectOptions as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const PASSWORD: &str = "correct horse battery staple";
/// As Django makes one: 32 of letters and digits, which a client may send as it is.
const CSRF: &str = "abcdefghijklmnopqrstuvwxyz012345";
const ORIGIN: &str = "https://gateway.test";
const NOT_PROVIDED: &str = "Authentication credentials were not provided.";
/// Django deletes a cookie so.
const GONE: &str = "sessionid=\"\"; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/; SameSite=Lax";

const ROUTES: &str = r#"
[routes.everything]
path = "/"
upstream = "legacy"
schemes = ["session"]
max_body = "64MiB"

[routes.public]
path = "/public"
upstream = "legacy"
schemes = ["session"]
permission = "anyone"

[routes.canary]
path = "/canary"
upstream = "legacy"
schemes = ["token"]
"#;

fn settings(sections: &str) -> Settings {
    Settings::sections(&format!("{ROUTES}\n{sections}\n"))
}

/// Runs a case over both protocols, with alice's session.
fn with_session(settings: &Settings, case: impl AsyncFn(&World, &Client, &str)) {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::start(settings);
        let session = world.gateway.session("alice", PASSWORD);
        world.run(protocol, async |world, client| case(world, client, &session).await);
    }
}

fn with_cookies(request: Request, session: &str) -> Request {
    request.field("Cookie", format!("sessionid={session}; csrftoken={CSRF}")).expect(&["set-cookie"])
}

fn get(target: &str, session: &str) -> Request {
    with_cookies(Request::get(target), session)
}

/// A request that changes something, from a page of this site, without the token.
fn unsafe_request(method: &str, session: &str) -> Request {
    with_cookies(Request::new(method, "/x"), session).field("Origin", ORIGIN)
}

#[track_caller]
fn assert_anonymous(answer: &Answer) {
    assert_own(answer, 403);
    assert_eq!(answer.detail(), NOT_PROVIDED);
    assert_eq!(answer.one("www-authenticate"), None);
    assert_eq!(answer.one("vary").as_deref(), Some("Cookie"));
}

#[track_caller]
fn assert_forged(answer: &Answer, reason: &str) {
    assert_own(answer, 403);
    assert_eq!(answer.detail(), format!("CSRF Failed: {reason}"));
    assert_eq!(answer.one("www-authenticate"), None);
    assert_eq!(answer.one("vary").as_deref(), Some("Cookie"));
}

/// The writer of another process. Call it outside of a runtime.
fn other_process(world: &World) -> Arc<Credentials> {
    let text =
        "[upstreams.x]\nservers = [\"http://127.0.0.1:1\"]\n[routes.x]\npath = \"/\"\nupstream = \"x\"\n";
    let directory = world.gateway.directory().to_owned();
    world.gateway.running().block_on(async move { credentials(text, &directory).await }).unwrap()
}

#[test]
fn a_session_passes_and_is_asked_for_once() {
    let traces = Traces::new();
    let settings =
        Settings { options: traces.options(), ..settings("[identity]\nauth_type = \"X-Auth-Kind\"\n") };
    with_session(&settings, async |world, client, session| {
        for (path, outcome, by) in [
            ("/first", SchemeOutcome::Verified, AnsweredBy::Store),
            ("/second", SchemeOutcome::Cached, AnsweredBy::Local),
        ] {
            let answer = client.send(get(path, session)).await;
            assert_eq!((answer.status, answer.one("set-cookie")), (200, None));
            assert_eq!(answer.all("vary"), ["Cookie"]);
            let came = world.upstream.last();
            assert_eq!(came.one("remote-user").as_deref(), Some("alice"));
            assert_eq!(came.one("x-auth-kind").as_deref(), Some("Session"));
            let told = traces.all().into_iter().rfind(|told| told.path.as_deref() == Some(path));
            let told = match told {
                Some(told) => told,
                None => traces.of(path).await,
            };
            assert_eq!((told.trace.schemes[0], told.trace.answered_by), (outcome, by));
        }
    });
}

#[test]
fn no_session_is_nobody() {
    with_session(&settings(""), async |world, client, _| {
        let mark = world.upstream.mark();
        assert_anonymous(&client.send(Request::get("/x")).await);
        for session in ["an-unknown-session-of-nobody", "short", ""] {
            let answer = client.send(get("/x", session)).await;
            assert_anonymous(&answer);
            assert_eq!(answer.all("set-cookie"), [GONE], "{session:?}");
        }
        world.assert_refused(client, mark).await;
        // Unsafe methods, too, and without a word of forgery.
        assert_anonymous(&client.send(unsafe_request("POST", "an-unknown-session-of-nobody")).await);
    });
}

#[test]
fn effects_are_added_to_what_the_upstream_says() {
    with_session(&settings(""), async |world, client, session| {
        for (vary, expected) in [
            ("Accept", vec!["Accept", "Cookie"]),
            ("accept, COOKIE", vec!["accept, COOKIE"]),
            ("*", vec!["*"]),
        ] {
            let fields = [("Vary", vary), ("Set-Cookie", "theme=light")];
            world.upstream.script("/public/own", respond(answer("200 OK", &fields, "body")));
            let answer = client.send(get("/public/own", "an-unknown-session")).await;
            assert_eq!(answer.all("vary"), expected);
            assert_eq!(answer.all("set-cookie"), ["theme=light", GONE]);
            assert_eq!(world.upstream.last().one("remote-user"), None);
            world.upstream.script("/own", respond(answer_with(&fields)));
            let answer = client.send(get("/own", session)).await;
            assert_eq!(answer.all("vary"), expected);
            assert_eq!(answer.all("set-cookie"), ["theme=light"]);
        }
    });
}

fn answer_with(fields: &[(&str, &str)]) -> Vec<u8> {
    answer("200 OK", fields, "body")
}

#[test]
fn a_csrf_cookie_that_is_none_is_replaced_whatever_is_answered() {
    with_session(&settings(""), async |_, client, session| {
        for (target, status) in [("/x", 200), ("/public", 200), ("/x", 403)] {
            let session = if status == 403 { "an-unknown-session" } else { session };
            let request = Request::get(target)
                .field("Cookie", format!("sessionid={session}; csrftoken=too short"))
                .expect(&["set-cookie"]);
            let answer = client.send(request).await;
            assert_eq!(answer.status, status);
            let cookies = answer.all("set-cookie");
            let new = cookies.iter().find_map(|cookie| cookie.strip_prefix("csrftoken=")).unwrap();
            assert!(new.split(';').next().unwrap().len() == 32, "{new}");
            for attribute in ["; Path=/", "; SameSite=Lax", "; Secure"] {
                assert!(new.contains(attribute), "{new}");
            }
            assert!(!new.contains("HttpOnly"), "{new}");
        }
    });
}

#[test]
fn a_session_ends_at_its_time() {
    let (clock, options) = manual_clock();
    let world = World::start(&Settings { options, ..settings("") });
    let session = world.gateway.session("alice", PASSWORD);
    world.run(Protocol::Http2, async |_, client| {
        assert_eq!(client.send(get("/x", &session)).await.status, 200);
        clock.advance(Duration::from_secs(3599));
        assert_eq!(client.send(get("/x", &session)).await.status, 200);
        clock.advance(Duration::from_secs(1));
        let answer = client.send(get("/x", &session)).await;
        assert_anonymous(&answer);
        assert_eq!(answer.all("set-cookie"), [GONE]);
    });
}

#[test]
fn safe_methods_need_no_token() {
    with_session(&settings(""), async |_, client, session| {
        for method in ["GET", "HEAD", "OPTIONS"] {
            let request =
                with_cookies(Request::new(method, "/x"), session).field("Origin", "https://evil.test");
            assert_eq!(client.send(request).await.status, 200, "{method}");
        }
        for method in ["POST", "PUT", "PATCH", "DELETE", "PROPFIND"] {
            assert_forged(&client.send(unsafe_request(method, session)).await, "CSRF token missing.");
            let request = unsafe_request(method, session).field("X-CSRFToken", CSRF);
            assert_eq!(client.send(request).await.status, 200, "{method}");
        }
    });
}

#[test]
fn forged_requests_are_refused_with_their_reason() {
    let traces = Traces::new();
    let settings = Settings { options: traces.options(), ..settings("") };
    with_session(&settings, async |world, client, session| {
        let mark = world.upstream.mark();
        let post = || with_cookies(Request::post("/x", "body"), session).field("X-CSRFToken", CSRF);
        for (request, reason) in [
            (post(), "Referer checking failed - no Referer."),
            (
                post().field("Origin", "https://evil.test"),
                "Origin checking failed - https://evil.test does not match any trusted origins.",
            ),
            (
                post().field("Referer", "https://evil.test/x"),
                "Referer checking failed - https://evil.test/x does not match any trusted origins.",
            ),
            (
                post().field("Referer", "http://gateway.test/x"),
                "Referer checking failed - Referer is insecure while host is secure.",
            ),
            (
                Request::post("/x", "")
                    .field("Cookie", format!("sessionid={session}"))
                    .field("Origin", ORIGIN),
                "CSRF cookie not set.",
            ),
            (unsafe_request("POST", session), "CSRF token missing."),
            (
                unsafe_request("POST", session).field("X-CSRFToken", "x".repeat(32)),
                "CSRF token from the 'X-Csrftoken' HTTP header incorrect.",
            ),
            (
                unsafe_request("POST", session)
                    .field("Content-Type", "application/x-www-form-urlencoded")
                    .payload(Payload::Length(b"csrfmiddlewaretoken=short".to_vec())),
                "CSRF token from POST has incorrect length.",
            ),
        ] {
            assert_forged(&client.send(request).await, reason);
        }
        world.assert_refused(client, mark).await;
        assert!(traces.becomes(|all| all.iter().any(|t| t.trace.reason == Reason::SchemeRefused)).await);
        assert_eq!(client.send(post().field("Referer", "https://gateway.test/form")).await.status, 200);
    });
}

/// A form, the token in front and so many bytes after it.
fn form(length: usize) -> (&'static str, Vec<u8>) {
    let mut body = format!("csrfmiddlewaretoken={CSRF}&rest=").into_bytes();
    body.extend(pattern(0, length).into_iter().map(|byte| if byte == b'&' { b'x' } else { byte }));
    ("application/x-www-form-urlencoded", body)
}

/// An upload, the token in front and so many bytes after it.
fn parts(length: usize) -> (&'static str, Vec<u8>) {
    let mut body = format!(
        "--BoUnD\r\nContent-Disposition: form-data; name=\"csrfmiddlewaretoken\"\r\n\r\n{CSRF}\r\n\
         --BoUnD\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend(pattern(0, length));
    body.extend_from_slice(b"\r\n--BoUnD--\r\n");
    ("multipart/form-data; boundary=BoUnD", body)
}

#[test]
fn the_token_in_a_form_is_found_and_the_form_is_forwarded_unchanged() {
    with_session(&settings(""), async |world, client, session| {
        for length in [0, 100, 65_000, 65_536, 70_000, 1 << 20] {
            for payload in [Payload::Length, Payload::Unsized] {
                for (content_type, body) in [form(length), parts(length)] {
                    let request = unsafe_request("POST", session)
                        .field("Content-Type", content_type)
                        .payload(payload(body.clone()));
                    assert_eq!(client.send(request).await.status, 200, "{content_type} {length}");
                    let came = world.upstream.last();
                    assert!(came.complete && came.body == body, "{} of {}", came.body.len(), body.len());
                    assert_eq!(came.one("content-type").as_deref(), Some(content_type));
                }
            }
        }
    });
}

#[test]
fn past_the_prefix_the_header_counts() {
    with_session(&settings(""), async |world, client, session| {
        let mut late = b"rest=".to_vec();
        late.extend(vec![b'x'; 64 << 10]);
        late.extend_from_slice(format!("&csrfmiddlewaretoken={CSRF}").as_bytes());
        let request = || {
            unsafe_request("POST", session)
                .field("Content-Type", "application/x-www-form-urlencoded")
                .payload(Payload::Length(late.clone()))
        };
        let mark = world.upstream.mark();
        assert_forged(&client.send(request()).await, "CSRF token missing.");
        world.assert_refused(client, mark).await;
        assert_eq!(client.send(request().field("X-CSRFToken", CSRF)).await.status, 200);
        assert_eq!(world.upstream.last().body, late);
    });
}

#[test]
fn a_form_is_decided_on_when_the_prefix_is_there() {
    with_session(&settings(""), async |world, client, session| {
        let (content_type, body) = form(64 << 10);
        let request =
            unsafe_request("POST", session).field("Content-Type", content_type).payload(Payload::Streamed);
        let (mut upload, mut answer) = client.open(request).await;
        upload.send(body.clone()).await.unwrap();
        world.upstream.wait_for("the head", |log| log.of("/x").len() == 1).await;
        upload.send("the rest").await.unwrap();
        upload.finish().await.unwrap();
        assert_eq!(answer.answer().await.unwrap().status, 200);
        assert_eq!(world.upstream.last().body, [body, b"the rest".to_vec()].concat());
    });
}

#[test]
fn what_is_no_form_is_not_looked_into() {
    with_session(&settings(""), async |world, client, session| {
        let json = format!("{{\"csrfmiddlewaretoken\": \"{CSRF}\"}}");
        let post = || {
            unsafe_request("POST", session)
                .field("Content-Type", "application/json")
                .payload(Payload::Length(json.clone().into_bytes()))
        };
        let mark = world.upstream.mark();
        assert_forged(&client.send(post()).await, "CSRF token missing.");
        world.assert_refused(client, mark).await;
        // Nothing of the body is waited for.
        let request = unsafe_request("POST", session)
            .field("Content-Type", "application/json")
            .field("X-CSRFToken", CSRF)
            .payload(Payload::Streamed);
        let (mut upload, mut answer) = client.open(request).await;
        world.upstream.wait_for("the head", |log| log.of("/x").len() == 1).await;
        upload.send("{}").await.unwrap();
        upload.finish().await.unwrap();
        assert_eq!(answer.answer().await.unwrap().status, 200);
    });
}

#[test]
fn doorwards_cookies_go_no_further_and_others_go_as_they_are() {
    with_session(&settings(""), async |world, client, session| {
        for (cookies, left) in [
            (
                format!("a=1; sessionid={session}; b=\"q; u\"; csrftoken={CSRF};c=2"),
                Some("a=1; b=\"q; u\";c=2"),
            ),
            (format!("sessionid={session}; csrftoken={CSRF}"), None),
            (
                format!("sessionid={session}; xsessionid=1; sessionidx=2; SESSIONID=3"),
                Some("xsessionid=1; sessionidx=2; SESSIONID=3"),
            ),
            (format!("sessionid=old; a=b=c; sessionid={session}"), Some("a=b=c")),
            (format!(" sessionid = {session} ; lone ; =empty"), Some("lone ; =empty")),
        ] {
            let answer = client.send(Request::get("/x").field("Cookie", &cookies)).await;
            assert_eq!(answer.status, 200, "{cookies}");
            let came = world.upstream.last();
            assert_eq!(came.one("cookie").as_deref(), left, "{cookies}");
            assert!(!came.fields.iter().any(|(_, v)| String::from_utf8_lossy(v).contains(session)));
        }
        // Not those of anonymous visitors either.
        let request = Request::get("/public").field("Cookie", "sessionid=nobodys-session; a=1");
        assert_eq!(client.send(request.expect(&["set-cookie"])).await.status, 200);
        assert_eq!(world.upstream.last().one("cookie").as_deref(), Some("a=1"));
    });
}

#[test]
fn an_upstream_that_needs_the_cookies_gets_them() {
    with_session(&settings("[identity]\nforward_credentials = true\n"), async |world, client, session| {
        assert_eq!(client.send(get("/x", session)).await.status, 200);
        let expected = format!("sessionid={session}; csrftoken={CSRF}");
        assert_eq!(world.upstream.last().one("cookie"), Some(expected));
    });
}

#[test]
fn crumbs_of_cookies_are_one() {
    let world = World::start(&settings(""));
    let session = world.gateway.session("alice", PASSWORD);
    world.run(Protocol::Http2, async |world, client| {
        let request = Request::new("POST", "/x")
            .field("Cookie", "a=1")
            .field("Cookie", format!("sessionid={session}"))
            .field("Cookie", format!("csrftoken={CSRF}; b=2"))
            .field("Origin", ORIGIN)
            .field("X-CSRFToken", CSRF);
        assert_eq!(client.send(request).await.status, 200);
        // RFC 9113, section 8.2.3: one field, for whoever does not know of crumbs.
        assert_eq!(world.upstream.last().all("cookie"), ["a=1; b=2"]);
    });
}

/// Waits until the session has another status; how long that took.
async fn becomes(client: &Client, session: &str, wanted: u16) -> Duration {
    let since = Instant::now();
    while client.send(get("/x", session)).await.status != wanted {
        assert!(since.elapsed() < PATIENCE, "{wanted} never comes");
        sleep(Duration::from_millis(5)).await;
    }
    since.elapsed()
}

#[test]
fn what_another_process_ends_is_over_within_a_second() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::start(&settings(""));
        world.gateway.user("bob", PASSWORD);
        world.gateway.user("carol", PASSWORD);
        let of = |name| world.gateway.session(name, PASSWORD);
        let (ended, kept, bobs, carols) = (of("alice"), of("alice"), of("bob"), of("carol"));
        let other = other_process(&world);
        world.run(protocol, async |_, client| {
            for session in [&ended, &kept, &bobs, &carols] {
                assert_eq!(client.send(get("/x", session)).await.status, 200);
            }
            other.log_out(Secret::new(ended.as_str())).await.unwrap();
            let mut longest = becomes(client, &ended, 403).await;
            other.set_active("bob", false).await.unwrap();
            longest = longest.max(becomes(client, &bobs, 403).await);
            other.set_password("carol", Secret::new("another password")).await.unwrap();
            longest = longest.max(becomes(client, &carols, 403).await);
            assert!(longest < Duration::from_secs(1), "{longest:?}");
            assert_eq!(client.send(get("/x", &kept)).await.status, 200);
        });
    }
}

#[test]
fn what_this_process_ends_is_over_at_once() {
    with_session(&settings(""), async |world, client, session| {
        assert_eq!(client.send(get("/x", session)).await.status, 200);
        world.gateway.running().credentials().log_out(Secret::new(session)).await.unwrap();
        assert_anonymous(&client.send(get("/x", session)).await);
    });
}

/// Hides sessions from the store.
async fn hide_sessions(world: &World) {
    let path = world.gateway.directory().join("doorward.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = options.connect().await.unwrap();
    for statement in ["ALTER TABLE session RENAME TO gone", "ALTER TABLE change RENAME TO unchanged"] {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
}

#[test]
fn who_is_known_passes_while_the_store_is_away_and_not_for_ever() {
    with_session(&settings("[cache]\nstale_while_unreachable = \"3s\"\n"), async |world, client, session| {
        assert_eq!(client.send(get("/x", session)).await.status, 200);
        hide_sessions(world).await;
        let since = Instant::now();
        sleep(Duration::from_millis(1500)).await;
        assert_eq!(client.send(get("/x", session)).await.status, 200, "after {:?}", since.elapsed());
        let answer = client.send(get("/x", "an-unknown-session-of-nobody")).await;
        assert_own(&answer, 503);
        assert_eq!(answer.one("set-cookie"), None, "nobody knows, so no cookie is deleted");
        // Where nobody has to log in the same is said: it may be somebody's.
        assert_eq!(client.send(get("/public", "an-unknown-session-of-nobody")).await.status, 503);
        becomes(client, session, 503).await;
        assert!(since.elapsed() > Duration::from_secs(2), "{:?}", since.elapsed());
        assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
    });
}

#[test]
fn names_are_those_of_the_instance() {
    let sections = r#"
[authentication.schemes.browser]
kind = "session"
cookie = "sid"
csrf = { cookie = "XSRF-TOKEN", header = "X-XSRF-TOKEN", trusted_origins = ["https://*.partner.test"] }

[routes.browser]
path = "/browser"
upstream = "legacy"
schemes = ["browser"]
"#;
    with_session(&settings(sections), async |world, client, session| {
        let cookies = format!("sid={session}; XSRF-TOKEN={CSRF}; a=1");
        let post = |origin: &str, header: &str| {
            Request::post("/browser", "x")
                .field("Cookie", &cookies)
                .field("Origin", origin)
                .field(header, CSRF)
                .expect(&["set-cookie"])
        };
        assert_eq!(client.send(post("https://app.partner.test", "X-XSRF-TOKEN")).await.status, 200);
        assert_eq!(world.upstream.last().one("cookie").as_deref(), Some("a=1"));
        assert_forged(
            &client.send(post("https://app.partner.test", "X-CSRFToken")).await,
            "CSRF token missing.",
        );
        let answer = client.send(post("https://notpartner.test", "X-XSRF-TOKEN")).await;
        assert_own(&answer, 403);
        // Another instance's cookie says nothing.
        assert_anonymous(&client.send(get("/browser", session)).await);
    });
}

#[test]
fn a_world_without_an_upstream_still_says_who_is_forged() {
    // The refusal comes before anybody is asked for a connection.
    let world = World::before(TestUpstream::down(), &settings(""));
    let session = world.gateway.session("alice", PASSWORD);
    world.run(Protocol::Http1, async |_, client| {
        assert_forged(&client.send(unsafe_request("POST", &session)).await, "CSRF token missing.");
    });
}
