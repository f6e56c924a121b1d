//! How things stand: values that are read when somebody asks, from whoever has them.

use crate::telemetry::metrics::Word;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TableLabel {
    table: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabel {
    part: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabel {
    certificate: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabels {
    upstream: String,
    server: String,
}

/// A table in memory that is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Table {
    /// Entries.
    pub entries: u64,
    /// Bytes, as the bound counts them.
    pub bytes: u64,
    /// The bound.
    pub bytes_max: u64,
    /// Entries that had to go for others since the start.
    pub evicted: u64,
}

/// The connections of one server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pool {
    /// The upstream's name.
    pub upstream: String,
    /// The server's address, as configured.
    pub server: String,
    /// Exchanges under way.
    pub in_flight: u64,
    /// Connections kept for the next exchange.
    pub idle: u64,
    /// Requests that wait for a connection.
    pub waiting: u64,
    /// Whether others are preferred, since it could not be connected to a moment ago.
    pub is_avoided: bool,
}

/// What the process takes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Uptime {
    /// Its start, in seconds since 1970.
    pub started: i64,
    /// CPU time, in seconds.
    pub cpu: f64,
    /// Bytes in memory.
    pub resident: u64,
    /// Descriptors open.
    pub descriptors: u64,
}

/// Values of the moment.
#[derive(Debug, Default)]
pub struct State {
    ready: Gauge,
    degraded: Family<PartLabel, Gauge>,
    entries: Family<TableLabel, Gauge>,
    bytes: Family<TableLabel, Gauge>,
    bytes_max: Family<TableLabel, Gauge>,
    evicted: Family<TableLabel, Counter>,
    in_flight: Family<ServerLabels, Gauge>,
    idle: Family<ServerLabels, Gauge>,
    waiting: Family<ServerLabels, Gauge>,
    avoided: Family<ServerLabels, Gauge>,
    expiry: Family<CertificateLabel, Gauge>,
    reload_success: Gauge,
    reload_time: Gauge,
    certificates_success: Gauge,
    log_dropped: Counter,
    started: Gauge,
    cpu: Counter<f64, AtomicU64>,
    resident: Gauge,
    descriptors: Gauge,
}

impl State {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("doorward_build", "The program", Info::new(version));
        registry.register(
            "doorward_ready",
            "1: requests are served; 0: starting, or stopping",
            new.ready.clone(),
        );
        registry.register(
            "doorward_degraded",
            "1: this part does not do its work; requests are served as far as they can be",
            new.degraded.clone(),
        );
        new.register_tables(registry);
        new.register_upstreams(registry);
        new.register_files(registry);
        registry.register(
            "doorward_log_lines_dropped",
            "Lines that the log's reader was too slow for",
            new.log_dropped.clone(),
        );
        // The names that client libraries of Prometheus have for every process.
        registry.register("process_start_time_seconds", "Since 1970", new.started.clone());
        registry.register("process_cpu_seconds", "CPU time, of users and of the system", new.cpu.clone());
        registry.register("process_resident_memory_bytes", "Bytes in memory", new.resident.clone());
        registry.register("process_open_fds", "Descriptors open", new.descriptors.clone());
        new
    }

    fn register_tables(&self, registry: &mut Registry) {
        registry.register(
            "doorward_table_entries",
            "Entries of the local cache (known, unknown) and of counters (throttles, guards)",
            self.entries.clone(),
        );
        registry.register("doorward_table_bytes", "Bytes of these tables", self.bytes.clone());
        registry.register("doorward_table_capacity_bytes", "Their bounds", self.bytes_max.clone());
        registry.register(
            "doorward_table_evictions",
            "Entries that had to go for others",
            self.evicted.clone(),
        );
    }

    fn register_upstreams(&self, registry: &mut Registry) {
        registry.register("doorward_upstream_in_flight", "Exchanges under way", self.in_flight.clone());
        registry.register(
            "doorward_upstream_idle_connections",
            "Connections kept for the next exchange",
            self.idle.clone(),
        );
        registry.register(
            "doorward_upstream_waiting",
            "Requests that wait for a connection",
            self.waiting.clone(),
        );
        registry.register(
            "doorward_upstream_avoided",
            "1: the server could not be connected to a moment ago",
            self.avoided.clone(),
        );
    }

    fn register_files(&self, registry: &mut Registry) {
        registry.register(
            "doorward_certificate_expiry_timestamp_seconds",
            "When the certificate in use ends, since 1970",
            self.expiry.clone(),
        );
        registry.register(
            "doorward_config_last_reload_success",
            "1: the configuration in place is the file's; 0: the last one was refused",
            self.reload_success.clone(),
        );
        registry.register(
            "doorward_config_last_reload_timestamp_seconds",
            "When a configuration was last put in place, since 1970",
            self.reload_time.clone(),
        );
        registry.register(
            "doorward_certificates_last_reload_success",
            "1: the certificates in use are the files'; 0: the last ones were refused",
            self.certificates_success.clone(),
        );
    }

    /// Whether requests are served.
    pub fn ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    /// Whether a part does not do its work.
    pub fn degraded(&self, part: Word, degraded: bool) {
        self.degraded.get_or_create_owned(&PartLabel { part }).set(i64::from(degraded));
    }

    /// How full a table is.
    pub fn table(&self, name: Word, table: Table) {
        let label = TableLabel { table: name };
        self.entries.get_or_create_owned(&label).set(signed(table.entries));
        self.bytes.get_or_create_owned(&label).set(signed(table.bytes));
        self.bytes_max.get_or_create_owned(&label).set(signed(table.bytes_max));
        self.evicted.get_or_create_owned(&label).inner().store(table.evicted, Ordering::Relaxed);
    }

    /// The servers that there are.
    pub fn pools(&self, pools: &[Pool]) {
        for family in [&self.in_flight, &self.idle, &self.waiting, &self.avoided] {
            family.clear();
        }
        for pool in pools {
            let label = ServerLabels { upstream: pool.upstream.clone(), server: pool.server.clone() };
            // The file may name a server twice.
            self.in_flight.get_or_create_owned(&label).inc_by(signed(pool.in_flight));
            self.idle.get_or_create_owned(&label).inc_by(signed(pool.idle));
            self.waiting.get_or_create_owned(&label).inc_by(signed(pool.waiting));
            self.avoided.get_or_create_owned(&label).set(i64::from(pool.is_avoided));
        }
    }

    /// The certificates in use: name, and end in seconds since 1970.
    pub fn certificates<'a>(&self, certificates: impl IntoIterator<Item = (&'a str, i64)>) {
        self.expiry.clear();
        for (name, end) in certificates {
            self.expiry.get_or_create_owned(&CertificateLabel { certificate: name.to_owned() }).set(end);
        }
    }

    /// What became of the last reload, and when one last succeeded, in seconds since 1970.
    pub fn reload(&self, is_success: bool, last_success: i64) {
        self.reload_success.set(i64::from(is_success));
        self.reload_time.set(last_success);
    }

    /// What became of the last reading of certificates.
    pub fn certificates_reload(&self, is_success: bool) {
        self.certificates_success.set(i64::from(is_success));
    }

    /// Lines of the log that were dropped since the start.
    pub fn log_dropped(&self, lines: u64) {
        self.log_dropped.inner().store(lines, Ordering::Relaxed);
    }

    /// What the process takes.
    pub fn process(&self, uptime: Uptime) {
        self.started.set(uptime.started);
        self.cpu.inner().store(uptime.cpu.to_bits(), Ordering::Relaxed);
        self.resident.set(signed(uptime.resident));
        self.descriptors.set(signed(uptime.descriptors));
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
