//! What every scheme looks credentials up with: first the cache, then the store. Shared by all instances.

use crate::cache::local::{CredentialKey, LocalCache, Now};
use crate::clock::Clock;
use crate::identity::CredentialId;
use crate::secret::Secret;
use crate::store::Store;
use crate::telemetry::metrics::StoreMetrics;
use aws_lc_rs::hmac;
use std::sync::Arc;

/// The cache, the store, and what is needed beside them.
#[derive(Debug)]
pub struct Lookups {
    pub(in crate::authenticate) cache: Arc<LocalCache>,
    pub(in crate::authenticate) store: Arc<dyn Store>,
    pub(in crate::authenticate) clock: Arc<dyn Clock>,
    pub(in crate::authenticate) metrics: StoreMetrics,
    /// Names credentials that have no public id in the store.
    ids: hmac::Key,
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
        Self { cache, store, clock, metrics: StoreMetrics::default(), ids }
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

    pub(in crate::authenticate) fn now(&self) -> Now {
        Now::read(self.clock.as_ref())
    }
}
