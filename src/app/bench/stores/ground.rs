//! The operator's stores, opened as for a gateway, and the rows in them.

use crate::accept::head::Sanitiser;
use crate::app::bench::asker::{Alone, Answer, Asker, Door};
use crate::app::bench::keys::Keys;
use crate::app::bench::{BenchError, Progress};
use crate::app::health::Health;
use crate::app::{AppError, Backing, CLOSE_TIME, SLOW_THREADS, coherence, plan};
use crate::authenticate::lookups::Lookups;
use crate::authenticate::scheme::Scheme;
use crate::authenticate::schemes::token::TokenScheme;
use crate::authenticate::{Authenticator, AuthenticatorOptions};
use crate::cache::local::Invalidation;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::credentials::{CANARIES_MAX, CredentialsError};
use crate::header::guarded::GuardedNames;
use crate::identity::{Digest, Family};
use crate::secret::Secret;
use crate::trace::AnsweredBy;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// After this the rows are pruned by whoever serves, should nobody have removed them: much longer than a run takes.
const LIFETIME: Duration = Duration::from_mins(15);
/// How often removing is tried.
const REMOVALS_MAX: u32 = 5;
/// Between two attempts.
const REMOVAL_INTERVAL: Duration = Duration::from_secs(1);
/// How long the cache has to be proved. A level that needs it says so itself if it is not.
const SETTLE_TIME: Duration = Duration::from_secs(5);
/// Between two looks.
const SETTLE_INTERVAL: Duration = Duration::from_millis(50);
/// Bounds of the request that is asked about.
const TARGET_BYTES: usize = 1024;
const HEADER_COUNT: usize = 32;
/// Random bytes of the key that names credentials here; nobody is told of the names.
const KEY_BYTES: usize = 32;

/// The stores.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) backing: Backing,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) keys: Keys,
    /// Unknown tokens that were asked for.
    pub(super) unknown: AtomicU64,
    /// Look-ups are asked for from here, as from a core of a gateway.
    pub(super) runtime: Runtime,
    /// By all levels.
    whole: Arc<Alone>,
    /// Past Redis.
    to_store: Arc<Alone>,
    slow: Runtime,
    stop: CancellationToken,
    watching: JoinHandle<()>,
}

impl Ground {
    /// Opens the stores. Nothing is written but what a gateway would prune.
    pub(super) fn open(config: &Config, rows: NonZeroU32) -> Result<Self, BenchError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let slow = Builder::new_multi_thread()
            .worker_threads(SLOW_THREADS)
            .thread_name("slow")
            .enable_all()
            .build()
            .map_err(AppError::Thread)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (keys, secret) = (Keys::random(rows)?, Secret::random_hex::<KEY_BYTES>("")?);
        let backing = slow.block_on(Backing::open(config, &clock))?;
        if let Err(error) = slow.block_on(backing.store.prune(clock.unix())) {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot prune the store");
        }
        let stop = CancellationToken::new();
        let health = Arc::new(Health::new(Arc::clone(&clock)));
        let watching = coherence::watch(backing.clone(), Arc::clone(&clock), health, None, stop.clone());
        let watching = slow.spawn(watching);
        let lookups = || {
            let (cache, store) = (Arc::clone(&backing.cache), Arc::clone(&backing.store));
            Lookups::new(cache, store, Arc::clone(&clock), &secret)
        };
        let alone = |lookups: Lookups| {
            // Those that doorward issues: of no other kind are there rows that nobody has.
            let scheme = TokenScheme::new("Token", &[Family::Doorward], Arc::new(lookups));
            let slow = plan::lookups(&config.limits, slow.handle());
            let schemes: Vec<Arc<dyn Scheme>> = vec![Arc::new(scheme)];
            Arc::new(Alone {
                sanitiser: Sanitiser {
                    guarded: GuardedNames::new([]),
                    trusted_proxies: Vec::new(),
                    target_bytes: TARGET_BYTES,
                    header_count: HEADER_COUNT,
                },
                body_limits: plan::body_limits(&config.limits),
                authenticator: Authenticator::new(schemes, slow, &AuthenticatorOptions::default()),
                stale: config.cache.stale_while_unreachable,
            })
        };
        let (whole, to_store) = (alone(lookups().sharing(backing.shared.clone())), alone(lookups()));
        let unknown = AtomicU64::new(0);
        Ok(Self { backing, clock, keys, unknown, runtime, whole, to_store, slow, stop, watching })
    }

    /// Writes the rows; yields what it took.
    pub(super) fn write(
        &self,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<Duration, BenchError> {
        let began = self.clock.monotonic();
        let (digests, mut written) = (self.digests(), 0);
        for batch in digests.chunks(CANARIES_MAX) {
            progress("rows", written, u64::from(self.keys.tokens()));
            if stop.is_cancelled() {
                return Err(BenchError::Stopped);
            }
            self.slow.block_on(self.backing.credentials.make_canaries(batch, LIFETIME))?;
            written += u64::try_from(batch.len()).unwrap_or(u64::MAX);
        }
        Ok(self.clock.monotonic().since(began))
    }

    /// Removes the rows that are there; yields how many. Of a batch whose writing failed nobody knows, so all are
    /// looked for.
    pub(super) fn remove(&self) -> Result<u64, CredentialsError> {
        self.slow.block_on(async {
            let (digests, mut removed) = (self.digests(), 0);
            for batch in digests.chunks(CANARIES_MAX) {
                removed += self.remove_batch(batch).await?;
            }
            Ok(removed)
        })
    }

    async fn remove_batch(&self, batch: &[Digest]) -> Result<u64, CredentialsError> {
        let mut attempts = 1;
        loop {
            match self.backing.credentials.remove_canaries(batch).await {
                Err(_) if attempts < REMOVALS_MAX => attempts += 1,
                result => return result,
            }
            tokio::time::sleep(REMOVAL_INTERVAL).await;
        }
    }

    fn digests(&self) -> Vec<Digest> {
        (0..u64::from(self.keys.tokens())).map(|number| self.keys.digest(number)).collect()
    }

    /// Closes the stores.
    pub(super) fn close(self) {
        self.stop.cancel();
        let close = async {
            // Its connections first: the last one to close a file puts it in order.
            self.watching.await.unwrap_or_default();
            self.backing.store.close().await
        };
        let closed = self.slow.block_on(async { tokio::time::timeout(CLOSE_TIME, close).await });
        if !matches!(closed, Ok(Ok(()))) {
            tracing::warn!("the store was not closed");
        }
        self.slow.shutdown_timeout(CLOSE_TIME);
    }

    /// One who asks the local cache, Redis if there is one, and the store.
    pub(super) async fn asker(&self) -> Result<Asker, BenchError> {
        Asker::new(Door::Alone(Arc::clone(&self.whole)), Arc::clone(&self.clock)).await
    }

    /// One who asks the local cache and the store.
    pub(super) async fn asker_past_redis(&self) -> Result<Asker, BenchError> {
        Asker::new(Door::Alone(Arc::clone(&self.to_store)), Arc::clone(&self.clock)).await
    }

    /// Empties the local cache.
    pub(super) fn forget(&self) {
        self.backing.cache.invalidate(Invalidation::Everything);
        self.backing.cache.forget_unknown();
    }

    /// Waits until the store is watched, which empties the cache once, and entries are proved by it.
    pub(super) fn settle(&self, stop: &CancellationToken) -> Result<(), BenchError> {
        self.runtime.block_on(async {
            let mut asker = self.asker_past_redis().await?;
            let head = asker.head(self.keys.header(0))?;
            let began = self.clock.monotonic();
            let mut filled = began;
            while self.clock.monotonic().since(began) < SETTLE_TIME {
                let now = self.clock.monotonic();
                match asker.ask(&head).await {
                    Answer::Refused(AnsweredBy::Local) if now.since(filled) > self.bound() => return Ok(()),
                    Answer::Refused(AnsweredBy::Local) => {}
                    _ => filled = self.clock.monotonic(),
                }
                self.pause(SETTLE_INTERVAL, stop).await?;
            }
            Ok(())
        })
    }

    fn bound(&self) -> Duration {
        self.backing.cache.trust().bound()
    }

    /// Waits a moment, unless it is to stop.
    pub(super) async fn pause(&self, time: Duration, stop: &CancellationToken) -> Result<(), BenchError> {
        tokio::select! {
            () = stop.cancelled() => Err(BenchError::Stopped),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }
}
