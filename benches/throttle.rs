//! Cost of asking a throttle: the key's digest, the lock, the counter.
//!
//! Keys are drawn at random from as many clients as the argument says. Memory is the difference of the resident set.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench: a panic is a failed run")]

use divan::{Bencher, black_box};
use doorward::accept::head::{Head, RequestId, Sanitiser};
use doorward::accept::peer::Peer;
use doorward::clock::Monotonic;
use doorward::config::{self, Rate, Throttle, ThrottleBy};
use doorward::header::guarded::GuardedNames;
use doorward::throttle::counters::Counters;
use doorward::throttle::guard::Guard;
use doorward::throttle::{ProxyAlarm, RouteFacts, Throttles};
use doorward::trace::Trace;
use http::Request;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DAY: Duration = Duration::from_hours(24);
const CLIENTS: [u32; 3] = [1, 10_000, 1_000_000];
const START: u64 = 3_600_000_000_000;

fn main() {
    measure_memory();
    divan::main();
}

/// Throttles of one route, and a request to ask them about.
struct World {
    throttles: Throttles,
    head: Head,
    clients: u32,
    draws: u32,
    now: u64,
}

impl World {
    /// All clients have been seen, at a rate of so many a day.
    fn new(count: Option<u32>, clients: u32) -> Self {
        let counters = Arc::new(Counters::new(4 << 30).unwrap());
        let rate = count.map(|count| Rate { count, period: DAY });
        let throttle =
            |rate| Throttle { name: "bench".to_owned(), rate, by: ThrottleBy::Client, shared: false };
        let throttles: Vec<_> = rate.map(throttle).into_iter().collect();
        let route = RouteFacts { name: "bench", is_open: false, counts_addresses: false };
        let alarm = Arc::new(ProxyAlarm::new(true));
        let throttles = Throttles::new(&counters, &alarm, route, &throttles);
        let mut world = Self { throttles, head: head(), clients, draws: 0, now: START };
        for client in 0..clients {
            world.head.client.address = IpAddr::V4(Ipv4Addr::from_bits(client));
            world.throttles.ask(None, &world.head, Monotonic(START), &mut Trace::new()).unwrap();
        }
        world
    }

    /// The next request: whether it is admitted.
    fn ask(&mut self, step: u64) -> bool {
        self.draws = self.draws.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let client = (u64::from(self.draws) * u64::from(self.clients)) >> 32;
        self.head.client.address = IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(client).unwrap()));
        self.now += step;
        let mut trace = Trace::new();
        self.throttles.ask(None, black_box(&self.head), Monotonic(self.now), &mut trace).is_ok()
    }
}

/// A route without throttles.
#[divan::bench]
fn none(bencher: Bencher<'_, '_>) {
    let mut world = World::new(None, 1);
    bencher.bench_local(|| assert!(world.ask(1)));
}

/// One a day: everybody is over it.
#[divan::bench(args = CLIENTS)]
fn log_refuses(bencher: Bencher<'_, '_>, clients: u32) {
    let mut world = World::new(Some(1), clients);
    bencher.bench_local(|| assert!(!world.ask(1)));
}

/// 1,000 a day, of which each client makes use of about ten.
#[divan::bench(args = CLIENTS)]
fn log_admits(bencher: Bencher<'_, '_>, clients: u32) {
    let mut world = World::new(Some(1000), clients);
    let step = u64::try_from(DAY.as_nanos()).unwrap() / (10 * u64::from(clients));
    bencher.bench_local(|| assert!(world.ask(step)));
}

/// A million a day: GCRA.
#[divan::bench(args = CLIENTS)]
fn gcra_admits(bencher: Bencher<'_, '_>, clients: u32) {
    let mut world = World::new(Some(1_000_000), clients);
    let step = u64::try_from(DAY.as_nanos()).unwrap() / (1_000_000 * u64::from(clients));
    bencher.bench_local(|| assert!(world.ask(step.max(1) * 2)));
}

/// All three guards, and the counts given back.
#[divan::bench]
fn guarded_attempt_that_succeeds(bencher: Bencher<'_, '_>) {
    let guard = Arc::new(Guard::new(&config::Guard::default(), 64 << 20).unwrap());
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    bencher.bench_local(|| {
        guard.attempt_now(black_box(client), black_box("alice"), Monotonic(START)).unwrap().succeeded();
    });
}

fn head() -> Head {
    let (mut parts, ()) = Request::get("/").header("host", "api.example.com").body(()).unwrap().into_parts();
    let sanitiser = Sanitiser {
        guarded: GuardedNames::new([]),
        trusted_proxies: Vec::new(),
        target_bytes: 8192,
        header_count: 100,
    };
    let peer = Peer { address: ([192, 0, 2, 1], 50_000).into(), is_tls: true, tls_version: None };
    sanitiser.sanitise(&mut parts, &peer, RequestId::new(1), &mut Trace::new()).unwrap()
}

/// What a million clients take with a log of one entry.
fn measure_memory() {
    drop(World::new(Some(5), 1));
    let before = resident_bytes();
    let world = World::new(Some(5), 1_000_000);
    println!("1,000,000 logs of one entry: {} bytes each", (resident_bytes() - before) / 1_000_000);
    drop(world);
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
