//! `doorward token import`.

use crate::{Home, TOKENS, many_tokens};
use serde_json::{Value, json};
use std::fs;

const KEY: &str = "9944b09199c62bcf9418ad846dd0e4bbdfc6ee4b";
/// SHA-256 of "abc" (FIPS 180-2, appendix B.1).
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

impl Home {
    /// The file of an operator who moves here. It holds tokens in clear, so it goes before files are searched.
    fn write_tokens(&self, text: &[u8]) {
        self.typed(&String::from_utf8_lossy(text));
        fs::write(self.path(TOKENS), text).unwrap();
    }
}

fn count(home: &Home) -> usize {
    home.list(&["token", "list"]).len()
}

#[test]
fn clear_tokens_and_digests_are_imported() {
    let home = Home::with_user("alice");
    home.add_user("bob");
    let text = format!("\u{feff}{KEY}\talice\r\n\nsha256:{ABC}\tbob\n");
    home.write_tokens(text.as_bytes());
    let checked = home.run(&["token", "import", "tokens", "--dry-run"]);
    assert_eq!(checked.code, 0, "{}", checked.errors);
    assert!(checked.output.contains("2 tokens for 2 users; nothing was imported"), "{}", checked.output);
    assert_eq!(count(&home), 0);
    let imported = home.run(&["token", "import", "tokens"]);
    assert_eq!((imported.code, imported.output.as_str()), (0, "Imported 2 tokens for 2 users\n"));
    assert_eq!(imported.errors, "", "no bar without a terminal");
    let listed = home.list(&["token", "list"]);
    let facts: Vec<_> = listed.iter().map(|t| [&t["user"], &t["origin"], &t["expires"]]).collect();
    let import = json!("import");
    let expected = [[&json!("alice"), &import, &Value::Null], [&json!("bob"), &import, &Value::Null]];
    assert_eq!(facts, expected, "in the order of the file, for ever");
    // The token of a digest is known by its digest.
    let revoked = home.run_with_input(&["token", "revoke", "--stdin"], &format!("abc\n{KEY}\n"));
    assert_eq!(revoked.code, 0, "{}", revoked.errors);

    let line = "0123456789abcdef0123456789abcdef\talice";
    let imported = home.run_with_input(&["token", "import", "-", "--ttl", "1h", "--json"], line);
    let said: Value = serde_json::from_str(&imported.output).unwrap();
    assert_eq!(said, json!({ "tokens": 1, "users": 1, "imported": true }));
    assert!(home.list(&["token", "list"])[0]["expires"].is_string());
}

#[test]
fn every_bad_line_is_named_and_nothing_is_imported() {
    let home = Home::with_user("alice");
    let taken = home.token();
    let good = "0123456789abcdef0123456789abcdef";
    let mut file = Vec::new();
    for (line, _) in lines(&taken, good) {
        file.extend_from_slice(&line);
        file.push(b'\n');
    }
    home.write_tokens(&file);
    let ran = home.run(&["token", "import", "tokens"]);
    assert_eq!((ran.code, ran.output.as_str()), (1, ""));
    let told: Vec<String> = (1..)
        .zip(lines(&taken, good))
        .filter_map(|(number, (_, fault))| Some(format!("line {number}: {}", fault?)))
        .collect();
    let end = format!("error: {} bad lines in tokens: nothing was imported", told.len());
    assert_eq!(ran.errors, format!("{}\n{end}\n", told.join("\n")));
    for secret in [&taken, good, KEY, "hunter2"] {
        assert!(!ran.errors.contains(secret), "{}", ran.errors);
    }
    assert_eq!(count(&home), 1);
}

/// Lines, and what is wrong with each.
fn lines(taken: &str, good: &str) -> Vec<(Vec<u8>, Option<&'static str>)> {
    let text = |text: String| text.into_bytes();
    vec![
        (text(format!("{good}\talice")), None),
        (text(format!("{good} alice")), Some("no tab between token and user")),
        (text("\talice".to_owned()), Some("no token before the tab")),
        (
            text("hunter2\talice".to_owned()),
            Some("the token is shorter than 32 characters: easy to guess, so it needs --allow-weak"),
        ),
        (text(format!("{KEY}\tbob")), Some("there is no user bob")),
        (text(format!("{KEY}\t")), Some("no user after the tab")),
        (text(format!("{KEY}x\t{KEY}")), Some("there is no such user")),
        (text(format!("{good}\talice")), Some("the same token as in line 1")),
        (text(format!("{taken}\talice")), Some("the token is in the store already")),
        (
            text(format!("sha256:{}\talice", &ABC.replace("ba", "b"))),
            Some("a digest is `sha256:` and 64 hex digits"),
        ),
        (
            text(format!("{KEY} {KEY}\talice")),
            Some("the token has blanks or control characters, so no client could present it"),
        ),
        (text(format!("{KEY}\talice\tlaptop")), Some("more than two columns")),
        ([KEY.as_bytes(), b"\xff\talice"].concat(), Some("not UTF-8")),
        (text(format!("{}\talice", "x".repeat(8200))), Some("longer than 8192 bytes")),
        (text(String::new()), None),
        (text(format!("{KEY}\talice")), None),
    ]
}

#[test]
fn weak_tokens_are_taken_if_told_so() {
    let home = Home::with_user("alice");
    let refused = home.run_with_input(&["token", "import", "-"], "short\talice\n");
    assert_eq!(refused.code, 1);
    let taken = home.run_with_input(&["token", "import", "-", "--allow-weak"], "short\talice\n");
    assert_eq!((taken.code, taken.output.as_str()), (0, "Imported 1 token for 1 user\n"));
    let swapped = home.run_with_input(&["token", "import", "-", "--allow-weak"], "alice\thunter2\n");
    assert_eq!(swapped.code, 1);
    assert!(!swapped.errors.contains("hunter2"), "{}", swapped.errors);
}

#[test]
fn every_bad_line_is_named_however_many_there_are() {
    let home = Home::with_user("alice");
    let ran = home.run_with_input(&["token", "import", "-"], &"bad\n".repeat(5_000));
    assert_eq!(ran.code, 1);
    for (line, number) in ran.errors.lines().zip(1..=5_000) {
        assert_eq!(line, format!("line {number}: no tab between token and user"));
    }
    assert!(ran.errors.ends_with("\nerror: 5000 bad lines in -: nothing was imported\n"));
    assert_eq!(ran.errors.lines().count(), 5_001);
}

#[test]
fn many_tokens_are_imported_with_a_bar() {
    const COUNT: usize = 20_000;
    let home = Home::with_user("alice");
    home.write_tokens(many_tokens(COUNT).as_bytes());
    let (code, shown) = home.at_terminal("token import tokens", "");
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("checking [") && shown.contains(" %"), "{shown}");
    assert!(shown.contains("writing  ["), "{shown}");
    assert!(shown.trim_end().ends_with("Imported 20000 tokens for 1 user"), "{shown}");
    assert_eq!(count(&home), COUNT);
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let home = Home::with_user("alice");
    for file in ["missing", "."] {
        let ran = home.run(&["token", "import", file]);
        assert_eq!((ran.code, ran.output.as_str()), (1, ""));
        assert!(ran.errors.starts_with(&format!("error: cannot read {file}: ")), "{}", ran.errors);
    }
    let nothing = home.run_with_input(&["token", "import", "-"], "");
    assert_eq!((nothing.code, nothing.output.as_str()), (0, "Imported 0 tokens for 0 users\n"));
}
