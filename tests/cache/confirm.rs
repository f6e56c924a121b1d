//! Entries that the store confirms many at once.

use super::double::user;
use super::local::{BOUND, Bench, NANOSECOND, Seen, bench, key};
use doorward::cache::local::{Confirmed, Invalidation};
use doorward::clock::Clock as _;
use doorward::identity::UserId;
use std::sync::Arc;

fn said(version: i64) -> Confirmed {
    Confirmed { user: user(1, version), expires: None, csrf_secret: None }
}

/// Token 1, known, and in doubt unless it is confirmed as of a later moment.
async fn known() -> Arc<Bench> {
    let bench = bench();
    bench.put(1, 1, 1);
    assert_eq!(bench.load(1).await, Seen::Known(1));
    bench.clock.advance(NANOSECOND);
    bench
}

/// The store is asked now, and says this.
fn confirm(bench: &Bench, version: Option<i64>) {
    let (asked, moment) = (bench.clock.monotonic(), bench.cache.confirming());
    bench.cache.confirm(key(1), version.map(said), asked, moment);
    bench.cache.doubt(asked);
    bench.clock.advance(NANOSECOND);
}

#[tokio::test]
async fn what_is_confirmed_is_not_asked_for_again() {
    let bench = known().await;
    for _ in 0..5 {
        confirm(&bench, Some(1));
        assert_eq!((bench.recall(1), bench.store.asked()), (Seen::Known(1), 1));
        bench.clock.advance(BOUND.checked_sub(NANOSECOND * 2).unwrap());
        assert_eq!(bench.recall(1), Seen::Known(1));
    }
    bench.clock.advance(NANOSECOND);
    assert_eq!(bench.recall(1), Seen::Miss);
}

#[tokio::test]
async fn what_changed_is_taken_over() {
    let bench = known().await;
    confirm(&bench, Some(2));
    assert_eq!((bench.recall(1), bench.store.asked()), (Seen::Known(2), 1));
    confirm(&bench, None);
    assert_eq!((bench.recall(1), bench.cache.len()), (Seen::Miss, 0));
    confirm(&bench, Some(3));
    assert_eq!((bench.recall(1), bench.cache.len()), (Seen::Miss, 0), "only what is there is confirmed");
}

#[tokio::test]
async fn what_a_change_overtook_is_not_taken_over() {
    for change in [Invalidation::Credential(key(1)), Invalidation::User(UserId(1)), Invalidation::Everything]
    {
        let bench = known().await;
        let (asked, moment) = (bench.clock.monotonic(), bench.cache.confirming());
        // The store has answered; before its answer is taken in, it is void, and somebody asks anew.
        bench.cache.invalidate(change);
        bench.put(1, 1, 2);
        bench.clock.advance(NANOSECOND);
        assert_eq!(bench.load(1).await, Seen::Known(2));
        for late in [Some(said(1)), None] {
            bench.cache.confirm(key(1), late, asked, moment);
            assert_eq!(bench.recall(1), Seen::Known(2), "{change:?}");
        }
        let bench = known().await;
        let (asked, moment) = (bench.clock.monotonic(), bench.cache.confirming());
        bench.cache.invalidate(change);
        bench.cache.confirm(key(1), Some(said(1)), asked, moment);
        assert_eq!(bench.recall(1), Seen::Miss, "{change:?}");
    }
}

#[tokio::test]
async fn who_asks_meanwhile_is_not_disturbed() {
    let bench = known().await;
    bench.clock.advance(BOUND);
    bench.put(1, 1, 2);
    let (asked, moment) = (bench.clock.monotonic(), bench.cache.confirming());
    let load = bench.held_load().await;
    bench.cache.confirm(key(1), Some(said(1)), asked, moment);
    assert_eq!(bench.recall(1), Seen::Miss);
    bench.store.open();
    assert_eq!((load.await.unwrap(), bench.recall(1)), (Seen::Known(2), Seen::Known(2)));
}
