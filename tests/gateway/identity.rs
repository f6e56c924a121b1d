//! Who the upstream believes the user is: nobody but the gateway may say so.
//!
//! Lax servers fold field names in more ways than RFC 9110 knows (`_`, `.`, `~` to `-`, any case), so every such
//! spelling is a forgery (RFC 3875, section 4.1.18; CVE-2025-64484).

use crate::harness::client::{Payload, Protocol, Request};
use crate::harness::script::{Step, answer, respond};
use crate::harness::upstream::Recorded;
use crate::harness::world::{ROUTES, Settings, World, assert_own, on_both, on_http1};

/// All identity fields on.
fn settings() -> Settings {
    let identity = "[identity]\nuser = \"Remote-User\"\ngroups = \"Remote-Groups\"\nemail = \"Remote-Email\"\n\
                    auth_type = \"Remote-Auth-Type\"\n";
    Settings::sections(&format!("{ROUTES}\n{identity}"))
}

/// As the laxest server folds it.
fn folded(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '.', '~'], "-")
}

/// All fields that the laxest server takes for this one.
fn lenient(request: &Recorded, name: &str) -> Vec<String> {
    let fields = request.fields.iter().filter(|(candidate, _)| folded(candidate) == name);
    fields.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
}

/// The upstream takes the request for alice's, however it reads it.
fn assert_alice(request: &Recorded) {
    assert_eq!(lenient(request, "remote-user"), ["alice"]);
    assert_eq!(request.one("remote-user").as_deref(), Some("alice"));
    assert_eq!(lenient(request, "remote-auth-type"), ["Token"]);
    assert_eq!(lenient(request, "remote-groups"), Vec::<String>::new());
    assert_eq!(lenient(request, "remote-email"), Vec::<String>::new());
    assert_nothing_forged(request);
}

/// The upstream takes the request for nobody's.
fn assert_nobody(request: &Recorded) {
    for name in ["remote-user", "remote-auth-type", "remote-groups", "remote-email"] {
        assert_eq!(lenient(request, name), Vec::<String>::new(), "{name}");
    }
    assert_nothing_forged(request);
}

/// The value that all forged fields have is nowhere.
fn assert_nothing_forged(request: &Recorded) {
    for (name, value) in request.fields.iter().chain(&request.trailers) {
        assert!(
            !String::from_utf8_lossy(value).contains("forged"),
            "{name} came through: {:?}",
            request.fields
        );
    }
}

const IDENTITY: [&str; 4] = ["Remote-User", "Remote-Groups", "Remote-Email", "Remote-Auth-Type"];

/// Spellings that some server takes for this name.
fn spellings(name: &str) -> Vec<String> {
    let mut spellings = vec![name.to_owned(), name.to_ascii_lowercase(), name.to_ascii_uppercase()];
    for separator in ["_", ".", "~"] {
        spellings.push(name.replace('-', separator));
        spellings.push(name.to_ascii_uppercase().replace('-', separator));
        spellings.push(name.to_ascii_lowercase().replace('-', separator));
    }
    spellings
}

#[test]
fn no_spelling_of_an_identity_field_passes() {
    on_both(&settings(), async |world, client| {
        for name in IDENTITY {
            for spelling in spellings(name) {
                let request = world.get("/x").field(&spelling, "forged");
                assert_eq!(client.send(request).await.status, 200, "{spelling}");
                assert_alice(&world.upstream.last());
                let request = Request::get("/public").field(&spelling, "forged");
                assert_eq!(client.send(request).await.status, 200, "{spelling}");
                assert_nobody(&world.upstream.last());
            }
        }
    });
}

#[test]
fn all_copies_of_an_identity_field_go() {
    on_both(&settings(), async |world, client| {
        for (request, check) in
            [(world.get("/x"), assert_alice as fn(&Recorded)), (Request::get("/public/x"), assert_nobody)]
        {
            let names = IDENTITY.iter().flat_map(|name| spellings(name));
            let request =
                names.fold(request, |request, name| request.field(&name, "forged").field(&name, "forged"));
            assert_eq!(client.send(request).await.status, 200);
            check(&world.upstream.last());
        }
    });
}

#[test]
fn no_random_spelling_passes() {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).unwrap();
    let seed = u64::from_le_bytes(seed) | 1;
    on_both(&settings(), async |world, client| {
        let mut state = seed;
        let mut random = |below: u64| {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for _ in 0..20 {
            let mut request = world.get("/x");
            for _ in 0..20 {
                let name = IDENTITY[usize::try_from(random(4)).unwrap()];
                let spelt: String = name
                    .chars()
                    .map(|letter| match (letter, random(4)) {
                        ('-', 0) => '_',
                        ('-', 1) => '.',
                        ('-', 2) => '~',
                        (letter, 3) => letter.to_ascii_uppercase(),
                        (letter, _) => letter.to_ascii_lowercase(),
                    })
                    .collect();
                request = request.field(&spelt, "forged");
            }
            assert_eq!(client.send(request).await.status, 200, "seed {seed}");
            let came = world.upstream.last();
            let users = lenient(&came, "remote-user");
            assert!(users == ["alice"], "seed {seed}: {users:?}");
            assert_alice(&came);
        }
    });
}

#[test]
fn no_identity_passes_in_trailers() {
    on_both(&settings(), async |world, client| {
        let body = Payload::Unsized(b"body".to_vec());
        for (request, check) in [
            (Request::new("POST", "/x").token(&world.token), assert_alice as fn(&Recorded)),
            (Request::new("POST", "/public"), assert_nobody),
        ] {
            let request = request
                .payload(body.clone())
                .trailer("Remote-User", "forged")
                .trailer("Remote_User", "forged");
            assert_eq!(client.send(request).await.status, 200);
            let came = world.upstream.last();
            assert_eq!(came.body, b"body");
            assert!(came.trailers.is_empty());
            check(&came);
        }
    });
}

#[test]
fn an_identity_named_in_connection_still_arrives() {
    on_http1(&settings(), async |world, client| {
        for nominated in
            ["Remote-User", "remote-user, close", "Remote-Auth-Type", "X-Request-Id", "Authorization"]
        {
            let client = client.fresh();
            let request = world.get("/x").field("Connection", nominated).field("Remote-User", "forged");
            let mark = world.upstream.mark();
            let answer = client.send(request).await;
            if answer.status == 200 {
                let came = world.upstream.last();
                assert_alice(&came);
                assert!(came.one("x-request-id").is_some(), "{nominated}");
            } else {
                // Naming an end-to-end field may be refused (RFC 9110, section 7.6.1).
                assert!([400, 401].contains(&answer.status), "{nominated} gave {answer:?}");
                world.assert_refused(&client, mark).await;
            }
        }
    });
}

#[test]
fn an_identity_field_without_credentials_is_no_identity() {
    on_both(&settings(), async |world, client| {
        for name in IDENTITY {
            let mark = world.upstream.mark();
            let answer = client.send(Request::get("/x").field(name, "alice")).await;
            assert_own(&answer, 401);
            assert_eq!(answer.one("www-authenticate").as_deref(), Some("Token"));
            world.assert_refused(client, mark).await;
        }
    });
}

#[test]
fn a_public_route_tells_who_the_user_is_if_there_is_one() {
    on_both(&settings(), async |world, client| {
        assert_eq!(client.send(world.get("/public")).await.status, 200);
        assert_alice(&world.upstream.last());
        assert_eq!(client.send(Request::get("/public")).await.status, 200);
        assert_nobody(&world.upstream.last());
        // DRF: credentials that are wrong are an error even where none are needed.
        let mark = world.upstream.mark();
        assert_own(&client.send(Request::get("/public").token("wrong")).await, 401);
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn groups_and_email_are_the_users_own() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::start(&settings());
        world.gateway.member("mia", &["staff", "a,b"], "mia@example.test");
        let token = world.gateway.token("mia");
        world.run(protocol, async |world, client| {
            let request = Request::get("/x")
                .token(&token)
                .field("Remote-Groups", "forged")
                .field("Remote_Email", "forged");
            assert_eq!(client.send(request).await.status, 200);
            let came = world.upstream.last();
            assert_nothing_forged(&came);
            assert_eq!(lenient(&came, "remote-user"), ["mia"]);
            // Encoded before they are joined, so that no group's name is two groups.
            assert_eq!(lenient(&came, "remote-groups"), ["a%2Cb,staff"]);
            assert_eq!(lenient(&came, "remote-email"), ["mia@example.test"]);
            assert_eq!(client.send(world.get("/x")).await.status, 200);
            assert_alice(&world.upstream.last());
        });
    }
}

#[test]
fn what_a_client_says_of_itself_is_not_believed() {
    on_both(&settings(), async |world, client| {
        let names = [
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "X-Forwarded-Proto",
            "X-Forwarded-Port",
            "X-Forwarded-Server",
            "X-Forwarded-Prefix",
            "X-Forwarded-User",
            "X-Forwarded-Anything",
            "Forwarded",
            "X-Real-IP",
            "X-Original-URL",
            "X-Rewrite-URL",
            "X-HTTP-Method-Override",
            "X-HTTP-Method",
            "X-Method-Override",
            "Proxy",
        ];
        for name in names {
            for name in spellings(name) {
                for request in [world.get("/x"), Request::get("/public")] {
                    assert_eq!(client.send(request.field(&name, "forged")).await.status, 200);
                    assert_nothing_forged(&world.upstream.last());
                }
            }
        }
        let request =
            world.get("/x").field("X-Forwarded-For", "6.6.6.6").field("Forwarded", "for=6.6.6.6;proto=http");
        assert_eq!(client.send(request).await.status, 200);
        let came = world.upstream.last();
        let said = format!(
            "{:?}{:?}{:?}",
            came.all("x-forwarded-for"),
            came.all("forwarded"),
            came.all("x-real-ip")
        );
        assert!(!said.contains("6.6.6.6"), "{said}");
        assert!(came.one("x-forwarded-proto").is_none_or(|proto| proto == "https"));
    });
}

#[test]
fn credentials_are_not_forwarded() {
    on_both(&settings(), async |world, client| {
        let other_scheme = Request::get("/public").field("Authorization", "Basic YWxpY2U6cGFzc3dvcmQ=");
        for request in [world.get("/x"), world.get("/public"), other_scheme] {
            let request = request.field("Proxy-Authorization", "Basic YWxpY2U6cGFzc3dvcmQ=");
            assert_eq!(client.send(request).await.status, 200);
            let came = world.upstream.last();
            assert_eq!(lenient(&came, "authorization"), Vec::<String>::new());
            assert_eq!(lenient(&came, "proxy-authorization"), Vec::<String>::new());
            let raw = String::from_utf8_lossy(&world.upstream.log().connections[0].raw).into_owned();
            assert!(!raw.contains(&world.token) && !raw.contains("YWxpY2U6"));
        }
    });
}

#[test]
fn the_request_id_is_the_gateways() {
    on_both(&settings(), async |world, client| {
        let mut seen = Vec::new();
        for name in ["X-Request-Id", "x-request-id", "X_Request_Id"] {
            let answer = client.send(world.get("/x").field(name, "forged")).await;
            assert_eq!(answer.status, 200);
            let came = world.upstream.last();
            assert_nothing_forged(&came);
            let id = came.one("x-request-id").expect("X-Request-Id at the upstream");
            assert!(id.len() >= 16 && !seen.contains(&id), "{id:?} after {seen:?}");
            assert!(answer.one("x-request-id").is_none_or(|told| told == id));
            seen.push(id);
        }
        let refused = client.send(Request::get("/x").field("X-Request-Id", "forged")).await;
        assert_own(&refused, 401);
        assert!(!refused.one("x-request-id").unwrap().contains("forged"));
    });
}

#[test]
fn odd_names_are_encoded_so_that_they_cannot_be_mistaken() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::start(&settings());
        let names = [
            ("a,b;\"%", "a%2Cb%3B%22%25"),
            (" leading", "%20leading"),
            ("trailing ", "trailing%20"),
            ("inner space", "inner space"),
            ("user:colon", "user:colon"),
            ("mail+tag@example.test", "mail+tag@example.test"),
            ("zoë", "zoë"),
            ("муравей", "муравей"),
            ("山田太郎", "山田太郎"),
            ("%41lice", "%2541lice"),
        ];
        let tokens = names.map(|(name, _)| {
            world.gateway.user(name, "correct horse battery staple");
            world.gateway.token(name)
        });
        world.run(protocol, async |world, client| {
            for ((name, encoded), token) in names.iter().zip(&tokens) {
                assert_eq!(client.send(Request::get("/x").token(token)).await.status, 200, "{name:?}");
                let came = world.upstream.last();
                assert_eq!(lenient(&came, "remote-user"), [*encoded], "{name:?}");
            }
        });
    }
}

#[test]
fn users_on_shared_connections_are_never_mixed() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::start(&settings());
        world.gateway.user("bob", "correct horse battery staple");
        let bob = world.gateway.token("bob");
        // Each answer says whose request it answers.
        let whose: Step =
            Step::Answer(|request| answer("200 OK", &[], &lenient(request, "remote-user").join("+")));
        world.upstream.otherwise(vec![Step::ReadBody, whose]);
        world.run(protocol, async |world, client| {
            for number in 0..30 {
                let (name, token) = if number % 3 == 0 { ("bob", &bob) } else { ("alice", &world.token) };
                assert_eq!(client.send(Request::get("/x").token(token)).await.text(), name);
            }
            assert_eq!(client.send(Request::get("/public")).await.text(), "");
            assert_eq!(world.upstream.connections(), 1);
        });
    }
}

#[test]
fn a_token_is_compared_whole_and_exactly() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::start(&settings());
        let key = "An-opaque-key.that~is_not/hex+1=";
        world.gateway.import_token("alice", key);
        world.run(protocol, async |world, client| {
            assert_eq!(client.send(Request::get("/x").token(key)).await.status, 200);
            assert_alice(&world.upstream.last());
            let (shorter, longer) = (&key[..key.len() - 1], format!("{key}="));
            for near in [shorter, &longer, &key.to_ascii_lowercase(), &key[1..], "", "*", "%"] {
                let mark = world.upstream.mark();
                assert_own(&client.send(Request::get("/x").token(near)).await, 401);
                world.assert_refused(client, mark).await;
            }
        });
    }
}

#[test]
fn a_user_who_is_not_active_is_nobody() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::start(&settings());
        world.gateway.user("ivan", "correct horse battery staple");
        let token = world.gateway.token("ivan");
        world.gateway.deactivate("ivan");
        world.run(protocol, async |world, client| {
            for target in ["/x", "/public"] {
                let mark = world.upstream.mark();
                let answer = client.send(Request::get(target).token(&token)).await;
                assert_own(&answer, 401);
                assert_eq!(answer.detail(), "User inactive or deleted.");
                world.assert_refused(client, mark).await;
            }
        });
    }
}

#[test]
fn two_credentials_are_not_one() {
    on_both(&settings(), async |world, client| {
        let wrong = "Token 0000000000000000000000000000000000000000";
        let right = format!("Token {}", world.token);
        for (first, second) in [(wrong, right.as_str()), (&right, wrong), (&right, &right)] {
            let mark = world.upstream.mark();
            let request = Request::get("/x").field("Authorization", first).field("Authorization", second);
            let answer = client.send(request).await;
            assert!([400, 401].contains(&answer.status), "{answer:?}");
            assert_own(&answer, answer.status);
            world.assert_refused(client, mark).await;
        }
    });
}

#[test]
fn an_upstream_cannot_speak_for_the_gateway() {
    on_both(&settings(), async |world, client| {
        let fields = [("Remote-User", "root"), ("Remote-Groups", "staff"), ("X-Accel-Redirect", "/secret")];
        world.upstream.script("/internal", respond(answer("200 OK", &fields, "body")));
        // Neither field is among those that are expected: passing one fails the request.
        assert_eq!(client.send(world.get("/internal")).await.text(), "body");
    });
}
