//! The same question, the same answer: cases recorded from a real Django REST framework site, replayed.
//!
//! `cases.jsonl` is what Django 5.2 with DRF 3.18 answered, byte for byte, and is never edited by hand; what cannot be
//! the same behind a gateway is left out here, with the reason: `Allow` on the gateway's own answers (it does not know
//! the upstream's methods). `fixture.json` has the users and tokens that the cases name.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "test code: a panic is a failed test"
)]

#[path = "../gateway/harness/mod.rs"]
#[expect(
    dead_code,
    clippy::indexing_slicing,
    reason = "written for the end-to-end tests, of which these need a part"
)]
mod harness;

use doorward::app::Options;
use harness::client::{Answer, Client, Protocol};
use harness::gateway::TestGateway;
use harness::script::Step;
use harness::upstream::{Recorded, TestUpstream};
use serde_json::Value;

const CASES: &str = include_str!("cases.jsonl");
const FIXTURE: &str = include_str!("fixture.json");
const HOST: &str = "api.example.test";

/// Compared header fields; `Allow` is not among them.
const FIELDS: [&str; 5] = ["WWW-Authenticate", "Retry-After", "Content-Type", "Vary", "Location"];

fn config(upstream: &TestUpstream) -> String {
    format!(
        "[listen]\nhttps = [\"127.0.0.1:0\"]\nworkers = 1\n\n[store]\nurl = \"sqlite:doorward.db\"\n\n\
         [identity]\nauth_type = \"X-Auth-Kind\"\n\n[upstreams.echo]\nservers = [\"{}\"]\n\n\
         [routes.token]\npath = \"/v/token/\"\nupstream = \"echo\"\nschemes = [\"token\"]\n\n\
         [routes.get-only]\npath = \"/v/get_only/\"\nupstream = \"echo\"\nschemes = [\"token\"]\n",
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

/// Values of all lines of a field, joined.
fn joined(answer: &Answer, name: &str) -> Option<String> {
    let all = answer.all(name);
    (!all.is_empty()).then(|| all.join(", "))
}

/// As the field is compared: `Vary` is a set, a space after `;` in `Content-Type` says nothing.
fn normal(name: &str, value: Option<String>) -> Option<String> {
    let value = value?;
    Some(match name {
        "Vary" => {
            let mut names: Vec<_> = value.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
            names.sort();
            names.join(", ")
        }
        "Content-Type" => value.replace("; ", ";").to_ascii_lowercase(),
        _ => value,
    })
}

/// All differences between what was recorded and what came.
fn differences(expected: &Value, answer: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare =
        |what: &str, expected: &dyn std::fmt::Debug, came: &dyn std::fmt::Debug, equal: bool| {
            if !equal {
                found.push(format!("{what}: expected {expected:?}, came {came:?}"));
            }
        };
    let status = expected.get("status").and_then(Value::as_u64).unwrap();
    compare("status", &status, &answer.status, status == u64::from(answer.status));
    for name in FIELDS {
        let Some(value) = expected.get("headers").and_then(|fields| fields.get(name)) else { continue };
        let value = normal(name, value.as_str().map(str::to_owned));
        let came = normal(name, joined(answer, name));
        compare(name, &value, &came, value == came);
    }
    let cookies = expected.get("set_cookies").and_then(Value::as_array).unwrap();
    assert!(cookies.is_empty(), "a token case sets a cookie: write the comparison");
    let came = answer.all("set-cookie");
    compare("Set-Cookie", cookies, &came, came.is_empty());
    let body = expected.get("body").unwrap();
    match body.get("kind").and_then(Value::as_str).unwrap() {
        "empty" => compare("body", &"", &answer.text(), answer.body.is_empty()),
        "json" => {
            let json = body.get("json").unwrap();
            let came = serde_json::from_slice::<Value>(&answer.body).ok();
            compare("body", json, &came, came.as_ref() == Some(json));
            if let Some(raw) = body.get("raw").and_then(Value::as_str) {
                compare("raw body", &raw, &answer.text(), raw.as_bytes() == answer.body);
            }
        }
        kind => panic!("a body of kind {kind:?}: write the comparison"),
    }
    found
}

async fn replay(client: &Client, case: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for step in case.get("steps").and_then(Value::as_array).unwrap() {
        assert!(step.get("capture").is_none(), "a token case captures a value: write it");
        let request = step.get("request").unwrap();
        let method = request.get("method").and_then(Value::as_str).unwrap();
        let mut exchange = client.raw(bytes(request)).await;
        match exchange.answer(method, &["Allow", "Set-Cookie", "Location"]).await {
            Ok(answer) => {
                found.extend(differences(step.get("expect").unwrap(), &answer));
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
        let text = |name: &str| user.get(name).and_then(Value::as_str).unwrap();
        gateway.user(text("username"), "not used by any case");
        gateway.import_token(text("username"), text("token"));
        if user.get("is_active") == Some(&Value::Bool(false)) {
            gateway.deactivate(text("username"));
        }
    }
    let cases: Vec<Value> = CASES.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(cases.len(), 42, "a case was lost");
    let client = Client::new(Protocol::Http1, gateway.address());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let failed = runtime.block_on(async {
        let mut failed = 0;
        for case in &cases {
            let found = replay(&client, case).await;
            for difference in &found {
                let text = |name: &str| case.get(name).and_then(Value::as_str).unwrap();
                eprintln!("{} ({}): {difference}", text("id"), text("rule"));
            }
            failed += usize::from(!found.is_empty());
        }
        failed
    });
    upstream.assert_no_violation();
    assert_eq!(failed, 0, "of {} cases", cases.len());
}
