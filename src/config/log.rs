//! `[log]`: how much is logged, in which form, and where to.

use std::path::{Path, PathBuf};

use crate::config::problem::{Fault, Problems};
use crate::config::raw;
use crate::config::share::Share;
use crate::config::value::{Written, one_of, resolve};

/// The log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    /// Form of a line.
    pub format: LogFormat,
    /// The least important events that are still logged.
    pub level: LogLevel,
    /// Where it is written to; `None`: standard error.
    pub file: Option<PathBuf>,
    /// How many of the requests that passed have a line; all others always do.
    pub passes: Share,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Importance of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LogLevel {
    /// Someone must act.
    Error,
    /// Someone should look.
    Warn,
    /// One line a request.
    #[default]
    Info,
    /// For finding faults.
    Debug,
    /// Everything.
    Trace,
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

impl Log {
    /// `taken`: files that something else is in, which a log would destroy.
    pub(super) fn from_raw(
        raw: raw::Log,
        directory: &Path,
        taken: &[&Path],
        problems: &mut Problems,
    ) -> Self {
        if let Some(entry) = &raw.file
            && taken.contains(&resolve(directory, &entry.value).as_path())
        {
            let fault = Fault::new("the log would be written into a file that this configuration uses");
            problems.error(&entry.span, fault.help("write the name of a file of its own"));
        }
        Self {
            format: raw.format.map(|entry| entry.value).unwrap_or_default(),
            level: raw.level.map(|entry| entry.value).unwrap_or_default(),
            file: raw.file.map(|entry| resolve(directory, &entry.value)),
            passes: raw.passes.map(|entry| entry.value).unwrap_or_default(),
        }
    }
}

impl Written for LogFormat {
    const EXPECTED: &'static str = "a log format such as \"text\"";
    const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];

    fn from_text(text: &str) -> Result<Self, Fault> {
        one_of(text)
    }
}

impl Written for LogLevel {
    const EXPECTED: &'static str = "a log level such as \"info\"";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];

    fn from_text(text: &str) -> Result<Self, Fault> {
        one_of(text)
    }
}
