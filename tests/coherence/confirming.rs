//! What is cached is asked for all at once, as `app::coherence::confirming` does it.

use crate::queue::{Life, Turn};
use crate::replica::{Entry, hashes};
use crate::scale::{CONFIRM_TIME, Micros, TOKENS, monotonic};
use crate::world::World;
use doorward::cache::coherence::Event;
use doorward::cache::coherence::rules::Rules;
use doorward::cache::touched::Moment;

/// All tokens, asked for at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Confirming {
    began: Micros,
    moment: Moment,
}

impl<R: Rules> World<R> {
    pub(crate) fn confirm(&mut self, number: usize) {
        let replica = &self.replicas[number];
        let (life, moment) = (replica.life(number), replica.touched.now());
        let wait = self.store_latency(number);
        self.to(wait, life, Turn::ConfirmAtStore(Confirming { began: self.now, moment }));
    }

    pub(crate) fn confirm_at_store(&mut self, life: Life, confirming: Confirming) {
        let left = (confirming.began + CONFIRM_TIME).saturating_sub(self.now);
        let (wait, good) = if self.reaches_store(life.replica) {
            let good = std::array::from_fn(|token| self.store.is_good(token));
            (self.store_latency(life.replica), Some(good))
        } else {
            (self.refusal(life.replica, confirming.began), None)
        };
        let good = good.filter(|_| wait <= left);
        self.to(wait.min(left), life, Turn::Confirmed { confirming, good });
    }

    pub(crate) fn confirmed(&mut self, life: Life, confirming: Confirming, good: Option<[bool; TOKENS]>) {
        let confirmed = monotonic(confirming.began);
        let replica = &mut self.replicas[life.replica];
        for (token, is_good) in good.into_iter().flatten().enumerate() {
            let Some(entry) = replica.entries[token].filter(|entry| entry.confirmed < confirmed) else {
                continue;
            };
            let is_touched = hashes(token).iter().any(|hash| replica.touched.since(*hash, confirming.moment));
            replica.entries[token] = match (is_good, is_touched) {
                (false, _) => None,
                (true, false) => Some(Entry { confirmed, told: None }),
                (true, true) => Some(entry),
            };
        }
        self.on(life.replica, &Event::Confirmed { began: confirmed });
    }
}
