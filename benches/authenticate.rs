//! Cost of an authentication that needs no store: time of a hit, and memory of an entry.
//!
//! Not a divan bench, for two reasons. The aims are in CPU time of the thread, so that neighbours on the machine
//! who take the core away are not counted. And what matters is which token comes next: an even walk over a few of
//! them would measure the processor's cache. So the order is drawn beforehand (Zipf, or uniform), and a sample is
//! 2,048 look-ups, timed in bursts; between bursts the next request heads are prepared, untimed, so that a head is
//! as warm as one that was just read from a socket. Reading the thread's clock is part of each burst and not
//! subtracted; the row `nothing` shows what it adds.
//!
//! Memory is the difference of the resident set, measured in processes of its own.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench: a panic is a failed run, and figures are rounded"
)]

use data_encoding::BASE64;
use doorward::accept::head::{Head, RequestId, Sanitiser};
use doorward::accept::peer::Peer;
use doorward::authenticate::lookups::Lookups;
use doorward::authenticate::password::{CheckPassword, Checking};
use doorward::authenticate::scheme::{Context, Effects, Recall, Scheme, Verdict};
use doorward::authenticate::schemes::basic::{BasicScheme, Remembered, VerifiedPasswords};
use doorward::authenticate::schemes::session::{SessionScheme, SessionSettings, Sessions};
use doorward::authenticate::schemes::token::{self, TokenScheme};
use doorward::authenticate::slow::SlowSide;
use doorward::cache::local::{self, CacheSettings, CredentialKey, Fact, LocalCache, Now};
use doorward::clock::{Clock, SystemClock};
use doorward::credentials::{Credentials, TokenPolicy};
use doorward::csrf;
use doorward::header::authorization;
use doorward::header::guarded::GuardedNames;
use doorward::identity::{CredentialId, Digest, Family, User, UserId};
use doorward::password::Passwords;
use doorward::secret::Secret;
use doorward::store::UserWithPassword;
use doorward::store::sqlite::{Sqlite, SqliteOptions};
use doorward::trace::{AnsweredBy, Trace};
use http::{HeaderValue, Request, header};
use rustix::time::{ClockId, clock_gettime};
use std::convert::Infallible;
use std::hint::black_box;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Heads that are ready at a time: few enough to stay in the processor's cache.
const BURST: usize = 128;
const SAMPLE: usize = 2048;
const SAMPLES: usize = 1000;
const HOUR: Duration = Duration::from_hours(1);
const MILLION: u64 = 1_000_000;
/// Passwords and sessions.
const MANY: u64 = 10_000;
/// First argument of the processes that measure memory; the second one names the case.
const MEMORY: &str = "memory";
/// An argument: nothing but one scheme beside the other.
const SCHEMES: &str = "schemes";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, first, case] = &arguments[..]
        && first == MEMORY
    {
        return measure_memory(case);
    }
    println!("{:<58} {:>8} {:>8}", "thread CPU time, ns each", "p10", "median");
    if arguments.iter().any(|argument| argument == SCHEMES) {
        return World::new(MANY, MANY, 64 << 20).other_schemes();
    }
    pieces();
    let ten_thousand = World::new(10_000, 10_000, 64 << 20);
    ten_thousand.hits("10,000 tokens, Zipf 0.99", Draw::zipf(10_000));
    ten_thousand.refusals();
    ten_thousand.other_schemes();
    drop(ten_thousand);
    for (users, text) in [(1000, "1,000 users"), (MILLION, "as many users")] {
        let world = World::new(MILLION, users, 1 << 30);
        world.hits(&format!("1,000,000 tokens, {text}, Zipf 0.99"), Draw::zipf(MILLION));
        world.hits(&format!("1,000,000 tokens, {text}, uniform"), Draw::uniform(MILLION));
    }
    println!("\nresident memory");
    for case in ["shared", "own", "shared-full", "own-full", "unknown"] {
        let program = std::env::current_exe().unwrap();
        let status = std::process::Command::new(program).args([MEMORY, case]).status().unwrap();
        assert!(status.success(), "{case}");
    }
}

/// A cache filled with tokens 0..n, and the scheme in front of it.
struct World {
    cache: Arc<LocalCache>,
    store: Arc<Sqlite>,
    scheme: Arc<dyn Scheme>,
    clock: SystemClock,
    runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

impl World {
    fn new(tokens: u64, users: u64, capacity_bytes: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("doorward.db");
        let store = runtime.block_on(Sqlite::open(&path, SqliteOptions::default())).unwrap();
        let cache = Arc::new(cache(capacity_bytes));
        fill(&runtime, &cache, 0..tokens, users);
        assert_eq!(cache.len() as u64, tokens, "something was evicted");
        let store = Arc::new(store);
        let source = Arc::new(lookups(&cache, &store));
        let scheme: Arc<dyn Scheme> = Arc::new(TokenScheme::new("Token", &[Family::Doorward], source));
        Self { cache, store, scheme, clock: SystemClock::new(), runtime, _directory: directory }
    }

    fn lookups(&self) -> Lookups {
        lookups(&self.cache, &self.store)
    }

    fn hits(&self, name: &str, mut draw: Draw) {
        self.recall(
            &format!("hit, header to identity: {name}"),
            || draw.next(),
            |recall| {
                assert!(matches!(recall, Recall::Answer(Verdict::Verified(_, AnsweredBy::Local))));
            },
        );
        let key = |number| CredentialKey { digest: Digest::of(&key_text(number)), family: Family::Doorward };
        let now = Now::read(&self.clock);
        let figures = measure(
            &mut vec![key(0); BURST],
            |input| *input = key(draw.next()),
            |input| drop(black_box(self.cache.recall(input, now, HOUR))),
        );
        figures.print("  of which cache.recall");
    }

    /// By turns with the token, so that what the machine does meanwhile is in both.
    fn other_schemes(&self) {
        let lookups = Arc::new(self.lookups());
        let handle = self.runtime.handle().clone();
        let passwords = VerifiedPasswords::new(
            Arc::clone(&lookups),
            Arc::new(Right),
            Arc::new(Remembered::new().unwrap()),
            SlowSide::new(handle, 1, HOUR),
        );
        let basic: Arc<dyn Scheme> = Arc::new(BasicScheme::new("api", Arc::new(passwords)));
        let mut one = head();
        for number in 0..MANY {
            present_password(&mut one, number);
            let context = Context::new(Now::read(&self.clock), HOUR);
            let Recall::Attempt(attempt) = basic.recall(&one, &context, &mut Effects::default()) else {
                unreachable!("nobody has come yet")
            };
            self.runtime.block_on(attempt).unwrap();
            let key = CredentialKey { digest: Digest::of(&key_text(number)[..32]), family: Family::Session };
            let fact =
                Fact { id: CredentialId(number), expires: None, user: user(number), csrf_secret: None };
            let ask = || std::future::ready(Ok::<_, Infallible>(Some(fact.clone())));
            self.runtime.block_on(self.cache.load(key, &self.clock, HOUR, ask)).unwrap();
        }
        let policy = TokenPolicy { ttl: None, prefix: String::new(), per_user: NonZeroUsize::MIN };
        let passwords = Arc::new(Passwords::new(NonZeroUsize::MIN, 1).unwrap());
        let credentials = Credentials::new(
            Arc::clone(&self.store) as _,
            Arc::clone(&self.cache),
            passwords,
            Arc::new(SystemClock::new()),
            policy,
        );
        let sessions = Arc::new(Sessions::new(lookups, Arc::new(credentials), Arc::default()));
        let session: Arc<dyn Scheme> = Arc::new(SessionScheme::new(Arc::new(session_settings()), sessions));
        let mut order = Draw::zipf(MANY);
        for _ in 0..3 {
            for (name, scheme, present) in [
                ("a token", &self.scheme, present as fn(&mut Head, u64)),
                ("a name and a password", &basic, present_password),
                ("a session, with its CSRF cookie", &session, present_session),
            ] {
                let check = |recall: &Recall| {
                    assert!(matches!(recall, Recall::Answer(Verdict::Verified(_, AnsweredBy::Local))));
                };
                let name = format!("hit of {name}, of 10,000, Zipf 0.99");
                self.recall_by(&name, scheme, present, || order.next(), check);
            }
        }
    }

    fn refusals(&self) {
        let mut next = u64::MAX / 2;
        let mut fresh = || {
            next += 1;
            next
        };
        self.recall("miss: the store must be asked", &mut fresh, |recall| {
            assert!(matches!(recall, Recall::Ask(_)));
        });
        let key = CredentialKey { digest: Digest::of(&key_text(u64::MAX)), family: Family::Doorward };
        let ask = || std::future::ready(Ok::<_, Infallible>(None));
        let loaded = self.runtime.block_on(self.cache.load(key, &self.clock, HOUR, ask)).unwrap();
        assert!(matches!(loaded, local::Loaded::Unknown(_)));
        self.recall(
            "unknown token, asked a moment ago",
            || u64::MAX,
            |recall| {
                let is_unknown =
                    |verdict: &Verdict| matches!(verdict, Verdict::Rejected(_, AnsweredBy::LocalUnknown, _));
                assert!(matches!(recall, Recall::Answer(verdict) if is_unknown(verdict)));
            },
        );
    }

    /// All that the gateway does from a request's head to its answer: the clock is read, the scheme is asked.
    fn recall(&self, name: &str, next: impl FnMut() -> u64, check: impl Fn(&Recall)) {
        self.recall_by(name, &self.scheme, present, next, check);
    }

    fn recall_by(
        &self,
        name: &str,
        scheme: &Arc<dyn Scheme>,
        present: fn(&mut Head, u64),
        mut next: impl FnMut() -> u64,
        check: impl Fn(&Recall),
    ) {
        let mut heads: Vec<Head> = (0..BURST).map(|_| head()).collect();
        let figures = measure(
            &mut heads,
            |head| present(head, next()),
            |head| {
                let context = Context::new(Now::read(&self.clock), HOUR);
                let recall = scheme.recall(black_box(head), &context, &mut Effects::default());
                check(black_box(&recall));
            },
        );
        figures.print(name);
    }
}

fn lookups(cache: &Arc<LocalCache>, store: &Arc<Sqlite>) -> Lookups {
    let key = Secret::new("a deployment key");
    Lookups::new(Arc::clone(cache), Arc::clone(store) as _, Arc::new(SystemClock::new()), &key)
}

/// Every password is right.
#[derive(Debug)]
struct Right;

impl CheckPassword for Right {
    fn check(&self, _: IpAddr, name: String, password: Secret) -> Checking<'_> {
        let number = name.trim_start_matches("user").parse().unwrap();
        Box::pin(async move { Ok(Some(UserWithPassword { user: user(number), password, as_of: None })) })
    }
}

fn session_settings() -> SessionSettings {
    SessionSettings {
        cookie: "sessionid".to_owned(),
        age: HOUR,
        secure: true,
        domain: None,
        same_site: "Lax",
        csrf_cookie: "csrftoken".to_owned(),
        csrf_age: HOUR,
        csrf: csrf::Settings::default(),
        https_port: 443,
    }
}

/// The steps of a hit, each alone.
fn pieces() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let mut texts: Vec<[u8; 40]> = (0..BURST as u64).map(key_text).collect();
    let mut heads: Vec<Head> = (0..BURST).map(|_| head()).collect();
    heads.iter_mut().zip(0..).for_each(|(head, number)| present(head, number));
    let nothing = |_: &mut _| ();
    measure(&mut heads, nothing, |head| {
        black_box(head);
    })
    .print("nothing");
    measure(&mut heads, nothing, |_| {
        black_box(Now::read(clock.as_ref()));
    })
    .print("both clocks");
    let read = |head: &Head| {
        let value = authorization::value(&black_box(head).headers).unwrap();
        assert!(matches!(token::read(&value, "Token"), token::Reading::Token(_)));
    };
    measure(&mut heads, nothing, read).print("header to token");
    measure(
        &mut texts,
        |_| (),
        |text| {
            black_box(Digest::of(black_box(text)));
        },
    )
    .print("SHA-256 of a token");
}

/// What one look-up took, of each sample.
struct Figures(Vec<f64>);

impl Figures {
    fn print(mut self, name: &str) {
        self.0.sort_by(f64::total_cmp);
        let at = |percent: usize| self.0[self.0.len() * percent / 100];
        println!("{name:<58} {:>8.0} {:>8.0}", at(10), at(50));
    }
}

fn measure<I>(inputs: &mut [I], mut prepare: impl FnMut(&mut I), mut work: impl FnMut(&I)) -> Figures {
    let mut sample = || {
        let mut spent = Duration::ZERO;
        for _ in 0..SAMPLE / BURST {
            inputs.iter_mut().for_each(&mut prepare);
            let before = thread_time();
            inputs.iter().for_each(&mut work);
            spent += thread_time().saturating_sub(before);
        }
        spent.as_nanos() as f64 / SAMPLE as f64
    };
    for _ in 0..SAMPLES / 2 {
        sample();
    }
    Figures((0..SAMPLES).map(|_| sample()).collect())
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Which token comes next; drawn beforehand, so that drawing takes no cache lines.
struct Draw {
    order: Vec<u32>,
    place: usize,
}

impl Draw {
    /// Rank r comes with a probability in proportion to 1/r^0.99.
    fn zipf(tokens: u64) -> Self {
        let mut sum = 0.0;
        let sums: Vec<f64> = (1..=tokens)
            .map(|rank| {
                sum += (rank as f64).powf(-0.99);
                sum
            })
            .collect();
        Self::new(|random| sums.partition_point(|upto| *upto < random * sum) as u64, tokens)
    }

    fn uniform(tokens: u64) -> Self {
        Self::new(|random| (random * tokens as f64) as u64, tokens)
    }

    fn new(rank: impl Fn(f64) -> u64, tokens: u64) -> Self {
        let mut state = 42;
        let order = (0..SAMPLE * SAMPLES).map(|_| {
            state += 1;
            let random = (mix(state) >> 11) as f64 / (1_u64 << 53) as f64;
            // The tokens of the first ranks are not neighbours in memory: 611,953 is a prime.
            (rank(random).min(tokens - 1) * 611_953 % tokens) as u32
        });
        Self { order: order.collect(), place: 0 }
    }

    fn next(&mut self) -> u64 {
        self.place = (self.place + 1) % self.order.len();
        u64::from(self.order[self.place])
    }
}

/// `SplitMix64`.
fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A key of 40 hex digits, as DRF's.
fn key_text(number: u64) -> [u8; 40] {
    let mut text = [b'0'; 40];
    for (place, slot) in text.iter_mut().enumerate() {
        let nibble = mix(number.wrapping_add(place as u64 / 16 * MILLION)) >> (place % 16 * 4) & 15;
        *slot = b"0123456789abcdef"[nibble as usize];
    }
    text
}

/// The head of an ordinary request of a program, as the pipeline makes it.
fn head() -> Head {
    let request = Request::get("/api/articles/42/?fields=title,body")
        .header("host", "api.example.com")
        .header("user-agent", "python-requests/2.32.3")
        .header("accept", "application/json")
        .header("accept-encoding", "gzip, deflate")
        .header("connection", "keep-alive")
        .header("authorization", "");
    let sanitiser = Sanitiser {
        guarded: GuardedNames::new([]),
        trusted_proxies: Vec::new(),
        target_bytes: 8192,
        header_count: 100,
    };
    let peer = Peer { address: ([192, 0, 2, 1], 50_000).into(), is_tls: true, tls_version: None };
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    sanitiser.sanitise(&mut parts, &peer, RequestId::new(1), &mut Trace::new()).unwrap()
}

/// Puts a token into a head.
fn present(head: &mut Head, number: u64) {
    let value = [&b"Token "[..], &key_text(number)].concat();
    head.headers.insert(header::AUTHORIZATION, HeaderValue::from_bytes(&value).unwrap());
}

/// Puts a name and a password into a head.
fn present_password(head: &mut Head, number: u64) {
    let word = BASE64.encode(format!("user{number:06}:correct horse battery").as_bytes());
    let value = HeaderValue::from_str(&format!("Basic {word}")).unwrap();
    head.headers.insert(header::AUTHORIZATION, value);
}

/// Puts the cookies of a browser into a head, as Django names them.
fn present_session(head: &mut Head, number: u64) {
    let value =
        [&b"csrftoken=abcdefghijklmnopqrstuvwxyz012345; sessionid="[..], &key_text(number)[..32]].concat();
    head.headers.remove(header::AUTHORIZATION);
    head.headers.insert(header::COOKIE, HeaderValue::from_bytes(&value).unwrap());
}

fn cache(capacity_bytes: u64) -> LocalCache {
    LocalCache::new(CacheSettings { capacity_bytes, revocation_bound: HOUR, negative_ttl: HOUR })
}

/// Fills the cache as look-ups do; without users, all tokens are unknown.
fn fill(runtime: &tokio::runtime::Runtime, cache: &LocalCache, numbers: std::ops::Range<u64>, users: u64) {
    let clock = SystemClock::new();
    runtime.block_on(async {
        for number in numbers {
            let key = CredentialKey { digest: Digest::of(&key_text(number)), family: Family::Doorward };
            let owner = number.checked_rem(users).map(user);
            let fact =
                owner.map(|user| Fact { id: CredentialId(number), expires: None, user, csrf_secret: None });
            let ask = || std::future::ready(Ok::<_, Infallible>(fact.clone()));
            cache.load(key, &clock, HOUR, ask).await.unwrap();
        }
    });
}

fn user(number: u64) -> User {
    let username = format!("user{number:06}");
    User {
        id: UserId(number.cast_signed()),
        email: format!("{username}@example.com").into(),
        username: username.into(),
        is_active: true,
        is_staff: false,
        groups: Box::new(["editors".into()]),
        password_version: 1,
        not_before: 0,
    }
}

/// Measures what a million tokens take, in this process.
fn measure_memory(case: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (name, users, tokens, capacity) = match case {
        "shared" => ("1,000,000 tokens of 1,000 users", 1000, MILLION, 1 << 30),
        "own" => ("1,000,000 tokens of as many users", MILLION, MILLION, 1 << 30),
        "shared-full" => ("3,000,000 tokens of 1,000 users, room for a third", 1000, 3 * MILLION, 640 << 20),
        "own-full" => {
            ("3,000,000 tokens of as many users, room for a third", 3 * MILLION, 3 * MILLION, 640 << 20)
        }
        _ => ("2,000,000 unknown tokens, room for half", 0, 2 * MILLION, 2_048_000_000),
    };
    // Whatever is made once is there before.
    fill(&runtime, &cache(1 << 20), 0..1000, 1000);
    let before = resident_bytes();
    let cache = cache(capacity);
    fill(&runtime, &cache, 0..tokens, users);
    let bytes = resident_bytes() - before;
    let (entries, capacity) =
        if users == 0 { (MILLION, capacity / 16) } else { (cache.len() as u64, capacity) };
    println!(
        "{name:<52} {entries:>8} entries {:>4.0} bytes each, {:>3} MiB of a capacity of {:>3}",
        bytes as f64 / entries as f64,
        bytes >> 20,
        capacity >> 20
    );
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
