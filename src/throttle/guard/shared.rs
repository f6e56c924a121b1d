//! What an attempt counts in Redis, over all replicas, and how that ends.
//!
//! Redis may refuse what is within the rates here, never the other way round: the guards of the process are asked in
//! any case, and alone when Redis does not answer.

use crate::cache::redis::{Act, Away, Bucket, SharedCache};
use crate::config::Rate;
use crate::throttle::gcra::{interval, level};
use crate::throttle::guard::{Counted, Guard};
use crate::throttle::keys::{Subject, shared_name};
use crate::trace::ThrottleState;
use std::net::IpAddr;
use std::time::Duration;
use tokio::runtime::Handle;

/// Where guards count over all replicas.
#[derive(Debug, Clone)]
pub(in crate::throttle::guard) struct Sharing {
    pub(in crate::throttle::guard) cache: SharedCache,
    /// Tells it how attempts ended, after whoever made them has gone.
    pub(in crate::throttle::guard) runtime: Handle,
}

/// Redis refuses an attempt.
#[derive(Debug)]
pub(in crate::throttle::guard) struct RefusedThere {
    pub(in crate::throttle::guard) wait: Duration,
    pub(in crate::throttle::guard) guard: ThrottleState,
    /// Attempts that it was refused for are still being checked.
    pub(in crate::throttle::guard) is_pending: bool,
}

/// One bucket.
#[derive(Debug)]
struct Place {
    name: Vec<u8>,
    rate: Rate,
}

impl Place {
    fn new(scope: &str, subjects: &[Subject<'_>], rate: Rate) -> Self {
        Self { name: shared_name(&["guard", scope], subjects), rate }
    }

    async fn ask(&self, cache: &SharedCache, act: Act) -> Result<Bucket, Away> {
        cache.bucket(&self.name, interval(self.rate), self.rate.count, act).await
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::throttle::guard) enum End {
    /// No password was found wrong.
    GivenBack,
    /// It failed.
    Counted,
    /// It failed, and its name is to wait for that.
    CountedForName,
}

/// What an attempt has counted in Redis. Unless it is said otherwise, it is given back when this is dropped.
#[derive(Debug)]
pub(in crate::throttle::guard) struct SharedAttempt {
    sharing: Sharing,
    counted: Vec<Place>,
    /// Whose failure it is, if it is one.
    user: Option<Place>,
    /// Failures of the name so far.
    pub(in crate::throttle::guard) failures: u32,
    end: End,
    /// Those who wait for this attempt here.
    pending: [Option<Counted>; 2],
}

impl SharedAttempt {
    /// Counts it.
    ///
    /// # Errors
    /// If Redis refuses. If it does not answer, nothing more is asked of it for this attempt.
    ///
    /// # Cancel safety
    /// When dropped, what was counted is given back, but for what is being asked at that moment.
    pub(in crate::throttle::guard) async fn make(
        sharing: &Sharing,
        guard: &Guard,
        client: IpAddr,
        username: &str,
    ) -> Result<Self, RefusedThere> {
        let (by_address, by_name) = (Subject::Address(client), Subject::Name(username));
        let mut attempt = Self {
            sharing: sharing.clone(),
            counted: Vec::new(),
            user: None,
            failures: 0,
            end: End::GivenBack,
            pending: [None, None],
        };
        let address = guard
            .address
            .as_ref()
            .map(|bound| (Place::new("address", &[by_address], bound.rate), ThrottleState::GuardedAddress));
        let address_and_user = guard.address_and_user.as_ref().map(|bound| {
            let place = Place::new("address-and-user", &[by_name, by_address], bound.rate);
            (place, ThrottleState::GuardedAddressAndUser)
        });
        for (place, guard) in address.into_iter().chain(address_and_user) {
            match place.ask(&sharing.cache, Act::Try).await {
                Ok(bucket) if bucket.is_done => attempt.counted.push(place),
                Ok(bucket) => {
                    let room = interval(place.rate).saturating_mul(place.rate.count.saturating_sub(1));
                    let wait = bucket.ahead.saturating_sub(room);
                    return Err(RefusedThere { wait, guard, is_pending: bucket.pending > 0 });
                }
                Err(_) => return Ok(attempt),
            }
        }
        if let Some(delay) = &guard.user {
            let place = Place::new("user", &[by_name], delay.failures);
            if let Ok(bucket) = place.ask(&sharing.cache, Act::Look).await {
                attempt.failures = level(place.rate, bucket.ahead);
            }
            attempt.user = Some(place);
        }
        Ok(attempt)
    }

    /// Says how it ended; `pending` go when Redis knows.
    pub(in crate::throttle::guard) fn end(mut self, end: End, pending: [Option<Counted>; 2]) {
        self.end = end;
        self.pending = pending;
    }
}

impl Drop for SharedAttempt {
    fn drop(&mut self) {
        let act = if self.end == End::GivenBack { Act::GiveBack } else { Act::Keep };
        let counted = std::mem::take(&mut self.counted).into_iter().map(move |place| (place, act));
        let user = self.user.take().filter(|_| self.end == End::CountedForName);
        let acts: Vec<_> = counted.chain(user.map(|place| (place, Act::Add))).collect();
        let pending = std::mem::take(&mut self.pending);
        if acts.is_empty() {
            return;
        }
        let cache = self.sharing.cache.clone();
        drop(self.sharing.runtime.spawn(async move {
            for (place, act) in acts {
                // What does not reach it is forgiven there with time.
                if place.ask(&cache, act).await.is_err() {
                    break;
                }
            }
            drop(pending);
        }));
    }
}
