//! `doorward bench lookup`: what looking a token up costs on this machine, by the way that requests take.
//!
//! Tokens are put into a store in a directory that goes away, and a gateway is started on it as `serve` starts one:
//! its own listener, store, cache, watcher and upstream. The cases of a look-up alone call the authenticator of that
//! gateway's own plan with heads that its own sanitiser has read; the case of the whole request is a client over TLS.
//! Nothing goes around what a request goes through, and what is measured is checked: a sample counts only if the one
//! answered who the case is about.
//!
//! With the operator's own configuration nothing is thrown away, and levels are measured in its stores: see [`stores`].

mod asker;
mod client;
mod keys;
mod lookups;
mod samples;
pub mod stores;
mod subject;
mod taking;

use crate::app::AppError;
use crate::app::bench::subject::Subject;
use crate::cache::redis::Away;
use crate::config::ConfigError;
use crate::credentials::CredentialsError;
use crate::secret::NoRandomness;
use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub use crate::app::bench::samples::Samples;

/// Most tokens of a run: the cache holds all of them, in a gigabyte at most.
pub const TOKENS_MAX: u32 = 1_000_000;

/// Is told how far something has come: what it is, how much is done, of how much.
pub type Progress = Arc<dyn Fn(&'static str, u64, u64) + Send + Sync>;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// It was asked to stop.
    #[error("stopped before the end")]
    Stopped,
    /// No temporary directory, no port, no runtime.
    #[error("cannot prepare the benchmark")]
    Prepare(#[from] io::Error),
    /// A bug: the built-in configuration is wrong.
    #[error("the built-in configuration is wrong")]
    Config(#[from] ConfigError),
    /// The gateway.
    #[error(transparent)]
    Start(#[from] AppError),
    /// The users and tokens.
    #[error("cannot fill the store")]
    Fill(#[from] CredentialsError),
    /// The system gave no randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// A bug: the gateway refuses what the benchmark sends.
    #[error("the gateway does not read the benchmark's request")]
    Unread,
    /// The gateway does not trust its cache: it does not get to watch the store.
    #[error("the cache was not to be believed for {} seconds: is the machine too busy?", .0.as_secs())]
    Unproved(Duration),
    /// Too few look-ups were answered by whom the case is about.
    #[error("{}: {strays} of {asked} look-ups went another way: is the machine too busy?", case.name())]
    Strays {
        /// The case.
        case: Case,
        /// Look-ups that went another way.
        strays: u64,
        /// All of them.
        asked: u64,
    },
    /// Redis does not answer.
    #[error("Redis cannot be asked")]
    Redis(#[source] Away),
    /// Redis answers, and nothing of it is used.
    #[error(
        "what Redis holds was not used once: it is full, or the store changes without saying what (see docs/bench.md)"
    )]
    Unbelieved,
    /// Nobody answered.
    #[error("{}: {count} look-ups in a row were not answered", case.name())]
    Unanswered {
        /// The case.
        case: Case,
        /// How many.
        count: u64,
    },
    /// A request over TLS.
    #[error("a request failed")]
    Request(#[source] io::Error),
    /// A request was answered, but not as it should be.
    #[error("a request with a known token was answered with {0}")]
    Status(u16),
}

/// What is measured, in the order in which it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// A known token that is in the local cache.
    LocalHit,
    /// A known token that is not, and that another replica looked up: Redis is asked.
    RedisHit,
    /// A known token that is not: the store is asked.
    StoreHit,
    /// A token that nobody knows: the store is asked.
    Unknown,
    /// The same token again: it is remembered that there is none.
    UnknownAgain,
    /// A whole request with a known token in the cache: client, TLS, gateway, upstream, and back.
    Request,
}

impl Case {
    /// Those of a throw-away store.
    pub const ALL: [Self; 5] =
        [Self::LocalHit, Self::StoreHit, Self::Unknown, Self::UnknownAgain, Self::Request];
    /// Those of an operator's own stores: the levels of a look-up.
    pub const OF_STORES: [Self; 4] = [Self::LocalHit, Self::RedisHit, Self::StoreHit, Self::Unknown];

    /// Its name, in the table and for scripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::LocalHit => "local-hit",
            Self::RedisHit => "redis-hit",
            Self::StoreHit => "store-hit",
            Self::Unknown => "unknown-token",
            Self::UnknownAgain => "unknown-token-again",
            Self::Request => "request",
        }
    }

    /// One line on what it is.
    pub fn describe(self) -> &'static str {
        match self {
            Self::LocalHit => "a known token that is in the local cache",
            Self::RedisHit => "a known token that is not in the local cache: Redis is asked",
            Self::StoreHit => "a known token that is not in the cache: the store is asked",
            Self::Unknown => "a token that nobody knows: the store is asked",
            Self::UnknownAgain => "the same again: it is remembered that there is none",
            Self::Request => "a whole HTTPS request with a cached token",
        }
    }
}

/// What one case came to.
#[derive(Debug)]
pub struct Measured {
    /// The case.
    pub case: Case,
    /// What each sample took.
    pub samples: Samples,
    /// Look-ups that went another way than the case's, and are in no sample: an entry of the cache that was not
    /// proved in time, say.
    pub strays: u64,
    /// Connections that asked at the same time; `None`: no connection, one look-up after the other on one thread.
    pub connections: Option<u32>,
    /// Time in which the samples were taken: their sum, or with connections the time from the first to the last.
    pub elapsed: Duration,
}

impl Measured {
    /// Look-ups, or requests, in a second.
    #[expect(clippy::cast_precision_loss, reason = "a count of samples is far below 2^52")]
    pub fn per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.samples.count() as f64 / seconds } else { 0.0 }
    }
}

/// What a run found.
#[derive(Debug)]
pub struct Report {
    /// Tokens in the store.
    pub tokens: u32,
    /// Users that have them.
    pub users: u32,
    /// Bytes of the store's file.
    pub store_bytes: u64,
    /// What filling the store took.
    pub filled_in: Duration,
    /// What reading the clock takes, in nanoseconds; it is taken off each sample of a look-up.
    pub clock_ns: u64,
    /// The cases, in the order of [`Case::ALL`].
    pub cases: Vec<Measured>,
}

/// Fills a store and measures all cases. Blocks; must not be called on a runtime. Whatever comes of it, the directory
/// is removed.
///
/// # Errors
/// If anything it needs cannot be had, or it was asked to stop.
pub fn lookup(
    tokens: NonZeroU32,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Report, BenchError> {
    let bench = Bench::start(tokens, progress, stop)?;
    let report = bench.report();
    bench.stop()?;
    report
}

/// A gateway that is measured; its directory goes away with it.
pub struct Bench {
    subject: Subject,
    progress: Progress,
    stop: CancellationToken,
}

impl fmt::Debug for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl Bench {
    /// Fills a store with at most [`TOKENS_MAX`] tokens and starts a gateway on it. Blocks; must not be called on a
    /// runtime.
    ///
    /// # Errors
    /// If anything it needs cannot be had, or it was asked to stop.
    pub fn start(
        tokens: NonZeroU32,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<Self, BenchError> {
        let tokens = tokens.min(NonZeroU32::new(TOKENS_MAX).unwrap_or(NonZeroU32::MIN));
        let subject = Subject::start(tokens, progress, stop)?;
        Ok(Self { subject, progress: Arc::clone(progress), stop: stop.clone() })
    }

    /// Measures one case. Blocks; must not be called on a runtime.
    ///
    /// # Errors
    /// If what was to be measured did not happen, or it was asked to stop.
    pub fn measure(&self, case: Case) -> Result<Measured, BenchError> {
        let round = Round { subject: &self.subject, case, progress: &self.progress, stop: &self.stop };
        match case {
            Case::LocalHit => lookups::local_hits(&round),
            Case::StoreHit => lookups::store_hits(&round),
            Case::Unknown => lookups::unknown(&round),
            Case::UnknownAgain => lookups::unknown_again(&round),
            Case::Request => client::requests(&round),
            // There is none.
            Case::RedisHit => Err(BenchError::Redis(Away::Unconnected(None))),
        }
    }

    /// Stops the gateway and removes the directory.
    ///
    /// # Errors
    /// If the directory cannot be removed.
    pub fn stop(self) -> io::Result<()> {
        self.subject.stop()
    }

    fn report(&self) -> Result<Report, BenchError> {
        // Store hits first: they begin with an empty cache, and all others with a full one.
        let store_hit = self.measure(Case::StoreHit)?;
        let local_hit = self.measure(Case::LocalHit)?;
        let rest = [Case::Unknown, Case::UnknownAgain, Case::Request].map(|case| self.measure(case));
        let cases = [Ok(local_hit), Ok(store_hit)].into_iter().chain(rest);
        let Subject { users, store_bytes, filled_in, .. } = self.subject;
        Ok(Report {
            tokens: self.subject.keys.tokens(),
            users,
            store_bytes,
            filled_in,
            clock_ns: samples::clock_ns(),
            cases: cases.collect::<Result<_, _>>()?,
        })
    }
}

/// The measuring of one case.
#[derive(Clone, Copy)]
struct Round<'a> {
    subject: &'a Subject,
    case: Case,
    progress: &'a Progress,
    stop: &'a CancellationToken,
}

impl Round<'_> {
    /// Says how far it has come, and whether to go on.
    fn go_on(&self, done: u64, total: u64) -> Result<(), BenchError> {
        (self.progress)(self.case.name(), done, total);
        if self.stop.is_cancelled() { Err(BenchError::Stopped) } else { Ok(()) }
    }
}
