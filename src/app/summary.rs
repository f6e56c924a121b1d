//! What is told at start: where doorward listens, what it guards and how, and which bounds hold.

use crate::app::Running;
use crate::config::{Action, Config, HostPattern, SchemeConfig, SchemeInstance, StoreUrl, Throttle};

/// A file by its path, as ever; a server by its URL without a password.
fn store_name(url: &StoreUrl) -> String {
    url.file().map_or_else(|| url.to_string(), |path| path.display().to_string())
}

/// Logs the summary.
pub fn log_summary(config: &Config, running: &Running) {
    let certificate = running.certificate().display();
    for address in running.addresses() {
        let workers = config.listen.workers.get();
        let hsts = config.tls.hsts.is_some();
        tracing::info!(server.address = %address, %certificate, workers, hsts, "listening for HTTPS");
    }
    for address in running.http_addresses() {
        let on_exposed_token = config.tokens.on_exposed_token;
        tracing::info!(server.address = %address, ?on_exposed_token, "listening for HTTP, to send clients to HTTPS");
    }
    if let Some(address) = running.admin_address() {
        tracing::info!(server.address = %address, "answering /livez, /readyz and /metrics");
    }
    tracing::info!(
        store = %store_name(&config.store.url),
        layout = if config.store.layout.is_django() { "django" } else { "doorward" },
        cache_bytes = config.cache.capacity,
        revocation_bound_ms = u64::try_from(config.cache.revocation_bound.as_millis()).unwrap_or(u64::MAX),
        stale_while_unreachable_s = config.cache.stale_while_unreachable.as_secs(),
        "store"
    );
    let bound = u64::try_from(config.cache.revocation_bound.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(
        by = running.backing.found_by(),
        revocation_bound_ms = bound,
        "revocations by other processes are found"
    );
    log_schemes(config);
    log_throttles(config);
    for route in &config.routes {
        let named = |number: &usize| config.authentication.schemes.get(*number).map(|s| s.name.as_str());
        let schemes: Vec<_> = route.schemes.iter().filter_map(named).collect();
        let host = match &route.host {
            HostPattern::Any => "*".to_owned(),
            HostPattern::Exact(host) => host.clone(),
            HostPattern::Wildcard(domain) => format!("*.{domain}"),
        };
        let to = match &route.action {
            Action::Forward { upstream } => config.upstreams.get(*upstream).map_or("", |u| u.name.as_str()),
            Action::ObtainToken { .. } => "handler obtain-token",
            Action::Login { .. } => "handler login",
            Action::Logout { .. } => "handler logout",
            Action::WhoAmI => "handler whoami",
        };
        let throttles: Vec<_> =
            route.throttles.iter().filter_map(|number| config.throttles.get(*number)).collect();
        let throttles: Vec<_> = throttles.iter().map(|throttle| throttle.name.as_str()).collect();
        let methods = route.methods.as_ref().map(|methods| format!("{methods:?}"));
        tracing::info!(
            http.route = route.name,
            host,
            path = route.path,
            methods,
            schemes = ?schemes,
            permission = ?route.permission,
            throttles = ?throttles,
            to,
            "route"
        );
    }
}

/// Those that a route names: the rest is there by default.
fn log_schemes(config: &Config) {
    for (index, SchemeInstance { name, kind }) in config.authentication.schemes.iter().enumerate() {
        if !config.routes.iter().any(|route| route.schemes.contains(&index)) {
            continue;
        }
        let keyword = match kind {
            SchemeConfig::Token { keyword, .. } => Some(keyword.as_str()),
            _ => None,
        };
        tracing::info!(name, kind = kind.name(), keyword, "scheme");
    }
}

fn log_throttles(config: &Config) {
    for Throttle { name, rate, by, shared } in &config.throttles {
        tracing::info!(name, count = rate.count, period_s = rate.period.as_secs(), by = ?by, shared, "throttle");
    }
    let guard = &config.authentication.guard;
    let guards = config.routes.iter().any(|route| route.checks_passwords(&config.authentication.schemes));
    let guards_by_address = guards && (guard.address.is_some() || guard.address_and_user.is_some());
    let throttles_by_address = config.throttles.iter().any(|throttle| throttle.by.uses_addresses());
    if config.clients.trusted_proxies.is_empty() && (guards_by_address || throttles_by_address) {
        tracing::info!(
            "throttles and guards count by the addresses of sockets; behind a proxy, name it in [clients] \
             trusted_proxies"
        );
    }
}
