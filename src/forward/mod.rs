//! Forward: the request goes to an upstream, and its answer comes back.
//!
//! The HTTP/1.1 client is our own and is driven inside the request's own future: no task per connection, no
//! channel, and the answer's body carries what is left of the request's, so that both stream at the same time.

pub mod client;
mod connection;
pub mod core;
mod deadline;
mod exchange;
mod request;
mod response;
mod upload;
pub mod upstream;

use crate::accept::body::{BodyError, RequestBody};
use crate::accept::head::Head;
use crate::forward::client::UpstreamBody;
use crate::forward::request::HeadWriter;
use crate::forward::upstream::Upstream;
use crate::throttle::Admitted;
use crate::trace::Trace;
use http::Response;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub use crate::forward::request::ForwardHeaders;

/// Why there is no answer from the upstream, by whose fault it was.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The client's: its body.
    #[error("the request body failed")]
    Body(#[from] BodyError),
    /// The client's: it stopped sending.
    #[error("the client stopped sending its body")]
    BodyTimeout,
    /// The upstream's: no connection.
    #[error("the upstream cannot be reached")]
    Unreachable(#[source] std::io::Error),
    /// The upstream's: no connection in time.
    #[error("connecting to the upstream took too long")]
    ConnectTimeout,
    /// The upstream's: all its connections are taken.
    #[error("all connections to the upstream are taken")]
    Busy,
    /// The upstream's: no answer in time.
    #[error("the upstream did not answer in time")]
    ResponseTimeout,
    /// The upstream's: the connection ended without an answer.
    #[error("the upstream closed the connection without an answer")]
    Closed(#[source] Option<std::io::Error>),
    /// The upstream's: no valid HTTP.
    #[error("the upstream's answer is not valid HTTP: {0}")]
    Invalid(&'static str),
}

/// What one route's requests are forwarded with.
#[derive(Debug)]
pub struct Forwarder {
    /// Where to.
    pub upstream: Arc<Upstream>,
    /// What is added to and taken from the head.
    pub headers: ForwardHeaders,
    /// Longest pause of the client in its body.
    pub body_idle: Duration,
    /// Longest head of an answer, and most fields.
    pub head_limits: HeadLimits,
}

/// Limits on the head of an answer.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes.
    pub bytes_max: usize,
    /// Fields.
    pub fields_max: usize,
}

/// Forwards a request and waits for the head of the answer; its body streams.
///
/// # Errors
/// If no valid answer began.
///
/// # Cancel safety
/// Dropping the future closes the connection to the upstream.
pub async fn forward(
    forwarder: &Forwarder,
    admitted: Admitted,
    head: &Head,
    body: RequestBody,
    trace: &mut Trace,
) -> Result<Response<UpstreamBody>, ForwardError> {
    let writer = HeadWriter { settings: &forwarder.headers, head, identity: admitted.identity() };
    let began = Instant::now();
    let answer = client::send(forwarder, &writer, body, trace).await;
    if answer.is_ok() {
        trace.upstream_took(began.elapsed());
    }
    answer
}
