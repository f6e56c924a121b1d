//! Each metric moves when its event happens, by the right amount, and its neighbours do not.
//!
//! Events are made over real sockets, and seen as whoever scrapes sees them. Of most metrics it is said which series
//! moved, all of them: one that should not have is a failed test, too.
#![expect(clippy::float_cmp, reason = "what is counted is whole, and told exactly")]

use crate::harness::PATIENCE;
use crate::harness::client::{Client, Protocol, Request, handshake, patiently, tls_config};
use crate::harness::gate::Gate;
use crate::harness::gateway::{TestGateway, manual_clock};
use crate::harness::program::{Program, make_alice};
use crate::harness::refusing::RefusingPort;
use crate::harness::scrape::{ADMIN, admin, ask, ask_socket, becomes, moved, scrape};
use crate::harness::script::Step;
use crate::harness::services::redis::Redis;
use crate::harness::upstream::TestUpstream;
use crate::harness::world::{ROUTES, Settings, World, on_both, on_http1};
use crate::trace::traced;
use doorward::app::Options;
use doorward::config::{Config, Source};
use doorward::trace::Reason;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use sqlx::ConnectOptions as _;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PASSWORD: &str = "correct horse battery staple";
const UNKNOWN: &str = "0000000000000000000000000000000000000000";

/// The routes of every other test, with further sections.
fn settings(sections: &str) -> Settings {
    Settings { listen: ADMIN, ..Settings::sections(&format!("{ROUTES}\n{sections}\n")) }
}

fn login(username: &str, password: &str) -> Request {
    let body = serde_json::json!({ "username": username, "password": password }).to_string();
    Request::post("/login", body).field("Content-Type", "application/json")
}

const LOGIN: &str = "[routes.login]\npath = \"/login\"\nhandler = \"obtain-token\"\n";

/// Waits until something is so; it must come to that.
#[expect(clippy::future_not_send, reason = "the runtimes of these tests have one thread, or wait here")]
async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(3 * PATIENCE, wait).await.is_ok(), "it never came to that: {what}");
}

// --- requests

#[test]
fn the_first_request_asks_the_store_and_the_second_does_not() {
    traced(&settings(""), async |world, client, _| {
        let passed = "outcome=\"passed\",route=\"everything\",status=\"2xx\"";
        for (path, outcome, level, asked) in
            [("/first", "verified", "store", 1.0), ("/second", "cached", "local", 0.0)]
        {
            let before = world.scrape().await;
            assert_eq!(client.send(world.get(path)).await.status, 200);
            world.moved(&before, "doorward_requests_total", &[(passed, 1.0)]).await;
            let after = world.scrape().await;
            let by = |metric: &str| after.moved_since(&before, metric);
            let one = |series: &str| BTreeMap::from([(series.to_owned(), 1.0)]);
            assert_eq!(
                by("doorward_authentications_total"),
                one(&format!("doorward_authentications_total{{outcome=\"{outcome}\",scheme=\"Token\"}}"))
            );
            assert_eq!(
                by("doorward_lookups_total"),
                one(&format!("doorward_lookups_total{{level=\"{level}\"}}"))
            );
            for (metric, labels) in [
                ("doorward_request_duration_seconds_count", "route=\"everything\""),
                ("doorward_upstream_requests_total", "outcome=\"2xx\",upstream=\"legacy\""),
                ("doorward_upstream_duration_seconds_count", "upstream=\"legacy\""),
            ] {
                assert_eq!(by(metric), one(&format!("{metric}{{{labels}}}")));
            }
            let store = "doorward_store_duration_seconds_count{operation=\"find-token\"}";
            assert_eq!(after.value(store) - before.samples.get(store).unwrap_or(&0.0), asked);
            assert!(by("doorward_refusals_total").is_empty() && by("doorward_store_errors_total").is_empty());
            let time = after.moved_since(&before, "doorward_request_duration_seconds_sum");
            assert!(time.values().all(|time| (0.0..60.0).contains(time)) && time.len() == 1, "{time:?}");
        }
    });
}

#[test]
fn the_bytes_of_bodies_are_counted() {
    on_both(&settings(""), async |world, client| {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n";
        world.upstream.script("/x", vec![Step::ReadBody, Step::Send(answer.into()), Step::Stream(30_000)]);
        let before = world.scrape().await;
        assert_eq!(client.send(world.post("/x", vec![b'x'; 100_000])).await.status, 200);
        let route = "route=\"everything\"";
        world.moved(&before, "doorward_request_body_bytes_total", &[(route, 100_000.0)]).await;
        world.moved(&before, "doorward_response_body_bytes_total", &[(route, 30_000.0)]).await;
    });
}

#[test]
fn refusals_are_counted_by_reason_and_what_no_route_was_found_for_by_no_name() {
    let routes = "[routes.here]\npath = \"/here\"\nupstream = \"legacy\"\n";
    let settings = Settings { listen: ADMIN, ..Settings::sections(routes) };
    on_both(&settings, async |world, client| {
        // All reasons are there from the start: an alert on a rise sees the first one.
        let before = world.scrape().await;
        assert_eq!(before.of("doorward_refusals_total").len(), Reason::ALL.len() - 1);
        let refused = "outcome=\"refused\",route=\"here\",status=\"4xx\"";
        let nowhere = "outcome=\"refused\",route=\"\",status=\"4xx\"";
        for (request, reason, labels, outcome) in [
            (Request::get("/here"), "authorize.not-authenticated", refused, Some("anonymous")),
            (Request::get("/here").token(""), "authenticate.malformed", refused, Some("malformed")),
            (world.get("/elsewhere"), "route.none", nowhere, None),
            (world.get("/here/%zz"), "accept.bad-target", nowhere, None),
        ] {
            let before = world.scrape().await;
            assert!((400..500).contains(&client.send(request).await.status));
            world.moved(&before, "doorward_requests_total", &[(labels, 1.0)]).await;
            world.moved(&before, "doorward_refusals_total", &[(&format!("reason=\"{reason}\""), 1.0)]).await;
            let asked = outcome.map(|outcome| (format!("outcome=\"{outcome}\",scheme=\"\""), 1.0));
            let asked: Vec<_> = asked.iter().map(|(labels, by)| (labels.as_str(), *by)).collect();
            world.moved(&before, "doorward_authentications_total", &asked).await;
            world.moved(&before, "doorward_upstream_requests_total", &[]).await;
            let route = if labels == nowhere { "route=\"\"" } else { "route=\"here\"" };
            world.moved(&before, "doorward_request_duration_seconds_count", &[(route, 1.0)]).await;
            let sent = world.scrape().await.moved_since(&before, "doorward_response_body_bytes_total");
            assert!(sent.keys().eq([&format!("doorward_response_body_bytes_total{{{route}}}")]), "{sent:?}");
        }
    });
}

#[test]
fn an_unknown_token_is_looked_up_once_and_then_known_to_be_unknown() {
    traced(&settings(""), async |world, client, _| {
        for level in ["store", "local-unknown"] {
            let before = world.scrape().await;
            assert_eq!(client.send(Request::get("/x").token(UNKNOWN)).await.status, 401);
            world.moved(&before, "doorward_lookups_total", &[(&format!("level=\"{level}\""), 1.0)]).await;
            let rejected = "outcome=\"rejected\",scheme=\"\"";
            world.moved(&before, "doorward_authentications_total", &[(rejected, 1.0)]).await;
            let reason = "reason=\"authenticate.rejected\"";
            world.moved(&before, "doorward_refusals_total", &[(reason, 1.0)]).await;
        }
    });
}

#[test]
fn forged_headers_are_counted_each() {
    on_both(&settings(""), async |world, client| {
        let before = world.scrape().await;
        let forged = world.get("/x").field("Remote-User", "root").field("Remote_User", "root");
        assert_eq!(client.send(forged.field("X-Forwarded-For", "192.0.2.1")).await.status, 200);
        world.moved(&before, "doorward_forged_headers_total", &[("", 3.0)]).await;
    });
}

#[test]
fn throttles_and_guards_are_counted_by_name_and_passwords_are_measured() {
    let sections = format!(
        "[throttles.few]\nrate = \"1/hour\"\n\n[authentication.guard]\naddress_and_user = \"2/hour\"\n\
         user_delay = \"off\"\n\n{LOGIN}\n\
         [routes.slow]\npath = \"/slow\"\nupstream = \"legacy\"\nthrottles = [\"few\"]\n"
    );
    on_both(&settings(&sections), async |world, client| {
        let before = world.scrape().await;
        for status in [200, 429] {
            assert_eq!(client.send(world.get("/slow")).await.status, status);
        }
        world.moved(&before, "doorward_throttled_total", &[("throttle=\"few\"", 1.0)]).await;
        let before = world.scrape().await;
        assert_eq!(client.send(login("alice", PASSWORD)).await.status, 200);
        for status in [400, 400, 429] {
            assert_eq!(client.send(login("mallory", "wrong")).await.status, status);
        }
        let guard = "throttle=\"guard.address_and_user\"";
        world.moved(&before, "doorward_throttled_total", &[(guard, 1.0)]).await;
        world
            .moved(
                &before,
                "doorward_refusals_total",
                &[("reason=\"endpoint.login-failed\"", 2.0), ("reason=\"throttle.guard\"", 1.0)],
            )
            .await;
        // For a name that nobody has, too; what the guard refused was never hashed.
        world.moved(&before, "doorward_password_duration_seconds_count", &[("", 3.0)]).await;
        world.moved(&before, "doorward_password_wait_seconds_count", &[("", 3.0)]).await;
        let after = world.scrape().await;
        for (operation, count) in [("find-user", 3.0), ("grant-token", 1.0)] {
            let series = format!("doorward_store_duration_seconds_count{{operation=\"{operation}\"}}");
            let before = before.samples.get(&series).unwrap_or(&0.0);
            assert!(after.value(&series) - before >= count, "{operation}");
        }
        assert_eq!(after.value("doorward_passwords_waiting"), 0.0);
        for table in ["throttles", "guards"] {
            let entries = after.value(&format!("doorward_table_entries{{table=\"{table}\"}}"));
            let bytes = after.value(&format!("doorward_table_bytes{{table=\"{table}\"}}"));
            let most = after.value(&format!("doorward_table_capacity_bytes{{table=\"{table}\"}}"));
            assert!(entries >= 1.0 && bytes > entries && bytes < most, "{table}: {entries} {bytes} {most}");
        }
    });
}

#[test]
fn passwords_that_wait_are_counted_while_they_do() {
    let sections = format!("[authentication]\nguard = \"off\"\n\n{LOGIN}");
    on_http1(&settings(&sections), async |world, _| {
        let client = world.client(Protocol::Http2);
        let logins = futures_util::future::join_all((0..40).map(|_| client.send(login("alice", "wrong"))));
        let watching = async {
            let mut most = 0.0_f64;
            while most < 2.0 {
                most = most.max(world.scrape().await.value("doorward_passwords_waiting"));
            }
        };
        let (answers, ()) = tokio::join!(logins, patiently("passwords that wait", watching));
        assert!(answers.iter().all(|answer| answer.status == 400));
        world.becomes("doorward_passwords_waiting", 0.0).await;
    });
}

// --- connections

#[test]
fn connections_and_handshakes_are_counted_by_what_they_came_to() {
    let settings = Settings { listen: "admin = \"127.0.0.1:0\"\nhttp = [\"127.0.0.1:0\"]", ..settings("") };
    on_http1(&settings, async |world, _| {
        let (open, accepted) = ("doorward_connections", "doorward_connections_accepted_total");
        let none_is_open = async || {
            let series = "doorward_connections{listener=\"https\"}";
            while world.scrape().await.samples.get(series).is_some_and(|open| *open > 0.0) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let before = world.scrape().await;
        for (protocol, label) in [(Protocol::Http1, "http/1.1"), (Protocol::Http2, "h2")] {
            // What came before this, and is closing, must not make up for what is opened.
            patiently("no connection", none_is_open()).await;
            let before = world.scrape().await;
            let client = world.client(protocol);
            for _ in 0..2 {
                assert_eq!(client.send(world.get("/x")).await.status, 200);
            }
            world.moved(&before, open, &[("listener=\"https\"", 1.0)]).await;
            world.moved(&before, accepted, &[("listener=\"https\"", 1.0)]).await;
            let labels = format!("kind=\"full\",protocol=\"{label}\",version=\"TLSv1_3\"");
            world.moved(&before, "doorward_tls_handshakes_total", &[(&labels, 1.0)]).await;
            world.moved(&before, "doorward_tls_handshake_duration_seconds_count", &[("", 1.0)]).await;
            drop(client);
            world.moved(&before, open, &[]).await;
        }
        let clear = world.in_clear();
        assert_eq!(clear.send(Request::get("/x").expect(&["location"])).await.status, 308);
        world.moved(&before, accepted, &[("listener=\"http\"", 1.0), ("listener=\"https\"", 2.0)]).await;
        // In clear nothing is shaken.
        world.moved(&before, "doorward_tls_handshake_duration_seconds_count", &[("", 2.0)]).await;
        drop(clear);
        world.moved(&before, open, &[]).await;
    });
}

#[test]
fn resumed_handshakes_and_older_versions_are_told_apart() {
    on_http1(&settings(""), async |world, _| {
        for (version, label) in [(&rustls::version::TLS12, "TLSv1_2"), (&rustls::version::TLS13, "TLSv1_3")] {
            let config = Arc::new(tls_config(&[version], &[]));
            for kind in ["full", "resumed"] {
                let before = world.scrape().await;
                let tcp = TcpStream::connect(world.gateway.address()).await.unwrap();
                let mut stream = handshake(&config, "localhost", tcp).await.unwrap();
                // The ticket comes with the answer.
                let request = b"GET /x HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n\r\n";
                stream.write_all(request).await.unwrap();
                patiently("an answer", stream.read_to_end(&mut Vec::new())).await.unwrap();
                let labels = format!("kind=\"{kind}\",protocol=\"http/1.1\",version=\"{label}\"");
                world.moved(&before, "doorward_tls_handshakes_total", &[(&labels, 1.0)]).await;
            }
        }
    });
}

#[test]
fn connections_that_come_to_nothing_are_counted_by_reason() {
    let limits = "[limits]\nunread_body_time = \"0s\"\nheader_time = \"1s\"\nhandshake_time = \"1s\"\nheader_bytes = \"4KiB\"\n\
                  connections_per_address = 3\n";
    on_http1(&settings(limits), async |world, client| {
        let tcp = || async { TcpStream::connect(world.gateway.address()).await.unwrap() };
        let refused = "doorward_connections_refused_total";
        let before = world.scrape().await;
        let mut raw = client.raw("\0\0\0\r\n\r\n").await;
        world.moved(&before, refused, &[("reason=\"connection.malformed\"", 1.0)]).await;
        raw.closed().await;
        let before = world.scrape().await;
        let mut raw = client.raw(format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000))).await;
        world.moved(&before, refused, &[("reason=\"connection.head-too-large\"", 1.0)]).await;
        raw.closed().await;
        let before = world.scrape().await;
        let mut raw = client.raw("GET / HTTP/1.1\r\n").await;
        world.moved(&before, refused, &[("reason=\"connection.too-slow\"", 1.0)]).await;
        raw.closed().await;
        let before = world.scrape().await;
        tcp().await.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        world.moved(&before, refused, &[("reason=\"connection.handshake\"", 1.0)]).await;
        let before = world.scrape().await;
        let silent = [tcp().await, tcp().await, tcp().await];
        let late = ("reason=\"connection.handshake-timeout\"", 3.0);
        world.becomes("doorward_connections{listener=\"https\"}", 3.0).await;
        drop(tcp().await);
        let many = ("reason=\"connection.too-many\"", 1.0);
        world.moved(&before, refused, &[late, many]).await;
        drop(silent);
        // None of them came to a request.
        assert_eq!(world.scrape().await.sum("doorward_refusals_total"), 0.0);
    });
}

#[test]
fn what_the_process_takes_and_cannot_take_is_told() {
    let upstream = TestUpstream::start();
    let directory = tempfile::tempdir().unwrap();
    let admin = free_address();
    let text = Settings { listen: "", ..settings("") }.config(upstream.url());
    let text = text.replacen("[listen]\n", &format!("[listen]\nadmin = \"{admin}\"\n"), 1);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        make_alice(&text, directory.path(), PASSWORD).await;
        let program = Program::start(directory.path()).await;
        until("it is ready", async || ask(admin, "GET", "/readyz").await.status == 200).await;
        let before = scrape(admin).await;
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(before.value(&format!("doorward_build_info{{version=\"{version}\"}}")), 1.0);
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let age = now - before.value("process_start_time_seconds");
        assert!((-1.0..120.0).contains(&age), "{age}");
        let resident = before.value("process_resident_memory_bytes");
        assert!((1e6..1e9).contains(&resident), "{resident}");
        assert!(before.value("process_cpu_seconds_total") > 0.0);
        let descriptors = || {
            let of = format!("/proc/{}/fd", program.id().as_raw_nonzero());
            std::fs::read_dir(of).unwrap().count()
        };
        // That of the listing itself, and that of the scrape's connection.
        let told = before.value("process_open_fds");
        let real = f64::from(u32::try_from(descriptors()).unwrap());
        assert!((real..=real + 3.0).contains(&told), "{told} {real}");
        assert_eq!(before.value("doorward_accept_failures_total"), 0.0);

        let old = getrlimit(Resource::Nofile);
        let limit = |most| {
            let limit = Rlimit { current: most, maximum: old.maximum };
            prlimit(Some(program.id()), Resource::Nofile, limit).unwrap();
        };
        // Those that are open stay open; there is no number left for another one.
        limit(Some(3));
        // The kernel takes it, the program cannot.
        let waiting = TcpStream::connect(program.address).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        limit(old.current);
        let after = scrape(admin).await;
        assert!(after.value("doorward_accept_failures_total") >= 1.0);
        assert!(after.value("process_cpu_seconds_total") >= before.value("process_cpu_seconds_total"));
        drop(waiting);
        program.stop().await;
    });
}

/// An address that is free now. For a program, which cannot tell which one it was given.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn lines_of_the_log_that_are_lost_are_counted() {
    let upstream = TestUpstream::start();
    let directory = tempfile::tempdir().unwrap();
    let (admin, address) = (free_address(), free_address());
    let text = settings("[limits]\ntarget_bytes = \"16KiB\"\n").config(upstream.url());
    let text = text.replace(ADMIN, &format!("admin = \"{admin}\""));
    let text = text.replace("https = [\"127.0.0.1:0\"]", &format!("https = [\"{address}\"]"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        make_alice(&text, directory.path(), PASSWORD).await;
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.arg("serve").current_dir(directory.path()).kill_on_drop(true);
        // Nobody reads it.
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        until("it is ready", async || TcpStream::connect(admin).await.is_ok()).await;
        until("it is ready", async || ask(admin, "GET", "/readyz").await.status == 200).await;
        assert_eq!(scrape(admin).await.value("doorward_log_lines_dropped_total"), 0.0);
        let path = format!("/{}", "x".repeat(12_000));
        let client = Client::new(Protocol::Http1, address);
        let mut sent = 0;
        let dropped = loop {
            let all = (0..64).map(|_| client.send(Request::get(&path)));
            let answers = futures_util::future::join_all(all).await;
            assert!(answers.iter().all(|answer| answer.status == 401), "a log that stalls stalls nobody");
            sent += answers.len();
            let dropped = scrape(admin).await.value("doorward_log_lines_dropped_total");
            if dropped > 0.0 {
                break dropped;
            }
            assert!(sent < 50_000, "nothing was lost");
        };
        assert!(dropped <= f64::from(u32::try_from(sent).unwrap()), "{dropped} of {sent}");
        child.kill().await.unwrap();
    });
}

// --- upstreams

#[test]
fn the_connections_of_a_server_are_counted_as_they_are_used() {
    let settings = Settings { upstream: "connections = 1\nqueue_time = \"9s\"", ..settings("") };
    on_both(&settings, async |world, client| {
        let labels = format!("server=\"{}\",upstream=\"legacy\"", world.upstream.url());
        let of = |metric: &str| format!("{metric}{{{labels}}}");
        let gate = Gate::closed();
        world.upstream.script("/held", vec![Step::ReadBody, Step::Hold(gate.clone()), Step::Ok]);
        let watching = async {
            world.upstream.wait_for("the first", |log| log.of("/held").len() == 1).await;
            world.becomes(&of("doorward_upstream_in_flight"), 1.0).await;
            world.becomes(&of("doorward_upstream_waiting"), 1.0).await;
            world.becomes(&of("doorward_upstream_idle_connections"), 0.0).await;
            gate.open();
        };
        let second = world.client(client.protocol);
        let requests =
            async { tokio::join!(client.send(world.get("/held")), second.send(world.get("/held"))) };
        let ((first, second), ()) = tokio::join!(requests, watching);
        assert_eq!((first.status, second.status), (200, 200));
        world.becomes(&of("doorward_upstream_in_flight"), 0.0).await;
        world.becomes(&of("doorward_upstream_waiting"), 0.0).await;
        world.becomes(&of("doorward_upstream_idle_connections"), 1.0).await;
        world.becomes(&of("doorward_upstream_avoided"), 0.0).await;
    });
}

#[test]
fn a_request_that_is_sent_again_is_a_retry() {
    on_both(&settings(""), async |world, client| {
        let before = world.scrape().await;
        assert_eq!(client.send(world.get("/warm")).await.status, 200);
        world.upstream.scripts("/retry", vec![vec![Step::Close], vec![Step::ReadBody, Step::Ok]]);
        assert_eq!(client.send(world.get("/retry")).await.status, 200);
        world.moved(&before, "doorward_upstream_retries_total", &[("upstream=\"legacy\"", 1.0)]).await;
        let passed = ("outcome=\"2xx\",upstream=\"legacy\"", 2.0);
        world.moved(&before, "doorward_upstream_requests_total", &[passed]).await;
    });
}

#[test]
fn a_server_that_is_away_is_avoided_and_its_upstream_s_failures_are_counted() {
    let down = RefusingPort::new();
    let sections = format!(
        "[upstreams.down]\nservers = [\"http://{}\"]\n\n[routes.down]\npath = \"/down\"\nupstream = \"down\"\n",
        down.address
    );
    on_both(&settings(&sections), async |world, client| {
        let before = world.scrape().await;
        let avoided =
            format!("doorward_upstream_avoided{{server=\"http://{}\",upstream=\"down\"}}", down.address);
        let mut sent = 0.0;
        // It is avoided for a second, which a busy machine may sleep through.
        loop {
            assert_eq!(client.send(world.get("/down")).await.status, 502);
            sent += 1.0;
            if world.scrape().await.value(&avoided) == 1.0 {
                break;
            }
            assert!(sent < 100.0, "it is never avoided");
        }
        let failed = ("outcome=\"forward.unreachable\",upstream=\"down\"", sent);
        world.moved(&before, "doorward_upstream_requests_total", &[failed]).await;
        let failed = ("outcome=\"failed\",route=\"down\",status=\"5xx\"", sent);
        world.moved(&before, "doorward_requests_total", &[failed]).await;
        // There was no answer whose time could be measured.
        world.moved(&before, "doorward_upstream_duration_seconds_count", &[]).await;
        world.becomes(&avoided, 0.0).await;
    });
}

// --- tables

#[test]
fn a_table_that_is_full_evicts_and_says_so() {
    traced(&settings("[cache]\ncapacity = \"1MiB\"\nnegative_ttl = \"60s\"\n"), async |world, client, _| {
        assert_eq!(client.send(world.get("/x")).await.status, 200);
        let before = world.scrape().await;
        let of = |metric: &str, table: &str| format!("{metric}{{table=\"{table}\"}}");
        let capacity = "doorward_table_capacity_bytes";
        let both = before.value(&of(capacity, "known")) + before.value(&of(capacity, "unknown"));
        assert!((0.99..=1.01).contains(&(both / f64::from(1 << 20))), "{both}");
        assert_eq!(before.value(&of("doorward_table_entries", "known")), 1.0);
        for round in 0..20 {
            let many = (0..50).map(|number| Request::get("/x").token(&format!("{round:020}{number:020}")));
            let answers = futures_util::future::join_all(many.map(|request| client.send(request))).await;
            assert!(answers.iter().all(|answer| answer.status == 401));
        }
        let after = world.scrape().await;
        let evicted = after.moved_since(&before, "doorward_table_evictions_total");
        let unknown = of("doorward_table_evictions_total", "unknown");
        assert!(evicted.keys().eq([&unknown]), "nobody who is known had to go: {evicted:?}");
        let entries = after.value(&of("doorward_table_entries", "unknown"));
        let came = entries - before.value(&of("doorward_table_entries", "unknown")) + evicted[&unknown];
        assert!(entries > 100.0 && came <= 1_000.0, "{entries} {evicted:?}");
        let (bytes, most) =
            (after.value(&of("doorward_table_bytes", "unknown")), after.value(&of(capacity, "unknown")));
        assert!(bytes > 0.0 && bytes <= most, "{bytes} of {most}");
    });
}

// --- what is degraded

pub(crate) async fn change_store(world: &World, statements: &[&'static str]) {
    let path = world.gateway.directory().join("doorward.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = options.connect().await.unwrap();
    for statement in statements {
        sqlx::query(*statement).execute(&mut connection).await.unwrap();
    }
}

async fn readiness(world: &World) -> (u16, String) {
    let reply = ask(admin(&world.gateway), "GET", "/readyz").await;
    (reply.status, reply.body)
}

#[test]
fn a_store_that_is_away_is_told_while_what_is_known_is_served() {
    traced(&settings(""), async |world, client, _| {
        let (store, writes) =
            ("doorward_degraded{part=\"store\"}", "doorward_degraded{part=\"store-writes\"}");
        assert_eq!(client.send(world.get("/x")).await.status, 200);
        assert_eq!(world.scrape().await.value(store), 0.0);
        let before = world.scrape().await;
        change_store(world, &["ALTER TABLE token RENAME TO gone", "ALTER TABLE change RENAME TO unchanged"])
            .await;
        world.becomes(store, 1.0).await;
        assert_eq!(
            readiness(world).await,
            (200, "{\"status\":\"ready\",\"degraded\":[\"store\"]}\n".to_owned())
        );
        assert_eq!(world.scrape().await.value("doorward_ready"), 1.0);
        assert_eq!(client.send(Request::get("/x").token(UNKNOWN)).await.status, 503);
        let unavailable = ("reason=\"authenticate.unavailable\"", 1.0);
        world.moved(&before, "doorward_refusals_total", &[unavailable]).await;
        let stale = "doorward_lookups_total{level=\"stale\"}";
        until("an answer is stale", async || {
            assert_eq!(client.send(world.get("/x")).await.status, 200);
            world.scrape().await.value(stale) > before.value(stale)
        })
        .await;
        let after = world.scrape().await;
        let failed = "doorward_lookups_total{level=\"failed\"}";
        assert_eq!(after.value(failed) - before.value(failed), 1.0);
        assert!(after.value("doorward_store_errors_total{operation=\"find-token\"}") >= 1.0);
        // When tokens were last used cannot be written either; that is tried every 10 seconds.
        until("it cannot be written", async || world.scrape().await.value(writes) == 1.0).await;
        assert!(world.scrape().await.value("doorward_store_errors_total{operation=\"write-uses\"}") >= 1.0);
        change_store(world, &["ALTER TABLE gone RENAME TO token", "ALTER TABLE unchanged RENAME TO change"])
            .await;
        world.becomes(store, 0.0).await;
        until("it can be written", async || world.scrape().await.value(writes) == 0.0).await;
        assert_eq!(readiness(world).await, (200, "{\"status\":\"ready\",\"degraded\":[]}\n".to_owned()));
    });
}

#[test]
fn a_gateway_that_stops_is_draining_until_the_last_answer() {
    on_both(&settings(""), async |world, client| {
        assert_eq!(world.scrape().await.value("doorward_ready"), 1.0);
        let gate = Gate::closed();
        world.upstream.script("/held", vec![Step::ReadBody, Step::Hold(gate.clone()), Step::Ok]);
        let watching = async {
            world.upstream.wait_for("the request", |log| log.of("/held").len() == 1).await;
            world.gateway.ask_to_stop();
            assert_eq!(
                readiness(world).await,
                (503, "{\"status\":\"draining\",\"degraded\":[]}\n".to_owned())
            );
            assert_eq!(world.scrape().await.value("doorward_ready"), 0.0);
            assert_eq!(ask(admin(&world.gateway), "GET", "/livez").await.status, 200);
            gate.open();
        };
        let (answer, ()) = tokio::join!(client.send(world.get("/held")), watching);
        assert_eq!(answer.status, 200);
        // What was served last is counted, too.
        let passed = "doorward_requests_total{outcome=\"passed\",route=\"everything\",status=\"2xx\"}";
        world.becomes(passed, 1.0).await;
    });
}

// --- reloads

fn parse(text: &str, directory: &Path) -> Config {
    let name = "doorward.toml".to_owned();
    let source = Source { name, directory: directory.to_owned(), environment: |_| None };
    Config::parse(text, &source).unwrap_or_else(|error| panic!("{error}")).config
}

fn route(name: &str, upstream: &str) -> String {
    format!("[routes.{name}]\npath = \"/{name}\"\nupstream = \"{upstream}\"\n\n")
}

#[test]
fn a_reload_counts_on_and_what_it_takes_away_is_gone() {
    let (clock, options) = manual_clock();
    let other = |text: &str, upstream: &TestUpstream| {
        format!("{text}\n[upstreams.other]\nservers = [\"{}\"]\n\n{}", upstream.url(), route("new", "other"))
    };
    let settings = Settings { options, ..settings("") };
    let world = World::start(&settings);
    let gateway = &world.gateway;
    let text = settings.config(world.upstream.url());
    let both = parse(&other(&text, &world.upstream), gateway.directory());
    let one = parse(&text, gateway.directory());
    let reloader = Arc::clone(gateway.running().reloader());
    world.run(Protocol::Http2, async |world, client| {
        let get = async |target: &str| client.send(world.get(target)).await.status;
        let socket = world.gateway.directory().join("doorward.sock");
        let passed = |route: &str| {
            format!("doorward_requests_total{{outcome=\"passed\",route=\"{route}\",status=\"2xx\"}}")
        };
        let (success, time) =
            ("doorward_config_last_reload_success", "doorward_config_last_reload_timestamp_seconds");
        assert_eq!(get("/x").await, 200);
        world.becomes(&passed("everything"), 1.0).await;
        let began = world.scrape().await;
        assert_eq!((began.value(success), began.value(time)), (1.0, 1_800_000_000.0));

        clock.advance(Duration::from_secs(5));
        reloader.reload(&both).unwrap();
        assert_eq!((get("/x").await, get("/new").await), (200, 200));
        world.becomes(&passed("everything"), 2.0).await;
        world.becomes(&passed("new"), 1.0).await;
        world.becomes(time, 1_800_000_005.0).await;
        // The status tells what was counted before the reload, too.
        reloader.reload(&both).unwrap();
        let status: serde_json::Value =
            serde_json::from_str(&ask_socket(&socket, "/status").await.body).unwrap();
        assert_eq!(status["serving"]["routes"][0]["passed"], 2, "{status}");

        // A request of the plan before ends when its route is gone: it does not bring the series back.
        let gate = Gate::closed();
        world.upstream.script("/new/held", vec![Step::ReadBody, Step::Hold(gate.clone()), Step::Close]);
        let held = async {
            let failed = client.send(world.get("/new/held")).await.status;
            assert_eq!(failed, 502);
        };
        let reloading = async {
            world.upstream.wait_for("the request", |log| log.of("/new/held").len() == 1).await;
            reloader.reload(&one).unwrap();
            gate.open();
        };
        tokio::join!(held, reloading);
        let before = world.scrape().await;
        assert_eq!(get("/x").await, 200);
        world
            .moved(
                &before,
                "doorward_requests_total",
                &[("outcome=\"passed\",route=\"everything\",status=\"2xx\"", 1.0)],
            )
            .await;
        let left = world.scrape().await;
        let of_gone = |series: &&String| series.contains("\"new\"") || series.contains("\"other\"");
        assert_eq!(left.samples.keys().filter(of_gone).collect::<Vec<_>>(), Vec::<&String>::new());
    });
}

#[test]
fn a_reload_that_is_refused_is_told_and_leaves_no_series() {
    let settings = settings("");
    let world = World::start(&settings);
    let directory = world.gateway.directory();
    let text = settings.config(world.upstream.url());
    write_pair(directory, "one", 2_050);
    write_pair(directory, "two", 2_050);
    let wrong = "[tls]\ncertificates = [{ cert = \"one.pem\", key = \"two.key\" }]\n";
    let refused = parse(&format!("{text}\n{}\n{wrong}", route("new", "legacy")), directory);
    let good = parse(&text, directory);
    let reloader = Arc::clone(world.gateway.running().reloader());
    world.run(Protocol::Http1, async |world, client| {
        let success = "doorward_config_last_reload_success";
        let part = "doorward_degraded{part=\"configuration\"}";
        let degraded = "{\"status\":\"ready\",\"degraded\":[\"configuration\"]}\n";
        // A plan that cannot be, and a file that cannot be read.
        for fails in
            [&(|| drop(reloader.reload(&refused).unwrap_err())) as &(dyn Fn() + Sync), &|| reloader.refused()]
        {
            fails();
            let after = world.scrape().await;
            assert_eq!((after.value(success), after.value(part)), (0.0, 1.0));
            assert_eq!(readiness(world).await, (200, degraded.to_owned()));
            assert!(!after.samples.keys().any(|series| series.contains("route=\"new\"")));
            assert_eq!(client.send(world.get("/x")).await.status, 200);
            reloader.reload(&good).unwrap();
            let after = world.scrape().await;
            assert_eq!((after.value(success), after.value(part)), (1.0, 0.0));
        }
    });
}

/// A certificate until the new year of this year, and its key.
fn write_pair(directory: &Path, name: &str, year: i32) -> f64 {
    let mut wanted = rcgen::CertificateParams::new(vec!["gateway.test".to_owned()]).unwrap();
    wanted.not_after = rcgen::date_time_ymd(year, 1, 1);
    let ends = wanted.not_after.unix_timestamp();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = wanted.self_signed(&key).unwrap();
    // The key first: who looks in between finds a pair that is none, and the next look finds the new one.
    std::fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    std::fs::write(directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
    f64::from(u32::try_from(ends).unwrap())
}

/// The path needs escaping: a name with quotes and a backslash in it makes valid text all the same.
#[test]
fn the_end_of_each_certificate_is_told_and_follows_the_files() {
    const NAME: &str = "we\\ird \"name\"";
    let upstream = TestUpstream::start();
    let directory = tempfile::tempdir().unwrap();
    let first = write_pair(directory.path(), NAME, 2_031);
    let other = write_pair(directory.path(), "other", 2_040);
    let text = settings("").config(upstream.url())
        + &format!(
            "[tls]\ncertificates = [{{ cert = '{NAME}.pem', key = '{NAME}.key' }}, \
             {{ cert = 'other.pem', key = 'other.key' }}]\n"
        );
    let gateway = TestGateway::start_in(directory.path(), &text, Options::default()).unwrap();
    let admin = admin(&gateway);
    let series = |name: &str| {
        let path = directory.path().join(format!("{name}.pem"));
        format!("doorward_certificate_expiry_timestamp_seconds{{certificate=\"{}\"}}", path.display())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let success = "doorward_certificates_last_reload_success";
        let before = scrape(admin).await;
        assert_eq!((before.value(&series(NAME)), before.value(&series("other"))), (first, other));
        assert_eq!((first, before.value(success)), (1_924_992_000.0, 1.0));
        let second = write_pair(directory.path(), NAME, 2_032);
        let wanted = [(
            format!("certificate=\"{}\"", directory.path().join(format!("{NAME}.pem")).display()),
            second - first,
        )];
        let wanted: Vec<_> = wanted.iter().map(|(labels, by)| (labels.as_str(), *by)).collect();
        moved(admin, &before, "doorward_certificate_expiry_timestamp_seconds", &wanted).await;
        // A key of another certificate: the old pair is served, and its end is told.
        std::fs::copy(directory.path().join("other.key"), directory.path().join(format!("{NAME}.key")))
            .unwrap();
        becomes(admin, success, 0.0).await;
        let after = scrape(admin).await;
        assert_eq!(after.value(&series(NAME)), second);
        assert_eq!(after.value("doorward_degraded{part=\"certificates\"}"), 1.0);
        assert_eq!(
            ask(admin, "GET", "/readyz").await.body,
            "{\"status\":\"ready\",\"degraded\":[\"certificates\"]}\n"
        );
        let third = write_pair(directory.path(), NAME, 2_033);
        becomes(admin, success, 1.0).await;
        assert_eq!(scrape(admin).await.value(&series(NAME)), third);
    });
    drop(gateway);
}

// --- several replicas

#[test]
fn calls_of_redis_and_revocations_are_measured() {
    let redis = Redis::start();
    let sections =
        format!("[deployment]\nkey = \"{}\"\n[redis]\nurl = \"{}\"\n", "k".repeat(32), redis.url());
    traced(&settings(&sections), async |world, client, _| {
        world.becomes("doorward_degraded{part=\"redis\"}", 0.0).await;
        let before = world.scrape().await;
        assert_eq!(client.send(world.get("/x")).await.status, 200);
        world.moved(&before, "doorward_shared_cache_total", &[("result=\"miss\"", 1.0)]).await;
        let get = "doorward_shared_cache_duration_seconds_count{operation=\"get\"}";
        assert!(world.scrape().await.value(get) >= 1.0);
        until("a revocation is measured", async || {
            world.scrape().await.value("doorward_revocation_seconds_count") >= 1.0
        })
        .await;
        let measured = world.scrape().await;
        assert_eq!(measured.value("doorward_replicas"), 1.0);
        assert_eq!(measured.value("doorward_revocation_bound_seconds"), 1.0);
        // A machine that is busy enough may be late.
        assert!(
            measured.value("doorward_revocations_late_total")
                <= measured.value("doorward_revocation_seconds_count")
        );
        let publish = "doorward_shared_cache_errors_total{operation=\"publish\"}";
        redis.pause();
        until("calls fail", async || {
            world.scrape().await.samples.get(publish).is_some_and(|count| *count >= 1.0)
        })
        .await;
        world.becomes("doorward_degraded{part=\"redis\"}", 1.0).await;
        assert_eq!(client.send(world.get("/x")).await.status, 200);
        redis.resume();
        world.becomes("doorward_degraded{part=\"redis\"}", 0.0).await;
    });
}

// --- completeness

#[test]
fn every_metric_has_a_test_here() {
    let tests = include_str!("metrics.rs");
    let missing: Vec<_> =
        crate::watching::registered().into_iter().filter(|name| !tests.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "no test makes these move: {missing:?}");
}

#[test]
fn a_scrape_changes_nothing_that_requests_count() {
    traced(&settings(""), async |world, client, traces| {
        assert_eq!(client.send(world.get("/x")).await.status, 200);
        assert_eq!(traces.of("/x").await.status, Some(200));
        let before = world.scrape().await;
        for path in ["/metrics", "/readyz", "/livez", "/nowhere"] {
            ask(admin(&world.gateway), "GET", path).await;
        }
        let after = world.scrape().await;
        for metric in [
            "doorward_requests_total",
            "doorward_connections_accepted_total",
            "doorward_request_duration_seconds_count",
            "doorward_refusals_total",
        ] {
            assert!(after.moved_since(&before, metric).is_empty(), "{metric}");
        }
    });
}
