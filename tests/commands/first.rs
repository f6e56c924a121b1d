//! The first five minutes: `proxy`, and what it prints pasted into a shell; `init`.

use crate::{Home, PASSWORD, Ran, Serving, mode, start_upstream};
use rustix::process::Signal;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

/// What the last line that is printed begins with.
const LAST_LINE: &str = "From then on: ";

impl Home {
    /// A directory with nothing in it.
    fn empty() -> Self {
        let home = Self::new();
        fs::remove_file(home.path("doorward.toml")).unwrap();
        home
    }

    fn proxy(&self, more: &[&str]) -> (Serving, Printed) {
        let (to, listen) = (format!("http://{}", start_upstream()), self.address.to_string());
        let arguments = [&["proxy", "--to", &to, "--listen", &listen], more].concat();
        let mut serving = self.start(&arguments);
        let printed = Printed::of(&mut serving);
        (serving, printed)
    }

    fn files(&self) -> Vec<String> {
        let files = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<String> = files.map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Pastes these lines into a shell in this directory, in which `doorward` is the program.
    fn paste(&self, lines: &[&str], typed: &str) -> Ran {
        self.typed(typed);
        let program = env!("CARGO_BIN_EXE_doorward");
        let script = format!("set -e; doorward() {{ {program} \"$@\"; }}\n{}", lines.join("\n"));
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).current_dir(self.directory.path()).env_remove("DOORWARD_CONFIG");
        bash.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut bash = bash.spawn().unwrap();
        bash.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        self.ran(&script, bash.wait_with_output().unwrap())
    }
}

/// What `proxy` prints.
struct Printed {
    text: String,
    configuration: String,
    commands: Vec<String>,
}

impl Printed {
    fn of(serving: &mut Serving) -> Self {
        let output = serving.child.as_mut().unwrap().stdout.as_mut().unwrap();
        let mut lines: Vec<String> = Vec::new();
        for line in BufReader::new(output).lines() {
            lines.push(line.unwrap());
            if lines.last().unwrap().starts_with(LAST_LINE) {
                break;
            }
        }
        let begin = lines.iter().position(|line| line.starts_with('[')).unwrap();
        let end = lines.iter().position(|line| line.starts_with("Next, ")).unwrap();
        serving.secrets.written(lines.join("\n").as_bytes());
        let is_command =
            |line: &&String| ["doorward ", "curl ", "TOKEN="].iter().any(|start| line.starts_with(start));
        let commands = lines.iter().filter(is_command).cloned().collect();
        let configuration = lines.iter().take(end).skip(begin).cloned().collect::<Vec<_>>().join("\n");
        Self { configuration, commands, text: lines.join("\n") }
    }
}

/// The line of the README, with free ports.
#[test]
fn the_one_line_of_the_readme_serves() {
    let home = Home::empty();
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, section) = readme.split_once("\n## In one line\n").unwrap();
    let (_, block) = section.split_once("```sh\ndoorward ").unwrap();
    let (line, _) = block.split_once('\n').unwrap();
    let line = line.replace("127.0.0.1:9000", &start_upstream().to_string());
    let listen = format!(":{}", home.address.port());
    let arguments: Vec<&str> = line.split(' ').chain(["--listen", &listen]).collect();
    let mut serving = home.start(&arguments);
    let printed = Printed::of(&mut serving);
    assert!(printed.configuration.contains(&format!("https = [\"[::]{listen}\"]")), "{}", printed.text);
    assert!(printed.commands[0].ends_with(&format!(" --listen '[::]{listen}'")), "{}", printed.text);
    assert_eq!(home.curl(None).0, 401);
    assert_eq!(serving.stop(Signal::TERM).0, Some(0));
}

#[test]
fn what_proxy_prints_works_as_pasted() {
    let home = Home::empty();
    let (serving, printed) = home.proxy(&[]);
    assert_eq!(home.curl(None).0, 401);
    let store = ["doorward.db", "doorward.db-shm", "doorward.db-wal"];
    assert_eq!(home.files(), [&["certs"], &store[..], &["doorward.key", "doorward.sock"]].concat());

    let commands: Vec<&str> = printed.commands.iter().map(String::as_str).collect();
    assert_eq!(commands.len(), 4, "{}", printed.text);
    let pasted = home.paste(&commands[..3], &format!("{PASSWORD}\n"));
    assert_eq!((pasted.code, pasted.errors.as_str()), (0, ""));
    assert!(pasted.output.starts_with("Wrote doorward.toml\nAdded user alice\n"), "{}", pasted.output);
    let token = pasted.output.lines().last().unwrap();
    let called =
        home.paste(&[&format!("TOKEN={token}"), &commands[3].replace("curl ", "curl --silent ")], "");
    assert_eq!((called.code, called.errors.as_str()), (0, ""));
    assert!(called.output.to_lowercase().contains("remote-user: alice"), "{}", called.output);
    let (code, log) = serving.stop(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    for secret in [PASSWORD, token] {
        assert!(!log.contains(secret), "{log}");
    }

    // The file that was kept, and the one that was printed, serve the same.
    fs::write(home.path("printed.toml"), &printed.configuration).unwrap();
    for file in ["doorward.toml", "printed.toml"] {
        let checked = home.run(&["--config", file, "check"]);
        assert_eq!((checked.code, checked.errors.as_str()), (0, ""), "{}", printed.configuration);
        let serving = home.start(&["--config", file, "serve"]);
        let (status, body) = home.curl(Some(token));
        assert!(status == 200 && body.to_lowercase().contains("remote-user: alice"), "{status} {body}");
        assert_eq!(home.curl(None).0, 401);
        assert_eq!(serving.stop(Signal::TERM).0, Some(0));
    }

    // Once it is kept, there is nothing to keep; everything else is as before.
    let (serving, again) = home.proxy(&[]);
    assert!(again.text.contains("doorward.toml is there already"), "{}", again.text);
    assert_eq!(again.commands, printed.commands[1..]);
    assert_eq!(home.curl(Some(token)).0, 200);
    assert_eq!(serving.stop(Signal::INT).0, Some(0));
}

#[test]
fn the_file_of_proxy_may_have_another_name_and_several_servers() {
    let home = Home::empty();
    let directory = home.path("it's here");
    fs::create_dir(&directory).unwrap();
    let socket = "unix:/run/app 1.sock";
    let (serving, printed) = home.proxy(&["--to", socket, "--config", "it's here/own.toml"]);
    assert!(printed.configuration.contains("\"unix:/run/app 1.sock\""), "{}", printed.text);
    assert!(directory.join("doorward.db").exists() && !home.path("doorward.db").exists());
    let commands: Vec<&str> = printed.commands.iter().map(String::as_str).collect();
    let pasted = home.paste(&commands[..3], &format!("{PASSWORD}\n"));
    assert_eq!((pasted.code, pasted.errors.as_str()), (0, ""), "{}", printed.text);
    let written = fs::read_to_string(directory.join("own.toml")).unwrap();
    let servers = printed.configuration.lines().find(|line| line.starts_with("servers")).unwrap();
    assert!(written.contains(servers), "{written}");
    assert_eq!(serving.stop(Signal::TERM).0, Some(0));
}

#[test]
fn proxy_tells_what_to_write_instead() {
    let home = Home::empty();
    for (arguments, told) in [
        (&["--to", "127.0.0.1:9000"][..], "did you mean \"http://127.0.0.1:9000\"?"),
        (&["--to", "http://a/b"], "write the host and the port alone"),
        (&["--to", "http://a", "--listen", "localhost:8443"], "write the address"),
        (&["--to", "http://a", "--listen", ":84430"], "\":8443\""),
        (&["--to", "http://a", "--scheme", "tokens"], "did you mean `token`?"),
    ] {
        let refused = home.run(&[&["proxy"], arguments].concat());
        assert_eq!((refused.code, refused.output.as_str()), (1, ""));
        assert!(
            refused.errors.starts_with("error: --") && refused.errors.contains(told),
            "{}",
            refused.errors
        );
    }
    let refused = home.run(&["proxy", "--to", "http://user:hunter2@a"]);
    assert!(refused.code == 1 && !refused.errors.contains("hunter2"), "{}", refused.errors);
    let refused = home.run(&["proxy"]);
    assert!(refused.code == 2 && refused.errors.contains("--to <URL>"), "{}", refused.errors);
    assert!(home.files().is_empty(), "{:?}", home.files());

    let taken = TcpListener::bind(home.address).unwrap();
    let refused = home.run(&["proxy", "--to", "http://a", "--listen", &home.address.to_string()]);
    assert_eq!((refused.code, refused.output.as_str()), (1, ""));
    let told = format!("cannot listen on {}: Address already in use", home.address);
    assert!(
        refused.errors.contains(&told) && refused.errors.contains("--listen :9443"),
        "{}",
        refused.errors
    );
    drop(taken);
}

#[test]
fn proxy_leaves_the_users_of_another_store_alone() {
    let home = Home::new();
    home.configure("\n[store]\nurl = \"sqlite:other.db\"\n");
    let refused = home.run(&["proxy", "--to", "http://127.0.0.1:9000"]);
    assert_eq!((refused.code, refused.output.as_str()), (1, ""));
    let told = "doorward.toml is there already and names another store";
    assert!(refused.errors.contains(told) && refused.errors.contains("doorward serve"), "{}", refused.errors);
    assert_eq!(home.files(), ["doorward.toml"]);
}

#[test]
fn init_writes_a_good_file_and_never_over_another() {
    let home = Home::empty();
    let written = home.run(&["init", "--to", "unix:/run/app.sock"]);
    assert_eq!(
        (written.code, written.output.as_str(), written.errors.as_str()),
        (0, "Wrote doorward.toml\n", "")
    );
    assert_eq!(home.files(), ["doorward.toml"]);
    assert_eq!(mode(&home.path("doorward.toml")), 0o644);
    let checked = home.run(&["check"]);
    assert_eq!((checked.code, checked.errors.as_str()), (0, ""));

    let text = fs::read_to_string(home.path("doorward.toml")).unwrap();
    assert!(text.contains("servers = [\"unix:/run/app.sock\"]"), "{text}");
    let again = home.run(&["init"]);
    assert_eq!((again.code, again.output.as_str()), (1, ""));
    assert_eq!(again.errors, "error: doorward.toml is there already; --force replaces it\n");
    assert_eq!(fs::read_to_string(home.path("doorward.toml")).unwrap(), text);
    assert_eq!(home.run(&["init", "--force"]).code, 0);
    let replaced = fs::read_to_string(home.path("doorward.toml")).unwrap();
    assert!(replaced.contains("servers = [\"http://127.0.0.1:9000\"]"), "{replaced}");

    let shown = home.run(&["init", "-"]);
    assert_eq!((shown.code, shown.output.as_str(), shown.errors.as_str()), (0, replaced.as_str(), ""));
    let missing = home.run(&["init", "none/doorward.toml"]);
    assert_eq!(missing.code, 1);
    assert!(missing.errors.starts_with("error: cannot write none/doorward.toml: "), "{}", missing.errors);
    let wrong = home.run(&["init", "--to", "ftp://a", "other.toml"]);
    assert_eq!((wrong.code, wrong.output.as_str()), (1, ""));
    assert_eq!(home.files(), ["doorward.toml"]);
}
