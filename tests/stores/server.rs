//! What PostgreSQL and MySQL have in common: many clients write at once, foreign ones among them, and a server may hang
//! or go away.

use crate::suite::{Done as _, NOW, Opening, digest, reported, token, user};
use doorward::clock::UnixSeconds;
use doorward::identity::{CredentialId, UserId};
use doorward::secret::Secret;
use doorward::store::own::Own;
use doorward::store::session::{NewSession, SessionStore as _};
use doorward::store::sql::{ServerOptions, ServerUrl};
use doorward::store::{Change, NewUser, Store, StoreError, TokenStore as _, UserStore as _};
use std::any::Any;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Much longer than anything here takes; a test that reaches it has found a hang.
const HANG: Duration = Duration::from_mins(1);
/// How long a look-up waits.
const READ_WAIT: Duration = Duration::from_secs(2);

/// A database on a server, and a foreign client of it, who knows nothing of doorward.
pub(crate) trait Site: Send + Sync {
    fn url(&self) -> String;

    /// Runs SQL, with names in double quotes; yields what was printed.
    fn sql(&self, text: &str) -> String;

    /// Begins a transaction and runs this; it ends when what is returned is dropped.
    fn hold(&self, text: &'static str) -> Pin<Box<dyn Future<Output = Box<dyn Any + Send>> + Send + '_>>;
}

/// A server of a test's own.
pub(crate) trait Machine: Send {
    fn url(&self) -> String;
    fn pause(&self);
    fn resume(&self);
    fn kill(&mut self);
    fn restart(&mut self);
}

/// Makes a test of each claim about a database.
macro_rules! sites {
    ($site:ty: $($claim:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $claim() {
            $crate::server::$claim(&<$site>::new()).await;
        }
    )*};
}
pub(crate) use sites;

/// The same of claims about a server of its own.
macro_rules! machines {
    ($machine:ty: $($claim:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $claim() {
            $crate::server::$claim(<$machine>::start()).await;
        }
    )*};
}
pub(crate) use machines;

/// Opens the database of this URL as another process would.
pub(crate) fn open(url: String) -> Opening {
    Box::pin(async move { Box::new(connect(&url).await) as Box<dyn Store> })
}

pub(crate) async fn connect(url: &str) -> Own {
    let connected = async {
        loop {
            match try_connect(url).await {
                // Unoptimised, the handshake alone takes long where many connect at once.
                Err(StoreError::Unavailable(_)) => {}
                connected => return connected.unwrap(),
            }
        }
    };
    timeout(HANG, connected).await.unwrap()
}

pub(crate) async fn try_connect(url: &str) -> Result<Own, StoreError> {
    let url = ServerUrl::parse(url).unwrap();
    Own::connect(&url, &ServerOptions { read_wait: READ_WAIT, ..ServerOptions::default() }).await
}

pub(crate) async fn changes_of_many_writers_have_numbers_without_gaps(site: &impl Site) {
    const WRITERS: u64 = 20;
    const WRITES: u64 = 10;
    let store = connect(&site.url()).await;
    let alice = store.insert_user(user("alice")).await.done();
    let mut feed = store.change_feed().await.unwrap();
    let start = feed.changes().await.unwrap().last.unwrap().0;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let url = site.url();
            tokio::spawn(async move {
                let store = connect(&url).await;
                let mut told = Vec::new();
                for write in 0..WRITES {
                    let token = token(writer * 1000 + write, alice);
                    let written = loop {
                        match store.insert_token(token.clone()).await {
                            Ok(written) => break written,
                            // Its turn did not come in time; nothing was written.
                            Err(StoreError::NotWritten(_)) => {}
                            Err(error) => panic!("{error:?}"),
                        }
                    };
                    told.push((written.changes.first.unwrap().0, written.changes.changes));
                }
                told
            })
        })
        .collect();
    // Meanwhile the feed is read as fast as it can be.
    let (count, mut heard) = (usize::try_from(WRITERS * WRITES).unwrap(), Vec::new());
    let listen = async {
        let mut next = start + 1;
        while heard.len() < count {
            let changes = feed.changes().await.unwrap();
            if let Some(first) = changes.first {
                assert_eq!(first.0, next, "the feed has no gap");
                next = changes.last.unwrap().0 + 1;
            }
            heard.extend(changes.changes);
        }
    };
    timeout(HANG, listen).await.unwrap();
    let mut told = Vec::new();
    for writer in writers {
        told.extend(writer.await.unwrap());
    }
    told.sort_by_key(|(first, _)| *first);
    let numbers: Vec<u64> = told.iter().map(|(first, _)| *first).collect();
    assert_eq!(numbers, (start + 1..=start + WRITERS * WRITES).collect::<Vec<_>>());
    let told: Vec<Change> = told.into_iter().flat_map(|(_, changes)| changes).collect();
    assert_eq!(told, heard, "in the order of the commits");
}

pub(crate) async fn lock_of_another_client_stops_writes_only(site: &impl Site) {
    let store = connect(&site.url()).await;
    let alice = store.insert_user(user("alice")).await.done();
    store.insert_token(token(1, alice)).await.done();
    let mut feed = store.change_feed().await.unwrap();
    let held = site.hold("SELECT newest FROM change_counter FOR UPDATE").await;
    let write = tokio::spawn({
        let store = store.clone();
        async move { store.set_groups(alice, vec!["g".to_owned()]).await }
    });
    let reads = async {
        assert!(store.find_token(digest(1)).await.unwrap().is_some());
        assert_eq!(feed.changes().await.unwrap().changes, []);
        assert!(try_connect(&site.url()).await.is_ok(), "a start needs no lock");
        store.write_uses(vec![(CredentialId(1), NOW)]).await.unwrap();
        assert!(!write.is_finished(), "all that was answered while the write waited");
    };
    timeout(Duration::from_secs(2), reads).await.unwrap();
    let refused = timeout(Duration::from_secs(5), write).await.unwrap().unwrap();
    assert!(matches!(refused, Err(StoreError::NotWritten(_))), "{refused:?}");
    drop(held);
    assert_eq!(feed.changes().await.unwrap().changes, [], "nothing is half done");
    let again = timeout(HANG, store.set_groups(alice, vec!["g".to_owned()])).await.unwrap();
    assert!(again.done());
    assert_eq!(reported(&mut feed).await, [Change::User(alice)]);
}

pub(crate) async fn dropped_write_leaves_no_lock_behind(site: &impl Site) {
    let store = Arc::new(connect(&site.url()).await);
    let alice = store.insert_user(user("alice")).await.done();
    for microseconds in (0..8_000).step_by(400) {
        let write = store.set_groups(alice, vec![format!("group {microseconds}"), "g".to_owned()]);
        let done = timeout(Duration::from_micros(microseconds), write).await;
        let active = timeout(HANG, store.set_active(alice, true)).await.unwrap();
        assert!(active.done(), "after {microseconds} us");
        let groups = store.find_user("alice").await.unwrap().unwrap().user.groups;
        let written = groups.iter().any(|name| **name == *format!("group {microseconds}"));
        assert!(groups.is_empty() || groups.len() == 2, "all or nothing: {groups:?}");
        assert!(done.is_err() || written, "what was answered is there");
    }
}

pub(crate) async fn what_a_foreign_client_changes_is_told(site: &impl Site) {
    let store = connect(&site.url()).await;
    let groups = ["g", "h"].map(str::to_owned).to_vec();
    let alice = store.insert_user(NewUser { groups, ..user("alice") }).await.done();
    let bob = store.insert_user(NewUser { groups: vec!["g".to_owned()], ..user("bob") }).await.done();
    for (number, owner) in [(1, alice), (2, alice), (3, bob)] {
        store.insert_token(token(number, owner)).await.done();
    }
    log_in(&store, "of alice", alice).await;
    let session = Change::Credential(doorward::identity::Digest::of(b"of alice"));
    let mut feed = store.change_feed().await.unwrap();
    let user_is = Change::User;
    let token_is = |number| Change::Credential(digest(number));
    let told: [(&str, Vec<Change>); 14] = [
        (r#"UPDATE "user" SET is_active = FALSE WHERE username = 'alice'"#, vec![user_is(alice)]),
        (r#"UPDATE "user" SET email = 'x' WHERE username = 'alice'"#, vec![user_is(alice)]),
        (r#"UPDATE "user" SET email = 'x' WHERE username = 'alice'"#, vec![]),
        (r#"UPDATE "user" SET password = 'x'"#, vec![user_is(alice), user_is(bob)]),
        ("UPDATE token SET last_used_at = 7", vec![]),
        ("UPDATE token SET expires_at = 7 WHERE public_id IN (1, 3)", vec![token_is(1), token_is(3)]),
        ("UPDATE session SET expires_at = expires_at + 1", vec![session]),
        ("UPDATE user_group SET name = 'k' WHERE name = 'g'", vec![user_is(alice), user_is(bob)]),
        (
            "DELETE FROM membership WHERE user_id = (SELECT id FROM \"user\" WHERE username = 'bob')",
            vec![user_is(bob)],
        ),
        ("DELETE FROM user_group WHERE name = 'h'", vec![user_is(alice)]),
        ("DELETE FROM token WHERE public_id = 3", vec![token_is(3)]),
        ("DELETE FROM token WHERE public_id = 3", vec![]),
        (
            "INSERT INTO membership (user_id, group_id) SELECT u.id, g.id FROM \"user\" u CROSS JOIN user_group g \
             WHERE u.username = 'bob'",
            vec![user_is(bob)],
        ),
        (r#"DELETE FROM "user""#, vec![token_is(1), token_is(2), session, user_is(alice), user_is(bob)]),
    ];
    for (statement, mut expected) in told {
        site.sql(statement);
        let found = reported(&mut feed).await;
        // In the order of `reported`.
        expected.sort_by_key(|change| match change {
            Change::Credential(digest) => (0, digest.0.to_vec()),
            Change::User(user) => (1, user.0.to_be_bytes().to_vec()),
            Change::Everything | Change::Something => (2, vec![]),
        });
        assert_eq!(found, expected, "{statement}");
    }
}

async fn log_in(store: &Own, key: &str, user: UserId) {
    let session = NewSession {
        key: Secret::new(key),
        old: None,
        user,
        password_version: 0,
        csrf_secret: None,
        now: NOW,
        expires: UnixSeconds(NOW.0 + 1000),
    };
    assert!(store.insert_session(session).await.done());
}

pub(crate) async fn numbers_that_went_back_void_everything(site: &impl Site) {
    let store = connect(&site.url()).await;
    let alice = store.insert_user(user("alice")).await.done();
    for number in 1..=3 {
        store.insert_token(token(number, alice)).await.done();
    }
    let mut feed = store.change_feed().await.unwrap();
    site.sql("DELETE FROM \"change\" WHERE sequence > 2; UPDATE change_counter SET newest = 2");
    assert_eq!(reported(&mut feed).await, [Change::Everything], "an older copy was put back");
    site.sql("DELETE FROM \"change\"; UPDATE change_counter SET newest = 40");
    assert_eq!(reported(&mut feed).await, [Change::Everything], "rows are missing");
    store.insert_token(token(4, alice)).await.done();
    assert_eq!(reported(&mut feed).await, [Change::Credential(digest(4))], "and it goes on");
}

pub(crate) async fn newer_schema_is_refused_and_left_alone(site: &impl Site) {
    connect(&site.url()).await.close().await;
    site.sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
            VALUES (9999, 'of the future', TRUE, '0', 0)",
    );
    let refused = try_connect(&site.url()).await;
    assert!(matches!(refused, Err(StoreError::SchemaNewer)), "{refused:?}");
    site.sql("DELETE FROM _sqlx_migrations WHERE version = 9999");
    assert!(try_connect(&site.url()).await.is_ok());
}

pub(crate) async fn tables_of_another_program_are_refused(site: &impl Site) {
    site.sql("CREATE TABLE something (id INTEGER)");
    let refused = try_connect(&site.url()).await;
    assert!(matches!(refused, Err(StoreError::NotAdoptable(_))), "{refused:?}");
    // Also one that has a list of migrations of the same name.
    site.sql("CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY)");
    let refused = try_connect(&site.url()).await;
    assert!(matches!(refused, Err(StoreError::NotAdoptable(_))), "{refused:?}");
}

pub(crate) async fn many_processes_may_start_at_once(site: &impl Site) {
    let opens: Vec<_> = (0..8)
        .map(|_| {
            let url = site.url();
            tokio::spawn(async move { connect(&url).await })
        })
        .collect();
    for open in opens {
        let store = open.await.unwrap();
        assert!(store.find_user("alice").await.unwrap().is_none());
    }
    connect(&site.url()).await.insert_user(user("alice")).await.done();
}

pub(crate) async fn server_that_hangs_is_unavailable_and_comes_back(machine: impl Machine) {
    let store = Arc::new(connect(&machine.url()).await);
    let alice = store.insert_user(user("alice")).await.done();
    store.insert_token(token(1, alice)).await.done();
    let mut feed = store.change_feed().await.unwrap();
    // More than there are connections.
    let look_up = async || {
        let looks: Vec<_> = (0..20)
            .map(|_| {
                let store = Arc::clone(&store);
                tokio::spawn(async move { store.find_token(digest(1)).await })
            })
            .collect();
        let mut answers = Vec::new();
        for look in looks {
            answers.push(look.await.unwrap());
        }
        answers
    };
    assert!(look_up().await.into_iter().all(|answer| answer.is_ok()));
    machine.pause();
    for _ in 0..2 {
        let asked = Instant::now();
        let answers = look_up().await;
        assert!(
            answers.iter().all(|answer| matches!(answer, Err(StoreError::Unavailable(_)))),
            "{answers:?}"
        );
        assert!(asked.elapsed() < READ_WAIT * 2, "{:?}", asked.elapsed());
    }
    let asked = Instant::now();
    let written = store.insert_token(token(2, alice)).await;
    assert!(matches!(written, Err(StoreError::NotWritten(_) | StoreError::Unavailable(_))), "{written:?}");
    assert!(matches!(feed.changes().await, Err(StoreError::Unavailable(_))));
    assert!(asked.elapsed() < READ_WAIT * 6, "{:?}", asked.elapsed());
    machine.resume();
    let back = async {
        while look_up().await.iter().any(Result::is_err) {}
        while store.insert_token(token(3, alice)).await.is_err() {}
        while feed.changes().await.is_err() {}
    };
    timeout(HANG, back).await.unwrap();
    assert!(store.find_token(digest(3)).await.unwrap().is_some());
}

pub(crate) async fn server_that_is_killed_is_unavailable_and_comes_back(mut machine: impl Machine) {
    let store = connect(&machine.url()).await;
    let alice = store.insert_user(user("alice")).await.done();
    store.insert_token(token(1, alice)).await.done();
    let mut feed = store.change_feed().await.unwrap();
    feed.changes().await.unwrap();
    machine.kill();
    let answer = store.find_token(digest(1)).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert!(matches!(feed.changes().await, Err(StoreError::Unavailable(_))));
    let written = store.insert_token(token(2, alice)).await;
    assert!(matches!(written, Err(StoreError::Unavailable(_) | StoreError::NotWritten(_))), "{written:?}");
    machine.restart();
    assert!(store.find_token(digest(1)).await.unwrap().is_some(), "without being opened anew");
    assert!(store.find_token(digest(2)).await.unwrap().is_none());
    store.insert_token(token(3, alice)).await.done();
    assert_eq!(reported(&mut feed).await, [Change::Credential(digest(3))], "nothing was missed");
}

pub(crate) async fn server_that_starts_again_between_two_look_ups_is_not_noticed(mut machine: impl Machine) {
    let store = connect(&machine.url()).await;
    let alice = store.insert_user(user("alice")).await.done();
    store.insert_token(token(1, alice)).await.done();
    machine.restart();
    assert!(store.find_token(digest(1)).await.unwrap().is_some());
    // The writing connection is dead as well, and known to be none of use before anything is written.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    store.insert_token(token(2, alice)).await.done();
}

/// A server whose certificate only that authority vouches for; `verifies` is the parameter that has it verified.
pub(crate) async fn certificate_is_verified_where_the_url_says_so(
    url: &str,
    verifies: &str,
    authority: &Path,
) {
    let root = if verifies.starts_with("sslmode") { "sslrootcert" } else { "ssl-ca" };
    let named = format!("{url}?{verifies}&{root}={}", authority.display());
    connect(&named).await.insert_user(user("alice")).await.done();
    let refused = try_connect(&format!("{url}?{verifies}")).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "nobody vouches for it: {refused:?}");
    // As the system's anchors are given.
    let anchors = ServerUrl::parse(&format!("{url}?{verifies}")).unwrap();
    let options =
        ServerOptions { roots_pem: Some(std::fs::read(authority).unwrap()), ..ServerOptions::default() };
    let store = Own::connect(&anchors, &options).await.unwrap();
    assert!(store.find_user("alice").await.unwrap().is_some());
}
