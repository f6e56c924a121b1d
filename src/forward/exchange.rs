//! One exchange over one connection: a request is sent while its answer is read.

use crate::accept::body::RequestBody;
use crate::forward::ForwardError;
use crate::forward::HeadLimits;
use crate::forward::connection::Connection;
use crate::forward::response::{self, ResponseHead};
use crate::forward::upload::{Upload, UploadError, WaitsFor};
use crate::forward::upstream::InFlight;
use http::Method;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Interim answers that are read over before the final one (RFC 9110 section 15.2).
const INTERIM_MAX: usize = 16;

/// Limits on waiting during an exchange.
#[derive(Debug, Clone, Copy)]
pub(in crate::forward) struct Waits {
    /// For the head of the answer.
    pub(in crate::forward) response: Duration,
    /// For more of its body.
    pub(in crate::forward) idle: Duration,
    /// For more of the client's body.
    pub(in crate::forward) body_idle: Duration,
}

/// Both halves.
#[derive(Debug)]
pub(in crate::forward) struct Exchange {
    pub(in crate::forward) connection: Connection,
    pub(in crate::forward) upload: Upload,
    waits: Waits,
    sent_before: u64,
    /// The upstream takes no more of the request.
    pub(in crate::forward) is_upload_broken: bool,
    /// Whether a byte of an answer came.
    pub(in crate::forward) has_answer: bool,
    _in_flight: InFlight,
}

impl Exchange {
    pub(in crate::forward) fn new(connection: Connection, upload: Upload, waits: Waits) -> Self {
        let in_flight = connection.server.in_flight();
        Self {
            connection,
            upload,
            waits,
            sent_before: 0,
            is_upload_broken: false,
            has_answer: false,
            _in_flight: in_flight,
        }
    }

    /// Sends, and reads the head of the final answer.
    pub(in crate::forward) async fn head(
        &mut self,
        method: &Method,
        limits: HeadLimits,
    ) -> Result<ResponseHead, ForwardError> {
        let mut interim = 0;
        std::future::poll_fn(|cx| {
            loop {
                self.poll_upload(cx)?;
                while let Some(head) = response::parse(&mut self.connection.input, method, limits)? {
                    if !head.response.status().is_informational() {
                        return Poll::Ready(Ok(head));
                    }
                    interim += 1;
                    if interim > INTERIM_MAX {
                        return Poll::Ready(Err(ForwardError::Invalid("too many interim answers")));
                    }
                }
                match self.connection.poll_read(cx) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(ForwardError::Closed(None))),
                    // No progress: the head as a whole is due in time, however it drips.
                    Poll::Ready(Ok(_)) => self.has_answer = true,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(ForwardError::Closed(Some(error)))),
                    Poll::Pending => {
                        ready!(self.poll_deadline(self.waits.response, cx));
                        return Poll::Ready(Err(self.late()));
                    }
                }
            }
        })
        .await
    }

    /// Reads more of the answer's body while the request is sent on. 0: the other side has ended.
    pub(in crate::forward) fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, ForwardError>> {
        self.poll_upload(cx)?;
        match self.connection.poll_read(cx) {
            Poll::Ready(Ok(bytes)) => {
                self.connection.deadline.progress();
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(ForwardError::Closed(Some(error)))),
            Poll::Pending => {
                ready!(self.poll_deadline(self.waits.idle, cx));
                Poll::Ready(Err(self.late()))
            }
        }
    }

    /// Sends what can be sent. An upstream may answer before it has read all and take no more: that alone does
    /// not end the exchange.
    pub(in crate::forward) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), ForwardError> {
        if self.upload.is_done() || self.is_upload_broken {
            return Ok(());
        }
        if let Poll::Ready(Err(error)) = self.upload.poll(&mut self.connection, cx) {
            match error {
                UploadError::Body(error) => return Err(ForwardError::Body(error)),
                UploadError::Io(error) => {
                    tracing::debug!(%error, "the upstream takes no more of the request");
                    self.is_upload_broken = true;
                }
            }
        }
        if self.upload.sent() != self.sent_before {
            self.sent_before = self.upload.sent();
            self.connection.deadline.progress();
        }
        Ok(())
    }

    /// What is left of the request's body, if anything.
    pub(in crate::forward) fn take_body(&mut self) -> Option<RequestBody> {
        self.upload.give_up()
    }

    fn waits_for_client(&self) -> bool {
        !self.upload.is_done() && !self.is_upload_broken && self.upload.waits_for() == WaitsFor::Client
    }

    fn poll_deadline(&mut self, for_upstream: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let limit = if self.waits_for_client() { self.waits.body_idle } else { for_upstream };
        self.connection.deadline.poll(limit, cx)
    }

    fn late(&self) -> ForwardError {
        if self.waits_for_client() { ForwardError::BodyTimeout } else { ForwardError::ResponseTimeout }
    }
}
