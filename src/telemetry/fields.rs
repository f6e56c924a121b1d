//! The table of names: one name for one thing, OpenTelemetry's where it has one, the unit at the end.
//!
//! Never in a field: `Authorization`, cookies, tokens or their digests, passwords, bodies, query strings.

use crate::telemetry::{Finished, is_ours};
use crate::trace::Reason;

/// Target of access lines.
pub const ACCESS: &str = "doorward::access";

/// One line for a finished request; a warning if something on our side or behind us failed.
pub fn access_line(request: &Finished<'_>) {
    let trace = request.trace;
    let error = Some(trace.reason).filter(|reason| *reason != Reason::None).map(Reason::name);
    let credential = trace.credential.map(|id| id.to_string());
    let protocol = format!("{:?}", request.protocol);
    macro_rules! line {
        ($level:expr) => {
            tracing::event!(
                target: ACCESS,
                $level,
                request.id = request.request_id,
                client.address = %request.client,
                network.protocol.version = protocol,
                tls.protocol.version = request.tls_version,
                http.request.method = request.method.as_str(),
                server.address = request.host,
                url.path = request.path,
                http.route = request.route,
                http.response.status_code = request.status,
                error.type = error,
                auth.scheme = request.scheme.map(crate::identity::SchemeKind::name),
                auth.outcome = trace.outcome(),
                auth.answered_by = trace.answered_by.name(),
                auth.principal = trace.principal.map(|user| user.0),
                auth.credential = credential,
                throttle.scope = request.throttle,
                throttle.wait_ms = request.throttle.map(|_| trace.throttle_wait_ms),
                upstream.name = request.upstream.filter(|_| trace.upstream_server.is_some()),
                upstream.attempt = (trace.upstream_attempts > 0).then_some(trace.upstream_attempts),
                upstream.server = trace.upstream_server,
                upstream.duration_ms = (trace.upstream_us > 0).then_some(trace.upstream_us / 1000),
                headers.removed = (trace.headers_removed > 0).then_some(trace.headers_removed),
                request.body_bytes = request.request_bytes,
                response.body_bytes = request.response_bytes,
                duration_ms = u64::try_from(request.duration.as_millis()).unwrap_or(u64::MAX),
                "request"
            )
        };
    }
    if is_ours(trace.reason) {
        line!(tracing::Level::WARN);
    } else {
        line!(tracing::Level::INFO);
    }
}
