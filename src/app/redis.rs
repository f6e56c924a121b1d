//! From the configuration of Redis to what its adapter takes.

use crate::app::{AppError, plan};
use crate::cache::redis::{Login, Node, Settings, Topology, Trust};
use crate::config::{Redis, RedisAddress, RedisLogin, RedisServers};
use rustls::ClientConfig;
use std::sync::Arc;

/// Everything that the adapter needs to know. Blocks: it reads trust anchors.
///
/// # Errors
/// If they cannot be read.
pub fn settings(redis: &Redis) -> Result<Settings, AppError> {
    let topology = match &redis.servers {
        RedisServers::Single(address) => Topology::Single(node(address)),
        RedisServers::Sentinel { sentinels, service, login: ours } => Topology::Sentinel {
            sentinels: sentinels.iter().map(node).collect(),
            service: service.clone(),
            login: login(ours),
        },
        RedisServers::Cluster(nodes) => Topology::Cluster(nodes.iter().map(node).collect()),
    };
    Ok(Settings {
        topology,
        login: login(&redis.login),
        database: redis.database,
        tls: if redis.tls { Some(trust(redis).map_err(AppError::Redis)?) } else { None },
        prefix: redis.prefix.clone(),
        value_ttl: redis.value_ttl,
        timeout: redis.timeout,
    })
}

fn trust(redis: &Redis) -> Result<Trust, Box<dyn std::error::Error + Send + Sync>> {
    let trust = plan::trust(redis.ca.as_deref())?;
    let mut config = ClientConfig::clone(&trust.config);
    // That is for upstreams.
    config.alpn_protocols.clear();
    let anchors_pem = redis.ca.as_deref().map(std::fs::read).transpose()?;
    Ok(Trust { config: Arc::new(config), anchors_pem })
}

fn node((host, port): &RedisAddress) -> Node {
    Node { host: host.clone(), port: *port }
}

fn login(login: &RedisLogin) -> Login {
    Login { user: login.user.clone(), password: login.password.clone() }
}
