//! `[traces]`: which requests become spans, and who collects them. Of a doorward that was built with the feature `otel`.

use toml::Spanned;

use crate::config::problem::{Fault, Problems};
use crate::config::raw;
use crate::config::share::Share;
use crate::config::upstream::ServerAddress;

/// Spans of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    /// The collector's name or address, which takes OTLP by HTTP; IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How many requests are recorded, besides those that a trusted proxy records.
    pub sample: Share,
    /// What the collector calls this process.
    pub service_name: String,
}

impl Traces {
    /// `is_built`: this doorward can send spans.
    pub(super) fn from_raw(
        raw: Option<Spanned<raw::Traces>>,
        is_built: bool,
        problems: &mut Problems,
    ) -> Option<Self> {
        let raw = raw?;
        let span = raw.span();
        let raw = raw.into_inner();
        if !is_built {
            let fault = Fault::new("this doorward was built without traces");
            problems
                .error(&span, fault.help("build it with the feature: cargo build --release --features otel"));
            return None;
        }
        let Some(endpoint) = raw.endpoint else {
            if !problems.is_lost(&["traces", "endpoint"]) {
                let fault = Fault::new("[traces] has no `endpoint`");
                problems.error(&span, fault.help("write endpoint = \"http://127.0.0.1:4318\""));
            }
            return None;
        };
        let ServerAddress::Http { host, port } = endpoint.value else {
            let fault = Fault::new("spans are sent by http://, to a collector nearby");
            problems.error(&endpoint.span, fault.help("such as \"http://127.0.0.1:4318\""));
            return None;
        };
        Some(Self {
            host,
            port,
            sample: raw.sample.map(|entry| entry.value).unwrap_or_default(),
            service_name: raw.service_name.map_or_else(|| "doorward".to_owned(), |entry| entry.value),
        })
    }
}
