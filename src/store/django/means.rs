//! By what means it is known what Django changed, for people.

use crate::store::django::triggers::Fault;
use std::sync::atomic::{AtomicU8, Ordering};

/// How Django's changes in PostgreSQL are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    /// The triggers tell.
    Told,
    /// Any write may have changed anything: there are no triggers.
    Missing,
    /// The same: triggers are not those that there should be.
    Others,
    /// The same: what they say does not come through.
    Unheard,
    /// The same: what they say may be no text.
    Encoding,
}

impl Means {
    const ALL: [Self; 5] = [Self::Told, Self::Missing, Self::Others, Self::Unheard, Self::Encoding];

    /// What finds them.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Told => "triggers on Django's tables and PostgreSQL's NOTIFY, within milliseconds",
            Self::Missing => {
                "a look each 100 ms whether anybody wrote to PostgreSQL; what was confirmed before is asked for again \
                 (see `doorward django triggers`)"
            }
            Self::Others | Self::Unheard | Self::Encoding => {
                "a look each 100 ms whether anybody wrote to PostgreSQL; what was confirmed before is asked for again"
            }
        }
    }

    fn log(self, before: Option<Self>) {
        match self {
            Self::Told => tracing::info!("what changes in Django's tables is told by their triggers"),
            Self::Missing if before.is_none() => tracing::info!(
                "Django's tables have no triggers: after any write credentials in use are asked for again; \
                 `doorward django triggers` makes them tell what was changed"
            ),
            Self::Missing => tracing::warn!(
                "the triggers on Django's tables are gone: after any write credentials in use are asked for again"
            ),
            Self::Others => tracing::warn!(
                "triggers on Django's tables are missing or disabled, or are those of another version or configuration: \
                 run `doorward django triggers` again; until then credentials in use are asked for again after any write"
            ),
            Self::Unheard => tracing::warn!(
                "what triggers on Django's tables say does not come through (a pooler in between, or no connection left?): \
                 credentials in use are asked for again after any write"
            ),
            Self::Encoding => tracing::warn!(
                "the encoding of Django's database is SQL_ASCII: its triggers are not listened to, and credentials in use \
                 are asked for again after any write"
            ),
        }
    }
}

impl From<Fault> for Means {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Missing => Self::Missing,
            Fault::Others => Self::Others,
            Fault::Encoding => Self::Encoding,
        }
    }
}

/// The means of now, shared by those who ask; and what was said in the log.
#[derive(Debug)]
pub(super) struct Shown {
    now: AtomicU8,
    logged: AtomicU8,
}

const NONE: u8 = u8::MAX;

impl Shown {
    /// What will probably be used.
    pub(super) fn new(means: Means) -> Self {
        Self { now: AtomicU8::new(means as u8), logged: AtomicU8::new(NONE) }
    }

    /// What is used from now on; logged if that is news.
    pub(super) fn set(&self, means: Means) {
        self.now.store(means as u8, Ordering::Relaxed);
        let before = self.logged.swap(means as u8, Ordering::Relaxed);
        if before != means as u8 {
            means.log(of(before));
        }
    }

    /// Nobody knows yet whether anything is heard: no news for the log.
    pub(super) fn wait(&self) {
        self.now.store(Means::Unheard as u8, Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> Means {
        of(self.now.load(Ordering::Relaxed)).unwrap_or(Means::Missing)
    }
}

fn of(number: u8) -> Option<Means> {
    Means::ALL.into_iter().find(|means| *means as u8 == number)
}
