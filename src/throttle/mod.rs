//! Throttle: the last stage before a request costs an upstream or a handler anything.
//!
//! All throttles of a route are asked, in its order, and each that allows the request records it, even if another
//! refuses (DRF 3.18, `APIView.check_throttles`). A route without throttles takes no lock and allocates nothing.
//!
//! A throttle that is shared is asked in Redis, see [`shared`]; all others never wait.

mod alarm;
pub mod counters;
mod gcra;
pub mod guard;
mod keys;
mod log;
mod shared;
pub mod waiting;

use crate::accept::head::Head;
use crate::authenticate::scheme::Identity;
use crate::authorize::Permit;
use crate::cache::redis::SharedCache;
use crate::clock::Monotonic;
use crate::config::{Rate, ThrottleBy};
use crate::throttle::counters::Counters;
use crate::throttle::keys::{Key, Subject};
use crate::throttle::shared::SharedThrottle;
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
    /// `None`: the process's own.
    shared: Option<Box<SharedThrottle>>,
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
            Throttle { rate: throttle.rate, by: throttle.by, scope, whole, shared: None }
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

    /// With the counters of those that are shared in this cache. `throttles` are the same as before.
    #[must_use]
    pub fn sharing<'a>(
        mut self,
        cache: Option<&SharedCache>,
        route: RouteFacts<'_>,
        throttles: impl IntoIterator<Item = &'a crate::config::Throttle>,
    ) -> Self {
        let Some(cache) = cache else { return self };
        for (own, throttle) in self.list.iter_mut().zip(throttles) {
            own.shared =
                throttle.shared.then(|| Box::new(SharedThrottle::new(cache, &throttle.name, route.name)));
        }
        self
    }

    /// Whether any is shared, so that asking them takes a while.
    fn are_shared(&self) -> bool {
        self.list.iter().any(|throttle| throttle.shared.is_some())
    }

    /// Asks all of them about one request, as if none were shared; `identity` is who makes it, `None`: anonymous.
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
        let mut refused = Refused::default();
        for (place, throttle) in self.list.iter().enumerate() {
            let Some(counted) = self.counted(throttle, identity, head) else { continue };
            let key = self.key(throttle, counted);
            refused.note(place, self.counters.hit(key, throttle.rate, now));
        }
        refused.end(trace)
    }

    /// Asks all of them about one request, those that are shared in Redis.
    ///
    /// # Errors
    /// If any refuses.
    ///
    /// # Cancel safety
    /// When dropped, some may have counted the request.
    async fn ask_shared(
        &self,
        identity: Option<&Identity>,
        head: &Head,
        now: Monotonic,
        trace: &mut Trace,
    ) -> Result<(), ThrottleError> {
        if let Some(alarm) = &self.alarm {
            alarm.look(head);
        }
        let mut refused = Refused::default();
        for (place, throttle) in self.list.iter().enumerate() {
            let Some(counted) = self.counted(throttle, identity, head) else { continue };
            let (key, rate) = (self.key(throttle, counted), throttle.rate);
            refused.note(
                place,
                match &throttle.shared {
                    Some(shared) => shared.hit(&self.counters, key, counted, rate, now).await,
                    None => self.counters.hit(key, rate, now),
                },
            );
        }
        refused.end(trace)
    }

    /// Whose counter the request counts on; `None`: on none.
    fn counted<'a>(
        &self,
        throttle: &Throttle,
        identity: Option<&'a Identity>,
        head: &Head,
    ) -> Option<Counted<'a>> {
        Some(Counted::On(match (throttle.by, identity) {
            (ThrottleBy::Route, _) => return Some(Counted::Whole),
            // DRF 3.18, `AnonRateThrottle.get_cache_key`.
            (ThrottleBy::Anonymous, Some(_)) => return None,
            (ThrottleBy::Client, Some(_)) if self.known_are_free => return None,
            // DRF 3.18, `UserRateThrottle.get_cache_key`.
            (ThrottleBy::User, Some(identity)) => Subject::User(identity.user.user.id),
            (ThrottleBy::Token, Some(identity)) => Subject::Credential(identity.credential),
            _ => Subject::Address(head.client.address),
        }))
    }

    fn key(&self, throttle: &Throttle, counted: Counted<'_>) -> Key {
        match counted {
            Counted::Whole => throttle.whole,
            Counted::On(subject) => self.counters.seed().key(throttle.scope, subject),
        }
    }
}

/// What counts together in a throttle.
#[derive(Debug, Clone, Copy)]
pub(in crate::throttle) enum Counted<'a> {
    /// The route.
    Whole,
    On(Subject<'a>),
}

/// The throttle that refuses for longest, and for how long.
#[derive(Debug, Default)]
struct Refused(Option<(usize, Option<Duration>)>);

impl Refused {
    fn note(&mut self, place: usize, answer: Result<(), Option<Duration>>) {
        if let Err(wait) = answer
            && self.0.is_none_or(|(_, longest)| wait > longest)
        {
            self.0 = Some((place, wait));
        }
    }

    fn end(self, trace: &mut Trace) -> Result<(), ThrottleError> {
        let Some((place, wait)) = self.0 else {
            trace.throttle = ThrottleState::Admitted;
            return Ok(());
        };
        // A route has few throttles.
        trace.throttled(ThrottleState::Throttled(u8::try_from(place).unwrap_or(u8::MAX)), wait);
        Err(ThrottleError { wait })
    }
}

/// Admits a permitted request, if all throttles of its route do. Waits only where one of them is shared.
///
/// # Errors
/// If any refuses.
///
/// # Cancel safety
/// When dropped, some may have counted the request.
pub async fn admit(
    permit: Permit,
    throttles: &Throttles,
    head: &Head,
    now: Monotonic,
    trace: &mut Trace,
) -> Result<Admitted, ThrottleError> {
    if throttles.are_shared() {
        // Boxed: it is rare, and every request would hold the room for it.
        Box::pin(throttles.ask_shared(permit.identity(), head, now, trace)).await?;
    } else {
        throttles.ask(permit.identity(), head, now, trace)?;
    }
    Ok(Admitted { permit })
}
