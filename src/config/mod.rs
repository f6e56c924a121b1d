//! The configuration file: from text to types that cannot be wrong, or to a list of everything that is.
//!
//! Parse, don't validate: after [`Config::load`] nothing is checked again. `raw.rs` mirrors the file, `read.rs` finds
//! every fault in it, and each section's own file turns its part into its final type. Only this module reads the
//! environment. A reload goes the same way as a start, so a broken file never replaces a plan that works.

mod authentication;
mod cache;
mod claims;
mod clients;
mod cors;
mod deployment;
mod django;
mod guard;
mod handler;
mod host;
mod identity;
mod limits;
mod listen;
mod log;
mod origin;
mod problem;
mod raw;
mod read;
mod redis;
mod render;
mod route;
mod sample;
mod schema;
mod scheme;
mod server_url;
mod session;
mod shape;
mod share;
mod sql_name;
mod starter;
mod store;
mod suggest;
mod throttle;
mod tls;
mod tokens;
mod traces;
mod traps;
mod upstream;
mod value;

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;

pub use crate::config::authentication::{Authentication, SchemeInstance};
pub use crate::config::cache::Cache;
pub use crate::config::clients::Clients;
pub use crate::config::cors::Cors;
pub use crate::config::deployment::{DEPLOYMENT_KEY_BYTES_MIN, Deployment, DeploymentKey};
pub use crate::config::django::{Django, GroupTable, UserTable};
pub use crate::config::guard::{Guard, USER_DELAY_MAX};
pub use crate::config::host::HostPattern;
pub use crate::config::identity::IdentityHeaders;
pub use crate::config::limits::Limits;
pub use crate::config::listen::{AdminPath, Listen};
pub use crate::config::log::{Log, LogFormat, LogLevel};
pub use crate::config::problem::{PROBLEMS_MAX, Problem, Severity};
pub use crate::config::redis::{Redis, RedisAddress, RedisLogin, RedisServers};
pub use crate::config::render::SourceText;
pub use crate::config::route::{Action, Permission, Route};
pub use crate::config::scheme::{SchemeConfig, TokenFamily};
pub use crate::config::server_url::{ServerKind, ServerUrl};
pub use crate::config::session::{CsrfConfig, SameSite, SessionConfig};
pub use crate::config::share::Share;
pub use crate::config::starter::Starter;
pub use crate::config::store::{Layout, Store, StoreUrl};
pub use crate::config::suggest::nearest;
pub use crate::config::throttle::{Rate, SHARED_COUNT_MAX, THROTTLES_OF_ROUTE_MAX, Throttle, ThrottleBy};
pub use crate::config::tls::{CertificateFiles, Hsts, PEM_BYTES_MAX, Tls, TlsVersion};
pub use crate::config::tokens::{OnExposedToken, Tokens};
pub use crate::config::traces::Traces;
pub use crate::config::traps::{BadCredentials, Preflight, Unauthenticated};
pub use crate::config::upstream::{Balance, ServerAddress, Timeouts, Upstream, UpstreamHost};

use crate::config::claims::Placed;
use crate::config::problem::{Fault, Problems};
use crate::config::raw::Raw;
use crate::config::route::Context;

/// A configuration file larger than this is refused.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// Everything the file says, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect.
    pub listen: Listen,
    /// The certificates.
    pub tls: Tls,
    /// What replicas share.
    pub deployment: Deployment,
    /// Where users and tokens are kept.
    pub store: Store,
    /// What replicas share besides; `None`: there is no Redis.
    pub redis: Option<Redis>,
    /// What is remembered.
    pub cache: Cache,
    /// The schemes.
    pub authentication: Authentication,
    /// The tokens that are issued.
    pub tokens: Tokens,
    /// What the upstream is told.
    pub identity: IdentityHeaders,
    /// Who the client is.
    pub clients: Clients,
    /// Whose pages may read answers.
    pub cors: Cors,
    /// A bound for everything.
    pub limits: Limits,
    /// The rates, in the order of the file.
    pub throttles: Vec<Throttle>,
    /// The servers behind, in the order of the file.
    pub upstreams: Vec<Upstream>,
    /// The rules, in the order of the file.
    pub routes: Vec<Route>,
    /// The log.
    pub log: Log,
    /// Spans of requests; `None`: there are none.
    pub traces: Option<Traces>,
}

/// What a text of configuration stands in.
#[derive(Debug, Clone)]
pub struct Source {
    /// What messages call the file.
    pub name: String,
    /// Where relative paths start.
    pub directory: PathBuf,
    /// Looks a variable of the environment up.
    pub environment: fn(&str) -> Option<OsString>,
}

/// A file that can be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What someone should look at, in the order of the file.
    pub warnings: Vec<Problem>,
    source: SourceText,
}

impl Loaded {
    /// The warnings as text for people; empty if there are none. `colours` adds ANSI colours.
    pub fn render_warnings(&self, colours: bool) -> String {
        if self.warnings.is_empty() { String::new() } else { self.source.render(&self.warnings, colours) }
    }
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read at all.
    #[error("cannot read the configuration {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was read, and this is wrong with it.
    #[error("{0}")]
    Problems(Box<Faulty>),
}

/// Everything that is wrong with a file; `Display` is the full text for people.
#[derive(Debug, Clone)]
pub struct Faulty {
    /// Errors and warnings, in the order of the file; at least one error.
    pub problems: Vec<Problem>,
    source: SourceText,
}

impl Faulty {
    /// The problems as text for people. `colours` adds ANSI colours.
    pub fn render(&self, colours: bool) -> String {
        self.source.render(&self.problems, colours)
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl Config {
    /// Reads the file, and what it refers to: certificates, secrets in files and in the environment.
    ///
    /// Blocks; call it where that does no harm.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Unreadable`] if there is no such file or it may not be read, [`ConfigError::Problems`] with
    /// everything that is wrong with it otherwise.
    pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
        let limit = FILE_BYTES_MAX as u64;
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let bytes = tls::read_bounded(path, limit).map_err(unreadable)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = parent.unwrap_or_else(|| Path::new(".")).to_owned();
        let source = Source { name: path.display().to_string(), directory, environment: variable };
        match String::from_utf8(bytes) {
            Ok(text) => Self::parse(&text, &source),
            Err(error) => Err(not_utf8(&error, &source)),
        }
    }

    /// Reads a text as if it were the file.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Problems`] with everything that is wrong.
    pub fn parse(text: &str, source: &Source) -> Result<Loaded, ConfigError> {
        if text.len() > FILE_BYTES_MAX {
            let mut problems = Problems::new(SourceText::new(&source.name, ""));
            let message = format!("the configuration is larger than {FILE_BYTES_MAX} bytes");
            problems.error(&(0..0), Fault::new(message));
            return Err(faulty(problems));
        }
        let mut problems = Problems::new(SourceText::new(&source.name, text));
        let raw: Option<Raw> = read::read(text, &mut problems);
        let config = raw.map(|raw| Self::from_raw(raw, source, &mut problems));
        match config {
            Some(config) if !problems.has_errors() => {
                let (source, warnings) = problems.finish();
                Ok(Loaded { config, warnings, source })
            }
            _ => Err(faulty(problems)),
        }
    }

    /// The JSON Schema of the file (draft 2020-12), for editors.
    pub fn schema() -> serde_json::Value {
        schema::schema()
    }

    fn from_raw(raw: Raw, source: &Source, problems: &mut Problems) -> Self {
        let cache = Cache::from_raw(&raw.cache, problems);
        let store = Store::from_raw(raw.store, source, problems);
        let is_django = store.layout.is_django();
        let (authentication, defaults, guards_off) =
            Authentication::from_raw(raw.authentication, is_django, problems);
        let has_redis = raw.redis.is_some() || problems.is_lost(&["redis"]);
        let (mut throttles, throttle_spans, shared) = read_throttles(raw.throttles, problems);
        let mut upstreams: Vec<_> = raw.upstreams.into_iter().collect();
        upstreams.sort_by_key(|(name, _)| name.span().start);
        let spans: Vec<_> = upstreams.iter().map(|(name, _)| name.span()).collect();
        let read = |(name, raw)| Upstream::from_raw(&name, raw, &source.directory, problems);
        let upstreams: Vec<Upstream> = upstreams.into_iter().map(read).collect();
        let context = Context {
            upstreams: &upstreams,
            schemes: &authentication.schemes,
            throttles: &throttles,
            defaults: &defaults,
            stale_while_unreachable: cache.stale_while_unreachable,
            is_django,
        };
        let routes = read_routes(raw.routes, &context, problems);
        warn_unused(&upstreams, &spans, &routes, problems);
        warn_unused_throttles(&throttles, &throttle_spans, &routes, problems);
        throttle::share(&mut throttles, &shared, &routes, has_redis, problems);
        if routes.iter().any(|route| route.checks_passwords(&authentication.schemes)) {
            guard::warn_of(&guards_off, problems);
        }
        let tls = Tls::from_raw(raw.tls, &source.directory, problems);
        let is_key_given = raw.deployment.key.is_some() || problems.is_lost(&["deployment", "key"]);
        let deployment = Deployment::from_raw(raw.deployment, source, problems);
        let redis = Redis::from_raw(raw.redis, &deployment, is_key_given, source, problems);
        let log = Log::from_raw(raw.log, &source.directory, &taken(&tls, &deployment, &store), problems);
        Self {
            listen: Listen::from_raw(raw.listen, &source.directory, problems),
            tls,
            deployment,
            store,
            redis,
            cache,
            authentication,
            tokens: Tokens::from_raw(raw.tokens, problems),
            identity: IdentityHeaders::from_raw(raw.identity, problems),
            clients: Clients::from_raw(raw.clients, problems),
            cors: Cors::from_raw(raw.cors, problems),
            limits: Limits::from_raw(&raw.limits, problems),
            throttles,
            upstreams,
            routes,
            log,
            traces: Traces::from_raw(raw.traces, cfg!(feature = "otel"), problems),
        }
    }
}

/// Files with keys, certificates and tokens.
fn taken<'a>(tls: &'a Tls, deployment: &'a Deployment, store: &'a Store) -> Vec<&'a Path> {
    let key = match &deployment.key {
        DeploymentKey::File(key) => Some(key.as_path()),
        DeploymentKey::Given(_) => None,
    };
    let pairs = tls.certificates.iter().flat_map(|files| [files.cert.as_path(), files.key.as_path()]);
    pairs.chain(key).chain(store.files()).collect()
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
fn variable(name: &str) -> Option<OsString> {
    // These would panic.
    if name.is_empty() || name.contains(['=', '\0']) { None } else { std::env::var_os(name) }
}

fn faulty(problems: Problems) -> ConfigError {
    let (source, problems) = problems.finish();
    ConfigError::Problems(Box::new(Faulty { problems, source }))
}

fn not_utf8(error: &std::string::FromUtf8Error, source: &Source) -> ConfigError {
    let at = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(error.as_bytes());
    let mut problems = Problems::new(SourceText::new(&source.name, text));
    // The replacement character stands where the wrong byte was; an empty span there would mean the whole file.
    problems.error(&(at..at + char::REPLACEMENT_CHARACTER.len_utf8()), Fault::new("the file is not UTF-8"));
    faulty(problems)
}

fn read_routes(
    raw: BTreeMap<Spanned<String>, raw::Route>,
    context: &Context<'_>,
    problems: &mut Problems,
) -> Vec<Route> {
    if raw.is_empty() && !problems.is_lost(&["routes"]) {
        problems.error(&(0..0), Fault::new("there are no routes, so nothing would be served").help(SMALLEST));
    }
    let mut raw: Vec<_> = raw.into_iter().collect();
    raw.sort_by_key(|(name, _)| name.span().start);
    let mut routes = Vec::new();
    for (name, raw) in raw {
        let route = Route::from_raw(&name, raw, context, problems);
        routes.extend(route.map(|route| Placed { route, span: name.span() }));
    }
    claims::check_claims(&routes, problems);
    claims::check_enclosures(&routes, problems);
    claims::check_login_pages(&routes, problems);
    routes.into_iter().map(|placed| placed.route).collect()
}

fn read_throttles(
    raw: BTreeMap<Spanned<String>, raw::Throttle>,
    problems: &mut Problems,
) -> (Vec<Throttle>, Vec<Range<usize>>, throttle::Shared) {
    let mut raw: Vec<_> = raw.into_iter().collect();
    raw.sort_by_key(|(name, _)| name.span().start);
    let (mut throttles, mut spans, mut shared) = (Vec::new(), Vec::new(), Vec::new());
    for (name, mut raw) in raw {
        shared.push(raw.shared.take());
        throttles.push(Throttle::from_raw(&name, raw, problems));
        spans.push(name.span());
    }
    (throttles, spans, shared)
}

/// The smallest useful file.
const SMALLEST: &str = "the smallest useful file is
[upstreams.legacy]
servers = [\"http://127.0.0.1:9000\"]
[routes.everything]
path = \"/\"
upstream = \"legacy\"
schemes = [\"token\"]";

fn warn_unused(upstreams: &[Upstream], spans: &[Range<usize>], routes: &[Route], problems: &mut Problems) {
    // A route with faults may well use it.
    if problems.has_errors() {
        return;
    }
    let used: HashSet<usize> = routes
        .iter()
        .filter_map(|route| match route.action {
            Action::Forward { upstream } => Some(upstream),
            _ => None,
        })
        .collect();
    for (index, (upstream, span)) in upstreams.iter().zip(spans).enumerate() {
        if !used.contains(&index) {
            let message = format!("upstream {} is never used", problem::quote(&upstream.name));
            problems.warn(span, Fault::new(message));
        }
    }
}

fn warn_unused_throttles(
    throttles: &[Throttle],
    spans: &[Range<usize>],
    routes: &[Route],
    problems: &mut Problems,
) {
    if problems.has_errors() {
        return;
    }
    let used: HashSet<usize> = routes.iter().flat_map(|route| route.throttles.iter().copied()).collect();
    for (index, (throttle, span)) in throttles.iter().zip(spans).enumerate() {
        if !used.contains(&index) {
            let fault = Fault::new(format!("throttle {} is never used", problem::quote(&throttle.name)));
            problems.warn(span, fault.help("name it in `throttles` of a route"));
        }
    }
}

#[cfg(test)]
mod tests;
