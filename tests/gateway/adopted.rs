//! What goes wrong with an adopted database concerns whom it concerns, and nobody else.

use crate::harness::client::{Protocol, Request};
use crate::order::{execute, run};
use doorward::trace::AnsweredBy;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const ROUTES: &str = r#"
[routes.everything]
path = "/"
upstream = "legacy"
schemes = ["session", "token", "basic"]
"#;

/// Of the fixture: keys that nobody has asked for yet, one for each look.
const KEYS: [&str; 3] = [
    "a39990a3bb4dde2db07439908a3211415a63c790",
    "c968fcc4ea36cf2629c734696619121e1c297687",
    "0c973fb8b13a2f74b2ec809eed2d13d1d1a100c8",
];
fn token(key: &str) -> Request {
    Request::get("/x").field("Authorization", format!("Token {key}"))
}

#[test]
fn a_row_that_cannot_be_read_takes_the_store_from_nobody_else() {
    run(Protocol::Http2, ROUTES, async |site, client| {
        let mut django = site.django().await;
        execute(&mut django, "UPDATE auth_user SET is_staff = 'yes' WHERE username = 'bob'").await;
        for key in KEYS {
            // bob:x, each time by another name of the same.
            let word = if key == KEYS[0] { "Ym9iOng=" } else { "Ym9iOng==" };
            let request = Request::get("/x").field("Authorization", format!("Basic {word}"));
            assert_eq!(client.send(request).await.status, 503);
            assert_eq!(client.send(token(key)).await.status, 200, "at once, and never asked for before");
        }
    });
}

#[test]
fn what_django_writes_of_others_keeps_nobody_waiting_and_what_it_deletes_is_gone() {
    const LOAD: Duration = Duration::from_secs(4);
    const SHORTLY: Duration = Duration::from_secs(1);
    // That a key is none of doorward's own tokens is asked for by itself.
    const ROUTES: &str = r#"
[authentication.schemes.drf]
kind = "token"
families = ["authtoken"]

[routes.everything]
path = "/"
upstream = "legacy"
schemes = ["drf"]
"#;
    run(Protocol::Http1, ROUTES, async |site, client| {
        let mut django = site.django().await;
        let began = Instant::now();
        let mut sent = 0;
        while began.elapsed() < LOAD {
            // Which changes the database, and nobody's credentials.
            execute(&mut django, "UPDATE auth_user SET last_login = datetime('now') WHERE username = 'bob'")
                .await;
            for key in KEYS {
                assert_eq!(client.send(token(key)).await.status, 200);
                sent += 1;
            }
            sleep(Duration::from_millis(10)).await;
        }
        assert!(site.traces.becomes(|told| told.len() == sent).await);
        let by_store =
            site.traces.all().iter().filter(|told| told.trace.answered_by == AnsweredBy::Store).count();
        // Each key once; and what a store that was slow for a moment kept from being confirmed. One by one it would be
        // ten times each.
        assert!((KEYS.len()..=3 * KEYS.len()).contains(&by_store), "{by_store} of {sent}");

        execute(&mut django, "UPDATE auth_user SET email = 'new@example.com' WHERE username = 'alice'").await;
        execute(&mut django, "DELETE FROM authtoken_token WHERE key LIKE 'c968%'").await;
        sleep(SHORTLY).await;
        let answers = [client.send(token(KEYS[0])).await, client.send(token(KEYS[1])).await];
        assert_eq!(answers.map(|answer| answer.status), [200, 401]);
    });
}
