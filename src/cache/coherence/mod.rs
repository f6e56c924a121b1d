//! When a cached answer may be believed: a state machine without input or output.
//!
//! Events and the time go in, commands come out ([`Coherence::on`]). The server carries the commands out on the local
//! cache; the simulation in `tests/coherence` carries them out on a hundred replicas with a network that loses, delays
//! and cuts, and shows for each of the [`rules`] what happens without it.
//!
//! Two sources tell of changes:
//! * **Readings** of the store: what was committed since the last one. They are the truth; a reading proves all entries
//!   as of the moment at which it was asked for. The store numbers its changes without gaps, in the order of
//!   commits, if it is in our own layout.
//! * **The stream**: what others publish (Redis) after they committed. It is fast, and it may be cut, or be the stream of
//!   a server that is not the primary any more. So it proves something only while this replica's own heartbeats
//!   come back on it, after the store was read once since it was opened, while no number is known to be missing; and
//!   what it proves carries belief on for `stale_while_unreachable` after the last reading at most.

pub mod rules;
pub mod seen;
pub mod trust;

use crate::cache::change::{Change, Changes, Sequence};
use crate::cache::coherence::rules::{Rules, Sound};
use crate::clock::Monotonic;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::time::Duration;

/// Publishers that are told apart. Past it all are forgotten, as if the stream had been opened anew.
const PUBLISHERS_MAX: usize = 4096;
/// Between the end of one doubt and the next. Each makes every credential in use be asked for once more, and a busy Django
/// writes all the time; what was changed in between is found by the next one.
const DOUBT_INTERVAL: Duration = Duration::from_millis(300);

/// A process that publishes; made up at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Publisher(pub u64);

/// What happened.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// The store is read from now on; what was committed before is in no reading. Yields its newest number.
    ReadingBegins {
        /// Of changes before it nothing will be told. `None`: the store has no numbers.
        after: Option<Sequence>,
    },
    /// The store was read.
    Read {
        /// When it was asked.
        asked: Monotonic,
        /// What was committed since the last reading.
        changes: &'a Changes,
        /// The newest number. `None`: the store has none.
        newest: Option<Sequence>,
    },
    /// The stream is open: what is published from now on comes.
    StreamOpened {
        /// Counts connections.
        connection: u64,
    },
    /// The stream was cut, or may have been.
    StreamLost,
    /// A message on the stream.
    Heard {
        /// On this connection.
        connection: u64,
        /// By whom.
        publisher: Publisher,
        /// Its number among the messages of that publisher; without gaps, from 1.
        number: u64,
        /// What was committed; empty for a message that tells of something else.
        changes: &'a Changes,
    },
    /// A heartbeat of our own came back.
    Beat {
        /// When it was sent. One of an earlier connection says less than the reading that the present one needs.
        sent: Monotonic,
    },
    /// A message that cannot be trusted.
    Bad,
    /// What [`Command::Confirm`] asked for is done, or given up.
    Confirmed {
        /// The store was asked after this moment for whatever was confirmed.
        began: Monotonic,
    },
}

/// What is to be done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Drop what a change made void, and keep its number in mind.
    Drop(Change, Option<Sequence>),
    /// Changes above this number will be told, and none before it ([`seen::Seen::begin`]).
    Begin(Sequence),
    /// Drop everything; of what changed up to this number nobody knows what it was ([`seen::Seen::begin`]).
    Void(Option<Sequence>),
    /// Numbers may have been given out again ([`seen::Seen::take_back`]).
    TakeBack,
    /// [`trust::Trust::prove`].
    Prove(Monotonic),
    /// [`trust::Trust::carry`].
    Carry(Monotonic),
    /// [`trust::Trust::doubt`].
    Doubt(Monotonic),
    /// Ask the store for the credentials in use, all together; [`Event::Confirmed`] has to follow. Then whatever was not
    /// confirmed is in doubt. Until then nothing is proved, so it need not be hurried.
    Confirm,
    /// Read the store now rather than when it is due.
    ReadNow,
}

/// Why the stream proves nothing, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distrust {
    /// It is not open.
    Closed,
    /// The store was not read since it was opened, or since it was last doubted.
    Unread,
    /// A number is missing.
    Missing,
    /// The store has no numbers: changes by others are not on the stream.
    Unnumbered,
}

/// The state of one replica.
#[derive(Debug)]
pub struct Coherence<R = Sound> {
    /// When the last good reading was asked for.
    read: Option<Monotonic>,
    /// All numbers up to this one are known.
    known: Option<Sequence>,
    /// When the stream last told so.
    known_since: Monotonic,
    /// The greatest number heard of.
    heard: Sequence,
    stream: Option<Stream>,
    doubts: Doubts,
    rules: PhantomData<R>,
}

#[derive(Debug)]
struct Stream {
    connection: u64,
    /// What was published before this moment may not have come.
    since: Monotonic,
    /// The last number of each publisher.
    numbers: HashMap<Publisher, u64>,
}

/// Changes of which nobody says what they are.
#[derive(Debug, Default)]
struct Doubts {
    last: Option<Monotonic>,
    /// Found, and not asked for yet.
    is_pending: bool,
    /// Since when the store is asked for what is in use.
    confirming: Option<Monotonic>,
}

impl<R: Rules> Coherence<R> {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self {
            read: None,
            known: None,
            known_since: Monotonic(0),
            heard: Sequence(0),
            stream: None,
            doubts: Doubts::default(),
            rules: PhantomData,
        }
    }

    /// Takes an event in; what is to be done is appended to `out`.
    pub fn on(&mut self, event: &Event<'_>, now: Monotonic, out: &mut Vec<Command>) {
        match *event {
            Event::ReadingBegins { after } => self.begin(after, now, out),
            Event::Read { asked, changes, newest } => self.read(asked, changes, newest, now, out),
            Event::StreamOpened { connection } => {
                self.stream = Some(Stream { connection, since: now, numbers: HashMap::new() });
                out.push(Command::ReadNow);
            }
            Event::StreamLost => self.stream = None,
            Event::Heard { connection, publisher, number, changes } => {
                self.heard(connection, publisher, number, changes, now, out);
            }
            Event::Beat { sent } => self.beat(sent, now, out),
            Event::Bad => self.empty_trust(now, out),
            Event::Confirmed { began } => self.doubts.confirmed(began, now, out),
        }
    }

    /// All numbers up to this one are known. `None`: the store has none, or was not read yet.
    pub fn known(&self) -> Option<Sequence> {
        self.known
    }

    /// When the last good reading was asked for.
    pub fn last_read(&self) -> Option<Monotonic> {
        self.read
    }

    /// Why a heartbeat that came back now would prove nothing. `None`: it would.
    pub fn distrust(&self) -> Option<Distrust> {
        let Some(stream) = &self.stream else { return Some(Distrust::Closed) };
        let Some(known) = self.known else { return Some(Distrust::Unnumbered) };
        let Some(read) = self.read else { return Some(Distrust::Unread) };
        if R::STREAM_NEEDS_READING && read < stream.since {
            Some(Distrust::Unread)
        } else if R::MISSING_NUMBERS_STOP && known < self.heard {
            Some(Distrust::Missing)
        } else {
            None
        }
    }

    /// What was cached before may have changed unseen: it is asked for again. So may have what others shared, if it was
    /// read before: while nobody read the store, it may have gone back and grown again.
    fn begin(&mut self, after: Option<Sequence>, now: Monotonic, out: &mut Vec<Command>) {
        if self.known.is_some() {
            out.push(Command::TakeBack);
        }
        (self.known, self.heard, self.read) = (after, after.unwrap_or_default(), None);
        out.push(Command::Doubt(now));
        out.extend(after.map(Command::Begin));
    }

    fn read(
        &mut self,
        asked: Monotonic,
        changes: &Changes,
        newest: Option<Sequence>,
        now: Monotonic,
        out: &mut Vec<Command>,
    ) {
        // Rows were pruned, or the store is an older copy that has given their numbers out again.
        let is_lost = changes.changes.contains(&Change::Everything);
        // It is another store, or an older copy. (What the stream told after this reading began is not in it.)
        let went_back = newest < self.known && asked >= self.known_since;
        if !is_lost && !went_back {
            self.apply(changes, false, now, out);
        } else if R::LOST_ROWS_VOID {
            out.push(Command::TakeBack);
            out.push(Command::Void(newest));
            (self.known, self.heard) = (newest, newest.unwrap_or_default());
            // Which numbers are missing nobody can tell now.
            self.empty_trust(now, out);
        }
        if let Some(newest) = newest {
            self.known = self.known.max(Some(newest));
        }
        self.read = self.read.max(Some(asked));
        if self.doubts.are_settled::<R>(now, out) {
            out.push(Command::Prove(if R::PROOF_AS_OF_ASKING { asked } else { now }));
        }
    }

    /// Drops what is named, also what is known by its number: to drop once more costs a look-up, and a store that went
    /// back gives numbers out again. Who reads it does not notice that if only the stream had told of the lost ones.
    /// Everything is dropped only if some of it is news.
    fn apply(&mut self, changes: &Changes, is_message: bool, now: Monotonic, out: &mut Vec<Command>) {
        let numbers = changes.first.map(|first| first.0..);
        for (place, change) in changes.changes.iter().enumerate() {
            let place = u64::try_from(place).unwrap_or(u64::MAX);
            let number = numbers.as_ref().map(|from| Sequence(from.start.saturating_add(place)));
            let is_all = *change == Change::Everything;
            let is_known = number.is_some() && if is_all { changes.last } else { number } <= self.known;
            if is_known && (is_all || !(is_message || R::READINGS_ALWAYS_DROP)) {
                continue;
            }
            match change {
                Change::Something => self.doubts.is_pending = true,
                // Nothing is left that an earlier change could make void.
                Change::Everything => {
                    (self.known, self.known_since) = (changes.last.max(self.known), now);
                    out.push(Command::Void(self.known));
                }
                change if R::CHANGES_DROP => out.push(Command::Drop(*change, number)),
                _ => {}
            }
        }
    }

    fn heard(
        &mut self,
        connection: u64,
        publisher: Publisher,
        number: u64,
        changes: &Changes,
        now: Monotonic,
        out: &mut Vec<Command>,
    ) {
        if let Some(stream) = self.stream.as_mut().filter(|stream| stream.connection == connection) {
            let is_full = stream.numbers.len() >= PUBLISHERS_MAX && !stream.numbers.contains_key(&publisher);
            if is_full {
                stream.numbers.clear();
            }
            let last = stream.numbers.insert(publisher, number);
            match last {
                // Said before, or overtaken on its way: no gap, and to drop once more does no harm.
                Some(last) if number <= last => {
                    stream.numbers.insert(publisher, last);
                }
                Some(last) if number == last.saturating_add(1) => {}
                None if !is_full => {}
                _ => self.empty_trust(now, out),
            }
        }
        self.apply(changes, true, now, out);
        let (Some(first), Some(last), Some(known)) = (changes.first, changes.last, self.known) else {
            // Without numbers nothing is known to be missing.
            self.doubts.are_settled::<R>(now, out);
            return;
        };
        self.heard = self.heard.max(last);
        if first.0 <= known.0.saturating_add(1) && known < last {
            (self.known, self.known_since) = (Some(last), now);
        }
        if self.known < Some(self.heard) {
            out.push(Command::ReadNow);
        }
    }

    fn beat(&mut self, sent: Monotonic, now: Monotonic, out: &mut Vec<Command>) {
        if self.distrust().is_none() {
            out.push(Command::Carry(if R::PROOF_AS_OF_ASKING { sent } else { now }));
        }
    }

    /// What was published up to now may not have come.
    fn empty_trust(&mut self, now: Monotonic, out: &mut Vec<Command>) {
        if let Some(stream) = self.stream.as_mut().filter(|_| R::GAPS_EMPTY_TRUST) {
            stream.since = now;
            out.push(Command::ReadNow);
        }
    }
}

impl<R: Rules> Default for Coherence<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl Doubts {
    /// Whether all that was found is in doubt; until then nothing is proved.
    fn are_settled<R: Rules>(&mut self, now: Monotonic, out: &mut Vec<Command>) -> bool {
        let is_due = self.last.is_none_or(|last| now.since(last) >= DOUBT_INTERVAL);
        if self.is_pending && is_due && self.confirming.is_none() {
            // What is asked for from now on finds it.
            out.push(Command::Confirm);
            (self.confirming, self.is_pending) = (Some(now), false);
        }
        !self.is_pending && (self.confirming.is_none() || !R::CONFIRMING_STOPS_PROOFS)
    }

    fn confirmed(&mut self, began: Monotonic, now: Monotonic, out: &mut Vec<Command>) {
        // Of an earlier one, which asked too soon.
        if self.confirming.is_some_and(|since| since <= began) {
            out.push(Command::Doubt(began));
            (self.confirming, self.last) = (None, Some(now));
        }
    }
}

/// When a change may be acknowledged whose commit was answered at this moment: at once if the others were told, else
/// when none of them believes anything any more that was proved before.
pub fn acknowledged<R: Rules>(committed: Monotonic, was_told: bool, bound: Duration) -> Monotonic {
    if was_told || !R::UNTOLD_WAITS { committed } else { committed.plus(bound) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::UserId;

    fn at(milliseconds: u64) -> Monotonic {
        Monotonic(0).plus(Duration::from_millis(milliseconds))
    }

    /// What a machine that knows the first five numbers does.
    fn after_five(event: &Event<'_>) -> Vec<Command> {
        let (mut machine, mut out) = (Coherence::<Sound>::new(), Vec::new());
        machine.on(&Event::ReadingBegins { after: Some(Sequence(5)) }, at(10), &mut out);
        out.clear();
        machine.on(event, at(30), &mut out);
        out
    }

    fn read(changes: &Changes) -> Event<'_> {
        Event::Read { asked: at(20), changes, newest: changes.last }
    }

    #[test]
    fn a_store_whose_numbers_go_back_voids_everything() {
        let back = Changes::numbered(Sequence(3), vec![]);
        let voided = [Command::TakeBack, Command::Void(Some(Sequence(3))), Command::Prove(at(20))];
        assert_eq!(after_five(&read(&back)), voided);
        let same = Changes::numbered(Sequence(5), vec![]);
        assert_eq!(after_five(&read(&same)), [Command::Prove(at(20))]);
    }

    #[test]
    fn nothing_is_passed_over_for_its_number() {
        let change = Change::User(UserId(1));
        let known = Changes::numbered(Sequence(4), vec![change]);
        let message = Event::Heard { connection: 1, publisher: Publisher(1), number: 1, changes: &known };
        assert_eq!(after_five(&message), [Command::Drop(change, Some(Sequence(5)))]);
        let dropped = [Command::Drop(change, Some(Sequence(5))), Command::Prove(at(20))];
        assert_eq!(after_five(&read(&known)), dropped);
    }

    #[test]
    fn what_was_read_before_the_store_was_lost_from_sight_is_taken_back() {
        let lost = Changes::everything(Sequence(5), Sequence(7));
        let voided = [Command::TakeBack, Command::Void(Some(Sequence(7))), Command::Prove(at(20))];
        assert_eq!(after_five(&read(&lost)), voided);
        let again = Event::ReadingBegins { after: Some(Sequence(6)) };
        let taken_back = [Command::TakeBack, Command::Doubt(at(30)), Command::Begin(Sequence(6))];
        assert_eq!(after_five(&again), taken_back);
    }
}
