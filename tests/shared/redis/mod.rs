//! The adapter to Redis against real servers: what lies there, what is told, and what happens when they go away.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code: a panic is a failed test"
)]

mod access;
mod counters;
mod groups;
mod outages;
mod stream;
mod values;

use crate::services::PATIENCE;
use crate::services::redis::{Access, PASSWORD, Redis, USER};
use doorward::cache::change::{Change, Changes, Sequence};
use doorward::cache::local::{CredentialKey, Fact};
use doorward::cache::redis::{Event, Keys, Login, Node, Settings, SharedCache, SharedValue, Topology};
use doorward::clock::{Clock, SystemClock, UnixSeconds};
use doorward::identity::{CredentialId, Digest, Family, User, UserId};
use doorward::secret::Secret;
use doorward::telemetry::metrics::SharedCacheMetrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

pub(crate) const KEY: &str = "deployment-key-of-the-tests-0123456789";
pub(crate) const STORE: &[u8] = b"store-of-the-tests";
pub(crate) const PREFIX: &str = "doorward:";

/// A replica, and what it counts.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) cache: SharedCache,
    pub(crate) metrics: SharedCacheMetrics,
}

impl Replica {
    pub(crate) fn new(settings: Settings) -> Self {
        Self::with(settings, KEY, STORE, Arc::new(SystemClock::new()))
    }

    pub(crate) fn with(settings: Settings, key: &str, store: &[u8], clock: Arc<dyn Clock>) -> Self {
        let metrics = SharedCacheMetrics::default();
        let cache = SharedCache::new(settings, &Secret::new(key), store, clock, metrics.clone()).unwrap();
        Self { cache, metrics }
    }

    /// Once it is connected.
    pub(crate) async fn connected(self) -> Self {
        works(&self.cache).await;
        self
    }

    /// Looks up, finds nothing that can be believed, and fills.
    pub(crate) async fn put(&self, key: &CredentialKey, value: &SharedValue) -> bool {
        let got = self.cache.get(key).await.unwrap();
        self.cache.fill(key, got.lease.unwrap(), value).await.unwrap()
    }

    pub(crate) async fn finds(&self, key: &CredentialKey) -> Option<SharedValue> {
        self.cache.get(key).await.unwrap().value
    }

    /// How a look-up is counted.
    pub(crate) async fn counts(&self, key: &CredentialKey) -> &'static str {
        let results = ["hit", "miss", "refused", "expired", "away"];
        let count = || results.map(|result| self.metrics.count(result));
        let before = count();
        // An error is counted, too.
        drop(self.cache.get(key).await);
        let after = count();
        let mut changed =
            results.iter().zip(before.iter().zip(after)).filter(|(_, (old, new))| **old != *new);
        let (result, _) = changed.next().unwrap();
        assert!(changed.next().is_none(), "counted twice");
        result
    }
}

/// Waits until calls go through.
pub(crate) async fn works(cache: &SharedCache) {
    eventually("a connection to tell", async || cache.publish(heartbeat(0)).await.is_ok()).await;
    let mut looks = 0;
    eventually("a connection to ask", async || {
        looks += 1;
        // After an outage somebody has to try, which leaves a name there.
        if looks > 50 {
            drop(cache.get(&credential("nobody's")).await);
        }
        cache.state().works
    })
    .await;
}

pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waited).await.is_ok(), "never: {what}");
}

pub(crate) fn heartbeat(sent: u64) -> doorward::cache::redis::Body {
    doorward::cache::redis::Body::Heartbeat { sent: doorward::clock::Monotonic(sent) }
}

/// Patient: these tests are not about times unless they say so.
pub(crate) fn settings(server: &Redis) -> Settings {
    settings_of(Topology::Single(node(server.port())))
}

pub(crate) fn settings_of(topology: Topology) -> Settings {
    Settings {
        topology,
        login: Login::default(),
        database: 0,
        tls: None,
        prefix: PREFIX.into(),
        value_ttl: Duration::from_mins(1),
        timeout: Duration::from_secs(2),
    }
}

pub(crate) fn node(port: u16) -> Node {
    Node { host: "127.0.0.1".into(), port }
}

pub(crate) fn login(access: Access) -> Login {
    let password = || Some(Secret::new(PASSWORD));
    match access {
        Access::Open => Login::default(),
        Access::Password => Login { user: None, password: password() },
        Access::User(_) => Login { user: Some(USER.into()), password: password() },
    }
}

pub(crate) fn keys() -> Keys {
    Keys::new(&Secret::new(KEY), STORE, PREFIX).unwrap()
}

pub(crate) fn credential(name: &str) -> CredentialKey {
    CredentialKey { digest: Digest::of(name.as_bytes()), family: Family::Doorward }
}

pub(crate) fn change(name: &str) -> Change {
    Change::Credential(credential(name).digest)
}

pub(crate) fn changed(name: &str, number: Option<u64>) -> Changes {
    let changes = vec![change(name)];
    match number {
        Some(number) => Changes::numbered(Sequence(number - 1), changes),
        None => Changes::unnumbered(changes),
    }
}

pub(crate) fn value(version: Option<u64>) -> SharedValue {
    let user = User {
        id: UserId(7),
        is_active: true,
        is_staff: false,
        username: "alice-the-user".into(),
        groups: Box::new(["editors-the-group".into()]),
        email: "alice@example.com".into(),
        password_version: 3,
        not_before: 0,
    };
    let fact = Fact { id: CredentialId(1), expires: None, user, csrf_secret: None };
    SharedValue { version: version.map(Sequence), confirmed: SystemClock::new().unix(), fact }
}

pub(crate) fn confirmed(version: u64, at: i64) -> SharedValue {
    SharedValue { confirmed: UnixSeconds(at), ..value(Some(version)) }
}

/// The next event; fails if there is none for long.
pub(crate) async fn next(events: &mut mpsc::Receiver<Event>) -> Event {
    loop {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await.expect("an event");
        // Beats come all the time.
        match event.expect("the stream goes on") {
            Event::Beat(_) => {}
            event => return event,
        }
    }
}

/// Skips what is heard until the stream stands.
pub(crate) async fn connected(events: &mut mpsc::Receiver<Event>) {
    while !matches!(next(events).await, Event::Connected) {}
}

/// Names that are there.
pub(crate) fn names(server: &Redis) -> Vec<String> {
    redis::cmd("KEYS").arg("*").query(&mut server.connection()).unwrap()
}
