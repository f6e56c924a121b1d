//! The same question, the same answer: cases recorded from a real Django REST framework site, replayed.
//!
//! With Django's own database by `scripts/conformance`; `README.md` says what is compared. And here, with users and
//! tokens in doorward's own tables: the files of cases in `own/` are what Django 5.2 with DRF 3.18 answered, byte for byte, and are never edited by hand; what
//! cannot be the same behind a gateway is left out in [`SETS`], with the reason. `own/fixture.json` has the users, passwords
//! and tokens that the cases name.
//!
//! Of `obtain.*` these are not in the file: `creates`, since Django's token is one for ever and each of ours is new and
//! cannot be told twice; `with_bad_basic`, `with_good_basic` and `with_session_nocsrf`, since they need the schemes of
//! a site that looks at passwords and sessions before it looks at the body. Of `throttle.*`, `auth_failure_first` is
//! missing: it needs Basic. Guards are off: they are not DRF's.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "test code: a panic is a failed test"
)]

mod compare;

#[path = "../gateway/harness/mod.rs"]
#[expect(
    dead_code,
    clippy::indexing_slicing,
    reason = "written for the end-to-end tests, of which these need a part"
)]
mod harness;

use doorward::app::Options;
use harness::client::{Client, Protocol};
use harness::gateway::TestGateway;
use harness::script::Step;
use harness::upstream::{Recorded, TestUpstream};
use serde_json::Value;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const FIXTURE: &str = include_str!("own/fixture.json");
const HOST: &str = "api.example.test";

/// A file of cases.
struct Set {
    cases: &'static str,
    /// So that none is lost.
    count: usize,
    /// Fields that are not compared.
    skip: &'static [&'static str],
    /// A token in an answer is new each time: that it is forty digits is all that can be the same.
    has_new_tokens: bool,
}

const SETS: &[Set] = &[
    // The gateway's own answers have no `Allow`: it does not know the upstream's methods.
    Set { cases: include_str!("own/token.jsonl"), count: 42, skip: &["Allow"], has_new_tokens: false },
    // `Vary: Cookie` came from the site's middleware for sessions; here no cookie is looked at.
    Set { cases: include_str!("own/obtain.jsonl"), count: 40, skip: &["Vary"], has_new_tokens: true },
    Set {
        cases: include_str!("own/throttle.jsonl"),
        count: 9,
        skip: &["Allow", "Vary"],
        has_new_tokens: true,
    },
];

/// Views that give tokens for passwords: path, and further lines of the route.
const OBTAIN: &[(&str, &str)] = &[
    ("/auth/obtain/", ""),
    ("/auth/obtain-noauth/", ""),
    ("/auth/obtain-anon/", "throttles = [\"anon-3m\"]"),
    ("/auth/obtain-1s/", "throttles = [\"anon-1s\"]"),
    ("/auth/obtain-2m/", "throttles = [\"anon-2m\"]"),
    ("/auth/obtain-scoped/", "throttles = [\"login\"]"),
    ("/auth/obtain-daily/", "throttles = [\"daily\"]"),
];

/// The throttles of the recorded views. Two views with the same class and rate were two classes.
const THROTTLED: &str = r#"
[throttles]
anon-3m = { rate = "3/m" }
anon-1s = { rate = "1/s" }
anon-2m = { rate = "2/m" }
login = { rate = "2/h" }
daily = { rate = "2/d" }
view-anon = { rate = "2/m" }
view-user = { rate = "2/m", by = "user" }

[routes.throttled-user]
path = "/v/throttled_user/"
upstream = "echo"
throttles = ["view-user"]

[routes.throttled-anon]
path = "/v/throttled_anon/"
upstream = "echo"
permission = "anyone"
throttles = ["view-anon"]
"#;

fn config(upstream: &TestUpstream) -> String {
    let obtain = OBTAIN.iter().enumerate().map(|(number, (path, more))| {
        format!("[routes.obtain-{number}]\npath = \"{path}\"\nhandler = \"obtain-token\"\n{more}\n")
    });
    let obtain = obtain.collect::<Vec<_>>().concat();
    format!(
        "[listen]\nhttps = [\"127.0.0.1:0\"]\nworkers = 2\n\n[authentication]\nguard = \"off\"\n\n[store]\nurl = \"sqlite:doorward.db\"\n\n\
         [identity]\nauth_type = \"X-Auth-Kind\"\n\n[upstreams.echo]\nservers = [\"{}\"]\n\n\
         [routes.token]\npath = \"/v/token/\"\nupstream = \"echo\"\nschemes = [\"token\"]\n\n\
         [routes.get-only]\npath = \"/v/get_only/\"\nupstream = \"echo\"\nschemes = [\"token\"]\n\n{obtain}\n{THROTTLED}",
        upstream.url()
    )
}

/// The application behind the gateway: answers as the recorded views did, believing the identity fields.
fn echo(request: &Recorded) -> Vec<u8> {
    let get_only = request.target.starts_with("/v/get_only/");
    let methods: &[&str] = if get_only { &["GET"] } else { &["GET", "POST", "PUT", "PATCH", "DELETE"] };
    let method = request.method.as_str();
    let known = methods.contains(&method) || ["HEAD", "OPTIONS"].contains(&method);
    let (status, body) = if known {
        let user = serde_json::to_string(&request.one("remote-user").unwrap_or_default()).unwrap();
        let kind = serde_json::to_string(&request.one("x-auth-kind")).unwrap();
        ("200 OK", format!("{{\"user\":{user},\"auth\":{kind}}}"))
    } else {
        ("405 Method Not Allowed", format!("{{\"detail\":\"Method \\\"{method}\\\" not allowed.\"}}"))
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nAllow: {}, HEAD, OPTIONS\r\nContent-Length: {}\r\n\r\n",
        methods.join(", "),
        body.len()
    );
    let body = if method == "HEAD" { String::new() } else { body };
    format!("{head}{body}").into_bytes()
}

/// Text whose characters are bytes.
fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(u32::from(character)).unwrap()).collect()
}

/// The request as `run_cases.py` writes it.
fn bytes(request: &Value) -> Vec<u8> {
    let text = |name: &str| request.get(name).and_then(Value::as_str);
    let query = text("query").map_or_else(String::new, |query| format!("?{query}"));
    let mut head =
        format!("{} {}{query} HTTP/1.1\r\nHost: {HOST}\r\n", text("method").unwrap(), text("path").unwrap());
    for field in request.get("headers").and_then(Value::as_array).unwrap() {
        let [name, value] = field.as_array().unwrap().as_slice() else { panic!("{field}") };
        head.extend([name.as_str().unwrap(), ": ", value.as_str().unwrap(), "\r\n"]);
    }
    let body = text("body");
    if let Some(body) = body {
        head.extend(["Content-Length: ", &body.len().to_string(), "\r\n"]);
    }
    head += "Connection: close\r\n\r\n";
    let mut bytes = latin1(&head);
    bytes.extend_from_slice(body.unwrap_or_default().as_bytes());
    bytes
}

/// What a step must answer here.
fn expected(set: &Set, step: &Value) -> Value {
    let mut expected = step.get("expect").unwrap().clone();
    let fields = expected.get_mut("headers").and_then(Value::as_object_mut).unwrap();
    fields.retain(|name, _| !set.skip.contains(&name.as_str()));
    let body = expected.get_mut("body").and_then(Value::as_object_mut).unwrap();
    if let Some(token) =
        body.get_mut("json").and_then(|json| json.get_mut("token")).filter(|_| set.has_new_tokens)
        && token.is_string()
    {
        *token = "<HEX:40>".into();
        body.insert("raw".to_owned(), Value::Null);
    }
    expected
}

async fn replay(set: &Set, client: &Client, case: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for step in case.get("steps").and_then(Value::as_array).unwrap() {
        assert!(step.get("capture").is_none(), "a case captures a value: write it");
        let request = step.get("request").unwrap();
        assert!(request.get("secure") != Some(&Value::Bool(false)), "a case needs plain HTTP: write it");
        if let Some(seconds) = request.get("sleep").and_then(Value::as_f64) {
            // The cases are about time itself.
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        }
        let method = request.get("method").and_then(Value::as_str).unwrap();
        let mut exchange = client.raw(bytes(request)).await;
        match exchange.answer(method, &["Allow", "Set-Cookie", "Location"]).await {
            Ok(answer) => {
                found.extend(compare::differences(&expected(set, step), &answer));
                let rest = exchange.closed().await;
                if !rest.is_empty() {
                    found.push(format!("{} bytes after the answer", rest.len()));
                }
            }
            Err(why) => found.push(format!("{why:?}")),
        }
    }
    found
}

#[test]
fn answers_are_those_of_django_rest_framework() {
    let upstream = TestUpstream::start();
    upstream.otherwise(vec![Step::ReadBody, Step::Answer(echo)]);
    let gateway = TestGateway::start_with(&config(&upstream), Options::default());
    let fixture: Value = serde_json::from_str(FIXTURE).unwrap();
    for user in fixture.get("users").and_then(Value::as_array).unwrap() {
        let text = |name: &str| user.get(name).and_then(Value::as_str);
        let username = text("username").unwrap();
        // An empty password, which Django has, cannot be set here; no case uses it.
        let password = text("password").filter(|password| !password.is_empty());
        gateway.user(username, password.unwrap_or("not used by any case"));
        if let Some(token) = text("token") {
            gateway.import_token(username, token);
        }
        if user.get("is_active") == Some(&Value::Bool(false)) {
            gateway.deactivate(username);
        }
    }
    let client = Client::new(Protocol::Http1, gateway.address());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut failed = 0;
    // Clients with an address of their own, whom no throttle knows yet.
    let mut strangers = (1..=u8::MAX).map(|number| IpAddr::from([127, 77, 0, number]));
    for set in SETS {
        let cases: Vec<Value> = set.cases.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(cases.len(), set.count, "a case was lost");
        for case in &cases {
            let is_fresh = case.get("fresh_client") == Some(&Value::Bool(true));
            let stranger = is_fresh.then(|| client.at(strangers.next().unwrap()));
            let found = runtime.block_on(replay(set, stranger.as_ref().unwrap_or(&client), case));
            for difference in &found {
                let text = |name: &str| case.get(name).and_then(Value::as_str).unwrap();
                eprintln!("{} ({}): {difference}", text("id"), text("rule"));
            }
            failed += usize::from(!found.is_empty());
        }
    }
    upstream.assert_no_violation();
    assert_eq!(failed, 0, "cases failed");
}

/// With Django's own database, and everything that is in it; the options say where that is.
fn replay_with_django(options: &[&str], cases: &str, passed: &str, skipped: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut script = Command::new(root.join("scripts/conformance"));
    script.args(options).arg(root.join("tests/conformance").join(cases)).arg("--exact-bytes");
    let replayed = script.env("DOORWARD_BIN", env!("CARGO_BIN_EXE_doorward")).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&replayed.stdout), String::from_utf8_lossy(&replayed.stderr));
    eprintln!("{out}\n{err}");
    assert!(replayed.status.success(), "cases failed; see above");
    // So that none is lost, and none is left out without somebody noticing.
    assert_eq!(out.lines().last(), Some(passed));
    assert!(out.lines().any(|line| line == skipped), "{out}");
}

#[test]
fn answers_are_those_of_the_recorded_site() {
    replay_with_django(&[], "cases.jsonl", "294 passed, 0 failed", "18 skipped");
}

/// What was found by sending much else to the same site.
#[test]
fn answers_are_those_of_the_site_in_further_cases() {
    replay_with_django(&[], "more.jsonl", "138 passed, 0 failed", "0 skipped");
}

#[test]
fn answers_are_the_same_with_postgresql() {
    replay_with_django(&["--postgres"], "cases.jsonl", "294 passed, 0 failed", "18 skipped");
    replay_with_django(&["--postgres"], "more.jsonl", "138 passed, 0 failed", "0 skipped");
}
