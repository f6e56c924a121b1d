//! Loads race with changes on several threads; afterwards no answer of the cache may be an old one.
//!
//! The model is a map of versions: a change raises a version, then invalidates, then is acknowledged. Whoever looks
//! a token up after that must see that version or a later one, and when all is quiet every cached answer must be
//! the store's. The same race is run against a map that knows no guard, to show that it can fail.

use super::double::user;
use doorward::cache::local::{
    CacheSettings, CredentialKey, Fact, Invalidation, Loaded, LocalCache, Now, Recall,
};
use doorward::clock::{ManualClock, UnixSeconds};
use doorward::identity::{CredentialId, Digest, Family, UserId};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

const TOKENS: usize = 12;
const USERS: usize = 3;
const LOADERS: u64 = 6;
const WRITERS: u64 = 2;
const STEPS: usize = 150;
const ROUNDS: u64 = 120;

/// A version of a token and of its user. A token whose version divides by 5 is not there.
type Versions = (i64, i64);

fn is_there(version: i64) -> bool {
    version % 5 != 0
}

/// Answer of the cache; `None` is a token that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recalled {
    Hit(Option<Versions>),
    Miss,
}

/// What is raced against.
trait Subject: Send + Sync + 'static {
    fn recall(&self, token: usize) -> Recalled;
    fn load(&self, token: usize, model: &Model) -> impl Future<Output = Option<Versions>> + Send;
    fn changed_token(&self, token: usize);
    fn changed_user(&self, user: usize);
}

/// The store, and what of it has been acknowledged.
struct Model {
    tokens: [AtomicI64; TOKENS],
    users: [AtomicI64; USERS],
    tokens_acknowledged: [AtomicI64; TOKENS],
    users_acknowledged: [AtomicI64; USERS],
}

fn at(versions: &[AtomicI64], place: usize) -> i64 {
    versions[place].load(Ordering::SeqCst)
}

impl Model {
    fn new() -> Self {
        let ones = |_| AtomicI64::new(1);
        Self {
            tokens: std::array::from_fn(ones),
            users: std::array::from_fn(ones),
            tokens_acknowledged: std::array::from_fn(ones),
            users_acknowledged: std::array::from_fn(ones),
        }
    }

    fn read(&self, token: usize) -> Versions {
        (at(&self.tokens, token), at(&self.users, token % USERS))
    }

    fn acknowledged(&self, token: usize) -> Versions {
        (at(&self.tokens_acknowledged, token), at(&self.users_acknowledged, token % USERS))
    }

    /// A look-up that takes a while after it has read.
    async fn look_up(&self, token: usize) -> Versions {
        let versions = self.read(token);
        for _ in 0..token % 4 {
            tokio::task::yield_now().await;
        }
        versions
    }
}

/// The real one.
struct Guarded {
    cache: LocalCache,
    clock: ManualClock,
}

fn key(token: usize) -> CredentialKey {
    CredentialKey { digest: Digest::of(&token.to_be_bytes()), family: Family::Doorward }
}

impl Guarded {
    fn new() -> Self {
        let cache = LocalCache::new(CacheSettings {
            capacity_bytes: 1 << 20,
            // Only invalidations make an entry go.
            revocation_bound: Duration::from_hours(1),
            negative_ttl: Duration::from_hours(1),
        });
        Self { cache, clock: ManualClock::new(UnixSeconds(1_800_000_000)) }
    }
}

fn versions(known: &doorward::cache::local::Known) -> Versions {
    (known.id.0.cast_signed(), known.user.user.password_version)
}

impl Subject for Guarded {
    fn recall(&self, token: usize) -> Recalled {
        match self.cache.recall(&key(token), Now::read(&self.clock), Duration::ZERO) {
            Recall::Known(known) | Recall::Stale(known) => Recalled::Hit(Some(versions(&known))),
            Recall::Unknown(_) => Recalled::Hit(None),
            Recall::Miss => Recalled::Miss,
        }
    }

    async fn load(&self, token: usize, model: &Model) -> Option<Versions> {
        let ask = || async {
            let (version, of_user) = model.look_up(token).await;
            let user = user(i64::try_from(token % USERS).unwrap(), of_user);
            let fact =
                Fact { id: CredentialId(version.cast_unsigned()), expires: None, user, csrf_secret: None };
            Ok::<_, Infallible>(Some(fact).filter(|_| is_there(version)))
        };
        match self.cache.load(key(token), &self.clock, Duration::ZERO, ask).await {
            Ok(Loaded::Known(known) | Loaded::Shared(known) | Loaded::Stale(known)) => Some(versions(&known)),
            // `Err(None)`: overtaken too often; nobody is told anything wrong.
            Ok(Loaded::Unknown(_)) | Err(_) => None,
        }
    }

    fn changed_token(&self, token: usize) {
        self.cache.invalidate(Invalidation::Credential(key(token)));
    }

    fn changed_user(&self, user: usize) {
        self.cache.invalidate(Invalidation::User(UserId(i64::try_from(user).unwrap())));
    }
}

/// A map that is filled with what was read, whatever happened meanwhile.
#[derive(Default)]
struct Naive(Mutex<HashMap<usize, Option<Versions>>>);

impl Subject for Naive {
    fn recall(&self, token: usize) -> Recalled {
        self.0.lock().get(&token).copied().map_or(Recalled::Miss, Recalled::Hit)
    }

    async fn load(&self, token: usize, model: &Model) -> Option<Versions> {
        let found = Some(model.look_up(token).await).filter(|versions| is_there(versions.0));
        self.0.lock().insert(token, found);
        found
    }

    fn changed_token(&self, token: usize) {
        self.0.lock().remove(&token);
    }

    fn changed_user(&self, user: usize) {
        self.0.lock().retain(|token, _| token % USERS != user);
    }
}

/// xorshift64
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (bound as u64)).unwrap()
    }
}

/// What one race found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// Answers older than what had been acknowledged before they were asked for.
    late: usize,
    /// Cached answers that differ from the store's when all is quiet.
    stale: usize,
    /// Answers from the cache, to show that there was something to find.
    hits: usize,
}

async fn look<S: Subject>(subject: Arc<S>, model: Arc<Model>, mut random: Random) -> Found {
    let mut found = Found::default();
    for _ in 0..STEPS {
        let token = random.below(TOKENS);
        let (token_version, user_version) = model.acknowledged(token);
        let answer = match subject.recall(token) {
            Recalled::Hit(answer) => {
                found.hits += 1;
                answer
            }
            Recalled::Miss => subject.load(token, &model).await,
        };
        let is_late = answer.is_some_and(|seen| seen.0 < token_version || seen.1 < user_version);
        found.late += usize::from(is_late);
        if random.below(4) == 0 {
            tokio::task::yield_now().await;
        }
    }
    found
}

async fn change<S: Subject>(subject: Arc<S>, model: Arc<Model>, mut random: Random, left: Arc<AtomicUsize>) {
    while left.load(Ordering::SeqCst) > 0 {
        if random.below(3) == 0 {
            let user = random.below(USERS);
            let version = model.users[user].fetch_add(1, Ordering::SeqCst) + 1;
            subject.changed_user(user);
            model.users_acknowledged[user].fetch_max(version, Ordering::SeqCst);
        } else {
            let token = random.below(TOKENS);
            let version = model.tokens[token].fetch_add(1, Ordering::SeqCst) + 1;
            subject.changed_token(token);
            model.tokens_acknowledged[token].fetch_max(version, Ordering::SeqCst);
        }
        for _ in 0..random.below(12) {
            tokio::task::yield_now().await;
        }
    }
}

async fn race<S: Subject>(subject: S, seed: u64) -> Found {
    let (subject, model) = (Arc::new(subject), Arc::new(Model::new()));
    let left = Arc::new(AtomicUsize::new(usize::try_from(LOADERS).unwrap()));
    let random = |number: u64| Random(seed.wrapping_mul(2 * number + 3) | 1);
    let mut loaders = Vec::new();
    for number in 0..LOADERS {
        let look = look(Arc::clone(&subject), Arc::clone(&model), random(number));
        let left = Arc::clone(&left);
        loaders.push(tokio::spawn(async move {
            let found = look.await;
            left.fetch_sub(1, Ordering::SeqCst);
            found
        }));
    }
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let random = random(LOADERS + number);
            tokio::spawn(change(Arc::clone(&subject), Arc::clone(&model), random, Arc::clone(&left)))
        })
        .collect();
    let mut found = Found::default();
    for loader in loaders {
        let one = loader.await.unwrap();
        found = Found { late: found.late + one.late, hits: found.hits + one.hits, stale: 0 };
    }
    for writer in writers {
        writer.await.unwrap();
    }
    for token in 0..TOKENS {
        let truth = Some(model.read(token)).filter(|versions| is_there(versions.0));
        found.stale += usize::from(matches!(subject.recall(token), Recalled::Hit(answer) if answer != truth));
    }
    found
}

async fn races<S: Subject>(make: impl Fn() -> S) -> Found {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).unwrap();
    let seed = u64::from_le_bytes(seed);
    eprintln!("seed {seed}");
    let mut all = Found::default();
    for round in 0..ROUNDS {
        let found = race(make(), seed.wrapping_add(round)).await;
        all = Found {
            late: all.late + found.late,
            stale: all.stale + found.stale,
            hits: all.hits + found.hits,
        };
    }
    eprintln!("{all:?}");
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_old_answer_outlives_a_change() {
    let found = races(Guarded::new).await;
    assert!(found.hits > 1_000, "{found:?}");
    assert_eq!((found.late, found.stale), (0, 0), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn race_finds_a_map_without_a_guard() {
    let found = races(Naive::default).await;
    assert!(found.late > 0 && found.stale > 0, "{found:?}");
}
