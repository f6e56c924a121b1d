//! Redis or the database is away for half a minute, or both are, under load.

use crate::drill::{Drill, outage};
use crate::fleet::{Fleet, Sql, run_for};
use crate::harness::services::postgres::Postgres;
use crate::harness::services::redis::Redis;
use std::time::Duration;

/// A test takes as long as the outage, and this.
const REST: Duration = Duration::from_mins(3);

fn drill(drill: Drill, begin: impl AsyncFnOnce(&mut Fleet), end: impl AsyncFnOnce(&mut Fleet)) {
    run_for(outage() + REST, async {
        let sql = Sql::Postgres(Box::new(Postgres::start()));
        let mut fleet = Fleet::quiet(sql, Some(Redis::start())).await;
        drill.run(&mut fleet, begin, async |fleet, ()| end(fleet).await).await;
    });
}

/// With what may be asked for while Redis alone is away: everything.
fn long(what: &'static str) -> Drill {
    Drill::long(what, outage())
}

#[test]
#[ignore = "long: scripts/test-long"]
fn redis_hangs_for_long() {
    let begin = async |fleet: &mut Fleet| fleet.redis().pause();
    drill(long("Redis hangs"), begin, async |fleet| fleet.redis().resume());
}

#[test]
#[ignore = "long: scripts/test-long"]
fn redis_is_killed_and_comes_back_empty() {
    let begin = async |fleet: &mut Fleet| fleet.redis_mut().kill();
    drill(long("Redis was killed"), begin, async |fleet| fleet.redis_mut().restart());
}

#[test]
#[ignore = "long: scripts/test-long"]
fn the_database_hangs_for_long() {
    let begin = async |fleet: &mut Fleet| fleet.postgres().pause();
    drill(long("the database hangs").nobody_knows(), begin, async |fleet| fleet.postgres().resume());
}

#[test]
#[ignore = "long: scripts/test-long"]
fn the_database_is_killed_and_comes_back() {
    let begin = async |fleet: &mut Fleet| fleet.postgres_mut().kill();
    drill(long("the database was killed").nobody_knows(), begin, async |fleet| {
        fleet.postgres_mut().restart();
    });
}

#[test]
#[ignore = "long: scripts/test-long"]
fn the_database_is_stopped_and_started() {
    let begin = async |fleet: &mut Fleet| fleet.postgres_mut().stop();
    drill(long("the database was stopped").nobody_knows(), begin, async |fleet| {
        fleet.postgres_mut().restart();
    });
}

#[test]
#[ignore = "long: scripts/test-long"]
fn both_hang_for_long() {
    let begin = async |fleet: &mut Fleet| {
        fleet.postgres().pause();
        fleet.redis().pause();
    };
    let end = async |fleet: &mut Fleet| {
        fleet.redis().resume();
        fleet.postgres().resume();
    };
    drill(long("both hang").nobody_knows(), begin, end);
}

#[test]
#[ignore = "long: scripts/test-long"]
fn both_are_killed_and_come_back() {
    let begin = async |fleet: &mut Fleet| {
        fleet.redis_mut().kill();
        fleet.postgres_mut().kill();
    };
    let end = async |fleet: &mut Fleet| {
        fleet.postgres_mut().restart();
        fleet.redis_mut().restart();
    };
    drill(long("both were killed").nobody_knows(), begin, end);
}
