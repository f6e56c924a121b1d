//! Listening sockets that outlive the process: handed from one gateway to the next, with nobody turned away.
//!
//! The test plays the service manager: it holds the socket, and starts programs with it.

use crate::harness::PATIENCE;
use crate::harness::client::{Client, NoAnswer, Protocol, Request};
use crate::harness::program::{Program, handed, make_alice};
use crate::harness::upstream::TestUpstream;
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::process::Command;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const PASSWORD: &str = "correct horse battery staple";
/// Restarts under load.
const RESTARTS: usize = 6;
/// Between two of them.
const BETWEEN: Duration = Duration::from_millis(300);

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn config(upstream: &TestUpstream, listen: &str) -> String {
    format!(
        "[listen]\nworkers = 2\n{listen}\n\n[store]\nurl = \"sqlite:doorward.db\"\n\n\
         [upstreams.legacy]\nservers = [\"{}\"]\n\n[routes.everything]\npath = \"/\"\nupstream = \"legacy\"\n",
        upstream.url()
    )
}

/// What a program says that does not start.
async fn failed(mut command: Command, directory: &Path) -> String {
    command.current_dir(directory).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it starts").unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_named_socket_takes_the_place_of_the_addresses_of_the_file() {
    let upstream = TestUpstream::start();
    let directory = tempfile::tempdir().unwrap();
    let ((https, address), (http, http_address), (_occupied, occupied)) =
        (listener(), listener(), listener());
    runtime().block_on(async {
        // This address cannot be bound: whoever tried would fail.
        let text = config(&upstream, &format!("https = [\"{occupied}\"]"));
        let token = make_alice(&text, directory.path(), PASSWORD).await;
        let command = handed(&[("https", https.as_fd()), ("http", http.as_fd())]);
        let program = Program::start_by(command, directory.path()).await;
        // Held at the same time, so that every core has some.
        let clients: Vec<_> = (0..40).map(|_| Client::new(Protocol::Http1, address)).collect();
        for client in &clients {
            assert_eq!(client.send(Request::get("/x").token(&token)).await.status, 200);
        }
        let h2 = Client::new(Protocol::Http2, address);
        assert_eq!(h2.send(Request::get("/x").token(&token)).await.status, 200);
        let sent = Client::in_clear(http_address).send(Request::get("/x").expect(&["location"])).await;
        assert_eq!(sent.status, 308, "{sent:?}");
        // The port that clients come to, not the one of the file.
        let location = sent.one("location").unwrap();
        assert!(location.ends_with(&format!(":{}/x", address.port())), "{location}");
        program.stop().await;
    });
}

#[test]
fn a_socket_without_such_a_name_is_claimed_by_its_address_and_the_rest_is_bound() {
    let upstream = TestUpstream::start();
    let directory = tempfile::tempdir().unwrap();
    let (https, address) = listener();
    // Given back, so that the program can bind it.
    let bound = listener().1;
    runtime().block_on(async {
        let text = config(&upstream, &format!("https = [\"{address}\", \"{bound}\"]"));
        let token = make_alice(&text, directory.path(), PASSWORD).await;
        let program =
            Program::start_by(handed(&[("doorward.socket", https.as_fd())]), directory.path()).await;
        for address in [address, bound] {
            let client = Client::new(Protocol::Http2, address);
            assert_eq!(client.send(Request::get("/x").token(&token)).await.status, 200, "{address}");
        }
        program.stop().await;
    });
}

#[test]
fn what_was_handed_over_and_nobody_claims_stops_the_start() {
    let upstream = TestUpstream::start();
    let directory = tempfile::tempdir().unwrap();
    let (stray, address) = listener();
    let datagrams = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    runtime().block_on(async {
        let text = config(&upstream, "https = [\"127.0.0.1:0\"]");
        make_alice(&text, directory.path(), PASSWORD).await;
        let told = failed(handed(&[("stray.socket", stray.as_fd())]), directory.path()).await;
        assert!(told.contains(&format!("a socket for {address}")) && told.contains("stray.socket"), "{told}");
        assert!(told.contains("[listen]"), "{told}");
        let told = failed(handed(&[("https", datagrams.as_fd())]), directory.path()).await;
        assert!(told.contains("descriptor 3") && told.contains("no listening TCP socket"), "{told}");
        let mut more = handed(&[("https", stray.as_fd())]);
        more.env("LISTEN_FDNAMES", "https:http");
        let told = failed(more, directory.path()).await;
        assert!(told.contains("LISTEN_FDNAMES"), "{told}");
        let mut more = handed(&[("https", stray.as_fd())]);
        more.env("LISTEN_FDS", "4000000000");
        failed(more, directory.path()).await;
    });
}

#[test]
fn a_socket_that_takes_no_ipv4_clients_is_told_of_in_the_log() {
    let upstream = TestUpstream::start();
    let directory = tempfile::tempdir().unwrap();
    let any = |only_v6: bool| {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        socket.set_only_v6(only_v6).unwrap();
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into()).unwrap();
        socket.listen(16).unwrap();
        TcpListener::from(socket)
    };
    let (narrow, wide) = (any(true), any(false));
    runtime().block_on(async {
        let text = config(&upstream, "https = [\"127.0.0.1:0\"]");
        make_alice(&text, directory.path(), PASSWORD).await;
        for (socket, is_told) in [(&narrow, true), (&wide, false)] {
            let log = directory.path().join("log");
            let mut command = handed(&[("https", socket.as_fd())]);
            command.current_dir(directory.path()).kill_on_drop(true);
            let mut child = command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
            let logged = async {
                loop {
                    let logged = std::fs::read_to_string(&log).unwrap();
                    if logged.contains("listening for HTTPS") {
                        return logged;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let logged = tokio::time::timeout(PATIENCE, logged).await.expect("it serves");
            child.kill().await.unwrap();
            let warned = |line: &str| line.contains("WARN") && line.contains("takes no IPv4 clients");
            assert_eq!(logged.lines().any(warned), is_told, "{logged}");
        }
    });
}

#[test]
fn sockets_of_another_process_are_left_alone() {
    let upstream = TestUpstream::start();
    let directory = tempfile::tempdir().unwrap();
    let (stray, _) = listener();
    runtime().block_on(async {
        let text = config(&upstream, "https = [\"127.0.0.1:0\"]");
        make_alice(&text, directory.path(), PASSWORD).await;
        let mut command = handed(&[("stray", stray.as_fd())]);
        command.env("PID", "1");
        let program = Program::start_by(command, directory.path()).await;
        assert_ne!(program.address, stray.local_addr().unwrap());
        program.stop().await;
    });
}

/// Clients that never stop sending, and what became of it.
struct Load {
    stop: Arc<AtomicBool>,
    clients: JoinSet<Vec<String>>,
    /// Requests that their own client took back, because it had heard GOAWAY before they were sent or seen.
    taken_back: Arc<AtomicUsize>,
}

impl Load {
    /// Half of the clients speak HTTP/2; two of each four upload, one connects anew for each request.
    fn start(address: SocketAddr, token: &str) -> Self {
        let (stop, taken_back) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for number in 0..8 {
            let protocol = if number % 2 == 0 { Protocol::Http1 } else { Protocol::Http2 };
            let (stop, taken_back, token) = (Arc::clone(&stop), Arc::clone(&taken_back), token.to_owned());
            clients.spawn(async move {
                let mut client = Client::new(protocol, address);
                let mut answered = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let target = format!("/{number}/{}", answered.len());
                    if number / 2 == 0 {
                        client = client.fresh();
                    }
                    let request = match number / 2 {
                        1 | 2 => Request::post(&target, vec![b'x'; 300_000]),
                        _ => Request::get(&target),
                    };
                    match client.try_send(request.token(&token)).await {
                        Ok(answer) => {
                            assert_eq!(
                                (answer.status, answer.truncated),
                                (200, false),
                                "{target}: {answer:?}"
                            );
                            answered.push(target);
                        }
                        Err(NoAnswer(why)) => {
                            // RFC 9113 section 6.8: it was not processed, and is sent again. The upstream's log shows
                            // whether that is so.
                            assert!(protocol == Protocol::Http2 && is_taken_back(&why), "{target}: {why}");
                            taken_back.fetch_add(1, Ordering::Relaxed);
                            client = client.fresh();
                        }
                    }
                }
                answered
            });
        }
        Self { stop, clients, taken_back }
    }

    /// Ends it; yields the targets that were answered, each once.
    async fn end(self) -> (Vec<String>, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let answered = self.clients.join_all().await;
        let least = answered.iter().map(Vec::len).min().unwrap();
        assert!(least >= RESTARTS, "some client has got {least} answers only");
        (answered.into_iter().flatten().collect(), self.taken_back.load(Ordering::Relaxed))
    }
}

/// A new connection is to be used.
fn is_taken_back(why: &str) -> bool {
    let why = why.to_ascii_lowercase();
    why.contains("goaway") || why.contains("go away") || why.contains("canceled")
}

/// One socket, program after program. Every other time the next one starts while the one before still serves; else the
/// socket is nobody's for a while, as when systemd restarts a service.
#[test]
fn restarts_with_one_socket_lose_no_request() {
    let upstream = TestUpstream::start();
    let directory = tempfile::tempdir().unwrap();
    let (socket, address) = listener();
    runtime().block_on(async {
        let text = config(&upstream, "");
        let token = make_alice(&text, directory.path(), PASSWORD).await;
        let start = || Program::start_by(handed(&[("https", socket.as_fd())]), directory.path());
        let mut program = start().await;
        let load = Load::start(address, &token);
        for restart in 0..RESTARTS {
            tokio::time::sleep(BETWEEN).await;
            let is_overlapping = restart % 2 == 0;
            let next = if is_overlapping { Some(start().await) } else { None };
            program.stop().await;
            program = match next {
                Some(next) => next,
                None => start().await,
            };
        }
        tokio::time::sleep(BETWEEN).await;
        let (answered, taken_back) = load.end().await;
        program.stop().await;
        println!("{} answered, {taken_back} taken back after GOAWAY, in {RESTARTS} restarts", answered.len());
        let mut seen = HashMap::new();
        for request in &upstream.log().requests {
            *seen.entry(request.target.clone()).or_insert(0_usize) += 1;
        }
        for target in &answered {
            assert_eq!(seen.remove(target), Some(1), "{target}");
        }
        assert!(seen.is_empty(), "forwarded, and never answered: {seen:?}");
    });
}

#[test]
fn the_service_manager_is_told() {
    let upstream = TestUpstream::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut space = [0; 4096];
        let length = manager.recv(&mut space).unwrap();
        String::from_utf8(space[..length].to_vec()).unwrap()
    };
    let has = |told: &str, line: &str| assert!(told.lines().any(|one| one == line), "{line}: {told:?}");
    runtime().block_on(async {
        let text = config(&upstream, "https = [\"127.0.0.1:0\"]");
        make_alice(&text, directory.path(), PASSWORD).await;
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.arg("serve").env("NOTIFY_SOCKET", &path);
        let program = Program::start_by(command, directory.path()).await;
        has(&told(), "READY=1");
        for (text, word) in [(text.clone(), "reloaded"), ("[routes".to_owned(), "refused")] {
            std::fs::write(directory.path().join("doorward.toml"), text).unwrap();
            rustix::process::kill_process(program.id(), rustix::process::Signal::HUP).unwrap();
            let reloading = told();
            has(&reloading, "RELOADING=1");
            let time = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
            assert!(time.parse::<u64>().unwrap() > 0);
            let reloaded = told();
            has(&reloaded, "READY=1");
            assert!(reloaded.contains("STATUS=") && reloaded.contains(word), "{reloaded:?}");
        }
        program.stop().await;
        has(&told(), "STOPPING=1");
    });
}
