//! The composition root: the only place that knows every concrete type.
//!
//! A runtime of one thread for each core, which accepts, decides and forwards, and never waits for anything but
//! sockets; one runtime of several threads for all that is slow (SQL, password hashing).

mod admin;
pub mod bench;
mod coherence;
pub mod demo;
mod deployment;
mod descriptors;
mod echo;
mod health;
mod overview;
mod plan;
pub mod redis;
mod reload;
mod schemes;
mod shared;
mod sockets;
mod spans;
mod stamp;
pub mod status;
mod store;
mod summary;
mod usage;
mod watch;

use crate::accept::activity::Patience;
use crate::accept::connection::{ConnectionSettings, Service};
use crate::accept::inherited::{InheritError, Inherited};
use crate::accept::limits::{ConnectionBounds, ConnectionLimits};
use crate::accept::peer::Peer;
use crate::accept::server::{Cores, Inbox, Server};
use crate::accept::tls::{self, Tickets, TlsError};
use crate::admin::AdminSocket;
use crate::app::health::Health;
use crate::app::overview::{Overview, Sources};
use crate::app::plan::Limiting;
use crate::app::reload::Kept;
use crate::app::sockets::{Listener, Sockets};
use crate::app::spans::Exporter;
use crate::authenticate::scheme::Scheme;
use crate::cache::local::{CacheSettings, LocalCache};
use crate::cache::redis::SharedCache;
use crate::clock::{Clock, SystemClock};
use crate::config::{CertificateFiles, Config, HostPattern, Layout, Limits};
use crate::credentials::{Credentials, PasswordEncoding, TokenPolicy};
use crate::gateway::Gateway;
use crate::password::Passwords;
use crate::respond::record::RecordedBody;
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{AccessLog, Observer};
use http::{Request, Response};
use hyper::body::Incoming;
use parking_lot::Mutex;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crate::app::reload::{ReloadError, Reloader};
pub use crate::app::stamp::Stamp;
pub use crate::app::store::django_triggers;
pub use crate::app::summary::log_summary;

/// Threads for what is slow: SQL has a thread for each connection besides.
const SLOW_THREADS: usize = 2;
/// How often each core looks through its idle connections to upstreams.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Longest time for the store to close: it is durable without.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// Why doorward cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Sockets that were handed over cannot be used.
    #[error(transparent)]
    Inherit(#[from] InheritError),
    /// The store cannot be opened.
    #[error("cannot open the store {store}")]
    Store {
        /// Its file, or its URL without a password.
        store: String,
        /// Why.
        source: StoreError,
    },
    /// The admin socket cannot be made.
    #[error("cannot listen on the admin socket {}", path.display())]
    AdminSocket {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The shared cache cannot be set up. (It need not be reached.)
    #[error("cannot set Redis up")]
    Redis(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The deployment key cannot be read or made.
    #[error("cannot use the deployment key {}", path.display())]
    DeploymentKey {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An upstream's TLS cannot be set up.
    #[error("cannot set TLS up for the upstream {name}")]
    Upstream {
        /// Its name.
        name: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Spans cannot be sent.
    #[error("cannot send spans")]
    Spans(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A thread or runtime cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// The system gave no randomness.
    #[error(transparent)]
    NoRandomness(#[from] crate::secret::NoRandomness),
}

/// What a start may be given besides the configuration; tests give some.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Who is told of finished requests.
    pub observer: Arc<dyn Observer>,
    /// Schemes that stand in for the configured instances of these names.
    pub schemes: Vec<(String, Arc<dyn Scheme>)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            observer: Arc::new(AccessLog::default()),
            schemes: Vec::new(),
        }
    }
}

/// The store and what is built on it: enough for the commands.
#[derive(Debug, Clone)]
pub struct Backing {
    /// Where users and tokens are.
    pub store: Arc<dyn Store>,
    /// Copies of look-ups.
    pub cache: Arc<LocalCache>,
    /// What replicas share besides the store. `None`: nothing.
    pub shared: Option<SharedCache>,
    /// The only writer.
    pub credentials: Arc<Credentials>,
}

impl Backing {
    /// Opens the store.
    ///
    /// # Errors
    /// If it cannot be opened, or the threads for passwords cannot be started.
    pub async fn open(config: &Config, clock: &Arc<dyn Clock>) -> Result<Self, AppError> {
        Self::open_measured(config, clock, &Metrics::new()).await
    }

    /// By what means it is found what other processes changed.
    pub(in crate::app) fn found_by(&self) -> String {
        let store = self.store.found_by();
        match &self.shared {
            Some(_) => format!("Redis, within milliseconds; what is not told there: {store}"),
            None => store.to_owned(),
        }
    }

    /// As [`Self::open`]; what is slow is measured.
    async fn open_measured(
        config: &Config,
        clock: &Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Result<Self, AppError> {
        let store = store::open(config, clock).await?;
        let cache = Arc::new(LocalCache::new(CacheSettings {
            capacity_bytes: config.cache.capacity,
            revocation_bound: config.cache.revocation_bound,
            negative_ttl: config.cache.negative_ttl,
        }));
        let passwords = Passwords::new(Passwords::threads_default(), config.limits.password_queue);
        let mut passwords = passwords.map_err(AppError::Thread)?.measured(metrics.passwords.clone());
        let mut encoding = PasswordEncoding::Own;
        if let Layout::Django(django) = &config.store.layout {
            let sample = store.sample_passwords().await.map_err(store::failed(&config.store.url))?;
            passwords = passwords.allow_md5(django.md5).burning(&sample);
            encoding = PasswordEncoding::Django { recodes: django.rehash };
        }
        let policy = token_policy(config);
        let credentials = Credentials::new(
            Arc::clone(&store),
            Arc::clone(&cache),
            passwords.into(),
            Arc::clone(clock),
            policy,
        );
        let shared = shared::open(config, clock, &metrics.shared_cache)?;
        let credentials = credentials.encoding(encoding).measured(metrics.store.clone());
        let credentials = Arc::new(credentials.shared(shared.clone()));
        Ok(Self { store, cache, shared, credentials })
    }
}

/// A gateway that serves.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<SocketAddr>,
    http_addresses: Vec<SocketAddr>,
    certificate: PathBuf,
    admin_address: Option<SocketAddr>,
    health: Arc<Health>,
    /// Its file goes away with it.
    admin_socket: Option<AdminSocket>,
    backing: Backing,
    reloader: Arc<Reloader>,
    stop: CancellationToken,
    cores: Vec<JoinHandle<()>>,
    /// What runs on the slow runtime until the end.
    background: TaskTracker,
    slow: Option<Runtime>,
    exporter: Option<Exporter>,
}

impl Running {
    /// Starts. Blocks until it serves; must not be called on a runtime.
    ///
    /// # Errors
    /// If anything that the configuration names cannot be used.
    pub fn start(config: &Config, options: Options) -> Result<Self, AppError> {
        Self::start_with(config, options, Inherited::default())
    }

    /// The same with listening sockets that were handed over; they need not be bound.
    ///
    /// # Errors
    /// If anything that the configuration names cannot be used, or a socket is nobody's.
    pub fn start_with(config: &Config, mut options: Options, inherited: Inherited) -> Result<Self, AppError> {
        let slow = Builder::new_multi_thread()
            .worker_threads(SLOW_THREADS)
            .thread_name("slow")
            .enable_all()
            .build()
            .map_err(AppError::Thread)?;
        let overview = Arc::new(Overview {
            metrics: Arc::new(Metrics::new()),
            health: Arc::new(Health::new(Arc::clone(&options.clock))),
            sources: OnceLock::new(),
            scraping: Mutex::default(),
        });
        let (metrics, health) = (Arc::clone(&overview.metrics), Arc::clone(&overview.health));
        // First of all: whoever asks learns that it is starting.
        // Sockets that are handed over outlive one process, and the next one starts while it still serves.
        let takes_over = !inherited.is_empty();
        let admin_address = admin::start_address(&config.listen, takes_over, &slow, &overview)?;
        let certificate = certificates(config)?.first().map(|files| files.cert.clone()).unwrap_or_default();
        let deployment_key = deployment::key(&config.deployment.key)?;
        let backing = slow.block_on(Backing::open_measured(config, &options.clock, &metrics))?;
        let workers = config.listen.workers.get();
        let exporter = config.traces.as_ref().map(Exporter::start).transpose()?;
        if let Some(exporter) = &exporter {
            options.observer = exporter.beside(options.observer);
        }
        let background = TaskTracker::new();
        let Sockets { https: addresses, http: http_addresses, by_core } =
            Sockets::open(&config.listen, inherited, workers)?;
        let limiting = Limiting::new(config, &options.clock, slow.handle(), backing.shared.as_ref())?;
        let stop = CancellationToken::new();
        let clock = || Arc::clone(&options.clock);
        background.spawn_on(
            coherence::watch(
                backing.clone(),
                clock(),
                Arc::clone(&health),
                Some((metrics.revocations.clone(), metrics.store.clone())),
                stop.clone(),
            ),
            slow.handle(),
        );
        background.spawn_on(watch::prune(backing.clone(), clock(), stop.clone()), slow.handle());
        background
            .spawn_on(watch::write_uses(backing.clone(), Arc::clone(&health), stop.clone()), slow.handle());
        let limits = Arc::new(ConnectionLimits::new(bounds(config)));
        let reloader = Reloader::new(
            Kept {
                options,
                backing: backing.clone(),
                slow: slow.handle().clone(),
                background: background.clone(),
                https_port: addresses.first().map_or(0, SocketAddr::port),
                deployment_key,
                limits: Arc::clone(&limits),
                tickets: Tickets::default(),
                stop: stop.clone(),
                metrics,
                health: Arc::clone(&health),
                exports_spans: exporter.is_some(),
            },
            config,
            limiting,
        )?;
        for files in [watch::Files::CERTIFICATES, watch::Files::ANCHORS] {
            background.spawn_on(watch::files(files, Arc::clone(&reloader), stop.clone()), slow.handle());
        }
        // Nothing fails any more for what the file says.
        let admin_socket = admin::start_socket(&config.listen, takes_over, &slow, &overview)?;
        let spawned = Spawned { reloader: Arc::clone(&reloader), limits, stop: stop.clone() };
        let cores = spawned.cores(by_core, config.limits.drain_time)?;
        let sources = Sources {
            https: addresses.clone(),
            http: http_addresses.clone(),
            store: config.store.url.to_string(),
            backing: backing.clone(),
            reloader: Arc::clone(&reloader),
        };
        // Nobody else sets them.
        overview.sources.set(sources).unwrap_or_default();
        health.ready();
        Ok(Self {
            addresses,
            http_addresses,
            certificate,
            admin_address,
            health,
            admin_socket,
            backing,
            reloader,
            stop,
            cores,
            background,
            slow: Some(slow),
            exporter,
        })
    }

    /// Puts another configuration in the place of this one while requests are served.
    pub fn reloader(&self) -> &Arc<Reloader> {
        &self.reloader
    }

    /// Addresses that are listened on for HTTPS; a port 0 in the configuration is the real one here.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The same for HTTP in clear.
    pub fn http_addresses(&self) -> &[SocketAddr] {
        &self.http_addresses
    }

    /// The address of the admin listener, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// PEM file of the certificate that clients see by default.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// The only writer of users and tokens.
    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.backing.credentials
    }

    /// The local cache.
    pub fn cache(&self) -> &Arc<LocalCache> {
        &self.backing.cache
    }

    /// Runs a future on the slow runtime; must not be called on a runtime. `None` once stopped.
    pub fn block_on<F: Future>(&self, future: F) -> Option<F::Output> {
        self.slow.as_ref().map(|slow| slow.block_on(future))
    }

    /// Stops accepting; what is under way is finished, within `drain_time`. Does not wait.
    pub fn ask_to_stop(&self) {
        self.health.draining();
        self.stop.cancel();
    }

    /// Stops and waits until everything has ended. Must not be called on a runtime.
    pub fn stop(mut self) {
        self.ask_to_stop();
        for core in self.cores.drain(..) {
            if core.join().is_err() {
                tracing::error!("a core ended with a panic");
            }
        }
        if let Some(exporter) = self.exporter.take() {
            exporter.stop();
        }
        if let Some(slow) = self.slow.take() {
            self.background.close();
            // The watcher's connection first: the last one to close puts the file in order.
            let close = async {
                self.background.wait().await;
                if let Err(error) = self.backing.credentials.write_uses().await {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the last uses of tokens are lost"
                    );
                }
                self.backing.store.close().await
            };
            match slow.block_on(async { tokio::time::timeout(CLOSE_TIME, close).await }) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the store was not closed");
                }
                Err(_) => tracing::warn!("the store was not closed in time"),
            }
            // The admin listener to the last.
            drop(self.admin_socket.take());
            slow.shutdown_timeout(CLOSE_TIME);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        // A runtime must not be dropped inside another one: that panics.
        if let Some(slow) = self.slow.take() {
            slow.shutdown_background();
        }
    }
}

/// The gateway as the connections' service.
#[derive(Debug)]
struct GatewayService(Gateway);

impl Service for GatewayService {
    type Body = RecordedBody;

    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<RecordedBody> {
        self.0.handle(request, peer).await
    }
}

/// Everything that the cores are started with.
struct Spawned {
    reloader: Arc<Reloader>,
    limits: Arc<ConnectionLimits>,
    stop: CancellationToken,
}

impl Spawned {
    /// Starts a thread for each core; `sockets` are by core.
    fn cores(
        self,
        sockets: Vec<Vec<Listener>>,
        drain_time: Duration,
    ) -> Result<Vec<JoinHandle<()>>, AppError> {
        let (cores, inboxes) = Cores::new(sockets.len());
        let numbered = sockets.into_iter().zip(inboxes).enumerate();
        numbered
            .map(|(me, (listeners, inbox))| {
                let server = Arc::new(Server {
                    me,
                    cores: cores.clone(),
                    connections: Arc::clone(self.reloader.connections()),
                    limits: Arc::clone(&self.limits),
                    tasks: TaskTracker::new(),
                    failures: Mutex::default(),
                });
                let core = Core {
                    server,
                    listeners,
                    inbox,
                    reloader: Arc::clone(&self.reloader),
                    stop: self.stop.clone(),
                };
                let thread = std::thread::Builder::new().name(format!("core-{me}"));
                thread.spawn(move || core.run(drain_time)).map_err(AppError::Thread)
            })
            .collect()
    }
}

/// One core's work.
struct Core {
    server: Arc<Server<GatewayService>>,
    listeners: Vec<Listener>,
    inbox: Inbox,
    reloader: Arc<Reloader>,
    stop: CancellationToken,
}

impl Core {
    fn run(self, drain_time: Duration) {
        crate::forward::core::enter(self.server.me);
        match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(self.serve(drain_time)),
            Err(error) => tracing::error!(%error, "a core cannot start"),
        }
    }

    async fn serve(self, drain_time: Duration) {
        let Self { server, listeners, inbox, reloader, stop } = self;
        let accepting = TaskTracker::new();
        for (listener, speaks) in listeners {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    drop(accepting.spawn(Arc::clone(&server).accept(listener, speaks, stop.clone())));
                }
                Err(error) => tracing::error!(%error, "cannot listen"),
            }
        }
        drop(accepting.spawn(Arc::clone(&server).take_over(inbox, stop.clone())));
        let me = server.me;
        let sweeper = tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_INTERVAL).await;
                reloader.sweep(me);
            }
        });
        stop.cancelled().await;
        accepting.close();
        accepting.wait().await;
        server.tasks.close();
        if tokio::time::timeout(drain_time, server.tasks.wait()).await.is_err() {
            tracing::warn!(connections = server.tasks.len(), "connections are cut off: drain_time is over");
        }
        sweeper.abort();
    }
}

/// Hosts that routes name: the self-signed certificate is for them too.
fn hosts(config: &Config) -> Vec<String> {
    let named = |host: &HostPattern| match host {
        HostPattern::Exact(host) => Some(host.clone()),
        HostPattern::Any | HostPattern::Wildcard(_) => None,
    };
    config.routes.iter().filter_map(|route| named(&route.host)).collect()
}

/// The configured certificates, or the self-signed one.
fn certificates(config: &Config) -> Result<Vec<CertificateFiles>, TlsError> {
    let configured = &config.tls.certificates;
    if !configured.is_empty() {
        return Ok(configured.clone());
    }
    Ok(vec![tls::self_signed(&config.tls.self_signed_directory, &hosts(config))?])
}

fn bounds(config: &Config) -> ConnectionBounds {
    ConnectionBounds {
        total_max: descriptors::connections(config.limits.connections),
        per_address_max: config.limits.connections_per_address,
        trusted_proxies: config.clients.trusted_proxies.clone(),
    }
}

fn token_policy(config: &Config) -> TokenPolicy {
    TokenPolicy {
        ttl: config.tokens.ttl,
        prefix: config.tokens.prefix.clone(),
        per_user: config.tokens.per_user,
    }
}

fn connection_settings(limits: &Limits) -> ConnectionSettings {
    ConnectionSettings {
        handshake_time: limits.handshake_time,
        patience: Patience {
            header_time: limits.header_time,
            keep_alive: limits.keep_alive,
            send_idle: limits.send_idle,
        },
        header_bytes: limits.header_bytes,
        header_count: limits.header_count,
        streams: limits.streams_per_connection,
        linger_time: limits.unread_body_time,
        linger_bytes: limits.unread_body,
    }
}
