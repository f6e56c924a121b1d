//! One connection: handshake, HTTP, and every limit on them set by name.

use crate::accept::activity::{Activity, Judgement, Patience, TrackedBody};
use crate::accept::listener::Speaks;
use crate::accept::peer::Peer;
use crate::accept::stream::{ClientStream, Socket};
use crate::clock::Clock;
use crate::telemetry::metrics::{ConnectionMetrics, Handshake};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::HandshakeKind;
use std::convert::Infallible;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Answers requests; one for all connections.
pub trait Service: Send + Sync + 'static {
    /// The body of its answers.
    type Body: Body<Data = Bytes, Error: Error + Send + Sync + 'static> + Send + Unpin + 'static;

    /// Answers one request.
    fn answer(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// Limits of one connection.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// For the TLS handshake.
    pub handshake_time: Duration,
    /// For heads, idleness and unread answers.
    pub patience: Patience,
    /// Largest head of a request.
    pub header_bytes: usize,
    /// Most fields of a request.
    pub header_count: usize,
    /// Most requests at a time over HTTP/2.
    pub streams: u32,
    /// How long a closed connection is still read.
    pub linger_time: Duration,
    /// How much of it.
    pub linger_bytes: usize,
}

/// Bytes of answers that HTTP/2 keeps for one stream whose client does not read.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// Bytes that a client may send over one HTTP/2 stream before they are read.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// The same for a connection.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Streams that a client may open and reset before we look (CVE-2023-44487).
const RESETS_PENDING_MAX: usize = 20;
/// Streams that we reset for a client's errors before the connection ends (CVE-2025-8671).
const RESETS_OURS_MAX: usize = 100;

/// Fields that hyper has room for without allocating; more are refused.
const HTTP1_FIELDS: usize = 100;

/// An answer on its way.
type Answering<B> = Pin<Box<dyn Future<Output = Result<Response<TrackedBody<B>>, Infallible>> + Send>>;

/// After an idle client was asked to close, until it is looked at again.
const CLOSING_TIME: Duration = Duration::from_secs(1);
/// After the process was told to stop, until an idle HTTP/1.1 connection is closed. Whoever uses it sends a request
/// meanwhile, whose answer says that it was the last; one that crossed the close would be lost (RFC 9112 section 9.5).
const LAST_REQUEST_TIME: Duration = Duration::from_secs(1);

/// What a connection hears of when the process stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parting {
    /// At once: a request that crosses GOAWAY is answered, or the client knows that nobody saw it (RFC 9113 section 6.8).
    AtOnce,
    /// In the next answer.
    InAnAnswer,
}

/// What a reload replaces, all of it at once.
#[derive(Debug)]
pub struct Serving<S> {
    /// TLS.
    pub tls: Arc<rustls::ServerConfig>,
    /// Answers requests.
    pub service: Arc<S>,
    /// Limits. Shared apart, so that a connection does not keep a service that was replaced.
    pub settings: Arc<ConnectionSettings>,
}

/// Everything that connections share.
#[derive(Debug)]
pub struct Connections<S> {
    /// A connection keeps the TLS and the limits that it began with; each request asks for the newest service, once.
    pub serving: ArcSwap<Serving<S>>,
    /// Counts connections.
    pub metrics: ConnectionMetrics,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Cancelled when the process stops.
    pub stop: CancellationToken,
}

impl<S: Service> Connections<S> {
    /// Serves one connection until it ends.
    pub async fn serve(self: Arc<Self>, tcp: TcpStream, address: SocketAddr, speaks: Speaks) {
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "the connection is gone");
            return;
        }
        let (tls, settings) = {
            let serving = self.serving.load();
            (Arc::clone(&serving.tls), Arc::clone(&serving.settings))
        };
        let _open = self.metrics.begin(speaks.name());
        if speaks == Speaks::Http {
            let peer = Peer { address, is_tls: false, tls_version: None };
            let (stream, activity) = self.watched(Socket::Plain(tcp), &settings);
            return Box::pin(self.http1(stream, peer, activity, settings)).await;
        }
        let began = Instant::now();
        // Boxed, so that its room is given back when it is over.
        let handshake = Box::pin(TlsAcceptor::from(tls).accept(tcp));
        let tls = match tokio::time::timeout(settings.handshake_time, handshake).await {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => return self.refused(address.ip(), "connection.handshake", &error),
            Err(late) => return self.refused(address.ip(), "connection.handshake-timeout", &late),
        };
        let session = tls.get_ref().1;
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        let tls_version = session.protocol_version().and_then(|version| version.as_str());
        self.metrics.shaken(&handshake_labels(session, is_http2, tls_version), began.elapsed());
        let peer = Peer { address, is_tls: true, tls_version };
        let (stream, activity) = self.watched(Socket::Tls(tls), &settings);
        // Boxed apart, so that a connection holds only its own kind of future.
        if is_http2 {
            Box::pin(self.http2(stream, peer, activity, settings)).await;
        } else {
            Box::pin(self.http1(stream, peer, activity, settings)).await;
        }
    }

    /// The connection, whose first request is due from now on.
    fn watched(
        &self,
        socket: Socket,
        settings: &ConnectionSettings,
    ) -> (TokioIo<ClientStream>, Arc<Activity>) {
        let activity = Arc::new(Activity::new(Arc::clone(&self.clock)));
        let (time, bytes) = (settings.linger_time, settings.linger_bytes);
        (TokioIo::new(ClientStream::new(socket, Arc::clone(&activity), time, bytes)), activity)
    }

    async fn http1(
        self: Arc<Self>,
        stream: TokioIo<ClientStream>,
        peer: Peer,
        activity: Arc<Activity>,
        settings: Arc<ConnectionSettings>,
    ) {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            // Waits are bounded by `Activity`, which can tell a head from idleness.
            .header_read_timeout(None)
            .max_header_size(settings.header_bytes)
            // A client that has sent its request may say so and still wants the answer.
            .half_close(true);
        if settings.header_count != HTTP1_FIELDS {
            // With another number hyper allocates for every request. One more, so that the refusal is ours.
            http.max_headers(settings.header_count.saturating_add(1));
        }
        let service = self.service_fn(peer, Arc::clone(&activity), true);
        let connection = pin!(http.serve_connection(stream, service));
        let ask_to_close = http1::Connection::graceful_shutdown;
        let parting = Parting::InAnAnswer;
        self.drive(connection, ask_to_close, parting, peer, &activity, settings.patience).await;
    }

    async fn http2(
        self: Arc<Self>,
        stream: TokioIo<ClientStream>,
        peer: Peer,
        activity: Arc<Activity>,
        settings: Arc<ConnectionSettings>,
    ) {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .max_concurrent_streams(settings.streams)
            .max_header_list_size(u32::try_from(settings.header_bytes).unwrap_or(u32::MAX))
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
            .max_local_error_reset_streams(RESETS_OURS_MAX);
        let service = self.service_fn(peer, Arc::clone(&activity), false);
        let connection = pin!(http.serve_connection(stream, service));
        let ask_to_close = http2::Connection::graceful_shutdown;
        let parting = Parting::AtOnce;
        self.drive(connection, ask_to_close, parting, peer, &activity, settings.patience).await;
    }

    fn service_fn(
        self: &Arc<Self>,
        peer: Peer,
        activity: Arc<Activity>,
        tells_heads: bool,
    ) -> impl hyper::service::Service<
        Request<Incoming>,
        Response = Response<TrackedBody<S::Body>>,
        Error = Infallible,
        Future = Answering<S::Body>,
    > + use<S> {
        let connections = Arc::clone(self);
        service_fn(move |request| {
            let in_flight = activity.begin(tells_heads);
            let connections = Arc::clone(&connections);
            // Boxed for each request, so that an idle connection does not hold the room.
            let answer: Answering<S::Body> = Box::pin(async move {
                let is_http1 = request.version() < Version::HTTP_2;
                // The whole request is answered by one plan, whatever comes meanwhile.
                let serving = connections.serving.load_full();
                let mut response = serving.service.answer(request, peer).await;
                if is_http1 && connections.stop.is_cancelled() {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok(response.map(|body| TrackedBody::new(body, in_flight)))
            });
            answer
        })
    }

    /// Runs a connection, asks it to close when the process stops or it is idle, and ends it when its client takes
    /// too long.
    async fn drive<C>(
        &self,
        mut connection: Pin<&mut C>,
        ask_to_close: impl Fn(Pin<&mut C>),
        parting: Parting,
        peer: Peer,
        activity: &Activity,
        mut patience: Patience,
    ) where
        C: Future<Output = Result<(), hyper::Error>>,
    {
        let (mut is_asked, mut knows_of_stop) = (false, false);
        loop {
            // A client that was asked to close has a moment to do so.
            let next_look = if is_asked { CLOSING_TIME } else { activity.next_look(&patience) };
            tokio::select! {
                // Nearly always it is the connection that has something to do.
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        self.told(peer.address.ip(), &error);
                    }
                    return;
                }
                () = self.stop.cancelled(), if !knows_of_stop => {
                    knows_of_stop = true;
                    let asks = parting == Parting::AtOnce && !is_asked;
                    if asks {
                        is_asked = true;
                        ask_to_close(connection.as_mut());
                    }
                    // Whoever has asked for nothing yet is as idle as the others.
                    if activity.excuse(parting == Parting::AtOnce) || !asks {
                        patience.keep_alive = patience.keep_alive.min(LAST_REQUEST_TIME);
                        activity.touch();
                    }
                }
                () = tokio::time::sleep(next_look) => {
                    match activity.judge(&patience) {
                        Judgement::Keep => {}
                        Judgement::Idle if !is_asked => {
                            is_asked = true;
                            ask_to_close(connection.as_mut());
                        }
                        Judgement::Idle => return,
                        Judgement::TooSlow => {
                            let client = peer.address.ip();
                            self.metrics.refused("connection.too-slow");
                            tracing::info!(client.address = %client, error.type = "connection.too-slow", "connection closed");
                            return;
                        }
                    }
                }
            }
        }
    }

    /// A connection that did not come to a request.
    fn refused(&self, client: IpAddr, kind: &'static str, error: &(dyn Error + 'static)) {
        self.metrics.refused(kind);
        tracing::info!(client.address = %client, error.type = kind, error, "connection refused");
    }

    /// What hyper refuses before there is a request: told by connection.
    fn told(&self, client: IpAddr, error: &hyper::Error) {
        let kind = if error.is_parse_too_large() {
            "connection.head-too-large"
        } else if error.is_parse() {
            "connection.malformed"
        } else if error.is_timeout() {
            "connection.timeout"
        } else {
            // The client went away, or an answer was cut off: the request's own line says so.
            tracing::debug!(client.address = %client, error = error as &dyn Error, "connection ended");
            return;
        };
        self.refused(client, kind, error);
    }
}

fn handshake_labels(
    session: &rustls::ServerConnection,
    is_http2: bool,
    version: Option<&'static str>,
) -> Handshake {
    let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    Handshake {
        version: version.unwrap_or_default(),
        kind: if is_resumed { "resumed" } else { "full" },
        protocol: if is_http2 { "h2" } else { "http/1.1" },
    }
}
