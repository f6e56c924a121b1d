//! Upstreams: servers, the choice between them, and their idle connections.
//!
//! Idle connections belong to the core that opened them, in a pool of its own whose lock is never contended. The
//! bound on a server's connections is one for the process: who finds it reached closes the oldest idle connection
//! of any core, and waits for a place.

use crate::config::{Balance, ServerAddress, Timeouts, UpstreamHost};
use crate::forward::ForwardError;
use crate::forward::connection::{Connection, Io};
use crate::forward::core;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    /// Place in the upstream, from 0.
    pub number: usize,
    address: ServerAddress,
    /// Host and port, for `host = "upstream"`.
    pub authority: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
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
    pub tls: Option<Arc<ClientConfig>>,
}

impl Upstream {
    /// Makes the servers.
    ///
    /// # Errors
    /// If the host of an `https://` server is no name that a certificate could be for.
    pub fn new(settings: &UpstreamSettings<'_>) -> Result<Self, rustls::pki_types::InvalidDnsNameError> {
        let config = settings.config;
        let servers = config.servers.iter().enumerate().map(|(number, address)| {
            let tls = match (address, &settings.tls) {
                (ServerAddress::Https { host, .. }, Some(config)) => {
                    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                    Some((Arc::clone(config), ServerName::try_from(name)?))
                }
                _ => None,
            };
            Ok(Arc::new(Server {
                number,
                authority: address.authority(),
                address: address.clone(),
                tls,
                places: Arc::new(Semaphore::new(config.connections)),
                waiting: AtomicUsize::new(0),
                in_flight: AtomicUsize::new(0),
                idle: (0..settings.cores.max(1)).map(|_| Mutex::default()).collect(),
                resolved: Mutex::default(),
                avoid_until: Mutex::new(None),
            }))
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

    /// The server for the next exchange; `tried` are passed over.
    pub(in crate::forward) fn choose(&self, tried: &[usize]) -> Option<&Arc<Server>> {
        if let [only] = self.servers.as_slice() {
            return tried.is_empty().then_some(only);
        }
        let now = Instant::now();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.servers.len().max(1);
        let in_turn = self.servers.iter().cycle().skip(turn).take(self.servers.len());
        in_turn.filter(|server| !tried.contains(&server.number)).min_by_key(|server| {
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
            pool.lock().push_back(Idle { connection, since: Instant::now() });
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
            Some((config, name)) => {
                let tls = TlsConnector::from(Arc::clone(config)).connect(name.clone(), tcp).await?;
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
