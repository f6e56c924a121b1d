//! The upstream client, item by item of what a proxy has to get right: framing, timeouts, reuse, retry, refusal.
//!
//! The upstream misbehaves in every way seen in the field. What is asserted is what the client sees and, byte for
//! byte, what the upstream saw.

use crate::harness::client::{Answer, Client, Payload, Protocol, Request};
use crate::harness::gate::Gate;
use crate::harness::pattern;
use crate::harness::refusing::FullListener;
use crate::harness::script::{Step, answer, respond, respond_and_close};
use crate::harness::upstream::TestUpstream;
use crate::harness::wire::Framing;
use crate::harness::world::{Settings, World, assert_own, on_both, on_http1};
use std::time::Duration;
use tokio::time::Instant;

const MIB: usize = 1 << 20;

/// Short timeouts, for the cases about them.
fn hasty() -> Settings {
    Settings { timeout: r#"connect = "400ms", response = "400ms", idle = "400ms""#, ..Settings::default() }
}

/// The gateway works: the next request is answered by the upstream.
async fn assert_works(world: &World, client: &Client) {
    let answer = client.send(world.get("/next")).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{answer:?}");
}

// --- bodies of requests

#[test]
fn a_body_with_a_length_arrives_with_that_length() {
    on_both(&Settings::default(), async |world, client| {
        let body = pattern(0, 300_000);
        let answer = client.send(world.post("/upload", body.clone())).await;
        assert_eq!(answer.status, 200);
        let request = world.upstream.last();
        assert_eq!(request.framing, Framing::Length(300_000));
        assert_eq!(request.one("content-length").as_deref(), Some("300000"));
        assert_eq!(request.one("transfer-encoding"), None);
        assert!(request.body == body && request.complete);
    });
}

#[test]
fn a_body_without_a_length_arrives_chunked() {
    on_both(&Settings::default(), async |world, client| {
        let body = pattern(0, 300_000);
        let request =
            Request::new("PUT", "/upload").payload(Payload::Unsized(body.clone())).token(&world.token);
        assert_eq!(client.send(request).await.status, 200);
        let request = world.upstream.last();
        assert_eq!(request.framing, Framing::Chunked);
        assert_eq!(request.one("content-length"), None);
        assert_eq!(request.one("transfer-encoding").as_deref(), Some("chunked"));
        assert!(request.body == body && request.complete);
    });
}

#[test]
fn a_request_without_a_body_gets_no_framing() {
    on_both(&Settings::default(), async |world, client| {
        for method in ["GET", "HEAD", "DELETE"] {
            assert_eq!(client.send(Request::new(method, "/none").token(&world.token)).await.status, 200);
            let request = world.upstream.last();
            assert_eq!((request.method.as_str(), request.framing), (method, Framing::None));
        }
    });
}

#[test]
fn an_empty_body_is_unambiguous() {
    on_both(&Settings::default(), async |world, client| {
        for payload in [Payload::Length(Vec::new()), Payload::Unsized(Vec::new())] {
            let request = Request::new("POST", "/empty").payload(payload).token(&world.token);
            assert_eq!(client.send(request).await.status, 200);
            let request = world.upstream.last();
            assert!(request.complete && request.body.is_empty());
        }
        assert_works(world, client).await;
    });
}

#[test]
fn a_body_is_a_body_whatever_the_method() {
    on_both(&Settings::default(), async |world, client| {
        for method in ["GET", "DELETE", "PATCH", "REPORT"] {
            let request = Request::new(method, "/body").payload(Payload::Length(b"smuggled?".to_vec()));
            assert_eq!(client.send(request.token(&world.token)).await.status, 200);
            let request = world.upstream.last();
            assert_eq!((request.method.as_str(), request.body.as_slice()), (method, b"smuggled?".as_slice()));
        }
    });
}

#[test]
fn trailers_of_a_request_are_dropped() {
    on_both(&Settings::default(), async |world, client| {
        let request = Request::new("POST", "/trailers").payload(Payload::Unsized(b"body".to_vec()));
        let request = request.trailer("X-Checksum", "1").trailer("Remote-User", "root").token(&world.token);
        assert_eq!(client.send(request).await.status, 200);
        let request = world.upstream.last();
        assert_eq!(request.body, b"body");
        assert!(request.trailers.is_empty(), "{:?}", request.trailers);
        assert_eq!(request.one("trailer"), None);
        assert_eq!(request.one("x-checksum"), None);
    });
}

#[test]
fn sixteen_mebibytes_are_echoed_while_they_are_sent() {
    on_both(&Settings::default(), async |world, client| {
        const PIECE: usize = 64 << 10;
        world.upstream.script("/echo", vec![Step::Echo]);
        let request = Request::new("POST", "/echo").payload(Payload::Streamed).token(&world.token);
        let (mut upload, mut download) = client.open(request).await;
        // Each of the first pieces comes back before the next is sent: neither direction waits for the other's end.
        upload.send(pattern(0, PIECE)).await.unwrap();
        assert_eq!(download.head().await.unwrap().status, 200);
        let mut received = Vec::new();
        for number in 1..4 {
            while received.len() < number * PIECE {
                received.extend(download.piece().await.unwrap().expect("more to come"));
            }
            upload.send(pattern(number * PIECE, PIECE)).await.unwrap();
        }
        let upload = async {
            for number in 4..16 * MIB / PIECE {
                upload.send(pattern(number * PIECE, PIECE)).await.unwrap();
            }
            upload.finish().await.unwrap();
        };
        let download = async {
            while let Some(piece) = download.piece().await.expect("not cut off") {
                received.extend(piece);
            }
        };
        tokio::join!(upload, download);
        assert!(received == pattern(0, 16 * MIB), "{} bytes came back, or others", received.len());
        let request = world.upstream.last();
        assert!(request.complete && request.body.len() == 16 * MIB);
    });
}

#[test]
fn an_upload_that_breaks_off_never_looks_complete() {
    on_both(&Settings::default(), async |world, client| {
        let with_length = Payload::StreamedLength(1000);
        for (count, payload) in [with_length, Payload::Streamed].into_iter().enumerate() {
            let client = client.fresh();
            let request = Request::new("POST", "/half").payload(payload).token(&world.token);
            let (mut upload, download) = client.open(request).await;
            upload.send(pattern(0, 100)).await.unwrap();
            let came = |log: &crate::harness::upstream::Log| {
                log.of("/half").last().is_some_and(|r| r.body.len() == 100)
            };
            world
                .upstream
                .wait_for("the first half", |log| log.of("/half").len() == count + 1 && came(log))
                .await;
            upload.abort().await;
            drop((download, client));
            let connection = world.upstream.last().connection;
            world.upstream.wait_for_close(connection).await;
            assert!(!world.upstream.last().complete);
        }
        assert_works(world, client).await;
    });
}

#[test]
fn expectation_is_answered_by_the_gateway_and_not_forwarded() {
    on_http1(&Settings::default(), async |world, client| {
        let head = format!(
            "POST /expect HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Token {}\r\n\
             Expect: 100-continue\r\nContent-Length: 4\r\n\r\n",
            world.token
        );
        let mut raw = client.raw(head).await;
        world.upstream.wait_for("the head", |log| log.of("/expect").len() == 1).await;
        raw.write("body").await;
        let answer = raw.answer("POST", &[]).await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(
            answer.interim.len() <= 1 && answer.interim.iter().all(|status| *status == 100),
            "{answer:?}"
        );
        assert_eq!(world.upstream.last().one("expect"), None);
    });
}

// --- bodies of answers

#[test]
fn an_answer_with_a_length_arrives_intact() {
    on_both(&Settings::default(), async |world, client| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Up: 1\r\n\r\n", 4 * MIB);
        let script = vec![Step::ReadBody, Step::Send(head.into_bytes()), Step::Stream(4 * MIB)];
        world.upstream.script("/long", script);
        let answer = client.send(world.get("/long").expect(&["X-Up"])).await;
        assert_eq!(answer.one("content-length"), Some((4 * MIB).to_string()));
        assert_eq!(answer.one("x-up").as_deref(), Some("1"));
        assert!(!answer.truncated && answer.body == pattern(0, 4 * MIB));
    });
}

#[test]
fn a_chunked_answer_arrives_intact() {
    on_both(&Settings::default(), async |world, client| {
        let script = vec![
            Step::Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()),
            Step::StreamChunks(MIB, 5000),
            Step::Send(b"0\r\n\r\n".to_vec()),
        ];
        world.upstream.script("/chunked", script);
        let answer = client.send(world.get("/chunked")).await;
        assert!(!answer.truncated && answer.body == pattern(0, MIB));
        assert_works(world, client).await;
        assert_eq!(world.upstream.connections(), 1, "a chunked answer leaves the connection usable");
    });
}

#[test]
fn chunk_extensions_and_trailers_of_an_answer_are_dropped() {
    on_both(&Settings::default(), async |world, client| {
        let bytes = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                     3;name=value;other=\"x\"\r\nabc\r\n00A\r\n0123456789\r\n0;last\r\nX-Sum: 9\r\nRemote-User: x\r\n\r\n";
        world.upstream.script("/extended", respond(bytes));
        let answer = client.send(world.get("/extended")).await;
        assert_eq!((answer.text().as_str(), answer.truncated), ("abc0123456789", false));
        assert!(answer.trailers.is_empty());
        assert_works(world, client).await;
        assert_eq!(world.upstream.connections(), 1);
    });
}

#[test]
fn an_answer_in_single_bytes_arrives_intact() {
    on_both(&Settings::default(), async |world, client| {
        let bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let steps = bytes.iter().map(|byte| Step::Send(vec![*byte]));
        world.upstream.script("/slow", steps.collect());
        assert_eq!(client.send(world.get("/slow")).await.text(), "abcde");
        assert_works(world, client).await;
    });
}

#[test]
fn an_answer_that_ends_with_the_connection_arrives_intact() {
    on_both(&Settings::default(), async |world, client| {
        let script = vec![Step::Send(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()), Step::Stream(MIB), Step::Close];
        world.upstream.script("/close", script);
        let answer = client.send(world.get("/close")).await;
        assert!(!answer.truncated && answer.body == pattern(0, MIB), "{} bytes", answer.body.len());
        assert_works(world, client).await;
        assert_eq!(world.upstream.connections(), 2);
    });
}

#[test]
fn an_http_1_0_answer_is_understood_and_its_connection_not_reused() {
    on_both(&Settings::default(), async |world, client| {
        world.upstream.script("/old", respond_and_close("HTTP/1.0 200 OK\r\n\r\nold"));
        world.upstream.script("/old-length", respond("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold"));
        for target in ["/old", "/old-length"] {
            let answer = client.send(world.get(target)).await;
            assert_eq!((answer.text().as_str(), answer.truncated), ("old", false));
        }
        assert_works(world, client).await;
        assert_eq!(world.upstream.connections(), 3);
    });
}

#[test]
fn an_answer_is_passed_on_while_it_comes() {
    on_both(&Settings::default(), async |world, client| {
        let gate = Gate::closed();
        let script = vec![
            Step::Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n".to_vec()),
            Step::Hold(gate.clone()),
            Step::Send(b"6\r\nsecond\r\n0\r\n\r\n".to_vec()),
        ];
        world.upstream.script("/events", script);
        let (_upload, mut download) = client.open(world.get("/events")).await;
        let head = download.head().await.unwrap();
        assert_eq!(download.piece().await.unwrap().as_deref(), Some(b"first".as_slice()));
        gate.open();
        assert_eq!(download.rest(head).await.text(), "second");
    });
}

// --- interim answers

#[test]
fn interim_answers_are_swallowed() {
    on_both(&Settings::default(), async |world, client| {
        let mut bytes =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".to_vec();
        bytes.extend(answer("200 OK", &[], "final"));
        world.upstream.script("/hints", respond(bytes));
        let answer = client.send(world.get("/hints")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "final"));
        assert!(answer.interim.is_empty(), "{:?}", answer.interim);
        assert_works(world, client).await;
        assert_eq!(world.upstream.connections(), 1);
    });
}

#[test]
fn endless_interim_answers_are_a_bad_gateway() {
    on_both(&Settings::default(), async |world, client| {
        let mut script = vec![Step::ReadBody];
        script.extend((0..10_000).map(|_| Step::Send(b"HTTP/1.1 102 Processing\r\n\r\n".to_vec())));
        script.push(Step::Ok);
        world.upstream.script("/endless", script);
        assert_own(&client.send(world.get("/endless")).await, 502);
        world.upstream.wait_for_close(0).await;
        assert_works(world, client).await;
    });
}

// --- time

#[test]
fn an_upstream_that_cannot_be_connected_to_in_time_is_a_gateway_timeout() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let full = FullListener::new();
        let mut settings = hasty();
        settings.sections = format!(
            "[upstreams.full]\nservers = [\"http://{}\"]\ntimeout = {{ connect = \"400ms\" }}\n\
             [routes.everything]\npath = \"/\"\nupstream = \"full\"\nschemes = [\"token\"]\n",
            full.address
        );
        World::start(&settings).run(protocol, async |world, client| {
            let before = Instant::now();
            assert_own(&client.send(world.get("/")).await, 504);
            assert!(before.elapsed() < Duration::from_secs(3), "took {:?}", before.elapsed());
        });
    }
}

#[test]
fn an_upstream_that_does_not_answer_in_time_is_a_gateway_timeout() {
    on_both(&hasty(), async |world, client| {
        world.upstream.script("/never", vec![Step::Silence]);
        assert_own(&client.send(world.get("/never")).await, 504);
        world.upstream.wait_for_close(0).await;
        assert_eq!(world.upstream.log().of("/never").len(), 1, "a timeout is not tried again");
        assert_works(world, client).await;
    });
}

#[test]
fn half_a_head_is_a_gateway_timeout() {
    on_both(&hasty(), async |world, client| {
        let script = vec![Step::Send(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()), Step::Silence];
        world.upstream.script("/half", script);
        assert_own(&client.send(world.get("/half")).await, 504);
        assert_works(world, client).await;
    });
}

#[test]
fn interim_answers_do_not_put_the_timeout_off_for_ever() {
    on_both(&hasty(), async |world, client| {
        let mut script = vec![Step::ReadBody];
        for _ in 0..30 {
            script.push(Step::Send(b"HTTP/1.1 102 Processing\r\n\r\n".to_vec()));
            script.push(Step::Delay(Duration::from_millis(100)));
        }
        script.push(Step::Silence);
        world.upstream.script("/processing", script);
        let answer = client.send(world.get("/processing")).await;
        assert!([502, 504].contains(&answer.status), "{answer:?}");
        assert_own(&answer, answer.status);
    });
}

#[test]
fn a_slow_answer_within_the_timeout_arrives() {
    on_both(&Settings::default(), async |world, client| {
        let script = vec![Step::ReadBody, Step::Delay(Duration::from_millis(300)), Step::Ok];
        world.upstream.script("/slow", script);
        assert_eq!(client.send(world.get("/slow")).await.text(), "ok");
    });
}

#[test]
fn an_answer_that_stalls_is_visibly_truncated() {
    on_both(&hasty(), async |world, client| {
        let with_length = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec();
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_vec();
        let by_close = b"HTTP/1.1 200 OK\r\n\r\nhalf".to_vec();
        for (connection, bytes) in [with_length, chunked, by_close].into_iter().enumerate() {
            world.upstream.script("/stall", vec![Step::Send(bytes), Step::Silence]);
            let answer = client.send(world.get("/stall")).await;
            assert!(answer.truncated && answer.text() == "half", "{answer:?}");
            world.upstream.wait_for_close(connection).await;
        }
        assert_works(world, client).await;
    });
}

#[test]
fn an_answer_that_goes_on_slowly_is_not_cut_off() {
    on_both(&hasty(), async |world, client| {
        let mut script = vec![Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n".to_vec())];
        for byte in b"slowly" {
            script.push(Step::Delay(Duration::from_millis(120)));
            script.push(Step::Send(vec![*byte]));
        }
        world.upstream.script("/slowly", script);
        let answer = client.send(world.get("/slowly")).await;
        assert_eq!((answer.text().as_str(), answer.truncated), ("slowly", false));
    });
}

#[test]
fn an_upstream_that_does_not_read_is_a_gateway_timeout() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::before(TestUpstream::start_deaf(), &hasty());
        world.run(protocol, async |world, client| {
            assert_own(&client.send(world.get("/")).await, 504);
            // More than the sockets' buffers hold: the gateway is stuck in the middle of the body.
            let request = world.post("/", pattern(0, 16 * MIB));
            if let Ok(answer) = client.fresh().try_send(request).await {
                assert_own(&answer, 504);
            }
        });
    }
}

// --- an upstream that is away

#[test]
fn a_refused_connection_is_a_bad_gateway() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::before(TestUpstream::down(), &Settings::default());
        world.run(protocol, async |world, client| {
            let before = Instant::now();
            assert_own(&client.send(world.get("/")).await, 502);
            assert_own(&client.send(world.post("/", "body")).await, 502);
            assert!(before.elapsed() < Duration::from_secs(2), "took {:?}", before.elapsed());
        });
    }
}

#[test]
fn an_upstream_that_is_back_is_used_at_once() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut world = World::start(&Settings::default());
        world.run(protocol, async |world, client| assert_works(world, client).await);
        world.upstream.stop();
        world.run(protocol, async |world, client| {
            for _ in 0..5 {
                assert_own(&client.send(world.get("/")).await, 502);
            }
        });
        world.upstream.restart();
        world.run(protocol, async |world, client| assert_works(world, client).await);
    }
}

#[test]
fn an_upstream_behind_a_unix_socket_is_reached() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let directory = tempfile::tempdir().unwrap();
        let upstream = TestUpstream::start_unix(&directory.path().join("upstream.sock"));
        World::before(upstream, &Settings::default()).run(protocol, async |world, client| {
            assert_eq!(client.send(world.post("/", "body")).await.text(), "ok");
            assert_works(world, client).await;
            assert_eq!(world.upstream.connections(), 1);
        });
    }
}

// --- half-closed connections

#[test]
fn an_upstream_that_ends_its_side_is_not_taken_for_a_broken_one() {
    on_both(&Settings::default(), async |world, client| {
        let script = vec![
            Step::ReadSome(1),
            Step::Send(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n0\r\n\r\n".to_vec(),
            ),
            Step::FinishSending,
            Step::ReadBody,
        ];
        world.upstream.script("/half", script);
        let request = Request::new("POST", "/half").payload(Payload::Streamed).token(&world.token);
        let (mut upload, mut download) = client.open(request).await;
        upload.send(pattern(0, 1000)).await.unwrap();
        let head = download.head().await.unwrap();
        assert_eq!(head.status, 200);
        // Once the answer is complete the gateway may take the rest of the upload or not, but never half of it for all.
        let rest_of_upload = async {
            if upload.send(pattern(1000, 100_000)).await.is_ok() {
                drop(upload.finish().await);
            }
        };
        let (answer, ()) = tokio::join!(download.rest(head), rest_of_upload);
        assert_eq!((answer.text().as_str(), answer.truncated), ("early", false));
        world.upstream.wait_for("the end", |log| log.requests[0].complete || log.connections[0].closed).await;
        let request = world.upstream.last();
        assert!(!request.complete || request.body == pattern(0, 101_000));
        assert_works(world, &client.fresh()).await;
        assert_eq!(world.upstream.last().connection, 1, "what is half closed is not used again");
    });
}

#[test]
fn a_client_that_ends_its_side_still_gets_the_answer() {
    on_http1(&Settings::default(), async |world, client| {
        let gate = Gate::closed();
        world.upstream.script("/fin", vec![Step::ReadBody, Step::Hold(gate.clone()), Step::Ok]);
        let request = format!(
            "POST /fin HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Token {}\r\nContent-Length: 4\r\n\r\nbody",
            world.token
        );
        let mut raw = client.raw(request).await;
        raw.finish_sending().await;
        world.upstream.wait_for_requests(1).await;
        gate.open();
        let answer = raw.answer("POST", &[]).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    });
}

// --- which connections are used again

#[test]
fn requests_one_after_the_other_share_a_connection() {
    on_both(&Settings::default(), async |world, client| {
        for number in 0..10 {
            assert_eq!(client.send(world.get("/get")).await.status, 200);
            assert_eq!(client.send(world.post("/post", pattern(number, 1000 * number))).await.status, 200);
            let chunked = Request::new("POST", "/chunked").payload(Payload::Unsized(pattern(0, 10)));
            assert_eq!(client.send(chunked.token(&world.token)).await.status, 200);
        }
        assert_eq!(world.upstream.log().requests.len(), 30);
        assert_eq!(world.upstream.connections(), 1);
    });
}

#[test]
fn clients_share_connections_and_keep_their_identities() {
    on_both(&Settings::default(), async |world, client| {
        assert_eq!(client.send(world.get("/mine")).await.status, 200);
        let other = client.fresh();
        let mark = world.upstream.mark();
        assert_own(&other.send(Request::get("/theirs")).await, 401);
        world.assert_refused(&other, mark).await;
        assert_eq!(other.send(Request::get("/public")).await.status, 200);
        let request = world.upstream.last();
        assert_eq!((request.connection, request.one("remote-user")), (0, None));
    });
}

#[test]
fn an_answer_with_connection_close_ends_the_connection() {
    on_both(&Settings::default(), async |world, client| {
        for (connection, value) in
            ["close", "Close", "keep-alive, close", "x-a , CLOSE"].into_iter().enumerate()
        {
            world.upstream.script("/last", respond(answer("200 OK", &[("Connection", value)], "last")));
            assert_eq!(client.send(world.get("/last")).await.text(), "last");
            assert_eq!(world.upstream.last().connection, connection, "{value}");
            world.upstream.wait_for_close(connection).await;
        }
        assert_works(world, client).await;
    });
}

#[test]
fn hop_by_hop_fields_of_an_answer_are_removed() {
    on_both(&Settings::default(), async |world, client| {
        let fields = [
            ("Connection", "X-Nominated, Keep-Alive"),
            ("X-Nominated", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("Proxy-Authenticate", "Basic"),
            ("Upgrade", "h2c"),
            ("Trailer", "X-Sum"),
            ("TE", "gzip"),
            ("X-End-To-End", "kept"),
        ];
        world.upstream.script("/hop", respond(answer("200 OK", &fields, "body")));
        // What is not expected here and comes all the same fails the request.
        let answer = client.send(world.get("/hop").expect(&["X-End-To-End"])).await;
        assert_eq!(answer.one("x-end-to-end").as_deref(), Some("kept"));
    });
}

#[test]
fn hop_by_hop_fields_of_a_request_are_removed() {
    on_http1(&Settings::default(), async |world, client| {
        let request = world
            .get("/hop")
            .field("Connection", "X-Nominated, keep-alive")
            .field("X-Nominated", "1")
            .field("Keep-Alive", "timeout=5")
            .field("Proxy-Connection", "keep-alive")
            .field("Proxy-Authorization", "Basic eDp5")
            .field("TE", "gzip")
            .field("Trailer", "X-Sum")
            .field("Upgrade", "h2c")
            .field("HTTP2-Settings", "AAMAAABkAAQAAP__")
            .field("X-End-To-End", "kept");
        assert_eq!(client.send(request).await.status, 200);
        let request = world.upstream.last();
        assert_eq!(request.one("x-end-to-end").as_deref(), Some("kept"));
        for name in [
            "x-nominated",
            "keep-alive",
            "proxy-connection",
            "proxy-authorization",
            "te",
            "trailer",
            "upgrade",
            "http2-settings",
        ] {
            assert_eq!(request.all(name), Vec::<String>::new(), "{name}");
        }
        let connection = request.one("connection");
        assert!(connection.as_deref().is_none_or(|value| value == "keep-alive"), "{connection:?}");
    });
}

#[test]
fn te_trailers_of_an_http2_request_is_removed() {
    World::start(&Settings::default()).run(Protocol::Http2, async |world, client| {
        assert_eq!(client.send(world.get("/te").field("te", "trailers")).await.status, 200);
        assert_eq!(world.upstream.last().one("te"), None);
    });
}

#[test]
fn framing_cannot_be_nominated_away() {
    on_http1(&Settings::default(), async |world, client| {
        let request = world
            .post("/framing", "body")
            .field("Connection", "Content-Length, Host, Remote-User, X-Request-Id");
        let answer = client.send(request).await;
        if answer.status == 200 {
            let request = world.upstream.last();
            assert_eq!(request.body, b"body");
            assert_eq!(request.one("remote-user").as_deref(), Some("alice"));
            assert!(request.one("x-request-id").is_some());
        } else {
            assert_own(&answer, 400);
        }
    });
}

// --- stale connections

#[test]
fn a_get_on_a_stale_connection_is_sent_again_once() {
    on_both(&Settings::default(), async |world, client| {
        // The upstream takes the second request and closes without a word, as one whose idle time is over does.
        world
            .upstream
            .scripts("/stale", vec![vec![Step::ReadBody, Step::Ok], vec![Step::Close], vec![Step::Ok]]);
        assert_eq!(client.send(world.get("/stale")).await.text(), "ok");
        assert_eq!(client.send(world.get("/stale")).await.text(), "ok");
        let connections: Vec<_> =
            world.upstream.log().requests.iter().map(|request| request.connection).collect();
        assert_eq!(connections, [0, 0, 1]);
    });
}

#[test]
fn a_stale_connection_gives_its_place_to_the_one_that_replaces_it() {
    let settings = Settings { upstream: "connections = 1\nqueue_time = \"1s\"", ..Settings::default() };
    on_both(&settings, async |world, client| {
        world
            .upstream
            .scripts("/stale", vec![vec![Step::ReadBody, Step::Ok], vec![Step::Close], vec![Step::Ok]]);
        assert_eq!(client.send(world.get("/stale")).await.text(), "ok");
        assert_eq!(client.send(world.get("/stale")).await.status, 200);
    });
}

#[test]
fn a_get_on_a_reset_connection_is_sent_again_once() {
    on_both(&Settings::default(), async |world, client| {
        world
            .upstream
            .scripts("/stale", vec![vec![Step::ReadBody, Step::Ok], vec![Step::Reset], vec![Step::Ok]]);
        assert_eq!(client.send(world.get("/stale")).await.text(), "ok");
        assert_eq!(client.send(world.get("/stale")).await.text(), "ok");
        assert_eq!(world.upstream.log().requests.len(), 3);
    });
}

#[test]
fn a_get_is_not_sent_for_ever() {
    on_both(&Settings::default(), async |world, client| {
        assert_works(world, client).await;
        world.upstream.script("/broken", vec![Step::Close]);
        assert_own(&client.send(world.get("/broken")).await, 502);
        let connections: Vec<_> =
            world.upstream.log().of("/broken").iter().map(|request| request.connection).collect();
        assert_eq!(connections, [0, 1], "once on the pooled connection, once on a new one");
    });
}

#[test]
fn a_get_on_a_new_connection_is_not_sent_again() {
    on_both(&Settings::default(), async |world, client| {
        world.upstream.script("/broken", vec![Step::Close]);
        assert_own(&client.send(world.get("/broken")).await, 502);
        assert_eq!(world.upstream.log().requests.len(), 1);
    });
}

#[test]
fn a_get_whose_answer_began_is_not_sent_again() {
    on_both(&Settings::default(), async |world, client| {
        assert_works(world, client).await;
        world.upstream.script("/began", vec![Step::Send(b"HTTP/1.1 200".to_vec()), Step::Close]);
        assert_own(&client.send(world.get("/began")).await, 502);
        assert_eq!(world.upstream.log().of("/began").len(), 1);
    });
}

#[test]
fn a_post_is_never_sent_again() {
    on_both(&Settings::default(), async |world, client| {
        for request in [
            world.post("/pay", "100"),
            Request::new("POST", "/pay").payload(Payload::Unsized(b"100".to_vec())).token(&world.token),
            Request::new("POST", "/pay").token(&world.token),
            Request::new("PATCH", "/pay").token(&world.token),
        ] {
            assert_works(world, client).await;
            world.upstream.script("/pay", vec![Step::ReadBody, Step::Close]);
            let mark = world.upstream.mark();
            assert_own(&client.send(request).await, 502);
            let (requests, _) = world.upstream.since(mark);
            assert_eq!(requests.len(), 1, "{requests:?}");
        }
    });
}

#[test]
fn a_put_with_a_body_is_not_sent_again() {
    on_both(&Settings::default(), async |world, client| {
        assert_works(world, client).await;
        world.upstream.script("/put", vec![Step::ReadBody, Step::Close]);
        let request =
            Request::new("PUT", "/put").payload(Payload::Length(b"body".to_vec())).token(&world.token);
        assert_own(&client.send(request).await, 502);
        assert_eq!(world.upstream.log().of("/put").len(), 1);
    });
}

#[test]
fn an_idle_connection_that_the_upstream_closed_costs_no_request() {
    on_both(&Settings::default(), async |world, client| {
        let gate = Gate::closed();
        world.upstream.script("/idle", vec![Step::Ok, Step::Hold(gate.clone()), Step::Close]);
        assert_eq!(client.send(world.get("/idle")).await.text(), "ok");
        gate.open();
        world.upstream.wait_for_close(0).await;
        // The FIN is there before the request is sent, so that even a POST can go on a new connection.
        assert_eq!(client.send(world.post("/after", "body")).await.text(), "ok");
        assert_eq!(world.upstream.log().of("/after").len(), 1);
        assert_eq!(world.upstream.last().connection, 1);
    });
}

// --- more than was asked for

/// An answer that nobody asked for.
fn evil() -> Vec<u8> {
    answer("200 OK", &[("X-Evil", "1")], "evil")
}

#[test]
fn surplus_bytes_with_an_answer_are_never_seen() {
    on_both(&Settings::default(), async |world, client| {
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n".to_vec();
        let empty = b"HTTP/1.1 204 No Content\r\n\r\n".to_vec();
        for (connection, mut bytes) in [answer("200 OK", &[], "good"), chunked, empty].into_iter().enumerate()
        {
            bytes.extend(evil());
            world.upstream.script("/surplus", respond(bytes));
            let answer = client.send(world.get("/surplus")).await;
            assert!(answer.status == 204 || answer.text() == "good", "{answer:?}");
            world.upstream.wait_for_close(connection).await;
        }
        assert_works(world, client).await;
        assert_eq!(world.upstream.last().connection, 3);
    });
}

#[test]
fn surplus_bytes_after_an_answer_are_never_seen() {
    on_both(&Settings::default(), async |world, client| {
        let gate = Gate::closed();
        let script = vec![Step::Ok, Step::Hold(gate.clone()), Step::Send(evil())];
        world.upstream.script("/late", script);
        assert_eq!(client.send(world.get("/late")).await.text(), "ok");
        gate.open();
        world.upstream.wait_for("the surplus is sent", |log| log.finished == 1).await;
        for _ in 0..3 {
            assert_works(world, client).await;
            assert_eq!(world.upstream.last().connection, 1);
        }
    });
}

#[test]
fn surplus_bytes_are_not_the_answer_to_a_post() {
    on_both(&Settings::default(), async |world, client| {
        let gate = Gate::closed();
        world.upstream.script("/late", vec![Step::Ok, Step::Hold(gate.clone()), Step::Send(evil())]);
        assert_eq!(client.send(world.get("/late")).await.text(), "ok");
        gate.open();
        world.upstream.wait_for("the surplus is sent", |log| log.finished == 1).await;
        assert_eq!(client.send(world.post("/post", "body")).await.text(), "ok");
        assert_eq!(world.upstream.log().of("/post").len(), 1);
    });
}

// --- what is not HTTP

async fn assert_bad_gateway(world: &World, client: &Client, bytes: Vec<u8>) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
    let connection = world.upstream.connections();
    // The connection stays open on the upstream's side: whether it is dropped is the gateway's doing.
    world.upstream.script("/bad", vec![Step::ReadBody, Step::Send(bytes), Step::Silence]);
    // POST: it is not tried again, and nothing but the answer decides.
    let answer = client.send(world.post("/bad", "body").field("Connection-Test", "1")).await;
    assert_eq!(answer.status, 502, "{shown:?} gave {answer:?}");
    assert_own(&answer, 502);
    world.upstream.wait_for_close(connection).await;
    assert_eq!(world.upstream.last().connection, connection, "{shown:?}");
}

#[test]
fn an_answer_with_invalid_framing_is_a_bad_gateway() {
    on_both(&Settings::default(), async |world, client| {
        for fields in [
            "Content-Length: 4\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 4",
            "Content-Length: 4\r\nContent-Length: 5",
            "Content-Length: 4, 5",
            "Content-Length: -1",
            "Content-Length: +4",
            "Content-Length: 0x4",
            "Content-Length: 4 4",
            "Content-Length: ",
            "Content-Length: 99999999999999999999999999",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, gzip",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: ",
        ] {
            let bytes = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n4\r\nbody\r\n0\r\n\r\n");
            assert_bad_gateway(world, client, bytes.into_bytes()).await;
        }
        assert_works(world, client).await;
    });
}

#[test]
fn an_answer_with_a_malformed_head_is_a_bad_gateway() {
    on_both(&Settings::default(), async |world, client| {
        for head in [
            "HTTP/2.0 200 OK\r\nContent-Length: 0",
            "HTTP/1.1 20 OK\r\nContent-Length: 0",
            "HTTP/1.1 2000 OK\r\nContent-Length: 0",
            "HTTP/1.1 abc OK\r\nContent-Length: 0",
            "HTTP/1.1 000 OK\r\nContent-Length: 0",
            "ICY 200 OK\r\nContent-Length: 0",
            "{\"not\": \"http\"}",
            "HTTP/1.1 200 OK\r\nNo colon\r\nContent-Length: 0",
            "HTTP/1.1 200 OK\r\nSpace : before colon\r\nContent-Length: 0",
            "HTTP/1.1 200 OK\r\n: no name\r\nContent-Length: 0",
            "HTTP/1.1 200 OK\r\nX-Nul: a\0b\r\nContent-Length: 0",
            "HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\nContent-Length: 0",
            "HTTP/1.1 200 OK\r\n X-Blank: first\r\nContent-Length: 0",
            "HTTP/1.1 200 OK\r\nX-Return: a\rb\r\nContent-Length: 0",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade",
        ] {
            assert_bad_gateway(world, client, format!("{head}\r\n\r\n").into_bytes()).await;
        }
        assert_works(world, client).await;
    });
}

#[test]
fn a_head_without_end_is_a_bad_gateway() {
    on_both(&Settings::default(), async |world, client| {
        let large = format!("HTTP/1.1 200 OK\r\nX-Large: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(MIB));
        assert_bad_gateway(world, client, large.into_bytes()).await;
        let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X-Many: 1\r\n".repeat(5000));
        assert_bad_gateway(world, client, many.into_bytes()).await;
        assert_works(world, client).await;
    });
}

#[test]
fn an_empty_answer_is_a_bad_gateway() {
    on_both(&Settings::default(), async |world, client| {
        for step in [Step::Close, Step::Reset, Step::FinishSending] {
            world.upstream.script("/empty", vec![Step::ReadBody, step, Step::Silence]);
            assert_own(&client.send(world.post("/empty", "body")).await, 502);
        }
        assert_works(world, client).await;
    });
}

#[test]
fn a_malformed_chunk_is_visibly_truncated() {
    on_both(&Settings::default(), async |world, client| {
        for (connection, rest) in [
            "zz\r\nbody\r\n0\r\n\r\n",
            "-4\r\nbody\r\n0\r\n\r\n",
            "\r\nbody\r\n0\r\n\r\n",
            "0x4\r\nbody\r\n0\r\n\r\n",
            "4\r\nbodyXX0\r\n\r\n",
            "4\r\nbody0\r\n\r\n",
            "fffffffffffffffff\r\nbody",
            "4\nbody\n0\n\n",
            "4;\nbody\r\n0\r\n\r\n",
            "0\r\nno colon\r\n\r\n",
        ]
        .into_iter()
        .enumerate()
        {
            let bytes = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n{rest}");
            world
                .upstream
                .script("/chunk", vec![Step::ReadBody, Step::Send(bytes.into_bytes()), Step::Silence]);
            // The head may have been sent or not when the fault is found; over HTTP/1.1 nothing at all is an end, too.
            match client.try_send(world.post("/chunk", "body")).await {
                Ok(answer) if answer.status == 502 => assert_own(&answer, 502),
                Ok(answer) => assert!(answer.truncated, "{rest:?} gave {answer:?}"),
                Err(_) => {}
            }
            world.upstream.wait_for_close(connection).await;
        }
        assert_works(world, client).await;
    });
}

#[test]
fn a_truncated_answer_is_visibly_truncated() {
    on_both(&Settings::default(), async |world, client| {
        let with_length = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec();
        let no_last_chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_vec();
        let half_chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf".to_vec();
        let half_trailer =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nX-S".to_vec();
        for bytes in [with_length, no_last_chunk, half_chunk, half_trailer] {
            let shown = String::from_utf8_lossy(&bytes).into_owned();
            // Held until the client has the head, or the fault could be found before there is one.
            let gate = Gate::closed();
            world.upstream.script("/cut", vec![Step::Send(bytes), Step::Hold(gate.clone()), Step::Close]);
            let (_upload, mut download) = client.open(world.get("/cut")).await;
            let head = download.head().await.unwrap();
            assert_eq!(download.piece().await.unwrap().as_deref(), Some(b"half".as_slice()));
            gate.open();
            assert!(download.rest(head).await.truncated, "{shown:?}");
        }
        assert_works(world, client).await;
    });
}

#[test]
fn an_answer_that_is_reset_is_visibly_truncated() {
    on_both(&Settings::default(), async |world, client| {
        for head in ["HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", "HTTP/1.1 200 OK\r\n\r\nhalf"] {
            let gate = Gate::closed();
            let script = vec![Step::Send(head.into()), Step::Hold(gate.clone()), Step::Reset];
            world.upstream.script("/reset", script);
            let (_upload, mut download) = client.open(world.get("/reset")).await;
            let answer = download.head().await.unwrap();
            assert_eq!(download.piece().await.unwrap().as_deref(), Some(b"half".as_slice()));
            gate.open();
            assert!(download.rest(answer).await.truncated, "{head:?}");
        }
    });
}

// --- early answers

/// Sends half of an upload, waits for the answer, which must come before the other half is sent.
async fn early(world: &World, client: &Client, payload: Payload) -> Answer {
    let request = Request::new("POST", "/large").payload(payload).token(&world.token);
    let (mut upload, mut download) = client.open(request).await;
    upload.send(pattern(0, 100_000)).await.unwrap();
    let head = download.head().await.expect("the answer comes though the upload has not ended");
    let answer = download.rest(head).await;
    // The other half may be taken or refused.
    drop(upload.send(pattern(100_000, 100_000)).await);
    answer
}

#[test]
fn an_early_answer_reaches_the_client_while_the_upstream_reads_on() {
    on_both(&Settings::default(), async |world, client| {
        for payload in [Payload::StreamedLength(200_000), Payload::Streamed] {
            world
                .upstream
                .script("/large", vec![Step::ReadSome(1), Step::Send(answer("413 Too Large", &[], "no"))]);
            let answer = early(world, client, payload).await;
            assert_eq!((answer.status, answer.text().as_str(), answer.truncated), (413, "no", false));
        }
        assert_works(world, &client.fresh()).await;
    });
}

#[test]
fn an_early_answer_reaches_the_client_though_the_upstream_closes() {
    on_both(&Settings::default(), async |world, client| {
        for payload in [Payload::StreamedLength(200_000), Payload::Streamed] {
            let bytes = answer("413 Too Large", &[("Connection", "close")], "no");
            world.upstream.script("/large", vec![Step::ReadSome(1), Step::Send(bytes), Step::Close]);
            let answer = early(world, client, payload).await;
            assert_eq!((answer.status, answer.text().as_str(), answer.truncated), (413, "no", false));
        }
        assert_works(world, &client.fresh()).await;
    });
}

#[test]
fn an_answer_before_any_of_the_body_is_read_reaches_the_client() {
    on_both(&Settings::default(), async |world, client| {
        for _ in 0..5 {
            let bytes = answer("403 Forbidden", &[("Connection", "close")], "no");
            world.upstream.script("/large", vec![Step::Send(bytes), Step::FinishSending, Step::ReadBody]);
            let answer = client.fresh().send(world.post("/large", pattern(0, 2 * MIB))).await;
            assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
        }
    });
}

#[test]
fn the_refusal_of_an_upload_reaches_the_client() {
    on_both(&Settings::default(), async |world, client| {
        let mark = world.upstream.mark();
        for payload in [Payload::Length(pattern(0, 600_000)), Payload::Unsized(pattern(0, 600_000))] {
            let answer = client.fresh().send(Request::new("POST", "/upload").payload(payload)).await;
            assert_own(&answer, 401);
        }
        world.assert_refused(client, mark).await;
    });
}

#[test]
fn the_unread_body_of_a_refused_request_is_never_a_request() {
    on_http1(&Settings::default(), async |world, client| {
        let mark = world.upstream.mark();
        let smuggled = format!(
            "GET /smuggled HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Token {}\r\n\r\n",
            world.token
        );
        let length = smuggled.len();
        let bytes =
            format!("POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: {length}\r\n\r\n{smuggled}");
        let mut raw = client.raw(bytes).await;
        assert_own(&raw.answer("POST", &[]).await.unwrap(), 401);
        raw.finish_sending().await;
        let rest = raw.closed().await;
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
        world.assert_refused(client, mark).await;
    });
}

// --- answers without a body

#[test]
fn answers_without_a_body_leave_the_next_answer_right() {
    on_both(&Settings::default(), async |world, client| {
        world
            .upstream
            .script("/head", vec![Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec())]);
        world.upstream.script("/204", vec![Step::Send(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())]);
        let not_modified =
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: \"x\"\r\n\r\n".to_vec();
        world.upstream.script("/304", vec![Step::Send(not_modified)]);
        for (method, target, status) in [("HEAD", "/head", 200), ("GET", "/204", 204), ("GET", "/304", 304)] {
            let request = Request::new(method, target).token(&world.token).expect(&["ETag"]);
            let answer = client.send(request).await;
            assert_eq!((answer.status, answer.body.len()), (status, 0));
            assert_works(world, client).await;
        }
        assert_eq!(world.upstream.connections(), 1);
    });
}

#[test]
fn the_length_of_an_answer_to_head_is_kept() {
    on_both(&Settings::default(), async |world, client| {
        world
            .upstream
            .script("/head", vec![Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec())]);
        let answer = client.send(Request::new("HEAD", "/head").token(&world.token)).await;
        assert_eq!(answer.one("content-length").as_deref(), Some("1000"));
    });
}

#[test]
fn a_body_that_must_not_be_there_is_thrown_away_with_its_connection() {
    on_both(&Settings::default(), async |world, client| {
        let with_body = answer("200 OK", &[], "body");
        let no_content = b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nbody".to_vec();
        let not_modified = answer("304 Not Modified", &[], "body");
        for (method, bytes) in [("HEAD", with_body), ("GET", no_content), ("GET", not_modified)] {
            world.upstream.script("/bodiless", respond(bytes));
            let answer = client.send(Request::new(method, "/bodiless").token(&world.token)).await;
            // A Content-Length on a 204 is itself a fault, which may be refused.
            assert!(answer.body.is_empty() || answer.status == 502, "{answer:?}");
            let connection = world.upstream.last().connection;
            world.upstream.wait_for_close(connection).await;
            assert_works(world, client).await;
        }
    });
}

#[test]
fn own_answers_to_head_have_no_body() {
    on_both(&Settings::default(), async |world, client| {
        let answer = client.send(Request::new("HEAD", "/secret")).await;
        assert_eq!((answer.status, answer.body.len()), (401, 0));
        assert_works(world, client).await;
    });
}

// --- the cap on connections

#[test]
fn a_cap_of_one_connection_serves_one_request_after_the_other() {
    let settings = Settings {
        upstream: "connections = 1\nqueue_time = \"8s\"",
        // The cap is of the process, not of a worker.
        workers: 2,
        ..Settings::default()
    };
    on_both(&settings, async |world, client| {
        let gate = Gate::closed();
        world.upstream.script("/slow", vec![Step::Hold(gate.clone()), Step::Ok]);
        let others: Vec<_> = (0..5).map(|_| client.fresh()).collect();
        let first = client.send(world.get("/slow"));
        let rest = async {
            world.upstream.wait_for("the first", |log| log.of("/slow").len() == 1).await;
            let waiting: Vec<_> = others.iter().map(|other| other.send(world.get("/after"))).collect();
            // Nothing can be awaited to know that they wait: the gate is opened once they had every chance.
            let opened = async {
                tokio::time::sleep(Duration::from_millis(200)).await;
                assert_eq!(world.upstream.log().requests.len(), 1, "two at a time");
                gate.open();
            };
            let (answers, ()) = tokio::join!(all(waiting), opened);
            assert!(answers.iter().all(|answer| answer.status == 200));
        };
        let (first, ()) = tokio::join!(first, rest);
        assert_eq!(first.status, 200);
        let log = world.upstream.log();
        assert_eq!((log.requests.len(), log.busy_at_most), (6, 1));
    });
}

#[test]
fn an_idle_connection_of_another_core_makes_room() {
    let settings =
        Settings { upstream: "connections = 1\nqueue_time = \"5s\"", workers: 2, ..Settings::default() };
    on_both(&settings, async |world, client| {
        // New connections are spread over the cores; each core finds the only place taken by the other's idle one.
        let before = Instant::now();
        for number in 0..40 {
            let answer = client.fresh().send(world.get("/")).await;
            assert_eq!(answer.status, 200, "request {number}");
        }
        assert!(before.elapsed() < Duration::from_secs(5), "somebody waited: {:?}", before.elapsed());
        assert!(world.upstream.log().connections.len() > 1, "all on one core: nothing was shown");
    });
}

/// Awaits all of them, side by side.
async fn all<T: Send>(mut futures: Vec<impl Future<Output = T> + Send>) -> Vec<T> {
    let mut pinned: Vec<_> = futures.drain(..).map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for (future, result) in &mut pinned {
            if result.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *result = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    pinned.into_iter().map(|(_, result)| result.unwrap()).collect()
}

#[test]
fn waiting_too_long_for_a_connection_is_service_unavailable() {
    let settings = Settings { upstream: "connections = 1\nqueue_time = \"300ms\"", ..Settings::default() };
    on_both(&settings, async |world, client| {
        let gate = Gate::closed();
        world.upstream.script("/slow", vec![Step::Hold(gate.clone()), Step::Ok]);
        let second = async {
            world.upstream.wait_for("the first", |log| log.of("/slow").len() == 1).await;
            let answer = client.fresh().send(world.get("/after")).await;
            gate.open();
            answer
        };
        let (first, second) = tokio::join!(client.send(world.get("/slow")), second);
        assert_eq!(first.status, 200);
        assert_own(&second, 503);
        let wait: u32 = second.one("retry-after").expect("Retry-After").parse().unwrap();
        assert!(wait >= 1);
        assert_eq!(world.upstream.log().of("/after").len(), 0);
        assert_works(world, client).await;
    });
}

#[test]
fn a_client_that_leaves_gives_its_connection_back() {
    let settings = Settings { upstream: "connections = 1\nqueue_time = \"8s\"", ..Settings::default() };
    on_both(&settings, async |world, client| {
        world.upstream.script("/slow", vec![Step::Silence]);
        let leaver = client.fresh();
        let (upload, download) = leaver.open(world.get("/slow")).await;
        world.upstream.wait_for("the first", |log| log.of("/slow").len() == 1).await;
        drop((upload, download, leaver));
        assert_works(world, client).await;
    });
}
