//! Names of counters: digests, so that the table holds neither addresses nor usernames.
//!
//! SHA-256 over a seed of the process: nobody outside can compute a key, so nobody can look for two that meet.

use crate::identity::{CredentialId, Digest, UserId};
use crate::secret::NoRandomness;
use smallvec::SmallVec;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};

/// Bytes of keys and seeds: 128 bits.
const BYTES: usize = 16;

/// Name of one counter, or the beginning of names: 128 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::throttle) struct Key([u8; BYTES]);

impl Key {
    /// A number that differs from key to key.
    pub(in crate::throttle) fn number(self) -> usize {
        let [.., last] = self.0;
        usize::from(last)
    }
}

/// Eight bytes of a digest are as good as all.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // `first_chunk` of 16 bytes is never `None`.
        state.write_u64(u64::from_le_bytes(self.0.first_chunk().copied().unwrap_or_default()));
    }
}

/// Digests of addresses are guessed quickly by who knows the seed, so they are not shown.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Whose counter it is.
#[derive(Debug, Clone, Copy)]
pub(in crate::throttle) enum Subject<'a> {
    /// A client; of IPv6 its /64, which one subscriber has whole.
    Address(IpAddr),
    User(UserId),
    Credential(CredentialId),
    /// A name from the configuration, or a username exactly as it was sent.
    Name(&'a str),
}

impl Subject<'_> {
    /// Its kind, and what tells it from others of this kind.
    fn append_to(self, add: &mut impl FnMut(&[u8])) {
        match self {
            Self::Address(address) => match address.to_canonical() {
                IpAddr::V4(address) => {
                    add(b"4");
                    add(&address.octets());
                }
                IpAddr::V6(address) => {
                    add(b"6");
                    add(&network(address));
                }
            },
            Self::User(UserId(id)) => {
                add(b"u");
                add(&id.to_le_bytes());
            }
            Self::Credential(CredentialId(id)) => {
                add(b"c");
                add(&id.to_le_bytes());
            }
            Self::Name(name) => {
                add(b"n");
                add(name.as_bytes());
            }
        }
    }
}

/// What all replicas call a counter; whoever stores it makes a digest of it.
pub(in crate::throttle) fn shared_name(scope: &[&str], subjects: &[Subject<'_>]) -> Vec<u8> {
    let mut name = Vec::new();
    let mut part = |part: &[u8]| {
        // With their lengths, so that no two mean the same bytes.
        name.extend_from_slice(&part.len().to_le_bytes());
        name.extend_from_slice(part);
    };
    for word in scope {
        part(word.as_bytes());
    }
    for subject in subjects {
        subject.append_to(&mut part);
    }
    name
}

/// Makes keys.
pub(in crate::throttle) struct Seed([u8; BYTES]);

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(…)")
    }
}

impl Seed {
    /// New for each process.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub(in crate::throttle) fn random() -> Result<Self, NoRandomness> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).map_err(|_| NoRandomness)?;
        Ok(Self(bytes))
    }

    /// The beginning of all keys of one throttle or guard.
    pub(in crate::throttle) fn scope(&self, name: &str) -> Key {
        self.key(Key([0; BYTES]), Subject::Name(name))
    }

    /// The counter of this subject in a scope.
    pub(in crate::throttle) fn key(&self, scope: Key, subject: Subject<'_>) -> Key {
        // Seed and scope have fixed lengths and the subject's kind comes first, so no two mean the same bytes. Of an
        // address or a number all fits into one block of SHA-256.
        let mut bytes: SmallVec<[u8; 64]> = SmallVec::new();
        bytes.extend_from_slice(&self.0);
        bytes.extend_from_slice(&scope.0);
        subject.append_to(&mut |part| bytes.extend_from_slice(part));
        // `first_chunk` of 32 bytes is never `None`.
        Key(Digest::of(&bytes).0.first_chunk().copied().unwrap_or_default())
    }
}

/// The /64.
fn network(address: Ipv6Addr) -> [u8; 8] {
    address.octets().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Subject<'_> {
        Subject::Address(text.parse().unwrap())
    }

    #[test]
    fn a_subnet_of_ipv6_is_one_client_and_an_address_of_ipv4_is_one() {
        let seed = Seed::random().unwrap();
        let scope = seed.scope("login");
        let key = |text| seed.key(scope, address(text));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
    }

    #[test]
    fn shared_names_are_the_same_everywhere_and_differ_by_scope_and_subject() {
        let (one, name) = (address("192.0.2.1"), Subject::Name("alice"));
        let mut names = vec![
            shared_name(&["throttle", "a"], &[one]),
            shared_name(&["throttle", "b"], &[one]),
            shared_name(&["guard", "a"], &[one]),
            shared_name(&["throttle", "a"], &[name]),
            shared_name(&["throttle", "a"], &[name, one]),
            shared_name(&["throttle", "a"], &[one, name]),
            shared_name(&["throttle"], &[Subject::Name("a"), one]),
            shared_name(&["throttle", "a", "4"], &[]),
        ];
        assert_eq!(names[0], shared_name(&["throttle", "a"], &[address("::ffff:192.0.2.1")]));
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 8);
    }

    #[test]
    fn keys_differ_by_seed_scope_and_kind() {
        let seed = Seed::random().unwrap();
        let (one, two) = (seed.scope("one"), seed.scope("two"));
        let keys = [
            seed.key(one, Subject::User(UserId(1))),
            seed.key(two, Subject::User(UserId(1))),
            seed.key(one, Subject::Credential(CredentialId(1))),
            seed.key(one, Subject::Name("1")),
            seed.key(one, Subject::Name("1 ")),
            seed.key(one, address("1.0.0.0")),
            Seed::random().unwrap().key(one, Subject::User(UserId(1))),
        ];
        for (place, key) in keys.iter().enumerate() {
            assert!(!keys[..place].contains(key), "{place}");
        }
        assert_eq!(format!("{:?} {seed:?}", keys[0]), "Key(…) Seed(…)");
    }
}
