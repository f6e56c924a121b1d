//! Revocations: committed, told to the others, acknowledged.

use crate::claims::Revoked;
use crate::queue::{Life, Step, Turn};
use crate::redis::Published;
use crate::scale::{BOUND, MILLI, Micros, STREAM_TIME, TOKENS, USERS, duration, micros, monotonic};
use crate::store::What;
use crate::world::World;
use doorward::cache::change::Changes;
use doorward::cache::coherence::acknowledged;
use doorward::cache::coherence::rules::Rules;
use std::rc::Rc;

/// Somebody revokes.
#[derive(Clone, Copy)]
pub(crate) struct Act {
    life: Life,
    what: What,
    /// A command beside the replica, which is gone afterwards.
    command: Option<u64>,
}

/// What the others are told of it.
pub(crate) struct Told {
    changes: Rc<Changes>,
    commit: u64,
    /// When the commit was answered.
    committed: Micros,
    number: u64,
    server: usize,
    /// When the server told the others. `None`: it did not.
    published: Option<Micros>,
}

impl<R: Rules> World<R> {
    pub(crate) fn revoke(&mut self) {
        let wait = self.random.between(30 * MILLI, 600 * MILLI);
        self.after(wait, Step::RevokeDue);
        let what = match self.random.below(6) {
            0..=1 => What::Token(self.random.index(TOKENS)),
            2 => What::User(self.random.index(USERS)),
            _ => What::Harmless(self.random.index(USERS)),
        };
        let number = self.random.index(self.replicas.len());
        let life = self.replicas[number].life(number);
        let wait = self.store_latency(number);
        let command = self.random.once_in(2).then(|| self.random.next());
        self.after(wait, Step::CommitAtStore(Act { life, what, command }));
        if self.random.once_in(40) {
            self.store.prune();
        }
    }

    pub(crate) fn commit(&mut self, act: Act) {
        if !self.reaches_store(act.life.replica) || !self.is_alive(act.life) {
            return;
        }
        let before = self.store.newest();
        let Some(row) = self.store.commit(act.what) else { return };
        match act.what {
            What::Token(token) => self.last_revoked = token,
            What::User(user) => self.last_revoked = user + USERS * self.random.index(TOKENS / USERS),
            What::Harmless(_) => {}
        }
        let wait = self.store_latency(act.life.replica);
        let changes = Changes::numbered(before, vec![row.change]);
        let changes = Rc::new(if self.store.is_numbered { changes } else { changes.without_numbers() });
        let told = Told { changes, commit: row.commit, committed: 0, number: 0, server: 0, published: None };
        self.to(wait, act.life, Turn::CommitAnswer { act, told });
    }

    pub(crate) fn committed(&mut self, act: Act, told: Told) {
        let mut told = Told { committed: self.now, ..told };
        let replica = &mut self.replicas[act.life.replica];
        let clock = replica.clock(self.now);
        for change in told.changes.changes.iter().filter(|_| act.command.is_none()) {
            replica.drop(*change, None, clock);
        }
        if replica.asks_redis() {
            told.server = replica.wires.server;
            told.number = if act.command.is_some() {
                1
            } else {
                replica.number += 1;
                replica.number
            };
            let wait = self.latency();
            self.after(wait, Step::PublishAtServer { act, told });
        } else {
            self.to(STREAM_TIME, act.life, Turn::PublishAnswer { act, told });
        }
    }

    pub(crate) fn publish(&mut self, act: Act, mut told: Told) {
        let replica = &self.replicas[act.life.replica];
        if replica.wires.has_redis {
            told.published = Some(self.now);
            let publisher = act.command.unwrap_or(replica.publisher);
            if let What::Token(token) = act.what {
                self.servers[told.server].forget(token);
            }
            let (number, changes, commit) = (told.number, Rc::clone(&told.changes), Some(told.commit));
            self.tell(told.server, &Published { publisher, number, changes, commit });
        }
        let wait = self.latency();
        self.to(wait, act.life, Turn::PublishAnswer { act, told });
    }

    pub(crate) fn published(&mut self, act: Act, told: Told) {
        let at = acknowledged::<R>(monotonic(told.committed), told.published.is_some(), duration(BOUND));
        let wait = micros(at).saturating_sub(self.now);
        self.to(wait, act.life, Turn::Acknowledge { act, told });
    }

    /// What the store lost meanwhile is not revoked, whatever is said of it.
    pub(crate) fn acknowledge(&mut self, act: Act, told: &Told) {
        if self.store.lost(told.commit).is_some() {
            return;
        }
        let server = told.published.map(|at| (told.server, at));
        let revoked = Some(Revoked { at: self.now, commit: told.commit, told: server });
        match act.what {
            What::Token(token) => self.tokens[token] = revoked,
            What::User(user) => self.users[user] = revoked,
            What::Harmless(_) => return,
        }
        self.tally.revoked += 1;
        self.tally.after_back += u64::from(self.store.past > 0);
    }
}
