//! The levels of a look-up, one after the other: each is asked past those before it.

use crate::app::bench::asker::Answer;
use crate::app::bench::stores::Outcome;
use crate::app::bench::stores::ground::Ground;
use crate::app::bench::taking::{BURST, Taking, UNANSWERED_MAX};
use crate::app::bench::{BenchError, Case, Measured, Progress};
use crate::cache::local::CredentialKey;
use crate::cache::redis::{Away, SharedCache};
use crate::clock::Monotonic;
use crate::identity::Family;
use crate::trace::AnsweredBy;
use http::header;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Samples of what takes nanoseconds: ten for each row, within these bounds.
const FAST_MIN: u64 = 10_000;
const FAST_MAX: u64 = 1_000_000;
/// Samples of what takes much longer: ten for each row, within these bounds.
const SLOW_MIN: u64 = 1000;
const SLOW_MAX: u64 = 20_000;
/// Look-ups of those between two looks whether to go on.
const SLOW_BURST: u64 = 16;
/// No level takes longer: then there are fewer samples.
const LEVEL_TIME: Duration = Duration::from_mins(1);
/// One look-up that another level answered for so many samples is too many.
const SAMPLES_PER_STRAY: u64 = 4;
/// How long Redis has to answer at all.
const REDIS_TIME: Duration = Duration::from_secs(3);
/// How long it has until its answers are believed. Where the store has no numbers that takes 5 s after the rows were
/// written: so much clocks may differ.
const BELIEF_TIME: Duration = Duration::from_secs(12);
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// Measures one level. Blocks; must not be called on a runtime.
pub(super) fn measure(
    ground: &Ground,
    case: Case,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Outcome, BenchError> {
    ground.runtime.block_on(async {
        if case == Case::RedisHit {
            let Some(shared) = &ground.backing.shared else { return Ok(Outcome::Absent) };
            reach(ground, shared, stop).await?;
        }
        let asker = match case {
            Case::StoreHit => ground.asker_past_redis().await?,
            _ => ground.asker().await?,
        };
        let taking = Taking::new(asker, &ground.keys, &ground.unknown)?;
        let began = ground.clock.monotonic();
        let mut run = Run { ground, case, taking, progress, stop, began };
        match case {
            Case::LocalHit => run.local().await?,
            Case::RedisHit => {
                run.share().await?;
                run.past_local(AnsweredBy::Redis).await?;
            }
            Case::Unknown => run.unknown().await?,
            _ => run.past_local(AnsweredBy::Store).await?,
        }
        let Taking { samples, strays, .. } = run.taking;
        let elapsed = samples.total();
        Ok(Outcome::Measured(Measured { case, samples, strays, connections: None, elapsed }))
    })
}

/// Waits until Redis answers.
async fn reach(ground: &Ground, shared: &SharedCache, stop: &CancellationToken) -> Result<(), BenchError> {
    let key = CredentialKey { digest: ground.keys.digest(0), family: Family::Doorward };
    let began = ground.clock.monotonic();
    let mut why = None;
    while ground.clock.monotonic().since(began) < REDIS_TIME {
        match shared.get(&key).await {
            Ok(_) => return Ok(()),
            // Says nothing of why.
            Err(Away::Paused) => {}
            Err(away) => why = Some(away),
        }
        ground.pause(INTERVAL, stop).await?;
    }
    let unconnected = || shared.state().why.map(|why| Away::Unconnected(Some(why)));
    Err(BenchError::Redis(why.or_else(unconnected).unwrap_or(Away::Silent)))
}

/// A level that is being measured.
struct Run<'a> {
    ground: &'a Ground,
    case: Case,
    taking: Taking<'a>,
    progress: &'a Progress,
    stop: &'a CancellationToken,
    began: Monotonic,
}

impl Run<'_> {
    /// Any row, all of which are in the local cache.
    async fn local(&mut self) -> Result<(), BenchError> {
        let keys = &self.ground.keys;
        let rows = u64::from(keys.tokens());
        for place in 0..rows {
            self.go_on("caching", place, rows)?;
            self.taking.present(1, || keys.in_order(place));
            self.taking.ask(1).await;
        }
        let total = rows.saturating_mul(10).clamp(FAST_MIN, FAST_MAX);
        let mut place = 0;
        while let Some(left) = self.left(total, BURST)? {
            self.taking.present(left, || {
                place += 1;
                keys.any(place)
            });
            self.taking.time(left, Answer::Refused(AnsweredBy::Local)).await;
        }
        Ok(())
    }

    /// Each row once, then the local cache is emptied, and so on.
    async fn past_local(&mut self, by: AnsweredBy) -> Result<(), BenchError> {
        let keys = &self.ground.keys;
        let (rows, total) = (u64::from(keys.tokens()), self.slow());
        self.began = self.ground.clock.monotonic();
        let mut place = 0;
        while let Some(left) = self.left(total, SLOW_BURST)? {
            if place == 0 {
                self.ground.forget();
            }
            let now = left.min(rows - place);
            self.taking.present(now, || {
                place += 1;
                keys.in_order(place)
            });
            self.taking.time(now, Answer::Refused(by)).await;
            place %= rows;
        }
        Ok(())
    }

    async fn unknown(&mut self) -> Result<(), BenchError> {
        let total = self.slow();
        while let Some(left) = self.left(total, SLOW_BURST)? {
            self.taking.present_unknown(left);
            self.taking.time(left, Answer::Unknown(AnsweredBy::Store)).await;
        }
        Ok(())
    }

    /// Brings every row to Redis, and waits until what it says is believed.
    async fn share(&mut self) -> Result<(), BenchError> {
        let keys = &self.ground.keys;
        let rows = u64::from(keys.tokens());
        let mut asker = self.ground.asker().await?;
        let mut head = asker.head(keys.header(0))?;
        let mut began = None;
        loop {
            self.ground.forget();
            let mut shared = 0;
            for place in 0..rows {
                self.go_on("sharing", place, rows)?;
                head.headers.insert(header::AUTHORIZATION, keys.header(keys.in_order(place)));
                if asker.ask(&head).await == Answer::Refused(AnsweredBy::Redis) {
                    shared += 1;
                }
            }
            if shared == rows {
                return Ok(());
            }
            // The first time round nothing is there yet.
            let now = self.ground.clock.monotonic();
            if now.since(*began.get_or_insert(now)) > BELIEF_TIME {
                // If it is some of them only, the samples say whether they are enough.
                return if shared == 0 { Err(BenchError::Unbelieved) } else { Ok(()) };
            }
            self.ground.pause(INTERVAL, self.stop).await?;
        }
    }

    /// Samples of what takes long.
    fn slow(&self) -> u64 {
        u64::from(self.ground.keys.tokens()).saturating_mul(10).clamp(SLOW_MIN, SLOW_MAX)
    }

    fn go_on(&self, what: &'static str, done: u64, total: u64) -> Result<(), BenchError> {
        (self.progress)(what, done, total);
        if self.stop.is_cancelled() { Err(BenchError::Stopped) } else { Ok(()) }
    }

    /// How many samples are to be taken next; `None`: there are enough, or it took long enough.
    fn left(&self, total: u64, burst: u64) -> Result<Option<u64>, BenchError> {
        let Taking { samples, strays, unanswered, .. } = &self.taking;
        let (case, done, strays) = (self.case, samples.count(), *strays);
        self.go_on(case.name(), done, total)?;
        if *unanswered >= UNANSWERED_MAX {
            return Err(BenchError::Unanswered { case, count: *unanswered });
        }
        let is_over = done >= total || self.ground.clock.monotonic().since(self.began) > LEVEL_TIME;
        let of = if is_over { done } else { total };
        if strays > of / SAMPLES_PER_STRAY {
            return Err(BenchError::Strays { case, strays, asked: strays.saturating_add(done) });
        }
        Ok((!is_over).then(|| (total - done).min(burst)))
    }
}
