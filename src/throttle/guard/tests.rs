//! What guards refuse, delay and give back.

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
