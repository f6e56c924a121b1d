//! The search for secrets in what is written can fail. Everything else here is searched by it: see the harness.

use crate::harness;
use crate::harness::client::{Request, patiently};
use crate::harness::secrets::Secrets;
use crate::harness::world::{Settings, on_both};
use std::time::Duration;

const PLANTED: &str = "0123456789abcdef0123456789abcdef01234567";

/// A place to look that has no files.
fn nowhere() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn planted(write: impl FnOnce(&Secrets)) {
    let secrets = Secrets::default();
    secrets.used(PLANTED);
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(secrets.clone()).finish();
    tracing::subscriber::with_default(log, || write(&secrets));
    secrets.assert_none_written(nowhere().path());
}

#[test]
#[should_panic(expected = "a secret was written down")]
fn a_secret_planted_in_the_log_is_found() {
    planted(|_| tracing::info!(header = format!("Token {PLANTED}"), "a careless line"));
}

#[test]
#[should_panic(expected = "a secret was written down")]
fn a_secret_planted_in_an_answer_is_found() {
    planted(|secrets| secrets.written(format!("{{\"detail\":\"{PLANTED}\"}}").as_bytes()));
}

#[test]
#[should_panic(expected = "a secret was written down")]
fn a_secret_planted_in_a_file_is_found() {
    let secrets = Secrets::default();
    secrets.used(PLANTED);
    let directory = nowhere();
    let below = directory.path().join("below");
    std::fs::create_dir(&below).unwrap();
    std::fs::write(below.join("doorward.db"), format!("x{PLANTED}x")).unwrap();
    secrets.assert_none_written(directory.path());
}

#[test]
fn a_line_without_a_secret_is_none() {
    planted(|_| tracing::info!(header = &PLANTED[..39], "a careful line"));
}

/// The gateway's log reaches the search, so that an empty one proves nothing by accident.
#[test]
fn the_log_of_the_gateway_is_searched() {
    on_both(&Settings::default(), async |_, client| {
        let answer = client.send(Request::get("/x")).await;
        let id = answer.one("x-request-id").unwrap();
        let is_logged = async {
            // The answer is there with its head; the line is of the gateway alone.
            while !harness::secrets::holds(&format!(r#"request.id="{id}""#)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        patiently("the request is in the log", is_logged).await;
    });
}
