//! An adopted Django database on PostgreSQL, whose triggers tell a real process what Django changed.

use crate::fleet::{BOUND, SOON, run};
use crate::harness::client::{Client, Protocol, Request};
use crate::harness::program::Program;
use crate::harness::scrape::{Scrape, ask_socket};
use crate::harness::secrets;
use crate::harness::services::postgres::{Database, Postgres};
use crate::harness::upstream::TestUpstream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Whose tokens and sessions of the fixture are good.
const SECRET_KEY: &str = "doorward-golden-secret-key-0123456789-abcdefghijklmnopqrstuvwxyz";
/// Users of this test, beside those of the fixture.
const USERS: i64 = 12;
/// Longer than any write is without its reading.
const QUIET: Duration = Duration::from_millis(700);

/// A process in front of a site.
struct Adopted {
    program: Option<Program>,
    client: Client,
    database: Database<'static>,
    directory: TempDir,
    _upstream: TestUpstream,
}

impl Adopted {
    async fn start() -> Self {
        let database = Postgres::shared().database();
        database.load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/fixture_pg.sql"));
        database.psql(&format!(
            "INSERT INTO auth_user SELECT n, '', NULL, FALSE, 'user' || n, '', '', '', FALSE, TRUE, now()
                 FROM generate_series(1000, {last}) n;
             INSERT INTO authtoken_token SELECT lpad(n::text, 40, 'k'), now(), n FROM generate_series(1000, {last}) n",
            last = 999 + USERS
        ));
        let upstream = std::thread::spawn(TestUpstream::start).join().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let text = format!(
            "[listen]\nhttps = [\"127.0.0.1:0\"]\nworkers = 1\n\n\
             [store]\nurl = \"{}\"\nlayout = \"django\"\n\n\
             [store.django]\nsecret_key = {{ file = \"secret_key\" }}\n\n\
             [upstreams.legacy]\nservers = [\"{}\"]\n\n\
             [routes.everything]\npath = \"/\"\nupstream = \"legacy\"\nschemes = [\"token\"]\n",
            database.url(),
            upstream.url()
        );
        std::fs::write(directory.path().join("secret_key"), SECRET_KEY).unwrap();
        std::fs::write(directory.path().join("doorward.toml"), text).unwrap();
        doorward(directory.path(), "--install");
        let program = Program::start(directory.path()).await;
        let client = Client::new(Protocol::Http1, program.address);
        Self { program: Some(program), client, database, directory, _upstream: upstream }
    }

    async fn status(&self, user: i64) -> u16 {
        self.client.send(request(user)).await.status
    }

    /// How long until the token of this user is refused, from before the statement.
    async fn until_refused(&self, user: i64, statement: &str) -> Duration {
        assert_eq!(self.status(user).await, 200);
        let began = Instant::now();
        self.database.psql(statement);
        while self.status(user).await == 200 {
            assert!(began.elapsed() < 10 * BOUND, "never: {statement}");
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(self.status(user).await, 401);
        began.elapsed()
    }

    /// How often Django's tables were asked for tokens, one or many.
    async fn lookups(&self) -> f64 {
        let reply = ask_socket(&self.directory.path().join("doorward.sock"), "/metrics").await;
        let scrape = Scrape::parse(&reply.body);
        let of = |operation: &str| {
            let name = format!("doorward_store_duration_seconds_count{{operation=\"{operation}\"}}");
            scrape.samples.get(&*name).copied().unwrap_or(0.0)
        };
        of("find-key") + of("find-keys")
    }

    /// What a site writes all the time, while somebody comes whom it does not concern. How many look-ups that makes.
    async fn lookups_while_others_write(&self, user: i64) -> f64 {
        assert_eq!(self.status(user).await, 200);
        let (before, began, mut writes) = (self.lookups().await, Instant::now(), 0);
        while began.elapsed() < 3 * QUIET {
            writes += 1;
            self.database.psql(&format!(
                "UPDATE auth_user SET last_login = now(); DELETE FROM knox_authtoken;
                 INSERT INTO django_session VALUES ('s{}', '', now())",
                began.elapsed().as_nanos()
            ));
            for _ in 0..10 {
                assert_eq!(self.status(user).await, 200);
            }
        }
        assert!(writes > 5, "{writes}");
        self.lookups().await - before
    }

    async fn found_by(&self) -> String {
        let reply = ask_socket(&self.directory.path().join("doorward.sock"), "/status").await;
        let status: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        status["serving"]["revocation"]["found_by"].as_str().unwrap().to_owned()
    }

    /// Waits until what is changed is found by this.
    async fn until_found_by(&self, words: &str) {
        let began = Instant::now();
        while !self.found_by().await.starts_with(words) {
            assert!(began.elapsed() < 10 * BOUND, "{}", self.found_by().await);
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn key(user: i64) -> String {
    format!("{user:k>40}")
}

fn request(user: i64) -> Request {
    secrets::used(&key(user));
    Request::get("/").token(&key(user))
}

fn doorward(directory: &Path, option: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    let ran = command.args(["django", "triggers", option]).current_dir(directory).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn what_django_takes_away_is_refused_at_once_and_what_it_writes_besides_costs_nothing() {
    run(async {
        let mut site = Adopted::start().await;
        let bystander = 1000;
        site.until_found_by("triggers").await;
        let mut times = Vec::new();
        for user in 1001..1006 {
            let statement = format!("DELETE FROM authtoken_token WHERE user_id = {user}");
            times.push(site.until_refused(user, &statement).await);
        }
        for user in 1006..1009 {
            let statement = format!("UPDATE auth_user SET is_active = FALSE WHERE id = {user}");
            times.push(site.until_refused(user, &statement).await);
        }
        times.sort();
        assert!(times[4] < SOON && times[7] < BOUND, "refused after {times:?}");
        let lookups = site.lookups_while_others_write(bystander).await;
        assert!(lookups < 1.0, "{lookups} look-ups that nothing asked for");

        // Without them it is right as well, and costs more.
        doorward(site.directory.path(), "--remove");
        site.until_found_by("a look each 100 ms").await;
        assert!(site.lookups_while_others_write(bystander).await > 2.0);
        let statement = "DELETE FROM authtoken_token WHERE user_id = 1009";
        assert!(site.until_refused(1009, statement).await < BOUND);

        doorward(site.directory.path(), "--install");
        site.until_found_by("triggers").await;
        // What was in doubt is confirmed.
        sleep(QUIET).await;
        let lookups = site.lookups_while_others_write(bystander).await;
        assert!(lookups < 1.0, "{lookups} look-ups that nothing asked for");
        assert!(site.until_refused(1010, "DELETE FROM authtoken_token WHERE user_id = 1010").await < BOUND);
        let log = site.program.take().unwrap().stop().await;
        let count = |words: &str| log.iter().filter(|line| line.contains(words)).count();
        assert_eq!((count("told by their triggers"), count("are gone")), (2, 1), "{log:#?}");
    });
}
