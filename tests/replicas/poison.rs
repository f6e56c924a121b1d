//! Whoever can write to Redis lets nobody in, and locks nobody out.

use crate::fleet::{BOUND, Fleet, SOON, Token, run};
use crate::harness::client::Request;
use crate::harness::services::proxy::Fault;
use redis::{Commands as _, Connection};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Of the shared values, in Redis; a mark of whoever asks is shorter.
const VALUE_BYTES_MIN: usize = 32;

/// All values that are there now.
pub(crate) fn values(redis: &mut Connection) -> Vec<(String, Vec<u8>)> {
    let names: Vec<String> = redis.keys("doorward:*").unwrap();
    let read = |name: String| (redis.get(&name).unwrap(), name);
    let found: Vec<(Vec<u8>, String)> = names.into_iter().map(read).collect();
    found
        .into_iter()
        .filter(|(value, _)| value.len() > VALUE_BYTES_MIN)
        .map(|(value, name)| (name, value))
        .collect()
}

/// Has the first replica look a token up, so that it is in Redis; yields where, and what.
async fn shared(fleet: &Fleet, redis: &mut Connection, token: &Token) -> (String, Vec<u8>) {
    let before = values(redis);
    assert_eq!(fleet.replicas[0].client.send(token.get("/")).await.status, 200);
    let began = Instant::now();
    loop {
        let new = values(redis).into_iter().find(|(name, _)| !before.iter().any(|(old, _)| old == name));
        if let Some(new) = new {
            return new;
        }
        assert!(began.elapsed() < Duration::from_secs(5), "what was looked up is never shared");
        sleep(Duration::from_millis(2)).await;
    }
}

/// A copy under another name, other bytes, another type: not believed, and the database is asked.
#[test]
fn what_no_replica_wrote_there_is_not_believed() {
    run(async {
        let fleet = Fleet::ordinary().await;
        let mut redis = fleet.redis().connection();
        fleet.user("mallory", &[]).await;
        let (alice, mallory) = (fleet.token("alice").await, fleet.token("mallory").await);
        let (alice_name, alice_value) = shared(&fleet, &mut redis, &alice).await;
        let (mallory_name, mallory_value) = shared(&fleet, &mut redis, &mallory).await;
        let second = &fleet.replicas[1];
        let who = async |token: &Token| {
            let answer = second.client.send(token.get("/who")).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            fleet.upstream.log().of("/who").last().unwrap().one("remote-user").unwrap()
        };
        let mut refused = second.shared("refused").await;
        let mut is_refused = async || {
            let before = std::mem::replace(&mut refused, second.shared("refused").await);
            refused > before
        };

        redis.set::<_, _, ()>(&mallory_name, &alice_value).unwrap();
        assert_eq!(who(&mallory).await, "mallory");
        assert!(is_refused().await, "a copy under another name");

        // Each with a token of its own, since the last one is known by now.
        for place in [0, 15, 16, alice_value.len() / 2, alice_value.len() - 1] {
            let token = fleet.token("alice").await;
            let (name, mut value) = shared(&fleet, &mut redis, &token).await;
            value[place] ^= 1;
            redis.set::<_, _, ()>(&name, value).unwrap();
            assert_eq!(who(&token).await, "alice");
            assert!(is_refused().await, "another byte at {place}");
        }
        let token = fleet.token("alice").await;
        let (name, value) = shared(&fleet, &mut redis, &token).await;
        redis.set::<_, _, ()>(&name, &value[..value.len() - 1]).unwrap();
        assert_eq!(who(&token).await, "alice");
        assert!(is_refused().await, "too short");
        let token = fleet.token("alice").await;
        let (name, value) = shared(&fleet, &mut redis, &token).await;
        redis.del::<_, ()>(&name).unwrap();
        redis.rpush::<_, _, ()>(&name, value).unwrap();
        assert_eq!(who(&token).await, "alice");
        assert!(is_refused().await, "a list");

        // The name of a token that does not exist is seen when somebody presents it.
        let names = |redis: &mut Connection| redis.keys::<_, Vec<String>>("doorward:*").unwrap();
        let before = names(&mut redis);
        let unknown = Request::get("/").token("0123456789abcdef0123456789abcdef01234567");
        assert_eq!(fleet.replicas[0].client.send(unknown.clone()).await.status, 401);
        let its: Vec<_> = names(&mut redis).into_iter().filter(|name| !before.contains(name)).collect();
        assert!(!its.is_empty(), "it was looked for in Redis");
        for name in &its {
            redis.set::<_, _, ()>(name, &mallory_value).unwrap();
        }
        assert_eq!(fleet.statuses(&unknown).await, [401; 3]);
        // Without the database nobody knows whose it is; in no case mallory's.
        fleet.cut_sql(Fault::Refuse);
        redis.set::<_, _, ()>(&alice_name, &mallory_value).unwrap();
        let answer = fleet.replicas[2].client.send(alice.get("/")).await;
        assert_eq!(answer.status, 503, "{answer:?}");
    });
}

/// What a replica wrote there once, put back after it became void.
#[test]
fn an_old_value_brings_nobody_back() {
    run(async {
        let mut fleet = Fleet::ordinary().await;
        let mut redis = fleet.redis().connection();
        fleet.user("deactivated", &[]).await;
        let (revoked, known) = (fleet.token("alice").await, fleet.token("alice").await);
        let deactivated = fleet.token("deactivated").await;
        let (name, value) = shared(&fleet, &mut redis, &revoked).await;
        let (user_name, user_value) = shared(&fleet, &mut redis, &deactivated).await;
        // One replica has it in memory, one has had it only from Redis, one never.
        assert_eq!(fleet.replicas[1].client.send(revoked.get("/")).await.status, 200);
        fleet.writer.revoke_token(revoked.id).await.unwrap();
        fleet.writer.set_active("deactivated", false).await.unwrap();
        let put_back = |redis: &mut Connection| {
            redis.set::<_, _, ()>(&name, &value).unwrap();
            redis.set::<_, _, ()>(&user_name, &user_value).unwrap();
        };
        assert!(fleet.until_refused(&revoked.get("/")).await < SOON);

        for _ in 0..10 {
            put_back(&mut redis);
            assert_eq!(fleet.statuses(&revoked.get("/")).await, [401; 3]);
            assert_eq!(fleet.statuses(&deactivated.get("/")).await, [401; 3]);
            // Past the time for which a "no" is remembered.
            sleep(BOUND / 4).await;
        }
        fleet.replicas[2].restart().await;
        for _ in 0..5 {
            put_back(&mut redis);
            assert_eq!(fleet.statuses(&revoked.get("/")).await, [401; 3]);
            assert_eq!(fleet.statuses(&deactivated.get("/")).await, [401; 3]);
            sleep(BOUND / 4).await;
        }
        // Nor when nobody can be asked who knows better.
        assert_eq!(fleet.statuses(&known.get("/")).await, [200; 3]);
        fleet.cut_sql(Fault::Refuse);
        sleep(BOUND).await;
        put_back(&mut redis);
        assert_eq!(fleet.statuses(&revoked.get("/")).await, [503; 3]);
        // Of whom all replicas know that nobody may log in as that.
        assert_eq!(fleet.statuses(&deactivated.get("/")).await, [401; 3]);
        assert_eq!(fleet.statuses(&known.get("/")).await, [200; 3]);
    });
}

/// Messages that no replica sent.
#[test]
fn noise_on_the_channel_locks_nobody_out_and_hides_nothing() {
    run(async {
        let fleet = Fleet::ordinary().await;
        let mut redis = fleet.redis().connection();
        let channels: Vec<String> = redis::cmd("PUBSUB").arg("CHANNELS").query(&mut redis).unwrap();
        let [channel] = channels.as_slice() else { panic!("{channels:?}") };
        let known = fleet.warm("alice").await;
        for length in [0, 1, 16, 100, 10_000] {
            let heard: u32 = redis.publish(channel, vec![7_u8; length]).unwrap();
            assert_eq!(heard, 3, "each replica listens");
            assert_eq!(fleet.statuses(&known.get("/")).await, [200; 3]);
            let token = fleet.warm("alice").await;
            redis.publish::<_, _, ()>(channel, vec![7_u8; length]).unwrap();
            fleet.writer.revoke_token(token.id).await.unwrap();
            assert!(fleet.until_refused(&token.get("/")).await < SOON);
            assert_eq!(fleet.statuses(&token.get("/")).await, [401; 3]);
        }
    });
}
