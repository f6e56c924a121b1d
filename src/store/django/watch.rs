//! What Django changed, as far as anybody says, and what was written to our own tables.
//!
//! Django's tables tell nobody what is changed in them, unless there are triggers on them (PostgreSQL, see
//! `triggers`). Without, SQLite says whether anything was (`data_version`), and so does PostgreSQL: as long as no
//! transaction that wrote has ended, the snapshots that it gives out are the same. MySQL says nothing of the kind, so
//! there anything may have been changed at any time.

use crate::store::django::hear::{Deaf, Ears};
use crate::store::django::means::{Means, Shown};
use crate::store::django::triggers::Wanted;
use crate::store::own::Own;
use crate::store::sql::{Database, values};
use crate::store::sqlite::DataVersion;
use crate::store::{Change, ChangeFeed, Changes, StoreError, StoreFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

/// Between two attempts to hear what does not come through.
const LISTEN_INTERVAL: Duration = Duration::from_secs(10);
/// How long a reading waits for the first attempt, at the start and after a loss; for later ones not at all.
const LISTEN_WAIT: Duration = Duration::from_millis(400);
/// How long what ours told waits for what is known of Django's.
const DJANGO_WAIT: Duration = Duration::from_millis(250);
/// Whether anybody answers.
const ANSWER: &str = "SELECT 1 AS answer";

/// What is listened for in PostgreSQL, and by what means it is found now.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) wanted: Wanted,
    pub(super) shown: Shown,
}

/// Both databases.
#[derive(Debug)]
pub(super) struct Feed {
    django: Watch,
    own: Box<dyn ChangeFeed>,
    /// What ours told, until it can be told.
    told: Vec<Change>,
    /// Of Django's nobody knows.
    is_partial: bool,
}

/// What can be seen of Django's.
#[derive(Debug)]
enum Watch {
    Sqlite(Box<DataVersion>),
    Postgres(Box<Postgres>),
    /// Nothing, but whether it answers.
    Blind(Database),
}

impl Feed {
    /// Starts with what is committed after this call.
    pub(super) async fn open(
        database: &Database,
        listening: Option<&Arc<Listening>>,
        own: &Own,
    ) -> Result<Self, StoreError> {
        use crate::store::Store as _;
        let django = match (database, listening) {
            (Database::Sqlite(pools), _) => Watch::Sqlite(Box::new(pools.data_version().await?)),
            (_, Some(listening)) => Watch::Postgres(Box::new(Postgres::open(database, listening).await?)),
            _ => Watch::Blind(database.aside()),
        };
        Ok(Self { django, own: own.change_feed().await?, told: Vec::new(), is_partial: false })
    }
}

impl Watch {
    /// What may have been changed since the last call.
    async fn changes(&mut self) -> Result<Vec<Change>, StoreError> {
        let has_changed = match self {
            Self::Sqlite(version) => version.has_changed().await?,
            Self::Postgres(watch) => return watch.changes().await,
            Self::Blind(database) => database.find(ANSWER, values![]).await?.is_some(),
        };
        Ok(if has_changed { vec![Change::Something] } else { Vec::new() })
    }

    async fn wait(&mut self, at_most: Duration) {
        match self {
            Self::Postgres(watch) => watch.wait(at_most).await,
            Self::Sqlite(_) | Self::Blind(_) => sleep(at_most).await,
        }
    }
}

impl ChangeFeed for Feed {
    fn changes(&mut self) -> StoreFuture<'_, Changes> {
        Box::pin(async {
            let own = self.own.changes().await?;
            self.told.extend(own.changes);
            self.is_partial = false;
            let django = self.django.changes();
            // What ours told is not kept back because of Django's tables: of those nobody knows.
            let changes = if self.told.is_empty() {
                Some(django.await?)
            } else {
                timeout(DJANGO_WAIT, django).await.ok().and_then(Result::ok)
            };
            self.is_partial = changes.is_none();
            self.told.extend(changes.unwrap_or_else(|| vec![Change::Something]));
            // The numbers of ours say nothing of Django's tables.
            Ok(Changes::unnumbered(std::mem::take(&mut self.told)))
        })
    }

    fn is_partial(&self) -> bool {
        self.is_partial
    }

    fn wait(&mut self, at_most: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            tokio::select! {
                () = self.own.wait(at_most) => {}
                () = self.django.wait(at_most) => {}
            }
        })
    }
}

/// Django's tables in PostgreSQL: their triggers are listened to, and while they cannot be relied on it is seen
/// whether anybody wrote.
#[derive(Debug)]
struct Postgres {
    database: Database,
    listening: Arc<Listening>,
    /// `None`: nothing is heard.
    ears: Option<Ears>,
    /// An attempt to hear.
    opening: Option<AbortOnDropHandle<Result<Ears, Deaf>>>,
    /// When to try again, and how long a reading waits for it.
    listen_at: Instant,
    listen_wait: Duration,
    /// Which transactions were seen at the last look, however long ago it was. `None`: there was none.
    snapshot: Option<String>,
    /// What is to be told.
    told: Vec<Change>,
}

impl Postgres {
    async fn open(database: &Database, listening: &Arc<Listening>) -> Result<Self, StoreError> {
        let database = database.aside();
        let mut watch = Self {
            listen_wait: LISTEN_WAIT,
            database,
            listening: Arc::clone(listening),
            ears: None,
            opening: None,
            listen_at: Instant::now(),
            snapshot: None,
            told: Vec::new(),
        };
        watch.look().await?;
        // What was committed before is nobody's to tell.
        watch.told.clear();
        Ok(watch)
    }

    async fn changes(&mut self) -> Result<Vec<Change>, StoreError> {
        if let Some(ears) = &mut self.ears {
            let read = ears.read(&self.database, &self.listening.wanted).await;
            self.told.append(&mut ears.take_heard());
            match read {
                Ok(()) => return Ok(std::mem::take(&mut self.told)),
                Err(Deaf::Store(error)) => return Err(error),
                Err(Deaf::Triggers(_) | Deaf::Lost) => self.stop_listening(),
            }
        }
        self.look().await?;
        Ok(std::mem::take(&mut self.told))
    }

    /// From now on nobody says what was changed. What was heard is told all the same.
    fn stop_listening(&mut self) {
        self.ears = None;
        (self.listen_at, self.listen_wait) = (Instant::now(), LISTEN_WAIT);
    }

    /// Looks whether anybody wrote, and whether it can be heard from now on what.
    async fn look(&mut self) -> Result<(), StoreError> {
        let seen = self.listening.wanted.look(&self.database).await?;
        if self.snapshot.as_ref() != Some(&seen.snapshot) {
            self.snapshot = Some(seen.snapshot);
            self.told.push(Change::Something);
        }
        if let Some(fault) = seen.fault {
            self.opening = None;
            self.listening.shown.set(fault.into());
        } else if self.opening.is_some() || Instant::now() >= self.listen_at {
            self.listen().await;
        }
        Ok(())
    }

    /// Tries to hear. The attempt goes on while readings are answered without it.
    async fn listen(&mut self) {
        let opening = self.opening.get_or_insert_with(|| {
            let (database, listening) = (self.database.clone(), Arc::clone(&self.listening));
            AbortOnDropHandle::new(tokio::spawn(async move {
                let ears = timeout(database.read_wait(), Ears::open(&database, &listening.wanted)).await;
                ears.unwrap_or(Err(Deaf::Lost))
            }))
        });
        let opened = timeout(std::mem::take(&mut self.listen_wait), opening).await;
        let shown = &self.listening.shown;
        let Ok(opened) = opened else { return shown.wait() };
        self.opening = None;
        match opened {
            Ok(Ok(ears)) => {
                self.ears = Some(ears);
                // What was committed since the look above was perhaps not heard yet.
                self.told.push(Change::Something);
                shown.set(Means::Told);
            }
            // They were taken away this moment.
            Ok(Err(Deaf::Triggers(fault))) => shown.set(fault.into()),
            // Or it can be looked, and not be notified.
            Ok(Err(Deaf::Lost | Deaf::Store(_))) | Err(_) => {
                self.listen_at = Instant::now() + LISTEN_INTERVAL;
                shown.set(Means::Unheard);
            }
        }
    }

    async fn wait(&mut self, at_most: Duration) {
        match &mut self.ears {
            Some(ears) => ears.wait(Instant::now() + at_most).await,
            None => sleep(at_most).await,
        }
    }
}
