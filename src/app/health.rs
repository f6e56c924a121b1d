//! Whether requests are to be sent here, and which parts do not do their work.

use crate::clock::{Clock, UnixSeconds};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// A part without which requests are still served, as far as they can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::app) enum Part {
    /// The store cannot be asked what has changed: known credentials pass, as long as the file says.
    Store,
    /// The store cannot be written.
    StoreWrites,
    /// Redis cannot be listened to: what other replicas change is found in the store, a little later.
    Redis,
    /// The file of the configuration was refused; the one before is in place.
    Configuration,
    /// The files of certificates were refused; those before are in use.
    Certificates,
    /// The files of trust anchors of upstreams were refused; those before are believed.
    Anchors,
    /// The log's file could not be opened anew; lines still go to the one that was open.
    Log,
}

impl Part {
    pub(in crate::app) const ALL: [Self; 7] = [
        Self::Store,
        Self::StoreWrites,
        Self::Redis,
        Self::Configuration,
        Self::Certificates,
        Self::Anchors,
        Self::Log,
    ];

    pub(in crate::app) fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::StoreWrites => "store-writes",
            Self::Redis => "redis",
            Self::Configuration => "configuration",
            Self::Certificates => "certificates",
            Self::Anchors => "trust-anchors",
            Self::Log => "log",
        }
    }
}

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

/// How the process stands; written by those who know, read when somebody asks.
#[derive(Debug)]
pub(in crate::app) struct Health {
    phase: AtomicU8,
    degraded: Mutex<BTreeSet<Part>>,
    clock: Arc<dyn Clock>,
    started: UnixSeconds,
    /// When a configuration was last put in place.
    configured: Mutex<UnixSeconds>,
}

impl Health {
    /// Starting.
    pub(in crate::app) fn new(clock: Arc<dyn Clock>) -> Self {
        let now = clock.unix();
        Self {
            phase: AtomicU8::new(STARTING),
            degraded: Mutex::default(),
            started: now,
            configured: Mutex::new(now),
            clock,
        }
    }

    pub(in crate::app) fn ready(&self) {
        // Whoever was told to stop meanwhile stays so.
        self.phase.compare_exchange(STARTING, READY, Ordering::AcqRel, Ordering::Acquire).unwrap_or_default();
    }

    pub(in crate::app) fn draining(&self) {
        self.phase.store(DRAINING, Ordering::Release);
    }

    pub(in crate::app) fn phase(&self) -> &'static str {
        match self.phase.load(Ordering::Acquire) {
            STARTING => "starting",
            READY => "ready",
            _ => "draining",
        }
    }

    pub(in crate::app) fn is_ready(&self) -> bool {
        self.phase.load(Ordering::Acquire) == READY
    }

    /// Notes whether a part does its work.
    pub(in crate::app) fn works(&self, part: Part, works: bool) {
        let mut degraded = self.degraded.lock();
        if works {
            degraded.remove(&part)
        } else {
            degraded.insert(part)
        };
    }

    pub(in crate::app) fn is_degraded(&self, part: Part) -> bool {
        self.degraded.lock().contains(&part)
    }

    pub(in crate::app) fn degraded(&self) -> Vec<&'static str> {
        self.degraded.lock().iter().map(|part| part.name()).collect()
    }

    /// Notes that a configuration was put in place, or refused.
    pub(in crate::app) fn configured(&self, is_success: bool) {
        if is_success {
            *self.configured.lock() = self.clock.unix();
        }
        self.works(Part::Configuration, is_success);
    }

    /// When a configuration was last put in place.
    pub(in crate::app) fn last_configured(&self) -> UnixSeconds {
        *self.configured.lock()
    }

    /// The process's start.
    pub(in crate::app) fn started(&self) -> UnixSeconds {
        self.started
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn whoever_was_told_to_stop_does_not_become_ready() {
        let health = Health::new(Arc::new(SystemClock::new()));
        assert_eq!((health.phase(), health.is_ready()), ("starting", false));
        health.ready();
        assert_eq!((health.phase(), health.is_ready()), ("ready", true));
        health.draining();
        health.ready();
        assert_eq!((health.phase(), health.is_ready()), ("draining", false));
    }

    #[test]
    fn a_part_is_degraded_until_it_works() {
        let health = Health::new(Arc::new(SystemClock::new()));
        health.works(Part::Store, false);
        health.configured(false);
        assert_eq!(health.degraded(), ["store", "configuration"]);
        health.works(Part::Store, true);
        health.configured(true);
        assert!(health.degraded().is_empty());
    }
}
