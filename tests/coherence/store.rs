//! The store: a log of numbered commits, whose end may be lost.

use crate::scale::{Micros, TOKENS, USERS};
use doorward::cache::change::{Change, Sequence};
use doorward::identity::{Digest, UserId};

pub(crate) fn digest(token: usize) -> Digest {
    let mut bytes = [0; 32];
    bytes[0] = u8::try_from(token).unwrap();
    Digest(bytes)
}

pub(crate) fn user_id(user: usize) -> UserId {
    UserId(i64::try_from(user).unwrap())
}

pub(crate) fn user_of(token: usize) -> usize {
    token % USERS
}

/// Somebody changes this.
#[derive(Debug, Clone, Copy)]
pub(crate) enum What {
    Token(usize),
    User(usize),
    /// Something that voids nobody.
    Harmless(usize),
}

/// A row of the table of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) change: Change,
    /// Tells commits apart that were given the same number; the server has the time of the commit for it.
    pub(crate) commit: u64,
}

pub(crate) struct Store {
    pub(crate) log: Vec<Row>,
    /// Rows up to this number are gone. The newest row never is.
    pruned: u64,
    /// Whether its changes have numbers.
    pub(crate) is_numbered: bool,
    /// For everybody: another server takes over.
    pub(crate) is_away: bool,
    /// Since when it is not.
    pub(crate) since: Micros,
    /// By which commit.
    tokens_revoked: [Option<u64>; TOKENS],
    users_revoked: [Option<u64>; USERS],
    /// How often it went back.
    pub(crate) past: u64,
    /// Of each commit, with which going back it was lost.
    commits: Vec<Option<u64>>,
}

impl Store {
    pub(crate) fn new(is_numbered: bool) -> Self {
        Self {
            log: Vec::new(),
            pruned: 0,
            is_numbered,
            is_away: false,
            since: 0,
            tokens_revoked: [None; TOKENS],
            users_revoked: [None; USERS],
            past: 0,
            // The state in which it begins.
            commits: vec![None],
        }
    }

    pub(crate) fn newest(&self) -> Sequence {
        Sequence(self.log.len() as u64)
    }

    /// The last commit.
    pub(crate) fn last_commit(&self) -> u64 {
        self.log.last().map_or(0, |row| row.commit)
    }

    pub(crate) fn is_good(&self, token: usize) -> bool {
        self.tokens_revoked[token].is_none() && self.users_revoked[user_of(token)].is_none()
    }

    /// Yields the row. `None`: it was so already.
    pub(crate) fn commit(&mut self, what: What) -> Option<Row> {
        let commit = self.commits.len() as u64;
        let (held, change) = match what {
            What::Token(token) => (Some(&mut self.tokens_revoked[token]), Change::Credential(digest(token))),
            What::User(user) => (Some(&mut self.users_revoked[user]), Change::User(user_id(user))),
            What::Harmless(user) => (None, Change::User(user_id(user))),
        };
        if let Some(held) = held {
            if held.is_some() {
                return None;
            }
            *held = Some(commit);
        }
        let row = Row { change, commit };
        self.commits.push(None);
        self.log.push(row);
        Some(row)
    }

    /// Another server takes over, which lacks the last commits.
    pub(crate) fn go_back(&mut self, count: usize) {
        let kept = self.log.len().saturating_sub(count);
        self.past += 1;
        for row in self.log.drain(kept..) {
            self.commits[usize::try_from(row.commit).unwrap()] = Some(self.past);
        }
        self.pruned = self.pruned.min((kept as u64).saturating_sub(1));
        let commits = &self.commits;
        let is_lost = |commit: u64| commits[usize::try_from(commit).unwrap()].is_some();
        for held in self.tokens_revoked.iter_mut().chain(&mut self.users_revoked) {
            *held = held.filter(|commit| !is_lost(*commit));
        }
    }

    /// With which going back a commit was lost.
    pub(crate) fn lost(&self, commit: u64) -> Option<u64> {
        self.commits[usize::try_from(commit).unwrap()]
    }

    pub(crate) fn prune(&mut self) {
        self.pruned = (self.log.len() as u64).saturating_sub(1);
    }

    /// The rows that are still there, and the number before them.
    pub(crate) fn history(&self) -> (Sequence, &[Row]) {
        (Sequence(self.pruned), &self.log[usize::try_from(self.pruned).unwrap()..])
    }

    /// What was committed after the row that a feed read last; `None` if it cannot be told. As the server does it
    /// (`store::own::changes::follow_from`).
    pub(crate) fn after(&self, position: Sequence, last: Option<Row>) -> Option<&[Row]> {
        let place = usize::try_from(position.0).unwrap();
        if place > self.log.len() || position.0 < self.pruned {
            return None;
        }
        let there = place.checked_sub(1).filter(|_| position.0 > self.pruned).map(|before| self.log[before]);
        (last == there).then(|| &self.log[place..])
    }
}
