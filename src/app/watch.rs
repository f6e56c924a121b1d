//! What is done now and then: the store is pruned, last uses are written, files that were replaced are put in place.

use crate::app::health::{Health, Part};
use crate::app::{AppError, Backing, Reloader, Stamp};
use crate::clock::Clock;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between two prunings of the store.
const PRUNE_INTERVAL: Duration = Duration::from_mins(1);

/// Between two writings of when tokens were last used.
const USES_INTERVAL: Duration = Duration::from_secs(10);

/// Between two looks at files.
const FILES_INTERVAL: Duration = Duration::from_secs(1);
/// Looks after which files that were refused are tried again, though nobody touched them: a certificate that was made
/// by a clock ahead of ours is good a moment later.
const LOOKS_AFTER_REFUSAL: u32 = 5;

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
