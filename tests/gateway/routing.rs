//! Which route a request takes, and that it is forwarded as it was decided on.
//!
//! One normal form (RFC 3986, section 6.2.2): where two parsers could read a target in two ways, it is either
//! rewritten, so that the upstream sees what the gateway saw, or refused.

use crate::harness::client::{AUTHORITY, Client, Protocol, Request};
use crate::harness::script::{answer, respond};
use crate::harness::upstream::TestUpstream;
use crate::harness::world::{Settings, World, assert_own, on_both, on_http1};

/// Further upstreams, each of which answers with its name.
struct Named(Vec<(&'static str, TestUpstream)>);

impl Named {
    fn start(names: &[&'static str]) -> Self {
        let start = |name: &&'static str| {
            let upstream = TestUpstream::start();
            upstream.otherwise(respond(answer("200 OK", &[], name)));
            (*name, upstream)
        };
        Self(names.iter().map(start).collect())
    }

    fn sections(&self) -> String {
        let section = |(name, upstream): &(&str, TestUpstream)| {
            format!("[upstreams.{name}]\nservers = [\"{}\"]\n", upstream.url())
        };
        self.0.iter().map(section).collect()
    }

    fn total(&self) -> usize {
        self.0.iter().map(|(_, upstream)| upstream.log().requests.len()).sum()
    }
}

/// A route that needs a token, to the upstream of the same name.
fn route(name: &str, lines: &str) -> String {
    format!("[routes.{name}]\nupstream = \"{name}\"\nschemes = [\"token\"]\n{lines}\n")
}

/// Runs a case with routes to named upstreams over both protocols.
#[expect(clippy::needless_pass_by_value, reason = "a closure, written where it is passed")]
fn routed(routes: &[(&'static str, &str)], case: impl AsyncFn(&World, &Client, &Named)) {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let upstreams: Vec<_> = routes.iter().map(|(name, _)| *name).collect();
        let named = Named::start(&upstreams);
        let routes: String = routes.iter().map(|(name, lines)| route(name, lines)).collect();
        let settings = Settings::sections(&format!("{}\n{routes}", named.sections()));
        World::start(&settings).run(protocol, async |world, client| case(world, client, &named).await);
    }
}

/// Which upstream answered.
async fn answerer(world: &World, client: &Client, request: Request) -> String {
    let answer = client.send(request.token(&world.token)).await;
    if answer.status == 200 { answer.text() } else { answer.status.to_string() }
}

#[test]
fn an_exact_host_comes_before_a_wildcard_and_that_before_any() {
    let routes = [
        ("any", "path = \"/\""),
        ("wildcard", "host = \"*.example.test\"\npath = \"/\""),
        ("exact", "host = \"api.example.test\"\npath = \"/\""),
        // The host is asked before the path.
        ("long", "path = \"/a/long/path\""),
    ];
    routed(&routes, async |world, client, _| {
        for (authority, target, expected) in [
            ("api.example.test", "/", "exact"),
            ("API.Example.TEST", "/", "exact"),
            ("api.example.test:8443", "/", "exact"),
            ("api.example.test", "/a/long/path", "exact"),
            ("www.example.test", "/", "wildcard"),
            ("www.example.test:443", "/a/long/path", "wildcard"),
            ("xapi.example.test", "/", "wildcard"),
            ("example.test", "/", "any"),
            ("api.example.test.evil.test", "/", "any"),
            ("evilexample.test", "/", "any"),
            ("other.test", "/", "any"),
            ("other.test", "/a/long/path/x", "long"),
            ("127.0.0.1", "/", "any"),
            ("[::1]:8443", "/", "any"),
        ] {
            let request = Request::get(target).authority(authority);
            assert_eq!(answerer(world, client, request).await, expected, "{authority}{target}");
        }
    });
}

#[test]
fn the_longest_prefix_of_whole_segments_wins() {
    let routes = [("root", "path = \"/\""), ("api", "path = \"/api\""), ("deep", "path = \"/api/v2/\"")];
    routed(&routes, async |world, client, _| {
        for (target, expected) in [
            ("/", "root"),
            ("/ap", "root"),
            ("/apix", "root"),
            ("/api.json", "root"),
            ("/API", "root"),
            ("/x/api", "root"),
            ("/api", "api"),
            ("/api/", "api"),
            ("/api?x", "api"),
            ("/api/x", "api"),
            ("/api/v2x", "api"),
            ("/api/v2", "deep"),
            ("/api/v2/", "deep"),
            ("/api/v2/x/y", "deep"),
        ] {
            assert_eq!(answerer(world, client, Request::get(target)).await, expected, "{target}");
        }
    });
}

#[test]
fn methods_choose_among_routes() {
    let routes = [
        ("read", "path = \"/x\"\nmethods = [\"GET\", \"HEAD\"]"),
        ("write", "path = \"/x\"\nmethods = [\"POST\"]"),
    ];
    routed(&routes, async |world, client, named| {
        assert_eq!(answerer(world, client, Request::get("/x")).await, "read");
        assert_eq!(answerer(world, client, Request::post("/x", "body")).await, "write");
        let before = named.total();
        // Methods are case-sensitive (RFC 9110, section 9.1).
        for method in ["DELETE", "get", "PROPFIND"] {
            let status = answerer(world, client, Request::new(method, "/x")).await;
            assert!(status == "404" || status == "405", "{method}: {status}");
        }
        assert_eq!(named.total(), before);
    });
}

#[test]
fn what_no_route_claims_is_not_found() {
    let sections = "[routes.only]\npath = \"/only\"\nupstream = \"legacy\"\nschemes = [\"token\"]\n";
    let settings = Settings { canary: Request::get("/only"), ..Settings::sections(sections) };
    on_both(&settings, async |world, client| {
        let mark = world.upstream.mark();
        for request in [Request::get("/"), world.get("/"), world.get("/onlyx"), world.post("/other", "body")]
        {
            let answer = client.send(request).await;
            assert_own(&answer, 404);
            assert_eq!(answer.text(), r#"{"detail":"Not found."}"#);
            assert_eq!(answer.one("www-authenticate"), None);
        }
        world.assert_refused(client, mark).await;
    });
}

/// Everything is free but what is under `/private`.
const PRIVATE: &str = r#"
[routes.free]
path = "/"
upstream = "legacy"
schemes = ["token"]
permission = "anyone"

[routes.private]
path = "/private"
upstream = "legacy"
schemes = ["token"]
"#;

#[test]
fn a_protected_prefix_is_protected_however_it_is_spelt() {
    on_both(&Settings::sections(PRIVATE), async |world, client| {
        for (target, forwarded) in [
            ("/private/x", "/private/x"),
            ("/private", "/private"),
            ("/private/", "/private/"),
            ("/private?x=1", "/private?x=1"),
            ("/./private/x", "/private/x"),
            ("/free/../private/x", "/private/x"),
            ("/free/%2e%2e/private/x", "/private/x"),
            ("/free/%2E%2e/private/x", "/private/x"),
            ("/free/.%2e/private/x", "/private/x"),
            ("/free/a/../../private", "/private"),
            ("/%2e/private/x", "/private/x"),
            ("//private/x", "/private/x"),
            ("/.//private/x", "/private/x"),
            ("/private//x", "/private/x"),
            ("/%70rivate/x", "/private/x"),
            ("/%70%72%69%76%61%74%65", "/private"),
            ("/privat%65/%78", "/private/x"),
            ("/private/x/.", "/private/x/"),
            ("/private/x/..", "/private/"),
            ("/private/%c3%a9", "/private/%C3%A9"),
            ("/private/%7euser", "/private/~user"),
        ] {
            let mark = world.upstream.mark();
            let answer = client.send(Request::get(target)).await;
            assert_eq!(answer.status, 401, "{target}");
            world.assert_refused(client, mark).await;
            assert_eq!(client.send(world.get(target)).await.status, 200, "{target}");
            assert_eq!(world.upstream.last().target, forwarded, "{target}");
        }
    });
}

#[test]
fn what_leaves_a_protected_prefix_is_decided_where_it_ends() {
    on_both(&Settings::sections(PRIVATE), async |world, client| {
        for (target, forwarded) in [
            ("/private/../free", "/free"),
            ("/private/%2e%2e/free", "/free"),
            ("/privatex", "/privatex"),
            ("/free/", "/free/"),
            ("/a/./b/../c", "/a/c"),
            ("/%41%2D%5f", "/A-_"),
            ("/a%20b", "/a%20b"),
            ("/a%3fb", "/a%3Fb"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
        ] {
            assert_eq!(client.send(Request::get(target)).await.status, 200, "{target}");
            assert_eq!(world.upstream.last().target, forwarded, "{target}");
        }
    });
}

#[test]
fn a_query_is_not_touched() {
    on_both(&Settings::sections(PRIVATE), async |world, client| {
        for query in ["a=%2f..%2f&b=//../x", "", "?x?y", "a=%41&b=%zz&c=%00", "x=%252f", "path=/private"] {
            let target = format!("/free?{query}");
            assert_eq!(client.send(Request::get(&target)).await.status, 200, "{target}");
            let forwarded = world.upstream.last().target;
            // An empty query may lose its question mark; nothing else may change.
            assert!(
                forwarded == target || (query.is_empty() && forwarded == "/free"),
                "{target} became {forwarded}"
            );
        }
    });
}

#[test]
fn a_target_that_can_be_read_in_two_ways_is_refused() {
    on_both(&Settings::sections(PRIVATE), async |world, client| {
        for target in [
            "/free%2fprivate",
            "/free%2Fprivate",
            "/free/..%2fprivate",
            "/free%5cprivate",
            "/free%5Cprivate",
            "/free\\private",
            "/free/..\\private",
            "/private%00",
            "/free%0a",
            "/free%0d%0aX-Injected:%201",
            "/free%7f",
            "/free%",
            "/free%2",
            "/free%zz",
            "/free%u002f",
            "/free%252fprivate",
            "/free/%252e%252e/private",
            "/free/%c0%ae%c0%ae/private",
            "/free%c0%afprivate",
            "/free%e0%80%afprivate",
        ] {
            for request in [Request::get(target), world.get(target)] {
                let mark = world.upstream.mark();
                let answer = client.send(request).await;
                assert_eq!(answer.status, 400, "{target}: {answer:?}");
                assert_own(&answer, 400);
                world.assert_refused(client, mark).await;
            }
        }
    });
}

/// Sends raw bytes, expects this status, and nothing at the upstream.
async fn assert_raw_refused(world: &World, client: &Client, bytes: &str, statuses: &[u16]) {
    let mark = world.upstream.mark();
    let answer = client.raw(bytes).await.answer("GET", &[]).await.unwrap();
    assert!(statuses.contains(&answer.status), "{bytes:?} gave {answer:?}");
    world.assert_refused(client, mark).await;
}

#[test]
fn targets_that_no_client_sends_are_refused() {
    on_http1(&Settings::sections(PRIVATE), async |world, client| {
        for target in
            ["/free bar", "/free\tbar", "free", "", "/free\u{1}", "http://", "http:///free", "//", "?x"]
        {
            let statuses: &[u16] = if target == "//" { &[400, 200] } else { &[400, 404] };
            let bytes = format!("GET {target} HTTP/1.1\r\nHost: {AUTHORITY}\r\n\r\n");
            let mark = world.upstream.mark();
            let answer = client.raw(&bytes).await.answer("GET", &[]).await.unwrap();
            assert!(statuses.contains(&answer.status), "{target:?} gave {answer:?}");
            if answer.status != 200 {
                world.assert_refused(client, mark).await;
            }
        }
    });
}

#[test]
fn a_fragment_is_never_forwarded() {
    on_http1(&Settings::sections(PRIVATE), async |world, client| {
        for target in ["/private#x", "/free#/../private", "/free?x#y"] {
            let bytes = format!("GET {target} HTTP/1.1\r\nHost: {AUTHORITY}\r\n\r\n");
            let answer = client.raw(bytes).await.answer("GET", &[]).await.unwrap();
            if answer.status == 200 {
                let forwarded = world.upstream.last().target;
                assert!(forwarded == "/free" || forwarded == "/free?x", "{target} became {forwarded}");
            } else {
                let expected: &[u16] = if target.starts_with("/private") { &[400, 401] } else { &[400] };
                assert!(expected.contains(&answer.status), "{target} gave {answer:?}");
            }
        }
    });
}

#[test]
fn a_request_without_exactly_one_host_is_refused() {
    on_http1(&Settings::default(), async |world, client| {
        let token = format!("Authorization: Token {}", world.token);
        for hosts in [
            "X-None: 1",
            "Host:",
            "Host: ",
            "Host: gateway.test\r\nHost: gateway.test",
            "Host: gateway.test\r\nHost: other.test",
            "Host: gateway.test\r\nhost: other.test",
            "Host: gateway.test, other.test",
            "Host: gate way.test",
            "Host: user@gateway.test",
            "Host: gateway.test/path",
            "Host: gateway.test:port",
            "Host: gateway.test:99999",
            "Host: gateway.test\\x",
            "Host : gateway.test",
        ] {
            let bytes = format!("GET / HTTP/1.1\r\n{hosts}\r\n{token}\r\n\r\n");
            assert_raw_refused(world, client, &bytes, &[400]).await;
        }
    });
}

#[test]
fn the_authority_of_an_absolute_target_replaces_host() {
    let named = Named::start(&["any", "exact"]);
    let routes = route("any", "path = \"/\"") + &route("exact", "host = \"api.example.test\"\npath = \"/\"");
    let settings = Settings::sections(&format!("{}\n{routes}", named.sections()));
    on_http1(&settings, async |world, client| {
        for (target, host, expected) in [
            ("http://api.example.test/x", "other.test", "exact"),
            ("https://api.example.test/x", "other.test", "exact"),
            ("https://other.test/x", "api.example.test", "any"),
            ("https://API.example.test:8443/x", "api.example.test", "exact"),
        ] {
            let token = &world.token;
            let bytes =
                format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Token {token}\r\n\r\n");
            let answer = client.raw(bytes).await.answer("GET", &[]).await.unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (200, expected), "{target}");
            let (_, upstream) = named.0.iter().find(|(name, _)| *name == expected).unwrap();
            let came = upstream.last();
            assert_eq!(came.target, "/x");
            let authority = target.split('/').nth(2).unwrap();
            assert!(
                came.one("host").unwrap().eq_ignore_ascii_case(authority),
                "{target}: {:?}",
                came.one("host")
            );
        }
    });
}

#[test]
fn http2_has_one_authority() {
    let named = Named::start(&["any", "exact"]);
    let routes = route("any", "path = \"/\"") + &route("exact", "host = \"api.example.test\"\npath = \"/\"");
    let settings = Settings::sections(&format!("{}\n{routes}", named.sections()));
    World::start(&settings).run(Protocol::Http2, async |world, client| {
        let request = Request::get("/x").authority("other.test").field("host", "api.example.test");
        let before = named.total();
        match client.try_send(request.token(&world.token)).await {
            // Refused as a stream error or as 400, or `:authority` wins everywhere.
            Err(_) => assert_eq!(named.total(), before),
            Ok(answer) if answer.status == 400 => assert_eq!(named.total(), before),
            Ok(answer) => {
                assert_eq!((answer.status, answer.text().as_str()), (200, "any"));
                assert_eq!(named.0[0].1.last().one("host").as_deref(), Some("other.test"));
            }
        }
    });
}

#[test]
fn the_upstream_gets_the_host_of_the_client() {
    on_both(&Settings::default(), async |world, client| {
        for authority in [AUTHORITY, "other.test:8443", "[::1]"] {
            assert_eq!(client.send(world.get("/").authority(authority)).await.status, 200);
            assert_eq!(world.upstream.last().one("host").as_deref(), Some(authority));
        }
        assert_ne!(world.upstream.last().one("host"), Some(world.upstream.authority()));
    });
}

#[test]
fn trace_is_never_forwarded() {
    on_both(&Settings::default(), async |world, client| {
        let mark = world.upstream.mark();
        let refused = client.send(Request::new("TRACE", "/x")).await;
        assert_own(&refused, 401);
        assert_eq!(refused.one("www-authenticate").as_deref(), Some("Token"));
        let refused = client.send(Request::new("TRACE", "/x").token(&world.token)).await;
        assert_own(&refused, 405);
        assert_eq!(refused.text(), r#"{"detail":"Method \"TRACE\" not allowed."}"#);
        world.assert_refused(client, mark).await;
        let mark = world.upstream.mark();
        let refused = client.send(Request::new("TRACE", "/public")).await;
        assert!([401, 405].contains(&refused.status), "{refused:?}");
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn connect_is_refused() {
    on_both(&Settings::default(), async |world, client| {
        for authority in [world.upstream.authority(), "gateway.test:443".to_owned()] {
            for token in [None, Some(&world.token)] {
                let mark = world.upstream.mark();
                let mut request = Request::new("CONNECT", &authority).authority(&authority);
                if let Some(token) = token {
                    request = request.token(token);
                }
                // Over HTTP/2 the stream may be reset instead.
                if let Ok(answer) = client.fresh().try_send(request).await {
                    assert!([400, 401, 404, 405, 501].contains(&answer.status), "{answer:?}");
                }
                world.assert_refused(client, mark).await;
            }
        }
    });
}

#[test]
fn an_asterisk_is_decided_like_any_target() {
    on_http1(&Settings::default(), async |world, client| {
        let bytes = format!("OPTIONS * HTTP/1.1\r\nHost: {AUTHORITY}\r\n\r\n");
        assert_raw_refused(world, client, &bytes, &[400, 401, 404]).await;
    });
}

#[test]
fn a_long_target_is_served_and_an_endless_one_refused() {
    on_both(&Settings::default(), async |world, client| {
        let target = format!("/{}", "x".repeat(4000));
        assert_eq!(client.send(world.get(&target)).await.status, 200);
        assert_eq!(world.upstream.last().target, target);
        let mark = world.upstream.mark();
        let endless = format!("/{}", "x".repeat(60_000));
        // Over HTTP/2 it may be the stream that ends.
        if let Ok(answer) = client.fresh().try_send(world.get(&endless)).await {
            assert!([400, 414, 431].contains(&answer.status), "{answer:?}");
        }
        world.assert_refused(client, mark).await;
    });
}
