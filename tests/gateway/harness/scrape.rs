//! Asks the admin listener, and reads what it has counted.
//!
//! A reader of its own for the text of `OpenMetrics` 1.0: whatever is not exact fails the test that it comes in.

use super::PATIENCE;
use super::client::patiently;
use super::gateway::TestGateway;
use super::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// Lines of `[listen]` for a gateway that is asked here.
pub(crate) const ADMIN: &str = "admin = \"127.0.0.1:0\"";

/// An answer of the admin listener.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// Where the admin listener of a gateway is.
pub(crate) fn admin(gateway: &TestGateway) -> SocketAddr {
    gateway.running().admin_address().expect("no admin listener")
}

/// One request over TCP.
pub(crate) async fn ask(address: SocketAddr, method: &str, path: &str) -> Reply {
    exchange(TcpStream::connect(address).await.unwrap(), method, path).await
}

/// One request over the unix socket.
pub(crate) async fn ask_socket(socket: &Path, path: &str) -> Reply {
    exchange(UnixStream::connect(socket).await.unwrap(), "GET", path).await
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin + Send, method: &str, path: &str) -> Reply {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // One request a connection, so the end of it is the end of the answer.
    patiently("the admin listener", stream.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let field = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_ascii_lowercase(), value.to_owned())
    };
    Reply { status, fields: lines.map(field).collect(), body: body.to_owned() }
}

/// Everything that is counted now.
pub(crate) async fn scrape(address: SocketAddr) -> Scrape {
    let reply = ask(address, "GET", "/metrics").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    Scrape::parse(&reply.body)
}

impl World {
    /// Everything that this gateway has counted.
    pub(crate) async fn scrape(&self) -> Scrape {
        scrape(admin(&self.gateway)).await
    }

    /// Waits until exactly these series of a metric have moved since then, by so much.
    pub(crate) async fn moved(&self, before: &Scrape, metric: &str, wanted: &[(&str, f64)]) {
        moved(admin(&self.gateway), before, metric, wanted).await;
    }

    /// Waits until the series has this value.
    pub(crate) async fn becomes(&self, series: &str, wanted: f64) {
        becomes(admin(&self.gateway), series, wanted).await;
    }
}

/// As [`World::moved`]. A request counts when its last byte is gone, which its client may see before.
pub(crate) async fn moved(address: SocketAddr, before: &Scrape, metric: &str, wanted: &[(&str, f64)]) {
    let wanted: BTreeMap<String, f64> = wanted
        .iter()
        .map(|(labels, by)| {
            (if labels.is_empty() { metric.to_owned() } else { format!("{metric}{{{labels}}}") }, *by)
        })
        .collect();
    let mut found = BTreeMap::new();
    let wait = async {
        while found != wanted {
            found = scrape(address).await.moved_since(before, metric);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let is_so = tokio::time::timeout(PATIENCE, wait).await.is_ok();
    assert!(is_so, "{metric} moved by {found:#?}, not by {wanted:#?}");
}

/// As [`World::becomes`].
pub(crate) async fn becomes(address: SocketAddr, series: &str, wanted: f64) {
    let mut found = None;
    let wait = async {
        while found != Some(wanted) {
            found = scrape(address).await.samples.get(series).copied();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let is_so = tokio::time::timeout(PATIENCE, wait).await.is_ok();
    assert!(is_so, "{series} is {found:?}, not {wanted}");
}

/// What was counted at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Scrape {
    /// Families and their types.
    pub(crate) families: BTreeMap<String, String>,
    /// By name, and labels sorted by their names: `doorward_connections{listener="https"}`. Values of labels are as
    /// they were before they were escaped.
    pub(crate) samples: BTreeMap<String, f64>,
    /// Names of the labels of each sample's name.
    pub(crate) labels: BTreeMap<String, BTreeSet<String>>,
}

impl Scrape {
    /// Reads the text; fails if it is not exact.
    pub(crate) fn parse(text: &str) -> Self {
        let mut new = Self { families: BTreeMap::new(), samples: BTreeMap::new(), labels: BTreeMap::new() };
        let lines = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no end: {text}"));
        let mut family = (String::new(), String::new());
        let mut buckets = BTreeMap::new();
        for line in lines.strip_suffix('\n').unwrap_or_default().split('\n') {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(!help.is_empty() && is_name(name), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram", "info"].contains(&kind), "{line}");
                assert!(
                    new.families.insert(name.to_owned(), kind.to_owned()).is_none(),
                    "{line} is there twice"
                );
                family = (name.to_owned(), kind.to_owned());
            } else {
                new.sample(line, &family.0, &family.1, &mut buckets);
            }
        }
        new.check_histograms(&buckets);
        new
    }

    fn sample(&mut self, line: &str, family: &str, kind: &str, buckets: &mut Buckets) {
        let (name, labels, value) = split(line);
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} is not of {family}"));
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_count", "_sum"],
            "info" => &["_info"],
            _ => &[""],
        };
        assert!(suffixes.contains(&suffix), "{line} of the {kind} {family}");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(value.is_finite() && value >= 0.0, "{line}");
        self.labels.entry(name.to_owned()).or_default().extend(labels.keys().cloned());
        let series = series_of(name, &labels);
        if suffix == "_bucket" {
            let mut others = labels;
            let bound = others.remove("le").unwrap_or_else(|| panic!("{line}")).parse().unwrap();
            let count = format!("{family}_count");
            buckets.entry(series_of(&count, &others)).or_default().push((bound, value));
        }
        assert!(self.samples.insert(series, value).is_none(), "{line} is there twice");
    }

    /// Buckets only grow, and the last one is the count.
    fn check_histograms(&self, buckets: &Buckets) {
        for (series, counts) in buckets {
            assert!(counts.len() > 2, "{series}: {counts:?}");
            assert!(counts.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{series}: {counts:?}");
            assert_eq!(counts.last(), Some(&(f64::INFINITY, self.value(series))), "{series}");
        }
    }

    /// The value of a series; there must be one.
    pub(crate) fn value(&self, series: &str) -> f64 {
        self.samples.get(series).copied().unwrap_or_else(|| panic!("no {series}: {:#?}", self.of(series)))
    }

    /// All series of a sample's name.
    pub(crate) fn of(&self, series: &str) -> BTreeMap<String, f64> {
        let name = series.split('{').next().unwrap();
        let is_of = |other: &str| other.split('{').next() == Some(name);
        self.samples
            .iter()
            .filter(|(other, _)| is_of(other))
            .map(|(name, value)| (name.clone(), *value))
            .collect()
    }

    /// The sum of all series of a sample's name.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.of(name).values().sum()
    }

    /// Those that are others than before, and by how much.
    pub(crate) fn moved_since(&self, before: &Self, name: &str) -> BTreeMap<String, f64> {
        let moves = self.of(name).into_iter().map(|(series, value)| {
            let old = before.samples.get(&series).copied().unwrap_or(0.0);
            (series, value - old)
        });
        moves.filter(|(_, by)| *by != 0.0).collect()
    }
}

/// Bounds and counts, by the series of their sum.
type Buckets = BTreeMap<String, Vec<(f64, f64)>>;

fn series_of(name: &str, labels: &BTreeMap<String, String>) -> String {
    let text: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    if text.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", text.join(",")) }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Name, labels and value of a line.
fn split(line: &str) -> (&str, BTreeMap<String, String>, &str) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line:?}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(label), "{line}");
            let (value, after) = unescape(after).unwrap_or_else(|| panic!("{line}"));
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            match after.split_at(1) {
                (",", more) => rest = more,
                ("}", more) => {
                    rest = more;
                    break;
                }
                _ => panic!("{line}"),
            }
        }
    }
    (name, labels, rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}")))
}

/// The value of a label to its closing quote, and what is after that.
fn unescape(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(place + 1..)?)),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                _ => return None,
            }),
            _ => value.push(character),
        }
    }
    None
}
