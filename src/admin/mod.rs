//! What operators ask: is it alive, is it ready, what has it counted, and, over a unix socket only, how it stands.
//!
//! Apart from the gateway: another listener, another runtime, no route leads here. Whoever asks is served one request
//! a connection, in a bounded time, and at most [`CONNECTIONS_MAX`] at a time.

mod socket;

pub use crate::admin::socket::AdminSocket;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

/// Connections that are served at a time; the others wait to be accepted.
const CONNECTIONS_MAX: usize = 256;
/// For the head of a request: whoever is slow must not keep a probe waiting.
const HEADER_TIME: Duration = Duration::from_secs(2);
/// For one connection in all.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// Largest head of a request.
const HEADER_BYTES_MAX: usize = 8 * 1024;
/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether requests are to be sent here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// `starting`, `ready` or `draining`.
    pub status: &'static str,
    /// Whether it is ready.
    pub is_ready: bool,
    /// Parts that do not do their work; requests are served as far as they can be.
    pub degraded: Vec<&'static str>,
}

/// Who knows the answers.
pub trait Answers: Debug + Send + Sync + 'static {
    /// Whether requests are to be sent here.
    fn readiness(&self) -> Readiness;
    /// What was counted; media type and text.
    fn metrics(&self) -> (&'static str, String);
    /// How it stands, as JSON.
    fn status(&self) -> String;
}

/// Who is asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    /// Anybody who reaches the address.
    Network,
    /// The user who runs this process, and root.
    Owner,
}

/// Answers on an address until dropped.
pub async fn serve_address(listener: TcpListener, answers: Arc<dyn Answers>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let serving = serve(stream, Asker::Network, Arc::clone(&answers));
                tokio::spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(error) => failed(&error).await,
        }
    }
}

/// Answers on a unix socket until dropped.
pub async fn serve_socket(listener: UnixListener, answers: Arc<dyn Answers>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let serving = serve(stream, Asker::Owner, Arc::clone(&answers));
                tokio::spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(error) => failed(&error).await,
        }
    }
}

async fn failed(error: &io::Error) {
    tracing::warn!(%error, "the admin listener cannot accept");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    asker: Asker,
    answers: Arc<dyn Answers>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .keep_alive(false)
        .max_buf_size(HEADER_BYTES_MAX);
    let service = service_fn(move |request: Request<Incoming>| {
        let answers = Arc::clone(&answers);
        async move {
            // What is asked for may take locks that requests need, each for a moment.
            Ok::<_, Infallible>(answer(request.method(), request.uri().path(), asker, answers.as_ref()))
        }
    });
    let connection = http.serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection of the admin listener ended"),
        Err(late) => tracing::debug!(%late, "a connection of the admin listener ended"),
    }
}

fn answer(method: &Method, path: &str, asker: Asker, answers: &dyn Answers) -> Response<Full<Bytes>> {
    let mut answer = match (path, asker) {
        (_, _) if !matches!(*method, Method::GET | Method::HEAD) => {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            answer
        }
        ("/livez", _) => text(StatusCode::OK, "alive\n"),
        ("/readyz", _) => ready(&answers.readiness()),
        ("/metrics", _) => {
            let (media_type, metrics) = answers.metrics();
            respond(StatusCode::OK, media_type, metrics)
        }
        ("/status", Asker::Owner) => respond(StatusCode::OK, JSON, answers.status()),
        ("/status", Asker::Network) => {
            text(StatusCode::FORBIDDEN, "the status is told over the unix socket only: doorward status\n")
        }
        _ => text(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n"),
    };
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

const JSON: &str = "application/json";

fn ready(readiness: &Readiness) -> Response<Full<Bytes>> {
    let status = if readiness.is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({ "status": readiness.status, "degraded": readiness.degraded });
    respond(status, JSON, format!("{body}\n"))
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body)
}

fn respond(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
