//! The table of counters: one per process, whatever the number of cores, and bounded in bytes.
//!
//! A lock is held for one look-up and never across an await. At the bound the counters that were idle the longest go;
//! those that count nothing any more go a little at a time with every new one.

use crate::clock::Monotonic;
use crate::config::Rate;
use crate::secret::NoRandomness;
use crate::throttle::gcra::Gcra;
use crate::throttle::keys::{Key, Seed};
use crate::throttle::log::{LOG_MAX, SlidingLog};
use hashlink::LinkedHashMap;
use hashlink::linked_hash_map::Entry;
use parking_lot::Mutex;
use std::time::Duration;

/// Parts with a lock of their own.
const SHARDS: usize = 64;
/// Bytes of a counter with its place in the table, without the times of a log: measured by `benches/throttle.rs`.
const COUNTER_BYTES: usize = 112;
/// Places that a part keeps though it has fewer counters.
const PLACES_KEPT: usize = 64;
/// Counters that have ended and are looked for at each hit.
const ENDED_PER_HIT: usize = 2;
/// The part of a period by which two counts of the same requests may differ.
const SLACK: u32 = 8;
/// And the longest time.
const SLACK_MAX: Duration = Duration::from_secs(1);

type Seeded = foldhash::fast::RandomState;

/// What is known of one key.
#[derive(Debug)]
enum Counter {
    Log(SlidingLog),
    Gcra(Gcra),
    /// Of so many there are none left until then, it was said elsewhere.
    Full(u32, Monotonic),
}

impl Counter {
    fn bytes(&self) -> usize {
        match self {
            Self::Log(log) => COUNTER_BYTES.saturating_add(log.bytes()),
            Self::Gcra(_) | Self::Full(..) => COUNTER_BYTES,
        }
    }

    fn ends(&self) -> Monotonic {
        match self {
            Self::Log(log) => log.ends(),
            Self::Gcra(gcra) => gcra.ends(),
            Self::Full(_, until) => *until,
        }
    }
}

#[derive(Debug, Default)]
struct Shard {
    /// The longest idle first.
    counters: LinkedHashMap<Key, Counter, Seeded>,
    bytes: usize,
    /// Counters that had to go for others.
    evicted: u64,
    /// The most counters since places were given back.
    places: usize,
}

/// How full a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Counters.
    pub entries: usize,
    /// Bytes, as the bound counts them.
    pub bytes: usize,
    /// The bound.
    pub bytes_max: usize,
    /// Counters that had to go for others since the start.
    pub evicted: u64,
}

/// All counters of one kind of use.
#[derive(Debug)]
pub struct Counters {
    seed: Seed,
    shards: Vec<Mutex<Shard>>,
    shard_bytes_max: usize,
}

impl Counters {
    /// None yet, and at most so many bytes of them.
    ///
    /// # Errors
    /// If the system gives no randomness for the keys.
    pub fn new(bytes_max: usize) -> Result<Self, NoRandomness> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Ok(Self { seed: Seed::random()?, shards, shard_bytes_max: bytes_max / SHARDS })
    }

    /// Makes keys.
    pub(in crate::throttle) fn seed(&self) -> &Seed {
        &self.seed
    }

    /// One request that is throttled: as DRF counts, or by GCRA where a log would be too long.
    ///
    /// # Errors
    /// If it is not within the rate; with the wait, if there is one to tell.
    pub(in crate::throttle) fn hit(
        &self,
        key: Key,
        rate: Rate,
        now: Monotonic,
    ) -> Result<(), Option<Duration>> {
        if rate.count > LOG_MAX {
            return self.hit_gcra(key, rate, now).map_err(Some);
        }
        self.with_log(key, now, |log| log.hit(rate, now))
    }

    /// One request that was found within the rate elsewhere, where others count, too; see
    /// [`SlidingLog::hit_leniently`].
    ///
    /// # Errors
    /// If it is not within the rate by what is known here alone: there, counters were lost.
    pub(in crate::throttle) fn hit_leniently(
        &self,
        key: Key,
        rate: Rate,
        now: Monotonic,
    ) -> Result<(), Option<Duration>> {
        let slack = (rate.period / SLACK).min(SLACK_MAX);
        self.with_log(key, now, |log| log.hit_leniently(rate, now, slack))
    }

    /// Notes that there are none left of a rate for so long.
    pub(in crate::throttle) fn note_full(&self, key: Key, rate: Rate, now: Monotonic, wait: Duration) {
        self.with(key, now, |counter| *counter = Counter::Full(rate.count, now.plus(wait)));
    }

    /// For how long there are none left, if that was noted.
    pub(in crate::throttle) fn full(&self, key: Key, rate: Rate, now: Monotonic) -> Option<Duration> {
        let shard = self.shard(key)?.lock();
        match shard.counters.get(&key) {
            Some(Counter::Full(count, until)) if *count == rate.count => Some(until.since(now)),
            _ => None,
        }
        .filter(|wait| !wait.is_zero())
    }

    /// Whether one more would be refused by GCRA now; nothing is counted.
    ///
    /// # Errors
    /// If so; with the wait.
    pub(in crate::throttle) fn peek(&self, key: Key, rate: Rate, now: Monotonic) -> Result<(), Duration> {
        let Some(shard) = self.shard(key) else { return Ok(()) };
        match shard.lock().counters.get(&key) {
            Some(Counter::Gcra(gcra)) => {
                let mut gcra = *gcra;
                gcra.hit(rate, now)
            }
            _ => Ok(()),
        }
    }

    fn with_log<T>(&self, key: Key, now: Monotonic, act: impl FnOnce(&mut SlidingLog) -> T) -> T {
        self.with(key, now, |counter| match counter {
            Counter::Log(log) => act(log),
            // The rate was larger before.
            Counter::Gcra(_) | Counter::Full(..) => {
                let mut log = SlidingLog::default();
                let answer = act(&mut log);
                *counter = Counter::Log(log);
                answer
            }
        })
    }

    /// One request, by GCRA.
    ///
    /// # Errors
    /// If it is not within the rate; with the wait.
    pub(in crate::throttle) fn hit_gcra(&self, key: Key, rate: Rate, now: Monotonic) -> Result<(), Duration> {
        self.with_gcra(key, now, |gcra| gcra.hit(rate, now))
    }

    /// How many GCRA has counted for this key and not forgiven.
    pub(in crate::throttle) fn level(&self, key: Key, rate: Rate, now: Monotonic) -> u32 {
        let shard = self.shard(key).map(|shard| shard.lock());
        match shard.as_ref().and_then(|shard| shard.counters.get(&key)) {
            Some(Counter::Gcra(gcra)) => gcra.level(rate, now),
            Some(Counter::Log(_) | Counter::Full(..)) | None => 0,
        }
    }

    /// Takes one back that GCRA counted; nothing if the counter has gone meanwhile.
    pub(in crate::throttle) fn give_back(&self, key: Key, rate: Rate) {
        let Some(shard) = self.shard(key) else { return };
        if let Some(Counter::Gcra(gcra)) = shard.lock().counters.get_mut(&key) {
            gcra.give_back(rate);
        }
    }

    fn with_gcra<T>(&self, key: Key, now: Monotonic, act: impl FnOnce(&mut Gcra) -> T) -> T {
        self.with(key, now, |counter| {
            let mut gcra = match counter {
                Counter::Gcra(gcra) => *gcra,
                Counter::Log(_) | Counter::Full(..) => Gcra::default(),
            };
            let answer = act(&mut gcra);
            *counter = Counter::Gcra(gcra);
            answer
        })
    }

    fn with<T>(&self, key: Key, now: Monotonic, act: impl FnOnce(&mut Counter) -> T) -> T {
        // There are shards, so there is always one.
        let Some(shard) = self.shard(key) else { return act(&mut Counter::Gcra(Gcra::default())) };
        let mut shard = shard.lock();
        let answer = shard.with(key, act);
        shard.drop_ended(now);
        shard.drop_idle(self.shard_bytes_max);
        shard.give_places_back();
        answer
    }

    fn shard(&self, key: Key) -> Option<&Mutex<Shard>> {
        self.shards.get(key.number() % SHARDS)
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        let none = Usage { entries: 0, bytes: 0, bytes_max: self.shard_bytes_max * SHARDS, evicted: 0 };
        self.shards.iter().fold(none, |sum, shard| {
            let shard = shard.lock();
            Usage {
                entries: sum.entries + shard.counters.len(),
                bytes: sum.bytes + shard.bytes,
                evicted: sum.evicted + shard.evicted,
                ..sum
            }
        })
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.usage().bytes
    }
}

impl Shard {
    fn with<T>(&mut self, key: Key, act: impl FnOnce(&mut Counter) -> T) -> T {
        let (counter, bytes_before) = match self.counters.entry(key) {
            Entry::Occupied(mut entry) => {
                entry.to_back();
                let counter = entry.into_mut();
                let bytes = counter.bytes();
                (counter, bytes)
            }
            Entry::Vacant(entry) => (entry.insert(Counter::Log(SlidingLog::default())), 0),
        };
        let answer = act(counter);
        self.bytes = self.bytes.saturating_add(counter.bytes()).saturating_sub(bytes_before);
        answer
    }

    fn drop_ended(&mut self, now: Monotonic) {
        for _ in 0..ENDED_PER_HIT {
            if self.counters.front().is_none_or(|(_, counter)| counter.ends() > now) {
                return;
            }
            self.drop_first();
        }
    }

    /// The one in use is the last, and stays.
    fn drop_idle(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max && self.counters.len() > 1 {
            self.drop_first();
            self.evicted = self.evicted.saturating_add(1);
        }
    }

    /// The map keeps the places of counters that have gone; without this many small ones, and then few with long logs,
    /// would take nearly twice the bound.
    fn give_places_back(&mut self) {
        self.places = self.places.max(self.counters.len());
        if self.places > PLACES_KEPT && self.counters.len() < self.places / 2 {
            self.counters.shrink_to_fit();
            self.places = self.counters.len();
        }
    }

    fn drop_first(&mut self) {
        if let Some((_, counter)) = self.counters.pop_front() {
            self.bytes = self.bytes.saturating_sub(counter.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::UserId;
    use crate::throttle::keys::Subject;
    use proptest::prelude::*;

    const NOW: Monotonic = Monotonic(3_600_000_000_000);

    fn rate(count: u32) -> Rate {
        Rate { count, period: Duration::from_mins(1) }
    }

    fn key(counters: &Counters, user: i64) -> Key {
        counters.seed().key(counters.seed().scope("x"), Subject::User(UserId(user)))
    }

    fn length(counters: &Counters) -> usize {
        counters.shards.iter().map(|shard| shard.lock().counters.len()).sum()
    }

    /// What the shards count is what is in them.
    fn assert_counted(counters: &Counters) {
        for shard in &counters.shards {
            let shard = shard.lock();
            assert_eq!(shard.bytes, shard.counters.values().map(Counter::bytes).sum::<usize>());
        }
    }

    #[test]
    fn logs_count_up_to_1000_and_gcra_above() {
        let counters = Counters::new(1 << 20).unwrap();
        for (user, count) in [(1, 1000), (2, 1001)] {
            let key = key(&counters, user);
            let passed = (0..1100).filter(|_| counters.hit(key, rate(count), NOW).is_ok()).count();
            assert_eq!(u32::try_from(passed), Ok(count));
        }
        // Exactly one minute later a log is empty; so is the bucket.
        let later = NOW.plus(Duration::from_mins(1));
        let half = NOW.plus(Duration::from_secs(30));
        assert!(counters.hit(key(&counters, 1), rate(1000), half).is_err());
        assert!(counters.hit(key(&counters, 2), rate(1001), half).is_ok());
        assert!(counters.hit(key(&counters, 1), rate(1000), later).is_ok());
        assert_counted(&counters);
    }

    #[test]
    fn what_is_full_elsewhere_is_so_for_its_time_and_rate() {
        let counters = Counters::new(1 << 20).unwrap();
        let key = key(&counters, 1);
        assert_eq!(counters.full(key, rate(5), NOW), None);
        counters.note_full(key, rate(5), NOW, Duration::from_secs(10));
        let after = |seconds| NOW.plus(Duration::from_secs(seconds));
        assert_eq!(counters.full(key, rate(5), after(4)), Some(Duration::from_secs(6)));
        assert_eq!(counters.full(key, rate(6), after(4)), None, "another rate");
        assert_eq!(counters.full(key, rate(5), after(10)), None);
        assert_counted(&counters);
    }

    #[test]
    fn peeking_says_what_a_hit_would_and_counts_nothing() {
        let counters = Counters::new(1 << 20).unwrap();
        let key = key(&counters, 1);
        for _ in 0..5 {
            assert_eq!(counters.peek(key, rate(5), NOW), Ok(()));
            assert_eq!(counters.hit_gcra(key, rate(5), NOW), Ok(()));
        }
        for _ in 0..2 {
            assert_eq!(counters.peek(key, rate(5), NOW), Err(Duration::from_secs(12)));
        }
        assert_eq!(counters.hit_gcra(key, rate(5), NOW.plus(Duration::from_secs(12))), Ok(()));
    }

    #[test]
    fn a_counter_survives_a_rate_of_another_kind() {
        let counters = Counters::new(1 << 20).unwrap();
        let key = key(&counters, 1);
        for count in [5, 5000, 5] {
            assert!(counters.hit(key, rate(count), NOW).is_ok());
        }
        assert_counted(&counters);
    }

    #[test]
    fn at_the_bound_the_longest_idle_go() {
        let counters = Counters::new(1 << 20).unwrap();
        let used = key(&counters, -1);
        assert!(counters.hit(used, rate(1), NOW).is_ok());
        for user in 0..100_000 {
            assert!(counters.hit(key(&counters, user), rate(1), NOW).is_ok());
            if user % 10 == 0 {
                assert!(counters.hit(used, rate(1), NOW).is_err(), "used, so it stays");
            }
        }
        assert!(counters.bytes() <= 1 << 20);
        assert!(counters.hit(key(&counters, 0), rate(1), NOW).is_ok(), "the first went");
        assert!(counters.hit(key(&counters, 99_999), rate(1), NOW).is_err(), "the last stays");
        assert_counted(&counters);
    }

    #[test]
    fn counters_that_have_ended_go_before_the_bound() {
        let counters = Counters::new(64 << 20).unwrap();
        for user in 0..10_000 {
            assert!(counters.hit(key(&counters, user), rate(5), NOW).is_ok());
        }
        assert_eq!(length(&counters), 10_000);
        let later = NOW.plus(Duration::from_mins(1));
        for user in 10_000..20_000 {
            assert!(counters.hit(key(&counters, user), rate(5), later).is_ok());
        }
        assert!(length(&counters) < 10_100, "{}", length(&counters));
        let places = || counters.shards.iter().map(|shard| shard.lock().counters.capacity()).sum::<usize>();
        assert!(places() > 10_000);
        // A few that are in use outlive the rest, and do not keep its places.
        let later = later.plus(Duration::from_mins(1));
        // So often that a shard which has few of them is cleared, too: each hit drops two of its own shard.
        for hit in 0..100_000 {
            assert_eq!(counters.hit(key(&counters, hit % 1000), rate(5), later).is_ok(), hit < 5000);
        }
        assert_eq!(length(&counters), 1000);
        assert!(places() < 5000, "{}", places());
    }

    #[test]
    fn threads_share_one_count() {
        let counters = Counters::new(1 << 20).unwrap();
        let key = key(&counters, 1);
        let passed: usize = std::thread::scope(|scope| {
            let hit = || (0..500).filter(|_| counters.hit(key, rate(100), NOW).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(hit)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 100);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn the_bound_holds_whatever_comes(
            hits in prop::collection::vec((0_usize..40, 0_u32..1200, 1_usize..300), 1..60),
        ) {
            let counters = Counters::new(1 << 20).unwrap();
            // All in one shard, whose 16 KiB two long logs fill.
            let keys = (0..).map(|user| key(&counters, user)).filter(|key| key.number() % SHARDS == 0);
            let keys: Vec<_> = keys.take(40).collect();
            let mut now = NOW;
            for (place, count, times) in hits {
                for _ in 0..times {
                    now = now.plus(Duration::from_millis(1));
                    let is_within = counters.hit(keys[place], rate(count), now).is_ok();
                    prop_assert!(!is_within || count > 0);
                    prop_assert!(counters.shards[0].lock().bytes <= 16 << 10);
                }
            }
            assert_counted(&counters);
        }
    }
}
