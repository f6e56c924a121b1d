//! `doorward status`: how the gateway that runs with this file stands.

use crate::Home;
use rustix::process::Signal;
use serde_json::Value;
use std::fs;

/// The rows of a table, by its first column.
fn row<'a>(output: &'a str, name: &str) -> Vec<&'a str> {
    let line = output.lines().find(|line| line.split_whitespace().next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name}: {output}")).split_whitespace().collect()
}

#[test]
fn it_shows_routes_servers_and_tables_of_the_gateway_that_runs() {
    let home = Home::with_user("alice");
    let token = home.token();
    let serving = home.serve();
    for (token, status) in [(Some(token.as_str()), 200), (Some(token.as_str()), 200), (None, 401)] {
        assert_eq!(home.curl(token).0, status);
    }
    let shown = home.run(&["status"]);
    assert_eq!((shown.code, shown.errors.as_str()), (0, ""));
    let text = &shown.output;
    assert!(text.starts_with(&format!("doorward {}, process ", env!("CARGO_PKG_VERSION"))), "{text}");
    assert!(text.lines().next().unwrap().ends_with(": ready"), "{text}");
    assert!(!text.contains("degraded"), "{text}");
    assert_eq!(row(text, "HTTPS")[1], home.address.to_string());
    assert!(row(text, "certificate").join(" ").contains("days left"), "{text}");
    assert_eq!(row(text, "everything"), ["everything", "2", "1", "0", "0"]);
    let server = row(text, "legacy");
    assert!(server[1].starts_with("http://127.0.0.1:") && server[2] == "0", "{text}");
    assert_eq!(row(text, "known")[1], "1");
    assert!(!text.contains(&token) && !text.contains("alice"), "{text}");

    let json = home.run(&["status", "--json"]);
    assert_eq!((json.code, json.errors.as_str()), (0, ""));
    let status: Value = serde_json::from_str(&json.output).unwrap();
    assert_eq!(status["status"], "ready");
    let route = &status["serving"]["routes"][0];
    assert_eq!(
        (&route["name"], &route["passed"], &route["refused"]),
        (&"everything".into(), &2.into(), &1.into())
    );
    assert_eq!(status["serving"]["tables"].as_array().unwrap().len(), 4);

    // From elsewhere, without a file.
    let socket = home.path("doorward.sock");
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = home.command(&["status", "--json", "--socket"]);
    let other = crate::Ran::of(command.arg(&socket).current_dir(elsewhere.path()).output().unwrap());
    let other: Value = serde_json::from_str(&other.output).unwrap();
    assert_eq!(other["pid"], status["pid"]);
    assert_eq!(serving.stop(Signal::TERM).0, Some(0));
    assert!(!socket.exists());
}

#[test]
fn who_is_not_there_is_told_of_and_a_file_with_faults_is_no_dead_end() {
    let home = Home::new();
    let refused = |arguments: &[&str], wanted: &[&str]| {
        let ran = home.run(arguments);
        assert_eq!((ran.code, ran.output.as_str()), (1, ""), "{}", ran.errors);
        for word in wanted {
            assert!(ran.errors.contains(word), "{word}: {}", ran.errors);
        }
    };
    let nobody = ["no gateway answers on", "doorward.sock", "is `doorward serve` running?"];
    refused(&["status"], &nobody);
    refused(&["status", "--socket", "nowhere.sock"], &["no gateway answers on nowhere.sock"]);
    fs::write(home.path("notes.txt"), "mine").unwrap();
    refused(&["status", "--socket", "notes.txt"], &["no gateway answers on notes.txt"]);

    let serving = home.serve();
    assert_eq!(home.run(&["status"]).code, 0);
    home.configure("\n[nonsense]\n");
    assert_eq!(home.run(&["status"]).code, 0, "the usual socket is beside the file");
    assert_eq!(home.run(&["status", "--socket", "doorward.sock"]).code, 0);
    // One that ended without a word leaves its file, which is no gateway.
    assert_ne!(serving.stop(Signal::KILL).0, Some(0));
    assert!(home.path("doorward.sock").exists());
    refused(&["status", "--socket", "doorward.sock"], &["no gateway answers on doorward.sock"]);
    fs::remove_file(home.path("doorward.sock")).unwrap();
    refused(&["status"], &["nonsense", "--socket doorward.sock"]);
}

#[test]
fn a_file_that_wants_no_socket_says_so() {
    let home = Home::new();
    let file = fs::read_to_string(home.path("doorward.toml")).unwrap();
    fs::write(
        home.path("doorward.toml"),
        file.replacen("[listen]\n", "[listen]\nadmin_socket = \"off\"\n", 1),
    )
    .unwrap();
    let ran = home.run(&["status"]);
    assert_eq!((ran.code, ran.errors.as_str()), (1, "error: admin_socket is \"off\" in doorward.toml\n"));
}
