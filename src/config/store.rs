//! `[store]`: where users and tokens are kept.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;

use crate::config::Source;
use crate::config::deployment::not_in_environment;
use crate::config::problem::{Fault, Problems, quote};
use crate::config::raw::{self, Indirect};
use crate::config::tls::read_bounded;
use crate::config::value::resolve;

/// A file that holds nothing but a URL is not longer than this.
const URL_BYTES_MAX: u64 = 4096;

/// Where users and tokens are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Which database.
    pub url: StoreUrl,
}

/// A database that this version knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `SQLite` in this file.
    Sqlite(PathBuf),
}

impl Store {
    pub(super) fn from_raw(raw: raw::Store, source: &Source, problems: &mut Problems) -> Self {
        let default = || StoreUrl::Sqlite(resolve(&source.directory, Path::new("doorward.db")));
        let written = raw.url.and_then(|url| url_text(url, source, problems));
        let url = written.and_then(|(text, span)| match store_url(&text, &source.directory) {
            Ok(url) => Some(url),
            Err(fault) => {
                problems.error(&span, fault);
                None
            }
        });
        Self { url: url.unwrap_or_else(default) }
    }
}

/// The URL, wherever it is written, and the place to blame for it.
fn url_text(
    url: Spanned<Indirect>,
    source: &Source,
    problems: &mut Problems,
) -> Option<(String, Range<usize>)> {
    let span = url.span();
    match url.into_inner() {
        Indirect::Inline(text) => Some((text, span)),
        Indirect::Environment(name) => {
            let text = (source.environment)(&name.value).and_then(|value| value.into_string().ok());
            if text.is_none() {
                problems.error(&name.span, not_in_environment(&name.value));
            }
            Some((text?, name.span))
        }
        Indirect::File(path) => {
            let file = resolve(&source.directory, &path.value);
            let text = read_bounded(&file, URL_BYTES_MAX)
                .and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other));
            match text {
                Ok(text) => Some((text.trim_end().to_owned(), path.span)),
                Err(error) => {
                    let message = format!("cannot read {}: {error}", quote(&file.to_string_lossy()));
                    problems.error(&path.span, Fault::new(message));
                    None
                }
            }
        }
    }
}

/// The text is not quoted in faults: it may hold a password.
fn store_url(text: &str, directory: &Path) -> Result<StoreUrl, Fault> {
    let example = "write \"sqlite:doorward.db\"";
    let Some((scheme, rest)) = text.split_once(':') else {
        return Err(Fault::new("expected a database URL such as \"sqlite:doorward.db\"").help(example));
    };
    if scheme != "sqlite" {
        let message = format!("the database {} is not supported", quote(scheme));
        return Err(Fault::new(message).help(format!("this version supports SQLite: {example}")));
    }
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.is_empty() || path.contains(['\0', '?', '#']) {
        return Err(Fault::new("the URL of a SQLite database is `sqlite:` and a path").help(example));
    }
    if path.starts_with(':') {
        return Err(Fault::new("a database in memory would be lost at every stop").help(example));
    }
    Ok(StoreUrl::Sqlite(resolve(directory, Path::new(path))))
}
