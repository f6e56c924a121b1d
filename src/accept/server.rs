//! The accept loop of one core.

use crate::accept::connection::{Connections, Service};
use crate::accept::limits::ConnectionLimits;
use crate::accept::listener::{BACKLOG, Speaks};
use parking_lot::Mutex;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// After a failed accept (no descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Between two lines about failures of one cause.
const TELL_INTERVAL: Duration = Duration::from_secs(1);
/// Connections on their way from one core to another.
const HANDED_MAX: usize = 256;
/// A core hands connections on once it has this many more than the least loaded.
const IMBALANCE: usize = 8;

/// Connections that each core serves; the kernel spreads them by hash, not by load.
#[derive(Debug, Clone)]
pub struct Cores(Arc<[Core]>);

#[derive(Debug)]
struct Core {
    connections: AtomicUsize,
    inbox: mpsc::Sender<Handed>,
}

/// A connection on its way to another core.
type Handed = (std::net::TcpStream, SocketAddr, Speaks);

/// Where a core finds the connections that others hand it.
#[derive(Debug)]
pub struct Inbox(mpsc::Receiver<Handed>);

impl Cores {
    /// For this many cores, and the inbox of each.
    pub fn new(count: usize) -> (Self, Vec<Inbox>) {
        let (cores, inboxes): (Vec<_>, Vec<_>) = (0..count)
            .map(|_| {
                let (inbox, receiver) = mpsc::channel(HANDED_MAX);
                (Core { connections: AtomicUsize::new(0), inbox }, Inbox(receiver))
            })
            .unzip();
        (Self(cores.into()), inboxes)
    }

    /// The core that should serve the next connection that `me` accepted.
    fn least_loaded(&self, me: usize) -> usize {
        let load = |core: &Core| core.connections.load(Ordering::Relaxed);
        let mine = self.0.get(me).map_or(0, load);
        let least = self.0.iter().enumerate().min_by_key(|(_, core)| load(core));
        least.filter(|(_, core)| load(core) + IMBALANCE < mine).map_or(me, |(number, _)| number)
    }

    fn count(&self, me: usize) -> Option<Counted> {
        self.0.get(me)?.connections.fetch_add(1, Ordering::Relaxed);
        Some(Counted { cores: self.clone(), me })
    }
}

/// A connection counted for a core until dropped.
struct Counted {
    cores: Cores,
    me: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(core) = self.cores.0.get(self.me) {
            core.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What one core accepts with.
#[derive(Debug)]
pub struct Server<S> {
    /// This core's number.
    pub me: usize,
    /// All cores.
    pub cores: Cores,
    /// Serves connections.
    pub connections: Arc<Connections<S>>,
    /// Counts connections.
    pub limits: Arc<ConnectionLimits>,
    /// Connections under way on this core.
    pub tasks: TaskTracker,
    /// Failures to accept since the last that was told of, and when that was.
    pub failures: Mutex<(u64, Option<Instant>)>,
}

impl<S: Service> Server<S> {
    /// Accepts until told to stop, then serves what the kernel had accepted.
    pub async fn accept(self: Arc<Self>, listener: TcpListener, speaks: Speaks, stop: CancellationToken) {
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((tcp, address)) => self.place(tcp, address, speaks),
                    Err(error) => self.failed(&error).await,
                },
                () = stop.cancelled() => break,
            }
        }
        // Closing the socket would reset what the kernel has accepted. No more than that: of a socket that another
        // process has, too, the queue is filled for ever.
        match listener.into_std() {
            Ok(listener) => {
                let waiting = std::iter::from_fn(|| listener.accept().ok()).take(BACKLOG.into());
                waiting.for_each(|(tcp, address)| self.start_std(tcp, address, speaks));
            }
            Err(error) => tracing::warn!(%error, "connections waiting to be accepted are lost"),
        }
    }

    /// Serves connections that other cores hand over.
    pub async fn take_over(self: Arc<Self>, mut inbox: Inbox, stop: CancellationToken) {
        loop {
            tokio::select! {
                handed = inbox.0.recv() => match handed {
                    Some((tcp, address, speaks)) => self.start_std(tcp, address, speaks),
                    None => return,
                },
                () = stop.cancelled() => break,
            }
        }
        inbox.0.close();
        while let Some((tcp, address, speaks)) = inbox.0.recv().await {
            self.start_std(tcp, address, speaks);
        }
    }

    /// Serves a connection here, or hands it to a core with less to do.
    fn place(&self, tcp: TcpStream, address: SocketAddr, speaks: Speaks) {
        let chosen = self.cores.least_loaded(self.me);
        let inbox = self.cores.0.get(chosen).filter(|_| chosen != self.me);
        let Some(permit) = inbox.and_then(|core| core.inbox.try_reserve().ok()) else {
            return self.start(tcp, address, speaks);
        };
        match tcp.into_std() {
            Ok(tcp) => permit.send((tcp, address, speaks)),
            Err(error) => tracing::debug!(%error, "the connection is gone"),
        }
    }

    fn start_std(&self, tcp: std::net::TcpStream, address: SocketAddr, speaks: Speaks) {
        match tcp.set_nonblocking(true).and_then(|()| TcpStream::from_std(tcp)) {
            Ok(tcp) => self.start(tcp, address, speaks),
            Err(error) => tracing::debug!(%error, "the connection is gone"),
        }
    }

    fn start(&self, tcp: TcpStream, address: SocketAddr, speaks: Speaks) {
        let address = canonical(address);
        let permit = match self.limits.take(address.ip()) {
            Ok(permit) => permit,
            Err(error) => {
                self.connections.metrics.refused("connection.too-many");
                tracing::info!(client.address = %address.ip(), error.type = "connection.too-many", %error, "connection refused");
                return;
            }
        };
        let counted = self.cores.count(self.me);
        let connections = Arc::clone(&self.connections);
        self.tasks.spawn(async move {
            connections.serve(tcp, address, speaks).await;
            drop((permit, counted));
        });
    }

    async fn failed(&self, error: &io::Error) {
        // A connection that was reset before it was accepted is no failure of ours.
        let passing = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset];
        if passing.contains(&error.kind()) {
            return;
        }
        self.connections.metrics.failed();
        if let Some(failures) = self.failures_to_tell() {
            tracing::error!(%error, failures, "cannot accept connections");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }

    /// Counts a failure; the count if it is time to tell of them.
    fn failures_to_tell(&self) -> Option<u64> {
        let now = Instant::now();
        let mut failures = self.failures.lock();
        failures.0 = failures.0.saturating_add(1);
        if failures.1.is_some_and(|told| now - told < TELL_INTERVAL) {
            return None;
        }
        failures.1 = Some(now);
        Some(std::mem::take(&mut failures.0))
    }
}

/// An IPv4 client of an IPv6 socket is an IPv4 client.
fn canonical(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_above_its_share_hands_connections_to_the_least_loaded() {
        let (cores, _inboxes) = Cores::new(3);
        let busy: Vec<_> = (0..=IMBALANCE).filter_map(|_| cores.count(0)).collect();
        let one = cores.count(1);
        assert_eq!(cores.least_loaded(0), 2);
        assert_eq!(cores.least_loaded(1), 1, "a difference of one is not worth the way");
        drop(busy);
        assert_eq!(cores.least_loaded(0), 0);
        drop(one);
        assert!(cores.0.iter().all(|core| core.connections.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn an_ipv4_client_of_an_ipv6_socket_is_one() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:7".parse().unwrap();
        assert_eq!(canonical(mapped), "192.0.2.1:7".parse().unwrap());
    }
}
