//! What one replica looked up, the others need not; and who presents nothing costs nobody anything.

use crate::fleet::{BOUND, Fleet, run};
use crate::harness::client::Request;
use crate::harness::services::proxy::Fault;
use std::time::Duration;
use tokio::time::{Instant, sleep};

#[test]
fn a_replica_without_the_database_lets_in_whom_another_one_knows() {
    run(async {
        let fleet = Fleet::ordinary().await;
        let [first, second, third] = fleet.replicas.as_slice() else { panic!("no replicas") };
        let (token, unknown) = (fleet.token("alice").await, fleet.token("alice").await);
        assert_eq!(first.client.send(token.get("/")).await.status, 200);
        // The first one tells the others after it has answered.
        sleep(Duration::from_millis(100)).await;

        second.sql.set(Fault::Refuse);
        let before = second.shared("hit").await;
        assert_eq!(second.client.send(token.get("/")).await.status, 200);
        assert!(second.shared("hit").await > before, "Redis has told it");
        // A token that nobody has looked up is neither good nor bad.
        let answer = second.client.send(unknown.get("/")).await;
        assert_eq!((answer.status, answer.one("retry-after").is_some()), (503, true), "{answer:?}");

        // The same when the last reading of the database is older than the bound: the stream carries it.
        third.sql.set(Fault::Refuse);
        sleep(BOUND * 2).await;
        let before = third.shared("hit").await;
        assert_eq!(third.client.send(token.get("/")).await.status, 200);
        assert!(third.shared("hit").await > before, "Redis has told it");
    });
}

#[test]
fn metrics_and_log_tell_who_answered() {
    run(async {
        let mut fleet = Fleet::ordinary().await;
        let (token, mut told) = (fleet.token("alice").await, Vec::new());
        // By then all have heard of its making, from Redis and from the database.
        sleep(HEARD).await;
        for (number, replica) in fleet.replicas.iter().enumerate().take(2) {
            for path in ["/first", "/second"] {
                let mut before = Vec::new();
                for level in LEVELS {
                    before.push(replica.lookups(level).await);
                }
                let path = format!("{path}/{number}");
                assert_eq!(replica.client.send(token.get(&path)).await.status, 200);
                sleep(Duration::from_millis(200)).await;
                for (level, before) in LEVELS.iter().zip(before) {
                    if replica.lookups(level).await > before {
                        told.push((path.clone(), *level));
                    }
                }
            }
        }
        let told: Vec<(&str, &str)> = told.iter().map(|(path, level)| (path.as_str(), *level)).collect();
        let expected =
            [("/first/0", "store"), ("/second/0", "local"), ("/first/1", "redis"), ("/second/1", "local")];
        assert_eq!(told, expected);
        // Of requests that pass the log has nothing here.
        fleet.user("bob", &[]).await;
        let refused = fleet.token("bob").await;
        fleet.writer.set_active("bob", false).await.unwrap();
        sleep(HEARD).await;
        for (number, level) in [(0, "store"), (1, "redis")] {
            let path = format!("/refused/{number}");
            assert_eq!(fleet.replicas[number].client.send(refused.get(&path)).await.status, 401);
            sleep(Duration::from_millis(200)).await;
            let log = fleet.replicas[number].stop().await;
            let line = log.iter().find(|line| line.contains(&path)).unwrap_or_else(|| panic!("{log:#?}"));
            assert!(line.contains(&format!("auth.answered_by=\"{level}\"")), "{line}");
        }
    });
}

/// Several readings of the database.
const HEARD: Duration = Duration::from_millis(500);
/// Who may answer.
const LEVELS: [&str; 5] = ["local", "local-unknown", "redis", "store", "stale"];

#[test]
fn who_presents_nothing_waits_for_no_store() {
    run(async {
        let fleet = Fleet::ordinary().await;
        for fault in [Fault::BlackHole, Fault::Refuse] {
            fleet.cut_sql(fault);
            fleet.cut_redis(fault);
            sleep(BOUND).await;
            for _ in 0..5 {
                let began = Instant::now();
                assert_eq!(fleet.statuses(&Request::get("/")).await, [401; 3]);
                // Neither an answer of Redis nor one of the database was waited for.
                assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
            }
        }
    });
}
