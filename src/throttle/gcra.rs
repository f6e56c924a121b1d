//! The generic cell rate algorithm (ITU-T I.371, annex A): one moment for each key, however large the rate.
//!
//! So many at once, then one each time that its share of the period has passed. The code is our own and not a crate's:
//! guards give counts back, and all counters live in one bounded table.

use crate::clock::Monotonic;
use crate::config::Rate;
use std::time::Duration;

/// When all that was counted has been forgiven; the theoretical arrival time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::throttle) struct Gcra(Monotonic);

/// One's share of the period.
pub(in crate::throttle) fn interval(rate: Rate) -> Duration {
    rate.period / rate.count.max(1)
}

impl Gcra {
    /// One request at `now`: counted if it is within the rate.
    ///
    /// # Errors
    /// If it is not; with the time until one is.
    pub(in crate::throttle) fn hit(&mut self, rate: Rate, now: Monotonic) -> Result<(), Duration> {
        let ahead = self.0.since(now);
        let ahead_max = interval(rate).saturating_mul(rate.count.saturating_sub(1));
        if ahead > ahead_max {
            return Err(ahead.saturating_sub(ahead_max));
        }
        self.0 = self.0.max(now).plus(interval(rate));
        Ok(())
    }

    /// Takes one back. What has been forgiven meanwhile is not given twice: the past counts for nothing.
    pub(in crate::throttle) fn give_back(&mut self, rate: Rate) {
        let interval = u64::try_from(interval(rate).as_nanos()).unwrap_or(u64::MAX);
        self.0 = Monotonic(self.0.0.saturating_sub(interval));
    }

    /// How many count at `now`.
    pub(in crate::throttle) fn level(self, rate: Rate, now: Monotonic) -> u32 {
        level(rate, self.0.since(now))
    }

    /// When nothing counts any more.
    pub(in crate::throttle) fn ends(self) -> Monotonic {
        self.0
    }
}

/// How many count if all is forgiven after `ahead`.
pub(in crate::throttle) fn level(rate: Rate, ahead: Duration) -> u32 {
    let interval = interval(rate).as_nanos().max(1);
    u32::try_from(ahead.as_nanos().div_ceil(interval)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;
    const START: u64 = 3600 * SECOND;

    fn rate(count: u32, seconds: u64) -> Rate {
        Rate { count, period: Duration::from_secs(seconds) }
    }

    #[test]
    fn so_many_at_once_then_one_each_interval() {
        let (mut gcra, rate) = (Gcra::default(), rate(5, 60));
        for _ in 0..5 {
            assert_eq!(gcra.hit(rate, Monotonic(START)), Ok(()));
        }
        assert_eq!(gcra.level(rate, Monotonic(START)), 5);
        assert_eq!(gcra.hit(rate, Monotonic(START)), Err(Duration::from_secs(12)));
        assert_eq!(gcra.hit(rate, Monotonic(START + 12 * SECOND - 1)), Err(Duration::from_nanos(1)));
        assert_eq!(gcra.hit(rate, Monotonic(START + 12 * SECOND)), Ok(()));
        assert_eq!(gcra.level(rate, Monotonic(START + 12 * SECOND)), 5);
        assert_eq!(gcra.ends(), Monotonic(START + 72 * SECOND));
        assert_eq!(gcra.level(rate, Monotonic(START + 72 * SECOND)), 0);
    }

    #[test]
    fn a_rate_that_does_not_divide_its_period_lets_its_number_pass() {
        for count in [1001, 7777, 999_999, 1_000_000] {
            let (mut gcra, rate) = (Gcra::default(), rate(count, 1));
            let passed = (0..count + 5).filter(|_| gcra.hit(rate, Monotonic(START)).is_ok()).count();
            assert_eq!(u32::try_from(passed), Ok(count));
        }
    }

    #[test]
    fn what_is_given_back_can_be_had_again_and_no_more() {
        let (mut gcra, rate) = (Gcra::default(), rate(2, 60));
        assert_eq!(gcra.hit(rate, Monotonic(START)), Ok(()));
        gcra.give_back(rate);
        gcra.give_back(rate);
        for expected in [true, true, false] {
            assert_eq!(gcra.hit(rate, Monotonic(START)).is_ok(), expected);
        }
    }

    proptest! {
        /// A bucket that leaks one each interval, in exact arithmetic.
        #[test]
        fn it_is_a_leaky_bucket(
            count in 1_u32..10,
            steps in prop::collection::vec((0_u64..30, any::<bool>()), 1..200),
        ) {
            let rate = rate(count, 60 * u64::from(count));
            let (mut gcra, mut now, mut level) = (Gcra::default(), START, 0_u64);
            for (step, gives_back) in steps {
                now += step * SECOND;
                level = level.saturating_sub(step);
                if gives_back {
                    gcra.give_back(rate);
                    level = level.saturating_sub(60);
                } else {
                    let is_within = level <= 60 * u64::from(count - 1);
                    prop_assert_eq!(gcra.hit(rate, Monotonic(now)).is_ok(), is_within);
                    level += if is_within { 60 } else { 0 };
                }
                prop_assert_eq!(u64::from(gcra.level(rate, Monotonic(now))), level.div_ceil(60));
            }
        }
    }
}
