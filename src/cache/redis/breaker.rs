//! Leaves Redis alone while it does not answer: a look-up must not wait for what will fail.
//!
//! Pure: time comes in. After [`FAILURES_MAX`] failures in a row nobody asks. Once the connection is there again, one
//! caller tries; the others ask again only after it was answered.

use crate::clock::Monotonic;
use parking_lot::Mutex;
use std::time::Duration;

/// Failures in a row after which nobody asks.
pub const FAILURES_MAX: u32 = 5;
/// A trial that is not reported by then is lost, and another caller tries.
const TRIAL_TIME: Duration = Duration::from_secs(1);

/// Whether Redis is asked.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Clone, Copy)]
enum State {
    /// Everybody asks.
    Closed { failures: u32 },
    /// Nobody asks.
    Open,
    /// One asks, since this moment; `None`: nobody yet.
    Trial(Option<Monotonic>),
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Whether a caller may ask now. Who may says how it went.
    pub(super) fn admits(&self, now: Monotonic) -> bool {
        let mut state = self.0.lock();
        match *state {
            State::Closed { .. } => true,
            State::Open => false,
            State::Trial(since) => {
                let is_free = since.is_none_or(|since| now.since(since) >= TRIAL_TIME);
                if is_free {
                    *state = State::Trial(Some(now));
                }
                is_free
            }
        }
    }

    /// Redis answered.
    pub(super) fn answered(&self) {
        let mut state = self.0.lock();
        // What was sent before it opened says nothing of now.
        if !matches!(*state, State::Open) {
            *state = State::default();
        }
    }

    /// Redis did not answer.
    pub(super) fn failed(&self) {
        let mut state = self.0.lock();
        *state = match *state {
            State::Closed { failures } if failures + 1 < FAILURES_MAX => {
                State::Closed { failures: failures + 1 }
            }
            State::Closed { .. } | State::Open | State::Trial(_) => State::Open,
        };
    }

    /// There is a connection again that answers.
    pub(super) fn connected(&self) {
        let mut state = self.0.lock();
        if matches!(*state, State::Open) {
            *state = State::Trial(None);
        }
    }

    /// Whether everybody asks.
    pub(super) fn is_closed(&self) -> bool {
        matches!(*self.0.lock(), State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: u64) -> Monotonic {
        Monotonic(number * 1_000_000_000)
    }

    fn opened() -> Breaker {
        let breaker = Breaker::default();
        for _ in 0..FAILURES_MAX {
            assert!(breaker.admits(second(1)) && breaker.is_closed());
            breaker.failed();
        }
        breaker
    }

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let breaker = Breaker::default();
        for _ in 0..3 * FAILURES_MAX {
            breaker.failed();
            breaker.answered();
            assert!(breaker.is_closed());
        }
        let breaker = opened();
        assert!(!breaker.is_closed() && !breaker.admits(second(1)) && !breaker.admits(second(1000)));
        breaker.answered();
        assert!(!breaker.admits(second(1000)), "an answer that is late");
    }

    #[test]
    fn one_tries_when_there_is_a_connection() {
        let breaker = opened();
        breaker.connected();
        assert!(breaker.admits(second(2)) && !breaker.admits(second(2)));
        breaker.failed();
        assert!(!breaker.admits(second(2)), "open again");
        breaker.connected();
        assert!(breaker.admits(second(2)) && !breaker.admits(second(2)));
        breaker.answered();
        assert!(breaker.admits(second(2)) && breaker.admits(second(2)) && breaker.is_closed());
    }

    #[test]
    fn a_trial_that_is_lost_is_tried_again() {
        let breaker = opened();
        breaker.connected();
        assert!(breaker.admits(second(2)) && !breaker.admits(second(2)));
        assert!(breaker.admits(second(3)) && !breaker.admits(second(3)));
    }

    #[test]
    fn a_connection_alone_closes_nothing() {
        let breaker = Breaker::default();
        breaker.failed();
        breaker.connected();
        assert!(breaker.is_closed());
        for _ in 1..FAILURES_MAX {
            breaker.failed();
        }
        assert!(!breaker.is_closed(), "the first one counts");
    }
}
