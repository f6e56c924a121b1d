//! The cases of a look-up alone: one after the other, on one thread, each timed by itself.
//!
//! Which token comes next is any of them, or an order without neighbours: the same few again and again would measure
//! the processor's cache. Heads are prepared in bursts, untimed, so that a head is as warm as one that was just read.

use crate::accept::head::Head;
use crate::app::bench::keys::Keys;
use crate::app::bench::samples::{Samples, clock_ns};
use crate::app::bench::subject::{Answer, Asker, Subject};
use crate::app::bench::{BenchError, Case, Measured, Round};
use crate::clock::{Clock as _, SystemClock};
use crate::trace::AnsweredBy;
use futures_util::future::join_all;
use http::header;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Heads that are ready at a time: few enough to stay in the processor's cache.
const BURST: u64 = 128;
/// Samples of what takes nanoseconds: ten for each token, within these bounds.
const FAST_MIN: u64 = 10_000;
const FAST_MAX: u64 = 1_000_000;
/// Samples of what takes much longer: one for each token, within these bounds.
const SLOW_MIN: u64 = 1000;
const SLOW_MAX: u64 = 20_000;
/// How often an unknown token is asked for again, before another one comes.
const AGAIN: u64 = 32;
/// One stray for so many samples is too many; an entry that was not proved in time makes a few.
const SAMPLES_PER_STRAY: u64 = 4;
/// Look-ups at the same time while the cache is filled, untimed.
const FILLERS: usize = 32;

/// Measures [`Case::LocalHit`].
pub(in crate::app::bench) fn local_hits(round: &Round<'_>) -> Result<Measured, BenchError> {
    warm(round)?;
    take(round, async |taking| taking.local_hits().await)
}

/// Measures [`Case::StoreHit`].
pub(in crate::app::bench) fn store_hits(round: &Round<'_>) -> Result<Measured, BenchError> {
    take(round, async |taking| taking.store_hits().await)
}

/// Measures [`Case::Unknown`].
pub(in crate::app::bench) fn unknown(round: &Round<'_>) -> Result<Measured, BenchError> {
    take(round, async |taking| taking.unknown().await)
}

/// Measures [`Case::UnknownAgain`].
pub(in crate::app::bench) fn unknown_again(round: &Round<'_>) -> Result<Measured, BenchError> {
    take(round, async |taking| taking.unknown_again().await)
}

fn take(
    round: &Round<'_>,
    samples: impl AsyncFnOnce(&mut Taking<'_>) -> Result<(), BenchError>,
) -> Result<Measured, BenchError> {
    round.subject.runtime.block_on(async {
        let mut taking = Taking::new(round).await?;
        samples(&mut taking).await?;
        let Taking { samples, strays, .. } = taking;
        let elapsed = samples.total();
        Ok(Measured { case: round.case, samples, strays, connections: None, elapsed })
    })
}

/// Brings every token into the cache.
pub(in crate::app::bench) fn warm(round: &Round<'_>) -> Result<(), BenchError> {
    let Subject { runtime, keys, .. } = round.subject;
    runtime.block_on(async {
        let mut fillers = Vec::new();
        for _ in 0..FILLERS {
            let asker = round.subject.asker().await?;
            let head = asker.head(keys.header(0))?;
            fillers.push((asker, head));
        }
        let tokens = u64::from(keys.tokens());
        for first in (0..tokens).step_by(FILLERS) {
            (round.progress)("caching", first, tokens);
            if round.stop.is_cancelled() {
                return Err(BenchError::Stopped);
            }
            let asked = fillers.iter_mut().zip(first..).map(async |((asker, head), place)| {
                head.headers.insert(header::AUTHORIZATION, keys.header(keys.in_order(place)));
                asker.ask(head).await
            });
            join_all(asked).await;
        }
        Ok(())
    })
}

/// Samples that are being taken.
struct Taking<'a> {
    round: &'a Round<'a>,
    asker: Asker,
    heads: Vec<Head>,
    clock: SystemClock,
    /// See [`clock_ns`].
    clock_cost: Duration,
    samples: Samples,
    strays: u64,
}

impl<'a> Taking<'a> {
    async fn new(round: &'a Round<'a>) -> Result<Self, BenchError> {
        let asker = round.subject.asker().await?;
        let header = round.subject.keys.header(0);
        let heads = (0..BURST).map(|_| asker.head(header.clone())).collect::<Result<_, _>>()?;
        let clock_cost = Duration::from_nanos(clock_ns());
        let (clock, samples) = (SystemClock::new(), Samples::new());
        Ok(Self { round, asker, heads, clock, clock_cost, samples, strays: 0 })
    }

    async fn local_hits(&mut self) -> Result<(), BenchError> {
        let keys = &self.round.subject.keys;
        let total = u64::from(keys.tokens()).saturating_mul(10).clamp(FAST_MIN, FAST_MAX);
        let mut place = 0;
        while let Some(left) = self.left(total)? {
            self.present(left, || {
                place += 1;
                keys.any(place)
            });
            self.time(left, Answer::Known(AnsweredBy::Local)).await;
        }
        Ok(())
    }

    /// Each token is asked for once, then the cache is emptied, and so on.
    async fn store_hits(&mut self) -> Result<(), BenchError> {
        let keys = &self.round.subject.keys;
        let (tokens, total) = (u64::from(keys.tokens()), self.slow());
        let mut place = 0;
        while let Some(left) = self.left(total)? {
            if place == 0 {
                self.round.subject.forget();
            }
            let now = left.min(tokens - place);
            self.present(now, || {
                place += 1;
                keys.in_order(place)
            });
            self.time(now, Answer::Known(AnsweredBy::Store)).await;
            place %= tokens;
        }
        Ok(())
    }

    async fn unknown(&mut self) -> Result<(), BenchError> {
        let total = self.slow();
        while let Some(left) = self.left(total)? {
            self.present_unknown(left);
            self.time(left, Answer::Unknown(AnsweredBy::Store)).await;
        }
        Ok(())
    }

    async fn unknown_again(&mut self) -> Result<(), BenchError> {
        let total = self.slow().saturating_mul(AGAIN / 4);
        while let Some(left) = self.left(total)? {
            self.present_unknown(left);
            for head in self.heads.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
                self.asker.ask(head).await;
            }
            for _ in 0..AGAIN {
                let Some(left) = self.left(total)? else { break };
                self.time(left, Answer::Unknown(AnsweredBy::LocalUnknown)).await;
            }
        }
        Ok(())
    }

    /// Samples of what takes long.
    fn slow(&self) -> u64 {
        u64::from(self.round.subject.keys.tokens()).clamp(SLOW_MIN, SLOW_MAX)
    }

    /// How many are to be taken next; `None`: there are enough.
    fn left(&self, total: u64) -> Result<Option<u64>, BenchError> {
        let done = self.samples.count();
        self.round.go_on(done, total)?;
        check_strays(self.round.case, self.strays, total)?;
        Ok(Some(total.saturating_sub(done).min(BURST)).filter(|left| *left > 0))
    }

    /// Puts tokens into so many heads.
    fn present(&mut self, count: u64, mut next: impl FnMut() -> u64) {
        for (_, head) in (0..count).zip(&mut self.heads) {
            head.headers.insert(header::AUTHORIZATION, self.round.subject.keys.header(next()));
        }
    }

    fn present_unknown(&mut self, count: u64) {
        let first = self.round.subject.unknown.fetch_add(count, Ordering::Relaxed);
        let mut places = first..;
        self.present(count, || Keys::unknown(places.next().unwrap_or_default()));
    }

    /// Looks up what is in so many heads.
    async fn time(&mut self, count: u64, expected: Answer) {
        for (_, head) in (0..count).zip(&self.heads) {
            let before = self.clock.monotonic();
            let answer = self.asker.ask(head).await;
            let took = self.clock.monotonic().since(before);
            if answer == expected {
                self.samples.add(took.saturating_sub(self.clock_cost));
            } else {
                self.strays += 1;
            }
        }
    }
}

/// Fails if too many of so many look-ups went another way.
pub(in crate::app::bench) fn check_strays(case: Case, strays: u64, total: u64) -> Result<(), BenchError> {
    if strays > total / SAMPLES_PER_STRAY {
        return Err(BenchError::Strays { case, strays, asked: strays.saturating_add(total) });
    }
    Ok(())
}
