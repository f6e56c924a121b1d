//! Redis or the database goes away, or both: who was known gets in, who was revoked does not, and nobody is told that
//! good credentials are wrong.

use crate::fleet::{BOUND, Fleet, SOON, Sql, Token, browse, log_in, log_out, obtain, run};
use crate::harness::client::{Answer, Request};
use crate::harness::services::postgres::Postgres;
use crate::harness::services::proxy::Fault;
use crate::harness::services::redis::Redis;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// No known token waits longer for what does not answer, on a busy machine.
const PATIENT: Duration = Duration::from_secs(1);
/// After it came back everything works by then.
const RECOVERY: Duration = Duration::from_secs(5);

/// Who is asked for during an outage.
struct Cast {
    known: Vec<Token>,
    session: String,
    /// Revoked before it.
    revoked: Token,
    /// Good, and never presented before.
    unknown: Vec<Token>,
}

impl Cast {
    async fn of(fleet: &Fleet) -> Self {
        let revoked = fleet.warm("alice").await;
        let mut known = Vec::new();
        for _ in 0..5 {
            known.push(fleet.warm("alice").await);
        }
        let session = fleet.session("alice").await;
        let mut unknown = Vec::new();
        for _ in 0..3 {
            unknown.push(fleet.token("alice").await);
        }
        fleet.writer.revoke_token(revoked.id).await.unwrap();
        fleet.until_refused(&revoked.get("/")).await;
        // By now all replicas were told that these are new, and have forgotten what they knew of them.
        sleep(SOON).await;
        for token in &known {
            assert_eq!(fleet.statuses(&token.get("/known")).await, [200; 3]);
        }
        assert_eq!(fleet.statuses(&browse(&session)).await, [200; 3]);
        Self { known, session, revoked, unknown }
    }

    /// Asks for those who are known as long as this takes; not one fails or waits.
    async fn while_known_pass<T>(&self, fleet: &Fleet, what: &str, act: impl Future<Output = T>) -> T {
        let asking = async {
            loop {
                let all = self.known.iter().map(|token| token.get("/known"));
                for request in all.chain([browse(&self.session)]) {
                    let began = Instant::now();
                    assert_eq!(fleet.statuses(&request).await, [200; 3], "{what}");
                    assert!(began.elapsed() < PATIENT, "{what}: waited for {:?}", began.elapsed());
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = asking => unreachable!("asks for ever"),
            result = act => result,
        }
    }

    /// The database is away: nobody knows of those who are not known.
    async fn assert_nobody_knows(&self, fleet: &Fleet) {
        let garbage = Request::get("/").token("0123456789abcdef0123456789abcdef01234567");
        let unknown = self.unknown.iter().map(|token| token.get("/"));
        for request in unknown.chain([garbage]) {
            fleet.ask(&request).await.iter().for_each(assert_unavailable);
        }
        for answer in fleet.ask(&self.revoked.get("/")).await {
            assert_ne!(answer.status, 200, "it was revoked: {answer:?}");
        }
        assert_eq!(fleet.statuses(&Request::get("/")).await, [401; 3], "nothing was presented");
    }

    /// The database is away: nothing can be written.
    async fn assert_nothing_is_written(&self, fleet: &Fleet) {
        for request in [obtain("alice"), log_out(&self.session)] {
            fleet.ask(&request).await.iter().for_each(assert_unavailable);
        }
        let answer = fleet.replicas[0].client.send(log_in("alice")).await;
        assert_unavailable(&answer);
        fleet.writer.revoke_token(self.known[0].id).await.unwrap_err();
    }

    /// Back to what there was, without anybody's help.
    async fn assert_all_is_well(&self, fleet: &Fleet) {
        let began = Instant::now();
        for token in &self.unknown {
            fleet.until(&token.get("/"), |answer| answer.status == 200).await;
        }
        fleet.until(&self.revoked.get("/"), |answer| answer.status == 401).await;
        for token in &self.known {
            assert_eq!(fleet.statuses(&token.get("/")).await, [200; 3]);
        }
        assert_eq!(fleet.statuses(&browse(&self.session)).await, [200; 3]);
        fleet.settled().await;
        assert!(began.elapsed() < RECOVERY, "it took {:?}", began.elapsed());
    }
}

/// Nobody knows: come again.
pub(crate) fn assert_unavailable(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.one("retry-after").is_some(), "{answer:?}");
    assert!(answer.one("set-cookie").is_none(), "{answer:?}");
}

/// Redis is away: a revocation is acknowledged when no replica believes in anything of before.
async fn assert_revocation_waits(fleet: &Fleet) {
    let token = fleet.warm("alice").await;
    let began = Instant::now();
    fleet.writer.revoke_token(token.id).await.unwrap();
    let waited = began.elapsed();
    assert!(waited >= BOUND.mul_f64(0.95), "acknowledged after {waited:?}, and nobody could be told");
    assert!(waited < BOUND * 3, "acknowledged after {waited:?}");
    assert_eq!(fleet.statuses(&token.get("/")).await, [401; 3]);
}

#[test]
fn redis_hangs_dies_and_comes_back_empty() {
    run(async {
        let mut fleet = Fleet::ordinary().await;
        let cast = Cast::of(&fleet).await;
        let hanging = async {
            fleet.redis().pause();
            sleep(BOUND).await;
            assert_revocation_waits(&fleet).await;
            // The database knows.
            assert_eq!(fleet.statuses(&fleet.token("alice").await.get("/")).await, [200; 3]);
            assert_eq!(fleet.statuses(&cast.revoked.get("/")).await, [401; 3]);
            fleet.redis().resume();
            fleet.settled().await;
        };
        cast.while_known_pass(&fleet, "Redis hangs", hanging).await;
        cast.assert_all_is_well(&fleet).await;

        fleet.redis.as_mut().unwrap().kill();
        let dead = async {
            sleep(BOUND / 2).await;
            assert_revocation_waits(&fleet).await;
            assert_eq!(fleet.statuses(&fleet.token("alice").await.get("/")).await, [200; 3]);
        };
        cast.while_known_pass(&fleet, "Redis is dead", dead).await;
        fleet.redis.as_mut().unwrap().restart();
        cast.while_known_pass(&fleet, "Redis is empty", fleet.settled()).await;
        cast.assert_all_is_well(&fleet).await;
    });
}

#[test]
fn the_database_dies_and_comes_back() {
    run(async {
        let mut fleet = Fleet::start(Sql::Postgres(Box::new(Postgres::start())), Some(Redis::start())).await;
        let cast = Cast::of(&fleet).await;
        let (tokens, sessions) = rows(&fleet);
        fleet.postgres_mut().kill();
        let dead = async {
            let over = sleep(Duration::from_secs(3));
            cast.assert_nobody_knows(&fleet).await;
            cast.assert_nothing_is_written(&fleet).await;
            over.await;
            cast.assert_nobody_knows(&fleet).await;
        };
        cast.while_known_pass(&fleet, "the database is dead", dead).await;
        fleet.postgres_mut().restart();
        cast.assert_all_is_well(&fleet).await;
        assert_eq!(rows(&fleet), (tokens, sessions), "nothing was half done");
    });
}

/// How many tokens there are for a password, and how many sessions.
fn rows(fleet: &Fleet) -> (String, String) {
    let count = |what: &str| fleet.postgres_database().psql(&format!("SELECT count(*) FROM {what}"));
    (count("token WHERE origin = 'obtain'"), count("session"))
}

#[test]
fn the_database_hangs_and_answers_late() {
    run(async {
        let fleet = Fleet::ordinary().await;
        let cast = Cast::of(&fleet).await;
        let hanging = async {
            fleet.cut_sql(Fault::BlackHole);
            sleep(Duration::from_secs(3)).await;
            cast.assert_nobody_knows(&fleet).await;
        };
        cast.while_known_pass(&fleet, "the database hangs", hanging).await;
        fleet.cut_sql(Fault::None);
        cast.assert_all_is_well(&fleet).await;
        // Slow is not away: whoever is not known is looked up.
        fleet.cut_sql(Fault::Delay(Duration::from_millis(100)));
        let slow = async {
            for _ in 0..3 {
                let token = fleet.token("alice").await;
                assert_eq!(fleet.statuses(&token.get("/")).await, [200; 3]);
            }
        };
        cast.while_known_pass(&fleet, "the database is slow", slow).await;
    });
}

/// Nobody can be asked, and nothing can be told.
#[test]
fn both_are_away() {
    run(async {
        let fleet = Fleet::ordinary().await;
        for fault in [Fault::Refuse, Fault::BlackHole] {
            let cast = Cast::of(&fleet).await;
            let away = async {
                fleet.cut_sql(fault);
                fleet.cut_redis(fault);
                let over = sleep(Duration::from_secs(3));
                cast.assert_nobody_knows(&fleet).await;
                over.await;
                cast.assert_nobody_knows(&fleet).await;
            };
            cast.while_known_pass(&fleet, "both are away", away).await;
            fleet.cut_redis(Fault::None);
            fleet.cut_sql(Fault::None);
            cast.assert_all_is_well(&fleet).await;
        }
        // What is revoked meanwhile is found when the database comes back; nobody repeats what Redis said.
        let token = fleet.warm("alice").await;
        fleet.cut_sql(Fault::Refuse);
        fleet.cut_redis(Fault::Refuse);
        sleep(BOUND * 2).await;
        fleet.writer.revoke_token(token.id).await.unwrap();
        fleet.cut_sql(Fault::None);
        let began = Instant::now();
        fleet.until(&token.get("/"), |answer| answer.status == 401).await;
        assert!(began.elapsed() < RECOVERY, "found after {:?}", began.elapsed());
        fleet.cut_redis(Fault::None);
        fleet.settled().await;
    });
}
