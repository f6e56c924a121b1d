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
    /// Number of the first one; the others follow without a gap. `None`: the store numbers none.
    pub first: Option<Sequence>,
}

impl Changes {
    /// Nothing changed.
    pub fn none() -> Self {
        Self::default()
    }

    /// Changes in a store that has no numbers.
    pub fn unnumbered(changes: Vec<Change>) -> Self {
        Self { changes, first: None }
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
