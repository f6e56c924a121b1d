//! What is taken away is gone from all replicas when whoever took it is answered.

use crate::fleet::{Fleet, SOON, Token, browse, log_out, obtain, obtained, run};
use crate::harness::client::Request;
use crate::harness::services::proxy::Fault;
use doorward::secret::Secret;
use tokio::time::Instant;

/// Fails unless no replica lets this in any more, now.
async fn assert_soon_refused(fleet: &Fleet, what: &str, request: &Request) {
    let time = fleet.until_refused(request).await;
    assert!(time < SOON, "{what}: refused by all after {time:?}");
}

#[test]
fn a_revoked_token_is_refused_by_all_at_once() {
    run(async {
        let fleet = Fleet::ordinary().await;
        let token = fleet.warm("alice").await;
        assert_eq!(fleet.names(&token).await, ["alice"; 3]);
        for _ in 0..10 {
            let token = fleet.warm("alice").await;
            let began = Instant::now();
            fleet.writer.revoke_token(token.id).await.unwrap();
            assert!(began.elapsed() < SOON, "acknowledged after {:?}", began.elapsed());
            assert_soon_refused(&fleet, "revoked", &token.get("/")).await;
            assert_eq!(fleet.statuses(&token.get("/")).await, [401; 3]);
        }
        assert_eq!(fleet.statuses(&token.get("/")).await, [200; 3]);
    });
}

/// No replica can read the database meanwhile, so it is Redis that told them.
#[test]
fn the_push_alone_is_enough() {
    run(async {
        let fleet = Fleet::ordinary().await;
        let bystander = fleet.warm("alice").await;
        for name in ["deactivated", "changed", "left", "cleared", "regrouped"] {
            fleet.user(name, &["ops"]).await;
        }
        let revoked = fleet.warm("alice").await;
        let deactivated = fleet.warm("deactivated").await;
        let changed = fleet.session("changed").await;
        let left = fleet.session("left").await;
        let cleared = [fleet.warm("cleared").await, fleet.warm("cleared").await];
        let regrouped = fleet.warm("regrouped").await;

        fleet.cut_sql(Fault::Refuse);
        let writer = &fleet.writer;
        writer.revoke_token(revoked.id).await.unwrap();
        assert_soon_refused(&fleet, "revoked", &revoked.get("/")).await;
        writer.set_active("deactivated", false).await.unwrap();
        assert_soon_refused(&fleet, "deactivated", &deactivated.get("/")).await;
        writer.set_password("changed", Secret::new("another password")).await.unwrap();
        assert_soon_refused(&fleet, "a session of before", &browse(&changed)).await;
        writer.log_out(Secret::new(left.as_str())).await.unwrap();
        assert_soon_refused(&fleet, "a session that was ended", &browse(&left)).await;
        assert_eq!(writer.revoke_tokens("cleared").await.unwrap(), 2);
        for token in &cleared {
            assert_soon_refused(&fleet, "all of a user's", &token.get("/")).await;
        }
        writer.set_groups("regrouped", vec!["lab".to_owned()]).await.unwrap();
        assert_soon_refused(&fleet, "with the old groups", &regrouped.get("/")).await;
        // Nobody else was.
        assert_eq!(fleet.statuses(&bystander.get("/")).await, [200; 3]);
        // And nobody says that a credential is wrong while nobody knows.
        assert_eq!(fleet.statuses(&revoked.get("/")).await, [503; 3]);
        assert_eq!(fleet.statuses(&browse(&left)).await, [503; 3]);

        fleet.cut_sql(Fault::None);
        for token in [&revoked, &deactivated, &cleared[0], &cleared[1]] {
            fleet.until(&token.get("/"), |answer| answer.status == 401).await;
        }
        for session in [&changed, &left] {
            fleet.until(&browse(session), |answer| answer.status == 403).await;
        }
        fleet.until(&regrouped.get("/"), |answer| answer.status == 200).await;
        assert_eq!(groups(&fleet, &regrouped).await, ["lab"; 3]);
        assert_eq!(fleet.statuses(&bystander.get("/")).await, [200; 3]);
    });
}

async fn groups(fleet: &Fleet, token: &Token) -> Vec<String> {
    let told = fleet.forwarded(token).await;
    told.iter().map(|request| request.one("remote-groups").unwrap_or_default()).collect()
}

/// What clients do at one replica, with the others cut off from the database.
#[test]
fn what_one_replica_ends_the_others_refuse() {
    run(async {
        let fleet = Fleet::ordinary().await;
        fleet.user("many", &["ops"]).await;
        let session = fleet.session("alice").await;
        let [first, others @ ..] = fleet.replicas.as_slice() else { panic!("no replicas") };
        let regrouped = fleet.warm("many").await;
        assert_eq!(groups(&fleet, &regrouped).await, ["ops"; 3]);
        // At most two of them, and those of commands do not count.
        let mut granted = Vec::new();
        for _ in 0..2 {
            let key = obtained(&first.client.send(obtain("many")).await);
            let request = Request::get("/").token(&key);
            assert_eq!(fleet.statuses(&request).await, [200; 3]);
            granted.push(request);
        }

        let cut = |fault| {
            for replica in others {
                replica.sql.set(fault);
            }
        };
        cut(Fault::Refuse);
        let answer = first.client.send(log_out(&session)).await;
        assert!([204, 302].contains(&answer.status), "{answer:?}");
        assert_soon_refused(&fleet, "a session that was ended", &browse(&session)).await;
        obtained(&first.client.send(obtain("many")).await);
        let refused = fleet.until(&granted[0], |answer| answer.status != 200).await;
        assert!(refused < SOON, "one too many: {refused:?}");
        assert_eq!(fleet.statuses(&granted[1]).await, [200; 3]);

        cut(Fault::None);
        fleet.until(&browse(&session), |answer| answer.status == 403).await;
        fleet.until(&granted[0], |answer| answer.status == 401).await;
        // With the database at hand it is the new answer that comes, not a refusal.
        fleet.writer.set_groups("many", vec!["lab".to_owned()]).await.unwrap();
        let began = Instant::now();
        while groups(&fleet, &regrouped).await != ["lab"; 3] {
            assert!(began.elapsed() < SOON, "still in the old groups after {:?}", began.elapsed());
        }
    });
}
