//! The pipeline: what every request goes through, in order. The first file to read.
//!
//! No stage calls the next from inside itself, so the order is stated once, here. Each stage takes the proof of the
//! one before by value: leaving one out does not compile.

use crate::accept::body::{BodyLimits, RequestBody};
use crate::accept::head::{Head, RequestId, Sanitiser};
use crate::accept::peer::Peer;
use crate::authenticate::scheme::{Context, Effects};
use crate::authenticate::schemes::session::SessionSettings;
use crate::authenticate::{AuthenticateError, Authenticated, Authenticator};
use crate::authorize::permission;
use crate::authorize::{AuthorizeError, authorize};
use crate::cache::local::Now;
use crate::config::Permission;
use crate::cors::{self, Cors};
use crate::endpoint::login::Login;
use crate::endpoint::logout::Logout;
use crate::endpoint::obtain_token::{self, ObtainToken};
use crate::endpoint::{told, whoami};
use crate::forward::{Forwarder, forward};
use crate::navigation;
use crate::require_https::RequireHttps;
use crate::respond::body::Body;
use crate::respond::record::{Names, Record, RecordedBody, Reporting};
use crate::respond::{AnswerContext, Rejection, own_answer};
use crate::route::Routes;
use crate::telemetry::spans::{Exchange, Sampling};
use crate::throttle::{Throttles, admit};
use crate::trace::{Reason, Trace};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header, request};
use hyper::body::Incoming;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What one route asks for and leads to.
#[derive(Debug)]
pub struct Plan {
    /// For the log.
    pub names: Arc<Names>,
    /// Who may be asking.
    pub authenticator: Authenticator,
    /// What they must be.
    pub permission: Permission,
    /// How often.
    pub throttles: Throttles,
    /// Largest body.
    pub body_bytes_max: u64,
    /// How long known credentials still pass while the store cannot be asked.
    pub stale_while_unreachable: Duration,
    /// Who presents bad credentials where none are needed is anonymous.
    pub ignores_bad_credentials: bool,
    /// A browser's preflight reaches the upstream.
    pub passes_preflight: bool,
    /// Where a browser is led that navigates here and is not logged in.
    pub login_page: Option<String>,
    /// The route's methods, for `Allow`; `None`: all.
    pub allow: Option<HeaderValue>,
    /// Whose cookies are mended if they cannot be right, whoever is asking; `None`: nobody's.
    pub mends: Option<Arc<SessionSettings>>,
    /// Where it leads.
    pub action: Action,
}

/// Where a route leads.
#[derive(Debug)]
pub enum Action {
    /// To an upstream.
    Forward(Forwarder),
    /// To the built-in handler that gives tokens for passwords.
    ObtainToken(ObtainToken),
    /// To the login page.
    Login(Box<Login>),
    /// To where a session ends.
    Logout(Box<Logout>),
    /// To the handler that says who the client is.
    WhoAmI,
}

impl Action {
    /// Whether credentials are given out there to a request of this method, so that what it sends is secret, too.
    fn issues_credentials(&self, method: &Method) -> bool {
        match self {
            Self::Forward(_) | Self::Logout(_) | Self::WhoAmI => false,
            Self::ObtainToken(_) => true,
            // Whoever wants to see the page is shown it by HTTPS.
            Self::Login(_) => !matches!(*method, Method::GET | Method::HEAD),
        }
    }

    /// For the routes that people look at: where they may go on after a refusal; empty: on the same page.
    fn again(&self) -> Option<&str> {
        match self {
            Self::Forward(_) | Self::ObtainToken(_) | Self::WhoAmI => None,
            Self::Login(_) => Some(""),
            Self::Logout(handler) => Some(&handler.redirect),
        }
    }
}

/// The gateway: one per process, shared by all cores.
#[derive(Debug)]
pub struct Gateway {
    /// From host, path and method to a plan.
    pub routes: Routes<Plan>,
    /// The first stage.
    pub sanitiser: Sanitiser,
    /// Keeps out what came in clear.
    pub require_https: RequireHttps,
    /// For every body.
    pub body_limits: BodyLimits,
    /// Who is told of finished requests.
    pub reporting: Reporting,
    /// Names requests.
    pub request_ids: RequestIds,
    /// Whose pages may read our own answers.
    pub cors: Cors,
    /// Chooses requests that are recorded; `None`: there are no spans.
    pub spans: Option<Sampling>,
}

impl Gateway {
    /// Answers one request. Never fails: whatever goes wrong is an answer.
    ///
    /// # Cancel safety
    /// Dropping the future ends the request; it is told of as one whose client went away.
    pub async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<RecordedBody> {
        let (parts, incoming) = request.into_parts();
        let version = parts.version;
        let expects_continue = parts.headers.contains_key(header::EXPECT);
        let body = RequestBody::new(incoming, expects_continue, self.body_limits);
        let request_bytes = body.counter();
        let mut body = Some(body);
        let started = self.reporting.clock.monotonic();
        let id = self.request_ids.next();
        let mut record =
            Box::new(Record::new(&parts.method, parts.version, peer, id, started, &self.reporting));
        record.request_bytes = request_bytes;
        let mut effects = Effects::default();
        // A panic ends one request, never the process.
        let passing = AssertUnwindSafe(self.pass(parts, peer, &mut body, &mut record, &mut effects));
        let passed = passing.catch_unwind().await.unwrap_or(Err(Rejection::Internal));
        let mut answer = passed.unwrap_or_else(|rejection| self.refuse(&rejection, &mut record));
        let is_in_clear = matches!(record.trace.reason, Reason::PlainHttp | Reason::ExposedCredentials);
        if (record.head.is_none() || is_in_clear) && version < Version::HTTP_2 {
            // RFC 9112 section 9.3: after a request that cannot be read, nobody knows what comes next. After one that
            // came in clear, more of the same would.
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        // A client that is still sending must get to read the answer.
        if let Some(body) = body {
            body.drain();
        }
        effects.apply(answer.headers_mut());
        if let (Body::Own(_), Some(head)) = (answer.body(), &record.head) {
            let origin = head.headers.get(header::ORIGIN).cloned();
            self.cors.open(origin.as_ref(), answer.headers_mut());
        }
        let is_https = record.head.as_ref().map_or(peer.is_tls, |head| head.client.is_https);
        self.require_https.pin(answer.headers_mut(), is_https);
        record.status = Some(answer.status().as_u16());
        answer.map(|body| RecordedBody::new(body, record))
    }

    /// sanitise → require HTTPS → route → authenticate → authorize → throttle → forward
    async fn pass(
        &self,
        parts: request::Parts,
        peer: Peer,
        body: &mut Option<RequestBody>,
        record: &mut Record,
        effects: &mut Effects,
    ) -> Result<Response<Body>, Rejection> {
        let started = record.started();
        let now = Now::at(self.reporting.clock.as_ref(), started);
        let trace = &mut record.trace;
        let head = self.read(parts, &peer, record.request_id, trace)?;
        let head = record.head.insert(head);
        if let Some(sampling) = self.spans {
            let is_trusted = self.sanitiser.trusts(&peer);
            let spans = sampling.begin(head.request_id.as_str(), &mut head.headers, is_trusted);
            record.spans = spans.map(Box::new);
        }
        let mut body = BodySlot(body);

        let has_body = !body.borrow()?.is_empty();
        self.require_https.check(head, has_body, || self.issues_credentials(head))?;

        let (number, plan) = self.routes.find(head.authority.host(), &head.target, &head.method)?;
        trace.route = u16::try_from(number).ok();
        record.names = Some(Arc::clone(&plan.names));
        if let Some(session) = &plan.mends {
            session.mend_cookies(head, now.unix, effects);
        }

        let is_preflight = cors::is_preflight(head);
        if is_preflight
            && !matches!(plan.action, Action::Forward(_))
            && let Some(fields) = self.cors.preflight(head)
        {
            return Ok(preflight_answer(fields, record.request_id));
        }

        let context = Context::new(now, plan.stale_while_unreachable);
        // A preflight never carries credentials (WHATWG Fetch), so nobody is let in that would not be.
        let is_let_pass = is_preflight && plan.passes_preflight;
        let authenticated = if is_let_pass {
            plan.authenticator.nobody()
        } else {
            let asked = plan.authenticator.authenticate(head, body.borrow()?, &context, effects, trace).await;
            or_nobody(asked, plan, head)?
        };
        record.scheme = authenticated.identity().map(|identity| identity.scheme);

        let permission = if is_let_pass { &Permission::Anyone } else { &plan.permission };
        let has_schemes = plan.authenticator.has_schemes();
        let permit = authorize(authenticated, permission, &head.method, has_schemes, trace)?;

        let admitted = admit(permit, &plan.throttles, head, now.monotonic, trace).await?;

        body.borrow()?.limit(plan.body_bytes_max)?;
        match &plan.action {
            Action::Forward(forwarder) => {
                let body = body.take()?;
                // For spans only: the clock is not read otherwise.
                let since = |started| self.reporting.clock.monotonic().since(started);
                if let Some(spans) = &mut record.spans {
                    spans.exchange = Some(Exchange { asked: since(started), answered: None });
                }
                let answer = forward(forwarder, admitted, head, body, trace).await;
                if let Some(exchange) = record.spans.as_mut().and_then(|spans| spans.exchange.as_mut()) {
                    exchange.answered = Some(since(started));
                }
                Ok(answer?.map(Body::Upstream))
            }
            // Boxed: it is rare, and every request would hold the room for it.
            Action::ObtainToken(handler) => {
                Ok(Box::pin(handler.answer(admitted, head, body.take()?, trace)).await)
            }
            Action::Login(handler) => {
                Ok(Box::pin(handler.answer(admitted, head, body.take()?, effects, trace)).await)
            }
            Action::Logout(handler) => {
                Ok(Box::pin(handler.answer(admitted, head, body.take()?, effects, trace)).await)
            }
            Action::WhoAmI => Ok(whoami::answer(&admitted, head, trace)),
        }
    }

    /// The head; if it cannot be read, the credentials in it matter more where they came in clear.
    fn read(
        &self,
        mut parts: request::Parts,
        peer: &Peer,
        id: RequestId,
        trace: &mut Trace,
    ) -> Result<Head, Rejection> {
        let error = match self.sanitiser.sanitise(&mut parts, peer, id, trace) {
            Ok(head) => return Ok(head),
            Err(error) => error,
        };
        let client = self.sanitiser.client(peer, &parts.headers);
        self.require_https.check_unread(&parts.headers, &client, id)?;
        Err(error.into())
    }

    fn issues_credentials(&self, head: &Head) -> bool {
        let found = self.routes.find(head.authority.host(), &head.target, &head.method);
        found.is_ok_and(|(_, plan)| plan.action.issues_credentials(&head.method))
    }

    fn refuse(&self, rejection: &Rejection, record: &mut Record) -> Response<Body> {
        record.trace.reason = rejection.reason();
        let plan = record.trace.route.and_then(|number| self.routes.plans().get(usize::from(number)));
        let context = AnswerContext {
            request_id: record.request_id,
            method: record.method(),
            challenge: plan.and_then(|plan| plan.authenticator.challenge()),
            allow: plan.and_then(|plan| plan.allow.as_ref()),
        };
        if record.trace.reason == Reason::Internal {
            tracing::error!(request.id = record.request_id.as_str(), "a panic while a request was handled");
        } else {
            let id = record.request_id.as_str();
            tracing::debug!(request.id = id, error = rejection as &dyn std::error::Error, "refused");
        }
        let mut answer = rejection.answer(&context);
        if let Some(location) = login_page(rejection, plan, record) {
            *answer.status_mut() = StatusCode::FOUND;
            *answer.body_mut() = Body::own(Bytes::new());
            let headers = answer.headers_mut();
            headers.remove(header::CONTENT_TYPE);
            headers.remove(header::WWW_AUTHENTICATE);
            headers.insert(header::LOCATION, location);
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if let Some(Action::ObtainToken(_)) = plan.map(|plan| &plan.action) {
            // DRF names the methods in every answer.
            answer.headers_mut().insert(header::ALLOW, obtain_token::ALLOW);
        }
        if let (Some(again), Some(head)) = (plan.and_then(|plan| plan.action.again()), &record.head) {
            told::for_people(&mut answer, head, again);
        }
        if plan.is_some_and(|plan| !matches!(plan.action, Action::Forward(_))) {
            // Whatever this route answers is about credentials, and nobody else's.
            answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        answer
    }
}

/// Who is nobody for presenting bad credentials where none are needed.
fn or_nobody(
    asked: Result<Authenticated, AuthenticateError>,
    plan: &Plan,
    head: &Head,
) -> Result<Authenticated, AuthenticateError> {
    use AuthenticateError::{Inactive, Malformed, Rejected};
    match asked {
        Err(Malformed(_) | Rejected(_) | Inactive(_))
            if plan.ignores_bad_credentials && permission::allows(&plan.permission, &head.method, None) =>
        {
            Ok(plan.authenticator.nobody())
        }
        asked => asked,
    }
}

/// Where a browser is led instead of being told that it is not logged in.
fn login_page(rejection: &Rejection, plan: Option<&Plan>, record: &Record) -> Option<HeaderValue> {
    use AuthenticateError::{Inactive, Rejected};
    let is_not_logged_in = matches!(
        rejection,
        Rejection::Authorize(AuthorizeError::NotAuthenticated)
            | Rejection::Authenticate(Rejected(_) | Inactive(_))
    );
    let head = record.head.as_ref().filter(|head| is_not_logged_in && navigation::is_navigation(head))?;
    navigation::login_location(plan?.login_page.as_deref()?, head)
}

fn preflight_answer(fields: HeaderMap, request_id: RequestId) -> Response<Body> {
    let mut answer = own_answer(StatusCode::NO_CONTENT, Bytes::new(), request_id);
    answer.headers_mut().remove(header::CONTENT_TYPE);
    answer.headers_mut().extend(fields);
    answer
}

/// The body: taken by who reads it, left behind by who refuses.
struct BodySlot<'a>(&'a mut Option<RequestBody>);

impl BodySlot<'_> {
    fn borrow(&mut self) -> Result<&mut RequestBody, Rejection> {
        self.0.as_mut().ok_or(Rejection::Internal)
    }

    fn take(&mut self) -> Result<RequestBody, Rejection> {
        self.0.take().ok_or(Rejection::Internal)
    }
}

/// Makes ids of requests: a random number of the process, and a scrambled count.
#[derive(Debug)]
pub struct RequestIds {
    process: u64,
    count: AtomicU64,
}

impl RequestIds {
    /// `process` distinguishes this process from others.
    pub const fn new(process: u64) -> Self {
        Self { process, count: AtomicU64::new(0) }
    }

    fn next(&self) -> RequestId {
        let count = self.count.fetch_add(1, Ordering::Relaxed).wrapping_add(self.process);
        // SplitMix64: a bijection, so no id comes twice in one process.
        let mixed = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        RequestId::new(u128::from(self.process) << 64 | u128::from(mixed ^ (mixed >> 31)))
    }
}
