//! Descriptors: as many as the system grants, and connections only as far as they go.
//!
//! A process without descriptors can neither accept nor reach its store, so some are kept back.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for the store, listeners, runtimes and the log.
const RESERVE: u64 = 64;
/// Connections that are served however few descriptors there are.
const CONNECTIONS_MIN: usize = 16;

/// Raises the limit on descriptors as far as allowed; how many of the configured connections it is enough for.
///
/// A quarter is left for connections to upstreams, which are pooled and have bounds of their own.
pub(in crate::app) fn connections(configured: usize) -> usize {
    let granted = raise();
    let possible = granted.map_or(usize::MAX, possible);
    if possible < configured {
        tracing::warn!(
            descriptors = granted,
            connections = possible,
            configured,
            "the limit on descriptors (ulimit -n) is too low for the configured connections"
        );
    }
    configured.min(possible)
}

fn possible(descriptors: u64) -> usize {
    let free = descriptors.saturating_sub(RESERVE);
    usize::try_from(free - free / 4).unwrap_or(usize::MAX).max(CONNECTIONS_MIN)
}

/// The soft limit becomes the hard one; `None`: there is none.
fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).is_ok() {
        limit.maximum
    } else {
        limit.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        assert_eq!(possible(64), CONNECTIONS_MIN);
        assert_eq!(possible(1064), 750);
        assert_eq!(connections(10), 10);
    }
}
