//! Stopping: whoever was let in is answered, whoever comes later is not, and the end comes in time.
//!
//! The upstream holds its answers behind a gate, so that requests are under way for certain when the gateway stops.

use crate::harness::PATIENCE;
use crate::harness::client::{self, Client, Protocol, handshake, tls_config};
use crate::harness::frames::{Frame, Frames, kind};
use crate::harness::gate::Gate;
use crate::harness::gateway::{TestGateway, listen_error};
use crate::harness::scrape::ADMIN;
use crate::harness::script::Step;
use crate::harness::world::{ROUTES, Settings, World, on_both};
use doorward::app::Options;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Waits until new connections are refused.
async fn refused(world: &World) {
    let refused = async {
        loop {
            match TcpStream::connect(world.gateway.address()).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return,
                // Taken in the moment before the end, or reset by it.
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("new connections are never refused");
}

/// The gateway ends within this time. Call it outside of a runtime.
fn assert_stops_within(world: World, most: Duration) {
    let World { gateway, upstream, .. } = world;
    let since = Instant::now();
    drop(gateway);
    assert!(since.elapsed() < most, "it took {:?} to stop", since.elapsed());
    drop(upstream);
}

#[test]
fn sixty_four_requests_under_way_are_all_answered() {
    const EACH: usize = 32;
    let world = World::start(&Settings { workers: 2, ..Settings::default() });
    world.run(Protocol::Http1, async |world, client| {
        let gate = Gate::closed();
        world.upstream.script("/held", vec![Step::ReadBody, Step::Hold(gate.clone()), Step::Ok]);
        let clients: Vec<_> = (0..2 * EACH)
            .map(|number| world.client(if number < EACH { Protocol::Http1 } else { Protocol::Http2 }))
            .collect();
        let mut open = Vec::new();
        for client in &clients {
            open.push(client.open(world.get("/held")).await);
        }
        world.upstream.wait_for("all of them", |log| log.of("/held").len() == 2 * EACH).await;
        // One that has been served before and is idle now.
        assert_eq!(client.send(world.get("/idle")).await.status, 200);
        world.gateway.ask_to_stop();
        client.closed().await;
        refused(world).await;
        gate.open();
        for (number, (_, download)) in open.iter_mut().enumerate() {
            let answer = download.answer().await.unwrap_or_else(|error| panic!("client {number}: {error:?}"));
            assert_eq!(
                (answer.status, answer.text().as_str(), answer.truncated),
                (200, "ok", false),
                "{number}"
            );
            if number < EACH {
                assert_eq!(answer.one("connection").as_deref(), Some("close"), "client {number}");
                download.ended().await;
            }
        }
        for client in clients.iter().skip(EACH) {
            client.closed().await;
        }
        assert_eq!(world.upstream.log().of("/held").len(), 2 * EACH, "each of them once");
    });
    assert_stops_within(world, Duration::from_secs(5));
}

#[test]
fn uploads_and_downloads_under_way_are_finished() {
    on_both(&Settings::default(), async |world, client| {
        let gate = Gate::closed();
        world.upstream.script(
            "/both",
            vec![
                Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello".to_vec()),
                Step::ReadBody,
                Step::Hold(gate.clone()),
                Step::Send(b"world".to_vec()),
            ],
        );
        let payload = client::Payload::StreamedLength(6);
        let request = client::Request::new("POST", "/both").payload(payload).token(&world.token);
        let (mut upload, mut download) = client.open(request).await;
        upload.send("abc").await.unwrap();
        let head = download.head().await.unwrap();
        world.gateway.ask_to_stop();
        refused(world).await;
        upload.send("def").await.unwrap();
        upload.finish().await.unwrap();
        world.upstream.wait_for_requests(1).await;
        gate.open();
        let answer = download.rest(head).await;
        assert_eq!((answer.text().as_str(), answer.truncated), ("helloworld", false));
        assert_eq!(world.upstream.last().body, b"abcdef");
    });
}

/// A request and its answer over HTTP/1.1, to the end of the connection.
async fn only_answer(stream: &mut client::Stream, token: &str) -> String {
    let head = format!("GET /only HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Token {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    client::patiently("an answer and the end", stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

fn assert_last(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer:?}");
    assert_eq!(answer.to_ascii_lowercase().matches("\r\nconnection: close\r\n").count(), 1, "{answer:?}");
}

#[test]
fn a_connection_without_a_request_yet_gets_one_answer() {
    let world = World::start(&Settings::default());
    world.run(Protocol::Http1, async |world, _| {
        let config = Arc::new(tls_config(rustls::ALL_VERSIONS, &[b"http/1.1"]));
        let tcp = || async { TcpStream::connect(world.gateway.address()).await.unwrap() };
        let mut ready = handshake(&config, "localhost", tcp().await).await.unwrap();
        // The kernel has taken it, the gateway perhaps not yet.
        let silent = tcp().await;
        world.gateway.ask_to_stop();
        refused(world).await;
        assert_last(&only_answer(&mut ready, &world.token).await);
        let mut late = handshake(&config, "localhost", silent).await.unwrap();
        assert_last(&only_answer(&mut late, &world.token).await);
    });
    assert_stops_within(world, Duration::from_secs(5));
}

/// Browsers connect in advance, and may never ask for anything.
#[test]
fn connections_without_a_first_request_do_not_hold_a_stop() {
    let world = World::start(&Settings { listen: ADMIN, ..Settings::default() });
    world.run(Protocol::Http1, async |world, _| {
        let address = world.gateway.address();
        let mut silent = Vec::new();
        for alpn in [b"http/1.1".as_slice(), b"h2"] {
            let config = Arc::new(tls_config(rustls::ALL_VERSIONS, &[alpn]));
            let tcp = TcpStream::connect(address).await.unwrap();
            silent.push(handshake(&config, "localhost", tcp).await.unwrap());
        }
        let mut frames = Frames::start(address).await;
        // Looked at once in a while: not only what came at the last moment is excused.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let since = Instant::now();
        world.gateway.ask_to_stop();
        for stream in &mut silent {
            client::patiently("the end", stream.read_to_end(&mut Vec::new())).await.unwrap_or_default();
        }
        // It has said that it speaks HTTP/2, asks for nothing, and does not answer the PING.
        frames.until(|_| false).await;
        assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
        let scrape = world.scrape().await;
        let is_slow =
            |(series, count): (&String, &f64)| series.contains("connection.too-slow") && *count > 0.0;
        assert!(!scrape.samples.iter().any(is_slow), "{scrape:?}");
    });
    assert_stops_within(world, Duration::from_secs(3));
}

#[test]
fn a_request_that_crosses_goaway_is_answered() {
    let world = World::start(&Settings::default());
    world.run(Protocol::Http2, async |world, _| {
        let mut frames = Frames::start(world.gateway.address()).await;
        frames.get(1, "/first", &world.token).await;
        assert!(frames.until(Frame::is_ok).await.last().is_some_and(Frame::is_ok));
        world.gateway.ask_to_stop();
        let seen = frames.until(|frame| frame.kind == kind::GOAWAY).await;
        // RFC 9113, section 6.8: the first names no last stream, since requests may be on their way.
        let last = seen.last().and_then(|frame| frame.payload.first_chunk::<4>().copied());
        assert_eq!(last.map(u32::from_be_bytes), Some((1 << 31) - 1), "{seen:?}");
        // The client has not answered the PING: as far as the gateway knows it has not seen the GOAWAY.
        frames.get(3, "/crossing", &world.token).await;
        assert!(frames.until(Frame::is_ok).await.last().is_some_and(Frame::is_ok));
    });
    drop(world);
}

#[test]
fn drain_time_bounds_the_wait_for_an_upstream_that_never_answers() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let sections = format!("{ROUTES}\n[limits]\ndrain_time = \"1s\"\n");
        let settings = Settings {
            timeout: r#"connect = "2s", response = "60s", idle = "60s""#,
            workers: 2,
            ..Settings::sections(&sections)
        };
        let world = World::start(&settings);
        world.upstream.script("/never", vec![Step::Silence]);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client: Client = world.client(protocol);
        let (_upload, mut download) = runtime.block_on(async {
            let open = client.open(world.get("/never")).await;
            world.upstream.wait_for("the request", |log| log.of("/never").len() == 1).await;
            open
        });
        let since = Instant::now();
        let World { gateway, upstream, .. } = world;
        drop(gateway);
        let elapsed = since.elapsed();
        assert!(elapsed >= Duration::from_millis(900) && elapsed < Duration::from_secs(4), "{elapsed:?}");
        runtime.block_on(async {
            assert!(download.answer().await.is_err(), "an answer that nobody gave");
            upstream.wait_for_close(0).await;
        });
    }
}

#[test]
fn a_gateway_without_requests_stops_at_once() {
    let world = World::start(&Settings { workers: 2, ..Settings::default() });
    assert_stops_within(world, Duration::from_secs(2));
}

#[test]
fn a_second_gateway_on_the_same_address_is_an_error() {
    for workers in [1, 2] {
        let settings = Settings { workers, ..Settings::default() };
        let world = World::start(&settings);
        let directory = tempfile::tempdir().unwrap();
        for workers in [1, 2] {
            let text = Settings { workers, ..Settings::default() }.config(world.upstream.url());
            let text = text.replace("127.0.0.1:0", &world.gateway.address().to_string());
            let Err(error) = TestGateway::start_in(directory.path(), &text, Options::default()) else {
                panic!("two gateways share an address")
            };
            assert_eq!(listen_error(&error), Some(io::ErrorKind::AddrInUse), "{error:?}");
        }
        world.run(Protocol::Http1, async |world, client| {
            assert_eq!(client.send(world.get("/")).await.status, 200, "the first one is not disturbed");
        });
    }
}
