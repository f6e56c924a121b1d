//! One who asks whose a request is, as a connection of the gateway does.

use crate::accept::body::{BodyLimits, RequestBody};
use crate::accept::head::{Head, RequestId, Sanitiser};
use crate::accept::peer::Peer;
use crate::app::GatewayService;
use crate::app::bench::BenchError;
use crate::authenticate::scheme::{Context, Effects};
use crate::authenticate::{AuthenticateError, Authenticator};
use crate::cache::local::Now;
use crate::clock::Clock;
use crate::trace::{AnsweredBy, Trace};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::oneshot;

/// Room for a request and its answer on the way to an empty body.
const PIPE_BYTES: usize = 1024;

/// Where requests come to.
#[derive(Debug, Clone)]
pub(in crate::app::bench) enum Door {
    /// A gateway with one route.
    Gateway(Arc<GatewayService>),
    /// What such a route has of it, without anything that listens.
    Alone(Arc<Alone>),
}

/// What a look-up needs of a gateway.
#[derive(Debug)]
pub(in crate::app::bench) struct Alone {
    pub(in crate::app::bench) sanitiser: Sanitiser,
    pub(in crate::app::bench) body_limits: BodyLimits,
    pub(in crate::app::bench) authenticator: Authenticator,
    /// See [`Context::stale_while_unreachable`].
    pub(in crate::app::bench) stale: Duration,
}

impl Door {
    fn sanitiser(&self) -> &Sanitiser {
        match self {
            Self::Gateway(service) => &service.0.sanitiser,
            Self::Alone(alone) => &alone.sanitiser,
        }
    }

    fn body_limits(&self) -> BodyLimits {
        match self {
            Self::Gateway(service) => service.0.body_limits,
            Self::Alone(alone) => alone.body_limits,
        }
    }

    fn authenticator(&self) -> Option<(&Authenticator, Duration)> {
        match self {
            Self::Gateway(service) => {
                let plan = service.0.routes.plans().first()?;
                Some((&plan.authenticator, plan.stale_while_unreachable))
            }
            Self::Alone(alone) => Some((&alone.authenticator, alone.stale)),
        }
    }
}

/// Asks as a connection of the gateway does once it has read a request's head and found its route.
#[derive(Debug)]
pub(in crate::app::bench) struct Asker {
    door: Door,
    clock: Arc<dyn Clock>,
    body: RequestBody,
}

/// What came of a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::app::bench) enum Answer {
    /// A user's token, says this one.
    Known(AnsweredBy),
    /// The token of a user who is not active, says this one.
    Refused(AnsweredBy),
    /// Nobody's token, says this one.
    Unknown(AnsweredBy),
    /// It could not be found out.
    None,
}

impl Asker {
    pub(in crate::app::bench) async fn new(door: Door, clock: Arc<dyn Clock>) -> Result<Self, BenchError> {
        let body = empty_body(door.body_limits()).await?;
        Ok(Self { door, clock, body })
    }

    /// The head of an ordinary request of a program, as the gateway's own sanitiser leaves it.
    pub(in crate::app::bench) fn head(&self, authorization: HeaderValue) -> Result<Head, BenchError> {
        let request = Request::get("/api/articles/42/?fields=title,body")
            .header(header::HOST, "localhost")
            .header(header::USER_AGENT, "python-requests/2.32.3")
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, "gzip, deflate")
            .header(header::CONNECTION, "keep-alive")
            .header(header::AUTHORIZATION, authorization);
        let (mut parts, ()) = request.body(()).map_err(|_| BenchError::Unread)?.into_parts();
        let peer = Peer { address: (Ipv4Addr::LOCALHOST, 50_000).into(), is_tls: true, tls_version: None };
        let sanitiser = self.door.sanitiser();
        let head = sanitiser.sanitise(&mut parts, &peer, RequestId::new(1), &mut Trace::new());
        head.map_err(|_| BenchError::Unread)
    }

    /// Who makes the request of this head: all that the gateway does to know, from reading the clock on.
    pub(in crate::app::bench) async fn ask(&mut self, head: &Head) -> Answer {
        let Some((authenticator, stale)) = self.door.authenticator() else { return Answer::None };
        let now = Now::read(self.clock.as_ref());
        let context = Context::new(now, stale);
        let (mut effects, mut trace) = (Effects::default(), Trace::new());
        match authenticator.authenticate(head, &mut self.body, &context, &mut effects, &mut trace).await {
            Ok(authenticated) if authenticated.identity().is_some() => Answer::Known(trace.answered_by),
            Err(AuthenticateError::Inactive(_)) => Answer::Refused(trace.answered_by),
            Err(AuthenticateError::Rejected(_)) => Answer::Unknown(trace.answered_by),
            _ => Answer::None,
        }
    }
}

/// The body of a request that has none. Only hyper makes one, of a request that it has read.
async fn empty_body(limits: BodyLimits) -> Result<RequestBody, BenchError> {
    let (mut client, server) = tokio::io::duplex(PIPE_BYTES);
    let (found, wait) = oneshot::channel();
    let found = Mutex::new(Some(found));
    let answer = service_fn(|request: Request<Incoming>| {
        if let Some(found) = found.lock().take() {
            // It is waited for below.
            found.send(request.into_body()).unwrap_or_default();
        }
        std::future::ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())))
    });
    client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    http1::Builder::new().serve_connection(TokioIo::new(server), answer).await.map_err(io::Error::other)?;
    let incoming = wait.await.map_err(io::Error::other)?;
    Ok(RequestBody::new(incoming, false, limits))
}
