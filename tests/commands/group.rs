//! `doorward group`.

use crate::Home;
use serde_json::json;
use std::process::Stdio;

#[test]
fn groups_are_joined_left_and_listed() {
    let home = Home::with_user("alice");
    home.add_user("bob");
    let added = home.run(&["group", "add", "editors", "alice", "bob"]);
    assert_eq!(added.output, "Added alice to editors\nAdded bob to editors\n");
    assert_eq!(home.run(&["group", "add", "owners", "alice"]).code, 0);
    let again = home.run(&["group", "add", "editors", "bob"]);
    assert_eq!((again.code, again.output.as_str()), (0, "bob is in editors already\n"));
    let listed = home.run(&["group", "list"]);
    assert_eq!(listed.output, "GROUP    MEMBERS\neditors  alice, bob\nowners   alice\n");
    let listed = home.list(&["group", "list"]);
    assert_eq!(listed[0], json!({ "group": "editors", "members": ["alice", "bob"] }));

    let removed = home.run(&["group", "remove", "editors", "alice"]);
    assert_eq!((removed.code, removed.output.as_str()), (0, "Removed alice from editors\n"));
    let again = home.run(&["group", "remove", "editors", "alice"]);
    assert_eq!((again.code, again.output.as_str()), (0, "alice was not in editors\n"));
    assert_eq!(home.list(&["user", "list"])[0]["groups"], json!(["owners"]));
    let unknown = home.run(&["group", "remove", "editor", "bob"]);
    assert_eq!(unknown.code, 1);
    assert_eq!(unknown.errors, "error: there is no group editor; did you mean `editors`?\n");

    let nobody = home.run(&["group", "add", "ops", "alice", "x", "y"]);
    assert_eq!(nobody.errors, "error: there is no user x\nerror: there is no user y\n");
    assert_eq!(nobody.code, 1);
    assert_eq!(home.list(&["group", "list"]).len(), 2, "all are there or nothing is done");
}

#[test]
fn commands_at_the_same_time_undo_nothing_of_each_other() {
    let home = Home::with_user("alice");
    let groups: Vec<String> = (0..12).map(|number| format!("group-{number:02}")).collect();
    let commands = groups
        .iter()
        .map(|group| home.command(&["group", "add", group, "alice"]).stdout(Stdio::null()).spawn().unwrap());
    for mut command in commands.collect::<Vec<_>>() {
        assert!(command.wait().unwrap().success());
    }
    assert_eq!(home.list(&["user", "list"])[0]["groups"], json!(groups));
}
