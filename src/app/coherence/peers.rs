//! Which other replicas there are: those who say so.

use crate::cache::coherence::Publisher;
use crate::clock::Monotonic;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// Who has not said anything for this long is not there; it is said each second.
const SILENCE: Duration = Duration::from_millis(3500);
/// Replicas that are told apart.
const PEERS_MAX: usize = 4096;

/// When each was heard last.
#[derive(Debug, Default)]
pub(super) struct Peers {
    heard: Mutex<HashMap<Publisher, Monotonic>>,
}

impl Peers {
    /// One said that it is there.
    pub(super) fn hear(&self, publisher: Publisher, now: Monotonic) {
        let mut heard = self.heard.lock();
        if heard.len() >= PEERS_MAX {
            heard.retain(|_, last| now.since(*last) < SILENCE);
        }
        if heard.len() < PEERS_MAX {
            heard.insert(publisher, now);
        }
    }

    /// Who is there.
    pub(super) fn present(&self, now: Monotonic) -> BTreeSet<Publisher> {
        let mut heard = self.heard.lock();
        heard.retain(|_, last| now.since(*last) < SILENCE);
        heard.keys().copied().collect()
    }
}
