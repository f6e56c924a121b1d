//! What the log's thread does: whole lines into a file that may be moved, full, slow, or all of it.
//!
//! Lines are collected and written when the queue is empty or enough have come. What could not be written stays, up
//! to a bound, and goes first when there is room again, so no line is cut in two. Whatever cannot be kept is counted,
//! and told of in the log itself as soon as it flows again.

use crate::telemetry::log::{Format, LogError, QUEUE_LINES, Shared, rendered};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes of lines that are collected before they are written, and kept while they cannot be.
const PENDING_BYTES: usize = 64 << 10;
/// The owner writes, and the group may read: whoever ships logs need not be doorward. Nobody else may, since paths and
/// addresses of clients are theirs.
const MODE: u32 = 0o640;

/// Where lines go.
#[derive(Debug)]
pub(in crate::telemetry) enum Output {
    /// Standard error.
    Standard,
    /// A file, opened to append.
    File(File),
}

impl Output {
    /// Opens the file, or makes it; `None` is standard error.
    pub(in crate::telemetry) fn open(file: Option<&Path>) -> Result<Self, LogError> {
        let Some(path) = file else { return Ok(Self::Standard) };
        open(path).map(Self::File).map_err(|source| LogError::Open { path: path.to_owned(), source })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Standard => io::stderr().write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // A pipe that nobody has opened to read is an error at once, not a start that never ends.
    options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    options.append(true).mode(MODE);
    let file = match options.clone().create_new(true).open(path) {
        Ok(made) => {
            // Services run with a umask that leaves the group nothing. A file that was there is as somebody wants it.
            made.set_permissions(Permissions::from_mode(MODE))?;
            made
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.create(true).open(path)?,
        Err(error) => return Err(error),
    };
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

/// Writes lines. Its `write` takes a line and never fails: the thread that calls it has nobody to tell.
#[derive(Debug)]
pub(in crate::telemetry) struct Writer {
    output: Output,
    format: Format,
    shared: Arc<Shared>,
    /// Lines that are not written yet.
    pending: Vec<u8>,
    /// The first of them is in the output in part.
    is_torn: bool,
    /// The last attempt to write failed, and was told of.
    is_failing: bool,
    /// How many lost lines were told of.
    told: u64,
}

impl Writer {
    pub(in crate::telemetry) fn new(output: Output, format: Format, shared: Arc<Shared>) -> Self {
        Self { output, format, shared, pending: Vec::new(), is_torn: false, is_failing: false, told: 0 }
    }

    /// Goes on to another output, if there is one: what came before goes to the old one if that takes it.
    fn turn(&mut self) {
        let Some(next) = self.shared.take_next() else { return };
        self.drain();
        if self.is_torn {
            // The rest of that line would make no sense elsewhere.
            let end =
                self.pending.iter().position(|byte| *byte == b'\n').map_or(self.pending.len(), |at| at + 1);
            self.pending.drain(..end);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.output = next;
        (self.is_torn, self.is_failing) = (false, false);
    }

    /// Writes what is pending, as far as that can be done.
    fn drain(&mut self) {
        while !self.pending.is_empty() {
            match self.output.write(&self.pending) {
                Ok(0) => return self.failed(&io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    let last = self.pending.drain(..written.min(self.pending.len())).next_back();
                    self.is_torn = last != Some(b'\n');
                    self.is_failing = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.failed(&error),
            }
        }
    }

    /// Says so on standard error, once until it works again.
    fn failed(&mut self, error: &io::Error) {
        if self.is_failing {
            return;
        }
        self.is_failing = true;
        if matches!(self.output, Output::File(_)) {
            let line = rendered(self.format, || {
                tracing::error!(%error, "the log file cannot be written; lines are dropped until it can be");
            });
            // There is nobody else to tell.
            io::stderr().write_all(&line).unwrap_or_default();
        }
    }

    /// Tells in the log how many lines are missing there.
    fn tell_dropped(&mut self) {
        let total = self.shared.dropped.load(Ordering::Relaxed);
        let log_lines_dropped = total.saturating_sub(self.told);
        if log_lines_dropped == 0 || self.is_failing {
            return;
        }
        self.told = total;
        let line = rendered(self.format, || {
            tracing::warn!(
                log.lines_dropped = log_lines_dropped,
                log.lines_dropped_total = total,
                "log lines were dropped here: what the log is written to was slow or full"
            );
        });
        self.pending.extend_from_slice(&line);
        self.drain();
    }
}

impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.shared.leave(line);
        self.turn();
        let would_be = |pending: &Vec<u8>| pending.len().saturating_add(line.len());
        if would_be(&self.pending) > PENDING_BYTES {
            self.drain();
            // Where lines come faster than they can be written, the queue is never empty: it is told now and then.
            let untold = self.shared.dropped.load(Ordering::Relaxed).saturating_sub(self.told);
            if untold >= QUEUE_LINES as u64 {
                self.tell_dropped();
            }
        }
        if self.pending.is_empty() || would_be(&self.pending) <= PENDING_BYTES {
            self.pending.extend_from_slice(line);
        } else {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    /// Called when the queue is empty.
    fn flush(&mut self) -> io::Result<()> {
        self.turn();
        self.drain();
        // While this waited for the disk, lines may have come: the gap is behind them.
        if self.shared.is_empty() {
            self.tell_dropped();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer into the file `log`.
    fn writer(directory: &Path, shared: &Arc<Shared>) -> Writer {
        let output = Output::open(Some(&directory.join("log"))).unwrap();
        Writer::new(output, Format::Json, Arc::clone(shared))
    }

    fn put(writer: &mut Writer, line: &[u8]) {
        assert!(writer.shared.enter(line));
        writer.write_all(line).unwrap();
    }

    fn read(directory: &Path, name: &str) -> String {
        std::fs::read_to_string(directory.join(name)).unwrap()
    }

    #[test]
    fn lines_are_collected_until_the_queue_is_empty() {
        let (directory, shared) = (tempfile::tempdir().unwrap(), Arc::new(Shared::default()));
        let mut writer = writer(directory.path(), &shared);
        put(&mut writer, b"one\n");
        put(&mut writer, b"two\n");
        assert_eq!(read(directory.path(), "log"), "");
        writer.flush().unwrap();
        assert_eq!(read(directory.path(), "log"), "one\ntwo\n");
        let long = [vec![b'x'; PENDING_BYTES * 2], vec![b'\n']].concat();
        put(&mut writer, b"three\n");
        put(&mut writer, &long);
        assert!(read(directory.path(), "log").ends_with("three\n"));
        writer.flush().unwrap();
        assert!(read(directory.path(), "log").ends_with("x\n"), "longer than what is collected, and written");
    }

    #[test]
    fn what_cannot_be_written_stays_up_to_a_bound_and_is_told_of() {
        let (directory, shared) = (tempfile::tempdir().unwrap(), Arc::new(Shared::default()));
        let mut writer = writer(directory.path(), &shared);
        writer.output = Output::open(Some(Path::new("/dev/full"))).unwrap();
        let line = [vec![b'x'; 999], vec![b'\n']].concat();
        for _ in 0..100 {
            put(&mut writer, &line);
            writer.flush().unwrap();
        }
        let dropped = shared.dropped.load(Ordering::Relaxed);
        assert_eq!((writer.pending.len(), dropped), (65_000, 35));
        writer.output = Output::open(Some(&directory.path().join("log"))).unwrap();
        writer.flush().unwrap();
        let log = read(directory.path(), "log");
        assert_eq!(log.lines().count(), 66);
        let last: serde_json::Value = serde_json::from_str(log.lines().next_back().unwrap()).unwrap();
        assert_eq!((&last["log.lines_dropped"], &last["level"]), (&35.into(), &"WARN".into()));
        writer.flush().unwrap();
        assert_eq!(read(directory.path(), "log"), log, "told once");
    }

    #[test]
    fn the_rest_of_a_torn_line_does_not_begin_another_file() {
        let (directory, shared) = (tempfile::tempdir().unwrap(), Arc::new(Shared::default()));
        let mut writer = writer(directory.path(), &shared);
        writer.output = Output::open(Some(Path::new("/dev/full"))).unwrap();
        writer.pending = b"rest of a line\nwhole\n".to_vec();
        writer.is_torn = true;
        shared.put_next(Output::open(Some(&directory.path().join("new"))).unwrap());
        writer.flush().unwrap();
        let log = read(directory.path(), "new");
        assert!(log.starts_with("whole\n{") && log.lines().count() == 2, "{log}");
        assert_eq!(shared.dropped.load(Ordering::Relaxed), 1);
    }
}
