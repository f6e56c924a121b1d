//! The deployment key: a secret that replicas share, made on first start where there is one process.

use crate::app::AppError;
use crate::config::DeploymentKey;
use crate::secret::Secret;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Random bytes of a new key, written in hex.
const KEY_BYTES: usize = 32;

/// The key; a file that is not there is made, readable by its owner only.
pub(in crate::app) fn key(key: &DeploymentKey) -> Result<Secret, AppError> {
    match key {
        DeploymentKey::Given(secret) => Ok(secret.clone()),
        DeploymentKey::File(path) => {
            read_or_make(path).map_err(|source| AppError::DeploymentKey { path: path.clone(), source })
        }
    }
}

fn read_or_make(path: &Path) -> io::Result<Secret> {
    match make(path) {
        // Somebody else made it, now or before.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(path),
        other => other,
    }
}

fn read(path: &Path) -> io::Result<Secret> {
    let bytes = fs::read(path)?;
    let key = bytes.trim_ascii();
    if key.len() < crate::config::DEPLOYMENT_KEY_BYTES_MIN {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the key is too short: remove the file and start again",
        ));
    }
    Ok(Secret::new(key))
}

fn make(path: &Path) -> io::Result<Secret> {
    if path.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let key = Secret::random_hex::<KEY_BYTES>("").map_err(io::Error::other)?;
    // Whole or not at all, and never over another one.
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(key.expose())?;
    file.sync_all()?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    linked.map(|()| key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_key_is_made_once_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("doorward.key");
        let first = key(&DeploymentKey::File(path.clone())).unwrap();
        assert_eq!(first.expose().len(), 2 * KEY_BYTES);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(key(&DeploymentKey::File(path.clone())).unwrap(), first);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        fs::write(&path, "short").unwrap();
        assert!(key(&DeploymentKey::File(path)).is_err());
    }
}
