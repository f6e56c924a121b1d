//! Upstreams: servers, the choice between them, and their idle connections.
//!
//! Idle connections belong to the core that opened them, in a pool of its own whose lock is never contended. The
//! bound on a server's connections is one for the process: who finds it reached closes the oldest idle connection
//! of any core, and waits for a place.
//!
//! Servers outlive the configuration that named them: what another one leaves as it was keeps its connections, whatever
//! else changes of its upstream. What it does not leave ends its idle connections at once, and each busy one with its
//! exchange.

use crate::config::{Balance, ServerAddress, Timeouts, UpstreamHost};
use crate::forward::ForwardError;
use crate::forward::connection::{Connection, Io};
use crate::forward::core;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

/// Requests that may wait for one server's connections; more are refused at once.
const WAITING_MAX: usize = 1024;
/// After a failed connection other servers are preferred for this long.
const AVOID_TIME: Duration = Duration::from_secs(1);

/// A named group of servers.
#[derive(Debug)]
pub struct Upstream {
    /// Name in the configuration.
    pub name: String,
    /// What upstreams are told as Host.
    pub host: UpstreamHost,
    /// Limits on waiting.
    pub timeout: Timeouts,
    /// Longest wait for a place among a server's connections.
    pub queue_time: Duration,
    servers: Vec<Arc<Server>>,
    balance: Balance,
    turn: AtomicUsize,
}

/// One server.
#[derive(Debug)]
pub struct Server {
    address: ServerAddress,
    /// Host and port, for `host = "upstream"`.
    pub authority: String,
    tls: Option<(Arc<Trust>, ServerName<'static>)>,
    /// Connections at most.
    connections: usize,
    /// Connections that may still be opened.
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Exchanges under way.
    in_flight: AtomicUsize,
    /// Idle connections by core, the oldest first.
    idle: Box<[Mutex<VecDeque<Idle>>]>,
    /// Addresses that the name last resolved to.
    resolved: Mutex<Vec<SocketAddr>>,
    /// Other servers are preferred until then.
    avoid_until: Mutex<Option<Instant>>,
    /// Whether no connection is kept any more.
    is_ended: AtomicBool,
}

/// Whom `https://` servers must be certified by.
#[derive(Debug)]
pub struct Trust {
    /// The trust anchors; what was verified against others is not used any more.
    pub anchors: Vec<CertificateDer<'static>>,
    /// Verifies against them.
    pub config: Arc<ClientConfig>,
}

/// How a server stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// As configured.
    pub address: String,
    /// Exchanges under way.
    pub in_flight: usize,
    /// Connections kept for the next exchange.
    pub idle: usize,
    /// Requests that wait for a connection.
    pub waiting: usize,
    /// Whether others are preferred, since it could not be connected to a moment ago.
    pub is_avoided: bool,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// What an upstream is made of.
#[derive(Debug)]
pub struct UpstreamSettings<'a> {
    /// From the configuration.
    pub config: &'a crate::config::Upstream,
    /// Cores, each with a pool.
    pub cores: usize,
    /// For `https://` servers.
    pub trust: Option<Arc<Trust>>,
    /// The upstream of this name until now: servers that are the same go on.
    pub old: Option<&'a Upstream>,
}

impl Upstream {
    /// Makes the servers, but for those that go on.
    ///
    /// # Errors
    /// If the host of an `https://` server is no name that a certificate could be for.
    pub fn new(settings: &UpstreamSettings<'_>) -> Result<Self, rustls::pki_types::InvalidDnsNameError> {
        let config = settings.config;
        let mut old: Vec<_> = settings.old.map(|old| old.servers.iter().collect()).unwrap_or_default();
        let servers = config.servers.iter().map(|address| {
            let made = Server::new(address, settings)?;
            // Each goes on once: an address that is written twice is two servers.
            Ok(match old.iter().position(|server| server.is_same(&made)) {
                Some(place) => Arc::clone(old.swap_remove(place)),
                None => Arc::new(made),
            })
        });
        Ok(Self {
            name: config.name.clone(),
            host: config.host.clone(),
            timeout: config.timeout,
            queue_time: config.queue_time,
            servers: servers.collect::<Result<_, _>>()?,
            balance: config.balance,
            turn: AtomicUsize::new(0),
        })
    }

    /// The server for the next exchange, with its place in the upstream, from 0; `tried` are passed over.
    pub(in crate::forward) fn choose(&self, tried: &[usize]) -> Option<(usize, &Arc<Server>)> {
        if let [only] = self.servers.as_slice() {
            return tried.is_empty().then_some((0, only));
        }
        let now = Instant::now();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.servers.len().max(1);
        let in_turn = self.servers.iter().enumerate().cycle().skip(turn).take(self.servers.len());
        in_turn.filter(|(number, _)| !tried.contains(number)).min_by_key(|(_, server)| {
            let load = match self.balance {
                Balance::LeastRequests => server.in_flight.load(Ordering::Relaxed),
                Balance::RoundRobin => 0,
            };
            (server.is_avoided(now), load)
        })
    }

    /// How its servers stand, in their order.
    pub fn standing(&self) -> impl Iterator<Item = Standing> {
        let now = Instant::now();
        self.servers.iter().map(move |server| Standing {
            address: server.address.to_string(),
            in_flight: server.in_flight.load(Ordering::Relaxed),
            idle: server.idle.iter().map(|pool| pool.lock().len()).sum(),
            waiting: server.waiting.load(Ordering::Relaxed),
            is_avoided: server.is_avoided(now),
        })
    }

    /// Ends the servers that none of these has: no connection to them is kept any more.
    pub fn end_all_but(&self, kept: &[Arc<Self>]) {
        let goes_on = |server: &Arc<Server>| {
            kept.iter().flat_map(|upstream| &upstream.servers).any(|other| Arc::ptr_eq(server, other))
        };
        for server in self.servers.iter().filter(|server| !goes_on(server)) {
            server.end();
        }
    }

    /// Closes connections that were idle for too long, or that the server has ended.
    pub fn sweep(&self, core: usize) {
        let now = Instant::now();
        for server in &self.servers {
            let Some(pool) = server.idle.get(core) else { continue };
            // Looked at and closed outside of the lock: both are system calls.
            let mut kept = std::mem::take(&mut *pool.lock());
            kept.retain_mut(|idle| now - idle.since < self.timeout.idle && idle.connection.is_quiet());
            {
                let mut pool = pool.lock();
                // Who ended the server meanwhile did not see them.
                if server.is_ended.load(Ordering::Acquire) {
                    continue;
                }
                // What came meanwhile is younger.
                kept.append(&mut pool);
                *pool = kept;
            }
            // Who began to wait meanwhile did not see them.
            if server.waiting.load(Ordering::Acquire) > 0 {
                server.close_oldest_idle();
            }
        }
    }
}

/// An exchange under way with a server; counted until dropped.
#[derive(Debug)]
pub(in crate::forward) struct InFlight(Arc<Server>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    fn new(
        address: &ServerAddress,
        settings: &UpstreamSettings<'_>,
    ) -> Result<Self, rustls::pki_types::InvalidDnsNameError> {
        let tls = match (address, &settings.trust) {
            (ServerAddress::Https { host, .. }, Some(trust)) => {
                let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                Some((Arc::clone(trust), ServerName::try_from(name)?))
            }
            _ => None,
        };
        let connections = settings.config.connections;
        Ok(Self {
            authority: address.authority(),
            address: address.clone(),
            tls,
            connections,
            places: Arc::new(Semaphore::new(connections)),
            waiting: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            idle: (0..settings.cores.max(1)).map(|_| Mutex::default()).collect(),
            resolved: Mutex::default(),
            avoid_until: Mutex::new(None),
            is_ended: AtomicBool::new(false),
        })
    }

    /// Whether connections to one are as good as connections to the other. Another bound is another server: places
    /// cannot be taken from exchanges that have them, so until those are over there may be as many as both bounds allow.
    fn is_same(&self, other: &Self) -> bool {
        fn anchors(server: &Server) -> Option<&[CertificateDer<'static>]> {
            server.tls.as_ref().map(|(trust, _)| trust.anchors.as_slice())
        }
        self.address == other.address
            && self.connections == other.connections
            && self.idle.len() == other.idle.len()
            && anchors(self) == anchors(other)
    }

    /// Closes what is idle; what is busy will not be kept.
    fn end(&self) {
        self.is_ended.store(true, Ordering::Release);
        for pool in &self.idle {
            // Closed outside of the lock: a system call each.
            drop(std::mem::take(&mut *pool.lock()));
        }
    }

    /// Counts an exchange.
    pub(in crate::forward) fn in_flight(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// An idle connection of this core that is as it was left; the one used last, so that others can go.
    pub(in crate::forward) fn idle(&self, idle_max: Duration) -> Option<Connection> {
        let pool = self.idle.get(core::number())?;
        let mut now = None;
        loop {
            // Looking at a socket and closing it are system calls: not under the lock.
            let popped = pool.lock().pop_back();
            let mut idle = popped?;
            let now = *now.get_or_insert_with(Instant::now);
            if now - idle.since < idle_max && idle.connection.is_quiet() {
                return Some(idle.connection);
            }
        }
    }

    /// Keeps a connection for the next exchange, unless somebody waits for its place.
    pub(in crate::forward) fn keep(self: &Arc<Self>, mut connection: Connection) {
        if self.waiting.load(Ordering::Acquire) > 0 {
            return;
        }
        connection.rest();
        if let Some(pool) = self.idle.get(core::number()) {
            let mut pool = pool.lock();
            // Asked under the lock: who ends the server takes the lock after it has said so.
            if self.is_ended.load(Ordering::Acquire) {
                return;
            }
            pool.push_back(Idle { connection, since: Instant::now() });
        }
        // Who began to wait meanwhile did not see it.
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.close_oldest_idle();
        }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// If there is no place for it in time, or it cannot be opened in time.
    pub(in crate::forward) async fn connect(
        self: &Arc<Self>,
        time_max: Duration,
        queue_time: Duration,
    ) -> Result<Connection, ForwardError> {
        let place = self.place(queue_time).await?;
        match tokio::time::timeout(time_max, self.open()).await {
            Ok(Ok(io)) => {
                *self.avoid_until.lock() = None;
                Ok(Connection::new(io, Arc::clone(self), place))
            }
            Ok(Err(error)) => {
                self.avoid();
                Err(ForwardError::Unreachable(error))
            }
            Err(_) => {
                self.avoid();
                Err(ForwardError::ConnectTimeout)
            }
        }
    }

    /// A place among this server's connections.
    async fn place(&self, queue_time: Duration) -> Result<OwnedSemaphorePermit, ForwardError> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        let _waiting = Waiting::new(&self.waiting)?;
        self.close_oldest_idle();
        let acquire = Arc::clone(&self.places).acquire_owned();
        match tokio::time::timeout(queue_time, acquire).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(ForwardError::Busy),
        }
    }

    /// Frees a place: the oldest idle connection of any core.
    fn close_oldest_idle(&self) {
        loop {
            let oldest = self.idle.iter().filter_map(|pool| Some((pool.lock().front()?.since, pool)));
            let Some((_, pool)) = oldest.min_by_key(|(since, _)| *since) else { return };
            let popped = pool.lock().pop_front();
            // Another one who waits may have been faster: then the next oldest is for this one.
            if popped.is_some() {
                return;
            }
        }
    }

    async fn open(&self) -> io::Result<Io> {
        let tcp = match &self.address {
            ServerAddress::Unix(path) => return UnixStream::connect(path).await.map(Io::Unix),
            ServerAddress::Http { host, port } | ServerAddress::Https { host, port } => {
                self.open_tcp(host, *port).await?
            }
        };
        tcp.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Io::Tcp(tcp)),
            Some((trust, name)) => {
                let tls = TlsConnector::from(Arc::clone(&trust.config)).connect(name.clone(), tcp).await?;
                Ok(Io::Tls(Box::new(tls)))
            }
        }
    }

    async fn open_tcp(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<std::net::IpAddr>() {
            return TcpStream::connect((address, port)).await;
        }
        // A name that cannot be resolved now is still where it was.
        match tokio::net::lookup_host((bare, port)).await {
            Ok(found) => *self.resolved.lock() = found.collect(),
            Err(error) if self.resolved.lock().is_empty() => return Err(error),
            Err(error) => {
                tracing::warn!(upstream.address = %self.authority, %error, "name not resolved: using the last known addresses");
            }
        }
        let addresses = self.resolved.lock().clone();
        TcpStream::connect(addresses.as_slice()).await
    }

    fn avoid(&self) {
        *self.avoid_until.lock() = Some(Instant::now() + AVOID_TIME);
    }

    fn is_avoided(&self, now: Instant) -> bool {
        self.avoid_until.lock().is_some_and(|until| now < until)
    }
}

/// One who waits for a place.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Result<Self, ForwardError> {
        let waiting = Self(count);
        if count.fetch_add(1, Ordering::AcqRel) >= WAITING_MAX {
            Err(ForwardError::Busy)
        } else {
            Ok(waiting)
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
