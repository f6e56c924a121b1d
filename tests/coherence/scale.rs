//! How many there are of everything, and how long it takes. Times are microseconds.

use doorward::clock::{Monotonic, UnixSeconds};
use std::time::Duration;

pub(crate) type Micros = u64;

pub(crate) const MILLI: Micros = 1000;
pub(crate) const SECOND: Micros = 1000 * MILLI;

pub(crate) const BOUND: Micros = SECOND;
/// What routes say of `stale_while_unreachable`.
pub(crate) const STALE: [Micros; 4] = [0, 1500 * MILLI, 3 * SECOND, 3 * SECOND];
pub(crate) const TOKENS: usize = 24;
pub(crate) const USERS: usize = 8;
/// Marks and places of a replica's cache.
pub(crate) const PLACES: usize = 256;

/// Between two readings, and between two heartbeats.
pub(crate) const INTERVAL: Micros = 100 * MILLI;
/// A reading that takes longer shows a store that hangs, or is slow.
pub(crate) const SLOW: Micros = 500 * MILLI;
/// Between two attempts to open a feed.
pub(crate) const REOPEN: Micros = 200 * MILLI;
/// Failed readings in a row after which the feed is opened anew.
pub(crate) const FAILURES_MAX: u32 = 3;
/// Between two messages that say nothing but that their publisher is there.
pub(crate) const PRESENCE: Micros = SECOND;
/// Without a heartbeat for this long a connection is given up.
pub(crate) const SILENCE: Micros = 400 * MILLI;
/// A question to the store is given up after this.
pub(crate) const STORE_TIME: Micros = 1800 * MILLI;
/// The same for all that is cached at once.
pub(crate) const CONFIRM_TIME: Micros = 250 * MILLI;
pub(crate) const STREAM_TIME: Micros = 100 * MILLI;
/// A replica that had the store for this long has it: what began before was given up, and what came then has come.
pub(crate) const SETTLED: Micros = 2500 * MILLI;
/// A store that hung for this long is known to hang: a reading began, and was not answered.
pub(crate) const NOTICED: Micros = 2600 * MILLI;
/// For this long after an answer to a look-up the store is not taken to hang.
pub(crate) const ANSWERED: Micros = 300 * MILLI;
/// For this long after a failed look-up it is left alone.
pub(crate) const PAUSE: Micros = 250 * MILLI;
/// A shared value that is older is none.
pub(crate) const VALUE_TTL: Micros = 6 * SECOND;
pub(crate) const LEASE_TIME: Micros = 2 * SECOND;
/// Clocks differ by less.
pub(crate) const CLOCKS_DIFFER: Micros = 200 * MILLI;

pub(crate) fn duration(micros: Micros) -> Duration {
    Duration::from_micros(micros)
}

pub(crate) fn monotonic(micros: Micros) -> Monotonic {
    Monotonic(0).plus(duration(micros))
}

pub(crate) fn micros(moment: Monotonic) -> Micros {
    moment.0 / 1000
}

/// As good as a clock that counts seconds.
pub(crate) fn wall(micros: Micros) -> UnixSeconds {
    UnixSeconds(micros.cast_signed())
}
