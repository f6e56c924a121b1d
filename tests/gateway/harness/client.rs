//! A client for both protocols: HTTP/1.1 by hand, so that malformed bytes can be sent, HTTP/2 by hyper's client.
//!
//! Every answer is checked against a list of allowed field names: the gateway's own, and those that the test says
//! its upstream sends. So a field that leaks fails whatever test it leaks in.

use super::wire::{Fields, Framing, Piece, Reader, Stop, values};
use super::{PATIENCE, secrets};
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Fields that the gateway may put on any answer.
const OWN_FIELDS: &[&str] = &[
    "content-type",
    "content-length",
    "www-authenticate",
    "retry-after",
    "vary",
    "date",
    "x-request-id",
    "cache-control",
    "allow",
];

/// Fields of the message's framing, of HTTP/1.1 only.
const HTTP1_FIELDS: &[&str] = &["connection", "transfer-encoding"];

/// Which protocol a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// What a request carries.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    /// No body, no word of one.
    None,
    /// With a `Content-Length`.
    Length(Vec<u8>),
    /// Chunked over HTTP/1.1, DATA without a length over HTTP/2.
    Unsized(Vec<u8>),
    /// As `Length`, and what the test sends through `Upload`.
    StreamedLength(u64),
    /// As `Unsized`, and what the test sends through `Upload`.
    Streamed,
}

/// A request, for either protocol.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: String,
    target: String,
    authority: String,
    fields: Fields,
    payload: Payload,
    trailers: Fields,
    expected: Vec<String>,
}

/// The name that requests are for unless they say otherwise.
pub(crate) const AUTHORITY: &str = "gateway.test";

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            authority: AUTHORITY.to_owned(),
            fields: Fields::new(),
            payload: Payload::None,
            trailers: Fields::new(),
            expected: Vec::new(),
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST whose body has a `Content-Length`.
    pub(crate) fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", target).payload(Payload::Length(body.into()))
    }

    pub(crate) fn payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }

    pub(crate) fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// A trailer; only with a body without a length.
    pub(crate) fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }

    pub(crate) fn token(self, token: &str) -> Self {
        secrets::used(token);
        self.field("Authorization", format!("Token {token}"))
    }

    pub(crate) fn authority(mut self, authority: &str) -> Self {
        authority.clone_into(&mut self.authority);
        self
    }

    /// The answer may carry these fields besides the gateway's own.
    pub(crate) fn expect(mut self, names: &[&str]) -> Self {
        self.expected.extend(names.iter().map(|name| name.to_ascii_lowercase()));
        self
    }

    /// The head as HTTP/1.1 writes it.
    fn http1_head(&self) -> Vec<u8> {
        let mut head =
            format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.authority).into_bytes();
        for (name, value) in &self.fields {
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value);
            head.extend_from_slice(b"\r\n");
        }
        match &self.payload {
            Payload::None => {}
            Payload::Length(body) => {
                head.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
            }
            Payload::StreamedLength(length) => {
                head.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
            }
            Payload::Unsized(_) | Payload::Streamed => {
                head.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            }
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    /// The head as hyper's client takes it.
    fn http2_head(&self) -> http::request::Builder {
        let target = if self.target == "*" { "/*" } else { self.target.as_str() };
        let uri = if target.starts_with('/') {
            http::Uri::builder()
                .scheme("https")
                .authority(self.authority.as_str())
                .path_and_query(target)
                .build()
        } else {
            target.parse().map_err(http::Error::from)
        };
        let uri = uri.unwrap_or_else(|error| panic!("{target:?} cannot be said to hyper's client: {error}"));
        let mut builder = http::Request::builder().method(self.method.as_str()).uri(uri);
        for (name, value) in &self.fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            builder = builder.header(name, HeaderValue::from_bytes(value).unwrap());
        }
        builder
    }

    fn length(&self) -> Option<u64> {
        match &self.payload {
            Payload::None => Some(0),
            Payload::Length(body) => Some(body.len() as u64),
            Payload::StreamedLength(length) => Some(*length),
            Payload::Unsized(_) | Payload::Streamed => None,
        }
    }
}

/// A whole answer, or what came of it.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    /// The body ended before its end; the client can tell.
    pub(crate) truncated: bool,
    /// Interim answers that came before it.
    pub(crate) interim: Vec<u16>,
}

impl Answer {
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let values = values(&self.fields, name);
        values.iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect()
    }

    /// The one value of a field; `None` if it is missing.
    pub(crate) fn one(&self, name: &str) -> Option<String> {
        let mut all = self.all(name);
        assert!(all.len() < 2, "{name} came {} times: {all:?}", all.len());
        all.pop()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The `detail` of one of the gateway's own answers.
    pub(crate) fn detail(&self) -> String {
        assert_eq!(self.one("content-type").as_deref(), Some("application/json"), "{self:?}");
        let value: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(value.as_object().map(serde_json::Map::len), Some(1), "{value}");
        value["detail"].as_str().unwrap().to_owned()
    }
}

/// There was no answer: the connection or the stream ended.
#[derive(Debug)]
pub(crate) struct NoAnswer(pub(crate) String);

/// A client's connection.
pub(crate) type Stream = TlsStream<TcpStream>;

/// A client's connection, by TLS or in clear.
pub(crate) type Wire = Box<dyn Io>;

/// What can be read from and written to.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One HTTP/1.1 connection.
struct Http1 {
    reader: Reader<ReadHalf<Wire>>,
    writer: WriteHalf<Wire>,
}

/// A client; requests one after the other share a connection.
pub(crate) struct Client {
    pub(crate) protocol: Protocol,
    address: SocketAddr,
    in_clear: bool,
    /// Where connections come from; `None`: the system chooses.
    source: Option<IpAddr>,
    idle: Mutex<Vec<Http1>>,
    shared: tokio::sync::Mutex<Option<SendRequest<Channel>>>,
}

/// The one place for a session's key is its cookie: it is noted, and the field is not kept.
fn without_sessions(fields: &Fields) -> Fields {
    let keep = |(name, value): &(String, Vec<u8>)| {
        let text = String::from_utf8_lossy(value).into_owned();
        let key = text.strip_prefix("sessionid=").and_then(|rest| rest.split(';').next());
        // Django's keys are 32 letters and digits.
        let Some(key) = key.filter(|key| key.len() == 32 && name.eq_ignore_ascii_case("set-cookie")) else {
            return (name.clone(), value.clone());
        };
        secrets::used(key);
        (name.clone(), text.replace(key, "…").into_bytes())
    };
    fields.iter().map(keep).collect()
}

/// Waits, but not for ever.
pub(crate) async fn patiently<T>(what: &str, wait: impl Future<Output = T> + Send) -> T {
    let result = tokio::time::timeout(PATIENCE, wait).await;
    result.unwrap_or_else(|_| panic!("took more than {PATIENCE:?}: {what}"))
}

impl Client {
    pub(crate) fn new(protocol: Protocol, address: SocketAddr) -> Self {
        let (idle, shared) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { protocol, address, in_clear: false, source: None, idle, shared }
    }

    /// A client that speaks HTTP/1.1 in clear.
    pub(crate) fn in_clear(address: SocketAddr) -> Self {
        Self { in_clear: true, ..Self::new(Protocol::Http1, address) }
    }

    /// Another client, with connections of its own.
    pub(crate) fn fresh(&self) -> Self {
        Self { in_clear: self.in_clear, source: self.source, ..Self::new(self.protocol, self.address) }
    }

    /// Another client, at another address of this machine.
    pub(crate) fn at(&self, source: IpAddr) -> Self {
        Self { source: Some(source), ..self.fresh() }
    }

    async fn connect(&self, protocol: Protocol) -> Wire {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
        if let Some(source) = self.source {
            socket.bind(SocketAddr::new(source, 0)).unwrap();
        }
        let tcp = socket.connect(self.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        if self.in_clear {
            return Box::new(tcp);
        }
        let expected: &[u8] = if protocol == Protocol::Http2 { b"h2" } else { b"http/1.1" };
        let config = tls_config(rustls::ALL_VERSIONS, &[expected]);
        let stream = handshake(&Arc::new(config), "localhost", tcp).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(expected));
        Box::new(stream)
    }

    async fn http1(&self) -> Http1 {
        let (io, writer) = tokio::io::split(self.connect(Protocol::Http1).await);
        Http1 { reader: Reader::new(io), writer }
    }

    async fn http2(&self) -> SendRequest<Channel> {
        let mut shared = self.shared.lock().await;
        if let Some(sender) = shared.as_ref().filter(|sender| !sender.is_closed()) {
            return sender.clone();
        }
        let io = TokioIo::new(self.connect(Protocol::Http2).await);
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        *shared = Some(sender.clone());
        sender
    }

    /// Waits until the gateway has closed the connections that this client keeps.
    pub(crate) async fn closed(&self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        let shared = self.shared.lock().await.clone();
        patiently("the gateway closes", async {
            for mut connection in idle {
                connection.reader.ended().await;
            }
            while shared.as_ref().is_some_and(|sender| !sender.is_closed()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// Sends a request whole, reads the answer whole. An answer must come.
    pub(crate) async fn send(&self, request: Request) -> Answer {
        let line = format!("{:?} {} {}", self.protocol, request.method, request.target);
        match self.try_send(request).await {
            Ok(answer) => answer,
            Err(NoAnswer(why)) => panic!("no answer to {line}: {why}"),
        }
    }

    /// The same, if no answer is a possible outcome.
    pub(crate) async fn try_send(&self, request: Request) -> Result<Answer, NoAnswer> {
        let what = format!("{:?} {} {}", self.protocol, request.method, request.target);
        let answer = patiently(&what, Box::pin(self.exchange(request))).await?;
        secrets::answered(&(without_sessions(&answer.fields), &answer.trailers), &answer.body);
        Ok(answer)
    }

    async fn exchange(&self, request: Request) -> Result<Answer, NoAnswer> {
        let (payload, trailers) = (request.payload.clone(), request.trailers.clone());
        let (mut upload, mut download) = self.open(request).await;
        let result = {
            let mut uploaded = std::pin::pin!(async {
                match payload {
                    Payload::None => Ok(()),
                    Payload::Length(body) | Payload::Unsized(body) => {
                        upload.send(body).await?;
                        upload.finish_with(trailers).await
                    }
                    Payload::Streamed | Payload::StreamedLength(_) => panic!("use open() to stream"),
                }
            });
            let mut answered = std::pin::pin!(download.answer());
            tokio::select! {
                answer = &mut answered => answer.map(|answer| (answer, false)),
                // An upload may fail because the answer came early.
                sent = &mut uploaded => answered.await.map(|answer| (answer, sent.is_ok())),
            }
        };
        let (answer, sent) = result?;
        if sent
            && let (Upload::Http1 { writer, .. }, Download::Http1 { reader, reusable: true, .. }) =
                (upload, download)
        {
            self.idle.lock().push(Http1 { reader, writer });
        }
        Ok(answer)
    }

    /// Sends the head; body and answer are the caller's.
    pub(crate) async fn open(&self, request: Request) -> (Upload, Download) {
        let (method, expected) = (request.method.clone(), request.expected.clone());
        match self.protocol {
            Protocol::Http1 => {
                let idle = self.idle.lock().pop();
                let mut connection = match idle {
                    Some(connection) => connection,
                    None => patiently("connecting", Box::pin(self.http1())).await,
                };
                // A connection that the gateway has closed meanwhile shows as an answer that does not come.
                drop(connection.writer.write_all(&request.http1_head()).await);
                drop(connection.writer.flush().await);
                let chunked = request.length().is_none();
                let upload = Upload::Http1 { writer: connection.writer, chunked };
                let reader = connection.reader;
                (upload, Download::Http1 { reader, method, expected, interim: Vec::new(), reusable: false })
            }
            Protocol::Http2 => {
                let mut sender = patiently("connecting", Box::pin(self.http2())).await;
                let (frames, receiver) = mpsc::channel(1);
                let body = Channel { frames: receiver, left: request.length() };
                let answer = sender.send_request(request.http2_head().body(body).unwrap());
                let answer = DownloadHttp2::Waiting(Box::pin(answer));
                (Upload::Http2 { frames: Some(frames) }, Download::Http2 { answer, method, expected })
            }
        }
    }

    /// HTTP/1.1 only: sends bytes as they are on a new connection, reads one answer.
    pub(crate) async fn raw(&self, bytes: impl AsRef<[u8]> + Send) -> RawExchange {
        patiently("a raw exchange", async {
            let mut raw = RawExchange { connection: self.http1().await };
            raw.write(bytes).await;
            raw
        })
        .await
    }
}

/// An HTTP/1.1 connection on which the test writes bytes as it likes.
pub(crate) struct RawExchange {
    connection: Http1,
}

impl RawExchange {
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]> + Send) {
        // The gateway may have refused and closed already.
        drop(self.connection.writer.write_all(bytes.as_ref()).await);
        drop(self.connection.writer.flush().await);
    }

    /// `close_notify` and FIN; the receiving side stays open.
    pub(crate) async fn finish_sending(&mut self) {
        self.connection.writer.shutdown().await.unwrap();
    }

    /// The status of an interim answer, which must come next.
    pub(crate) async fn interim(&mut self) -> u16 {
        let head = patiently("an interim answer", self.connection.reader.head()).await.unwrap();
        let status = head.start.get(9..12).and_then(|digits| digits.parse().ok());
        status.filter(|status| (100..200).contains(status)).unwrap_or_else(|| panic!("{}", head.start))
    }

    /// The next answer on this connection.
    pub(crate) async fn answer(&mut self, method: &str, expected: &[&str]) -> Result<Answer, NoAnswer> {
        patiently("an answer to raw bytes", async {
            let mut reader = Reading {
                reader: &mut self.connection.reader,
                method,
                expected: &expected.iter().map(|name| name.to_ascii_lowercase()).collect::<Vec<_>>(),
            };
            let mut interim = Vec::new();
            let (mut answer, _) = reader.head(&mut interim).await?;
            loop {
                match reader.reader.piece().await {
                    Ok(Piece::Data(data)) => answer.body.extend_from_slice(&data),
                    Ok(Piece::End(trailers)) => {
                        answer.trailers = trailers;
                        return Ok(answer);
                    }
                    Err(Stop::Malformed(what)) => panic!("malformed answer: {what}"),
                    Err(_) => {
                        answer.truncated = true;
                        return Ok(answer);
                    }
                }
            }
        })
        .await
    }

    /// Waits until the gateway closes; yields what came before that.
    pub(crate) async fn closed(&mut self) -> Vec<u8> {
        patiently("the gateway closes", async {
            let mut rest = self.connection.reader.surplus().to_vec();
            while self.connection.reader.fill().await {
                rest = self.connection.reader.surplus().to_vec();
            }
            rest
        })
        .await
    }
}

/// Sends the body of a request.
pub(crate) enum Upload {
    Http1 { writer: WriteHalf<Wire>, chunked: bool },
    Http2 { frames: Option<mpsc::Sender<io::Result<Frame<Bytes>>>> },
}

impl Upload {
    /// Sends a piece; an error if the gateway takes no more.
    pub(crate) async fn send(&mut self, data: impl Into<Bytes> + Send) -> Result<(), NoAnswer> {
        let data = data.into();
        if data.is_empty() {
            return Ok(());
        }
        let refused = |error: io::Error| NoAnswer(error.to_string());
        match self {
            Self::Http1 { writer, chunked: false } => {
                writer.write_all(&data).await.map_err(refused)?;
                writer.flush().await.map_err(refused)
            }
            Self::Http1 { writer, chunked: true } => {
                let mut chunk = format!("{:x}\r\n", data.len()).into_bytes();
                chunk.extend_from_slice(&data);
                chunk.extend_from_slice(b"\r\n");
                writer.write_all(&chunk).await.map_err(refused)?;
                writer.flush().await.map_err(refused)
            }
            Self::Http2 { frames } => {
                let frames = frames.as_ref().unwrap();
                frames
                    .send(Ok(Frame::data(data)))
                    .await
                    .map_err(|_| NoAnswer("the stream is gone".to_owned()))
            }
        }
    }

    /// Ends the body.
    pub(crate) async fn finish(&mut self) -> Result<(), NoAnswer> {
        self.finish_with(Fields::new()).await
    }

    async fn finish_with(&mut self, trailers: Fields) -> Result<(), NoAnswer> {
        match self {
            Self::Http1 { chunked: false, .. } => Ok(()),
            Self::Http1 { writer, chunked: true } => {
                let mut end = b"0\r\n".to_vec();
                for (name, value) in trailers {
                    end.extend_from_slice(
                        format!("{name}: {}\r\n", String::from_utf8_lossy(&value)).as_bytes(),
                    );
                }
                end.extend_from_slice(b"\r\n");
                writer.write_all(&end).await.map_err(|error| NoAnswer(error.to_string()))?;
                writer.flush().await.map_err(|error| NoAnswer(error.to_string()))
            }
            Self::Http2 { frames } => {
                let frames = frames.take().unwrap();
                if trailers.is_empty() {
                    return Ok(());
                }
                let mut map = http::HeaderMap::new();
                for (name, value) in trailers {
                    let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                    map.append(name, HeaderValue::from_bytes(&value).unwrap());
                }
                frames
                    .send(Ok(Frame::trailers(map)))
                    .await
                    .map_err(|_| NoAnswer("the stream is gone".to_owned()))
            }
        }
    }

    /// Breaks off: the connection ends in the middle (HTTP/1.1), the stream is reset (HTTP/2).
    pub(crate) async fn abort(self) {
        match self {
            Self::Http1 { mut writer, .. } => drop(writer.shutdown().await),
            Self::Http2 { frames } => {
                drop(frames.unwrap().send(Err(io::Error::other("the test breaks off"))).await);
            }
        }
    }
}

/// Receives an answer.
pub(crate) enum Download {
    Http1 {
        reader: Reader<ReadHalf<Wire>>,
        method: String,
        expected: Vec<String>,
        interim: Vec<u16>,
        /// The answer came whole and the connection may be used again.
        reusable: bool,
    },
    Http2 {
        answer: DownloadHttp2,
        method: String,
        expected: Vec<String>,
    },
}

/// How far an answer over HTTP/2 is.
pub(crate) enum DownloadHttp2 {
    Waiting(Pin<Box<dyn Future<Output = hyper::Result<http::Response<Incoming>>> + Send>>),
    Streaming(Incoming),
}

impl Download {
    /// Waits for the head; the body of what is returned is empty yet.
    pub(crate) async fn head(&mut self) -> Result<Answer, NoAnswer> {
        patiently("the head of an answer", async {
            match self {
                Self::Http1 { reader, method, expected, interim, reusable } => {
                    let (answer, keep) = Reading { reader, method, expected }.head(interim).await?;
                    *reusable = keep;
                    Ok(answer)
                }
                Self::Http2 { answer, method, expected } => {
                    let DownloadHttp2::Waiting(waiting) = answer else { panic!("the head came before") };
                    let response = waiting.await.map_err(|error| NoAnswer(format!("{error:?}")))?;
                    let (parts, body) = response.into_parts();
                    *answer = DownloadHttp2::Streaming(body);
                    let fields = parts.headers.iter();
                    let fields =
                        fields.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
                    let head = Answer {
                        status: parts.status.as_u16(),
                        fields: fields.collect(),
                        body: Vec::new(),
                        trailers: Fields::new(),
                        truncated: false,
                        interim: Vec::new(),
                    };
                    assert_allowed(&head, expected, &[], method);
                    Ok(head)
                }
            }
        })
        .await
    }

    /// The next piece of the body: `None` at its end, an error if it was cut off.
    pub(crate) async fn piece(&mut self) -> Result<Option<Vec<u8>>, Fields> {
        patiently("a piece of an answer", async {
            match self {
                Self::Http1 { reader, reusable, .. } => match reader.piece().await {
                    Ok(Piece::Data(data)) => Ok(Some(data)),
                    Ok(Piece::End(trailers)) if trailers.is_empty() => Ok(None),
                    Ok(Piece::End(trailers)) => panic!("trailers came: {trailers:?}"),
                    Err(Stop::Malformed(what)) => panic!("malformed answer: {what}"),
                    Err(_) => {
                        *reusable = false;
                        Err(Fields::new())
                    }
                },
                Self::Http2 { answer, method, .. } => {
                    let DownloadHttp2::Streaming(body) = answer else { panic!("read the head first") };
                    match body.frame().await {
                        None => Ok(None),
                        Some(Err(_)) => Err(Fields::new()),
                        Some(Ok(frame)) => match frame.into_data() {
                            Ok(data) => {
                                assert!(method != "HEAD" || data.is_empty(), "DATA in the answer to HEAD");
                                Ok(Some(data.to_vec()))
                            }
                            Err(frame) => panic!("trailers came: {:?}", frame.into_trailers()),
                        },
                    }
                }
            }
        })
        .await
    }

    /// Reads the rest of the body into `answer`.
    pub(crate) async fn rest(&mut self, mut answer: Answer) -> Answer {
        loop {
            match self.piece().await {
                Ok(Some(data)) => answer.body.extend_from_slice(&data),
                Ok(None) => return answer,
                Err(_) => {
                    answer.truncated = true;
                    return answer;
                }
            }
        }
    }

    /// HTTP/1.1 only: waits until the gateway closes the connection, with no byte more.
    pub(crate) async fn ended(&mut self) {
        let Self::Http1 { reader, .. } = self else {
            panic!("a stream of HTTP/2 has no connection of its own")
        };
        patiently("the gateway closes", reader.ended()).await;
    }

    /// The whole answer.
    pub(crate) async fn answer(&mut self) -> Result<Answer, NoAnswer> {
        let head = self.head().await?;
        Ok(self.rest(head).await)
    }
}

/// Reads heads of HTTP/1.1 answers.
struct Reading<'a> {
    reader: &'a mut Reader<ReadHalf<Wire>>,
    method: &'a str,
    expected: &'a [String],
}

impl Reading<'_> {
    /// The head of the final answer, and whether the connection may be used again after it.
    async fn head(&mut self, interim: &mut Vec<u16>) -> Result<(Answer, bool), NoAnswer> {
        loop {
            let head = self.reader.head().await.map_err(|stop| match stop {
                Stop::Malformed(what) => panic!("malformed answer: {what}"),
                stop => NoAnswer(format!("{stop:?}")),
            })?;
            let rest = head.start.strip_prefix("HTTP/1.1 ").or_else(|| head.start.strip_prefix("HTTP/1.0 "));
            let rest = rest.unwrap_or_else(|| panic!("status line {:?}", head.start));
            let status: u16 = rest.get(..3).and_then(|digits| digits.parse().ok()).unwrap();
            if (100..200).contains(&status) {
                interim.push(status);
                continue;
            }
            let without_body = self.method == "HEAD" || matches!(status, 204 | 304);
            let framing = if without_body {
                Framing::None
            } else {
                Reader::<Wire>::framing(&head, Framing::Close).unwrap_or_else(|stop| panic!("{stop:?}"))
            };
            self.reader.expect_body(framing);
            let fields = head.fields;
            let close =
                values(&fields, "connection").iter().any(|value| value.eq_ignore_ascii_case(b"close"));
            let reusable = !close && framing != Framing::Close && head.start.starts_with("HTTP/1.1");
            let answer = Answer {
                status,
                fields,
                body: Vec::new(),
                trailers: Fields::new(),
                truncated: false,
                interim: interim.clone(),
            };
            assert_allowed(&answer, self.expected, HTTP1_FIELDS, self.method);
            return Ok((answer, reusable));
        }
    }
}

fn assert_allowed(answer: &Answer, expected: &[String], of_protocol: &[&str], method: &str) {
    for (name, value) in &answer.fields {
        let name = name.to_ascii_lowercase();
        let allowed = OWN_FIELDS.contains(&name.as_str())
            || of_protocol.contains(&name.as_str())
            || expected.contains(&name);
        let value = String::from_utf8_lossy(value);
        assert!(allowed, "{name}: {value} leaked into the answer {} to {method}", answer.status);
    }
    let ids = answer.all("x-request-id");
    assert!(ids.len() < 2, "X-Request-Id came {} times", ids.len());
}

/// A request body fed by the test.
#[derive(Debug)]
pub(crate) struct Channel {
    frames: mpsc::Receiver<io::Result<Frame<Bytes>>>,
    left: Option<u64>,
}

impl Body for Channel {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = ready!(self.frames.poll_recv(cx));
        if let (Some(Ok(frame)), Some(left)) = (&frame, &mut self.left) {
            *left -= frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Settings for these versions and ALPN protocols; every certificate is taken. A client of its own: nothing is resumed.
pub(crate) fn tls_config(versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// A TLS handshake that names this server.
pub(crate) async fn handshake(config: &Arc<ClientConfig>, name: &str, tcp: TcpStream) -> io::Result<Stream> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    patiently("a TLS handshake", TlsConnector::from(Arc::clone(config)).connect(name, tcp)).await
}

/// The certificate is self-signed; the signature of the handshake is checked all the same.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
