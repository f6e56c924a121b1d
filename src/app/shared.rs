//! Opens what replicas share besides the store, as the configuration says.

use crate::app::{AppError, deployment, redis};
use crate::cache::redis::SharedCache;
use crate::clock::Clock;
use crate::config::{Config, Layout, StoreUrl};
use crate::telemetry::metrics::SharedCacheMetrics;
use std::sync::Arc;

/// Opens it, if there is to be one. Redis need not be there. Must be called on a runtime, which connects.
pub(in crate::app) fn open(
    config: &Config,
    clock: &Arc<dyn Clock>,
    metrics: &SharedCacheMetrics,
) -> Result<Option<SharedCache>, AppError> {
    let Some(settings) = config.redis.as_ref().map(redis::settings).transpose()? else { return Ok(None) };
    let key = deployment::key(&config.deployment.key)?;
    let identity = identity(config);
    let shared = SharedCache::new(settings, &key, identity.as_bytes(), Arc::clone(clock), metrics.clone());
    shared.map(Some).map_err(|error| AppError::Redis(Box::new(error)))
}

/// What tells this store from another one with the same deployment key. Not the server: replicas may know it by
/// different names.
fn identity(config: &Config) -> String {
    let of = |url: &StoreUrl| match url {
        StoreUrl::Sqlite(path) => format!("sqlite:{}", path.display()),
        StoreUrl::Server(server) => server.database().to_owned(),
    };
    match &config.store.layout {
        Layout::Doorward => format!("doorward {}", of(&config.store.url)),
        Layout::Django(_) => format!("django {}", of(&config.store.url)),
    }
}
