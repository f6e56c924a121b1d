//! `doorward bench lookup --config FILE`, against real stores: its levels, and what becomes of its rows.

use crate::services::mariadb::MariaDb;
use crate::services::postgres::{self, Postgres};
use crate::services::redis::Redis;
use crate::services::until;
use crate::{HANG, Home};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::channel;

const LEVELS: [&str; 4] = ["local-hit", "redis-hit", "store-hit", "unknown-token"];
const KEY: &str = "deployment-key-of-this-test-0123456789";
const COUNT: &str = "SELECT count(*) FROM token WHERE user_id = -1";

/// The arguments, with the file that every operator has.
fn arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["bench", "lookup", "--config", "doorward.toml"], more].concat()
}

/// On a database server, and with a Redis if there is one.
fn configure(home: &Home, url: &str, redis: Option<&Redis>) {
    fs::write(home.path("deployment.key"), KEY).unwrap();
    fs::write(home.path("store.url"), url).unwrap();
    let redis = redis.map(|redis| format!("[redis]\nurl = \"{}\"\n", redis.url())).unwrap_or_default();
    home.configure(&format!(
        "\n[deployment]\nkey = {{ file = \"deployment.key\" }}\n[store]\nurl = {{ file = \"store.url\" }}\n{redis}"
    ));
}

/// All that was measured, and nothing else on standard error but that it is a slow build.
fn measured(home: &Home, more: &[&str]) -> Value {
    let ran = home.run(&arguments(&[more, &["--json"]].concat()));
    let errors: Vec<&str> =
        ran.errors.lines().filter(|line| !line.contains("without optimisation")).collect();
    assert_eq!((ran.code, errors), (0, vec![]));
    serde_json::from_str(&ran.output).unwrap()
}

fn cases(said: &Value) -> &[Value] {
    let cases = said["cases"].as_array().unwrap();
    let names: Vec<&str> = cases.iter().map(|case| case["case"].as_str().unwrap()).collect();
    assert_eq!(names, LEVELS, "{said}");
    cases
}

/// These levels have figures; one row is asked for often enough to say something of one in a thousand.
fn check(said: &Value, levels: &[&str]) {
    for case in cases(said) {
        let name = case["case"].as_str().unwrap();
        if !levels.contains(&name) {
            assert!(case["samples"].is_null() && case["ns"].is_null(), "{case}");
            continue;
        }
        let (samples, strays) = (case["samples"].as_u64().unwrap(), case["strays"].as_u64().unwrap());
        assert_eq!(samples, if name == "local-hit" { 10_000 } else { 1000 }, "{case}");
        assert!(strays <= samples / 4, "{case}");
        let times = ["p50", "p90", "p99", "p99.9", "max"]
            .map(|key| case["ns"].get(key).and_then(Value::as_u64).unwrap());
        assert!(times[0] > 0 && times.is_sorted(), "{case}");
        assert!(case["per_second"].as_f64().unwrap() > 0.0, "{case}");
    }
    let median = |name: &str| {
        let case = cases(said).iter().find(|case| case["case"] == name)?;
        case["ns"].get("p50").and_then(Value::as_u64)
    };
    for slower in &LEVELS[1..] {
        assert!(median(slower).is_none_or(|time| median("local-hit").unwrap() < time), "{slower}: {said}");
    }
}

fn sqlite(path: &Path, statement: &str) -> Vec<i64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(HANG);
        let mut connection = options.connect().await.unwrap();
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        sqlx::query_scalar(statement).fetch_all(&mut connection).await.unwrap()
    })
}

/// A benchmark that takes long, which has written all of its rows.
fn start(home: &Home, rows: &str, written: impl Fn() -> bool) -> Child {
    let child = home.command(&arguments(&["--rows", rows])).spawn().unwrap();
    until("rows of the benchmark", || written().then_some(()));
    child
}

/// Ends it: its exit code, and what it wrote to standard error.
fn end(mut child: Child, signal: Signal) -> (Option<i32>, String) {
    let pid = Pid::from_child(&child);
    kill_process(pid, signal).unwrap();
    let (told, ended) = channel();
    let waiting = std::thread::spawn(move || {
        let code = child.wait().unwrap().code();
        told.send(()).unwrap();
        let (mut output, mut errors) = (String::new(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert_eq!(output, "");
        (code, errors)
    });
    if ended.recv_timeout(HANG).is_err() {
        kill_process(pid, Signal::KILL).unwrap();
    }
    waiting.join().unwrap()
}

#[test]
fn with_sqlite_alone_redis_is_missing_and_the_rows_are_gone() {
    let home = Home::with_user("alice");
    let token = home.token();
    let said = measured(&home, &["--rows", "40"]);
    check(&said, &["local-hit", "store-hit", "unknown-token"]);
    assert_eq!(cases(&said)[1]["missing"], "not configured");
    let store = &said["store"];
    let facts = ["kind", "layout", "own", "redis", "rows", "rows_removed"].map(|key| store[key].clone());
    let expected: [Value; 6] =
        ["sqlite".into(), "doorward".into(), Value::Null, false.into(), 40.into(), 40.into()];
    assert_eq!(facts, expected);
    assert_eq!(sqlite(&home.path("doorward.db"), COUNT), [0]);
    // What was there before is untouched.
    assert_eq!(home.list(&["token", "list"]).len(), 1);
    let serving = home.serve();
    assert_eq!(home.curl(Some(&token)).0, 200);
    assert_eq!(serving.stop(Signal::TERM).0, Some(0));
}

#[test]
fn people_get_a_table_and_a_plot() {
    let home = Home::new();
    let ran = home.run(&arguments(&["--rows", "20", "--svg", "levels.svg"]));
    assert_eq!(ran.code, 0, "{}", ran.errors);
    for part in [
        "stores: SQLite, no Redis; 20 rows, written in ",
        " s, removed\n",
        "CASE           SAMPLES",
        "P99.9",
        "\nlocal-hit       10,000",
        "\nstore-hit        1,000",
        "\nunknown-token    1,000",
        "\nredis-hit            not measured: there is no [redis] in the configuration\n",
    ] {
        assert!(ran.output.contains(part), "{part}:\n{}", ran.output);
    }
    let svg = fs::read_to_string(home.path("levels.svg")).unwrap();
    let plot = roxmltree::Document::parse(&svg).unwrap();
    let texts: Vec<&str> = plot.descendants().filter_map(|node| node.text()).map(str::trim).collect();
    for label in ["local-hit", "store-hit", "unknown-token", "99.9 %"] {
        assert!(texts.contains(&label), "{label}: {texts:?}");
    }
    assert!(!texts.contains(&"redis-hit"), "{texts:?}");
}

#[test]
fn arguments_are_of_one_kind_of_run() {
    let home = Home::new();
    for (line, why) in [
        (arguments(&["--tokens", "5"]), "--rows"),
        (vec!["bench", "lookup", "--rows", "5"], "--config"),
        (vec!["bench", "lookup", "--config", "missing.toml"], "missing.toml"),
    ] {
        let refused = home.run(&line);
        assert_eq!(refused.code, 1, "{}", refused.errors);
        assert!(refused.errors.contains(why), "{}", refused.errors);
    }
    for rows in ["0", "10001", "many"] {
        let refused = home.run(&arguments(&["--rows", rows]));
        assert_eq!(refused.code, 2, "{}", refused.errors);
        assert!(refused.errors.contains("from 1 to 10000"), "{}", refused.errors);
    }
    assert!(!home.path("doorward.db").exists(), "nothing was opened");
    // The environment names a file for all commands; nobody asked for rows in its store.
    let mut command = home.command(&["bench", "lookup", "--tokens", "5", "--json"]);
    let output = command.env("DOORWARD_CONFIG", "doorward.toml").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(!home.path("doorward.db").exists());
}

#[test]
fn with_redis_and_postgresql_every_level_answers_for_itself() {
    let (home, redis) = (Home::new(), Redis::start());
    let database = Postgres::shared().database();
    configure(&home, &database.url(), Some(&redis));
    home.add_user("alice");
    let said = measured(&home, &["--rows", "50"]);
    check(&said, &LEVELS);
    let store = &said["store"];
    assert_eq!((&store["kind"], &store["redis"]), (&"postgresql".into(), &true.into()));
    assert_eq!((&store["rows"], &store["rows_removed"]), (&50.into(), &50.into()));
    assert_eq!(database.psql(COUNT).trim(), "0");
    assert!(!said.to_string().contains(postgres::PASSWORD));
    // Those who asked: 1,000 samples, 1,000 of unknown tokens, and each row at least once before.
    let mut connection = redis.connection();
    let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut connection).unwrap();
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_eval:calls=")).unwrap();
    let calls: u64 = line.split(',').next().unwrap().parse().unwrap();
    assert!((2050..12_000).contains(&calls), "{stats}");
    // Leases go by themselves; values were deleted with their rows.
    let names: Vec<String> = redis::cmd("KEYS").arg("doorward:*").query(&mut connection).unwrap();
    for name in names {
        let length: u64 = redis::cmd("STRLEN").arg(&name).query(&mut connection).unwrap();
        assert!(length <= 12, "{name} has {length} bytes");
    }
}

#[test]
fn with_mariadb_too() {
    let (home, redis) = (Home::new(), Redis::start());
    let database = MariaDb::shared().database();
    configure(&home, &database.url(), Some(&redis));
    let said = measured(&home, &["--rows", "30"]);
    check(&said, &LEVELS);
    assert_eq!(said["store"]["kind"], "mysql");
    assert_eq!(database.sql(COUNT).trim(), "0");
}

#[test]
fn with_django_tokens_are_in_the_own_store_and_users_in_djangos() {
    let (home, redis) = (Home::new(), Redis::start());
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/fixture.sqlite3");
    fs::copy(fixture, home.path("site.sqlite3")).unwrap();
    let before = fs::read(home.path("site.sqlite3")).unwrap();
    fs::write(home.path("deployment.key"), KEY).unwrap();
    home.configure(&format!(
        "\n[deployment]\nkey = {{ file = \"deployment.key\" }}\n[redis]\nurl = \"{}\"\n[store]\n\
         url = \"sqlite:site.sqlite3\"\nlayout = \"django\"\n[store.django]\nsecret_key = {{ file = \"deployment.key\" }}\n\
         [store.own]\nurl = \"sqlite:own.db\"\n",
        redis.url()
    ));
    let said = measured(&home, &["--rows", "20"]);
    check(&said, &LEVELS);
    let store = &said["store"];
    let facts = ["kind", "layout", "own"].map(|key| store[key].as_str().unwrap());
    assert_eq!(facts, ["sqlite", "django", "sqlite"]);
    assert_eq!(sqlite(&home.path("own.db"), COUNT), [0]);
    assert!(fs::read(home.path("site.sqlite3")).unwrap() == before, "Django's file is as it was");
}

#[test]
fn without_redis_that_level_is_an_error_and_the_others_are_measured() {
    let (home, mut redis) = (Home::new(), Redis::start());
    configure(&home, "sqlite:doorward.db", Some(&redis));
    redis.kill();
    let ran = home.run(&arguments(&["--rows", "20", "--json"]));
    assert_eq!(ran.code, 1, "{}", ran.errors);
    let told: Vec<&str> = ran.errors.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(told.len() == 1, "{}", ran.errors);
    let told = told[0].strip_prefix("error: redis-hit was not measured: ").unwrap();
    assert!(
        told.contains("Redis cannot be asked: there is no connection to Redis: cannot connect to 127.0.0.1"),
        "{told}"
    );
    let said: Value = serde_json::from_str(&ran.output).unwrap();
    check(&said, &["local-hit", "store-hit", "unknown-token"]);
    assert_eq!(cases(&said)[1]["error"], told);
    assert_eq!(said["store"]["rows_removed"], 20);
    assert_eq!(sqlite(&home.path("doorward.db"), COUNT), [0]);
}

#[test]
fn a_store_that_goes_away_is_told_of() {
    let (home, mut server) = (Home::new(), Postgres::start());
    configure(&home, &server.database().url(), None);
    assert_eq!(home.list(&["user", "list"]).len(), 0);
    let name = server.psql("postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'test%'");
    let name = name.trim().to_owned();
    let count = |server: &Postgres| server.psql(&name, COUNT).trim().to_owned();
    let child = start(&home, "2000", || count(&server) == "2000");
    server.kill();
    let output = child.wait_with_output().unwrap();
    let (code, errors) = (output.status.code(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(code, Some(1), "{errors}");
    let lines: Vec<&str> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
    let is_told = |part: &str| lines.iter().any(|line| line.contains(part));
    assert!(is_told("the rows of the benchmark could not be removed: "), "{errors}");
    assert!(is_told("unknown-token was not measured: 8 look-ups in a row were not answered"), "{errors}");
    assert!(!errors.contains(postgres::PASSWORD), "{errors}");
    server.restart();
    // Nobody lets them pass, and whoever serves sweeps them.
    assert_eq!(count(&server), "2000");
    server.psql(&name, "UPDATE token SET expires_at = expires_at - 1600");
    let said = measured(&home, &["--rows", "1"]);
    assert_eq!(said["store"]["rows_removed"], 1);
    assert_eq!(count(&server), "0");
}

#[test]
fn signals_end_it_and_its_rows_are_removed_from_every_store() {
    let (home, redis) = (Home::new(), Redis::start());
    let database = Postgres::shared().database();
    configure(&home, &database.url(), Some(&redis));
    assert_eq!(home.list(&["user", "list"]).len(), 0);
    let count = || database.psql(COUNT).trim().parse::<u64>().unwrap();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let child = start(&home, "3000", || count() == 3000);
        let (ended, errors) = end(child, signal);
        assert_eq!(ended, Some(code), "{errors}");
        assert!(errors.contains("3000 rows of the benchmark removed"), "{errors}");
        assert_eq!(count(), 0);
    }
    // While it writes: those that are there by then.
    let child = start(&home, "10000", || count() > 0);
    let (ended, errors) = end(child, Signal::INT);
    assert_eq!(ended, Some(130), "{errors}");
    assert!(errors.contains(" rows of the benchmark removed"), "{errors}");
    assert_eq!(count(), 0);
}

#[test]
fn a_gateway_on_the_same_store_refuses_its_rows() {
    let (home, redis) = (Home::new(), Redis::start());
    let database = Postgres::shared().database();
    configure(&home, &database.url(), Some(&redis));
    home.configure("\n[routes.open]\npath = \"/open\"\nupstream = \"legacy\"\nschemes = [\"token\"]\npermission = \"anyone\"\n");
    home.add_user("alice");
    let token = home.token();
    let serving = home.serve();
    assert_eq!(home.curl(Some(&token)).0, 200);
    let child = start(&home, "5000", || database.psql(COUNT).trim() == "5000");
    // Nobody but the benchmark knows its keys: one row is given another one.
    for (user, key, status) in [("= -1", "key-of-a-row", 401), ("> 0", "key-of-alice", 200)] {
        database.psql(&format!(
            "UPDATE token SET digest = sha256('{key}') WHERE id = (SELECT max(id) FROM token WHERE user_id {user})"
        ));
        for path in ["/hello", "/open"] {
            let (answered, body) = home.curl_path(path, Some(key), &[]);
            assert_eq!(answered, status, "{path}: {body}");
            assert!(status == 200 || body.contains("User inactive or deleted."), "{body}");
        }
    }
    let listed = home.list(&["token", "list"]);
    assert!(listed.len() == 1 && listed[0]["user"] == "alice", "{listed:?}");
    assert_eq!(home.list(&["user", "list"]).len(), 1);
    let (code, errors) = end(child, Signal::INT);
    assert_eq!(code, Some(130), "{errors}");
    // All but the one that is not its own any more.
    assert!(errors.contains("4999 rows of the benchmark removed"), "{errors}");
    assert_eq!(serving.stop(Signal::TERM).0, Some(0));
}

#[test]
fn rows_of_one_that_was_killed_are_swept() {
    let home = Home::new();
    assert_eq!(home.list(&["user", "list"]).len(), 0);
    let file = home.path("doorward.db");
    let mut child = start(&home, "2000", || sqlite(&file, COUNT) == [2000]);
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    assert_eq!(child.wait().unwrap().code(), None);
    assert_eq!(sqlite(&file, COUNT), [2000]);
    // None of them lasts: a quarter of an hour, and ten minutes in which clocks may differ.
    let ends = "SELECT count(*) FROM token WHERE user_id = -1 AND origin = 'canary' AND expires_at - created_at <= 900";
    assert_eq!(sqlite(&file, ends), [2000]);
    measured(&home, &["--rows", "1"]);
    assert_eq!(sqlite(&file, COUNT), [2000], "they may be another one's, which still runs");
    sqlite(&file, "UPDATE token SET expires_at = expires_at - 1600 RETURNING id");
    measured(&home, &["--rows", "1"]);
    assert_eq!(sqlite(&file, COUNT), [0]);
}
