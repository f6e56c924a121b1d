//! Connections of clients and their TLS handshakes.

use crate::telemetry::metrics::times::Histogram;
use crate::telemetry::metrics::{ReasonLabel, Word};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabel {
    listener: Word,
}

/// What a handshake came to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Handshake {
    /// `TLSv1_3`
    pub version: Word,
    /// `full` or `resumed`
    pub kind: Word,
    /// `h2` or `http/1.1`
    pub protocol: Word,
}

/// Counts connections.
#[derive(Debug, Clone)]
pub struct ConnectionMetrics {
    open: Family<ListenerLabel, Gauge>,
    accepted: Family<ListenerLabel, Counter>,
    refused: Family<ReasonLabel, Counter>,
    failures: Counter,
    handshakes: Family<Handshake, Counter>,
    handshake_duration: Histogram,
}

/// A connection that is open until this is dropped.
#[derive(Debug)]
pub struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl ConnectionMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register("doorward_connections", "Connections that are open", new.open.clone());
        registry.register("doorward_connections_accepted", "Connections accepted", new.accepted.clone());
        registry.register(
            "doorward_connections_refused",
            "Connections that were not taken or were ended for what came, or did not come, over them",
            new.refused.clone(),
        );
        registry.register(
            "doorward_accept_failures",
            "Connections that could not be accepted (no descriptors left)",
            new.failures.clone(),
        );
        registry.register("doorward_tls_handshakes", "TLS handshakes completed", new.handshakes.clone());
        registry.register(
            "doorward_tls_handshake_duration_seconds",
            "From the connection to the end of its TLS handshake",
            new.handshake_duration.clone(),
        );
        new
    }

    /// A connection begins.
    pub fn begin(&self, listener: Word) -> Open {
        let label = ListenerLabel { listener };
        self.accepted.get_or_create_owned(&label).inc();
        let open = self.open.get_or_create_owned(&label);
        open.inc();
        Open(open)
    }

    /// A connection was refused or ended, for this reason.
    pub fn refused(&self, reason: Word) {
        self.refused.get_or_create_owned(&ReasonLabel { reason }).inc();
    }

    /// A connection could not be accepted.
    pub fn failed(&self) {
        self.failures.inc();
    }

    /// A handshake is complete, after so long.
    pub fn shaken(&self, handshake: &Handshake, time: Duration) {
        self.handshakes.get_or_create_owned(handshake).inc();
        self.handshake_duration.observe(time);
    }
}

/// Counts for nobody: no registry knows of it.
impl Default for ConnectionMetrics {
    fn default() -> Self {
        Self {
            open: Family::default(),
            accepted: Family::default(),
            refused: Family::default(),
            failures: Counter::default(),
            handshakes: Family::default(),
            handshake_duration: Histogram::default(),
        }
    }
}
