//! What is slow: the store, the shared cache, and passwords.

use crate::telemetry::metrics::times::Histogram;
use crate::telemetry::metrics::{Times, Word};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: Word,
}

/// Measures calls of the store.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    duration: Times<OperationLabel>,
    errors: Family<OperationLabel, Counter>,
}

impl StoreMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register("doorward_store_duration_seconds", "Calls of the store", new.duration.clone());
        registry.register(
            "doorward_store_errors",
            "Calls of the store that it did not answer",
            new.errors.clone(),
        );
        new
    }

    /// Measures one call.
    ///
    /// # Errors
    /// Those of the call.
    ///
    /// # Cancel safety
    /// A call that is dropped is not counted.
    pub async fn measure<T, E>(
        &self,
        operation: Word,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let began = Instant::now();
        let answer = call.await;
        let label = OperationLabel { operation };
        self.duration.get_or_create_owned(&label).observe(began.elapsed());
        if answer.is_err() {
            self.errors.get_or_create_owned(&label).inc();
        }
        answer
    }
}

/// Measures for nobody: no registry knows of it.
impl Default for StoreMetrics {
    fn default() -> Self {
        Self { duration: Family::default(), errors: Family::default() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: Word,
}

/// Measures calls of the shared cache, and counts what its look-ups find.
#[derive(Debug, Clone, Default)]
pub struct SharedCacheMetrics {
    calls: StoreMetrics,
    found: Family<ResultLabel, Counter>,
}

impl SharedCacheMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register("doorward_shared_cache", "Look-ups in the shared cache", new.found.clone());
        registry.register(
            "doorward_shared_cache_duration_seconds",
            "Calls of the shared cache",
            new.calls.duration.clone(),
        );
        registry.register(
            "doorward_shared_cache_errors",
            "Calls of the shared cache that it did not answer",
            new.calls.errors.clone(),
        );
        new
    }

    /// Measures one call.
    ///
    /// # Errors
    /// Those of the call.
    ///
    /// # Cancel safety
    /// A call that is dropped is not counted.
    pub async fn measure<T, E>(
        &self,
        operation: Word,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.calls.measure(operation, call).await
    }

    /// A look-up found this.
    pub fn found(&self, result: Word) {
        self.found.get_or_create_owned(&ResultLabel { result }).inc();
    }

    /// How often a look-up found this.
    pub fn count(&self, result: Word) -> u64 {
        self.found.get_or_create_owned(&ResultLabel { result }).get()
    }
}

/// Measures the hashing of passwords.
#[derive(Debug, Clone)]
pub struct PasswordMetrics {
    duration: Histogram,
    wait: Histogram,
    waiting: Gauge,
}

impl PasswordMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register("doorward_password_duration_seconds", "Hashing a password", new.duration.clone());
        registry.register(
            "doorward_password_wait_seconds",
            "From a password's arrival to its turn to be hashed",
            new.wait.clone(),
        );
        registry.register(
            "doorward_passwords_waiting",
            "Passwords that wait or are hashed",
            new.waiting.clone(),
        );
        new
    }

    /// A password came; counted until the value is dropped.
    pub fn begin(&self) -> Waiting {
        self.waiting.inc();
        Waiting(self.waiting.clone())
    }

    /// A password was hashed.
    pub fn hashed(&self, wait: Duration, time: Duration) {
        self.wait.observe(wait);
        self.duration.observe(time);
    }
}

/// Measures for nobody: no registry knows of it.
impl Default for PasswordMetrics {
    fn default() -> Self {
        Self { duration: Histogram::default(), wait: Histogram::default(), waiting: Gauge::default() }
    }
}

/// A password that waits or is hashed, until this is dropped.
#[derive(Debug)]
pub struct Waiting(Gauge);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}
