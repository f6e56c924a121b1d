//! The shared cache: what one replica asked the store, the others need not; and the channel over which they tell each
//! other what changed.
//!
//! * **Values.** One key for each credential, named by an HMAC, sealed ([`seal`]). Only positive answers of the store;
//!   neither verified passwords nor CSRF secrets.
//! * **Fills.** Who finds nothing leaves a *lease* there: a random mark. A value is put only where that mark still is.
//!   An invalidation deletes the key, and the mark with it, so a replica that read the old row before cannot put it
//!   back; neither can it after a restart, a flush, an eviction or a fail-over that lost the deletion's trace. (This is
//!   the lease of memcached at Facebook, NSDI 2013, section 3.2.1. Tombstones were decided against: they must outlive
//!   the longest load, they are lost by an eviction, and mass revocations fill Redis with them.)
//! * **Changes.** Void keys are deleted first, then one message names the changes: who hears of it finds nothing old.
//!   Changes of users are told only; whoever reads a value looks at its version, see [`SharedValue::version`].
//! * **Counters.** Of throttles and guards, see [`counters`].
//! * **Away.** Redis is asked for milliseconds and through a circuit breaker. Nothing depends on an answer.
//!
//! What is believed when is decided elsewhere.

mod bounded;
mod breaker;
mod counters;
mod dial;
mod fields;
mod link;
mod message;
mod publisher;
mod seal;
mod settings;
mod stream;
mod value;

pub use crate::cache::redis::breaker::FAILURES_MAX;
pub use crate::cache::redis::counters::{Act, Bucket, LOG_TIMES_MAX, Logged};
pub use crate::cache::redis::dial::DialError;
pub use crate::cache::redis::link::{Away, LinkState};
pub use crate::cache::redis::message::{Body, CHANGES_MAX, MESSAGE_BYTES_MAX, Message};
pub use crate::cache::redis::seal::{Keys, NoCipher};
pub use crate::cache::redis::settings::{Login, Node, Settings, Topology, Trust};
pub use crate::cache::redis::stream::{Event, Loss};
pub use crate::cache::redis::value::{SharedValue, VALUE_BYTES_MAX};

use crate::cache::change::{Change, Changes, Sequence};
use crate::cache::coherence::Publisher;
use crate::cache::local::CredentialKey;
use crate::cache::redis::link::Link;
use crate::cache::redis::publisher::Orders;
use crate::cache::redis::seal::{NONCE_BYTES, is_shared, random};
use crate::clock::{Clock, UnixSeconds};
use crate::identity::Family;
use crate::secret::{NoRandomness, Secret};
use crate::telemetry::metrics::SharedCacheMetrics;
use ::redis::{Value, cmd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a lease is kept: longer than a look-up in the store takes. Who comes later does not fill.
const LEASE_TIME: Duration = Duration::from_secs(10);
/// Clocks of replicas may differ by this much (seconds); a value from further in the future is not believed.
const CLOCKS_DIFFER_MAX: i64 = 5;

/// Yields what is there, up to a length; leaves a lease where nothing is. What is no text is nobody's, and goes.
const GET: &str = "\
local seen = redis.pcall('GETRANGE', KEYS[1], 0, ARGV[1])
local wrong = type(seen) == 'table'
if wrong then
  local gone = redis.pcall('DEL', KEYS[1])
  if type(gone) == 'table' then return gone end
elseif seen ~= '' then
  return seen
end
local set = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
if set.err then return set end
if wrong then return 0 end
return ''";

/// Puts a value where the mark still is.
const FILL: &str = "\
local seen = redis.pcall('GETRANGE', KEYS[1], 0, ARGV[1])
if type(seen) == 'table' then return 0 end
if seen ~= ARGV[2] then return 0 end
local set = redis.pcall('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
if set.err then return set end
return 1";

/// What a look-up found.
#[derive(Debug)]
pub struct Got {
    /// A value that was put there by one of us and is not too old. Whether it is believed is decided by the caller.
    pub value: Option<SharedValue>,
    /// Allows a fill, should the caller ask the store now. `None`: nothing is to be filled.
    pub lease: Option<Lease>,
}

/// Allows one fill with what the store says from now on.
#[derive(Debug)]
pub struct Lease {
    /// How what was there begins.
    mark: Vec<u8>,
    /// Of the value that was there.
    version: Option<Sequence>,
}

/// Why there can be no shared cache.
#[derive(Debug, thiserror::Error)]
pub enum SharedCacheError {
    /// See [`NoRandomness`].
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// See [`NoCipher`].
    #[error(transparent)]
    NoCipher(#[from] NoCipher),
}

/// The shared cache; cheap to copy. Its connections end with the last copy.
#[derive(Debug, Clone)]
pub struct SharedCache {
    settings: Arc<Settings>,
    keys: Arc<Keys>,
    clock: Arc<dyn Clock>,
    /// Look-ups and counters.
    link: Link,
    /// What is told to others.
    telling: Link,
    orders: Orders,
    publisher: Publisher,
    metrics: SharedCacheMetrics,
    /// It was told that Redis refuses to count.
    is_refusal_told: Arc<AtomicBool>,
}

impl SharedCache {
    /// Connects in the background; must be called on a runtime, which does the work from now on.
    ///
    /// `store_identity` tells one store from another that has the same deployment key; all replicas of one store say
    /// the same.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn new(
        settings: Settings,
        deployment_key: &Secret,
        store_identity: &[u8],
        clock: Arc<dyn Clock>,
        metrics: SharedCacheMetrics,
    ) -> Result<Self, SharedCacheError> {
        let keys = Arc::new(Keys::new(deployment_key, store_identity, &settings.prefix)?);
        let settings = Arc::new(settings);
        let publisher = Publisher(u64::from_be_bytes(random()?));
        let link = Link::new(Arc::clone(&settings), Arc::clone(&clock));
        let is_cluster = matches!(settings.topology, Topology::Cluster(_));
        // Look-ups that find Redis slow keep no revocation from being told.
        let telling = Link::new(Arc::clone(&settings), Arc::clone(&clock));
        let orders = Orders::new(telling.clone(), Arc::clone(&keys), publisher, is_cluster);
        let is_refusal_told = Arc::default();
        Ok(Self { settings, keys, clock, link, telling, orders, publisher, metrics, is_refusal_told })
    }

    /// Looks a credential up.
    ///
    /// # Errors
    /// If Redis gives no answer.
    pub async fn get(&self, key: &CredentialKey) -> Result<Got, Away> {
        if !is_shared(key.family) {
            return Ok(Got { value: None, lease: None });
        }
        let (got, result) = match self.metrics.measure("get", self.ask(key)).await {
            Ok(found) => found,
            Err(away) => {
                self.metrics.found("away");
                return Err(away);
            }
        };
        self.metrics.found(result);
        Ok(got)
    }

    async fn ask(&self, key: &CredentialKey) -> Result<(Got, &'static str), Away> {
        let name = self.keys.name(key);
        let lease: [u8; NONCE_BYTES] = random()?;
        let mut get = cmd("EVAL");
        get.arg(GET).arg(1).arg(&name).arg(VALUE_BYTES_MAX).arg(&lease[..]).arg(milliseconds(LEASE_TIME));
        let seen = match self.link.ask(&get).await {
            Ok(Value::BulkString(seen)) => seen,
            // Something that is no text was there.
            Ok(Value::Int(_)) => return Ok((leased(lease.to_vec(), None), "refused")),
            Ok(_) => return Err(Away::Strange),
            // Full: nothing was found, and nothing can be put.
            Err(Away::Refused(error)) if error.code() == Some("OOM") => {
                return Ok((Got { value: None, lease: None }, "miss"));
            }
            Err(away) => return Err(away),
        };
        if seen.is_empty() {
            return Ok((leased(lease.to_vec(), None), "miss"));
        }
        let mark = seen.get(..NONCE_BYTES).unwrap_or(&seen).to_vec();
        if seen.len() == NONCE_BYTES {
            // Somebody else asks the store, too. Who is first fills.
            return Ok((leased(mark, None), "miss"));
        }
        let Some(value) = SharedValue::open(&self.keys.values, &name, &seen) else {
            return Ok((leased(mark, None), "refused"));
        };
        if !self.is_young(value.confirmed) {
            return Ok((leased(mark, value.version), "expired"));
        }
        let lease = Some(Lease { mark, version: value.version });
        Ok((Got { value: Some(value), lease }, "hit"))
    }

    /// Whatever Redis' own expiry says: who can write to it can make it forget that.
    fn is_young(&self, confirmed: UnixSeconds) -> bool {
        let age = self.clock.unix().0.saturating_sub(confirmed.0);
        let oldest = i64::try_from(self.settings.value_ttl.as_secs()).unwrap_or(i64::MAX);
        (-CLOCKS_DIFFER_MAX..oldest).contains(&age)
    }

    /// Puts what the store said after the lease was had. `false`: it was not put, because something changed meanwhile,
    /// somebody else was first, or it is not to be shared.
    ///
    /// # Errors
    /// If Redis gives no answer.
    pub async fn fill(&self, key: &CredentialKey, lease: Lease, value: &SharedValue) -> Result<bool, Away> {
        // A store that is behind read less than who filled before.
        if !is_shared(key.family) || value.version < lease.version {
            return Ok(false);
        }
        let name = self.keys.name(key);
        let Some(sealed) = value.seal(&self.keys.values, &name) else { return Ok(false) };
        let mut fill = cmd("EVAL");
        fill.arg(FILL).arg(1).arg(name).arg(NONCE_BYTES - 1).arg(lease.mark).arg(sealed);
        fill.arg(milliseconds(self.settings.value_ttl));
        match self.metrics.measure("fill", self.link.ask(&fill)).await? {
            Value::Int(filled) => Ok(filled == 1),
            _ => Err(Away::Strange),
        }
    }

    /// Deletes what these changes made void, and tells the others. To be called after they were committed; returns when
    /// Redis has done it.
    ///
    /// [`Change::Everything`] is told only: values from before are known by their version, or their time.
    ///
    /// # Errors
    /// If Redis gives no answer: it may have done nothing, or all of it.
    pub async fn invalidate(&self, changes: &Changes) -> Result<(), Away> {
        if changes.is_empty() {
            return Ok(());
        }
        let sent = self.orders.send(Body::Changes(changes.clone()), self.void(changes));
        self.metrics.measure("invalidate", sent).await.map(|_| ())
    }

    /// The same, and has the others say when they have done it. Yields the number of the message.
    ///
    /// # Errors
    /// See there.
    pub async fn invalidate_canary(&self, changes: &Changes) -> Result<u64, Away> {
        let sent = self.orders.send(Body::Canary(changes.clone()), self.void(changes));
        self.metrics.measure("invalidate", sent).await
    }

    /// Names of what these changes made void.
    fn void(&self, changes: &Changes) -> Vec<String> {
        let families = || Family::ALL.into_iter().filter(|family| is_shared(*family));
        let digests = changes.changes.iter().filter_map(|change| match change {
            Change::Credential(digest) => Some(*digest),
            Change::User(_) | Change::Everything | Change::Something => None,
        });
        let keys = digests.flat_map(|digest| families().map(move |family| CredentialKey { digest, family }));
        keys.map(|key| self.keys.name(&key)).collect()
    }

    /// Tells the others something, and yields its number among the messages of this process.
    ///
    /// # Errors
    /// If Redis gives no answer: they may have heard it.
    pub async fn publish(&self, body: Body) -> Result<u64, Away> {
        self.metrics.measure("publish", self.orders.send(body, Vec::new())).await
    }

    /// Listens to all messages, this process's own among them, until the receiver is dropped. Must be called on a
    /// runtime.
    pub fn stream(&self) -> mpsc::Receiver<Event> {
        stream::listen(Arc::clone(&self.settings), Arc::clone(&self.keys), Arc::clone(&self.clock))
    }

    /// What this process is called in its messages.
    pub fn publisher(&self) -> Publisher {
        self.publisher
    }

    /// Whether Redis is asked and told, and why not; connections are counted of those that ask.
    pub fn state(&self) -> LinkState {
        let (asking, telling) = (self.link.state(), self.telling.state());
        LinkState { works: asking.works && telling.works, why: asking.why.or(telling.why), ..asking }
    }
}

fn leased(mark: Vec<u8>, version: Option<Sequence>) -> Got {
    Got { value: None, lease: Some(Lease { mark, version }) }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
