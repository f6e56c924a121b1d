//! A database server: where it is, how long it is waited for, and its connections.

use crate::store::StoreError;
use crate::store::sql::pool::{Manner, Pool};
use sqlx::Connection;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

pub use crate::config::{ServerKind, ServerUrl};

/// How a server is used.
#[derive(Clone)]
pub struct ServerOptions {
    /// How long a write waits for its connection, again for the lock of another writer, and again for each answer.
    pub write_wait: Duration,
    /// How long a read waits, from the wait for a connection to the answer.
    pub read_wait: Duration,
    /// Connections that read.
    pub connections: NonZeroU32,
    /// Trust anchors, as PEM, where the URL wants the server's certificate verified and names none.
    pub roots_pem: Option<Vec<u8>>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            write_wait: Duration::from_secs(2),
            read_wait: Duration::from_secs(2),
            connections: NonZeroU32::MIN.saturating_add(7),
            roots_pem: None,
        }
    }
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { write_wait, read_wait, connections, roots_pem: _ } = self;
        let mut shown = f.debug_struct("ServerOptions");
        shown.field("write_wait", write_wait).field("read_wait", read_wait).field("connections", connections);
        shown.finish_non_exhaustive()
    }
}

/// Connections that write: one does, since writers wait for each other anyway, and one notes last uses.
const WRITERS: u32 = 2;

/// The connections to a server.
#[derive(Debug)]
pub(in crate::store) struct Server<C: Connection + 'static> {
    pub(super) readers: Pool<C>,
    pub(super) writers: Pool<C>,
    pub(super) read_wait: Duration,
    pub(super) write_wait: Duration,
}

impl<C: Connection + 'static> Clone for Server<C> {
    fn clone(&self) -> Self {
        let Self { readers, writers, read_wait, write_wait } = self;
        Self {
            readers: readers.clone(),
            writers: writers.clone(),
            read_wait: *read_wait,
            write_wait: *write_wait,
        }
    }
}

impl<C: Connection + 'static> Server<C> {
    /// The same server, read by a connection apart.
    pub(super) fn aside(&self) -> Self {
        Self { readers: self.readers.apart(), ..self.clone() }
    }

    /// Connects to nothing yet.
    pub(super) fn new(
        url: &ServerUrl,
        options: &ServerOptions,
        manner: fn(&ServerUrl, &ServerOptions, Duration) -> Result<Manner<C>, StoreError>,
    ) -> Result<Self, StoreError> {
        let ServerOptions { write_wait, read_wait, .. } = *options;
        let readers = Pool::new(manner(url, options, read_wait)?, options.connections.get());
        let writers = Pool::new(manner(url, options, patience(write_wait))?, WRITERS);
        Ok(Self { readers, writers, read_wait, write_wait })
    }
}

/// How long a statement of a write may take: long enough for the server to say that a lock was not to be had.
pub(super) fn patience(write_wait: Duration) -> Duration {
    write_wait.saturating_add(Duration::from_secs(1))
}

/// The text is not shown: it may hold a password.
pub(super) fn not_a_url<E>(_: E) -> StoreError {
    StoreError::NotAdoptable("the URL of the store cannot be read".to_owned())
}
