//! A drill: under load something goes wrong, stays so for a while, and is mended. Who was known never notices, who was
//! revoked stays out, and what was refused was not half done.

use crate::fleet::{BOUND, Fleet, SOON, Token, browse, log_in, obtain, obtained};
use crate::harness::client::{Answer, Request};
use crate::load::{Load, Seen, Times, get, in_turn};
use crate::outages::assert_unavailable;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// No known token waits longer, whatever does not answer.
const PATIENT: Duration = Duration::from_secs(1);
/// Nobody waits longer for a refusal: two seconds for a connection, two for a lock, and what a busy machine takes.
const REFUSAL: Duration = Duration::from_secs(6);
/// After it was mended everything works by then.
const RECOVERY: Duration = Duration::from_secs(10);
/// Who is looked up at once while nobody can be; more than a replica has connections.
const CROWD: u64 = 12;
/// Descriptors that a replica may have more than before: its connections to the database, and to the upstream.
const DESCRIPTORS_MORE: usize = 40;
/// Whose tokens the load has.
const KNOWN_USERS: usize = 2;
/// Who obtains tokens, of which there may be two, and who logs in.
const GRANTED: &str = "granted";
const LOGGED_IN: &str = "logged-in";

/// What clients ask for meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Can {
    Work,
    /// 503 or done.
    MayFail,
    Fail,
}

impl Can {
    /// Whether it is done; fails unless it is what was to be, or 503 with `Retry-After`.
    fn is_done(self, answer: &Answer, is_wanted: impl Fn(&Answer) -> bool) -> bool {
        let is_done = is_wanted(answer);
        match self {
            Self::Work => assert!(is_done, "{answer:?}"),
            Self::MayFail if is_done => {}
            Self::MayFail | Self::Fail => assert_unavailable(answer),
        }
        is_done
    }
}

/// What is tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drill {
    pub(crate) what: &'static str,
    /// How long it lasts.
    pub(crate) time: Duration,
    /// Tokens of the load; for each ten of them there is a session.
    pub(crate) known: usize,
    /// Requests a second, to all replicas together.
    pub(crate) per_second: u32,
    /// Look-ups of those who are not known.
    pub(crate) lookups: Can,
    /// Tokens for passwords.
    pub(crate) grants: Can,
    pub(crate) logins: Can,
    pub(crate) revocations: Can,
    /// The load alone, before and after.
    pub(crate) calm: Duration,
}

impl Drill {
    /// A short one, for every run of the tests.
    pub(crate) fn short(what: &'static str) -> Self {
        let [time, calm] = [800, 200].map(Duration::from_millis);
        let can = Can::Work;
        let [lookups, grants, logins, revocations] = [can; 4];
        Self { what, time, known: 10, per_second: 150, lookups, grants, logins, revocations, calm }
    }

    /// One that lasts as long as a real one.
    pub(crate) fn long(what: &'static str, time: Duration) -> Self {
        Self { time, known: 200, per_second: load(), calm: Duration::from_secs(2), ..Self::short(what) }
    }

    /// Nothing can be read or written.
    pub(crate) fn nobody_knows(self) -> Self {
        Self { lookups: Can::Fail, ..self.reads_only() }
    }

    /// Nothing can be written.
    pub(crate) fn reads_only(self) -> Self {
        Self { grants: Can::Fail, logins: Can::Fail, revocations: Can::Fail, ..self }
    }

    /// Goes through it: `harm` makes it wrong, and what that yields is for `mend`.
    pub(crate) async fn run<T>(
        self,
        fleet: &mut Fleet,
        harm: impl AsyncFnOnce(&mut Fleet) -> T,
        mend: impl AsyncFnOnce(&mut Fleet, T),
    ) {
        let cast = Cast::of(&self, fleet).await;
        let before = Usage::of(fleet);
        let addresses: Vec<SocketAddr> = fleet.replicas.iter().map(|replica| replica.address()).collect();
        let calm = Instant::now();
        let load = Load::start(&addresses, &in_turn(cast.requests.clone()), self.per_second).await;
        sleep(self.calm).await;
        // Right before; all have seen it.
        fleet.writer.revoke_token(cast.revoked.id).await.unwrap();
        assert!(fleet.until_refused(&cast.revoked.get("/")).await < SOON);

        let began = Instant::now();
        let wrong = harm(fleet).await;
        let done = self.meanwhile(fleet, &cast).await;
        mend(fleet, wrong).await;
        let mended = Instant::now();

        fleet.until(&cast.unknown[0].get("/"), |answer| answer.status == 200).await;
        let known_again = mended.elapsed();
        fleet.settled().await;
        let well = mended.elapsed();
        sleep(self.calm).await;
        let seen = load.stop().await;
        let after = Usage::of(fleet);
        self.report(&seen, [calm, began, mended], &done);
        let what = self.what;
        println!(
            "long: {what}: somebody unknown is let in after {known_again:.0?}, all is well after {well:.0?}"
        );
        println!("long: {what}: from {before} to {after}");
        assert!(seen.failed().is_empty(), "{what}: known requests have failed: {:?}", seen.failed());
        let longest = seen.times(calm, Instant::now()).max();
        assert!(longest < PATIENT, "{what}: somebody known waited for {longest:?}");
        assert!(well < RECOVERY, "{what}: well after {well:?}");
        assert!(
            after.descriptors <= before.descriptors + DESCRIPTORS_MORE,
            "{what}: from {before} to {after}"
        );
        cast.assert_nothing_is_half_done(fleet, &done).await;
    }

    /// Asks for everything while it lasts.
    async fn meanwhile(&self, fleet: &Fleet, cast: &Cast) -> Done {
        let over = Instant::now() + self.time;
        let (lookups, (), (), obtained, logins, revoked) = tokio::join!(
            self.look_up(fleet, cast, over),
            self.assert_revoked(fleet, cast, over),
            assert_nobody_is_told_so(fleet, over),
            self.obtain(fleet, over),
            self.log_in(fleet, over),
            self.revoke(fleet, cast, over),
        );
        Done { lookups, obtained, logins, revoked }
    }

    /// Good ones and bad ones, none of which was presented before.
    async fn look_up(&self, fleet: &Fleet, cast: &Cast, over: Instant) -> Times {
        let mut times = Vec::new();
        let mut unknown = cast.unknown.iter().cycle();
        let crowd = if self.lookups == Can::Fail { CROWD } else { 1 };
        let mut number = 0;
        while Instant::now() < over {
            let token = unknown.next().unwrap();
            let good = [(token.get("/unknown"), 200)];
            let bad = (number..number + crowd)
                .map(|number| (Request::get("/garbage").token(&format!("{number:040x}")), 401));
            number += crowd;
            let asking = good.into_iter().chain(bad).map(async |(request, status)| {
                let began = Instant::now();
                for answer in fleet.ask(&request).await {
                    self.lookups.is_done(&answer, |answer| answer.status == status);
                }
                began.elapsed()
            });
            times.extend(join_all(asking).await);
            sleep(Duration::from_millis(50)).await;
        }
        let times = Times::new(times);
        assert!(times.max() < REFUSAL, "{}: an answer came after {:?}", self.what, times.max());
        times
    }

    /// Who was revoked before stays so; that it is unknown is remembered for a moment, whatever goes wrong.
    async fn assert_revoked(&self, fleet: &Fleet, cast: &Cast, over: Instant) {
        let lookups = if self.lookups == Can::Work { Can::Work } else { Can::MayFail };
        while Instant::now() < over {
            for answer in fleet.ask(&cast.revoked.get("/revoked")).await {
                lookups.is_done(&answer, |answer| answer.status == 401);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Tokens for a password; yields those that were given.
    async fn obtain(&self, fleet: &Fleet, over: Instant) -> Vec<String> {
        let mut given = Vec::new();
        for replica in fleet.replicas.iter().cycle() {
            if Instant::now() >= over {
                break;
            }
            let began = Instant::now();
            let answer = replica.client.send(obtain(GRANTED)).await;
            assert!(began.elapsed() < REFUSAL, "{}: after {:?}: {answer:?}", self.what, began.elapsed());
            if self.grants.is_done(&answer, |answer| answer.status == 200) {
                given.push(obtained(&answer));
            }
            sleep(Duration::from_millis(100)).await;
        }
        given
    }

    /// Sessions for a password; yields how many were given.
    async fn log_in(&self, fleet: &Fleet, over: Instant) -> usize {
        let mut given = 0;
        for replica in fleet.replicas.iter().cycle() {
            if Instant::now() >= over {
                break;
            }
            let answer = replica.client.send(log_in(LOGGED_IN)).await;
            let is_given = |answer: &Answer| [200, 204, 302].contains(&answer.status);
            given += usize::from(self.logins.is_done(&answer, is_given));
            sleep(Duration::from_millis(100)).await;
        }
        given
    }

    /// Revocations, of which each that is acknowledged is true everywhere. Yields how many.
    async fn revoke(&self, fleet: &Fleet, cast: &Cast, over: Instant) -> usize {
        let mut count = 0;
        let mut doomed = cast.doomed.iter();
        while Instant::now() < over {
            let Some(token) = doomed.as_slice().first() else { break };
            match fleet.writer.revoke_token(token.id).await {
                Ok(()) => {
                    assert_ne!(self.revocations, Can::Fail, "{}: a token was revoked", self.what);
                    // Whoever is asked from now on does not let it in, however long the answer takes.
                    sleep(SOON).await;
                    let statuses = fleet.statuses(&token.get("/")).await;
                    assert!(!statuses.contains(&200), "{}: {statuses:?} to a revoked token", self.what);
                    doomed.next();
                    count += 1;
                }
                Err(error) => {
                    assert_ne!(self.revocations, Can::Work, "{}: {error:?}", self.what);
                    // Of what was not done nobody was told.
                    assert_eq!(fleet.statuses(&token.get("/")).await, [200; 3], "{}: {error:?}", self.what);
                }
            }
            sleep(BOUND / 2).await;
        }
        count
    }

    fn report(&self, seen: &Seen, [calm, began, mended]: [Instant; 3], done: &Done) {
        let what = self.what;
        let time = mended - began;
        println!("long: {what} for {time:.1?}: of the known: {}", seen.times(began, mended));
        println!(
            "long: {what}: before: {}; after: {}",
            seen.times(calm, began),
            seen.times(mended, Instant::now())
        );
        println!(
            "long: {what}: look-ups of the unknown: {}; {} tokens and {} sessions given, {} tokens revoked",
            done.lookups,
            done.obtained.len(),
            done.logins,
            done.revoked
        );
    }
}

/// Requests without credentials are answered as ever, at once.
async fn assert_nobody_is_told_so(fleet: &Fleet, over: Instant) {
    while Instant::now() < over {
        let began = Instant::now();
        assert_eq!(fleet.statuses(&Request::get("/nobody")).await, [401; 3]);
        assert!(began.elapsed() < PATIENT, "nobody waited for {:?}", began.elapsed());
        sleep(Duration::from_millis(50)).await;
    }
}

/// What was done meanwhile, as clients were told.
struct Done {
    lookups: Times,
    obtained: Vec<String>,
    logins: usize,
    revoked: usize,
}

/// Who is asked for.
struct Cast {
    /// The load: tokens and sessions that all replicas know.
    requests: Vec<Vec<u8>>,
    revoked: Token,
    /// Known, and to be revoked.
    doomed: Vec<Token>,
    /// Good, and never presented.
    unknown: Vec<Token>,
    /// The tokens of [`GRANTED`].
    granted: Vec<String>,
}

impl Cast {
    async fn of(drill: &Drill, fleet: &Fleet) -> Self {
        for name in [GRANTED, LOGGED_IN] {
            fleet.user(name, &[]).await;
        }
        let names: Vec<String> = (0..KNOWN_USERS).map(|number| format!("known{number}")).collect();
        for name in &names {
            fleet.user(name, &["ops"]).await;
        }
        let seconds = usize::try_from(drill.time.as_secs()).unwrap();
        let each = names.iter().cycle();
        let (tokens, sessions, doomed, unknown, revoked) = tokio::join!(
            few_at_once(each.clone().take(drill.known).map(|name| fleet.token(name))),
            few_at_once(each.take(drill.known / 10).map(|name| fleet.session(name))),
            few_at_once((0..seconds + 2).map(|_| fleet.token("alice"))),
            few_at_once((0..seconds + 2).map(|_| fleet.token("alice"))),
            fleet.token("alice"),
        );
        // Once all replicas have read that these are new, and have forgotten what they knew of them.
        sleep(SOON).await;
        let known = tokens.iter().chain(&doomed).chain([&revoked]).map(|token| token.get("/warm"));
        let known = known.chain(sessions.iter().map(|key| browse(key)));
        few_at_once(known.map(async |request| assert_eq!(fleet.statuses(&request).await, [200; 3]))).await;
        let tokens =
            tokens.iter().map(|token| get("/load", "Authorization", &format!("Token {}", token.key)));
        let sessions = sessions.iter().map(|key| get("/load/browser", "Cookie", &format!("sessionid={key}")));
        let requests = tokens.chain(sessions).collect();
        let mut granted = Vec::new();
        for _ in 0..2 {
            granted.push(obtained(&fleet.replicas[0].client.send(obtain(GRANTED)).await));
        }
        Self { requests, revoked, doomed, unknown, granted }
    }

    /// What clients were told is what there is.
    async fn assert_nothing_is_half_done(&self, fleet: &Fleet, done: &Done) {
        let database = fleet.postgres_database();
        let count = |table: &str, user: &str| {
            let whose = format!(r#"JOIN "user" ON "user".id = {table}.user_id WHERE username = '{user}'"#);
            database.psql(&format!("SELECT count(*) FROM {table} {whose}"))
        };
        // One more takes the place of the oldest, in the same transaction.
        assert_eq!(count("token", GRANTED), "2");
        let given: Vec<&String> = self.granted.iter().chain(&done.obtained).collect();
        let (gone, there) = given.split_at(given.len() - 2);
        for key in there {
            assert_eq!(fleet.statuses(&Request::get("/").token(key)).await, [200; 3]);
        }
        for key in gone {
            assert_eq!(fleet.statuses(&Request::get("/").token(key)).await, [401; 3]);
        }
        assert_eq!(count("session", LOGGED_IN), done.logins.to_string());
        assert_eq!(fleet.statuses(&self.revoked.get("/")).await, [401; 3]);
        for (place, token) in self.doomed.iter().enumerate() {
            let status = if place < done.revoked { 401 } else { 200 };
            assert_eq!(fleet.statuses(&token.get("/")).await, [status; 3]);
        }
    }
}

/// Writers wait for each other, though not for long.
async fn few_at_once<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    stream::iter(all).buffered(4).collect().await
}

/// What the replica that needs most has.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    descriptors: usize,
    mebibytes: u64,
}

impl Usage {
    fn of(fleet: &Fleet) -> Self {
        let mut most = Self::default();
        for replica in &fleet.replicas {
            let process = replica.process();
            let descriptors = std::fs::read_dir(process.join("fd")).unwrap().count();
            let mebibytes = resident(&process) >> 10;
            most = Self {
                descriptors: most.descriptors.max(descriptors),
                mebibytes: most.mebibytes.max(mebibytes),
            };
        }
        most
    }
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} descriptors and {} MiB", self.descriptors, self.mebibytes)
    }
}

/// KiB of a process in memory.
pub(crate) fn resident(process: &Path) -> u64 {
    let status = std::fs::read_to_string(process.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// How long an outage lasts in the long tests; shorter to try them out.
pub(crate) fn outage() -> Duration {
    Duration::from_secs(number("DOORWARD_OUTAGE_SECONDS").unwrap_or(30))
}

/// Requests a second in the long tests; fewer where nothing is optimised.
pub(crate) fn load() -> u32 {
    u32::try_from(number("DOORWARD_LOAD").unwrap_or(1000)).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "only these tests read it")]
pub(crate) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}
