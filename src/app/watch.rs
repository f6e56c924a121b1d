//! Keeps the local cache true: what other processes commit to the store is found and dropped.

use crate::app::health::{Health, Part};
use crate::app::{AppError, Backing, Reloader, Stamp};
use crate::cache::local::{CredentialKey, Invalidation, LocalCache};
use crate::clock::{Clock, Monotonic};
use crate::identity::Family;
use crate::store::{Change, ChangeFeed};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between two looks; a look takes about 0.1 ms when nothing has changed.
const INTERVAL: Duration = Duration::from_millis(100);
/// Between two doubts. Each makes every credential in use be asked for once more, and a busy Django writes all the time;
/// what was changed in between is found by the next one.
const DOUBT_INTERVAL: Duration = Duration::from_millis(300);
/// Between two attempts to open a feed.
const REOPEN_INTERVAL: Duration = Duration::from_millis(500);
/// Failures in a row after which the feed is opened anew.
const FAILURES_MAX: u32 = 20;
/// Between two prunings of the store.
const PRUNE_INTERVAL: Duration = Duration::from_mins(1);

/// Between two writings of when tokens were last used.
const USES_INTERVAL: Duration = Duration::from_secs(10);

/// Between two looks at files.
const FILES_INTERVAL: Duration = Duration::from_secs(1);
/// Looks after which files that were refused are tried again, though nobody touched them: a certificate that was made
/// by a clock ahead of ours is good a moment later.
const LOOKS_AFTER_REFUSAL: u32 = 5;

/// Watches until stopped.
pub(in crate::app) async fn watch(
    backing: Backing,
    clock: Arc<dyn Clock>,
    health: Arc<Health>,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        match backing.store.change_feed().await {
            Ok(feed) => {
                // What was committed before this feed began is in no feed.
                backing.cache.invalidate(Invalidation::Everything);
                follow(feed, &backing.cache, clock.as_ref(), &health, &stop).await;
            }
            Err(error) => {
                health.works(Part::Store, false);
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot watch the store for changes"
                );
                pause(REOPEN_INTERVAL, &stop).await;
            }
        }
    }
}

/// Follows one feed; returns when it is of no use any more.
async fn follow(
    mut feed: Box<dyn ChangeFeed>,
    cache: &LocalCache,
    clock: &dyn Clock,
    health: &Health,
    stop: &CancellationToken,
) {
    let mut failures = 0;
    let mut doubts = Doubts::default();
    while failures < FAILURES_MAX && !stop.is_cancelled() {
        let asked = clock.monotonic();
        match feed.changes().await {
            Ok(changes) => {
                if failures > 0 {
                    tracing::info!("the store can be watched again");
                }
                failures = 0;
                health.works(Part::Store, true);
                for change in &changes.changes {
                    apply(*change, cache, &mut doubts);
                }
                if !changes.is_empty() {
                    cache.forget_unknown();
                }
                if doubts.are_settled(cache, clock) {
                    // As of the moment before the question, all that had changed is dropped now.
                    cache.prove(asked);
                }
            }
            Err(error) => {
                if failures == 0 {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "cannot watch the store for changes"
                    );
                }
                failures += 1;
                health.works(Part::Store, false);
            }
        }
        tokio::select! {
            () = feed.wait(INTERVAL) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Changes of which nobody says what they are.
#[derive(Debug, Default)]
struct Doubts {
    last: Option<Monotonic>,
    is_pending: bool,
}

impl Doubts {
    /// Whether all that was found has been doubted; until then nothing is proved.
    fn are_settled(&mut self, cache: &LocalCache, clock: &dyn Clock) -> bool {
        let now = clock.monotonic();
        let is_due = self.last.is_none_or(|last| now.since(last) >= DOUBT_INTERVAL);
        if self.is_pending && is_due {
            // What is asked for from now on finds it.
            cache.doubt(now);
            (self.last, self.is_pending) = (Some(now), false);
        }
        !self.is_pending
    }
}

fn apply(change: Change, cache: &LocalCache, doubts: &mut Doubts) {
    match change {
        Change::Credential(digest) => {
            for family in Family::ALL {
                cache.invalidate(Invalidation::Credential(CredentialKey { digest, family }));
            }
        }
        Change::User(user) => cache.invalidate(Invalidation::User(user)),
        Change::Everything => cache.invalidate(Invalidation::Everything),
        Change::Something => doubts.is_pending = true,
    }
}

/// Forgets what nobody needs any more, now and then.
pub(in crate::app) async fn prune(backing: Backing, clock: Arc<dyn Clock>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        pause(PRUNE_INTERVAL, &stop).await;
        if let Err(error) = backing.store.prune(clock.unix()).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot prune the store");
        }
    }
}

/// Files that are put in place when they were replaced on disk.
#[derive(Debug, Clone, Copy)]
pub(in crate::app) struct Files {
    /// For the log.
    what: &'static str,
    stamps: fn(&Reloader) -> Vec<Option<Stamp>>,
    reload: fn(&Reloader) -> Result<(), AppError>,
}

impl Files {
    /// What clients see.
    pub(in crate::app) const CERTIFICATES: Self = Self {
        what: "certificates",
        stamps: Reloader::certificate_stamps,
        reload: |reloader| Ok(reloader.reload_certificates()?),
    };
    /// What upstreams are verified against.
    pub(in crate::app) const ANCHORS: Self = Self {
        what: "trust anchors of upstreams",
        stamps: Reloader::anchor_stamps,
        reload: Reloader::reload_anchors,
    };
}

/// Puts files that were replaced on disk in place: whatever is replaced from this call on, however late it is polled.
///
/// Blocks: it looks at the files.
pub(in crate::app) fn files(
    files: Files,
    reloader: Arc<Reloader>,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send {
    let known = (files.stamps)(&reloader);
    follow_files(files, known, reloader, stop)
}

async fn follow_files(
    files: Files,
    mut known: Vec<Option<Stamp>>,
    reloader: Arc<Reloader>,
    stop: CancellationToken,
) {
    let what = files.what;
    let look = |reloader: &Arc<Reloader>| {
        let reloader = Arc::clone(reloader);
        tokio::task::spawn_blocking(move || (files.stamps)(&reloader))
    };
    let mut refused_for = None;
    while !stop.is_cancelled() {
        pause(FILES_INTERVAL, &stop).await;
        let Ok(stamps) = look(&reloader).await else { continue };
        if stamps == known {
            let Some(looks) = &mut refused_for else { continue };
            *looks += 1;
            if *looks < LOOKS_AFTER_REFUSAL {
                continue;
            }
        }
        let is_told = stamps == known;
        known = stamps;
        refused_for = None;
        let reading = Arc::clone(&reloader);
        match tokio::task::spawn_blocking(move || (files.reload)(&reading)).await {
            Ok(Ok(())) => tracing::info!("{what} reloaded"),
            Ok(Err(error)) => {
                refused_for = Some(0);
                // The same files are told of once.
                if !is_told {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "{what} not reloaded: the old ones stay");
                }
            }
            // Not tried again before the files change again.
            Err(_) => tracing::error!("a panic while {what} were reloaded: the old ones stay"),
        }
    }
}

/// Writes when tokens were last used, now and then.
pub(in crate::app) async fn write_uses(backing: Backing, health: Arc<Health>, stop: CancellationToken) {
    let mut is_failing = false;
    while !stop.is_cancelled() {
        pause(USES_INTERVAL, &stop).await;
        let written = backing.credentials.write_uses().await;
        if let Err(error) = &written
            && !is_failing
        {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "the last uses of tokens cannot be written"
            );
        }
        is_failing = written.is_err();
        health.works(Part::StoreWrites, !is_failing);
    }
}

async fn pause(time: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = stop.cancelled() => {}
    }
}
