//! The sliding log: the times of the requests that were allowed within the last period, as DRF keeps them.

use crate::clock::Monotonic;
use crate::config::Rate;
use std::collections::VecDeque;
use std::time::Duration;

/// Rates with a larger number are counted in another way: a log takes 8 bytes for each.
pub(in crate::throttle) const LOG_MAX: u32 = 1000;

/// Times of allowed requests, the oldest first; never more than the rate's number.
#[derive(Debug, Default)]
pub(in crate::throttle) struct SlidingLog {
    times: VecDeque<Monotonic>,
    ends: Monotonic,
}

/// Places of the first allocation.
const PLACES_MIN: usize = 4;

impl SlidingLog {
    /// One request at `now`: recorded if it is within the rate (DRF 3.18, `SimpleRateThrottle.allow_request`).
    ///
    /// # Errors
    /// If it is not; with the time after which to try again, as `SimpleRateThrottle.wait` computes it. `None` if the
    /// log holds more than the rate allows, which may be after the rate was changed.
    pub(in crate::throttle) fn hit(&mut self, rate: Rate, now: Monotonic) -> Result<(), Option<Duration>> {
        // Requests that wait for the store overtake each other by a little; the log stays in order.
        let now = self.times.back().map_or(now, |newest| now.max(*newest));
        self.forget(rate, now);
        let number = usize::try_from(rate.count.min(LOG_MAX)).unwrap_or(usize::MAX);
        let free = number.saturating_sub(self.times.len());
        if free > 0 {
            self.reserve(free);
            self.times.push_back(now);
            self.ends = now.plus(rate.period);
            return Ok(());
        }
        let oldest = self.times.front().map(|oldest| now.since(*oldest));
        Err(wait(rate, self.times.len(), oldest))
    }

    /// The same for a request that was counted elsewhere, too, and found within the rate there: what leaves within
    /// `slack` has left. Clocks and the way there differ by as much.
    ///
    /// # Errors
    /// See there.
    pub(in crate::throttle) fn hit_leniently(
        &mut self,
        rate: Rate,
        now: Monotonic,
        slack: Duration,
    ) -> Result<(), Option<Duration>> {
        self.forget(rate, now.plus(slack));
        self.hit(rate, now)
    }

    fn forget(&mut self, rate: Rate, now: Monotonic) {
        while self.times.front().is_some_and(|oldest| oldest.plus(rate.period) <= now) {
            self.times.pop_front();
        }
    }

    /// Doubles, but never has more places than the rate's number.
    fn reserve(&mut self, free: usize) {
        if self.times.len() == self.times.capacity() {
            self.times.reserve_exact(self.times.len().max(PLACES_MIN).min(free));
        }
    }

    /// When nothing in it counts any more.
    pub(in crate::throttle) fn ends(&self) -> Monotonic {
        self.ends
    }

    /// Bytes that it has on the heap.
    pub(in crate::throttle) fn bytes(&self) -> usize {
        self.times.capacity().saturating_mul(size_of::<Monotonic>())
    }
}

/// How long a full log refuses, as `SimpleRateThrottle.wait` of DRF 3.18 computes it; wherever the log is. `None`: it
/// holds more than the rate allows.
pub(in crate::throttle) fn wait(rate: Rate, held: usize, oldest: Option<Duration>) -> Option<Duration> {
    let remaining = rate.period.saturating_sub(oldest.unwrap_or_default());
    let number = usize::try_from(rate.count.min(LOG_MAX)).unwrap_or(usize::MAX);
    // Without a free place there is one to share the wait, or none at all.
    (held == number).then_some(remaining)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(count: u32, seconds: u64) -> Rate {
        Rate { count, period: Duration::from_secs(seconds) }
    }

    fn at(nanoseconds: u64) -> Monotonic {
        Monotonic(3600 * SECOND + nanoseconds)
    }

    #[test]
    fn a_request_whose_age_is_the_period_has_left() {
        let mut log = SlidingLog::default();
        assert_eq!(log.hit(rate(1, 60), at(0)), Ok(()));
        assert_eq!(log.hit(rate(1, 60), at(60 * SECOND - 1)), Err(Some(Duration::from_nanos(1))));
        assert_eq!(log.hit(rate(1, 60), at(60 * SECOND)), Ok(()));
    }

    #[test]
    fn what_was_refused_is_not_recorded() {
        let mut log = SlidingLog::default();
        assert_eq!(log.hit(rate(2, 60), at(0)), Ok(()));
        assert_eq!(log.hit(rate(2, 60), at(30 * SECOND)), Ok(()));
        for second in 31..60 {
            let wait = Duration::from_secs(60 - second);
            assert_eq!(log.hit(rate(2, 60), at(second * SECOND)), Err(Some(wait)));
        }
        assert_eq!(log.hit(rate(2, 60), at(60 * SECOND)), Ok(()));
        assert_eq!(log.hit(rate(2, 60), at(60 * SECOND)), Err(Some(Duration::from_secs(30))));
    }

    #[test]
    fn nothing_passes_a_rate_of_none_and_the_wait_is_the_period() {
        let mut log = SlidingLog::default();
        assert_eq!(log.hit(rate(0, 60), at(0)), Err(Some(Duration::from_mins(1))));
    }

    #[test]
    fn a_rate_that_shrank_has_no_wait() {
        let mut log = SlidingLog::default();
        for _ in 0..3 {
            assert_eq!(log.hit(rate(3, 60), at(0)), Ok(()));
        }
        assert_eq!(log.hit(rate(2, 60), at(1)), Err(None));
        assert_eq!(log.hit(rate(3, 60), at(1)), Err(Some(Duration::from_nanos(60 * SECOND - 1))));
    }

    #[test]
    fn what_leaves_in_a_moment_has_left_for_what_was_counted_elsewhere() {
        let mut log = SlidingLog::default();
        let slack = Duration::from_secs(1);
        assert_eq!(log.hit_leniently(rate(1, 60), at(0), slack), Ok(()));
        let early = at(59 * SECOND - 1);
        assert_eq!(log.hit_leniently(rate(1, 60), early, slack), Err(Some(Duration::from_nanos(SECOND + 1))));
        assert_eq!(log.hit_leniently(rate(1, 60), at(59 * SECOND), slack), Ok(()));
        assert_eq!(
            log.hit(rate(1, 60), at(118 * SECOND)),
            Err(Some(Duration::from_secs(1))),
            "recorded as it was"
        );
    }

    #[test]
    fn a_log_has_no_more_places_than_its_rate() {
        let mut log = SlidingLog::default();
        for place in 0..2000 {
            let is_within = log.hit(rate(LOG_MAX, 60), at(place)).is_ok();
            assert_eq!(is_within, place < u64::from(LOG_MAX));
        }
        assert_eq!(log.bytes(), 8000);
    }

    /// DRF's code, line by line: the newest first, in seconds.
    #[derive(Default)]
    struct Model {
        history: Vec<u64>,
    }

    impl Model {
        fn hit(&mut self, count: usize, duration: u64, now: u64) -> Result<(), Option<u64>> {
            while self.history.last().is_some_and(|last| *last <= now - duration) {
                self.history.pop();
            }
            if self.history.len() < count {
                self.history.insert(0, now);
                return Ok(());
            }
            let remaining = self.history.last().map_or(duration, |last| duration - (now - last));
            let signed = |number: usize| i64::try_from(number).unwrap();
            let available = signed(count) - signed(self.history.len()) + 1;
            Err((available > 0).then(|| remaining / available.unsigned_abs()))
        }
    }

    proptest! {
        #[test]
        fn it_says_what_drf_says(
            counts in (0_usize..6, 0_usize..6),
            seconds in prop::sample::select(vec![1_u64, 60, 3600]),
            steps in prop::collection::vec(0_u64..80, 1..200),
        ) {
            let (mut log, mut model, mut now) = (SlidingLog::default(), Model::default(), 86_400);
            for (place, step) in steps.iter().enumerate() {
                now += step;
                // The rate changes half-way.
                let count = if place < 100 { counts.0 } else { counts.1 };
                let expected = model.hit(count, seconds, now);
                let expected = expected.map_err(|wait| wait.map(Duration::from_secs));
                let rate = rate(u32::try_from(count).unwrap(), seconds);
                prop_assert_eq!(log.hit(rate, Monotonic(now * SECOND)), expected, "{}", place);
            }
        }

        #[test]
        fn times_out_of_order_break_nothing(times in prop::collection::vec(0_u64..200, 1..300)) {
            let mut log = SlidingLog::default();
            for time in times {
                let wait = log.hit(rate(5, 60), at(time * SECOND));
                prop_assert!(wait.err().flatten().is_none_or(|wait| wait <= Duration::from_mins(1)));
                prop_assert!(log.times.len() <= 5 && log.times.iter().is_sorted());
            }
        }
    }
}
