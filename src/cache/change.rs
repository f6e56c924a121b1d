//! What a commit made void, and its place in the order of commits.
//!
//! A store in doorward's own layout numbers its changes without gaps, in the order of their commits, and in the same
//! transaction: whoever has seen the numbers up to one knows every change up to it. An adopted database has no numbers.

use crate::identity::{Digest, UserId};

/// Place of a change in the order of commits; the first one has 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(pub u64);

/// One cached answer that a commit made void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A credential was made, changed or deleted.
    Credential(Digest),
    /// A user's facts, groups or password changed, or the user is gone.
    User(UserId),
    /// So much changed that it cannot be told (rows were missed): believe nothing.
    Everything,
    /// Somebody changed something, and the store does not say what: ask again before anything is believed.
    Something,
}

/// Changes that were committed together, or found together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// In the order of their numbers.
    pub changes: Vec<Change>,
    /// Number of the first one; the others follow without a gap, but [`Change::Everything`] stands for all numbers up
    /// to `last`. `None`: there is none, or the store numbers none.
    pub first: Option<Sequence>,
    /// Whatever has this number or a lower one is told here, or was committed before. `None`: the store numbers none.
    pub last: Option<Sequence>,
}

impl Changes {
    /// Nothing changed.
    pub fn none() -> Self {
        Self::default()
    }

    /// Changes in a store that has no numbers.
    pub fn unnumbered(changes: Vec<Change>) -> Self {
        Self { changes, first: None, last: None }
    }

    /// The changes with the numbers after `before`, without a gap.
    pub fn numbered(before: Sequence, changes: Vec<Change>) -> Self {
        let count = u64::try_from(changes.len()).unwrap_or(u64::MAX);
        let first = (count > 0).then(|| Sequence(before.0.saturating_add(1)));
        Self { changes, first, last: Some(Sequence(before.0.saturating_add(count))) }
    }

    /// Whatever has a number after `before`, up to `last`, and cannot be told one by one.
    pub fn everything(before: Sequence, last: Sequence) -> Self {
        let first = Some(Sequence(before.0.saturating_add(1)));
        Self { changes: vec![Change::Everything], first, last: Some(last) }
    }

    /// The same without numbers: those of a store that holds only a part of what is cached.
    #[must_use]
    pub fn without_numbers(self) -> Self {
        Self::unnumbered(self.changes)
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
