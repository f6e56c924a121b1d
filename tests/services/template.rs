//! Data directories of databases, made once and copied: making one takes seconds, and every test binary needs some.
//!
//! Kept under `target/tmp`, for all test binaries of a build, and for all later runs. They may run at the same time.

use super::process::directory;
use rustix::process::getuid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a data directory is made.
pub(crate) struct Template {
    /// With a number, to be counted up when it is made in another way.
    pub(crate) name: &'static str,
    /// Of the server: what another version has made is of no use.
    pub(crate) version: fn() -> String,
    /// Makes it at this path, whose parent is there, is the server's own and goes away.
    pub(crate) make: fn(&Path),
}

/// Copies the data directory into this one, and makes it first if need be; yields its path.
pub(crate) fn copy(template: &Template, directory: &Path) -> PathBuf {
    let source = made(template);
    let data = directory.join("data");
    copy_to(&source, &data);
    data
}

fn made(template: &Template) -> PathBuf {
    let version: String = (template.version)().chars().filter(char::is_ascii_alphanumeric).collect();
    // Of another user's copy nothing can be read.
    let name = format!("{}-{version}-{}", template.name, getuid().as_raw());
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = kept.join(&name);
    fs::create_dir_all(kept).unwrap();
    let lock = File::create(kept.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    if !path.exists() {
        // Where the server's user may go, which is not so under target/.
        let making = directory();
        let data = making.path().join("data");
        (template.make)(&data);
        let half = kept.join(format!("{name}.half"));
        // Left by one that was killed.
        fs::remove_dir_all(&half).unwrap_or_default();
        copy_to(&data, &half);
        fs::rename(&half, &path).unwrap();
    }
    path
}

/// With owners and permissions, and without copying where the file system can share.
fn copy_to(source: &Path, target: &Path) {
    let mut command = Command::new("cp");
    let status =
        command.args(["--archive", "--reflink=auto", "--"]).arg(source).arg(target).status().unwrap();
    assert!(status.success(), "{} is not copied", source.display());
}
