//! The cases of `doorward bench lookup`, by the same code, several times and with several numbers of tokens: what a
//! change does to them, and how far runs lie apart.
//!
//!     cargo bench --bench lookup                      every case
//!     cargo bench --bench lookup -- local-hit request only these
//!
//! Wall-clock time: on a machine that others use, compare the lowest rows. `authenticate.rs` measures the hit and its
//! pieces in CPU time.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench: a panic is a failed run")]

use doorward::app::bench::{Bench, Case, Progress};
use std::num::NonZeroU32;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TOKENS: [u32; 2] = [10_000, 100_000];
const ROUNDS: usize = 3;

fn main() {
    // Cargo adds an option of its own.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    for word in &wanted {
        assert!(Case::ALL.iter().any(|case| case.name() == word), "there is no case {word}");
    }
    let cases =
        Case::ALL.into_iter().filter(|case| wanted.is_empty() || wanted.iter().any(|w| w == case.name()));
    let cases: Vec<Case> = cases.collect();
    let progress: Progress = Arc::new(|_, _, _| {});
    println!(
        "{:>8} {:<20} {:>9} {:>9} {:>9} {:>9} {:>10} {:>7}",
        "tokens", "case, ns each", "mean", "p50", "p99", "p99.9", "per second", "strays"
    );
    for tokens in TOKENS {
        let bench =
            Bench::start(NonZeroU32::new(tokens).unwrap(), &progress, &CancellationToken::new()).unwrap();
        for case in &cases {
            for _ in 0..ROUNDS {
                let measured = bench.measure(*case).unwrap();
                let samples = &measured.samples;
                println!(
                    "{tokens:>8} {:<20} {:>9.0} {:>9} {:>9} {:>9} {:>10.0} {:>7}",
                    case.name(),
                    samples.mean(),
                    samples.at(0.5),
                    samples.at(0.99),
                    samples.at(0.999),
                    measured.per_second(),
                    measured.strays,
                );
            }
        }
        bench.stop().unwrap();
    }
}
