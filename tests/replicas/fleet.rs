//! Three replicas with their stores, and a fourth one in this process: who makes users and tokens, and revokes.
//!
//! Between each replica and each of its servers there is a proxy of its own, so that one replica may be cut off while
//! the others are not. The fourth one is connected directly.

use crate::harness::client::{Answer, Client, Protocol, Request};
use crate::harness::program::Program;
use crate::harness::scrape::{Scrape, ask_socket};
use crate::harness::secrets;
use crate::harness::services::mariadb::MariaDb;
use crate::harness::services::postgres::{Database, Postgres};
use crate::harness::services::proxy::{Fault, FaultProxy};
use crate::harness::services::redis::Redis;
use crate::harness::upstream::{Recorded, TestUpstream};
use crate::load::Light;
use doorward::app::Backing;
use doorward::clock::{Clock, SystemClock};
use doorward::config::{Config, Source};
use doorward::credentials::{Credentials, NewAccount};
use doorward::identity::CredentialId;
use doorward::secret::Secret;
use doorward::store::TokenOrigin;
use futures_util::future::join_all;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

pub(crate) const PASSWORD: &str = "correct horse battery staple";
const KEY: &str = "deployment-key-of-three-replicas-0123456789";
/// `[cache] revocation_bound`, as it is by default.
pub(crate) const BOUND: Duration = Duration::from_secs(1);
/// A replica that was told has dropped what is void long before; one that only reads every 100 ms, or waits for the
/// bound, may have not.
pub(crate) const SOON: Duration = Duration::from_millis(250);
/// After this something never happens.
const NEVER: Duration = Duration::from_secs(15);

const ROUTES: &str = r#"
[identity]
groups = "Remote-Groups"

[authentication]
guard = "off"

[tokens]
per_user = 2

[routes.everything]
path = "/"
upstream = "legacy"
schemes = ["token"]

[routes.browser]
path = "/browser"
upstream = "legacy"
schemes = ["session"]

[routes.load]
path = "/load"
upstream = "light"
schemes = ["token"]

[routes.load-browser]
path = "/load/browser"
upstream = "light"
schemes = ["session"]

[routes.obtain]
path = "/api-token-auth/"
handler = "obtain-token"

[routes.login]
path = "/accounts/login/"
handler = "login"

[routes.logout]
path = "/accounts/logout/"
handler = "logout"
"#;

/// A database server that tests share, or one of a test's own.
#[derive(Debug)]
pub(crate) enum Sql {
    SharedPostgres,
    Postgres(Box<Postgres>),
    /// The same, and the database is on a disk that is soon full.
    SmallDisk(Box<Postgres>),
    MariaDb,
}

impl Sql {
    /// A new database in it.
    fn database(&self) -> String {
        match self {
            Self::SharedPostgres => Postgres::shared().database().url(),
            Self::Postgres(server) => server.database().url(),
            Self::SmallDisk(server) => server.database_on_small_disk().url(),
            Self::MariaDb => MariaDb::shared().database().url(),
        }
    }

    fn port(&self) -> u16 {
        match self {
            Self::SharedPostgres => Postgres::shared().port(),
            Self::Postgres(server) | Self::SmallDisk(server) => server.port(),
            Self::MariaDb => MariaDb::shared().port(),
        }
    }
}

/// One of the three.
pub(crate) struct Replica {
    program: Option<Program>,
    directory: TempDir,
    pub(crate) client: Client,
    pub(crate) sql: FaultProxy,
    pub(crate) redis: Option<FaultProxy>,
}

impl Replica {
    async fn start(sql: (&str, u16), redis: Option<&Redis>, rest: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (url, port) = sql;
        let sql = FaultProxy::start(port);
        let proxy = redis.map(|redis| FaultProxy::start(redis.port()));
        let redis_url = proxy.as_ref().zip(redis).map(|(proxy, redis)| proxy.url(&redis.url()));
        let text = config(&sql.url(url), redis_url.as_deref(), rest);
        std::fs::write(directory.path().join("doorward.toml"), text).unwrap();
        std::fs::write(directory.path().join("doorward.key"), KEY).unwrap();
        let program = Program::start(directory.path()).await;
        let client = Client::new(Protocol::Http1, program.address);
        Self { program: Some(program), directory, client, sql, redis: proxy }
    }

    /// Ends the process as a power cut would, and starts another one, which remembers nothing.
    pub(crate) async fn restart(&mut self) {
        if let Some(program) = self.program.take() {
            program.kill().await;
        }
        let program = Program::start(self.directory.path()).await;
        self.client = Client::new(Protocol::Http1, program.address);
        self.program = Some(program);
    }

    /// Where the system tells of the process, as it is now.
    pub(crate) fn process(&self) -> PathBuf {
        let id = self.program.as_ref().expect("it was ended").id();
        Path::new("/proc").join(id.as_raw_nonzero().to_string())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.program.as_ref().expect("it was ended").address
    }

    /// How often a look-up in the shared cache had this result.
    pub(crate) async fn shared(&self, result: &str) -> f64 {
        let series = format!("doorward_shared_cache_total{{result=\"{result}\"}}");
        self.scrape().await.samples.get(&series).copied().unwrap_or(0.0)
    }

    /// How many look-ups this level has answered.
    pub(crate) async fn lookups(&self, level: &str) -> f64 {
        self.scrape().await.value(&format!("doorward_lookups_total{{level=\"{level}\"}}"))
    }

    /// Stops it; what it wrote to its log.
    pub(crate) async fn stop(&mut self) -> Vec<String> {
        self.program.take().unwrap().stop().await
    }

    pub(crate) async fn scrape(&self) -> Scrape {
        let reply = ask_socket(&self.directory.path().join("doorward.sock"), "/metrics").await;
        Scrape::parse(&reply.body)
    }

    /// Whether it reads the database, and hears what others tell, as far as it knows.
    async fn is_well(&self) -> bool {
        let scrape = self.scrape().await;
        ["store", "redis"]
            .iter()
            .all(|part| scrape.value(&format!("doorward_degraded{{part=\"{part}\"}}")) == 0.0)
    }

    pub(crate) fn redis(&self) -> &FaultProxy {
        self.redis.as_ref().unwrap()
    }
}

/// What there is of a user.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) id: CredentialId,
    pub(crate) key: String,
}

impl Token {
    pub(crate) fn get(&self, target: &str) -> Request {
        Request::get(target).token(&self.key)
    }
}

/// All of it.
pub(crate) struct Fleet {
    // Before the servers, so that they end first.
    pub(crate) replicas: Vec<Replica>,
    pub(crate) writer: Arc<Credentials>,
    pub(crate) upstream: TestUpstream,
    _light: Light,
    pub(crate) redis: Option<Redis>,
    pub(crate) sql: Sql,
    /// The URL of the database, directly.
    pub(crate) database: String,
    _directory: TempDir,
}

impl Fleet {
    pub(crate) async fn start(sql: Sql, redis: Option<Redis>) -> Self {
        Self::logging("all", sql, redis).await
    }

    /// The same, for a load: requests that passed are not in the logs.
    pub(crate) async fn quiet(sql: Sql, redis: Option<Redis>) -> Self {
        Self::logging("none", sql, redis).await
    }

    async fn logging(passes: &str, sql: Sql, redis: Option<Redis>) -> Self {
        // It has a runtime of its own, which cannot be started within another one.
        let upstream = std::thread::spawn(TestUpstream::start).join().unwrap();
        let light = Light::start();
        let (upstream_url, light_url) = (upstream.url(), light.url());
        let rest = format!(
            "[upstreams.legacy]\nservers = [\"{upstream_url}\"]\n\n\
             [upstreams.light]\nservers = [\"{light_url}\"]\n\n[log]\npasses = \"{passes}\"\n{ROUTES}"
        );
        let database = sql.database();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("doorward.key"), KEY).unwrap();
        let redis_url = redis.as_ref().map(Redis::url);
        // Makes the tables.
        let text = config(&database, redis_url.as_deref(), &rest);
        let writer = open(&text, directory.path()).await;
        let start = || Replica::start((&database, sql.port()), redis.as_ref(), &rest);
        let replicas = join_all([start(), start(), start()]).await;
        let fleet =
            Self { replicas, writer, upstream, _light: light, redis, sql, database, _directory: directory };
        fleet.user("alice", &[]).await;
        fleet.settled().await;
        fleet
    }

    /// With a Redis of its own and a database in the PostgreSQL that tests share.
    pub(crate) async fn ordinary() -> Self {
        Self::start(Sql::SharedPostgres, Some(Redis::start())).await
    }

    pub(crate) fn redis(&self) -> &Redis {
        self.redis.as_ref().unwrap()
    }

    /// To end it.
    pub(crate) fn redis_mut(&mut self) -> &mut Redis {
        self.redis.as_mut().unwrap()
    }

    /// The database server.
    pub(crate) fn postgres(&self) -> &Postgres {
        match &self.sql {
            Sql::SharedPostgres => Postgres::shared(),
            Sql::Postgres(server) | Sql::SmallDisk(server) => server,
            Sql::MariaDb => panic!("another database"),
        }
    }

    /// The same, to end it.
    pub(crate) fn postgres_mut(&mut self) -> &mut Postgres {
        let (Sql::Postgres(server) | Sql::SmallDisk(server)) = &mut self.sql else {
            panic!("a server that others need")
        };
        server
    }

    /// The database, in PostgreSQL.
    pub(crate) fn postgres_database(&self) -> Database<'_> {
        self.postgres().known_database(self.database.rsplit('/').next().unwrap())
    }

    pub(crate) async fn user(&self, name: &str, groups: &[&str]) {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let (username, password) = (name.to_owned(), Secret::new(PASSWORD));
        let account = NewAccount { username, password, groups, ..NewAccount::default() };
        self.writer.add_user(account).await.unwrap();
    }

    pub(crate) async fn token(&self, user: &str) -> Token {
        let made = self.writer.create_token(user, "", TokenOrigin::Command).await.unwrap();
        let key = String::from_utf8(made.key.expose().to_vec()).unwrap();
        secrets::used(&key);
        Token { id: made.id, key }
    }

    /// A token that all replicas have just let in.
    pub(crate) async fn warm(&self, user: &str) -> Token {
        let token = self.token(user).await;
        assert_eq!(self.statuses(&token.get("/warm")).await, [200; 3]);
        token
    }

    /// Logs somebody in; all replicas have just let the session in.
    pub(crate) async fn session(&self, user: &str) -> String {
        let found = self.writer.login(user, Secret::new(PASSWORD)).await.unwrap().unwrap();
        let made = self.writer.log_in(&found, None, None, Duration::from_hours(1)).await.unwrap().unwrap();
        let key = String::from_utf8(made.key.expose().to_vec()).unwrap();
        secrets::used(&key);
        assert_eq!(self.statuses(&browse(&key)).await, [200; 3]);
        key
    }

    /// Sends to all of them at once.
    pub(crate) async fn ask(&self, request: &Request) -> Vec<Answer> {
        join_all(self.replicas.iter().map(|replica| replica.client.send(request.clone()))).await
    }

    pub(crate) async fn statuses(&self, request: &Request) -> Vec<u16> {
        self.ask(request).await.iter().map(|answer| answer.status).collect()
    }

    /// Asks each of them again and again until the answer is as wanted; how long that took for the last one.
    pub(crate) async fn until(
        &self,
        request: &Request,
        is_wanted: impl Fn(&Answer) -> bool + Copy + Send + Sync,
    ) -> Duration {
        let began = Instant::now();
        let wait = async |replica: &Replica| {
            loop {
                let answer = replica.client.send(request.clone()).await;
                if is_wanted(&answer) {
                    return began.elapsed();
                }
                assert!(began.elapsed() < NEVER, "never: {answer:?}");
                sleep(Duration::from_millis(1)).await;
            }
        };
        join_all(self.replicas.iter().map(wait)).await.into_iter().max().unwrap()
    }

    /// How long until no replica lets this in any more.
    pub(crate) async fn until_refused(&self, request: &Request) -> Duration {
        self.until(request, |answer| answer.status != 200).await
    }

    /// Waits until all replicas listen, and the fourth one is connected.
    pub(crate) async fn settled(&self) {
        let ready = async {
            let mut good = 0;
            // Twice in a row, since one may have been lucky.
            while good < 2 {
                let token = self.token("alice").await;
                let request = token.get("/settle");
                let is_known = self.statuses(&request).await == [200; 3];
                let began = Instant::now();
                self.writer.revoke_token(token.id).await.unwrap();
                let was_told = began.elapsed() < BOUND / 2;
                let is_refused = self.until_refused(&request).await < SOON;
                let are_well = join_all(self.replicas.iter().map(Replica::is_well)).await;
                let is_good = is_known && was_told && is_refused && are_well == [true; 3];
                good = if is_good { good + 1 } else { 0 };
            }
        };
        timeout(NEVER, ready).await.expect("the replicas never work as they should");
    }

    /// From now on, for all replicas.
    pub(crate) fn cut_sql(&self, fault: Fault) {
        self.replicas.iter().for_each(|replica| replica.sql.set(fault));
    }

    /// From now on, for all replicas.
    pub(crate) fn cut_redis(&self, fault: Fault) {
        self.replicas.iter().for_each(|replica| replica.redis().set(fault));
    }

    /// What the upstream was told of each replica's request.
    pub(crate) async fn forwarded(&self, token: &Token) -> Vec<Recorded> {
        let ask = async |(place, replica): (usize, &Replica)| {
            let path = format!("/forwarded/{place}");
            let answer = replica.client.send(token.get(&path)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            (*self.upstream.log().of(&path).last().unwrap()).clone()
        };
        join_all(self.replicas.iter().enumerate().map(ask)).await
    }

    /// Who each replica says that this is.
    pub(crate) async fn names(&self, token: &Token) -> Vec<String> {
        let told = self.forwarded(token).await;
        told.iter().map(|request| request.one("remote-user").unwrap_or_default()).collect()
    }
}

/// A request with a session.
pub(crate) fn browse(session: &str) -> Request {
    let cookies = format!("sessionid={session}; csrftoken={CSRF}");
    Request::get("/browser").field("Cookie", cookies).expect(&["set-cookie"])
}

/// As Django makes one: 32 of letters and digits.
pub(crate) const CSRF: &str = "abcdefghijklmnopqrstuvwxyz012345";

/// The same, to end it.
pub(crate) fn log_out(session: &str) -> Request {
    let cookies = format!("sessionid={session}; csrftoken={CSRF}");
    let request = Request::post("/accounts/logout/", "").field("Content-Type", "application/json");
    let request = request.field("Cookie", cookies).field("X-CSRFToken", CSRF);
    request.field("Origin", "https://gateway.test").expect(&["set-cookie"])
}

/// A password for a token.
pub(crate) fn obtain(user: &str) -> Request {
    let body = serde_json::json!({ "username": user, "password": PASSWORD }).to_string();
    Request::post("/api-token-auth/", body).field("Content-Type", "application/json")
}

/// A password for a session.
pub(crate) fn log_in(user: &str) -> Request {
    let body = serde_json::json!({ "username": user, "password": PASSWORD }).to_string();
    let request = Request::post("/accounts/login/", body).field("Content-Type", "application/json");
    let request = request.field("Cookie", format!("csrftoken={CSRF}")).field("X-CSRFToken", CSRF);
    request.field("Origin", "https://gateway.test").expect(&["set-cookie"])
}

/// The token in the answer to [`obtain`].
pub(crate) fn obtained(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    body["token"].as_str().unwrap().to_owned()
}

fn config(store: &str, redis: Option<&str>, rest: &str) -> String {
    let redis = redis.map(|url| format!("[redis]\nurl = \"{url}\"\n")).unwrap_or_default();
    format!(
        "[listen]\nhttps = [\"127.0.0.1:0\"]\nworkers = 1\n\n\
         [deployment]\nkey = {{ file = \"doorward.key\" }}\n\n\
         [store]\nurl = \"{store}\"\n\n{redis}\n{rest}"
    )
}

async fn open(text: &str, directory: &Path) -> Arc<Credentials> {
    let name = "doorward.toml".to_owned();
    let source = Source { name, directory: directory.to_owned(), environment: |_| None };
    let config = Config::parse(text, &source).unwrap_or_else(|error| panic!("{error}\n{text}")).config;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    Backing::open(&config, &clock).await.unwrap().credentials
}

/// Runs a test; it has threads of its own, since some of what it asks blocks.
pub(crate) fn run(test: impl Future<Output = ()>) {
    run_for(Duration::from_mins(2), test);
}

/// The same for one that may take so long.
pub(crate) fn run_for(limit: Duration, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        assert!(timeout(limit, test).await.is_ok(), "the test takes longer than {limit:?}");
    });
}
