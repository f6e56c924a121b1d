//! Spans: what a collector gets, and what the upstream is told. Of a doorward with the feature `otel`.

use crate::harness::client::{Client, Protocol, Request};
use crate::harness::script::{Step, answer, respond};
use crate::harness::secrets;
use crate::harness::upstream::TestUpstream;
use crate::harness::world::{ROUTES, Settings, World};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;
use std::time::Duration;
use tokio::time::Instant;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn caller(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

/// With a collector, and further lines of `[traces]`.
fn settings(collector: &TestUpstream, traces: &str) -> Settings {
    let endpoint = collector.url();
    let sections =
        format!("{ROUTES}\n[traces]\nendpoint = \"{endpoint}\"\nservice_name = \"front\"\n{traces}\n");
    Settings::sections(&sections)
}

fn collector() -> TestUpstream {
    let collector = TestUpstream::start();
    collector.script("/v1/traces", respond(answer("200 OK", &[], "")));
    collector
}

/// All spans that a collector got.
fn spans(collector: &TestUpstream) -> Vec<Span> {
    let mut spans = Vec::new();
    for request in &collector.log().requests {
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/v1/traces"));
        assert_eq!(request.one("content-type").as_deref(), Some("application/x-protobuf"));
        secrets::written(&request.body);
        let sent = ExportTraceServiceRequest::decode(request.body.as_slice()).unwrap();
        for of_resource in sent.resource_spans {
            let resource = of_resource.resource.unwrap();
            let name = resource.attributes.iter().find(|pair| pair.key == "service.name").unwrap();
            let name = name.value.clone().unwrap().value.unwrap();
            assert_eq!(name, Value::StringValue("front".to_owned()));
            spans.extend(of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    spans
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let pair = span.attributes.iter().find(|pair| pair.key == key)?;
    match pair.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{other:?}"),
    }
}

/// The span of this kind for the request with this path.
fn of<'s>(spans: &'s [Span], path: &str, kind: SpanKind) -> Option<&'s Span> {
    let is_server = |span: &&Span| attribute(span, "url.path").as_deref() == Some(path);
    let server = spans.iter().find(is_server).unwrap_or_else(|| panic!("no span of {path}: {spans:#?}"));
    if kind == SpanKind::Server {
        return Some(server);
    }
    spans.iter().find(|span| span.parent_span_id == server.span_id && span.kind == kind as i32)
}

fn has_failed(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code == StatusCode::Error as i32)
}

#[test]
fn a_recorded_request_is_a_span_with_a_child_that_the_upstream_was_told_of() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let collector = collector();
        let world = World::start(&settings(&collector, ""));
        world.upstream.script("/closed", vec![Step::ReadBody, Step::Close]);
        world.run(protocol, async |world, client| {
            let traced = world.get("/traced?token=in-the-query").field("traceparent", caller("01"));
            assert_eq!(client.send(traced.field("tracestate", "vendor=1")).await.status, 200);
            assert_eq!(client.send(Request::get("/refused")).await.status, 401);
            assert_eq!(client.send(world.get("/fresh").field("traceparent", "00-x")).await.status, 200);
            assert_eq!(client.send(world.get("/closed")).await.status, 502);
            // It comes without anybody having to stop.
            collector.wait_for("spans", |log| !log.requests.is_empty()).await;
        });
        let World { gateway, upstream, .. } = world;
        drop(gateway);
        let spans = spans(&collector);
        let server = of(&spans, "/traced", SpanKind::Server).unwrap();
        assert_eq!(
            (hex(&server.trace_id), hex(&server.parent_span_id)),
            (TRACE.to_owned(), PARENT.to_owned())
        );
        assert_eq!(server.name, "GET everything");
        let version = if protocol == Protocol::Http1 { "1.1" } else { "2" };
        for (key, value) in [
            ("http.request.method", "GET"),
            ("http.route", "everything"),
            ("http.response.status_code", "200"),
            ("network.protocol.version", version),
            ("client.address", "127.0.0.1"),
            ("auth.scheme", "Token"),
        ] {
            assert_eq!(attribute(server, key).as_deref(), Some(value), "{key}");
        }
        let client = of(&spans, "/traced", SpanKind::Client).unwrap();
        assert_eq!(client.trace_id, server.trace_id);
        assert_eq!(attribute(client, "upstream.name").as_deref(), Some("legacy"));
        assert!(server.start_time_unix_nano <= client.start_time_unix_nano);
        assert!(client.start_time_unix_nano < client.end_time_unix_nano);
        assert!(client.end_time_unix_nano <= server.end_time_unix_nano);
        let log = upstream.log();
        let told = log.of("/traced")[0];
        let expected = format!("00-{TRACE}-{}-01", hex(&client.span_id));
        assert_eq!(told.all("traceparent"), [expected]);
        assert_eq!(told.one("tracestate").as_deref(), Some("vendor=1"));
        assert!(!format!("{spans:?}").contains("in-the-query"), "the query is nobody's business");
        // A refusal has no child, and is no error of ours.
        let refused = of(&spans, "/refused", SpanKind::Server).unwrap();
        assert_eq!(of(&spans, "/refused", SpanKind::Client), None);
        assert_eq!(attribute(refused, "error.type").as_deref(), Some("authorize.not-authenticated"));
        assert!(!has_failed(refused) && refused.parent_span_id.is_empty());
        // What nobody can read begins a trace, whose id is the request's.
        let fresh = of(&spans, "/fresh", SpanKind::Server).unwrap();
        let id = log.of("/fresh")[0].one("x-request-id").unwrap();
        assert_eq!((hex(&fresh.trace_id), attribute(fresh, "request.id")), (id.clone(), Some(id)));
        assert!(fresh.parent_span_id.is_empty());
        for kind in [SpanKind::Server, SpanKind::Client] {
            let closed = of(&spans, "/closed", kind).unwrap();
            assert!(has_failed(closed), "{closed:#?}");
            assert_eq!(attribute(closed, "error.type").as_deref(), Some("forward.closed"));
        }
    }
}

#[test]
fn only_a_trusted_proxy_has_its_requests_recorded() {
    for is_trusted in [false, true] {
        let collector = collector();
        let mut settings = settings(&collector, "sample = \"none\"");
        if is_trusted {
            settings.sections.push_str("\n[clients]\ntrusted_proxies = [\"127.0.0.1\"]\n");
        }
        let world = World::start(&settings);
        world.run(Protocol::Http2, async |world, client| {
            for (path, parent) in
                [("/sampled", caller("01")), ("/not", caller("00")), ("/bad", "00-x".to_owned())]
            {
                let request = world.get(path).field("traceparent", &parent).field("tracestate", "vendor=1");
                assert_eq!(client.send(request).await.status, 200);
                let log = world.upstream.log();
                let told = log.of(path)[0];
                let is_as_it_came = told.all("traceparent") == [parent];
                assert_eq!(is_as_it_came, !(is_trusted && path == "/sampled"), "{path}: {told:?}");
                assert_eq!(told.one("tracestate").as_deref(), Some("vendor=1"));
            }
            assert_eq!(client.send(world.get("/none")).await.status, 200);
            assert!(world.upstream.log().of("/none")[0].one("traceparent").is_none());
        });
        drop(world);
        let recorded: Vec<_> =
            spans(&collector).iter().filter_map(|span| attribute(span, "url.path")).collect();
        assert_eq!(recorded, if is_trusted { vec!["/sampled"] } else { vec![] });
    }
}

#[test]
fn a_collector_that_is_away_or_stalls_slows_no_request_and_no_stop() {
    for collector in [TestUpstream::down(), TestUpstream::start_deaf()] {
        let world = World::start(&settings(&collector, ""));
        world.run(Protocol::Http2, async |world, client: &Client| {
            let mut longest = Duration::ZERO;
            // More than a batch, and longer than the wait for one.
            for _ in 0..600 {
                let since = Instant::now();
                assert_eq!(client.send(world.get("/x")).await.status, 200);
                longest = longest.max(since.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(1_100)).await;
            assert_eq!(client.send(world.get("/x")).await.status, 200);
            assert!(longest < Duration::from_secs(2), "{longest:?}");
        });
        let since = Instant::now();
        drop(world);
        assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    }
}
