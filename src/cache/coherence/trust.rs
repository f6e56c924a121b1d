//! How far cached answers may be believed: the part of coherence that every request reads.
//!
//! An entry is *confirmed* when the store answered a look-up, as of the moment at which the store was asked. It is
//! *proved* when all that had changed up to some later moment is known to be dropped; that holds for all entries at once.
//! Its last proof is the later one of the two, and it is believed for `revocation_bound` after it. What changed
//! without anybody saying what it was puts all that was confirmed before in *doubt*: proofs do not count for it until it
//! is confirmed again.
//!
//! While the store cannot be read, a live stream of changes *carries* belief on; for how long is the state machine's
//! affair ([`Coherence`](crate::cache::coherence::Coherence)), but never longer than what is stale is used.

use crate::cache::coherence::rules::{Rules, Sound};
use crate::clock::Monotonic;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Doubts that are remembered, so that it is known when an entry in doubt was last proved. Older ones are forgotten, and
/// what was in doubt since then counts from its confirmation.
const DOUBTS_MAX: usize = 16;
/// Shorter than any belief lasts: nobody waits for a store that hung up after an answer.
const ANSWER_KEPT: Duration = Duration::from_millis(300);
/// After a failed look-up the store is left alone for this long.
pub const STORE_PAUSE: Duration = Duration::from_millis(250);

/// What is believed, and until when.
#[derive(Debug)]
pub struct Trust<R = Sound> {
    bound: Duration,
    /// All entries that are not in doubt are proved as of this moment.
    proved: AtomicU64,
    /// The same, but not by the store itself: the stream was live.
    carried: AtomicU64,
    /// Entries confirmed before this moment are in doubt.
    doubted: AtomicU64,
    doubts: Mutex<VecDeque<Doubt>>,
    /// The store is not asked before this moment.
    pause_ends: AtomicU64,
    /// Up to this moment the store is slow.
    slow_ends: AtomicU64,
    /// Up to this moment it is not, whatever its readers say: it answered somebody.
    works_until: AtomicU64,
    rules: PhantomData<R>,
}

/// A moment of doubt, and up to when everything was proved by then.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    at: Monotonic,
    proved: Monotonic,
}

impl<R: Rules> Trust<R> {
    /// Nothing is proved. Entries are believed for `bound` after their last proof.
    pub fn new(bound: Duration) -> Self {
        Self {
            bound,
            proved: AtomicU64::new(0),
            carried: AtomicU64::new(0),
            doubted: AtomicU64::new(0),
            doubts: Mutex::default(),
            pause_ends: AtomicU64::new(0),
            slow_ends: AtomicU64::new(0),
            works_until: AtomicU64::new(0),
            rules: PhantomData,
        }
    }

    /// How long an entry is believed after its last proof.
    pub fn bound(&self) -> Duration {
        self.bound
    }

    /// Whether an entry that was confirmed at this moment may be used without asking anybody. `stale` is
    /// `stale_while_unreachable`: for so long after the store last vouched for it the stream carries belief on.
    pub fn is_believed(&self, confirmed: Monotonic, now: Monotonic, stale: Duration) -> bool {
        if R::DOUBT_OUTLASTS_PROOFS && self.is_doubted(confirmed) {
            return false;
        }
        let proof = confirmed.max(self.proved());
        if !R::BELIEF_ENDS || now < proof.plus(self.bound) {
            return true;
        }
        let carried = Monotonic(self.carried.load(Ordering::Acquire));
        let is_carried = !R::CARRYING_ENDS || now < proof.plus(stale);
        is_carried && now < carried.plus(self.bound)
    }

    /// Whether what the store said when asked at this moment is an answer now; one that took longer than the bound may
    /// have been overtaken. A bound of zero asks always, and takes what comes.
    pub fn is_answer(&self, confirmed: Monotonic, now: Monotonic) -> bool {
        !R::SLOW_ANSWERS_REFUSED
            || self.bound.is_zero()
            || now < confirmed.plus(self.bound)
            || (!self.is_doubted(confirmed) && now < self.proved().plus(self.bound))
    }

    /// Whether it may be used although the store cannot be asked: its last proof is no longer ago than `limit`.
    pub fn is_stale_within(&self, confirmed: Monotonic, now: Monotonic, limit: Duration) -> bool {
        !R::STALE_ENDS || now < self.last_proof(confirmed).plus(limit)
    }

    /// The last moment at which the store vouched for an entry that was confirmed at this moment.
    pub fn last_proof(&self, confirmed: Monotonic) -> Monotonic {
        if !self.is_doubted(confirmed) {
            return confirmed.max(self.proved());
        }
        let doubts = self.doubts.lock();
        // A doubt that was forgotten may be the one that concerns it.
        let is_known =
            doubts.len() < DOUBTS_MAX || doubts.front().is_some_and(|oldest| oldest.at <= confirmed);
        let first = doubts.iter().find(|doubt| confirmed < doubt.at).filter(|_| is_known);
        first.map_or(confirmed, |doubt| confirmed.max(doubt.proved))
    }

    /// All that had changed up to this moment is dropped: the store said so.
    pub fn prove(&self, asked: Monotonic) {
        self.proved.fetch_max(asked.0, Ordering::AcqRel);
    }

    /// All that others told of up to this moment is dropped. Carries belief on while the store cannot be read, but not
    /// what is stale: that counts from what the store itself said.
    pub fn carry(&self, sent: Monotonic) {
        self.carried.fetch_max(sent.0, Ordering::AcqRel);
    }

    /// Up to when the store itself proved everything.
    pub fn proved(&self) -> Monotonic {
        Monotonic(self.proved.load(Ordering::Acquire))
    }

    /// Something changed, and nobody says what: whatever was confirmed before this moment is asked for again.
    pub fn doubt(&self, at: Monotonic) {
        let mut doubts = self.doubts.lock();
        if doubts.back().is_some_and(|last| last.at >= at) {
            return;
        }
        if doubts.len() >= DOUBTS_MAX {
            doubts.pop_front();
        }
        doubts.push_back(Doubt { at, proved: self.proved() });
        self.doubted.fetch_max(at.0, Ordering::SeqCst);
    }

    /// Whether what was confirmed at this moment is in doubt.
    pub fn is_doubted(&self, confirmed: Monotonic) -> bool {
        confirmed.0 < self.doubted.load(Ordering::SeqCst)
    }

    /// Whether the store is being left alone.
    pub fn is_store_away(&self, now: Monotonic) -> bool {
        now.0 < self.pause_ends.load(Ordering::Relaxed)
    }

    /// The store could not be asked: it is left alone for a moment.
    pub fn store_failed(&self, now: Monotonic) {
        self.pause_ends.fetch_max(now.plus(STORE_PAUSE).0, Ordering::Relaxed);
    }

    /// Whether the store is being left alone by those who can do without it for a while: it could not be asked, or takes
    /// long to answer.
    pub fn is_store_spared(&self, now: Monotonic) -> bool {
        let is_slow = R::HANGING_STORE_SPARED && now.0 < self.slow_ends.load(Ordering::Relaxed);
        let works = R::ANSWERS_END_SPARING && now.0 < self.works_until.load(Ordering::Relaxed);
        self.is_store_away(now) || (is_slow && !works)
    }

    /// The store answered a look-up.
    pub fn lookup_answered(&self, now: Monotonic) {
        self.works_until.fetch_max(now.plus(ANSWER_KEPT).0, Ordering::Relaxed);
    }

    /// The store takes long to answer.
    pub fn store_is_slow(&self, now: Monotonic) {
        self.slow_ends.fetch_max(now.plus(STORE_PAUSE).0, Ordering::Relaxed);
    }

    /// The store answered.
    pub fn store_answered(&self) {
        self.pause_ends.store(0, Ordering::Relaxed);
        self.slow_ends.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(milliseconds: u64) -> Monotonic {
        Monotonic(0).plus(Duration::from_millis(milliseconds))
    }

    #[test]
    fn entries_are_believed_for_the_bound_after_their_last_proof() {
        let trust = Trust::<Sound>::new(SECOND);
        assert!(trust.is_believed(at(100), at(1099), SECOND));
        assert!(!trust.is_believed(at(100), at(1100), SECOND));
        trust.prove(at(600));
        assert!(trust.is_believed(at(100), at(1599), SECOND));
        assert!(!trust.is_believed(at(100), at(1600), SECOND));
        trust.prove(at(200));
        assert_eq!(trust.last_proof(at(100)), at(600), "proofs do not go back");
    }

    #[test]
    fn the_stream_carries_belief_and_not_what_is_stale() {
        let trust = Trust::<Sound>::new(SECOND);
        trust.prove(at(500));
        trust.carry(at(900));
        let long = Duration::from_secs(5);
        assert!(trust.is_believed(at(100), at(1899), long));
        assert!(!trust.is_believed(at(100), at(1899), SECOND), "a route that wants less");
        assert!(!trust.is_believed(at(100), at(1900), long));
        assert_eq!(trust.last_proof(at(100)), at(500));
        assert!(!trust.is_stale_within(at(100), at(1500), SECOND));
    }

    #[test]
    fn a_slow_store_is_spared_until_it_answers_somebody() {
        let trust = Trust::<Sound>::new(SECOND);
        assert!(!trust.is_store_spared(at(1000)));
        trust.store_is_slow(at(1000));
        assert!(trust.is_store_spared(at(1001)));
        trust.lookup_answered(at(1010));
        trust.store_is_slow(at(1100));
        assert!(!trust.is_store_spared(at(1101)));
        trust.store_is_slow(at(2000));
        assert!(trust.is_store_spared(at(2020)));
        trust.store_failed(at(2100));
        trust.lookup_answered(at(2100));
        assert!(trust.is_store_spared(at(2300)));
    }

    #[test]
    fn an_answer_older_than_the_bound_is_none_unless_it_is_proved() {
        let trust = Trust::<Sound>::new(SECOND);
        assert!(trust.is_answer(at(100), at(1099)));
        assert!(!trust.is_answer(at(100), at(1100)));
        trust.prove(at(600));
        assert!(trust.is_answer(at(100), at(1100)));
        assert!(Trust::<Sound>::new(Duration::ZERO).is_answer(at(100), at(5000)), "no bound could be kept");
    }

    #[test]
    fn what_is_in_doubt_is_not_proved_until_it_is_confirmed_again() {
        let trust = Trust::<Sound>::new(SECOND);
        trust.prove(at(500));
        trust.doubt(at(600));
        trust.prove(at(700));
        assert!(!trust.is_believed(at(100), at(701), SECOND));
        assert!(trust.is_believed(at(601), at(701), SECOND));
        assert_eq!(trust.last_proof(at(100)), at(500), "as of the proof before the doubt");
        assert_eq!(trust.last_proof(at(550)), at(550));
        assert_eq!(trust.last_proof(at(601)), at(700));
    }

    #[test]
    fn of_several_doubts_the_first_one_counts() {
        let trust = Trust::<Sound>::new(SECOND);
        trust.prove(at(10));
        trust.doubt(at(20));
        trust.prove(at(30));
        trust.doubt(at(40));
        assert_eq!(trust.last_proof(at(5)), at(10));
        assert_eq!(trust.last_proof(at(25)), at(30));
        for number in 3..40 {
            trust.prove(at(number * 20 - 5));
            trust.doubt(at(number * 20));
        }
        assert_eq!(trust.last_proof(at(5)), at(5), "which one it was is forgotten");
        assert_eq!(trust.last_proof(at(765)), at(775));
    }
}
