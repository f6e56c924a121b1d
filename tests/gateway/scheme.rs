//! A throw-away scheme, made here only, proves the shape that every later scheme has: three steps and effects.
//!
//! It is like Django's session: a cookie, a look-up that may wait, a check of the request itself (CSRF) that may want
//! to see the body, and cookies on the answer, whoever gives it.

use crate::harness::client::{Client, Payload, Protocol, Request};
use crate::harness::pattern;
use crate::harness::traces::Traces;
use crate::harness::world::{Settings, World, assert_own};
use bytes::Bytes;
use doorward::accept::head::Head;
use doorward::authenticate::scheme::{
    Check, Context, Effects, Identity, NobodyKnows, Recall, Refusal, Scheme, Verdict,
};
use doorward::cache::users::UserRecord;
use doorward::clock::Monotonic;
use doorward::identity::{CredentialId, SchemeKind, User, UserId};
use doorward::trace::{AnsweredBy, SchemeOutcome};
use http::{HeaderValue, Method, header};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

const SESSION: &str = "a-session-that-is-there";
const FLUSHED: &str = "a-session-that-was-flushed";
const CSRF: &str = "csrf-secret";
/// As much of a body as the check wants to see.
const PREFIX_BYTES: usize = 4096;
const NO_CSRF: &str = r#"{"detail":"CSRF Failed: CSRF token missing.","code":"csrf"}"#;
const GONE: &str = "sessionid=; Max-Age=0; Path=/";

/// The scheme, with what would be its store.
#[derive(Debug, Default)]
struct Sessions {
    cached: Mutex<HashMap<Vec<u8>, Identity>>,
    /// Names of the threads on which sessions were looked up.
    verified_on: Arc<Mutex<Vec<String>>>,
}

fn alexandra() -> Identity {
    let user = User {
        id: UserId(77),
        username: "alexandra".into(),
        is_active: true,
        is_staff: false,
        groups: Box::new([]),
        email: "".into(),
        password_version: 1,
        not_before: 0,
    };
    let user = Arc::new(UserRecord::new(user, Monotonic(0)));
    Identity {
        user,
        scheme: SchemeKind::Session,
        credential: CredentialId(0xa1ec),
        expires: None,
        csrf_secret: None,
    }
}

fn session_id(head: &Head) -> Option<Vec<u8>> {
    let cookies = head.headers.get(header::COOKIE)?.as_bytes();
    let mut pairs = cookies.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    pairs.find_map(|pair| pair.strip_prefix(b"sessionid=")).map(<[u8]>::to_vec)
}

/// The second step: owns what it needs.
async fn verify(
    session: Vec<u8>,
    verified_on: Arc<Mutex<Vec<String>>>,
) -> Result<(Verdict, Effects), NobodyKnows> {
    verified_on.lock().push(std::thread::current().name().unwrap_or_default().to_owned());
    tokio::task::yield_now().await;
    let mut effects = Effects::default();
    let verdict = match session.as_slice() {
        id if id == SESSION.as_bytes() => Verdict::Verified(alexandra(), AnsweredBy::Store),
        id if id == FLUSHED.as_bytes() => {
            let refusal = Refusal {
                detail: "Session flushed.".into(),
                body: Some(Bytes::from_static(br#"{"code":"flushed"}"#)),
            };
            Verdict::Rejected(refusal, AnsweredBy::Store, None)
        }
        _ => {
            effects.add(header::SET_COOKIE, HeaderValue::from_static(GONE));
            Verdict::NotMine
        }
    };
    Ok((verdict, effects))
}

impl Scheme for Sessions {
    fn kind(&self) -> SchemeKind {
        SchemeKind::Session
    }

    fn challenge(&self, _: Option<&str>) -> Option<HeaderValue> {
        None
    }

    fn recall(&self, head: &Head, _: &Context, effects: &mut Effects) -> Recall {
        effects.add(header::VARY, HeaderValue::from_static("Cookie"));
        let Some(session) = session_id(head) else { return Recall::NotMine };
        if let Some(identity) = self.cached.lock().get(&session) {
            return Recall::Answer(Verdict::Verified(identity.clone(), AnsweredBy::Local));
        }
        Recall::Ask(Box::pin(verify(session, Arc::clone(&self.verified_on))))
    }

    fn check(&self, head: &Head, body: Option<&[u8]>, identity: &Identity, _: &mut Effects) -> Check {
        if let Some(session) = session_id(head) {
            self.cached.lock().insert(session, identity.clone());
        }
        if matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return Check::Pass;
        }
        if let Some(given) = head.headers.get("x-csrftoken") {
            return if given == CSRF { Check::Pass } else { no_csrf() };
        }
        let field = format!("csrfmiddlewaretoken={CSRF}&");
        match body {
            None => Check::NeedsBody { bytes_max: PREFIX_BYTES },
            Some(body) if body.windows(field.len()).any(|window| window == field.as_bytes()) => Check::Pass,
            Some(_) => no_csrf(),
        }
    }
}

fn no_csrf() -> Check {
    Check::Refuse(Refusal {
        detail: "CSRF Failed: CSRF token missing.".into(),
        body: Some(Bytes::from_static(NO_CSRF.as_bytes())),
    })
}

/// A case's gateway: its schemes in this order, and what it tells.
struct Case {
    sessions: Arc<Sessions>,
    traces: Traces,
}

/// Runs a case over both protocols.
#[expect(clippy::needless_pass_by_value, reason = "a closure, written where it is passed")]
fn with_sessions(schemes: &str, case: impl AsyncFn(&Case, &World, &Client)) {
    let sections = format!(
        "[authentication.schemes.shape]\nkind = \"token\"\nkeyword = \"Unused\"\n\n\
         [routes.everything]\npath = \"/\"\nupstream = \"legacy\"\nschemes = {schemes}\nmax_body = \"64MiB\"\n\n\
         [routes.public]\npath = \"/public\"\nupstream = \"legacy\"\nschemes = {schemes}\npermission = \"anyone\"\n"
    );
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let of_case = Case { sessions: Arc::default(), traces: Traces::new() };
        let mut settings = Settings::sections(&sections);
        settings.options = of_case.traces.options();
        let scheme = Arc::clone(&of_case.sessions) as Arc<dyn Scheme>;
        settings.options.schemes.push(("shape".to_owned(), scheme));
        if schemes == "[\"shape\"]" {
            settings.canary = Request::get("/public/canary");
        }
        World::start(&settings).run(protocol, async |world, client| case(&of_case, world, client).await);
    }
}

fn cookie(request: Request, session: &str) -> Request {
    request.field("Cookie", format!("theme=dark; sessionid={session}")).expect(&["set-cookie"])
}

#[test]
fn session_is_verified_on_the_slow_side_once_and_then_recalled() {
    with_sessions(r#"["shape"]"#, async |case, world, client| {
        for (path, outcome, answered_by) in [
            ("/first", SchemeOutcome::Verified, AnsweredBy::Store),
            ("/second", SchemeOutcome::Cached, AnsweredBy::Local),
        ] {
            let answer = client.send(cookie(Request::get(path), SESSION)).await;
            assert_eq!((answer.status, answer.all("vary")), (200, vec!["Cookie".to_owned()]));
            assert_eq!(answer.one("set-cookie"), None);
            assert_eq!(world.upstream.last().one("remote-user").as_deref(), Some("alexandra"));
            let told = case.traces.of(path).await.trace;
            assert_eq!((told.schemes[0], told.answered_by), (outcome, answered_by));
            assert_eq!((told.credential, told.principal), (Some(CredentialId(0xa1ec)), Some(UserId(77))));
        }
        assert_eq!(*case.sessions.verified_on.lock(), ["slow"]);
    });
}

#[test]
fn unknown_session_is_anonymous_and_its_cookie_is_deleted() {
    with_sessions(r#"["shape"]"#, async |_, world, client| {
        let mark = world.upstream.mark();
        let answer = client.send(cookie(Request::get("/x"), "unknown")).await;
        assert_own(&answer, 403);
        assert_eq!(answer.detail(), "Authentication credentials were not provided.");
        assert_eq!(answer.one("www-authenticate"), None);
        assert_eq!(
            (answer.one("set-cookie").as_deref(), answer.one("vary").as_deref()),
            (Some(GONE), Some("Cookie"))
        );
        world.assert_refused(client, mark).await;
        let answer = client.send(cookie(Request::get("/public/x"), "unknown")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
        assert_eq!(
            (answer.one("set-cookie").as_deref(), answer.one("vary").as_deref()),
            (Some(GONE), Some("Cookie"))
        );
        assert_eq!(world.upstream.last().one("remote-user"), None);
    });
}

#[test]
fn effects_are_added_to_what_the_upstream_says() {
    with_sessions(r#"["shape"]"#, async |_, world, client| {
        let fields = [("Vary", "Accept"), ("Set-Cookie", "theme=light")];
        let answer = crate::harness::script::answer("200 OK", &fields, "body");
        world.upstream.script("/public/own", crate::harness::script::respond(answer));
        let answer = client.send(cookie(Request::get("/public/own"), "unknown")).await;
        assert_eq!(answer.all("vary"), ["Accept", "Cookie"]);
        assert_eq!(answer.all("set-cookie"), ["theme=light", GONE]);
    });
}

#[test]
fn csrf_token_in_a_field_of_the_head_is_enough() {
    with_sessions(r#"["shape"]"#, async |_, world, client| {
        let post = || cookie(Request::post("/x", "body"), SESSION);
        assert_eq!(client.send(post().field("X-CSRFToken", CSRF)).await.status, 200);
        assert_eq!(world.upstream.last().body, b"body");
        for request in
            [post().field("X-CSRFToken", "wrong"), post(), cookie(Request::new("DELETE", "/x"), SESSION)]
        {
            let mark = world.upstream.mark();
            let answer = client.send(request).await;
            assert_eq!((answer.status, answer.text().as_str()), (403, NO_CSRF));
            assert_eq!(answer.one("content-type").as_deref(), Some("application/json"));
            assert_eq!(answer.one("www-authenticate"), None);
            assert_eq!(answer.one("vary").as_deref(), Some("Cookie"));
            world.assert_refused(client, mark).await;
        }
    });
}

#[test]
fn refusal_by_the_check_is_traced() {
    with_sessions(r#"["shape"]"#, async |case, _, client| {
        assert_eq!(client.send(cookie(Request::post("/refused", "body"), SESSION)).await.status, 403);
        let told = case.traces.of("/refused").await.trace;
        assert_eq!((told.schemes[0], told.outcome()), (SchemeOutcome::Refused, "refused"));
        assert_eq!(told.reason, doorward::trace::Reason::SchemeRefused);
    });
}

/// A form with the token in front and this many bytes after it.
fn form(length: usize) -> Vec<u8> {
    let mut body = format!("csrfmiddlewaretoken={CSRF}&rest=").into_bytes();
    body.extend(pattern(0, length));
    body
}

#[test]
fn csrf_token_in_a_form_is_found_and_the_body_is_forwarded_unchanged() {
    with_sessions(r#"["shape"]"#, async |_, world, client| {
        for length in [0, 100, PREFIX_BYTES, 100_000, 5 << 20] {
            for payload in [Payload::Length, Payload::Unsized] {
                let body = form(length);
                let request = cookie(Request::new("POST", "/x"), SESSION).payload(payload(body.clone()));
                assert_eq!(client.send(request).await.status, 200, "{length}");
                let came = world.upstream.last();
                assert!(came.complete && came.body == body, "{} of {} bytes", came.body.len(), body.len());
            }
        }
    });
}

#[test]
fn body_is_read_no_further_than_the_check_asked() {
    with_sessions(r#"["shape"]"#, async |_, world, client| {
        let mut late = vec![b'x'; PREFIX_BYTES];
        late.extend(form(10));
        let mark = world.upstream.mark();
        let answer = client.send(cookie(Request::post("/x", late), SESSION)).await;
        assert_eq!((answer.status, answer.text().as_str()), (403, NO_CSRF));
        world.assert_refused(client, mark).await;
        // The decision is made when the prefix is there, not when the body is.
        let request = cookie(Request::new("POST", "/x"), SESSION).payload(Payload::Streamed);
        let (mut upload, mut answer) = client.open(request).await;
        upload.send(form(PREFIX_BYTES)).await.unwrap();
        world.upstream.wait_for("the head", |log| log.of("/x").len() == 1).await;
        upload.send("the rest").await.unwrap();
        upload.finish().await.unwrap();
        assert_eq!(answer.answer().await.unwrap().status, 200);
        assert!(world.upstream.last().body.ends_with(b"the rest"));
    });
}

#[test]
fn first_scheme_decides_between_401_and_403() {
    with_sessions(r#"["shape", "token"]"#, async |_, _, client| {
        let answer = client.send(Request::get("/x")).await;
        assert_own(&answer, 403);
        assert_eq!(answer.one("www-authenticate"), None);
        // DRF: without a challenge of the first class, bad credentials of the second are 403 too.
        let answer = client.send(Request::get("/x").token("unknown")).await;
        assert_own(&answer, 403);
        assert_eq!((answer.one("www-authenticate"), answer.detail()), (None, "Invalid token.".to_owned()));
    });
    with_sessions(r#"["token", "shape"]"#, async |_, _, client| {
        let answer = client.send(cookie(Request::get("/x"), "unknown")).await;
        assert_own(&answer, 401);
        assert_eq!(answer.one("www-authenticate").as_deref(), Some("Token"));
        let answer = client.send(cookie(Request::post("/x", "body"), SESSION)).await;
        assert_eq!((answer.status, answer.one("www-authenticate")), (403, None));
    });
}

#[test]
fn scheme_that_was_not_attempted_leaves_it_to_the_next() {
    with_sessions(r#"["shape", "token"]"#, async |case, world, client| {
        let answer = client.send(cookie(world.get("/x"), "unknown")).await;
        assert_eq!((answer.status, answer.one("set-cookie").as_deref()), (200, Some(GONE)));
        assert_eq!(world.upstream.last().one("remote-user").as_deref(), Some("alice"));
        let told = case.traces.of("/x").await.trace;
        assert_eq!(told.schemes[..2], [SchemeOutcome::NotMine, SchemeOutcome::Verified]);
        // The session passes the check, so the token is not even looked at.
        assert_eq!(client.send(cookie(Request::get("/both").token("bad"), SESSION)).await.status, 200);
        assert_eq!(world.upstream.last().one("remote-user").as_deref(), Some("alexandra"));
        assert_eq!(case.traces.of("/both").await.trace.schemes[1], SchemeOutcome::NotAsked);
    });
}

#[test]
fn scheme_that_was_attempted_and_failed_stops_the_chain() {
    with_sessions(r#"["shape", "token"]"#, async |case, world, client| {
        let mark = world.upstream.mark();
        let answer = client.send(cookie(world.get("/x"), FLUSHED)).await;
        assert_eq!((answer.status, answer.text().as_str()), (403, r#"{"code":"flushed"}"#));
        world.assert_refused(client, mark).await;
        let told = case.traces.of("/x").await.trace;
        assert_eq!(told.schemes[..2], [SchemeOutcome::Rejected, SchemeOutcome::NotAsked]);
        // On a public route too.
        assert_eq!(client.send(cookie(world.get("/public/y"), FLUSHED)).await.status, 403);
    });
    with_sessions(r#"["token", "shape"]"#, async |_, world, client| {
        let mark = world.upstream.mark();
        let answer = client.send(cookie(Request::get("/x").token("unknown"), SESSION)).await;
        assert_own(&answer, 401);
        world.assert_refused(client, mark).await;
    });
}
