//! What is left to send of a request: its head, then its body in the framing that was announced.

use crate::accept::body::{BodyError, RequestBody};
use crate::forward::connection::Connection;
use bytes::{Buf as _, Bytes, BytesMut};
use http_body::Body as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// How the body is delimited (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::forward) enum Framing {
    /// There is no body.
    None,
    /// By `Content-Length`; this many bytes are to come.
    Length(u64),
    /// By `Transfer-Encoding: chunked`.
    Chunked,
}

impl Framing {
    /// The framing that a body needs.
    pub(in crate::forward) fn of(body: &RequestBody) -> Self {
        if body.is_end_stream() {
            return Self::None;
        }
        body.size_hint().exact().map_or(Self::Chunked, Self::Length)
    }

    /// Counts a piece; whether it is the last one of an announced length.
    fn is_completed_by(&mut self, data: &Bytes) -> bool {
        let Self::Length(left) = self else { return false };
        *left = left.saturating_sub(u64::try_from(data.len()).unwrap_or(u64::MAX));
        *left == 0 && !data.is_empty()
    }
}

/// Why sending ended early.
#[derive(Debug)]
pub(in crate::forward) enum UploadError {
    /// The client's body failed; the request cannot be completed.
    Body(BodyError),
    /// The upstream takes no more; it may have answered nevertheless.
    Io(io::Error),
}

/// Whom an unfinished upload waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::forward) enum WaitsFor {
    /// More of the body.
    Client,
    /// Room in the socket.
    Upstream,
}

/// The sending half of an exchange.
pub(in crate::forward) struct Upload {
    /// Heads, chunk sizes and line ends: small and ours.
    lines: BytesMut,
    /// A piece of the body, sent after `lines` without being copied.
    data: Bytes,
    body: Option<RequestBody>,
    /// The piece that completes the announced length, until the body is known to have ended.
    last: Option<Bytes>,
    framing: Framing,
    waits_for: WaitsFor,
    sent: u64,
    needs_flush: bool,
}

/// Heads and bodies may hold secrets, so they are not shown.
impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload")
            .field("framing", &self.framing)
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}

impl Upload {
    /// Sends this head and this body.
    pub(in crate::forward) fn new(head: BytesMut, body: RequestBody, framing: Framing) -> Self {
        let body = (framing != Framing::None).then_some(body);
        Self { body, framing, ..Self::head_only(head) }
    }

    /// Sends this head; there is no body.
    pub(in crate::forward) fn head_only(head: BytesMut) -> Self {
        Self {
            lines: head,
            data: Bytes::new(),
            body: None,
            last: None,
            framing: Framing::None,
            waits_for: WaitsFor::Upstream,
            sent: 0,
            needs_flush: false,
        }
    }

    /// Whether all was sent, or given up.
    pub(in crate::forward) fn is_done(&self) -> bool {
        self.body.is_none() && self.lines.is_empty() && self.data.is_empty() && !self.needs_flush
    }

    /// Whom it waits for.
    pub(in crate::forward) fn waits_for(&self) -> WaitsFor {
        self.waits_for
    }

    /// Bytes that went into the socket; progress shows here.
    pub(in crate::forward) fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends no more; what is left of the body is handed out.
    pub(in crate::forward) fn give_up(&mut self) -> Option<RequestBody> {
        self.lines.clear();
        self.data.clear();
        self.last = None;
        self.needs_flush = false;
        self.body.take()
    }

    /// Sends what can be sent; ready when all was.
    pub(in crate::forward) fn poll(
        &mut self,
        connection: &mut Connection,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), UploadError>> {
        loop {
            // Before the first write, so that a head and a small body leave in one segment.
            if self.data.is_empty() {
                match self.poll_body(cx) {
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(UploadError::Body(error))),
                    Poll::Pending if self.lines.is_empty() && !self.needs_flush => {
                        self.waits_for = WaitsFor::Client;
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(())) | Poll::Pending => {}
                }
            }
            self.waits_for = WaitsFor::Upstream;
            if self.lines.is_empty() && self.data.is_empty() {
                ready!(connection.poll_flush(cx)).map_err(UploadError::Io)?;
                self.needs_flush = false;
                if self.body.is_none() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let written = ready!(connection.poll_write(cx, &self.lines, &self.data));
            self.advance(written.map_err(UploadError::Io)?);
        }
    }

    fn advance(&mut self, written: usize) {
        let of_lines = written.min(self.lines.len());
        self.lines.advance(of_lines);
        self.data.advance(written.saturating_sub(of_lines).min(self.data.len()));
        self.sent = self.sent.saturating_add(u64::try_from(written).unwrap_or(0));
        self.needs_flush = true;
    }

    /// Takes the next piece of the body, framed.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        while let Some(body) = self.body.as_mut() {
            let Some(frame) = ready!(Pin::new(&mut *body).poll_frame(cx)).transpose()? else {
                self.body = None;
                if let Some(last) = self.last.take() {
                    self.frame(last);
                }
                if self.framing == Framing::Chunked {
                    self.lines.extend_from_slice(b"0\r\n\r\n");
                }
                break;
            };
            // Trailers are dropped: RFC 9110 section 6.5.1 allows it, and nobody could merge them by mistake.
            let Ok(data) = frame.into_data() else { continue };
            if self.framing.is_completed_by(&data) && !body.is_end_stream() {
                // RFC 9113 section 8.1.1: more than was announced makes the request malformed, and the upstream
                // must not have seen a whole one. So the last piece waits for the end.
                self.last = Some(data);
            } else if !data.is_empty() {
                self.frame(data);
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn frame(&mut self, data: Bytes) {
        if self.framing == Framing::Chunked {
            self.lines.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
            // Small pieces are copied: it is cheaper than a third piece for the line end.
            self.lines.extend_from_slice(&data);
            self.lines.extend_from_slice(b"\r\n");
        } else {
            self.data = data;
        }
    }
}
