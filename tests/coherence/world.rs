//! The world: replicas, a store, servers of a stream, and a network between them that delays, loses, reorders and cuts.

use crate::claims::{Revoked, Violation};
use crate::queue::{Life, Queue, Step, Turn};
use crate::random::Random;
use crate::redis::{Message, Server};
use crate::replica::{Replica, Wires};
use crate::scale::{
    CLOCKS_DIFFER, INTERVAL, MILLI, Micros, PRESENCE, SECOND, STORE_TIME, TOKENS, USERS, monotonic,
};
use crate::store::Store;
use doorward::cache::change::Changes;
use doorward::cache::coherence::rules::Rules;
use doorward::cache::coherence::{Command, Event};
use std::rc::Rc;

/// How a schedule is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) replicas: usize,
    pub(crate) length: Micros,
}

/// What goes wrong more often in some schedules than in others: of so many one.
pub(crate) struct Flavour {
    /// Messages that are lost while their connection goes on.
    pub(crate) loss: u64,
    /// Faults of the store, for everybody.
    pub(crate) back: u64,
}

/// What happened, so that a schedule in which nothing happens is seen.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) accepted: u64,
    pub(crate) carried: u64,
    pub(crate) stale: u64,
    pub(crate) busy: u64,
    pub(crate) shared: u64,
    pub(crate) refused: u64,
    pub(crate) revoked: u64,
    pub(crate) overtaken: u64,
    /// The store lost commits.
    pub(crate) back: u64,
    /// Acknowledged after that.
    pub(crate) after_back: u64,
    /// Accepted on the word of a past that was lost, unknowingly.
    pub(crate) lost_past: u64,
}

pub(crate) struct World<R> {
    pub(crate) random: Random,
    pub(crate) flavour: Flavour,
    end: Micros,
    pub(crate) now: Micros,
    queue: Queue,
    pub(crate) connections: u64,
    pub(crate) store: Store,
    pub(crate) servers: Vec<Server>,
    pub(crate) primary: usize,
    pub(crate) replicas: Vec<Replica<R>>,
    /// What was acknowledged, and not lost since.
    pub(crate) tokens: [Option<Revoked>; TOKENS],
    pub(crate) users: [Option<Revoked>; USERS],
    /// A token that somebody revoked last, or one of a user.
    pub(crate) last_revoked: usize,
    pub(crate) tally: Tally,
    pub(crate) violation: Option<Violation>,
    commands: Vec<Command>,
    /// Told by who has nothing to tell.
    pub(crate) nothing: Rc<Changes>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.carried += other.carried;
        self.stale += other.stale;
        self.busy += other.busy;
        self.shared += other.shared;
        self.refused += other.refused;
        self.revoked += other.revoked;
        self.overtaken += other.overtaken;
        self.back += other.back;
        self.after_back += other.after_back;
        self.lost_past += other.lost_past;
    }

    pub(crate) fn count(&mut self, how: &str) {
        self.accepted += 1;
        match how {
            "carried" => self.carried += 1,
            "stale" => self.stale += 1,
            "busy" => self.busy += 1,
            "shared" => self.shared += 1,
            _ => {}
        }
    }
}

impl<R: Rules> World<R> {
    pub(crate) fn new(plan: Plan) -> Self {
        let Plan { seed, replicas, length } = plan;
        let mut random = Random::new(seed);
        let now = 10 * SECOND;
        let flavour = Flavour {
            loss: if seed.is_multiple_of(3) { 4 } else { 60 },
            back: if seed.is_multiple_of(2) { 1 } else { 20 },
        };
        let mut replica = |_| Replica::new(0, 0, Wires::new(random.below(CLOCKS_DIFFER)));
        let replicas_at_first = (0..replicas).map(&mut replica).collect();
        let mut world = Self {
            random,
            flavour,
            end: now + length,
            now,
            queue: Queue::default(),
            connections: 0,
            store: Store::new(!seed.is_multiple_of(5)),
            servers: vec![Server::new(replicas)],
            primary: 0,
            replicas: replicas_at_first,
            tokens: [None; TOKENS],
            users: [None; USERS],
            last_revoked: 0,
            tally: Tally::default(),
            violation: None,
            commands: Vec::new(),
            nothing: Rc::new(Changes::none()),
        };
        for replica in 0..replicas {
            world.start(replica);
        }
        world.after(50 * MILLI, Step::Fault);
        world.after(200 * MILLI, Step::RevokeDue);
        world
    }

    /// Runs the schedule to its end, or to what must not happen.
    pub(crate) fn run(mut self) -> Result<Tally, Violation> {
        while let Some((at, step)) = self.queue.pop() {
            if at > self.end {
                break;
            }
            self.now = at;
            self.step(step);
            if let Some(violation) = self.violation {
                return Err(violation);
            }
        }
        Ok(self.tally)
    }

    pub(crate) fn after(&mut self, wait: Micros, step: Step) {
        self.queue.push(self.now + wait, step);
    }

    pub(crate) fn to(&mut self, wait: Micros, life: Life, turn: Turn) {
        self.after(wait, Step::To(life, turn));
    }

    /// One way through the network.
    pub(crate) fn latency(&mut self) -> Micros {
        if self.random.once_in(8) {
            self.random.between(MILLI, 150 * MILLI)
        } else {
            self.random.between(100, 3 * MILLI)
        }
    }

    /// One way to the store or back.
    pub(crate) fn store_latency(&mut self, replica: usize) -> Micros {
        if self.replicas[replica].wires.is_slow && self.random.once_in(3) {
            self.random.between(200 * MILLI, 2 * SECOND)
        } else {
            self.latency()
        }
    }

    pub(crate) fn reaches_store(&self, replica: usize) -> bool {
        self.replicas[replica].wires.has_sql && !self.store.is_away
    }

    /// When it is known that a store that is not reached gives no answer.
    pub(crate) fn refusal(&mut self, replica: usize, asked: Micros) -> Micros {
        let late = (asked + STORE_TIME).saturating_sub(self.now);
        if self.replicas[replica].wires.is_refused { self.latency().min(late) } else { late }
    }

    /// A new process where there was one.
    pub(crate) fn start(&mut self, number: usize) {
        let old = &self.replicas[number];
        let (life, mut wires) = (old.life + 1, old.wires);
        wires.sql_since = wires.sql_since.max(self.now);
        wires.quick_since = wires.quick_since.max(self.now);
        let publisher = self.random.next();
        let mut replica = Replica::new(life, publisher, wires);
        replica.started = self.now;
        self.replicas[number] = replica;
        let life = Life { replica: number, life };
        let turns = [
            (Turn::ReadDue { readings: 0 }, INTERVAL),
            (Turn::BeatDue, INTERVAL),
            (Turn::PresenceDue, PRESENCE),
            (Turn::Request, INTERVAL),
        ];
        for (turn, within) in turns {
            let wait = self.random.below(within);
            self.to(wait, life, turn);
        }
        self.connect(number);
    }

    /// Tells the state machine of a replica, and does what it says.
    pub(crate) fn on(&mut self, number: usize, event: &Event<'_>) {
        let replica = &mut self.replicas[number];
        replica.machine.on(event, monotonic(self.now), &mut self.commands);
        let clock = replica.clock(self.now);
        let (mut reads_now, mut confirms) = (false, false);
        for command in self.commands.drain(..) {
            reads_now |= command == Command::ReadNow;
            confirms |= command == Command::Confirm;
            replica.carry_out(command, clock);
        }
        if reads_now {
            self.read_now(number);
        }
        if confirms {
            self.confirm(number);
        }
    }

    pub(crate) fn is_alive(&self, life: Life) -> bool {
        self.replicas[life.replica].life == life.life
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::To(life, turn) if self.is_alive(life) => self.turn(life, turn),
            Step::To(..) => {}
            Step::BeatAtServer { replica, connection, sent } => {
                let server = self.replicas[replica].wires.server;
                self.deliver(server, replica, connection, Message::Beat { sent });
            }
            Step::Arrives { replica, connection, message } => self.arrives(replica, connection, message),
            Step::ValueAtServer(load) => self.value_at_server(load),
            Step::RowAtStore(load) => self.row_at_store(load),
            Step::FillAtServer { replica, server, token, lease, value } => {
                if self.replicas[replica].wires.has_redis {
                    self.servers[server].fill(token, self.now, lease, value);
                }
            }
            Step::RevokeDue => self.revoke(),
            Step::CommitAtStore(act) => self.commit(act),
            Step::PublishAtServer { act, told } => self.publish(act, told),
            Step::Fault => self.fault(),
            Step::SqlBack { replica, spell } => self.sql_back(replica, spell),
            Step::RedisBack { replica, spell } => {
                let wires = &mut self.replicas[replica].wires;
                wires.has_redis |= wires.redis_spell == spell;
            }
            Step::StoreBack => self.store_back(),
        }
    }

    fn turn(&mut self, life: Life, turn: Turn) {
        match turn {
            Turn::ReadDue { readings } => self.read_due(life, readings),
            Turn::ReadAtStore { asked } => self.read_at_store(life, asked),
            Turn::ReadAnswer(answer) => self.read_answer(life, &answer),
            Turn::ReadFailed { asked } => self.read_failed(life, asked),
            Turn::Patience { readings } => self.patience(life, readings),
            Turn::ConfirmAtStore(confirming) => self.confirm_at_store(life, confirming),
            Turn::Confirmed { confirming, good } => self.confirmed(life, confirming, good),
            Turn::BeatDue => self.beat(life),
            Turn::PresenceDue => self.be_present(life),
            Turn::PresenceAtServer { number, server } => self.presence_at_server(life, number, server),
            Turn::Connected { attempt } => self.connected(life, attempt),
            Turn::Request => self.request(life),
            Turn::ValueAnswer { load, value, lease } => self.value_answer(load, value, lease),
            Turn::RowAnswer { load, as_of, commit, is_good } => self.row_answer(load, as_of, commit, is_good),
            Turn::RowFailed(load) => self.row_failed(load),
            Turn::CommitAnswer { act, told } => self.committed(act, told),
            Turn::PublishAnswer { act, told } => self.published(act, told),
            Turn::Acknowledge { act, told } => self.acknowledge(act, &told),
        }
    }
}
