//! Sends a request, with at most one retry, and streams the answer's body.
//!
//! A request is sent again only where nobody can tell: over a connection that had been idle, before a byte of an
//! answer came, if it is idempotent and has no body, or if not a byte of it was sent (RFC 9110 section 9.2.2,
//! RFC 9112 section 9.3.1).

use crate::accept::body::RequestBody;
use crate::forward::connection::Connection;
use crate::forward::exchange::{Exchange, Waits};
use crate::forward::request::{ForwardHeaders, HeadWriter};
use crate::forward::response::{Left, ResponseHead};
use crate::forward::upload::{Framing, Upload};
use crate::forward::upstream::Server;
use crate::forward::{ForwardError, Forwarder};
use crate::header::chunked::{Decoder, Piece};
use crate::header::guarded;
use crate::trace::Trace;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response};
use http_body::{Body, Frame, SizeHint};
use smallvec::SmallVec;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Sends and waits for the head of the answer.
pub(in crate::forward) async fn send(
    forwarder: &Forwarder,
    writer: &HeadWriter<'_>,
    body: RequestBody,
    trace: &mut Trace,
) -> Result<Response<UpstreamBody>, ForwardError> {
    let upstream = &forwarder.upstream;
    let method = &writer.head.method;
    let framing = Framing::of(&body);
    let waits = Waits {
        response: upstream.timeout.response,
        idle: upstream.timeout.idle,
        body_idle: forwarder.body_idle,
    };
    let (server, connection) = match connection(forwarder, trace).await {
        Ok(found) => found,
        Err(error) => {
            body.drain();
            return Err(error);
        }
    };
    let may_repeat = connection.is_reused && framing == Framing::None && method.is_idempotent();
    let head = || writer.write(framing, &upstream.host, &server.authority);
    trace.upstream_attempts = trace.upstream_attempts.saturating_add(1);
    let mut exchange = Box::new(Exchange::new(connection, Upload::new(head(), body, framing), waits));
    let mut answer = exchange.head(method, forwarder.head_limits).await;
    if matches!(answer, Err(ForwardError::Closed(_))) && may_repeat && !exchange.has_answer {
        // Its place goes first: where all are taken, it is the one that the new connection needs.
        drop(exchange);
        let connection = connect(&server, forwarder).await?;
        trace.upstream_attempts = trace.upstream_attempts.saturating_add(1);
        exchange = Box::new(Exchange::new(connection, Upload::head_only(head()), waits));
        answer = exchange.head(method, forwarder.head_limits).await;
    }
    match answer {
        Ok(ResponseHead { mut response, left, is_reusable }) => {
            remove_identities(response.headers_mut(), &forwarder.headers);
            Ok(response.map(|()| UpstreamBody::new(exchange, left, is_reusable)))
        }
        Err(error) => {
            if let Some(body) = exchange.take_body() {
                body.drain();
            }
            Err(error)
        }
    }
}

/// An upstream cannot speak for the gateway, in whatever spelling.
fn remove_identities(headers: &mut HeaderMap, settings: &ForwardHeaders) {
    let is_identity =
        |name: &&HeaderName| settings.identity_names().any(|ours| guarded::is_alias(name, ours));
    let names: SmallVec<[HeaderName; 2]> = headers.keys().filter(is_identity).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// An idle connection, or a new one; servers that cannot be connected to are passed over.
async fn connection(
    forwarder: &Forwarder,
    trace: &mut Trace,
) -> Result<(Arc<Server>, Connection), ForwardError> {
    let upstream = &forwarder.upstream;
    let mut tried: SmallVec<[usize; 4]> = SmallVec::new();
    let mut last = ForwardError::Busy;
    while let Some((number, server)) = upstream.choose(&tried) {
        trace.upstream_server = u8::try_from(number).ok();
        if let Some(connection) = server.idle(upstream.timeout.idle) {
            return Ok((Arc::clone(server), connection));
        }
        match connect(server, forwarder).await {
            Ok(connection) => return Ok((Arc::clone(server), connection)),
            Err(error) => last = error,
        }
        tried.push(number);
    }
    Err(last)
}

/// A new connection. Boxed: it is rare, and every request would hold the room for it.
fn connect<'a>(
    server: &'a Arc<Server>,
    forwarder: &Forwarder,
) -> Pin<Box<impl Future<Output = Result<Connection, ForwardError>> + 'a>> {
    let upstream = &forwarder.upstream;
    Box::pin(server.connect(upstream.timeout.connect, upstream.queue_time))
}

/// The body of an answer, streaming; carries what is left of the request's body.
#[derive(Debug)]
pub struct UpstreamBody {
    exchange: Option<Box<Exchange>>,
    body: Reading,
    is_reusable: bool,
}

/// Where in the body the next byte stands.
#[derive(Debug)]
enum Reading {
    Length(u64),
    Chunked(Decoder),
    UntilClose,
    Done,
}

impl UpstreamBody {
    fn new(exchange: Box<Exchange>, left: Left, is_reusable: bool) -> Self {
        let body = match left {
            Left::Nothing | Left::Length(0) => Reading::Done,
            Left::Length(bytes) => Reading::Length(bytes),
            Left::Chunked => Reading::Chunked(Decoder::default()),
            Left::UntilClose => Reading::UntilClose,
        };
        let mut this = Self { exchange: Some(exchange), body, is_reusable };
        match (&this.body, this.exchange.as_mut()) {
            (Reading::Done, _) => this.finish(),
            (Reading::Length(bytes), Some(exchange)) => exchange.connection.expect_body(*bytes),
            _ => {}
        }
        this
    }

    /// The answer is complete: the connection is kept if nothing is wrong with it.
    fn finish(&mut self) {
        let Some(mut exchange) = self.exchange.take() else { return };
        let is_whole = exchange.upload.is_done() && !exchange.is_upload_broken;
        if let Some(body) = exchange.take_body() {
            // The upstream answered without reading all of it: the client still has to get to read the answer.
            body.drain();
        }
        // Bytes beyond the answer belong to nobody (RFC 9112 section 6.3): the connection is not used again.
        if self.is_reusable && is_whole && exchange.connection.input.is_empty() {
            let connection = exchange.connection;
            Arc::clone(&connection.server).keep(connection);
        }
    }

    /// The exchange failed in the middle: the client must be able to tell, so the error is passed on.
    fn fail(&mut self, error: ForwardError) -> Poll<Option<Result<Frame<Bytes>, ForwardError>>> {
        self.exchange = None;
        self.body = Reading::Done;
        Poll::Ready(Some(Err(error)))
    }

    /// Takes what was read and belongs to the body. `None`: more is needed, or the body is complete.
    fn take(&mut self) -> Result<Option<Bytes>, ForwardError> {
        let Some(exchange) = self.exchange.as_mut() else { return Ok(None) };
        let input = &mut exchange.connection.input;
        match &mut self.body {
            Reading::Done => Ok(None),
            Reading::Chunked(decoder) => match decoder.next(input) {
                Ok(Piece::Data(data)) => Ok(Some(data)),
                Ok(Piece::NeedsInput) => Ok(None),
                Ok(Piece::End) => {
                    self.body = Reading::Done;
                    Ok(None)
                }
                Err(_) => Err(ForwardError::Invalid("malformed chunked coding")),
            },
            _ if input.is_empty() => Ok(None),
            Reading::UntilClose => Ok(Some(input.split().freeze())),
            Reading::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left = left.saturating_sub(u64::try_from(take).unwrap_or(*left));
                if *left == 0 {
                    self.body = Reading::Done;
                }
                Ok(Some(input.split_to(take).freeze()))
            }
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = ForwardError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ForwardError>>> {
        let this = &mut *self;
        loop {
            match this.take() {
                Err(error) => return this.fail(error),
                Ok(Some(data)) => {
                    // With the last bytes the connection is free, and the end is known at once.
                    if matches!(this.body, Reading::Done) {
                        this.finish();
                    } else if let Some(Err(error)) =
                        this.exchange.as_mut().map(|exchange| exchange.poll_upload(cx))
                    {
                        return this.fail(error);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(None) => {}
            }
            let (Some(exchange), false) = (this.exchange.as_mut(), matches!(this.body, Reading::Done)) else {
                this.finish();
                return Poll::Ready(None);
            };
            match ready!(exchange.poll_more(cx)) {
                Ok(0) if matches!(this.body, Reading::UntilClose) => {
                    this.body = Reading::Done;
                    this.is_reusable = false;
                }
                Ok(0) => return this.fail(ForwardError::Closed(None)),
                Ok(_) => {}
                Err(error) => return this.fail(error),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.exchange.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.body {
            Reading::Length(bytes) => SizeHint::with_exact(bytes),
            Reading::Done => SizeHint::with_exact(0),
            Reading::Chunked(_) | Reading::UntilClose => SizeHint::default(),
        }
    }
}
