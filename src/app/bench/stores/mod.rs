//! `doorward bench lookup --config FILE`: what a look-up costs in the operator's own stores, level by level.
//!
//! The stores are opened as `serve` opens them, with the same watcher, so that cached answers are believed for the same
//! reasons; nothing is listened on, and this process is no replica to the others. The rows that are looked up are
//! canaries: tokens of a user who is not active, listed nowhere, which every gateway on the store refuses. They are
//! removed whatever comes of it; those of a process that was killed are pruned like any canary.
//!
//! A sample counts only if the level that it is about has answered. A level that mostly does not is an error.

mod ground;
mod levels;

use crate::app::bench::stores::ground::Ground;
use crate::app::bench::{BenchError, Case, Measured, Progress, samples};
use crate::config::{Config, Layout, ServerKind, StoreUrl};
use crate::credentials::CredentialsError;
use std::num::NonZeroU32;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Most rows of a run: others write to the store, too, and every gateway on it reads of each row.
pub const ROWS_MAX: u32 = 10_000;

/// What became of a run.
#[derive(Debug)]
pub struct Ended {
    /// What it found, or why it broke off.
    pub report: Result<StoresReport, BenchError>,
    /// Rows that were removed in the end.
    pub removed: Result<u64, CredentialsError>,
}

/// What a run found.
#[derive(Debug)]
pub struct StoresReport {
    /// Where users are: `sqlite`, `postgresql` or `mysql`.
    pub kind: &'static str,
    /// Where tokens are, if that is another database: the layout is Django's.
    pub own: Option<&'static str>,
    /// There is a Redis in the configuration.
    pub has_redis: bool,
    /// Rows that were written.
    pub rows: u32,
    /// What that took.
    pub written_in: Duration,
    /// See [`Report::clock_ns`](crate::app::bench::Report::clock_ns).
    pub clock_ns: u64,
    /// The levels, in the order of [`Case::OF_STORES`].
    pub levels: Vec<Level>,
}

/// One level.
#[derive(Debug)]
pub struct Level {
    /// Which.
    pub case: Case,
    /// What it came to.
    pub outcome: Outcome,
}

/// What a level came to.
#[derive(Debug)]
pub enum Outcome {
    /// Figures.
    Measured(Measured),
    /// The configuration has no such level.
    Absent,
    /// No figures: it does not answer, or others answered in its place.
    Failed(BenchError),
}

impl StoresReport {
    /// Those levels that were measured.
    pub fn measured(&self) -> impl Iterator<Item = &Measured> {
        self.levels.iter().filter_map(|level| match &level.outcome {
            Outcome::Measured(measured) => Some(measured),
            Outcome::Absent | Outcome::Failed(_) => None,
        })
    }
}

/// Writes so many rows, at most [`ROWS_MAX`], measures all levels, and removes them. Blocks; must not be called on a
/// runtime.
///
/// # Errors
/// If the stores cannot be opened; nothing was written then.
pub fn stores(
    config: &Config,
    rows: NonZeroU32,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Ended, BenchError> {
    let ground = Ground::open(config, rows.min(NonZeroU32::new(ROWS_MAX).unwrap_or(NonZeroU32::MIN)))?;
    let report = report(config, &ground, progress, stop);
    progress("removing", 0, 0);
    let removed = ground.remove();
    ground.close();
    Ok(Ended { report, removed })
}

fn report(
    config: &Config,
    ground: &Ground,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<StoresReport, BenchError> {
    let written_in = ground.write(progress, stop)?;
    ground.settle(stop)?;
    // The store first: nothing is in Redis then.
    let mut levels = [Case::StoreHit, Case::RedisHit, Case::LocalHit, Case::Unknown]
        .map(|case| (case, levels::measure(ground, case, progress, stop)))
        .into_iter()
        .map(|(case, outcome)| match outcome {
            Err(BenchError::Stopped) => Err(BenchError::Stopped),
            Err(error) => Ok(Level { case, outcome: Outcome::Failed(error) }),
            Ok(outcome) => Ok(Level { case, outcome }),
        })
        .collect::<Result<Vec<_>, _>>()?;
    levels.sort_by_key(|level| Case::OF_STORES.iter().position(|case| *case == level.case));
    let own = match &config.store.layout {
        Layout::Doorward => None,
        Layout::Django(django) => Some(kind(&django.own)),
    };
    Ok(StoresReport {
        kind: kind(&config.store.url),
        own,
        has_redis: config.redis.is_some(),
        rows: ground.keys.tokens(),
        written_in,
        clock_ns: samples::clock_ns(),
        levels,
    })
}

fn kind(url: &StoreUrl) -> &'static str {
    match url {
        StoreUrl::Sqlite(_) => "sqlite",
        StoreUrl::Server(server) => match server.kind {
            ServerKind::Postgres => "postgresql",
            ServerKind::MySql => "mysql",
        },
    }
}
