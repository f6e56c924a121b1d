//! Between other proxies and every kind of upstream: whose word is believed, and where a request goes.
//!
//! What a client says of itself is believed from nobody but `trusted_proxies`; what the upstream is told is always
//! written anew, so that it never has to guess which part is whose.

use crate::harness::client::{AUTHORITY, Client, Protocol, Request};
use crate::harness::script::{answer, respond};
use crate::harness::upstream::{Recorded, TestUpstream};
use crate::harness::world::{ROUTES, Settings, World, assert_own, on_both};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// What an upstream is told of the client.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    address: Option<String>,
    proto: Option<String>,
    host: Option<String>,
    forwarded: Option<String>,
}

impl Told {
    fn by(request: &Recorded) -> Self {
        Self {
            address: request.one("x-forwarded-for"),
            proto: request.one("x-forwarded-proto"),
            host: request.one("x-forwarded-host"),
            forwarded: request.one("forwarded"),
        }
    }

    fn new(address: &str, proto: &str, host: &str) -> Self {
        Self {
            address: Some(address.to_owned()),
            proto: Some(proto.to_owned()),
            host: Some(host.to_owned()),
            forwarded: Some(format!("for={};proto={proto};host=\"{host}\"", quoted(address))),
        }
    }
}

/// As RFC 7239, section 6 wants it.
fn quoted(address: &str) -> String {
    if address.contains(':') { format!("\"[{address}]\"") } else { address.to_owned() }
}

async fn told(world: &World, client: &Client, fields: &[(&str, &str)]) -> Told {
    let request = fields.iter().fold(world.get("/x"), |request, (name, value)| request.field(name, value));
    assert_eq!(client.send(request).await.status, 200, "{fields:?}");
    let request = world.upstream.last();
    // The Host is what routes: nobody's word changes it.
    assert_eq!(request.one("host").as_deref(), Some(AUTHORITY));
    Told::by(&request)
}

#[test]
fn a_stranger_is_not_believed() {
    let untrusted = format!("{ROUTES}\n[clients]\ntrusted_proxies = [\"10.0.0.0/8\", \"::1/128\"]\n");
    for settings in [Settings::default(), Settings::sections(&untrusted)] {
        on_both(&settings, async |world, client| {
            for fields in [
                &[][..],
                &[
                    ("X-Forwarded-For", "192.0.2.1"),
                    ("X-Forwarded-Proto", "http"),
                    ("X-Forwarded-Host", "evil.test"),
                ],
                &[("Forwarded", "for=192.0.2.1;proto=http;host=evil.test")],
                // Who claims to be a trusted one is none.
                &[("X-Forwarded-For", "192.0.2.1, 10.0.0.1"), ("X-Real-IP", "10.0.0.1")],
            ] {
                assert_eq!(
                    told(world, client, fields).await,
                    Told::new("127.0.0.1", "https", AUTHORITY),
                    "{fields:?}"
                );
            }
        });
    }
}

#[test]
fn a_trusted_proxy_is_believed_and_its_word_rebuilt() {
    let sections = format!("{ROUTES}\n[clients]\ntrusted_proxies = [\"127.0.0.0/8\"]\n");
    on_both(&Settings::sections(&sections), async |world, client| {
        for (fields, expected) in [
            (&[][..], Told::new("127.0.0.1", "https", AUTHORITY)),
            (&[("X-Forwarded-For", "192.0.2.1")], Told::new("192.0.2.1", "https", AUTHORITY)),
            (
                &[
                    ("X-Forwarded-For", "192.0.2.1"),
                    ("X-Forwarded-Proto", "https"),
                    ("X-Forwarded-Host", "www.example.test"),
                ],
                Told::new("192.0.2.1", "https", "www.example.test"),
            ),
            // From the near end: what is beyond the first stranger is the stranger's own word.
            (
                &[
                    ("X-Forwarded-For", "203.0.113.66, 192.0.2.9, 127.0.0.7"),
                    ("X-Forwarded-Proto", "http, https"),
                ],
                Told::new("192.0.2.9", "https", AUTHORITY),
            ),
            (
                &[("X-Forwarded-For", "203.0.113.66"), ("X-Forwarded-For", "2001:db8::1")],
                Told::new("2001:db8::1", "https", AUTHORITY),
            ),
            (&[("X-Forwarded-For", "192.0.2.1, unknown")], Told::new("127.0.0.1", "https", AUTHORITY)),
            (
                &[(
                    "Forwarded",
                    "for=203.0.113.66;proto=http, for=\"[2001:db8::2]:99\";proto=https;host=\"www.example.test:81\"",
                )],
                Told::new("2001:db8::2", "https", "www.example.test:81"),
            ),
            // What is no host is not passed on.
            (
                &[("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Host", "evil\".test;proto=http")],
                Told::new("192.0.2.1", "https", AUTHORITY),
            ),
        ] {
            assert_eq!(told(world, client, fields).await, expected, "{fields:?}");
        }
    });
}

// --- what of a request goes to the upstream

#[test]
fn an_upstream_that_ignores_case_is_matched_so() {
    let open = TestUpstream::start();
    let sections = format!(
        "[upstreams.open]\nservers = [\"{}\"]\n[routes.open]\npath = \"/\"\nupstream = \"open\"\npermission = \"anyone\"\n\
         schemes = []\n[routes.api]\npath = \"/api\"\nupstream = \"legacy\"\nschemes = [\"token\"]\n",
        open.url()
    );
    let settings = Settings {
        upstream: "case_insensitive = true",
        canary: Request::get("/api"),
        ..Settings::sections(&sections)
    };
    on_both(&settings, async |world, client| {
        for target in ["/api/x", "/API/x", "/Api", "/aPi/../API/x"] {
            let mark = world.upstream.mark();
            let refused = client.send(Request::get(target)).await;
            assert!([400, 401].contains(&refused.status), "{target}: {refused:?}");
            world.assert_refused(client, mark).await;
        }
        let answer = client.send(world.get("/API/X?Y=Z")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(world.upstream.last().target, "/API/X?Y=Z");
        assert!(open.log().requests.is_empty(), "a spelling of /api went around it");
    });
}

#[test]
fn a_prefix_is_taken_away_on_whole_segments() {
    let sections = format!(
        "{ROUTES}\n[routes.stripped]\npath = \"/api/v1\"\nupstream = \"legacy\"\nschemes = [\"token\"]\nstrip_prefix = true\n"
    );
    on_both(&Settings::sections(&sections), async |world, client| {
        for (target, expected) in [
            ("/api/v1", "/"),
            ("/api/v1/", "/"),
            ("/api/v1?q=/api/v1", "/?q=/api/v1"),
            ("/api/v1/users/", "/users/"),
            ("/api/v1/api/v1/x", "/api/v1/x"),
            ("/api/v1x", "/api/v1x"),
            ("/api", "/api"),
        ] {
            assert_eq!(client.send(world.get(target)).await.status, 200);
            assert_eq!(world.upstream.last().target, expected, "{target}");
        }
        let mark = world.upstream.mark();
        // Nor may what is left be another server's.
        let answer = client.send(world.get("/api/v1//evil.test/x")).await;
        let (requests, _) = world.upstream.since(mark);
        let is_refused = answer.status == 400 && requests.is_empty();
        let is_path = requests.first().is_some_and(|request| !request.target.starts_with("//"));
        assert!(is_refused || is_path, "{answer:?} {requests:?}");
    });
}

#[test]
fn an_upstream_is_told_the_host_as_configured() {
    for (line, expected) in [
        ("", Some(AUTHORITY)),
        ("host = \"upstream\"", None),
        ("host = \"inside.test\"", Some("inside.test")),
    ] {
        on_both(&Settings { upstream: line, ..Settings::default() }, async |world, client| {
            assert_eq!(client.send(world.get("/x")).await.status, 200);
            let request = world.upstream.last();
            let own = world.upstream.authority();
            assert_eq!(request.one("host").as_deref(), Some(expected.unwrap_or(&own)), "{line}");
            // Whatever the Host is, the upstream can know what the client asked for.
            assert_eq!(Told::by(&request), Told::new("127.0.0.1", "https", AUTHORITY));
        });
    }
}

#[test]
fn an_upstream_may_be_a_unix_socket() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let directory = tempfile::tempdir().unwrap();
        let upstream = TestUpstream::start_unix(&directory.path().join("upstream.sock"));
        World::before(upstream, &Settings::default()).run(protocol, async |world, client| {
            for _ in 0..3 {
                let answer = client.send(world.post("/x", "body")).await;
                assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
            }
            assert_eq!(world.upstream.last().body, b"body");
            assert_eq!(world.upstream.connections(), 1, "connections are kept");
            let mark = world.upstream.mark();
            assert_own(&client.send(Request::get("/x")).await, 401);
            world.assert_refused(client, mark).await;
        });
    }
}

#[test]
fn a_unix_socket_that_is_not_there_is_a_bad_gateway() {
    let sections = "[upstreams.gone]\nservers = [\"unix:/nonexistent/doorward.sock\"]\n\
                    [routes.gone]\npath = \"/\"\nupstream = \"gone\"\nschemes = [\"token\"]\n";
    on_both(&Settings::sections(sections), async |world, client| {
        assert_own(&client.send(world.get("/x")).await, 502);
    });
}

// --- several servers

/// Two servers of one upstream, each of which answers with its name.
fn pair(lines: &str, first: &TestUpstream, second: &TestUpstream) -> Settings {
    for (name, server) in [("first", first), ("second", second)] {
        server.otherwise(respond(answer("200 OK", &[], name)));
    }
    Settings::sections(&format!(
        "[upstreams.pair]\nservers = [\"{}\", \"{}\"]\n{lines}\n\
         [routes.pair]\npath = \"/\"\nupstream = \"pair\"\nschemes = [\"token\"]\n",
        first.url(),
        second.url()
    ))
}

#[test]
fn two_servers_share_the_requests() {
    for balance in ["round-robin", "least-requests"] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let (first, second) = (TestUpstream::start(), TestUpstream::start());
            let settings = pair(&format!("balance = \"{balance}\""), &first, &second);
            World::start(&settings).run(protocol, async |world, client| {
                for _ in 0..20 {
                    assert_eq!(client.send(world.get("/x")).await.status, 200);
                }
                let counts = [first.log().requests.len(), second.log().requests.len()];
                assert_eq!(counts.iter().sum::<usize>(), 20);
                if balance == "round-robin" {
                    assert_eq!(counts, [10, 10]);
                } else {
                    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
                }
            });
        }
    }
}

#[test]
fn a_server_that_is_busy_gets_fewer_requests() {
    use crate::harness::gate::Gate;
    use crate::harness::script::Step;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (first, second) = (TestUpstream::start(), TestUpstream::start());
        let settings = pair("", &first, &second);
        World::start(&settings).run(protocol, async |world, client| {
            let gate = Gate::closed();
            for server in [&first, &second] {
                server.script("/held", vec![Step::Hold(gate.clone()), Step::Ok]);
            }
            let other = client.fresh();
            let (_upload, mut download) = other.open(world.get("/held")).await;
            let came = || first.log().of("/held").len() + second.log().of("/held").len() == 1;
            let arrived = async {
                while !came() {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            };
            crate::harness::client::patiently("the held request", arrived).await;
            let free = if first.log().of("/held").is_empty() { "first" } else { "second" };
            for _ in 0..6 {
                assert_eq!(client.send(world.get("/x")).await.text(), free);
            }
            gate.open();
            assert_eq!(download.answer().await.unwrap().status, 200);
        });
    }
}

#[test]
fn a_server_that_is_down_is_passed_over_until_it_is_back() {
    for balance in ["round-robin", "least-requests"] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let (first, mut second) = (TestUpstream::start(), TestUpstream::down());
            let settings = pair(&format!("balance = \"{balance}\""), &first, &second);
            let world = World::start(&settings);
            world.run(protocol, async |world, client| {
                for number in 0..10 {
                    // Whatever the method: nothing was sent to the one that is down.
                    let request = if number % 2 == 0 { world.get("/x") } else { world.post("/x", "body") };
                    let answer = client.send(request).await;
                    assert_eq!((answer.status, answer.text().as_str()), (200, "first"));
                }
                assert_eq!(first.log().requests.len(), 10, "each once");
            });
            second.restart();
            world.run(protocol, async |world, client| {
                let back = async {
                    while client.send(world.get("/x")).await.text() != "second" {
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    }
                };
                crate::harness::client::patiently("the second is used again", back).await;
            });
        }
    }
}

#[test]
fn all_servers_down_is_a_bad_gateway() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (first, second) = (TestUpstream::down(), TestUpstream::down());
        World::start(&pair("", &first, &second)).run(protocol, async |world, client| {
            for _ in 0..3 {
                assert_own(&client.send(world.get("/x")).await, 502);
                assert_own(&client.send(world.post("/x", "body")).await, 502);
            }
        });
    }
}

// --- TLS towards the upstream

/// An authority of the test's own, and what it has signed.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new(directory: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = directory.join(format!("{name}.pem"));
        std::fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, file }
    }

    /// A server's TLS with a certificate for this name or address.
    fn server(&self, name: &str) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let chain = vec![certificate.der().clone()];
        Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
    }
}

/// Takes TLS off in front of an upstream.
struct TlsFront {
    address: SocketAddr,
    _runtime: Runtime,
}

impl TlsFront {
    fn start(config: Arc<ServerConfig>, upstream: &TestUpstream) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (acceptor, behind) = (TlsAcceptor::from(config), upstream.authority());
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                tokio::spawn(async move {
                    // A client that does not trust the certificate ends the handshake.
                    let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                    let mut plain = TcpStream::connect(behind).await.unwrap();
                    drop(tokio::io::copy_bidirectional(&mut tls, &mut plain).await);
                });
            }
        });
        Self { address, _runtime: runtime }
    }
}

/// Everything goes over TLS to this front.
fn secure(front: &TlsFront, lines: &str) -> Settings {
    Settings::sections(&format!(
        "[upstreams.secure]\nservers = [\"https://{}\"]\n{lines}\n\
         [routes.secure]\npath = \"/\"\nupstream = \"secure\"\nschemes = [\"token\"]\n",
        front.address
    ))
}

fn ca(authority: &Authority) -> String {
    format!("ca = \"{}\"", authority.file.display())
}

#[test]
fn an_https_upstream_whose_certificate_is_right_is_used() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new(directory.path(), "right");
        let upstream = TestUpstream::start();
        let front = TlsFront::start(authority.server("127.0.0.1"), &upstream);
        let settings = secure(&front, &ca(&authority));
        World::before(upstream, &settings).run(protocol, async |world, client| {
            let body = crate::harness::pattern(0, 1 << 20);
            for _ in 0..3 {
                let answer = client.send(world.post("/x", body.clone())).await;
                assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
                assert!(world.upstream.last().body == body);
            }
            assert_eq!(world.upstream.connections(), 1, "connections are kept");
            let mark = world.upstream.mark();
            assert_own(&client.send(Request::get("/x")).await, 401);
            world.assert_refused(client, mark).await;
        });
    }
}

#[test]
fn an_https_upstream_that_is_somebody_else_is_a_bad_gateway() {
    let directory = tempfile::tempdir().unwrap();
    let right = Authority::new(directory.path(), "right");
    let wrong = Authority::new(directory.path(), "wrong");
    for (case, signed_by, name, trusted) in [
        ("another name", &right, "other.test", ca(&right)),
        ("another address", &right, "127.0.0.2", ca(&right)),
        ("another authority", &wrong, "127.0.0.1", ca(&right)),
        // Without `ca` the system's anchors count, and this authority is none of them.
        ("an unknown authority", &right, "127.0.0.1", String::new()),
    ] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let upstream = TestUpstream::start();
            let front = TlsFront::start(signed_by.server(name), &upstream);
            let settings = secure(&front, &trusted);
            World::before(upstream, &settings).run(protocol, async |world, client| {
                assert_own(&client.send(world.get("/x")).await, 502);
                assert_own(&client.send(world.post("/x", "body")).await, 502);
                let log = world.upstream.log();
                assert!(log.requests.is_empty(), "{case}: the request was sent");
                assert!(log.connections.iter().all(|connection| connection.raw.is_empty()), "{case}");
            });
        }
    }
}
