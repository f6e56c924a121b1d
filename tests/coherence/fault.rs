//! What goes wrong.

use crate::queue::Step;
use crate::redis::Server;
use crate::scale::{MILLI, Micros, SECOND};
use crate::world::World;
use doorward::cache::coherence::rules::Rules;

/// How the way to the store fails.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sql {
    Hangs,
    Refuses,
    IsSlow,
}

impl<R: Rules> World<R> {
    pub(crate) fn fault(&mut self) {
        let wait = self.random.between(20 * MILLI, 600 * MILLI);
        self.after(wait, Step::Fault);
        let several = 1 + self.random.index(self.replicas.len().div_ceil(2));
        let count = if self.random.once_in(3) { several } else { 1 };
        // Where much is lost on the stream, it matters to those who have nothing else.
        let is_lossy = self.flavour.loss < 10;
        let kind = if is_lossy && self.random.once_in(2) { 0 } else { self.random.below(10) };
        let first = self.random.index(self.replicas.len());
        let longest = if is_lossy || self.random.once_in(3) { 9 * SECOND } else { 3 * SECOND };
        let length = self.random.between(50 * MILLI, longest);
        for offset in 0..count {
            let number = (first + offset) % self.replicas.len();
            match kind {
                0 => self.cut_sql(number, length, Sql::Hangs),
                1 => self.cut_sql(number, length, Sql::Refuses),
                2 => self.cut_sql(number, length, Sql::IsSlow),
                3..=5 => self.cut_redis(number, length),
                6 if self.replicas[number].connection.is_some() => self.lose_stream(number),
                7 if offset == 0 => self.start(number),
                8 if offset == 0 => self.replace_server(),
                9 if offset == 0 && self.random.once_in(self.flavour.back) => self.replace_store(),
                _ => {}
            }
        }
    }

    fn cut_sql(&mut self, number: usize, length: Micros, how: Sql) {
        let wires = &mut self.replicas[number].wires;
        wires.sql_spell += 1;
        let is_slow = how == Sql::IsSlow;
        if !is_slow {
            wires.sql_since = Micros::MAX;
        } else if !wires.has_sql {
            wires.sql_since = self.now;
        }
        (wires.has_sql, wires.is_slow, wires.is_refused) = (is_slow, is_slow, how == Sql::Refuses);
        wires.quick_since = Micros::MAX;
        if !wires.hangs || how != Sql::Hangs {
            wires.so_since = self.now;
        }
        wires.hangs = how == Sql::Hangs;
        let spell = wires.sql_spell;
        self.after(length, Step::SqlBack { replica: number, spell });
    }

    pub(crate) fn sql_back(&mut self, number: usize, spell: u64) {
        let now = self.now;
        let wires = &mut self.replicas[number].wires;
        if wires.sql_spell == spell {
            if !wires.has_sql {
                wires.sql_since = now;
            }
            (wires.has_sql, wires.is_slow, wires.is_refused) = (true, false, false);
            (wires.quick_since, wires.so_since, wires.hangs) = (now, now, false);
        }
    }

    /// Both ways, without anybody being told.
    fn cut_redis(&mut self, number: usize, length: Micros) {
        let wires = &mut self.replicas[number].wires;
        wires.redis_spell += 1;
        wires.has_redis = false;
        let spell = wires.redis_spell;
        self.after(length, Step::RedisBack { replica: number, spell });
    }

    /// Another server of the stream, which lacks what was written last. Some replicas go on with the old one.
    fn replace_server(&mut self) {
        let keeps = self.random.once_in(3);
        let mut server = Server::new(self.replicas.len());
        server.take_over(&self.servers[self.primary], |_| keeps && !self.random.once_in(3));
        self.servers.push(server);
        self.primary = self.servers.len() - 1;
        for number in 0..self.replicas.len() {
            if self.replicas[number].connection.is_some() && self.random.once_in(2) {
                self.lose_stream(number);
            }
        }
    }

    /// Another store takes over, after a while; in most cases it lacks the last commits, whatever was answered.
    fn replace_store(&mut self) {
        if self.store.is_away {
            return;
        }
        (self.store.is_away, self.store.since) = (true, self.now);
        let length = self.random.between(SECOND, 3 * SECOND);
        self.after(length, Step::StoreBack);
        let count = self.random.index(6);
        if count > 0 {
            self.tally.back += 1;
            self.store.go_back(count);
        }
        let store = &self.store;
        for revoked in self.tokens.iter_mut().chain(&mut self.users) {
            *revoked = revoked.filter(|revoked| store.lost(revoked.commit).is_none());
        }
        for replica in &mut self.replicas {
            replica.strange_since = Some(self.now);
            replica.losses.retain(|loss| store.lost(loss.commit).is_none());
        }
    }

    pub(crate) fn store_back(&mut self) {
        (self.store.is_away, self.store.since) = (false, self.now);
    }
}
