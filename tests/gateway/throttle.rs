//! Throttles: DRF's rates, counted once for the process, told in DRF's words (contract, section 9).

use crate::harness::client::{Answer, Client, Protocol, Request};
use crate::harness::gateway::manual_clock;
use crate::harness::traces::Traces;
use crate::harness::world::{ROUTES, Settings, World, assert_own, on_both};
use doorward::app::Options;
use doorward::trace::{Reason, ThrottleState};
use futures_util::future::join_all;
use std::time::Duration;

const OBTAIN: &str =
    "[routes.obtain]\npath = \"/obtain\"\nhandler = \"obtain-token\"\nthrottles = [\"login\"]\n";
const PASSWORD: &str = "correct horse battery staple";

/// Trusts the test's own address to say who the client is.
const PROXIED: &str = "[clients]\ntrusted_proxies = [\"127.0.0.1\"]\n";

/// The ordinary routes and further sections.
fn settings(sections: &str) -> Settings {
    Settings::sections(&format!("{ROUTES}\n{sections}\n"))
}

/// A route to the upstream with these throttles.
fn route(name: &str, throttles: &str, more: &str) -> String {
    format!("[routes.{name}]\npath = \"/{name}\"\nupstream = \"legacy\"\nthrottles = {throttles}\n{more}\n")
}

fn throttle(name: &str, rate: &str, by: &str) -> String {
    format!("[throttles.{name}]\nrate = \"{rate}\"\nby = \"{by}\"\n")
}

fn json(body: &str) -> Request {
    Request::post("/obtain", body).field("Content-Type", "application/json")
}

#[track_caller]
fn assert_throttled(answer: &Answer, seconds: u64) {
    assert_own(answer, 429);
    assert_eq!(answer.one("retry-after"), Some(seconds.to_string()), "{answer:?}");
    let unit = if seconds == 1 { "second" } else { "seconds" };
    let text = format!("{{\"detail\":\"Request was throttled. Expected available in {seconds} {unit}.\"}}");
    assert_eq!(answer.text(), text);
    assert_eq!(answer.one("www-authenticate"), None);
}

/// Statuses of requests that are sent one after the other.
async fn statuses(client: &Client, requests: impl IntoIterator<Item = Request>) -> Vec<u16> {
    let mut statuses = Vec::new();
    for request in requests {
        statuses.push(client.send(request).await.status);
    }
    statuses
}

#[test]
fn exactly_the_rate_passes_whatever_the_number_of_cores() {
    let sections = throttle("three", "3/hour", "client") + &route("limited", "[\"three\"]", "");
    let settings = Settings { workers: 2, ..settings(&sections) };
    on_both(&settings, async |world, client| {
        let mark = world.upstream.mark();
        // Connections are spread over the cores by the system.
        let clients: Vec<_> = (0..16).map(|_| client.fresh()).collect();
        let requests = clients.iter().flat_map(|client| (0..3).map(|_| client.send(world.get("/limited"))));
        let answers = join_all(requests).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 3);
        for refused in answers.iter().filter(|answer| answer.status != 200) {
            let wait = refused.one("retry-after").unwrap().parse().unwrap();
            assert!((3590..=3600).contains(&wait), "{wait}");
            assert_throttled(refused, wait);
        }
        assert_eq!(world.upstream.since(mark).0.len(), 3, "nothing else was forwarded");
    });
}

#[test]
fn the_wait_is_told_in_the_words_of_django_rest_framework() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (clock, options) = manual_clock();
        let sections = throttle("two", "2/min", "client")
            + &throttle("none", "0/day", "client")
            + &throttle("many", "2000/min", "client")
            + &route("limited", "[\"two\"]", "")
            + &route("closed", "[\"none\"]", "")
            + &route("busy", "[\"many\"]", "");
        let settings = Settings { options, ..settings(&sections) };
        World::start(&settings).run(protocol, async |world, client| {
            let send = async || client.send(world.get("/limited")).await;
            assert_eq!(send().await.status, 200);
            clock.advance(Duration::from_secs(10));
            assert_eq!(send().await.status, 200);
            clock.advance(Duration::from_secs(10));
            let mark = world.upstream.mark();
            assert_throttled(&send().await, 40);
            world.assert_refused(client, mark).await;
            clock.advance(Duration::from_millis(38_500));
            assert_throttled(&send().await, 2);
            clock.advance(Duration::from_millis(1_499));
            assert_throttled(&send().await, 1);
            clock.advance(Duration::from_millis(1));
            assert_eq!(send().await.status, 200, "the first has the age of the period and has left");
            assert_throttled(&send().await, 10);
            assert_throttled(&client.send(world.get("/closed")).await, 86_400);
            for _ in 0..2000 {
                assert_eq!(client.send(world.get("/busy")).await.status, 200);
            }
            // Of a larger rate one is free again after its share of the period, 30 ms.
            assert_throttled(&client.send(world.get("/busy")).await, 1);
            clock.advance(Duration::from_millis(30));
            assert_eq!(statuses(client, [world.get("/busy"), world.get("/busy")]).await, [200, 429]);
        });
    }
}

#[test]
fn who_is_not_authenticated_or_not_permitted_is_not_counted() {
    let sections = throttle("two", "2/hour", "client")
        + &route("limited", "[\"two\"]", "")
        + &route("staff", "[\"two\"]", "permission = \"staff\"");
    on_both(&settings(&sections), async |world, client| {
        for _ in 0..3 {
            let refused = [
                Request::get("/limited"),
                Request::get("/limited").token("unknown"),
                Request::get("/limited").token(""),
                world.get("/staff"),
                Request::new("TRACE", "/limited").token(&world.token),
            ];
            assert_eq!(statuses(client, refused).await, [401, 401, 401, 403, 405]);
        }
        let good = || world.get("/limited");
        assert_eq!(
            statuses(client, [good(), good(), good(), world.get("/staff")]).await,
            [200, 200, 429, 403]
        );
    });
}

#[test]
fn other_methods_and_bad_bodies_and_successes_are_counted() {
    let sections = throttle("login", "4/hour", "client") + OBTAIN;
    on_both(&settings(&sections), async |_, client| {
        let login = serde_json::json!({ "username": "alice", "password": PASSWORD }).to_string();
        let requests = [Request::get("/obtain"), json("{"), json("{}"), json(&login), json(&login)];
        assert_eq!(statuses(client, requests).await, [405, 400, 400, 200, 429]);
        let refused = client.send(Request::get("/obtain")).await;
        assert_eq!(refused.status, 429, "before the method is looked at: {refused:?}");
    });
}

#[test]
fn all_throttles_are_asked_and_the_largest_wait_is_told() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (clock, options) = manual_clock();
        let sections = throttle("narrow", "1/min", "client")
            + &throttle("wide", "3/hour", "client")
            + &route("both", "[\"narrow\", \"wide\"]", "")
            + &route("wide", "[\"wide\"]", "");
        let settings = Settings { options, ..settings(&sections) };
        World::start(&settings).run(protocol, async |world, client| {
            assert_eq!(client.send(world.get("/both")).await.status, 200);
            clock.advance(Duration::from_secs(10));
            assert_throttled(&client.send(world.get("/both")).await, 50);
            // What one refused, the other had recorded; and the other's counters are those of its name.
            assert_eq!(client.send(world.get("/wide")).await.status, 200);
            assert_throttled(&client.send(world.get("/wide")).await, 3590);
            assert_throttled(&client.send(world.get("/both")).await, 3590);
            clock.advance(Duration::from_mins(1));
            assert_throttled(&client.send(world.get("/both")).await, 3530);
            // Now the narrow one had recorded what the wide one refused.
            clock.advance(Duration::from_secs(3530 - 1));
            assert_eq!(client.send(world.get("/both")).await.status, 429);
            clock.advance(Duration::from_secs(1));
            assert_throttled(&client.send(world.get("/both")).await, 59);
        });
    }
}

#[test]
fn each_key_counts_what_it_says() {
    let mut sections = String::new();
    for by in ["client", "user", "token", "route", "anonymous"] {
        sections += &throttle(by, "2/hour", by);
        sections += &route(by, &format!("[\"{by}\"]"), "");
        sections += &route(&format!("{by}-open"), &format!("[\"{by}\"]"), "permission = \"anyone\"");
    }
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::start(&settings(&format!("{PROXIED}\n{sections}")));
        world.gateway.user("bob", PASSWORD);
        let (second, bob) = (world.gateway.token("alice"), world.gateway.token("bob"));
        world.run(protocol, async |world, client| {
            let get = |path: &str, token: &str, from: &str| {
                let request = Request::get(path).field("X-Forwarded-For", from);
                if token.is_empty() { request } else { request.token(token) }
            };
            let (alice, home) = (world.token.as_str(), "192.0.2.1");
            let (other, six, same_six) = ("192.0.2.2", "2001:db8::1", "2001:db8::2");
            // Each path twice with alice's token from home, then with others.
            for (path, then) in [
                ("/client", [429, 429, 200]),
                ("/user", [429, 200, 429]),
                ("/token", [200, 200, 429]),
                ("/route", [429, 429, 429]),
                ("/anonymous", [200, 200, 200]),
                ("/client-open", [200, 200, 200]),
            ] {
                let requests = [(alice, home), (alice, home), (&second, home), (&bob, home), (alice, other)];
                let requests = requests.map(|(token, from)| get(path, token, from));
                let expected: Vec<u16> = [200, 200].into_iter().chain(then).collect();
                assert_eq!(statuses(client, requests).await, expected, "{path}");
            }
            // Without credentials it is the address, whatever the key; of IPv6 the /64. The counters are those of
            // the paths above; only `client` was used up for one address.
            for (path, from_home) in [
                ("/client-open", [429, 429]),
                ("/user-open", [200, 200]),
                ("/token-open", [200, 200]),
                ("/anonymous-open", [200, 200]),
            ] {
                let requests = [home, home, home, six, same_six, six].map(|from| get(path, "", from));
                let expected: Vec<u16> = from_home.into_iter().chain([429, 200, 200, 429]).collect();
                assert_eq!(statuses(client, requests).await, expected, "{path}");
            }
            // A throttle by route counts each of its routes alone.
            let requests = [home, other, six].map(|from| get("/route-open", "", from));
            assert_eq!(statuses(client, requests).await, [200, 200, 429]);
            // DRF's AnonRateThrottle: credentials stay free when the address has none left.
            let requests = [alice, &bob].map(|token| get("/anonymous-open", token, home));
            assert_eq!(statuses(client, requests).await, [200, 200]);
        });
    }
}

#[test]
fn a_client_cannot_choose_its_address() {
    let sections =
        throttle("two", "2/hour", "client") + &route("limited", "[\"two\"]", "permission = \"anyone\"");
    on_both(&settings(&sections), async |_, client| {
        let get = |number: u8| Request::get("/limited").field("X-Forwarded-For", format!("192.0.2.{number}"));
        assert_eq!(statuses(client, (0..4).map(get)).await, [200, 200, 429, 429]);
    });
}

#[test]
fn the_trace_says_which_throttle_and_how_long() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (clock, options) = manual_clock();
        let traces = Traces::new();
        let options = Options { observer: traces.options().observer, ..options };
        let sections = throttle("wide", "9/min", "client")
            + &throttle("narrow", "1/min", "client")
            + &route("limited", "[\"wide\", \"narrow\"]", "");
        let settings = Settings { options, ..settings(&sections) };
        World::start(&settings).run(protocol, async |world, client| {
            assert_eq!(client.send(world.get("/limited/one")).await.status, 200);
            let told = traces.of("/limited/one").await.trace;
            assert_eq!((told.throttle, told.throttle_wait_ms), (ThrottleState::Admitted, 0));
            clock.advance(Duration::from_millis(500));
            assert_throttled(&client.send(world.get("/limited/two")).await, 60);
            let told = traces.of("/limited/two").await.trace;
            assert_eq!((told.throttle, told.throttle_wait_ms), (ThrottleState::Throttled(1), 59_500));
            assert_eq!(told.reason, Reason::Throttled);
            assert_eq!(told.upstream_attempts, 0);
        });
    }
}
