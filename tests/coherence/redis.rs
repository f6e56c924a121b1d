//! Servers of the stream and of shared values, and the connections to them.

use crate::lookup::Lease;
use crate::queue::{Life, Step, Turn};
use crate::scale::{INTERVAL, LEASE_TIME, MILLI, Micros, PRESENCE, SILENCE, TOKENS, monotonic};
use crate::world::World;
use doorward::cache::change::{Change, Changes, Sequence};
use doorward::cache::coherence::rules::Rules;
use doorward::cache::coherence::{Event, Publisher};
use doorward::clock::UnixSeconds;
use std::rc::Rc;

#[derive(Clone)]
pub(crate) enum Message {
    Beat { sent: Micros },
    Changes(Published),
}

/// What a process tells all others.
#[derive(Clone)]
pub(crate) struct Published {
    pub(crate) publisher: u64,
    pub(crate) number: u64,
    pub(crate) changes: Rc<Changes>,
    /// `None`: it says only that its publisher is there.
    pub(crate) commit: Option<u64>,
}

/// What a server holds of a token.
#[derive(Clone, Copy)]
pub(crate) struct Value {
    /// `None`: the store has no numbers.
    pub(crate) as_of: Option<Sequence>,
    pub(crate) commit: u64,
    /// By the clock of who read it.
    pub(crate) read: UnixSeconds,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    mark: u64,
    /// When a lease ends.
    until: Micros,
    value: Option<Value>,
}

pub(crate) struct Server {
    slots: [Slot; TOKENS],
    /// The last connection of each replica, and when the last message on it arrives.
    subscribers: Vec<Option<(u64, Micros)>>,
}

/// A message that was lost in a connection that went on.
pub(crate) struct Loss {
    publisher: u64,
    /// Among those of its publisher.
    count: u64,
    /// Its numbers tell that something is missing only if something came of it before.
    was_heard: bool,
    pub(crate) commit: u64,
    pub(crate) number: Sequence,
    pub(crate) changes: Rc<Changes>,
    /// When something came by which it could be noticed.
    pub(crate) noticed: Option<Micros>,
}

impl Server {
    pub(crate) fn new(replicas: usize) -> Self {
        Self { slots: [Slot::default(); TOKENS], subscribers: vec![None; replicas] }
    }

    /// Yields what is there; who finds nothing leaves a lease.
    pub(crate) fn get(&mut self, token: usize, now: Micros, mark: u64) -> (Option<Value>, Lease) {
        let slot = &mut self.slots[token];
        if slot.value.is_none() && slot.until <= now {
            (slot.mark, slot.until) = (mark, now + LEASE_TIME);
        }
        let version = slot.value.and_then(|value| value.as_of);
        (slot.value, Lease { mark: slot.mark, version })
    }

    /// Puts a value where the mark still is.
    pub(crate) fn fill(&mut self, token: usize, now: Micros, lease: Lease, value: Value) {
        let slot = &mut self.slots[token];
        let is_there = slot.value.is_some() || slot.until > now;
        if is_there && slot.mark == lease.mark {
            // A value's mark is one of its own.
            *slot = Slot { mark: !lease.mark, until: 0, value: Some(value) };
        }
    }

    /// Has of the other's values those that are kept.
    pub(crate) fn take_over(&mut self, other: &Self, mut keeps: impl FnMut(usize) -> bool) {
        for (token, slot) in self.slots.iter_mut().enumerate() {
            if keeps(token) {
                *slot = other.slots[token];
            }
        }
    }

    pub(crate) fn forget(&mut self, token: usize) {
        self.slots[token] = Slot::default();
    }
}

impl<R: Rules> World<R> {
    pub(crate) fn connect(&mut self, number: usize) {
        let primary = self.primary;
        let replica = &mut self.replicas[number];
        replica.attempt += 1;
        replica.wires.server = primary;
        let (life, attempt) = (replica.life(number), replica.attempt);
        let wait = self.random.between(20 * MILLI, 300 * MILLI);
        self.to(wait, life, Turn::Connected { attempt });
    }

    pub(crate) fn connected(&mut self, life: Life, attempt: u64) {
        let number = life.replica;
        if self.replicas[number].attempt != attempt {
            return;
        }
        if !self.replicas[number].wires.has_redis {
            self.connect(number);
            return;
        }
        self.connections += 1;
        let (connection, now, server) = (self.connections, self.now, self.primary);
        let replica = &mut self.replicas[number];
        (replica.connection, replica.connected_since, replica.wires.server) = (Some(connection), now, server);
        (replica.last_beat, replica.has_lost) = (now, false);
        replica.losses.clear();
        replica.heard.clear();
        self.servers[server].subscribers[number] = Some((connection, now));
        self.on(number, &Event::StreamOpened { connection });
    }

    pub(crate) fn lose_stream(&mut self, number: usize) {
        self.replicas[number].connection = None;
        self.on(number, &Event::StreamLost);
        self.connect(number);
    }

    pub(crate) fn beat(&mut self, life: Life) {
        self.to(INTERVAL, life, Turn::BeatDue);
        let replica = &self.replicas[life.replica];
        let Some(connection) = replica.connection else { return };
        if self.now - replica.last_beat > SILENCE {
            self.lose_stream(life.replica);
            return;
        }
        if replica.wires.has_redis {
            let (sent, wait) = (self.now, self.latency());
            self.after(wait, Step::BeatAtServer { replica: life.replica, connection, sent });
        }
    }

    pub(crate) fn be_present(&mut self, life: Life) {
        self.to(PRESENCE, life, Turn::PresenceDue);
        let replica = &mut self.replicas[life.replica];
        if replica.asks_redis() {
            replica.number += 1;
            let (number, server) = (replica.number, replica.wires.server);
            let wait = self.latency();
            self.to(wait, life, Turn::PresenceAtServer { number, server });
        }
    }

    pub(crate) fn presence_at_server(&mut self, life: Life, number: u64, server: usize) {
        let replica = &self.replicas[life.replica];
        if replica.wires.has_redis {
            let (publisher, changes) = (replica.publisher, Rc::clone(&self.nothing));
            self.tell(server, &Published { publisher, number, changes, commit: None });
        }
    }

    /// To all who listen to this server.
    pub(crate) fn tell(&mut self, server: usize, what: &Published) {
        for number in 0..self.replicas.len() {
            let subscriber = self.servers[server].subscribers[number];
            // On another connection it is not read any more.
            let connection = self.replicas[number].connection;
            if let Some((connection, _)) = subscriber.filter(|(to, _)| connection == Some(*to)) {
                self.deliver(server, number, connection, Message::Changes(what.clone()));
            }
        }
    }

    /// In order on each connection; nothing if the connection leads nowhere.
    pub(crate) fn deliver(&mut self, server: usize, number: usize, connection: u64, message: Message) {
        let wait = self.latency();
        let subscriber = self.servers[server].subscribers[number].as_mut();
        let Some((_, last)) = subscriber.filter(|(to, _)| *to == connection) else { return };
        if !self.replicas[number].wires.has_redis {
            self.lose(number, connection, message, false);
            return;
        }
        let at = (self.now + wait).max(*last + 1);
        *last = at;
        self.after(at - self.now, Step::Arrives { replica: number, connection, message });
    }

    pub(crate) fn arrives(&mut self, number: usize, connection: u64, message: Message) {
        let replica = &mut self.replicas[number];
        // A heartbeat that was under way when its connection ended may be read late all the same.
        if !replica.wires.has_redis {
            self.lose(number, connection, message, false);
            return;
        }
        let is_open = replica.connection == Some(connection);
        match message {
            Message::Beat { sent } => {
                if is_open {
                    replica.last_beat = self.now;
                }
                self.on(number, &Event::Beat { sent: monotonic(sent) });
            }
            Message::Changes(what) if is_open => self.hear(number, connection, what),
            Message::Changes(_) => {}
        }
    }

    fn hear(&mut self, number: usize, connection: u64, what: Published) {
        if self.random.once_in(self.flavour.loss) {
            // Lost, and the connection goes on; or so damaged that it cannot be trusted.
            let is_bad = self.random.once_in(3);
            self.lose(number, connection, Message::Changes(what), is_bad);
            if is_bad {
                self.on(number, &Event::Bad);
            }
            return;
        }
        let replica = &mut self.replicas[number];
        if what.commit.is_some_and(|commit| self.store.lost(commit).is_some()) {
            replica.strange_since = Some(self.now);
        }
        let is_strange = replica.strange_since.is_some();
        for loss in &mut replica.losses {
            let is_gap = loss.was_heard && loss.publisher == what.publisher && loss.count < what.number;
            if is_gap || (!is_strange && Some(loss.number) < what.changes.last) {
                loss.noticed.get_or_insert(self.now);
            }
        }
        replica.heard.insert(what.publisher);
        let publisher = Publisher(what.publisher);
        let event = Event::Heard { connection, publisher, number: what.number, changes: &what.changes };
        self.on(number, &event);
    }

    fn lose(&mut self, number: usize, connection: u64, message: Message, is_bad: bool) {
        let replica = &mut self.replicas[number];
        if replica.connection != Some(connection) {
            return;
        }
        replica.has_lost = true;
        let Message::Changes(Published { publisher, number: count, changes, commit: Some(commit) }) = message
        else {
            return;
        };
        if self.store.lost(commit).is_some() {
            return;
        }
        // Without numbers no reading says that it has told of it.
        let number = changes.last.unwrap_or(Sequence(u64::MAX));
        // A reading was faster: nothing is missing.
        if replica.strange_since.is_none() && replica.feed.position >= Some(number) {
            return;
        }
        let noticed = is_bad.then_some(self.now);
        let was_heard = replica.heard.contains(&publisher);
        replica.losses.push(Loss { publisher, count, was_heard, commit, number, changes, noticed });
    }
}

impl Loss {
    /// Whether it was of this.
    pub(crate) fn is_of(&self, named: [Change; 2]) -> bool {
        self.changes.changes.iter().any(|change| named.contains(change))
    }
}
