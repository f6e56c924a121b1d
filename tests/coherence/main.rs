//! A hundred replicas under a network that delays, loses, reorders and cuts: no revoked token is accepted too late.
//!
//! Each schedule is decided by its seed, which a failure prints. For each rule of the state machine there is a machine
//! without it, and the simulation has to find out. `COHERENCE_SEED` and `COHERENCE_SCHEDULES` choose others.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test code"
)]

mod claims;
mod confirming;
mod fault;
mod lookup;
mod queue;
mod random;
mod reading;
mod redis;
mod replica;
mod revocation;
mod scale;
mod store;
mod world;

use crate::claims::Violation;
use crate::world::{Plan, Tally, World};
use doorward::cache::coherence::rules::{Rules, Sound};
use std::sync::atomic::{AtomicU64, Ordering};

const REPLICAS: usize = 100;
/// Fewer find the same faults sooner.
const FEW: usize = 12;
/// What `cargo test` runs.
const SCHEDULES: u64 = 20;
const SCHEDULES_LONG: u64 = 10_000;
/// Microseconds.
const LENGTH: u64 = 12_000_000;

#[expect(clippy::disallowed_methods, reason = "schedules are chosen by who runs the tests")]
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn run<R: Rules>(seed: u64, replicas: usize) -> Result<Tally, Violation> {
    World::<R>::new(Plan { seed, replicas, length: LENGTH }).run()
}

/// Runs schedules on both cores; yields what happened in all of them.
fn schedules(count: u64) -> Tally {
    let first = number("COHERENCE_SEED", 1);
    let count = number("COHERENCE_SCHEDULES", count);
    let replicas = usize::try_from(number("COHERENCE_REPLICAS", REPLICAS as u64)).unwrap();
    let next = AtomicU64::new(first);
    let work = || {
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return tally;
            }
            match run::<Sound>(seed, replicas) {
                Ok(more) => tally.add(more),
                Err(Violation { claim, detail }) => {
                    panic!(
                        "not true: {claim}\n{detail}\nagain with COHERENCE_SEED={seed} COHERENCE_SCHEDULES=1"
                    )
                }
            }
        }
    };
    let tallies = std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let mut all = Tally::default();
    for tally in tallies {
        all.add(tally);
    }
    println!("long: seeds {first} to {}, {replicas} replicas: {all:?}", first + count - 1);
    all
}

#[test]
fn no_replica_accepts_a_revoked_token_too_late() {
    let tally = schedules(SCHEDULES);
    // All ways were taken.
    assert!(tally.revoked > 20 && tally.refused > 100 && tally.overtaken > 10, "{tally:?}");
    assert!(tally.carried > 100 && tally.stale > 100 && tally.shared > 100, "{tally:?}");
    assert!(tally.busy > 10 && tally.back > 3 && tally.after_back > 10, "{tally:?}");
}

#[test]
#[ignore = "long: scripts/test-long"]
fn no_replica_accepts_a_revoked_token_too_late_in_ten_thousand_schedules() {
    schedules(SCHEDULES_LONG);
}

/// Makes a machine that lacks each of these rules, and a test that the simulation finds what is wrong with it.
macro_rules! without {
    ($($test:ident: $rule:ident;)*) => {$(
        #[test]
        fn $test() {
            #[derive(Debug)]
            struct Unsound;
            impl Rules for Unsound {
                const $rule: bool = false;
            }
            for seed in 1..=5000 {
                if let Err(violation) = run::<Unsound>(seed, FEW) {
                    println!("without {}: seed {seed}: {violation:?}", stringify!($rule));
                    return;
                }
            }
            panic!("nothing is wrong without {}", stringify!($rule));
        }
    )*};
}

without! {
    changes_have_to_drop: CHANGES_DROP;
    proofs_count_from_when_they_were_asked_for: PROOF_AS_OF_ASKING;
    doubts_outlast_proofs: DOUBT_OUTLASTS_PROOFS;
    confirming_has_to_stop_proofs: CONFIRMING_STOPS_PROOFS;
    belief_has_to_end: BELIEF_ENDS;
    what_is_stale_has_to_end: STALE_ENDS;
    stale_is_for_a_store_that_is_away: STALE_WHILE_AWAY;
    overtaken_fills_have_to_be_refused: OVERTAKEN_FILLS_REFUSED;
    slow_answers_have_to_be_refused: SLOW_ANSWERS_REFUSED;
    the_stream_needs_a_reading: STREAM_NEEDS_READING;
    missing_numbers_have_to_stop_the_stream: MISSING_NUMBERS_STOP;
    gaps_have_to_empty_trust: GAPS_EMPTY_TRUST;
    carrying_has_to_end: CARRYING_ENDS;
    lost_rows_have_to_void: LOST_ROWS_VOID;
    old_values_have_to_be_refused: OLD_VALUES_REFUSED;
    values_are_as_fresh_as_the_proof: VALUES_AS_OF_PROOF;
    readings_have_to_drop_what_was_told: READINGS_ALWAYS_DROP;
    a_lost_past_has_to_be_refused: LOST_PAST_REFUSED;
    a_store_that_hangs_has_to_be_spared: HANGING_STORE_SPARED;
    a_store_that_answers_must_not_be_spared: ANSWERS_END_SPARING;
    who_cannot_tell_has_to_wait: UNTOLD_WAITS;
}
