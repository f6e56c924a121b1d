//! The commands, with the real binary: the way of the README from a file to an answer of one's own backend.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod bench;
mod bench_stores;
mod crash;
mod describe;
mod django;
mod effect;
mod first;
mod group;
mod import;
mod planted;
mod schema;
mod status;
mod token;
mod user;

#[path = "../services/mod.rs"]
mod services;

#[path = "../gateway/harness/secrets.rs"]
#[expect(
    dead_code,
    clippy::indexing_slicing,
    reason = "written for the end-to-end tests, of which these need a part"
)]
mod secrets;

use rustix::process::{Pid, Signal, kill_process};
use secrets::Secrets;
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;

/// Much longer than anything here takes; a test that reaches it has found a hang.
const HANG: Duration = Duration::from_secs(30);
/// What a test has to import.
const TOKENS: &str = "tokens";
const PASSWORD: &str = "correct horse battery staple";

/// A directory with a configuration file, as an operator has one.
///
/// All that is typed or made here as a secret is noted, and all that commands, logs and answers show is kept: at the
/// end nothing of it, and no file, may hold a secret.
struct Home {
    directory: TempDir,
    address: SocketAddr,
    secrets: Secrets,
}

impl Home {
    /// The smallest file of the README, on a port that is free.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let upstream = start_upstream();
        let text = format!(
            "[listen]\nhttps = [\"{address}\"]\n\n[upstreams.legacy]\nservers = [\"http://{upstream}\"]\n\n\
             [routes.everything]\npath = \"/\"\nupstream = \"legacy\"\nschemes = [\"token\"]\n"
        );
        fs::write(directory.path().join("doorward.toml"), text).unwrap();
        let secrets = Secrets::default();
        // Some give it where it must not be taken, so it is not only noted when it is typed.
        secrets.used(PASSWORD);
        Self { directory, address, secrets }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// As [`Self::new`], with a user.
    fn with_user(name: &str) -> Self {
        let home = Self::new();
        home.add_user(name);
        home
    }

    fn add_user(&self, name: &str) {
        let added = self.run_with_input(&["user", "add", name], PASSWORD);
        assert_eq!((added.code, added.errors.as_str()), (0, ""));
    }

    /// Adds to the configuration.
    fn configure(&self, more: &str) {
        let mut file = fs::OpenOptions::new().append(true).open(self.path("doorward.toml")).unwrap();
        file.write_all(more.as_bytes()).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.args(arguments).current_dir(self.directory.path()).env_remove("DOORWARD_CONFIG");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.ran(&arguments.join(" "), self.command(arguments).output().unwrap())
    }

    fn run_with_input(&self, arguments: &[&str], input: &str) -> Ran {
        self.typed(input);
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        self.ran(&arguments.join(" "), child.wait_with_output().unwrap())
    }

    /// Notes passwords, or tokens before their users.
    fn typed(&self, input: &str) {
        for line in input.lines() {
            self.secrets.used(line.split('\t').next().unwrap());
        }
    }

    /// A command, or a line with some, that has ended.
    fn ran(&self, line: &str, output: Output) -> Ran {
        self.keep(line, &output);
        Ran::of(output)
    }

    /// Keeps what was shown. A token that was made is shown once, in its place.
    fn keep(&self, line: &str, output: &Output) {
        let mut shown = String::from_utf8_lossy(&output.stdout).into_owned();
        for key in if line.contains("token create") { new_tokens(&shown) } else { Vec::new() } {
            self.secrets.used(&key);
            shown = shown.replacen(&key, "", 1);
        }
        self.secrets.written(shown.as_bytes());
        self.secrets.written(&output.stderr);
    }

    /// Makes a token and cuts it out of what was printed.
    fn token(&self) -> String {
        let made = self.run(&["token", "create", "alice"]);
        assert_eq!((made.code, made.errors.as_str()), (0, ""));
        let key = made.output.strip_prefix("Generated token ");
        let key = key.and_then(|rest| rest.strip_suffix(" for user alice\n"));
        let key = key.unwrap_or_else(|| panic!("{}", made.output));
        assert!(is_token(key));
        key.to_owned()
    }

    fn serve(&self) -> Serving {
        self.start(&["serve"])
    }

    /// Starts a command that serves, and waits until it does.
    fn start(&self, arguments: &[&str]) -> Serving {
        let mut child = self.command(arguments).spawn().unwrap();
        let (told, lines) = channel();
        let log = BufReader::new(child.stderr.take().unwrap());
        let secrets = self.secrets.clone();
        let reader = std::thread::spawn(move || collect(log, &told, &secrets));
        let serving = Serving { child: Some(child), reader: Some(reader), secrets: self.secrets.clone() };
        wait_for(&lines, "listening for HTTPS");
        serving
    }

    /// Runs a line of a shell, in which `doorward` is the program.
    fn shell(&self, line: &str) -> Ran {
        let mut shell = Command::new("bash");
        let function = format!("doorward() {{ {} \"$@\"; }}; {line}", env!("CARGO_BIN_EXE_doorward"));
        shell.args(["-c", &function]).current_dir(self.directory.path()).env_remove("DOORWARD_CONFIG");
        self.ran(line, shell.stdin(Stdio::null()).output().unwrap())
    }

    /// Runs a command at a terminal, at which this is typed; everything that the terminal shows. It is typed before
    /// anything is asked, so that the terminal may show it: no secrets.
    fn at_terminal(&self, arguments: &str, typed: &str) -> (i32, String) {
        let mut script = Command::new("script");
        let line = format!("{} {arguments}", env!("CARGO_BIN_EXE_doorward"));
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        script.current_dir(self.directory.path()).env_remove("DOORWARD_CONFIG");
        let script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = script.spawn().unwrap();
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let ran = self.ran(arguments, child.wait_with_output().unwrap());
        (ran.code, ran.output)
    }

    /// What a list with `--json` holds.
    fn list(&self, arguments: &[&str]) -> Vec<Value> {
        let ran = self.run(&[arguments, &["--json"]].concat());
        assert_eq!((ran.code, ran.errors.as_str()), (0, ""));
        let list: Value = serde_json::from_str(&ran.output).unwrap();
        list.as_array().unwrap().clone()
    }

    /// Asks with curl: the status, and the body.
    fn curl(&self, token: Option<&str>) -> (u16, String) {
        self.curl_path("/hello", token, &[])
    }

    fn curl_path(&self, path: &str, token: Option<&str>, more: &[&str]) -> (u16, String) {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_code}"]);
        curl.arg("--cacert").arg(self.path("certs/self-signed.pem"));
        if let Some(token) = token {
            self.secrets.used(token);
            curl.args(["--header", &format!("Authorization: Token {token}")]);
        }
        curl.args(more).arg(format!("https://localhost:{}{path}", self.address.port()));
        let output = curl.output().unwrap();
        let answer = String::from_utf8(output.stdout).unwrap();
        let (body, status) = answer.rsplit_once('\n').unwrap();
        self.secrets.answered(&output.stderr, body.as_bytes());
        (status.parse().unwrap(), body.to_owned())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // Most tests have none.
            fs::remove_file(self.path(TOKENS)).unwrap_or_default();
            self.secrets.assert_none_written(self.directory.path());
        }
    }
}

/// The tokens that `token create` made: as it shows them, or cut out in a shell.
fn new_tokens(shown: &str) -> Vec<String> {
    if let Ok(made) = serde_json::from_str::<Value>(shown) {
        return made.get("token").and_then(Value::as_str).map(str::to_owned).into_iter().collect();
    }
    let made = shown.lines().filter_map(|line| match line.strip_prefix("Generated token ") {
        Some(rest) => rest.split(' ').next(),
        None => Some(line).filter(|line| is_token(line)),
    });
    made.map(str::to_owned).collect()
}

fn is_token(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A command that has ended.
struct Ran {
    code: i32,
    output: String,
    errors: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            output: String::from_utf8(output.stdout).unwrap(),
            errors: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// `doorward serve`; killed if the test fails.
struct Serving {
    child: Option<Child>,
    reader: Option<JoinHandle<String>>,
    secrets: Secrets,
}

impl Serving {
    /// Stops it: its exit code, and all that it wrote.
    fn stop(mut self, signal: Signal) -> (Option<i32>, String) {
        let mut child = self.child.take().unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let code = child.wait().unwrap().code();
        let mut text = self.reader.take().unwrap().join().unwrap();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        self.secrets.written(text.as_bytes());
        (code, text)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().unwrap_or_default();
        }
    }
}

/// Keeps all lines, and tells of each as it comes.
fn collect(log: impl std::io::BufRead, told: &Sender<String>, secrets: &Secrets) -> String {
    let mut text = String::new();
    for line in log.lines().map_while(Result::ok) {
        secrets.written(line.as_bytes());
        text.push_str(&line);
        text.push('\n');
        // Nobody listens once it serves.
        told.send(line).unwrap_or_default();
    }
    text
}

/// Lets real time pass, for tests that are about it.
#[expect(clippy::disallowed_methods, reason = "processes and promises of real time are waited for")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// So many different tokens of one user, for `token import`.
fn many_tokens(count: usize) -> String {
    let lines: Vec<String> = (0..count).map(|number| format!("{number:040}\talice\n")).collect();
    lines.concat()
}

fn wait_for(lines: &Receiver<String>, wanted: &str) {
    loop {
        let line = lines.recv_timeout(HANG).expect("doorward serve does not say that it listens");
        if line.contains(wanted) {
            return;
        }
    }
}

/// An upstream that answers every request with the fields it received.
fn start_upstream() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || echo(&stream));
        }
    });
    address
}

/// Until the connection ends; requests have no body here.
fn echo(mut stream: &TcpStream) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    loop {
        let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
        if head.is_empty() {
            return;
        }
        let body = head.join("\n");
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode()
        & 0o777
}

#[test]
fn the_way_of_the_readme_leads_to_an_answer_of_the_backend() {
    let home = Home::new();
    let checked = home.run(&["check"]);
    assert_eq!((checked.code, checked.errors.as_str()), (0, ""));
    assert!(checked.output.starts_with("doorward.toml is good"), "{}", checked.output);

    let added = home.run_with_input(&["user", "add", "alice"], &format!("{PASSWORD}\n"));
    assert_eq!((added.code, added.output.as_str(), added.errors.as_str()), (0, "Added user alice\n", ""));
    let token = home.token();

    let serving = home.serve();
    let (status, body) = home.curl(Some(&token));
    assert_eq!(status, 200, "{body}");
    let received = body.to_lowercase();
    assert!(received.lines().any(|line| line == "remote-user: alice"), "{body}");
    assert!(!body.contains(&token), "credentials are not the upstream's: {body}");
    let (status, body) = home.curl(None);
    assert_eq!(status, 401);
    assert_eq!(body, r#"{"detail":"Authentication credentials were not provided."}"#);

    for private in ["doorward.db", "doorward.key", "certs/self-signed.key"] {
        assert_eq!(mode(&home.path(private)), 0o600, "{private}");
    }

    let (code, log) = serving.stop(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    let line = log.lines().find(|line| line.contains("status_code=200"));
    assert!(line.is_some_and(|line| line.contains("http.route=\"everything\"")), "{log}");
    for secret in [PASSWORD, &token] {
        assert!(!log.contains(secret), "{log}");
    }
    assert!(!log.contains(fs::read_to_string(home.path("doorward.key")).unwrap().trim()), "{log}");
}

#[test]
fn a_token_made_while_the_gateway_serves_works_within_a_second() {
    let home = Home::new();
    home.run_with_input(&["user", "add", "alice"], PASSWORD);
    let serving = home.serve();
    assert_eq!(home.curl(Some("0123456789012345678901234567890123456789")).0, 401);
    for _ in 0..3 {
        let token = home.token();
        // Another process made it, and it is asked for at once.
        assert_eq!(home.curl(Some(&token)).0, 200);
    }
    assert_eq!(serving.stop(Signal::INT).0, Some(0));
}

/// A request in clear with this token; the answer.
fn send_in_clear(address: SocketAddr, token: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    let head = format!("GET /hello HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_token_sent_in_clear_is_told_by_its_id_and_revoked() {
    const UNKNOWN: &str = "0123456789012345678901234567890123456789";
    let home = Home::new();
    let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let text = fs::read_to_string(home.path("doorward.toml")).unwrap();
    let lines = format!("\nhttp = [\"{http}\"]\n\n[tokens]\non_exposed_token = \"revoke\"\n\n[upstreams");
    fs::write(home.path("doorward.toml"), text.replacen("\n\n[upstreams", &lines, 1)).unwrap();
    home.run_with_input(&["user", "add", "alice"], PASSWORD);
    let token = home.token();
    let serving = home.serve();
    assert_eq!(home.curl(Some(&token)).0, 200);
    for token in [&token, UNKNOWN] {
        home.secrets.used(token);
        let answer = send_in_clear(http, token);
        home.secrets.written(answer.as_bytes());
        assert!(
            answer.starts_with("HTTP/1.1 403 ") && answer.contains("must be considered exposed"),
            "{answer}"
        );
    }
    // That it is within the second is seen where no other test keeps the disk busy: tests/gateway/plain_http.rs.
    let is_revoked = (0..100).any(|_| {
        pause(Duration::from_millis(100));
        home.curl(Some(&token)).0 == 401
    });
    assert!(is_revoked);
    let (code, log) = serving.stop(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    let field = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!(" {name}=")).unwrap_or_else(|| panic!("no {name}: {line}"));
        rest.split(' ').next().unwrap().trim_matches('"').to_owned()
    };
    let used = log.lines().find(|line| line.contains("status_code=200")).unwrap();
    let exposed: Vec<_> = log.lines().filter(|line| line.contains("token exposed on plain HTTP")).collect();
    assert_eq!(exposed.len(), 2, "{log}");
    for line in &exposed {
        assert!(line.contains("WARN") && line.contains("client.address=127.0.0.1"), "{line}");
        let id = field(line, "request.id");
        let refused = log.lines().find(|line| line.contains("status_code=403") && line.contains(&id));
        assert!(refused.is_some_and(|line| line.contains("accept.exposed-credentials")), "{log}");
    }
    let of = |known: &str| exposed.iter().find(|line| field(line, "credential.known") == known).unwrap();
    let id = field(of("true"), "credential.id");
    assert_eq!(id, field(used, "auth.credential"));
    assert_eq!(field(of("false"), "credential.id").len(), 16);
    let revoked = log.lines().find(|line| line.contains("exposed token revoked")).unwrap();
    assert_eq!(field(revoked, "credential.id"), id);
    for secret in [&token, UNKNOWN] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn a_broken_file_is_told_with_place_and_suggestion() {
    let home = Home::new();
    let text = fs::read_to_string(home.path("doorward.toml")).unwrap();
    let broken = text.replace("\"legacy\"", "\"legasy\"").replace("schemes =", "shemes =");
    fs::write(home.path("doorward.toml"), broken).unwrap();
    let checked = home.run(&["check"]);
    assert_eq!((checked.code, checked.output.as_str()), (1, ""));
    for told in [
        "doorward.toml:9:12",
        "upstream = \"legasy\"",
        "did you mean `legacy`?",
        "doorward.toml:10:1",
        "did you mean `schemes`?",
        "doorward.toml: 2 errors",
    ] {
        assert!(checked.errors.contains(told), "{told} is missing:\n{}", checked.errors);
    }
    let served = home.run(&["serve"]);
    assert_eq!(served.code, 1);
    assert!(served.errors.contains("doorward.toml:9:12"), "{}", served.errors);
}

#[test]
fn a_missing_file_is_told_with_what_to_do() {
    let home = Home::new();
    let checked = home.run(&["--config", "none.toml", "check"]);
    assert_eq!(checked.code, 1);
    for told in ["none.toml", "README.md", "--config"] {
        assert!(checked.errors.contains(told), "{}", checked.errors);
    }
}

#[test]
fn users_who_are_not_there_or_are_there_already_are_told_of() {
    let home = Home::new();
    let unknown = home.run(&["token", "create", "bob"]);
    assert_eq!((unknown.code, unknown.output.as_str()), (1, ""));
    assert_eq!(unknown.errors, "error: Cannot create the Token: user bob does not exist\n");
    assert_eq!(home.run_with_input(&["user", "add", "alice"], PASSWORD).code, 0);
    let twice = home.run_with_input(&["user", "add", "alice"], PASSWORD);
    assert_eq!((twice.code, twice.errors.as_str()), (1, "error: there is a user alice already\n"));
    let empty = home.run_with_input(&["user", "add", "carol"], "\n");
    assert_eq!((empty.code, empty.errors.as_str()), (1, "error: the password is empty\n"));
}

#[test]
fn a_second_gateway_on_the_same_address_is_an_error_that_says_so() {
    let home = Home::new();
    let serving = home.serve();
    let second = home.run(&["serve"]);
    assert_eq!((second.code, second.output.as_str()), (1, ""));
    let told = format!("error: cannot listen on {}: Address already in use", home.address);
    assert!(second.errors.contains(&told), "{}", second.errors);
    assert_eq!(serving.stop(Signal::TERM).0, Some(0));
}

#[test]
fn secrets_are_not_taken_from_arguments() {
    let home = Home::new();
    for arguments in
        [&["user", "add", "alice", "--password", PASSWORD][..], &["user", "add", "alice", PASSWORD]]
    {
        let refused = home.run(arguments);
        assert_eq!((refused.code, refused.output.as_str()), (2, ""));
        assert!(!refused.errors.contains(PASSWORD), "the secret was repeated: {}", refused.errors);
        assert!(refused.errors.contains("standard input"), "no hint: {}", refused.errors);
        assert!(!home.path("doorward.db").exists());
    }
}
