//! Where Redis is and how it is spoken to; the composition root makes this of the configuration.

use crate::secret::Secret;
use rustls::ClientConfig;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// Name or address; IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Which servers there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// One.
    Single(Node),
    /// One that sentinels name.
    Sentinel {
        /// They are asked in this order.
        sentinels: Vec<Node>,
        /// What they call it.
        service: String,
        /// What the sentinels themselves want.
        login: Login,
    },
    /// Those of a Cluster; some of them are enough.
    Cluster(Vec<Node>),
}

/// Who we are to a server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Login {
    /// The ACL user. `None`: Redis' `default`.
    pub user: Option<String>,
    /// `None`: none is sent.
    pub password: Option<Secret>,
}

/// TLS towards all servers.
#[derive(Debug, Clone)]
pub struct Trust {
    /// For connections that are opened here.
    pub config: Arc<ClientConfig>,
    /// Trust anchors (PEM) that stand in for the system's, for those that the library opens to nodes of a Cluster.
    pub anchors_pem: Option<Vec<u8>>,
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which servers.
    pub topology: Topology,
    /// Who we are.
    pub login: Login,
    /// The database; a Cluster has 0 alone.
    pub database: u32,
    /// `None`: in clear.
    pub tls: Option<Trust>,
    /// Begins every name.
    pub prefix: String,
    /// The longest that a value is believed after SQL confirmed it.
    pub value_ttl: Duration,
    /// The longest that an answer is waited for.
    pub timeout: Duration,
}
