//! `[cors]`: which pages of other origins may read doorward's own answers (Fetch standard, section 3.3).

use std::collections::BTreeSet;

use crate::config::problem::{Fault, Problems, quote};
use crate::config::raw;

/// Who may read answers in a browser.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    /// As browsers send them in `Origin`: `scheme://host[:port]`; none by default.
    pub origins: Vec<String>,
    /// Whether pages of these origins may send cookies along.
    pub credentials: bool,
}

impl Cors {
    pub(super) fn from_raw(raw: raw::Cors, problems: &mut Problems) -> Self {
        let written = raw.origins.map(toml::Spanned::into_inner).unwrap_or_default();
        let mut seen = BTreeSet::new();
        for origin in &written {
            if !seen.insert(origin.value.0.as_str()) {
                let fault = Fault::new(format!("origin {} is listed twice", quote(&origin.value.0)));
                problems.error(&origin.span, fault.help("keep one"));
            }
        }
        let origins = written.into_iter().map(|origin| origin.value.0).collect();
        Self { origins, credentials: raw.credentials.is_some_and(|entry| entry.value) }
    }
}
