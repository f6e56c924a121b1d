//! One server process: started, stopped for a while, ended, by its process id.

use super::until;
use rustix::process::{Pid, Signal, getuid, kill_process};
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Who owns nothing, and is known by name on every system, which PostgreSQL wants.
const NOBODY: u32 = 65_534;

/// Debian keeps servers where only root looks.
const FOLDERS: [&str; 4] = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// The path of a program.
pub(crate) fn program(name: &str, package: &str) -> PathBuf {
    let found = FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| {
        panic!("{name} is missing; install the Debian package {package}, or run scripts/test")
    })
}

/// A new directory that a server may write to and this process may read.
pub(crate) fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    hand_over(directory.path());
    directory
}

/// Gives a file to whom servers run as.
pub(crate) fn hand_over(path: &Path) {
    if getuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// Writes a file that only a server of ours, and this process, may read.
pub(crate) fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    hand_over(path);
}

/// A program and its arguments, as whom servers run, and not surviving whoever started it.
pub(crate) fn unprivileged(program: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["setpriv", "--pdeathsig=KILL"].map(OsString::from).into();
    if getuid().is_root() {
        words.extend([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")].map(OsString::from));
        words.push("--clear-groups".into());
    }
    words.extend(["--".into(), program.into()]);
    words
}

/// Runs such a program to its end and yields what it printed; fails if it fails.
pub(crate) fn run(mut words: Vec<OsString>, arguments: &[&str], directory: &Path) -> String {
    words.extend(arguments.iter().map(OsString::from));
    let mut command = Command::new(&words[0]);
    let output = command.args(&words[1..]).current_dir(directory).stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a program with this on standard input; yields what it printed, without the last line's end. Fails if it fails.
pub(crate) fn feed(command: &mut Command, text: &str) -> String {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // One that has failed reads no more; it says why.
        scope.spawn(move || input.write_all(text.as_bytes()).unwrap_or_default());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// How a server is started and ended.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// The program with its arguments; see [`unprivileged`].
    pub(crate) words: Vec<OsString>,
    /// The directory that is its own.
    pub(crate) directory: PathBuf,
    /// What is in its log once it serves.
    pub(crate) ready: &'static str,
    /// What ends it without much ado.
    pub(crate) end: &'static str,
    /// Whether `disk` in its directory is a disk of its own that is soon full; see [`may_mount`].
    pub(crate) has_disk: bool,
}

/// Room on such a disk, and whose it is. It goes with the process.
const DISK: &str = "size=24m,uid=65534,gid=65534,mode=700";

/// Whether a server can have a disk of its own here. That of an ordinary user would believe that it is root's.
pub(crate) fn may_mount() -> bool {
    let probe = ["--mount", "mount", "-t", "tmpfs", "none", "/mnt"];
    getuid().is_root() && Command::new("unshare").args(probe).status().is_ok_and(|status| status.success())
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Process {
    guard: Child,
    id: Pid,
    log: PathBuf,
}

impl Process {
    /// It serves when this returns.
    pub(crate) fn start(recipe: &Recipe) -> Self {
        let mut command = if recipe.has_disk {
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", "mount -t tmpfs -o $0 none disk && exec sh \"$@\"", DISK]);
            command
        } else {
            Command::new("sh")
        };
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/guard.sh"));
        command.arg(&recipe.directory).arg(recipe.end).args(&recipe.words).current_dir(&recipe.directory);
        // Ctrl-C ends the test process, and the end of that the server.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut guard = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(guard.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let id = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        let server = Self { guard, id, log: recipe.directory.join("log") };
        until("a server that serves", || {
            let log = server.log();
            assert!(server.is_alive(), "{:?} ends at once: {log}", recipe.words);
            log.contains(recipe.ready).then_some(())
        });
        server
    }

    /// What it has written so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Neither gone nor waiting for its parent to notice.
    pub(crate) fn is_alive(&self) -> bool {
        stat(self.id).is_some_and(|stat| stat.state != "Z")
    }

    /// It does nothing any more, and whoever asks it waits; connections stay open.
    pub(crate) fn pause(&self) {
        // First itself, so that it makes no more children.
        signal(self.id, Signal::STOP);
        for child in children(self.id) {
            signal(child, Signal::STOP);
        }
    }

    /// After [`Process::pause`].
    pub(crate) fn resume(&self) {
        for child in children(self.id) {
            signal(child, Signal::CONT);
        }
        signal(self.id, Signal::CONT);
    }

    /// Ends it as a power cut would; its directory stays.
    pub(crate) fn kill(self) {
        let children = children(self.id);
        signal(self.id, Signal::STOP);
        for process in children {
            signal(process, Signal::KILL);
        }
        self.stop(Signal::KILL);
    }

    /// Ends it by a signal; its directory stays.
    pub(crate) fn stop(mut self, by: Signal) {
        self.signal(by);
        until("the end of a server", || (!self.is_alive()).then_some(()));
        // A guard that is gone has said so by the end of its server.
        self.guard.stdin.as_mut().unwrap().write_all(b"keep\n").unwrap_or_default();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self::signal(self.id, signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // In a test that has failed nothing may panic here.
        if let Err(error) = self.guard.wait() {
            eprintln!("the guard of a server: {error}");
        }
    }
}

/// One that has ended meanwhile hears nothing.
fn signal(process: Pid, signal: Signal) {
    kill_process(process, signal).unwrap_or_default();
}

/// From `proc_pid_stat`(5).
struct Stat {
    state: String,
    parent: i32,
}

fn stat(process: Pid) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).ok()?;
    // The name before it may hold anything.
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    Some(Stat { state: fields.next()?.to_owned(), parent: fields.next()?.parse().ok()? })
}

fn children(parent: Pid) -> Vec<Pid> {
    let names = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let processes = names.filter_map(|name| Pid::from_raw(name.parse().ok()?));
    let is_child =
        |process: &Pid| stat(*process).is_some_and(|stat| stat.parent == parent.as_raw_nonzero().get());
    processes.filter(is_child).collect()
}
