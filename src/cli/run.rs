//! Runs the commands.

use crate::accept::inherited::Inherited;
use crate::accept::tls::{self, Tickets};
use crate::app::demo::Demo;
use crate::app::{AppError, Running, Stamp, log_summary};
use crate::cli::act::{load, outlive_file_limit, runtime};
use crate::cli::first::First;
use crate::cli::log::Log;
use crate::cli::manager::{Moment, Outcome};
use crate::cli::reload::reload;
use crate::cli::tell::{Failure, chain, counted, reader_left, say, tell};
use crate::cli::{
    Arguments, Command, Proxy, Serve, bench, describe, django, first, group, manager, signalled, status,
    token, user,
};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{self, LogLevel};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Numbers of the signals that stop (POSIX).
const SIGHUP: u8 = 1;
const SIGINT: u8 = 2;
const SIGTERM: u8 = 15;

/// Reads the configuration anew.
type Reload = Arc<dyn Fn() -> Outcome + Send + Sync>;

/// Between two looks at a file that is watched.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Runs the command; the exit code is 0, or 1 with the reason on standard error.
pub fn run(arguments: &Arguments) -> ExitCode {
    let config = &arguments.config;
    let ran = match &arguments.command {
        Command::Demo => demo(),
        Command::Proxy(wanted) => proxy(config, wanted),
        Command::Init(wanted) => first::init(config, wanted).map(done),
        Command::Check => check(config).map(done),
        Command::Serve(options) => serve(config, options),
        Command::Status(wanted) => status::run(config, wanted).map(done),
        Command::User(command) => user::run(config, command).map(done),
        Command::Group(command) => group::run(config, command).map(done),
        Command::Token(command) => token::run(config, command).map(done),
        Command::Django(command) => django::run(config, command).map(done),
        Command::Bench(command) => bench::run(arguments.names_config.then_some(config.as_path()), command),
        Command::Schema => describe::schema().map(done),
        Command::Completions(wanted) => describe::completions(wanted).map(done),
        Command::Man(wanted) => describe::manual(wanted).map(done),
    };
    ran.unwrap_or_else(|error| {
        if !reader_left(&error) {
            tell(&chain(error.as_ref()));
        }
        ExitCode::FAILURE
    })
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

fn check(path: &Path) -> Result<(), Failure> {
    let loaded = load(path)?;
    let config = &loaded.config;
    if !config.tls.certificates.is_empty() {
        tls::server_config(&config.tls, &config.tls.certificates, &Tickets::default())?;
        let now = SystemClock::new().unix();
        tls::facts(&config.tls.certificates).iter().try_for_each(|facts| facts.good_at(now))?;
    }
    let routes = counted(config.routes.len(), "route");
    let upstreams = counted(config.upstreams.len(), "upstream");
    Ok(say(&format!("{} is good: {routes}, {upstreams}", path.display()))?)
}

fn serve(path: &Path, options: &Serve) -> Result<ExitCode, Failure> {
    // First of all, while there is but one thread.
    let inherited = Inherited::take()?;
    // From before it is read: what is written meanwhile is a change.
    let watched = options.watch.then(|| Watched::new(path));
    let config = load(path)?.config;
    let (log, guard) = Log::start(&config.log)?;
    let stop = StopSignals::listen()?;
    let running = Running::start_with(&config, log.options(), inherited)?;
    log_summary(&config, &running);
    let (file, reloader) = (path.to_owned(), Arc::clone(running.reloader()));
    let reload: Reload = Arc::new(move || reload(&file, &reloader, &log));
    let code = stop.wait(move || running.stop(), &reload, watched)?;
    drop(guard);
    Ok(code)
}

/// As [`serve`], with the file that these arguments stand for.
fn proxy(path: &Path, wanted: &Proxy) -> Result<ExitCode, Failure> {
    let first = First::new(path, wanted)?;
    let config = &first.config;
    let (log, guard) = Log::start(&config.log)?;
    let stop = StopSignals::listen()?;
    let running = Running::start(config, log.options()).map_err(explain_taken)?;
    log_summary(config, &running);
    say(&first.steps(&running))?;
    let code = stop.wait(move || running.stop(), &no_file(), None)?;
    drop(guard);
    Ok(code)
}

/// An address that is taken, with what to write instead.
fn explain_taken(error: AppError) -> Failure {
    match &error {
        AppError::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
            format!("{}; name another with --listen, such as --listen :9443", chain(&error)).into()
        }
        _ => error.into(),
    }
}

/// A file that is reloaded when it changes.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    /// As it was last read; `None`: there was none.
    known: Option<Stamp>,
}

impl Watched {
    /// As it is now.
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), known: Stamp::of(path) }
    }

    /// Waits until the file is another one than it was known as, there is one, and it is not being written any more:
    /// two looks see the same.
    async fn changed(&mut self) {
        let mut seen = self.known;
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let stamp = Stamp::of(&self.path);
            if stamp.is_some() && stamp != self.known && stamp == seen {
                self.known = stamp;
                return;
            }
            seen = stamp;
        }
    }
}

/// Never, if nothing is watched.
async fn changed(watched: &mut Option<Watched>) {
    match watched {
        Some(watched) => watched.changed().await,
        None => std::future::pending().await,
    }
}

fn demo() -> Result<ExitCode, Failure> {
    let (_, guard) = Log::start(&config::Log { level: LogLevel::Warn, ..config::Log::default() })?;
    let stop = StopSignals::listen()?;
    let demo = Demo::start()?;
    say(&demo.instructions())?;
    let code = stop.wait(
        move || {
            if let Err(error) = demo.stop() {
                tracing::warn!(%error, "the demonstration's directory could not be removed");
            }
        },
        &no_file(),
        None,
    )?;
    drop(guard);
    Ok(code)
}

/// There is no file to read anew.
fn no_file() -> Reload {
    Arc::new(|| Outcome::Refused)
}

/// Signals that ask to stop. Listened for before anything starts: whoever reads that doorward serves may stop it at
/// once, and even then requests are finished and directories removed.
pub(in crate::cli) struct StopSignals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl StopSignals {
    pub(in crate::cli) fn listen() -> io::Result<Self> {
        let runtime = runtime()?;
        let entered = runtime.enter();
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let hangup = signal(SignalKind::hangup())?;
        // Not used yet, and never a reason to die: once listened for, the default action is gone for good.
        for kind in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
            drop(signal(kind)?);
        }
        outlive_file_limit()?;
        drop(entered);
        Ok(Self { runtime, terminate, interrupt, hangup })
    }

    /// Reloads at each SIGHUP, and when the watched file changes. Waits for SIGTERM or SIGINT, then stops; a second
    /// one ends at once.
    fn wait(
        self,
        stop: impl FnOnce() + Send + 'static,
        reload: &Reload,
        mut watched: Option<Watched>,
    ) -> Result<ExitCode, Failure> {
        let Self { runtime, mut terminate, mut interrupt, mut hangup } = self;
        manager::tell(Moment::Serving);
        let ended = runtime.block_on(async {
            let reloads = async {
                // One after the other; signals that come meanwhile are one.
                loop {
                    tokio::select! {
                        _ = hangup.recv() => {}
                        () = changed(&mut watched) => {}
                    }
                    let reload = Arc::clone(reload);
                    manager::tell(Moment::Reloading);
                    let outcome = tokio::task::spawn_blocking(move || reload()).await.unwrap_or_else(|_| {
                        tracing::error!("a panic while the configuration was reloaded: the old one stays");
                        Outcome::Refused
                    });
                    manager::tell(Moment::Reloaded(outcome));
                }
            };
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {}, () = reloads => {} }
            manager::tell(Moment::Stopping);
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
        });
        // A reload that hangs at a file holds nobody.
        runtime.shutdown_background();
        ended
    }

    /// Does something that ends by itself, on a thread of its own. A signal asks it by `stop` to end early; a second
    /// one ends at once. What came of it, or the exit code that is due to the signal.
    pub(in crate::cli) fn during<T: Send + 'static>(
        self,
        stop: &CancellationToken,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Result<T, ExitCode>, Failure> {
        let Self { runtime, mut terminate, mut interrupt, mut hangup } = self;
        runtime.block_on(async {
            let (done, mut wait) = tokio::sync::oneshot::channel();
            std::thread::Builder::new().name("work".to_owned()).spawn(move || {
                // Nobody waits any more after a second signal.
                done.send(work()).map_err(drop).unwrap_or_default();
            })?;
            let mut signal = None;
            loop {
                let number = tokio::select! {
                    done = &mut wait => {
                        let done = done.map_err(|_| "a panic: this is a bug of doorward")?;
                        return Ok(signal.map_or(Ok(done), |number| Err(signalled(number))));
                    }
                    _ = terminate.recv() => SIGTERM,
                    _ = interrupt.recv() => SIGINT,
                    _ = hangup.recv() => SIGHUP,
                };
                if signal.replace(number).is_some() {
                    return Ok(Err(signalled(number)));
                }
                stop.cancel();
            }
        })
    }
}
