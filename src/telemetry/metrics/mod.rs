//! What is counted and measured, as Prometheus and `OpenMetrics` name it.
//!
//! Labels come from bounded sets only: names of the configuration, and words of this program. Never a user, a path or
//! an address of a client. Whoever counts on the path of every request keeps the handle of its series: finding it by
//! labels takes ten times as long as counting.

mod connections;
mod requests;
mod resources;
mod revocations;
mod state;
mod times;

pub use crate::telemetry::metrics::connections::{ConnectionMetrics, Handshake};
pub use crate::telemetry::metrics::requests::{RequestMetrics, RouteMetrics};
pub use crate::telemetry::metrics::resources::{PasswordMetrics, SharedCacheMetrics, StoreMetrics};
pub use crate::telemetry::metrics::revocations::{RevocationMetrics, Revocations};
pub use crate::telemetry::metrics::state::{Pool, State, Table, Uptime};

use crate::telemetry::metrics::times::Histogram;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The media type of [`Metrics::text`] (`OpenMetrics` 1.0, section "Media Type").
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Times by labels.
type Times<L> = Family<L, Histogram>;

/// A word of this program.
type Word = &'static str;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: Word,
}

/// Everything that is counted in a process; shared by all its parts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests that have ended.
    pub requests: RequestMetrics,
    /// Connections of clients.
    pub connections: ConnectionMetrics,
    /// Calls of the store.
    pub store: StoreMetrics,
    /// Calls of the shared cache.
    pub shared_cache: SharedCacheMetrics,
    /// Revocations that are measured.
    pub revocations: RevocationMetrics,
    /// Passwords checked and hashed.
    pub passwords: PasswordMetrics,
    /// How things stand when somebody asks.
    pub state: State,
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        Self {
            requests: RequestMetrics::new(&mut registry),
            connections: ConnectionMetrics::new(&mut registry),
            store: StoreMetrics::new(&mut registry),
            shared_cache: SharedCacheMetrics::new(&mut registry),
            revocations: RevocationMetrics::new(&mut registry),
            passwords: PasswordMetrics::new(&mut registry),
            state: State::new(&mut registry),
            registry,
        }
    }

    /// All of it, as [`MEDIA_TYPE`]. Whoever asks has [`Metrics::state`] brought up to date before.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            // Writing to a string does not fail.
            Err(std::fmt::Error) => String::new(),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
