//! TLS: certificates chosen by SNI, and one configuration with its ticket keys for all cores.

use crate::clock::UnixSeconds;
use crate::config::{CertificateFiles, Tls, TlsVersion};
use parking_lot::Mutex;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion};
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// The key is not the certificate's, or of a kind that is not supported.
    #[error("{} cannot be used with {}", key.display(), cert.display())]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The self-signed certificate cannot be made.
    #[error("cannot make a self-signed certificate")]
    Make(#[from] rcgen::Error),
    /// The self-signed certificate cannot be written.
    #[error("cannot write {}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate is outside of its validity (RFC 5280 section 4.1.2.5): clients would refuse it.
    #[error("the certificate {file} {what}")]
    Outside {
        /// Its file.
        file: String,
        /// Since when it is of no use any more, or from when on it will be.
        what: String,
    },
    /// rustls refuses the settings.
    #[error("cannot set TLS up")]
    Settings(#[from] rustls::Error),
}

/// Certificates by name.
#[derive(Debug)]
struct BySni {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By the name behind `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    /// For names that nobody knows, and clients that name none: the first configured.
    default: Arc<CertifiedKey>,
}

impl BySni {
    fn new(certificates: &[Arc<CertifiedKey>], default: Arc<CertifiedKey>) -> Self {
        let mut this = Self { exact: HashMap::new(), wildcard: HashMap::new(), default };
        for certificate in certificates {
            for name in names(certificate) {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut this.wildcard, parent.to_owned()),
                    None => (&mut this.exact, name),
                };
                // The first certificate with a name has it.
                map.entry(name).or_insert_with(|| Arc::clone(certificate));
            }
        }
        this
    }

    fn find(&self, name: &str) -> &Arc<CertifiedKey> {
        let name = name.to_ascii_lowercase();
        // RFC 6125 section 6.4.3: a wildcard stands for one label.
        let parent = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        self.exact.get(&name).or_else(parent).unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = hello.server_name().map_or(&self.default, |name| self.find(name));
        Some(Arc::clone(found))
    }
}

/// DNS names of a certificate, in lower case.
fn names(certificate: &CertifiedKey) -> Vec<String> {
    let Some(leaf) = certificate.cert.first() else { return Vec::new() };
    match webpki::EndEntityCert::try_from(leaf) {
        Ok(leaf) => leaf.valid_dns_names().map(str::to_ascii_lowercase).collect(),
        Err(_) => Vec::new(),
    }
}

/// Keys of session tickets, kept from one configuration to the next so that clients go on resuming their sessions.
///
/// They are kept as long as no certificate is withdrawn. A client that resumes a session sees no certificate (RFC 8446
/// section 2.2): with the old keys it would go on for hours by one that was replaced, which may be because its key is
/// known to others. A renewal so costs each client one full handshake. Nothing else of a session outlives a change:
/// versions below `min_version` are refused before a ticket is looked at, a ticket is good only for the version, cipher
/// suite and server name that it was made for, and tickets tell nothing of who the client is: there are no client
/// certificates. The keys themselves change every 6 hours (rustls), and are not written anywhere.
#[derive(Debug, Default)]
pub struct Tickets(Mutex<Option<TicketKeys>>);

#[derive(Debug)]
struct TicketKeys {
    ticketer: Arc<dyn ProducesTickets>,
    /// The chains of certificates that were shown when sessions began.
    chains: Vec<Vec<CertificateDer<'static>>>,
}

impl Tickets {
    /// The old keys if all old certificates are among these, new keys else.
    fn with(&self, keys: &[Arc<CertifiedKey>]) -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
        let chains: Vec<_> = keys.iter().map(|key| key.cert.clone()).collect();
        let mut current = self.0.lock();
        let kept = current.as_ref().filter(|old| old.chains.iter().all(|chain| chains.contains(chain)));
        let ticketer = match kept {
            Some(old) => Arc::clone(&old.ticketer),
            None => provider::Ticketer::new()?,
        };
        *current = Some(TicketKeys { ticketer: Arc::clone(&ticketer), chains });
        Ok(ticketer)
    }
}

/// Makes the configuration that all cores share.
///
/// # Errors
/// If a certificate or key cannot be read, or the two do not belong together.
pub fn server_config(
    tls: &Tls,
    certificates: &[CertificateFiles],
    tickets: &Tickets,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(provider::default_provider());
    let keys = certificates.iter().map(|files| certified_key(files, &provider).map(Arc::new));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let default = keys.first().map(Arc::clone).ok_or(rustls::Error::NoCertificatesPresented)?;
    let versions: &[&SupportedProtocolVersion] = match tls.min_version {
        TlsVersion::Tls12 => rustls::ALL_VERSIONS,
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(BySni::new(&keys, default)));
    // A client that offers neither is refused (RFC 7301 section 3.2).
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = tickets.with(&keys)?;
    // One ticket is enough for clients that use one connection; the second costs a write on every handshake.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

fn certified_key(files: &CertificateFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Unreadable { path, source }
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&files.cert).map_err(unreadable(&files.cert))?.collect();
    let chain = chain.map_err(unreadable(&files.cert))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(unreadable(&files.key))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|source| TlsError::Unusable {
        cert: files.cert.clone(),
        key: files.key.clone(),
        source,
    })
}

/// What operators want to know of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its file.
    pub file: String,
    /// The first second that it is good for, since 1970.
    pub begins: i64,
    /// Its end, in seconds since 1970: the last second that it is good for.
    pub ends: i64,
}

impl Facts {
    /// That it is good at this time.
    ///
    /// # Errors
    /// If it has ended, or not begun.
    pub fn good_at(&self, now: UnixSeconds) -> Result<(), TlsError> {
        let date = |seconds| {
            ASN1Time::from_timestamp(seconds).map_or_else(|_| seconds.to_string(), |date| date.to_string())
        };
        let what = if now.0 > self.ends {
            format!("has ended ({})", date(self.ends))
        } else if now.0 < self.begins {
            format!("is not valid yet (before {})", date(self.begins))
        } else {
            return Ok(());
        };
        Err(TlsError::Outside { file: self.file.clone(), what })
    }
}

/// That these certificates may take the place of those in use: none that clients refuse does in the place of one that
/// they take. The place is that of the same file; of a file that is not in use, that of all of them.
///
/// # Errors
/// For the first that is outside of its validity, unless what it replaces is, too.
pub fn replaceable(new: &[Facts], in_use: &[Facts], now: UnixSeconds) -> Result<(), TlsError> {
    let is_good = |facts: &Facts| facts.good_at(now).is_ok();
    let replaces_good = |facts: &Facts| match in_use.iter().find(|old| old.file == facts.file) {
        Some(old) => is_good(old),
        None => in_use.iter().any(is_good),
    };
    new.iter().filter(|facts| replaces_good(facts)).try_for_each(|facts| facts.good_at(now))
}

/// Reads when certificates begin and end; one that cannot be read is left out.
pub fn facts(certificates: &[CertificateFiles]) -> Vec<Facts> {
    let facts = |files: &CertificateFiles| {
        let leaf = CertificateDer::from_pem_file(&files.cert).ok()?;
        let (_, leaf) = X509Certificate::from_der(&leaf).ok()?;
        let validity = leaf.validity();
        Some(Facts {
            file: files.cert.display().to_string(),
            begins: validity.not_before.timestamp(),
            ends: validity.not_after.timestamp(),
        })
    };
    certificates.iter().filter_map(facts).collect()
}

/// The self-signed certificate of this directory; made on first use for these names and the loopback ones.
///
/// # Errors
/// If it cannot be made or written.
pub fn self_signed(directory: &Path, names: &[String]) -> Result<CertificateFiles, TlsError> {
    let files =
        CertificateFiles { cert: directory.join("self-signed.pem"), key: directory.join("self-signed.key") };
    if files.cert.exists() && files.key.exists() {
        return Ok(files);
    }
    let mut subjects: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    subjects.extend(names.iter().cloned());
    let made = rcgen::generate_simple_self_signed(subjects)?;
    let unwritable = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Unwritable { path, source }
    };
    fs::create_dir_all(directory).map_err(unwritable(directory))?;
    // The key first: a certificate without a key would be taken for a finished pair by nobody.
    write(&files.key, made.signing_key.serialize_pem().as_bytes(), 0o600).map_err(unwritable(&files.key))?;
    write(&files.cert, made.cert.pem().as_bytes(), 0o644).map_err(unwritable(&files.cert))?;
    Ok(files)
}

/// Writes a file whole or not at all, never readable by more than `mode` allows.
fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn tls(directory: &Path) -> Tls {
        Tls {
            certificates: Vec::new(),
            self_signed_directory: directory.to_owned(),
            min_version: TlsVersion::Tls12,
            hsts: None,
        }
    }

    #[test]
    fn the_self_signed_certificate_is_made_once_and_its_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let certs = directory.path().join("certs");
        let files = self_signed(&certs, &["api.example.com".to_owned()]).unwrap();
        let first = fs::read(&files.key).unwrap();
        assert_eq!(fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
        self_signed(&certs, &[]).unwrap();
        assert_eq!(fs::read(&files.key).unwrap(), first);
        assert!(server_config(&tls(&certs), &[files], &Tickets::default()).is_ok());
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let one = self_signed(&directory.path().join("1"), &[]).unwrap();
        let two = self_signed(&directory.path().join("2"), &[]).unwrap();
        let mixed = CertificateFiles { cert: one.cert, key: two.key };
        let refused = server_config(&tls(directory.path()), &[mixed], &Tickets::default());
        assert!(matches!(refused, Err(TlsError::Unusable { .. })));
    }

    #[test]
    fn a_certificate_is_good_from_its_first_to_its_last_second() {
        let facts = Facts { file: "a.pem".to_owned(), begins: 1_000_000_000, ends: 1_600_000_000 };
        let told = |now| facts.good_at(UnixSeconds(now)).err().map(|error| error.to_string());
        assert_eq!((told(1_000_000_000), told(1_600_000_000)), (None, None));
        let ended = told(1_600_000_001).unwrap();
        assert!(ended.starts_with("the certificate a.pem has ended (Sep 13 12:26:40 2020"), "{ended}");
        let early = told(999_999_999).unwrap();
        assert!(
            early.starts_with("the certificate a.pem is not valid yet (before Sep  9 01:46:40 2001"),
            "{early}"
        );
    }

    #[test]
    fn nothing_that_clients_refuse_takes_the_place_of_what_they_take() {
        let facts = |file: &str, ends| Facts { file: file.to_owned(), begins: 0, ends };
        let (good, ended) = (|file| facts(file, 100), |file| facts(file, 49));
        for (new, in_use, is_replaceable) in [
            (vec![good("a")], vec![good("a")], true),
            (vec![ended("a")], vec![good("a")], false),
            (vec![ended("a")], vec![ended("a")], true),
            (vec![good("a")], vec![ended("a")], true),
            // Each for its own place.
            (vec![good("a"), ended("b")], vec![good("a"), ended("b")], true),
            (vec![good("a"), ended("b")], vec![ended("a"), good("b")], false),
            // Another file.
            (vec![good("a"), ended("c")], vec![good("a")], false),
            (vec![ended("c")], vec![ended("a")], true),
        ] {
            let replaced = replaceable(&new, &in_use, UnixSeconds(50));
            assert_eq!(replaced.is_ok(), is_replaceable, "{new:?} for {in_use:?}");
        }
    }

    #[test]
    fn ticket_keys_are_kept_until_a_certificate_is_withdrawn() {
        let directory = tempfile::tempdir().unwrap();
        let tls = tls(directory.path());
        let tickets = Tickets::default();
        let make = |folder: &str| self_signed(&directory.path().join(folder), &[]).unwrap();
        let (one, two) = (make("1"), make("2"));
        let ticketer = |certificates: &[&CertificateFiles]| {
            let certificates: Vec<_> = certificates.iter().map(|files| (*files).clone()).collect();
            Arc::clone(&server_config(&tls, &certificates, &tickets).unwrap().ticketer)
        };
        let first = ticketer(&[&one]);
        assert!(Arc::ptr_eq(&first, &ticketer(&[&one])));
        assert!(Arc::ptr_eq(&first, &ticketer(&[&two, &one])), "one more");
        let second = ticketer(&[&one]);
        assert!(!Arc::ptr_eq(&first, &second), "withdrawn");
        assert!(!Arc::ptr_eq(&second, &ticketer(&[&two])), "replaced");
    }

    #[test]
    fn certificates_are_chosen_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let provider = provider::default_provider();
        let key = |names: &[&str], folder: &str| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let files = self_signed(&directory.path().join(folder), &names).unwrap();
            Arc::new(certified_key(&files, &provider).unwrap())
        };
        let first = key(&["a.example.com"], "a");
        let second = key(&["*.example.com", "b.example.org"], "b");
        let by_sni = BySni::new(&[Arc::clone(&first), Arc::clone(&second)], Arc::clone(&first));
        for (name, expected) in [
            ("A.example.com", &first),
            ("x.example.com", &second),
            ("x.y.example.com", &first),
            ("b.example.org", &second),
            ("unknown", &first),
        ] {
            assert!(Arc::ptr_eq(by_sni.find(name), expected), "{name}");
        }
    }
}
