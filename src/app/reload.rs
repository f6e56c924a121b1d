//! Another configuration while requests are served: built aside, then put in place all at once, or not at all.
//!
//! Each request is answered by the plan that it found when it came. What was counted, remembered and connected goes
//! on: throttles and upstreams by their names, the caches, the guards. What only a start can change is named.

use crate::accept::connection::{Connections, Serving};
use crate::accept::limits::ConnectionLimits;
use crate::accept::tls::{self, TlsError};
use crate::app::plan::{self, Limiting};
use crate::app::stamp::Stamp;
use crate::app::{
    AppError, Backing, GatewayService, Options, bounds, certificates, connection_settings, token_policy,
};
use crate::config::{self, Config, Traces};
use crate::forward::upstream::Upstream;
use crate::secret::Secret;
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
    pub(in crate::app) stop: CancellationToken,
    pub(in crate::app) exports_spans: bool,
}

/// Holds the plan that is in place, and replaces it.
#[derive(Debug)]
pub struct Reloader {
    kept: Kept,
    connections: Arc<Connections<GatewayService>>,
    /// Those of the plan; swept by the cores.
    upstreams: ArcSwap<Vec<Arc<Upstream>>>,
    /// What the plan was made of; locked while another one is made, so that two are never mixed.
    current: Mutex<Current>,
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
            clock: Arc::clone(&kept.options.clock),
            stop: kept.stop.clone(),
        });
        Ok(Arc::new(Self {
            kept,
            connections,
            upstreams: ArcSwap::from_pointee(upstreams),
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
        let mut current = self.current.lock();
        // Cores are made once.
        let workers = current.config.listen.workers.get();
        let upstreams = plan::upstreams(config, workers, &self.named(&current.config))?;
        let limiting = current.limiting.with(config);
        let serving = serving(&self.kept, config, &upstreams, &limiting)?;
        // Nothing fails from here on.
        let restart = needs_restart(&current.config, config);
        self.kept.limits.set(bounds(config));
        self.kept.backing.credentials.set_policy(token_policy(config));
        self.upstreams.store(Arc::new(upstreams));
        self.connections.serving.store(Arc::new(serving));
        let started = current.config.clone();
        *current = Current { config: merged(&started, config), limiting };
        Ok(restart)
    }

    /// Reads the certificates anew and puts them in place.
    ///
    /// Blocks: it reads files.
    ///
    /// # Errors
    /// If they cannot be used; the old ones stay then.
    pub(in crate::app) fn reload_certificates(&self) -> Result<(), TlsError> {
        let current = self.current.lock();
        let tls = tls::server_config(&current.config.tls, &certificates(&current.config)?)?;
        let old = self.connections.serving.load();
        let (service, settings) = (Arc::clone(&old.service), Arc::clone(&old.settings));
        self.connections.serving.store(Arc::new(Serving { tls, service, settings }));
        Ok(())
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

    /// Looks through the idle connections of a core.
    pub(in crate::app) fn sweep(&self, core: usize) {
        for upstream in self.upstreams.load().iter() {
            upstream.sweep(core);
        }
    }

    fn named(&self, config: &Config) -> Vec<(config::Upstream, Arc<Upstream>)> {
        config.upstreams.iter().cloned().zip(self.upstreams.load().iter().cloned()).collect()
    }
}

fn serving(
    kept: &Kept,
    config: &Config,
    upstreams: &[Arc<Upstream>],
    limiting: &Limiting,
) -> Result<Serving<GatewayService>, AppError> {
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
        exports_spans: kept.exports_spans,
    })?;
    Ok(Serving {
        tls: tls::server_config(&config.tls, &certificates(config)?)?,
        service: Arc::new(GatewayService(gateway)),
        settings: Arc::new(connection_settings(&config.limits)),
    })
}

/// The keys whose values are those of the start.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let changed = [
        ("[listen] https", old.listen.https != new.listen.https),
        ("[listen] http", old.listen.http != new.listen.http),
        ("[listen] workers", old.listen.workers != new.listen.workers),
        ("[store] url", old.store != new.store),
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

/// The new configuration, with what only a start can change as it was started with.
fn merged(started: &Config, new: &Config) -> Config {
    let mut merged = new.clone();
    merged.listen = started.listen.clone();
    merged.store = started.store.clone();
    merged.deployment = started.deployment.clone();
    merged.cache = started.cache.clone();
    merged.log.format = started.log.format;
    merged.traces.clone_from(&started.traces);
    merged.limits.throttle_bytes = started.limits.throttle_bytes;
    merged.limits.password_queue = started.limits.password_queue;
    merged.limits.store_time = started.limits.store_time;
    merged.limits.drain_time = started.limits.drain_time;
    merged
}
