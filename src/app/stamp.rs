//! Whether a file is still the one that was read.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Tells one state of a file from another: its device, inode, size and time of change (s, ns).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(u64, u64, u64, (i64, i64));

impl Stamp {
    /// Of the file as it is now, behind links; `None`: there is none that may be looked at.
    pub fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self(file.dev(), file.ino(), file.size(), (file.mtime(), file.mtime_nsec())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_written_or_replaced_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        assert_eq!(Stamp::of(&path), None);
        fs::write(&path, "1").unwrap();
        let first = Stamp::of(&path);
        assert_eq!(Stamp::of(&path), first);
        fs::write(&path, "12").unwrap();
        let second = Stamp::of(&path);
        assert_ne!(second, first);
        let other = directory.path().join("b");
        fs::write(&other, "34").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_ne!(Stamp::of(&path), second);
    }
}
