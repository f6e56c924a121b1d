//! Readings of the store, as `app::coherence::reading` makes them: one after the other, patiently.

use crate::queue::{Life, Turn};
use crate::scale::{FAILURES_MAX, INTERVAL, Micros, REOPEN, SLOW, STORE_TIME, monotonic};
use crate::store::Row;
use crate::world::World;
use doorward::cache::change::{Change, Changes, Sequence};
use doorward::cache::coherence::Event;
use doorward::cache::coherence::rules::Rules;

/// What the store says to a reading.
pub(crate) struct Answer {
    asked: Micros,
    /// If the feed was opened: what was changed up to this number will not be told.
    begins: Option<Sequence>,
    changes: Changes,
    newest: Sequence,
    last: Option<Row>,
    state: (u64, Sequence),
    /// Whether whoever reads this knows that the store went back, if it did.
    knows_past: bool,
}

impl<R: Rules> World<R> {
    /// It is time, or somebody wants it read now.
    pub(crate) fn read_due(&mut self, life: Life, readings: u64) {
        let feed = &mut self.replicas[life.replica].feed;
        if feed.is_reading || feed.readings != readings {
            return;
        }
        feed.is_reading = true;
        feed.readings += 1;
        let (readings, wait) = (feed.readings, if feed.hangs { INTERVAL } else { SLOW });
        self.to(wait, life, Turn::Patience { readings });
        let (asked, wait) = (self.now, self.store_latency(life.replica));
        self.to(wait, life, Turn::ReadAtStore { asked });
    }

    pub(crate) fn read_now(&mut self, number: usize) {
        let replica = &mut self.replicas[number];
        if replica.feed.is_reading {
            replica.feed.reads_again = true;
        } else {
            let (life, readings) = (replica.life(number), replica.feed.readings);
            self.to(0, life, Turn::ReadDue { readings });
        }
    }

    /// Nobody waits for a store that takes long who need not.
    pub(crate) fn patience(&mut self, life: Life, readings: u64) {
        let replica = &self.replicas[life.replica];
        let feed = &replica.feed;
        let waits_to_open = feed.position.is_none() && feed.hangs;
        if feed.readings == readings && (feed.is_reading || waits_to_open) {
            replica.trust.store_is_slow(monotonic(self.now));
            self.to(INTERVAL, life, Turn::Patience { readings });
        }
    }

    pub(crate) fn read_at_store(&mut self, life: Life, asked: Micros) {
        if !self.reaches_store(life.replica) {
            let wait = self.refusal(life.replica, asked);
            self.to(wait, life, Turn::ReadFailed { asked });
            return;
        }
        let answer = self.says(life.replica, asked);
        let wait = self.store_latency(life.replica);
        if self.now + wait > asked + STORE_TIME {
            self.to((asked + STORE_TIME).saturating_sub(self.now), life, Turn::ReadFailed { asked });
        } else {
            self.to(wait, life, Turn::ReadAnswer(Box::new(answer)));
        }
    }

    fn says(&self, number: usize, asked: Micros) -> Answer {
        let (store, feed) = (&self.store, &self.replicas[number].feed);
        let newest = store.newest();
        let state = (store.past, newest);
        let of_rows = |rows: &[Row]| rows.iter().map(|row| row.change).collect();
        let (mut begins, mut knows_past) = (None, false);
        let changes = match feed.position {
            None => {
                let (after, rows) = store.history();
                (begins, knows_past) = (Some(after), feed.was_open);
                Changes::numbered(after, of_rows(rows))
            }
            Some(_) if !store.is_numbered => {
                let is_same = state == feed.state;
                Changes::unnumbered(if is_same { vec![] } else { vec![Change::Something] })
            }
            Some(position) => {
                if let Some(rows) = store.after(position, feed.last) {
                    Changes::numbered(position, of_rows(rows))
                } else {
                    knows_past = true;
                    Changes::everything(position, newest)
                }
            }
        };
        Answer { asked, begins, changes, newest, last: store.log.last().copied(), state, knows_past }
    }

    pub(crate) fn read_answer(&mut self, life: Life, answer: &Answer) {
        let number = life.replica;
        let replica = &mut self.replicas[number];
        if !replica.wires.has_sql {
            self.read_failed(life, answer.asked);
            return;
        }
        let feed = &mut replica.feed;
        (feed.position, feed.last, feed.state) = (Some(answer.newest), answer.last, answer.state);
        (feed.was_open, feed.failures, feed.hangs) = (true, 0, false);
        replica.losses.retain(|loss| loss.number > answer.newest);
        if replica.strange_since.is_some_and(|since| since <= answer.asked) {
            replica.strange_since = None;
        }
        if answer.knows_past {
            replica.knows_past = answer.state.0;
        }
        self.read_ends(life, INTERVAL);
        let newest = self.store.is_numbered.then_some(answer.newest);
        if let Some(after) = answer.begins {
            let after = self.store.is_numbered.then_some(after);
            self.on(number, &Event::ReadingBegins { after });
        }
        if answer.begins.is_none() || newest.is_some() {
            self.replicas[number].trust.store_answered();
            let asked = monotonic(answer.asked);
            self.on(number, &Event::Read { asked, changes: &answer.changes, newest });
        }
    }

    pub(crate) fn read_failed(&mut self, life: Life, asked: Micros) {
        let hangs = self.now - asked >= SLOW;
        let replica = &mut self.replicas[life.replica];
        if hangs {
            replica.trust.store_is_slow(monotonic(self.now));
        }
        let feed = &mut replica.feed;
        (feed.hangs, feed.failures) = (hangs, feed.failures + 1);
        let wait = if feed.position.is_none() { REOPEN } else { INTERVAL };
        if feed.failures >= FAILURES_MAX {
            feed.position = None;
        }
        self.read_ends(life, wait);
    }

    fn read_ends(&mut self, life: Life, wait: Micros) {
        let feed = &mut self.replicas[life.replica].feed;
        feed.is_reading = false;
        let wait = if std::mem::take(&mut feed.reads_again) { 0 } else { wait };
        let readings = feed.readings;
        self.to(wait, life, Turn::ReadDue { readings });
    }
}
