//! A gate that a test opens: what makes "the upstream is in the middle of its answer" a fact and not a guess.
//!
//! Sleeping would make the tests slow where it is long and flaky where it is short.

use std::sync::Arc;
use tokio::sync::watch;

/// Closed until opened; clones are the same gate.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(Arc::new(watch::channel(false).0))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    pub(crate) async fn wait(&self) {
        self.0.subscribe().wait_for(|open| *open).await.unwrap();
    }
}
