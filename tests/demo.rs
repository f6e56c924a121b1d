//! `doorward demo`, as a newcomer meets it: the real binary, its three commands pasted into a shell, Ctrl-C.

#[path = "gateway/harness/secrets.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "written for the end-to-end tests, of which this needs a part"
)]
mod secrets;

use rustix::process::{Pid, Signal, kill_process};
use secrets::Secrets;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The last line of the instructions.
const LAST_LINE: &str = "Ctrl-C stops the demonstration and removes its directory.";

/// A started binary, killed if the test fails before it has ended.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // It has ended if the test went well.
        self.0.kill().unwrap_or_default();
    }
}

#[test]
fn the_three_commands_work_as_printed() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.arg("demo").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut demo = Started(command.spawn().unwrap());
    let mut lines = BufReader::new(demo.0.stdout.take().unwrap()).lines();
    let mut printed: Vec<String> = Vec::new();
    while printed.last().is_none_or(|line| line != LAST_LINE) {
        printed.push(lines.next().expect("the demonstration ended before its instructions did").unwrap());
    }
    let commands: Vec<&str> = printed.iter().map(String::as_str).filter(|line| is_command(line)).collect();
    assert_eq!(commands.len(), 3, "{printed:#?}");
    assert!(commands.iter().all(|command| command.contains(" --cacert /")), "{commands:#?}");

    // One shell, so that the second command finds what the first has kept.
    let marker = "-- next --";
    let script = commands.join(&format!("\necho '{marker}'\n"));
    let pasted = Command::new("bash").args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
    let answers = String::from_utf8(pasted.stdout).unwrap();
    assert_eq!(String::from_utf8(pasted.stderr).unwrap(), "", "curl is silent if all went well");
    let answers: Vec<&str> = answers.split(marker).map(str::trim).collect();
    let [token, received, refused] = answers[..] else { panic!("{answers:?}") };
    assert!(is_token(token), "{token}");
    let secrets = Secrets::default();
    secrets.used(token);
    secrets.used(password(commands[0]));
    for text in [received, refused] {
        secrets.written(text.as_bytes());
    }
    assert!(received.lines().any(|line| line == "Remote-User: demo"), "{received}");
    assert!(received.contains("GET /hello") && !received.contains(token), "{received}");
    assert!(refused.lines().next().is_some_and(|status| status.contains(" 401")), "{refused}");
    let not_provided = r#"{"detail":"Authentication credentials were not provided."}"#;
    assert!(refused.ends_with(not_provided), "{refused}");

    let certificate = commands[2].split(' ').find(|word| word.contains("/certs/")).unwrap();
    let directory = Path::new(certificate).parent().and_then(Path::parent).unwrap();
    assert!(directory.join("doorward.db").exists(), "{}", directory.display());
    // Neither is in what was answered, nor in a file; the instructions are the one place for the password.
    secrets.assert_none_written(directory);
    kill_process(Pid::from_child(&demo.0), Signal::INT).unwrap();
    assert_eq!(demo.0.wait().unwrap().code(), Some(0));
    assert!(!directory.exists(), "{}", directory.display());

    let mut log = String::new();
    demo.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(log, "", "nothing goes wrong in a demonstration");
}

/// The password in the command that asks for a token.
fn password(command: &str) -> &str {
    let rest = command.split_once("\"password\": \"").map(|(_, rest)| rest);
    rest.and_then(|rest| rest.split_once('"')).expect("a password in the first command").0
}

fn is_command(line: &str) -> bool {
    line.starts_with("curl ") || line.starts_with("TOKEN=$(curl ")
}

fn is_token(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
