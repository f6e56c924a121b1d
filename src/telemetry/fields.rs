//! The table of names: one name for one thing, OpenTelemetry's where it has one, the unit at the end.
//!
//! Never in a field: `Authorization`, cookies, tokens or their digests, passwords, bodies, query strings.

use crate::telemetry::{Finished, is_ours};
use crate::trace::Reason;
use std::num::NonZeroU32;

/// Target of access lines.
pub const ACCESS: &str = "doorward::access";

/// One line for a finished request; a warning if something on our side or behind us failed. `stands_for`: for how many
/// requests that passed, so that whoever counts lines can count requests.
pub fn access_line(request: &Finished<'_>, stands_for: NonZeroU32) {
    let trace = request.trace;
    macro_rules! line {
        ($level:expr) => {
            tracing::event!(
                target: ACCESS,
                $level,
                request.id = request.request_id,
                client.address = %request.client,
                network.protocol.version = format!("{:?}", request.protocol),
                tls.protocol.version = request.tls_version,
                http.request.method = request.method.as_str(),
                server.address = request.host,
                url.path = request.path,
                http.route = request.route,
                http.response.status_code = request.status,
                error.type = (trace.reason != Reason::None).then(|| trace.reason.name()),
                auth.scheme = request.scheme.map(crate::identity::SchemeKind::name),
                auth.outcome = trace.outcome(),
                auth.answered_by = trace.answered_by.name(),
                auth.principal = trace.principal.map(|user| user.0),
                auth.credential = trace.credential.map(|id| id.to_string()),
                throttle.scope = request.throttle,
                throttle.wait_ms = request.throttle.map(|_| trace.throttle_wait_ms),
                upstream.name = request.upstream.filter(|_| trace.upstream_server.is_some()),
                upstream.attempt = (trace.upstream_attempts > 0).then_some(trace.upstream_attempts),
                upstream.server = trace.upstream_server,
                upstream.duration_ms = (trace.upstream_us > 0).then_some(trace.upstream_us / 1000),
                headers.removed = (trace.headers_removed > 0).then_some(trace.headers_removed),
                request.body_bytes = request.request_bytes,
                response.body_bytes = request.response_bytes,
                sample.rate = (stands_for > NonZeroU32::MIN).then_some(stands_for.get()),
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
