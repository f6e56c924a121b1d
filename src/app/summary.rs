//! What is told at start: where doorward listens, what it guards and how, and which bounds hold.

use crate::app::Running;
use crate::config::{Action, Config, HostPattern, SchemeConfig, StoreUrl};

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
    let StoreUrl::Sqlite(path) = &config.store.url;
    tracing::info!(
        store = %path.display(),
        cache_bytes = config.cache.capacity,
        revocation_bound_ms = u64::try_from(config.cache.revocation_bound.as_millis()).unwrap_or(u64::MAX),
        stale_while_unreachable_s = config.cache.stale_while_unreachable.as_secs(),
        "store"
    );
    for instance in &config.authentication.schemes {
        let SchemeConfig::Token { keyword } = &instance.kind;
        tracing::info!(name = instance.name, kind = "token", keyword, "scheme");
    }
    for route in &config.routes {
        let named = |number: &usize| config.authentication.schemes.get(*number).map(|s| s.name.as_str());
        let schemes: Vec<_> = route.schemes.iter().filter_map(named).collect();
        let host = match &route.host {
            HostPattern::Any => "*".to_owned(),
            HostPattern::Exact(host) => host.clone(),
            HostPattern::Wildcard(domain) => format!("*.{domain}"),
        };
        let to = match route.action {
            Action::Forward { upstream } => config.upstreams.get(upstream).map_or("", |u| u.name.as_str()),
            Action::ObtainToken => "handler obtain-token",
        };
        let methods = route.methods.as_ref().map(|methods| format!("{methods:?}"));
        tracing::info!(
            http.route = route.name,
            host,
            path = route.path,
            methods,
            schemes = ?schemes,
            permission = ?route.permission,
            to,
            "route"
        );
    }
}
