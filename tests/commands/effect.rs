//! Commands while the gateway serves: what they did counts within a second.

use crate::{Home, PASSWORD, many_tokens, pause};
use rustix::process::Signal;
use std::time::Duration;

/// The promise (`[cache] revocation_bound`).
const BOUND: Duration = Duration::from_secs(1);
const ROUTES: &str = "
[routes.editing]
path = \"/edit/\"
upstream = \"legacy\"
permission = { groups = [\"editors\"] }

[routes.staff]
path = \"/staff/\"
upstream = \"legacy\"
permission = \"staff\"

[routes.obtain]
path = \"/api-token-auth/\"
handler = \"obtain-token\"
";

impl Home {
    /// Runs a command that must succeed, and waits until it must have taken effect.
    fn effect(&self, arguments: &[&str], input: &str) -> String {
        let ran = self.run_with_input(arguments, input);
        assert_eq!((ran.code, ran.errors.as_str()), (0, ""), "{arguments:?}");
        pause(BOUND);
        ran.output
    }

    fn status(&self, path: &str, token: &str) -> u16 {
        self.curl_path(path, Some(token), &[]).0
    }

    fn login(&self, password: &str) -> u16 {
        let body = format!("{{\"username\":\"alice\",\"password\":\"{password}\"}}");
        let more = ["--header", "Content-Type: application/json", "--data", &body];
        self.curl_path("/api-token-auth/", None, &more).0
    }
}

#[test]
fn what_a_command_does_to_a_user_counts_within_a_second() {
    let home = Home::with_user("alice");
    home.configure(ROUTES);
    let token = home.token();
    let serving = home.serve();
    assert_eq!(home.status("/", &token), 200);
    home.effect(&["user", "disable", "alice"], "");
    assert_eq!(home.status("/", &token), 401);
    home.effect(&["user", "enable", "alice"], "");
    assert_eq!(home.status("/", &token), 200);

    assert_eq!(home.status("/edit/", &token), 403);
    home.effect(&["group", "add", "editors", "alice"], "");
    assert_eq!(home.status("/edit/", &token), 200);
    home.effect(&["group", "remove", "editors", "alice"], "");
    assert_eq!(home.status("/edit/", &token), 403);

    assert_eq!(home.status("/staff/", &token), 403);
    home.effect(&["user", "edit", "alice", "--staff", "true"], "");
    assert_eq!(home.status("/staff/", &token), 200);

    assert_eq!(home.login(PASSWORD), 200);
    home.effect(&["user", "passwd", "alice"], "another password\n");
    assert_eq!((home.login(PASSWORD), home.login("another password")), (400, 200));
    assert_eq!(home.status("/", &token), 200, "tokens stay valid");

    home.effect(&["user", "delete", "alice", "--yes"], "");
    assert_eq!((home.status("/", &token), home.login("another password")), (401, 400));
    let (code, log) = serving.stop(Signal::TERM);
    assert_eq!(code, Some(0));
    assert!(!log.contains(&token) && !log.contains("another password"), "{log}");
}

#[test]
fn what_a_command_does_to_tokens_counts_within_a_second() {
    let home = Home::with_user("alice");
    let serving = home.serve();
    let imported = "9944b09199c62bcf9418ad846dd0e4bbdfc6ee4b";
    // Unknown tokens are remembered, too.
    assert_eq!(home.status("/", imported), 401);
    home.effect(&["token", "import", "-"], &format!("{imported}\talice\n"));
    assert_eq!(home.status("/", imported), 200);

    let id = home.list(&["token", "list"])[0]["id"].as_str().unwrap().to_owned();
    home.effect(&["token", "revoke", &id], "");
    assert_eq!(home.status("/", imported), 401);

    let found = home.token();
    assert_eq!(home.status("/", &found), 200);
    home.effect(&["token", "revoke", "--stdin"], &found);
    assert_eq!(home.status("/", &found), 401);

    let old = [home.token(), home.token()];
    assert_eq!(old.each_ref().map(|token| home.status("/", token)), [200, 200]);
    let made = home.effect(&["token", "create", "alice", "-r"], "");
    let new = made.split(' ').nth(2).unwrap();
    assert_eq!(old.each_ref().map(|token| home.status("/", token)), [401, 401]);
    assert_eq!(home.status("/", new), 200);
    home.effect(&["token", "revoke", "--user", "alice", "--all"], "");
    assert_eq!(home.status("/", new), 401);

    // More rows than the table of changes is read for one by one.
    assert_eq!(home.status("/", &format!("{:040}", 19_999)), 401);
    home.effect(&["token", "import", "-"], &many_tokens(20_000));
    assert_eq!(home.status("/", &format!("{:040}", 19_999)), 200);
    assert_eq!(serving.stop(Signal::TERM).0, Some(0));
}
