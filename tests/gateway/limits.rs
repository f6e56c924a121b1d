//! Every limit of `[limits]`, hit over the wire, and what a client must be able to do within them.
//!
//! A limit that nobody ever ran into is a limit that may not be there. Each test shows both sides where it can: what is
//! over it is refused and never reaches the upstream, what is within it passes. (`upstream_header_bytes` is in
//! `upstream.rs`, `drain_time` in `shutdown.rs`.)

use crate::harness::client::{Answer, Client, Payload, Protocol, Request};
use crate::harness::frames::{ACK, END_HEADERS, END_STREAM, Frame, Frames, block, get_block, kind};
use crate::harness::gate::Gate;
use crate::harness::gateway::slow_scheme;
use crate::harness::script::{Step, answer};
use crate::harness::upstream::{Log, Recorded, TestUpstream};
use crate::harness::world::{ROUTES, Settings, World, assert_own, on_both, on_http1};
use crate::harness::{PATIENCE, pattern};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};

const MIB: usize = 1 << 20;

/// The ordinary routes with these limits.
fn limits(lines: &str) -> Settings {
    Settings::sections(&format!("{ROUTES}\n[limits]\n{lines}\n"))
}

/// A wait of a second was kept: neither at once nor much later.
fn assert_about_a_second(since: Instant, what: &str) {
    let elapsed = since.elapsed();
    let is_right = elapsed > Duration::from_millis(900) && elapsed < Duration::from_secs(5);
    assert!(is_right, "{what} after {elapsed:?}");
}

fn assert_try_again(answer: &Answer) {
    assert_own(answer, 503);
    let wait: u32 = answer.one("retry-after").expect("Retry-After").parse().unwrap();
    assert!(wait >= 1);
}

// --- heads

/// Refused by hyper, before there is a request: 431, or over HTTP/2 the end of stream or connection.
async fn assert_head_refused(client: &Client, request: Request) {
    match client.fresh().try_send(request).await {
        Ok(answer) => assert_eq!(answer.status, 431, "{answer:?}"),
        Err(error) => assert_eq!(client.protocol, Protocol::Http2, "{error:?}"),
    }
}

#[test]
fn header_bytes_bound_one_field_and_all_fields() {
    on_both(&limits("header_bytes = \"16KiB\""), async |world, client| {
        let within = world.get("/").field("X-Large", "x".repeat(8 << 10));
        assert_eq!(client.send(within).await.status, 200);
        let mark = world.upstream.mark();
        assert_head_refused(client, world.get("/").field("X-Large", "x".repeat(40 << 10))).await;
        let many = (0..80).fold(world.get("/"), |all, i| all.field(&format!("X-{i}"), "x".repeat(500)));
        assert_head_refused(client, many).await;
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn the_least_header_bytes_are_kept_too() {
    on_both(&limits("header_bytes = \"8KiB\"\ntarget_bytes = \"8KiB\""), async |world, client| {
        let within = world.get("/").field("X-Large", "x".repeat(6 << 10));
        assert_eq!(client.send(within).await.status, 200);
        let mark = world.upstream.mark();
        assert_head_refused(client, world.get("/").field("X-Large", "x".repeat(12 << 10))).await;
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn header_count_bounds_the_fields_and_repeated_ones_count() {
    on_both(&limits("header_count = 20"), async |world, client| {
        let with = |count| (0..count).fold(world.get("/"), |all, _| all.field("X-Many", "1"));
        // With Host (HTTP/1.1) and Authorization.
        assert_eq!(client.send(with(18)).await.status, 200);
        let mark = world.upstream.mark();
        let own = if client.protocol == Protocol::Http1 { 19 } else { 20 };
        assert_own(&client.fresh().send(with(own)).await, 431);
        for count in [25, 90] {
            assert_eq!(client.fresh().send(with(count)).await.status, 431);
        }
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn target_bytes_bound_path_and_query() {
    on_both(&limits("target_bytes = \"1KiB\""), async |world, client| {
        let longest = format!("/{}?{}", "p".repeat(500), "q".repeat(522));
        assert_eq!(longest.len(), 1024);
        assert_eq!(client.send(world.get(&longest)).await.status, 200);
        assert_eq!(world.upstream.last().target, longest);
        let mark = world.upstream.mark();
        for longer in
            [format!("{longest}q"), format!("/{}", "p".repeat(1024)), format!("/?{}", "q".repeat(20_000))]
        {
            let answer = client.send(world.get(&longer)).await;
            assert_own(&answer, 414);
            assert_eq!(answer.text(), r#"{"detail":"URI too long."}"#);
        }
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn header_time_bounds_a_head_that_trickles() {
    on_http1(&limits("header_time = \"1s\""), async |world, client| {
        let mark = world.upstream.mark();
        let since = Instant::now();
        let mut raw = client.raw("GET / HTTP/1.1\r\nHost: gateway.test\r\nX-Slow: ").await;
        // A byte now and then changes nothing.
        for _ in 0..4 {
            raw.write("x").await;
            sleep(Duration::from_millis(200)).await;
        }
        assert!(raw.closed().await.is_empty());
        assert_about_a_second(since, "a slow head was cut");
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn header_time_bounds_the_head_of_a_later_request() {
    on_http1(&limits("header_time = \"1s\""), async |world, client| {
        let first =
            format!("GET / HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Token {}\r\n\r\n", world.token);
        let mut raw = client.raw(first).await;
        assert_eq!(raw.answer("GET", &[]).await.unwrap().status, 200);
        // Idle for longer than a head may take: that is another limit.
        sleep(Duration::from_millis(1500)).await;
        let (mark, since) = (world.upstream.mark(), Instant::now());
        raw.write("GET /late HTTP/1.1\r\nHost: gate").await;
        assert!(raw.closed().await.is_empty());
        assert_about_a_second(since, "a slow head was cut");
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn header_time_bounds_the_wait_for_the_first_request() {
    on_http1(&limits("header_time = \"1s\""), async |world, client| {
        let mark = world.upstream.mark();
        let since = Instant::now();
        assert!(client.raw("").await.closed().await.is_empty());
        assert_about_a_second(since, "a silent connection was cut");
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn header_time_bounds_the_first_request_over_http2() {
    World::start(&limits("header_time = \"1s\"")).run(Protocol::Http2, async |world, client| {
        let address = world.gateway.address();
        let mark = world.upstream.mark();
        let since = Instant::now();
        let (mut silent, mut idle, mut half) =
            tokio::join!(Frames::connect(address), Frames::start(address), Frames::start(address));
        half.write(kind::HEADERS, END_STREAM, 1, &get_block("/half", &world.token)).await;
        for frames in [&mut silent, &mut idle, &mut half] {
            frames.until(|_| false).await;
            assert_about_a_second(since, "a connection without a request was cut");
        }
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn handshake_time_bounds_the_handshake() {
    on_http1(&limits("handshake_time = \"1s\""), async |world, client| {
        // A TLS record that says it is longer than what follows.
        for bytes in [b"".as_slice(), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
            let since = Instant::now();
            let mut tcp = TcpStream::connect(world.gateway.address()).await.unwrap();
            tcp.write_all(bytes).await.unwrap();
            // The end may be a reset: nobody has read the bytes.
            let ended = tokio::time::timeout(PATIENCE, tcp.read(&mut [0; 64])).await.expect("the end");
            assert_eq!(ended.unwrap_or(0), 0);
            assert_about_a_second(since, "a handshake was cut");
        }
        assert_eq!(client.send(world.get("/")).await.status, 200);
    });
}

// --- bodies

#[test]
fn body_rate_bounds_how_slowly_an_upload_trickles() {
    on_both(&limits("body_idle = \"1s\"\nbody_rate = \"100B\""), async |world, client| {
        let request = Request::new("POST", "/upload").payload(Payload::Streamed).token(&world.token);
        let (mut upload, mut download) = client.open(request).await;
        let trickle = async {
            // Never idle, and never complete.
            while upload.send(pattern(0, 1)).await.is_ok() {
                sleep(Duration::from_millis(200)).await;
            }
        };
        let answer = async { download.answer().await.unwrap() };
        let answer =
            tokio::select! { answer = answer => answer, () = trickle => panic!("cut without an answer") };
        assert_own(&answer, 408);
        assert!(world.upstream.log().requests.iter().all(|request| !request.complete));
    });
}

#[test]
fn body_idle_bounds_the_pauses_of_an_upload() {
    on_both(&limits("body_idle = \"1s\""), async |world, client| {
        for (connection, payload) in
            [Payload::StreamedLength(1000), Payload::Streamed].into_iter().enumerate()
        {
            let request = Request::new("POST", "/upload").payload(payload).token(&world.token);
            let (mut upload, mut download) = client.fresh().open(request).await;
            // What goes on slowly is not idle.
            for _ in 0..4 {
                upload.send(pattern(0, 100)).await.unwrap();
                sleep(Duration::from_millis(300)).await;
            }
            let since = Instant::now();
            let answer = download.answer().await.unwrap();
            assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
            assert_own(&answer, 408);
            assert_eq!(answer.text(), r#"{"detail":"Request timeout."}"#);
            world.upstream.wait_for_close(connection).await;
            let request = world.upstream.last();
            assert!(request.body.len() == 400 && !request.complete, "{request:?}");
        }
    });
}

#[test]
fn send_idle_bounds_an_answer_that_nobody_reads() {
    on_both(&limits("send_idle = \"1s\""), async |world, client| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 64 * MIB);
        world.upstream.script("/large", vec![Step::Send(head.into_bytes()), Step::Stream(64 * MIB)]);
        let (_upload, mut download) = client.open(world.get("/large")).await;
        let head = download.head().await.unwrap();
        let since = Instant::now();
        world.upstream.wait_for_close(0).await;
        assert_about_a_second(since, "an answer that is not read was cut");
        assert!(download.rest(head).await.truncated);
        let other = client.fresh().send(world.get("/other")).await;
        assert_eq!(other.status, 200);
    });
}

#[test]
fn send_idle_does_not_cut_an_answer_that_is_read_slowly() {
    on_both(&limits("send_idle = \"1s\""), async |world, client| {
        const TOTAL: usize = 32 * MIB;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n");
        world.upstream.script("/large", vec![Step::Send(head.into_bytes()), Step::Stream(TOTAL)]);
        let (_upload, mut download) = client.open(world.get("/large")).await;
        assert_eq!(download.head().await.unwrap().status, 200);
        // Always faster than the client: there is always a part of the answer that waits for it.
        let (mut received, mut pauses) = (0, 0);
        while received < TOTAL {
            let piece = download.piece().await.unwrap_or_else(|_| panic!("cut off after {received} bytes"));
            received += piece.expect("more to come").len();
            if received / MIB > pauses {
                pauses += 1;
                sleep(Duration::from_millis(100)).await;
            }
        }
    });
}

// --- connections

#[test]
fn keep_alive_bounds_idle_connections() {
    on_both(&limits("keep_alive = \"1s\""), async |world, client| {
        assert_eq!(client.send(world.get("/")).await.status, 200);
        let since = Instant::now();
        client.closed().await;
        assert_about_a_second(since, "an idle connection was closed");
        // Whoever waits for an upstream is not idle.
        world.upstream.script("/slow", vec![Step::Delay(Duration::from_millis(2500)), Step::Ok]);
        assert_eq!(client.send(world.get("/slow")).await.status, 200);
        client.closed().await;
    });
}

#[test]
fn an_idle_http2_connection_is_closed_with_goaway() {
    World::start(&limits("keep_alive = \"1s\"")).run(Protocol::Http2, async |world, _| {
        let mut frames = Frames::start(world.gateway.address()).await;
        frames.get(1, "/", &world.token).await;
        let seen = frames.until(|frame| frame.kind == kind::GOAWAY).await;
        assert!(seen.iter().any(Frame::is_ok), "{seen:?}");
        // NO_ERROR: a client may send its requests elsewhere.
        let goaway = seen.last().filter(|frame| frame.kind == kind::GOAWAY).expect("GOAWAY");
        assert_eq!(goaway.payload.get(4..8), Some([0; 4].as_slice()));
        frames.until(|_| false).await;
    });
}

/// Whether the gateway takes a connection from this address, as seen by a request; yields what keeps it open.
async fn held(world: &World, from: [u8; 4]) -> Option<Frames> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    let tcp = socket.connect(world.gateway.address()).await.unwrap();
    let mut frames = Frames::over(tcp).await?;
    frames.get(1, "/", &world.token).await;
    let seen = frames.until(Frame::is_ok).await;
    seen.last().is_some_and(Frame::is_ok).then_some(frames)
}

/// The place that was freed is taken, once the gateway has seen that it is free.
async fn assert_taken_in_time(world: &World, from: [u8; 4]) -> Frames {
    let taken = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(frames) = held(world, from).await {
                return frames;
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    taken.await.expect("a place that was freed is never free")
}

const HERE: [u8; 4] = [127, 0, 0, 1];
const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

#[test]
fn connections_are_bounded_in_all() {
    let settings = Settings { workers: 2, ..limits("connections = 3") };
    World::start(&settings).run(Protocol::Http2, async |world, _| {
        let one = held(world, HERE).await.expect("the first");
        let _two = held(world, HERE).await.expect("the second");
        let _three = held(world, ELSEWHERE).await.expect("the third");
        let mark = world.upstream.mark();
        assert!(held(world, HERE).await.is_none(), "a fourth connection was served");
        assert!(held(world, ELSEWHERE).await.is_none(), "a fourth connection was served");
        let (requests, bytes) = world.upstream.since(mark);
        assert!(requests.is_empty() && bytes == 0);
        drop(one);
        let _four = assert_taken_in_time(world, HERE).await;
    });
}

#[test]
fn connections_are_bounded_by_address() {
    let settings = Settings { workers: 2, ..limits("connections_per_address = 2") };
    World::start(&settings).run(Protocol::Http2, async |world, _| {
        let one = held(world, HERE).await.expect("the first");
        let _two = held(world, HERE).await.expect("the second");
        let mark = world.upstream.mark();
        assert!(held(world, HERE).await.is_none(), "a third connection was served");
        let (requests, bytes) = world.upstream.since(mark);
        assert!(requests.is_empty() && bytes == 0);
        let _other = held(world, ELSEWHERE).await.expect("another address has places of its own");
        drop(one);
        let _three = assert_taken_in_time(world, HERE).await;
    });
}

#[test]
fn streams_of_a_connection_are_bounded_and_the_bound_is_announced() {
    World::start(&limits("streams_per_connection = 3")).run(Protocol::Http2, async |world, _| {
        const MAX_CONCURRENT_STREAMS: u16 = 3;
        const REFUSED_STREAM: u32 = 7;
        let gate = Gate::closed();
        world.upstream.script("/held", vec![Step::Hold(gate.clone()), Step::Ok]);
        let mut frames = Frames::start(world.gateway.address()).await;
        for stream in [1, 3, 5, 7] {
            frames.get(stream, "/held", &world.token).await;
        }
        let seen = frames.until(|frame| frame.kind == kind::RST_STREAM).await;
        let settings: Vec<_> =
            seen.iter().filter(|frame| frame.kind == kind::SETTINGS).flat_map(Frame::settings).collect();
        assert!(settings.contains(&(MAX_CONCURRENT_STREAMS, 3)), "{settings:?}");
        let reset = seen.last().filter(|frame| frame.kind == kind::RST_STREAM).expect("RST_STREAM");
        assert_eq!((reset.stream, reset.error()), (7, REFUSED_STREAM));
        world.upstream.wait_for("the three", |log| log.of("/held").len() == 3).await;
        gate.open();
        let mut answered = 0;
        while answered < 3 {
            answered += usize::from(frames.next().await.expect("three answers").is_ok());
        }
        frames.get(9, "/after", &world.token).await;
        assert!(frames.until(Frame::is_ok).await.last().is_some_and(Frame::is_ok));
        let log = world.upstream.log();
        assert_eq!((log.of("/held").len(), log.of("/after").len()), (3, 1));
    });
}

// --- bodies that nobody wants

#[test]
fn a_large_upload_that_is_refused_is_read_a_little_and_its_refusal_arrives() {
    const TOTAL: usize = 16 * MIB;
    on_both(&Settings::default(), async |world, client| {
        let mark = world.upstream.mark();
        for payload in [Payload::StreamedLength(TOTAL as u64), Payload::Streamed] {
            let client = client.fresh();
            let request = Request::new("POST", "/upload").payload(payload);
            let (mut upload, mut download) = client.open(request).await;
            let piece = Bytes::from(pattern(0, 64 << 10));
            let sent = AtomicUsize::new(0);
            let upload = async {
                // A client that knows nothing but sending, until it cannot.
                while sent.load(Ordering::Relaxed) < TOTAL {
                    let sending =
                        tokio::time::timeout(Duration::from_secs(5), upload.send(piece.clone())).await;
                    if !matches!(sending, Ok(Ok(()))) {
                        return true;
                    }
                    sent.fetch_add(piece.len(), Ordering::Relaxed);
                }
                false
            };
            let (is_stopped, answer) = tokio::join!(upload, download.answer());
            assert_own(&answer.unwrap(), 401);
            let sent = sent.into_inner();
            assert!(is_stopped, "all of it was read");
            // What was read, and what fits into the buffers of both kernels or both windows.
            assert!(sent < 12 * MIB, "{sent} bytes were taken");
        }
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn unread_body_and_its_time_are_kept() {
    // Over HTTP/2 the flow control shows what was read: none.
    let settings = limits("unread_body = \"256KiB\"\nunread_body_time = \"1s\"");
    World::start(&settings).run(Protocol::Http2, async |world, client| {
        let mark = world.upstream.mark();
        let mut frames = Frames::start(world.gateway.address()).await;
        // Windows are as announced once they have come and are acknowledged.
        frames.until(|frame| frame.kind == kind::WINDOW_UPDATE && frame.stream == 0).await;
        frames.write(kind::SETTINGS, ACK, 0, &[]).await;
        let block = block(&[
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "gateway.test"),
            (":path", "/upload"),
        ]);
        frames.write(kind::HEADERS, END_HEADERS, 1, &block).await;
        // As much as its window of 256 KiB allows; each that is read is given back.
        for _ in 0..16 {
            frames.write(kind::DATA, 0, 1, &[0; 16_000]).await;
        }
        let since = Instant::now();
        let seen = frames.until(|frame| frame.kind == kind::RST_STREAM).await;
        let answered = seen.iter().find(|frame| frame.kind == kind::HEADERS && frame.stream == 1);
        assert!(answered.is_some_and(|frame| !frame.is_ok()), "{seen:?}");
        assert!(seen.last().is_some_and(|frame| frame.kind == kind::RST_STREAM), "{seen:?}");
        assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn a_refused_client_that_neither_sends_nor_leaves_is_let_go_in_time() {
    on_http1(&limits("unread_body_time = \"1s\""), async |world, client| {
        let mark = world.upstream.mark();
        let since = Instant::now();
        let mut raw =
            client.raw("POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 100000\r\n\r\nfew").await;
        assert_own(&raw.answer("POST", &[]).await.unwrap(), 401);
        assert!(raw.closed().await.is_empty());
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
        world.assert_refused(client, mark).await;
    });
}

// --- the store and passwords

/// Routes with a scheme before the token's whose look-ups last until the gate is open.
fn slow_store(lines: &str) -> Settings {
    Settings::sections(&format!(
        "[authentication.schemes.slow]\nkind = \"token\"\nkeyword = \"Slow\"\n\
         [routes.everything]\npath = \"/\"\nupstream = \"legacy\"\nschemes = [\"slow\", \"token\"]\n[limits]\n{lines}\n"
    ))
}

#[expect(clippy::needless_pass_by_value, reason = "a closure, written where it is passed")]
fn on_both_with_slow_store(lines: &str, case: impl AsyncFn(&World, &Client, &Gate)) {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let gate = Gate::closed();
        let options = slow_scheme("slow", &gate);
        let world = World::with(TestUpstream::start(), &slow_store(lines), options);
        world.run(protocol, async |world, client| case(world, client, &gate).await);
        // A look-up that was begun runs to its end.
        gate.open();
    }
}

#[test]
fn store_time_bounds_a_look_up() {
    on_both_with_slow_store("store_time = \"300ms\"", async |world, client, _| {
        let mark = world.upstream.mark();
        let since = Instant::now();
        assert_try_again(&client.send(world.get("/").field("X-Slow", "1")).await);
        assert!(since.elapsed() >= Duration::from_millis(300), "{:?}", since.elapsed());
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn store_pending_bounds_the_look_ups_that_wait() {
    on_both_with_slow_store("store_pending = 2\nstore_time = \"60s\"", async |world, client, gate| {
        let mark = world.upstream.mark();
        let slow = || {
            let (client, request) = (client.fresh(), world.get("/slow").field("X-Slow", "1"));
            async move { client.send(request).await }
        };
        let refused = async {
            // Once two wait, all others are refused.
            let refused = tokio::time::timeout(PATIENCE, slow()).await.expect("refused at once");
            assert_try_again(&refused);
            let (requests, bytes) = world.upstream.since(mark);
            assert!(requests.is_empty() && bytes == 0, "{requests:?}");
            gate.open();
        };
        let mut two = [Box::pin(slow()), Box::pin(slow())];
        let [one, other] = &mut two;
        // So that the two are there first.
        let waiting = async { tokio::join!(one, other) };
        let later = async {
            sleep(Duration::from_millis(300)).await;
            refused.await;
        };
        let ((one, other), ()) = tokio::join!(waiting, later);
        // The slow scheme says that the request is not its own; the token's is asked.
        assert_eq!((one.status, other.status), (200, 200));
    });
}

#[test]
fn password_queue_bounds_the_passwords_that_wait() {
    let sections = format!(
        "{ROUTES}\n[routes.obtain]\npath = \"/obtain\"\nhandler = \"obtain-token\"\n[limits]\npassword_queue = 1\n\
         [authentication]\nguard = \"off\"\n"
    );
    on_both(&Settings::sections(&sections), async |world, client| {
        assert_eq!(client.send(world.get("/known")).await.status, 200);
        let mark = world.upstream.mark();
        let body = r#"{"username": "alice", "password": "wrong"}"#;
        let attempts: Vec<_> = (0..40)
            .map(|_| {
                let client = client.fresh();
                let request = Request::post("/obtain", body).field("Content-Type", "application/json");
                tokio::spawn(async move { client.send(request).await })
            })
            .collect();
        // Others do not wait for passwords.
        for _ in 0..5 {
            let since = Instant::now();
            assert_eq!(client.send(world.get("/known")).await.status, 200);
            assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
        }
        let (mut checked, mut busy) = (0, 0);
        for attempt in attempts {
            let answer = attempt.await.unwrap();
            if answer.status == 400 {
                checked += 1;
            } else {
                assert_try_again(&answer);
                busy += 1;
            }
        }
        assert!(checked > 0 && busy > 0, "{checked} were checked, {busy} refused");
        let (requests, _) = world.upstream.since(mark);
        assert!(requests.iter().all(|request| request.target == "/known"), "{requests:?}");
        // Afterwards there is room again.
        let right = r#"{"username": "alice", "password": "correct horse battery staple"}"#;
        let request = Request::post("/obtain", right).field("Content-Type", "application/json");
        assert_eq!(client.send(request).await.status, 200);
    });
}

#[test]
fn throttle_bytes_bounds_the_counters_and_the_longest_idle_go() {
    let sections = format!(
        "{ROUTES}\n[throttles.one]\nrate = \"1/day\"\n[routes.obtain]\npath = \"/obtain\"\n\
         handler = \"obtain-token\"\nthrottles = [\"one\"]\n[limits]\nthrottle_bytes = \"1MiB\"\n\
         [clients]\ntrusted_proxies = [\"127.0.0.1\"]\n"
    );
    // Three quarters of 1 MiB are room for 5,461 counters of 144 bytes.
    World::start(&Settings::sections(&sections)).run(Protocol::Http2, async |_, client| {
        let status = async |number: u32| {
            let from = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).to_string();
            client.send(Request::get("/obtain").field("X-Forwarded-For", from)).await.status
        };
        assert_eq!((status(0).await, status(0).await), (405, 429));
        for first in (1..10_000).step_by(50) {
            let batch = futures_util::future::join_all((first..first + 50).map(status)).await;
            assert!(batch.iter().all(|status| *status == 405), "{batch:?}");
        }
        assert_eq!((status(9_999).await, status(0).await), (429, 405));
    });
}

// --- expectations

fn expecting(token: &str, expectation: &str) -> String {
    format!(
        "POST /expect HTTP/1.1\r\nHost: gateway.test\r\n{token}Expect: {expectation}\r\nContent-Length: 4\r\n\r\n"
    )
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it_and_then_its_answer() {
    on_http1(&Settings::default(), async |world, client| {
        let token = format!("Authorization: Token {}\r\n", world.token);
        let mut raw = client.raw(expecting(&token, "100-continue")).await;
        assert_eq!(raw.interim().await, 100);
        raw.write("body").await;
        let answer = raw.answer("POST", &[]).await.unwrap();
        assert_eq!((answer.status, answer.interim.as_slice()), (200, [].as_slice()));
        let request = world.upstream.last();
        assert!(request.body == b"body" && request.complete);
    });
}

#[test]
fn a_refused_client_that_waits_for_100_continue_is_not_asked_for_its_body() {
    on_http1(&Settings::default(), async |world, client| {
        let mark = world.upstream.mark();
        let mut raw = client.raw(expecting("", "100-continue")).await;
        let answer = raw.answer("POST", &[]).await.unwrap();
        assert_own(&answer, 401);
        assert!(answer.interim.is_empty(), "{answer:?}");
        // The body may still come or not: nobody could tell it from a request, so the connection ends.
        assert!(raw.closed().await.is_empty());
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn an_unknown_expectation_fails() {
    on_both(&Settings::default(), async |world, client| {
        let mark = world.upstream.mark();
        let answer = client.send(world.post("/tea", "body").field("Expect", "tea")).await;
        assert_own(&answer, 417);
        assert_eq!(answer.text(), r#"{"detail":"Expectation failed."}"#);
        world.assert_refused(client, mark).await;
    });
}

// --- pipelining, and clients that go

#[test]
fn pipelined_requests_are_answered_in_order() {
    on_http1(&Settings::default(), async |world, client| {
        // The first takes longest.
        let echo = |request: &Recorded| answer("200 OK", &[], &request.target);
        world.upstream.otherwise(vec![Step::ReadBody, Step::Answer(echo)]);
        let slow = vec![Step::ReadBody, Step::Delay(Duration::from_millis(300)), Step::Answer(echo)];
        world.upstream.script("/0", slow);
        let head = |number: usize, fields: &str| {
            format!("GET /{number} HTTP/1.1\r\nHost: gateway.test\r\n{fields}\r\n")
        };
        let token = format!("Authorization: Token {}\r\n", world.token);
        let bytes: String = (0..6)
            .map(|number| match number {
                2 => head(2, ""),
                // Its body looks like the beginning of a request.
                4 => head(4, &format!("{token}Content-Length: 5\r\n")) + "GET /",
                number => head(number, &token),
            })
            .collect();
        let mut raw = client.raw(bytes).await;
        for number in 0..6 {
            let answer =
                raw.answer("GET", &[]).await.unwrap_or_else(|error| panic!("no answer {number}: {error:?}"));
            if number == 2 {
                assert_own(&answer, 401);
            } else {
                assert_eq!((answer.status, answer.text()), (200, format!("/{number}")));
            }
        }
        let seen: Vec<_> =
            world.upstream.log().requests.iter().map(|request| request.target.clone()).collect();
        assert_eq!(seen, ["/0", "/1", "/3", "/4", "/5"]);
    });
}

#[test]
fn a_client_that_disappears_in_its_upload_never_looks_complete() {
    on_both(&Settings::default(), async |world, client| {
        for (connection, payload) in
            [Payload::StreamedLength(1000), Payload::Streamed].into_iter().enumerate()
        {
            let leaver = client.fresh();
            let request = Request::new("POST", "/half").payload(payload).token(&world.token);
            let (mut upload, download) = leaver.open(request).await;
            upload.send(pattern(0, 100)).await.unwrap();
            let has_half = |log: &Log| {
                let all = log.of("/half");
                all.len() == connection + 1 && all.last().is_some_and(|request| request.body.len() == 100)
            };
            world.upstream.wait_for("the first half", has_half).await;
            // No word of farewell: neither close_notify nor RST_STREAM.
            drop((upload, download, leaver));
            world.upstream.wait_for_close(connection).await;
            assert!(!world.upstream.last().complete);
        }
        assert_eq!(world.upstream.log().of("/half").len(), 2, "what broke off is not tried again");
    });
}
