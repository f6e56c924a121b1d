//! Another configuration while requests are served: at once, whole, or not at all.

use crate::harness::PATIENCE;
use crate::harness::client::{Client, Protocol, Request, handshake, tls_config};
use crate::harness::gateway::TestGateway;
use crate::harness::program::{Program, make_alice};
use crate::harness::scrape::{ADMIN, admin, ask, becomes};
use crate::harness::upstream::TestUpstream;
use crate::harness::world::assert_own;
use doorward::app::Options;
use doorward::clock::{ManualClock, UnixSeconds};
use doorward::config::{Config, Source};
use rustix::process::{Signal, kill_process};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const PASSWORD: &str = "correct horse battery staple";

/// Everything goes to this upstream, under two names of one plan that never differ.
fn config(upstream: &TestUpstream, more: &str) -> String {
    format!(
        "[listen]\nhttps = [\"127.0.0.1:0\"]\nworkers = 2\n\n[store]\nurl = \"sqlite:doorward.db\"\n\n\
         [upstreams.legacy]\nservers = [\"{}\"]\n\n[routes.everything]\npath = \"/\"\nupstream = \"legacy\"\n\n{more}\n",
        upstream.url()
    )
}

/// Puts another file in place; the keys whose change needs a restart.
pub(crate) fn reload(gateway: &TestGateway, text: &str) -> Vec<&'static str> {
    gateway.running().reloader().reload(&parse(gateway, text)).unwrap()
}

pub(crate) fn parse(gateway: &TestGateway, text: &str) -> Config {
    parse_in(gateway.directory(), text)
}

fn parse_in(directory: &Path, text: &str) -> Config {
    let name = "doorward.toml".to_owned();
    let source = Source { name, directory: directory.to_owned(), environment: |_| None };
    Config::parse(text, &source).unwrap_or_else(|error| panic!("{error}")).config
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) fn pause(milliseconds: u64) {
    // A timer is made inside of its runtime.
    runtime().block_on(async { tokio::time::sleep(Duration::from_millis(milliseconds)).await });
}

#[test]
fn a_reload_is_effective_for_the_next_request_of_open_connections() {
    let upstream = TestUpstream::start();
    let gateway = TestGateway::start_with(&config(&upstream, ""), Options::default());
    gateway.user("alice", PASSWORD);
    let token = gateway.token("alice");
    let runtime = runtime();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let client = Client::new(protocol, gateway.address());
        let status = |target: &str| runtime.block_on(client.send(Request::get(target).token(&token))).status;
        assert_eq!(status("/gone"), 200);
        let gone = config(&upstream, "").replace("path = \"/\"", "path = \"/here\"");
        assert!(reload(&gateway, &gone).is_empty());
        assert_eq!((status("/gone"), status("/here")), (404, 200));
        let staff = config(&upstream, "")
            .replace("upstream = \"legacy\"", "upstream = \"legacy\"\npermission = \"staff\"");
        reload(&gateway, &staff);
        assert_eq!(status("/gone"), 403);
        reload(&gateway, &config(&upstream, ""));
        assert_eq!(status("/gone"), 200);
    }
}

#[test]
fn what_was_counted_stays_counted_and_pools_go_on() {
    let upstream = TestUpstream::start();
    let throttled = |rate: &str| {
        let route = "[routes.slow]\npath = \"/slow\"\nupstream = \"legacy\"\nthrottles = [\"few\"]\n";
        config(&upstream, &format!("{route}\n[throttles.few]\nrate = \"{rate}\"\nby = \"user\"\n"))
    };
    let gateway = TestGateway::start_with(&throttled("3/hour"), Options::default());
    gateway.user("alice", PASSWORD);
    let token = gateway.token("alice");
    let runtime = runtime();
    let client = Client::new(Protocol::Http1, gateway.address());
    let status = || runtime.block_on(client.send(Request::get("/slow").token(&token))).status;
    assert_eq!([status(), status()], [200, 200]);
    reload(&gateway, &throttled("3/hour"));
    assert_eq!([status(), status()], [200, 429]);
    reload(&gateway, &throttled("5/hour"));
    assert_eq!([status(), status(), status()], [200, 200, 429]);
    // One client's connection, one worker, one connection to the upstream through all of it.
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn what_only_a_start_can_change_is_named_and_stays() {
    let upstream = TestUpstream::start();
    let gateway = TestGateway::start_with(&config(&upstream, ""), Options::default());
    gateway.user("alice", PASSWORD);
    let token = gateway.token("alice");
    let other =
        config(&upstream, "").replace("doorward.db", "other.db").replace("127.0.0.1:0", "127.0.0.1:1");
    assert_eq!(reload(&gateway, &other), ["[listen] https", "[store] url"]);
    assert_eq!(reload(&gateway, &other), ["[listen] https", "[store] url"], "still not as it was started");
    let client = Client::new(Protocol::Http2, gateway.address());
    assert_eq!(runtime().block_on(client.send(Request::get("/x").token(&token))).status, 200);
    assert!(!gateway.directory().join("other.db").exists());
}

#[test]
fn a_key_of_another_certificate_keeps_the_old_plan() {
    let upstream = TestUpstream::start();
    let gateway = TestGateway::start_with(&config(&upstream, ""), Options::default());
    let directory = gateway.directory();
    let make = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec!["other.test".to_owned()]).unwrap();
        std::fs::write(directory.join(format!("{name}.pem")), made.cert.pem()).unwrap();
        std::fs::write(directory.join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
    };
    make("one");
    make("two");
    let text = config(&upstream, "").replace("path = \"/\"", "path = \"/other\"")
        + "[tls]\ncertificates = [{ cert = \"one.pem\", key = \"two.key\" }]\n";
    let source = Source { name: "d.toml".to_owned(), directory: directory.to_owned(), environment: |_| None };
    let loaded = Config::parse(&text, &source).unwrap();
    gateway.running().reloader().reload(&loaded.config).unwrap_err();
    let client = Client::new(Protocol::Http1, gateway.address());
    // 401, not 404: the old route is there.
    assert_own(&runtime().block_on(client.send(Request::get("/x"))), 401);
}

/// A certificate that is read without an end stands for a disk that hangs.
#[test]
fn a_reload_that_hangs_keeps_nobody_waiting_who_asks_how_it_stands() {
    let upstream = TestUpstream::start();
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["gateway.test".to_owned()]).unwrap();
    let (cert, key) = (directory.path().join("a.pem"), directory.path().join("a.key"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let text = config(&upstream, "").replace("workers", "admin = \"127.0.0.1:0\"\nworkers")
        + "[tls]\ncertificates = [{ cert = \"a.pem\", key = \"a.key\" }]\n";
    let gateway = TestGateway::start_in(directory.path(), &text, Options::default()).unwrap();
    let other = parse_in(directory.path(), &text);
    std::fs::remove_file(&cert).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&cert).status().unwrap().success());
    std::thread::scope(|scope| {
        let reloading = scope.spawn(|| gateway.running().reloader().reload(&other).is_ok());
        // Open for both, so that this does not wait; the reload reads without an end from now on.
        let held = std::fs::File::options().read(true).write(true).open(&cert).unwrap();
        pause(200);
        let admin = gateway.running().admin_address().unwrap();
        let asked = runtime().block_on(async {
            let mut answers = Vec::new();
            for path in ["/metrics", "/readyz", "/metrics"] {
                answers.push(tokio::time::timeout(Duration::from_secs(5), ask(admin, "GET", path)).await);
            }
            answers
        });
        let is_reloading = !reloading.is_finished();
        // It is read more than once: the next time from a file again.
        std::fs::write(directory.path().join("good.pem"), made.cert.pem()).unwrap();
        std::fs::rename(directory.path().join("good.pem"), &cert).unwrap();
        std::io::Write::write_all(&mut &held, made.cert.pem().as_bytes()).unwrap();
        drop(held);
        assert!(reloading.join().unwrap());
        assert!(is_reloading, "the reload has not waited: nothing was shown");
        assert!(asked.iter().all(|answer| answer.as_ref().is_ok_and(|reply| reply.status == 200)));
    });
}

#[test]
fn a_gateway_that_cannot_start_leaves_the_socket_of_another_alone() {
    let upstream = TestUpstream::start();
    let directory = tempfile::tempdir().unwrap();
    let good = config(&upstream, "");
    let gateway = TestGateway::start_in(directory.path(), &good, Options::default()).unwrap();
    let socket = directory.path().join("doorward.sock");
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok());
    for name in ["one", "two"] {
        let made = rcgen::generate_simple_self_signed(vec!["other.test".to_owned()]).unwrap();
        std::fs::write(directory.path().join(format!("{name}.pem")), made.cert.pem()).unwrap();
        std::fs::write(directory.path().join(format!("{name}.key")), made.signing_key.serialize_pem())
            .unwrap();
    }
    // Another port each time, so that only the key of another certificate stops it.
    let bad = good + "[tls]\ncertificates = [{ cert = \"one.pem\", key = \"two.key\" }]\n";
    assert!(TestGateway::start_in(directory.path(), &bad, Options::default()).is_err());
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok(), "the first one's socket is gone");
    drop(gateway);
}

/// Plans A and B differ in the route's path prefix that is taken away and in the identity's name, which one request
/// must see together.
#[test]
fn a_hundred_reloads_under_load_lose_no_request_and_mix_no_plan() {
    let upstream = TestUpstream::start();
    let plan = |which: &str| {
        config(&upstream, &format!("[identity]\nuser = \"X-User-{which}\"\nauth_type = \"X-Kind-{which}\"\n"))
    };
    let gateway = Arc::new(TestGateway::start_with(&plan("a"), Options::default()));
    gateway.user("alice", PASSWORD);
    let token = gateway.token("alice");
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load = {
        let (stop, sent, address) = (Arc::clone(&stop), Arc::clone(&sent), gateway.address());
        std::thread::spawn(move || {
            runtime().block_on(async {
                let mut clients = JoinSet::new();
                for number in 0..8 {
                    let (stop, sent, token) = (Arc::clone(&stop), Arc::clone(&sent), token.clone());
                    let protocol = if number % 2 == 0 { Protocol::Http1 } else { Protocol::Http2 };
                    clients.spawn(async move {
                        let client = Client::new(protocol, address);
                        while !stop.load(Ordering::Relaxed) {
                            let request = match number {
                                0 | 1 => Request::post("/upload", vec![b'x'; 200_000]),
                                _ => Request::get("/x"),
                            };
                            let answer = client.send(request.token(&token)).await;
                            assert_eq!(answer.status, 200, "{answer:?}");
                            sent.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
                clients.join_all().await;
            });
        })
    };
    for number in 0..100 {
        reload(&gateway, &plan(if number % 2 == 0 { "b" } else { "a" }));
        pause(5);
    }
    stop.store(true, Ordering::Relaxed);
    load.join().unwrap();
    let log = upstream.log();
    assert_eq!(log.requests.len(), sent.load(Ordering::Relaxed));
    let mut seen = [0, 0];
    for request in &log.requests {
        let of = |which: &str| {
            (
                request.one(&format!("x-user-{which}")).is_some(),
                request.one(&format!("x-kind-{which}")).is_some(),
            )
        };
        match (of("a"), of("b")) {
            ((true, true), (false, false)) => seen[0] += 1,
            ((false, false), (true, true)) => seen[1] += 1,
            mixed => panic!("{mixed:?}"),
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

#[test]
fn a_watched_file_is_reloaded_when_it_changes() {
    let upstream = TestUpstream::start();
    let directory = tempfile::tempdir().unwrap();
    let text = config(&upstream, "");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let token = make_alice(&text, directory.path(), PASSWORD).await;
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.args(["serve", "--watch"]);
        let program = Program::start_by(command, directory.path()).await;
        let client = Client::new(Protocol::Http1, program.address);
        let status = async || client.send(Request::get("/x").token(&token)).await.status;
        assert_eq!(status().await, 200);
        let other = text.replace("path = \"/\"", "path = \"/here\"");
        std::fs::write(directory.path().join("doorward.toml"), other).unwrap();
        let wait = async {
            while status().await != 404 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
        program.stop().await;
    });
}

#[test]
fn sighup_reloads_the_file_and_a_broken_one_keeps_the_old_plan() {
    let upstream = TestUpstream::start();
    let directory = tempfile::tempdir().unwrap();
    let text = config(&upstream, "");
    let file = directory.path().join("doorward.toml");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let token = make_alice(&text, directory.path(), PASSWORD).await;
        let program = Program::start(directory.path()).await;
        let client = Client::new(Protocol::Http2, program.address);
        let status = async |target: &str| client.send(Request::get(target).token(&token)).await.status;
        let until = async |target: &str, right: u16| {
            let wait = async {
                while status(target).await != right {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
        };
        assert_eq!(status("/x").await, 200);
        std::fs::write(&file, text.replace("path = \"/\"", "path = \"/here\"")).unwrap();
        kill_process(program.id(), Signal::HUP).unwrap();
        until("/x", 404).await;
        std::fs::write(
            &file,
            text.replace("path = \"/\"", "path = \"/\"\npathh = 1").replace("legacy\"]", "x"),
        )
        .unwrap();
        kill_process(program.id(), Signal::HUP).unwrap();
        // A good one after it shows that the broken one was read.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!((status("/x").await, status("/here").await), (404, 200));
        std::fs::write(&file, &text).unwrap();
        kill_process(program.id(), Signal::HUP).unwrap();
        until("/x", 200).await;
        let lines = program.stop().await;
        let has = |words: &[&str]| lines.iter().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(has(&["configuration reloaded"]), "{lines:#?}");
        assert!(has(&["ERROR", "pathh", "line"]), "every fault is told: {lines:#?}");
        assert!(has(&["not reloaded: the old configuration stays"]), "{lines:#?}");
    });
}

/// The certificate that a new connection sees.
fn certificate_seen(gateway: &TestGateway) -> Vec<u8> {
    runtime().block_on(async {
        let config = Arc::new(tls_config(rustls::ALL_VERSIONS, &[b"http/1.1"]));
        let tcp = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
        let stream = handshake(&config, "gateway.test", tcp).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    })
}

#[test]
fn certificates_replaced_on_disk_are_picked_up_and_a_wrong_key_keeps_the_old_pair() {
    let upstream = TestUpstream::start();
    let text = config(&upstream, "") + "[tls]\ncertificates = [{ cert = \"a.pem\", key = \"a.key\" }]\n";
    let directory = tempfile::tempdir().unwrap();
    let write = |parts: &[&str]| {
        let made = rcgen::generate_simple_self_signed(vec!["gateway.test".to_owned()]).unwrap();
        for part in parts {
            let pem = if *part == "a.pem" { made.cert.pem() } else { made.signing_key.serialize_pem() };
            std::fs::write(directory.path().join(part), pem).unwrap();
        }
        made.cert.der().to_vec()
    };
    let first = write(&["a.pem", "a.key"]);
    let gateway = TestGateway::start_in(directory.path(), &text, Options::default()).unwrap();
    assert_eq!(certificate_seen(&gateway), first);
    let second = write(&["a.pem", "a.key"]);
    let since = tokio::time::Instant::now();
    while certificate_seen(&gateway) != second {
        assert!(since.elapsed() < Duration::from_secs(10), "the new certificate is not served");
        pause(20);
    }
    write(&["a.key"]);
    pause(2_500);
    assert_eq!(certificate_seen(&gateway), second);
    let third = write(&["a.pem", "a.key"]);
    let since = tokio::time::Instant::now();
    while certificate_seen(&gateway) != third {
        assert!(since.elapsed() < Duration::from_secs(10), "a good pair after a bad one is not served");
        pause(20);
    }
}

/// Writes `a.pem` and `a.key`, good in these years; yields the certificate.
fn pair(directory: &Path, years: Range<i32>) -> Vec<u8> {
    let mut params = rcgen::CertificateParams::new(vec!["gateway.test".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    std::fs::write(directory.join("a.pem"), made.pem()).unwrap();
    std::fs::write(directory.join("a.key"), key.serialize_pem()).unwrap();
    made.der().to_vec()
}

const PAIR: &str = "[tls]\ncertificates = [{ cert = \"a.pem\", key = \"a.key\" }]\n";

/// Waits until new connections see this certificate.
fn until_seen(gateway: &TestGateway, certificate: &[u8]) {
    let since = tokio::time::Instant::now();
    while certificate_seen(gateway) != certificate {
        assert!(since.elapsed() < Duration::from_secs(15), "it is not served");
        pause(20);
    }
}

#[test]
fn a_certificate_that_has_ended_or_not_begun_takes_the_place_of_no_good_one() {
    const DAY: Duration = Duration::from_hours(24);
    let upstream = TestUpstream::start();
    let text = config(&upstream, PAIR).replace("workers = 2", &format!("workers = 2\n{ADMIN}"));
    let directory = tempfile::tempdir().unwrap();
    let parse = || {
        let name = "doorward.toml".to_owned();
        let source = Source { name, directory: directory.path().to_owned(), environment: |_| None };
        Config::parse(&text, &source).unwrap().config
    };
    // September of 2001.
    let clock = Arc::new(ManualClock::new(UnixSeconds(1_000_000_000)));
    let options = Options { clock: Arc::<ManualClock>::clone(&clock), ..Options::default() };
    let good = pair(directory.path(), 2000..2010);
    let gateway = TestGateway::start_in(directory.path(), &text, options).unwrap();
    let becomes_degraded = |value: f64| {
        let series = "doorward_degraded{part=\"certificates\"}";
        runtime().block_on(becomes(admin(&gateway), series, value));
    };
    pair(directory.path(), 1990..2001);
    becomes_degraded(1.0);
    assert_eq!(certificate_seen(&gateway), good, "by the watcher");
    let error = gateway.running().reloader().reload(&parse()).unwrap_err();
    assert!(format!("{error:?}").contains("has ended (Jan  1 00:00:00 2001"), "{error:?}");
    assert_eq!(certificate_seen(&gateway), good, "by a reload");
    let early = pair(directory.path(), 2002..2020);
    pause(2_500);
    let error = gateway.running().reloader().reload(&parse()).unwrap_err();
    assert!(format!("{error:?}").contains("is not valid yet (before Jan  1 00:00:00 2002"), "{error:?}");
    assert_eq!(certificate_seen(&gateway), good);
    // Nobody touches the files; the time comes by itself.
    clock.advance(150 * DAY);
    until_seen(&gateway, &early);
    becomes_degraded(0.0);
    // Once the pair in use has ended, another one that has is no worse.
    clock.advance(20 * 366 * DAY);
    let ended = pair(directory.path(), 2003..2019);
    until_seen(&gateway, &ended);
    gateway.running().reloader().reload(&parse()).unwrap();
}

#[test]
fn a_certificate_that_has_ended_is_a_warning_at_start_and_an_error_of_check() {
    let upstream = TestUpstream::start();
    let directory = tempfile::tempdir().unwrap();
    pair(directory.path(), 2000..2021);
    std::fs::write(directory.path().join("doorward.toml"), config(&upstream, PAIR)).unwrap();
    let program = |command: &str| {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_doorward"));
        program.arg(command).current_dir(directory.path());
        program
    };
    let checked = program("check").output().unwrap();
    let told = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(1), "{told}");
    assert!(told.contains("a.pem has ended (Jan  1 00:00:00 2021"), "{told}");
    let log = directory.path().join("log");
    let mut serving = program("serve").stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    let since = tokio::time::Instant::now();
    let logged = loop {
        let logged = std::fs::read_to_string(&log).unwrap();
        if logged.contains("listening for HTTPS") || since.elapsed() > Duration::from_secs(20) {
            break logged;
        }
        pause(20);
    };
    serving.kill().unwrap();
    serving.wait().unwrap();
    assert!(logged.contains("listening for HTTPS"), "{logged}");
    let warned = |line: &str| line.contains("WARN") && line.contains("a.pem has ended");
    assert!(logged.lines().any(warned), "{logged}");
    pair(directory.path(), 2000..2100);
    assert!(program("check").output().unwrap().status.success());
}

#[test]
fn a_system_without_trust_anchors_is_refused_where_they_are_needed() {
    let directory = tempfile::tempdir().unwrap();
    let (file, bundle) = (directory.path().join("doorward.toml"), directory.path().join("bundle.pem"));
    let made = rcgen::generate_simple_self_signed(vec!["upstream.test".to_owned()]).unwrap();
    let text = |more: &str| {
        format!(
            "[listen]\nhttps = [\"127.0.0.1:0\"]\n\n[store]\nurl = \"sqlite:doorward.db\"\n\n[upstreams.legacy]\n\
             servers = [\"https://127.0.0.1:9\"]\n{more}\n\n[routes.everything]\npath = \"/\"\nupstream = \"legacy\"\n"
        )
    };
    let serve = || {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.arg("serve").env("SSL_CERT_FILE", &bundle).env_remove("SSL_CERT_DIR");
        command.current_dir(directory.path()).kill_on_drop(true);
        command
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        std::fs::write(&file, text("")).unwrap();
        std::fs::write(&bundle, made.cert.pem()).unwrap();
        let program = Program::start_by(serve(), directory.path()).await;
        for gone in [false, true] {
            if gone {
                std::fs::remove_file(&bundle).unwrap();
            } else {
                std::fs::write(&bundle, "").unwrap();
            }
            kill_process(program.id(), Signal::HUP).unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let lines = program.stop().await;
        let refused = |line: &&String| line.contains("not reloaded") && line.contains("no trust anchors");
        assert_eq!(lines.iter().filter(refused).count(), 2, "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("No such file")), "{lines:#?}");
        let started = tokio::time::timeout(PATIENCE, serve().output()).await.expect("it starts").unwrap();
        let told = String::from_utf8(started.stderr).unwrap();
        assert_eq!(started.status.code(), Some(1), "{told}");
        assert!(told.contains("the upstream legacy") && told.contains("no trust anchors"), "{told}");
        // Nobody needs them.
        std::fs::write(directory.path().join("own.pem"), made.cert.pem()).unwrap();
        std::fs::write(&file, text("ca = \"own.pem\"")).unwrap();
        Program::start_by(serve(), directory.path()).await.stop().await;
    });
}
