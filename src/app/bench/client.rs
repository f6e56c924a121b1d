//! The case of the whole request: clients that keep their connections, over TLS and the loopback interface.
//!
//! They are threads of the same process and share its cores with the gateway and the upstream; what they take
//! themselves (TLS, two system calls, reading the answer) is in each sample. So a sample is what a client on the same
//! machine waits for, and an upper bound of what the gateway adds.

use crate::app::bench::keys::Keys;
use crate::app::bench::samples::Samples;
use crate::app::bench::{BenchError, Measured, Round, lookups};
use crate::app::plan::trust;
use crate::clock::{Clock as _, Monotonic, SystemClock};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// A connection for each core, and no more than this.
const CONNECTIONS_MAX: u64 = 64;
/// Requests of all connections: one for each token, within these bounds.
const REQUESTS_MIN: u64 = 1000;
const REQUESTS_MAX: u64 = 50_000;
/// Requests of a connection before the first that is timed.
const UNTIMED: u64 = 50;
/// Between two looks whether to go on.
const LOOK_EVERY: u64 = 64;
/// Longest wait for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Longest answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Bytes read at once.
const READ_BYTES: usize = 8192;
/// Most fields of an answer.
const FIELDS_MAX: usize = 32;

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Measures whole requests.
pub(in crate::app::bench) fn requests(round: &Round<'_>) -> Result<Measured, BenchError> {
    lookups::warm(round)?;
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let connections = u64::try_from(cores).unwrap_or(CONNECTIONS_MAX).min(CONNECTIONS_MAX);
    let total = u64::from(round.subject.keys.tokens()).clamp(REQUESTS_MIN, REQUESTS_MAX);
    let load = Load::new(round, connections, total)?;
    let elsewhere = round.subject.elsewhere.count();
    let parts = load.run()?;
    let strays = round.subject.elsewhere.count().saturating_sub(elsewhere);
    lookups::check_strays(round.case, strays, total)?;
    let mut samples = Samples::new();
    for part in &parts {
        samples.extend(&part.samples);
    }
    let began = parts.iter().map(|part| part.began).min().unwrap_or_default();
    let ended = parts.iter().map(|part| part.ended).max().unwrap_or_default();
    let connections = u32::try_from(connections).ok();
    Ok(Measured { case: round.case, samples, strays, connections, elapsed: ended.since(began) })
}

/// What the clients have in common.
struct Load<'a> {
    round: &'a Round<'a>,
    keys: &'a Keys,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    clock: SystemClock,
    connections: u64,
    total: u64,
    done: AtomicU64,
}

/// What one client found.
struct Part {
    samples: Samples,
    began: Monotonic,
    ended: Monotonic,
}

impl<'a> Load<'a> {
    fn new(round: &'a Round<'a>, connections: u64, total: u64) -> Result<Self, BenchError> {
        let running = &round.subject.running;
        let address = running.addresses().first().copied();
        let address = address.ok_or_else(|| BenchError::Request(io::ErrorKind::AddrNotAvailable.into()))?;
        let trust = trust(Some(running.certificate()));
        let tls = trust.map_err(|error| BenchError::Request(io::Error::other(error)))?.config;
        let (keys, clock, done) = (&round.subject.keys, SystemClock::new(), AtomicU64::new(0));
        Ok(Self { round, keys, address, tls, clock, connections, total, done })
    }

    /// A thread for each connection: a client that waits for its answer costs least, and is simplest to trust.
    fn run(&self) -> Result<Vec<Part>, BenchError> {
        thread::scope(|scope| {
            let clients: Vec<_> = (0..self.connections)
                .map(|me| {
                    let name = format!("client-{me}");
                    thread::Builder::new().name(name).spawn_scoped(scope, move || self.client(me))
                })
                .collect();
            let ended = clients.into_iter().map(|client| {
                let panicked = |_| Err(BenchError::Request(io::Error::other("a client panicked")));
                client?.join().unwrap_or_else(panicked)
            });
            ended.collect()
        })
    }

    /// One request after the other; each of any token.
    fn client(&self, me: u64) -> Result<Part, BenchError> {
        let mut stream = self.connect().map_err(BenchError::Request)?;
        let share = self.total / self.connections + u64::from(me < self.total % self.connections);
        let (mut samples, mut began) = (Samples::new(), self.clock.monotonic());
        for number in 0..UNTIMED + share {
            let request = self.request(number.wrapping_mul(self.connections).wrapping_add(me));
            let before = self.clock.monotonic();
            let status = exchange(&mut stream, &request).map_err(BenchError::Request)?;
            let took = self.clock.monotonic().since(before);
            if status != 200 {
                return Err(BenchError::Status(status));
            }
            if number < UNTIMED {
                began = self.clock.monotonic();
                continue;
            }
            samples.add(took);
            let done = self.done.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            if done.is_multiple_of(LOOK_EVERY) {
                self.round.go_on(done, self.total)?;
            }
        }
        Ok(Part { samples, began, ended: self.clock.monotonic() })
    }

    fn connect(&self) -> io::Result<Stream> {
        let socket = TcpStream::connect(self.address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWER_TIME))?;
        socket.set_write_timeout(Some(ANSWER_TIME))?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let tls = ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
        Ok(StreamOwned::new(tls, socket))
    }

    fn request(&self, place: u64) -> Vec<u8> {
        let token = self.keys.header(self.keys.any(place));
        let head = b"GET /hello HTTP/1.1\r\nhost: localhost\r\naccept: */*\r\nauthorization: ";
        [&head[..], token.as_bytes(), b"\r\n\r\n"].concat()
    }
}

/// Sends a request and reads its answer to the end; yields the status.
fn exchange(stream: &mut Stream, request: &[u8]) -> io::Result<u16> {
    stream.write_all(request)?;
    let (mut answer, mut part) = (Vec::new(), [0; READ_BYTES]);
    loop {
        let count = stream.read(&mut part)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(part.get(..count).unwrap_or_default());
        if let Some(status) = complete(&answer)? {
            return Ok(status);
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
        }
    }
}

/// The status, if the whole answer is there. Its length is announced: it is the gateway's or its upstream's own.
fn complete(answer: &[u8]) -> io::Result<Option<u16>> {
    let invalid = |text| io::Error::new(io::ErrorKind::InvalidData, text);
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(begin) = head.parse(answer).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let length = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse::<usize>().ok());
    let length = length.ok_or_else(|| invalid("the answer does not tell its length"))?;
    let is_whole = answer.len() >= begin.saturating_add(length);
    Ok(if is_whole { head.code } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_to_its_end() {
        let answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nabc";
        for length in 0..answer.len() {
            assert_eq!(complete(&answer[..length]).unwrap(), None, "{length}");
        }
        assert_eq!(complete(answer).unwrap(), Some(401));
        assert!(complete(b"HTTP/1.1 200 OK\r\n\r\nabc").is_err());
        assert!(complete(b"SSH-2.0-x\r\n\r\n").is_err());
    }
}
