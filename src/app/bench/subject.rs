//! What is measured where nothing is given: a gateway on a store full of tokens, in a directory that goes away.

use crate::app::bench::asker::{Answer, Asker, Door};
use crate::app::bench::keys::Keys;
use crate::app::bench::{BenchError, Progress};
use crate::app::{Backing, Options, Running, echo};
use crate::cache::local::Invalidation;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Source};
use crate::credentials::NewAccount;
use crate::credentials::manage::{ImportedToken, Lifetime};
use crate::identity::UserId;
use crate::secret::Secret;
use crate::telemetry::{Finished, Observer};
use crate::trace::AnsweredBy;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

/// A user for so many tokens.
const TOKENS_PER_USER: u32 = 100;
/// And no more users than this: hashing a password for each takes as long as two hundred look-ups in the store.
const USERS_MAX: u32 = 100;
/// Random bytes of their passwords, in hex; nobody learns them.
const PASSWORD_BYTES: usize = 16;
/// Capacity of the cache for each token (KiB): more than an entry takes.
const CACHE_KIB: u32 = 1;
/// The least capacity of the cache (MiB): the default.
const CACHE_MIB_MIN: u32 = 64;
/// How long the gateway has to begin to watch its store.
const SETTLE_TIME: Duration = Duration::from_secs(20);
/// Between two looks whether it does.
const SETTLE_INTERVAL: Duration = Duration::from_millis(50);

/// The gateway, and all that the cases need to know of it.
#[derive(Debug)]
pub(in crate::app::bench) struct Subject {
    pub(in crate::app::bench) running: Running,
    /// Look-ups are asked for from here, as from a core of the gateway: one thread, which never waits but for answers.
    pub(in crate::app::bench) runtime: Runtime,
    pub(in crate::app::bench) keys: Keys,
    pub(in crate::app::bench) users: u32,
    pub(in crate::app::bench) store_bytes: u64,
    pub(in crate::app::bench) filled_in: Duration,
    /// Unknown tokens that were asked for: none of them comes twice.
    pub(in crate::app::bench) unknown: AtomicU64,
    /// Requests that were not answered by the local cache.
    pub(in crate::app::bench) elsewhere: Arc<Elsewhere>,
    clock: Arc<dyn Clock>,
    directory: TempDir,
}

impl Subject {
    /// Fills a store and starts a gateway on it; ready to be measured.
    pub(in crate::app::bench) fn start(
        tokens: NonZeroU32,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<Self, BenchError> {
        let directory = tempfile::Builder::new().prefix("doorward-bench-").tempdir()?;
        let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        upstream.set_nonblocking(true)?;
        let config = configuration(tokens, upstream.local_addr()?, directory.path())?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let keys = Keys::random(tokens)?;
        let began = clock.monotonic();
        // Before the gateway starts, which would otherwise have to read of every token as of a change.
        let users = runtime.block_on(fill(&config, &clock, &keys, progress, stop))?;
        let filled_in = clock.monotonic().since(began);
        let file = config.store.url.file().map(Path::metadata).transpose()?;
        let store_bytes = file.map_or(0, |file| file.len());
        let elsewhere = Arc::new(Elsewhere::default());
        let observer = Arc::clone(&elsewhere) as Arc<dyn Observer>;
        let options = Options { clock: Arc::clone(&clock), observer, ..Options::default() };
        let running = Running::start(&config, options)?;
        let unknown = AtomicU64::new(0);
        let subject = Self {
            running,
            runtime,
            keys,
            users,
            store_bytes,
            filled_in,
            unknown,
            elsewhere,
            clock,
            directory,
        };
        let settled = subject
            .serve_upstream(upstream)
            .and_then(|()| subject.settle(config.cache.revocation_bound, stop));
        match settled {
            Ok(()) => Ok(subject),
            Err(error) => {
                subject.stop()?;
                Err(error)
            }
        }
    }

    /// Stops the gateway and removes the directory.
    pub(in crate::app::bench) fn stop(self) -> io::Result<()> {
        self.running.stop();
        self.directory.close()
    }

    /// One who asks the gateway's authenticator.
    pub(in crate::app::bench) async fn asker(&self) -> Result<Asker, BenchError> {
        let service = Arc::clone(&self.running.reloader().connections().serving.load().service);
        Asker::new(Door::Gateway(service), Arc::clone(&self.clock)).await
    }

    /// Empties the cache.
    pub(in crate::app::bench) fn forget(&self) {
        self.running.cache().invalidate(Invalidation::Everything);
        self.running.cache().forget_unknown();
    }

    fn serve_upstream(&self, upstream: TcpListener) -> Result<(), BenchError> {
        let started = self.running.block_on(async {
            let listener = tokio::net::TcpListener::from_std(upstream)?;
            drop(tokio::spawn(echo::serve(listener)));
            Ok::<_, io::Error>(())
        });
        Ok(started.unwrap_or(Ok(()))?)
    }

    /// Waits until the gateway watches its store. Only then is its cache believed for longer than `bound` after it was
    /// filled, and only then is it no longer emptied by the start of the watching.
    fn settle(&self, bound: Duration, stop: &CancellationToken) -> Result<(), BenchError> {
        self.runtime.block_on(async {
            let mut asker = self.asker().await?;
            let head = asker.head(self.keys.header(0))?;
            let began = self.clock.monotonic();
            let mut filled = began;
            while self.clock.monotonic().since(began) < SETTLE_TIME {
                let now = self.clock.monotonic();
                match asker.ask(&head).await {
                    Answer::Known(AnsweredBy::Local) if now.since(filled) > bound => return Ok(()),
                    Answer::Known(AnsweredBy::Local) => {}
                    _ => filled = self.clock.monotonic(),
                }
                tokio::select! {
                    () = stop.cancelled() => return Err(BenchError::Stopped),
                    () = tokio::time::sleep(SETTLE_INTERVAL) => {}
                }
            }
            Err(BenchError::Unproved(SETTLE_TIME))
        })
    }
}

/// Counts the requests that were not answered by the local cache.
#[derive(Debug, Default)]
pub(in crate::app::bench) struct Elsewhere(AtomicU64);

impl Elsewhere {
    /// So many since the start.
    pub(in crate::app::bench) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Observer for Elsewhere {
    fn finished(&self, request: &Finished<'_>) {
        if request.trace.answered_by != AnsweredBy::Local {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Puts users and tokens into the store; yields the number of users.
async fn fill(
    config: &Config,
    clock: &Arc<dyn Clock>,
    keys: &Keys,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<u32, BenchError> {
    let backing = Backing::open(config, clock).await?;
    let filled = tokio::select! {
        biased;
        () = stop.cancelled() => Err(BenchError::Stopped),
        filled = insert(&backing, keys, progress) => filled,
    };
    backing.store.close().await.map_err(io::Error::other)?;
    filled
}

async fn insert(backing: &Backing, keys: &Keys, progress: &Progress) -> Result<u32, BenchError> {
    let count = keys.tokens().div_ceil(TOKENS_PER_USER).min(USERS_MAX);
    let mut users = Vec::new();
    for number in 0..count {
        progress("users", number.into(), count.into());
        users.push(add_user(backing, number).await?);
    }
    let tokens = (0..u64::from(keys.tokens())).zip(users.iter().cycle());
    let tokens: Vec<ImportedToken> =
        tokens.map(|(number, user)| ImportedToken { digest: keys.digest(number), user: *user }).collect();
    let (progress, total) = (Arc::clone(progress), keys.tokens().into());
    let progress = Arc::new(move |written| progress("tokens", written as u64, total));
    backing.credentials.import_tokens(tokens, Lifetime::Never, progress).await?;
    Ok(count)
}

async fn add_user(backing: &Backing, number: u32) -> Result<UserId, BenchError> {
    let username = format!("user{number:06}");
    let account = NewAccount {
        email: format!("{username}@example.com"),
        password: Secret::random_hex::<PASSWORD_BYTES>("")?,
        username,
        is_staff: false,
        groups: vec!["editors".to_owned()],
    };
    Ok(backing.credentials.add_user(account).await?)
}

/// All defaults, but for a cache that holds every token.
fn configuration(tokens: NonZeroU32, upstream: SocketAddr, directory: &Path) -> Result<Config, BenchError> {
    let capacity = (tokens.get().saturating_mul(CACHE_KIB) / 1024).max(CACHE_MIB_MIN);
    let text = format!(
        "[listen]\n\
         https = [\"127.0.0.1:0\"]\n\
         [cache]\n\
         capacity = \"{capacity}MiB\"\n\
         [upstreams.echo]\n\
         servers = [\"http://{upstream}\"]\n\
         [routes.everything]\n\
         path = \"/\"\n\
         upstream = \"echo\"\n\
         schemes = [\"token\"]\n"
    );
    let name = "bench".to_owned();
    let source = Source { name, directory: directory.to_owned(), environment: |_| None };
    Ok(Config::parse(&text, &source)?.config)
}
