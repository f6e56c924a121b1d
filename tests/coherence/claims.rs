//! What must be true of every accepted token.

use crate::scale::{ANSWERED, BOUND, Micros, NOTICED, PAUSE, SETTLED};
use crate::store::{digest, user_id, user_of};
use crate::world::World;
use doorward::cache::change::Change;
use doorward::cache::coherence::rules::Rules;

/// Something that must not happen.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) claim: &'static str,
    pub(crate) detail: String,
}

/// When a revocation was acknowledged.
#[derive(Clone, Copy)]
pub(crate) struct Revoked {
    pub(crate) at: Micros,
    pub(crate) commit: u64,
    /// The server that told the others, and when.
    pub(crate) told: Option<(usize, Micros)>,
}

/// A request that passed.
#[derive(Clone, Copy)]
pub(crate) struct Accepted {
    pub(crate) replica: usize,
    pub(crate) token: usize,
    pub(crate) how: &'static str,
    /// What its route says of `stale_while_unreachable`.
    pub(crate) stale: Micros,
    /// The last commit that was seen by who read the store, if that was another replica.
    pub(crate) told: Option<u64>,
}

impl<R: Rules> World<R> {
    pub(crate) fn accept(&mut self, accepted: Accepted) {
        self.tally.count(accepted.how);
        let Accepted { replica, token, how, .. } = accepted;
        if self.is_of_unknown_past(accepted) {
            self.tally.lost_past += 1;
            return;
        }
        for revoked in [self.tokens[token], self.users[user_of(token)]].into_iter().flatten() {
            if let Some(claim) = self.violated(accepted, revoked) {
                let late = self.now - revoked.at;
                self.violate(claim, || {
                    format!("replica {replica} accepted token {token} ({how}), {late} us after the acknowledgement")
                });
            }
        }
    }

    /// Whether it stands on what another replica read of a past that the store lost, and nothing tells this one: it
    /// began later, or read nothing of that past itself and did not lose the store from sight since. That is documented
    /// (`docs/redis.md`).
    fn is_of_unknown_past(&self, accepted: Accepted) -> bool {
        if !self.store.is_numbered {
            return false;
        }
        let lost = accepted.told.and_then(|commit| self.store.lost(commit));
        lost.is_some_and(|past| self.replicas[accepted.replica].knows_past < past)
    }

    fn violated(&self, accepted: Accepted, revoked: Revoked) -> Option<&'static str> {
        let Accepted { token, how, stale, .. } = accepted;
        let replica = &self.replicas[accepted.replica];
        let late = self.now - revoked.at;
        let named = [Change::Credential(digest(token)), Change::User(user_id(user_of(token)))];
        let is_noticed = replica
            .losses
            .iter()
            .any(|loss| loss.is_of(named) && loss.noticed.is_some_and(|at| at + BOUND < self.now));
        let reaches_store = self.has_had_store(accepted);
        let was_told = revoked.told.is_some_and(|(server, published)| {
            let is_open = replica.asks_redis() && !replica.has_lost;
            is_open && replica.wires.server == server && replica.connected_since < published
        });
        if late > BOUND + stale {
            Some("nobody accepts it later than the bound and stale_while_unreachable")
        } else if late > BOUND && reaches_store {
            Some("who reaches the store accepts it no later than the bound")
        } else if late > BOUND && was_told {
            Some("who was told accepts it no later than the bound")
        } else if how == "carried" && is_noticed {
            Some("who noticed that a message was lost does not carry on for longer than the bound")
        } else if revoked.told.is_none() && reaches_store {
            Some("where others could not be told, who reaches the store accepts it no more")
        } else {
            None
        }
    }

    /// Whether it had the store for long enough to know what was committed.
    fn has_had_store(&self, accepted: Accepted) -> bool {
        let wires = &self.replicas[accepted.replica].wires;
        // While its answers take longer than the bound, the stream is believed instead.
        let is_of_store = matches!(accepted.how, "read" | "believed" | "busy");
        let since = if is_of_store { wires.sql_since } else { wires.quick_since };
        !self.store.is_away && since.max(self.store.since).saturating_add(SETTLED) <= self.now
    }

    /// A request is about to use what is stale, without having asked.
    pub(crate) fn may_be_stale(&mut self, number: usize) {
        let replica = &self.replicas[number];
        if replica.answered + ANSWERED > self.now && replica.failed + PAUSE <= self.now {
            self.violate("who is answered by the store does not use what is stale", || {
                format!("replica {number}")
            });
        }
    }

    /// A request is about to wait for the store, although what is known could be used as stale.
    pub(crate) fn may_wait(&mut self, number: usize) {
        let replica = &self.replicas[number];
        let wires = &replica.wires;
        let since = match (wires.hangs, self.store.is_away && !wires.is_refused) {
            (false, false) => return,
            (true, _) => wires.so_since,
            (false, true) => wires.so_since.max(self.store.since),
        };
        if since.max(replica.started) + NOTICED < self.now {
            let hung = self.now - since;
            self.violate("who is known does not wait for a store that hangs", || {
                format!("replica {number}, {hung} us after it began")
            });
        }
    }

    fn violate(&mut self, claim: &'static str, detail: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { claim, detail: format!("at {} us: {}", self.now, detail()) });
        }
    }
}
