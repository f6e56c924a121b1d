//! A request's body: counted, limited, and able to give back a prefix that a scheme has read.

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// Why a request's body ended early; always the client's doing.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Larger than the route allows.
    #[error("the request body is larger than the route allows")]
    TooLarge,
    /// Slower than the limit.
    #[error("the request body comes too slowly")]
    TooSlow,
    /// The client went away, or broke the framing.
    #[error("the request body broke off")]
    Aborted(#[source] hyper::Error),
}

/// The body of a request, read once.
#[derive(Debug)]
pub struct RequestBody {
    prefix: Bytes,
    incoming: Incoming,
    received: u64,
    /// The same, for who reports on the request after the body is gone; `None`: there is no body.
    counter: Option<Arc<AtomicU64>>,
    bytes_max: u64,
    /// The client waits for `100 Continue`, which is sent with the first read.
    expects_continue: bool,
    is_read: bool,
    limits: BodyLimits,
    /// Since when the client is being waited for.
    waiting_since: Option<Instant>,
    /// For how long it was waited for before.
    waited: Duration,
}

/// Limits of every body, whatever the route.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// If nobody wants it.
    pub drain: DrainLimits,
    /// `[limits] body_rate`: bytes for each second that the client is waited for.
    pub rate: u64,
    /// `[limits] body_idle`: waits up to this are not counted against the rate.
    pub patience: Duration,
}

/// How much of a body that nobody wants is read nevertheless.
#[derive(Debug, Clone, Copy)]
pub struct DrainLimits {
    /// `[limits] unread_body`
    pub bytes_max: u64,
    /// `[limits] unread_body_time`
    pub time_max: Duration,
}

impl RequestBody {
    /// Wraps what hyper received; unlimited until [`Self::limit`] is called.
    pub fn new(incoming: Incoming, expects_continue: bool, limits: BodyLimits) -> Self {
        let counter = (!incoming.is_end_stream()).then(Arc::default);
        Self {
            prefix: Bytes::new(),
            incoming,
            received: 0,
            counter,
            bytes_max: u64::MAX,
            expects_continue,
            is_read: false,
            limits,
            waiting_since: None,
            waited: Duration::ZERO,
        }
    }

    /// Sets the largest size.
    ///
    /// # Errors
    /// If the size that was announced is larger.
    pub fn limit(&mut self, bytes_max: u64) -> Result<(), BodyError> {
        self.bytes_max = bytes_max;
        let announced = self.incoming.size_hint().lower().saturating_add(self.received);
        if announced > bytes_max { Err(BodyError::TooLarge) } else { Ok(()) }
    }

    /// Bytes received so far, and later; `None`: there is no body.
    pub fn counter(&self) -> Option<Arc<AtomicU64>> {
        self.counter.clone()
    }

    /// Whether the request has a body at all, or some of it is left.
    pub fn is_empty(&self) -> bool {
        self.is_end_stream()
    }

    /// Reads up to `bytes_max` bytes and keeps them to be read again: what follows is forwarded unchanged.
    ///
    /// # Errors
    /// If the body breaks off, or pauses for longer than `[limits] body_idle`.
    pub async fn peek(&mut self, bytes_max: usize) -> Result<&[u8], BodyError> {
        let mut read = BytesMut::from(std::mem::take(&mut self.prefix));
        while read.len() < bytes_max && !self.incoming.is_end_stream() {
            let patience = self.limits.patience;
            match tokio::time::timeout(patience, self.frame()).await {
                Err(_) => return Err(BodyError::TooSlow),
                Ok(None) => break,
                Ok(Some(frame)) => {
                    if let Ok(data) = frame?.into_data() {
                        read.extend_from_slice(&data);
                    }
                }
            }
        }
        self.prefix = read.freeze();
        Ok(self.prefix.get(..bytes_max).unwrap_or(&self.prefix))
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// If it breaks off or is larger than the limit; the rest is still there, for [`Self::drain`].
    pub async fn collect_all(&mut self) -> Result<Bytes, BodyError> {
        let mut all = BytesMut::new();
        while let Some(frame) = self.frame().await {
            if let Ok(data) = frame?.into_data() {
                all.extend_from_slice(&data);
            }
        }
        Ok(all.freeze())
    }

    /// Whether reading on helps the client to get an answer that does not need the body.
    ///
    /// Not if nothing is left, and not if the client waits for `100 Continue`: it has sent nothing.
    pub fn is_worth_draining(&self) -> bool {
        !self.incoming.is_end_stream() && (!self.expects_continue || self.is_read)
    }

    /// Reads on in a task of its own and throws away what comes, so that a client that is still sending gets to
    /// read its answer: closing under it would reset the connection (RFC 9112 section 9.6, RFC 9113 section 8.1).
    ///
    /// Not if nothing is left, and not if the client waits for `100 Continue`: it has sent nothing.
    pub fn drain(mut self) {
        let is_sending = !self.incoming.is_end_stream() && (!self.expects_continue || self.is_read);
        if !is_sending {
            return;
        }
        let mut left = self.limits.drain.bytes_max;
        let discard = async move {
            while let Some(Ok(frame)) = self.incoming.frame().await {
                let length = frame.data_ref().map_or(0, Bytes::len);
                left = left.saturating_sub(u64::try_from(length).unwrap_or(u64::MAX));
                if left == 0 {
                    break;
                }
            }
        };
        tokio::spawn(tokio::time::timeout(self.limits.drain.time_max, discard));
    }
}

impl RequestBody {
    /// Only the time that the client is waited for counts: an upstream that reads slowly is not its fault.
    fn count_waiting(&mut self, is_pending: bool) {
        if is_pending {
            self.waiting_since.get_or_insert_with(Instant::now);
        } else if let Some(since) = self.waiting_since.take() {
            self.waited = self.waited.saturating_add(since.elapsed());
        }
    }

    fn is_too_slow(&self) -> bool {
        let due = self.limits.rate.saturating_mul(self.waited.as_secs());
        self.waited > self.limits.patience && self.received < due && !self.incoming.is_end_stream()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.prefix.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.prefix)))));
        }
        self.is_read = true;
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        self.count_waiting(polled.is_pending());
        let frame = match ready!(polled) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(BodyError::Aborted(error)))),
            Some(Ok(frame)) => frame,
        };
        let length = frame.data_ref().map_or(0, Bytes::len);
        self.received = self.received.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        if let Some(counter) = &self.counter {
            counter.store(self.received, Ordering::Relaxed);
        }
        if self.received > self.bytes_max {
            return Poll::Ready(Some(Err(BodyError::TooLarge)));
        }
        if self.is_too_slow() {
            return Poll::Ready(Some(Err(BodyError::TooSlow)));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.prefix.is_empty() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let prefix = u64::try_from(self.prefix.len()).unwrap_or(u64::MAX);
        let rest = self.incoming.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(prefix));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(prefix));
        }
        hint
    }
}
