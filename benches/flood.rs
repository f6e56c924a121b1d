//! What a flood of wrong passwords costs those who have a token: their latency at rest and under the flood.
//!
//! The release binary as a process of its own, over real TLS; the guards are off, so that nothing stops the flood but
//! the bound of the queue. Load, flood and gateway share the machine. Prints the ratio; asserts nothing.

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

use harness::client::{Client, Protocol, Request};
use harness::program::make_alice;
use harness::script::Step;
use harness::upstream::TestUpstream;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

const PASSWORD: &str = "correct horse battery staple";
/// Of one measurement.
const TIME: Duration = Duration::from_secs(10);
const ROUNDS: usize = 3;
/// Each sends one request after the other, with a pause.
const CLIENTS: usize = 8;
const PAUSE: Duration = Duration::from_millis(10);
/// Clients that try passwords, the next as soon as one is refused: fewer than the queue has places, and more.
const FLOODS: [usize; 2] = [64, 256];

/// Latencies of requests with a known token, sorted.
async fn measure(address: SocketAddr, token: &str) -> Vec<Duration> {
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let token = token.to_owned();
        clients.spawn(async move {
            let client = Client::new(Protocol::Http1, address);
            let end = Instant::now() + TIME;
            let mut seen = Vec::new();
            while Instant::now() < end {
                let began = Instant::now();
                let answer = client.send(Request::get("/x").token(&token)).await;
                seen.push(began.elapsed());
                assert_eq!(answer.status, 200);
                tokio::time::sleep(PAUSE).await;
            }
            seen
        });
    }
    let mut all: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
    all.sort_unstable();
    all
}

fn flood(address: SocketAddr, clients_count: usize) -> JoinSet<(usize, usize)> {
    let mut clients = JoinSet::new();
    for _ in 0..clients_count {
        clients.spawn(async move {
            let client = Client::new(Protocol::Http1, address);
            let body = r#"{"username": "alice", "password": "wrong"}"#;
            let end = Instant::now() + TIME;
            let (mut checked, mut busy) = (0, 0);
            while Instant::now() < end {
                let request = Request::post("/login", body).field("Content-Type", "application/json");
                match client.send(request).await.status {
                    400 => checked += 1,
                    503 => {
                        busy += 1;
                        tokio::time::sleep(PAUSE).await;
                    }
                    status => panic!("{status}"),
                }
            }
            (checked, busy)
        });
    }
    clients
}

fn at(sorted: &[Duration], per_mille: usize) -> Duration {
    sorted.get((sorted.len() * per_mille / 1000).min(sorted.len() - 1)).copied().unwrap()
}

/// Nobody reads its log: that would cost as much as what is measured.
async fn start(directory: &Path, address: SocketAddr) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.arg("serve").current_dir(directory).stderr(Stdio::null()).kill_on_drop(true);
    let program = command.spawn().unwrap();
    while tokio::net::TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(PAUSE).await;
    }
    program
}

fn main() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let upstream = TestUpstream::start();
    upstream.otherwise(vec![Step::ReadBody, Step::Ok]);
    let config = format!(
        "[listen]\nhttps = [\"{address}\"]\n\n[authentication]\nguard = \"off\"\n\n\
         [upstreams.legacy]\nservers = [\"{}\"]\n\n[routes.everything]\npath = \"/\"\nupstream = \"legacy\"\n\n\
         [routes.login]\npath = \"/login\"\nhandler = \"obtain-token\"\n",
        upstream.url()
    );
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let token = make_alice(&config, directory.path(), PASSWORD).await;
        let mut program = start(directory.path(), address).await;
        for (round, flooding) in (1..=ROUNDS).flat_map(|round| FLOODS.map(|flooding| (round, flooding))) {
            let rest = measure(address, &token).await;
            let crowd = flood(address, flooding);
            let flooded = measure(address, &token).await;
            let (checked, busy) =
                crowd.join_all().await.into_iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            let ratio = |per_mille| at(&flooded, per_mille).as_secs_f64() / at(&rest, per_mille).as_secs_f64();
            println!(
                "round {round}, {flooding} clients flood: at rest p50 {:.2?} p99 {:.2?}; in the flood p50 {:.2?} p99 {:.2?} (p50 x{:.2}, p99 x{:.2}); \
                 {checked} passwords checked, {busy} answered 503",
                at(&rest, 500),
                at(&rest, 990),
                at(&flooded, 500),
                at(&flooded, 990),
                ratio(500),
                ratio(990),
            );
        }
        program.kill().await.unwrap();
    });
}
