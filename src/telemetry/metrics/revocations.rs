//! How long it takes until what was revoked is void everywhere: measured all the time, by credentials that nobody has.

use crate::telemetry::metrics::times::Histogram;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What was measured, and what was promised.
#[derive(Debug, Clone, Default)]
pub struct RevocationMetrics {
    seconds: Histogram,
    late: Counter,
    bound: Gauge<f64, AtomicU64>,
    replicas: Gauge,
    last: Arc<AtomicU64>,
}

/// What people are told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Revocations {
    /// The last one that was measured. `None`: none was.
    pub last: Option<Duration>,
    /// How many took longer than the bound.
    pub late: u64,
    /// Replicas that are there, this one included.
    pub replicas: u64,
}

impl RevocationMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register(
            "doorward_revocation_seconds",
            "From asking for a revocation until every replica has said that it is done; without Redis, until \
             it was read from the store",
            new.seconds.clone(),
        );
        registry.register(
            "doorward_revocations_late",
            "Measured revocations that some replica had not done within the bound",
            new.late.clone(),
        );
        registry.register(
            "doorward_revocation_bound_seconds",
            "The bound: revocation_bound in [cache]",
            new.bound.clone(),
        );
        registry.register(
            "doorward_replicas",
            "Replicas heard of in the last seconds, this one included",
            new.replicas.clone(),
        );
        new
    }

    /// What is promised.
    pub fn bound(&self, bound: Duration) {
        self.bound.set(bound.as_secs_f64());
    }

    /// How many there are, this one included.
    pub fn replicas(&self, count: usize) {
        self.replicas.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// One took so long.
    pub fn took(&self, time: Duration) {
        self.seconds.observe(time);
        self.last.store(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// One took longer than was promised.
    pub fn late(&self) {
        self.late.inc();
    }

    /// What people are told.
    pub fn told(&self) -> Revocations {
        let last = self.last.load(Ordering::Relaxed);
        Revocations {
            last: (last > 0).then(|| Duration::from_nanos(last)),
            late: self.late.get(),
            replicas: u64::try_from(self.replicas.get()).unwrap_or(0).max(1),
        }
    }
}
