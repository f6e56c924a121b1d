//! A steady load on several gateways, all of which is to pass, and an upstream that keeps nothing of it.

use crate::harness::client::{AUTHORITY, Stream, handshake, tls_config};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Connections to each gateway.
pub(crate) const CONNECTIONS: usize = 4;
/// Whoever waits longer has no answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers `ok` to every request without a body; in a thread of its own.
#[derive(Debug)]
pub(crate) struct Light {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Light {
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = accept(&listener) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    /// For `servers = [...]`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Light {
    fn drop(&mut self) {
        drop(self.stop.take());
        let is_good = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        assert!(is_good || std::thread::panicking(), "the upstream has failed");
    }
}

async fn accept(listener: &TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
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
}

/// A connection that is kept.
pub(crate) struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let config = Arc::new(tls_config(rustls::ALL_VERSIONS, &[b"http/1.1"]));
        let stream = handshake(&config, "localhost", tcp).await.unwrap();
        Self { stream, buffer: Vec::with_capacity(4096) }
    }

    /// Sends a request, reads the answer whole, and yields its status. `None`: there was none.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Option<u16> {
        tokio::time::timeout(PATIENCE, self.exchange(request)).await.ok()?
    }

    async fn exchange(&mut self, request: &[u8]) -> Option<u16> {
        self.stream.write_all(request).await.ok()?;
        self.stream.flush().await.ok()?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
            if let Some((status, length)) = answer(&self.buffer)
                && self.buffer.len() >= length
            {
                return Some(status);
            }
        }
    }
}

/// Status and length of an answer whose head is there.
fn answer(bytes: &[u8]) -> Option<(u16, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).unwrap().to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.expect("an answer of known length").parse().unwrap();
    Some((status, end + 4 + length))
}

/// A request with one more field.
pub(crate) fn get(path: &str, name: &str, value: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {AUTHORITY}\r\n{name}: {value}\r\n\r\n").into_bytes()
}

/// One request of the load.
#[derive(Debug, Clone, Copy)]
struct Sample {
    sent: Instant,
    took: Duration,
    /// `None`: no answer.
    status: Option<u16>,
}

/// Yields a request, by the place of its connection among all of them, and by how many there were on it before.
pub(crate) type Next = Arc<dyn Fn(usize, usize) -> Vec<u8> + Send + Sync>;

/// These in turn; each connection begins with another one.
pub(crate) fn in_turn(requests: Vec<Vec<u8>>) -> Next {
    Arc::new(move |connection, before| {
        let first = connection * requests.len() / CONNECTIONS;
        requests[(first + before) % requests.len()].clone()
    })
}

/// The load, until it is stopped.
pub(crate) struct Load {
    tasks: JoinSet<Vec<Sample>>,
    is_over: Arc<AtomicBool>,
}

impl Load {
    /// So many requests a second to all of them together.
    pub(crate) async fn start(addresses: &[SocketAddr], next: &Next, per_second: u32) -> Self {
        let is_over = Arc::<AtomicBool>::default();
        let connections = u32::try_from(addresses.len() * CONNECTIONS).unwrap();
        let pause = Duration::from_secs(connections.into()) / per_second;
        let mut tasks = JoinSet::new();
        for place in 0..CONNECTIONS {
            for &address in addresses {
                let connection = Connection::open(address).await;
                let (next, is_over) = (Arc::clone(next), Arc::clone(&is_over));
                tasks.spawn(async move {
                    let requests = (0..).map(|before| next(place, before));
                    send(connection, address, requests, pause, is_over).await
                });
            }
        }
        Self { tasks, is_over }
    }

    pub(crate) async fn stop(self) -> Seen {
        self.is_over.store(true, Ordering::Relaxed);
        Seen(self.tasks.join_all().await.into_iter().flatten().collect())
    }
}

/// One connection's share.
async fn send(
    mut connection: Connection,
    address: SocketAddr,
    requests: impl Iterator<Item = Vec<u8>> + Send,
    pause: Duration,
    is_over: Arc<AtomicBool>,
) -> Vec<Sample> {
    let mut ticks = interval(pause);
    // What an answer that came late has held up is sent all the same.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut seen = Vec::new();
    for request in requests {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        ticks.tick().await;
        let sent = Instant::now();
        let status = connection.ask(&request).await;
        seen.push(Sample { sent, took: sent.elapsed(), status });
        if status.is_none() {
            connection = Connection::open(address).await;
        }
    }
    seen
}

/// What the load has seen.
pub(crate) struct Seen(Vec<Sample>);

impl Seen {
    /// Those that did not pass: how many of each status; 0 for no answer.
    pub(crate) fn failed(&self) -> BTreeMap<u16, usize> {
        let mut failed = BTreeMap::new();
        for status in self.0.iter().map(|sample| sample.status.unwrap_or(0)).filter(|status| *status != 200) {
            *failed.entry(status).or_default() += 1;
        }
        failed
    }

    /// Of what was sent from one moment to the other.
    pub(crate) fn times(&self, from: Instant, to: Instant) -> Times {
        let within = self.0.iter().filter(|sample| (from..to).contains(&sample.sent));
        Times::new(within.map(|sample| sample.took).collect())
    }
}

/// How long requests took.
#[derive(Debug, Clone)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let place = (self.0.len() * percent).div_ceil(100).max(1) - 1;
        self.0.get(place).copied().unwrap_or_default()
    }

    pub(crate) fn max(&self) -> Duration {
        self.percentile(100)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, max] = [50, 99, 100].map(|percent| self.percentile(percent).as_secs_f64() * 1e3);
        write!(f, "{} requests, p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.1} ms", self.count())
    }
}
