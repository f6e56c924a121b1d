//! Without Redis the database tells: PostgreSQL rings a bell, `MariaDB` is looked at again and again.

use crate::fleet::{BOUND, Fleet, SOON, Sql, browse, run};
use doorward::secret::Secret;

async fn assert_within_the_bound(sql: Sql) {
    let fleet = Fleet::start(sql, None).await;
    fleet.user("bob", &[]).await;
    let bystander = fleet.warm("alice").await;
    let mut times = Vec::new();
    for _ in 0..7 {
        let token = fleet.warm("alice").await;
        fleet.writer.revoke_token(token.id).await.unwrap();
        times.push(fleet.until_refused(&token.get("/")).await);
        assert_eq!(fleet.statuses(&token.get("/")).await, [401; 3]);
    }
    times.sort();
    assert!(times[3] < SOON && times[6] < BOUND, "refused by all after {times:?}");
    let (token, session) = (fleet.warm("bob").await, fleet.session("bob").await);
    fleet.writer.set_password("bob", Secret::new("another password")).await.unwrap();
    let time = fleet.until_refused(&browse(&session)).await;
    assert!(time < BOUND, "another password: refused by all after {time:?}");
    assert_eq!(fleet.statuses(&token.get("/")).await, [200; 3], "a token outlives a password");
    fleet.writer.set_active("bob", false).await.unwrap();
    let time = fleet.until_refused(&token.get("/")).await;
    assert!(time < BOUND, "deactivated: refused by all after {time:?}");
    // Once refused is refused for ever.
    assert_eq!(fleet.statuses(&token.get("/")).await, [401; 3]);
    assert_eq!(fleet.statuses(&bystander.get("/")).await, [200; 3]);
}

#[test]
fn postgresql_tells_of_a_revocation() {
    run(assert_within_the_bound(Sql::SharedPostgres));
}

#[test]
fn mariadb_is_asked_for_revocations() {
    run(assert_within_the_bound(Sql::MariaDb));
}
