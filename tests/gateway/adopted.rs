//! What goes wrong with an adopted database concerns whom it concerns, and nobody else.

use crate::harness::client::{Protocol, Request};
use crate::order::{execute, run};

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
