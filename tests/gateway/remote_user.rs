//! A name that a server in front vouches for: believed from the socket's peer alone, and from listed ones.

use crate::harness::client::{Client, Request};
use crate::harness::traces::Traces;
use crate::harness::world::{Settings, World, assert_own, on_both};
use doorward::trace::{AnsweredBy, SchemeOutcome};
use std::net::{IpAddr, Ipv4Addr};

/// A listed peer; requests come from 127.0.0.1 otherwise.
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const NOT_PROVIDED: &str = "Authentication credentials were not provided.";

fn settings(scheme: &str, sections: &str) -> Settings {
    Settings::sections(&format!(
        r#"
[authentication.schemes.front]
kind = "remote-user"
peers = ["127.0.0.2"]
{scheme}

[identity]
auth_type = "X-Auth-Kind"

[routes.everything]
path = "/"
upstream = "legacy"
schemes = ["front"]

[routes.public]
path = "/public"
upstream = "legacy"
schemes = ["front", "token"]
permission = "anyone"

[routes.canary]
path = "/canary"
upstream = "legacy"
schemes = ["token"]

{sections}
"#
    ))
}

fn named(target: &str, name: &str) -> Request {
    Request::get(target).field("Remote-User", name)
}

async fn assert_nobody(client: &Client, request: Request) {
    let answer = client.send(request).await;
    assert_own(&answer, 403);
    assert_eq!(answer.detail(), NOT_PROVIDED);
    assert_eq!(answer.one("www-authenticate"), None);
}

#[test]
fn a_listed_peer_is_believed() {
    let traces = Traces::new();
    on_both(&Settings { options: traces.options(), ..settings("", "") }, async |world, client| {
        let peer = client.at(PEER);
        for _ in 0..3 {
            assert_eq!(peer.send(named("/x", "alice")).await.status, 200);
            let came = world.upstream.last();
            assert_eq!(came.one("remote-user").as_deref(), Some("alice"));
            assert_eq!(came.one("x-auth-kind").as_deref(), Some("RemoteUser"));
        }
        let by = |by| traces.all().iter().any(|told| told.trace.answered_by == by);
        assert!(by(AnsweredBy::Store) && by(AnsweredBy::Local));
        // Whom it does not name is nobody.
        assert_nobody(&peer, Request::get("/x")).await;
        assert_nobody(&peer, named("/x", "")).await;
    });
}

#[test]
fn nobody_else_is_and_the_name_reaches_nobody() {
    let proxies = "[clients]\ntrusted_proxies = [\"127.0.0.1\"]\n";
    for sections in ["", proxies] {
        on_both(&settings("", sections), async |world, client| {
            // It is cached, and not for others.
            assert_eq!(client.at(PEER).send(named("/x", "alice")).await.status, 200);
            let mark = world.upstream.mark();
            assert_nobody(client, named("/x", "alice")).await;
            // What a header says of the client's address is not the socket's peer.
            for (name, value) in [
                ("X-Forwarded-For", "127.0.0.2"),
                ("Forwarded", "for=127.0.0.2;proto=https"),
                ("X-Real-IP", "127.0.0.2"),
            ] {
                assert_nobody(client, named("/x", "alice").field(name, value)).await;
            }
            assert_nobody(&client.at(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3))), named("/x", "alice")).await;
            world.assert_refused(client, mark).await;
            for spelling in ["Remote-User", "REMOTE_USER", "Remote.User", "X-Remote-User"] {
                assert_eq!(client.send(Request::get("/public").field(spelling, "alice")).await.status, 200);
                let came = world.upstream.last();
                assert!(!came.fields.iter().any(|(_, value)| value == b"alice"), "{:?}", came.fields);
            }
            let request = named("/public", "mallory").token(&world.token);
            assert_eq!(client.send(request).await.status, 200);
            assert_eq!(world.upstream.last().one("remote-user").as_deref(), Some("alice"));
        });
    }
}

#[test]
fn an_unknown_user_is_nobody_by_default() {
    on_both(&settings("", ""), async |world, client| {
        let peer = client.at(PEER);
        let mark = world.upstream.mark();
        for name in ["nobody", "Alice", "alice, bob", "al%69ce", " ", "caf\u{e9}"] {
            assert_nobody(&peer, named("/x", name)).await;
        }
        // Two names are one that nobody has.
        assert_nobody(&peer, named("/x", "alice").field("Remote-User", "bob")).await;
        world.assert_refused(client, mark).await;
        let users = world.gateway.running().credentials().list_users().await.unwrap();
        assert_eq!(users.len(), 1);
    });
}

#[test]
fn an_unknown_user_is_made_where_that_is_allowed() {
    let traces = Traces::new();
    let settings = Settings { options: traces.options(), ..settings("create_users = true", "") };
    on_both(&settings, async |world, client| {
        let peer = client.at(PEER);
        let names = async || -> Vec<String> {
            let users = world.gateway.running().credentials().list_users().await.unwrap();
            users.into_iter().map(|account| account.user.username.to_string()).collect()
        };
        // Nobody else makes one.
        assert_nobody(client, named("/x", "mallory")).await;
        // A name that no user can have makes none.
        for name in ["x".repeat(151), "a\tb".to_owned()] {
            assert_nobody(&peer, named("/x", &name)).await;
        }
        assert_eq!(names().await, ["alice"]);
        let clients: Vec<_> = (0..5).map(|_| peer.at(PEER)).collect();
        let all = clients.iter().map(|client| client.send(named("/x", "zoë")));
        for answer in futures_util::future::join_all(all).await {
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        assert_eq!(world.upstream.last().one("remote-user").as_deref(), Some("zoë"));
        assert_eq!(names().await, ["alice", "zoë"]);
        let credentials = world.gateway.running().credentials();
        for password in ["!", "x"] {
            let found = credentials.login("zoë", doorward::secret::Secret::new(password)).await.unwrap();
            assert!(found.is_none(), "nobody can log in with {password:?}");
        }
        assert!(traces.all().iter().any(|told| told.trace.schemes[0] == SchemeOutcome::Verified));
    });
}

#[test]
fn an_inactive_user_is_nobody() {
    on_both(&settings("create_users = true", ""), async |world, client| {
        let peer = client.at(PEER);
        assert_eq!(peer.send(named("/x", "alice")).await.status, 200);
        world.gateway.running().credentials().set_active("alice", false).await.unwrap();
        assert_nobody(&peer, named("/x", "alice")).await;
    });
}

#[test]
fn a_field_of_another_name_is_as_guarded() {
    on_both(&settings("header = \"Acme-Person\"", ""), async |world, client| {
        let of = |target: &str, spelling: &str| Request::get(target).field(spelling, "alice");
        assert_eq!(client.at(PEER).send(of("/x", "Acme-Person")).await.status, 200);
        let came = world.upstream.last();
        assert_eq!((came.one("remote-user").as_deref(), came.one("acme-person")), (Some("alice"), None));
        assert_nobody(client, of("/x", "Acme-Person")).await;
        assert_nobody(&client.at(PEER), of("/x", "Remote-User")).await;
        for spelling in ["Acme-Person", "ACME_PERSON", "acme.person"] {
            for client in [client, &client.at(PEER)] {
                assert_eq!(client.send(of("/public", spelling)).await.status, 200);
                let came = world.upstream.last();
                assert!(!came.fields.iter().any(|(name, _)| name.to_ascii_lowercase().starts_with("acme")));
            }
        }
    });
}

#[test]
fn a_bad_name_does_not_stop_the_chain() {
    on_both(&settings("", ""), async |world, client| {
        let request = named("/public", "nobody").token(&world.token);
        assert_eq!(client.at(PEER).send(request).await.status, 200);
        assert_eq!(world.upstream.last().one("remote-user").as_deref(), Some("alice"));
    });
}

#[test]
fn a_world_stands_behind_a_proxy_that_says_who_the_client_is() {
    // The peer is both: it names the user, and the address that is told the upstream.
    let settings = settings("", "[clients]\ntrusted_proxies = [\"127.0.0.2\"]\n");
    on_both(&settings, async |world: &World, client| {
        let request = named("/x", "alice").field("X-Forwarded-For", "192.0.2.7");
        assert_eq!(client.at(PEER).send(request).await.status, 200);
        assert_eq!(world.upstream.last().one("x-forwarded-for").as_deref(), Some("192.0.2.7"));
    });
}
