//! Measures all the time how long it takes until a revoked credential is void everywhere.
//!
//! Now and then a credential that nobody has is made and revoked, as any other one would be, and the others say when
//! they have dropped it. The time is this process's own: from asking for the revocation to the last answer.
//! Where nothing is published it ends when the change is read from the store, as all others read it.

use crate::app::coherence::peers::Peers;
use crate::cache::coherence::Publisher;
use crate::clock::{Clock, Monotonic};
use crate::credentials::{Credentials, CredentialsError};
use crate::identity::Digest;
use crate::telemetry::metrics::RevocationMetrics;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Between two measurements.
const INTERVAL: Duration = Duration::from_secs(10);
/// The first one comes soon.
const FIRST: Duration = Duration::from_secs(1);
/// Longer is not measured.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between making one and revoking it.
const SETTLING: Duration = Duration::from_millis(300);
/// Answers that wait.
const ANSWERS_MAX: usize = 256;

/// What the keeper hears of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// This replica has dropped what the message with this number named.
    Applied(Publisher, u64),
    /// It was read from the store.
    Read(Digest),
}

/// Where the keeper puts what it hears; what does not fit is not measured.
pub(super) type Answers = mpsc::Sender<Answer>;

/// The one who measures.
#[derive(Debug)]
pub(super) struct Canary {
    pub(super) credentials: Arc<Credentials>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) peers: Arc<Peers>,
    pub(super) metrics: RevocationMetrics,
    pub(super) bound: Duration,
    answers: mpsc::Receiver<Answer>,
}

impl Canary {
    pub(super) fn new(
        credentials: Arc<Credentials>,
        clock: Arc<dyn Clock>,
        peers: Arc<Peers>,
        metrics: RevocationMetrics,
        bound: Duration,
    ) -> (Self, Answers) {
        let (sender, answers) = mpsc::channel(ANSWERS_MAX);
        metrics.bound(bound);
        (Self { credentials, clock, peers, metrics, bound, answers }, sender)
    }

    /// Measures for ever.
    pub(super) async fn work(mut self) {
        tokio::time::sleep(FIRST).await;
        loop {
            if let Err(error) = self.measure().await {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "how long a revocation takes was not measured");
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn measure(&mut self) -> Result<(), CredentialsError> {
        let (id, digest) = self.credentials.make_canary().await?;
        // That it was made is read, too.
        tokio::time::sleep(SETTLING).await;
        while self.answers.try_recv().is_ok() {}
        // Who comes later never had it.
        let peers = self.peers.present(self.clock.monotonic());
        self.metrics.replicas(peers.len() + 1);
        let began = self.clock.monotonic();
        let number = self.credentials.revoke_canary(id).await?;
        let done = match number {
            Some(number) => self.all_answer(peers, number).await,
            None => self.is_read(digest).await,
        };
        let Some(ended) = done else {
            self.metrics.took(self.clock.monotonic().since(began));
            self.metrics.late();
            return Ok(());
        };
        let time = ended.since(began);
        self.metrics.took(time);
        if time > self.bound {
            self.metrics.late();
            tracing::warn!(?time, bound = ?self.bound, "a revocation took longer than revocation_bound");
        }
        Ok(())
    }

    /// Waits until all of them have said that it is done, or are gone. `None`: somebody who is there has not.
    async fn all_answer(&mut self, mut peers: BTreeSet<Publisher>, number: u64) -> Option<Monotonic> {
        let mut last = self.clock.monotonic();
        let waiting = timeout(PATIENCE, async {
            while !peers.is_empty() {
                match self.answers.recv().await {
                    Some(Answer::Applied(publisher, of)) if of == number => {
                        last = self.clock.monotonic();
                        peers.remove(&publisher);
                    }
                    Some(_) => {}
                    None => std::future::pending().await,
                }
            }
        });
        if waiting.await.is_ok() {
            return Some(last);
        }
        let there = self.peers.present(self.clock.monotonic());
        let silent = peers.intersection(&there).count();
        if silent == 0 {
            return Some(last);
        }
        tracing::warn!(replicas = silent, "replicas have not said that they dropped a revoked credential");
        None
    }

    async fn is_read(&mut self, digest: Digest) -> Option<Monotonic> {
        let waiting = timeout(PATIENCE, async {
            loop {
                match self.answers.recv().await {
                    Some(Answer::Read(read)) if read == digest => return self.clock.monotonic(),
                    Some(_) => {}
                    None => std::future::pending().await,
                }
            }
        });
        waiting.await.ok()
    }
}
