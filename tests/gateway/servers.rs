//! Servers of upstreams over reloads: what stays as it was keeps its connections, what does not ends with its requests.

use crate::harness::client::{Client, Protocol, Request};
use crate::harness::gate::Gate;
use crate::harness::gateway::TestGateway;
use crate::harness::script::Step;
use crate::harness::upstream::TestUpstream;
use crate::harness::world::{ROUTES, assert_own};
use crate::reload::{parse, pause, reload, runtime};
use doorward::app::Options;
use rcgen::CertifiedKey;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

const PASSWORD: &str = "correct horse battery staple";

/// One worker, so that connections do not depend on chance.
fn config(servers: &[&str], more: &str) -> String {
    format!(
        "[listen]\nhttps = [\"127.0.0.1:0\"]\nworkers = 1\n\n[store]\nurl = \"sqlite:doorward.db\"\n\n\
         [upstreams.legacy]\nservers = {servers:?}\nbalance = \"round-robin\"\n{more}\n\n{ROUTES}\n"
    )
}

/// A gateway with alice's token.
fn start(text: &str) -> (TestGateway, String) {
    let gateway = TestGateway::start_with(text, Options::default());
    gateway.user("alice", PASSWORD);
    let token = gateway.token("alice");
    (gateway, token)
}

#[test]
fn servers_that_stay_keep_their_connections() {
    let (one, two) = (TestUpstream::start(), TestUpstream::start());
    let (gateway, token) = start(&config(&[one.url()], ""));
    let runtime = runtime();
    let client = Client::new(Protocol::Http1, gateway.address());
    let served = |count: usize| {
        for _ in 0..count {
            let answer = runtime.block_on(client.send(Request::post("/x", "body").token(&token)));
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    };
    served(1);
    reload(&gateway, &config(&[one.url()], "timeout = { idle = \"9s\" }\nqueue_time = \"2s\""));
    served(1);
    reload(&gateway, &config(&[two.url(), one.url()], "host = \"upstream\""));
    served(4);
    assert_eq!((one.connections(), two.connections()), (1, 1));

    reload(&gateway, &config(&[two.url()], ""));
    runtime.block_on(one.wait_for_close(0));
    served(2);
    assert_eq!((one.connections(), two.connections()), (1, 1));

    reload(&gateway, &config(&[two.url()], "connections = 7"));
    runtime.block_on(two.wait_for_close(0));
    served(2);
    assert_eq!(two.connections(), 2, "another bound is another server");
    // It came back, but nothing of it had been kept.
    reload(&gateway, &config(&[one.url()], ""));
    served(1);
    assert_eq!(one.connections(), 2);
}

#[test]
fn a_server_that_is_written_twice_is_two_servers_after_a_reload_too() {
    let upstream = TestUpstream::start();
    let twice = [upstream.url(), upstream.url()];
    let bound = "connections = 1\nqueue_time = \"8s\"";
    let (gateway, token) = start(&config(&twice, bound));
    reload(&gateway, &config(&twice, &format!("{bound}\nhost = \"upstream\"")));
    let gate = Gate::closed();
    upstream.script("/slow", vec![Step::Hold(gate.clone()), Step::Ok]);
    runtime().block_on(async {
        let send = async || {
            let client = Client::new(Protocol::Http1, gateway.address());
            client.send(Request::get("/slow").token(&token)).await.status
        };
        let both = async {
            upstream.wait_for("both", |log| log.of("/slow").len() == 2).await;
            gate.open();
        };
        assert_eq!(tokio::join!(send(), send(), both), (200, 200, ()));
    });
}

#[test]
fn the_bound_on_connections_holds_over_a_reload() {
    let upstream = TestUpstream::start();
    let text = |queue: &str| config(&[upstream.url()], &format!("connections = 1\nqueue_time = \"{queue}\""));
    let (gateway, token) = start(&text("8s"));
    let gate = Gate::closed();
    upstream.script("/slow", vec![Step::Hold(gate.clone()), Step::Ok]);
    runtime().block_on(async {
        let send = async |target: &str| {
            let client = Client::new(Protocol::Http1, gateway.address());
            client.send(Request::get(target).token(&token)).await
        };
        let second = async {
            upstream.wait_for("the first", |log| log.of("/slow").len() == 1).await;
            reload(&gateway, &text("100ms"));
            let answer = send("/after").await;
            gate.open();
            answer
        };
        let (first, second) = tokio::join!(send("/slow"), second);
        assert_eq!(first.status, 200);
        assert_own(&second, 503);
        assert_eq!(send("/after").await.status, 200);
    });
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn requests_at_a_server_that_is_taken_away_are_finished_and_their_connections_not_kept() {
    let (one, two) = (TestUpstream::start(), TestUpstream::start());
    let (gateway, token) = start(&config(&[one.url()], ""));
    let gate = Gate::closed();
    one.script("/upload", vec![Step::ReadSome(1), Step::Hold(gate.clone()), Step::ReadBody, Step::Ok]);
    runtime().block_on(async {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let client = Client::new(protocol, gateway.address());
            let before = one.connections();
            let upload = client.send(Request::post("/upload", vec![b'x'; 4 << 20]).token(&token));
            let meanwhile = async {
                one.wait_for("half an upload", |log| log.requests.iter().any(|r| !r.complete)).await;
                reload(&gateway, &config(&[two.url()], ""));
                // The plan is another one already.
                let other = client.fresh().send(Request::get("/x").token(&token)).await;
                assert_eq!(other.status, 200, "{other:?}");
                gate.open();
            };
            let (answer, ()) = tokio::join!(upload, meanwhile);
            assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{answer:?}");
            assert_eq!(one.last().body.len(), 4 << 20);
            assert!(two.log().requests.iter().all(|request| request.target == "/x"));
            one.wait_for_close(before).await;
            reload(&gateway, &config(&[one.url()], ""));
        }
    });
}

/// Uploads go on while servers come, go and change; not one is lost, and none arrives in part.
#[test]
fn reloads_of_an_upstream_lose_no_upload() {
    const BYTES: usize = 300_000;
    let (one, two) = (TestUpstream::start(), TestUpstream::start());
    let (gateway, token) = start(&config(&[one.url()], ""));
    let texts = [
        config(&[one.url(), two.url()], ""),
        config(&[two.url()], "timeout = { idle = \"9s\" }"),
        config(&[two.url(), one.url()], "connections = 3\nqueue_time = \"20s\""),
        config(&[one.url()], "connections = 4\nqueue_time = \"20s\"\nhost = \"upstream\""),
    ];
    let sent = runtime().block_on(async {
        let is_over = std::sync::atomic::AtomicBool::new(false);
        let load = async |protocol: Protocol| {
            let client = Client::new(protocol, gateway.address());
            let mut sent = 0;
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let answer = client.send(Request::post("/upload", vec![b'x'; BYTES]).token(&token)).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                sent += 1;
            }
            sent
        };
        let reloads = async {
            for text in texts.iter().cycle().take(60) {
                reload(&gateway, text);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        };
        let (a, b, c, ()) =
            tokio::join!(load(Protocol::Http1), load(Protocol::Http2), load(Protocol::Http1), reloads);
        a + b + c
    });
    let logs = [one.log(), two.log()];
    let uploads = || logs.iter().flat_map(|log| &log.requests);
    assert!(uploads().all(|request| request.complete && request.body.len() == BYTES));
    assert_eq!(uploads().count(), sent);
    assert!(logs.iter().all(|log| !log.requests.is_empty()));
}

fn certified() -> CertifiedKey<rcgen::KeyPair> {
    rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap()
}

fn tls_upstream(certified: &CertifiedKey<rcgen::KeyPair>) -> TestUpstream {
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    TestUpstream::start_tls(builder.with_single_cert(vec![certified.cert.der().clone()], key).unwrap())
}

#[test]
fn trust_anchors_of_upstreams_are_read_anew() {
    let (right, wrong) = (certified(), certified());
    let upstream = tls_upstream(&right);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    let anchors = |certified: &[&CertifiedKey<rcgen::KeyPair>]| {
        let pem: Vec<_> = certified.iter().map(|certified| certified.cert.pem()).collect();
        fs::write(&file, pem.concat()).unwrap();
    };
    anchors(&[&right]);
    let text = |more: &str| config(&[upstream.url()], &format!("ca = \"{}\"\n{more}", file.display()));
    let (gateway, token) = start(&text(""));
    let runtime = runtime();
    let client = Client::new(Protocol::Http1, gateway.address());
    let send = || runtime.block_on(client.send(Request::get("/x").token(&token)));
    assert_eq!(send().status, 200);
    // Written anew, with nothing new.
    anchors(&[&right]);
    reload(&gateway, &text(""));
    assert_eq!(send().status, 200);
    reload(&gateway, &text("queue_time = \"2s\""));
    assert_eq!(send().status, 200);
    assert_eq!(upstream.connections(), 1);

    anchors(&[&wrong]);
    reload(&gateway, &text("queue_time = \"2s\""));
    runtime.block_on(upstream.wait_for_close(0));
    assert_own(&send(), 502);
    anchors(&[&wrong, &right]);
    reload(&gateway, &text(""));
    assert_eq!(send().status, 200);
    assert_eq!(upstream.connections(), 2, "what was verified against others is not used");

    let good = parse(&gateway, &text(""));
    for broken in [None, Some(""), Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")] {
        match broken {
            None => fs::remove_file(&file).unwrap(),
            Some(content) => fs::write(&file, content).unwrap(),
        }
        let error = gateway.running().reloader().reload(&good).unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("legacy"), "{error}");
        assert_eq!((send().status, upstream.connections()), (200, 2), "{broken:?}");
    }
}

#[test]
fn trust_anchors_replaced_on_disk_are_picked_up_and_broken_ones_keep_the_old() {
    let (right, wrong) = (certified(), certified());
    let upstream = tls_upstream(&right);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    fs::write(&file, right.cert.pem()).unwrap();
    let (gateway, token) = start(&config(&[upstream.url()], &format!("ca = \"{}\"", file.display())));
    let runtime = runtime();
    let client = Client::new(Protocol::Http2, gateway.address());
    let status = || runtime.block_on(client.send(Request::get("/x").token(&token))).status;
    let becomes = |wanted: u16| {
        let since = tokio::time::Instant::now();
        while status() != wanted {
            assert!(since.elapsed() < Duration::from_secs(10), "the new trust anchors are not in place");
            pause(20);
        }
    };
    assert_eq!(status(), 200);
    fs::write(&file, "nothing").unwrap();
    pause(2_500);
    assert_eq!((status(), upstream.connections()), (200, 1));
    fs::write(&file, wrong.cert.pem()).unwrap();
    becomes(502);
    fs::write(&file, right.cert.pem()).unwrap();
    becomes(200);
}
