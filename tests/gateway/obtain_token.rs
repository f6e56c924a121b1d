//! A password for a token, as Django REST framework's `obtain_auth_token` answers in JSON (contract, section 7).
//!
//! Bodies are compared byte for byte: clients in the field compare them too.

use crate::harness::client::{Answer, Client, Payload, Protocol, Request};
use crate::harness::gateway::manual_clock;
use crate::harness::upstream::TestUpstream;
use crate::harness::world::{ROUTES, Settings, World, assert_own, on_both};
use std::time::Duration;
use tokio::time::Instant;

const OBTAIN: &str = "[routes.obtain]\npath = \"/api-token-auth/\"\nhandler = \"obtain-token\"\n";
const PASSWORD: &str = "correct horse battery staple";
const EXPOSED: &str = r#"{"detail":"HTTPS is required. The credentials were sent unprotected and must be considered exposed."}"#;
const LOGIN_FAILED: &str = r#"{"non_field_errors":["Unable to log in with provided credentials."]}"#;

/// The ordinary routes, the handler, and further sections.
fn settings(sections: &str) -> Settings {
    Settings::sections(&format!("{ROUTES}\n{OBTAIN}\n{sections}\n"))
}

fn json(body: impl Into<Vec<u8>>) -> Request {
    Request::post("/api-token-auth/", body).field("Content-Type", "application/json")
}

fn login(username: &str, password: &str) -> Request {
    json(serde_json::json!({ "username": username, "password": password }).to_string())
}

/// The token of a 200 that is as it must be.
fn token_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.one("content-type").as_deref(), Some("application/json"));
    assert_eq!(answer.one("cache-control").as_deref(), Some("no-store"));
    let text = answer.text();
    let token =
        text.strip_prefix("{\"token\":\"").and_then(|rest| rest.strip_suffix("\"}")).expect("a token");
    let is_hex = token.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    assert!(token.len() == 40 && is_hex, "{text}");
    token.to_owned()
}

async fn obtain(client: &Client) -> String {
    token_of(&client.send(login("alice", PASSWORD)).await)
}

/// An answer of the handler that is not to be cached, has no challenge and tells no secret.
fn assert_refused_with(answer: &Answer, status: u16, body: &str) {
    assert_eq!((answer.status, answer.text().as_str()), (status, body));
    assert_eq!(answer.one("content-type").as_deref(), Some("application/json"));
    assert_eq!(answer.one("cache-control").as_deref(), Some("no-store"));
    assert_eq!(answer.one("www-authenticate"), None);
    assert!(answer.one("x-request-id").is_some());
}

/// Fails if the answer has one of these anywhere.
fn assert_tells_none_of(answer: &Answer, secrets: &[&str]) {
    let mut all = answer.body.clone();
    for (name, value) in answer.fields.iter().chain(&answer.trailers) {
        all.extend_from_slice(name.as_bytes());
        all.extend_from_slice(value);
    }
    let all = String::from_utf8_lossy(&all);
    for secret in secrets {
        assert!(!all.contains(secret), "{secret:?} is in {answer:?}");
    }
}

#[test]
fn a_token_works_at_once() {
    on_both(&settings(""), async |world, client| {
        let mark = world.upstream.mark();
        let token = obtain(client).await;
        let (requests, bytes) = world.upstream.since(mark);
        assert!(requests.is_empty() && bytes == 0, "the upstream sees nothing of a login");
        assert_eq!(client.send(Request::get("/x").token(&token)).await.status, 200);
        assert_eq!(world.upstream.last().one("remote-user").as_deref(), Some("alice"));
    });
}

#[test]
fn a_token_that_was_tried_before_it_was_made_works_at_once() {
    // What is unknown is remembered; what is made later is not unknown any more.
    on_both(&settings("[cache]\nnegative_ttl = \"60s\""), async |world, client| {
        let known = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(client.send(Request::get("/x").token(known)).await.status, 401);
        let token = obtain(client).await;
        assert_eq!(client.send(Request::get("/x").token(&token)).await.status, 200);
        assert_eq!(world.upstream.log().requests.len(), 1);
    });
}

#[test]
fn both_of_two_tokens_of_a_user_work() {
    on_both(&settings(""), async |_, client| {
        let (one, two) = (obtain(client).await, obtain(client).await);
        assert_ne!(one, two);
        for token in [&one, &two, &one] {
            assert_eq!(client.send(Request::get("/x").token(token)).await.status, 200);
        }
    });
}

#[test]
fn a_wrong_password_an_unknown_and_an_inactive_user_are_told_the_same() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::start(&settings(""));
        world.gateway.user("ivan", PASSWORD);
        world.gateway.deactivate("ivan");
        world.run(protocol, async |world, client| {
            let mark = world.upstream.mark();
            let mut answers = Vec::new();
            for (username, password) in [
                ("alice", "wrong"),
                ("alice", "correct horse battery staple "),
                ("Alice", PASSWORD),
                ("nobody", PASSWORD),
                ("ivan", PASSWORD),
                ("ivan", "wrong"),
            ] {
                let answer = client.send(login(username, password)).await;
                assert_refused_with(&answer, 400, LOGIN_FAILED);
                assert_tells_none_of(&answer, &[password, username]);
                answers.push(answer);
            }
            // Nothing but the id and the time tells them apart.
            let told = |answer: &Answer| {
                let fields =
                    answer.fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
                fields.filter(|(name, _)| name != "x-request-id" && name != "date").collect::<Vec<_>>()
            };
            assert!(answers.iter().all(|answer| told(answer) == told(&answers[0])), "{answers:#?}");
            world.assert_refused(client, mark).await;
        });
    }
}

/// The middle of many durations: it takes no notice of what else the machine does now and then.
fn median(durations: &mut [Duration]) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}

/// Medians of how long a wrong password, an unknown and an inactive user take, 200 of each by turns.
async fn medians_of_refusals(client: &Client) -> [Duration; 3] {
    const ROUNDS: usize = 200;
    let logins = [("alice", "wrong"), ("nobody", PASSWORD), ("ivan", PASSWORD)];
    let mut took: [Vec<Duration>; 3] = Default::default();
    for round in 0..ROUNDS {
        for turn in 0..logins.len() {
            // Each comes first as often as the others.
            let which = (round + turn) % logins.len();
            let request = login(logins[which].0, logins[which].1);
            let since = Instant::now();
            let answer = client.send(request).await;
            took[which].push(since.elapsed());
            assert_refused_with(&answer, 400, LOGIN_FAILED);
        }
    }
    took.map(|mut took| median(&mut took))
}

#[test]
fn a_wrong_password_an_unknown_and_an_inactive_user_take_equally_long() {
    // Guards would delay the later ones.
    let world = World::start(&settings("[authentication]\nguard = \"off\""));
    world.gateway.user("ivan", PASSWORD);
    world.gateway.deactivate("ivan");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = world.client(Protocol::Http1);
    // A busy machine may spoil a measurement, but not each; without the hash it would be a tenth.
    let mut measured = Vec::new();
    let is_equal = (0..3).any(|_| {
        let medians = runtime.block_on(medians_of_refusals(&client));
        measured.push(medians);
        let (least, most) = (medians.iter().min().unwrap(), medians.iter().max().unwrap());
        *most < least.mul_f64(1.05)
    });
    println!("{measured:?}");
    assert!(is_equal, "{measured:?}");
}

#[test]
fn validation_errors_are_those_of_django_rest_framework() {
    const REQUIRED: &str =
        r#"{"username":["This field is required."],"password":["This field is required."]}"#;
    on_both(&settings(""), async |world, client| {
        let mark = world.upstream.mark();
        for (body, expected) in [
            ("", REQUIRED),
            ("{}", REQUIRED),
            (r#"{"user": "alice"}"#, REQUIRED),
            (r#"{"username": "alice"}"#, r#"{"password":["This field is required."]}"#),
            (r#"{"password": "x"}"#, r#"{"username":["This field is required."]}"#),
            (
                r#"{"username": "", "password": ""}"#,
                r#"{"username":["This field may not be blank."],"password":["This field may not be blank."]}"#,
            ),
            (r#"{"username": "  \t", "password": "x"}"#, r#"{"username":["This field may not be blank."]}"#),
            // A password is not trimmed: blanks are a password, a wrong one.
            (r#"{"username": "alice", "password": "  "}"#, LOGIN_FAILED),
            (
                r#"{"password": null, "username": null}"#,
                r#"{"username":["This field may not be null."],"password":["This field may not be null."]}"#,
            ),
            (
                r#"{"username": true, "password": false}"#,
                r#"{"username":["Not a valid string."],"password":["Not a valid string."]}"#,
            ),
            (
                r#"{"username": ["alice"], "password": {"a": 1}}"#,
                r#"{"username":["Not a valid string."],"password":["Not a valid string."]}"#,
            ),
            (r#"{"username": 5, "password": 1.5}"#, LOGIN_FAILED),
            (
                r#"{"username": "a\u0000b", "password": "\u0000"}"#,
                r#"{"username":["Null characters are not allowed."],"password":["Null characters are not allowed."]}"#,
            ),
            ("[]", r#"{"non_field_errors":["Invalid data. Expected a dictionary, but got list."]}"#),
            ("\"x\"", r#"{"non_field_errors":["Invalid data. Expected a dictionary, but got str."]}"#),
            ("1", r#"{"non_field_errors":["Invalid data. Expected a dictionary, but got int."]}"#),
            ("1.5", r#"{"non_field_errors":["Invalid data. Expected a dictionary, but got float."]}"#),
            ("true", r#"{"non_field_errors":["Invalid data. Expected a dictionary, but got bool."]}"#),
            ("null", r#"{"non_field_errors":["No data provided"]}"#),
        ] {
            let answer = client.send(json(body)).await;
            assert_eq!((answer.status, answer.text().as_str()), (400, expected), "{body}");
            assert_refused_with(&answer, 400, expected);
        }
        // An empty body is empty whatever it is said to be.
        let empty = Request::post("/api-token-auth/", "").field("Content-Type", "text/plain");
        assert_refused_with(&client.send(empty).await, 400, REQUIRED);
        assert_refused_with(&client.send(Request::new("POST", "/api-token-auth/")).await, 400, REQUIRED);
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn malformed_json_is_told_without_what_was_sent() {
    on_both(&settings(""), async |world, client| {
        let mark = world.upstream.mark();
        for (body, expected) in [
            ("{bad", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
            (
                "{\"username\": \"alice\",\n\"password\": hunter2}",
                "Expecting value: line 2 column 13 (char 34)",
            ),
            (r#"{"password": "hunter2"} x"#, "Extra data: line 1 column 25 (char 24)"),
            (
                r#"{"password": "hunter2", }"#,
                "Expecting property name enclosed in double quotes: line 1 column 25 (char 24)",
            ),
            ("  ", "Expecting value: line 1 column 3 (char 2)"),
            ("\u{feff}{}", "Unexpected UTF-8 BOM (decode using utf-8-sig): line 1 column 1 (char 0)"),
            ("[NaN]", "Out of range float values are not JSON compliant: 'NaN'"),
        ] {
            let answer = client.send(json(body)).await;
            assert_refused_with(
                &answer,
                400,
                &serde_json::json!({ "detail": format!("JSON parse error - {expected}") }).to_string(),
            );
            assert_tells_none_of(&answer, &["hunter2", "alice"]);
        }
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn a_username_is_trimmed_and_of_two_the_last_counts() {
    on_both(&settings(""), async |_, client| {
        token_of(&client.send(login("  alice\t", PASSWORD)).await);
        let twice = format!(
            r#"{{"username": "nobody", "username": "alice", "password": "x", "password": "{PASSWORD}"}}"#
        );
        token_of(&client.send(json(twice)).await);
        let other = login("alice", PASSWORD).field("X-Other", "1");
        token_of(&client.send(other).await);
    });
}

#[test]
fn json_with_a_charset_is_json() {
    on_both(&settings(""), async |_, client| {
        let body = serde_json::json!({ "username": "alice", "password": PASSWORD }).to_string();
        for given in ["application/json; charset=utf-8", "Application/JSON"] {
            let request = Request::post("/api-token-auth/", body.clone()).field("Content-Type", given);
            token_of(&client.send(request).await);
        }
        let twice = Request::post("/api-token-auth/", body.clone()).field("Content-Type", "text/plain");
        token_of(&client.send(twice.field("Content-Type", "application/json")).await);
        let chunked = Request::new("POST", "/api-token-auth/").payload(Payload::Unsized(body.into_bytes()));
        token_of(&client.send(chunked.field("Content-Type", "application/json")).await);
    });
}

/// A form in parts, with the boundary `BoUnD`.
fn parts(all: &[(&str, &str)]) -> Request {
    let parts = all.iter().map(|(disposition, content)| {
        format!("--BoUnD\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n")
    });
    let body = parts.collect::<Vec<_>>().concat();
    Request::post("/api-token-auth/", body + "--BoUnD--\r\n")
        .field("Content-Type", "multipart/form-data; boundary=BoUnD")
}

fn form(body: &str) -> Request {
    Request::post("/api-token-auth/", body).field("Content-Type", "application/x-www-form-urlencoded")
}

#[test]
fn forms_of_both_kinds_are_read() {
    on_both(&settings(""), async |world, client| {
        let mark = world.upstream.mark();
        token_of(&client.send(form("username=+alice&password=correct+horse%20battery+staple")).await);
        token_of(
            &client.send(form("username=x&username=alice&password=correct horse battery staple&z")).await,
        );
        let (username, password) = (("name=\"username\"", "alice"), ("name=\"password\"", PASSWORD));
        token_of(&client.send(parts(&[username, password])).await);
        token_of(&client.send(parts(&[("name=username", "x"), username, password])).await);
        let bytes = b"username=alice&password=%C0".to_vec();
        let typed = |given| Request::post("/api-token-auth/", bytes.clone()).field("Content-Type", given);
        for request in [
            form("username=alice&password=wrong"),
            form("username=alice&password=correct%2Bhorse%20battery%20staple"),
            parts(&[username, ("name=password", "wrong")]),
            typed("application/x-www-form-urlencoded"),
            typed("application/x-www-form-urlencoded; charset=latin-1"),
        ] {
            assert_refused_with(&client.send(request).await, 400, LOGIN_FAILED);
        }
        for (request, expected) in [
            (form("username=alice"), r#"{"password":["This field is required."]}"#),
            (form("username=%20&password=x"), r#"{"username":["This field may not be blank."]}"#),
            (form("username=a%00&password=x"), r#"{"username":["Null characters are not allowed."]}"#),
            (parts(&[username]), r#"{"password":["This field is required."]}"#),
            (
                parts(&[username, ("name=password; filename=x", PASSWORD)]),
                r#"{"password":["Not a valid string."]}"#,
            ),
            (
                Request::post("/api-token-auth/", "x").field("Content-Type", "multipart/form-data"),
                r#"{"detail":"Multipart form parse error - Invalid boundary in multipart: None"}"#,
            ),
            (
                typed("application/json; charset=bz2"),
                r#"{"detail":"Unsupported charset \"bz2\" in request Content-Type header."}"#,
            ),
            (form(&"&".repeat(1000)), r#"{"detail":"Bad request."}"#),
        ] {
            assert_refused_with(&client.send(request).await, 400, expected);
        }
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn a_charset_that_is_named_is_heeded() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::start(&settings(""));
        world.gateway.user("ren\u{e9}", PASSWORD);
        world.run(protocol, async |_, client| {
            let latin1 = format!("{{\"username\": \"ren\u{e9}\", \"password\": \"{PASSWORD}\"}}");
            let latin1: Vec<u8> = latin1.chars().map(|character| u8::try_from(character).unwrap()).collect();
            let typed = |given| Request::post("/api-token-auth/", latin1.clone()).field("Content-Type", given);
            token_of(&client.send(typed("application/json; charset=iso-8859-1")).await);
            // One that nobody knows is not looked at: this is no UTF-8.
            let expected = "{\"detail\":\"JSON parse error - 'utf-8' codec can't decode byte 0xe9 in position 17: \
                            invalid continuation byte\"}";
            for given in ["application/json", "application/json; charset=nope"] {
                assert_refused_with(&client.send(typed(given)).await, 400, expected);
            }
            let form = Request::post("/api-token-auth/", "username=ren%E9&password=correct+horse+battery+staple")
                .field("Content-Type", "application/x-www-form-urlencoded; charset=latin-1");
            token_of(&client.send(form).await);
        });
    }
}

#[test]
fn a_client_asks_what_there_is_to_send() {
    on_both(&settings(""), async |world, client| {
        let mark = world.upstream.mark();
        let answer = client.send(Request::new("OPTIONS", "/api-token-auth/")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.one("cache-control").as_deref(), Some("no-store"));
        assert_eq!(answer.one("allow").as_deref(), Some("POST, OPTIONS"));
        let described: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(described["name"], "Obtain Auth Token");
        assert_eq!(described["actions"]["POST"]["password"]["required"], true);
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn a_client_that_goes_on_sending_too_much_gets_its_answer() {
    on_both(&settings(""), async |world, client| {
        let mark = world.upstream.mark();
        let request = Request::new("POST", "/api-token-auth/").payload(Payload::Streamed);
        let (mut upload, mut download) = client.open(request.field("Content-Type", "application/json")).await;
        for _ in 0..14 {
            // What is refused is read on, within `[limits] unread_body`.
            upload.send(vec![b' '; 64 << 10]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        upload.finish().await.unwrap();
        let answer = download.answer().await.unwrap();
        assert_refused_with(&answer, 413, r#"{"detail":"Request body too large."}"#);
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn other_media_types_are_refused_by_name() {
    on_both(&settings(""), async |world, client| {
        let mark = world.upstream.mark();
        let body = serde_json::json!({ "username": "alice", "password": PASSWORD }).to_string();
        let request = || Request::post("/api-token-auth/", body.clone());
        let typed = request().field("Content-Type", "text/plain; charset=utf-8");
        let expected = r#"{"detail":"Unsupported media type \"text/plain; charset=utf-8\" in request."}"#;
        assert_refused_with(&client.send(typed).await, 415, expected);
        let expected = r#"{"detail":"Unsupported media type \"\" in request."}"#;
        assert_refused_with(&client.send(request()).await, 415, expected);
        // A field's bytes are characters of ISO 8859-1, and an answer is UTF-8.
        let expected = "{\"detail\":\"Unsupported media type \\\"caf\u{e9}\\\" in request.\"}";
        assert_refused_with(&client.send(request().field("Content-Type", b"caf\xe9")).await, 415, expected);
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn other_methods_are_refused_with_those_that_are_allowed() {
    on_both(&settings(""), async |world, client| {
        let mark = world.upstream.mark();
        for method in ["GET", "PUT", "DELETE", "PATCH"] {
            let answer = client.send(Request::new(method, "/api-token-auth/")).await;
            assert_refused_with(&answer, 405, &format!(r#"{{"detail":"Method \"{method}\" not allowed."}}"#));
            assert_eq!(answer.one("allow").as_deref(), Some("POST, OPTIONS"));
        }
        // What the stages before the handler refuse is not kept either.
        let answer = client.send(Request::new("TRACE", "/api-token-auth/")).await;
        assert!((400..500).contains(&answer.status), "{answer:?}");
        assert_eq!(answer.one("cache-control").as_deref(), Some("no-store"));
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn other_credentials_of_the_request_are_ignored() {
    on_both(&settings(""), async |world, client| {
        for value in ["Token wrong", "Token", "Basic YWxpY2U6d3Jvbmc=", "nonsense and more"] {
            let request = login("alice", PASSWORD).field("Authorization", value);
            token_of(&client.send(request.field("Cookie", "sessionid=x; csrftoken=y")).await);
        }
        // Nor do good ones make up for a wrong password.
        let request = login("alice", "wrong").token(&world.token);
        assert_refused_with(&client.send(request).await, 400, LOGIN_FAILED);
    });
}

#[test]
fn a_body_over_max_body_is_too_large() {
    let route =
        "[routes.obtain]\npath = \"/api-token-auth/\"\nhandler = \"obtain-token\"\nmax_body = \"1KiB\"\n";
    for (settings, size) in
        [(Settings::sections(&format!("{ROUTES}\n{route}")), 1 << 10), (settings(""), 64 << 10)]
    {
        on_both(&settings, async |world, client| {
            let padded = |length: usize| {
                let body = serde_json::json!({ "username": "alice", "password": PASSWORD }).to_string();
                let mut body = body.into_bytes();
                body.resize(length, b' ');
                body
            };
            token_of(&client.send(json(padded(size))).await);
            let mark = world.upstream.mark();
            for length in [size + 1, 600_000] {
                // Refused before the handler, too.
                let answer = client.fresh().send(json(padded(length))).await;
                assert_own(&answer, 413);
                assert_refused_with(&answer, 413, r#"{"detail":"Request body too large."}"#);
                let chunked =
                    Request::new("POST", "/api-token-auth/").payload(Payload::Unsized(padded(length)));
                let answer = client.fresh().send(chunked.field("Content-Type", "application/json")).await;
                assert_refused_with(&answer, 413, r#"{"detail":"Request body too large."}"#);
            }
            world.assert_refused(client, mark).await;
        });
    }
}

#[test]
fn a_body_that_does_not_come_is_a_timeout() {
    on_both(&settings("[limits]\nbody_idle = \"1s\""), async |world, client| {
        let mark = world.upstream.mark();
        let request = Request::new("POST", "/api-token-auth/").payload(Payload::StreamedLength(100));
        let (mut upload, mut download) = client.open(request.field("Content-Type", "application/json")).await;
        upload.send("{").await.unwrap();
        let answer = download.answer().await.unwrap();
        assert_refused_with(&answer, 408, r#"{"detail":"Request timeout."}"#);
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn past_the_bound_the_slowest_bodies_go_and_whole_ones_are_answered() {
    let settings = settings("[limits]\nstreams_per_connection = 1000");
    World::start(&settings).run(Protocol::Http2, async |_, client| {
        let slow = async |client: &Client| {
            let request = Request::new("POST", "/api-token-auth/").payload(Payload::StreamedLength(100));
            let (mut upload, download) = client.open(request.field("Content-Type", "application/json")).await;
            upload.send("{").await.unwrap();
            (upload, download)
        };
        let (mut first, mut second) = (client.fresh(), client.fresh());
        let mut crowd = Vec::new();
        for number in 0..1100 {
            crowd.push(slow(if number < 550 { &mut first } else { &mut second }).await);
        }
        token_of(&client.send(login("alice", PASSWORD)).await);
        let (_upload, oldest) = &mut crowd[0];
        // Long before `body_idle`, 20 seconds.
        let answer = tokio::time::timeout(Duration::from_secs(10), oldest.answer()).await.unwrap().unwrap();
        assert_refused_with(&answer, 408, r#"{"detail":"Request timeout."}"#);
    });
}

#[test]
fn a_token_expires_by_the_configured_time() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (clock, options) = manual_clock();
        let settings = settings("[tokens]\nttl = \"60s\"");
        let world = World::with(TestUpstream::start(), &settings, options);
        world.run(protocol, async |world, client| {
            let token = obtain(client).await;
            let get = async |token: &str| client.fresh().send(Request::get("/x").token(token)).await;
            assert_eq!(get(&token).await.status, 200);
            clock.advance(Duration::from_secs(59));
            assert_eq!(get(&token).await.status, 200);
            let mark = world.upstream.mark();
            clock.advance(Duration::from_secs(1));
            let answer = get(&token).await;
            assert_own(&answer, 401);
            assert_eq!(answer.text(), r#"{"detail":"Invalid token."}"#);
            let (requests, bytes) = world.upstream.since(mark);
            assert!(requests.is_empty() && bytes == 0, "an expired token reached the upstream");
            // The user may log in again.
            assert_eq!(get(&obtain(&client.fresh()).await).await.status, 200);
        });
    }
}

#[test]
fn the_password_and_the_token_are_in_no_answer_but_the_one() {
    on_both(&settings(""), async |world, client| {
        let answer = client.send(login("alice", PASSWORD)).await;
        assert_tells_none_of(&answer, &[PASSWORD]);
        let token = token_of(&answer);
        let body = serde_json::json!({ "username": "alice", "password": PASSWORD }).to_string();
        let mut broken = body.clone();
        broken.push('}');
        for request in [
            Request::get("/x").token(&token),
            Request::get("/x").token(&format!("{token}0")),
            Request::get("/x").field("Authorization", format!("Token {token} {token}")),
            Request::get("/../x").token(&token),
            Request::post("/api-token-auth/", body.clone()).field("Content-Type", "text/plain"),
            Request::post("/api-token-auth/", body.clone()),
            Request::new("PUT", "/api-token-auth/").payload(Payload::Length(body.clone().into_bytes())),
            json(broken),
            json(format!("[{body}]")),
            login(PASSWORD, &token),
        ] {
            let answer = client.fresh().send(request).await;
            assert_tells_none_of(&answer, &[PASSWORD, &token]);
        }
        // Nor does the upstream get to see them.
        for request in &world.upstream.log().requests {
            let shown = format!(
                "{:?}",
                request.fields.iter().map(|(n, v)| (n, String::from_utf8_lossy(v))).collect::<Vec<_>>()
            );
            assert!(!shown.contains(&token) && !shown.contains(PASSWORD), "{shown}");
        }
    });
}

#[test]
fn a_password_that_came_in_clear_to_a_proxy_is_refused() {
    on_both(&settings("[clients]\ntrusted_proxies = [\"127.0.0.0/8\"]"), async |world, client| {
        let mark = world.upstream.mark();
        for (name, value) in [("X-Forwarded-Proto", "http"), ("Forwarded", "for=192.0.2.1;proto=http")] {
            let answer = client.send(login("alice", PASSWORD).field(name, value)).await;
            assert_refused_with(&answer, 403, EXPOSED);
        }
        world.assert_refused(client, mark).await;
        token_of(&client.send(login("alice", PASSWORD).field("X-Forwarded-Proto", "https")).await);
        token_of(&client.send(login("alice", PASSWORD)).await);
    });
}

#[test]
fn what_a_stranger_says_of_https_is_not_believed() {
    on_both(&settings("[clients]\ntrusted_proxies = [\"127.0.0.9\"]"), async |_, client| {
        let request = || login("alice", PASSWORD).field("X-Forwarded-Proto", "http");
        token_of(&client.send(request()).await);
        let answer = client.at([127, 0, 0, 9].into()).send(request()).await;
        assert_refused_with(&answer, 403, EXPOSED);
    });
}

#[test]
fn past_per_user_the_least_recently_used_token_is_revoked() {
    on_both(&settings("[tokens]\nper_user = 3"), async |world, client| {
        let works = async |token: &str| client.send(Request::get("/x").token(token)).await.status == 200;
        let [first, second, third] = [obtain(client).await, obtain(client).await, obtain(client).await];
        // One that a command made is not counted.
        assert!(works(&world.token).await);
        assert!(works(&second).await && works(&first).await);
        let fourth = obtain(client).await;
        assert!(!works(&third).await, "never used");
        assert!(works(&first).await && works(&second).await && works(&fourth).await);
        assert!(works(&first).await);
        let fifth = obtain(client).await;
        assert!(!works(&second).await, "used before the others");
        for token in [&first, &fourth, &fifth, &world.token] {
            assert!(works(token).await);
        }
    });
}

#[test]
fn logins_at_once_leave_no_more_than_per_user() {
    on_both(&settings("[tokens]\nper_user = 3"), async |world, client| {
        let clients: Vec<_> = (0..10).map(|_| client.fresh()).collect();
        let tokens = futures_util::future::join_all(clients.iter().map(obtain)).await;
        let mut live = 0;
        for token in &tokens {
            live += usize::from(client.send(Request::get("/x").token(token)).await.status == 200);
        }
        assert_eq!(live, 3);
        let listed = world.gateway.running().credentials().list_tokens(Some("alice")).await.unwrap();
        assert_eq!(listed.len(), 4, "and the command's");
    });
}

#[test]
fn last_use_of_a_token_is_written() {
    on_both(&settings(""), async |world, client| {
        let credentials = world.gateway.running().credentials();
        let last_used = async || {
            credentials.write_uses().await.unwrap();
            credentials.list_tokens(None).await.unwrap()[0].last_used
        };
        assert_eq!(last_used().await, None);
        client.send(Request::get("/x").token("0000000000000000000000000000000000000000")).await;
        assert_eq!(last_used().await, None);
        client.send(world.get("/x")).await;
        assert!(last_used().await.is_some());
    });
}
