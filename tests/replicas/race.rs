//! A replica reads the old row, the token is revoked, the replica puts what it read into the caches.

use crate::fleet::{BOUND, Fleet, SOON, run};
use crate::harness::services::proxy::Fault;
use crate::poison::values;
use redis::{Commands as _, Connection};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Waits until somebody has asked for something that is not in Redis, which leaves a mark there.
async fn asked(redis: &mut Connection, before: &[String]) {
    let began = Instant::now();
    while redis.keys::<_, Vec<String>>("doorward:*").unwrap().iter().all(|name| before.contains(name)) {
        assert!(began.elapsed() < Duration::from_secs(5), "nobody asks Redis");
        sleep(Duration::from_millis(1)).await;
    }
    // The mark has been told to who asked, and the database has been asked and has read the row.
    sleep(Duration::from_millis(200)).await;
}

/// The replica hears of the revocation while it waits for the row.
#[test]
fn what_was_read_before_a_revocation_is_not_told_after_it() {
    run(async {
        let mut fleet = Fleet::ordinary().await;
        let mut redis = fleet.redis().connection();
        let token = fleet.token("alice").await;
        let (names, shared) = (redis.keys::<_, Vec<String>>("doorward:*").unwrap(), values(&mut redis));
        let slow = &fleet.replicas[1];
        slow.sql.set(Fault::HoldAnswers);
        let answer = slow.client.send(token.get("/"));
        let meanwhile = async {
            asked(&mut redis, &names).await;
            fleet.writer.revoke_token(token.id).await.unwrap();
            // By now it has been told.
            sleep(SOON).await;
            slow.sql.set(Fault::None);
        };
        let (answer, ()) = tokio::join!(answer, meanwhile);
        assert_eq!(answer.status, 401, "what came too late is asked for again: {answer:?}");
        sleep(SOON).await;
        assert_eq!(values(&mut redis), shared, "nothing was put there");
        assert_eq!(fleet.statuses(&token.get("/")).await, [401; 3]);
        fleet.replicas[2].restart().await;
        assert_eq!(fleet.statuses(&token.get("/")).await, [401; 3]);
    });
}

/// It does not even hear of the revocation before it fills.
#[test]
fn a_replica_that_heard_of_nothing_fills_nothing() {
    run(async {
        let mut fleet = Fleet::ordinary().await;
        let mut redis = fleet.redis().connection();
        let token = fleet.token("alice").await;
        let (names, shared) = (redis.keys::<_, Vec<String>>("doorward:*").unwrap(), values(&mut redis));
        let slow = &fleet.replicas[1];
        slow.sql.set(Fault::HoldAnswers);
        let answer = slow.client.send(token.get("/"));
        let meanwhile = async {
            asked(&mut redis, &names).await;
            // What it says to Redis arrives; what Redis says does not.
            slow.redis().set(Fault::HoldAnswers);
            fleet.writer.revoke_token(token.id).await.unwrap();
            let acknowledged = Instant::now();
            slow.sql.set(Fault::None);
            acknowledged
        };
        let (_, acknowledged) = tokio::join!(answer, meanwhile);
        // The others know.
        for replica in [&fleet.replicas[0], &fleet.replicas[2]] {
            assert_eq!(replica.client.send(token.get("/")).await.status, 401);
        }
        // This one reads the database, if nothing else; by then the fill has come to Redis, if there was one.
        fleet.until_refused(&token.get("/")).await;
        assert!(acknowledged.elapsed() < BOUND * 2, "refused by all after {:?}", acknowledged.elapsed());
        sleep(SOON).await;
        assert_eq!(values(&mut redis), shared, "nothing was put there");
        fleet.replicas[2].restart().await;
        fleet.replicas[1].redis().set(Fault::None);
        fleet.replicas[1].restart().await;
        assert_eq!(fleet.statuses(&token.get("/")).await, [401; 3]);
    });
}
