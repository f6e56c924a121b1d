//! The cases of a look-up alone, in a store that goes away.
//!
//! Which token comes next is any of them, or an order without neighbours: the same few again and again would measure
//! the processor's cache.

use crate::app::bench::asker::Answer;
use crate::app::bench::subject::Subject;
use crate::app::bench::taking::{BURST, Taking};
use crate::app::bench::{BenchError, Case, Measured, Round};
use crate::trace::AnsweredBy;
use futures_util::future::join_all;
use http::header;

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
    take(round, async |run| run.local_hits().await)
}

/// Measures [`Case::StoreHit`].
pub(in crate::app::bench) fn store_hits(round: &Round<'_>) -> Result<Measured, BenchError> {
    take(round, async |run| run.store_hits().await)
}

/// Measures [`Case::Unknown`].
pub(in crate::app::bench) fn unknown(round: &Round<'_>) -> Result<Measured, BenchError> {
    take(round, async |run| run.unknown().await)
}

/// Measures [`Case::UnknownAgain`].
pub(in crate::app::bench) fn unknown_again(round: &Round<'_>) -> Result<Measured, BenchError> {
    take(round, async |run| run.unknown_again().await)
}

fn take(
    round: &Round<'_>,
    samples: impl AsyncFnOnce(&mut Run<'_>) -> Result<(), BenchError>,
) -> Result<Measured, BenchError> {
    round.subject.runtime.block_on(async {
        let mut run = Run::new(round).await?;
        samples(&mut run).await?;
        let Taking { samples, strays, .. } = run.taking;
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
struct Run<'a> {
    round: &'a Round<'a>,
    taking: Taking<'a>,
}

impl<'a> Run<'a> {
    async fn new(round: &'a Round<'a>) -> Result<Self, BenchError> {
        let subject = round.subject;
        Ok(Self { round, taking: Taking::new(subject.asker().await?, &subject.keys, &subject.unknown)? })
    }

    async fn local_hits(&mut self) -> Result<(), BenchError> {
        let keys = &self.round.subject.keys;
        let total = u64::from(keys.tokens()).saturating_mul(10).clamp(FAST_MIN, FAST_MAX);
        let mut place = 0;
        while let Some(left) = self.left(total)? {
            self.taking.present(left, || {
                place += 1;
                keys.any(place)
            });
            self.taking.time(left, Answer::Known(AnsweredBy::Local)).await;
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
            self.taking.present(now, || {
                place += 1;
                keys.in_order(place)
            });
            self.taking.time(now, Answer::Known(AnsweredBy::Store)).await;
            place %= tokens;
        }
        Ok(())
    }

    async fn unknown(&mut self) -> Result<(), BenchError> {
        let total = self.slow();
        while let Some(left) = self.left(total)? {
            self.taking.present_unknown(left);
            self.taking.time(left, Answer::Unknown(AnsweredBy::Store)).await;
        }
        Ok(())
    }

    async fn unknown_again(&mut self) -> Result<(), BenchError> {
        let total = self.slow().saturating_mul(AGAIN / 4);
        while let Some(left) = self.left(total)? {
            self.taking.present_unknown(left);
            self.taking.ask(left).await;
            for _ in 0..AGAIN {
                let Some(left) = self.left(total)? else { break };
                self.taking.time(left, Answer::Unknown(AnsweredBy::LocalUnknown)).await;
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
        let done = self.taking.samples.count();
        self.round.go_on(done, total)?;
        check_strays(self.round.case, self.taking.strays, total)?;
        Ok(Some(total.saturating_sub(done).min(BURST)).filter(|left| *left > 0))
    }
}

/// Fails if too many of so many look-ups went another way.
pub(in crate::app::bench) fn check_strays(case: Case, strays: u64, total: u64) -> Result<(), BenchError> {
    if strays > total / SAMPLES_PER_STRAY {
        return Err(BenchError::Strays { case, strays, asked: strays.saturating_add(total) });
    }
    Ok(())
}
