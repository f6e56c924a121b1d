//! What this process tells the others: one message after the other, numbered without a gap.
//!
//! A task of its own sends them, so that their numbers are in the order in which Redis gets them. What waits meanwhile
//! goes together: a burst of revocations takes a few messages.

use crate::cache::change::{Changes, Sequence};
use crate::cache::coherence::Publisher;
use crate::cache::redis::link::{Away, Link};
use crate::cache::redis::message::{Body, CHANGES_MAX, Message};
use crate::cache::redis::seal::Keys;
use ::redis::{Value, cmd};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Messages that wait to be sent; who has another waits before that.
const WAITING_MAX: usize = 1024;
/// Names in one command. Also keeps a script's list below what Lua takes.
const NAMES_MAX: usize = 4000;

/// Deletes names and publishes, in this order. `DEL` of the channel's own name, which is never there, makes a replica
/// and a server that may not write refuse, and a Cluster's node that is not the owner send elsewhere.
const PUBLISH: &str = "\
local gone = redis.pcall('DEL', unpack(KEYS))
if type(gone) == 'table' then return gone end
return redis.pcall('PUBLISH', KEYS[1], ARGV[1])";

/// One thing to tell.
#[derive(Debug)]
struct Order {
    body: Body,
    /// Names in Redis that are void.
    names: Vec<String>,
    done: oneshot::Sender<Result<u64, Away>>,
}

/// Takes orders; cheap to copy. The task ends with the last copy.
#[derive(Debug, Clone)]
pub(super) struct Orders(mpsc::Sender<Order>);

impl Orders {
    /// Starts the task. Must be called on a runtime.
    pub(super) fn new(link: Link, keys: Arc<Keys>, publisher: Publisher, is_cluster: bool) -> Self {
        let (sender, orders) = mpsc::channel(WAITING_MAX);
        tokio::spawn(Sending { link, keys, publisher, is_cluster, number: 0 }.work(orders));
        Self(sender)
    }

    /// Deletes the names, publishes the body, and yields the message's number when Redis has answered.
    ///
    /// # Errors
    /// If it did not: nothing may have been done then, or all of it.
    ///
    /// # Cancel safety
    /// What was taken in is sent.
    pub(super) async fn send(&self, body: Body, names: Vec<String>) -> Result<u64, Away> {
        let (done, answer) = oneshot::channel();
        // Neither end goes away while the other is there.
        self.0.send(Order { body, names, done }).await.map_err(|_| Away::Paused)?;
        answer.await.unwrap_or(Err(Away::Paused))
    }
}

#[derive(Debug)]
struct Sending {
    link: Link,
    keys: Arc<Keys>,
    publisher: Publisher,
    is_cluster: bool,
    /// Of the last message.
    number: u64,
}

impl Sending {
    async fn work(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(order) => order,
                None => match orders.recv().await {
                    Some(order) => order,
                    None => return,
                },
            };
            let Order { mut body, mut names, done } = first;
            let mut told = vec![done];
            while let Ok(order) = orders.try_recv() {
                if !merge(&mut body, &order.body) {
                    next = Some(order);
                    break;
                }
                names.extend(order.names);
                told.push(order.done);
            }
            let answer = self.send(body, names).await;
            for done in told {
                // Who no longer waits is not told.
                drop(done.send(answer.clone()));
            }
        }
    }

    async fn send(&mut self, body: Body, names: Vec<String>) -> Result<u64, Away> {
        // Used up by what may have got through, and by changes that did not: they leave a gap, which others take for
        // what it is. A heartbeat that was never sent leaves none.
        self.number += 1;
        let is_missed = matches!(body, Body::Changes(_));
        let sent = self.send_as(self.number, body, names).await;
        if !is_missed && matches!(sent, Err(Away::Paused | Away::Unconnected(_))) {
            self.number -= 1;
        }
        sent
    }

    async fn send_as(&self, number: u64, body: Body, mut names: Vec<String>) -> Result<u64, Away> {
        let message = Message { publisher: self.publisher, number, body };
        let sealed = message.seal(&self.keys.messages, self.keys.channel())?;
        let together = if self.is_cluster { 0 } else { NAMES_MAX };
        while names.len() > together {
            let rest = names.split_off(names.len().min(NAMES_MAX));
            self.link.ask(cmd("DEL").arg(&names)).await?;
            names = rest;
        }
        let mut publish = cmd("EVAL");
        publish.arg(PUBLISH).arg(names.len() + 1).arg(&**self.keys.channel()).arg(names).arg(sealed);
        match self.link.ask(&publish).await? {
            Value::Int(_) => Ok(number),
            _ => Err(Away::Strange),
        }
    }
}

/// Adds changes to others that go before them. `false`: they need a message of their own.
fn merge(body: &mut Body, more: &Body) -> bool {
    let (Body::Changes(changes), Body::Changes(more)) = (body, more) else { return false };
    if changes.changes.len() + more.changes.len() > CHANGES_MAX || !follows(changes, more) {
        return false;
    }
    changes.changes.extend_from_slice(&more.changes);
    changes.last = more.last;
    true
}

/// Whether both can be written as one run of numbers, or have none.
fn follows(changes: &Changes, more: &Changes) -> bool {
    match (changes.last, more.first) {
        (None, None) => changes.first.is_none() && more.last.is_none(),
        (Some(Sequence(last)), Some(Sequence(next))) => {
            last.checked_add(1) == Some(next) && is_run(changes) && is_run(more)
        }
        _ => false,
    }
}

/// One number for each. Of everything, one stands for many.
fn is_run(changes: &Changes) -> bool {
    let before = changes.first.and_then(|Sequence(first)| first.checked_sub(1));
    let count = u64::try_from(changes.changes.len()).ok();
    let last = before.zip(count).and_then(|(before, count)| before.checked_add(count));
    last.is_some() && changes.last.map(|Sequence(last)| last) == last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::change::Change;
    use crate::clock::Monotonic;
    use crate::identity::UserId;

    fn changes(first: Option<u64>, users: std::ops::Range<i64>) -> Body {
        let changes = users.map(|user| Change::User(UserId(user))).collect();
        Body::Changes(match first {
            Some(first) => Changes::numbered(Sequence(first - 1), changes),
            None => Changes::unnumbered(changes),
        })
    }

    #[test]
    fn only_what_is_one_run_of_numbers_goes_together() {
        let mut body = changes(Some(7), 0..2);
        assert!(!merge(&mut body, &changes(Some(8), 2..3)), "overlaps");
        assert!(!merge(&mut body, &changes(Some(10), 2..3)), "leaves one out");
        assert!(!merge(&mut body, &changes(None, 2..3)), "has none");
        let everything = Body::Changes(Changes::everything(Sequence(8), Sequence(20)));
        assert!(!merge(&mut body, &everything), "stands for many");
        assert!(!merge(&mut everything.clone(), &changes(Some(21), 0..1)), "stood for many");
        assert!(!merge(&mut body, &Body::Heartbeat { sent: Monotonic(1) }), "is something else");
        assert_eq!(body, changes(Some(7), 0..2));
        assert!(merge(&mut body, &changes(Some(9), 2..4)));
        assert_eq!(body, changes(Some(7), 0..4));
        let mut body = changes(None, 0..1);
        assert!(merge(&mut body, &changes(None, 1..2)));
        assert_eq!(body, changes(None, 0..2));
    }

    #[test]
    fn no_more_goes_together_than_a_message_names() {
        let most = i64::try_from(CHANGES_MAX).unwrap();
        let mut body = changes(None, 0..most);
        assert!(!merge(&mut body, &changes(None, most..most + 1)));
        let mut body = changes(None, 0..most - 1);
        assert!(merge(&mut body, &changes(None, most - 1..most)));
    }
}
