//! Checks and makes password hashes, on threads of its own.
//!
//! A hash of our own takes 17 ms and 19 MiB, one of Django's 130 to 250 ms and up to 100 MiB. So it never runs on a
//! runtime's worker, and not on tokio's blocking pool either: that grows to 512 threads, which is 9 GiB and more. Here
//! threads and queue are bounded; who does not fit is told at once and may come again. A caller who went away costs
//! nothing, so a flood of aborted logins does not fill the threads.

mod argon2;
mod check;
pub mod django;
mod encoded;
mod own;

use crate::password::argon2::Memory;
use crate::password::check::Check;
use crate::secret::{NoRandomness, Secret};
use crate::telemetry::metrics::PasswordMetrics;
use parking_lot::Mutex;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A longer password (bytes) is nobody's: it would only cost time.
pub const PASSWORD_BYTES_MAX: usize = 4096;

/// Why there is no answer about a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// The queue is full; try again later (503 and `Retry-After`).
    #[error("too many passwords are being checked")]
    Busy,
    /// A new password is longer than [`PASSWORD_BYTES_MAX`].
    #[error("the password is longer than {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    /// Hashing failed: no randomness, or a bug (500).
    #[error("the password could not be hashed")]
    Failed,
}

type Job = Box<dyn FnOnce(&mut Memory) + Send>;

/// Hashes and verifies passwords on threads of its own; usable from any runtime.
///
/// The threads end when this is dropped, after what they are at.
#[derive(Debug)]
pub struct Passwords {
    jobs: SyncSender<Job>,
    metrics: PasswordMetrics,
    check: Check,
}

impl Passwords {
    /// Starts the threads. At most `queue` callers wait for one; 0: nobody waits.
    ///
    /// Each thread keeps 19 MiB once it has used argon2. While it checks a hash that was made with more (Django's
    /// argon2 takes 100 MiB, its scrypt 16 MiB) it takes that besides, never more than 128 MiB, and gives it back at
    /// once: so `threads` times 147 MiB at most. Where there is no memory nothing matches.
    ///
    /// # Errors
    /// If the operating system gives no more threads.
    pub fn new(threads: NonZeroUsize, queue: usize) -> io::Result<Self> {
        let (jobs, receiver) = sync_channel(queue);
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..threads.get() {
            let receiver = Arc::clone(&receiver);
            thread::Builder::new().name(format!("password-{number}")).spawn(move || serve(&receiver))?;
        }
        Ok(Self { jobs, metrics: PasswordMetrics::default(), check: Check::default() })
    }

    /// Passwords are measured by these.
    #[must_use]
    pub fn measured(self, metrics: PasswordMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// Whether Django's `md5$…` is checked, which is no protection for a password (default: nobody's). Say so before
    /// [`Self::burning`].
    #[must_use]
    pub fn allow_md5(mut self, allowed: bool) -> Self {
        self.check.allowed.md5 = allowed;
        self
    }

    /// For a database that others fill: an unknown user takes as long as most of `sample` (stored encodings, of a
    /// part of the users or all), told apart by algorithm and costs; of equally many the later. Without one that can
    /// be used it remains as long as one of our own hashes.
    ///
    /// A user whose hash is of another kind can still be told from an unknown one by time. Only a PBKDF2 of fewer
    /// iterations than most is made up for when the password is wrong, as Django does.
    #[must_use]
    pub fn burning(mut self, sample: &[Secret]) -> Self {
        self.check.nobody = self.check.most_common(sample).unwrap_or(self.check.nobody);
        self
    }

    /// Half of the cores, at least one: a flood of logins leaves the other half to requests.
    pub fn threads_default() -> NonZeroUsize {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN)
    }

    /// Hashes a new password with a new salt; yields a PHC string.
    ///
    /// # Errors
    /// [`PasswordError::TooLong`], [`PasswordError::Busy`] at once if the queue is full, else
    /// [`PasswordError::Failed`].
    ///
    /// # Cancel safety
    /// When dropped, work that has not begun is skipped.
    pub async fn hash(&self, password: Secret) -> Result<Secret, PasswordError> {
        if password.expose().len() > PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        let encoded = self.run(move |memory| own::hash(memory, password.expose())).await?;
        encoded.map_err(|_| PasswordError::Failed)
    }

    /// Hashes a new password for Django's tables with a new salt: `pbkdf2_sha256` of 1,000,000 iterations.
    ///
    /// # Errors
    /// As of [`Self::hash`].
    ///
    /// # Cancel safety
    /// When dropped, work that has not begun is skipped.
    pub async fn hash_django(&self, password: Secret) -> Result<Secret, PasswordError> {
        if password.expose().len() > PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        let encoded = self.run(move |_| django::hash(password.expose())).await?;
        encoded.map_err(|_| PasswordError::Failed)
    }

    /// Whether `encoded`, one of ours or of Django's, is the hash of this password. `None` (there is no such user)
    /// takes as long as a user with one of our hashes, or as [`Self::burning`] said; and so does a hash that is
    /// unusable, unknown, malformed, or costs more than we pay. None of them matches.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] at once if the queue is full, else [`PasswordError::Failed`].
    ///
    /// # Cancel safety
    /// When dropped, work that has not begun is skipped.
    pub async fn verify(&self, password: Secret, encoded: Option<Secret>) -> Result<bool, PasswordError> {
        if password.expose().len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let check = self.check;
        self.run(move |memory| check.verify(memory, password.expose(), encoded.as_ref())).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let (answer, waiting) = oneshot::channel();
        let (metrics, waits, came) = (self.metrics.clone(), self.metrics.begin(), Instant::now());
        let job = move |memory: &mut Memory| {
            if !answer.is_closed() {
                let began = Instant::now();
                let worked = work(memory);
                metrics.hashed(began - came, began.elapsed());
                drop(waits);
                drop(answer.send(worked));
            }
        };
        self.jobs.try_send(Box::new(job)).map_err(|error| match error {
            TrySendError::Full(_) => PasswordError::Busy,
            TrySendError::Disconnected(_) => PasswordError::Failed,
        })?;
        waiting.await.map_err(|_| PasswordError::Failed)
    }
}

/// What Django stores for who has no password.
///
/// # Errors
/// If the system gives no randomness.
pub fn unusable() -> Result<Secret, NoRandomness> {
    django::unusable()
}

/// Whether Django would replace a hash that matched by a new one.
pub fn needs_django_rehash(encoded: &Secret) -> bool {
    django::needs_rehash(encoded)
}

/// Whether a hash that matched should be replaced by a new one: other costs than ours, or not ours at all.
pub fn needs_rehash(encoded: &Secret) -> bool {
    own::needs_rehash(encoded)
}

/// Niceness of the threads: where a request and a password want the same core, the request gets ten times as much.
const NICENESS: i32 = 10;

/// A flood of logins must not slow down requests whose token is known.
fn yield_to_requests() {
    // On Linux niceness is a thread's own, and `None` the calling one.
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "passwords are checked at the ordinary priority");
    }
}

/// Takes jobs until the pool is dropped. A job that panics answers nobody (its caller sees `Failed`) and ends only
/// itself.
fn serve(jobs: &Mutex<Receiver<Job>>) {
    yield_to_requests();
    let mut memory = Memory::default();
    loop {
        // One thread waits for the channel, the others for the lock.
        let job = jobs.lock().recv();
        let Ok(job) = job else { return };
        if catch_unwind(AssertUnwindSafe(|| job(&mut memory))).is_err() {
            memory = Memory::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn pool(queue: usize) -> Passwords {
        Passwords::new(NonZeroUsize::MIN, queue).unwrap()
    }

    /// Keeps the only thread busy until the sender is dropped; returns once the thread is.
    async fn occupy(pool: &Arc<Passwords>) -> mpsc::Sender<()> {
        let (release, wait) = mpsc::channel::<()>();
        let (begun, has_begun) = oneshot::channel();
        let pool = Arc::clone(pool);
        tokio::spawn(async move {
            let job = move |_: &mut Memory| {
                begun.send(()).unwrap();
                wait.recv().unwrap_err();
            };
            pool.run(job).await.unwrap();
        });
        has_begun.await.unwrap();
        release
    }

    #[tokio::test]
    async fn password_is_verified_on_a_named_thread() {
        let pool = pool(4);
        let name = pool.run(|_| thread::current().name().map(str::to_owned)).await;
        assert_eq!(name, Ok(Some("password-0".to_owned())));
        let encoded = pool.hash(Secret::new(*b"secret")).await.unwrap();
        assert_eq!(pool.verify(Secret::new(*b"secret"), Some(encoded.clone())).await, Ok(true));
        assert_eq!(pool.verify(Secret::new(*b"other"), Some(encoded)).await, Ok(false));
    }

    #[tokio::test]
    async fn django_is_verified_and_hashed() {
        let pool = pool(4);
        let encoded = pool.hash_django(Secret::new(*b"secret")).await.unwrap();
        assert!(!django::needs_rehash(&encoded));
        assert_eq!(pool.verify(Secret::new(*b"secret"), Some(encoded.clone())).await, Ok(true));
        assert_eq!(pool.verify(Secret::new(*b"other"), Some(encoded)).await, Ok(false));
        let unusable = django::unusable().unwrap();
        assert_eq!(pool.verify(Secret::default(), Some(unusable)).await, Ok(false));
    }

    #[tokio::test]
    async fn md5_is_checked_where_it_is_allowed() {
        let encoded = Secret::new(*b"md5$dIqTM2tW4k8zmqJ6Mj3Ov2$e00094dee4b9106cf5e8b8eecbd5ba49");
        let password = || Secret::new(*b"md5-pass-1");
        assert_eq!(pool(1).verify(password(), Some(encoded.clone())).await, Ok(false));
        assert_eq!(pool(1).allow_md5(true).verify(password(), Some(encoded)).await, Ok(true));
    }

    #[test]
    fn nobody_takes_as_long_as_most_of_the_sample() {
        let own = Check::default().nobody;
        assert_eq!(pool(1).burning(&[]).check.nobody, own);
        assert_eq!(pool(1).burning(&[Secret::new(*b"!x")]).check.nobody, own);
        let sample = Secret::new(*b"pbkdf2_sha1$150000$salt$CBMQlabqMt/73O4UnZqcFAcmryM=");
        assert_ne!(pool(1).burning(&[sample]).check.nobody, own);
    }

    #[tokio::test]
    async fn unknown_user_never_matches() {
        assert_eq!(pool(4).verify(Secret::new(*b"secret"), None).await, Ok(false));
    }

    #[tokio::test]
    async fn too_long_password_is_nobodys() {
        let pool = pool(4);
        let long = Secret::new(vec![b'a'; PASSWORD_BYTES_MAX + 1]);
        assert_eq!(pool.hash(long.clone()).await.unwrap_err(), PasswordError::TooLong);
        assert_eq!(pool.hash_django(long.clone()).await.unwrap_err(), PasswordError::TooLong);
        assert_eq!(pool.verify(long, None).await, Ok(false));
    }

    #[tokio::test]
    async fn full_queue_is_busy_at_once() {
        let pool = Arc::new(pool(1));
        let release = occupy(&pool).await;
        let waiting = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.run(|_| ()).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(pool.run(|_| ()).await, Err(PasswordError::Busy));
        drop(release);
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn work_of_a_caller_who_left_is_skipped() {
        let pool = Arc::new(pool(2));
        let release = occupy(&pool).await;
        let (done, was_done) = mpsc::channel();
        tokio::select! {
            biased;
            _ = pool.run(move |_| done.send(())) => unreachable!("the thread is occupied"),
            () = std::future::ready(()) => {}
        }
        drop(release);
        pool.run(|_| ()).await.unwrap();
        was_done.try_recv().unwrap_err();
    }

    #[tokio::test]
    async fn panic_ends_one_job_only() {
        let pool = pool(4);
        let failed = pool.run(|_| panic!("a bug, staged by this test")).await;
        assert_eq!(failed, Err::<(), _>(PasswordError::Failed));
        assert_eq!(pool.run(|_| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn threads_end_with_the_pool() {
        let pool = pool(4);
        let alive = Arc::new(());
        let witness = Arc::downgrade(&alive);
        thread_local!(static KEPT: std::cell::RefCell<Option<Arc<()>>> = const { std::cell::RefCell::new(None) });
        pool.run(move |_| KEPT.set(Some(alive))).await.unwrap();
        assert_eq!(witness.strong_count(), 1);
        drop(pool);
        while witness.strong_count() > 0 {
            thread::yield_now();
        }
    }
}
