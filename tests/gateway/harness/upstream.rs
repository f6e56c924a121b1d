//! A recording HTTP/1.1 origin on raw sockets.
//!
//! It keeps every byte and every request as they came, and treats whatever is not exact HTTP/1.1 as a violation
//! that fails the test. It runs on a thread of its own, so that a test that blocks does not stop it.

use super::PATIENCE;
use super::pattern;
use super::refusing::RefusingPort;
use super::script::{Script, Step, answer};
use super::wire::{Fields, Framing, Head, Piece, Reader, Stop, values};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    /// Which connection it came on, counted from 0.
    pub(crate) connection: usize,
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names as spelt, in order.
    pub(crate) fields: Fields,
    pub(crate) framing: Framing,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    /// The body came to its end.
    pub(crate) complete: bool,
    /// Bytes of head and body on the wire.
    pub(crate) bytes: usize,
}

impl Recorded {
    /// All values of a field as text.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let values = values(&self.fields, name);
        values.iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect()
    }

    /// The one value of a field; `None` if it is missing.
    pub(crate) fn one(&self, name: &str) -> Option<String> {
        let mut all = self.all(name);
        assert!(all.len() < 2, "{name} came {} times: {all:?}", all.len());
        all.pop()
    }
}

/// A connection as it came.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    /// All bytes that the gateway sent.
    pub(crate) raw: Vec<u8>,
    /// The gateway closed it, or this upstream did.
    pub(crate) closed: bool,
}

/// All that the upstream saw.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) connections: Vec<Connection>,
    pub(crate) requests: Vec<Recorded>,
    /// Scripts that came to their end.
    pub(crate) finished: usize,
    busy: usize,
    /// The most scripts that ever ran side by side.
    pub(crate) busy_at_most: usize,
    violations: Vec<String>,
}

impl Log {
    fn bytes(&self) -> usize {
        self.connections.iter().map(|connection| connection.raw.len()).sum()
    }

    /// The requests for a path, whatever the query.
    pub(crate) fn of(&self, path: &str) -> Vec<&Recorded> {
        self.requests.iter().filter(|request| path_of(&request.target) == path).collect()
    }
}

/// A moment in what the upstream saw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    requests: usize,
    bytes: usize,
}

struct Shared {
    log: Mutex<Log>,
    changed: watch::Sender<()>,
    scripts: Mutex<HashMap<String, VecDeque<Script>>>,
    otherwise: Mutex<Script>,
}

impl Shared {
    fn record<T>(&self, change: impl FnOnce(&mut Log) -> T) -> T {
        let result = change(&mut self.log.lock());
        self.changed.send_replace(());
        result
    }

    /// The next script for a path; the last one stays.
    fn script(&self, path: &str) -> Script {
        let mut scripts = self.scripts.lock();
        let Some(queue) = scripts.get_mut(path) else { return self.otherwise.lock().clone() };
        if queue.len() > 1 { queue.pop_front().unwrap() } else { queue.front().unwrap().clone() }
    }
}

fn path_of(target: &str) -> &str {
    target.split('?').next().unwrap()
}

/// How it takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Normal,
    /// Accepts and never reads.
    Deaf,
}

/// The recording upstream; gone when dropped.
pub(crate) struct TestUpstream {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
    refusing: Option<RefusingPort>,
    address: SocketAddr,
    url: String,
}

impl TestUpstream {
    /// Listens on a free port of the loopback address.
    pub(crate) fn start() -> Self {
        Self::start_tcp(Manner::Normal)
    }

    /// Accepts connections and never reads from them.
    pub(crate) fn start_deaf() -> Self {
        Self::start_tcp(Manner::Deaf)
    }

    fn start_tcp(manner: Manner) -> Self {
        let mut upstream = Self::down();
        upstream.listen(manner);
        upstream
    }

    /// Does not listen yet: connections are refused.
    pub(crate) fn down() -> Self {
        let refusing = RefusingPort::new();
        let address = refusing.address;
        let url = format!("http://{address}");
        Self { shared: Self::shared(), runtime: None, refusing: Some(refusing), address, url }
    }

    /// Listens on a Unix socket.
    pub(crate) fn start_unix(path: &Path) -> Self {
        let runtime = runtime();
        let shared = Self::shared();
        let guard = runtime.enter();
        let listener = UnixListener::bind(path).unwrap();
        drop(guard);
        let served = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, None, Arc::clone(&served)));
            }
        });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let url = format!("unix:{}", path.display());
        Self { shared, runtime: Some(runtime), refusing: None, address, url }
    }

    /// Listens for TLS on a free port, with this configuration.
    pub(crate) fn start_tls(config: rustls::ServerConfig) -> Self {
        let runtime = runtime();
        let shared = Self::shared();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (served, acceptor) = (Arc::clone(&shared), TlsAcceptor::from(Arc::new(config)));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (served, handshake) = (Arc::clone(&served), acceptor.accept(stream));
                // A handshake that fails is no connection: whoever asked learns of it.
                tokio::spawn(async move {
                    if let Ok(stream) = handshake.await {
                        serve(stream, None, served).await;
                    }
                });
            }
        });
        let url = format!("https://localhost:{}", address.port());
        Self { shared, runtime: Some(runtime), refusing: None, address, url }
    }

    fn shared() -> Arc<Shared> {
        let changed = watch::channel(()).0;
        let otherwise = Mutex::new(vec![Step::ReadBody, Step::Ok]);
        Arc::new(Shared { log: Mutex::default(), changed, scripts: Mutex::default(), otherwise })
    }

    fn listen(&mut self, manner: Manner) {
        self.refusing = None;
        let runtime = runtime();
        let address = self.address;
        let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
        let shared = Arc::clone(&self.shared);
        runtime.spawn(async move {
            let mut unread = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                match manner {
                    Manner::Normal => {
                        stream.set_nodelay(true).unwrap();
                        let raw = socket2::SockRef::from(&stream).try_clone().unwrap();
                        tokio::spawn(serve::<TcpStream>(stream, Some(raw), Arc::clone(&shared)));
                    }
                    Manner::Deaf => {
                        shared.record(|log| log.connections.push(Connection::default()));
                        unread.push(stream);
                    }
                }
            }
        });
        self.runtime = Some(runtime);
    }

    /// Closes all connections and refuses new ones, on the same port.
    pub(crate) fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime may not be waited for on a thread of another one.
            std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE)).join().unwrap();
        }
        self.refusing = Some(RefusingPort::at(self.address.port()));
    }

    /// Listens again, on the same port. Call it outside of a runtime.
    pub(crate) fn restart(&mut self) {
        self.listen(Manner::Normal);
    }

    /// For `servers = [...]`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// `host:port`.
    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// What to do with every request for this path.
    pub(crate) fn script(&self, path: &str, script: Script) {
        self.scripts(path, vec![script]);
    }

    /// What to do with the first, second, … request for this path; the last one stays.
    pub(crate) fn scripts(&self, path: &str, scripts: Vec<Script>) {
        assert!(!scripts.is_empty());
        self.shared.scripts.lock().insert(path.to_owned(), scripts.into());
    }

    /// What to do with every request that has no script of its own.
    pub(crate) fn otherwise(&self, script: Script) {
        *self.shared.otherwise.lock() = script;
    }

    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.shared.log.lock()
    }

    /// The last request, which must have come.
    pub(crate) fn last(&self) -> Recorded {
        self.log().requests.last().expect("a request at the upstream").clone()
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.log().connections.len()
    }

    pub(crate) fn mark(&self) -> Mark {
        let log = self.log();
        Mark { requests: log.requests.len(), bytes: log.bytes() }
    }

    /// What came since the mark: the requests, and bytes that belong to none of them.
    pub(crate) fn since(&self, mark: Mark) -> (Vec<Recorded>, usize) {
        let log = self.log();
        let requests = log.requests[mark.requests..].to_vec();
        let known: usize = requests.iter().map(|request| request.bytes).sum();
        let bytes = log.bytes() - mark.bytes;
        (requests, bytes.saturating_sub(known))
    }

    /// Waits until the log is as described.
    pub(crate) async fn wait_for(&self, what: &str, condition: impl Fn(&Log) -> bool + Send + Sync) {
        let mut changes = self.shared.changed.subscribe();
        let wait = async {
            while !condition(&self.log()) {
                changes.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            let log = self.log();
            let requests: Vec<_> = log
                .requests
                .iter()
                .map(|r| (r.connection, &r.method, &r.target, r.body.len(), r.complete))
                .collect();
            let closed: Vec<_> = log.connections.iter().map(|c| c.closed).collect();
            panic!("the upstream never saw: {what}; requests {requests:?}, closed {closed:?}");
        }
    }

    /// Waits until so many requests have come whole.
    pub(crate) async fn wait_for_requests(&self, count: usize) {
        let whole = |log: &Log| log.requests.iter().filter(|request| request.complete).count() >= count;
        self.wait_for(&format!("{count} whole requests"), whole).await;
    }

    /// Waits until this connection is closed.
    pub(crate) async fn wait_for_close(&self, connection: usize) {
        let closed = |log: &Log| log.connections.get(connection).is_some_and(|c| c.closed);
        self.wait_for(&format!("the end of connection {connection}"), closed).await;
    }

    /// Fails if the gateway ever wrote what is not exact HTTP/1.1.
    pub(crate) fn assert_no_violation(&self) {
        let violations = &self.log().violations;
        assert!(violations.is_empty(), "the gateway wrote to the upstream: {violations:#?}");
    }
}

impl Drop for TestUpstream {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).thread_name("upstream").enable_all().build().unwrap()
}

/// Notes every byte on its way to the parser.
struct Tapped<R> {
    io: R,
    shared: Arc<Shared>,
    connection: usize,
}

impl<R: AsyncRead + Unpin> AsyncRead for Tapped<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buffer);
        if result.is_ready() {
            let (bytes, connection) = (&buffer.filled()[before..], self.connection);
            self.shared.record(|log| log.connections[connection].raw.extend_from_slice(bytes));
        }
        result
    }
}

/// One connection, and the request it is at.
struct Conversation<S> {
    reader: Reader<Tapped<tokio::io::ReadHalf<S>>>,
    writer: tokio::io::WriteHalf<S>,
    raw: Option<socket2::Socket>,
    shared: Arc<Shared>,
    connection: usize,
}

/// The connection is over.
struct Over;

type Outcome = Result<(), Over>;

async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    raw: Option<socket2::Socket>,
    shared: Arc<Shared>,
) {
    let connection = shared.record(|log| {
        log.connections.push(Connection::default());
        log.connections.len() - 1
    });
    let (io, writer) = tokio::io::split(stream);
    let reader = Reader::new(Tapped { io, shared: Arc::clone(&shared), connection });
    let mut conversation = Conversation { reader, writer, raw, shared: Arc::clone(&shared), connection };
    while let Ok(()) = conversation.turn().await {}
    drop(conversation);
    shared.record(|log| log.connections[connection].closed = true);
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Conversation<S> {
    fn violation(&self, what: &str) {
        self.shared.record(|log| log.violations.push(what.to_owned()));
    }

    fn stopped(&self, stop: Stop) -> Over {
        if let Stop::Malformed(what) = stop {
            self.violation(&what);
        }
        Over
    }

    /// One request and its script.
    async fn turn(&mut self) -> Outcome {
        let before = self.reader.consumed;
        let head = match self.reader.head().await {
            Ok(head) => head,
            Err(Stop::Truncated) => {
                self.violation("half a head");
                return Err(Over);
            }
            Err(stop) => return Err(self.stopped(stop)),
        };
        let request = self.begin(head, before)?;
        self.shared.record(|log| {
            log.busy += 1;
            log.busy_at_most = log.busy_at_most.max(log.busy);
        });
        let outcome = self.perform(request, before).await;
        self.shared.record(|log| log.busy -= 1);
        outcome
    }

    /// The script of a request.
    async fn perform(&mut self, request: usize, before: usize) -> Outcome {
        let (target, method) = self
            .shared
            .record(|log| (log.requests[request].target.clone(), log.requests[request].method.clone()));
        for step in self.shared.script(path_of(&target)) {
            self.step(step, request, before, &method).await?;
        }
        while self.piece(request, before).await?.is_some() {}
        self.shared.record(|log| log.finished += 1);
        Ok(())
    }

    /// Notes a request; yields its number.
    fn begin(&mut self, head: Head, before: usize) -> Result<usize, Over> {
        let parts: Vec<&str> = head.start.split(' ').collect();
        let [method, target, "HTTP/1.1"] = parts.as_slice() else {
            self.violation(&format!("request line {:?}", head.start));
            return Err(Over);
        };
        let framing =
            Reader::<Tapped<S>>::framing(&head, Framing::None).map_err(|stop| self.stopped(stop))?;
        let hosts = values(&head.fields, "host").len();
        if hosts != 1 {
            self.violation(&format!("{hosts} Host fields"));
        }
        self.reader.expect_body(framing);
        let recorded = Recorded {
            connection: self.connection,
            method: (*method).to_owned(),
            target: (*target).to_owned(),
            fields: head.fields,
            framing,
            body: Vec::new(),
            trailers: Fields::new(),
            complete: matches!(framing, Framing::None | Framing::Length(0)),
            bytes: self.reader.consumed - before,
        };
        Ok(self.shared.record(|log| {
            log.requests.push(recorded);
            log.requests.len() - 1
        }))
    }

    /// The next piece of the body; `None` at its end.
    async fn piece(&mut self, request: usize, before: usize) -> Result<Option<Vec<u8>>, Over> {
        let piece = self.reader.piece().await.map_err(|stop| self.stopped(stop))?;
        let bytes = self.reader.consumed - before;
        Ok(self.shared.record(|log| {
            let recorded = &mut log.requests[request];
            recorded.bytes = bytes;
            match piece {
                Piece::Data(data) => {
                    recorded.body.extend_from_slice(&data);
                    Some(data)
                }
                Piece::End(trailers) => {
                    recorded.trailers.extend(trailers);
                    recorded.complete = true;
                    None
                }
            }
        }))
    }

    async fn send(&mut self, bytes: &[u8]) -> Outcome {
        self.writer.write_all(bytes).await.map_err(|_| Over)?;
        self.writer.flush().await.map_err(|_| Over)
    }

    async fn step(&mut self, step: Step, request: usize, before: usize, method: &str) -> Outcome {
        match step {
            Step::ReadBody => while self.piece(request, before).await?.is_some() {},
            Step::ReadSome(wanted) => {
                let mut count = self.shared.log.lock().requests[request].body.len();
                while count < wanted {
                    let Some(data) = self.piece(request, before).await? else { break };
                    count += data.len();
                }
            }
            Step::Send(bytes) => self.send(&bytes).await?,
            Step::Stream(total) => {
                for place in (0..total).step_by(1 << 16) {
                    self.send(&pattern(place, (total - place).min(1 << 16))).await?;
                }
            }
            Step::StreamChunks(total, size) => {
                for place in (0..total).step_by(size) {
                    self.send_chunk(&pattern(place, (total - place).min(size))).await?;
                }
            }
            Step::Echo => {
                self.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
                while let Some(data) = self.piece(request, before).await? {
                    self.send_chunk(&data).await?;
                }
                self.send(b"0\r\n\r\n").await?;
            }
            Step::Ok => {
                let body = if method == "HEAD" { "" } else { "ok" };
                let mut bytes = answer("200 OK", &[("Content-Type", "text/plain")], "ok");
                bytes.truncate(bytes.len() - 2 + body.len());
                self.send(&bytes).await?;
            }
            Step::Answer(answer) => {
                let recorded = self.shared.log.lock().requests[request].clone();
                self.send(&answer(&recorded)).await?;
            }
            Step::Delay(duration) => tokio::time::sleep(duration).await,
            Step::Hold(gate) => gate.wait().await,
            Step::FinishSending => self.writer.shutdown().await.map_err(|_| Over)?,
            Step::Silence => {
                while self.reader.fill().await {}
                return Err(Over);
            }
            Step::Close => return Err(Over),
            Step::Reset => {
                if let Some(raw) = &self.raw {
                    raw.set_linger(Some(Duration::ZERO)).unwrap();
                }
                return Err(Over);
            }
        }
        Ok(())
    }

    async fn send_chunk(&mut self, data: &[u8]) -> Outcome {
        let mut chunk = format!("{:x}\r\n", data.len()).into_bytes();
        chunk.extend_from_slice(data);
        chunk.extend_from_slice(b"\r\n");
        self.send(&chunk).await
    }
}
