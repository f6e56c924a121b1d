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
