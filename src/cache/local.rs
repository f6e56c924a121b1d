//! The local cache: who a credential belongs to, answered from this process's memory.
//!
//! * A hit ([`LocalCache::recall`]) is a plain function call: no await, no allocation, no system call but the
//!   caller's reading of the clock.
//! * An entry is believed for `revocation_bound` after the store last vouched for it: by answering a look-up, or,
//!   for all entries at once, by saying that nothing has changed ([`LocalCache::prove`]). Past that it is asked
//!   again; while the store cannot be asked, it may be used for `stale_while_unreachable`.
//! * Any number of misses of one credential ask the store once. A fill that an invalidation overtook is refused.
//! * Unknown credentials have a small cache of their own, so that a flood of them evicts nobody.
//!
//! `quick_cache` was chosen because its placeholder refuses a fill that was removed meanwhile; moka puts a revoked
//! token back.

use crate::cache::touched::{Moment, Touched};
use crate::cache::users::{UserRecord, Users};
use crate::cache::uses::Uses;
use crate::clock::{Clock, Monotonic, UnixSeconds};
use crate::identity::{CredentialId, Digest, Family, User, UserId};
use crate::secret::Secret;
use quick_cache::sync::Cache;
use quick_cache::{OptionsBuilder, Weighter};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Name of a credential in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CredentialKey {
    /// SHA-256 of the credential.
    pub digest: Digest,
    /// Its kind.
    pub family: Family,
}

/// Eight bytes of the digest are as good as all: nobody finds many credentials whose digests begin alike, and the
/// maps' hashers are seeded, so nobody learns which ones meet in a bucket.
impl Hash for CredentialKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // `first_chunk` of 32 bytes is never `None`.
        let first = self.digest.0.first_chunk().copied().unwrap_or_default();
        state.write_u64(u64::from_le_bytes(first));
    }
}

/// What the store says of a credential.
#[derive(Debug, Clone)]
pub struct Fact {
    /// Public id.
    pub id: CredentialId,
    /// `None`: never expires.
    pub expires: Option<UnixSeconds>,
    /// The user, active or not.
    pub user: User,
    /// What a session keeps against forged requests (Django's `CSRF_USE_SESSIONS`).
    pub csrf_secret: Option<Arc<Secret>>,
}

/// What the store says where it has no fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nothing {
    /// There is no such credential.
    Absent,
    /// It is there and names nobody: the session of a visitor who is not logged in, or one that cannot be read.
    Nobody,
}

/// The store's answer.
#[derive(Debug, Clone)]
pub enum Found {
    /// Somebody's.
    Fact(Fact),
    /// Nobody's.
    Nothing(Nothing),
}

impl From<Option<Fact>> for Found {
    fn from(fact: Option<Fact>) -> Self {
        fact.map_or(Self::Nothing(Nothing::Absent), Self::Fact)
    }
}

/// A cached credential.
#[derive(Debug, Clone)]
pub struct Known {
    /// The user's record.
    pub user: Arc<UserRecord>,
    /// Public id.
    pub id: CredentialId,
    /// As in [`Fact`].
    pub csrf_secret: Option<Arc<Secret>>,
    expires: UnixSeconds,
    confirmed: Monotonic,
}

impl Known {
    /// Whether it has expired. Entries are never used past the credential's own end.
    pub fn is_expired(&self, now: UnixSeconds) -> bool {
        self.expires <= now
    }

    /// What was just read, for one answer: nobody is told should it change.
    pub fn for_one_answer(fact: Fact, read: Monotonic) -> Self {
        let expires = fact.expires.unwrap_or(UnixSeconds(i64::MAX));
        let user = Arc::new(UserRecord::new(fact.user, read));
        Self { user, id: fact.id, csrf_secret: fact.csrf_secret, expires, confirmed: read }
    }

    /// When it expires. `None`: never.
    pub fn expires(&self) -> Option<UnixSeconds> {
        (self.expires.0 < i64::MAX).then_some(self.expires)
    }
}

/// Both times of one moment; read once for a request.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For freshness.
    pub monotonic: Monotonic,
    /// For expiry.
    pub unix: UnixSeconds,
}

impl Now {
    /// Reads the clock.
    pub fn read(clock: &dyn Clock) -> Self {
        Self::at(clock, clock.monotonic())
    }

    /// The moment `monotonic`, which was just read.
    pub fn at(clock: &dyn Clock, monotonic: Monotonic) -> Self {
        Self { monotonic, unix: clock.unix_at(monotonic) }
    }
}

/// Answer of the hit path.
#[derive(Debug)]
pub enum Recall {
    /// Known and to be believed.
    Known(Known),
    /// Known, not proved, but the store cannot be asked and the entry is not too old.
    Stale(Known),
    /// The store said so a moment ago.
    Unknown(Nothing),
    /// The store must be asked.
    Miss,
}

/// Answer of [`LocalCache::load`].
#[derive(Debug)]
pub enum Loaded {
    /// The store vouched for it.
    Known(Known),
    /// As [`Recall::Stale`].
    Stale(Known),
    /// The store has nothing.
    Unknown(Nothing),
}

/// What is no longer to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalidation {
    /// One credential.
    Credential(CredentialKey),
    /// A user's facts, for all credentials of the user.
    User(UserId),
    /// Everything.
    Everything,
}

/// What a failed look-up says of the store.
pub trait Outage {
    /// Whether the store could not be asked, so that it had better be left alone for a moment. What was known may be
    /// used as stale then.
    fn is_outage(&self) -> bool;

    /// Whether the store was not asked because others wait for it. What it confirmed a moment ago may be used then.
    fn is_busy(&self) -> bool {
        false
    }
}

/// What cannot fail does not.
impl Outage for std::convert::Infallible {
    fn is_outage(&self) -> bool {
        match *self {}
    }
}

/// How long entries are believed, and how many there may be.
#[derive(Debug, Clone, Copy)]
pub struct CacheSettings {
    /// Bytes for all entries together.
    pub capacity_bytes: u64,
    /// How long an entry is believed after it was last proved.
    pub revocation_bound: Duration,
    /// How long the store's "there is none" is believed.
    pub negative_ttl: Duration,
}

/// Bytes of an entry without its user's record, in a full cache with the names of the evicted: measured by
/// `benches/authenticate.rs`. Without evictions it is 108.
const ENTRY_BYTES: u64 = 152;
/// Bytes of an entry for an unknown credential, measured alike.
const UNKNOWN_BYTES: u64 = 144;
/// The least that an entry is counted as.
const SMALLEST_BYTES: u64 = ENTRY_BYTES + UserRecord::BYTES_MIN as u64;
/// Share of the capacity for unknown credentials.
const UNKNOWN_SHARE: u64 = 16;
/// Evicted credentials whose names are kept, as a share of the entries. A name takes the room of an entry, and more
/// of them find no more: with Zipf 0.99 and 0.7, 0.2 gives the hit ratio of `quick_cache`'s 0.5 within 0.5 %.
const GHOST_SHARE: f64 = 0.2;
/// After a failed look-up the store is left alone for this long.
const STORE_PAUSE: Duration = Duration::from_millis(250);
/// A load that is overtaken again and again gives up; the caller answers that nobody knows.
const ATTEMPTS_MAX: usize = 8;

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<CredentialKey, Known> for Weight {
    fn weight(&self, _: &CredentialKey, known: &Known) -> u64 {
        // A shared record is counted with each of its credentials: the bound holds whatever the sharing.
        ENTRY_BYTES.saturating_add(u64::try_from(known.user.bytes()).unwrap_or(u64::MAX))
    }
}

type Seeded = foldhash::fast::RandomState;
type Credentials = Cache<CredentialKey, Known, Weight, Seeded, Evictions>;
type Guard<'a> = quick_cache::sync::PlaceholderGuard<'a, CredentialKey, Known, Weight, Seeded, Evictions>;
type Unknowns = Cache<CredentialKey, (Monotonic, Nothing), quick_cache::UnitWeighter, Seeded, Evictions>;

/// Counts entries that had to go for others.
#[derive(Debug, Clone, Default)]
struct Evictions(Arc<AtomicU64>);

impl<K, V> quick_cache::Lifecycle<K, V> for Evictions {
    type RequestState = ();

    /// Not `on_evict`, which is called for values that are replaced, too.
    fn before_evict(&self, (): &mut (), _: &K, _: &mut V) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// How full a part of the cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Entries.
    pub entries: u64,
    /// Bytes, as the bound counts them.
    pub bytes: u64,
    /// The bound.
    pub bytes_max: u64,
    /// Entries that had to go for others since the start.
    pub evicted: u64,
}

/// The cache; one per process, shared by all cores.
pub struct LocalCache {
    credentials: Credentials,
    unknowns: Unknowns,
    users: Users,
    uses: Uses,
    evicted: Evictions,
    unknowns_evicted: Evictions,
    touched: Touched,
    hasher: Seeded,
    settings: CacheSettings,
    /// All entries are proved as of this moment.
    proved: AtomicU64,
    /// Entries confirmed before this moment are asked for again before they are used: something changed in the store,
    /// and it does not say what.
    doubted: AtomicU64,
    /// The store is not asked before this moment.
    store_pause_ends: AtomicU64,
}

impl std::fmt::Debug for LocalCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalCache").field("entries", &self.credentials.len()).finish_non_exhaustive()
    }
}

fn credentials(capacity_bytes: u64, evictions: Evictions) -> Credentials {
    let items = usize::try_from(capacity_bytes / SMALLEST_BYTES).unwrap_or(usize::MAX);
    let options = OptionsBuilder::new()
        .estimated_items_capacity(items.max(16))
        .weight_capacity(capacity_bytes)
        .ghost_allocation(GHOST_SHARE)
        .build()
        .expect("both capacities are given");
    Cache::with_options(options, Weight, Seeded::default(), evictions)
}

impl LocalCache {
    /// An empty cache.
    pub fn new(settings: CacheSettings) -> Self {
        let unknown_bytes = settings.capacity_bytes / UNKNOWN_SHARE;
        let known_bytes = settings.capacity_bytes.saturating_sub(unknown_bytes);
        let unknowns = (unknown_bytes / UNKNOWN_BYTES).max(16);
        let (evicted, unknowns_evicted) = (Evictions::default(), Evictions::default());
        Self {
            credentials: credentials(known_bytes, evicted.clone()),
            unknowns: Cache::with(
                usize::try_from(unknowns).unwrap_or(usize::MAX),
                unknowns,
                quick_cache::UnitWeighter,
                Seeded::default(),
                unknowns_evicted.clone(),
            ),
            evicted,
            unknowns_evicted,
            users: Users::new(),
            uses: Uses::new(known_bytes / SMALLEST_BYTES),
            touched: Touched::new(),
            hasher: Seeded::default(),
            settings,
            proved: AtomicU64::new(0),
            doubted: AtomicU64::new(0),
            store_pause_ends: AtomicU64::new(0),
        }
    }

    /// Looks a credential up. `stale` is how long after its last proof an entry may be used while the store
    /// cannot be asked.
    pub fn recall(&self, key: &CredentialKey, now: Now, stale: Duration) -> Recall {
        let Some(known) = self.credentials.get(key) else {
            return match self.unknowns.get(key) {
                Some((until, nothing)) if now.monotonic < until => Recall::Unknown(nothing),
                _ => Recall::Miss,
            };
        };
        if !known.user.is_current() {
            Recall::Miss
        } else if self.is_believed(&known, now.monotonic) {
            Recall::Known(known)
        } else if self.is_store_paused(now.monotonic) && self.is_within(&known, now.monotonic, stale) {
            Recall::Stale(known)
        } else {
            Recall::Miss
        }
    }

    /// Looks a credential up that is only in doubt, for a caller whose place at the store is taken by others: the store
    /// confirmed it no longer ago than any change may go unseen.
    pub fn recall_while_busy(&self, key: &CredentialKey, now: Now) -> Option<Known> {
        let known = self.credentials.get(key)?;
        let bound = self.settings.revocation_bound;
        (known.user.is_current() && self.is_within(&known, now.monotonic, bound)).then_some(known)
    }

    /// Asks the store by `ask`, once for any number of callers of one key, and remembers what it says.
    ///
    /// # Errors
    /// Whatever `ask` yields, if nothing can be used instead: what is neither an outage nor a busy store says something
    /// of the credential, and what was known of it is forgotten. `None` if the store is being left alone after a
    /// failure, or the answers were overtaken by changes again and again.
    ///
    /// # Cancel safety
    /// Dropping the future lets the next caller ask, and leaves what was known for it.
    pub async fn load<E: Outage, A, F, T>(
        &self,
        key: CredentialKey,
        clock: &dyn Clock,
        stale: Duration,
        ask: A,
    ) -> Result<Loaded, Option<E>>
    where
        A: Fn() -> F,
        F: Future<Output = Result<T, E>> + Send,
        T: Into<Found>,
    {
        let came = clock.monotonic();
        for _ in 0..ATTEMPTS_MAX {
            let moment = self.touched.now();
            let began = clock.monotonic();
            let held = self.credentials.peek(&key);
            // An entry that is not to be believed must go before the guard is asked for, or it is returned again.
            self.credentials.remove_if(&key, |known| !self.is_usable(known, began));
            let guard = match self.credentials.get_value_or_guard_async(&key).await {
                // The answer that was waited for: refused as a fill, it is refused to those who waited, too.
                Ok(_) if self.touched.since(self.hash(&key), moment) => continue,
                Ok(known) if self.is_usable(&known, clock.monotonic()) => return Ok(Loaded::Known(known)),
                // In doubt already, but the store was asked after this caller came: nothing older is told.
                Ok(known) if known.user.is_current() && known.confirmed > came => {
                    return Ok(Loaded::Known(known));
                }
                Ok(known) if self.is_store_paused(clock.monotonic()) => {
                    return self.stale(known, clock.monotonic(), stale).ok_or(None);
                }
                Ok(_) => continue,
                Err(guard) => guard,
            };
            let mut asking = Asking { cache: self, key, guard: Some(guard), held, moment };
            let unknown = self.unknowns.get(&key).filter(|(until, _)| clock.monotonic() < *until);
            if let Some((_, nothing)) = unknown {
                asking.held = None;
                return Ok(Loaded::Unknown(nothing));
            }
            // Waiting for the guard took time; the load begins here.
            let moment_of_load = self.touched.now();
            let began = clock.monotonic();
            let paused = self.is_store_paused(began);
            let answer = if paused { Err(None) } else { ask().await.map(Into::into).map_err(Some) };
            match answer {
                Ok(Found::Fact(fact)) => {
                    asking.held = None;
                    if let Some(known) = self.adopt(fact, began, moment_of_load)
                        && asking.fill(known.clone())
                    {
                        return Ok(Loaded::Known(known));
                    }
                    // Invalidated while loading: what was read may be old.
                }
                Ok(Found::Nothing(nothing)) => {
                    asking.held = None;
                    self.remember_unknown(key, nothing, began, moment_of_load);
                    return Ok(Loaded::Unknown(nothing));
                }
                Err(error) => return asking.instead(error, clock.monotonic(), stale),
            }
        }
        Err(None)
    }

    /// Forgets what is no longer true. When this returns, no later request is answered by it.
    pub fn invalidate(&self, what: Invalidation) {
        match what {
            Invalidation::Credential(key) => {
                self.touched.mark(self.hash(&key));
                self.credentials.remove(&key);
                self.unknowns.remove(&key);
            }
            Invalidation::User(user) => {
                self.touched.mark(self.hash(&user));
                self.users.retire(user);
            }
            Invalidation::Everything => {
                self.touched.mark_all();
                self.credentials.clear();
                self.unknowns.clear();
                self.users.retire_all();
            }
        }
    }

    /// Forgets all unknown credentials; after any foreign change one of them may have come to be.
    pub fn forget_unknown(&self) {
        self.unknowns.clear();
    }

    /// All entries are proved: the store said, when asked at this moment, that whatever changed was invalidated.
    pub fn prove(&self, asked: Monotonic) {
        self.proved.fetch_max(asked.0, Ordering::AcqRel);
    }

    /// Something changed in the store, which does not say what: no entry that was confirmed before this moment is used
    /// before it was asked for again. Nothing is forgotten, so what the store cannot confirm may still be used as
    /// stale.
    pub fn doubt(&self, moment: Monotonic) {
        self.doubted.fetch_max(moment.0, Ordering::SeqCst);
        self.forget_unknown();
    }

    /// When credentials were last used.
    pub fn uses(&self) -> &Uses {
        &self.uses
    }

    /// How full it is: known credentials, and unknown ones.
    pub fn usage(&self) -> (Usage, Usage) {
        let count = |evictions: &Evictions| evictions.0.load(Ordering::Relaxed);
        let known = Usage {
            entries: u64::try_from(self.credentials.len()).unwrap_or(u64::MAX),
            bytes: self.credentials.weight(),
            bytes_max: self.credentials.capacity(),
            evicted: count(&self.evicted),
        };
        let unknown = Usage {
            entries: u64::try_from(self.unknowns.len()).unwrap_or(u64::MAX),
            bytes: self.unknowns.weight().saturating_mul(UNKNOWN_BYTES),
            bytes_max: self.unknowns.capacity().saturating_mul(UNKNOWN_BYTES),
            evicted: count(&self.unknowns_evicted),
        };
        (known, unknown)
    }

    /// Entries for known credentials.
    pub fn len(&self) -> usize {
        self.credentials.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn adopt(&self, fact: Fact, began: Monotonic, moment: Moment) -> Option<Known> {
        let hash = self.hash(&fact.user.id);
        let user = self.users.adopt(fact.user, began)?;
        // The record is registered now: an invalidation from here on retires it; an earlier one is seen here.
        if self.touched.since(hash, moment) {
            self.users.retire(user.user.id);
            return None;
        }
        let expires = fact.expires.unwrap_or(UnixSeconds(i64::MAX));
        Some(Known { user, id: fact.id, csrf_secret: fact.csrf_secret, expires, confirmed: began })
    }

    fn remember_unknown(&self, key: CredentialKey, nothing: Nothing, began: Monotonic, moment: Moment) {
        self.unknowns.insert(key, (began.plus(self.settings.negative_ttl), nothing));
        let is_doubted = began.0 < self.doubted.load(Ordering::SeqCst);
        if is_doubted || self.touched.since(self.hash(&key), moment) {
            self.unknowns.remove(&key);
        }
    }

    fn is_usable(&self, known: &Known, now: Monotonic) -> bool {
        known.user.is_current() && self.is_believed(known, now)
    }

    fn is_believed(&self, known: &Known, now: Monotonic) -> bool {
        !self.is_doubted(known) && self.is_within(known, now, self.settings.revocation_bound)
    }

    fn is_doubted(&self, known: &Known) -> bool {
        known.confirmed.0 < self.doubted.load(Ordering::Acquire)
    }

    /// Whether the last proof is at most this long ago. What is proved for all entries is not for those in doubt.
    fn is_within(&self, known: &Known, now: Monotonic, bound: Duration) -> bool {
        let proved = if self.is_doubted(known) {
            Monotonic(0)
        } else {
            Monotonic(self.proved.load(Ordering::Acquire))
        };
        now < known.confirmed.max(proved).plus(bound)
    }

    fn stale(&self, known: Known, now: Monotonic, bound: Duration) -> Option<Loaded> {
        let is_good = known.user.is_current() && self.is_within(&known, now, bound);
        is_good.then_some(Loaded::Stale(known))
    }

    fn is_store_paused(&self, now: Monotonic) -> bool {
        now.0 < self.store_pause_ends.load(Ordering::Relaxed)
    }

    fn pause_store(&self, now: Monotonic) {
        self.store_pause_ends.fetch_max(now.plus(STORE_PAUSE).0, Ordering::Relaxed);
    }

    fn hash(&self, key: &impl Hash) -> u64 {
        self.hasher.hash_one(key)
    }
}

/// One caller's turn to ask the store for a credential.
///
/// The entry that is not to be believed any more had to go before the store is asked. If no answer comes, it is put
/// back when this is dropped, even if the caller gave up: otherwise a store that hangs would empty the cache.
struct Asking<'a> {
    cache: &'a LocalCache,
    key: CredentialKey,
    guard: Option<Guard<'a>>,
    held: Option<Known>,
    /// From before the entry was held.
    moment: Moment,
}

impl Asking<'_> {
    /// Remembers the answer; `false`: it was overtaken by an invalidation.
    fn fill(&mut self, known: Known) -> bool {
        self.guard.take().is_some_and(|guard| guard.insert(known).is_ok())
    }

    /// What can be used though the store gave no answer.
    fn instead<E: Outage>(
        mut self,
        error: Option<E>,
        now: Monotonic,
        stale: Duration,
    ) -> Result<Loaded, Option<E>> {
        let bound = match &error {
            // It is being left alone.
            None => stale,
            Some(outage) if outage.is_outage() => {
                self.cache.pause_store(now);
                stale
            }
            Some(busy) if busy.is_busy() => self.cache.settings.revocation_bound,
            Some(_) => {
                self.held = None;
                return Err(error);
            }
        };
        self.put_back().and_then(|held| self.cache.stale(held, now, bound)).ok_or(error)
    }

    /// Puts the entry back for the others who wait, unless it was invalidated meanwhile.
    fn put_back(&mut self) -> Option<Known> {
        let (guard, held) = self.guard.take().zip(self.held.take())?;
        if self.cache.touched.since(self.cache.hash(&self.key), self.moment) {
            return None;
        }
        guard.insert(held.clone()).is_ok().then_some(held)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        drop(self.put_back());
    }
}
