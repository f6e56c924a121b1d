//! `[tls]`: the certificates of the HTTPS listeners.
//!
//! Files are opened while the configuration is read, so that a wrong path is found by `check` and before a reload
//! replaces a plan that works. That a key belongs to its certificate is checked where the TLS settings are built.

use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::problem::{Fault, Problems, quote};
use crate::config::raw;
use crate::config::value::{Entry, Written, one_of, resolve, within};
use crate::secret::Secret;

/// Certificate and key files larger than this are refused.
pub const PEM_BYTES_MAX: u64 = 1 << 20;

/// How TLS is offered to clients.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Chosen by SNI; empty means a self-signed one.
    pub certificates: Vec<CertificateFiles>,
    /// Where the self-signed certificate is made on first start; `certs/` beside the file by default.
    pub self_signed_directory: PathBuf,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Whether browsers are told to come by HTTPS only.
    pub hsts: Option<Hsts>,
}

/// `Strict-Transport-Security` (RFC 6797 section 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hsts {
    /// How long a browser remembers; zero: it is to forget.
    pub max_age: Duration,
    /// For all names below, too.
    pub include_subdomains: bool,
    /// Browsers may have it built in (hstspreload.org).
    pub preload: bool,
}

const YEAR: Duration = Duration::from_hours(24 * 365);

impl Default for Hsts {
    fn default() -> Self {
        Self { max_age: YEAR, include_subdomains: false, preload: false }
    }
}

impl Hsts {
    fn from_raw(raw: &raw::HstsTable, problems: &mut Problems) -> Self {
        let default = Self::default();
        let range = Duration::ZERO..=10 * YEAR;
        let max_age = within(raw.max_age.as_ref(), default.max_age, range, "max_age", problems);
        let is_set = |entry: &Option<Entry<bool>>| entry.as_ref().is_some_and(|entry| entry.value);
        let (include_subdomains, preload) = (is_set(&raw.include_subdomains), is_set(&raw.preload));
        if let Some(entry) = raw.preload.as_ref().filter(|entry| entry.value)
            && (!include_subdomains || max_age < YEAR)
            && !problems.is_lost(&["tls", "hsts"])
        {
            let fault =
                Fault::new("`preload` needs `include_subdomains = true` and a `max_age` of 365d at least");
            problems.error(&entry.span, fault.help("browsers' lists take nothing less (hstspreload.org)"));
        }
        Self { max_age, include_subdomains, preload }
    }
}

/// A certificate chain and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the server's own certificate first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl Written for TlsVersion {
    const EXPECTED: &'static str = "a TLS version, \"1.2\" or \"1.3\"";
    const WORDS: &'static [(&'static str, Self)] = &[("1.2", Self::Tls12), ("1.3", Self::Tls13)];

    fn from_text(text: &str) -> Result<Self, Fault> {
        one_of(text)
    }
}

impl Tls {
    pub(super) fn from_raw(raw: raw::Tls, directory: &Path, problems: &mut Problems) -> Self {
        let hsts = raw.hsts.and_then(|hsts| match hsts.get_ref() {
            raw::Hsts::Off => None,
            raw::Hsts::On(table) => {
                let read = Hsts::from_raw(table, problems);
                if raw.certificates.is_empty() && !problems.has_errors() {
                    // RFC 6797 section 8.4: no way past the browser's warning any more.
                    let fault = Fault::new("browsers will refuse the self-signed certificate for good");
                    problems.warn(&hsts.span(), fault.help("name a certificate that they trust first"));
                }
                Some(read)
            }
        });
        let read = |certificate: toml::Spanned<raw::Certificate>| {
            let span = certificate.span();
            certificate_files(certificate.into_inner(), &span, directory, problems)
        };
        let self_signed = raw.self_signed.map_or_else(|| PathBuf::from("certs"), |entry| entry.value);
        Self {
            certificates: raw.certificates.into_iter().filter_map(read).collect(),
            self_signed_directory: resolve(directory, &self_signed),
            min_version: raw.min_version.map(|version| version.value).unwrap_or_default(),
            hsts,
        }
    }
}

fn certificate_files(
    raw: raw::Certificate,
    span: &Range<usize>,
    directory: &Path,
    problems: &mut Problems,
) -> Option<CertificateFiles> {
    let (Some(cert), Some(key)) = (raw.cert, raw.key) else {
        if !problems.is_lost(&["tls", "certificates"]) {
            let help = "write { cert = \"certs/example.pem\", key = \"certs/example.key\" }";
            problems.error(span, Fault::new("a certificate needs both `cert` and `key`").help(help));
        }
        return None;
    };
    let cert = certificates_file(&cert, directory, problems);
    Some(CertificateFiles { cert, key: key_file(&key, directory, problems) })
}

/// Checks a file that must hold certificates; the path, resolved.
pub(super) fn certificates_file(
    entry: &Entry<PathBuf>,
    directory: &Path,
    problems: &mut Problems,
) -> PathBuf {
    let path = resolve(directory, &entry.value);
    if let Some(pem) = pem(&path, entry, problems) {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.expose()).collect();
        match all {
            Ok(all) if !all.is_empty() => {}
            Ok(_) => problems.error(&entry.span, not_pem(&path, "certificate", "BEGIN CERTIFICATE")),
            Err(_) => problems.error(&entry.span, broken_pem(&path)),
        }
    }
    path
}

fn key_file(entry: &Entry<PathBuf>, directory: &Path, problems: &mut Problems) -> PathBuf {
    let path = resolve(directory, &entry.value);
    if let Some(pem) = pem(&path, entry, problems) {
        match PrivateKeyDer::from_pem_slice(pem.expose()) {
            Ok(_) => {}
            Err(rustls_pki_types::pem::Error::NoItemsFound) => {
                problems.error(&entry.span, not_pem(&path, "private key", "BEGIN PRIVATE KEY"));
            }
            Err(_) => problems.error(&entry.span, broken_pem(&path)),
        }
    }
    path
}

fn pem(path: &Path, entry: &Entry<PathBuf>, problems: &mut Problems) -> Option<Secret> {
    match read_bounded(path, PEM_BYTES_MAX) {
        Ok(bytes) => Some(Secret::new(bytes)),
        Err(error) => {
            let shown = quote(&path.to_string_lossy());
            let fault = Fault::new(format!("cannot read {shown}: {error}"));
            problems.error(&entry.span, fault.help("relative paths start at the configuration file"));
            None
        }
    }
}

/// The whole file, or an error if it is longer than `bytes_max`.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(std::io::Error::other(format!("larger than {bytes_max} bytes")));
    }
    Ok(bytes)
}

// The parser's own error quotes the file, which may be a key, so it is not passed on.
fn broken_pem(path: &Path) -> Fault {
    Fault::new(format!("{} is not well-formed PEM", quote(&path.to_string_lossy())))
}

fn not_pem(path: &Path, what: &str, marker: &str) -> Fault {
    let fault = Fault::new(format!("no {what} in {}", quote(&path.to_string_lossy())));
    fault.help(format!("it must be PEM, with a line -----{marker}-----"))
}
