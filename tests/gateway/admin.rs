//! The admin listener: what it answers, to whom, and that nobody who asks it can harm what it stands beside.

use crate::harness::PATIENCE;
use crate::harness::client::{Protocol, Request, patiently};
use crate::harness::gateway::TestGateway;
use crate::harness::scrape::{ADMIN, Reply, Scrape, admin, ask, ask_socket};
use crate::harness::upstream::TestUpstream;
use crate::harness::world::{Settings, World, on_both, on_http1};
use crate::metrics::free_address;
use doorward::app::Options;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

fn settings() -> Settings {
    Settings { listen: ADMIN, ..Settings::default() }
}

#[track_caller]
fn assert_is(reply: &Reply, status: u16, media_type: &str, body: Option<&str>) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(reply.fields["content-type"], media_type, "{reply:?}");
    assert_eq!(reply.fields["cache-control"], "no-store", "{reply:?}");
    if let Some(body) = body {
        assert_eq!(reply.body, body);
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

#[test]
fn it_answers_what_operators_ask_and_nothing_else() {
    on_http1(&settings(), async |world, _| {
        let admin = admin(&world.gateway);
        assert_is(&ask(admin, "GET", "/livez").await, 200, TEXT, Some("alive\n"));
        let ready = "{\"status\":\"ready\",\"degraded\":[]}\n";
        assert_is(&ask(admin, "GET", "/readyz").await, 200, "application/json", Some(ready));
        assert_is(&ask(admin, "GET", "/readyz?verbose").await, 200, "application/json", Some(ready));
        let metrics = ask(admin, "GET", "/metrics").await;
        assert_is(&metrics, 200, "application/openmetrics-text; version=1.0.0; charset=utf-8", None);
        assert!(Scrape::parse(&metrics.body).samples.len() > 50);
        for path in ["/", "/metrics/", "/livez/x", "/x", "//metrics", "/../metrics"] {
            assert_is(
                &ask(admin, "GET", path).await,
                404,
                TEXT,
                Some("there are /livez, /readyz and /metrics\n"),
            );
        }
        for (method, path) in
            [("POST", "/metrics"), ("DELETE", "/readyz"), ("PUT", "/x"), ("OPTIONS", "/livez")]
        {
            let reply = ask(admin, method, path).await;
            assert_is(&reply, 405, TEXT, Some("only GET and HEAD are answered here\n"));
            assert_eq!(reply.fields["allow"], "GET, HEAD");
        }
        for path in ["/livez", "/readyz", "/metrics"] {
            let (get, head) = (ask(admin, "GET", path).await, ask(admin, "HEAD", path).await);
            assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
            assert_eq!(head.fields["content-type"], get.fields["content-type"]);
            assert!(head.fields["content-length"].parse::<usize>().unwrap() > 0);
        }
    });
}

#[test]
fn the_status_is_told_to_its_owner_alone() {
    on_http1(&settings(), async |world, client| {
        assert_eq!(client.send(world.get("/x")).await.status, 200);
        let refusal = "the status is told over the unix socket only: doorward status\n";
        assert_is(&ask(admin(&world.gateway), "GET", "/status").await, 403, TEXT, Some(refusal));
        let socket = world.gateway.directory().join("doorward.sock");
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let reply = ask_socket(&socket, "/status").await;
        assert_is(&reply, 200, "application/json", None);
        let status: Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(status["status"], "ready");
        assert_eq!(status["pid"], std::process::id());
        assert_eq!(status["serving"]["https"][0], world.gateway.address().to_string());
        assert_eq!(status["serving"]["servers"][0]["address"], world.upstream.url());
        assert!(!reply.body.contains("alice") && !reply.body.contains(&world.token), "{status}");
        // What the address tells, the socket tells too.
        assert_eq!(ask_socket(&socket, "/livez").await.body, "alive\n");
        assert_eq!(ask_socket(&socket, "/metrics").await.status, 200);
    });
}

#[test]
fn both_listeners_are_gone_when_the_gateway_is() {
    let upstream = TestUpstream::start();
    let directory = tempfile::tempdir().unwrap();
    let text = settings().config(upstream.url());
    let gateway = TestGateway::start_in(directory.path(), &text, Options::default()).unwrap();
    let (admin, socket) = (admin(&gateway), directory.path().join("doorward.sock"));
    assert!(socket.exists() && std::net::TcpStream::connect(admin).is_ok());
    drop(gateway);
    assert!(!socket.exists());
    assert!(std::net::TcpStream::connect(admin).is_err());
}

#[test]
fn without_a_word_there_is_no_address_and_off_means_no_socket() {
    let settings = Settings { listen: "admin_socket = \"off\"", ..Settings::default() };
    let world = World::start(&settings);
    assert_eq!(world.gateway.running().admin_address(), None);
    assert!(!world.gateway.directory().join("doorward.sock").exists());
}

/// Reading the deployment key lasts until somebody writes it: the store comes after that.
#[test]
fn a_gateway_that_starts_is_alive_and_not_ready() {
    let upstream = TestUpstream::start();
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("slow.key");
    assert!(Command::new("mkfifo").arg(&key).status().unwrap().success());
    let admin = free_address();
    let text = settings().config(upstream.url()) + "[deployment]\nkey = { file = \"slow.key\" }\n";
    let text = text.replace(ADMIN, &format!("admin = \"{admin}\""));
    std::thread::scope(|scope| {
        let starting =
            scope.spawn(|| TestGateway::start_in(directory.path(), &text, Options::default()).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let asking = async {
            let answers = async {
                while TcpStream::connect(admin).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            patiently("the admin listener", answers).await;
            let starting = "{\"status\":\"starting\",\"degraded\":[]}\n";
            assert_is(&ask(admin, "GET", "/readyz").await, 503, "application/json", Some(starting));
            assert_is(&ask(admin, "GET", "/livez").await, 200, TEXT, Some("alive\n"));
            let scrape = Scrape::parse(&ask(admin, "GET", "/metrics").await.body);
            assert!(scrape.value("doorward_ready") < 0.5);
            assert!(!directory.path().join("doorward.db").exists(), "the store is not there yet");
            assert!(!directory.path().join("doorward.sock").exists(), "it might not come to serve");
        };
        let asked = catch_unwind(AssertUnwindSafe(|| runtime.block_on(asking)));
        // Whatever was seen, the start must come to its end. This waits for who reads it.
        std::fs::write(&key, "0123456789012345678901234567890123456789").unwrap();
        asked.unwrap_or_else(|panic| resume_unwind(panic));
        let gateway = starting.join().unwrap();
        runtime.block_on(async {
            assert_eq!(ask(admin, "GET", "/readyz").await.status, 200);
        });
        drop(gateway);
    });
}

#[test]
fn who_asks_slowly_is_cut_off_and_stops_nobody() {
    /// As many as are served at a time.
    const SLOW: usize = 256;
    on_http1(&settings(), async |world, client| {
        let admin = admin(&world.gateway);
        let since = Instant::now();
        let mut slow = Vec::new();
        for _ in 0..SLOW {
            let mut stream = TcpStream::connect(admin).await.unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ").await.unwrap();
            slow.push(stream);
        }
        // They hold every place there, and none at the gateway's own.
        for _ in 0..50 {
            assert_eq!(client.fresh().send(world.get("/x")).await.status, 200);
        }
        let asked = tokio::time::timeout(2 * PATIENCE, async {
            let mut stream = TcpStream::connect(admin).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        });
        assert!(asked.await.expect("the next one is never asked in").ends_with("alive\n"));
        assert!(since.elapsed() >= Duration::from_millis(1_500), "the places were not taken");
        for mut stream in slow {
            // Cut off with or without a word.
            let mut rest = Vec::new();
            let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "one of them is still served");
        }
    });
}

/// What is no request is no harm either.
#[test]
fn nonsense_ends_its_own_connection_only() {
    on_http1(&settings(), async |world, _| {
        let admin = admin(&world.gateway);
        let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100_000));
        for nonsense in [
            "\0\0\0\r\n\r\n",
            "GET\r\n\r\n",
            "\x16\x03\x01",
            long.as_str(),
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            let mut stream = TcpStream::connect(admin).await.unwrap();
            // It may be closed before all of it was sent.
            drop(stream.write_all(nonsense.as_bytes()).await);
            drop(stream.shutdown().await);
            let mut rest = Vec::new();
            drop(patiently("an end", stream.read_to_end(&mut rest)).await);
            assert!(!rest.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&rest));
        }
        assert_eq!(ask(admin, "GET", "/livez").await.status, 200);
    });
}

#[test]
fn on_the_gateway_s_own_port_these_paths_are_paths_like_any_other() {
    on_both(&settings(), async |world, client| {
        for path in ["/metrics", "/readyz", "/livez", "/status"] {
            assert_eq!(client.send(Request::get(path)).await.status, 401, "{path}");
            let answer = client.send(world.get(path).expect(&["content-type"])).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{path} is the upstream's");
        }
        assert_eq!(world.upstream.log().requests.len(), 4);
    });
    let here = "[routes.here]\npath = \"/here\"\nupstream = \"legacy\"\n";
    World::start(&Settings { listen: ADMIN, ..Settings::sections(here) }).run(
        Protocol::Http2,
        async |world, client| {
            assert_eq!(client.send(world.get("/metrics")).await.status, 404);
            assert!(world.upstream.log().requests.is_empty());
        },
    );
}
