//! The only source of time, so that a test can move it.
//!
//! Waits and freshness use the monotonic time, expiry of credentials the wall clock: a wall clock that jumps
//! expires what is due and times nothing out.

use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the process's clock was made; never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// This moment plus `duration`; the end of time if that overflows.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(duration)))
    }

    /// This moment less `duration`; the beginning of time if that is before it.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanoseconds(duration)))
    }

    /// How long ago `earlier` was; zero if it is in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A duration in nanoseconds; 584 years at most.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Seconds since 1970-01-01 UTC, by the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct UnixSeconds(pub i64);

/// Where time comes from.
pub trait Clock: Debug + Send + Sync {
    /// Monotonic time, for waits and freshness.
    fn monotonic(&self) -> Monotonic;
    /// Wall clock, for expiry.
    fn unix(&self) -> UnixSeconds;

    /// Wall clock at `now`, a moment that was just read; for who needs both times and has no time to lose.
    fn unix_at(&self, _now: Monotonic) -> UnixSeconds {
        self.unix()
    }
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
    /// What [`Clock::unix_at`] adds to monotonic time (nanoseconds).
    wall_offset: AtomicI64,
    /// When that was read.
    wall_read: AtomicU64,
}

/// A wall clock that was set anew is noticed after a quarter of a second (nanoseconds). Reading it costs as much as
/// finding a token in the cache, and what it decides is counted in seconds.
const WALL_OFFSET_KEPT: u64 = 250_000_000;
const NANOSECONDS: i64 = 1_000_000_000;

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn new() -> Self {
        Self { start: Instant::now(), wall_offset: AtomicI64::new(0), wall_read: AtomicU64::new(0) }
    }

    /// Compares the clocks. Callers that meet here write the same, but for the time between two readings.
    fn read_wall_offset(&self) -> i64 {
        let monotonic = self.monotonic();
        let wall = i64::try_from(since_1970().as_nanos()).unwrap_or(i64::MAX);
        let offset = wall.saturating_sub(i64::try_from(monotonic.0).unwrap_or(i64::MAX));
        self.wall_offset.store(offset, Ordering::Relaxed);
        self.wall_read.store(monotonic.0, Ordering::Release);
        offset
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

/// Monotonic time does not start at zero, so that "before anything" differs from "at start".
const MONOTONIC_START: u64 = 3_600_000_000_000;

impl Clock for SystemClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(nanoseconds(self.start.elapsed()).saturating_add(MONOTONIC_START))
    }

    fn unix(&self) -> UnixSeconds {
        UnixSeconds(i64::try_from(since_1970().as_secs()).unwrap_or(i64::MAX))
    }

    fn unix_at(&self, now: Monotonic) -> UnixSeconds {
        // Monotonic time starts an hour after zero, so the first call reads.
        let age = now.0.saturating_sub(self.wall_read.load(Ordering::Acquire));
        let is_kept = age < WALL_OFFSET_KEPT;
        let offset = if is_kept { self.wall_offset.load(Ordering::Relaxed) } else { self.read_wall_offset() };
        let nanoseconds = i64::try_from(now.0).unwrap_or(i64::MAX).saturating_add(offset);
        UnixSeconds(nanoseconds.div_euclid(NANOSECONDS))
    }
}

/// A clock that stands still until it is told to move.
#[derive(Debug)]
pub struct ManualClock {
    monotonic: AtomicU64,
    unix: AtomicI64,
}

impl ManualClock {
    /// Stands at this wall-clock second.
    pub fn new(unix: UnixSeconds) -> Self {
        Self { monotonic: AtomicU64::new(MONOTONIC_START), unix: AtomicI64::new(unix.0) }
    }

    /// Moves both times forward.
    pub fn advance(&self, duration: Duration) {
        self.monotonic.fetch_add(nanoseconds(duration), Ordering::SeqCst);
        self.unix.fetch_add(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(self.monotonic.load(Ordering::SeqCst))
    }

    fn unix(&self) -> UnixSeconds {
        UnixSeconds(self.unix.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_arithmetic_saturates() {
        assert_eq!(Monotonic(5).since(Monotonic(7)), Duration::ZERO);
        assert_eq!(Monotonic(u64::MAX).plus(Duration::from_secs(1)), Monotonic(u64::MAX));
    }

    #[test]
    fn both_times_of_one_moment_agree() {
        let clock = SystemClock::new();
        for _ in 0..2 {
            let (before, at, after) = (clock.unix(), clock.unix_at(clock.monotonic()), clock.unix());
            // A second may have begun between two readings.
            assert!((before.0 - 1..=after.0 + 1).contains(&at.0), "{before:?} {at:?} {after:?}");
        }
    }

    #[test]
    fn wall_clock_is_read_again_in_time() {
        let clock = SystemClock::new();
        let now = clock.monotonic();
        let right = clock.unix_at(now);
        clock.wall_offset.fetch_sub(100 * NANOSECONDS, Ordering::SeqCst);
        assert!(clock.unix_at(now) < right, "kept");
        clock.wall_read.fetch_sub(WALL_OFFSET_KEPT, Ordering::SeqCst);
        assert!(clock.unix_at(clock.monotonic()) >= right, "read again");
    }

    #[test]
    fn manual_clock_moves_both_times() {
        let clock = ManualClock::new(UnixSeconds(100));
        let before = clock.monotonic();
        clock.advance(Duration::from_secs(2));
        assert_eq!(clock.monotonic().since(before), Duration::from_secs(2));
        assert_eq!(clock.unix(), UnixSeconds(102));
    }
}
