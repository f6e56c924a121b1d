//! Throttle: the last stage before a request costs an upstream or a handler anything.
//!
//! All throttles of a route are asked, in its order, and each that allows the request records it, even if another
//! refuses (DRF 3.18, `APIView.check_throttles`). A route without throttles takes no lock and allocates nothing.

mod alarm;
pub mod counters;
mod gcra;
pub mod guard;
mod keys;
mod log;
pub mod waiting;

use crate::accept::head::Head;
use crate::authenticate::scheme::Identity;
use crate::authorize::Permit;
use crate::clock::Monotonic;
use crate::config::{Rate, ThrottleBy};
use crate::throttle::counters::Counters;
use crate::throttle::keys::{Key, Subject};
use crate::trace::{ThrottleState, Trace};
use std::sync::Arc;
use std::time::Duration;

pub use crate::throttle::alarm::ProxyAlarm;

/// Proof that the request is within all rates. Made only here.
#[must_use]
#[derive(Debug)]
pub struct Admitted {
    permit: Permit,
}

impl Admitted {
    /// Who; `None`: anonymous.
    pub fn identity(&self) -> Option<&Identity> {
        self.permit.identity()
    }
}

/// The request is over a rate (DRF 3.18, `Throttled`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("over a rate")]
pub struct ThrottleError {
    /// When to try again, if anybody can say: the largest wait of the throttles that refused.
    pub wait: Option<Duration>,
}

/// Seconds as the client is told them: rounded up (DRF 3.18, `Throttled.__init__`).
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}

/// The throttles of one route.
#[derive(Debug)]
pub struct Throttles {
    counters: Arc<Counters>,
    list: Box<[Throttle]>,
    /// Whether requests with good credentials are not counted by address.
    known_are_free: bool,
    /// `None`: no address is counted on this route.
    alarm: Option<Arc<ProxyAlarm>>,
}

#[derive(Debug)]
struct Throttle {
    rate: Rate,
    by: ThrottleBy,
    /// Of its name: routes that name the same throttle share its counters.
    scope: Key,
    /// The counter that all requests of the route share.
    whole: Key,
}

/// What the throttles of a route have to know of it.
#[derive(Debug, Clone, Copy)]
pub struct RouteFacts<'a> {
    /// Its name.
    pub name: &'a str,
    /// It forwards, and anonymous requests pass: there a client address stands for those that nobody knows.
    pub is_open: bool,
    /// Whether anything else on this route, such as a guard, counts by address.
    pub counts_addresses: bool,
}

impl Throttles {
    /// The throttles of a route, in its order.
    pub fn new<'a>(
        counters: &Arc<Counters>,
        alarm: &Arc<ProxyAlarm>,
        route: RouteFacts<'_>,
        throttles: impl IntoIterator<Item = &'a crate::config::Throttle>,
    ) -> Self {
        let seed = counters.seed();
        let make = |throttle: &crate::config::Throttle| {
            let scope = seed.scope(&throttle.name);
            let whole = seed.key(scope, Subject::Name(route.name));
            Throttle { rate: throttle.rate, by: throttle.by, scope, whole }
        };
        let list: Box<[_]> = throttles.into_iter().map(make).collect();
        let counts = route.counts_addresses || list.iter().any(|throttle| throttle.by.uses_addresses());
        Self {
            counters: Arc::clone(counters),
            list,
            known_are_free: route.is_open,
            alarm: counts.then(|| Arc::clone(alarm)),
        }
    }

    /// Asks all of them about one request; `identity` is who makes it, `None`: anonymous.
    ///
    /// # Errors
    /// If any refuses.
    pub fn ask(
        &self,
        identity: Option<&Identity>,
        head: &Head,
        now: Monotonic,
        trace: &mut Trace,
    ) -> Result<(), ThrottleError> {
        if let Some(alarm) = &self.alarm {
            alarm.look(head);
        }
        let mut refused: Option<(usize, Option<Duration>)> = None;
        for (place, throttle) in self.list.iter().enumerate() {
            let Some(key) = self.key(throttle, identity, head) else { continue };
            if let Err(wait) = self.counters.hit(key, throttle.rate, now)
                && refused.is_none_or(|(_, longest)| wait > longest)
            {
                refused = Some((place, wait));
            }
        }
        let Some((place, wait)) = refused else {
            trace.throttle = ThrottleState::Admitted;
            return Ok(());
        };
        // A route has few throttles.
        trace.throttled(ThrottleState::Throttled(u8::try_from(place).unwrap_or(u8::MAX)), wait);
        Err(ThrottleError { wait })
    }

    /// Whose counter the request counts on; `None`: on none.
    fn key(&self, throttle: &Throttle, identity: Option<&Identity>, head: &Head) -> Option<Key> {
        let subject = match (throttle.by, identity) {
            (ThrottleBy::Route, _) => return Some(throttle.whole),
            // DRF 3.18, `AnonRateThrottle.get_cache_key`.
            (ThrottleBy::Anonymous, Some(_)) => return None,
            (ThrottleBy::Client, Some(_)) if self.known_are_free => return None,
            // DRF 3.18, `UserRateThrottle.get_cache_key`.
            (ThrottleBy::User, Some(identity)) => Subject::User(identity.user.user.id),
            (ThrottleBy::Token, Some(identity)) => Subject::Credential(identity.credential),
            _ => Subject::Address(head.client.address),
        };
        Some(self.counters.seed().key(throttle.scope, subject))
    }
}

/// Admits a permitted request, if all throttles of its route do.
///
/// # Errors
/// If any refuses.
pub fn admit(
    permit: Permit,
    throttles: &Throttles,
    head: &Head,
    now: Monotonic,
    trace: &mut Trace,
) -> Result<Admitted, ThrottleError> {
    throttles.ask(permit.identity(), head, now, trace)?;
    Ok(Admitted { permit })
}
