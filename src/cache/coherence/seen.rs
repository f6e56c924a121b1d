//! What this replica knows of the order of changes, so that it can tell whether a value somebody else read is too old.
//!
//! A shared value says "as of change number V the row was so". As far as this replica knows it still is, if no change with
//! a higher number was for its credential or its user. Keys share places (striped by hash): a shared place refuses a
//! value too many, never one too few.

use crate::cache::change::Sequence;
use crate::cache::coherence::rules::{Rules, Sound};
use crate::clock::UnixSeconds;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Places; a power of two. With 60 s of values and 100 changes a second one value in ten is refused for another's sake.
const STRIPES: usize = 65_536;

/// Numbers of the changes that were seen.
#[derive(Debug)]
pub struct Seen<R = Sound> {
    /// Of what changed up to this number nobody knows here what it was.
    floor: AtomicU64,
    /// What the store said up to this moment (seconds since 1970) it may have taken back.
    taken_back: AtomicI64,
    /// The last change of each place.
    last: Box<[AtomicU64]>,
    /// When it came to be known (seconds since 1970).
    when: Box<[AtomicI64]>,
    rules: PhantomData<R>,
}

impl<R: Rules> Seen<R> {
    /// Nothing is known: every value is too old.
    pub fn new() -> Self {
        Self::with_places(STRIPES)
    }

    /// The same with so many places; one at least.
    pub fn with_places(places: usize) -> Self {
        Self {
            floor: AtomicU64::new(u64::MAX),
            taken_back: AtomicI64::new(0),
            last: (0..places.max(1)).map(|_| AtomicU64::new(0)).collect(),
            when: (0..places.max(1)).map(|_| AtomicI64::new(0)).collect(),
            rules: PhantomData,
        }
    }

    /// All changes above this number will be told.
    pub fn begin(&self, after: Sequence) {
        self.floor.store(after.0, Ordering::SeqCst);
    }

    /// Something with this hash changed, and that was this number.
    pub fn mark(&self, hash: u64, number: Option<Sequence>, now: UnixSeconds) {
        if let (Some(place), Some(number)) = (place(&self.last, hash), number) {
            place.fetch_max(number.0, Ordering::SeqCst);
        }
        if let Some(place) = place(&self.when, hash) {
            place.fetch_max(now.0, Ordering::SeqCst);
        }
    }

    /// The store is another one, or an older copy was put back: numbers are given out again that once meant something
    /// else.
    pub fn take_back(&self, now: UnixSeconds) {
        self.taken_back.fetch_max(now.0, Ordering::SeqCst);
    }

    /// Whether what was true as of this number is true as of all that is known, for a credential and a user with these
    /// hashes. `read` is when the store said so, or earlier.
    pub fn holds(&self, as_of: Sequence, read: UnixSeconds, hashes: [u64; 2]) -> bool {
        let is_changed =
            |hash: &u64| place(&self.last, *hash).is_none_or(|at| as_of.0 < at.load(Ordering::SeqCst));
        let is_old = as_of.0 < self.floor.load(Ordering::SeqCst) || hashes.iter().any(is_changed);
        !self.is_of_lost_past(read) && (!is_old || !R::OLD_VALUES_REFUSED)
    }

    /// The same in a store without numbers: whether neither has changed since `read`, as far as this replica was told.
    pub fn holds_since(&self, read: UnixSeconds, hashes: [u64; 2]) -> bool {
        let is_changed =
            |hash: &u64| place(&self.when, *hash).is_none_or(|at| read.0 <= at.load(Ordering::SeqCst));
        !self.is_of_lost_past(read) && !hashes.iter().any(is_changed)
    }

    fn is_of_lost_past(&self, read: UnixSeconds) -> bool {
        R::LOST_PAST_REFUSED && read.0 <= self.taken_back.load(Ordering::SeqCst)
    }
}

/// Where a key with this hash is.
fn place<T>(places: &[T], hash: u64) -> Option<&T> {
    let count = u64::try_from(places.len()).unwrap_or(u64::MAX).max(1);
    places.get(usize::try_from(hash % count).unwrap_or(0))
}

impl<R: Rules> Default for Seen<R> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_older_than_their_last_change_are_refused() {
        let seen = Seen::<Sound>::new();
        let holds = |as_of, hashes| seen.holds(Sequence(as_of), UnixSeconds(1), hashes);
        assert!(!holds(0, [1, 2]), "nothing is known yet");
        seen.begin(Sequence(10));
        assert!(!holds(9, [1, 2]), "from before anything is known");
        assert!(holds(10, [1, 2]));
        assert!(holds(11, [1, 2]), "somebody else knows more");
        seen.mark(1, Some(Sequence(11)), UnixSeconds(2000));
        seen.mark(7, Some(Sequence(12)), UnixSeconds(2000));
        assert!(!holds(10, [1, 2]), "its credential changed");
        assert!(!holds(10, [2, 1]), "its user changed");
        assert!(holds(11, [1, 2]));
        assert!(holds(10, [3, 4]));
        seen.begin(Sequence(5));
        seen.take_back(UnixSeconds(1000));
        assert!(
            !seen.holds(Sequence(12), UnixSeconds(1000), [3, 4]),
            "of a past that is not the store's any more"
        );
        assert!(seen.holds(Sequence(6), UnixSeconds(1001), [3, 4]));
        assert!(seen.holds_since(UnixSeconds(2001), [1, 2]), "read after it changed");
        assert!(!seen.holds_since(UnixSeconds(2000), [1, 2]));
        assert!(seen.holds_since(UnixSeconds(1001), [3, 4]));
    }
}
