//! What replicas tell each other through Redis, as it goes over the channel.
//!
//! `nonce ‖ sealed(format ‖ publisher ‖ number ‖ body)` under the channel's name. Each process numbers its messages
//! without a gap, heartbeats included, so whoever listens knows when one is missing.

use crate::cache::change::{Change, Changes, Sequence};
use crate::cache::coherence::Publisher;
use crate::cache::redis::fields::{Reader, Writer};
use crate::cache::redis::seal::Sealer;
use crate::clock::Monotonic;
use crate::identity::{Digest, UserId};
use crate::secret::NoRandomness;

/// Changes that one message names; of more it says that everything changed.
pub const CHANGES_MAX: usize = 1000;
/// A longer message is nobody's of ours.
pub const MESSAGE_BYTES_MAX: usize = 40 << 10;

/// Another layout has another number.
const FORMAT: u8 = 1;

const HEARTBEAT: u8 = 1;
const CHANGES: u8 = 2;
const APPLIED: u8 = 3;
const CANARY: u8 = 4;

const CREDENTIAL: u8 = 1;
const USER: u8 = 2;
const EVERYTHING: u8 = 3;
const SOMETHING: u8 = 4;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who sent it.
    pub publisher: Publisher,
    /// Its number among the publisher's; the first one has 1.
    pub number: u64,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// The publisher is there. Come back to it, it proves that what was published before was delivered.
    Heartbeat {
        /// When it was sent; means something to the publisher alone.
        sent: Monotonic,
    },
    /// These cached answers are void. Committed already.
    Changes(Changes),
    /// The same, and whoever has applied it says so.
    Canary(Changes),
    /// The publisher has applied a message of another.
    Applied {
        /// Who sent that one.
        publisher: Publisher,
        /// Its number.
        number: u64,
    },
}

impl Message {
    /// As it goes over this channel.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn seal(&self, by: &Sealer, channel: &str) -> Result<Vec<u8>, NoRandomness> {
        by.seal(channel.as_bytes(), &self.encode())
    }

    /// What somebody with our key sent over this channel. `None`: it was somebody else.
    pub fn open(by: &Sealer, channel: &str, sealed: &[u8]) -> Option<Self> {
        if sealed.len() > MESSAGE_BYTES_MAX {
            return None;
        }
        Self::decode(&by.open(channel.as_bytes(), sealed)?)
    }

    fn encode(&self) -> Vec<u8> {
        let mut to = Writer::new();
        to.byte(FORMAT);
        to.unsigned(self.publisher.0);
        to.unsigned(self.number);
        match &self.body {
            Body::Heartbeat { sent } => {
                to.byte(HEARTBEAT);
                to.unsigned(sent.0);
            }
            Body::Changes(changes) | Body::Canary(changes) => {
                to.byte(if matches!(self.body, Body::Canary(_)) { CANARY } else { CHANGES });
                if changes.changes.len() > CHANGES_MAX {
                    encode_changes(&mut to, &everything(changes));
                } else {
                    encode_changes(&mut to, changes);
                }
            }
            Body::Applied { publisher, number } => {
                to.byte(APPLIED);
                to.unsigned(publisher.0);
                to.unsigned(*number);
            }
        }
        to.finish()
    }

    fn decode(text: &[u8]) -> Option<Self> {
        let mut from = Reader::new(text);
        if from.byte()? != FORMAT {
            return None;
        }
        let publisher = Publisher(from.unsigned()?);
        let number = from.unsigned()?;
        let body = match from.byte()? {
            HEARTBEAT => Body::Heartbeat { sent: Monotonic(from.unsigned()?) },
            CHANGES => Body::Changes(decode_changes(&mut from)?),
            CANARY => Body::Canary(decode_changes(&mut from)?),
            APPLIED => Body::Applied { publisher: Publisher(from.unsigned()?), number: from.unsigned()? },
            _ => return None,
        };
        from.end()?;
        Some(Self { publisher, number, body })
    }
}

/// Too many to be named: all of these numbers.
fn everything(changes: &Changes) -> Changes {
    Changes { changes: vec![Change::Everything], ..*changes }
}

fn encode_changes(to: &mut Writer, changes: &Changes) {
    for number in [changes.first, changes.last] {
        to.maybe_unsigned(number.map(|Sequence(number)| number));
    }
    to.length(changes.changes.len());
    for change in &changes.changes {
        match change {
            Change::Credential(Digest(digest)) => {
                to.byte(CREDENTIAL);
                to.raw(digest);
            }
            Change::User(UserId(user)) => {
                to.byte(USER);
                to.signed(*user);
            }
            Change::Everything => to.byte(EVERYTHING),
            Change::Something => to.byte(SOMETHING),
        }
    }
}

fn decode_changes(from: &mut Reader<'_>) -> Option<Changes> {
    let (first, last) = (from.maybe_unsigned()?.map(Sequence), from.maybe_unsigned()?.map(Sequence));
    let count = from.length(1).filter(|count| *count <= CHANGES_MAX)?;
    let mut changes = Vec::with_capacity(count);
    for _ in 0..count {
        changes.push(match from.byte()? {
            CREDENTIAL => Change::Credential(Digest(from.array()?)),
            USER => Change::User(UserId(from.signed()?)),
            EVERYTHING => Change::Everything,
            SOMETHING => Change::Something,
            _ => return None,
        });
    }
    Some(Changes { changes, first, last })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::redis::seal::{Keys, OVERHEAD_BYTES};
    use crate::secret::Secret;
    use proptest::prelude::*;

    fn keys() -> Keys {
        Keys::new(&Secret::new("k"), b"store", "doorward:").unwrap()
    }

    fn any_change() -> impl Strategy<Value = Change> {
        prop_oneof![
            any::<[u8; 32]>().prop_map(|digest| Change::Credential(Digest(digest))),
            any::<i64>().prop_map(|user| Change::User(UserId(user))),
            Just(Change::Everything),
            Just(Change::Something),
        ]
    }

    fn any_body() -> impl Strategy<Value = Body> {
        let numbers = any::<(Option<u64>, Option<u64>)>();
        let changes =
            (prop::collection::vec(any_change(), 0..20), numbers).prop_map(|(changes, (first, last))| {
                Body::Changes(Changes { changes, first: first.map(Sequence), last: last.map(Sequence) })
            });
        prop_oneof![
            any::<u64>().prop_map(|sent| Body::Heartbeat { sent: Monotonic(sent) }),
            changes,
            any::<(u64, u64)>()
                .prop_map(|(publisher, number)| Body::Applied { publisher: Publisher(publisher), number }),
        ]
    }

    prop_compose! {
        fn any_message()(publisher: u64, number: u64, body in any_body()) -> Message {
            Message { publisher: Publisher(publisher), number, body }
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(message in any_message()) {
            let keys = keys();
            let sealed = message.seal(&keys.messages, "channel").unwrap();
            prop_assert_eq!(Message::open(&keys.messages, "other", &sealed), None);
            prop_assert_eq!(Message::open(&keys.messages, "channel", &sealed), Some(message));
        }

        #[test]
        fn every_changed_or_lost_byte_is_refused(message in any_message(), place: prop::sample::Index, bit in 0..8) {
            let keys = keys();
            let sealed = message.seal(&keys.messages, "channel").unwrap();
            let mut changed = sealed.clone();
            *place.get_mut(&mut changed) ^= 1_u8 << bit;
            prop_assert_eq!(Message::open(&keys.messages, "channel", &changed), None);
            prop_assert_eq!(Message::open(&keys.messages, "channel", &sealed[..place.index(sealed.len())]), None);
        }

        #[test]
        fn one_message_has_one_encoding_and_nothing_panics(message in any_message(), place: prop::sample::Index, byte: u8, more: Vec<u8>) {
            let text = message.encode();
            let mut changed = text.clone();
            *place.get_mut(&mut changed) = byte;
            for text in [changed, more.clone(), [text.as_slice(), &more].concat()] {
                if let Some(read) = Message::decode(&text) {
                    prop_assert_eq!(read.encode(), text);
                }
            }
            prop_assert_eq!(Message::decode(&text[..place.index(text.len())]), None);
        }
    }

    #[test]
    fn too_many_changes_are_everything_up_to_the_last() {
        let changes =
            |count| Changes::numbered(Sequence(10), vec![Change::Credential(Digest([7; 32])); count]);
        let sent = |count| {
            let body = Body::Changes(changes(count));
            let message = Message { publisher: Publisher(1), number: 1, body };
            let sealed = message.seal(&keys().messages, "channel").unwrap();
            assert!(sealed.len() <= MESSAGE_BYTES_MAX);
            Message::open(&keys().messages, "channel", &sealed).unwrap().body
        };
        assert_eq!(sent(CHANGES_MAX), Body::Changes(changes(CHANGES_MAX)));
        let last = Sequence(11 + CHANGES_MAX as u64);
        assert_eq!(sent(CHANGES_MAX + 1), Body::Changes(Changes::everything(Sequence(10), last)));
        let unnumbered = everything(&changes(CHANGES_MAX + 1).without_numbers());
        assert_eq!(unnumbered, Changes::unnumbered(vec![Change::Everything]));
    }

    #[test]
    fn a_longer_message_is_not_opened() {
        let keys = keys();
        let text = vec![0; MESSAGE_BYTES_MAX - OVERHEAD_BYTES + 1];
        let sealed = keys.messages.seal(b"channel", &text).unwrap();
        assert_eq!(sealed.len(), MESSAGE_BYTES_MAX + 1);
        assert_eq!(Message::open(&keys.messages, "channel", &sealed), None);
    }
}
