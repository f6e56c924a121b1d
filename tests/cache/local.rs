//! What the cache promises, one promise a test.
//!
//! Answers are compared by the version of the user's facts that they carry, so that an old answer shows.

use super::double::{Double, user};
use doorward::cache::local::{
    CacheSettings, CredentialKey, Fact, Invalidation, Loaded, LocalCache, Now, Recall,
};
use doorward::clock::{Clock as _, ManualClock, UnixSeconds};
use doorward::identity::{Digest, Family, UserId};
use doorward::store::{StoreError, TokenStore as _};
use std::sync::Arc;
use std::time::Duration;

const START: UnixSeconds = UnixSeconds(1_800_000_000);
pub(super) const BOUND: Duration = Duration::from_secs(1);
pub(super) const STALE: Duration = Duration::from_mins(1);
pub(super) const NANOSECOND: Duration = Duration::from_nanos(1);
pub(super) const PAUSE: Duration = Duration::from_millis(250);

/// An answer, by the version of the user's facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Known(i64),
    Stale(i64),
    Unknown,
    Miss,
    /// The store was asked and failed.
    Failed,
    /// The store was left alone, and nothing could be used instead.
    LeftAlone,
}

pub(super) struct Bench {
    pub(super) cache: LocalCache,
    pub(super) clock: ManualClock,
    pub(super) store: Double,
    stale: Duration,
}

pub(super) fn key(number: u32) -> CredentialKey {
    CredentialKey { digest: Digest::of(&number.to_be_bytes()), family: Family::Doorward }
}

fn bench_of(capacity_bytes: u64, stale: Duration) -> Arc<Bench> {
    let settings = CacheSettings { capacity_bytes, revocation_bound: BOUND, negative_ttl: BOUND };
    let (clock, store) = (ManualClock::new(START), Double::new());
    Arc::new(Bench { cache: LocalCache::new(settings), clock, store, stale })
}

pub(super) fn bench() -> Arc<Bench> {
    bench_of(1 << 20, STALE)
}

impl Bench {
    /// A token of this user, whose facts have this version.
    pub(super) fn put(&self, number: u32, user_id: i64, version: i64) {
        self.store.put(key(number).digest, None, user(user_id, version));
    }

    pub(super) fn now(&self) -> Now {
        Now::read(&self.clock)
    }

    pub(super) fn recall(&self, number: u32) -> Seen {
        match self.cache.recall(&key(number), self.now(), self.stale) {
            Recall::Known(known) => Seen::Known(known.user.user.password_version),
            Recall::Stale(known) => Seen::Stale(known.user.user.password_version),
            Recall::Unknown(_) => Seen::Unknown,
            Recall::Miss => Seen::Miss,
        }
    }

    pub(super) async fn load(&self, number: u32) -> Seen {
        let key = key(number);
        let ask = || async move {
            let found = self.store.find_token(key.digest).await?;
            let fact = found.map(|token| Fact {
                id: token.id,
                expires: token.expires,
                user: token.user,
                csrf_secret: None,
            });
            Ok::<_, StoreError>(fact)
        };
        match self.cache.load(key, &self.clock, self.stale, ask).await {
            Ok(Loaded::Known(known) | Loaded::Shared(known)) => Seen::Known(known.user.user.password_version),
            Ok(Loaded::Stale(known)) => Seen::Stale(known.user.user.password_version),
            Ok(Loaded::Unknown(_)) => Seen::Unknown,
            Err(Some(StoreError::Unavailable(_))) => Seen::Failed,
            Err(Some(other)) => panic!("{other}"),
            Err(None) => Seen::LeftAlone,
        }
    }

    /// So many at once.
    async fn load_together(self: &Arc<Self>, number: u32, count: usize) -> Vec<Seen> {
        let load = |_| {
            let bench = Arc::clone(self);
            tokio::spawn(async move { bench.load(number).await })
        };
        let tasks: Vec<_> = (0..count).map(load).collect();
        let mut seen = Vec::new();
        for task in tasks {
            seen.push(task.await.unwrap());
        }
        seen
    }

    /// A load of token 1 that has asked and is held.
    pub(super) async fn held_load(self: &Arc<Self>) -> tokio::task::JoinHandle<Seen> {
        self.store.hold();
        let before = self.store.asked();
        let bench = Arc::clone(self);
        let load = tokio::spawn(async move { bench.load(1).await });
        self.store.wait_for_asked(before + 1).await;
        load
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_number_of_misses_ask_the_store_once() {
    let bench = bench();
    bench.put(1, 1, 1);
    let first = bench.held_load().await;
    let others = tokio::spawn({
        let bench = Arc::clone(&bench);
        async move { bench.load_together(1, 200).await }
    });
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.store.asked(), 1, "while the store is slow");
    bench.store.open();
    assert_eq!(first.await.unwrap(), Seen::Known(1));
    assert_eq!(others.await.unwrap(), [Seen::Known(1); 200]);
    assert_eq!(bench.store.asked(), 1);
    assert_eq!(bench.load_together(2, 200).await, [Seen::Unknown; 200]);
    assert_eq!(bench.store.asked(), 2, "an unknown token is asked for once too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn entry_that_is_not_proved_is_asked_for_again_once() {
    let bench = bench();
    bench.put(1, 1, 1);
    assert_eq!(bench.load(1).await, Seen::Known(1));
    bench.put(1, 1, 2);
    bench.clock.advance(BOUND);
    assert_eq!(bench.load_together(1, 200).await, [Seen::Known(2); 200]);
    assert_eq!(bench.store.asked(), 2);
}

#[tokio::test]
async fn fill_that_an_invalidation_overtook_is_refused_and_asked_for_again() {
    let of_credential = Invalidation::Credential(key(1));
    for what in [of_credential, Invalidation::User(UserId(7)), Invalidation::Everything] {
        let bench = bench();
        bench.put(1, 7, 1);
        let load = bench.held_load().await;
        bench.put(1, 7, 2);
        bench.cache.invalidate(what);
        assert_eq!(bench.recall(1), Seen::Miss, "{what:?}");
        bench.store.open();
        assert_eq!(load.await.unwrap(), Seen::Known(2), "{what:?}");
        assert_eq!((bench.recall(1), bench.store.asked()), (Seen::Known(2), 2), "{what:?}");
    }
}

#[tokio::test]
async fn who_waited_for_a_fill_that_is_refused_is_not_answered_by_it() {
    let bench = bench();
    bench.put(1, 7, 1);
    let load = bench.held_load().await;
    let waiter = tokio::spawn({
        let bench = Arc::clone(&bench);
        async move { bench.load(1).await }
    });
    tokio::task::yield_now().await;
    bench.store.delete(key(1).digest);
    bench.cache.invalidate(Invalidation::Credential(key(1)));
    bench.store.open();
    assert_eq!(waiter.await.unwrap(), Seen::Unknown);
    assert_eq!(load.await.unwrap(), Seen::Unknown);
}

#[tokio::test]
async fn who_asks_after_an_invalidation_does_not_wait_for_an_older_load() {
    let bench = bench();
    bench.put(1, 1, 1);
    let load = bench.held_load().await;
    bench.put(1, 1, 2);
    bench.cache.invalidate(Invalidation::Credential(key(1)));
    let second = bench.held_load().await;
    bench.store.open();
    assert_eq!(second.await.unwrap(), Seen::Known(2));
    assert_eq!(load.await.unwrap(), Seen::Known(2));
    assert_eq!(bench.recall(1), Seen::Known(2));
}

#[tokio::test]
async fn token_that_is_revoked_while_it_is_loaded_is_unknown() {
    let bench = bench();
    bench.put(1, 1, 1);
    let load = bench.held_load().await;
    bench.store.delete(key(1).digest);
    bench.cache.invalidate(Invalidation::Credential(key(1)));
    bench.store.open();
    assert_eq!(load.await.unwrap(), Seen::Unknown);
    assert_eq!(bench.recall(1), Seen::Unknown);
}

#[tokio::test]
async fn token_that_is_made_while_it_is_looked_for_is_not_remembered_as_unknown() {
    for what in [Invalidation::Credential(key(1)), Invalidation::Everything] {
        let bench = bench();
        let load = bench.held_load().await;
        bench.put(1, 1, 1);
        bench.cache.invalidate(what);
        bench.store.open();
        // It began before the token was there, so either answer is right.
        assert!(matches!(load.await.unwrap(), Seen::Unknown | Seen::Known(1)));
        assert_ne!(bench.recall(1), Seen::Unknown, "{what:?}");
        assert_eq!(bench.load(1).await, Seen::Known(1), "{what:?}");
    }
}

#[tokio::test]
async fn entry_ends_with_the_token() {
    let bench = bench();
    bench.store.put(key(1).digest, Some(UnixSeconds(START.0 + 5)), user(1, 1));
    assert_eq!(bench.load(1).await, Seen::Known(1));
    for second in 0..8 {
        // However fresh it is.
        bench.cache.prove(bench.clock.monotonic());
        let Recall::Known(known) = bench.cache.recall(&key(1), bench.now(), STALE) else {
            panic!("{second}")
        };
        assert_eq!(known.is_expired(bench.clock.unix()), second >= 5, "{second}");
        bench.clock.advance(Duration::from_secs(1));
    }
}

#[tokio::test]
async fn flood_of_unknown_tokens_evicts_no_known_one() {
    // Room for 1,000 tokens and not many more.
    let bench = bench_of(512 << 10, STALE);
    for number in 0..1_000 {
        bench.put(number, number.into(), 1);
        assert_eq!(bench.load(number).await, Seen::Known(1));
    }
    let held: Vec<_> = (0..1_000).filter(|number| bench.recall(*number) == Seen::Known(1)).collect();
    assert!(held.len() > 900, "{} of 1,000 fit", held.len());
    for number in 1_000_000..1_100_000 {
        assert_eq!(bench.load(number).await, Seen::Unknown);
    }
    for number in held {
        assert_eq!(bench.recall(number), Seen::Known(1), "{number}");
    }
}

#[tokio::test]
async fn unknown_tokens_are_believed_to_be_so_for_the_negative_ttl() {
    let bench = bench();
    assert_eq!(bench.load(1).await, Seen::Unknown);
    bench.clock.advance(BOUND.saturating_sub(NANOSECOND));
    assert_eq!(bench.recall(1), Seen::Unknown);
    // What proves known entries does not lengthen it.
    bench.cache.prove(bench.clock.monotonic());
    bench.clock.advance(NANOSECOND);
    assert_eq!(bench.recall(1), Seen::Miss);
    assert_eq!((bench.load(1).await, bench.store.asked()), (Seen::Unknown, 2));
    bench.cache.forget_unknown();
    assert_eq!(bench.recall(1), Seen::Miss);
    assert_eq!((bench.load(1).await, bench.load(2).await), (Seen::Unknown, Seen::Unknown));
    bench.cache.invalidate(Invalidation::Credential(key(1)));
    assert_eq!((bench.recall(1), bench.recall(2)), (Seen::Miss, Seen::Unknown));
}

#[tokio::test]
async fn entry_is_believed_for_the_bound_after_its_last_proof_and_no_longer() {
    let bench = bench();
    for number in 1..=3 {
        bench.put(number, number.into(), 1);
        assert_eq!(bench.load(number).await, Seen::Known(1));
    }
    let all = |seen| (1..=3).for_each(|number| assert_eq!(bench.recall(number), seen));
    bench.clock.advance(BOUND.saturating_sub(NANOSECOND));
    all(Seen::Known(1));
    bench.cache.prove(bench.clock.monotonic());
    bench.clock.advance(BOUND.saturating_sub(NANOSECOND));
    all(Seen::Known(1));
    // A proof that comes late proves no more than was asked.
    bench.cache.prove(bench.clock.monotonic());
    bench.cache.prove(doorward::clock::Monotonic(1));
    bench.clock.advance(BOUND.saturating_sub(NANOSECOND));
    all(Seen::Known(1));
    bench.clock.advance(NANOSECOND);
    all(Seen::Miss);
    assert_eq!(bench.store.asked(), 3);
    assert_eq!((bench.load(2).await, bench.store.asked()), (Seen::Known(1), 4));
    assert_eq!((bench.recall(1), bench.recall(2)), (Seen::Miss, Seen::Known(1)));
}

#[tokio::test]
async fn proof_is_as_of_the_moment_when_a_load_began() {
    let bench = bench();
    bench.put(1, 1, 1);
    let load = bench.held_load().await;
    bench.clock.advance(BOUND / 2);
    bench.store.open();
    assert_eq!(load.await.unwrap(), Seen::Known(1));
    bench.clock.advance(BOUND / 2);
    assert_eq!(bench.recall(1), Seen::Miss);
}

#[tokio::test]
async fn known_tokens_pass_for_a_while_when_the_store_fails() {
    let bench = bench();
    bench.put(1, 1, 1);
    assert_eq!(bench.load(1).await, Seen::Known(1));
    bench.clock.advance(BOUND / 2);
    // What counts is the last proof, not the last look-up.
    bench.cache.prove(bench.clock.monotonic());
    bench.store.fail(true);
    bench.clock.advance(BOUND);
    assert_eq!(bench.recall(1), Seen::Miss, "the store is asked first");
    assert_eq!((bench.load(1).await, bench.store.asked()), (Seen::Stale(1), 2));
    assert_eq!(bench.recall(1), Seen::Stale(1));
    bench.clock.advance(PAUSE);
    assert_eq!(bench.recall(1), Seen::Miss, "after the pause the store is asked again");
    assert_eq!((bench.load(1).await, bench.store.asked()), (Seen::Stale(1), 3));
    bench.clock.advance(STALE.saturating_sub(BOUND + PAUSE + NANOSECOND));
    assert_eq!(bench.load(1).await, Seen::Stale(1));
    bench.clock.advance(NANOSECOND);
    assert_eq!(bench.recall(1), Seen::Miss);
    assert_eq!(bench.load(1).await, Seen::LeftAlone);
    bench.clock.advance(PAUSE);
    assert_eq!(bench.load(1).await, Seen::Failed);
    bench.store.fail(false);
    bench.clock.advance(PAUSE);
    assert_eq!(bench.load(1).await, Seen::Known(1));
}

#[tokio::test]
async fn nothing_stale_passes_where_it_is_switched_off() {
    let bench = bench_of(1 << 20, Duration::ZERO);
    bench.put(1, 1, 1);
    assert_eq!(bench.load(1).await, Seen::Known(1));
    bench.store.fail(true);
    bench.clock.advance(BOUND);
    assert_eq!((bench.load(1).await, bench.recall(1)), (Seen::Failed, Seen::Miss));
    assert_eq!(bench.load(1).await, Seen::LeftAlone);
}

#[tokio::test]
async fn tokens_that_could_not_be_asked_for_are_not_unknown() {
    let bench = bench();
    bench.put(1, 1, 1);
    bench.store.fail(true);
    assert_eq!((bench.load(1).await, bench.recall(1)), (Seen::Failed, Seen::Miss));
    assert_eq!((bench.load(1).await, bench.recall(1)), (Seen::LeftAlone, Seen::Miss));
    bench.store.fail(false);
    bench.clock.advance(PAUSE);
    assert_eq!(bench.load(1).await, Seen::Known(1));
}

#[tokio::test]
async fn revocation_that_was_seen_wins_over_stale() {
    for what in [Invalidation::Credential(key(1)), Invalidation::User(UserId(7)), Invalidation::Everything] {
        for while_asking in [false, true] {
            let bench = bench();
            bench.put(1, 7, 1);
            assert_eq!(bench.load(1).await, Seen::Known(1));
            bench.clock.advance(BOUND);
            bench.store.fail(true);
            let seen = if while_asking {
                let load = bench.held_load().await;
                bench.cache.invalidate(what);
                bench.store.open();
                load.await.unwrap()
            } else {
                bench.cache.invalidate(what);
                bench.load(1).await
            };
            assert_eq!(seen, Seen::Failed, "{what:?} {while_asking}");
            assert_eq!(bench.recall(1), Seen::Miss, "{what:?} {while_asking}");
            assert_eq!(bench.load(1).await, Seen::LeftAlone, "{what:?} {while_asking}");
        }
    }
}

#[tokio::test]
async fn load_that_is_given_up_leaves_the_entry_for_the_next_one() {
    let bench = bench();
    bench.put(1, 1, 1);
    assert_eq!(bench.load(1).await, Seen::Known(1));
    bench.clock.advance(BOUND);
    let load = bench.held_load().await;
    load.abort();
    assert!(load.await.unwrap_err().is_cancelled());
    // The store hangs, then fails: what was known is still known.
    bench.store.fail(true);
    bench.store.open();
    assert_eq!(bench.load(1).await, Seen::Stale(1));
}

#[tokio::test]
async fn store_that_failed_is_left_alone_for_a_pause() {
    let bench = bench();
    for number in 0..500 {
        bench.put(number, number.into(), 1);
        assert_eq!(bench.load(number).await, Seen::Known(1));
    }
    bench.clock.advance(BOUND);
    bench.store.fail(true);
    let before = bench.store.asked();
    for number in 0..500 {
        assert_eq!(bench.load(number).await, Seen::Stale(1));
        let other = bench.load(number + 1_000).await;
        assert_eq!(other, Seen::LeftAlone);
    }
    assert_eq!(bench.store.asked() - before, 1);
    bench.store.fail(false);
    bench.clock.advance(PAUSE.saturating_sub(NANOSECOND));
    assert_eq!((bench.load(0).await, bench.store.asked() - before), (Seen::Stale(1), 1));
    bench.clock.advance(NANOSECOND);
    assert_eq!((bench.load(0).await, bench.load(1_000).await), (Seen::Known(1), Seen::Unknown));
}

#[tokio::test]
async fn change_of_a_user_is_seen_by_all_credentials_of_the_user() {
    let bench = bench();
    for number in 1..=3 {
        bench.put(number, 7, 1);
        assert_eq!(bench.load(number).await, Seen::Known(1));
    }
    bench.put(4, 8, 1);
    assert_eq!(bench.load(4).await, Seen::Known(1));
    bench.cache.invalidate(Invalidation::User(UserId(7)));
    assert_eq!([1, 2, 3, 4].map(|n| bench.recall(n)), [Seen::Miss, Seen::Miss, Seen::Miss, Seen::Known(1)]);
    // A load that finds new facts retires the old ones for the others too, even if nobody said so.
    for number in 1..=3 {
        assert_eq!(bench.load(number).await, Seen::Known(1));
    }
    bench.put(1, 7, 2);
    bench.clock.advance(NANOSECOND);
    bench.cache.invalidate(Invalidation::Credential(key(1)));
    assert_eq!(bench.load(1).await, Seen::Known(2));
    assert_eq!([1, 2, 3].map(|n| bench.recall(n)), [Seen::Known(2), Seen::Miss, Seen::Miss]);
}

#[test]
fn cache_is_bounded_in_bytes() {
    const CAPACITY: u64 = 8 << 20;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let bench = bench_of(CAPACITY, STALE);
    let used = allocation_counter::measure(|| {
        runtime.block_on(async {
            for number in 0..200_000 {
                let fact = Fact {
                    id: doorward::identity::CredentialId(1),
                    expires: None,
                    user: user(number.into(), 1),
                    csrf_secret: None,
                };
                let ask = || {
                    let fact = fact.clone();
                    async { Ok::<_, StoreError>(Some(fact)) }
                };
                assert!(bench.cache.load(key(number), &bench.clock, STALE, ask).await.is_ok());
            }
        });
    });
    let entries = bench.cache.len();
    let used = u64::try_from(used.bytes_current).unwrap();
    eprintln!("{entries} entries, {used} bytes of {CAPACITY}");
    assert!(entries > 10_000, "{entries} entries");
    assert!(used <= CAPACITY, "{used} bytes for {entries} entries");
}
