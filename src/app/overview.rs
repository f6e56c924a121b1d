//! Gathers what the admin listener tells, from all parts.

use crate::admin::{Answers, Readiness};
use crate::app::health::{Health, Part};
use crate::app::status::{self, Status};
use crate::app::usage::usage;
use crate::app::{Backing, Reloader};
use crate::cache::local;
use crate::telemetry::dropped_lines;
use crate::telemetry::metrics::{MEDIA_TYPE, Metrics, Pool, Revocations, Table};
use crate::throttle::counters;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What a gateway has once it serves.
#[derive(Debug)]
pub(in crate::app) struct Sources {
    pub(in crate::app) https: Vec<SocketAddr>,
    pub(in crate::app) http: Vec<SocketAddr>,
    pub(in crate::app) store: String,
    pub(in crate::app) backing: Backing,
    pub(in crate::app) reloader: Arc<Reloader>,
}

/// There from the first moment; the sources come when they are there.
#[derive(Debug)]
pub(in crate::app) struct Overview {
    pub(in crate::app) metrics: Arc<Metrics>,
    pub(in crate::app) health: Arc<Health>,
    pub(in crate::app) sources: OnceLock<Sources>,
    /// One at a time: who asks meanwhile must not see half of what is brought up to date.
    pub(in crate::app) scraping: Mutex<()>,
}

impl Overview {
    /// Brings the values that are read at need up to date.
    fn refresh(&self) {
        let (state, health) = (&self.metrics.state, &self.health);
        state.ready(health.is_ready());
        for part in Part::ALL {
            state.degraded(part.name(), health.is_degraded(part));
        }
        state.reload(!health.is_degraded(Part::Configuration), health.last_configured().0);
        state.certificates_reload(!health.is_degraded(Part::Certificates));
        state.log_dropped(dropped_lines());
        state.process(usage(health.started()));
        let Some(sources) = self.sources.get() else { return };
        for (name, table) in tables(sources) {
            state.table(name, table);
        }
        state.pools(&sources.reloader.pools());
        let certificates = sources.reloader.certificates();
        state.certificates(certificates.iter().map(|facts| (&*facts.file, facts.ends)));
    }
}

impl Answers for Overview {
    fn readiness(&self) -> Readiness {
        let (is_ready, status) = (self.health.is_ready(), self.health.phase());
        Readiness { status, is_ready, degraded: self.health.degraded() }
    }

    fn metrics(&self) -> (&'static str, String) {
        let _one = self.scraping.lock();
        self.refresh();
        (MEDIA_TYPE, self.metrics.text())
    }

    fn status(&self) -> String {
        let health = &self.health;
        let status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            status: health.phase().to_owned(),
            degraded: health.degraded().into_iter().map(str::to_owned).collect(),
            started: health.started().0,
            configured: health.last_configured().0,
            resident_bytes: usage(health.started()).resident,
            serving: self.sources.get().map(|sources| serving(sources, &self.metrics)),
        };
        // Numbers and strings are always JSON.
        serde_json::to_string(&status).unwrap_or_default()
    }
}

fn serving(sources: &Sources, metrics: &Metrics) -> status::Serving {
    let text = |addresses: &[SocketAddr]| addresses.iter().map(SocketAddr::to_string).collect();
    let reloader = &sources.reloader;
    let certificate = |facts: &crate::accept::tls::Facts| status::Certificate {
        file: facts.file.clone(),
        ends: facts.ends,
    };
    status::Serving {
        https: text(&sources.https),
        http: text(&sources.http),
        connections: u64::try_from(reloader.open_connections()).unwrap_or(u64::MAX),
        certificates: reloader.certificates().iter().map(certificate).collect(),
        store: sources.store.clone(),
        revocation: revocation(sources, metrics),
        routes: reloader.routes(),
        servers: reloader.pools().into_iter().map(server).collect(),
        tables: tables(sources).map(table).to_vec(),
    }
}

fn revocation(sources: &Sources, metrics: &Metrics) -> status::Revocation {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let Revocations { last, late, replicas } = metrics.revocations.told();
    let bound = sources.backing.cache.trust().bound();
    let found_by = sources.backing.found_by();
    status::Revocation { found_by, last: last.map(milliseconds), bound: milliseconds(bound), late, replicas }
}

fn server(pool: Pool) -> status::Server {
    let Pool { upstream, server: address, in_flight, idle, waiting, is_avoided: avoided } = pool;
    status::Server { upstream, address, in_flight, idle, waiting, avoided }
}

fn table((name, table): (&'static str, Table)) -> status::Table {
    let Table { entries, bytes, bytes_max, evicted } = table;
    status::Table { name: name.to_owned(), entries, bytes, bytes_max, evicted }
}

fn tables(sources: &Sources) -> [(&'static str, Table); 4] {
    let (known, unknown) = sources.backing.cache.usage();
    let (throttles, guards) = sources.reloader.counters();
    [
        ("known", cached(known)),
        ("unknown", cached(unknown)),
        ("throttles", counted(throttles)),
        ("guards", counted(guards)),
    ]
}

fn cached(usage: local::Usage) -> Table {
    let local::Usage { entries, bytes, bytes_max, evicted } = usage;
    Table { entries, bytes, bytes_max, evicted }
}

fn counted(usage: counters::Usage) -> Table {
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    Table {
        entries: number(usage.entries),
        bytes: number(usage.bytes),
        bytes_max: number(usage.bytes_max),
        evicted: usage.evicted,
    }
}
