//! From the configuration to the gateway: upstreams, schemes, and a plan for each route.

use crate::accept::body::{BodyLimits, DrainLimits};
use crate::accept::head::Sanitiser;
use crate::app::schemes::{self, session_settings};
use crate::app::{AppError, Backing, Options};
use crate::authenticate::scheme::Scheme;
use crate::authenticate::schemes::basic::Remembered;
use crate::authenticate::schemes::session::RenewedKeys;
use crate::authenticate::slow::SlowSide;
use crate::authenticate::{Authenticator, AuthenticatorOptions};
use crate::cache::redis::SharedCache;
use crate::clock::Clock;
use crate::config::{
    self, BadCredentials, Config, Limits, Permission, Preflight, Route, SchemeConfig, Share,
};
use crate::cors::Cors;
use crate::endpoint::body::BodyReader;
use crate::endpoint::login::Login;
use crate::endpoint::logout::Logout;
use crate::endpoint::obtain_token::ObtainToken;
use crate::forward::upstream::{Trust, Upstream, UpstreamSettings};
use crate::forward::{ForwardHeaders, Forwarder, HeadLimits};
use crate::gateway::{Action, Gateway, Plan, RequestIds};
use crate::header::guarded::GuardedNames;
use crate::login::Logins;
use crate::require_https::exposed::{ExposedTokens, PENDING_MAX};
use crate::require_https::{RequireHttps, SessionCookies, hsts};
use crate::respond::record::{Names, Reporting};
use crate::route::{Place, Routes};
use crate::secret::{NoRandomness, Secret};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans::Sampling;
use crate::throttle::counters::{Counters, Usage};
use crate::throttle::guard::Guard;
use crate::throttle::waiting::WaitingRoom;
use crate::throttle::{ProxyAlarm, RouteFacts, Throttles};
use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// Logins that may be at the store besides those that wait for their password to be checked.
const LOGINS_AT_STORE: usize = 8;
/// Longest time of a login: two look-ups, the wait for a full queue of passwords, and a write behind another process.
const LOGIN_TIME: Duration = Duration::from_secs(30);

/// The upstreams, in the order of the configuration. Servers of `old` that are the same, by the names of their
/// upstreams, go on with their connections. Files of trust anchors are read anew.
pub(in crate::app) fn upstreams(
    config: &Config,
    cores: usize,
    old: &[Arc<Upstream>],
) -> Result<Vec<Arc<Upstream>>, AppError> {
    let make = |upstream: &config::Upstream| {
        let failed = |source| AppError::Upstream { name: upstream.name.clone(), source };
        let is_tls = |server: &config::ServerAddress| matches!(server, config::ServerAddress::Https { .. });
        let trust = if upstream.servers.iter().any(is_tls) {
            Some(trust(upstream.ca.as_deref()).map(Arc::new).map_err(failed)?)
        } else {
            None
        };
        let old = old.iter().find(|old| old.name == upstream.name).map(Arc::as_ref);
        let settings = UpstreamSettings { config: upstream, cores, trust, old };
        Upstream::new(&settings).map(Arc::new).map_err(|error| failed(error.into()))
    };
    config.upstreams.iter().map(make).collect()
}

/// TLS towards upstreams: verified against the system's trust anchors, or the configured ones alone.
pub(in crate::app) fn trust(ca: Option<&Path>) -> Result<Trust, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    let anchors = if let Some(path) = ca {
        let anchors = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
        if anchors.is_empty() {
            return Err(format!("no certificate in {}", path.display()).into());
        }
        for anchor in &anchors {
            roots.add(anchor.clone())?;
        }
        anchors
    } else {
        let loaded = rustls_native_certs::load_native_certs();
        let (usable, _) = roots.add_parsable_certificates(loaded.certs.iter().cloned());
        if usable == 0 {
            // Every server would be refused; whoever has connections would lose them for that.
            let why = loaded.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
            return Err(format!(
                "the system has no trust anchors{why}; install ca-certificates, or name a `ca`"
            )
            .into());
        }
        for error in &loaded.errors {
            tracing::warn!(%error, "some of the system's trust anchors cannot be read");
        }
        loaded.certs
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Trust { anchors, config: Arc::new(config) })
}

/// What the gateway is made of.
#[derive(Debug)]
pub(in crate::app) struct Parts<'a> {
    pub(in crate::app) config: &'a Config,
    pub(in crate::app) options: &'a Options,
    pub(in crate::app) backing: &'a Backing,
    pub(in crate::app) upstreams: &'a [Arc<Upstream>],
    pub(in crate::app) slow: &'a Handle,
    /// What is waited for when the process stops.
    pub(in crate::app) background: &'a TaskTracker,
    /// The port that HTTPS is listened for on.
    pub(in crate::app) https_port: u16,
    pub(in crate::app) deployment_key: &'a Secret,
    pub(in crate::app) limiting: &'a Limiting,
    pub(in crate::app) metrics: &'a Arc<Metrics>,
    /// Spans have somewhere to go.
    pub(in crate::app) exports_spans: bool,
}

impl Parts<'_> {
    /// The port that clients reach by HTTPS.
    pub(in crate::app) fn https_port(&self) -> u16 {
        self.config.listen.https_port.unwrap_or(self.https_port)
    }
}

/// The gateway.
pub(in crate::app) fn gateway(parts: &Parts<'_>) -> Result<Gateway, AppError> {
    let Config { identity, clients, limits, .. } = parts.config;
    let ours = [
        Some(&identity.user),
        identity.groups.as_ref(),
        identity.email.as_ref(),
        identity.auth_type.as_ref(),
    ];
    let logins = Arc::new(logins(parts));
    let schemes = schemes::schemes(parts, &logins);
    let planned = parts
        .config
        .routes
        .iter()
        .map(|route| Some((place(parts.config, route), plan(parts, route, &schemes, &logins)?)));
    let mut process = [0; 8];
    getrandom::fill(&mut process).map_err(|_| NoRandomness)?;
    Ok(Gateway {
        // The configuration has no dangling references, so none is left out.
        routes: Routes::new(planned.flatten()),
        sanitiser: Sanitiser {
            guarded: GuardedNames::new(ours.into_iter().flatten().chain(schemes::remote_users(parts.config))),
            trusted_proxies: clients.trusted_proxies.clone(),
            target_bytes: limits.target_bytes,
            header_count: limits.header_count,
        },
        require_https: require_https(parts, schemes),
        body_limits: body_limits(limits),
        reporting: Reporting {
            observer: Arc::clone(&parts.options.observer),
            metrics: Arc::clone(parts.metrics),
            clock: Arc::clone(&parts.options.clock),
        },
        request_ids: RequestIds::new(u64::from_be_bytes(process)),
        cors: Cors::new(&parts.config.cors.origins, parts.config.cors.credentials),
        spans: parts.config.traces.as_ref().filter(|_| parts.exports_spans).map(sampling),
    })
}

/// Of every body, whatever the route.
pub(in crate::app) fn body_limits(limits: &Limits) -> BodyLimits {
    BodyLimits {
        drain: DrainLimits {
            bytes_max: u64::try_from(limits.unread_body).unwrap_or(u64::MAX),
            time_max: limits.unread_body_time,
        },
        rate: u64::try_from(limits.body_rate).unwrap_or(u64::MAX),
        patience: limits.body_idle,
    }
}

fn sampling(traces: &config::Traces) -> Sampling {
    let one_of = match traces.sample {
        Share::None => None,
        Share::OneOf(number) => Some(number),
    };
    Sampling { one_of }
}

fn require_https(parts: &Parts<'_>, schemes: Vec<Arc<dyn Scheme>>) -> RequireHttps {
    let config = parts.config;
    RequireHttps {
        https_port: parts.https_port(),
        hsts: config.tls.hsts.as_ref().and_then(hsts),
        session_cookies: SessionCookies::new(schemes::cookies(config).0),
        exposed: ExposedTokens {
            schemes,
            credentials: Arc::clone(&parts.backing.credentials),
            reaction: config.tokens.on_exposed_token,
            runtime: parts.slow.clone(),
            tasks: parts.background.clone(),
            places: Arc::clone(&parts.limiting.exposures),
        },
    }
}

fn place(config: &Config, route: &Route) -> Place {
    let ignores_case = match route.action {
        config::Action::Forward { upstream } => {
            config.upstreams.get(upstream).is_some_and(|u| u.case_insensitive)
        }
        _ => false,
    };
    Place { host: route.host.clone(), path: route.path.clone(), methods: route.methods.clone(), ignores_case }
}

/// What counts requests, and bounds what waits for the slow side: one for all routes and cores, and for every plan, or a
/// reload would let as many in again.
#[derive(Debug)]
pub(in crate::app) struct Limiting {
    lookups: SlowSide,
    /// Of `lookups`.
    store_pending: usize,
    logins: SlowSide,
    exposures: Arc<Semaphore>,
    counters: Arc<Counters>,
    guard: Arc<Guard>,
    alarm: Arc<ProxyAlarm>,
    bodies: Arc<WaitingRoom>,
    too_many: Arc<WaitingRoom>,
    kept: Kept,
    clock: Arc<dyn Clock>,
    /// Counts for all replicas.
    shared: Option<SharedCache>,
}

/// What schemes remember, whatever the plan.
#[derive(Debug, Clone)]
pub(in crate::app) struct Kept {
    /// Passwords that were right.
    pub(in crate::app) remembered: Arc<Remembered>,
    /// Keys of sessions that took the place of others.
    pub(in crate::app) renewed: Arc<RenewedKeys>,
}

/// The tables of counters: those of the process, whatever the plan.
#[derive(Debug)]
pub(in crate::app) struct Tables {
    throttles: Arc<Counters>,
    guards: Arc<Counters>,
}

impl Tables {
    /// How full the tables of throttles and of guards are.
    pub(in crate::app) fn usage(&self) -> (Usage, Usage) {
        (self.throttles.usage(), self.guards.usage())
    }
}

impl Limiting {
    pub(in crate::app) fn new(
        config: &Config,
        clock: &Arc<dyn Clock>,
        slow: &Handle,
        shared: Option<&SharedCache>,
    ) -> Result<Self, NoRandomness> {
        let bytes = config.limits.throttle_bytes;
        let guard = Guard::new(&config.authentication.guard, bytes)?.sharing(shared.cloned(), slow);
        Ok(Self {
            lookups: lookups(&config.limits, slow),
            store_pending: config.limits.store_pending,
            logins: login_places(&config.limits, slow),
            exposures: Arc::new(Semaphore::new(PENDING_MAX)),
            counters: Arc::new(Counters::new(Guard::rest_of(bytes))?),
            guard: Arc::new(guard),
            alarm: Arc::new(ProxyAlarm::new(!config.clients.trusted_proxies.is_empty())),
            bodies: Arc::default(),
            too_many: Arc::default(),
            kept: Kept { remembered: Arc::new(Remembered::new()?), renewed: Arc::default() },
            clock: Arc::clone(clock),
            shared: shared.cloned(),
        })
    }

    /// For another configuration; what was counted stays counted.
    pub(in crate::app) fn with(&self, config: &Config, slow: &Handle) -> Self {
        let store_pending = config.limits.store_pending;
        let is_same = store_pending == self.store_pending;
        Self {
            lookups: if is_same { self.lookups.clone() } else { lookups(&config.limits, slow) },
            store_pending,
            logins: self.logins.clone(),
            exposures: Arc::clone(&self.exposures),
            counters: Arc::clone(&self.counters),
            guard: Arc::new(self.guard.with(&config.authentication.guard)),
            alarm: Arc::new(ProxyAlarm::new(!config.clients.trusted_proxies.is_empty())),
            clock: Arc::clone(&self.clock),
            bodies: Arc::clone(&self.bodies),
            too_many: Arc::clone(&self.too_many),
            kept: self.kept.clone(),
            shared: self.shared.clone(),
        }
    }

    /// Where look-ups run.
    pub(in crate::app) fn lookups(&self) -> SlowSide {
        self.lookups.clone()
    }

    pub(in crate::app) fn kept(&self) -> &Kept {
        &self.kept
    }

    /// The tables that go on in every other one of these.
    pub(in crate::app) fn tables(&self) -> Tables {
        Tables { throttles: Arc::clone(&self.counters), guards: Arc::clone(self.guard.counters()) }
    }

    fn throttles(&self, config: &Config, route: &Route) -> Throttles {
        let forwards = matches!(route.action, config::Action::Forward { .. });
        let facts = RouteFacts {
            name: &route.name,
            is_open: forwards && matches!(route.permission, Permission::Anyone | Permission::ReadOnly),
            counts_addresses: route.checks_passwords(&config.authentication.schemes)
                && self.guard.uses_addresses(),
        };
        let named = || throttles(config, route);
        Throttles::new(&self.counters, &self.alarm, facts, named()).sharing(
            self.shared.as_ref(),
            facts,
            named(),
        )
    }
}

/// Those of a route, in its order.
fn throttles<'a>(config: &'a Config, route: &'a Route) -> impl Iterator<Item = &'a config::Throttle> {
    route.throttles.iter().filter_map(|number| config.throttles.get(*number))
}

/// Whoever is given a name and a password asks here.
fn logins(parts: &Parts<'_>) -> Logins {
    let limiting = parts.limiting;
    Logins {
        credentials: Arc::clone(&parts.backing.credentials),
        guard: Arc::clone(&limiting.guard),
        clock: Arc::clone(&limiting.clock),
        slow: limiting.logins.clone(),
        too_many: Arc::clone(&limiting.too_many),
    }
}

fn action(parts: &Parts<'_>, route: &Route, logins: &Arc<Logins>) -> Option<(Action, Option<String>)> {
    let (limits, limiting) = (&parts.config.limits, parts.limiting);
    let bodies = || BodyReader { time_max: limits.body_idle, room: Arc::clone(&limiting.bodies) };
    let credentials = || Arc::clone(&parts.backing.credentials);
    let session = |number: usize| match &parts.config.authentication.schemes.get(number)?.kind {
        SchemeConfig::Session(config) => Some(Arc::new(session_settings(parts, config))),
        _ => None,
    };
    Some(match &route.action {
        config::Action::Forward { upstream } => {
            let upstream = Arc::clone(parts.upstreams.get(*upstream)?);
            let name = upstream.name.clone();
            let forwarder = Forwarder {
                upstream,
                headers: forward_headers(parts.config, route),
                body_idle: limits.body_idle,
                head_limits: HeadLimits {
                    bytes_max: limits.upstream_header_bytes,
                    fields_max: limits.header_count,
                },
            };
            (Action::Forward(forwarder), Some(name))
        }
        config::Action::ObtainToken { family } => {
            let handler = ObtainToken {
                logins: Arc::clone(logins),
                credentials: credentials(),
                family: *family,
                slow: limiting.logins.clone(),
                bodies: bodies(),
            };
            (Action::ObtainToken(handler), None)
        }
        config::Action::Login { session: number, redirect } => {
            let handler = Login {
                logins: Arc::clone(logins),
                credentials: credentials(),
                store: Arc::clone(&parts.backing.store),
                slow: limiting.logins.clone(),
                bodies: bodies(),
                session: session(*number)?,
                redirect: redirect.clone(),
            };
            (Action::Login(Box::new(handler)), None)
        }
        config::Action::Logout { session: number, redirect } => {
            let handler = Logout {
                credentials: credentials(),
                store: Arc::clone(&parts.backing.store),
                slow: limiting.logins.clone(),
                bodies: bodies(),
                clock: Arc::clone(&limiting.clock),
                session: session(*number)?,
                redirect: redirect.clone(),
            };
            (Action::Logout(Box::new(handler)), None)
        }
        config::Action::WhoAmI => (Action::WhoAmI, None),
    })
}

fn plan(parts: &Parts<'_>, route: &Route, schemes: &[Arc<dyn Scheme>], logins: &Arc<Logins>) -> Option<Plan> {
    let named = route.schemes.iter().map(|number| schemes.get(*number).map(Arc::clone));
    let options = AuthenticatorOptions {
        realm: route.realm.clone(),
        explicit_credentials_first: route.explicit_credentials_first,
        always_challenges: route.unauthenticated_status.is_some(),
    };
    let lookups = parts.limiting.lookups.clone();
    let authenticator = Authenticator::new(named.collect::<Option<_>>()?, lookups, &options);
    let (action, upstream) = action(parts, route, logins)?;
    let allow = route.methods.as_ref().map(|methods| {
        let methods: Vec<_> = methods.iter().map(http::Method::as_str).collect();
        HeaderValue::from_str(&methods.join(", "))
    });
    Some(Plan {
        names: Arc::new(Names {
            metrics: parts.metrics.requests.route(&route.name, upstream.as_deref()),
            route: route.name.clone(),
            upstream,
            throttles: throttles(parts.config, route).map(|throttle| throttle.name.clone()).collect(),
        }),
        authenticator,
        permission: route.permission.clone(),
        throttles: parts.limiting.throttles(parts.config, route),
        body_bytes_max: route.max_body,
        stale_while_unreachable: route.stale_while_unreachable,
        ignores_bad_credentials: route.bad_credentials_on_public == BadCredentials::Ignore,
        passes_preflight: route.preflight == Preflight::Pass,
        login_page: route.login_page.clone(),
        allow: allow.transpose().ok().flatten(),
        mends: schemes::mended(parts, route),
        action,
    })
}

/// The store itself gives up after `store_time`, and whoever asked it then falls back on what is known; a look-up that
/// was cut off from outside could not.
pub(in crate::app) fn lookups(limits: &Limits, slow: &Handle) -> SlowSide {
    SlowSide::new(slow.clone(), limits.store_pending, limits.store_time.saturating_mul(2))
}

/// Logins have places of their own, so that a flood of them takes none from look-ups: those whose password waits or
/// is being checked, and as many that ask the store.
fn login_places(limits: &Limits, slow: &Handle) -> SlowSide {
    let places = limits.password_queue.saturating_mul(2).saturating_add(LOGINS_AT_STORE);
    SlowSide::new(slow.clone(), places, LOGIN_TIME)
}

fn forward_headers(config: &Config, route: &Route) -> ForwardHeaders {
    let identity = &config.identity;
    ForwardHeaders {
        user: identity.user.clone(),
        groups: identity.groups.clone(),
        email: identity.email.clone(),
        auth_type: identity.auth_type.clone(),
        forwards_verified: identity.forward_credentials,
        passes_unverified: route.pass_unverified,
        strip_prefix: route.strip_prefix.then(|| route.path.clone()),
        cookies: {
            let (sessions, csrf) = schemes::cookies(config);
            sessions.into_iter().chain(csrf).collect()
        },
    }
}
