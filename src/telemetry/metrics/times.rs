//! A histogram of times that is counted into without a lock: every request of every core does.

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in seconds: from a cached answer to one that took too long. The last has none.
const BOUNDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, f64::INFINITY];

/// Counts times; clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    buckets: [AtomicU64; BOUNDS.len()],
    nanoseconds: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub(super) fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        if let Some(bucket) = self.0.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        // 584 years of waiting fit.
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = self.0.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<_> = BOUNDS.into_iter().zip(counts).collect();
        let sum = Duration::from_nanos(self.0.nanoseconds.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    #[test]
    fn times_are_in_the_buckets_that_openmetrics_wants() {
        let (mut registry, times) = (Registry::default(), Histogram::default());
        registry.register("took_seconds", "Times", times.clone());
        for time in [0, 500_000, 500_001, 1_500_000_000, 90_000_000_000] {
            times.observe(Duration::from_nanos(time));
        }
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "took_seconds_bucket{le=\"0.0005\"} 2\n",
            "took_seconds_bucket{le=\"0.001\"} 3\n",
            "took_seconds_bucket{le=\"1.0\"} 3\n",
            "took_seconds_bucket{le=\"2.5\"} 4\n",
            "took_seconds_bucket{le=\"60.0\"} 4\n",
            "took_seconds_bucket{le=\"+Inf\"} 5\n",
            "took_seconds_count 5\n",
            "took_seconds_sum 91.501000001\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
