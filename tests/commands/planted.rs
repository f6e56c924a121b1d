//! The search for secrets in what commands write can fail: whatever a test leaves is searched when its home goes.

use crate::{Home, PASSWORD, collect};
use std::fs;
use std::sync::mpsc::channel;

const TOKEN: &str = "0123456789abcdef0123456789abcdef01234567";

#[test]
#[should_panic(expected = "a secret was written down")]
fn a_password_planted_in_an_output_is_found() {
    Home::new().shell(&format!("echo 'the password {PASSWORD} is too short'"));
}

#[test]
#[should_panic(expected = "a secret was written down")]
fn a_typed_token_planted_in_an_error_is_found() {
    let home = Home::with_user("alice");
    home.run_with_input(&["token", "import", "-"], &format!("{TOKEN}\talice\n"));
    home.shell(&format!("echo 'error: {TOKEN} is there already' >&2"));
}

#[test]
#[should_panic(expected = "a secret was written down")]
fn a_new_token_planted_in_an_output_is_found() {
    let home = Home::with_user("alice");
    let token = home.token();
    home.shell(&format!("echo 'ID  TOKEN'; echo '01  {token}'"));
}

#[test]
#[should_panic(expected = "a secret was written down")]
fn a_new_token_that_is_shown_twice_is_found() {
    Home::with_user("alice").shell("doorward token create alice --json | tee >(cat >&2)");
}

#[test]
#[should_panic(expected = "a secret was written down")]
fn a_token_planted_in_the_log_is_found() {
    let home = Home::with_user("alice");
    let line =
        format!("INFO request finished http.request.header.authorization=\"Token {}\"\n", home.token());
    collect(line.as_bytes(), &channel().0, &home.secrets);
}

#[test]
#[should_panic(expected = "a secret was written down")]
fn a_token_planted_in_an_answer_is_found() {
    let home = Home::with_user("alice");
    let (token, serving) = (home.token(), home.serve());
    // The backend here answers with what it received.
    let (status, _) = home.curl_path(&format!("/?token={token}"), Some(&token), &[]);
    assert_eq!(status, 200);
    drop(serving);
}

#[test]
#[should_panic(expected = "a secret was written down")]
fn a_token_planted_in_a_file_is_found() {
    let home = Home::with_user("alice");
    fs::create_dir(home.path("below")).unwrap();
    fs::write(home.path("below/doorward.db"), home.token()).unwrap();
}

#[test]
fn a_new_token_is_shown_where_it_must_be() {
    let home = Home::with_user("alice");
    home.token();
    assert_eq!(home.run(&["token", "create", "alice", "--json"]).code, 0);
}
