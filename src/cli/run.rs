//! Runs the commands.

use crate::app::demo::Demo;
use crate::app::{Backing, Options, Running, log_summary};
use crate::cli::{AddUser, Arguments, Command, CreateToken, TokenCommand, UserCommand, secrets, signalled};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, ConfigError, Loaded, LogFormat};
use crate::credentials::{CredentialsError, NewAccount};
use crate::store::{StoreError, TokenOrigin};
use crate::telemetry::{Format, LogGuard, start_log};
use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Numbers of the signals that stop (POSIX).
const SIGINT: u8 = 2;
const SIGTERM: u8 = 15;

/// A command that failed, with what to do.
type Failure = Box<dyn Error>;

/// Runs the command; the exit code is 0, or 1 with the reason on standard error.
pub fn run(arguments: &Arguments) -> ExitCode {
    let ran = match &arguments.command {
        Command::Demo => demo(),
        Command::Check => check(&arguments.config),
        Command::Serve => serve(&arguments.config),
        Command::User(UserCommand::Add(user)) => add_user(&arguments.config, user),
        Command::Token(TokenCommand::Create(token)) => create_token(&arguments.config, token),
    };
    ran.unwrap_or_else(|error| {
        tell(&chain(error.as_ref()));
        ExitCode::FAILURE
    })
}

fn check(path: &Path) -> Result<ExitCode, Failure> {
    let loaded = load(path)?;
    let config = &loaded.config;
    if !config.tls.certificates.is_empty() {
        crate::accept::tls::server_config(&config.tls, &config.tls.certificates)?;
    }
    let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let routes = counted(config.routes.len(), "route");
    let upstreams = counted(config.upstreams.len(), "upstream");
    say(&format!("{} is good: {routes}, {upstreams}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn serve(path: &Path) -> Result<ExitCode, Failure> {
    let config = load(path)?.config;
    let guard = start(&config);
    let stop = StopSignals::listen()?;
    let running = Running::start(&config, Options::default())?;
    log_summary(&config, &running);
    let code = stop.wait(move || running.stop())?;
    drop(guard);
    Ok(code)
}

fn start(config: &Config) -> LogGuard {
    let format = match config.log.format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    start_log(format, config.log.level.into())
}

fn demo() -> Result<ExitCode, Failure> {
    let guard = start_log(Format::Text, tracing::Level::WARN);
    let stop = StopSignals::listen()?;
    let demo = Demo::start()?;
    say(&demo.instructions())?;
    let code = stop.wait(move || {
        if let Err(error) = demo.stop() {
            tracing::warn!(%error, "the demonstration's directory could not be removed");
        }
    })?;
    drop(guard);
    Ok(code)
}

/// A file that may not grow (`ulimit -f`) is a write that fails, and told of: not the end of the process.
fn outlive_file_limit() -> io::Result<()> {
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map(drop)
}

/// Signals that ask to stop. Listened for before anything starts: whoever reads that doorward serves may stop it at
/// once, and even then requests are finished and directories removed.
struct StopSignals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn listen() -> io::Result<Self> {
        let runtime = runtime()?;
        let entered = runtime.enter();
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        // Not used yet, and never a reason to die: once listened for, the default action is gone for good.
        for kind in [SignalKind::hangup(), SignalKind::user_defined1(), SignalKind::user_defined2()] {
            drop(signal(kind)?);
        }
        outlive_file_limit()?;
        drop(entered);
        Ok(Self { runtime, terminate, interrupt })
    }

    /// Waits for SIGTERM or SIGINT, then stops; a second one ends at once.
    fn wait(self, stop: impl FnOnce() + Send + 'static) -> Result<ExitCode, Failure> {
        let Self { runtime, mut terminate, mut interrupt } = self;
        runtime.block_on(async {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::info!("stopping: requests under way are finished");
            let (stopped, wait) = tokio::sync::oneshot::channel();
            std::thread::Builder::new().name("stop".to_owned()).spawn(move || {
                stop();
                // Nobody waits any more after a second signal.
                stopped.send(()).unwrap_or_default();
            })?;
            tokio::select! {
                _ = wait => Ok(ExitCode::SUCCESS),
                _ = terminate.recv() => Ok(signalled(SIGTERM)),
                _ = interrupt.recv() => Ok(signalled(SIGINT)),
            }
        })
    }
}

fn add_user(path: &Path, user: &AddUser) -> Result<ExitCode, Failure> {
    let config = load(path)?.config;
    let password = secrets::new_password(&user.username)?;
    let account = NewAccount {
        username: user.username.clone(),
        password,
        email: user.email.clone(),
        is_staff: user.staff,
        groups: user.groups.clone(),
    };
    match act(&config, async |backing| backing.credentials.add_user(account).await)? {
        Ok(_) => say(&format!("Added user {}", user.username))?,
        Err(CredentialsError::Store(StoreError::Conflict)) => {
            return Err(format!("there is a user {} already", user.username).into());
        }
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn create_token(path: &Path, token: &CreateToken) -> Result<ExitCode, Failure> {
    let config = load(path)?.config;
    let CreateToken { username, name } = token;
    let created = act(&config, async |backing| {
        backing.credentials.create_token(username, name, TokenOrigin::Command).await
    })?;
    match created {
        // DRF 3.18, `drf_create_token`.
        Ok(created) => {
            let key = String::from_utf8_lossy(created.key.expose());
            say(&format!("Generated token {key} for user {username}"))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(CredentialsError::NoSuchUser) => {
            Err(format!("Cannot create the Token: user {username} does not exist").into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Opens the store for one act.
fn act<T>(config: &Config, act: impl AsyncFnOnce(Backing) -> T) -> Result<T, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    runtime()?.block_on(async {
        outlive_file_limit()?;
        let backing = Backing::open(config, &clock).await?;
        Ok(act(backing).await)
    })
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Loads the file and shows its warnings.
fn load(path: &Path) -> Result<Loaded, Failure> {
    match Config::load(path) {
        Ok(loaded) => {
            let warnings = loaded.render_warnings(io::stderr().is_terminal());
            if !warnings.is_empty() {
                tell_plain(&warnings);
            }
            Ok(loaded)
        }
        Err(ConfigError::Problems(faulty)) => {
            tell_plain(&faulty.render(io::stderr().is_terminal()));
            Err(format!("{} cannot be used", path.display()).into())
        }
        Err(error @ ConfigError::Unreadable { .. }) => {
            let hint = "write one (the smallest is in README.md) or name another with --config";
            Err(format!("{}; {hint}", chain(&error)).into())
        }
    }
}

/// An error with all its causes, on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn say(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}

fn tell(text: &str) {
    tell_plain(&format!("error: {text}\n"));
}

/// Standard error may be gone; there is nobody left to tell then.
fn tell_plain(text: &str) {
    io::stderr().write_all(text.as_bytes()).unwrap_or_default();
}
