//! The way from a core to the slow runtime and back, for what has to wait: SQL, password hashing.
//!
//! Cores never wait for anything but sockets, so that a slow store slows nobody whose credentials are cached.

use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum SlowError<E> {
    /// Too many are waiting already.
    #[error("too many are waiting")]
    Busy,
    /// It took too long.
    #[error("it took too long")]
    Late,
    /// A bug: the task panicked.
    #[error("the task panicked")]
    Panicked,
    /// What was run failed.
    #[error(transparent)]
    Failed(E),
}

/// Runs futures on the slow runtime, a bounded number at a time and each for a bounded time.
#[derive(Debug, Clone)]
pub struct SlowSide {
    runtime: Handle,
    places: Arc<Semaphore>,
    time_max: Duration,
}

impl SlowSide {
    /// At most `pending` at a time, each for at most `time_max`.
    pub fn new(runtime: Handle, pending: usize, time_max: Duration) -> Self {
        Self { runtime, places: Arc::new(Semaphore::new(pending)), time_max }
    }

    /// Runs one.
    ///
    /// # Errors
    /// If there is no place, it takes too long, it panics, or it fails.
    ///
    /// # Cancel safety
    /// What was begun runs to its end: others may be waiting for it.
    pub async fn run<T, E>(
        &self,
        future: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, SlowError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| SlowError::Busy)?;
        let time_max = self.time_max;
        let task = self.runtime.spawn(async move {
            let answer = tokio::time::timeout(time_max, future).await;
            drop(place);
            answer
        });
        match task.await {
            Ok(Ok(answer)) => answer.map_err(SlowError::Failed),
            Ok(Err(_)) => Err(SlowError::Late),
            Err(_) => Err(SlowError::Panicked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow(pending: usize) -> SlowSide {
        SlowSide::new(Handle::current(), pending, Duration::from_secs(1))
    }

    #[tokio::test]
    async fn past_the_bound_is_busy() {
        let slow = slow(1);
        let (release, wait) = tokio::sync::oneshot::channel::<()>();
        let first = tokio::spawn({
            let slow = slow.clone();
            async move { slow.run(async move { wait.await.map_err(|_| ()) }).await }
        });
        while slow.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(slow.run(async { Ok::<_, ()>(()) }).await, Err(SlowError::Busy)));
        release.send(()).unwrap();
        assert!(first.await.unwrap().is_ok());
        assert!(slow.run(async { Ok::<_, ()>(()) }).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn too_long_is_late_and_a_panic_is_an_error() {
        let never = std::future::pending::<Result<(), ()>>();
        assert!(matches!(slow(1).run(never).await, Err(SlowError::Late)));
        let panics = async { if true { panic!("on purpose") } else { Ok::<(), ()>(()) } };
        assert!(matches!(slow(1).run(panics).await, Err(SlowError::Panicked)));
    }
}
