//! Asks for a credential that the cache does not know, or does not believe in any more.
//!
//! First what another replica was told, if that is shared, then the store. Whatever is remembered was not overtaken by
//! a change meanwhile, and what cannot be confirmed is put back for those who may use it as stale.

use crate::cache::local::{
    CredentialKey, Fact, Found, Guard, Known, Loaded, LocalCache, Nothing, Now, Outage, Shared,
};
use crate::cache::touched::Moment;
use crate::cache::users::UserRecord;
use crate::clock::{Clock, Monotonic, UnixSeconds};
use crate::identity::User;
use std::sync::Arc;
use std::time::Duration;

/// A load that is overtaken again and again gives up; the caller answers that nobody knows.
const ATTEMPTS_MAX: usize = 8;
/// Clocks of replicas may differ by this much (seconds).
const CLOCKS_DIFFER_MAX: i64 = 5;

impl LocalCache {
    /// As [`Self::load_shared`], with nothing shared.
    ///
    /// # Errors
    /// See there.
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
        self.load_shared(key, clock, stale, || std::future::ready(None), ask).await
    }

    /// Asks others by `share`, and if what they say is not good enough the store by `ask`, once for any number of
    /// callers of one key, and remembers what it says.
    ///
    /// # Errors
    /// Whatever `ask` yields, if nothing can be used instead: what is neither an outage nor a busy store says something
    /// of the credential, and what was known of it is forgotten. `None` if the store is being left alone after a
    /// failure, or the answers were overtaken by changes again and again.
    ///
    /// # Cancel safety
    /// Dropping the future lets the next caller ask, and leaves what was known for it.
    pub async fn load_shared<E: Outage, S, G, A, F, T>(
        &self,
        key: CredentialKey,
        clock: &dyn Clock,
        stale: Duration,
        share: S,
        ask: A,
    ) -> Result<Loaded, Option<E>>
    where
        S: Fn() -> G,
        G: Future<Output = Option<Shared>> + Send,
        A: Fn() -> F,
        F: Future<Output = Result<T, E>> + Send,
        T: Into<Found>,
    {
        let came = clock.monotonic();
        let mut asks_others = true;
        for _ in 0..ATTEMPTS_MAX {
            let moment = self.touched.now();
            let began = clock.monotonic();
            let held = self.credentials.peek(&key);
            // An entry that is not to be believed must go before the guard is asked for, or it is returned again.
            self.credentials.remove_if(&key, |known| !self.is_usable(known, began, stale));
            let guard = match self.credentials.get_value_or_guard_async(&key).await {
                // The answer that was waited for: refused as a fill, it is refused to those who waited, too.
                Ok(_) if self.touched.since(self.hash(&key), moment) => continue,
                Ok(known) if self.is_usable(&known, clock.monotonic(), stale) => {
                    return Ok(Loaded::Known(known));
                }
                // In doubt already, but the store was asked after this caller came: nothing older is told.
                Ok(known) if known.confirmed > came && self.is_answer(&known, clock.monotonic()) => {
                    return Ok(Loaded::Known(known));
                }
                Ok(known) if self.trust.is_store_away(clock.monotonic()) => {
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
            if std::mem::take(&mut asks_others) {
                let moment = self.touched.now();
                if let Some(shared) = share().await
                    && let Some(known) = asking.take_shared(shared, moment, Now::read(clock), stale)
                {
                    return Ok(Loaded::Shared(known));
                }
            }
            // Waiting took time; the load begins here.
            let moment_of_load = self.touched.now();
            let began = clock.monotonic();
            let away = self.trust.is_store_away(began);
            let answer = if away { Err(None) } else { ask().await.map(Into::into).map_err(Some) };
            if answer.is_ok() {
                self.trust.lookup_answered(clock.monotonic());
            }
            match answer {
                Ok(Found::Fact(fact)) => {
                    asking.held = None;
                    if let Some(known) = self.adopt(fact, began, moment_of_load)
                        && asking.fill(known.clone())
                        && self.is_answer(&known, clock.monotonic())
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

    fn adopt(&self, fact: Fact, began: Monotonic, moment: Moment) -> Option<Known> {
        let user = self.adopt_user(fact.user, began, moment)?;
        let expires = fact.expires.unwrap_or(UnixSeconds(i64::MAX));
        Some(Known { user, id: fact.id, csrf_secret: fact.csrf_secret, expires, confirmed: began })
    }

    /// The record of a user who was read by a load that began then. `None`: it may be old.
    pub(super) fn adopt_user(&self, user: User, began: Monotonic, moment: Moment) -> Option<Arc<UserRecord>> {
        let hash = self.hash(&user.id);
        let user = self.users.adopt(user, began)?;
        // The record is registered now: an invalidation from here on retires it; an earlier one is seen here.
        if self.touched.since(hash, moment) {
            self.users.retire(user.user.id);
            return None;
        }
        Some(user)
    }

    fn remember_unknown(&self, key: CredentialKey, nothing: Nothing, began: Monotonic, moment: Moment) {
        self.unknowns.insert(key, (began.plus(self.settings.negative_ttl), nothing));
        if self.trust.is_doubted(began) || self.touched.since(self.hash(&key), moment) {
            self.unknowns.remove(&key);
        }
    }

    /// Up to which moment what another replica was told is known to be true. `None`: it may not be.
    fn vouched(&self, key: &CredentialKey, shared: &Shared, now: Now) -> Option<Monotonic> {
        let hashes = [self.hash(&key.digest), self.hash(&shared.fact.user.id)];
        // By this replica's clock it may have been earlier.
        let read = UnixSeconds(shared.read.0.saturating_sub(CLOCKS_DIFFER_MAX));
        if let Some(as_of) = shared.as_of {
            // As true as all that this replica knows.
            return self.seen.holds(as_of, read, hashes).then(|| self.trust.proved());
        }
        // Without numbers it is as old as it says. For what is stale that is good enough.
        let age = u64::try_from(now.unix.0.saturating_sub(read.0)).unwrap_or(0);
        let is_unchanged = self.seen.holds_since(read, hashes);
        is_unchanged.then(|| now.monotonic.minus(Duration::from_secs(age)))
    }

    fn is_usable(&self, known: &Known, now: Monotonic, stale: Duration) -> bool {
        known.user.is_current() && self.trust.is_believed(known.confirmed, now, stale)
    }

    fn is_answer(&self, known: &Known, now: Monotonic) -> bool {
        known.user.is_current() && self.trust.is_answer(known.confirmed, now)
    }

    fn stale(&self, known: Known, now: Monotonic, limit: Duration) -> Option<Loaded> {
        let is_good = known.user.is_current() && self.trust.is_stale_within(known.confirmed, now, limit);
        is_good.then_some(Loaded::Stale(known))
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

    /// Remembers what another replica was told, if it is to be believed; else it is held, should the store give no
    /// answer. `moment` is from before the other was asked.
    fn take_shared(&mut self, shared: Shared, moment: Moment, now: Now, stale: Duration) -> Option<Known> {
        let confirmed = self.cache.vouched(&self.key, &shared, now)?;
        let known = self.cache.adopt(shared.fact, confirmed, moment)?;
        if self.cache.is_usable(&known, now.monotonic, stale) {
            self.held = None;
            return self.fill(known.clone()).then_some(known);
        }
        if self.held.as_ref().is_none_or(|held| held.confirmed < confirmed) {
            (self.held, self.moment) = (Some(known), moment);
        }
        None
    }

    /// What can be used though the store gave no answer.
    fn instead<E: Outage>(
        mut self,
        error: Option<E>,
        now: Monotonic,
        stale: Duration,
    ) -> Result<Loaded, Option<E>> {
        let limit = match &error {
            // It is being left alone.
            None => stale,
            Some(outage) if outage.is_outage() => {
                self.cache.trust.store_failed(now);
                stale
            }
            Some(busy) if busy.is_busy() => self.cache.settings.revocation_bound,
            Some(_) => {
                self.held = None;
                return Err(error);
            }
        };
        self.put_back().and_then(|held| self.cache.stale(held, now, limit)).ok_or(error)
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
