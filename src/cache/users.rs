//! User records, one for all credentials of a user.
//!
//! A credential in the cache holds its user's record, so a hit needs no second look-up. Invalidating a user
//! retires the record, wherever it is held: whoever finds a retired record asks the store. The register itself
//! holds no record alive; records go with the last credential that holds them.

use crate::clock::Monotonic;
use crate::identity::{User, UserId};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// A user as cached: facts, and whether they still hold.
///
/// Laid out in this order, so that all that a hit reads is in the cache line of the `Arc`'s counts.
#[derive(Debug)]
#[repr(C)]
pub struct UserRecord {
    is_retired: AtomicBool,
    /// The look-up that these facts came from began at this moment.
    confirmed: Monotonic,
    /// The facts.
    pub user: User,
}

impl UserRecord {
    /// A record that no register knows; for those who need no invalidation.
    pub fn new(user: User, confirmed: Monotonic) -> Self {
        Self { user, confirmed, is_retired: AtomicBool::new(false) }
    }

    /// Whether the facts still hold, as far as this process was told.
    pub fn is_current(&self) -> bool {
        !self.is_retired.load(Ordering::Acquire)
    }

    /// Bytes it takes without its names: itself, its place in the register, what the allocator rounds up, and a
    /// share of the records that nobody holds any more. Measured by `benches/authenticate.rs`.
    pub const BYTES_MIN: usize = size_of::<Self>() + 144;

    /// Bytes it takes, roughly.
    pub fn bytes(&self) -> usize {
        let groups: usize = self.user.groups.iter().map(|group| group.len() + size_of::<Box<str>>()).sum();
        Self::BYTES_MIN + self.user.username.len() + self.user.email.len() + groups
    }

    fn retire(&self) {
        self.is_retired.store(true, Ordering::SeqCst);
    }
}

/// Registers that a user's hash picks one of; a power of two.
const SHARDS: u8 = 64;

/// The records in use, by user.
#[derive(Debug)]
pub struct Users {
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Debug, Default)]
struct Shard {
    records: HashMap<UserId, Weak<UserRecord>, foldhash::fast::RandomState>,
    /// Sweep once there are this many: dead records are a ninth of them at most.
    sweep_at: usize,
}

impl Users {
    /// No records.
    pub fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// The shared record for these facts, read by a load that began at `began`.
    ///
    /// Retires a record with other facts. `None`: a later load found other facts, so these are old.
    pub fn adopt(&self, user: User, began: Monotonic) -> Option<Arc<UserRecord>> {
        let mut shard = self.shard(user.id)?.lock();
        shard.sweep_if_due();
        match shard.records.entry(user.id) {
            Entry::Occupied(mut held) => {
                if let Some(record) = held.get().upgrade().filter(|record| record.is_current()) {
                    if record.user == user {
                        return Some(record);
                    }
                    if record.confirmed > began {
                        return None;
                    }
                    record.retire();
                }
                let record = Arc::new(UserRecord::new(user, began));
                held.insert(Arc::downgrade(&record));
                Some(record)
            }
            Entry::Vacant(vacant) => {
                let record = Arc::new(UserRecord::new(user, began));
                vacant.insert(Arc::downgrade(&record));
                Some(record)
            }
        }
    }

    /// Retires the user's record; credentials that hold it are looked up anew.
    pub fn retire(&self, user: UserId) {
        let Some(shard) = self.shard(user) else { return };
        if let Some(record) = shard.lock().records.remove(&user).and_then(|held| held.upgrade()) {
            record.retire();
        }
    }

    /// Retires every record.
    pub fn retire_all(&self) {
        for shard in &self.shards {
            for (_, held) in shard.lock().records.drain() {
                if let Some(record) = held.upgrade() {
                    record.retire();
                }
            }
        }
    }

    fn shard(&self, user: UserId) -> Option<&Mutex<Shard>> {
        let place = usize::try_from(user.0.rem_euclid(i64::from(SHARDS))).unwrap_or(0);
        self.shards.get(place)
    }
}

impl Default for Users {
    fn default() -> Self {
        Self::new()
    }
}

impl Shard {
    /// Fewer records are not worth a sweep.
    const SWEEP_AT_LEAST: usize = 16;

    fn sweep_if_due(&mut self) {
        if self.records.len() >= self.sweep_at.max(Self::SWEEP_AT_LEAST) {
            self.records.retain(|_, held| held.strong_count() > 0);
            self.sweep_at = self.records.len().saturating_add(self.records.len() / 8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: i64, name: &str) -> User {
        User {
            id: UserId(id),
            username: name.into(),
            is_active: true,
            is_staff: false,
            groups: Box::new([]),
            email: "".into(),
            password_version: 1,
            not_before: 0,
        }
    }

    #[test]
    fn equal_facts_share_a_record() {
        let users = Users::new();
        let first = users.adopt(user(1, "a"), Monotonic(1)).unwrap();
        let second = users.adopt(user(1, "a"), Monotonic(2)).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
    }

    #[test]
    fn newer_facts_retire_the_record() {
        let users = Users::new();
        let old = users.adopt(user(1, "a"), Monotonic(1)).unwrap();
        let new = users.adopt(user(1, "b"), Monotonic(2)).unwrap();
        assert!(!old.is_current() && new.is_current());
        assert!(users.adopt(user(1, "a"), Monotonic(1)).is_none(), "facts of an older load");
        assert!(new.is_current());
    }

    #[test]
    fn retiring_reaches_every_holder() {
        let users = Users::new();
        let one = users.adopt(user(1, "a"), Monotonic(1)).unwrap();
        let two = users.adopt(user(2, "b"), Monotonic(1)).unwrap();
        users.retire(UserId(1));
        assert!(!one.is_current() && two.is_current());
        users.retire_all();
        assert!(!two.is_current());
    }

    #[test]
    fn records_that_nobody_holds_are_swept() {
        let users = Users::new();
        for id in 0..100_000 {
            users.adopt(user(id, "a"), Monotonic(1));
        }
        let kept: usize = users.shards.iter().map(|shard| shard.lock().records.len()).sum();
        assert!(kept <= usize::from(SHARDS) * Shard::SWEEP_AT_LEAST, "{kept}");
    }
}
