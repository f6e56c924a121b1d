//! Another configuration while requests are served: built aside, then put in place all at once, or not at all.
//!
//! Each request is answered by the plan that it found when it came. What was counted, remembered and connected goes
//! on: throttles by their names, the servers of upstreams by name and address, the caches, the guards. What only a start
//! can change is named.

use crate::accept::connection::{Connections, Serving};
use crate::accept::limits::ConnectionLimits;
use crate::accept::tls::{self, Facts, Tickets, TlsError};
use crate::app::health::{Health, Part};
use crate::app::plan::{self, Limiting, Tables};
use crate::app::stamp::Stamp;
use crate::app::status;
use crate::app::{
    AppError, Backing, GatewayService, Options, bounds, certificates, connection_settings, token_policy,
};
use crate::config::{CertificateFiles, Config, Listen, Traces};
use crate::forward::upstream::Upstream;
use crate::gateway::Plan;
use crate::secret::Secret;
use crate::telemetry::metrics::{Metrics, Pool};
use crate::throttle::counters::Usage;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Why the old configuration stays.
#[derive(Debug, thiserror::Error)]
#[error("the old configuration stays")]
pub struct ReloadError(#[from] AppError);

/// What every configuration of the process has in common.
#[derive(Debug)]
pub(in crate::app) struct Kept {
    pub(in crate::app) options: Options,
    pub(in crate::app) backing: Backing,
    pub(in crate::app) slow: Handle,
    pub(in crate::app) background: TaskTracker,
    pub(in crate::app) https_port: u16,
    pub(in crate::app) deployment_key: Secret,
    pub(in crate::app) limits: Arc<ConnectionLimits>,
    pub(in crate::app) tickets: Tickets,
    pub(in crate::app) stop: CancellationToken,
    pub(in crate::app) metrics: Arc<Metrics>,
    pub(in crate::app) health: Arc<Health>,
    pub(in crate::app) exports_spans: bool,
}

/// Holds the plan that is in place, and replaces it.
#[derive(Debug)]
pub struct Reloader {
    kept: Kept,
    connections: Arc<Connections<GatewayService>>,
    /// Those of the plan; swept by the cores.
    upstreams: ArcSwap<Vec<Arc<Upstream>>>,
    /// Of the certificates in use.
    certificates: ArcSwap<Vec<Facts>>,
    /// What the plan was made of; locked while another one is made, so that two are never mixed.
    current: Mutex<Current>,
    /// Counts requests in every plan; apart, since whoever asks how full they are must not wait for files.
    tables: Tables,
}

#[derive(Debug)]
struct Current {
    config: Config,
    limiting: Limiting,
}

impl Reloader {
    /// With the first plan in place.
    ///
    /// # Errors
    /// If anything that the configuration names cannot be used.
    pub(in crate::app) fn new(
        kept: Kept,
        config: &Config,
        limiting: Limiting,
    ) -> Result<Arc<Self>, AppError> {
        let upstreams = plan::upstreams(config, config.listen.workers.get(), &[])?;
        let serving = serving(&kept, config, &upstreams, &limiting)?;
        let connections = Arc::new(Connections {
            serving: ArcSwap::from_pointee(serving),
            metrics: kept.metrics.connections.clone(),
            clock: Arc::clone(&kept.options.clock),
            stop: kept.stop.clone(),
        });
        keep_metrics(&kept.metrics, config);
        let certificates = tls::facts(&certificates(config)?);
        // A gateway that starts with it tells of it; one that does not tells nobody anything.
        for error in certificates.iter().filter_map(|facts| facts.good_at(kept.options.clock.unix()).err()) {
            tracing::warn!(error = &error as &dyn std::error::Error, "clients will refuse a certificate");
        }
        Ok(Arc::new(Self {
            kept,
            certificates: ArcSwap::from_pointee(certificates),
            connections,
            upstreams: ArcSwap::from_pointee(upstreams),
            tables: limiting.tables(),
            current: Mutex::new(Current { config: config.clone(), limiting }),
        }))
    }

    /// Puts another configuration in place. Yields the keys whose change needs a restart; they keep their old meaning.
    ///
    /// Blocks: it reads certificates.
    ///
    /// # Errors
    /// If anything that the configuration names cannot be used; everything stays as it was then.
    pub fn reload(&self, config: &Config) -> Result<Vec<&'static str>, ReloadError> {
        let reloaded = self.configure(config);
        if reloaded.is_err() {
            // A plan that came to nothing leaves no series.
            keep_metrics(&self.kept.metrics, &self.current.lock().config);
        }
        self.kept.health.configured(reloaded.is_ok());
        reloaded
    }

    /// Notes that there was a configuration which cannot be used.
    pub fn refused(&self) {
        self.kept.health.configured(false);
    }

    /// Notes whether the log's file could be opened anew.
    pub fn log_works(&self, works: bool) {
        self.kept.health.works(Part::Log, works);
    }

    fn configure(&self, config: &Config) -> Result<Vec<&'static str>, ReloadError> {
        let mut current = self.current.lock();
        let restart = needs_restart(&current.config, config);
        let config = &merged(&current.config, config);
        // Cores are made once.
        let workers = config.listen.workers.get();
        let upstreams = plan::upstreams(config, workers, &self.upstreams.load())?;
        let limiting = current.limiting.with(config, &self.kept.slow);
        let certificates =
            certificates(config).and_then(|files| self.replacing(&files)).map_err(AppError::from)?;
        let serving = serving(&self.kept, config, &upstreams, &limiting)?;
        // Nothing fails from here on.
        self.kept.limits.set(bounds(config));
        self.kept.backing.credentials.set_policy(token_policy(config));
        self.replace(upstreams, serving);
        self.certificates.store(Arc::new(certificates));
        self.kept.health.works(Part::Certificates, true);
        self.kept.health.works(Part::Anchors, true);
        keep_metrics(&self.kept.metrics, config);
        *current = Current { config: config.clone(), limiting };
        Ok(restart)
    }

    /// Reads the certificates anew and puts them in place.
    ///
    /// Blocks: it reads files.
    ///
    /// # Errors
    /// If they cannot be used; the old ones stay then.
    pub(in crate::app) fn reload_certificates(&self) -> Result<(), TlsError> {
        let reloaded = self.replace_certificates();
        self.kept.health.works(Part::Certificates, reloaded.is_ok());
        reloaded
    }

    fn replace_certificates(&self) -> Result<(), TlsError> {
        let current = self.current.lock();
        let files = certificates(&current.config)?;
        let facts = self.replacing(&files)?;
        let tls = tls::server_config(&current.config.tls, &files, &self.kept.tickets)?;
        self.certificates.store(Arc::new(facts));
        let old = self.connections.serving.load();
        let (service, settings) = (Arc::clone(&old.service), Arc::clone(&old.settings));
        self.connections.serving.store(Arc::new(Serving { tls, service, settings }));
        Ok(())
    }

    /// What is known of certificates that may take the place of those in use.
    fn replacing(&self, files: &[CertificateFiles]) -> Result<Vec<Facts>, TlsError> {
        let facts = tls::facts(files);
        tls::replaceable(&facts, &self.certificates.load(), self.kept.options.clock.unix())?;
        Ok(facts)
    }

    /// Reads the trust anchors of upstreams anew and puts them in place.
    ///
    /// Blocks: it reads files.
    ///
    /// # Errors
    /// If they cannot be used; the old ones stay then.
    pub(in crate::app) fn reload_anchors(&self) -> Result<(), AppError> {
        let reloaded = self.replace_anchors();
        self.kept.health.works(Part::Anchors, reloaded.is_ok());
        reloaded
    }

    fn replace_anchors(&self) -> Result<(), AppError> {
        let current = self.current.lock();
        let config = &current.config;
        let upstreams = plan::upstreams(config, config.listen.workers.get(), &self.upstreams.load())?;
        let gateway = gateway(&self.kept, config, &upstreams, &current.limiting)?;
        let old = self.connections.serving.load();
        let (tls, settings) = (Arc::clone(&old.tls), Arc::clone(&old.settings));
        self.replace(upstreams, Serving { tls, service: Arc::new(gateway), settings });
        Ok(())
    }

    /// Puts a plan in place, and ends the connections that it has no use for.
    fn replace(&self, upstreams: Vec<Arc<Upstream>>, serving: Serving<GatewayService>) {
        let upstreams = Arc::new(upstreams);
        let old = self.upstreams.swap(Arc::clone(&upstreams));
        self.connections.serving.store(Arc::new(serving));
        for upstream in old.iter() {
            upstream.end_all_but(&upstreams);
        }
    }

    /// What tells whether the files of trust anchors are others than before.
    pub(in crate::app) fn anchor_stamps(&self) -> Vec<Option<Stamp>> {
        let current = self.current.lock();
        let files = current.config.upstreams.iter().filter_map(|upstream| upstream.ca.as_deref());
        files.map(Stamp::of).collect()
    }

    /// What tells whether the files of certificates and keys are others than before.
    pub(in crate::app) fn certificate_stamps(&self) -> Vec<Option<Stamp>> {
        let current = self.current.lock();
        // The self-signed ones are made at start; reading them then is no error here.
        let files = certificates(&current.config).unwrap_or_default();
        files.iter().flat_map(|files| [&files.cert, &files.key]).map(|path| Stamp::of(path)).collect()
    }

    pub(in crate::app) fn connections(&self) -> &Arc<Connections<GatewayService>> {
        &self.connections
    }

    /// Of the certificates in use.
    pub(in crate::app) fn certificates(&self) -> Arc<Vec<Facts>> {
        self.certificates.load_full()
    }

    /// The servers of all upstreams, in the order of the configuration.
    pub(in crate::app) fn pools(&self) -> Vec<Pool> {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let pools = |upstream: &Arc<Upstream>| {
            let upstream = Arc::clone(upstream);
            let standings: Vec<_> = upstream.standing().collect();
            standings.into_iter().map(move |server| Pool {
                upstream: upstream.name.clone(),
                server: server.address,
                in_flight: number(server.in_flight),
                idle: number(server.idle),
                waiting: number(server.waiting),
                is_avoided: server.is_avoided,
            })
        };
        self.upstreams.load().iter().flat_map(pools).collect()
    }

    /// The routes and their requests that have ended.
    pub(in crate::app) fn routes(&self) -> Vec<status::Route> {
        let serving = self.connections.serving.load();
        let plans = serving.service.0.routes.plans();
        let route = |plan: &Plan| {
            let [passed, refused, failed, gone] = plan.names.metrics.counts();
            status::Route { name: plan.names.route.clone(), passed, refused, failed, gone }
        };
        plans.iter().map(route).collect()
    }

    /// The tables of throttles and of guards.
    pub(in crate::app) fn counters(&self) -> (Usage, Usage) {
        self.tables.usage()
    }

    /// Connections of clients that are open.
    pub(in crate::app) fn open_connections(&self) -> usize {
        self.kept.limits.open()
    }

    /// Looks through the idle connections of a core.
    pub(in crate::app) fn sweep(&self, core: usize) {
        for upstream in self.upstreams.load().iter() {
            upstream.sweep(core);
        }
    }
}

/// Series of what the file does not name any more go.
fn keep_metrics(metrics: &Metrics, config: &Config) {
    let routes = config.routes.iter().map(|route| route.name.as_str());
    let upstreams = config.upstreams.iter().map(|upstream| upstream.name.as_str());
    let throttles = config.throttles.iter().map(|throttle| throttle.name.as_str());
    metrics.requests.keep(routes, upstreams, throttles);
}

fn gateway(
    kept: &Kept,
    config: &Config,
    upstreams: &[Arc<Upstream>],
    limiting: &Limiting,
) -> Result<GatewayService, AppError> {
    let gateway = plan::gateway(&plan::Parts {
        config,
        options: &kept.options,
        backing: &kept.backing,
        upstreams,
        slow: &kept.slow,
        background: &kept.background,
        https_port: kept.https_port,
        deployment_key: &kept.deployment_key,
        limiting,
        metrics: &kept.metrics,
        exports_spans: kept.exports_spans,
    })?;
    Ok(GatewayService(gateway))
}

fn serving(
    kept: &Kept,
    config: &Config,
    upstreams: &[Arc<Upstream>],
    limiting: &Limiting,
) -> Result<Serving<GatewayService>, AppError> {
    Ok(Serving {
        service: Arc::new(gateway(kept, config, upstreams, limiting)?),
        // Last, so that a configuration that fails changes no keys of tickets.
        tls: tls::server_config(&config.tls, &certificates(config)?, &kept.tickets)?,
        settings: Arc::new(connection_settings(&config.limits)),
    })
}

/// The keys whose values are those of the start.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let changed = [
        ("[listen] https", old.listen.https != new.listen.https),
        ("[listen] http", old.listen.http != new.listen.http),
        ("[listen] admin", old.listen.admin != new.listen.admin),
        ("[listen] admin_socket", old.listen.admin_socket != new.listen.admin_socket),
        ("[listen] workers", old.listen.workers != new.listen.workers),
        ("[store] url", old.store.url != new.store.url),
        ("[store] connections", old.store.connections != new.store.connections),
        ("[store]", old.store.layout != new.store.layout),
        ("[redis]", old.redis != new.redis),
        ("[deployment] key", old.deployment != new.deployment),
        ("[cache]", old.cache != new.cache),
        ("[log] format", old.log.format != new.log.format),
        ("[traces]", is_another_collector(old.traces.as_ref(), new.traces.as_ref())),
        ("[limits] throttle_bytes", old.limits.throttle_bytes != new.limits.throttle_bytes),
        ("[limits] password_queue", old.limits.password_queue != new.limits.password_queue),
        ("[limits] store_time", old.limits.store_time != new.limits.store_time),
        ("[limits] drain_time", old.limits.drain_time != new.limits.drain_time),
    ];
    changed.into_iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| key).collect()
}

/// Whether spans would go elsewhere; that there are none any more, or of another share, is no matter of a start.
fn is_another_collector(old: Option<&Traces>, new: Option<&Traces>) -> bool {
    let place = |traces: &Traces| (traces.host.clone(), traces.port, traces.service_name.clone());
    new.is_some_and(|new| Some(place(new)) != old.map(place))
}

/// The new configuration, with what only a start can change as it was started with. Every plan is made of one.
fn merged(started: &Config, new: &Config) -> Config {
    let mut merged = new.clone();
    merged.listen = Listen { https_port: new.listen.https_port, ..started.listen.clone() };
    merged.store = started.store.clone();
    merged.deployment = started.deployment.clone();
    merged.redis.clone_from(&started.redis);
    merged.cache = started.cache.clone();
    merged.log.format = started.log.format;
    if is_another_collector(started.traces.as_ref(), new.traces.as_ref()) {
        merged.traces.clone_from(&started.traces);
    }
    merged.limits.throttle_bytes = started.limits.throttle_bytes;
    merged.limits.password_queue = started.limits.password_queue;
    merged.limits.store_time = started.limits.store_time;
    merged.limits.drain_time = started.limits.drain_time;
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;
    use std::time::Duration;

    fn config(text: &str) -> Config {
        let source = Source { name: String::new(), directory: std::env::temp_dir(), environment: |_| None };
        let routes =
            "[upstreams.a]\nservers = [\"http://127.0.0.1:1\"]\n[routes.a]\npath = \"/\"\nupstream = \"a\"\n";
        Config::parse(&format!("{text}\n{routes}"), &source).unwrap().config
    }

    #[test]
    fn what_a_start_has_set_stays_and_the_rest_is_new() {
        let started = config("[listen]\nhttps_port = 1\n[limits]\nstore_time = \"5s\"");
        let new = config(
            "[listen]\nhttps = [\"127.0.0.1:7\"]\nhttps_port = 2\n[limits]\nstore_time = \"1s\"\nstore_pending = 7",
        );
        assert_eq!(needs_restart(&started, &new), ["[listen] https", "[limits] store_time"]);
        let merged = merged(&started, &new);
        assert_eq!((merged.listen.https_port, &merged.listen.https), (Some(2), &started.listen.https));
        assert_eq!((merged.limits.store_time, merged.limits.store_pending), (Duration::from_secs(5), 7));
    }

    #[test]
    fn everything_of_the_store_is_of_the_start() {
        let django = |lines: &str| {
            let store = "[store]\nurl = \"sqlite:django.db\"\nlayout = \"django\"\n[store.django]\nsecret_key = \"a\"";
            config(&format!("{store}\n{lines}"))
        };
        let started = django("");
        assert_eq!(needs_restart(&started, &django("")), [""; 0]);
        for lines in ["md5 = true", "user = { id = \"pk\" }", "[store.own]\nurl = \"sqlite:other.db\""] {
            let new = django(lines);
            assert_eq!(needs_restart(&started, &new), ["[store]"], "{lines}");
            assert_eq!(merged(&started, &new).store, started.store);
        }
        assert_eq!(needs_restart(&config("[store]\nurl = \"sqlite:django.db\""), &started), ["[store]"]);
    }
}
