//! What is told of requests: one line for each that has finished, written from its trace.
//!
//! Field names are in `fields.rs` and nowhere else. The log is written by a thread of its own, so that a reader
//! that stalls never stalls a request; lines that do not fit are counted and dropped.

pub mod fields;
pub mod metrics;

use crate::identity::SchemeKind;
use crate::trace::{Reason, Trace};
use http::Method;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder};
use tracing_subscriber::EnvFilter;

/// A request that has ended: everything that may be told of it.
#[derive(Debug)]
pub struct Finished<'a> {
    /// What was decided.
    pub trace: &'a Trace,
    /// The request's id.
    pub request_id: &'a str,
    /// Method.
    pub method: &'a Method,
    /// Path in normal form, without the query; `None` if it could not be read.
    pub path: Option<&'a str>,
    /// Host asked for.
    pub host: Option<&'a str>,
    /// Name of the route.
    pub route: Option<&'a str>,
    /// Name of the upstream.
    pub upstream: Option<&'a str>,
    /// Name of the throttle or guard that refused.
    pub throttle: Option<&'a str>,
    /// Kind of the scheme that verified the credentials.
    pub scheme: Option<SchemeKind>,
    /// The client.
    pub client: IpAddr,
    /// `HTTP/1.1`, `HTTP/2.0`.
    pub protocol: http::Version,
    /// `TLSv1_3`, or nothing.
    pub tls_version: Option<&'static str>,
    /// `None`: the client went away before there was an answer.
    pub status: Option<u16>,
    /// From the head's arrival to the end of the answer.
    pub duration: Duration,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub response_bytes: u64,
}

/// Is told of every finished request.
pub trait Observer: std::fmt::Debug + Send + Sync {
    /// Called once a request, on its core: must not wait.
    fn finished(&self, request: &Finished<'_>);
}

/// Writes the access line.
#[derive(Debug)]
pub struct AccessLog;

impl Observer for AccessLog {
    fn finished(&self, request: &Finished<'_>) {
        if !tracing::enabled!(target: fields::ACCESS, tracing::Level::INFO) {
            return;
        }
        fields::access_line(request);
    }
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Keeps the log's thread; what was logged is written out when it is dropped.
#[must_use]
#[derive(Debug)]
pub struct LogGuard {
    _writer: tracing_appender::non_blocking::WorkerGuard,
}

/// Lines that wait for the log's thread, at most; what comes then is counted and dropped.
pub const QUEUE_LINES: usize = 4 * 1024;

/// Of the log of this process, once it was started.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines of this process's log that were lost since its start, because its reader was slow.
pub fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, |dropped| u64::try_from(dropped.dropped_lines()).unwrap_or(u64::MAX))
}

/// Starts the log, to standard error. Only the first call of a process has an effect.
pub fn start_log(format: Format, level: tracing::Level) -> LogGuard {
    let queue = NonBlockingBuilder::default().buffered_lines_limit(QUEUE_LINES).lossy(true);
    let (writer, guard) = queue.finish(std::io::stderr());
    // Another log than the first is nobody's.
    DROPPED.set(writer.error_counter()).unwrap_or_default();
    // Libraries only tell what someone must act on; what h2 warns of, any client can provoke.
    let filter = EnvFilter::new(format!("warn,h2=error,doorward={level}"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    let started = match format {
        Format::Text => builder.with_target(false).try_init(),
        Format::Json => builder.json().flatten_event(true).with_target(false).try_init(),
    };
    if started.is_err() {
        tracing::debug!("the log was started before");
    }
    LogGuard { _writer: guard }
}

/// Whether a reason is worth the level of a warning: someone may have to act on it.
pub(in crate::telemetry) fn is_ours(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::StoreUnavailable
            | Reason::StoreBusy
            | Reason::UpstreamUnreachable
            | Reason::ConnectTimeout
            | Reason::UpstreamBusy
            | Reason::ResponseTimeout
            | Reason::UpstreamClosed
            | Reason::UpstreamInvalid
            | Reason::ResponseAborted
            | Reason::PasswordBusy
            | Reason::NotWritten
            | Reason::Internal
    )
}
