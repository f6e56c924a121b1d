//! What the gateway tells of each request: its trace, and the one line that is logged of it.
//!
//! Every reason is provoked over real sockets, so a reason that nothing can bring about does not stay in the table.

use crate::harness::client::{Client, Payload, Protocol, Request};
use crate::harness::gate::Gate;
use crate::harness::program::{Program, make_alice};
use crate::harness::refusing::{FullListener, RefusingPort};
use crate::harness::script::Step;
use crate::harness::traces::{Told, Traces};
use crate::harness::upstream::TestUpstream;
use crate::harness::world::{Settings, World, assert_own};
use doorward::accept::head::Head;
use doorward::app::Options;
use doorward::authenticate::scheme::{
    Check, Context, Effects, Identity, NobodyKnows, Recall, Refusal, Scheme, Verdict,
};
use doorward::cache::users::UserRecord;
use doorward::clock::{Clock, ManualClock, Monotonic, SystemClock};
use doorward::identity::{CredentialId, Digest, SchemeKind, User, UserId};
use doorward::secret::Secret;
use doorward::trace::{AnsweredBy, Reason, Rule, SchemeOutcome, ThrottleState, Trace};
use http::HeaderValue;
use serde_json::Value;
use sqlx::ConnectOptions as _;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Two of them are within the guard's rate.
const GUESS: &str = r#"{"username": "mallory", "password": "guess"}"#;
const UNKNOWN: &str = "0000000000000000000000000000000000000000";

// --- ordinary requests

/// What an ordinary request leaves, but for credential and principal.
fn ordinary(outcome: SchemeOutcome, answered_by: AnsweredBy) -> Trace {
    let mut trace = Trace::new();
    trace.route = Some(0);
    trace.scheme(0, outcome);
    trace.answered_by = answered_by;
    trace.rule = Rule::Authenticated;
    trace.throttle = ThrottleState::Admitted;
    trace.upstream_attempts = 1;
    trace.upstream_server = Some(0);
    trace
}

/// What a request leaves that was refused by authentication, but for the credential.
fn refused(outcome: SchemeOutcome, answered_by: AnsweredBy, reason: Reason) -> Trace {
    let mut trace = Trace::new();
    trace.route = Some(0);
    trace.scheme(0, outcome);
    trace.answered_by = answered_by;
    trace.reason = reason;
    trace
}

/// Waits until the gateway has found its own commits in the store's table of changes, which drops what they name.
async fn settle(world: &World, client: &Client, traces: &Traces) {
    let mut number = 0;
    let mut until = async |wanted| loop {
        number += 1;
        assert!(number < 10_000, "never answered by {wanted:?}");
        let path = format!("/settle/{number}");
        client.send(Request::get(&path).token("unsettled")).await;
        if traces.of(&path).await.trace.answered_by == wanted {
            break;
        }
    };
    until(AnsweredBy::LocalUnknown).await;
    // When this one is found, all that came before it has been.
    let key = Secret::new("settled");
    world.gateway.running().credentials().import_any_token("alice", key).await.unwrap();
    until(AnsweredBy::Store).await;
}

/// Runs a case over both protocols, with the traces of its gateway.
#[expect(clippy::needless_pass_by_value, reason = "a closure, written where it is passed")]
pub(crate) fn traced(settings: &Settings, case: impl AsyncFn(&World, &Client, &Traces)) {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let traces = Traces::new();
        let options = Options { observer: traces.options().observer, ..settings.options.clone() };
        let world = World::start(&Settings { options, ..settings.clone() });
        world.run(protocol, async |world, client| {
            settle(world, client, &traces).await;
            case(world, client, &traces).await;
        });
    }
}

#[test]
fn requests_that_pass_are_traced() {
    traced(&Settings::default(), async |world, client, traces| {
        for (path, outcome, answered_by) in [
            ("/first", SchemeOutcome::Verified, AnsweredBy::Store),
            ("/second", SchemeOutcome::Cached, AnsweredBy::Local),
        ] {
            assert_eq!(client.send(world.get(path)).await.status, 200);
            let told = traces.of(path).await;
            let Trace { credential, principal, upstream_us, .. } = told.trace;
            assert!(credential.is_some() && principal.is_some() && upstream_us > 0, "{told:?}");
            let ordinary = ordinary(outcome, answered_by);
            assert_eq!(told.trace, Trace { credential, principal, upstream_us, ..ordinary });
            assert_eq!((told.status, told.response_bytes), (Some(200), 2));
        }
        let forged = world.get("/forged").field("Remote-User", "root").field("Remote_User", "root");
        assert_eq!(client.send(forged.field("X-Forwarded-For", "192.0.2.1")).await.status, 200);
        let told = traces.of("/forged").await.trace;
        assert_eq!(told.headers_removed, 3, "{told:?}");
        assert_eq!(client.send(Request::get("/public/x")).await.status, 200);
        let told = traces.of("/public/x").await.trace;
        assert_eq!((told.route, told.rule), (Some(1), Rule::Anyone));
        assert_eq!((told.schemes[0], told.outcome()), (SchemeOutcome::NotMine, "anonymous"));
        assert_eq!((told.credential, told.principal, told.reason), (None, None, Reason::None));
    });
}

#[test]
fn refused_requests_are_traced_without_a_principal() {
    traced(&Settings::default(), async |world, client, traces| {
        let mut of_unknown = Vec::new();
        for (path, answered_by) in [("/first", AnsweredBy::Store), ("/second", AnsweredBy::LocalUnknown)] {
            assert_own(&client.send(Request::get(path).token(UNKNOWN)).await, 401);
            let told = traces.of(path).await.trace;
            let expected = refused(SchemeOutcome::Rejected, answered_by, Reason::RejectedCredentials);
            assert_eq!(told, Trace { credential: told.credential, ..expected });
            of_unknown.push(told.credential.expect("a public id of the unknown token"));
        }
        assert_eq!(of_unknown[0], of_unknown[1]);
        assert_own(&client.send(Request::get("/malformed").token("")).await, 401);
        let expected = refused(SchemeOutcome::Malformed, AnsweredBy::Nobody, Reason::MalformedCredentials);
        assert_eq!(traces.of("/malformed").await.trace, expected);
        assert_own(&client.send(Request::get("/anonymous")).await, 401);
        let mut expected = refused(SchemeOutcome::NotMine, AnsweredBy::Nobody, Reason::NotAuthenticated);
        expected.rule = Rule::Authenticated;
        assert_eq!(traces.of("/anonymous").await.trace, expected);
        assert!(world.upstream.log().requests.is_empty());
    });
}

#[test]
fn expired_token_is_refused_by_the_cache_at_once() {
    let clock = Arc::new(ManualClock::new(SystemClock::new().unix()));
    let mut settings =
        Settings::sections(&format!("[tokens]\nttl = \"1h\"\n{}", crate::harness::world::ROUTES));
    settings.options.clock = Arc::clone(&clock) as Arc<dyn Clock>;
    traced(&settings, async |world, client, traces| {
        assert_eq!(client.send(world.get("/first")).await.status, 200);
        assert_eq!(client.send(world.get("/second")).await.status, 200);
        clock.advance(Duration::from_hours(1));
        assert_own(&client.send(world.get("/third")).await, 401);
        let (known, expired) = (traces.of("/second").await.trace, traces.of("/third").await.trace);
        assert_eq!((expired.credential, expired.principal), (known.credential, None));
        assert_eq!(expired.reason, Reason::RejectedCredentials);
    });
}

#[test]
fn retry_is_traced_as_a_second_attempt() {
    traced(&Settings::default(), async |world, client, traces| {
        assert_eq!(client.send(world.get("/warm")).await.status, 200);
        world.upstream.scripts("/retry", vec![vec![Step::Close], vec![Step::ReadBody, Step::Ok]]);
        assert_eq!(client.send(world.get("/retry")).await.status, 200);
        assert_eq!(traces.of("/retry").await.trace.upstream_attempts, 2);
        assert_eq!(traces.of("/warm").await.trace.upstream_attempts, 1);
    });
}

#[test]
fn bytes_of_bodies_are_counted() {
    traced(&Settings::default(), async |world, client, traces| {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n";
        let script = vec![Step::ReadBody, Step::Send(answer.into()), Step::Stream(30_000)];
        world.upstream.script("/counted", script);
        assert_eq!(client.send(world.post("/counted", vec![b'x'; 100_000])).await.status, 200);
        let told = traces.of("/counted").await;
        assert_eq!((told.request_bytes, told.response_bytes), (100_000, 30_000));
    });
}

// --- every reason

/// A scheme that does what the request's `X-Double` says.
#[derive(Debug)]
struct Double {
    gate: Gate,
    waiting: watch::Sender<usize>,
}

fn nobody() -> Identity {
    let user = User {
        id: UserId(1),
        username: "double".into(),
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
        scheme: SchemeKind::Token,
        credential: CredentialId(1),
        expires: None,
        csrf_secret: None,
    }
}

impl Scheme for Double {
    fn kind(&self) -> SchemeKind {
        SchemeKind::Token
    }

    fn challenge(&self, _: Option<&str>) -> Option<HeaderValue> {
        None
    }

    fn recall(&self, head: &Head, _: &Context, _: &mut Effects) -> Recall {
        let verified = || Verdict::Verified(nobody(), AnsweredBy::Store);
        match head.headers.get("x-double").map(HeaderValue::as_bytes) {
            Some(b"panic") => panic!("the test wants a panic"),
            Some(b"nobody-knows") => Recall::Ask(Box::pin(async { Err(NobodyKnows(None)) })),
            Some(b"refuse") => Recall::Answer(verified()),
            Some(b"wait") => {
                let gate = self.gate.clone();
                self.waiting.send_modify(|waiting| *waiting += 1);
                Recall::Ask(Box::pin(async move {
                    gate.wait().await;
                    Ok((verified(), Effects::default()))
                }))
            }
            _ => Recall::NotMine,
        }
    }

    fn check(&self, head: &Head, _: Option<&[u8]>, _: &Identity, _: &mut Effects) -> Check {
        if head.headers.get("x-double").is_some_and(|value| value == "refuse") {
            Check::Refuse(Refusal::new("The test refuses."))
        } else {
            Check::Pass
        }
    }
}

/// A gateway in which everything can go wrong.
struct Trouble {
    world: World,
    traces: Traces,
    double: Arc<Double>,
    _down: RefusingPort,
    _full: FullListener,
}

impl Trouble {
    fn start(limits: &str) -> Self {
        let (down, full, upstream) = (RefusingPort::new(), FullListener::new(), TestUpstream::start());
        let double = Arc::new(Double { gate: Gate::closed(), waiting: watch::channel(0).0 });
        let route = |name: &str, more: &str| {
            format!("[routes.{name}]\nhost = \"gateway.test\"\npath = \"/{name}\"\n{more}\n\n")
        };
        let sections = [
            format!("[limits]\n{limits}\n\n"),
            "[authentication.schemes.double]\nkind = \"token\"\n\n".to_owned(),
            format!("[upstreams.down]\nservers = [\"http://{}\"]\n\n", down.address),
            format!(
                "[upstreams.full]\nservers = [\"http://{}\"]\ntimeout = {{ connect = \"300ms\" }}\n\n",
                full.address
            ),
            format!(
                "[upstreams.narrow]\nservers = [\"{}\"]\nconnections = 1\nqueue_time = \"200ms\"\n\n",
                upstream.url()
            ),
            "[routes.everything]\nhost = \"gateway.test\"\npath = \"/\"\nupstream = \"legacy\"\n\n"
                .to_owned(),
            route("staff", "upstream = \"legacy\"\npermission = \"staff\""),
            route("small", "upstream = \"legacy\"\nmax_body = \"10B\""),
            route("double", "upstream = \"legacy\"\nschemes = [\"double\"]"),
            route("down", "upstream = \"down\""),
            route("full", "upstream = \"full\""),
            route("narrow", "upstream = \"narrow\""),
            "[throttles.never]\nrate = \"0/min\"\n\n".to_owned(),
            route("never", "upstream = \"legacy\"\nthrottles = [\"never\"]"),
            route("login", "handler = \"obtain-token\""),
        ];
        let traces = Traces::new();
        let mut options = traces.options();
        options.schemes.push(("double".to_owned(), Arc::clone(&double) as Arc<dyn Scheme>));
        let settings = Settings {
            listen: "http = [\"127.0.0.1:0\"]",
            timeout: r#"connect = "2s", response = "500ms", idle = "2s""#,
            options,
            ..Settings::sections(&sections.concat())
        };
        let world = World::before(upstream, &settings);
        Self { world, traces, double, _down: down, _full: full }
    }

    fn get(&self, path: &str) -> Request {
        self.world.get(path)
    }

    async fn expect(&self, reason: Reason) {
        let is_told = |told: &[Told]| told.iter().any(|told| told.trace.reason == reason);
        let came = self.traces.becomes(is_told).await;
        assert!(came, "{reason:?} was not reached: {:#?}", self.traces.all());
    }

    fn reasons(&self) -> HashSet<Reason> {
        self.traces.all().iter().map(|told| told.trace.reason).collect()
    }
}

/// A request, the status of its answer, and the reason that must be told.
type Case = (Request, u16, Reason);

/// Requests that go wrong by what they are.
fn simple_cases(trouble: &Trouble, inactive: &str) -> Vec<Case> {
    let double = |what: &str| Request::get("/double").field("X-Double", what);
    let login = |json: &str| Request::post("/login", json).field("Content-Type", "application/json");
    let many = (0..200).fold(trouble.get("/many"), |request, n| request.field(&format!("X-{n}"), "1"));
    vec![
        (trouble.get("/fine"), 200, Reason::None),
        (trouble.get("/%zz"), 400, Reason::BadTarget),
        (trouble.get(&format!("/{}", "a".repeat(2_000))), 414, Reason::TargetTooLong),
        (many, 431, Reason::TooManyHeaders),
        (trouble.get("/expects").field("Expect", "tea"), 417, Reason::Expectation),
        (trouble.get("/elsewhere").authority("other.test"), 404, Reason::NoRoute),
        (Request::get("/malformed").token(""), 401, Reason::MalformedCredentials),
        (Request::get("/rejected").token(UNKNOWN), 401, Reason::RejectedCredentials),
        (Request::get("/inactive").token(inactive), 401, Reason::InactiveUser),
        (double("refuse"), 403, Reason::SchemeRefused),
        (double("nobody-knows"), 503, Reason::StoreUnavailable),
        (double("panic"), 500, Reason::Internal),
        (Request::get("/anonymous"), 401, Reason::NotAuthenticated),
        (trouble.get("/staff"), 403, Reason::PermissionDenied),
        (Request::new("TRACE", "/x").token(&trouble.world.token), 405, Reason::MethodNotAllowed),
        (trouble.world.post("/small", "more than ten bytes"), 413, Reason::BodyTooLarge),
        (trouble.get("/down"), 502, Reason::UpstreamUnreachable),
        (trouble.get("/full"), 504, Reason::ConnectTimeout),
        (trouble.get("/silent"), 504, Reason::ResponseTimeout),
        (trouble.world.post("/closes", "x"), 502, Reason::UpstreamClosed),
        (trouble.get("/garbage"), 502, Reason::UpstreamInvalid),
        (login("{}"), 400, Reason::InvalidInput),
        (trouble.get("/never"), 429, Reason::Throttled),
        (login(r#"{"username": "alice", "password": "wrong"}"#), 400, Reason::LoginFailed),
        (login(GUESS), 400, Reason::LoginFailed),
        (login(GUESS), 400, Reason::LoginFailed),
        (login(GUESS), 429, Reason::GuardThrottled),
    ]
}

/// Refuses every token from now on, as a store that cannot be written does.
async fn refuse_writes(world: &World) {
    let path = world.gateway.directory().join("doorward.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = options.connect().await.unwrap();
    let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON token BEGIN SELECT RAISE(ABORT, 'no'); END";
    sqlx::query(trigger).execute(&mut connection).await.unwrap();
}

#[test]
fn every_reason_is_reached() {
    let trouble = Trouble::start(
        "body_idle = \"1s\"\ntarget_bytes = \"1KiB\"\n\n[authentication.guard]\naddress_and_user = \"2/hour\"",
    );
    trouble.world.gateway.user("ivan", "correct horse battery staple");
    let inactive = trouble.world.gateway.token("ivan");
    trouble.world.gateway.deactivate("ivan");
    let upstream = &trouble.world.upstream;
    upstream.script("/silent", vec![Step::Silence]);
    upstream.script("/left", vec![Step::Silence]);
    upstream.script("/closes", vec![Step::ReadBody, Step::Close]);
    upstream
        .script("/garbage", vec![Step::ReadBody, Step::Send(b"SMTP ready\r\n\r\n".to_vec()), Step::Close]);
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec();
    upstream.script("/breaks", vec![Step::ReadBody, Step::Send(half), Step::Close]);
    trouble.world.run(Protocol::Http2, async |world, http2| {
        for (request, status, reason) in simple_cases(&trouble, &inactive) {
            let what = format!("{request:?}");
            assert_eq!(http2.send(request).await.status, status, "{reason:?}: {what}");
            trouble.expect(reason).await;
        }
        malformed_http1(&trouble).await;
        in_clear(&trouble).await;
        broken_off(&trouble).await;
        let gate = Gate::closed();
        world.upstream.script("/narrow", vec![Step::Hold(gate.clone()), Step::Ok]);
        let second = async {
            world.upstream.wait_for("the first", |log| log.of("/narrow").len() == 1).await;
            let answer = http2.send(trouble.get("/narrow")).await;
            gate.open();
            answer
        };
        let (_, second) = tokio::join!(http2.send(trouble.get("/narrow")), second);
        assert_own(&second, 503);
        refuse_writes(world).await;
        let login = r#"{"username": "alice", "password": "correct horse battery staple"}"#;
        let login = Request::post("/login", login).field("Content-Type", "application/json");
        assert_own(&http2.send(login).await, 503);
        trouble.expect(Reason::NotWritten).await;
    });
    let mut reached = trouble.reasons();
    reached.extend(busy_store());
    reached.extend(busy_passwords());
    let missing: Vec<_> = Reason::ALL.iter().filter(|reason| !reached.contains(reason)).collect();
    assert!(missing.is_empty(), "no request reaches {missing:?}");
    assert_eq!(reached.len(), Reason::ALL.len());
}

/// What only HTTP/1.1 can say wrongly.
async fn malformed_http1(trouble: &Trouble) {
    let http1 = trouble.world.client(Protocol::Http1);
    for (bytes, reason) in [
        ("GET / HTTP/1.1\r\n\r\n", Reason::BadHost),
        ("CONNECT gateway.test:443 HTTP/1.1\r\nHost: gateway.test:443\r\n\r\n", Reason::BadRequest),
    ] {
        let answer = http1.raw(bytes).await.answer("GET", &[]).await.unwrap();
        assert_own(&answer, 400);
        trouble.expect(reason).await;
    }
}

/// What only HTTP can do wrong.
async fn in_clear(trouble: &Trouble) {
    let client = trouble.world.in_clear();
    for (request, reason) in [
        (Request::post("/clear", "x"), Reason::PlainHttp),
        (trouble.get("/clear"), Reason::ExposedCredentials),
    ] {
        assert_own(&client.send(request).await, 403);
        trouble.expect(reason).await;
    }
}

/// Who stops in the middle.
async fn broken_off(trouble: &Trouble) {
    let http1 = trouble.world.client(Protocol::Http1);
    // Where nothing of the answer had been sent yet, there is none.
    let answer = http1.try_send(trouble.get("/breaks")).await;
    assert!(answer.as_ref().is_ok_and(|answer| answer.truncated) || answer.is_err(), "{answer:?}");
    trouble.expect(Reason::ResponseAborted).await;
    let upload = |path| Request::new("POST", path).token(&trouble.world.token);
    let (slow, mut answer) = http1.open(upload("/slow").payload(Payload::StreamedLength(10))).await;
    assert_eq!(answer.head().await.unwrap().status, 408);
    trouble.expect(Reason::BodyTimeout).await;
    drop(slow);
    let login = upload("/login").field("Content-Type", "application/json");
    let (mut half, answer) = http1.open(login.payload(Payload::StreamedLength(10))).await;
    half.send("{").await.unwrap();
    half.abort().await;
    trouble.expect(Reason::BodyAborted).await;
    drop(answer);
    // Over HTTP/1.1 a connection that ends may still want its answer.
    let leaver = trouble.world.client(Protocol::Http2);
    let left = leaver.open(trouble.get("/left")).await;
    trouble.world.upstream.wait_for("the request", |log| log.of("/left").len() == 1).await;
    drop((left, leaver));
    trouble.expect(Reason::ClientGone).await;
}

fn busy_store() -> HashSet<Reason> {
    let trouble = Trouble::start("store_pending = 1");
    trouble.world.run(Protocol::Http2, async |_, client| {
        let request = || Request::get("/double").field("X-Double", "wait");
        let second = async {
            trouble.double.waiting.subscribe().wait_for(|waiting| *waiting == 1).await.unwrap();
            let answer = client.send(request()).await;
            trouble.double.gate.open();
            answer
        };
        let (first, second) = tokio::join!(client.send(request()), second);
        assert_eq!(first.status, 200);
        assert_own(&second, 503);
        assert!(second.one("retry-after").is_some());
        trouble.expect(Reason::StoreBusy).await;
    });
    trouble.reasons()
}

fn busy_passwords() -> HashSet<Reason> {
    let trouble = Trouble::start("password_queue = 1\n\n[authentication]\nguard = \"off\"");
    trouble.world.run(Protocol::Http2, async |_, client| {
        let burst = futures_util::future::join_all((0..30).map(|_| {
            let login = r#"{"username": "alice", "password": "wrong"}"#;
            client.send(Request::post("/login", login).field("Content-Type", "application/json"))
        }));
        for answer in burst.await {
            assert!([400, 503].contains(&answer.status), "{answer:?}");
            assert_eq!(answer.one("retry-after").is_some(), answer.status == 503);
        }
        trouble.expect(Reason::PasswordBusy).await;
    });
    trouble.reasons()
}

// --- the access line

const PASSWORD: &str = "correct horse battery staple";

fn hex(digest: Digest) -> String {
    digest.0.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[test]
fn each_request_is_one_line_without_secrets() {
    let upstream = TestUpstream::start();
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "[listen]\nhttps = [\"127.0.0.1:0\"]\n\n[log]\nformat = \"json\"\n\n\
         [upstreams.legacy]\nservers = [\"{}\"]\n\n[routes.everything]\npath = \"/\"\nupstream = \"legacy\"\n\n\
         [throttles.never]\nrate = \"0/min\"\n\n\
         [routes.never]\npath = \"/never\"\nupstream = \"legacy\"\nthrottles = [\"never\"]\n\n\
         [routes.login]\npath = \"/login\"\nhandler = \"obtain-token\"\n",
        upstream.url()
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let token = make_alice(&text, directory.path(), PASSWORD).await;
        let program = Program::start(directory.path()).await;
        let mut secrets = vec![token.clone(), UNKNOWN.to_owned(), PASSWORD.to_owned()];
        secrets.extend(["hunter-two", "query-secret", "cookie-secret", "body-secret"].map(str::to_owned));
        let mut sent = 0;
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let client = Client::new(protocol, program.address);
            let login = |password: &str| {
                let json = format!("{{\"username\": \"alice\", \"password\": \"{password}\"}}");
                Request::post("/login?query-secret", json).field("Content-Type", "application/json")
            };
            for request in [
                Request::get("/good?key=query-secret").token(&token).field("Cookie", "a=cookie-secret"),
                Request::get("/bad?query-secret").token(UNKNOWN),
                Request::get("/malformed").token("hunter-two hunter-two"),
                Request::post("/upload", "body-secret").token(&token),
                Request::get("/anonymous?query-secret"),
                Request::get("/never").token(&token).field("X-Forwarded-For", "192.0.2.1"),
                Request::get("/%zz?query-secret").token(&token),
                login("hunter-two"),
            ] {
                client.send(request).await;
                sent += 1;
            }
            let made: Value = serde_json::from_slice(&client.send(login(PASSWORD)).await.body).unwrap();
            secrets.push(made["token"].as_str().unwrap().to_owned());
            sent += 1;
        }
        let lines = program.stop().await;
        check_lines(&lines, sent);
        let digests: Vec<_> = secrets.iter().map(|secret| hex(Digest::of(secret.as_bytes()))).collect();
        for line in &lines {
            for secret in secrets.iter().chain(&digests) {
                assert!(!line.to_lowercase().contains(secret), "{secret} is told by {line}");
            }
        }
    });
}

fn check_lines(lines: &[String], sent: usize) {
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let requests: Vec<_> = lines.iter().filter(|line| line["message"] == "request").collect();
    assert_eq!(requests.len(), sent, "{requests:#?}");
    let ids: HashSet<_> = requests.iter().map(|line| line["request.id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), sent);
    for line in &requests {
        for name in [
            "client.address",
            "network.protocol.version",
            "tls.protocol.version",
            "http.request.method",
            "http.response.status_code",
            "duration_ms",
            "request.body_bytes",
            "response.body_bytes",
            "auth.outcome",
        ] {
            assert!(!line[name].is_null(), "{name} is missing: {line}");
        }
    }
    let of = |path: &str| *requests.iter().find(|line| line["url.path"] == path).unwrap();
    let good = of("/good");
    for (name, value) in [
        ("http.request.method", Value::from("GET")),
        ("http.route", "everything".into()),
        ("server.address", "gateway.test".into()),
        ("http.response.status_code", 200.into()),
        ("auth.scheme", "Token".into()),
        ("auth.outcome", "verified".into()),
        ("upstream.name", "legacy".into()),
        ("upstream.attempt", 1.into()),
        ("level", "INFO".into()),
        ("error.type", Value::Null),
    ] {
        assert_eq!(good[name], value, "{name}: {good}");
    }
    assert!(good["auth.principal"].is_i64());
    assert_eq!(of("/bad")["error.type"], "authenticate.rejected");
    assert!(of("/bad")["auth.principal"].is_null());
    assert_eq!(of("/never")["error.type"], "throttle.throttled");
    assert_eq!(
        (&of("/never")["throttle.scope"], &of("/never")["throttle.wait_ms"]),
        (&"never".into(), &60_000.into())
    );
    assert!(of("/good")["throttle.scope"].is_null() && of("/good")["throttle.wait_ms"].is_null());
    // At the start, and once though a request came with that field over each protocol.
    for level in ["INFO", "WARN"] {
        let speaks = |line: &&Value| {
            let text = line["message"].as_str().unwrap_or_default();
            line["level"] == level && text.contains("trusted_proxies")
        };
        assert_eq!(lines.iter().filter(speaks).count(), 1, "{level}");
    }
    assert_eq!(of("/upload")["request.body_bytes"], 11);
    assert_eq!(of("/login")["http.route"], "login");
}
