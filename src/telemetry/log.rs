//! The log of the process: from events to lines, by a bounded queue to a thread that writes them.

use crate::telemetry::writer::{Output, Writer};
use parking_lot::Mutex;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait for the log's thread, at most; what comes then is counted and dropped.
pub const QUEUE_LINES: usize = QUEUE_BYTES / LINE_OVERHEAD;
/// Memory for them, at most: whoever asks for long paths must not make a slow disk cost more.
pub const QUEUE_BYTES: usize = 16 << 20;
/// What a line costs besides its bytes, generously.
const LINE_OVERHEAD: usize = 256;

/// The log of this process, once it was started.
static STARTED: OnceLock<LogHandle> = OnceLock::new();

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How the log is started.
#[derive(Debug, Clone, Copy)]
pub struct LogSettings<'a> {
    /// How lines are written; fixed for the life of the process.
    pub format: Format,
    /// The least important events that are written.
    pub level: tracing::Level,
    /// Where to; `None`: standard error.
    pub file: Option<&'a Path>,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be opened or made.
    #[error("cannot open the log file {} ([log] file)", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Keeps the log's thread; what was logged is written out when it is dropped, within a second.
#[must_use]
#[derive(Debug)]
pub struct LogGuard {
    handle: LogHandle,
    _worker: WorkerGuard,
}

impl LogGuard {
    /// For changes while it runs.
    pub fn handle(&self) -> LogHandle {
        self.handle.clone()
    }
}

/// Changes the log while it runs; clones are the same.
#[derive(Clone)]
pub struct LogHandle {
    shared: Arc<Shared>,
    set_level: Arc<dyn Fn(tracing::Level) + Send + Sync>,
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHandle").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl LogHandle {
    /// Opens the file anew, or another one; lines that come from now on go there, each whole.
    ///
    /// Blocks: it opens a file.
    ///
    /// # Errors
    /// If it cannot be opened; the old one stays then.
    pub fn reopen(&self, file: Option<&Path>) -> Result<(), LogError> {
        self.shared.put_next(Output::open(file)?);
        Ok(())
    }

    /// The least important events that are written from now on.
    pub fn set_level(&self, level: tracing::Level) {
        (self.set_level)(level);
    }

    /// Lines that were lost since the start: the queue was full, or could not be written.
    pub fn dropped_lines(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

/// Lines of this process's log that were lost since its start, because what it is written to was slow or full.
pub fn dropped_lines() -> u64 {
    STARTED.get().map_or(0, LogHandle::dropped_lines)
}

/// What the log's thread and everybody else have in common.
#[derive(Debug, Default)]
pub(in crate::telemetry) struct Shared {
    /// Lines that were lost.
    pub(in crate::telemetry) dropped: AtomicU64,
    /// What the lines in the queue cost; at most [`QUEUE_BYTES`].
    queued: AtomicUsize,
    /// Where to write from now on.
    next: Mutex<Option<Output>>,
    /// Whether there is one, so that the lock is not taken for each line.
    has_next: AtomicBool,
}

impl Shared {
    /// Where to write from now on.
    pub(in crate::telemetry) fn put_next(&self, output: Output) {
        *self.next.lock() = Some(output);
        self.has_next.store(true, Ordering::Release);
    }

    /// Where to write from now on, if that has changed.
    pub(in crate::telemetry) fn take_next(&self) -> Option<Output> {
        let has_next = self.has_next.load(Ordering::Relaxed) && self.has_next.swap(false, Ordering::Acquire);
        if has_next { self.next.lock().take() } else { None }
    }

    /// Whether there is room for a line in the queue; it is taken then.
    pub(in crate::telemetry) fn enter(&self, line: &[u8]) -> bool {
        let cost = line.len().saturating_add(LINE_OVERHEAD);
        let before = self.queued.fetch_add(cost, Ordering::Relaxed);
        let fits = before.saturating_add(cost) <= QUEUE_BYTES;
        if !fits {
            self.queued.fetch_sub(cost, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    /// Whether nothing waits in the queue.
    pub(in crate::telemetry) fn is_empty(&self) -> bool {
        self.queued.load(Ordering::Relaxed) == 0
    }

    /// A line has left the queue.
    pub(in crate::telemetry) fn leave(&self, line: &[u8]) {
        self.queued.fetch_sub(line.len().saturating_add(LINE_OVERHEAD), Ordering::Relaxed);
    }
}

/// The way into the queue: never waits.
#[derive(Debug, Clone)]
struct Queue {
    shared: Arc<Shared>,
    // Has room for as many lines as can be entered, so it never drops one itself.
    lines: NonBlocking,
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.shared.enter(line) { self.lines.write(line) } else { Ok(line.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Libraries only tell what someone must act on; what h2 warns of, any client can provoke.
fn filter(level: tracing::Level) -> EnvFilter {
    EnvFilter::new(format!("warn,h2=error,doorward={level}"))
}

/// Starts the log. Only the first call of a process has an effect.
///
/// # Errors
/// If its file cannot be opened.
pub fn start_log(settings: &LogSettings<'_>) -> Result<LogGuard, LogError> {
    let shared = Arc::new(Shared::default());
    let writer = Writer::new(Output::open(settings.file)?, settings.format, Arc::clone(&shared));
    let (lines, worker) =
        NonBlockingBuilder::default().buffered_lines_limit(QUEUE_LINES).thread_name("log").finish(writer);
    let queue = Queue { shared: Arc::clone(&shared), lines };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(settings.level))
        .with_writer(queue)
        .with_ansi(false)
        .with_target(false);
    // The handle's type is that of the format.
    macro_rules! start {
        ($builder:expr) => {{
            let builder = $builder.with_filter_reloading();
            let filters = builder.reload_handle();
            let set_level = move |level| {
                // It fails only if there is no log any more.
                filters.reload(filter(level)).unwrap_or_default();
            };
            (builder.try_init().is_ok(), Arc::new(set_level) as Arc<dyn Fn(tracing::Level) + Send + Sync>)
        }};
    }
    let (is_first, set_level) = match settings.format {
        Format::Text => start!(builder),
        Format::Json => start!(builder.json().flatten_event(true)),
    };
    let handle = LogHandle { shared, set_level };
    if is_first {
        STARTED.get_or_init(|| handle.clone());
    } else {
        tracing::debug!("the log was started before");
    }
    Ok(LogGuard { handle, _worker: worker })
}

/// The lines that an event becomes, without the queue: for what the log's thread itself has to tell.
pub(in crate::telemetry) fn rendered(format: Format, event: impl FnOnce()) -> Vec<u8> {
    let lines = Lines::default();
    let builder = tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).with_target(false);
    match format {
        Format::Text => tracing::subscriber::with_default(builder.finish(), event),
        Format::Json => {
            tracing::subscriber::with_default(builder.json().flatten_event(true).finish(), event);
        }
    }
    std::mem::take(&mut *lines.0.lock())
}

/// Lines in memory.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_bounded_in_bytes_and_in_lines() {
        let shared = Shared::default();
        let long = vec![b'x'; 64 << 10];
        let fit = (0..10_000).filter(|_| shared.enter(&long)).count();
        assert_eq!(fit, QUEUE_BYTES / (long.len() + LINE_OVERHEAD));
        assert_eq!(shared.dropped.load(Ordering::Relaxed), 10_000 - fit as u64);
        (0..fit).for_each(|_| shared.leave(&long));
        assert_eq!(shared.queued.load(Ordering::Relaxed), 0);
        let fit = (0..QUEUE_LINES * 2).filter(|_| shared.enter(b"")).count();
        assert_eq!(fit, QUEUE_LINES);
    }

    #[test]
    fn what_the_thread_tells_looks_like_any_other_line() {
        let json = rendered(Format::Json, || tracing::warn!(count = 3, "told"));
        let line: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            (&line["message"], &line["count"], &line["level"]),
            (&"told".into(), &3.into(), &"WARN".into())
        );
        let text = String::from_utf8(rendered(Format::Text, || tracing::warn!(count = 3, "told"))).unwrap();
        assert!(text.ends_with("WARN told count=3\n"), "{text}");
    }
}
