//! Replicas, a store, servers of a stream, and a network between them that delays, loses, reorders and cuts.
//!
//! What decides is the server's own code: [`Coherence`], [`Trust`], [`Seen`], [`Touched`], [`acknowledged`]. The store and
//! the stream's servers are models: they answer at one moment, in order of time, and forget what the schedule says.
//!
//! Times are microseconds.

use super::random::Random;
use doorward::cache::change::{Change, Changes, Sequence};
use doorward::cache::coherence::rules::Rules;
use doorward::cache::coherence::seen::Seen;
use doorward::cache::coherence::trust::Trust;
use doorward::cache::coherence::{Coherence, Command, Event, Publisher, acknowledged};
use doorward::cache::touched::{Moment, Touched};
use doorward::clock::{Monotonic, UnixSeconds};
use doorward::identity::{Digest, UserId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

pub(crate) type Micros = u64;
const MILLI: Micros = 1000;
const SECOND: Micros = 1000 * MILLI;

const BOUND: Micros = SECOND;
const STALE: Micros = 3 * SECOND;
const TOKENS: usize = 24;
const USERS: usize = 8;
/// Between two readings, and between two heartbeats.
const INTERVAL: Micros = 100 * MILLI;
/// Between two messages that say nothing but that their publisher is there.
const PRESENCE: Micros = 500 * MILLI;
/// Without a heartbeat for this long a connection is given up.
const SILENCE: Micros = 400 * MILLI;
/// A question to the store is given up after this.
const CONFIRM_TIME: Micros = 250 * MILLI;
const STORE_TIME: Micros = 500 * MILLI;
const STREAM_TIME: Micros = 100 * MILLI;
/// A replica that had the store for this long has it.
const SETTLED: Micros = 2 * SECOND;
const PLACES: usize = 256;

fn duration(micros: Micros) -> Duration {
    Duration::from_micros(micros)
}

fn monotonic(micros: Micros) -> Monotonic {
    Monotonic(0).plus(duration(micros))
}

fn micros(moment: Monotonic) -> Micros {
    moment.0 / 1000
}

/// How a schedule is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) replicas: usize,
    pub(crate) length: Micros,
}

/// A token that was accepted and should not have been.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) claim: &'static str,
    pub(crate) detail: String,
}

/// What happened, so that a schedule in which nothing happens is seen.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) accepted: u64,
    pub(crate) carried: u64,
    pub(crate) stale: u64,
    pub(crate) shared: u64,
    pub(crate) refused: u64,
    pub(crate) revoked: u64,
    pub(crate) overtaken: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.carried += other.carried;
        self.stale += other.stale;
        self.shared += other.shared;
        self.refused += other.refused;
        self.revoked += other.revoked;
        self.overtaken += other.overtaken;
    }
}

/// What is on its way.
enum Step {
    /// The replica's turn to read the store.
    ReadDue {
        replica: usize,
        life: u32,
    },
    ReadAtStore {
        replica: usize,
        life: u32,
        asked: Micros,
    },
    ReadAnswer {
        replica: usize,
        life: u32,
        asked: Micros,
        changes: Changes,
        newest: Sequence,
    },
    ReadFailed {
        replica: usize,
        life: u32,
    },
    /// All entries of the replica are asked for at once.
    ConfirmAtStore {
        replica: usize,
        life: u32,
        began: Micros,
        moment: Moment,
    },
    ConfirmAnswer {
        replica: usize,
        life: u32,
        began: Micros,
        moment: Moment,
        /// Tokens that are good. `None`: no answer in time.
        good: Option<Vec<bool>>,
    },
    BeatDue {
        replica: usize,
        life: u32,
    },
    BeatAtServer {
        replica: usize,
        connection: u64,
        sent: Micros,
    },
    Arrives {
        replica: usize,
        connection: u64,
        message: Message,
    },
    /// The replica's turn to get a request.
    Request {
        replica: usize,
        life: u32,
    },
    ValueAtServer {
        load: Load,
    },
    ValueAnswer {
        load: Load,
        value: Option<Value>,
    },
    RowAtStore {
        load: Load,
    },
    RowAnswer {
        load: Load,
        as_of: Sequence,
        is_good: bool,
    },
    RowFailed {
        load: Load,
    },
    FillAtServer {
        replica: usize,
        server: usize,
        token: usize,
        value: Value,
    },
    RevokeDue,
    CommitAtStore {
        act: Act,
    },
    CommitAnswer {
        act: Act,
        changes: Changes,
    },
    PublishAtServer {
        act: Act,
        changes: Changes,
        committed: Micros,
        number: u64,
        server: usize,
    },
    PublishAnswer {
        act: Act,
        committed: Micros,
        told: Option<usize>,
        published: Micros,
    },
    Acknowledge {
        act: Act,
        told: Option<usize>,
        published: Micros,
    },
    /// The replica's turn to say that it is there.
    PresenceDue {
        replica: usize,
        life: u32,
    },
    PresenceAtServer {
        replica: usize,
        life: u32,
        number: u64,
        server: usize,
    },
    Fault,
    SqlBack {
        replica: usize,
        spell: u64,
    },
    RedisBack {
        replica: usize,
        spell: u64,
    },
    Connected {
        replica: usize,
        life: u32,
        attempt: u64,
    },
    ReadsOften {
        replica: usize,
        life: u32,
    },
}

#[derive(Clone)]
enum Message {
    Beat { sent: Micros },
    Changes { publisher: u64, number: u64, changes: Changes },
}

/// What a server holds of a token.
#[derive(Clone, Copy)]
struct Value {
    as_of: Sequence,
    read: Micros,
    /// The token is gone as of that number.
    is_tombstone: bool,
}

/// A look-up under way.
#[derive(Clone, Copy)]
struct Load {
    replica: usize,
    life: u32,
    token: usize,
    moment: Moment,
    began: Micros,
    server: usize,
}

/// Somebody revokes.
#[derive(Clone, Copy)]
struct Act {
    replica: usize,
    life: u32,
    what: What,
    /// A command beside the replica, which is gone afterwards.
    command: Option<u64>,
}

#[derive(Clone, Copy)]
enum What {
    Token(usize),
    User(usize),
    /// Something that voids nobody.
    Harmless(usize),
}

/// The store.
#[derive(Default)]
struct Store {
    log: Vec<Change>,
    pruned: u64,
    /// Whether its changes have numbers.
    is_numbered: bool,
    token_revoked: Vec<bool>,
    user_revoked: Vec<bool>,
}

/// A server of the stream and of shared values.
#[derive(Default)]
struct Server {
    values: BTreeMap<usize, Value>,
    subscribers: BTreeMap<(usize, u64), Micros>,
}

struct Entry {
    confirmed: Monotonic,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Replica<R> {
    life: u32,
    machine: Coherence<R>,
    trust: Trust<R>,
    seen: Seen<R>,
    touched: Touched,
    entries: BTreeMap<usize, Entry>,
    position: u64,
    has_begun: bool,
    is_reading: bool,
    reads_again: bool,
    publisher: u64,
    number: u64,
    has_sql: bool,
    sql_since: Micros,
    /// The same, and its answers took less than the bound.
    quick_since: Micros,
    sql_spell: u64,
    is_slow: bool,
    has_redis: bool,
    redis_spell: u64,
    server: usize,
    connection: Option<u64>,
    connected_since: Micros,
    attempt: u64,
    last_beat: Micros,
    /// A message to it was lost in a connection that went on.
    lost: bool,
    losses: Vec<Loss>,
    /// Publishers of whom something came since it connected.
    heard: BTreeSet<u64>,
}

/// A message that was lost in a connection that went on.
struct Loss {
    publisher: u64,
    number: u64,
    /// Its numbers tell that something is missing only if something came of it before.
    was_heard: bool,
    changes: Changes,
    /// When something came by which it could be noticed.
    noticed: Option<Micros>,
}

/// When a revocation was acknowledged.
#[derive(Clone, Copy)]
struct Revoked {
    at: Micros,
    /// The server that told the others, and when.
    told: Option<usize>,
    published: Micros,
}

pub(crate) struct World<R> {
    random: Random,
    plan: Plan,
    now: Micros,
    steps: BinaryHeap<Reverse<(Micros, u64)>>,
    what: BTreeMap<u64, Step>,
    count: u64,
    connections: u64,
    store: Store,
    servers: Vec<Server>,
    primary: usize,
    replicas: Vec<Replica<R>>,
    tokens: Vec<Option<Revoked>>,
    users: Vec<Option<Revoked>>,
    tally: Tally,
    violation: Option<Violation>,
    commands: Vec<Command>,
}

fn digest(token: usize) -> Digest {
    let mut bytes = [0; 32];
    bytes[0] = u8::try_from(token).unwrap();
    Digest(bytes)
}

fn user_id(user: usize) -> UserId {
    UserId(i64::try_from(user).unwrap())
}

/// As good as a clock that counts seconds.
fn seconds(now: Micros) -> UnixSeconds {
    UnixSeconds(now.cast_signed())
}

fn user_of(token: usize) -> usize {
    token % USERS
}

/// Spreads, as a hash does.
fn token_hash(token: usize) -> u64 {
    (token as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40
}

fn user_hash(user: usize) -> u64 {
    (user as u64 + 1000).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40
}

impl<R: Rules> Replica<R> {
    fn new(publisher: u64) -> Self {
        Self {
            life: 0,
            machine: Coherence::new(),
            trust: Trust::new(duration(BOUND)),
            seen: Seen::with_places(PLACES),
            touched: Touched::with_marks(PLACES),
            entries: BTreeMap::new(),
            position: 0,
            has_begun: false,
            is_reading: false,
            reads_again: false,
            publisher,
            number: 0,
            has_sql: true,
            sql_since: 0,
            quick_since: 0,
            sql_spell: 0,
            is_slow: false,
            has_redis: true,
            redis_spell: 0,
            server: 0,
            connection: None,
            connected_since: 0,
            attempt: 0,
            last_beat: 0,
            lost: false,
            losses: Vec::new(),
            heard: BTreeSet::new(),
        }
    }

    /// As the server does it on its local cache.
    fn carry_out(&mut self, command: Command, now: Micros, reads_now: &mut bool) {
        match command {
            Command::Drop(change, number) => self.drop(change, number),
            Command::Begin(after) => self.seen.begin(after),
            Command::TakeBack => self.seen.take_back(seconds(now)),
            Command::Void(known) => {
                if let Some(known) = known {
                    self.seen.begin(known);
                }
                self.touched.mark_all();
                self.entries.clear();
            }
            Command::Prove(moment) => self.trust.prove(moment),
            Command::Carry(moment) => self.trust.carry(moment),
            Command::Doubt(moment) => self.trust.doubt(moment),
            Command::ReadNow => *reads_now = true,
            Command::Confirm => {}
        }
    }

    fn drop(&mut self, change: Change, number: Option<Sequence>) {
        for token in 0..TOKENS {
            let user = user_of(token);
            let hash = match change {
                Change::Credential(of) if of == digest(token) => token_hash(token),
                Change::User(of) if of == user_id(user) => user_hash(user),
                _ => continue,
            };
            self.seen.mark(hash, number, UnixSeconds(0));
            self.touched.mark(hash);
            self.entries.remove(&token);
        }
    }

    /// Takes in what the store said of all tokens at once.
    fn confirm(&mut self, began: Micros, moment: Moment, good: Option<&[bool]>) {
        let Some(good) = good else { return };
        let confirmed = monotonic(began);
        self.entries.retain(|token, entry| good[*token] || entry.confirmed >= confirmed);
        for (token, entry) in &mut self.entries {
            let is_touched = self.touched.since(token_hash(*token), moment)
                || self.touched.since(user_hash(user_of(*token)), moment);
            if !is_touched {
                entry.confirmed = entry.confirmed.max(confirmed);
            }
        }
    }

    /// Whether the store's own proof would not be enough.
    fn is_carried(&self, confirmed: Monotonic, now: Monotonic) -> bool {
        self.trust.last_proof(confirmed).plus(duration(BOUND)) <= now
    }

    fn is_overtaken(&self, load: &Load) -> bool {
        let user = user_hash(user_of(load.token));
        R::OVERTAKEN_FILLS_REFUSED
            && (self.touched.since(token_hash(load.token), load.moment)
                || self.touched.since(user, load.moment))
    }
}

impl<R: Rules> World<R> {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut world = Self {
            random: Random::new(plan.seed),
            plan,
            now: 10 * SECOND,
            steps: BinaryHeap::new(),
            what: BTreeMap::new(),
            count: 0,
            connections: 0,
            store: Store {
                is_numbered: !plan.seed.is_multiple_of(5),
                token_revoked: vec![false; TOKENS],
                user_revoked: vec![false; USERS],
                ..Store::default()
            },
            servers: vec![Server::default()],
            primary: 0,
            replicas: (0..plan.replicas).map(|number| Replica::new(number as u64 + 1)).collect(),
            tokens: vec![None; TOKENS],
            users: vec![None; USERS],
            tally: Tally::default(),
            violation: None,
            commands: Vec::new(),
        };
        for replica in 0..plan.replicas {
            world.start(replica);
        }
        world.after(50 * MILLI, Step::Fault);
        world.after(200 * MILLI, Step::RevokeDue);
        world
    }

    /// Runs the schedule to its end, or to what must not happen.
    pub(crate) fn run(mut self) -> Result<Tally, Violation> {
        let end = self.now + self.plan.length;
        while let Some(Reverse((at, number))) = self.steps.pop() {
            if at > end {
                break;
            }
            self.now = at;
            let step = self.what.remove(&number).unwrap();
            self.step(step);
            if let Some(violation) = self.violation {
                return Err(violation);
            }
        }
        Ok(self.tally)
    }

    fn after(&mut self, wait: Micros, step: Step) {
        self.count += 1;
        self.what.insert(self.count, step);
        self.steps.push(Reverse((self.now + wait, self.count)));
    }

    /// One way to the store or back.
    fn store_latency(&mut self, replica: usize) -> Micros {
        if self.replicas[replica].is_slow && self.random.once_in(3) {
            self.random.between(200 * MILLI, 2 * SECOND)
        } else {
            self.latency()
        }
    }

    /// One way through the network.
    fn latency(&mut self) -> Micros {
        if self.random.once_in(8) {
            self.random.between(MILLI, 150 * MILLI)
        } else {
            self.random.between(100, 3 * MILLI)
        }
    }

    fn start(&mut self, number: usize) {
        let (life, publisher) = (self.replicas[number].life + 1, self.random.next());
        let old = &self.replicas[number];
        let (has_sql, has_redis) = (old.has_sql, old.has_redis);
        let (sql_spell, redis_spell) = (old.sql_spell, old.redis_spell);
        let (server, is_slow) = (old.server, old.is_slow);
        let (sql_since, quick_since) = (old.sql_since.max(self.now), old.quick_since.max(self.now));
        self.replicas[number] = Replica {
            life,
            has_sql,
            sql_since,
            quick_since,
            sql_spell,
            is_slow,
            has_redis,
            redis_spell,
            server,
            ..Replica::new(publisher)
        };
        let reads = self.random.below(INTERVAL);
        self.after(reads, Step::ReadsOften { replica: number, life });
        let beats = self.random.below(INTERVAL);
        self.after(beats, Step::BeatDue { replica: number, life });
        let says = self.random.below(PRESENCE);
        self.after(says, Step::PresenceDue { replica: number, life });
        let asked = self.random.below(INTERVAL);
        self.after(asked, Step::Request { replica: number, life });
        self.connect(number);
    }

    fn connect(&mut self, number: usize) {
        let primary = self.primary;
        let replica = &mut self.replicas[number];
        replica.attempt += 1;
        let (life, attempt) = (replica.life, replica.attempt);
        replica.server = primary;
        let wait = self.random.between(20 * MILLI, 300 * MILLI);
        self.after(wait, Step::Connected { replica: number, life, attempt });
    }

    fn lose_stream(&mut self, number: usize) {
        self.replicas[number].connection = None;
        self.on(number, &Event::StreamLost);
        self.connect(number);
    }

    fn on(&mut self, number: usize, event: &Event<'_>) {
        let mut reads_now = false;
        let now = self.now;
        let replica = &mut self.replicas[number];
        replica.machine.on(event, monotonic(now), &mut self.commands);
        let confirms = self.commands.contains(&Command::Confirm);
        for command in self.commands.drain(..) {
            replica.carry_out(command, now, &mut reads_now);
        }
        if confirms {
            let (life, moment) = (replica.life, replica.touched.now());
            let wait = self.store_latency(number);
            self.after(wait, Step::ConfirmAtStore { replica: number, life, began: now, moment });
        }
        let replica = &self.replicas[number];
        if reads_now {
            let life = replica.life;
            self.after(0, Step::ReadDue { replica: number, life });
        }
    }

    fn is_alive(&self, replica: usize, life: u32) -> bool {
        self.replicas[replica].life == life
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::ReadsOften { replica, life } if self.is_alive(replica, life) => {
                self.after(0, Step::ReadDue { replica, life });
                self.after(INTERVAL, Step::ReadsOften { replica, life });
            }
            // One reading after the other.
            Step::ReadDue { replica, life }
                if self.is_alive(replica, life) && self.replicas[replica].is_reading =>
            {
                self.replicas[replica].reads_again = true;
            }
            Step::ReadDue { replica, life } if self.is_alive(replica, life) => {
                self.replicas[replica].is_reading = true;
                let (asked, wait) = (self.now, self.store_latency(replica));
                self.after(wait, Step::ReadAtStore { replica, life, asked });
            }
            Step::ReadAtStore { replica, life, asked } if self.is_alive(replica, life) => {
                self.read_at_store(replica, life, asked);
            }
            Step::ReadAnswer { replica, life, asked, changes, newest } if self.is_alive(replica, life) => {
                self.read_ends(replica, life);
                self.read_answer(replica, asked, &changes, newest);
            }
            Step::ReadFailed { replica, life } if self.is_alive(replica, life) => {
                self.read_ends(replica, life);
                self.replicas[replica].trust.store_failed(monotonic(self.now));
            }
            Step::ConfirmAtStore { replica, life, began, moment } => {
                let good = |token: usize| {
                    !self.store.token_revoked[token] && !self.store.user_revoked[user_of(token)]
                };
                let answer = self.replicas[replica].has_sql.then(|| (0..TOKENS).map(good).collect());
                let latency = self.store_latency(replica);
                let left = (began + CONFIRM_TIME).saturating_sub(self.now);
                let good = answer.filter(|_| latency <= left);
                let answer = Step::ConfirmAnswer { replica, life, began, moment, good };
                self.after(latency.min(left), answer);
            }
            Step::ConfirmAnswer { replica, life, began, moment, good } if self.is_alive(replica, life) => {
                self.replicas[replica].confirm(began, moment, good.as_deref());
                self.on(replica, &Event::Confirmed { began: monotonic(began) });
            }
            Step::BeatDue { replica, life } if self.is_alive(replica, life) => self.beat(replica, life),
            Step::BeatAtServer { replica, connection, sent } => {
                let server = self.replicas[replica].server;
                self.deliver(server, replica, connection, Message::Beat { sent });
            }
            Step::Arrives { replica, connection, message } => self.arrives(replica, connection, message),
            Step::Request { replica, life } if self.is_alive(replica, life) => {
                let wait = self.random.between(5 * MILLI, 250 * MILLI);
                self.after(wait, Step::Request { replica, life });
                let token = self.random.index(TOKENS);
                self.request(replica, token);
            }
            Step::ValueAtServer { load } => {
                let value = self.servers[load.server].values.get(&load.token).copied();
                let value = value.filter(|value| !value.is_tombstone);
                let wait = self.latency();
                self.after(wait, Step::ValueAnswer { load, value });
            }
            Step::ValueAnswer { load, value } if self.is_alive(load.replica, load.life) => {
                self.value_answer(load, value);
            }
            Step::RowAtStore { load } => self.row_at_store(load),
            Step::RowAnswer { load, as_of, is_good } if self.is_alive(load.replica, load.life) => {
                self.row_answer(load, as_of, is_good);
            }
            Step::RowFailed { load } if self.is_alive(load.replica, load.life) => self.row_failed(load),
            Step::FillAtServer { replica, server, token, value } => {
                let is_reached = self.replicas[replica].has_redis;
                let held = self.servers[server].values.get(&token);
                if is_reached && held.is_none_or(|held| held.as_of <= value.as_of) {
                    self.servers[server].values.insert(token, value);
                }
            }
            Step::RevokeDue => self.revoke(),
            Step::CommitAtStore { act } => self.commit(act),
            Step::CommitAnswer { act, changes } => self.committed(act, changes),
            Step::PublishAtServer { act, changes, committed, number, server } => {
                self.publish(act, &changes, committed, number, server);
            }
            Step::PublishAnswer { act, committed, told, published } => {
                let at = acknowledged::<R>(monotonic(committed), told.is_some(), duration(BOUND));
                let wait = micros(at).saturating_sub(self.now);
                self.after(wait, Step::Acknowledge { act, told, published });
            }
            Step::Acknowledge { act, told, published } if self.is_alive(act.replica, act.life) => {
                self.acknowledge(act, told, published);
            }
            Step::PresenceDue { replica, life } if self.is_alive(replica, life) => {
                self.after(PRESENCE, Step::PresenceDue { replica, life });
                let of = &mut self.replicas[replica];
                if of.connection.is_some() && of.has_redis {
                    of.number += 1;
                    let (number, server) = (of.number, of.server);
                    let wait = self.latency();
                    self.after(wait, Step::PresenceAtServer { replica, life, number, server });
                }
            }
            Step::PresenceAtServer { replica, life, number, server }
                if self.is_alive(replica, life) && self.replicas[replica].has_redis =>
            {
                self.tell(self.replicas[replica].publisher, number, server, &Changes::none());
            }
            Step::Fault => self.fault(),
            Step::SqlBack { replica, spell } if self.replicas[replica].sql_spell == spell => {
                let now = self.now;
                let replica = &mut self.replicas[replica];
                if !replica.has_sql {
                    replica.sql_since = now;
                }
                (replica.has_sql, replica.is_slow, replica.quick_since) = (true, false, now);
            }
            Step::RedisBack { replica, spell } if self.replicas[replica].redis_spell == spell => {
                self.replicas[replica].has_redis = true;
            }
            Step::Connected { replica, life, attempt }
                if self.is_alive(replica, life) && self.replicas[replica].attempt == attempt =>
            {
                self.connected(replica);
            }
            // Of a process that ended, or of a fault that was replaced by another one.
            _ => {}
        }
    }

    // --- readings

    fn read_at_store(&mut self, replica: usize, life: u32, asked: Micros) {
        if !self.replicas[replica].has_sql {
            self.after(STORE_TIME, Step::ReadFailed { replica, life });
            return;
        }
        let newest = Sequence(self.store.log.len() as u64);
        let position = Sequence(self.replicas[replica].position);
        let changes = if !self.store.is_numbered {
            let changed = if position == newest { vec![] } else { vec![Change::Something] };
            Changes::unnumbered(changed)
        } else if position.0 < self.store.pruned || position > newest {
            Changes::everything(position, newest)
        } else {
            Changes::numbered(position, self.store.log[usize::try_from(position.0).unwrap()..].to_vec())
        };
        let wait = self.store_latency(replica);
        self.after(wait, Step::ReadAnswer { replica, life, asked, changes, newest });
    }

    fn read_ends(&mut self, number: usize, life: u32) {
        let replica = &mut self.replicas[number];
        replica.is_reading = false;
        if std::mem::take(&mut replica.reads_again) {
            self.after(0, Step::ReadDue { replica: number, life });
        }
    }

    fn read_answer(&mut self, number: usize, asked: Micros, changes: &Changes, newest: Sequence) {
        let replica = &mut self.replicas[number];
        if !replica.has_sql {
            return;
        }
        let after = self.store.is_numbered.then_some(newest);
        let is_first = !std::mem::replace(&mut replica.has_begun, true);
        replica.position = newest.0;
        if is_first {
            // The first reading of this life tells where it begins.
            self.on(number, &Event::ReadingBegins { after });
            return;
        }
        replica.trust.store_answered();
        replica.losses.retain(|loss| loss.changes.last > Some(newest));
        self.on(number, &Event::Read { asked: monotonic(asked), changes, newest: after });
    }

    // --- the stream

    fn connected(&mut self, number: usize) {
        if !self.replicas[number].has_redis {
            self.connect(number);
            return;
        }
        self.connections += 1;
        let (connection, now, server) = (self.connections, self.now, self.primary);
        let replica = &mut self.replicas[number];
        (replica.connection, replica.connected_since, replica.server) = (Some(connection), now, server);
        (replica.last_beat, replica.lost) = (now, false);
        replica.losses.clear();
        replica.heard.clear();
        self.servers[server].subscribers.insert((number, connection), now);
        self.on(number, &Event::StreamOpened { connection });
    }

    fn beat(&mut self, number: usize, life: u32) {
        self.after(INTERVAL, Step::BeatDue { replica: number, life });
        let replica = &self.replicas[number];
        let Some(connection) = replica.connection else { return };
        if self.now - replica.last_beat > SILENCE {
            self.lose_stream(number);
            return;
        }
        if replica.has_redis {
            let (sent, wait) = (self.now, self.latency());
            self.after(wait, Step::BeatAtServer { replica: number, connection, sent });
        }
    }

    /// In order on each connection; nothing if the connection leads nowhere.
    fn deliver(&mut self, server: usize, number: usize, connection: u64, message: Message) {
        let wait = self.latency();
        let Some(last) = self.servers[server].subscribers.get_mut(&(number, connection)) else { return };
        if !self.replicas[number].has_redis {
            self.lose(number, connection, message, false);
            return;
        }
        let at = (self.now + wait).max(*last + 1);
        *last = at;
        self.after(at - self.now, Step::Arrives { replica: number, connection, message });
    }

    fn arrives(&mut self, number: usize, connection: u64, message: Message) {
        let replica = &mut self.replicas[number];
        // A heartbeat that was under way when its connection ended may be read late all the same.
        if !replica.has_redis {
            self.lose(number, connection, message, false);
            return;
        }
        match message {
            Message::Beat { sent } => {
                if replica.connection == Some(connection) {
                    replica.last_beat = self.now;
                }
                self.on(number, &Event::Beat { sent: monotonic(sent) });
            }
            Message::Changes { publisher, number: count, changes } => {
                if replica.connection != Some(connection) {
                    return;
                }
                if self.random.once_in(if self.plan.seed.is_multiple_of(3) { 6 } else { 60 }) {
                    // Lost, and the connection goes on; or so damaged that it cannot be trusted.
                    let is_bad = self.random.once_in(2);
                    self.lose(
                        number,
                        connection,
                        Message::Changes { publisher, number: count, changes },
                        is_bad,
                    );
                    if is_bad {
                        self.on(number, &Event::Bad);
                    }
                    return;
                }
                for loss in &mut replica.losses {
                    let is_gap = loss.was_heard && loss.publisher == publisher && loss.number < count;
                    if is_gap || loss.changes.last < changes.last {
                        loss.noticed.get_or_insert(self.now);
                    }
                }
                replica.heard.insert(publisher);
                let publisher = Publisher(publisher);
                let event = Event::Heard { connection, publisher, number: count, changes: &changes };
                self.on(number, &event);
            }
        }
    }

    fn lose(&mut self, number: usize, connection: u64, message: Message, is_bad: bool) {
        let replica = &mut self.replicas[number];
        if replica.connection != Some(connection) {
            return;
        }
        replica.lost = true;
        if let Message::Changes { publisher, number, changes } = message {
            let noticed = is_bad.then_some(self.now);
            let was_heard = replica.heard.contains(&publisher);
            replica.losses.push(Loss { publisher, number, was_heard, changes, noticed });
        }
    }

    // --- requests

    fn request(&mut self, number: usize, token: usize) {
        let now = monotonic(self.now);
        let replica = &self.replicas[number];
        if let Some(entry) = replica.entries.get(&token) {
            if replica.trust.is_believed(entry.confirmed, now, duration(STALE)) {
                let is_carried = replica.is_carried(entry.confirmed, now);
                self.tally.carried += u64::from(is_carried);
                self.accept(number, token, if is_carried { "carried" } else { "believed" });
                return;
            }
            let is_away = replica.trust.is_store_away(now) || !R::STALE_WHILE_AWAY;
            if is_away && replica.trust.is_stale_within(entry.confirmed, now, duration(STALE)) {
                self.accept_stale(number, token);
                return;
            }
        }
        let load = Load {
            replica: number,
            life: replica.life,
            token,
            moment: replica.touched.now(),
            began: self.now,
            server: replica.server,
        };
        if self.replicas[number].connection.is_some() && self.replicas[number].has_redis {
            let wait = self.latency();
            self.after(wait, Step::ValueAtServer { load });
        } else {
            let wait = self.store_latency(number);
            self.after(wait, Step::RowAtStore { load });
        }
    }

    fn value_answer(&mut self, load: Load, value: Option<Value>) {
        let replica = &mut self.replicas[load.replica];
        let hashes = [token_hash(load.token), user_hash(user_of(load.token))];
        let now = monotonic(self.now);
        if value.is_some_and(|value| replica.seen.holds(value.as_of, seconds(value.read), hashes)) {
            let confirmed = if R::VALUES_AS_OF_PROOF { replica.trust.proved() } else { now };
            let is_good = replica.trust.is_believed(confirmed, now, duration(STALE));
            if is_good && !replica.is_overtaken(&load) {
                replica.entries.insert(load.token, Entry { confirmed });
                self.tally.shared += 1;
                self.accept(load.replica, load.token, "shared");
                return;
            }
        }
        let wait = self.store_latency(load.replica);
        let replica = &self.replicas[load.replica];
        let load = Load { moment: replica.touched.now(), began: self.now, ..load };
        self.after(wait, Step::RowAtStore { load });
    }

    fn row_at_store(&mut self, load: Load) {
        if !self.replicas[load.replica].has_sql {
            self.after(STORE_TIME, Step::RowFailed { load });
            return;
        }
        let as_of = Sequence(self.store.log.len() as u64);
        let is_good = !self.store.token_revoked[load.token] && !self.store.user_revoked[user_of(load.token)];
        let wait = self.store_latency(load.replica);
        self.after(wait, Step::RowAnswer { load, as_of, is_good });
    }

    fn row_answer(&mut self, load: Load, as_of: Sequence, is_good: bool) {
        if !self.replicas[load.replica].has_sql {
            self.row_failed(load);
            return;
        }
        let now = monotonic(self.now);
        let replica = &mut self.replicas[load.replica];
        if replica.is_overtaken(&load) {
            self.tally.overtaken += 1;
            return;
        }
        if !is_good {
            replica.entries.remove(&load.token);
            self.tally.refused += 1;
            return;
        }
        let confirmed = monotonic(load.began);
        if !replica.trust.is_answer(confirmed, now) {
            return;
        }
        let is_newer = replica.entries.get(&load.token).is_none_or(|held| held.confirmed <= confirmed);
        if is_newer {
            replica.entries.insert(load.token, Entry { confirmed });
        }
        self.accept(load.replica, load.token, "read");
        if !self.store.is_numbered {
            return;
        }
        let value = Value { as_of, read: load.began, is_tombstone: false };
        let late = if self.random.once_in(10) { self.random.below(3 * SECOND) } else { 0 };
        let wait = late + self.latency();
        let (replica, server, token) = (load.replica, load.server, load.token);
        self.after(wait, Step::FillAtServer { replica, server, token, value });
    }

    fn row_failed(&mut self, load: Load) {
        let now = monotonic(self.now);
        let replica = &self.replicas[load.replica];
        replica.trust.store_failed(now);
        let held = replica.entries.get(&load.token);
        if held.is_some_and(|held| replica.trust.is_stale_within(held.confirmed, now, duration(STALE))) {
            self.accept_stale(load.replica, load.token);
        } else {
            self.tally.refused += 1;
        }
    }

    fn accept_stale(&mut self, number: usize, token: usize) {
        self.tally.stale += 1;
        self.accept(number, token, "stale");
    }

    // --- revocations

    fn revoke(&mut self) {
        let wait = self.random.between(30 * MILLI, 900 * MILLI);
        self.after(wait, Step::RevokeDue);
        let what = match self.random.below(6) {
            0..=1 => What::Token(self.random.index(TOKENS)),
            2 => What::User(self.random.index(USERS)),
            _ => What::Harmless(self.random.index(USERS)),
        };
        let replica = self.random.index(self.replicas.len());
        let life = self.replicas[replica].life;
        let wait = self.store_latency(replica);
        let command = self.random.once_in(2).then(|| self.random.next());
        self.after(wait, Step::CommitAtStore { act: Act { replica, life, what, command } });
        if self.random.once_in(40) {
            self.store.pruned = self.store.log.len() as u64;
        }
    }

    fn commit(&mut self, act: Act) {
        if !self.replicas[act.replica].has_sql || !self.is_alive(act.replica, act.life) {
            return;
        }
        let before = Sequence(self.store.log.len() as u64);
        let change = match act.what {
            What::Token(token) => {
                if std::mem::replace(&mut self.store.token_revoked[token], true) {
                    return;
                }
                Change::Credential(digest(token))
            }
            What::User(user) => {
                if std::mem::replace(&mut self.store.user_revoked[user], true) {
                    return;
                }
                Change::User(user_id(user))
            }
            What::Harmless(user) => Change::User(user_id(user)),
        };
        self.store.log.push(change);
        let wait = self.store_latency(act.replica);
        let changes = Changes::numbered(before, vec![change]);
        let changes = if self.store.is_numbered { changes } else { changes.without_numbers() };
        self.after(wait, Step::CommitAnswer { act, changes });
    }

    fn committed(&mut self, act: Act, changes: Changes) {
        if !self.is_alive(act.replica, act.life) {
            return;
        }
        let committed = self.now;
        let replica = &mut self.replicas[act.replica];
        for change in changes.changes.iter().filter(|_| act.command.is_none()) {
            replica.drop(*change, None);
        }
        if replica.connection.is_some() && replica.has_redis {
            let server = replica.server;
            let number = if act.command.is_some() {
                1
            } else {
                replica.number += 1;
                replica.number
            };
            let wait = self.latency();
            self.after(wait, Step::PublishAtServer { act, changes, committed, number, server });
        } else {
            self.after(STREAM_TIME, Step::PublishAnswer { act, committed, told: None, published: 0 });
        }
    }

    fn publish(&mut self, act: Act, changes: &Changes, committed: Micros, number: u64, server: usize) {
        let told = self.replicas[act.replica].has_redis.then_some(server);
        let published = self.now;
        if told.is_some() {
            if let (What::Token(token), Some(version)) = (act.what, changes.last) {
                let value = Value { as_of: version, read: self.now, is_tombstone: true };
                self.servers[server].values.insert(token, value);
            }
            let by = act.command.unwrap_or(self.replicas[act.replica].publisher);
            self.tell(by, number, server, changes);
        }
        let wait = self.latency();
        self.after(wait, Step::PublishAnswer { act, committed, told, published });
    }

    fn tell(&mut self, publisher: u64, number: u64, server: usize, changes: &Changes) {
        let to: Vec<_> = self.servers[server].subscribers.keys().copied().collect();
        for (replica, connection) in to {
            let message = Message::Changes { publisher, number, changes: changes.clone() };
            self.deliver(server, replica, connection, message);
        }
    }

    fn acknowledge(&mut self, act: Act, told: Option<usize>, published: Micros) {
        let revoked = Some(Revoked { at: self.now, told, published });
        match act.what {
            What::Token(token) => self.tokens[token] = revoked,
            What::User(user) => self.users[user] = revoked,
            What::Harmless(_) => return,
        }
        self.tally.revoked += 1;
    }

    // --- faults

    fn fault(&mut self) {
        let wait = self.random.between(20 * MILLI, 600 * MILLI);
        self.after(wait, Step::Fault);
        let several = 1 + self.random.index(self.replicas.len().div_ceil(2));
        let count = if self.random.once_in(3) { several } else { 1 };
        let kind = self.random.below(9);
        let first = self.random.index(self.replicas.len());
        let longest = if self.random.once_in(3) { 9 * SECOND } else { 3 * SECOND };
        let length = self.random.between(50 * MILLI, longest);
        for offset in 0..count {
            let number = (first + offset) % self.replicas.len();
            match kind {
                0..=2 => self.cut_sql(number, length, kind == 2),
                3..=5 => self.cut_redis(number, length),
                6 if self.replicas[number].connection.is_some() => self.lose_stream(number),
                7 if offset == 0 => self.start(number),
                8 if offset == 0 => self.fail_over(),
                _ => {}
            }
        }
    }

    fn cut_sql(&mut self, number: usize, length: Micros, is_only_slow: bool) {
        let replica = &mut self.replicas[number];
        replica.sql_spell += 1;
        if is_only_slow && !replica.has_sql {
            replica.sql_since = self.now;
        } else if !is_only_slow {
            replica.sql_since = Micros::MAX;
        }
        (replica.has_sql, replica.is_slow) = (is_only_slow, is_only_slow);
        replica.quick_since = Micros::MAX;
        let spell = replica.sql_spell;
        self.after(length, Step::SqlBack { replica: number, spell });
    }

    /// Both ways, without anybody being told.
    fn cut_redis(&mut self, number: usize, length: Micros) {
        let replica = &mut self.replicas[number];
        replica.redis_spell += 1;
        replica.has_redis = false;
        let spell = replica.redis_spell;
        self.after(length, Step::RedisBack { replica: number, spell });
    }

    /// Another server, which lacks what was written last. Some replicas go on with the old one.
    fn fail_over(&mut self) {
        let mut server = Server { values: self.servers[self.primary].values.clone(), ..Server::default() };
        let keeps = self.random.once_in(3);
        server.values.retain(|_, _| keeps && !self.random.once_in(3));
        self.servers.push(server);
        self.primary = self.servers.len() - 1;
        for number in 0..self.replicas.len() {
            if self.replicas[number].connection.is_some() && self.random.once_in(2) {
                self.lose_stream(number);
            }
        }
    }

    // --- claims

    fn accept(&mut self, number: usize, token: usize, how: &'static str) {
        self.tally.accepted += 1;
        let acts = [self.tokens[token], self.users[user_of(token)]];
        for revoked in acts.into_iter().flatten() {
            if let Some(claim) = self.violated(number, token, revoked, how) {
                let detail = format!(
                    "replica {number} accepted token {token} ({how}) at {} us, {} us after the acknowledgement",
                    self.now,
                    self.now - revoked.at
                );
                self.violation.get_or_insert(Violation { claim, detail });
            }
        }
    }

    fn violated(&self, number: usize, token: usize, revoked: Revoked, how: &str) -> Option<&'static str> {
        let replica = &self.replicas[number];
        let late = self.now - revoked.at;
        let named = [Change::Credential(digest(token)), Change::User(user_id(user_of(token)))];
        let is_noticed = replica.losses.iter().any(|loss| {
            let is_of_it = loss.changes.changes.iter().any(|change| named.contains(change));
            is_of_it && loss.noticed.is_some_and(|at| at + BOUND < self.now)
        });
        // While its answers take longer than the bound, the stream is believed instead.
        let since = if matches!(how, "read" | "believed") { replica.sql_since } else { replica.quick_since };
        let reaches_store = since.saturating_add(SETTLED) <= self.now;
        let was_told = revoked.told.is_some_and(|server| {
            let is_open = replica.connection.is_some() && replica.has_redis && !replica.lost;
            is_open && replica.server == server && replica.connected_since < revoked.published
        });
        if late > BOUND + STALE {
            Some("nobody accepts it later than the bound and stale_while_unreachable")
        } else if late > BOUND && reaches_store {
            Some("who reaches the store accepts it no later than the bound")
        } else if late > BOUND && was_told {
            Some("who was told accepts it no later than the bound")
        } else if how == "carried" && is_noticed {
            Some("who noticed that a message was lost does not carry on for longer than the bound")
        } else if revoked.told.is_none() && reaches_store {
            Some("where others could not be told, who reaches the store accepts it no more")
        } else {
            None
        }
    }
}
