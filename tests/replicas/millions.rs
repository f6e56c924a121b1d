//! Ten million tokens in PostgreSQL, and one replica with the cache that it has by default: how many look-ups are
//! answered from memory, and that such an answer costs no more than with a thousand tokens.

use crate::drill::{load, number, outage, resident};
use crate::fleet::run_for;
use crate::harness::program::{Program, credentials};
use crate::harness::scrape::{Scrape, ask_socket};
use crate::harness::services::postgres::Postgres;
use crate::load::{Connection, Light, Load, Next, Times, get};
use aws_lc_rs::digest;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// `DOORWARD_TOKENS` has another number, to try it out.
const TOKENS: u64 = 10_000_000;
const FEW: u64 = 1000;
/// Of each user.
const TOKENS_PER_USER: u64 = 10;
/// As in all such measurements: the token of rank r is asked for in proportion to 1/r^0.99.
const EXPONENT: f64 = 0.99;
/// The tokens of the first ranks are not neighbours in the database; a prime.
const STRIDE: u64 = 611_953;
/// More than a replica can answer.
const FLAT_OUT: u32 = 1_000_000;
/// Enough to fill the database, and for everything else.
const LIMIT: Duration = Duration::from_mins(100);

/// Rounds of a comparison, and requests in each of them.
const ROUNDS: usize = 30;
const REQUESTS: usize = 500;
/// Processor time of a hit with ten million tokens, as a multiple of that with a thousand.
const COST_MAX: f64 = 1.5;

/// Of the server: the rows are made quickly, and nobody wants them back after a power cut.
const SETTINGS: &str = "shared_buffers = 512MB
maintenance_work_mem = 512MB
max_wal_size = 1GB
wal_level = minimal
max_wal_senders = 0
full_page_writes = off
synchronous_commit = off
autovacuum = off
";

/// The key of a token, hex digits as DRF's; [`KEY_IN_SQL`] is the same.
fn key(number: u64) -> String {
    let digest = digest::digest(&digest::SHA256, format!("seed{number}").as_bytes());
    let mut text = String::with_capacity(40);
    for byte in &digest.as_ref()[..20] {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

const KEY_IN_SQL: &str = "left(encode(sha256(convert_to('seed' || number, 'UTF8')), 'hex'), 40)";

/// One replica with a store of its own.
struct One {
    program: Program,
    directory: TempDir,
}

impl One {
    async fn start(postgres: &Postgres, tokens: u64, light: &Light) -> Self {
        let database = postgres.database();
        let directory = tempfile::tempdir().unwrap();
        let text = format!(
            "[listen]\nhttps = [\"127.0.0.1:0\"]\nworkers = 1\n\n[store]\nurl = \"{}\"\n\n\
             [log]\npasses = \"none\"\n\n[upstreams.light]\nservers = [\"{}\"]\n\n\
             [routes.load]\npath = \"/\"\nupstream = \"light\"\nschemes = [\"token\"]\n",
            database.url(),
            light.url()
        );
        fs::write(directory.path().join("doorward.toml"), &text).unwrap();
        // Makes the tables.
        drop(credentials(&text, directory.path()).await);
        let began = Instant::now();
        for statement in make(tokens) {
            database.psql(&statement);
        }
        let size = database.psql("SELECT pg_size_pretty(pg_database_size(current_database()))");
        println!("long: {tokens} tokens: made in {:.0?}, {size}", began.elapsed());
        let program = Program::start(directory.path()).await;
        Self { program, directory }
    }

    async fn scrape(&self) -> Scrape {
        let reply = ask_socket(&self.directory.path().join("doorward.sock"), "/metrics").await;
        Scrape::parse(&reply.body)
    }

    fn process(&self) -> PathBuf {
        Path::new("/proc").join(self.program.id().as_raw_nonzero().to_string())
    }

    /// Time that its threads had on a processor; they are the same ones all the time.
    fn processor_time(&self) -> Duration {
        let threads = fs::read_dir(self.process().join("task")).unwrap();
        let times = threads.map(|thread| {
            let text = fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
            Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
        });
        times.sum()
    }
}

/// Statements that make so many tokens. What is checked for each row takes long: there are no triggers meanwhile, and
/// the indexes are made at the end.
fn make(tokens: u64) -> Vec<String> {
    let users = tokens / TOKENS_PER_USER;
    let quietly = "SET session_replication_role = replica";
    vec![
        "ALTER TABLE token DROP CONSTRAINT token_pkey, DROP CONSTRAINT token_public_id_key, \
         DROP CONSTRAINT token_digest_key; DROP INDEX token_user"
            .to_owned(),
        format!(
            r#"{quietly}; INSERT INTO "user" (id, username, password, email, created_at)
            SELECT 1000 + number, 'user' || number, '!', '', 0 FROM generate_series(1, {users}) AS number"#
        ),
        format!(
            "{quietly}; INSERT INTO token (id, public_id, digest, user_id, name, origin, created_at)
            SELECT number, number, sha256(convert_to({KEY_IN_SQL}, 'UTF8')), 1001 + number % {users}, '', 'command', 0
            FROM generate_series(0, {tokens} - 1) AS number"
        ),
        "ALTER TABLE token ADD PRIMARY KEY (id), ADD UNIQUE (public_id), ADD UNIQUE (digest)".to_owned(),
        "CREATE INDEX token_user ON token (user_id)".to_owned(),
        "VACUUM (FREEZE, ANALYZE)".to_owned(),
    ]
}

/// Draws tokens.
struct Zipf {
    /// Up to a rank.
    sums: Vec<f64>,
}

impl Zipf {
    #[expect(clippy::cast_precision_loss, reason = "ranks are far below 2^52")]
    fn new(tokens: u64) -> Self {
        let mut sum = 0.0;
        let upto = |rank: u64| {
            sum += (rank as f64).powf(-EXPONENT);
            sum
        };
        Self { sums: (1..=tokens).map(upto).collect() }
    }

    /// The number of a token.
    fn draw(&self, random: f64) -> u64 {
        let whole = self.sums.last().copied().unwrap_or_default();
        let rank = self.sums.partition_point(|upto| *upto < random * whole).min(self.sums.len() - 1);
        rank as u64 * STRIDE % self.sums.len() as u64
    }
}

/// Other draws for each seed, always the same ones.
fn requests(zipf: &Arc<Zipf>, seed: u64) -> Next {
    let zipf = Arc::clone(zipf);
    Arc::new(move |connection, before| {
        let place = (seed << 48) + ((connection as u64) << 40) + before as u64;
        let token = zipf.draw(unit(mix(place)));
        get("/", "Authorization", &format!("Token {}", key(token)))
    })
}

/// `SplitMix64`.
fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// From 0 to 1.
#[expect(clippy::cast_precision_loss, reason = "of 53 bits none is lost")]
fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

/// Sends until it is over; fails unless everything passes.
async fn drive(one: &One, next: &Next, per_second: u32, is_over: impl AsyncFn() -> bool) -> Times {
    let began = Instant::now();
    let load = Load::start(&[one.program.address], next, per_second).await;
    while !is_over().await {
        sleep(Duration::from_millis(200)).await;
    }
    let seen = load.stop().await;
    assert!(seen.failed().is_empty(), "good tokens were refused: {:?}", seen.failed());
    seen.times(began, Instant::now())
}

/// Zipf: warms the cache until something has to go, then measures.
async fn assert_most_are_hits(many: &One, tokens: u64) {
    let zipf = Arc::new(Zipf::new(tokens));
    let cold = resident(&many.process());
    let began = Instant::now();
    let is_full = async || {
        let evicted = many.scrape().await.value("doorward_table_evictions_total{table=\"known\"}");
        evicted > 0.0 || began.elapsed() > outage() * 10
    };
    let warming = drive(many, &requests(&zipf, 1), FLAT_OUT, is_full).await;
    println!("long: {tokens} tokens: warmed in {:.0?}, flat out: {warming}", began.elapsed());

    let (began, before) = (Instant::now(), many.scrape().await);
    let is_over = async || began.elapsed() > outage() * 2;
    let times = drive(many, &requests(&zipf, 2), load(), is_over).await;
    let after = many.scrape().await;
    let by_level = after.moved_since(&before, "doorward_lookups_total");
    let hits = by_level.get("doorward_lookups_total{level=\"local\"}").copied().unwrap_or_default();
    let all: f64 = by_level.values().sum();
    println!("long: {tokens} tokens, Zipf {EXPONENT}, once warm: {times}");
    println!("long: {tokens} tokens: hit ratio {:.1} %, of {all} look-ups", 100.0 * hits / all);
    let table = |what: &str| after.value(&format!("doorward_table_{what}{{table=\"known\"}}"));
    let (entries, bytes, bytes_max) = (table("entries"), table("bytes"), table("capacity_bytes"));
    println!(
        "long: {tokens} tokens: {entries} in memory, {:.1} of {:.1} MiB as they are counted; the process has {} MiB, cold it had {}",
        bytes / f64::from(1 << 20),
        bytes_max / f64::from(1 << 20),
        resident(&many.process()) >> 10,
        cold >> 10
    );
    assert!(bytes <= bytes_max);
    // If all were asked for alike, it would be the share of the tokens that is in memory: a few in a hundred.
    assert!(hits / all > 0.5, "hit ratio {}", hits / all);
}

/// One hot token of each, in turns.
async fn assert_a_hit_costs_the_same(ones: [&One; 2]) {
    let request = get("/", "Authorization", &format!("Token {}", key(7)));
    let mut connections = Vec::new();
    for one in ones {
        let mut connection = Connection::open(one.program.address).await;
        assert_eq!(connection.ask(&request).await, Some(200));
        connections.push(connection);
    }
    sleep(Duration::from_secs(1)).await;
    let before = ones[1].scrape().await;
    let (mut times, mut costs) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 0..ROUNDS * 2 {
        // Few, many, many, few: what grows slowly hits both alike.
        let which = usize::from(round % 4 == 1 || round % 4 == 2);
        let before = ones[which].processor_time();
        for _ in 0..REQUESTS {
            let began = Instant::now();
            assert_eq!(connections[which].ask(&request).await, Some(200));
            times[which].push(began.elapsed());
        }
        let spent = ones[which].processor_time().saturating_sub(before);
        costs[which].push(spent / u32::try_from(REQUESTS).unwrap());
    }
    let by_level = ones[1].scrape().await.moved_since(&before, "doorward_lookups_total");
    let hits = by_level.get("doorward_lookups_total{level=\"local\"}").copied().unwrap_or_default();
    assert!(hits / by_level.values().sum::<f64>() > 0.99, "it was not in memory: {by_level:?}");
    let medians = costs.map(|costs| Times::new(costs).percentile(50));
    for ((name, times), cost) in ["few", "many"].iter().zip(times).zip(medians) {
        println!("long: a hit with {name} tokens: {}; {cost:.1?} of processor time", Times::new(times));
    }
    let ratio = medians[1].as_secs_f64() / medians[0].as_secs_f64();
    println!("long: a hit with many tokens costs {ratio:.2} of one with few");
    assert!(ratio < COST_MAX, "{medians:?}");
}

#[test]
#[ignore = "long: scripts/test-long"]
fn ten_million_tokens() {
    let tokens = number("DOORWARD_TOKENS").unwrap_or(TOKENS);
    run_for(LIMIT, async {
        let postgres = Postgres::start_with(SETTINGS);
        // It is asked of the disk again and again when a server has started.
        postgres.psql("postgres", "ALTER SYSTEM SET fsync = off");
        postgres.psql("postgres", "SELECT pg_reload_conf()");
        let light = Light::start();
        let few = One::start(&postgres, FEW, &light).await;
        let many = One::start(&postgres, tokens, &light).await;
        assert_a_hit_costs_the_same([&few, &many]).await;
        assert_most_are_hits(&many, tokens).await;
        // And with a cache that is full.
        assert_a_hit_costs_the_same([&few, &many]).await;
    });
}
