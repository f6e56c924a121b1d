//! Hears what the triggers on Django's tables say, and proves that all of it was heard.
//!
//! PostgreSQL tells listeners of each database in the order of the commits: who notifies holds a lock from the end of
//! its transaction until it is visible. So when a notification of our own comes back, whatever was committed before it was
//! asked for has been heard. Its text is random, and its channel this connection's own: nobody else can say it.
//!
//! The proof is asked for on another connection than the one that listens: nothing is ever awaited there but
//! notifications, so a call that is dropped loses none.

use crate::secret::Secret;
use crate::store::django::triggers::{CHANNEL, Fault, Wanted, message};
use crate::store::sql::Database;
use crate::store::{Change, StoreError};
use sqlx::postgres::{PgListener, PgNotification};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// More changes than this between two readings are answered by [`Change::Something`].
const HEARD_MAX: usize = 10_000;
/// Between two readings that notifications asked for: whoever floods the channel gets no more of them.
const READING_INTERVAL: Duration = Duration::from_millis(10);
/// How long a proof may take to come back once it was sent. A connection that died without a word keeps no reading
/// waiting for longer: it is looked then whether anybody wrote.
const HEAR_WAIT: Duration = Duration::from_millis(250);
/// Random bytes of a channel or a text.
const RANDOM_BYTES: usize = 16;

/// Why nothing is heard.
#[derive(Debug)]
pub(super) enum Deaf {
    /// The triggers cannot be relied on.
    Triggers(Fault),
    /// The connection is gone, or notifications do not reach it.
    Lost,
    /// The store cannot be asked.
    Store(StoreError),
}

/// A connection that listens.
#[derive(Debug)]
pub(super) struct Ears {
    listener: PgListener,
    /// Of this connection alone.
    channel: String,
    /// What was said and is not told yet.
    heard: Vec<Change>,
    /// What identified the triggers when they were last looked at.
    triggers: Option<String>,
    /// The snapshot as it is while nothing is committed after the last proof; empty: there was none.
    proved: String,
    /// When the last reading began.
    read: Instant,
    is_lost: bool,
}

impl Ears {
    /// Hears all that is committed after this call.
    pub(super) async fn open(database: &Database, wanted: &Wanted) -> Result<Self, Deaf> {
        let channel = random("doorward_proof_")?;
        let mut listener = database.listen(CHANNEL).await.ok_or(Deaf::Lost)?;
        listener.listen(&channel).await.map_err(|_| Deaf::Lost)?;
        let mut ears = Self {
            listener,
            channel,
            heard: Vec::new(),
            triggers: None,
            proved: String::new(),
            read: Instant::now(),
            is_lost: false,
        };
        ears.read(database, wanted).await?;
        Ok(ears)
    }

    /// Hears all that was committed before this call.
    ///
    /// # Cancel safety
    /// What was heard is told by [`Self::take_heard`], whatever becomes of the call.
    pub(super) async fn read(&mut self, database: &Database, wanted: &Wanted) -> Result<(), Deaf> {
        if self.is_lost {
            return Err(Deaf::Lost);
        }
        self.read = Instant::now();
        let text = random("")?;
        let seen = wanted.ask(database, &self.channel, text.clone(), &self.proved).await;
        let seen = seen.map_err(Deaf::Store)?;
        if let Some(fault) = seen.fault {
            return Err(Deaf::Triggers(fault));
        }
        if let Some(asked) = &seen.asked {
            let heard = timeout(HEAR_WAIT, self.hear_all(&text)).await;
            heard.unwrap_or(Err(Deaf::Lost))?;
            self.proved = after(&seen.snapshot, asked).unwrap_or_default();
        }
        let was_known = self.triggers.replace(seen.identity.clone());
        if was_known.is_some_and(|known| known != seen.identity) {
            // They were away for a moment, or switched off.
            self.hear(Change::Something);
        }
        Ok(())
    }

    /// Returns when this text of ours has come.
    async fn hear_all(&mut self, text: &str) -> Result<(), Deaf> {
        while self.next().await?.as_deref() != Some(text) {}
        Ok(())
    }

    /// What was heard since the last call.
    pub(super) fn take_heard(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.heard)
    }

    /// Returns when something was said, or at this moment.
    pub(super) async fn wait(&mut self, until: Instant) {
        loop {
            match timeout_at(until, self.next()).await {
                Err(_) => return,
                Ok(Err(_)) => {
                    self.is_lost = true;
                    return;
                }
                // The answer to a reading that nobody waited for.
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None)) => return sleep_until(until.min(self.read + READING_INTERVAL)).await,
            }
        }
    }

    /// Takes the next notification in; yields its text if it came on our own channel.
    async fn next(&mut self) -> Result<Option<Box<str>>, Deaf> {
        let Ok(Some(notification)) = self.listener.try_recv().await else {
            self.is_lost = true;
            return Err(Deaf::Lost);
        };
        Ok(self.take(&notification))
    }

    fn take(&mut self, notification: &PgNotification) -> Option<Box<str>> {
        if notification.channel() == self.channel {
            return Some(notification.payload().into());
        }
        // What cannot be read is from a later version, or from nobody of ours.
        self.hear(message::read(notification.payload()).unwrap_or(Change::Something));
        None
    }

    fn hear(&mut self, change: Change) {
        if self.heard.len() < HEARD_MAX {
            self.heard.push(change);
        } else if self.heard.last() != Some(&Change::Something) {
            self.heard.push(Change::Something);
        }
    }
}

fn random(prefix: &str) -> Result<String, Deaf> {
    let text = Secret::random_hex::<RANDOM_BYTES>(prefix);
    let text = text.map_err(|error| Deaf::Store(StoreError::Unavailable(Box::new(error))))?;
    Ok(String::from_utf8_lossy(text.expose()).into_owned())
}

/// The snapshot (`xmin:xmax:running`) that there is once the transaction `asked` has ended, and no other one, if that can
/// be told.
fn after(snapshot: &str, asked: &str) -> Option<String> {
    let asked: u64 = asked.parse().ok()?;
    let (first, rest) = snapshot.split_once(':')?;
    let (next, running) = rest.split_once(':')?;
    if next.parse() != Ok(asked) {
        return None;
    }
    let next = asked.checked_add(1)?;
    if running.is_empty() {
        Some(format!("{next}:{next}:"))
    } else {
        Some(format!("{first}:{next}:{running}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snapshot_after_a_proof_is_told_if_it_can_be() {
        let told = |snapshot, asked| after(snapshot, asked);
        assert_eq!(told("771:771:", "771").as_deref(), Some("772:772:"));
        assert_eq!(told("760:771:760,765", "771").as_deref(), Some("760:772:760,765"));
        for (snapshot, asked) in
            [("771:771:", "772"), ("771:771:", ""), ("", "1"), ("1", "1"), ("1:x:", "1"), ("1:1:", "-1")]
        {
            assert_eq!(told(snapshot, asked), None, "{snapshot} {asked}");
        }
        assert_eq!(told("1:18446744073709551615:", "18446744073709551615"), None);
    }
}
