//! Samples of look-ups alone: one after the other, on one thread, each timed by itself.
//!
//! Heads are prepared in bursts, untimed, so that a head is as warm as one that was just read.

use crate::accept::head::Head;
use crate::app::bench::BenchError;
use crate::app::bench::asker::{Answer, Asker};
use crate::app::bench::keys::Keys;
use crate::app::bench::samples::{Samples, clock_ns};
use crate::clock::{Clock as _, SystemClock};
use http::header;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Heads that are ready at a time: few enough to stay in the processor's cache.
pub(in crate::app::bench) const BURST: u64 = 128;

/// Look-ups in a row that nobody answers, after which no burst goes on: each may have been waited for.
pub(in crate::app::bench) const UNANSWERED_MAX: u64 = 8;

/// Samples that are being taken.
#[derive(Debug)]
pub(in crate::app::bench) struct Taking<'a> {
    keys: &'a Keys,
    /// See [`Subject`](crate::app::bench::subject::Subject).
    unknown: &'a AtomicU64,
    pub(in crate::app::bench) asker: Asker,
    heads: Vec<Head>,
    clock: SystemClock,
    /// See [`clock_ns`].
    clock_cost: Duration,
    pub(in crate::app::bench) samples: Samples,
    /// Look-ups that went another way.
    pub(in crate::app::bench) strays: u64,
    /// Look-ups in a row that nobody answered.
    pub(in crate::app::bench) unanswered: u64,
}

impl<'a> Taking<'a> {
    pub(in crate::app::bench) fn new(
        asker: Asker,
        keys: &'a Keys,
        unknown: &'a AtomicU64,
    ) -> Result<Self, BenchError> {
        let header = keys.header(0);
        let heads = (0..BURST).map(|_| asker.head(header.clone())).collect::<Result<_, _>>()?;
        let clock_cost = Duration::from_nanos(clock_ns());
        let (clock, samples) = (SystemClock::new(), Samples::new());
        Ok(Self { keys, unknown, asker, heads, clock, clock_cost, samples, strays: 0, unanswered: 0 })
    }

    /// Puts tokens into so many heads.
    pub(in crate::app::bench) fn present(&mut self, count: u64, mut next: impl FnMut() -> u64) {
        for (_, head) in (0..count).zip(&mut self.heads) {
            head.headers.insert(header::AUTHORIZATION, self.keys.header(next()));
        }
    }

    /// Puts tokens into them that nobody has.
    pub(in crate::app::bench) fn present_unknown(&mut self, count: u64) {
        let first = self.unknown.fetch_add(count, Ordering::Relaxed);
        let mut places = first..;
        self.present(count, || Keys::unknown(places.next().unwrap_or_default()));
    }

    /// Looks up what is in so many heads, untimed.
    pub(in crate::app::bench) async fn ask(&mut self, count: u64) {
        for (_, head) in (0..count).zip(&self.heads) {
            self.asker.ask(head).await;
        }
    }

    /// Looks up what is in so many heads. Counted is what was answered so, as `expected` says.
    pub(in crate::app::bench) async fn time(&mut self, count: u64, expected: Answer) {
        for (_, head) in (0..count).zip(&self.heads) {
            let before = self.clock.monotonic();
            let answer = self.asker.ask(head).await;
            let took = self.clock.monotonic().since(before);
            self.unanswered = if answer == Answer::None { self.unanswered + 1 } else { 0 };
            if answer == expected {
                self.samples.add(took.saturating_sub(self.clock_cost));
            } else {
                self.strays += 1;
            }
            if self.unanswered >= UNANSWERED_MAX {
                return;
            }
        }
    }
}
