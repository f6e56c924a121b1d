//! What the process takes: CPU time, memory, descriptors; as Linux tells it.

use crate::clock::UnixSeconds;
use crate::telemetry::metrics::Uptime;
use rustix::param::page_size;
use rustix::time::{ClockId, clock_gettime};
use std::fs;

/// As of now; what cannot be read is 0.
pub(in crate::app) fn usage(started: UnixSeconds) -> Uptime {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    Uptime {
        started: started.0,
        cpu: std::time::Duration::try_from(cpu).unwrap_or_default().as_secs_f64(),
        resident: resident_pages().unwrap_or(0).saturating_mul(u64::try_from(page_size()).unwrap_or(0)),
        descriptors: fs::read_dir("/proc/self/fd").map_or(0, |open| open.map(|_| 1).sum()),
    }
}

/// The second number of `/proc/self/statm` (proc(5)).
fn resident_pages() -> Option<u64> {
    fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_takes_something() {
        let usage = usage(UnixSeconds(1));
        assert!(usage.resident > 1_000_000 && usage.descriptors > 2 && usage.cpu > 0.0, "{usage:?}");
    }
}
