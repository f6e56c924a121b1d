//! Requests, and the look-ups that they need: as `cache::local` answers and `cache::local::load` asks.

use crate::claims::Accepted;
use crate::queue::{Life, Step, Turn};
use crate::redis::Value;
use crate::replica::{Entry, hashes};
use crate::scale::{
    BOUND, CLOCKS_DIFFER, MILLI, Micros, SECOND, STALE, STORE_TIME, STREAM_TIME, TOKENS, VALUE_TTL, duration,
    monotonic,
};
use crate::world::World;
use doorward::cache::change::Sequence;
use doorward::cache::coherence::rules::Rules;
use doorward::cache::touched::Moment;
use doorward::clock::{Monotonic, UnixSeconds};

/// A look-up under way.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) life: Life,
    pub(crate) token: usize,
    /// What its route says of `stale_while_unreachable`.
    stale: Micros,
    moment: Moment,
    began: Micros,
    server: usize,
    lease: Option<Lease>,
    /// What another replica was told, if it is only good as stale.
    held: Option<(Entry, Moment)>,
}

/// Allows one fill.
#[derive(Clone, Copy)]
pub(crate) struct Lease {
    pub(crate) mark: u64,
    pub(crate) version: Option<Sequence>,
}

impl Load {
    fn accepted(&self, how: &'static str, told: Option<u64>) -> Accepted {
        Accepted { replica: self.life.replica, token: self.token, how, stale: self.stale, told }
    }
}

impl<R: Rules> World<R> {
    pub(crate) fn request(&mut self, life: Life) {
        let wait = self.random.between(5 * MILLI, 250 * MILLI);
        self.to(wait, life, Turn::Request);
        // Whoever was thrown out tries again.
        let is_again = self.random.once_in(3);
        let token = if is_again { self.last_revoked } else { self.random.index(TOKENS) };
        let stale = STALE[self.random.index(STALE.len())];
        let is_busy = self.random.once_in(20);
        let now = monotonic(self.now);
        let replica = &self.replicas[life.replica];
        if let Some(entry) = replica.entries[token] {
            let accepted = |how| Accepted { replica: life.replica, token, how, stale, told: entry.told };
            let trust = &replica.trust;
            let is_stale = trust.is_stale_within(entry.confirmed, now, duration(stale));
            if trust.is_believed(entry.confirmed, now, duration(stale)) {
                let is_carried = replica.is_carried(entry.confirmed, now);
                self.accept(accepted(if is_carried { "carried" } else { "believed" }));
                return;
            }
            if is_stale && (trust.is_store_spared(now) || !R::STALE_WHILE_AWAY) {
                self.may_be_stale(life.replica);
                self.accept(accepted("stale"));
                return;
            }
            if is_busy && trust.is_stale_within(entry.confirmed, now, duration(BOUND)) {
                self.accept(accepted("busy"));
                return;
            }
            if is_stale {
                self.may_wait(life.replica);
            }
        }
        if is_busy {
            self.tally.refused += 1;
            return;
        }
        let replica = &self.replicas[life.replica];
        let (moment, server) = (replica.touched.now(), replica.wires.server);
        let load = Load { life, token, stale, moment, began: self.now, server, lease: None, held: None };
        if replica.connection.is_none() {
            self.ask_store(load);
        } else if replica.wires.has_redis {
            let wait = self.latency();
            self.after(wait, Step::ValueAtServer(load));
        } else {
            let lease = Lease { mark: 0, version: None };
            self.to(STREAM_TIME, life, Turn::ValueAnswer { load, value: None, lease });
        }
    }

    pub(crate) fn value_at_server(&mut self, load: Load) {
        let mark = self.random.next() | 1;
        let (value, lease) = self.servers[load.server].get(load.token, self.now, mark);
        let wait = self.latency();
        self.to(wait, load.life, Turn::ValueAnswer { load, value, lease });
    }

    pub(crate) fn value_answer(&mut self, load: Load, value: Option<Value>, lease: Lease) {
        let mut load = Load { lease: Some(lease), ..load };
        let now = monotonic(self.now);
        if let Some((value, confirmed)) = value.and_then(|value| Some((value, self.vouched(&load, value)?))) {
            let replica = &mut self.replicas[load.life.replica];
            let entry = Entry { confirmed, told: Some(value.commit) };
            if !replica.is_overtaken(&load, load.moment) {
                if replica.trust.is_believed(confirmed, now, duration(load.stale)) {
                    replica.entries[load.token] = Some(entry);
                    self.accept(load.accepted("shared", entry.told));
                    return;
                }
                let held = replica.entries[load.token];
                if held.is_none_or(|held| held.confirmed < confirmed) {
                    load.held = Some((entry, load.moment));
                }
            }
        }
        self.ask_store(load);
    }

    /// Up to which moment what another replica was told is known to be true. `None`: it may not be.
    fn vouched(&self, load: &Load, value: Value) -> Option<Monotonic> {
        let replica = &self.replicas[load.life.replica];
        let (now, clock) = (monotonic(self.now), replica.clock(self.now));
        // Longer ago than it says, as far as clocks may differ.
        let read = UnixSeconds(value.read.0 - CLOCKS_DIFFER.cast_signed());
        let age = u64::try_from(clock.0 - read.0).unwrap();
        if age >= VALUE_TTL {
            return None;
        }
        let confirmed = match value.as_of {
            Some(as_of) => {
                replica.seen.holds(as_of, read, hashes(load.token)).then(|| replica.trust.proved())?
            }
            None => replica
                .seen
                .holds_since(read, hashes(load.token))
                .then(|| monotonic(self.now.saturating_sub(age)))?,
        };
        Some(if R::VALUES_AS_OF_PROOF { confirmed } else { now })
    }

    fn ask_store(&mut self, load: Load) {
        let replica = &self.replicas[load.life.replica];
        let load = Load { moment: replica.touched.now(), began: self.now, ..load };
        if replica.trust.is_store_away(monotonic(self.now)) {
            self.instead(load);
        } else {
            let wait = self.store_latency(load.life.replica);
            self.after(wait, Step::RowAtStore(load));
        }
    }

    pub(crate) fn row_at_store(&mut self, load: Load) {
        let number = load.life.replica;
        if !self.reaches_store(number) {
            let wait = self.refusal(number, load.began);
            self.to(wait, load.life, Turn::RowFailed(load));
            return;
        }
        let store = &self.store;
        let (as_of, commit, is_good) = (store.newest(), store.last_commit(), store.is_good(load.token));
        let wait = self.store_latency(number);
        let end = load.began + STORE_TIME;
        if self.now + wait > end {
            self.to(end.saturating_sub(self.now), load.life, Turn::RowFailed(load));
        } else {
            self.to(wait, load.life, Turn::RowAnswer { load, as_of, commit, is_good });
        }
    }

    pub(crate) fn row_answer(&mut self, load: Load, as_of: Sequence, commit: u64, is_good: bool) {
        let now = monotonic(self.now);
        let replica = &mut self.replicas[load.life.replica];
        if !replica.wires.has_sql {
            self.row_failed(load);
            return;
        }
        replica.trust.lookup_answered(now);
        replica.answered = self.now;
        if replica.is_overtaken(&load, load.moment) {
            self.tally.overtaken += 1;
            return;
        }
        let held = &mut replica.entries[load.token];
        if !is_good {
            *held = None;
            self.tally.refused += 1;
            return;
        }
        let confirmed = monotonic(load.began);
        if held.is_none_or(|held| held.confirmed <= confirmed) {
            *held = Some(Entry { confirmed, told: None });
        }
        // It is remembered, but what took too long is no answer.
        if !replica.trust.is_answer(confirmed, now) {
            return;
        }
        let read = replica.clock(load.began);
        self.accept(load.accepted("read", None));
        let as_of = self.store.is_numbered.then_some(as_of);
        if let Some(lease) = load.lease.filter(|lease| as_of >= lease.version) {
            let late = if self.random.once_in(10) { self.random.below(3 * SECOND) } else { 0 };
            let wait = late + self.latency();
            let (server, token, value) = (load.server, load.token, Value { as_of, commit, read });
            self.after(wait, Step::FillAtServer { replica: load.life.replica, server, token, lease, value });
        }
    }

    pub(crate) fn row_failed(&mut self, load: Load) {
        let replica = &mut self.replicas[load.life.replica];
        replica.trust.store_failed(monotonic(self.now));
        replica.failed = self.now;
        self.instead(load);
    }

    /// What can be used though the store gave no answer.
    fn instead(&mut self, load: Load) {
        let now = monotonic(self.now);
        let replica = &mut self.replicas[load.life.replica];
        if let Some((held, _)) = load.held.filter(|(_, moment)| !replica.is_overtaken(&load, *moment)) {
            let entry = &mut replica.entries[load.token];
            if entry.is_none_or(|entry| entry.confirmed < held.confirmed) {
                *entry = Some(held);
            }
        }
        let entry = replica.entries[load.token];
        let usable =
            entry.filter(|entry| replica.trust.is_stale_within(entry.confirmed, now, duration(load.stale)));
        if let Some(entry) = usable {
            self.accept(load.accepted("stale", entry.told));
        } else {
            self.tally.refused += 1;
        }
    }
}
