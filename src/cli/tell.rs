//! What people and scripts read: standard output, standard error, errors in words.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

/// A command that failed, with what to do.
pub(in crate::cli) type Failure = Box<dyn Error + Send + Sync>;

/// Standard output as a file. The standard library's own handle takes it for written if the descriptor cannot be
/// written to, and keeps lines in memory.
pub(in crate::cli) fn output() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// Refuses to go on if nobody can read standard output: what is shown only once would be lost. A descriptor that the
/// caller closed leads to the null device, too: that is where the standard library lets it lead.
pub(in crate::cli) fn somebody_reads() -> io::Result<()> {
    let (output, null) = (output()?.metadata()?, fs::metadata("/dev/null")?);
    if output.file_type().is_char_device() && output.rdev() == null.rdev() {
        let text = "standard output is closed or leads to /dev/null: nobody would see the token";
        return Err(io::Error::new(io::ErrorKind::BrokenPipe, text));
    }
    Ok(())
}

/// Writes a line to standard output.
pub(in crate::cli) fn say(text: &str) -> io::Result<()> {
    output()?.write_all(format!("{text}\n").as_bytes())
}

/// Writes an error to standard error.
pub(in crate::cli) fn tell(text: &str) {
    tell_plain(&format!("error: {text}\n"));
}

/// Standard error may be gone; there is nobody left to tell then.
pub(in crate::cli) fn tell_plain(text: &str) {
    io::stderr().write_all(text.as_bytes()).unwrap_or_default();
}

/// An error with all its causes, on one line.
pub(in crate::cli) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        // Some errors tell their cause themselves.
        if !text.ends_with(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = error.source();
    }
    text
}

/// Whether whoever read standard output has seen enough, as `head` does: nothing to complain of.
pub(in crate::cli) fn reader_left(error: &Failure) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe && error.raw_os_error().is_some())
}

/// "1 token", "2 tokens".
pub(in crate::cli) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
