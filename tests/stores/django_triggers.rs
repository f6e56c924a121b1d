//! Triggers on Django's tables in PostgreSQL: what they tell, whom they do not trouble, and what is done while they
//! cannot be relied on.

use crate::django::settings;
use crate::django_postgres::Site;
use crate::services::postgres::Postgres;
use doorward::config::{GroupTable, UserTable};
use doorward::identity::{Digest, UserId};
use doorward::store::django::triggers::{Done, Triggers, TriggersError};
use doorward::store::django::{Django, DjangoSettings};
use doorward::store::sql::{ServerOptions, ServerUrl};
use doorward::store::sqlite::{Sqlite, SqliteOptions};
use doorward::store::{Change, ChangeFeed, Store as _};
use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Of the fixture: whose they are.
const KEY: &str = "a39990a3bb4dde2db07439908a3211415a63c790";
const SESSION: &str = "079e9202bbd9809ac7e43e7e6001eaa7";
/// Much longer than anything here takes.
const HANG: Duration = Duration::from_secs(30);
/// The first words of what whoever listens says.
const LISTENER: &str = "query LIKE 'LISTEN \"doorward_proof%'";
const TRUSTED: &str = "triggers on Django's tables";

fn triggers_at(url: &str, user: UserTable) -> Triggers {
    Triggers::new(&ServerUrl::parse(url).unwrap(), &ServerOptions::default(), user).unwrap()
}

fn triggers(site: &Site) -> Triggers {
    triggers_at(&site.database.url(), UserTable::default())
}

/// A server on which nobody else writes. The guard ends it with the process.
fn server() -> &'static Postgres {
    Box::leak(Box::new(Postgres::start()))
}

/// A site with triggers, and who listens to them.
async fn listening() -> (Site, Django, Box<dyn ChangeFeed>) {
    let site = Site::new();
    assert!(matches!(triggers(&site).install().await.unwrap(), Done::Installed(_)));
    let store = site.open().await;
    let mut feed = store.change_feed().await.unwrap();
    assert_eq!(told(&mut *feed).await, []);
    assert!(store.found_by().starts_with(TRUSTED), "{}", store.found_by());
    (site, store, feed)
}

async fn told(feed: &mut dyn ChangeFeed) -> Vec<Change> {
    let changes = feed.changes().await.unwrap();
    assert_eq!((changes.first, changes.last), (None, None));
    changes.changes
}

/// What was said until nothing is said any more.
async fn settled(feed: &mut dyn ChangeFeed) -> Vec<Change> {
    let mut all = Vec::new();
    for _ in 0..50 {
        let told = told(feed).await;
        if told.is_empty() {
            return all;
        }
        all.extend(told);
    }
    panic!("it says something again and again");
}

fn credential(key: &str) -> Change {
    Change::Credential(Digest::of(key.as_bytes()))
}

fn user(id: i64) -> Change {
    Change::User(UserId(id))
}

#[tokio::test]
async fn each_change_names_what_it_makes_void_and_nothing_else() {
    let (site, _store, mut feed) = listening().await;
    let (key, session, something) = (credential(KEY), credential(SESSION), Change::Something);
    let session_row = format!("WHERE session_key = '{SESSION}'");
    let key_row = format!("WHERE key = '{KEY}'");
    let cases: Vec<(String, Vec<Change>)> = vec![
        ("UPDATE auth_user SET password = 'x' WHERE id = 1".to_owned(), vec![user(1)]),
        ("UPDATE auth_user SET is_active = FALSE WHERE id = 1".to_owned(), vec![user(1)]),
        ("UPDATE auth_user SET is_staff = TRUE WHERE id = 1".to_owned(), vec![user(1)]),
        ("UPDATE auth_user SET email = 'x@example.com' WHERE id = 1".to_owned(), vec![user(1)]),
        ("UPDATE auth_user SET username = 'x' WHERE id = 1".to_owned(), vec![user(1)]),
        ("UPDATE auth_user SET id = 1001 WHERE id = 1".to_owned(), vec![user(1), user(1001)]),
        (
            "UPDATE auth_user SET is_active = NOT is_active WHERE id IN (2, 3)".to_owned(),
            vec![user(2), user(3)],
        ),
        ("DELETE FROM auth_user WHERE id = 1001".to_owned(), vec![user(1001)]),
        (
            "INSERT INTO auth_user SELECT 1002, 'p', NULL, FALSE, 'n', '', '', '', FALSE, TRUE, now()"
                .to_owned(),
            vec![user(1002)],
        ),
        // What says nothing of who may pass.
        ("UPDATE auth_user SET last_login = now(), first_name = 'x', is_superuser = TRUE".to_owned(), vec![]),
        ("UPDATE auth_user SET password = password, username = username".to_owned(), vec![]),
        ("INSERT INTO auth_group (id, name) VALUES (1, 'ops'), (2, 'lab')".to_owned(), vec![something]),
        ("INSERT INTO auth_user_groups (user_id, group_id) VALUES (2, 1)".to_owned(), vec![user(2)]),
        ("UPDATE auth_user_groups SET group_id = 2".to_owned(), vec![user(2)]),
        ("UPDATE auth_user_groups SET user_id = 3".to_owned(), vec![user(2), user(3)]),
        ("UPDATE auth_user_groups SET id = 1000".to_owned(), vec![]),
        ("DELETE FROM auth_user_groups".to_owned(), vec![user(3)]),
        ("UPDATE auth_group SET name = 'dev' WHERE id = 1".to_owned(), vec![something]),
        ("UPDATE auth_group SET name = name".to_owned(), vec![]),
        ("DELETE FROM auth_group WHERE id = 1".to_owned(), vec![something]),
        (format!("UPDATE authtoken_token SET user_id = 2 {key_row}"), vec![key]),
        (format!("UPDATE authtoken_token SET created = now() {key_row}"), vec![]),
        (format!("UPDATE authtoken_token SET key = 'été' {key_row}"), vec![key, credential("été")]),
        ("DELETE FROM authtoken_token WHERE key = 'été'".to_owned(), vec![credential("été")]),
        (format!("INSERT INTO authtoken_token VALUES ('{KEY}', now(), 1)"), vec![key]),
        (format!("UPDATE django_session SET session_data = 'x' {session_row}"), vec![session]),
        (
            format!("UPDATE django_session SET expire_date = now() + interval '1 day' {session_row}"),
            vec![session],
        ),
        (
            format!("UPDATE django_session SET session_key = 'new' {session_row}"),
            vec![session, credential("new")],
        ),
        ("DELETE FROM django_session WHERE session_key = 'new'".to_owned(), vec![credential("new")]),
        // Nobody knew its key; and nobody believes one that has expired.
        ("INSERT INTO django_session VALUES ('old', '', now() - interval '1 day')".to_owned(), vec![]),
        ("DELETE FROM django_session WHERE session_key = 'old'".to_owned(), vec![]),
        // Tables that are none of doorward's business, and what never came to be.
        (
            "UPDATE django_content_type SET model = 'x' WHERE id = 1; CREATE TABLE more (x int)".to_owned(),
            vec![],
        ),
        ("INSERT INTO more SELECT generate_series(1, 1000); DELETE FROM knox_authtoken".to_owned(), vec![]),
        ("BEGIN; DELETE FROM auth_user; DELETE FROM django_session; ROLLBACK".to_owned(), vec![]),
        (
            "BEGIN; SAVEPOINT a; DELETE FROM auth_user WHERE id = 4; ROLLBACK TO a; \
             UPDATE auth_user SET password = 'y' WHERE id = 5; COMMIT"
                .to_owned(),
            vec![user(5)],
        ),
        ("TRUNCATE django_session".to_owned(), vec![something]),
        ("TRUNCATE authtoken_token".to_owned(), vec![something]),
        ("TRUNCATE auth_user_groups".to_owned(), vec![something]),
        ("TRUNCATE auth_user CASCADE".to_owned(), vec![something]),
        ("TRUNCATE auth_group CASCADE".to_owned(), vec![something]),
    ];
    for (statement, expected) in cases {
        site.run(statement.as_str()).await;
        assert_eq!(told(&mut *feed).await, expected, "{statement}");
        assert_eq!(told(&mut *feed).await, [], "once: {statement}");
    }
}

/// Names that the database calls equal are not.
#[tokio::test]
async fn bytes_are_compared_and_not_what_a_collation_makes_of_them() {
    let site = Site::new();
    site.run(
        "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         ALTER TABLE auth_user ALTER email TYPE varchar(254) COLLATE nocase;
         UPDATE auth_user SET email = 'a@example.com' WHERE id = 1",
    )
    .await;
    triggers(&site).install().await.unwrap();
    let mut feed = site.open().await.change_feed().await.unwrap();
    assert_eq!(told(&mut *feed).await, []);
    site.run("UPDATE auth_user SET email = 'A@example.com' WHERE id = 1").await;
    assert_eq!(told(&mut *feed).await, [user(1)]);
}

#[tokio::test]
async fn a_transaction_that_changes_very_much_says_so() {
    let (site, _store, mut feed) = listening().await;
    site.run(
        "BEGIN; INSERT INTO authtoken_token SELECT 'k' || n, now(), 9000 + n FROM generate_series(1, 600) n;
         DELETE FROM authtoken_token WHERE key LIKE 'k%'; COMMIT",
    )
    .await;
    let told = told(&mut *feed).await;
    // The second half names what the first one did.
    assert_eq!(told.len(), 601, "{told:?}");
    assert_eq!(told.last(), Some(&Change::Something));
    // The next one names again.
    site.run("UPDATE auth_user SET is_active = FALSE WHERE id = 1").await;
    assert_eq!(settled(&mut *feed).await, [user(1)]);
}

/// However fast they write: whatever was committed before a reading was asked for is in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reading_has_heard_all_that_was_committed_before_it() {
    const WRITERS: i64 = 4;
    const WRITES: i64 = 60;
    let (site, _store, mut feed) = listening().await;
    site.run(
        "INSERT INTO auth_user SELECT n, '', NULL, FALSE, 'u' || n, '', '', '', FALSE, TRUE, now() \
         FROM generate_series(1000, 1999) n",
    )
    .await;
    settled(&mut *feed).await;
    let (sender, mut committed) = mpsc::unbounded_channel();
    for writer in 0..WRITERS {
        let (url, sender) = (site.database.url(), sender.clone());
        tokio::spawn(async move {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            for id in (0..WRITES).map(|write| 1000 + writer * WRITES + write) {
                let text = format!("UPDATE auth_user SET is_active = FALSE WHERE id = {id}");
                sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
                sender.send(id).unwrap();
            }
        });
    }
    drop(sender);
    let mut heard = HashSet::new();
    let mut count = 0;
    while let Some(id) = timeout(HANG, committed.recv()).await.unwrap() {
        if !heard.contains(&id) {
            for change in told(&mut *feed).await {
                let Change::User(UserId(id)) = change else { panic!("{change:?}") };
                heard.insert(id);
            }
        }
        assert!(heard.contains(&id), "{id} was committed, and the next reading did not tell it");
        count += 1;
    }
    assert_eq!(count, WRITERS * WRITES);
}

#[tokio::test]
async fn whoever_waits_is_woken_by_a_change_and_by_nothing_else() {
    let (site, _store, mut feed) = listening().await;
    for (statement, is_woken) in [
        ("UPDATE auth_user SET is_active = FALSE WHERE id = 1", true),
        ("UPDATE auth_user SET last_login = now() WHERE id = 1", false),
        ("DELETE FROM knox_authtoken", false),
    ] {
        let began = Instant::now();
        let long = if is_woken { HANG } else { Duration::from_millis(700) };
        let ((), ()) = tokio::join!(feed.wait(long), site.run(statement));
        assert_eq!(began.elapsed() < long, is_woken, "{statement}");
        assert_eq!(told(&mut *feed).await.is_empty(), !is_woken, "{statement}");
    }
}

/// No right to listen is needed but that to connect.
#[tokio::test]
async fn no_message_has_a_key_in_it() {
    let (site, _store, mut feed) = listening().await;
    let mut listener = PgListener::connect(&site.database.url()).await.unwrap();
    listener.listen("doorward_django").await.unwrap();
    let data = "secret-session-data";
    for statement in [
        format!("UPDATE authtoken_token SET user_id = 2 WHERE key = '{KEY}'"),
        format!("UPDATE django_session SET session_data = '{data}' WHERE session_key = '{SESSION}'"),
        "UPDATE auth_user SET password = 'secret-password', username = 'secret-name' WHERE id = 1".to_owned(),
        "DELETE FROM authtoken_token".to_owned(),
        "DELETE FROM django_session".to_owned(),
        "NOTIFY doorward_django, 'the end'".to_owned(),
    ] {
        site.run(statement).await;
    }
    let mut heard = Vec::new();
    while heard.last().is_none_or(|last| last != "the end") {
        heard.push(timeout(HANG, listener.recv()).await.unwrap().unwrap().payload().to_owned());
    }
    let digests = heard.iter().filter(|payload| payload.starts_with("credential ")).count();
    assert!(digests > 20, "{heard:?}");
    for payload in &heard {
        let is_digest = payload.strip_prefix("credential ").is_some_and(|digest| {
            digest.len() == 64
                && digest.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        });
        assert!(is_digest || payload == "user 1" || payload == "the end", "{payload}");
    }
    assert!(settled(&mut *feed).await.contains(&credential(KEY)));
}

#[tokio::test]
async fn what_anybody_else_says_is_one_more_look_at_most() {
    let (site, _store, mut feed) = listening().await;
    for (payload, expected) in [
        ("", vec![Change::Something]),
        ("user", vec![Change::Something]),
        ("user 7", vec![user(7)]),
        ("user 7; DROP TABLE auth_user", vec![Change::Something]),
        ("credential é", vec![Change::Something]),
        ("something", vec![Change::Something]),
    ] {
        site.run(format!("SELECT pg_notify('doorward_django', '{payload}')")).await;
        assert_eq!(settled(&mut *feed).await, expected, "{payload:?}");
    }
    // Other channels are not listened to.
    site.run("NOTIFY doorward_proof, 'x'; NOTIFY doorward_proof_, 'y'").await;
    assert_eq!(told(&mut *feed).await, []);
    // Whoever floods it fills nobody's memory.
    site.run("SELECT count(pg_notify('doorward_django', 'user ' || n)) FROM generate_series(1, 30000) n")
        .await;
    let heard = told(&mut *feed).await;
    assert_eq!(heard.len(), 10_001);
    assert_eq!(heard.last(), Some(&Change::Something));
    site.run("UPDATE auth_user SET is_active = FALSE WHERE id = 2").await;
    assert!(settled(&mut *feed).await.contains(&user(2)), "it is heard all the same");
}

/// Away for a moment or for long, and whatever was changed meanwhile: it is told that something was.
#[tokio::test]
async fn while_triggers_cannot_be_relied_on_any_write_is_told() {
    let (site, store, mut feed) = listening().await;
    // A write that they do not see.
    let write = |id: i64| format!("UPDATE auth_user SET password = 'unseen' WHERE id = {id}");
    for (without, again) in [
        (
            "ALTER TABLE auth_user DISABLE TRIGGER doorward_user_changed",
            "ALTER TABLE auth_user ENABLE ALWAYS TRIGGER doorward_user_changed",
        ),
        (
            "ALTER TABLE auth_user ENABLE TRIGGER doorward_user_changed",
            "ALTER TABLE auth_user ENABLE ALWAYS TRIGGER doorward_user_changed",
        ),
        ("DROP TRIGGER doorward_user_changed ON auth_user", ""),
        ("DROP FUNCTION doorward_tell_user CASCADE", ""),
        (
            "ALTER TABLE auth_user RENAME TO away; CREATE TABLE auth_user AS TABLE away",
            "DROP TABLE auth_user; ALTER TABLE away RENAME TO auth_user",
        ),
    ] {
        site.run(format!("BEGIN; {without}; {}; COMMIT", write(1))).await;
        assert!(told(&mut *feed).await.contains(&Change::Something), "{without}");
        assert!(!store.found_by().starts_with(TRUSTED), "{without}: {}", store.found_by());
        site.run(write(2)).await;
        assert!(told(&mut *feed).await.contains(&Change::Something), "{without}");
        if again.is_empty() {
            assert!(matches!(triggers(&site).install().await.unwrap(), Done::Installed(_)), "{without}");
        } else {
            site.run(again).await;
        }
        settled_by_triggers(&store, &mut *feed).await;
        site.run("UPDATE auth_user SET password = 'seen' || random() WHERE id = 3").await;
        assert_eq!(told(&mut *feed).await, [user(3)], "{without}");
    }
    // So fast that no reading comes in between.
    let script = triggers(&site).script().await.unwrap();
    for (without, again) in [
        (
            "ALTER TABLE auth_user DISABLE TRIGGER doorward_user_changed",
            "ALTER TABLE auth_user ENABLE ALWAYS TRIGGER doorward_user_changed; COMMIT",
        ),
        ("DROP FUNCTION doorward_tell_user CASCADE", &*script),
    ] {
        site.run(format!("BEGIN; {without}; {}; {again}", write(4))).await;
        assert_eq!(told(&mut *feed).await, [Change::Something], "{without}");
        assert_eq!(told(&mut *feed).await, [], "{without}");
    }
}

/// Waits until triggers are listened to again.
async fn settled_by_triggers(store: &Django, feed: &mut dyn ChangeFeed) {
    let wait = async {
        while !store.found_by().starts_with(TRUSTED) {
            told(feed).await;
        }
        settled(feed).await;
    };
    timeout(HANG, wait).await.unwrap();
}

#[tokio::test]
async fn whoever_lost_the_connection_knows_nothing_of_what_was_said_meanwhile() {
    let (site, store, mut feed) = listening().await;
    for is_waiting in [false, true] {
        let database = &site.database.name;
        let kill = format!(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {LISTENER} AND datname = '{database}'"
        );
        let killed = async { site.text(kill.as_str()).await };
        let killed = if is_waiting {
            let began = Instant::now();
            let ((), killed) = tokio::join!(feed.wait(HANG), killed);
            assert!(began.elapsed() < HANG / 2, "it is noticed at once");
            killed
        } else {
            killed.await
        };
        assert_eq!(killed.as_deref(), Some("t"));
        site.run("UPDATE auth_user SET password = 'x' || random() WHERE id = 1").await;
        assert!(told(&mut *feed).await.contains(&Change::Something));
        settled_by_triggers(&store, &mut *feed).await;
        site.run("UPDATE auth_user SET password = 'x' || random() WHERE id = 1").await;
        assert_eq!(told(&mut *feed).await, [user(1)]);
    }
}

/// To prove that all was heard takes a transaction. One for each look would wear out a server on which nothing happens.
#[tokio::test]
async fn as_long_as_nobody_writes_nothing_is_written() {
    let server = server();
    let site = Site::on(server.database());
    triggers(&site).install().await.unwrap();
    let mut feed = site.open().await.change_feed().await.unwrap();
    settled(&mut *feed).await;
    let number = || async { site.count("SELECT txid_snapshot_xmax(txid_current_snapshot())").await };
    let before = number().await;
    for _ in 0..100 {
        assert_eq!(told(&mut *feed).await, []);
    }
    let written = number().await - before;
    // The server itself may write now and then, as when it cleans up.
    assert!(written < 20, "{written} transactions");
    // Whoever was cut off heard nothing for a while, even if there was perhaps nothing to hear.
    let kill = format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {LISTENER}");
    assert_eq!(site.text(kill).await.as_deref(), Some("t"));
    feed.wait(HANG).await;
    assert!(settled(&mut *feed).await.contains(&Change::Something));
    site.run("UPDATE auth_user SET password = 'x' WHERE id = 1").await;
    assert_eq!(told(&mut *feed).await, [user(1)]);
}

#[tokio::test]
async fn triggers_are_made_once_and_taken_away() {
    let site = Site::new();
    let all = ["auth_user", "auth_user_groups", "auth_group", "authtoken_token", "django_session"];
    let all: Vec<String> = all.map(str::to_owned).to_vec();
    let triggers = triggers(&site);
    let count = async || site.count("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'doorward%'").await;
    let functions = async || site.count("SELECT count(*) FROM pg_proc WHERE proname LIKE 'doorward%'").await;
    assert_eq!(triggers.remove().await.unwrap(), Done::WereNotThere);
    assert_eq!(triggers.install().await.unwrap(), Done::Installed(all.clone()));
    let made = count().await;
    assert_eq!((made, functions().await), (19, 5));
    assert_eq!(triggers.install().await.unwrap(), Done::WereThere(all.clone()));
    // By hand, as often as wanted.
    let script = triggers.script().await.unwrap();
    site.database.psql(&script);
    site.database.psql(&script);
    assert_eq!(count().await, made);
    assert_eq!(triggers.install().await.unwrap(), Done::WereThere(all.clone()));
    assert_eq!(triggers.remove().await.unwrap(), Done::Removed);
    assert_eq!((count().await, functions().await), (0, 0));
    site.database.psql(&script);
    site.database.psql(&triggers.removal().await.unwrap());
    assert_eq!((count().await, functions().await), (0, 0));
    // A site that has no sessions in the database; and another way to name users' columns.
    site.run("DROP TABLE django_session").await;
    assert_eq!(triggers.install().await.unwrap(), Done::Installed(all[..4].to_vec()));
    let other = triggers_at(&site.database.url(), UserTable { email: None, ..UserTable::default() });
    assert!(matches!(other.install().await.unwrap(), Done::Installed(_)), "those are not the same");
    let none = triggers_at(&site.database.url(), UserTable { groups: None, ..UserTable::default() });
    assert!(
        matches!(none.install().await.unwrap(), Done::Installed(tables) if tables == ["auth_user", "authtoken_token"])
    );
    assert_eq!(triggers.remove().await.unwrap(), Done::Removed);
    assert_eq!((count().await, functions().await), (0, 0));
}

#[tokio::test]
async fn what_cannot_be_made_is_told_of_and_nothing_is_changed() {
    let site = Site::new();
    let missing = UserTable { table: "accounts_user".to_owned(), ..UserTable::default() };
    let refused = triggers_at(&site.database.url(), missing).install().await;
    assert!(matches!(refused, Err(TriggersError::NoTable(table)) if table == "accounts_user"));
    let column = UserTable { email: Some("mail".to_owned()), ..UserTable::default() };
    let refused = triggers_at(&site.database.url(), column).install().await;
    assert!(matches!(refused, Err(TriggersError::Store(_))), "{refused:?}");
    site.database.psql("CREATE VIEW people AS TABLE auth_user; ALTER VIEW people OWNER TO doorward");
    let view = UserTable { table: "people".to_owned(), ..UserTable::default() };
    let refused = triggers_at(&site.database.url(), view).install().await;
    assert!(matches!(refused, Err(TriggersError::NoTable(table)) if table == "people"));
    let held = PgConnection::connect(&site.database.url()).await;
    let mut held = held.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE django_session IN ROW EXCLUSIVE MODE").execute(&mut held).await.unwrap();
    let refused = triggers(&site).install().await;
    assert!(matches!(refused, Err(TriggersError::InUse)), "{refused:?}");
    drop(held);
    site.database.psql("ALTER TABLE django_session OWNER TO postgres");
    let refused = triggers(&site).install().await;
    let Err(TriggersError::NotAllowed { role, table, owner }) = refused else { panic!("{refused:?}") };
    assert_eq!([role, table, owner], ["doorward", "django_session", "postgres"]);
    assert_eq!(site.count("SELECT count(*) FROM pg_proc WHERE proname LIKE 'doorward%'").await, 0);
    assert_eq!(site.count("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'doorward%'").await, 0);
}

/// Tables are where the search path finds them, and the names of users' columns are the site's.
#[tokio::test]
async fn another_user_model_in_another_schema_tells_as_well() {
    let site = Site::new();
    site.database.psql(
        r#"CREATE SCHEMA "My ""Site"; ALTER SCHEMA "My ""Site" OWNER TO doorward;
           SET ROLE doorward; SET search_path = "My ""Site", public;
           CREATE TABLE "Person" (pk bigint PRIMARY KEY, login text, secret text, seen timestamptz);
           CREATE TABLE "Person_groups" (person_id bigint, group_id integer);
           INSERT INTO "Person" VALUES (5000000000, 'ann', 'x', NULL);"#,
    );
    let name = |name: &str| name.to_owned();
    let user = UserTable {
        table: name("Person"),
        id: name("pk"),
        username: name("login"),
        password: name("secret"),
        is_active: None,
        is_staff: None,
        email: None,
        last_login: Some(name("seen")),
        groups: Some(GroupTable { table: name("Person_groups"), user: name("person_id") }),
    };
    let url =
        format!("{}?options=-c%20search_path%3D%22My%5C%20%5C%22%5C%22Site%22%2Cpublic", site.database.url());
    triggers_at(&url, user.clone()).install().await.unwrap();
    let own = Box::pin(Sqlite::open(&site.directory.path().join("own.db"), SqliteOptions::default())).await;
    let options = ServerOptions { read_wait: HANG, ..ServerOptions::default() };
    let settings = DjangoSettings { user, ..settings() };
    let server = ServerUrl::parse(&url).unwrap();
    let store =
        Box::pin(Django::connect(&server, &options, own.unwrap(), settings, crate::django::NOW)).await;
    let mut feed = store.unwrap().change_feed().await.unwrap();
    assert_eq!(told(&mut *feed).await, []);
    let path = r#"SET search_path = "My ""Site", public;"#;
    for (statement, expected) in [
        (r#"UPDATE "Person" SET secret = 'y'"#, vec![user_5g()]),
        (r#"UPDATE "Person" SET seen = now()"#, vec![]),
        (r#"INSERT INTO "Person_groups" VALUES (5000000000, 1)"#, vec![user_5g()]),
        (r#"DELETE FROM "Person_groups""#, vec![user_5g()]),
        (r#"DELETE FROM "Person""#, vec![user_5g()]),
        // Of a table that is not the site's any more.
        ("UPDATE auth_user SET password = 'z'", vec![]),
    ] {
        site.run(format!("{path} {statement}")).await;
        assert_eq!(told(&mut *feed).await, expected, "{statement}");
    }
}

fn user_5g() -> Change {
    user(5_000_000_000)
}

/// A name for text that is none: what anybody says there could not even be read.
#[tokio::test]
async fn a_database_without_an_encoding_is_not_listened_to() {
    let server = Postgres::shared();
    server.psql(
        "postgres",
        "CREATE DATABASE bytes OWNER doorward ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    );
    let site = Site::on(server.known_database("bytes"));
    site.database.psql(&triggers(&site).script().await.unwrap());
    let store = site.open().await;
    let mut feed = store.change_feed().await.unwrap();
    site.run(r"SELECT pg_notify('doorward_django', E'user \xff')").await;
    assert_eq!(told(&mut *feed).await, [Change::Something]);
    assert!(!store.found_by().starts_with(TRUSTED));
}

/// As a pooler that switches connections between transactions: everything passes but what nobody asked for.
fn start_pooler(server: u16) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).unwrap();
            let (mut asks, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                // Whichever ends first ends the other.
                std::io::copy(&mut asks, &mut to).unwrap_or_default();
                to.shutdown(Shutdown::Both).unwrap_or_default();
            });
            std::thread::spawn(move || pass_answers(server, client));
        }
    });
    port
}

/// PostgreSQL's documentation, "Message Formats": a byte, and the length of what follows with its own four bytes.
fn pass_answers(mut server: TcpStream, mut client: TcpStream) {
    let mut head = [0; 5];
    while server.read_exact(&mut head).is_ok() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut rest = vec![0; usize::try_from(length).unwrap() - 4];
        server.read_exact(&mut rest).unwrap_or_default();
        let is_notification = head[0] == b'A';
        if !is_notification && client.write_all(&[&head[..], &rest].concat()).is_err() {
            break;
        }
    }
    client.shutdown(Shutdown::Both).unwrap_or_default();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_notifications_do_not_come_through_any_write_is_told() {
    let server = server();
    let site = Site::on(server.database());
    triggers(&site).install().await.unwrap();
    let own = Box::pin(Sqlite::open(&site.directory.path().join("own.db"), SqliteOptions::default())).await;
    let port = start_pooler(server.port());
    let url = site.database.url().replace(&format!(":{}/", server.port()), &format!(":{port}/"));
    let url = ServerUrl::parse(&format!("{url}?sslmode=disable")).unwrap();
    let options = ServerOptions { read_wait: Duration::from_secs(3), ..ServerOptions::default() };
    let store = Box::pin(Django::connect(&url, &options, own.unwrap(), settings(), crate::django::NOW)).await;
    let store = store.unwrap();
    let mut feed = store.change_feed().await.unwrap();
    assert!(!store.found_by().starts_with(TRUSTED), "{}", store.found_by());
    settled(&mut *feed).await;
    for id in 1..4 {
        site.run(format!("UPDATE auth_user SET password = 'x' WHERE id = {id}")).await;
        let began = Instant::now();
        assert_eq!(told(&mut *feed).await, [Change::Something]);
        assert!(
            began.elapsed() < options.read_wait - Duration::from_secs(1),
            "nobody waits for what does not come"
        );
    }
}
