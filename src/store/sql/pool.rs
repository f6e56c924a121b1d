//! Connections to a server, at most so many, of which none is waited for without end.
//!
//! Not sqlx's pool: it asks a connection that comes back whether it is alive, without a time limit, and a server that
//! hangs at that moment keeps the place until TCP gives up, a quarter of an hour later. Here a connection comes back
//! only if its last answer was read to the end; any other one is closed at once, which frees its place.

use crate::store::sql::error::ends_connection;
use parking_lot::Mutex;
use sqlx::{ConnectOptions, Connection};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// Connections that nobody needed for so long are closed.
const IDLE_MAX: Duration = Duration::from_mins(5);
/// A connection that was used so lately is not asked whether it is alive.
const ALIVE: Duration = Duration::from_secs(1);
/// How long it may take to undo what was left half done.
const ROLLBACK_WAIT: Duration = Duration::from_secs(1);

/// Says statements without values to a connection.
pub(super) type Say<C> =
    for<'a> fn(&'a mut C, String) -> Pin<Box<dyn Future<Output = sqlx::Result<()>> + Send + 'a>>;

/// How connections of a kind are made and cleaned.
pub(super) struct Manner<C: Connection + 'static> {
    pub(super) options: C::Options,
    /// Settings of a new connection.
    pub(super) greeting: String,
    pub(super) say: Say<C>,
}

/// The connections.
pub(in crate::store) struct Pool<C: Connection + 'static> {
    shared: Arc<Shared<C>>,
}

struct Shared<C: Connection + 'static> {
    manner: Arc<Manner<C>>,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<(C, Instant)>>,
}

impl<C: Connection + 'static> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<C: Connection + 'static> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options hold a password.
        f.debug_struct("Pool").field("free", &self.shared.places.available_permits()).finish_non_exhaustive()
    }
}

impl<C: Connection + 'static> Pool<C> {
    pub(super) fn new(manner: Manner<C>, connections: u32) -> Self {
        Self::with_places(Arc::new(manner), usize::try_from(connections).unwrap_or(1))
    }

    fn with_places(manner: Arc<Manner<C>>, places: usize) -> Self {
        let places = Arc::new(Semaphore::new(places));
        Self { shared: Arc::new(Shared { manner, places, idle: Mutex::default() }) }
    }

    /// One connection of the same kind, for which nobody here waits; it is not closed with the others.
    pub(super) fn apart(&self) -> Self {
        Self::with_places(Arc::clone(&self.shared.manner), 1)
    }

    /// How connections are made.
    pub(super) fn options(&self) -> &C::Options {
        &self.shared.manner.options
    }

    /// A connection that answers, waited for as long as the caller does.
    pub(super) async fn get(&self) -> sqlx::Result<Lease<C>> {
        let place = Arc::clone(&self.shared.places).acquire_owned().await;
        let place = place.map_err(|_| sqlx::Error::PoolClosed)?;
        let Some((connection, since)) = self.shared.take() else { return self.connect(place).await };
        let mut lease = Lease::new(connection, Arc::clone(&self.shared), place, true);
        if since.elapsed() < ALIVE || lease.is_alive().await {
            return Ok(lease);
        }
        // Those that lay there longer are no better.
        self.forget_idle();
        self.connect(lease.into_place()?).await
    }

    async fn connect(&self, place: OwnedSemaphorePermit) -> sqlx::Result<Lease<C>> {
        let mut connection = self.shared.manner.options.connect().await?;
        (self.shared.manner.say)(&mut connection, self.shared.manner.greeting.clone()).await?;
        Ok(Lease::new(connection, Arc::clone(&self.shared), place, false))
    }

    /// Closes the connections that nobody uses.
    pub(super) fn forget_idle(&self) {
        self.shared.idle.lock().clear();
    }

    /// As [`Self::forget_idle`], and lets nobody have another one.
    pub(super) fn close(&self) {
        self.shared.places.close();
        self.forget_idle();
    }
}

impl<C: Connection + 'static> Shared<C> {
    /// The one that was used last.
    fn take(&self) -> Option<(C, Instant)> {
        let mut idle = self.idle.lock();
        idle.retain(|(_, since)| since.elapsed() < IDLE_MAX);
        idle.pop()
    }

    fn put(&self, connection: C) {
        if !self.places.is_closed() {
            self.idle.lock().push((connection, Instant::now()));
        }
    }
}

/// A connection that somebody uses.
pub(in crate::store) struct Lease<C: Connection + 'static> {
    connection: Option<C>,
    place: Option<OwnedSemaphorePermit>,
    shared: Arc<Shared<C>>,
    /// Somebody else had it before: it may be dead.
    is_used: bool,
    /// An answer is awaited: dropped now, it could not be used again.
    is_busy: bool,
    /// A transaction has begun.
    is_open: bool,
}

impl<C: Connection + 'static> fmt::Debug for Lease<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("is_busy", &self.is_busy).finish_non_exhaustive()
    }
}

impl<C: Connection + 'static> Lease<C> {
    fn new(connection: C, shared: Arc<Shared<C>>, place: OwnedSemaphorePermit, is_used: bool) -> Self {
        let (connection, place) = (Some(connection), Some(place));
        Self { connection, place, shared, is_used, is_busy: false, is_open: false }
    }

    /// To be asked something; [`Self::answered`] follows.
    pub(super) fn ask(&mut self) -> sqlx::Result<&mut C> {
        self.is_busy = true;
        self.connection.as_mut().ok_or(sqlx::Error::WorkerCrashed)
    }

    /// The answer was read to the end. What the server itself refused is an answer as well.
    pub(super) fn answered<T>(&mut self, answer: sqlx::Result<T>) -> sqlx::Result<T> {
        use sqlx::Error::{ColumnDecode, Database, Decode, RowNotFound};
        self.is_busy = match &answer {
            Ok(_) | Err(ColumnDecode { .. } | Decode(_) | RowNotFound) => false,
            Err(Database(error)) => ends_connection(&**error),
            Err(_) => true,
        };
        answer
    }

    /// A transaction has begun, or has ended.
    pub(super) fn set_open(&mut self, is_open: bool) {
        self.is_open = is_open;
    }

    /// Whether it had been used before, and is dead now.
    pub(super) fn is_dead(&self) -> bool {
        self.is_used && self.is_busy
    }

    /// Nobody else is to have it: its settings were changed.
    pub(super) fn spoil(&mut self) {
        self.is_busy = true;
    }

    async fn is_alive(&mut self) -> bool {
        let Ok(connection) = self.ask() else { return false };
        let alive = timeout(ALIVE, connection.ping()).await.is_ok_and(|answer| answer.is_ok());
        self.is_busy = !alive;
        alive
    }

    /// Closes the connection and keeps the place.
    fn into_place(mut self) -> sqlx::Result<OwnedSemaphorePermit> {
        self.connection = None;
        self.place.take().ok_or(sqlx::Error::PoolClosed)
    }
}

impl<C: Connection + 'static> Drop for Lease<C> {
    fn drop(&mut self) {
        let (Some(mut connection), Some(place)) = (self.connection.take(), self.place.take()) else { return };
        if self.is_busy {
            return;
        }
        if !self.is_open {
            self.shared.put(connection);
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let shared = Arc::clone(&self.shared);
        runtime.spawn(async move {
            let done =
                timeout(ROLLBACK_WAIT, (shared.manner.say)(&mut connection, "ROLLBACK".to_owned())).await;
            if done.is_ok_and(|done| done.is_ok()) {
                shared.put(connection);
            }
            drop(place);
        });
    }
}
