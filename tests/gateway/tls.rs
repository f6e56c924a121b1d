//! TLS as clients meet it: versions, ALPN, certificates by SNI, session resumption, and the self-signed certificate.
//!
//! What is asserted is what a handshake came to on the client's side, never what the gateway is configured with.

use crate::harness::client::{self, Protocol, handshake, tls_config};
use crate::harness::gateway::TestGateway;
use crate::harness::upstream::TestUpstream;
use crate::harness::world::{Settings, World};
use crate::reload::reload;
use doorward::app::Options;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, SupportedProtocolVersion};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// A handshake with these settings that names this server.
async fn connect(config: &Arc<ClientConfig>, name: &str, address: SocketAddr) -> io::Result<client::Stream> {
    handshake(config, name, TcpStream::connect(address).await.unwrap()).await
}

async fn connect_with(
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
    address: SocketAddr,
) -> io::Result<client::Stream> {
    connect(&Arc::new(tls_config(versions, alpn)), "localhost", address).await
}

/// One request over HTTP/1.1, so that whatever the gateway sends after the handshake has come.
async fn get(stream: &mut client::Stream, token: &str) {
    let head = format!("GET / HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Token {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok") {
        let count = client::patiently("an answer", stream.read_buf(&mut answer)).await.unwrap();
        assert!(count > 0, "{:?}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{:?}", String::from_utf8_lossy(&answer));
}

/// Runs a case that chooses the protocol itself.
fn with_gateway(settings: &Settings, case: impl AsyncFnOnce(&World, SocketAddr)) {
    World::start(settings).run(Protocol::Http1, async |world, _| case(world, world.gateway.address()).await);
}

#[test]
fn alpn_chooses_http2_if_the_client_offers_it_and_http1_otherwise() {
    with_gateway(&Settings::default(), async |world, address| {
        for (offered, chosen) in [
            (&[HTTP2, HTTP1][..], Some(HTTP2)),
            (&[HTTP1, HTTP2], Some(HTTP2)),
            (&[HTTP2], Some(HTTP2)),
            (&[HTTP1], Some(HTTP1)),
            (&[b"spdy/3", HTTP1], Some(HTTP1)),
            (&[], None),
        ] {
            let stream = connect_with(rustls::ALL_VERSIONS, offered, address).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), chosen, "{offered:?}");
        }
        // Without ALPN it is HTTP/1.1.
        let mut stream = connect_with(rustls::ALL_VERSIONS, &[], address).await.unwrap();
        get(&mut stream, &world.token).await;
    });
}

#[test]
fn a_client_that_offers_only_other_protocols_is_refused() {
    with_gateway(&Settings::default(), async |_, address| {
        for offered in [&[b"h3".as_slice()][..], &[b"spdy/3", b"http/1.0"]] {
            let error =
                connect_with(rustls::ALL_VERSIONS, offered, address).await.expect_err("no common protocol");
            assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
        }
    });
}

#[test]
fn tls_1_2_and_1_3_are_spoken_by_default() {
    with_gateway(&Settings::default(), async |world, address| {
        for (version, expected) in [
            (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
            (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
        ] {
            let mut stream = connect_with(&[version], &[HTTP1], address).await.unwrap();
            assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
            get(&mut stream, &world.token).await;
        }
        let stream = connect_with(rustls::ALL_VERSIONS, &[HTTP1], address).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    });
}

#[test]
fn min_version_1_3_refuses_tls_1_2() {
    let sections = format!("{}\n[tls]\nmin_version = \"1.3\"\n", crate::harness::world::ROUTES);
    with_gateway(&Settings::sections(&sections), async |world, address| {
        let error = connect_with(&[&rustls::version::TLS12], &[HTTP1], address).await.expect_err("TLS 1.2");
        assert!(error.to_string().contains("ProtocolVersion"), "{error}");
        let mut stream = connect_with(rustls::ALL_VERSIONS, &[HTTP1], address).await.unwrap();
        get(&mut stream, &world.token).await;
    });
}

// --- certificates

/// Writes a self-signed certificate and its key; yields the certificate.
fn certificate(directory: &Path, file: &str, names: &[&str]) -> CertificateDer<'static> {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    fs::write(directory.join(format!("{file}.pem")), made.cert.pem()).unwrap();
    fs::write(directory.join(format!("{file}.key")), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

/// `[tls]` with pairs of files.
fn tls_section(directory: &Path, pairs: &[(&str, &str)]) -> String {
    let path = |file: String| directory.join(file).display().to_string();
    let pairs = pairs.iter().map(|(cert, key)| {
        format!("{{ cert = \"{}\", key = \"{}\" }}", path(format!("{cert}.pem")), path(format!("{key}.key")))
    });
    format!("[tls]\ncertificates = [{}]\n", pairs.collect::<Vec<_>>().join(", "))
}

#[test]
fn certificates_are_chosen_by_sni_and_unknown_names_get_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let first = certificate(directory.path(), "first", &["first.test"]);
    let second = certificate(directory.path(), "second", &["second.test", "*.second.test"]);
    let third = certificate(directory.path(), "third", &["deep.second.test"]);
    let section =
        tls_section(directory.path(), &[("first", "first"), ("second", "second"), ("third", "third")]);
    let sections = format!("{}\n{section}", crate::harness::world::ROUTES);
    with_gateway(&Settings::sections(&sections), async |_, address| {
        for version in rustls::ALL_VERSIONS {
            for (name, expected) in [
                ("first.test", &first),
                ("second.test", &second),
                ("Second.TEST", &second),
                ("www.second.test", &second),
                ("a.www.second.test", &first),
                ("deep.second.test", &third),
                ("unknown.test", &first),
                // An address is no server name: nothing is sent (RFC 6066, section 3).
                ("127.0.0.1", &first),
            ] {
                let config = Arc::new(tls_config(&[*version], &[HTTP1]));
                let stream = connect(&config, name, address).await.unwrap();
                let got = stream.get_ref().1.peer_certificates().unwrap();
                assert!(got.first() == Some(expected), "{name} with {version:?}");
            }
        }
    });
}

#[test]
fn a_key_of_another_certificate_is_an_error_at_start() {
    let directory = tempfile::tempdir().unwrap();
    certificate(directory.path(), "one", &["one.test"]);
    certificate(directory.path(), "two", &["two.test"]);
    let sections = format!(
        "{}\n{}",
        crate::harness::world::ROUTES,
        tls_section(directory.path(), &[("one", "one"), ("one", "two")])
    );
    let config = Settings::sections(&sections).config("http://127.0.0.1:9");
    let Err(error) = TestGateway::start_in(directory.path(), &config, Options::default()) else {
        panic!("it starts")
    };
    let text = error.to_string();
    assert!(text.contains("two.key") && text.contains("one.pem"), "{text}");
}

#[test]
fn the_self_signed_certificate_is_private_and_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = TestUpstream::start();
    let config = Settings::default().config(upstream.url());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let seen = || {
        let gateway = TestGateway::start_in(directory.path(), &config, Options::default()).unwrap();
        let stream =
            runtime.block_on(connect_with(rustls::ALL_VERSIONS, &[HTTP1], gateway.address())).unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let first = seen();
    let mode = |file: &str| fs::metadata(directory.path().join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("certs/self-signed.key"), 0o600);
    let key = fs::read(directory.path().join("certs/self-signed.key")).unwrap();
    assert!(seen() == first, "another certificate after a restart");
    assert_eq!(fs::read(directory.path().join("certs/self-signed.key")).unwrap(), key);
    assert_eq!(mode("certs/self-signed.key"), 0o600);
}

#[test]
fn a_client_that_trusts_the_self_signed_certificate_can_verify_it() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = TestUpstream::start();
    let route = "[routes.named]\nhost = \"api.example.test\"\npath = \"/\"\nupstream = \"legacy\"\n";
    let config = Settings::sections(route).config(upstream.url());
    let gateway = TestGateway::start_in(directory.path(), &config, Options::default()).unwrap();
    let pem = fs::read(directory.path().join("certs/self-signed.pem")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(&pem).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for name in ["localhost", "127.0.0.1", "api.example.test"] {
            connect(&config, name, gateway.address()).await.unwrap();
        }
        connect(&config, "other.test", gateway.address()).await.expect_err("a name that is not in it");
    });
}

// --- resumption

#[test]
fn sessions_are_resumed_on_every_worker() {
    for version in rustls::ALL_VERSIONS {
        let settings = Settings { workers: 2, ..Settings::default() };
        with_gateway(&settings, async |world, address| {
            // One for all connections: what the client remembers is here.
            let config = Arc::new(tls_config(&[*version], &[HTTP1]));
            let mut connections = 0;
            // Each worker has connections of its own to the upstream: two of them show that both have served.
            while world.upstream.connections() < 2 {
                let mut stream = connect(&config, "localhost", address).await.unwrap();
                let expected = if connections == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
                let kind = stream.get_ref().1.handshake_kind();
                assert_eq!(kind, Some(expected), "connection {connections} with {version:?}");
                get(&mut stream, &world.token).await;
                connections += 1;
                assert!(connections < 100, "the kernel never chose the other worker");
            }
            // Back to where the first ticket may have been made.
            for _ in 0..8 {
                let mut stream = connect(&config, "localhost", address).await.unwrap();
                assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
                get(&mut stream, &world.token).await;
            }
        });
    }
}

#[test]
fn sessions_are_resumed_after_a_reload_until_the_certificate_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    for file in ["one", "two"] {
        certificate(directory.path(), file, &["localhost"]);
    }
    let settings = |more: &str, pairs: &[(&str, &str)]| {
        let sections = format!("{more}\n{}", tls_section(directory.path(), pairs));
        Settings::sections(&format!("{}\n{sections}", crate::harness::world::ROUTES))
    };
    let first = settings("", &[("one", "one")]);
    with_gateway(&first, async |world, address| {
        let put = |settings: &Settings| reload(&world.gateway, &settings.config(world.upstream.url()));
        for version in rustls::ALL_VERSIONS {
            put(&first);
            let config = Arc::new(tls_config(&[*version], &[HTTP1]));
            let kind = async || {
                let mut stream = connect(&config, "localhost", address).await.unwrap();
                get(&mut stream, &world.token).await;
                stream.get_ref().1.handshake_kind().unwrap()
            };
            assert_eq!(kind().await, HandshakeKind::Full);
            put(&settings("[limits]\nkeep_alive = \"7s\"", &[("one", "one")]));
            assert_eq!(kind().await, HandshakeKind::Resumed, "{version:?}");
            put(&settings("", &[("one", "one"), ("two", "two")]));
            assert_eq!(kind().await, HandshakeKind::Resumed, "one certificate more, {version:?}");
            // Who resumes sees no certificate, so the one that was withdrawn would go on.
            put(&settings("", &[("two", "two")]));
            assert_eq!(kind().await, HandshakeKind::Full, "{version:?}");
            assert_eq!(kind().await, HandshakeKind::Resumed, "{version:?}");
        }
    });
}

#[test]
fn sessions_of_a_version_that_is_not_spoken_any_more_are_not_resumed() {
    let settings = |more: &str| Settings::sections(&format!("{}\n{more}", crate::harness::world::ROUTES));
    with_gateway(&settings(""), async |world, address| {
        let config = Arc::new(tls_config(&[&rustls::version::TLS12], &[HTTP1]));
        let mut stream = connect(&config, "localhost", address).await.unwrap();
        get(&mut stream, &world.token).await;
        let newer = settings("[tls]\nmin_version = \"1.3\"\n");
        reload(&world.gateway, &newer.config(world.upstream.url()));
        let error = connect(&config, "localhost", address).await.expect_err("TLS 1.2");
        assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    });
}
