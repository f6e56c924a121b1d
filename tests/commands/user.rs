//! `doorward user`.

use crate::{Home, PASSWORD};
use serde_json::json;

#[test]
fn users_are_listed_changed_and_deleted() {
    let home = Home::with_user("bob");
    let arguments = ["user", "add", "alice", "--email", "a@example.com", "--staff", "--group", "ops"];
    assert_eq!(home.run_with_input(&arguments, PASSWORD).code, 0);
    home.token();
    let listed = home.run(&["user", "list"]);
    let lines: Vec<Vec<&str>> = listed.output.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "ACTIVE", "STAFF", "GROUPS", "E-MAIL", "CREATED", "TOKENS"]);
    assert_eq!(lines[1][..5], ["alice", "yes", "yes", "ops", "a@example.com"]);
    assert_eq!((lines[1][6], lines[2][0], lines[2][4], lines.len()), ("1", "bob", "0", 3));
    let column = |line: &str| listed.output.lines().find(|l| l.contains(line)).unwrap().find("yes");
    assert_eq!(column("alice"), column("bob"), "columns are aligned:\n{}", listed.output);

    let edit = ["user", "edit", "alice", "--staff", "false", "--email", "b@example.com"];
    assert_eq!(home.run(&edit).output, "Changed user alice\n");
    assert_eq!(home.run(&["user", "disable", "alice"]).output, "Disabled user alice\n");
    let mut listed = home.list(&["user", "list"]);
    let created = listed[0]["created"].take();
    let created = created.as_str().unwrap();
    assert!(created.len() == 20 && created.starts_with("20") && created.ends_with('Z'), "{created}");
    let expected = json!({
        "username": "alice", "active": false, "staff": false, "groups": ["ops"], "email": "b@example.com",
        "created": null, "tokens": 1,
    });
    assert_eq!(listed[0], expected);
    assert_eq!(home.run(&["user", "edit", "alice", "--staff", "true"]).code, 0);
    assert_eq!(home.run(&["user", "enable", "alice"]).output, "Enabled user alice\n");
    let alice = &home.list(&["user", "list"])[0];
    assert_eq!((&alice["active"], &alice["staff"]), (&json!(true), &json!(true)));
    assert_eq!(alice["email"], "b@example.com", "what is not named stays");

    let deleted = home.run(&["user", "delete", "alice", "--yes"]);
    assert_eq!((deleted.code, deleted.output.as_str()), (0, "Deleted user alice with 1 token\n"));
    assert_eq!(home.list(&["user", "list"]).len(), 1);
    assert_eq!(home.list(&["token", "list"]), [json!(null); 0]);
}

#[test]
fn unknown_users_are_told_with_who_may_be_meant() {
    let home = Home::with_user("alice");
    for arguments in [
        &["user", "passwd", "alcie"][..],
        &["user", "disable", "alcie"],
        &["user", "enable", "alcie"],
        &["user", "edit", "alcie", "--staff", "true"],
        &["user", "delete", "alcie", "--yes"],
        &["group", "add", "ops", "alcie"],
        &["group", "remove", "ops", "alcie"],
        &["token", "list", "--user", "alcie"],
        &["token", "revoke", "--user", "alcie", "--all"],
    ] {
        let ran = home.run(arguments);
        let told = "error: there is no user alcie; did you mean `alice`?\n";
        assert_eq!((ran.code, ran.output.as_str(), ran.errors.as_str()), (1, "", told), "{arguments:?}");
    }
    let far = home.run(&["user", "disable", "zoe"]);
    assert_eq!((far.code, far.errors.as_str()), (1, "error: there is no user zoe\n"));
}

#[test]
fn what_is_not_acceptable_of_a_user_is_refused() {
    let home = Home::with_user("alice");
    for (arguments, told) in [
        (&["user", "add", "bob", "--email", "a\u{1b}[2J"][..], "an e-mail address has"),
        (&["user", "add", "bob", "--group", ""], "a group's name has"),
        (&["user", "add", "b\nb"], "a username has"),
        (&["user", "edit", "alice", "--email", "a\r"], "an e-mail address has"),
        (&["group", "add", " ", "alice"], "a group's name has"),
    ] {
        let ran = home.run_with_input(arguments, PASSWORD);
        assert_eq!((ran.code, ran.output.as_str()), (1, ""), "{arguments:?}");
        assert!(ran.errors.contains(told), "{}", ran.errors);
    }
    let nothing = home.run(&["user", "edit", "alice"]);
    assert_eq!((nothing.code, nothing.output.as_str()), (2, ""));
    assert_eq!(home.list(&["user", "list"]).len(), 1);
}

#[test]
fn a_user_is_deleted_only_if_it_is_meant() {
    let home = Home::with_user("alice");
    home.token();
    let refused = home.run_with_input(&["user", "delete", "alice"], "alice\n");
    assert_eq!((refused.code, refused.output.as_str()), (1, ""), "no terminal");
    assert!(refused.errors.contains("with 1 token was not deleted"), "{}", refused.errors);
    assert!(refused.errors.contains("--yes"), "{}", refused.errors);

    let (code, shown) = home.at_terminal("user delete alice", "alcie\n");
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains("This deletes user alice with 1 token. Type the name"), "{shown}");
    assert_eq!(home.list(&["user", "list"]).len(), 1);

    let (code, shown) = home.at_terminal("user delete alice", "alice\n");
    assert_eq!(code, 0, "{shown}");
    assert_eq!(home.list(&["user", "list"]).len(), 0);
}

#[test]
fn a_prompt_asks_twice_and_shows_nothing() {
    let home = Home::with_user("alice");
    let (code, shown) = home.at_terminal("user passwd alice", "hunter2\nhunter3\n");
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains("the two passwords differ"), "{shown}");
    let (code, shown) = home.at_terminal("user passwd alice", "hunter2\nhunter2\n");
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("Password for alice: ") && shown.contains("The same again: "), "{shown}");
}
