//! Asks the store for all that is in use, many at once, after something changed there that nobody named: so that hardly a
//! request has to wait for the store because somebody wrote to it.

use crate::app::Backing;
use crate::cache::local::{Confirmed, CredentialKey, LocalCache};
use crate::cache::touched::Moment;
use crate::clock::{Clock, Monotonic};
use crate::identity::{Digest, Family};
use crate::secret::Secret;
use crate::store::session::UserSession;
use crate::store::{CONFIRM_MAX, StoreError};
use crate::telemetry::metrics::StoreMetrics;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// It is given up after this long: what was not confirmed then is asked for by whoever uses it.
const TIME_MAX: Duration = Duration::from_millis(250);
/// Or after this part of the time for which entries are believed: they must not grow old over it.
const SHARE_OF_BOUND: u32 = 4;

/// Yields a moment after which the store was asked for all that is confirmed when this returns.
pub(super) async fn confirm(backing: Backing, clock: Arc<dyn Clock>, metrics: StoreMetrics) -> Monotonic {
    let began = clock.monotonic();
    let time = TIME_MAX.min(backing.cache.trust().bound() / SHARE_OF_BOUND);
    let error = match tokio::time::timeout(time, all(&backing, clock.as_ref(), &metrics)).await {
        Ok(Ok(())) => return began,
        Ok(Err(error)) => Box::new(error) as Box<dyn std::error::Error + Send + Sync>,
        Err(late) => Box::new(late),
    };
    let error = &*error as &dyn std::error::Error;
    tracing::debug!(error, "not all that is in use could be confirmed at once");
    began
}

async fn all(backing: &Backing, clock: &dyn Clock, metrics: &StoreMetrics) -> Result<(), StoreError> {
    let Backing { cache, store, .. } = backing;
    let in_use = cache.in_use().all(clock.monotonic());
    let (sessions, keys): (Vec<_>, Vec<_>) =
        in_use.into_iter().partition(|(key, _)| key.family == Family::Session);
    for some in keys.chunks(CONFIRM_MAX) {
        let (asked, moment) = (clock.monotonic(), cache.confirming());
        let found = metrics.measure("find-keys", store.find_keys(presented(some))).await?.into_iter();
        let said =
            found.map(|(digest, user)| (digest, Some(Confirmed { user, expires: None, csrf_secret: None })));
        take_in(cache, some, said.collect(), (asked, moment));
    }
    for some in sessions.chunks(CONFIRM_MAX) {
        let (asked, moment) = (clock.monotonic(), cache.confirming());
        let found = store.find_sessions(presented(some), clock.unix());
        let found = metrics.measure("find-sessions", found).await?.into_iter();
        let confirmed = |session: UserSession| {
            let UserSession { user, expires, csrf_secret, as_of: _ } = session;
            Confirmed { user, expires: Some(expires), csrf_secret }
        };
        let said = found.map(|(digest, session)| (digest, session.map(confirmed)));
        take_in(cache, some, said.collect(), (asked, moment));
    }
    Ok(())
}

fn presented(some: &[(CredentialKey, Secret)]) -> Vec<Secret> {
    some.iter().map(|(_, presented)| presented.clone()).collect()
}

/// What the store did not name is nobody's any more. Of what has to be looked at alone nothing is taken in: whoever uses
/// it asks.
fn take_in(
    cache: &LocalCache,
    some: &[(CredentialKey, Secret)],
    mut said: HashMap<Digest, Option<Confirmed>>,
    (asked, moment): (Monotonic, Moment),
) {
    for (key, _) in some {
        match said.remove(&key.digest) {
            Some(None) => {}
            said => cache.confirm(*key, said.flatten(), asked, moment),
        }
    }
}
