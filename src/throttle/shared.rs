//! Throttles whose counters replicas share, and what holds when they cannot be asked.
//!
//! Redis decides, by its own clock. What it allowed is counted here, too: when it does not answer, or its answer makes
//! no sense, or it has lost its counters, the rate still holds in this process. There is never no limit. While a log
//! there is full nobody asks again: whoever sends more than the rate does not make more than that of work for Redis.

use crate::cache::redis::SharedCache;
use crate::clock::Monotonic;
use crate::config::Rate;
use crate::throttle::Counted;
use crate::throttle::counters::Counters;
use crate::throttle::keys::{Key, Subject, shared_name};
use crate::throttle::log::wait;
use std::time::Duration;

/// Where a throttle's counters are shared, and under which names.
#[derive(Debug)]
pub(in crate::throttle) struct SharedThrottle {
    cache: SharedCache,
    name: Box<str>,
    route: Box<str>,
}

impl SharedThrottle {
    pub(in crate::throttle) fn new(cache: &SharedCache, name: &str, route: &str) -> Self {
        Self { cache: cache.clone(), name: name.into(), route: route.into() }
    }

    /// One request. `key` is its counter in `counters`, those of the process.
    ///
    /// # Errors
    /// If it is not within the rate; with the wait, if there is one to tell.
    ///
    /// # Cancel safety
    /// When dropped, it may have been counted in Redis.
    pub(in crate::throttle) async fn hit(
        &self,
        counters: &Counters,
        key: Key,
        counted: Counted<'_>,
        rate: Rate,
        now: Monotonic,
    ) -> Result<(), Option<Duration>> {
        if rate.count == 0 {
            return counters.hit(key, rate, now);
        }
        let full = counters.seed().key(key, Subject::Name("full"));
        if let Some(wait) = counters.full(full, rate, now) {
            return Err(Some(wait));
        }
        let Ok(logged) = self.cache.log(&self.shared_name(counted), rate.count, rate.period).await else {
            return counters.hit(key, rate, now);
        };
        if logged.is_within {
            return counters.hit_leniently(key, rate, now);
        }
        let wait = wait(rate, usize::try_from(logged.held).unwrap_or(usize::MAX), logged.oldest);
        if let Some(wait) = wait {
            // From before it was asked, so that it is over here no later than there.
            counters.note_full(full, rate, now, wait);
        }
        Err(wait)
    }

    fn shared_name(&self, counted: Counted<'_>) -> Vec<u8> {
        match counted {
            Counted::Whole => shared_name(&["throttle", &self.name, "route", &self.route], &[]),
            Counted::On(subject) => shared_name(&["throttle", &self.name], &[subject]),
        }
    }
}
