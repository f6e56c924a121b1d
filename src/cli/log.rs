//! The log as the configuration has it, and as it has it after a reload.

use crate::app::Options;
use crate::cli::tell::{Failure, chain, tell};
use crate::config::{self, LogFormat, Share};
use crate::telemetry::{AccessLog, Format, LogGuard, LogHandle, LogSettings, start_log};
use parking_lot::Mutex;
use std::error::Error;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

/// The log of the process and its access lines.
#[derive(Debug)]
pub(in crate::cli) struct Log {
    handle: LogHandle,
    access: Arc<AccessLog>,
    /// The file that is written; `None`: standard error.
    file: Mutex<Option<PathBuf>>,
}

impl Log {
    /// Starts the log; it is written until the guard is dropped.
    pub(in crate::cli) fn start(log: &config::Log) -> Result<(Self, LogGuard), Failure> {
        let format = match log.format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        };
        let settings = LogSettings { format, level: log.level.into(), file: log.file.as_deref() };
        let guard = start_log(&settings)?;
        let access = Arc::new(AccessLog::new(one_of(log.passes)));
        Ok((Self { handle: guard.handle(), access, file: Mutex::new(log.file.clone()) }, guard))
    }

    /// How the gateway is started with it.
    pub(in crate::cli) fn options(&self) -> Options {
        Options { observer: Arc::clone(&self.access) as _, ..Options::default() }
    }

    /// Puts another configuration in place; the format stays. Whether its file could be opened.
    pub(in crate::cli) fn set(&self, log: &config::Log) -> bool {
        self.handle.set_level(log.level.into());
        self.access.set_passes(one_of(log.passes));
        let is_same = *self.file.lock() == log.file;
        is_same || self.open(log.file.clone())
    }

    /// Opens the file anew, since it may have been moved. Whether it could be.
    pub(in crate::cli) fn reopen(&self) -> bool {
        let file = self.file.lock().clone();
        file.is_none() || self.open(file)
    }

    /// What cannot be opened leaves everything as it was.
    fn open(&self, file: Option<PathBuf>) -> bool {
        match self.handle.reopen(file.as_deref()) {
            Ok(()) => {
                *self.file.lock() = file;
                true
            }
            Err(error) => {
                // The file that is open may be one that nobody finds any more.
                tell(&format!("{}: the log is still written to the file that was open", chain(&error)));
                let error = &error as &dyn Error;
                tracing::error!(error, "the log is still written to the file that was open");
                false
            }
        }
    }
}

fn one_of(share: Share) -> Option<NonZeroU32> {
    match share {
        Share::None => None,
        Share::OneOf(number) => Some(number),
    }
}
