//! One process: the server's own state machine, and the cache that it keeps true.

use crate::lookup::Load;
use crate::queue::Life;
use crate::redis::Loss;
use crate::scale::{BOUND, Micros, PLACES, TOKENS, USERS, duration, wall};
use crate::store::{Row, digest, user_id, user_of};
use doorward::cache::change::{Change, Sequence};
use doorward::cache::coherence::rules::Rules;
use doorward::cache::coherence::seen::Seen;
use doorward::cache::coherence::trust::Trust;
use doorward::cache::coherence::{Coherence, Command};
use doorward::cache::touched::{Moment, Touched};
use doorward::clock::{Monotonic, UnixSeconds};
use std::collections::BTreeSet;

/// A cached answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) confirmed: Monotonic,
    /// The last commit that it had seen, if another replica told of it.
    pub(crate) told: Option<u64>,
}

/// How it gets on with its readings.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Default)]
pub(crate) struct Feed {
    /// `None`: it is to be opened.
    pub(crate) position: Option<Sequence>,
    /// It was open before.
    pub(crate) was_open: bool,
    /// What the row of the position said.
    pub(crate) last: Option<Row>,
    /// The state of a store without numbers.
    pub(crate) state: (u64, Sequence),
    pub(crate) is_reading: bool,
    pub(crate) reads_again: bool,
    /// Readings that began.
    pub(crate) readings: u64,
    pub(crate) failures: u32,
    /// The last one was not answered for long.
    pub(crate) hangs: bool,
}

/// What the network does to it; it outlasts the process.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Copy)]
pub(crate) struct Wires {
    pub(crate) has_sql: bool,
    /// Without SQL: it is told so at once.
    pub(crate) is_refused: bool,
    pub(crate) is_slow: bool,
    pub(crate) sql_since: Micros,
    /// The same, and its answers took less than the bound.
    pub(crate) quick_since: Micros,
    /// It is not answered, and not refused.
    pub(crate) hangs: bool,
    /// Since when it is so with its way to the store.
    pub(crate) so_since: Micros,
    pub(crate) sql_spell: u64,
    pub(crate) has_redis: bool,
    pub(crate) redis_spell: u64,
    pub(crate) server: usize,
    /// Its wall clock is ahead by this.
    pub(crate) clock: Micros,
}

pub(crate) struct Replica<R> {
    pub(crate) life: u32,
    pub(crate) started: Micros,
    pub(crate) machine: Coherence<R>,
    pub(crate) trust: Trust<R>,
    pub(crate) seen: Seen<R>,
    pub(crate) touched: Touched,
    pub(crate) entries: [Option<Entry>; TOKENS],
    pub(crate) feed: Feed,
    pub(crate) wires: Wires,
    pub(crate) publisher: u64,
    pub(crate) number: u64,
    pub(crate) connection: Option<u64>,
    pub(crate) connected_since: Micros,
    pub(crate) attempt: u64,
    pub(crate) last_beat: Micros,
    /// A message to it was lost in a connection that went on.
    pub(crate) has_lost: bool,
    pub(crate) losses: Vec<Loss>,
    /// Publishers of whom something came since it connected.
    pub(crate) heard: BTreeSet<u64>,
    /// When the store last answered a look-up, and when one last failed.
    pub(crate) answered: Micros,
    pub(crate) failed: Micros,
    /// Its readings tell it of every going back of the store up to this one.
    pub(crate) knows_past: u64,
    /// Since then numbers may mean two things to it: a lost commit may have been told.
    pub(crate) strange_since: Option<Micros>,
}

/// Spreads, as a hash does.
fn token_hash(token: usize) -> u64 {
    (token as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40
}

fn user_hash(user: usize) -> u64 {
    (user as u64 + 1000).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40
}

/// Of a token and its user.
pub(crate) fn hashes(token: usize) -> [u64; 2] {
    [token_hash(token), user_hash(user_of(token))]
}

impl Wires {
    pub(crate) fn new(clock: Micros) -> Self {
        Self {
            has_sql: true,
            is_refused: false,
            is_slow: false,
            sql_since: 0,
            quick_since: 0,
            hangs: false,
            so_since: 0,
            sql_spell: 0,
            has_redis: true,
            redis_spell: 0,
            server: 0,
            clock,
        }
    }
}

impl<R: Rules> Replica<R> {
    pub(crate) fn new(life: u32, publisher: u64, wires: Wires) -> Self {
        Self {
            life,
            started: 0,
            machine: Coherence::new(),
            trust: Trust::new(duration(BOUND)),
            seen: Seen::with_places(PLACES),
            touched: Touched::with_marks(PLACES),
            entries: [None; TOKENS],
            feed: Feed::default(),
            wires,
            publisher,
            number: 0,
            connection: None,
            connected_since: 0,
            attempt: 0,
            last_beat: 0,
            has_lost: false,
            losses: Vec::new(),
            heard: BTreeSet::new(),
            answered: 0,
            failed: 0,
            knows_past: 0,
            strange_since: None,
        }
    }

    pub(crate) fn life(&self, replica: usize) -> Life {
        Life { replica, life: self.life }
    }

    /// Its wall clock.
    pub(crate) fn clock(&self, now: Micros) -> UnixSeconds {
        wall(now + self.wires.clock)
    }

    /// Whether it can ask Redis.
    pub(crate) fn asks_redis(&self) -> bool {
        self.connection.is_some() && self.wires.has_redis
    }

    /// As the server does it on its local cache.
    pub(crate) fn carry_out(&mut self, command: Command, now: UnixSeconds) {
        match command {
            Command::Drop(change, number) => self.drop(change, number, now),
            Command::Begin(after) => self.seen.begin(after),
            Command::TakeBack => self.seen.take_back(now),
            Command::Void(known) => {
                match known {
                    Some(known) => self.seen.begin(known),
                    None => self.seen.take_back(now),
                }
                self.touched.mark_all();
                self.entries = [None; TOKENS];
            }
            Command::Prove(moment) => self.trust.prove(moment),
            Command::Carry(moment) => self.trust.carry(moment),
            Command::Doubt(moment) => self.trust.doubt(moment),
            Command::ReadNow | Command::Confirm => {}
        }
    }

    pub(crate) fn drop(&mut self, change: Change, number: Option<Sequence>, now: UnixSeconds) {
        let (hash, first, step) = match change {
            Change::Credential(of) => {
                let token = (0..TOKENS).find(|token| of == digest(*token)).unwrap();
                (token_hash(token), token, TOKENS)
            }
            Change::User(of) => {
                let user = (0..USERS).find(|user| of == user_id(*user)).unwrap();
                (user_hash(user), user, USERS)
            }
            Change::Everything | Change::Something => return,
        };
        self.seen.mark(hash, number, now);
        self.touched.mark(hash);
        for token in (first..TOKENS).step_by(step) {
            self.entries[token] = None;
        }
    }

    /// Whether the store's own proof would not be enough.
    pub(crate) fn is_carried(&self, confirmed: Monotonic, now: Monotonic) -> bool {
        self.trust.last_proof(confirmed).plus(duration(BOUND)) <= now
    }

    pub(crate) fn is_overtaken(&self, load: &Load, since: Moment) -> bool {
        R::OVERTAKEN_FILLS_REFUSED && hashes(load.token).iter().any(|hash| self.touched.since(*hash, since))
    }
}
