//! Guards: what stands between passwords and those who guess them. Asked before anything is looked up.
//!
//! * By client address, and by address and username: more failures than the rate are refused, whatever the password.
//! * By username over all addresses: each failure makes the next attempts wait longer, and none is ever refused, so
//!   that nobody can lock somebody else out.
//!
//! An attempt is counted before its password is checked and given back when it was right, so a hundred attempts at
//! once are counted as what they are; those beyond the rate wait for what becomes of the others, so that a hundred right
//! ones at once all pass. What is counted does not depend on whether there is such a user.
//!
//! With a Redis all of it is counted over all replicas, too, see [`shared`].

mod shared;

use crate::cache::redis::SharedCache;
use crate::clock::{Clock, Monotonic};
use crate::config::{self, Rate, USER_DELAY_MAX};
use crate::secret::NoRandomness;
use crate::throttle::counters::Counters;
use crate::throttle::guard::shared::{End, RefusedThere, SharedAttempt, Sharing};
use crate::throttle::keys::{Key, Subject};
use crate::throttle::waiting::WaitingRoom;
use crate::trace::{ThrottleState, Trace};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// One failure of a username is forgiven after this long, then the next.
const FORGIVEN_AFTER: Duration = Duration::from_mins(1);

/// Of the bytes for all counters, one part in so many is for guards: a flood of throttled requests cannot make room by
/// pushing failures out.
const SHARE: usize = 4;

/// Attempts that wait for others at the same time; one beyond is refused.
const SETTLING_MAX: usize = 1024;

/// No attempt waits longer for others: a password takes milliseconds, but for those that are delayed.
const SETTLING_TIME: Duration = Duration::from_secs(10);

/// Who waits for attempts at other replicas asks again after this long, then after twice as long, and so on.
const ASK_AGAIN_MIN: Duration = Duration::from_millis(20);
/// Up to this.
const ASK_AGAIN_MAX: Duration = Duration::from_millis(500);

/// The guards; one per process.
#[derive(Debug)]
pub struct Guard {
    counters: Arc<Counters>,
    address: Option<Bound>,
    address_and_user: Option<Bound>,
    user: Option<Delay>,
    room: Arc<WaitingRoom>,
    pending: Arc<Pending>,
    /// `None`: this process counts for itself.
    sharing: Option<Sharing>,
}

#[derive(Debug)]
struct Bound {
    rate: Rate,
    scope: Key,
}

#[derive(Debug)]
struct Delay {
    /// For each failure but the first.
    each: Duration,
    /// So many failures make the longest delay, and no more are counted.
    failures: Rate,
    scope: Key,
}

/// Too many attempts failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// When to try again.
    pub wait: Duration,
    guard: ThrottleState,
    /// `None`: it was refused by what others have counted.
    key: Option<Key>,
    /// Attempts that it was refused for are being checked elsewhere.
    is_pending_elsewhere: bool,
}

impl From<RefusedThere> for TooMany {
    fn from(refused: RefusedThere) -> Self {
        let RefusedThere { wait, guard, is_pending } = refused;
        Self { wait, guard, key: None, is_pending_elsewhere: is_pending }
    }
}

impl TooMany {
    fn here(wait: Duration, guard: ThrottleState, key: Key) -> Self {
        Self { wait, guard, key: Some(key), is_pending_elsewhere: false }
    }

    /// Which guard refused.
    pub fn by(&self) -> ThrottleState {
        self.guard
    }

    /// Notes which guard refused: for the log, never for the client.
    pub fn note(&self, trace: &mut Trace) {
        trace.throttled(self.guard, Some(self.wait));
    }
}

/// An attempt that may be made. Counted as failed unless it is said otherwise: whoever hangs up has tried.
#[must_use]
#[derive(Debug)]
pub struct Attempt {
    guard: Arc<Guard>,
    address: Option<Key>,
    address_and_user: Option<Key>,
    /// Whose failure it is, if it is one.
    user: Option<Key>,
    delay: Duration,
    now: Monotonic,
    is_given_back: bool,
    /// What Redis has counted.
    shared: Option<SharedAttempt>,
    /// Last, so that what waits for it finds the count given back.
    pending: [Option<Counted>; 2],
}

impl Bound {
    fn new(counters: &Counters, rate: Option<Rate>, name: &str) -> Option<Self> {
        rate.map(|rate| Self { rate, scope: counters.seed().scope(name) })
    }
}

impl Delay {
    fn new(counters: &Counters, each: Option<Duration>) -> Option<Self> {
        let each = each.filter(|each| !each.is_zero())?;
        let steps = USER_DELAY_MAX.as_nanos().div_ceil(each.as_nanos());
        // The first failure delays nothing.
        let count = u32::try_from(steps).unwrap_or(u32::MAX).saturating_add(1);
        let failures = Rate { count, period: FORGIVEN_AFTER.saturating_mul(count) };
        Some(Self { each, failures, scope: counters.seed().scope("user") })
    }

    fn after(&self, failures: u32) -> Duration {
        self.each.saturating_mul(failures.saturating_sub(1)).min(USER_DELAY_MAX)
    }
}

impl Guard {
    /// Nobody has failed yet. `bytes_max` is what all counters of the process may take.
    ///
    /// # Errors
    /// If the system gives no randomness for the keys.
    pub fn new(config: &config::Guard, bytes_max: usize) -> Result<Self, NoRandomness> {
        let counters = Arc::new(Counters::new(bytes_max / SHARE)?);
        Ok(Self::over(config, counters, Arc::default(), Arc::default(), None))
    }

    /// Counts over all replicas that share this cache. The runtime must outlive all attempts.
    #[must_use]
    pub fn sharing(mut self, cache: Option<SharedCache>, runtime: &Handle) -> Self {
        self.sharing = cache.map(|cache| Sharing { cache, runtime: runtime.clone() });
        self
    }

    /// Other rates and delays over what was counted so far.
    #[must_use]
    pub fn with(&self, config: &config::Guard) -> Self {
        let (room, pending) = (Arc::clone(&self.room), Arc::clone(&self.pending));
        Self::over(config, Arc::clone(&self.counters), room, pending, self.sharing.clone())
    }

    fn over(
        config: &config::Guard,
        counters: Arc<Counters>,
        room: Arc<WaitingRoom>,
        pending: Arc<Pending>,
        sharing: Option<Sharing>,
    ) -> Self {
        Self {
            address: Bound::new(&counters, config.address, "address"),
            address_and_user: Bound::new(&counters, config.address_and_user, "address-and-user"),
            user: Delay::new(&counters, config.user_delay),
            counters,
            room,
            pending,
            sharing,
        }
    }

    /// Its table.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// What is left of the bytes for throttles.
    pub fn rest_of(bytes_max: usize) -> usize {
        bytes_max.saturating_sub(bytes_max / SHARE)
    }

    /// Whether client addresses are counted.
    pub fn uses_addresses(&self) -> bool {
        self.address.is_some() || self.address_and_user.is_some()
    }

    /// Counts an attempt to log in with this username, exactly as it was sent. Beyond the rate it waits, as long as
    /// others of the same address are still being checked: theirs may be given back.
    ///
    /// # Errors
    /// If this address has failed too often.
    ///
    /// # Cancel safety
    /// When dropped, nothing was counted here, and what was in Redis is given back.
    pub async fn attempt(
        self: &Arc<Self>,
        client: IpAddr,
        username: &str,
        clock: &dyn Clock,
    ) -> Result<Attempt, TooMany> {
        let deadline = clock.monotonic().plus(SETTLING_TIME);
        let mut pause = ASK_AGAIN_MIN;
        loop {
            // From here on nothing is missed.
            let settled = self.pending.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            let refused = match self.attempt_everywhere(client, username, clock).await {
                Ok(attempt) => return Ok(attempt),
                Err(refused) => refused,
            };
            let mut left = deadline.since(clock.monotonic());
            if refused.is_pending_elsewhere {
                // Nobody tells what settles there.
                left = left.min(pause);
                pause = pause.saturating_mul(2).min(ASK_AGAIN_MAX);
            }
            if left.is_zero() {
                return Err(refused);
            }
            match self.pending.place(&refused, settled.as_mut()) {
                // Too late or not: the next turn decides.
                Place::Taken(_place) => tokio::time::timeout(left, settled).await.unwrap_or_default(),
                Place::NotNeeded => {}
                Place::None => return Err(refused),
            }
        }
    }

    /// Counts it in Redis, if there is one, and here.
    async fn attempt_everywhere(
        self: &Arc<Self>,
        client: IpAddr,
        username: &str,
        clock: &dyn Clock,
    ) -> Result<Attempt, TooMany> {
        let Some(sharing) = &self.sharing else {
            return self.attempt_now(client, username, clock.monotonic());
        };
        // Who is refused here makes no work there.
        self.peek(client, username, clock.monotonic())?;
        let shared = SharedAttempt::make(sharing, self, client, username).await?;
        let mut attempt = self.attempt_now(client, username, clock.monotonic())?;
        if let Some(delay) = &self.user {
            attempt.delay = attempt.delay.max(delay.after(shared.failures));
        }
        attempt.shared = Some(shared);
        Ok(attempt)
    }

    /// Whether [`Self::attempt_now`] would refuse.
    fn peek(&self, client: IpAddr, username: &str, now: Monotonic) -> Result<(), TooMany> {
        let seed = self.counters.seed();
        let (by_address, by_name) = (Subject::Address(client), Subject::Name(username));
        let address = self
            .address
            .as_ref()
            .map(|bound| (bound.rate, seed.key(bound.scope, by_address), ThrottleState::GuardedAddress));
        let address_and_user = self.address_and_user.as_ref().map(|bound| {
            let key = seed.key(seed.key(bound.scope, by_name), by_address);
            (bound.rate, key, ThrottleState::GuardedAddressAndUser)
        });
        for (rate, key, guard) in address.into_iter().chain(address_and_user) {
            self.counters.peek(key, rate, now).map_err(|wait| TooMany::here(wait, guard, key))?;
        }
        Ok(())
    }

    /// As [`Self::attempt`], without waiting for others and in this process alone.
    ///
    /// # Errors
    /// If this address has failed too often, should those that are being checked fail, too.
    pub fn attempt_now(
        self: &Arc<Self>,
        client: IpAddr,
        username: &str,
        now: Monotonic,
    ) -> Result<Attempt, TooMany> {
        let seed = self.counters.seed();
        let (by_address, by_name) = (Subject::Address(client), Subject::Name(username));
        // What is counted is pending, to everybody who looks: whoever is refused for it can wait for it.
        let mut by_key = self.pending.by_key.lock();
        let mut attempt = Attempt {
            guard: Arc::clone(self),
            address: None,
            address_and_user: None,
            user: None,
            delay: Duration::ZERO,
            now,
            is_given_back: false,
            shared: None,
            pending: [None, None],
        };
        if let Some(bound) = &self.address {
            let key = seed.key(bound.scope, by_address);
            let hit = self.counters.hit_gcra(key, bound.rate, now);
            hit.map_err(|wait| TooMany::here(wait, ThrottleState::GuardedAddress, key))?;
            attempt.address = Some(key);
        }
        if let Some(bound) = &self.address_and_user {
            let key = seed.key(seed.key(bound.scope, by_name), by_address);
            if let Err(wait) = self.counters.hit_gcra(key, bound.rate, now) {
                // Nothing was tried, so the address has its count back: others behind it may still log in.
                attempt.not_checked();
                return Err(TooMany::here(wait, ThrottleState::GuardedAddressAndUser, key));
            }
            attempt.address_and_user = Some(key);
        }
        if let Some(delay) = &self.user {
            let key = seed.key(delay.scope, by_name);
            attempt.delay = delay.after(self.counters.level(key, delay.failures, now));
            attempt.user = Some(key);
        }
        let keys = [attempt.address, attempt.address_and_user];
        attempt.pending = keys.map(|key| key.map(|key| Counted::new(self, key, &mut by_key)));
        Ok(attempt)
    }

    fn give_back(&self, bound: Option<&Bound>, key: Option<Key>) {
        if let Some((bound, key)) = bound.zip(key) {
            self.counters.give_back(key, bound.rate);
        }
    }
}

impl Attempt {
    /// How long it has to wait.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Waits. Before the password is checked, and whether or not there is such a user.
    ///
    /// # Cancel safety
    /// When dropped, nothing but the count of the address is left. No password was looked at, so nobody guessed; and a
    /// user who is less patient than the delay would make it longer with each try.
    pub async fn wait(&mut self) {
        let user = self.user.take();
        self.guard.room.wait(self.delay).await;
        self.user = user;
    }

    /// The password was right. The attempt is not counted; earlier ones are, or each login of a user would hand those
    /// who guess a new start.
    pub fn succeeded(mut self) {
        self.take_back();
    }

    /// The password was not checked. The attempt is not counted.
    pub fn not_checked(mut self) {
        self.take_back();
    }

    /// The password was wrong, or there is no such user. The attempt stays counted.
    pub fn failed(self) {}

    fn take_back(&mut self) {
        self.guard.give_back(self.guard.address.as_ref(), self.address);
        self.guard.give_back(self.guard.address_and_user.as_ref(), self.address_and_user);
        self.user = None;
        self.is_given_back = true;
    }
}

/// Failures of a name are counted once they are known: what is being checked delays nobody, or a user who logs in from
/// several places at once would wait.
impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some((delay, key)) = self.guard.user.as_ref().zip(self.user) {
            // Over the rate the delay is the longest already.
            self.guard.counters.hit_gcra(key, delay.failures, self.now).unwrap_or_default();
        }
        if let Some(shared) = self.shared.take() {
            let end = match self.user {
                _ if self.is_given_back => End::GivenBack,
                Some(_) => End::CountedForName,
                None => End::Counted,
            };
            shared.end(end, std::mem::take(&mut self.pending));
        }
    }
}

/// Attempts whose outcome is not known yet.
#[derive(Debug, Default)]
struct Pending {
    by_key: Mutex<HashMap<Key, usize>>,
    settled: Notify,
    waiting: AtomicUsize,
}

impl Pending {
    /// A place to wait in for what `settled` will tell of.
    fn place(&self, refused: &TooMany, settled: Pin<&mut Notified<'_>>) -> Place<'_> {
        let by_key = self.by_key.lock();
        // Under the lock under which counts settle: whoever settled after the refusal, and is not here any more, has told.
        let is_pending =
            refused.is_pending_elsewhere || refused.key.is_some_and(|key| by_key.contains_key(&key));
        match (is_pending, settled.enable()) {
            (_, true) => return Place::NotNeeded,
            (false, false) => return Place::None,
            (true, false) => {}
        }
        drop(by_key);
        let waiter = Waiter(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) < SETTLING_MAX {
            Place::Taken(waiter)
        } else {
            Place::None
        }
    }
}

/// Whether an attempt that was refused waits for others.
enum Place<'a> {
    Taken(Waiter<'a>),
    /// Something has settled meanwhile: it may try again at once.
    NotNeeded,
    /// There is nobody to wait for, or no room.
    None,
}

/// One who waits, until dropped.
struct Waiter<'a>(&'a AtomicUsize);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An attempt that is pending until this is dropped: after its count was given back, or not.
#[derive(Debug)]
struct Counted {
    guard: Arc<Guard>,
    key: Key,
}

impl Counted {
    fn new(guard: &Arc<Guard>, key: Key, by_key: &mut HashMap<Key, usize>) -> Self {
        *by_key.entry(key).or_default() += 1;
        Self { guard: Arc::clone(guard), key }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let pending = &self.guard.pending;
        let mut by_key = pending.by_key.lock();
        if let Entry::Occupied(mut count) = by_key.entry(self.key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        // Still under the lock: whoever finds nobody pending was told, or came later and saw what was given back.
        pending.settled.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
