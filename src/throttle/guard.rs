//! Guards: what stands between passwords and those who guess them. Asked before anything is looked up.
//!
//! * By client address, and by address and username: more failures than the rate are refused, whatever the password.
//! * By username over all addresses: each failure makes the next attempts wait longer, and none is ever refused, so
//!   that nobody can lock somebody else out.
//!
//! An attempt is counted before its password is checked and given back when it was right, so a hundred attempts at
//! once are counted as what they are. What is counted does not depend on whether there is such a user.

use crate::clock::Monotonic;
use crate::config::{self, Rate, USER_DELAY_MAX};
use crate::secret::NoRandomness;
use crate::throttle::counters::Counters;
use crate::throttle::keys::{Key, Subject};
use crate::throttle::waiting::WaitingRoom;
use crate::trace::{ThrottleState, Trace};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// One failure of a username is forgiven after this long, then the next.
const FORGIVEN_AFTER: Duration = Duration::from_mins(1);

/// Of the bytes for all counters, one part in so many is for guards: a flood of throttled requests cannot make room by
/// pushing failures out.
const SHARE: usize = 4;

/// The guards; one per process.
#[derive(Debug)]
pub struct Guard {
    counters: Counters,
    address: Option<Bound>,
    address_and_user: Option<Bound>,
    user: Option<Delay>,
    room: WaitingRoom,
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
    user: Option<Key>,
    delay: Duration,
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
        let counters = Counters::new(bytes_max / SHARE)?;
        Ok(Self {
            address: Bound::new(&counters, config.address, "address"),
            address_and_user: Bound::new(&counters, config.address_and_user, "address-and-user"),
            user: Delay::new(&counters, config.user_delay),
            counters,
            room: WaitingRoom::default(),
        })
    }

    /// What is left of the bytes for throttles.
    pub fn rest_of(bytes_max: usize) -> usize {
        bytes_max.saturating_sub(bytes_max / SHARE)
    }

    /// Whether client addresses are counted.
    pub fn uses_addresses(&self) -> bool {
        self.address.is_some() || self.address_and_user.is_some()
    }

    /// Counts an attempt to log in with this username, exactly as it was sent.
    ///
    /// # Errors
    /// If this address has failed too often.
    pub fn attempt(
        self: &Arc<Self>,
        client: IpAddr,
        username: &str,
        now: Monotonic,
    ) -> Result<Attempt, TooMany> {
        let seed = self.counters.seed();
        let (by_address, by_name) = (Subject::Address(client), Subject::Name(username));
        let mut attempt = Attempt {
            guard: Arc::clone(self),
            address: None,
            address_and_user: None,
            user: None,
            delay: Duration::ZERO,
        };
        if let Some(bound) = &self.address {
            let key = seed.key(bound.scope, by_address);
            let hit = self.counters.hit_gcra(key, bound.rate, now);
            hit.map_err(|wait| TooMany { wait, guard: ThrottleState::GuardedAddress })?;
            attempt.address = Some(key);
        }
        if let Some(bound) = &self.address_and_user {
            let key = seed.key(seed.key(bound.scope, by_name), by_address);
            if let Err(wait) = self.counters.hit_gcra(key, bound.rate, now) {
                // Nothing was tried, so the address has its count back: others behind it may still log in.
                attempt.not_checked();
                return Err(TooMany { wait, guard: ThrottleState::GuardedAddressAndUser });
            }
            attempt.address_and_user = Some(key);
        }
        if let Some(delay) = &self.user {
            let key = seed.key(delay.scope, by_name);
            let (failures, is_counted) = self.counters.add(key, delay.failures, now);
            attempt.delay = delay.after(failures);
            attempt.user = is_counted.then_some(key);
        }
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
    /// When dropped, nothing but the count is left.
    pub async fn wait(&self) {
        self.guard.room.wait(self.delay).await;
    }

    /// The password was right. The attempt is not counted; earlier ones are, or each login of a user would hand those
    /// who guess a new start.
    pub fn succeeded(self) {
        self.take_back();
    }

    /// The password was not checked. The attempt is not counted.
    pub fn not_checked(self) {
        self.take_back();
    }

    /// The password was wrong, or there is no such user. The attempt stays counted.
    pub fn failed(self) {}

    fn take_back(self) {
        let guard = &self.guard;
        guard.give_back(guard.address.as_ref(), self.address);
        guard.give_back(guard.address_and_user.as_ref(), self.address_and_user);
        if let Some((delay, key)) = guard.user.as_ref().zip(self.user) {
            guard.counters.give_back(key, delay.failures);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Monotonic = Monotonic(3_600_000_000_000);
    const HOME: &str = "192.0.2.1";

    fn guard(config: &config::Guard) -> Arc<Guard> {
        Arc::new(Guard::new(config, 4 << 20).unwrap())
    }

    fn attempt(guard: &Arc<Guard>, client: &str, username: &str, now: Monotonic) -> Result<Attempt, TooMany> {
        guard.attempt(client.parse().unwrap(), username, now)
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
