//! `[deployment]`: the key that all replicas of one deployment share.

use std::path::{Path, PathBuf};

use toml::Spanned;

use crate::config::Source;
use crate::config::problem::{Fault, Problems, quote};
use crate::config::raw::{self, Indirect};
use crate::config::value::resolve;
use crate::secret::Secret;

/// A key shorter than this could be guessed.
pub const DEPLOYMENT_KEY_BYTES_MIN: usize = 32;

/// What is common to all replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Names credentials in logs and caches (HMAC).
    pub key: DeploymentKey,
}

/// Where the deployment key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeploymentKey {
    /// Given in the environment or in the file.
    Given(Secret),
    /// In a file, which is made on first start.
    File(PathBuf),
}

impl Deployment {
    pub(super) fn from_raw(raw: raw::Deployment, source: &Source, problems: &mut Problems) -> Self {
        let default = || DeploymentKey::File(resolve(&source.directory, Path::new("doorward.key")));
        let key = raw.key.and_then(|key| deployment_key(key, source, problems));
        Self { key: key.unwrap_or_else(default) }
    }
}

fn deployment_key(
    key: Spanned<raw::Secret>,
    source: &Source,
    problems: &mut Problems,
) -> Option<DeploymentKey> {
    let span = key.span();
    match key.into_inner().0 {
        Indirect::File(path) => {
            let file = resolve(&source.directory, &path.value);
            if file.is_dir() {
                let message = format!("{} is a directory", quote(&file.to_string_lossy()));
                problems.error(&path.span, Fault::new(message));
            }
            return Some(DeploymentKey::File(file));
        }
        Indirect::Environment(name) => {
            let Some(value) = (source.environment)(&name.value) else {
                problems.error(&name.span, not_in_environment(&name.value));
                return None;
            };
            let key = Secret::new(value.into_encoded_bytes());
            if is_long_enough(&key) {
                return Some(DeploymentKey::Given(key));
            }
            problems.error(&name.span, too_short());
        }
        Indirect::Inline(text) => {
            let key = Secret::new(text);
            if is_long_enough(&key) {
                problems.warn(&span, inline());
                return Some(DeploymentKey::Given(key));
            }
            problems.error(&span, too_short());
        }
    }
    None
}

/// A secret that everybody sees who sees the file.
pub(super) fn inline() -> Fault {
    let fault = Fault::new("a secret is written in the configuration file");
    fault.help("better write { env = \"NAME\" } or { file = \"path\" }")
}

/// A variable that is not set.
pub(super) fn not_in_environment(name: &str) -> Fault {
    Fault::new(format!("the environment variable {} is not set", quote(name)))
}

fn is_long_enough(key: &Secret) -> bool {
    key.expose().len() >= DEPLOYMENT_KEY_BYTES_MIN
}

fn too_short() -> Fault {
    let fault = Fault::new(format!("the deployment key has fewer than {DEPLOYMENT_KEY_BYTES_MIN} bytes"));
    fault.help("make one with: openssl rand -base64 48")
}
