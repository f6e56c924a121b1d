//! The gateway as a process of its own, for what only a process has: a log, limits, a sudden end.

use super::{PATIENCE, secrets};
use doorward::app::Backing;
use doorward::clock::{Clock, SystemClock};
use doorward::config::{Config, Source};
use doorward::credentials::{Credentials, NewAccount};
use doorward::secret::Secret;
use doorward::store::TokenOrigin;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;

/// `doorward serve`, killed when dropped.
pub(crate) struct Program {
    child: Child,
    log: JoinHandle<Vec<String>>,
    pub(crate) address: SocketAddr,
}

impl Program {
    /// Starts where a `doorward.toml` is; serves when this returns.
    pub(crate) async fn start(directory: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.arg("serve");
        Self::start_by(command, directory).await
    }

    /// Starts by a command that becomes `doorward serve`.
    pub(crate) async fn start_by(mut command: Command, directory: &Path) -> Self {
        command.current_dir(directory).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = until_it_serves(&mut log).await;
        Self { child, log: tokio::spawn(rest(log)), address }
    }

    /// Starts with a log elsewhere than on standard error, where `address` finds out that it serves.
    pub(crate) async fn start_quiet(directory: &Path, address: impl AsyncFnOnce() -> SocketAddr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.arg("serve").current_dir(directory).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let log = tokio::spawn(rest(BufReader::new(child.stderr.take().unwrap()).lines()));
        let address = tokio::time::timeout(PATIENCE, address()).await.expect("it does not serve");
        Self { child, log, address }
    }

    pub(crate) fn id(&self) -> Pid {
        Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap()
    }

    /// From now on no file of the program's grows beyond this many bytes.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) {
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Some(self.id()), Resource::Fsize, limit).unwrap();
    }

    /// Ends it as a power cut would; yields what was logged after the address.
    pub(crate) async fn kill(mut self) -> Vec<String> {
        self.child.kill().await.unwrap();
        self.log.await.unwrap()
    }

    /// Stops; yields what was logged after the address.
    pub(crate) async fn stop(mut self) -> Vec<String> {
        kill_process(self.id(), Signal::TERM).unwrap();
        assert!(self.child.wait().await.unwrap().success());
        self.log.await.unwrap()
    }
}

/// `doorward serve` with these named listening sockets, as a service manager hands them over: from descriptor 3 on.
///
/// Descriptors enter as standard input and output, which needs no unsafe code, and a shell moves them. `PID` in the
/// environment: for another process than the program.
pub(crate) fn handed(sockets: &[(&str, BorrowedFd<'_>)]) -> Command {
    const MOVE: &str =
        "exec 3<&0 4>&1 </dev/null >/dev/null; export LISTEN_PID=${PID:-$$}; exec \"$0\" serve";
    let mut command = Command::new("sh");
    command.args(["-c", MOVE, env!("CARGO_BIN_EXE_doorward")]);
    let names: Vec<_> = sockets.iter().map(|(name, _)| *name).collect();
    command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
    let mut sockets = sockets.iter().map(|(_, socket)| Stdio::from(socket.try_clone_to_owned().unwrap()));
    command.stdin(sockets.next().unwrap());
    command.stdout(sockets.next().unwrap_or_else(Stdio::null));
    assert!(sockets.next().is_none(), "there is no way in for more");
    command
}

/// Reads up to the line with the address.
pub(crate) async fn until_it_serves(log: &mut Lines<impl AsyncBufRead + Unpin>) -> SocketAddr {
    let mut lines = Vec::new();
    loop {
        let Some(line) = log.next_line().await.unwrap() else { panic!("the program has ended: {lines:#?}") };
        if let Some(address) = address_in(&line) {
            return address;
        }
        lines.push(line);
    }
}

/// The address that a line of the log names. Wherever the summary has it, it is the first on the loopback with a port of
/// its own.
pub(crate) fn address_in(line: &str) -> Option<SocketAddr> {
    let mut words = line.split(['"', ' ', ',', '[', ']', '/', '=']);
    words.find_map(|word| word.parse::<SocketAddr>().ok().filter(|address| address.port() != 0))
}

async fn rest(mut log: Lines<BufReader<ChildStderr>>) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(line) = log.next_line().await.unwrap() {
        secrets::written(line.as_bytes());
        lines.push(line);
    }
    lines
}

/// The writer of users and tokens, while no program runs there.
pub(crate) async fn credentials(text: &str, directory: &Path) -> Arc<Credentials> {
    let name = "doorward.toml".to_owned();
    let source = Source { name, directory: directory.to_owned(), environment: |_| None };
    let config = Config::parse(text, &source).unwrap().config;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    Backing::open(&config, &clock).await.unwrap().credentials
}

/// Writes the file, makes alice with this password, and a token of hers.
pub(crate) async fn make_alice(text: &str, directory: &Path, password: &str) -> String {
    std::fs::write(directory.join("doorward.toml"), text).unwrap();
    let credentials = credentials(text, directory).await;
    secrets::used(password);
    let account =
        NewAccount { username: "alice".to_owned(), password: Secret::new(password), ..NewAccount::default() };
    credentials.add_user(account).await.unwrap();
    let made = credentials.create_token("alice", "", TokenOrigin::Command).await.unwrap();
    let token = String::from_utf8(made.key.expose().to_vec()).unwrap();
    secrets::used(&token);
    token
}
