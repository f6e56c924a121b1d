//! The database or Redis is there and not well: slow, read-only, locked, or its disk is full. Each of it shortly, and in
//! the long tests as long as it really lasts, under the load of then.

use crate::drill::{Can, Drill, outage};
use crate::fleet::{Fleet, Sql, run, run_for};
use crate::harness::services::pause;
use crate::harness::services::postgres::{Database, Postgres};
use crate::harness::services::process::may_mount;
use crate::harness::services::proxy::Fault;
use crate::harness::services::redis::Redis;
use sqlx::{Connection as _, Executor as _, PgConnection};
use std::time::Duration;

/// A long test takes as long as what goes wrong, and this.
const REST: Duration = Duration::from_mins(3);
/// A setting of the server is everywhere by then.
const SETTLING: Duration = Duration::from_millis(300);

/// An answer of the database takes this much longer.
const SLOW_SQL: Duration = Duration::from_millis(200);
/// One of Redis, which is still in time.
const SLOW_REDIS: Duration = Duration::from_millis(50);
/// One of Redis that is not.
const LATE_REDIS: Duration = Duration::from_millis(200);

async fn assert_slow_sql(drill: Drill, delay: Duration) {
    let mut fleet = Fleet::quiet(Sql::SharedPostgres, Some(Redis::start())).await;
    // A write takes many answers, and the next one waits for it, which some of them do for too long.
    let [grants, logins, revocations] = [Can::MayFail; 3];
    let drill = Drill { grants, logins, revocations, ..drill };
    let slow = async |fleet: &mut Fleet| fleet.cut_sql(Fault::Delay(delay / 2));
    drill.run(&mut fleet, slow, async |fleet, ()| fleet.cut_sql(Fault::None)).await;
}

async fn assert_slow_redis(drill: Drill, delay: Duration) {
    let mut fleet = Fleet::quiet(Sql::SharedPostgres, Some(Redis::start())).await;
    let slow = async |fleet: &mut Fleet| fleet.cut_redis(Fault::Delay(delay / 2));
    drill.run(&mut fleet, slow, async |fleet, ()| fleet.cut_redis(Fault::None)).await;
}

async fn assert_read_only(drill: Drill) {
    let mut fleet = Fleet::quiet(own(), Some(Redis::start())).await;
    let set = |fleet: &Fleet, to: &str| {
        let text = format!("ALTER SYSTEM {to}; SELECT pg_reload_conf()");
        // Two statements, since the first one may be in no transaction.
        text.split("; ").for_each(|text| drop(fleet.postgres().psql("postgres", text)));
        pause(SETTLING);
    };
    let begin = async |fleet: &mut Fleet| set(fleet, "SET default_transaction_read_only = on");
    let end = async |fleet: &mut Fleet, ()| set(fleet, "RESET default_transaction_read_only");
    drill.reads_only().run(&mut fleet, begin, end).await;
}

/// Somebody else holds the table of tokens, as for a migration by hand.
async fn assert_locked(drill: Drill, redis: Option<Redis>) {
    let mut fleet = Fleet::quiet(Sql::SharedPostgres, redis).await;
    let begin = async |fleet: &mut Fleet| {
        let mut connection = PgConnection::connect(&fleet.database).await.unwrap();
        connection.execute("BEGIN; LOCK TABLE token IN ACCESS EXCLUSIVE MODE").await.unwrap();
        connection
    };
    let end = async |_: &mut Fleet, connection: PgConnection| connection.close().await.unwrap();
    // Who logs in needs no token, but waits in turn with those who do.
    let drill = Drill { logins: Can::MayFail, ..drill.nobody_knows() };
    drill.run(&mut fleet, begin, end).await;
}

async fn assert_full(drill: Drill) {
    let server = Box::new(Postgres::start_with_small_disk());
    let mut fleet = Fleet::quiet(Sql::SmallDisk(server), Some(Redis::start())).await;
    let begin = async |fleet: &mut Fleet| fill(&fleet.postgres_database());
    let end = async |fleet: &mut Fleet, ()| fleet.postgres_database().make_room();
    drill.reads_only().run(&mut fleet, begin, end).await;
}

/// Every page, and then what room there is in those of the two tables of which each write needs one.
fn fill(database: &Database<'_>) {
    database.fill();
    for one in [
        "PERFORM record_changes(ARRAY[sha256(number::TEXT::BYTEA)], NULL)",
        r#"INSERT INTO session SELECT sha256(number::TEXT::BYTEA), min(id), 0, 0, 1 FROM "user""#,
    ] {
        database.psql(&format!(
            "DO $$ BEGIN
                FOR number IN 1..5000 LOOP
                    BEGIN {one}; EXCEPTION WHEN disk_full THEN RETURN; END;
                END LOOP;
                RAISE 'there is still room';
            END $$"
        ));
    }
}

fn own() -> Sql {
    Sql::Postgres(Box::new(Postgres::start()))
}

fn run_long(test: impl Future<Output = ()>) {
    run_for(outage() + REST, test);
}

#[test]
fn a_slow_database() {
    run(assert_slow_sql(Drill::short("the database is slow"), SLOW_SQL / 2));
}

#[test]
#[ignore = "long: scripts/test-long"]
fn a_slow_database_for_long() {
    run_long(assert_slow_sql(Drill::long("the database takes 200 ms", outage()), SLOW_SQL));
}

#[test]
fn a_slow_redis() {
    run(assert_slow_redis(Drill::short("Redis is slow"), SLOW_REDIS));
}

#[test]
#[ignore = "long: scripts/test-long"]
fn a_slow_redis_for_long() {
    run_long(assert_slow_redis(Drill::long("Redis takes 50 ms", outage()), SLOW_REDIS));
}

#[test]
fn a_redis_that_is_too_slow() {
    run(assert_slow_redis(Drill::short("Redis is too slow"), LATE_REDIS));
}

#[test]
#[ignore = "long: scripts/test-long"]
fn a_redis_that_is_too_slow_for_long() {
    run_long(assert_slow_redis(Drill::long("Redis takes 200 ms", outage()), LATE_REDIS));
}

#[test]
fn a_database_that_is_read_only() {
    run(assert_read_only(Drill::short("the database is read-only")));
}

#[test]
#[ignore = "long: scripts/test-long"]
fn a_database_that_is_read_only_for_long() {
    run_long(assert_read_only(Drill::long("the database is read-only", outage())));
}

#[test]
fn a_table_that_somebody_holds() {
    // Everybody waits for two seconds, and is asked once.
    let time = Duration::from_millis(100);
    let drill = Drill { time, ..Drill::short("the tokens are locked") };
    run(assert_locked(drill, Some(Redis::start())));
}

#[test]
#[ignore = "long: scripts/test-long"]
fn a_table_that_somebody_holds_for_long() {
    let time = outage().min(Duration::from_secs(10));
    run_long(assert_locked(Drill::long("the tokens are locked", time), Some(Redis::start())));
}

#[test]
#[ignore = "long: scripts/test-long"]
fn a_table_that_somebody_holds_for_long_without_redis() {
    let time = outage().min(Duration::from_secs(10));
    run_long(assert_locked(Drill::long("the tokens are locked, no Redis", time), None));
}

#[test]
fn a_database_whose_disk_is_full() {
    if may_mount() {
        run(assert_full(Drill::short("the disk is full")));
    } else {
        eprintln!("not tried: there can be no disk of one's own here");
    }
}

#[test]
#[ignore = "long: scripts/test-long"]
fn a_database_whose_disk_is_full_for_long() {
    if may_mount() {
        run_long(assert_full(Drill::long("the disk is full", outage())));
    } else {
        println!("long: skipped: there can be no disk of one's own here");
    }
}
