//! What samples took, in bounded memory, and what taking the time takes.

use crate::clock::{Clock as _, SystemClock};
use hdrhistogram::Histogram;
use std::time::Duration;

/// Longer samples are counted as this long.
const SAMPLE_MAX: Duration = Duration::from_mins(1);
/// Percentiles are right to three digits.
const DIGITS: u8 = 3;
/// Readings of the clock from which its cost is taken.
const CLOCK_READINGS: usize = 10_000;

/// What samples took, in nanoseconds.
#[derive(Debug, Clone)]
pub struct Samples {
    histogram: Histogram<u64>,
    total: Duration,
}

impl Samples {
    /// None yet.
    pub fn new() -> Self {
        Self { histogram: histogram(), total: Duration::ZERO }
    }

    /// Adds a sample.
    pub fn add(&mut self, took: Duration) {
        self.histogram.saturating_record(nanoseconds(took));
        self.total = self.total.saturating_add(took);
    }

    /// Takes all of another's in.
    pub fn extend(&mut self, other: &Self) {
        // Both have the same bounds.
        self.histogram.add(&other.histogram).unwrap_or_default();
        self.total = self.total.saturating_add(other.total);
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// All of them together.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// Nanoseconds that this share of the samples, from 0 to 1, did not take longer than; to three digits.
    pub fn at(&self, share: f64) -> u64 {
        self.histogram.value_at_quantile(share)
    }

    /// Nanoseconds of the longest; to three digits.
    pub fn longest(&self) -> u64 {
        self.histogram.max()
    }

    /// Nanoseconds of a sample on the average; 0 without samples.
    pub fn mean(&self) -> f64 {
        self.histogram.mean()
    }
}

impl Default for Samples {
    fn default() -> Self {
        Self::new()
    }
}

/// What two readings of the clock, one right after the other, lie apart: the median in nanoseconds.
///
/// A hit takes some ten times as long as reading the clock, so each is timed alone and this is taken off: the mean of
/// several would hide the slow ones, which the high percentiles are about. Where the clock is slower than the hit (a
/// virtual machine without a time-stamp counter), percentiles of a hit are coarse, and this figure says so.
pub(in crate::app::bench) fn clock_ns() -> u64 {
    let clock = SystemClock::new();
    let mut readings = Samples::new();
    for _ in 0..CLOCK_READINGS {
        let before = clock.monotonic();
        readings.add(clock.monotonic().since(before));
    }
    readings.at(0.5)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, nanoseconds(SAMPLE_MAX), DIGITS).expect("the bounds are in order")
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let mut samples = Samples::new();
        for nanoseconds in 1..=1000 {
            samples.add(Duration::from_nanos(nanoseconds));
        }
        let shares = [0.5, 0.9, 0.99, 0.999, 1.0].map(|share| samples.at(share));
        assert_eq!(shares, [500, 900, 990, 999, 1000]);
        assert_eq!((samples.count(), samples.longest()), (1000, 1000));
        assert!((samples.mean() - 500.5).abs() < 0.01, "{}", samples.mean());
        assert_eq!(samples.total(), Duration::from_nanos(500_500));
    }

    #[test]
    fn samples_of_several_are_put_together_and_too_long_ones_are_kept() {
        let (mut one, mut other) = (Samples::new(), Samples::new());
        one.add(Duration::from_nanos(100));
        other.add(Duration::from_hours(1));
        one.extend(&other);
        assert_eq!(one.count(), 2);
        assert_eq!(one.at(0.5), 100);
        // To three digits.
        let longest = Duration::from_nanos(one.longest());
        assert!(longest >= SAMPLE_MAX && longest < SAMPLE_MAX.mul_f64(1.001), "{longest:?}");
        assert_eq!(Samples::new().at(0.999), 0);
    }

    #[test]
    fn reading_the_clock_takes_less_than_a_millisecond() {
        assert!(clock_ns() < 1_000_000);
    }
}
