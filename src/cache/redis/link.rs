//! A connection for commands: kept open by a task of its own, asked through a circuit breaker, never waited for long.

use crate::cache::local::Outage;
use crate::cache::redis::breaker::Breaker;
use crate::cache::redis::dial::{self, Connection, DialError, is_answer};
use crate::cache::redis::settings::{Settings, Topology};
use crate::clock::Clock;
use crate::secret::NoRandomness;
use ::redis::{Cmd, RedisError, Value, cmd};
use futures_util::FutureExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Calls under way at a time; others wait for their turn within their own time.
const CALLS_MAX: usize = 64;
/// Before the second attempt to connect.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Between later ones.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Redis was not asked, or gave no answer that can be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Away {
    /// It did not answer a moment ago, and is left alone.
    #[error("Redis is left alone: it did not answer")]
    Paused,
    /// There is no connection.
    #[error("there is no connection to Redis")]
    Unconnected(#[source] Option<Arc<DialError>>),
    /// No answer in time.
    #[error("Redis did not answer in time")]
    Silent,
    /// The connection was lost, or the server cannot do it now.
    #[error("Redis cannot be asked")]
    Failed(#[source] RedisError),
    /// The server says no.
    #[error("Redis refuses")]
    Refused(#[source] RedisError),
    /// The answer is not what the question asks for.
    #[error("Redis gave no answer that can be understood")]
    Strange,
    /// There is no randomness for a seal.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl Outage for Away {
    fn is_outage(&self) -> bool {
        true
    }
}

/// How things stand.
#[derive(Debug, Clone)]
pub struct LinkState {
    /// Everybody's calls go through.
    pub works: bool,
    /// Connections that were tried since the start.
    pub dials: u64,
    /// Why there is no connection.
    pub why: Option<Arc<DialError>>,
}

/// Cheap to copy. The connection ends with the last copy.
#[derive(Debug, Clone)]
pub(super) struct Link {
    shared: Arc<Shared>,
    _keeper: Arc<DropGuard>,
}

#[derive(Debug)]
struct Shared {
    breaker: Breaker,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    place: watch::Sender<Place>,
    /// Tells the keeper that the connection is of no use.
    broken: Notify,
    calls: Semaphore,
    dials: AtomicU64,
    /// The last generation over which a call failed.
    failed: AtomicU64,
    is_cluster: bool,
}

/// What is known of the connection.
#[derive(Debug, Clone, Default)]
struct Place {
    /// Counts connections.
    generation: u64,
    connection: Option<Connection>,
    why: Option<Arc<DialError>>,
}

impl Link {
    /// Connects in the background. Must be called on a runtime, which does the work from now on.
    pub(super) fn new(settings: Arc<Settings>, clock: Arc<dyn Clock>) -> Self {
        let shared = Arc::new(Shared {
            breaker: Breaker::default(),
            clock,
            timeout: settings.timeout,
            place: watch::Sender::new(Place::default()),
            broken: Notify::new(),
            calls: Semaphore::new(CALLS_MAX),
            dials: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            is_cluster: matches!(settings.topology, Topology::Cluster(_)),
        });
        let stop = CancellationToken::new();
        let keeper = keep(Arc::clone(&shared), settings);
        tokio::spawn(stop.clone().run_until_cancelled_owned(keeper));
        Self { shared, _keeper: Arc::new(stop.drop_guard()) }
    }

    /// Sends a command, and waits for its answer for the configured time at most.
    ///
    /// # Errors
    /// See [`Away`].
    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value, Away> {
        let shared = &self.shared;
        if !shared.breaker.admits(shared.clock.monotonic()) {
            return Err(Away::Paused);
        }
        let mut asked = None;
        let answer = timeout(shared.timeout, async {
            // Closed by nobody.
            let _turn = shared.calls.acquire().await.map_err(|_| Away::Paused)?;
            let mut places = shared.place.subscribe();
            let place = places.wait_for(|place| place.connection.is_some()).await;
            let place = place.map_err(|_| Away::Paused)?.clone();
            asked = Some(place.generation);
            match place.connection {
                Some(mut connection) => connection.ask(command).await.map_err(|error| {
                    if is_answer(&error) { Away::Refused(error) } else { Away::Failed(error) }
                }),
                None => Err(Away::Unconnected(place.why)),
            }
        });
        let answer = answer.await.unwrap_or_else(|_| match asked {
            Some(_) => Err(Away::Silent),
            None => Err(Away::Unconnected(shared.place.borrow().why.clone())),
        });
        shared.note(asked, &answer);
        answer
    }

    /// How things stand.
    pub(super) fn state(&self) -> LinkState {
        let place = self.shared.place.borrow().clone();
        LinkState {
            works: self.shared.breaker.is_closed() && place.connection.is_some(),
            dials: self.shared.dials.load(Ordering::Relaxed),
            why: place.why,
        }
    }
}

impl Shared {
    /// What an answer says of the connection that it came over.
    fn note(&self, asked: Option<u64>, answer: &Result<Value, Away>) {
        if matches!(answer, Ok(_) | Err(Away::Refused(_))) {
            self.breaker.answered();
            return;
        }
        let Some(asked) = asked else {
            self.breaker.failed();
            return;
        };
        // All calls over a connection fail when it is lost: that is one failure. A Cluster's is many.
        let is_new = self.is_cluster || self.failed.fetch_max(asked, Ordering::Relaxed) < asked;
        if is_new {
            self.breaker.failed();
            if !self.is_cluster {
                self.forget(asked);
            }
            self.broken.notify_one();
        }
    }

    /// Nobody is to use this connection any more.
    fn forget(&self, generation: u64) {
        self.place.send_if_modified(|place| {
            let is_current = place.generation == generation;
            is_current && place.connection.take().is_some()
        });
    }
}

/// Opens connections, one after the other.
async fn keep(shared: Arc<Shared>, settings: Arc<Settings>) {
    let mut pause = Duration::ZERO;
    loop {
        // Whatever was noted concerns a connection that is gone.
        let _noted = shared.broken.notified().now_or_never();
        shared.dials.fetch_add(1, Ordering::Relaxed);
        match dial::commands(&settings).await {
            Ok(connection) => {
                shared.place.send_modify(|place| {
                    place.generation += 1;
                    place.connection = Some(connection.clone());
                    place.why = None;
                });
                shared.breaker.connected();
                watch_over(&shared, connection).await;
                shared.place.send_modify(|place| place.connection = None);
                // One fault is no outage.
                if shared.breaker.is_closed() {
                    pause = Duration::ZERO;
                }
            }
            Err(error) => {
                shared.breaker.failed();
                shared.place.send_modify(|place| place.why = Some(Arc::new(error)));
            }
        }
        pause = pause.saturating_mul(2).clamp(PAUSE_MIN, PAUSE_MAX);
        tokio::time::sleep(jittered(pause)).await;
    }
}

/// Returns when the connection is of no use any more.
async fn watch_over(shared: &Shared, mut connection: Connection) {
    loop {
        match timeout(PAUSE_MAX, shared.broken.notified()).await {
            // A Cluster's goes on with the nodes that work, and finds new ones by itself.
            Ok(()) if !shared.is_cluster || !shared.breaker.is_closed() => return,
            Ok(()) => {}
            Err(_) if shared.breaker.is_closed() => {}
            // Opened by a call that found no connection in time, or whose trial was lost.
            Err(_) => match timeout(shared.timeout, connection.ask(&cmd("PING"))).await {
                Ok(Ok(_)) => shared.breaker.connected(),
                Ok(Err(_)) | Err(_) => return,
            },
        }
    }
}

/// Up to a fifth longer, so that replicas do not come back all at once.
pub(super) fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 1];
    // Without randomness they do.
    getrandom::fill(&mut random).unwrap_or_default();
    pause + pause.mul_f64(f64::from(random[0]) / 1280.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_lengthens_by_a_fifth_at_most() {
        let pause = Duration::from_millis(100);
        for _ in 0..100 {
            assert!((pause..=pause.mul_f64(1.2)).contains(&jittered(pause)));
        }
    }
}
