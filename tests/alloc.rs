//! A local hit allocates nothing, from the header's bytes to the identity and to the end of the identity. Nor does the
//! question whether it is within its rates, but for a key's first request and the growth of its log.
//!
//! A file of its own, since counting needs an allocator of its own. The counter sees what Rust code allocates on
//! this thread; the digest is made by C code, in memory on its stack.

#![expect(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use doorward::accept::head::{Head, RequestId, Sanitiser};
use doorward::accept::peer::Peer;
use doorward::authenticate::lookups::Lookups;
use doorward::authenticate::password::{CheckPassword, Checking};
use doorward::authenticate::scheme::{Context, Effects, Recall, Scheme, Verdict};
use doorward::authenticate::schemes::basic::{BasicScheme, Remembered, VerifiedPasswords};
use doorward::authenticate::schemes::session::{SessionScheme, SessionSettings, Sessions};
use doorward::authenticate::schemes::token::TokenScheme;
use doorward::authenticate::slow::SlowSide;
use doorward::cache::local::{CacheSettings, CredentialKey, Fact, LocalCache, Now};
use doorward::clock::{Clock, Monotonic, SystemClock};
use doorward::config::{Rate, Throttle, ThrottleBy};
use doorward::credentials::{Credentials, TokenPolicy};
use doorward::csrf;
use doorward::header::guarded::GuardedNames;
use doorward::identity::{CredentialId, Digest, Family, User, UserId};
use doorward::password::Passwords;
use doorward::secret::Secret;
use doorward::store::UserWithPassword;
use doorward::store::sqlite::{Sqlite, SqliteOptions};
use doorward::throttle::counters::Counters;
use doorward::throttle::{ProxyAlarm, RouteFacts, Throttles};
use doorward::trace::{AnsweredBy, Trace};
use http::Request;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Of a session, as the cookie has it.
const SESSION: &str = "sessionkeysessionkeysessionkey01";
const CSRF: &str = "abcdefghijklmnopqrstuvwxyz012345";
const KNOWN: &str = "9944b09199c62bcf9418ad846dd0e4bbdfc6ee4b";
const FRESH: &str = "0000000000000000000000000000000000000000";
const MINUTE: Duration = Duration::from_mins(1);

struct World {
    scheme: Arc<dyn Scheme>,
    basic: Arc<dyn Scheme>,
    session: Arc<dyn Scheme>,
    clock: Arc<dyn Clock>,
    _directory: tempfile::TempDir,
}

impl World {
    /// A cache that knows one token and one session, over an empty store.
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&directory.path().join("d.db"), SqliteOptions::default()).await.unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let cache = Arc::new(LocalCache::new(CacheSettings {
            capacity_bytes: 1 << 20,
            revocation_bound: MINUTE,
            negative_ttl: MINUTE,
        }));
        for (text, family) in [(KNOWN, Family::Doorward), (SESSION, Family::Session)] {
            let key = CredentialKey { digest: Digest::of(text.as_bytes()), family };
            let ask = || std::future::ready(Ok::<_, Infallible>(Some(fact())));
            cache.load(key, clock.as_ref(), MINUTE, ask).await.unwrap();
        }
        let secret = Secret::new("a deployment key");
        let store = Arc::new(store);
        let lookups =
            Arc::new(Lookups::new(Arc::clone(&cache), Arc::clone(&store) as _, Arc::clone(&clock), &secret));
        let slow = SlowSide::new(tokio::runtime::Handle::current(), 1, MINUTE);
        let passwords = VerifiedPasswords::new(
            Arc::clone(&lookups),
            Arc::new(Right),
            Arc::new(Remembered::new().unwrap()),
            slow,
        );
        let policy = TokenPolicy { ttl: None, prefix: String::new(), per_user: std::num::NonZeroUsize::MIN };
        let hashing = Arc::new(Passwords::new(std::num::NonZeroUsize::MIN, 1).unwrap());
        let credentials = Credentials::new(store, cache, hashing, Arc::clone(&clock), policy);
        let sessions = Sessions::new(Arc::clone(&lookups), Arc::new(credentials), Arc::default());
        Self {
            scheme: Arc::new(TokenScheme::new("Token", &[Family::Doorward], lookups)),
            basic: Arc::new(BasicScheme::new("api", Arc::new(passwords))),
            session: Arc::new(SessionScheme::new(Arc::new(session_settings()), Arc::new(sessions))),
            clock,
            _directory: directory,
        }
    }

    /// Allocations of a look-up and of dropping its answer; whether it was a hit.
    fn count(&self, head: &Head) -> (u64, bool) {
        self.count_of(&self.scheme, head)
    }

    fn count_of(&self, scheme: &Arc<dyn Scheme>, head: &Head) -> (u64, bool) {
        let mut is_hit = false;
        let counted = allocation_counter::measure(|| {
            let context = Context::new(Now::read(self.clock.as_ref()), MINUTE);
            let recall = scheme.recall(head, &context, &mut Effects::default());
            is_hit = matches!(recall, Recall::Answer(Verdict::Verified(_, AnsweredBy::Local)));
        });
        (counted.count_total, is_hit)
    }
}

fn fact() -> Fact {
    let user = User {
        id: UserId(1),
        username: "alice".into(),
        is_active: true,
        is_staff: false,
        groups: Box::new(["editors".into()]),
        email: "alice@example.com".into(),
        password_version: 1,
        not_before: 0,
    };
    Fact { id: CredentialId(1), expires: None, user, csrf_secret: None }
}

/// Every password is right.
#[derive(Debug)]
struct Right;

impl CheckPassword for Right {
    fn check(&self, _: IpAddr, _: String, password: Secret) -> Checking<'_> {
        Box::pin(async { Ok(Some(UserWithPassword { user: fact().user, password, as_of: None })) })
    }
}

fn session_settings() -> SessionSettings {
    SessionSettings {
        cookie: "sessionid".to_owned(),
        age: MINUTE,
        secure: true,
        domain: None,
        same_site: "Lax",
        csrf_cookie: "csrftoken".to_owned(),
        csrf_age: MINUTE,
        csrf: csrf::Settings::default(),
        https_port: 443,
    }
}

fn head(token: &str) -> Head {
    head_with("authorization", &format!("Token {token}"))
}

fn head_with(name: &str, value: &str) -> Head {
    let request = Request::get("/api/articles/42/?fields=title")
        .header("host", "api.example.com")
        .header("accept", "application/json")
        .header(name, value);
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    let sanitiser = Sanitiser {
        guarded: GuardedNames::new([]),
        trusted_proxies: Vec::new(),
        target_bytes: 1000,
        header_count: 100,
    };
    let peer = Peer { address: ([192, 0, 2, 1], 1).into(), is_tls: true, tls_version: None };
    sanitiser.sanitise(&mut parts, &peer, RequestId::new(1), &mut Trace::new()).unwrap()
}

#[tokio::test]
async fn local_hit_allocates_nothing() {
    let world = World::new().await;
    let head = head(KNOWN);
    for round in 0..1000 {
        assert_eq!(world.count(&head), (0, true), "round {round}");
    }
}

#[tokio::test]
async fn hit_of_a_name_and_a_password_allocates_nothing() {
    let world = World::new().await;
    let head = head_with("authorization", "Basic YWxpY2U6Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ==");
    let context = Context::new(Now::read(world.clock.as_ref()), MINUTE);
    let asked = world.basic.recall(&head, &context, &mut Effects::default());
    let Recall::Attempt(attempt) = asked else { panic!("{asked:?}") };
    attempt.await.unwrap();
    for round in 0..1000 {
        assert_eq!(world.count_of(&world.basic, &head), (0, true), "round {round}");
    }
}

#[tokio::test]
async fn hit_of_a_session_allocates_nothing() {
    let world = World::new().await;
    let head = head_with("cookie", &format!("theme=dark; sessionid={SESSION}; csrftoken={CSRF}"));
    for round in 0..1000 {
        assert_eq!(world.count_of(&world.session, &head), (0, true), "round {round}");
    }
}

/// The claim above could fail: the counter sees the future that a miss makes.
#[tokio::test]
async fn miss_allocates_and_is_counted() {
    let world = World::new().await;
    let (allocations, is_hit) = world.count(&head(FRESH));
    assert!(allocations > 0 && !is_hit, "{allocations}");
}

/// What a route with throttles of these numbers an hour allocates, request by request.
fn throttled(counts: &[u32]) -> Vec<u64> {
    let counters = Arc::new(Counters::new(1 << 20).unwrap());
    let alarm = Arc::new(ProxyAlarm::new(false));
    let throttle = |count: &u32| Throttle {
        name: format!("{count} an hour"),
        rate: Rate { count: *count, period: Duration::from_hours(1) },
        by: ThrottleBy::Client,
        shared: false,
    };
    let throttles: Vec<_> = counts.iter().map(throttle).collect();
    let route = RouteFacts { name: "r", is_open: true, counts_addresses: false };
    let throttles = Throttles::new(&counters, &alarm, route, &throttles);
    let (head, mut trace) = (head(KNOWN), Trace::new());
    let mut ask = |request: u64| {
        let now = Monotonic(3_600_000_000_000 + request);
        let mut is_within = false;
        let counted = allocation_counter::measure(|| {
            is_within = throttles.ask(None, &head, now, &mut trace).is_ok();
        });
        assert_eq!(is_within, counts.iter().all(|count| request < u64::from(*count)));
        counted.count_total
    };
    (0..100).map(&mut ask).collect()
}

#[test]
fn throttles_allocate_for_what_is_new_alone() {
    assert!(throttled(&[]).iter().all(|count| *count == 0));
    let allocated = throttled(&[4, 1_000_000]);
    assert!(allocated[0] > 0, "the counter works");
    assert!(allocated[1..].iter().all(|count| *count == 0), "{allocated:?}");
}
