//! HTTP in clear: who only looks is sent to HTTPS, all others are refused, and nobody is authenticated or forwarded.
//!
//! The listener in clear speaks HTTP/1.1 only. What a trusted proxy says of its clients' connections counts over both.

use crate::harness::PATIENCE;
use crate::harness::client::{AUTHORITY, Answer, Client, Payload, Protocol, Request};
use crate::harness::gate::Gate;
use crate::harness::script::{Step, answer, respond};
use crate::harness::world::{ROUTES, Settings, World, assert_own, on_both, on_http1};
use doorward::accept::head::Head;
use doorward::app::Options;
use doorward::authenticate::scheme::{Context, Effects, Exposed, Naming, Recall, Scheme};
use doorward::identity::{CredentialId, SchemeKind};
use doorward::require_https::exposed::PENDING_MAX;
use http::{HeaderMap, HeaderValue};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

const LISTEN: &str = "http = [\"127.0.0.1:0\"]";
const OBTAIN: &str = "[routes.obtain]\npath = \"/api-token-auth/\"\nhandler = \"obtain-token\"\n";
const PROXIES: &str = "[clients]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
const REVOKE: &str = "[tokens]\non_exposed_token = \"revoke\"\n";
const PASSWORD: &str = "correct horse battery staple";
const REQUIRED: &str = r#"{"detail":"HTTPS is required."}"#;
const EXPOSED: &str = r#"{"detail":"HTTPS is required. The credentials were sent unprotected and must be considered exposed."}"#;
const HSTS: &str = "[tls]\nhsts = { max_age = \"730d\", include_subdomains = true }\n";
const HSTS_VALUE: &str = "max-age=63072000; includeSubDomains";

/// The ordinary routes, a listener in clear, and further sections.
fn settings(sections: &str) -> Settings {
    Settings { listen: LISTEN, ..Settings::sections(&format!("{ROUTES}\n{OBTAIN}\n{sections}\n")) }
}

fn login() -> Request {
    let body = format!("{{\"username\": \"alice\", \"password\": \"{PASSWORD}\"}}");
    Request::post("/api-token-auth/", body).field("Content-Type", "application/json")
}

/// Sends a request that is to be sent on; where to.
async fn location(client: &Client, request: Request) -> String {
    let answer = client.send(request.expect(&["location"])).await;
    assert_eq!((answer.status, answer.text().as_str()), (308, ""), "{answer:?}");
    assert_eq!(answer.one("content-type"), None);
    assert_eq!(answer.one("cache-control").as_deref(), Some("no-store"));
    assert!(answer.one("x-request-id").is_some());
    answer.one("location").expect("a location")
}

/// Fails unless this is a refusal with this body, which is the last answer of its connection.
fn assert_refused_with(answer: &Answer, body: &str, what: &str) {
    assert_own(answer, 403);
    assert_eq!(answer.text(), body, "{what}");
    for (name, value) in [("cache-control", Some("no-store")), ("www-authenticate", None)] {
        assert_eq!(answer.one(name).as_deref(), value, "{what}");
    }
}

fn assert_last(answer: &Answer) {
    assert_eq!(answer.one("connection").as_deref(), Some("close"), "{answer:?}");
}

// --- who only looks

#[test]
fn who_only_looks_is_sent_to_the_same_target_over_https() {
    on_http1(&settings(""), async |world, client| {
        let mark = world.upstream.mark();
        let plain = world.in_clear();
        let port = world.gateway.address().port();
        for method in ["GET", "HEAD"] {
            for (target, expected) in [
                ("/", "/"),
                ("/public/x?next=https%3A%2F%2Fevil.test&a=b", "/public/x?next=https%3A%2F%2Fevil.test&a=b"),
                ("/a/../b//c/%7e", "/a/../b//c/%7e"),
                ("//evil.test/x", "//evil.test/x"),
                ("/@evil.test", "/@evil.test"),
                ("http://gateway.test/absolute?x", "/absolute?x"),
                ("/no/such/route", "/no/such/route"),
            ] {
                let url = location(&plain, Request::new(method, target)).await;
                assert_eq!(url, format!("https://gateway.test:{port}{expected}"), "{method} {target}");
            }
        }
        for (authority, host) in [
            ("gateway.test:8080", "gateway.test"),
            ("GATEWAY.test", "gateway.test"),
            ("[::1]:80", "[::1]"),
            ("192.0.2.1", "192.0.2.1"),
        ] {
            let url = location(&plain, Request::get("/x").authority(authority)).await;
            assert_eq!(url, format!("https://{host}:{port}/x"));
        }
        // What a stranger says changes nothing, and other cookies are no credentials.
        let request = Request::get("/x")
            .field("X-Forwarded-Host", "evil.test")
            .field("X-Forwarded-Proto", "https")
            .field("Forwarded", "proto=https;host=evil.test")
            .field("Remote-User", "root")
            .field("Cookie", "csrftoken=x; theme=sessionid");
        assert_eq!(location(&plain, request).await, format!("https://gateway.test:{port}/x"));
        assert_own(&plain.send(Request::get("/x").authority("evil.test@gateway.test")).await, 400);
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn clients_are_sent_to_the_port_that_they_can_reach() {
    let listen = "http = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\nhttps_port = 443";
    on_http1(&Settings { listen, ..settings("") }, async |world, _| {
        let addresses = world.gateway.running().http_addresses().to_vec();
        assert_eq!(addresses.len(), 2);
        for address in addresses {
            let url = location(&Client::in_clear(address), Request::get("/x").authority("a.test:8080")).await;
            assert_eq!(url, "https://a.test/x");
        }
    });
}

// --- who does more

#[test]
fn whoever_does_more_than_look_is_refused() {
    on_http1(&settings(""), async |world, client| {
        let mark = world.upstream.mark();
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            for target in ["/", "/public/x", "/public/x?a=b"] {
                let answer = world.in_clear().send(Request::new(method, target)).await;
                assert_refused_with(&answer, REQUIRED, method);
                assert_last(&answer);
            }
        }
        let answer = world.in_clear().send(Request::post("/public/x", "body")).await;
        assert_refused_with(&answer, REQUIRED, "a body is no credential");
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn credentials_in_clear_are_refused_whatever_else_is_asked() {
    on_http1(&settings(""), async |world, client| {
        let token = format!("Token {}", world.token);
        let mark = world.upstream.mark();
        for (name, value) in [
            ("Authorization", token.as_bytes()),
            ("Authorization", b""),
            ("Authorization", b"Token"),
            ("Authorization", b"Token \xff"),
            ("Authorization", b"Basic YWxpY2U6eA=="),
            ("Authorization", b"Bearer abc"),
            ("aUTHORIZATION", b"Nonsense"),
            ("Proxy-Authorization", b"Basic YWxpY2U6eA=="),
            ("Cookie", b"sessionid=0123456789abcdef"),
            ("Cookie", b"a=b; __Host-sessionid=0123456789abcdef"),
        ] {
            for request in [
                Request::get("/x"),
                Request::new("HEAD", "/x"),
                Request::get("/public/x"),
                Request::get("/x").authority("unknown.test"),
                Request::post("/public/x", "body"),
                Request::new("TRACE", "/public/x"),
                Request::get("/api-token-auth/"),
            ] {
                let what = format!("{request:?} {name}");
                let is_head = what.contains("HEAD");
                let answer = world.in_clear().send(request.field(name, value)).await;
                assert_last(&answer);
                if is_head {
                    assert_eq!(answer.status, 403, "{what}");
                } else {
                    assert_refused_with(&answer, EXPOSED, &what);
                }
            }
        }
        // Each of several fields and cookies counts.
        let two = Request::get("/x").field("Cookie", "a=b").field("Cookie", "sessionid=abc");
        assert_refused_with(&world.in_clear().send(two).await, EXPOSED, "two cookies");
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn credentials_are_never_given_out_in_clear() {
    on_http1(&settings(""), async |world, client| {
        let mark = world.upstream.mark();
        for target in ["/api-token-auth/", "/api-token-auth", "/x/../api-token-auth/", "/api-token-auth/?x"] {
            let empty = Request::new("POST", target);
            for request in [Request::get(target), Request::new("OPTIONS", target), empty] {
                let what = format!("{request:?}");
                assert_refused_with(&world.in_clear().send(request).await, REQUIRED, &what);
            }
        }
        for payload in [login(), login().field("X-Forwarded-Proto", "https")] {
            assert_refused_with(&world.in_clear().send(payload).await, EXPOSED, "a password");
        }
        let head = world.in_clear().send(Request::new("HEAD", "/api-token-auth/")).await;
        assert_eq!((head.status, head.one("location")), (403, None));
        let tokens = world.gateway.running().credentials().list_tokens(None).await.unwrap();
        assert_eq!(tokens.len(), 1, "a token was made in clear: {tokens:?}");
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn the_body_of_what_came_in_clear_is_not_awaited() {
    on_http1(&settings(""), async |world, client| {
        let mark = world.upstream.mark();
        for (request, body) in [
            (login().payload(Payload::StreamedLength(1000)), EXPOSED),
            (Request::post("/x", "").payload(Payload::StreamedLength(1 << 20)).token(&world.token), EXPOSED),
            (Request::post("/x", "").payload(Payload::Streamed), REQUIRED),
        ] {
            let plain = world.in_clear();
            let (_upload, mut download) = plain.open(request).await;
            // Not a byte of it has been sent.
            assert_refused_with(&download.answer().await.unwrap(), body, "before the body");
        }
        // Sent all the same, the answer arrives.
        for payload in [Payload::Length(vec![b'x'; 1 << 20]), Payload::Unsized(vec![b'x'; 1 << 20])] {
            let (mut upload, mut download) =
                world.in_clear().open(Request::post("/x", "").payload(payload.clone())).await;
            let (Payload::Length(body) | Payload::Unsized(body)) = payload else { unreachable!() };
            let sent = async {
                drop(upload.send(body).await);
                drop(upload.finish().await);
            };
            let ((), answer) = tokio::join!(sent, async {
                // Only read once everything is sent.
                sleep(Duration::from_millis(200)).await;
                download.answer().await
            });
            assert_refused_with(&answer.unwrap(), REQUIRED, "a large body");
        }
        // Who asks first is not told to go on.
        let head =
            "POST /x HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
        let answer = world.in_clear().raw(head).await.answer("POST", &[]).await.unwrap();
        assert_refused_with(&answer, REQUIRED, "100-continue");
        assert!(answer.interim.is_empty(), "{answer:?}");
        world.assert_refused(client, mark).await;
    });
}

// --- balancers

#[test]
fn behind_a_trusted_proxy_that_ends_tls_everything_works() {
    let settings = settings(PROXIES);
    on_http1(&settings, async |world, client| {
        let plain = world.in_clear();
        for (name, value) in [("X-Forwarded-Proto", "https"), ("Forwarded", "for=192.0.2.1;proto=https")] {
            let answer = plain.send(world.get("/x").field(name, value)).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
            let seen = world.upstream.last();
            assert_eq!(seen.one("remote-user").as_deref(), Some("alice"));
            assert_eq!(seen.one("x-forwarded-proto").as_deref(), Some("https"));
            assert_eq!(plain.send(world.post("/x", "body").field(name, value)).await.status, 200);
            assert_eq!(world.upstream.last().body, b"body");
            assert_own(&plain.send(Request::get("/x").field(name, value)).await, 401);
            let made = plain.send(login().field(name, value)).await;
            assert_eq!(made.status, 200, "{made:?}");
            let made: serde_json::Value = serde_json::from_slice(&made.body).unwrap();
            let token = made["token"].as_str().unwrap();
            assert_eq!(client.send(Request::get("/x").token(token)).await.status, 200);
        }
    });
}

#[test]
fn what_came_to_a_trusted_proxy_in_clear_came_in_clear() {
    let settings = settings(&format!("{PROXIES}\n{HSTS}"));
    for in_clear in [false, true] {
        on_both(&settings, async |world, client| {
            let mark = world.upstream.mark();
            let client = if in_clear { world.in_clear() } else { client.fresh() };
            let by_proxy = |request: Request| {
                request.field("X-Forwarded-Proto", "http").field("X-Forwarded-Host", "www.example.test:81")
            };
            // The host that the client asked the proxy for.
            let port = world.gateway.address().port();
            let url = location(&client, by_proxy(Request::get("/x?y"))).await;
            assert_eq!(url, format!("https://www.example.test:{port}/x?y"));
            for (request, body) in [
                (Request::post("/public/x", "body"), REQUIRED),
                (world.get("/x"), EXPOSED),
                (login(), EXPOSED),
                (Request::get("/api-token-auth/"), REQUIRED),
            ] {
                let what = format!("{request:?}");
                assert_refused_with(&client.send(by_proxy(request)).await, body, &what);
            }
            if in_clear {
                // One that says nothing has not said that it was HTTPS.
                assert_refused_with(&client.send(world.get("/x")).await, EXPOSED, "silence");
                let nonsense = world.get("/x").field("X-Forwarded-Proto", "gopher");
                assert_refused_with(&client.send(nonsense).await, EXPOSED, "nonsense");
            }
            let (requests, bytes) = world.upstream.since(mark);
            assert!(requests.is_empty() && bytes == 0, "{requests:?}");
        });
    }
}

#[test]
fn a_stranger_who_claims_https_is_not_believed() {
    let elsewhere = "[clients]\ntrusted_proxies = [\"10.0.0.0/8\"]\n";
    for sections in ["", elsewhere] {
        on_http1(&settings(sections), async |world, client| {
            let mark = world.upstream.mark();
            for (name, value) in [
                ("X-Forwarded-Proto", "https"),
                ("Forwarded", "proto=https"),
                ("X-Forwarded-Ssl", "on"),
                ("Front-End-Https", "on"),
                ("X-Forwarded-For", "10.0.0.1"),
            ] {
                let answer = world.in_clear().send(world.get("/x").field(name, value)).await;
                assert_refused_with(&answer, EXPOSED, name);
            }
            world.assert_refused(client, mark).await;
        });
    }
}

// --- exposed tokens

/// Waits until this token is refused over HTTPS; how long that took.
async fn until_revoked(client: &Client, token: &str) -> Duration {
    let since = Instant::now();
    while client.send(Request::get("/x").token(token)).await.status != 401 {
        assert!(since.elapsed() < PATIENCE, "the token is never revoked");
    }
    since.elapsed()
}

#[test]
fn an_exposed_token_is_revoked_within_the_second() {
    let partner = "[authentication.schemes.partner]\nkind = \"token\"\nkeyword = \"Bearer\"\n";
    let world = World::start(&settings(&format!("{REVOKE}\n{partner}")));
    let others: Vec<_> = (0..9).map(|_| world.gateway.token("alice")).collect();
    let canary = world.gateway.token("alice");
    world.run(Protocol::Http2, async |world, client| {
        let bearer = |token: &str| format!("bearer  {token} ");
        let exposures = [
            // In use, and one that nobody has used yet; on any route and with any method; by a scheme that only
            // another route has.
            (&world.token, Request::get("/x").token(&world.token)),
            (&others[0], Request::get("/x").token(&others[0])),
            (&others[1], Request::post("/no/such", "x").authority("unknown.test").token(&others[1])),
            (&others[2], Request::get("/x").field("Authorization", bearer(&others[2]))),
            (&others[3], login().token(&others[3])),
            (&others[4], Request::get("/x").token(&others[4]).field("X-Forwarded-Proto", "https")),
        ];
        assert_eq!(client.send(world.get("/x")).await.status, 200);
        assert_eq!(client.send(world.get("/x")).await.status, 200, "cached");
        for (token, exposure) in exposures {
            assert_refused_with(&world.in_clear().send(exposure).await, EXPOSED, "exposed");
            let took = until_revoked(client, token).await;
            assert!(took < Duration::from_secs(1), "revoked after {took:?}");
        }
        // A head that cannot be read tells whoever is on the way all the same.
        let [malformed, unread] = [&others[5], &others[6]];
        let answer = world.in_clear().send(Request::get("/%zz").token(malformed)).await;
        assert_refused_with(&answer, EXPOSED, "a bad target");
        let head = format!("GET / HTTP/1.1\r\nHost: a b\r\nAuthorization: Token {unread}\r\n\r\n");
        let answer = world.in_clear().raw(head).await.answer("GET", &[]).await.unwrap();
        assert_refused_with(&answer, EXPOSED, "a bad host");
        for token in [malformed, unread] {
            let took = until_revoked(client, token).await;
            assert!(took < Duration::from_secs(1), "revoked after {took:?}");
        }
        // Of several, each was there to be read.
        let [one, another] = [&others[7], &others[8]];
        let both = Request::get("/x").token(one).field("Authorization", format!("Bearer {another}"));
        assert_refused_with(&world.in_clear().send(both).await, EXPOSED, "two tokens");
        for token in [one, another] {
            let took = until_revoked(client, token).await;
            assert!(took < Duration::from_secs(1), "revoked after {took:?}");
        }
        // Nobody else's.
        assert_eq!(client.send(Request::get("/x").token(&canary)).await.status, 200);
        let left = world.gateway.running().credentials().list_tokens(None).await.unwrap();
        assert_eq!(left.len(), 1, "{left:?}");
    });
}

#[test]
fn an_exposed_token_is_revoked_whoever_owns_it() {
    let world = World::start(&settings(REVOKE));
    world.gateway.user("ivan", PASSWORD);
    let inactive = world.gateway.token("ivan");
    world.gateway.deactivate("ivan");
    world.run(Protocol::Http1, async |world, client| {
        assert_own(&client.send(Request::get("/x").token(&inactive)).await, 401);
        let answer = world.in_clear().send(Request::get("/x").token(&inactive)).await;
        assert_refused_with(&answer, EXPOSED, "inactive");
        let is_left = async || {
            let left = world.gateway.running().credentials().list_tokens(Some("ivan")).await.unwrap();
            !left.is_empty()
        };
        let since = Instant::now();
        while is_left().await {
            assert!(since.elapsed() < Duration::from_secs(1), "the token of an inactive user is left");
        }
        // One that nobody knows, or that is gone: nothing to revoke, and the same answer.
        for token in [inactive.as_str(), "0000000000000000000000000000000000000000", "x"] {
            let answer = world.in_clear().send(Request::get("/x").token(token)).await;
            assert_refused_with(&answer, EXPOSED, token);
        }
        assert_eq!(client.send(world.get("/x")).await.status, 200);
    });
}

#[test]
fn an_exposed_token_lives_on_unless_the_file_says_otherwise() {
    on_http1(&settings(""), async |world, client| {
        assert_refused_with(&world.in_clear().send(world.get("/x")).await, EXPOSED, "exposed");
        sleep(Duration::from_millis(500)).await;
        assert_eq!(client.send(world.get("/x")).await.status, 200);
    });
}

#[test]
fn a_token_sent_by_https_is_not_exposed() {
    on_both(&settings(&format!("{PROXIES}\n{REVOKE}")), async |world, client| {
        for _ in 0..3 {
            assert_eq!(client.send(world.get("/x")).await.status, 200);
            let by_proxy = world.get("/x").field("X-Forwarded-Proto", "https");
            assert_eq!(world.in_clear().send(by_proxy).await.status, 200);
        }
        sleep(Duration::from_millis(300)).await;
        assert_eq!(client.send(world.get("/x")).await.status, 200);
    });
}

/// A scheme whose look-ups of exposed credentials last until a gate is open.
#[derive(Debug)]
struct SlowNames {
    gate: Gate,
    begun: Arc<AtomicUsize>,
}

impl Scheme for SlowNames {
    fn kind(&self) -> SchemeKind {
        SchemeKind::Token
    }

    fn challenge(&self, _: Option<&str>) -> Option<HeaderValue> {
        None
    }

    fn recall(&self, _: &Head, _: &Context, _: &mut Effects) -> Recall {
        Recall::NotMine
    }

    fn exposed(&self, _: &HeaderMap) -> Vec<Naming> {
        let (gate, begun) = (self.gate.clone(), Arc::clone(&self.begun));
        vec![Box::pin(async move {
            begun.fetch_add(1, Ordering::Relaxed);
            gate.wait().await;
            Ok(Exposed::Unknown(CredentialId(1)))
        })]
    }
}

#[test]
fn a_flood_of_tokens_in_clear_delays_nobody() {
    let (gate, begun) = (Gate::closed(), Arc::default());
    let scheme: Arc<dyn Scheme> = Arc::new(SlowNames { gate: gate.clone(), begun: Arc::clone(&begun) });
    let double = "[authentication.schemes.double]\nkind = \"token\"\n";
    let options = Options { schemes: vec![("double".to_owned(), scheme)], ..Options::default() };
    let settings = Settings { options, ..settings(double) };
    on_http1(&settings, async |world, client| {
        for _ in 0..PENDING_MAX + 30 {
            let request = Request::get("/x").field("Authorization", "Unheard of");
            assert_refused_with(&world.in_clear().send(request).await, EXPOSED, "flood");
        }
        assert_eq!(client.send(world.get("/x")).await.status, 200);
        let waiting = begun.load(Ordering::Relaxed);
        assert!((1..=PENDING_MAX).contains(&waiting), "{waiting} look-ups at a time");
        gate.open();
    });
}

// --- HSTS

#[test]
fn hsts_is_on_every_answer_over_https() {
    on_both(&settings(HSTS), async |world, client| {
        let hsts = |answer: &Answer| answer.one("strict-transport-security");
        let upstreams = [("Strict-Transport-Security", "max-age=1")];
        world.upstream.script("/x", respond(answer("200 OK", &upstreams, "ok")));
        for request in [
            world.get("/x"),
            world.get("/public/plain"),
            Request::get("/x"),
            Request::get("/%zz"),
            Request::new("TRACE", "/x").token(&world.token),
            login(),
        ] {
            let what = format!("{request:?}");
            let answer = client.send(request.expect(&["strict-transport-security"])).await;
            assert_eq!(hsts(&answer).as_deref(), Some(HSTS_VALUE), "{what}: {answer:?}");
        }
    });
}

#[test]
fn hsts_is_never_sent_in_clear() {
    on_http1(&settings(&format!("{PROXIES}\n{HSTS}")), async |world, _| {
        let plain = world.in_clear();
        // A field that is not expected fails.
        location(&plain, Request::get("/x")).await;
        assert_own(&world.in_clear().send(Request::post("/x", "")).await, 403);
        assert_own(&world.in_clear().send(world.get("/x")).await, 403);
        assert_own(&world.in_clear().send(Request::get("/%zz")).await, 400);
        let by_proxy = world.get("/x").field("X-Forwarded-Proto", "https");
        let answer = plain.send(by_proxy.expect(&["strict-transport-security"])).await;
        assert_eq!(answer.one("strict-transport-security").as_deref(), Some(HSTS_VALUE));
    });
}

#[test]
fn without_hsts_the_upstream_speaks_for_itself() {
    on_both(&settings(""), async |world, client| {
        let upstreams = [("Strict-Transport-Security", "max-age=1")];
        world.upstream.script("/x", respond(answer("200 OK", &upstreams, "ok")));
        let answer = client.send(world.get("/x").expect(&["strict-transport-security"])).await;
        assert_eq!(answer.one("strict-transport-security").as_deref(), Some("max-age=1"));
        assert_own(&client.send(Request::get("/y")).await, 401);
    });
}

// --- connections

#[test]
fn limits_of_connections_hold_in_clear() {
    let limits = "[limits]\nheader_time = \"1s\"\nkeep_alive = \"1s\"\nheader_count = 20\n";
    on_http1(&settings(limits), async |world, _| {
        let plain = world.in_clear();
        let since = Instant::now();
        let trickling = async {
            let mut raw = plain.raw("GET / HTTP/1.1\r\nHost: gateway.test\r\nX-Slow: ").await;
            for _ in 0..4 {
                raw.write("x").await;
                sleep(Duration::from_millis(200)).await;
            }
            assert!(raw.closed().await.is_empty(), "a head that trickles was answered");
        };
        let silent = async { assert!(plain.raw("").await.closed().await.is_empty()) };
        let idle = async {
            let mut raw = plain.raw("GET / HTTP/1.1\r\nHost: gateway.test\r\n\r\n").await;
            assert_eq!(raw.answer("GET", &["location"]).await.unwrap().status, 308);
            assert!(raw.closed().await.is_empty(), "an idle connection was kept");
        };
        tokio::join!(trickling, silent, idle);
        let took = since.elapsed();
        assert!(took > Duration::from_millis(800) && took < Duration::from_secs(5), "{took:?}");
        let many = (0..30).fold(Request::get("/x"), |request, n| request.field(&format!("X-{n}"), "1"));
        assert_eq!(world.in_clear().send(many).await.status, 431);
    });
}

#[test]
fn connections_in_clear_count_with_the_others() {
    let limits = "[limits]\nconnections_per_address = 2\n";
    on_http1(&settings(limits), async |world, client| {
        assert_eq!(client.send(world.get("/x")).await.status, 200);
        let plain = world.in_clear();
        location(&plain, Request::get("/x")).await;
        assert!(
            world.in_clear().try_send(Request::get("/x")).await.is_err(),
            "a third connection was served"
        );
        drop(plain);
        let served = timeout(PATIENCE, async {
            while world.in_clear().try_send(Request::get("/x").expect(&["location"])).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        });
        served.await.expect("a place that was freed is never free");
    });
}

#[test]
fn other_protocols_are_not_spoken_in_clear() {
    on_http1(&settings(""), async |world, client| {
        let mark = world.upstream.mark();
        for bytes in [
            // A TLS ClientHello, HTTP/2 with prior knowledge, and neither.
            &b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03\r\n\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
            b"\x00\x00\x00\x00\r\n\r\n",
        ] {
            let mut tcp = TcpStream::connect(world.gateway.http_address()).await.unwrap();
            tcp.write_all(bytes).await.unwrap();
            let mut all = Vec::new();
            timeout(PATIENCE, tcp.read_to_end(&mut all)).await.expect("it is not closed").unwrap();
            let text = String::from_utf8_lossy(&all);
            assert!(all.is_empty() || text.starts_with("HTTP/1.1 400 "), "{text:?}");
        }
        // To upgrade is not offered: the request is one like any other.
        let upgrade = Request::get("/x")
            .field("Connection", "Upgrade, HTTP2-Settings")
            .field("Upgrade", "h2c")
            .field("HTTP2-Settings", "AAMAAABkAAQAAP__");
        location(&world.in_clear(), upgrade).await;
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn what_follows_a_refused_request_is_not_answered_and_does_not_lose_the_refusal() {
    on_http1(&settings(""), async |world, client| {
        let mark = world.upstream.mark();
        let refused =
            format!("GET /x HTTP/1.1\r\nHost: a.test\r\nAuthorization: Token {}\r\n\r\n", world.token);
        let following = "GET /public/x HTTP/1.1\r\nHost: a.test\r\n\r\n".repeat(5_000);
        let mut tcp = TcpStream::connect(world.gateway.http_address()).await.unwrap();
        tcp.write_all(format!("{refused}{following}").as_bytes()).await.unwrap();
        let mut all = String::new();
        timeout(PATIENCE, tcp.read_to_string(&mut all)).await.expect("it is not closed").unwrap();
        assert!(all.starts_with("HTTP/1.1 403 ") && all.ends_with(EXPOSED), "{all}");
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{all}");
        // A reset in return for what is sent now would overtake the refusal on a longer way.
        for _ in 0..3 {
            tcp.write_all(b"GET /public/x HTTP/1.1\r\n").await.expect("the connection was reset");
            sleep(Duration::from_millis(50)).await;
        }
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn stopping_answers_who_was_let_in_and_closes_the_rest() {
    let world = World::start(&Settings { workers: 2, ..settings(PROXIES) });
    world.run(Protocol::Http1, async |world, _| {
        let gate = Gate::closed();
        world.upstream.script("/held", vec![Step::ReadBody, Step::Hold(gate.clone()), Step::Ok]);
        let (plain, idle) = (world.in_clear(), world.in_clear());
        let (_upload, mut download) =
            plain.open(world.get("/held").field("X-Forwarded-Proto", "https")).await;
        world.upstream.wait_for("the request", |log| log.of("/held").len() == 1).await;
        location(&idle, Request::get("/x")).await;
        world.gateway.ask_to_stop();
        idle.closed().await;
        let refused = async {
            while TcpStream::connect(world.gateway.http_address()).await.is_ok() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, refused).await.expect("new connections are never refused");
        gate.open();
        let answer = download.answer().await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
        assert_last(&answer);
        download.ended().await;
    });
    let since = Instant::now();
    drop(world);
    assert!(since.elapsed() < Duration::from_secs(5), "it took {:?} to stop", since.elapsed());
}

#[test]
fn hosts_of_requests_in_clear_are_read_as_over_https() {
    on_http1(&settings(""), async |world, client| {
        let mark = world.upstream.mark();
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.test/evil\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.test:x\r\n\r\n",
        ] {
            assert_own(&world.in_clear().raw(head).await.answer("GET", &[]).await.unwrap(), 400);
        }
        let old = format!("GET /x HTTP/1.0\r\nHost: {AUTHORITY}\r\n\r\n");
        assert_eq!(world.in_clear().raw(old).await.answer("GET", &["location"]).await.unwrap().status, 308);
        world.assert_refused(client, mark).await;
    });
}
