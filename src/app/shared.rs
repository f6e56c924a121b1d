//! Opens what replicas share besides the store, as the configuration says.

use crate::app::AppError;
use crate::app::{deployment, plan};
use crate::cache::redis::{Login, Node, Settings, SharedCache, Topology, Trust};
use crate::clock::Clock;
use crate::config::{Config, Layout, Redis, RedisAddress, RedisLogin, RedisServers, StoreUrl};
use crate::telemetry::metrics::SharedCacheMetrics;
use std::sync::Arc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Opens it, if there is to be one. Redis need not be there. Must be called on a runtime, which connects.
pub(in crate::app) fn open(
    config: &Config,
    clock: &Arc<dyn Clock>,
    metrics: &SharedCacheMetrics,
) -> Result<Option<SharedCache>, AppError> {
    let Some(redis) = &config.redis else { return Ok(None) };
    let key = deployment::key(&config.deployment.key)?;
    let settings = settings(redis).map_err(AppError::Redis)?;
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

/// What the adapter takes. Blocks: it reads trust anchors.
///
/// # Errors
/// If they cannot be read.
pub fn settings(redis: &Redis) -> Result<Settings, Failure> {
    let nodes = |addresses: &[RedisAddress]| addresses.iter().map(node).collect();
    let topology = match &redis.servers {
        RedisServers::Single(address) => Topology::Single(node(address)),
        RedisServers::Sentinel { sentinels, service, login: sentinel } => Topology::Sentinel {
            sentinels: nodes(sentinels),
            service: service.clone(),
            login: login(sentinel),
        },
        RedisServers::Cluster(addresses) => Topology::Cluster(nodes(addresses)),
    };
    Ok(Settings {
        topology,
        login: login(&redis.login),
        database: redis.database,
        tls: redis.tls.then(|| trust(redis)).transpose()?,
        prefix: redis.prefix.clone(),
        value_ttl: redis.value_ttl,
        timeout: redis.timeout,
    })
}

fn node((host, port): &RedisAddress) -> Node {
    Node { host: host.clone(), port: *port }
}

fn login(login: &RedisLogin) -> Login {
    Login { user: login.user.clone(), password: login.password.clone() }
}

fn trust(redis: &Redis) -> Result<Trust, Failure> {
    let mut config = (*plan::trust(redis.ca.as_deref())?.config).clone();
    // That is about HTTP.
    config.alpn_protocols.clear();
    let anchors_pem = redis.ca.as_ref().map(std::fs::read).transpose()?;
    Ok(Trust { config: Arc::new(config), anchors_pem })
}
