//! Spans of finished requests, sent to a collector as OTLP by HTTP.
//!
//! `OpenTelemetry`'s batch processor has the bounded queue and the thread. A queue that is full drops spans, so a
//! collector that is away or stalls costs memory for `SPANS_MAX` spans and nothing else.

use crate::telemetry::spans::{Exchange, Spans};
use crate::telemetry::{Finished, Observer, is_of_upstream, is_ours};
use crate::trace::Reason;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor as _,
};
use parking_lot::Mutex;
use std::borrow::Cow;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

/// Spans that wait to be sent, at most; a request has two at most.
const SPANS_MAX: usize = 4096;
/// Spans that are sent at once, at most.
const BATCH_MAX: usize = 512;
/// Longest time that a span waits for others to be sent with.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// Longest time for a collector to take what it is sent.
const SEND_TIME: Duration = Duration::from_secs(5);
/// Longest time that stopping waits for the last spans to be sent.
const STOP_TIME: Duration = Duration::from_secs(2);
/// The longest answer of a collector that is read.
const ANSWER_BYTES: usize = 64 << 10;

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is no runtime for it.
    #[error("cannot start a runtime")]
    Runtime(#[from] std::io::Error),
    /// The exporter cannot be set up.
    #[error("the exporter cannot be set up")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Makes spans of requests that are recorded, and sends them.
#[derive(Debug)]
pub struct SpanExport {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
}

impl SpanExport {
    /// Starts the thread that sends; `host` may be an IPv6 address without brackets. The collector need not be there.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(host: &str, port: u16, service_name: &str) -> Result<Self, ExportError> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let client = Client {
            host: host.to_owned(),
            port,
            runtime: Mutex::new(runtime),
            is_failing: AtomicBool::new(false),
        };
        let authority =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        // What is said here, the environment cannot say otherwise. What it may add are fields for the collector
        // (OTEL_EXPORTER_OTLP_HEADERS), such as a key, which has no place in the file.
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("http://{authority}/v1/traces"))
            .with_timeout(SEND_TIME)
            .build()?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(SPANS_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(BATCH_DELAY)
            .build();
        let mut processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let version = env!("CARGO_PKG_VERSION");
        let of_process = [("service.name", service_name.to_owned()), ("service.version", version.to_owned())];
        let of_process = of_process.map(|(key, value)| KeyValue::new(key, value));
        processor.set_resource(&Resource::builder_empty().with_attributes(of_process).build());
        Ok(Self { processor, scope: InstrumentationScope::builder("doorward").with_version(version).build() })
    }

    /// Sends what waits, within two seconds. Blocks.
    pub fn stop(&self) {
        if self.processor.shutdown_with_timeout(STOP_TIME).is_err() {
            tracing::warn!("the last spans were not sent in time");
        }
    }

    fn span(&self, spans: &Spans, of: Part<'_>, attributes: Vec<KeyValue>) -> SpanData {
        let id = |id: NonZeroU64| SpanId::from(id.get());
        let trace_id = TraceId::from(spans.trace_id.get());
        SpanData {
            span_context: SpanContext::new(
                trace_id,
                id(of.id),
                TraceFlags::SAMPLED,
                false,
                TraceState::default(),
            ),
            parent_span_id: of.parent.map_or(SpanId::INVALID, id),
            parent_span_is_remote: of.kind == SpanKind::Server && of.parent.is_some(),
            span_kind: of.kind,
            name: of.name,
            start_time: of.start,
            end_time: of.end,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: match of.failed {
                Some(why) => Status::error(why.to_owned()),
                None => Status::Unset,
            },
            instrumentation_scope: self.scope.clone(),
        }
    }
}

/// What the spans of one request differ in.
struct Part<'a> {
    id: NonZeroU64,
    parent: Option<NonZeroU64>,
    kind: SpanKind,
    name: Cow<'static, str>,
    start: SystemTime,
    end: SystemTime,
    failed: Option<&'a str>,
}

impl Observer for SpanExport {
    #[expect(
        clippy::disallowed_methods,
        reason = "a span has the time of day, of whatever clock the rest goes by"
    )]
    fn finished(&self, request: &Finished<'_>) {
        let Some(spans) = request.spans else { return };
        let end = SystemTime::now();
        let start = end.checked_sub(request.duration).unwrap_or(end);
        let method = method(request);
        let reason = Some(request.trace.reason).filter(|reason| *reason != Reason::None);
        if let Some(Exchange { asked, answered }) = spans.exchange {
            let at = |after: Duration| start.checked_add(after).unwrap_or(end);
            let failed = reason.filter(|reason| is_of_upstream(*reason)).map(Reason::name);
            let part = Part {
                id: spans.upstream_id,
                parent: Some(spans.id),
                kind: SpanKind::Client,
                name: method.into(),
                start: at(asked),
                end: answered.map_or(end, at),
                failed,
            };
            self.processor.on_end(self.span(spans, part, of_exchange(request, failed)));
        }
        // OpenTelemetry's conventions: what a client did wrong is no error of a server.
        let is_error = request.status.is_some_and(|status| status >= 500) || reason.is_some_and(is_ours);
        let name = request.route.map_or(Cow::Borrowed(method), |route| format!("{method} {route}").into());
        let part = Part {
            id: spans.id,
            parent: spans.parent_id,
            kind: SpanKind::Server,
            name,
            start,
            end,
            failed: is_error.then(|| reason.map_or("", Reason::name)),
        };
        self.processor.on_end(self.span(spans, part, of_request(request, reason)));
    }
}

/// A name of a bounded set, as OpenTelemetry's conventions have it.
fn method(request: &Finished<'_>) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    KNOWN.into_iter().find(|known| request.method == known).unwrap_or("HTTP")
}

/// Attributes that are there.
fn attributes<const N: usize>(pairs: [(&'static str, Option<Value>); N]) -> Vec<KeyValue> {
    pairs.into_iter().filter_map(|(key, value)| value.map(|value| KeyValue::new(key, value))).collect()
}

fn text(text: Option<&str>) -> Option<Value> {
    text.map(|text| text.to_owned().into())
}

fn number(number: u64) -> Value {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}

/// Names are those of the log, which are OpenTelemetry's where it has one; nothing of the query, no credentials.
fn of_request(request: &Finished<'_>, reason: Option<Reason>) -> Vec<KeyValue> {
    let trace = request.trace;
    let version = match request.protocol {
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    attributes([
        ("request.id", text(Some(request.request_id))),
        ("http.request.method", text(Some(request.method.as_str()))),
        ("http.route", text(request.route)),
        ("http.response.status_code", request.status.map(|status| i64::from(status).into())),
        ("url.path", text(request.path)),
        ("url.scheme", text(Some(if request.tls_version.is_some() { "https" } else { "http" }))),
        ("server.address", text(request.host)),
        ("client.address", Some(request.client.to_string().into())),
        ("network.protocol.version", text(Some(version))),
        ("tls.protocol.version", text(request.tls_version)),
        ("error.type", text(reason.map(Reason::name))),
        ("auth.scheme", text(request.scheme.map(crate::identity::SchemeKind::name))),
        ("auth.outcome", text(Some(trace.outcome()))),
        ("auth.answered_by", text(Some(trace.answered_by.name()))),
        ("auth.principal", trace.principal.map(|user| user.0.into())),
        ("throttle.scope", text(request.throttle)),
        ("request.body_bytes", Some(number(request.request_bytes))),
        ("response.body_bytes", Some(number(request.response_bytes))),
    ])
}

fn of_exchange(request: &Finished<'_>, failed: Option<&str>) -> Vec<KeyValue> {
    let attempts = request.trace.upstream_attempts;
    // What the client got is what the upstream answered, unless it failed; then there may be no answer.
    let status = request.status.filter(|_| failed.is_none());
    attributes([
        ("http.request.method", text(Some(request.method.as_str()))),
        ("http.response.status_code", status.map(|status| i64::from(status).into())),
        ("http.request.resend_count", (attempts > 1).then(|| i64::from(attempts - 1).into())),
        ("upstream.name", text(request.upstream)),
        ("upstream.server", request.trace.upstream_server.map(|server| i64::from(server).into())),
        ("upstream.attempt", (attempts > 0).then(|| i64::from(attempts).into())),
        ("network.protocol.version", text(Some("1.1"))),
        ("error.type", text(failed)),
    ])
}

/// Asks the collector; a connection for each batch, since there is one in a second.
#[derive(Debug)]
struct Client {
    host: String,
    port: u16,
    /// The processor's thread has none.
    runtime: Mutex<Runtime>,
    is_failing: AtomicBool,
}

impl Client {
    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let socket = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request.map(Full::new)).await?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES).collect().await?.to_bytes();
        connection.abort();
        Ok(Response::from_parts(parts, body))
    }

    /// Says it once when it begins to fail, and once when it works again.
    fn note(&self, outcome: &Result<Response<Bytes>, HttpError>) {
        let error = match outcome {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("status {}", answer.status().as_u16())),
            Err(error) => Some(error.to_string()),
        };
        let was_failing = self.is_failing.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !was_failing => {
                tracing::warn!(
                    error,
                    "spans cannot be sent to the collector; they are dropped until they can be"
                );
            }
            None if was_failing => tracing::info!("spans are sent to the collector again"),
            _ => {}
        }
    }
}

#[async_trait]
impl HttpClient for Client {
    /// Called on the processor's thread, which may wait.
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let host = request.uri().authority().map(|authority| authority.as_str().to_owned());
        let host = HeaderValue::from_maybe_shared(host.unwrap_or_default())?;
        request.headers_mut().insert(header::HOST, host);
        *request.uri_mut() = http::Uri::from_static("/v1/traces");
        let outcome = self
            .runtime
            .lock()
            .block_on(async { tokio::time::timeout(SEND_TIME, self.exchange(request)).await })
            .unwrap_or_else(|_| Err("no answer in time".into()));
        self.note(&outcome);
        outcome
    }
}
