//! What is shipped to watch a gateway with says only what is so: the dashboard, the alerts, the operating guide.

use crate::harness::client::{Client, Protocol, Request};
use crate::harness::refusing::RefusingPort;
use crate::harness::scrape::{ADMIN, Scrape};
use crate::harness::services::redis::Redis;
use crate::harness::world::{ROUTES, Settings, World};
use crate::metrics::change_store;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

type Names = BTreeSet<String>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The names that are registered, from the sources: some have no series before their event.
pub(crate) fn registered() -> Names {
    let mut names = Names::new();
    for entry in std::fs::read_dir(root().join("src/telemetry/metrics")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        // Between quotes is every second piece.
        for word in text.split('"').skip(1).step_by(2) {
            let is_name = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            if is_name && (word.starts_with("doorward_") || word.starts_with("process_")) {
                names.insert(word.to_owned());
            }
        }
    }
    assert!(names.len() > 30, "{names:?}");
    names
}

/// What a gateway has counted to which everything has happened.
fn busy() -> Scrape {
    let (down, redis) = (RefusingPort::new(), Redis::start());
    let sections = format!(
        "[deployment]\nkey = \"{}\"\n[redis]\nurl = \"{}\"\n{ROUTES}\n[throttles.never]\nrate = \"0/min\"\n\n[upstreams.down]\nservers = [\"http://{}\"]\n\n\
         [routes.never]\npath = \"/never\"\nupstream = \"legacy\"\nthrottles = [\"never\"]\n\n\
         [routes.down]\npath = \"/down\"\nupstream = \"down\"\n\n\
         [routes.login]\npath = \"/login\"\nhandler = \"obtain-token\"\n",
        "k".repeat(32),
        redis.url(),
        down.address
    );
    let world = World::start(&Settings { listen: ADMIN, ..Settings::sections(&sections) });
    let found = Mutex::new(None);
    world.run(Protocol::Http2, async |world, client| {
        let body = r#"{"username": "alice", "password": "wrong"}"#;
        let login = Request::post("/login", body).field("Content-Type", "application/json");
        for (request, status) in [
            (world.get("/x"), 200),
            (world.post("/x", "body"), 200),
            (world.get("/never"), 429),
            (world.get("/down"), 502),
            (login, 400),
        ] {
            assert_eq!(client.send(request).await.status, status);
        }
        let raw = Client::new(Protocol::Http1, world.gateway.address()).raw("\0\0\0\r\n\r\n").await;
        world.becomes("doorward_connections_refused_total{reason=\"connection.malformed\"}", 1.0).await;
        drop(raw);
        change_store(world, &["ALTER TABLE token RENAME TO gone"]).await;
        assert_eq!(client.send(Request::get("/x").token("nobody's")).await.status, 503);
        change_store(world, &["ALTER TABLE gone RENAME TO token"]).await;
        redis.pause();
        world.becomes("doorward_degraded{part=\"redis\"}", 1.0).await;
        let errors = "doorward_shared_cache_errors_total{operation=\"publish\"}";
        while !world.scrape().await.samples.contains_key(errors) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        *found.lock() = Some(world.scrape().await);
    });
    found.into_inner().expect("a scrape")
}

/// Names of samples, as queries name them, and the labels of each; `le` is every histogram's own.
fn samples(scrape: &Scrape) -> BTreeMap<String, Names> {
    scrape.labels.clone()
}

/// The words of a query that are names of samples, each with its place.
fn named(query: &str) -> Vec<(usize, String)> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    let bytes = query.as_bytes();
    let mut found = Vec::new();
    let mut place = 0;
    while place < bytes.len() {
        let length = bytes[place..].iter().take_while(|byte| is_part(**byte)).count();
        let word = &query[place..place + length];
        if word.starts_with("doorward_") || word.starts_with("process_") {
            found.push((place + length, word.to_owned()));
        }
        place += length.max(1);
    }
    found
}

/// The labels that are asked of one sample: what stands in the braces after it.
fn selected(after: &str) -> Names {
    let Some(inner) = after.strip_prefix('{') else { return Names::new() };
    let mut labels = Names::new();
    let mut rest = inner;
    while !rest.starts_with('}') {
        let (label, more) = rest.split_once(['=', '!']).unwrap();
        labels.insert(label.trim_matches([' ', ',']).to_owned());
        let (_, more) = more.split_once('"').unwrap();
        rest = more.split_once('"').unwrap().1;
    }
    labels
}

/// The labels that a query groups by.
fn grouped(query: &str) -> Names {
    let lists = query.split(" by (").skip(1).map(|rest| rest.split_once(')').unwrap().0);
    lists.flat_map(|list| list.split(',')).map(|label| label.trim().to_owned()).collect()
}

/// Labels that Prometheus gives every series.
const OF_PROMETHEUS: [&str; 2] = ["instance", "job"];

/// What is wrong with a query, and the labels that its answer may have.
fn faults(query: &str, samples: &BTreeMap<String, Names>) -> (Vec<String>, Names) {
    let mut faults = Vec::new();
    let mut known: Names = OF_PROMETHEUS.map(str::to_owned).into();
    for (end, name) in named(query) {
        let Some(labels) = samples.get(&name) else {
            faults.push(format!("there is no {name}: {query}"));
            continue;
        };
        known.extend(labels.iter().cloned());
        for label in selected(&query[end..]) {
            if !labels.contains(&label) && !OF_PROMETHEUS.contains(&label.as_str()) {
                faults.push(format!("{name} has no {label}: {query}"));
            }
        }
    }
    let unknown = grouped(query).into_iter().filter(|label| !known.contains(label));
    faults.extend(unknown.map(|label| format!("nothing has {label}: {query}")));
    let grouped = grouped(query);
    (faults, if grouped.is_empty() { known } else { grouped })
}

/// Every query of the dashboard with the text of its legend.
fn dashboard() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("config/grafana/doorward.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let queries: Vec<_> =
        targets.map(|target| (text(&target["expr"]), text(&target["legendFormat"]))).collect();
    assert!(queries.len() > 40, "{}", queries.len());
    queries
}

/// An alert of the file.
#[derive(Debug, Default, Clone)]
struct Alert {
    name: String,
    query: String,
    summary: String,
    runbook: String,
    severity: String,
}

/// Reads the lines of the file; it has each value on one line.
fn alerts() -> Vec<Alert> {
    let mut alerts: Vec<Alert> = Vec::new();
    for line in read("config/prometheus/alerts.yml").lines().map(str::trim) {
        let Some((key, value)) = line.split_once(": ") else { continue };
        if key == "- alert" {
            alerts.push(Alert { name: value.to_owned(), ..Alert::default() });
        }
        let Some(alert) = alerts.last_mut() else { continue };
        match key {
            "expr" => value.clone_into(&mut alert.query),
            "summary" => value.clone_into(&mut alert.summary),
            "runbook_url" => value.clone_into(&mut alert.runbook),
            "severity" => value.clone_into(&mut alert.severity),
            _ => {}
        }
    }
    assert!(alerts.len() > 15, "{alerts:#?}");
    alerts
}

/// The labels in `{{ $labels.NAME }}` (of alerts) or `{{NAME}}` (of legends).
fn shown(text: &str) -> Names {
    let words = text.split("{{").skip(1).map(|rest| rest.split_once("}}").unwrap().0.trim());
    words.filter(|word| !word.starts_with("$value")).map(|word| word.replace("$labels.", "")).collect()
}

#[test]
fn dashboard_and_alerts_name_only_what_there_is() {
    let scrape = busy();
    let families: Names = scrape.families.keys().cloned().collect();
    assert_eq!(families, registered(), "every metric has a series when everything has happened");
    let samples = samples(&scrape);
    let mut used = Names::new();
    let mut found = Vec::new();
    let queries =
        dashboard().into_iter().chain(alerts().into_iter().map(|alert| (alert.query, alert.summary)));
    for (query, text) in queries {
        let (wrong, answered) = faults(&query, &samples);
        found.extend(wrong);
        let unknown = shown(&text).into_iter().filter(|label| !answered.contains(label));
        found.extend(unknown.map(|label| format!("the answer has no {label}: {query}")));
        used.extend(named(&query).into_iter().map(|(_, name)| name));
    }
    assert!(found.is_empty(), "{found:#?}");
    // The dashboard shows everything there is.
    let is_shown = |family: &&String| used.iter().any(|name| name.starts_with(family.as_str()));
    let hidden: Vec<_> = families.iter().filter(|family| !is_shown(family)).collect();
    assert!(hidden.is_empty(), "no panel shows {hidden:?}");
    the_guide_names_every_metric_with_its_labels(&scrape);
}

#[test]
fn wrong_queries_are_found() {
    let samples = BTreeMap::from([("doorward_x_total".to_owned(), Names::from(["route".to_owned()]))]);
    let count = |query: &str| faults(query, &samples).0.len();
    assert_eq!(
        count("sum by (route, instance) (rate(doorward_x_total{route=~\"a|b\", job=\"x\"}[5m])) > 0"),
        0
    );
    assert_eq!(count("doorward_x"), 1);
    assert_eq!(count("rate(doorward_x_total{reason=\"a\"}[5m]) / doorward_y"), 2);
    assert_eq!(count("sum by (upstream) (doorward_x_total)"), 1);
    assert_eq!(count("doorward_x_total{route!=\"}\", status=\"b\"}"), 1);
}

/// `| `name` | `label`, … | meaning |`
fn the_guide_names_every_metric_with_its_labels(scrape: &Scrape) {
    let guide = read("docs/operating.md");
    let told: BTreeMap<String, Names> = guide.lines().filter_map(row).collect();
    let wanted = scrape.families.iter().map(|(family, kind)| {
        let (name, sample) = match kind.as_str() {
            "counter" => (format!("{family}_total"), format!("{family}_total")),
            "info" => (format!("{family}_info"), format!("{family}_info")),
            "histogram" => (family.clone(), format!("{family}_count")),
            _ => (family.clone(), family.clone()),
        };
        (name, scrape.labels[&sample].clone())
    });
    assert_eq!(told, wanted.collect(), "docs/operating.md and /metrics");
}

fn row(line: &str) -> Option<(String, Names)> {
    let mut cells = line.strip_prefix("| `")?.split(" | ");
    let name = cells.next()?.strip_suffix('`')?;
    let is_metric = name.starts_with("doorward_") || name.starts_with("process_");
    let labels = cells.next()?.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    is_metric.then(|| (name.to_owned(), labels))
}

#[test]
fn each_alert_has_a_section_that_says_what_to_do() {
    let guide = read("docs/operating.md");
    for alert in alerts() {
        let Alert { name, query, summary, runbook, severity } = &alert;
        assert!(!query.is_empty() && !summary.is_empty(), "{alert:?}");
        assert!(["warning", "critical"].contains(&severity.as_str()), "{alert:?}");
        assert_eq!(runbook, &format!("docs/operating.md#{}", name.to_lowercase()));
        let heading = format!("\n### {name}\n");
        let (_, rest) = guide.split_once(&heading).unwrap_or_else(|| panic!("no section for {name}"));
        let section = rest.split("\n#").next().unwrap();
        assert!(section.len() > 100, "{name}: {section}");
    }
    // And none that there is no alert for.
    let names: Names = alerts().into_iter().map(|alert| alert.name).collect();
    let sections = guide.lines().filter_map(|line| line.strip_prefix("### Doorward"));
    for name in sections {
        assert!(names.contains(&format!("Doorward{name}")), "{name}");
    }
}
