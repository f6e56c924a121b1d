//! From the acknowledgement of a revocation to the last of three replicas that refuses; `scripts/revocation` runs it.
//!
//! Real processes, a real PostgreSQL and a real Redis, a steady load of valid requests on all replicas, all of it on this
//! machine. Each token was let in by every replica right before it is revoked, by a fourth replica, in this process.
//! Ends with the line `revocation: p50 X ms, p99 Y ms, max Z ms, N revocations, R replicas`; fails if one of them took
//! longer than the bound, a revoked token came back, or a valid request of the load was not let in.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a bench: a panic ends it"
)]

#[path = "../tests/gateway/harness/mod.rs"]
#[expect(
    dead_code,
    clippy::indexing_slicing,
    reason = "written for the end-to-end tests, of which this needs a part"
)]
mod harness;

use doorward::credentials::{Credentials, NewAccount};
use doorward::store::TokenOrigin;
use harness::client::{Stream, handshake, tls_config};
use harness::program::{Program, credentials};
use harness::services::postgres::Postgres;
use harness::services::redis::Redis;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

const REPLICAS: usize = 3;
/// `[cache] revocation_bound`.
const BOUND: Duration = Duration::from_secs(1);
/// Whose valid requests are the load.
const STEADY: usize = 1000;
/// Connections of the load, to each replica.
const CONNECTIONS: usize = 4;
/// Revocations that are not counted: connections are opened, code is read from the disk.
const WARM_UP: usize = 50;
const KEY: &str = "deployment-key-of-three-replicas-0123456789";

/// What is asked for.
#[derive(Debug, Clone, Copy)]
struct Order {
    revocations: usize,
    at_once: usize,
    /// Requests a second, of all replicas together.
    load: usize,
}

impl Order {
    /// `[N] [--at-once N] [--load N]`; `--bench` comes from cargo.
    fn read(arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut order = Self { revocations: 10_000, at_once: 1, load: 2000 };
        let mut arguments = arguments.filter(|argument| argument != "--bench");
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--at-once" => order.at_once = arguments.next()?.parse().ok().filter(|count| *count > 0)?,
                "--load" => order.load = arguments.next()?.parse().ok()?,
                count => order.revocations = count.parse().ok().filter(|count| *count > 0)?,
            }
        }
        Some(order)
    }
}

/// A connection that is kept.
struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let config = Arc::new(tls_config(rustls::ALL_VERSIONS, &[b"http/1.1"]));
        let stream = handshake(&config, "localhost", tcp).await.unwrap();
        Self { stream, buffer: Vec::with_capacity(4096) }
    }

    /// Sends a request, reads the answer whole, and yields its status.
    async fn ask(&mut self, request: &[u8]) -> u16 {
        self.stream.write_all(request).await.unwrap();
        self.stream.flush().await.unwrap();
        self.buffer.clear();
        loop {
            let count = self.stream.read_buf(&mut self.buffer).await.unwrap();
            assert!(count > 0, "a replica has closed a connection");
            if let Some((status, length)) = answer(&self.buffer)
                && self.buffer.len() >= length
            {
                return status;
            }
        }
    }
}

/// Status and length of an answer whose head is there.
fn answer(bytes: &[u8]) -> Option<(u16, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(bytes.get(..end)?).unwrap().to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.expect("an answer of known length").parse().unwrap();
    Some((status, end + 4 + length))
}

fn get(token: &str) -> Vec<u8> {
    format!("GET /x HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Token {token}\r\n\r\n").into_bytes()
}

/// Answers `ok` to every GET.
async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.set_nodelay(true).unwrap();
                let mut seen = Vec::new();
                // A gateway that is gone needs no answer.
                while stream.read_buf(&mut seen).await.is_ok_and(|count| count > 0) {
                    if seen.ends_with(b"\r\n\r\n") {
                        seen.clear();
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

/// The replicas, with their servers.
struct Fleet {
    // Before the servers, so that they end first.
    replicas: Vec<(Program, TempDir)>,
    writer: Arc<Credentials>,
    _servers: (Postgres, Redis),
}

impl Fleet {
    async fn start() -> Self {
        let (postgres, redis) = (Postgres::start(), Redis::start());
        let text = config(&postgres.database().url(), &redis.url(), upstream().await);
        let directory = || {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("doorward.key"), KEY).unwrap();
            std::fs::write(directory.path().join("doorward.toml"), &text).unwrap();
            directory
        };
        let own = directory();
        let writer = credentials(&text, own.path()).await;
        let binary = std::env::var("DOORWARD_BIN");
        let binary = binary.unwrap_or_else(|_| env!("CARGO_BIN_EXE_doorward").to_owned());
        let mut replicas = Vec::new();
        for _ in 0..REPLICAS {
            let directory = directory();
            // It ends with this process, whatever becomes of that.
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig=KILL", "--", &binary, "serve"]);
            replicas.push((Program::start_by(command, directory.path()).await, directory));
        }
        let account = NewAccount { username: "alice".to_owned(), ..NewAccount::default() };
        let account = NewAccount { password: doorward::secret::Secret::new("not used here"), ..account };
        writer.add_user(account).await.unwrap();
        Self { replicas, writer, _servers: (postgres, redis) }
    }

    async fn connect(&self) -> Vec<Connection> {
        let mut connections = Vec::new();
        for (program, _) in &self.replicas {
            connections.push(Connection::open(program.address).await);
        }
        connections
    }
}

fn config(store: &str, redis: &str, upstream: SocketAddr) -> String {
    format!(
        "[listen]\nhttps = [\"127.0.0.1:0\"]\nworkers = 2\n\n\
         [deployment]\nkey = {{ file = \"doorward.key\" }}\n\n\
         [store]\nurl = \"{store}\"\n\n[redis]\nurl = \"{redis}\"\n\n[log]\npasses = \"none\"\n\n\
         [upstreams.legacy]\nservers = [\"http://{upstream}\"]\n\n\
         [routes.everything]\npath = \"/\"\nupstream = \"legacy\"\nschemes = [\"token\"]\n"
    )
}

async fn token(writer: &Credentials) -> (doorward::identity::CredentialId, Vec<u8>) {
    let made = writer.create_token("alice", "", TokenOrigin::Command).await.unwrap();
    (made.id, get(std::str::from_utf8(made.key.expose()).unwrap()))
}

/// What the load has seen.
#[derive(Debug, Default)]
struct Seen {
    times: Vec<Duration>,
    refused: usize,
}

/// One connection's share of the load, until it is over.
async fn steady(
    mut connection: Connection,
    tokens: Arc<Vec<Vec<u8>>>,
    first: usize,
    pause: Duration,
    is_over: Arc<AtomicBool>,
) -> Seen {
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut seen = Seen::default();
    for request in tokens.iter().cycle().skip(first) {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        ticks.tick().await;
        let began = Instant::now();
        let status = connection.ask(request).await;
        seen.times.push(began.elapsed());
        seen.refused += usize::from(status != 200);
    }
    seen
}

/// What one revocation took.
#[derive(Debug, Clone, Copy)]
struct Taken {
    /// From the call to the acknowledgement.
    acknowledged: Duration,
    /// From there to the last replica's refusal.
    refused: Duration,
}

/// Makes a token, has it let in by all, revokes it, and asks all until they refuse.
async fn revoke(writer: &Credentials, connections: &mut [Connection]) -> Taken {
    let (id, request) = token(writer).await;
    let request = request.as_slice();
    for connection in connections.iter_mut() {
        assert_eq!(connection.ask(request).await, 200, "a new token");
    }
    let began = Instant::now();
    writer.revoke_token(id).await.unwrap();
    let acknowledged = Instant::now();
    let until_refused = connections.iter_mut().map(async |connection| {
        while connection.ask(request).await == 200 {
            assert!(acknowledged.elapsed() < BOUND * 10, "never refused");
        }
        acknowledged.elapsed()
    });
    let refused = futures_util::future::join_all(until_refused).await.into_iter().max().unwrap();
    for connection in connections.iter_mut() {
        assert_eq!(connection.ask(request).await, 401, "a revoked token");
    }
    Taken { acknowledged: acknowledged - began, refused }
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let place = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

fn line(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let [p50, p99, max] = [50, 99, 100].map(|percent| percentile(times, percent));
    format!("p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms")
}

async fn run(order: Order) -> bool {
    let fleet = Fleet::start().await;
    let mut steady_tokens = Vec::new();
    for _ in 0..STEADY {
        steady_tokens.push(token(&fleet.writer).await.1);
    }
    let tokens = Arc::new(steady_tokens);
    let is_over = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    let load_began = Instant::now();
    if let Some(pause) =
        Duration::from_secs((REPLICAS * CONNECTIONS) as u64).checked_div(order.load.try_into().unwrap())
    {
        for number in 0..CONNECTIONS {
            for connection in fleet.connect().await {
                let (tokens, is_over) = (Arc::clone(&tokens), Arc::clone(&is_over));
                let first = number * STEADY / CONNECTIONS;
                load.spawn(steady(connection, tokens, first, pause, is_over));
            }
        }
    }
    // All of them listen by then.
    sleep(BOUND).await;
    let mut warming = fleet.connect().await;
    for _ in 0..WARM_UP {
        revoke(&fleet.writer, &mut warming).await;
    }
    let began = Instant::now();
    let mut workers = JoinSet::new();
    for number in 0..order.at_once {
        let (writer, mut connections) = (Arc::clone(&fleet.writer), fleet.connect().await);
        let share =
            order.revocations / order.at_once + usize::from(number < order.revocations % order.at_once);
        workers.spawn(async move {
            let mut taken = Vec::with_capacity(share);
            for _ in 0..share {
                taken.push(revoke(&writer, &mut connections).await);
            }
            taken
        });
    }
    let taken: Vec<Taken> = workers.join_all().await.into_iter().flatten().collect();
    let time = began.elapsed();
    is_over.store(true, Ordering::Relaxed);
    let seen = load.join_all().await;
    let load_time = load_began.elapsed();
    let refused: usize = seen.iter().map(|seen| seen.refused).sum();
    let mut times: Vec<Duration> = seen.into_iter().flat_map(|seen| seen.times).collect();
    println!(
        "load: {} requests in {:.1?}, {refused} not let in; {}",
        times.len(),
        load_time,
        line(&mut times)
    );
    let mut acknowledged: Vec<_> = taken.iter().map(|taken| taken.acknowledged).collect();
    println!("from the call to the acknowledgement: {}", line(&mut acknowledged));
    let mut times: Vec<_> = taken.iter().map(|taken| taken.refused).collect();
    let line = line(&mut times);
    let late = times.iter().filter(|time| **time > BOUND).count();
    println!("over the bound of {BOUND:?}: {late}; it took {time:.0?}");
    println!("revocation: {line}, {} revocations, {REPLICAS} replicas", times.len());
    late == 0 && refused == 0
}

fn main() -> ExitCode {
    let Some(order) = Order::read(std::env::args().skip(1)) else {
        eprintln!("usage: revocation [REVOCATIONS] [--at-once COUNT] [--load REQUESTS-A-SECOND]");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let done = runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate()).unwrap();
        let mut interrupted = signal(SignalKind::interrupt()).unwrap();
        tokio::select! {
            is_good = run(order) => is_good,
            // Everything is put away, all the same.
            _ = terminated.recv() => false,
            _ = interrupted.recv() => false,
        }
    });
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
