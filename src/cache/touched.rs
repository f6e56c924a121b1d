//! Tells whether something was invalidated since a load began, so that a fill that was overtaken is refused.
//!
//! A load notes the [`Moment`] before it asks the store; whoever invalidates marks the key first and removes the
//! entry afterwards. Keys share marks (striped by hash): a shared mark refuses a fill too many, never one too few.

use std::sync::atomic::{AtomicU64, Ordering};

/// Marks.
const STRIPES: usize = 1024;

/// When something was last invalidated, by stripe.
#[derive(Debug)]
pub struct Touched {
    now: AtomicU64,
    last: Box<[AtomicU64]>,
}

/// A place in the order of invalidations.
#[derive(Debug, Clone, Copy)]
pub struct Moment(u64);

impl Touched {
    /// Nothing invalidated yet.
    pub fn new() -> Self {
        Self::with_marks(STRIPES)
    }

    /// The same with so many marks; one at least.
    pub fn with_marks(marks: usize) -> Self {
        Self { now: AtomicU64::new(1), last: (0..marks.max(1)).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Before a load begins.
    pub fn now(&self) -> Moment {
        Moment(self.now.load(Ordering::SeqCst))
    }

    /// Marks a key; call it before the entry is removed.
    pub fn mark(&self, hash: u64) {
        let moment = self.now.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        self.stripe(hash).fetch_max(moment, Ordering::SeqCst);
    }

    /// Marks every key.
    pub fn mark_all(&self) {
        let moment = self.now.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        for stripe in &self.last {
            stripe.fetch_max(moment, Ordering::SeqCst);
        }
    }

    /// Whether the key was, or may have been, marked since then.
    pub fn since(&self, hash: u64, moment: Moment) -> bool {
        self.stripe(hash).load(Ordering::SeqCst) > moment.0
    }

    fn stripe(&self, hash: u64) -> &AtomicU64 {
        let marks = u64::try_from(self.last.len()).unwrap_or(u64::MAX).max(1);
        let place = usize::try_from(hash % marks).unwrap_or(0);
        self.last.get(place).unwrap_or(&self.now)
    }
}

impl Default for Touched {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_seen_by_loads_that_began_before_it() {
        let touched = Touched::new();
        let before = touched.now();
        assert!(!touched.since(7, before));
        touched.mark(7);
        assert!(touched.since(7, before));
        assert!(!touched.since(8, before));
        assert!(!touched.since(7, touched.now()));
        let before = touched.now();
        touched.mark_all();
        assert!(touched.since(8, before));
    }
}
