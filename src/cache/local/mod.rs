//! The local cache: who a credential belongs to, answered from this process's memory.
//!
//! * A hit ([`LocalCache::recall`]) is a plain function call: no await, no allocation, no system call but the
//!   caller's reading of the clock.
//! * How long an entry is believed is decided by [coherence](crate::cache::coherence). Past that it is asked for again;
//!   while the store cannot be asked, it may be used for `stale_while_unreachable`.
//! * Any number of misses of one credential ask the store once. A fill that an invalidation overtook is refused.
//! * Unknown credentials have a small cache of their own, so that a flood of them evicts nobody.
//!
//! `quick_cache` was chosen because its placeholder refuses a fill that was removed meanwhile; moka puts a revoked
//! token back.

mod confirm;
mod load;

pub use crate::cache::local::confirm::Confirmed;

use crate::cache::change::{Change, Sequence};
use crate::cache::coherence::Command;
use crate::cache::coherence::seen::Seen;
use crate::cache::coherence::trust::Trust;
use crate::cache::in_use::InUse;
use crate::cache::touched::Touched;
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

/// What another replica was told by the store.
#[derive(Debug, Clone)]
pub struct Shared {
    /// What it was.
    pub fact: Fact,
    /// As of which change. `None`: the store has no numbers.
    pub as_of: Option<Sequence>,
    /// When, by the other's clock.
    pub read: UnixSeconds,
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
    /// The store told another replica, and what that one told is to be believed.
    Shared(Known),
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
    in_use: InUse,
    evicted: Evictions,
    unknowns_evicted: Evictions,
    touched: Touched,
    hasher: Seeded,
    settings: CacheSettings,
    trust: Trust,
    seen: Seen,
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
            in_use: InUse::default(),
            touched: Touched::new(),
            hasher: Seeded::default(),
            settings,
            trust: Trust::new(settings.revocation_bound),
            seen: Seen::new(),
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
        } else if self.trust.is_believed(known.confirmed, now.monotonic, stale) {
            Recall::Known(known)
        } else if self.trust.is_store_spared(now.monotonic)
            && self.trust.is_stale_within(known.confirmed, now.monotonic, stale)
        {
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
        let is_young = self.trust.is_stale_within(known.confirmed, now.monotonic, bound);
        (known.user.is_current() && is_young).then_some(known)
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

    /// Does what the state machine of coherence decided.
    pub fn carry_out(&self, command: Command, now: UnixSeconds) {
        match command {
            Command::Drop(change, number) => self.drop(change, number, now),
            Command::Begin(after) => self.seen.begin(after),
            Command::Void(known) => {
                match known {
                    Some(known) => self.seen.begin(known),
                    None => self.seen.take_back(now),
                }
                self.invalidate(Invalidation::Everything);
            }
            Command::TakeBack => self.seen.take_back(now),
            Command::Prove(asked) => self.trust.prove(asked),
            Command::Carry(sent) => self.trust.carry(sent),
            Command::Doubt(moment) => self.doubt(moment),
            // The store is not read from here.
            Command::ReadNow => {}
            Command::Confirm => self.forget_unknown_of_others(),
        }
    }

    /// Drops what a change made void; its number is kept in mind, and when it was.
    fn drop(&self, change: Change, number: Option<Sequence>, now: UnixSeconds) {
        match change {
            Change::Credential(digest) => {
                self.seen.mark(self.hash(&digest), number, now);
                for family in Family::ALL {
                    self.invalidate(Invalidation::Credential(CredentialKey { digest, family }));
                }
            }
            Change::User(user) => {
                self.seen.mark(self.hash(&user), number, now);
                self.invalidate(Invalidation::User(user));
            }
            Change::Everything | Change::Something => self.invalidate(Invalidation::Everything),
        }
    }

    /// All entries are proved: the store said, when asked at this moment, that whatever changed was invalidated.
    pub fn prove(&self, asked: Monotonic) {
        self.trust.prove(asked);
    }

    /// Something changed in the store, which does not say what: no entry that was confirmed before this moment is used
    /// before it was asked for again. Nothing is forgotten, so what the store cannot confirm may still be used as
    /// stale.
    pub fn doubt(&self, moment: Monotonic) {
        self.trust.doubt(moment);
        self.forget_unknown_of_others();
    }

    /// Forgets unknown credentials but those of our own tables, where what comes to be is named always. (One that was void
    /// for what Django says of its user, and is good again, is known after `negative_ttl`.)
    fn forget_unknown_of_others(&self) {
        self.unknowns.retain(|key, _| key.family == Family::Doorward);
    }

    /// How far entries are believed.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// When credentials were last used.
    pub fn uses(&self) -> &Uses {
        &self.uses
    }

    /// What was asked for lately.
    pub fn in_use(&self) -> &InUse {
        &self.in_use
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

    fn hash(&self, key: &impl Hash) -> u64 {
        self.hasher.hash_one(key)
    }
}
