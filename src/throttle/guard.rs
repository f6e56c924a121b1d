//! Guards: what stands between passwords and those who guess them. Asked before anything is looked up.
//!
//! * By client address, and by address and username: more failures than the rate are refused, whatever the password.
//! * By username over all addresses: each failure makes the next attempts wait longer, and none is ever refused, so
//!   that nobody can lock somebody else out.
//!
//! An attempt is counted before its password is checked and given back when it was right, so a hundred attempts at
//! once are counted as what they are; those beyond the rate wait for what becomes of the others, so that a hundred right
//! ones at once all pass. What is counted does not depend on whether there is such a user.

use crate::clock::{Clock, Monotonic};
use crate::config::{self, Rate, USER_DELAY_MAX};
use crate::secret::NoRandomness;
use crate::throttle::counters::Counters;
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

/// The guards; one per process.
#[derive(Debug)]
pub struct Guard {
    counters: Arc<Counters>,
    address: Option<Bound>,
    address_and_user: Option<Bound>,
    user: Option<Delay>,
    room: Arc<WaitingRoom>,
    pending: Arc<Pending>,
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
    key: Key,
}

impl TooMany {
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
        Ok(Self::over(config, counters, Arc::default(), Arc::default()))
    }

    /// Other rates and delays over what was counted so far.
    #[must_use]
    pub fn with(&self, config: &config::Guard) -> Self {
        Self::over(config, Arc::clone(&self.counters), Arc::clone(&self.room), Arc::clone(&self.pending))
    }

    fn over(
        config: &config::Guard,
        counters: Arc<Counters>,
        room: Arc<WaitingRoom>,
        pending: Arc<Pending>,
    ) -> Self {
        Self {
            address: Bound::new(&counters, config.address, "address"),
            address_and_user: Bound::new(&counters, config.address_and_user, "address-and-user"),
            user: Delay::new(&counters, config.user_delay),
            counters,
            room,
            pending,
        }
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
    /// When dropped, nothing was counted.
    pub async fn attempt(
        self: &Arc<Self>,
        client: IpAddr,
        username: &str,
        clock: &dyn Clock,
    ) -> Result<Attempt, TooMany> {
        let deadline = clock.monotonic().plus(SETTLING_TIME);
        loop {
            // From here on nothing is missed.
            let settled = self.pending.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            let now = clock.monotonic();
            let refused = match self.attempt_now(client, username, now) {
                Ok(attempt) => return Ok(attempt),
                Err(refused) => refused,
            };
            let left = deadline.since(now);
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

    /// As [`Self::attempt`], without waiting for others.
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
            pending: [None, None],
        };
        if let Some(bound) = &self.address {
            let key = seed.key(bound.scope, by_address);
            let hit = self.counters.hit_gcra(key, bound.rate, now);
            hit.map_err(|wait| TooMany { wait, guard: ThrottleState::GuardedAddress, key })?;
            attempt.address = Some(key);
        }
        if let Some(bound) = &self.address_and_user {
            let key = seed.key(seed.key(bound.scope, by_name), by_address);
            if let Err(wait) = self.counters.hit_gcra(key, bound.rate, now) {
                // Nothing was tried, so the address has its count back: others behind it may still log in.
                attempt.not_checked();
                return Err(TooMany { wait, guard: ThrottleState::GuardedAddressAndUser, key });
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
        match (by_key.contains_key(&refused.key), settled.enable()) {
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
mod tests {
    use super::*;
    use crate::clock::{ManualClock, UnixSeconds};
    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    const START: Monotonic = Monotonic(3_600_000_000_000);
    const HOME: &str = "192.0.2.1";

    fn guard(config: &config::Guard) -> Arc<Guard> {
        Arc::new(Guard::new(config, 4 << 20).unwrap())
    }

    fn attempt(guard: &Arc<Guard>, client: &str, username: &str, now: Monotonic) -> Result<Attempt, TooMany> {
        guard.attempt_now(client.parse().unwrap(), username, now)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_sixth_failure_of_a_name_from_one_address_is_refused() {
        let guard = guard(&config::Guard::default());
        for _ in 0..5 {
            attempt(&guard, HOME, "alice", START).unwrap().failed();
        }
        let refused = attempt(&guard, HOME, "alice", START).unwrap_err();
        assert_eq!((refused.wait, refused.guard), (seconds(12), ThrottleState::GuardedAddressAndUser));
        // Names are compared exactly, and other names and addresses are others.
        for (client, username) in [(HOME, "Alice"), (HOME, "alice "), ("192.0.2.2", "alice")] {
            attempt(&guard, client, username, START).unwrap().failed();
        }
        attempt(&guard, HOME, "alice", START.plus(seconds(12))).unwrap().failed();
        assert!(attempt(&guard, HOME, "alice", START.plus(seconds(12))).is_err());
    }

    #[test]
    fn the_twenty_first_failure_of_an_address_is_refused() {
        let guard = guard(&config::Guard::default());
        for number in 0..20 {
            let address = format!("2001:db8::{number}");
            attempt(&guard, &address, &format!("user {number}"), START).unwrap().failed();
        }
        let refused = attempt(&guard, "2001:db8::99", "another", START).unwrap_err();
        assert_eq!((refused.wait, refused.guard), (seconds(3), ThrottleState::GuardedAddress));
        assert!(attempt(&guard, "2001:db8:0:1::1", "another", START).is_ok());
    }

    #[test]
    fn what_is_refused_for_one_name_does_not_use_the_address_up() {
        let guard = guard(&config::Guard::default());
        let tried = (0..100).filter(|_| attempt(&guard, HOME, "alice", START).is_ok()).count();
        assert_eq!(tried, 5);
        let others = (0..100).filter(|n| attempt(&guard, HOME, &format!("user {n}"), START).is_ok()).count();
        assert_eq!(others, 15);
    }

    #[test]
    fn successes_and_what_was_not_checked_are_given_back() {
        let guard = guard(&config::Guard::default());
        for _ in 0..100 {
            attempt(&guard, HOME, "alice", START).unwrap().succeeded();
            let attempt = attempt(&guard, HOME, "alice", START).unwrap();
            assert_eq!(attempt.delay(), Duration::ZERO);
            attempt.not_checked();
        }
    }

    #[test]
    fn attempts_are_counted_before_they_are_checked_and_when_they_are_dropped() {
        let guard = guard(&config::Guard::default());
        let pending: Vec<_> = (0..100).filter_map(|_| attempt(&guard, HOME, "alice", START).ok()).collect();
        assert_eq!(pending.len(), 5);
        drop(pending);
        assert!(attempt(&guard, HOME, "alice", START).is_err());
    }

    /// As many at once as may be; how many of them pass if all have the right password, or a wrong one.
    async fn at_once(is_right: bool) -> usize {
        let guard = guard(&config::Guard::default());
        let clock = Arc::new(ManualClock::new(UnixSeconds(1_000_000_000)));
        let tries = (0..100).map(|_| async {
            let attempt = guard.attempt(HOME.parse().unwrap(), "alice", clock.as_ref()).await;
            let Ok(attempt) = attempt else { return false };
            tokio::time::sleep(Duration::from_millis(17)).await;
            if is_right {
                attempt.succeeded();
            } else {
                attempt.failed();
            }
            true
        });
        let passed = futures_util::future::join_all(tries).await.into_iter().filter(|passed| *passed).count();
        assert!(guard.pending.by_key.lock().is_empty());
        assert_eq!(guard.pending.waiting.load(Ordering::Relaxed), 0);
        passed
    }

    #[tokio::test(start_paused = true)]
    async fn right_passwords_at_once_wait_for_each_other_and_all_pass() {
        assert_eq!(at_once(true).await, 100);
    }

    /// Whoever is refused while the last of those before gives its count back must not miss that.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn what_is_given_back_at_the_very_moment_is_not_missed() {
        let one_at_once = Some(Rate { count: 1, period: Duration::from_mins(1) });
        let guard = guard(&config::Guard { address: one_at_once, address_and_user: None, user_delay: None });
        let clock = Arc::new(ManualClock::new(UnixSeconds(1_000_000_000)));
        let one = |_| {
            let (guard, clock) = (Arc::clone(&guard), Arc::clone(&clock));
            tokio::spawn(async move {
                for _ in 0..10_000 {
                    let attempt = guard.attempt(HOME.parse().unwrap(), "alice", clock.as_ref()).await;
                    attempt.expect("every password is right").succeeded();
                }
            })
        };
        for task in (0..4).map(one).collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert!(guard.pending.by_key.lock().is_empty());
    }

    #[test]
    fn what_is_being_checked_delays_nobody() {
        let guard = guard(&config::Guard::default());
        let pending: Vec<_> = (0..5).map(|_| attempt(&guard, HOME, "alice", START).unwrap()).collect();
        assert!(pending.iter().all(|attempt| attempt.delay().is_zero()));
        drop(pending);
        assert_eq!(attempt(&guard, "192.0.2.2", "alice", START).unwrap().delay(), seconds(8));
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_before_the_password_was_looked_at_makes_nobody_wait_longer() {
        let guard = guard(&config::Guard::default());
        for number in 0..3 {
            attempt(&guard, &format!("198.51.100.{number}"), "alice", START).unwrap().failed();
        }
        for _ in 0..3 {
            let mut attempt = attempt(&guard, HOME, "alice", START).unwrap();
            assert_eq!(attempt.delay(), seconds(4));
            assert!(attempt.wait().now_or_never().is_none());
        }
        // Who leaves while it is being looked at has tried, and the address is counted in any case.
        let mut last = attempt(&guard, HOME, "alice", START).unwrap();
        last.wait().await;
        drop(last);
        let delayed = attempt(&guard, HOME, "alice", START).unwrap();
        assert_eq!(delayed.delay(), seconds(6));
        assert!(attempt(&guard, HOME, "alice", START).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_passwords_at_once_are_counted_as_what_they_are() {
        assert_eq!(at_once(false).await, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_others_for_ever() {
        let guard = guard(&config::Guard::default());
        let clock: Arc<dyn Clock> = Arc::new(TokioClock(tokio::time::Instant::now()));
        let pending: Vec<_> =
            (0..5).map(|_| attempt(&guard, HOME, "alice", clock.monotonic()).unwrap()).collect();
        let since = tokio::time::Instant::now();
        assert!(guard.attempt(HOME.parse().unwrap(), "alice", clock.as_ref()).await.is_err());
        assert_eq!(since.elapsed(), SETTLING_TIME);
        drop(pending);
    }

    /// Time that a paused runtime moves.
    #[derive(Debug)]
    struct TokioClock(tokio::time::Instant);

    impl Clock for TokioClock {
        fn monotonic(&self) -> Monotonic {
            START.plus(self.0.elapsed())
        }

        fn unix(&self) -> UnixSeconds {
            UnixSeconds(0)
        }
    }

    #[test]
    fn failures_of_a_name_delay_and_never_refuse() {
        let guard = guard(&config::Guard::default());
        let delays: Vec<u64> = (0..40)
            .map(|number| {
                let attempt = attempt(&guard, &format!("198.51.100.{number}"), "victim", START).unwrap();
                let delay = attempt.delay().as_secs();
                attempt.failed();
                delay
            })
            .collect();
        assert_eq!(delays[..5], [0, 0, 2, 4, 6]);
        assert_eq!(delays[15..], [28_u64, 30].into_iter().chain([30; 23]).collect::<Vec<_>>());
        let delay = |after| attempt(&guard, "203.0.113.1", "victim", START.plus(seconds(after))).unwrap();
        // One a minute is forgiven, so the longest delay is over after a quarter of an hour.
        let at = |after| {
            let attempt = delay(after);
            let delay = attempt.delay().as_secs();
            attempt.not_checked();
            delay
        };
        assert_eq!([at(0), at(59), at(60), at(120), at(15 * 60), at(16 * 60)], [30, 30, 28, 26, 0, 0]);
        assert_eq!(attempt(&guard, HOME, "another", START).unwrap().delay(), Duration::ZERO);
    }

    #[test]
    fn a_login_of_the_victim_forgives_nobody_else() {
        let guard = guard(&config::Guard::default());
        for number in 0..10 {
            attempt(&guard, &format!("198.51.100.{number}"), "victim", START).unwrap().failed();
        }
        for _ in 0..3 {
            let attempt = attempt(&guard, HOME, "victim", START).unwrap();
            assert_eq!(attempt.delay(), seconds(18));
            attempt.succeeded();
        }
    }

    #[test]
    fn what_was_not_counted_at_the_cap_is_not_given_back() {
        let guard = guard(&config::Guard::default());
        for number in 0..200 {
            attempt(&guard, &format!("198.51.100.{number}"), "victim", START).unwrap().failed();
        }
        for number in 0..200 {
            let attempt = attempt(&guard, &format!("203.0.113.{number}"), "victim", START).unwrap();
            assert_eq!(attempt.delay(), USER_DELAY_MAX);
            attempt.not_checked();
        }
    }

    #[test]
    fn what_is_off_does_nothing() {
        let off = config::Guard { address: None, address_and_user: None, user_delay: None };
        let guard = guard(&off);
        assert!(!guard.uses_addresses());
        for _ in 0..100 {
            let attempt = attempt(&guard, HOME, "alice", START).unwrap();
            assert_eq!(attempt.delay(), Duration::ZERO);
            attempt.failed();
        }
    }

    proptest! {
        #[test]
        fn no_name_makes_it_panic_and_unknown_names_are_like_others(name in any::<String>(), other in any::<String>()) {
            let guard = guard(&config::Guard::default());
            let count = |name: &str| (0..7).filter(|_| attempt(&guard, HOME, name, START).is_ok()).count();
            prop_assert_eq!(count(&name), 5);
            prop_assert_eq!(count(&other), if name == other { 0 } else { 5 });
        }
    }
}
