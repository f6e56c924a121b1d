//! A certificate authority of the tests' own, and what it vouches for.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::path::{Path, PathBuf};

use super::process::write;

/// The file of the authority, in the server's directory.
pub(crate) const AUTHORITY: &str = "authority.pem";

/// Where the files of a server's certificate are.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The authority: what clients have to trust.
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Makes an authority, and with it a certificate of `localhost` and `127.0.0.1`.
pub(crate) fn certify(directory: &Path) -> Identity {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "authority of a test");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    let paths = [AUTHORITY, "server.pem", "server.key"];
    let [authority_path, certificate_path, key_path] = paths.map(|name| directory.join(name));
    write(&authority_path, &authority.pem());
    write(&certificate_path, &certificate.pem());
    write(&key_path, &key.serialize_pem());
    Identity { authority: authority_path, certificate: certificate_path, key: key_path }
}
