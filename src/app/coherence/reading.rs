//! Reads what was committed to the store, again and again.

use crate::app::Backing;
use crate::app::health::{Health, Part};
use crate::cache::change::{Changes, Sequence};
use crate::clock::{Clock, Monotonic};
use crate::store::{ChangeFeed, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Between two readings; one takes about 0.1 ms when nothing has changed.
const INTERVAL: Duration = Duration::from_millis(100);
/// A reading that takes longer shows a slow store: what it confirmed lately is used without waiting for it.
const SLOW: Duration = Duration::from_millis(500);
/// Between two attempts to open a feed.
const REOPEN_INTERVAL: Duration = Duration::from_millis(200);
/// Failures in a row after which a feed is opened anew, unless it outlasts them.
const FAILURES_MAX: u32 = 20;

/// What a reading says.
#[derive(Debug)]
pub(super) enum Told {
    /// What was committed before is in no reading.
    Begins {
        /// `None`: the store has no numbers.
        after: Option<Sequence>,
    },
    /// What was committed since the last one.
    Read {
        /// When it was asked for.
        asked: Monotonic,
        /// What it says; the last number even if nothing changed.
        changes: Changes,
        /// All of the store answered.
        is_whole: bool,
    },
}

/// Who reads.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) backing: Backing,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) health: Arc<Health>,
    /// Asks for a reading before it is due.
    pub(super) wake: Arc<Notify>,
    pub(super) to: mpsc::Sender<Told>,
}

impl Reading {
    /// Returns when nobody takes readings in any more.
    pub(super) async fn work(self) {
        let (mut has_failed, mut hangs) = (false, false);
        loop {
            let asked = self.clock.monotonic();
            match self.patiently(hangs, self.open()).await {
                Ok(feed) => {
                    if self.follow(feed, &mut hangs).await.is_none() {
                        return;
                    }
                }
                Err(error) => {
                    hangs = self.failed(&error, asked, !has_failed);
                    self.patiently(hangs, tokio::time::sleep(REOPEN_INTERVAL)).await;
                }
            }
            has_failed = true;
        }
    }

    /// Opens a feed, and tells what is known of the time before it: others may have shared what they read then.
    async fn open(&self) -> Result<Box<dyn ChangeFeed>, StoreError> {
        let store = &self.backing.store;
        let feed = store.change_feed().await?;
        // After the feed was opened: what is committed in between is told twice rather than not at all.
        let asked = self.clock.monotonic();
        let history = store.history().await?;
        let after = history.as_ref().map(|history| history.after);
        // Whoever takes it in ends this one, too.
        drop(self.to.send(Told::Begins { after }).await);
        if let Some(history) = history {
            let changes = Changes::numbered(history.after, history.changes);
            drop(self.to.send(Told::Read { asked, changes, is_whole: true }).await);
        }
        Ok(feed)
    }

    /// Follows one feed until it is of no use any more. `None`: nobody takes readings in.
    async fn follow(&self, mut feed: Box<dyn ChangeFeed>, hangs: &mut bool) -> Option<()> {
        let mut failures = 0;
        while failures < FAILURES_MAX || feed.outlasts_failures() {
            let asked = self.clock.monotonic();
            match self.patiently(*hangs, feed.changes()).await {
                Ok(changes) if feed.is_partial() => {
                    let is_news = failures == 0;
                    *hangs = self.failed(&StoreError::Unavailable("a part of it".into()), asked, is_news);
                    failures = failures.max(1);
                    self.to.send(Told::Read { asked, changes, is_whole: false }).await.ok()?;
                }
                Ok(changes) => {
                    if failures > 0 {
                        tracing::info!("the store can be watched again");
                    }
                    (failures, *hangs) = (0, false);
                    self.health.works(Part::Store, true);
                    self.to.send(Told::Read { asked, changes, is_whole: true }).await.ok()?;
                }
                Err(error) => {
                    *hangs = self.failed(&error, asked, failures == 0);
                    failures = failures.saturating_add(1);
                }
            }
            tokio::select! {
                () = feed.wait(INTERVAL) => {}
                () = self.wake.notified() => {}
            }
        }
        Some(())
    }

    /// Waits for an answer; while it takes long, nobody waits for the store who need not. If the last one did not come,
    /// that is so from the beginning.
    async fn patiently<T>(&self, hangs: bool, answer: impl Future<Output = T> + Send) -> T {
        let mut answer = std::pin::pin!(answer);
        let mut wait = if hangs { INTERVAL } else { SLOW };
        loop {
            match tokio::time::timeout(wait, &mut answer).await {
                Ok(answer) => return answer,
                Err(_) => self.backing.cache.trust().store_is_slow(self.clock.monotonic()),
            }
            wait = INTERVAL;
        }
    }

    /// Yields whether the store hangs. One that refuses at once keeps nobody waiting: who needs it asks.
    fn failed(&self, error: &StoreError, asked: Monotonic, is_news: bool) -> bool {
        if is_news {
            let error = error as &dyn std::error::Error;
            tracing::error!(error, "cannot watch the store for changes");
        }
        self.health.works(Part::Store, false);
        let now = self.clock.monotonic();
        let hangs = now.since(asked) >= SLOW;
        if hangs {
            self.backing.cache.trust().store_is_slow(now);
        }
        hangs
    }
}
