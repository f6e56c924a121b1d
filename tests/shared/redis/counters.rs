//! Counters that replicas share: what the scripts say is what the algorithms say, whatever lies there.

use super::{Replica, keys, names, settings};
use crate::services::redis::Redis;
use doorward::cache::redis::{Act, LOG_TIMES_MAX, Logged};
use redis::Commands as _;
use std::time::Duration;

const MINUTE: u64 = 60_000_000;
const HOUR: Duration = Duration::from_hours(1);

/// Numbers that look random and are the same each time (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Makes what lies there so many minutes older: Redis' own clock cannot be moved.
fn age_log(connection: &mut redis::Connection, key: &str, minutes: u64) {
    let text: String = connection.get(key).unwrap();
    let times = text.as_bytes().chunks(16).map(|time| str::from_utf8(time).unwrap().parse::<u64>().unwrap());
    let older: Vec<String> = times.map(|time| format!("{:016}", time - minutes * MINUTE)).collect();
    let older = older.concat();
    connection.set::<_, _, ()>(key, older).unwrap();
}

/// DRF's code, line by line (3.18, `SimpleRateThrottle`): the newest first, in minutes.
#[derive(Default)]
struct Drf {
    history: Vec<u64>,
}

impl Drf {
    /// Whether it is allowed, how many there were, and the age of the oldest.
    fn allow(&mut self, count: usize, duration: u64, now: u64) -> (bool, usize, Option<u64>) {
        while self.history.last().is_some_and(|last| *last <= now - duration) {
            self.history.pop();
        }
        let (held, oldest) = (self.history.len(), self.history.last().map(|last| now - last));
        if held < count {
            self.history.insert(0, now);
        }
        (held < count, held, oldest)
    }
}

#[tokio::test]
async fn the_log_says_what_drf_says() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let mut connection = server.connection();
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    for sequence in 0..40 {
        let name = format!("sequence {sequence}");
        let key = keys().counter(name.as_bytes());
        let (mut drf, mut now) = (Drf::default(), 10_000);
        let counts = [numbers.below(6), numbers.below(6)];
        for step in 0..30 {
            let passed = numbers.below(25);
            now += passed;
            if connection.exists(&key).unwrap() {
                age_log(&mut connection, &key, passed);
            }
            // The rate changes half-way.
            let count = counts[usize::from(step >= 15)];
            let logged =
                replica.cache.log(name.as_bytes(), u32::try_from(count).unwrap(), HOUR).await.unwrap();
            let age = logged.oldest.map(|age| age.as_secs() / 60);
            let held = usize::try_from(logged.held).unwrap();
            let expected = drf.allow(usize::try_from(count).unwrap(), 60, now);
            assert_eq!((logged.is_within, held, age), expected, "{sequence} {step}: {count} an hour");
        }
    }
}

#[tokio::test]
async fn a_log_forgets_after_its_period_and_so_does_redis() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let second = Duration::from_secs(1);
    let hit = async || replica.cache.log(b"a", 3, second).await.unwrap();
    for held in 0..3 {
        let logged = hit().await;
        assert!(logged.is_within && logged.held == held, "{logged:?}");
    }
    let refused = hit().await;
    assert!(!refused.is_within && refused.held == 3, "{refused:?}");
    let left = second.saturating_sub(refused.oldest.unwrap());
    tokio::time::sleep(left + Duration::from_millis(1)).await;
    assert!(hit().await.is_within);
    tokio::time::sleep(second + Duration::from_millis(50)).await;
    assert!(names(&server).is_empty());
}

#[tokio::test]
async fn a_log_is_bounded_and_exact_at_its_largest() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    for number in 0..LOG_TIMES_MAX + 10 {
        let logged = replica.cache.log(b"a", LOG_TIMES_MAX, HOUR).await.unwrap();
        assert_eq!((logged.is_within, logged.held), (number < LOG_TIMES_MAX, number.min(LOG_TIMES_MAX)));
    }
    let length: usize = server.connection().strlen(keys().counter(b"a")).unwrap();
    assert_eq!(length, 16_000);
}

#[tokio::test]
async fn a_bucket_leaks_one_each_interval_and_knows_who_is_pending() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let mut connection = server.connection();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let interval = Duration::from_mins(10);
    for sequence in 0..40 {
        let name = format!("sequence {sequence}");
        let key = keys().counter(name.as_bytes());
        let count = 1 + numbers.below(5);
        let (mut level, mut pending) = (0_u64, 0_u64);
        for step in 0..30 {
            let passed = numbers.below(12);
            if connection.exists(&key).unwrap() {
                let text: String = connection.get(&key).unwrap();
                let (moment, rest) = text.split_once(' ').unwrap();
                let moment = moment.parse::<u64>().unwrap() - passed * MINUTE;
                connection.set::<_, _, ()>(&key, format!("{moment} {rest}")).unwrap();
            }
            level = level.saturating_sub(passed);
            // No more of them are believed than there is room for.
            pending = if level == 0 { 0 } else { pending.min(count) };
            let acts = [Act::Look, Act::Try, Act::Try, Act::Add, Act::Keep, Act::GiveBack];
            let act = acts[usize::try_from(numbers.below(6)).unwrap()];
            let has_room = level <= 10 * (count - 1);
            let is_done = has_room || !matches!(act, Act::Try | Act::Add);
            match act {
                Act::Try | Act::Add if has_room => level += 10,
                Act::GiveBack => level = level.saturating_sub(10),
                _ => {}
            }
            match act {
                Act::Try if has_room => pending += 1,
                Act::Keep | Act::GiveBack => pending = pending.saturating_sub(1),
                _ => {}
            }
            let bucket = replica
                .cache
                .bucket(name.as_bytes(), interval, u32::try_from(count).unwrap(), act)
                .await
                .unwrap();
            // A moment of real time has passed as well.
            let ahead = bucket.ahead.as_millis().div_ceil(60_000);
            let place = format!("{sequence} {step}: {act:?} of {count}");
            assert_eq!((bucket.is_done, ahead), (is_done, u128::from(level)), "{place}");
            assert_eq!(u64::from(bucket.pending), pending, "{place}");
        }
    }
}

#[tokio::test]
async fn replicas_count_together_and_other_deployments_apart() {
    let server = Redis::start();
    let one = Replica::new(settings(&server)).connected().await;
    let other = Replica::new(settings(&server)).connected().await;
    let (within, full) = (Logged { is_within: true, held: 0, oldest: None }, async |replica: &Replica| {
        !replica.cache.log(b"a", 1, HOUR).await.unwrap().is_within
    });
    assert_eq!(one.cache.log(b"a", 1, HOUR).await.unwrap(), within);
    assert!(full(&one).await && full(&other).await);
    assert_eq!(other.cache.log(b"b", 1, HOUR).await.unwrap(), within);
    let stranger = Replica::with(
        settings(&server),
        super::KEY,
        b"another store",
        std::sync::Arc::new(doorward::clock::SystemClock::new()),
    );
    assert_eq!(stranger.connected().await.cache.log(b"a", 1, HOUR).await.unwrap(), within);
}

#[tokio::test]
async fn whatever_lies_there_begins_anew_or_ends_in_time() {
    let server = Redis::start();
    let replica = Replica::new(settings(&server)).connected().await;
    let mut connection = server.connection();
    let key = keys().counter(b"a");
    let future = "9999999999999999".repeat(2);
    let long = "0".repeat(16 * 2000);
    for text in [
        "",
        "x",
        "123",
        "               1",
        "-000000000000001",
        "0x00000000000001",
        &long,
        "nan 5",
        "1e400 1",
    ] {
        connection.set::<_, _, ()>(&key, text).unwrap();
        let logged = replica.cache.log(b"a", 2, HOUR).await.unwrap();
        assert_eq!((logged.is_within, logged.held), (true, 0), "{text:.20}");
        connection.set::<_, _, ()>(&key, text).unwrap();
        let bucket = replica.cache.bucket(b"a", HOUR, 2, Act::Try).await.unwrap();
        assert!(bucket.is_done && bucket.pending == 1, "{text:.20}: {bucket:?}");
    }
    // What a clock that was put back left behind counts as now, and goes as what is of now.
    connection.set::<_, _, ()>(&key, &future).unwrap();
    let logged = replica.cache.log(b"a", 2, HOUR).await.unwrap();
    assert_eq!(logged, Logged { is_within: false, held: 2, oldest: Some(Duration::ZERO) });
    assert!(connection.pttl::<_, i64>(&key).unwrap() > 3_500_000);
    age_log(&mut connection, &key, 60);
    assert!(replica.cache.log(b"a", 2, HOUR).await.unwrap().is_within);
    connection.set::<_, _, ()>(&key, "99999999999999999999 99999999999999999999").unwrap();
    let bucket = replica.cache.bucket(b"a", HOUR, 2, Act::Add).await.unwrap();
    assert!(!bucket.is_done && bucket.ahead <= HOUR * 2, "{bucket:?}");
    // Another type.
    for _ in 0..2 {
        connection.del::<_, ()>(&key).unwrap();
        connection.lpush::<_, _, ()>(&key, "1").unwrap();
        assert!(replica.cache.log(b"a", 2, HOUR).await.unwrap().is_within);
        connection.del::<_, ()>(&key).unwrap();
        connection.lpush::<_, _, ()>(&key, "1").unwrap();
        assert!(replica.cache.bucket(b"a", HOUR, 2, Act::GiveBack).await.unwrap().is_done);
    }
}
