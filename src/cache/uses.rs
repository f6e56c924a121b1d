//! When credentials were last used: noted on every hit, written to the store in batches.
//!
//! A use costs two loads and a store at most: each credential has a slot with the moment of its last use. Only the
//! first use in a minute is also put aside to be written, so a credential is written at most once a minute however
//! often it is used and however often what was put aside is taken.
//!
//! Credentials can share a slot. That never mixes them up (a slot says whose it is), it only makes each of them
//! forget when the other is used, and be put aside again.

use crate::clock::{Monotonic, UnixSeconds};
use crate::identity::{CredentialId, Digest};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Fewest and most slots; 8 bytes each.
const SLOTS_MIN: u64 = 1 << 10;
const SLOTS_MAX: u64 = 1 << 20;
/// Credentials put aside at most; a use beyond that is put aside in a later minute.
const PENDING_MAX: usize = 1 << 16;
/// What is put aside, by credential; a power of two.
const SHARDS: usize = 16;
/// Bits of a slot that say when: moments of 2^20 ns (1.05 ms), for 36 years. The rest say whose.
const MOMENT_BITS: u32 = 40;
const MOMENT_MASK: u64 = (1 << MOMENT_BITS) - 1;
const NANOSECONDS_BITS: u32 = 20;
/// Moments in a minute.
const MINUTE: u64 = 60_000_000_000 >> NANOSECONDS_BITS;
/// Nobody's slot: its moment is never reached.
const EMPTY: u64 = u64::MAX;

/// Last uses, shared by all cores.
pub struct Uses {
    slots: Box<[AtomicU64]>,
    pending: Box<[Mutex<Pending>]>,
}

type Pending = HashMap<CredentialId, UnixSeconds, foldhash::fast::RandomState>;

impl Uses {
    /// Nothing used yet; room for about this many credentials to be told apart.
    pub fn new(credentials: u64) -> Self {
        let slots = credentials.clamp(SLOTS_MIN, SLOTS_MAX).next_power_of_two();
        Self {
            slots: (0..slots).map(|_| AtomicU64::new(EMPTY)).collect(),
            pending: (0..SHARDS).map(|_| Mutex::new(room())).collect(),
        }
    }

    /// What was noted of a credential last. Read before the credential is looked up, so that the two waits for memory
    /// are one.
    pub fn mark(&self, digest: Digest) -> Mark<'_> {
        let slot = self.slot(digest);
        Mark { slot, noted: slot.map_or(EMPTY, |slot| slot.load(Ordering::Relaxed)), tag: tag(digest) }
    }

    /// The credential is used now.
    pub fn note(&self, mark: &Mark<'_>, id: CredentialId, monotonic: Monotonic, unix: UnixSeconds) {
        let Some(slot) = mark.slot else { return };
        let moment = (monotonic.0 >> NANOSECONDS_BITS) & MOMENT_MASK;
        let (old, new) = (mark.noted, mark.tag | moment);
        if old == new {
            return;
        }
        // Two cores that meet here note the same use, or one of two that are a millisecond apart.
        slot.store(new, Ordering::Relaxed);
        let is_noted = old & !MOMENT_MASK == mark.tag && (old & MOMENT_MASK) / MINUTE == moment / MINUTE;
        if !is_noted && !self.put_aside(id, unix) {
            slot.store(EMPTY, Ordering::Relaxed);
        }
    }

    /// The last use that is still known here, to about a millisecond.
    pub fn last(&self, digest: Digest) -> Option<Monotonic> {
        let held = self.slot(digest)?.load(Ordering::Relaxed);
        let is_its = held != EMPTY && held & !MOMENT_MASK == tag(digest);
        is_its.then_some(Monotonic((held & MOMENT_MASK) << NANOSECONDS_BITS))
    }

    /// Takes what was put aside.
    pub fn take(&self) -> Vec<(CredentialId, UnixSeconds)> {
        let take = |shard: &Mutex<Pending>| {
            let empty = room();
            std::mem::replace(&mut *shard.lock(), empty)
        };
        self.pending.iter().flat_map(take).collect()
    }

    /// Puts back what could not be written.
    pub fn put_back(&self, uses: Vec<(CredentialId, UnixSeconds)>) {
        for (id, used) in uses {
            self.put_aside(id, used);
        }
    }

    /// `false`: there is no room.
    fn put_aside(&self, id: CredentialId, used: UnixSeconds) -> bool {
        let shard = usize::try_from(id.0 >> 8).unwrap_or_default() % SHARDS;
        let Some(mut pending) = self.pending.get(shard).map(Mutex::lock) else { return false };
        if pending.len() >= PENDING_MAX / SHARDS && !pending.contains_key(&id) {
            return false;
        }
        let last = pending.entry(id).or_insert(used);
        *last = used.max(*last);
        true
    }

    fn slot(&self, digest: Digest) -> Option<&AtomicU64> {
        let place = usize::try_from(first(digest) & MOMENT_MASK).unwrap_or_default()
            & self.slots.len().checked_sub(1)?;
        self.slots.get(place)
    }
}

impl std::fmt::Debug for Uses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uses").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

/// Room for all that a shard may hold, so that a hit never allocates.
fn room() -> Pending {
    HashMap::with_capacity_and_hasher(PENDING_MAX / SHARDS, foldhash::fast::RandomState::default())
}

/// What was noted of one credential, at the moment it was asked.
#[derive(Debug)]
pub struct Mark<'a> {
    slot: Option<&'a AtomicU64>,
    noted: u64,
    tag: u64,
}

/// A digest is its own hash.
fn first(digest: Digest) -> u64 {
    // `first_chunk` of 32 bytes is never `None`.
    u64::from_le_bytes(digest.0.first_chunk().copied().unwrap_or_default())
}

/// The bits of a digest that do not choose its slot, where a slot has its owner's.
fn tag(digest: Digest) -> u64 {
    first(digest) & !MOMENT_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> (Monotonic, UnixSeconds) {
        (Monotonic(3_600 * SECOND + seconds * SECOND), UnixSeconds(1_000 + i64::try_from(seconds).unwrap()))
    }

    /// One that begins with this number.
    fn digest(number: u64) -> Digest {
        let mut digest = Digest([0; 32]);
        digest.0[..8].copy_from_slice(&number.to_le_bytes());
        digest
    }

    fn note(uses: &Uses, id: u64, seconds: u64) {
        let (monotonic, unix) = at(seconds);
        uses.note(&uses.mark(digest(id)), CredentialId(id), monotonic, unix);
    }

    #[test]
    fn a_credential_is_put_aside_once_a_minute() {
        let uses = Uses::new(0);
        let mut taken = Vec::new();
        for second in 0..600 {
            note(&uses, 7, second);
            taken.extend(uses.take());
        }
        assert!((10..=11).contains(&taken.len()), "{taken:?}");
        assert!(taken.iter().all(|(id, _)| *id == CredentialId(7)));
    }

    #[test]
    fn the_last_use_is_known_to_the_millisecond() {
        let uses = Uses::new(0);
        assert_eq!(uses.last(digest(7)), None);
        note(&uses, 7, 1);
        note(&uses, 7, 30);
        let last = uses.last(digest(7)).unwrap();
        assert!(at(30).0.since(last).as_millis() < 2, "{last:?}");
    }

    #[test]
    fn credentials_that_share_a_slot_are_told_apart() {
        let uses = Uses::new(0);
        let (one, other) = (7, 7 | 1 << 50);
        note(&uses, one, 1);
        assert_eq!(uses.last(digest(other)), None);
        note(&uses, other, 2);
        assert_eq!(uses.last(digest(one)), None);
        assert_eq!(uses.take().len(), 2);
    }

    #[test]
    fn a_use_that_found_no_room_is_put_aside_later() {
        let uses = Uses::new(1 << 20);
        let full = u64::try_from(PENDING_MAX / SHARDS).unwrap();
        // All of one shard.
        for number in 0..=full {
            note(&uses, number << 12 | number >> 8 << 40, 0);
        }
        let taken = uses.take();
        assert_eq!(taken.len(), PENDING_MAX / SHARDS);
        for number in 0..=full {
            note(&uses, number << 12 | number >> 8 << 40, 1);
        }
        assert!(!uses.take().is_empty(), "the one that was left out");
    }

    #[test]
    fn what_could_not_be_written_is_kept_with_its_newest_time() {
        let uses = Uses::new(0);
        note(&uses, 7, 0);
        let failed = uses.take();
        note(&uses, 7, 90);
        uses.put_back(failed);
        assert_eq!(uses.take(), [(CredentialId(7), at(90).1)]);
    }
}
