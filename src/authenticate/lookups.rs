//! What every scheme looks credentials up with: first the cache, then what other replicas share, then the store. Shared by all instances.

use crate::cache::change::Sequence;
use crate::cache::local::{CredentialKey, Found, Loaded, LocalCache, Now, Outage, Shared};
use crate::cache::redis::{Lease, SharedCache, SharedValue};
use crate::clock::{Clock, UnixSeconds};
use crate::identity::CredentialId;
use crate::secret::Secret;
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::StoreMetrics;
use aws_lc_rs::hmac;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Answers that are being told to other replicas; past it they are not.
const FILLS_MAX: usize = 64;

/// The cache, the store, and what is needed beside them.
#[derive(Debug)]
pub struct Lookups {
    pub(in crate::authenticate) cache: Arc<LocalCache>,
    pub(in crate::authenticate) store: Arc<dyn Store>,
    pub(in crate::authenticate) clock: Arc<dyn Clock>,
    pub(in crate::authenticate) metrics: StoreMetrics,
    /// Names credentials that have no public id in the store.
    ids: hmac::Key,
    sharing: Option<Sharing>,
}

/// What other replicas were told, and how much is told to them at once.
#[derive(Debug)]
struct Sharing {
    cache: SharedCache,
    fills: Arc<Semaphore>,
}

/// What the store said.
#[derive(Debug)]
pub(in crate::authenticate) struct Answer {
    pub(in crate::authenticate) found: Found,
    /// As of which change. `None`: the store has no numbers, or it makes no difference.
    pub(in crate::authenticate) as_of: Option<Sequence>,
}

impl From<Answer> for Found {
    fn from(answer: Answer) -> Self {
        answer.found
    }
}

impl Lookups {
    /// The deployment key makes public ids of credentials that have none in the store.
    pub fn new(
        cache: Arc<LocalCache>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        deployment_key: &Secret,
    ) -> Self {
        let ids = hmac::Key::new(hmac::HMAC_SHA256, deployment_key.expose());
        Self { cache, store, clock, metrics: StoreMetrics::default(), ids, sharing: None }
    }

    /// Other replicas are asked before the store, and told what it says.
    #[must_use]
    pub fn sharing(self, cache: Option<SharedCache>) -> Self {
        let fills = Arc::new(Semaphore::new(FILLS_MAX));
        Self { sharing: cache.map(|cache| Sharing { cache, fills }), ..self }
    }

    /// Look-ups are measured by these.
    #[must_use]
    pub fn measured(self, metrics: StoreMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// A public id: 64 bits of a keyed digest, which say nothing of the credential.
    pub(in crate::authenticate) fn id(&self, key: &CredentialKey) -> CredentialId {
        let mut context = hmac::Context::with_key(&self.ids);
        context.update(&[key.family as u8]);
        context.update(&key.digest.0);
        let tag = context.sign();
        // A tag has 32 bytes.
        CredentialId(u64::from_be_bytes(tag.as_ref().first_chunk().copied().unwrap_or_default()))
    }

    /// As [`Self::load`], for what can be confirmed by the store many at once: as it was presented.
    pub(in crate::authenticate) async fn load_presented<A, F>(
        &self,
        key: CredentialKey,
        presented: &Secret,
        stale: Duration,
        ask: A,
    ) -> Result<Loaded, Option<StoreError>>
    where
        A: Fn() -> F + Send + Sync,
        F: Future<Output = Result<Answer, StoreError>> + Send,
    {
        let loaded = self.load(key, stale, ask).await?;
        if matches!(loaded, Loaded::Known(_)) && self.store.leaves_changes_unnamed() {
            self.cache.in_use().note(key, presented, self.clock.monotonic());
        }
        Ok(loaded)
    }

    /// Asks other replicas, then the store, and remembers what they say.
    ///
    /// # Errors
    /// See [`LocalCache::load_shared`].
    pub(in crate::authenticate) async fn load<E, A, F>(
        &self,
        key: CredentialKey,
        stale: Duration,
        ask: A,
    ) -> Result<Loaded, Option<E>>
    where
        E: Outage,
        A: Fn() -> F + Send + Sync,
        F: Future<Output = Result<Answer, E>> + Send,
    {
        let clock = self.clock.as_ref();
        let Some(sharing) = &self.sharing else {
            return self.cache.load(key, clock, stale, ask).await;
        };
        // Had before the store is asked, so that what changes from then on refuses the fill.
        let lease = Mutex::new(None);
        let share = || async {
            let got = sharing.cache.get(&key).await.ok()?;
            *lease.lock() = got.lease;
            let value = got.value?;
            Some(Shared { fact: value.fact, as_of: value.version, read: value.confirmed })
        };
        let ask = || {
            let asked = clock.unix();
            let answer = ask();
            let lease = lease.lock().take();
            async move {
                let answer = answer.await?;
                if let Some(lease) = lease {
                    sharing.fill(key, lease, &answer, asked);
                }
                Ok(answer)
            }
        };
        self.cache.load_shared(key, clock, stale, share, ask).await
    }

    pub(in crate::authenticate) fn now(&self) -> Now {
        Now::read(self.clock.as_ref())
    }
}

impl Sharing {
    /// Tells others, in the background: who asked does not wait for it.
    fn fill(&self, key: CredentialKey, lease: Lease, answer: &Answer, asked: UnixSeconds) {
        let Found::Fact(fact) = &answer.found else { return };
        // Nobody has to be told.
        let Ok(permit) = Arc::clone(&self.fills).try_acquire_owned() else { return };
        let value = SharedValue { version: answer.as_of, confirmed: asked, fact: fact.clone() };
        let cache = self.cache.clone();
        tokio::spawn(async move {
            if let Err(error) = cache.fill(&key, lease, &value).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "an answer was not shared");
            }
            drop(permit);
        });
    }
}
