//! What becomes of entries when something changed in the store and it does not say what.

use super::double::user;
use super::local::{BOUND, Bench, NANOSECOND, PAUSE, STALE, Seen, bench, key};
use doorward::cache::local::{CredentialKey, Found, Invalidation, Loaded, Nothing, Outage, Recall};
use doorward::clock::Clock as _;
use doorward::identity::{Family, UserId};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// Something changes now; what was known is older.
fn doubt(bench: &Bench) {
    bench.clock.advance(NANOSECOND);
    bench.cache.doubt(bench.clock.monotonic());
}

/// Token 1, known.
async fn known() -> Arc<Bench> {
    let bench = bench();
    bench.put(1, 1, 1);
    assert_eq!(bench.load(1).await, Seen::Known(1));
    bench
}

#[tokio::test]
async fn entries_in_doubt_are_asked_for_again() {
    let bench = known().await;
    bench.put(1, 1, 2);
    assert_eq!(bench.recall(1), Seen::Known(1), "nobody was told yet");
    doubt(&bench);
    assert_eq!(bench.recall(1), Seen::Miss);
    assert_eq!(bench.load(1).await, Seen::Known(2));
    assert_eq!((bench.recall(1), bench.store.asked()), (Seen::Known(2), 2));
}

#[tokio::test]
async fn a_later_proof_says_nothing_of_entries_in_doubt() {
    let bench = known().await;
    doubt(&bench);
    bench.clock.advance(NANOSECOND);
    bench.cache.prove(bench.clock.monotonic());
    assert_eq!(bench.recall(1), Seen::Miss);
    // What was asked for since is proved as everything else.
    assert_eq!(bench.load(1).await, Seen::Known(1));
    bench.clock.advance(BOUND * 2);
    bench.cache.prove(bench.clock.monotonic());
    assert_eq!(bench.recall(1), Seen::Known(1));
}

#[tokio::test]
async fn an_older_doubt_undoes_no_later_one() {
    let bench = known().await;
    let before = bench.clock.monotonic();
    doubt(&bench);
    bench.cache.doubt(before);
    assert_eq!(bench.recall(1), Seen::Miss);
}

#[tokio::test]
async fn entries_in_doubt_are_stale_only_while_the_store_cannot_be_asked() {
    let bench = known().await;
    doubt(&bench);
    bench.store.fail(true);
    assert_eq!(bench.load(1).await, Seen::Stale(1));
    assert_eq!(bench.recall(1), Seen::Stale(1), "it is being left alone");
    bench.clock.advance(PAUSE);
    assert_eq!(bench.recall(1), Seen::Miss, "it may answer again");
    assert_eq!(bench.load(1).await, Seen::Stale(1));
    // Counted from when the store last said so, whatever it proved of others.
    bench.clock.advance(STALE.checked_sub(PAUSE).unwrap());
    bench.cache.prove(bench.clock.monotonic());
    assert_eq!(bench.load(1).await, Seen::Failed);
    bench.store.fail(false);
    bench.put(1, 1, 2);
    bench.clock.advance(PAUSE);
    assert_eq!(bench.load(1).await, Seen::Known(2));
}

#[tokio::test]
async fn a_fill_that_began_before_is_told_its_caller_alone() {
    let bench = bench();
    bench.put(1, 1, 1);
    let load = bench.held_load().await;
    bench.put(1, 1, 2);
    doubt(&bench);
    bench.store.open();
    // The request had come before the change: either answer is right.
    assert_eq!(load.await.unwrap(), Seen::Known(1));
    assert_eq!(bench.recall(1), Seen::Miss);
    assert_eq!(bench.load(1).await, Seen::Known(2));
}

#[tokio::test]
async fn who_came_after_a_change_is_not_told_what_was_before() {
    let bench = bench();
    bench.put(1, 1, 1);
    let first = bench.held_load().await;
    bench.put(1, 1, 2);
    doubt(&bench);
    bench.clock.advance(NANOSECOND);
    let second = tokio::spawn({
        let bench = Arc::clone(&bench);
        async move { bench.load(1).await }
    });
    tokio::task::yield_now().await;
    bench.store.open();
    assert_eq!(first.await.unwrap(), Seen::Known(1));
    assert_eq!(second.await.unwrap(), Seen::Known(2));
}

#[tokio::test]
async fn unknown_credentials_of_others_are_forgotten() {
    let bench = bench();
    let key = CredentialKey { family: Family::Authtoken, ..key(1) };
    let nothing = || async { Ok::<_, Infallible>(Found::Nothing(Nothing::Absent)) };
    bench.cache.load(key, &bench.clock, STALE, nothing).await.unwrap();
    let recall = || bench.cache.recall(&key, bench.now(), STALE);
    assert!(matches!(recall(), Recall::Unknown(Nothing::Absent)));
    doubt(&bench);
    assert!(matches!(recall(), Recall::Miss));
}

#[tokio::test]
async fn an_unknown_credential_that_came_to_be_meanwhile_is_found() {
    let bench = bench();
    assert_eq!(bench.load(1).await, Seen::Unknown);
    bench.put(1, 1, 1);
    assert_eq!(bench.recall(1), Seen::Unknown);
    doubt(&bench);
    assert_eq!(bench.recall(1), Seen::Unknown, "of our own tokens the store names what comes to be");
    bench.cache.forget_unknown();
    assert_eq!(bench.recall(1), Seen::Miss);
    assert_eq!(bench.load(1).await, Seen::Known(1));
    // Also if it was being asked for at that moment.
    bench.store.delete(key(1).digest);
    bench.cache.invalidate(Invalidation::Credential(key(1)));
    let load = bench.held_load().await;
    bench.put(1, 1, 2);
    doubt(&bench);
    bench.store.open();
    assert_eq!(load.await.unwrap(), Seen::Unknown);
    assert_eq!(bench.recall(1), Seen::Miss);
    assert_eq!(bench.load(1).await, Seen::Known(2));
}

#[tokio::test]
async fn many_who_wait_for_one_are_all_answered_whatever_is_written_meanwhile() {
    // The store is slow, and something is written during each of its answers.
    let bench = bench();
    let load = |_| {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move {
            let ask = || async {
                bench.clock.advance(Duration::from_millis(100));
                tokio::task::yield_now().await;
                doubt(&bench);
                let found = doorward::cache::local::Fact {
                    id: doorward::identity::CredentialId(1),
                    expires: None,
                    user: user(1, 1),
                    csrf_secret: None,
                };
                Ok::<_, Infallible>(Some(found))
            };
            bench.cache.load(key(1), &bench.clock, STALE, ask).await
        })
    };
    let all: Vec<_> = (0..50).map(load).collect();
    for one in all {
        assert!(matches!(one.await.unwrap(), Ok(Loaded::Known(_))));
    }
}

#[tokio::test]
async fn a_thousand_active_credentials_are_asked_for_once_a_change() {
    let bench = bench();
    for number in 0..1000 {
        bench.put(number, i64::from(number), 0);
        assert_eq!(bench.load(number).await, Seen::Known(0));
    }
    for round in 1..=20 {
        bench.clock.advance(Duration::from_millis(100));
        doubt(&bench);
        let before = bench.store.asked();
        for number in 0..1000 {
            bench.put(number, i64::from(number), round);
            assert_eq!(bench.recall(number), Seen::Miss);
            assert_eq!(bench.load(number).await, Seen::Known(round));
            assert_eq!(bench.recall(number), Seen::Known(round));
        }
        assert_eq!(bench.store.asked() - before, 1000);
    }
}

// --- a store that others wait for

#[tokio::test]
async fn entries_in_doubt_do_while_the_store_is_busy_but_not_past_the_bound() {
    let bench = known().await;
    let busy = || bench.cache.recall_while_busy(&key(1), bench.now()).is_some();
    doubt(&bench);
    assert!(busy());
    bench.clock.advance(BOUND.checked_sub(NANOSECOND * 2).unwrap());
    assert!(busy());
    bench.cache.prove(bench.clock.monotonic());
    bench.clock.advance(NANOSECOND);
    assert!(!busy(), "a proof of others is none");
    assert!(bench.cache.recall_while_busy(&key(2), bench.now()).is_none());
}

#[tokio::test]
async fn what_was_invalidated_does_not_do_while_the_store_is_busy() {
    for what in [Invalidation::Credential(key(1)), Invalidation::User(UserId(1)), Invalidation::Everything] {
        let bench = known().await;
        bench.cache.invalidate(what);
        assert!(bench.cache.recall_while_busy(&key(1), bench.now()).is_none(), "{what:?}");
    }
}

/// What a look-up may come to besides an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum No {
    Outage,
    Busy,
    /// Something is said of the credential.
    Refusal,
}

impl Outage for No {
    fn is_outage(&self) -> bool {
        *self == Self::Outage
    }

    fn is_busy(&self) -> bool {
        *self == Self::Busy
    }
}

async fn refused(bench: &Bench, no: No) -> Result<Loaded, Option<No>> {
    let ask = || std::future::ready(Err::<Found, _>(no));
    bench.cache.load(key(1), &bench.clock, STALE, ask).await
}

#[tokio::test]
async fn a_busy_store_leaves_what_was_confirmed_a_moment_ago() {
    let bench = known().await;
    doubt(&bench);
    assert!(matches!(refused(&bench, No::Busy).await, Ok(Loaded::Stale(_))));
    assert_eq!(bench.recall(1), Seen::Miss, "the store is not left alone");
    bench.clock.advance(BOUND);
    assert!(matches!(refused(&bench, No::Busy).await, Err(Some(No::Busy))));
    // It is there still, for an outage.
    assert!(matches!(refused(&bench, No::Outage).await, Ok(Loaded::Stale(_))));
}

#[tokio::test]
async fn a_refusal_leaves_nothing_that_could_be_used_instead() {
    let bench = known().await;
    doubt(&bench);
    assert!(matches!(refused(&bench, No::Refusal).await, Err(Some(No::Refusal))));
    bench.store.fail(true);
    assert_eq!(bench.load(1).await, Seen::Failed);
    assert_eq!(bench.recall(1), Seen::Miss);
    assert!(bench.cache.is_empty());
}

#[tokio::test]
async fn nobody_is_no_more_absent_than_before() {
    // Both are answers, and are told apart.
    let bench = bench();
    for nothing in [Nothing::Absent, Nothing::Nobody] {
        bench.cache.forget_unknown();
        let ask = || std::future::ready(Ok::<_, No>(Found::Nothing(nothing)));
        let loaded = bench.cache.load(key(1), &bench.clock, STALE, ask).await.unwrap();
        assert!(matches!(loaded, Loaded::Unknown(found) if found == nothing), "{loaded:?}");
    }
}
