//! `[cache]`: how much is remembered, and for how long it may be believed.

use std::time::Duration;

use crate::config::problem::Problems;
use crate::config::raw;
use crate::config::value::{Size, within};

/// The local cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Bytes at most.
    pub capacity: u64,
    /// An entry not proved fresh is confirmed by the store before it is older than this; zero: always.
    pub revocation_bound: Duration,
    /// How long an unknown credential is remembered as unknown; zero: not at all.
    pub negative_ttl: Duration,
    /// How long known credentials still pass while the store does not answer; zero: not at all.
    pub stale_while_unreachable: Duration,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            capacity: 64 << 20,
            revocation_bound: Duration::from_secs(1),
            negative_ttl: Duration::from_secs(1),
            stale_while_unreachable: Duration::from_mins(1),
        }
    }
}

/// Longer than a day without a store is no outage.
pub(super) const STALE_MAX: Duration = Duration::from_hours(24);

impl Cache {
    pub(super) fn from_raw(raw: &raw::Cache, problems: &mut Problems) -> Self {
        let default = Self::default();
        let sizes = Size(1 << 20)..=Size(64 << 30);
        let minute = Duration::ZERO..=Duration::from_mins(1);
        let default_capacity = Size(usize::try_from(default.capacity).unwrap_or(usize::MAX));
        let capacity = within(raw.capacity.as_ref(), default_capacity, sizes, "capacity", problems);
        let mut time = |entry, default, range, key| within(entry, default, range, key, problems);
        Self {
            capacity: capacity.0 as u64,
            revocation_bound: time(
                raw.revocation_bound.as_ref(),
                default.revocation_bound,
                minute.clone(),
                "revocation_bound",
            ),
            negative_ttl: time(raw.negative_ttl.as_ref(), default.negative_ttl, minute, "negative_ttl"),
            stale_while_unreachable: time(
                raw.stale_while_unreachable.as_ref(),
                default.stale_while_unreachable,
                Duration::ZERO..=STALE_MAX,
                "stale_while_unreachable",
            ),
        }
    }
}
