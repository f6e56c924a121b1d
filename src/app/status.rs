//! How a running gateway stands: told over the unix socket, read by `doorward status`.

use serde::{Deserialize, Serialize};

/// Everything that is told. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// Of the process.
    pub pid: u32,
    /// `starting`, `ready` or `draining`.
    pub status: String,
    /// Parts that do not do their work.
    pub degraded: Vec<String>,
    /// When the process started.
    pub started: i64,
    /// When the configuration in place was put there.
    pub configured: i64,
    /// Bytes in memory.
    pub resident_bytes: u64,
    /// What there is to tell once it serves.
    pub serving: Option<Serving>,
}

/// What a gateway that serves has to tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Serving {
    /// Addresses for HTTPS.
    pub https: Vec<String>,
    /// Addresses for HTTP in clear.
    pub http: Vec<String>,
    /// Connections of clients that are open.
    pub connections: u64,
    /// Certificates in use.
    pub certificates: Vec<Certificate>,
    /// Where users and tokens are.
    pub store: String,
    /// How soon what is revoked is void everywhere.
    pub revocation: Revocation,
    /// The routes, in the order of the configuration.
    pub routes: Vec<Route>,
    /// The servers of the upstreams.
    pub servers: Vec<Server>,
    /// Bounded tables in memory.
    pub tables: Vec<Table>,
}

/// How soon what is revoked is void on all replicas. Times are milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revocation {
    /// By what means it is found what other processes changed.
    pub found_by: String,
    /// The last measurement. `None`: there was none yet.
    pub last: Option<f64>,
    /// The bound.
    pub bound: f64,
    /// Measurements that were over the bound, since the start.
    pub late: u64,
    /// Replicas that are there, this one included.
    pub replicas: u64,
}

/// A certificate in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Its file.
    pub file: String,
    /// When it ends.
    pub ends: i64,
}

/// A route, and its requests that have ended since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// Served as they should be.
    pub passed: u64,
    /// Refused.
    pub refused: u64,
    /// Failed on our side or behind us.
    pub failed: u64,
    /// Whose client went away.
    pub gone: u64,
}

/// A server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// The upstream's name.
    pub upstream: String,
    /// As configured.
    pub address: String,
    /// Exchanges under way.
    pub in_flight: u64,
    /// Connections kept for the next exchange.
    pub idle: u64,
    /// Requests that wait for a connection.
    pub waiting: u64,
    /// It could not be connected to a moment ago.
    pub avoided: bool,
}

/// A bounded table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Entries.
    pub entries: u64,
    /// Bytes.
    pub bytes: u64,
    /// Its bound.
    pub bytes_max: u64,
    /// Entries that had to go for others since the start.
    pub evicted: u64,
}
