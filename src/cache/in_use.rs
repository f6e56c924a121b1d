//! Credentials that were asked for lately, as they were presented: so that the store can be asked for many of them at once
//! when something changed there that nobody named.
//!
//! They are in this process' memory only, and wiped when they were not asked for lately and others are.

use crate::cache::local::CredentialKey;
use crate::clock::Monotonic;
use crate::secret::Secret;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

/// Credentials at most; others are asked for one by one, when they are used.
const CREDENTIALS_MAX: usize = 10_000;
/// How long a credential counts as in use after somebody waited for the store to say whose it is. Then the next one
/// waits again, so that what nobody uses any more is not asked for.
const IN_USE: Duration = Duration::from_secs(10);
/// Between two looks for what is no longer in use.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Shared by all cores; touched only by who asks the store.
#[derive(Default)]
pub struct InUse(Mutex<Held>);

#[derive(Default)]
struct Held {
    credentials: HashMap<CredentialKey, (Secret, Monotonic), foldhash::fast::RandomState>,
    swept: Monotonic,
}

impl InUse {
    /// Somebody waited for the store to say whose this is.
    pub fn note(&self, key: CredentialKey, presented: &Secret, now: Monotonic) {
        let mut held = self.0.lock();
        if now.since(held.swept) >= SWEEP_INTERVAL {
            held.sweep(now);
        }
        if held.credentials.len() >= CREDENTIALS_MAX && !held.credentials.contains_key(&key) {
            return;
        }
        held.credentials.insert(key, (presented.clone(), now));
    }

    /// All that are in use now.
    pub fn all(&self, now: Monotonic) -> Vec<(CredentialKey, Secret)> {
        let mut held = self.0.lock();
        held.sweep(now);
        held.credentials.iter().map(|(key, (presented, _))| (*key, presented.clone())).collect()
    }
}

impl Held {
    fn sweep(&mut self, now: Monotonic) {
        self.credentials.retain(|_, (_, asked)| now.since(*asked) < IN_USE);
        self.swept = now;
    }
}

impl fmt::Debug for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InUse").field(&self.0.lock().credentials.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Digest, Family};

    fn key(number: usize) -> CredentialKey {
        CredentialKey { digest: Digest::of(&number.to_be_bytes()), family: Family::Authtoken }
    }

    #[test]
    fn what_was_not_asked_for_lately_is_not_in_use() {
        let (in_use, second) = (InUse::default(), |number: u64| Monotonic(number * 1_000_000_000));
        in_use.note(key(1), &Secret::new("one"), second(1));
        in_use.note(key(2), &Secret::new("two"), second(5));
        assert_eq!(in_use.all(second(10)).len(), 2);
        assert_eq!(in_use.all(second(11)), [(key(2), Secret::new("two"))]);
        assert_eq!(in_use.all(second(15)), []);
        assert!(!format!("{in_use:?}").contains("two"));
    }

    #[test]
    fn there_are_no_more_than_so_many() {
        let in_use = InUse::default();
        for number in 0..2 * CREDENTIALS_MAX {
            in_use.note(key(number), &Secret::new("any"), Monotonic(7));
        }
        assert_eq!(in_use.all(Monotonic(8)).len(), CREDENTIALS_MAX);
        in_use.note(key(CREDENTIALS_MAX), &Secret::new("any"), Monotonic(20_000_000_000));
        assert_eq!(in_use.all(Monotonic(20_000_000_001)).len(), 1, "others have room again");
    }
}
