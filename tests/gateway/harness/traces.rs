//! Collects what the gateway tells of finished requests.
//!
//! A request is told of when the last byte of its answer is gone, which may be after the client has read it: so
//! a test waits for what it wants to see, and never looks too early.

use super::PATIENCE;
use doorward::app::Options;
use doorward::telemetry::{Finished, Observer};
use doorward::trace::Trace;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::watch;

/// What is kept of one request.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) trace: Trace,
    pub(crate) path: Option<String>,
    pub(crate) status: Option<u16>,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
}

/// The requests told of, in that order; clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Traces(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    told: Mutex<Vec<Told>>,
    changed: watch::Sender<()>,
}

impl Traces {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner { told: Mutex::default(), changed: watch::channel(()).0 }))
    }

    /// Options with this as the observer.
    pub(crate) fn options(&self) -> Options {
        Options { observer: Arc::new(self.clone()), ..Options::default() }
    }

    pub(crate) fn all(&self) -> Vec<Told> {
        self.0.told.lock().clone()
    }

    /// Waits until what was told is as described; `false` if it does not come to that.
    pub(crate) async fn becomes(&self, condition: impl Fn(&[Told]) -> bool + Send + Sync) -> bool {
        let mut changed = self.0.changed.subscribe();
        let wait = async {
            while !condition(&self.0.told.lock()) {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.is_ok()
    }

    /// The request for this path, when it has been told of; there must be one.
    pub(crate) async fn of(&self, path: &str) -> Told {
        let is_it = |told: &Told| told.path.as_deref() == Some(path);
        assert!(self.becomes(|all| all.iter().any(is_it)).await, "{path} is not told of: {:#?}", self.all());
        let mut found: Vec<_> = self.all().into_iter().filter(is_it).collect();
        assert_eq!(found.len(), 1, "{path} is told of more than once: {found:#?}");
        found.remove(0)
    }
}

impl Observer for Traces {
    fn finished(&self, request: &Finished<'_>) {
        self.0.told.lock().push(Told {
            trace: *request.trace,
            path: request.path.map(str::to_owned),
            status: request.status,
            request_bytes: request.request_bytes,
            response_bytes: request.response_bytes,
        });
        self.0.changed.send_replace(());
    }
}
