//! Cost of reading a request: its credentials, its target, its fields.
//!
//! All of this happens on every request before anybody is asked, on bytes that a client chose.

#![expect(clippy::unwrap_used, reason = "a bench: a panic is a failed run")]

use divan::{Bencher, black_box};
use doorward::accept::head::{RequestId, Sanitiser};
use doorward::accept::peer::Peer;
use doorward::authenticate::schemes::token;
use doorward::header::authorization::{self, Words};
use doorward::header::guarded::GuardedNames;
use doorward::header::target::Target;
use doorward::trace::Trace;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Request, request};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VALUE: &[u8] = b"Token 9944b09199c62bcf9418ad846dd0e4bbdfc6ee4b";

fn main() {
    divan::main();
}

#[divan::bench(args = [
    "Token 9944b09199c62bcf9418ad846dd0e4bbdfc6ee4b",
    "Basic YWxpY2U6aHVudGVyMg==",
    "Token a b c",
    "",
])]
fn authorization_words(value: &'static str) -> Words<'static> {
    Words::of(black_box(value.as_bytes()))
}

#[divan::bench]
fn token_value() -> token::Reading<'static> {
    token::read(black_box(VALUE), "Token")
}

#[divan::bench]
fn token_of_headers(bencher: Bencher<'_, '_>) {
    let parts = program();
    bencher.bench_local(|| {
        let value = authorization::value(&black_box(&parts).headers).unwrap();
        assert!(matches!(token::read(&value, "Token"), token::Reading::Token(_)));
    });
}

#[divan::bench(args = [
    "/api/articles/42/?fields=title,body",
    "/api//articles/./42/../43/?fields=title",
    "/api/%61rticles/caf%c3%a9/",
    "/api/articles;v=1/42/",
])]
fn target(bencher: Bencher<'_, '_>, target: &str) {
    let target: PathAndQuery = target.parse().unwrap();
    bencher.with_inputs(|| target.clone()).bench_local_values(|target| Target::parse(target).unwrap());
}

/// Each field of a browser's request is asked for once.
#[divan::bench]
fn guarded_names_of_a_browser(bencher: Bencher<'_, '_>) {
    let (guarded, headers) = (guarded(), browser().headers);
    bencher.bench_local(|| count_guarded(&guarded, black_box(&headers)));
}

#[divan::bench]
fn sanitise_a_browsers_request(bencher: Bencher<'_, '_>) {
    sanitise(bencher, browser);
}

#[divan::bench]
fn sanitise_a_programs_request(bencher: Bencher<'_, '_>) {
    sanitise(bencher, program);
}

fn sanitise(bencher: Bencher<'_, '_>, parts: fn() -> request::Parts) {
    let sanitiser =
        Sanitiser { guarded: guarded(), trusted_proxies: Vec::new(), target_bytes: 8192, header_count: 100 };
    let peer = Peer { address: ([192, 0, 2, 1], 50_000).into(), is_tls: true, tls_version: None };
    // The head is handed back, so that dropping it is not measured.
    bencher.with_inputs(parts).bench_local_values(|mut parts| {
        sanitiser.sanitise(&mut parts, &peer, RequestId::new(1), &mut Trace::new()).unwrap()
    });
}

fn count_guarded(guarded: &GuardedNames, headers: &HeaderMap) -> usize {
    headers.keys().filter(|name| guarded.contains(name)).count()
}

fn guarded() -> GuardedNames {
    GuardedNames::new([
        &HeaderName::from_static("x-doorward-user"),
        &HeaderName::from_static("x-doorward-groups"),
    ])
}

/// A call of an API by a program.
fn program() -> request::Parts {
    let request = Request::get("/api/articles/42/?fields=title,body")
        .header("host", "api.example.com")
        .header("user-agent", "python-requests/2.32.3")
        .header("accept", "application/json")
        .header("accept-encoding", "gzip, deflate")
        .header("connection", "keep-alive")
        .header("authorization", VALUE);
    request.body(()).unwrap().into_parts().0
}

/// What a browser sends when a page asks for data.
fn browser() -> request::Parts {
    let request = Request::get("/api/articles/42/?fields=title,body")
        .header("host", "app.example.com")
        .header("connection", "keep-alive")
        .header("sec-ch-ua-platform", "\"Linux\"")
        .header("x-csrftoken", "XyZ0123456789abcdefghijklmnopqrs")
        .header(
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/139.0.0.0 Safari/537.36",
        )
        .header("accept", "application/json, text/plain, */*")
        .header("sec-ch-ua", "\"Chromium\";v=\"139\", \"Not;A=Brand\";v=\"99\"")
        .header("sec-ch-ua-mobile", "?0")
        .header("sec-fetch-site", "same-origin")
        .header("sec-fetch-mode", "cors")
        .header("sec-fetch-dest", "empty")
        .header("referer", "https://app.example.com/articles/42")
        .header("accept-encoding", "gzip, deflate, br, zstd")
        .header("accept-language", "en-GB,en;q=0.9,de;q=0.8")
        .header(
            "cookie",
            "csrftoken=XyZ0123456789abcdefghijklmnopqrs; sessionid=0123456789abcdefghijklmnopqrstuv",
        )
        .header("authorization", VALUE);
    request.body(()).unwrap().into_parts().0
}
