//! `doorward token`, but for `import`.

use crate::{Home, many_tokens, pause};
use serde_json::{Value, json};
use std::time::Duration;

/// Ids of all tokens.
fn ids(home: &Home) -> Vec<String> {
    let listed = home.list(&["token", "list"]);
    listed.iter().map(|token| token["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_token_is_made_as_it_is_wanted() {
    let home = Home::with_user("alice");
    let key = home.token();
    let made = home.run(&["token", "create", "alice", "--name", "laptop", "--ttl", "never", "--json"]);
    let made: Value = serde_json::from_str(&made.output).unwrap();
    let listed = home.list(&["token", "list"]);
    assert_eq!(listed.len(), 2, "others stay");
    assert_eq!(made["id"], listed[1]["id"]);
    assert_eq!((&made["user"], &made["expires"]), (&json!("alice"), &Value::Null));
    assert_eq!(made["token"].as_str().unwrap().len(), 40);
    let mut laptop = listed[1].clone();
    assert!(laptop["created"].take().is_string() && laptop["id"].take().is_string());
    let expected = json!({
        "id": null, "user": "alice", "name": "laptop", "origin": "command", "created": null, "expires": null,
        "expired": false, "last_used": null,
    });
    assert_eq!(laptop, expected);
    assert!(listed[0]["expires"].is_string(), "the configuration's 30 days");

    let table = home.run(&["token", "list", "--user", "alice"]).output;
    let heading: Vec<&str> = table.lines().next().unwrap().split("  ").filter(|h| !h.is_empty()).collect();
    assert_eq!(
        heading.iter().map(|h| h.trim()).collect::<Vec<_>>(),
        ["ID", "USER", "NAME", "ORIGIN", "CREATED", "EXPIRES", "LAST USED"]
    );
    assert!(table.contains("laptop  command"), "{table}");
    assert!(!table.contains(&key) && !table.contains(made["token"].as_str().unwrap()), "{table}");

    let bad = home.run(&["token", "create", "alice", "--ttl", "1y"]);
    assert_eq!(bad.code, 2);
    assert!(bad.errors.contains("or never"), "{}", bad.errors);
}

#[test]
fn an_unknown_user_gets_the_message_of_django_rest_framework() {
    let home = Home::with_user("alice");
    for flag in ["--json", "-r"] {
        let unknown = home.run(&["token", "create", "alcie", flag]);
        assert_eq!((unknown.code, unknown.output.as_str()), (1, ""));
        let told = "error: Cannot create the Token: user alcie does not exist\nhint: did you mean `alice`?\n";
        assert_eq!(unknown.errors, told);
    }
}

#[test]
fn replacing_revokes_all_others_of_the_user_and_nobody_elses() {
    let home = Home::with_user("alice");
    home.add_user("bob");
    home.token();
    home.token();
    home.run(&["token", "create", "bob"]);
    for flag in ["-r", "--replace"] {
        let made = home.run(&["token", "create", "alice", flag]);
        assert!(made.output.starts_with("Generated token ") && made.output.ends_with(" for user alice\n"));
        let users: Vec<_> = home.list(&["token", "list"]).iter().map(|t| t["user"].clone()).collect();
        assert_eq!(users, ["bob", "alice"]);
    }
}

#[test]
fn an_expired_token_is_marked() {
    let home = Home::with_user("alice");
    assert_eq!(home.run(&["token", "create", "alice", "--ttl", "1s"]).code, 0);
    assert_eq!(home.run(&["token", "create", "alice", "--ttl", "1h"]).code, 0);
    pause(Duration::from_secs(2));
    let listed = home.list(&["token", "list"]);
    assert_eq!((&listed[0]["expired"], &listed[1]["expired"]), (&json!(true), &json!(false)));
    let table = home.run(&["token", "list"]).output;
    assert_eq!(table.matches("Z (expired)  never").count(), 1, "{table}");
}

#[test]
fn a_token_that_nobody_sees_is_not_left_behind() {
    let home = Home::with_user("alice");
    let lines = [
        "doorward token create alice >&-",
        "doorward token create alice >/dev/null",
        "doorward token create alice >/dev/full",
        "doorward token create alice 1</dev/zero",
        "doorward token create alice --json >/dev/full",
        // The reader has gone.
        "(sleep 0.3; doorward token create alice; echo $? >&2) | true; exit ${PIPESTATUS[0]}",
    ];
    for line in lines {
        let ran = home.shell(line);
        assert!(!ran.output.contains("Generated"), "{line}");
        let is_piped = line.ends_with("PIPESTATUS[0]}");
        assert!(if is_piped { ran.errors.ends_with("1\n") } else { ran.code == 1 }, "{line}: {}", ran.errors);
        assert!(ran.errors.contains("error: "), "{line}: {}", ran.errors);
        assert_eq!(ids(&home), [""; 0], "{line}");
    }
    let key = home.token();
    let replaced = home.shell("doorward token create alice -r >/dev/full");
    assert!(replaced.errors.contains("1 token that it replaced stay"), "{}", replaced.errors);
    assert!(!replaced.errors.contains(&key));
    let kept = home.token();
    assert_eq!(home.shell("doorward token create alice -r >&-").code, 1);
    assert_eq!(ids(&home).len(), 1, "known beforehand, so nothing was revoked: {}", kept.len());
}

#[test]
fn lists_are_pages_without_end() {
    let home = Home::with_user("alice");
    assert_eq!(home.run_with_input(&["token", "import", "-"], &many_tokens(2_500)).code, 0);
    let listed = ids(&home);
    assert_eq!(listed.len(), 2_500);
    let table = home.run(&["token", "list", "--user", "alice"]).output;
    assert_eq!(table.lines().count(), 2_501, "one heading");
    let cells: Vec<&str> = table.lines().skip(1).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(cells, listed);
    // Whoever has seen enough is no error to complain of.
    let head = home.shell("doorward token list | head -1");
    assert_eq!((head.output.lines().count(), head.errors.as_str()), (1, ""));
    assert_eq!(home.shell("doorward token list >/dev/full").code, 1);
}

#[test]
fn tokens_are_revoked_by_id_by_themselves_and_by_user() {
    let home = Home::with_user("alice");
    home.add_user("bob");
    let keys = [home.token(), home.token(), home.token(), home.token()];
    home.run(&["token", "create", "bob"]);
    let all = ids(&home);
    let unknown = "0123456789abcdef";
    let ran = home.run(&["token", "revoke", &all[0], unknown, &all[1].to_uppercase()]);
    assert_eq!(ran.code, 1);
    assert_eq!(ran.output, format!("Revoked token {}\nRevoked token {}\n", all[0], all[1]));
    assert_eq!(ran.errors, format!("error: there is no token {unknown}\nerror: 1 token not revoked\n"));
    assert_eq!(ids(&home), all[2..]);

    let input = format!("{}\r\n\nnonsense\n{}", keys[2], keys[0]);
    let ran = home.run_with_input(&["token", "revoke", "--stdin"], &input);
    assert_eq!((ran.code, ran.output), (1, format!("Revoked token {}\n", all[2])));
    let told = "error: line 3: there is no such token\nerror: line 4: there is no such token\n";
    assert_eq!(ran.errors, format!("{told}error: 2 tokens not revoked\n"));
    assert_eq!(ids(&home), all[3..]);

    let ran = home.run(&["token", "revoke", "--user", "alice"]);
    assert_eq!(ran.code, 2, "all are meant, or not");
    let ran = home.run(&["token", "revoke", "--user", "alice", "--all"]);
    assert_eq!((ran.code, ran.output.as_str()), (0, "Revoked 1 token of user alice\n"));
    assert_eq!(ids(&home), all[4..]);
}

#[test]
fn a_pasted_token_is_refused_and_not_repeated() {
    let home = Home::with_user("alice");
    let (key, id) = (home.token(), ids(&home).remove(0));
    for arguments in [
        &["token", "revoke", &key][..],
        &["token", "revoke", &id, &key],
        &["token", "revoke", "--stdin", &key],
        &["token", &key],
        &["token", "create", "alice", &key],
        &["token", "list", &key],
        &["user", "disable", "alice", &key],
        &[&key],
    ] {
        let ran = home.run(arguments);
        assert!(ran.code == 1 || ran.code == 2, "{arguments:?}");
        assert!(!ran.output.contains(&key) && !ran.errors.contains(&key), "{}", ran.errors);
        if arguments.get(1) == Some(&"revoke") && arguments.get(2) != Some(&"--stdin") {
            assert!(ran.errors.contains("token revoke --stdin"), "{}", ran.errors);
        }
    }
    assert_eq!(ids(&home), [id], "nothing was revoked before all arguments were read");
}
